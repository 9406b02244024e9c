"""`gradcheck`: compare a gradient with numbers obtained without it.

Three ways to differentiate numerically, in falling sharpness:

complex      Im f(x + i·h) / h with h = 1e-20. Since f(x + ih) = f(x) + ih·f'(x) − h²·f''(x)/2 − …, the imaginary part
             is h·f' with an error of h², which is 1e-40: nothing. No difference is taken, so no digits are lost, and
             the result is exact to rounding. It needs f to be analytic: powers, exponentials, products and their
             like, not |x| or max(x, y) at their kinks.
richardson   central differences at h, h/2, h/4, h/8, extrapolated to h = 0: each stage of the table cancels one more
             even power of h. For functions with kinks, as long as no kink is within h.
central      (f(x + h) − f(x − h)) / 2h: what most checkers do. The error is the larger of h² and 1e-16/h, so about
             ten digits at the best h, and usually fewer.

The output is first reduced to one number by a random vector v, L = Σ v·y. Random, because with v = 1 whole classes of
errors cancel: the gradient of Σ softmax(x) is 0, and so is that of many a wrong softmax.

Sources: Squire and Trapp 1998, SIAM Review 40(1); Richardson 1911, Phil. Trans. A 210.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_llm.autograd import Tensor, grad, no_grad
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn import Module
from tinygrad_llm.random import Generator

# What each method can prove, and what the ledger asks of it. An error is max|Δ| / (max|g| + 0.01) for one input, so
# a tolerance of 1e-12 means |Δ| ≤ 1e-12 · max|g| + 1e-14.
TOLERANCE = {"complex": 1e-12, "richardson": 1e-9, "central": 1e-6}
_FLOOR = 0.01


class GradcheckError(AssertionError):
    """A gradient is wrong, or cannot be checked; the message says where."""


@dataclass(frozen=True)
class Comparison:
    """One input's gradient beside its numeric counterpart."""

    name: str
    elements: int
    error: float  # max|Δ| / (max|g| + 0.01)
    index: tuple[int, ...]  # where |Δ| is largest, and both values there
    analytic: float
    numeric: float


@dataclass(frozen=True)
class GradcheckResult:
    """What `gradcheck` found: True in a condition if every input passed."""

    method: str
    tolerance: float
    comparisons: list[Comparison]

    @property
    def worst(self) -> Comparison:
        return max(self.comparisons, key=lambda c: np.nan_to_num(c.error, nan=np.inf))

    def __bool__(self) -> bool:
        return self.worst.error <= self.tolerance  # False for NaN


def gradcheck(
    fn: Callable[..., Tensor],
    inputs: Sequence[Any],
    method: str = "complex",
    *,
    tolerance: float | None = None,
    names: Sequence[str] | None = None,
    seed: int = 0,
    raise_exception: bool = True,
) -> GradcheckResult:
    """Prove the gradient of fn, element by element, in float64.

    Args:     fn: takes the inputs as Tensors and returns one Tensor of any shape; deterministic.
              inputs: float arrays and Tensors are checked; integer and boolean ones are handed on. A Tensor that
              requires a gradient may also be one that fn uses by itself, such as a model's parameter: its data is
              float64 during the check and put back afterwards.
              method: "complex", "richardson" or "central". tolerance: as explained at TOLERANCE.
              names: of the inputs, for messages. seed: of the random vector v.
    Returns:  a GradcheckResult.
    Raises:   GradcheckError: a wrong gradient (unless raise_exception is False), or nothing that can be checked: no
              float input, no dependence, NaN, randomness. ValueError: an unknown method.
    """
    if method not in TOLERANCE:
        raise ValueError(f"unknown method {method!r}: choose from {', '.join(TOLERANCE)}")
    tolerance = TOLERANCE[method] if tolerance is None else tolerance
    tensors = [_as_input(x) for x in inputs]
    checked = [(i, t) for i, t in enumerate(tensors) if isinstance(t, Tensor) and t.requires_grad]
    if not checked:
        raise GradcheckError("nothing to check: no input is a float array, or a Tensor that requires a gradient")
    kept = [t.data for _, t in checked]
    try:
        for _, t in checked:
            if t.dtype.kind == "c":
                raise GradcheckError("a complex input cannot be checked: give its real and imaginary parts")
            t.data = np.array(t.data, dtype=np.float64)  # a copy, contiguous
            if not np.isfinite(t.data).all():
                raise GradcheckError("an input holds NaN or infinity: a gradient there proves nothing")
        result = _compare(lambda: fn(*tensors), checked, method, tolerance, names, seed)
    finally:
        for (_, t), data in zip(checked, kept, strict=True):
            t.data = data
    if raise_exception and not result:
        c = result.worst
        raise GradcheckError(
            f"{getattr(fn, '__name__', 'fn')}: the gradient of {c.name} is wrong at index {c.index}: analytic "
            f"{c.analytic:.17g}, numeric ({method}) {c.numeric:.17g}; error {c.error:.3g}, tolerance {tolerance:.3g}"
        )
    return result


