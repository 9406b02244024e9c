"""The first steps of the staircase that ends at GPT-2's tokenizer: whole words as tokens.

    SimpleTokenizerV1   a word is a token                  a word that was not in the training text is an error
    SimpleTokenizerV2   + <|unk|> and <|endoftext|>        every text has ids, but unknown words are lost
    CharTokenizer       a character is a token             few tokens, nothing lost of a known alphabet; long rows
    byte pairs          bytes, and pairs that recur        every text has ids and comes back; any pair may merge
    Tokenizer           byte pairs inside of words         GPT-2's: no token runs from one word into the next

The fourth step has no class here. It would take the whole text for one word: "the cat" is the ids of the bytes
t h e ␣ c a t, and each merge writes one new id for a pair of neighbours that was frequent in training, say
t h → th, th e → the, then also the ␣ → "the␣" and perhaps, in the end, "of the␣". The fifth step splits the
text first (`Tokenizer.split`), so that merges cannot spend the vocabulary on such runs of words, on
"dog." beside "dog!" and "dog?"; otherwise it merges in just this way. `tinygrad-llm tokenizer explain` shows it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from tinygrad_llm.tokenizer.bpe import END_OF_TEXT
from tinygrad_llm.tokenizer.checks import TokenizerError, check_ids, check_text, check_texts

_SEPARATORS = re.compile(r"""([,.:;?_!"()']|--|\s)""")
_SPACE_BEFORE_PUNCTUATION = re.compile(r"""\s+([,.:;?!"()'])""")

UNKNOWN = "<|unk|>"


class SimpleTokenizerV1:
    """Words and punctuation marks ↔ ids: the id of a word is its place among the sorted words of a text.

    The first step: a text becomes numbers, and comes back but for its white space. What is missing: it cannot
    write a single word that it was not trained on, and its vocabulary grows with every text.

    Args:     words: each once, in the order of their ids.
    Raises:   TokenizerError: none at all, one twice, or one that `split` takes apart.
    Source:   Raschka, Build a Large Language Model (From Scratch), 2024, chapter 2.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words: list[str] = []
        self.special_tokens: dict[str, int] = {}
        self._ids: dict[str, int] = {}
        for word in check_texts(_several(words)):
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
        """Take the words of a text, or of several, sorted.

        Raises:   TokenizerError: there is no word, or half of a surrogate pair.
        """
        return cls(_distinct_words(text_or_texts))

    @staticmethod
    def split(text: str) -> list[str]:
        """Split into words and punctuation marks; white space separates, and is dropped."""
        return [piece for piece in map(str.strip, _SEPARATORS.split(text)) if piece]

    @property
    def n_vocab(self) -> int:
        """How many ids there are."""
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Turn a text into ids, one a word or punctuation mark.

        Raises:   TokenizerError: a word that has no id.
        """
        return [self._id(word) for word in self.split(check_text(text))]

    def _id(self, word: str) -> int:
        if word not in self._ids:
            raise TokenizerError(
                f"word {word!a} is not among the {self.n_vocab} words this tokenizer was trained on; "
                f"SimpleTokenizerV2 writes {UNKNOWN} for it"
            )
        return self._ids[word]

    def decode(self, ids: Iterable[int]) -> str:
        """Join the words with spaces, none before a punctuation mark.

        Raises:   TokenizerError: an id that is none.
        """
        text = " ".join(self.words[i] for i in check_ids(ids, self.n_vocab))
        return _SPACE_BEFORE_PUNCTUATION.sub(r"\1", text)


class SimpleTokenizerV2(SimpleTokenizerV1):
    """Words ↔ ids, with two more tokens: one for all unknown words, and one for the end of a text.

    The second step: every text has ids, and unrelated texts can follow one another. What is missing: all unknown
    words look alike, and do not come back; "tea" and "teas" have nothing in common; and since <|endoftext|> is
    a word like any other, a text from outside can write it, and so end itself. Characters, the next step, need
    no unknown token for a known alphabet; bytes need none at all.

    Args:     words: without the two, which follow them.
    Source:   Raschka, Build a Large Language Model (From Scratch), 2024, chapter 2.
    """

    def __init__(self, words: Iterable[str]) -> None:
        super().__init__([*_several(words), END_OF_TEXT, UNKNOWN])
        self.special_tokens = {token: self._ids[token] for token in (END_OF_TEXT, UNKNOWN)}

    @classmethod
    def train(cls, text_or_texts: str | Iterable[str]) -> SimpleTokenizerV2:
        """Take the words of a text, or of several, sorted; then <|endoftext|> and <|unk|>.

        Raises:   TokenizerError: half of a surrogate pair.
        """
        return cls(word for word in _distinct_words(text_or_texts) if word not in (END_OF_TEXT, UNKNOWN))

    @property
    def eot_token(self) -> int:
        """The id of `<|endoftext|>`."""
        return self.special_tokens[END_OF_TEXT]

    def encode(self, text_or_texts: str | Iterable[str]) -> list[int]:
        """Turn a text into ids, or several with <|endoftext|> between them.

        Raises:   TokenizerError: half of a surrogate pair.
        """
        return super().encode(f" {END_OF_TEXT} ".join(check_texts(text_or_texts)))

    def _id(self, word: str) -> int:
        return self._ids.get(word, self.special_tokens[UNKNOWN])


def _distinct_words(text_or_texts: str | Iterable[str]) -> list[str]:
    """The words of all texts, each once, sorted."""
    return sorted({word for text in check_texts(text_or_texts) for word in SimpleTokenizerV1.split(text)})


def _several(words: Iterable[str]) -> Iterable[str]:
    if isinstance(words, str):
        raise TokenizerError("words is one text; give a list of words, or use train")
    return words
