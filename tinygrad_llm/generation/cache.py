"""The key/value cache: keys and values of earlier positions are kept, so that a new token costs one position."""

import itertools
import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array
from tinygrad_llm.runtime import MOST, side_by_side, threads_of_blas

STRETCH = 128  # positions at least that are worth a thread: each thread of BLAS packs all weights for its products

_T = TypeVar("_T")


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


# ---- several threads read one text ----------------------------------------------------------------------------------


def read_by_threads(read: Callable[[slice, KVCache], _T], length: int, cache: KVCache) -> list[_T]:
    """Read a text by several threads, each of which takes a stretch of it through all layers.

    A position attends to earlier ones, so in each layer a thread waits until the keys and values of the stretch before
    are in the cache. It waits for no later stretch, and all other work of a layer is done side by side.

    Args:     read: called with a stretch, a slice of the positions that follow those in the cache, and with the cache
              as that stretch sees it. length: the number of positions; a short text is one stretch.
    Returns:  what `read` returned, in the order of the text.
    """
    n = max(1, min(MOST, threads_of_blas(), length // STRETCH))
    if n == 1:
        return [read(slice(0, length), cache)]
    ends = [length * i // n for i in range(n + 1)]
    stretches: list[tuple[slice, _Stretch]] = []
    for start, end in itertools.pairwise(ends):
        before = stretches[-1][1] if stretches else None
        stretches.append((slice(start, end), _Stretch(cache, cache.length + start, before)))

    def one(stretch: tuple[slice, _Stretch]) -> _T:
        try:
            return read(*stretch)
        finally:  # after an error too, so that no thread waits forever
            stretch[1].release()

    return side_by_side(one, stretches)


class _Stretch(KVCache):
    """The cache as the thread of one stretch sees it."""

    turns: list[threading.Event]  # one for each layer, set when this stretch is in it

    def __init__(self, cache: KVCache, start: int, before: "_Stretch | None") -> None:
        earlier: list[threading.Event | None] = [None] * len(cache.layers) if before is None else [*before.turns]
        self.turns = [threading.Event() for _ in cache.layers]
        triples = zip(cache.layers, earlier, self.turns, strict=True)
        self.layers = [_InTurn(layer, start, turn, own) for layer, turn, own in triples]

    def release(self) -> None:
        for turn in self.turns:
            turn.set()


class _InTurn(_Layer):
    """A layer that appends to another one when it is its turn."""

    def __init__(self, layer: _Layer, start: int, before: threading.Event | None, after: threading.Event) -> None:
        super().__init__(layer.capacity)
        self.length = start
        self._layer, self._before, self._after = layer, before, after

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        if self._before is not None:
            self._before.wait()
        found = self._layer.extend(k, v)
        self._after.set()
        return found
