"""Fused kernels against the same thing composed of primitives; linear ones against their adjoint; kinks; stability."""

import math
import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor, apply, grad
from tinygrad_llm.gradcheck.cases import basic_cases
from tinygrad_llm.kernels.contract import Rows, exp_is_safe

seeds = st.integers(0, 2**32 - 1)
shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)
examples = settings(max_examples=30)


def assert_close(a, b):
    """Within 1e-12 of the largest element."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert np.max(np.abs(a - b), initial=0.0) <= 1e-12 * max(1.0, np.max(np.abs(b), initial=0.0))


def assert_agree(kernel, arrays, oracle, **options):
    """Value and every gradient of the kernel are the oracle's, for a random gradient of the output."""
    results = []
    for fn in (lambda *xs: apply(kernel, *xs, **options), oracle):
        inputs = [Tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]
        y = fn(*inputs)
        g = np.random.default_rng(1).standard_normal(y.shape)
        results.append((y.data, *grad(y, [x for x in inputs if x.requires_grad], g)))
    for fused, composed in zip(*results, strict=True):
        assert_close(fused, composed)


def one_hot(ids, n):
    return (np.arange(n) == ids[..., None]).astype(np.float64)


# ---- the oracles ---------------------------------------------------------------------------------------------------


def composed_softmax(x, axis):
    e = (x - Tensor(x.data.max(axis=axis, keepdims=True))).exp()
    return e / e.sum(axis, keepdim=True)


def composed_attention(q, k, v, keep=None, p=0.0):
    """Multiply and sum, one pair of positions after the other; no matrix product."""
    Tq, Tk, D = q.shape[-2], k.shape[-2], q.shape[-1]
    scores = (q.unsqueeze(-2) * k.unsqueeze(-3)).sum(-1) / math.sqrt(D)
    future = np.arange(Tk) > np.arange(Tk - Tq, Tk)[:, None]
    e = scores.exp() * Tensor(np.where(future, 0.0, 1.0))
    weights = e / e.sum(-1, keepdim=True)
    if keep is not None:
        weights = weights * keep / (1 - p)
    return (weights.unsqueeze(-1) * v.unsqueeze(-3)).sum(-2)


@examples
@given(seeds, shapes, st.integers(1, 5), st.booleans())
def test_linear(seed, shape, out, bias):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s) for s in [shape, (out, shape[-1]), (out,)][: 2 + bias]]

    def oracle(x, weight, b=0.0):
        return (x.unsqueeze(-2) * weight).sum(-1) + b

    assert_agree(K.linear, arrays, oracle)


@examples
@given(seeds, shapes, st.integers(0, 2), st.sampled_from([1e-5, 0.1]))
def test_layer_norm(seed, shape, parameters, eps):
    rng = np.random.default_rng(seed)
    shape = (*shape[:-1], shape[-1] + 2)  # among 1 or 2 elements, x̂ is ±1 whatever they are
    arrays = [rng.standard_normal(shape), *(rng.standard_normal(shape[-1:]) for _ in range(parameters))]

    def oracle(x, weight=1.0, bias=0.0):
        centred = x - x.mean(-1, keepdim=True)
        return centred / ((centred * centred).mean(-1, keepdim=True) + eps).sqrt() * weight + bias

    # Rounding grows with 1/√(var + eps) where a row is nearly constant; spread the rows.
    arrays[0] += np.arange(shape[-1])
    assert_agree(K.layer_norm, arrays, oracle, eps=eps)


@examples
@given(seeds, shapes)
def test_gelu(seed, shape):
    x = np.random.default_rng(seed).normal(0, 3, shape)
    assert_agree(K.gelu, [x], lambda x: 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh()))


@examples
@given(seeds, hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), *(st.integers(1, 4),) * 3, st.booleans())
def test_causal_attention(seed, lead, Tq, cached, D, dropped):
    rng = np.random.default_rng(seed)
    Tk = Tq + cached - 1
    arrays = [rng.standard_normal((*lead, T, D)) for T in (Tq, Tk, Tk)]
    p = 0.4 if dropped else 0.0
    if dropped:
        arrays.append(rng.random((*lead, Tq, Tk)) >= p)
    assert_agree(K.causal_attention, arrays, lambda *xs: composed_attention(*xs, p=p), p=p)


