"""GPT: GPT-2's decoder, with GPT-2's names.

Shapes: B batch, T time (≤ block_size), C channels (n_embd), V vocabulary.
"""

import dataclasses
import json
import math
import textwrap
from pathlib import Path
from typing import Any, Self

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.formats import LoadError, load_safetensors, save_safetensors
from tinygrad_llm.generation import Ids, KVCache, generate
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn import GELU, Dropout, Embedding, LayerCache, LayerNorm, Linear, Module, MultiHeadAttention
from tinygrad_llm.random import Generator

WEIGHTS = "model.safetensors"  # the file in a checkpoint folder


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT; the defaults are GPT-2 small's.

    Args:     dropout: probability at all three sites (embeddings, attention weights, the output of each sublayer).
              qkv_bias: bias of the query, key and value projections. tie_weights: the output head is wte itself.
              initializer_range: standard deviation of the initial weights. GPT-2's is 0.02, with 768 channels;
              narrow models take a larger one (the preset `stories`).
    Raises:   ValueError: a size is not a positive integer; n_embd is not a multiple of n_head; dropout not in [0, 1);
              initializer_range not in (0, 1].
    """

    vocab_size: int = 50257
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    qkv_bias: bool = True
    tie_weights: bool = True
    initializer_range: float = 0.02

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise ValueError(f"GPTConfig: {field.name} must be a positive integer, not {value!r}")
            if field.type is bool and type(value) is not bool:
                raise ValueError(f"GPTConfig: {field.name} must be true or false, not {value!r}")
        if self.n_embd % self.n_head:
            raise ValueError(f"GPTConfig: n_embd ({self.n_embd}) must be a multiple of n_head ({self.n_head})")
        if type(self.dropout) not in (int, float) or not 0 <= self.dropout < 1:
            raise ValueError(f"GPTConfig: dropout must lie in [0, 1), not {self.dropout!r}")
        if type(self.initializer_range) not in (int, float) or not 0 < self.initializer_range <= 1:
            raise ValueError(f"GPTConfig: initializer_range must lie in (0, 1], not {self.initializer_range!r}")

    @property
    def num_parameters(self) -> int:
        """How many parameters a GPT of these sizes has, without making one; a tied head counts once."""
        C, V = self.n_embd, self.vocab_size
        attention = 3 * C * C + 3 * C * self.qkv_bias + C * C + C
        mlp = 8 * C * C + 5 * C
        layer_norms = 4 * C
        embeddings = (V + self.block_size) * C
        head = 0 if self.tie_weights else V * C
        return embeddings + self.n_layer * (attention + mlp + layer_norms) + 2 * C + head


class MLP(Module):
    """Each position on its own: C → 4C → GELU → C."""

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
    """Attention gathers from other positions, the MLP thinks it over; both add to the stream they read from."""

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

    def forward(self, x: Tensor, cache: LayerCache | None = None) -> Tensor:
        x = x + self.attn(self.ln_1(x), cache)
        x = x + self.mlp(self.ln_2(x))
        return x


def _residual_std(config: GPTConfig) -> float:
    """2·n_layer sublayers add to the residual stream; so scaled, their sum starts with the variance of one."""
    return config.initializer_range / math.sqrt(2 * config.n_layer)


class Transformer(Module):
    """Everything but the output head: ids → the final hidden states."""

    def __init__(self, config: GPTConfig, rng: Generator) -> None:
        std = config.initializer_range
        self.wte = Embedding(config.vocab_size, config.n_embd, rng=rng, std=std)
        self.wpe = Embedding(config.block_size, config.n_embd, rng=rng, std=std)
        self.drop = Dropout(config.dropout, rng=rng)
        self.h = [Block(config, rng) for _ in range(config.n_layer)]
        self.ln_f = LayerNorm(config.n_embd)

    def forward(self, ids: Array, cache: KVCache | None = None) -> Tensor:
        start = 0 if cache is None else cache.length
        x: Tensor = self.drop(self.wte(ids) + self.wpe.weight[start : start + ids.shape[1]])  # (B, T, C)
        for i, block in enumerate(self.h):
            x = block(x, None if cache is None else cache.layers[i])
        x = self.ln_f(x)
        return x


class GPT(Module):
    """A decoder-only transformer that gives, at each position, a score to every token that may come next.

    Args:     config: the sizes. rng: where the initial weights and the dropout masks come from; Generator(0) if None.
    Shapes:   ids (B, T) → logits (B, T, V).
    Source:   Radford et al. 2019 (GPT-2). Weights start from N(0, s²), s = initializer_range; those that write into
              the residual stream from N(0, s² / (2·n_layer)), an untied head from N(0, 1 / n_embd²).
    """

    def __init__(self, config: GPTConfig, rng: Generator | None = None) -> None:
        rng = rng or Generator(0)
        self.config = config
        self.transformer = Transformer(config, rng)
        tied = self.transformer.wte.weight if config.tie_weights else None
        std = 1 / config.n_embd  # of an untied head: the first logits are small, and the first loss is ln V
        self.lm_head = Linear(config.n_embd, config.vocab_size, bias=False, rng=rng, std=std, weight=tied)

    @property
    def block_size(self) -> int:
        return self.config.block_size

    def new_cache(self) -> KVCache:
        """An empty cache, to be passed along with each new piece of a text."""
        return KVCache(self.config.n_layer, self.config.block_size)

    def forward(self, ids: Any, cache: KVCache | None = None) -> Tensor:
        """Logits for ids (B, T), which follow those in the cache.

        Raises:   ValueError: ids are not (B, T), or go past block_size. IndexError: an id outside the vocabulary.
        """
        ids = _ids(ids)
        end = ids.shape[1] + (0 if cache is None else cache.length)
        if end > self.config.block_size:
            raise ValueError(f"{end} positions are more than block_size {self.config.block_size}")
        logits: Tensor = self.lm_head(self.transformer(ids, cache))
        return logits

    def loss(self, ids: Any, targets: Any) -> Tensor:
        """Mean cross-entropy, in nats a token, of the targets (B, T); those that are −100 do not count.

        Raises:   ValueError, IndexError: as `forward`; targets of another shape; none that counts.
        """
        ids, targets = _ids(ids), _ids(targets, "targets")
        if targets.shape != ids.shape:
            raise ValueError(f"targets {targets.shape} must have the shape of ids {ids.shape}")
        logits = self(ids)
        return F.cross_entropy(logits.reshape(-1, self.config.vocab_size), targets.reshape(-1))

    def generate(
        self,
        ids: Any,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        rng: Generator | None = None,
        use_cache: bool = True,
    ) -> Ids:
        """The prompt (T,) or (B, T) and max_new_tokens more: see `generation.stream`."""
        return generate(self, ids, max_new_tokens, temperature, top_k, top_p, rng, use_cache)

    def save_pretrained(self, path: str | Path) -> None:
        """Write the model into a folder, made if need be, as one safetensors file that also carries the config.

        The file is replaced only when the new one is whole.

        Raises:   ValueError: a weight is NaN or infinite; nothing is written then.
        """
        state = self.state_dict()
        broken = _not_finite(state)
        if broken:
            raise ValueError(f"not saved to {path}: NaN or infinity in {', '.join(broken)}")
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        metadata = {"format": "tinygrad_llm.GPT", "config": json.dumps(dataclasses.asdict(self.config))}
        save_safetensors(folder / WEIGHTS, state, metadata)

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Read a model that `save_pretrained` wrote: its folder, or the file itself.

        Raises:   LoadError: no model there, a damaged file, or weights that do not fit the config.
        """
        file = Path(path)
        if file.is_dir():
            file = file / WEIGHTS
        if not file.is_file():
            raise LoadError(f"{path}: no model here ({file.name} is missing): train one, or check the path")
        state, metadata = load_safetensors(file)
        try:
            config = GPTConfig(**json.loads(metadata["config"]))
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise LoadError(f"{file}: field 'config' does not describe a GPT: {_brief(error)}") from error
        # Before memory is taken for parameters, and for layers, each of which has at least 11 tensors.
        held = sum(array.size for array in state.values())
        if config.num_parameters != held or 11 * config.n_layer > len(state):
            raise LoadError(f"{file}: {len(state)} tensors with {held:,} parameters are not what the config asks for")
        broken = _not_finite(state)
        if broken:
            raise LoadError(f"{file}: NaN or infinity in {_brief(', '.join(broken))}")
        model = cls(config)
        if all(array.dtype == np.float64 for array in state.values()):
            model.to(np.float64)
        try:
            model.load_state_dict(state)
        except ValueError as error:
            raise LoadError(f"{file}: {_brief(error)}") from error
        return model


def _not_finite(state: dict[str, Array]) -> list[str]:
    """The names of the tensors that hold NaN or infinity."""
    return [name for name, array in state.items() if not np.isfinite(array).all()]


def _brief(error: object) -> str:
    """One line of bounded length: names in a file may hold line breaks, and be many."""
    return textwrap.shorten(str(error), 500)


def _ids(ids: Any, what: str = "ids") -> Array:
    array = ids.data if isinstance(ids, Tensor) else np.asarray(ids)
    if array.ndim != 2 or array.dtype.kind not in "iu" or array.size == 0:
        raise ValueError(f"{what} must be integers of shape (B, T), not {array.dtype} of shape {array.shape}")
    return array
