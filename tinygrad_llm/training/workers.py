"""The gradient of a batch by several workers at once: threads of this process, and other processes.

The batch is cut into a part for each process, and that into a part for each of its threads. A thread differentiates
its own part with `grad`, its matrix products on one thread of BLAS; NumPy lets threads run side by side. The gradients
are added in a fixed order, so the same number of workers gives the same sums, bit for bit.

One worker draws dropout's masks from the model's generator. Of several, each has a stream of its own, which process 0
forks from that generator for each batch. So a checkpoint needs the model's generator and nothing more.

Under `mpiexec`, process 0 trains and the others `serve`: they have the model, its weights as in process 0, and the
loss, but no data.
"""

import contextlib
import contextvars
import signal
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Self, TypeAlias, TypeVar

import numpy as np

from tinygrad_llm.autograd import grad, hooked
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn import Dropout, Module, Parameter
from tinygrad_llm.nn.layers import drawing_from
from tinygrad_llm.optim import Optimizer
from tinygrad_llm.optim.jobs import jobs
from tinygrad_llm.random import Generator
from tinygrad_llm.runtime import MOST, blas_threads, cores
from tinygrad_llm.training.mpi import ALONE, LaunchError, Processes, connected, processes, working_with
from tinygrad_llm.training.records import MeanGradient
from tinygrad_llm.training.task import Batch, Task, rows, with_measures

__all__ = ["LaunchError", "Workers", "fastest_threads", "launch", "processes", "serve", "trainable"]

WORTH = 1.15  # one thread must be this much faster to be chosen, so that noise does not decide

_T = TypeVar("_T")
_Sums: TypeAlias = tuple[float, dict[str, float], list[Array]]  # loss, figures and gradient, over `total` targets


def trainable(model: Module) -> dict[str, Parameter]:
    """The parameters that require a gradient, by name. All others are frozen."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


class Workers:
    """The threads and processes that share each gradient. They run while this is open as a context.

    Args:     threads: of each process; None: as many as are fastest here (see `fastest_threads`).
    """

    def __init__(self, model: Module, task: Task, threads: int | None = None) -> None:
        self.model = model
        self.task = task
        self.parameters = list(trainable(model).values())
        self.threads = threads or fastest_threads(model, task)
        self.processes = processes()
        self._drawn = mask_generators(model)
        self._open = contextlib.ExitStack()
        self._pool: ThreadPoolExecutor | None = None
        self._weights_sent = False  # whether the other processes have the weights as they are now

    def __enter__(self) -> Self:
        threads = max(self.threads, min(self.processes.cores or cores(), MOST))
        if threads > 1:
            self._pool = self._open.enter_context(ThreadPoolExecutor(threads))
        if self.processes.rank == 0:
            self.processes.order(_Begin(self.model, self.task.without_data(), self.threads))
            self._weights_sent = True
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()
        self._pool = None

    # ---- what the loop asks for ------------------------------------------------------------------------------------

    def gradient(self, batch: Batch) -> MeanGradient:
        """The mean loss over the targets of a batch that count, and its gradient for each trained parameter.

        Raises:   ValueError: no target counts; or as `Task.split`.
        """
        order = self._share(batch)
        self.processes.order(order, exchange=True)
        loss, measures, grads = self.by_processes(order)
        self._weights_sent = True
        return MeanGradient(1, order.count, loss, measures, self._hooked(grads))

    def repeat(self, batch: Batch) -> None:
        """Compute a gradient again, all parts of it in this process, where `detect_anomaly` sees them.

        With the random streams as they were before it, each part has the same masks.
        """
        order = self._share(batch)
        _, _, grads = self._by_threads(order, 0)
        for rank in range(1, self.processes.size):
            _, _, part = self._by_threads(order, rank)
            _add(list(zip(grads, part, strict=True)))
        self._hooked(grads)

    def update(self, optimizer: Optimizer, grad_scale: float) -> None:
        """A step of the optimizer, by all threads; other processes get the new weights with the next batch."""
        self._weights_sent = False
        # The threads multiply whole matrices side by side: BLAS then uses one for each product.
        alone = optimizer.whole and self._pool is not None
        with blas_threads(1) if alone else contextlib.nullcontext():
            optimizer.step(grad_scale, self.map)

    def map(self, function: Callable[[Any], _T], items: Iterable[Any]) -> Iterable[_T]:
        """As `map`, by all threads where there are several items; the calls must not depend on each other."""
        items = list(items)
        if self._pool is None or len(items) < 2:
            return map(function, items)
        # A thread does not inherit context variables, such as that of detect_anomaly.
        contexts = [contextvars.copy_context() for _ in items]
        return self._pool.map(lambda context, item: context.run(function, item), contexts, items)

    # ---- how it is done --------------------------------------------------------------------------------------------

    def _share(self, batch: Batch) -> "_Share":
        """The order to compute the gradient of a batch.

        Raises:   ValueError: no target counts.
        """
        count = self.task.count(batch)
        if count < 0:
            raise ValueError(f"{type(self.task).__name__}.count: must be at least 1, got {count}")
        if count == 0:
            raise ValueError(f"a batch of {type(self.task).__name__} has no target that counts: leave it out")
        workers = self.threads * self.processes.size
        streams = [rng.fork(workers) for rng in self._drawn] if workers > 1 else []
        return _Share(batch, count, not self._weights_sent, streams)

    def _hooked(self, grads: list[Array]) -> list[Array]:
        return [hooked(p, g) for p, g in zip(self.parameters, grads, strict=True)]

    def by_processes(self, order: "_Share") -> _Sums:
        """Every process's part of a gradient. Process 0 gets the sums over all of them."""
        others = self.processes
        if order.send_weights:
            others.share([p.data for p in self.parameters])
        loss, measures, grads = self._by_threads(order, others.rank)
        total = np.array([loss])
        measures = others.add([total, *grads], measures)
        return float(total[0]), measures, grads

    def _by_threads(self, order: "_Share", rank: int) -> _Sums:
        """The sum of loss, figures and gradient over all parts of a process, one for each of its threads."""
        n, size = self.threads, self.processes.size
        batch = self.task.split(order.batch, size)[rank] if size > 1 else order.batch
        # One thread splits too, so that a batch is refused for the same reasons by any number of threads.
        parts = [(i, part) for i, part in enumerate(self.task.split(batch, n), rank * n) if self.task.count(part)]
        if not parts:  # fewer rows than processes, or none of them counts
            return 0.0, {}, [np.zeros_like(p.data) for p in self.parameters]
        if n == 1:
            return self._by_one(order, *parts[0])
        with blas_threads(1):  # only here: samples are generated by one thread, which may use all of BLAS's
            (loss, measures, grads), *others = self.map(lambda part: self._by_one(order, *part), parts)
        for part_loss, part_measures, part_grads in others:
            loss += part_loss
            for name, value in part_measures.items():
                measures[name] = measures.get(name, 0.0) + value
            pairs = zip(grads, part_grads, strict=True)
            for _ in self.map(_add, jobs(pairs, lambda pair: pair[0].size)):
                pass
        return loss, measures, grads

    def _by_one(self, order: "_Share", worker: int, part: Batch) -> _Sums:
        """The share that a worker's part has in the mean loss, in the figures, and in the gradient."""
        own = {rng: forks[worker] for rng, forks in zip(self._drawn, order.streams, strict=False)}  # {} if it is alone
        # NaN and infinity are reported in one line, not in NumPy's warnings.
        with np.errstate(all="ignore"), drawing_from(own):
            loss, measures = with_measures(self.task, self.task.loss(self.model, part, order.count))
            return loss.item(), measures, grad(loss, self.parameters, leaf_hooks=False)


