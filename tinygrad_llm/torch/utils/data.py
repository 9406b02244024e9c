"""`torch.utils.data`: data sets, and our DataLoader, which draws from the global stream as PyTorch's does."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice, pairwise
from typing import Any

import numpy as np

from tinygrad_llm import datasets
from tinygrad_llm.datasets.batches import collate
from tinygrad_llm.random import Generator as Stream
from tinygrad_llm.torch.dtypes import of_numpy
from tinygrad_llm.torch.generator import Generator
from tinygrad_llm.torch.missing import lookup
from tinygrad_llm.torch.streams import stream
from tinygrad_llm.torch.tensor import Tensor, constant

__all__ = [
    "BatchSampler", "ConcatDataset", "DataLoader", "Dataset", "IterableDataset", "RandomSampler", "Sampler",
    "SequentialSampler", "Subset", "TensorDataset", "WeightedRandomSampler", "default_collate", "random_split",
]  # fmt: skip


class Dataset:
    """Numbered examples: a subclass has `__getitem__` and `__len__`."""

    def __class_getitem__(cls, kind: Any) -> Any:
        return cls  # Dataset[int] is for type checkers

    def __getitem__(self, index: Any) -> Any:
        raise NotImplementedError("Subclasses of Dataset should implement __getitem__.")

    def __add__(self, other: "Dataset") -> "ConcatDataset":
        return ConcatDataset([self, other])


class IterableDataset(Dataset):
    """Examples one after another: a subclass has `__iter__`."""

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("Subclasses of IterableDataset should implement __iter__.")


class TensorDataset(Dataset):
    """Example i is a tuple: row i of each Tensor."""

    def __init__(self, *tensors: Tensor) -> None:
        if len({len(x) for x in tensors}) > 1:
            raise AssertionError("Size mismatch between tensors")
        self.tensors = tensors

    def __getitem__(self, index: Any) -> tuple[Tensor, ...]:
        return tuple(x[index] for x in self.tensors)

    def __len__(self) -> int:
        return len(self.tensors[0])


class Subset(Dataset):
    """The examples of a data set that `indices` number."""

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, indices

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, list):
            return self.dataset[[self.indices[i] for i in index]]
        return self.dataset[self.indices[index]]

    def __len__(self) -> int:
        return len(self.indices)


class ConcatDataset(Dataset):
    """Data sets one after another."""

    def __init__(self, datasets: Iterable[Any]) -> None:
        self.datasets = list(datasets)
        self.cumulative_sizes = np.cumsum([len(d) for d in self.datasets]).tolist()

    def __getitem__(self, index: int) -> Any:
        index = index + len(self) if index < 0 else index
        which = int(np.searchsorted(self.cumulative_sizes, index, side="right"))
        return self.datasets[which][index - (self.cumulative_sizes[which - 1] if which else 0)]

    def __len__(self) -> int:
        return int(self.cumulative_sizes[-1])


def random_split(dataset: Any, lengths: Sequence[Any], generator: Generator | None = None) -> list[Subset]:
    """Cut a data set, in a random order, into parts of these lengths, or of these shares that sum to 1."""
    if lengths and math.isclose(sum(lengths), 1) and sum(lengths) <= 1:
        sizes = [math.floor(len(dataset) * share) for share in lengths]
        for i in range(len(dataset) - sum(sizes)):
            sizes[i % len(sizes)] += 1
    else:
        sizes = list(lengths)
    if sum(sizes) != len(dataset):
        raise ValueError("Sum of input lengths does not equal the length of the input dataset!")
    order = stream(generator).randperm(len(dataset)).tolist()
    ends = np.cumsum([0, *sizes]).tolist()
    return [Subset(dataset, order[a:b]) for a, b in pairwise(ends)]


class Sampler:
    """An order of a data set: a subclass has `__iter__`, which yields numbers of examples."""

    def __class_getitem__(cls, kind: Any) -> Any:
        return cls

    def __init__(self, data_source: Any = None) -> None:
        self.data_source = data_source

    def __iter__(self) -> Iterator[Any]:
        raise NotImplementedError("Subclasses of Sampler should implement __iter__.")


class SequentialSampler(Sampler):
    """0, 1, …: the order of a data set."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self.data_source)))

    def __len__(self) -> int:
        return len(self.data_source)


class RandomSampler(SequentialSampler):
    """A random order of a data set."""

    def __init__(self, data_source: Any, generator: Generator | None = None) -> None:
        super().__init__(data_source)
        self.generator = generator

    def __iter__(self) -> Iterator[int]:
        # Without a generator of its own, the global stream draws the seed of one.
        own = Stream(stream().random_seed()) if self.generator is None else self.generator.ours
        yield from own.randperm(len(self.data_source)).tolist()
        own.randperm(len(self.data_source))  # PyTorch draws an order more, and uses no number of it


class WeightedRandomSampler(Sampler):
    """num_samples numbers, each drawn in proportion to its weight."""

    def __init__(
        self, weights: Sequence[float], num_samples: int, replacement: bool = True, generator: Generator | None = None
    ) -> None:
        super().__init__()
        self.weights = constant(np.asarray(weights, np.float64))
        self.num_samples, self.replacement, self.generator = num_samples, replacement, generator

    def __iter__(self) -> Iterator[int]:
        drawn = self.weights.multinomial(self.num_samples, self.replacement, generator=self.generator)
        return iter(drawn.tolist())

    def __len__(self) -> int:
        return self.num_samples


