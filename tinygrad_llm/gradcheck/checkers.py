"""`gradcheck`: compare a gradient with numbers obtained without it.

The output y is first reduced to one number by a random vector v, L = Σ v·y. Random, because with v = 1 whole classes of
errors cancel: the gradient of Σ softmax(x) is 0, and so is that of many a wrong softmax. Then, for each input:

complex      ∂L/∂x_j = Im L(x + i·h·e_j) / h with h = 1e-20, for every element. Since L(x + ih) = L + ih·L' − h²·L''/2
             − …, the imaginary part is h·L' with an error of h², which is 1e-40: nothing. No difference is taken, so no
             digits are lost, and the result is exact to rounding. It needs fn to be analytic: powers, exponentials,
             products and their like; not |x| or max(x, y) at their kinks.
richardson   central differences at h, h/2, h/4, h/8, extrapolated to h = 0: each stage of the table cancels one more
             even power of h. For functions with kinks, as long as no kink is within h.
central      (L(x + h) − L(x − h)) / 2h: what most checkers do. The error is the larger of h² and 1e-16/h, so about
             ten digits at the best h, and usually fewer.
directions   the complex step along random vectors u of ±1 instead of each e_j: ⟨∂L/∂x, u⟩ = Im L(x + i·h·u) / h. Eight
             evaluations an input however large it is, so it suits whole models. Two equal and opposite errors hide
             from one u in two, hence from all eight in one of 256.
adjoint      for fn linear in each input by itself: ⟨v, J e_j⟩ = ⟨Jᵀv, e_j⟩ with ==. Inputs and v are small random
             integers, never 0, on which float64 is exact; a linear function's difference with step 1 is its derivative.
float32      the gradient in single precision beside the same in double: says nothing of the formula, but that the
             dtype is kept and the rounding is small.

Sources: Squire and Trapp 1998, SIAM Review 40(1) (complex step); Richardson 1911, Phil. Trans. A 210.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinygrad_llm.autograd import Tensor, detect_anomaly, grad, no_grad
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn import Module
from tinygrad_llm.random import Generator

# What each method can prove, and what the ledger asks of it. An error is max|Δ| / (max|g| + 0.01) for one input, so
# a tolerance of 1e-12 means |Δ| ≤ 1e-12 · max|g| + 1e-14. For directions and float32, where Δ is a sum over a whole
# tensor, the norm ‖g‖ takes the place of max|g|.
TOLERANCE = {
    "complex": 1e-12,
    "richardson": 1e-9,
    "central": 1e-6,
    "directions": 1e-11,
    "adjoint": 0.0,
    "float32": 1e-5,
}
_FLOOR = 0.01
_H = 1e-20


class GradcheckError(AssertionError):
    """A gradient is wrong, or cannot be checked; the message says where."""


@dataclass(frozen=True)
class Comparison:
    """One input's gradient beside its numeric counterpart."""

    name: str
    elements: int  # derivatives compared
    error: float  # max|Δ| / (max|g| + 0.01)
    index: tuple[int, ...]  # where |Δ| is largest, and both values there; for directions, which of them
    analytic: float
    numeric: float


@dataclass(frozen=True)
class GradcheckResult:
    """What `gradcheck` found: True in a condition if every input passed."""

    method: str
    tolerance: float
    comparisons: list[Comparison]

    @property
    def worst(self) -> Comparison:
        return max(self.comparisons, key=lambda c: np.nan_to_num(c.error, nan=np.inf))

    def __bool__(self) -> bool:
        return self.worst.error <= self.tolerance  # False for NaN


