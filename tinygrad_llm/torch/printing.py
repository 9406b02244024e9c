"""How PyTorch prints arrays: four digits, columns of equal width, and … in the middle of more than 1,000 elements.

All numbers of an array have one form: whole numbers as `3.`, else four digits behind the point, or `1.2346e-05` where
the largest number is more than 1,000 times the smallest, more than 10⁸, or the smallest is below 10⁻⁴.

Source: the printed form is that of PyTorch 2 (torch.set_printoptions describes its options).
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclasses.dataclass
class Options:
    """What `torch.set_printoptions` sets: digits, elements before … appears, elements kept at each end, width."""

    precision: int = 4
    threshold: float = 1000
    edgeitems: int = 3
    linewidth: int = 80
    sci_mode: bool | None = None


options = Options()
_PROFILES = {"default": Options(), "short": Options(precision=2, edgeitems=2), "full": Options(threshold=math.inf)}


def set_printoptions(
    precision: int | None = None,
    threshold: float | None = None,
    edgeitems: int | None = None,
    linewidth: int | None = None,
    profile: str | None = None,
    sci_mode: bool | None = None,
) -> None:
    """Set how arrays are printed from now on; sci_mode None chooses the form by the numbers, as `torch` does."""
    if profile is not None:
        if profile not in _PROFILES:
            raise ValueError(f"set_printoptions: profile must be one of {', '.join(_PROFILES)}, got {profile!r}")
        vars(options).update(vars(_PROFILES[profile]))
    given = {"precision": precision, "threshold": threshold, "edgeitems": edgeitems, "linewidth": linewidth}
    vars(options).update({name: value for name, value in given.items() if value is not None})
    options.sci_mode = sci_mode


def array_text(x: Array, indent: int) -> str:
    """The numbers of an array in brackets; lines after the first begin with `indent` spaces."""
    if x.dtype == np.float16:
        x = x.astype(np.float32)
    short = x.size > options.threshold
    number = _Format(_edges(x) if short else x)
    return number.text(x.item()) if x.ndim == 0 else _nested(x, indent, short, number)


def with_suffixes(text: str, suffixes: Sequence[str], indent: int) -> str:
    """The text and its suffixes, such as `dtype=torch.float64`; one that would pass the width gets its own line."""
    width = len(text) - text.rfind("\n") + 1
    for suffix in suffixes:
        if width + len(suffix) + 2 > options.linewidth:
            text += ",\n" + " " * indent + suffix
            width = indent + len(suffix)
        else:
            text += ", " + suffix
            width += len(suffix) + 2
    return text + ")"


class _Format:
    """The one form of all numbers of an array."""

    def __init__(self, x: Array) -> None:
        self.kind = x.dtype.kind
        self.width, self.whole, self.scientific = 1, True, False
        if self.kind not in "fc":
            self.width = max((len(str(value)) for value in x.ravel().tolist()), default=1)
            return
        values = (x.real if self.kind == "c" else x).ravel().astype(np.float64)
        values = values[np.isfinite(values) & (values != 0)]
        if values.size:
            self.whole = bool((values == np.ceil(values)).all())
            low, high = float(np.abs(values).min()), float(np.abs(values).max())
            wide = high / low > 1000 or high > 1e8 or low < 1e-4
            self.scientific = wide if options.sci_mode is None else options.sci_mode
            self.width = max(len(self._plain(value)) for value in values.tolist())

    def _plain(self, value: float) -> str:
        if self.scientific:
            return f"{value:.{options.precision}e}"
        if self.whole:
            return f"{value:.0f}" + ("." if math.isfinite(value) else "")
        return f"{value:.{options.precision}f}"

    def text(self, value: Any) -> str:
        if self.kind == "c":
            sign = "-" if math.copysign(1, value.imag) < 0 else "+"
            return f"{self._plain(value.real).rjust(self.width)}{sign}{self._plain(abs(value.imag))}j"
        return (self._plain(value) if self.kind == "f" else str(value)).rjust(self.width)


def _edges(x: Array) -> Array:
    """The elements that are shown of a large array."""
    n = options.edgeitems
    for axis in range(x.ndim):
        if x.shape[axis] > 2 * n:
            ends = [np.arange(n), np.arange(x.shape[axis] - n, x.shape[axis])]
            x = np.take(x, np.concatenate(ends), axis=axis)
    return x


def _nested(x: Array, indent: int, short: bool, number: _Format) -> str:
    n = options.edgeitems
    cut = short and len(x) > 2 * n
    if x.ndim == 1:
        ends = [x[:n], x[len(x) - n :]] if cut else [x]
        parts = [[number.text(value) for value in end.tolist()] for end in ends]
        words = [*parts[0], " ...", *parts[1]] if cut else parts[0]
        per_line = max(1, (options.linewidth - indent) // (number.width + 2))
        lines = [", ".join(words[i : i + per_line]) for i in range(0, len(words), per_line)]
        return "[" + (",\n" + " " * (indent + 1)).join(lines) + "]"
    rows = [*x[:n], *x[len(x) - n :]] if cut else list(x)
    texts = [_nested(row, indent + 1, short, number) for row in rows]
    if cut:
        texts.insert(n, "...")
    return "[" + ("," + "\n" * (x.ndim - 1) + " " * (indent + 1)).join(texts) + "]"
