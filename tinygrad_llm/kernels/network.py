"""The fused operations of a neural network: each could be composed of simpler kernels, and is faster whole.

The composed forms are the oracles in tests/kernels/test_fused.py: same values and gradients to 1e-12.
"""

import math
from typing import cast

import numpy as np

from tinygrad_llm.kernels.contract import (
    Array,
    Result,
    Rows,
    add_to,
    alike,
    column_sums,
    kernel,
    row_sums,
)

IGNORE_INDEX = -100  # a target that does not count, as in PyTorch


@kernel
def embedding(weight: Array, ids: Array, *, sparse: bool = False) -> Result:
    """y = weight[ids].   dweight[v] = Σ of g over all places where id v stands

    weight: (V, C) float, ids: (...) integer. An id outside 0 … V−1 is an error: NumPy would wrap a negative one.
    sparse: dweight as `Rows`.

    Derivation:
        Count the places of ids through, n = 1 … N, and let O = onehot(ids), (N, V): O_nv = 1 where ids_n = v, else 0.
        y_nc = Σ_v O_nv weight_vc,  y = O weight: (N, V)(V, C)
        dweight_vc = Σ_n g_nc ∂y_nc/∂weight_vc = Σ_n O_nv g_nc,  dweight = Oᵀ g: (V, N)(N, C)
        Row v of Oᵀ g is the sum of those g_n that have ids_n = v; O itself is never made. Sorted by id, these g_n are
        neighbours, and `reduceat` adds up each run from its start to the next. The row of an id that does not occur is
        0, and a text has few of all ids: `Rows` holds the others only.
    """
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding: ids must be integers, not {ids.dtype}")
    if ids.size and not (ids.min() >= 0 and ids.max() < len(weight)):
        bad = ids.min() if ids.min() < 0 else ids.max()
        raise IndexError(f"embedding: id {bad} is outside the vocabulary: ids must be 0 … {len(weight) - 1}")
    shape = weight.shape

    def vjp(g: Array) -> tuple[Array, None]:
        # Sorting puts equal ids together; each run is summed at once, in order of position.
        flat = ids.reshape(-1)
        order = np.argsort(flat, kind="stable")
        found, starts = np.unique(flat[order], return_index=True)
        sorted_g = g.reshape(-1, *shape[1:])[order]
        dweight = Rows(found, np.add.reduceat(sorted_g, starts, axis=0) if ids.size else sorted_g, shape)
        return cast(Array, dweight) if sparse else np.asarray(dweight), None

    return weight[ids], vjp


@kernel
def layer_norm(x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float = 1e-5) -> Result:
    """y = x̂ · weight + bias,  x̂ = (x − mean) · rstd,  rstd = 1 / √(var + eps), over the last axis
    dx = rstd · (g' − mean(g') − x̂ · mean(g' · x̂)),  g' = g · weight;   dweight = Σ g · x̂,  dbias = Σ g over all rows

    x: (..., n); weight and bias: (n,) or None.

    Source: Ba et al. 2016, arXiv:1607.06450.

    Derivation:
        y_j = x̂_j weight_j + bias_j in every row, so dweight_j = Σ_rows g_j x̂_j and dbias_j = Σ_rows g_j, while x̂_j
        receives g'_j = ∂L/∂x̂_j = g_j weight_j.
        One row, with μ = mean = Σ_j x_j / n and var = Σ_j (x_j − μ)² / n:
            ∂μ/∂x_i    = 1 / n
            ∂var/∂x_i  = 2(x_i − μ) / n                              (as in `var`: the path through μ vanishes)
            ∂rstd/∂x_i = −½ (var + eps)^(−3/2) · ∂var/∂x_i = −rstd³ (x_i − μ) / n = −rstd² x̂_i / n
        x̂_j = (x_j − μ) · rstd depends on x_i in three ways, through x_j itself, the mean and the variance:
            ∂x̂_j/∂x_i = (δ_ij − ∂μ/∂x_i) · rstd + (x_j − μ) · ∂rstd/∂x_i
                      = rstd · (δ_ij − 1 / n − x̂_j x̂_i / n)          (since x_j − μ = x̂_j / rstd)
        dx_i = Σ_j g'_j ∂x̂_j/∂x_i = rstd · (g'_i − Σ_j g'_j / n − x̂_i · Σ_j g'_j x̂_j / n), and Σ_j … / n is a mean.
    """
    n = x.shape[-1]
    if any(p is not None and p.shape != (n,) for p in (weight, bias)):
        shapes = [None if p is None else p.shape for p in (weight, bias)]
        raise ValueError(f"layer_norm: weight and bias must be ({n},) for x of shape {x.shape}, not {shapes}")
    xhat = x - row_sums(x) / n
    rstd = 1 / np.sqrt(_row_products(xhat, xhat) / n + eps)
    xhat *= rstd
    y = xhat * (1.0 if weight is None else weight)
    has_bias = bias is not None
    if bias is not None:
        y = add_to(y, bias)

    def vjp(g: Array) -> tuple[Array, ...]:
        gw = g * (1.0 if weight is None else weight)
        scratch = xhat * (_row_products(gw, xhat) / n)
        scratch += row_sums(gw) / n
        dx = np.subtract(gw, scratch, out=scratch)
        dx *= rstd
        grads = [dx]
        if weight is not None:
            grads.append(column_sums(g * xhat))
        if has_bias:
            grads.append(column_sums(g))
        return tuple(grads)

    return y, vjp


