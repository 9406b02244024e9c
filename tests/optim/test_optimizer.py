"""SGD, Adam and AdamW against their formulas written as sums, and against PyTorch; groups, threads, and their state."""

import copy
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
from tinygrad_llm.optim import SGD, Adam, AdamW, Muon, Together, decay_groups, grad_norm
from tinygrad_llm.optim import jobs as module
from tinygrad_llm.optim.jobs import SMALL, STRETCH
from tinygrad_llm.random import Generator


def with_muon(params):
    """Muon for matrices, AdamW for the rest."""
    named = [entry if isinstance(entry, tuple) else (str(i), entry) for i, entry in enumerate(params)]
    matrices, others = ([(name, p) for name, p in named if (p.ndim == 2) is wanted] for wanted in (True, False))
    optimizers = ([Muon(matrices, 0.1)] if matrices else []) + ([AdamW(others, 0.1)] if others else [])
    return Together(*optimizers)


EVERY = {
    "SGD": lambda params: SGD(params, 0.1, weight_decay=0.1),
    "momentum": lambda params: SGD(params, 0.1, 0.9, 0.2, 0.1),
    "nesterov": lambda params: SGD(params, 0.1, 0.9, weight_decay=0.1, nesterov=True),
    "Adam": lambda params: Adam(params, 0.1, weight_decay=0.1),
    "AdamW": lambda params: AdamW(params, 0.1, weight_decay=0.1),
    "amsgrad": lambda params: AdamW(params, 0.1, (0.9, 0.5), weight_decay=0.1, amsgrad=True),
    "maximize": lambda params: AdamW(params, 0.1, weight_decay=0.1, maximize=True),
    "muon": with_muon,
}
every_optimizer = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)
elementwise = pytest.mark.parametrize("make", list(EVERY.values())[:-1], ids=list(EVERY)[:-1])  # without Muon


def parameter(*values, dtype=np.float64):
    return Parameter(np.array(values, dtype))


def stepped(make, start, gradients, **options):
    """The value of a single-element parameter after one step for each gradient."""
    p = parameter(start)
    optimizer = make([p], **options)
    for g in gradients:
        p.grad = np.array([g])
        optimizer.step()
    return p.item()


# ---- the formulas ---------------------------------------------------------------------------------------------------


def adam_oracle(start, gradients, lr, betas, eps, weight_decay, coupled=False, amsgrad=False, maximize=False):
    """AdamW (coupled: Adam) for one number, with the running means written out as the weighted sums they are."""
    p, seen, squares = start, [], []
    for t, gradient in enumerate(gradients, start=1):
        seen.append((-gradient if maximize else gradient) + coupled * weight_decay * p)
        m, v = (
            math.fsum((1 - beta) * beta ** (t - 1 - i) * g**power for i, g in enumerate(seen))
            for power, beta in enumerate(betas, start=1)
        )
        squares.append(v)
        m, v = m / (1 - betas[0] ** t), (max(squares) if amsgrad else v) / (1 - betas[1] ** t)
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


common = {
    "start": st.floats(-10, 10),
    "gradients": st.lists(st.floats(-10, 10), min_size=1, max_size=30),
    "lr": st.floats(0, 0.5),
    "weight_decay": st.floats(0, 0.5),
}
adams = {
    "betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.9999)),
    "amsgrad": st.booleans(),
    "maximize": st.booleans(),
}


@given(**common, **adams, eps=st.sampled_from([1e-8, 1e-3, 1.0]))
def test_adamw_follows_its_formula(start, gradients, **settings):
    expected = adam_oracle(start, gradients, **settings)
    assert stepped(AdamW, start, gradients, **settings) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(**common, **adams, eps=st.sampled_from([1e-3, 1.0]))  # p enters g: a small eps would enlarge rounding
def test_adam_follows_its_formula(start, gradients, **settings):
    expected = adam_oracle(start, gradients, **settings, coupled=True)
    assert stepped(Adam, start, gradients, **settings) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@given(**common, momentum=st.floats(0, 0.99), dampening=st.just(0.0) | st.floats(0, 1), nesterov=st.booleans())
