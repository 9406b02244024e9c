"""GPT: the decoder of GPT-2, with GPT-2's names.

Shapes: B batch, T time (≤ block_size), C channels (n_embd), V vocabulary.
"""

import dataclasses
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from tinygrad_llm import autograd
from tinygrad_llm import functional as F
from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.generation import KVCache, Sampling, generate
from tinygrad_llm.kernels import Array
from tinygrad_llm.models.config import GPTConfig
from tinygrad_llm.models.inputs import as_ids, as_targets
from tinygrad_llm.nn import GELU, Dropout, Embedding, LayerCache, LayerNorm, Linear, Module, MultiHeadAttention
from tinygrad_llm.random import Generator, check_generator
from tinygrad_llm.weights import PreTrainedModel


class MLP(Module):
    """Two linear layers with a GELU between them, for each position by itself: C → 4C → C."""

    def __init__(self, config: GPTConfig, rng: Generator) -> None:
        C = config.n_embd
        self.c_fc = Linear(C, 4 * C, rng=rng, std=config.initializer_range)
        self.gelu = GELU()
        self.c_proj = Linear(4 * C, C, rng=rng, std=_residual_std(config))
        self.dropout = Dropout(config.dropout, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dropout(self.c_proj(self.gelu(self.c_fc(x))))
        return y


class Block(Module):
    """Attention mixes positions, and the MLP transforms each; both add their output to the stream that they read."""

    def __init__(self, config: GPTConfig, rng: Generator) -> None:
        self.ln_1 = LayerNorm(config.n_embd)
        self.attn = MultiHeadAttention(
            config.n_embd,
            config.n_head,
            config.dropout,
            config.qkv_bias,
            rng=rng,
            std=config.initializer_range,
            proj_std=_residual_std(config),
        )
        self.ln_2 = LayerNorm(config.n_embd)
        self.mlp = MLP(config, rng)

    def forward(
        self,
        x: Tensor,
        caches: Sequence[LayerCache] | None = None,
        recompute: bool = False,
        fused: bool = True,
        turn: Array | None = None,
    ) -> Tensor:
        x = x + self.attn(self.ln_1(x), caches, recompute, fused, turn)
        x = x + self.mlp(self.ln_2(x))
        return x


def _residual_std(config: GPTConfig) -> float | None:
    """Scaled like this, the 2·n_layer outputs that are added to the stream start with the variance of one."""
    std = config.initializer_range
    return None if std is None else std / math.sqrt(2 * config.n_layer)


class Transformer(Module):
    """Everything except the output head: ids → the final hidden states."""

    def __init__(self, config: GPTConfig, rng: Generator) -> None:
        std = 1.0 if config.initializer_range is None else config.initializer_range
        self.wte = Embedding(config.vocab_size, config.n_embd, rng=rng, std=std)
        self.positions = config.positions
        if config.positions == "absolute":
            self.wpe = Embedding(config.block_size, config.n_embd, rng=rng, std=std)
        # Sines are as large as 1. So tokens that start smaller are made larger, as in the first transformer.
        self.scale = 1.0 if config.initializer_range is None else math.sqrt(config.n_embd)
        self.drop = Dropout(config.dropout, rng=rng)
        self.h = [Block(config, rng) for _ in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd)

    def forward(
        self, ids: Array, caches: Sequence[KVCache] | None = None, recompute: bool = False, fused: bool = True
    ) -> Tensor:
        at = np.arange(ids.shape[1])  # (T,), or (1 or B, T) with caches
        if caches is not None:
            at = np.array([[cache.length] for cache in caches]) + at
        x: Tensor = self.wte(ids)  # (B, T, C)
        if self.positions == "absolute":
            x = x + (self.wpe.weight[: len(at)] if caches is None else self.wpe(at))
        elif self.positions == "sinusoidal":
            x = x * self.scale + K.sinusoidal(at, x.shape[-1], x.dtype)
        x = self.drop(x)
        turn = at if self.positions == "rotary" else None
        for i, block in enumerate(self.h):
            if recompute and caches is None:
                drawn = dict.fromkeys(m.rng for m in block.modules() if isinstance(m, Dropout) and m.training and m.p)
                again = partial(block, recompute=True, fused=fused, turn=turn)
                x = autograd.recompute(again, x, block.parameters(), list(drawn))
            else:
                x = block(x, None if caches is None else [cache.layers[i] for cache in caches], fused=fused, turn=turn)
        x = self.ln_f(x)
        return x


class GPT(PreTrainedModel):
    """A decoder-only transformer: at each position, it scores every token that may come next.

    Args:     config: the sizes. rng: draws the initial weights and the dropout masks; Generator(0) if None.
              recompute: keep only the input of each block for backward, and compute the rest a second time there.
              This takes less memory and a third more time, and gives the same gradients to the last bit. No memory
              grows with T² then, except the dropout masks of the attention weights, one byte each, of one block.
              fused: compute attention and the loss in fused operations, which take less time and memory. With False,
              every intermediate (queries, scores, weights, heads, logits) is on the tape as an operation of its own.
              Both give the same values and gradients, to rounding. `model.fused` may be set at any time.
    Shapes:   ids (B, T) → logits (B, T, V).
    Source:   Radford et al. 2019 (GPT-2). Weights start from N(0, s²), s = initializer_range; those that write into
              the residual stream from N(0, s² / (2·n_layer)), an untied head from N(0, 1 / n_embd²). Without
              initializer_range, they start as PyTorch's layers do, drawn in this order: wte, wpe; in each block
              queries, keys, values, c_proj, c_fc, c_proj; the head.
    """

    config_class = GPTConfig
    config: GPTConfig

    def __init__(
        self, config: GPTConfig, rng: Generator | None = None, *, recompute: bool = False, fused: bool = True
    ) -> None:
        super().__init__(config)
        rng = Generator(0) if rng is None else check_generator(rng)
        self.recompute = recompute
        self.fused = fused
        self.transformer = Transformer(config, rng)
        tied = self.transformer.wte.weight if config.tie_weights else None
        # Of an untied head: the first logits are small, and the first loss is ln V.
        std = None if config.initializer_range is None else 1 / config.n_embd
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False, rng=rng, std=std, weight=tied)

    @property
    def block_size(self) -> int:
        return self.config.block_size

    def set_block_size(self, block_size: int) -> None:
        """Let the model read more positions at once than it was made for, or fewer; no parameter changes.

        How well it reads them is another matter: see `kernels.positions`.

        Raises:   ValueError: the positions are absolute, so there is one vector for each; not a positive integer.
        """
        if self.config.positions == "absolute" and block_size != self.config.block_size:
            raise ValueError(
                f"this model's positions are absolute, with a learned vector for each of {self.config.block_size}: "
                f"to read {block_size} at once, train one with positions rotary or sinusoidal, or a larger block_size"
            )
        self.config = dataclasses.replace(self.config, block_size=block_size)

    def new_cache(self) -> KVCache:
        """An empty cache, which a caller passes with each new piece of a text."""
        return KVCache(self.config.n_layer, self.config.block_size)

    def forward(
        self, ids: Any, cache: KVCache | Sequence[KVCache] | None = None, logits_to_keep: int | None = None
    ) -> Tensor:
        """Logits for ids (B, T), which follow those in the cache.

        Args:     cache: one for the whole batch, or one for each row, which may have read different lengths.
                  logits_to_keep: compute logits for the last N positions only (None: all). One position is enough to
                  choose the next token, and none to fill the cache.
        Returns:  (B, T, V), or (B, logits_to_keep, V).
        Raises:   ValueError: ids that are not (B, T), or more than block_size positions; a number of caches that is
                  neither 1 nor B; a negative logits_to_keep. IndexError: an id outside the vocabulary.
        """
        ids = as_ids(ids)
        if logits_to_keep is not None and logits_to_keep < 0:
            raise ValueError(f"logits_to_keep must be ≥ 0, or None for all, got {logits_to_keep}")
        caches = [cache] if isinstance(cache, KVCache) else cache
        end = ids.shape[1] + max((cache.length for cache in caches or ()), default=0)
        if end > self.config.block_size:
            raise ValueError(f"got {end} positions, more than block_size {self.config.block_size}")
        if caches is not None and len(caches) not in (1, len(ids)):
            raise ValueError(f"got {len(caches)} caches for {len(ids)} rows: give one for all, or one for each")
        if any(len(cache.layers) != self.config.n_layer for cache in caches or ()):
            raise ValueError(f"got the cache of another model: this one has {self.config.n_layer} layers: new_cache()")
        if len({id(cache) for cache in caches or ()}) != len(caches or ()):
            raise ValueError("got one cache for two rows: give each row its own")
        x = self.transformer(ids, caches, self.recompute, self.fused)
        logits: Tensor = self.lm_head(x if logits_to_keep is None else x[:, max(0, x.shape[1] - logits_to_keep) :])
        return logits

    def loss(self, ids: Any, targets: Any, label_smoothing: float = 0.0, count: int | None = None) -> Tensor:
        """The mean cross-entropy of the targets (B, T), in nats per token; targets of −100 do not count.

        The logits are those of `forward`, whatever `lm_head` is.

        Args:     label_smoothing, count: see `functional.linear_cross_entropy`.
        Raises:   ValueError, IndexError: as `forward`; also targets of another shape, or none that counts.
        """
        ids = as_ids(ids)
        targets = as_targets(targets, ids.shape)
        if ids.shape[1] > self.config.block_size:
            raise ValueError(f"got {ids.shape[1]} positions, more than block_size {self.config.block_size}")
        loss = self._fused_loss if self.fused and self._head_is_its_own else self._plain_loss
        return self.as_layer(loss, ids, targets.reshape(-1), label_smoothing, count)  # type: ignore[no-any-return]

    @property
    def _head_is_its_own(self) -> bool:
        """Whether `forward` ends in a product with the head's weight and nothing else, as `linear_cross_entropy` does.

        Someone may have put another head in its place, given it a bias, or another forward.
        """
        head = self.lm_head
        overridden = type(self).forward is not GPT.forward or "forward" in {**vars(self), **vars(head)}
        return type(head) is Linear and head.bias is None and not overridden

    def _fused_loss(self, ids: Array, targets: Array, label_smoothing: float, count: int | None) -> Tensor:
        x = self.transformer(ids, None, self.recompute)
        x = x.reshape(-1, x.shape[-1])
        return F.linear_cross_entropy(x, self.lm_head.weight, targets, label_smoothing=label_smoothing, count=count)

    def _plain_loss(self, ids: Array, targets: Array, label_smoothing: float, count: int | None) -> Tensor:
        logits = self.forward(ids)
        logits = logits.reshape(-1, logits.shape[-1])  # another head may have another number of outputs
        if count is None:
            return F.cross_entropy(logits, targets, label_smoothing=label_smoothing)
        if count < 1:
            raise ValueError(f"got count {count}, which must be ≥ 1")
        return F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing) / float(count)

    def log_probs(self, ids: Any, targets: Any) -> Tensor:
        """The logarithm of the probability of each row's targets: the sum over those that are not −100.

        Args:     ids, targets: (B, T) each, as for `loss`.
        Returns:  (B,), in nats.
        Raises:   as `loss`, but for rows without a target that counts: they give 0.
        """
        ids = as_ids(ids)
        targets = as_targets(targets, ids.shape)
        logits = self(ids)
        logits = logits.reshape(-1, logits.shape[-1])
        losses = F.cross_entropy(logits, targets.reshape(-1), reduction="none")
        return -losses.reshape(*ids.shape).sum(1)

    def generate(
        self,
        ids: Any,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        rng: Generator | Sequence[Generator] | None = None,
        use_cache: bool = True,
        repetition_penalty: float = 1.0,
        forbidden: Sequence[int] = (),
        eos_id: int | None = None,
    ) -> Any:
        """The prompt, (T,), (B, T) or rows of unequal lengths, and max_new_tokens more: see `generation.generate`."""
        sampling = Sampling(temperature, top_k, top_p, repetition_penalty, tuple(forbidden))
        return generate(self, ids, max_new_tokens, sampling, rng, use_cache, eos_id)
