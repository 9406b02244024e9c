"""Where a token stands. Attention alone cannot tell: it gives the same mixture of its inputs in any order.

    absolute     a learned vector per position is added to the token's; there is none beyond the longest text seen
    sinusoidal   a fixed vector per position is added: sines and cosines of many wavelengths, at any position
    rotary       queries and keys are turned by the angles of their positions, so that scores depend on distances

The first two add a vector to x once, below the first block, and say where a token stands. Rotary positions act inside
every attention, and say how far two tokens are apart: they are relative. A fixed vector or angle exists at every
position. So only `absolute` limits the length of a text. How well a model reads beyond its training is another matter.
Small models, one run each, trained on 64 characters at once, have this loss on the last tenth of the stories, in nats
per character, where they read so many at once:

                   64      128      256
    absolute    1.335        –        –
    sinusoidal  1.475    2.543    3.034
    rotary      1.206    1.266    1.670

Scores that know the distance learn faster. Longer texts still hurt, since distances beyond 63 are new to the model:

    tinygrad-llm train --preset char-cpu --steps 1500 --set lr=3e-3 --set n_layer=2 --set n_head=2 --set n_embd=64 \\
        --set positions=rotary --out runs/rotary
    tail -c 105036 data/stories.txt > held.txt
    tinygrad-llm eval runs/rotary held.txt --block-size 128 --stride 128
"""

import numpy as np
from numpy.typing import ArrayLike, DTypeLike

from tinygrad_llm.kernels.contract import Array, Result, analytic, kernel

KINDS = ("absolute", "sinusoidal", "rotary")
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


@kernel
@analytic
def rotary(x: Array, positions: Array, *, base: float = BASE) -> Result:
    """y = R x: each pair (a, b) = (x_i, x_{i+D/2}) is turned by φ: (a cos φ − b sin φ, b cos φ + a sin φ).   dx = Rᵀ g

    x: (..., D) → y: (..., D), D even. positions: integer, broadcasts to x's axes before the last. φ_i = position ·
    base^(−2i/D), i = 0 … D/2 − 1. Position 0 turns nothing.

    Source: Su et al. 2021, arXiv:2104.09864, section 3.2. The paper pairs neighbors, x_2i with x_2i+1. The halves, as
    in GPT-NeoX and Llama, are the same up to the order of channels.

    Derivation:
        A score after turning depends on the distance n − m alone, since Rₘᵀ Rₙ = R₍ₙ₋ₘ₎ for each pair:
        ⟨Rₘ q, Rₙ k⟩ = ⟨q, Rₘᵀ Rₙ k⟩ = ⟨q, R₍ₙ₋ₘ₎ k⟩.
        y is linear in x, and R has no parameters:
        y_i       = x_i cos φ_i − x_{i+D/2} sin φ_i          ∂y_i/∂x_i = cos φ_i,       ∂y_i/∂x_{i+D/2} = −sin φ_i
        y_{i+D/2} = x_{i+D/2} cos φ_i + x_i sin φ_i          ∂y_{i+D/2}/∂x_i = sin φ_i, ∂y_{i+D/2}/∂x_{i+D/2} = cos φ_i
        dx_i       = g_i cos φ_i + g_{i+D/2} sin φ_i
        dx_{i+D/2} = g_{i+D/2} cos φ_i − g_i sin φ_i
        That is dx = Rᵀ g, the turn by −φ: backward turns g back. The positions are integers and have no gradient.
    """
    if x.ndim < 1 or x.shape[-1] < 2 or x.shape[-1] % 2:
        raise ValueError(f"rotary: got x {x.shape}, which must be (..., D) with an even D ≥ 2")
    if positions.dtype.kind not in "iu":
        raise TypeError(f"rotary: got positions of {positions.dtype}, which must be integers")
    sizes = zip(reversed(positions.shape), reversed(x.shape[:-1]), strict=False)
    if positions.ndim >= x.ndim or any(n not in (1, wanted) for n, wanted in sizes):
        raise ValueError(
            f"rotary: got positions {positions.shape}, which must broadcast to {x.shape[:-1]} of x {x.shape}"
        )
    phi = angles(positions, x.shape[-1], base)
    cos, sin = (wave(phi).astype(x.real.dtype) for wave in (np.cos, np.sin))  # (..., D/2), rounded once

    def turn(x: Array, sin: Array) -> Array:
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)

    y = turn(x, sin)

    def vjp(g: Array) -> tuple[Array, None]:
        return turn(g, -sin), None

    return y, vjp
