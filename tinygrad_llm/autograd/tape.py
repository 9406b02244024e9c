"""The tape: which operation made which value, and the walk back along it.

Each recorded operation is a `Node` holding its `vjp` and the nodes of its inputs. Nodes are numbered as they are
made, and an operation is always made after its inputs; so going through the nodes from the highest number down visits
each one after everything that used it, when its gradient is complete. That is the whole algorithm.
"""

import heapq
import itertools
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeAlias

import numpy as np

from tinygrad_llm.autograd.anomaly import (
    Origin,
    check_hooked,
    check_incoming,
    checked_sum,
    checked_vjp,
    current_layer,
)
from tinygrad_llm.kernels import Array
from tinygrad_llm.kernels.contract import Rows, Vjp

Hook: TypeAlias = Callable[[Array], Array | None]

_numbers = itertools.count()
_recording: ContextVar[bool] = ContextVar("recording", default=True)


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing inside this block (or function, as a decorator): no graph, no memory kept for a backward pass.

    The switch is a context variable: one thread's `no_grad` does not touch another's.
    """
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


@contextmanager
def enable_grad() -> Iterator[None]:
    """Record inside this block, even within `no_grad`."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


def is_grad_enabled() -> bool:
    """Whether operations are being recorded in this thread (False inside `no_grad`)."""
    return _recording.get()


class Node:
    """One recorded operation, or a leaf: a value that no operation made (`vjp` is None, and it keeps a `grad`)."""

    __slots__ = ("grad", "hooks", "name", "number", "origin", "parents", "vjp")

    def __init__(
        self,
        name: str,
        vjp: Vjp | None = None,
        parents: tuple["Node | None", ...] = (),
        origin: Origin | None = None,
    ) -> None:
        self.name = name
        self.vjp = vjp
        self.parents = parents
        self.number = next(_numbers)
        self.grad: Array | None = None
        self.hooks: dict[int, Hook] | None = None
        self.origin = origin  # where it was recorded: known in anomaly mode only

    @property
    def is_leaf(self) -> bool:
        return self.name == "leaf"

    def release(self) -> tuple[Vjp, tuple["Node | None", ...]]:
        """Hand over `vjp` and parents, and forget them, so that what they hold is freed as the walk goes on."""
        if self.vjp is None:
            recorded = f" ({self.origin})" if self.origin else ""
            raise RuntimeError(
                f"backward through {self.name} a second time{recorded}: its saved values were freed by the first. "
                "Run the forward pass again, or add the outputs before going backward once"
            )
        vjp, parents = self.vjp, self.parents
        self.vjp, self.parents, self.hooks = None, (), None
        return vjp, parents


def walk_back(
    root: Node, seed: Array, wanted: Collection[Node] | None = None, leaf_hooks: bool = True
) -> dict[Node, Array]:
    """The gradient of ⟨seed, root's value⟩ with respect to the wanted nodes (None: all leaves it depends on).

    Every array returned is memory of its own. Nodes it does not depend on are missing from the result. leaf_hooks:
    whether the hooks of leaves are called.
    """
    pending: dict[int, tuple[Node, Array, bool]] = {root.number: (root, seed, False)}  # bool: is the array ours?
    queue = [-root.number]
    found: dict[Node, Array] = {}
    watching = current_layer() is not None
    while queue:
        node, g, owned = pending.pop(-heapq.heappop(queue))
        if node.hooks is not None and (leaf_hooks or not node.is_leaf):
            shown, g, owned = g, run_hooks(node, g), False  # a hook may have kept what it was shown
            if watching:
                check_hooked(node, shown, g)
        if watching:
            check_incoming(node, g, node is root)
        if node.is_leaf if wanted is None else node in wanted:
            found[node] = g if owned and node.is_leaf else g.copy()
        if node.is_leaf:
            continue
        vjp, parents = node.release()
        # What was recorded in anomaly mode is checked wherever backward runs: its fingerprints are there.
        grads = checked_vjp(node, vjp, parents, g) if watching or node.origin is not None else vjp(g)
        if len(grads) != len(parents):
            raise RuntimeError(f"the vjp of {node.name} returned {len(grads)} gradients for {len(parents)} inputs")
        for parent, d in zip(parents, grads, strict=True):
            if parent is None or d is None:
                continue
            if isinstance(d, Rows) and not watching and parent.number in pending:
                _, total, ours = pending[parent.number]
                if ours and np.can_cast(d.dtype, total.dtype, "same_kind"):
                    d.add_to(total)
                    continue
            d = np.asarray(d)
            if parent.number not in pending:
                # Borrowed if it may be g itself or a view of it; otherwise the kernel made it for us alone.
                pending[parent.number] = parent, d, d.flags.writeable and not np.may_share_memory(d, g)
                heapq.heappush(queue, -parent.number)
                continue
            _, total, ours = pending[parent.number]
            out = total if ours and np.can_cast(d.dtype, total.dtype, "same_kind") else None
            total = checked_sum(parent, total, d, out) if watching else np.add(total, d, out=out)
            pending[parent.number] = parent, np.asarray(total), True
    return found


def run_hooks(node: Node, g: Array) -> Array:
    """Show the complete gradient to each hook in turn; what one returns takes its place."""
    for hook in list((node.hooks or {}).values()):  # a copy: a hook may remove itself
        shown = g.view()
        shown.flags.writeable = False
        returned = hook(shown)
        if returned is None:
            continue
        new = np.asarray(returned)
        if new.shape != g.shape:
            raise ValueError(f"a hook on {node.name} returned shape {new.shape}, but the gradient has {g.shape}")
        if new.dtype != g.dtype:
            raise ValueError(f"a hook on {node.name} returned {new.dtype}, but the gradient is {g.dtype}: use astype")
        g = new
    return g


class HookHandle:
    """What `Tensor.register_hook` returns: `remove()` takes the hook away again."""

    __slots__ = ("_hooks", "_number")

    def __init__(self, node: Node, hook: Hook) -> None:
        if node.hooks is None:
            node.hooks = {}
        self._hooks, self._number = node.hooks, next(_numbers)
        self._hooks[self._number] = hook

    def remove(self) -> None:
        self._hooks.pop(self._number, None)
