"""Fused operations: each equals a composition of simpler kernels, and takes less time and memory.

The compositions are the oracles in tests/kernels/test_fused.py: same values and gradients to 1e-12.

Shapes: B batch, H heads, T time, D head size, C = H·D channels, V vocabulary.
"""

import math
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from tinygrad_llm.kernels.contract import (
    Array,
    Map,
    Result,
    alike,
    analytic,
    column_sums,
    exp_is_safe,
    kernel,
    row_sums,
)
from tinygrad_llm.kernels.losses import IGNORE_INDEX, check_targets

IN_CACHE = 1 << 17  # scores: half a megabyte in float32, so that the second-level cache holds them and their gradient


@kernel
@analytic
def causal_attention(
    q: Array,
    k: Array,
    v: Array,
    keep: Array | None = None,
    *,
    p: float = 0.0,
    block: int = 64,
    part: int = IN_CACHE,
    recompute: bool = False,
    map: Map = map,
) -> Result:
    """y = A' v,  A' = dropout(A),  A = softmax(S),  S = mask(q kᵀ / √D)
    dv = A'ᵀ g,  dq = dS k / √D,  dk = dSᵀ q / √D,  with dS = A · (dA − Σ g·y),  dA = M · (g vᵀ),  M the dropout mask

    q: (..., Tq, D), k and v: (..., Tk, D) → y: (..., Tq, D). Tq ≤ Tk: the queries are the last Tq of Tk positions, so
    that one new query may attend to a whole cache of keys. keep: boolean (..., Tq, Tk), the dropout mask of A.
    block: the number of queries that are computed at a time, with the keys up to the last of them. So the half of S
    above the diagonal is never computed. part: rows of the batch, or heads, are taken together while a block has at
    most so many scores. recompute: compute A again in backward, instead of keeping (Tq, Tk) numbers. map: calls a
    function for each part.

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
    q, k, v = alike(q, k, v)
    y = np.empty((*q.shape[:-1], v.shape[-1]), np.result_type(q, k, v))
    backward = _attend(q, k, v, keep, p, block, part, recompute, map, y)

    def vjp(g: Array) -> tuple[Array | None, ...]:
        grads = [np.empty(x.shape, np.result_type(g, y)) for x in (q, k, v)]
        backward(g, *grads)
        return (*grads,) if keep is None else (*grads, None)

    return y, vjp


def _attend(
    q: Array,
    k: Array,
    v: Array,
    keep: Array | None,
    p: float,
    block: int,
    part: int,
    recompute: bool,
    map: Map,
    y: Array,
) -> Callable[[Array, Array, Array, Array], None]:
    """Fill y, and return the function that fills dq, dk and dv, given g. All four may be views of larger arrays."""
    Tq, Tk = q.shape[-2], k.shape[-2]
    if Tq > Tk or k.shape != v.shape or q.shape[:-2] != k.shape[:-2] or q.shape[-1] != k.shape[-1]:
        raise ValueError(
            f"causal_attention: got q {q.shape}, k {k.shape} and v {v.shape}, "
            "which must be (..., Tq, D), (..., Tk, D) and (..., Tk, D) with Tq ≤ Tk"
        )
    if block < 1:
        raise ValueError(f"causal_attention: got block {block}, which must be ≥ 1")
    parts = list(_parts(q, k, block, part)) if keep is None or keep.shape[:-2] == q.shape[:-2] else [()]

    def forward_of(i: Any) -> Callable[[Array, Array, Array, Array], None]:
        return _attend_part(q[i], k[i], v[i], None if keep is None else keep[i], p, block, recompute, y[i])

    backwards = list(zip(parts, map(forward_of, parts), strict=True))

    def backward(g: Array, dq: Array, dk: Array, dv: Array) -> None:
        list(map(lambda part: part[1](*(x[part[0]] for x in (g, dq, dk, dv))), backwards))

    return backward


def _parts(q: Array, k: Array, block: int, part: int) -> Iterator[tuple[Any, ...]]:
    """Indices that cut the leading axes, batch and heads, so that the scores of a block of a part stay in the cache.

    A block's scores are read and written about ten times, forward and backward.
    """
    if q.ndim == 2 or not len(q):
        yield ()
        return
    scores = math.prod(q.shape[1:-2]) * min(block, q.shape[-2]) * k.shape[-2]  # of one index of the first axis
    many = part // max(1, scores)
    if many:
        many = math.ceil(len(q) / math.ceil(len(q) / many))  # parts of about the same size
        yield from ((slice(start, start + many),) for start in range(0, len(q), many))
    else:
        yield from ((i, *rest) for i in range(len(q)) for rest in _parts(q[i], k[i], block, part))


def _attend_part(
    q: Array, k: Array, v: Array, keep: Array | None, p: float, block: int, recompute: bool, y: Array
) -> Callable[[Array, Array, Array, Array], None]:
    """`_attend` for some rows of the batch, or some heads of a row."""
    Tq, Tk = q.shape[-2], k.shape[-2]
    scale = 1 / math.sqrt(q.shape[-1])
    drop = 1 / (1 - p) if p < 1 else 0.0
    kept: list[tuple[Array | None, Array, Array]] = []  # E, top and n of each block

    def blocks() -> Iterator[tuple[slice, slice]]:
        """Some queries, and all the keys that the last of them may attend to."""
        for start in range(0, Tq, block):
            stop = min(start + block, Tq)
            yield slice(start, stop), slice(0, Tk - Tq + stop)

    def exponentials(rows: slice, seen: slice, top: Array | None = None) -> tuple[Array, Array]:
        """E = exp(S − top), and top: the maximum of each row, or 0 where all scores are small."""
        E: Array = (q[..., rows, :] * scale) @ k[..., seen, :].swapaxes(-1, -2)
        n = rows.stop - rows.start
        if top is None and exp_is_safe(E):
            top = np.zeros(())
        # The block's own keys are the only ones that may be later than one of its queries.
        if top is not None and not top.ndim:
            # Without a shift, their exponentials are finite too: a product with 0 is faster than a masked copy of −∞.
            np.exp(E, out=E)
            if n > 1:
                E[..., -n:] *= _not_later(n, E.dtype)
            return E, top
        if n > 1:  # −∞ after scaling, because −∞ times a complex number is NaN
            np.copyto(E[..., -n:], -np.inf, where=~_not_later(n, np.dtype(bool)))
        if top is None:
            top = np.max(E.real, axis=-1, keepdims=True)
        E -= top
        return np.exp(E, out=E), top

    def dropped(weights: Array, rows: slice, seen: slice) -> Array:
        return weights if keep is None else weights * drop * keep[..., rows, seen]

    for rows, seen in blocks():
        # y = A' v with A' = dropout(E) / n, divided by n last, because y is smaller than E.
        E, top = exponentials(rows, seen)
        n = row_sums(E)
        out = np.matmul(dropped(E, rows, seen), v[..., seen, :], out=y[..., rows, :])
        out /= n
        kept.append((None if recompute else E, top, n))

    def add_product(total: Array, seen: slice, left: Array, right: Array) -> None:
        if seen.stop == Tk:  # the first of them
            np.matmul(left.swapaxes(-1, -2), right, out=total)
        else:
            total[..., seen, :] += left.swapaxes(-1, -2) @ right

    def backward(g: Array, dq: Array, dk: Array, dv: Array) -> None:
        if not Tq:
            dk[...] = dv[...] = 0
        # In reverse: the last block attends to all keys, so it fills dk and dv, and the others are added to them. They
        # are added in memory without gaps, which is faster even though it is copied in the end.
        own_dk, own_dv = (dk, dv) if len(kept) == 1 else (np.empty(x.shape, x.dtype) for x in (dk, dv))
        for (rows, seen), (E, top, n) in zip(reversed(list(blocks())), reversed(kept), strict=True):
            if E is None:
                E, _ = exponentials(rows, seen, top)
            # dS = E · (dA − Σ g·y) with g / n for g, since A = E / n.
            gn = g[..., rows, :] / n
            dA = dropped(gn @ v[..., seen, :].swapaxes(-1, -2), rows, seen)
            dA -= np.einsum("...d,...d->...", gn, y[..., rows, :])[..., None]
            dS = np.multiply(dA, E, out=dA)
            # dq = dS k / √D, of these queries alone.
            np.matmul(dS, k[..., seen, :], out=dq[..., rows, :])
            dq[..., rows, :] *= scale
            # dk = dSᵀ q / √D and dv = A'ᵀ g, to which each query of each block contributes.
            add_product(own_dk, seen, dS, q[..., rows, :] * scale)
            add_product(own_dv, seen, dropped(E, rows, seen), gn)
            del E, dA, dS  # their memory is free before the next block takes its own
        if len(kept) > 1:
            dk[...], dv[...] = own_dk, own_dv

    return backward


@lru_cache(maxsize=64)
def _not_later(n: int, dtype: np.dtype[Any]) -> Array:
    """1 where the key is not later than the query, else 0, for the n queries and keys of one block."""
    earlier = np.tri(n, dtype=dtype)
    earlier.flags.writeable = False
    return earlier


@kernel
@analytic
def causal_self_attention(
    qkv: Array,
    keep: Array | None = None,
    *,
    n_head: int,
    p: float = 0.0,
    block: int = 64,
    part: int = IN_CACHE,
    recompute: bool = False,
    map: Map = map,
) -> Result:
    """y = causal_attention(q, k, v) of each of H heads, side by side.   dqkv = every head's dq, dk and dv, side by side

    qkv: (B, T, 3C), the queries, keys and values of all heads side by side, as one linear layer computes them →
    y: (B, T, C). keep: boolean (B, H, T, T) or None. block, part, recompute, map: as in `causal_attention`.

    Derivation:
        D = C / H.   q[b, h, t, d] = qkv[b, t, h·D + d]; the same with C + h·D + d for k and with 2C + h·D + d for v;
        y[b, t, h·D + d] = head output[b, h, t, d], so g, split into heads in the same way, goes into their vjp.
        Each element of qkv is one element of q, k or v: the split is a permutation P, ⟨(dq, dk, dv), P qkv⟩ =
        ⟨P⁻¹ (dq, dk, dv), qkv⟩. So dqkv[b, t, h·D + d] = dq[b, h, t, d], dk and dv likewise in their own thirds. Each
        element is written once, and no two are added.
    """
    B, T, C3 = qkv.shape
    C = C3 // 3
    if C3 % 3 or C % n_head:
        raise ValueError(f"causal_self_attention: got {C3} channels, which must be 3 × {n_head} heads of equal size")

    def heads(x: Array) -> Array:
        """(B, T, C) → (B, H, T, D), without copying."""
        return x.reshape(B, T, n_head, C // n_head).swapaxes(1, 2)

    def thirds(x: Array) -> tuple[Array, Array, Array]:
        """(B, T, 3C) → q, k and v, or their gradients, (B, H, T, D)."""
        return heads(x[..., :C]), heads(x[..., C : 2 * C]), heads(x[..., 2 * C :])

    y = np.empty((B, T, C), qkv.dtype)
    backward = _attend(*thirds(qkv), keep, p, block, part, recompute, map, heads(y))

    def vjp(g: Array) -> tuple[Array | None, ...]:
        dqkv = np.empty((B, T, C3), np.result_type(g, qkv))
        backward(heads(g), *thirds(dqkv))
        return (dqkv,) if keep is None else (dqkv, None)

    return y, vjp


@kernel
@analytic
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
    """loss = Σ cross_entropy(x Wᵀ, targets) / n,  W = weight: the output head of a language model and its loss at once
    dx = g · dlogits W,  dweight = g · dlogitsᵀ x,  dlogits = (p − (1 − s) · onehot(target) − s / V) / n

    Only some rows of the logits exist at a time, about `chunk` numbers, and none where the target does not count. Their
    part of the gradient is computed before the next rows are. So forward does all the work, and vjp only multiplies by
    g. Of these rows, the logits of `tile` ids at a time are computed, exponentiated and summed, while they are in the
    processor's cache.

    x: (N, C), weight: (V, C), targets: (N,) integer; rows with ignore_index do not count. n: `count`, or the number of
    rows that count. s: label_smoothing.

    Derivation:
        The chain rule through l = logits = x Wᵀ (as in `linear`) and the loss (as in `cross_entropy`). With any number
        shift_i, e_ik = exp(l_ik − shift_i), Z_i = Σ_k e_ik, t = target_i and w_ik = (1 − s) δ_kt + s / V:
        loss_i = ln Z_i + shift_i − Σ_k w_ik l_ik = ln Z_i + (shift_i − l_it) + s · (l_it − mean_k l_ik)
        dlogits_ik = (e_ik / Z_i − w_ik) / n = (e_ik − Z_i w_ik) · f_i,  f_i = 1 / (Z_i n), and 0 where i does not count
        dx_i = Σ_k dlogits_ik ∂logits_ik/∂x_i = Σ_k dlogits_ik W_k = f_i · (Σ_k e_ik W_k − Z_i Σ_k w_ik W_k)
        dweight_k = Σ_i dlogits_ik ∂logits_ik/∂W_k = Σ_i dlogits_ik x_i = Σ_i (e_ik − Z_i w_ik) · (f_i x_i)
        So f multiplies the (N, C) numbers of x and dx, and not the (N, V) of e. The shift is l_it, computed before all
        other logits: then loss_i is ln Z_i, and Z_i ≥ 1. Where other logits are so much larger that Z is out of range,
        the shift is the row's maximum instead.
    """
    if x.ndim != 2 or weight.ndim != 2 or x.shape[1] != weight.shape[1] or targets.shape != x.shape[:1]:
        raise ValueError(
            f"linear_cross_entropy: got x {x.shape}, weight {weight.shape} and targets {targets.shape}, "
            "which must be (N, C), (V, C) and (N,)"
        )
    x, weight = alike(x, weight)
    N, V, dtype = len(x), len(weight), np.result_type(x, weight)
    counted, n = check_targets("linear_cross_entropy", targets, V, ignore_index, label_smoothing)
    if n == 0 and count is None:
        raise ValueError(f"linear_cross_entropy: the mean over no targets: all are ignore_index ({ignore_index})")
    for name, number in (("count", count), ("chunk", chunk), ("tile", tile)):
        if number is not None and number < 1:
            raise ValueError(f"linear_cross_entropy: got {name} {number}, which must be ≥ 1")
    kept = None if n == N else np.flatnonzero(counted)  # the rows that count; None: all, which are not copied
    share = 1 / (count or n)
    mean_weight = column_sums(weight) / V if label_smoothing else None

    loss = np.zeros((), dtype)
    dx = (np.empty if kept is None else np.zeros)(x.shape, dtype) if needs[0] else None
    dweight = None
    parts = max(1, math.ceil(n * V / chunk))
    for i in range(parts):
        some = slice(n * i // parts, n * (i + 1) // parts)
        rows = some if kept is None else kept[some]
        part = x[rows], weight, targets[rows], share
        own_loss, own_dx, own_dweight = _head_and_loss(*part, mean_weight, label_smoothing, tile, needs)
        loss += own_loss
        if dx is not None:
            dx[rows] = own_dx
        if own_dweight is not None:
            dweight = own_dweight if dweight is None else np.add(dweight, own_dweight, out=dweight)
        del own_dx, own_dweight  # their memory is free before the next rows' logits take theirs

    def vjp(g: Array) -> tuple[Array | None, ...]:
        return *(d if d is None or g == 1 else d * g for d in (dx, dweight)), None

    return loss, vjp


def _head_and_loss(
    x: Array,
    weight: Array,
    ids: Array,
    share: float,
    mean_weight: Array | None,
    smoothing: float,
    tile: int,
    needs: tuple[bool, ...],
) -> tuple[Array, Array | None, Array | None]:
    """The sum of these rows' losses, times the share of each, and the gradients of it that are needed."""
    # Shift by the target's logit; by the largest where Z, its products or 1 / Z would leave the range.
    target_weight = weight[ids]
    shift = at_target = np.einsum("ic,ic->i", x, target_weight)[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        e, Z, eW = _exponentials(x, weight, shift, tile, needs[0])
    if not np.all(np.abs(Z) < math.sqrt(np.finfo(Z.dtype).max)):
        shift = np.max((x @ weight.T).real, axis=1, keepdims=True)
        e, Z, eW = _exponentials(x, weight, shift, tile, needs[0])

    # loss_i = ln Z_i + (shift_i − l_it) + s · (l_it − mean_k l_ik)
    losses = np.log(Z) + (shift - at_target)
    if mean_weight is not None:
        losses += smoothing * (at_target - (x @ mean_weight)[:, None])
    loss: Array = np.sum(losses * share)

    # dx_i = f_i · (Σ_k e_ik W_k − Z_i Σ_k w_ik W_k)
    f = share / Z
    dx = dweight = None
    if needs[0]:
        mean = target_weight if mean_weight is None else (1 - smoothing) * target_weight + smoothing * mean_weight
        dx = (eW - Z * mean) * f

    # dweight_k = Σ_i (e_ik − Z_i w_ik) · (f_i x_i)
    if needs[1]:
        e[np.arange(len(e)), ids] -= (1 - smoothing) * Z[:, 0]
        if smoothing:
            e -= smoothing / len(weight) * Z
        dweight = e.T @ (x * f)
    return loss, dx, dweight


def _exponentials(x: Array, weight: Array, shift: Array, tile: int, with_eW: bool) -> tuple[Array, Array, Array]:
    """e = exp(x Wᵀ − shift), its row sums Z, and e W, or zeros without it, from some ids' logits at a time."""
    V, dtype = len(weight), np.result_type(x, weight)
    e, Z, eW = np.empty((len(x), V), dtype), np.zeros((len(x), 1), dtype), np.zeros(x.shape, dtype)
    for start in range(0, V, tile):
        some = slice(start, start + tile)
        logits = np.matmul(x, weight[some].T, out=e[:, some])
        logits -= shift
        exps = np.exp(logits, out=logits)
        Z += row_sums(exps)
        if with_eW:
            eW += exps @ weight[some]
    return e, Z, eW
