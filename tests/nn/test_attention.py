"""The attention staircase: the book's printed numbers, each step equal to the next, and no use of later positions."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import Tensor, grad
from tinygrad_llm import functional as F
from tinygrad_llm.nn import (
    CausalAttention,
    MultiHeadAttention,
    MultiHeadAttentionWrapper,
    MultiHeadWrapper,
    SelfAttention,
    simple_self_attention,
)
from tinygrad_llm.random import Generator

PRINTED = 5e-5  # half a unit of the fourth printed digit


def numbers(text):
    """Rows of printed numbers, separated by slashes."""
    return np.array([[float(word) for word in row.split()] for row in text.replace("−", "-").split("/")])


# The book's six tokens.
X = numbers(".43 .15 .89 / .55 .87 .66 / .57 .85 .64 / .22 .58 .33 / .77 .25 .10 / .05 .80 .55").astype(np.float32)

# ch03-14: the causal weights of seed 789.
CAUSAL_WEIGHTS = numbers(
    "1 0 0 0 0 0 / .5517 .4483 0 0 0 0 / .3800 .3097 .3103 0 0 0 / .2758 .2460 .2462 .2319 0 0"
    "/ .2175 .1983 .1984 .1888 .1971 0 / .1935 .1663 .1666 .1542 .1666 .1529"
)
HEAD_1 = numbers(
    "−.4519 .2216 / −.5874 .0058 / −.6300 −.0632 / −.5675 −.0843 / −.5526 −.0981 / −.5299 −.1081"
)  # ch03-18
HEAD_2 = numbers(".4772 .1063 / .5891 .3257 / .6202 .3860 / .5478 .3589 / .5321 .3428 / .5077 .3493")  # ch03-19

STEPS = {
    "causal": lambda rng: CausalAttention(6, 6, 8, 0.0, True, rng=rng),
    "wrapper": lambda rng: MultiHeadWrapper(6, 3, 8, 0.0, 2, True, rng=rng),
    "multi-head": lambda rng: MultiHeadAttention(6, 2, rng=rng),
}


def randn(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


def attention_weights(attention, x):
    """The weights, which the modules do not return."""
    ahead = ~np.tri(len(x), dtype=bool)
    return attention.scores(Tensor(x)).masked_fill(ahead, -math.inf).softmax(-1)


def oracle(x, w_attn, b_attn, w_proj, b_proj, n_head):
    """Multi-head causal attention, with a loop over texts, queries, heads and keys."""
    batch, time, channels = x.shape
    size = channels // n_head
    out = np.zeros_like(x)
    for b in range(batch):
        qkv = [w_attn @ x[b, t] + b_attn for t in range(time)]
        for h in range(n_head):
            part = slice(h * size, (h + 1) * size)
            for t in range(time):
                query = qkv[t][:channels][part]
                similarity = [
                    math.exp(sum(query * qkv[s][channels : 2 * channels][part]) / math.sqrt(size)) for s in range(t + 1)
                ]
                for s in range(t + 1):
                    out[b, t, part] += similarity[s] / sum(similarity) * qkv[s][2 * channels :][part]
    return np.array([[w_proj @ row + b_proj for row in item] for item in out])


# ---- published numbers -------------------------------------------------------------------------------------------


def test_simple_attention_gives_the_numbers_that_the_book_prints():
    x = Tensor(X)
    weights = numbers(
        ".2098 .2006 .1981 .1242 .1220 .1452 / .1385 .2379 .2333 .1240 .1082 .1581"
        "/ .1390 .2369 .2326 .1242 .1108 .1565 / .1435 .2074 .2046 .1462 .1263 .1720"
        "/ .1526 .1958 .1975 .1367 .1879 .1295 / .1385 .2184 .2128 .1420 .0988 .1896"
    )  # ch03-06
    context = numbers(
        ".4421 .5931 .5790 / .4419 .6515 .5683 / .4431 .6496 .5671 / .4304 .6298 .5510 / .4671 .5910 .5266"
        "/ .4177 .6503 .5645"
    )  # ch03-07
    np.testing.assert_allclose((x @ x.mT).softmax(-1), weights, rtol=0, atol=PRINTED)
    np.testing.assert_allclose(simple_self_attention(x), context, rtol=0, atol=PRINTED)


def test_self_attention_with_uniform_weights_gives_the_numbers_that_the_book_prints():
    rng = Generator(123)
    attention = SelfAttention(3, 2, rng=Generator(0))
    for linear in (attention.W_query, attention.W_key, attention.W_value):
        linear.weight.data = rng.rand((3, 2)).T
    expected = ".2996 .8053 / .3061 .8210 / .3058 .8203 / .2948 .7939 / .2927 .7891 / .2990 .8040"  # ch03-11
    np.testing.assert_allclose(attention(Tensor(X)).data, numbers(expected), rtol=0, atol=PRINTED)


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        # ch03-12 and ch03-22
        (789, "−.0739 .0713 / −.0748 .0703 / −.0749 .0702 / −.0760 .0685 / −.0763 .0679 / −.0754 .0693"),
        (123, "−.5337 −.1051 / −.5323 −.1080 / −.5323 −.1079 / −.5297 −.1076 / −.5311 −.1066 / −.5299 −.1081"),
    ],
)
def test_self_attention_gives_the_numbers_that_the_book_prints(seed, expected):
    attention = SelfAttention(3, 2, rng=Generator(seed))
    np.testing.assert_allclose(attention(Tensor(X)).data, numbers(expected), rtol=0, atol=PRINTED)


def test_causal_weights_are_those_of_the_book_in_both_ways():
    attention = CausalAttention(3, 2, 6, 0.0, rng=Generator(789))
    raw = numbers(
        ".2899 0 0 0 0 0 / .4656 .1723 0 0 0 0 / .4594 .1703 .1731 0 0 0 / .2642 .1024 .1036 .0186 0 0"
        "/ .2183 .0874 .0882 .0177 .0786 0 / .3408 .1270 .1290 .0198 .1290 .0078"
    )  # ch03-15
    scores = attention.scores(Tensor(X)).data
    np.testing.assert_allclose(np.tril(scores) * math.sqrt(2), raw, rtol=0, atol=PRINTED)
    np.testing.assert_allclose(attention_weights(attention, X).data, CAUSAL_WEIGHTS, rtol=0, atol=PRINTED)
    # The first way of the book: a softmax of all scores, cut to the triangle and divided by its row sums.
    cut = np.tril(Tensor(scores).softmax(-1).data)
    np.testing.assert_allclose(cut / cut.sum(-1, keepdims=True), CAUSAL_WEIGHTS, rtol=0, atol=PRINTED)


def test_causal_weights_after_dropout_are_those_of_the_book():
    weights = attention_weights(CausalAttention(3, 2, 6, 0.0, rng=Generator(789)), X)
    expected = numbers(
        "2 0 0 0 0 0 / 0 0 0 0 0 0 / .7599 .6194 .6206 0 0 0 / 0 .4921 .4925 0 0 0 / 0 .3966 0 .3775 0 0"
        "/ 0 .3327 .3331 .3084 .3331 0"
    )  # ch03-17
    np.testing.assert_allclose(F.dropout(weights, 0.5, True, Generator(123)).data, expected, rtol=0, atol=PRINTED)


def test_causal_attention_gives_the_numbers_that_the_book_prints():
    attention = CausalAttention(3, 2, 6, 0.0, rng=Generator(123))
    y = attention(Tensor(np.stack([X, X])))
    assert y.shape == (2, 6, 2)
    np.testing.assert_allclose(y.data, np.stack([HEAD_1, HEAD_1]), rtol=0, atol=PRINTED)


def test_two_heads_give_the_numbers_that_the_book_prints():
    y = MultiHeadWrapper(3, 2, 6, 0.0, 2, rng=Generator(123))(Tensor(np.stack([X, X])))
    assert y.shape == (2, 6, 4)
    expected = np.concatenate([HEAD_1, HEAD_2], axis=-1)
    np.testing.assert_allclose(y.data, np.stack([expected, expected]), rtol=0, atol=PRINTED)


# ---- each step is the next ---------------------------------------------------------------------------------------


def test_self_attention_with_identity_projections_equals_simple_attention():
    x = randn(2, 5, 4)
    attention = SelfAttention(4, 4, rng=Generator(0)).to(np.float64)
    attention.W_query.weight.data = np.eye(4) * 2  # √d_out undoes the scaling
    attention.W_key.weight.data = attention.W_value.weight.data = np.eye(4)
    np.testing.assert_allclose(attention(Tensor(x)).data, simple_self_attention(Tensor(x)).data.data, rtol=1e-13)


def test_the_last_position_of_causal_attention_equals_that_of_self_attention():
    x = Tensor(randn(2, 5, 4))
    plain = SelfAttention(4, 3, True, rng=Generator(7)).to(np.float64)
    causal = CausalAttention(4, 3, 5, 0.0, True, rng=Generator(7)).to(np.float64)
    np.testing.assert_allclose(causal(x)[:, -1].data, plain(x)[:, -1].data, rtol=1e-13)
    assert not np.allclose(causal(x)[:, 0].data, plain(x)[:, 0].data)


def test_the_first_position_of_causal_attention_is_its_own_value():
    x = Tensor(randn(2, 5, 4))
    causal = CausalAttention(4, 3, 5, 0.0, rng=Generator(7)).to(np.float64)
    np.testing.assert_allclose(causal(x)[:, 0].data, causal.W_value(x)[:, 0].data, rtol=1e-13)


def test_causal_attention_of_one_position_equals_self_attention():
    x = Tensor(randn(3, 1, 4))
    plain = SelfAttention(4, 3, rng=Generator(7)).to(np.float64)
    causal = CausalAttention(4, 3, 5, 0.0, rng=Generator(7)).to(np.float64)
    np.testing.assert_array_equal(causal(x).data, plain(x).data)


@pytest.mark.parametrize("step", [CausalAttention, lambda *a, **k: MultiHeadAttention(4, 2, a[3], rng=k["rng"])])
def test_no_dropout_happens_with_p_0_or_after_eval(step):
    x = Tensor(randn(2, 5, 4))
    rng = Generator(7)
    dropping = step(4, 4, 5, 0.5, rng=rng).to(np.float64)
    plain = step(4, 4, 5, 0.0, rng=Generator(7)).to(np.float64)
    assert not np.allclose(dropping(x).data, plain(x).data)
    dropping.eval()
    rng.manual_seed(0)
    np.testing.assert_array_equal(dropping(x).data, plain(x).data)
    np.testing.assert_array_equal(rng.rand(4), Generator(0).rand(4))  # so nothing was drawn


def test_causal_dropout_sets_weights_to_0_and_scales_the_others():
    x = randn(5, 4)
    rng = Generator(7)
    attention = CausalAttention(4, 3, 5, 0.25, rng=rng).to(np.float64)
    rng.manual_seed(99)
    keep = Generator(99).bernoulli_keep(0.25, (5, 5))
    assert not keep.all()
    weights = attention_weights(attention, x).data * keep / 0.75
    np.testing.assert_allclose(attention(Tensor(x)).data, weights @ attention.W_value(Tensor(x)).data, rtol=1e-12)


def test_multi_head_dropout_acts_on_the_weights_and_on_the_output():
    x = Tensor(randn(2, 5, 4))
    rng = Generator(7)
    attention = MultiHeadAttention(4, 2, 0.25, rng=rng).to(np.float64)
    rng.manual_seed(99)
    y = attention(x)
    rng.manual_seed(99)
    q, k, v = attention.c_attn(x).reshape(2, 5, 3, 2, 2).permute(2, 0, 3, 1, 4)
    ahead = ~np.tri(5, dtype=bool)
    weights = (q @ k.mT * (1 / math.sqrt(2))).masked_fill(ahead, -math.inf).softmax(-1)
    context = F.dropout(weights, 0.25, True, rng) @ v
    expected = F.dropout(attention.c_proj(context.transpose(1, 2).reshape(2, 5, 4)), 0.25, True, rng)
    np.testing.assert_allclose(y.data, expected.data, rtol=1e-12)


def test_the_wrapper_concatenates_its_heads():
    x = Tensor(randn(2, 5, 4))
    wrapper = MultiHeadWrapper(4, 3, 5, 0.0, 2, rng=Generator(7)).to(np.float64)
    rng = Generator(7)
    heads = [CausalAttention(4, 3, 5, 0.0, rng=rng).to(np.float64) for _ in range(2)]
    np.testing.assert_array_equal(wrapper(x).data, np.concatenate([head(x).data for head in heads], axis=-1))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("d_in", [6, 4])
def test_the_wrapper_as_one_module_gives_the_same_values_and_gradients(bias, d_in):
    x = randn(2, 5, d_in)
    wrapper = MultiHeadWrapper(d_in, 2, 5, 0.0, 3, bias, rng=Generator(7)).to(np.float64)
    attention = wrapper.as_multi_head(rng=Generator(0))
    assert (attention.c_attn.bias is not None) == bias
    np.testing.assert_allclose(attention(Tensor(x)).data, wrapper(Tensor(x)).data, rtol=1e-12)
    # Gradients too: of the input, and of every head's matrices.
    xs = [Tensor(x, requires_grad=True) for _ in range(2)]
    weight = randn(2, 5, 6, seed=1)
    (attention(xs[0]) * weight).sum().backward()
    (wrapper(xs[1]) * weight).sum().backward()
    np.testing.assert_allclose(xs[0].grad, xs[1].grad, rtol=1e-11)
    names = ("W_query", "W_key", "W_value")
    stacked = np.concatenate([getattr(head, name).weight.grad for name in names for head in wrapper.heads])
    np.testing.assert_allclose(attention.c_attn.weight.grad, stacked, rtol=1e-11, atol=1e-15)


def test_the_wrapper_as_one_module_keeps_its_dropout():
    assert MultiHeadWrapper(6, 2, 5, 0.3, 3, rng=Generator(7)).as_multi_head(rng=Generator(0)).attn_dropout.p == 0.3


@given(batch=st.integers(1, 3), time=st.integers(1, 6), n_head=st.integers(1, 3), size=st.integers(1, 3))
def test_multi_head_attention_equals_the_loop(batch, time, n_head, size):
    channels = n_head * size
    attention = MultiHeadAttention(channels, n_head, rng=Generator(1)).to(np.float64)
    x = randn(batch, time, channels, seed=time)
    parameters = [p.data for p in attention.parameters()]
    np.testing.assert_allclose(attention(Tensor(x)).data, oracle(x, *parameters, n_head), rtol=1e-11, atol=1e-14)


def test_multi_head_attention_without_bias_equals_a_bias_of_0():
    x = randn(2, 4, 6)
    attention = MultiHeadAttention(6, 2, qkv_bias=False, rng=Generator(1)).to(np.float64)
    w_attn, w_proj, b_proj = (p.data for p in attention.parameters())
    np.testing.assert_allclose(
        attention(Tensor(x)).data, oracle(x, w_attn, np.zeros(18), w_proj, b_proj, 2), rtol=1e-11
    )


def test_the_books_positional_calls_mean_what_they_mean_in_the_book():
    wrapper = MultiHeadAttentionWrapper(3, 2, 6, 0.1, 2, True, rng=Generator(0))  # context_length, dropout, num_heads
    assert [head.W_key.weight.shape for head in wrapper.heads] == [(2, 3)] * 2
    assert [head.dropout.p for head in wrapper.heads] == [0.1] * 2
    assert [head.context_length for head in wrapper.heads] == [6] * 2
    assert wrapper.heads[0].W_query.bias is not None
    named = CausalAttention(d_in=3, d_out=2, context_length=6, dropout=0.0, rng=Generator(0))
    for step in (wrapper.eval(), named):
        with pytest.raises(ValueError, match="CausalAttention: got 7 positions, more than context_length 6"):
            step(Tensor(randn(2, 7, 3)))


def test_inputs_of_another_rank_are_named():
    for fused in (True, False):
        with pytest.raises(ValueError, match=r"MultiHeadAttention: got x \(3, 8\), which must be \(B, T, C\)"):
            MultiHeadAttention(8, 2, rng=Generator(0))(Tensor(randn(3, 8)), fused=fused)
    for step in (SelfAttention(8, 2, rng=Generator(0)), CausalAttention(8, 2, 4, 0.0, rng=Generator(0))):
        with pytest.raises(ValueError, match=rf"{type(step).__name__}: got x \(8,\), which must be \(B, T, C\) or"):
            step(Tensor(randn(8)))
    with pytest.raises(ValueError, match=r"simple_self_attention: got x \(8,\), which must be"):
        simple_self_attention(Tensor(randn(8)))


@pytest.mark.parametrize(("n_embd", "n_head"), [(6, 4), (6, 0), (6, -2), (2, 4), (0, 2)])
def test_heads_must_divide_the_channels(n_embd, n_head):
    with pytest.raises(ValueError, match=rf"n_embd \({n_embd}\) must be a multiple of n_head \({n_head}\)"):
        MultiHeadAttention(n_embd, n_head, rng=Generator(0))


# ---- later positions ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", STEPS)
@given(time=st.integers(2, 7), data=st.data())
def test_no_output_depends_on_later_positions(step, time, data):
    t = data.draw(st.integers(0, time - 1))
    attention = STEPS[step](Generator(3))
    before = randn(2, time, 6).astype(np.float32)
    after = before.copy()
    after[:, t] += 1
    y, changed = attention(Tensor(before)).data, attention(Tensor(after)).data
    assert y[:, :t].tobytes() == changed[:, :t].tobytes()
    assert (y[:, t:] != changed[:, t:]).any(axis=(0, 2)).all()

    x = Tensor(before, requires_grad=True)
    (dx,) = grad(attention(x)[:, t].sum(), [x])
    assert not dx[:, t + 1 :].any()
    assert dx[:, : t + 1].any(axis=(0, 2)).all()
