"""The tape is made of nodes: one `Node` for each recorded operation, and one for each leaf.

Saved values and changes in place: nodes and changes are numbered by one counter. A change whose number is above that of
an operation came after it. If the operation saved the memory that was changed, its gradient would be wrong, so backward
raises. Nothing is recorded per operation: backward looks at the saved arrays only if anything changed since.
"""

import functools
import itertools
import threading
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self, TypeAlias

import numpy as np

from tinygrad_llm.kernels import Array
from tinygrad_llm.kernels.contract import Rows, Vjp

Hook: TypeAlias = Callable[[Array], Array | None]

_numbers = itertools.count()


class Node:
    """One recorded operation, or a leaf: a value that no operation made (`vjp` is None, and it keeps a `grad`).

    A node is known by its identity. Its number only says which of two nodes of this process was made first.
    """

    __slots__ = ("grad", "hooks", "name", "number", "origin", "parents", "value", "vjp")

    def __init__(self, name: str, value: Any, vjp: Vjp | None = None, parents: tuple[Self | None, ...] = ()) -> None:
        self.name = name
        # The (shape, dtype) of the output. Of a leaf, whose data may be replaced, a weak reference to its Tensor.
        self.value = value
        self.vjp = vjp
        self.parents = parents
        self.number = next(_numbers)
        self.grad: Array | None = None
        self.hooks: dict[object, Hook] | None = None
        # An observer may set an object here. The walk then calls the object's `observer` for this node, wherever
        # backward runs. The object's text says where the operation was recorded.
        self.origin: Any = None

    @property
    def is_leaf(self) -> bool:
        return self.name == "leaf"

    def form(self) -> tuple[tuple[int, ...], np.dtype[Any]] | None:
        """Shape and dtype of the value, which its gradient must have; None for a leaf whose Tensor is gone."""
        form = self.value
        if type(form) is tuple:
            return form
        x = form()
        return None if x is None else (x.data.shape, x.data.dtype)

    def release(self, retain: bool = False) -> tuple[Vjp, tuple[Self | None, ...]]:
        """Return `vjp` and parents, and forget them unless `retain`, so that the walk frees what they hold."""
        if self.vjp is None:
            raise RuntimeError(
                f"backward through {self.name} a second time{self._recorded}: its saved values were freed by the "
                "first. Run the forward pass again, add the outputs before going backward once, or give the first one "
                "retain_graph=True"
            )
        vjp, parents = self.vjp, self.parents
        if retain:
            return vjp, parents
        self.vjp, self.parents, self.hooks = None, (), None
        return vjp, parents

    @property
    def _recorded(self) -> str:
        return f" ({self.origin})" if self.origin else ""

    def refuse_changed(self, vjp: Vjp) -> None:
        """Raise RuntimeError if an array that this node's vjp saved has been written to since."""
        if self.number < _changes.latest:
            for name, array in kept_arrays(vjp):
                if _changes.number_of(array) > self.number:
                    raise stale(f"{self.name} saved {name}, shape {array.shape}{self._recorded}")

    def fitted(self, d: Array | Rows, operation: "Node") -> Array | Rows:
        """A gradient of this node's value, which a vjp returned, in the dtype of the value.

        Real stays real and complex stays complex, because the complex step of a second derivative passes through real
        values, and must see where a vjp loses the imaginary part.
        Raises:   RuntimeError: it has another shape; the operation is named.
        """
        if type(d) is not np.ndarray and not isinstance(d, Rows):
            d = np.asarray(d)
        form = self.value if type(self.value) is tuple else self.form()
        if form is None:
            return d
        shape, dtype = form
        if d.dtype is dtype and d.shape == shape:
            return d
        if d.shape != shape:
            raise RuntimeError(
                f"the vjp of {operation.name} returned a gradient of shape {d.shape} for an input of shape {shape}"
                f"{operation._recorded}: a gradient has the shape of its input"
            )
        return d if "c" in (d.dtype.kind, dtype.kind) else np.asarray(d).astype(dtype, copy=False)


def stale(what: str) -> RuntimeError:
    """The error of a backward pass that would use values that were changed after the forward pass."""
    return RuntimeError(
        f"one of the variables needed for gradient computation has been modified by an inplace operation: {what}, and "
        "it was changed since (by an optimizer's step, or by x += …). Call backward before changing it, or run the "
        "forward pass again"
    )


class _Changes:
    """When each array was last changed in place. Views share memory, so the key is the array that owns the memory."""

    def __init__(self) -> None:
        self.latest = -1
        self._last: dict[int, int] = {}  # by id, which stands for one array as long as `_alive` has it
        self._alive: dict[int, weakref.ref[Array]] = {}
        self._one_at_a_time = threading.Lock()

    def add(self, array: Array) -> None:
        owner = _owner(array)
        key = id(owner)
        if key not in self._alive:
            self._alive[key] = weakref.ref(owner, lambda _: (self._alive.pop(key, None), self._last.pop(key, None)))
        with self._one_at_a_time:  # so that `latest` never falls, also if two threads change arrays at once
            self._last[key] = self.latest = next(_numbers)

    def number_of(self, array: Array) -> int:
        return self._last.get(id(_owner(array)), -1)


def _owner(array: Array) -> Array:
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


_changes = _Changes()
changed = _changes.add  # call it with the array whenever the memory of a Tensor is written to


def kept_arrays(thing: Any, name: str = "", seen: tuple[int, ...] = ()) -> Iterator[tuple[str, Array]]:
    """(name, array) for every array that a function holds in closures, containers and defaults, in a fixed order."""
    if isinstance(thing, np.ndarray):
        yield name, thing
    elif id(thing) in seen:
        return  # a function that calls itself holds itself
    elif isinstance(thing, tuple | list | dict):
        for key, item in thing.items() if isinstance(thing, dict) else enumerate(thing):
            yield from kept_arrays(item, f"{name}[{key!r}]", (*seen, id(thing)))
    elif isinstance(thing, functools.partial):
        yield from kept_arrays((thing.func, thing.args, thing.keywords), name, (*seen, id(thing)))
    elif isinstance(thing, types.FunctionType):
        defaults = (thing.__defaults__, thing.__kwdefaults__)
        yield from kept_arrays(defaults, f"{name} defaults".strip(), (*seen, id(thing)))
        for variable, cell in zip(thing.__code__.co_freevars, thing.__closure__ or (), strict=True):
            try:
                content = cell.cell_contents
            except ValueError:  # the variable was never set
                continue
            yield from kept_arrays(content, variable, (*seen, id(thing)))


def owned_arrays(vjp: Vjp, inputs: dict[str, Array], y: Array) -> Iterator[tuple[str, Array, str]]:
    """(name, array, owner) for what a vjp keeps; the owner is "its input x", "its output", or "" for its own memory."""
    owners = {**{f"its input {name}": x for name, x in inputs.items()}, "its output": y}
    for name, array in kept_arrays(vjp):
        yield name, array, next((owner for owner, x in owners.items() if np.shares_memory(array, x)), "")


class HookHandle:
    """`Tensor.register_hook` returns this handle; its `remove()` removes the hook."""

    __slots__ = ("_hooks", "_key")

    def __init__(self, node: Node, hook: Hook) -> None:
        if node.hooks is None:
            node.hooks = {}
        self._hooks, self._key = node.hooks, object()
        self._hooks[self._key] = hook

    def remove(self) -> None:
        self._hooks.pop(self._key, None)
