"""Encoding by every short cut against encoding by the definition: split the whole text, then merge, naively."""

from itertools import pairwise
from pathlib import Path

import pytest
from definition import gpt2_words
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import Tokenizer

VOCAB = Path(__file__).parents[2] / "data" / "gpt2" / "vocab.bpe"

# The bytes that print come first, each as its own character, then the others from U+0100 on: ids 0 … 255 in this order.
PRINTS = [byte for byte in range(256) if not (byte <= 0x20 or 0x7F <= byte <= 0xA0 or byte == 0xAD)]
BYTES = PRINTS + [byte for byte in range(256) if byte not in PRINTS]
BYTE_ID = {byte: token_id for token_id, byte in enumerate(BYTES)}
NAMES = [*map(chr, PRINTS), *map(chr, range(0x100, 0x100 + 256 - len(PRINTS)))]


def naive(merges, text):
    """The ids of a text by merges: pair of ids → the id it makes, where smaller is sooner."""
    words = gpt2_words(text)
    ids = {}
    for word in set(words):
        parts = [BYTE_ID[byte] for byte in word.encode()]
        while known := [(merges[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in merges]:
            made, place = min(known)
            parts[place : place + 2] = [made]
        ids[word] = parts
    return [token_id for word in words for token_id in ids[word]]


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


@pytest.fixture(scope="module")
def gpt2_merges():
    """GPT-2's merges by ids, read from the file alone."""
    ids = {name: token_id for token_id, name in enumerate(NAMES)}
    merges = {}
    for line in VOCAB.read_bytes().decode().split("\n")[1:-1]:
        left, right = line.split(" ")
        merges[ids[left], ids[right]] = ids[left + right] = len(ids)
    return merges


# ---- adversarial texts -------------------------------------------------------------------------------------------

SPACES = " \t\n\r\x0b\x0c\x85\xa0\u1680\u2003\u2028\u2029\u202f\u205f\u3000"
NOT_QUITE_SPACES = "\x1c\x1d\x1e\x1f\u180e\u200b\ufeff\x00"  # Python, or an older Unicode, calls some of them space
PIECES = [
    "a", "ab", "aab", "the", " the", "e ", "=", "^", "'", "'s", "'S", "'re", "'ll", "’s", "_", "7", "٣", "½", " 7", "é",
    "e\u0301", "漢", "字 ", "👩‍👩‍👧", "\U0010ffff", *SPACES, "\r\n", *NOT_QUITE_SPACES, "<|endoftext|>",
]  # fmt: skip
FEW_LETTERS = st.one_of(st.text(letters, max_size=200) for letters in ("a", "ab", "aehnrt ", "ab'", "s' ", "1a", "=-"))
WHITE_SPACE = st.text(SPACES + NOT_QUITE_SPACES + "a'7", max_size=60)
RUNS = st.lists(st.tuples(st.sampled_from(PIECES), st.integers(1, 70)), max_size=5).map(
    lambda runs: "".join(piece * times for piece, times in runs)
)
MIXED = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=40).map("".join)
TEXTS = FEW_LETTERS | WHITE_SPACE | RUNS | MIXED | st.text()


@given(text=TEXTS)
@settings(max_examples=300)
def test_gpt2(gpt2, gpt2_merges, text):
    assert gpt2.encode(text, disallowed_special=()) == naive(gpt2_merges, text)


@pytest.mark.parametrize("piece", ["a", "=", " ", "\n", "ab", "aab", "'s", "7", "the", "漢", "👩", " \n", "\x1c"])
def test_runs_of_every_length_where_another_way_of_merging_may_begin(gpt2, gpt2_merges, piece):
    for times in (*range(1, 40), 63, 64, 65, 127, 128, 129, 255, 256, 257, 300):
        text = piece * times
        assert gpt2.encode(text) == naive(gpt2_merges, text), f"{piece!r} × {times}"


WORDS = st.lists(st.sampled_from(["the", "other", "Hello", "漢字", "'s", "2026"]), min_size=1).map(" ".join)


@given(parts=st.lists(WORDS | MIXED | WHITE_SPACE, min_size=1, max_size=6), end=st.integers(0, 40))
@settings(max_examples=12)
def test_long_texts_whose_parts_are_encoded_apart(gpt2, gpt2_merges, parts, end):
    text = "x" * end + "".join(parts) + " x"  # so that no word is long: the naive way takes its square
    text *= 70_000 // len(text) + 1
    assert gpt2.encode(text, disallowed_special=()) == naive(gpt2_merges, text)


@given(texts=st.lists(TEXTS, max_size=4))
def test_what_was_encoded_before_changes_nothing(texts):
    """One tokenizer, new at each example, for all texts in turn, and for each in another's middle."""
    tokenizer = Tokenizer([(BYTE_ID[97], BYTE_ID[98]), (BYTE_ID[32], 256), (BYTE_ID[97], BYTE_ID[97])], ())
    for text in [*texts, *texts[::-1], " ".join(texts), "".join(texts)]:
        assert tokenizer.encode(text) == naive(tokenizer.merges, text)


@given(corpus=st.lists(FEW_LETTERS | MIXED, max_size=4), text=TEXTS, n_merges=st.integers(0, 60))
def test_trained_merges(corpus, text, n_merges):
    tokenizer = Tokenizer.train(corpus, 256 + n_merges, special_tokens=())
    merges = {pair: 256 + rank for rank, pair in enumerate(tokenizer.merges)}
    for some in (text, *corpus):
        assert tokenizer.encode(some) == naive(merges, some)


@st.composite
def odd_merges(draw):
    """Merges learned from no text, and a text of the same few characters: of tokens that no text can reach, across
    words, inside characters, of line feeds, several that spell the same.
    """
    alphabet = draw(st.text("ab '7\n\x1cé漢\u3000", min_size=1, max_size=3))
    letters = [BYTE_ID[byte] for byte in alphabet.encode()]
    merges = {}
    for token_id in range(256, 256 + draw(st.integers(0, 12))):
        pair = draw(st.tuples(*[st.sampled_from([*letters, *range(256, token_id)])] * 2))
        if pair in merges:
            break
        merges[pair] = token_id
    return merges, draw(st.text(alphabet, max_size=80))


@given(case=odd_merges())
@settings(max_examples=500)
def test_odd_merges(case):
    merges, text = case
    assert Tokenizer(merges, ()).encode(text) == naive(merges, text)


@pytest.mark.parametrize("ending", ["", "é"], ids=["ASCII", "Unicode"])
def test_contractions(gpt2, gpt2_merges, ending):
    for part in ("s", "d", "m", "t", "ll", "ve", "re", "l", "v", "r", "S", "LL", "x", "'s"):
        for text in (f"we'{part}", f"we '{part}", f"'{part}{ending}", f"7'{part}a", f"!'{part}", f"we'{part}'{part}"):
            assert gpt2.encode(text + ending) == naive(gpt2_merges, text + ending), text


def test_a_merge_whose_parts_are_made_only_later():
    """a+a, then aa+aa: in "aaaaa" the leftmost pairs go first; and a token that another merge always prevents."""
    a, b = BYTE_ID[97], BYTE_ID[98]
    merges = {(a, a): 256, (256, 256): 257, (a, 256): 258, (a, b): 259, (258, b): 260}
    tokenizer = Tokenizer(merges, ())
    for text, ids in {"aaaaa": [257, a], "aaab": [256, 259], "aab": [256, b], "aaaab": [257, b]}.items():
        assert tokenizer.encode(text) == naive(merges, text) == ids
