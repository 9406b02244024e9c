"""The transformer of 2017, which translates: an encoder reads the source, and a decoder writes the target from it.

The decoder's blocks are a GPT's with a third sublayer, cross-attention: there, queries come from the target and keys
and values from the source. The encoder's blocks are a GPT's without the causal mask. Layers have the names of
torch.nn.Transformer.

Shapes: B batch, S source tokens, T target tokens, C channels (n_embd), H heads, D = C / H, V vocabulary.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.generation import KVCache
from tinygrad_llm.kernels import Array
from tinygrad_llm.models.config import check_positions, check_sizes
from tinygrad_llm.models.inputs import as_ids, as_lengths, as_targets, hide_padding
from tinygrad_llm.nn import Dropout, Embedding, LayerNorm, Linear, Module, Parameter
from tinygrad_llm.random import Generator, check_generator
from tinygrad_llm.weights import PreTrainedModel


@dataclasses.dataclass(frozen=True)
class TranslatorConfig:
    """The sizes of a translator; the defaults are those of the paper's base model.

    With its vocabulary of 37,000, that has 63,082,496 parameters ("65 · 10⁶" in the paper's table 3): 18,944,000 in
    the one embedding, 6 · 3,152,384 in the encoder and 6 · 4,204,032 in the decoder.

    Args:     vocab_size: of source and target together, which share one embedding. block_size: the most tokens of a
              source, and of a target with its start. n_layer: blocks of the encoder, and as many of the decoder.
              dropout: probability at the embeddings and at the output of each sublayer.
              norm_first: layer norm before each sublayer (pre-norm, as in GPT-2) and once at the end of each stack;
              else after each sum (post-norm, as in 2017). cross_attention: with False, the decoder never sees the
              source: to show what cross-attention is for.
    Raises:   ValueError: a size is not a positive integer; n_embd is odd or no multiple of n_head; dropout not in
              [0, 1).
    Source:   Vaswani et al. 2017, arXiv:1706.03762, section 3.
    """

    vocab_size: int = 37000
    block_size: int = 256
    n_layer: int = 6
    n_head: int = 8
    n_embd: int = 512
    dropout: float = 0.1
    norm_first: bool = False
    cross_attention: bool = True

    kind: ClassVar[str] = "translator"  # in `models.MODELS`
    published: ClassVar[Mapping[str, Any]] = {}

    def __post_init__(self) -> None:
        check_sizes(self, "TranslatorConfig")
        check_positions("sinusoidal", self.n_embd, self.n_head, "TranslatorConfig")

    @property
    def num_parameters(self) -> int:
        """How many parameters a translator of these sizes has, without making one; the embedding counts once."""
        return sum(math.prod(shape) for _, shape in self.shapes())

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The name and shape of every parameter, without making a model."""
        C = self.n_embd
        attention = {"in_proj_weight": (3 * C, C), "in_proj_bias": (3 * C,)}
        attention |= {"out_proj.weight": (C, C), "out_proj.bias": (C,)}
        mlp = {"linear1.weight": (4 * C, C), "linear1.bias": (4 * C,), "linear2.weight": (C, 4 * C)}
        norm = {"weight": (C,), "bias": (C,)}
        yield "embedding.weight", (self.vocab_size, C)
        for stack in ("encoder", "decoder"):
            crosses = stack == "decoder" and self.cross_attention
            sublayers = ["self_attn"] + ["multihead_attn"] * crosses
            for layer in range(self.n_layer):
                for sublayer in sublayers:
                    yield from ((f"{stack}.layers.{layer}.{sublayer}.{name}", size) for name, size in attention.items())
                for name, size in {**mlp, "linear2.bias": (C,)}.items():
                    yield f"{stack}.layers.{layer}.{name}", size
                for i in range(1, len(sublayers) + 2):
                    yield from ((f"{stack}.layers.{layer}.norm{i}.{name}", size) for name, size in norm.items())
            if self.norm_first:
                yield from ((f"{stack}.norm.{name}", size) for name, size in norm.items())


class Attention(Module):
    """Multi-head attention from x to a memory: self-attention where they are the same, else cross-attention.

    Parameters are those of torch.nn.MultiheadAttention: the first C rows of `in_proj_weight` make queries, the next C
    keys, the last C values.

    Shapes:   x (B, T, C), memory (B, S, C) → (B, T, C).
    """

    def __init__(self, n_embd: int, n_head: int, *, rng: Generator) -> None:
        bound = math.sqrt(3 / n_embd)  # Xavier's for C → C
        self.n_head = n_head
        self.in_proj_weight = Parameter(check_generator(rng).uniform(-bound, bound, (3 * n_embd, n_embd)))
        self.in_proj_bias = Parameter(np.zeros(3 * n_embd, np.float32))
        self.out_proj = _xavier(n_embd, n_embd, rng)

    def forward(self, x: Tensor, memory: Tensor | None = None, mask: Array | None = None) -> Tensor:
        """Each position of x becomes a mixture of the memory's positions.

        Args:     memory: None: x itself, and each position sees only itself and earlier ones.
                  mask: boolean, broadcasts to (B, H, T, S): True where a position may attend.
        """
        if memory is None:
            y = F.causal_self_attention(F.linear(x, self.in_proj_weight, self.in_proj_bias), self.n_head)
            out: Tensor = self.out_proj(y)
            return out
        return self.attend(self.queries(x), *self.keys_and_values(memory), mask)

    def queries(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, H, T, D)."""
        return self._heads(x, 0)

    def keys_and_values(self, memory: Tensor) -> tuple[Tensor, Tensor]:
        """(B, S, C) → (B, H, S, D) each."""
        return self._heads(memory, 1), self._heads(memory, 2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, mask: Array | None = None) -> Tensor:
        """The heads' mixtures of the values, mixed with each other: → (B, T, C)."""
        y = F.scaled_dot_product_attention(q, k, v, mask)  # (B, H, T, D)
        B, H, T, D = y.shape
        out: Tensor = self.out_proj(y.transpose(1, 2).reshape(B, T, H * D))
        return out

    def weights(self, x: Tensor, memory: Tensor) -> Array:
        """How much each position of x attends to each of the memory: (B, H, T, S), each row sums to 1."""
        q, k = self.queries(x), self._heads(memory, 1)
        return (q @ k.mT * (1 / math.sqrt(q.shape[-1]))).softmax(-1).data

    def _heads(self, x: Tensor, part: int) -> Tensor:
        C = x.shape[-1]
        rows = slice(part * C, (part + 1) * C)
        y = F.linear(x, self.in_proj_weight[rows], self.in_proj_bias[rows])
        return y.reshape(*x.shape[:2], self.n_head, -1).transpose(1, 2)


class TransformerEncoderLayer(Module):
    """Self-attention to all positions of the source, then two linear layers with a ReLU for each position by itself."""

    def __init__(self, config: TranslatorConfig, rng: Generator) -> None:
        C = config.n_embd
        self.norm_first = config.norm_first
        self.self_attn = Attention(C, config.n_head, rng=rng)
        self.linear1, self.linear2 = _xavier(C, 4 * C, rng), _xavier(4 * C, C, rng)
        self.norm1, self.norm2 = LayerNorm(C), LayerNorm(C)
        self.dropout = Dropout(config.dropout, rng=rng)

    def forward(self, x: Tensor, mask: Array | None = None) -> Tensor:
        """x: (B, S, C). mask: (B, 1, 1, S), False at padding."""
        x = _add(self, x, self.norm1, lambda x: self.self_attn(x, x, mask))
        return _add(self, x, self.norm2, lambda x: self.linear2(F.relu(self.linear1(x))))


class TransformerDecoderLayer(Module):
    """Self-attention to earlier positions of the target, cross-attention to the source, then two linear layers."""

    def __init__(self, config: TranslatorConfig, rng: Generator) -> None:
        C = config.n_embd
        self.norm_first = config.norm_first
        self.self_attn = Attention(C, config.n_head, rng=rng)
        self.multihead_attn = Attention(C, config.n_head, rng=rng) if config.cross_attention else None
        self.linear1, self.linear2 = _xavier(C, 4 * C, rng), _xavier(4 * C, C, rng)
        self.norm1, self.norm2 = LayerNorm(C), LayerNorm(C)
        self.norm3 = LayerNorm(C) if config.cross_attention else None
        self.dropout = Dropout(config.dropout, rng=rng)

    def forward(self, x: Tensor, memory: Tensor, mask: Array | None = None) -> Tensor:
        """x: (B, T, C), memory: (B, S, C). mask: (B, 1, 1, S), False at padding of the source."""
        return self.sublayers(x, self.self_attn, lambda x: self._cross(x, memory, mask))

    def forward_one(self, x: Tensor, cache: Any, keys: Tensor, values: Tensor, mask: Array | None) -> Tensor:
        """The next position alone, (B, 1, C): earlier keys and values are in the cache, the source's are given."""

        def attend_to_earlier(x: Tensor) -> Tensor:
            return self.self_attn.attend(self.self_attn.queries(x), *cache.extend(*self.self_attn.keys_and_values(x)))

        def attend_to_source(x: Tensor) -> Tensor:
            assert self.multihead_attn is not None
            return self.multihead_attn.attend(self.multihead_attn.queries(x), keys, values, mask)

        return self.sublayers(x, attend_to_earlier, attend_to_source)

    def sublayers(self, x: Tensor, earlier: Callable[[Tensor], Tensor], source: Callable[[Tensor], Tensor]) -> Tensor:
        """The three sublayers, with what self-attention and cross-attention do."""
        x = _add(self, x, self.norm1, earlier)
        last = self.norm2
        if self.norm3 is not None:
            x, last = _add(self, x, self.norm2, source), self.norm3
        return _add(self, x, last, lambda x: self.linear2(F.relu(self.linear1(x))))

    def _cross(self, x: Tensor, memory: Tensor, mask: Array | None) -> Tensor:
        assert self.multihead_attn is not None
        out: Tensor = self.multihead_attn(x, memory, mask)
        return out


def _add(layer: Any, x: Tensor, norm: Module, sublayer: Callable[[Tensor], Tensor]) -> Tensor:
    """x + sublayer(norm(x)) with norm_first, else norm(x + sublayer(x))."""
    if layer.norm_first:
        return x + layer.dropout(sublayer(norm(x)))  # type: ignore[no-any-return]
    return norm(x + layer.dropout(sublayer(x)))  # type: ignore[no-any-return]


def _xavier(into: int, out: int, rng: Generator) -> Linear:
    """A linear layer whose weight starts from U(−b, b), b² = 6 / (in + out), and whose bias starts at 0."""
    bound = math.sqrt(6 / (into + out))
    linear = Linear(into, out, rng=rng, weight=Parameter(rng.uniform(-bound, bound, (out, into))), std=0.0)
    return linear


class Stack(Module):
    """Layers one after another, and with pre-norm a last norm."""

    def __init__(
        self,
        layer: type[TransformerEncoderLayer] | type[TransformerDecoderLayer],
        config: TranslatorConfig,
        rng: Generator,
    ) -> None:
        self.layers = [layer(config, rng) for _ in range(config.n_layer)]
        self.norm = LayerNorm(config.n_embd) if config.norm_first else None

    def forward(self, x: Tensor, *args: Any) -> Tensor:
        for layer in self.layers:
            x = layer(x, *args)
        return self.last(x)

    def last(self, x: Tensor) -> Tensor:
        return x if self.norm is None else self.norm(x)


class Reading:
    """A source that was read, and the beginning of a target: what the decoder needs to score the next token.

    Keys and values of the source are computed once for each layer; those of the target are kept in a cache.
    """

    def __init__(self, cross: list[tuple[Array, Array]], mask: Array | None, cache: KVCache) -> None:
        self.cross = cross
        self.mask = mask
        self.cache = cache

    def select(self, rows: Array) -> None:
        """Keep these rows in this order: a row may be left out, or come twice."""
        self.cross = [(k[rows], v[rows]) for k, v in self.cross]
        self.mask = None if self.mask is None else self.mask[rows]
        self.cache.select(rows)


class Translator(PreTrainedModel):
    """An encoder–decoder: it scores each token of a target, given the source and the tokens before it.

    Sources of unequal lengths are padded on the right, and no position attends to padding. So are targets, where
    attention is causal and padding comes last. So a prediction depends neither on padding nor on the other rows.

    Args:     config: the sizes. rng: draws the initial weights and the dropout masks; Generator(0) if None.
    Shapes:   source (B, S) and target (B, T) → logits (B, T, V).
    Source:   Vaswani et al. 2017, arXiv:1706.03762. One embedding serves source, target and output (section 3.4): it
              starts from N(0, 1 / C) and is multiplied by √C at the inputs. All other matrices start as Xavier's.
    """

    config_class = TranslatorConfig
    config: TranslatorConfig

    def __init__(self, config: TranslatorConfig, rng: Generator | None = None) -> None:
        super().__init__(config)
        rng = Generator(0) if rng is None else check_generator(rng)
        self.embedding = Embedding(config.vocab_size, config.n_embd, rng=rng, std=1 / math.sqrt(config.n_embd))
        self.encoder = Stack(TransformerEncoderLayer, config, rng)
        self.decoder = Stack(TransformerDecoderLayer, config, rng)
        self.dropout = Dropout(config.dropout, rng=rng)

    @property
    def block_size(self) -> int:
        return self.config.block_size

    def forward(self, source: Any, target: Any, lengths: Any = None) -> Tensor:
        """The logits of the token after each token of the target.

        Args:     source: (B, S), padded on the right with any id. lengths: (B,) tokens of each source; None: all S.
                  target: (B, T), padded on the right with any id.
        Raises:   ValueError: ids that are not (B, S) and (B, T), or more than block_size of them; lengths that are not
                  B integers from 1 to S. IndexError: an id outside the vocabulary.
        """
        return F.linear(self._hidden(source, target, lengths), self.embedding.weight)

    def loss(
        self,
        source: Any,
        target: Any,
        targets: Any,
        lengths: Any = None,
        label_smoothing: float = 0.0,
        count: int | None = None,
    ) -> Tensor:
        """The mean cross-entropy of the targets (B, T), in nats per token; targets of −100 do not count.

        Args:     targets: the token after each token of `target`. label_smoothing, count: see
                  `functional.linear_cross_entropy`.
        Raises:   as `forward`; also ValueError: targets of another shape, or none that counts.
        """
        targets = as_targets(targets, np.shape(target), "target")
        return self.as_layer(self._loss, source, target, targets, lengths, label_smoothing, count)  # type: ignore[no-any-return]

    def _loss(
        self, source: Any, target: Any, targets: Array, lengths: Any, smoothing: float, count: int | None
    ) -> Tensor:
        x = self._hidden(source, target, lengths)
        x = x.reshape(-1, x.shape[-1])
        weight = self.embedding.weight
        return F.linear_cross_entropy(x, weight, targets.reshape(-1), label_smoothing=smoothing, count=count)

    def _hidden(self, source: Any, target: Any, lengths: Any) -> Tensor:
        """The final hidden states of the target, (B, T, C)."""
        memory, mask = self._encoded(source, lengths)
        target = self._checked(target, "target")
        if len(target) != len(memory):
            raise ValueError(f"got {len(memory)} sources and {len(target)} targets: give one target for each source")
        x: Tensor = self.decoder(self._embedded(target), memory, mask)
        return x

    def _encoded(self, source: Any, lengths: Any) -> tuple[Tensor, Array | None]:
        """The memory (B, S, C), and its mask (B, 1, 1, S): False at padding; None where there is none."""
        source = self._checked(source, "source")
        mask = hide_padding(as_lengths(lengths, source), source.shape[1])
        return self.encoder(self._embedded(source), mask), mask

    def _checked(self, ids: Any, what: str) -> Array:
        array: Array = as_ids(ids, what)
        if array.shape[1] > self.config.block_size:
            raise ValueError(f"got a {what} of {array.shape[1]} tokens, more than block_size {self.config.block_size}")
        return array

    def _embedded(self, ids: Array, start: int = 0) -> Tensor:
        """Embeddings times √C, plus positions from `start` on: (B, T) → (B, T, C)."""
        x = self.embedding(ids) * math.sqrt(self.config.n_embd)
        positions = K.sinusoidal(np.arange(start, start + ids.shape[1]), self.config.n_embd, x.data.real.dtype)
        out: Tensor = self.dropout(x + Tensor(positions))
        return out

    # ---- one token after another: what `generation.search` calls ---------------------------------------------------

    def begin(self, source: Any, lengths: Any = None) -> Reading:
        """Read the source, for `next_logits`; only inside `evaluating`."""
        memory, mask = self._encoded(source, lengths)
        cross = []
        for layer in self.decoder.layers:
            assert isinstance(layer, TransformerDecoderLayer)
            attention = layer.multihead_attn
            k, v = (memory, memory) if attention is None else attention.keys_and_values(memory)
            cross.append((k.data, v.data))
        return Reading(cross, mask, KVCache(self.config.n_layer, self.config.block_size))

    def next_logits(self, ids: Array, reading: Reading) -> Array:
        """The logits after one more token of each target: ids (B,) → (B, V)."""
        x = self._embedded(ids[:, None], reading.cache.length)
        for layer, cache, (keys, values) in zip(self.decoder.layers, reading.cache.layers, reading.cross, strict=True):
            assert isinstance(layer, TransformerDecoderLayer)
            x = layer.forward_one(x, cache, Tensor(keys), Tensor(values), reading.mask)
        return F.linear(self.decoder.last(x)[:, 0], self.embedding.weight).data

    def attention_to_source(self, source: Any, target: Any) -> Array:
        """The cross-attention of one pair: how much each token of the target looks at each of the source.

        Args:     source: (1, S). target: (1, T).
        Returns:  (n_layer, H, T, S); each row sums to 1.
        Raises:   as `forward`; ValueError: the model has no cross-attention.
        """
        if not self.config.cross_attention:
            raise ValueError("this model has no cross-attention: it was made with cross_attention=False")
        with self.evaluating():
            memory, _ = self._encoded(source, None)
            x, found = self._embedded(self._checked(target, "target")), []
            for layer in self.decoder.layers:
                assert isinstance(layer, TransformerDecoderLayer)
                attention: Any = layer.multihead_attn

                def look(x: Tensor, attention: Any = attention) -> Tensor:
                    found.append(attention.weights(x, memory)[0])
                    out: Tensor = attention(x, memory)
                    return out

                x = layer.sublayers(x, layer.self_attn, look)
        return np.stack(found)