class BatchSampler(Sampler):
    """Lists of batch_size numbers, from another sampler."""

    def __init__(self, sampler: Any, batch_size: int, drop_last: bool) -> None:
        super().__init__()
        self.sampler, self.batch_size, self.drop_last = sampler, batch_size, drop_last

    def __iter__(self) -> Iterator[list[int]]:
        numbers = iter(self.sampler)
        while batch := list(islice(numbers, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield batch

    def __len__(self) -> int:
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + bool(rest and not self.drop_last)


def default_collate(batch: Sequence[Any]) -> Any:
    """Examples → one batch, as `tinygrad_llm.datasets.collate`: Tensors, with tuples as lists."""
    return _as_tensors(collate([_as_arrays(example) for example in batch]))


def _as_arrays(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x.detach().ours.data
    if isinstance(x, dict):
        return {key: _as_arrays(item) for key, item in x.items()}
    if isinstance(x, list | tuple):
        parts = [_as_arrays(item) for item in x]
        return type(x)(*parts) if hasattr(x, "_fields") else type(x)(parts)
    return x


def _as_tensors(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        of_numpy(x.dtype)
        return constant(x)
    if isinstance(x, dict):
        return {key: _as_tensors(item) for key, item in x.items()}
    if isinstance(x, list | tuple):
        parts = [_as_tensors(item) for item in x]
        return type(x)(*parts) if hasattr(x, "_fields") else parts
    return x


class _Ordered:
    """A data set for our DataLoader: it makes whole batches, of the examples in an order."""

    def __init__(self, dataset: Any, collate: Callable[[list[Any]], Any], order: Sequence[int] | None) -> None:
        self.dataset, self.collate, self.order = dataset, collate, order

    def __len__(self) -> int:
        return len(self.dataset) if self.order is None else len(self.order)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index if self.order is None else self.order[index]]

    def batch(self, indices: Sequence[int]) -> Any:
        return self.collate([self[i] for i in indices])


class DataLoader:
    """Batches of a data set: see `tinygrad_llm.datasets.DataLoader`.

    Batches are made here and now, whatever num_workers says; `pin_memory` and the like change nothing. The draws from
    the global stream are PyTorch's.
    """

    def __class_getitem__(cls, kind: Any) -> Any:
        return cls

    def __init__(
        self,
        dataset: Any,
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Iterable[int] | None = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Any = None,
        multiprocessing_context: Any = None,
        generator: Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
    ) -> None:
        if sampler is not None and shuffle:
            raise ValueError("sampler option is mutually exclusive with shuffle")
        if batch_size is not None and batch_size < 1:
            raise ValueError(f"batch_size should be a positive integer value, but got batch_size={batch_size}")
        self.dataset, self.batch_size, self.drop_last = dataset, batch_size, drop_last
        collate = _as_one if batch_size is None and batch_sampler is None else default_collate
        self.collate_fn = collate if collate_fn is None else collate_fn
        self.num_workers, self.generator, self.batch_sampler = num_workers, generator, batch_sampler
        if sampler is None:
            sampler = RandomSampler(dataset, generator) if shuffle else SequentialSampler(dataset)
        self.sampler = sampler

    def _loader(self, order: Sequence[int] | None, shuffle: bool) -> datasets.DataLoader:
        examples = _Ordered(self.dataset, self.collate_fn, order)
        return datasets.DataLoader(examples, self.batch_size or 1, shuffle, self.drop_last, rng=stream(self.generator))

    def __len__(self) -> int:
        if self.batch_sampler is not None:
            return len(self.batch_sampler)
        return len(self._loader(range(len(self.sampler)), False))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[Any]:
        if self.batch_size is None or self.batch_sampler is not None or isinstance(self.dataset, IterableDataset):
            stream(self.generator).random_seed()  # the base seed
            return self._one_after_another()
        if type(self.sampler) is SequentialSampler:
            return iter(self._loader(None, False))
        if type(self.sampler) is RandomSampler and self.sampler.generator is self.generator is None:
            return iter(self._loader(None, True))
        return self._by_sampler(iter(self._loader(None, False)))

    def _by_sampler(self, drawn: Iterator[Any]) -> Iterator[Any]:
        """Batches in the order of a sampler; the base seed has been drawn."""
        del drawn
        for batch in BatchSampler(self.sampler, self.batch_size or 1, self.drop_last):
            yield self.collate_fn([self.dataset[i] for i in batch])

    def _one_after_another(self) -> Iterator[Any]:
        """Batches that a sampler lists; or examples in their order, in batches or one by one."""
        if self.batch_sampler is not None:
            yield from (self.collate_fn([self.dataset[i] for i in batch]) for batch in self.batch_sampler)
            return
        by_number = not isinstance(self.dataset, IterableDataset)
        examples = (self.dataset[i] for i in self.sampler) if by_number else iter(self.dataset)
        if self.batch_size is None:
            yield from map(self.collate_fn, examples)
            return
        while batch := list(islice(examples, self.batch_size)):
            if len(batch) == self.batch_size or not self.drop_last:
                yield self.collate_fn(batch)


def _as_one(example: Any) -> Any:
    """One example without a batch: arrays become Tensors."""
    return _as_tensors(_as_arrays(example))


__getattr__ = lookup("torch.utils.data", lambda: __all__)
