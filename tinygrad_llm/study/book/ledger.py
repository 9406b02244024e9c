"""What a fact of the book is, and how it is checked: published digits stay text, and the last one sets the bound."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import DataError
from tinygrad_llm.datasets.public import PUBLIC, public_file
from tinygrad_llm.weights.find import cache_folder

Tier = Literal["fast", "large", "slow"]
Status = Literal["pass", "fail", "needs", "skipped", "outside"]

PRINT = "print edition, CPU"
NOTEBOOK = "notebook, CPU"
TORCH = "torch 2.15, x86"
ARITHMETIC = "arithmetic"

ROUNDING = 1e-6  # relative: a value of float32, printed after one rounding more or less


@dataclass(frozen=True)
class Fact:
    """A published result, and the function that computes it here.

    Args:     id: chapter and number. what: what is computed, in order, with its seed.
              published: numbers and words as printed, separated by spaces; "/" separates rows and means nothing. A
              tuple: texts, which may hold spaces.
              compute: returns the same items, in any nesting of arrays, lists and tuples.
              origin: where the published digits come from. tier: "fast" (under a second), "large" (builds a model of
              163 million parameters), "slow" (minutes or longer, such as a whole training).
              needs: names of what `tinygrad-llm download` fetches.
              units: the bound, in units of the last printed digit. relative: a bound relative to the value, instead.
              follows: of a training, how many of the first values must agree; None: all.
              outside: why it cannot be computed here, such as a judge that is another program; "": it can.
    """

    id: str
    what: str
    published: str | tuple[str, ...]
    compute: Callable[[], Any]
    origin: str = PRINT
    tier: Tier = "fast"
    needs: tuple[str, ...] = ()
    units: float = 0.5
    relative: float = 0.0
    follows: int | None = None
    outside: str = ""

    @property
    def chapter(self) -> str:
        return self.id.partition("-")[0]

    @property
    def items(self) -> list[str]:
        """The published numbers and words, one by one."""
        if isinstance(self.published, tuple):
            return list(self.published)
        return [word for word in self.published.split() if word != "/"]

    @property
    def source(self) -> str:
        """The code that computes the fact, and the helpers of the same module that it calls."""
        return "\n".join(inspect.getsource(function) for function in _with_helpers(self.compute))


@dataclass(frozen=True)
class Result:
    """What came out: ours has the published items' form, and `difference` is the largest, next to what is allowed."""

    fact: Fact
    status: Status
    ours: tuple[str, ...] = ()
    difference: float | None = None
    allowed: float | None = None
    message: str = ""


FACTS: dict[str, Fact] = {}


def fact(id: str, published: str | tuple[str, ...], **details: Any) -> Callable[[Any], Any]:
    """Decorate the function that computes a fact, whose docstring says what that is: it joins `FACTS`."""

    def register(compute: Callable[[], Any]) -> Callable[[], Any]:
        if id in FACTS:
            raise ValueError(f"the fact {id} is defined twice")
        FACTS[id] = Fact(id, " ".join((inspect.getdoc(compute) or "").split()), published, compute, **details)
        return compute

    return register


def check(fact: Fact, slow: bool = False) -> Result:
    """Compute a fact and compare it.

    Args:     slow: also run a whole training.
    Returns:  status "needs" if a file is missing; the message then has the command that gets it. "outside" if the fact
              cannot be computed here; the message says why.
    """
    if fact.outside:
        return Result(fact, "outside", message=f"not computed here: {fact.outside}")
    missing = [message for name in fact.needs if (message := missing_file(name))]
    if missing:
        return Result(fact, "needs", message=f"needs {'; '.join(missing)}")
    if fact.tier == "slow" and not slow:
        return Result(fact, "skipped", message="takes minutes or longer: --slow runs it")
    return compare(fact, list(flat(fact.compute())))


def missing_file(name: str) -> str:
    """What to do about a file that is not at hand, or is another one; "" if it is there."""
    if name not in PUBLIC:  # a model
        return "" if cache_folder(name).is_dir() else f"{name}: run `tinygrad-llm download {name}`"
    try:
        path = public_file(name)
    except DataError as error:
        return str(error)
    if _sha256(path) == PUBLIC[name].file.sha256:
        return ""
    return f"{name}: {path} has other bytes than the published file: `tinygrad-llm download {name}` fetches that"


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compare(fact: Fact, found: Sequence[Any]) -> Result:
    """Compare what was computed with what was published, item by item."""
    items = fact.items
    ours = tuple(as_printed(value, item) for value, item in zip(found, items, strict=False))
    if len(found) != len(items):
        return Result(fact, "fail", ours, message=f"{len(found)} items, and {len(items)} are published")
    worst, bound, wrong = 0.0, None, None
    for i, (value, item) in enumerate(zip(found, items, strict=True)):
        if not is_number(item):
            good = str(value) == item
        else:
            allowed = _allowed(fact, item)
            difference = abs(float(value) - _number(item))
            good = bool(difference <= allowed)
            if bound is None or not difference <= worst:
                worst, bound = difference, allowed
        if not good and wrong is None:
            wrong = i
    must = len(items) if fact.follows is None else fact.follows
    status: Status = "pass" if wrong is None or wrong >= must else "fail"
    message = "" if wrong is None else f"item {wrong + 1} of {len(items)} is the first that differs"
    return Result(fact, status, ours, None if bound is None else worst, bound, message)


def flat(value: Any) -> Iterator[Any]:
    """The numbers and texts inside arrays, Tensors, lists and tuples, in order."""
    if isinstance(value, Tensor | np.ndarray):
        yield from np.asarray(value.data if isinstance(value, Tensor) else value).reshape(-1).tolist()
    elif isinstance(value, list | tuple):
        for item in value:
            yield from flat(item)
    else:
        yield value


def _number(item: str) -> float:
    return float(item.replace(",", ""))


def is_number(item: str) -> bool:
    """Whether a published item is a number, and not a word."""
    return re.fullmatch(r"[-+]?\d[\d,]*(\.\d*)?(e[-+]?\d+)?", item) is not None


def as_printed(value: Any, item: str) -> str:
    """Our value with as many digits as the published item has."""
    if isinstance(value, str) or not is_number(item):
        return str(value)
    mantissa, e, _ = item.partition("e")
    digits = len(mantissa.partition(".")[2])
    if not e and "." not in mantissa:
        value = int(value) if float(value).is_integer() else value
        return f"{value:,}" if "," in item else f"{value}"
    if not e:
        return f"{float(value):.{digits}f}"
    ours, _, exponent = f"{float(value):.{digits}e}".partition("e")
    return f"{ours}e{int(exponent)}" if item.endswith(f"e{int(item.partition('e')[2])}") else f"{ours}e{exponent}"


def _allowed(fact: Fact, item: str) -> float:
    """The bound of the difference to a published number; integers must agree exactly."""
    mantissa, e, exponent = item.partition("e")
    if fact.relative:
        return fact.relative * abs(_number(item))
    if not e and "." not in mantissa:
        return 0.0
    unit = 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    return fact.units * unit + ROUNDING * abs(_number(item))


def _with_helpers(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """A function, and before it those of the same module that it calls, and they call."""
    found: list[Callable[..., Any]] = []

    def visit(f: Callable[..., Any]) -> None:
        f = inspect.unwrap(f)
        if f in found:
            return
        for name in f.__code__.co_names:
            helper = f.__globals__.get(name)
            if (
                callable(helper)
                and getattr(helper, "__module__", None) == f.__module__
                and hasattr(inspect.unwrap(helper), "__code__")
            ):
                visit(helper)
        found.append(f)

    visit(function)
    return found
