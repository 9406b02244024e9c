"""Byte-level byte-pair encoding, as GPT-2 does it.

A text is split into words (`PATTERN`), a word into the bytes of its UTF-8; then neighbours are merged,
the pair that was learned first coming first, until no two neighbours are a pair that was learned. Since
every byte is a token, every text has ids, and the ids give the text back.

Ids: 0 … 255 the bytes, in GPT-2's order; then one for each merge; then the special tokens.
"""

from __future__ import annotations

import codecs
import copy
import json
import os
import re
import reprlib
from collections.abc import Callable, Collection, Iterable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, Literal

from tinygrad_llm.storage.data import data_folder
from tinygrad_llm.tokenizer.cache import Chunks, Words
from tinygrad_llm.tokenizer.checks import TokenizerError, check_ids, check_text, check_texts
from tinygrad_llm.tokenizer.files import (
    StrPath,
    read_document,
    read_object,
    read_stretches,
    read_text,
    write_document,
    write_text,
)
from tinygrad_llm.tokenizer.pattern import PATTERN as PATTERN
from tinygrad_llm.tokenizer.pattern import split_chunks, split_stretches, split_words
from tinygrad_llm.tokenizer.train import MAX_IDS, Pair, count_words, learn_merges

END_OF_TEXT = "<|endoftext|>"

MAX_VOCABULARY_BYTES = 1 << 26  # each merge can double a token: forty lines of a file would spell a terabyte


