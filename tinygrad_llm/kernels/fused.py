"""Fused operations: each equals a composition of simpler kernels, and takes less time and memory.

The compositions are the oracles in tests/kernels/test_fused.py: same values and gradients to 1e-12.

Shapes: B batch, H heads, T time, D head size, C = H·D channels, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache

import numpy as np

from tinygrad_llm.kernels.contract import Array, Result, alike, column_sums, exp_is_safe, kernel, row_sums
from tinygrad_llm.kernels.losses import IGNORE_INDEX, check_targets


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
        The formulas of `attention`, which derives them, with a mask that is True where key j is not later than query
        i: j ≤ Tk − Tq + i. A later key has A_ij = exp(−∞) = 0 exactly, and so are A'_ij and dS_ij: row i adds exactly
        0 to dv_j and dk_j, and k_j exactly 0 to dq_i. So the code leaves the later keys out.
        With g = ∂L/∂y, the sum in dS needs no (Tq, Tk) numbers:
        Σ_l dA_il A_il = Σ_l M_il A_il Σ_d g_id v_ld = Σ_d g_id y_id.
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
    counted, n = check_targets("linear_cross_entropy", targets, V, ignore_index, label_smoothing)
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
