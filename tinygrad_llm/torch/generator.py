"""`torch.Generator`: a random stream of one's own; and the one that holds the global stream."""

import os
from typing import Any, Self

import numpy as np

from tinygrad_llm.random import Generator as Stream
from tinygrad_llm.torch.dtypes import check_device
from tinygrad_llm.torch.streams import GLOBAL
from tinygrad_llm.torch.tensor import Tensor, constant

_UNSEEDED = 67280421310721  # PyTorch's seed of a new Generator


class Generator:
    """A random stream of one's own, as `torch.Generator`. Attributes: ours: the `tinygrad_llm.Generator`."""

    def __init__(self, device: Any = "cpu") -> None:
        check_device(device)
        self.ours = Stream(_UNSEEDED)

    def manual_seed(self, seed: int) -> Self:
        """Start the stream of `seed` from its beginning."""
        self.ours.manual_seed(seed)
        return self

    def seed(self) -> int:
        """Start a stream that nobody knows, and return its seed."""
        self.manual_seed(int.from_bytes(os.urandom(8), "little") >> 1)
        return self.ours.seed

    def initial_seed(self) -> int:
        return self.ours.seed

    def get_state(self) -> Tensor:
        """The state as a Tensor of bytes, whose form is not PyTorch's."""
        state = self.ours.get_state()
        cached = np.asarray(state["cached_normal"])
        numbers = np.array([int(state["seed"]) & (2**64 - 1), state["position"], cached.size], np.uint64)
        parts = (state["key"], numbers, cached if cached.size else np.zeros(1))
        return constant(np.concatenate([np.asarray(part).view(np.uint8) for part in parts]))

    def set_state(self, state: Tensor) -> Self:
        """Continue from a state that `get_state` returned."""
        data = np.ascontiguousarray(state.ours.data)
        if data.dtype != np.uint8 or data.shape != (624 * 4 + 4 * 8,):
            raise ValueError(f"set_state: got a state of {data.dtype} {data.shape}, which get_state() did not return")
        seed, position, cached = (int(n) for n in data[2496:2520].view(np.uint64))
        self.ours.set_state(
            {
                "seed": seed,
                "key": data[:2496].view(np.uint32),
                "position": position,
                "cached_normal": data[2520:].view(np.float64)[:cached],
            }
        )
        return self


default_generator = Generator()
default_generator.ours = GLOBAL
