"""AdamW against its formula written as sums, and gradient clipping against the norm."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import Tensor
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.nn import LayerNorm, Linear, Parameter
from tinygrad_llm.optim import AdamW, clip_grad_norm_, decay_groups
from tinygrad_llm.random import Generator


def parameter(*values, dtype=np.float64):
    return Parameter(np.array(values, dtype))


def oracle(start, gradients, lr, betas, eps, weight_decay):
    """AdamW for one number, with the running means written out as the weighted sums they are."""
    p = start
    for t in range(1, len(gradients) + 1):
        m, v = (
            math.fsum((1 - beta) * beta ** (t - 1 - i) * g**power for i, g in enumerate(gradients[:t])) / (1 - beta**t)
            for power, beta in enumerate(betas, start=1)
        )
        p = p - lr * weight_decay * p - lr * m / (math.sqrt(v) + eps)
    return p


gradients = st.lists(st.floats(-10, 10), min_size=1, max_size=30)


@given(
    start=st.floats(-10, 10),
    gradients=gradients,
    lr=st.floats(0, 0.5),
    betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999)),
    eps=st.sampled_from([1e-8, 1e-3, 1.0]),
    weight_decay=st.floats(0, 0.5),
)
def test_adamw_is_its_formula(start, gradients, lr, betas, eps, weight_decay):
    p = parameter(start)
    optimizer = AdamW([p], lr, betas, eps, weight_decay)
    for g in gradients:
        p.grad = np.array([g])
        optimizer.step()
    expected = oracle(start, gradients, lr, betas, eps, weight_decay)
    assert p.item() == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_adamw_is_pytorchs():
    p = parameter(1, -2, 3)
    optimizer = AdamW([p], lr=0.01, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1)
    for t in range(10):
        optimizer.zero_grad()
        (p * p * p * (1 / 3) + p * t).sum().backward()
        optimizer.step()
    # torch.optim.AdamW, float64, the same ten steps.
    np.testing.assert_allclose(p.data, [0.8947975473322648, -2.0790550681389486, 2.870218486048413], rtol=1e-12)


def test_adamw_has_pytorchs_defaults():
    ps = [parameter(1.0), parameter(1.0)]
    optimizers = [AdamW(ps[:1]), AdamW(ps[1:], 1e-3, (0.9, 0.999), 1e-8, 1e-2)]
    for g in (1.0, -3.0, 1e-9):
        for p, optimizer in zip(ps, optimizers, strict=True):
            p.grad = np.array([g])
            optimizer.step()
    assert ps[0].item() == ps[1].item() == pytest.approx(oracle(1.0, [1.0, -3.0, 1e-9], 1e-3, (0.9, 0.999), 1e-8, 0.01))


def test_the_first_step_is_lr_whatever_the_gradients_size():
    p = parameter(0, 0, 0)
    p.grad = np.array([1e-3, -1.0, 1e6])
    AdamW([p], lr=0.1, eps=0.0).step()
    np.testing.assert_allclose(p.data, [-0.1, 0.1, -0.1], rtol=1e-12)


def test_float32_stays_float32_and_the_array_is_changed_in_place():
    p = parameter(1, 2, dtype=np.float32)
    array = p.data
    p.grad = g = np.array([0.5, -0.5], np.float32)
    AdamW([p], lr=0.1, weight_decay=0.0).step()
    assert p.data is array
    assert p.dtype == np.float32
    np.testing.assert_allclose(array, [0.9, 2.1], rtol=1e-6)
    np.testing.assert_array_equal(g, [0.5, -0.5])  # the gradient is only read


def test_parameters_without_gradient_are_untouched_and_count_their_own_steps():
    p, late, never = (parameter(1.0) for _ in range(3))
    optimizer = AdamW([p, late, never], lr=0.1)
    for t in range(6):
        p.grad = np.array([t + 1.0])
        late.grad = np.array([t - 2.0]) if t >= 3 else None
        optimizer.step()
        if t < 3:
            assert late.item() == 1.0
    assert never.item() == 1.0
    settings = (0.1, (0.9, 0.999), 1e-8, 1e-2)
    assert p.item() == pytest.approx(oracle(1.0, [1, 2, 3, 4, 5, 6], *settings), rel=1e-12)
    assert late.item() == pytest.approx(oracle(1.0, [1, 2, 3], *settings), rel=1e-12)


def test_groups_have_their_own_settings():
    ps = [parameter(1.0) for _ in range(3)]
    optimizer = AdamW(
        [{"params": ps[:1]}, {"params": ps[1:2], "lr": 0.3}, {"params": iter(ps[2:]), "weight_decay": 0.5}],
        lr=0.1,
        weight_decay=0.2,
    )
    for p in ps:
        p.grad = np.array([1.0])
    optimizer.step()
    for p, lr, weight_decay in zip(ps, [0.1, 0.3, 0.1], [0.2, 0.2, 0.5], strict=True):
        assert p.item() == pytest.approx(1 - lr * weight_decay - lr, rel=1e-7)

    optimizer.set_lr(0.0)
    before = [p.item() for p in ps]
    optimizer.step()
    assert [p.item() for p in ps] == before
    optimizer.zero_grad()
    assert all(p.grad is None for p in ps)


def test_parameters_may_come_from_a_generator():
    linear = Linear(3, 2, rng=Generator(0))
    assert AdamW(linear.parameters()).groups[0]["params"] == [linear.weight, linear.bias]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": []}, "there are no parameters"),
        ({"params": [{"params": []}]}, "there are no parameters"),
        ({"lr": -1e-3}, "lr and weight_decay must be finite and ≥ 0"),
        ({"weight_decay": -1.0}, "lr and weight_decay must be finite and ≥ 0"),
        ({"betas": (1.0, 0.9)}, r"betas must lie in \[0, 1\)"),
        ({"betas": (0.9, -0.1)}, r"betas must lie in \[0, 1\)"),
        ({"eps": -1e-8}, "eps be ≥ 0"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=f"^AdamW: .*{message}"):
        AdamW(**{"params": [parameter(1.0)], **arguments})


def test_a_parameter_given_twice():
    p = parameter(1.0)
    for params in ([p, p], [{"params": [p]}, {"params": [p]}]):
        with pytest.raises(ValueError, match="given twice"):
            AdamW(params)


def test_settings_of_a_group_out_of_range():
    with pytest.raises(ValueError, match="must be finite and ≥ 0"):
        AdamW([{"params": [parameter(1.0)], "lr": -1.0}])


def test_only_matrices_decay():
    linear, norm = Linear(3, 2, rng=Generator(0)), LayerNorm(2)
    named = [*linear.named_parameters(), *norm.named_parameters()]
    matrices, vectors = decay_groups(iter(named), 0.1)
    assert matrices == {"params": [linear.weight], "weight_decay": 0.1}
    assert vectors == {"params": [linear.bias, norm.weight, norm.bias], "weight_decay": 0.0}

    before = [p.data.copy() for _, p in named]
    for _, p in named:
        p.grad = np.zeros_like(p.data)
    AdamW([matrices, vectors], lr=0.5).step()
    after = [p.data for _, p in named]
    np.testing.assert_allclose(after[0], before[0] * 0.95, rtol=1e-6)
    for was, now in zip(before[1:], after[1:], strict=True):
        assert now.tobytes() == was.tobytes()


def test_the_groups_of_a_model_hold_each_parameter_once():
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=2))
    groups = decay_groups(model.named_parameters(), 0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    names = {id(p): name for name, p in model.named_parameters()}
    assert not any(names[id(p)].endswith("bias") or ".ln_" in names[id(p)] for p in groups[0]["params"])


# ---- clipping ---------------------------------------------------------------------------------------------------


def with_gradients(*arrays):
    parameters = []
    for array in arrays:
        p = Parameter(np.zeros_like(array))
        p.grad = array.copy()
        parameters.append(p)
    return parameters


def test_clipping_is_the_books():
    (p,) = with_gradients(np.array([[1.0, 2.0], [2.0, 4.0]], np.float32))
    assert clip_grad_norm_([p], 1.0) == 5.0
    np.testing.assert_allclose(p.grad, [[0.2, 0.4], [0.4, 0.8]], rtol=0, atol=1e-6)  # apD-02
    assert p.grad.dtype == np.float32


arrays = st.lists(
    st.lists(st.floats(-100, 100), min_size=1, max_size=5).map(lambda row: np.array(row)), min_size=1, max_size=4
)


@given(arrays, st.floats(1e-3, 1000))
def test_clipping_bounds_the_joint_norm_and_keeps_the_direction(arrays, limit):
    parameters = with_gradients(*arrays)
    norm = clip_grad_norm_(iter(parameters), limit)
    assert norm == pytest.approx(math.hypot(*np.concatenate(arrays)), rel=1e-12, abs=1e-150)
    clipped = np.concatenate([p.grad for p in parameters])
    if norm <= limit:
        assert clipped.tobytes() == np.concatenate(arrays).tobytes()
    else:
        assert math.hypot(*clipped) <= limit
        np.testing.assert_allclose(clipped, np.concatenate(arrays) * (limit / (norm + 1e-6)), rtol=1e-12)


def test_clipping_changes_the_gradients_in_place_and_skips_missing_ones():
    p, q = with_gradients(np.array([3.0, 4.0]), np.array([1.0]))
    q.grad, array = None, p.grad
    assert clip_grad_norm_([p, q], 1.0) == 5.0
    assert p.grad is array
    assert q.grad is None
    assert clip_grad_norm_([q], 1.0) == 0.0


def test_what_cannot_be_optimised_is_refused():
    x = Tensor(np.ones(3), requires_grad=True)
    with pytest.raises(ValueError, match="a list of parameters, not one Tensor"):
        AdamW(x)
    with pytest.raises(ValueError, match="a parameter is a leaf Tensor"):
        AdamW([x * 2])
    with pytest.raises(ValueError, match="a group may set params, lr and weight_decay, not betas"):
        AdamW([{"params": [x], "betas": (0.0, 0.0)}])
    for max_norm in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="max_norm must be positive"):
            clip_grad_norm_([x], max_norm)
