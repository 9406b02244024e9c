"""y ← a·x + b·y in one pass over memory."""

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_llm.kernels import Array
from tinygrad_llm.runtime import OpenBLAS


def axpby(a: float, x: Array, b: float, y: Array) -> None:
    """Compute y ← a·x + b·y in place.

    NumPy passes over memory for b·y, for a·x and for their sum. The OpenBLAS in NumPy's wheels does it in one pass. It
    also rounds less often, so that the two agree only to rounding; which one is used depends on dtypes alone.

    Args:     x, y: of one shape, in memory apart from each other. Both may be written to; x is only read.
    Raises:   ValueError: x has another shape than y; x or y is read-only.
    """
    if x.shape != y.shape or not (x.flags.writeable and y.flags.writeable):
        raise ValueError(f"axpby: got x {x.shape} and y {y.shape}, which must be of one shape, and not read-only")
    function = _function(y.dtype) if x.dtype == y.dtype else None
    if function is None:
        if b != 1:
            y *= b
        y += x if a == 1 else a * x
        return
    if y.size == 0:
        return
    from_x, to_y = np.ascontiguousarray(x), np.ascontiguousarray(y)  # copies only if they must be
    # Addresses from the buffers: `array.ctypes` takes several times as long.
    first_x, first_y = ctypes.c_char.from_buffer(from_x.data), ctypes.c_char.from_buffer(to_y.data)
    function(y.size, a, ctypes.byref(first_x), 1, b, ctypes.byref(first_y), 1)
    if not y.flags.c_contiguous:
        y[...] = to_y


@functools.cache
def _function(dtype: np.dtype) -> Callable[[int, float, Any, int, float, Any, int], None] | None:
    """OpenBLAS's function for numbers of this dtype; None if there is none."""
    kind = {np.dtype(np.float32): "s", np.dtype(np.float64): "d"}.get(dtype)
    try:
        return None if kind is None else OpenBLAS().axpby(kind)
    except (OSError, AttributeError):  # NumPy uses another BLAS
        return None
