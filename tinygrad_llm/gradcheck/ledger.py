"""The ledger: run the table of cases, report one row each, and list what no case covers."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tinygrad_llm import functional, models, nn, optim
from tinygrad_llm.gradcheck.cases import Case
from tinygrad_llm.gradcheck.methods import GradcheckError
from tinygrad_llm.gradcheck.model_cases import all_cases
from tinygrad_llm.gradcheck.result import TOLERANCE, describe
from tinygrad_llm.kernels import KERNELS


@dataclass(frozen=True)
class Row:
    """The outcome of one case. `message` is empty if it passed."""

    group: str
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
    """Check each case and yield its row; the error is that of the worst element of any input."""
    for case in cases:
        start = time.perf_counter()
        elements, error, tolerance, message = 0, float("nan"), TOLERANCE.get(case.method, 0.0), ""
        try:
            result = case.check(seed)
            elements = sum(c.elements for c in result.comparisons)
            error, tolerance = result.worst.error, result.tolerance
            message = "" if result else describe(result)
        except GradcheckError as failure:
            message = str(failure)
        except Exception as failure:  # so that a kernel that raises does not end the table
            message = f"{type(failure).__name__}: {failure}"
        seconds = time.perf_counter() - start
        yield Row(case.group, case.covers, case.name, case.method, elements, error, tolerance, seconds, message)


def needed() -> list[str]:
    """The names that need a case: all public kernels, functions on Tensors, layers, models and optimizers."""
    things = [getattr(package, name) for package in (nn, models, optim) for name in package.__all__]
    wanted = dict.fromkeys(thing for thing in things if isinstance(thing, type))  # once, if it has two names
    modules = sorted(m.__name__ for m in wanted if issubclass(m, nn.Module) and m not in (nn.Module, nn.ModuleList))
    updates = [m.__name__ for m in wanted if hasattr(m, "step") and m is not optim.Optimizer]
    updates += [name for name in optim.__all__ if name.endswith("_")]  # functions that change gradients
    return [*KERNELS, *(f"F.{name}" for name in functional.__all__), *modules, *sorted(updates)]


def uncovered(cases: Iterable[Case] | None = None) -> list[str]:
    """The names that need a case and have none; it must be empty."""
    covered = {case.covers for case in (all_cases() if cases is None else cases)}
    return [name for name in needed() if name not in covered]
