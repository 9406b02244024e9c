"""Decoding while ids arrive one by one, without ever showing half a character."""

import codecs

from tinygrad_llm.tokenizer.bpe import Tokenizer
from tinygrad_llm.tokenizer.characters import CharTokenizer


class StreamDecoder:
    """Decodes one id at a time; the pieces of `push` and `finish` join to `tokenizer.decode(ids)`.

    A byte-level token may end inside a character. The first bytes of the character then wait until the others arrive.
    The word tokenizers have no StreamDecoder: the text between two words depends on both words.
    """

    def __init__(self, tokenizer: Tokenizer | CharTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Return the characters that this id completes; "" if it completes none.

        Raises:   TokenizerError: the id is unknown; waiting bytes are kept.
        """
        return self._decoder.decode(self._tokenizer.decode_bytes([token_id]))

    def finish(self) -> str:
        """Return U+FFFD if half a character is still waiting, else ""; then a new stream can begin."""
        return self._decoder.decode(b"", final=True)
