"""Prompts: the next tokens that a model expects, and tasks that it solves by prompting alone.

A task is solved without training (zero-shot), or after a few solved examples in the prompt (few-shot): the label is
chosen that is likeliest after the text.

Source:   Brown et al. 2020, arXiv:2005.14165 (GPT-3).
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygrad_llm.datasets import DataError, reading
from tinygrad_llm.datasets.checks import parsed
from tinygrad_llm.evaluation.choices import Choice, score_choices
from tinygrad_llm.generation import next_token_probs
from tinygrad_llm.models import GPT
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.files import MAX_JSON, data_folder, open_regular, show
from tinygrad_llm.tokenizer import AnyTokenizer, Special


def next_tokens(model: GPT, ids: Sequence[int], top: int, n_vocab: int | None = None) -> list[tuple[int, float]]:
    """Return the `top` likeliest tokens after ids, with their probabilities, the likeliest first.

    Ids of `n_vocab` or more, which only pad the vocabulary, are left out; None: all are listed.

    Args:     ids: (T,), at least one; if they are more than a block, the model reads the last block of them.
    Raises:   ValueError: no ids, top below 1, or scores that are NaN or infinite.
    """
    if top < 1:
        raise ValueError(f"top must be at least 1, got {top}")
    with model.evaluating(), np.errstate(all="ignore"):
        probs = next_token_probs(model(np.array([ids[-model.block_size :]])).data[:, -1])[0]
    return [(int(i), float(probs[i])) for i in np.argsort(-probs[:n_vocab], kind="stable")[:top]]


class PromptTask(NamedTuple):
    """A task in words. An example is a text and the number of its label."""

    instruction: str
    labels: tuple[str, ...]
    words: tuple[str, ...]  # of each label: what the model is to write
    examples: list[tuple[str, int]]
    where: str  # the name of the task in errors


class FewShotScore(NamedTuple):
    """How many of a task's texts got the right label after `shots` solved examples."""

    shots: int
    n: int
    accuracy: float
    standard_error: float  # of the accuracy
    cut: int  # prompts that lost their beginning, because they did not fit into the block


def read_prompts(name: str | Path) -> PromptTask:
    """Read a task: {"instruction": …, "labels": {"ham": "no", …}, "examples": [{"text": …, "label": "ham"}, …]}.

    `labels` gives each label its word, which the model is to write; a list where these are the same.

    Args:     name: a path, or "spam", the task that ships with the package.
    Raises:   DataError: the file cannot be read, or is not of this form; the field is named.
    """
    path = data_folder() / "spam.json" if name == "spam" else Path(name)
    with reading(path), open_regular(path) as file:
        data = file.read(MAX_JSON + 1)
    fields = parsed(str(path), data, "give a JSON object with instruction, labels, examples")
    labels_wanted = "at least two different texts, or an object with such a word for each label"
    wanted = {"instruction": "a text", "labels": labels_wanted, "examples": "a list of examples"}
    if not isinstance(fields, dict) or fields.keys() != wanted.keys():
        raise DataError(f"{path}: must be a JSON object with {', '.join(wanted)}, got {show(fields)}")
    instruction, labels, examples = (fields[name] for name in wanted)
    words = list(labels.values()) if isinstance(labels, dict) else labels
    good = {
        "instruction": isinstance(instruction, str),
        "labels": isinstance(words, list) and all(map(_is_text, [*words, *labels])) and _differ(words),
        "examples": isinstance(examples, list) and len(examples) > 0,
    }
    for name, is_good in good.items():
        if not is_good:
            raise DataError(f"{path}: {name} must be {wanted[name]}, got {show(fields[name])}")
    return PromptTask(
        instruction,
        tuple(labels),
        tuple(words),
        [_read_example(x, list(labels), f"{path}: example {number}") for number, x in enumerate(examples, 1)],
        str(path),
    )


def _read_example(fields: Any, labels: list[str], where: str) -> tuple[str, int]:
    if not isinstance(fields, dict) or fields.keys() != {"text", "label"} or not _is_text(fields["text"]):
        raise DataError(f"{where}: must be an object with text and label, got {show(fields)}")
    if fields["label"] not in labels:
        raise DataError(f"{where}: label must be one of {', '.join(labels)}, got {show(fields['label'])}")
    return fields["text"], labels.index(fields["label"])


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _differ(words: list[str]) -> bool:
    """Whether there are at least two, which differ in more than white space."""
    return len({word.strip() for word in words}) == len(words) > 1


def check_shots(task: PromptTask, shots: int) -> None:
    """Raise ValueError for more solved examples than a text can have before it."""
    n = len(task.examples)
    if not 0 <= shots < n:
        raise ValueError(f"{task.where}: got {shots} shots, which must be from 0 to {n - 1}: there are {n} examples")


def few_shot_items(task: PromptTask, shots: int, rng: Generator) -> list[Choice]:
    """Each text of a task as an item of multiple choice, whose endings are the words of the labels.

    Args:     shots: solved examples before each text. rng: draws them from the task's other texts, for each text again.
    Raises:   ValueError: more shots than there are other texts.
    """
    check_shots(task, shots)
    n = len(task.examples)

    def block(number: int, solved: bool) -> str:
        text, label = task.examples[number]
        return f"Text: {text}\nLabel:" + (f" {task.words[label]}" if solved else "")

    items = []
    for number, (_, label) in enumerate(task.examples):
        others = [i + (i >= number) for i in rng.randperm(n - 1)[:shots].tolist()]
        blocks = [task.instruction, *(block(i, True) for i in others), block(number, False)]
        where = f"{task.where}: example {number + 1}"
        items.append(Choice("\n\n".join(part for part in blocks if part), task.words, label, where))
    return items


def score_prompts(
    model: GPT,
    tokenizer: AnyTokenizer,
    task: PromptTask,
    shots: int,
    seed: int = 0,
    batch_size: int | None = None,
    special: Special = "error",
    refuse: bool = False,
) -> FewShotScore:
    """Let a model choose a label for each text of a task: that of the word with the largest Σ ln p(token | prompt).

    Args:     shots, seed: see `few_shot_items`. batch_size, special, refuse: as for `score_choices`.
    Raises:   as `few_shot_items` and `score_choices`.
    """
    items = few_shot_items(task, shots, Generator(seed))
    scores = list(score_choices(model, tokenizer, items, batch_size, special, refuse))
    n = len(scores)
    accuracy = sum(score.right for score in scores) / n
    return FewShotScore(shots, n, accuracy, standard_error(accuracy, n), sum(score.cut for score in scores))


def standard_error(accuracy: float, n: int) -> float:
    """Of an accuracy p on n texts: √(p (1 − p) / n)."""
    return math.sqrt(accuracy * (1 - accuracy) / n)
