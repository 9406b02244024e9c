"""Merging one word: by hand, and the fast ways against the plain loop and against the definition."""

import definition
import pytest
from definition import BYTE_ID, odd_merges
from hypothesis import given

from tinygrad_llm.tokenizer.byte_ids import BYTE_IDS
from tinygrad_llm.tokenizer.merge import _merge_long, _merge_short, merge, merge_steps

A, B = BYTE_ID[97], BYTE_ID[98]


@pytest.mark.parametrize(
    ("word", "steps"),
    [
        (b"", [[]]),
        (b"b", [[B]]),
        # a+a is merged first everywhere, leftmost first; then aa+aa.
        (b"aaaaa", [[A] * 5, [256, A, A, A], [256, 256, A], [257, A]]),
        # aa+b was never learned: a+a takes the letter that a+b (id 259) needs.
        (b"aab", [[A, A, B], [256, B]]),
        (b"aaab", [[A, A, A, B], [256, A, B], [256, 259]]),
        (b"aaaab", [[A] * 4 + [B], [256, A, A, B], [256, 256, B], [257, B]]),
    ],
)
def test_merge_steps_by_hand(word, steps):
    merges = {(A, A): 256, (256, 256): 257, (A, 256): 258, (A, B): 259, (258, B): 260}
    word = word.translate(BYTE_IDS)
    assert merge_steps(word, merges) == steps
    assert merge(word, merges) == steps[-1]


@given(case=odd_merges())
def test_merge_equals_definition_for_any_merges(case):
    merges, text = case
    for word in set(definition.gpt2_words(text)):
        ids = word.encode().translate(BYTE_IDS)
        expected = definition.encode(merges, word)
        for way in (_merge_short, _merge_long, merge):
            assert way(ids, merges) == expected
        assert merge_steps(ids, merges)[-1] == expected


def test_merge_handles_a_long_word_of_one_letter():
    """A quadratic merge would take minutes."""
    merges = {(A, A): 256, **{(k, k): k + 1 for k in range(256, 270)}}
    assert merge(bytes([A]) * 2**15, merges) == [270]
