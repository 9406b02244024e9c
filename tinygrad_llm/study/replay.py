"""A recording run again with other numbers or kernels: proofs of single elements, one update, wrong gradients."""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_llm import optim
from tinygrad_llm.autograd import Tensor, apply, grad, no_grad
from tinygrad_llm.gradcheck.cases import basic_cases
from tinygrad_llm.gradcheck.methods import FLOOR
from tinygrad_llm.gradcheck.mutants import Hunt, Mutant, hunt, mistakes
from tinygrad_llm.kernels import Array, Kernel
from tinygrad_llm.study.explain import CENTRAL_STEP, COMPLEX_STEP
from tinygrad_llm.study.reading import zero_because
from tinygrad_llm.study.recording import Forward, Recording, Value


class Replay:
    """The operations of a recording, to be run again.

    Args:     dtype: of the floats: float64, so that a proof has 16 digits, or that of the recording.
    """

    def __init__(self, recording: Recording, dtype: DTypeLike = np.float64) -> None:
        self.recording, self.dtype = recording, np.dtype(dtype)
        # From the first operation that the output needs to the last.
        needed, self.steps = {recording.output}, list[Forward]()
        for step in reversed(recording.forward):
            if step.output in needed:
                needed.update(step.inputs)
                self.steps.append(step)
        self.steps.reverse()
        self.leaves = [v for v in recording.values if v.id in needed and v.made_by is None]
        self.parameters = [v for v in self.leaves if v in recording.parameters]

    def leaf(self, v: Value) -> Array:
        """The array of a value that no operation made, in the replay's dtype."""
        array = v.array if isinstance(v.array, np.ndarray) else v.source
        assert array is not None
        return array.astype(self.dtype, copy=False) if array.dtype.kind == "f" else array

    def values(self, leaf: Callable[[Value], Array] | None = None) -> dict[int, Array]:
        """Every value that the output needs, except leaves; the leaves are those of the recording, or what `leaf` says.

        A leaf is made where it is used, so that a large model is never there twice.
        """
        made: dict[int, Array] = {}
        leaf = leaf or self.leaf
        for step in self.steps:
            arrays = [made[i] if i in made else leaf(self.recording.values[i]) for i in step.inputs]
            made[step.output] = _run(step, arrays)
        return made

    def output_with(self, base: Mapping[int, Array], changed: int, array: Array) -> Any:
        """The output where one value is replaced, and everything that depends on it is computed again.

        Args:     base: all values, leaves among them.
        """
        moved = {changed: array}
        for step in self.steps:
            if any(i in moved for i in step.inputs):
                moved[step.output] = _run(step, [moved[i] if i in moved else base[i] for i in step.inputs])
        return moved.get(self.recording.output, base[self.recording.output]).item()

    def gradients(
        self,
        wanted: Sequence[Value],
        kernels: Mapping[str, Kernel] | None = None,
        leaves: Mapping[int, Array] | None = None,
    ) -> tuple[float, list[Array]]:
        """The output, and its gradient with respect to these values, by the engine.

        Args:     kernels: those that take the place of the recorded ones, by name.
                  leaves: their arrays, by id, where they are not those of the recording.
        """
        tensors: dict[int, Tensor] = {}
        for v in self.leaves:
            array = self.leaf(v) if leaves is None or v.id not in leaves else leaves[v.id]
            tensors[v.id] = Tensor(array, requires_grad=v.requires_grad)
        for step in self.steps:
            kernel = (kernels or {}).get(step.name, step.kernel)
            inputs = [t if t.requires_grad else t.data for t in (tensors[i] for i in step.inputs)]
            if step.recorded:
                tensors[step.output] = apply(kernel, *inputs, **step.options)
            else:
                with no_grad():
                    tensors[step.output] = apply(kernel, *inputs, **step.options)
        output = tensors[self.recording.output]
        return output.item(), grad(output, [tensors[v.id] for v in wanted])


def _run(step: Forward, arrays: list[Array]) -> Array:
    y, _ = step.kernel(*arrays, **step.options)
    return np.asarray(y)


