"""The same ids as tiktoken and as tokenizers, where these are installed; neither is needed.

Both are built from our merges. Which characters are letters and numbers depends on the version of Unicode: tiktoken
0.14 and tokenizers 0.23 know 16.0, and `regex` 2026.11.15, which we use for text that is not ASCII, knows 18.0.
`pattern.NEWER` lists what the versions between them added; we treat it as neither letter nor number, too.
"""

import re
import sys
import unicodedata
from importlib import metadata
from importlib.util import find_spec

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import Tokenizer
from tinygrad_llm.tokenizer.pattern import NEWER

EOT = "<|endoftext|>"
CODE_POINTS = [*range(0xD800), *range(0xE000, sys.maxunicode + 1)]  # without surrogates


def numbers(ranges):
    return {number for first, last in ranges for number in range(first, last + 1)}


def ranges(numbers):
    """The inverse: numbers as the first and last of each run, in hexadecimal."""
    runs = []
    for number in sorted(numbers):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return [f"{first:#x}–{last:#x}" for first, last in runs]


ALL_NEWER = numbers([tuple(int(code, 16) for code in (run.split("-") * 2)[:2]) for run in NEWER.split()])


# ---- three encoders ----------------------------------------------------------------------------------------------


def ours(merges):
    """Return a function: texts → their ids, by these merges."""
    tokenizer = Tokenizer(merges, special_tokens=())
    return lambda texts: [tokenizer.encode(text) for text in texts]


def tiktoken(merges):
    tiktoken = pytest.importorskip("tiktoken")
    pattern = pytest.importorskip("tiktoken_ext.openai_public").r50k_pat_str
    spelled = Tokenizer(merges, special_tokens=())
    ranks = {spelled.decode_bytes([token_id]): token_id for token_id in range(spelled.n_vocab)}
    encoding = tiktoken.Encoding("theirs", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return lambda texts: [encoding.encode_ordinary(text) for text in texts]


def tokenizers(merges):
    tokenizers = pytest.importorskip("tokenizers")
    byte_level = tokenizers.pre_tokenizers.ByteLevel
    names, pairs = sorted(byte_level.alphabet()), []  # ids 0 … 255 are the bytes in this order
    for left, right in merges:
        pairs.append((names[left], names[right]))
        names.append(names[left] + names[right])
    vocabulary = {name: token_id for token_id, name in enumerate(names)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab=vocabulary, merges=pairs))
    tokenizer.pre_tokenizer = byte_level(add_prefix_space=False)
    return lambda texts: [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]


INSTALLED = [package for package in (tiktoken, tokenizers) if find_spec(package.__name__)]
pytestmark = pytest.mark.skipif(not INSTALLED, reason="neither tiktoken nor tokenizers is installed")


@pytest.fixture(scope="module", params=INSTALLED or [None], ids=lambda package: getattr(package, "__name__", "none"))
def package(request):
    return request.param


@pytest.fixture(scope="module")
def encoders(package, gpt2):
    """Ours and theirs, with GPT-2's merges."""
    merges = gpt2.merges
    return ours(merges), package(merges)


def batches(texts, size=1 << 16):
    """Yield the texts in parts: the ids of a million texts are larger than the texts."""
    return (texts[start : start + size] for start in range(0, len(texts), size))


def assert_same(encoders, texts):
    ours, theirs = encoders
    for some in batches(texts):
        if ours(some) != theirs(some):
            wrong = [text for text in some if ours([text]) != theirs([text])]
            text = wrong[0]
            pytest.fail(f"{len(wrong)} texts differ; {text!a}: ours {ours([text])}, theirs {theirs([text])}")


# ---- the tables of Unicode ---------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", [r"[\p{L}\p{N}]", r"\s"])
def test_unicode_tables_differ_only_where_the_list_says(kind):
    rust = pytest.importorskip("tiktoken").Encoding(
        "kind", pat_str=kind, mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens={}
    )
    theirs = {c for c in CODE_POINTS if rust.encode_ordinary(chr(c))}
    known = set(map(ord, regex.findall(kind, "".join(map(chr, CODE_POINTS)))))
    unicode = re.search(r"supports Unicode ([\d.]+)", metadata.distribution("regex").read_text("METADATA") or "")
    new = (known ^ theirs) - (ALL_NEWER if "L" in kind else set())
    assert not new, (
        f"{kind}: regex {metadata.version('regex')} (Unicode {unicode and unicode[1]}) and tiktoken "
        f"{metadata.version('tiktoken')} differ also on {ranges(new)}: add what is newer to pattern.NEWER"
    )
    assert not theirs & ALL_NEWER  # what tiktoken knows is not newer


@pytest.fixture(scope="module")
def kind_merges():
    """Merges that show whether a character is a letter, a number or neither; GPT-2's rarely do.

    "a", "1" and "!" each merge with the first byte of the character after them in their word. So after exactly one of
    the three a character is a token shorter, unless it is white space.
    """
    byte = {Tokenizer([]).decode_bytes([token_id])[0]: token_id for token_id in range(256)}
    first_bytes = sorted({chr(c).encode()[0] for c in CODE_POINTS})
    return [(byte[ord(before)], byte[first]) for before in "a1!" for first in first_bytes]