_NOT_UTF8 = re.compile("([\udc80-\udcff]+)")  # how "surrogateescape" writes bytes that are no UTF-8

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
        self._start_cache(learned=False)

    def _start_cache(self, learned: bool) -> None:
        """Forget all words but, if the merges were learned, those that are a token.

        In learned merges, a word that spells a token becomes this token: at each merge, the bytes it was first made of
        were merged as they are when they stand alone. In a list from elsewhere, an earlier merge may prevent that.
        """
        plain = self._bytes[: 256 + len(self.merges)] if learned else []
        # A token that is no text gets surrogates, which are in no word.
        tokens = {token.decode(errors="surrogateescape"): (token_id,) for token_id, token in enumerate(plain)}
        self._learned = learned
        self._chunks = Chunks(Words(BYTE_IDS, self.merges, tokens))

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle everything but the cache, which would be most of it."""
        return {name: value for name, value in vars(self).items() if name != "_chunks"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start_cache(self._learned)

    @classmethod
    def gpt2(cls) -> Tokenizer:
        """GPT-2's tokenizer: 50,257 tokens, from the merges that ship with this package."""
        tokenizer = cls.from_merges_file(data_folder() / "gpt2" / "vocab.bpe")
        tokenizer._start_cache(learned=True)
        return tokenizer

    @classmethod
    def from_merges_file(cls, path: StrPath, special_tokens: Iterable[str] = (END_OF_TEXT,)) -> Tokenizer:
        """Read merges as GPT-2 ships them: a line `#version: …`, then a line a merge, two tokens and a space.

        Only the first line is a header: a later `# #` is a merge. Lines end with "\\n" or "\\r\\n".

        Raises:   TokenizerError: the first defect, after file and line.
        """
        header, *lines = read_text(path).removesuffix("\n").split("\n")
        if not header.startswith("#version") or "\r" in header.removesuffix("\r"):
            raise TokenizerError(
                f"{path}, line 1: expected a header that starts with #version, and lines that end in \\n"
            )
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
    def from_gpt2_files(cls, vocab_bpe: StrPath, encoder_json: StrPath) -> Tokenizer:
        """Read GPT-2's pair: the merges, and the id of each token, which must be the one that the merges give it.

        Tokens that no merge makes are special; their ids go on after those of the merges.

        Raises:   TokenizerError: the first defect, after the file and its line or entry.
        """
        plain = cls.from_merges_file(vocab_bpe, special_tokens=())
        given = read_object(encoder_json)
        if not isinstance(given, dict):
            raise TokenizerError(f"{encoder_json}: expected an object, token → id")
        names: dict[int, str] = {}
        for name, token_id in given.items():
            if type(token_id) is not int:
                raise TokenizerError(f"{encoder_json}: the id of {name!a} is {reprlib.repr(token_id)}, no integer")
            if token_id in names:
                raise TokenizerError(f"{encoder_json}: {names[token_id]!a} and {name!a} have the same id {token_id}")
            names[token_id] = name
        for token_id, name in enumerate(plain._names()):
            if name not in given:
                raise TokenizerError(f"{encoder_json}: no entry for {name!a}, token {token_id} of {vocab_bpe}")
            if given[name] != token_id:
                first = names.get(0)
                hint = "" if first in plain._names() else f" ({first!a} comes first; special tokens must come last)"
                raise TokenizerError(
                    f"{encoder_json}: the id of {name!a} is {given[name]}, but {token_id} in {vocab_bpe}{hint}"
                )
        specials = range(plain.n_vocab, len(given))
        if gap := next((token_id for token_id in specials if token_id not in names), None):
            wrong = next(name for name, token_id in given.items() if not 0 <= token_id < len(given))
            raise TokenizerError(
                f"{encoder_json}: no entry has the id {gap}, but {wrong!a} has {given[wrong]}; ids are 0 … n − 1"
            )
        try:
            return plain.with_special_tokens(names[token_id] for token_id in specials)
        except TokenizerError as error:
            raise TokenizerError(f"{encoder_json}: {error}") from None

    @classmethod
    def train(
        cls,
        text_or_texts: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        vocab_size: int,
        special_tokens: Iterable[str] = (END_OF_TEXT,),
        progress: Callable[[int, int], None] | None = None,
    ) -> Tokenizer:
        """Learn the merges of a text, or of several; what stands in it as a special token teaches nothing.

        A `pathlib.Path` is the text of that file. Files are read, and texts of an iterator taken, piece by piece: only
        the words and their counts are in memory.

        The most frequent pair is merged first; among equals, the one with the smallest ids. If no pair is
        left that occurs twice, training stops and `n_vocab` is smaller than `vocab_size`.

        Args:     vocab_size: bytes, merges and special tokens. progress: called with (merges done, wanted).
        Raises:   TokenizerError: vocab_size does not hold the bytes and the special tokens, or is above
                  1,114,112; a text that `encode` would refuse; a file that is not UTF-8, and where.
        """
        specials = _check_special_tokens(special_tokens)
        smallest = len(BYTES) + len(specials)
        if type(vocab_size) is not int or vocab_size < smallest:
            raise TokenizerError(
                f"vocab_size is {vocab_size!r}; {len(BYTES)} bytes and {len(specials)} special tokens need "
                f"an integer of at least {smallest}"
            )
        if vocab_size > MAX_IDS:
            raise TokenizerError(f"vocab_size is {vocab_size}; this trainer learns at most {MAX_IDS}")
        given = [text_or_texts] if isinstance(text_or_texts, str | os.PathLike) else text_or_texts
        texts = chain.from_iterable(
            read_stretches(text, specials) if isinstance(text, os.PathLike) else check_texts([text]) for text in given
        )
        words = count_words(piece for text in texts for piece in _split_at(specials, text)[::2])
        word_counts = {word.encode().translate(BYTE_IDS): count for word, count in words.items()}
        tokenizer = cls(learn_merges(word_counts, vocab_size - smallest, progress), specials)
        tokenizer._start_cache(learned=True)
        return tokenizer

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

    def save_gpt2(self, folder: StrPath) -> None:
        """Write GPT-2's pair, `vocab.bpe` and `encoder.json`, into a folder, made if need be; each whole or not at all.

        Raises:   TokenizerError: the folder or the disk refuses; two tokens that these files would write alike.
        """
        names = self._names()
        ids: dict[str, int] = {}
        for token_id, name in enumerate([*names, *self.special_tokens]):
            if ids.setdefault(name, token_id) != token_id:
                raise TokenizerError(
                    f"{folder}: GPT-2's files would write {name!a} for token {ids[name]} and token {token_id}; use save"
                )
        lines = [f"{names[left]} {names[right]}\n" for left, right in self.merges]
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError as error:
            raise TokenizerError(f"{folder}: cannot be made: {error.strerror}") from error
        write_text(Path(folder) / "vocab.bpe", "".join(["#version: 0.2\n", *lines]))
        write_text(Path(folder) / "encoder.json", json.dumps(ids))

    def _names(self) -> list[str]:
        """Return what GPT-2's files write for each byte and merge: a printable character a byte."""
        names = list(BYTE_NAMES)
        for left, right in self.merges:
            names.append(names[left] + names[right])
        return names

    def with_special_tokens(self, tokens: Iterable[str]) -> Tokenizer:
        """Return a tokenizer with more special tokens, which take the next ids; this one stays as it is.

        Raises:   TokenizerError: a token that is empty, given twice, or special already.
        """
        added = _check_special_tokens(tokens)
        for token in added:
            if token in self.special_tokens:
                raise TokenizerError(f"special token {token!a} exists already, with id {self.special_tokens[token]}")
        longer = copy.copy(self)
        longer.special_tokens = self.special_tokens | {token: self.n_vocab + k for k, token in enumerate(added)}
        longer._bytes = [*self._bytes, *(token.encode() for token in added)]
        return longer

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
        Where two special tokens begin at the same place, it is the longer that counts.

        Raises:   TokenizerError: a disallowed special token, and its position; half of a surrogate pair.
        Source:   the rules are those of github.com/openai/tiktoken, but for the longer one.
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
                self._encode_plain(piece, ids)
        return ids

    def encode_batch(
        self,
        texts: Iterable[str],
        allowed_special: Collection[str] | Literal["all"] = frozenset(),
        disallowed_special: Collection[str] | Literal["all"] = "all",
    ) -> list[list[int]]:
        """Turn each text into ids, as `encode` does.

        Raises:   TokenizerError: as `encode`; one text where several are meant.
        """
        if isinstance(texts, str):
            raise TokenizerError("texts is a str; give a list of texts, or use encode")
        return [self.encode(text, allowed_special, disallowed_special) for text in texts]

    def encode_bytes(self, data: bytes) -> list[int]:
        """Turn any bytes into ids from which `decode_bytes` gives them back.

        What is UTF-8 is encoded as text, special tokens as plain text, too; each byte that is not part of a character
        (as Python's error handler "surrogateescape" finds them: one from 0x80 on) is one token, and merges with
        nothing. A surrogate that was written as three bytes is no character: three tokens.

        Raises:   TokenizerError: not bytes.
        """
        if not isinstance(data, bytes):
            raise TokenizerError(f"data is bytes, not {type(data).__name__}")
        ids: list[int] = []
        for index, piece in enumerate(_NOT_UTF8.split(data.decode(errors="surrogateescape"))):
            if index % 2:
                ids += piece.encode(errors="surrogateescape").translate(BYTE_IDS)
            else:
                self._encode_plain(piece, ids)
        return ids

    def split(self, text: str) -> list[str]:
        """Return the words that a text is split into before any merge; special tokens are plain text here.

        Raises:   TokenizerError: half of a surrogate pair.
        """
        return split_words(check_text(text))

    def explain_word(self, word: str) -> list[list[int]]:
        """Return the parts of a word after 0, 1, 2, … merges: first an id for each byte, last what `encode` returns.

        The algorithm in its plain form, O(n²): for words that one reads.

        Raises:   TokenizerError: half of a surrogate pair.
        """
        parts = list(check_text(word).encode().translate(BYTE_IDS))
        steps = [parts]
        while known := [
            (self.merges[pair], place) for place, pair in enumerate(pairwise(parts)) if pair in self.merges
        ]:
            made, place = min(known)
            parts = [*parts[:place], made, *parts[place + 2 :]]
            steps.append(parts)
        return steps

    def _encode_plain(self, text: str, ids: list[int]) -> None:
        """Append the ids of a text in which no special token counts."""
        for stretch in split_stretches(text):
            ids += self._chunks.encode(split_chunks(stretch))

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into text; bytes that are no UTF-8 become U+FFFD.

        Raises:   TokenizerError: an id that is none.
        """
        return self.decode_bytes(ids).decode(errors="replace")

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Turn ids into exactly the bytes they stand for.

        Raises:   TokenizerError: an id that is none.
        """
        given = ids if isinstance(ids, list) else list(ids)
        # Plain integers in range, nearly always: looked at, and looked up, at the speed of C.
        if not (given and set(map(type, given)) == {int} and min(given) >= 0 and max(given) < self.n_vocab):
            given = list(check_ids(given, self.n_vocab))
        return b"".join(map(self._bytes.__getitem__, given))

    def token_bytes(self, token_id: int) -> bytes:
        """Return the bytes that one id stands for.

        Raises:   TokenizerError: an id that is none.
        """
        return self.decode_bytes([token_id])

    def decode_with_offsets(self, ids: Iterable[int]) -> tuple[str, list[int]]:
        """Turn ids into text, as `decode` does, and tell for each id in which character its first byte is.

        A token that begins inside a character has the offset of this character.

        Returns:  the text, and for each id an index into it.
        Raises:   TokenizerError: an id that is none.
        Source:   for ids of a text, the offsets of github.com/openai/tiktoken.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        pieces: list[str] = []
        offsets: list[int] = []
        length = 0  # of the pieces
        for token_id in check_ids(ids, self.n_vocab):
            token = self._bytes[token_id]
            first = decoder.decode(token[:1])
            waiting, _ = decoder.getstate()
            # The first byte belongs to the last character so far, which may be one that waits for more bytes. (Half a
            # surrogate, too, waits for its third byte, but shows as two U+FFFD.)
            offsets.append(length + len(first) + len(waiting.decode(errors="replace")) - 1)
            pieces += first, decoder.decode(token[1:])
            length += len(first) + len(pieces[-1])
        return "".join([*pieces, decoder.decode(b"", final=True)]), offsets


def _check_pair(pair: object, index: int, made: int) -> Pair:
    """Return the two ids of merge number `index`, both below `made`."""
    if isinstance(pair, tuple | list) and len(pair) == 2:
        left, right = pair
        if type(left) is type(right) is int:
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
