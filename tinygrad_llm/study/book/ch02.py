"""Chapter 2: text, from words to batches of vectors."""

import itertools
from collections import Counter
from functools import cache
from typing import Any

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import DataLoader, SlidingWindows
from tinygrad_llm.nn import Embedding, Linear
from tinygrad_llm.random import Generator
from tinygrad_llm.study.book.ledger import NOTEBOOK, fact
from tinygrad_llm.study.book.material import gpt2, verdict, verdict_ids
from tinygrad_llm.tokenizer import SimpleTokenizerV1, SimpleTokenizerV2, TokenizerError

VERDICT = ("the-verdict",)
END = frozenset({"<|endoftext|>"})


def text_of(ids: str) -> str:
    """The text of GPT-2 ids, written with spaces between them."""
    return gpt2().decode(map(int, ids.split()))


# ---- words -----------------------------------------------------------------------------------------------------------


@fact("ch02-01", "20479", needs=VERDICT)
def characters() -> int:
    """The length of The Verdict in characters."""
    return len(verdict())


@fact("ch02-02", ("Hello", ",", "world", ".", "Is", "this", "--", "a", "test", "?"))
def pieces() -> list[str]:
    """A sentence, split into words and punctuation marks."""
    return SimpleTokenizerV1.split(text_of("15496 11 995 13 1148 428 438 257 1332 30"))


@fact("ch02-03", "4690 1130", needs=VERDICT)
def pieces_of_the_story() -> list[int]:
    """The Verdict: the number of pieces, and of different ones."""
    found = SimpleTokenizerV1.split(verdict())
    return [len(found), len(set(found))]


@fact("ch02-04", "! -- A Gisburn HAD Hermia", needs=VERDICT)
def vocabulary() -> list[str]:
    """The sorted pieces number 0, 6, 11, 38, 44 and 50."""
    tokenizer = SimpleTokenizerV1.train(verdict())
    return [tokenizer.words[i] for i in (0, 6, 11, 38, 44, 50)]


@fact("ch02-05", "1 56 2 850 988 602 533 746 5 1126 596 5 1 67 7 38 851 1108 754 793 7", needs=VERDICT)
def words_as_ids() -> list[int]:
    """A remark in the story as ids of its vocabulary."""
    return SimpleTokenizerV1.train(verdict()).encode(verdict()[8928:9006])


@fact("ch02-06", "1132 / younger your yourself <|endoftext|> <|unk|>", needs=VERDICT)
def vocabulary_with_special_words() -> list[Any]:
    """The vocabulary with two special tokens: its size, and its last five."""
    tokenizer = SimpleTokenizerV2.train(verdict())
    return [tokenizer.n_vocab, tokenizer.words[-5:]]


@fact("ch02-07", "1131 5 355 1126 628 975 10 1130 55 988 956 984 722 988 1131 7 / 1", needs=VERDICT)
def unknown_words() -> list[Any]:
    """Two texts with unknown words as ids; and 1, because the tokenizer without <|unk|> refuses them."""
    text = text_of("15496 11 466 345 588 8887 30 220 50256 554 262 4252 18250 8812 2114 286 262 20562 13")
    try:
        refused = not SimpleTokenizerV1.train(verdict()).encode(text.partition("?")[0])
    except TokenizerError:
        refused = True
    return [SimpleTokenizerV2.train(verdict()).encode(text), int(refused)]


# ---- byte pairs ------------------------------------------------------------------------------------------------------

_PALACE = "15496 11 466 345 588 8887 30 220 50256 554 262 4252 18250 8812 2114 1659 617 34680 27271 13"


@fact("ch02-08", _PALACE)
def there_and_back() -> list[int]:
    """Ids to text and back, with <|endoftext|>."""
    return gpt2().encode(text_of(_PALACE), allowed_special=END)


@fact("ch02-09", "33901 86 343 86 220 959")
def unknown_to_gpt2() -> list[int]:
    """Words that no one has seen: exercise 2.1."""
    return gpt2().encode("Akwirw ier")


@fact("ch02-10", "15496 11 995 13 1148 428 438 257 1332 30 / 50257", origin=NOTEBOOK)
def gpt2_of_a_sentence() -> list[Any]:
    """The sentence of ch02-02 as GPT-2's ids; the size of the vocabulary."""
    return [gpt2().encode("Hello, world. Is this-- a test?"), gpt2().n_vocab]


@fact(
    "ch02-11",
    "15496 11 / 3546 26908 602 / 292 7568 355 7568 292 7568 257 3228 11 2488 15498 860 292 7568 3829 292 7568 74 / "
    "1212 318 617 2420",
    origin=NOTEBOOK,
)
def gpt2_of_odd_strings() -> list[list[int]]:
    """Four strings as ids."""
    texts = ("Hello,", "Implementations", "asdf asdfasdf a!!, @aba 9asdf90asdfk", "This is some text")
    return [gpt2().encode(text) for text in texts]


