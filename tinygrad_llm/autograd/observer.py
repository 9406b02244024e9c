"""The observer: one optional object that the engine tells what it does.

Anomaly mode and `tinygrad-llm explain` are observers. The engine knows neither: it calls the methods of `Observer`.

    class Names(Observer):
        def on_operation(self, operation):
            print(operation.name, operation.output.shape)

    with observing(Names()):
        loss = model.loss(ids, targets)
"""

import inspect
import linecache
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple, TypeAlias

from tinygrad_llm.autograd.node import Node
from tinygrad_llm.autograd.scope import scope
from tinygrad_llm.kernels import Array, Kernel
from tinygrad_llm.kernels.contract import Vjp


@dataclass(frozen=True, slots=True)
class Operation:
    """One run of a kernel.

    inputs are the Tensors, arrays and numbers that `apply` was given, and arrays the ndarrays that the kernel received.
    output is a Tensor. node is None if nothing was recorded; else it holds the vjp, and the nodes of the inputs.
    """

    kernel: Kernel
    inputs: tuple[Any, ...]
    arrays: tuple[Array, ...]
    options: dict[str, Any]
    output: Any
    node: Node | None

    @property
    def name(self) -> str:
        return self.kernel.__name__

    @property
    def input_names(self) -> list[str]:
        return input_names(self.kernel, len(self.arrays))


def input_names(kernel: Kernel, count: int) -> list[str]:
    """The names that a kernel gives to its first `count` inputs; those of `*xs` are xs[0], xs[1], …"""
    names: list[str] = []
    for parameter in inspect.signature(kernel).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}[{i}]" for i in range(count - len(names))]
        else:
            names.append(parameter.name)
    return names[:count]


class Observer:
    """Override the methods you need: each does nothing here. The calls come in the order in which the engine works.

    All arrays are the engine's own. Never write to them. Copy what you keep, because the engine may add to a gradient
    in place later. An exception that a method raises stops the operation or the backward pass.

    The engine calls an observer from each thread that runs under it, so one that is shared needs its own lock.
    """

    def around_kernel(self, kernel: Kernel) -> AbstractContextManager[None]:
        """Return a context manager in which the kernel runs."""
        return nullcontext()

    def on_operation(self, operation: Operation) -> None:
        """A kernel has run. `current_layer()` and `calling_line()` say for whom.

        To follow the operation out of the `observing` block, set `operation.node.origin` (see `Node`).
        """

    def on_backward(self, root: Node, seed: Array) -> None:
        """A backward pass begins at this node with this gradient; a vjp of another pass may start it (`recompute`)."""

    def on_hook(self, node: Node, before: Array, after: Array) -> None:
        """A hook has seen the gradient `before`; the walk continues with `after`."""

    def on_gradient(self, node: Node, gradient: Array) -> None:
        """The complete gradient of a node has arrived: all sums are formed, and its hooks have run."""

    def around_vjp(self, node: Node, vjp: Vjp) -> AbstractContextManager[None]:
        """Return a context manager in which the vjp of a node runs."""
        return nullcontext()

    def on_vjp(self, node: Node, parents: tuple[Node | None, ...], gradient: Array, gradients: Any) -> None:
        """The vjp of a node has turned `gradient` into `gradients`, one for each parent.

        Each gradient is an array, a `Rows`, or None. A parent is None if that input requires no gradient.
        """

    def around_sum(self, node: Node) -> AbstractContextManager[None]:
        """Return a context manager in which two gradients of a node are added."""
        return nullcontext()

    def on_sum(self, node: Node, first: Array, second: Array, total: Array) -> None:
        """Two gradients of a node, from two of its uses, were added."""


