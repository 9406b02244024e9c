"""The memory that a training step of a GPT needs, before it is taken, and the memory that is free.

Shapes: B batch, T time (block_size), C channels, H heads, L layers, V vocabulary; N = B·T tokens in a batch.
"""

import contextlib
import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from tinygrad_llm.kernels.fused import IN_CACHE
from tinygrad_llm.models import GPTConfig
from tinygrad_llm.optim.jobs import JOB, STRETCH
from tinygrad_llm.optim.muon import is_inner
from tinygrad_llm.runtime import MOST, cores, memory_available
from tinygrad_llm.training.layers import SAMPLE
from tinygrad_llm.training.settings import ConfigError, TrainSettings
from tinygrad_llm.training.workers import processes

_FLOAT = 4  # bytes
_QUERIES = 64  # queries that attention works on at a time
_LOGITS = 1 << 24  # logits that the loss computes at a time, in each worker
_ERROR = 1.15  # the largest ratio of the estimate to the memory that a step really takes


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step at its peak, by purpose."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int  # with the temporary arrays of backward

    @property
    def peak(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations


def memory(
    config: GPTConfig,
    settings: TrainSettings,
    batch_size: int,
    frozen: Collection[str] = (),
    beside: Mapping[str, int] = {},
    texts: int = 1,
    per_token: bool = True,
) -> Memory:
    """Bytes of the arrays in a training step at its peak, in all processes of this machine.

    Of another model than a GPT, the activations are not known, and count as 0.

    Parameters and the optimizer's arrays stay, and so does the sum of the gradients where batches are accumulated. The
    peak may come at several moments, and the largest counts: during forward and backward (see `_Worker`), in the
    update, or in a held-out loss.

    Each process has its own parameters. Each worker has its own part of the batch, and its own gradients. The sum of
    the gradients, the optimizer and the held-out loss are in process 0 alone.

    Args:     frozen: names of parameters that are not trained, as in `GPT.named_parameters`. beside: how many numbers
              are trained beside a frozen weight, in its adapter, by its name; and in parameters of other names.
              texts: of an example, which are read one after another (two answers of a pair); batch_size counts all.
              per_token: whether the loss needs the logits of each token; a classifier's does not.
    """
    vocabulary = config.vocab_size if per_token else 0
    sizes = {name: math.prod(shape) for name, shape in config.shapes() if name not in frozen}
    sizes |= beside
    trained = sum(sizes.values())
    part = math.ceil(batch_size / processes().size)
    workers = min(settings.workers or 1, part)
    at_once = processes().here * workers
    total = trained if settings.accumulation > 1 else 0
    moments: list[tuple[float, float]] = [(0, trained)]
    if config.kind == "gpt":
        worker = _Worker(config, settings, part / workers, sizes, vocabulary, texts, "lm_head.weight" in beside)
        moments = [(at_once * activations, at_once * gradients + total) for activations, gradients in worker.moments()]

    # In the update: a sample of each parameter, to see how far it moves; for each thread one stretch, or three where
    # the formula adds decay to the gradient. Muon has the gradient, scaled and in the momentum, X before and after an
    # iteration, and two squares, for each thread.
    sample = sum(size / max(1, size // SAMPLE) for size in sizes.values())
    threads = min(cores(), MOST, math.ceil(trained / JOB))
    each = 3 if settings.optimizer in ("adam", "sgd") else 1
    update = each * threads * min(STRETCH, max(sizes.values(), default=0))
    inner = {
        name: shape for name, shape in config.shapes() if settings.optimizer == "muon" and is_inner(name, len(shape))
    }
    at_once = min(cores(), MOST, len(inner))
    largest = max(
        (4 * math.prod(shape) + 2 * min(shape) ** 2 for name, shape in inner.items() if name in sizes), default=0
    )
    moments.append((sample + max(update, at_once * largest), trained))
    # In a held-out loss: GELU's four arrays, x and x̂ of the whole batch; or a part of the logits for each thread.
    threads = min(cores(), MOST)
    tokens = max(batch_size, threads) * config.block_size
    x, logits = tokens * config.n_embd, tokens * vocabulary
    parts = max(1, math.ceil(logits / threads / _LOGITS))
    moments.append((max(18 * x, 3 * x + logits / parts * min(parts, 2)), trained))

    activations, gradients = max(moments, key=sum)
    slots = 2 if settings.optimizer != "sgd" else int(settings.momentum > 0)
    kept = sum((1 if name in inner else slots) * size for name, size in sizes.items())
    return Memory(
        parameters=_FLOAT * processes().here * (config.num_parameters + sum(beside.values())),
        gradients=int(_FLOAT * gradients),
        optimizer=_FLOAT * kept,
        activations=int(_FLOAT * activations),
    )


class _Worker:
    """How many floats one worker holds while it computes the gradient of its rows.

    Forward keeps on the tape, for each block:

        N·C      x̂ and y of two layer norms: 4;  q, k, v: 3;  attention's output: 1;  GELU's slope and y: 4 each
        B·H·T²/2 the attention weights below the diagonal, rounded up to blocks of 64 queries

    and, with dropout, a byte for each element of its masks (B·H·T² for the weights). The input of a frozen
    weight, which only its own gradient needs, is not kept. Blocks below all trained parameters keep nothing.
    With `training.recompute` a block keeps its input only, N·C. Backward computes the rest again, for one block at a
    time, with the attention weights of 64 queries.

    Args:     rows: of the batch, for each worker on average. sizes: of the trained parameters, by name.
              vocabulary: logits of a token. texts: see `memory`. adapted: whether the head has an adapter.
    """

    def __init__(
        self,
        config: GPTConfig,
        settings: TrainSettings,
        rows: float,
        sizes: dict[str, int],
        vocabulary: int,
        texts: int,
        adapted: bool,
    ) -> None:
        T, C = config.block_size, config.n_embd
        self.L = config.n_layer
        self.recompute = settings.recompute
        self.sizes = sizes
        self.x = rows * T * C
        self.logits = rows * T * vocabulary
        # A loss of pairs, and one behind an adapter, is not fused with the head. The logits of a text are there twice,
        # at first as logits; with an adapter four times: the head's, the adapter's, the latter scaled, and their sum.
        # Of each text before it, the probabilities are on the tape.
        self.plain = (texts - 1 + (4 if adapted else 2)) / texts * self.logits if adapted or texts > 1 else 0
        self.drops = config.dropout > 0
        self.queries = min(_QUERIES, T)
        each = T * self.queries  # scores of one such part, for one head of one row
        self.scores = min(rows * config.n_head * each, max(IN_CACHE, each))
        heads = rows * config.n_head
        weights = sum(heads * min(self.queries, T - i) * min(i + self.queries, T) for i in range(0, T, self.queries))
        masks = self.drops * (2 * self.x + heads * T * T) / _FLOAT
        self.always = 9 * self.x + 2 * rows * T + heads * T + masks + (0 if self.recompute else weights)
        self.head = sizes.get("transformer.wte.weight" if config.tie_weights else "lm_head.weight", 0)
        self.gradients = [0] * self.L  # numbers in the trained parameters of each block
        for name, size in sizes.items():
            if name.startswith("transformer.h."):
                self.gradients[int(name.split(".")[2])] += size
        embeds = any(name in sizes for name in ("transformer.wte.weight", "transformer.wpe.weight"))
        self.first = 0 if embeds else next((i for i, size in enumerate(self.gradients) if size), self.L)

    def trains(self, block: int, linear: str) -> bool:
        return f"transformer.h.{block}.{linear}.weight" in self.sizes

    def inside(self, block: int) -> float:
        """The floats that the tape keeps for all operations in a block."""
        inputs = sum(self.trains(block, linear) for linear in ("attn.c_attn", "attn.c_proj", "mlp.c_fc"))
        return self.always + (inputs + 4 * self.trains(block, "mlp.c_proj")) * self.x

    def kept(self, left: int) -> float:
        """The floats that the tape keeps while backward is in the last of the first `left` blocks."""
        if left <= self.first:
            return 0.0
        if self.recompute:
            return (left - self.first) * self.x + self.inside(left - 1)
        return sum(self.inside(block) for block in range(self.first, left))

    def moments(self) -> Iterator[tuple[float, float]]:
        """The moments at which most may be held: floats of activations, and of the new gradients."""
        yield self.at_the_loss()
        if self.first < self.L:
            yield self.in_the_last_gelu()
            for left in {self.L, self.first + 1}:  # the block that backward comes to first, and the one it ends with
                yield self.before_gelu(left)
                yield self.in_attention(left)
        # The rows of the embedding's gradient: as they come, sorted, added up, and where they are added to.
        yield 4 * self.x if "transformer.wte.weight" in self.sizes else self.x, sum(self.sizes.values())

    def at_the_loss(self) -> tuple[float, float]:
        """The blocks; x̂, y and the gradient of y of the last layer norm; some logits; the head's gradient, twice where
        the logits come in parts."""
        parts = max(1, math.ceil(self.logits / _LOGITS))
        blocks = (self.L - self.first) * self.x if self.recompute else self.kept(self.L)
        if self.plain:
            return blocks + 3 * self.x + self.plain, self.head
        return blocks + 3 * self.x + self.logits / parts, self.head * min(parts, 2)

    def in_the_last_gelu(self) -> tuple[float, float]:
        """GELU makes five arrays of 4·N·C, of which the tape counts its slope, and its output if that is kept."""
        return self.kept(self.L) + (17 - self.gelu_output(self.L)) * self.x, self.head if self.recompute else 0

    def before_gelu(self, left: int) -> tuple[float, float]:
        """Backward through GELU: the gradients of its output and its input for that output; the residual's gradient."""
        more = 17 if self.recompute else 9 + self.drops
        ready = self.ready(left) + self.gradients[left - 1] // 3
        return self.kept(left) + (more - self.gelu_output(left)) * self.x, ready

    def in_attention(self, left: int) -> tuple[float, float]:
        """Backward through attention, after the MLP.

        In memory are the gradients of the residual, of attention's output, and of q, k and v; a product of that
        size; and some scores, with two more for dropout.
        """
        done = 5 + self.trains(left - 1, "mlp.c_fc") + self.gelu_output(left)
        scores = (1 + 2 * self.drops + self.recompute) * self.scores
        ready = self.ready(left) + self.gradients[left - 1] * 3 // 4
        return self.kept(left) + (6 - done) * self.x + scores, ready

    def gelu_output(self, left: int) -> int:
        """GELU's output in the last of `left` blocks, in N·C, where the tape has it."""
        return 4 * self.trains(left - 1, "mlp.c_proj")

    def ready(self, left: int) -> int:
        """The gradients of the head and of all blocks above the first `left`."""
        return self.head + sum(self.gradients[left:])


def check_memory(
    config: GPTConfig,
    settings: TrainSettings,
    batch_size: int,
    frozen: Collection[str] = (),
    beside: Mapping[str, int] = {},
    texts: int = 1,
    per_token: bool = True,
) -> None:
    """Refuse a run that cannot fit, before anything of it is made.

    Raises:   ConfigError: a step needs more memory than is free, even if the estimate is as wrong as it may be.
    """
    need, free = memory(config, settings, batch_size, frozen, beside, texts, per_token).peak, available_memory()
    if free is not None and need > _ERROR * free:
        here = processes().here
        raise ConfigError(
            f"a training step needs {readable(need)} of memory"
            + (f" for {here} processes" if here > 1 else "")
            + f", and {readable(free)} are free: make "
            f"training.batch_size ({batch_size}), model.block_size ({config.block_size}), model.n_layer "
            f"({config.n_layer}) or model.n_embd ({config.n_embd}) smaller"
            + ("" if settings.recompute else ", or set training.recompute")
            + ("; or start fewer processes" if here > 1 else "")
        )


def available_memory() -> int | None:
    """Bytes that are free without swapping; if the system does not report them, all its memory, or else None."""
    free = memory_available()
    if free is None:
        with contextlib.suppress(AttributeError, OSError, ValueError):  # not on Windows
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return free


def readable(size: float) -> str:
    """A number of bytes with a unit, such as "12.3 kB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