def test_sgd_follows_its_formula(start, gradients, momentum, dampening, nesterov, **settings):
    nesterov = nesterov and momentum > 0
    settings |= {"momentum": momentum, "nesterov": nesterov}
    settings["dampening"] = 0.0 if nesterov or not momentum else dampening
    expected = sgd_oracle(start, gradients, **settings)
    assert stepped(SGD, start, gradients, **settings) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_dampening_without_momentum_has_no_effect():
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
        (
            AdamW,
            {"betas": (0.9, 0.95), "weight_decay": 0.1},
            [0.8947975473322648, -2.0790550681389486, 2.870218486048413],
        ),
    ],
)
def test_ten_steps_give_the_numbers_of_pytorch(make, options, expected):
    p = parameter(1, -2, 3)
    optimizer = make([p], lr=0.01, **options)
    for t in range(10):
        optimizer.zero_grad()
        (p * p * p * (1 / 3) + p * t).sum().backward()
        optimizer.step()
    np.testing.assert_allclose(p.data, expected, rtol=1e-12)


def test_the_defaults_are_those_of_pytorch():
    for make, defaults in (
        (SGD, {"lr": 1e-3, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0, "nesterov": False}),
        (Adam, {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0}),
        (AdamW, {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2}),
    ):
        gradients = [1.0, -3.0, 1e-9]
        assert stepped(make, 1.0, gradients) == stepped(make, 1.0, gradients, **defaults) != 1.0


def test_the_first_step_of_adamw_is_lr_however_large_the_gradient_is():
    p = parameter(0, 0, 0)
    p.grad = np.array([1e-3, -1.0, 1e6])
    AdamW([p], lr=0.1, eps=0.0).step()
    np.testing.assert_allclose(p.data, [-0.1, 0.1, -0.1], rtol=1e-12)


def test_a_parameter_without_a_gradient_is_not_updated_and_counts_its_own_steps():
    p, late, never = (parameter(1.0) for _ in range(3))
    optimizer = AdamW([p, late, never], lr=0.1)
    for t in range(6):
        p.grad = np.array([t + 1.0])
        late.grad = np.array([t - 2.0]) if t >= 3 else None
        optimizer.step()
        if t < 3:
            assert late.item() == 1.0
    assert never.item() == 1.0
    assert p.item() == stepped(AdamW, 1.0, [1, 2, 3, 4, 5, 6], lr=0.1)
    assert late.item() == stepped(AdamW, 1.0, [1, 2, 3], lr=0.1)


# ---- groups ---------------------------------------------------------------------------------------------------------


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
    assert AdamW(linear.parameters()).param_groups[0]["params"] == [linear.weight, linear.bias]


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


def test_decay_groups_of_a_model_hold_each_parameter_once_and_are_printed():
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=2))
    groups = decay_groups(model.named_parameters(), 0.1)
    grouped = {name: p for group in groups for name, p in group["params"]}
    assert grouped == dict(model.named_parameters())
    assert sum(len(group["params"]) for group in groups) == len(grouped)
    assert not any(name.endswith("bias") or ".ln_" in name for name, _ in groups[0]["params"])
    assert repr(AdamW(groups, lr=3e-4)).splitlines() == [
        f"AdamW: {len(group['params'])} tensors, {sum(p.data.size for _, p in group['params'])} numbers, lr 0.0003, "
        f"weight decay {decay}"
        for group, decay in zip(groups, (0.1, 0), strict=True)
    ]
    assert "1,500 numbers, lr 0.001, weight decay 0" in str(SGD([parameter(*range(1500))]))


# ---- errors ---------------------------------------------------------------------------------------------------------

FINITE = "must be finite and ≥ 0, got"
LEAF = Tensor(np.ones(3), requires_grad=True)
OTHER = Tensor(np.ones(3), requires_grad=True)


