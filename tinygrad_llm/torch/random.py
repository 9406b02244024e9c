"""`torch.random`: the global stream, and a block that leaves it as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tinygrad_llm.torch.functions import get_rng_state, initial_seed, manual_seed, seed, set_rng_state
from tinygrad_llm.torch.missing import lookup

__all__ = ["fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """After this block, the global stream continues as if nothing had been drawn inside it."""
    state = get_rng_state()
    try:
        yield
    finally:
        if enabled:
            set_rng_state(state)


__getattr__ = lookup("torch.random", lambda: __all__)
