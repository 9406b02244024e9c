"""What `Tokenizer`, `CharTokenizer` and `WordPieceTokenizer` share: methods that are made of their other methods."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any, Literal, Self

from tinygrad_llm.tokenizer.files import StrPath, read_document


class BaseTokenizer:
    """A tokenizer that can be saved. A subclass writes `from_document`, `save`, `n_vocab`, `encode` and `decode`."""

    @classmethod
    def load(cls, path: StrPath) -> Self:
        """Load a file that `save` wrote.

        Raises:   TokenizerError: the file cannot be read or is not valid; the message begins with its path.
        """
        return cls.from_document(read_document(path), path)

    @classmethod
    def from_document(cls, document: dict[str, Any], path: StrPath) -> Self:
        """Build the tokenizer from the object that `read_document` returned for `path`."""
        raise NotImplementedError

    def encode(
        self,
        text: str,
        allowed_special: Collection[str] | Literal["all"] = frozenset(),
        disallowed_special: Collection[str] | Literal["all"] = "all",
    ) -> list[int]:
        raise NotImplementedError

    def encode_ordinary(self, text: str) -> list[int]:
        """Encode a text in which special tokens are plain text.

        Raises:   TokenizerError: half of a surrogate pair; a character without an id.
        Source:   github.com/openai/tiktoken, as the other methods of its names.
        """
        return self.encode(text, disallowed_special=())

    def explain_word(self, word: str) -> list[list[int]]:
        """Return the tokens of a word after 0, 1, 2, … merges; the last list is what `encode` returns.

        Without merges, there is one list.

        Raises:   TokenizerError: as `encode_ordinary`.
        """
        return [self.encode_ordinary(word)]

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        raise NotImplementedError

    def decode_batch(self, batch: Iterable[Iterable[int]], *, errors: str = "replace") -> list[str]:
        """Decode several rows of ids; see `decode`."""
        return [self.decode(ids, errors) for ids in batch]

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Decode ids into the UTF-8 of their text; byte pairs, into exactly the bytes that they stand for.

        Raises:   TokenizerError: an unknown id.
        """
        return self.decode(ids).encode()
