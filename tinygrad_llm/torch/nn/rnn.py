"""`torch.nn.utils.rnn`: rows of unequal lengths in one Tensor."""

from collections.abc import Sequence
from typing import Any

from tinygrad_llm.torch.functions import stack
from tinygrad_llm.torch.missing import lookup
from tinygrad_llm.torch.nn.functional import pad
from tinygrad_llm.torch.tensor import Tensor

__all__ = ["pad_sequence"]


def pad_sequence(
    sequences: Sequence[Tensor], batch_first: bool = False, padding_value: Any = 0.0, padding_side: str = "right"
) -> Tensor:
    """Rows of unequal lengths as one Tensor (T, B, …), or (B, T, …) with batch_first, filled up with padding_value."""
    longest = max(len(row) for row in sequences)
    rows = []
    for row in sequences:
        ends = (0, longest - len(row)) if padding_side == "right" else (longest - len(row), 0)
        rows.append(pad(row, (*[0] * (2 * row.ndim - 2), *ends), value=padding_value))
    return stack(rows, 0 if batch_first else 1)


__getattr__ = lookup("torch.nn.utils.rnn", lambda: __all__)
