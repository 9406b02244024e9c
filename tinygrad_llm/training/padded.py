"""Batches of texts of unequal lengths: padded on the right to the longest of the batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.random import Generator
from tinygrad_llm.training.examples import Examples

_INTEGERS = {np.dtype(code) for code in np.typecodes["AllInteger"]}
GROUP = 16  # batches whose texts are sorted by length together


def pad(rows: Sequence[Sequence[int] | NDArray[Any]], fill: int) -> NDArray[np.int64]:
    """The rows as one array (N, longest), filled up on the right.

    Raises:   ValueError: there are no rows; they do not hold integers.
    """
    if not len(rows):
        raise ValueError("there are no rows to pad")
    if wrong := {np.asarray(row).dtype for row in rows if len(row)} - _INTEGERS:
        raise ValueError(f"rows must hold integers, got {wrong.pop()}")
    padded = np.full((len(rows), max(map(len, rows))), fill, np.int64)
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def trimmed(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch without the columns that are padding in all of its rows.

    Args:     batch: "lengths" (B,) are the columns that each row needs; arrays (B, T) are cut, others are not.
    """
    width = int(batch["lengths"].max())
    return {name: array[:, :width] if array.ndim > 1 else array for name, array in batch.items()}


def in_batches(
    examples: dict[str, Any], batch_size: int, cut: Callable[[dict[str, Any]], dict[str, Any]] = trimmed
) -> list[dict[str, Any]]:
    """All examples once, in order, each batch only as wide as its longest text: for measuring.

    Args:     cut: as `trimmed`.
    """
    starts = range(0, len(examples["lengths"]), batch_size)
    return [cut({name: array[i : i + batch_size] for name, array in examples.items()}) for i in starts]


class PaddedExamples(Examples):
    """Endless batches of padded texts, each batch only as wide as its longest text.

    Args:     examples: a dict of arrays with one row for each example; "lengths" (N,) are the columns that each needs.
              batch_size, rng: as for `Examples`.
              grouped: put texts of similar length into one batch, so that less of it is padding: the texts of 16
              batches are sorted by length. In an epoch each example still comes once, and the batches are shuffled.
    """

    def __init__(self, examples: dict[str, Any], batch_size: int, rng: Generator, grouped: bool = False) -> None:
        super().__init__(examples, batch_size, rng)
        self.grouped = grouped
        self._group: list[list[int]] = []  # batches that were drawn and not yet returned
        self._start: dict[str, Any] = {}  # where the group begins in the epoch

    def __next__(self) -> dict[str, Any]:
        if not self.grouped:
            return super().__next__()  # type: ignore[no-any-return]
        if not self._group:
            self._draw_group()
        return self.batch(self._group.pop(0))

    def batch(self, indices: Sequence[int]) -> dict[str, Any]:
        return trimmed(super().batch(indices))

    def _draw_group(self) -> None:
        """The next 16 batches, or what is left of the epoch."""
        size, epoch = self.batch_size, self._epoch
        numbers = list(epoch.take(size))  # may begin a new epoch
        assert epoch.seed is not None
        self._start = {"seed": epoch.seed, "position": epoch.position - size}
        while epoch.position + size <= epoch.n and len(numbers) < GROUP * size:
            numbers += epoch.take(size)
        numbers.sort(key=lambda i: int(self.examples["lengths"][i]))  # stable: equal lengths stay shuffled
        batches = [numbers[i : i + size] for i in range(0, len(numbers), size)]
        order = Generator((epoch.seed + epoch.position) % 2**63).randperm(len(batches)).tolist()
        self._group = [batches[i] for i in order]

    def get_state(self) -> dict[str, Any]:
        if not self._group:
            return super().get_state()
        drawn = (self._epoch.position - self._start["position"]) // self.batch_size
        return {**self._start, "returned": drawn - len(self._group)}

    def set_state(self, state: Mapping[str, Any]) -> None:
        super().set_state(state)
        self._group = []
        returned = state.get("returned", 0)
        if returned:
            self._draw_group()
            if type(returned) is not int or not 0 < returned < len(self._group):
                raise ValueError(f"{returned!r} is not a number of batches of a group of {len(self._group)}")
            del self._group[:returned]
