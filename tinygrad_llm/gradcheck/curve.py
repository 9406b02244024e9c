"""The error of each numeric derivative as a function of its step h.

forward      (f(x + h) − f(x)) / h                  = f' + h·f''/2 + …     p = 1
central      (f(x + h) − f(x − h)) / 2h             = f' + h²·f'''/6 + …   p = 2
richardson   central at h, h/2, h/4, h/8, combined  = f' + a·h⁸ + …        p = 8
complex      Im f(x + ih) / h                       = f' − h²·f'''/6 + …   p = 2, and no difference

Truncation: the terms that the formula leaves out are a·hᵖ, which falls with h. Rounding: f is known to eps = 2⁻⁵² ≈
2e-16 of its size, so a difference divided by h is wrong by about eps/h, which grows as h falls. Their sum is a V on
logarithmic axes, with slope p on the right and −1 on the left. It is lowest where hᵖ = eps/h:

    best h = eps^(1/(p+1)),  error there = eps^(p/(p+1))
    forward     p = 1   h = 1e-8   error 1e-8
    central     p = 2   h = 6e-6   error 4e-11
    richardson  p = 8   h = 0.02   error 1e-14

These are half of the digits, two thirds, and eight ninths. A higher order has a small truncation error at a large h,
where rounding is small, too. No p gets all digits.

The complex step has no V. The imaginary part is the derivative alone: nothing is subtracted, so nothing cancels. Once
h² is below eps, the error stays at rounding, down to h = 1e-200. So the complex step can judge the other methods.
"""

import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinygrad_llm.autograd import Tensor, grad, no_grad
from tinygrad_llm.gradcheck.cases import Case
from tinygrad_llm.gradcheck.checkers import gradcheck
from tinygrad_llm.gradcheck.methods import GradcheckError
from tinygrad_llm.gradcheck.result import comparison
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.figure import COLORS, new_figure, save_figure

METHODS = ("forward", "central", "richardson", "complex")
STEPS = tuple(10 ** (-k / 2) for k in range(1, 41))  # 10^-0.5 … 10^-20
TINY = (1e-50, 1e-100, 1e-200)  # the complex step alone
_EPS = 2.0**-52


@dataclass(frozen=True)
class Point:
    """The error of one method at one step: the largest of any input, as `gradcheck` defines it."""

    method: str
    h: float
    error: float


def curve(case: Case, steps: Sequence[float] | None = None, seed: int = 0) -> list[Point]:
    """Measure each method at each step, against the analytic gradient (which the complex step proves).

    Args:     case: one that is checked by "complex" or "richardson". The latter have kinks, so they get no curve of the
              complex step. steps: the h to try, by default 10^-0.5 to 10^-20, and three far smaller ones for the
              complex step.
    Returns:  the points, method by method. Differences end at eps, since below it x + h is x. A step that leaves the
              domain of the function (a logarithm's, for example) gives no point.
    Raises:   ValueError: the case is checked by another method, or a step is not a number > 0.
    """
    if case.method not in ("complex", "richardson"):
        raise ValueError(f'{case.name}: a curve needs a case that is checked by "complex" or "richardson"')
    wanted = sorted(STEPS + TINY if steps is None else steps, reverse=True)
    if not all(0 < h < np.inf for h in wanted):
        raise ValueError(f"steps must be numbers > 0, got {wanted}")
    points = []
    for method in METHODS:
        if method == "complex" and case.method != "complex":
            continue
        for h in wanted:
            if method == "complex" or h >= _EPS:
                with np.errstate(all="ignore"):  # x ± h may lie outside the domain of the function
                    error = _error(case, method, h, seed)
                if np.isfinite(error):
                    points.append(Point(method, h, error))
    return points


def _error(case: Case, method: str, h: float, seed: int) -> float:
    if method == "forward":
        return _forward(case, h, seed)
    fn, inputs, names = case.make(Generator(seed))
    try:
        result = gradcheck(fn, inputs, method, tolerance=math.inf, step=h, names=names, seed=seed + 1)
    except GradcheckError:  # the step leaves the domain
        return math.nan
    return result.worst.error


