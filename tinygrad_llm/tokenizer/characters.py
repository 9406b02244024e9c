"""The simplest tokenizer that loses nothing: every character of the training text is a token."""

from __future__ import annotations

import reprlib
from collections.abc import Collection, Iterable
from typing import Any, Literal

from tinygrad_llm.tokenizer.base import BaseTokenizer
from tinygrad_llm.tokenizer.checks import TokenizerError, check_ids, check_text, check_texts
from tinygrad_llm.tokenizer.files import StrPath, check_kind, write_document


class CharTokenizer(BaseTokenizer):
    """Characters ↔ ids: the id of a character is its index in `characters`.

    The third step of the staircase in `words.py`. Every text in a known alphabet comes back unchanged. Two things are
    missing. A text has about five times as many ids as with GPT-2's tokenizer. A character outside the list cannot be
    encoded; bytes, the next step, can encode any text. There are no special tokens.

    Args:     characters: each character once.
    Raises:   TokenizerError: no characters, a character twice, or half of a surrogate pair.
    """

    kind: Literal["char"] = "char"
    eot_token: None = None

    def __init__(self, characters: str) -> None:
        self.characters = check_text(characters)
        self.special_tokens: dict[str, int] = {}
        self._ids: dict[str, int] = {}
        for character in characters:
            if character in self._ids:
                raise TokenizerError(f"character {character!a} occurs twice")
            self._ids[character] = len(self._ids)
        if not characters:
            raise TokenizerError("a character tokenizer needs at least one character")

    def __repr__(self) -> str:
        return f"CharTokenizer({self.n_vocab} ids: {reprlib.repr(self.characters)})"

    @classmethod
    def train(cls, text_or_texts: str | Iterable[str]) -> CharTokenizer:
        """Collect the characters of one or several texts, sorted by code point.

        Raises:   TokenizerError: no characters, or half of a surrogate pair.
        """
        found: set[str] = set()
        for text in check_texts(text_or_texts):
            found.update(text)
        return cls("".join(sorted(found)))

    @classmethod
    def from_document(cls, document: dict[str, Any], path: StrPath) -> CharTokenizer:
        check_kind(document, cls.kind, path)
        if not isinstance(document["characters"], str):
            raise TokenizerError(f"{path}: characters is not a string")
        try:
            return cls(document["characters"])
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    def save(self, path: StrPath) -> None:
        """Write a JSON file; a failed write leaves an earlier file unchanged.

        Raises:   TokenizerError: the file cannot be written.
        """
        write_document(path, self.kind, {"characters": self.characters})

    @property
    def n_vocab(self) -> int:
        """The number of ids."""
        return len(self.characters)

    def encode(
        self,
        text: str,
        allowed_special: Collection[str] | Literal["all"] = frozenset(),
        disallowed_special: Collection[str] | Literal["all"] = "all",
    ) -> list[int]:
        """Encode a text: one id per character.

        Args:     allowed_special, disallowed_special: no effect; they let code call any tokenizer alike.
        Raises:   TokenizerError: a character without an id; the message names it and its position.
        """
        ids = self._ids
        try:
            return [ids[character] for character in text]
        except KeyError as error:
            (unknown,) = error.args
            raise TokenizerError(
                f"character {unknown!a} at position {text.index(unknown)} is not among the {self.n_vocab} "
                "characters this tokenizer was trained on"
            ) from None

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        """Return the id of one character.

        Raises:   KeyError: it is not one character, or has no id.
        """
        text = text_or_bytes if isinstance(text_or_bytes, str) else bytes(text_or_bytes).decode(errors="replace")
        if text not in self._ids:
            raise KeyError(f"{text_or_bytes!r} is not one of the {self.n_vocab} characters")
        return self._ids[text]

    def split(self, text: str) -> list[str]:
        """Return the characters of a text: each is a word of its own."""
        return list(text)

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Decode ids into text.

        Args:     errors: no effect, since every id is a whole character.
        Raises:   TokenizerError: an unknown id.
        """
        return "".join(self.characters[i] for i in check_ids(ids, self.n_vocab))
