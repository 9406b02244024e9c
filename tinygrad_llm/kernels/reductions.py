"""Operations that make many elements into one, and the normalisations built on them.

`axis` is an int, a tuple of ints, or None for all axes; `keepdims` is NumPy's.
"""

import math
from typing import TypeAlias

import numpy as np

from tinygrad_llm.kernels.contract import Array, Result, kernel

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
    """y = Σ x.   dx = g, copied to every summand

    Derivation:
        y = Σ_i x_i:  ∂y/∂x_i = 1, so dx_i = g, with the g of that y to which x_i was added.
    """
    shape = x.shape

    def vjp(g: Array) -> tuple[Array]:
        return (np.broadcast_to(_restore(g, shape, axis, keepdims), shape),)

    return np.sum(x, axis=axis, keepdims=keepdims), vjp


@kernel
def mean(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Result:
    """y = Σ x / n.   dx = g / n, copied to every summand

    Derivation:
        y = Σ_i x_i / n:  ∂y/∂x_i = 1 / n, so dx_i = g / n, with the g of that y to which x_i was added.
    """
    shape, n = x.shape, _count(x.shape, axis)
    if n == 0:
        raise ValueError(f"mean: there are no elements along axis {axis} of shape {shape}")

    def vjp(g: Array) -> tuple[Array]:
        # `/ n` makes new memory, so the broadcast view below is of something of our own.
        return (np.broadcast_to(_restore(g, shape, axis, keepdims) / n, shape),)

    return np.mean(x, axis=axis, keepdims=keepdims), vjp


@kernel
def max(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Result:
    """y = max x.   dx = g at the maximum, shared equally among equal maxima

    Derivation:
        One maximum, at w: y = x_w, also for all x nearby, so ∂y/∂x_i = δ_iw, and dx is g at w and 0 elsewhere.
        k equal maxima: for weights s_i ≥ 0 on them alone, with Σ_i s_i = 1, max z ≥ Σ_i s_i z_i for every z, with
        equality at z = x: s is a subgradient. Equal weights, s_i = 1 / k, favour none: dx_i = g / k at each maximum.
    """
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

    Derivation:
        x̄ = Σ_j x_j / n, so ∂x̄/∂x_i = 1 / n, and
        ∂y/∂x_i = Σ_j 2(x_j − x̄) · (δ_ij − 1 / n) / (n − ddof) = 2(x_i − x̄ − Σ_j (x_j − x̄) / n) / (n − ddof).
        Σ_j (x_j − x̄) = n·x̄ − n·x̄ = 0: the path through the mean vanishes, and dx_i = g · 2(x_i − x̄) / (n − ddof).
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
    """y = ln Σ eˣ.   dx = g · eˣ⁻ʸ = g · softmax(x)

    Derivation:
        With Z = Σ_j exp x_j,  y = ln Z:   ∂y/∂x_i = exp(x_i) / Z = exp(x_i − y), since Z = eʸ.   So dx = g · eˣ⁻ʸ.
        The code's shift:  y = m + ln Σ_j exp(x_j − m) for every number m, since the sum is Z · e⁻ᵐ. Hence
        ∂y/∂m = 1 − Σ_j exp(x_j − m) / Σ_j exp(x_j − m) = 0: that m = max x depends on x adds nothing to dx.
    """
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
    """y = eˣ / Σ eˣ.   dx = y · (g − Σ g·y)

    Derivation:
        y_j = exp(x_j) / Z,  Z = Σ_k exp x_k,  ∂Z/∂x_i = exp x_i. By the quotient rule
        ∂y_j/∂x_i = δ_ij exp(x_j) / Z − exp(x_j) exp(x_i) / Z² = y_j (δ_ij − y_i).
        dx_i = Σ_j g_j y_j (δ_ij − y_i) = g_i y_i − y_i Σ_j g_j y_j = y_i (g_i − Σ_j g_j y_j).
        Shifting x by its maximum multiplies exp(x_j) and Z by the same number, so y and its gradient stay.
    """
    y = np.exp(x - np.max(x.real, axis=axis, keepdims=True))
    y /= np.sum(y, axis=axis, keepdims=True)

    def vjp(g: Array) -> tuple[Array]:
        gy = g * y
        return (gy - y * np.sum(gy, axis=axis, keepdims=True),)

    return y, vjp


@kernel
def log_softmax(x: Array, *, axis: int = -1) -> Result:
    """y = x − ln Σ eˣ.   dx = g − eʸ · Σ g

    Derivation:
        y_j = x_j − ln Z,  Z = Σ_k exp x_k:   ∂y_j/∂x_i = δ_ij − exp(x_i) / Z = δ_ij − exp(y_i).
        dx_i = Σ_j g_j (δ_ij − exp(y_i)) = g_i − exp(y_i) · Σ_j g_j.
        Shifting x by its maximum m moves x_j and ln Z by the same −m, so y and its gradient stay.
    """
    shifted = x - np.max(x.real, axis=axis, keepdims=True)
    y = shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))

    def vjp(g: Array) -> tuple[Array]:
        return (g - np.exp(y) * np.sum(g, axis=axis, keepdims=True),)

    return y, vjp
