"""The sizes of a GPT, and those of the four GPT-2s; what the sizes of every model must be."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from tinygrad_llm.kernels.positions import KINDS


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """The sizes of a GPT; the defaults are GPT-2 small's.

    Args:     dropout: probability at all three sites (embeddings, attention weights, the output of each sublayer).
              qkv_bias: bias of the query, key and value projections. tie_weights: the output head is wte itself.
              initializer_range: standard deviation of the initial weights. GPT-2's is 0.02, with 768 channels;
              narrow models take a larger one (the preset `stories`). None: the first weights of PyTorch's layers.
              positions: how the model knows where a token stands; see `kernels.positions`. "absolute": GPT-2's learned
              table of block_size rows. "sinusoidal": fixed vectors, next to which tokens are multiplied by √n_embd.
              "rotary": queries and keys are turned, in every block. Without a table, block_size is only the length of
              training, and `GPT.set_block_size` changes it later.
    Raises:   ValueError: a size is not a positive integer; n_embd is not a multiple of n_head; dropout not in [0, 1);
              initializer_range not in (0, 1]; another kind of positions; an odd n_embd for sinusoidal positions, or an
              odd head size, n_embd / n_head, for rotary ones.
    """

    vocab_size: int = 50257
    block_size: int = 1024
    n_layer: int = 12
    n_head: int = 12
    n_embd: int = 768
    dropout: float = 0.0
    qkv_bias: bool = True
    tie_weights: bool = True
    initializer_range: float | None = 0.02
    positions: Literal["absolute", "sinusoidal", "rotary"] = "absolute"

    kind: ClassVar[str] = "gpt"  # in `models.MODELS`
    published: ClassVar[Mapping[str, Any]] = {}  # by name; set below

    def __post_init__(self) -> None:
        check_sizes(self, "GPTConfig")
        check_positions(self.positions, self.n_embd, self.n_head, "GPTConfig")

    @property
    def num_parameters(self) -> int:
        """How many parameters a GPT of these sizes has, without making one; a tied head counts once."""
        C, V = self.n_embd, self.vocab_size
        attention = 3 * C * C + 3 * C * self.qkv_bias + C * C + C
        mlp = 8 * C * C + 5 * C
        layer_norms = 4 * C
        embeddings = (V + self.block_size * (self.positions == "absolute")) * C
        head = 0 if self.tie_weights else V * C
        return embeddings + self.n_layer * (attention + mlp + layer_norms) + 2 * C + head

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """The name and shape of every parameter of a GPT of these sizes, without making one."""
        C = self.n_embd
        yield "transformer.wte.weight", (self.vocab_size, C)
        if self.positions == "absolute":
            yield "transformer.wpe.weight", (self.block_size, C)
        for layer in range(self.n_layer):
            block = f"transformer.h.{layer}"
            for norm, linears in (
                ("ln_1", {"attn.c_attn": (3 * C, C), "attn.c_proj": (C, C)}),
                ("ln_2", {"mlp.c_fc": (4 * C, C), "mlp.c_proj": (C, 4 * C)}),
            ):
                yield f"{block}.{norm}.weight", (C,)
                yield f"{block}.{norm}.bias", (C,)
                for linear, (out, into) in linears.items():
                    yield f"{block}.{linear}.weight", (out, into)
                    if linear != "attn.c_attn" or self.qkv_bias:
                        yield f"{block}.{linear}.bias", (out,)
        yield "transformer.ln_f.weight", (C,)
        yield "transformer.ln_f.bias", (C,)
        if not self.tie_weights:
            yield "lm_head.weight", (self.vocab_size, C)


def check_sizes(config: Any, name: str) -> None:
    """Check the fields of a config by their types, and those that all models have.

    Args:     name: the class, for the message.
    Raises:   ValueError: as `GPTConfig`.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type is int and (type(value) is not int or value < 1):
            raise ValueError(f"{name}: {field.name} must be a positive integer, got {value!r}")
        if field.type is bool and type(value) is not bool:
            raise ValueError(f"{name}: {field.name} must be true or false, got {value!r}")
    if config.n_embd % config.n_head:
        raise ValueError(f"{name}: n_embd ({config.n_embd}) must be a multiple of n_head ({config.n_head})")
    if type(config.dropout) not in (int, float) or not 0 <= config.dropout < 1:
        raise ValueError(f"{name}: dropout must lie in [0, 1), got {config.dropout!r}")
    std = getattr(config, "initializer_range", None)
    if std is not None and (type(std) not in (int, float) or not 0 < std <= 1):
        raise ValueError(f"{name}: initializer_range must lie in (0, 1] or be None, got {std!r}")


def check_positions(positions: str, n_embd: int, n_head: int, name: str) -> None:
    """Check the kind of positions, and that the channels which it pairs are an even number.

    Args:     name: the class, for the message.
    Raises:   ValueError: as `GPTConfig`.
    """
    if positions not in KINDS:
        raise ValueError(f"{name}: positions must be {', '.join(KINDS)}, got {positions!r}")
    if positions == "sinusoidal" and n_embd % 2:
        raise ValueError(f"{name}: n_embd ({n_embd}) must be even for sinusoidal positions")
    if positions == "rotary" and n_embd // n_head % 2:
        raise ValueError(
            f"{name}: n_embd / n_head ({n_embd // n_head}) must be even for rotary positions, which turn pairs"
        )


# The GPT-2s that OpenAI published: 124M, 355M, 774M and 1558M parameters.
CONFIGS = {
    "gpt2": GPTConfig(),
    "gpt2-medium": GPTConfig(n_layer=24, n_head=16, n_embd=1024),
    "gpt2-large": GPTConfig(n_layer=36, n_head=20, n_embd=1280),
    "gpt2-xl": GPTConfig(n_layer=48, n_head=25, n_embd=1600),
}
GPTConfig.published = CONFIGS
