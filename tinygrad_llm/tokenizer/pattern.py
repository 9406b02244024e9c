"""How GPT-2 splits a text into words, which no token crosses: `split_words`. The rest finds the same words faster.

`find_words` applies the rules of the pattern to all characters of a long text at once, as arrays.

There are three kinds of cuts. Each kind cuts wherever the one before it cuts, and more often:

    stretches   about 65,000 characters each, so that a long text needs bounded memory
    chunks      non-space with the space before it, or other white space: cheap to find in a short text, and so
                frequent that the ids of most chunks are already known
    words       the matches of GPT-2's `PATTERN`

These cuts are safe for two reasons. A word never continues from non-space to white space. A run of white space before
non-space is cut only before its last character. So the words of a text are the words of its stretches, or of its
chunks, in order.
"""

import functools
import re
import string
from collections.abc import Callable, Collection, Iterator
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.tokenizer.checks import TokenizerError

PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

# Unicode's White_Space, which is what `\s` means in PATTERN. Python's own `\s` also contains U+001C … U+001F.
WHITE_SPACE = "\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
# Letters and numbers that are newer than Unicode 16.0. tiktoken and tokenizers do not know them yet, so GPT-2's ids
# treat them as neither letter nor number. Whether the installed `regex` knows them depends on its version.
NEWER = """
    558 58B-58C 88F C5C CDC 208F 209D-209F A7CE-A7CF A7D2 A7D4 A7DD A7E2 A7F1 AB6C-AB6D 107BB-107BF 10940-10959
    10EC5-10EC7 10ED9-10EEE 11B0A 11DB0-11DDB 11DE0-11DE9 11DF1 1246F 12475-1247F 12550-12686 16EA0-16EB8
    16EBB-16ED3 16FF2-16FF3 16FF4-16FF6 187F8-187FF 18CD6-18CDA 18D09-18D20 18D80-18DF2 18E00-19191 191A0-191D2
    1B123-1B128 1B168 1D6A6 1DF1F-1DF24 1DF2B-1DF81 1DF90-1DF96 1DFCD-1DFFF 1E6C0-1E6DE 1E6E0-1E6E2 1E6E4-1E6E5
    1E6E7-1E6ED 1E6F0-1E6F4 1E6FE-1E6FF 2B73A-2B73F 2B81E 2CEA2-2CEAD 323B0-33479 3D000-3FC3F
"""
MAX_UNBROKEN = 1 << 22  # characters without a cut: merging one word takes about 200 times its length in memory
LONG_TEXT = 1 << 12  # characters: in shorter texts, the calls of NumPy take more time than they save
STRETCH = 1 << 16  # characters: the arrays of one stretch fit into the processor's cache

split_chunks = re.compile(rf" ?[^{WHITE_SPACE}]+|[{WHITE_SPACE}]+(?![^{WHITE_SPACE}])|[{WHITE_SPACE}]").findall

# `regex` knows all of Unicode, but it takes twice the time of `re`. So `re` splits the texts that are only ASCII.
_split_ascii = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII
).findall

CONTRACTIONS = ("s", "d", "m", "t", "ll", "ve", "re")
SPACE, LETTER, NUMBER, OTHER = range(1, 5)  # the kinds of characters in PATTERN: the groups of _KIND
_KIND = r"(\s)|(\p{L})|(\p{N})|([^\s\p{L}\p{N}])"
_kinds = np.zeros(0x110000, np.uint8)  # code point → kind; 0: not looked up yet
_kinds[:128] = OTHER
for _kind, _characters in ((SPACE, "\t\n\v\f\r "), (LETTER, string.ascii_letters), (NUMBER, string.digits)):
    _kinds[[*map(ord, _characters)]] = _kind

_CUT = re.compile(rf"[^{WHITE_SPACE}](?=[{WHITE_SPACE}])")
_LAST_CUT = re.compile(rf".*[^{WHITE_SPACE}](?=[{WHITE_SPACE}])", re.DOTALL)


def split_words(text: str) -> list[str]:
    """Return the matches of `PATTERN`; they join to the text."""
    if text.isascii():
        return _split_ascii(text)
    split, newer, _ = _unicode()
    if not newer.search(text):
        return split(text)
    # Replace each newer character by a symbol that is neither letter nor number, and cut the text at the same places.
    ends = accumulate(map(len, split(newer.sub("☃", text))), initial=0)
    return [text[start:end] for start, end in pairwise(ends)]


