"""The key/value cache: keys and values of earlier positions are kept, so that a new token costs one position."""

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array


class KVCache:
    """The keys and values of every layer for all positions read so far.

    The key and the value of a position depend only on the text up to it. So they are computed once and kept; a new
    token only needs its own query, key and value.

    All rows of a batch have the same length. Texts of different lengths need one cache each.

    Args:     n_layer: the number of attention layers. capacity: the number of positions that fit.
    """

    def __init__(self, n_layer: int, capacity: int) -> None:
        self.layers = [_Layer(capacity) for _ in range(n_layer)]

    @property
    def length(self) -> int:
        """The number of positions read so far."""
        return self.layers[0].length

    def clear(self) -> None:
        """Forget all positions; the memory is kept for the next ones."""
        for layer in self.layers:
            layer.length = 0

    def select(self, rows: Array) -> None:
        """Keep these rows of the batch, in this order: a row may be left out, or come twice."""
        for layer in self.layers:
            layer.select(rows)


class _Layer:
    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.length = 0
        self._keys: Array | None = None
        self._values: Array | None = None

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append keys and values, (B, H, T, D) each; return all keys and values so far, as views of the cache."""
        B, H, T, D = k.shape
        if self._keys is not None and len(self._keys) != B:
            raise ValueError(f"the cache holds {len(self._keys)} texts, got {B}: make a new one")
        if self._keys is None or self._values is None:
            # Reserve the whole capacity at once, so that nothing is moved later. The system provides a page of memory
            # only when it is written to.
            self._keys = np.empty((B, H, self.capacity, D), dtype=k.dtype)
            self._values = np.empty_like(self._keys)
        end = self.length + T
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} positions, and {end} are needed")
        self._keys[:, :, self.length : end] = k.data
        self._values[:, :, self.length : end] = v.data
        self.length = end
        return Tensor(self._keys[:, :, :end]), Tensor(self._values[:, :, :end])

    def select(self, rows: Array) -> None:
        """See `KVCache.select`; only positions that were read are copied."""
        if self._keys is None or self._values is None:
            return
        for name, old in (("_keys", self._keys), ("_values", self._values)):
            new = np.empty((len(rows), *old.shape[1:]), old.dtype)
            new[:, :, : self.length] = old[rows, :, : self.length]
            setattr(self, name, new)
