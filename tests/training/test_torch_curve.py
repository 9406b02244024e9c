"""The preset char-cpu learns as PyTorch does: same first weights, same batches, the same fifty losses."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from training_toys import Given

from tinygrad_llm.formats import load_npz
from tinygrad_llm.models import GPT
from tinygrad_llm.runs.presets import PRESETS
from tinygrad_llm.training import LanguageModeling, Trainer

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def rule(script):
    """scripts/make_torch_curve.py, which says what weights and batches are."""
    return script("make_torch_curve")


@pytest.mark.parametrize(("steps", "fall"), [(8, 0.3), pytest.param(50, 1.0, marks=pytest.mark.slow)])
def test_the_first_steps_follow_pytorch(steps, fall, rule):
    config = PRESETS["char-cpu"].changed({"workers": 2})
    model = GPT(dataclasses.replace(config.model, vocab_size=rule.text_ids()[1]))
    model.load_state_dict({name: rule.weights(name, p.shape) for name, p in model.named_parameters()})
    task = LanguageModeling(Given(rule.batches(), rule.BATCH))
    trainer = Trainer(model, task, config.training)
    assert config.training.batch_size == rule.BATCH
    model.train()
    with trainer.workers:
        losses = [trainer.advance().loss for _ in range(steps)]
    expected = load_npz(HERE / "torch_curve.npz")["losses"][:steps]
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-3)
    assert expected[0] - expected[-1] > fall  # there was something to follow
    assert task.evaluate(model, list(rule.batches())[:1]).loss < expected[0] - fall