def gradcheck(
    fn: Callable[..., Tensor] | Module,
    inputs: Sequence[Any],
    method: str = "complex",
    *,
    loss: Callable[[Tensor], Tensor] | None = None,
    tolerance: float | None = None,
    step: float | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    raise_exception: bool = True,
) -> GradcheckResult:
    """Prove the gradient of fn, element by element, in float64.

    Args:     fn: takes the inputs as Tensors and returns one Tensor of any shape; deterministic. Of a Module all
              parameters are checked besides the inputs, in whichever mode (`train`, `eval`) it is.
              inputs: float arrays and Tensors are checked; integer and boolean ones are handed on. A Tensor that
              requires a gradient may also be one that fn uses by itself, such as a model's parameter: its data is
              float64 during the check and put back afterwards.
              method: "complex", "richardson", "central", "directions", "adjoint" or "float32", as explained above.
              loss: applied to fn's output. tolerance: as explained at TOLERANCE. step: h, where the method has one.
              names: of the inputs, for messages. seed: of the random vector v.
    Returns:  a GradcheckResult.
    Raises:   GradcheckError: a wrong gradient (unless raise_exception is False), or nothing that can be checked: no
              float input, no dependence, NaN, randomness, a kink within the step, a vjp that returns other shapes,
              dtypes or numbers of gradients than there are inputs. ValueError: an unknown method; names or
              tolerance that do not fit.
    """
    if method not in TOLERANCE:
        raise ValueError(f"unknown method {method!r}: choose from {', '.join(TOLERANCE)}")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance must be a number ≥ 0, not {tolerance}")
    if step is not None and not 0 < step < np.inf:
        raise ValueError(f"step must be a number > 0, not {step}")
    tensors = [_as_input(x) for x in inputs]
    names = [f"input {i}" for i in range(len(tensors))] if names is None else list(names)
    if len(names) != len(tensors):
        raise ValueError(f"{len(names)} names for {len(tensors)} inputs: give one each")
    named = list(zip(names, tensors, strict=True))
    if isinstance(fn, Module):
        named += fn.named_parameters()
    checked: list[tuple[str, Tensor]] = []
    for name, t in named:
        if isinstance(t, Tensor) and t.requires_grad and not any(t is other for _, other in checked):
            checked.append((name, t))
    if not checked:
        raise GradcheckError(
            "nothing to check: no input is a float array, or a Tensor that requires a gradient "
            "(integers have none: convert them to float)"
        )

    def call() -> Tensor:
        y = fn(*tensors)
        y = y if loss is None else loss(y)
        if not isinstance(y, Tensor):
            raise GradcheckError(f"fn must return one Tensor, not {type(y).__name__}")
        return y

    kept = [t.data for _, t in checked]
    try:
        for name, t in checked:
            if t.dtype.kind == "c":
                raise GradcheckError(f"{name} is complex, a complex input: check its real and imaginary parts instead")
            t.data = np.array(t.data, dtype=np.float64)  # a copy
            if not np.isfinite(t.data).all():
                raise GradcheckError(f"{name}, an input, holds NaN or infinity: a gradient there proves nothing")
        comparisons = _Check(call, checked, method, seed, step).compare()
    finally:
        for (_, t), data in zip(checked, kept, strict=True):
            t.data = data
    result = GradcheckResult(method, TOLERANCE[method] if tolerance is None else tolerance, comparisons)
    if raise_exception and not result:
        name = type(fn).__name__ if isinstance(fn, Module) else getattr(fn, "__name__", "fn")
        raise GradcheckError(f"{name}: the gradient of {describe(result)}")
    return result


def describe(result: GradcheckResult) -> str:
    """What the worst comparison of a result says, in one line."""
    c = result.worst
    return (
        f"{c.name} is wrong at {'direction' if result.method == 'directions' else 'index'} {c.index}: analytic "
        f"{c.analytic:.17g}, numeric ({result.method}) {c.numeric:.17g}; error {c.error:.3g}, "
        f"tolerance {result.tolerance:.3g}"
    )


