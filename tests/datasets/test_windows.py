"""Windows and batches: the book's published ones, torch's order, and the laws they obey."""

import os
import tracemalloc
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tinygrad_llm.datasets import BatchStream, DataError, DataLoader, Permutation, SlidingWindows, check_ids, split
from tinygrad_llm.random import Generator

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


class Examples:
    """A dataset without `batch`: id rows and a label."""

    def __init__(self, n):
        self.rows = np.arange(3 * n).reshape(n, 3)

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        return self.rows[index], index % 2


def first_inputs(loader):
    """The first input id of every window, batch by batch: windows over arange are numbered by it."""
    return [inputs[:, 0].tolist() for inputs, _ in loader]


@pytest.fixture(scope="module")
def verdict():
    folder = os.environ.get("TINYGRAD_LLM_DATA")
    if not folder or not (path := Path(folder, "the-verdict.txt")).exists():
        pytest.skip("needs TINYGRAD_LLM_DATA, a folder with the-verdict.txt")
    return path.read_bytes().decode()


@pytest.fixture(scope="module")
def verdict_ids(verdict):
    from tinygrad_llm.tokenizer import Tokenizer

    return Tokenizer.gpt2().encode(verdict)


# Windows


def test_the_books_windows_of_stride_one():
    windows = SlidingWindows(BOOK_IDS, 4, stride=1)
    assert [part.tolist() for part in windows[0]] == [[40, 367, 2885, 1464], [367, 2885, 1464, 1807]]
    assert [part.tolist() for part in windows[1]] == [[367, 2885, 1464, 1807], [2885, 1464, 1807, 3619]]


def test_the_books_batch_of_stride_four():
    inputs, targets = next(iter(DataLoader(SlidingWindows(BOOK_IDS, 4), batch_size=8)))
    assert inputs.tolist() == BOOK_ROWS
    assert targets.ravel().tolist() == BOOK_IDS[1:]


@pytest.mark.parametrize(("stride", "count"), [(4, 1286), (1, 5141)])
def test_number_of_windows_in_a_corpus_of_the_books_size(stride, count):
    assert len(SlidingWindows(range(5145), 4, stride)) == count


def test_the_books_windows_on_the_story_itself(verdict_ids):
    assert len(verdict_ids) == 5145
    stride_one = DataLoader(SlidingWindows(verdict_ids, 4, stride=1))
    batches = iter(stride_one)
    assert [part.tolist() for part in next(batches)] == [[BOOK_IDS[:4]], [BOOK_IDS[1:5]]]
    assert [part.tolist() for part in next(batches)] == [[BOOK_IDS[1:5]], [BOOK_IDS[2:6]]]
    assert len(stride_one) == 5141

    stride_four = SlidingWindows(verdict_ids, 4)
    assert len(stride_four) == 1286
    inputs, targets = next(iter(DataLoader(stride_four, batch_size=8)))
    assert inputs.tolist() == BOOK_ROWS
    assert targets[-1, -1] == 287


def test_the_books_split_of_the_story(verdict):
    from tinygrad_llm.tokenizer import Tokenizer

    train, validation = (Tokenizer.gpt2().encode(part) for part in split(verdict, 0.9))
    assert (len(train), len(validation)) == (4612, 534)
    train_loader = DataLoader(SlidingWindows(train, 256), 2, shuffle=True, drop_last=True, rng=Generator(123))
    assert [part.shape for batch in train_loader for part in batch] == [(2, 256)] * 18
    assert len(DataLoader(SlidingWindows(validation, 256), 2)) == 1


def test_a_stride_that_leaves_one_window_is_refused():
    with pytest.raises(DataError, match="has 40 tokens, of which a stride of 32 would leave one window of 8: use a sm"):
        SlidingWindows(range(40), 8, 32)
    assert [len(SlidingWindows(range(40), 8, stride)) for stride in (31, 8)] == [2, 4]
    assert len(SlidingWindows(range(16), 8, 32)) == 1  # there is no other that does not overlap


@given(st.lists(st.integers(0, 50256), min_size=2, max_size=60), st.integers(1, 20), st.integers(1, 20))
def test_windows_by_definition(ids, block_size, stride):
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


def test_windows_are_views_that_cannot_be_written_and_batches_are_not():
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


def test_windows_count_from_the_end_and_no_further():
    windows = SlidingWindows(range(13), 4)
    assert windows[-1][0].tolist() == [8, 9, 10, 11]
    for index in (3, -4):
        with pytest.raises(IndexError):
            windows[index]
        with pytest.raises(IndexError):
            windows.batch([0, index])