@functools.cache
def _unicode() -> tuple[Callable[[str], list[str]], re.Pattern[str], Callable[[str], re.Match[str]]]:
    """Return the function that splits by `PATTERN`, the pattern of `NEWER` characters, and the match of `_KIND`.

    They are made when first needed, because making them takes longer than most imports.
    """
    import regex

    newer = "".join(re.sub("[0-9A-F]+", lambda code: chr(int(code[0], 16)), NEWER).split())
    return regex.compile(PATTERN).findall, re.compile(f"[{newer}]"), regex.compile(_KIND).match


def find_words(text: str) -> tuple[bytes, NDArray[np.int64]]:
    """Find the words of `split_words` without making a str of each.

    Returns:  the UTF-8 of the text; (words + 1,) the index of each word's first byte, and at last the end.
    """
    data = text.encode()
    if len(data) == len(text):  # ASCII; two more characters, because a contraction looks at the next two
        codes: NDArray[Any] = np.frombuffer(data + bytes(2), np.uint8)
    else:
        codes = np.frombuffer((text + "\0\0").encode("utf-32-le"), "<u4")
    kinds = kinds_of(codes[:-2])
    # A word begins where the kind changes, with three exceptions.
    begins = np.ones(len(text) + 1, np.bool_)
    np.not_equal(kinds[1:], kinds[:-1], out=begins[1:-1])
    # 1. The last white space before non-space leaves the white space before it: `\s+(?!\S)`. 2. If it is a space, the
    # word after it begins with it: ` ?`.
    last = np.flatnonzero((kinds[:-1] == SPACE) & begins[1:-1])
    begins[last] = True
    begins[last + 1] = codes[last] != ord(" ")
    # 3. An apostrophe at the beginning of a word takes the letters of a contraction, and no more.
    marks = np.flatnonzero(begins[:-1] & (codes[:-2] == ord("'")))
    for letters in CONTRACTIONS if marks.size else ():
        here = marks
        for distance, letter in enumerate(letters, 1):
            here = here[codes[here + distance] == ord(letter)]
        begins[here + 1] = False
        begins[here + 1 + len(letters)] = True
    starts = np.flatnonzero(begins)
    if len(data) > len(text):  # a character begins at every byte of UTF-8 that is not 10xxxxxx
        characters = np.flatnonzero((np.frombuffer(data + bytes(1), np.uint8) & 0xC0) != 0x80)
        starts = characters[starts]
    return data, starts


def kinds_of(codes: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the kind of each character: SPACE, LETTER, NUMBER or OTHER. Kinds are looked up once, and remembered."""
    kinds = _kinds.take(codes)
    if not kinds.all():
        _, newer, kind = _unicode()
        for code in set(codes[kinds == 0].tolist()):
            character = chr(code)
            _kinds[code] = OTHER if newer.match(character) else kind(character).lastindex or 0
        kinds = _kinds.take(codes)
    return kinds


def split_stretches(text: str) -> Iterator[str]:
    """Yield the text in pieces that no word crosses: each ends at the first safe cut after `STRETCH` characters.

    Raises:   TokenizerError: more than 4 million characters without a safe cut.
    """
    start = 0
    while len(text) - start > STRETCH and (cut := _CUT.search(text, start + STRETCH)):
        yield _unbroken(text[start : cut.end()])
        start = cut.end()
    yield _unbroken(text[start:] if start else text)


def _unbroken(stretch: str) -> str:
    """Return a stretch, after `check_unbroken` of its parts between safe cuts."""
    if len(stretch) > MAX_UNBROKEN:
        for start, end in pairwise([0, *(cut.end() for cut in _CUT.finditer(stretch)), len(stretch)]):
            check_unbroken(end - start)
    return stretch


def check_unbroken(length: int) -> None:
    """Check the length of a text without a safe cut: the one rule for texts in memory and in files.

    Raises:   TokenizerError: it is too long to be merged.
    """
    if length > MAX_UNBROKEN:
        raise TokenizerError(
            f"no white space in {length} characters, of which byte pairs take at most {MAX_UNBROKEN}: is it a text? "
            "A tokenizer of characters takes any text"
        )


def last_cut(text: str, special_tokens: Collection[str]) -> int:
    """Return the last index where `text` can be cut, whatever text follows it: no word or special token crosses it.

    Returns 0 if there is no such index. A special token that only begins in `text` may end in the text that follows.
    """
    end = len(text) - max(map(len, special_tokens), default=1) + 1
    while cut := _LAST_CUT.match(text, 0, end):
        at = cut.end()
        spans = (text.find(token, max(0, at - len(token) + 1), at + len(token) - 1) for token in special_tokens)
        crossing = [start for start in spans if start >= 0]
        if not crossing:
            return at
        end = min(crossing) + 1  # look again before the first special token that crosses this cut
    return 0
