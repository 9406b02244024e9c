"""Causal attention: every position looks at itself and at the positions before it, never ahead.

Shapes: B batch, H heads, T time, D head size, C = H·D channels.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from tinygrad_llm.kernels.contract import (
    Array,
    Result,
    exp_is_safe,
    kernel,
    row_sums,
)


@kernel
def causal_attention(
    q: Array, k: Array, v: Array, keep: Array | None = None, *, p: float = 0.0, block: int = 64, recompute: bool = False
) -> Result:
    """y = A' v,  A' = dropout(A),  A = softmax(S),  S = mask(q kᵀ / √D)
    dv = A'ᵀ g,  dq = dS k / √D,  dk = dSᵀ q / √D,  with dS = A · (dA − Σ g·y),  dA = M · (g vᵀ),  M the dropout mask

    q: (..., Tq, D), k and v: (..., Tk, D) with Tq ≤ Tk; the queries are the last Tq of Tk positions, so that one new
    query may look at a whole cache of keys. keep: boolean (..., Tq, Tk), the dropout mask of the weights, or None.
    block: so many queries are worked on at a time, against the keys up to the last of them, so that the half of S
    above the diagonal is never computed. recompute: backward makes A anew, instead of keeping (Tq, Tk) numbers.

    Source: Vaswani et al. 2017, arXiv:1706.03762, section 3.2; Dao et al. 2022, arXiv:2205.14135 (blocks, recomputing).

    Derivation:
        From the output back, for query i, key j, channel d, with dA = ∂L/∂A, dS = ∂L/∂S and so on. S, A, A' and
        M = keep / (1 − p) (all 1 without dropout) are (Tq, Tk), y and g are (Tq, D).
        y_id = Σ_j A'_ij v_jd                dv_jd  = Σ_i A'_ij g_id,  dv = A'ᵀ g: (Tk, Tq)(Tq, D)
                                             dA'_ij = Σ_d g_id v_jd,   dA' = g vᵀ: (Tq, D)(D, Tk)
        A'_ij = M_ij A_ij                    dA_ij  = M_ij dA'_ij
        A_ij = exp(S_ij) / Σ_l exp(S_il)     dS_ij  = A_ij (dA_ij − Σ_l dA_il A_il), as in `softmax`
        S_ij = Σ_d q_id k_jd / √D            dq_id  = Σ_j dS_ij k_jd / √D,  dq = dS k / √D: (Tq, Tk)(Tk, D)
                                             dk_jd  = Σ_i dS_ij q_id / √D,  dk = dSᵀ q / √D: (Tk, Tq)(Tq, D)
        The sum needs no (Tq, Tk) numbers: Σ_l dA_il A_il = Σ_l M_il A_il Σ_d g_id v_ld = Σ_d g_id y_id.
        Query i stands at position Tk − Tq + i. For each later key j, S_ij = −∞ and A_ij = exp(−∞) = 0 exactly, and so
        are A'_ij and dS_ij: row i adds exactly 0 to dv_j and dk_j, and k_j exactly 0 to dq_i.
        The code keeps E_ij = exp(S_ij − top_i), where any top_i gives the same A, and n_i = Σ_j E_ij, so A = E / n. It
        divides y and g by n, since they are smaller than E.
    """
    y = np.empty((*q.shape[:-1], v.shape[-1]), np.result_type(q, k, v))
    backward = _attend(q, k, v, keep, p, block, recompute, y)

    def vjp(g: Array) -> tuple[Array | None, ...]:
        grads = [np.empty(x.shape, np.result_type(g, y)) for x in (q, k, v)]
        backward(g, *grads)
        return (*grads,) if keep is None else (*grads, None)

    return y, vjp


def _attend(
    q: Array, k: Array, v: Array, keep: Array | None, p: float, block: int, recompute: bool, y: Array
) -> Callable[[Array, Array, Array, Array], None]:
    """Fill y; return what fills dq, dk and dv from g. All four may be views of something larger."""
    Tq, Tk = q.shape[-2], k.shape[-2]
    if Tq > Tk or k.shape != v.shape or q.shape[:-2] != k.shape[:-2] or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"causal_attention: q {q.shape} must be (..., Tq, D), k {k.shape} and v {v.shape} (..., Tk, D), Tq ≤ Tk"
        )
    if block < 1:
        raise ValueError(f"causal_attention: block must be ≥ 1, not {block}")
    scale = 1 / math.sqrt(q.shape[-1])
    drop = 1 / (1 - p) if p < 1 else 0.0
    kept: list[tuple[Array | None, Array, Array]] = []  # E, top and n of each block

    def blocks() -> Iterator[tuple[slice, slice]]:
        """Some queries, and all keys that the last of them sees."""
        for start in range(0, Tq, block):
            stop = min(start + block, Tq)
            yield slice(start, stop), slice(0, Tk - Tq + stop)

    def exponentials(rows: slice, seen: slice, top: Array | None = None) -> tuple[Array, Array]:
        """E = exp(S − top), and top: the maximum of each row, or 0 where all scores are small."""
        E: Array = (q[..., rows, :] * scale) @ k[..., seen, :].swapaxes(-1, -2)
        if top is None and exp_is_safe(E):
            top = np.zeros(())
        n = rows.stop - rows.start
        if n > 1:  # masked after scaling, because −inf times a complex number is NaN
            np.copyto(E[..., -n:], -np.inf, where=_later(n))
        if top is None:
            top = np.max(E.real, axis=-1, keepdims=True)
        if top.ndim:
            E -= top
        return np.exp(E, out=E), top

    def dropped(A: Array, rows: slice, seen: slice) -> Array:
        return A if keep is None else A * drop * keep[..., rows, seen]

    for rows, seen in blocks():
        E, top = exponentials(rows, seen)
        n = row_sums(E)
        out = np.matmul(dropped(E, rows, seen), v[..., seen, :], out=y[..., rows, :])
        out /= n
        kept.append((None if recompute else E, top, n))

    def backward(g: Array, dq: Array, dk: Array, dv: Array) -> None:
        if not Tq:
            dk[...] = dv[...] = 0
        # The last block sees all keys: it fills dk and dv, and those before it are added.
        for (rows, seen), (E, top, n) in zip(reversed(list(blocks())), reversed(kept), strict=True):
            if E is None:
                E, _ = exponentials(rows, seen, top)
            gn = g[..., rows, :] / n
            dA = dropped(gn @ v[..., seen, :].swapaxes(-1, -2), rows, seen)
            dA -= np.einsum("...d,...d->...", gn, y[..., rows, :])[..., None]
            dS = np.multiply(dA, E, out=dA)
            np.matmul(dS, k[..., seen, :], out=dq[..., rows, :])
            dq[..., rows, :] *= scale
            for total, left, right in ((dk, dS, q[..., rows, :] * scale), (dv, dropped(E, rows, seen), gn)):
                if rows.stop == Tq:
                    np.matmul(left.swapaxes(-1, -2), right, out=total)
                else:
                    total[..., seen, :] += left.swapaxes(-1, -2) @ right

    return backward


@lru_cache(maxsize=64)
def _later(n: int) -> Array:
    """True where the key stands after the query, for n queries and their own n positions."""
    later = ~np.tri(n, dtype=bool)
    later.flags.writeable = False
    return later


@kernel
def causal_self_attention(
    qkv: Array, keep: Array | None = None, *, n_head: int, p: float = 0.0, block: int = 64, recompute: bool = False
) -> Result:
    """y = causal_attention(q, k, v) of each of H heads, side by side.   dqkv = every head's dq, dk and dv, side by side

    The queries, keys and values themselves lie so in qkv, as one linear layer makes them.

    qkv: (B, T, 3C) → y: (B, T, C). keep: boolean (B, H, T, T) or None. block, recompute: as in `causal_attention`.

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

    def thirds(x: Array) -> tuple[Array, Array, Array]:
        """(B, T, 3C) → q, k and v, or their gradients, (B, H, T, D)."""
        return heads(x[..., :C]), heads(x[..., C : 2 * C]), heads(x[..., 2 * C :])

    y = np.empty((B, T, C), qkv.dtype)
    backward = _attend(*thirds(qkv), keep, p, block, recompute, heads(y))

    def vjp(g: Array) -> tuple[Array | None, ...]:
        dqkv = np.empty((B, T, C3), np.result_type(g, qkv))
        backward(heads(g), *thirds(dqkv))
        return (dqkv,) if keep is None else (dqkv, None)

    return y, vjp
