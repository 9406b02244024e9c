"""`tiktoken` in the words that the book uses: GPT-2's encoding is our Tokenizer, which has tiktoken's methods."""

from collections.abc import Mapping
from typing import Any

from tinygrad_llm.tokenizer import Tokenizer
from tinygrad_llm.torch.missing import NotOffered, lookup

__all__ = ["Encoding", "encoding_for_model", "encoding_name_for_model", "get_encoding", "list_encoding_names"]

__version__ = "0"
_MODELS = ("gpt2", "gpt-2")


class Encoding:
    """An encoding: our Tokenizer, with a name. What the Tokenizer has, this has, too.

    With `mergeable_ranks` of another encoding and more special tokens, as tiktoken is extended.
    """

    def __init__(
        self,
        name: str,
        *,
        pat_str: str = "",
        mergeable_ranks: "Encoding | None" = None,
        special_tokens: Mapping[str, int] | None = None,
        explicit_n_vocab: int | None = None,
    ) -> None:
        self.name = name
        base: Tokenizer = Tokenizer.gpt2() if mergeable_ranks is None else mergeable_ranks._tokenizer
        given = dict(base.special_tokens if special_tokens is None else special_tokens)
        more = {token: number for token, number in given.items() if token not in base.special_tokens}
        if list(more.values()) != list(range(base.n_vocab, base.n_vocab + len(more))):
            raise NotOffered(f"Encoding: new special tokens must have the ids {base.n_vocab}, … in their order")
        self._tokenizer: Tokenizer = base.with_special_tokens(list(more)) if more else base

    @property
    def _pat_str(self) -> str:
        return ""

    @property
    def _mergeable_ranks(self) -> "Encoding":
        return self  # what another Encoding is made from

    @property
    def _special_tokens(self) -> dict[str, int]:
        return dict(self._tokenizer.special_tokens)

    @property
    def special_tokens_set(self) -> set[str]:
        return set(self._tokenizer.special_tokens)

    @property
    def max_token_value(self) -> int:
        return self._tokenizer.n_vocab - 1

    def encode(self, text: str, *, allowed_special: Any = frozenset(), disallowed_special: Any = "all") -> list[int]:
        """See `tinygrad_llm.Tokenizer.encode`."""
        return self._tokenizer.encode(text, allowed_special, disallowed_special)

    def decode_single_token_bytes(self, token: int) -> bytes:
        """The bytes of one token."""
        return self._tokenizer.decode_bytes([token])

    def decode_tokens_bytes(self, tokens: list[int]) -> list[bytes]:
        """The bytes of each token."""
        return [self.decode_single_token_bytes(token) for token in tokens]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._tokenizer, name)

    def __repr__(self) -> str:
        return f"<Encoding {self.name!r}>"


def get_encoding(encoding_name: str) -> Encoding:
    """GPT-2's encoding.

    Raises:   NotOffered: another name.
    """
    if encoding_name not in _MODELS:
        raise NotOffered(
            f"tiktoken.get_encoding: got {encoding_name!r}: only 'gpt2' is here without tiktoken installed"
        )
    return Encoding("gpt2")


def encoding_for_model(model_name: str) -> Encoding:
    """As `get_encoding`, by the name of a model."""
    return get_encoding(model_name)


def encoding_name_for_model(model_name: str) -> str:
    """The name of the encoding of a model."""
    return get_encoding(model_name).name


def list_encoding_names() -> list[str]:
    """The names that `get_encoding` takes."""
    return ["gpt2"]


__getattr__ = lookup("tiktoken", lambda: __all__)
