"""Learning merges: against a naive trainer, by hand, from files and iterators, and in bounded memory."""

from collections import Counter
from functools import partial
from itertools import pairwise

import pytest
from definition import BYTE_ID, gpt2_words
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import Tokenizer, TokenizerError, pattern, train
from tinygrad_llm.tokenizer.table import WordTable


def naive_train(texts, n_merges):
    """Count every pair again before every merge."""
    words = [[BYTE_ID[byte] for byte in word.encode()] for text in texts for word in gpt2_words(text)]
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
def test_merges_equal_those_of_a_naive_trainer(texts, n_merges):
    tokenizer = Tokenizer.train(texts, 256 + n_merges, special_tokens=())
    assert list(tokenizer.merges) == naive_train(texts, n_merges)
    assert list(tokenizer.merges.values()) == list(range(256, tokenizer.n_vocab))


def test_merges_of_wikipedias_example_by_hand():
    """aaabdaaabac → ZabdZabac (Z = aa) → ZYdZYac (Y = ab, ids smaller than those of Za) → XdXac (X = ZY)."""
    tokenizer = Tokenizer.train("aaabdaaabac", 1000)
    a, b, c, d = (tokenizer.encode(letter)[0] for letter in "abcd")
    assert list(tokenizer.merges) == [(a, a), (a, b), (256, 257)]
    assert tokenizer.encode("aaabdaaabac") == [258, d, 258, a, c]
    # Nothing repeats any more, so training stopped early.
    assert tokenizer.n_vocab == 256 + 3 + 1
    assert tokenizer.special_tokens == {"<|endoftext|>": 259}


@given(text=TEXT)
def test_larger_vocabulary_begins_with_the_smaller(text):
    small, large = (list(Tokenizer.train(text, size).merges) for size in (262, 280))
    assert large[: len(small)] == small


@given(texts=st.lists(TEXT, max_size=4))
def test_order_and_container_of_texts_do_not_matter(texts):
    once = Tokenizer.train(texts, 280).merges
    assert list(Tokenizer.train(iter(texts[::-1]), 280).merges) == list(once)


def test_no_merge_crosses_words():
    tokenizer = Tokenizer.train("ab, ab, ab, ab, " * 9, 400)
    assert {tokenizer.decode([made]) for made in tokenizer.merges.values()} == {"ab", " ab"}


def test_special_tokens_in_a_text_teach_nothing():
    tokenizer = Tokenizer.train("ab<|endoftext|>ab<|endoftext|>" * 9, 400)
    assert {tokenizer.decode([made]) for made in tokenizer.merges.values()} == {"ab"}


def test_trained_tokenizer_shortens_the_text():
    text = "the cat sat on the mat, and the other cat sat on the other mat. " * 3
    tokenizer = Tokenizer.train(text, 300)
    assert len(tokenizer.encode(text)) < len(text) / 2
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_two_merges_may_spell_the_same_bytes():
    """ab + c is abc, and so is a + bc: the merge that came first decides which of the two a text gets."""
    tokenizer = Tokenizer([(64, 65), (65, 66), (256, 66), (64, 257)], ())
    assert tokenizer.decode([258]) == tokenizer.decode([259]) == "abc"
    assert tokenizer.encode("abc") == [258]
    assert Tokenizer([(65, 66), (64, 65), (257, 66), (64, 256)], ()).encode("abc") == [259]


def test_progress_is_called_after_every_merge():
    calls = []
    tokenizer = Tokenizer.train("aaabdaaabac", 262, progress=lambda done, wanted: calls.append((done, wanted)))
    assert calls == [(1, 5), (2, 5), (3, 5)]
    assert len(tokenizer.merges) == 3


# ---- sizes and texts that are refused ----------------------------------------------------------------------------


def test_smallest_vocabulary_has_no_merges():
    assert not Tokenizer.train("aaaa", 257).merges
    assert Tokenizer.train("aaaa", 256, special_tokens=()).n_vocab == 256
    for nothing in ("", []):
        assert Tokenizer.train(nothing, 300).n_vocab == 257


