"""The tape: which operation made which value, and the walk back along it.

Nodes are numbered as they are made, and an operation is always made after its inputs. So a walk from the highest
number down visits each node after everything that used it, when its gradient is complete. That is the whole algorithm.
"""

import heapq
from collections.abc import Collection, Iterator
from contextvars import ContextVar

import numpy as np

from tinygrad_llm.autograd.node import Node
from tinygrad_llm.autograd.observer import Observer, both, current_observer
from tinygrad_llm.autograd.scope import scope
from tinygrad_llm.kernels import Array
from tinygrad_llm.kernels.contract import Rows

_recording: ContextVar[bool] = ContextVar("recording", default=True)
is_grad_enabled = _recording.get  # the C function itself, because every operation asks


@scope
def no_grad() -> Iterator[None]:
    """Record nothing inside this block (or function, as a decorator), and keep no memory for a backward pass.

    The switch is a context variable: `no_grad` in one thread does not affect another.
    """
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


@scope
def enable_grad() -> Iterator[None]:
    """Record inside this block, even within `no_grad`."""
    token = _recording.set(True)
    try:
        yield
    finally:
        _recording.reset(token)


def walk_back(
    root: Node,
    seed: Array,
    wanted: Collection[Node] | None = None,
    leaf_hooks: bool = True,
    retain_graph: bool = False,
) -> dict[Node, Array]:
    """The gradient of ⟨seed, value of root⟩ with respect to the wanted nodes.

    Args:     wanted: None stands for all leaves that root depends on.
              leaf_hooks: whether the hooks of leaves are called. retain_graph: keep what is needed for another walk.
    Returns:  an array with memory of its own for each wanted node that root depends on.
    """
    observer = current_observer()
    if observer is not None:
        observer.on_backward(root, seed)
    pending = {root: (seed, False)}  # the gradient so far of each node to visit, and whether its memory is ours
    queue = [(-root.number, root)]
    found: dict[Node, Array] = {}
    while queue:
        # Take the node that was made last. All its uses have been visited, so its gradient is complete.
        _, node = heapq.heappop(queue)
        g, owned = pending.pop(node)
        leaf = node.is_leaf
        active = observer if node.origin is None else both(observer, node.origin.observer)
        # A hook may replace the gradient, and it may have kept the array that it was shown.
        if node.hooks and (leaf_hooks or not leaf):
            g, owned = run_hooks(node, g, active), False
        if active is not None:
            active.on_gradient(node, g)
        # Keep the gradient if it is wanted, with memory of its own.
        if leaf if wanted is None else node in wanted:
            found[node] = g if owned else g.copy()
        # Go back through an operation: its vjp returns one gradient per input, which is added to what arrived before.
        if not leaf:
            for parent, d in call_vjp(node, g, active, retain_graph):
                if parent in pending:
                    pending[parent] = add_up(parent, *pending[parent], d, active), True
                else:
                    heapq.heappush(queue, (-parent.number, parent))
                    pending[parent] = borrow(d, g, retain_graph)
    return found


def run_hooks(node: Node, g: Array, observer: Observer | None) -> Array:
    """Show the complete gradient to each hook in turn; an array that a hook returns takes its place."""
    for hook in list((node.hooks or {}).values()):  # a copy, because a hook may remove itself
        shown = g.view()
        shown.flags.writeable = False
        returned = hook(shown)
        new = g if returned is None else np.asarray(returned)
        if new.shape != g.shape:
            raise ValueError(f"a hook on {node.name} returned shape {new.shape}, but the gradient has {g.shape}")
        if new.dtype != g.dtype:
            raise ValueError(f"a hook on {node.name} returned {new.dtype}, but the gradient is {g.dtype}: use astype")
        if observer is not None:
            observer.on_hook(node, g, new)
        g = new
    return g


def call_vjp(node: Node, g: Array, observer: Observer | None, retain: bool) -> list[tuple[Node, Array | Rows]]:
    """Pairs of (parent, its gradient). The node forgets its vjp unless `retain`, so that what this holds is freed."""
    vjp, parents = node.release(retain)
    if observer is None:
        node.refuse_changed(vjp)
        grads = vjp(g)
    else:
        with observer.around_vjp(node, vjp):
            node.refuse_changed(vjp)
            grads = vjp(g)
        observer.on_vjp(node, parents, g, grads)
    if not (type(grads) is tuple or isinstance(grads, list)) or len(grads) != len(parents):
        got = f"{len(grads)} gradients" if isinstance(grads, tuple | list) else f"{type(grads).__name__}, not a tuple,"
        raise RuntimeError(f"the vjp of {node.name} returned {got} for {len(parents)} inputs")
    pairs = zip(parents, grads, strict=True)
    return [(parent, parent.fitted(d, node)) for parent, d in pairs if parent is not None and d is not None]


def borrow(d: Array | Rows, g: Array, retain: bool) -> tuple[Array, bool]:
    """The first gradient of a node, which a vjp made from g, and whether its memory is ours, so that we may add to it.

    It is ours if the vjp made it, and does not keep it to return it again, as it may with `retain`.
    """
    if not isinstance(d, np.ndarray):
        d = np.asarray(d)
    # Made by the vjp: d is neither g nor a view of it. Most arrays are not views.
    made = (d.base is None and d is not g and d is not g.base) or not np.may_share_memory(d, g)
    return d, made and d.flags.writeable and not retain


def add_up(node: Node, total: Array, ours: bool, d: Array | Rows, observer: Observer | None) -> Array:
    """Add d to the gradient of a node: the second in new memory, since the first was borrowed, later ones in place."""
    if observer is None:
        return add(total, ours, d)
    before = total.copy()
    with observer.around_sum(node):
        total = add(total, ours, d)
    observer.on_sum(node, before, np.asarray(d), total)
    return total


def add(total: Array, ours: bool, d: Array | Rows) -> Array:
    """total + d, in place if the memory of total is ours and its dtype can hold the sum."""
    fits = d.dtype is total.dtype or np.can_cast(d.dtype, total.dtype, "same_kind")
    if not (ours and fits):
        return np.asarray(np.add(total, d))
    if isinstance(d, Rows):
        d.add_to(total)
        return total
    return np.add(total, d, out=total)
