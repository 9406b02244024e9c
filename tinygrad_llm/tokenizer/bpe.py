"""Byte-level byte-pair encoding, as GPT-2 does it: `Tokenizer`.

A text is split into words (`pattern.PATTERN`), and each word into the bytes of its UTF-8. Then neighbors are merged.
Merges start with the pair that was learned earliest, and end when no two neighbors are a known pair
(`merge.merge_steps`). Every byte is a token, so every text has ids, and the ids give the text back.

Ids: 0 … 255 the bytes, in GPT-2's order (`byte_ids`); then one per merge; then the special tokens. Other programs may
put special tokens first; then the bytes and the merges have the ids after them, in the same order.
"""

from __future__ import annotations

import codecs
import contextlib
import copy
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from itertools import chain
from typing import Any, Literal

import numpy as np

from tinygrad_llm.storage.files import data_folder
from tinygrad_llm.tokenizer.base import BaseTokenizer
from tinygrad_llm.tokenizer.byte_ids import BYTE_IDS, BYTES
from tinygrad_llm.tokenizer.cache import Cache, Ids, JoinTokens
from tinygrad_llm.tokenizer.checks import TokenizerError, check_ids, check_text, check_texts
from tinygrad_llm.tokenizer.files import StrPath, check_kind, read_stretches, write_document
from tinygrad_llm.tokenizer.gpt2_files import find_special_tokens, read_ids, read_merges, token_ids, write_gpt2_files
from tinygrad_llm.tokenizer.merge import Pair, merge, merge_steps
from tinygrad_llm.tokenizer.pattern import split_stretches, split_words
from tinygrad_llm.tokenizer.train import MAX_IDS, count_words, learn_merges

END_OF_TEXT = "<|endoftext|>"

MANY_IDS = 100  # decoding fewer takes less time than the calls of NumPy
MAX_VOCABULARY_BYTES = 1 << 26  # each merge can double a token, so forty merges could spell a terabyte

_NOT_UTF8 = re.compile("([\udc80-\udcff]+)")  # how "surrogateescape" decodes bytes that are not UTF-8


