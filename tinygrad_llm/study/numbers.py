"""Arrays for a page: statistics, all values in full, or a map of 8-bit cells."""

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_llm.kernels import Array

CELLS = 4096  # of a map, at most
LARGE = 1_000_000  # elements; of a larger array, `summarize` keeps statistics and a map
_CHUNK = 1 << 20  # elements that are converted to float64 at a time
_TOP = 252  # the byte of the largest value; those above stand for −∞, ∞ and NaN


@dataclass(frozen=True)
class Summary:
    """What is kept of a large array."""

    statistics: dict[str, Any]
    map: dict[str, Any]


def summarize(array: Array) -> Any:
    """A copy of an array, or the `Summary` of a large one: for a recorder that should not keep gigabytes."""
    return np.array(array) if array.size <= LARGE else Summary(statistics(array), quantized(array))


def statistics(array: Any) -> dict[str, Any]:
    """Smallest, largest and mean value and norm of the finite elements, and how many are NaN, infinite and 0."""
    if isinstance(array, Summary):
        return array.statistics
    flat = array.reshape(-1)
    count = zeros = infinite = nan = 0
    total, squares, low, high = 0.0, 0.0, math.inf, -math.inf
    for start in range(0, flat.size, _CHUNK):
        x = flat[start : start + _CHUNK].astype(np.float64)
        finite = np.isfinite(x)
        if not finite.all():
            missing = int(np.count_nonzero(np.isnan(x)))
            nan, infinite = nan + missing, infinite + x.size - int(np.count_nonzero(finite)) - missing
            x = x[finite]
        if x.size:
            count, zeros = count + x.size, zeros + x.size - int(np.count_nonzero(x))
            total, squares = total + float(x.sum()), squares + float(x @ x)
            low, high = min(low, float(x.min())), max(high, float(x.max()))
    found: dict[str, Any] = {"n": flat.size, "min": low, "max": high, "mean": total / max(count, 1)}
    found |= {"norm": math.sqrt(squares), "nan": nan, "inf": infinite, "zeros": zeros}
    return found if count else found | dict.fromkeys(("min", "max", "mean", "norm"))


def full(array: Array) -> dict[str, Any]:
    """Every value, as float32."""
    return {"form": "full", "f32": _text(array.astype("<f4"))}


def full_bytes(size: int) -> int:
    """How long `full` of so many elements is."""
    return 16 * size // 3 + 40


def quantized(array: Any, cells: int = CELLS) -> dict[str, Any]:
    """An array as a matrix of 8-bit cells: each is the element of largest magnitude of a few rows and columns."""
    if isinstance(array, Summary):
        return array.map
    matrix = array.reshape(-1, array.shape[-1] if array.ndim else 1)
    p, q = _cell(len(matrix), matrix.shape[1], cells)
    rows, columns = np.arange(0, matrix.shape[0], p), np.arange(0, matrix.shape[1], q)
    ends = [
        choose.reduceat(choose.reduceat(matrix, rows, axis=0), columns, axis=1).astype(np.float64)
        for choose in (np.minimum, np.maximum)
    ]
    strongest = np.where(np.abs(ends[0]) > np.abs(ends[1]), *ends)
    finite = np.isfinite(strongest)
    low = float(np.min(strongest, where=finite, initial=math.inf))
    high = float(np.max(strongest, where=finite, initial=-math.inf))
    if low > high:
        low = high = 0.0
    with np.errstate(invalid="ignore"):
        level = np.rint((strongest - low) * (_TOP / ((high - low) or 1.0)))
    codes = np.where(np.isnan(strongest), _TOP + 3, np.where(strongest > 0, _TOP + 2, _TOP + 1))
    q8 = np.where(finite, np.where(finite, level, 0), codes).astype(np.uint8)
    size = {"rows": len(rows), "cols": len(columns), "cell": [p, q]}
    return {"form": "map", "q8": _text(q8), **size, "lo": low, "hi": high}


def _cell(rows: int, columns: int, cells: int) -> tuple[int, int]:
    """How many rows and columns go into one cell, so that there are at most so many cells, and none is too long."""
    p = q = 1
    while math.ceil(rows / p) * math.ceil(columns / q) > cells:
        if math.ceil(rows / p) > math.ceil(columns / q):
            p += 1 + p // 8
        else:
            q += 1 + q // 8
    return p, q


def _text(array: Array) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
