"""Figures by layer: gradients and updates."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_toys import IDS, SETTINGS, VAL_IDS, Curve, assert_same_weights, new_model, run, weights

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.training import layers, loop, train


def layers_of(model, tied=True):
    """Which parameters belong to which layer, written out."""
    gpt = model.transformer
    parts = {"wte": gpt.wte, "wpe": gpt.wpe} | {f"h.{i}": h for i, h in enumerate(gpt.h)} | {"ln_f": gpt.ln_f}
    parts |= {} if tied else {"lm_head": model.lm_head}
    return {name: list(part.parameters()) for name, part in parts.items()}


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("clip", [math.inf, 0.1])
def test_updates_and_gradients_are_reported_by_layer(tied, clip):
    model = new_model(np.float64, n_layer=2, tie_weights=tied)
    parts = layers_of(model, tied)
    steps = train(model, IDS, VAL_IDS, dataclasses.replace(SETTINGS, eval_every=1, clip=clip))
    next(steps)
    for _ in range(2):
        before = {name: [p.data.copy() for p in part] for name, part in parts.items()}
        step = next(steps)
        assert list(step.update_ratio) == list(step.layer_grad_norm) == list(parts)
        for name, part in parts.items():
            moved = math.sqrt(sum(((p.data - w) ** 2).sum() for p, w in zip(part, before[name], strict=True)))
            size = math.sqrt(sum((w**2).sum() for w in before[name]))
            assert step.update_ratio[name] == pytest.approx(moved / size, rel=1e-9)
            grad_norm = math.sqrt(sum((p.grad**2).sum() for p in part))
            assert step.layer_grad_norm[name] == pytest.approx(grad_norm, rel=1e-9)
        assert math.hypot(*step.layer_grad_norm.values()) == pytest.approx(step.grad_norm, rel=1e-12)


def test_any_model_has_layers():
    names = {name: len(part) for name, part in layers.by_layer(Curve().named_parameters()).items()}
    assert names == {"hidden": 2, "layers.0": 2, "layers.1": 2}


def test_layers_are_reported_at_every_tenth_step_and_with_a_held_out_loss():
    steps = run(new_model(), steps=26, eval_every=12)
    assert [s.step for s in steps if s.update_ratio] == [10, 12, 20, 24, 26]
    assert [s.step for s in steps if s.layer_grad_norm] == [10, 12, 20, 24, 26]


def test_reporting_layers_changes_nothing(monkeypatch):
    one, other = new_model(), new_model()
    losses = [step.loss for step in run(one, steps=12, clip=0.5)]
    monkeypatch.setattr(loop, "LAYERS_EVERY", 1)
    assert [step.loss for step in run(other, steps=12, clip=0.5)] == losses
    assert_same_weights(weights(one), weights(other))


@given(rows=st.integers(1, 3000), columns=st.integers(1, 200), transposed=st.booleans())
def test_a_sample_has_about_the_norm_of_the_whole(rows, columns, transposed):
    values = np.random.default_rng(rows).standard_normal((rows, columns)) + np.arange(columns) % 7  # columns differ
    p = Tensor(values.T if transposed else values)
    sample = layers.sample([p])
    assert len(sample) <= 2 * layers.SAMPLE
    whole = math.sqrt(float((values**2).sum()))
    assert layers.norm(sample) == pytest.approx(whole, rel=0.05 if p.data.size >= 2 * layers.SAMPLE else 1e-9)


@pytest.mark.parametrize("column", [0, 1, 3])
def test_a_sample_takes_from_all_columns_alike(column):
    values = np.zeros((4096, 64))
    values[:, column] = 1  # a sample of every fourth entry would see all of it, or nothing
    assert values.size >= 2 * layers.SAMPLE
    assert layers.norm(layers.sample([Tensor(values)])) == pytest.approx(64, rel=0.01)


def test_weights_of_zero_have_no_ratio():
    model = new_model()
    for p in model.transformer.wpe.parameters():
        p.data[:] = 0
    step = run(model, steps=1, warmup=0)[1]
    assert math.isnan(step.update_ratio["wpe"])
    assert step.update_ratio["ln_f"] > 0
