"""y ← a·x + b·y in one pass over memory."""

import functools
from collections.abc import Callable

import numpy as np

from tinygrad_llm.kernels import Array
from tinygrad_llm.runtime import OpenBLAS


def axpby(a: float, x: Array, b: float, y: Array) -> None:
    """Compute y ← a·x + b·y in place.

    NumPy passes over memory for b·y, for a·x and for their sum. The OpenBLAS in NumPy's wheels does it in one pass. It
    also rounds less often, so that the two agree only to rounding; which one is used depends on dtypes alone.

    Args:     x, y: of one shape, in memory apart from each other.
    Raises:   ValueError: x has another shape than y; y is read-only.
    """
    if x.shape != y.shape or not y.flags.writeable:
        raise ValueError(f"axpby: got x {x.shape} and y {y.shape}, which must be of one shape, and y not read-only")
    function = _function(y.dtype) if x.dtype == y.dtype else None
    if function is None:
        if b != 1:
            y *= b
        y += x if a == 1 else a * x
        return
    flat_x, flat_y = (np.ascontiguousarray(array).reshape(-1) for array in (x, y))  # copies only if they must be
    function(y.size, a, flat_x.ctypes.data, 1, b, flat_y.ctypes.data, 1)
    if not y.flags.c_contiguous:
        y[...] = flat_y.reshape(y.shape)


@functools.cache
def _function(dtype: np.dtype) -> Callable[[int, float, int, int, float, int, int], None] | None:
    """OpenBLAS's function for numbers of this dtype; None if there is none."""
    kind = {np.dtype(np.float32): "s", np.dtype(np.float64): "d"}.get(dtype)
    try:
        return None if kind is None else OpenBLAS().axpby(kind)
    except (OSError, AttributeError):  # NumPy uses another BLAS
        return None
