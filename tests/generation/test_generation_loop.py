"""The loop of generation: with and without a cache, streamed and whole, rows of any lengths, and its errors."""

import math

import numpy as np
import pytest
from generation_models import model_of, prompt
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_llm import Tensor
from tinygrad_llm.autograd import is_grad_enabled
from tinygrad_llm.generation import Sampling, generate, next_token_probs, stream, window_start
from tinygrad_llm.models import GPT
from tinygrad_llm.random import Generator

MODEL = model_of()


class Listening(GPT):
    """Records the shape of the ids, and whether gradients are recorded, at each call."""

    calls: list

    def forward(self, ids, *arguments, **options):
        self.calls.append((np.shape(ids), is_grad_enabled()))
        return super().forward(ids, *arguments, **options)


@pytest.fixture
def listening():
    model = model_of(kind=Listening)
    Listening.calls = model.calls = []
    return model


# ---- the ids -----------------------------------------------------------------------------------------------------


def continued(model, text, count, choose=np.argmax):
    """A text continued with the plain model, the window moved by hand: when it is full, it loses its first half."""
    text, begin = list(text), 0
    for _ in range(count):
        if len(text) - begin > model.block_size:
            begin += max(1, model.block_size // 2)
        text.append(int(choose(model(np.array([text[begin:]])).data[0, -1])))
    return text


@pytest.mark.parametrize("use_cache", [True, False])
@pytest.mark.parametrize("block_size", [1, 2, 3, 7, 8])
def test_greedy_ids_are_the_argmax_after_the_window(block_size, use_cache):
    model, ids = model_of(block_size), prompt(2, min(block_size, 4))
    expected = [continued(model, row, 20) for row in ids]
    np.testing.assert_array_equal(model.generate(ids, 20, temperature=0, use_cache=use_cache), expected)


@pytest.mark.parametrize("arguments", [(0,), (1.0,), (1.5, 5, 0.9)], ids=["greedy", "sampled", "limited"])
@pytest.mark.parametrize(("batch", "length"), [(1, 1), (1, 8), (3, 4)])
def test_cache_changes_no_id_inside_the_block_or_beyond_it(batch, arguments, length):
    ids = prompt(batch, length)
    texts = [MODEL.generate(ids, 20, *arguments, rng=Generator(5), use_cache=use) for use in (True, False)]
    np.testing.assert_array_equal(*texts)
    assert texts[0].shape == (batch, length + 20)
    np.testing.assert_array_equal(texts[0][:, :length], ids)
    assert ((texts[0] >= 0) & (texts[0] < 13)).all()
    assert len(np.unique(texts[0])) > 2  # or the comparison would be too easy


def test_tokens_are_drawn_from_the_distribution_in_turn():
    ids, rng = prompt(2), Generator(9)
    expected = ids
    for _ in range(4):
        probs = next_token_probs(MODEL(expected).data[:, -1], Sampling(1.3, 6, 0.95))
        expected = np.concatenate([expected, rng.multinomial(probs)], axis=1)
    drawing = Generator(9)
    np.testing.assert_array_equal(MODEL.generate(ids, 4, 1.3, 6, 0.95, drawing), expected)
    np.testing.assert_array_equal(drawing.rand(4), rng.rand(4))


def test_top_k_of_1_is_greedy():
    ids = prompt(3)
    greedy = MODEL.generate(ids, 12, temperature=0)
    np.testing.assert_array_equal(MODEL.generate(ids, 12, temperature=1.7, top_k=1), greedy)
    np.testing.assert_array_equal(MODEL.generate(ids, 12, top_p=1e-9), greedy)


def test_greedy_draws_no_random_number():
    rng = Generator(9)
    MODEL.generate(prompt(2), 4, temperature=0, rng=rng)
    np.testing.assert_array_equal(rng.rand(4), Generator(9).rand(4))


def test_seed_decides_the_ids():
    ids = prompt(1)
    one, two, other = (MODEL.generate(ids, 30, rng=Generator(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()
    np.testing.assert_array_equal(MODEL.generate(ids, 30), MODEL.generate(ids, 30, rng=Generator(0)))


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_stream_yields_what_generate_returns(temperature):
    ids = prompt(3)
    pieces = list(stream(MODEL, ids, 10, Sampling(temperature), rng=Generator(5)))
    assert [piece.shape for piece in pieces] == [(3,)] * 10
    text = generate(MODEL, ids, 10, Sampling(temperature), rng=Generator(5))
    np.testing.assert_array_equal(text, np.concatenate([ids, np.stack(pieces, axis=1)], axis=1))
    np.testing.assert_array_equal(text, MODEL.generate(ids, 10, temperature, rng=Generator(5)))


# ---- what is read ------------------------------------------------------------------------------------------------


def test_cache_lets_each_token_be_read_once(listening):
    # Past the block of 8, half of it is read again, and it is filled token by token until it is full again.
    with_cache, without = [4, 1, 1, 1, 1, 5, 1, 1, 1, 5], [4, 5, 6, 7, 8, 5, 6, 7, 8, 5]
    for use_cache, expected in [(True, with_cache), (False, without)]:
        listening.calls.clear()
        listening.generate(prompt(1), 10, use_cache=use_cache)
        assert [shape for shape, _ in listening.calls] == [(1, length) for length in expected]


def test_rows_of_different_lengths_are_read_together_token_by_token(listening):
    listening.generate([[1, 2, 3], [4], [5, 6, 7, 8, 9, 10]], 4)
    # First each prompt without its last token; once the third row is past the block of 8, its window without the last.
    expected = [(1, 2), (1, 5), (3, 1), (3, 1), (3, 1), (1, 4), (3, 1)]
    assert [shape for shape, _ in listening.calls] == expected


@given(st.integers(1, 300), st.integers(1, 40))
def test_window_is_more_than_half_a_block_and_moves_rarely(length, block_size):
    starts = [window_start(n, block_size) for n in range(length + 1)]
    assert all(n - start <= block_size for n, start in enumerate(starts))
    assert all(n - start > block_size - max(1, block_size // 2) for n, start in enumerate(starts) if start)
    assert starts == sorted(starts)
    assert len(set(starts)) <= 1 + math.ceil(length / max(1, block_size // 2))
    assert starts[: block_size + 1] == [0] * len(starts[: block_size + 1])


# ---- rows of different lengths -----------------------------------------------------------------------------------

prompts = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=8), min_size=1, max_size=4)


@pytest.mark.parametrize("use_cache", [True, False])
@settings(max_examples=10)
@given(prompts, st.integers(0, 9))
def test_greedy_rows_are_what_each_would_be_alone(use_cache, rows, count):
    texts = MODEL.generate(rows, count, temperature=0, use_cache=use_cache)
    assert [text.tolist() for text in texts] == [continued(MODEL, row, count) for row in rows]


@settings(max_examples=10)
@given(prompts, st.integers(0, 9), st.sampled_from([(1.0,), (1.5, 5, 0.9)]))
def test_rows_with_own_generators_are_what_each_would_be_alone(rows, count, arguments):
    texts = MODEL.generate(rows, count, *arguments, rng=[Generator(5 + i) for i in range(len(rows))])
    for i, (text, row) in enumerate(zip(texts, rows, strict=True)):
        np.testing.assert_array_equal(text, MODEL.generate(row, count, *arguments, rng=Generator(5 + i)))


def test_rows_draw_in_turn_from_one_generator():
    rows, rng = [[1, 2, 3], [4]], Generator(9)
    expected = [list(row) for row in rows]
    for _ in range(4):
        logits = np.concatenate([MODEL([row]).data[:, -1] for row in expected])
        for row, token in zip(expected, rng.multinomial(next_token_probs(logits))[:, 0], strict=True):
            row.append(int(token))
    assert [text.tolist() for text in MODEL.generate(rows, 4, rng=Generator(9))] == expected


def test_rows_of_different_lengths_may_be_of_any_kind():
    expected = MODEL.generate([[1, 2, 3], [4]], 5, temperature=0)
    assert [text.dtype for text in expected] == [np.int64] * 2
    for same in ([np.array([1, 2, 3], np.uint16), np.array([4])], (Tensor([1, 2, 3]), [4])):
        texts = MODEL.generate(same, 5, temperature=0)
        assert [text.tolist() for text in texts] == [text.tolist() for text in expected]
    pieces = np.stack(list(stream(MODEL, [[1, 2, 3], [4]], 5, Sampling(0))), axis=1)
    np.testing.assert_array_equal(pieces, [text[-5:] for text in expected])


# ---- prompts -----------------------------------------------------------------------------------------------------


def test_generate_keeps_the_rank_of_the_prompt():
    row = prompt(1)[0]
    text = MODEL.generate(row, 5, temperature=0)
    assert text.shape == (9,)
    for same in (row.tolist(), tuple(row), Tensor(row)):
        np.testing.assert_array_equal(MODEL.generate(same, 5, temperature=0), text)
    np.testing.assert_array_equal(MODEL.generate([row.tolist()], 5, temperature=0), [text])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint64])
def test_prompts_may_be_any_integers(dtype):
    ids = prompt(2)
    text = MODEL.generate(ids.astype(dtype), 3, temperature=0)
    assert text.dtype == np.int64
    np.testing.assert_array_equal(text, MODEL.generate(ids, 3, temperature=0))
    assert MODEL.generate(ids.astype(dtype), 0).dtype == np.int64


def test_no_new_tokens_return_a_copy_of_the_prompt():
    assert list(stream(MODEL, [1, 2], 0)) == []
    np.testing.assert_array_equal(MODEL.generate([1, 2], 0), [1, 2])
    ids = prompt(2)
    before = ids.copy()
    text = MODEL.generate(ids, 0)
    np.testing.assert_array_equal(text, before)
    text[:] = 0
    np.testing.assert_array_equal(ids, before)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([], "it is empty, or a row of it is"),
        ([[]], "it is empty, or a row of it is"),
        ([[1, 2], []], "it is empty, or a row of it is"),
        (np.empty((0, 4), int), "must be at least one row of ids, got none"),
        ([1.0, 2.0], "must be .* integer ids"),
        ([True], "must be .* integer ids"),
        (5, "must be .* integer ids"),
        ([[[1]]], "must be .* integer ids"),
        ([[1, 2], 3], "must be .* integer ids"),
        ([[1, 2], [3.0]], "must be .* integer ids"),
        ([[1, 2], [[3], [4, 5]]], "must be .* integer ids"),
        ([[1], [0] * 9], "the prompt has 9 tokens, and the model reads at most 8"),
        ([0] * 9, "the prompt has 9 tokens, and the model reads at most 8"),
    ],
)
def test_wrong_prompts_are_refused_by_the_call(ids, message):
    with pytest.raises(ValueError, match=message):
        stream(MODEL, ids, 1)
    with pytest.raises(ValueError, match=message):
        MODEL.generate(ids, 1)
    assert MODEL.training


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_new_tokens": 2.5}, "max_new_tokens must be an integer ≥ 0, got 2.5"),
        ({"max_new_tokens": None}, "max_new_tokens must be an integer ≥ 0, got None"),
        ({"max_new_tokens": -1}, "max_new_tokens must be an integer ≥ 0, got -1"),
        ({"max_new_tokens": 1, "temperature": -1}, "temperature must be ≥ 0, got -1"),
        ({"max_new_tokens": 1, "top_k": 0}, "top_k must be ≥ 1, got 0"),
        ({"max_new_tokens": 1, "top_p": 2}, r"top_p must lie in \(0, 1\], got 2"),
    ],
)
def test_wrong_arguments_are_refused_by_the_call(options, message):
    with pytest.raises(ValueError, match=message):
        MODEL.generate([1, 2], **options)
    if "max_new_tokens" in message or "rng" in message:
        with pytest.raises(ValueError, match=message):  # without waiting for the first token
            stream(MODEL, [1, 2], **options)


