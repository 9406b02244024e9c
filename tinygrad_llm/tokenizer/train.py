"""Learning merges: join the most frequent pair of neighbours, again and again.

A word is a str here, a character for each id: then `word.replace(pair, made)` is a whole merge, and a pair, a str
of two, sorts as its two ids do.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from itertools import chain
from operator import add

from tinygrad_llm.tokenizer.pattern import split_chunks, split_stretches, split_words

Pair = tuple[int, int]

MAX_IDS = 0x110000  # as many as there are characters
LONG_CHUNK = 64  # characters: what is longer hardly recurs, but its words do


def count_words(texts: Iterable[str]) -> Counter[str]:
    """Count the words of texts, of which there may be more than memory holds: only the counts are kept."""
    chunk_counts: Counter[str] = Counter()
    for text in texts:
        for stretch in split_stretches(text):
            chunks = split_chunks(stretch)
            if max(map(len, chunks), default=0) > LONG_CHUNK:
                long = [chunk for chunk in chunks if len(chunk) > LONG_CHUNK]
                chunks = [chunk for chunk in chunks if len(chunk) <= LONG_CHUNK]
                chunks += chain.from_iterable(map(split_words, long))
            chunk_counts.update(chunks)
    word_counts: Counter[str] = Counter()
    for chunk, count in chunk_counts.items():
        for word in split_words(chunk):  # a word is split into itself
            word_counts[word] += count
    return word_counts


def learn_merges(
    word_counts: Mapping[bytes, int],
    n_merges: int,
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Learn up to `n_merges` merges from words and how often each occurs; fewer once no pair occurs twice.

    A pair counts once at every place it stands, overlaps included: `aaa` holds `aa` twice. The most
    frequent pair is merged; among equals, the one with the smallest ids.

    Args:     word_counts: words as ids below 256, one a byte. n_merges: at most MAX_IDS − 256.
              progress: called with (merges done, n_merges).
    Returns:  pairs of ids; the k-th pair makes id 256 + k.
    Source:   Sennrich et al. 2016, arXiv:1508.07909.
    """
    words = [word.decode("latin-1") for word in word_counts]
    counts = list(word_counts.values())
    pair_counts: defaultdict[str, int] = defaultdict(int)
    places: defaultdict[str, list[int]] = defaultdict(list)  # pair → the words it stands in, or once stood in
    for index, word in enumerate(words):
        for pair in map(add, word, word[1:]):
            pair_counts[pair] += counts[index]
            places[pair].append(index)
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
        left, right, made = pair[0], pair[1], chr(256 + len(merges))
        merges.append((ord(left), ord(right)))
        fresh: set[str] = set()
        for index in dict.fromkeys(places.pop(pair)):  # each word once, however often the pair came to stand in it
            if pair not in words[index]:
                continue  # lost to another merge
            word = words[index] = words[index].replace(pair, made)
            count = counts[index]
            # Only the neighbours of what was made have changed: x left right y → x made y.
            at = word.find(made)
            while at >= 0:
                if at and word[at - 1] != made:  # if it is, then it has seen to the pair between the two
                    before = word[at - 1]
                    pair_counts[before + left] -= count
                    fresh.add(before + made)
                    pair_counts[before + made] += count
                    places[before + made].append(index)
                if at + 1 < len(word):
                    after = word[at + 1]
                    pair_counts[right + (left if after == made else after)] -= count
                    fresh.add(made + after)
                    pair_counts[made + after] += count
                    places[made + after].append(index)
                at = word.find(made, at + 1)
        del pair_counts[pair]
        for new in fresh:
            heappush(heap, (-pair_counts[new], new))
        if progress is not None:
            progress(len(merges), n_merges)
    return merges
