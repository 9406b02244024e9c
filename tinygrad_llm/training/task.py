"""Tasks: where the batches of a training come from, their loss, and how the model is measured.

A task is a small subclass of `Task`. A classifier, for example, is

    class Classification(Task):
        def loss(self, model, batch, total):
            logits = model(batch["ids"])
            right = (logits.numpy().argmax(axis=-1) == batch["label"]).sum()
            return F.cross_entropy(logits, batch["label"], reduction="sum") / total, {"accuracy": right / total}

The trainer does the rest: several workers, accumulation, exact resume, and the figures of each step.
"""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, Self, TypeAlias, cast

import numpy as np

from tinygrad_llm.autograd import Tensor, is_grad_enabled
from tinygrad_llm.nn import Module
from tinygrad_llm.random import Generator
from tinygrad_llm.runtime import MOST, side_by_side, threads_of_blas
from tinygrad_llm.training.records import Step

Batch: TypeAlias = Any  # a nest (tuple, list or dict) of arrays, and None; the first axis of each array is the batch
Loss: TypeAlias = Tensor | tuple[Tensor, dict[str, float]]

_TAKEN = {f.name for f in fields(Step)}  # names that a measure cannot have


class Batches(Protocol):
    """An endless source of batches that can stop and resume at any of them."""

    batch_size: int
    rng: Generator  # what it draws from; saved with its state

    def __next__(self) -> Batch: ...

    def get_state(self) -> dict[str, Any]:
        """The place in the data, without the state of `rng`, as JSON can hold it."""

    def set_state(self, state: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True)
class Evaluation:
    """The held-out loss, and the task's own figures: means over all targets that count."""

    loss: float
    measures: dict[str, float] = field(default_factory=dict)


class Task:
    """The base of all tasks. A subclass writes `loss`; the other methods have defaults.

    Every array of a batch has one row for each example. Constants, such as class weights, belong on the Task.

    A subclass without `batches` overrides `batch_size`, `next_batch`, `generators`, `get_state` and `set_state`.
    It also sets `held_out` or overrides `evaluate`.

    Args:     batches: the source of training batches. held_out: fixed batches for the held-out loss.
    """

    held_out: Sequence[Batch] = ()

    def __init__(self, batches: Batches, held_out: Sequence[Batch] = ()) -> None:
        self.batches = batches
        self.held_out = held_out

    # ---- the loss --------------------------------------------------------------------------------------------------

    def loss(self, model: Any, batch: Batch, total: int) -> Loss:
        """The sum of the losses of all targets that count in `batch`, divided by `total`.

        `batch` may be one worker's part. `total` is the count of the whole batch, so the parts add up to the mean.
        The loss draws no random numbers, except in the model's dropout: draw them in `next_batch`.

        Returns:  a scalar Tensor; or the Tensor and named figures, which are also sums divided by `total`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no loss")

    def held_out_loss(self, model: Any, batch: Batch, total: int) -> Loss:
        """As `loss`, for measuring the model. The default is `loss` itself."""
        return self.loss(model, batch, total)

    def count(self, batch: Batch) -> int:
        """How many targets of a batch count in its mean loss. The default is its number of rows."""
        return rows(batch)

    # ---- the batches -----------------------------------------------------------------------------------------------

    @property
    def batch_size(self) -> int:
        """The number of rows in a batch."""
        return self.batches.batch_size

    def next_batch(self) -> Batch:
        """The next training batch."""
        return next(self.batches)

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        """The batch in parts of nearly equal size, one for each worker; a part may be empty.

        Raises:   ValueError: a part of the batch is not an array, or has another number of rows.
        """
        n = rows(batch)
        return [take(batch, slice(n * i // parts, n * (i + 1) // parts)) for i in range(parts)]

    def generators(self) -> list[Generator]:
        """The random streams that batches are drawn from. Their states are saved with every checkpoint."""
        return [self.batches.rng]

    def get_state(self) -> dict[str, Any]:
        """The place in the data, as JSON can hold it."""
        return self.batches.get_state()

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Resume from a `get_state()` of the same data.

        Raises:   ValueError: the state belongs to other data.
        """
        self.batches.set_state(state)

    def peek(self) -> Batch:
        """The next batch, which `next_batch` returns again."""
        place, streams = self.get_state(), self.generators()
        states = [rng.get_state() for rng in streams]
        try:
            return self.next_batch()
        finally:
            self.set_state(place)
            for rng, state in zip(streams, states, strict=True):
                rng.set_state(state)

    # ---- measuring -------------------------------------------------------------------------------------------------

    def evaluate(self, model: Module, batches: Sequence[Batch] | None = None) -> Evaluation:
        """The mean `held_out_loss` over all targets that count, with dropout off.

        Args:     batches: None: those held out.
        Raises:   ValueError: no batches, no target in them counts, or a count is negative.
        """
        batches = self.held_out if batches is None else batches
        counts = [self.count(batch) for batch in batches]
        total = sum(counts)
        if any(count < 0 for count in counts):
            raise ValueError(f"{type(self).__name__}.count: must be at least 0, got {min(counts)}")
        if total == 0:
            raise ValueError(f"{type(self).__name__}: the {len(counts)} held-out batches have no target that counts")
        losses: list[float] = []
        measures: dict[str, list[float]] = {}

        def measured(item: tuple[Batch, int]) -> tuple[float, dict[str, float]]:
            with np.errstate(all="ignore"):  # NaN or infinity shows in the result
                loss, figures = with_measures(self, self.held_out_loss(model, *item))
            return loss.item(), figures

        n = min(MOST, threads_of_blas())  # parts of one batch are measured at a time, so it takes no more memory
        parts = [(part, count) for batch, count in zip(batches, counts, strict=True) for part in self.split(batch, n)]
        parts = [(part, count) for part, count in parts if self.count(part)]
        with model.evaluating():
            found = side_by_side(measured, parts)
        for (_, count), (loss, figures) in zip(parts, found, strict=True):
            losses.append(loss * count)
            for name, value in figures.items():
                measures.setdefault(name, []).append(value * count)
        return Evaluation(math.fsum(losses) / total, {name: math.fsum(x) / total for name, x in measures.items()})

    # ---- other processes -------------------------------------------------------------------------------------------

    def without_data(self) -> Self:
        """A copy for a process that only computes losses: without what only the first process needs."""
        other = copy.copy(self)
        other.batches, other.held_out = cast(Batches, None), ()
        return other


