"""The records of each step and each sample of a run: metrics.jsonl, the same as a table, and samples.txt."""

import contextlib
import csv
import dataclasses
import hashlib
import io
import json
import math
import re
from collections.abc import Iterator, Sequence
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
    for _, step in _lines(path):
        follows = not steps or step.step > steps[-1].step
        if follows and (last is None or step.step <= last):
            steps.append(step)
    return steps


def recover_metrics(
    path: Path, table: Path, last: int, lost: Sequence[Sequence[int]] = ()
) -> tuple[list[Step], list[list[int]], str]:
    """All steps up to `last` that metrics.jsonl holds, or else the table of the last save.

    Args:     lost: [first, last] pairs of steps that are known to be lost.
    Returns:  the steps; all pairs of lost steps; and what was damaged, for the user: "" where no other step is missing.
    """
    lines = [(number, step) for number, step in _lines(path) if step.step <= last]
    # Line n is that of step n, unless lines are missing before it.
    steps = {step.step: step for number, step in lines if step.step == number}
    for _, step in lines:
        steps.setdefault(step.step, step)
    try:
        known = {number for first, end in lost for number in range(first, min(end, last) + 1)}
    except (TypeError, ValueError):  # run.json was changed
        known, lost = set(), []
    missing = [number for number in range(last + 1) if number not in steps and number not in known]
    if not missing or last == 0:  # a run may be saved before it is trained
        return [steps[number] for number in sorted(steps)], [list(pair) for pair in lost], ""
    saved = {step.step: step for step in _read_table(table)}
    restored = {number: saved[number] for number in missing if number in saved}
    steps |= restored
    gone = [number for number in range(last + 1) if number not in steps]
    damage = f"{path}: damaged: {len(missing)} of {last + 1} steps are missing, the first is {missing[0]}"
    damage += f"; {len(restored)} of them were restored from {table.name}" if restored else ""
    damage += f"; {len(missing) - len(restored)} are lost" if len(restored) < len(missing) else ""
    return [steps[number] for number in sorted(steps)], _pairs(gone), damage


def _pairs(numbers: Sequence[int]) -> list[list[int]]:
    """Rising numbers as [first, last] pairs of those that follow each other."""
    pairs: list[list[int]] = []
    for number in numbers:
        if pairs and pairs[-1][1] == number - 1:
            pairs[-1][1] = number
        else:
            pairs.append([number, number])
    return pairs


def _lines(path: Path) -> Iterator[tuple[int, Step]]:
    """The lines of a metrics.jsonl that are whole, with their numbers, from 0 on."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    for number, line in enumerate(text.split("\n")):
        with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError, RecursionError):
            yield number, _step(json.loads(line))


def _read_table(path: Path) -> Iterator[Step]:
    """The steps in a table of `steps_to_csv`; a row that is damaged is left out, and an empty cell of a layer too."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    with contextlib.suppress(csv.Error):
        for row in csv.DictReader(io.StringIO(text)):
            with contextlib.suppress(AttributeError, KeyError, TypeError, ValueError):
                yield _step(_fields_of(row))


def _fields_of(row: dict[str, str]) -> dict[str, Any]:
    """A row of the table as the fields of a line of JSON.

    Raises:   AttributeError, KeyError, TypeError, ValueError: it is not one.
    """
    fields: dict[str, Any] = {}
    for column, cell in row.items():
        name, slash, part = column.partition("/")
        value = None if cell == "" else cell == "True" if "bool" in _FIELDS[name] else json.loads(cell)
        if not slash:
            fields[name] = value
        elif value is not None:
            fields.setdefault(name, {})[part] = value
    return fields


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


def samples_to_text(samples: Sequence[tuple[int, str]]) -> str:
    """Samples as a samples.txt."""
    return "".join(sample_to_text(step, text) for step, text in samples)


def about_samples(samples: Sequence[tuple[int, str]]) -> dict[str, Any]:
    """What a checkpoint states of the samples before it, so that `read_samples` notices a change of their file."""
    data = samples_to_text(samples).encode()
    return {"number": len(samples), "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def read_samples(path: Path, last: int, about: Any = None) -> tuple[list[tuple[int, str]], str]:
    """The samples in a samples.txt, with their steps, up to step `last`.

    Args:     about: `about_samples` of the first of them; None: unknown.
    Returns:  the samples; and what is damaged, for the user: "" where nothing is.
    """
    data = path.read_bytes() if path.is_file() else b""
    text = data.decode(errors="replace")
    first, *parts = re.split(r"^--- step (\d+) ---\n", text, flags=re.M)
    pairs = zip(map(int, parts[::2]), parts[1::2], strict=True)
    found = [(step, sample) for step, sample in pairs if step <= last]
    damaged, gone = bool(first) or text.encode() != data, ""
    if isinstance(about, dict):
        damaged |= hashlib.sha256(data[: about["bytes"]]).hexdigest() != about["sha256"]
        lost = about["number"] - len(found)
        gone = f": {lost} of {about['number']} samples are missing" if lost > 0 else ""
    return found, f"{path}: damaged{gone}" if damaged else ""
