"""The result of a check: the largest error of each input, whether it passes, and the result in words."""

from dataclasses import dataclass

import numpy as np

from tinygrad_llm.gradcheck.methods import FLOOR
from tinygrad_llm.kernels import Array

# The largest error that each method allows. The error of one input is max|Δ| / (max|g| + 0.01), so a tolerance of 1e-12
# means |Δ| ≤ 1e-12 · max|g| + 1e-14. A gradient whose elements are all below a hundredth of the tolerance would always
# pass: such a loss must be scaled. Where Δ is a sum over a whole tensor, a norm takes the place of max|g|: ‖g‖ for
# directions, and for float32 the larger of ‖g‖ and a tenth of the largest ‖g‖ of any input.
TOLERANCE = {
    "complex": 1e-12,
    "richardson": 1e-9,
    "central": 1e-6,
    "directions": 1e-11,
    "adjoint": 0.0,
    "float32": 1e-5,
}


ADVICE = (
    "Check the formula at other inputs, near 1 and about 1 apart, such as np.random.randn gives: there, fewer digits "
    "are lost to rounding"
)


@dataclass(frozen=True)
class Comparison:
    """One input's gradient compared with its numeric counterpart."""

    name: str
    elements: int  # derivatives compared
    error: float  # max|Δ| / (max|g| + 0.01)
    index: tuple[int, ...]  # where |Δ| is largest (for directions: which of them), and both values there
    analytic: float
    numeric: float


@dataclass(frozen=True)
class GradcheckResult:
    """The comparisons of one check. It is true if every input passed.

    method is the one that decided, and `note` says why it is not the one asked for.
    """

    method: str
    tolerance: float
    comparisons: list[Comparison]
    note: str = ""
    confirmed: bool = True  # whether real differences agree that a gradient that did not pass is wrong

    @property
    def worst(self) -> Comparison:
        """The comparison with the largest error; NaN is larger than any number."""
        return max(self.comparisons, key=lambda c: np.nan_to_num(c.error, nan=np.inf))

    def __bool__(self) -> bool:
        return self.worst.error <= self.tolerance  # False for NaN

    def __str__(self) -> str:
        return "\n".join(
            [
                f"gradient {'passes' if self else 'FAILS' if self.confirmed else 'is not proven'} by {self.method}, "
                f"tolerance {self.tolerance:.0e}",
                *(f"  {c.name}: {c.elements:,} derivatives, error {c.error:.1e}" for c in self.comparisons),
                *([f"  note: {self.note}"] if self.note else []),
            ]
        )


def describe(result: GradcheckResult) -> str:
    """The worst comparison of a result, in one line."""
    c = result.worst
    return (
        f"{c.name} {'is wrong' if result.confirmed else 'differs, too little to be seen by real differences,'} at "
        f"{'direction' if 'directions' in result.method else 'index'} {c.index}: analytic {c.analytic:.17g}, numeric "
        f"({result.method}) {c.numeric:.17g}; error {c.error:.3g}, tolerance {result.tolerance:.3g}"
        + (f" ({result.note})" if result.note else "")
        + ("" if result.confirmed else f". {ADVICE}")
    )


def comparison(name: str, g: Array, numeric: Array, scale: float | None = None) -> Comparison:
    """Compare two arrays that should be equal. The error is max|Δ| / (scale + 0.01); scale is max|g| unless given."""
    delta = np.abs(g - numeric)
    index = tuple(int(n) for n in np.unravel_index(int(np.argmax(delta)), g.shape)) if g.size else ()
    scale = float(np.max(np.abs(g), initial=0.0)) if scale is None else scale
    error = float(np.max(delta, initial=0.0)) / (scale + FLOOR)
    at = (float(g[index]), float(numeric[index])) if g.size else (0.0, 0.0)
    return Comparison(name, g.size, error, index, *at)
