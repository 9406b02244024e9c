"""How GPT-2 splits a text into words, which no token crosses: `split_words`. The rest finds the same words faster.

There are three kinds of cuts. Each kind cuts wherever the one before it cuts, and more often:

    stretches   about 65,000 characters each, so that a long text needs bounded memory
    chunks      non-space with the space before it, or other white space: cheap to find, and so frequent that the ids
                of most chunks are already known
    words       the matches of GPT-2's `PATTERN`

These cuts are safe for two reasons. A word never continues from non-space to white space. A run of white space before
non-space is cut only before its last character. So the words of a text are the words of its stretches, or of its
chunks, in order.
"""

import functools
import re
from collections.abc import Callable, Collection, Iterator
from itertools import accumulate, pairwise

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
STRETCH = 1 << 16  # characters: the chunks of one stretch stay in the processor's cache until they are looked up

split_chunks = re.compile(rf" ?[^{WHITE_SPACE}]+|[{WHITE_SPACE}]+(?![^{WHITE_SPACE}])|[{WHITE_SPACE}]").findall

# `regex` knows all of Unicode, but it takes twice the time of `re`. So `re` splits the texts that are only ASCII.
_split_ascii = re.compile(
    r"'(?:[sdmt]|ll|ve|re)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII
).findall

_CUT = re.compile(rf"[^{WHITE_SPACE}](?=[{WHITE_SPACE}])")
_LAST_CUT = re.compile(rf".*[^{WHITE_SPACE}](?=[{WHITE_SPACE}])", re.DOTALL)


def split_words(text: str) -> list[str]:
    """Return the matches of `PATTERN`; they join to the text."""
    if text.isascii():
        return _split_ascii(text)
    split, newer = _unicode()
    if not newer.search(text):
        return split(text)
    # Replace each newer character by a symbol that is neither letter nor number, and cut the text at the same places.
    ends = accumulate(map(len, split(newer.sub("☃", text))), initial=0)
    return [text[start:end] for start, end in pairwise(ends)]


@functools.cache
def _unicode() -> tuple[Callable[[str], list[str]], re.Pattern[str]]:
    """Return the function that splits by `PATTERN`, and the pattern that finds `NEWER` characters.

    Both are made when first needed, because making them takes longer than most imports.
    """
    import regex

    newer = "".join(re.sub("[0-9A-F]+", lambda code: chr(int(code[0], 16)), NEWER).split())
    return regex.compile(PATTERN).findall, re.compile(f"[{newer}]")


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
