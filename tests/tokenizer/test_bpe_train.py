import tracemalloc
from collections import Counter
from itertools import pairwise

import pytest
from definition import gpt2_words
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import Tokenizer, TokenizerError, pattern, train
from tinygrad_llm.tokenizer.bpe import BYTE_IDS


def naive_train(texts, n_merges):
    """Count every pair anew before every merge."""
    words = [word for text in texts for word in gpt2_words(text)]
    words = [list(word.encode().translate(BYTE_IDS)) for word in words]
    merges = []
    while len(merges) < n_merges:
        counts = Counter(pair for word in words for pair in pairwise(word))
        best = min(counts, key=lambda pair: (-counts[pair], pair), default=None)
        if best is None or counts[best] == 1:
            break
        for word in words:
            place = 0
            while place < len(word) - 1:
                if (word[place], word[place + 1]) == best:
                    word[place : place + 2] = [256 + len(merges)]
                place += 1
        merges.append(best)
    return merges


TEXT = st.text(alphabet="ab c\n", max_size=80) | st.text(alphabet="aab", max_size=40) | st.text(max_size=30)


@given(texts=st.lists(TEXT, max_size=4), n_merges=st.integers(0, 40))
def test_the_merges_are_those_of_the_naive_trainer(texts, n_merges):
    tokenizer = Tokenizer.train(texts, 256 + n_merges, special_tokens=())
    assert list(tokenizer.merges) == naive_train(texts, n_merges)
    assert list(tokenizer.merges.values()) == list(range(256, tokenizer.n_vocab))


def test_the_example_of_wikipedia_by_hand():
    """aaabdaaabac → ZabdZabac (Z = aa) → ZYdZYac (Y = ab, ids smaller than those of Za) → XdXac (X = ZY)."""
    tokenizer = Tokenizer.train("aaabdaaabac", 1000)
    a, b, c, d = (tokenizer.encode(letter)[0] for letter in "abcd")
    assert list(tokenizer.merges) == [(a, a), (a, b), (256, 257)]
    assert tokenizer.encode("aaabdaaabac") == [258, d, 258, a, c]


def test_training_stops_when_nothing_repeats():
    tokenizer = Tokenizer.train("aaabdaaabac", 1000)
    assert tokenizer.n_vocab == 256 + 3 + 1
    assert tokenizer.special_tokens == {"<|endoftext|>": 259}
    assert Tokenizer.train("", 300).n_vocab == 257
    assert Tokenizer.train([], 300).n_vocab == 257


@given(text=TEXT)
def test_a_larger_vocabulary_begins_with_the_smaller(text):
    small, large = (list(Tokenizer.train(text, size).merges) for size in (262, 280))
    assert large[: len(small)] == small


@given(texts=st.lists(TEXT, max_size=4))
def test_the_order_of_the_texts_and_their_container_do_not_matter(texts):
    once = Tokenizer.train(texts, 280).merges
    assert list(Tokenizer.train(iter(texts[::-1]), 280).merges) == list(once)


def test_no_merge_crosses_words():
    tokenizer = Tokenizer.train("ab, ab, ab, ab, " * 9, 400)
    assert {tokenizer.decode([made]) for made in tokenizer.merges.values()} == {"ab", " ab"}


def test_special_tokens_in_the_text_teach_nothing():
    tokenizer = Tokenizer.train("ab<|endoftext|>ab<|endoftext|>" * 9, 400)
    assert {tokenizer.decode([made]) for made in tokenizer.merges.values()} == {"ab"}


def test_trained_tokens_shorten_the_text_and_give_it_back():
    text = "the cat sat on the mat, and the other cat sat on the other mat. " * 3
    tokenizer = Tokenizer.train(text, 300)
    assert len(tokenizer.encode(text)) < len(text) / 2
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_two_merges_may_spell_the_same_bytes():
    """ab + c is abc, and so is a + bc: which of the two a text gets is decided by which merge came first."""
    tokenizer = Tokenizer([(64, 65), (65, 66), (256, 66), (64, 257)], ())
    assert tokenizer.decode([258]) == tokenizer.decode([259]) == "abc"
    assert tokenizer.encode("abc") == [258]
    assert Tokenizer([(65, 66), (64, 65), (257, 66), (64, 256)], ()).encode("abc") == [259]


