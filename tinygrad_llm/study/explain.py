"""One operation or layer explained: formula, derivation, source, an example in numbers, and the proof.

The formula and the derivation are read from the docstring, and the example and the proof are computed from the case
that `gradcheck` proves. Nothing is written twice.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_llm import functional, models, nn, optim
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.autograd.observer import Observer, Operation, input_names, observing
from tinygrad_llm.gradcheck import Case, GradcheckError, GradcheckResult, all_cases
from tinygrad_llm.gradcheck.cases import Call
from tinygrad_llm.gradcheck.result import describe
from tinygrad_llm.kernels import Array, Kernel
from tinygrad_llm.random import Generator
from tinygrad_llm.study.documentation import document

COMPLEX_STEP = 1e-20
CENTRAL_STEP = 1e-5


@dataclass(frozen=True)
class Subject:
    """A kernel, function, layer or optimizer that can be explained."""

    group: str
    name: str
    thing: Any  # the function or class itself
    case: Case  # the first one in the table: it has all the inputs

    @property
    def headline(self) -> str:
        """The first line of the docstring, with … if the paragraph continues."""
        line, *more = (inspect.getdoc(self.thing) or "").split("\n")
        return f"{line} …" if more and more[0] and not re.match(r"[A-Z]\w+: ", more[0]) else line


@dataclass(frozen=True)
class Derivative:
    """∂L/∂(one element of one input), computed in three ways."""

    input: str
    index: tuple[int, ...]
    analytic: float  # by the vjp
    above: float  # L with the element moved by CENTRAL_STEP
    below: float  # L with the element moved by −CENTRAL_STEP
    complex: float | None  # by the complex step; None if the kernel is not analytic

    @property
    def central(self) -> float:
        return (self.above - self.below) / (2 * CENTRAL_STEP)


@dataclass(frozen=True)
class Example:
    """A kernel run forward and backward on numbers of two decimals."""

    kernel: Kernel
    inputs: dict[str, Array]
    options: dict[str, Any]
    output: Array
    g: Array  # ∂L/∂output, for L = Σ g · output
    gradients: dict[str, Array]  # "dx": ∂L/∂x


@dataclass(frozen=True)
class Explanation:
    """The result of `explain`. A kernel has an example; everything else has shapes and kernels."""

    subject: Subject
    formula: str
    notes: str
    derivation: str
    file: str
    source: str
    example: Example | None
    derivative: Derivative | None  # one of the example's gradients; None if they cannot be checked
    shapes: dict[str, tuple[int, ...]]  # of inputs, parameters and output
    kernels: list[str]  # that it is made of, in the order in which they first ran
    proof: GradcheckResult | None  # None: it could not be checked, and `failure` says why
    failure: str  # empty if every gradient is right


def subjects() -> dict[str, Subject]:
    """Everything that can be explained, by name."""
    found: dict[str, Subject] = {}
    for case in all_cases():
        if not case.covers.startswith("Tensor.") and case.covers not in found:  # a kernel explains the method
            found[case.covers] = Subject(case.group, case.covers, _thing(case), case)
    return found


def explain(subject: Subject, seed: int = 0) -> Explanation:
    """Compute the explanation of a subject.

    Args:     seed: of the example's numbers.
    """
    words = document(subject.thing)
    case = subject.case
    example = _run(case.make, seed) if isinstance(case.make, Call) else None
    shapes, kernels = _parts(case, seed) if example is None and case.method != "formula" else ({}, [])
    proof, derivative = None, None
    try:
        proof = case.check(seed) if example is None else _check(case, example)
        failure = "" if proof else describe(proof)
        if example is not None:
            derivative = _one_derivative(case, example)
    except GradcheckError as error:
        failure = str(error)
    return Explanation(
        subject=subject,
        formula=words.formula,
        notes=words.notes,
        derivation=words.derivation,
        file=words.file,
        source=words.source,
        example=example,
        derivative=derivative,
        shapes=shapes,
        kernels=kernels,
        proof=proof,
        failure=failure,
    )


def _thing(case: Case) -> Any:
    """The kernel, function or class itself."""
    if isinstance(case.make, Call):
        return case.make.kernel
    name = case.covers.removeprefix("F.")
    packages = [functional] if name != case.covers else [nn, models, optim]
    return next(getattr(package, name) for package in packages if hasattr(package, name))


# ---- a kernel in numbers -------------------------------------------------------------------------------------------


def _run(call: Call, seed: int) -> Example:
    """Run the kernel forward and backward."""
    rng = Generator(seed)
    arrays = [np.round(x, 2) if x.dtype.kind == "f" else x for x in call.arrays(rng)]
    names = input_names(call.kernel, len(arrays))
    y, vjp = call.kernel(*arrays, **call.options)
    g = np.asarray(np.round(rng.randn(y.shape, np.float64), 2))
    gradients = {f"d{name}": d for name, d in zip(names, vjp(g), strict=False) if d is not None}
    return Example(call.kernel, dict(zip(names, arrays, strict=True)), call.options, y, g, gradients)


def _check(case: Case, example: Example) -> GradcheckResult:
    """Prove every gradient of the example."""
    fn, _, _ = case.make(Generator(0))
    names, arrays = zip(*example.inputs.items(), strict=True)
    return case.prove(fn, arrays, names, cotangent=example.g)


def _one_derivative(case: Case, example: Example) -> Derivative:
    """The largest element of the first gradient, and the differences that confirm it."""
    gradient, d = next(iter(example.gradients.items()))
    name = gradient.removeprefix("d")
    index = tuple(int(n) for n in np.unravel_index(int(np.argmax(np.abs(d))), d.shape))

    def loss(step: complex) -> Any:
        """L = Σ g · y with the element moved by this step."""
        x = example.inputs[name]
        moved = x.astype(np.result_type(x, type(step)))
        moved[index] += step
        y, _ = example.kernel(*(example.inputs | {name: moved}).values(), **example.options)
        return np.sum(example.g * y)

    return Derivative(
        input=name,
        index=index,
        analytic=float(d[index]),
        above=float(loss(CENTRAL_STEP)),
        below=float(loss(-CENTRAL_STEP)),
        complex=float(loss(1j * COMPLEX_STEP).imag) / COMPLEX_STEP if case.method == "complex" else None,
    )


# ---- functions, layers, optimizers ---------------------------------------------------------------------------------


class _Kernels(Observer):
    """Collects the names of the kernels that are recorded, in the order in which they first run."""

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def on_operation(self, operation: Operation) -> None:
        if operation.node is not None:
            self.names[operation.name] = None


def kernels_of(function: Callable[..., Any], *inputs: Any) -> tuple[Any, list[str]]:
    """function(*inputs), and the kernels that it is made of."""
    kernels = _Kernels()
    with observing(kernels):
        y = function(*inputs)
    return y, list(kernels.names)


def _parts(case: Case, seed: int) -> tuple[dict[str, tuple[int, ...]], list[str]]:
    """The shapes of the inputs, parameters and output of a case, and its kernels."""
    fn, inputs, names = case.make(Generator(seed))
    shapes = {name: x.shape for name, x in zip(names, inputs, strict=True)}
    leaves = [x if isinstance(x, Tensor) or x.dtype.kind != "f" else Tensor(x, requires_grad=True) for x in inputs]
    y, kernels = kernels_of(fn, *leaves)
    return shapes | {"output": y.shape}, kernels
