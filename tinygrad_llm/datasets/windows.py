"""A long row of token ids → windows of inputs and targets → shuffled batches."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tinygrad_llm.random import Generator

Corpus = TypeVar("Corpus", str, Sequence[int], NDArray[Any])


class DataError(ValueError):
    """Data that cannot be used as asked for; the message says what is there and what is needed."""


class Dataset(Protocol):
    """What a `DataLoader` reads: examples by number, each a tuple of arrays or numbers.

    A dataset that also has `batch(indices)` stacks (or pads) a whole batch itself.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> tuple[Any, ...]: ...


class SlidingWindows:
    """Every window of `block_size` ids, beginning `stride` apart, with the window one further on as targets.

    Window i begins at i · stride, for all beginnings in range(0, n − block_size, stride). The ids stay one
    array: an example is two read-only views of it.

    Args:     ids: (n,) integers. stride: None means block_size, so that no id is an input twice.
    Raises:   DataError: fewer than block_size + 1 ids, or not a flat row of integers.
    """

    def __init__(self, ids: Sequence[int] | NDArray[Any], block_size: int, stride: int | None = None) -> None:
        self.block_size = _at_least_one("block_size", block_size)
        self.stride = _at_least_one("stride", self.block_size if stride is None else stride)
        array = np.asarray(ids)
        if array.ndim != 1:
            raise DataError(f"ids must be one flat row of integers, got an array of shape {array.shape}")
        if len(array) <= self.block_size:
            raise DataError(
                f"the corpus has {len(array)} tokens; one window of block_size {self.block_size} and its "
                f"target need {self.block_size + 1}: use a longer text or a smaller block_size"
            )
        if not np.issubdtype(array.dtype, np.integer):
            raise DataError(f"ids must be integers, got {array.dtype}")
        self._windows = sliding_window_view(array, self.block_size)
        self._starts = range(0, len(array) - self.block_size, self.stride)

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], NDArray[Any]]:
        start = self._starts[index]
        return self._windows[start], self._windows[start + 1]

    def batch(self, indices: Sequence[int]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Inputs and targets of several windows, (len(indices), block_size) each, as arrays of their own."""
        starts = np.array([self._starts[i] for i in indices], np.int64)
        return self._windows[starts], self._windows[starts + 1]


class DataLoader:
    """Batches of a dataset, in order or shuffled, with the random draws of torch's DataLoader.

    Each `iter()` draws one 64-bit number at once (torch's base seed, unused here). A shuffled pass draws a
    second one when its first batch is asked for; it seeds a private generator, which permutes the examples.
    So a pass costs `rng` the same however long it is, even if it is not finished. Without `rng`, nothing is
    drawn.

    Each batch is a tuple of arrays: the examples' parts, stacked along a new first axis; or whatever the
    dataset's own `batch(indices)` makes.

    Args:     drop_last: leave out a last batch that is smaller than batch_size.
    Raises:   ValueError: shuffle without rng; batch_size below 1.
    Source:   torch.utils.data.DataLoader and RandomSampler with num_workers=0 and no generator of their own.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int = 1,
        shuffle: bool = False,
        drop_last: bool = False,
        rng: Generator | None = None,
    ) -> None:
        if shuffle and rng is None:
            raise ValueError("shuffle=True needs a source of randomness: pass rng=Generator(seed)")
        self.dataset = dataset
        self.batch_size = _at_least_one("batch_size", batch_size)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rng = rng

    def __len__(self) -> int:
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        # Not a generator function: its first line would wait until the first batch is asked for.
        if self.rng is not None:
            self.rng.random_seed()
        return self._batches()

    def _batches(self) -> Iterator[tuple[Any, ...]]:
        order: Sequence[int] = range(len(self.dataset))
        if self.shuffle and self.rng is not None:
            order = Generator(self.rng.random_seed()).randperm(len(order)).tolist()
        for i in range(len(self)):
            yield self._batch(order[i * self.batch_size : (i + 1) * self.batch_size])

    def _batch(self, indices: Sequence[int]) -> tuple[Any, ...]:
        own = getattr(self.dataset, "batch", None)
        if own is not None:
            return tuple(own(indices))
        examples = [self.dataset[i] for i in indices]
        return tuple(np.stack(part) for part in zip(*examples, strict=True))


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


def _at_least_one(name: str, value: int) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = 0
    if number < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}")
    return number
