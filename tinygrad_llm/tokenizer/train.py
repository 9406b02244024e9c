"""Learning merges: join the most frequent pair of neighbours, again and again."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from heapq import heapify, heappop, heappush
from itertools import pairwise

Pair = tuple[int, int]


def learn_merges(
    word_counts: Mapping[bytes, int],
    n_merges: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Learn up to `n_merges` merges from words and how often each occurs; fewer once no pair occurs twice.

    A pair counts once at every place it stands, overlaps included: `aaa` holds `aa` twice. The most
    frequent pair is merged; among equals, the one with the smallest ids.

    Args:     word_counts: words as ids below 256, one a byte. progress: called with (merges done, n_merges).
    Returns:  pairs of ids; the k-th pair makes id 256 + k.
    Source:   Sennrich et al. 2016, arXiv:1508.07909.
    """
    words: list[Sequence[int]] = list(word_counts)
    counts = list(word_counts.values())
    pair_counts: Counter[Pair] = Counter()
    places: defaultdict[Pair, set[int]] = defaultdict(set)  # pair → the words it stands in, or once stood in
    for index, word in enumerate(words):
        for pair in pairwise(word):
            pair_counts[pair] += counts[index]
            places[pair].add(index)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapify(heap)

    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        promised, pair = heappop(heap)
        count = pair_counts[pair]
        if count < 2:
            continue
        if count != -promised:
            # Counts of older pairs only fall, so an entry never promises too little: put the truth back.
            heappush(heap, (-count, pair))
            continue
        made = 256 + len(merges)
        merges.append(pair)
        fresh: set[Pair] = set()
        for index in places.pop(pair):
            for old in pairwise(words[index]):
                pair_counts[old] -= counts[index]
            words[index] = _joined(words[index], pair, made)
            for new in pairwise(words[index]):
                pair_counts[new] += counts[index]
                if made in new:
                    fresh.add(new)
                    places[new].add(index)
        for new in fresh:
            heappush(heap, (-pair_counts[new], new))
        if progress is not None:
            progress(len(merges), n_merges)
    return merges


def _joined(word: Sequence[int], pair: Pair, made: int) -> list[int]:
    """Replace `pair` by the id `made` wherever it stands, from the left."""
    out: list[int] = []
    i = 0
    while i < len(word):
        found = i + 1 < len(word) and (word[i], word[i + 1]) == pair
        out.append(made if found else word[i])
        i += 2 if found else 1
    return out