def _row_products(a: Array, b: Array) -> Array:
    """Σ a · b over the last axis, which stays with length 1."""
    total: Array = np.einsum("...i,...i->...", a, b)[..., None]
    return total


@kernel
def dropout(x: Array, keep: Array, *, p: float) -> Result:
    """y = x / (1 − p) where keep, else 0.   dx = g / (1 − p) where keep, else 0

    keep: boolean, shape of x; it was drawn by the caller. Scaling by 1 / (1 − p) keeps the expected value of y at x.

    Source: Srivastava et al. 2014, JMLR 15.

    Derivation:
        With m_i = 1 where keep, else 0:   y_i = m_i x_i / (1 − p).   The draw m does not depend on x, so
        ∂y_i/∂x_i = m_i / (1 − p) and dx_i = g_i m_i / (1 − p).   At p = 1 nothing is kept: y = 0 and dx = 0.
    """
    scale = 1 / (1 - p) if p < 1 else 0.0

    def vjp(g: Array) -> tuple[Array, None]:
        return np.where(keep, g * scale, 0), None

    return np.where(keep, x * scale, 0), vjp


def _check_targets(name: str, targets: Array, V: int, ignore_index: int, label_smoothing: float) -> tuple[Array, int]:
    """Which targets count, and how many."""
    if targets.dtype.kind not in "iu":
        raise TypeError(f"{name}: targets must be integers, not {targets.dtype}")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{name}: label_smoothing must lie in [0, 1], not {label_smoothing}")
    counted = targets != ignore_index
    outside = counted & ((targets < 0) | (targets >= V))
    if outside.any():
        raise IndexError(
            f"{name}: target {targets[outside][0]} is outside the vocabulary: targets must be 0 … {V - 1} "
            f"or ignore_index ({ignore_index})"
        )
    return counted, int(np.count_nonzero(counted))


