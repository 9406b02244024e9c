"""Operations that move elements about and change none."""

from typing import Any

import numpy as np

from tinygrad_llm.kernels.table import Array, Result, alike, kernel, unbroadcast


@kernel
def reshape(x: Array, *, shape: tuple[int, ...]) -> Result:
    """y = x in another shape of as many elements.   dx = g in the old shape"""
    old = x.shape

    def vjp(g: Array) -> tuple[Array]:
        return (g.reshape(old),)

    return x.reshape(shape), vjp


@kernel
def transpose(x: Array, *, axes: tuple[int, ...] | None = None) -> Result:
    """y = x with its axes in the order `axes` (None: reversed).   dx = g with the order undone"""
    inverse = None if axes is None else tuple(int(i) for i in np.argsort([a % x.ndim for a in axes]))

    def vjp(g: Array) -> tuple[Array]:
        return (g.transpose(inverse),)

    return x.transpose(axes), vjp


@kernel
def broadcast_to(x: Array, *, shape: tuple[int, ...]) -> Result:
    """y = x repeated to `shape`.   dx = g summed over the repeats"""
    old = x.shape

    def vjp(g: Array) -> tuple[Array]:
        return (unbroadcast(g, old),)

    return np.broadcast_to(x, shape), vjp


@kernel
def getitem(x: Array, *, index: Any) -> Result:
    """y = x[index].   dx = 0 but for dx[index] += g: an element taken twice receives both gradients

    `index` is anything NumPy takes: integers, slices, None, Ellipsis, integer or boolean arrays, or a tuple of them.
    """
    shape = x.shape
    parts = index if isinstance(index, tuple) else (index,)
    basic = all(p is None or p is Ellipsis or isinstance(p, slice | int | np.integer) for p in parts)
    basic = basic and not any(isinstance(p, bool) for p in parts)  # a bool is a mask, not a number

    def vjp(g: Array) -> tuple[Array]:
        dx = np.zeros(shape, dtype=g.dtype)
        if basic:
            dx[index] = g  # a slice names no element twice
        else:
            np.add.at(dx, index, g)
        return (dx,)

    return x[index], vjp


@kernel
def concatenate(*xs: Array, axis: int = 0) -> Result:
    """y = the inputs one after another along `axis`.   Each dx = its own stretch of g"""
    ends = np.cumsum([x.shape[axis] for x in xs])[:-1]

    def vjp(g: Array) -> tuple[Array, ...]:
        return tuple(np.split(g, ends, axis=axis))

    return np.concatenate(alike(*xs), axis=axis), vjp


@kernel
def stack(*xs: Array, axis: int = 0) -> Result:
    """y = the inputs, all of one shape, along a new `axis`.   Each dx = its own layer of g"""

    def vjp(g: Array) -> tuple[Array, ...]:
        return tuple(np.moveaxis(g, axis, 0))

    return np.stack(alike(*xs), axis=axis), vjp
