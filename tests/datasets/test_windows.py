"""Windows of ids: the book's published ones, their definition, splits, and ids outside the vocabulary."""

from itertools import chain

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.datasets import DataError, DataLoader, SlidingWindows, check_ids, checks, split

# The first batch the book prints of its story, window 4 and stride 4, and the id after it.
BOOK_ROWS = [
    [40, 367, 2885, 1464],
    [1807, 3619, 402, 271],
    [10899, 2138, 257, 7026],
    [15632, 438, 2016, 257],
    [922, 5891, 1576, 438],
    [568, 340, 373, 645],
    [1049, 5975, 284, 502],
    [284, 3285, 326, 11],
]
BOOK_IDS = [*chain(*BOOK_ROWS), 287]


def test_book_windows_with_stride_1():
    windows = SlidingWindows(BOOK_IDS, 4, stride=1)
    assert [part.tolist() for part in windows[0]] == [[40, 367, 2885, 1464], [367, 2885, 1464, 1807]]
    assert [part.tolist() for part in windows[1]] == [[367, 2885, 1464, 1807], [2885, 1464, 1807, 3619]]


def test_book_batch_with_stride_4():
    inputs, targets = next(iter(DataLoader(SlidingWindows(BOOK_IDS, 4), batch_size=8)))
    assert inputs.tolist() == BOOK_ROWS
    assert targets.ravel().tolist() == BOOK_IDS[1:]


@pytest.mark.parametrize(("stride", "count"), [(4, 1286), (1, 5141)])
def test_number_of_windows_of_the_books_corpus(stride, count):
    assert len(SlidingWindows(range(5145), 4, stride)) == count


def test_stride_that_leaves_one_window_is_refused():
    with pytest.raises(DataError, match="has 40 tokens: a stride of 32 would leave one window of 8; use a smaller"):
        SlidingWindows(range(40), 8, 32)
    assert [len(SlidingWindows(range(40), 8, stride)) for stride in (31, 8)] == [2, 4]
    assert len(SlidingWindows(range(16), 8, 32)) == 1  # there is no other that does not overlap


@given(st.lists(st.integers(0, 50256), min_size=2, max_size=60), st.integers(1, 20), st.integers(1, 20))
def test_windows_equal_their_definition(ids, block_size, stride):
    if len(ids) <= block_size or 2 * block_size < len(ids) <= block_size + stride:
        with pytest.raises(DataError):
            SlidingWindows(ids, block_size, stride)
        return
    windows = SlidingWindows(ids, block_size, stride)
    starts = list(range(0, len(ids) - block_size, stride))
    expected = [(ids[i : i + block_size], ids[i + 1 : i + block_size + 1]) for i in starts]
    assert [(x.tolist(), y.tolist()) for x, y in windows] == expected
    assert len(windows) == len(expected)
    inputs, targets = windows.batch(range(len(windows)))
    assert list(zip(inputs.tolist(), targets.tolist(), strict=True)) == expected


def test_windows_are_read_only_views_and_batches_are_copies():
    ids = np.arange(20, dtype=np.uint16)
    windows = SlidingWindows(ids, 4)
    for part in windows[1]:
        assert np.shares_memory(part, ids)
        assert part.dtype == np.uint16
        with pytest.raises(ValueError, match="read-only"):
            part[0] = 0
    for part in windows.batch([1, 2]):
        part[:] = 0
    assert ids.tolist() == list(range(20))


def test_window_index_counts_from_the_end_and_is_checked():
    windows = SlidingWindows(range(13), 4)
    assert windows[-1][0].tolist() == [8, 9, 10, 11]
    for index in (3, -4):
        with pytest.raises(IndexError):
            windows[index]
        with pytest.raises(IndexError):
            windows.batch([0, index])


@pytest.mark.parametrize("ids", [[], [5], range(4), np.arange(4)])
def test_short_corpus_is_refused_with_its_length_and_the_length_needed(ids):
    with pytest.raises(DataError, match=rf"has {len(ids)} tokens.*block_size 4.*need 5"):
        SlidingWindows(ids, 4)
    assert len(SlidingWindows(range(5), 4)) == 1


@pytest.mark.parametrize("ids", [np.zeros((9, 9), int), [0.5] * 9, [True] * 9, ["a"] * 9, 3])
def test_ids_that_are_not_a_row_of_integers_are_refused(ids):
    with pytest.raises(DataError, match="integers"):
        SlidingWindows(ids, 4)


@pytest.mark.parametrize("arguments", [(0, 1), (-1, 1), (1.5, 1), (4, 0), (4, -2), (4, "2")])
def test_sizes_below_1_are_refused(arguments):
    with pytest.raises(ValueError, match="must be an integer of at least 1"):
        SlidingWindows(range(9), *arguments)


# ---- splits and vocabularies -------------------------------------------------------------------------------------


def test_split_cuts_where_the_book_does():
    train, validation = split("x" * 20479, 0.9)
    assert (len(train), len(validation)) == (18431, 2048)


@pytest.mark.parametrize("corpus", ["abcdefghij", list(range(10)), np.arange(10)])
def test_split_keeps_type_and_order(corpus):
    parts = split(corpus, 0.75)
    assert [type(part) for part in parts] == [type(corpus)] * 2
    assert [len(part) for part in parts] == [7, 3]
    assert [*parts[0], *parts[1]] == list(corpus)


@pytest.mark.parametrize("fraction", [0, 1, -0.5, 1.5, float("nan")])
def test_split_outside_0_to_1_is_refused(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        split("abc", fraction)


@pytest.mark.parametrize(("text", "fraction"), [("", 0.5), ("a", 0.9), ("abc", 0.1)])
def test_split_with_an_empty_part_is_refused(text, fraction):
    with pytest.raises(DataError, match=f"cutting {len(text)} at fraction {fraction} leaves a part empty"):
        split(text, fraction)


@pytest.mark.parametrize(
    ("dtype", "wrong"),
    [(np.uint16, 50), (np.uint32, 50), (np.int32, 50), (np.int64, 50), (np.int32, -1), (np.int64, -1)],
)
def test_id_outside_the_vocabulary_is_named_with_its_index(dtype, wrong, monkeypatch):
    monkeypatch.setattr(checks, "IDS_AT_ONCE", 300)
    ids = np.arange(1000).astype(dtype) % 50
    check_ids(ids, 50, "tokens.bin")
    ids[[700, 800]] = wrong
    with pytest.raises(DataError, match=f"tokens.bin: token 700 is id {wrong}, and the vocabulary has ids 0 to 49"):
        check_ids(ids, 50, "tokens.bin")
