"""Anomaly mode: inside `with detect_anomaly():` every output and every gradient is looked at, and the first bad one is
named, with the operation, the layer and the line of Python that made it.

The tape calls `check_output` after an operation, and `check_incoming` and `checked_vjp` around a `vjp`. What they need
to know later is an `Origin`: words, shapes and fingerprints, but no arrays, so that it keeps no memory alive.
"""

import functools
import inspect
import linecache
import os
import sys
import types
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np

from tinygrad_llm.kernels import Array, Kernel, elementwise
from tinygrad_llm.kernels.contract import Vjp

if TYPE_CHECKING:
    from tinygrad_llm.autograd.tape import Node

_T = TypeVar("_T")
Layer: TypeAlias = tuple[str, object]  # the path of the layer that is running, and the layer itself
_OUTSIDE: Layer = ("", None)
_layer: ContextVar[Layer | None] = ContextVar("layer", default=None)
_check_nan: ContextVar[bool] = ContextVar("check_nan", default=True)
current_layer = _layer.get  # None: anomaly mode is off. The C function itself, because every operation asks.


class AnomalyError(RuntimeError):
    """What `detect_anomaly` found: NaN or infinity, a wrong gradient, or a value changed before backward needed it.

    operation is the kernel's name, layer the path of the layer (or ""), where the file, the line and its text.
    """

    def __init__(self, message: str, operation: str = "", layer: str = "", where: str = "") -> None:
        super().__init__(message)
        self.operation, self.layer, self.where = operation, layer, where


@contextmanager
def detect_anomaly(check_nan: bool = True) -> Iterator[None]:
    """Check every operation and every gradient inside this block (or function, as a decorator); slow, for debugging.

    Put the forward pass and `backward` inside: a gradient is then traced to the line that recorded its operation. An
    infinity may be passed on, because masks use −inf; a NaN may not. The mode belongs to this thread alone.

    Args:     check_nan: look for NaN and infinity; False checks the rest alone.
    Raises:   AnomalyError: an operation or its gradient made NaN, or infinity out of finite numbers; a vjp returned
              gradients of the wrong number, shape or dtype; a saved value was changed in place before backward.
    """
    tokens = _layer.set(_layer.get() or _OUTSIDE), _check_nan.set(check_nan)
    try:
        yield
    finally:
        _layer.reset(tokens[0])
        _check_nan.reset(tokens[1])


@contextmanager
def inside_layer(path: str, layer: object) -> Iterator[None]:
    """Operations recorded inside this block happen in `layer`, whose path is `path`."""
    token = _layer.set((path, layer))
    try:
        yield
    finally:
        _layer.reset(token)


def quietly(function: Callable[..., _T], *args: Any, **options: Any) -> _T:
    """Call without NumPy's warnings: what they hint at, anomaly mode says with more words."""
    with np.errstate(all="ignore"):
        return function(*args, **options)