@pytest.mark.parametrize(
    ("make", "arguments", "message"),
    [
        (AdamW, {"lr": -1e-3}, f"lr {FINITE} -0.001"),
        (AdamW, {"weight_decay": -1.0}, f"weight_decay {FINITE} -1.0"),
        (AdamW, {"betas": (1.0, 0.9)}, "betas must be two numbers in [0, 1) and eps ≥ 0, got (1.0, 0.9) and 1e-08"),
        (AdamW, {"betas": (0.9, -0.1)}, "betas must be two numbers in [0, 1)"),
        (AdamW, {"eps": -1e-8}, "eps ≥ 0, got (0.9, 0.999) and -1e-08"),
        (AdamW, {"params": [{"params": [LEAF], "lr": -1.0}]}, f"lr {FINITE} -1.0"),
        (SGD, {"lr": math.nan}, f"lr {FINITE} nan"),
        (SGD, {"lr": "0.1"}, f"lr {FINITE} '0.1'"),
        (AdamW, {"lr": None}, f"lr {FINITE} None"),
        (AdamW, {"betas": 0.9}, "betas must be two numbers in [0, 1)"),
        (
            SGD,
            {"params": object()},
            "params must be a list of parameters, got one object: of a model, write model.parameters()",
        ),
        (SGD, {"weight_decay": math.inf}, f"weight_decay {FINITE} inf"),
        (SGD, {"momentum": 1.0}, "momentum must be in [0, 1) and dampening in [0, 1], got 1.0 and 0.0"),
        (SGD, {"momentum": -0.1}, "momentum must be in [0, 1)"),
        (SGD, {"momentum": 0.9, "dampening": 1.5}, "dampening in [0, 1], got 0.9 and 1.5"),
        (SGD, {"nesterov": True}, "nesterov needs momentum > 0 and dampening 0, got 0.0 and 0.0"),
        (SGD, {"nesterov": True, "momentum": 0.9, "dampening": 0.1}, "nesterov needs momentum > 0 and dampening 0"),
        (SGD, {"params": []}, "there are no parameters to optimize"),
        (AdamW, {"params": [{"params": []}]}, "there are no parameters to optimize"),
        (SGD, {"params": {"params": [LEAF]}}, "params must be a list of parameters, got one dict: write [params]"),
        (AdamW, {"params": LEAF}, "params must be a list of parameters, got one Tensor: write [params]"),
        (SGD, {"params": [{"lr": 0.1}]}, 'a group must be a dict {"params": [a list of parameters], …}'),
        (SGD, {"params": [{"params": LEAF}]}, 'a group must be a dict {"params": [a list of parameters], …}'),
        (AdamW, {"params": [{"params": [LEAF], "betas": (0, 0)}]}, "may set params, lr and weight_decay, got betas"),
        (SGD, {"params": [("x", LEAF), OTHER]}, "give all parameters a name, or none"),
        (SGD, {"params": [("x", LEAF), ("x", OTHER)]}, "two parameters have one name"),
        (SGD, {"params": [LEAF, LEAF]}, "a parameter was given twice"),
        (SGD, {"params": [("x", LEAF), ("y", LEAF)]}, "a parameter was given twice"),
        (AdamW, {"params": [{"params": [LEAF]}, {"params": [LEAF]}]}, "a parameter was given twice"),
        (AdamW, {"params": [LEAF * 2]}, "a parameter must be a leaf Tensor"),
        (SGD, {"params": [("x", LEAF * 2)]}, "a parameter must be a leaf Tensor"),
        (SGD, {"params": [("x", LEAF, OTHER)]}, "a parameter must be a leaf Tensor"),
        (SGD, {"params": [np.ones(3)]}, "a parameter must be a leaf Tensor"),
    ],
)
def test_arguments_that_are_refused(make, arguments, message):
    with pytest.raises(ValueError, match=f"^{make.__name__}: .*{re.escape(message)}"):
        make(**{"params": [parameter(1.0)], **arguments})


def test_a_later_learning_rate_out_of_range_is_refused():
    optimizer = Adam([parameter(1.0)])
    for lr in (-1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"^Adam: lr {FINITE} {lr}"):
            optimizer.set_lr(lr)
    assert optimizer.param_groups[0]["lr"] == 1e-3


def test_a_gradient_of_another_shape_stops_the_step_before_it_begins():
    ps = [parameter(1.0), parameter(1.0, 2.0)]
    ps[0].grad, ps[1].grad = np.ones(1), np.ones(2)
    ps[1].data = np.ones(3)
    with pytest.raises(ValueError, match=r"^SGD: w has shape \(3,\), but its gradient has \(2,\)"):
        SGD([("v", ps[0]), ("w", ps[1])]).step()
    assert ps[0].item() == 1.0


# ---- memory and threads ---------------------------------------------------------------------------------------------


