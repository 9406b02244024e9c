"""Dtypes, for all formats: the checks before arrays are written, and the last step after bytes are read.

A dtype is written as NumPy's little-endian code, such as "<f4", or as BFLOAT16, which NumPy lacks.
"""

import os
from collections.abc import Callable, Container, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_llm.storage.files import LoadError, show

BFLOAT16, BOOL = "bfloat16", "|b1"

Part = tuple[str, NDArray[Any], str]  # the name of an array, the array, and its dtype in the file


def checked(
    path: str | os.PathLike[str],
    arrays: Mapping[str, ArrayLike],
    codes: Container[str],
    bad_name: Callable[[str], bool],
) -> list[Part]:
    """Return the named arrays with their dtypes, if a format can hold them.

    Args:     path: for the message. codes: the dtypes of the format. bad_name: whether it cannot hold a name.
    Raises:   ValueError: it cannot hold a name or an array; named.
    """
    parts = []
    for name, value in arrays.items():
        array = np.asarray(value)
        code = array.dtype.newbyteorder("<").str
        if not isinstance(name, str) or bad_name(name):
            raise ValueError(f"{os.fspath(path)}: {show(name)} cannot be the name of a tensor in this format")
        if code not in codes:
            raise ValueError(f"{os.fspath(path)}: tensor {show(name)}: this format has no dtype for {array.dtype}")
        parts.append((name, array, code))
    return parts


def stored_dtype(code: str) -> np.dtype[Any]:
    """Return the dtype whose bytes are in the file; `decode` turns them into values."""
    return np.dtype({BFLOAT16: "<u2", BOOL: "|u1"}.get(code, code))


def decode(where: str, stored: NDArray[Any], code: str) -> NDArray[Any]:
    """Turn an array of `stored_dtype(code)` into one of the machine's byte order, without a copy where possible.

    bfloat16 becomes float32, whose upper half it is.

    Raises:   LoadError: a bool is neither 0 nor 1.
    """
    if code == BFLOAT16:
        bits = stored.astype(np.uint32)
        bits <<= 16
        return bits.view(np.float32)
    if code == BOOL:
        if stored.max(initial=0) > 1:
            raise LoadError(f"{where}: data: a bool byte is neither 0 nor 1")
        return stored.view(np.bool_)
    return stored.astype(stored.dtype.newbyteorder("="), copy=False)
