"""y ← a·x + b·y, by BLAS and by NumPy."""

import numpy as np
import pytest

import tinygrad_llm.optim.axpby as module
from tinygrad_llm import runtime
from tinygrad_llm.optim.axpby import axpby


@pytest.fixture(params=["BLAS", "NumPy"])
def by(request, monkeypatch):
    """With NumPy, as where its BLAS does not have the function."""
    if request.param == "NumPy":
        monkeypatch.setattr(module, "_function", lambda dtype: None)
    return request.param


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("size", [0, 1, 15, 1000])
def test_axpby_follows_its_formula_in_any_layout(by, dtype, size):
    rng = np.random.default_rng(size)
    x, y = (rng.standard_normal((3, size)).astype(dtype) for _ in range(2))
    for a, b in ((-0.3, 0.9), (1.0, 0.5), (2.0, 1.0), (0.0, 0.5), (0.7, 0.0)):
        wanted = a * x.astype(np.longdouble) + b * y.astype(np.longdouble)
        found = y.copy()
        axpby(a, x, b, found)
        np.testing.assert_allclose(found, wanted, atol=20 * np.finfo(dtype).eps)
        spread = np.zeros(2 * x.size + 1, dtype)
        for other in (y.copy(order="F"), spread[1::2].reshape(3, size), spread[1 : 1 + x.size].reshape(3, size)):
            other[...] = y
            axpby(a, x, b, other)
            assert other.tobytes() == found.tobytes()


def test_axpby_of_two_dtypes_rounds_to_that_of_y(by):
    x, y = np.array([1.0, 2.0]), np.array([4.0, 6.0], np.float32)
    axpby(2.0, x, 0.5, y)
    assert y.dtype == np.float32
    assert y.tolist() == [4.0, 7.0]


@pytest.mark.parametrize("shape", [(4,), (2, 2)])
def test_axpby_refuses_memory_that_is_read_only(by, shape):
    y, fixed = np.ones(shape, np.float32), np.ones(shape, np.float32)
    fixed.flags.writeable = False
    for pair in ((y, fixed), (fixed, y)):
        with pytest.raises(ValueError, match="read-only"):
            axpby(1.0, pair[0], 1.0, pair[1])
    assert y.tolist() == fixed.tolist() == np.ones(shape).tolist()


def test_axpby_refuses_other_shapes_before_it_reads_memory(by):
    with pytest.raises(ValueError, match="shape"):
        axpby(1.0, np.ones(3), 1.0, np.ones(4))


@pytest.mark.parametrize("error", [OSError("another BLAS"), AttributeError("an OpenBLAS without axpby")])
def test_without_openblas_numpy_computes(error, monkeypatch):
    def unknown():
        raise error

    assert module._function.__wrapped__(np.dtype(np.float16)) is None
    monkeypatch.setattr(module, "OpenBLAS", unknown)
    assert module._function.__wrapped__(np.dtype(np.float32)) is None


def test_an_openblas_without_the_function_is_told_by_an_attribute_error():
    try:
        blas = runtime.OpenBLAS()
    except OSError:
        pytest.skip("NumPy uses another BLAS here, or its library cannot be loaded")
    with pytest.raises(AttributeError):
        blas.axpby("unknown")