@pytest.mark.parametrize("rng", [0, 5, [Generator(1), 5], np.random.default_rng(0), "seed"])
def test_anything_but_generators_is_refused_as_rng(rng):
    with pytest.raises(TypeError, match=r"rng must be a tinygrad_llm.Generator, got .*: write rng=Generator\("):
        stream(MODEL, [[1, 2], [3, 4]], 1, rng=rng)


def test_generators_that_are_not_one_per_row_are_refused():
    for ids in ([[1], [2]], [[1], [2, 3]], [1]):
        with pytest.raises(ValueError, match=r"rng must be one Generator, or one for each of the \d rows, got 3"):
            stream(MODEL, ids, 1, rng=[Generator(i) for i in range(3)])


@pytest.mark.parametrize("bad", [-1, 13])
def test_id_outside_the_vocabulary_is_named(bad):
    with pytest.raises(IndexError, match=f"got id {bad}, outside the vocabulary"):
        MODEL.generate([0, bad], 1)
    assert MODEL.training  # restored, although the call failed


# ---- the model belongs to the caller between two tokens ----------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_training_mode_is_restored_after_each_token(training):
    model = model_of(dropout=0.5).train(training)
    model.generate([1], 3)
    assert all(module.training == training for module in model.modules())

    pieces, other = stream(model, [1], 3), stream(model, [1], 3)
    assert model.training == training  # nothing has begun
    for text in (pieces, other, pieces, other):
        next(text)
        assert all(module.training == training for module in model.modules())


