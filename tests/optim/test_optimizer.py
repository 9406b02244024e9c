"""SGD, Adam and AdamW against their formulas written as sums; their state; gradient clipping against the norm."""

import math
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import Tensor
from tinygrad_llm.formats import load_safetensors, save_safetensors
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.nn import LayerNorm, Linear, Parameter
from tinygrad_llm.optim import SGD, Adam, AdamW, clip_grad_norm_, decay_groups
from tinygrad_llm.optim import optimizer as module
from tinygrad_llm.optim.optimizer import STRETCH, TASK, clip_scale, grad_norm, tasks
from tinygrad_llm.random import Generator


def parameter(*values, dtype=np.float64):
    return Parameter(np.array(values, dtype))


def oracle(start, gradients, lr, betas, eps, weight_decay, coupled=False):
    """AdamW (coupled: Adam) for one number, with the running means written out as the weighted sums they are."""
    p, seen = start, []
    for t, gradient in enumerate(gradients, start=1):
        seen.append(gradient + coupled * weight_decay * p)
        m, v = (
            math.fsum((1 - beta) * beta ** (t - 1 - i) * g**power for i, g in enumerate(seen)) / (1 - beta**t)
            for power, beta in enumerate(betas, start=1)
        )
        p = p - (not coupled) * lr * weight_decay * p - lr * m / (math.sqrt(v) + eps)
    return p


def sgd_oracle(start, gradients, lr, momentum, dampening, weight_decay, nesterov):
    """SGD for one number, with the momentum written out as the sum of past gradients that it is."""
    p, seen = start, []
    for gradient in gradients:
        seen.append(gradient + weight_decay * p)
        b = math.fsum(momentum ** (len(seen) - 1 - i) * g * (1 - dampening if i else 1) for i, g in enumerate(seen))
        p = p - lr * (seen[-1] + momentum * b if nesterov else b)
    return p


gradients = st.lists(st.floats(-10, 10), min_size=1, max_size=30)


def stepped(make, start, gradients, **options):
    """Where an optimizer takes a number, given its gradients."""
    p = parameter(start)
    optimizer = make([p], **options)
    for g in gradients:
        p.grad = np.array([g])
        optimizer.step()
    return p.item()


@given(
    start=st.floats(-10, 10),
    gradients=gradients,
    lr=st.floats(0, 0.5),
    betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999)),
    eps=st.sampled_from([1e-8, 1e-3, 1.0]),
    weight_decay=st.floats(0, 0.5),
)
def test_adamw_is_its_formula(start, gradients, lr, betas, eps, weight_decay):
    p = stepped(AdamW, start, gradients, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    assert p == pytest.approx(oracle(start, gradients, lr, betas, eps, weight_decay), rel=1e-9, abs=1e-9)


@given(
    start=st.floats(-10, 10),
    gradients=gradients,
    lr=st.floats(0, 0.5),
    betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999)),
    eps=st.sampled_from([1e-3, 1.0]),  # where p itself enters the gradient, a small eps would enlarge rounding
    weight_decay=st.floats(0, 0.5),
)
def test_adam_is_its_formula(start, gradients, lr, betas, eps, weight_decay):
    p = stepped(Adam, start, gradients, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
    assert p == pytest.approx(oracle(start, gradients, lr, betas, eps, weight_decay, coupled=True), rel=1e-6, abs=1e-6)


@given(
    start=st.floats(-10, 10),
    gradients=gradients,
    lr=st.floats(0, 0.5),
    momentum=st.floats(0, 0.99),
    dampening=st.just(0.0) | st.floats(0, 1),
    weight_decay=st.floats(0, 0.5),
    nesterov=st.booleans(),
)
def test_sgd_is_its_formula(start, gradients, lr, momentum, dampening, weight_decay, nesterov):
    nesterov = nesterov and momentum > 0
    dampening = 0.0 if nesterov or not momentum else dampening  # without momentum there is nothing to dampen
    settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
    p = stepped(SGD, start, gradients, **settings, nesterov=nesterov)
    assert p == pytest.approx(sgd_oracle(start, gradients, **settings, nesterov=nesterov), rel=1e-9, abs=1e-9)


def test_the_dampening_of_no_momentum_is_nothing():
    assert stepped(SGD, 1.0, [1.0, 1.0], lr=0.5, dampening=1.0) == 0.0


# torch 2.13, float64: the ten steps below.
@pytest.mark.parametrize(
    ("make", "options", "expected"),
    [
        (SGD, {}, [0.4772916767790082, -3.001014617617827, 1.895061090681697]),
        (
            SGD,
            {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1},
            [-0.5206283214261471, -5.649391096490538, -0.4596880627365342],
        ),
        (
            SGD,
            {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
            [-0.9877124507284436, -8.160458274128318, -0.9589314166213585],
        ),
        (
            Adam,
            {"betas": (0.9, 0.95), "weight_decay": 0.1},
            [0.9040028710952656, -2.0993025152549696, 2.8996288836167867],
        ),
    ],
)
def test_sgd_and_adam_are_pytorchs(make, options, expected):
    p = parameter(1, -2, 3)
    optimizer = make([p], lr=0.01, **options)
    for t in range(10):
        optimizer.zero_grad()
        (p * p * p * (1 / 3) + p * t).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(p.data, expected, rtol=1e-12)


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


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "lr and weight_decay must be finite and ≥ 0"),
        ({"lr": math.nan}, "lr and weight_decay must be finite and ≥ 0"),
        ({"weight_decay": math.inf}, "lr and weight_decay must be finite and ≥ 0"),
        ({"momentum": 1.0}, r"momentum must lie in \[0, 1\)"),
        ({"momentum": -0.1}, r"momentum must lie in \[0, 1\)"),
        ({"momentum": 0.9, "dampening": 1.5}, r"dampening in \[0, 1\]"),
        ({"nesterov": True}, "nesterov needs momentum > 0 and dampening 0, not 0.0 and 0.0"),
        ({"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov needs momentum > 0 and dampening 0"),
        ({"params": []}, "there are no parameters"),
    ],
)
def test_settings_of_sgd_out_of_range(options, message):
    with pytest.raises(ValueError, match=f"^SGD: .*{message}"):
        SGD(**{"params": [parameter(1.0)], **options})