def check_module(module: Module, loss: Callable[[], Tensor], method: str = "complex") -> GradcheckResult:
    """`gradcheck` for every parameter of a Module, by name, with a function of no arguments that uses it."""
    named = dict(module.named_parameters())
    return gradcheck(lambda *_: loss(), list(named.values()), method, names=list(named))


def _as_input(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x
    array = np.asarray(x)
    return Tensor(array.astype(np.float64), requires_grad=True) if array.dtype.kind == "f" else array


def _compare(
    call: Callable[[], Tensor],
    checked: Iterable[tuple[int, Tensor]],
    method: str,
    tolerance: float,
    names: Sequence[str] | None,
    seed: int,
) -> GradcheckResult:
    tensors = [t for _, t in checked]
    y = call()
    v = Generator(seed).randn(y.shape, np.float64)
    if not y.requires_grad:
        raise GradcheckError("the output does not depend on any input that is checked (or was computed in no_grad)")
    analytic = grad(y, tensors, v)

    def value() -> Any:
        with no_grad():
            return np.sum(v * call().data)

    if not np.isfinite(y.data).all():
        raise GradcheckError("the output holds NaN or infinity")
    if value() != np.sum(v * y.data):
        raise GradcheckError("fn gave two results for the same input: fix its random numbers (reseed in fn)")
    comparisons = []
    for (i, t), g in zip(checked, analytic, strict=True):
        name = names[i] if names else f"input {i}"
        if g.shape != t.shape:
            raise GradcheckError(f"the gradient of {name} has shape {g.shape}, not {t.shape}")
        numeric = _DERIVATIVES[method](value, t)
        delta = np.abs(g - numeric)
        where = np.unravel_index(int(np.argmax(delta)) if delta.size else 0, g.shape) if g.size else ()
        error = float(np.max(delta, initial=0.0) / (np.max(np.abs(g), initial=0.0) + _FLOOR))
        index = tuple(int(n) for n in where)
        at = (float(g[index]), float(numeric[index])) if g.size else (0.0, 0.0)
        comparisons.append(Comparison(name, g.size, error, index, *at))
    return GradcheckResult(method, tolerance, comparisons)


def _complex(value: Callable[[], Any], t: Tensor, h: float = 1e-20) -> Array:
    x = t.data
    out = np.zeros(x.shape)
    z = x.astype(np.complex128)
    t.data = z
    for index in np.ndindex(x.shape):
        z[index] += 1j * h
        y = value()
        if not np.iscomplexobj(y):
            raise GradcheckError('the imaginary part got lost on the way: fn is not analytic; use method="richardson"')
        out[index] = y.imag / h
        z[index] = x[index]
    t.data = x
    return out


def _central(value: Callable[[], Any], t: Tensor, h: float = 1e-5) -> Array:
    x = t.data
    out = np.zeros(x.shape)
    t.data = moved = x.copy()
    for index in np.ndindex(x.shape):
        moved[index] = x[index] + h
        above = value()
        moved[index] = x[index] - h
        out[index] = (above - value()) / (2 * h)
        moved[index] = x[index]
    t.data = x
    return out


def _richardson(value: Callable[[], Any], t: Tensor, h: float = 0.02, levels: int = 4) -> Array:
    row = [_central(value, t, h / 2**k) for k in range(levels)]
    for m in range(1, levels):
        # D(h) = f' + a·h² + b·h⁴ + …: combining h and h/2 cancels the lowest power that is left.
        row = [(4**m * fine - coarse) / (4**m - 1) for coarse, fine in itertools.pairwise(row)]
    return row[0]


_DERIVATIVES: dict[str, Callable[[Callable[[], Any], Tensor], Array]] = {
    "complex": _complex,
    "richardson": _richardson,
    "central": _central,
}
