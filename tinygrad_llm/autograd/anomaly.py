"""Anomaly mode: inside `with detect_anomaly():` every output and every gradient is checked, and the error names the
first bad one, with the operation, the layer and the line of Python that made it.

The mode is an observer. It leaves an `Origin` at each node that it saw recorded: words, shapes and fingerprints of the
saved arrays, but no arrays, so that it keeps no memory alive.
"""

import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_llm.autograd.node import Node, kept_arrays, owned_arrays
from tinygrad_llm.autograd.observer import Observer, Operation, calling_line, current_layer, observing
from tinygrad_llm.autograd.scope import scope
from tinygrad_llm.kernels import Array, Kernel, elementwise
from tinygrad_llm.kernels.contract import Vjp

_check_nan: ContextVar[bool] = ContextVar("check_nan", default=True)


class AnomalyError(RuntimeError):
    """`detect_anomaly` found NaN or infinity, a wrong gradient, or a value that changed before backward needed it.

    operation is the kernel's name, layer the path of the layer (or ""), where the file, the line and its text.
    """

    def __init__(self, message: str, operation: str = "", layer: str = "", where: str = "") -> None:
        super().__init__(message)
        self.operation, self.layer, self.where = operation, layer, where


@scope
def detect_anomaly(check_nan: bool = True) -> Iterator[None]:
    """Check every operation and every gradient inside this block (or function, as a decorator); slow, for debugging.

    Put the forward pass and `backward` inside: the error then names the line that recorded the operation. An infinity
    may be passed on, because masks use −inf; a NaN may not. The mode belongs to this thread alone.

    Args:     check_nan: look for NaN and infinity; False checks only the rest.
    Raises:   AnomalyError: an operation or its gradient made NaN, or infinity out of finite numbers; a vjp returned
              gradients of the wrong number, shape or dtype; a saved value was changed in place before backward.
    """
    token = _check_nan.set(check_nan)
    try:
        with observing(_ANOMALY):
            yield
    finally:
        _check_nan.reset(token)


class Anomaly(Observer):
    """Raise an AnomalyError for the first bad value. It has no state of its own, so one object serves all threads.

    NumPy's warnings are off around the engine's arithmetic: the errors say the same with more words.
    """

    def around_kernel(self, kernel: Kernel) -> np.errstate:
        return np.errstate(all="ignore")

    def on_operation(self, operation: Operation) -> None:
        origin = check_output(operation)
        if operation.node is not None:
            operation.node.origin = origin

    def on_backward(self, root: Node, seed: Array) -> None:
        _refuse_nan(root, seed, "the seed that backward was given")

    def on_hook(self, node: Node, before: Array, after: Array) -> None:
        if not _holds(before, "NaN"):
            _refuse_nan(node, after, "a hook")
        if _holds(after, "inf") and not _holds(before, "inf"):
            raise _error(node, f"a hook made inf in the gradient of {node.name}, shape {after.shape}")

    def on_gradient(self, node: Node, gradient: Array) -> None:
        # Seeds, hooks, sums and vjps inside the mode are checked where they run.
        _refuse_nan(node, gradient, "an operation outside detect_anomaly")

    @contextmanager
    def around_vjp(self, node: Node, vjp: Vjp) -> Iterator[None]:
        origin = _origin(node)
        _check_saved(origin, vjp)
        try:
            with np.errstate(all="ignore"):
                yield
        except AnomalyError:
            raise  # of an operation that the vjp runs: see recompute
        except Exception as error:
            raise origin.error(f"the vjp of {node.name} failed, {type(error).__name__}: {error}") from error

    def on_vjp(self, node: Node, parents: tuple[Node | None, ...], gradient: Array, gradients: Any) -> None:
        check_gradients(_origin(node), parents, gradient, gradients)

    def around_sum(self, node: Node) -> np.errstate:
        return np.errstate(all="ignore")

    def on_sum(self, node: Node, first: Array, second: Array, total: Array) -> None:
        _refuse_nan(node, total, "inf − inf, where the gradients of several uses were added")
        if _holds(total, "inf") and not (_holds(first, "inf") or _holds(second, "inf")):
            raise _error(node, f"the gradients of several uses of {node.name}, shape {total.shape}, add up to inf")


_ANOMALY = Anomaly()


