"""Find the NumPy operation that loses the imaginary part, and so makes the complex step wrong.

The function runs once on x + i·h·u, in arrays that see each NumPy call. A call loses something if the imaginary part of
its result, over h, differs from a real difference along the same u. No list of names is needed.
"""

import functools
import linecache
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from tinygrad_llm.autograd import Observer, Operation, no_grad, observing
from tinygrad_llm.gradcheck.methods import Scalar
from tinygrad_llm.kernels import Array

_H = 1e-20
_SKIPPED = (str(Path(np.__file__).parent), str(Path(__file__).parent))
_PACKAGE = str(Path(__file__).parents[1])


def lossy_operation(L: Scalar) -> str:
    """The first NumPy call of L that loses the imaginary part, and its line; empty if it is unknown."""
    found: list[str] = []
    kept = [t.data for t in L.tensors]
    try:
        for t in L.tensors:
            t.data = _watched(t.data + 1j * _H * L.rng.randn(t.shape, np.float64), found)
        with no_grad(), observing(_Kernels(found)), np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            L.call()
    except Exception as error:
        if not found:
            what = "fn writes complex numbers into a float array"
            if not isinstance(error, np.exceptions.ComplexWarning):
                what = f"{type(error).__name__}: {error}"
            found.append(f"{what}{_line(error.__traceback__)}")
    finally:
        for t, data in zip(L.tensors, kept, strict=True):
            t.data = data
    return min(found, key=lambda name: name.startswith(".real"), default="")  # a maximum to subtract may be real


class _Kernels(Observer):
    """Runs each kernel again on watched arrays: a Tensor holds plain ones."""

    def __init__(self, found: list[str]) -> None:
        self.found = found

    def on_operation(self, operation: Operation) -> None:
        if not self.found and any(map(_is_complex, operation.arrays)):
            operation.kernel(*(_watched(x, self.found) for x in operation.arrays), **operation.options)


class _Watched(np.ndarray[Any, Any]):
    """An array that compares each NumPy call on it with real differences."""

    found: list[str]

    def __array_finalize__(self, parent: Any) -> None:
        self.found = getattr(parent, "found", [])

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *args: Any, out: Any = None, **options: Any) -> Any:
        name = f"np.{ufunc.__name__}"
        y = self._run(name, functools.partial(getattr(ufunc, method), **_plain(options)), args)
        if not out:
            return y
        if _is_complex(y) and not _is_complex(out[0]):
            self._report(f"{name} writes complex numbers into a {out[0].dtype} array")
        np.copyto(_plain(out[0]), _plain(y), casting="unsafe")
        return out[0]

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        name = f"{function.__module__}.{function.__name__}".replace("numpy", "np", 1)
        return self._run(name, functools.partial(function, **_plain(options)), args)

    # These methods are not announced to a subclass under their own names.
    def std(self, *args: Any, **options: Any) -> Any:
        return np.std(self, *args, **options)

    def var(self, *args: Any, **options: Any) -> Any:
        return np.var(self, *args, **options)

    @property  # type: ignore[misc]
    def real(self) -> Any:
        if not sys._getframe(1).f_code.co_filename.startswith((_PACKAGE, *_SKIPPED)):
            self._report(".real loses the imaginary part")
        return _plain(self).real

    def __getitem__(self, index: Any) -> Any:
        return _watched(_plain(self)[_plain(index)], self.found)

    def _run(self, name: str, call: Callable[..., Any], args: Any) -> Any:
        """call(*args) on plain arrays."""
        y = call(*_plain(args))
        if isinstance(y, np.ndarray | np.generic) and not self.found and _loses(call, args, np.asarray(y)):
            self._report(f"{name} loses the imaginary part")
        return _watched(y, self.found)

    def _report(self, name: str) -> None:
        self.found.append(f"{name}{_line()}")


def _is_complex(x: Any) -> bool:
    return isinstance(x, np.ndarray | np.generic) and x.dtype.kind == "c"


def _watched(x: Any, found: list[str]) -> Any:
    """x, watched if it is complex."""
    if not _is_complex(x):
        return x
    view = np.asarray(x).view(_Watched)
    view.found = found
    return view


def _plain(x: Any, change: Callable[[Array], Array] = np.asarray) -> Any:
    """x, also inside lists, tuples and dictionaries, with every complex array changed, and none watched."""
    if _is_complex(x):
        return change(np.asarray(x))
    if type(x) in (list, tuple):
        return type(x)(_plain(item, change) for item in x)
    if type(x) is dict:
        return {key: _plain(item, change) for key, item in x.items()}
    return x


def _loses(call: Callable[..., Any], args: Any, y: Array) -> bool:
    """Whether Im y / h is not the derivative of the call along the imaginary part of its arguments."""
    if y.dtype.kind not in "fc" or np.any(np.abs(y.imag) > 1e-10):  # counts, comparisons; complex for real arguments
        return False
    d = 1e-6
    up = call(*_plain(args, lambda z: z.real + d / _H * z.imag))
    down = call(*_plain(args, lambda z: z.real - d / _H * z.imag))
    real = (up - down) / (2 * d)
    off = np.max(np.abs(real - y.imag / _H), initial=0)
    return bool(off > 1e-4 * (1e-2 + np.max(np.abs(real), initial=0)))


def _line(traceback: TracebackType | None = None) -> str:
    """The innermost line outside NumPy and this folder."""
    frames = []
    if traceback is None:
        frame: Any = sys._getframe(1)
        while frame is not None:
            frames.append((frame.f_code.co_filename, frame.f_lineno, frame.f_globals))
            frame = frame.f_back
    while traceback is not None:
        frames.insert(0, (traceback.tb_frame.f_code.co_filename, traceback.tb_lineno, traceback.tb_frame.f_globals))
        traceback = traceback.tb_next
    for file, number, names in frames:
        if not file.startswith(_SKIPPED) and not file.startswith("<__array"):
            return f" ({Path(file).name}:{number} `{linecache.getline(file, number, names).strip()}`)"
    return ""
