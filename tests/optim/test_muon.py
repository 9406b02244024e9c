"""Muon: the orthogonal matrix against an SVD, the steps against PyTorch's, and with AdamW as one optimizer."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.nn import Parameter
from tinygrad_llm.optim import SGD, AdamW, Muon, Together, inner_matrices, newton_schulz

with np.load(Path(__file__).parent / "torch_muon.npz") as file:
    REFERENCE = dict(file)
TO_ONE = (1.875, -1.25, 0.375)  # the coefficients whose iteration ends in 1


def f(s, coefficients, steps):
    """What the iteration makes of a singular value."""
    a, b, c = coefficients
    for _ in range(steps):
        s = a * s + b * s**3 + c * s**5
    return s


matrices = st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(0, 9)).map(
    lambda three: np.random.default_rng(three[2]).standard_normal(three[:2])
)

# ---- the orthogonal matrix -----------------------------------------------------------------------------------------


@given(matrices, st.sampled_from([(3.4445, -4.775, 2.0315), TO_ONE]), st.integers(0, 6))
def test_newton_schulz_changes_the_singular_values_and_nothing_else(g, coefficients, steps):
    u, s, vt = np.linalg.svd(g, full_matrices=False)
    expected = u @ np.diag(f(s / math.hypot(*s), coefficients, steps)) @ vt
    np.testing.assert_allclose(newton_schulz(g, coefficients, steps), expected, atol=1e-12)


def test_five_steps_bring_singular_values_near_1():
    s = f(np.linspace(0.002, 1, 10_000), (3.4445, -4.775, 2.0315), 5)
    assert 0.68 < s.min() < s.max() < 1.21
    g = np.random.default_rng(0).standard_normal((40, 30))
    assert np.linalg.cond(g) > 5
    values = np.linalg.svd(newton_schulz(g), compute_uv=False)
    assert 0.68 < values.min() < values.max() < 1.21


def test_the_coefficients_of_the_docstring_end_in_the_orthogonal_matrix_of_the_svd():
    g = np.random.default_rng(0).standard_normal((5, 7))
    u, _, vt = np.linalg.svd(g, full_matrices=False)
    np.testing.assert_allclose(newton_schulz(g, TO_ONE, 25), u @ vt, atol=1e-13)
    # No other matrix whose singular values are at most 1 has a larger Σ O·G.
    others = np.random.default_rng(1).standard_normal((200, 5, 7))
    others /= np.linalg.norm(others, 2, axis=(1, 2), keepdims=True)
    assert (others * g).sum((1, 2)).max() < (u @ vt * g).sum()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_newton_schulz_keeps_the_dtype_and_a_gradient_of_zeros(dtype):
    g = np.arange(12, dtype=dtype).reshape(4, 3) * 5000  # whose squares float16 has no room for
    g.flags.writeable = False
    found = newton_schulz(g)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, newton_schulz(g.astype(np.float64)), atol=2e-3 if dtype == np.float16 else 1e-5)
    assert not newton_schulz(np.zeros((2, 3), dtype)).any()


# ---- the steps -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rule(script):
    """scripts/make_torch_muon.py, which says what starts and gradients are."""
    return script("make_torch_muon")


def test_the_steps_are_those_of_pytorch(rule):
    compared = []
    for name in rule.SHAPES:
        for label, options in rule.OPTIONS.items():
            p = Parameter(rule.start(name))
            optimizer = Muon([p], **options)
            for step in range(rule.STEPS):
                p.grad = rule.gradient(p.data, step)
                optimizer.step()
            key = f"{name}/{label}"
            np.testing.assert_allclose(p.data, REFERENCE[key], rtol=0, atol=1e-12, err_msg=key)
            moved = np.linalg.norm(p.data - rule.start(name))
            # In bfloat16 the orthogonal matrix has an error of about a hundredth.
            assert np.linalg.norm(p.data - REFERENCE[f"{key}/bfloat16"]) < 0.03 * moved, key
            compared += [key, f"{key}/bfloat16"]
    assert {"made_by", *compared} == REFERENCE.keys()


def test_one_learning_rate_suits_muon_and_adamw():
    """With match_rms_adamw, an update has about the root mean square of AdamW's, whatever the shape."""
    for shape in ((64, 64), (16, 128), (128, 16)):
        p = Parameter(np.zeros(shape))
        p.grad = np.random.default_rng(0).standard_normal(shape)
        Muon([p], lr=1.0, adjust_lr_fn="match_rms_adamw").step()
        assert math.sqrt(np.mean(p.data**2)) == pytest.approx(0.2, rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"params": [("bias", Parameter(np.ones(3)))]}, "bias has shape (3,), but only matrices can be updated"),
        ({"momentum": 1.0}, "momentum must be in [0, 1) and eps ≥ 0, got 1.0 and 1e-07"),
        ({"eps": -1.0}, "momentum must be in [0, 1) and eps ≥ 0, got 0.95 and -1.0"),
        ({"ns_steps": 0}, "ns_steps in 1 … 99, got (3.4445, -4.775, 2.0315) and 0"),
        ({"ns_coefficients": (1, 2)}, "ns_coefficients must be three numbers"),
        (
            {"adjust_lr_fn": "rms"},
            "adjust_lr_fn must be one of original, match_rms_adamw, spectral_unclamped, got 'rms'",
        ),
    ],
)
def test_arguments_that_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^Muon: .*{re.escape(message)}"):
        Muon(**{"params": [Parameter(np.ones((2, 2)))], **arguments})


