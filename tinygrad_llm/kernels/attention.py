"""Attention in its plain form: any mask, any numbers of queries and keys.

Bidirectional, causal, padded and cross attention are this kernel with different masks. The faster kernels for causal
attention alone are in `fused.py`.
"""

import math

import numpy as np

from tinygrad_llm.kernels.contract import Array, Result, alike, analytic, kernel, row_sums, unbroadcast


@kernel
@analytic
def attention(
    q: Array, k: Array, v: Array, mask: Array | None = None, keep: Array | None = None, *, p: float = 0.0
) -> Result:
    """y = A' v,  A' = dropout(A),  A = softmax(S),  S = q kᵀ / √D, masked
    dv = A'ᵀ g,  dmask = dS,  dq = dS k / √D,  dk = dSᵀ q / √D,  with dS = A · (dA − Σ dA·A),  dA = M · (g vᵀ)

    q: (..., Tq, D), k: (..., Tk, D), v: (..., Tk, Dv) → y: (..., Tq, Dv); the leading axes broadcast.
    mask: broadcasts to the scores S, (..., Tq, Tk). Boolean: True where the query may attend to the key. Float: it is
    added to S, and has a gradient. A query that may attend to no key gets y = 0, and sends back gradients of 0.
    keep: boolean, shape of S, the dropout mask of the weights A, which was drawn with probability p of False.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2; torch.nn.functional.scaled_dot_product_attention.

    Derivation:
        From the output back, for query i, key j, channel d, with dA = ∂L/∂A, dS = ∂L/∂S and so on. S, A, A' and
        M = keep / (1 − p) (all 1 without dropout) are (Tq, Tk), y and g are (Tq, Dv).
        y_id = Σ_j A'_ij v_jd                dv_jd  = Σ_i A'_ij g_id,  dv = A'ᵀ g: (Tk, Tq)(Tq, Dv)
                                             dA'_ij = Σ_d g_id v_jd,   dA' = g vᵀ: (Tq, Dv)(Dv, Tk)
        A'_ij = M_ij A_ij                    dA_ij  = M_ij dA'_ij
        A_ij = exp(S_ij) / Σ_l exp(S_il)     dS_ij  = A_ij (dA_ij − Σ_l dA_il A_il), as in `softmax`
        S_ij = Σ_d q_id k_jd / √D + mask_ij  dq_id  = Σ_j dS_ij k_jd / √D,  dq = dS k / √D: (Tq, Tk)(Tk, D)
                                             dk_jd  = Σ_i dS_ij q_id / √D,  dk = dSᵀ q / √D: (Tk, Tq)(Tq, D)
                                             dmask_ij = dS_ij, summed over the axes along which the mask broadcast
        A boolean mask adds 0 where it is True and −∞ elsewhere, and has no gradient. At S_ij = −∞, A_ij = exp(−∞) = 0,
        and so are A'_ij and dS_ij: query i and key j exchange nothing, neither forward nor backward.
        A row that is −∞ throughout would be A_ij = 0 / 0. The code sets A_ij = 0, as PyTorch does. Then y_i = 0, and
        dS_ij = 0: the row adds exactly 0 to every gradient.
    """
    q, k, v = alike(q, k, v)
    _check_shapes(q, k, v)
    scale = 1 / math.sqrt(q.shape[-1])
    drop = 1 / (1 - p) if p < 1 else 0.0

    # The scores say how well each query fits each key.
    scores = (q * scale) @ k.swapaxes(-1, -2)
    if mask is not None:
        _check_mask(mask, scores)
        scores = np.where(mask, scores, -np.inf) if mask.dtype == bool else scores + mask

    # The softmax over the keys: shifted by the largest score, where there is one, so that no exponential overflows.
    top = np.max(scores.real, axis=-1, keepdims=True, initial=-np.inf)
    probs = np.exp(scores - np.where(top == -np.inf, 0, top))
    total = row_sums(probs)
    probs /= np.where(total == 0, 1, total)

    def dropped(x: Array) -> Array:
        return x if keep is None else np.where(keep, x * drop, 0)

    # Each output is the mean of the values, weighted by the probabilities.
    y = dropped(probs) @ v

    def vjp(g: Array) -> tuple[Array | None, ...]:
        # y = A' v and A' = M · A
        dv = dropped(probs).swapaxes(-1, -2) @ g
        dprobs = dropped(g @ v.swapaxes(-1, -2))
        # A = softmax(S)
        dscores = dprobs * probs
        dscores -= probs * row_sums(dscores)
        # S = q kᵀ / √D + mask
        dq = dscores @ k * scale
        dk = dscores.swapaxes(-1, -2) @ q * scale
        grads: list[Array | None] = [unbroadcast(dx, x.shape) for dx, x in ((dq, q), (dk, k), (dv, v))]
        if mask is not None:
            grads.append(None if mask.dtype == bool else unbroadcast(dscores, mask.shape))
        return (*grads,) if keep is None else (*grads, None)

    return y, vjp


def _check_shapes(q: Array, k: Array, v: Array) -> None:
    if min(q.ndim, k.ndim, v.ndim) < 2 or q.shape[-1] != k.shape[-1] or k.shape[-2] != v.shape[-2]:
        raise ValueError(
            f"attention: got q {q.shape}, k {k.shape} and v {v.shape}, "
            "which must be (..., Tq, D), (..., Tk, D) and (..., Tk, Dv)"
        )


def _check_mask(mask: Array, scores: Array) -> None:
    if mask.dtype.kind not in "bfc":
        raise TypeError(f"attention: got a mask of {mask.dtype}: give a boolean one (True = may attend) or a float one")
    sizes = zip(reversed(mask.shape), reversed(scores.shape), strict=False)
    if mask.ndim > scores.ndim or any(n not in (1, wanted) for n, wanted in sizes):
        raise ValueError(f"attention: got a mask {mask.shape}, which must broadcast to {scores.shape}")