def _forward(case: Case, h: float, seed: int) -> float:
    """The error of (L(x + h·e_j) − L(x)) / h, with the L = Σ v·y of `gradcheck`. No checker should use this method."""
    fn, inputs, names = case.make(Generator(seed))
    inputs = [x if isinstance(x, Tensor) or np.asarray(x).dtype.kind != "f" else Tensor(x, True) for x in inputs]
    checked = [(n, t) for n, t in zip(names, inputs, strict=True) if isinstance(t, Tensor) and t.requires_grad]
    for _, t in checked:
        t.data = np.array(t.data, dtype=np.float64)
    y = fn(*inputs)
    v = Generator(seed + 1).randn(y.shape, np.float64)
    errors = []
    for (name, t), g in zip(checked, grad(y, [t for _, t in checked], v), strict=True):
        numeric = np.zeros(t.shape)
        with no_grad():
            base = np.sum(v * fn(*inputs).data)
            for j in np.ndindex(t.shape):
                x = t.data[j]
                t.data[j] = x + h
                numeric[j] = (np.sum(v * fn(*inputs).data) - base) / h
                t.data[j] = x
        errors.append(comparison(name, g, numeric).error)
    return float(np.max(errors))


def best(points: Sequence[Point], method: str) -> Point:
    """The point with the smallest error. Errors below 1e-15 count as equal, and then the largest step wins."""
    return min((p for p in points if p.method == method), key=lambda p: (max(p.error, 1e-15), -p.h))


def table(points: Sequence[Point]) -> str:
    """One line per step, one column per method. A bar shows the error: one character for two digits above 1e-17."""
    methods = [m for m in METHODS if any(p.method == m for p in points)]
    found = {(p.method, p.h): p.error for p in points}
    stars = {(p.method, p.h) for p in (best(points, m) for m in methods)}
    lines = [f"{'h':<8}" + "".join(f" {m:<17}" for m in methods)]
    for h in sorted({p.h for p in points}, reverse=True):
        cells = (_cell(found.get((m, h)), (m, h) in stars) for m in methods)
        lines.append((f"{h:<8.1e}" + "".join(cells)).rstrip())
    # To the complex step, every smaller step is as good.
    lines.append("* best: " + ", ".join(f"{m} {'≤' * (m == 'complex')}{best(points, m).h:.1e}" for m in methods))
    if "complex" not in methods:
        lines.append("complex step left out: the function has kinks, so it is not analytic everywhere")
    return "\n".join(lines)


def _cell(error: float | None, starred: bool) -> str:
    if error is None:
        return " " * 18
    digits = float(np.clip(np.log10(max(error, 1e-17)) + 17, 0, 17))
    whole, eighths = divmod(round(digits * 4), 8)
    bar = "█" * whole + (" ▏▎▍▌▋▊▉"[eighths] if eighths else "")
    return f" {error:.0e}{'*' if starred else ' '} {bar:<10}"


def picture(points: Sequence[Point], path: str | os.PathLike[str], title: str) -> None:
    """Draw the curves into a PNG, on logarithmic axes, with guide lines h, h² and eps/h.

    Raises:   ImportError: matplotlib is missing; the message says how to install it.
    """
    figure = new_figure(8, 5)
    axes = figure.add_subplot()
    shown = [p for p in points if p.h >= 1e-20]  # 1e-200 would leave no room for the rest
    h = np.geomspace(1e-17, 1, 18)
    for name, guide, end in (("h", h, 4), ("h²", h**2, 1), ("eps/h", _EPS / h, -2)):
        inside = (guide > 1e-17) & (guide < 10)
        axes.loglog(h[inside], guide[inside], ls=":", lw=1, color="gray")
        place = h[inside][end], guide[inside][end]
        axes.annotate(name, place, (6, 6) if name == "eps/h" else (-20, 0), textcoords="offset points", color="gray")
    for color, (method, some) in zip(COLORS, itertools.groupby(shown, key=lambda p: p.method), strict=False):
        xy = [(p.h, max(p.error, 1e-17)) for p in some]  # an error of 0 has no logarithm
        # Dashed, because it lies on top of the central difference wherever both are limited by h².
        dashes = "--" if method == "complex" else "-"
        axes.loglog(*zip(*xy, strict=True), marker="o", ms=3, ls=dashes, color=color, label=method)
    axes.set(xlabel="step h", ylabel="error", ylim=(1e-18, 10), title=title)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)