@fact("ch02-12", "5145 / 1", needs=VERDICT)
def tokens_of_the_story() -> list[int]:
    """The Verdict: the number of tokens; 1, because decoding gives the file back."""
    return [len(verdict_ids()), int(gpt2().decode(verdict_ids()) == verdict())]


@fact("ch02-13", ("290", "4920", "2241", "287", "257", " and", " established", " himself", " in", " a"), needs=VERDICT)
def five_tokens() -> list[Any]:
    """Tokens 50 to 54 of the story, as ids and as text."""
    ids = verdict_ids()[50:55]
    return [ids, [gpt2().decode([i]) for i in ids]]


@fact("ch02-24", "36674 2420 351 220 50257 290 220 50258 13 220 50256", origin=NOTEBOOK)
def added_tokens() -> list[int]:
    """A tokenizer with two more special tokens."""
    tokenizer = gpt2().with_special_tokens(["MyNewToken_1", "MyNewToken_2"])
    text = "Sample text with MyNewToken_1 and MyNewToken_2. <|endoftext|>"
    return tokenizer.encode(text, allowed_special="all")


# ---- byte pairs, trained ---------------------------------------------------------------------------------------------

Pair = tuple[int, int]
BASE = 257  # the ids of chr(0) … chr(255) and Ġ; <|endoftext|> is 257


def merged(ids: list[int], pair: Pair, new: int) -> list[int]:
    """The ids with each occurrence of a pair, from left to right, replaced by one."""
    if pair[0] not in ids:
        return ids
    out, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            out.append(new)
            i += 2
        else:
            out.append(ids[i])
            i += 1
    return out


def learn(pieces: list[list[int]], size: int = 1000) -> dict[Pair, int]:
    """Merge the most frequent pair, of equals the first seen, until there are `size` ids."""
    merges: dict[Pair, int] = {}
    # Each different piece once, in the order in which they come, with how often it does.
    different = [(list(piece), times) for piece, times in Counter(map(tuple, pieces)).items()]
    for new in range(BASE + 1, size):
        counts: dict[Pair, int] = {}
        for piece, times in different:
            for pair in itertools.pairwise(piece):
                counts[pair] = counts.get(pair, 0) + times
        if not counts:
            break
        best = max(counts, key=counts.__getitem__)
        merges[best] = new
        different = [(merged(piece, best, new), times) for piece, times in different]
    return merges


def numbers(text: str) -> list[int]:
    """Each character as its code; Ġ, which stands for a space, as 256."""
    return [256 if character == "Ġ" else ord(character) for character in text]


def spelled(merges: dict[Pair, int]) -> dict[int, str]:
    """The text of every id."""
    texts = {i: chr(i) for i in range(256)} | {256: "Ġ"}
    for (a, b), new in merges.items():
        texts[new] = texts[a] + texts[b]
    return texts


def apply(merges: dict[Pair, int], words: list[str]) -> list[int]:
    """Each word as ids: a known word is one id; else passes from left to right join any pair that has a merge."""
    known = {text: i for i, text in reversed(spelled(merges).items())}
    out: list[int] = []
    for word in words:
        if word in known:
            out.append(known[word])
            continue
        ids, joined = numbers(word), True
        while joined and len(ids) > 1:
            joined, passed, i = False, [], 0
            while i < len(ids):
                pair = (ids[i], ids[i + 1]) if i + 1 < len(ids) else None
                joined = joined or pair in merges
                passed.append(merges[pair] if pair in merges else ids[i])
                i += 2 if pair in merges else 1
            ids = passed
        out += ids
    return out


_LIFE = "14295 18079 8737 832 1242 290 1204 13"


def plain_words(text: str) -> list[str]:
    """The words between white space; all but the first begin with Ġ."""
    first, *rest = text.replace("\n", " \n ").split()
    return [first, *("Ġ" + word for word in rest)]


@fact(
    "ch02-17",
    "742 / 424 256 654 531 302 311 256 296 97 465 121 595 841 116 287 466 256 326 972 46",
    origin=NOTEBOOK,
    needs=VERDICT,
    tier="large",
)
def simple_byte_pairs() -> list[Any]:
    """Byte pairs learned from the whole story as one piece: the number of merges, and a sentence as ids."""
    merges = learn([numbers(verdict().replace(" ", "Ġ"))])
    return [len(merges), apply(merges, plain_words(text_of(_LIFE)))]