def test_progress_is_told_after_every_merge():
    told = []
    tokenizer = Tokenizer.train("aaabdaaabac", 262, progress=lambda done, wanted: told.append((done, wanted)))
    assert told == [(1, 5), (2, 5), (3, 5)]
    assert len(tokenizer.merges) == 3


@pytest.mark.parametrize("size", [-1, 0, 256, 300.0, True, "300", None])
def test_a_vocabulary_that_does_not_hold_bytes_and_special_tokens(size):
    with pytest.raises(TokenizerError, match=r"256 bytes and 1 special tokens .* at least 257"):
        Tokenizer.train("abc", size)


def test_the_smallest_vocabulary_has_no_merges():
    assert not Tokenizer.train("aaaa", 257).merges
    assert Tokenizer.train("aaaa", 256, special_tokens=()).n_vocab == 256


@pytest.mark.parametrize("texts", [b"abc", [b"abc"], ["abc", None], "\ud800", ["abc", "a\udfff"]])
def test_texts_that_are_none(texts):
    with pytest.raises(TokenizerError, match=r"a text is a str|surrogate"):
        Tokenizer.train(texts, 300)


@given(texts=st.lists(st.text(alphabet="aab <>\n\x85é'"), max_size=4))
def test_files_and_an_iterator_teach_what_texts_teach(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("texts")
    for number, text in enumerate(texts):
        (folder / str(number)).write_bytes(text.encode())
    paths = [folder / str(number) for number in range(len(texts))]
    expected = Tokenizer.train(texts, 290, ["<a b>"]).merges
    assert Tokenizer.train(paths, 290, ["<a b>"]).merges == expected
    mixed = (path if number % 2 else texts[number] for number, path in enumerate(paths))
    assert Tokenizer.train(mixed, 290, ["<a b>"]).merges == expected


def test_one_file_is_one_text_and_a_str_is_never_a_path(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"xyxyxy")
    assert len(Tokenizer.train(tmp_path / "a.txt", 300).merges) == len(Tokenizer.train("xyxyxy", 300).merges)
    assert not Tokenizer.train("a.txt", 300).merges
    with pytest.raises(TokenizerError, match="none: cannot be read"):
        Tokenizer.train([tmp_path / "none"], 300)
    (tmp_path / "a.txt").write_bytes(b"abc\xff")
    with pytest.raises(TokenizerError, match=r"a\.txt: not UTF-8 text: .* at byte 3"):
        Tokenizer.train([tmp_path / "a.txt"], 300)


@given(text=st.text(alphabet="ab.' \n", max_size=300))
def test_words_are_counted_however_long_the_chunk_they_stand_in(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "LONG_CHUNK", 3)
        patch.setattr(pattern, "STRETCH", 20)
        assert train.count_words([text, text]) == Counter(pattern.split_words(text) * 2)


def test_an_iterator_that_is_larger_than_memory_leaves_only_counts():
    tracemalloc.start()
    try:
        counts = train.count_words("the cat sat on the mat. " * 4_000 for _ in range(50))
        assert tracemalloc.get_traced_memory()[1] < 3_000_000  # 5 million characters
    finally:
        tracemalloc.stop()
    assert counts["the"] == 50  # the one at the start of each text
    assert counts[" the"] == 50 * 7_999


def test_more_ids_than_there_are_characters():
    with pytest.raises(TokenizerError, match="at most 1114112"):
        Tokenizer.train("abc", 1_114_113)


def test_one_long_word_takes_no_longer_than_many_short_ones():
    """Quadratic in the word, this would take minutes."""
    tokenizer = Tokenizer.train("a" * 300_000, 400)
    assert len(tokenizer.merges) == 17  # each doubles what one token spells, while two such are left: 2¹⁷ letters
    assert tokenizer.decode(tokenizer.encode("a" * 300_000)) == "a" * 300_000
