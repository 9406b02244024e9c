"""The methods of `gradcheck`: each computes the derivatives of a number L without backpropagation.

L = Σ v·y is the output y of a function, reduced to one number by a fixed vector v. A method moves one element of one
input at a time, evaluates L, and puts the input back.

complex      ∂L/∂x_j = Im L(x + i·h·e_j) / h
central      ∂L/∂x_j = (L(x + h·e_j) − L(x − h·e_j)) / 2h
richardson   central differences at h, h/2, h/4 and h/8, extrapolated to h = 0
adjoint      ∂L/∂x_j = L(x + e_j) − L(x), for functions that are linear in x, on integers

`gradcheck` explains what each of them can prove.
"""

import copy
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_llm.autograd import Tensor, no_grad
from tinygrad_llm.kernels import Array
from tinygrad_llm.random import Generator

FLOOR = 0.01  # added to max|g| where an error is divided by it, so that gradients near 0 can be compared
_H = 1e-20


class GradcheckError(AssertionError):
    """A gradient is wrong, or cannot be checked; the message says where and why."""


class NotAnalytic(GradcheckError):
    """The complex step cannot differentiate fn; real differences may."""


class Scalar:
    """L = Σ v·y as a function of the inputs that are checked. The methods set `t.data` and call `value()`."""

    def __init__(self, call: Callable[[], Tensor], names: Sequence[str], tensors: Sequence[Tensor], rng: Generator):
        self.call, self.names, self.tensors, self.rng = call, names, tensors, rng
        self.v: Array  # of the output's shape
        self.base: Any  # L at the inputs as they were given
        self.noise = 0.0  # by how much rounding may move L

    def value(self) -> Any:
        """L at the present inputs."""
        with no_grad():
            return np.sum(self.v * self.call().data)

    def at(self, us: Sequence[Array], step: float) -> float:
        """L with every input moved by step · u; NaN outside the domain of the function."""
        xs = [t.data for t in self.tensors]
        try:
            for t, x, u in zip(self.tensors, xs, us, strict=True):
                t.data = x + step * u
            with np.errstate(all="ignore"):
                return float(self.value())
        finally:
            for t, x in zip(self.tensors, xs, strict=True):
                t.data = x

    def signs(self, t: Tensor) -> list[Array]:
        """Eight random vectors of ±1."""
        return [np.where(self.rng.rand(t.shape) < 0.5, -1, 1).astype(np.int8) for _ in range(8)]

    def integers(self, shape: tuple[int, ...]) -> Array:
        """Random integers from −4 to 4 in float64, without 0, which would hide its factor."""
        n = self.rng.randint(-4, 4, shape)
        return np.asarray(np.where(n < 0, n, n + 1), dtype=np.float64)


# Each method takes L, an input, its name and the step (None: the method's own), and returns the derivatives by every
# element, and by how much they may be wrong. It may replace t.data; the caller puts it back.


def complex_step(L: Scalar, name: str, t: Tensor, step: float | None) -> tuple[Array, float]:
    """Im L(x + i·h·e_j) / h for every j, and the uncertainty, which is 0."""
    h = step or _H
    out = np.zeros(t.shape)
    z = t.data.astype(np.complex128)
    with warnings.catch_warnings():
        warnings.simplefilter("error", np.exceptions.ComplexWarning)
        for index in np.ndindex(z.shape):
            z[index] += 1j * h
            out[index] = _imaginary(L, t, z) / h
            z[index] = z[index].real
    return out, 0.0


def along(L: Scalar, t: Tensor, us: Sequence[Array]) -> tuple[Scalar, Tensor]:
    """L as a function of s, which moves t by Σ s_i·u_i, and s = 0."""
    x, s = t.data, Tensor(np.zeros(len(us)))

    def call() -> Tensor:
        t.data = x
        for i, size in enumerate(s.data):
            t.data = t.data + size * us[i] if size else t.data
        return L.call()

    M = copy.copy(L)
    M.call = call
    return M, s


def unit(x: Array) -> float:
    """The power of ten nearest to the standard deviation of x's elements: the steps of differences are a part of it.

    It is 1 for 0.05 to 20, and for equal elements that are within this range themselves.
    """
    size = float(np.std(x)) if x.size > 1 else 0.0
    size = size or float(np.max(np.abs(x), initial=0.0))
    return 1.0 if size == 0 or 0.05 <= size <= 20 else 10.0 ** round(math.log10(size))


def _imaginary(L: Scalar, t: Tensor, z: Array) -> float:
    """Im L at the input z. NumPy's warning that an imaginary part gets lost is an error here."""
    t.data = z
    try:
        y = L.value()
    except np.exceptions.ComplexWarning as error:
        raise NotAnalytic("fn writes complex numbers into a float array") from error
    except (TypeError, ValueError) as error:  # np.hypot, math.exp, …
        raise NotAnalytic(f"fn fails on complex numbers, {type(error).__name__}: {error}") from error
    if np.iscomplexobj(y):
        return float(y.imag)
    # A real L is right only if L does not depend on this input, so that moving the input does not change L.
    t.data = z.real + 1e-3 * L.rng.randn(z.shape, np.float64)
    if L.value() != L.base:
        raise NotAnalytic("the imaginary part got lost")
    return 0.0


