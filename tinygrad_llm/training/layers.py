"""Figures by layer: how large the gradient of each is, and how far an update moves it."""

import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array
from tinygrad_llm.optim import grad_norm

SAMPLE = 1 << 16  # entries of a parameter, from which its update is measured


def by_layer(named: Iterable[tuple[str, Tensor]]) -> dict[str, list[Tensor]]:
    """The parameters of each layer. A GPT has wte, wpe, h.0, h.1, …, ln_f, and lm_head if that has its own weight.

    A layer is the first part of the name, with its number where it is one of a list.
    """
    layers: dict[str, list[Tensor]] = {}
    for name, p in named:
        parts = name.removeprefix("transformer.").split(".")
        numbered = len(parts) > 1 and parts[1].isdigit()
        layers.setdefault(".".join(parts[: 1 + numbered]), []).append(p)
    return layers


class LayerFigures:
    """The gradients of some layers before an update, and by how much it changed their weights.

    `update_ratio`, ‖Δw‖ / ‖w‖ by layer, is empty until `compare` is called; it is NaN where all weights were 0.
    """

    def __init__(self, layers: Mapping[str, Sequence[Tensor]]) -> None:
        self._layers = layers
        self.grad_norm = {
            name: grad_norm(p.grad for p in parameters if p.grad is not None) for name, parameters in layers.items()
        }
        self._before = {name: sample(parameters) for name, parameters in layers.items()}
        self.update_ratio: dict[str, float] = {}

    def compare(self) -> None:
        """Compare the weights with those when this object was made."""
        for name, before in self._before.items():
            moved = norm(sample(self._layers[name]) - before)
            self.update_ratio[name] = moved / (norm(before) or math.nan)


def sample(parameters: Sequence[Tensor]) -> Array:
    """Entries of some parameters, copied into one vector whose norm is about theirs.

    From a large parameter only evenly spaced entries are taken, scaled so that their squares stand for all: a large
    model has no memory to spare for a copy of all weights.
    """
    parts = []
    for p in parameters:
        flat = p.data.ravel("K")
        stride = max(1, flat.size // SAMPLE)
        while math.gcd(stride, flat.size) > 1:  # otherwise the entries would all lie in the same few columns
            stride += 1
        part = flat[::stride]
        parts.append(part * math.sqrt(flat.size / part.size))
    return np.concatenate(parts)


def norm(vector: Array) -> float:
    """The L2 norm of a vector."""
    return math.sqrt(np.dot(vector, vector))
