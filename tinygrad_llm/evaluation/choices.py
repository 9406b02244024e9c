"""Multiple choice: which of several endings does a model prefer?"""

import json
import reprlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygrad_llm.datasets import DataError
from tinygrad_llm.evaluation.text import Window, batches_of, default_batch_size, encode, token_losses
from tinygrad_llm.kernels import IGNORE_INDEX
from tinygrad_llm.models import GPT
from tinygrad_llm.storage.data import data_folder
from tinygrad_llm.tokenizer import AnyTokenizer

MAX_LINE = 1 << 20  # bytes of a line of a choices file


ENDINGS = 4  # of an item


class Choice(NamedTuple):
    """An item of multiple choice: which of the endings goes on from `ctx`? `where` names it in messages."""

    ctx: str
    endings: tuple[str, ...]
    label: int  # the right one, from 0
    where: str


def read_choices(file: str) -> list[Choice]:
    """Read items of multiple choice: a line of JSON each, {"ctx": …, "endings": [4 texts], "label": 0 … 3}.

    Other fields are left alone, as are empty lines.

    Args:     file: a path, or "choices", the file that ships with the package.
    Raises:   DataError: the file cannot be read, or holds no item; the line and field that is wrong.
    Source:   the format of HellaSwag: Zellers et al. 2019, arXiv:1905.07830.
    """
    path = data_folder() / "choices.jsonl" if file == "choices" else Path(file)
    items = []
    try:
        with open(path, "rb") as lines:
            number = 0
            while line := lines.readline(MAX_LINE + 1):
                number += 1
                if line.strip():
                    items.append(_read_item(line, f"{file}: line {number}"))
    except FileNotFoundError:
        raise DataError(f"{file}: no such file; the one that ships with the package is named choices") from None
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error
    if not items:
        raise DataError(f"{file}: the file is empty; give a line of JSON for each item")
    return items


def _read_item(line: bytes, where: str) -> Choice:
    if len(line) > MAX_LINE:
        raise DataError(f"{where}: longer than {MAX_LINE} bytes")
    try:
        fields = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise DataError(f"{where}: not a JSON object with ctx, endings and label")

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
            raise DataError(f"{where}: {name} is {reprlib.repr(fields[name])}, not {wanted}")
    return Choice(fields["ctx"], tuple(fields["endings"]), fields["label"], where)


class ChoiceScore(NamedTuple):
    """ln p(ending | ctx) of each ending of an item, as a sum over its tokens and divided by its characters."""

    sums: list[float]
    normalised: list[float]
    label: int
    cut: bool  # whether the context did not fit into the block

    @property
    def right(self) -> bool:
        """Whether the likeliest ending is the right one (the mean over items is `acc`)."""
        return int(np.argmax(self.sums)) == self.label

    @property
    def right_normalised(self) -> bool:
        """… the likeliest per character (`acc_norm`)."""
        return int(np.argmax(self.normalised)) == self.label


def score_choices(
    model: GPT,
    tokenizer: AnyTokenizer,
    items: Sequence[Choice],
    batch_size: int | None = None,
    allow_special: bool = False,
) -> Iterator[ChoiceScore]:
    """How likely a model finds each ending of each item.

    ctx and ending are encoded by themselves, the ending with one space before it, so that all endings go on from the
    same tokens. The sum prefers short endings, which is why it is also given per character. A context that does not fit
    into the block together with its ending loses its beginning. Rows of one batch are padded on the right, where
    attention does not look, and the padding's targets are −100.

    Args:     batch_size: endings at once; None: as many as 64 MB of logits allow.
    Raises:   DataError: a text the tokenizer cannot encode; an ending longer than the block. ValueError: batch_size
              below 1; scores that are not finite.
    Source:   acc and acc_norm as in EleutherAI's lm-evaluation-harness (task hellaswag).
    """
    size = default_batch_size(model, batch_size)
    T = model.block_size
    # All is encoded before anything is scored: a text that cannot be is told of at once.
    cut = [False] * len(items)
    rows: list[tuple[list[int], int]] = []
    for index, item in enumerate(items):
        ctx = encode(tokenizer, item.ctx.rstrip(), allow_special, f"{item.where}: ctx")
        for text in item.endings:
            ending = encode(tokenizer, " " + text.strip(), allow_special, f"{item.where}: endings")
            if len(ending) > T:
                raise DataError(f"{item.where}: endings: one has {len(ending)} tokens, and the model reads {T} at once")
            ids = ctx + ending
            cut[index] |= len(ids) > T + 1
            rows.append((ids[-(T + 1) :], len(ending)))

    def scores() -> Iterator[ChoiceScore]:
        sums: list[float] = []
        index = 0
        for batch in batches_of(rows, size):
            sums += (-np.sum(token_losses(model, *_padded(batch)), axis=1)).tolist()
            while len(sums) >= ENDINGS:
                item = items[index]
                per_ending, sums = sums[:ENDINGS], sums[ENDINGS:]
                each = zip(per_ending, item.endings, strict=True)
                yield ChoiceScore(per_ending, [s / len(text.strip()) for s, text in each], item.label, cut[index])
                index += 1

    return scores()


def _padded(rows: list[tuple[list[int], int]]) -> Window:
    """Inputs and targets (B, T) of rows of ids; of each only the last so many are scored."""
    longest = max(len(ids) for ids, _ in rows) - 1
    inputs = np.zeros((len(rows), longest), np.int64)
    targets = np.full((len(rows), longest), IGNORE_INDEX, np.int64)
    for i, (ids, scored) in enumerate(rows):
        n = len(ids) - 1
        inputs[i, :n] = ids[:-1]
        targets[i, n - scored : n] = ids[-scored:]
    return inputs, targets
