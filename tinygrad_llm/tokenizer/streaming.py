"""Decoding while ids arrive one by one, without ever showing half a character."""

import codecs

from tinygrad_llm.tokenizer.bpe import Tokenizer
from tinygrad_llm.tokenizer.characters import CharTokenizer
from tinygrad_llm.tokenizer.checks import check_ids
from tinygrad_llm.tokenizer.wordpiece import WordPieceTokenizer


class StreamDecoder:
    """Decodes one id at a time; the pieces of `push` and `finish` join to `tokenizer.decode(ids)`.

    A byte-level token may end inside a character. The first bytes of the character then wait until the others arrive.
    SimpleTokenizerV1 and V2 have no StreamDecoder: the text between two words depends on both words.
    """

    def __init__(self, tokenizer: Tokenizer | CharTokenizer | WordPieceTokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._started = False

    def push(self, token_id: int) -> str:
        """Return the characters that this id completes; "" if it completes none.

        Raises:   TokenizerError: the id is unknown; waiting bytes are kept.
        """
        if self._started and isinstance(self._tokenizer, WordPieceTokenizer):
            (token_id,) = check_ids([token_id], self._tokenizer.n_vocab)
            return self._tokenizer.following(token_id)
        text = self._decoder.decode(self._tokenizer.decode_bytes([token_id]))
        self._started = True
        return text

    def finish(self) -> str:
        """Return U+FFFD if half a character is still waiting, else ""; then a new stream can begin."""
        self._started = False
        return self._decoder.decode(b"", final=True)
