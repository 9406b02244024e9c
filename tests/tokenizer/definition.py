"""Encoding by its definition, written a second time and slowly: the oracle of these tests.

Words come from GPT-2's own pattern, with `regex` set to the Unicode that GPT-2's ids go by. Merging follows the rule:
the pair that was learned first, and of several, the leftmost.
"""

import re
from itertools import pairwise
from pathlib import Path

import regex
from hypothesis import strategies as st

from tinygrad_llm.tokenizer.pattern import NEWER

VOCAB = Path(__file__).parents[2] / "data" / "gpt2" / "vocab.bpe"

_newer = re.sub("[0-9A-F]+", lambda code: rf"\U{int(code[0], 16):08X}", NEWER)
_letter, _number = (rf"[\p{{{kind}}}--[{''.join(_newer.split())}]]" for kind in "LN")
gpt2_words = regex.compile(
    rf"'s|'t|'re|'ve|'m|'ll|'d| ?{_letter}+| ?{_number}+| ?[^\s{_letter}{_number}]+|\s+(?!\S)|\s+", regex.V1
).findall

# The bytes that print come first, each as its own character, then the others from U+0100 on: ids 0 … 255 in this order.
PRINTABLE = [byte for byte in range(256) if not (byte <= 0x20 or 0x7F <= byte <= 0xA0 or byte == 0xAD)]
BYTES = PRINTABLE + [byte for byte in range(256) if byte not in PRINTABLE]
BYTE_ID = {byte: token_id for token_id, byte in enumerate(BYTES)}
BYTE_NAMES = [*map(chr, PRINTABLE), *map(chr, range(0x100, 0x100 + 256 - len(PRINTABLE)))]


def encode(merges, text):
    """The ids of a text; merges: pair of ids → the id that it makes, where smaller was learned earlier."""
    words = gpt2_words(text)
    ids = {}
    for word in set(words):
        tokens = [BYTE_ID[byte] for byte in word.encode()]
        while known := [(merges[pair], place) for place, pair in enumerate(pairwise(tokens)) if pair in merges]:
            made, place = min(known)
            tokens[place : place + 2] = [made]
        ids[word] = tokens
    return [token_id for word in words for token_id in ids[word]]


# ---- texts that find mistakes ------------------------------------------------------------------------------------

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


@st.composite
def odd_merges(draw):
    """Merges that no training would learn, and a text of the same few characters.

    Some tokens cannot be reached, cross words, end inside a character, hold line feeds, or spell the same as another.
    """
    alphabet = draw(st.text("ab '7\n\x1cé漢\u3000", min_size=1, max_size=3))
    letters = [BYTE_ID[byte] for byte in alphabet.encode()]
    merges = {}
    for token_id in range(256, 256 + draw(st.integers(0, 12))):
        pair = draw(st.tuples(*[st.sampled_from([*letters, *range(256, token_id)])] * 2))
        if pair in merges:
            break
        merges[pair] = token_id
    return merges, draw(st.text(alphabet, max_size=100))
