"""Plain attention: next to sums over pairs of positions, with any mask, and queries that may attend to nothing."""

import math

import numpy as np
import pytest
from agreement import assert_agree, assert_close, composed_softmax, seeds, value_and_gradients, zeros
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_llm import kernels as K

lengths = st.integers(1, 4)


def pairwise_attention(q, k, v, added=0.0, keep=1.0, p=0.0):
    """Multiply and sum for each pair of positions, without a matrix product."""
    scores = (q.unsqueeze(-2) * k.unsqueeze(-3)).sum(-1) / math.sqrt(q.shape[-1]) + added
    weights = composed_softmax(scores, -1) * keep / (1 - p)
    return (weights.unsqueeze(-1) * v.unsqueeze(-3)).sum(-2)


@given(seeds, hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), *(lengths,) * 4, st.booleans(), st.data())
def test_attention_equals_sums_over_pairs_of_positions(seed, lead, Tq, Tk, D, Dv, dropped, data):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((*lead, *shape)) for shape in ((Tq, D), (Tk, D), (Tk, Dv))]
    shape = tuple(data.draw(st.sampled_from([1, n])) for n in (*lead, Tq, Tk))[data.draw(st.integers(0, len(lead))) :]
    added = 2 * rng.standard_normal(shape)
    keep, p = ([rng.random((*lead, Tq, Tk)) >= 0.4], 0.4) if dropped else ([], 0.0)
    assert_agree(
        K.attention, [*arrays, added, *keep], lambda *xs: pairwise_attention(*xs, p=p), p=p
    )  # with a gradient of the mask
    # A boolean mask adds 0 or −∞, and has no gradient; here each query may attend to one key at least.
    mask = rng.random(shape) < 0.6
    mask[..., :1] = True
    found = value_and_gradients(K.attention, [*arrays, mask, *keep], p=p)
    y, dq, dk, dv, _dmask = value_and_gradients(K.attention, [*arrays, np.where(mask, 0.0, -np.inf), *keep], p=p)
    for one, other in zip(found, (y, dq, dk, dv), strict=True):
        assert_close(one, other)


@given(seeds, lengths, lengths, st.booleans())
def test_a_query_that_may_attend_to_no_key_takes_no_part(seed, Tq, Tk, added):
    """Its output and gradients are 0, and the others' are those without it."""
    rng = np.random.default_rng(seed)
    q, k, v = (rng.standard_normal((2, T, 3)) for T in (Tq + 1, Tk, Tk))
    mask = np.arange(Tq + 1)[:, None] != rng.integers(Tq + 1)
    mask = np.broadcast_to(mask, (Tq + 1, Tk))
    others = mask[:, 0]
    given_mask = np.where(mask, 0.0, -np.inf) if added else mask
    y, vjp = K.attention(q, k, v, given_mask)
    g = rng.standard_normal(y.shape)
    dq, dk, dv, dmask = vjp(g)
    expected, vjp = K.attention(q[:, others], k, v)
    expected_dq, expected_dk, expected_dv = vjp(g[:, others])
    assert not y[:, ~others].any()
    assert not dq[:, ~others].any()
    assert not added or not dmask[~others].any()
    for a, b in ((y[:, others], expected), (dq[:, others], expected_dq), (dk, expected_dk), (dv, expected_dv)):
        assert_close(a, b)


def test_a_masked_key_has_no_part_in_any_bit():
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((2, T, 3)) for T in (3, 5, 5))
    mask = np.arange(5) < 3
    other_k, other_v = k.copy(), v.copy()
    other_k[:, 3:], other_v[:, 3:] = 1e3, -1e3
    (y, *grads), (y2, *grads2) = (
        value_and_gradients(K.attention, [q, *kv, mask]) for kv in ((k, v), (other_k, other_v))
    )
    assert y.tobytes() == y2.tobytes()
    for dx, dx2 in zip(grads, grads2, strict=True):
        assert dx.tobytes() == dx2.tobytes()
    assert not grads[1][:, 3:].any()
    assert not grads[2][:, 3:].any()


def test_scores_of_plus_and_minus_1000_in_float32():
    q = np.array([[1000.0], [-1000.0], [1000.0]], np.float32)
    y, vjp = K.attention(q, q, np.array([[1.0], [2.0], [4.0]], np.float32))
    assert y[:, 0].tolist() == [2.5, 2, 2.5]
    assert all(np.isfinite(dx).all() for dx in vjp(np.ones_like(y)))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_or_infinite_queries_are_not_hidden(bad):
    q = np.ones((2, 3))
    q[0, 0] = bad
    with np.errstate(invalid="ignore"):
        y = K.attention(q, np.ones((2, 3)), np.ones((2, 3)))[0]
    assert np.isnan(y[0]).all()
    assert (y[1] == 1).all()


@pytest.mark.parametrize(
    ("shapes", "mask", "error", "message"),
    [
        ([(3, 2), (4, 3), (4, 2)], None, ValueError, r"got q \(3, 2\), k \(4, 3\) and v \(4, 2\)"),
        ([(3, 2), (4, 2), (3, 2)], None, ValueError, r"and v \(3, 2\), which must be"),
        ([(2,), (4, 2), (4, 2)], None, ValueError, r"got q \(2,\)"),
        ([(3, 2), (4, 2), (4, 2)], zeros(4, 3), ValueError, r"got a mask \(4, 3\), which must broadcast to \(3, 4\)"),
        ([(3, 2), (4, 2), (4, 2)], zeros(2, 3, 4), ValueError, r"got a mask \(2, 3, 4\)"),
        ([(3, 2), (4, 2), (4, 2)], np.ones((3, 4), int), TypeError, "got a mask of int64"),
    ],
)
def test_arguments_that_do_not_fit_are_named(shapes, mask, error, message):
    with pytest.raises(error, match=f"attention: .*{message}"):
        K.attention(*(zeros(*shape) for shape in shapes), *([] if mask is None else [mask]))
