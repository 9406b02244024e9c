"""Frozen parameters: they stay bit for bit, and cost no gradient and no optimizer state."""

import dataclasses
import re

import numpy as np
import pytest
from training_toys import SETTINGS, assert_same_weights, new_model, text_task, weights

from tinygrad_llm.autograd import grad
from tinygrad_llm.autograd.observer import Observer, observing
from tinygrad_llm.training import ConfigError, Trainer, workers

FIFTY = dataclasses.replace(SETTINGS, steps=50, eval_every=25)


def frozen(*names, **changes):
    """A model of which the parameters of these names are frozen; a name may be the beginning of one."""
    model = new_model(**changes)
    for name, p in model.named_parameters():
        if name.startswith(names):
            p.requires_grad = False
    return model


def trainer_of(model, settings=FIFTY):
    return Trainer(model, text_task(settings), settings)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("count", [1, 2])
def test_a_frozen_embedding_stays_bit_for_bit_while_the_rest_learns(count, tied):
    model = frozen("transformer.wte", tie_weights=tied)
    before = weights(model)
    steps = list(trainer_of(model, dataclasses.replace(FIFTY, workers=count)).run())
    for name, w in weights(model).items():
        assert (w.tobytes() == before[name].tobytes()) == (name == "transformer.wte.weight"), name
    assert steps[-1].val_loss < steps[0].val_loss
    assert model.transformer.wte.weight.grad is None


@pytest.mark.parametrize("stop", [7, 20])
def test_a_frozen_model_is_resumed_bit_for_bit(stop):
    settings = dataclasses.replace(FIFTY, steps=30, accumulation=2)
    whole = trainer_of(frozen("transformer.wte", dropout=0.2), settings)
    steps = [step.loss for step in whole.run()]
    first = trainer_of(frozen("transformer.wte", dropout=0.2), settings)
    begun = [step.loss for step in first.run(lambda: first.step == stop)]
    assert first.advance() is None  # in the middle of a step
    resumed = trainer_of(frozen("transformer.wte", dropout=0.2), settings)
    arrays, numbers = first.get_state()
    resumed.set_state({name: array.copy() for name, array in arrays.items()}, numbers)
    assert begun + [step.loss for step in resumed.run()] == steps
    assert_same_weights(resumed.model.state_dict(), whole.model.state_dict())


class Shapes(Observer):
    """Notes the shape of every gradient that a vjp returns, whether it is needed or not."""

    def __init__(self):
        self.seen = set()

    def on_vjp(self, node, parents, gradient, gradients):
        self.seen |= {d.shape for d in gradients if d is not None}


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("recompute", [False, True])
def test_the_gradient_of_a_frozen_parameter_is_never_computed(recompute, count):
    for name in ("transformer.wte.weight", "transformer.h.0.mlp.c_fc.weight"):
        seen = []
        for names in ([name], []):
            model = frozen(*names) if names else new_model()
            model.recompute = recompute
            shape = model.state_dict()[name].shape
            assert [p.shape for p in model.parameters()].count(shape) == 1
            trainer = trainer_of(model, dataclasses.replace(FIFTY, workers=count))
            shapes = Shapes()
            with observing(shapes), trainer.workers:
                trainer.advance()
            seen.append(shape in shapes.seen)
            assert {p.shape for p in model.parameters() if p.requires_grad} <= shapes.seen
        assert seen == [False, True]  # never where it is frozen; and the observer sees it where it is not


def test_a_frozen_parameter_has_no_optimizer_state_and_no_figures():
    model = frozen("transformer.wte", "transformer.h.0", n_layer=2)
    trainer = trainer_of(model, dataclasses.replace(FIFTY, steps=10))
    *_, last = trainer.run()
    arrays, _ = trainer.get_state()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.split(".", 1)[1].rsplit(".", 1)[0] for name in arrays if name.startswith("optimizer.")} == trained
    assert {name.split(".", 1)[1] for name in arrays if name.startswith("model.")} == set(model.state_dict())
    assert list(last.layer_grad_norm) == list(last.update_ratio) == ["wpe", "h.1", "ln_f"]


def test_the_gradient_of_the_rest_is_that_of_the_whole_model():
    batch = text_task().peek()
    model = new_model(np.float64)
    expected = dict(zip(model.state_dict(), grad(model.loss(*batch), list(model.parameters())), strict=True))
    part = frozen("transformer.wte", "transformer.h.0.attn").to(np.float64)
    trainer = trainer_of(part)
    with trainer.workers:
        found = trainer.workers.gradient(batch)
    for name, g in zip(workers.trainable(part), found.grads, strict=True):
        np.testing.assert_allclose(g, expected[name], rtol=1e-12, atol=1e-15, err_msg=name)


def test_a_model_without_anything_to_train_is_refused():
    with pytest.raises(ConfigError, match="no parameter of the model requires a gradient"):
        trainer_of(frozen(""))


@pytest.mark.parametrize("more", [1, 2])
def test_the_first_of_several_parameters_that_were_frozen_too_late_is_named(more):
    trainer = trainer_of(model := new_model())
    for p in list(model.transformer.parameters())[: more + 1]:
        p.requires_grad = False
    message = (
        f"transformer.wte.weight and {more} more: requires_grad was changed after the Trainer was made: freeze before "
        "the Trainer is made, or make a new one"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        trainer.advance()


@pytest.mark.parametrize("freeze", [True, False])
def test_freezing_after_the_trainer_was_made_is_refused(freeze):
    model = new_model() if freeze else frozen("transformer.wte")
    trainer = trainer_of(model)
    trainer.advance()
    model.transformer.wte.weight.requires_grad = not freeze
    before = weights(model)
    with pytest.raises(ConfigError, match=r"^transformer\.wte\.weight: requires_grad was changed.* make a new one$"):
        trainer.advance()
    assert_same_weights(weights(model), before)
