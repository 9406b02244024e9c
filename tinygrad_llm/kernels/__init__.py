"""The mathematics: every differentiable operation, forward beside backward, on plain NumPy arrays."""

from tinygrad_llm.kernels.attention import attention
from tinygrad_llm.kernels.contract import KERNELS, Array, Kernel, kernel
from tinygrad_llm.kernels.elementwise import (
    absolute,
    add,
    divide,
    erf,
    exp,
    gelu,
    log,
    maximum,
    multiply,
    negative,
    power,
    relu,
    sigmoid,
    softplus,
    sqrt,
    subtract,
    tanh,
    where,
)
from tinygrad_llm.kernels.fused import causal_attention, causal_self_attention, linear_cross_entropy
from tinygrad_llm.kernels.lookup import dropout, embedding
from tinygrad_llm.kernels.losses import IGNORE_INDEX, cross_entropy
from tinygrad_llm.kernels.normalize import layer_norm, log_softmax, logsumexp, softmax
from tinygrad_llm.kernels.positions import rotary, sinusoidal
from tinygrad_llm.kernels.products import einsum, linear, matmul
from tinygrad_llm.kernels.reductions import cumsum, max, mean, norm, sum, var
from tinygrad_llm.kernels.shape import broadcast_to, concatenate, getitem, reshape, stack, transpose

__all__ = [
    "IGNORE_INDEX", "KERNELS", "Array", "Kernel", "absolute", "add", "attention", "broadcast_to",
    "causal_attention", "causal_self_attention", "concatenate", "cross_entropy", "cumsum", "divide", "dropout",
    "einsum", "embedding", "erf", "exp", "gelu", "getitem", "kernel", "layer_norm", "linear",
    "linear_cross_entropy", "log", "log_softmax", "logsumexp", "matmul", "max", "maximum", "mean", "multiply",
    "negative", "norm", "power", "relu", "reshape", "rotary", "sigmoid", "sinusoidal", "softmax", "softplus",
    "sqrt", "stack", "subtract", "sum", "tanh", "transpose", "var", "where",
]  # fmt: skip