@elementwise
@pytest.mark.parametrize("layout", ["C C", "F F", "C F", "strided"])
def test_a_parameter_of_any_layout_is_updated_like_its_rows(make, layout):
    """A large parameter is updated stretch by stretch, and the result is the same bit for bit."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((3, STRETCH)).astype(np.float32)  # three stretches; in F order none of them is a row
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
def test_a_step_keeps_dtypes_and_shapes_and_writes_to_no_gradient(make):
    ps = [Parameter(np.ones(shape, np.float32)) for shape in ((), (0, 3), (2, 3))]
    grads = [np.full(p.shape, 0.5, np.float32) for p in ps]
    optimizer = make(ps)
    for _ in range(2):
        for p, g in zip(ps, grads, strict=True):
            p.grad = g
            g.flags.writeable = False
        optimizer.step()
    assert all(p.dtype == np.float32 and p.data.shape == g.shape for p, g in zip(ps, grads, strict=True))
    assert ps[0].item() != 1 != ps[2].data[1, 2]
    assert make is with_muon or ps[0].item() == ps[2].data[1, 2]


@every_optimizer
def test_grad_scale_equals_scaled_gradients(make):
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
            np.testing.assert_allclose(p.data, q.data, rtol=8 * np.finfo(p.dtype).eps)
            assert p.dtype == q.dtype
            assert p.grad.tobytes() == g.tobytes()


@elementwise
def test_small_parameters_updated_together_equal_each_by_itself(make):
    shapes = [(), (5,), (3, 4), (0,), (SMALL,), (SMALL + 1,)]
    rng = np.random.default_rng(0)
    starts = [np.asarray(rng.standard_normal(shape), np.float32) for shape in shapes]
    ps, qs = ([Parameter(x.copy(order="F")) for x in starts] for _ in range(2))
    together, alone = make(ps), [make([q]) for q in qs]
    for missing in (None, 1, None):  # the second one misses a step, and then has another number of steps
        for i, (p, q) in enumerate(zip(ps, qs, strict=True)):
            p.grad = None if i == missing else np.asarray(rng.standard_normal(p.shape), np.float32)
            q.grad = p.grad
        together.step(0.5)
        for one in alone:
            one.step(0.5)
        assert [p.data.tobytes() for p in ps] == [q.data.tobytes() for q in qs]


@every_optimizer
def test_threads_change_no_bit_of_a_step_and_of_the_norm(make, monkeypatch):
    monkeypatch.setattr(module, "JOB", 1000)
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
            results[-1].append(grad_norm((p.grad for p in ps), map=map_))
    assert results[0] == results[1]


def test_an_error_in_a_thread_is_raised():
    p = Parameter(np.ones(3, np.float32))
    p.grad = np.ones(3, np.float32)
    optimizer = AdamW([p])
    optimizer._update = lambda *_: 1 / 0
    with ThreadPoolExecutor(2) as pool, pytest.raises(ZeroDivisionError):
        optimizer.step(map=pool.map)


# ---- state ----------------------------------------------------------------------------------------------------------


@every_optimizer
@pytest.mark.parametrize("stop", [0, 1, 4])
def test_a_run_resumed_from_a_saved_state_equals_an_unbroken_one(make, stop, tmp_path):
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


@every_optimizer
def test_a_copy_of_an_optimizer_takes_the_steps_of_the_original(make):
    p = parameter(1.0, 2.0)
    optimizer = make([p])
    for g in ([1.0, -1.0], [0.5, 3.0]):
        p.grad = np.array(g)
        optimizer.step()
    again = copy.deepcopy(optimizer)
    again.step()
    optimizer.step()
    (q,) = again.param_groups[0]["params"]
    assert q is not p
    assert q.data.tobytes() == p.data.tobytes()


def test_a_state_is_named_and_holds_no_more_than_it_must():
    ps = [parameter(1.0, 2.0), parameter(3.0)]
    ps[0].grad = np.array([1.0, -1.0])
    for params, first, second in ((ps, "0", "1"), ([("w", ps[0]), ("b", ps[1])], "w", "b")):
        optimizer = AdamW(params)
        state = optimizer.state_dict()
        assert {key: int(value) for key, value in state.items()} == {f"{first}.steps": 0, f"{second}.steps": 0}
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


def test_a_state_that_does_not_fit_is_refused_with_all_its_errors():
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
        "AdamW: the state does not fit the parameters: 0.steps must be one integer ≥ 0; "
        "0.m is float64 (3,), but the parameter is float64 (2,); "
        "0.v is float32 (2,), but the parameter is float64 (2,); missing 1.m; unexpected 2.m"
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
        ({"0.steps": np.array(1.0), "0.m": np.zeros(1), "0.v": np.zeros(1)}, "0.steps must be one integer ≥ 0"),
        ({"0.steps": np.array([1]), "0.m": np.zeros(1), "0.v": np.zeros(1)}, "0.steps must be one integer ≥ 0"),
        ({"0.steps": np.array(0), "0.m": np.zeros(1)}, "unexpected 0.m"),
        ({"0.steps": np.array(1), "0.momentum": np.zeros(1)}, "missing 0.m; missing 0.v; unexpected 0.momentum"),
    ],
)
def test_a_state_with_one_error_is_refused(state, message):
    with pytest.raises(ValueError, match=f"the parameters: {message}$"):
        AdamW([parameter(1.0)]).load_state_dict(state)
