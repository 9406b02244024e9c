"""Operations that normalize: softmax and its logarithm, the logarithm of its sum, and layer norm."""

import numpy as np

from tinygrad_llm.kernels.contract import Array, Result, add_to, alike, analytic, column_sums, kernel, row_sums
from tinygrad_llm.kernels.reductions import Axis, restore_axes


@kernel
@analytic
def softmax(x: Array, *, axis: int = -1) -> Result:
    """y = eˣ / Σ eˣ.   dx = y · (g − Σ g·y)

    Derivation:
        y_j = exp(x_j) / Z,  Z = Σ_k exp x_k,  ∂Z/∂x_i = exp x_i. By the quotient rule
        ∂y_j/∂x_i = δ_ij exp(x_j) / Z − exp(x_j) exp(x_i) / Z² = y_j (δ_ij − y_i).
        dx_i = Σ_j g_j y_j (δ_ij − y_i) = g_i y_i − y_i Σ_j g_j y_j = y_i (g_i − Σ_j g_j y_j).
        Shifting x by its maximum multiplies exp(x_j) and Z by the same number, so y and its gradient stay.
    """
    y = np.exp(x - _top(x, axis))  # shifted, so that no exponential overflows
    y /= np.sum(y, axis=axis, keepdims=True)

    def vjp(g: Array) -> tuple[Array]:
        gy = g * y
        return (gy - y * np.sum(gy, axis=axis, keepdims=True),)

    return y, vjp


@kernel
@analytic
def log_softmax(x: Array, *, axis: int = -1) -> Result:
    """y = x − ln Σ eˣ.   dx = g − eʸ · Σ g

    Derivation:
        y_j = x_j − ln Z,  Z = Σ_k exp x_k:   ∂y_j/∂x_i = δ_ij − exp(x_i) / Z = δ_ij − exp(y_i).
        dx_i = Σ_j g_j (δ_ij − exp(y_i)) = g_i − exp(y_i) · Σ_j g_j.
        Shifting x by its maximum m moves x_j and ln Z by the same −m, so y and its gradient stay.
    """
    shifted = x - _top(x, axis)
    with np.errstate(divide="ignore"):  # the sum over an empty axis is 0
        y = shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))

    def vjp(g: Array) -> tuple[Array]:
        return (g - np.exp(y) * np.sum(g, axis=axis, keepdims=True),)

    return y, vjp


@kernel
@analytic
def logsumexp(x: Array, *, axis: Axis = None, keepdims: bool = False) -> Result:
    """y = ln Σ eˣ.   dx = g · eˣ⁻ʸ = g · softmax(x)

    Derivation:
        With Z = Σ_j exp x_j,  y = ln Z:   ∂y/∂x_i = exp(x_i) / Z = exp(x_i − y), since Z = eʸ.   So dx = g · eˣ⁻ʸ.
        The code's shift:  y = m + ln Σ_j exp(x_j − m) for every number m, since the sum is Z · e⁻ᵐ. Hence
        ∂y/∂m = 1 − Σ_j exp(x_j − m) / Σ_j exp(x_j − m) = 0: that m = max x depends on x adds nothing to dx.
    """
    # Shifting by the largest x keeps every exponential ≤ 1.
    top = _top(x, axis)
    top = np.where(np.isfinite(top), top, 0)  # ∞ − ∞ would be NaN
    with np.errstate(divide="ignore"):  # where all x are −∞, the sum is 0, and its logarithm −∞ is the right value
        kept = top + np.log(np.sum(np.exp(x - top), axis=axis, keepdims=True))
    y = kept if keepdims else np.squeeze(kept, axis=axis)

    def vjp(g: Array) -> tuple[Array]:
        return (restore_axes(g, x.shape, axis, keepdims) * np.exp(x - kept),)

    return y, vjp


def _top(x: Array, axis: Axis) -> Array:
    """The largest real part along axis, kept with length 1; −∞ where the axis is empty."""
    top: Array = np.max(x.real, axis=axis, keepdims=True, initial=-np.inf)
    return top