@examples
@given(seeds, st.integers(1, 3), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.booleans())
def test_causal_self_attention(seed, B, T, n_head, D, dropped):
    rng = np.random.default_rng(seed)
    C, p = n_head * D, 0.4 if dropped else 0.0
    arrays = [rng.standard_normal((B, T, 3 * C))]
    if dropped:
        arrays.append(rng.random((B, n_head, T, T)) >= p)

    def oracle(qkv, keep=None):
        heads = []
        for h in range(n_head):
            q, k, v = (qkv[..., i * C + h * D : i * C + (h + 1) * D] for i in range(3))
            heads.append(composed_attention(q, k, v, None if keep is None else keep[:, h], p))
        return apply(K.concatenate, *heads, axis=-1)

    assert_agree(K.causal_self_attention, arrays, oracle, n_head=n_head, p=p)


QUERIES, CACHED, BLOCK = st.integers(1, 7), st.integers(0, 3), st.integers(1, 9)


@settings(max_examples=100)
@given(seeds, hnp.array_shapes(min_dims=0, max_dims=2, max_side=3), QUERIES, CACHED, BLOCK, *(st.booleans(),) * 3)
def test_causal_attention_in_blocks(seed, lead, Tq, cached, block, recompute, dropped, large):
    rng = np.random.default_rng(seed)
    Tk, D, p = Tq + cached, 3, 0.4 if dropped else 0.0
    arrays = [rng.standard_normal((*lead, T, D)) for T in (Tq, Tk, Tk)]
    if large:  # scores of 40 to 100, and near each other
        arrays[0][..., 0] += 3
        arrays[1][..., 0] += 30
    if dropped:
        arrays.append(rng.random((*lead, Tq, Tk)) >= p)
    options = {"p": p, "block": block, "recompute": recompute}
    assert_agree(K.causal_attention, arrays, lambda *xs: composed_attention(*xs, p=p), **options)


def value_and_gradients(kernel, arrays, **options):
    y, vjp = kernel(*arrays, **options)
    g = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
    return [np.asarray(a) for a in (y, *vjp(g)) if a is not None]


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("block", [1, 2, 5, 64])
def test_the_future_changes_no_bit_of_the_past(block, dtype):
    """Outputs and, of a loss that looks at them alone, gradients: for scores of the usual size, of ±40."""
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
    (d,), (d2,) = vjp(g), vjp2(g)
    assert d.tobytes() == d2.tobytes()
    assert not d[:, now:].any()


def test_a_later_score_beyond_the_usual_size_changes_the_past_by_rounding_alone():
    rng = np.random.default_rng(0)
    one = rng.standard_normal((1, 6, 6))
    other = one.copy()
    other[:, 4:] *= 50
    y, y2 = (K.causal_self_attention(x, n_head=1)[0][:, :4] for x in (one, other))
    np.testing.assert_allclose(y, y2, rtol=1e-14, atol=1e-15)


def peak(function):
    """The most memory, in bytes, that was held at one time during a call, beyond what was there before."""
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_attention_that_recomputes_holds_no_matrix_of_all_positions():
    T, D = 1024, 8
    qkv = np.random.default_rng(0).standard_normal((1, T, 3 * D)).astype(np.float32)
    one, g = 4 * T * T, np.ones((1, T, D), np.float32)

    def there_and_back(recompute):
        K.causal_self_attention(qkv, n_head=1, block=32, recompute=recompute)[1](g)

    assert peak(lambda: there_and_back(True)) < one / 4
    kept = peak(lambda: there_and_back(False))
    assert one / 2 < kept < 0.8 * one  # the half below the diagonal


