"""Less memory for more time: what the operations of a function saved for backward is computed anew."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from tinygrad_llm.autograd.tape import Node, enable_grad, is_grad_enabled, no_grad, walk_back
from tinygrad_llm.autograd.tensor import Tensor
from tinygrad_llm.kernels import Array


class Restartable(Protocol):
    """A random stream that can be set back to where it was."""

    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


def recompute(
    function: Callable[[Tensor], Tensor],
    input: Tensor,
    parameters: Iterable[Tensor],
    generators: Sequence[Restartable] = (),
) -> Tensor:
    """function(input), of which only the input is kept until backward, which calls the function a second time.

    The gradients are those without it, for a function that does the same both times: to the last bit, but where two
    such functions share a parameter, whose gradients are then added in another order.

    Args:     parameters: all Tensors beside the input that the function differentiates with respect to.
              generators: the random streams that it draws from, which are set back for the second time.
    Source:   Chen et al. 2016, arXiv:1604.06174; torch.utils.checkpoint.checkpoint.
    """
    # The input comes first even where it is a parameter too: the walk adds the gradients of its two uses.
    nodes = [input._node, *dict.fromkeys(x._node for x in parameters)]
    before = [rng.get_state() for rng in generators]
    with no_grad():
        out = Tensor(function(input).data)
    if not is_grad_enabled() or nodes.count(None) == len(nodes):
        return out
    data = input.data

    def vjp(g: Array) -> tuple[Array | None, ...]:
        again = Tensor(data)
        again._node = Node("leaf")
        after = [rng.get_state() for rng in generators]
        try:
            _set(generators, before)
            with enable_grad():
                root = function(again)._node
        finally:
            _set(generators, after)
        wanted = {node for node in (again._node, *nodes[1:]) if node is not None}
        # Hooks of leaves are called for the whole gradient, by the walk that called this.
        found = {} if root is None else walk_back(root, g, wanted, leaf_hooks=False)
        return tuple(None if node is None else found.get(node) for node in (again._node, *nodes[1:]))

    out._node = Node("recompute", vjp, tuple(nodes))
    return out


def _set(generators: Sequence[Restartable], states: Sequence[Any]) -> None:
    for rng, state in zip(generators, states, strict=True):
        rng.set_state(state)
