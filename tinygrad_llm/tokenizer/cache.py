"""The fast paths of `Tokenizer`. `Cache`, for `encode`, so that the same word is not merged again and again:

short text   chunk → ids in one dictionary; a new chunk is split into words (`KnownIds`)
long text    word → number → ids, for all words at once (`table.WordTable`)
new word     word → ids in another dictionary, for both; a new word is merged (`merge.merge`)

All of them are bounded. When one is full, it is emptied: frequent words return at once, and a better rule would cost
time at every lookup.

`JoinTokens`, for `decode`, joins the bytes of many tokens by arrays.
"""

import threading
from array import array
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, islice

import numpy as np

from tinygrad_llm.tokenizer.pattern import LONG_TEXT, find_words, split_chunks, split_words
from tinygrad_llm.tokenizer.table import LONGEST, WordTable

CACHE_SIZE = 1 << 22  # characters + ids + 16 per entry: about 100 MB
CACHED_LENGTH = 256  # characters: longer pieces rarely recur
BLOCK = 1 << 16  # ids that are decoded at once, so that the arrays stay small

Ids = tuple[int, ...]


class KnownIds(dict[str, Ids]):
    """Piece of text → its ids, which are made when they are first looked up.

    Threads may share it, because no answer depends on which pieces are in it.

    Args:     make: piece → its ids. tokens: pieces that are known from the start, and again after each emptying.
    """

    def __init__(self, make: Callable[[str], Ids], tokens: Mapping[str, Ids]) -> None:
        super().__init__(tokens)
        self.make, self.tokens = make, tokens
        self.room = CACHE_SIZE

    def __missing__(self, piece: str) -> Ids:
        ids = self.make(piece)
        if len(piece) <= CACHED_LENGTH:
            size = 16 + len(piece) + len(ids)
            if size > self.room:
                self.clear()
                self.update(self.tokens)
                self.room = CACHE_SIZE
            self.room -= size
            self[piece] = ids
        return ids


class Cache:
    """Text → ids.

    Args:     merge: word → its ids. tokens: the words that are one token, and their ids.
    """

    def __init__(self, merge: Callable[[str], Ids], tokens: Mapping[bytes, Ids]) -> None:
        # A token that is not UTF-8 gets surrogates, which no word contains.
        words = KnownIds(merge, {token.decode(errors="surrogateescape"): ids for token, ids in tokens.items()})
        self.words = words
        self.chunks = KnownIds(lambda chunk: tuple(chain.from_iterable(map(words.__getitem__, split_words(chunk)))), {})
        self.tokens = {token: ids for token, ids in tokens.items() if len(token) <= LONGEST}
        self.lock = threading.Lock()  # a thread must not read the table while another one changes it
        self.table: WordTable | None = None  # made here if it begins with tokens, else for the first long text
        if tokens:
            self._empty_table()

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, which is a stretch (see `pattern`)."""
        if len(text) < LONG_TEXT:
            return list(chain.from_iterable(map(self.chunks.__getitem__, split_chunks(text))))
        data, starts = find_words(text)
        with self.lock:
            numbers = (self.table or self._empty_table()).find(data, starts)
            ids = self.ids.take(numbers).tolist()
        # Words that are new, or too long for the table, are looked up one by one.
        new: dict[bytes, Ids] = {}
        missing = np.flatnonzero(numbers == 0)
        spans = zip(missing.tolist(), starts[missing].tolist(), starts[missing + 1].tolist(), strict=True)
        for index, start, end in spans:
            word = data[start:end]
            ids[index] = found = self.words[word.decode()]
            if len(word) <= LONGEST:
                new[word] = found
        if new:
            self._keep(new)
        return list(chain.from_iterable(ids))

    def _keep(self, new: Mapping[bytes, Ids]) -> None:
        """Put new words into the table, as far as there is room; empty it first if it is too full for all of them."""
        with self.lock:
            table = self.table
            if table is None or len(new) > table.room:
                table = self._empty_table()
            self._add(table, new, table.room)

    def _empty_table(self) -> WordTable:
        """Begin with a new table, half of which has room for the tokens that were learned first."""
        self.table = table = WordTable()
        self.ids = np.empty(table.capacity + 1, object)  # number of a word → its ids
        self._add(table, self.tokens, table.room // 2)
        return table

    def _add(self, table: WordTable, words: Mapping[bytes, Ids], limit: int) -> None:
        for number, ids in enumerate(islice(words.values(), limit), table.count + 1):
            self.ids[number] = ids
        table.add(list(islice(words, limit)))


class JoinTokens:
    """Ids → the bytes of their tokens, joined.

    Args:     tokens: id → its bytes; none is empty.
    """

    def __init__(self, tokens: Sequence[bytes]) -> None:
        self.bytes = np.frombuffer(b"".join(tokens), np.uint8)  # of all tokens, one after another
        self.sizes = np.array([len(token) for token in tokens])
        self.ends = self.sizes.cumsum()

    def __call__(self, ids: list[int]) -> bytes:
        """Return the bytes of some ids.

        Raises:   TypeError, OverflowError, IndexError: an id that `checks.check_ids` refuses.
        """
        return b"".join([self._join(ids[start : start + BLOCK]) for start in range(0, len(ids), BLOCK)])

    def _join(self, ids: list[int]) -> bytes:
        numbers = np.frombuffer(array("I", ids), np.uintc)
        # An array takes True for 1 and False for 0.
        if any(isinstance(ids[place], bool) for place in np.flatnonzero(numbers < 2).tolist()):
            raise TypeError("a bool is no id")
        sizes, ends = self.sizes.take(numbers), self.ends.take(numbers)
        # Where each byte of the result lies in `self.bytes`: one step after the byte before it, except at the first
        # byte of a token, which is a jump from the end of the token before it.
        steps = np.ones(sizes.sum(), np.int64)
        steps[0] = ends[0] - sizes[0]
        steps[sizes[:-1].cumsum()] = ends[1:] - sizes[1:] - ends[:-1] + 1
        return self.bytes.take(steps.cumsum()).tobytes()
