"""WordPiece, as BERT does it: a word becomes the longest pieces of it that the vocabulary has.

    words        `basic.split_basic`: lower case without accents, punctuation apart
    pieces       from the left, the longest piece that the vocabulary has, again and again
    ##           marks a piece that continues a word: "playing" → play ##ing

Byte pairs replay the merges that they have learned; WordPiece keeps none, only the tokens that the merges made. So its
whole file is a list, vocab.txt: the token of line n has the id n. A word that pieces cannot spell is [UNK].

Source:   Devlin et al. 2018, arXiv:1810.04805; Wu et al. 2016, arXiv:1609.08144, section 4.1.
"""

from __future__ import annotations

import reprlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from typing import Any, Literal

from tinygrad_llm.tokenizer.base import BaseTokenizer
from tinygrad_llm.tokenizer.basic import split_basic
from tinygrad_llm.tokenizer.bpe import split_at, split_special
from tinygrad_llm.tokenizer.checks import TokenizerError, check_ids, check_text, check_texts
from tinygrad_llm.tokenizer.files import StrPath, check_kind, read_text, write_document, write_text
from tinygrad_llm.tokenizer.train import MAX_IDS, learn_pairs

PAD, UNK, CLS, SEP, MASK = SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CONTINUES = "##"
LONGEST_WORD = 100  # characters; a longer word is [UNK]
ALPHABET = 1000  # characters that training keeps: the most frequent ones
_KNOWN = 1 << 16  # words whose pieces are remembered
_NO_SPACE_BEFORE = (".", "?", "!", ",")


