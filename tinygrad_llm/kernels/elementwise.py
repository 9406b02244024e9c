"""Operations on each element by itself; two arrays broadcast as in NumPy."""

import math

import numpy as np

from tinygrad_llm.kernels.contract import Array, Result, alike, analytic, kernel, unbroadcast


@kernel
def add(a: Array, b: Array) -> Result:
    """y = a + b.   da = g,  db = g

    Derivation:
        ∂y_i/∂a_i = ∂y_i/∂b_i = 1, so da_i = db_i = g_i.
        An element that broadcasting copied to several y_i gets da = Σ_i g_i ∂y_i/∂a over those i (`unbroadcast`).
        This holds for every operation on two arrays.
    """
    a, b = alike(a, b)
    y = a + b
    a_shape, b_shape = a.shape, b.shape  # without the arrays, which backward does not need

    def vjp(g: Array) -> tuple[Array, Array]:
        return unbroadcast(g, a_shape), unbroadcast(g, b_shape)

    return y, vjp


@kernel
def subtract(a: Array, b: Array) -> Result:
    """y = a − b.   da = g,  db = −g

    Derivation:
        ∂y_i/∂a_i = 1 and ∂y_i/∂b_i = −1, so da_i = g_i and db_i = −g_i.
    """
    a, b = alike(a, b)
    y = a - b
    a_shape, b_shape = a.shape, b.shape

    def vjp(g: Array) -> tuple[Array, Array]:
        return unbroadcast(g, a_shape), -unbroadcast(g, b_shape)

    return y, vjp


@kernel
def multiply(a: Array, b: Array, *, needs: tuple[bool, bool] = (True, True)) -> Result:
    """y = a · b.   da = g · b,  db = g · a

    Derivation:
        ∂y_i/∂a_i = b_i and ∂y_i/∂b_i = a_i, so da_i = g_i b_i and db_i = g_i a_i.
    """
    a, b = alike(a, b)
    y = a * b
    a_shape, b_shape = a.shape, b.shape
    for_a, for_b = b if needs[0] else None, a if needs[1] else None  # what each gradient needs

    def vjp(g: Array) -> tuple[Array | None, Array | None]:
        da = None if for_a is None else unbroadcast(g * for_a, a_shape)
        db = None if for_b is None else unbroadcast(g * for_b, b_shape)
        return da, db

    return y, vjp


@kernel
@analytic
def divide(a: Array, b: Array, *, needs: tuple[bool, bool] = (True, True)) -> Result:
    """y = a / b.   da = g / b,  db = −g · y / b

    Derivation:
        ∂y_i/∂a_i = 1 / b_i, so da_i = g_i / b_i.
        ∂y_i/∂b_i = −a_i / b_i² = −y_i / b_i, so db_i = −(g_i / b_i) · y_i: before `unbroadcast`, db = −da · y.
    """
    a, b = alike(a, b)
    y = a / b
    a_shape, needs_a = a.shape, needs[0]
    for_b = y if needs[1] else None

    def vjp(g: Array) -> tuple[Array | None, Array | None]:
        da = g / b
        db = None if for_b is None else unbroadcast(-da * for_b, b.shape)
        return unbroadcast(da, a_shape) if needs_a else None, db

    return y, vjp


@kernel
def negative(x: Array) -> Result:
    """y = −x.   dx = −g

    Derivation:
        ∂y_i/∂x_i = −1, so dx_i = −g_i.
    """
    y = -x

    def vjp(g: Array) -> tuple[Array]:
        return (-g,)

    return y, vjp


