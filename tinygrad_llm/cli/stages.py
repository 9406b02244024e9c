"""The stages of `tinygrad-llm demo --full` after pre-training. Each is a run, as `tinygrad-llm finetune` makes it.

    base → classifier                   random → untrained: the same classifier without pre-training
    base → assistant → friendly

Where a folder holds the run of a stage already, that run is continued, or only measured if it has ended.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.progress import fold, say
from tinygrad_llm.cli.train import beginning
from tinygrad_llm.cli.watch import watch
from tinygrad_llm.datasets import Entry
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.answers import answers
from tinygrad_llm.runs.config import RunConfig, differences
from tinygrad_llm.runs.finetune import AnswerData
from tinygrad_llm.runs.folder import CONFIG, TOKENIZER
from tinygrad_llm.runs.presets import fine_tuning, load_config
from tinygrad_llm.runs.run import Run, load_subject

BASE, RANDOM = "base", "random"
QUESTIONS = 3
LONGEST_ANSWER = 40  # tokens


class Stage(NamedTuple):
    """A fine-tuning: the name of its folder, what it is about, and its task, examples and base."""

    name: str
    about: str
    task: str
    data: str
    base: str


STAGES = (
    Stage("classifier", "A classifier: which messages are spam?", "classifier", "messages", BASE),
    Stage("untrained", "The same from random weights: what is pre-training worth?", "classifier", "messages", RANDOM),
    Stage("assistant", "An assistant: it answers instead of telling on.", "assistant", "instructions", BASE),
    Stage("friendly", "Preferences: of two right answers, the friendly one.", "preference", "preferences", "assistant"),
)
FOLDERS = (BASE, RANDOM, *(stage.name for stage in STAGES))


class Figure(NamedTuple):
    """A line of the closing table: a figure of a stage, and how it is written. None: there is no such figure."""

    stage: str
    words: str
    find: Callable[[dict[str, Any]], float | None]
    form: str


def _wins(results: dict[str, Any]) -> float | None:
    """How often the friendly answer has the higher reward; before the first step all rewards are 0, to rounding."""
    return float(results["reward_accuracy"]) if abs(results["reward_margin"]) > 1e-4 else None


TABLE = (
    Figure(BASE, "base: held-out loss, nats per token", lambda r: r["loss"], ".2f"),
    Figure("classifier", "classifier: accuracy on the test part", lambda r: r["accuracy"]["test"], ".1%"),
    Figure("untrained", "  from random weights instead", lambda r: r["accuracy"]["test"], ".1%"),
    Figure("assistant", "assistant: answers exactly right", lambda r: r["exact_match"], ".1%"),
    Figure("assistant", "  token F1", lambda r: r["token_f1"], ".1%"),
    Figure("friendly", "preferences: the friendly answer wins", _wins, ".1%"),
    Figure("friendly", "  by how much: reward margin", lambda r: r["reward_margin"], ".2f"),
)
Results = dict[str, dict[str, dict[str, Any]]]  # stage → "before" and "after" → figures


def trained(folder: Path, config: RunConfig, out: TextIO, new: Callable[[], tuple[int, Run]]) -> tuple[int, Run]:
    """The run of this folder, trained to its last step: the one that is there already, or else the one of `new`.

    Returns:  the exit status, which is 130 if a signal came before the last step; the run.
    Raises:   UsageError: the run there was made with other settings.
    """
    if not (folder / CONFIG).is_file():
        return new()
    _check_same(folder, config)
    run = Run.resume(folder)
    if run.folder.is_saved(run.config.training.steps):
        say(f"   {folder}: all its {run.trainer.step} steps are done", out)
        run.results = run.data.results(run.model)
        run.folder.release()
        return 0, run
    say(f"   {folder}: resumed after step {run.trainer.step}", out)
    return watch(run, out)[0], run


def _check_same(folder: Path, wanted: RunConfig) -> None:
    """Refuse a run that was made with other settings, except for what its data and the machine decided."""
    found = load_config(folder / CONFIG)
    wanted = dataclasses.replace(
        wanted.absolute(), training=dataclasses.replace(wanted.training, workers=found.training.workers)
    )
    different = differences(found, wanted)
    for key in ("epochs",) if wanted.training.epochs else ("epochs", "steps"):
        before, now = (getattr(config.training, key) for config in (found, wanted))
        different += [f"training.{key}: {before} before, {now} now"] * (before != now)
    if different:
        raise UsageError(f"{folder}: holds another run ({different[0]}): choose another --out, or add --overwrite")


def run_stages(base: Run, place: Path, steps: dict[str, Any], out: TextIO) -> tuple[int, Results, list[dict[str, str]]]:
    """Run the stages one after another, and ask the assistants.

    Args:     base: the pre-trained run in `place`/base. steps: a change of the number of steps, or none.
    Returns:  the exit status; figures before and after each stage; questions with answers. With a status other than 0
              there are only those that were reached.
    """
    config = base.config
    losses = [step.val_loss for step in base.steps if step.val_loss is not None]
    results: Results = {BASE: {"before": {"loss": losses[0]}, "after": {"loss": losses[-1]}}}
    random = base.data.make_model(config, Generator(config.training.seed), config.training.batch_size)
    random.save_pretrained(place / RANDOM)
    base.data.tokenizer.save(place / RANDOM / TOKENIZER)
    runs: dict[str, Run] = {}
    for number, stage in enumerate(STAGES, 7):
        say(f"\n{number}. {stage.about}", out)
        changes = {**steps, "training.seed": base.config.training.seed}
        config = fine_tuning(stage.task, stage.data, str(place / stage.base), changes)
        before = measured_before(config)
        status, run = trained(place / stage.name, config, out, partial(_new, config, place / stage.name, out))
        if status or run.results is None:
            return status, results, []
        results[stage.name] = {"before": before, "after": run.results}
        runs[stage.name] = run
    return 0, results, asked(runs["assistant"], runs["friendly"])


def _new(config: RunConfig, folder: Path, out: TextIO) -> tuple[int, Run]:
    run = Run.new(config, folder)
    say(beginning(run), out)
    return watch(run, out)[0], run


def measured_before(config: RunConfig) -> dict[str, Any]:
    """The figures of the test before the first step."""
    data = load_subject(config)
    model = data.make_model(config, Generator(config.training.seed), config.training.batch_size)
    return data.results(model) or {}


def report(results: Results, questions: list[dict[str, str]]) -> list[str]:
    """Figures before and after, and the questions with their answers, in lines."""
    lines = [f"{'':<42} {'before':>9} {'after':>9}"]
    for figure in TABLE:
        found = [figure.find(results[figure.stage][when]) for when in ("before", "after")]
        both = ["–" if value is None else format(value, figure.form) for value in found]
        lines.append(f"{figure.words:<42} {both[0]:>9} {both[1]:>9}")
    for asked in questions:
        lines += ["", fold(asked["question"], "   ", "      ")]
        lines += [fold(f"{who:<10} {asked[who]}", "      ", " " * 17) for who in ("assistant", "friendly", "expected")]
    return lines


def asked(assistant: Run, friendly: Run) -> list[dict[str, str]]:
    """Questions of the assistant's test part, which it never saw, with the answers of both assistants."""
    data = assistant.data
    assert isinstance(data, AnswerData)
    chosen: dict[str, Entry] = {}
    for entry in data.test:
        chosen.setdefault(entry.kind, entry)
    some = list(chosen.values())[:QUESTIONS]
    said = [
        answers(run.model, data.tokenizer, some, data.settings.style, LONGEST_ANSWER)[0]
        for run in (assistant, friendly)
    ]
    return [
        {
            "question": f"{entry.instruction} {entry.input}".strip(),
            "assistant": one,
            "friendly": other,
            "expected": entry.output,
        }
        for entry, one, other in zip(some, *said, strict=True)
    ]