@pytest.mark.parametrize("ids", [[], [5], range(4), np.arange(4)])
def test_a_short_corpus_is_told_what_is_there_and_what_is_needed(ids):
    with pytest.raises(DataError, match=rf"has {len(ids)} tokens.*block_size 4.*need 5"):
        SlidingWindows(ids, 4)
    assert len(SlidingWindows(range(5), 4)) == 1


@pytest.mark.parametrize("ids", [np.zeros((9, 9), int), [0.5] * 9, [True] * 9, ["a"] * 9, 3])
def test_ids_must_be_a_row_of_integers(ids):
    with pytest.raises(DataError, match="integers"):
        SlidingWindows(ids, 4)


@pytest.mark.parametrize("arguments", [(0, 1), (-1, 1), (1.5, 1), (4, 0), (4, -2), (4, "2")])
def test_bad_sizes_of_windows(arguments):
    with pytest.raises(ValueError, match="must be an integer of at least 1"):
        SlidingWindows(range(9), *arguments)


# The order of batches


@pytest.mark.parametrize(
    ("seed", "first", "second", "after"),
    [
        (0, "20531476", "03716254", 0.4556280),
        (123, "62054371", "53672401", 0.1840565),
        (137, "37514620", "13546720", 0.8976884),
        (2**31, "05761234", "45067321", 0.5924102),
    ],
)
def test_torchs_order_of_two_shuffled_passes(seed, first, second, after):
    rng = Generator(seed)
    loader = DataLoader(SlidingWindows(range(9), 1), shuffle=True, rng=rng)
    for expected in (first, second):
        assert "".join(str(inputs.item()) for inputs, _ in loader) == expected
    np.testing.assert_allclose(rng.rand(1), after, rtol=0, atol=0.51e-7)


@pytest.mark.parametrize(("seed", "after"), [(0, 0.0884774), (123, 0.2516707), (137, 0.6672714), (2**31, 0.0589457)])
def test_torchs_draws_of_a_plain_pass(seed, after):
    rng = Generator(seed)
    loader = DataLoader(SlidingWindows(range(9), 1), batch_size=3, rng=rng)
    assert first_inputs(loader) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    np.testing.assert_allclose(rng.rand(1), after, rtol=0, atol=0.51e-7)


def test_the_last_batch_of_the_books_shuffled_numbers():
    windows = SlidingWindows(range(1001), 4)
    assert len(windows) == 250
    *_, (inputs, targets) = DataLoader(windows, batch_size=2, shuffle=True, rng=Generator(123))
    assert inputs.tolist() == [[880, 881, 882, 883], [112, 113, 114, 115]]
    assert targets.tolist() == [[881, 882, 883, 884], [113, 114, 115, 116]]


def test_the_books_training_order():
    loader = DataLoader(SlidingWindows(range(19), 1), 2, shuffle=True, drop_last=True, rng=Generator(123))
    expected = [0, 7, 14, 5, 6, 1, 17, 2, 11, 12, 9, 16, 13, 10, 3, 8, 15, 4]
    assert list(chain(*first_inputs(loader))) == expected


def test_a_pass_draws_when_torch_draws():
    """One u64 when iter() is called, a second at the first batch of a shuffled pass, none later."""
    rng, reference = Generator(5), Generator(5)

    def in_step():
        return rng.get_state()["position"] == reference.get_state()["position"]

    loader = DataLoader(SlidingWindows(range(9), 1), batch_size=3, shuffle=True, rng=rng)
    assert in_step()
    batches = iter(loader)
    reference.random_seed()
    assert in_step()
    next(batches)
    reference.random_seed()
    assert in_step()
    next(batches)
    assert in_step()


def test_nothing_is_needed_or_drawn_without_a_generator():
    loader = DataLoader(SlidingWindows(range(5), 1), batch_size=2)
    assert first_inputs(loader) == first_inputs(loader) == [[0, 1], [2, 3]]


# Batches


@given(st.integers(1, 30), st.integers(1, 8), st.booleans(), st.booleans())
def test_a_pass_holds_every_example_once(n, batch_size, shuffle, drop_last):
    loader = DataLoader(SlidingWindows(range(n + 1), 1), batch_size, shuffle, drop_last, Generator(0))
    batches = first_inputs(loader)
    assert len(batches) == len(loader)
    kept = n - n % batch_size if drop_last else n
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    seen = list(chain(*batches))
    assert len(seen) == kept
    assert len(set(seen)) == kept
    assert set(seen) <= set(range(n))


def test_examples_are_stacked_part_by_part():
    first, last = DataLoader(Examples(5), batch_size=3)
    assert [part.tolist() for part in first] == [[[0, 1, 2], [3, 4, 5], [6, 7, 8]], [0, 1, 0]]
    assert [part.tolist() for part in last] == [[[9, 10, 11], [12, 13, 14]], [1, 0]]
    assert isinstance(first, tuple)


