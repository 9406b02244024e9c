"""A job on every stretch of a text, in worker processes, with the results in order."""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from threading import Thread
from typing import Any

from tinygrad_llm.tokenizer.files import Stretch

Job = Callable[[Stretch], bytes]


def in_order(job: Job, stretches: Iterator[Stretch], workers: int) -> Generator[tuple[Stretch, bytes], None, None]:
    """Yield each stretch with the result of its job, in order; at most two stretches per worker are read ahead.

    Args:     job: can be pickled, if workers > 1. workers: processes; 1: only this process.
    Raises:   what the job raises; BrokenProcessPool: a worker died.
    """
    if workers == 1:
        for stretch in stretches:
            yield stretch, job(stretch)
        return
    spawn = multiprocessing.get_context("spawn")  # a fork would copy locks that BLAS threads hold
    gate = spawn.Barrier(workers)
    pool = ProcessPoolExecutor(workers, spawn, _start_worker, (gate,))
    waiting: deque[tuple[Stretch, Future[bytes]]] = deque()
    try:
        for _ in range(workers):
            pool.submit(_receive_job, job)
        for stretch in stretches:
            waiting.append((stretch, pool.submit(_work, stretch)))
            if len(waiting) == 2 * workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        gate.abort()  # so that no worker waits for one that never starts
        pool.shutdown(cancel_futures=True)


# ---- in a worker process -----------------------------------------------------------------------------------------

# A worker receives its job once, through the queue of tasks. The gate makes each worker wait until all have theirs, so
# that none takes two. (As initargs, a large tokenizer would block the first process for ever if a worker died before it
# had read it.)
_job: Job
_gate: Barrier


def _start_worker(gate: Barrier) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process of a terminal; the first one ends all
    Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    global _gate
    _gate = gate


def _end_with(parent: Any) -> None:
    """End this worker when its parent ends, even if the parent was killed: nobody would take the results."""
    parent.join()
    os._exit(1)


def _receive_job(job: Job) -> None:
    global _job
    _job = job
    _gate.wait()


def _work(stretch: Stretch) -> bytes:
    return _job(stretch)
