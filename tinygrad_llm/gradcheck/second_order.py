"""Derivatives of first and second order along a direction, by the complex step: no second tape, no digits lost.

For an analytic f, Taylor's series at x + i·h·v reads

    f(x + i·h·v) = f(x) + i·h·(J v) − h²·f″(x)[v, v]/2 − …

so the imaginary part over h is the directional derivative J v, with an error of order h². With h = 2⁻⁶⁶ (1.4e-20) that
error is far below rounding, and since nothing is subtracted, h may be that small.

The gradient is a function like any other. A forward *and backward* pass at x + i·h·v gives

    ∇f(x + i·h·v) = ∇f(x) + i·h·(H v) − …

so a second derivative is the imaginary part of a first one. This works because kernels accept complex numbers in both
directions and never conjugate. A direction costs one pass in complex numbers, and the Hessian is never stored.

Sources: Squire and Trapp 1998, SIAM Review 40(1) (the complex step); Pearlmutter 1994, Neural Computation 6(1) (H v at
the price of a gradient).
"""

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from tinygrad_llm.autograd import Tensor, grad, no_grad
from tinygrad_llm.gradcheck.checkers import as_tensors
from tinygrad_llm.gradcheck.methods import GradcheckError
from tinygrad_llm.kernels import Array

HESSIAN_LIMIT = 2000  # elements; their Hessian takes 32 MB and as many passes as there are elements

_STEP = 66  # h = 2⁻⁶⁶: multiplying by a power of two rounds nothing
_LOST = "the imaginary part got lost: fn, or a vjp in it, is not analytic (abs, var, .real, a float buffer)"


def jvp(fn: Callable[..., Tensor], inputs: Iterable[Any], v: Sequence[Any]) -> tuple[Array, Array]:
    """The value of fn and its directional derivative J v, exact to rounding, from one evaluation.

        J v = Im fn(x + i·h·v) / h

    J v comes from the numbers, not from the tape. So it includes what `Tensor.detach` cuts off. A term that drops the
    imaginary part while others keep it (np.abs on a Tensor's data) is missing from J v without an error. `gradcheck`
    finds such terms. abs, relu and max are differentiated on the piece that x lies on.

    Args:     fn: takes the inputs as Tensors and returns one Tensor of any shape; deterministic.
              inputs: float arrays and Tensors that require a gradient are differentiated; others are passed to fn as
              they are. As in `gradcheck`, such a Tensor may be one that fn uses without taking it as an argument, such
              as a model's parameter: its data is complex128 during the call, and is put back afterwards, even if fn
              raises. List all parameters for full precision: the others compute in their own dtype.
              v: for each input an array of its shape, or None for zeros, and for inputs that are not differentiated.
    Returns:  (fn(x), J v), float64 arrays of the output's shape.
    Raises:   ValueError: v does not fit the inputs; an input named twice, or computed. GradcheckError: fn is not
              analytic, does not depend on an input that is differentiated, or an input or output is NaN or infinite.
    Source:   Squire and Trapp 1998; torch.func.jvp.
    """
    with _stepped(fn, inputs, v) as (tensors, _, exponent):
        y = _evaluate(fn, tensors)
        return y.data.real.copy(), _imaginary(y.data, exponent)


def hvp(fn: Callable[..., Tensor], inputs: Iterable[Any], v: Sequence[Any]) -> list[Any]:
    """The Hessian of a scalar function times a vector, H v, exact to rounding, from one pass forward and backward.

        H v = Im ∇fn(x + i·h·v) / h

    For a model: `hvp(lambda *_: model.loss(ids, targets), model.parameters(), v)`. If a backward pass is not analytic,
    or not the gradient, H v is wrong, and mostly breaks the symmetry u·Hv = v·Hu. A mistake in an elementwise function
    keeps the symmetry, and only the difference of two gradients shows it.

    Args:     fn: as in `jvp`, but it returns a scalar. inputs, v: as in `jvp`.
    Returns:  for each input an array of its shape, float64; None for those that are not differentiated.
    Raises:   ValueError: as `jvp`, and an output that is not a scalar. GradcheckError: as `jvp`.
    Source:   Squire and Trapp 1998 for the step, Pearlmutter 1994 for the idea; torch.autograd.functional.hvp.
    """
    with _stepped(fn, inputs, v) as (tensors, differentiated, exponent):
        y = _evaluate(fn, tensors)
        if y.data.size != 1:
            raise ValueError(f"a Hessian needs a scalar, but fn returned shape {y.shape}: reduce it (.sum(), .mean())")
        products: list[Any] = [None] * len(tensors)
        for i, g in zip(differentiated, grad(y, [tensors[i] for i in differentiated]), strict=True):
            products[i] = _imaginary(g, exponent)
        return products


