"""Elementwise kernels: GELU in its two forms, subgradients at kinks, and values far from 0."""

import math

import numpy as np
import pytest
from agreement import assert_agree, gradients_of_ones, seeds, shapes
from hypothesis import given

from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor, grad

EXTREME = np.array([-1000.0, 0.0, 1000.0], np.float32)


# ---- GELU ----------------------------------------------------------------------------------------------------------


@given(seeds, shapes)
def test_gelu_and_its_gradient_equal_the_formula(seed, shape):
    x = np.random.default_rng(seed).normal(0, 3, shape)
    assert_agree(K.gelu, [x], lambda x: 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh()))


def test_gelu_has_the_values_of_torch():
    known = {  # torch.nn.functional.gelu(x, approximate="tanh") in float64
        -3.0: -0.0036373920817729943,
        -1.0: -0.15880800939172324,
        0.0: 0.0,
        0.5: 0.34571400982514394,
        1.0: 0.8411919906082768,
        3.0: 2.996362607918227,
    }
    np.testing.assert_allclose(K.gelu(np.array(list(known)))[0], list(known.values()), rtol=1e-12)


def test_gelu_differs_from_the_erf_form_by_less_than_a_thousandth():
    x = np.linspace(-6, 6, 241)
    exact = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x]
    assert 1e-5 < np.max(np.abs(K.gelu(x)[0] - exact)) < 1e-3


@pytest.mark.parametrize("x", [1e13, 3e13, 1e18, -1e13, -1e18])
def test_gelu_is_straight_far_from_0(x):
    with np.errstate(over="ignore"):
        y, vjp = K.gelu(np.array([x], np.float32))
    assert y == np.float32(max(x, 0))
    assert vjp(np.ones(1, np.float32))[0] == (x > 0)


def test_erf_is_accurate_to_rounding():
    x = np.concatenate(
        [np.linspace(-7, 7, 20001), np.linspace(0.468, 0.469, 1001), [0.0, -0.0, np.inf, -np.inf, np.nan]]
    )
    np.testing.assert_allclose(K.erf(x)[0], [math.erf(v) for v in x], rtol=1e-15, atol=0)
    at = np.linspace(-3, 3, 601)
    slope = 2 / math.sqrt(math.pi) * np.exp(-at * at)
    np.testing.assert_allclose(K.erf(at + 1e-20j)[0].imag / 1e-20, slope, rtol=1e-11)


# ---- subgradients --------------------------------------------------------------------------------------------------


def test_relu_has_slope_0_at_0():
    assert gradients_of_ones(K.relu, [-1.0, -0.0, 0.0, 1.0])[0].tolist() == [0, 0, 0, 1]


def test_absolute_has_slope_0_at_0():
    assert gradients_of_ones(K.absolute, [-2.0, -0.0, 0.0, 3.0])[0].tolist() == [-1, 0, 0, 1]


def test_maximum_shares_the_gradient_between_equals():
    da, db = gradients_of_ones(K.maximum, [1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    assert da.tolist() == [0, 0.5, 1]
    assert db.tolist() == [1, 0.5, 0]


@pytest.mark.parametrize("lower", [False, True])
def test_maximum_next_to_nan_gives_both_the_gradient_as_pytorch_does(lower):
    nan = math.nan
    y, _ = K.maximum(np.array([nan, 1.0, nan]), np.array([1.0, nan, nan]), lower=lower)
    assert np.isnan(y).all()
    for d in gradients_of_ones(K.maximum, [nan, 1.0, nan, 2.0], [1.0, nan, nan, 2.0], lower=lower):
        assert d.tolist() == [1, 1, 1, 0.5]
    infinite = gradients_of_ones(K.maximum, [math.inf, -math.inf], [math.inf, math.inf], lower=lower)
    assert [d.tolist() for d in infinite] == ([[0.5, 1], [0.5, 0]] if lower else [[0.5, 0], [0.5, 1]])


def test_maximum_of_a_value_with_itself_has_slope_1():
    x = Tensor([1.0, -2.0], requires_grad=True)
    assert grad(x.maximum(x).sum(), [x])[0].tolist() == [1, 1]


def test_power_0_has_slope_0_also_at_0():
    dx, dn = gradients_of_ones(K.power, [0.0, 3.0], [0.0, 0.0])
    assert dx.tolist() == [0, 0]
    assert dn.tolist() == [0, math.log(3)]


def test_absolute_of_minus_0_is_0():
    for x in (np.array([-0.0, -np.inf, 2.0]), np.array(-0.0, np.float16)):
        assert not np.signbit(K.absolute(x)[0]).any()


# ---- stability -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kernel", "expected"), [(K.sigmoid, [0, 0.5, 1]), (K.tanh, [-1, 0, 1]), (K.gelu, [0, 0, 1000])]
)
def test_plus_and_minus_1000_in_float32(kernel, expected):
    y, vjp = kernel(EXTREME)
    (dx,) = vjp(np.ones_like(y))
    np.testing.assert_array_equal(y, np.array(expected, np.float32))
    assert np.isfinite(dx).all()
    assert dx.dtype == y.dtype == np.float32
