import sys

import pytest
import regex
from definition import gpt2_words
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import pattern
from tinygrad_llm.tokenizer.pattern import last_cut, split_chunks, split_stretches, split_words

CHARACTERS = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c <= 0xDFFF]

# White space of every kind and what Python alone takes for it, apostrophes, digits, combining marks, and joiners.
ODD = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u3000\x1c\x1f\x00\u200b'’stdmlver12٣²Ⅷaé漢e\u0301\u0e31!?^_👩\u200d🇩"
TEXTS = st.text(alphabet=ODD, max_size=30) | st.lists(st.sampled_from([*ODD, "'s", "'re", "  ", " '"])).map("".join)


def words(text):
    """The oracle: the pattern, by `regex`, on the whole text."""
    return gpt2_words(text)


@given(text=TEXTS | st.text())
def test_words_are_those_of_the_pattern_and_each_is_split_into_itself(text):
    assert split_words(text) == words(text)
    assert "".join(words(text)) == text
    for word in words(text):
        assert split_words(word) == [word]


@given(text=TEXTS | st.text())
def test_the_words_of_the_chunks_are_the_words_of_the_text(text):
    chunks = split_chunks(text)
    assert "".join(chunks) == text
    assert [word for chunk in chunks for word in split_words(chunk)] == words(text)


@given(text=TEXTS | st.text())
def test_of_two_chunks_that_are_no_space_a_line_feed_between_is_a_word(text):
    chunks = [chunk for chunk in split_chunks(text) if not chunk.isspace()]
    expected = [word for chunk in chunks for word in [*split_words(chunk), "\n"]]
    assert split_words("\n".join([*chunks, ""])) == expected


@given(text=TEXTS)
def test_a_chunk_of_white_space_is_one_word(text):
    for chunk in filter(str.isspace, split_chunks(text)):
        assert split_words(chunk) == [chunk]


@pytest.mark.parametrize("size", [1, 2, 7])
def test_the_words_of_the_stretches_are_the_words_of_the_text(monkeypatch, size):
    monkeypatch.setattr(pattern, "STRETCH", size)

    @given(text=TEXTS)
    def law(text):
        stretches = list(split_stretches(text))
        assert "".join(stretches) == text
        assert [word for stretch in stretches for word in split_words(stretch)] == words(text)
        assert all(len(stretch) <= size or not regex.search(r"\S\s", stretch[size:]) for stretch in stretches)

    law()


def test_a_stretch_is_short():
    assert max(map(len, split_stretches("ab " * 100_000))) <= pattern.STRETCH + 3
    assert list(split_stretches("")) == [""]


@given(text=TEXTS, more=TEXTS)
def test_what_follows_changes_nothing_before_the_last_cut(text, more):
    cut = last_cut(text, ())
    assert words(text[:cut]) + words(text[cut:] + more) == words(text + more)
    assert cut or not regex.search(r"\S\s", text)


SPECIALS = ["<a b>", "b> <a", "a\n", "<", "a  b c "]


@given(text=st.text(alphabet="<ab> \nc", max_size=30), more=st.text(alphabet="<ab> \nc", max_size=12))
def test_the_last_cut_is_in_no_special_token(text, more):
    cut = last_cut(text, SPECIALS)
    for token in SPECIALS:
        for start in range(max(0, cut - len(token) + 1), cut):
            assert (text + more)[start : start + len(token)] != token
    assert not cut or regex.match(r"\S\s", text[cut - 1 :])


def test_both_ways_to_split_have_one_meaning_of_letter_number_and_space():
    """`re` is asked only about ASCII, and about the white space that is written out."""
    assert [c for c in CHARACTERS if split_chunks(f"{c}{c}x")[0] == c] == regex.findall(r"\s", "".join(CHARACTERS))
    for one in CHARACTERS[:128]:
        for other in CHARACTERS[:128]:
            text = f"{one}{other} {one}'{other}"
            assert split_words(text) == words(text)


def test_what_unicode_added_later_is_neither_letter_nor_number():
    for code in ("58B", "323B0", "3FC3F", "12550"):
        character = chr(int(code, 16))
        assert split_words(f"a{character}1") == ["a", character, "1"]
        assert split_words(f"{character}'s é") == [f"{character}'", "s", " é"]
