"""Causal attention: every position looks at itself and at the positions before it, never ahead.

Shapes: B batch, H heads, T time, D head size, C = H·D channels.
"""

import math

import numpy as np

from tinygrad_llm.kernels.table import Array, Result, kernel


@kernel
def causal_attention(q: Array, k: Array, v: Array, keep: Array | None = None, *, p: float = 0.0) -> Result:
    """y = A' v,  A' = dropout(A),  A = softmax(S),  S = mask(q kᵀ / √D)
    dv = A'ᵀ g,  dq = dS k / √D,  dk = dSᵀ q / √D,  with dS = A · (dA − Σ dA·A),  dA = M · (g vᵀ),  M the dropout mask

    q: (..., Tq, D), k and v: (..., Tk, D) with Tq ≤ Tk; the queries are the last Tq of Tk positions, so that one new
    query may look at a whole cache of keys. keep: boolean (..., Tq, Tk), the dropout mask of the weights, or None.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2.

    Derivation:
        From the output back, for query i, key j, channel d, with dA = ∂L/∂A, dS = ∂L/∂S and so on. S, A, A' and
        M = keep / (1 − p) (all 1 without dropout) are (Tq, Tk), y and g are (Tq, D).
        y_id = Σ_j A'_ij v_jd                dv_jd  = Σ_i A'_ij g_id,  dv = A'ᵀ g: (Tk, Tq)(Tq, D)
                                             dA'_ij = Σ_d g_id v_jd,   dA' = g vᵀ: (Tq, D)(D, Tk)
        A'_ij = M_ij A_ij                    dA_ij  = M_ij dA'_ij
        A_ij = exp(S_ij) / Σ_l exp(S_il)     dS_ij  = A_ij (dA_ij − Σ_l dA_il A_il), as in `softmax`
        S_ij = Σ_d q_id k_jd / √D            dq_id  = Σ_j dS_ij k_jd / √D,  dq = dS k / √D: (Tq, Tk)(Tk, D)
                                             dk_jd  = Σ_i dS_ij q_id / √D,  dk = dSᵀ q / √D: (Tk, Tq)(Tq, D)
        Query i stands at position Tk − Tq + i. For each later key j, S_ij = −∞ and A_ij = exp(−∞) = 0 exactly, and so
        are A'_ij and dS_ij: row i adds exactly 0 to dv_j and dk_j, and k_j exactly 0 to dq_i.
    """
    Tq, Tk = q.shape[-2], k.shape[-2]
    if Tq > Tk or k.shape != v.shape or q.shape[:-2] != k.shape[:-2] or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"causal_attention: q {q.shape} must be (..., Tq, D), k {k.shape} and v {v.shape} (..., Tk, D), Tq ≤ Tk"
        )
    scale = 1 / math.sqrt(q.shape[-1])
    drop = 1 / (1 - p) if p < 1 else 0.0
    A = (q * scale) @ k.swapaxes(-1, -2)
    if Tq > 1:
        # Masked after scaling, because −inf times a complex number is NaN.
        A = np.where(np.tri(Tq, Tk, Tk - Tq, dtype=bool), A, -np.inf)
    A -= np.max(A.real, axis=-1, keepdims=True)
    np.exp(A, out=A)
    A /= np.sum(A, axis=-1, keepdims=True)
    y = (A if keep is None else A * drop * keep) @ v

    def vjp(g: Array) -> tuple[Array | None, ...]:
        dv = (A if keep is None else A * drop * keep).swapaxes(-1, -2) @ g
        dA = g @ v.swapaxes(-1, -2)
        if keep is not None:
            dA = dA * drop * keep
        dA *= A
        dS = dA - A * np.sum(dA, axis=-1, keepdims=True)
        dS *= scale
        grads = dS @ k, dS.swapaxes(-1, -2) @ q, dv
        return grads if keep is None else (*grads, None)

    return y, vjp


@kernel
def causal_self_attention(qkv: Array, keep: Array | None = None, *, n_head: int, p: float = 0.0) -> Result:
    """y = causal_attention(q, k, v) of each of H heads, side by side.   dqkv = every head's dq, dk and dv, side by side

    The queries, keys and values themselves lie so in qkv, as one linear layer makes them.

    qkv: (B, T, 3C) → y: (B, T, C). keep: boolean (B, H, T, T) or None.

    Derivation:
        D = C / H.   q[b, h, t, d] = qkv[b, t, h·D + d]; the same with C + h·D + d for k and with 2C + h·D + d for v;
        y[b, t, h·D + d] = head output[b, h, t, d], so g, split into heads in the same way, goes into their vjp.
        Each element of qkv is one element of q, k or v: the split is a permutation P, ⟨(dq, dk, dv), P qkv⟩ =
        ⟨P⁻¹ (dq, dk, dv), qkv⟩. So dqkv[b, t, h·D + d] = dq[b, h, t, d], dk and dv likewise in their own thirds: every
        place is written once, and nothing is added up.
    """
    B, T, C3 = qkv.shape
    C = C3 // 3
    if C3 % 3 or C % n_head:
        raise ValueError(f"causal_self_attention: {C3} channels are not 3 × {n_head} heads of equal size")

    def heads(x: Array) -> Array:
        """(B, T, C) → (B, H, T, D), without copying."""
        return x.reshape(B, T, n_head, C // n_head).swapaxes(1, 2)

    q, k, v = (heads(qkv[..., i * C : (i + 1) * C]) for i in range(3))
    y, attention_vjp = causal_attention(q, k, v, keep, p=p)

    def vjp(g: Array) -> tuple[Array | None, ...]:
        dqkv = np.empty((B, T, C3), dtype=g.dtype)
        for i, d in enumerate(attention_vjp(heads(g))):
            if d is not None:
                dqkv[..., i * C : (i + 1) * C] = d.swapaxes(1, 2).reshape(B, T, C)
        return (dqkv,) if keep is None else (dqkv, None)

    return y.swapaxes(1, 2).reshape(B, T, C), vjp