class _Several(Observer):
    """Pass each call to several observers, in order."""

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self.observers = observers

    def around_kernel(self, kernel: Kernel) -> AbstractContextManager[None]:
        return self._around(lambda observer: observer.around_kernel(kernel))

    def on_operation(self, operation: Operation) -> None:
        for observer in self.observers:
            observer.on_operation(operation)

    def on_backward(self, root: Node, seed: Array) -> None:
        for observer in self.observers:
            observer.on_backward(root, seed)

    def on_hook(self, node: Node, before: Array, after: Array) -> None:
        for observer in self.observers:
            observer.on_hook(node, before, after)

    def on_gradient(self, node: Node, gradient: Array) -> None:
        for observer in self.observers:
            observer.on_gradient(node, gradient)

    def around_vjp(self, node: Node, vjp: Vjp) -> AbstractContextManager[None]:
        return self._around(lambda observer: observer.around_vjp(node, vjp))

    def on_vjp(self, node: Node, parents: tuple[Node | None, ...], gradient: Array, gradients: Any) -> None:
        for observer in self.observers:
            observer.on_vjp(node, parents, gradient, gradients)

    def around_sum(self, node: Node) -> AbstractContextManager[None]:
        return self._around(lambda observer: observer.around_sum(node))

    def on_sum(self, node: Node, first: Array, second: Array, total: Array) -> None:
        for observer in self.observers:
            observer.on_sum(node, first, second, total)

    @contextmanager
    def _around(self, enter: Callable[[Observer], AbstractContextManager[None]]) -> Iterator[None]:
        with ExitStack() as stack:
            for observer in self.observers:
                stack.enter_context(enter(observer))
            yield


_observer: ContextVar[Observer | None] = ContextVar("observer", default=None)
current_observer = _observer.get  # the C function itself, because every operation asks


def both(one: Observer | None, other: Observer | None) -> Observer | None:
    """Combine two observers into one that passes each call to both; a shared one is called once."""
    if one is None or other is None or one is other:
        return other if one is None else one
    parts = [part for x in (one, other) for part in (x.observers if isinstance(x, _Several) else (x,))]
    distinct = tuple(dict.fromkeys(parts))
    return distinct[0] if len(distinct) == 1 else _Several(distinct)


@scope
def observing(observer: Observer) -> Iterator[None]:
    """Report every operation and every backward pass inside this block to the observer, next to any outer observer.

    The block belongs to this thread alone. A backward pass that runs after the block is not reported, unless the
    observer left an `origin` at the node.

    Raises:   TypeError: not an instance of Observer.
    """
    if not isinstance(observer, Observer):
        raise TypeError(f"observing: takes an instance of Observer, got {observer!r}")
    token = _observer.set(both(_observer.get(), observer))
    try:
        yield
    finally:
        _observer.reset(token)


# ---- for whom an operation runs ------------------------------------------------------------------------------------

Layer: TypeAlias = tuple[str, object]  # the path of the layer that is running, and the layer itself

_layer: ContextVar[Layer] = ContextVar("layer", default=("", None))
current_layer = _layer.get  # tracked only while an observer is active


@scope
def inside_layer(path: str, layer: object) -> Iterator[None]:
    """Operations inside this block run in `layer`, whose path is `path`."""
    token = _layer.set((path, layer))
    try:
        yield
    finally:
        _layer.reset(token)


class Line(NamedTuple):
    """A line of Python."""

    file: str
    number: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}" + (f" `{self.text}`" if self.text else "")


_ENGINE = str(Path(__file__).parent) + os.sep
_FUNCTIONAL = str(Path(__file__).parents[1] / "functional.py")


def calling_frame(frame: FrameType | None = None) -> FrameType:
    """The innermost frame outside the engine and `functional.py` that led to this operation.

    To be called from `Observer.on_operation`: the observer's own frames are skipped.

    Args:     frame: of the observer; the caller's if None.
    """
    frame = frame or sys._getframe(1)
    while frame.f_back and not frame.f_code.co_filename.startswith(_ENGINE):
        frame = frame.f_back
    while frame.f_back and frame.f_code.co_filename.startswith((_ENGINE, _FUNCTIONAL)):
        frame = frame.f_back
    return frame


def calling_line(frame: FrameType | None = None) -> Line:
    """The line of `calling_frame`, and its text.

    Args:     frame: what `calling_frame` returned; found here if None.
    """
    frame = frame or calling_frame(sys._getframe(1))
    file, number = frame.f_code.co_filename, frame.f_lineno
    text = linecache.getline(file, number, frame.f_globals).strip()
    with suppress(OSError):  # the working directory may have been deleted
        file = file.removeprefix(os.getcwd() + os.sep)
    return Line(file, number, text)
