"""In the worker: work that is repeated, and the memory that it takes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinygrad_llm import runtime
from tinygrad_llm.runtime import peak_memory

ROUND = 0.3  # shortest round in seconds: it makes the clock's resolution and short disturbances negligible


@dataclass
class Work:
    """The Subject of work that is repeated in each round until the round lasts ROUND seconds.

    Args:     first: does the work for the first time and returns the answer.
              do: does the work once; this is timed. prepare: runs before each `do`, and is not timed.
              imported: `peak_memory()` after the imports. facts: returns what else to report.
              pieces: how many pieces of work one `do` contains; seconds are reported per piece.
    """

    first: Callable[[], Any]
    do: Callable[[], object]
    imported: int | None
    facts: Callable[[], dict[str, Any]]
    prepare: Callable[[], object] = lambda: None
    pieces: int = 1
    times: int = 0  # repetitions per round; the first round does the work once and determines them

    def answer(self) -> Any:
        return self.first()

    def round(self) -> float:
        """The mean seconds of one piece of work."""
        if self.times > 1:  # not timed: threads slept during the others' turns, while in a run a step follows a step
            self.prepare()
            self.do()
        seconds = 0.0
        for _ in range(self.times or 1):
            self.prepare()
            began = time.perf_counter()
            self.do()
            seconds += time.perf_counter() - began
        mean = seconds / (self.times or 1)
        self.times = self.times or math.ceil(ROUND / mean)
        return mean / self.pieces

    def about(self) -> dict[str, Any]:
        peak = peak_memory()
        own = None if peak is None or self.imported is None else peak - self.imported
        return {**self.facts(), "times": self.times, "memory": {"peak": peak, "above_imports": own}}


def numpy_facts() -> dict[str, Any]:
    """The BLAS that NumPy uses, such as "openblas 0.3.31 SkylakeX, 2 thread(s)"."""
    words = "{internal_api} {version} {architecture}, {num_threads} thread(s)"
    return {"blas": "; ".join(words.format(**blas) for blas in runtime.blas_facts()) or "unknown BLAS"}
