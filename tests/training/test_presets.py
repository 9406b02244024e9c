"""Presets: sizes that fit together, and descriptions that are true."""

import json
import re

import pytest

from tinygrad_llm.cli import main
from tinygrad_llm.models import GPTConfig
from tinygrad_llm.training import PRESETS


@pytest.mark.parametrize("name", PRESETS)
def test_sizes_fit_together(name):
    preset = PRESETS[name]
    settings = preset.training
    assert 0 <= settings.warmup < settings.steps
    assert 0 < settings.min_lr <= settings.lr
    assert 0 < settings.eval_every <= settings.steps
    assert (preset.vocab_size > 257) == (preset.tokenizer == "bpe")  # more than the bytes and the end of text
    parameters = GPTConfig(vocab_size=preset.vocab_size or 65, **preset.model).num_parameters
    promised = float(re.match(r"([\d.]+) M parameters", preset.about)[1])
    assert parameters == pytest.approx(promised * 1e6, rel=0.1)


def test_char_cpu_is_nanogpts():
    preset = PRESETS["char-cpu"]
    assert preset.tokenizer == "char"
    assert preset.model == {"n_layer": 4, "n_head": 4, "n_embd": 128, "block_size": 64}
    assert (preset.training.batch_size, preset.training.lr, preset.training.steps) == (12, 1e-3, 2000)


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