@kernel
def cross_entropy(
    logits: Array,
    targets: Array,
    *,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Result:
    """loss_i = −(1 − s) ln p_i[target_i] − s · mean(ln p_i),  p_i = softmax(logits_i),  s = label_smoothing
    dlogits_i = g · (p_i − (1 − s) · onehot(target_i) − s / V) / n

    Rows whose target is ignore_index count for nothing. With s = 0 this is −ln p_i[target_i].

    logits: (N, V), targets: (N,) integer. reduction: "mean" over the n rows counted, "sum" (without / n), or "none"
    (a loss a row; without / n, each with its own g). label_smoothing: in [0, 1].

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7 (label smoothing).

    Derivation:
        With l = logits, t = target_i and Z_i = Σ_k exp l_ik, logarithm and exponential cancel:
        −ln p_ik = −ln(exp(l_ik) / Z_i) = ln Z_i − l_ik
        Smoothing gives the target the weight 1 − s and spreads s evenly over all V ids, the target among them. The
        weights w_ik = (1 − s) δ_kt + s / V sum to 1:
        loss_i = Σ_k w_ik (ln Z_i − l_ik) = ln Z_i − (1 − s) l_it − s Σ_k l_ik / V
        ∂loss_i/∂l_ik = exp(l_ik) / Z_i − w_ik = p_ik − (1 − s) onehot(t)_k − s / V
        loss = Σ_i loss_i / n over the rows counted, so share_i = ∂L/∂loss_i = g / n, and 0 for the rows that are not;
        dlogits_ik = share_i · (exp(l_ik) / Z_i − w_ik): the code scales the row, then takes share_i · w_ik off.
        Shifting row i by its maximum changes no loss_i, hence no gradient: the weighted l_ik and ln Z_i move alike.
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"cross_entropy: logits must be (N, V) and targets (N,), not {logits.shape} and {targets.shape}; "
            "reshape leading axes into one first"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'cross_entropy: reduction must be "mean", "sum" or "none", not {reduction!r}')
    rows, V = logits.shape
    counted, n = _check_targets("cross_entropy", targets, V, ignore_index, label_smoothing)
    if reduction == "mean" and n == 0:
        raise ValueError(f"cross_entropy: the mean over no targets: all {rows} are ignore_index ({ignore_index})")
    place = np.arange(rows), np.where(counted, targets, 0)

    e = logits - np.max(logits.real, axis=-1, keepdims=True)
    wanted = e[place] * (1 - label_smoothing)  # Σ_k w_ik l_ik
    if label_smoothing:  # 0 · −inf would be NaN where a logit is masked
        wanted += np.mean(e, axis=-1) * label_smoothing
    np.exp(e, out=e)
    total = np.sum(e, axis=-1)
    losses = np.where(counted, np.log(total) - wanted, 0)

    def vjp(g: Array) -> tuple[Array, None]:
        share = np.where(counted, g / n if reduction == "mean" else g, 0)
        dlogits = e * (share / total)[:, None]  # the softmax is e / total: never made by itself, a pass is saved
        if label_smoothing:
            dlogits -= (share * (label_smoothing / V))[:, None]
        dlogits[place] -= share * (1 - label_smoothing)
        return dlogits, None

    if reduction == "none":
        return losses, vjp
    return np.sum(losses) / (n if reduction == "mean" else 1), vjp


@kernel
def linear_cross_entropy(
    x: Array,
    weight: Array,
    targets: Array,
    *,
    ignore_index: int = IGNORE_INDEX,
    label_smoothing: float = 0.0,
    count: int | None = None,
    chunk: int = 1 << 24,
    tile: int = 4096,
    needs: tuple[bool, ...] = (True, True, False),
) -> Result:
    """loss = Σ cross_entropy(x Wᵀ, targets) / n,  W = weight: a language model's output head and its loss at once
    dx = g · dlogits W,  dweight = g · dlogitsᵀ x,  dlogits = (p − (1 − s) · onehot(target) − s / V) / n

    Only some rows of the logits exist at a time, about `chunk` numbers: their part of the gradient is made before the
    next rows are. So forward does all the work, and vjp only multiplies by g. Of these rows the logits of `tile` ids at
    a time are made, exponentiated and summed, while they are in the processor's cache.

    x: (N, C), weight: (V, C), targets: (N,) integer; rows with ignore_index count for nothing. n: `count`, or how many
    rows count. s: label_smoothing.

    Derivation:
        The chain rule through l = logits = x Wᵀ (as in `linear`) and the loss (as in `cross_entropy`). With any number
        shift_i, e_ik = exp(l_ik − shift_i), Z_i = Σ_k e_ik, t = target_i and w_ik = (1 − s) δ_kt + s / V:
        loss_i = ln Z_i + shift_i − Σ_k w_ik l_ik = ln Z_i + (shift_i − l_it) + s · (l_it − mean_k l_ik)
        dlogits_ik = (e_ik / Z_i − w_ik) / n = (e_ik − Z_i w_ik) · f_i,  f_i = 1 / (Z_i n), and 0 where i does not count
        dx_i = Σ_k dlogits_ik ∂logits_ik/∂x_i = Σ_k dlogits_ik W_k = f_i · (Σ_k e_ik W_k − Z_i Σ_k w_ik W_k)
        dweight_k = Σ_i dlogits_ik ∂logits_ik/∂W_k = Σ_i dlogits_ik x_i = Σ_i (e_ik − Z_i w_ik) · (f_i x_i)
        so that f meets the (N, C) numbers of x and dx, and not the (N, V) of e. The shift is l_it, found before all
        other logits: then loss_i is ln Z_i, and Z_i ≥ 1. Where other logits are so much higher
        that Z is huge, it is the row's maximum instead.
    """
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1] or targets.shape != x.shape[:1]:
        raise ValueError(
            f"linear_cross_entropy: x must be (N, C), weight (V, C) and targets (N,), "
            f"not {x.shape}, {weight.shape} and {targets.shape}"
        )
    x, weight = alike(x, weight)
    s, V, dtype = label_smoothing, len(weight), np.result_type(x, weight)
    counted, n = _check_targets("linear_cross_entropy", targets, V, ignore_index, label_smoothing)
    if n == 0 and count is None:
        raise ValueError(f"linear_cross_entropy: the mean over no targets: all are ignore_index ({ignore_index})")
    for name, number in (("count", count), ("chunk", chunk), ("tile", tile)):
        if number is not None and number < 1:
            raise ValueError(f"linear_cross_entropy: {name} must be ≥ 1, not {number}")
    share = np.where(counted, 1 / (count or n), 0).astype(dtype)[:, None]
    ids = np.where(counted, targets, 0)
    mean_weight = column_sums(weight) / V if s else None
    loss = np.zeros((), dtype)
    dx = np.empty(x.shape, dtype) if needs[0] else None
    dweight = None
    most = math.sqrt(np.finfo(dtype).max)  # of Z, so that neither its products nor 1 / Z leave the range

    def exponentials(x: Array, shift: Array) -> tuple[Array, Array, Array]:
        """e, Z, and e W where dx is needed, of some rows."""
        e, Z, eW = np.empty((len(x), V), dtype), np.zeros((len(x), 1), dtype), np.zeros(x.shape, dtype)
        for start in range(0, V, tile):
            some = slice(start, start + tile)
            part = np.matmul(x, weight[some].T, out=e[:, some])
            part -= shift
            np.exp(part, out=part)
            Z += row_sums(part)
            if needs[0]:
                eW += part @ weight[some]
        return e, Z, eW

    parts = max(1, math.ceil(len(x) * V / chunk))
    for i in range(parts):
        rows = slice(len(x) * i // parts, len(x) * (i + 1) // parts)
        x_, ids_, share_ = x[rows], ids[rows], share[rows]
        target_weight = weight[ids_]
        shift = at_target = np.einsum("ic,ic->i", x_, target_weight)[:, None]
        with np.errstate(over="ignore", invalid="ignore"):
            e, Z, eW = exponentials(x_, shift)
        if not np.all(np.abs(Z) < most):
            shift = np.max((x_ @ weight.T).real, axis=1, keepdims=True)
            e, Z, eW = exponentials(x_, shift)
        losses = np.log(Z) + (shift - at_target)
        if mean_weight is not None:
            losses += s * (at_target - (x_ @ mean_weight)[:, None])
        loss += np.sum(np.where(share_, losses * share_, 0))
        f = share_ / Z
        if dx is not None:
            mean = target_weight if mean_weight is None else (1 - s) * target_weight + s * mean_weight  # Σ_k w_ik W_k
            dx[rows] = (eW - Z * mean) * f
        if needs[1]:
            e[np.arange(len(e)), ids_] -= (1 - s) * Z[:, 0]
            if s:
                e -= s / V * Z
            d = e.T @ (x_ * f)
            dweight = d if dweight is None else np.add(dweight, d, out=dweight)
            del d
        del e  # or, while the next rows' logits are made, both would be there

    def vjp(g: Array) -> tuple[Array | None, ...]:
        return *(d if d is None or g == 1 else d * g for d in (dx, dweight)), None

    return loss, vjp
