"""Causal attention: every position looks at itself and at the positions before it, never ahead.

Shapes: B batch, H heads, T time, D head size, C = H·D channels.
"""

import math

import numpy as np

from tinygrad_llm.kernels.table import Array, Result, kernel


@kernel
def causal_attention(q: Array, k: Array, v: Array, keep: Array | None = None, *, p: float = 0.0) -> Result:
    """y = A' v,  A' = dropout(A),  A = softmax(mask(q kᵀ / √D))

    Going back, from the output to q, k and v:
        dv = A'ᵀ g,   dA' = g vᵀ,   dA = dropout mask · dA',
        dS = A · (dA − Σ dA·A)  (softmax),   dq = dS k / √D,   dk = dSᵀ q / √D.
    Where the mask is, A is 0, hence dS is 0: nothing ever flows from the future.

    q: (..., Tq, D), k and v: (..., Tk, D) with Tq ≤ Tk; the queries are the last Tq of Tk positions, so that one new
    query may look at a whole cache of keys. keep: boolean (..., Tq, Tk), the dropout mask of the weights, or None.
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
    """Causal attention of H heads on queries, keys and values that lie side by side, as one linear layer makes them.

    Splitting channels into heads only renames axes, and so does its reverse: the gradients of q, k and v are written
    into their own thirds of dqkv.

    qkv: (B, T, 3C) → y: (B, T, C). keep: boolean (B, H, T, T) or None.
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
