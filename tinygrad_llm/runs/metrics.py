"""The records of each step and each sample of a run: metrics.jsonl, the same as a table, and samples.txt."""

import dataclasses
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygrad_llm.storage.text import finite, to_csv, to_json
from tinygrad_llm.training import Step

# A loss that was NaN is null in JSON; these two are always measured, so their null is NaN again.
_ALWAYS = ("loss", "grad_norm")


def step_to_json(step: Step) -> str:
    """A step as a line of metrics.jsonl; NaN and infinity are null."""
    return to_json(dataclasses.asdict(step)) + "\n"


def steps_to_csv(steps: Sequence[Step]) -> str:
    """Steps as a table: figures by layer are in columns such as "update_ratio/h.0".

    A cell is empty where nothing was measured, and where a figure is NaN or infinite.
    """
    rows: list[dict[str, Any]] = []
    for step in steps:
        row: dict[str, Any] = {}
        for name, value in finite(dataclasses.asdict(step)).items():
            if _is_table(name):
                row |= {f"{name}/{part}": number for part, number in (value or {}).items()}
            else:
                row[name] = value
        rows.append(row)
    return to_csv(rows)


def read_metrics(path: Path, last: int | None = None) -> list[Step]:
    """The steps of a metrics.jsonl up to `last`; a line that is cut off, damaged or out of order is left out."""
    steps: list[Step] = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []:
        try:
            step = _step(json.loads(line))
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
        follows = not steps or step.step > steps[-1].step
        if follows and (last is None or step.step <= last):
            steps.append(step)
    return steps


def _step(fields: dict[str, Any]) -> Step:
    """The Step of a line.

    Raises:   AttributeError, KeyError, TypeError, ValueError: it is not a Step.
    """
    fields |= {name: math.nan for name in _ALWAYS if fields[name] is None}
    for name, value in fields.items():
        if _is_table(name) and value is not None:
            fields[name] = {part: math.nan if number is None else number for part, number in value.items()}
    step = Step(**{name: value for name, value in fields.items() if name in _FIELDS})
    for number in (step.loss, step.lr, step.grad_norm, step.tokens_per_second):
        float(number)
    if type(step.step) is not int:
        raise TypeError(f"step: must be an integer, got {step.step!r}")
    return step


_FIELDS = {field.name: str(field.type) for field in dataclasses.fields(Step)}


def _is_table(name: str) -> bool:
    """Whether a field of Step has figures by name, such as one for each layer."""
    return "dict" in _FIELDS.get(name, "")


def sample_to_text(step: int, text: str) -> str:
    """A sample as an entry of samples.txt."""
    return f"--- step {step} ---\n{text.strip()}\n\n"


def read_samples(path: Path, last: int) -> list[tuple[int, str]]:
    """The samples in a samples.txt, with their steps, up to step `last`."""
    if not path.exists():
        return []
    parts = re.split(r"^--- step (\d+) ---\n", path.read_text(encoding="utf-8", errors="replace"), flags=re.M)
    pairs = zip(map(int, parts[1::2]), parts[2::2], strict=True)
    return [(step, text) for step, text in pairs if step <= last]
