"""A long row of token ids → windows of inputs and targets → shuffled batches."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tinygrad_llm.random import Generator

Corpus = TypeVar("Corpus", str, Sequence[int], NDArray[Any])
Order = Literal["epochs", "random"]

_STRETCH = 1 << 22  # ids looked at in one go: what a mapped file is checked in
_LISTED = 1 << 20  # windows whose order is kept as a list; that of more is computed, entry by entry


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
    Raises:   DataError: fewer than block_size + 1 ids; a stride that leaves one window where there are several; not a
              flat row of integers.
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
        if 2 * self.block_size < len(array) <= self.block_size + self.stride:
            raise DataError(
                f"the corpus has {len(array)} tokens, of which a stride of {self.stride} would leave one window of "
                f"{self.block_size}: use a smaller stride"
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


class BatchStream:
    """Batches without end out of one or several rows of ids, which can stop and go on at any batch.

    Order "epochs": every window once, shuffled, then all again in another order. One source is read as by
    `DataLoader(SlidingWindows(ids, block_size, stride), batch_size, shuffle=True, drop_last=True, rng=rng)`, draw for
    draw. Several are shuffled together, and an epoch may end inside a batch, so that none of its windows is left out.
    "random": windows that begin anywhere, so that `stride` does not count; all alike, whichever source they are in.

    With weights each row of a batch is drawn from source i with probability weights[i] / Σ weights; in the order
    "epochs" each source has epochs of its own.

    The ids may lie in a mapped file: only what a batch holds is copied.

    Args:     sources: rows of ids, (n,) integers each. batch_size: rows; without weights, in the order "epochs", at
              most as many as there are windows. rng: shuffles and draws. stride: as `SlidingWindows`. names: what
              errors call the sources.
    Raises:   DataError: a source is shorter than a block with its target; weights that are not one number > 0 each.
    """

    def __init__(
        self,
        sources: Sequence[NDArray[Any]],
        block_size: int,
        batch_size: int,
        rng: Generator,
        stride: int | None = None,
        order: Order = "epochs",
        weights: Sequence[float] = (),
        names: Sequence[str] = (),
    ) -> None:
        if not sources:
            raise DataError("there are no ids to draw batches from")
        self.rng = rng
        self.order = order
        self._windows = []
        for i, ids in enumerate(sources):
            try:
                self._windows.append(SlidingWindows(ids, block_size, 1 if order == "random" else stride))
            except DataError as error:
                raise DataError(f"{names[i]}: {error}" if names else str(error)) from None
        lengths = [len(windows) for windows in self._windows]
        self._ends = np.cumsum(lengths)  # of each source, among all windows
        self._weights = mixture(weights, lengths) if len(weights) else None
        self.batch_size = _at_least_one("batch_size", batch_size)
        if self._weights is None and order == "epochs":
            self.batch_size = min(self.batch_size, sum(lengths))
        self._epochs = [Epoch(n, rng) for n in ([sum(lengths)] if self._weights is None else lengths)]

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        return self

    def __next__(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Inputs and targets, (batch_size, block_size) each."""
        if len(self._windows) == 1:
            return self._windows[0].batch(self._draw(0, self.batch_size))
        inputs, targets = zip(*(self._windows[i][window] for i, window in self._places()), strict=True)
        return np.stack(inputs), np.stack(targets)

    def _places(self) -> Iterator[tuple[int, int]]:
        """Source, and window in it, of each row of a batch."""
        if self._weights is not None:
            for i in self.rng.multinomial(self._weights, self.batch_size, replacement=True).tolist():
                yield i, self._draw(i, 1)[0]
            return
        for _ in range(self.batch_size):
            window = self._draw(0, 1)[0]  # among those of all sources
            i = int(np.searchsorted(self._ends, window, side="right"))
            yield i, window - int(self._ends[i]) + len(self._windows[i])

    def _draw(self, epoch: int, count: int) -> Sequence[int]:
        if self.order == "random":
            starts: list[int] = self.rng.randint(0, self._epochs[epoch].n, (count,)).tolist()
            return starts
        return self._epochs[epoch].take(count)

    @property
    def batches_per_epoch(self) -> int:
        """How many batches show every window about once."""
        return max(1, int(self._ends[-1]) // self.batch_size)

    def get_state(self) -> dict[str, list[int]]:
        """The place in the data, but for the state of `rng`, which may serve others too."""
        return {
            "seeds": [-1 if epoch.seed is None else epoch.seed for epoch in self._epochs],
            "positions": [epoch.position for epoch in self._epochs],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `get_state()` of the same data.

        Raises:   ValueError: it is one of other data, or none at all; nothing has changed then.
        """
        try:
            seeds, positions = ([operator.index(x) for x in state[name]] for name in ("seeds", "positions"))
            places = list(zip(self._epochs, seeds, positions, strict=True))
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"no place in {len(self._epochs)} sources: {state!r:.200}") from None
        for epoch, seed, position in places:
            if not (0 <= position <= epoch.n and (seed >= 0 or position == 0)):
                raise ValueError(f"window {position} (seed {seed}) is no place among {epoch.n} windows")
        for epoch, seed, position in places:
            epoch.start(None if seed < 0 else seed, position)


class Epoch:
    """The numbers 0 … n − 1 in a shuffled order, then in another."""

    def __init__(self, n: int, rng: Generator) -> None:
        self.n = n
        self.rng = rng
        self.start(None, 0)

    def start(self, seed: int | None, position: int) -> None:
        """Stand at a position of the order that belongs to a seed; None: before the first."""
        self.seed, self.position = seed, position
        self._order: NDArray[Any] | Permutation | None = None
        if seed is not None:
            self._order = Generator(seed).randperm(self.n) if self.n <= _LISTED else Permutation(self.n, seed)

    def take(self, count: int) -> Sequence[int]:
        """The next numbers; those at the end that are fewer than count are left out."""
        while self._order is None or self.position + count > self.n:
            self.rng.random_seed()  # as `DataLoader` does
            self.start(self.rng.random_seed(), 0)
        places = np.arange(self.position, self.position + count)
        self.position += count
        taken: list[int] = self._order[places].tolist()
        return taken


class Permutation:
    """A shuffled order of 0 … n − 1 that is computed where it is looked at, and takes no memory.

    A Feistel network shuffles the 4ᵏ ≥ n numbers of 2k bits: each round exchanges the halves (l, r) → (r, l ^ f(r)),
    which can be undone whatever f is, so no two numbers become one. What falls outside 0 … n − 1 goes through again
    until it is inside (cycle walking): fewer than four times on average.

    Source:   Luby and Rackoff 1988; Black and Rogaway 2002 (cycle walking); the mixing is SplitMix64's (Steele, Lea
              and Flood 2014).
    """

    ROUNDS = 6

    def __init__(self, n: int, seed: int) -> None:
        self.n = _at_least_one("n", n)
        self._half = np.uint64(max(1, (self.n - 1).bit_length() + 1 >> 1))
        self._mask = np.uint64((1 << int(self._half)) - 1)
        rng = Generator(seed)
        self._keys = [np.uint64(rng.random_seed()) for _ in range(self.ROUNDS)]

    def __getitem__(self, places: NDArray[Any]) -> NDArray[np.int64]:
        """The numbers at these places, (k,) integers of 0 … n − 1."""
        x = self._shuffle(places.astype(np.uint64))
        while (outside := x >= self.n).any():
            x[outside] = self._shuffle(x[outside])
        return x.astype(np.int64)

    def _shuffle(self, x: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = x >> self._half, x & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mix(right + key) & self._mask)
        return left << self._half | right


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """64 bits, of which each depends on all that came in; sums and products wrap round."""
    x = (x ^ x >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ x >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
    return x ^ x >> np.uint64(31)


def mixture(weights: Sequence[float], lengths: Sequence[int]) -> NDArray[np.float64]:
    """The probability of each source: its share of the weights, or of the length of all where there are none.

    Raises:   DataError: not one finite number > 0 for each source.
    """
    parts = np.array(weights if len(weights) else lengths, np.float64)
    if parts.shape != (len(lengths),) or not (np.isfinite(parts) & (parts > 0)).all():
        raise DataError(f"{len(lengths)} sources need as many weights, each a number above 0; got {list(weights)}")
    probabilities: NDArray[np.float64] = parts / parts.sum()
    return probabilities


def check_ids(ids: NDArray[Any], n_vocab: int, name: str) -> None:
    """Look through a row of ids, a stretch at a time, for one that is none of the vocabulary's.

    Raises:   DataError: an id is negative, or n_vocab or more; the first one and its place are named.
    """
    for start in range(0, len(ids), _STRETCH):
        stretch = ids[start : start + _STRETCH]
        if stretch.min() < 0 or stretch.max() >= n_vocab:
            wrong = int(np.argmax((stretch < 0) | (stretch >= n_vocab)))
            raise DataError(
                f"{name}: token {start + wrong} is id {stretch[wrong]}, and the vocabulary has ids 0 to {n_vocab - 1}: "
                f"were these {ids.dtype} ids made by another tokenizer, or written as another dtype?"
            )


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