# ---- proofs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Proof:
    """∂L/∂(one element of one value), by backprop and by two other methods."""

    value: int
    index: tuple[int, ...]
    recorded: float  # by the recorded backward pass, in its own dtype
    backprop: float  # the same in float64
    complex: float | None  # by the complex step; None where an operation is not analytic
    central: float
    scale: float  # max|g| + 0.01: what both errors are relative to
    error: float  # |backprop − complex| / scale, or with central where there is no complex step
    central_error: float
    zero_because: str | None


LESSON = 1000  # elements up to which every one is proven


def prove(recording: Recording, most: int = 12, work: float = 4e9) -> list[Proof]:
    """Prove elements of every gradient of a recording whose arrays were kept; in a lesson, all of them.

    Args:     most: elements of a value that are proven, if all values have more than LESSON. work: multiplications in
              all: a large model has fewer elements proven.
    """
    replay = Replay(recording)
    values = [v for v in recording.values if v.grad is not None and v.dtype.kind == "f"]
    _, gradients = replay.gradients(values)
    if sum(g.size for g in gradients) <= LESSON:
        most = LESSON
    base = replay.values() | {v.id: replay.leaf(v) for v in replay.leaves}
    analytic = not {step.name for step in replay.steps} & {c.covers for c in basic_cases() if c.method == "richardson"}
    count = max(1, min(most, int(work / (12 * _multiplications(replay) * max(1, len(values))))))
    return [
        _proof(replay, base, v, g, index, analytic)
        for v, g in zip(values, gradients, strict=True)
        for index in _elements(g, count)
    ]


def _multiplications(replay: Replay) -> int:
    """About how many a forward pass takes: all elements, and the inner axis of each product."""
    total = 0
    for step in replay.steps:
        inputs = [replay.recording.values[i] for i in step.inputs]
        size = math.prod(replay.recording.values[step.output].shape)
        inner = inputs[0].shape[-1] if step.name in ("matmul", "linear") and inputs[0].shape else 16
        total += size * inner + 20_000  # what calling a kernel takes
    return total


