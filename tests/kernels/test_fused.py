"""Fused kernels against the same thing composed of primitives; linear ones against their adjoint; kinks; stability."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor, apply, grad
from tinygrad_llm.gradcheck.cases import basic_cases

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


# ---- errors --------------------------------------------------------------------------------------------------------


def zeros(*shape):
    return np.zeros(shape)


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
