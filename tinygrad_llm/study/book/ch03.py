"""Chapter 3: attention, from a dot product to several heads."""

import math
from typing import Any

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.nn import Module, MultiHeadAttention
from tinygrad_llm.nn.attention_steps import CausalAttention, MultiHeadWrapper, SelfAttention, simple_self_attention
from tinygrad_llm.random import Generator
from tinygrad_llm.study.book.ledger import fact

# Six tokens, (T, C) = (6, 3): "Your journey starts with one step".
X = Tensor(
    np.array(
        [[0.43, 0.15, 0.89], [0.55, 0.87, 0.66], [0.57, 0.85, 0.64], [0.22, 0.58, 0.33], [0.77, 0.25, 0.10],
         [0.05, 0.80, 0.55]],
        np.float32,
    )
)  # fmt: skip


# ---- attention without weights ---------------------------------------------------------------------------------------


@fact("ch03-01", "0.9544 1.4950 1.4754 0.8434 0.7070 1.0865 / 0.9544")
def scores_of_one_query() -> list[Tensor]:
    """Dot products of every token with the second, and of the first with the second."""
    return [X @ X[1], X[0] @ X[1]]  # (6,), ()


@fact("ch03-02", "0.1455 0.2278 0.2249 0.1285 0.1077 0.1656")
def scores_over_their_sum() -> Any:
    """These scores divided by their sum."""
    scores = X @ X[1]
    return scores / scores.sum()


@fact("ch03-03", "0.1385 0.2379 0.2333 0.1240 0.1082 0.1581")
def weights_of_one_query() -> Any:
    """Softmax of the scores."""
    return (X @ X[1]).softmax(-1)


@fact("ch03-04", "0.4419 0.6515 0.5683")
def context_of_one_query() -> Any:
    """The context vector: the tokens, mixed with these weights."""
    return weights_of_one_query() @ X  # (6,) @ (6, 3)


@fact(
    "ch03-05",
    "0.9995 0.9544 0.9422 0.4753 0.4576 0.6310 / 0.9544 1.4950 1.4754 0.8434 0.7070 1.0865 / "
    "0.9422 1.4754 1.4570 0.8296 0.7154 1.0605 / 0.4753 0.8434 0.8296 0.4937 0.3474 0.6565 / "
    "0.4576 0.7070 0.7154 0.3474 0.6654 0.2935 / 0.6310 1.0865 1.0605 0.6565 0.2935 0.9450",
)
def all_scores() -> Tensor:
    """All scores, X Xᵀ."""
    return X @ X.T  # (6, 6)


@fact(
    "ch03-06",
    "0.2098 0.2006 0.1981 0.1242 0.1220 0.1452 / 0.1385 0.2379 0.2333 0.1240 0.1082 0.1581 / "
    "0.1390 0.2369 0.2326 0.1242 0.1108 0.1565 / 0.1435 0.2074 0.2046 0.1462 0.1263 0.1720 / "
    "0.1526 0.1958 0.1975 0.1367 0.1879 0.1295 / 0.1385 0.2184 0.2128 0.1420 0.0988 0.1896",
)
def all_weights() -> Any:
    """Softmax of each row of scores."""
    return all_scores().softmax(-1)


@fact(
    "ch03-07",
    "0.4421 0.5931 0.5790 / 0.4419 0.6515 0.5683 / 0.4431 0.6496 0.5671 / 0.4304 0.6298 0.5510 / "
    "0.4671 0.5910 0.5266 / 0.4177 0.6503 0.5645",
)
def all_contexts() -> Tensor:
    """All context vectors."""
    return simple_self_attention(X)


# ---- with trained weights --------------------------------------------------------------------------------------------


def drawn_weights() -> list[Tensor]:
    """The matrices of queries, keys and values, (3, 2) each: uniform in [0, 1), drawn in this order."""
    rng = Generator(123)
    return [Tensor(rng.uniform(0, 1, (3, 2))) for _ in range(3)]


@fact("ch03-08", "0.4306 1.4551")
def query() -> Any:
    """Seed 123; three uniform matrices for Q, K, V; the query of the second token."""
    W_query, _, _ = drawn_weights()
    return X[1] @ W_query


