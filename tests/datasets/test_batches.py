"""Batches: torch's order, the book's published batches, epochs, mixtures, and streams that are resumed."""

from itertools import chain
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinygrad_llm import Tensor
from tinygrad_llm.datasets import BatchStream, DataError, DataLoader, SlidingWindows, check_ids, mixture
from tinygrad_llm.datasets import batches as batches_module
from tinygrad_llm.random import Generator


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


# ---- the order of a pass -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "first", "second", "after"),
    [
        (0, "20531476", "03716254", 0.4556280),
        (123, "62054371", "53672401", 0.1840565),
        (137, "37514620", "13546720", 0.8976884),
        (2**31, "05761234", "45067321", 0.5924102),
    ],
)
def test_order_of_two_shuffled_passes_is_torchs(seed, first, second, after):
    rng = Generator(seed)
    loader = DataLoader(SlidingWindows(range(9), 1), shuffle=True, rng=rng)
    for expected in (first, second):
        assert "".join(str(inputs.item()) for inputs, _ in loader) == expected
    np.testing.assert_allclose(rng.rand(1), after, rtol=0, atol=0.51e-7)


@pytest.mark.parametrize(("seed", "after"), [(0, 0.0884774), (123, 0.2516707), (137, 0.6672714), (2**31, 0.0589457)])
def test_draws_of_a_plain_pass_are_torchs(seed, after):
    rng = Generator(seed)
    loader = DataLoader(SlidingWindows(range(9), 1), batch_size=3, rng=rng)
    assert first_inputs(loader) == [[0, 1, 2], [3, 4, 5], [6, 7]]
    np.testing.assert_allclose(rng.rand(1), after, rtol=0, atol=0.51e-7)


def test_book_training_order():
    loader = DataLoader(SlidingWindows(range(19), 1), 2, shuffle=True, drop_last=True, rng=Generator(123))
    expected = [0, 7, 14, 5, 6, 1, 17, 2, 11, 12, 9, 16, 13, 10, 3, 8, 15, 4]
    assert list(chain(*first_inputs(loader))) == expected


def test_pass_draws_when_torch_draws():
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


def test_plain_pass_needs_no_generator():
    loader = DataLoader(SlidingWindows(range(5), 1), batch_size=2)
    assert first_inputs(loader) == first_inputs(loader) == [[0, 1], [2, 3]]


# ---- the batches of a pass ---------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 8), st.booleans(), st.booleans())
def test_pass_holds_every_example_once(n, batch_size, shuffle, drop_last):
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


class Pair(NamedTuple):
    ids: object
    label: object


COLLATED = [  # (examples, their batch), as torch.utils.data.default_collate makes it
    ([1, 2], np.array([1, 2])),
    ([0.5, 2], np.array([0.5, 2.0])),
    ([np.float32(1), np.float32(2)], np.array([1, 2], np.float32)),
    ([np.zeros(2), np.ones(2)], np.array([[0.0, 0], [1, 1]])),
    ([Tensor([1.0]), Tensor([2.0])], np.array([[1], [2]], np.float32)),
    ([True, False], np.array([True, False])),
    (["ab", "c"], ["ab", "c"]),
    (
        [{"ids": np.arange(2), "n": 1}, {"n": 2, "ids": np.arange(2)}],
        {"ids": np.array([[0, 1]] * 2), "n": np.arange(1, 3)},
    ),
    ([("a", {"x": [1, 2.5]}), ("b", {"x": [3, 4.5]})], (["a", "b"], {"x": [np.array([1, 3]), np.array([2.5, 4.5])]})),
    ([Pair([1], 0), Pair([2], 1)], Pair([np.array([1, 2])], np.array([0, 1]))),
]


def same(a, b):
    if isinstance(b, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in b)
    if isinstance(b, tuple | list):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return a == b if isinstance(b, str) else a.dtype == b.dtype and np.array_equal(a, b)


def test_a_batch_has_the_form_of_its_examples(for_each):
    def check(pair):
        examples, expected = pair
        (batch,) = DataLoader(examples, batch_size=2)
        assert same(batch, expected), batch

    for_each(COLLATED, check)