def hessian(fn: Callable[..., Tensor], inputs: Iterable[Any]) -> Array:
    """The matrix of second derivatives of a scalar function of a few elements, column by column: H eⱼ by `hvp`.

    The columns are computed independently and not made symmetric, so |H − Hᵀ| shows the rounding.

    Args:     fn, inputs: as in `hvp`.
    Returns:  (n, n) float64, where n counts the elements of all inputs that are differentiated, one after another.
    Raises:   ValueError: n > 2,000; otherwise as `hvp`.
    Source:   as `hvp`; torch.autograd.functional.hessian.
    """
    tensors = as_tensors(inputs)
    differentiated = _differentiated(tensors)
    ends = np.cumsum([tensors[i].numel() for i in differentiated])
    n = int(ends[-1])
    if n > HESSIAN_LIMIT:
        raise ValueError(f"the Hessian of {n:,} elements has {n * n:,}, and {HESSIAN_LIMIT:,} are the limit: use hvp")
    columns = np.zeros((n, n))
    v: list[Any] = [None] * len(tensors)
    for j, e in enumerate(np.eye(n)):
        for i, part in zip(differentiated, np.split(e, ends[:-1]), strict=True):
            v[i] = part.reshape(tensors[i].shape)
        products = hvp(fn, tensors, v)
        columns[:, j] = np.concatenate([products[i].reshape(-1) for i in differentiated])
    return columns


def _differentiated(tensors: Sequence[Any]) -> list[int]:
    """The positions of the inputs that are differentiated; each must be a finite real leaf, given once."""
    chosen = [i for i, t in enumerate(tensors) if isinstance(t, Tensor) and t.requires_grad]
    if not chosen:
        raise GradcheckError("nothing to differentiate: no input is a float array or a Tensor that requires a gradient")
    for n, i in enumerate(chosen):
        t = tensors[i]
        if not t.is_leaf:
            raise ValueError(f"input {i} was computed from others: give those, or detach it")
        if any(tensors[k] is t for k in chosen[:n]):
            raise ValueError(f"input {i} is a Tensor that was given before: give each one once")
        if t.dtype.kind == "c":
            raise GradcheckError(f"input {i} is complex: give its real and imaginary parts")
        if not np.isfinite(t.data).all():
            raise GradcheckError(f"input {i} holds NaN or infinity: a derivative there proves nothing")
    return chosen


def _directions(tensors: Sequence[Any], chosen: Sequence[int], v: Sequence[Any]) -> list[Array]:
    """v in float64 for the chosen inputs."""
    if len(v) != len(tensors):
        raise ValueError(f"{len(tensors)} inputs need as many directions, got {len(v)}: None stands for zeros")
    directions = []
    for i, (t, d) in enumerate(zip(tensors, v, strict=True)):
        if i not in chosen:
            if d is not None:
                raise ValueError(f"input {i} is not differentiated, so its direction must be None")
            continue
        d = np.zeros(t.shape) if d is None else np.asarray(d)
        if d.shape != t.shape:
            raise ValueError(f"direction {i} has shape {d.shape}, but the input has {t.shape}")
        if d.dtype.kind not in "fiub" or not np.isfinite(d).all():
            raise ValueError(f"direction {i} must be real, without NaN and infinity")
        directions.append(d.astype(np.float64))
    return directions


@contextmanager
def _stepped(
    fn: Callable[..., Tensor], inputs: Iterable[Any], v: Sequence[Any]
) -> Iterator[tuple[list[Any], list[int], int]]:
    """Move the inputs to x + i·2⁻ᵏ·v within the block; yield them, the positions of the differentiated ones, and k."""
    tensors = as_tensors(inputs)
    chosen = _differentiated(tensors)
    directions = _directions(tensors, chosen, v)
    _refuse_undefined(fn, tensors)
    # Dividing by the largest |v| keeps x + i·h·v close to x, even for a v of 1e30.
    longest = max(float(np.max(np.abs(d), initial=0.0)) for d in directions)
    exponent = _STEP + int(np.frexp(longest)[1])
    kept = [tensors[i].data for i in chosen]
    try:
        for i, x, d in zip(chosen, kept, directions, strict=True):
            # All inputs become complex, even those with a direction of zeros, so that a real output shows a loss.
            z = x.astype(np.complex128)
            z.imag = np.ldexp(d, -exponent)
            tensors[i].data = z
        with warnings.catch_warnings():
            warnings.simplefilter("error", np.exceptions.ComplexWarning)
            yield tensors, chosen, exponent
    except np.exceptions.ComplexWarning as warning:
        raise GradcheckError(_LOST) from warning
    finally:
        for i, x in zip(chosen, kept, strict=True):
            tensors[i].data = x


def _refuse_undefined(fn: Callable[..., Tensor], tensors: Sequence[Any]) -> None:
    """Raise GradcheckError where real numbers give NaN: ln(−2), although the complex logarithm exists."""
    with no_grad(), np.errstate(all="ignore"):
        y = fn(*tensors)
    if isinstance(y, Tensor) and not np.isfinite(y.data).all():
        raise GradcheckError("the output holds NaN or infinity")


def _evaluate(fn: Callable[..., Tensor], tensors: Sequence[Any]) -> Tensor:
    y = fn(*tensors)
    if not isinstance(y, Tensor):
        raise GradcheckError(f"fn must return a Tensor, got {type(y).__name__}")
    if not y.requires_grad:
        raise GradcheckError("the output does not depend on any input (or was computed in no_grad)")
    if y.dtype.kind != "c":
        raise GradcheckError(_LOST)
    if not np.isfinite(y.data).all():
        raise GradcheckError("the output holds NaN or infinity")
    return y


def _imaginary(z: Array, exponent: int) -> Array:
    """Im z / 2⁻ᵏ."""
    if z.dtype.kind != "c":
        raise GradcheckError(_LOST)
    if not np.isfinite(z).all():
        raise GradcheckError("the derivative holds NaN or infinity")
    return np.asarray(np.ldexp(z.imag, exponent))
