"""The memory of a training step, before it is taken, and the memory that is there.

Shapes: B batch, T time (block_size), C channels, H heads, L layers, V vocabulary; N = B·T tokens in a batch.
"""

import contextlib
import os
from dataclasses import dataclass

from tinygrad_llm.models import GPTConfig
from tinygrad_llm.runtime import memory_available
from tinygrad_llm.training.config import ConfigError, TrainSettings

_FLOAT = 4  # bytes
_QUERIES = 64  # that attention works on at a time
_ERROR = 1.15  # how far the estimate may lie above what is really taken


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step where it takes most, by what they are for."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int  # with what backward makes in passing

    @property
    def peak(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations


def memory(config: GPTConfig, settings: TrainSettings, batch_size: int) -> Memory:
    """Bytes of the arrays in a training step when there are most.

    The optimizer's and the last step's gradients stay (and the sum so far, where batches are accumulated). The tape of
    a forward pass keeps, for each block, in floats:

        N·C      x̂ and y of two layer norms: 4;  q, k, v: 3;  what the heads say: 1;  c_fc's y, tanh, GELU's y: 4 each
        B·H·T²/2 the attention weights, up to the diagonal, as nearly as blocks of queries follow it

    and, with dropout, a byte for each element of its masks (B·H·T² for the weights). Backward frees it block by block
    while the gradients grow, so that most is there at the loss (logits and their exponentials), in the last block, in
    the first, or at the end. Each worker has gradients of its own; the parts of a batch are together as large as the
    batch.
    """
    L, C, V, T = config.n_layer, config.n_embd, config.vocab_size, config.block_size
    N = batch_size * T
    rows = batch_size * config.n_head * T
    weights = sum(rows / T * min(_QUERIES, T - start) * min(start + _QUERIES, T) for start in range(0, T, _QUERIES))
    x, logits = N * C, N * V
    masks = (2 * x + rows * T) / _FLOAT if config.dropout > 0 else 0
    block = 20 * x + weights + 2 * N + masks
    whole = config.num_parameters
    block_parameters = 12 * C * C
    head = V * C

    # (activations, new gradients), all in floats: at the loss
    stages: list[tuple[float, int]] = [(L * block + 2 * x + 2 * logits, 0)]
    for left in (L, 1):  # in the last block, which backward comes to first, and in the first
        ready = head + (L - left) * block_parameters
        # GELU's y (4) is free; its gradient is there, and three arrays of this size to go on with; the residual's.
        stages.append((left * block + 13 * x, ready + 4 * C * C))
        # Of the MLP all is free (11), and what the heads said. The gradient of S, and a product, of some queries; those
        # of the residual and of what the heads said, of q, k and v each by itself, and side by side.
        stages.append((left * block - 4 * x + 2 * rows * min(T, _QUERIES), ready + 9 * C * C))
    # wte's gradient, beside the head's where they are one.
    stages.append((3.0 * x, whole + (head if config.tie_weights else 0)))

    workers = min(settings.workers or 1, batch_size)
    activations, ready = max(stages, key=lambda stage: stage[0] + workers * stage[1])
    kept = 1 + (settings.accumulation > 1)
    slots = 2 if settings.optimizer != "sgd" else int(settings.momentum > 0)
    return Memory(
        _FLOAT * whole, _FLOAT * (kept * whole + workers * ready), _FLOAT * slots * whole, int(_FLOAT * activations)
    )


def check_memory(config: GPTConfig, settings: TrainSettings, batch_size: int) -> None:
    """Refuse a run that cannot fit, before anything of it is made.

    Raises:   ConfigError: a step needs clearly more than the memory there is, by more than the estimate may be wrong.
    """
    need, free = memory(config, settings, batch_size).peak, available_memory()
    if free is not None and need > _ERROR * free:
        raise ConfigError(
            f"a training step needs {readable(need)} of memory, and {readable(free)} are free: make "
            f"training.batch_size ({batch_size}), model.block_size ({config.block_size}), model.n_layer "
            f"({config.n_layer}) or model.n_embd ({config.n_embd}) smaller"
        )


def available_memory() -> int | None:
    """Bytes that can be had without swapping; where the system does not tell, all that it has; or None."""
    free = memory_available()
    if free is None:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # not on Windows
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free


def readable(size: float) -> str:
    """Bytes in the unit that suits them, such as "12.3 kB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