def test_a_head_with_its_loss_holds_no_matrix_of_all_logits():
    rng = np.random.default_rng(0)
    N, C, V = 1024, 4, 4096
    x, weight = (rng.standard_normal(shape).astype(np.float32) for shape in ((N, C), (V, C)))
    logits = 4 * N * V
    targets = rng.integers(0, V, N)

    def there_and_back(**options):
        K.linear_cross_entropy(x, weight, targets, **options)[1](np.array(0.5, np.float32))

    assert peak(lambda: there_and_back(chunk=N * V // 16)) < logits / 4
    assert peak(lambda: there_and_back(chunk=N * V // 16, label_smoothing=0.1, count=3)) < logits / 4
    assert peak(there_and_back) > logits


@settings(max_examples=100)
@given(
    seeds,
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(1, 40),
    st.sampled_from([-100, -1, 0, 2]),
    st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0, 1),
    st.none() | st.integers(1, 9),
    st.booleans(),
)
def test_linear_cross_entropy(seed, N, C, V, chunk, ignore_index, smoothing, count, large):
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

    options = {"chunk": chunk, "ignore_index": ignore_index, "label_smoothing": smoothing, "count": count}
    assert_agree(K.linear_cross_entropy, [x, weight, targets], oracle, **options)


@examples
@given(
    seeds,
    st.integers(1, 5),
    st.integers(1, 6),
    st.sampled_from(["mean", "sum", "none"]),
    st.sampled_from([-100, -1, 0, 2]),
    st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0, 1),
)
def test_cross_entropy(seed, N, V, reduction, ignore_index, smoothing):
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(0, 2, (N, V)), rng.integers(0, V, N)
    targets[rng.random(N) < 0.3] = ignore_index
    counted = targets != ignore_index
    assume(counted.any() or reduction != "mean")

    def oracle(logits, targets):
        labels = (1 - smoothing) * one_hot(np.where(counted, targets.data, 0), V) + smoothing / V
        losses = -(composed_softmax(logits, -1).log() * (labels * counted[:, None])).sum(-1)
        return losses if reduction == "none" else losses.sum() / (counted.sum() if reduction == "mean" else 1)

    options = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": smoothing}
    assert_agree(K.cross_entropy, [logits, targets], oracle, **options)


def test_label_smoothing_by_hand_and_a_masked_logit_without_it():
    # p = ½, ¼, ¼. Three quarters of ln 2 for the target, one of the mean of ln 2, ln 4, ln 4.
    logits, target = np.log([[2.0, 1.0, 1.0]]), np.array([0])
    loss, vjp = K.cross_entropy(logits, target, label_smoothing=0.25)
    assert loss == pytest.approx((0.75 + 0.25 * 5 / 3) * math.log(2), rel=1e-15)
    np.testing.assert_allclose(vjp(np.array(1.0))[0], [[0.5 - 0.75 - 1 / 12, 0.25 - 1 / 12, 0.25 - 1 / 12]], rtol=1e-14)
    masked = np.array([[0.0, 0.0, -np.inf]])
    assert K.cross_entropy(masked, target)[0] == pytest.approx(math.log(2))
    assert K.cross_entropy(masked, target, label_smoothing=0.1)[0] == np.inf


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_label_smoothing_is_the_plain_cross_entropy_to_the_bit(dtype):
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(0, 3, (50, 11)).astype(dtype), rng.integers(0, 11, 50)
    shifted = logits - logits.max(axis=1, keepdims=True)
    e, rows = np.exp(shifted), np.arange(50)
    losses, vjp = K.cross_entropy(logits, targets, reduction="none")
    assert losses.tobytes() == (np.log(e.sum(axis=1)) - shifted[rows, targets]).tobytes()
    expected = e * (1 / e.sum(axis=1))[:, None]
    expected[rows, targets] -= 1
    assert vjp(np.ones(50, dtype))[0].tobytes() == expected.tobytes()


@examples
@given(seeds, st.integers(1, 6), st.integers(1, 4), hnp.array_shapes(min_dims=0, max_dims=2, max_side=4))
def test_embedding(seed, V, C, shape):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((V, C)), np.asarray(rng.integers(0, V, shape))]
    assert_agree(K.embedding, arrays, lambda weight, ids: Tensor(one_hot(ids.data, V)) @ weight)


# ---- gradients by rows ---------------------------------------------------------------------------------------------


@examples
@given(seeds, st.integers(1, 6), st.integers(1, 4), hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
def test_rows_are_the_dense_scatter(seed, V, C, shape):
    rng = np.random.default_rng(seed)
    weight, ids = rng.standard_normal((V, C)), np.asarray(rng.integers(0, V, shape))
    y, vjp = K.embedding(weight, ids, sparse=True)
    g = rng.standard_normal(y.shape)
    rows, none = vjp(g)
    assert none is None
    assert isinstance(rows, Rows)
    assert rows.rows.tolist() == sorted(set(ids.reshape(-1).tolist()))
    assert (rows.shape, rows.dtype, rows.ndim) == ((V, C), np.float64, 2)
    dense, _ = K.embedding(weight, ids)[1](g)
    assert isinstance(dense, np.ndarray)
    assert np.asarray(rows).tobytes() == dense.tobytes()
    scattered = np.zeros((V, C))
    np.add.at(scattered, ids, g)
    assert_close(rows, scattered)
    total = start = rng.standard_normal((V, C))
    expected = start + dense
    rows.add_to(total)
    assert total.tobytes() == expected.tobytes()


def test_rows_are_an_array_to_numpy():
    rows = Rows(np.array([0, 2]), np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), (4, 2))
    whole = [[1, 2], [0, 0], [3, 4], [0, 0]]
    assert np.asarray(rows).tolist() == whole
    assert np.asarray(rows).dtype == np.float32
    assert np.asarray(rows, dtype=np.float64).dtype == np.float64
    assert np.shape(rows) == (4, 2)
    assert np.sum(rows) == 10
    one, other = np.asarray(rows), np.asarray(rows)
    one[...] = 7
    assert other.tolist() == whole


AXES = st.integers(-3, 2)


@examples
@given(seeds, shapes, AXES)
def test_softmax_and_its_logarithm(seed, shape, axis):
    axis %= len(shape)
    x = np.random.default_rng(seed).normal(0, 2, shape)
    assert_agree(K.softmax, [x], lambda x: composed_softmax(x, axis), axis=axis)
    assert_agree(K.log_softmax, [x], lambda x: composed_softmax(x, axis).log(), axis=axis)


@st.composite
def reductions(draw):
    shape = draw(shapes)
    axis = draw(st.none() | st.integers(-len(shape), len(shape) - 1) | st.just(tuple(range(len(shape)))))
    return shape, axis, draw(st.booleans())


@examples
@given(seeds, reductions())
def test_logsumexp(seed, reduction):
    shape, axis, keepdims = reduction
    x = np.random.default_rng(seed).normal(0, 2, shape)
    assert_agree(K.logsumexp, [x], lambda x: x.exp().sum(axis, keepdims).log(), axis=axis, keepdims=keepdims)


@examples
@given(seeds, reductions(), st.integers(0, 1))
def test_var(seed, reduction, ddof):
    shape, axis, keepdims = reduction
    shape = tuple(n + 1 for n in shape)
    x = np.random.default_rng(seed).standard_normal(shape)
    n = x.size // np.sum(x, axis=axis).size

    def oracle(x):
        centred = x - x.mean(axis, keepdim=True)
        return (centred * centred).sum(axis, keepdims) / (n - ddof)

    assert_agree(K.var, [x], oracle, axis=axis, keepdims=keepdims, ddof=ddof)
    np.testing.assert_allclose(
        K.var(x, axis=axis, keepdims=keepdims, ddof=ddof)[0], np.var(x, axis=axis, keepdims=keepdims, ddof=ddof), 1e-12
    )


# ---- the documented subgradients -----------------------------------------------------------------------------------


def backward(kernel, *arrays, **options):
    y, vjp = kernel(*(np.asarray(x, np.float64) for x in arrays), **options)
    return vjp(np.ones_like(y))


def test_relu_has_slope_0_at_0():
    assert backward(K.relu, [-1.0, -0.0, 0.0, 1.0])[0].tolist() == [0, 0, 0, 1]


def test_absolute_has_slope_0_at_0():
    assert backward(K.absolute, [-2.0, -0.0, 0.0, 3.0])[0].tolist() == [-1, 0, 0, 1]


def test_maximum_shares_between_equals():
    da, db = backward(K.maximum, [1.0, 2.0, 3.0], [2.0, 2.0, 2.0])
    assert da.tolist() == [0, 0.5, 1]
    assert db.tolist() == [1, 0.5, 0]


def test_maximum_of_a_thing_with_itself_has_slope_1():
    x = Tensor([1.0, -2.0], requires_grad=True)
    assert grad(x.maximum(x).sum(), [x])[0].tolist() == [1, 1]


def test_max_shares_among_equal_maxima():
    assert backward(K.max, [[5.0, 5.0, 1.0], [0.0, 2.0, 1.0]], axis=1)[0].tolist() == [[0.5, 0.5, 0], [0, 1, 0]]
    assert backward(K.max, [[4.0, 4.0], [4.0, 4.0]])[0].tolist() == [[0.25] * 2] * 2


def test_power_0_is_flat_even_at_0():
    dx, dn = backward(K.power, [0.0, 3.0], [0.0, 0.0])
    assert dx.tolist() == [0, 0]
    assert dn.tolist() == [0, math.log(3)]


# ---- stability -----------------------------------------------------------------------------------------------------

EXTREME = np.array([[-1000.0, 0.0, 1000.0], [1000.0, 1000.0, -1000.0]], np.float32)


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        (K.sigmoid, [[0, 0.5, 1], [1, 1, 0]]),
        (K.tanh, [[-1, 0, 1], [1, 1, -1]]),
        (K.softmax, [[0, 0, 1], [0.5, 0.5, 0]]),
        (K.log_softmax, [[-2000, -1000, 0], [-math.log(2), -math.log(2), -2000 - math.log(2)]]),
        (lambda x: K.logsumexp(x, axis=1), [1000, 1000 + math.log(2)]),
        (lambda x: K.cross_entropy(x, np.array([0, 1]), reduction="none"), [2000, math.log(2)]),
        (K.gelu, [[0, 0, 1000], [1000, 1000, 0]]),
    ],
    ids=["sigmoid", "tanh", "softmax", "log_softmax", "logsumexp", "cross_entropy", "gelu"],
)
def test_plus_and_minus_1000_in_float32(kernel, expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        y, vjp = kernel(EXTREME)
        d = vjp(np.ones_like(y))[0]
    np.testing.assert_allclose(y, np.asarray(expected, np.float32), rtol=1e-6)
    assert np.isfinite(d).all()
    assert d.dtype == y.dtype == np.float32


def test_attention_at_plus_and_minus_1000():
    q = np.array([[1000.0], [-1000.0], [1000.0]], np.float32)
    y, vjp = K.causal_attention(q, q, np.array([[1.0], [2.0], [4.0]], np.float32))
    assert y[:, 0].tolist() == [1, 2, 2.5]
    assert all(np.isfinite(d).all() for d in vjp(np.ones_like(y)))


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
def test_where_an_exponential_needs_no_shift(values, safe):
    x = np.array(values)
    assert exp_is_safe(x) is safe
    if x.dtype.kind == "f":
        assert exp_is_safe(x.astype(np.float32)) is safe
        assert not exp_is_safe(x.astype(np.float16))


SIZES = [0.0, 39.9, -39.9, 40.1, -40.1, 1000.0, -1000.0, 3e4]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("V", [1, 2, 3000])
def test_equal_logits_of_any_size_have_the_loss_ln_V_in_float32(V, size):
    x, weight = np.full((3, 1), size, np.float32), np.ones((V, 1), np.float32)
    loss, dx, dweight = value_and_gradients(K.linear_cross_entropy, [x, weight, np.array([0, V - 1, 0])])
    assert loss == pytest.approx(math.log(V), rel=1e-6, abs=2e-7)
    assert np.abs(dx).max() <= 1e-6
    assert np.isfinite(dweight).all()
    assert np.abs(dweight.sum()) <= 1e-5 * max(1.0, abs(size))  # rows of dlogits sum to 0


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("T", [1, 3, 300])
def test_equal_scores_of_any_size_are_an_average_in_float32(T, size):
    q, k = np.full((T, 1), size, np.float32), np.ones((T, 1), np.float32)
    v = np.arange(T, dtype=np.float32)[:, None]
    y, *grads = value_and_gradients(K.causal_attention, [q, k, v])
    np.testing.assert_allclose(y, v / 2, rtol=1e-5)
    assert all(np.isfinite(d).all() for d in grads)


@pytest.mark.parametrize("size", SIZES)
def test_far_logits_on_both_sides_in_float32(size):
    """Rows of ±size beside a row of zeros: the shift of one is no harm to the other."""
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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("gap", [20.0, 40.0, 43.0, 45.0, 60.0, 82.0, 84.0, 86.0, 87.0, 88.0, 89.0, 350.0, 707.0, 709.0])
@pytest.mark.parametrize("largest", [1.0, 50.0])
def test_a_target_far_below_the_best_logit(gap, largest, dtype):
    """Whatever the distance: e, Z and their products stay in range."""
    rng = np.random.default_rng(3)
    x, weight = rng.standard_normal((6, 4)), rng.uniform(-0.01, 0.01, (9, 4))
    weight[:, 3] = largest * (np.arange(9) == 5)  # only id 5 has it
    x[:, 3] = gap / largest
    targets = np.array([1, 2, 3, 4, 6, 7])
    x, weight = x.astype(dtype), weight.astype(dtype)
    exact, *d_exact = value_and_gradients(plain_head, [x.astype(np.float64), weight.astype(np.float64), targets])
    loss, *d = value_and_gradients(K.linear_cross_entropy, [x, weight, targets], tile=4)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    assert loss == pytest.approx(exact, rel=tolerance)
    for ours, theirs in zip(d[:2], d_exact[:2], strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("scores", [20.0, 30.0])
def test_float16_has_no_room_without_a_shift(scores):
    q = np.full((3, 1), scores, np.float16)
    y, *grads = value_and_gradients(K.causal_attention, [q, np.ones_like(q), np.ones_like(q)])
    assert y.tolist() == [[1], [1], [1]]
    assert y.dtype == np.float16
    assert all(np.isfinite(d).all() for d in grads)


@pytest.mark.parametrize("size", [0.0, 30.0, 39.0, 100.0])
def test_a_small_loss_is_no_less_precise_where_logits_are_large(size):
    """float32 has steps of 4e-6 at 39, which would be a hundredth of this loss."""
    x, weight = np.array([[size, 8.0]], np.float32), np.array([[1, 0], [1, -0.0], [1, 1]], np.float32)
    loss, _ = K.linear_cross_entropy(x, weight, np.array([2]))
    assert loss == pytest.approx(math.log1p(2 * math.exp(-8)), rel=1e-3)


def test_a_loss_that_nothing_counts_for_is_zero_and_so_are_its_gradients():
    rng = np.random.default_rng(0)
    x, weight, ignored = rng.standard_normal((4, 3)), rng.standard_normal((5, 3)), np.full(4, -100)
    for targets, rows in ((ignored, x), (ignored[:0], x[:0])):
        loss, dx, dweight = value_and_gradients(K.linear_cross_entropy, [rows, weight, targets], count=7)
        assert loss == 0
        assert not dx.any()
        assert not dweight.any()
        assert (dx.shape, dweight.shape) == (rows.shape, weight.shape)


def test_an_ignored_row_may_hold_anything_that_is_finite():
    rng = np.random.default_rng(0)
    x, weight = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    x[2] = [1e30, -1e30, 1e30]
    loss, dx, dweight = value_and_gradients(K.linear_cross_entropy, [x, weight, np.array([0, 1, -100, 2])])
    others = value_and_gradients(K.linear_cross_entropy, [x[[0, 1, 3]], weight, np.array([0, 1, 2])])
    assert_close(loss, others[0])
    assert_close(np.delete(dx, 2, axis=0), others[1])
    assert_close(dweight, others[2])
    assert not dx[2].any()


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_is_not_finite_is_not_hidden(bad):
    x, weight = np.ones((2, 3)), np.ones((4, 3))
    x[0, 0] = bad
    with np.errstate(invalid="ignore"):
        assert np.isnan(K.linear_cross_entropy(x, weight, np.array([0, 1]))[0])
        assert np.isnan(K.causal_attention(x, x, x)[0]).any()


def test_a_float64_head_on_float32_states_loses_nothing():
    rng = np.random.default_rng(0)
    x, weight, targets = (
        rng.standard_normal((3, 2)).astype(np.float32),
        rng.standard_normal((5, 2)),
        np.array([0, 4, 2]),
    )
    loss, _ = K.linear_cross_entropy(x, weight, targets)
    wide, _ = K.linear_cross_entropy(x.astype(np.float64), weight, targets)
    assert loss.dtype == np.float64
    assert loss == pytest.approx(wide, rel=1e-14)


@pytest.mark.parametrize("n", [4, 768])
@pytest.mark.parametrize("value", [0.0, 3.0, -1024.0])
def test_layer_norm_of_a_constant_row_is_its_bias(value, n):
    x, weight, bias = np.full((2, n), value, np.float32), np.full(n, 2, np.float32), np.arange(n, dtype=np.float32)
    y, dx, *_ = value_and_gradients(K.layer_norm, [x, weight, bias])
    assert y.tolist() == [bias.tolist()] * 2
    assert np.isfinite(dx).all()


@pytest.mark.parametrize("x", [1e13, 3e13, 1e18, -1e13, -1e18])
def test_gelu_is_straight_far_out(x):
    with np.errstate(over="ignore"):
        y, vjp = K.gelu(np.array([x], np.float32))
    assert y == np.float32(max(x, 0))
    assert vjp(np.ones(1, np.float32))[0] == (x > 0)


# ---- errors --------------------------------------------------------------------------------------------------------


def zeros(*shape):
    return np.zeros(shape)


def head(targets, weight=None, **options):
    return K.linear_cross_entropy(zeros(2, 4), zeros(3, 4) if weight is None else weight, targets, **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: K.embedding(zeros(5, 2), np.array([0, -1])), IndexError, r"id -1 .* 0 … 4"),
        (lambda: K.embedding(zeros(5, 2), np.array([5, 0])), IndexError, r"id 5 .* 0 … 4"),
        (lambda: K.embedding(zeros(5, 2), np.array([1.0])), TypeError, "integers, not float64"),
        (lambda: K.cross_entropy(zeros(2, 3), np.array([0, 3])), IndexError, r"target 3 .* 0 … 2 or ignore_index"),
        (lambda: K.cross_entropy(zeros(2, 3), np.array([-1, 0])), IndexError, "target -1"),
        (lambda: K.cross_entropy(zeros(2, 3), np.array([-100, -100])), ValueError, "all 2 are ignore_index"),
        (lambda: K.cross_entropy(zeros(2, 3), np.array([0.0, 1.0])), TypeError, "integers, not float64"),
        (lambda: K.cross_entropy(zeros(2, 3), np.array([0])), ValueError, r"\(2, 3\) and \(1,\)"),
        (lambda: K.cross_entropy(zeros(1, 2, 3), np.array([0])), ValueError, r"\(1, 2, 3\)"),
        (lambda: K.cross_entropy(zeros(1, 3), np.array([0]), reduction="avg"), ValueError, "'avg'"),
        (lambda: K.cross_entropy(zeros(1, 3), np.array([0]), label_smoothing=1.1), ValueError, r"in \[0, 1\], not 1.1"),
        (lambda: K.cross_entropy(zeros(1, 3), np.array([0]), label_smoothing=-0.1), ValueError, "not -0.1"),
        (lambda: K.cross_entropy(zeros(1, 3), np.array([0]), label_smoothing=math.nan), ValueError, "not nan"),
        (lambda: head(np.array([0, 3])), IndexError, r"linear_cross_entropy: target 3 .* 0 … 2 or ignore_index"),
        (lambda: head(np.array([-1, 0])), IndexError, "linear_cross_entropy: target -1"),
        (lambda: head(np.array([-100, -100])), ValueError, "linear_cross_entropy: the mean over no targets"),
        (lambda: head(np.array([0.0, 1.0])), TypeError, "linear_cross_entropy: .* integers, not float64"),
        (lambda: head(np.array([0])), ValueError, r"\(2, 4\), \(3, 4\) and \(1,\)"),
        (lambda: head(np.array([0, 1]), zeros(3, 5)), ValueError, r"\(2, 4\), \(3, 5\) and \(2,\)"),
        (lambda: head(np.array([0, 1]), zeros(4)), ValueError, r"\(2, 4\), \(4,\) and \(2,\)"),
        (lambda: head(np.array([0, 1]), label_smoothing=2), ValueError, r"in \[0, 1\], not 2"),
        (lambda: head(np.array([0, 1]), count=0), ValueError, "count must be ≥ 1, not 0"),
        (lambda: head(np.array([-100, -100]), count=0), ValueError, "count must be ≥ 1, not 0"),
        (lambda: head(np.array([0, 1]), count=-3), ValueError, "count must be ≥ 1, not -3"),
        (lambda: head(np.array([0, 1]), chunk=0), ValueError, "chunk must be ≥ 1, not 0"),
        (lambda: head(np.array([0, 1]), tile=-1), ValueError, "tile must be ≥ 1, not -1"),
        (lambda: K.causal_attention(*(zeros(2, 2),) * 3, block=0), ValueError, "block must be ≥ 1, not 0"),
        (lambda: K.causal_self_attention(zeros(1, 2, 6), n_head=1, block=-1), ValueError, "block must be ≥ 1, not -1"),
        (lambda: K.linear(zeros(2, 3), zeros(4, 2)), ValueError, r"\(2, 3\).*\(4, 2\)"),
        (lambda: K.linear(zeros(2, 3), zeros(3)), ValueError, r"\(2, 3\).*\(3,\)"),
        (lambda: K.linear(zeros(2, 3), zeros(4, 3), zeros(1)), ValueError, r"bias.*\(1,\)"),
        (lambda: K.linear(zeros(2, 3), zeros(4, 3), zeros(2, 4)), ValueError, r"bias.*\(2, 4\)"),
        (lambda: K.matmul(zeros(2, 3), zeros(2, 3)), ValueError, r"\(2, 3\) and \(2, 3\)"),
        (lambda: K.matmul(zeros(), zeros(2)), ValueError, r"\(\) and \(2,\)"),
        (lambda: K.layer_norm(zeros(2, 3), zeros(1)), ValueError, r"\(3,\).*\(1,\)"),
        (lambda: K.layer_norm(zeros(2, 3), zeros(3), zeros(2)), ValueError, r"\(3,\).*\(2,\)"),
        (lambda: K.causal_attention(zeros(3, 2), zeros(2, 2), zeros(2, 2)), ValueError, r"q \(3, 2\).*Tq ≤ Tk"),
        (lambda: K.causal_attention(zeros(2, 2), zeros(2, 3), zeros(2, 3)), ValueError, r"k \(2, 3\)"),
        (lambda: K.causal_self_attention(zeros(1, 2, 7), n_head=1), ValueError, "7 channels"),
        (lambda: K.causal_self_attention(zeros(1, 2, 6), n_head=4), ValueError, "4 heads"),
        (lambda: K.var(zeros(1), ddof=1), ValueError, "too few for ddof=1"),
        (lambda: K.einsum(zeros(2), subscripts="i,j"), ValueError, r"2 operand\(s\), but 1"),
        (lambda: K.einsum(zeros(2), subscripts="ij"), ValueError, r"'ij'.*\(2,\)"),
    ],
)  # fmt: skip
def test_errors_say_what_is_wrong(call, error, message):
    with pytest.raises(error, match=message):
        call()


