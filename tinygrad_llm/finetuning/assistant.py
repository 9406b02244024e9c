"""Instructions and answers: how an entry becomes a prompt, and how entries become batches.

The task itself is `LanguageModeling`: predict each token from those before it. Only other targets count.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import DataError, Entry, Pair
from tinygrad_llm.kernels import IGNORE_INDEX
from tinygrad_llm.models import GPT
from tinygrad_llm.tokenizer import AnyTokenizer
from tinygrad_llm.training.padded import pad
from tinygrad_llm.training.task import Task


class Style(NamedTuple):
    """How an entry is written: `prompt` of instruction and input, then `answer`, then the answer after a `space`."""

    prompt: Callable[[str, str], str]
    answer: str
    space: str = ""


def _alpaca(instruction: str, input: str) -> str:
    text = (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request."
        f"\n\n### Instruction:\n{instruction}"
    )
    return f"{text}\n\n### Input:\n{input}" if input else text


def _plain(instruction: str, input: str) -> str:
    return f"Q: {instruction}" + (f" {input}" if input else "")


def _phi3(instruction: str, input: str) -> str:
    return f"<|user|>\n{instruction}" + (f" {input}" if input else "")


# Taori et al. 2023 (Stanford Alpaca); Abdin et al. 2024, arXiv:2404.14219 (Phi-3); and one of few tokens, for small
# models whose tokenizers cut the words of the other two into many pieces.
STYLES = {
    "alpaca": Style(_alpaca, "\n\n### Response:\n"),
    "phi3": Style(_phi3, "\n<|assistant|>:\n"),
    "plain": Style(_plain, "\nA:", " "),
}


def prompt_of(instruction: str, input: str, style: Style) -> str:
    """The text that the model continues with its answer."""
    return style.prompt(instruction, input) + style.answer


def collate(
    rows: Sequence[Sequence[int]],
    pad_id: int,
    prompt_lengths: Sequence[int] | None = None,
    max_length: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Inputs, and targets one token later, both padded on the right with the end-of-text token.

    One end-of-text token after each row stays a target, so that the model learns to stop. The targets after it are
    −100, which no loss counts.

    Args:     rows: the ids of each text. pad_id: of the end-of-text token. prompt_lengths: tokens of each prompt, whose
              targets do not count either; None: they count. max_length: cut inputs and targets to so many tokens.
    Returns:  (N, longest) each.
    Source:   the book, section 7.3 and exercise 7.2.
    """
    inputs = pad(rows, pad_id)
    targets = pad([[*row[1:], pad_id] for row in rows], IGNORE_INDEX)
    for target, length in zip(targets, prompt_lengths or (), strict=prompt_lengths is not None):
        target[: max(0, length - 1)] = IGNORE_INDEX
    return inputs[:, :max_length], targets[:, :max_length]


def refuse_special(examples: Sequence[Entry | Pair], tokenizer: AnyTokenizer, path: str | Path) -> None:
    """Raise DataError for a special token in an entry or a pair, whose number in the file is named."""
    for number, example in enumerate(examples, 1):
        for name, text in example._asdict().items():
            for token in tokenizer.special_tokens:
                if name != "kind" and token in text:
                    raise DataError(f"{path}: entry {number}: {name} holds the special token {token}: remove it")


class Encoded(NamedTuple):
    """Entries as ids: "ids", "targets" (N, T) and "lengths" (N,); and the numbers of entries with a cut answer."""

    examples: dict[str, NDArray[np.int64]]
    cut: list[int]  # they end before their answer does
    dropped: list[int]  # nothing of their answer is left: they are not among the examples


def encode_entries(
    entries: Sequence[Entry], tokenizer: AnyTokenizer, style: Style, block_size: int, mask_prompt: bool = False
) -> Encoded:
    """Entries as inputs and targets, cut to what the model can read.

    Args:     mask_prompt: whether the targets of the prompt do not count.
    Raises:   DataError: the tokenizer has no end-of-text token; no entry has an answer within block_size tokens.
    """
    end = tokenizer.eot_token
    if end is None:
        raise DataError("the tokenizer has no end-of-text token, so the model could not learn where an answer ends")
    rows, prompts, cut, dropped = [], [], [], []
    for number, entry in enumerate(entries):
        prompt = tokenizer.encode(prompt_of(entry.instruction, entry.input, style))
        row = prompt + tokenizer.encode(style.space + entry.output)
        if len(prompt) >= block_size:
            dropped.append(number)
            continue
        if len(row) > block_size:
            cut.append(number)
        rows.append(row)
        prompts.append(len(prompt))
    if not rows:
        raise DataError(f"none of the {len(entries)} entries has its answer within the model's {block_size} tokens")
    ids, targets = collate(rows, end, prompts if mask_prompt else None, block_size)
    lengths = np.array([min(len(row), block_size) for row in rows])
    return Encoded({"ids": ids, "targets": targets, "lengths": lengths}, cut, dropped)


class Instructions(Task):
    """Language modeling on prompts with answers. A batch is {"ids": (B, T), "targets": (B, T), "lengths": (B,)}."""

    def loss(self, model: GPT, batch: dict[str, Any], total: int) -> Tensor:
        return model.loss(batch["ids"], batch["targets"], 0.0, total)

    def count(self, batch: dict[str, Any]) -> int:
        return int(np.count_nonzero(batch["targets"] != IGNORE_INDEX))


def token_f1(answer: str, expected: str) -> float:
    """The harmonic mean of precision and recall of the words of an answer, whatever their order.

    Source:   Rajpurkar et al. 2016, arXiv:1606.05250 (SQuAD).
    """
    words, right = Counter(answer.split()), Counter(expected.split())
    shared = sum((words & right).values())
    if not words or not right:
        return float(words == right)
    return 2 * shared / (words.total() + right.total())


def exact_match(answer: str, expected: str) -> bool:
    """Whether the answer is the expected one, apart from white space around it."""
    return answer.strip() == expected.strip()