@kernel
def power(x: Array, n: Array, *, needs: tuple[bool, bool] = (True, True)) -> Result:
    """y = xⁿ.   dx = g · n · xⁿ⁻¹ (0 where n = 0),  dn = g · y · ln x (0 where x = 0 and n ≥ 0)

    Where n needs no gradient, no logarithm is taken, so x may be negative.

    Derivation:
        y = exp(n ln x):   ∂y/∂x = exp(n ln x) · n / x = n · xⁿ⁻¹,  dx = g · n · xⁿ⁻¹   (n · y / x is 0 / 0 at x = 0)
                           ∂y/∂n = exp(n ln x) · ln x = y · ln x,   dn = g · y · ln x
        x < 0 with a whole n: the product or quotient rule gives the same n · xⁿ⁻¹; ln x is not real, and dn is NaN.
        n = 0: y = 1 for every x, so ∂y/∂x = 0. At x = 0 the formula would give 0 · 0⁻¹ = 0 · ∞, hence the special case.
        x = 0: y = 0 for every n > 0, so ∂y/∂n = 0. The formula would give 0 · −∞; with ln 1 for ln 0 it gives 0. At
        n = 0, where y jumps from 1 to 0 as n grows, dn = 0 is a convention; for n < 0, y is ∞ and has no derivative.
    """
    need_x, need_n = needs[0], needs[1] and n.dtype.kind in "fc"
    x, n = alike(x, n)
    y = np.power(x, n)

    def vjp(g: Array) -> tuple[Array | None, Array | None]:
        dx = dn = None
        if need_x:
            # x⁰ is 1 everywhere, so its slope is 0, also at x = 0, where 0 · 0⁻¹ would be NaN.
            dx = unbroadcast(g * np.where(n == 0, 0, n * np.power(x, np.where(n == 0, 1, n - 1))), x.shape)
        if need_n:
            dn = unbroadcast(g * y * np.log(np.where(x == 0, 1, x)), n.shape)
        return dx, dn

    return y, vjp


@kernel
@analytic
def exp(x: Array) -> Result:
    """y = eˣ.   dx = g · y

    Derivation:
        eˣ is its own derivative: ∂y_i/∂x_i = y_i, so dx_i = g_i y_i.
    """
    y = np.exp(x)

    def vjp(g: Array) -> tuple[Array]:
        return (g * y,)

    return y, vjp


@kernel
@analytic
def log(x: Array) -> Result:
    """y = ln x.   dx = g / x

    Derivation:
        eʸ = x; differentiate both sides: eʸ · ∂y/∂x = 1, so ∂y/∂x = e⁻ʸ = 1 / x and dx = g / x.
    """
    y = np.log(x)

    def vjp(g: Array) -> tuple[Array]:
        return (g / x,)

    return y, vjp


@kernel
@analytic
def sqrt(x: Array) -> Result:
    """y = √x.   dx = g / (2y)

    Derivation:
        y² = x; differentiate both sides: 2y · ∂y/∂x = 1, so dx = g / (2y), without bound as x → 0.
    """
    y = np.sqrt(x)

    def vjp(g: Array) -> tuple[Array]:
        return (g / (2 * y),)

    return y, vjp


@kernel
@analytic
def tanh(x: Array) -> Result:
    """y = tanh x.   dx = g · (1 − y²)

    Derivation:
        y = sinh x / cosh x, and each of the two is the derivative of the other:
        ∂y/∂x = (cosh² x − sinh² x) / cosh² x = 1 − y², so dx = g · (1 − y²).
    """
    y = np.tanh(x)

    def vjp(g: Array) -> tuple[Array]:
        return (g * (1 - y * y),)

    return y, vjp


# The polynomials in Cody's approximations of erf: their coefficients, highest power first.
_NEAR = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2, 3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3, 2.84423683343917062e3),
)
_FAR = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1, 2.98635138197400131e2,
     8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3, 1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2, 1.62138957456669019e3,
     3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3, 1.23033935480374942e3),
)  # fmt: skip


def _quotient(polynomials: tuple[tuple[float, ...], tuple[float, ...]], x: Array) -> Array:
    above, below = (_polynomial(coefficients, x) for coefficients in polynomials)
    above /= below
    return above


def _polynomial(coefficients: tuple[float, ...], x: Array) -> Array:
    """By Horner's rule, in one array."""
    first, second, *rest = coefficients
    y = first * x + second
    for c in rest:
        y *= x
        y += c
    return y


