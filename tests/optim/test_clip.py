"""Clipping: the joint norm, the factor, and what becomes of the gradients."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.nn import Parameter
from tinygrad_llm.optim import clip_grad_norm_, clip_scale, grad_norm


def with_gradients(*arrays):
    parameters = []
    for array in arrays:
        p = Parameter(np.zeros_like(array))
        p.grad = array.copy()
        parameters.append(p)
    return parameters


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


def test_clipping_writes_into_the_gradients_and_skips_missing_ones():
    p, q = with_gradients(np.array([3.0, 4.0]), np.array([1.0]))
    q.grad, array = None, p.grad
    assert clip_grad_norm_([p, q], 1.0) == 5.0
    assert p.grad is array
    assert q.grad is None
    assert clip_grad_norm_([q], 1.0) == 0.0


def test_clipping_takes_one_tensor_as_torch_does():
    (p,) = with_gradients(np.array([3.0, 4.0]))
    assert clip_grad_norm_(p, 1.0) == 5.0
    np.testing.assert_allclose(p.grad, [0.6, 0.8], rtol=1e-6)


def test_norm_of_float16_is_as_precise_as_of_float32():
    g = np.random.default_rng(0).standard_normal(10000).astype(np.float16)
    assert grad_norm([g]) == pytest.approx(grad_norm([g.astype(np.float64)]), rel=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_clipping_changes_no_gradient_if_the_norm_is_nan_or_infinite(bad):
    parameters = with_gradients(np.array([3.0, bad]), np.array([4.0]))
    np.testing.assert_equal(clip_grad_norm_(parameters, 1.0), abs(bad))
    np.testing.assert_array_equal(parameters[0].grad, [3.0, bad])
    np.testing.assert_array_equal(parameters[1].grad, [4.0])


def test_clip_scale_at_its_limits():
    assert clip_scale(0.5, 1.0) == clip_scale(1.0, 1.0) == 1.0
    assert clip_scale(4.0, 1.0) == pytest.approx(0.25, rel=1e-6)
    assert 4.0 * clip_scale(4.0, 1.0) <= 1.0
    assert [clip_scale(bad, 1.0) for bad in (math.nan, math.inf)] == [1.0, 1.0]
    assert type(clip_scale(4.0, 1.0)) is float  # a NumPy scalar would make float32 gradients float64


@pytest.mark.parametrize("max_norm", [0.0, -1.0, math.nan])
def test_a_limit_that_is_not_above_0_is_refused(max_norm):
    for clip in (lambda: clip_scale(1.0, max_norm), lambda: clip_grad_norm_([Parameter(np.ones(1))], max_norm)):
        with pytest.raises(ValueError, match=f"max_norm must be above 0, got {max_norm}: give math.inf"):
            clip()


# ---- the norm -------------------------------------------------------------------------------------------------------


def test_the_norm_is_as_precise_as_its_gradients_in_any_layout(for_each):
    def check(case):
        size, dtype = case
        g = np.random.default_rng(0).standard_normal(size).astype(dtype)
        exact = math.sqrt(math.fsum(float(x) ** 2 for x in g))
        for one in (g, g[::-1], np.repeat(g, 2)[::2], np.asfortranarray(g.reshape(2, -1)) if size % 2 == 0 else g):
            # Elements that are not contiguous are added one after the other, with more rounding.
            contiguous = one.flags.c_contiguous or one.flags.f_contiguous
            precision = 1e-13 if dtype is np.float64 else 2e-7 if contiguous else 5e-6
            assert grad_norm([one]) == pytest.approx(exact, rel=precision)
            assert grad_norm([one, one]) == pytest.approx(exact * math.sqrt(2), rel=precision)

    for_each([(n, t) for n in (0, 1, 8191, 8192, 8193, 100_000) for t in (np.float32, np.float64)], check)


def test_the_norm_of_many_numbers_is_no_less_precise():
    g = np.full(2_000_001, 0.1, np.float32)
    assert grad_norm([g]) == pytest.approx(math.sqrt(len(g)) * float(g[0]), rel=5e-6)
    assert grad_norm([np.asarray(np.float32(-3)), g[:0]]) == 3
    assert grad_norm([]) == 0


def test_the_norm_of_numbers_whose_squares_float32_cannot_hold(for_each):
    def check(case):
        value, size = case
        g = np.full(size, value, np.float32)
        assert grad_norm([g]) == pytest.approx(math.sqrt(size) * float(g[0]), rel=5e-6, abs=0)

    for_each([(v, n) for v in (1e-44, 1e-30, 1e-22, 1e-15, 1e15, 1e19, 1e30, 3e38) for n in (4, 10_000)], check)
