"""Fused kernels: equal to the same thing composed of others, in less memory, and stable for numbers of any size."""

import math

import numpy as np
import pytest
from agreement import assert_agree, assert_close, seeds, value_and_gradients, zeros
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import apply
from tinygrad_llm.kernels.contract import exp_is_safe


def earlier(Tq, Tk):
    """The mask of causal attention, whose queries are the last Tq of Tk positions."""
    return np.tri(Tq, Tk, Tk - Tq, dtype=bool)


def plain_causal_attention(q, k, v, *keep, p=0.0):
    return apply(K.attention, q, k, v, earlier(q.shape[-2], k.shape[-2]), *keep, p=p)


# ---- causal attention ----------------------------------------------------------------------------------------------


@given(
    seeds,
    hnp.array_shapes(min_dims=0, max_dims=2, max_side=3),
    st.integers(1, 7),
    st.integers(0, 3),
    st.sampled_from([1, 2, 3, 5, 9, 64]),
    *(st.booleans(),) * 3,
)
def test_causal_attention_in_blocks_equals_plain_attention(seed, lead, Tq, cached, block, recompute, dropped, large):
    rng = np.random.default_rng(seed)
    Tk, D, p = Tq + cached, rng.integers(1, 5), 0.4 if dropped else 0.0
    arrays = [rng.standard_normal((*lead, T, D)) for T in (Tq, Tk, Tk)]
    if large:  # scores of 40 to 100, and near each other
        arrays[0][..., 0] += 3
        arrays[1][..., 0] += 30
    if dropped:
        arrays.append(rng.random((*lead, Tq, Tk)) >= p)
    options = {"p": p, "block": block, "recompute": recompute}
    assert_agree(K.causal_attention, arrays, lambda *xs: plain_causal_attention(*xs, p=p), **options)


@given(seeds, st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_causal_self_attention_equals_attention_of_each_head(seed, B, T, n_head, D, dropped):
    rng = np.random.default_rng(seed)
    C, p = n_head * D, 0.4 if dropped else 0.0
    arrays = [rng.standard_normal((B, T, 3 * C))]
    if dropped:
        arrays.append(rng.random((B, n_head, T, T)) >= p)

    def oracle(qkv, keep=None):
        heads = []
        for h in range(n_head):
            q, k, v = (qkv[..., i * C + h * D : i * C + (h + 1) * D] for i in range(3))
            heads.append(plain_causal_attention(q, k, v, *([] if keep is None else [keep[:, h]]), p=p))
        return apply(K.concatenate, *heads, axis=-1)

    assert_agree(K.causal_self_attention, arrays, oracle, n_head=n_head, p=p)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("add", [0.0, 8.0], ids=["small scores", "large scores"])
@pytest.mark.parametrize("block", [1, 3, 8, 64])
def test_recomputing_changes_no_bit(block, add, dtype):
    rng = np.random.default_rng(block)
    qkv = rng.standard_normal((2, 20, 24)).astype(dtype) + dtype(add)
    keep = rng.random((2, 2, 20, 20)) > 0.3
    q, k, v = (np.split(qkv, 3, axis=-1)[i][:, 5 * (i == 0) :] for i in range(3))
    for kernel, arrays, options in (
        (K.causal_self_attention, [qkv, keep], {"n_head": 2, "p": 0.3}),
        (K.causal_attention, [q, k, v, keep[:, 0, 5:]], {"p": 0.3}),
        (K.causal_attention, [q, k, v], {}),
    ):
        one, other = (value_and_gradients(kernel, arrays, block=block, recompute=r, **options) for r in (False, True))
        for a, b in zip(one, other, strict=True):
            assert a.tobytes() == b.tobytes()


@pytest.mark.parametrize("part", [1, 4 * 4 * 10, 2 * 3 * 4 * 10, 1 << 17])
def test_attention_in_parts_equals_attention_in_one(part):
    """Parts are single heads, heads of a row, rows of the batch, or everything."""
    rng = np.random.default_rng(0)
    qkv, g, keep = rng.standard_normal((5, 10, 18)), rng.standard_normal((5, 10, 6)), rng.random((5, 3, 10, 10)) > 0.3
    results = []
    for most, order in ((1 << 30, map), (part, map), (part, backwards)):
        y, vjp = K.causal_self_attention(qkv, keep, n_head=3, p=0.3, block=4, part=most, map=order)
        results.append((y, vjp(g)[0]))
    for one, other, third in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)
        assert other.tobytes() == third.tobytes()


def backwards(function, items):
    """As map, in another order: as threads might."""
    return [function(item) for item in reversed(list(items))][::-1]


