"""The answers of an assistant to instructions, and their score."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.datasets import Entry, cut_parts, read_instructions
from tinygrad_llm.finetuning import STYLES
from tinygrad_llm.finetuning.assistant import exact_match, prompt_of, token_f1
from tinygrad_llm.generation import Sampling, crop, write_all
from tinygrad_llm.models import GPT
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.folder import CONFIG, about_run
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


def tested_entries(folder: Path, path: Path) -> list[Entry] | None:
    """The entries of a file that a run was tested on, if it was trained on the others; else None."""
    try:
        config = load_config(folder / CONFIG)
    except (ConfigError, OSError):
        return None
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    identity = about_run(folder).get("identity")
    corpus = identity.get("corpus") if isinstance(identity, dict) else None
    if config.finetune.task != "assistant" or not isinstance(corpus, list) or len(corpus) != 1:
        return None
    if not isinstance(corpus[0], dict) or corpus[0].get("sha256") != digest:
        return None
    parts, _ = cut_parts(read_instructions(path), Generator(config.training.seed))
    return parts[2]


def _mean(values: Iterable[float]) -> float:
    return float(np.mean([float(value) for value in values]))
