"""The gradient of a batch by several workers, and how their number is chosen."""

import math
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.autograd import AnomalyError, detect_anomaly, grad
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runtime import OpenBLAS
from tinygrad_llm.training import workers as parallel
from tinygrad_llm.training.workers import (
    IGNORE_INDEX,
    Gradients,
    counted,
    default_workers,
)

BLOCK, VOCAB = 6, 11


def new_model(dtype=np.float64, **changes):
    sizes = {"vocab_size": VOCAB, "block_size": BLOCK, "n_layer": 1, "n_head": 2, "n_embd": 8}
    return GPT(GPTConfig(**sizes | changes), Generator(1)).to(dtype)


def batch_of(rows, seed=0, ignored=0.0):
    """Random ids and targets, of which some share does not count, but one always does."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCAB, (rows, BLOCK))
    targets = rng.integers(0, VOCAB, (rows, BLOCK))
    targets[rng.random((rows, BLOCK)) < ignored] = IGNORE_INDEX
    targets[rng.integers(rows), 0] = 1
    return ids, targets


def gradient(model, batch, workers, **changes):
    with Gradients(model, list(model.parameters()), workers, **changes) as gradients:
        return gradients.of(*batch)


def assert_close(one, other):
    (loss, grads), (other_loss, other_grads) = one, other
    assert loss == pytest.approx(other_loss, rel=1e-13)
    for g, h in zip(grads, other_grads, strict=True):
        np.testing.assert_allclose(g, h, rtol=1e-10, atol=1e-15)


# ---- the gradient ----------------------------------------------------------------------------------------------


@given(
    rows=st.integers(1, 9),
    workers=st.integers(1, 5),
    seed=st.integers(0, 99),
    ignored=st.sampled_from([0.0, 0.5, 0.9]),
    label_smoothing=st.sampled_from([0.0, 0.1]),
)
def test_any_number_of_workers_gives_the_gradient_of_one(rows, workers, seed, ignored, label_smoothing):
    model, batch = new_model(), batch_of(rows, seed, ignored)
    loss = model.loss(*batch, label_smoothing)
    expected = loss.item(), grad(loss, list(model.parameters()))
    assert_close(gradient(model, batch, workers, label_smoothing=label_smoothing), expected)


@pytest.mark.parametrize("workers", [2, 3])
def test_a_part_without_targets_that_count_adds_nothing(workers):
    model, (ids, targets) = new_model(), batch_of(4, ignored=0.3)
    targets[:2] = IGNORE_INDEX  # all that the first of two workers gets
    counting = ids[2:], targets[2:]
    assert_close(gradient(model, (ids, targets), workers), gradient(model, counting, 1))


@pytest.mark.parametrize("workers", [1, 2])
def test_a_batch_without_any_target_that_counts_has_no_mean(workers):
    ids, targets = batch_of(4)
    with pytest.raises(ValueError, match="target"):
        gradient(new_model(), (ids, np.full_like(targets, IGNORE_INDEX)), workers)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_the_same_workers_give_the_same_bits(workers):
    model, batch = new_model(np.float32), batch_of(7)
    loss, grads = gradient(model, batch, workers)
    for _ in range(5):
        other_loss, other_grads = gradient(model, batch, workers)
        assert other_loss == loss
        assert [g.tobytes() for g in other_grads] == [g.tobytes() for g in grads]


def test_shares_of_a_whole_add_up_to_it():
    model, (ids, targets) = new_model(), batch_of(5, ignored=0.5)
    gradients = Gradients(model, list(model.parameters()), 1, label_smoothing=0.1)
    count = counted(targets)
    assert count == sum(target != IGNORE_INDEX for target in targets.ravel().tolist())
    parts = [gradients.loss(ids[rows], targets[rows], count).item() for rows in (slice(0, 1), slice(1, 5))]
    assert math.fsum(parts) == pytest.approx(gradients.loss(ids, targets).item(), rel=1e-13)


def test_what_went_wrong_in_a_worker_is_told():
    model, (ids, targets) = new_model(), batch_of(4)
    ids[3, 2] = VOCAB
    with pytest.raises(IndexError, match=f"id {VOCAB} is outside"):
        gradient(model, (ids, targets), 2)


def test_blas_has_one_thread_in_each_worker_and_its_own_number_elsewhere(monkeypatch):
    try:
        blas = OpenBLAS()
    except OSError:
        pytest.skip("this NumPy uses another BLAS")
    before, part, seen = blas.threads, Gradients._part, []

    def noted(*args):
        seen.append((blas.threads, threading.current_thread()))
        return part(*args)

    monkeypatch.setattr(Gradients, "_part", noted)
    blas.threads = 2
    try:
        if blas.threads != 2:
            pytest.skip("this OpenBLAS has one thread only")
        gradient(new_model(), batch_of(4), 2)
        assert blas.threads == 2
        with pytest.raises(IndexError):
            gradient(new_model(), (np.full((4, BLOCK), VOCAB), batch_of(4)[1]), 2)
        assert blas.threads == 2
    finally:
        blas.threads = before
    assert [threads for threads, _ in seen[:2]] == [1, 1]
    assert threading.main_thread() not in {thread for _, thread in seen}


# ---- how many workers ------------------------------------------------------------------------------------------


def measured(monkeypatch, times, cores=2):
    """The default on a machine where gradients take these seconds, by the number of workers; and what was measured."""
    asked = []

    def seconds(model, batch_size, workers, *_):
        asked.append(workers)
        return times[workers]

    monkeypatch.setattr(parallel, "cores", lambda: cores)
    monkeypatch.setattr(parallel, "_seconds", seconds)
    return asked


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [(1.0, 0.5, 2), (1.0, 0.99, 2), (1.0, 1.01, 2), (1.0, 1.1, 2), (1.1, 1.0, 2), (1.0, 1.3, 1), (1.0, 9.0, 1)],
)
def test_one_worker_is_chosen_where_it_is_clearly_faster(one, two, expected, monkeypatch):
    measured(monkeypatch, {1: one, 2: two})
    assert default_workers(new_model(), 12) == expected


@pytest.mark.parametrize(
    ("cores", "batch_size", "most"), [(3, 12, 3), (64, 12, 4), (64, 3, 3), (2, 12, 2), (1, 12, 1), (8, 1, 1)]
)
def test_a_core_and_a_row_at_least_for_each_of_up_to_four(cores, batch_size, most, monkeypatch):
    asked = measured(monkeypatch, {1: 1.0, most: 0.5}, cores)
    assert default_workers(new_model(), batch_size) == most
    assert sorted(asked) == ([1, most] if most > 1 else [])  # nothing to measure where there is no choice


def test_dropout_is_left_to_one_worker(monkeypatch):
    measured(monkeypatch, {1: 9.0, 2: 1.0})
    assert default_workers(new_model(dropout=0.1), 12) == 1


def test_without_a_blas_that_obeys_there_is_one_worker_unless_asked_for(monkeypatch):
    from tinygrad_llm import runtime

    def none():
        raise OSError

    model, batch = new_model(), batch_of(4)
    expected = gradient(model, batch, 2)
    measured(monkeypatch, {1: 9.0, 2: 1.0})
    monkeypatch.setattr(runtime, "OpenBLAS", none)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert default_workers(model, 12) == 1
    assert_close(gradient(model, batch, 2), expected)


def test_the_measurement_changes_nothing_and_takes_a_moment():
    model = new_model(np.float32)
    before = {name: w.copy() for name, w in model.state_dict().items()}
    assert default_workers(model, 4) in (1, 2, 3, 4)
    assert parallel._seconds(model, 4, 2) > 0
    assert all((before[name] == w).all() for name, w in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())


# ---- what is switched on around it --------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_hook_sees_the_whole_gradient_once(workers):
    model, batch = new_model(), batch_of(5)
    _, plain = gradient(model, batch, 1)
    first, seen = next(model.parameters()), []

    def double(g):
        seen.append(g.copy())
        return 2 * g

    first.register_hook(double)
    _, (ours, *others) = gradient(model, batch, workers)
    assert len(seen) == 1
    assert_close((0.0, [seen[0], *others]), (0.0, plain))
    np.testing.assert_array_equal(ours, 2 * seen[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_anomalies_are_looked_for_in_every_thread(workers):
    model = new_model()
    model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = np.nan
    with detect_anomaly(), pytest.raises(AnomalyError, match=r"GPT\.transformer\.h\.0\.mlp\.c_fc"):
        gradient(model, batch_of(4), workers)