# ---- where an operation was recorded -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Input:
    """What an operation was given."""

    name: str  # as the kernel calls it
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Saved:
    """The fingerprint of an array that a vjp keeps."""

    name: str  # as the kernel calls it
    owner: str  # whose memory it is: "its input x", "its output", or ""
    shape: tuple[int, ...]
    checksum: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an operation was recorded, and what its gradients must look like."""

    operation: str
    where: str = ""
    layer: str = ""
    inputs: tuple[Input, ...] | None = None  # None: recorded outside anomaly mode, so nothing is known
    dtype: np.dtype[Any] | None = None  # of the output
    saved: tuple[Saved, ...] = ()

    def __str__(self) -> str:
        if not self.where:
            return "recorded outside detect_anomaly, so the line is unknown (put the forward pass inside too)"
        return f"at {self.where}" + (f", layer {self.layer}" if self.layer else "")

    def error(self, what: str, hint: str = "") -> AnomalyError:
        message = f"{what}: {self}" + (f": {hint}" if hint else "")
        return AnomalyError(message, self.operation, self.layer, self.where)


_ENGINE = str(Path(__file__).parent) + os.sep
_FUNCTIONAL = str(Path(__file__).parents[1] / "functional.py")


def _calling_line() -> str:
    """The innermost line outside the engine and `functional.py`: "train.py:12 `y = F.log(x)`"."""
    frame = sys._getframe()
    while frame.f_back and frame.f_code.co_filename.startswith((_ENGINE, _FUNCTIONAL)):
        frame = frame.f_back
    file, number = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, number, frame.f_globals).strip()
    with suppress(OSError):  # the working directory may have been deleted
        file = file.removeprefix(os.getcwd() + os.sep)
    return f"{file}:{number}" + (f" `{text}`" if text else "")


def _input_names(kernel: Kernel, count: int) -> list[str]:
    """What a kernel calls its inputs; those of `*xs` are xs[0], xs[1], …"""
    names: list[str] = []
    for parameter in inspect.signature(kernel).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}[{i}]" for i in range(count - len(names))]
        else:
            names.append(parameter.name)
    return names[:count]


# ---- forward -------------------------------------------------------------------------------------------------------

_BAD = {"NaN": np.isnan, "inf": np.isinf}


def _holds(x: Any, bad: str) -> bool:
    return _check_nan.get() and np.asarray(x).dtype.kind in "fc" and bool(_BAD[bad](x).any())


_HINTS = {
    ("log", "NaN"): "the logarithm of a negative number",
    ("log", "inf"): "the logarithm of 0 is −inf: add a small eps, or use log_softmax or logsumexp",
    ("sqrt", "NaN"): "the root of a negative number",
    ("power", "NaN"): "a negative number to a fractional power",
    ("power", "inf"): "0 to a negative power, or a number too large for the dtype",
    ("divide", "NaN"): "0 / 0, or inf / inf",
    ("divide", "inf"): "a division by 0, or a quotient too large for the dtype",
    ("multiply", "NaN"): "0 · inf: to mask, use where or masked_fill",
    ("add", "NaN"): "inf − inf",
    ("subtract", "NaN"): "inf − inf",
    ("exp", "inf"): "eˣ overflows for x > 88.7 in float32: subtract the largest x first, as softmax does",
    ("softmax", "NaN"): "a row of −inf alone, or with +inf, has no softmax: leave one entry of each row unmasked",
    ("log_softmax", "NaN"): "a row of −inf alone, or with +inf, has no softmax: leave one entry of each row unmasked",
    ("cross_entropy", "NaN"): "a row of logits holds +inf, or −inf alone",
    ("cross_entropy", "inf"): "a target's logit is −inf",
}
_OVERFLOW = "a number too large for the dtype: is the learning rate too high?"


def check_output(kernel: Kernel, arrays: Sequence[Array], y: Array, vjp: Vjp | None) -> Origin:
    """Raise if the output is bad; else say where the operation was recorded (vjp: None if it was not)."""
    names = _input_names(kernel, len(arrays))
    path, _ = _layer.get() or _OUTSIDE
    inputs = tuple(Input(name, x.shape, x.dtype) for name, x in zip(names, arrays, strict=True))
    saved = () if vjp is None else tuple(_fingerprints(vjp, dict(zip(names, arrays, strict=True)), y))
    origin = Origin(kernel.__name__, _calling_line(), path, inputs, y.dtype, saved)
    for bad in _BAD:
        if not _holds(y, bad):
            continue
        came = [f"its input {x.name}, shape {x.shape}" for x, a in zip(inputs, arrays, strict=True) if _holds(a, bad)]
        if not came or (bad == "inf" and kernel.__module__ == elementwise.__name__ and _new_inf(arrays, y)):
            hint = _HINTS.get((origin.operation, bad), _OVERFLOW if bad == "inf" else "")
            raise origin.error(f"{origin.operation} made {bad} in its output, shape {y.shape}", hint)
        if bad == "NaN":
            raise origin.error(
                f"{origin.operation} has NaN in its output, shape {y.shape}: it came in with {' and '.join(came)}",
                "look at the data, and at the step that last changed the weights",
            )
    return origin


def _new_inf(arrays: Sequence[Array], y: Array) -> bool:
    """Whether y = f(arrays), element by element, is infinite anywhere where no input is."""
    new = np.isinf(y)
    for a in arrays:
        new = new & ~np.isinf(a)
    return bool(new.any())


# ---- backward ------------------------------------------------------------------------------------------------------

_SLOPE_HINTS = {
    "sqrt": "the slope of √x at 0 is infinite: add a small eps inside the root",
    "log": "the slope of ln x is 1 / x: keep x away from 0",
    "divide": "the slope of 1 / x is −1 / x²: keep x away from 0",
    "power": "the slope of xⁿ at 0 is infinite for n < 1: add a small eps to x",
    "logsumexp": "a row of −inf alone has no gradient: leave one entry of each row unmasked",
}


def check_incoming(node: "Node", g: Array, is_root: bool) -> None:
    """Raise if the gradient that arrived at a node holds NaN: no vjp made it, for those are checked."""
    if _holds(g, "NaN"):
        sources = ["the seed that backward was given"] * is_root + ["a hook"] * bool(node.hooks)
        source = " or ".join(sources) or "inf − inf, where the gradients of several uses were added"
        what = f"the gradient that came in for {node.name}, shape {g.shape}, holds NaN already, from {source}"
        raise AnomalyError(what, node.name) if node.is_leaf else (node.origin or Origin(node.name)).error(what)


def check_hooked(node: "Node", before: Array, after: Array) -> None:
    """Raise if a hook made infinity; its NaN is found as any that comes in."""
    if _holds(after, "inf") and not _holds(before, "inf"):
        what = f"a hook made inf in the gradient of {node.name}, shape {after.shape}"
        raise AnomalyError(what, node.name) if node.is_leaf else (node.origin or Origin(node.name)).error(what)


def checked_sum(node: "Node", a: Array, b: Array, out: Array | None) -> Array:
    """a + b, two gradients of one value; raise if the sum is infinite and they are not."""
    finite = not (_holds(a, "inf") or _holds(b, "inf"))
    total = np.asarray(quietly(np.add, a, b, out=out))
    if finite and _holds(total, "inf"):
        what = f"the gradients of several uses of {node.name}, shape {total.shape}, add up to inf"
        raise AnomalyError(what, node.name) if node.is_leaf else (node.origin or Origin(node.name)).error(what)
    return total


def checked_vjp(node: "Node", vjp: Vjp, parents: Sequence["Node | None"], g: Array) -> tuple[Array | None, ...]:
    """vjp(g), after a look at what it saved, and before one at what it returns."""
    origin = node.origin or Origin(node.name)
    _check_saved(origin, vjp)
    try:
        grads = quietly(vjp, g)
    except Exception as error:
        raise origin.error(f"the vjp of {node.name} failed, {type(error).__name__}: {error}") from error
    if not isinstance(grads, tuple | list) or len(grads) != len(parents):
        got = f"{len(grads)} gradients" if isinstance(grads, tuple | list) else f"{type(grads).__name__}, not a tuple,"
        raise origin.error(f"the vjp of {node.name} returned {got} for {len(parents)} inputs")
    infinite = _holds(g, "inf")
    for i, (parent, d) in enumerate(zip(parents, grads, strict=True)):
        if d is None:
            continue
        d = np.asarray(d)
        x = None if origin.inputs is None else origin.inputs[i]
        of = f"the gradient of {node.name}'s input {x.name if x else i}"
        if x and d.shape != x.shape:
            raise origin.error(f"{of} has shape {d.shape}, but the input has {x.shape}", "the vjp is wrong")
        if x and parent is not None and d.dtype not in (allowed := _dtypes(x, origin, g)):
            raise origin.error(f"{of} is {d.dtype}, not {allowed[0]}", "the vjp is wrong: did a NumPy scalar promote?")
        for bad in _BAD:  # what goes to no one harms no one
            if parent is not None and _holds(d, bad) and (bad == "NaN" or not infinite):
                raise origin.error(f"{node.name} made {bad} in {of}, shape {d.shape}", _SLOPE_HINTS.get(node.name, ""))
    return grads


def _dtypes(x: Input, origin: Origin, g: Array) -> list[np.dtype[Any]]:
    """What a gradient may be: as precise as output or input, and complex wherever g is (in a complex-step check)."""
    allowed = [np.result_type(g.dtype, origin.dtype), np.result_type(g.dtype, x.dtype)]
    return allowed if g.dtype.kind == "c" else [*allowed, x.dtype]


def _check_saved(origin: Origin, vjp: Vjp) -> None:
    for saved, (_, array) in zip(origin.saved, _kept(vjp), strict=False):
        if (saved.shape, saved.checksum) != (array.shape, _checksum(array)):
            what = f"{saved.owner} (as {saved.name})" if saved.owner else saved.name
            raise origin.error(
                f"{origin.operation} saved {what}, shape {saved.shape}, for backward, and it was changed "
                "in place since",
                "compute a new array (x = x + 1) instead of changing one (x.data += 1), or change it after backward",
            )


def _fingerprints(vjp: Vjp, inputs: dict[str, Array], y: Array) -> Iterator[Saved]:
    owners = {**{f"its input {name}": x for name, x in inputs.items()}, "its output": y}
    for name, array in _kept(vjp):
        owner = next((owner for owner, x in owners.items() if np.shares_memory(array, x)), "")
        yield Saved(name, owner, array.shape, _checksum(array))


def _checksum(array: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)


def _kept(thing: Any, name: str = "", seen: tuple[int, ...] = ()) -> Iterator[tuple[str, Array]]:
    """(name, array) of every array that a function holds, in closures, containers and defaults; in a fixed order."""
    if isinstance(thing, np.ndarray):
        yield name, thing
    elif id(thing) in seen:
        return  # a function that calls itself
    elif isinstance(thing, tuple | list | dict):
        for key, item in thing.items() if isinstance(thing, dict) else enumerate(thing):
            yield from _kept(item, f"{name}[{key!r}]", (*seen, id(thing)))
    elif isinstance(thing, functools.partial):
        yield from _kept((thing.func, thing.args, thing.keywords), name, (*seen, id(thing)))
    elif isinstance(thing, types.FunctionType):
        yield from _kept((thing.__defaults__, thing.__kwdefaults__), f"{name} defaults".strip(), (*seen, id(thing)))
        for variable, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # the variable was never set
                continue
            yield from _kept(content, variable, (*seen, id(thing)))
