"""Softmax, its relatives and layer norm, next to the same things composed of other kernels."""

import math

import numpy as np
import pytest
from agreement import assert_agree, composed_softmax, seeds, shapes, value_and_gradients, zeros
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import kernels as K

EXTREME = np.array([[-1000.0, 0.0, 1000.0], [1000.0, 1000.0, -1000.0]], np.float32)


@given(seeds, shapes, st.integers(-3, 2))
def test_softmax_and_its_logarithm_equal_the_composed_ones(seed, shape, axis):
    axis %= len(shape)
    x = np.random.default_rng(seed).normal(0, 2, shape)
    assert_agree(K.softmax, [x], lambda x: composed_softmax(x, axis), axis=axis)
    assert_agree(K.log_softmax, [x], lambda x: composed_softmax(x, axis).log(), axis=axis)


@given(seeds, shapes, st.data(), st.booleans())
def test_logsumexp_equals_the_composed_one(seed, shape, data, keepdims):
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1) | st.just(tuple(range(len(shape)))))
    x = np.random.default_rng(seed).normal(0, 2, shape)
    assert_agree(K.logsumexp, [x], lambda x: x.exp().sum(axis, keepdims).log(), axis=axis, keepdims=keepdims)


@pytest.mark.parametrize(("shape", "axis"), [((0,), 0), ((0, 3), 0), ((0, 3), 1), ((5, 0, 0), -1), ((3, 0), -1)])
def test_an_empty_axis_has_an_empty_softmax_and_a_sum_of_0(shape, axis):
    for kernel in (K.softmax, K.log_softmax):
        y, vjp = kernel(zeros(*shape), axis=axis)
        assert (y.shape, vjp(y)[0].shape) == (shape, shape)
    y, vjp = K.logsumexp(zeros(*shape), axis=axis)
    np.testing.assert_array_equal(y, np.full(np.sum(zeros(*shape), axis=axis).shape, -np.inf))
    assert vjp(np.ones_like(y))[0].shape == shape


def test_layer_norm_of_rows_without_elements_is_empty():
    y, vjp = K.layer_norm(zeros(2, 0), zeros(0), zeros(0))
    assert [d.shape for d in (y, *vjp(y))] == [(2, 0), (2, 0), (0,), (0,)]


def test_logsumexp_of_infinities_is_their_limit():
    x = np.array([[-np.inf, -np.inf], [np.inf, 0.0], [-np.inf, 1.0]])
    np.testing.assert_array_equal(K.logsumexp(x, axis=-1)[0], [-np.inf, np.inf, 1.0])


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (K.softmax, [[0, 0, 1], [0.5, 0.5, 0]]),
        (K.log_softmax, [[-2000, -1000, 0], [-math.log(2), -math.log(2), -2000 - math.log(2)]]),
        (lambda x: K.logsumexp(x, axis=1), [1000, 1000 + math.log(2)]),
    ],
    ids=["softmax", "log_softmax", "logsumexp"],
)
def test_plus_and_minus_1000_in_float32(kernel, expected):
    y, vjp = kernel(EXTREME)
    (dx,) = vjp(np.ones_like(y))
    np.testing.assert_allclose(y, np.asarray(expected, np.float32), rtol=1e-6)
    assert np.isfinite(dx).all()
    assert dx.dtype == y.dtype == np.float32


@given(seeds, shapes, st.integers(0, 2), st.sampled_from([1e-5, 0.1]))
def test_layer_norm_equals_the_composed_one(seed, shape, parameters, eps):
    rng = np.random.default_rng(seed)
    shape = (*shape[:-1], shape[-1] + 2)  # among 1 or 2 elements, every x̂ is 0 or ±1
    arrays = [rng.standard_normal(shape), *(rng.standard_normal(shape[-1:]) for _ in range(parameters))]
    arrays[0] += np.arange(shape[-1])  # no row is nearly constant, where rounding would grow with 1 / √(var + eps)

    def oracle(x, weight=1.0, bias=0.0):
        centered = x - x.mean(-1, keepdim=True)
        return centered / ((centered * centered).mean(-1, keepdim=True) + eps).sqrt() * weight + bias

    assert_agree(K.layer_norm, arrays, oracle, eps=eps)


@pytest.mark.parametrize("n", [4, 768])
@pytest.mark.parametrize("value", [0.0, 3.0, -1024.0])
def test_layer_norm_of_a_constant_row_is_its_bias(value, n):
    x, weight, bias = np.full((2, n), value, np.float32), np.full(n, 2, np.float32), np.arange(n, dtype=np.float32)
    y, dx, *_ = value_and_gradients(K.layer_norm, [x, weight, bias])
    assert y.tolist() == [bias.tolist()] * 2
    assert np.isfinite(dx).all()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [([zeros(1)], r"\[\(1,\), None\], which must be \(3,\)"), ([zeros(3), zeros(2)], r"\[\(3,\), \(2,\)\]")],
)
def test_layer_norm_names_parameters_that_do_not_fit(parameters, message):
    with pytest.raises(ValueError, match=f"layer_norm: got weight and bias of shapes {message}"):
        K.layer_norm(zeros(2, 3), *parameters)
