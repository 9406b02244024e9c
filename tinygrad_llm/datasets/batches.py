"""Windows → batches: `DataLoader` makes one pass, as PyTorch's does; `BatchStream` never ends, and can be resumed."""

import operator
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.datasets.checks import DataError, at_least_one, check_batch
from tinygrad_llm.datasets.permutation import Permutation
from tinygrad_llm.datasets.windows import SlidingWindows
from tinygrad_llm.random import Generator, check_generator

Order = Literal["epochs", "random"]

_LISTED = 1 << 20  # windows whose order is kept as a list; the order of more is computed number by number


class Dataset(Protocol):
    """The data of a `DataLoader`: numbered examples, each of a form that `collate` takes.

    A data set with a method `batch(indices)` stacks (or pads) whole batches itself.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class DataLoader:
    """Batches of a data set, in order or shuffled, with the random draws of torch's DataLoader.

    Each `iter()` draws one 64-bit number (torch's base seed, which is not used here). A shuffled pass draws a second
    one at its first batch; this number seeds a private generator, which permutes the examples. So a pass costs `rng`
    the same, whether it is long or short, finished or not. Without `rng`, nothing is drawn.

    A batch has the form of its examples, with their numbers and arrays stacked along a new first axis: see `collate`. A
    data set with a method `batch(indices)` makes its own batches.

    Args:     drop_last: leave out a last batch that is smaller than batch_size.
    Raises:   ValueError: shuffle without rng; batch_size below 1. TypeError: rng is no Generator. DataError: examples
              that cannot be stacked, when their batch is asked for.
    Source:   torch.utils.data.DataLoader and RandomSampler, with num_workers=0 and without generators of their own.
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
        self.batch_size = at_least_one("batch_size", batch_size)
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.rng = None if rng is None else check_generator(rng)

    def __len__(self) -> int:
        full, rest = divmod(len(self.dataset), self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        # Not a generator function: its first line would only run when the first batch is asked for.
        if self.rng is not None:
            self.rng.random_seed()
        return self._batches()

    def _batches(self) -> Iterator[Any]:
        order: Sequence[int] = range(len(self.dataset))
        if self.shuffle and self.rng is not None:
            order = Generator(self.rng.random_seed()).randperm(len(order)).tolist()
        for i in range(len(self)):
            yield self._batch(order[i * self.batch_size : (i + 1) * self.batch_size])

    def _batch(self, indices: Sequence[int]) -> Any:
        own = getattr(self.dataset, "batch", None)
        return collate([self.dataset[i] for i in indices]) if own is None else own(indices)


def collate(examples: Sequence[Any], part: str = "") -> Any:
    """Examples → one batch: numbers and arrays are stacked along a new first axis.

    Dicts, tuples and lists are collated part by part, and keep their form. Strings stay a list.

    Args:     part: the name in errors of the part that is collated, inside each example.
    Raises:   DataError: examples of different forms or shapes, or of another kind; the part is named.
    Source:   torch.utils.data.default_collate.
    """
    first, where = examples[0], f" at {part}" if part else ""
    if isinstance(first, str | bytes):
        return list(examples)
    if isinstance(first, Mapping):
        if not all(isinstance(e, Mapping) and e.keys() == first.keys() for e in examples):
            raise DataError(f"the examples of a batch{where} have other keys than {list(first)}")
        return {key: collate([e[key] for e in examples], f"{part}[{key!r}]") for key in first}
    if isinstance(first, tuple | list):
        if not all(isinstance(e, tuple | list) and len(e) == len(first) for e in examples):
            raise DataError(f"the examples of a batch{where} do not all have {len(first)} parts: pad them")
        parts = [collate(column, f"{part}[{i}]") for i, column in enumerate(zip(*examples, strict=True))]
        return type(first)(*parts) if hasattr(first, "_fields") else type(first)(parts)
    arrays = [np.asarray(e) for e in examples]
    if kinds := [array.dtype for array in arrays if array.dtype.kind not in "fciub"]:
        raise DataError(f"a batch needs numbers, arrays, strings, dicts, tuples or lists, got {kinds[0]}{where}")
    if len(shapes := sorted({array.shape for array in arrays})) > 1:
        raise DataError(
            f"the examples of a batch{where} have shapes {shapes[0]} and {shapes[1]}: pad them, or give the data set "
            "a method batch(indices)"
        )
    return np.stack(arrays)


class BatchStream:
    """Batches without end, out of one or several rows of ids; the stream can be saved and resumed at any batch.

    order="epochs": every window once in a shuffled order, then every window again in another order. One source gives
    the batches of `DataLoader(SlidingWindows(ids, block_size, stride), batch_size, shuffle=True, drop_last=True,
    rng=rng)`, draw for draw. Several sources are shuffled together; then an epoch may end inside a batch, so that no
    window is left out.
    order="random": windows that begin at any id of any source, all with equal probability; stride has no effect.

    With weights, each row of a batch comes from source i with probability weights[i] / Σ weights. In order "epochs"
    each source then has its own epochs.

    The ids may be a mapped file: only the windows of a batch are copied.

    Args:     sources: rows of ids, (n,) integers each. batch_size: rows. rng: shuffles and draws. stride: as
              `SlidingWindows`. names: of the sources, for errors.
    Raises:   DataError: a source is shorter than a block with its target; weights that are not one number > 0 per
              source; without weights, in order "epochs", a batch of more windows than there are.
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
        if not len(sources):
            raise DataError("there are no ids to draw batches from")
        if order not in get_args(Order):
            raise DataError(f"order must be {' or '.join(get_args(Order))}, got {order!r}")
        self.rng = check_generator(rng)
        self.order = order
        self._windows = []
        for i, ids in enumerate(sources):
            try:
                self._windows.append(SlidingWindows(ids, block_size, 1 if order == "random" else stride))
            except DataError as error:
                raise DataError(f"{names[i]}: {error}" if names else str(error)) from None
        lengths = [len(windows) for windows in self._windows]
        self._ends = np.cumsum(lengths)  # where the windows of each source end, if all windows are numbered in one row
        mixed = mixture(weights, lengths) if len(weights) else None
        self._weights = mixed if len(sources) > 1 else None
        self.batch_size = at_least_one("batch_size", batch_size)
        if self._weights is None and order == "epochs":
            check_batch(self.batch_size, sum(lengths), "windows: use a smaller batch_size or stride, or more data")
        self._epochs = [Epoch(n, rng) for n in ([sum(lengths)] if self._weights is None else lengths)]

    def __iter__(self) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        return self

    def __next__(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return the inputs and targets of the next batch, (batch_size, block_size) each."""
        if len(self._windows) == 1:
            return self._windows[0].batch(self._draw(0, self.batch_size))
        inputs, targets = zip(*(self._windows[source][window] for source, window in self._rows()), strict=True)
        return np.stack(inputs), np.stack(targets)

    def _rows(self) -> Iterator[tuple[int, int]]:
        """Yield the source, and the window in it, of each row of a batch."""
        if self._weights is not None:
            for source in self.rng.multinomial(self._weights, self.batch_size, replacement=True).tolist():
                yield source, self._draw(source, 1)[0]
            return
        for _ in range(self.batch_size):
            window = self._draw(0, 1)[0]  # among the windows of all sources
            source = int(np.searchsorted(self._ends, window, side="right"))
            yield source, window - int(self._ends[source]) + len(self._windows[source])

    def _draw(self, epoch: int, count: int) -> Sequence[int]:
        """Return the numbers of the next windows of an epoch, or of random windows."""
        if self.order == "random":
            starts: list[int] = self.rng.randint(0, self._epochs[epoch].n, (count,)).tolist()
            return starts
        return self._epochs[epoch].take(count)

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches that show every window about once."""
        return max(1, int(self._ends[-1]) // self.batch_size)

    def get_state(self) -> dict[str, list[int]]:
        """Return the position in the data, but not the state of `rng`, which may serve other users too."""
        return {
            "seeds": [-1 if epoch.seed is None else epoch.seed for epoch in self._epochs],
            "positions": [epoch.position for epoch in self._epochs],
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Resume from a `get_state()` of the same data.

        Raises:   ValueError: the state is not valid, or belongs to other data; the stream is then unchanged.
        """
        try:
            seeds, positions = ([operator.index(x) for x in state[name]] for name in ("seeds", "positions"))
            places = list(zip(self._epochs, seeds, positions, strict=True))
        except (KeyError, TypeError, ValueError):
            raise ValueError(f"got no position in {len(self._epochs)} sources: {state!r:.200}") from None
        for epoch, seed, position in places:
            if not (0 <= position <= epoch.n and (seed >= 0 or position == 0)):
                raise ValueError(f"got no position among {epoch.n} windows: window {position} (seed {seed})")
        for epoch, seed, position in places:
            epoch.start(None if seed < 0 else seed, position)


class Epoch:
    """The numbers 0 … n − 1 in a shuffled order, then in another order."""

    def __init__(self, n: int, rng: Generator) -> None:
        self.n = n
        self.rng = rng
        self.start(None, 0)

    def start(self, seed: int | None, position: int) -> None:
        """Go to a position of the order that this seed makes; seed None: before the first order."""
        self.seed, self.position = seed, position
        self._order: NDArray[Any] | Permutation | None = None
        if seed is not None:
            self._order = Generator(seed).randperm(self.n) if self.n <= _LISTED else Permutation(self.n, seed)

    def take(self, count: int) -> Sequence[int]:
        """Return the next numbers; if fewer than `count` are left in this order, begin the next order."""
        while self._order is None or self.position + count > self.n:
            self.rng.random_seed()  # as `DataLoader` does
            self.start(self.rng.random_seed(), 0)
        places = np.arange(self.position, self.position + count)
        self.position += count
        taken: list[int] = self._order[places].tolist()
        return taken


def mixture(weights: Sequence[float], lengths: Sequence[int]) -> NDArray[np.float64]:
    """Return the probability of each source: its share of the weights, or without weights, of the total length.

    Raises:   DataError: not one finite number > 0 per source.
    """
    parts = np.array(weights if len(weights) else lengths, np.float64)
    if parts.shape != (len(lengths),) or not (np.isfinite(parts) & (parts > 0)).all():
        raise DataError(f"{len(lengths)} sources need as many weights, each a number above 0; got {list(weights)}")
    probabilities: NDArray[np.float64] = parts / parts.sum()
    return probabilities
