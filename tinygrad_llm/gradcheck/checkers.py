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
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinygrad_llm.autograd import Tensor, detect_anomaly, grad, no_grad
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn import Module
from tinygrad_llm.random import Generator

# What each method can prove, and what the ledger asks of it. An error is max|Δ| / (max|g| + 0.01) for one input, so
# a tolerance of 1e-12 means |Δ| ≤ 1e-12 · max|g| + 1e-14: gradients that are smaller than a hundredth of the tolerance
# everywhere prove nothing, and the loss wants scaling. Where Δ is a sum over a whole tensor, a norm takes the place of
# max|g|: ‖g‖ for directions; for float32 the larger of ‖g‖ and a tenth of the largest ‖g‖ of any input.
TOLERANCE = {
    "complex": 1e-12,
    "richardson": 1e-9,
    "central": 1e-6,
    "directions": 1e-11,
    "adjoint": 0.0,
    "float32": 1e-5,
}
_FLOOR = 0.01
_LOST = 'the imaginary part got lost on the way: fn is not analytic; use method="richardson"'
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
    cotangent: Any = None,
    raise_exception: bool = True,
) -> GradcheckResult:
    """Prove the gradient of fn, element by element, in float64.

    Args:     fn: takes the inputs as Tensors and returns one Tensor of any shape; deterministic. Of a Module all
              parameters are checked besides the inputs, in whichever mode (`train`, `eval`) it is.
              inputs: float arrays and Tensors that require a gradient are checked; everything else is handed on.
              Such a Tensor may also be one that fn uses by itself, such as a model's parameter: its data is float64
              during the check and put back afterwards.
              method: "complex", "richardson", "central", "directions", "adjoint" or "float32", as explained above.
              loss: applied to fn's output. tolerance: as explained at TOLERANCE. step: h, where the method has one.
              names: of the inputs, for messages. seed: of the random vector v. cotangent: to be v instead.
    Returns:  a GradcheckResult.
    Raises:   GradcheckError: a wrong gradient (unless raise_exception is False), or nothing that can be checked: no
              float input, no element, no dependence, NaN, randomness, a kink within the step, differences that do
              not settle, a vjp that returns other shapes, dtypes or numbers of gradients than there are inputs.
              ValueError: an unknown method; names, tolerance, step or cotangent that do not fit; an input that was
              computed from others.
    """
    if method not in TOLERANCE:
        raise ValueError(f"unknown method {method!r}: choose from {', '.join(TOLERANCE)}")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance must be a number ≥ 0, not {tolerance}")
    if step is not None and not 0 < step < np.inf:
        raise ValueError(f"step must be a number > 0, not {step}")
    tolerance = TOLERANCE[method] if tolerance is None else tolerance
    tensors = as_tensors(inputs)
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
    if not any(t.numel() for _, t in checked):
        raise GradcheckError("nothing to check: the inputs have no elements")
    for name, t in checked:
        if not t.is_leaf:
            raise ValueError(f"{name} was computed from others: give those, or detach it")

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
        comparisons = _Check(call, checked, method, seed, tolerance, step, cotangent).compare()
    finally:
        for (_, t), data in zip(checked, kept, strict=True):
            t.data = data
    result = GradcheckResult(method, tolerance, comparisons)
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


def as_tensors(inputs: Iterable[Any]) -> list[Any]:
    """Tensors as they are, float arrays as float64 Tensors that require a gradient, the rest as arrays."""
    if isinstance(inputs, np.ndarray | Tensor):
        raise ValueError("inputs come as a list, even one alone: write [x]")
    arrays = [x if isinstance(x, Tensor) else np.asarray(x) for x in inputs]
    if any(isinstance(x, np.ndarray) and x.dtype.kind == "c" for x in arrays):
        raise GradcheckError("a complex input: check its real and imaginary parts instead")
    return [
        Tensor(x.astype(np.float64), requires_grad=True) if isinstance(x, np.ndarray) and x.dtype.kind == "f" else x
        for x in arrays
    ]


