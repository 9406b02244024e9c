"""Batches of padded texts."""

import collections
import json

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tinygrad_llm.random import Generator
from tinygrad_llm.training.padded import PaddedExamples, in_batches, pad


def texts(lengths):
    """One text for each length; the id of every token is the number of the text."""
    rows = [[i] * length for i, length in enumerate(lengths)]
    return {"ids": pad(rows, -1), "lengths": np.array(lengths), "number": np.arange(len(lengths))}


LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=40)


def test_rows_of_other_things_than_integers_are_refused():
    for wrong in ([[1], [1.7]], [["1"]], [np.array([True])]):
        with pytest.raises(ValueError, match="rows must hold integers, got"):
            pad(wrong, 0)
    assert pad([[], [2]], 0).tolist() == [[0], [2]]


def test_rows_are_padded_on_the_right():
    np.testing.assert_array_equal(pad([[1, 2, 3], [4], []], 9), [[1, 2, 3], [4, 9, 9], [9, 9, 9]])
    with pytest.raises(ValueError, match="no rows to pad"):
        pad([], 0)


@given(LENGTHS, st.integers(1, 7))
def test_batches_for_measuring_hold_every_text_once_and_no_needless_padding(lengths, size):
    batches = in_batches(texts(lengths), size)
    assert np.concatenate([batch["number"] for batch in batches]).tolist() == list(range(len(lengths)))
    for batch in batches:
        assert batch["ids"].shape == (len(batch["number"]), max(batch["lengths"]))


@given(LENGTHS, st.integers(1, 7), st.booleans(), st.integers(0, 99))
def test_an_epoch_holds_each_text_once(lengths, size, grouped, seed):
    source = PaddedExamples(texts(lengths), min(size, len(lengths)), Generator(seed), grouped)
    seen = collections.Counter()
    for _ in range(2 * source.batches_per_epoch):
        batch = next(source)
        assert batch["ids"].shape == (source.batch_size, max(batch["lengths"]))
        seen.update(batch["number"].tolist())
    assert max(seen.values()) <= 2
    left_out = 2 * (len(lengths) % source.batch_size)
    assert seen.total() == 2 * len(lengths) - left_out


@given(LENGTHS, st.integers(1, 4), st.booleans(), st.integers(0, 30), st.integers(0, 3))
@example([1] * 9, 1, True, 0, 1)  # back from the middle of a group to its beginning, as `peek` goes
def test_a_stream_resumes_at_any_batch_from_wherever_it_is(lengths, size, grouped, steps, elsewhere):
    size = min(size, len(lengths))
    source = PaddedExamples(texts(lengths), size, Generator(1), grouped)
    for _ in range(steps):
        next(source)
    place, stream = json.loads(json.dumps(source.get_state())), source.rng.get_state()
    again = PaddedExamples(texts(lengths), size, Generator(2), grouped)
    for _ in range(elsewhere):
        next(again)
    again.rng.set_state(stream)
    again.set_state(place)
    for _ in range(20):
        np.testing.assert_array_equal(next(source)["number"], next(again)["number"])


def test_grouped_batches_have_less_padding():
    lengths = np.random.default_rng(0).integers(1, 100, 512)

    def padding(grouped):
        source = PaddedExamples(texts(lengths), 8, Generator(3), grouped)
        batches = [next(source) for _ in range(64)]
        return sum(batch["ids"].size - batch["lengths"].sum() for batch in batches)

    assert padding(True) < 0.25 * padding(False)


def test_a_group_holds_the_next_sixteen_batches_and_no_others():
    grouped, plain = (PaddedExamples(texts(np.arange(1, 65)), 2, Generator(3), each) for each in (True, False))
    for _ in range(4):
        one, other = (np.concatenate([next(each)["number"] for _ in range(16)]) for each in (grouped, plain))
        assert sorted(one) == sorted(other)


def test_grouped_batches_come_in_no_order_of_length():
    source = PaddedExamples(texts(np.arange(1, 65)), 4, Generator(3), grouped=True)
    widths = [next(source)["ids"].shape[1] for _ in range(16)]
    assert widths != sorted(widths)
    assert widths != sorted(widths, reverse=True)


@pytest.mark.parametrize("returned", [16, -1, 1.5, "2"])
def test_a_place_outside_the_group_is_refused(returned):
    source = PaddedExamples(texts([3] * 64), 4, Generator(3), grouped=True)
    next(source)
    with pytest.raises(ValueError, match="is not a number of batches of a group of 16"):
        source.set_state({**source.get_state(), "returned": returned})