@fact("ch03-09", "1.8524 / 1.2705 1.8524 1.8111 1.0795 0.5577 1.5440")
def scores_of_the_query() -> list[Tensor]:
    """Its score with its own key, and with all keys."""
    _, W_key, _ = drawn_weights()
    keys = X @ W_key  # (6, 2)
    return [query() @ keys[1], query() @ keys.T]


@fact("ch03-10", "0.1500 0.2264 0.2199 0.1311 0.0906 0.1820 / 0.3061 0.8210")
def context_of_the_query() -> list[Tensor]:
    """Softmax of the scores / √2, and the context vector."""
    _, W_key, W_value = drawn_weights()
    scores = query() @ (X @ W_key).T
    weights = (scores / math.sqrt(2)).softmax(-1)
    return [weights, weights @ (X @ W_value)]


@fact("ch03-11", "0.2996 0.8053 / 0.3061 0.8210 / 0.3058 0.8203 / 0.2948 0.7939 / 0.2927 0.7891 / 0.2990 0.8040")
def attention_v1() -> Tensor:
    """Self-attention with the uniform matrices."""
    q, k, v = (X @ W for W in drawn_weights())
    return (q @ k.T / math.sqrt(2)).softmax(-1) @ v


def attention_789() -> SelfAttention:
    """Seed 789: self-attention from 3 to 2 channels."""
    return SelfAttention(3, 2, rng=Generator(789))


@fact("ch03-12", "-0.0739 0.0713 / -0.0748 0.0703 / -0.0749 0.0702 / -0.0760 0.0685 / -0.0763 0.0679 / -0.0754 0.0693")
def attention_v2() -> Tensor:
    """Seed 789; self-attention with three linear layers."""
    out: Tensor = attention_789()(X)
    return out


@fact(
    "ch03-22",
    "-0.5337 -0.1051 / -0.5323 -0.1080 / -0.5323 -0.1079 / -0.5297 -0.1076 / -0.5311 -0.1066 / -0.5299 -0.1081 / "
    "-0.5337 -0.1051 / -0.5323 -0.1080 / -0.5323 -0.1079 / -0.5297 -0.1076 / -0.5311 -0.1066 / -0.5299 -0.1081",
)
def exercise_3_1() -> list[Tensor]:
    """Exercise 3.1: seed 123; linear layers, and the same weights transposed as plain matrices."""
    v2 = SelfAttention(3, 2, rng=Generator(123))
    q, k, v = (X @ layer.weight.T for layer in (v2.W_query, v2.W_key, v2.W_value))
    return [v2(X), (q @ k.T / math.sqrt(2)).softmax(-1) @ v]


# ---- causal attention and dropout ------------------------------------------------------------------------------------


@fact(
    "ch03-14",
    "1.0000 0.0000 0.0000 0.0000 0.0000 0.0000 / 0.5517 0.4483 0.0000 0.0000 0.0000 0.0000 / "
    "0.3800 0.3097 0.3103 0.0000 0.0000 0.0000 / 0.2758 0.2460 0.2462 0.2319 0.0000 0.0000 / "
    "0.2175 0.1983 0.1984 0.1888 0.1971 0.0000 / 0.1935 0.1663 0.1666 0.1542 0.1666 0.1529",
)
def masked_then_normalized() -> Tensor:
    """Seed 789; weights times a lower triangle of ones, each row divided by its sum."""
    masked = attention_789().scores(X).softmax(-1).tril()
    return masked / masked.sum(-1, keepdim=True)


@fact(
    "ch03-15",
    "0.2899 / 0.4656 0.1723 / 0.4594 0.1703 0.1731 / 0.2642 0.1024 0.1036 0.0186 / 0.2183 0.0874 0.0882 0.0177 0.0786"
    " / 0.3408 0.1270 0.1290 0.0198 0.1290 0.0078 / "
    "1.0000 / 0.5517 0.4483 / 0.3800 0.3097 0.3103 / 0.2758 0.2460 0.2462 0.2319 / 0.2175 0.1983 0.1984 0.1888 0.1971"
    " / 0.1935 0.1663 0.1666 0.1542 0.1666 0.1529",
)
def masked_scores() -> list[Tensor]:
    """Seed 789; scores with −∞ above the diagonal (the rest is shown), before ÷ √2; and the weights."""
    later = ~np.tri(6, dtype=bool)  # True above the diagonal
    scores = attention_789().scores(X) * math.sqrt(2)  # `scores` divides by √2
    masked = scores.masked_fill(later, -math.inf)
    return [masked[~later], (masked / math.sqrt(2)).softmax(-1)[~later]]


