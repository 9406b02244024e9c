"""The recorder: what it keeps is what the engine computed, to the last bit, under the names of the model."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import GPT, Generator, GPTConfig, Tensor, grad, nn
from tinygrad_llm.autograd import apply
from tinygrad_llm.autograd.observer import current_observer
from tinygrad_llm.kernels import KERNELS
from tinygrad_llm.study.recorder import next_ids, record, record_model, run_with_cache
from tinygrad_llm.study.recording import Forward, Hooked, Leaf, Seed, Sum, Vjp


def small(**changes):
    config = GPTConfig(**({"vocab_size": 11, "block_size": 6, "n_layer": 2, "n_head": 2, "n_embd": 8} | changes))
    return GPT(config, Generator(1))


IDS = Generator(2).randint(0, 11, (2, 5))


@pytest.fixture(scope="module")
def model():
    return small()


@pytest.fixture(scope="module")
def recording(model):
    return record_model(model, IDS)


# ---- right to the last bit -------------------------------------------------------------------------------------------


def test_gradients_of_parameters_are_those_of_grad_to_the_last_bit(model):
    cache = run_with_cache(model, IDS)
    plain = small(tie_weights=True)
    plain.fused = False
    loss = plain.loss(IDS, next_ids(IDS))
    names, parameters = zip(*plain.named_parameters(), strict=True)
    for name, g in zip(names, grad(loss, parameters), strict=True):
        assert cache[f"{name}.grad"].tobytes() == g.tobytes()
    assert cache["loss"] == loss.data
    assert cache["lm_head.weight.grad"] is cache["transformer.wte.weight.grad"]


@given(st.integers(0, 10_000))
def test_every_gradient_of_a_random_program_is_that_of_grad(seed):
    rng = Generator(seed)
    leaves = [Tensor(rng.randn((2, 3), np.float32), requires_grad=True) for _ in range(2)]

    def program():
        drawn = Generator(seed + 1)
        made = list(leaves)
        for _ in range(6):
            name = ("add", "multiply", "tanh", "softmax")[int(drawn.randint(0, 4, (1,))[0])]
            inputs = [made[int(i)] for i in drawn.randint(0, len(made), (1 if name in ("tanh", "softmax") else 2,))]
            made.append(apply(KERNELS[name], *inputs))
        program.made = made[2:]
        return sum(made[2:], start=made[0]).sum()

    recording = record(program)
    kept = {v.id: recording.gradient_of(v) for v in recording.values if v.made_by is not None}
    output = program()
    for i, g in zip(kept, grad(output, program.made), strict=False):
        assert kept[i].tobytes() == g.tobytes()


def test_values_are_those_of_the_layers(model, recording):
    cache = recording.cache()
    weights = cache["transformer.h.1.attn.weights"]
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    assert not weights[..., np.triu_indices(5, 1)[0], np.triu_indices(5, 1)[1]].any()
    x = cache["transformer.h.0"] + cache["transformer.h.1.attn"]
    np.testing.assert_array_equal(x, cache["transformer.h.1.x"])
    np.testing.assert_allclose(cache["lm_head"], cache["transformer"] @ model.lm_head.weight.data.T, atol=1e-7)


def test_a_cache_without_backward_holds_activations_alone(model):
    cache = run_with_cache(model, IDS[:, :1], backward=False)  # one token has no next one
    assert cache["lm_head"].shape == (2, 1, 11)
    assert not any(name.endswith(".grad") for name in cache)
    shapes = record_model(model, IDS, backward=False, keep=np.shape).cache()
    assert shapes["lm_head"] == (2, 5, 11)


# ---- names -----------------------------------------------------------------------------------------------------------


def test_names_are_those_of_the_model_and_its_variables(model, recording):
    names = {v.name for v in recording.values}
    assert {name for name, _ in model.named_parameters()} <= names
    attention = ("c_attn", "q", "k", "v", "scores", "later", "weights", "heads", "y", "c_proj")
    assert {f"transformer.h.0.attn.{name}" for name in attention} <= names
    assert {"ids", "targets", "loss", "logits", "lm_head", "transformer.h.0", "transformer.h.1.mlp.gelu"} <= names
    assert recording["transformer.h.0.attn"] is recording["transformer.h.0.attn.c_proj"]
    assert recording["transformer.h.0.attn.q"].shape == (2, 2, 5, 4)
    assert len(names) == len(recording.values)
    with pytest.raises(KeyError, match="no value is named 'nothing'"):
        recording["nothing"]


def test_a_variable_in_a_loop_names_each_of_its_values():
    x = Tensor(np.ones((2, 2)), requires_grad=True)

    def function():
        y = x
        for _ in range(3):
            y = y.tanh()
        a, b = y
        total = (a * b).sum()
        return total

    r = record(function)
    assert [v.name for v in r.values] == ["x", "y", "y#2", "y#3", "a", "b", "multiply", "total"]

    def several():
        place = {}
        a, place["b"] = x.exp(), x.tanh()  # not all of them are variables
        return (a * place["b"]).sum()

    assert [v.name for v in record(several).values] == ["x", "exp", "tanh", "multiply", "output"]
    named = record(function, names={"input": x})
    assert named.values[0].name == "input"


def test_layers_without_a_root_keep_their_class_name():
    layer = nn.Linear(3, 2, rng=Generator(0))
    x = Tensor(np.ones((4, 3), np.float32))
    assert record(lambda: layer(x).sum()).values[0].name == "Linear.x"
    assert record(lambda: layer(x).sum(), layer)["weight"].shape == (2, 3)


# ---- order -----------------------------------------------------------------------------------------------------------


def test_steps_are_in_true_order_and_each_sum_adds_what_came(recording):
    r = recording
    assert [step.i for step in r.steps] == list(range(len(r.steps)))
    kinds = [type(step) for step in r.steps]
    first = kinds.index(Seed)
    assert set(kinds[:first]) == {Forward}
    assert set(kinds[first + 1 :]) == {Vjp, Sum, Leaf}
    forward = [r.steps[step.forward].i for step in r.steps if isinstance(step, Vjp)]
    assert forward == sorted(forward, reverse=True)
    arrays = [g.array for g in r.gradients]
    for step in r.steps:
        if isinstance(step, Sum):
            np.testing.assert_array_equal(arrays[step.first] + arrays[step.second], arrays[step.gradient])
        if isinstance(step, Leaf):
            assert r.values[step.value].grad == step.gradient
    assert r.steps[first].value == r.output
    # A value that was used n times has n contributions and n − 1 sums.
    for v in r.values:
        if v.grad is not None:
            contributions = [g for g in r.gradients if g.value == v.id and g.user is not None]
            sums = [step for step in r.steps if isinstance(step, Sum) and step.value == v.id]
            assert len(sums) == max(0, len(contributions) - 1)


def test_one_operation_that_uses_a_value_twice_contributes_twice():
    x = Tensor(np.array([2.0, 3.0]), requires_grad=True)
    r = record(lambda: (x * x).sum())
    (added,) = [step for step in r.steps if isinstance(step, Sum)]
    assert [r.gradients[i].position for i in (added.first, added.second)] == [0, 1]
    np.testing.assert_array_equal(r.gradient_of(r["x"]), [4.0, 6.0])


def test_a_hook_is_a_step_of_its_own():
    x = Tensor(np.array([2.0, 3.0]), requires_grad=True)

    def function():
        y = x.exp()
        y.register_hook(lambda g: 10 * g)
        return y.sum()

    r = record(function)
    (hook,) = [step for step in r.steps if isinstance(step, Hooked)]
    np.testing.assert_array_equal(r.gradients[hook.gradient].array, 10 * r.gradients[hook.before].array)
    np.testing.assert_array_equal(r.gradient_of(r["x"]), 10 * np.exp(x.data))


def test_what_a_vjp_saved_is_known(recording):
    saved = {step.name: step.saved for step in recording.forward}
    assert [(s.name, s.owner) for s in saved["softmax"]] == [("y", "its output")]
    assert {s.owner for s in saved["matmul"]} == {"its input a", "its input b"}
    assert saved["gelu"][0].owner == ""
    assert saved["softmax"][0].nbytes == 2 * 2 * 5 * 5 * 4


def test_lines_and_layers_are_those_of_the_program(recording):
    step = recording.step(recording["transformer.h.0.attn.weights"].made_by)
    assert step.layer == "transformer.h.0.attn"
    assert step.line.file.endswith("tinygrad_llm/nn/attention.py")
    assert step.line.text.startswith("weights = scores.masked_fill(")


def test_recompute_is_one_step_with_the_gradients_of_grad():
    model = small(dropout=0.2)
    model.train()
    model.recompute = True
    states = [m.rng.get_state() for m in model.modules() if isinstance(m, nn.Dropout)]
    r = record(lambda: model.loss(IDS, IDS), model, {"ids": IDS})
    for m, state in zip([m for m in model.modules() if isinstance(m, nn.Dropout)], states, strict=True):
        m.rng.set_state(state)
    expected = grad(model.loss(IDS, IDS), list(model.parameters()))
    for (name, _), g in zip(model.named_parameters(), expected, strict=True):
        assert np.array_equal(r.cache()[f"{name}.grad"], g), name
    assert [step.name for step in r.forward].count("recompute") == 2
    assert not {"gelu", "causal_self_attention"} & {step.name for step in r.forward}  # they are parts of a step
    assert sum(isinstance(step, Seed) for step in r.steps) == 1
    assert sum(isinstance(step, Leaf) for step in r.steps) == len(expected)
    assert r.values[r.output].name == "loss"


# ---- nothing else changes --------------------------------------------------------------------------------------------


def test_the_model_is_left_as_it_was():
    model = small(dropout=0.2)
    model.recompute, model.transformer.h[0].training = True, False
    state = {name: x.copy() for name, x in model.state_dict().items()}
    run_with_cache(model, IDS)
    assert (model.fused, model.recompute, model.training) == (True, True, True)
    assert not model.transformer.h[0].training
    assert model.transformer.h[1].training
    assert all(p.grad is None for p in model.parameters())
    assert all(np.array_equal(x, state[name]) for name, x in model.state_dict().items())
    assert current_observer() is None


def test_kept_arrays_are_copies(model):
    cache = run_with_cache(model, IDS)
    wte = model.transformer.wte.weight
    assert not any(np.shares_memory(x, wte.data) for x in cache.values())


def test_a_frozen_parameter_is_a_constant():
    model = small()
    model.transformer.ln_f.weight.requires_grad = False
    cache = run_with_cache(model, IDS)
    assert "transformer.ln_f.weight" in cache
    assert "transformer.ln_f.weight.grad" not in cache


# ---- what cannot be recorded -----------------------------------------------------------------------------------------


def test_what_cannot_be_recorded_is_named(model):
    x = Tensor(np.ones(3), requires_grad=True)
    with pytest.raises(ValueError, match=r"a gradient starts from a scalar, got shape \(3,\)"):
        record(lambda: x.exp())
    with pytest.raises(ValueError, match="returns a Tensor it made, got int"):
        record(lambda: 3)
    with pytest.raises(ValueError, match="returns a Tensor it made"):
        record(lambda: Tensor(3.0))
    with pytest.raises(ValueError, match="a text of one token"):
        run_with_cache(model, [[1]])
    with pytest.raises(ValueError, match=r"ids must be integers of shape \(B, T\)"):
        run_with_cache(model, [1, 2])
    assert current_observer() is None
