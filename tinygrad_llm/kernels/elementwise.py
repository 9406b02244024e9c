"""Operations that act on each element alone, broadcasting as NumPy does."""

import math

import numpy as np

from tinygrad_llm.kernels.table import Array, Result, alike, kernel, unbroadcast


@kernel
def add(a: Array, b: Array) -> Result:
    """y = a + b.   da = g,  db = g"""

    def vjp(g: Array) -> tuple[Array, Array]:
        return unbroadcast(g, a_shape), unbroadcast(g, b_shape)

    a, b = alike(a, b)
    a_shape, b_shape = a.shape, b.shape
    return a + b, vjp


@kernel
def subtract(a: Array, b: Array) -> Result:
    """y = a − b.   da = g,  db = −g"""

    def vjp(g: Array) -> tuple[Array, Array]:
        return unbroadcast(g, a_shape), -unbroadcast(g, b_shape)

    a, b = alike(a, b)
    a_shape, b_shape = a.shape, b.shape
    return a - b, vjp


@kernel
def multiply(a: Array, b: Array) -> Result:
    """y = a · b.   da = g · b,  db = g · a"""
    a, b = alike(a, b)

    def vjp(g: Array) -> tuple[Array, Array]:
        return unbroadcast(g * b, a.shape), unbroadcast(g * a, b.shape)

    return a * b, vjp


@kernel
def divide(a: Array, b: Array) -> Result:
    """y = a / b.   da = g / b,  db = −g · y / b"""
    a, b = alike(a, b)
    y = a / b
    a_shape = a.shape

    def vjp(g: Array) -> tuple[Array, Array]:
        da = g / b
        return unbroadcast(da, a_shape), unbroadcast(-da * y, b.shape)

    return y, vjp


@kernel
def negative(x: Array) -> Result:
    """y = −x.   dx = −g"""

    def vjp(g: Array) -> tuple[Array]:
        return (-g,)

    return -x, vjp


@kernel
def power(x: Array, n: Array, *, needs: tuple[bool, bool] = (True, True)) -> Result:
    """y = xⁿ.   dx = g · n · xⁿ⁻¹ (0 where n = 0),  dn = g · y · ln x (0 where x = 0)

    With a constant exponent no logarithm is taken, so a negative x is fine.
    """
    need_x, need_n = needs[0], needs[1] and n.dtype.kind in "fc"
    x, n = alike(x, n)
    y = np.power(x, n)

    def vjp(g: Array) -> tuple[Array | None, Array | None]:
        dx = dn = None
        if need_x:
            # x⁰ is 1 everywhere: its slope is 0 even at x = 0, where 0 · 0⁻¹ would be NaN.
            dx = unbroadcast(g * np.where(n == 0, 0, n * np.power(x, np.where(n == 0, 1, n - 1))), x.shape)
        if need_n:
            dn = unbroadcast(g * y * np.log(np.where(x == 0, 1, x)), n.shape)
        return dx, dn

    return y, vjp


@kernel
def exp(x: Array) -> Result:
    """y = eˣ.   dx = g · y"""
    y = np.exp(x)

    def vjp(g: Array) -> tuple[Array]:
        return (g * y,)

    return y, vjp


@kernel
def log(x: Array) -> Result:
    """y = ln x.   dx = g / x"""

    def vjp(g: Array) -> tuple[Array]:
        return (g / x,)

    return np.log(x), vjp


@kernel
def sqrt(x: Array) -> Result:
    """y = √x.   dx = g / (2y)"""
    y = np.sqrt(x)

    def vjp(g: Array) -> tuple[Array]:
        return (g / (2 * y),)

    return y, vjp


@kernel
def tanh(x: Array) -> Result:
    """y = tanh x.   dx = g · (1 − y²)"""
    y = np.tanh(x)

    def vjp(g: Array) -> tuple[Array]:
        return (g * (1 - y * y),)

    return y, vjp


@kernel
def sigmoid(x: Array) -> Result:
    """y = 1 / (1 + e⁻ˣ).   dx = g · y · (1 − y)"""
    # The exponent is never positive, so nothing overflows: for x < 0, y = eˣ / (1 + eˣ).
    positive = x.real >= 0
    e = np.exp(np.where(positive, -x, x))
    y = np.where(positive, 1, e) / (1 + e)

    def vjp(g: Array) -> tuple[Array]:
        return (g * y * (1 - y),)

    return y, vjp


@kernel
def relu(x: Array) -> Result:
    """y = max(x, 0).   dx = g where x > 0, else 0 (also at the kink x = 0)"""
    positive = x.real > 0

    def vjp(g: Array) -> tuple[Array]:
        return (np.where(positive, g, 0),)

    return np.where(positive, x, 0), vjp


@kernel
def gelu(x: Array) -> Result:
    """y = ½x(1 + t),  t = tanh(c·(x + a·x³)),  c = √(2/π),  a = 0.044715   (GPT-2's tanh form)

    dx = g · [½(1 + t) + ½x · (1 − t²) · c·(1 + 3a·x²)]: the product rule, then the chain rule through tanh.
    """
    c, a = math.sqrt(2 / math.pi), 0.044715
    t = np.tanh(x * (c + c * a * (x * x)))

    def vjp(g: Array) -> tuple[Array]:
        slope = (1 - t * t) * (c + 3 * c * a * (x * x))  # squared again: cheaper than keeping it
        return (g * (0.5 + 0.5 * (t + x * slope)),)

    return 0.5 * x * (1 + t), vjp


@kernel
def absolute(x: Array) -> Result:
    """y = |x|.   dx = g · sign(x) (0 at the kink x = 0)"""
    # x · sign(Re x), not np.abs: the modulus of a complex number is not analytic.
    sign = np.sign(x.real)

    def vjp(g: Array) -> tuple[Array]:
        return (g * sign,)

    return x * sign, vjp


@kernel
def maximum(a: Array, b: Array) -> Result:
    """y = max(a, b).   The gradient goes to the larger one; half to each where they are equal"""
    a, b = alike(a, b)
    # Cast from float64: 0, ½ and 1 are exact in every dtype.
    share = (0.5 * ((a.real > b.real) + 1.0 - (a.real < b.real))).astype(np.result_type(a.real, b.real))
    a_shape, b_shape = a.shape, b.shape

    def vjp(g: Array) -> tuple[Array, Array]:
        return unbroadcast(g * share, a_shape), unbroadcast(g * (1 - share), b_shape)

    # np.maximum orders complex numbers by their real part first, so a complex step follows the same element.
    return np.maximum(a, b), vjp


@kernel
def where(condition: Array, a: Array, b: Array) -> Result:
    """y = a where condition, else b.   da = g where condition, db = g elsewhere"""
    a, b = alike(a, b)
    a_shape, b_shape = a.shape, b.shape

    def vjp(g: Array) -> tuple[None, Array, Array]:
        return (
            None,
            unbroadcast(np.where(condition, g, 0), a_shape),
            unbroadcast(np.where(condition, 0, g), b_shape),
        )

    return np.where(condition, a, b), vjp
