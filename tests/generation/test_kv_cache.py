"""The key/value cache: what it holds and where, one for all rows or one for each, and the last logits alone."""

import threading

import numpy as np
import pytest
from generation_models import model_of, prompt
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import Tensor, no_grad, runtime
from tinygrad_llm.generation import KVCache
from tinygrad_llm.generation import cache as cache_module
from tinygrad_llm.generation.cache import read_by_threads

MODEL = model_of().eval()


def test_cache_returns_all_keys_and_values_up_to_its_capacity():
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


@pytest.mark.parametrize(("held", "given"), [(2, 1), (2, 3), (1, 2)])
def test_a_cache_of_another_number_of_texts_is_refused(held, given):
    cache = MODEL.new_cache()
    with no_grad():
        MODEL(prompt(held, 2), cache)
        with pytest.raises(ValueError, match=f"the cache holds {held} texts, got {given}: make a new one"):
            MODEL(prompt(given, 1), cache)


def test_cache_never_moves_what_it_holds():
    cache = MODEL.new_cache()
    moved = []

    def extend(k, v, extend=cache.layers[0].extend):
        moved.append(extend(k, v))
        return moved[-1]

    cache.layers[0].extend = extend
    with no_grad():
        for ids in ([[1, 2, 3]], [[4]], [[5, 6]]):
            MODEL(ids, cache)
        held = [array.data.copy() for array in moved[-1]]
        cache.clear()
        assert cache.length == 0
        MODEL([[7, 8]], cache)
    assert [keys.shape for keys, _ in moved] == [(1, 2, n, 4) for n in (3, 4, 6, 2)]
    for i in range(2):
        assert all(np.shares_memory(after[i].data, moved[0][i].data) for after in moved)
        np.testing.assert_array_equal(moved[2][i].data[:, :, 2:], held[i][:, :, 2:])  # only the first two are new


@given(st.lists(st.integers(0, 7), min_size=2, max_size=4), st.integers(1, 3))
def test_cache_for_each_row_continues_where_the_row_stands(lengths, more):
    more = min(more, 8 - max(lengths))
    texts = [np.random.default_rng(i).integers(0, 13, (1, n + more)) for i, n in enumerate(lengths)]
    caches = [MODEL.new_cache() for _ in texts]
    with no_grad():
        for text, cache, n in zip(texts, caches, lengths, strict=True):
            if n:
                MODEL(text[:, :n], cache)
        logits = MODEL(np.concatenate([text[:, -more:] for text in texts]), caches).data
        expected = np.concatenate([MODEL(text).data[:, -more:] for text in texts])
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-3)
    assert [cache.length for cache in caches] == [n + more for n in lengths]


def test_the_longest_of_the_caches_must_have_room():
    caches = [MODEL.new_cache() for _ in range(2)]
    with no_grad():
        MODEL(prompt(1, 3), caches[0])
        MODEL(prompt(1, 7), caches[1])
        with pytest.raises(ValueError, match="got 9 positions, more than block_size 8"):
            MODEL(prompt(2, 2), caches)
    assert [cache.length for cache in caches] == [3, 7]


def test_caches_that_are_not_one_per_row_are_refused():
    with no_grad(), pytest.raises(ValueError, match="got 2 caches for 3 rows: give one for all, or one for each"):
        MODEL(prompt(3), [MODEL.new_cache() for _ in range(2)])
    for n_layer in (1, 9):
        with no_grad(), pytest.raises(ValueError, match="got the cache of another model"):
            MODEL(prompt(3), KVCache(n_layer, 8))
    cache = MODEL.new_cache()
    with no_grad(), pytest.raises(ValueError, match="got one cache for two rows"):
        MODEL(prompt(2), [cache, cache])


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("keep", [0, 1, 3, 4, 9])
def test_logits_to_keep_gives_the_last_of_all_logits(keep, cached):
    model = model_of().to(np.float64).eval()
    with no_grad():
        last = model(prompt(2), model.new_cache() if cached else None, logits_to_keep=keep)
        np.testing.assert_allclose(last, model(prompt(2)).data[:, max(0, 4 - keep) :], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("keep", [-1, -4])
def test_a_negative_logits_to_keep_is_refused(keep):
    with pytest.raises(ValueError, match=f"logits_to_keep must be ≥ 0, or None for all, (not|got) {keep}"):
        MODEL(prompt(2), logits_to_keep=keep)


# ---- several threads read one text -----------------------------------------------------------------------------------


@pytest.fixture
def threads(monkeypatch):
    """Short texts are worth a thread, and BLAS has as many as are set here, also on a machine of one core."""

    def set_to(n):
        monkeypatch.setattr(cache_module, "STRETCH", 2)
        for module in (cache_module, runtime):
            monkeypatch.setattr(module, "threads_of_blas", lambda: n)

    return set_to


@pytest.mark.parametrize("n", [2, 3, 9])
@pytest.mark.parametrize("held", [0, 3])
def test_several_threads_read_a_text_as_one_does(n, held, threads):
    model = model_of(block_size=24).to(np.float64).eval()
    ids, caches = prompt(2, held + 15), [model.new_cache(), model.new_cache()]
    with no_grad():
        if held:
            for cache in caches:
                model(ids[:, :held], cache)
        expected = model(ids[:, held:], caches[0]).data
        threads(n)
        seen = []

        def read(part, cache):
            seen.append(threading.get_ident())
            return model(ids[:, held:][:, part], cache).data

        found = read_by_threads(read, 15, caches[1])
        assert len(found) == len(seen) == min(n, 4)
        np.testing.assert_allclose(np.concatenate(found, axis=1), expected, rtol=1e-12, atol=1e-12)
        assert caches[1].length == held + 15
        after = [model([[3], [4]], cache).data for cache in caches]
    np.testing.assert_allclose(after[1], after[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("at", [0, 7, 14])
def test_an_error_in_one_stretch_ends_all_threads(at, threads):
    threads(3)
    model, ids = model_of(block_size=16), prompt(1, 15)
    ids[0, at] = 99
    with pytest.raises(IndexError, match="99"):
        model.generate(ids, 1)


@pytest.mark.parametrize("rows", [1, 2])
def test_text_from_a_prompt_that_threads_read_is_the_same(rows, threads):
    model, ids = model_of(block_size=16).to(np.float64), prompt(rows, 14)
    expected = model.generate(ids, 6, temperature=0)
    threads(3)
    np.testing.assert_array_equal(model.generate(ids, 6, temperature=0), expected)
