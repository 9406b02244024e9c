"""How BERT splits a text into words: `split_basic`. The text is cleaned first, so it does not come back unchanged.

    clean         control characters are dropped, and each white space becomes a space
    Chinese       each character of the Chinese script becomes a word: the script has no spaces between words
    accents       é becomes e: the accent is cut off, as a character of its own (Unicode's NFD), and dropped
    lower case    each character by itself: Σ becomes σ, also at the end of a word
    punctuation   each mark becomes a word
    split         at spaces

What a control character, an accent and a mark is depends on the version of Unicode. The library `tokenizers`, whose
ids models share, took the tables of Unicode 8.0, and Python has newer ones. The lists below undo the difference. The
original BERT, in Python, follows the Python that runs it.

Source:   Devlin et al. 2018, github.com/google-research/bert (tokenization.py, BasicTokenizer).
"""

import functools
import re
import string
import unicodedata
from typing import Literal

Kind = Literal["control", "accent", "punctuation", ""]

# The blocks of Unicode that hold the Chinese script. One gap is the library's: U+2B820 … U+2B91F are not in it.
_CHINESE = """
    3400-4DBF 4E00-9FFF F900-FAFF 20000-2A6DF 2A700-2B73F 2B740-2B81F 2B920-2CEAF 2F800-2FA1F
"""
# Where newer versions of Unicode added control characters, accents or marks; to the library these have no kind.
_NEWER = """
    5C8-5C9 61D 7FD 890-8E2 9FD-9FE A76 AFA-AFF B53-B55 C04-C3C C77 C84 D00 D3B-D3C D81 EBA ECE 180F-1886 1ABF-1AF0
    1B4E-1B4F 1B7D-1B7F 1DF6-1DFB 2E43-2E63 A82C A8C5 A8FF A9BD 10D24-10D6E 10EAB-10F89 11070-11074 110C2-110CD 111CF
    1123E-11241 1133B 113BB-1145E 11660-1166C 116B9 1182F-1183B 1193B-11946 119D4-11DF0 11EF3-11F5A 11FFF 12FF1-12FF2
    13430-13455 1611E-1612F 16D6D-16D6F 16E97-16E9A 16F4F 16FE2-16FE4 1CF00-1CF46 1D127-1D128 1D25B-1D25C 1E000-1E08F
    1E130-1E136 1E2AE-1E2EF 1E4EC-1E4EF 1E5EE-1E5FF 1E6E3-1E6F5 1E944-1E95F
"""
# Characters that had another kind in Unicode 8.0.
_OLDER: dict[str, Kind] = {
    "\u166d": "punctuation",
    "\u1734": "accent",
    "\U000111c9": "punctuation",
    "\U0001171e": "accent",
}
# Letters with an accent that are newer than the library's NFD: they stay whole.
_WHOLE = "105C9 105E4 11383 11385 1138E 11391 113C5 113C7-113C8 11938 16121-16128 16D68-16D6A"
# Capitals that are newer than Python 3.11: first-last, and what to add for the small letter.
_CAPITALS = """
    1C89-1C89+1 A7CB-A7CB+-A567 A7CC-A7CC+1 A7CE-A7CE+1 A7D2-A7D2+1 A7D4-A7D4+1 A7DA-A7DA+1 A7DC-A7DC+-A641
    10D50-10D65+20 16EA0-16EB8+1B
"""


def _expand(ranges: str) -> frozenset[int]:
    """The code points of ranges such as "61D 5C8-5C9", in hexadecimal."""
    ends = [[int(code, 16) for code in run.split("-")] for run in ranges.split()]
    return frozenset(code for run in ends for code in range(run[0], run[-1] + 1))


@functools.cache
def _tables() -> tuple[frozenset[int], frozenset[int], dict[int, str], re.Pattern[str]]:
    """Chinese characters; newer ones; newer capitals → small letters; the letters that NFD must not cut."""
    small = {}
    for run in _CAPITALS.split():
        codes, _, distance = run.partition("+")
        small.update({code: chr(code + int(distance, 16)) for code in _expand(codes)})
    whole = "".join(map(chr, sorted(_expand(_WHOLE))))
    return _expand(_CHINESE), _expand(_NEWER), small, re.compile(f"([{whole}])")


def kind_of(character: str) -> Kind:
    """Return whether a character is dropped as a control character, an accent, a punctuation mark, or none of these."""
    code = ord(character)
    if code < 128:
        if character in string.punctuation:
            return "punctuation"
        return "control" if not character.isprintable() and character not in "\t\n\r" else ""
    if character in _OLDER:
        return _OLDER[character]
    category = unicodedata.category(character)
    if category[0] not in "CMP" or code in _tables()[1]:
        return ""
    if category in ("Cc", "Cf", "Co"):
        return "control"
    return "punctuation" if category[0] == "P" else "accent" if category == "Mn" else ""


class _Clean(dict[int, str]):
    """A table for `str.translate`, filled as characters occur: control characters, white space, Chinese."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if character == "\ufffd" or kind_of(character) == "control":
            made = ""
        elif character.isspace():
            made = " "
        else:
            made = f" {character} " if code in _tables()[0] else character
        self[code] = made
        return made


class _Words(dict[int, str]):
    """A table for `str.translate`, filled as characters occur: accents, lower case, punctuation."""

    def __init__(self, lowercase: bool, strip_accents: bool) -> None:
        self.lowercase, self.strip_accents = lowercase, strip_accents

    def __missing__(self, code: int) -> str:
        made = chr(code)
        if self.strip_accents and kind_of(made) == "accent":
            made = ""
        if self.lowercase:
            made = _tables()[2].get(code, made.lower())
        made = "".join(f" {c} " if kind_of(c) == "punctuation" else c for c in made)
        self[code] = made
        return made


_clean = _Clean()
_words = {(lower, strip): _Words(lower, strip) for lower in (False, True) for strip in (False, True)}


def split_basic(text: str, lowercase: bool = True, strip_accents: bool = True) -> list[str]:
    """Split a text into words and punctuation marks, as BERT does; white space and control characters are lost."""
    text = text.translate(_clean)
    if strip_accents and not text.isascii():
        parts = _tables()[3].split(text)
        parts[::2] = [unicodedata.normalize("NFD", part) for part in parts[::2]]
        text = "".join(parts)
    return text.translate(_words[lowercase, strip_accents]).split()