class _Check:
    """One check: the function, the Tensors that are differentiated, and the vector v that makes it one number."""

    def __init__(
        self,
        call: Callable[[], Tensor],
        checked: list[tuple[str, Tensor]],
        method: str,
        seed: int,
        tolerance: float,
        step: float | None,
        cotangent: Any,
    ) -> None:
        self.call, self.method, self.tolerance, self.step, self.cotangent = call, method, tolerance, step, cotangent
        self.names, self.tensors = [name for name, _ in checked], [t for _, t in checked]
        self.rng = Generator(seed)
        if method == "adjoint":
            for t in self.tensors:
                t.data = self._integers(t.shape)

    @detect_anomaly(check_nan=False)  # a wrong shape or dtype, or a changed value, may give the right numbers by luck
    def differentiate(self) -> list[Array]:
        """The gradients to be proven, once it is sure that there is something to prove."""
        y = self.call()
        if not y.numel():
            raise GradcheckError(f"nothing to check: the output, of shape {y.shape}, has no elements")
        if self.cotangent is not None:
            self.v = np.array(self.cotangent, dtype=np.float64)
            if self.v.shape != y.shape:
                raise ValueError(f"cotangent has shape {self.v.shape}, but the output has {y.shape}")
        else:
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
            self._measure_noise(grads)
            self._refuse_kink(grads)
        compare = self._along if self.method == "directions" else self._each
        found = [compare(*three) for three in zip(self.names, self.tensors, grads, strict=True)]
        if self.method in ("complex", "directions") and all(c.error <= self.tolerance for c in found):
            self._refuse_lost_part(grads)
        return found

    def _backward(self, y: Tensor) -> list[Array]:
        try:
            return grad(y, self.tensors, self.v)
        except Exception as error:
            raise GradcheckError(f"the backward pass failed: {error or type(error).__name__}") from error

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
            with np.errstate(all="ignore"):  # what overflows or leaves fn's domain shows as NaN, and is told in words
                numeric, spread = differentiate(name, t)
        finally:
            t.data = x
        found = comparison(name, g, numeric)
        if found.error > self.tolerance and abs(found.analytic - found.numeric) <= spread:
            raise GradcheckError(
                f"the differences of {name} at index {found.index} have not settled: they are uncertain by "
                f'{spread:.1g}. Give another step=, or use method="complex"'
            )
        return found

    # ---- the methods -------------------------------------------------------------------------------------------

    def _imaginary(self, t: Tensor, z: Array) -> float:
        """Im L at the input z."""
        t.data = z
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            try:
                y = self.value()
            except np.exceptions.ComplexWarning:
                raise GradcheckError(f"fn writes complex numbers into a real array: {_LOST}") from None
        if np.iscomplexobj(y):
            return float(y.imag)
        t.data = z.real + 1e-3 * self.rng.randn(z.shape, np.float64)
        if self.value() != self.base:
            raise GradcheckError(_LOST)
        return 0.0  # the input takes no part

    # Each gives the derivatives, and by how much they are uncertain at worst, as far as it can tell.

    def _complex(self, name: str, t: Tensor) -> tuple[Array, float]:
        h = self.step or _H
        out = np.zeros(t.shape)
        z = t.data.astype(np.complex128)
        for index in np.ndindex(z.shape):
            z[index] += 1j * h
            out[index] = self._imaginary(t, z) / h
            z[index] = z[index].real
        return out, 0.0

    def _along(self, name: str, t: Tensor, g: Array, count: int = 8) -> Comparison:
        h, x = self.step or _H, t.data
        analytic, numeric = np.zeros(count), np.zeros(count)
        try:
            for i in range(count):
                u = np.where(self.rng.rand(t.shape) < 0.5, -1.0, 1.0)
                analytic[i] = np.sum(u * g)
                numeric[i] = self._imaginary(t, x + 1j * h * u) / h
        finally:
            t.data = x
        return comparison(name, analytic, numeric, scale=float(np.linalg.norm(g)))

    def _central(self, name: str, t: Tensor) -> tuple[Array, float]:
        h = self.step or 1e-5
        rows = self._differences(name, t, h, 3)
        return rows[0], self._spread(rows[0] - rows[2], h=h)

    def _richardson(self, name: str, t: Tensor) -> tuple[Array, float]:
        h = self.step or 0.02
        rows = row = self._differences(name, t, h, 4)
        for m in range(1, 4):
            # D(h) = f' + a·h² + b·h⁴ + …: combining h and h/2 cancels the lowest power that is left.
            before, row = row, [(4**m * fine - coarse) / (4**m - 1) for coarse, fine in itertools.pairwise(row)]
        return row[0], self._spread(row[0] - before[1], 0.01 * (row[0] - rows[-1]), h=h / 8)

    def _spread(self, *variations: Array, h: float) -> float:
        """How wrong differences may be: a few times what they vary by with the step, and the rounding of L over h."""
        return 4 * float(sum(np.max(np.abs(variation), initial=0.0) for variation in variations)) + 4 * self.noise / h

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
            if not all(np.isfinite(row[index]) for row in rows):
                raise GradcheckError(
                    f"the output holds NaN or infinity within the step h = {h:g} of {name} at index {index}: give a "
                    'smaller step=, or use method="complex"'
                )
            floor = 1e-3 * (abs(rows[0][index]) + _FLOOR) + 20 * self.noise / step
            halving = all(abs(b - a / 2) <= 0.1 * a + floor for a, b in itertools.pairwise(bends))
            if bends[0] > floor and not halving and _kink_between(at, x - h, x + h, self.noise):
                raise GradcheckError(
                    f"a kink within the step h = {h:g} of {name} at index {index}: the slopes on its two sides differ. "
                    "Move the input away from it, by more than h"
                )
            moved[index] = x
        return rows

    def _measure_noise(self, grads: list[Array]) -> None:
        """By how much rounding moves L: what is left, within steps of 1e-11, of L when its slope is taken off."""
        us = [self.rng.randn(t.shape, np.float64) for t in self.tensors]
        slope = sum(float(np.sum(g * u)) for g, u in zip(grads, us, strict=True))
        sides = [
            [abs(self._at(us, s) - float(self.base) - s * slope) for s in (d, 2 * d, 3 * d)] for d in (1e-11, -1e-11)
        ]
        # On one side of a jump it is the jump that would be measured.
        self.noise = min(max(side) for side in sides) + 1e-15 * abs(float(self.base))

    def _refuse_kink(self, grads: list[Array], h: float = 1e-5) -> None:
        """At a kink there is no gradient to be proven, but both the complex step and differences give a number."""
        us = [self.rng.randn(t.shape, np.float64) for t in self.tensors]
        steps = [h, h / 4, h / 16, h / 64]
        bends = [(self._at(us, s) - 2 * float(self.base) + self._at(us, -s)) / s for s in steps]
        # Beside a curve, a kink bends by k + c·h: two steps give k, and three estimates of it must agree.
        kinks = [(4 * fine - coarse) / 3 for coarse, fine in itertools.pairwise(bends)]
        # At a jump of j, it bends by j / h.
        jumps = [bend * s for s, bend in zip(steps, bends, strict=True)]
        slopes = sum(float(np.sum(np.abs(g * u))) for g, u in zip(grads, us, strict=True))
        for what, differ, found, floor in (
            ("kink", "slopes", kinks, 1e-9 * slopes + 20 * self.noise / steps[-1]),
            ("jump", "values", jumps, 20 * self.noise + 1e-3 * h * slopes),
        ):
            smallest, largest = min(map(abs, found)), max(map(abs, found))
            if smallest > floor and largest < 1.5 * smallest and len(set(np.sign(found))) == 1:
                raise GradcheckError(
                    f"a {what} at the input itself: the {differ} on its two sides differ. Move the input away from it"
                )

    def _refuse_lost_part(self, grads: list[Array], h: float = 1e-5) -> None:
        """Where a part of fn drops the imaginary part, complex step and tape may agree on the gradient of the rest.

        A difference along one real direction for each input shows what is missing, as far as it is precise.
        """
        for name, t, g in zip(self.names, self.tensors, grads, strict=True):
            u = self.rng.randn(t.shape, np.float64)
            us = [u if other is t else np.zeros(other.shape) for other in self.tensors]
            coarse, fine = ((self._at(us, s) - self._at(us, -s)) / (2 * s) for s in (h, h / 4))
            slope, size = float(np.sum(g * u)), float(np.sum(np.abs(g * u)))
            noise = 20 * self.noise / h
            settled = abs(coarse - fine) <= 1e-3 * abs(fine) + noise
            if settled and abs(fine - slope) > 1e-3 * size + 10 * abs(coarse - fine) + noise:
                raise GradcheckError(
                    f"the gradient of {name} agrees with the complex step, but not with differences: somewhere fn "
                    'drops the imaginary part (abs, norm, .real, a float buffer); use method="richardson"'
                )

    def _at(self, us: list[Array], step: float) -> float:
        """L with the inputs moved by step · u."""
        xs = [t.data for t in self.tensors]
        try:
            for t, x, u in zip(self.tensors, xs, us, strict=True):
                t.data = x + step * u
            with np.errstate(all="ignore"):  # that may lie outside where fn is defined: NaN, which compares as False
                return float(self.value())
        finally:
            for t, x in zip(self.tensors, xs, strict=True):
                t.data = x

    def _adjoint(self, name: str, t: Tensor) -> tuple[Array, float]:
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
        return out, 0.0

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


