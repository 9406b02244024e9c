"""Operations that move elements and change none."""

from typing import Any

import numpy as np

from tinygrad_llm.kernels.contract import Array, Result, alike, kernel, unbroadcast


@kernel
def reshape(x: Array, *, shape: tuple[int, ...]) -> Result:
    """y = x in another shape of as many elements.   dx = g in the old shape

    Derivation:
        The elements keep their order, so with one index for all axes y_i = x_i, and ⟨g, y⟩ = Σ_i g_i x_i = ⟨dx, x⟩
        with dx_i = g_i.
        The adjoint of a reshape is the reshape back.
    """
    y = x.reshape(shape)
    old = x.shape

    def vjp(g: Array) -> tuple[Array]:
        return (g.reshape(old),)

    return y, vjp


@kernel
def transpose(x: Array, *, axes: tuple[int, ...] | None = None) -> Result:
    """y = x with its axes in another order: axes, or reversed.   dx = g with its axes put back

    Derivation:
        y = P x for a permutation P of the elements. ⟨g, P x⟩ pairs each x_i with the g at the place where x_i went, as
        ⟨P⁻¹ g, x⟩ does: the adjoint of a permutation is its inverse, dx = P⁻¹ g.
        Axis k of y is axis axes[k] of x; the inverse order has inverse[axes[k]] = k, and that is argsort(axes).
    """
    y = x.transpose(axes)
    inverse = None if axes is None else tuple(int(i) for i in np.argsort([a % x.ndim for a in axes]))

    def vjp(g: Array) -> tuple[Array]:
        return (g.transpose(inverse),)

    return y, vjp


@kernel
def broadcast_to(x: Array, *, shape: tuple[int, ...]) -> Result:
    """y = x repeated to `shape`.   dx = g summed over the repeats

    Derivation:
        y_ri = x_i for every repeat r, so ⟨g, y⟩ = Σ_r Σ_i g_ri x_i = ⟨Σ_r g_r, x⟩ and dx_i = Σ_r g_ri.
        The adjoint of copying is adding.
    """
    y = np.broadcast_to(x, shape)
    old = x.shape

    def vjp(g: Array) -> tuple[Array]:
        return (unbroadcast(g, old),)

    return y, vjp


@kernel
def getitem(x: Array, *, index: Any) -> Result:
    """y = x[index].   dx = 0, except dx[index] += g: an element taken twice receives both gradients

    `index` is anything NumPy takes: integers, slices, None, Ellipsis, integer or boolean arrays, or a tuple of them.

    Derivation:
        y = S x, with S_ji = 1 where y_j was taken from x_i, else 0. ⟨g, S x⟩ = ⟨Sᵀ g, x⟩, so dx = Sᵀ g:
        dx_i = Σ_j S_ji g_j, the sum of g_j over all j that took x_i. The adjoint of taking is adding to the place.
        A slice takes no x_i twice: each sum has at most one term, so the code may assign instead of adding.
    """
    y = x[index]
    shape = x.shape
    parts = index if isinstance(index, tuple) else (index,)
    basic = all(p is None or p is Ellipsis or isinstance(p, slice | int | np.integer) for p in parts)
    basic = basic and not any(isinstance(p, bool) for p in parts)  # NumPy takes a bool for a mask, not for 0 or 1

    def vjp(g: Array) -> tuple[Array]:
        dx = np.zeros(shape, dtype=g.dtype)
        if basic:
            dx[index] = g
        else:
            np.add.at(dx, index, g)
        return (dx,)

    return y, vjp


@kernel
def concatenate(*xs: Array, axis: int = 0) -> Result:
    """y = the inputs one after another along `axis`.   Each dx = its own stretch of g

    Derivation:
        y = Σ_k E_k x_k, where E_k puts x_k in its place among zeros. ⟨g, E_k x_k⟩ = ⟨E_kᵀ g, x_k⟩ pairs x_k with that
        stretch of g, so dx_k = E_kᵀ g is that stretch. The adjoint of putting in place is cutting out.
    """
    y = np.concatenate(alike(*xs), axis=axis)
    ends = np.cumsum([x.shape[axis] for x in xs])[:-1]

    def vjp(g: Array) -> tuple[Array, ...]:
        return tuple(np.split(g, ends, axis=axis))

    return y, vjp


@kernel
def stack(*xs: Array, axis: int = 0) -> Result:
    """y = the inputs, all of one shape, along a new `axis`.   Each dx = its own layer of g

    Derivation:
        Let k count along the new axis: y_k = x_k, so ⟨g, y⟩ = Σ_k ⟨g_k, x_k⟩ and dx_k = g_k.
        The adjoint of stacking is taking apart.
    """
    y = np.stack(alike(*xs), axis=axis)

    def vjp(g: Array) -> tuple[Array, ...]:
        return tuple(np.moveaxis(g, axis, 0))

    return y, vjp