@kernel
@analytic
def erf(x: Array) -> Result:
    """y = erf x = 2/√π · ∫₀ˣ exp(−t²) dt.   dx = g · 2/√π · exp(−x²)

    The forward pass is a rational function times exp(−x²), so it takes complex numbers, and its error is that of
    rounding (1e-15 in float64).

    Source: Cody 1969, Mathematics of Computation 23, 631–637.

    Derivation:
        The derivative of an integral by its upper limit is the integrand: ∂y/∂x = 2/√π · exp(−x²), and
        dx = g · 2/√π · exp(−x²).
    """
    sign = np.where(x.real < 0, -1, 1).astype(x.real.dtype)
    z = x * sign
    near = z.real <= 0.46875
    small, large = np.where(near, z, 0), np.where(z.real > 6, 6, z)  # beyond 6, y rounds to 1
    y = sign * np.where(
        near, small * _quotient(_NEAR, small * small), 1 - np.exp(-large * large) * _quotient(_FAR, large)
    )

    def vjp(g: Array) -> tuple[Array]:
        with np.errstate(under="ignore", over="ignore"):
            return (g * (2 / math.sqrt(math.pi)) * np.exp(-x * x),)

    return y, vjp


@kernel
@analytic
def softplus(x: Array) -> Result:
    """y = ln(1 + eˣ).   dx = g · σ(x),  σ(x) = eˣ / (1 + eˣ)

    Derivation:
        ∂y/∂x = eˣ / (1 + eˣ) = σ(x), so dx = g · σ(x).
        The code's form: ln(1 + eˣ) = x + ln(1 + e⁻ˣ), which it takes for x > 0, so that no exponential overflows.
    """
    positive = x.real > 0
    e = np.exp(np.where(positive, -x, x))
    y = np.where(positive, x, 0) + np.log1p(e)
    sigma = np.where(positive, 1, e) / (1 + e)

    def vjp(g: Array) -> tuple[Array]:
        return (g * sigma,)

    return y, vjp


@kernel
@analytic
def sigmoid(x: Array) -> Result:
    """y = 1 / (1 + e⁻ˣ).   dx = g · y · (1 − y)

    Derivation:
        ∂y/∂x = e⁻ˣ / (1 + e⁻ˣ)² = y · e⁻ˣ / (1 + e⁻ˣ), and e⁻ˣ / (1 + e⁻ˣ) = 1 − y.   So dx = g · y · (1 − y).
    """
    # For x < 0, y = eˣ / (1 + eˣ): the exponent is never positive, so no exponential overflows.
    positive = x.real >= 0
    e = np.exp(np.where(positive, -x, x))
    y = np.where(positive, 1, e) / (1 + e)

    def vjp(g: Array) -> tuple[Array]:
        return (g * y * (1 - y),)

    return y, vjp


@kernel
def relu(x: Array) -> Result:
    """y = max(x, 0).   dx = g where x > 0, else 0 (also at the kink x = 0)

    Source: Nair and Hinton 2010, ICML.

    Derivation:
        x > 0: y = x, ∂y/∂x = 1 and dx = g.   x < 0: y = 0, ∂y/∂x = 0 and dx = 0.
        x = 0: the slope is 0 on the left and 1 on the right. Each s from 0 to 1 is a subgradient, a slope of a line
        through the kink that stays below the curve: max(z, 0) ≥ s · z for every z. The code takes s = 0.
    """
    flat = x.real <= 0  # False for NaN, so that NaN stays NaN and does not become 0
    y = np.where(flat, 0, x)

    def vjp(g: Array) -> tuple[Array]:
        return (np.where(flat, 0, g),)

    return y, vjp


@kernel
@analytic
def gelu(x: Array, *, needs: tuple[bool, ...] = (True,)) -> Result:
    """y = x·h,  h = ½(1 + tanh u),  u = c·(x + a·x³),  c = √(2/π),  a = 0.044715   (GPT-2's tanh form)
    dx = g · (h + y · (1 − h) · 2c·(1 + 3a·x²))

    Source: Hendrycks and Gimpel 2016, arXiv:1606.08415.

    Derivation:
        ∂y/∂x = h + x · ∂h/∂x             product rule
        ∂h/∂x = ½ (1 − tanh² u) · ∂u/∂x    chain rule, and tanh' = 1 − tanh²
              = 2 h (1 − h) · ∂u/∂x        since 1 − tanh² = (1 + tanh)(1 − tanh) = 2h · 2(1 − h)
        ∂u/∂x = c·(1 + 3a·x²)
        With x·h = y,  dx = g · (h + y · (1 − h) · 2c·(1 + 3a·x²)). Forward computes the slope ∂y/∂x at once: then one
        array is kept for backward, instead of x and h.
    """
    c, a = math.sqrt(2 / math.pi), 0.044715

    # u = c·(x + a·x³) as (c·a·x² + c)·x, step by step in the memory that becomes h.
    square = np.asarray(x * x)  # NumPy makes x * x a scalar where x has no axes
    h = np.asarray(square * (c * a))
    h += c
    h *= x
    # h = ½(1 + tanh u)
    np.tanh(h, out=h)
    h *= 0.5
    h += 0.5
    y = x * h

    # slope = 2c·(1 + 3a·x²) · (1 − h) · y + h, in the memory of x².
    slope = None
    if needs[0]:
        slope = square
        slope *= 6 * c * a
        slope += 2 * c
        slope *= 1 - h  # 0 for a large x: multiplied before y, it keeps the product from overflowing
        slope *= y
        slope += h

    def vjp(g: Array) -> tuple[Array | None]:
        return (None if slope is None else g * slope,)

    return y, vjp


