"""Multiple choice: which of four endings does a model find likeliest?"""

import reprlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygrad_llm.datasets import DataError
from tinygrad_llm.datasets.checks import parsed
from tinygrad_llm.evaluation.losses import Window, in_batches, rows_at_once, token_losses
from tinygrad_llm.generation import crop
from tinygrad_llm.kernels import IGNORE_INDEX
from tinygrad_llm.models import GPT
from tinygrad_llm.storage.files import data_folder
from tinygrad_llm.tokenizer import AnyTokenizer, Special, encode_text

ENDINGS = 4  # per item
MAX_LINE = 1 << 20  # bytes of a line of a choices file
_FORM = "a line must be a JSON object with ctx, endings and label"
_MAX_BYTES = 400_000_000  # of all lines, which are kept in memory; HellaSwag has 100 MB


class Choice(NamedTuple):
    """An item of multiple choice: a context and its possible endings. `where` is the name of the item in errors."""

    ctx: str
    endings: tuple[str, ...]
    label: int  # the index of the right ending
    where: str


def read_choices(file: str) -> list[Choice]:
    """Read items of multiple choice: one JSON object per line, {"ctx": …, "endings": [4 texts], "label": 0 … 3}.

    Other fields and empty lines are ignored.

    Args:     file: a path, or "choices", the file that ships with the package.
    Raises:   DataError: the file cannot be read, or has no item; a line is not valid, and the field is named.
    Source:   the format of HellaSwag: Zellers et al. 2019, arXiv:1905.07830.
    """
    path = data_folder() / "choices.jsonl" if file == "choices" else Path(file)
    items = []
    try:
        with open(path, "rb") as lines:
            number = size = 0
            while line := lines.readline(MAX_LINE + 1):
                number, size = number + 1, size + len(line)
                if size > _MAX_BYTES:
                    raise DataError(f"{file}: longer than the {_MAX_BYTES} bytes accepted")
                if line.strip():
                    items.append(_read_item(line, f"{file}: line {number}"))
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; the one that ships with the package is named choices") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    if not items:
        raise DataError(f"{file}: the file is empty; give one line of JSON per item")
    return items


def _read_item(line: bytes, where: str) -> Choice:
    if len(line) > MAX_LINE:
        raise DataError(f"{where}: longer than {MAX_LINE} bytes")
    fields = parsed(where, line.rstrip(b"\n"), _FORM)
    if not isinstance(fields, dict):
        raise DataError(f"{where}: got {reprlib.repr(fields)}: {_FORM}")

    def is_text(value: object) -> bool:
        return isinstance(value, str) and bool(value.strip())

    checks: dict[str, tuple[str, Callable[[Any], bool]]] = {
        "ctx": ("a text", is_text),
        "endings": (f"{ENDINGS} texts", lambda v: isinstance(v, list) and len(v) == ENDINGS and all(map(is_text, v))),
        "label": (f"an integer in 0 … {ENDINGS - 1}", lambda v: type(v) is int and 0 <= v < ENDINGS),
    }
    for name, (wanted, holds) in checks.items():
        if name not in fields:
            raise DataError(f"{where}: {name} is missing")
        if not holds(fields[name]):
            raise DataError(f"{where}: {name} must be {wanted}, got {reprlib.repr(fields[name])}")
    return Choice(fields["ctx"], tuple(fields["endings"]), fields["label"], where)


class ChoiceScore(NamedTuple):
    """ln p(ending | ctx) of each ending of an item: summed over its tokens, and this sum per character."""

    sums: list[float]
    normalized: list[float]
    label: int
    cut: bool  # whether the context lost its beginning, because it did not fit into the block

    @property
    def right(self) -> bool:
        """Whether the right ending has the largest sum (the mean over all items is `acc`)."""
        return int(np.argmax(self.sums)) == self.label

    @property
    def right_normalized(self) -> bool:
        """Whether the right ending has the largest sum per character (the mean is `acc_norm`)."""
        return int(np.argmax(self.normalized)) == self.label


class _Row(NamedTuple):
    """The ids of a context and one ending; only the last `scored` of them are scored."""

    ids: list[int]
    scored: int


def score_choices(
    model: GPT,
    tokenizer: AnyTokenizer,
    items: Sequence[Choice],
    batch_size: int | None = None,
    special: Special = "error",
    refuse: bool = False,
) -> Iterator[ChoiceScore]:
    """Compute how likely a model finds each ending of each item.

    Context and ending are encoded separately, the ending with one space before it, so that all endings follow the same
    tokens. The sum prefers short endings, so it is also divided by the characters. If context and ending do not fit
    into the block, the context loses its beginning, or is refused. Rows of a batch are padded on the right, where
    attention does not look; the targets of the padding are −100.

    Args:     batch_size: endings at once; None: as many as 64 MB of logits allow.
              special: what a special token in a text becomes (see `tokenizer.special`). refuse: see `generation.crop`.
    Raises:   DataError: a text that the tokenizer cannot encode, or that is refused; an ending longer than the block,
              or without a token; all before anything is scored. ValueError: batch_size is below 1; the model's scores
              are NaN or infinite.
    Source:   acc and acc_norm as in EleutherAI's lm-evaluation-harness (task hellaswag).
    """
    size = rows_at_once(model, batch_size)
    encoded = [_encode_item(tokenizer, item, model.block_size, special, refuse) for item in items]

    def scores() -> Iterator[ChoiceScore]:
        rows = (row for item_rows, _ in encoded for row in item_rows)
        sums = (
            float(total)
            for batch in in_batches(rows, size)
            for total in -np.sum(token_losses(model, *_pad(batch)), axis=1)
        )
        for item, (_, cut) in zip(items, encoded, strict=True):
            of_endings = [next(sums) for _ in item.endings]
            lengths = [len(text.strip()) for text in item.endings]
            normalized = [total / length for total, length in zip(of_endings, lengths, strict=True)]
            yield ChoiceScore(of_endings, normalized, item.label, cut)

    return scores()


def _encode_item(
    tokenizer: AnyTokenizer, item: Choice, block_size: int, special: Special, refuse: bool
) -> tuple[list[_Row], bool]:
    """Return a row per ending, and whether the context lost its beginning in one of them."""
    rows, cut = [], False
    try:
        ctx = encode_text(tokenizer, item.ctx.rstrip(), special, f"{item.where}: ctx")
        for text in item.endings:
            ending = encode_text(tokenizer, " " + text.strip(), special, f"{item.where}: endings")
            if len(ending) > block_size:
                raise DataError(
                    f"{item.where}: endings: one has {len(ending)} tokens, and the model reads {block_size} at once"
                )
            if not ending:
                raise DataError(f"{item.where}: endings: {text!r} has no tokens, so nothing of it could be scored")
            *ids, target = ctx + ending  # the last id is only a target
            cut |= len(ids) > block_size
            read = crop(ids, block_size, refuse, what=f"{item.where}: the text with an ending")
            rows.append(_Row([*read, target], len(ending)))
    except ValueError as error:
        raise DataError(str(error)) from error
    return rows, cut


def _pad(rows: list[_Row]) -> Window:
    """Return the inputs and targets, (B, T) each; targets that are not scored are −100."""
    longest = max(len(ids) for ids, _ in rows) - 1
    inputs = np.zeros((len(rows), longest), np.int64)
    targets = np.full((len(rows), longest), IGNORE_INDEX, np.int64)
    for i, (ids, scored) in enumerate(rows):
        n = len(ids) - 1
        inputs[i, :n] = ids[:-1]
        targets[i, n - scored : n] = ids[-scored:]
    return inputs, targets
