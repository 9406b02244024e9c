"""Encoder: the transformer of BERT, which reads a text from both sides, with BERT's names.

Two things distinguish it from `GPT`: no mask hides the later positions, so each word sees all others; and it predicts
words that are hidden in the text, not the next one. The rest is history: BERT normalizes after each sum, and not before
each layer (post-norm), and its GELU is the exact one.

Shapes: B batch, T time (≤ block_size), C channels (n_embd), H heads, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, ClassVar, Literal

import numpy as np

from tinygrad_llm import autograd
from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import IGNORE_INDEX, Array
from tinygrad_llm.kernels.positions import sinusoidal
from tinygrad_llm.models.config import check_positions, check_sizes
from tinygrad_llm.models.inputs import as_ids, as_lengths, as_targets, hide_padding
from tinygrad_llm.nn import Dropout, Embedding, LayerNorm, Linear, Module, Parameter
from tinygrad_llm.random import Generator, check_generator
from tinygrad_llm.weights import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """The sizes of an encoder; the defaults are those of BERT base.

    Args:     dropout: probability at all three sites (embeddings, attention weights, the output of each sublayer).
              segments: how many kinds of text there are, such as question and answer; each has a vector of its own.
              initializer_range: standard deviation of the initial weights; narrow models take a larger one than BERT's.
              layer_norm_eps: added to the variance in every layer norm. positions: as for `GPTConfig`; BERT's are
              absolute.
    Raises:   ValueError: as `GPTConfig`; layer_norm_eps not in (0, 1).
    """

    vocab_size: int = 30522
    block_size: int = 512
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.1
    segments: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    positions: Literal["absolute", "sinusoidal", "rotary"] = "absolute"

    kind: ClassVar[str] = "encoder"  # in `models.MODELS`
    published: ClassVar[Mapping[str, Any]] = {}  # by name; set below

    def __post_init__(self) -> None:
        check_sizes(self, "EncoderConfig")
        check_positions(self.positions, self.n_embd, self.n_head, "EncoderConfig")
        eps = self.layer_norm_eps
        if type(eps) is not float or not 0 < eps < 1:
            raise ValueError(f"EncoderConfig: layer_norm_eps must lie in (0, 1), got {eps!r}")
        if self.initializer_range is None:
            raise ValueError("EncoderConfig: initializer_range must lie in (0, 1], got None")

    @property
    def num_parameters(self) -> int:
        """How many parameters an encoder of these sizes has, without making one."""
        last = dataclasses.replace(self, n_layer=1)
        one = sum(math.prod(shape) for name, shape in last.shapes() if ".layer." in name)
        return sum(math.prod(shape) for _, shape in last.shapes()) + (self.n_layer - 1) * one

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The name and shape of every parameter of an encoder of these sizes, without making one."""
        yield from self._body()
        C = self.n_embd
        yield "cls.predictions.transform.dense.weight", (C, C)
        yield "cls.predictions.transform.dense.bias", (C,)
        yield from _norm("cls.predictions.transform", C)
        yield "cls.predictions.bias", (self.vocab_size,)

    def _body(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """All except the head."""
        C = self.n_embd
        tables = {"word": self.vocab_size, "position": self.block_size, "token_type": self.segments}
        for name, rows in tables.items():
            if name == "position" and self.positions != "absolute":
                continue
            yield f"bert.embeddings.{name}_embeddings.weight", (rows, C)
        yield from _norm("bert.embeddings", C)
        for i in range(self.n_layer):
            layer = f"bert.encoder.layer.{i}"
            for name, out, into in (
                *((f"attention.self.{part}", C, C) for part in ("query", "key", "value")),
                ("attention.output.dense", C, C),
                ("intermediate.dense", 4 * C, C),
                ("output.dense", C, 4 * C),
            ):
                yield f"{layer}.{name}.weight", (out, into)
                yield f"{layer}.{name}.bias", (out,)
                if name.endswith("output.dense"):
                    yield from _norm(f"{layer}.{name.removesuffix('.dense')}", C)


def _norm(layer: str, size: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{layer}.LayerNorm.weight", (size,)
    yield f"{layer}.LayerNorm.bias", (size,)


# Two of the BERTs that Google published, of 110M and 340M parameters.
EncoderConfig.published = {
    "bert-base-uncased": EncoderConfig(),
    "bert-large-uncased": EncoderConfig(n_layer=24, n_head=16, n_embd=1024),
}


class EncoderAttention(Module):
    """Self-attention in n_head heads, in which every position sees all others of its text.

    Shapes:   x (B, T, C), may (B, 1, 1, T) boolean or None → (B, T, C), the heads side by side.
    """

    def __init__(self, config: EncoderConfig, rng: Generator) -> None:
        C, std = config.n_embd, config.initializer_range
        self.n_head = config.n_head
        self.turns = config.positions == "rotary"
        self.query = Linear(C, C, rng=rng, std=std)
        self.key = Linear(C, C, rng=rng, std=std)
        self.value = Linear(C, C, rng=rng, std=std)
        self.dropout = Dropout(config.dropout, rng=rng)

    def forward(self, x: Tensor, may: Array | None = None, fused: bool = True) -> Tensor:
        """Args:     may: True where a position may be looked at; padding may not. None: all may.
        fused: attend in one operation; with False, each step is an operation of its own on the tape.
        """
        B, T, C = x.shape
        heads = [layer(x).reshape(B, T, self.n_head, C // self.n_head) for layer in (self.query, self.key, self.value)]
        if self.turns:
            heads[:2] = [F.rotary(part, np.arange(T)[:, None]) for part in heads[:2]]
        q, k, v = (part.transpose(1, 2) for part in heads)  # (B, H, T, D) each
        if fused:
            p = self.dropout.p if self.training else 0.0
            mixed = F.scaled_dot_product_attention(q, k, v, may, p, rng=self.dropout.rng)
        else:
            scores = q @ k.mT * (1 / math.sqrt(q.shape[-1]))  # (B, H, T, T)
            if may is not None:
                scores = scores.masked_fill(~may, -math.inf)
            mixed = self.dropout(scores.softmax(-1)) @ v
        y: Tensor = mixed.transpose(1, 2).reshape(B, T, C)
        return y


class AddAndNorm(Module):
    """The end of each sublayer: a linear layer, added to what the sublayer has read, then normalized (post-norm).

    Shapes:   x (B, T, in_features), residual (B, T, C) → (B, T, C).
    """

    def __init__(self, in_features: int, config: EncoderConfig, rng: Generator) -> None:
        self.dense = Linear(in_features, config.n_embd, rng=rng, std=config.initializer_range)
        self.LayerNorm = LayerNorm(config.n_embd, config.layer_norm_eps)
        self.dropout = Dropout(config.dropout, rng=rng)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        y: Tensor = self.LayerNorm(self.dropout(self.dense(x)) + residual)
        return y


class EncoderLayer(Module):
    """Attention mixes all positions, and two linear layers with a GELU transform each: C → 4C → C.

    The dicts only give the names that BERT has: attention.self.query, attention.output.dense, intermediate.dense.
    """

    def __init__(self, config: EncoderConfig, rng: Generator) -> None:
        C = config.n_embd
        self.attention = {"self": EncoderAttention(config, rng), "output": AddAndNorm(C, config, rng)}
        self.intermediate = {"dense": Linear(C, 4 * C, rng=rng, std=config.initializer_range)}
        self.output = AddAndNorm(4 * C, config, rng)

    def forward(self, x: Tensor, may: Array | None = None, fused: bool = True) -> Tensor:
        x = self.attention["output"](self.attention["self"](x, may, fused), x)
        x = self.output(F.gelu(self.intermediate["dense"](x), "none"), x)
        return x


class EncoderEmbeddings(Module):
    """The sum of three vectors for each token, normalized: of its word, of its position, of its segment."""

    def __init__(self, config: EncoderConfig, rng: Generator) -> None:
        C, std = config.n_embd, config.initializer_range
        self.word_embeddings = Embedding(config.vocab_size, C, rng=rng, std=std)
        self.positions = config.positions
        if config.positions == "absolute":
            self.position_embeddings = Embedding(config.block_size, C, rng=rng, std=std)
        self.token_type_embeddings = Embedding(config.segments, C, rng=rng, std=std)
        self.LayerNorm = LayerNorm(C, config.layer_norm_eps)
        self.dropout = Dropout(config.dropout, rng=rng)

    def forward(self, ids: Array, segments: Array | None = None) -> Tensor:
        x: Tensor = self.word_embeddings(ids)  # (B, T, C)
        if self.positions == "absolute":
            x = x + self.position_embeddings.weight[: ids.shape[1]]
        elif self.positions == "sinusoidal":
            # Multiplied by √C, a word is as long as the sines and cosines, as in the first transformer.
            x = x * math.sqrt(x.shape[-1]) + sinusoidal(np.arange(ids.shape[1]), x.shape[-1], x.dtype)
        x = x + (self.token_type_embeddings.weight[0] if segments is None else self.token_type_embeddings(segments))
        y: Tensor = self.dropout(self.LayerNorm(x))
        return y


class Bert(Module):
    """Everything except the head: ids → the final hidden states, and with `pooled`, the one of the whole text.

    Args:     pooled: add the pooler: a linear layer and a tanh on the state of the first token, [CLS].
    """

    def __init__(self, config: EncoderConfig, rng: Generator, pooled: bool = False) -> None:
        C = config.n_embd
        self.embeddings = EncoderEmbeddings(config, rng)
        self.encoder = {"layer": [EncoderLayer(config, rng) for _ in range(config.n_layer)]}
        if pooled:
            self.pooler = {"dense": Linear(C, C, rng=rng, std=config.initializer_range)}

    def forward(
        self,
        ids: Array,
        lengths: Array | None = None,
        segments: Array | None = None,
        recompute: bool = False,
        fused: bool = True,
    ) -> Tensor:
        """(B, T) → (B, T, C)."""
        may = None if lengths is None else hide_padding(lengths, ids.shape[1])
        x: Tensor = self.embeddings(ids, segments)
        for layer in self.encoder["layer"]:
            if recompute:
                drawn = dict.fromkeys(m.rng for m in layer.modules() if isinstance(m, Dropout) and m.training and m.p)
                again = partial(layer, may=may, fused=fused)
                x = autograd.recompute(again, x, layer.parameters(), list(drawn))
            else:
                x = layer(x, may, fused)
        return x

    def pool(self, x: Tensor) -> Tensor:
        """The final states (B, T, C) → one state for each text, (B, C)."""
        y: Tensor = self.pooler["dense"](x[:, 0]).tanh()
        return y


class MaskedWordHead(Module):
    """Scores every word for a hidden one: a linear layer, GELU and a layer norm, then the word embedding and a bias.

    Shapes:   x (..., C), embedding (V, C) → (..., V).
    """

    def __init__(self, config: EncoderConfig, rng: Generator) -> None:
        C = config.n_embd
        self.transform = {
            "dense": Linear(C, C, rng=rng, std=config.initializer_range),
            "LayerNorm": LayerNorm(C, config.layer_norm_eps),
        }
        self.bias = Parameter(np.zeros(config.vocab_size, np.float32))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        x = self.transform["LayerNorm"](F.gelu(self.transform["dense"](x), "none"))
        return F.linear(x, embedding, self.bias)


class Encoder(PreTrainedModel):
    """A bidirectional transformer: at each position, it scores every token that may stand there.

    Args:     config: the sizes. rng: draws the initial weights and the dropout masks; Generator(0) if None.
              recompute, fused: as for `GPT`; here, `fused` is about attention alone.
    Shapes:   ids (B, T) → logits (B, T, V).
    Source:   Devlin et al. 2018, arXiv:1810.04805 (BERT); transformers.BertForMaskedLM, whose names these are. Weights
              start from N(0, s²), s = initializer_range, and biases at 0.
    """

    config_class = EncoderConfig
    config: EncoderConfig

    def __init__(
        self, config: EncoderConfig, rng: Generator | None = None, *, recompute: bool = False, fused: bool = True
    ) -> None:
        super().__init__(config)
        rng = Generator(0) if rng is None else check_generator(rng)
        self.recompute = recompute
        self.fused = fused
        self.bert = Bert(config, rng)
        self.cls = {"predictions": MaskedWordHead(config, rng)}

    @property
    def block_size(self) -> int:
        return self.config.block_size

    def forward(self, ids: Any, lengths: Any = None, segments: Any = None) -> Tensor:
        """Logits for every position; those of padding mean nothing.

        Args:     ids: (B, T), padded on the right with any id. lengths: (B,) tokens of each row; None: all T. No
                  position looks at padding, so a prediction depends neither on padding nor on the other rows.
                  segments: (B, T), the kind of text of each token, as with a question and its answer; None: 0.
        Returns:  (B, T, V).
        Raises:   ValueError: ids or segments that are not (B, T), more than block_size positions, lengths that are not
                  B integers from 1 to T. IndexError: an id outside the vocabulary, or a segment outside its table.
        """
        x = self.bert(*checked(self.config, ids, lengths, segments), self.recompute, self.fused)
        return self._scores(x)

    def loss(
        self,
        ids: Any,
        targets: Any,
        lengths: Any = None,
        segments: Any = None,
        label_smoothing: float = 0.0,
        count: int | None = None,
    ) -> Tensor:
        """The mean cross-entropy of the targets (B, T), in nats per token; targets of −100 do not count.

        Args:     ids, lengths, segments: as for `forward`. label_smoothing: see `functional.cross_entropy`.
                  count: divide the sum by this number, and not by that of the targets that count, so that the losses
                  of the parts of a batch add up.
        Raises:   ValueError, IndexError: as `forward`; also targets of another shape, or none that counts.
        """
        logits, wanted = self.at_targets(ids, targets, lengths, segments)
        if count is None:
            return F.cross_entropy(logits, wanted, label_smoothing=label_smoothing)
        if count < 1:
            raise ValueError(f"got count {count}, which must be ≥ 1")
        return F.cross_entropy(logits, wanted, reduction="sum", label_smoothing=label_smoothing) / float(count)

    def at_targets(self, ids: Any, targets: Any, lengths: Any = None, segments: Any = None) -> tuple[Tensor, Array]:
        """The logits where a target counts, and those targets: (N, V) and (N,). The head computes no others.

        Raises:   as `loss`, but for targets of which none counts.
        """
        inputs = checked(self.config, ids, lengths, segments)
        targets = as_targets(targets, inputs[0].shape)
        counted = np.nonzero(targets != IGNORE_INDEX)
        logits = self.as_layer(lambda: self._scores(self.bert(*inputs, self.recompute, self.fused)[counted]))
        return logits, targets[counted]

    def _scores(self, x: Tensor) -> Tensor:
        logits: Tensor = self.cls["predictions"](x, self.bert.embeddings.word_embeddings.weight)
        return logits


def checked(config: EncoderConfig, ids: Any, lengths: Any, segments: Any) -> tuple[Array, Array, Array | None]:
    """The inputs of an encoder as arrays.

    Raises:   as `Encoder.forward`.
    """
    ids = as_ids(ids)
    if config.block_size < ids.shape[1]:
        raise ValueError(f"got {ids.shape[1]} positions, more than block_size {config.block_size}")
    lengths = as_lengths(lengths, ids)
    if segments is not None:
        segments = as_ids(segments, "segments")
        if segments.shape != ids.shape:
            raise ValueError(f"got segments {segments.shape}, which must have the shape of ids {ids.shape}")
    return ids, lengths, segments
