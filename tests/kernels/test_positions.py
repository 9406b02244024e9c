"""Positions: the sines of the first transformer."""

import math

import numpy as np
import pytest

from tinygrad_llm.kernels.positions import sinusoidal


def test_sinusoidal_positions_equal_the_formula_of_the_paper():
    table = sinusoidal(np.arange(50), 6, np.float64)
    for position in (0, 1, 49):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            assert table[position, 2 * i] == pytest.approx(math.sin(angle), abs=1e-12)
            assert table[position, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-12)


def test_sinusoidal_positions_depend_on_the_distance_alone():
    table = sinusoidal(np.arange(40), 8, np.float64)
    products = table @ table.T
    for distance in range(10):
        np.testing.assert_allclose(np.diagonal(products, distance), products[0, distance], atol=1e-12)


def test_sinusoidal_positions_keep_the_shape_and_take_a_dtype():
    row = sinusoidal([[3], [70000]], 4)
    assert (row.shape, row.dtype) == ((2, 1, 4), np.dtype(np.float32))
    np.testing.assert_array_equal(row[0, 0], sinusoidal(np.arange(4), 4)[3])


@pytest.mark.parametrize("channels", [0, 1, 7])
def test_odd_number_of_channels_is_refused(channels):
    with pytest.raises(ValueError, match=f"even number of channels ≥ 2, got {channels}"):
        sinusoidal([0], channels)
