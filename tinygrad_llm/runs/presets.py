"""Named configurations, to start a run from."""

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygrad_llm.finetuning.settings import FineTuneSettings
from tinygrad_llm.models import EncoderConfig, GPTConfig, TranslatorConfig
from tinygrad_llm.runs.config import DataSettings, RunConfig, read_toml
from tinygrad_llm.runs.folder import stated_style
from tinygrad_llm.storage.text import nearest
from tinygrad_llm.training import ConfigError, TrainSettings

PRESETS = {
    "char-cpu": RunConfig(
        "0.8 M parameters, characters: a minute or two on a laptop (nanoGPT's CPU settings)",
        "char-cpu",
        DataSettings(tokenizer="char"),
        GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=64),
        TrainSettings(steps=2000, batch_size=12, lr=1e-3, min_lr=1e-4, warmup=100, eval_every=250),
    ),
    # Untied, because with so few channels a tied head cannot distinguish names from pronouns.
    "stories": RunConfig(
        "0.85 M parameters, 2,048 byte-pair tokens: what `demo` trains",
        "stories",
        DataSettings(tokenizer="bpe", vocab_size=2048),
        GPTConfig(n_layer=4, n_head=3, n_embd=96, block_size=128, tie_weights=False, initializer_range=0.1),
        TrainSettings(steps=2500, batch_size=8, lr=5e-3, min_lr=1e-4, warmup=50, eval_every=250),
    ),
    "baby": RunConfig(
        "10.8 M parameters, characters: nanoGPT's baby GPT, made for a small graphics card; a day on a laptop",
        "baby",
        DataSettings(tokenizer="char"),
        GPTConfig(n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.2),
        TrainSettings(
            steps=5000, batch_size=64, lr=1e-3, min_lr=1e-4, warmup=100, betas=(0.9, 0.99), order="random",
            eval_every=250, masks="quick",
        ),
    ),
    # The first weights are PyTorch's, all parameters decay, the learning rate is constant and nothing is clipped, as in
    # the book's chapter 5.
    "book-mini": RunConfig(
        "163 M parameters, GPT-2's tokens: the book's chapter 5, for a short story; a GPT-2 that reads 256 tokens",
        "book-mini",
        DataSettings(tokenizer="gpt2"),
        GPTConfig(block_size=256, dropout=0.1, qkv_bias=False, tie_weights=False, initializer_range=None),
        TrainSettings(
            epochs=10, batch_size=2, lr=4e-4, min_lr=4e-4, warmup=0, schedule="constant", betas=(0.9, 0.999),
            weight_decay=0.1, decay="all", clip=math.inf, stride=0, eval_every=5, eval_batches=5, checkpoint_every=1000,
            seed=123,
        ),
    ),
    "gpt2": RunConfig(
        "124 M parameters, GPT-2's tokens: GPT-2 small from scratch, half a million tokens a step; for token files",
        "gpt2",
        DataSettings(tokenizer="gpt2"),
        GPTConfig(),
        TrainSettings(
            steps=600_000, batch_size=12, accumulation=40, lr=6e-4, min_lr=6e-5, warmup=2000, betas=(0.9, 0.95),
            order="random", eval_every=1000, checkpoint_every=100,
        ),
    ),
    # With so few channels, first weights of 0.02 would leave all attention even for long.
    "encoder-tiny": RunConfig(
        "0.24 M parameters, 2,048 WordPiece tokens: guesses hidden words of the stories; four minutes on a laptop",
        "encoder-tiny",
        DataSettings(tokenizer="wordpiece", vocab_size=2048),
        EncoderConfig(n_layer=2, n_head=4, n_embd=64, block_size=32, dropout=0.0, initializer_range=0.1),
        TrainSettings(steps=7000, batch_size=16, lr=2e-3, min_lr=1e-4, warmup=200, eval_every=500, order="random"),
    ),
    # Its 1,200 steps take about 150 seconds of one core. Then 99.2 % of the 500 test sentences, none of them seen in
    # training, are translated exactly; without cross-attention, none is.
    "translator-tiny": RunConfig(
        "1.1 M parameters, 1,500 byte-pair tokens: translates short sentences, English to German; minutes on a laptop",
        "translator-tiny",
        DataSettings(pairs="translations", source="english", target="german", tokenizer="bpe", vocab_size=1500),
        TranslatorConfig(block_size=64, n_layer=2, n_head=4, n_embd=128, dropout=0.0),
        TrainSettings(
            steps=1200, batch_size=64, lr=2e-3, min_lr=1e-5, warmup=100, betas=(0.9, 0.98), eps=1e-9, weight_decay=0.0,
            label_smoothing=0.1, eval_every=200,
        ),
    ),
    # Sizes and settings of the paper, section 5: 25,000 tokens a batch are about 800 sentences; lr = (512 · 4000)^−½.
    "transformer-base": RunConfig(
        "63 M parameters with 37,000 tokens: the base model of 2017; for millions of pairs, days on many cores",
        "transformer-base",
        DataSettings(pairs="translations", tokenizer="bpe", vocab_size=37000),
        TranslatorConfig(),
        TrainSettings(
            steps=100_000, batch_size=800, lr=6.99e-4, warmup=4000, schedule="inverse_sqrt", betas=(0.9, 0.98),
            eps=1e-9, weight_decay=0.0, label_smoothing=0.1, clip=math.inf, eval_every=1000, masks="quick",
        ),
    ),
    # What `finetune` starts from. The rates suit small models; GPT-2 takes a hundredth of them.
    "classifier": RunConfig(
        "a classifier of messages",
        "classifier",
        training=TrainSettings(
            epochs=4, batch_size=16, lr=2e-3, min_lr=1e-4, warmup=20, weight_decay=0.1, eval_every=100,
            eval_batches=100,
        ),
    ),
    # Small models have few tokens to spare for the words of a style, and learn most from the answers.
    "assistant": RunConfig(
        "an assistant that follows instructions",
        "assistant",
        training=TrainSettings(
            epochs=10, batch_size=16, lr=3e-3, min_lr=1e-4, warmup=50, weight_decay=0.1, eval_every=250,
            eval_batches=100,
        ),
        finetune=FineTuneSettings(style="plain", mask_prompt=True),
    ),
    "preference": RunConfig(
        "an assistant that prefers the chosen one of two answers (DPO)",
        "preference",
        training=TrainSettings(
            epochs=3, batch_size=8, lr=1e-4, min_lr=1e-5, warmup=0, weight_decay=0.01, eval_every=25,
            eval_batches=100,
        ),
        finetune=FineTuneSettings(style="plain"),
    ),
}  # fmt: skip
FINE_TUNING = ("classifier", "assistant", "preference")
# What else changes with `layers = "lora"`. Adapters have to learn much with few parameters, those of an assistant most.
# Messages and instructions have words, digits and links that the stories lack, so a base has learned nothing of their
# tokens: the embeddings are adapted too, with a higher rank. On a base of `demo`, 9.7 % of the parameters are trained.
_LORA: dict[str, dict[str, Any]] = {
    "classifier": {"finetune.rank": 5, "finetune.alpha": 40.0, "finetune.embeddings": 12},
    "assistant": {
        "training.lr": 4e-3, "training.epochs": 20,
        "finetune.rank": 5, "finetune.alpha": 20.0, "finetune.embeddings": 16,
    },
}  # fmt: skip
# Of each kind of model, the preset that `train` takes where none is named.
DEFAULTS = {"gpt": "char-cpu", "encoder": "encoder-tiny", "translator": "translator-tiny"}


