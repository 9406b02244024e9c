"""Attention as a staircase: six versions, each with one idea more than the one before.

    1. simple_self_attention      every position becomes a mixture of all, by likeness
    2. SelfAttention              … with learned queries, keys and values
    3. CausalAttention            … that never looks ahead
    4. CausalAttention(dropout=p) … and forgets a little while it learns
    5. MultiHeadWrapper           several of them side by side
    6. nn.MultiHeadAttention      the same in one go, as GPT-2 computes it

Where two neighbors should be equal they are, and `as_multi_head` turns 5 into 6 to show it:
tests/nn/test_attention.py. These classes are for reading and for small experiments; models use 6.

Shapes: x (B, T, C) or (T, C). The outputs have d_out channels.
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
    """Step 1. Likeness is the dot product; a softmax makes weights of it; the output mixes the inputs by them."""
    weights = (x @ x.mT).softmax(-1)  # (T, T): row t says how much t takes from each position
    return weights @ x


class SelfAttention(Module):
    """Step 2. What a position seeks (query), offers (key) and passes on (value) are learned projections of it.

    Scores are divided by √d_out: a dot product of d random terms grows as √d, and a softmax of large scores is so
    sharp that hardly any gradient comes through.
    """

    def __init__(self, d_in: int, d_out: int, qkv_bias: bool = False, *, rng: Generator) -> None:
        self.W_query = Linear(d_in, d_out, qkv_bias, rng=rng)
        self.W_key = Linear(d_in, d_out, qkv_bias, rng=rng)
        self.W_value = Linear(d_in, d_out, qkv_bias, rng=rng)

    def scores(self, x: Tensor) -> Tensor:
        q, k = self.W_query(x), self.W_key(x)
        scores: Tensor = q @ k.mT * (1 / math.sqrt(q.shape[-1]))
        return scores

    def forward(self, x: Tensor) -> Tensor:
        context: Tensor = self.scores(x).softmax(-1) @ self.W_value(x)
        return context


class CausalAttention(SelfAttention):
    """Steps 3 and 4. A score of −∞ for every position ahead becomes a weight of exactly 0 in the softmax.

    With dropout > 0 some of the weights are zeroed while training, so that no position relies on one other alone.
    """

    def __init__(self, d_in: int, d_out: int, dropout: float = 0.0, qkv_bias: bool = False, *, rng: Generator) -> None:
        super().__init__(d_in, d_out, qkv_bias, rng=rng)
        self.dropout = Dropout(dropout, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        T = x.shape[-2]
        ahead = ~np.tri(T, dtype=bool)
        weights = self.scores(x).masked_fill(ahead, -math.inf).softmax(-1)
        context: Tensor = self.dropout(weights) @ self.W_value(x)
        return context


class MultiHeadWrapper(Module):
    """Step 5. Several heads, each with projections of its own, each free to look for something else; their outputs
    are laid side by side: d_out channels a head."""

    def __init__(
        self, d_in: int, d_out: int, n_head: int, dropout: float = 0.0, qkv_bias: bool = False, *, rng: Generator
    ) -> None:
        self.heads = [CausalAttention(d_in, d_out, dropout, qkv_bias, rng=rng) for _ in range(n_head)]

    def forward(self, x: Tensor) -> Tensor:
        return F.cat([head(x) for head in self.heads], dim=-1)

    def as_multi_head(self, *, rng: Generator) -> MultiHeadAttention:
        """Step 6. The same attention as one module: the heads' matrices are stacked, and c_proj is the identity.

        Raises:   ValueError: the heads' outputs together are not as wide as the input.
        """
        q, k, v = ([getattr(head, name) for head in self.heads] for name in ("W_query", "W_key", "W_value"))
        stacked = np.concatenate([linear.weight.data for linear in (*q, *k, *v)])
        C = stacked.shape[1]
        if len(stacked) != 3 * C:
            raise ValueError(f"{len(self.heads)} heads make {len(stacked) // 3} channels of {C}: they must be equal")
        bias = q[0].bias is not None
        attention = MultiHeadAttention(C, len(self.heads), self.heads[0].dropout.p, bias, rng=rng)
        attention.c_attn.weight.data = stacked
        if attention.c_attn.bias is not None:
            attention.c_attn.bias.data = np.concatenate([linear.bias.data for linear in (*q, *k, *v)])
        attention.c_proj.weight.data = np.eye(C, dtype=stacked.dtype)
        if attention.c_proj.bias is not None:
            attention.c_proj.bias.data = np.zeros(C, dtype=stacked.dtype)
        return attention