def test_dropout_is_off_during_generation():
    ids = prompt(2)
    text = MODEL.generate(ids, 10, temperature=0)
    np.testing.assert_array_equal(model_of(dropout=0.5).generate(ids, 10, temperature=0), text)


def test_gradients_are_off_only_while_the_model_runs(listening):
    for _ in stream(listening, [1], 3):
        assert is_grad_enabled()
    assert [recorded for _, recorded in listening.calls] == [False] * 3
    pieces = stream(listening, [1], 3)
    next(pieces)
    listening.loss([[1, 2]], [[2, 3]]).backward()  # in the middle of a text
    assert all(p.grad is not None for p in listening.parameters())
    del pieces
    assert is_grad_enabled()


# ---- the end of a text -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_cache", [True, False])
def test_rows_repeat_the_id_at_which_they_end(use_cache):
    """As without an end up to it; the others go on."""
    free = generate(model_of(), prompt(3), 20, Sampling(1.0), Generator(3), use_cache)[:, 4:]
    eos_id = int(free[0, 2])
    ended = generate(model_of(), prompt(3), 20, Sampling(1.0), Generator(3), use_cache, eos_id=eos_id)[:, 4:]
    first = [row.tolist().index(eos_id) if eos_id in row else len(row) for row in ended]
    np.testing.assert_array_equal(ended[0, : first[0] + 1], free[0, : first[0] + 1])
    for row, end in zip(ended, first, strict=True):
        assert (row[end:] == eos_id).all()


def test_generation_stops_when_all_rows_have_ended():
    model = model_of()
    eos_id = int(model.generate(prompt(1), 1, temperature=0)[0, -1])
    assert model.generate(prompt(1), 20, temperature=0, eos_id=eos_id).shape == (1, 5)


@pytest.mark.parametrize("eos_id", [1.0, -1, "1"])
def test_an_end_that_is_no_id_is_refused(eos_id):
    with pytest.raises(ValueError, match=f"eos_id must be an id ≥ 0, or None: got {eos_id!r}"):
        model_of().generate(prompt(1), 3, eos_id=eos_id)


def test_a_forbidden_id_is_not_generated():
    model = model_of()
    likeliest = model.generate(prompt(1), 6, temperature=0)[0, 4:]
    other = model.generate(prompt(1), 6, temperature=0, forbidden=likeliest.tolist())[0, 4:]
    assert not set(likeliest.tolist()) & set(other.tolist())


def test_a_penalty_makes_the_text_repeat_itself_less():
    model = model_of(block_size=32)
    free, penalized = (
        model.generate(prompt(1), 24, temperature=0, repetition_penalty=penalty)[0, 4:] for penalty in (1.0, 5.0)
    )
    assert len(set(penalized.tolist())) > len(set(free.tolist()))
