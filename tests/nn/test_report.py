"""The learning report finds each cause for which a parameter does not learn."""

import numpy as np
import pytest

from tinygrad_llm import functional as F
from tinygrad_llm.nn import Embedding, Linear, Module, Parameter, learning_report
from tinygrad_llm.optim import AdamW
from tinygrad_llm.random import Generator


class Net(Module):
    def __init__(self):
        rng = Generator(0)
        self.table = Embedding(5, 3, rng=rng)
        self.hidden = Linear(3, 4, rng=rng)
        self.out = Linear(4, 2, rng=rng)

    def forward(self, ids):
        return self.out(F.relu(self.hidden(self.table(ids))))


def copies(model):
    return {name: array.copy() for name, array in model.state_dict().items()}


def step(model, parameters=None, lr=0.1, spoil=None):
    """One step of AdamW on some parameters (None: all), and its report."""
    before = copies(model)
    F.cross_entropy(model(np.array([0, 3])), np.array([0, 1])).backward()
    if spoil is not None:
        spoil()
    AdamW(list(model.parameters()) if parameters is None else parameters, lr=lr, weight_decay=0.0).step()
    return learning_report(model, before, model.state_dict())


NAMES = ("table.weight", "hidden.weight", "hidden.bias", "out.weight", "out.bias")


def test_a_step_in_which_all_parameters_learn():
    """Also for an embedding of which only some rows were used."""
    report = step(Net())
    assert report.all_well
    assert report.checked == NAMES
    assert str(report).startswith("All 5 parameters learned")


def test_a_frozen_parameter_is_listed():
    model = Net()
    model.hidden.weight.requires_grad = False
    report = step(model)
    assert report.no_gradient == report.unmoved == report.frozen == ("hidden.weight",)
    assert report.zero_gradient == report.nonfinite_gradient == ()
    assert str(report).splitlines() == [
        "1 of 5 parameters did not learn as they should:",
        "  hidden.weight: no gradient (it is frozen); did not move",
    ]


def test_a_parameter_that_forward_does_not_use_is_listed():
    model = Net()
    model.forgotten = Parameter(np.ones(3, np.float32))
    report = step(model)
    assert report.no_gradient == report.unmoved == ("forgotten",)
    assert report.frozen == ()
    assert "forgotten: no gradient (the loss does not use it" in str(report)


def test_parameters_around_dead_relu_units_are_listed():
    model = Net()
    model.hidden.bias.data -= 1000  # so that no unit is above 0
    report = step(model)
    # A dead unit outputs 0 and passes no gradient back, so the weights before and after it have gradients of 0.
    assert report.zero_gradient == report.unmoved == ("table.weight", "hidden.weight", "hidden.bias", "out.weight")
    assert report.no_gradient == ()
    assert len(str(report).splitlines()) == 1 + 4


def test_parameters_that_the_optimizer_does_not_have_are_listed():
    model = Net()
    report = step(model, list(model.out.parameters()))
    assert report.unmoved == ("table.weight", "hidden.weight", "hidden.bias")
    assert report.no_gradient == report.zero_gradient == ()
    assert "hidden.bias: did not move (does the optimizer have it?" in str(report)


def test_a_gradient_that_is_not_finite_is_listed():
    model = Net()

    def spoil():
        model.out.bias.grad[0] = np.nan
        model.out.weight.grad[0, 0] = np.inf

    with np.errstate(invalid="ignore"):
        report = step(model, spoil=spoil)
    assert report.nonfinite_gradient == ("out.weight", "out.bias")
    assert report.unmoved == ()
    assert "out.bias: its gradient is NaN or infinite" in str(report)


def test_nan_that_stays_nan_did_not_move():
    model = Net()
    before = copies(model)
    before["out.bias"][0] = np.nan
    after = {name: array.copy() for name, array in before.items()}
    assert "out.bias" in learning_report(model, before, after).unmoved


def test_a_parameter_without_elements_has_nothing_to_learn():
    model = Net()
    model.empty = Parameter(np.zeros((0, 3), np.float32))
    model.empty.grad = np.zeros((0, 3), np.float32)
    report = step(model)
    assert report.all_well
    assert report.checked == (*NAMES, "empty")


def test_a_state_that_was_not_copied_is_refused():
    model = Net()
    before = model.state_dict()
    F.cross_entropy(model(np.array([0, 3])), np.array([0, 1])).backward()
    AdamW(list(model.parameters()), lr=0.1).step()
    with pytest.raises(ValueError, match=r"share memory.*so copy them"):
        learning_report(model, before, model.state_dict())


def test_a_tied_parameter_is_listed_once():
    class Tied(Module):
        def __init__(self):
            self.table = Embedding(5, 3, rng=Generator(0))
            self.out = Linear(3, 5, bias=False, rng=Generator(0), weight=self.table.weight)

        def forward(self, ids):
            return self.out(self.table(ids))

    assert step(Tied()).checked == ("table.weight",)


def test_states_of_another_model_are_listed():
    model = Net()
    before, after = copies(model), copies(model)
    del before["table.weight"]
    before["other"] = np.zeros(2)
    after["out.bias"] = np.zeros(3)
    with pytest.raises(ValueError, match="not states of this model") as caught:
        learning_report(model, before, after)
    for part in (
        "before lacks table.weight",
        "before has other, which the model does not have",
        "out.bias has shape (3,) in after, the model's is (2,)",
    ):
        assert part in str(caught.value)


def test_weights_that_become_nan_are_listed():
    model = Net()
    before = copies(model)
    F.cross_entropy(model(np.array([0, 3])), np.array([0, 1])).backward()
    model.out.bias.data = model.out.bias.data * np.nan
    report = learning_report(
        model, before, model.state_dict() | {n: a + 1 for n, a in before.items() if n != "out.bias"}
    )
    assert report.nonfinite_value == ("out.bias",)
    assert "out.bias: it is NaN or infinite after the step" in str(report)
