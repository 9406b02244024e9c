"""Less memory for more time: keep only a function's input until backward, and recompute the activations then."""

import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from tinygrad_llm.autograd.node import Node, stale
from tinygrad_llm.autograd.tape import enable_grad, no_grad, walk_back
from tinygrad_llm.autograd.tensor import Tensor, apply
from tinygrad_llm.kernels import Array
from tinygrad_llm.kernels.contract import Result


class Restartable(Protocol):
    """A random stream that can be set back to an earlier state."""

    def get_state(self) -> Any: ...
    def set_state(self, state: Any) -> None: ...


def recompute(
    function: Callable[[Tensor], Tensor],
    input: Tensor,
    parameters: Iterable[Tensor],
    generators: Sequence[Restartable] = (),
) -> Tensor:
    """Return function(input), and keep only the input until backward, which calls the function a second time.

    A function that does the same both times has the same gradients as without `recompute`, to the last bit. The one
    exception is a parameter that two such functions share: its gradients are added in another order.

    Args:     parameters: all Tensors next to the input that the function differentiates with respect to.
              generators: the random streams that the function draws from; they are set back for the second time.
    Source:   Chen et al. 2016, arXiv:1604.06174; torch.utils.checkpoint.checkpoint.
    """
    wanted = list(dict.fromkeys(parameters))

    def recompute(x: Array, *p: Array) -> Result:
        """y = f(x).   dx = backward through f, which runs again for it"""
        before = [rng.get_state() for rng in generators]
        kept = [p.data for p in wanted]
        with no_grad():
            y = function(Tensor(x)).data

        def vjp(g: Array) -> tuple[Array | None, ...]:
            # A parameter that was written to is noticed by the walk, because `kept` holds it.
            if any(p.data is not array for p, array in zip(wanted, kept, strict=True)):
                raise stale("recompute needs the parameters of the forward pass")
            # A leaf of its own takes the input's gradient: the walk below must end here, and not in the outer graph.
            again = Tensor(x)
            again._node = Node("leaf", weakref.ref(again))
            # Record the function from the same input and the same random numbers.
            after = [rng.get_state() for rng in generators]
            try:
                _set(generators, before)
                with enable_grad():
                    root = function(again)._node
            finally:
                _set(generators, after)
            # Go back through it. The outer walk calls the hooks of leaves, because it knows their whole gradient.
            nodes = [again._node, *(p._node for p in wanted)]
            found = {} if root is None else walk_back(root, g, {n for n in nodes if n is not None}, leaf_hooks=False)
            return tuple(None if node is None else found.get(node) for node in nodes)

        return y, vjp

    # The input comes first even if it is a parameter too: the walk adds the gradients of both uses.
    return apply(recompute, input, *wanted)


def _set(generators: Sequence[Restartable], states: Sequence[Any]) -> None:
    for rng, state in zip(generators, states, strict=True):
        rng.set_state(state)
