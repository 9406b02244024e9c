"""Chunks and words whose ids are known: a bounded memory, so that a text is not merged again and again."""

from collections.abc import Iterable, Mapping
from itertools import chain, repeat

from tinygrad_llm.tokenizer.merge import merge
from tinygrad_llm.tokenizer.pattern import split_words
from tinygrad_llm.tokenizer.train import Pair

CACHE_SIZE = 1 << 22  # characters and ids, and 16 for each piece: some 100 MB
CACHED_LENGTH = 256  # characters: what is longer hardly recurs

Ids = tuple[int, ...]


class Words(dict[str, Ids]):
    """Word → its ids; a word that is new is merged.

    When it is full, all of it goes: what is frequent is back at once, and a tidier rule would cost something at every
    look-up. Threads may share it: no answer depends on what another has put in or thrown out.

    Args:     byte_ids: byte → id, for bytes.translate. merges: pair → the id it makes.
              tokens: words that are known to become one token, and their ids.
    """

    def __init__(self, byte_ids: bytes, merges: Mapping[Pair, int], tokens: Mapping[str, Ids]) -> None:
        super().__init__(tokens)
        self.byte_ids, self.merges, self.tokens = byte_ids, merges, tokens
        self.room = CACHE_SIZE

    def __missing__(self, word: str) -> Ids:
        ids = tuple(merge(word.encode().translate(self.byte_ids), self.merges))
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
    """Chunk → its ids, for those that were met before; bounded as `Words` are."""

    def __init__(self, words: Words) -> None:
        super().__init__()
        self.words = words
        self.line_feed = words.byte_ids[ord("\n")]
        self.room = CACHE_SIZE

    def encode(self, chunks: list[str]) -> list[int]:
        """Return the ids of several chunks, one after the other."""
        try:
            return list(chain.from_iterable(map(self.__getitem__, chunks)))
        except KeyError:
            found = list(map(self.get, chunks, repeat(())))
            # Each once, and in the order of the text: a set's would scatter in memory what is looked up together.
            new = self._encode_new(dict.fromkeys(chunk for chunk, ids in zip(chunks, found, strict=True) if not ids))
            return list(chain.from_iterable(ids or new[chunk] for chunk, ids in zip(chunks, found, strict=True)))

    def _encode_new(self, chunks: Iterable[str]) -> dict[str, Ids]:
        """Encode chunks and remember them.

        Many are split as one text, with a line feed after each: there is none inside a chunk that is not white space,
        and one after it is a word, and a token, of its own. So line feeds also part the ids.
        """
        groups: tuple[list[str], ...] = [], [], []
        for chunk in chunks:
            # White space is one word (also U+001C … U+001F, not space to PATTERN); ASCII is quicker to split if alone.
            groups[2 if chunk.isspace() else chunk.isascii()].append(chunk)
        new = {chunk: self.words[chunk] for chunk in groups[2]}
        for group in groups[:2]:
            ids = tuple(chain.from_iterable(map(self.words.__getitem__, split_words("\n".join([*group, ""])))))
            start = 0
            for chunk in group:
                end = ids.index(self.line_feed, start)
                new[chunk] = ids[start:end]
                start = end + 1
        kept = {chunk: ids for chunk, ids in new.items() if len(chunk) <= CACHED_LENGTH}
        size = sum(map(len, kept)) + sum(map(len, kept.values())) + 16 * len(kept)
        if size > self.room:
            self.clear()
            self.room = CACHE_SIZE
        self.room -= size
        self.update(kept)
        return new
