"""What figures share: smoothing, and colors that can be told apart."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.storage.figure import COLORS, line_styles, smoothed, span_of

values = st.lists(st.floats(-1e6, 1e6) | st.sampled_from([math.nan, math.inf]), max_size=60)


@given(values, st.integers(0, 9).map(lambda n: 2 * n + 1))
def test_a_smoothed_value_is_the_mean_of_the_finite_ones_around_it(values, span):
    shown = smoothed(values, span)
    assert len(shown) == len(values)
    for i, mean in enumerate(shown):
        half = min(span // 2, i)
        near = [value for value in values[i - half : i + half + 1] if math.isfinite(value)]
        expected = math.fsum(near) / len(near) if near else math.nan
        assert mean == pytest.approx(expected, rel=1e-9, abs=1e-8, nan_ok=True)


def test_a_curve_of_few_values_is_not_smoothed_and_a_long_one_by_a_twentieth():
    spans = [span_of(n) for n in (0, 9, 10, 79, 80, 200, 2000)]
    assert spans == [1, 1, 3, 3, 5, 11, 101]
    assert smoothed([1.0, math.nan, 3.0], 1) == pytest.approx([1.0, math.nan, 3.0], nan_ok=True)


def linear(color):
    """The light of an sRGB color, red, green and blue."""
    parts = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)


def lab(light):
    """CIE L*a*b* of linear sRGB, with the white of D65."""
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = to_xyz @ light / [0.9505, 1.0, 1.089]
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return np.array([116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)])


# Machado, Oliveira and Fernandes 2009, severity 1.0: how linear sRGB looks without one kind of cone.
SIGHT = {
    "all cones": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


@pytest.mark.parametrize("sight", SIGHT)
def test_colors_can_be_told_apart(sight):
    """A difference of 2.3 is just noticeable; white is the paper."""
    seen = [lab(np.clip(SIGHT[sight] @ linear(color), 0, 1)) for color in (*COLORS, "#FFFFFF")]
    assert min(float(np.linalg.norm(a - b)) for a, b in itertools.combinations(seen, 2)) > 12


def test_the_first_28_lines_differ():
    styles = [tuple(style.items()) for style in itertools.islice(line_styles(), 28)]
    assert len(set(styles)) == 28
