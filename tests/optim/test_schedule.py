"""The learning rate of every step: the formulas, the peak, the last step, and the order between them."""

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.optim import SCHEDULES, constant, inverse_sqrt, warmup_cosine, warmup_linear

lengths = st.tuples(st.integers(2, 90), st.integers(0, 90)).map(lambda pair: (sum(pair), pair[1]))
rates = st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted)
every_schedule = pytest.mark.parametrize("f", SCHEDULES.values(), ids=SCHEDULES)
ending = {name: f for name, f in SCHEDULES.items() if f is not inverse_sqrt}  # at the floor, at the last step
every_ending_schedule = pytest.mark.parametrize("f", ending.values(), ids=ending)


def schedule(steps, warmup, lr, min_lr, f=warmup_cosine):
    return [f(step, steps=steps, lr=lr, min_lr=min_lr, warmup=warmup) for step in range(steps)]


def test_schedules_are_found_by_name():
    names = {"cosine": warmup_cosine, "linear": warmup_linear, "constant": constant, "inverse_sqrt": inverse_sqrt}
    assert names == SCHEDULES


def test_short_schedules_equal_those_computed_by_hand():
    expected = [0.25, 0.5, 0.75, 1.0, 1.0]
    expected += [0.1 + 0.9 * (1 + math.cos(math.pi * k / 5)) / 2 for k in range(1, 6)]
    assert schedule(10, 4, 1.0, 0.1) == pytest.approx(expected, rel=1e-14)
    assert schedule(5, 0, 2.0, 0.0) == pytest.approx([2, 1 + math.sqrt(0.5), 1, 1 - math.sqrt(0.5), 0], abs=1e-15)
    assert schedule(8, 2, 1.0, 0.5, warmup_linear) == pytest.approx([0.5, 1, 1, 0.9, 0.8, 0.7, 0.6, 0.5], rel=1e-15)
    assert schedule(6, 4, 2.0, 0.5, constant) == [0.5, 1, 1.5, 2, 2, 2]


def test_the_cosine_gives_the_numbers_of_the_books_appendix():
    # apD-01: 135 steps, 27 of them warm-up. The book's cosine reaches its end one step after the last, hence 136 here.
    rate = [warmup_cosine(step, steps=136, lr=0.01, min_lr=1e-5, warmup=27) for step in range(135)]
    assert [rate[27], rate[81], rate[134]] == pytest.approx([0.01, 5.005e-3, 1.2113e-5], abs=1e-9)


@given(lengths, rates)
def test_the_cosine_follows_its_formula(lengths, rates):
    (steps, warmup), (min_lr, lr) = lengths, rates
    # Chebyshev's recurrence computes cos πx from step to step, with one call of cos.
    once = math.cos(math.pi / (steps - 1 - warmup))
    wave = [1.0, once]
    while len(wave) < steps - warmup:
        wave.append(2 * once * wave[-1] - wave[-2])
    expected = [lr * (k + 1) / warmup for k in range(warmup)] + [
        (lr + min_lr) / 2 + (lr - min_lr) / 2 * c for c in wave
    ]
    assert schedule(steps, warmup, lr, min_lr) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(lengths, rates)
def test_linear_and_constant_follow_their_formulas(lengths, rates):
    (steps, warmup), (min_lr, lr) = lengths, rates
    up = [Fraction(lr) * (k + 1) / warmup for k in range(warmup)]
    fall = (Fraction(lr) - Fraction(min_lr)) / (steps - 1 - warmup)
    expected = [*up, *(Fraction(lr) - fall * k for k in range(steps - warmup))]
    found = schedule(steps, warmup, lr, min_lr, warmup_linear)
    assert found == pytest.approx([float(rate) for rate in expected], rel=1e-13, abs=1e-300)
    expected = [*map(float, up), *[lr] * (steps - warmup)]
    assert schedule(steps, warmup, lr, min_lr, constant) == pytest.approx(expected, rel=1e-14, abs=1e-300)


@every_ending_schedule
@given(lengths=lengths, rates=rates)
def test_a_schedule_climbs_to_the_peak_and_falls_to_the_floor(f, lengths, rates):
    (steps, warmup), (min_lr, lr) = lengths, rates
    rate = schedule(steps, warmup, lr, min_lr, f)
    up, down = rate[:warmup], rate[warmup:]
    assert all(a <= b for a, b in pairwise(up))
    assert all(a >= b - 1e-15 for a, b in pairwise(down))
    # The last warm-up step and the step after it are at the peak.
    assert [*up[-1:], down[0]] == pytest.approx([lr] * (1 + bool(up)), rel=1e-14)
    floor = lr if f is constant else min_lr
    assert down[-1] == pytest.approx(floor, rel=1e-12, abs=1e-15)
    # The descent is symmetric about its middle.
    assert [a + b for a, b in zip(down, down[::-1], strict=True)] == pytest.approx([lr + floor] * len(down))


@every_schedule
@given(steps=st.integers(50, 300), warmup=st.integers(10, 40), rates=rates)
def test_no_change_from_step_to_step_exceeds_the_slope(f, steps, warmup, rates):
    """A cosine is at most π/2 times as steep as the straight line."""
    min_lr, lr = rates
    rate = schedule(steps + warmup, warmup, lr, min_lr, f)
    min_lr = 0.0 if f is inverse_sqrt else min_lr
    steepest = max(lr / warmup, math.pi / 2 * (lr - min_lr) / (steps - 1))
    assert max(abs(a - b) for a, b in pairwise([0.0, *rate])) <= steepest * (1 + 1e-12) + 1e-15


@every_ending_schedule
@given(lengths=lengths, rates=rates, more=st.integers(0, 50))
def test_steps_after_the_last_are_at_the_floor(f, lengths, rates, more):
    (steps, warmup), (min_lr, lr) = lengths, rates
    after = f(steps + more, steps=steps, lr=lr, min_lr=min_lr, warmup=warmup)
    assert after == (lr if f is constant else min_lr)


@every_schedule
@pytest.mark.parametrize("steps", [1, 3, 4])
def test_a_run_within_the_warm_up_only_climbs(f, steps):
    assert schedule(steps, 4, 1.0, 0.1, f) == [0.25, 0.5, 0.75, 1.0][:steps]


@every_ending_schedule
def test_a_single_step_after_the_warm_up_is_at_the_peak(f):
    assert schedule(1, 0, 1.0, 0.1, f) == [1.0]
    assert schedule(3, 2, 1.0, 0.1, f) == [0.5, 1.0, 1.0]


@every_ending_schedule
def test_the_defaults_are_a_floor_of_0_and_no_warm_up(f):
    assert f(0, steps=3, lr=1.0) == 1.0
    assert f(2, steps=3, lr=1.0) == (1.0 if f is constant else 0.0)


def test_each_schedule_climbs_only_where_it_is_told_to():
    for f in SCHEDULES.values():
        assert f(0, steps=9, lr=1.0) == 1.0
        assert f(0, steps=9, lr=1.0, warmup=4) == 0.25


@given(lengths, st.integers(1, 1024), st.integers(1, 500))
def test_the_inverse_square_root_is_the_papers_schedule(lengths, d, w):
    steps, _ = lengths
    lr = (d * w) ** -0.5
    expected = [d**-0.5 * min(s**-0.5, s * w**-1.5) for s in range(1, steps + 1)]
    assert schedule(steps, w, lr, 0.1, inverse_sqrt) == pytest.approx(expected, rel=1e-12)
    assert inverse_sqrt(3, steps=9, lr=2.0) == 1.0
