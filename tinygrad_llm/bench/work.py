"""In the worker: work that is done again and again, and the memory that it takes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tinygrad_llm import runtime
from tinygrad_llm.runtime import peak_memory

ROUND = 0.3  # seconds that a round lasts at least: the clock, and what else happens, then matter little


@dataclass
class Work:
    """The Subject of work that is done as often in a round as makes it last ROUND seconds.

    Args:     first: does it as far as gives the answer. do: once, the timed part. prepare: what comes before each `do`
              and is not timed. imported: `peak_memory()` before anything was made. facts: what else is to be told.
              pieces: how many pieces of work one `do` is; the seconds of one are told.
    """

    first: Callable[[], Any]
    do: Callable[[], object]
    imported: int | None
    facts: Callable[[], dict[str, Any]]
    prepare: Callable[[], object] = lambda: None
    pieces: int = 1
    times: int = 0  # in a round; the first round, in which it is done once, says how many

    def answer(self) -> Any:
        return self.first()

    def round(self) -> float:
        """The mean seconds of one piece of work."""
        seconds = 0.0
        for _ in range(self.times or 1):
            self.prepare()
            began = time.perf_counter()
            self.do()
            seconds += time.perf_counter() - began
        mean = seconds / (self.times or 1)
        self.times = self.times or max(1, math.ceil(ROUND / mean))
        return mean / self.pieces

    def about(self) -> dict[str, Any]:
        peak = peak_memory()
        own = None if peak is None or self.imported is None else peak - self.imported
        return {**self.facts(), "times": self.times, "memory": {"peak": peak, "above_imports": own}}


def numpy_facts() -> dict[str, Any]:
    """What NumPy's products are computed by, such as "openblas 0.3.31 SkylakeX, 2 thread(s)"."""
    words = "{internal_api} {version} {architecture}, {num_threads} thread(s)"
    return {"blas": "; ".join(words.format(**blas) for blas in runtime.blas_facts()) or "unknown BLAS"}
