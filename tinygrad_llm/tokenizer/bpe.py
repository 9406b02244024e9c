"""Byte-level byte-pair encoding, as GPT-2 does it.

A text is split into words (`PATTERN`), a word into the bytes of its UTF-8; then neighbours are merged,
the pair that was learned first coming first, until no two neighbours are a pair that was learned. Since
every byte is a token, every text has ids, and the ids give the text back.

Ids: 0 … 255 the bytes, in GPT-2's order; then one for each merge; then the special tokens.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from heapq import heapify, heappop, heappush
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import regex

from tinygrad_llm.tokenizer.checks import TokenizerError, check_ids, check_text, check_texts
from tinygrad_llm.tokenizer.files import StrPath, read_document, read_text, write_document
from tinygrad_llm.tokenizer.train import Pair, learn_merges

PATTERN = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
END_OF_TEXT = "<|endoftext|>"

CACHED_WORDS = 1 << 16
CACHED_LENGTH = 64  # characters: a cache bounded in words alone could still hold 65,536 megabytes
MAX_VOCABULARY_BYTES = 1 << 26  # each merge can double a token: forty lines of a file would spell a terabyte

_SPLIT = regex.compile(PATTERN)
_NO_TOKEN = -1

# GPT-2 numbers the bytes that print before those that do not, and writes the latter as U+0100, U+0101, …
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
BYTES = bytes(_PRINTABLE + [byte for byte in range(256) if byte not in _PRINTABLE])  # id → byte
BYTE_IDS = bytes(BYTES.index(byte) for byte in range(256))  # byte → id, a table for bytes.translate
BYTE_NAMES = [*map(chr, _PRINTABLE), *map(chr, range(0x100, 0x200 - len(_PRINTABLE)))]  # id → its character


class Tokenizer:
    """Text ↔ ids by byte-pair encoding.

    Args:     merges: pairs of ids; the k-th makes id 256 + k. Two merges may spell the same bytes.
              special_tokens: texts that stand for something else than themselves, such as the end of a text.
    Raises:   TokenizerError: a merge that is no pair of ids made before it, or that occurs twice; an empty
              or repeated special token; tokens of more than 64 MiB together.
    Source:   Radford et al. 2019, github.com/openai/gpt-2 (src/encoder.py).
    """

    kind: Literal["bpe"] = "bpe"

    def __init__(self, merges: Iterable[Pair], special_tokens: Iterable[str] = (END_OF_TEXT,)) -> None:
        self.merges: dict[Pair, int] = {}
        self.special_tokens: dict[str, int] = {}
        self._bytes = [bytes([byte]) for byte in BYTES]
        self._cache: dict[str, list[int]] = {}
        spelled = 0
        for index, pair in enumerate(merges):
            made = len(self._bytes)
            left, right = _check_pair(pair, index, made)
            if (left, right) in self.merges:
                raise TokenizerError(f"merge {index} ({left}, {right}) occurs twice")
            spelled += len(self._bytes[left]) + len(self._bytes[right])
            if spelled > MAX_VOCABULARY_BYTES:
                raise TokenizerError(f"merge {index}: the tokens take more than {MAX_VOCABULARY_BYTES} bytes")
            self.merges[left, right] = made
            self._bytes.append(self._bytes[left] + self._bytes[right])
        for token in _check_special_tokens(special_tokens):
            self.special_tokens[token] = len(self._bytes)
            self._bytes.append(token.encode())

    @classmethod
    def gpt2(cls) -> Tokenizer:
        """GPT-2's tokenizer: 50,257 tokens, from the merges that ship with this package."""
        package = Path(__file__).parent.parent
        installed = package / "data"
        data = installed if installed.exists() else package.parent / "data"
        return cls.from_merges_file(data / "gpt2" / "vocab.bpe")

    @classmethod
    def from_merges_file(cls, path: StrPath, special_tokens: Iterable[str] = (END_OF_TEXT,)) -> Tokenizer:
        """Read merges as GPT-2 ships them: a line `#version: …`, then a line a merge, two tokens and a space.

        Only the first line is a header: a later `# #` is a merge. Lines end with "\\n" or "\\r\\n".

        Raises:   TokenizerError: the first defect, after file and line.
        """
        header, *lines = read_text(path).removesuffix("\n").split("\n")
        if not header.startswith("#version"):
            raise TokenizerError(f"{path}, line 1: expected a header that starts with #version")
        ids = {name: token_id for token_id, name in enumerate(BYTE_NAMES)}
        merges: list[Pair] = []
        for number, line in enumerate(lines, start=2):
            names = line.removesuffix("\r").split(" ")
            if len(names) != 2:
                raise TokenizerError(f"{path}, line {number}: expected two tokens with a space between")
            for name in names:
                if name not in ids:
                    raise TokenizerError(f"{path}, line {number}: no line above makes the token {name!a}")
            made = "".join(names)
            if made in ids:
                raise TokenizerError(f"{path}, line {number}: the token {made!a} is already made above")
            merges.append((ids[names[0]], ids[names[1]]))
            ids[made] = len(ids)
        try:
            return cls(merges, special_tokens)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    @classmethod
    def train(
        cls,
        text_or_texts: str | Iterable[str],
        vocab_size: int,
        special_tokens: Iterable[str] = (END_OF_TEXT,),
        progress: Callable[[int, int], None] | None = None,
    ) -> Tokenizer:
        """Learn the merges of a text, or of several; what stands in it as a special token teaches nothing.

        The most frequent pair is merged first; among equals, the one with the smallest ids. If no pair is
        left that occurs twice, training stops and `n_vocab` is smaller than `vocab_size`.

        Args:     vocab_size: bytes, merges and special tokens. progress: called with (merges done, wanted).
        Raises:   TokenizerError: vocab_size does not hold the bytes and the special tokens; a text that
                  `encode` would refuse.
        """
        specials = _check_special_tokens(special_tokens)
        smallest = len(BYTES) + len(specials)
        if type(vocab_size) is not int or vocab_size < smallest:
            raise TokenizerError(
                f"vocab_size is {vocab_size!r}; {len(BYTES)} bytes and {len(specials)} special tokens need "
                f"an integer of at least {smallest}"
            )
        words: Counter[str] = Counter()
        for text in check_texts(text_or_texts):
            for piece in _split_at(specials, text)[::2]:
                words.update(match.group() for match in _SPLIT.finditer(piece))
        word_counts = {word.encode().translate(BYTE_IDS): count for word, count in words.items()}
        return cls(learn_merges(word_counts, vocab_size - smallest, progress), specials)

    @classmethod
    def load(cls, path: StrPath) -> Tokenizer:
        """Read what `save` wrote.

        Raises:   TokenizerError: whatever is wrong with the file, after its path.
        """
        return cls.from_document(read_document(path), path)

    @classmethod
    def from_document(cls, document: dict[str, Any], path: StrPath) -> Tokenizer:
        """Build the tokenizer that `read_document` found at `path`."""
        if document["kind"] != cls.kind:
            raise TokenizerError(f"{path}: kind is {document['kind']!r}, not 'bpe'; use load_tokenizer")
        for field in ("merges", "special_tokens"):
            if not isinstance(document[field], list):
                raise TokenizerError(f"{path}: {field} is not a list")
        try:
            return cls(document["merges"], document["special_tokens"])
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    def save(self, path: StrPath) -> None:
        """Write a JSON file, whole or not at all.

        Raises:   TokenizerError: the folder or the disk refuses.
        """
        fields = {"merges": list(self.merges), "special_tokens": list(self.special_tokens)}
        write_document(path, self.kind, fields)

    @property
    def n_vocab(self) -> int:
        """How many ids there are."""
        return len(self._bytes)

    @property
    def eot_token(self) -> int | None:
        """The id of `<|endoftext|>`, or None."""
        return self.special_tokens.get(END_OF_TEXT)

    def encode(
        self,
        text: str,
        allowed_special: Collection[str] | Literal["all"] = frozenset(),
        disallowed_special: Collection[str] | Literal["all"] = "all",
    ) -> list[int]:
        """Turn a text into ids.

        A special token in a text is an error unless you say what it is: a text from outside must not be
        able to end itself.

        Args:     allowed_special: the special tokens that become their own id, or "all" of them.
                  disallowed_special: those that raise; "all": all that are not allowed. With () they are
                  plain text.
        Raises:   TokenizerError: a disallowed special token, and its position; half of a surrogate pair.
        Source:   the rules are those of github.com/openai/tiktoken.
        """
        check_text(text)
        for option, value in (("allowed", allowed_special), ("disallowed", disallowed_special)):
            if isinstance(value, str) and value != "all":
                raise TokenizerError(f'{option}_special is {value!r}; give "all" or a set of special tokens')
        specials = self.special_tokens.keys()
        allowed = specials if allowed_special == "all" else specials & allowed_special
        for token in specials - allowed if disallowed_special == "all" else disallowed_special:
            if token in text:
                raise TokenizerError(
                    f"the text holds the special token {token!r} at position {text.index(token)}; allow it "
                    "with allowed_special, or take it for plain text with disallowed_special=()"
                )
        ids: list[int] = []
        for index, piece in enumerate(_split_at(allowed, text)):
            if index % 2:
                ids.append(self.special_tokens[piece])
            else:
                for match in _SPLIT.finditer(piece):
                    ids += self._encode_word(match.group())
        return ids

    def _encode_word(self, word: str) -> list[int]:
        ids = self._cache.get(word)
        if ids is None:
            ids = self._merge(word.encode().translate(BYTE_IDS))
            if len(word) <= CACHED_LENGTH:
                if len(self._cache) >= CACHED_WORDS:
                    self._cache.clear()
                self._cache[word] = ids
        return ids

    def _merge(self, byte_ids: bytes) -> list[int]:
        """Merge the pair learned first, leftmost first, until there is none: O(n log n).

        The parts form a ring, closed by one that merges with nothing. Merging writes the new id over the
        left part and takes the right one out; what the heap says of parts that have changed since is
        ignored.
        """
        size, merges = len(byte_ids), self.merges
        parts = [*byte_ids, _NO_TOKEN]
        before = [size, *range(size)]
        after = [*range(1, size + 1), 0]
        heap = [(merges[pair], left) for left, pair in enumerate(pairwise(parts)) if pair in merges]
        heapify(heap)
        while heap:
            made, left = heappop(heap)
            right = after[left]
            if merges.get((parts[left], parts[right])) != made:
                continue
            parts[left], parts[right] = made, _NO_TOKEN
            after[left] = after[right]
            before[after[right]] = left
            for start in (before[left], left):
                pair = (parts[start], parts[after[start]])
                if pair in merges:
                    heappush(heap, (merges[pair], start))
        return [part for part in parts if part != _NO_TOKEN]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into text; bytes that are no UTF-8 become U+FFFD.

        Raises:   TokenizerError: an id that is none.
        """
        return self.decode_bytes(ids).decode(errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Turn ids into exactly the bytes they stand for.

        Raises:   TokenizerError: an id that is none.
        """
        return b"".join(self._bytes[i] for i in check_ids(ids, self.n_vocab))


