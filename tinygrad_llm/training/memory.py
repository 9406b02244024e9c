"""The memory of a training step, before it is taken, and the memory that is there.

Shapes: B batch, T time (block_size), C channels, H heads, L layers, V vocabulary; N = B·T tokens in a batch.
"""

import contextlib
import math
import os
from dataclasses import dataclass

from tinygrad_llm.models import GPTConfig
from tinygrad_llm.optim.jobs import JOB, STRETCH
from tinygrad_llm.runtime import cores, memory_available
from tinygrad_llm.training.settings import ConfigError, TrainSettings
from tinygrad_llm.training.workers import MOST, processes

_FLOAT = 4  # bytes
_QUERIES = 64  # that attention works on at a time
_LOGITS = 1 << 24  # that the loss makes at a time, in each worker
_SEEN = 1 << 16  # entries of a parameter that its update is measured by, or up to twice as many
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
    """Bytes of the arrays in a training step when there are most, in all ranks of this machine.

    Parameters, the optimizer's arrays and, where batches are accumulated, the sum so far stay. The tape of a forward
    pass keeps, for each block, in floats:

        N·C      x̂ and y of two layer norms: 4;  q, k, v: 3;  what the heads say: 1;  GELU's slope and y: 4 each
        B·H·T²/2 the attention weights, up to the diagonal, as nearly as blocks of 64 queries follow it

    and, with dropout, a byte for each element of its masks (B·H·T² for the weights). With `training.recompute` it
    keeps a block's input, N·C; the rest is there of one block at a time, and the attention weights of 64 queries.

    Backward frees it block by block while the gradients grow, so that most is there in the last GELU, which makes five
    arrays of 4·N·C, at the loss, which makes the head's gradient, in the last or in the first block, when all
    gradients are made, in the update, or in a held-out loss. Workers have a part of the batch, and gradients, each. So
    have ranks, and parameters too; the sum so far, the optimizer and the held-out loss are rank 0's.
    """
    L, C, V, T = config.n_layer, config.n_embd, config.vocab_size, config.block_size
    part = math.ceil(batch_size / processes().size)
    workers = min(settings.workers or 1, part)
    B = part / workers
    x, rows, drops = B * T * C, B * config.n_head * T, config.dropout > 0
    queries = min(_QUERIES, T)
    weights = sum(rows / T * min(queries, T - i) * min(i + queries, T) for i in range(0, T, queries))
    scores = rows * queries  # a block of them
    masks = drops * (2 * x + rows * T) / _FLOAT
    inside = 16 * x + 2 * B * T + rows + masks + (0 if settings.recompute else weights)
    whole, head, block = config.num_parameters, V * C, 12 * C * C
    parts = math.ceil(B * T * V / _LOGITS)  # of the logits, one after another

    def kept(left: int) -> float:
        """With so many blocks that backward has not been through; the last of them has all that is inside."""
        return left * x + inside if settings.recompute else left * inside

    # (activations, new gradients) of a worker, all in floats. At the loss: what the blocks keep; of the last layer norm
    # x̂ and y, and the gradient of y; a part of the logits; the head's gradient, and that of this part.
    stages = [((L * x if settings.recompute else L * inside) + 3 * x + B * T * V / parts, head * min(parts, 2))]
    stages.append((kept(L) + 13 * x, head if settings.recompute else 0))  # in the last GELU: 5 · 4 for the 8 it keeps
    for left in (L, 1):  # in the last block, which backward comes to first, and in the first
        ready = head + (L - left) * block
        # Going back through the GELU: the gradients of both its sides (8) for y (4); the residual's.
        stages.append((kept(left) + (13 if settings.recompute else 5 + drops) * x, ready + block // 3))
        # Of the MLP and its layer norm all is free (10). The gradients of the residual, of what the heads said, of q, k
        # and v; a product of this size; the gradients of some scores, those before, and two on the way with dropout.
        more = 1 + (queries < T) + 2 * drops + settings.recompute
        stages.append((kept(left) - 4 * x + more * scores, ready + block * 3 // 4))
    stages.append((4 * x, whole))  # the rows of wte's gradient: as they come, sorted, added up, and those they go to
    so_far = whole * (settings.accumulation > 1)
    at_once = processes().here * workers
    stages = [(at_once * activations, at_once * gradients + so_far) for activations, gradients in stages]

    # In the update: entries of each parameter, to see how far it moves; three stretches for each thread.
    sizes = [math.prod(shape) for _, shape in config.shapes()]
    seen = sum(size / max(1, size // _SEEN) for size in sizes)
    threads = min(cores(), MOST, math.ceil(whole / JOB))
    stages.append((seen + 3 * threads * min(STRETCH, max(sizes)), whole))
    # In a held-out loss: the GELU's four arrays, x and x̂ of the whole batch; or a part of the logits.
    x, logits = batch_size * T * C, batch_size * T * V
    parts = math.ceil(logits / _LOGITS)
    stages.append((max(18 * x, 3 * x + logits / parts * min(parts, 2)), whole))

    activations, gradients = max(stages, key=sum)
    slots = 2 if settings.optimizer != "sgd" else int(settings.momentum > 0)
    return Memory(
        _FLOAT * processes().here * whole, _FLOAT * gradients, _FLOAT * slots * whole, int(_FLOAT * activations)
    )


def check_memory(config: GPTConfig, settings: TrainSettings, batch_size: int) -> None:
    """Refuse a run that cannot fit, before anything of it is made.

    Raises:   ConfigError: a step needs clearly more than the memory there is, by more than the estimate may be wrong.
    """
    need, free = memory(config, settings, batch_size).peak, available_memory()
    if free is not None and need > _ERROR * free:
        raise ConfigError(
            f"a training step needs {readable(need)} of memory"
            + (f" for {processes().here} processes" if processes().here > 1 else "")
            + f", and {readable(free)} are free: make "
            f"training.batch_size ({batch_size}), model.block_size ({config.block_size}), model.n_layer "
            f"({config.n_layer}) or model.n_embd ({config.n_embd}) smaller"
            + ("" if settings.recompute else ", or set training.recompute")
            + ("; or start fewer processes" if processes().here > 1 else "")
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