@fact("ch03-16", "2 2 0 2 2 0 / 0 0 0 2 0 2 / 2 2 2 2 0 2 / 0 2 2 0 0 2 / 0 2 0 2 0 2 / 0 2 2 2 2 0")
def dropout_of_ones() -> Tensor:
    """Seed 123; dropout with p = 0.5 of ones (6, 6)."""
    return F.dropout(Tensor(np.ones((6, 6), np.float32)), 0.5, rng=Generator(123))


@fact(
    "ch03-17",
    "2.0000 0 0 0 0 0 / 0 0 0 0 0 0 / 0.7599 0.6194 0.6206 0 0 0 / 0 0.4921 0.4925 0 0 0 / 0 0.3966 0 0.3775 0 0 / "
    "0 0.3327 0.3331 0.3084 0.3331 0",
)
def dropout_of_weights() -> Tensor:
    """Seed 123; dropout with p = 0.5 of the causal weights."""
    return F.dropout(masked_then_normalized(), 0.5, rng=Generator(123))


def two_texts() -> Tensor:
    """The six tokens twice, (B, T, C) = (2, 6, 3)."""
    return F.stack([X, X])


def with_shape(out: Tensor) -> list[object]:
    """A Tensor, and then its shape."""
    return [out, out.shape]


_ONE_HEAD = (
    "-0.4519 0.2216 / -0.5874 0.0058 / -0.6300 -0.0632 / -0.5675 -0.0843 / -0.5526 -0.0981 / -0.5299 -0.1081 / "
)  # fmt: skip


@fact("ch03-18", _ONE_HEAD * 2 + "2 6 2")
def causal_attention() -> list[object]:
    """Seed 123; causal attention of two equal texts; shape."""
    attention = CausalAttention(3, 2, context_length=6, dropout=0.0, rng=Generator(123))
    return with_shape(attention(two_texts()))


_TWO_HEADS = (
    "-0.4519 0.2216 0.4772 0.1063 / -0.5874 0.0058 0.5891 0.3257 / -0.6300 -0.0632 0.6202 0.3860 / "
    "-0.5675 -0.0843 0.5478 0.3589 / -0.5526 -0.0981 0.5321 0.3428 / -0.5299 -0.1081 0.5077 0.3493 / "
)  # fmt: skip


@fact("ch03-19", _TWO_HEADS * 2 + "2 6 4")
def two_heads() -> list[object]:
    """Seed 123; two heads side by side; shape."""
    heads: Module = MultiHeadWrapper(3, 2, context_length=6, dropout=0.0, num_heads=2, rng=Generator(123))
    return with_shape(heads(two_texts()))


_ONE_MODULE = (
    "0.3190 0.4858 / 0.2943 0.3897 / 0.2856 0.3593 / 0.2693 0.3873 / 0.2639 0.3928 / 0.2575 0.4028 / "
)  # fmt: skip


@fact("ch03-20", _ONE_MODULE * 2 + "2 6 2")
def multi_head_attention() -> list[object]:
    """Seed 123; two heads in one module, from 3 to 2 channels, and an output layer; shape."""
    attention = MultiHeadAttention(2, n_head=2, qkv_bias=False, d_in=3, rng=Generator(123))
    return with_shape(attention(two_texts()))


@fact(
    "ch03-21",
    "1.3208 1.1631 1.2879 / 1.1631 2.2150 1.8424 / 1.2879 1.8424 2.0402 / "
    "0.4391 0.7003 0.5903 / 0.7003 1.3737 1.0620 / 0.5903 1.0620 0.9912",
)
def batched_product() -> Tensor:
    """A Aᵀ of two heads at once, A (1, 2, 3, 4)."""
    first = [[0.2745, 0.6584, 0.2775, 0.8573], [0.8993, 0.0390, 0.9268, 0.7388], [0.7179, 0.7058, 0.9156, 0.4340]]
    second = [[0.0772, 0.3565, 0.1479, 0.5331], [0.4066, 0.2318, 0.4545, 0.9737], [0.4606, 0.5159, 0.4220, 0.5786]]
    A = Tensor(np.array([[first, second]], np.float32))
    return A @ A.mT  # (1, 2, 3, 3)
