"""Text as it is generated, id by id, without ever showing half a character."""

import codecs

from tinygrad_llm.tokenizer.bpe import Tokenizer
from tinygrad_llm.tokenizer.characters import CharTokenizer


class StreamDecoder:
    """Decode one id at a time; what is pushed and finished joins to `tokenizer.decode(ids)`.

    A byte-level token may end inside a character: its first bytes wait here until the rest has come.
    (Not for the word tokenizers: what stands between two words depends on both.)
    """

    def __init__(self, tokenizer: Tokenizer | CharTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        """Return the characters this id completes, perhaps none.

        Raises:   TokenizerError: an id that is none; what waits stays.
        """
        return self._decoder.decode(self._tokenizer.decode_bytes([token_id]))

    def finish(self) -> str:
        """Return U+FFFD if a half character still waits, else nothing, and be ready for a new stream."""
        return self._decoder.decode(b"", final=True)
