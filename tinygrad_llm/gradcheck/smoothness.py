"""Whether there is a gradient to prove: checks for kinks, for jumps, and for a part that is not analytic.

At a kink no gradient exists, but the complex step and differences both give a number. Where a function drops an
imaginary part, the complex step and backpropagation may both miss the same term. These checks move all inputs along
random directions, so they cost a few evaluations, however large the inputs are.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from tinygrad_llm.gradcheck.methods import GradcheckError, NotAnalytic, Scalar, unit
from tinygrad_llm.kernels import Array

_H = 1e-5  # the step of the real differences


def measure_noise(L: Scalar, grads: Sequence[Array]) -> float:
    """By how much rounding moves L: how far L is from a straight line within steps of 1e-11.

    The steps are less where all elements are small, and more where that is less than the last bits of an element.
    """
    vs = [L.rng.randn(t.shape, np.float64) for t in L.tensors]
    us = [
        v * np.maximum(min(unit(t.data), 1.0), 8e11 * np.spacing(np.abs(t.data)))
        for v, t in zip(vs, L.tensors, strict=True)
    ]
    slope = sum(float(np.sum(g * u)) for g, u in zip(grads, us, strict=True))
    sides = [[abs(L.at(us, s) - float(L.base) - s * slope) for s in (d, 2 * d, 3 * d)] for d in (1e-11, -1e-11)]
    # The input may be a point where L does not round at all, so its neighbors count, too: rounding bends a smooth L.
    bends = [0.0]
    for away in (-0.02, 0.01, 0.02):
        a, b, c = (L.at(vs, away + s) for s in (-1e-11, 0, 1e-11))
        bends.append(abs(a - 2 * b + c))
    # If the input lies at a jump, one side includes the jump; the other side is rounding alone.
    return min(max(side) for side in sides) + float(np.nanmax(bends)) + 1e-15 * abs(float(L.base))


def refuse_kink(L: Scalar, grads: Sequence[Array]) -> None:
    """Raise GradcheckError if L has a kink or a jump at the inputs themselves."""
    us = [L.rng.randn(t.shape, np.float64) for t in L.tensors]
    steps = [_H, _H / 4, _H / 16, _H / 64]
    bends = [(L.at(us, s) - 2 * float(L.base) + L.at(us, -s)) / s for s in steps]
    # A kink on a curve bends by k + c·s. Two steps give k, and all three estimates of k must agree.
    kinks = [(4 * fine - coarse) / 3 for coarse, fine in itertools.pairwise(bends)]
    # A jump of j bends by j / s.
    jumps = [bend * s for s, bend in zip(steps, bends, strict=True)]
    slopes = sum(float(np.sum(np.abs(g * u))) for g, u in zip(grads, us, strict=True))
    for what, differ, found, floor in (
        ("kink", "slopes", kinks, 1e-9 * slopes + 20 * L.noise / steps[-1]),
        ("jump", "values", jumps, 20 * L.noise + 1e-3 * _H * slopes),
    ):
        smallest, largest = min(map(abs, found)), max(map(abs, found))
        if smallest > floor and largest < 1.5 * smallest and len(set(np.sign(found))) == 1:
            raise GradcheckError(
                f"a {what} at the input itself: the {differ} on its two sides differ. Move the input away from it"
            )


def refuse_lost_part(L: Scalar, grads: Sequence[Array]) -> None:
    """Raise NotAnalytic if a difference along one real direction contradicts the gradient of an input.

    A part of fn that drops the imaginary part is missing from the complex step. If backpropagation misses it, too, both
    agree on the gradient of the rest; a real difference includes the part, as far as it is precise. If a difference at
    _H is not, because the input's elements are much closer together or farther apart, one at a part of their spread is.
    """
    for name, t, g in zip(L.names, L.tensors, grads, strict=True):
        u = L.rng.randn(t.shape, np.float64)
        us = [u if other is t else np.zeros(other.shape) for other in L.tensors]
        slope, size = float(np.sum(g * u)), float(np.sum(np.abs(g * u)))
        for step in dict.fromkeys((_H, _H * unit(t.data))):
            coarse, fine = ((L.at(us, s) - L.at(us, -s)) / (2 * s) for s in (step, step / 4))
            noise = 20 * L.noise / step
            if abs(coarse - fine) > 1e-3 * abs(fine) + noise or (fine == 0 and step < _H):
                continue  # not settled, or too small a step to move L
            if abs(fine - slope) > 1e-3 * size + 10 * abs(coarse - fine) + noise:
                raise NotAnalytic(f"the gradient of {name} agrees with the complex step, but not with differences")
            break
