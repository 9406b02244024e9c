"""Presets: sizes that fit each other, and descriptions that are true."""

import dataclasses
import json
import math
import re

import pytest

from tinygrad_llm.cli import main
from tinygrad_llm.finetuning.settings import choose_trained
from tinygrad_llm.models import CONFIGS, GPT, GPTClassifier, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.presets import FINE_TUNING, PRESETS, fine_tuning
from tinygrad_llm.runs.run import Run


@pytest.mark.parametrize("name", [name for name in PRESETS if name not in FINE_TUNING])
def test_sizes_fit_together(name):
    preset = PRESETS[name]
    assert preset.preset == name
    settings = preset.training
    assert 0 <= settings.warmup < settings.steps
    assert 0 < settings.min_lr <= settings.lr
    assert 0 < settings.eval_every <= settings.steps
    vocab_size = {"char": 65, "bpe": preset.data.vocab_size, "wordpiece": 2048, "gpt2": 50257}[preset.data.tokenizer]
    parameters = dataclasses.replace(preset.model, vocab_size=vocab_size).num_parameters
    promised = float(re.match(r"([\d.]+) M parameters", preset.about)[1])
    assert parameters == pytest.approx(promised * 1e6, rel=0.1)


def test_char_cpu_is_nanogpts():
    preset = PRESETS["char-cpu"]
    assert preset.data.tokenizer == "char"
    assert preset.model == GPTConfig(n_layer=4, n_head=4, n_embd=128, block_size=64)
    settings = preset.training
    assert (settings.batch_size, settings.lr, settings.min_lr, settings.warmup) == (12, 1e-3, 1e-4, 100)
    assert (settings.steps, settings.betas[1], preset.model.dropout) == (2000, 0.99, 0)


def test_baby_is_nanogpts():
    preset = PRESETS["baby"]
    assert preset.model == GPTConfig(n_layer=6, n_head=6, n_embd=384, block_size=256, dropout=0.2)
    settings = preset.training
    assert (settings.batch_size, settings.lr, settings.min_lr, settings.warmup) == (64, 1e-3, 1e-4, 100)
    assert (settings.steps, settings.betas, settings.weight_decay) == (5000, (0.9, 0.99), 0.1)
    assert settings.order == "random"


def test_gpt2_is_gpt2_trained_as_nanogpt_trains_it():
    """nanoGPT's config/train_gpt2.py and the defaults of its train.py, with one process for its eight."""
    preset = PRESETS["gpt2"]
    assert preset.model == CONFIGS["gpt2"]
    settings = preset.training
    assert (settings.batch_size, settings.accumulation, settings.order) == (12, 5 * 8, "random")
    assert (settings.steps, settings.warmup, settings.lr, settings.min_lr) == (600_000, 2000, 6e-4, 6e-5)
    assert (settings.betas, settings.weight_decay, settings.clip, settings.eval_every) == ((0.9, 0.95), 0.1, 1.0, 1000)


def test_book_mini_has_the_settings_of_the_books_chapter_5():
    preset = PRESETS["book-mini"]
    assert preset.model == dataclasses.replace(
        CONFIGS["gpt2"], block_size=256, dropout=0.1, qkv_bias=False, tie_weights=False, initializer_range=None
    )
    settings = preset.training
    assert (settings.epochs, settings.batch_size, settings.seed) == (10, 2, 123)
    assert (settings.lr, settings.schedule, settings.warmup, settings.weight_decay) == (4e-4, "constant", 0, 0.1)
    assert (settings.eval_every, settings.eval_batches, settings.stride) == (5, 5, 0)
    assert (settings.betas, settings.eps, settings.decay, settings.clip) == ((0.9, 0.999), 1e-8, "all", math.inf)