def test_a_data_set_may_make_batches_of_any_form():
    class Dicts(Examples):
        def batch(self, indices):
            return {"rows": self.rows[indices]}

    first, _ = DataLoader(Dicts(3), batch_size=2)
    assert list(first) == ["rows"]


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([{"a": 1}, {"b": 1}], r"of a batch have other keys than \['a'\]"),
        ([{"a": 1}, 1], "other keys"),
        ([(1, 2), (1,)], "of a batch do not all have 2 parts: pad them"),
        ([([1, 2], 0), ([1, 2, 3], 0)], r"at \[0\] do not all have 2 parts: pad them"),
        ([(1, 2), 1], "not all have 2 parts"),
        (
            [{"ids": np.zeros(2)}, {"ids": np.zeros(3)}],
            r"at \['ids'\] have shapes \(2,\) and \(3,\): pad them, or give",
        ),
        (
            [(1, None), (2, None)],
            r"a batch needs numbers, arrays, strings, dicts, tuples or lists, got object at \[1\]",
        ),
        ([1, "a"], "a batch needs numbers"),
        ([{"a": ({"b": 1},)}, {"a": ({"c": 1},)}], r"of a batch at \['a'\]\[0\] have other keys than \['b'\]$"),
    ],
)
def test_examples_that_cannot_be_stacked_are_refused(examples, message):
    with pytest.raises(DataError, match=message):
        list(DataLoader(examples, batch_size=2))


def test_batch_of_the_data_set_equals_stacked_examples():
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


def test_shuffle_without_a_generator_is_refused():
    with pytest.raises(ValueError, match=r"pass rng=Generator\(seed\)"):
        DataLoader(Examples(3), shuffle=True)


@pytest.mark.parametrize("rng", [0, 7, np.random.default_rng(0)])
def test_a_seed_or_another_generator_is_refused(rng):
    for make in (lambda: DataLoader(Examples(3), rng=rng), lambda: BatchStream([np.arange(9)], 2, 2, rng)):
        with pytest.raises(TypeError, match=r"rng must be a tinygrad_llm\.Generator, got .*: write rng=Generator"):
            make()


@pytest.mark.parametrize("batch_size", [0, -1, 1.5, None])
def test_batch_size_below_1_is_refused(batch_size):
    with pytest.raises(ValueError, match="batch_size must be an integer of at least 1"):
        DataLoader(Examples(3), batch_size)


# ---- batches without end -----------------------------------------------------------------------------------------


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
def test_stream_of_one_source_equals_a_loader(n, batch_size, stride, seed):
    assume(not 16 < n <= 8 + stride)  # such lengths are refused
    ids = np.arange(n)
    windows = SlidingWindows(ids, 8, stride)
    rng = Generator(seed)
    assume(batch_size <= len(windows))
    loader = DataLoader(windows, batch_size, shuffle=True, drop_last=True, rng=rng)
    batches = BatchStream([ids], 8, batch_size, Generator(seed), stride)
    expected = [batch for _ in range(3) for batch in loader]
    assert_same_batches(taken(batches, len(expected)), expected)
    assert batches.rng.random_seed() == rng.random_seed()
    assert batches.batches_per_epoch == len(loader)