def test_a_learning_rate_out_of_range_is_refused_later_too():
    optimizer = Adam([parameter(1.0)])
    for lr in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"^Adam: lr must be finite and ≥ 0, not {lr}"):
            optimizer.set_lr(lr)
    assert optimizer.groups[0]["lr"] == 1e-3


def test_a_gradient_of_another_shape_stops_the_step_before_it_begins():
    ps = [parameter(1.0), parameter(1.0, 2.0)]
    ps[0].grad, ps[1].grad = np.ones(1), np.ones(1)
    with pytest.raises(ValueError, match=r"^SGD: w has shape \(2,\), its gradient \(1,\)"):
        SGD([("v", ps[0]), ("w", ps[1])]).step()
    assert ps[0].item() == 1.0


def test_settings_of_a_group_out_of_range():
    with pytest.raises(ValueError, match="must be finite and ≥ 0"):
        AdamW([{"params": [parameter(1.0)], "lr": -1.0}])


def test_only_matrices_decay():
    linear, norm = Linear(3, 2, rng=Generator(0)), LayerNorm(2)
    named = [(f"{i}.{name}", p) for i, module in enumerate([linear, norm]) for name, p in module.named_parameters()]
    matrices, vectors = decay_groups(iter(named), 0.1)
    assert matrices == {"params": [named[0]], "weight_decay": 0.1}
    assert vectors == {"params": named[1:], "weight_decay": 0.0}

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
    grouped = {name: p for group in groups for name, p in group["params"]}
    assert grouped == dict(model.named_parameters())
    assert sum(len(group["params"]) for group in groups) == len(grouped)
    assert not any(name.endswith("bias") or ".ln_" in name for name, _ in groups[0]["params"])


def test_the_groups_are_printed():
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=2))
    optimizer = AdamW(decay_groups(model.named_parameters(), 0.1), lr=3e-4)
    matrices, vectors = ([p for p in model.parameters() if (p.ndim >= 2) is matrix] for matrix in (True, False))
    assert str(optimizer).splitlines() == [
        f"AdamW: {len(ps)} tensors, {sum(p.data.size for p in ps)} numbers, lr 0.0003, weight decay {decay}"
        for ps, decay in ((matrices, 0.1), (vectors, 0))
    ]
    assert "1,500 numbers, lr 0.001, weight decay 0" in str(SGD([parameter(*range(1500))]))


# ---- stretches ------------------------------------------------------------------------------------------------------

EVERY = {
    "SGD": lambda params: SGD(params, 0.1, weight_decay=0.1),
    "momentum": lambda params: SGD(params, 0.1, 0.9, 0.2, 0.1),
    "nesterov": lambda params: SGD(params, 0.1, 0.9, weight_decay=0.1, nesterov=True),
    "Adam": lambda params: Adam(params, 0.1, weight_decay=0.1),
    "AdamW": lambda params: AdamW(params, 0.1, weight_decay=0.1),
}
every_optimizer = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


