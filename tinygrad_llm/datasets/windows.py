"""A long row of token ids → windows: an input of block_size ids, and the target, one id further on."""

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tinygrad_llm.datasets.checks import DataError, at_least_one

Corpus = TypeVar("Corpus", str, Sequence[int], NDArray[Any])


class SlidingWindows:
    """The windows of `block_size` ids that begin `stride` apart; the target of a window begins one id later.

    Window i begins at i · stride, for all beginnings in range(0, n − block_size, stride). The ids are not copied: an
    example is two read-only views of them.

    Args:     ids: (n,) integers. stride: None: block_size, so that no id is an input twice.
    Raises:   DataError: fewer than block_size + 1 ids; a stride that leaves one window where several would fit; ids
              that are not a flat row of integers.
    """

    def __init__(self, ids: Sequence[int] | NDArray[Any], block_size: int, stride: int | None = None) -> None:
        self.block_size = at_least_one("block_size", block_size)
        self.stride = at_least_one("stride", self.block_size if stride is None else stride)
        array = np.asarray(ids)
        if array.ndim != 1:
            raise DataError(f"ids must be one flat row of integers, got an array of shape {array.shape}")
        if len(array) <= self.block_size:
            raise DataError(
                f"the corpus has {len(array)} tokens; one window of block_size {self.block_size} and its "
                f"target need {self.block_size + 1}: use a longer text or a smaller block_size"
            )
        if 2 * self.block_size < len(array) <= self.block_size + self.stride:
            raise DataError(
                f"the corpus has {len(array)} tokens: a stride of {self.stride} would leave one window of "
                f"{self.block_size}; use a smaller stride"
            )
        if not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"ids must be integers, got {array.dtype}")
        self._windows = sliding_window_view(array, self.block_size)
        self._starts = range(0, len(array) - self.block_size, self.stride)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the input and the target of one window, (block_size,) each."""
        start = self._starts[index]
        return self._windows[start], self._windows[start + 1]

    def batch(self, indices: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the inputs and targets of several windows, (len(indices), block_size) each, as copies."""
        starts = np.array([self._starts[i] for i in indices], np.int64)
        return self._windows[starts], self._windows[starts + 1]


def split(corpus: Corpus, fraction: float) -> tuple[Corpus, Corpus]:
    """Cut a text or a row of ids into the first int(fraction · n) for training and the rest for validation.

    Raises:   ValueError: fraction is not between 0 and 1. DataError: one of the parts would be empty.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, got {fraction}")
    n = len(corpus)
    cut = int(fraction * n)
    if not 0 < cut < n:
        raise DataError(f"cutting {n} at fraction {fraction} leaves a part empty ({cut} and {n - cut})")
    return corpus[:cut], corpus[cut:]
