"""The gradient of a batch by several workers, and how their number is chosen."""

import math
import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from training_toys import BLOCK, VOCAB, Curve, new_model, regression

from tinygrad_llm.autograd import AnomalyError, detect_anomaly, grad
from tinygrad_llm.kernels import IGNORE_INDEX
from tinygrad_llm.nn import Dropout
from tinygrad_llm.random import Generator, QuickMasks
from tinygrad_llm.runtime import OpenBLAS, blas_threads
from tinygrad_llm.training import Examples, LanguageModeling, workers
from tinygrad_llm.training.workers import Workers, fastest_threads


def batch_of(rows, seed=0, ignored=0.0):
    """Random ids and targets. Some share of the targets does not count, but at least one does."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, VOCAB, (rows, BLOCK))
    targets = rng.integers(0, VOCAB, (rows, BLOCK))
    targets[rng.random((rows, BLOCK)) < ignored] = IGNORE_INDEX
    targets[rng.integers(rows), 0] = 1
    return ids, targets


def gradient(model, batch, threads, label_smoothing=0.0):
    with Workers(model, LanguageModeling(None, label_smoothing=label_smoothing), threads) as opened:
        return opened.gradient(batch)


def assert_close(one, other):
    assert (one.batches, one.count) == (other.batches, other.count)
    assert one.loss == pytest.approx(other.loss, rel=1e-13)
    for g, h in zip(one.grads, other.grads, strict=True):
        np.testing.assert_allclose(g, h, rtol=1e-10, atol=1e-15)


# ---- the gradient ----------------------------------------------------------------------------------------------------


@settings(max_examples=15)
@given(
    rows=st.integers(1, 9),
    threads=st.integers(1, 5),
    seed=st.integers(0, 99),
    ignored=st.sampled_from([0.0, 0.5, 0.9]),
    label_smoothing=st.sampled_from([0.0, 0.1]),
)
def test_any_number_of_threads_gives_the_gradient_of_one(rows, threads, seed, ignored, label_smoothing):
    model, batch = new_model(np.float64), batch_of(rows, seed, ignored)
    loss = model.loss(*batch, label_smoothing)
    found = gradient(model, batch, threads, label_smoothing=label_smoothing)
    assert found.count == sum(target != IGNORE_INDEX for target in batch[1].ravel().tolist())
    assert found.loss == pytest.approx(loss.item(), rel=1e-13)
    for g, h in zip(found.grads, grad(loss, list(model.parameters())), strict=True):
        np.testing.assert_allclose(g, h, rtol=1e-10, atol=1e-15)


@pytest.mark.parametrize("threads", [2, 3, 9])
def test_a_part_in_which_nothing_counts_adds_nothing(threads):
    model, (ids, targets) = new_model(np.float64), batch_of(4, ignored=0.3)
    targets[:2] = IGNORE_INDEX  # all that the first of two workers gets
    assert_close(gradient(model, (ids, targets), threads), gradient(model, (ids[2:], targets[2:]), 1))


@pytest.mark.parametrize("threads", [1, 2])
def test_a_batch_in_which_nothing_counts_is_refused(threads):
    ids, targets = batch_of(4)
    with pytest.raises(ValueError, match="has no target that counts: leave it out"):
        gradient(new_model(), (ids, np.full_like(targets, IGNORE_INDEX)), threads)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_the_same_number_of_threads_gives_the_same_bits(threads):
    batch = batch_of(7)
    first = gradient(new_model(dropout=0.2), batch, threads)
    for _ in range(5):
        again = gradient(new_model(dropout=0.2), batch, threads)
        assert again.loss == first.loss
        assert [g.tobytes() for g in again.grads] == [g.tobytes() for g in first.grads]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", [Generator, QuickMasks])
def test_each_of_several_threads_draws_masks_from_its_own_fork(kind, recompute):
    """The oracle takes the parts one after another, and sets the generator of the layers itself."""

    def draw_from(rng):
        for layer in model.modules():
            if isinstance(layer, Dropout):
                layer.rng = rng

    model, task, batch = new_model(np.float64, dropout=0.3), LanguageModeling(None), batch_of(5, ignored=0.3)
    model.recompute = recompute
    shared, same = kind(7), kind(7)
    draw_from(shared)
    found = [gradient(model, batch, 2) for _ in range(2)]
    for one in found:
        losses, grads = [], []
        for fork, part in zip(same.fork(2), task.split(batch, 2), strict=True):
            assert type(fork) is kind
            draw_from(fork)
            loss = task.loss(model, part, one.count)
            losses.append(loss.item())
            grads.append(grad(loss, list(model.parameters())))
        assert one.loss == pytest.approx(sum(losses), rel=1e-13)
        for g, *parts in zip(one.grads, *grads, strict=True):
            np.testing.assert_allclose(g, sum(parts), rtol=1e-10, atol=1e-15)
    assert found[0].loss != found[1].loss
    assert str(shared.get_state()) == str(same.get_state())  # all that a checkpoint has to save


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_figures_of_the_parts_add_up(threads):
    model, task = Curve().to(np.float64), regression(dtype=np.float64)
    batch = task.held_out[0]
    with Workers(model, task, threads) as opened:
        found = opened.gradient(batch)
    error = np.abs(model(batch["x"]).numpy() - batch["y"])[:, 0]
    assert found.measures == {"absolute_error": pytest.approx((error * batch["counts"]).sum() / found.count, rel=1e-12)}


def test_an_error_in_a_thread_is_raised():
    model, (ids, targets) = new_model(), batch_of(4)
    ids[3, 2] = VOCAB
    with pytest.raises(IndexError, match=f"got id {VOCAB}"):
        gradient(model, (ids, targets), 2)


def test_blas_has_one_thread_in_each_worker_and_its_own_number_elsewhere(monkeypatch):
    try:
        blas = OpenBLAS()
    except OSError:
        pytest.skip("this NumPy uses another BLAS")
    loss, seen = LanguageModeling.loss, []

    def noted(*args):
        seen.append((blas.threads, threading.current_thread()))
        return loss(*args)

    monkeypatch.setattr(LanguageModeling, "loss", noted)
    with blas_threads(2):
        if blas.threads != 2:
            pytest.skip("this OpenBLAS has one thread only")
        gradient(new_model(), batch_of(4), 2)
        assert blas.threads == 2
        with pytest.raises(IndexError):
            gradient(new_model(), (np.full((4, BLOCK), VOCAB), batch_of(4)[1]), 2)
        assert blas.threads == 2
    assert [threads for threads, _ in seen[:2]] == [1, 1]
    assert threading.main_thread() not in {thread for _, thread in seen}


# ---- how many threads ------------------------------------------------------------------------------------------------


@pytest.fixture
def machine(monkeypatch):
    """A function: seconds of a gradient by number of threads, cores → the list of numbers that get measured."""

    def make(times, cores=2):
        asked = []
        monkeypatch.setattr(workers, "cores", lambda: cores)
        monkeypatch.setattr(
            workers, "_seconds", lambda model, task, batch, threads: asked.append(threads) or times[threads]
        )
        return asked

    return make


def fastest(rows=12, **changes):
    return fastest_threads(new_model(**changes), task_with(rows))


def task_with(rows):
    """A task whose batches have so many rows."""
    return LanguageModeling(Examples(batch_of(rows), rows, Generator(0)))


@pytest.mark.parametrize(
    ("one", "two", "expected"),
    [(1.0, 0.5, 2), (1.0, 0.99, 2), (1.0, 1.01, 2), (1.0, 1.1, 2), (1.1, 1.0, 2), (1.0, 1.3, 1), (1.0, 9.0, 1)],
)
def test_one_thread_is_chosen_where_it_is_clearly_faster(one, two, expected, machine):
    machine({1: one, 2: two})
    assert fastest() == fastest(dropout=0.1) == expected


@pytest.mark.parametrize(
    ("cores", "rows", "most"), [(3, 12, 3), (64, 12, 4), (64, 3, 3), (2, 12, 2), (1, 12, 1), (8, 1, 1)]
)
def test_up_to_four_threads_each_have_a_core_and_a_row(cores, rows, most, machine):
    asked = machine({1: 1.0, most: 0.5}, cores)
    assert fastest(rows) == most
    assert sorted(asked) == ([1, most] if most > 1 else [])  # nothing to measure where there is no choice


def test_without_a_blas_that_obeys_there_is_one_thread_unless_asked_for(machine, monkeypatch):
    from tinygrad_llm import runtime

    def none():
        raise OSError

    model, batch = new_model(np.float64), batch_of(4)
    expected = gradient(model, batch, 2)
    machine({1: 9.0, 2: 1.0})
    monkeypatch.setattr(runtime, "OpenBLAS", none)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert fastest() == 1
    assert_close(gradient(model, batch, 2), expected)


def test_the_measurement_changes_neither_model_nor_data(monkeypatch):
    model, task = new_model(dropout=0.1), task_with(4)
    before = {name: w.copy() for name, w in model.state_dict().items()}
    random = str(model.transformer.drop.rng.get_state())
    monkeypatch.setattr(workers, "cores", lambda: 2)
    gradients = []
    original = Workers.gradient
    monkeypatch.setattr(
        Workers, "gradient", lambda self, batch: gradients.append(self.threads) or original(self, batch)
    )
    assert fastest_threads(model, task) in (1, 2)
    assert {threads: gradients.count(threads) >= 2 for threads in (1, 2)} == {1: True, 2: True}
    assert all((before[name] == w).all() for name, w in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert str(model.transformer.drop.rng.get_state()) == random
    np.testing.assert_array_equal(task.next_batch()[0], task_with(4).next_batch()[0])


# ---- what is switched on around it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_hook_sees_the_whole_gradient_once(threads):
    model, batch = new_model(np.float64), batch_of(5)
    plain = gradient(model, batch, 1).grads
    first, seen = next(model.parameters()), []

    def double(g):
        seen.append(g.copy())
        return 2 * g

    first.register_hook(double)
    ours, *others = gradient(model, batch, threads).grads
    assert len(seen) == 1
    for g, h in zip([seen[0], *others], plain, strict=True):
        np.testing.assert_allclose(g, h, rtol=1e-10, atol=1e-15)
    np.testing.assert_array_equal(ours, 2 * seen[0])


@pytest.mark.parametrize("threads", [1, 2])
def test_anomalies_are_found_in_every_thread(threads):
    model = new_model()
    model.transformer.h[0].mlp.c_fc.weight.data[0, 0] = math.nan
    with detect_anomaly(), pytest.raises(AnomalyError, match=r"GPT\.transformer\.h\.0\.mlp\.c_fc"):
        gradient(model, batch_of(4), threads)
