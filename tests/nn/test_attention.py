"""The attention staircase: each step equal to the next, and no use of later positions.

The numbers that the book prints are facts of `study/book/ch03.py`, which tests/study/test_book.py checks.
"""

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