@pytest.mark.slow
@pytest.mark.parametrize("before", ["a", "1", "!"])
def test_every_code_point_has_the_same_kind(package, kind_merges, before):
    lines = ["\n".join(before + chr(c) for c in some) for some in batches(CODE_POINTS, 64)]  # assigned or not
    assert_same((ours(kind_merges), package(kind_merges)), lines)


@pytest.mark.parametrize("before", ["a", "1", "!"])
def test_newer_characters_are_neither_letter_nor_number(package, kind_merges, before):
    """With any installed `regex`; alone, and next to characters of each kind."""
    lines = [
        f"{shape}".format(chr(c)) for c in sorted(ALL_NEWER)[::7] for shape in (before + "{0}", "{0}'s", " {0}漢é1")
    ]
    assert_same((ours(kind_merges), package(kind_merges)), lines)


# ---- with GPT-2's merges -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def assigned():
    """Every character that Python's or regex's Unicode assigns, private use too, and the 66 noncharacters."""
    unassigned = regex.compile(r"\p{Cn}")
    never = {c for c in CODE_POINTS if 0xFDD0 <= c <= 0xFDEF or c & 0xFFFE == 0xFFFE}
    return [
        chr(c)
        for c in CODE_POINTS
        if c in never or unicodedata.category(chr(c)) != "Cn" or not unassigned.match(chr(c))
    ]


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["{0}", " {0}", "{0}{0}", "a{0}", "{0}a", "1{0}1", "'{0}", "{0}'s", "  {0} "])
def test_every_assigned_character_in_context(encoders, assigned, shape):
    assert len(assigned) > 280_000
    assert_same(encoders, [shape.format(character) for character in assigned])


CHARACTERS = st.characters(exclude_categories=["Cs"])


@pytest.mark.slow
def test_random_texts(encoders):
    seen = []

    @settings(max_examples=2000)
    @given(text=st.text(CHARACTERS))
    def same(text):
        seen.append(text)
        assert_same(encoders, [text])

    same()
    assert len(seen) >= 2000


WORDS = ["the", " the", "Hello", "'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'LL", "’s", "''s", "'", " '", "'l"]
NOT_QUITE_SPACES = ["\u180e", "\u200b", "\u2060", "\ufeff", "\r\n", "\n\r"]
MARKS = ["\u0301", "\u0300", "\u05b0", "\u064b", "\u093f", "\u20e3", "\u3099", "\u1ab0"]
EMOJI = ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "1️⃣", "❤️", "\u200d", "\ufe0f", "😀"]
RIGHT_TO_LEFT = ["שלום", "مرحبا", "\u202e", "\u2067", "\u200f", "٣٤٥", "ﷺ"]
OTHERS = ["\ue000", "\uf8ff", "\U000f0000", "\U0010ffff", "\ufffe", "\ufdd0", "\ufffd", "漢字", "ß", "ǅ", "x", "_", EOT]
GROUPS = {
    "contractions": lambda: WORDS,
    "digits": lambda: [chr(c) for c in CODE_POINTS if unicodedata.category(chr(c))[0] == "N"],
    "white space": lambda: [chr(c) for c in CODE_POINTS if chr(c).isspace()] + NOT_QUITE_SPACES,
    "controls": lambda: [chr(c) for c in CODE_POINTS if unicodedata.category(chr(c)) in ("Cc", "Cf")],
    "marks": lambda: MARKS,
    "emoji": lambda: EMOJI,
    "right to left": lambda: RIGHT_TO_LEFT,
    "others": lambda: OTHERS,
}
PIECES = [st.deferred(lambda find=find: st.sampled_from(find())) for find in GROUPS.values()]


@pytest.mark.parametrize("group", GROUPS)
def test_groups_next_to_each_other(encoders, group):
    """Each piece, alone and in runs, between letters, digits, spaces and apostrophes."""
    around = ["", "a", " ", "1", "'", "\n", "."]
    some = GROUPS[group]()
    assert_same(encoders, [before + piece + after for piece in some for before in around for after in around])
    assert_same(encoders, [one + other for one in some[:80] for other in some[:80]])
    assert_same(encoders, [f"{piece * times} {piece * times}x" for piece in some for times in (2, 3, 9)])


@given(text=st.lists(st.one_of(PIECES) | st.text(CHARACTERS, max_size=3)).map("".join))
def test_groups_mixed(encoders, text):
    assert_same(encoders, [text])


@pytest.mark.parametrize("piece", ["a", "^", " ", "\n", "\r\n", "'s", "7", "é", "漢", "👩‍", "\u0301", "\x1c", "ab "])
def test_long_runs(encoders, piece):
    assert_same(
        encoders, [f"{before}{piece * times}{after}" for times in (50, 333, 2000) for before, after in ("  ", "aa")]
    )
