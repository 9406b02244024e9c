"""Contenders take turns: one round of the first, one round of the second, …, and again.

A machine's speed drifts: other programs start and end, and the clock follows the temperature. Programs that run in the
same minute drift together, so the ratio of two contenders is reliable only if they took turns. Each contender runs in
its own process (`worker.py`), so it cannot fill the caches, hold the locks or keep the threads of another. While one
works, the others wait for a line on their standard input.
"""

import json
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self

from tinygrad_llm.storage.text import one_line

TIMEOUT = 600.0  # seconds for one reply
PAUSE = 0.05  # seconds between turns, because idle threads of a BLAS or OpenMP spin for a while before they sleep
GRACE = 2.0  # seconds that a worker has to end by itself before it is killed


class BenchError(ValueError):
    """A benchmark that cannot be run, or a worker that failed; the message is for the user."""


class Subject(Protocol):
    """The work that a worker times. The function that a Contender names creates it from the options."""

    def answer(self) -> Any:
        """The result of the work, as JSON. Contenders that do the same work give the same result."""

    def round(self) -> float:
        """Do the work. Returns the seconds of the timed part, per piece of work."""

    def about(self) -> dict[str, Any]:
        """Further facts, after the rounds: a version, the seconds of parts that were not timed."""


@dataclass(frozen=True)
class Contender:
    """One participant.

    Args:     subject: "module:function", which creates the Subject in the worker.
              options: the function's keyword arguments; JSON must be able to represent them.
              environment: environment variables of the worker, in addition to those of this process.
              without: names of this process's variables that the worker does not get.
    """

    name: str
    subject: str
    options: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    without: Collection[str] = ()


@dataclass(frozen=True)
class Timing:
    """The seconds of each counted round, the contender's answer, and the facts that it reports."""

    name: str
    seconds: Sequence[float]
    answer: Any = None
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def min(self) -> float:
        return min(self.seconds)

    @property
    def max(self) -> float:
        return max(self.seconds)


@dataclass(frozen=True)
class Ratio:
    """How many times faster our contender is: by the medians, and in the worst and the best single round."""

    median: float
    low: float
    high: float


def ratio(ours: Timing, theirs: Timing) -> Ratio:
    """Their time divided by ours. Above 1, ours is faster."""
    rounds = [b / a for a, b in zip(ours.seconds, theirs.seconds, strict=True)]
    return Ratio(theirs.median / ours.median, min(rounds), max(rounds))


def agree(one: Any, other: Any, tolerance: float = 0.0) -> bool:
    """Whether two answers are equal: numbers within tolerance · max(1, |other|), everything else exactly."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(agree(a, b, tolerance) for a, b in zip(one, other, strict=True))
    if isinstance(one, float | int) and isinstance(other, float | int):
        return abs(one - other) <= tolerance * max(1.0, abs(other))
    return bool(one == other)


def alternate(
    contenders: Sequence[Contender],
    rounds: int = 7,
    warmup: int = 1,
    timeout: float = TIMEOUT,
    progress: Callable[[str], None] = lambda what: None,
) -> list[Timing]:
    """Time the contenders alternately, after each has given its answer and done `warmup` rounds that do not count.

    Args:     progress: called with a short text at each stage.
    Returns:  one Timing per contender, in their order. The caller decides whether the answers agree.
    Raises:   BenchError: a worker failed, ended, sent an invalid reply, or took longer than `timeout` seconds for one
              reply. Every worker has ended when this function returns or raises.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(_Worker(contender, timeout)) for contender in contenders]
        answers = []
        for contender, worker in zip(contenders, workers, strict=True):
            progress(f"{contender.name} gives its answer")
            answers.append(worker.ask("answer"))
        seconds: list[list[float]] = [[] for _ in workers]
        for number in range(warmup + rounds):
            progress(f"round {number - warmup + 1} of {rounds}" if number >= warmup else "warming up")
            for worker, counted in zip(workers, seconds, strict=True):
                time.sleep(PAUSE)
                taken = worker.ask("round")
                if number >= warmup:
                    counted.append(taken)
        abouts = [worker.ask("about") for worker in workers]
    names = [contender.name for contender in contenders]
    return [Timing(*facts) for facts in zip(names, seconds, answers, abouts, strict=True)]


class _Worker:
    """A contender's process. A request is a word and a reply is JSON, each on one line.

    At the end of the `with` block the process has ended, also after an error.
    """

    def __init__(self, contender: Contender, timeout: float) -> None:
        self._name, self._timeout = contender.name, timeout
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the worker)
        self._replies: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        # The worker must find the same modules as this process, whatever folder each was started in.
        search = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        inherited = {name: value for name, value in os.environ.items() if name not in contender.without}
        command = ["-m", "tinygrad_llm.bench.worker", contender.subject, json.dumps(dict(contender.options))]
        self._process = subprocess.Popen(
            [sys.executable, *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors,
            env={**inherited, **search, **contender.environment},
        )  # fmt: skip
        # Reading a pipe has no timeout on some systems; a queue has one on all.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        try:
            self._reply()  # the worker is ready, or reports an error
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def ask(self, request: str) -> Any:
        """Send a request and return the worker's reply."""
        assert self._process.stdin is not None
        with suppress(OSError):  # the worker has ended: its last output is in the queue
            self._process.stdin.write(request.encode() + b"\n")
            self._process.stdin.flush()
        return self._reply()

    def _reply(self) -> Any:
        try:
            line = self._replies.get(timeout=self._timeout)
        except queue.Empty:
            raise BenchError(f"{self._name}: no reply within {self._timeout:g} s") from None
        if not line:
            raise BenchError(f"{self._name}: its process ended with status {self._process.wait()}{self._last_words()}")
        try:
            reply = json.loads(line)
        except ValueError:
            reply = None
        match reply:
            case {"value": value}:
                return value
            case {"error": message}:
                raise BenchError(f"{self._name}: {one_line(message)}")
        raise BenchError(f"{self._name}: got {line[:80]!r} where its reply was expected")

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put(b"")

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return f": {lines[-1]}" if lines else ""

    def _end(self) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with suppress(OSError):  # the worker has already ended
            process.stdin.close()  # asks the worker to end
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self._reader.join(GRACE)  # does not return in time only if a child of the worker still holds the pipe
        if not self._reader.is_alive():
            process.stdout.close()
        self._errors.close()