def find_preset(name: str) -> RunConfig:
    """The preset of this name.

    Raises:   ConfigError: there is none; the nearest is named, or all are.
    """
    if name not in PRESETS:
        raise ConfigError(f"unknown preset {name!r}{nearest(name, PRESETS)}")
    return PRESETS[name]


def fine_tuning(task: str, data: str, base: str, changes: dict[str, Any]) -> RunConfig:
    """The configuration of a fine-tuning: the task's preset with these changes; preferences in the style of the base.

    Raises:   ConfigError: as `RunConfig.fitted`.
    """
    style = stated_style(Path(base)) if task == "preference" else None
    about: dict[str, Any] = {"finetune.task": task, "finetune.data": data, "finetune.base": base}
    return fitted_to(PRESETS[task], about | ({} if style is None else {"finetune.style": style}) | changes)


def fitted_to(preset: RunConfig, *changes: Mapping[str, Any]) -> RunConfig:
    """The preset, fitted to one set of changes after another. If they choose adapters, it first gets the task's for
    adapters.

    Raises:   ConfigError: as `RunConfig.fitted`.
    """
    made = functools.reduce(RunConfig.fitted, changes, preset)
    if made.finetune.layers != "lora":
        return made
    return functools.reduce(RunConfig.fitted, changes, preset.fitted(_LORA.get(made.finetune.task, {})))


def load_config(path: str | Path) -> RunConfig:
    """The configuration in a TOML file, over the preset that it names.

    Raises:   ConfigError: an unknown key or preset, a wrong type or value. OSError: it cannot be read.
    """
    return over_preset(read_toml(path), str(path))


def over_preset(values: dict[str, Any], where: str) -> RunConfig:
    """The preset that `values` name, or else the defaults, changed by the other values and fitted to their steps.

    Raises:   ConfigError: as `RunConfig.fitted`; begins with `where`.
    """
    name = values.pop("preset", "")
    try:
        return (find_preset(name) if name else RunConfig()).fitted(values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
