"""A Case describes what is timed, `measure` times it, and a Measure holds the figures."""

import contextlib
import dataclasses
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tinygrad_llm import runtime
from tinygrad_llm.bench.harness import BenchError, Contender, Timing, agree, alternate, ratio
from tinygrad_llm.bench.limits import Limits

OURS = "tinygrad_llm"
NEEDS = {  # the packages that a contender needs; any other contender needs the package of its name
    "torch-compile": ("torch",),
    "transformers": ("torch", "transformers"),
}

# OpenBLAS, OpenMP, MKL and Apple's Accelerate each read their number of threads from one of these.
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


@dataclass(frozen=True)
class Case:
    """The same work for every contender.

    Args:     subjects: contender → "module:function", with ours among them. options: arguments of these functions.
              tolerance: how far apart the answers may be (`agree`).
              flops, traffic: the operations and bytes that the work needs at least; its limit is computed from them.
              amount, unit: the size of one piece of work, for a rate such as MB/s. None: seconds are shown.
    """

    name: str
    subjects: Mapping[str, str]
    options: Mapping[str, Any]
    tolerance: float = 0.0
    flops: float = 0.0
    traffic: float = 0.0
    amount: float | None = None
    unit: str = "s"


# A theme's cases, one at a time. The files of a case exist until the next case is requested or the generator is closed.
Cases: TypeAlias = Generator[Case, None, None]


@dataclass(frozen=True)
class Measure:
    """One line of the table. `limits`: the machine's, from the same run; None if they do not bound this work."""

    case: Case
    timings: Sequence[Timing]  # ours first
    limits: Limits | None = None

    @property
    def name(self) -> str:
        return self.case.name

    @property
    def rounds(self) -> int:
        """How many rounds of each contender were counted."""
        return len(self.timings[0].seconds)

    @property
    def limit(self) -> float | None:
        """The seconds that the machine needs at its best."""
        return None if self.limits is None else self.limits.seconds(self.case.flops, self.case.traffic)

    def different(self) -> list[str]:
        """The contenders whose answer differs from ours. They get no ratio."""
        ours, *theirs = self.timings
        return [timing.name for timing in theirs if not agree(timing.answer, ours.answer, self.case.tolerance)]

    def row(self) -> dict[str, Any]:
        """All figures as JSON; ratio and spread by the name of the other contender."""
        ours, *theirs = self.timings
        different = self.different()
        ratios = {t.name: ratio(ours, t) for t in theirs if t.name not in different}
        row = {
            "measure": self.name,
            "rounds": self.rounds,
            "ours": self._figures(ours),
            "theirs": {t.name: self._figures(t) | {"same_result": t.name not in different} for t in theirs},
            "ratio": {name: r.median for name, r in ratios.items()},
            "spread": {name: [r.low, r.high] for name, r in ratios.items()},
        }
        if self.limits is not None:
            machine = dataclasses.asdict(self.limits)
            row["limit"] = {"seconds": self.limit, "flops": self.case.flops, "bytes": self.case.traffic} | {
                "machine": machine
            }
        return row

    def _figures(self, timing: Timing) -> dict[str, Any]:
        seconds = {"median": timing.median, "min": timing.min, "max": timing.max, "rounds": list(timing.seconds)}
        figures: dict[str, Any] = {"seconds": seconds}
        if self.case.amount is not None:
            key = self.case.unit.lower().replace("/s", "_per_second")
            figures[key] = self.case.amount / timing.median
        if self.limit is not None:
            figures["share_of_limit"] = self.limit / timing.median
        return figures | dict(timing.about)


@dataclass(frozen=True)
class Setup:
    """How each case of a run is measured."""

    against: Sequence[str]
    rounds: int
    threads: int
    progress: Callable[[str], None] = field(default=lambda what: None)


def measure(case: Case, setup: Setup) -> Measure:
    """Time all contenders that can do this work, and the machine's limit, in turns.

    Raises:   BenchError: a worker failed.
    """
    threads = dict.fromkeys(THREADS, str(setup.threads))
    names = [OURS, *(name for name in setup.against if name in case.subjects)]
    contenders = [contender(name, case.subjects[name], case.options, threads) for name in names]
    contenders.append(Contender("the machine's limit", "tinygrad_llm.bench.limits:best", {}, threads))
    *timings, limit = alternate(contenders, setup.rounds, progress=lambda what: setup.progress(f"{case.name}: {what}"))
    return Measure(case, timings, Limits(**limit.about))


def contender(name: str, subject: str, options: Mapping[str, Any], environment: Mapping[str, str]) -> Contender:
    """A Contender. One that is not ours runs without the changes that this package makes to its own process."""
    if name == OURS:
        return Contender(name, subject, options, environment)
    return Contender(name, subject, options, {**environment, runtime.OFF: "0"}, without=tuple(runtime.chosen))


@contextlib.contextmanager
def held_to(threads: int) -> Iterator[None]:
    """Inside, this process and the processes it starts may use this many cores.

    Raises:   BenchError: there are not that many cores, or the system cannot hold a process to fewer.
    """
    cores = runtime.cores()
    if threads > cores:
        raise BenchError(f"--threads {threads}: this process may use {cores} core(s)")
    if threads == cores:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise BenchError(f"--threads {threads}: this system cannot hold a process to fewer than its {cores} cores")
    all_of_them = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_of_them)[:threads])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_of_them)


# A process that always computes. It ends with the process that started it, whose id it is given.
_LOOP = "import os, sys\nwhile os.getppid() == int(sys.argv[1]):\n    for _ in range(1_000_000): pass"


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """Inside, this many other processes always compute, at the same priority."""
    with contextlib.ExitStack() as stack:
        for _ in range(processes):
            one = subprocess.Popen([sys.executable, "-c", _LOOP, str(os.getpid())], stdin=subprocess.DEVNULL)
            stack.callback(one.wait)
            stack.callback(one.kill)
        yield


def missing(name: str) -> list[str]:
    """The packages that a contender needs and that are not installed. None is imported here."""
    return [package for package in NEEDS.get(name, (name,)) if importlib.util.find_spec(package) is None]
