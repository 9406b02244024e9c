"""Looking up all words of a text at once: `WordTable`, a hash table in arrays.

A dict needs a str for each word, and a call for each lookup. Here a word is two integers, its key:

    low     its bytes 0 … 6, and its length in the highest byte
    high    its bytes 7 … 14

So two words have equal keys exactly if they are equal. Longer words have no place in the table.

`slots` has a place for every hash of a key. It holds the number of a word, or 0. If another word took the place first,
the word is in one of the next PROBES − 1 places, or not in the table. This limit bounds the time, whatever the text.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LONGEST = 15  # bytes of a word
CAPACITY = 1 << 17  # words: the arrays take 4 MB
PROBES = 8

Keys = NDArray[np.uint64]
Numbers = NDArray[np.int32]

_SIZES = range(LONGEST + 2)  # the last one stands for all longer words
_LOW_BYTES, _HIGH_BYTES, _LENGTH = (
    np.array(values, np.uint64)
    for values in (
        [256 ** min(size, 7) - 1 for size in _SIZES],
        [256 ** min(max(size - 7, 0), 8) - 1 for size in _SIZES],
        [size << 56 for size in _SIZES],
    )
)
# Multiplying by a large odd number carries every byte of a key into the highest bits.
_LOW_FACTOR, _HIGH_FACTOR = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)


def word_keys(data: bytes, starts: NDArray[np.int64]) -> tuple[Keys, Keys]:
    """Return the keys of words that lie one after another in `data`, as `pattern.find_words` returns them."""
    # The eight bytes from every index on, as one integer: a view into the bytes, in steps of one byte.
    eight: NDArray[Any] = np.ndarray((len(data) + 8,), "<u8", data + bytes(LONGEST), 0, (1,))
    first, sizes = starts[:-1], np.minimum(np.diff(starts), LONGEST + 1)
    low = eight.take(first) & _LOW_BYTES.take(sizes) | _LENGTH.take(sizes)
    return low, eight.take(first + 7) & _HIGH_BYTES.take(sizes)


class WordTable:
    """Word → its number: 1, 2, … in the order in which words were added.

    Args:     capacity: how many words can be added; a power of two.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity, self.count = capacity, 0
        # Three of four places stay empty, so that most words are at the first place where they are looked for.
        self.slots = np.zeros(4 * capacity, np.int32)
        # Number 0 is no word, and its key equals none.
        self.low, self.high = np.zeros(capacity + 1, np.uint64), np.zeros(capacity + 1, np.uint64)

    @property
    def room(self) -> int:
        """The number of words that can still be added."""
        return self.capacity - self.count

    def find(self, data: bytes, starts: NDArray[np.int64]) -> Numbers:
        """Return the number of each word, which is 0 if the table does not have it.

        Args:     as `word_keys`.
        """
        low, high = word_keys(data, starts)
        slots = self._places(low, high)
        numbers = self.slots.take(slots)
        # Those whose place holds another word, or none.
        other = np.flatnonzero((self.low.take(numbers) != low) | (self.high.take(numbers) != high))
        for _ in range(PROBES - 1):
            other = other[numbers[other] > 0]
            if not other.size:
                return numbers
            slots[other] = (slots[other] + 1) % len(self.slots)
            found = numbers[other] = self.slots.take(slots[other])
            other = other[(self.low.take(found) != low[other]) | (self.high.take(found) != high[other])]
        numbers[other] = 0
        return numbers

    def add(self, words: Sequence[bytes]) -> None:
        """Number some words.

        Args:     words: distinct words of at most LONGEST bytes that the table does not have; at most `room`.
        """
        first = self.count + 1
        self.count += len(words)
        starts = np.cumsum([0, *map(len, words)])
        low, high = word_keys(b"".join(words), starts)
        self.low[first : self.count + 1], self.high[first : self.count + 1] = low, high
        numbers, slots = np.arange(first, self.count + 1, dtype=np.int32), self._places(low, high)
        for _ in range(PROBES):
            # Every word goes to its place, if it is empty. If several want the same place, the last one gets it.
            empty = self.slots.take(slots) == 0
            self.slots[slots[empty]] = numbers[empty]
            waiting = self.slots.take(slots) != numbers
            numbers, slots = numbers[waiting], (slots[waiting] + 1) % len(self.slots)

    def _places(self, low: Keys, high: Keys) -> NDArray[np.intp]:
        """Return the place for each key: its hash, which is the highest bits of a sum of products."""
        highest = np.uint64(65 - len(self.slots).bit_length())
        return ((low * _LOW_FACTOR + high * _HIGH_FACTOR) >> highest).astype(np.intp)
