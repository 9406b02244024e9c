"""`torch.testing`: the comparison that tests use."""

from typing import Any

import numpy as np

from tinygrad_llm.torch.missing import lookup
from tinygrad_llm.torch.tensor import array_of

__all__ = ["assert_close"]

_TOLERANCES = {"float32": (1.3e-6, 1e-5), "float64": (1e-7, 1e-7), "float16": (1e-3, 1e-5)}


def assert_close(
    actual: Any, expected: Any, *, rtol: float | None = None, atol: float | None = None, equal_nan: bool = False
) -> None:
    """Raise AssertionError unless two Tensors, or numbers, are alike to rtol · |expected| + atol."""
    one, other = array_of(actual), array_of(expected)
    if one.shape != other.shape or one.dtype != other.dtype:
        raise AssertionError(f"got {one.dtype} {one.shape} and {other.dtype} {other.shape}, which must be alike")
    relative, absolute = _TOLERANCES.get(str(one.dtype), (0.0, 0.0))
    rtol, atol = relative if rtol is None else rtol, absolute if atol is None else atol
    np.testing.assert_allclose(one, other, rtol, atol, equal_nan)


__getattr__ = lookup("torch.testing", lambda: __all__)