def central(L: Scalar, name: str, t: Tensor, step: float | None) -> tuple[Array, float]:
    """Central differences for every element, and their uncertainty."""
    h = step or 1e-5
    rows = _differences(L, name, t, h, 3)
    return rows[0], _spread(L, rows, rows[0] - rows[2], h=h)


def richardson(L: Scalar, name: str, t: Tensor, step: float | None) -> tuple[Array, float]:
    """Extrapolated central differences for every element, and their uncertainty."""
    h = step or 0.02
    rows = row = _differences(L, name, t, h, 4)
    for m in range(1, 4):
        # D(h) = L' + a·h² + b·h⁴ + …: combining D(h) and D(h/2) cancels the lowest power of h that is left.
        before, row = row, [(4**m * fine - coarse) / (4**m - 1) for coarse, fine in itertools.pairwise(row)]
    return row[0], _spread(L, rows, row[0] - before[1], 0.01 * (row[0] - rows[-1]), h=h / 8)


def _spread(L: Scalar, rows: Sequence[Array], *variations: Array, h: float) -> float:
    """How wrong differences may be: a few times their change with the step, and the rounding of L divided by h.

    It is infinite where differences grow as the step shrinks: then the step is wider than what fn does near x.
    """
    coarse, fine = (float(np.max(np.abs(row), initial=0.0)) for row in (rows[0], rows[-1]))
    if fine > 2 * coarse + 20 * L.noise / h:
        return math.inf
    return 4 * float(sum(np.max(np.abs(variation), initial=0.0) for variation in variations)) + 4 * L.noise / h


def _differences(L: Scalar, name: str, t: Tensor, h: float, levels: int) -> list[Array]:
    """Central differences at h, h/2, h/4, …; an error if the function has a kink within h."""
    rows, bends = [np.zeros(t.shape) for _ in range(levels)], np.zeros(levels)
    t.data = moved = t.data.copy()
    for index in np.ndindex(t.shape):
        x = float(moved[index])

        def at(z: float, index: tuple[int, ...] = index) -> float:
            moved[index] = z
            return float(L.value())

        for k in range(levels):
            step = h / 2**k
            above, below = at(x + step), at(x - step)
            rows[k][index] = (above - below) / (2 * step)
            bends[k] = abs(above - 2 * L.base + below) / step
        if not all(np.isfinite(row[index]) for row in rows):
            raise GradcheckError(
                f"the output holds NaN or infinity within the step h = {h:g} of {name} at index {index}: give a "
                'smaller step=, or use method="complex"'
            )
        # The slopes on the two sides of x differ by about h·L'' where L is smooth, and that halves with h.
        floor = 1e-3 * (abs(rows[0][index]) + FLOOR) + 20 * L.noise / step
        halving = all(abs(b - a / 2) <= 0.1 * a + floor for a, b in itertools.pairwise(bends))
        if bends[0] > floor and not halving and _kink_between(at, x - h, x + h, L.noise):
            raise GradcheckError(
                f"a kink within the step h = {h:g} of {name} at index {index}: the slopes on its two sides differ. "
                "Move the input away from it, by more than h"
            )
        moved[index] = x
    return rows


def _kink_between(f: Callable[[float], float], a: float, b: float, noise: float) -> bool:
    """Whether the sharpest bend between a and b stays as sharp in ever narrower windows around it.

    At a kink, the change of slope within a window does not depend on the window's width. On a smooth curve it halves
    with the width, once the window is narrow compared with the curve's radius.
    """
    changes = []
    for _ in range(20):
        r = (b - a) / 4
        y = [f(a + i * r) for i in range(5)]
        bends = [abs(y[i] - 2 * y[i + 1] + y[i + 2]) / r for i in range(3)]  # in three windows, which overlap
        k = int(np.argmax(bends))
        if bends[k] < 20 * noise / r:
            break  # a bend this small cannot be distinguished from rounding
        changes.append(bends[k])
        a, b = a + k * r, a + (k + 2) * r
    return len(changes) > 3 and changes[-1] > 0.5 * changes[-4]


def adjoint(L: Scalar, name: str, t: Tensor, step: float | None) -> tuple[Array, float]:
    """L(x + e_j) − L(x) for every j, and the uncertainty, after a test that L is linear in x."""
    out = np.zeros(t.shape)
    x = t.data
    t.data = moved = x.copy()
    for index in np.ndindex(x.shape):
        moved[index] = x[index] + 1
        out[index] = L.value() - L.base
        moved[index] = x[index]
    for u in (-2 * x, L.integers(t.shape)):  # −2x moves to −x, which lies beyond the kinks of relu, abs and max
        t.data = x + u
        if L.value() - L.base != np.sum(u * out):
            raise GradcheckError(
                f'fn is not linear in {name} (or not exact on integers): use method="complex", which needs neither'
            )
    return out, 0.0
