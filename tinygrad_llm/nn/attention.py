"""`MultiHeadAttention`, as in GPT-2. `nn/attention_steps.py` leads to it step by step."""

import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor, is_grad_enabled
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn.layers import Dropout, Linear
from tinygrad_llm.nn.module import Module
from tinygrad_llm.random import Generator


class LayerCache(Protocol):
    """The keys and values of earlier positions that one attention layer keeps while a text is generated."""

    def extend(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append (B, H, T, D) keys and values, and return all so far."""
        ...


class MultiHeadAttention(Module):
    """Causal self-attention in n_head heads, all computed at once.

    One linear layer computes queries, keys and values. Each head attends within its own D = C / n_head channels, and
    another linear layer mixes the heads. Dropout acts on the attention weights and on the output.

    Args:     n_embd: C. n_head: H, which divides C. dropout: probability, at both places. qkv_bias: bias of c_attn.
              std, proj_std: initialization of c_attn and c_proj (see `nn.layers`). With None, queries, keys and
              values start as three layers of PyTorch. d_in: channels of x; None: C.
    Shapes:   x (B, T, d_in) → (B, T, C).
    Raises:   ValueError: n_embd is not a multiple of n_head; x is not (B, T, d_in).
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        dropout: float = 0.0,
        qkv_bias: bool = True,
        *,
        rng: Generator,
        std: float | None = None,
        proj_std: float | None = None,
        d_in: int | None = None,
    ) -> None:
        if n_head < 1 or n_embd < 1 or n_embd % n_head:
            raise ValueError(f"n_embd ({n_embd}) must be a multiple of n_head ({n_head}), both ≥ 1")
        self.n_head = n_head
        self.c_attn = Linear(n_embd if d_in is None else d_in, 3 * n_embd, qkv_bias, rng=rng, std=std, parts=3)
        self.c_proj = Linear(n_embd, n_embd, rng=rng, std=proj_std)
        self.attn_dropout = Dropout(dropout, rng=rng)
        self.resid_dropout = Dropout(dropout, rng=rng)

    def forward(
        self,
        x: Tensor,
        caches: Sequence[LayerCache] | None = None,
        recompute: bool = False,
        fused: bool = True,
        turn: Array | None = None,
    ) -> Tensor:
        """Each position becomes a mixture of itself and of earlier positions.

        Args:     caches: one for the whole batch, or one for each row; only after eval(), inside `no_grad`.
                  recompute: see `kernels.causal_attention`. fused: attend in one operation; with False, each step is
                  an operation of its own on the tape. A cached call records nothing, and is always fused.
                  turn: the positions of x, (T,) or (B, T), by which queries and keys are turned (`F.rotary`).
        """
        if x.ndim != 3:
            raise ValueError(f"MultiHeadAttention: got x {x.shape}, which must be (B, T, C): for one text, x[None]")
        qkv = self.c_attn(x)
        if turn is not None:
            # One operation turns all three: values stand at position 0, which turns nothing.
            parts = qkv.reshape(*qkv.shape[:2], 3, self.n_head, -1)  # (B, T, 3, H, D)
            qkv = F.rotary(parts, turn[..., None, None] * np.array([[1], [1], [0]])).reshape(qkv.shape)
        if caches is not None:
            y = self._attend_to_cached(qkv, caches)
        elif fused:
            p = self.attn_dropout.p if self.training else 0.0
            y = F.causal_self_attention(qkv, self.n_head, p, self.attn_dropout.rng, recompute)
        else:
            y = self._attend_step_by_step(qkv)
        out: Tensor = self.resid_dropout(self.c_proj(y))
        return out

    def _attend_step_by_step(self, qkv: Tensor) -> Tensor:
        """(B, T, 3C) → (B, T, C), one operation at a time."""
        B, T, C3 = qkv.shape
        H, D = self.n_head, C3 // 3 // self.n_head
        q, k, v = qkv.reshape(B, T, 3, H, D).permute(2, 0, 3, 1, 4)  # (B, H, T, D) each
        scores = q @ k.mT * (1 / math.sqrt(D))  # (B, H, T, T)
        later = ~np.tri(T, dtype=bool)  # True where the key stands after the query
        weights = scores.masked_fill(later, -math.inf).softmax(-1)
        heads = self.attn_dropout(weights) @ v  # (B, H, T, D)
        y: Tensor = heads.transpose(1, 2).reshape(B, T, H * D)
        return y

    def _attend_to_cached(self, qkv: Tensor, caches: Sequence[LayerCache]) -> Tensor:
        """(B, T, 3C) → (B, T, C): the queries of the new positions attend to all keys so far."""
        if is_grad_enabled() or self.training:
            # Cached keys have no gradient, and a dropout mask would have to span several calls.
            raise RuntimeError("a cache is for generating text: call the model after eval(), inside no_grad()")
        B, T, C3 = qkv.shape
        n = len(caches)
        # On arrays: nothing is recorded, and the Tensors would cost more time than one token's arithmetic.
        q, k, v = qkv.data.reshape(n, B // n, T, 3, self.n_head, -1).transpose(3, 0, 1, 4, 2, 5)  # (n, B/n, H, T, D)
        parts = []
        for i, cache in enumerate(caches):
            keys, values = cache.extend(Tensor(k[i]), Tensor(v[i]))
            parts.append(K.causal_attention(q[i], keys.data, values.data, recompute=True)[0])
        y = parts[0] if n == 1 else np.concatenate(parts)
        return Tensor(y.swapaxes(1, 2).reshape(B, T, C3 // 3))
