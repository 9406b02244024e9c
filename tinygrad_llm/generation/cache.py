"""The key/value cache: what earlier positions say to later ones, kept so that a new token costs one position."""

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array


class KVCache:
    """The keys and values of every layer for the positions already read, so that a new token costs one position.

    What a position says to later ones, its key and value in each layer, depends on the text up to it alone. Once made
    it stays what it is, and is kept; only the new token's query has to look at it.

    All rows of a batch have read equally far. Texts of unequal lengths take a cache each.

    Args:     n_layer: how many attention layers. capacity: most positions it can hold.
    """

    def __init__(self, n_layer: int, capacity: int) -> None:
        self.layers = [_Layer(capacity) for _ in range(n_layer)]

    @property
    def length(self) -> int:
        """How many positions have been read."""
        return self.layers[0].length

    def clear(self) -> None:
        """Forget what was read; the memory is kept for what comes."""
        for layer in self.layers:
            layer.length = 0


class _Layer:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._keys: Array | None = None
        self._values: Array | None = None

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, D) keys and values; return all so far, as views of what is kept."""
        B, H, T, D = k.shape
        if self._keys is not None and len(self._keys) != B:
            raise ValueError(f"the cache holds {len(self._keys)} texts, not {B}: make a new one")
        if self._keys is None or self._values is None:
            # All the room at once, so that nothing is ever moved; the system hands out a page when it is written to.
            self._keys = np.empty((B, H, self.capacity, D), dtype=k.dtype)
            self._values = np.empty_like(self._keys)
        end = self.length + T
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} positions, and {end} are needed")
        self._keys[:, :, self.length : end] = k.data
        self._values[:, :, self.length : end] = v.data
        self.length = end
        return Tensor(self._keys[:, :, :end]), Tensor(self._values[:, :, :end])
