"""The answers of an assistant to instructions, and their score."""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinygrad_llm.datasets import (
    DataError,
    Entry,
    balance,
    cut_parts,
    plain,
    question,
    read_instructions,
    read_messages,
    read_preferences,
    split_messages,
)
from tinygrad_llm.datasets.public import example_file
from tinygrad_llm.finetuning import STYLES
from tinygrad_llm.finetuning.assistant import exact_match, prompt_of, token_f1
from tinygrad_llm.generation import Sampling, crop, write_all
from tinygrad_llm.models import GPT
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.config import RunConfig
from tinygrad_llm.runs.folder import CONFIG, about_run, made_from
from tinygrad_llm.runs.presets import load_config
from tinygrad_llm.storage.files import show
from tinygrad_llm.tokenizer import AnyTokenizer
from tinygrad_llm.training import ConfigError

LONGEST_ANSWER = 100  # tokens, of an answer that is scored
_AT_ONCE = 32  # answers that are written at the same time


def answers(
    model: GPT,
    tokenizer: AnyTokenizer,
    entries: Sequence[Entry],
    style: str,
    longest: int = LONGEST_ANSWER,
    refuse: bool = False,
    progress: Callable[[int], None] = lambda done: None,
) -> tuple[list[str], int]:
    """What the model answers to each instruction, in at most `longest` tokens, choosing the likeliest each time.

    Prompts of one length are continued at the same time, which takes a fraction of the time.

    Args:     refuse: see `generation.crop`. progress: called with the number of answers so far.
    Returns:  the answers; and how many prompts lost their beginning, so that at least one token can follow.
    Raises:   ValueError: a prompt is longer than that, and is refused.
    """
    most = model.block_size - 1
    prompts, cropped = [], 0
    for entry in entries:
        ids = tokenizer.encode(prompt_of(entry.instruction, entry.input, STYLES[style]))
        prompts.append(crop(ids, most, refuse, what=f"the prompt {show(entry.instruction)}"))
        cropped += len(ids) > most
    said, done = [""] * len(prompts), 0
    for length in sorted({len(ids) for ids in prompts}):
        numbers = [i for i, ids in enumerate(prompts) if len(ids) == length]
        for start in range(0, len(numbers), _AT_ONCE):
            some = numbers[start : start + _AT_ONCE]
            room = min(longest, model.block_size - length)
            texts = write_all(model, tokenizer, [prompts[i] for i in some], room, Sampling(0.0))
            for i, text in zip(some, texts, strict=True):
                said[i] = text.strip()
            done += len(some)
            progress(done)
    return said, cropped


def score_answers(
    model: GPT, tokenizer: AnyTokenizer, entries: Sequence[Entry], style: str, *how: Any
) -> dict[str, Any]:
    """Exact match and token F1 of a model's answers, over all entries and by kind of task; and the answers.

    Args:     how: longest, refuse and progress of `answers`.
    """
    said, cropped = answers(model, tokenizer, entries, style, *how)
    rows = [
        (entry.kind or "all", exact_match(text, entry.output), token_f1(text, entry.output))
        for entry, text in zip(entries, said, strict=True)
    ]
    kinds = {}
    for kind in sorted({kind for kind, _, _ in rows}):
        own = [row for row in rows if row[0] == kind]
        kinds[kind] = {"n": len(own), "exact": _mean(row[1] for row in own), "f1": _mean(row[2] for row in own)}
    return {
        "n": len(rows),
        "exact_match": _mean(row[1] for row in rows),
        "token_f1": _mean(row[2] for row in rows),
        "kinds": kinds,
        "cropped": cropped,
        "answers": [
            {"instruction": entry.instruction, "input": entry.input, "output": entry.output, "answer": text}
            for entry, text in zip(entries, said, strict=True)
        ],
    }


class Taught(NamedTuple):
    """What a run and the models that it was made from have seen: the questions; which of them saw some; notes."""

    questions: set[str]
    runs: list[Path]
    notes: list[str]


def taught(model: str | Path, path: Path | None = None, task: str = "") -> Taught:
    """The questions of instructions and preferences, or the messages, that a model was trained on, or chosen by.

    Those of a run's test part are not among them, unless a model that it was made from has seen them.

    Args:     model: a run's folder, or another path to a model. path: a file that is known to be there: where a run
              was trained on a copy of it, its own need not be there. task: of the runs that count; "": all.
    """
    known = Taught(set(), [], [])
    for folder in made_from(model):
        if not (folder / CONFIG).is_file():
            continue
        try:
            config = load_config(folder / CONFIG)
        except ConfigError as error:
            known.notes.append(f"{error}: which of these it saw is unknown")
            continue
        if not config.finetune.task or task not in ("", config.finetune.task):
            continue
        questions = _questions_of(folder, config, path)
        if questions is None:
            data = config.finetune.data
            known.notes.append(f"{folder}: its examples {data} are gone or changed: which of these it saw is unknown")
            continue
        known.questions.update(questions)
        known.runs.append(folder)
    return known


def _questions_of(folder: Path, config: RunConfig, path: Path | None) -> list[str] | None:
    """What `taught` returns of a run; None where no file has its examples any more."""
    identity = about_run(folder).get("identity")
    corpus = identity.get("corpus") if isinstance(identity, dict) else None
    stated = corpus[0].get("sha256") if isinstance(corpus, list) and corpus and isinstance(corpus[0], dict) else None
    try:
        files = [*([] if path is None else [path]), example_file(config.finetune.data)]
    except DataError:
        files = [] if path is None else [path]
    for file in files:
        with contextlib.suppress(DataError, OSError):
            if hashlib.sha256(file.read_bytes()).hexdigest() == stated:
                return _trained_questions(file, config)
    return None


def _trained_questions(file: Path, config: RunConfig) -> list[str]:
    rng = Generator(config.training.seed)
    if config.finetune.task == "classifier":
        messages, _ = read_messages(file)
        messages = balance(messages, rng) if config.finetune.balance else messages
        return [plain(message.text) for part in split_messages(messages, rng)[:2] for message in part]
    if config.finetune.task == "assistant":
        return [question(entry) for part in cut_parts(read_instructions(file), rng)[0][:2] for entry in part]
    return [question(pair) for part in cut_parts(read_preferences(file), rng)[0][:2] for pair in part]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean([float(value) for value in values]))