def with_measures(task: Task, loss: Loss) -> tuple[Tensor, dict[str, float]]:
    """The loss that a task returned, and its named figures, if any.

    Raises:   ValueError: the loss is not a scalar Tensor, or depends on no trained parameter; a figure is not a
              number, or its name is reserved.
    """
    value, measures = loss if isinstance(loss, tuple) and len(loss) == 2 else (loss, {})
    name = type(task).__name__
    if not isinstance(value, Tensor) or value.shape != () or not isinstance(measures, dict):
        got = f"a Tensor of shape {value.shape}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        got += f" and a {type(measures).__name__}" * (not isinstance(measures, dict))
        raise ValueError(f"{name}: a loss must be a scalar Tensor, or a pair of it and a dict of figures; got {got}")
    if is_grad_enabled() and not value.requires_grad:
        raise ValueError(f"{name}: the loss must depend on a trained parameter; got a constant, {value.item()}")
    numbers: dict[str, float] = {}
    figure: Any
    for key, figure in measures.items():
        if not isinstance(key, str) or key.startswith("val_") or key in _TAKEN:
            raise ValueError(
                f"{name}: the name of a figure must be text that is not a field of Step and does not begin with val_; "
                f"got {key!r}"
            )
        number = figure.item() if getattr(figure, "shape", None) == () else figure  # NumPy's are not all JSON
        if not isinstance(number, int | float):
            raise ValueError(f"{name}: the figure {key!r} must be one number, got {figure!r}")
        numbers[key] = float(number)
    return value, numbers


def rows(batch: Batch) -> int:
    """The number of rows of a batch: the same for each of its arrays.

    Raises:   ValueError: there is no array; a part is not an array; or two arrays have unequal numbers of rows.
    """
    n = None
    for key, leaf in _leaves(batch):
        shape = getattr(leaf, "shape", ())
        if not shape or shape[0] != (shape[0] if n is None else n):
            got = f"an array of shape {shape}" if hasattr(leaf, "shape") else f"a {type(leaf).__name__}"
            raise ValueError(
                f"batch{key}: must be None or an array with {'one row for each example' if n is None else f'{n} rows'}"
                f", got {got}. Constants belong on the Task"
            )
        n = shape[0]
    if n is None:
        raise ValueError("the batch has no array")
    return int(n)


def _leaves(batch: Batch, key: str = "") -> Iterator[tuple[str, Any]]:
    """The parts of a nest that are not None, each with its keys."""
    if isinstance(batch, dict | tuple | list):
        for name, part in batch.items() if isinstance(batch, dict) else enumerate(batch):
            yield from _leaves(part, f"{key}[{name!r}]")
    elif batch is not None:
        yield key, batch


def take(batch: Batch, some: Any) -> Batch:
    """The same nest with some rows (a slice, or their numbers) of each array."""
    if isinstance(batch, dict):
        return {name: take(part, some) for name, part in batch.items()}
    if isinstance(batch, tuple | list):
        parts = [take(part, some) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return None if batch is None else batch[some]
