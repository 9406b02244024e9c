"""Whole words as tokens: the first steps of the staircase that leads to the tokenizers of GPT-2 and BERT.

    SimpleTokenizerV1   a word is a token                  a word that was not in the training text is an error
    SimpleTokenizerV2   + <|unk|> and <|endoftext|>        every text has ids, but unknown words are lost
    CharTokenizer       a character is a token             nothing of a known alphabet is lost; rows of ids are long
    byte pairs          bytes, and frequent pairs          every text has ids and comes back; any pair may merge
    Tokenizer           byte pairs inside words            GPT-2's: no token crosses from one word into the next
    WordPieceTokenizer  the longest known pieces of words  BERT's: no bytes, so a word of unknown letters is [UNK]

The fourth step has no class here. It would treat the whole text as one word. "the cat" starts as the ids of the bytes
t h e ␣ c a t. Each merge then replaces a pair of neighbors that was frequent in training by one new id: t h → th,
th e → the, but also the ␣ → "the␣", and perhaps "of the␣" in the end. The fifth step splits the text into words first
(`Tokenizer.split`) and merges inside each word. So the vocabulary is not spent on runs of words, or on "dog." next to
"dog!" and "dog?". `tinygrad-llm tokenizer explain` shows every merge.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Iterable

from tinygrad_llm.tokenizer.bpe import END_OF_TEXT
from tinygrad_llm.tokenizer.checks import TokenizerError, check_ids, check_text, check_texts

_SEPARATORS = re.compile(r"""([,.:;?_!"()']|--|\s)""")
_SPACE_BEFORE_PUNCTUATION = re.compile(r"""\s+([,.:;?!"()'])""")

UNKNOWN = "<|unk|>"


class SimpleTokenizerV1:
    """Words and punctuation marks ↔ ids: the id of a word is its index among the sorted words of a text.

    The first step: a text becomes numbers and comes back, except its white space. Two things are missing. A word
    outside the training text cannot be encoded. The vocabulary grows with every text.

    Args:     words: each word once, in the order of their ids.
    Raises:   TokenizerError: no words, a word twice, or a word that `split` would cut.
    Source:   Raschka, Build a Large Language Model (From Scratch), 2024, chapter 2.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words: list[str] = []
        self.special_tokens: dict[str, int] = {}
        self._ids: dict[str, int] = {}
        for word in check_texts(_check_list(words)):
            if self.split(word) != [word]:
                raise TokenizerError(f"{word!a} is not one word: white space and punctuation separate words")
            if word in self._ids:
                raise TokenizerError(f"word {word!a} occurs twice")
            self._ids[word] = len(self.words)
            self.words.append(word)
        if not self.words:
            raise TokenizerError("a word tokenizer needs at least one word")

    @classmethod
    def train(cls, text_or_texts: str | Iterable[str]) -> SimpleTokenizerV1:
        """Collect the words of one or several texts, sorted.

        Raises:   TokenizerError: no words, or half of a surrogate pair.
        """
        return cls(_distinct_words(text_or_texts))

    @staticmethod
    def split(text: str) -> list[str]:
        """Split into words and punctuation marks; white space separates them and is dropped."""
        return [piece for piece in map(str.strip, _SEPARATORS.split(text)) if piece]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.n_vocab} ids: {reprlib.repr(self.words)})"

    @property
    def n_vocab(self) -> int:
        """The number of ids."""
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Encode a text: one id per word or punctuation mark.

        Raises:   TokenizerError: a word without an id.
        """
        return [self._id(word) for word in self.split(check_text(text))]

    def _id(self, word: str) -> int:
        if word not in self._ids:
            raise TokenizerError(
                f"word {word!a} is not among the {self.n_vocab} words this tokenizer was trained on; "
                f"SimpleTokenizerV2 encodes it as {UNKNOWN}"
            )
        return self._ids[word]

    def decode(self, ids: Iterable[int]) -> str:
        """Decode ids into words joined by spaces, without a space before a punctuation mark.

        Raises:   TokenizerError: an unknown id.
        """
        text = " ".join(self.words[i] for i in check_ids(ids, self.n_vocab))
        return _SPACE_BEFORE_PUNCTUATION.sub(r"\1", text)


class SimpleTokenizerV2(SimpleTokenizerV1):
    """Words ↔ ids, with two more tokens: one for all unknown words, and one for the end of a text.

    The second step: every text has ids, and unrelated texts can follow each other. Three things are missing. All
    unknown words get the same id and do not come back. "tea" and "teas" have nothing in common. <|endoftext|> is a
    word like any other, so a text from outside can contain it and end itself. Characters, the next step, need no
    unknown token for a known alphabet; bytes need none at all.

    Args:     words: without the two tokens, which get the ids after them.
    Source:   Raschka, Build a Large Language Model (From Scratch), 2024, chapter 2.
    """

    def __init__(self, words: Iterable[str]) -> None:
        super().__init__([*_check_list(words), END_OF_TEXT, UNKNOWN])
        self.special_tokens = {token: self._ids[token] for token in (END_OF_TEXT, UNKNOWN)}

    @classmethod
    def train(cls, text_or_texts: str | Iterable[str]) -> SimpleTokenizerV2:
        """Collect the words of one or several texts, sorted; <|endoftext|> and <|unk|> follow.

        Raises:   TokenizerError: half of a surrogate pair.
        """
        return cls(word for word in _distinct_words(text_or_texts) if word not in (END_OF_TEXT, UNKNOWN))

    @property
    def eot_token(self) -> int:
        """The id of `<|endoftext|>`."""
        return self.special_tokens[END_OF_TEXT]

    def encode(self, text_or_texts: str | Iterable[str]) -> list[int]:
        """Encode a text, or several texts with <|endoftext|> between them.

        Raises:   TokenizerError: half of a surrogate pair.
        """
        return super().encode(f" {END_OF_TEXT} ".join(check_texts(text_or_texts)))

    def _id(self, word: str) -> int:
        return self._ids.get(word, self.special_tokens[UNKNOWN])


def _distinct_words(text_or_texts: str | Iterable[str]) -> list[str]:
    """Return the words of all texts, each once, sorted."""
    return sorted({word for text in check_texts(text_or_texts) for word in SimpleTokenizerV1.split(text)})


def _check_list(words: Iterable[str]) -> Iterable[str]:
    if isinstance(words, str):
        raise TokenizerError("words must be a list of words, got one str; `train` takes a text")
    return words