# ---- linear kernels: ⟨v, J u⟩ = ⟨Jᵀ v, u⟩, exactly ------------------------------------------------------------------

LINEAR = {"reshape", "transpose", "getitem", "concatenate", "stack", "sum", "broadcast_to", "matmul", "einsum",
          "linear", "embedding", "add", "subtract", "multiply", "negative", "where"}  # fmt: skip


def small_integers(rng, shape):
    """Floats whose products and sums are exact, so that == is the right comparison."""
    return rng.integers(-4, 5, shape).astype(np.float64)


def assert_adjoint(kernel, arrays, options, seed=0):
    rng = np.random.default_rng(seed)
    arrays = [small_integers(rng, x.shape) if x.dtype.kind == "f" else x for x in arrays]
    y, vjp = kernel(*arrays, **options)
    v = small_integers(rng, np.shape(y))
    for i, (x, d) in enumerate(zip(arrays, vjp(v), strict=True)):
        if d is not None:
            u = small_integers(rng, x.shape)
            # Linear in each input, up to what the other inputs add: J u = y(u) − y(0).
            at_u, at_0 = (kernel(*arrays[:i], w, *arrays[i + 1 :], **options)[0] for w in (u, np.zeros_like(u)))
            assert np.sum(v * (at_u - at_0)) == np.sum(d * u)