class WordPieceTokenizer(BaseTokenizer):
    """Text ↔ ids by WordPiece: the id of a token is its index in `vocabulary`.

    The last step of the staircase in `words.py`. Upper case, accents, control characters and the kind of white space
    are lost, and unknown characters too: `decode` returns a readable text, not the same one.

    Args:     vocabulary: each token once; [UNK] is among them. Those of [PAD], [UNK], [CLS], [SEP] and [MASK] that it
              holds are the special tokens. lowercase: False for models that tell "Apple" from "apple". strip_accents:
              None: as lowercase.
    Raises:   TokenizerError: no [UNK]; a token that is empty or occurs twice.
    """

    kind: Literal["wordpiece"] = "wordpiece"
    eot_token: None = None

    def __init__(self, vocabulary: Iterable[str], lowercase: bool = True, strip_accents: bool | None = None) -> None:
        if isinstance(vocabulary, str):
            raise TokenizerError("a vocabulary must be a list of tokens, got one str; `from_vocab` takes a file")
        self.lowercase = lowercase
        self.strip_accents = lowercase if strip_accents is None else strip_accents
        self.vocabulary: list[str] = []
        self._ids: dict[str, int] = {}
        for token in check_texts(vocabulary):
            if not token or token in self._ids:
                where = f"token {len(self.vocabulary)}"
                raise TokenizerError(f"{where} is empty" if not token else f"{where}, {token!a}, occurs twice")
            self._ids[token] = len(self.vocabulary)
            self.vocabulary.append(token)
        if UNK not in self._ids:
            raise TokenizerError(f"the vocabulary has no {UNK}, the token of unknown words: add it")
        self.special_tokens: dict[str, int] = {token: self._ids[token] for token in SPECIAL if token in self._ids}
        self._longest = max(map(len, self.vocabulary))
        self._known: dict[str, tuple[int, ...]] = {}  # word → ids, for words that were seen

    def __repr__(self) -> str:
        return f"WordPieceTokenizer({self.n_vocab} ids: {reprlib.repr(self.vocabulary)})"

    # ---- where tokenizers come from, and how they are saved ----

    @classmethod
    def train(
        cls,
        text_or_texts: str | Iterable[str],
        vocab_size: int,
        lowercase: bool = True,
        strip_accents: bool | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> WordPieceTokenizer:
        """Learn pieces from one or several texts. Special tokens in a text are skipped: they teach nothing.

        Ids: the special tokens; every character, and with ## every character that continues a word, both sorted; then
        what the merges make. A character outside the 1,000 most frequent ones stays unknown.

        Merges are chosen as byte pairs choose them: the most frequent pair first, as long as it occurs twice. That is
        the rule of the library `tokenizers`. The rule of the paper weighs a pair by count(a b) / (count(a) · count(b)),
        by which the text becomes more likely; its program was never published. Simple counts give common words a token
        of their own first, and share our trainer. Of equally frequent pairs, the one with the smallest ids is merged.

        Args:     vocab_size: all tokens together; fewer are made where no pair occurs twice any more. progress: called
                  with (merges done, wanted).
        Raises:   TokenizerError: vocab_size is too small for the special tokens and the characters, or above
                  1,114,112; half of a surrogate pair.
        Source:   Schuster & Nakajima 2012, "Japanese and Korean voice search"; Sennrich et al. 2016, arXiv:1508.07909.
        """
        strip = lowercase if strip_accents is None else strip_accents
        words: Counter[str] = Counter()
        for text in check_texts(text_or_texts):
            for piece in split_at(SPECIAL, text)[::2]:
                words.update(split_basic(piece, lowercase, strip))
        alphabet: Counter[str] = Counter()
        for word, count in words.items():
            for character in word:
                alphabet[character] += count
        kept = set(sorted(alphabet, key=lambda c: (-alphabet[c], c))[:ALPHABET])
        words = Counter({word: count for word, count in words.items() if kept.issuperset(word)})
        continuing = sorted({character for word in words for character in word[1:]})
        tokens = sorted(kept) + [CONTINUES + character for character in continuing]
        n_merges = _number_of_merges(vocab_size, len(tokens))
        # A word in the trainer's alphabet: one character per id, and the id of a token is its index in `tokens`.
        ids = {token: chr(index) for index, token in enumerate(tokens)}
        spelled = {
            ids[word[0]] + "".join(ids[CONTINUES + character] for character in word[1:]): count
            for word, count in words.items()
        }
        for left, right in learn_pairs(spelled, len(tokens), n_merges, progress):
            tokens.append(tokens[left] + tokens[right].removeprefix(CONTINUES))
        # Two merges may spell the same piece.
        return cls(dict.fromkeys([*SPECIAL, *tokens]), lowercase, strip_accents)

    @classmethod
    def from_vocab(cls, path: StrPath, lowercase: bool = True, strip_accents: bool | None = None) -> WordPieceTokenizer:
        """Load a vocab.txt: UTF-8, one token a line. It does not say whether the model has lower case; the caller does.

        Raises:   TokenizerError: the first defect, after the path.
        """
        lines = read_text(path).split("\n")
        if not lines[-1]:
            lines.pop()
        try:
            return cls([line.removesuffix("\r") for line in lines], lowercase, strip_accents)
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error} (token n stands in line n + 1)") from None

    def save_vocab(self, path: StrPath) -> None:
        """Write a vocab.txt; a failed write leaves an earlier file unchanged.

        Raises:   TokenizerError: the file cannot be written; a token has a line end in it.
        """
        for token in self.vocabulary:
            if "\n" in token or token.endswith("\r"):
                raise TokenizerError(f"{path}: token {token!a} holds a line end, so a line cannot hold it")
        write_text(path, "".join(f"{token}\n" for token in self.vocabulary))

    @classmethod
    def from_document(cls, document: dict[str, Any], path: StrPath) -> WordPieceTokenizer:
        check_kind(document, cls.kind, path)
        if not isinstance(document["vocabulary"], list):
            raise TokenizerError(f"{path}: vocabulary is not a list")
        for field in ("lowercase", "strip_accents"):
            if not isinstance(document[field], bool):
                raise TokenizerError(f"{path}: {field} is not true or false")
        try:
            return cls(document["vocabulary"], document["lowercase"], document["strip_accents"])
        except TokenizerError as error:
            raise TokenizerError(f"{path}: {error}") from None

    def save(self, path: StrPath) -> None:
        """Write a JSON file; a failed write leaves an earlier file unchanged.

        Raises:   TokenizerError: the file cannot be written.
        """
        fields = {"vocabulary": self.vocabulary, "lowercase": self.lowercase, "strip_accents": self.strip_accents}
        write_document(path, self.kind, fields)

    @property
    def n_vocab(self) -> int:
        """The number of ids."""
        return len(self.vocabulary)

    # ---- text → ids ----

    def encode(
        self,
        text: str,
        allowed_special: Collection[str] | Literal["all"] = frozenset(),
        disallowed_special: Collection[str] | Literal["all"] = "all",
    ) -> list[int]:
        """Encode a text, without [CLS] and [SEP] around it.

        Args:     allowed_special, disallowed_special: as for `Tokenizer.encode`.
        Raises:   TokenizerError: a disallowed special token, with its position; half of a surrogate pair.
        """
        ids: list[int] = []
        pieces = split_special(self.special_tokens, text, allowed_special, disallowed_special)
        for index, piece in enumerate(pieces):
            if index % 2:
                ids.append(self.special_tokens[piece])
            else:
                for word in split_basic(piece, self.lowercase, self.strip_accents):
                    ids += self._known.get(word) or self._word_ids(word)
        return ids

    def _word_ids(self, word: str) -> tuple[int, ...]:
        """The ids of a word's pieces, which are remembered."""
        ids: list[int] = []
        start, prefix = 0, ""
        while start < len(word) <= LONGEST_WORD:
            # The longest piece that begins here and that the vocabulary has.
            stop = min(len(word), start + self._longest)
            while stop > start and prefix + word[start:stop] not in self._ids:
                stop -= 1
            if stop == start:
                break  # not even the character is known
            ids.append(self._ids[prefix + word[start:stop]])
            start, prefix = stop, CONTINUES
        found = tuple(ids) if start == len(word) else (self._ids[UNK],)
        if len(self._known) >= _KNOWN:
            self._known.clear()
        self._known[word] = found
        return found

    def encode_single_token(self, text_or_bytes: str | bytes) -> int:
        """Return the id of one token, such as "##ing" or "[MASK]".

        Raises:   KeyError: it is not in the vocabulary.
        """
        text = text_or_bytes if isinstance(text_or_bytes, str) else bytes(text_or_bytes).decode(errors="replace")
        if text not in self._ids:
            raise KeyError(f"{text_or_bytes!r} is not one of the {self.n_vocab} tokens")
        return self._ids[text]

    def split(self, text: str) -> list[str]:
        """Return the words of a text, cleaned, as they are before they become pieces.

        Raises:   TokenizerError: half of a surrogate pair.
        """
        return split_basic(check_text(text), self.lowercase, self.strip_accents)

    # ---- ids → text ----

    def decode(self, ids: Iterable[int], errors: str = "replace") -> str:
        """Decode ids into words joined by spaces, without a space before . ? ! and a comma.

        A ## at the very beginning stays, since the word that it continues is missing.

        Args:     errors: no effect, since every id is whole characters.
        Raises:   TokenizerError: an unknown id.
        """
        text: list[str] = []
        for token_id in check_ids(ids, self.n_vocab):
            text.append(self.following(token_id) if text else self.vocabulary[token_id])
        return "".join(text)

    def following(self, token_id: int) -> str:
        """Return what a token adds to a text that is not empty."""
        token = self.vocabulary[token_id]
        if token.startswith(CONTINUES):
            return token.removeprefix(CONTINUES)
        return token if token.startswith(_NO_SPACE_BEFORE) else f" {token}"


def _number_of_merges(vocab_size: int, characters: int) -> int:
    smallest = len(SPECIAL) + characters
    if type(vocab_size) is not int or vocab_size < smallest:
        raise TokenizerError(
            f"vocab_size is {vocab_size!r}; {len(SPECIAL)} special tokens and {characters} characters, alone and with "
            f"{CONTINUES}, need an integer of at least {smallest}"
        )
    if vocab_size > MAX_IDS:
        raise TokenizerError(f"vocab_size is {vocab_size}; this trainer learns at most {MAX_IDS}")
    return vocab_size - smallest
