"""Statistics of the tokens of a text: how many, how long, and how often each occurs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from tinygrad_llm.tokenizer.bpe import Tokenizer, split_at
from tinygrad_llm.tokenizer.characters import CharTokenizer
from tinygrad_llm.tokenizer.wordpiece import WordPieceTokenizer


@dataclass
class TokenStatistics:
    """Counts of texts and of their tokens. A pre-token is a word of `Tokenizer.split`, which no merge crosses."""

    characters: int = 0
    bytes: int = 0
    words: int = 0  # separated by white space
    tokens: Counter[int] = field(default_factory=Counter)  # id → how often it occurs
    pre_tokens: Counter[int] = field(default_factory=Counter)  # length in tokens → how many pre-tokens have it


def token_statistics(
    tokenizer: Tokenizer | CharTokenizer | WordPieceTokenizer, texts: Iterable[str], allow_special: bool = False
) -> TokenStatistics:
    """Count the tokens of texts that follow each other, cut where no token crosses; only counts are kept.

    Args:     allow_special: special tokens in a text are their own id; else they are plain text.
    Raises:   TokenizerError: a text that the tokenizer cannot encode.
    """
    counts = TokenStatistics()
    special = tokenizer.special_tokens if allow_special else {}
    distinct: Counter[str] = Counter()
    encoded: dict[str, list[int]] = {}  # each pre-token is encoded once, when it is first met
    inside_word = False  # whether the text before ended inside a word
    for text in filter(None, texts):
        counts.characters += len(text)
        counts.bytes += len(text.encode())
        counts.words += len(text.split()) - (inside_word and not text[0].isspace())
        inside_word = not text[-1].isspace()
        for index, part in enumerate(split_at(special, text)):
            if index % 2:
                counts.tokens[special[part]] += 1
                continue
            found = Counter(tokenizer.split(part))
            distinct.update(found)
            for word in found.keys() - encoded.keys():
                encoded[word] = tokenizer.encode(word, disallowed_special=())
    for word, count in distinct.items():
        counts.pre_tokens[len(encoded[word])] += count
        for token_id in encoded[word]:
            counts.tokens[token_id] += count
    return counts