def _kink_between(f: Callable[[float], float], a: float, b: float, noise: float) -> bool:
    """Whether the sharpest bend between a and b stays as sharp however close one looks.

    By how much the slope changes in a window does not depend on its width at a kink; on a smooth curve it halves when
    the width does, once the window is narrower than the curve is bent.
    """
    changes = []
    for _ in range(20):
        r = (b - a) / 4
        y = [f(a + i * r) for i in range(5)]
        bends = [abs(y[i] - 2 * y[i + 1] + y[i + 2]) / r for i in range(3)]  # in three windows, which overlap
        k = int(np.argmax(bends))
        if bends[k] < 20 * noise / r:
            break  # rounding hides what is finer
        changes.append(bends[k])
        a, b = a + k * r, a + (k + 2) * r
    return len(changes) > 3 and changes[-1] > 0.5 * changes[-4]


def comparison(name: str, g: Array, numeric: Array, scale: float | None = None) -> Comparison:
    """Two arrays that should be equal; `scale` is the largest |g| unless given."""
    delta = np.abs(g - numeric)
    index = tuple(int(n) for n in np.unravel_index(int(np.argmax(delta)), g.shape)) if g.size else ()
    scale = float(np.max(np.abs(g), initial=0.0)) if scale is None else scale
    error = float(np.max(delta, initial=0.0)) / (scale + _FLOOR)
    at = (float(g[index]), float(numeric[index])) if g.size else (0.0, 0.0)
    return Comparison(name, g.size, error, index, *at)