def test_a_datasets_own_batch_is_the_same_as_stacking():
    class OneByOne(Examples):
        def __init__(self, windows):
            self.windows = windows

        def __len__(self):
            return len(self.windows)

        def __getitem__(self, index):
            return self.windows[index]

    windows = SlidingWindows(np.arange(40, dtype=np.int32), 4, 3)
    loaders = (DataLoader(data, 5, True, rng=Generator(1)) for data in (windows, OneByOne(windows)))
    for fast, slow in zip(*loaders, strict=True):
        for x, y in zip(fast, slow, strict=True):
            assert x.dtype == y.dtype
            np.testing.assert_array_equal(x, y)


def test_shuffling_needs_a_generator():
    with pytest.raises(ValueError, match=r"pass rng=Generator\(seed\)"):
        DataLoader(Examples(3), shuffle=True)


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, None])
def test_bad_batch_size(batch_size):
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        DataLoader(Examples(3), batch_size)


# Splits


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
def test_split_needs_a_fraction(fraction):
    with pytest.raises(ValueError, match="between 0 and 1"):
        split("abc", fraction)


@pytest.mark.parametrize(("text", "fraction"), [("", 0.5), ("a", 0.9), ("abc", 0.1)])
def test_split_refuses_an_empty_part(text, fraction):
    with pytest.raises(DataError, match=f"cutting {len(text)} at fraction {fraction} leaves a part empty"):
        split(text, fraction)


# Batches without end


ROWS = [np.arange(200), np.arange(1000, 1090), np.arange(2000, 2300)]


def stream(sources=ROWS[:1], batch_size=6, seed=4, **options):
    return BatchStream(sources, 8, batch_size, Generator(seed), **options)


def taken(batches, n):
    return [[part.copy() for part in next(batches)] for _ in range(n)]


def assert_same_batches(one, other):
    for batch, same in zip(one, other, strict=True):
        for part, same_part in zip(batch, same, strict=True):
            np.testing.assert_array_equal(part, same_part)


@given(st.integers(9, 60), st.integers(1, 9), st.integers(1, 12), st.integers(0, 9))
def test_one_source_is_read_as_a_loader_reads_it(n, batch_size, stride, seed):
    assume(not 16 < n <= 8 + stride)  # which is refused
    ids = np.arange(n)
    windows = SlidingWindows(ids, 8, stride)
    rng = Generator(seed)
    loader = DataLoader(windows, min(batch_size, len(windows)), shuffle=True, drop_last=True, rng=rng)
    batches = BatchStream([ids], 8, batch_size, Generator(seed), stride)
    expected = [batch for _ in range(3) for batch in loader]
    assert_same_batches(taken(batches, len(expected)), expected)
    assert batches.rng.random_seed() == rng.random_seed()
    assert batches.batches_per_epoch == len(loader)


OPTIONS = [{}, {"order": "random"}, {"stride": 8}, {"weights": [1, 2, 0.5]}, {"sources": ROWS}]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@given(before=st.integers(0, 40), after=st.integers(1, 40))
def test_a_stream_goes_on_where_it_stopped(options, before, after):
    options = {"sources": ROWS if "weights" in options else ROWS[:1], **options}
    whole = stream(**options)
    taken(whole, before)
    state, random_state = whole.get_state(), whole.rng.get_state()
    expected = taken(whole, after)
    other = stream(seed=9, **options)
    other.set_state(state)
    other.rng.set_state(random_state)
    assert_same_batches(taken(other, after), expected)