def _as_input(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x
    array = np.asarray(x)
    return Tensor(array.astype(np.float64), requires_grad=True) if array.dtype.kind == "f" else array


class _Check:
    """One check: the function, the Tensors that are differentiated, and the vector v that makes it one number."""

    def __init__(
        self, call: Callable[[], Tensor], checked: list[tuple[str, Tensor]], method: str, seed: int, step: float | None
    ) -> None:
        self.call, self.method, self.step = call, method, step
        self.names, self.tensors = [name for name, _ in checked], [t for _, t in checked]
        self.rng = Generator(seed)
        if method == "adjoint":
            for t in self.tensors:
                t.data = self._integers(t.shape)

    @detect_anomaly(check_nan=False)  # a wrong shape or dtype, or a changed value, may give the right numbers by luck
    def differentiate(self) -> list[Array]:
        """The gradients to be proven, once it is sure that there is something to prove."""
        y = self.call()
        self.v = self._integers(y.shape) if self.method == "adjoint" else self.rng.randn(y.shape, np.float64)
        if not y.requires_grad:
            raise GradcheckError(
                f"the output ({y.dtype}) does not depend on any input that is checked in a way that can be "
                "differentiated, or was computed in no_grad"
            )
        if not np.isfinite(y.data).all():
            raise GradcheckError("the output holds NaN or infinity")
        self.base = np.sum(self.v * y.data)
        self.v.flags.writeable = False  # a vjp that writes into what it is given shall not go unnoticed
        grads = self._backward(y)
        for name, t, g in zip(self.names, self.tensors, grads, strict=True):
            if (g.shape, g.dtype) != (t.shape, t.dtype):
                raise GradcheckError(f"the gradient of {name} is {g.dtype} {g.shape}, not {t.dtype} {t.shape}")
        return grads

    def compare(self) -> list[Comparison]:
        grads = self.differentiate()
        if self.value() != self.base:
            raise GradcheckError(
                "fn gave two results for the same input: fix its random numbers (reseed in fn), and let it change "
                "nothing that it reads"
            )
        if self.method == "float32":
            return self._single(grads)
        if self.method != "adjoint":
            self._refuse_kink(grads)
        compare = self._along if self.method == "directions" else self._each
        return [compare(*three) for three in zip(self.names, self.tensors, grads, strict=True)]

    def _backward(self, y: Tensor) -> list[Array]:
        try:
            return grad(y, self.tensors, self.v)
        except (RuntimeError, TypeError, ValueError) as error:
            raise GradcheckError(f"the backward pass failed: {error}") from error

    def value(self) -> Any:
        """L = Σ v·y at the present inputs."""
        with no_grad():
            return np.sum(self.v * self.call().data)

    def _integers(self, shape: tuple[int, ...]) -> Array:
        """−4 … 4 but for 0, which would hide whatever it multiplies."""
        n = self.rng.randint(-4, 4, shape)
        return np.asarray(np.where(n < 0, n, n + 1), dtype=np.float64)

    def _each(self, name: str, t: Tensor, g: Array) -> Comparison:
        differentiate = {
            "complex": self._complex,
            "richardson": self._richardson,
            "central": self._central,
            "adjoint": self._adjoint,
        }[self.method]
        x = t.data
        try:
            return comparison(name, g, differentiate(name, t))
        finally:
            t.data = x

    # ---- the methods -------------------------------------------------------------------------------------------

    def _imaginary(self, t: Tensor, z: Array) -> float:
        """Im L at the input z."""
        t.data = z
        y = self.value()
        if np.iscomplexobj(y):
            return float(y.imag)
        t.data = z.real + 1e-3 * self.rng.randn(z.shape, np.float64)
        if self.value() != self.base:
            raise GradcheckError('the imaginary part got lost on the way: fn is not analytic; use method="richardson"')
        return 0.0  # the input takes no part

    def _complex(self, name: str, t: Tensor) -> Array:
        h = self.step or _H
        out = np.zeros(t.shape)
        z = t.data.astype(np.complex128)
        for index in np.ndindex(z.shape):
            z[index] += 1j * h
            out[index] = self._imaginary(t, z) / h
            z[index] = z[index].real
        return out

    def _along(self, name: str, t: Tensor, g: Array, count: int = 8) -> Comparison:
        h, x = self.step or _H, t.data
        us = np.where(self.rng.rand((count, *t.shape)) < 0.5, -1.0, 1.0)
        numeric = np.zeros(count)
        try:
            for i, u in enumerate(us):
                numeric[i] = self._imaginary(t, x + 1j * h * u) / h
        finally:
            t.data = x
        analytic = np.sum((us * g).reshape(count, -1), axis=1)
        return comparison(name, analytic, numeric, scale=float(np.linalg.norm(g)))

    def _central(self, name: str, t: Tensor) -> Array:
        return self._differences(name, t, self.step or 1e-5, 3)[0]

    def _richardson(self, name: str, t: Tensor) -> Array:
        row = self._differences(name, t, self.step or 0.02, 4)
        for m in range(1, len(row)):
            # D(h) = f' + a·h² + b·h⁴ + …: combining h and h/2 cancels the lowest power that is left.
            row = [(4**m * fine - coarse) / (4**m - 1) for coarse, fine in itertools.pairwise(row)]
        return row[0]

    def _differences(self, name: str, t: Tensor, h: float, levels: int) -> list[Array]:
        """Central differences at h, h/2, h/4, …; refused where the function has a kink in between."""
        rows, bends = [np.zeros(t.shape) for _ in range(levels)], np.zeros(levels)
        t.data = moved = t.data.copy()
        for index in np.ndindex(t.shape):
            x = float(moved[index])

            def at(z: float, index: tuple[int, ...] = index) -> float:
                moved[index] = z
                return float(self.value())

            for k in range(levels):
                step = h / 2**k
                above, below = at(x + step), at(x - step)
                rows[k][index] = (above - below) / (2 * step)
                bends[k] = abs(above - 2 * self.base + below) / step
            # Smooth: the slopes on the two sides of x differ by about h·f'', which halves with h.
            floor = 1e-3 * (abs(rows[0][index]) + _FLOOR) + self._noise(step)
            halving = all(abs(b - a / 2) <= 0.1 * a + floor for a, b in itertools.pairwise(bends))
            if bends[0] > floor and not halving and _kink_between(at, x - h, x + h):
                raise GradcheckError(
                    f"a kink within the step h = {h:g} of {name} at index {index}: the slopes on its two sides differ. "
                    "Move the input away from it, by more than h"
                )
            moved[index] = x
        return rows

    def _refuse_kink(self, grads: list[Array], h: float = 1e-5) -> None:
        """At a kink there is no gradient to be proven, but both the complex step and differences give a number."""
        xs = [t.data for t in self.tensors]
        us = [self.rng.randn(x.shape, np.float64) for x in xs]

        def at(step: float) -> float:
            for t, x, u in zip(self.tensors, xs, us, strict=True):
                t.data = x + step * u
            return float(self.value())

        try:
            with np.errstate(all="ignore"):  # x ± h may lie outside where fn is defined
                bends = np.array([abs(at(s) - 2 * float(self.base) + at(-s)) / s for s in (h, h / 4, h / 16, h / 64)])
        finally:
            for t, x in zip(self.tensors, xs, strict=True):
                t.data = x
        slopes = sum(float(np.sum(np.abs(g * u))) for g, u in zip(grads, us, strict=True))
        if np.min(bends) > 1e-6 * slopes and np.max(bends) < 1.5 * np.min(bends):  # as sharp however close one looks
            raise GradcheckError(
                "a kink at the input itself: the slopes on its two sides differ. Move the input away from it"
            )

    def _noise(self, h: float) -> float:
        """How far rounding alone may bend a straight line, amply."""
        return float(1e-14 * (abs(self.base) + float(np.sum(np.abs(self.v)))) / h)

    def _adjoint(self, name: str, t: Tensor) -> Array:
        out = np.zeros(t.shape)
        x = t.data
        t.data = moved = x.copy()
        for index in np.ndindex(x.shape):
            moved[index] = x[index] + 1
            out[index] = self.value() - self.base
            moved[index] = x[index]
        for u in (-2 * x, self._integers(t.shape)):  # to −x, which lies beyond the kinks of relu, abs and max
            t.data = x + u
            if self.value() - self.base != np.sum(u * out):
                raise GradcheckError(
                    f'fn is not linear in {name} (or not exact on integers): use method="complex", which needs neither'
                )
        return out

    def _single(self, double: list[Array]) -> list[Comparison]:
        xs = [t.data for t in self.tensors]
        try:
            for t, x in zip(self.tensors, xs, strict=True):
                t.data = x.astype(np.float32)
            y = self.call()
            if y.dtype != np.float32:
                raise GradcheckError(f"the output is {y.dtype} where the inputs are float32: something promotes it")
            single = self._backward(y)
        finally:
            for t, x in zip(self.tensors, xs, strict=True):
                t.data = x
        comparisons = []
        largest = max(float(np.linalg.norm(b)) for b in double)  # a gradient of 0 is rounded like those around it
        for name, a, b in zip(self.names, single, double, strict=True):
            if a.dtype != np.float32:
                raise GradcheckError(f"the gradient of {name} is {a.dtype} where the input is float32")
            scale = max(float(np.linalg.norm(b)), 0.1 * largest) + _FLOOR
            error = float(np.linalg.norm(a - b)) / scale
            comparisons.append(replace(comparison(name, a.astype(np.float64), b), error=error))
        return comparisons


def _kink_between(f: Callable[[float], float], a: float, b: float) -> bool:
    """Whether the sharpest bend between a and b stays as sharp in a window 500 times narrower.

    By how much the slope changes in a window does not depend on its width at a kink; on a smooth curve it vanishes.
    """
    changes = []
    for _ in range(10):
        r = (b - a) / 4
        y = [f(a + i * r) for i in range(5)]
        bends = [abs(y[i] - 2 * y[i + 1] + y[i + 2]) / r for i in range(3)]  # in three windows, which overlap
        k = int(np.argmax(bends))
        changes.append(bends[k])
        a, b = a + k * r, a + (k + 2) * r
    return changes[-1] > 0.4 * changes[0]


def comparison(name: str, g: Array, numeric: Array, scale: float | None = None) -> Comparison:
    """Two arrays that should be equal; `scale` is the largest |g| unless given."""
    delta = np.abs(g - numeric)
    index = tuple(int(n) for n in np.unravel_index(int(np.argmax(delta)), g.shape)) if g.size else ()
    scale = float(np.max(np.abs(g), initial=0.0)) if scale is None else scale
    error = float(np.max(delta, initial=0.0)) / (scale + _FLOOR)
    at = (float(g[index]), float(numeric[index])) if g.size else (0.0, 0.0)
    return Comparison(name, g.size, error, index, *at)
