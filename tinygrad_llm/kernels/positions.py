"""Where a token stands. Attention alone cannot tell: it gives the same mixture of its inputs in any order.

    absolute     a learned vector per position is added to the token's; there is none beyond the longest text seen
    sinusoidal   a fixed vector per position is added: sines and cosines of many wavelengths, at any position

Both kinds add a vector to x once, below the first block.
"""

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinygrad_llm.kernels.contract import Array

BASE = 10000.0  # the longest wavelength is nearly 2π · BASE positions


def angles(positions: ArrayLike, channels: int, base: float = BASE) -> Array:
    """One angle per position and pair of channels: position · base^(−2i / channels), in radians.

    Args:     positions: (...) integer. channels: an even number.
    Returns:  (..., channels / 2) float64, i = 0 … channels / 2 − 1: the first pair turns fastest.
    Raises:   ValueError: an odd number of channels, or none.
    """
    if channels < 2 or channels % 2:
        raise ValueError(f"sinusoidal and rotary positions need an even number of channels ≥ 2, got {channels}")
    speeds = base ** (-np.arange(0, channels, 2) / channels)
    turned: Array = np.asarray(positions)[..., None] * speeds
    return turned


def sinusoidal(positions: ArrayLike, channels: int, dtype: DTypeLike = np.float32) -> Array:
    """The vector of each position in the first transformer: y_2i = sin(angle_i), y_2i+1 = cos(angle_i).

    A shift by k positions turns each pair by the same angle, wherever it stands. So a linear layer can find "k tokens
    before". Nothing is learned, and every position has a vector, also beyond the longest text seen.

    Args:     positions: (...) integer, such as np.arange(T). channels: C, an even number.
    Returns:  (..., C), computed in float64 and rounded once.
    Raises:   ValueError: an odd number of channels, or none.
    Source:   Vaswani et al. 2017, arXiv:1706.03762, section 3.5.
    """
    turned = angles(positions, channels)
    return np.stack([np.sin(turned), np.cos(turned)], axis=-1).reshape(*turned.shape[:-1], channels).astype(dtype)
