"""The tape is made of nodes: one `Node` for each recorded operation, and one for each leaf."""

import itertools
from collections.abc import Callable
from typing import Any, Self, TypeAlias

from tinygrad_llm.kernels import Array
from tinygrad_llm.kernels.contract import Vjp

Hook: TypeAlias = Callable[[Array], Array | None]

_numbers = itertools.count()


class Node:
    """One recorded operation, or a leaf: a value that no operation made (`vjp` is None, and it keeps a `grad`).

    A node is known by its identity. Its number only says which of two nodes of this process was made first.
    """

    __slots__ = ("grad", "hooks", "name", "number", "origin", "parents", "vjp")

    def __init__(self, name: str, vjp: Vjp | None = None, parents: tuple[Self | None, ...] = ()) -> None:
        self.name = name
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

    def release(self) -> tuple[Vjp, tuple[Self | None, ...]]:
        """Return `vjp` and parents and forget them, so that the walk frees what they hold."""
        if self.vjp is None:
            recorded = f" ({self.origin})" if self.origin else ""
            raise RuntimeError(
                f"backward through {self.name} a second time{recorded}: its saved values were freed by the first. "
                "Run the forward pass again, or add the outputs before going backward once"
            )
        vjp, parents = self.vjp, self.parents
        self.vjp, self.parents, self.hooks = None, (), None
        return vjp, parents


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