class Tokenizer(BaseTokenizer):
    """Text ↔ ids by byte-pair encoding.

    Args:     merges: pairs of ids; pair number k makes id 256 + k. Two merges may spell the same bytes.
              special_tokens: texts with a meaning of their own, such as the end of a text. A mapping gives them ids
              of its own; bytes and merges have the other ids. end_of_text: the special token that ends a text.
    Raises:   TokenizerError: a merge that is not a pair of earlier ids, or that occurs twice; a special token that is
              empty or occurs twice; ids of special tokens that are not in 0 … n_vocab − 1; tokens of more than 64 MiB
              together.
    Source:   Radford et al. 2019, github.com/openai/gpt-2 (src/encoder.py).
    """

    kind: Literal["bpe"] = "bpe"

    def __init__(
        self,
        merges: Iterable[Pair],
        special_tokens: Iterable[str] | Mapping[str, int] = (END_OF_TEXT,),
        end_of_text: str = END_OF_TEXT,
    ) -> None:
        self.end_of_text = end_of_text
        self.merges: dict[Pair, int] = {}
        self._bytes = [bytes([byte]) for byte in BYTES]  # id → the bytes that it stands for
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
        self._place(_check_special_tokens(special_tokens), special_tokens)
        self._start_cache(learned=False)

    def __repr__(self) -> str:
        special = [f"{token} = {token_id}" for token, token_id in self.special_tokens.items()] or ["none"]
        shown = ", ".join(special[:3]) + (f" and {len(special) - 3} more" if special[3:] else "")
        return f"Tokenizer({self.n_vocab} ids: 256 bytes, {len(self.merges)} merges, special: {shown})"

    def _place(self, tokens: list[str], given: Iterable[str] | Mapping[str, int]) -> None:
        """Give the special tokens their ids, and the bytes and merges the ids that remain."""
        plain, n_vocab = iter(self._bytes), len(self._bytes) + len(tokens)
        ids = given if isinstance(given, Mapping) else dict(zip(tokens, range(len(self._bytes), n_vocab), strict=True))
        placed: dict[int, str] = {}
        for token in tokens:
            if type(ids[token]) is not int or not 0 <= ids[token] < n_vocab or ids[token] in placed:
                raise TokenizerError(
                    f"special token {token!a} has the id {ids[token]!r}; ids must be 0 … {n_vocab - 1}, each once"
                )
            placed[ids[token]] = token
        self.special_tokens: dict[str, int] = {placed[token_id]: token_id for token_id in sorted(placed)}
        self._bytes = [placed[i].encode() if i in placed else next(plain) for i in range(n_vocab)]
        # None: the numbers of the bytes and merges are their ids.
        self._ids = (
            [i for i in range(n_vocab) if i not in placed]
            if min(placed, default=n_vocab) < n_vocab - len(placed)
            else None
        )

    def _start_cache(self, learned: bool) -> None:
        """Start with an empty cache; if the merges were learned from texts, with each token as a known word.

        With learned merges, a word that spells a token becomes this token: at each merge, the bytes of the word were
        merged as they are when they stand alone. In other lists of merges, an earlier merge may prevent that.
        """
        plain = self._bytes[: 256 + len(self.merges)] if learned and self._ids is None else []
        self._learned = learned
        self._join: JoinTokens | None = None  # made when it is first needed
        tokens = {token: (token_id,) for token_id, token in enumerate(plain)}
        self._cache = Cache(partial(_merge_word, self.merges, self._ids), tokens)

    def __getstate__(self) -> dict[str, Any]:
        """Copy and pickle everything except the cache, which would be most of it."""
        return {name: value for name, value in vars(self).items() if name not in ("_cache", "_join")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start_cache(self._learned)

    # ---- where tokenizers come from, and how they are saved ----

    @classmethod
    def gpt2(cls) -> Tokenizer:
        """Return GPT-2's tokenizer: 50,257 tokens, from the merges that ship with this package."""
        tokenizer = cls.from_merges_file(data_folder() / "gpt2" / "vocab.bpe")
        tokenizer._start_cache(learned=True)
        return tokenizer

    @classmethod
    def from_merges_file(cls, path: StrPath, special_tokens: Iterable[str] = (END_OF_TEXT,)) -> Tokenizer:
        """Load merges from a file in GPT-2's format (see `gpt2_files`).

        Raises:   TokenizerError: the first defect, after the path and the line.
        """
        merges = read_merges(path)
        try:
            return cls(merges, special_tokens)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    @classmethod
    def from_gpt2_files(
        cls, vocab_bpe: StrPath, encoder_json: StrPath, added_tokens: StrPath | None = None
    ) -> Tokenizer:
        """Load GPT-2's two files: the merges, and the id of each token, which must agree with the merges.

        Tokens that no merge makes are special. The file `added_tokens` holds the ids of more of them.

        Raises:   TokenizerError: the first defect, after the path and its line or entry.
        """
        merges = read_merges(vocab_bpe)
        ids = read_ids(encoder_json) | (read_ids(added_tokens) if added_tokens is not None else {})
        special_tokens = find_special_tokens(encoder_json, ids, merges, vocab_bpe)
        try:
            return cls(merges, special_tokens)
        except TokenizerError as error:
            raise TokenizerError(f"{encoder_json}: {error}") from None

    @classmethod
    def train(
        cls,
        text_or_texts: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        vocab_size: int,
        special_tokens: Iterable[str] = (END_OF_TEXT,),
        progress: Callable[[int, int], None] | None = None,
        keep_newlines: bool = False,
    ) -> Tokenizer:
        """Learn merges from one or several texts. Special tokens in a text are skipped: they teach nothing.

        A `pathlib.Path` stands for the text of that file, as `files.read_stretches` reads it: without a byte order
        mark, and with the line ends of Windows as "\\n". Files and iterators are read piece by piece; only the words
        and their counts stay in memory.

        The most frequent pair is merged first; of equally frequent pairs, the one with the smallest ids. Training stops
        early if no pair occurs twice any more; `n_vocab` is then smaller than `vocab_size`.

        Args:     vocab_size: bytes, merges and special tokens together. progress: called with (merges done, wanted).
                  keep_newlines: leave the line ends of files as they are.
        Raises:   TokenizerError: vocab_size is too small for the bytes and the special tokens, or above 1,114,112; a
                  text that `encode` would refuse; a file that is not UTF-8, with the byte.
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
        given = [text_or_texts] if isinstance(text_or_texts, os.PathLike) else text_or_texts
        given = list(check_texts(given)) if isinstance(given, str) else given

        def read(path: os.PathLike[str]) -> Iterator[str]:
            return (stretch.text for stretch in read_stretches(path, specials, keep_newlines=keep_newlines))

        texts = chain.from_iterable(
            read(text) if isinstance(text, os.PathLike) else check_texts([text]) for text in given
        )
        words = count_words(piece for text in texts for piece in split_at(specials, text)[::2])
        word_counts = {word.encode().translate(BYTE_IDS): count for word, count in words.items()}
        tokenizer = cls(learn_merges(word_counts, vocab_size - smallest, progress), specials)
        tokenizer._start_cache(learned=True)
        return tokenizer

    @classmethod
    def from_document(cls, document: dict[str, Any], path: StrPath) -> Tokenizer:
        check_kind(document, cls.kind, path)
        for field, kinds in (("merges", list), ("special_tokens", list | dict)):
            if not isinstance(document[field], kinds):
                raise TokenizerError(f"{path}: {field} is not a list")
        end_of_text = document.get("end_of_text", END_OF_TEXT)
        if not isinstance(end_of_text, str):
            raise TokenizerError(f"{path}: end_of_text is not a string")
        try:
            return cls(document["merges"], document["special_tokens"], end_of_text)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    def save(self, path: StrPath) -> None:
        """Write a JSON file; a failed write leaves an earlier file unchanged.

        Raises:   TokenizerError: the file cannot be written.
        """
        specials = list(self.special_tokens) if self._ids is None else self.special_tokens
        fields: dict[str, Any] = {"merges": list(self.merges), "special_tokens": specials}
        if self.end_of_text != END_OF_TEXT:
            fields["end_of_text"] = self.end_of_text
        write_document(path, self.kind, fields)

    def save_gpt2(self, folder: StrPath) -> None:
        """Write GPT-2's two files, `vocab.bpe` and `encoder.json`, into a folder, which is made if it is missing.

        Raises:   TokenizerError: a file cannot be written; two tokens have the same name in these files.
        """
        write_gpt2_files(folder, token_ids(folder, self.merges, self.special_tokens), self.merges)

    def with_special_tokens(self, tokens: Iterable[str]) -> Tokenizer:
        """Return a tokenizer with more special tokens, which get the next ids; this one does not change.

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
        """The number of ids."""
        return len(self._bytes)

    @property
    def eot_token(self) -> int | None:
        """The id of the token that ends a text, `<|endoftext|>` by default; None if there is no such token."""
        return self.special_tokens.get(self.end_of_text)

    # ---- text → ids ----

    def encode(
        self,
        text: str,
        allowed_special: Collection[str] | Literal["all"] = frozenset(),
        disallowed_special: Collection[str] | Literal["all"] = "all",
    ) -> list[int]:
        """Encode a text.

        A special token in the text raises unless the caller decides what it means: a text from outside must not be
        able to end itself. If two special tokens begin at the same place, the longer one is taken.

        Args:     allowed_special: the special tokens that become their own id, or "all".
                  disallowed_special: the special tokens that raise; "all": all that are not allowed; (): none, so that
                  those that are not allowed are plain text.
        Raises:   TokenizerError: a disallowed special token, with its position; half of a surrogate pair.
        Source:   the rules of github.com/openai/tiktoken, except the one about the longer token.
        """
        ids: list[int] = []
        pieces = split_special(self.special_tokens.keys(), text, allowed_special, disallowed_special)
        for index, piece in enumerate(pieces):
            if index % 2:
                ids.append(self.special_tokens[piece])
            else:
                self._encode_plain(piece, ids)
        return ids

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        """Return the id of one token, which may be a special one.

        Raises:   KeyError: no token stands for exactly this text or these bytes.
        """
        data = text_or_bytes.encode(errors="surrogatepass") if isinstance(text_or_bytes, str) else bytes(text_or_bytes)
        if data not in self._bytes:
            raise KeyError(f"{text_or_bytes!r} is not one token: encode_ordinary splits a text into tokens")
        return self._bytes.index(data)

    def encode_bytes(self, data: bytes) -> list[int]:
        """Encode any bytes so that `decode_bytes` gives them back.

        UTF-8 is encoded as text, and special tokens in it as plain text. Each byte that is not part of a character
        becomes one token and merges with nothing. A surrogate written as three bytes is not a character: three tokens.

        Raises:   TokenizerError: not bytes.
        """
        if not isinstance(data, bytes):
            raise TokenizerError(f"data must be bytes, got {type(data).__name__}")
        ids: list[int] = []
        for index, piece in enumerate(_NOT_UTF8.split(data.decode(errors="surrogateescape"))):
            if index % 2:
                ids += self._own_ids(piece.encode(errors="surrogateescape").translate(BYTE_IDS))
            else:
                self._encode_plain(piece, ids)
        return ids

    def _encode_plain(self, text: str, ids: list[int]) -> None:
        """Append the ids of a text in which no special token counts."""
        # The definition is to merge each of `split_words(text)` and to join the ids. The cache gives the same ids.
        for stretch in split_stretches(text):
            ids += self._cache.encode(stretch)

    def split(self, text: str) -> list[str]:
        """Return the words of a text, as they are before any merge; special tokens are plain text here.

        Raises:   TokenizerError: half of a surrogate pair.
        """
        return split_words(check_text(text))

    def explain_word(self, word: str) -> list[list[int]]:
        return [self._own_ids(step) for step in merge_steps(check_text(word).encode().translate(BYTE_IDS), self.merges)]

    def _own_ids(self, numbers: Iterable[int]) -> list[int]:
        """Return the ids of bytes and merges, given by their numbers."""
        return list(numbers) if self._ids is None else [self._ids[number] for number in numbers]

    # ---- ids → text ----

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Decode ids into text.

        Args:     errors: what becomes of bytes that are not UTF-8, as for `bytes.decode`: "replace" (by U+FFFD),
                  "ignore", "strict", ….
        Raises:   TokenizerError: an unknown id. UnicodeDecodeError: bytes that are not UTF-8, if errors is "strict".
        """
        return self.decode_bytes(ids).decode(errors=errors)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        if isinstance(ids, np.ndarray) and ids.ndim == 1:
            ids = ids.tolist()
        given = ids if isinstance(ids, list) else list(ids)
        if len(given) >= MANY_IDS:
            if self._join is None:
                self._join = JoinTokens(self._bytes)
            with contextlib.suppress(TypeError, OverflowError, IndexError):  # `check_ids` reports what is wrong
                return self._join(given)
        return b"".join([self._bytes[token_id] for token_id in check_ids(given, self.n_vocab)])

    def decode_with_offsets(self, ids: Iterable[int]) -> tuple[str, list[int]]:
        """Decode ids into text, and find the character that holds the first byte of each token.

        A token that begins inside a character has the offset of this character.

        Returns:  the text, and for each id an index into it.
        Raises:   TokenizerError: an unknown id.
        Source:   for the ids of a text, the offsets of github.com/openai/tiktoken.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        pieces: list[str] = []
        offsets: list[int] = []
        length = 0  # of the pieces
        for token_id in check_ids(ids, self.n_vocab):
            token = self._bytes[token_id]
            first = decoder.decode(token[:1])
            waiting, _ = decoder.getstate()
            # The first byte belongs to the last character so far, which may still wait for more bytes. (The first two
            # bytes of a surrogate wait for the third, but become two U+FFFD.)
            offsets.append(length + len(first) + len(waiting.decode(errors="replace")) - 1)
            pieces += first, decoder.decode(token[1:])
            length += len(first) + len(pieces[-1])
        return "".join([*pieces, decoder.decode(b"", final=True)]), offsets


def _merge_word(merges: Mapping[Pair, int], ids: Sequence[int] | None, word: str) -> Ids:
    """Return the ids of a word; `ids` as `Tokenizer._ids`."""
    merged = merge(word.encode().translate(BYTE_IDS), merges)
    return tuple(merged if ids is None else map(ids.__getitem__, merged))


def split_at(special_tokens: Iterable[str], text: str) -> list[str]:
    """Split into plain text, special token, plain text, …; where two special tokens could begin, take the longer."""
    longest_first = sorted(special_tokens, key=len, reverse=True)
    if not longest_first:
        return [text]
    return re.split(f"({'|'.join(map(re.escape, longest_first))})", text)


def split_special(
    special_tokens: Collection[str],
    text: str,
    allowed_special: Collection[str] | Literal["all"],
    disallowed_special: Collection[str] | Literal["all"],
) -> list[str]:
    """Split as `split_at`, at those special tokens that are allowed; the arguments are those of `Tokenizer.encode`.

    Raises:   TokenizerError: a disallowed special token, with its position; half of a surrogate pair.
    """
    check_text(text)
    for option, value in (("allowed", allowed_special), ("disallowed", disallowed_special)):
        if isinstance(value, str) and value != "all":
            raise TokenizerError(f'{option}_special must be "all" or a set of special tokens, got {value!r}')
    specials = set(special_tokens)
    allowed = specials if allowed_special == "all" else specials.intersection(allowed_special)
    for token in specials - allowed if disallowed_special == "all" else disallowed_special:
        if token in text:
            raise TokenizerError(
                f"the text holds the special token {token!r} at position {text.index(token)}; allow it with "
                "allowed_special, or treat it as plain text with disallowed_special=()"
            )
    return split_at(allowed, text)


def _check_pair(pair: object, index: int, made: int) -> Pair:
    """Return the two ids of merge number `index`; both must be below `made`."""
    if isinstance(pair, tuple | list) and len(pair) == 2:
        left, right = pair
        if type(left) is type(right) is int:
            if 0 <= left < made and 0 <= right < made:
                return left, right
            raise TokenizerError(f"merge {index} joins {left} and {right}; so far only 0 … {made - 1} exist")
    raise TokenizerError(f"merge {index} is not a pair of integers")


def _check_special_tokens(special_tokens: Iterable[str]) -> list[str]:
    """Return the special tokens as a list; none may be empty or occur twice."""
    if isinstance(special_tokens, str):
        raise TokenizerError(f"special_tokens must be a list of texts, got the str {special_tokens!r}")
    tokens: dict[str, None] = {}
    for token in special_tokens:
        if not check_text(token) or token in tokens:
            raise TokenizerError(f"special token {token!a} is {'given twice' if token else 'empty'}")
        tokens[token] = None
    return list(tokens)
