"""−ln p of every id: windows that score each id once, and their losses against the definition."""

import math
from typing import Any

import numpy as np
import pytest
from evaluation_models import BLOCK, log_probs, model_of
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import GPT, GPTConfig, functional, runtime
from tinygrad_llm.evaluation import default_stride, score_tokens, scoring_windows, token_losses
from tinygrad_llm.evaluation import losses as losses_module
from tinygrad_llm.generation import cache
from tinygrad_llm.kernels import IGNORE_INDEX


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(1, 12), st.data())
def test_windows_score_every_id_except_the_first_once_with_enough_before_it(
    sizes: list[int], block_size: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, block_size))
    n = sum(sizes)
    pieces = np.split(np.arange(n), np.cumsum(sizes)[:-1]) if sizes else []
    seen: list[int] = []
    for inputs, targets in scoring_windows(pieces, block_size, stride):
        assert len(inputs) == min(block_size, n - 1)
        np.testing.assert_array_equal(np.diff(inputs), 1)
        for place in np.flatnonzero(targets != IGNORE_INDEX):
            target = int(targets[place])
            assert target == inputs[place] + 1
            assert place + 1 >= min(target, block_size - stride + 1)
            seen.append(target)
    assert seen == list(range(1, n))


@pytest.mark.parametrize("stride", [0, -1, BLOCK + 1])
def test_stride_outside_the_block_is_refused_by_the_call(stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride must lie in 1 … {BLOCK}, the model's block_size, got {stride}"):
        score_tokens(model_of(5), [np.arange(4)], stride)


def test_windows_hold_at_most_one_piece_and_one_window(peak_memory: Any) -> None:
    """The next piece is read when the windows before it are used up, and used ids are dropped."""
    read: list[int] = []

    def pieces(n: int, size: int) -> Any:
        for start in range(0, n * size, size):
            read.append(start)
            yield np.arange(start, start + size)

    for inputs, _ in scoring_windows(pieces(100, 10), 7, 3):
        assert read[-1] <= inputs[-1] + 1  # the target of the last input is in the last piece read

    def score() -> None:
        for _ in scoring_windows(pieces(100, 5_000), 64, 32):
            pass

    limit = 10 * 5_000 * 8  # 10 of the 100 pieces, 8 bytes per id
    assert peak_memory(score, limit) < limit


def test_losses_with_stride_1_equal_the_definition() -> None:
    model, ids = model_of(11), np.random.default_rng(0).integers(0, 11, 40)
    losses = np.concatenate(list(score_tokens(model, [ids[:15], ids[15:]], stride=1, batch_size=3)))
    naive = [-log_probs(model, ids[max(0, i - BLOCK) : i].tolist())[ids[i]] for i in range(1, len(ids))]
    np.testing.assert_allclose(losses, naive, rtol=1e-12)


@pytest.mark.parametrize("n", [2, 5, BLOCK, BLOCK + 1, BLOCK + 2, 3 * BLOCK + 5])
def test_losses_with_any_stride_use_the_context_they_promise(n: int) -> None:
    model, ids = model_of(11), np.random.default_rng(n).integers(0, 11, n)
    # The definition: [i][k] is −ln p of id i from the k ids before it.
    slow = [
        [math.nan, *(-log_probs(model, ids[i - k : i].tolist())[ids[i]] for k in range(1, min(i, BLOCK) + 1))]
        for i in range(n)
    ]
    for stride in range(1, BLOCK + 1):
        losses = np.concatenate(list(score_tokens(model, [ids], stride, batch_size=4)))
        assert len(losses) == n - 1
        for i, loss in enumerate(losses, start=1):
            allowed = slow[i][min(i, BLOCK - stride + 1) :]
            assert np.min(np.abs(np.array(allowed) - loss)) < 1e-12, (stride, i)


def test_batch_size_changes_no_loss() -> None:
    model, ids = model_of(11), np.random.default_rng(1).integers(0, 11, 60)
    one, many = (np.concatenate(list(score_tokens(model, [ids], 3, size))) for size in (1, None))
    np.testing.assert_allclose(one, many, rtol=1e-12)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        score_tokens(model, [ids], 3, 0)


@pytest.mark.parametrize(("logits", "rows"), [(1, 1), (3 * BLOCK * 11, 3)])
def test_as_many_windows_are_scored_at_once_as_the_logits_allow(
    logits: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At least one window, even if it has more logits than are allowed."""
    seen = []

    def count(model: GPT, inputs: Any, targets: Any) -> Any:
        seen.append(len(inputs))
        return token_losses(model, inputs, targets)

    monkeypatch.setattr(losses_module, "token_losses", count)
    monkeypatch.setattr(losses_module, "LOGITS_AT_ONCE", logits)
    windows = len(list(scoring_windows([np.zeros(60, np.int64)], BLOCK, BLOCK // 2)))
    assert len(np.concatenate(list(score_tokens(model_of(11), [np.zeros(60, np.int64)])))) == 59
    assert seen == [rows] * (windows // rows) + ([windows % rows] if windows % rows else [])


def test_default_stride_is_half_the_block() -> None:
    model = model_of(11)
    assert default_stride(model) == BLOCK // 2
    assert default_stride(GPT(GPTConfig(vocab_size=5, block_size=1, n_layer=1, n_head=1, n_embd=2))) == 1


def test_targets_of_another_shape_with_as_many_ids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"must have one shape, got \(2, 3\) and \(3, 2\)"):
        token_losses(model_of(11), np.zeros((2, 3), int), np.zeros((3, 2), int))


def test_losses_are_without_dropout_and_keep_the_training_mode() -> None:
    model, ids = model_of(11, dropout=0.5), np.arange(6)[None]
    one, two = (token_losses(model, ids, ids + 1) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert model.training


def test_losses_that_are_nan_or_infinite_raise() -> None:
    model = model_of(11)
    model.transformer.ln_f.weight.data[:] = 1e308
    with pytest.raises(ValueError, match="scores are NaN or infinite"):
        token_losses(model, np.array([[1, 2]]), np.array([[2, 3]]))


@pytest.mark.parametrize(("rows", "length"), [(1, 8), (5, 4)])
def test_threads_give_the_losses_of_one(rows: int, length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rng = model_of(11).to(np.float64), np.random.default_rng(0)
    inputs, targets = rng.integers(0, 11, (2, rows, length))
    targets[0, 1] = IGNORE_INDEX
    logits = functional.log_softmax(model.eval()(inputs), -1).data
    expected = -np.take_along_axis(logits, np.maximum(targets, 0)[..., None], -1)[..., 0] * (targets != IGNORE_INDEX)
    for module in (cache, losses_module, runtime):
        monkeypatch.setattr(module, "threads_of_blas", lambda: 3)
    monkeypatch.setattr(cache, "STRETCH", 2)
    monkeypatch.setattr(losses_module, "STRETCH", 2)
    np.testing.assert_allclose(token_losses(model, inputs, targets), expected, rtol=1e-12)
