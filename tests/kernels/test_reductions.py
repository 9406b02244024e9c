"""Reductions: the variance, equal maxima, and averages of nothing."""

import numpy as np
import pytest
from agreement import assert_agree, gradients_of_ones, seeds, shapes, zeros
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import kernels as K


@given(seeds, shapes, st.data(), st.booleans(), st.integers(0, 1))
def test_var_equals_the_mean_of_squared_differences(seed, shape, data, keepdims, ddof):
    axis = data.draw(st.none() | st.integers(-len(shape), len(shape) - 1) | st.just(tuple(range(len(shape)))))
    x = np.random.default_rng(seed).standard_normal([n + 1 for n in shape])
    n = x.size // np.sum(x, axis=axis).size

    def oracle(x):
        centered = x - x.mean(axis, keepdim=True)
        return (centered * centered).sum(axis, keepdims) / (n - ddof)

    options = {"axis": axis, "keepdims": keepdims, "ddof": ddof}
    assert_agree(K.var, [x], oracle, **options)
    np.testing.assert_allclose(K.var(x, **options)[0], np.var(x, **options), rtol=1e-12)


def test_max_shares_the_gradient_among_equal_maxima():
    rows = [[5.0, 5.0, 1.0], [0.0, 2.0, 1.0]]
    assert gradients_of_ones(K.max, rows, axis=1)[0].tolist() == [[0.5, 0.5, 0], [0, 1, 0]]
    assert gradients_of_ones(K.max, [[4.0, 4.0], [4.0, 4.0]])[0].tolist() == [[0.25] * 2] * 2


def test_max_over_nan_is_nan_and_so_is_its_gradient():
    x = np.array([[1.0, np.nan, 3.0], [np.inf, np.inf, 1.0]], np.float32)
    y, vjp = K.max(x, axis=1)
    np.testing.assert_array_equal(y, [np.nan, np.inf])
    np.testing.assert_array_equal(vjp(np.ones(2, np.float32))[0], [[np.nan] * 3, [0.5, 0.5, 0]])


def test_sum_of_small_integers_does_not_wrap():
    for dtype in (np.uint8, np.int8, bool):
        y, _ = K.sum(np.ones(300, dtype))
        assert (y, y.dtype) == (300, np.int64)


@pytest.mark.parametrize(
    ("kernel", "x", "options", "message"),
    [
        (K.mean, zeros(0, 3), {"axis": 0}, r"mean: got shape \(0, 3\), which has no elements along axis 0"),
        (K.max, zeros(3, 0), {"axis": -1}, r"max: got shape \(3, 0\), which has no elements along axis -1"),
        (K.max, zeros(0, 0), {"axis": 0}, r"max: got shape \(0, 0\), which has no elements along axis 0"),
        (K.max, zeros(0), {"lowest": True}, r"min: got shape \(0,\), which has no elements along axis None"),
        (K.var, zeros(0, 3), {"axis": 0}, r"var: got 0 element\(s\) along axis 0; ddof=0 takes 1 or more"),
        (K.var, zeros(1), {"ddof": 1}, r"var: got 1 element\(s\) along axis None; ddof=1 takes 2 or more"),
    ],
)
def test_a_reduction_of_too_few_elements_is_an_error(kernel, x, options, message):
    with pytest.raises(ValueError, match=message):
        kernel(x, **options)
