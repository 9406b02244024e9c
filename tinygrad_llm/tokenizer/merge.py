"""Merging a word's bytes into tokens: the pair learned first comes first, and of several, the leftmost."""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise, repeat

from tinygrad_llm.tokenizer.train import Pair

SHORT_WORD = 32  # bytes: up to here, looking through all pairs at each merge is faster than a heap

_NO_TOKEN = -1
_NO_MERGE = 1 << 62  # greater than any id


def merge(word: bytes, merges: Mapping[Pair, int]) -> list[int]:
    """Merge until nothing is left to merge.

    Args:     word: ids below 256, one a byte. merges: pair → the id it makes.
    """
    return _merge_short(word, merges) if len(word) <= SHORT_WORD else _merge_long(word, merges)


def _merge_short(word: bytes, merges: Mapping[Pair, int]) -> list[int]:
    """Merge by looking through all pairs each time: O(n²), but at the speed of C."""
    find = merges.get
    ids = [_NO_TOKEN, *word, _NO_TOKEN]  # so that each of the word's ids has two neighbours
    makes = list(map(find, pairwise(ids), repeat(_NO_MERGE)))
    while (made := min(makes)) != _NO_MERGE:
        at = makes.index(made)
        del makes[at], ids[at]
        ids[at] = made
        makes[at - 1] = find((ids[at - 1], made), _NO_MERGE)
        makes[at] = find((made, ids[at + 1]), _NO_MERGE)
    return ids[1:-1]


def _merge_long(word: bytes, merges: Mapping[Pair, int]) -> list[int]:
    """Merge with a heap of the pairs: O(n log n).

    The parts form a ring, closed by one that merges with nothing. Merging writes the new id over the
    left part and takes the right one out; what the heap says of parts that have changed since is
    ignored.
    """
    size = len(word)
    parts = [*word, _NO_TOKEN]
    before = [size, *range(size)]
    after = [*range(1, size + 1), 0]
    heap = [(merges[pair], left) for left, pair in enumerate(pairwise(parts)) if pair in merges]
    heapify(heap)
    while heap:
        made, left = heappop(heap)
        right = after[left]
        if merges.get((parts[left], parts[right])) != made:
            continue
        parts[left], parts[right] = made, _NO_TOKEN
        after[left] = after[right]
        before[after[right]] = left
        for start in (before[left], left):
            pair = (parts[start], parts[after[start]])
            if pair in merges:
                heappush(heap, (merges[pair], start))
    return [part for part in parts if part != _NO_TOKEN]
