"""Where the time of a training step goes: time, calls and bytes of each kernel, forward and backward.

The trainer runs in this process with one worker, so that no thread waits for another and the times add up. BLAS may use
several threads.
"""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_llm.autograd.node import Node
from tinygrad_llm.autograd.observer import Observer, Operation, observing
from tinygrad_llm.bench.train import trainer
from tinygrad_llm.kernels import Array, Kernel
from tinygrad_llm.kernels.contract import Vjp

STEPS = 5  # after one that fills caches


@dataclass
class Row:
    """What one kernel took in a step, on average. The bytes are those of its inputs and outputs."""

    calls: float = 0.0
    forward: float = 0.0  # seconds
    backward: float = 0.0
    forward_bytes: float = 0.0
    backward_bytes: float = 0.0


class Profile(Observer):
    """Adds up time, calls and bytes by kernel, for one thread."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = defaultdict(Row)

    @contextmanager
    def around_kernel(self, kernel: Kernel) -> Iterator[None]:
        began = time.perf_counter()
        yield
        row = self.rows[kernel.__name__]
        row.forward += time.perf_counter() - began
        row.calls += 1

    def on_operation(self, operation: Operation) -> None:
        self.rows[operation.name].forward_bytes += _bytes(operation.arrays) + operation.output.data.nbytes

    @contextmanager
    def around_vjp(self, node: Node, vjp: Vjp) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.rows[node.name].backward += time.perf_counter() - began

    def on_vjp(self, node: Node, parents: tuple[Node | None, ...], gradient: Array, gradients: Any) -> None:
        values = [getattr(g, "values", g) for g in gradients]  # of Rows, the rows that are not zero
        self.rows[node.name].backward_bytes += gradient.nbytes + _bytes(values)


def _bytes(arrays: Any) -> int:
    return sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))


def profile(folder: str, batch: int) -> tuple[float, dict[str, Row]]:
    """The seconds of a training step, and what each kernel took of it, the most expensive first."""
    steps = trainer(folder, batch, workers=1).run()
    for _ in range(2):  # step 0, which is no step; and one that fills caches
        next(steps)
    seen = Profile()
    began = time.perf_counter()
    with observing(seen):
        for _ in range(STEPS):
            next(steps)
    seconds = (time.perf_counter() - began) / STEPS
    for row in seen.rows.values():
        for name, value in vars(row).items():
            setattr(row, name, value / STEPS)
    return seconds, dict(sorted(seen.rows.items(), key=lambda pair: -pair[1].forward - pair[1].backward))


def lines(name: str, seconds: float, rows: dict[str, Row]) -> Iterator[str]:
    """A table of at most 80 columns. The last row is what no kernel took: the tape, clipping and the optimizer."""
    yield f"{name + ', a step':<26}{'calls':>6}{'forward, ms':>13}{'backward, ms':>14}{'share':>7}{'MB':>9}"
    for kernel, row in rows.items():
        moved = (row.forward_bytes + row.backward_bytes) / 1e6
        share = (row.forward + row.backward) / seconds
        times = f"{1e3 * row.forward:>13.2f}{1e3 * row.backward:>14.2f}"
        yield f"{kernel:<26}{row.calls:>6.0f}{times}{share:>7.1%}{moved:>9,.1f}"
    forward, backward = (sum(getattr(row, part) for row in rows.values()) for part in ("forward", "backward"))
    rest = seconds - forward - backward
    yield f"{'tape, clipping, update':<26}{'':>6}{1e3 * rest:>27.2f}{rest / seconds:>7.1%}"
    yield f"{'together':<26}{'':>6}{1e3 * seconds:>27.2f}"
