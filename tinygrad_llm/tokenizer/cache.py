"""The fast path of `Tokenizer.encode`: two bounded dictionaries, so that the same word is not merged again and again.

chunk → ids    found: the usual case, one lookup in C per chunk (`Chunks.encode`)
word → ids     for chunks that are new: split them into words and look those up (`Words`)
merge          for words that are new (`merge.merge`)
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, repeat

from tinygrad_llm.tokenizer.merge import Pair, merge
from tinygrad_llm.tokenizer.pattern import split_words

CACHE_SIZE = 1 << 22  # characters + ids + 16 per entry: about 100 MB
CACHED_LENGTH = 256  # characters: longer pieces rarely recur

Ids = tuple[int, ...]


class Words(dict[str, Ids]):
    """Word → its ids; a new word is merged when it is looked up.

    When the dictionary is full, it is emptied: frequent words return at once, and a better rule would cost time at
    every lookup. Threads may share it, because no answer depends on which words are in it.

    Args:     byte_ids: byte → id, for bytes.translate. merges: pair → the id that it makes.
              tokens: words that are one token, and their ids; they return after each emptying. ids: replace the ids
              of the bytes and merges, if given.
    """

    def __init__(
        self, byte_ids: bytes, merges: Mapping[Pair, int], tokens: Mapping[str, Ids], ids: Sequence[int] | None = None
    ) -> None:
        super().__init__(tokens)
        self.byte_ids, self.merges, self.tokens, self.ids = byte_ids, merges, tokens, ids
        self.room = CACHE_SIZE

    def __missing__(self, word: str) -> Ids:
        merged = merge(word.encode().translate(self.byte_ids), self.merges)
        ids = tuple(merged if self.ids is None else map(self.ids.__getitem__, merged))
        if len(word) <= CACHED_LENGTH:
            size = 16 + len(word) + len(ids)
            if size > self.room:
                self.clear()
                self.update(self.tokens)
                self.room = CACHE_SIZE
            self.room -= size
            self[word] = ids
        return ids


class Chunks(dict[str, Ids]):
    """Chunk → its ids, for the chunks seen so far; bounded like `Words`."""

    def __init__(self, words: Words) -> None:
        super().__init__()
        self.words = words
        (self.line_feed,) = words["\n"]
        self.room = CACHE_SIZE

    def encode(self, chunks: list[str]) -> list[int]:
        """Return the ids of several chunks, joined."""
        # The usual case: every chunk is known, and C does all lookups.
        try:
            return list(chain.from_iterable(map(self.__getitem__, chunks)))
        except KeyError:
            # Some chunks are new. Encode each of them once. `dict.fromkeys` keeps the order of the text, so that chunks
            # that are looked up together lie together in memory.
            found = list(map(self.get, chunks, repeat(())))
            new = self._encode_new(dict.fromkeys(chunk for chunk, ids in zip(chunks, found, strict=True) if not ids))
            return list(chain.from_iterable(ids or new[chunk] for chunk, ids in zip(chunks, found, strict=True)))

    def _encode_new(self, chunks: Iterable[str]) -> dict[str, Ids]:
        """Encode new chunks and keep their ids.

        Many chunks are split at once, as one text with a line feed after each. That is safe: a chunk of non-space holds
        no line feed, and the line feed after it is a word and a token of its own. So it also separates the ids.
        """
        # White space is one word; so are U+001C … U+001F, which are not space in PATTERN. The other chunks are split
        # in two groups, because text that is only ASCII splits faster.
        groups: tuple[list[str], ...] = [], [], []
        for chunk in chunks:
            groups[2 if chunk.isspace() else chunk.isascii()].append(chunk)
        new = {chunk: self.words[chunk] for chunk in groups[2]}
        # Split each group as one text, look up its words, and cut the ids at the line feeds.
        for group in groups[:2]:
            ids = tuple(chain.from_iterable(map(self.words.__getitem__, split_words("\n".join([*group, ""])))))
            start = 0
            for chunk in group:
                end = ids.index(self.line_feed, start)
                new[chunk] = ids[start:end]
                start = end + 1
        # Keep the short ones; empty the dictionary first if they do not fit.
        kept = {chunk: ids for chunk, ids in new.items() if len(chunk) <= CACHED_LENGTH}
        size = sum(map(len, kept)) + sum(map(len, kept.values())) + 16 * len(kept)
        if size > self.room:
            self.clear()
            self.room = CACHE_SIZE
        self.room -= size
        self.update(kept)
        return new
