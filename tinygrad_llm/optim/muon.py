"""Muon: momentum whose singular values are all brought close to 1, for the matrices inside a model.

A gradient of a matrix is often dominated by a few directions: the largest singular values of G = U S Vᵀ. Muon steps
along U Vᵀ instead, in which all directions count the same. Of all matrices O whose largest singular value is at most 1,
U Vᵀ has the largest Σ O·G with the gradient (von Neumann: Σ O·G ≤ Σ s_i(O) s_i(G) ≤ Σ s_i(G), which U Vᵀ reaches).
So it is the steepest step of that size.

Embeddings, the head, norms and biases are not such maps from vectors to vectors: AdamW updates those. `Together` makes
one optimizer of both.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array
from tinygrad_llm.optim.optimizer import Named, Optimizer

COEFFICIENTS = (3.4445, -4.775, 2.0315)
_SCALES: dict[str, Callable[[int, int], float]] = {  # of an update, by the rows and columns of the matrix
    "original": lambda rows, columns: math.sqrt(max(1.0, rows / max(1, columns))),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
    "spectral_unclamped": lambda rows, columns: math.sqrt(rows / max(1, columns)),
}


def newton_schulz(
    g: Array, coefficients: tuple[float, float, float] = COEFFICIENTS, steps: int = 5, eps: float = 1e-7
) -> Array:
    """A matrix with the singular vectors of g, whose singular values are close to 1, without an SVD.

        X ← g / max(‖g‖, eps)                              ‖g‖² = Σ s², so every singular value is at most 1
        X ← a X + b (X Xᵀ) X + c (X Xᵀ)² X                 `steps` times

    With X = U S Vᵀ, X Xᵀ = U S² Uᵀ, and so the new X is U (a S + b S³ + c S⁵) Vᵀ: the vectors stay, and each singular
    value s becomes f(s) = a s + b s³ + c s⁵. The default coefficients have a large slope a at 0, so that small values
    grow fast; f does not settle at 1, but after five steps all s from 0.002 on are between 0.68 and 1.21. The
    coefficients (1.875, −1.25, 0.375) have f(1) = 1 and f′(1) = f″(1) = 0, and lead to U Vᵀ itself, in more steps.

    Args:     g: (rows, columns). coefficients: a, b and c. eps: keeps a gradient of zeros finite.
    Returns:  (rows, columns), dtype of g; float16 is computed in float32.
    Source:   Jordan et al. 2024, kellerjordan.github.io/posts/muon; Björck and Bowie 1971; torch.optim.Muon, which
              computes in bfloat16.
    """
    a, b, c = coefficients
    wide = np.asarray(g, np.float32) if g.dtype == np.float16 else g
    tall = g.shape[0] > g.shape[1]
    x = wide.T if tall else wide  # X Xᵀ is the smaller of the two products
    x = x / max(float(np.linalg.norm(x)), eps)
    for _ in range(steps):
        square = x @ x.T
        # square is symmetric: written as a product with its own transpose, BLAS computes only one half of it.
        factor = square @ square.T
        factor *= c
        square *= b
        factor += square
        factor.flat[:: len(factor) + 1] += a  # a I + b X Xᵀ + c (X Xᵀ)²
        x = factor @ x
    return np.asarray(x.T if tall else x, g.dtype)


class Muon(Optimizer):
    """Momentum, orthogonalized: each step of a matrix is close to U Vᵀ, where U S Vᵀ is its momentum.

    Each step, for each matrix p with gradient g,

        b ← momentum · b + (1 − momentum) g
        o = newton_schulz(b)         (with nesterov: of (1 − momentum) g + momentum · b)
        p ← p (1 − lr · weight_decay) − lr · scale · o

    The scale depends on the shape (rows, columns) of p. "original" is √max(1, rows / columns), "spectral_unclamped"
    √(rows / columns). With "match_rms_adamw", 0.2 √max(rows, columns), an update has the usual size of AdamW's: o has
    min(rows, columns) singular values near 1, so its root mean square is √(min / (rows · columns)) = 1 / √max. One
    learning rate then suits both optimizers.

    Args:     params: as for `Optimizer`, all of them matrices. momentum: in [0, 1).
              ns_coefficients, ns_steps, eps: see `newton_schulz`. adjust_lr_fn: the scale; None is "original".
    Raises:   ValueError: as for `Optimizer`; a parameter is not a matrix; a setting is out of its range.
    Source:   Jordan et al. 2024, kellerjordan.github.io/posts/muon; Liu et al. 2025, arXiv:2502.16982
              ("match_rms_adamw"); torch.optim.Muon.
    """

    keeps = ("momentum",)
    whole = True

    def __init__(
        self,
        params: Iterable[Tensor | Named] | Sequence[dict[str, Any]],
        lr: float = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: Literal["original", "match_rms_adamw", "spectral_unclamped"] | None = None,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        for name, p in self._named.items():
            if p.ndim != 2:
                raise self._error(f"{name} has shape {p.shape}, but only matrices can be updated: give it to AdamW")
        if not 0 <= momentum < 1 or not 0 <= eps < math.inf:
            raise self._error(f"momentum must be in [0, 1) and eps ≥ 0, got {momentum} and {eps}")
        if len(ns_coefficients) != 3 or type(ns_steps) is not int or not 0 < ns_steps < 100:
            raise self._error(
                f"ns_coefficients must be three numbers and ns_steps in 1 … 99, got {ns_coefficients} and {ns_steps}"
            )
        if adjust_lr_fn is not None and adjust_lr_fn not in _SCALES:
            raise self._error(f"adjust_lr_fn must be one of {', '.join(_SCALES)}, got {adjust_lr_fn!r}")
        self.momentum, self.nesterov = momentum, nesterov
        self.ns_coefficients, self.eps, self.ns_steps = ns_coefficients, eps, ns_steps
        self.adjust_lr_fn = adjust_lr_fn

    def _update(
        self, t: int, lr: float, weight_decay: float, scale: float, p: Array, g: Array, /, *arrays: Array
    ) -> None:
        (b,) = arrays
        b *= self.momentum  # b ← momentum · b + (1 − momentum) g
        g = scale * (1 - self.momentum) * g
        b += g
        if self.nesterov:
            g += self.momentum * b
        o = newton_schulz(g if self.nesterov else b, self.ns_coefficients, self.ns_steps, self.eps)
        if weight_decay:
            p *= 1 - lr * weight_decay
        o *= lr * _SCALES[self.adjust_lr_fn or "original"](*p.shape)
        p -= o


def inner_matrices(named_parameters: Iterable[Named]) -> dict[str, Tensor]:
    """The matrices that Muon is made for, by name: those of the blocks.

    Args:     named_parameters: (name, Parameter) pairs, as `Module.named_parameters` yields them.
    """
    return {name: p for name, p in named_parameters if is_inner(name, p.ndim)}


def is_inner(name: str, ndim: int) -> bool:
    """Whether a parameter of this name is a matrix of a block, which a model holds in a list.

    The members of a list have numbers in their names, as in "transformer.h.0.attn.c_attn.weight". Embeddings and the
    head stand outside it.
    """
    return ndim == 2 and any(part.isdecimal() for part in name.split("."))
