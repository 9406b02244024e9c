"""Gradient clipping: all gradients are scaled by one factor, so that their joint norm stays below a limit.

    norm = √(Σ g²)                 over every element of every gradient
    g ← g · max_norm / (norm + 1e-6)      if norm > max_norm

One factor for all gradients shortens the step and keeps its direction. The training loop (`training/loop.py`) takes
the norm and the factor from here, and the optimizer scales each gradient while it updates.
"""

import math
from collections.abc import Iterable

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array
from tinygrad_llm.kernels.contract import Map
from tinygrad_llm.optim.jobs import JOB, SMALL, jobs, stretches


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients in place by one factor, so that their joint L2 norm is at most max_norm.

    A norm that is NaN or infinite changes no gradient, so that the caller can find the gradient that caused it.

    Args:     parameters: one or several; those without a gradient are skipped. max_norm: above 0.
    Returns:  the norm before scaling.
    Raises:   ValueError: max_norm is not positive.
    Source:   Pascanu et al. 2013, arXiv:1211.5063; torch.nn.utils.clip_grad_norm_.
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = grad_norm(grads)
    scale = clip_scale(norm, max_norm)
    if scale != 1.0:
        for g in grads:
            g *= scale
    return norm


def clip_scale(norm: float, max_norm: float) -> float:
    """The factor that brings gradients of this joint norm down to max_norm: max_norm / (norm + 1e-6), at most 1.

    Args:     norm: the joint norm. max_norm: above 0; infinity clips nothing.
    Returns:  1.0 if norm is at most max_norm, and if it is NaN or infinite.
    Raises:   ValueError: max_norm is not positive.
    Source:   torch.nn.utils.clip_grad_norm_, which adds the same 1e-6 to the norm.
    """
    if not max_norm > 0:
        raise ValueError(f"max_norm must be above 0, got {max_norm}: give math.inf for no clipping")
    return max_norm / (norm + 1e-6) if max_norm < norm < math.inf else 1.0


def grad_norm(grads: Iterable[Array], map: Map = map) -> float:
    """The joint L2 norm of the gradients, √(Σ g²) over all elements.

    Args:     grads: arrays of any shape. map: as in `Optimizer.step`.
    Returns:  the norm, to the precision of float32 or better.
    """
    parts, small = [], []
    for g in grads:
        if g.size <= SMALL:
            small.append(g.reshape(-1))
        else:
            parts += [part for (part,) in stretches(g, length=JOB)]
    if small:  # summed as one, because a call of NumPy on each costs more than its few numbers
        parts.append(np.concatenate(small))

    def job(parts: list[Array]) -> float:
        with np.errstate(over="ignore", under="ignore"):  # such sums are computed again, in float64
            return math.fsum(_sum_of_squares(part) for part in parts)

    return math.sqrt(math.fsum(map(job, jobs(parts, np.size))))


def _sum_of_squares(part: Array) -> float:
    # Rows are summed in the part's own dtype, and the sums of rows in float64: float32's own sum of ten million squares
    # would be wrong in the fourth digit. Rows are short, because BLAS starts threads for long ones, which costs more
    # than it saves.
    flat = np.ascontiguousarray(part, np.float32 if part.dtype == np.float16 else None).reshape(-1)
    cut = flat.size // 8192 * 8192
    total = float(np.vdot(flat[cut:], flat[cut:]).real)
    if cut:
        rows = flat[:cut].reshape(-1, 8192)
        total += float(np.sum(np.vecdot(rows, rows).real, dtype=np.float64))
    if 1e-30 < total < math.inf or not np.all(np.isfinite(flat)):
        return total
    wide = flat.astype(np.result_type(flat, np.float64))  # float32 has no room for the squares of 1e20, or of 1e-23
    return float(np.vdot(wide, wide).real)
