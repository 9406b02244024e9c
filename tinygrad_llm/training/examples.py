"""Batches of examples in memory, for tasks that do not read one long text."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from tinygrad_llm.datasets.batches import Epoch
from tinygrad_llm.datasets.checks import at_least_one, check_batch
from tinygrad_llm.random import Generator
from tinygrad_llm.training.task import Batch, rows, take


class Examples:
    """Endless batches of examples: each example once, shuffled, then all again in another order.

    A subclass whose examples have unequal lengths pads them in `batch`.

    Args:     examples: a nest (tuple, list or dict) of arrays; an example is one row of each. rng: shuffles them.
    Raises:   ValueError: no examples; arrays of unequal lengths; batch_size below 1 or above the number of examples.
    """

    def __init__(self, examples: Batch, batch_size: int, rng: Generator) -> None:
        self.examples = examples
        self.rng = rng
        n = rows(examples)
        if n == 0:
            raise ValueError("there are no examples: give at least one")
        self.batch_size = at_least_one("batch_size", batch_size)
        check_batch(self.batch_size, n, "examples: use a smaller batch_size")
        self._epoch = Epoch(n, rng)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        return self.batch(self._epoch.take(self.batch_size))

    def batch(self, indices: Sequence[int]) -> Batch:
        """The batch of these examples."""
        return take(self.examples, np.array(indices))

    @property
    def batches_per_epoch(self) -> int:
        """The number of batches that show every example about once."""
        return max(1, self._epoch.n // self.batch_size)

    def get_state(self) -> dict[str, Any]:
        """The place in the data, without the state of `rng`."""
        return {"seed": self._epoch.seed, "position": self._epoch.position}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Resume from a `get_state()` of the same examples.

        Raises:   ValueError: the state belongs to other data, or is not a state.
        """
        place = state if isinstance(state, Mapping) else {}
        seed, position = place.get("seed"), place.get("position", -1)
        integers = type(position) is int and (seed is None or (type(seed) is int and seed >= 0))
        if not integers or not 0 <= position <= self._epoch.n or (seed is None and position > 0):
            raise ValueError(f"example {position} (seed {seed}) is not a place among {self._epoch.n} examples")
        self._epoch.start(seed, position)
