"""`functional`: torch's names, against formulas on plain arrays; the kernels behind them are proven elsewhere."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor, grad
from tinygrad_llm.gradcheck import gradcheck
from tinygrad_llm.random import Generator

seeds = st.integers(0, 2**32 - 1)
X = np.random.default_rng(0).standard_normal((2, 3, 4))


def leaf(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def test_every_name_is_there_and_documented():
    for name in F.__all__:
        assert getattr(F, name).__doc__, name


# ---- element by element --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "formula"),
    [
        (F.relu, lambda x: max(x, 0.0)),
        (F.sigmoid, lambda x: 1 / (1 + math.exp(-x))),
        (F.tanh, math.tanh),
        (F.gelu, lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    ],
)
def test_element_by_element(fn, formula):
    y = fn(Tensor(X))
    np.testing.assert_allclose(y.data, np.vectorize(formula)(X), rtol=1e-14, atol=1e-15)
    assert gradcheck(fn, [X])


def test_gelu_is_within_a_thousandth_of_the_erf_form():
    x = np.linspace(-6, 6, 241)
    exact = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x]
    assert 1e-5 < np.max(np.abs(F.gelu(Tensor(x)).data - exact)) < 1e-3
    with pytest.raises(ValueError, match="approximate must be"):
        F.gelu(Tensor(x), approximate="none")


def test_maximum_and_where():
    a, b = Tensor([1.0, 5.0]), Tensor([2.0, 3.0])
    assert F.maximum(a, b).tolist() == [2, 5]
    assert F.maximum(a, 4).tolist() == [4, 5]
    assert F.where(a > b, a, 0.0).tolist() == [0, 5]
    assert F.where(a > b, a, 0.0).dtype == np.float32


# ---- softmax -------------------------------------------------------------------------------------------------------


@given(hnp.array_shapes(max_dims=3, max_side=4), st.data(), seeds, st.floats(-50, 50))
def test_softmax_sums_to_1_and_ignores_a_shift(shape, data, seed, shift):
    x = np.random.default_rng(seed).normal(0, 5, shape)
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    y = F.softmax(Tensor(x), dim)
    np.testing.assert_allclose(y.data.sum(axis=dim), 1, rtol=1e-14)
    np.testing.assert_allclose(F.softmax(Tensor(x + shift), dim).data, y.data, rtol=1e-11)
    np.testing.assert_allclose(F.log_softmax(Tensor(x), dim).data, np.log(y.data), rtol=1e-11, atol=1e-12)


# ---- joining and multiplying ---------------------------------------------------------------------------------------


def test_cat_and_stack():
    a, b = np.ones((2, 3)), np.zeros((2, 3))
    for dim in (0, 1, -1):
        np.testing.assert_array_equal(F.cat([Tensor(a), Tensor(b)], dim).data, np.concatenate([a, b], dim))
        np.testing.assert_array_equal(F.stack([Tensor(a), b], dim).data, np.stack([a, b], dim))
    assert F.cat([a, b]).shape == (4, 3)
    assert F.stack([a, b]).shape == (2, 2, 3)


def test_products():
    a, b = leaf(2, 3), leaf(3, 4)
    expected = a.data @ b.data
    for y in (F.matmul(a, b), F.einsum("ij,jk->ik", a, b), F.einsum("ij,jk", a, b), F.linear(a, b.T)):
        np.testing.assert_allclose(y.data, expected, rtol=1e-14)
    np.testing.assert_allclose(F.linear(a, b.T, Tensor(np.ones(4))).data, expected + 1, rtol=1e-14)


def test_a_frozen_weight_costs_no_gradient():
    x, frozen = leaf(2, 3), Tensor(np.ones((4, 3)))
    assert grad(F.linear(x, frozen).sum(), [x])[0].tolist() == [[4, 4, 4]] * 2


def test_embedding():
    weight = leaf(5, 3)
    ids = np.array([[0, 4], [4, 4]])
    y = F.embedding(Tensor(ids), weight)
    np.testing.assert_array_equal(y.data, weight.data[ids])
    assert grad(y.sum(), [weight])[0][:, 0].tolist() == [1, 0, 0, 0, 3]
    with pytest.raises(IndexError, match="id 5"):
        F.embedding(np.array([5]), weight)


def test_a_tied_weight_receives_both_gradients():
    weight, ids = leaf(5, 3), np.array([1, 2])
    g = np.random.default_rng(1).standard_normal((2, 5))

    def logits(table, head):
        return F.linear(F.embedding(ids, table), head)

    (tied,) = grad(logits(weight, weight), [weight], g)
    other = Tensor(weight.data, requires_grad=True)
    table, head = grad(logits(weight, other), [weight, other], g)
    np.testing.assert_allclose(tied, table + head, rtol=1e-14)


# ---- layer norm ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("parameters", ["none", "weight", "bias", "both"])
def test_layer_norm(axes, parameters):
    shape = X.shape[3 - axes :]
    rng = np.random.default_rng(1)
    weight = rng.standard_normal(shape) if parameters in ("weight", "both") else None
    bias = rng.standard_normal(shape) if parameters in ("bias", "both") else None
    over = tuple(range(3 - axes, 3))
    expected = (X - X.mean(axis=over, keepdims=True)) / np.sqrt(X.var(axis=over, keepdims=True) + 1e-5)
    expected = expected * (1 if weight is None else weight) + (0 if bias is None else bias)
    given = {k: Tensor(v, requires_grad=True) for k, v in (("weight", weight), ("bias", bias)) if v is not None}
    y = F.layer_norm(Tensor(X), shape, **given)
    np.testing.assert_allclose(y.data, expected, rtol=1e-11, atol=1e-12)
    assert gradcheck(lambda x, *ps: F.layer_norm(x, shape, **dict(zip(given, ps, strict=True))), [X, *given.values()])


def test_layer_norm_invariants():
    x = leaf(3, 5)
    y = F.layer_norm(x, (5,))
    np.testing.assert_allclose(y.data.mean(axis=-1), 0, atol=1e-15)
    np.testing.assert_allclose(y.data.var(axis=-1), 1, rtol=1e-4)
    (dx,) = grad(y, [x], np.random.default_rng(1).standard_normal((3, 5)))
    np.testing.assert_allclose(dx.sum(axis=-1), 0, atol=1e-14)


@pytest.mark.parametrize("shape", [(3,), (), (3, 2), (4, 4, 4, 4)])
def test_layer_norm_wants_the_last_axes(shape):
    with pytest.raises(ValueError, match="normalized_shape"):
        F.layer_norm(Tensor(X), shape)


def test_layer_norm_wants_parameters_of_that_shape():
    with pytest.raises(ValueError, match=r"must have normalized_shape \(4,\)"):
        F.layer_norm(Tensor(X), (4,), Tensor(np.ones(3)))
    with pytest.raises(ValueError, match=r"must have normalized_shape \(2, 2\)"):
        F.layer_norm(Tensor(np.ones((3, 2, 2))), (2, 2), Tensor(np.ones(4)))


# ---- dropout -------------------------------------------------------------------------------------------------------


def test_dropout_keeps_or_zeroes_and_rescales():
    x = Tensor(np.full((200, 50), 3.0), requires_grad=True)
    y = F.dropout(x, 0.25, rng=Generator(0))
    assert set(np.unique(y.data)) == {0.0, 4.0}
    assert abs(np.mean(y.data == 0) - 0.25) < 0.02  # 5 standard deviations
    np.testing.assert_array_equal(grad(y.sum(), [x])[0] == 0, y.data == 0)


def test_dropout_draws_from_the_generator_and_only_when_training():
    x, rng = Tensor(X), Generator(1)
    before = rng.get_state()
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0, rng=rng) is x
    assert rng.get_state()["position"] == before["position"]
    a, b = (F.dropout(x, 0.5, rng=Generator(1)).data for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, F.dropout(x, 0.5, rng=Generator(2)).data)


def test_dropout_of_everything():
    x = leaf(3)
    y = F.dropout(x, 1.0, rng=Generator(0))
    assert y.tolist() == [0, 0, 0]
    assert grad(y.sum(), [x])[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_dropout_wants_a_probability(p):
    with pytest.raises(ValueError, match=r"p must lie in \[0, 1\]"):
        F.dropout(Tensor(X), p, rng=Generator(0))


def test_dropout_wants_a_generator():
    with pytest.raises(ValueError, match="rng=Generator"):
        F.dropout(Tensor(X), 0.5)


# ---- cross-entropy -------------------------------------------------------------------------------------------------


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_their_number():
    assert F.cross_entropy(Tensor(np.zeros((3, 50257))), np.array([0, 7, 50256])).item() == pytest.approx(
        math.log(50257), rel=1e-14
    )


def test_cross_entropy_reductions_and_ignored_rows():
    logits, targets = leaf(4, 5), np.array([1, -100, 0, 4])
    losses = F.cross_entropy(logits, targets, reduction="none")
    expected = [-math.log(F.softmax(logits, 1).data[i, t]) if t >= 0 else 0.0 for i, t in enumerate(targets)]
    np.testing.assert_allclose(losses.data, expected, rtol=1e-13)
    assert F.cross_entropy(logits, targets, reduction="sum").item() == pytest.approx(sum(expected))
    loss = F.cross_entropy(logits, Tensor(targets))
    assert loss.item() == pytest.approx(sum(expected) / 3)
    (d,) = grad(loss, [logits])
    assert not d[1].any()
    np.testing.assert_allclose(d.sum(axis=1), 0, atol=1e-16)
    onehot = np.arange(5) == targets[:, None]
    np.testing.assert_allclose(d[[0, 2, 3]], ((F.softmax(logits, 1).data - onehot) / 3)[[0, 2, 3]], rtol=1e-13)


def test_cross_entropy_with_an_ignore_index_of_ones_own():
    logits, targets = leaf(3, 5), np.array([1, 2, 2])
    only = F.cross_entropy(logits[:1], targets[:1]).item()
    assert F.cross_entropy(logits, targets, ignore_index=2).item() == pytest.approx(only, rel=1e-15)


def test_the_head_and_its_loss_at_once():
    x, weight, targets = leaf(6, 4), leaf(5, 4), np.array([1, -100, 0, 4, 2, -100])
    for options in ({}, {"ignore_index": 2, "target": np.array([1, 2, 0, 4, 2, 1])}, {"label_smoothing": 0.2}):
        target = options.pop("target", targets)
        one = F.linear_cross_entropy(x, weight, Tensor(target), **options)
        other = F.cross_entropy(F.linear(x, weight), target, **options)
        assert one.item() == pytest.approx(other.item(), rel=1e-13)
        for g, expected in zip(grad(one, [x, weight]), grad(other, [x, weight]), strict=True):
            np.testing.assert_allclose(g, expected, rtol=1e-12, atol=1e-15)


def test_parts_of_a_batch_add_up_to_its_mean():
    """With the count of the whole, also where nothing of a part counts."""
    x, weight, targets = leaf(6, 4), leaf(5, 4), np.array([1, -100, -100, -100, 2, 0])
    whole = F.linear_cross_entropy(x, weight, targets)
    parts = [F.linear_cross_entropy(x[i : i + 2], weight, targets[i : i + 2], count=3) for i in (0, 2, 4)]
    assert [part.item() > 0 for part in parts] == [True, False, True]
    assert sum(part.item() for part in parts) == pytest.approx(whole.item(), rel=1e-14)
    for g, expected in zip(grad(parts[0] + parts[1] + parts[2], [x, weight]), grad(whole, [x, weight]), strict=True):
        np.testing.assert_allclose(g, expected, rtol=1e-13, atol=1e-16)


def test_a_loss_is_scaled_like_any_other_number():
    x, weight, targets = leaf(3, 4), leaf(5, 4), np.array([1, 0, 4])
    (one,) = grad(F.linear_cross_entropy(x, weight, targets), [x])
    (three,) = grad(F.linear_cross_entropy(x, weight, targets) * 3, [x])
    np.testing.assert_allclose(three, 3 * one, rtol=1e-15)


@pytest.mark.parametrize("frozen", ["x", "weight", "both"])
def test_what_is_frozen_costs_the_head_nothing(frozen):
    x, weight, targets = leaf(3, 4), leaf(5, 4), np.array([1, 0, 4])
    expected = dict(zip(("x", "weight"), grad(F.linear_cross_entropy(x, weight, targets), [x, weight]), strict=True))
    x.requires_grad, weight.requires_grad = frozen == "weight", frozen == "x"
    loss = F.linear_cross_entropy(x, weight, targets)
    assert loss.requires_grad == (frozen != "both")
    for name, t in (("x", x), ("weight", weight)):
        if t.requires_grad:
            np.testing.assert_array_equal(grad(loss, [t])[0], expected[name])


# ---- attention -----------------------------------------------------------------------------------------------------


def attention_by_hand(q, k, v, attends):
    """One query after the other; attends: boolean, the shape of the scores."""
    y = np.zeros((*q.shape[:-1], v.shape[-1]))
    for place in np.ndindex(q.shape[:-1]):
        seen = attends[place]
        scores = np.exp(k[place[:-1]][seen] @ q[place] / math.sqrt(q.shape[-1]))
        if seen.any():
            y[place] = scores / scores.sum() @ v[place[:-1]][seen]
    return y


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("Tq", "Tk"), [(4, 4), (1, 4), (2, 5), (5, 2)])
def test_attention_of_any_lengths_is_a_loop_over_the_queries(Tq, Tk, causal):
    q, k, v = leaf(2, 3, Tq, 4), leaf(2, 3, Tk, 4, seed=1), leaf(2, 3, Tk, 4, seed=2)
    y = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
    attends = np.broadcast_to(np.tri(Tq, Tk, dtype=bool) if causal else True, (2, 3, Tq, Tk))
    np.testing.assert_allclose(y.data, attention_by_hand(q.data, k.data, v.data, attends), rtol=1e-12)


@pytest.mark.parametrize("shape", [(), (5,), (4, 5), (3, 1, 5), (2, 1, 4, 1), (2, 3, 4, 5)])
def test_attention_with_a_mask_that_broadcasts(shape):
    q, k, v = leaf(2, 3, 4, 2), leaf(2, 3, 5, 2, seed=1), leaf(2, 3, 5, 3, seed=2)
    mask = np.random.default_rng(0).random(shape) < 0.7
    attends = np.broadcast_to(mask, (2, 3, 4, 5))
    expected = attention_by_hand(q.data, k.data, v.data, attends)
    for attn_mask in (mask, Tensor(mask), np.where(mask, 0.0, -np.inf)):
        y = F.scaled_dot_product_attention(q, k, v, attn_mask)
        np.testing.assert_allclose(y, expected, rtol=1e-12)


CAUSAL, MASK = {"is_causal": True}, [[False, False, False], [True, False, True]]
ADDED = [[0.5, -1.0, -math.inf], [0.0, 0.25, 1.0]]
TORCH = {  # what torch 2.13.0 gives: options, y, and the gradients of q, k, v and the mask
    "fewer queries": (CAUSAL, (2, 3), "-1.5 -.5 .5 / -1.0846223101 -.0846223101 -1.1615107595",
        "0 0 / .1988396696 -.0497099174", "-.0994198348 .0497099174 / .0994198348 -.0497099174 / 0 0",
        ".0846223101 1.2538669303 2 / .4153776899 1.2461330697 0 / 0 0 0"),
    "more queries": (CAUSAL, (3, 2),
        "-1.5 -.5 .5 / -1.0846223101 -.0846223101 -1.1615107595 / -1.1285916576 -.1285916576 -.9856333695",
        "0 0 / .1988396696 -.0497099174 / .1350857202 -.0337714301",
        "-.1331912649 .1172527775 / .1331912649 -.1172527775",
        ".3418056253 1.7682335608 2.1285916576 / 1.1581943747 2.7317664392 .3714083424"),
    "a query without keys": ({"attn_mask": np.array(MASK)}, (2, 3), "0 0 0 / -.6955703175 .3044296825 -.7066445238",
        "0 0 / .3337315649 -.2224877099", "-.2224877099 .111243855 / 0 0 / .2224877099 -.111243855",
        ".0977851587 .2933554762 0 / 0 0 0 / .4022148413 1.2066445238 0"),
    "an added mask": ({"attn_mask": Tensor(np.array(ADDED), requires_grad=True)}, (2, 3),
        "-1.474272304 -.474272304 .3970892162 / -.7245966432 .2754033568 -1.0893427062",
        "-.2415859606 .0603964901 / .0225862633 -.1257313029",
        "-.1801200068 .0296635132 / -.0120155725 .0664042764 / .1921355793 -.0960677896",
        ".0270507874 1.0296969703 1.8970892162 / .1704950684 .5629405971 .1029107838 / .3024541442 .9073624326 0",
        ".170827071 -.170827071 0 / -.0839010854 -.1878196566 .271720742"),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_attention_is_what_torch_gives(name):
    options, (Tq, Tk), *expected = TORCH[name]

    def numbers(*shape):
        return (np.arange(math.prod(shape)) * 7.0 % 5 - 2).reshape(shape) / 2

    q, k, v = (Tensor(x, requires_grad=True) for x in (numbers(Tq, 2), numbers(Tk, 2) + 0.25, numbers(Tk, 3) - 0.5))
    y = F.scaled_dot_product_attention(q, k, v, **options)
    found = [y, *grad(y, [q, k, v, *list(options.values())[: len(expected) - 4]], numbers(Tq, 3) + 1)]
    for array, rows in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, [[float(x) for x in row.split()] for row in rows.split("/")], atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_dropout_drops_weights_as_it_drops_ones(causal, masked):
    q, k, v = (leaf(2, 4, 3, seed=i) for i in range(3))
    mask = np.tri(4, dtype=bool) if masked or causal else None

    def attend(rng, p):
        given = (None, p, True) if causal else (mask, p)
        return F.scaled_dot_product_attention(q, k, v, *given, rng=rng).data

    weights = F.scaled_dot_product_attention(q, k, Tensor(np.eye(4)[None].repeat(2, axis=0)), mask).data
    dropped = F.dropout(Tensor(weights), 0.5, rng=Generator(3)).data
    np.testing.assert_allclose(attend(Generator(3), 0.5), dropped @ v.data, rtol=1e-12)
    assert not attend(Generator(3), 1.0).any()
    with pytest.raises(ValueError, match="rng=Generator"):
        attend(None, 0.5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attn_mask": np.array([True]), "is_causal": True}, ValueError, "got is_causal and attn_mask"),
        ({"attn_mask": np.ones((3, 4), int)}, TypeError, "got a mask of int64"),
        ({"attn_mask": np.ones((4, 3), bool)}, ValueError, r"mask \(4, 3\), which must broadcast to \(2, 3, 4\)"),
        ({"attn_mask": np.ones((1, 2, 3, 4), bool)}, ValueError, r"mask \(1, 2, 3, 4\)"),
        ({"dropout_p": 1.5, "rng": Generator(0)}, ValueError, r"p must lie in \[0, 1\]"),
    ],
)
def test_attention_says_what_is_wrong_with_its_options(options, error, message):
    with pytest.raises(error, match=message):
        F.scaled_dot_product_attention(leaf(2, 3, 5), leaf(2, 4, 5), leaf(2, 4, 6), **options)


def test_nothing_flows_from_the_future():
    q, k, v = (leaf(5, 3, seed=i) for i in range(3))
    for t in range(5):
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)[t].sum()
        for d in grad(y, [k, v]):
            assert not d[t + 1 :].any()  # exactly 0
            assert d[: t + 1].any() or t == 0


def test_a_bias_of_all_keys_has_no_gradient():
    """It adds the same number to every score of a query, and the softmax ignores that."""
    q, k, v = (leaf(5, 3, seed=i) for i in range(3))
    bias = leaf(3, seed=3)
    y = F.scaled_dot_product_attention(q, k + bias, v, is_causal=True)
    (d,) = grad(y, [bias], np.random.default_rng(4).standard_normal((5, 3)))
    np.testing.assert_allclose(d, 0, atol=1e-14)


def test_causal_self_attention_is_attention_of_its_thirds():
    qkv = leaf(2, 4, 18)
    y = F.causal_self_attention(qkv, 3)
    earlier = np.broadcast_to(np.tri(4, dtype=bool), (2, 4, 4))
    for h in range(3):
        q, k, v = (qkv.data[..., i * 6 + h * 2 : i * 6 + h * 2 + 2] for i in range(3))
        np.testing.assert_allclose(
            y.data[..., 2 * h : 2 * h + 2],
            attention_by_hand(q, k, v, earlier),
            rtol=1e-12,
        )


def test_causal_self_attention_dropout():
    qkv = leaf(2, 4, 18)
    a, b = (F.causal_self_attention(qkv, 3, 0.4, Generator(0)).data for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, F.causal_self_attention(qkv, 3).data)
    with pytest.raises(ValueError, match="rng=Generator"):
        F.causal_self_attention(qkv, 3, 0.4)


@pytest.mark.parametrize("name", F.__all__)
def test_every_docstring_gives_shapes_and_results(name):
    doc = getattr(F, name).__doc__
    assert "Args:" in doc
    assert "Returns:" in doc
