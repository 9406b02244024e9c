"""The gradient of a batch by several threads at once, of one process or of several.

The batch is cut into as many parts as there are workers. Each is a thread that differentiates its own part with `grad`,
its matrix products on one thread of BLAS; NumPy lets threads run side by side. The gradients are added in a fixed
order, so the same number of workers gives the same sums, bit for bit.

Where `mpiexec` started several processes, the batch is first cut into a part for each, and their gradients are added in
a fixed order too. Rank 0 trains; the others `serve`: they have the model, its weights as in rank 0, and nothing else.
"""

import contextlib
import contextvars
import dataclasses
import math
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np

from tinygrad_llm.autograd import Tensor, grad, hooked
from tinygrad_llm.kernels import IGNORE_INDEX, Array
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.nn import Parameter
from tinygrad_llm.optim import Optimizer
from tinygrad_llm.optim.jobs import jobs
from tinygrad_llm.runtime import blas_threads, cores
from tinygrad_llm.training.ranks import ALONE, BATCH, END, MODEL, Ranks

MOST = 4  # workers; beyond, Python's own work on the tape, which threads take turns at, eats the gain
WORTH = 1.15  # how much faster one worker must be to be taken: a close race would be decided by chance


class Gradients:
    """The mean loss of a batch and its gradient, by one worker or several; open while it is a context.

    Args:     workers: threads of each process.
    """

    def __init__(
        self,
        model: GPT,
        parameters: Sequence[Parameter],
        workers: int,
        label_smoothing: float = 0.0,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model = model
        self.parameters = parameters
        self.workers = workers
        self.label_smoothing = label_smoothing
        self.ranks = ranks
        self._open = contextlib.ExitStack()
        self._pool: ThreadPoolExecutor | None = None
        self._known = False  # whether the other ranks have the weights as they are now

    def __enter__(self) -> Self:
        threads = max(self.workers, min(self.ranks.cores or cores(), MOST))
        if threads > 1:
            self._pool = self._open.enter_context(ThreadPoolExecutor(threads))
        if self.ranks.rank == 0:
            about = {"config": dataclasses.asdict(self.model.config), "recompute": self.model.recompute}
            about |= {"dtype": str(self.parameters[0].dtype)}
            about |= {"workers": self.workers, "label_smoothing": self.label_smoothing}
            self.ranks.ask_with(MODEL, about)
            self._known = False
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()
        self._pool = None

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterable[Any]:
        """`map`, by all threads where there is more than one item: for tasks that do not touch each other."""
        items = list(items)
        if self._pool is None or len(items) < 2:
            return map(function, items)
        # Threads do not know by themselves what is switched on around this call, such as detect_anomaly.
        contexts = [contextvars.copy_context() for _ in items]
        return self._pool.map(lambda context, item: context.run(function, item), contexts, items)

    def of(self, inputs: Array, targets: Array) -> tuple[float, list[Array]]:
        """The mean loss over the targets that count, and one gradient a parameter."""
        self.ranks.ask(BATCH, *inputs.shape, not self._known)
        return self.shared(np.array([inputs, targets], np.int64), not self._known)

    def update(self, optimizer: Optimizer, grad_scale: float) -> None:
        """A step of the optimizer, by all threads; the other ranks hear of it with the next batch."""
        self._known = False
        optimizer.step(grad_scale, self.map)

    def shared(self, batch: Array, send_weights: bool) -> tuple[float, list[Array]]:
        """What each rank does for a gradient: its part of the batch (inputs and targets). The result is rank 0's."""
        ranks = self.ranks
        ranks.share([batch])
        if send_weights:
            ranks.share([p.data for p in self.parameters])
            self._known = True
        inputs, targets = (_rows(rows, ranks.rank, ranks.size) for rows in batch)
        share, grads = self._by_threads(inputs, targets, counted(batch[1]))
        loss = np.array([share])
        ranks.add([loss, *grads])
        if ranks.rank == 0:
            grads = [hooked(p, g) for p, g in zip(self.parameters, grads, strict=True)]
        return float(loss[0]), grads

    def _by_threads(self, inputs: Array, targets: Array, count: int) -> tuple[float, list[Array]]:
        """The sum of all parts of these rows, and of their gradients, by the threads of this process."""
        if count and not counted(targets):  # fewer rows than ranks, or none that counts among them
            return 0.0, [np.zeros_like(p.data) for p in self.parameters]
        if self.workers == 1 or not count:
            return self._part(inputs, targets, count or None)
        parts = [(_rows(inputs, i, self.workers), _rows(targets, i, self.workers)) for i in range(self.workers)]
        work = [(x, y, count) for x, y in parts if counted(y)]
        with blas_threads(1):  # only here: evaluation and samples, on one thread of ours, may use all of BLAS's
            (loss, grads), *others = self.map(lambda args: self._part(*args), work)
        for part_loss, part_grads in others:
            loss += part_loss
            pairs = zip(grads, part_grads, strict=True)
            for _ in self.map(_add, jobs(pairs, lambda pair: pair[0].size)):
                pass
        return loss, grads

    def _part(self, inputs: Array, targets: Array, count: int | None = None) -> tuple[float, list[Array]]:
        """One part's share of the mean loss, and of the gradient."""
        with np.errstate(all="ignore"):  # what is no number is told of in one line, and not in NumPy's warnings
            loss = self.loss(inputs, targets, count)
            return loss.item(), grad(loss, self.parameters, leaf_hooks=False)

    def loss(self, inputs: Array, targets: Array, count: int | None = None) -> Tensor:
        """The mean loss of a batch, as it is trained on; with count the sum over its targets, divided by that."""
        return self.model.loss(inputs, targets, self.label_smoothing, count)


def _rows(rows: Array, i: int, n: int) -> Array:
    """The i-th of n parts, as equal as can be."""
    return rows[len(rows) * i // n : len(rows) * (i + 1) // n]


def _add(pairs: Sequence[tuple[Array, Array]]) -> None:
    for total, g in pairs:
        total += g


def counted(targets: Array) -> int:
    """How many targets the loss is a mean over."""
    return int(np.count_nonzero(targets != IGNORE_INDEX))


def serve(ranks: Ranks) -> None:
    """What ranks other than 0 do: their part of each gradient, until rank 0 has no more to ask."""
    with contextlib.ExitStack() as stack:
        while True:
            what, *numbers = ranks.asked()
            if what == END:
                return
            if what == MODEL:
                about = ranks.about(numbers[0])
                model = GPT(GPTConfig(**about["config"]), recompute=about["recompute"]).to(about["dtype"])
                stack.close()  # what served an earlier model
                gradients = stack.enter_context(
                    Gradients(model, list(model.parameters()), about["workers"], about["label_smoothing"], ranks)
                )
            if what == BATCH:
                rows, columns, send_weights = numbers
                gradients.shared(np.empty((2, rows, columns), np.int64), bool(send_weights))


def default_workers(model: GPT, batch_size: int, ranks: Ranks = ALONE) -> int:
    """As many workers as there are cores (up to four), or one whose BLAS uses all cores: what is faster here.

    Measured on a few gradients of each. One, where there is dropout: it draws its masks from one stream, whose order
    threads would change; and where BLAS cannot be told to use one thread.
    """
    batch_size = math.ceil(batch_size / ranks.size)
    most = min(ranks.cores or cores(), MOST, batch_size)
    if most == 1 or model.config.dropout > 0:
        return 1
    with blas_threads(1) as could:
        if not could:
            return 1
    return most if _seconds(model, batch_size, most) < WORTH * _seconds(model, batch_size, 1) else 1


def _seconds(model: GPT, batch_size: int, workers: int) -> float:
    """The fastest of a few gradients of a batch."""
    config = model.config
    ids = np.arange(batch_size * config.block_size).reshape(batch_size, -1) % config.vocab_size
    seconds: list[float] = []
    with Gradients(model, list(model.parameters()), workers) as gradients:
        while len(seconds) < 2 or (sum(seconds) < 0.2 and len(seconds) < 10):
            began = time.perf_counter()
            gradients.of(ids, ids)
            seconds.append(time.perf_counter() - began)
    return min(seconds)
