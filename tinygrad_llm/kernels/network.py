"""The fused operations of a neural network: each could be composed of simpler kernels, and is faster whole.

The composed forms are the oracles in tests/kernels/test_fused.py: same values and gradients to 1e-12.
"""

import numpy as np

from tinygrad_llm.kernels.table import Array, Result, add_to, kernel


@kernel
def embedding(weight: Array, ids: Array) -> Result:
    """y = weight[ids].   dweight[v] = Σ of g over all places where id v stands

    weight: (V, C) float, ids: (...) integer. An id outside 0 … V−1 is an error: NumPy would wrap a negative one.
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

    With g' = g · weight, three paths lead to x: through x itself, through the mean, and through the variance:
        dx = rstd · (g' − mean(g') − x̂ · mean(g' · x̂)),   dweight = Σ g · x̂,   dbias = Σ g   over all rows.
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
    """
    scale = 1 / (1 - p) if p < 1 else 0.0

    def vjp(g: Array) -> tuple[Array, None]:
        return np.where(keep, g * scale, 0), None

    return np.where(keep, x * scale, 0), vjp


@kernel
def cross_entropy(logits: Array, targets: Array, *, ignore_index: int = -100, reduction: str = "mean") -> Result:
    """loss_i = −ln softmax(logits_i)[target_i].   dlogits_i = g · (softmax(logits_i) − onehot(target_i)) / n

    The logarithm and the exponential cancel: with loss_i = ln Σ eˡ − l_target, the first term differentiates to the
    softmax and the second to −1 at the target. Rows whose target is ignore_index count for nothing.

    logits: (N, V), targets: (N,) integer. reduction: "mean" over the n rows counted, "sum", or "none" (a loss a row).
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
    picked = e[place]
    np.exp(e, out=e)
    total = np.sum(e, axis=-1)
    losses = np.where(counted, np.log(total) - picked, 0)

    def vjp(g: Array) -> tuple[Array, None]:
        share = np.where(counted, g / n if reduction == "mean" else g, 0)
        dlogits = e * (share / total)[:, None]  # the softmax is e / total: never made by itself, a pass is saved
        dlogits[place] -= share
        return dlogits, None

    if reduction == "none":
        return losses, vjp
    return np.sum(losses) / (n if reduction == "mean" else 1), vjp
