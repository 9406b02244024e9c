"""Arrays for a page: statistics and maps say what the array holds."""

import base64
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from tinygrad_llm.study import numbers

ARRAYS = npst.arrays(
    np.float32,
    npst.array_shapes(min_dims=0, max_dims=4, max_side=7),
    elements=st.floats(-100, 100, width=32) | st.sampled_from([0.0, math.nan, math.inf, -math.inf]),
)


def cells(data):
    return np.frombuffer(base64.b64decode(data["q8"]), np.uint8).reshape(data["rows"], data["cols"])


def decoded(data):
    codes = cells(data)
    values = data["lo"] + (data["hi"] - data["lo"]) * codes / 252.0
    return np.select([codes == 253, codes == 254, codes == 255], [-math.inf, math.inf, math.nan], values)


@given(ARRAYS)
def test_full_holds_every_bit(array):
    data = numbers.full(array)
    assert base64.b64decode(data["f32"]) == array.tobytes()
    assert len(data["f32"]) <= numbers.full_bytes(array.size)


@given(ARRAYS)
def test_statistics_are_of_the_finite_elements(array):
    found = numbers.statistics(array)
    x = array[np.isfinite(array)].astype(np.float64)
    counts = {"n": array.size, "nan": np.isnan(array).sum(), "inf": np.isinf(array).sum(), "zeros": (x == 0).sum()}
    assert {name: found[name] for name in counts} == counts
    if x.size:
        assert (found["min"], found["max"]) == (x.min(), x.max())
        np.testing.assert_allclose([found["mean"], found["norm"]], [x.mean(), np.linalg.norm(x)], atol=1e-12)
    else:
        assert found["min"] is found["max"] is found["norm"] is None


def test_statistics_of_a_large_array_are_summed_in_parts(monkeypatch):
    array = np.arange(100, dtype=np.float32).reshape(10, 10)
    array[3, 3] = math.nan
    whole = numbers.statistics(array)
    monkeypatch.setattr(numbers, "_CHUNK", 7)
    np.testing.assert_allclose(list(numbers.statistics(array).values()), list(whole.values()))


@given(ARRAYS, st.integers(1, 60))
def test_a_map_shows_the_strongest_element_of_each_cell(array, most):
    data = numbers.quantized(array, most)
    shown = decoded(data)
    p, q = data["cell"]
    matrix = array.reshape(-1, array.shape[-1] if array.ndim else 1).astype(np.float64)
    assert shown.size <= max(most, 1)
    assert shown.shape == (math.ceil(matrix.shape[0] / p), math.ceil(matrix.shape[1] / q))
    step = (data["hi"] - data["lo"]) / 252
    for i, j in np.ndindex(*shown.shape):
        part = matrix[i * p : (i + 1) * p, j * q : (j + 1) * q]
        if np.isnan(part).any():
            assert np.isnan(shown[i, j])
        else:
            strongest = np.abs(part).max()
            np.testing.assert_allclose(abs(shown[i, j]), strongest, atol=step)


def test_a_map_of_ids_and_of_masks():
    np.testing.assert_array_equal(decoded(numbers.quantized(np.array([[0, 252], [1, 2]]))), [[0, 252], [1, 2]])
    np.testing.assert_array_equal(decoded(numbers.quantized(np.array([[True, False]]))), [[1, 0]])
    np.testing.assert_array_equal(decoded(numbers.quantized(np.full((2, 2), 7.0))), np.full((2, 2), 7.0))


def test_a_large_array_is_summarized(monkeypatch):
    array = np.arange(12.0).reshape(3, 4)
    assert numbers.summarize(array) is not array
    np.testing.assert_array_equal(numbers.summarize(array), array)
    monkeypatch.setattr(numbers, "LARGE", 11)
    summary = numbers.summarize(array)
    assert numbers.statistics(summary) == numbers.statistics(array)
    assert numbers.quantized(summary) == numbers.quantized(array)
    with pytest.raises(AttributeError):
        _ = summary.shape  # it holds no array
