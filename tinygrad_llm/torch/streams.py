"""The random stream that everything draws from: layers, dropout, loaders and functions."""

import os
from typing import Any

from tinygrad_llm.random import Generator as Stream

GLOBAL = Stream(int.from_bytes(os.urandom(8), "little") >> 1)  # `torch.manual_seed` starts it


def stream(generator: Any = None) -> Stream:
    """The stream to draw from: that of a `torch.Generator`, or the global one."""
    return GLOBAL if generator is None else generator.ours
