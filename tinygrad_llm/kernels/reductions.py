"""Operations that make many elements into one, and the normalisations built on them.

`axis` is an int, a tuple of ints, or None for all axes; `keepdims` is NumPy's.
"""

import math
from typing import TypeAlias

import numpy as np

from tinygrad_llm.kernels.table import Array, Result, kernel

Axis: TypeAlias = int | tuple[int, ...] | None


def _restore(y: Array, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Array:
    """Put the reduced axes back as axes of length 1, so that a reduced array broadcasts against its input."""
    if keepdims:
        return y
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return np.expand_dims(y, tuple(axes))


def _count(shape: tuple[int, ...], axis: Axis) -> int:
    """How many elements are reduced into one."""
    if axis is None:
        return math.prod(shape)
    return math.prod(shape[i] for i in (axis if isinstance(axis, tuple) else (axis,)))


@kernel
def sum(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Result:
    """y = Σ x.   dx = g, copied to every summand"""
    shape = x.shape

    def vjp(g: Array) -> tuple[Array]:
        return (np.broadcast_to(_restore(g, shape, axis, keepdims), shape),)

    return np.sum(x, axis=axis, keepdims=keepdims), vjp


@kernel
def mean(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Result:
    """y = Σ x / n.   dx = g / n, copied to every summand"""
    shape, n = x.shape, _count(x.shape, axis)
    if n == 0:
        raise ValueError(f"mean: there are no elements along axis {axis} of shape {shape}")

    def vjp(g: Array) -> tuple[Array]:
        # `/ n` makes new memory, so the broadcast view below is of something of our own.
        return (np.broadcast_to(_restore(g, shape, axis, keepdims) / n, shape),)

    return np.mean(x, axis=axis, keepdims=keepdims), vjp


@kernel
def max(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Result:
    """y = max x.   dx = g at the maximum, shared equally among equal maxima"""
    # NumPy orders complex numbers by their real part first, so a complex step follows the same element.
    highest = np.max(x, axis=axis, keepdims=True)
    winners = x == highest

    def vjp(g: Array) -> tuple[Array]:
        share = _restore(g, winners.shape, axis, keepdims) / np.sum(winners, axis=axis, keepdims=True, dtype=g.dtype)
        return (np.where(winners, share, 0),)

    y = highest if keepdims else np.squeeze(highest, axis=axis)
    return y, vjp


@kernel
def var(x: Array, *, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Result:
    """y = Σ (x − x̄)² / (n − ddof).   dx = g · 2(x − x̄) / (n − ddof)

    The mean moves with every x, but Σ (x − x̄) = 0, so its path contributes nothing.
    """
    n = _count(x.shape, axis) - ddof
    if n <= 0:
        raise ValueError(f"var: {n + ddof} element(s) along axis {axis} are too few for ddof={ddof}")
    centred = x - np.mean(x, axis=axis, keepdims=True)

    def vjp(g: Array) -> tuple[Array]:
        return (_restore(g, centred.shape, axis, keepdims) * (2 / n) * centred,)

    # A mean of products: np.var takes absolute values, which are not analytic.
    return np.sum(centred * centred, axis=axis, keepdims=keepdims) / n, vjp


@kernel
def logsumexp(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Result:
    """y = ln Σ eˣ.   dx = g · eˣ⁻ʸ = g · softmax(x)"""
    # Shifting by the largest x keeps every exponential ≤ 1; the shift cancels, so it has no gradient.
    top = np.max(x.real, axis=axis, keepdims=True)
    top = np.where(np.isfinite(top), top, 0)  # ∞ − ∞ would be NaN
    with np.errstate(divide="ignore"):  # all −∞: the sum is 0, and its logarithm −∞, as it should be
        y = top + np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True))

    def vjp(g: Array) -> tuple[Array]:
        return (_restore(g, x.shape, axis, keepdims) * np.exp(x - y),)

    return y if keepdims else np.squeeze(y, axis=axis), vjp


@kernel
def softmax(x: Array, *, axis: int = -1) -> Result:
    """y = eˣ / Σ eˣ.   dx = y · (g − Σ g·y)"""
    y = np.exp(x - np.max(x.real, axis=axis, keepdims=True))
    y /= np.sum(y, axis=axis, keepdims=True)

    def vjp(g: Array) -> tuple[Array]:
        gy = g * y
        return (gy - y * np.sum(gy, axis=axis, keepdims=True),)

    return y, vjp


@kernel
def log_softmax(x: Array, *, axis: int = -1) -> Result:
    """y = x − ln Σ eˣ.   dx = g − eʸ · Σ g"""
    shifted = x - np.max(x.real, axis=axis, keepdims=True)
    y = shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))

    def vjp(g: Array) -> tuple[Array]:
        return (g - np.exp(y) * np.sum(g, axis=axis, keepdims=True),)

    return y, vjp
