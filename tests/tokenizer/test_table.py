"""The table of words: each word has a number of its own, and a word that has none is never found."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.tokenizer.table import LONGEST, PROBES, WordTable

WORDS = st.binary(min_size=1, max_size=LONGEST + 2) | st.text("a\0", min_size=1, max_size=9).map(str.encode)


def find(table, words):
    return table.find(b"".join(words), np.cumsum([0, *map(len, words)])).tolist()


@given(words=st.lists(WORDS, max_size=60, unique=True), others=st.lists(WORDS, max_size=60))
def test_words_are_found_by_their_numbers_and_no_others(words, others):
    short = [word for word in words if len(word) <= LONGEST]
    table, numbers = WordTable(1 << 10), {word: number for number, word in enumerate(short, 1)}
    table.add(short[:20])
    table.add(short[20:])
    assert table.room == (1 << 10) - len(short)
    assert find(table, [*words, *others]) == [numbers.get(word, 0) for word in [*words, *others]]


def test_words_of_one_place_are_found_up_to_the_last_probe(monkeypatch):
    monkeypatch.setattr(WordTable, "_places", lambda self, low, high: np.full(len(low), 4 * self.capacity - 2))
    table, words = WordTable(16), [b"a prefix %d" % number for number in range(12)]  # the first 7 bytes are equal
    table.add(words[:3])
    table.add(words[3:])
    found = find(table, words)
    assert found[:3] != [0] * 3
    assert sum(number > 0 for number in found) == PROBES
    assert all(number in (0, index) for index, number in enumerate(found, 1))
    assert find(table, [b"none"]) == [0]


def test_a_full_table_finds_nearly_all_words():
    table = WordTable(1 << 12)
    words = [b" w%d" % number for number in range(table.capacity)]
    table.add(words)
    assert not table.room
    assert np.count_nonzero(np.equal(find(table, words), range(1, len(words) + 1))) > 0.999 * len(words)
