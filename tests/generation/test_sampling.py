"""Choosing the next token: the book's counts, and the laws of temperature, top-k and top-p."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.generation import Sampling, next_token_probs
from tinygrad_llm.generation.sampling import choose
from tinygrad_llm.random import Generator

# Eighths, because differences between them are exact: a larger logit stays larger.
logit_rows = st.lists(st.integers(-240, 240), min_size=1, max_size=12).map(lambda row: np.array([row]) / 8)
temperatures = st.floats(0.1, 10)


@given(logit_rows, temperatures)
def test_probs_without_limits_are_the_softmax(logits, temperature):
    probs = next_token_probs(logits, Sampling(temperature))
    terms = [math.exp((v - logits.max()) / temperature) for v in logits[0]]
    assert probs.dtype == np.float64
    np.testing.assert_allclose(probs, [[term / math.fsum(terms) for term in terms]], rtol=1e-12, atol=0)


@given(logit_rows, temperatures, st.integers(1, 14))
def test_top_k_keeps_the_k_likeliest_and_their_equals(logits, temperature, k):
    probs = next_token_probs(logits, Sampling(temperature, top_k=k))[0]
    free = next_token_probs(logits, Sampling(temperature))[0]
    kth = sorted(logits[0], reverse=True)[min(k, logits.size) - 1]
    assert_limited(probs, free, logits[0] >= kth)


@given(logit_rows, temperatures, st.floats(0.01, 1))
def test_top_p_keeps_the_fewest_that_reach_p(logits, temperature, p):
    probs = next_token_probs(logits, Sampling(temperature, top_p=p))[0]
    free = next_token_probs(logits, Sampling(temperature))[0]
    kept = probs > 0
    assert kept.any()
    # Rounding may change whether a sum that equals p reaches it.
    assert free[kept].sum() >= p - 1e-12
    if p < 1:
        assert free[kept].sum() - free[kept].min() < p + 1e-12
    if not kept.all():
        assert free[kept].min() >= free[~kept].max()
    assert_limited(probs, free, kept)


def assert_limited(probs, free, kept):
    """Exactly the kept tokens are possible, in the proportions of `free`, and they sum to 1."""
    np.testing.assert_array_equal(probs > 0, kept & (free > 0))
    assert math.fsum(probs) == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(probs[kept] * free[kept].sum(), free[kept], rtol=1e-11)


def test_top_p_by_hand_where_sums_are_exact():
    probs = [0.5, 0.25, 0.125, 0.0625, 0.0625]
    logits = np.log([probs])
    for p, kept in [(0.4, 1), (0.5, 1), (0.6, 2), (0.75, 2), (0.76, 3), (0.9, 4), (0.99, 5), (1.0, 5)]:
        assert np.count_nonzero(next_token_probs(logits, Sampling(top_p=p))) == kept, p
    # Of equal tokens, the first is kept; the order of the row does not matter otherwise.
    assert next_token_probs(np.zeros((1, 4)), Sampling(top_p=0.5)).tolist() == [[0.5, 0.5, 0, 0]]
    np.testing.assert_allclose(
        next_token_probs(logits[:, ::-1], Sampling(top_p=0.7)), [[0, 0, 0, 1 / 3, 2 / 3]], rtol=1e-12
    )


@given(logit_rows, temperatures, st.integers(1, 14), st.floats(0.01, 1))
def test_top_p_comes_after_top_k(logits, temperature, k, p):
    both = next_token_probs(logits, Sampling(temperature, k, p))
    limited = next_token_probs(logits, Sampling(temperature, k))
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(
            both, next_token_probs(np.log(limited), Sampling(1.0, None, p)), rtol=1e-11, atol=1e-300
        )


@given(logit_rows)
def test_temperature_0_leaves_the_first_of_the_likeliest(logits):
    expected = np.zeros_like(logits)
    expected[0, logits[0].tolist().index(logits.max())] = 1
    np.testing.assert_array_equal(next_token_probs(logits, Sampling(0)), expected)
    np.testing.assert_array_equal(next_token_probs(logits, Sampling(0.0, 5, 0.3)), expected)
    (chosen,) = choose(logits, Sampling(0.0), Generator(0))
    assert expected[0, chosen] == 1


@given(st.lists(st.integers(-40, 40), min_size=2, max_size=8, unique=True))
def test_low_temperature_comes_close_to_0(logits):
    row = np.array([logits], np.float64)
    np.testing.assert_allclose(next_token_probs(row, Sampling(0.02)), next_token_probs(row, Sampling(0)), atol=1e-12)


def test_rows_are_independent_and_logits_unchanged():
    logits = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    before = logits.copy()
    for arguments in [(0,), (0.7,), (0.7, 3), (1.3, None, 0.6), (1.3, 5, 0.6)]:
        rows = [next_token_probs(row[None], Sampling(*arguments))[0] for row in logits]
        np.testing.assert_array_equal(next_token_probs(logits, Sampling(*arguments)), rows)
    np.testing.assert_array_equal(logits, before)


def test_large_logits_do_not_overflow():
    np.testing.assert_array_equal(next_token_probs(np.array([[3e38, -3e38]], np.float32), Sampling(0.5)), [[1, 0]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_logits_that_are_nan_or_infinite_are_refused(bad, temperature):
    with pytest.raises(ValueError, match="scores are NaN or infinite"):
        next_token_probs(np.array([[1.0, bad]]), Sampling(temperature))
    with pytest.raises(ValueError, match="scores are NaN or infinite"):
        choose(np.array([[1.0, bad]]), Sampling(temperature), Generator(0))
    assert next_token_probs(np.array([[1.0, -np.inf]]), Sampling(temperature)).tolist() == [[1, 0]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -0.1}, "temperature must be ≥ 0, got -0.1"),
        ({"temperature": math.nan}, "temperature must be ≥ 0, got nan"),
        ({"top_k": 0}, "top_k must be ≥ 1, got 0"),
        ({"top_k": -3}, "top_k must be ≥ 1, got -3"),
        ({"top_k": 1.5}, "top_k must be an integer, got 1.5"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, r"top_p must lie in \(0, 1\], got 1.1"),
        ({"top_p": math.nan}, r"top_p must lie in \(0, 1\], got nan"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**arguments)


# ---- penalties and forbidden tokens ----------------------------------------------------------------------------------


def test_the_penalty_lowers_the_tokens_of_each_row_alone():
    """Keskar et al.: a logit above 0 is divided, one below 0 multiplied."""
    logits = np.array([[2.0, -2.0, 3.0], [2.0, -2.0, 3.0]])
    before = logits.copy()
    found = Sampling(repetition_penalty=2.0).adjusted(logits, [np.array([0, 1, 1]), np.array([2])])
    np.testing.assert_array_equal(found, [[1.0, -4.0, 3.0], [2.0, -2.0, 1.5]])
    np.testing.assert_array_equal(logits, before)


def test_ids_without_a_logit_get_no_penalty():
    found = Sampling(repetition_penalty=2.0).adjusted(np.array([[2.0, 4.0]]), [np.array([1, 7])])
    np.testing.assert_array_equal(found, [[2.0, 2.0]])


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_forbidden_tokens_are_never_chosen(temperature):
    sampling = Sampling(temperature, forbidden=(0, 2, 9))
    logits = sampling.adjusted(np.array([[9.0, 1.0, 8.0, 0.0]] * 50), [np.array([0])] * 50)
    assert set(choose(logits, sampling, Generator(0)).tolist()) <= {1, 3}
    assert next_token_probs(logits, sampling)[:, [0, 2]].max() == 0


def test_a_text_needs_a_token_that_is_not_forbidden():
    with pytest.raises(ValueError, match="every one of the 2 tokens is forbidden"):
        Sampling(forbidden=(0, 1)).adjusted(np.zeros((1, 2)), [np.array([0])])


def test_without_penalty_and_forbidden_tokens_the_logits_are_the_same_array():
    logits = np.zeros((1, 2))
    assert Sampling().adjusted(logits, [np.array([0])]) is logits


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"repetition_penalty": 0.0}, "repetition_penalty must be finite and above 0, got 0.0"),
        ({"repetition_penalty": float("nan")}, "repetition_penalty must be finite and above 0, got nan"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty must be finite and above 0, got inf"),
        ({"forbidden": (-1,)}, r"forbidden must be ids ≥ 0, got \(-1,\)"),
        ({"forbidden": ("a",)}, r"forbidden must be ids ≥ 0, got \('a',\)"),
    ],
)
def test_penalties_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Sampling(**options)
