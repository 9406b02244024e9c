"""The ledger: run the table of cases, and say what it proves."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tinygrad_llm import models, nn
from tinygrad_llm.gradcheck.cases import Case, all_cases
from tinygrad_llm.gradcheck.checkers import TOLERANCE, GradcheckError, gradcheck
from tinygrad_llm.kernels import KERNELS
from tinygrad_llm.random import Generator


@dataclass(frozen=True)
class Row:
    """The outcome of one case. `message` is empty if it passed."""

    covers: str
    name: str
    method: str
    elements: int
    error: float
    tolerance: float
    seconds: float
    message: str

    @property
    def passed(self) -> bool:
        return not self.message


def run(cases: Iterable[Case], seed: int = 0) -> Iterator[Row]:
    """Check each case; every input element counts, and the worst decides."""
    for case in cases:
        start = time.perf_counter()
        elements, error, message = 0, float("nan"), ""
        try:
            fn, inputs, names = case.make(Generator(seed))
            result = gradcheck(fn, inputs, case.method, names=names, seed=seed + 1, raise_exception=False)
            elements, error = sum(c.elements for c in result.comparisons), result.worst.error
            if not result:
                c = result.worst
                message = f"{c.name} at {c.index}: analytic {c.analytic:.17g}, numeric {c.numeric:.17g}"
        except GradcheckError as failure:
            message = str(failure)
        seconds = time.perf_counter() - start
        yield Row(case.covers, case.name, case.method, elements, error, TOLERANCE[case.method], seconds, message)


def layers() -> list[str]:
    """The names of all layers and models that are offered."""
    offered = [getattr(package, name) for package in (nn, models) for name in package.__all__]
    modules = [thing for thing in offered if isinstance(thing, type) and issubclass(thing, nn.Module)]
    return sorted(m.__name__ for m in modules if m not in (nn.Module,))


def uncovered(cases: Iterable[Case] | None = None) -> list[str]:
    """Kernels and layers that no case covers. It must be empty."""
    covered = {case.covers for case in (all_cases() if cases is None else cases)}
    return [name for name in [*KERNELS, *layers()] if name not in covered]