@kernel
def absolute(x: Array) -> Result:
    """y = |x|.   dx = g · sign(x) (0 at the kink x = 0)

    Derivation:
        x > 0: y = x and ∂y/∂x = 1.   x < 0: y = −x and ∂y/∂x = −1.   Both are sign(x), so dx = g · sign(x).
        x = 0: |z| ≥ s · z for every z if −1 ≤ s ≤ 1: each such s is a subgradient. The code takes sign(0) = 0.
    """
    # x · sign(Re x) for a complex x, because the modulus that np.abs gives of it is not analytic.
    sign = np.sign(x.real)
    y = x * sign if x.dtype.kind == "c" else np.abs(x)

    def vjp(g: Array) -> tuple[Array]:
        return (g * sign,)

    return y, vjp


@kernel
def maximum(a: Array, b: Array, *, lower: bool = False) -> Result:
    """y = max(a, b).   da = g, ½g or 0 where a >, = or < b;  db = 0, ½g or g

    Where one is NaN, so is y, and both receive g, as in PyTorch: no comparison says that one was not taken.
    lower: y = min(a, b) instead. The gradients follow the smaller one.

    Derivation:
        a > b: y = a, so ∂y/∂a = 1 and ∂y/∂b = 0: da = g, db = 0.   a < b: the other way round.
        a = b: for each s from 0 to 1, max(a', b') ≥ s·a' + (1 − s)·b' for all a', b', with equality at a' = b', so that
        (s, 1 − s) is a subgradient. s = ½ favors neither.
        min(a, b) = −max(−a, −b): the two signs cancel in the gradients, and the inequalities are reversed.
    """
    a, b = alike(a, b)
    # np.maximum orders complex numbers by their real part first, so a complex step follows the same element.
    y = np.minimum(a, b) if lower else np.maximum(a, b)
    more, less = (b.real, a.real) if lower else (a.real, b.real)
    # 1 where a is taken, −1 where b is, 0 where they are equal, 2 where one is NaN
    taken = (more > less).astype(np.int8) - (more < less) + 2 * np.isnan(y).astype(np.int8)
    a_shape, b_shape = a.shape, b.shape

    def vjp(g: Array) -> tuple[Array, Array]:
        shared = np.where(taken == 0, g * 0.5, g)
        return (
            unbroadcast(np.where(taken == -1, 0, shared), a_shape),
            unbroadcast(np.where(taken == 1, 0, shared), b_shape),
        )

    return y, vjp


@kernel
def where(condition: Array, a: Array, b: Array) -> Result:
    """y = a where condition, else b.   da = g where condition, else 0;  db = 0 where condition, else g

    Derivation:
        With c_i = 1 where the condition holds, else 0:   y_i = c_i a_i + (1 − c_i) b_i.
        ∂y_i/∂a_i = c_i and ∂y_i/∂b_i = 1 − c_i, so da = c · g and db = (1 − c) · g. A truth value has no gradient.
    """
    a, b = alike(a, b)
    y = np.where(condition, a, b)
    a_shape, b_shape = a.shape, b.shape

    def vjp(g: Array) -> tuple[None, Array, Array]:
        da = unbroadcast(np.where(condition, g, 0), a_shape)
        db = unbroadcast(np.where(condition, 0, g), b_shape)
        return None, da, db

    return y, vjp
