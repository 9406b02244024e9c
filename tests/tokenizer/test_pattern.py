"""Splitting a text into words, and the coarser cuts, which must not change the words."""

import hashlib
import re
import sys
import unicodedata
from itertools import accumulate

import numpy as np
import pytest
import regex
from definition import TEXTS, gpt2_words
from hypothesis import example, given
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import pattern
from tinygrad_llm.tokenizer.pattern import find_words, last_cut, split_chunks, split_stretches, split_words

# White space of every kind and what Python alone takes for it, apostrophes, digits, combining marks, and joiners.
ODD = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u3000\x1c\x1f\x00\u200b'’stdmlver12٣²Ⅷaé漢e\u0301\u0e31!?^_👩\u200d🇩"
SHORT = st.text(alphabet=ODD, max_size=30) | st.lists(st.sampled_from([*ODD, "'s", "'re", "  ", " '"])).map("".join)


@given(text=SHORT | TEXTS)
def test_words_equal_the_patterns_and_each_splits_into_itself(text):
    words = gpt2_words(text)
    assert split_words(text) == words
    data, starts = find_words(text)
    assert data == text.encode()
    assert starts.tolist() == [0, *accumulate(len(word.encode()) for word in words)]
    assert "".join(words) == text
    for word in words:
        assert split_words(word) == [word]


@given(text=SHORT | TEXTS)
def test_words_of_the_chunks_are_the_words_of_the_text(text):
    chunks = split_chunks(text)
    assert "".join(chunks) == text
    assert [word for chunk in chunks for word in split_words(chunk)] == gpt2_words(text)


@given(text=SHORT, size=st.sampled_from([1, 2, 7]))
def test_words_of_the_stretches_are_the_words_of_the_text(text, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pattern, "STRETCH", size)
        stretches = list(split_stretches(text))
    assert "".join(stretches) == text
    assert [word for stretch in stretches for word in split_words(stretch)] == gpt2_words(text)
    assert all(len(stretch) <= size or not regex.search(r"\S\s", stretch[size:]) for stretch in stretches)


def test_stretches_are_short():
    assert max(map(len, split_stretches("ab " * 100_000))) <= pattern.STRETCH + 3
    assert list(split_stretches("")) == [""]


@given(text=SHORT, more=SHORT)
def test_text_after_the_last_cut_changes_no_word_before_it(text, more):
    cut = last_cut(text, ())
    assert gpt2_words(text[:cut]) + gpt2_words(text[cut:] + more) == gpt2_words(text + more)
    assert cut or not regex.search(r"\S\s", text)


SPECIALS = ["<a b>", "b> <a", "a\n", "<", "a  b c "]
WITH_SPECIALS = st.lists(st.sampled_from([*SPECIALS, *"<ab> \nc"]), max_size=20).map("".join)


@example(text="c <a b>ccccccccc", more="")  # the only white space after the first is inside a special token
@given(text=WITH_SPECIALS, more=WITH_SPECIALS)
def test_last_cut_is_inside_no_special_token(text, more):
    cut = last_cut(text, SPECIALS)
    for token in SPECIALS:
        for start in range(max(0, cut - len(token) + 1), cut):
            assert (text + more)[start : start + len(token)] != token
    assert not cut or regex.match(r"\S\s", text[cut - 1 :])


def test_re_and_regex_agree_on_letters_numbers_and_spaces():
    """`re` is asked only about ASCII, and about the white space that is written out."""
    characters = "".join(map(chr, [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]))  # without surrogates
    spaces = regex.findall(r"\s", characters)
    assert re.findall(f"[{pattern.WHITE_SPACE}]", characters) == spaces
    assert all(split_chunks(f"{space}{space}x")[0] == space for space in spaces)
    for one in characters[:128]:
        for other in characters[:128]:
            text = f"{one}{other} {one}'{other}"
            assert split_words(text) == gpt2_words(text)
    # The kinds by which `find_words` splits.
    characters = characters[:0x600] + characters[0x600::11]
    kinds = pattern.kinds_of(np.frombuffer(characters.encode("utf-32-le"), "<u4"))
    newer = "".join(re.sub("[0-9A-F]+", lambda code: chr(int(code[0], 16)), pattern.NEWER).split())
    for kind, known in ((pattern.SPACE, r"\s"), (pattern.LETTER, r"\p{L}"), (pattern.NUMBER, r"\p{N}")):
        expected = regex.findall(rf"[{known}--[{newer}]]", characters, regex.V1)
        assert [characters[place] for place in np.flatnonzero(kinds == kind)] == expected


def test_characters_newer_than_tiktoken_are_neither_letter_nor_number():
    newer = []
    for first, last in re.findall(r"([0-9A-F]+)(?:-([0-9A-F]+))?", pattern.NEWER):
        newer += range(int(first, 16), int(last or first, 16) + 1)
        for code in (newer[-1], int(first, 16)):
            character = chr(code)
            assert split_words(f"a{character}1") == ["a", character, "1"]
            assert split_words(f"{character}'s é") == [f"{character}'", "s", " é"]
    assert len(newer) == 17_480
    digest = hashlib.sha256(" ".join(map(str, sorted(newer))).encode()).hexdigest()
    assert digest == "08ce54070990a4e001d35dcf2f52973cc4a45c559e29064148d91529b80bde53", "a range was lost or added"
    # None is of Unicode 16.0 or older, as far as Python knows that version.
    if tuple(map(int, unicodedata.unidata_version.split("."))) <= (16, 0, 0):
        assert {unicodedata.category(chr(code)) for code in newer} == {"Cn"}
