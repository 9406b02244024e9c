"""Fine-tuning learns as PyTorch does: same first weights, same batches, the same losses for fifty steps."""

import itertools
from pathlib import Path

import numpy as np
import pytest
from training_toys import Given

from tinygrad_llm.finetuning import Classification, Preference, with_reference
from tinygrad_llm.models import GPT, GPTClassifier, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.training import Trainer, TrainSettings

HERE = Path(__file__).parent
EXPECTED = np.load(HERE / "torch_finetuning.npz")


@pytest.fixture(scope="module")
def rule(script):
    """scripts/make_torch_finetuning.py, which says what weights and batches are."""
    return script("make_torch_finetuning")


def gpt(rule):
    sizes = {"vocab_size": rule.VOCABULARY, "block_size": rule.BLOCK}
    return filled(GPT(GPTConfig(n_layer=rule.LAYERS, n_head=rule.HEADS, n_embd=rule.CHANNELS, **sizes)), rule)


def filled(model, rule):
    model.load_state_dict({name: rule.weights(name, p.shape) for name, p in model.named_parameters()})
    return model


def losses(model, task, rule, workers, steps):
    settings = TrainSettings(
        steps=rule.STEPS + 1, eval_every=1000, batch_size=rule.BATCH, lr=rule.LR, schedule="constant", warmup=0,
        betas=(0.9, 0.999), weight_decay=rule.DECAY, decay="all", clip=np.inf, workers=workers,
    )  # fmt: skip
    trainer = Trainer(model, task, settings)
    model.train()
    with trainer.workers:
        return [trainer.advance().loss for _ in range(steps)]


FIRST = [(5, 1), pytest.param(50, 1, marks=pytest.mark.slow), pytest.param(50, 2, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("steps", "workers"), FIRST)
def test_a_classifier_s_first_steps_follow_pytorch(rule, steps, workers):
    model = filled(GPTClassifier.from_gpt(gpt(rule), tuple("abc"), Generator(0)), rule)
    found = losses(model, Classification(Given(rule.texts(), rule.BATCH)), rule, workers, steps)
    np.testing.assert_allclose(found, EXPECTED["classifier"][:steps], rtol=0, atol=1e-4)
    assert EXPECTED["classifier"][:5].mean() - EXPECTED["classifier"][-5:].mean() > 0.1  # there was something to follow


@pytest.mark.parametrize(("steps", "workers"), FIRST)
def test_the_first_steps_of_dpo_follow_pytorch(rule, steps, workers):
    reference = gpt(rule)
    lengths = np.full(rule.BATCH, rule.BLOCK)
    pairs = itertools.islice(rule.pairs(), steps)
    batches = (with_reference(reference, {**batch, "lengths": lengths}) for batch in pairs)
    found = losses(gpt(rule), Preference(Given(batches, rule.BATCH), beta=rule.BETA), rule, workers, steps)
    np.testing.assert_allclose(found, EXPECTED["dpo"][:steps], rtol=0, atol=1e-4)
    assert found[0] == pytest.approx(np.log(2), abs=1e-6)
    assert np.ptp(EXPECTED["dpo"]) > 0.05
