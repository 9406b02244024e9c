"""Embedding as a product with one-hot rows, its gradient by rows, and dropout."""

import numpy as np
import pytest
from agreement import assert_agree, assert_close, one_hot, seeds, zeros
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels.contract import Rows


@given(seeds, st.integers(1, 6), st.integers(1, 4), hnp.array_shapes(min_dims=0, max_dims=2, max_side=4))
def test_embedding_equals_a_product_with_one_hot_rows(seed, V, C, shape):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal((V, C)), np.asarray(rng.integers(0, V, shape))]
    assert_agree(K.embedding, arrays, lambda weight, ids: Tensor(one_hot(ids.data, V)) @ weight)


@given(seeds, st.integers(1, 6), st.integers(1, 4), hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
def test_rows_equal_the_dense_gradient(seed, V, C, shape):
    rng = np.random.default_rng(seed)
    weight, ids = rng.standard_normal((V, C)), np.asarray(rng.integers(0, V, shape))
    y, vjp = K.embedding(weight, ids, sparse=True)
    g = rng.standard_normal(y.shape)
    rows, none = vjp(g)
    assert none is None
    assert isinstance(rows, Rows)
    assert rows.rows.tolist() == sorted(set(ids.reshape(-1).tolist()))
    assert (rows.shape, rows.dtype, rows.ndim) == ((V, C), np.float64, 2)
    dense, _ = K.embedding(weight, ids)[1](g)
    assert isinstance(dense, np.ndarray)
    assert np.asarray(rows).tobytes() == dense.tobytes()
    scattered = np.zeros((V, C))
    np.add.at(scattered, ids, g)
    assert_close(rows, scattered)
    total = start = rng.standard_normal((V, C))
    expected = start + dense
    rows.add_to(total)
    assert total.tobytes() == expected.tobytes()


def test_rows_are_an_array_to_numpy():
    rows = Rows(np.array([0, 2]), np.array([[1.0, 2.0], [3.0, 4.0]], np.float32), (4, 2))
    whole = [[1, 2], [0, 0], [3, 4], [0, 0]]
    assert np.asarray(rows).tolist() == whole
    assert np.asarray(rows).dtype == np.float32
    assert np.asarray(rows, dtype=np.float64).dtype == np.float64
    assert np.shape(rows) == (4, 2)
    assert np.sum(rows) == 10
    one, other = np.asarray(rows), np.asarray(rows)
    one[...] = 7
    assert other.tolist() == whole


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([0, -1], IndexError, "got id -1, outside the vocabulary: ids must be 0 … 4"),
        ([5, 0], IndexError, "got id 5, outside the vocabulary: ids must be 0 … 4"),
        ([1.0], TypeError, "got ids of float64, which must be integers"),
    ],
)
def test_embedding_refuses_ids_outside_the_vocabulary(ids, error, message):
    with pytest.raises(error, match=f"embedding: {message}"):
        K.embedding(zeros(5, 2), np.array(ids))


def test_dropout_of_an_infinite_element_is_0():
    y, vjp = K.dropout(np.array([np.inf, 1.0]), np.array([False, True]), p=0.5)
    np.testing.assert_array_equal(y, [0, 2])
    np.testing.assert_array_equal(vjp(np.array([np.inf, 1.0]))[0], [0, 2])