# ---- with AdamW ----------------------------------------------------------------------------------------------------


def test_the_matrices_of_blocks_are_the_inner_ones():
    names = inner_matrices(GPT(GPTConfig(9, 4, 2, 1, 4, tie_weights=False)).named_parameters())
    layers = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    assert list(names) == [f"transformer.h.{i}.{layer}.weight" for i in range(2) for layer in layers]


def test_optimizers_together_step_as_each_would_alone():
    rng = np.random.default_rng(0)
    starts = {"matrix": rng.standard_normal((3, 4)), "bias": rng.standard_normal(4)}

    def make(kind, name, p):
        return kind([{"params": [(name, p)], "lr": 0.1, "weight_decay": 0.2}])

    one, other = ({name: Parameter(start.copy()) for name, start in starts.items()} for _ in range(2))
    alone = [make(Muon, "matrix", one["matrix"]), make(AdamW, "bias", one["bias"])]
    together = Together(make(Muon, "matrix", other["matrix"]), make(AdamW, "bias", other["bias"]))
    for step in range(3):
        for name, p in one.items():
            p.grad = other[name].grad = rng.standard_normal(p.shape)
        for optimizer in (*alone, together):
            optimizer.set_lr(0.1 / (step + 1))
            optimizer.step(0.5)
    assert all(p.data.tobytes() == other[name].data.tobytes() for name, p in one.items())
    assert list(together.state_dict()) == [key for optimizer in alone for key in optimizer.state_dict()]
    assert str(together) == "\n".join(map(str, alone))
    together.zero_grad()
    assert all(p.grad is None for p in other.values())


def test_each_optimizer_keeps_its_own_settings_when_they_step_together():
    up, down = Parameter(np.zeros(2)), Parameter(np.zeros(2))
    up.grad, down.grad = np.ones(2), np.ones(2)
    optimizers = [SGD([("up", up)], 0.5, maximize=True), SGD([("down", down)], 0.25)]
    Together(*optimizers).step()
    assert [*up.tolist(), *down.tolist()] == [0.5, 0.5, -0.25, -0.25]


def test_parameters_of_two_optimizers_are_refused():
    p, q = Parameter(np.ones((2, 2))), Parameter(np.ones(2))
    for optimizers, message in (
        ([], "there are no parameters"),
        ([Muon([("p", p)]), SGD([("q", p)])], "a parameter was given twice"),
        ([Muon([p]), SGD([q])], "two parameters have one name"),
    ):
        with pytest.raises(ValueError, match=f"^Together: {message}"):
            Together(*optimizers)