@pytest.mark.parametrize("size", [-1, 0, 256, 300.0, True, "300", None])
def test_too_small_vocabulary_is_refused(size):
    with pytest.raises(TokenizerError, match=r"256 bytes and 1 special tokens .* at least 257"):
        Tokenizer.train("abc", size)


def test_vocabulary_larger_than_the_trainers_limit_is_refused():
    with pytest.raises(TokenizerError, match="at most 1114112"):
        Tokenizer.train("abc", 1_114_113)


@pytest.mark.parametrize("texts", [b"abc", [b"abc"], ["abc", None], "\ud800", ["abc", "a\udfff"]])
def test_texts_of_the_wrong_type_are_refused(texts):
    with pytest.raises(TokenizerError, match=r"a text must be a str|surrogate"):
        Tokenizer.train(texts, 300)


# ---- files, iterators and large texts ----------------------------------------------------------------------------


@given(texts=st.lists(st.text(alphabet="aab <>\n\x85é'"), max_size=4))
def test_files_and_iterators_give_the_merges_that_texts_give(tmp_path_factory, texts):
    folder = tmp_path_factory.getbasetemp()
    paths = [folder / f"training text {number}" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode())
    expected = Tokenizer.train(texts, 290, ["<a b>"]).merges
    assert Tokenizer.train(paths, 290, ["<a b>"]).merges == expected
    mixed = (path if number % 2 else texts[number] for number, path in enumerate(paths))
    assert Tokenizer.train(mixed, 290, ["<a b>"]).merges == expected


def test_path_is_a_file_and_str_is_always_a_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"xyxyxy")
    assert len(Tokenizer.train(tmp_path / "a.txt", 300).merges) == len(Tokenizer.train("xyxyxy", 300).merges)
    assert not Tokenizer.train("a.txt", 300).merges
    with pytest.raises(TokenizerError, match="none: cannot be read"):
        Tokenizer.train([tmp_path / "none"], 300)
    (tmp_path / "a.txt").write_bytes(b"abc\xff")
    with pytest.raises(TokenizerError, match=r"a\.txt: not UTF-8 text \(byte 0xff at position 3\)"):
        Tokenizer.train([tmp_path / "a.txt"], 300)


@given(text=st.text(alphabet="ab.' \n", max_size=300))
def test_words_are_counted_in_stretches_of_any_length(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "LONG_TEXT", 20)
        patch.setattr(train, "WordTable", partial(WordTable, 8))
        patch.setattr(pattern, "STRETCH", 20)
        assert train.count_words([text, text]) == Counter(pattern.split_words(text) * 2)


def test_texts_larger_than_memory_leave_only_counts(monkeypatch, peak_memory):
    monkeypatch.setattr(pattern, "STRETCH", 1 << 12)
    monkeypatch.setattr(train, "WordTable", partial(WordTable, 64))

    def count():
        counts = train.count_words("the cat sat on the mat. " * 1_000 for _ in range(20))
        assert counts["the"] == 20  # the one at the start of each text
        assert counts[" the"] == 20 * 1_999

    assert peak_memory(count, 300_000) < 300_000  # the texts are 480,000 characters


def test_one_long_word_is_not_quadratic():
    """A quadratic trainer would take a hundred times longer."""
    tokenizer = Tokenizer.train("a" * 30_000, 400)
    assert len(tokenizer.merges) == 14  # each doubles what one token spells, while two such are left: 2¹⁴ letters
    assert tokenizer.decode(tokenizer.encode("a" * 30_000)) == "a" * 30_000


def test_a_byte_order_mark_of_a_file_is_not_learned(tmp_path):
    text = "the cat\ufeff sat " * 9
    for name, start in (("plain", ""), ("marked", "\ufeff")):
        (tmp_path / name).write_text(start + text, encoding="utf-8")
    plain, marked = (Tokenizer.train(tmp_path / name, 280) for name in ("plain", "marked"))
    assert marked.merges == plain.merges
    assert Tokenizer.train([tmp_path / "marked", tmp_path / "marked"], 280).merges == plain.merges
    assert Tokenizer.train("\ufeff" * 9, 258).n_vocab == 258  # in a str it is text
