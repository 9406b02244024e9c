"""Operations that make many elements into one.

`axis` is an int, a tuple of ints, or None for all axes; `keepdims` is NumPy's.
"""

import math
from typing import Any, TypeAlias

import numpy as np

from tinygrad_llm.kernels.contract import Array, Result, analytic, kernel

Axis: TypeAlias = int | tuple[int, ...] | None


def restore_axes(y: Array, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Array:
    """Put the reduced axes back with length 1, so that a reduced array broadcasts against its input."""
    if keepdims:
        return y
    axes = range(len(shape)) if axis is None else axis if isinstance(axis, tuple) else (axis,)
    return np.expand_dims(y, tuple(axes))


def count(shape: tuple[int, ...], axis: Axis) -> int:
    """How many elements are reduced into one."""
    if axis is None:
        return math.prod(shape)
    return math.prod(shape[i] for i in (axis if isinstance(axis, tuple) else (axis,)))


def count_some(name: str, shape: tuple[int, ...], axis: Axis) -> int:
    """How many elements are reduced into one.

    Raises:   ValueError: none.
    """
    n = count(shape, axis)
    if n == 0:
        raise ValueError(f"{name}: got shape {shape}, which has no elements along axis {axis}")
    return n


@kernel
def sum(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Result:
    """y = Σ x.   dx = g, copied to every summand

    Derivation:
        y = Σ_i x_i:  ∂y/∂x_i = 1, so dx_i = g, with the g of that y to which x_i was added.
    """
    dtype: Any = np.int64 if x.dtype.kind in "iub" else None  # small integers would be added in another integer type
    y = np.sum(x, axis=axis, keepdims=keepdims, dtype=dtype)
    shape = x.shape

    def vjp(g: Array) -> tuple[Array]:
        return (np.broadcast_to(restore_axes(g, shape, axis, keepdims), shape),)

    return y, vjp


@kernel
@analytic
def mean(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Result:
    """y = Σ x / n.   dx = g / n, copied to every summand

    Derivation:
        y = Σ_i x_i / n:  ∂y/∂x_i = 1 / n, so dx_i = g / n, with the g of that y to which x_i was added.
    """
    shape, n = x.shape, count_some("mean", x.shape, axis)
    y = np.mean(x, axis=axis, keepdims=keepdims)

    def vjp(g: Array) -> tuple[Array]:
        return (np.broadcast_to(restore_axes(g, shape, axis, keepdims) / n, shape),)

    return y, vjp


@kernel
def max(x: Array, *, axis: Axis = None, keepdims: bool = False, lowest: bool = False) -> Result:
    """y = max x.   dx = g at the maximum, shared equally among equal maxima

    lowest: y = min x instead, and dx = g at the minimum.

    Derivation:
        One maximum, at w: y = x_w, also for all x nearby, so ∂y/∂x_i = δ_iw, and dx is g at w and 0 elsewhere.
        k equal maxima: for weights s_i ≥ 0 on them alone, with Σ_i s_i = 1, max z ≥ Σ_i s_i z_i for every z, with
        equality at z = x: s is a subgradient. Equal weights, s_i = 1 / k, favor none: dx_i = g / k at each maximum.
        min x = −max(−x): the two signs cancel in dx.
    """
    count_some("min" if lowest else "max", x.shape, axis)
    # NumPy orders complex numbers by their real part first, so a complex step follows the same element.
    highest = (np.min if lowest else np.max)(x, axis=axis, keepdims=True)
    y = highest if keepdims else np.squeeze(highest, axis=axis)
    winners = x == highest

    def vjp(g: Array) -> tuple[Array]:
        n = np.sum(winners, axis=axis, keepdims=True, dtype=g.dtype)
        # Nothing equals a NaN, so n = 0 where one is the maximum, and then every gradient is NaN.
        share = restore_axes(g, winners.shape, axis, keepdims) / np.where(n == 0, np.nan, n)
        return (np.where(winners | (n == 0), share, 0),)

    return y, vjp


@kernel
@analytic
def var(x: Array, *, axis: Axis = None, keepdims: bool = False, ddof: int = 0) -> Result:
    """y = Σ (x − x̄)² / (n − ddof).   dx = g · 2(x − x̄) / (n − ddof)

    Derivation:
        x̄ = Σ_j x_j / n, so ∂x̄/∂x_i = 1 / n, and
        ∂y/∂x_i = Σ_j 2(x_j − x̄) · (δ_ij − 1 / n) / (n − ddof) = 2(x_i − x̄ − Σ_j (x_j − x̄) / n) / (n − ddof).
        Σ_j (x_j − x̄) = n·x̄ − n·x̄ = 0: the path through the mean vanishes, and dx_i = g · 2(x_i − x̄) / (n − ddof).
    """
    n = count(x.shape, axis) - ddof
    if n <= 0:
        raise ValueError(f"var: got {n + ddof} element(s) along axis {axis}; ddof={ddof} takes {ddof + 1} or more")
    centered = x - np.mean(x, axis=axis, keepdims=True)
    # A sum of products, because np.var takes absolute values of complex numbers, which are not analytic.
    y = np.sum(centered * centered, axis=axis, keepdims=keepdims) / n

    def vjp(g: Array) -> tuple[Array]:
        return (restore_axes(g, centered.shape, axis, keepdims) * (2 / n) * centered,)

    return y, vjp


@kernel
@analytic
def norm(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Result:
    """y = √(Σ x²).   dx = g · x / y (0 where y = 0)

    Derivation:
        y² = Σ_j x_j²; differentiate both sides: 2y · ∂y/∂x_i = 2x_i, so ∂y/∂x_i = x_i / y and dx_i = g · x_i / y.
        y = 0, where all x are 0: ‖z‖ ≥ Σ_i s_i z_i for every z if ‖s‖ ≤ 1: s is a subgradient. The code takes s = 0.
    """
    kept = np.sqrt(np.sum(x * x, axis=axis, keepdims=True))
    y = kept if keepdims else np.squeeze(kept, axis=axis)

    def vjp(g: Array) -> tuple[Array]:
        return (restore_axes(g, x.shape, axis, keepdims) * (x / np.where(kept == 0, 1, kept)),)

    return y, vjp


@kernel
def cumsum(x: Array, *, axis: int) -> Result:
    """y = cumulative sums along `axis`, y_i = Σ x_j over j ≤ i.   dx = g summed from the end, dx_j = Σ g_i over i ≥ j

    Derivation:
        ∂y_i/∂x_j = 1 where j ≤ i, else 0, so dx_j = Σ_i g_i ∂y_i/∂x_j = Σ g_i over i ≥ j: the same sums from the end.
    """
    y = np.cumsum(x, axis=axis, dtype=np.int64 if x.dtype.kind in "iub" else None)

    def vjp(g: Array) -> tuple[Array]:
        return (np.flip(np.cumsum(np.flip(g, axis), axis), axis),)

    return y, vjp