def test_parts_of_attention_are_of_about_the_same_size():
    sizes = []

    def listed(function, parts):
        sizes.append([range(12)[part[0]] for part in parts])
        return map(function, parts)

    K.causal_self_attention(np.ones((12, 8, 6)), n_head=2, part=5 * 2 * 8 * 8, map=listed)
    assert sizes == [[range(4), range(4, 8), range(8, 12)]]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [1, 2, 5, 64])
def test_later_positions_change_no_bit_of_earlier_ones(block, dtype):
    """In outputs and, for a loss of the earlier outputs alone, in gradients; for scores below 40."""
    rng = np.random.default_rng(0)
    T, now = 11, 6
    one = rng.standard_normal((2, T, 24)).astype(dtype)
    other = one.copy()
    other[:, now:] = 2 * rng.standard_normal((2, T - now, 24))
    g = np.zeros((2, T, 8), dtype)
    g[:, :now] = rng.standard_normal((2, now, 8))
    (y, vjp), (y2, vjp2) = (K.causal_self_attention(x, n_head=2, block=block) for x in (one, other))
    assert not np.array_equal(y[:, now:], y2[:, now:])
    assert y[:, :now].tobytes() == y2[:, :now].tobytes()
    (dqkv,), (dqkv2,) = vjp(g), vjp2(g)
    assert dqkv.tobytes() == dqkv2.tobytes()
    assert not dqkv[:, now:].any()


def test_a_later_score_above_40_changes_earlier_outputs_by_rounding_alone():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((1, 6, 6))
    other = one.copy()
    other[:, 4:] *= 50
    y, y2 = (K.causal_self_attention(x, n_head=1)[0][:, :4] for x in (one, other))
    np.testing.assert_allclose(y, y2, rtol=1e-14, atol=1e-15)


# ---- the output head and its loss ----------------------------------------------------------------------------------


@given(
    seeds,
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 40),
    st.sampled_from([1, 2, 4096]),
    st.sampled_from([-100, -1, 0, 2]),
    st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0, 1),
    st.none() | st.integers(1, 9),
    st.booleans(),
)
def test_linear_cross_entropy_equals_linear_and_cross_entropy(
    seed, N, C, V, chunk, tile, ignore_index, smoothing, count, large
):
    rng = np.random.default_rng(seed)
    x, weight, targets = rng.standard_normal((N, C)), rng.standard_normal((V, C)), rng.integers(0, V, N)
    if large:
        x[:, 0] += 3
        weight[:, 0] += 30
    targets[rng.random(N) < 0.3] = ignore_index
    n = np.count_nonzero(targets != ignore_index)
    assume(n or count)

    def oracle(x, weight, targets):
        options = {"ignore_index": ignore_index, "label_smoothing": smoothing, "reduction": "sum"}
        return apply(K.cross_entropy, apply(K.linear, x, weight), targets, **options) / float(count or n)

    options = {"ignore_index": ignore_index, "label_smoothing": smoothing, "count": count}
    assert_agree(K.linear_cross_entropy, [x, weight, targets], oracle, chunk=chunk, tile=tile, **options)


def test_a_loss_without_targets_that_count_is_0_and_so_are_its_gradients():
    rng = np.random.default_rng(0)
    x, weight, ignored = rng.standard_normal((4, 3)), rng.standard_normal((5, 3)), np.full(4, -100)
    for targets, rows in ((ignored, x), (ignored[:0], x[:0])):
        loss, dx, dweight = value_and_gradients(K.linear_cross_entropy, [rows, weight, targets], count=7)
        assert loss == 0
        assert not dx.any()
        assert not dweight.any()
        assert (dx.shape, dweight.shape) == (rows.shape, weight.shape)


def test_an_ignored_row_may_hold_any_finite_numbers():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    x[2] = [1e30, -1e30, 1e30]
    loss, dx, dweight = value_and_gradients(K.linear_cross_entropy, [x, weight, np.array([0, 1, -100, 2])])
    others = value_and_gradients(K.linear_cross_entropy, [x[[0, 1, 3]], weight, np.array([0, 1, 2])])
    assert_close(loss, others[0])
    assert_close(np.delete(dx, 2, axis=0), others[1])
    assert_close(dweight, others[2])
    assert not dx[2].any()


def test_rows_whose_targets_do_not_count_cost_no_logits(peak_memory):
    x, weight, targets = np.ones((512, 2), np.float32), np.ones((1024, 2), np.float32), np.full(512, -100)
    targets[::64] = 3
    peak = peak_memory(lambda: K.linear_cross_entropy(x, weight, targets))
    assert peak < 512 * 1024 * 4 / 8  # bytes of the logits of all rows, and 8 of 512 rows count