def pieces_with_spaces(text: str) -> list[str]:
    """Line breaks, and words with the space before them as Ġ; of several spaces, all but the last stand alone."""
    found: list[str] = []
    spaces = 0
    for run in ["".join(group) for _, group in itertools.groupby(text, key=lambda c: c if c in "\r\n " else "word")]:
        if run[0] == " ":
            spaces = len(run)
            continue
        if run[0] in "\r\n":
            found += ["Ġ"] * spaces + list(run)
        else:
            found += ["Ġ"] * (spaces - 1) + ["Ġ" * (spaces > 0) + run]
        spaces = 0
    return found + ["Ġ"] * spaces


@cache
def learned() -> dict[Pair, int]:
    """The merges inside pieces of the story."""
    return learn([numbers(piece) for piece in pieces_with_spaces(verdict())])


@fact(
    "ch02-18",
    "742 / Ġt he Ġa in Ġh Ġs Ġw Ġo Ġthe ou / 74 361 310 109 98 420 397 100 300 428 116 121 519 699 299 808 534",
    origin=NOTEBOOK,
    needs=VERDICT,
    tier="large",
)
def byte_pairs() -> list[Any]:
    """Byte pairs learned inside pieces: the number of merges, the first new tokens, and the sentence as ids."""
    merges = learned()
    texts = spelled(merges)
    ids = apply(merges, pieces_with_spaces(text_of(_LIFE)))
    return [len(merges), [texts[BASE + 1 + i] for i in range(10)], ids]


# ---- windows and vectors ---------------------------------------------------------------------------------------------


@fact("ch02-14", "40 367 2885 1464 / 367 2885 1464 1807 / 367 2885 1464 1807 / 2885 1464 1807 3619", needs=VERDICT)
def two_windows() -> list[Any]:
    """Windows of 4, one apart: the inputs and targets of the first two."""
    loader = DataLoader(SlidingWindows(verdict_ids(), 4, 1), batch_size=1)
    return list(itertools.islice(loader, 2))


@fact(
    "ch02-15",
    "1286 5141 / 40 367 2885 1464 / 1807 3619 402 271 / 10899 2138 257 7026 / 15632 438 2016 257 / "
    "922 5891 1576 438 / 568 340 373 645 / 1049 5975 284 502 / 284 3285 326 11 / 287",
    needs=VERDICT,
)
def a_batch() -> list[Any]:
    """How many windows of 4 there are, 4 and 1 apart; the first batch of 8; its last target."""
    windows = SlidingWindows(verdict_ids(), 4, 4)
    x, y = next(iter(DataLoader(windows, batch_size=8)))
    return [len(windows), len(SlidingWindows(verdict_ids(), 4, 1)), x, y[-1, -1]]


@fact("ch02-19", "880 881 882 883 / 112 113 114 115 / 881 882 883 884 / 113 114 115 116", origin=NOTEBOOK)
def shuffled_windows() -> Any:
    """Seed 123; windows over the numbers 0 … 1000, shuffled, two in a batch: the last batch."""
    windows = SlidingWindows(range(1001), 4, 4)
    *_, last = DataLoader(windows, batch_size=2, shuffle=True, rng=Generator(123))
    return last


@fact(
    "ch02-20",
    "0.3374 -0.1778 -0.1690 / 0.9178 1.5810 1.3010 / 1.2753 -0.2010 -0.1606 / -0.4015 0.9666 -1.1481 / "
    "-1.1589 0.3255 -0.6315 / -2.8400 -0.7849 -1.4096 / "
    "1.2753 -0.2010 -0.1606 / -0.4015 0.9666 -1.1481 / -2.8400 -0.7849 -1.4096 / 0.9178 1.5810 1.3010",
)
def embedding() -> list[Tensor]:
    """Seed 123; Embedding(6, 3): its weight, and the rows of the ids 2, 3, 5 and 1."""
    layer = Embedding(6, 3, rng=Generator(123))
    return [layer.weight, layer(np.array([2, 3, 5, 1]))]


@fact(
    "ch02-22",
    "-0.2039 0.0166 -0.2483 0.1886 / -0.4260 0.3665 -0.3634 -0.3975 / -0.3159 0.2264 -0.1847 0.1871 / "
    "-0.4244 -0.3034 -0.1836 -0.0983 / -0.3814 0.3274 -0.1179 0.1605",
    origin=NOTEBOOK,
)
def linear() -> Tensor:
    """Seed 123; the weight of Linear(4, 5) without bias."""
    return Linear(4, 5, bias=False, rng=Generator(123)).weight


@fact("ch02-23", "8 4 256 / 4 256 / 8 4 256", needs=VERDICT)
def shapes() -> list[Any]:
    """Shapes of the token vectors of the first batch, of the position vectors, and of their sum."""
    rng = Generator(0)
    x, _ = next(iter(DataLoader(SlidingWindows(verdict_ids(), 4, 4), batch_size=8)))
    tokens, positions = Embedding(50257, 256, rng=rng)(x), Embedding(4, 256, rng=rng)(np.arange(4))
    return [tokens.shape, positions.shape, (tokens + positions).shape]