@kernel
@analytic
def layer_norm(x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float = 1e-5) -> Result:
    """y = x̂ · weight + bias,  x̂ = (x − mean) · rstd,  rstd = 1 / √(var + eps), over the last axis
    dx = rstd · (dx̂ − mean(dx̂) − x̂ · mean(dx̂ · x̂)),  dx̂ = g · weight;   dweight = Σ g · x̂,  dbias = Σ g over all rows

    x: (..., n), weight and bias: (n,) or None → y: (..., n).

    Source: Ba et al. 2016, arXiv:1607.06450.

    Derivation:
        y_j = x̂_j weight_j + bias_j in every row, so dweight_j = Σ_rows g_j x̂_j and dbias_j = Σ_rows g_j, while x̂_j
        receives dx̂_j = ∂L/∂x̂_j = g_j weight_j.
        One row, with μ = mean = Σ_j x_j / n and var = Σ_j (x_j − μ)² / n:
            ∂μ/∂x_i    = 1 / n
            ∂var/∂x_i  = 2(x_i − μ) / n                              (as in `var`: the path through μ vanishes)
            ∂rstd/∂x_i = −½ (var + eps)^(−3/2) · ∂var/∂x_i = −rstd³ (x_i − μ) / n = −rstd² x̂_i / n
        x̂_j = (x_j − μ) · rstd depends on x_i in three ways, through x_j itself, the mean and the variance:
            ∂x̂_j/∂x_i = (δ_ij − ∂μ/∂x_i) · rstd + (x_j − μ) · ∂rstd/∂x_i
                      = rstd · (δ_ij − 1 / n − x̂_j x̂_i / n)          (since x_j − μ = x̂_j / rstd)
        dx_i = Σ_j dx̂_j ∂x̂_j/∂x_i = rstd · (dx̂_i − Σ_j dx̂_j / n − x̂_i · Σ_j dx̂_j x̂_j / n), and Σ_j … / n is a mean.
    """
    own = x.shape[-1:]
    if (weight is not None and weight.shape != own) or (bias is not None and bias.shape != own):
        shapes = [None if p is None else p.shape for p in (weight, bias)]
        raise ValueError(f"layer_norm: got weight and bias of shapes {shapes}, which must be {own} for x {x.shape}")
    n = max(own[0], 1)  # the means of empty rows are not used, but must not be 0 / 0
    weight, bias = (None if p is None else alike(x, p)[1] for p in (weight, bias))

    # x̂ = (x − mean) · rstd, row by row.
    xhat = x - row_sums(x) / n
    rstd = 1 / np.sqrt(_row_products(xhat, xhat) / n + eps)
    xhat *= rstd

    # y = x̂ · weight + bias
    y = xhat * (1.0 if weight is None else weight)
    has_bias = bias is not None
    if bias is not None:
        y = add_to(y, bias)

    def vjp(g: Array) -> tuple[Array, ...]:
        # The sums over a row are products with a vector, Σ dx̂ = g · weight and Σ dx̂ x̂ = (g x̂) · weight, because BLAS
        # adds fastest; dweight needs g x̂ too.
        gx = g * xhat
        column = (np.ones(xhat.shape[-1], xhat.dtype) if weight is None else weight)[:, None]
        # dx = rstd · (dx̂ − mean(dx̂) − x̂ · mean(dx̂ · x̂)), built up from its last term in one array.
        dx = xhat * (gx @ column / n)
        dx += g @ column / n
        np.subtract(g if weight is None else g * weight, dx, out=dx)
        dx *= rstd
        grads = [dx]
        if weight is not None:
            grads.append(column_sums(gx))
        if has_bias:
            grads.append(column_sums(g))
        return tuple(grads)

    return y, vjp


def _row_products(a: Array, b: Array) -> Array:
    """Σ a · b over the last axis, kept with length 1. It conjugates a to undo what `vecdot` does."""
    total: Array = np.vecdot(a.conj(), b)[..., None]
    return total