@every_optimizer
@pytest.mark.parametrize("layout", ["C C", "F F", "C F", "strided"])
def test_each_number_is_updated_as_if_it_were_alone_wherever_it_lies(make, layout):
    """A large parameter is updated stretch by stretch: as its rows are, to the bit, in any order in memory."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((3, STRETCH)).astype(np.float32)  # three stretches, none of them a row in F order
    steps = rng.standard_normal((3, *start.shape)).astype(np.float32)
    rows = [Parameter(row.copy()) for row in start]
    p = Parameter(np.zeros(1, np.float32))
    p.data = np.repeat(start, 2, axis=1)[:, ::2] if layout == "strided" else np.array(start, order=layout[0])
    array, of_rows, whole = p.data, make(rows), make([p])
    for g in steps:
        for row, own in zip(rows, g, strict=True):
            row.grad = own
        p.grad = g if layout == "strided" else np.array(g, order=layout[-1])
        of_rows.step()
        whole.step()
    assert p.data is array
    assert p.data.tobytes() == np.stack([row.data for row in rows]).tobytes()


@every_optimizer
def test_neither_gradients_nor_dtypes_change_nor_do_numbers_without_axes_or_none_at_all(make):
    ps = [Parameter(np.ones(shape, np.float32)) for shape in ((), (0, 3), (2, 3))]
    grads = [np.full(p.shape, 0.5, np.float32) for p in ps]
    optimizer = make(ps)
    for _ in range(2):
        for p, g in zip(ps, grads, strict=True):
            p.grad = g
            g.flags.writeable = False
        optimizer.step()
    assert all(p.dtype == np.float32 and p.data.shape == g.shape for p, g in zip(ps, grads, strict=True))
    assert ps[0].item() == ps[2].data[1, 2] < 1


@every_optimizer
def test_a_scale_given_to_the_step_is_one_given_to_the_gradients(make):
    rng = np.random.default_rng(0)
    ps, qs = ([Parameter(x.copy()) for x in (np.ones((3, 4), np.float32), np.ones(5))] for _ in range(2))
    one, other = make(ps), make(qs)
    for scale in (0.3, 1.0, 2.0):
        grads = [rng.standard_normal(p.shape).astype(p.dtype) for p in ps]
        for p, q, g in zip(ps, qs, grads, strict=True):
            p.grad, q.grad = g.copy(), g * scale
        one.step(grad_scale=scale)
        other.step()
        for p, q, g in zip(ps, qs, grads, strict=True):
            assert p.data.tobytes() == q.data.tobytes()
            assert p.dtype == q.dtype
            assert p.grad.tobytes() == g.tobytes()


@every_optimizer
def test_threads_share_the_tasks_and_change_no_bit(make, monkeypatch):
    monkeypatch.setattr(module, "TASK", 1000)
    rng = np.random.default_rng(0)
    shapes = [(STRETCH + 3,), (700,), (), (40, 30), (0,), (999,), (2, 3)]
    results = []
    with ThreadPoolExecutor(3) as pool:
        for map_ in (map, pool.map):
            ps = [Parameter(np.ones(shape, np.float32)) for shape in shapes]
            optimizer = make(ps)
            for seed in range(2):
                rng = np.random.default_rng(seed)
                for p in ps:
                    p.grad = np.asarray(rng.standard_normal(p.shape), np.float32)
                optimizer.step(0.5, map=map_)
            results.append([p.data.tobytes() for p in ps])
            norm = grad_norm((p.grad for p in ps), map=map_)
            results[-1].append(norm)
    assert results[0] == results[1]


def test_a_task_that_fails_is_not_passed_over():
    p = Parameter(np.ones(3, np.float32))
    p.grad = np.ones(3, np.float32)
    optimizer = AdamW([p])
    optimizer._update = lambda *_: 1 / 0
    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError):
        optimizer.step(map=pool.map)


@given(st.lists(st.integers(0, 2 * TASK)))
def test_tasks_are_all_entries_in_order_in_lists_worth_a_thread(sizes):
    found = list(tasks(sizes, lambda size: size))
    assert [size for task in found for size in task] == sizes
    assert all(found)
    assert all(sum(task) >= TASK > sum(task[:-1]) for task in found[:-1])


# ---- state ----------------------------------------------------------------------------------------------------------


@every_optimizer
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_stopped_and_resumed_is_never_stopped_to_the_bit(make, stop, tmp_path):
    rng = np.random.default_rng(0)
    start = {"w": rng.standard_normal((2, 3)).astype(np.float32), "b": rng.standard_normal(3)}
    steps = [{name: rng.standard_normal(p.shape).astype(p.dtype) for name, p in start.items()} for _ in range(7)]
    for step in steps[:3]:
        step["b"] = None  # b has taken no step yet when w has

    def run(parameters, optimizer, steps):
        for step in steps:
            for name, p in parameters.items():
                p.grad = step[name]
            optimizer.step()
        return {name: p.data.copy() for name, p in parameters.items()}, optimizer.state_dict()

    def fresh(arrays):
        parameters = {name: Parameter(array.copy()) for name, array in arrays.items()}
        return parameters, make(list(parameters.items()))

    expected, expected_state = run(*fresh(start), steps)
    arrays, state = run(*fresh(start), steps[:stop])
    save_safetensors(tmp_path / "state.safetensors", state)
    parameters, optimizer = fresh(arrays)
    optimizer.load_state_dict(load_safetensors(tmp_path / "state.safetensors")[0])
    found, found_state = run(parameters, optimizer, steps[stop:])
    assert {name: p.tobytes() for name, p in found.items()} == {name: p.tobytes() for name, p in expected.items()}
    assert {k: v.tobytes() for k, v in found_state.items()} == {k: v.tobytes() for k, v in expected_state.items()}


def test_a_state_is_named_and_holds_no_more_than_it_must():
    ps = [parameter(1.0, 2.0), parameter(3.0)]
    ps[0].grad = np.array([1.0, -1.0])
    for params, first, second in ((ps, "0", "1"), ([("w", ps[0]), ("b", ps[1])], "w", "b")):
        optimizer = AdamW(params)
        assert {key: int(value) for key, value in optimizer.state_dict().items()} == {
            f"{first}.steps": 0,
            f"{second}.steps": 0,
        }
        optimizer.step()
        state = optimizer.state_dict()
        assert list(state) == [f"{first}.steps", f"{first}.m", f"{first}.v", f"{second}.steps"]
        assert state[f"{first}.steps"].dtype == np.int64
        assert [int(state[f"{name}.steps"]) for name in (first, second)] == [1, 0]
        np.testing.assert_allclose(state[f"{first}.m"], [0.1, -0.1], rtol=1e-15)
        np.testing.assert_allclose(state[f"{first}.v"], [0.001, 0.001], rtol=1e-12)
    for momentum, expected in ((0.0, ["0.steps", "1.steps"]), (0.9, ["0.steps", "0.momentum", "1.steps"])):
        sgd = SGD(ps, momentum=momentum)
        sgd.step()
        assert list(sgd.state_dict()) == expected


def test_a_loaded_state_is_a_copy():
    p = parameter(1.0)
    p.grad = np.array([1.0])
    optimizer = AdamW([p])
    optimizer.step()
    state = {key: value.copy() for key, value in optimizer.state_dict().items()}
    for value in state.values():
        value.flags.writeable = False
    optimizer.load_state_dict(state)
    optimizer.step()
    assert state["0.m"][0] == pytest.approx(0.1, rel=1e-15)
    assert int(state["0.steps"]) == 1


def test_a_state_that_does_not_fit_is_refused_with_everything_that_is_wrong():
    ps = [parameter(1.0, 2.0), parameter(3.0)]
    optimizer = AdamW(ps)
    for p in ps:
        p.grad = np.ones_like(p.data)
    optimizer.step()
    before = {key: value.copy() for key, value in optimizer.state_dict().items()}
    wrong = {
        "0.steps": np.array(-1),
        "0.m": np.zeros(3),
        "0.v": np.zeros(2, np.float32),
        "1.steps": np.array(2),
        "1.v": np.zeros(1),
        "2.m": np.zeros(1),
    }
    message = (
        "AdamW: the state does not fit the parameters: 0.steps is no number of steps; "
        "0.m is float64 (3,), the parameter float64 (2,); 0.v is float32 (2,), the parameter float64 (2,); "
        "missing 1.m; unexpected 2.m"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        optimizer.load_state_dict(wrong)
    after = optimizer.state_dict()
    assert after.keys() == before.keys()
    assert all(np.array_equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, "missing 0.steps"),
        ({"0.steps": np.array(1.0), "0.m": np.zeros(1), "0.v": np.zeros(1)}, "0.steps is no number of steps"),
        ({"0.steps": np.array([1]), "0.m": np.zeros(1), "0.v": np.zeros(1)}, "0.steps is no number of steps"),
        ({"0.steps": np.array(0), "0.m": np.zeros(1)}, "unexpected 0.m"),
        ({"0.steps": np.array(1), "0.momentum": np.zeros(1)}, "missing 0.m; missing 0.v; unexpected 0.momentum"),
    ],
)
def test_one_thing_wrong_with_a_state(state, message):
    with pytest.raises(ValueError, match=f"the parameters: {message}$"):
        AdamW([parameter(1.0)]).load_state_dict(state)


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 8191, 8192, 8193, 100_000])
def test_the_norm_is_as_precise_as_its_gradients(size, dtype):
    g = np.random.default_rng(0).standard_normal(size).astype(dtype)
    exact = math.sqrt(math.fsum(float(x) ** 2 for x in g))
    for one in (g, g[::-1], np.repeat(g, 2)[::2], np.asfortranarray(g.reshape(2, -1)) if size % 2 == 0 else g):
        contiguous = one.flags.c_contiguous or one.flags.f_contiguous  # otherwise one number is added after the other
        precision = 1e-13 if dtype is np.float64 else 2e-7 if contiguous else 5e-6
        assert clip_grad_norm_(with_gradients(one), math.inf) == pytest.approx(exact, rel=precision)
        assert grad_norm([one, one]) == pytest.approx(exact * math.sqrt(2), rel=precision)


def test_the_norm_of_many_numbers_is_no_less_precise():
    g = np.full(2_000_001, 0.1, np.float32)
    assert grad_norm([g]) == pytest.approx(math.sqrt(len(g)) * float(g[0]), rel=5e-6)
    assert grad_norm([np.asarray(np.float32(-3)), g[:0]]) == 3
    assert grad_norm([]) == 0


@pytest.mark.parametrize("size", [4, 10_000])
@pytest.mark.parametrize("value", [1e-44, 1e-30, 1e-22, 1e-15, 1e15, 1e19, 1e30, 3e38])
def test_the_squares_of_large_and_small_numbers_are_no_limit(value, size):
    g = np.full(size, value, np.float32)
    assert grad_norm([g]) == pytest.approx(math.sqrt(size) * float(g[0]), rel=5e-6, abs=0)


def test_what_gradients_are_scaled_by():
    assert clip_scale(0.5, 1.0) == clip_scale(1.0, 1.0) == 1.0
    assert clip_scale(4.0, 1.0) == pytest.approx(0.25, rel=1e-6)
    assert 4.0 * clip_scale(4.0, 1.0) <= 1.0
    assert [clip_scale(bad, 1.0) for bad in (math.nan, math.inf)] == [1.0, 1.0]
    assert type(clip_scale(4.0, 1.0)) is float  # a NumPy scalar would make float32 gradients float64
    for max_norm in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="max_norm must be positive"):
            clip_scale(1.0, max_norm)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_norm_that_is_no_number_is_returned_and_no_gradient_changed(bad):
    parameters = with_gradients(np.array([3.0, bad]), np.array([4.0]))
    norm = clip_grad_norm_(parameters, 1.0)
    np.testing.assert_equal(norm, abs(bad))
    np.testing.assert_array_equal(parameters[0].grad, [3.0, bad])
    np.testing.assert_array_equal(parameters[1].grad, [4.0])


def test_what_cannot_be_optimised_is_refused():
    x = Tensor(np.ones(3), requires_grad=True)
    y = Tensor(np.ones(3), requires_grad=True)
    for params, message in (
        ({"params": [x]}, "a list of parameters, not one dict"),
        ([{"lr": 0.1}], 'a group is a dict {"params": [a list of parameters], …}'),
        ([{"params": x}], 'a group is a dict {"params": [a list of parameters], …}'),
        ([("x", x), y], "give all parameters a name, or none"),
        ([("x", x), ("x", y)], "two parameters have one name"),
        ([("x", x), ("y", x)], "a parameter was given twice"),
        ([("x", x * 2)], "a parameter is a leaf Tensor"),
        ([np.ones(3)], "a parameter is a leaf Tensor"),
    ):
        with pytest.raises(ValueError, match=f"^SGD: .*{re.escape(message)}"):
            SGD(params)
    with pytest.raises(ValueError, match="a list of parameters, not one Tensor"):
        AdamW(x)
    with pytest.raises(ValueError, match="a parameter is a leaf Tensor"):
        AdamW([x * 2])
    with pytest.raises(ValueError, match="a group may set params, lr and weight_decay, not betas"):
        AdamW([{"params": [x], "betas": (0.0, 0.0)}])
    for max_norm in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="max_norm must be positive"):
            clip_grad_norm_([x], max_norm)