def _check_pair(pair: object, index: int, made: int) -> Pair:
    """Return the two ids of merge number `index`, both below `made`."""
    match pair:
        case [int(left), int(right)] if not isinstance(left, bool) and not isinstance(right, bool):
            if 0 <= left < made and 0 <= right < made:
                return left, right
            raise TokenizerError(f"merge {index} joins {left} and {right}; so far only 0 … {made - 1} exist")
    raise TokenizerError(f"merge {index} is not a pair of integers")


def _check_special_tokens(special_tokens: Iterable[str]) -> list[str]:
    """Return the special tokens: texts, none empty, none twice."""
    if isinstance(special_tokens, str):
        raise TokenizerError(f"special_tokens is the text {special_tokens!r}; give a list of texts")
    tokens: dict[str, None] = {}
    for token in special_tokens:
        if not check_text(token) or token in tokens:
            raise TokenizerError(f"special token {token!a} is {'given twice' if token else 'empty'}")
        tokens[token] = None
    return list(tokens)


def _split_at(special_tokens: Iterable[str], text: str) -> list[str]:
    """Split into plain text, special token, plain text, …; where two could start, the longer is taken."""
    longest_first = sorted(special_tokens, key=len, reverse=True)
    if not longest_first:
        return [text]
    return re.split(f"({'|'.join(map(re.escape, longest_first))})", text)