def test_transformer_base_is_the_papers():
    """Vaswani et al. 2017, arXiv:1706.03762: table 3, and sections 5.1 to 5.4."""
    preset = PRESETS["transformer-base"]
    sizes = preset.model
    assert (sizes.n_layer, sizes.n_head, sizes.n_embd, sizes.dropout) == (6, 8, 512, 0.1)
    assert preset.data.vocab_size == 37000
    settings = preset.training
    assert (settings.steps, settings.warmup, settings.schedule) == (100_000, 4000, "inverse_sqrt")
    assert settings.lr == pytest.approx((512 * 4000) ** -0.5, rel=1e-3)
    assert (settings.betas, settings.eps, settings.label_smoothing) == ((0.9, 0.98), 1e-9, 0.1)
    assert (settings.weight_decay, settings.clip) == (0.0, math.inf)


def test_book_mini_takes_the_books_90_steps(quick_gpt2, tmp_path):
    story = "It was so, and I had always thought so. " * 515  # as long as the book's: 18 batches of 2, of 256 tokens
    (tmp_path / "story.txt").write_text(story)
    config = PRESETS["book-mini"].changed(
        {"corpus": str(tmp_path / "story.txt"), "n_layer": 1, "n_head": 1, "n_embd": 1}
    )
    run = Run.new(config, tmp_path / "run")
    per_epoch = (len(run.data.training[0]) - 1) // 256 // 2
    assert run.config.training.steps == 10 * per_epoch > 10
    assert len(run.trainer.optimizer.param_groups) == 1  # all parameters decay, as the book has it


def test_preferences_are_trained_in_the_style_of_their_base(tmp_path):
    (tmp_path / "config.toml").write_text('[finetune]\nstyle = "phi3"\n')
    base, other = str(tmp_path), PRESETS["preference"].finetune.style
    assert fine_tuning("preference", "pairs", base, {}).finetune.style == "phi3" != other
    assert fine_tuning("preference", "pairs", base, {"finetune.style": "plain"}).finetune.style == "plain"
    assert fine_tuning("preference", "pairs", str(tmp_path / "text"), {}).finetune.style == other
    assert fine_tuning("assistant", "tasks", base, {}).finetune.style == PRESETS["assistant"].finetune.style


def test_adapters_have_settings_of_their_own_below_those_of_the_user():
    def found(task, **changes):
        config = fine_tuning(task, "tasks", "base", {f"finetune.{name}": value for name, value in changes.items()})
        return config.training.lr, config.training.epochs, config.finetune.alpha

    assert found("assistant", layers="lora") == (4e-3, 20, 20.0)
    assert found("assistant", layers="lora", alpha=8.0) == (4e-3, 20, 8.0)
    assert found("classifier", layers="lora") == (*found("classifier")[:2], 40.0)
    assert found("preference", layers="lora") == found("preference")
    steps = fine_tuning("assistant", "tasks", "base", {"finetune.layers": "lora", "training.steps": 9}).training
    assert (steps.steps, steps.epochs, steps.lr) == (9, 0, 4e-3)


@pytest.mark.parametrize("task", ["classifier", "assistant"])
def test_adapters_are_less_than_a_tenth_of_the_model_that_demo_trains(task):
    config = dataclasses.replace(PRESETS["stories"].model, vocab_size=PRESETS["stories"].data.vocab_size)
    model = GPT(config, Generator(0))
    if task == "classifier":  # it has no output head
        model = GPTClassifier.from_gpt(model, ("ham", "spam"), Generator(0))
    whole = sum(p.numel() for p in model.parameters())
    choose_trained(model, fine_tuning(task, "tasks", "base", {"finetune.layers": "lora"}).finetune, Generator(0))
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert 0.09 < trained / whole < 0.1


@pytest.mark.slow
def test_500_steps_on_the_python_docs_reach_2_4_nats_a_character(tmp_path, capsys):
    folder = tmp_path / "docs"
    arguments = ["train", "--corpus", "python-docs", "--preset", "char-cpu", "--steps", "500", "--out", str(folder)]
    assert main([*arguments, "--json"]) == 0
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert figures["val_loss"] < 2.4
    texts = []
    for _ in range(2):
        assert main(["generate", str(folder), "--prompt", "The ", "--max-new-tokens", "200", "--seed", "1"]) == 0
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]
    assert len(texts[0]) >= 200
