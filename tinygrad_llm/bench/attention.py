"""Causal self-attention alone, forward and backward: from (B, T, 3C) queries, keys and values to their gradient.

This is one call of one function, which shares rows and heads among threads. Training with several workers does not
need that: each of them calls it for a part of the batch, in a thread of its own.
"""

from typing import Any

from numpy.typing import NDArray

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor, grad
from tinygrad_llm.bench.harness import Subject
from tinygrad_llm.bench.limits import attention_flops
from tinygrad_llm.bench.measure import OURS, Case, Cases
from tinygrad_llm.bench.work import Work, numpy_facts
from tinygrad_llm.random import Generator
from tinygrad_llm.runtime import peak_memory

THEIRS = ("torch",)
SUBJECTS = {OURS: f"{__name__}:attention", "torch": "tinygrad_llm.bench.against_torch:attention"}
SHAPES = {  # B, H, T, D of the training configurations, and of GPT-2 at its full length
    "char-cpu": (12, 4, 64, 32),
    "book-mini": (4, 4, 256, 16),
    "baby": (8, 6, 256, 64),
    "gpt2-124M": (4, 12, 64, 64),
    "gpt2-1024": (1, 12, 1024, 64),
}
TOLERANCE = 1e-4


def cases() -> Cases:
    """One case for each of SHAPES."""
    for name, (B, H, T, D) in SHAPES.items():
        options = {"shape": (B, H, T, D)}
        yield Case(f"{name} ({B}, {H}, {T}, {D})", SUBJECTS, options, TOLERANCE, flops=attention_flops(B, H, T, D))


def inputs(shape: tuple[int, int, int, int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """qkv (B, T, 3C), and the gradient of the output (B, T, C)."""
    B, H, T, D = shape
    rng = Generator(0)
    return rng.randn((B, T, 3 * H * D)), rng.randn((B, T, H * D))


def sample(y: NDArray[Any], dqkv: NDArray[Any]) -> list[float]:
    """An answer: about a hundred elements each of output and gradient."""
    return [float(x) for array in (y, dqkv) for x in array.ravel()[:: max(1, array.size // 100) | 1]]


# ---- in the worker -----------------------------------------------------------------------------------------------


def attention(shape: tuple[int, int, int, int]) -> Subject:
    """Attention and its gradient in this package."""
    imported = peak_memory()
    x, g = inputs(shape)
    qkv = Tensor(x, requires_grad=True)

    def do() -> tuple[NDArray[Any], NDArray[Any]]:
        y = F.causal_self_attention(qkv, shape[1])
        return y.data, grad(y, qkv, gradient=g)[0]

    return Work(lambda: sample(*do()), do, imported, numpy_facts)
