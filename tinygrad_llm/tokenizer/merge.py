"""Byte-pair encoding of one word: replace pairs of neighbors by the token that they merge into, until none is left.

Two rules decide what merges next. The pair that was learned first comes first. Of several equal pairs, the leftmost
comes first. `merge_steps` follows these rules literally. `merge` returns its last step, but faster.
"""

from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from itertools import pairwise, repeat

Pair = tuple[int, int]

SHORT_WORD = 32  # bytes: up to this length, `min` over all pairs is faster than a heap

_NO_TOKEN = -1
_NO_MERGE = 1 << 62  # greater than any id


def merge_steps(word: bytes, merges: Mapping[Pair, int]) -> list[list[int]]:
    """Return the tokens of a word after 0, 1, 2, … merges: the plain algorithm, O(n²) or worse.

    Args:     word: ids below 256, one per byte. merges: pair of ids → the id that it makes.
    """
    tokens = list(word)
    steps = [tokens]
    while True:
        # List every place where two neighbors can merge, with the id that they make.
        known = [(merges[pair], place) for place, pair in enumerate(pairwise(tokens)) if pair in merges]
        if not known:
            return steps
        # Merges get their ids in the order of learning, so the smallest id is the pair learned first; then the
        # smallest place is the leftmost.
        made, place = min(known)
        # Write the new token over its two parts.
        tokens = [*tokens[:place], made, *tokens[place + 2 :]]
        steps.append(tokens)


def merge(word: bytes, merges: Mapping[Pair, int]) -> list[int]:
    """Return the last of `merge_steps`.

    Args:     as `merge_steps`.
    """
    return _merge_short(word, merges) if len(word) <= SHORT_WORD else _merge_long(word, merges)


def _merge_short(word: bytes, merges: Mapping[Pair, int]) -> list[int]:
    """Merge like `merge_steps`, but keep what each pair makes in a list: O(n²), but in C."""
    find = merges.get
    # A mark at each end gives every token two neighbors; the marks merge with nothing.
    tokens = [_NO_TOKEN, *word, _NO_TOKEN]
    # makes[i] is the id that tokens[i] and tokens[i + 1] make.
    makes = list(map(find, pairwise(tokens), repeat(_NO_MERGE)))
    # The smallest id was learned first, and `index` finds its leftmost place.
    while (made := min(makes)) != _NO_MERGE:
        at = makes.index(made)
        # Two tokens become one, so one token and one pair fewer are left.
        del makes[at], tokens[at]
        tokens[at] = made
        # Only the pairs of the new token with its two neighbors have changed.
        makes[at - 1] = find((tokens[at - 1], made), _NO_MERGE)
        makes[at] = find((made, tokens[at + 1]), _NO_MERGE)
    return tokens[1:-1]


def _merge_long(word: bytes, merges: Mapping[Pair, int]) -> list[int]:
    """Merge like `merge_steps`, with a heap of the pairs: O(n log n)."""
    # Each token knows its neighbors' indices. A mark that merges with nothing closes the row to a ring.
    size = len(word)
    tokens = [*word, _NO_TOKEN]
    before = [size, *range(size)]
    after = [*range(1, size + 1), 0]
    # The heap yields the smallest id first, which was learned first, and of equal ids the leftmost index.
    heap = [(merges[pair], left) for left, pair in enumerate(pairwise(tokens)) if pair in merges]
    heapify(heap)
    while heap:
        made, left = heappop(heap)
        right = after[left]
        # An entry is stale if one of its tokens has changed since it was pushed.
        if merges.get((tokens[left], tokens[right])) != made:
            continue
        # The new token takes the left place; the right place leaves the ring.
        tokens[left], tokens[right] = made, _NO_TOKEN
        after[left] = after[right]
        before[after[right]] = left
        # Push the pairs of the new token with its two neighbors.
        for start in (before[left], left):
            pair = (tokens[start], tokens[after[start]])
            if pair in merges:
                heappush(heap, (merges[pair], start))
    return [token for token in tokens if token != _NO_TOKEN]
