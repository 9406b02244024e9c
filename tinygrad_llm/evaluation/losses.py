"""−ln p of every id of a row of any length, from windows that slide over it, a batch of windows at a time."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm import functional as F
from tinygrad_llm.generation import KVCache
from tinygrad_llm.generation.cache import STRETCH, read_by_threads
from tinygrad_llm.kernels import IGNORE_INDEX, Array
from tinygrad_llm.models import GPT
from tinygrad_llm.models.inputs import as_ids
from tinygrad_llm.runtime import MOST, side_by_side, threads_of_blas

Row = TypeVar("Row")
Window: TypeAlias = tuple[NDArray[np.int64], NDArray[np.int64]]  # inputs and targets

LOGITS_AT_ONCE = 1 << 24  # numbers: 64 MB as float32, and a few times that while the loss is computed


def token_losses(model: GPT, inputs: Array, targets: Array) -> Array:
    """Compute −ln p(target) in nats at each position; 0 where the target is −100.

    Args:     inputs, targets: (B, T) ids; a target is the id after its input.
    Returns:  (B, T) float64.
    Raises:   ValueError: other shapes; a loss is NaN or infinite. Others as `GPT.forward`.
    """
    inputs, targets = as_ids(inputs), np.asarray(targets)
    if inputs.shape != targets.shape:
        raise ValueError(f"inputs and targets must have one shape, got {inputs.shape} and {targets.shape}")

    def losses_of(rows: slice, part: slice = slice(None), cache: KVCache | None = None) -> Array:
        with np.errstate(all="ignore"):
            logits = model(inputs[rows, part], cache)
            logits = logits.reshape(-1, logits.shape[-1])
            return F.cross_entropy(logits, targets[rows, part].reshape(-1), reduction="none").data

    # Threads share the rows, or the positions of a single row.
    B, T = inputs.shape
    n = max(1, min(B, MOST, threads_of_blas()))
    with model.evaluating():
        if B == 1 and T >= 2 * STRETCH:
            parts = read_by_threads(lambda part, cache: losses_of(slice(1), part, cache), T, model.new_cache())
        else:
            parts = side_by_side(losses_of, [slice(B * i // n, B * (i + 1) // n) for i in range(n)])
    losses = np.concatenate(parts)
    if not np.isfinite(losses).all():
        raise ValueError("the model's scores are NaN or infinite: its weights are damaged, or its training diverged")
    return losses.astype(np.float64).reshape(targets.shape)


def score_tokens(
    model: GPT, pieces: Iterable[NDArray[Any]], stride: int | None = None, batch_size: int | None = None
) -> Iterator[Array]:
    """Compute −ln p of every id except the first, in order, with `scoring_windows`.

    Args:     pieces: rows of ids that follow each other. stride: None: half the block. batch_size: windows at once;
              None: as many as 64 MB of logits allow.
    Returns:  the losses in nats, one batch of windows at a time: (n,) float64.
    Raises:   ValueError: stride or batch_size is out of range; the model's scores are NaN or infinite.
    """
    windows = scoring_windows(pieces, model.block_size, default_stride(model) if stride is None else stride)
    size = rows_at_once(model, batch_size)

    def losses() -> Iterator[Array]:
        for batch in in_batches(windows, size):
            inputs, targets = (np.stack(part) for part in zip(*batch, strict=True))
            yield token_losses(model, inputs, targets)[targets != IGNORE_INDEX]

    return losses()


def scoring_windows(pieces: Iterable[NDArray[Any]], block_size: int, stride: int) -> Iterator[Window]:
    """Cut a row of ids, which comes in pieces, into windows that score every id except the first exactly once.

    Each window ends `stride` ids after the one before it; the last one ends with the row. Targets that an earlier
    window has scored are −100. So an id is predicted from at least block_size − stride + 1 ids before it, or from all
    ids before it if there are fewer. With stride = block_size the windows do not overlap; with stride = 1 every id has
    a whole block before it.

    Returns:  inputs and targets, (block_size,) each; one shorter window if the row is shorter. At most one piece and
              one window are held at a time.
    Raises:   ValueError: stride is not in 1 … block_size.
    """
    if not 1 <= stride <= block_size:
        raise ValueError(f"stride must lie in 1 … {block_size}, the model's block_size, got {stride}")
    return _windows(pieces, block_size, stride)


def _windows(pieces: Iterable[NDArray[Any]], block_size: int, stride: int) -> Iterator[Window]:
    ids: NDArray[np.int64] = np.empty(0, np.int64)
    scored = 0  # the number of ids in `ids` that were inputs whose target is scored

    def window(end: int) -> Window:
        start = max(0, end - block_size)
        targets = ids[start + 1 : end + 1].copy()
        targets[: scored - start] = IGNORE_INDEX
        return ids[start:end], targets

    end = block_size
    for piece in pieces:
        ids = np.concatenate([ids, piece])
        while end < len(ids):
            yield window(end)
            scored, end = end, end + stride
        unneeded = max(0, scored - block_size)  # the next window ends after `scored`
        ids, scored, end = ids[unneeded:], scored - unneeded, end - unneeded
    if scored < len(ids) - 1:
        yield window(len(ids) - 1)


def default_stride(model: GPT) -> int:
    """Return half the block: each token has at least the other half before it, for twice the work of no overlap."""
    return max(1, model.block_size // 2)


def rows_at_once(model: GPT, batch_size: int | None) -> int:
    """Return batch_size; for None, as many rows of a whole block as `LOGITS_AT_ONCE` allows.

    Raises:   ValueError: batch_size is below 1.
    """
    if batch_size is None:
        return max(1, LOGITS_AT_ONCE // (model.block_size * model.config.vocab_size))
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    return batch_size


def in_batches(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Yield lists of `size` rows; the last one may be shorter."""
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