def test_a_float64_head_on_float32_states_computes_in_float64():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 2)).astype(np.float32)
    weight, targets = rng.standard_normal((5, 2)), np.array([0, 4, 2])
    loss, _ = K.linear_cross_entropy(x, weight, targets)
    wide, _ = K.linear_cross_entropy(x.astype(np.float64), weight, targets)
    assert loss.dtype == np.float64
    assert loss == pytest.approx(wide, rel=1e-14)


# ---- memory --------------------------------------------------------------------------------------------------------


def test_attention_that_recomputes_holds_no_matrix_of_all_positions(peak_memory):
    T, D = 1024, 8
    qkv = np.random.default_rng(0).standard_normal((1, T, 3 * D)).astype(np.float32)
    one, g = 4 * T * T, np.ones((1, T, D), np.float32)

    def there_and_back(recompute):
        K.causal_self_attention(qkv, n_head=1, block=32, recompute=recompute)[1](g)

    assert peak_memory(lambda: there_and_back(True)) < one / 4
    kept = peak_memory(lambda: there_and_back(False))
    assert one / 2 < kept < 0.8 * one  # the half below the diagonal


def test_a_head_with_its_loss_holds_no_matrix_of_all_logits(peak_memory):
    rng = np.random.default_rng(0)
    N, C, V = 1024, 4, 4096
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((N, C), (V, C)))
    logits = 4 * N * V
    targets = rng.integers(0, V, N)

    def there_and_back(**options):
        K.linear_cross_entropy(x, weight, targets, **options)[1](np.array(0.5, np.float32))

    assert peak_memory(lambda: there_and_back(chunk=N * V // 16)) < logits / 4
    assert peak_memory(lambda: there_and_back(chunk=N * V // 16, label_smoothing=0.1, count=3)) < logits / 4
    assert peak_memory(there_and_back) > logits


# ---- stability -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "safe"),
    [
        ([], True),
        ([0.0], True),
        ([39.99, -39.99], True),
        ([40.0], False),
        ([0.0, -40.0], False),
        ([0.0, math.inf], False),
        ([-math.inf, 0.0], False),
        ([math.nan], False),
        ([0.0, math.nan, 1.0], False),
        ([39 + 1e6j], True),
        ([41 + 0j], False),
    ],
)
def test_an_exponential_needs_no_shift_below_40(values, safe):
    x = np.array(values)
    assert exp_is_safe(x) is safe
    if x.dtype.kind == "f":
        assert exp_is_safe(x.astype(np.float32)) is safe


SIZES = [0.0, 39.9, -39.9, 40.1, -40.1, 1000.0, -1000.0, 3e4]


@pytest.mark.parametrize("size", SIZES)
def test_scores_and_logits_of_any_size_in_float32(size):
    # Equal scores make an average of the values.
    for T in (1, 3, 300):
        q, k = np.full((T, 1), size, np.float32), np.ones((T, 1), np.float32)
        v = np.arange(T, dtype=np.float32)[:, None]
        y, *grads = value_and_gradients(K.causal_attention, [q, k, v])
        np.testing.assert_allclose(y, v / 2, rtol=1e-5)
        assert all(np.isfinite(dx).all() for dx in grads)
    # Equal logits have the loss ln V.
    for V in (1, 2, 3000):
        x, weight = np.full((3, 1), size, np.float32), np.ones((V, 1), np.float32)
        loss, dx, dweight = value_and_gradients(K.linear_cross_entropy, [x, weight, np.array([0, V - 1, 0])])
        assert loss == pytest.approx(math.log(V), rel=1e-6, abs=2e-7)
        assert np.abs(dx).max() <= 1e-6
        assert np.isfinite(dweight).all()
        assert np.abs(dweight.sum()) <= 1e-5 * max(1.0, abs(size))  # rows of dlogits sum to 0
    # Rows of ±size next to a row of zeros: the shift of one row does not disturb another.
    x, weight = np.array([[size], [0], [-size]], np.float32), np.array([[1], [-1]], np.float32)
    loss, dx, dweight = value_and_gradients(K.linear_cross_entropy, [x, weight, np.array([0, 0, 0])])
    exact = (np.logaddexp(0, -2 * size) + np.logaddexp(0, 0) + np.logaddexp(0, 2 * size)) / 3
    assert loss == pytest.approx(exact, rel=1e-6)
    assert np.isfinite(dx).all()
    assert np.isfinite(dweight).all()


def plain_head(x, weight, targets):
    """linear, then cross_entropy, which shifts by the maximum."""
    logits, back = K.linear(x, weight)
    loss, vjp = K.cross_entropy(logits, targets)
    return loss, lambda g: back(vjp(g)[0])


GAPS = [20.0, 40.0, 43.0, 45.0, 60.0, 82.0, 84.0, 86.0, 87.0, 88.0, 89.0, 350.0, 707.0, 709.0]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("largest", [1.0, 50.0])
def test_a_target_far_below_the_best_logit(largest, dtype, for_each):
    """Whatever the distance: e, Z and their products stay in range."""

    def check(gap):
        rng = np.random.default_rng(3)
        x, weight = rng.standard_normal((6, 4)), rng.uniform(-0.01, 0.01, (9, 4))
        weight[:, 3] = largest * (np.arange(9) == 5)  # id 5 alone has it
        x[:, 3] = gap / largest
        targets = np.array([1, 2, 3, 4, 6, 7])
        x, weight = x.astype(dtype), weight.astype(dtype)
        exact, *d_exact = value_and_gradients(plain_head, [x.astype(np.float64), weight.astype(np.float64), targets])
        loss, *found = value_and_gradients(K.linear_cross_entropy, [x, weight, targets], tile=4)
        tolerance = 1e-5 if dtype == np.float32 else 1e-12
        assert loss == pytest.approx(exact, rel=tolerance)
        for ours, theirs in zip(found[:2], d_exact[:2], strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())

    for_each(GAPS, check)


@pytest.mark.parametrize("size", [0.0, 30.0, 39.0, 100.0])
def test_a_small_loss_is_as_precise_where_logits_are_large(size):
    """float32 has steps of 4e-6 at 39, which would be a hundredth of this loss."""
    x, weight = np.array([[size, 8.0]], np.float32), np.array([[1, 0], [1, -0.0], [1, 1]], np.float32)
    loss, _ = K.linear_cross_entropy(x, weight, np.array([2]))
    assert loss == pytest.approx(math.log1p(2 * math.exp(-8)), rel=1e-3)


@pytest.mark.parametrize("scores", [20.0, 30.0])
def test_float16_scores_are_shifted(scores):
    q = np.full((3, 1), scores, np.float16)
    y, *grads = value_and_gradients(K.causal_attention, [q, np.ones_like(q), np.ones_like(q)])
    assert y.tolist() == [[1], [1], [1]]
    assert y.dtype == np.float16
    assert all(np.isfinite(dx).all() for dx in grads)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nan_or_infinite_numbers_are_not_hidden(bad):
    x, weight = np.ones((2, 3)), np.ones((4, 3))
    x[0, 0] = bad
    with np.errstate(invalid="ignore"):
        assert np.isnan(K.linear_cross_entropy(x, weight, np.array([0, 1]))[0])
        assert np.isnan(K.causal_attention(x, x, x)[0]).any()


# ---- errors --------------------------------------------------------------------------------------------------------


def head(targets, weight=None, **options):
    return K.linear_cross_entropy(zeros(2, 4), zeros(3, 4) if weight is None else weight, np.array(targets), **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: head([0, 3]), IndexError, r"linear_cross_entropy: got target 3, .* 0 … 2 or ignore_index"),
        (lambda: head([-100, -100]), ValueError, "linear_cross_entropy: the mean over no targets"),
        (lambda: head([0.0, 1.0]), TypeError, "linear_cross_entropy: got targets of float64"),
        (lambda: head([0]), ValueError, r"got x \(2, 4\), weight \(3, 4\) and targets \(1,\)"),
        (lambda: head([0, 1], zeros(3, 5)), ValueError, r"got x \(2, 4\), weight \(3, 5\) and targets \(2,\)"),
        (lambda: head([0, 1], zeros(4)), ValueError, r"got x \(2, 4\), weight \(4,\) and targets \(2,\)"),
        (lambda: head([0, 1], label_smoothing=2), ValueError, r"got label_smoothing 2, .* \[0, 1\]"),
        (lambda: head([-100, -100], count=0), ValueError, "got count 0, which must be ≥ 1"),
        (lambda: head([0, 1], count=-3), ValueError, "got count -3"),
        (lambda: head([0, 1], chunk=0), ValueError, "got chunk 0"),
        (lambda: head([0, 1], tile=-1), ValueError, "got tile -1"),
        (lambda: K.causal_attention(*(zeros(2, 2),) * 3, block=0), ValueError, "got block 0, which must be ≥ 1"),
        (lambda: K.causal_attention(zeros(3, 2), zeros(2, 2), zeros(2, 2)), ValueError, r"got q \(3, 2\), .*Tq ≤ Tk"),
        (lambda: K.causal_attention(zeros(2, 2), zeros(2, 3), zeros(2, 3)), ValueError, r"k \(2, 3\)"),
        (lambda: K.causal_self_attention(zeros(1, 2, 6), n_head=1, block=-1), ValueError, "got block -1"),
        (lambda: K.causal_self_attention(zeros(1, 2, 7), n_head=1), ValueError, "got 7 channels"),
        (lambda: K.causal_self_attention(zeros(1, 2, 6), n_head=4), ValueError, "3 × 4 heads"),
    ],
)
def test_arguments_that_do_not_fit_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
