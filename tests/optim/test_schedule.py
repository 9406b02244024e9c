"""The learning rate of every step: formulas, ends and order."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.optim import warmup_cosine

lengths = st.tuples(st.integers(2, 300), st.integers(0, 300)).map(lambda pair: (sum(pair), pair[1]))
rates = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)


def schedule(steps, warmup, lr, min_lr):
    return [warmup_cosine(step, steps=steps, lr=lr, min_lr=min_lr, warmup=warmup) for step in range(steps)]


def test_ten_steps_by_hand():
    expected = [0.25, 0.5, 0.75, 1.0, 1.0]
    expected += [0.1 + 0.9 * (1 + math.cos(math.pi * k / 5)) / 2 for k in range(1, 6)]
    assert schedule(10, 4, 1.0, 0.1) == pytest.approx(expected, rel=1e-14)
    assert schedule(5, 0, 2.0, 0.0) == pytest.approx([2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5), 0], abs=1e-15)


def test_the_descent_of_the_books_appendix():
    # apD-01: 135 steps, 27 of them warm-up. The book's cosine ends one step after the last; one step more here.
    rate = [warmup_cosine(step, steps=136, lr=0.01, min_lr=1e-5, warmup=27) for step in range(135)]
    assert [rate[27], rate[81], rate[134]] == pytest.approx([0.01, 5.005e-3, 1.2113e-5], abs=1e-9)


@given(lengths, rates)
def test_up_to_the_peak_and_down_to_the_floor(lengths, rates):
    (steps, warmup), (min_lr, lr) = lengths, rates
    rate = schedule(steps, warmup, lr, min_lr)
    up, down = rate[:warmup], rate[warmup:]
    assert all(a <= b for a, b in pairwise(up))
    assert all(a >= b for a, b in pairwise(down))
    assert up == pytest.approx([lr * (k + 1) / warmup for k in range(warmup)])
    assert [*up[-1:], down[0]] == pytest.approx([lr] * (1 + bool(up)), rel=1e-14)
    assert down[-1] == pytest.approx(min_lr, rel=1e-12, abs=1e-15)
    # A cosine falls as far below its middle as above it.
    assert [a + b for a, b in zip(down, down[::-1], strict=True)] == pytest.approx([lr + min_lr] * len(down))


@given(lengths, rates, st.integers(0, 50))
def test_after_the_last_step_the_floor(lengths, rates, more):
    (steps, warmup), (min_lr, lr) = lengths, rates
    assert warmup_cosine(steps + more, steps=steps, lr=lr, min_lr=min_lr, warmup=warmup) == min_lr


@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_run_no_longer_than_the_warm_up_only_climbs(steps):
    assert schedule(steps, 4, 1.0, 0.1) == [0.25, 0.5, 0.75, 1.0][:steps]


def test_the_only_step_that_is_no_warm_up_is_taken_at_the_peak():
    assert schedule(1, 0, 1.0, 0.1) == [1.0]
    assert schedule(3, 2, 1.0, 0.1) == [0.5, 1.0, 1.0]
