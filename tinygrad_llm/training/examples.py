"""Batches of examples in memory, for tasks that do not read one long text."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from tinygrad_llm.datasets.batches import Epoch
from tinygrad_llm.random import Generator
from tinygrad_llm.training.task import Batch, rows, take


class Examples:
    """Endless batches of examples: each example once, shuffled, then all again in another order.

    A subclass whose examples have unequal lengths pads them in `batch`.

    Args:     examples: a nest (tuple, list or dict) of arrays; an example is one row of each. batch_size: at most as
              many as there are examples. rng: shuffles them.
    """

    def __init__(self, examples: Batch, batch_size: int, rng: Generator) -> None:
        self.examples = examples
        self.rng = rng
        self.batch_size = min(batch_size, rows(examples))
        self._epoch = Epoch(rows(examples), rng)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        return self.batch(self._epoch.take(self.batch_size))

    def batch(self, indices: Sequence[int]) -> Batch:
        """The batch of these examples."""
        return take(self.examples, np.array(indices))

    def get_state(self) -> dict[str, Any]:
        """The place in the data, without the state of `rng`."""
        return {"seed": self._epoch.seed, "position": self._epoch.position}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Resume from a `get_state()` of the same examples.

        Raises:   ValueError: the state belongs to other data.
        """
        seed, position = state.get("seed"), state.get("position", -1)
        if not 0 <= position <= self._epoch.n or (seed is None and position > 0):
            raise ValueError(f"example {position} (seed {seed}) is not a place among {self._epoch.n} examples")
        self._epoch.start(seed, position)