@pytest.mark.parametrize("case", [c for c in basic_cases() if c.covers in LINEAR], ids=lambda c: c.name)
def test_the_adjoint_identity_holds_exactly(case, kernel_call):
    assert_adjoint(*kernel_call(case))


@st.composite
def contractions(draw):
    """Subscripts and operand shapes that np.einsum takes: repeated indices, "...", broadcasting, implicit output."""
    sizes = {label: draw(st.integers(1, 3)) for label in "abcZ"}
    hidden = draw(st.lists(st.integers(1, 3), max_size=2))
    terms, operands = [], []
    for _ in range(draw(st.integers(1, 3))):
        labels = draw(st.text("abcZ", max_size=3))
        shape = [1 if labels.count(c) == 1 and draw(st.integers(0, 9)) == 0 else sizes[c] for c in labels]
        if draw(st.booleans()):
            at = draw(st.integers(0, len(labels)))
            own = [n if draw(st.booleans()) else 1 for n in hidden[draw(st.integers(0, len(hidden))) :]]
            labels, shape = labels[:at] + "..." + labels[at:], [*shape[:at], *own, *shape[at:]]
        terms.append(labels)
        operands.append(tuple(shape))
    subscripts = ",".join(terms)
    if draw(st.booleans()):
        used = sorted(set(subscripts) - set(".,"))
        output = "".join(draw(st.permutations(used)))[: draw(st.integers(0, len(used)))]
        if "..." in subscripts:
            at = draw(st.integers(0, len(output)))
            output = output[:at] + "..." + output[at:]
        subscripts += "->" + output
    return subscripts, operands