@given(
    lengths=st.lists(st.integers(6, 40), min_size=2, max_size=4),
    batch_size=st.integers(1, 50),
    stride=st.integers(1, 6),
    seed=st.integers(0, 9),
)
def test_an_epoch_of_several_sources_holds_each_window_once(lengths, batch_size, stride, seed):
    assume(not any(10 < n <= 5 + stride for n in lengths))  # which is refused
    sources = [1000 * i + np.arange(n) for i, n in enumerate(lengths)]
    batches = BatchStream(sources, 5, batch_size, Generator(seed), stride)
    every = [start for ids in sources for start in ids[: len(ids) - 5 : stride].tolist()]
    inputs, targets = (
        np.concatenate(part) for part in zip(*taken(batches, -(-3 * len(every) // batches.batch_size)), strict=True)
    )
    np.testing.assert_array_equal(inputs + 1, targets)
    epochs = [inputs[i * len(every) : (i + 1) * len(every), 0].tolist() for i in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [every] * 3
    assert len(every) < 12 or len(set(map(tuple, epochs))) > 1  # in another order


def test_a_mixture_draws_by_weight_and_repeats_no_window_before_its_time():
    mixed = stream(ROWS, batch_size=10, stride=8, weights=[6, 1, 3])
    inputs = np.concatenate([x for x, _ in taken(mixed, 300)])
    kinds = inputs[:, 0] // 1000
    np.testing.assert_allclose(np.bincount(kinds) / 3000, [0.6, 0.1, 0.3], atol=0.04)
    for kind, ids in enumerate(ROWS):
        starts = inputs[kinds == kind, 0]
        windows = len(SlidingWindows(ids, 8, 8))
        for i in range(0, len(starts) - windows, windows):  # each pass shows every window once
            assert len(set(starts[i : i + windows].tolist())) == windows


def test_without_weights_longer_sources_are_drawn_from_more_often():
    kinds = np.concatenate([x[:, 0] // 1000 for x, _ in taken(stream(ROWS, order="random"), 400)])
    np.testing.assert_allclose(np.bincount(kinds) / len(kinds), [200 / 590, 90 / 590, 300 / 590], atol=0.05)


def test_random_windows_begin_anywhere_and_end_inside():
    batches = stream(order="random")
    inputs, targets = (np.concatenate(part) for part in zip(*taken(batches, 600), strict=True))
    np.testing.assert_array_equal(inputs + 1, targets)
    assert set(inputs[:, 0].tolist()) == set(range(192))


@pytest.mark.parametrize("weights", [[1], [1, 2, 0], [1, 2, -1], [1, 2, float("nan")], [1, 2, float("inf")]])
def test_bad_weights(weights):
    with pytest.raises(DataError, match="3 sources need as many weights"):
        stream(ROWS, weights=weights)


def test_a_short_source_is_named():
    with pytest.raises(DataError, match=r"b\.bin: the corpus has 5 tokens; one window of block_size 8"):
        stream([ROWS[0], np.arange(5)], names=["a.bin", "b.bin"])
    with pytest.raises(DataError, match="no ids"):
        stream([])


@pytest.mark.parametrize(
    "state",
    [{}, {"seeds": [1]}, {"seeds": [1, 2], "positions": [0, 0]}, {"seeds": [1], "positions": [900]},
     {"seeds": [-1], "positions": [3]}, {"seeds": ["x"], "positions": [0]}],
    ids=str,
)  # fmt: skip
def test_a_place_in_other_data_is_refused(state):
    batches = stream()
    expected = taken(stream(), 2)
    with pytest.raises(ValueError, match="no place"):
        batches.set_state(state)
    assert_same_batches(taken(batches, 2), expected)


@given(st.integers(1, 3000), st.integers(0, 5))
def test_a_permutation_holds_every_number_once(n, seed):
    numbers = Permutation(n, seed)[np.arange(n)]
    assert sorted(numbers.tolist()) == list(range(n))
    np.testing.assert_array_equal(Permutation(n, seed)[np.arange(n)[::-1]], numbers[::-1])  # in any order of asking


def test_a_permutation_looks_shuffled():
    n = 4000
    orders = [Permutation(n, seed)[np.arange(n)] for seed in (1, 2)]
    for order in orders:
        assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 0.06
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.06
    assert (orders[0] == orders[1]).sum() < 10  # one is expected


def test_a_permutation_of_very_many_takes_no_memory():
    n = 10**12
    numbers = Permutation(n, 3)[np.arange(n - 1000, n)]
    assert len(set(numbers.tolist())) == 1000
    assert numbers.min() >= 0
    assert numbers.max() < n


def test_a_mapped_file_is_not_read_into_memory(tmp_path):
    n = 40_000_000
    with open(tmp_path / "tokens.bin", "wb") as file:
        file.truncate(2 * n)  # zeros that take no place on the disk
    ids = np.memmap(tmp_path / "tokens.bin", "<u2", mode="r")
    check_ids(ids, 5, "tokens.bin")
    tracemalloc.start()
    try:
        for options in ({"stride": 8}, {"stride": 1}, {"order": "random"}):
            batches = BatchStream([ids], 64, 12, Generator(0), **options)
            inputs, _ = next(batches)
            assert inputs.shape == (12, 64)
        check_ids(ids, 5, "tokens.bin")
        assert tracemalloc.get_traced_memory()[1] < 20_000_000  # the file is 80 MB, as ids of int64 320
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int32, np.int64])
@pytest.mark.parametrize("wrong", [50, -1])
def test_an_id_that_is_none_is_named_with_its_place(dtype, wrong):
    if wrong < 0 and dtype in (np.uint16, np.uint32):
        return
    ids = np.arange(1000).astype(dtype) % 50
    check_ids(ids, 50, "tokens.bin")
    ids[[700, 800]] = wrong
    with pytest.raises(DataError, match=f"tokens.bin: token 700 is id {wrong}, and the vocabulary has ids 0 to 49"):
        check_ids(ids, 50, "tokens.bin")
