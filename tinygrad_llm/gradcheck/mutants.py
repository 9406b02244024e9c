"""Mutants: wrong gradients, planted one at a time to see whether the checker catches them.

A check that passes proves little unless one knows which errors it would miss. Mutation testing measures that: change
the code under test a little, on purpose, and count the changes that no test notices. Here the code is a kernel's vjp.
The forward stays right, and a gradient becomes wrong: by a change that suits any kernel (`CHANGES`), or by a mistake
that people make with this kernel (`wrong_formulas.py`). A mutant that no case of its kernel catches shows a hole in the
cases or in the checker.

The same mutants compare the methods. A method with tolerance t misses a gradient that is wrong by less than t, in this
project and in any other. The method float32 compares a wrong gradient with itself, so it misses wrong formulas.

Source: DeMillo, Lipton and Sayward 1978, Computer 11(4) (mutation testing).
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from tinygrad_llm.gradcheck.cases import Call, Case, basic_cases, exact
from tinygrad_llm.gradcheck.methods import GradcheckError
from tinygrad_llm.gradcheck.result import TOLERANCE, Comparison, describe
from tinygrad_llm.gradcheck.wrong_formulas import WRONG, Wrong
from tinygrad_llm.kernels import KERNELS, Array, Kernel
from tinygrad_llm.kernels.contract import MEANS, Result, Vjp
from tinygrad_llm.random import Generator

Grads: TypeAlias = tuple[Array | None, ...]
Change: TypeAlias = Callable[[Array, Array, list[Array]], Array | None]  # one input's gradient, g, the others'


@dataclass(frozen=True)
class Mutant:
    """A mistake in the vjp of one kernel: `plant` takes the right kernel and returns a wrong one."""

    kernel: str
    name: str
    plant: Callable[[Kernel], Kernel]


@dataclass(frozen=True)
class Hunt:
    """The fate of a mutant: whether it was caught, by which case, and with which message of the checker."""

    kernel: str
    mutant: str
    method: str
    caught: bool
    by: str
    error: float  # the largest of all cases; NaN if the shape, dtype or number of gradients was wrong
    message: str
    tolerance: float
    worst: Comparison | None = None  # where the checker saw the largest error; None if it refused to compare


# ---- changes that suit any kernel ----------------------------------------------------------------------------------


def _one_element(d: Array, g: Array, others: list[Array]) -> Array:
    d = np.array(d)
    largest = np.unravel_index(np.argmax(np.abs(d)), d.shape)
    d[largest] *= 1 + 1e-6
    return d


def _of_another(d: Array, g: Array, others: list[Array]) -> Array:
    return next((other for other in others if other.shape == d.shape), d)


CHANGES: dict[str, Change] = {
    "scaled by 1 + 1e-6": lambda d, g, others: d * (1 + 1e-6),
    "scaled by 1 + 1e-9": lambda d, g, others: d * (1 + 1e-9),
    "largest element scaled by 1 + 1e-6": _one_element,
    "rounded to float32": lambda d, g, others: d.astype(np.float32).astype(d.dtype),
    "opposite sign": lambda d, g, others: -d,
    "missing": lambda d, g, others: None,
    "reversed": lambda d, g, others: np.flip(d),
    "transposed": lambda d, g, others: d.T.reshape(d.shape),
    "another input's": _of_another,
    "g itself": lambda d, g, others: g if g.shape == d.shape else d,
    "an axis too many": lambda d, g, others: d[None],
}


# ---- planting ------------------------------------------------------------------------------------------------------


def planted(kernel: Kernel, backward: Callable[[Vjp, Array, tuple[Array, ...], dict[str, Any]], Grads]) -> Kernel:
    """The kernel with the right forward, and `backward(right vjp, g, inputs, options)` for its gradients."""

    # `wraps` alone does not copy the defaults, among which `apply` looks for "needs".
    @functools.wraps(kernel, assigned=(*functools.WRAPPER_ASSIGNMENTS, "__kwdefaults__"))
    def wrong(*inputs: Array, **options: Any) -> Result:
        y, vjp = kernel(*inputs, **options)
        return y, lambda g: backward(vjp, g, inputs, options)

    return wrong


def _changed(name: str, kernel: str, change: Change, i: int, inputs: int) -> Mutant:
    """A mutant that changes the i-th gradient alone."""

    def backward(vjp: Vjp, g: Array, *_: Any) -> Grads:
        grads = vjp(g)
        d = grads[i] if i < len(grads) else None
        if d is None:
            return grads
        others = [other for j, other in enumerate(grads) if j != i and other is not None]
        return *grads[:i], change(np.asarray(d), g, others), *grads[i + 1 :]

    return Mutant(kernel, name if inputs == 1 else f"{name}, input {i}", lambda right: planted(right, backward))


def _mistaken(name: str, kernel: str, formula: Wrong) -> Mutant:
    """A mutant whose gradients come from a wrong formula, in the cases to which the formula applies."""

    def backward(vjp: Vjp, g: Array, inputs: tuple[Array, ...], options: dict[str, Any]) -> Grads:
        grads = formula(g, *inputs, **{key: value for key, value in options.items() if key not in MEANS})
        return vjp(g) if grads is None else grads

    return Mutant(kernel, name, lambda right: planted(right, backward))


def mutants(names: Iterable[str] | None = None) -> list[Mutant]:
    """The mutants of the kernels named (None: of all).

    A change of `CHANGES` is planted if it changes a gradient in one of the kernel's cases; a wrong formula always is.
    The changes take the inputs of a kernel in turn, so that each input's gradient is changed by some.

    Raises:   ValueError: there is no kernel of such a name.
    """
    names = list(KERNELS) if names is None else list(names)
    if unknown := [name for name in names if name not in KERNELS]:
        raise ValueError(f"no kernel is named {', '.join(unknown)}: choose from {', '.join(KERNELS)}")
    cases = basic_cases()
    return [mutant for name in names for mutant in _mutants_of(name, [case for case in cases if case.covers == name])]


def mistakes(kernel: str) -> list[Mutant]:
    """The mutants of one kernel that are wrong formulas, as people write them."""
    return [_mistaken(name, kernel, formula) for name, formula in WRONG.get(kernel, {}).items()]


def _mutants_of(name: str, cases: list[Case]) -> Iterator[Mutant]:
    calls = [case.make for case in cases if isinstance(case.make, Call)]
    floats = [i for i in range(max((len(call.draws) for call in calls), default=0)) if _is_float(calls, i)]
    for turn, (change_name, change) in enumerate(CHANGES.items()):
        if change_name == "scaled by 1 + 1e-9" and any(case.method == "richardson" for case in cases):
            continue  # the tolerance of this method is 1e-9
        inputs = floats[turn % len(floats) :] + floats[: turn % len(floats)] if floats else []
        tried = (_changed(change_name, name, change, i, len(floats)) for i in inputs)
        yield from [mutant for mutant in tried if _changes_something(mutant, calls)][:1]
    yield from mistakes(name)  # one that changes nothing is not caught: a hole in the cases


def _is_float(calls: list[Call], i: int) -> bool:
    return any(len(call.draws) > i and call.draws[i](Generator(0)).dtype.kind == "f" for call in calls)


def _changes_something(mutant: Mutant, calls: list[Call]) -> bool:
    return any(_differ(call.kernel, mutant.plant(call.kernel), call) for call in calls)


def _differ(right: Kernel, wrong: Kernel, call: Call, seed: int = 0) -> bool:
    """Whether the gradients of two kernels on the inputs of a case differ by more than rounding."""
    inputs = call.arrays(Generator(seed))
    y, vjp = right(*inputs, **call.options)
    g = Generator(seed + 1).randn(np.shape(y), np.float64)
    pairs = zip(inputs, vjp(g), wrong(*inputs, **call.options)[1](g), strict=True)
    return any(_unequal(a, b) for x, a, b in pairs if x.dtype.kind == "f" and a is not None)


def _unequal(a: Array, b: Array | None) -> bool:
    a = np.asarray(a)
    b = np.zeros_like(a) if b is None else np.asarray(b)
    return a.shape != b.shape or bool(np.max(np.abs(a - b), initial=0) > 1e-10 * np.max(np.abs(a), initial=0))


# ---- hunting -------------------------------------------------------------------------------------------------------


def hunt(mutants: Iterable[Mutant], method: str | None = None, seed: int = 0) -> Iterator[Hunt]:
    """Check the cases of each mutant's kernel with the mutant in its place, until one catches it.

    Args:     method: of `gradcheck`, for all cases that allow it; None for each case's own. seed: of the inputs and v.
    Returns:  one Hunt for each mutant, except where no case of its kernel allows the method.
    Raises:   ValueError: an unknown method.
    """
    if method is not None and method not in TOLERANCE:
        raise ValueError(f"unknown method {method!r}: choose from {', '.join(TOLERANCE)}")
    return _hunt(mutants, method, seed)


def _hunt(mutants: Iterable[Mutant], method: str | None, seed: int) -> Iterator[Hunt]:
    table = basic_cases()
    passes: dict[str, bool] = {}  # case → whether it passes if nothing is changed; otherwise it would catch anything
    for mutant in mutants:
        missed: list[Hunt] = []
        for case in _cases(table, mutant.kernel, method):
            outcome = _outcome(mutant, case, seed)
            if not outcome.caught:
                missed.append(outcome)
                continue
            if case.name not in passes:
                passes[case.name] = not _outcome(replace(mutant, plant=_unchanged), case, seed).caught
            if passes[case.name]:
                yield outcome
                break
        else:
            if missed:
                yield max(missed, key=lambda outcome: outcome.error)


def _cases(table: list[Case], kernel: str, method: str | None) -> list[Case]:
    """The kernel's cases in the table that allow the method, by it."""
    cases = [case for case in table if case.covers == kernel]
    if method in ("complex", "directions"):  # both need an analytic function
        cases = [case for case in cases if case.method != "richardson"]
    if method == "adjoint":
        cases = [case for case in cases if exact(case)]
    return [case if method in (None, case.method) else case.by(str(method)) for case in cases]


def _unchanged(right: Kernel) -> Kernel:
    """The kernel in the scaffold of a mutant, with the right gradients."""
    return planted(right, lambda vjp, g, inputs, options: vjp(g))


def _outcome(mutant: Mutant, case: Case, seed: int) -> Hunt:
    """Check a case with the mutant in place of its kernel."""
    assert isinstance(case.make, Call)
    wrong = replace(case, make=replace(case.make, kernel=mutant.plant(case.make.kernel)))
    error, message, worst = float("nan"), "", None
    try:
        result = wrong.check(seed)
        worst = result.worst
        error, message = worst.error, "" if result else describe(result)
    except GradcheckError as refusal:
        message = str(refusal)
    by = case.name if message else ""
    fate = (case.method, bool(message), by, error, message, TOLERANCE[case.method], worst)
    return Hunt(mutant.kernel, mutant.name, *fate)
