"""The fast path changes no id: caches of any size, known words, chunks of any kind, threads, copies."""

import copy
import pickle
from functools import partial

import definition
import pytest
from definition import BYTE_ID, FEW_LETTERS, MIXED, TEXTS, WHITE_SPACE, odd_merges
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import Tokenizer, cache, pattern
from tinygrad_llm.tokenizer.byte_ids import BYTE_IDS
from tinygrad_llm.tokenizer.merge import merge
from tinygrad_llm.tokenizer.table import WordTable


@pytest.fixture(scope="module", params=["table", "chunks"])
def path(request):
    """Both ways to encode, for texts of any length."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cache, "LONG_TEXT", 0 if request.param == "table" else 1 << 30)
        patch.setattr(cache, "WordTable", partial(WordTable, 1 << 10))
        yield


pytestmark = pytest.mark.usefixtures("path")


@given(text=TEXTS)
def test_encode_equals_definition_with_gpt2s_merges(gpt2, gpt2_merges, text):
    assert gpt2.encode(text, disallowed_special=()) == definition.encode(gpt2_merges, text)


@given(corpus=st.lists(FEW_LETTERS | MIXED, max_size=4), text=TEXTS, n_merges=st.integers(0, 60))
def test_encode_equals_definition_with_learned_merges(corpus, text, n_merges):
    tokenizer = Tokenizer.train(corpus, 256 + n_merges, special_tokens=())
    merges = {pair: 256 + rank for rank, pair in enumerate(tokenizer.merges)}
    for some in (text, *corpus):
        assert tokenizer.encode(some) == definition.encode(merges, some)


@given(case=odd_merges())
def test_encode_equals_definition_with_odd_merges(case):
    merges, text = case
    assert Tokenizer(merges, ()).encode(text) == definition.encode(merges, text)


@pytest.mark.parametrize("piece", ["a", "=", " ", "\n", "ab", "aab", "'s", "7", "the", "漢", "👩", " \n", "\x1c"])
def test_encode_equals_definition_for_runs_around_every_limit(gpt2, gpt2_merges, piece):
    """32 bytes: another way of merging; 64: a chunk counted by words; 256 characters: not cached."""
    for times in (*range(1, 9), *range(14, 18), *range(30, 35), 63, 64, 65, 255, 256, 257):
        text = piece * times
        assert gpt2.encode(text) == definition.encode(gpt2_merges, text), f"{piece!r} × {times}"


@pytest.mark.parametrize("ending", ["", "é"], ids=["ASCII", "Unicode"])
def test_encode_equals_definition_for_contractions(gpt2, gpt2_merges, ending):
    for part in ("s", "d", "m", "t", "ll", "ve", "re", "l", "v", "r", "S", "LL", "x", "'s"):
        for text in (f"we'{part}", f"we '{part}", f"'{part}{ending}", f"7'{part}a", f"!'{part}", f"we'{part}'{part}"):
            assert gpt2.encode(text + ending) == definition.encode(gpt2_merges, text + ending), text


WORDS = st.lists(st.sampled_from(["the", "other", "Hello", "漢字", "'s", "2026"]), min_size=1).map(" ".join)


@given(parts=st.lists(WORDS | MIXED | WHITE_SPACE, min_size=1, max_size=6), end=st.integers(0, 40))
@settings(max_examples=8)
def test_encode_equals_definition_for_texts_of_several_stretches(gpt2, gpt2_merges, parts, end):
    text = "x" * end + "".join(parts) + " x"  # the space keeps words short: the oracle takes their square
    text *= 70_000 // len(text) + 1
    assert gpt2.encode(text, disallowed_special=()) == definition.encode(gpt2_merges, text)


@given(texts=st.lists(TEXTS, max_size=4), small=st.booleans())
def test_encode_ignores_what_was_encoded_before(texts, small):
    """One tokenizer for all texts in turn, with caches that never fill, and with caches that overflow at every word."""
    with pytest.MonkeyPatch.context() as patch:
        if small:
            patch.setattr(cache, "CACHE_SIZE", 50)
            patch.setattr(cache, "CACHED_LENGTH", 4)
            patch.setattr(cache, "WordTable", partial(WordTable, 8))
            patch.setattr(pattern, "STRETCH", 5)
        tokenizer = Tokenizer([(BYTE_ID[97], BYTE_ID[98]), (BYTE_ID[32], 256), (BYTE_ID[97], BYTE_ID[97])], ())
        for text in [*texts, *texts[::-1], " ".join(texts), "".join(texts)]:
            assert tokenizer.encode(text) == definition.encode(tokenizer.merges, text)


@given(corpus=st.text(alphabet="aab '", max_size=80))
def test_learned_token_is_what_its_own_bytes_merge_into(corpus):
    assert_tokens_merge_into_themselves(Tokenizer.train(corpus, 320, ()))


@pytest.mark.slow
def test_gpt2_token_is_what_its_own_bytes_merge_into(gpt2):
    assert_tokens_merge_into_themselves(gpt2)


def assert_tokens_merge_into_themselves(tokenizer):
    """The cache relies on this where it takes a word that spells a token for this token."""
    for token_id in range(256 + len(tokenizer.merges)):
        token = tokenizer.decode_bytes([token_id])
        assert merge(token.translate(BYTE_IDS), tokenizer.merges) == [token_id]


def test_cache_is_bounded_and_keeps_no_long_piece(monkeypatch):
    monkeypatch.setattr(cache, "CACHE_SIZE", 1000)
    tokenizer = Tokenizer([])
    caches = (tokenizer._cache.chunks, tokenizer._cache.words)
    for number in range(1200):
        tokenizer.encode(f"word{number} {number}!")
        for known in caches:
            assert sum(16 + len(piece) + len(ids) for piece, ids in known.items()) <= 1000
    for known in caches:
        known.clear()
    tokenizer.encode("a" * (cache.CACHED_LENGTH + 1))
    assert not any(caches)
    table = tokenizer._cache.table
    if table is not None:
        assert 0 < table.count <= 1 << 10
        assert len(tokenizer._cache.ids) == (1 << 10) + 1


def test_a_full_cache_is_emptied_and_holds_its_tokens_again(monkeypatch):
    monkeypatch.setattr(cache, "CACHE_SIZE", 3 * 18)  # three pieces of one character and one id
    made = []
    known = cache.KnownIds(lambda piece: (made.append(piece), 1)[1:], {"t": (7,)})
    assert [known[piece] for piece in "abctcdtdef"] == [(7,) if piece == "t" else (1,) for piece in "abctcdtdef"]
    assert made == [*"abcdef"]
    assert list(known) == [*"tdef"]


def test_ids_returned_are_not_shared_with_the_cache(gpt2):
    gpt2.encode(" tea").append(1)
    assert gpt2.encode(" tea") == [8887]


def test_threads_can_share_a_tokenizer(monkeypatch, in_threads):
    monkeypatch.setattr(cache, "CACHE_SIZE", 300)  # so that a thread empties what another has just filled
    monkeypatch.setattr(cache, "WordTable", partial(WordTable, 32))
    monkeypatch.setattr(pattern, "STRETCH", 50)
    shared = Tokenizer.gpt2()
    shared._cache.words.tokens = {}  # refilling 50,000 words at each overflow would be most of the test
    text = " ".join(f"word{number % 37}ish it's {number}\n" for number in range(400))
    expected = definition.encode(shared.merges, text)
    wrong = []

    def work():
        wrong.extend(1 for _ in range(5) if shared.encode(text) != expected)

    in_threads(*[work] * 4)
    assert not wrong


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies_encode_alike_and_hold_no_cache(duplicate):
    tokenizer = Tokenizer.train("the cat sat on the other mat. " * 3, 300)
    size = len(pickle.dumps(tokenizer))
    ids = tokenizer.encode("the other cat")
    assert len(pickle.dumps(tokenizer)) == size
    other = duplicate(tokenizer)
    assert other.encode("the other cat") == ids
    for name in ("merges", "special_tokens", "n_vocab"):
        assert getattr(other, name) == getattr(tokenizer, name)


def test_a_copy_knows_every_learned_token_as_a_word(for_each):
    learned, loaded = Tokenizer.train("the cat sat on the mat " * 9, 270), Tokenizer([(0, 1)])
    assert {"the", " cat"} <= set(learned._cache.words.tokens)
    assert not loaded._cache.words.tokens

    def check(duplicate):
        for tokenizer in (learned, loaded, duplicate(learned)):
            assert duplicate(tokenizer)._cache.words.tokens == tokenizer._cache.words.tokens

    for_each([copy.copy, copy.deepcopy, lambda tokenizer: pickle.loads(pickle.dumps(tokenizer))], check)
