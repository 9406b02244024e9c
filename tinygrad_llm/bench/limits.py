"""The limits of this machine, and the arithmetic and memory traffic that a piece of work needs.

Shapes: B batch, H heads, T time, D head size, C = H·D channels, L layers, V vocabulary.
"""

from dataclasses import dataclass
from typing import Any

from tinygrad_llm.bench import machine
from tinygrad_llm.bench.harness import Subject
from tinygrad_llm.bench.work import ROUND
from tinygrad_llm.models import GPTConfig
from tinygrad_llm.runs import plan

FLOAT = 4  # bytes


@dataclass(frozen=True)
class Limits:
    """The best that NumPy reached in this run (`machine.measure`), with the same number of threads.

    Args:     flops: per second, in float32 products. bandwidth: bytes per second, in the best of a matrix
              times a vector, a copy and a triad.
    """

    flops: float
    bandwidth: float

    def seconds(self, flops: float, traffic: float) -> float:
        """The least time for this many FLOPs and this many bytes of memory read or written."""
        return flops / self.flops + traffic / self.bandwidth


def step_flops(config: GPTConfig, batch: int) -> int:
    """FLOPs of the matrix products in a training step: `plan.flops` without the pairs that the mask hides.

    A product (n, k)(k, m) takes 2·n·k·m forward, and twice that backward. The plan counts q kᵀ and A v in full:
    12·L·C·T per token. A query at position t attends to t + 1 keys, on average (T + 1)/2 and not T. So 6·L·C·(T + 1)
    are needed, which is 6·L·C·(T − 1) less.
    """
    tokens = batch * config.block_size
    return plan.flops(config, tokens) - 6 * config.n_layer * config.n_embd * (config.block_size - 1) * tokens


def prompt_flops(config: GPTConfig) -> int:
    """FLOPs of reading a prompt of block_size tokens: forward only, with the head (2·V·C) at the last position only."""
    other_heads = 2 * config.vocab_size * config.n_embd * (config.block_size - 1)
    return step_flops(config, 1) // 3 - other_heads


def attention_flops(B: int, H: int, T: int, D: int) -> int:
    """FLOPs of q kᵀ and A v, forward and backward, over T(T + 1)/2 pairs: 3 · 2 · 2·D · T(T + 1)/2 per head."""
    return 6 * B * H * D * T * (T + 1)


def weight_bytes(config: GPTConfig) -> int:
    """Bytes of the float32 weights that are read to generate one token.

    These are all weights except the embeddings, of which only one row is read. The head is read in full, tied or not.
    """
    C, V = config.n_embd, config.vocab_size
    unread = (config.block_size + (0 if config.tie_weights else V)) * C
    return FLOAT * (config.num_parameters - unread)


# ---- in the worker -----------------------------------------------------------------------------------------------


class _Best:
    """Measures the machine in each round; `about` returns the best rates of all rounds."""

    def __init__(self) -> None:
        self._flops, self._bandwidth = 0.0, 0.0

    def answer(self) -> None:
        pass

    def round(self) -> float:
        found = machine.measure(ROUND)
        self._flops = max(self._flops, 1e9 * found["matmul_gflops"])
        self._bandwidth = max(self._bandwidth, *(1e9 * found[name] for name in machine.BANDWIDTHS))
        return ROUND

    def about(self) -> dict[str, Any]:
        return {"flops": self._flops, "bandwidth": self._bandwidth}


def best() -> Subject:
    """The machine's best rates, as `machine.measure` finds them."""
    return _Best()
