"""The simplest tokenizer: every character that occurs in a text is a token."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal

from tinygrad_llm.tokenizer.checks import TokenizerError, check_ids, check_text, check_texts
from tinygrad_llm.tokenizer.files import StrPath, read_document, write_document


class CharTokenizer:
    """Characters ↔ ids: the id of a character is its place in `characters`.

    The third step of the staircase in `words.py`: no word is unknown any more, and every text of a known alphabet
    comes back whole. What is missing: rows are long, some five times those of GPT-2; and a text with a character
    that is not in the list cannot be written, which bytes, the next step, can.
    There are no special tokens.

    Args:     characters: each once.
    Raises:   TokenizerError: none at all, one twice, or half of a surrogate pair.
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

    @classmethod
    def train(cls, text_or_texts: str | Iterable[str]) -> CharTokenizer:
        """Take the characters of a text, or of several, in the order of their code points.

        Raises:   TokenizerError: there is no character, or half of a surrogate pair.
        """
        found: set[str] = set()
        for text in check_texts(text_or_texts):
            found.update(text)
        return cls("".join(sorted(found)))

    @classmethod
    def load(cls, path: StrPath) -> CharTokenizer:
        """Read what `save` wrote.

        Raises:   TokenizerError: whatever is wrong with the file, after its path.
        """
        return cls.from_document(read_document(path), path)

    @classmethod
    def from_document(cls, document: dict[str, Any], path: StrPath) -> CharTokenizer:
        """Build the tokenizer that `read_document` found at `path`."""
        if document["kind"] != cls.kind:
            raise TokenizerError(f"{path}: kind is {document['kind']!r}, not 'char'; use load_tokenizer")
        if not isinstance(document["characters"], str):
            raise TokenizerError(f"{path}: characters is not a string")
        try:
            return cls(document["characters"])
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    def save(self, path: StrPath) -> None:
        """Write a JSON file, whole or not at all.

        Raises:   TokenizerError: the folder or the disk refuses.
        """
        write_document(path, self.kind, {"characters": self.characters})

    @property
    def n_vocab(self) -> int:
        """How many ids there are."""
        return len(self.characters)

    def encode(
        self,
        text: str,
        allowed_special: Collection[str] | Literal["all"] = frozenset(),
        disallowed_special: Collection[str] | Literal["all"] = "all",
    ) -> list[int]:
        """Turn a text into ids, one a character.

        Args:     allowed_special, disallowed_special: as in `Tokenizer.encode`, so that either can be called;
                  they have no effect, for there are no special tokens.
        Raises:   TokenizerError: a character that has no id, and its position.
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

    def split(self, text: str) -> list[str]:
        """Return the characters: each is a word of its own."""
        return list(text)

    def explain_word(self, word: str) -> list[list[int]]:
        """Return the ids after each step, as `Tokenizer.explain_word` does; here nothing merges.

        Raises:   TokenizerError: a character that has no id.
        """
        return [self.encode(word)]

    def decode(self, ids: Iterable[int]) -> str:
        """Turn ids into text.

        Raises:   TokenizerError: an id that is none.
        """
        return "".join(self.characters[i] for i in check_ids(ids, self.n_vocab))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Turn ids into UTF-8.

        Raises:   TokenizerError: an id that is none.
        """
        return self.decode(ids).encode()

    def token_bytes(self, token_id: int) -> bytes:
        """Return the UTF-8 of one token.

        Raises:   TokenizerError: an id that is none.
        """
        return self.decode_bytes([token_id])