@settings(max_examples=200)
@given(contractions(), seeds)
def test_einsum_is_numpys_and_its_gradient_the_adjoint(contraction, seed):
    subscripts, operands = contraction
    rng = np.random.default_rng(seed)
    arrays = [small_integers(rng, shape) for shape in operands]
    y, _ = K.einsum(*arrays, subscripts=subscripts)
    expected = np.einsum(subscripts, *arrays)
    assert np.shape(y) == np.shape(expected)
    assert np.array_equal(y, expected)
    assert_adjoint(K.einsum, arrays, {"subscripts": subscripts}, seed)


INDICES = hnp.basic_indices((4, 3, 2), allow_newaxis=True) | hnp.integer_array_indices((4, 3, 2))


@settings(max_examples=100)
@given(INDICES, seeds)
def test_getitem_is_numpys_and_its_gradient_the_adjoint(index, seed):
    x = np.random.default_rng(seed).standard_normal((4, 3, 2))
    assert np.array_equal(K.getitem(x, index=index)[0], x[index])
    assert_adjoint(K.getitem, [x], {"index": index}, seed)


def test_logsumexp_of_infinities_is_what_it_should_be() -> None:
    x = np.array([[-np.inf, -np.inf], [np.inf, 0.0], [-np.inf, 1.0]])
    np.testing.assert_array_equal(K.logsumexp(x, axis=-1)[0], [-np.inf, np.inf, 1.0])


def test_a_dropped_infinity_is_gone() -> None:
    y, vjp = K.dropout(np.array([np.inf, 1.0]), np.array([False, True]), p=0.5)
    np.testing.assert_array_equal(y, [0, 2])
    np.testing.assert_array_equal(vjp(np.array([np.inf, 1.0]))[0], [0, 2])