OPTIONS = {
    "one source": {},
    "random": {"order": "random"},
    "stride": {"stride": 8},
    "weights": {"weights": [1, 2, 0.5], "sources": ROWS},
    "several sources": {"sources": ROWS},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@settings(max_examples=10)
@given(before=st.integers(0, 40), after=st.integers(1, 12))
def test_stream_resumes_where_it_stopped(options, before, after):
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
def test_epoch_of_several_sources_holds_each_window_once(lengths, batch_size, stride, seed):
    assume(not any(10 < n <= 5 + stride for n in lengths))  # such lengths are refused
    sources = [1000 * i + np.arange(n) for i, n in enumerate(lengths)]
    every = [start for ids in sources for start in ids[: len(ids) - 5 : stride].tolist()]
    assume(batch_size <= len(every))
    batches = BatchStream(sources, 5, batch_size, Generator(seed), stride)
    inputs, targets = (
        np.concatenate(part) for part in zip(*taken(batches, -(-3 * len(every) // batches.batch_size)), strict=True)
    )
    np.testing.assert_array_equal(inputs + 1, targets)
    epochs = [inputs[i * len(every) : (i + 1) * len(every), 0].tolist() for i in range(3)]
    assert [sorted(epoch) for epoch in epochs] == [every] * 3
    assert len(every) < 12 or len(set(map(tuple, epochs))) > 1  # in another order


def test_data_too_large_to_list_have_another_order_in_every_epoch(monkeypatch):
    monkeypatch.setattr(batches_module, "_LISTED", 20)
    batches = stream(batch_size=12, stride=8)  # 24 windows: two batches an epoch
    epochs = [np.concatenate([x[:, 0] for x, _ in taken(batches, 2)]).tolist() for _ in range(4)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(0, 192, 8))] * 4
    assert len(set(map(tuple, epochs))) == 4


@given(st.lists(st.floats(0.1, 100), min_size=1, max_size=5))
def test_mixture_is_the_share_of_each_weight_or_of_each_length(weights):
    expected = [weight / sum(weights) for weight in weights]
    np.testing.assert_allclose(mixture(weights, [7] * len(weights)), expected, rtol=1e-12)
    lengths = [round(10 * weight) for weight in weights]
    np.testing.assert_allclose(mixture([], lengths), [length / sum(lengths) for length in lengths], rtol=1e-12)


def test_mixture_draws_by_weight_and_each_source_in_epochs():
    mixed = stream(ROWS, batch_size=10, stride=8, weights=[6, 1, 3])
    inputs = np.concatenate([x for x, _ in taken(mixed, 300)])
    kinds = inputs[:, 0] // 1000
    np.testing.assert_allclose(np.bincount(kinds) / 3000, [0.6, 0.1, 0.3], atol=0.04)
    for kind, ids in enumerate(ROWS):
        starts = inputs[kinds == kind, 0]
        windows = len(SlidingWindows(ids, 8, 8))
        for i in range(0, len(starts) - windows, windows):  # each pass shows every window once
            assert len(set(starts[i : i + windows].tolist())) == windows


def test_random_windows_without_weights_follow_the_lengths():
    kinds = np.concatenate([x[:, 0] // 1000 for x, _ in taken(stream(ROWS, order="random"), 400)])
    np.testing.assert_allclose(np.bincount(kinds) / len(kinds), [200 / 590, 90 / 590, 300 / 590], atol=0.05)


def test_random_windows_begin_anywhere_and_end_inside():
    batches = stream(order="random")
    inputs, targets = (np.concatenate(part) for part in zip(*taken(batches, 600), strict=True))
    np.testing.assert_array_equal(inputs + 1, targets)
    assert set(inputs[:, 0].tolist()) == set(range(192))


@pytest.mark.parametrize("weights", [[1], [1, 2, 0], [1, 2, -1], [1, 2, float("nan")], [1, 2, float("inf")]])
def test_wrong_weights_are_refused(weights):
    with pytest.raises(DataError, match="3 sources need as many weights"):
        stream(ROWS, weights=weights)


def test_a_batch_of_more_windows_than_there_are_is_refused():
    message = "batch_size is 30, and the data have 24 windows: use a smaller batch_size or stride, or more data"
    for options in ({}, {"weights": [1.0]}):  # a weight of the only source changes nothing
        with pytest.raises(DataError, match=message):
            stream(batch_size=30, stride=8, **options)
    assert len(next(stream(batch_size=24, stride=8))[0]) == 24
    for options in ({"order": "random"}, {"weights": [1.0, 2.0], "sources": ROWS[:2]}):  # these repeat windows
        batches = stream(batch_size=300, **options)
        assert len(next(batches)[0]) == 300
        assert batches.batches_per_epoch == 1


def test_short_source_is_named():
    with pytest.raises(DataError, match=r"b\.bin: the corpus has 5 tokens; one window of block_size 8"):
        stream([ROWS[0], np.arange(5)], names=["a.bin", "b.bin"])
    with pytest.raises(DataError, match="no ids"):
        stream([])
    with pytest.raises(DataError, match="order must be epochs or random, got 'rand'"):
        BatchStream([np.arange(50)], 8, 2, Generator(0), order="rand")
    with pytest.raises(DataError, match="one flat row of integers"):
        BatchStream(np.arange(50), 8, 2, Generator(0))


@pytest.mark.parametrize(
    "state",
    [{}, {"seeds": [1]}, {"seeds": [1, 2], "positions": [0, 0]}, {"seeds": [1], "positions": [900]},
     {"seeds": [-1], "positions": [3]}, {"seeds": ["x"], "positions": [0]}],
    ids=str,
)  # fmt: skip
def test_state_of_other_data_is_refused(state):
    batches = stream()
    expected = taken(stream(), 2)
    with pytest.raises(ValueError, match="no position"):
        batches.set_state(state)
    assert_same_batches(taken(batches, 2), expected)


def test_mapped_file_is_not_read_into_memory(tmp_path, peak_memory):
    n = 40_000_000
    with open(tmp_path / "tokens.bin", "wb") as file:
        file.truncate(2 * n)  # zeros that take no place on the disk
    ids = np.memmap(tmp_path / "tokens.bin", "<u2", mode="r")
    check_ids(ids, 5, "tokens.bin")

    def read():
        for options in ({"stride": 8}, {"stride": 1}, {"order": "random"}):
            batches = BatchStream([ids], 64, 12, Generator(0), **options)
            inputs, _ = next(batches)
            assert inputs.shape == (12, 64)
        check_ids(ids, 5, "tokens.bin")

    assert peak_memory(read, 20_000_000) < 20_000_000  # the file is 80 MB, as ids of int64 320
