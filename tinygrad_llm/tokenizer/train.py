"""Learning merges: join the most frequent pair of neighbors into a new token, again and again.

Here a word is a str with one character per id. So `word.replace(pair, made)` is a whole merge, and two pairs, each a
str of two characters, compare as their ids do.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from heapq import heapify, heappop, heappush
from operator import add

import numpy as np

from tinygrad_llm.tokenizer.merge import Pair
from tinygrad_llm.tokenizer.pattern import LONG_TEXT, find_words, split_stretches, split_words
from tinygrad_llm.tokenizer.table import LONGEST, WordTable

MAX_IDS = 0x110000  # the number of characters that a str can hold


def count_words(texts: Iterable[str]) -> Counter[str]:
    """Count the words of all texts. Only the counts are kept, so the texts may be larger than memory."""
    word_counts: Counter[str] = Counter()
    # In a long text, the words that the table has are counted at once, and the others, new or long, one by one.
    table, names = WordTable(), [b""]  # word → number, and number → word
    counts = np.zeros(table.capacity + 1, np.int64)  # number → how often the word was found
    for text in texts:
        for stretch in split_stretches(text):
            if len(stretch) < LONG_TEXT:
                word_counts.update(split_words(stretch))
                continue
            data, starts = find_words(stretch)
            numbers = table.find(data, starts)
            found = np.bincount(numbers)
            counts[: len(found)] += found
            missing = np.flatnonzero(numbers == 0)
            spans = zip(starts[missing].tolist(), starts[missing + 1].tolist(), strict=True)
            others = Counter([data[start:end] for start, end in spans])
            word_counts.update({word.decode(): count for word, count in others.items()})
            new = [word for word in others if len(word) <= LONGEST][: table.room]
            table.add(new)
            names += new
    word_counts.update({names[number].decode(): int(counts[number]) for number in np.flatnonzero(counts[1:]) + 1})
    return word_counts


def learn_merges(
    word_counts: Mapping[bytes, int], n_merges: int, progress: Callable[[int, int], None] | None = None
) -> list[Pair]:
    """Learn up to `n_merges` merges from words and their counts; fewer if no pair occurs twice any more.

    A pair is counted at every place where it stands, overlaps included: `aaa` holds `aa` twice. The most frequent pair
    is merged; of equally frequent pairs, the one with the smallest ids.

    Args:     word_counts: word → count; words are ids below 256, one per byte. n_merges: at most MAX_IDS − 256.
              progress: called with (merges done, n_merges).
    Returns:  pairs of ids; pair number k makes id 256 + k.
    Source:   Sennrich et al. 2016, arXiv:1508.07909.
    """
    return learn_pairs({word.decode("latin-1"): count for word, count in word_counts.items()}, 256, n_merges, progress)


def learn_pairs(
    word_counts: Mapping[str, int], first: int, n_merges: int, progress: Callable[[int, int], None] | None = None
) -> list[Pair]:
    """Learn merges as `learn_merges` does, of words in any alphabet.

    Args:     word_counts: word → count; words have one character per id below `first`. n_merges: at most MAX_IDS −
              `first`.
    Returns:  pairs of ids; pair number k makes id `first` + k.
    """
    words, counts = list(word_counts), list(word_counts.values())
    # Count every pair once. From here on the counts are only updated where a merge changes a word.
    pair_counts: defaultdict[str, int] = defaultdict(int)
    places: defaultdict[str, list[int]] = defaultdict(list)  # pair → indices of the words that hold it, or once held it
    for index, word in enumerate(words):
        for pair in map(add, word, word[1:]):
            pair_counts[pair] += counts[index]
            places[pair].append(index)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapify(heap)

    merges: list[Pair] = []
    while heap and len(merges) < n_merges:
        # Take the most frequent pair. The counts of old pairs only fall, so a heap entry may hold too large a count:
        # then push it again with its true count.
        promised, pair = heappop(heap)
        count = pair_counts[pair]
        if count < 2:
            continue
        if count != -promised:
            heappush(heap, (-count, pair))
            continue
        left, right, made = pair[0], pair[1], chr(first + len(merges))
        merges.append((ord(left), ord(right)))
        # Merge it in every word that holds it. A word is listed once per time it gained the pair, but merged once.
        new_pairs: set[str] = set()
        for index in dict.fromkeys(places.pop(pair)):
            if pair not in words[index]:
                continue  # another merge has used its letters
            word = words[index] = words[index].replace(pair, made)
            count = counts[index]
            # Only the neighbors of the new token have changed: x left right y → x made y.
            at = word.find(made)
            while at >= 0:
                if at and word[at - 1] != made:  # the new token before this one has counted the pair of the two
                    before = word[at - 1]
                    pair_counts[before + left] -= count
                    new_pairs.add(before + made)
                    pair_counts[before + made] += count
                    places[before + made].append(index)
                if at + 1 < len(word):
                    after = word[at + 1]
                    pair_counts[right + (left if after == made else after)] -= count
                    new_pairs.add(made + after)
                    pair_counts[made + after] += count
                    places[made + after].append(index)
                at = word.find(made, at + 1)
        # The merged pair is gone; the pairs that came into being compete from now on.
        del pair_counts[pair]
        for new in new_pairs:
            heappush(heap, (-pair_counts[new], new))
        if progress is not None:
            progress(len(merges), n_merges)
    return merges
