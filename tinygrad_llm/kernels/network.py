"""The fused operations of a neural network: each could be composed of simpler kernels, and is faster whole.

The composed forms are the oracles in tests/kernels/test_fused.py: same values and gradients to 1e-12.
"""

import numpy as np

from tinygrad_llm.kernels.table import Array, Result, add_to, kernel


@kernel
def embedding(weight: Array, ids: Array) -> Result:
    """y = weight[ids].   dweight[v] = Σ of g over all places where id v stands

    weight: (V, C) float, ids: (...) integer. An id outside 0 … V−1 is an error: NumPy would wrap a negative one.

    Derivation:
        Count the places of ids through, n = 1 … N, and let O = onehot(ids), (N, V): O_nv = 1 where ids_n = v, else 0.
        y_nc = Σ_v O_nv weight_vc,  y = O weight: (N, V)(V, C)
        dweight_vc = Σ_n g_nc ∂y_nc/∂weight_vc = Σ_n O_nv g_nc,  dweight = Oᵀ g: (V, N)(N, C)
        Row v of Oᵀ g is the sum of those g_n that have ids_n = v; O itself is never made. Sorted by id, these g_n are
        neighbours, and `reduceat` adds up each run from its start to the next. An id that does not occur keeps 0.
    """
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding: ids must be integers, not {ids.dtype}")
    if ids.size and not (ids.min() >= 0 and ids.max() < len(weight)):
        bad = ids.min() if ids.min() < 0 else ids.max()
        raise IndexError(f"embedding: id {bad} is outside the vocabulary: ids must be 0 … {len(weight) - 1}")
    shape = weight.shape

    def vjp(g: Array) -> tuple[Array, None]:
        dweight = np.zeros(shape, dtype=g.dtype)
        if ids.size:
            # Sorting puts equal ids together; each run is summed at once, in order of position.
            flat = ids.reshape(-1)
            order = np.argsort(flat, kind="stable")
            found, starts = np.unique(flat[order], return_index=True)
            dweight[found] = np.add.reduceat(g.reshape(-1, *shape[1:])[order], starts, axis=0)
        return dweight, None

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
    xhat = x - np.mean(x, axis=-1, keepdims=True)
    rstd = 1 / np.sqrt(np.mean(xhat * xhat, axis=-1, keepdims=True) + eps)
    xhat *= rstd
    y = xhat * (1.0 if weight is None else weight)
    has_bias = bias is not None
    if bias is not None:
        y = add_to(y, bias)

    def vjp(g: Array) -> tuple[Array, ...]:
        gw = g if weight is None else g * weight
        dx = gw - np.mean(gw, axis=-1, keepdims=True)
        dx -= xhat * np.mean(gw * xhat, axis=-1, keepdims=True)
        dx *= rstd
        grads = [dx]
        if weight is not None:
            grads.append(np.sum((g * xhat).reshape(-1, n), axis=0))
        if has_bias:
            grads.append(np.sum(g.reshape(-1, n), axis=0))
        return tuple(grads)

    return y, vjp


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


@kernel
def cross_entropy(
    logits: Array,
    targets: Array,
    *,
    ignore_index: int = -100,
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
    if targets.dtype.kind not in "iu":
        raise TypeError(f"cross_entropy: targets must be integers, not {targets.dtype}")
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'cross_entropy: reduction must be "mean", "sum" or "none", not {reduction!r}')
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"cross_entropy: label_smoothing must lie in [0, 1], not {label_smoothing}")
    rows, V = logits.shape
    counted = targets != ignore_index
    outside = counted & ((targets < 0) | (targets >= V))
    if outside.any():
        raise IndexError(
            f"cross_entropy: target {targets[outside][0]} is outside the vocabulary: targets must be 0 … {V - 1} "
            f"or ignore_index ({ignore_index})"
        )
    n = int(np.count_nonzero(counted))
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
