"""`torch.linalg`: norms and products of matrices."""

from typing import Any

from tinygrad_llm.torch.missing import lookup
from tinygrad_llm.torch.tensor import Tensor

__all__ = ["norm", "vector_norm"]


def vector_norm(x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False) -> Tensor:
    """See `Tensor.norm`."""
    return x.norm(ord, dim, keepdim)  # type: ignore[no-any-return]


def norm(A: Tensor, ord: float | str | None = None, dim: Any = None, keepdim: bool = False) -> Tensor:
    """The square root of the sum of the squares, or another norm: see `Tensor.norm`."""
    return A.norm(2 if ord is None or ord == "fro" else ord, dim, keepdim)  # type: ignore[no-any-return]


__getattr__ = lookup("torch.linalg", lambda: __all__)