def _add(pairs: Sequence[tuple[Array, Array]]) -> None:
    for total, g in pairs:
        total += g


def mask_generators(model: Module) -> list[Generator]:
    """The generators that draw random masks while the model is trained, each once."""
    return list(dict.fromkeys(m.rng for m in model.modules() if isinstance(m, Dropout) and m.p > 0))


# ---- other processes ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Begin:
    """The order to build workers for a model."""

    model: Module
    task: Task
    threads: int


@dataclass(frozen=True)
class _Share:
    """The order to compute a share of a gradient. With send_weights, the weights of process 0 come first."""

    batch: Batch
    count: int  # targets of the whole batch
    send_weights: bool
    streams: list[list[Generator]]  # for each generator of masks: one for each worker; [] where one works alone


def launch(main: Callable[[], int]) -> int:
    """Call main in the process that trains; the others that `mpiexec` started help it until it ends.

    Returns:  what main returns; 0 in the processes that helped.
    Raises:   LaunchError: the processes cannot work together.
    """
    with connected() as others:
        if others.rank == 0:
            with others:
                return main()
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # sent to all processes, but only process 0 obeys them
            if hasattr(signal, name):
                signal.signal(getattr(signal, name), signal.SIG_IGN)
        try:
            serve(others)
        except BaseException as error:
            others.abort(error)
            raise
        return 0


def serve(others: Processes) -> None:
    """Compute this process's part of each gradient, until process 0 has no more orders."""
    with contextlib.ExitStack() as stack:
        while (order := others.next_order()) is not None:
            if isinstance(order, _Begin):
                stack.close()  # ends the threads that served an earlier model
                workers = stack.enter_context(Workers(order.model, order.task, order.threads))
            else:
                workers.by_processes(order)


# ---- how many threads ---------------------------------------------------------------------------------------------


def fastest_threads(model: Module, task: Task) -> int:
    """One thread for each core (up to four), or one whose BLAS uses all cores: whichever is faster here.

    A few gradients of each are measured, after which the random streams are as before. The answer is one where BLAS
    cannot be set to one thread.
    """
    others = processes()
    if min(others.cores or cores(), MOST) == 1:
        return 1
    batch = task.split(task.peek(), others.size)[-1]  # the largest part
    most = min(others.cores or cores(), MOST, rows(batch))
    if most == 1:
        return 1
    with blas_threads(1) as could:
        if not could:
            return 1
    before = [(rng, rng.get_state()) for rng in mask_generators(model)]
    fastest = most if _seconds(model, task, batch, most) < WORTH * _seconds(model, task, batch, 1) else 1
    for rng, state in before:
        rng.set_state(state)
    return fastest


def _seconds(model: Module, task: Task, batch: Batch, threads: int) -> float:
    """The shortest time of a few gradients of a batch."""
    seconds: list[float] = []
    with working_with(ALONE), Workers(model, task, threads) as workers:
        while len(seconds) < 2 or (sum(seconds) < 0.2 and len(seconds) < 10):
            began = time.perf_counter()
            workers.gradient(batch)
            seconds.append(time.perf_counter() - began)
    return min(seconds)
