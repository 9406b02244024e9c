"""Named settings: a model's sizes, a tokenizer, and how to train them."""

from dataclasses import dataclass
from typing import Any, Literal

from tinygrad_llm.training.loop import TrainSettings


@dataclass(frozen=True)
class Preset:
    """Everything a run needs but the text. `vocab_size` is what the BPE tokenizer is trained to."""

    about: str
    tokenizer: Literal["char", "bpe"]
    model: dict[str, Any]
    training: TrainSettings
    vocab_size: int = 0


PRESETS = {
    "char-cpu": Preset(
        "0.8 M parameters, characters: a minute or two on a laptop (nanoGPT's CPU settings)",
        tokenizer="char",
        model={"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64},
        training=TrainSettings(steps=2000, batch_size=12, lr=1e-3, min_lr=1e-4, warmup=100, eval_every=250),
    ),
    # Untied, because with so few channels a tied head keeps names and pronouns from being told apart.
    "stories": Preset(
        "0.85 M parameters, 2,048 byte-pair tokens: what `demo` trains",
        tokenizer="bpe",
        vocab_size=2048,
        model={
            "n_layer": 4,
            "n_head": 3,
            "n_embd": 96,
            "block_size": 128,
            "tie_weights": False,
            "initializer_range": 0.1,
        },
        training=TrainSettings(steps=2500, batch_size=8, lr=5e-3, min_lr=1e-4, warmup=50, eval_every=250),
    ),
}
