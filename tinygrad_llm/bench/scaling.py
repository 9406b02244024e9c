"""How the time and memory of a training step grow with each size of a model and its batch.

One size at a time grows and the others stay at BASE. Every point is measured in a new process, because a process
reports only the largest memory that it ever had. A cost that follows c · xᵃ is a straight line on logarithmic axes,
with slope a: the exponent is the slope of the line that fits the points best (least squares of the logarithms).
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.bench import train
from tinygrad_llm.bench.harness import alternate
from tinygrad_llm.bench.measure import OURS, THREADS, Case, Measure, Setup, contender
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.figure import COLORS, new_figure

THEIRS = ("torch",)
BASE = GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=128, vocab_size=256)
BATCH, HEAD = 4, 32  # rows; channels of a head, also where the channels grow
SIZES = {  # of each axis
    "T": (64, 128, 256, 512, 1024),
    "C": (64, 128, 256, 512, 768),
    "batch": (1, 2, 4, 8, 16, 32),
    "layers": (1, 2, 4, 8, 16, 24),
}
LABELS = {"T": "T, positions", "C": "C, channels", "batch": "B, rows of a batch", "layers": "L, layers"}


@dataclass(frozen=True)
class Point:
    """One size on one axis, and what was measured there."""

    axis: str
    size: int
    measure: Measure

    def seconds(self, name: str) -> float | None:
        """The median time of a step; None if this contender did not take part."""
        return next((one.median for one in self.measure.timings if one.name == name), None)

    def memory(self, name: str) -> int | None:
        """Bytes at the peak above those after the imports; None if the system does not report them."""
        about = next((one.about for one in self.measure.timings if one.name == name), {})
        found: int | None = about.get("memory", {}).get("above_imports")
        return found


def points(axes: Sequence[str], setup: Setup) -> Iterator[Point]:
    """Measure all sizes of these axes, and yield each when it is done.

    Raises:   BenchError: a worker failed.
    """
    for axis in axes:
        for size in SIZES[axis]:
            yield Point(axis, size, _measured(f"{axis} {size}", *_config(axis, size), setup))


def _config(axis: str, size: int) -> tuple[GPTConfig, int]:
    """The model and the rows of a batch."""
    match axis:
        case "T":
            return replace(BASE, block_size=size), BATCH
        case "C":
            return replace(BASE, n_embd=size, n_head=max(1, size // HEAD)), BATCH
        case "layers":
            return replace(BASE, n_layer=size), BATCH
    return BASE, size


def _measured(name: str, config: GPTConfig, batch: int, setup: Setup) -> Measure:
    threads = dict.fromkeys(THREADS, str(setup.threads))
    names = [OURS, *setup.against]
    with tempfile.TemporaryDirectory() as folder:
        GPT(config, Generator(0)).save_pretrained(Path(folder))
        case = Case(name, train.SUBJECTS, {"folder": folder, "batch": batch}, train.TOLERANCE)
        contenders = [contender(one, case.subjects[one], case.options, threads) for one in names]
        progress = setup.progress
        timings = alternate(contenders, setup.rounds, progress=lambda what: progress(f"{name}: {what}"))
    return Measure(case, timings)


def exponent(sizes: Sequence[int], costs: Sequence[float | None]) -> float | None:
    """The a of the c · xᵃ that fits best; None for fewer than two known costs."""
    known = [(size, cost) for size, cost in zip(sizes, costs, strict=True) if cost]
    if len({size for size, _ in known}) < 2:
        return None
    x, y = np.log(np.array(known, np.float64)).T
    return float(np.polyfit(x, y, 1)[0])


def exponents(found: Sequence[Point], names: Sequence[str]) -> dict[str, dict[str, dict[str, float | None]]]:
    """axis → contender → {"seconds": a, "memory": a}."""
    result: dict[str, dict[str, dict[str, float | None]]] = {}
    for axis in dict.fromkeys(point.axis for point in found):
        on = [point for point in found if point.axis == axis]
        sizes = [point.size for point in on]
        result[axis] = {
            name: {
                "seconds": exponent(sizes, [point.seconds(name) for point in on]),
                "memory": exponent(sizes, [point.memory(name) for point in on]),
            }
            for name in names
        }
    return result


def picture(found: Sequence[Point], names: Sequence[str], about: str) -> Any:
    """A figure: time above and memory below, one column for each axis, one line for each contender.

    Args:     about: the machine, for the title.
    Raises:   ImportError: matplotlib is missing.
    """
    fitted = exponents(found, names)
    figure = new_figure(3.1 * len(fitted) + 0.8, 6.4)
    grid = figure.subplots(2, len(fitted), squeeze=False, sharex="col", sharey="row")
    for column, axis in enumerate(fitted):
        on = [point for point in found if point.axis == axis]
        sizes = [point.size for point in on]
        for row, cost in enumerate(("seconds", "memory")):
            axes = grid[row, column]
            axes.set(xscale="log", yscale="log")
            for number, name in enumerate(names):
                values = [point.seconds(name) if cost == "seconds" else point.memory(name) for point in on]
                scale, a = 1e3 if cost == "seconds" else 1e-6, fitted[axis][name][cost]
                y = [np.nan if value is None else scale * value for value in values]
                label = f"{name}, exponent {a:.2f}" if a is not None else name
                axes.plot(sizes, y, "os^D"[number % 4] + "-", color=COLORS[number], ms=4.5, lw=1.6, label=label)
            axes.grid(alpha=0.3)
            axes.legend(loc="upper left", fontsize="small", framealpha=0.9)
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
            axes.set_xticks([], minor=True)
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        grid[1, column].set(xlabel=LABELS[axis])
    for row, label in enumerate(("time of a step, ms", "peak memory above the imports, MB")):
        grid[row, 0].set(ylabel=label)
        low, high = grid[row, 0].get_ylim()
        grid[row, 0].set_ylim(low, high * (high / low) ** 0.25)  # room for the legends
    still = f"L = {BASE.n_layer}, C = {BASE.n_embd}, T = {BASE.block_size}, B = {BATCH}, V = {BASE.vocab_size}"
    figure.suptitle(f"A training step at {still}, where one size grows\n{about}", fontsize="medium")
    return figure
