"""Attention as a staircase: six versions, each with one idea more than the one before.

    1. simple_self_attention      each position becomes a mixture of all positions, weighted by similarity
    2. SelfAttention              … with learned queries, keys and values
    3. CausalAttention            … which never looks at later positions
    4. CausalAttention(dropout=p) … and drops some weights while it trains
    5. MultiHeadWrapper           several of these side by side
    6. nn.MultiHeadAttention      the same with all heads at once, as in GPT-2

tests/nn/test_attention.py shows where one step equals the next; `as_multi_head` turns 5 into 6. These classes are for
reading and for small experiments. Models use 6.

Shapes: x (B, T, C) or (T, C). The outputs have d_out channels. The arguments of 3 to 5 stand in the order of the book
(Raschka 2024, "Build a Large Language Model (From Scratch)", chapter 3); a text has at most context_length positions.
"""

import math

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.nn.attention import MultiHeadAttention
from tinygrad_llm.nn.layers import Dropout, Linear
from tinygrad_llm.nn.module import Module
from tinygrad_llm.random import Generator


def simple_self_attention(x: Tensor) -> Tensor:
    """Step 1. The dot product measures similarity, a softmax turns it into weights, and the weights mix the inputs."""
    _check_shape("simple_self_attention", x)
    weights = (x @ x.mT).softmax(-1)  # (T, T): row t holds how much position t takes from each position
    return weights @ x


class SelfAttention(Module):
    """Step 2. Learned projections turn each position into a query, a key and a value.

    The query is what a position looks for, the key is what it offers, and the value is what it passes on. Scores are
    divided by √d_out, because a dot product of d random terms grows as √d. The softmax of large scores is nearly
    one-hot, and its gradient is nearly 0.
    """

    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False, *, rng: Generator) -> None:
        self.W_query = Linear(d_in, d_out, qkv_bias, rng=rng)
        self.W_key = Linear(d_in, d_out, qkv_bias, rng=rng)
        self.W_value = Linear(d_in, d_out, qkv_bias, rng=rng)

    def scores(self, x: Tensor) -> Tensor:
        _check_shape(type(self).__name__, x)
        q, k = self.W_query(x), self.W_key(x)
        scores: Tensor = q @ k.mT * (1 / math.sqrt(q.shape[-1]))
        return scores

    def forward(self, x: Tensor) -> Tensor:
        context: Tensor = self.scores(x).softmax(-1) @ self.W_value(x)
        return context


class CausalAttention(SelfAttention):
    """Steps 3 and 4. Each later position gets a score of −∞, which the softmax turns into a weight of exactly 0.

    With dropout > 0, some weights are set to 0 while training, so that no position relies on a single other one.
    """

    def __init__(
        self, d_in: int, d_out: int, context_length: int, dropout: float, qkv_bias: bool = False, *, rng: Generator
    ) -> None:
        super().__init__(d_in, d_out, qkv_bias, rng=rng)
        self.context_length = context_length
        self.dropout = Dropout(dropout, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        scores = self.scores(x)
        T = x.shape[-2]
        if self.context_length < T:
            raise ValueError(f"CausalAttention: got {T} positions, more than context_length {self.context_length}")
        later = ~np.tri(T, dtype=bool)  # True where the key stands after the query
        weights = scores.masked_fill(later, -math.inf).softmax(-1)
        context: Tensor = self.dropout(weights) @ self.W_value(x)
        return context


class MultiHeadWrapper(Module):
    """Step 5. Several heads, each with its own projections, so that each can look for something else.

    Their outputs are concatenated: d_out channels per head.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        context_length: int,
        dropout: float,
        num_heads: int,
        qkv_bias: bool = False,
        *,
        rng: Generator,
    ) -> None:
        self.heads = [
            CausalAttention(d_in, d_out, context_length, dropout, qkv_bias, rng=rng) for _ in range(num_heads)
        ]

    def forward(self, x: Tensor) -> Tensor:
        return F.cat([head(x) for head in self.heads], dim=-1)

    def as_multi_head(self, *, rng: Generator) -> MultiHeadAttention:
        """Step 6. The same attention in one module: the heads' matrices are stacked, and c_proj is the identity."""
        q, k, v = ([getattr(head, name) for head in self.heads] for name in ("W_query", "W_key", "W_value"))
        stacked = np.concatenate([linear.weight.data for linear in (*q, *k, *v)])
        C, d_in = len(stacked) // 3, stacked.shape[1]
        bias = q[0].bias is not None
        attention = MultiHeadAttention(C, len(self.heads), self.heads[0].dropout.p, bias, rng=rng, d_in=d_in)
        attention.c_attn.weight.data = stacked
        if attention.c_attn.bias is not None:
            attention.c_attn.bias.data = np.concatenate([linear.bias.data for linear in (*q, *k, *v)])
        attention.c_proj.weight.data = np.eye(C, dtype=stacked.dtype)
        if attention.c_proj.bias is not None:
            attention.c_proj.bias.data = np.zeros(C, dtype=stacked.dtype)
        return attention


MultiHeadAttentionWrapper = MultiHeadWrapper  # the book's name


def _check_shape(name: str, x: Tensor) -> None:
    if x.ndim < 2:
        raise ValueError(f"{name}: got x {x.shape}, which must be (B, T, C) or (T, C)")
