"""What every model checks of its inputs: ids, targets, lengths; and the mask that hides padding."""

from typing import Any

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array


def as_ids(ids: Any, what: str = "ids") -> Array:
    """A batch of token ids, (B, T), as an array.

    Raises:   ValueError: they are not integers of that shape, or there are none.
    """
    array = ids.data if isinstance(ids, Tensor) else np.asarray(ids)
    if array.ndim != 2 or array.dtype.kind not in "iu" or array.size == 0:
        raise ValueError(f"{what} must be integers of shape (B, T), got {array.dtype} of shape {array.shape}")
    return array


def as_targets(targets: Any, shape: tuple[int, ...], of: str = "ids") -> Array:
    """The targets as an array of this shape.

    Args:     of: what has the shape, for the message.
    Raises:   ValueError: they have another shape, or are not integers.
    """
    array = as_ids(targets, "targets")
    if array.shape != shape:
        raise ValueError(f"got targets {array.shape}, which must have the shape of {of} {shape}")
    return array


def as_lengths(lengths: Any, ids: Array) -> Array:
    """How many tokens each row of ids (B, T) has, (B,), as an array; None: all T.

    Raises:   ValueError: they are not B integers from 1 to T.
    """
    B, T = ids.shape
    array = np.full(B, T) if lengths is None else np.asarray(lengths)
    if array.shape != (B,) or array.dtype.kind not in "iu" or not ((array >= 1) & (array <= T)).all():
        raise ValueError(f"lengths must be {B} integers from 1 to {T}, got {lengths!r:.100}")
    return array


def hide_padding(lengths: Array, T: int) -> Array | None:
    """The mask (B, 1, 1, T) for attention to rows of these lengths: False at padding; None where there is none."""
    return None if (lengths == T).all() else (np.arange(T) < lengths[:, None])[:, None, None]