def _elements(g: Array, count: int) -> list[tuple[int, ...]]:
    """All elements of a small array; of a large one the largest, a 0 if there is any, and some evenly spaced."""
    if g.size <= count:
        return list(np.ndindex(g.shape))
    flat = np.abs(g).reshape(-1)
    order = np.argsort(-flat, kind="stable")
    chosen = [*order[: max(1, count // 3)], *np.flatnonzero(flat == 0)[: count // 4]]
    chosen += list(np.linspace(0, g.size - 1, count).astype(int))
    unique = list(dict.fromkeys(int(i) for i in chosen))[:count]
    return [tuple(int(n) for n in np.unravel_index(i, g.shape)) for i in sorted(unique)]


def _proof(
    replay: Replay, base: Mapping[int, Array], v: Value, g: Array, index: tuple[int, ...], analytic: bool
) -> Proof:
    def output(step: complex) -> Any:
        x = base[v.id]
        moved = x.astype(np.result_type(x, type(step)))
        moved[index] += step
        return replay.output_with(base, v.id, moved)

    exact = None
    if analytic:
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            exact = float(np.imag(output(1j * COMPLEX_STEP))) / COMPLEX_STEP
    central = float(np.real(output(CENTRAL_STEP) - output(-CENTRAL_STEP))) / (2 * CENTRAL_STEP)
    scale = float(np.max(np.abs(g))) + FLOOR
    recorded = replay.recording.gradient_of(v)
    return Proof(
        value=v.id,
        index=index,
        recorded=float(recorded[index]) if isinstance(recorded, np.ndarray) else math.nan,
        backprop=float(g[index]),
        complex=exact,
        central=central,
        scale=scale,
        error=abs(float(g[index]) - (central if exact is None else exact)) / scale,
        central_error=abs(float(g[index]) - central) / scale,
        zero_because=zero_because(replay.recording, v, index) if g[index] == 0 else None,
    )


# ---- one update ------------------------------------------------------------------------------------------------------


CURVE = (0, 1, 2, 3, 5, 7, 10, 13, 16, 20)  # the steps along which the loss is computed, in learning rates


@dataclass(frozen=True)
class Update:
    """One step of SGD on what was recorded."""

    lr: float
    grad_norm: float
    before: float  # the loss
    after: float
    predicted: float  # after, to first order: before − lr · ‖g‖²
    curve: list[tuple[float, float]]  # (learning rate, loss after a step of this size); empty for a large model
    logits: tuple[Array, Array, Array] | None  # before, after, and after to first order


def update(recording: Recording, lr: float | None = None, logits: int | None = None) -> Update | None:
    """Make one step of SGD, and compare its effect with what the gradient says; None where nothing is trained.

    Args:     lr: if None, the loss falls by a twentieth to first order.
              logits: the value whose change is of interest.
    """
    large = not all(isinstance(v.array, np.ndarray) for v in recording.values)
    replay = Replay(recording, np.float32 if large else np.float64)
    if not replay.parameters:
        return None
    before, gradients = replay.gradients(replay.parameters)
    g = dict(zip([v.id for v in replay.parameters], gradients, strict=True))
    square = sum(float(np.vdot(d, d)) for d in gradients)
    if not (math.isfinite(square) and square):
        return None
    if lr is None:
        lr = float(f"{0.05 * abs(before or 1.0) / square:.1g}")

    def stepped_by(rate: complex) -> dict[int, Array]:
        return replay.values(lambda v: replay.leaf(v) - rate * g[v.id] if v.id in g else replay.leaf(v))

    stepped = stepped_by(lr)
    after = float(stepped[recording.output].item())
    with np.errstate(all="ignore"):  # a step may be too long
        curve = [(lr * k, float(stepped_by(lr * k)[recording.output].item())) for k in (() if large else CURVE)]
    three = None
    if logits is not None:
        # The derivative along the step, exact to rounding: the imaginary part of the logits at p − i·h·lr·g, over h.
        h = 1e-10 if large else COMPLEX_STEP  # 1e-20 times a small gradient is below float32's range
        moved = stepped_by(1j * h * lr)[logits]
        three = moved.real, stepped[logits], moved.real + moved.imag / h
    return Update(lr, math.sqrt(square), before, after, before - lr * square, curve, three)


# ---- broken backwards ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Break:
    """A mistake in the backward pass of one kernel, and what comes of it."""

    mutant: Mutant
    hunt: Hunt  # the verdict of the check
    errors: list[tuple[int, float]]  # of each parameter's gradient here, relative to its norm + 0.01
    factor: float | None  # by which every gradient here is wrong; None if there is no such number
    curve: list[float]  # the loss while training with it


@dataclass(frozen=True)
class Breaks:
    """Training on what was recorded, with the right gradient and with wrong ones."""

    lr: float
    right: list[float]
    found: list[Break]


# The formulas of the mistakes that are shown first, by kernel and name.
WRITTEN = {
    "softmax": {
        "only the diagonal": "dx = y · (1 − y) · g",
        "Σ g·y forgotten": "dx = y · g",
        "mean(g) for Σ g·y": "dx = y · (g − mean(g))",
    },
    "layer_norm": {"mean(g') forgotten": "dx = rstd · (dx̂ − x̂ · mean(dx̂·x̂)),  dx̂ = g · weight"},
    "cross_entropy": {"onehot forgotten": "dlogits = g · p / n"},
    "matmul": {"reshaped, not transposed": "da = g b.reshape(m, k),  db = a.reshape(k, n) g"},
    "linear": {"dbias averaged": "dbias = mean(g)", "dbias from one row": "dbias = g[0]"},
    "embedding": {
        "repeated ids overwrite": "dweight[ids] = g",
        "repeated ids are averaged": "dweight[id] = mean of g over its places",
    },
    "gelu": {"0.0447 for 0.044715": "as it is, with 0.0447 for 0.044715"},
    "tanh": {"1 − y": "dx = g · (1 − y)", "1 + y²": "dx = g · (1 + y²)", "x for y": "dx = g · (1 − x²)"},
    "sigmoid": {"y (1 + y)": "dx = g · y · (1 + y)"},
    "where": {"a and b exchanged": "da = 0 where condition, else g;  db = g where condition, else 0"},
    "multiply": {"own factor for the other's": "da = g · a,  db = g · b"},
    "log": {"g · x": "dx = g · x"},
    "mean": {"n forgotten": "dx = g, copied to every summand"},
    "sum": {"divided by n": "dx = g / n, copied to every summand"},
}

# The kernels whose mistakes are the most telling come first.
_TELLING = (
    "softmax", "layer_norm", "cross_entropy", "matmul", "linear", "embedding", "gelu", "tanh", "where",
    "multiply",
)  # fmt: skip


def breaks(recording: Recording) -> Breaks | None:
    """Train on the recorded inputs with mutants of the recorded kernels; None where nothing is trained.

    A few steps of AdamW, with a few mutants; half of both where a model has more than a hundred thousand parameters.
    """
    replay = Replay(recording, recording.values[recording.output].dtype)
    if not replay.parameters:
        return None
    weights = [replay.leaf(v) for v in replay.parameters]
    count = sum(w.size for w in weights)
    steps, most = (20, 5) if count < 100_000 else (12, 4)
    size = math.sqrt(sum(float(np.vdot(w, w)) for w in weights) / max(1, count))
    if not math.isfinite(size):  # a weight is NaN or infinite: nothing can be learned
        return None
    lr = float(f"{0.02 * (size or 1.0):.1g}")
    right = replay.gradients(replay.parameters)[1]
    found = []
    for mutant in _mistakes(replay):
        kernels = {mutant.kernel: mutant.plant(_kernel(replay, mutant.kernel))}
        try:
            wrong = replay.gradients(replay.parameters, kernels)[1]
        except (ValueError, IndexError, TypeError, RuntimeError):  # a formula that was written for other shapes
            continue
        errors = [
            (v.id, float(np.linalg.norm(b - a) / (np.linalg.norm(a) + FLOOR)))
            for v, a, b in zip(replay.parameters, right, wrong, strict=True)
        ]
        if max(error for _, error in errors) > 1e-6:  # float32 rounds by less
            verdict = next(hunt([mutant]))
            found.append(Break(mutant, verdict, errors, _factor(right, wrong), _train(replay, lr, steps, kernels)))
        if len(found) == most:
            break
    return Breaks(lr, _train(replay, lr, steps, {}), found)


def _factor(right: list[Array], wrong: list[Array]) -> float | None:
    """The number c of wrong = c · right, to five digits."""
    square = sum(float(np.vdot(a, a)) for a in right)
    if not square:
        return None
    c = sum(float(np.vdot(a, b)) for a, b in zip(right, wrong, strict=True)) / square
    off = max(float(np.linalg.norm(b - c * a)) for a, b in zip(right, wrong, strict=True))
    return c if off <= 1e-5 * max(float(np.linalg.norm(b)) for b in wrong) else None


def _kernel(replay: Replay, name: str) -> Kernel:
    return next(step.kernel for step in replay.steps if step.name == name)


def _mistakes(replay: Replay) -> Iterator[Mutant]:
    """The wrong formulas of the kernels that were used: the first of each kernel, then the second of each, …"""
    used = {step.name for step in replay.steps if step.recorded}
    order = [name for name in (*_TELLING, *sorted(used - set(_TELLING))) if name in used]
    for row in zip_longest(*map(mistakes, order)):
        yield from (mutant for mutant in row if mutant is not None)


def _train(replay: Replay, lr: float, steps: int, kernels: Mapping[str, Kernel]) -> list[float]:
    """The losses of training on the recorded inputs."""
    parameters = [Tensor(np.array(replay.leaf(v)), requires_grad=True) for v in replay.parameters]
    optimizer = optim.AdamW(parameters, lr=lr, weight_decay=0.0)
    losses = []
    with np.errstate(all="ignore"):
        for _ in range(steps):
            leaves = {v.id: p.data for v, p in zip(replay.parameters, parameters, strict=True)}
            loss, gradients = replay.gradients(replay.parameters, kernels, leaves)
            losses.append(loss)
            for p, g in zip(parameters, gradients, strict=True):
                p.grad = g
            optimizer.step()
    return losses
