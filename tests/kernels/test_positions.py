"""Positions: the sines of the first transformer, and rotary positions."""

import math

import numpy as np
import pytest
from agreement import assert_agree

from tinygrad_llm import functional as F
from tinygrad_llm.kernels.positions import angles, rotary, sinusoidal


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


# ---- rotary --------------------------------------------------------------------------------------------------------

rng = np.random.default_rng(0)


def test_rotary_turns_complex_numbers():
    """The pair (x_i, x_{i+D/2}) is the complex number x_i + i x_{i+D/2}; a turn is a product with exp(iφ)."""
    x, positions = rng.standard_normal((2, 5, 6)), np.array([0, 1, 2, 77, 1000])
    pairs = (x[..., :3] + 1j * x[..., 3:]) * np.exp(1j * angles(positions, 6))
    y, vjp = rotary(x, positions)
    np.testing.assert_allclose(y, np.concatenate([pairs.real, pairs.imag], -1), atol=1e-14)
    np.testing.assert_array_equal(y[:, 0], x[:, 0])  # position 0 turns nothing
    np.testing.assert_allclose(vjp(y)[0], x, atol=1e-14)  # backward turns back
    np.testing.assert_allclose(np.linalg.norm(y, axis=-1), np.linalg.norm(x, axis=-1))


def test_scores_depend_on_the_distance_alone():
    q, k = rng.standard_normal((2, 8))
    scores = [[rotary(q, np.array(m))[0] @ rotary(k, np.array(m + d))[0] for m in (0, 3, 500)] for d in range(4)]
    np.testing.assert_allclose(scores, np.array(scores)[:, :1].repeat(3, 1), atol=1e-12)
    assert len({round(row[0], 6) for row in scores}) == 4


def test_rotary_equals_the_turn_written_with_other_kernels():
    positions = np.arange(3)
    cos, sin = (np.concatenate([wave(angles(positions, 4))] * 2, -1) for wave in (np.cos, np.sin))

    def oracle(x, _):
        return x * cos + F.cat([-x[..., 2:], x[..., :2]], -1) * sin

    assert_agree(rotary, [rng.standard_normal((2, 3, 4)), positions], oracle)


@pytest.mark.parametrize(
    ("shape", "positions", "error", "message"),
    [
        ((2, 3), [0, 1], ValueError, r"got x \(2, 3\), which must be \(..., D\) with an even D"),
        ((), 0, ValueError, r"got x \(\), .* even D"),
        ((2, 4), [0, 1, 2], ValueError, r"got positions \(3,\), which must broadcast to \(2,\)"),
        ((2, 4), [[0], [1]], ValueError, r"got positions \(2, 1\)"),
        ((2, 4), [0.0, 1.0], TypeError, "got positions of float64, which must be integers"),
    ],
)
def test_wrong_rotary_positions_are_refused(shape, positions, error, message):
    with pytest.raises(error, match=f"rotary: {message}"):
        rotary(np.ones(shape), np.array(positions))
