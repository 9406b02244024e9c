"""Sampling by its laws and by the book's counts, and generation: with and without a cache, streamed and whole."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import Tensor, no_grad
from tinygrad_llm.autograd import is_grad_enabled
from tinygrad_llm.generation import KVCache, check_sampling, generate, next_token_probs, stream, window_start
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator

BOOK = np.array([[4.51, 0.89, -1.90, 6.75, 1.63, -1.62, -1.89, 6.28, 1.79]], np.float32)  # the book's nine logits
PRINTED = 5e-5  # half a unit of the fourth printed digit

# Eighths, because differences between them are exact: what is larger stays larger.
logit_rows = st.lists(st.integers(-240, 240), min_size=1, max_size=12).map(lambda row: np.array([row]) / 8)
temperatures = st.floats(0.1, 10)


def model_of(block_size=8, dropout=0.0):
    """A model whose predictions depend on all it has read: its weights are far larger than initial ones."""
    model = GPT(GPTConfig(vocab_size=13, block_size=block_size, n_layer=2, n_head=2, n_embd=8, dropout=dropout))
    noise = np.random.default_rng(1)
    for p in model.parameters():
        p.data += (0.5 * noise.standard_normal(p.shape)).astype(np.float32)
    return model


def prompt(batch, length=4):
    return np.random.default_rng(2).integers(0, 13, (batch, length))


# ---- one distribution --------------------------------------------------------------------------------------------


def test_the_books_draws():
    probs = next_token_probs(BOOK)
    assert np.argmax(probs) == 3
    np.testing.assert_array_equal(Generator(123).multinomial(probs.astype(np.float32)), [[3]])  # ch05-13


@pytest.mark.parametrize(
    ("temperature", "counts"),
    [(1.0, [73, 0, 0, 582, 2, 0, 0, 343, 0]), (0.1, [0, 0, 0, 985, 0, 0, 0, 15, 0])],  # ch05-14, ch05-15
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_books_thousand_draws(temperature, counts, dtype):
    rng = Generator(123)
    probs = next_token_probs(BOOK, temperature).astype(dtype)
    drawn = [int(rng.multinomial(probs)[0, 0]) for _ in range(1000)]
    assert np.bincount(drawn, minlength=9).tolist() == counts


def test_the_books_temperature_and_top_k():
    assert next_token_probs(BOOK, 5.0)[0, 6] == pytest.approx(0.0430, abs=PRINTED)  # ch05-17
    expected = [[0.0615, 0, 0, 0.5775, 0, 0, 0, 0.3610, 0]]  # ch05-18
    np.testing.assert_allclose(next_token_probs(BOOK, top_k=3), expected, rtol=0, atol=PRINTED)


@given(logit_rows, temperatures)
def test_without_limits_it_is_the_softmax(logits, temperature):
    probs = next_token_probs(logits, temperature)
    terms = [math.exp((v - logits.max()) / temperature) for v in logits[0]]
    assert probs.dtype == np.float64
    np.testing.assert_allclose(probs, [[term / math.fsum(terms) for term in terms]], rtol=1e-12, atol=0)


@given(logit_rows, temperatures, st.integers(1, 14))
def test_top_k_keeps_the_k_likeliest_and_their_equals(logits, temperature, k):
    probs = next_token_probs(logits, temperature, top_k=k)[0]
    free = next_token_probs(logits, temperature)[0]
    kth = sorted(logits[0], reverse=True)[min(k, logits.size) - 1]
    assert_is_a_part_of(probs, free, logits[0] >= kth)


@given(logit_rows, temperatures, st.floats(0.01, 1))
def test_top_p_keeps_the_fewest_that_reach_p(logits, temperature, p):
    probs = next_token_probs(logits, temperature, top_p=p)[0]
    free = next_token_probs(logits, temperature)[0]
    kept = probs > 0
    assert kept.any()
    # Rounding may tip a sum that is p itself.
    assert free[kept].sum() >= p - 1e-12
    if p < 1:
        assert free[kept].sum() - free[kept].min() < p + 1e-12
    if not kept.all():
        assert free[kept].min() >= free[~kept].max()
    assert_is_a_part_of(probs, free, kept)


def assert_is_a_part_of(probs, free, kept):
    """Exactly the kept ones are possible, in proportion as before, and they sum to 1."""
    np.testing.assert_array_equal(probs > 0, kept & (free > 0))
    assert math.fsum(probs) == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(probs[kept] * free[kept].sum(), free[kept], rtol=1e-11)


def test_top_p_where_sums_are_exact():
    probs = [0.5, 0.25, 0.125, 0.0625, 0.0625]
    logits = np.log([probs])
    for p, kept in [(0.4, 1), (0.5, 1), (0.6, 2), (0.75, 2), (0.76, 3), (0.9, 4), (0.99, 5), (1.0, 5)]:
        assert np.count_nonzero(next_token_probs(logits, top_p=p)) == kept, p
    # Of equals, the first; and wherever in the row the likeliest stand.
    assert next_token_probs(np.zeros((1, 4)), top_p=0.5).tolist() == [[0.5, 0.5, 0, 0]]
    np.testing.assert_allclose(next_token_probs(logits[:, ::-1], top_p=0.7), [[0, 0, 0, 1 / 3, 2 / 3]], rtol=1e-12)


@given(logit_rows, temperatures, st.integers(1, 14), st.floats(0.01, 1))
def test_top_p_comes_after_top_k(logits, temperature, k, p):
    both = next_token_probs(logits, temperature, k, p)
    limited = next_token_probs(logits, temperature, k)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(both, next_token_probs(np.log(limited), 1.0, None, p), rtol=1e-11, atol=1e-300)


@given(logit_rows)
def test_temperature_0_leaves_the_first_of_the_likeliest(logits):
    expected = np.zeros_like(logits)
    expected[0, logits[0].tolist().index(logits.max())] = 1
    np.testing.assert_array_equal(next_token_probs(logits, 0), expected)
    np.testing.assert_array_equal(next_token_probs(logits, 0.0, 5, 0.3), expected)


@given(st.lists(st.integers(-40, 40), min_size=2, max_size=8, unique=True))
def test_low_temperatures_come_close_to_0(logits):
    row = np.array([logits], np.float64)
    np.testing.assert_allclose(next_token_probs(row, 0.02), next_token_probs(row, 0), atol=1e-12)


def test_rows_are_limited_each_for_itself():
    logits = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    before = logits.copy()
    for arguments in [(0,), (0.7,), (0.7, 3), (1.3, None, 0.6), (1.3, 5, 0.6)]:
        rows = [next_token_probs(row[None], *arguments)[0] for row in logits]
        np.testing.assert_array_equal(next_token_probs(logits, *arguments), rows)
    np.testing.assert_array_equal(logits, before)


def test_large_logits_do_not_overflow():
    np.testing.assert_array_equal(next_token_probs(np.array([[3e38, -3e38]], np.float32), 0.5), [[1, 0]])


BAD_SAMPLING = [
    ({"temperature": -0.1}, "temperature must be ≥ 0, not -0.1"),
    ({"temperature": math.nan}, "temperature must be ≥ 0, not nan"),
    ({"top_k": 0}, "top_k must be ≥ 1, not 0"),
    ({"top_k": -3}, "top_k must be ≥ 1, not -3"),
    ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], not 0.0"),
    ({"top_p": 1.1}, r"top_p must lie in \(0, 1\], not 1.1"),
    ({"top_p": math.nan}, r"top_p must lie in \(0, 1\], not nan"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD_SAMPLING)
def test_sampling_out_of_range(arguments, message):
    with pytest.raises(ValueError, match=message):
        check_sampling(**{"temperature": 1.0, "top_k": None, "top_p": None, **arguments})
    with pytest.raises(ValueError, match=message):
        next_token_probs(BOOK, **arguments)
    with pytest.raises(ValueError, match=message):
        stream(model_of(), [1], 1, **arguments)


# ---- generating --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("arguments", [(0,), (1.0,), (1.5, 5, 0.9)], ids=["greedy", "sampled", "limited"])
@pytest.mark.parametrize("length", [1, 4, 8])
def test_the_cache_changes_nothing_past_block_size_too(batch, arguments, length):
    model, ids = model_of(), prompt(batch, length)
    texts = [model.generate(ids, 20, *arguments, rng=Generator(5), use_cache=use) for use in (True, False)]
    np.testing.assert_array_equal(*texts)
    assert texts[0].shape == (batch, length + 20)
    np.testing.assert_array_equal(texts[0][:, :length], ids)
    assert ((texts[0] >= 0) & (texts[0] < 13)).all()
    assert len(np.unique(texts[0])) > 2  # or the comparison would be too easy


def test_with_the_cache_each_token_is_read_once():
    class Listening(GPT):
        def forward(self, ids, *arguments, **options):
            lengths.append(ids.shape[1])
            return super().forward(ids, *arguments, **options)

    model = Listening(GPTConfig(vocab_size=13, block_size=8, n_layer=1, n_head=1, n_embd=2))
    # Past the block of 8, half of it is read anew, and is written to until the block is full again.
    with_cache, without = [4, 1, 1, 1, 1, 5, 1, 1, 1, 5], [4, 5, 6, 7, 8, 5, 6, 7, 8, 5]
    for use_cache, expected in [(True, with_cache), (False, without)]:
        lengths = []
        model.generate(prompt(1), 10, use_cache=use_cache)
        assert lengths == expected


def test_rows_of_unequal_lengths_share_all_but_the_reading():
    class Listening(GPT):
        def forward(self, ids, *arguments, **options):
            shapes.append(ids.shape)
            return super().forward(ids, *arguments, **options)

    model, shapes = Listening(GPTConfig(vocab_size=13, block_size=8, n_layer=1, n_head=1, n_embd=2)), []
    model.generate([[1, 2, 3], [4], [5, 6, 7, 8, 9, 10]], 4)
    # All but the last tokens of the prompts; and when the third is past the block of 8, all but the last of its window.
    assert shapes == [(1, 2), (1, 5), (3, 1), (3, 1), (3, 1), (1, 4), (3, 1)]


def written(model, text, count, choose=np.argmax):
    """A text continued with the plain model, the window kept by hand: full, it loses its first half."""
    text, begin = list(text), 0
    for _ in range(count):
        if len(text) - begin > model.block_size:
            begin += max(1, model.block_size // 2)
        text.append(int(choose(model(np.array([text[begin:]])).data[0, -1])))
    return text


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 8])
def test_greedy_is_the_argmax_after_the_window_of_the_text(block_size, use_cache):
    model, ids = model_of(block_size), prompt(2, min(block_size, 4))
    expected = [written(model, row, 20) for row in ids]
    np.testing.assert_array_equal(model.generate(ids, 20, temperature=0, use_cache=use_cache), expected)


@given(st.integers(1, 300), st.integers(1, 40))
def test_the_window_is_more_than_half_a_block_and_moves_seldom(length, block_size):
    starts = [window_start(n, block_size) for n in range(length + 1)]
    assert all(n - start <= block_size for n, start in enumerate(starts))
    assert all(n - start > block_size - max(1, block_size // 2) for n, start in enumerate(starts) if start)
    assert starts == sorted(starts)
    assert len(set(starts)) <= 1 + math.ceil(length / max(1, block_size // 2))
    assert starts[: block_size + 1] == [0] * len(starts[: block_size + 1])


prompts = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=8), min_size=1, max_size=4)
MODEL = model_of()


@pytest.mark.parametrize("use_cache", [True, False])
@given(prompts, st.integers(0, 12))
def test_each_row_is_what_it_would_be_alone(use_cache, rows, count):
    texts = MODEL.generate(rows, count, temperature=0, use_cache=use_cache)
    assert [text.tolist() for text in texts] == [written(MODEL, row, count) for row in rows]


@pytest.mark.parametrize("arguments", [(1.0,), (1.5, 5, 0.9)], ids=["sampled", "limited"])
@given(prompts, st.integers(0, 12))
def test_each_row_is_drawn_as_it_would_be_alone_with_a_stream_of_its_own(arguments, rows, count):
    texts = MODEL.generate(rows, count, *arguments, rng=[Generator(5 + i) for i in range(len(rows))])
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        np.testing.assert_array_equal(text, MODEL.generate(row, count, *arguments, rng=Generator(5 + i)))


def test_rows_of_unequal_lengths_draw_in_turn_from_one_stream():
    rows, rng = [[1, 2, 3], [4]], Generator(9)
    expected = [list(row) for row in rows]
    for _ in range(4):
        logits = np.concatenate([MODEL([row]).data[:, -1] for row in expected])
        for row, token in zip(expected, rng.multinomial(next_token_probs(logits))[:, 0], strict=True):
            row.append(int(token))
    assert [text.tolist() for text in MODEL.generate(rows, 4, rng=Generator(9))] == expected


def test_unequal_rows_of_any_kind():
    expected = MODEL.generate([[1, 2, 3], [4]], 5, temperature=0)
    assert [text.dtype for text in expected] == [np.int64] * 2
    for same in (
        [np.array([1, 2, 3], np.uint16), np.array([4])],
        (Tensor([1, 2, 3]), [4]),
    ):
        texts = MODEL.generate(same, 5, temperature=0)
        assert [text.tolist() for text in texts] == [text.tolist() for text in expected]
    pieces = np.stack(list(stream(MODEL, [[1, 2, 3], [4]], 5, 0)), axis=1)
    np.testing.assert_array_equal(pieces, [text[-5:] for text in expected])


def test_top_k_of_1_is_greedy():
    model, ids = model_of(), prompt(3)
    greedy = model.generate(ids, 12, temperature=0)
    np.testing.assert_array_equal(model.generate(ids, 12, temperature=1.7, top_k=1), greedy)
    np.testing.assert_array_equal(model.generate(ids, 12, top_p=1e-9), greedy)


def test_tokens_are_drawn_from_the_distribution_in_turn():
    model, ids, rng = model_of(), prompt(2), Generator(9)
    expected = ids
    for _ in range(4):
        probs = next_token_probs(model(expected).data[:, -1], 1.3, 6, 0.95)
        expected = np.concatenate([expected, rng.multinomial(probs)], axis=1)
    drawing = Generator(9)
    np.testing.assert_array_equal(model.generate(ids, 4, 1.3, 6, 0.95, drawing), expected)
    np.testing.assert_array_equal(drawing.rand(4), rng.rand(4))


def test_greedy_draws_nothing():
    rng = Generator(9)
    model_of().generate(prompt(2), 4, temperature=0, rng=rng)
    np.testing.assert_array_equal(rng.rand(4), Generator(9).rand(4))


def test_the_same_seed_writes_the_same_text():
    model, ids = model_of(), prompt(1)
    one, two, other = (model.generate(ids, 30, rng=Generator(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    np.testing.assert_array_equal(model.generate(ids, 30), model.generate(ids, 30, rng=Generator(0)))


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_the_stream_is_what_is_generated(temperature):
    model, ids = model_of(), prompt(3)
    pieces = list(stream(model, ids, 10, temperature, rng=Generator(5)))
    assert [piece.shape for piece in pieces] == [(3,)] * 10
    text = generate(model, ids, 10, temperature, rng=Generator(5))
    np.testing.assert_array_equal(text, np.concatenate([ids, np.stack(pieces, axis=1)], axis=1))
    np.testing.assert_array_equal(text, model.generate(ids, 10, temperature, rng=Generator(5)))


def test_the_prompts_rank_is_kept():
    model, row = model_of(), prompt(1)[0]
    text = model.generate(row, 5, temperature=0)
    assert text.shape == (9,)
    for same in (row.tolist(), tuple(row), Tensor(row)):
        np.testing.assert_array_equal(model.generate(same, 5, temperature=0), text)
    np.testing.assert_array_equal(model.generate([row.tolist()], 5, temperature=0), [text])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint64])
def test_prompts_of_any_integers(dtype):
    model, ids = model_of(), prompt(2)
    text = model.generate(ids.astype(dtype), 3, temperature=0)
    assert text.dtype == np.int64
    np.testing.assert_array_equal(text, model.generate(ids, 3, temperature=0))
    assert model.generate(ids.astype(dtype), 0).dtype == np.int64


def test_no_new_tokens():
    model = model_of()
    np.testing.assert_array_equal(model.generate([1, 2], 0), [1, 2])
    np.testing.assert_array_equal(model.generate([[1, 2]], 0), [[1, 2]])
    assert list(stream(model, [1, 2], 0)) == []


def test_the_prompt_is_not_changed():
    ids = prompt(2)
    before = ids.copy()
    text = model_of().generate(ids, 0)
    text[:] = 0
    np.testing.assert_array_equal(ids, before)


# ---- errors, and what is left behind ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "the prompt must be"),
        ([[]], "the prompt must be"),
        ([1.0, 2.0], "the prompt must be"),
        ([True], "the prompt must be"),
        (5, "the prompt must be"),
        ([[[1]]], "the prompt must be"),
        (np.empty((0, 4), int), "the prompt must be"),
        ([[1, 2], []], "the prompt must be"),
        ([[1, 2], 3], "the prompt must be"),
        ([[1, 2], [3.0]], "the prompt must be"),
        ([[1, 2], [[3], [4, 5]]], "the prompt must be"),
        ([[1], [0] * 9], "the prompt has 9 tokens, and the model reads at most 8"),
        ([0] * 9, "the prompt has 9 tokens, and the model reads at most 8"),
    ],
)
def test_bad_prompts_are_refused_at_the_call(ids, message):
    model = model_of()
    with pytest.raises(ValueError, match=message):
        stream(model, ids, 1)
    with pytest.raises(ValueError, match=message):
        model.generate(ids, 1)
    assert model.training


def test_a_stream_for_each_row_or_one():
    for ids in ([[1], [2]], [[1], [2, 3]], [1]):
        with pytest.raises(ValueError, match=r"rng must be one Generator, or one for each of the \d rows, not 3"):
            stream(model_of(), ids, 1, rng=[Generator(i) for i in range(3)])


def test_a_negative_count_is_refused_at_the_call():
    with pytest.raises(ValueError, match="max_new_tokens must be an integer ≥ 0, not -1"):
        stream(model_of(), [1], -1)


@pytest.mark.parametrize("bad", [-1, 13])
def test_an_id_outside_the_vocabulary(bad):
    model = model_of()
    with pytest.raises(IndexError, match=f"id {bad} is outside the vocabulary"):
        model.generate([0, bad], 1)
    assert model.training  # restored, although it failed


@pytest.mark.parametrize("training", [True, False])
def test_the_training_mode_is_restored(training):
    model = model_of(dropout=0.5).train(training)
    model.generate([1], 3)
    assert all(module.training == training for module in model.modules())

    pieces = stream(model, [1], 3)
    assert model.training == training  # nothing has begun
    other = stream(model, [1], 3)
    for text in (pieces, other, pieces, other):  # between two tokens the model is the caller's, whoever writes
        next(text)
        assert all(module.training == training for module in model.modules())


def test_dropout_is_off_while_generating():
    ids = prompt(2)
    text = model_of().generate(ids, 10, temperature=0)
    np.testing.assert_array_equal(model_of(dropout=0.5).generate(ids, 10, temperature=0), text)


def test_gradients_are_off_only_while_the_model_runs():
    class Listening(GPT):
        def forward(self, *arguments, **options):
            heard.append(is_grad_enabled())
            return super().forward(*arguments, **options)

    heard = []
    model = Listening(GPTConfig(vocab_size=13, block_size=8, n_layer=1, n_head=1, n_embd=2))
    pieces = stream(model, [1], 3)
    for _ in pieces:
        assert is_grad_enabled()
    assert heard == [False] * 3
    pieces = stream(model, [1], 3)
    next(pieces)
    model.loss([[1, 2]], [[2, 3]]).backward()  # in the middle of a text
    assert all(p.grad is not None for p in model.parameters())
    del pieces
    assert is_grad_enabled()


def test_the_cache_holds_what_it_was_given():
    cache = KVCache(n_layer=2, capacity=5)
    rng = np.random.default_rng(0)
    given = [[rng.standard_normal((1, 2, t, 3)) for _ in range(2)] for t in (2, 1, 2)]
    for i in range(3):
        for layer in cache.layers:
            keys, values = layer.extend(*(Tensor(array) for array in given[i]))
            np.testing.assert_array_equal(keys, np.concatenate([k for k, _ in given[: i + 1]], axis=2))
            np.testing.assert_array_equal(values, np.concatenate([v for _, v in given[: i + 1]], axis=2))
    assert cache.length == 5
    with pytest.raises(ValueError, match="the cache holds 5 positions, and 6 are needed"):
        cache.layers[0].extend(*(Tensor(array) for array in given[1]))
    assert cache.length == 5


def test_the_cache_never_moves_what_it_holds():
    model = model_of().eval()
    cache = model.new_cache()
    moved = []

    def extend(k, v, extend=cache.layers[0].extend):
        moved.append(extend(k, v))
        return moved[-1]

    cache.layers[0].extend = extend
    with no_grad():
        for ids in ([[1, 2, 3]], [[4]], [[5, 6]]):
            model(ids, cache)
        held = [array.data.copy() for array in moved[-1]]
        cache.clear()
        assert cache.length == 0
        model([[7, 8]], cache)
    assert [keys.shape for keys, _ in moved] == [(1, 2, n, 4) for n in (3, 4, 6, 2)]
    for i in range(2):
        assert all(np.shares_memory(after[i].data, moved[0][i].data) for after in moved)
        np.testing.assert_array_equal(moved[2][i].data[:, :, 2:], held[i][:, :, 2:])  # what came first is written over


@given(st.lists(st.integers(0, 7), min_size=2, max_size=4), st.integers(1, 3))
def test_a_cache_for_each_row_reads_on_where_each_stands(lengths, more):
    model = MODEL.eval()
    more = min(more, 8 - max(lengths))
    texts = [np.random.default_rng(i).integers(0, 13, (1, n + more)) for i, n in enumerate(lengths)]
    caches = [model.new_cache() for _ in texts]
    with no_grad():
        for text, cache, n in zip(texts, caches, lengths, strict=True):
            if n:
                model(text[:, :n], cache)
        logits = model(np.concatenate([text[:, -more:] for text in texts]), caches).data
        expected = np.concatenate([model(text).data[:, -more:] for text in texts])
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    assert [cache.length for cache in caches] == [n + more for n in lengths]


def test_caches_for_some_rows_only():
    model = model_of().eval()
    with no_grad(), pytest.raises(ValueError, match="2 caches for 3 rows: give one for all, or one for each"):
        model(prompt(3), [model.new_cache() for _ in range(2)])


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("keep", [1, 3, 4, 9])
def test_the_last_logits_alone_are_those_of_all(keep, cached):
    model = model_of().to(np.float64).eval()
    with no_grad():
        last = model(prompt(2), model.new_cache() if cached else None, logits_to_keep=keep)
        np.testing.assert_allclose(last, model(prompt(2)).data[:, -keep:], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("keep", [0, -1])
def test_no_logits_are_not_asked_for(keep):
    with pytest.raises(ValueError, match=f"logits_to_keep must be ≥ 1, or None for all, not {keep}"):
        model_of()(prompt(2), logits_to_keep=keep)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 2.5}, "max_new_tokens must be an integer ≥ 0, not 2.5"),
        ({"max_new_tokens": None}, "max_new_tokens must be an integer ≥ 0, not None"),
        ({"max_new_tokens": 1, "rng": 5}, "rng must be one Generator, or one for each row, not 5"),
        ({"max_new_tokens": 1, "rng": [1]}, r"rng must be one Generator, or one for each row, not \[1\]"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_is_generated(options, message):
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4))
    with pytest.raises(ValueError, match=message):
        stream(model, [1, 2], **options)


def test_an_empty_prompt_is_called_empty():
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4))
    for prompt in ([], [[]], [[1], []]):
        with pytest.raises(ValueError, match="it is empty, or a row of it is"):
            stream(model, prompt, 1)


def test_a_cache_for_two_rows_is_refused():
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4))
    cache = model.new_cache()
    with pytest.raises(ValueError, match="one cache was given for two rows"), model.evaluating():
        model(np.array([[1], [2]]), [cache, cache])