# ---- where an operation was recorded -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Input:
    """An input of an operation."""

    name: str  # in the kernel
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True, slots=True)
class Saved:
    """The fingerprint of an array that a vjp keeps for backward."""

    name: str  # in the kernel
    owner: str  # the array whose memory it is: "its input x", "its output", or ""
    shape: tuple[int, ...]
    checksum: int


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an operation was recorded, and what is needed to check its gradients. It holds no arrays."""

    operation: str
    where: str = ""
    layer: str = ""
    inputs: tuple[Input, ...] | None = None  # None: recorded outside anomaly mode
    dtype: np.dtype[Any] | None = None  # of the output
    saved: tuple[Saved, ...] = ()

    @property
    def observer(self) -> Observer:
        """The observer that the walk calls for this node, also outside the mode."""
        return _ANOMALY

    def __str__(self) -> str:
        if not self.where:
            return "recorded outside detect_anomaly, so the line is unknown (put the forward pass inside too)"
        return f"at {self.where}" + (f", layer {self.layer}" if self.layer else "")

    def error(self, what: str, hint: str = "") -> AnomalyError:
        message = f"{what}: {self}" + (f": {hint}" if hint else "")
        return AnomalyError(message, self.operation, self.layer, self.where)


def _origin(node: Node) -> Origin:
    """The origin of a node; one with only a name, if the node was recorded outside the mode."""
    return node.origin if isinstance(node.origin, Origin) else Origin(node.name)


def _error(node: Node, what: str) -> AnomalyError:
    return AnomalyError(what, node.name) if node.is_leaf else _origin(node).error(what)


def _refuse_nan(node: Node, g: Array, source: str) -> None:
    if _holds(g, "NaN"):
        what = f"the gradient that came in for {node.name}, shape {g.shape}, holds NaN already, from {source}"
        raise _error(node, what)


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
}
_OVERFLOW = "a number too large for the dtype: is the learning rate too high?"


def check_output(operation: Operation) -> Origin:
    """Return where the operation was recorded. Raise if its output is bad."""
    kernel, arrays, y = operation.kernel, operation.arrays, operation.output.data
    names = operation.input_names
    inputs = tuple(Input(name, x.shape, x.dtype) for name, x in zip(names, arrays, strict=True))
    vjp = None if operation.node is None else operation.node.vjp
    saved = () if vjp is None else tuple(_fingerprints(vjp, dict(zip(names, arrays, strict=True)), y))
    origin = Origin(kernel.__name__, str(calling_line()), current_layer()[0], inputs, y.dtype, saved)
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
    """Whether an elementwise y = f(arrays) is infinite in a place where no input is."""
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


def check_gradients(origin: Origin, parents: Sequence[Node | None], g: Array, grads: Any) -> None:
    """Raise if the gradients that a vjp returned for g cannot be right."""
    name = origin.operation
    if not isinstance(grads, tuple | list) or len(grads) != len(parents):
        got = f"{len(grads)} gradients" if isinstance(grads, tuple | list) else f"{type(grads).__name__}, not a tuple,"
        raise origin.error(f"the vjp of {name} returned {got} for {len(parents)} inputs")
    infinite = _holds(g, "inf")
    for i, (parent, d) in enumerate(zip(parents, grads, strict=True)):
        if d is None:
            continue
        d = np.asarray(d)
        x = None if origin.inputs is None else origin.inputs[i]
        of = f"the gradient of {name}'s input {x.name if x else i}"
        if x and d.shape != x.shape:
            raise origin.error(f"{of} has shape {d.shape}, but the input has {x.shape}", "the vjp is wrong")
        if x and parent is not None and d.dtype not in (allowed := _dtypes(x, origin, g)):
            raise origin.error(f"{of} is {d.dtype}, not {allowed[0]}", "the vjp is wrong: did a NumPy scalar promote?")
        for bad in _BAD:
            # A gradient that no input requires is dropped, so it may hold anything.
            if parent is not None and _holds(d, bad) and (bad == "NaN" or not infinite):
                raise origin.error(f"{name} made {bad} in {of}, shape {d.shape}", _SLOPE_HINTS.get(name, ""))


def _dtypes(x: Input, origin: Origin, g: Array) -> list[np.dtype[Any]]:
    """The allowed dtypes of a gradient: as precise as output or input, and complex if g is (for the complex step)."""
    allowed = [np.result_type(g.dtype, origin.dtype), np.result_type(g.dtype, x.dtype)]
    return allowed if g.dtype.kind == "c" else [*allowed, x.dtype]


def _check_saved(origin: Origin, vjp: Vjp) -> None:
    for saved, (_, array) in zip(origin.saved, kept_arrays(vjp), strict=False):
        if (saved.shape, saved.checksum) != (array.shape, _checksum(array)):
            what = f"{saved.owner} (as {saved.name})" if saved.owner else saved.name
            raise origin.error(
                f"{origin.operation} saved {what}, shape {saved.shape}, for backward, and it was changed "
                "in place since",
                "compute a new array (x = x + 1) instead of changing one (x.data += 1), or change it after backward",
            )


def _fingerprints(vjp: Vjp, inputs: dict[str, Array], y: Array) -> Iterator[Saved]:
    for name, array, owner in owned_arrays(vjp, inputs, y):
        yield Saved(name, owner, array.shape, _checksum(array))


def _checksum(array: Array) -> int:
    return zlib.crc32(np.ascontiguousarray(array).data)
