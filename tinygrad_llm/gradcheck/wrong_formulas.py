"""Wrong backward formulas, as people write them: a table of mistakes that the checker must catch (see `mutants.py`).

Each takes g, the kernel's inputs and its options, and returns gradients, at least one of which is wrong. It returns
None where the mistake is impossible, such as a matrix whose transpose would not fit. The kernel has the right formula.
"""

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from tinygrad_llm import kernels as K
from tinygrad_llm.kernels import Array, Kernel
from tinygrad_llm.kernels.contract import unbroadcast

Wrong: TypeAlias = Callable[..., tuple[Array | None, ...] | None]


# ---- broadcast inputs: the gradients of all copies must be added ----------------------------------------------------


def first(d: Array, shape: tuple[int, ...]) -> Array:
    """The gradient of the first copy, instead of the sum over all copies."""
    copy: Array = d[(0,) * (d.ndim - len(shape)) + tuple(slice(n) for n in shape)]
    return copy


def average(d: Array, shape: tuple[int, ...]) -> Array:
    return unbroadcast(d, shape) * (math.prod(shape) / d.size)


def copies(kernel: Kernel, collapse: Callable[[Array, tuple[int, ...]], Array]) -> Wrong:
    """The gradients of an elementwise kernel, with another `collapse` in place of `unbroadcast`."""

    def vjp(g: Array, *inputs: Array, **options: Any) -> tuple[Array | None, ...]:
        _, right = kernel(*np.broadcast_arrays(*inputs), **options)  # equal shapes: it has no copies to add
        return tuple(None if d is None else collapse(d, x.shape) for d, x in zip(right(g), inputs, strict=True))

    return vjp


def uncollected(kernel: Kernel) -> dict[str, Wrong]:
    return {"the first copy's gradient, not the sum": copies(kernel, first), "averaged": copies(kernel, average)}


def batches(collapse: Callable[[Array, tuple[int, ...]], Array]) -> Wrong:
    """The same for the batch axes of matmul."""

    def vjp(g: Array, a: Array, b: Array) -> tuple[Array | None, ...] | None:
        if a.ndim == 1 or b.ndim == 1:
            return None
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        _, right = K.matmul(*(np.broadcast_to(x, lead + x.shape[-2:]) for x in (a, b)))
        return tuple(None if d is None else collapse(d, x.shape) for d, x in zip(right(g), (a, b), strict=True))

    return vjp


# ---- elementwise ----------------------------------------------------------------------------------------------------


def slope(of: Callable[[Array], Array]) -> Wrong:
    """dx = g · of(x)."""
    return lambda g, x: (g * of(x),)


def slopes(of: Callable[[Array, Array], tuple[Array, Array]]) -> Wrong:
    """da = g · the first of of(a, b), db = g · the second; None for integers."""

    def vjp(g: Array, a: Array, b: Array, *, lower: bool = False) -> tuple[Array | None, ...]:
        pair = of(-a, -b) if lower else of(a, b.astype(a.dtype))
        return tuple(
            unbroadcast(g * d, x.shape) if x.dtype.kind == "f" else None for d, x in zip(pair, (a, b), strict=True)
        )

    return vjp


def power(dx: Callable[[Array, Array], Array], dn: Callable[[Array, Array], Array]) -> Wrong:
    def pair(x: Array, n: Array) -> tuple[Array, Array]:
        return dx(x, n), dn(np.abs(x), n)  # a negative x needs only dx

    return slopes(pair)


def gelu(c: float = math.sqrt(2 / math.pi), a: float = 0.044715, three: float = 3, second: float = 1) -> Wrong:
    def derivative(x: Array) -> Array:
        t = np.tanh(c * (x + a * x**3))
        d: Array = 0.5 * (1 + t) + second * 0.5 * x * (1 - t * t) * c * (1 + three * a * x * x)
        return d

    return slope(derivative)


def erf_slope(x: Array) -> Array:
    """The derivative of GELU's other form, x · Φ(x) with the normal distribution Φ."""
    distribution = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.flat], x.dtype).reshape(x.shape)
    return distribution + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def sigmoid(x: Array) -> Array:
    y: Array = 1 / (1 + np.exp(-x))
    return y


# ---- reductions -----------------------------------------------------------------------------------------------------


def spread(g: Array, x: Array, axis: Any = None, keepdims: bool = False) -> Array:
    """g, copied to every element of x that was reduced into it."""
    (dx,) = K.sum(x, axis=axis, keepdims=keepdims)[1](g)
    assert dx is not None
    return dx


def reduced(factor: Callable[[Array, Any, float], Any]) -> Wrong:
    """dx = g · factor(x, axis, n), where n elements along `axis` become one."""

    def vjp(
        g: Array, x: Array, *, axis: Any = None, keepdims: bool = False, ddof: int = 0, lowest: bool = False
    ) -> tuple[Array]:
        return (spread(g, x, axis, keepdims) * factor(-x if lowest else x, axis, x.size / g.size),)

    return vjp


def centered(x: Array, axis: Any) -> Array:
    difference: Array = x - np.mean(x, axis=axis, keepdims=True)
    return difference


def length(x: Array, axis: Any) -> Array:
    y: Array = np.sqrt(np.sum(x * x, axis=axis, keepdims=True))
    return y


def softmax(x: Array, axis: Any = -1) -> Array:
    e = np.exp(x - np.max(x.real, axis=axis, keepdims=True))
    y: Array = e / np.sum(e, axis=axis, keepdims=True)
    return y


def normalized(dx: Callable[[Array, Array, int], Array]) -> Wrong:
    """dx(g, softmax of x, axis)."""
    return lambda g, x, *, axis=-1: (dx(g, softmax(x, axis), axis),)


def total(x: Array, axis: int) -> Array:
    y: Array = np.sum(x, axis=axis, keepdims=True)
    return y


# ---- shape ----------------------------------------------------------------------------------------------------------


def taken(change: Callable[[Array], Array]) -> Wrong:
    """getitem, with its gradient changed."""

    def vjp(g: Array, x: Array, *, index: Any) -> tuple[Array]:
        (dx,) = K.getitem(x, index=index)[1](g)
        assert dx is not None
        return (change(dx),)

    return vjp


def overwritten(g: Array, x: Array, index: Any) -> Array:
    dx = np.zeros_like(x)
    dx[index] = g
    return dx


def reversed_cut(g: Array, *xs: Array, axis: int = 0) -> tuple[Array | None, ...]:
    return K.concatenate(*xs[::-1], axis=axis)[1](g)[::-1]


def shifted_cut(g: Array, *xs: Array, axis: int = 0) -> tuple[Array | None, ...]:
    return K.concatenate(*xs, axis=axis)[1](np.roll(g, 1, axis=axis))


def permuted_again(g: Array, x: Array, *, axes: tuple[int, ...] | None = None) -> tuple[Array] | None:
    return None if axes is None else (g.transpose(axes).reshape(x.shape),)


# ---- products -------------------------------------------------------------------------------------------------------


def reshaped_factors(g: Array, a: Array, b: Array) -> tuple[Array, Array] | None:
    """bᵀ and aᵀ as reshapes, which have the right shape and the wrong order."""
    if a.ndim != 2 or b.ndim != 2:
        return None
    return g @ b.reshape(b.shape[::-1]), a.reshape(a.shape[::-1]) @ g


def linear(mistake: str) -> Wrong:
    def vjp(g: Array, x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, ...]:
        rows, g = x.reshape(-1, x.shape[-1]), g.reshape(-1, g.shape[-1])
        dx, dweight, dbias = g @ weight, g.T @ rows, np.sum(g, axis=0)
        if mistake == "dbias averaged":
            dbias = np.mean(g, axis=0)
        if mistake == "dbias from one row":
            dbias = g[0]
        if mistake == "dweight from one row":
            dweight = np.outer(g[0], rows[0])
        if mistake == "dweight averaged":
            dweight = dweight / len(rows)
        if mistake == "dweight reshaped, not transposed":
            dweight = (rows.T @ g).reshape(weight.shape)
        if mistake == "W reshaped, not transposed":
            dx = g @ weight.T.reshape(weight.shape)
        return dx.reshape(x.shape), dweight, *(() if bias is None else (dbias,))

    return vjp


def einsum(subscripts: str, wrong: Wrong) -> Wrong:
    """A mistake in one kind of einsum."""
    return lambda g, *xs, subscripts, _only=subscripts: wrong(g, *xs) if subscripts == _only else None


# ---- networks -------------------------------------------------------------------------------------------------------


def embedding(rows: Callable[[Array, Array, Array], Array]) -> Wrong:
    """rows(dweight, g, ids): dweight is the right gradient."""

    def vjp(g: Array, weight: Array, ids: Array, *, sparse: bool = False) -> tuple[Array | None, ...]:
        dweight, _ = K.embedding(weight, ids)[1](g)
        assert dweight is not None
        return rows(dweight, g, ids), None

    return vjp


def layer_norm(mistake: str) -> Wrong:
    def vjp(
        g: Array, x: Array, weight: Array | None = None, bias: Array | None = None, *, eps: float = 1e-5
    ) -> tuple[Array, ...]:
        n = x.shape[-1]
        variance = np.sum(centered(x, -1) ** 2, axis=-1, keepdims=True) / (n - 1 if mistake == "ddof 1" else n)
        rstd = 1 / np.sqrt(variance + (0.0 if mistake == "eps forgotten" else eps))
        xhat = centered(x, -1) * rstd
        gw = g if weight is None or mistake == "weight forgotten in dx" else g * weight
        dx = gw * rstd
        if mistake != "mean(g') forgotten":
            dx = dx - rstd * np.mean(gw, axis=0 if mistake == "mean(g') over the rows" else -1, keepdims=True)
        if mistake != "x̂ · mean(g'x̂) forgotten":
            dx = dx - rstd * xhat * np.mean(gw * xhat, axis=-1, keepdims=True)
        if mistake == "rstd forgotten in dx":
            dx = dx / rstd
        factor = centered(x, -1) if mistake == "x − mean for x̂ in dweight" else xhat
        dweight = np.sum((g * factor).reshape(-1, n), axis=0)
        dbias = (np.mean if mistake == "dbias averaged" else np.sum)(g.reshape(-1, n), axis=0)
        return dx, *(() if weight is None else (dweight,)), *(() if bias is None else (dbias,))

    return vjp


def dropout(scale: Callable[[float], float], mask: Callable[[Array], Array] = lambda keep: keep) -> Wrong:
    return lambda g, x, keep, *, p: (np.where(mask(keep), g * scale(p), 0), None)


def rescale(p: float) -> float:
    return 1 / (1 - p) if p < 1 else 0.0


def cross_entropy(mistake: str) -> Wrong:
    def vjp(
        g: Array,
        logits: Array,
        targets: Array,
        *,
        ignore_index: int = -100,
        reduction: str = "mean",
        label_smoothing: float = 0.0,
    ) -> tuple[Array, None]:
        s = 0.0 if mistake == "smoothing forgotten" else label_smoothing
        counted = targets != ignore_index
        n = len(targets) if mistake == "divided by all rows" else np.count_nonzero(counted)
        d = np.exp(logits - np.max(logits.real)) if mistake == "softmax not normalized" else softmax(logits)
        at_target = np.arange(logits.shape[1]) == np.where(counted, targets, 0)[:, None]
        if mistake != "onehot forgotten":
            d[at_target] -= 1 if mistake == "1 for 1 − s at the target" else 1 - s
        if mistake == "s spread over the other ids":
            d[~at_target] -= s / (logits.shape[1] - 1)
        elif mistake != "s / V forgotten":
            d -= s if mistake == "s for s / V" else s / logits.shape[1]
        if mistake == "scaled by 1 + 1e-4":
            d *= 1 + 1e-4
        share = g / float(n) if reduction == "mean" and mistake != "sum for mean" else g
        if mistake != "ignored rows count":
            share = np.where(counted, share, 0)
        return d * np.broadcast_to(share, targets.shape)[:, None], None

    return vjp


def linear_cross_entropy(mistake: str) -> Wrong:
    """The mistakes of `cross_entropy` after a linear layer, and some of its own."""

    def vjp(
        g: Array,
        x: Array,
        weight: Array,
        targets: Array,
        *,
        count: int | None = None,
        chunk: int = 1 << 24,
        tile: int = 4096,
        **options: Any,
    ) -> tuple[Array | None, ...] | None:
        counted = targets != options.get("ignore_index", -100)
        n = np.count_nonzero(counted)
        if count is not None and mistake != "count ignored":
            g = g * (n / count)
        logits = x @ weight.T
        dlogits, _ = cross_entropy(mistake)(g, logits, targets, **options) or (g, None)
        assert dlogits is not None
        parts = max(1, math.ceil(logits.size / chunk))
        first = len(x) * (parts - 1) // parts  # row of the last chunk
        Z = np.sum(np.exp(logits - np.max(logits.real)), axis=1, keepdims=True)
        dx, dweight = dlogits @ weight, dlogits.T @ x
        if mistake == "f forgotten in dx":
            dx = (dlogits * Z * n) @ weight
        if mistake == "f forgotten in dweight":
            dweight = (dlogits * Z * n).T @ x
        if mistake == "1 / Z forgotten in dweight":
            dweight = (dlogits * Z).T @ x
        if mistake == "dweight of the last chunk alone":
            dweight = dlogits[first:].T @ x[first:]
        if mistake == "dx of the last chunk alone":
            dx[:first] = 0
        if mistake == "dx in the first rows":  # and not in those that count
            dx = np.concatenate([dx[counted], dx[~counted]])
        if mistake == "x of the first rows in dweight":
            dweight = dlogits[counted].T @ x[:n]
        if mistake == "dx of the first tile alone":
            dx = dlogits[:, :tile] @ weight[:tile]
        if mistake == "g forgotten":
            dx, dweight = dx / g, dweight / g
        return dx, dweight, None

    return vjp


def rotary(mistake: str) -> Wrong:
    def vjp(g: Array, x: Array, positions: Array, *, base: float = 10000.0) -> tuple[Array | None, ...]:
        D = x.shape[-1]
        i = np.arange(0, D, 2) / (2 if mistake == "i / D for 2i / D" else 1)
        phi = (positions + (mistake == "one position too far"))[..., None] * base ** (-i / D)
        cos, sin = np.cos(phi), np.sin(phi) * (-1 if mistake == "turned forth, not back" else 1)
        if mistake == "the sine forgotten":
            sin = sin * 0
        if mistake == "neighbors for halves":
            a, b = g[..., ::2], g[..., 1::2]
            dx = np.stack([a * cos + b * sin, b * cos - a * sin], axis=-1).reshape(g.shape)
        else:
            a, b = np.split(g, 2, axis=-1)
            second = b if mistake == "the second half unturned" else b * cos - a * sin
            dx = np.concatenate([a * cos + b * sin, second], axis=-1)
        return dx.astype(x.dtype), None

    return vjp


def attention(mistake: str) -> Wrong:
    def vjp(
        g: Array, q: Array, k: Array, v: Array, mask: Array | None = None, keep: Array | None = None, *, p: float = 0.0
    ) -> tuple[Array | None, ...] | None:
        if mistake in ("dS for dSᵀ in dk", "dq and dk exchanged") and q.shape != k.shape:
            return None
        scale, added = 1 / math.sqrt(q.shape[-1]), mask is not None and mask.dtype != bool
        S = q @ k.swapaxes(-1, -2) * scale
        if mask is not None and mistake != "mask forgotten":
            S = S + mask if added else np.where(mask, S, -np.inf)
        with np.errstate(invalid="ignore"):
            A = np.nan_to_num(softmax(S))  # 0 where a query may attend to no key
        M = np.ones_like(A) if keep is None else keep.astype(A.dtype) * rescale(p)
        dv = (A if mistake == "dropout forgotten in dv" else A * M).swapaxes(-1, -2) @ g
        if mistake == "dropout's scale forgotten in dv" and keep is not None:
            dv = dv * (1 - p)
        dA = g @ v.swapaxes(-1, -2) * (1 if mistake == "dropout forgotten in dA" else M)
        mean_dA = np.sum(dA * A, axis=-2 if mistake == "Σ dA·A over the queries" else -1, keepdims=True)
        dS = A * (dA if mistake == "Σ dA·A forgotten" else dA - mean_dA)
        dq = dS @ k * (1 if mistake == "1/√D forgotten in dq" else scale)
        dk = (dS if mistake == "dS for dSᵀ in dk" else dS.swapaxes(-1, -2)) @ q
        dk = dk if mistake == "1/√D forgotten in dk" else dk * scale
        if mistake == "dq and dk exchanged":
            dq, dk = dk, dq
        grads: list[Array | None] = [unbroadcast(dx, x.shape) for dx, x in ((dq, q), (dk, k), (dv, v))]
        if mask is not None:
            dmask: Array = {"dA for dS in dmask": dA, "1/√D in dmask": dS * scale}.get(mistake, dS)
            collapse = {"the first copy's dmask": first, "dmask averaged": average}.get(mistake, unbroadcast)
            grads.append(collapse(dmask, mask.shape) if added else None)
        return (*grads,) if keep is None else (*grads, None)

    return vjp


def causal_attention(mistake: str) -> Wrong:
    """Its own mistakes, and those of `attention` with a causal mask."""

    def vjp(
        g: Array, q: Array, k: Array, v: Array, *keep: Array, p: float = 0.0, block: int = 64, **_: Any
    ) -> tuple[Array | None, ...] | None:
        Tq, Tk = q.shape[-2], k.shape[-2]
        mask = np.tri(Tq, Tk, Tk - Tq + (mistake == "the future leaks"), dtype=bool)
        grads = attention(mistake)(g, q, k, v, mask, *keep, p=p)
        if grads is None:
            return None
        dq, dk, dv, _mask, *rest = grads
        last = slice((Tq - 1) // block * block, None)  # the queries of the last block
        of_last = K.attention(q[..., last, :], k, v, mask[last], *(x[..., last, :] for x in keep), p=p)[1]
        if mistake == "dk of the last block alone":
            dk = of_last(g[..., last, :])[1]
        if mistake == "dv of the last block alone":
            dv = of_last(g[..., last, :])[2]
        if mistake == "keys of the first block alone" and dq is not None:
            added = np.broadcast_to(np.where(mask, 0.0, -np.inf).astype(q.real.dtype), (*q.shape[:-1], Tk))
            dS = K.attention(q, k, v, added, *keep, p=p)[1](g)[3]  # the gradient of the added mask
            assert dS is not None
            dq[..., block:, :] = dS[..., block:, :block] @ k[..., :block, :] / math.sqrt(q.shape[-1])
        return dq, dk, dv, *rest

    return vjp


def self_attention(change: Callable[[Array, int], Array]) -> Wrong:
    """change(the right dqkv as (3, B, T, C), number of heads)."""

    def vjp(g: Array, qkv: Array, *keep: Array, n_head: int, **options: Any) -> tuple[Array | None, ...]:
        dqkv, *rest = K.causal_self_attention(qkv, *keep, n_head=n_head, **options)[1](g)
        assert dqkv is not None
        return np.concatenate(list(change(np.stack(np.split(dqkv, 3, axis=-1)), n_head)), axis=-1), *rest

    return vjp


def heads_not_moved_back(d: Array, n_head: int) -> Array:
    _, B, T, C = d.shape
    return d.reshape(3, B, T, n_head, C // n_head).swapaxes(2, 3).reshape(d.shape)


def heads_interleaved(d: Array, n_head: int) -> Array:
    return d.reshape(*d.shape[:3], n_head, -1).swapaxes(-1, -2).reshape(d.shape)


# ---- the table ------------------------------------------------------------------------------------------------------

_ATTENTION = (
    "dropout forgotten in dA", "dropout forgotten in dv", "dropout's scale forgotten in dv", "Σ dA·A forgotten",
    "Σ dA·A over the queries", "1/√D forgotten in dq", "1/√D forgotten in dk", "dS for dSᵀ in dk",
    "dq and dk exchanged",
)  # fmt: skip

WRONG: dict[str, dict[str, Wrong]] = {
    "add": uncollected(K.add),
    "subtract": uncollected(K.subtract),
    "multiply": {"own factor for the other's": slopes(lambda a, b: (a, b)), **uncollected(K.multiply)},
    "divide": {
        "db without the square": slopes(lambda a, b: (1 / b, -a / b)),
        "db without a": slopes(lambda a, b: (1 / b, -1 / b**2)),
        "da = g · b": slopes(lambda a, b: (b, -a / b**2)),
        **uncollected(K.divide),
    },
    "power": {
        "n for n − 1": power(lambda x, n: n * x**n, lambda x, n: x**n * np.log(x)),
        "n forgotten": power(lambda x, n: x ** (n - 1), lambda x, n: x**n * np.log(x)),
        "log10 for ln": power(lambda x, n: n * x ** (n - 1), lambda x, n: x**n * np.log10(x)),
        "dn without xⁿ": power(lambda x, n: n * x ** (n - 1), lambda x, n: np.log(x)),
        **uncollected(K.power),
    },
    "exp": {"g · x": slope(lambda x: x), "g · y²": slope(lambda x: np.exp(2 * x))},
    "log": {"g · x": slope(lambda x: x), "log10's": slope(lambda x: 1 / (x * math.log(10)))},
    "sqrt": {
        "2 forgotten": slope(lambda x: 1 / np.sqrt(x)),
        "g · y / 2": slope(lambda x: np.sqrt(x) / 2),
        "x for y": slope(lambda x: 1 / (2 * x)),
    },
    "tanh": {
        "1 − y": slope(lambda x: 1 - np.tanh(x)),
        "1 + y²": slope(lambda x: 1 + np.tanh(x) ** 2),
        "x for y": slope(lambda x: 1 - x**2),
    },
    "sigmoid": {
        "y (1 + y)": slope(lambda x: sigmoid(x) * (1 + sigmoid(x))),
        "x for y": slope(lambda x: x * (1 - x)),
        "tanh's": slope(lambda x: 1 - sigmoid(x) ** 2),
    },
    "erf": {
        "2/√π forgotten": slope(lambda x: np.exp(-x * x)),
        "1/√π for 2/√π": slope(lambda x: np.exp(-x * x) / math.sqrt(math.pi)),
        "x for x²": slope(lambda x: 2 / math.sqrt(math.pi) * np.exp(-x)),
        "the normal density": slope(lambda x: np.exp(-x * x / 2) / math.sqrt(2 * math.pi)),
    },
    "softplus": {
        "σ(−x)": slope(lambda x: 1 - sigmoid(x)),
        "eˣ": slope(np.exp),
        "relu's": slope(lambda x: (x > 0).astype(x.dtype)),
        "σ's own slope": slope(lambda x: sigmoid(x) * (1 - sigmoid(x))),
    },
    "relu": {
        "where x < 0": slope(lambda x: (x < 0).astype(x.dtype)),
        "y for its slope": slope(lambda x: np.maximum(x, 0)),
        "leaky": slope(lambda x: np.where(x > 0, x.dtype.type(1), x.dtype.type(0.01))),
    },
    "absolute": {"g · x": slope(lambda x: x), "g · y": slope(np.abs)},
    "gelu": {
        "0.0447 for 0.044715": gelu(a=0.0447),
        "the erf form's": slope(erf_slope),
        "the product rule's second term forgotten": gelu(second=0),
        "a for 3a": gelu(three=1),
        "2/π for √(2/π)": gelu(c=2 / math.pi),
    },
    "maximum": {
        "the loser gets it": slopes(lambda a, b: ((a < b).astype(a.dtype), (a > b).astype(a.dtype))),
        "both get it": slopes(lambda a, b: (np.ones_like(a), np.ones_like(b))),
        "half each": slopes(lambda a, b: (np.full_like(a, 0.5), np.full_like(b, 0.5))),
        **uncollected(K.maximum),
    },
    "where": {
        "a and b exchanged": lambda g, c, a, b: K.where(~c, a, b)[1](g),
        "both get all": lambda g, c, a, b: (None, unbroadcast(g, a.shape), unbroadcast(g, b.shape)),
        **uncollected(K.where),
    },
    "sum": {
        "divided by n": reduced(lambda x, axis, n: 1 / n),
        "the first element alone": reduced(lambda x, axis, n: np.arange(x.size).reshape(x.shape) == 0),
    },
    "mean": {
        "n forgotten": reduced(lambda x, axis, n: 1),
        "n − 1 for n": reduced(lambda x, axis, n: 1 / (n - 1)),
        "n of all axes": reduced(lambda x, axis, n: 1 / x.size),
    },
    "max": {
        "the losers get it": reduced(lambda x, axis, n: x != np.max(x, axis=axis, keepdims=True)),
        "all get it": reduced(lambda x, axis, n: 1),
        "the minimum gets it": reduced(lambda x, axis, n: x == np.min(x, axis=axis, keepdims=True)),
        "the first of all winners alone": reduced(lambda x, axis, n: x == np.max(x)),
    },
    "var": {
        "n − 1 in backward": reduced(lambda x, axis, n: 2 / (n - 1) * centered(x, axis)),
        "n for n − ddof": reduced(lambda x, axis, n: 2 / n * centered(x, axis)),
        "2 forgotten": reduced(lambda x, axis, n: centered(x, axis) / n),
        "mean forgotten": reduced(lambda x, axis, n: 2 / n * x),
        "mean of all axes": reduced(lambda x, axis, n: 2 / n * centered(x, None)),
    },
    "norm": {
        "y forgotten": reduced(lambda x, axis, n: x),
        "2 not canceled": reduced(lambda x, axis, n: 2 * x / length(x, axis)),
        "y² for y": reduced(lambda x, axis, n: x / length(x, axis) ** 2),
        "norm of all axes": reduced(lambda x, axis, n: x / length(x, None)),
    },
    "cumsum": {
        "from the start": lambda g, x, *, axis: (np.cumsum(g, axis=axis),),
        "the sum of all": lambda g, x, *, axis: (np.broadcast_to(total(g, axis), x.shape),),
        "without its own": lambda g, x, *, axis: (np.flip(np.cumsum(np.flip(g, axis), axis), axis) - g,),
        "along the other axis": lambda g, x, *, axis: K.cumsum(x, axis=-1 - axis)[1](g),
    },
    "logsumexp": {
        "softmax forgotten": reduced(lambda x, axis, n: 1),
        "not normalized": reduced(lambda x, axis, n: np.exp(x)),
        "1/n for softmax": reduced(lambda x, axis, n: 1 / n),
        "softmax over all axes": reduced(lambda x, axis, n: softmax(x, None)),
    },
    "softmax": {
        "only the diagonal": normalized(lambda g, y, axis: g * y * (1 - y)),
        "Σ g·y forgotten": normalized(lambda g, y, axis: g * y),
        "mean(g) for Σ g·y": normalized(lambda g, y, axis: y * (g - np.mean(g, axis=axis, keepdims=True))),
        "Σ g·y over the other axis": normalized(lambda g, y, axis: y * (g - total(g * y, -1 - axis))),
    },
    "log_softmax": {
        "y for eʸ": normalized(lambda g, y, axis: g - np.log(y) * total(g, axis)),
        "Σ forgotten": normalized(lambda g, y, axis: g - y * g),
        "eʸ forgotten": normalized(lambda g, y, axis: g - np.mean(g, axis=axis, keepdims=True)),
        "Σ over the other axis": normalized(lambda g, y, axis: g - y * total(g, -1 - axis)),
    },
    "reshape": {"order F": lambda g, x, *, shape: (g.reshape(x.shape, order="F"),)},
    "transpose": {
        "axes for their inverse": permuted_again,
        "reshaped": lambda g, x, *, axes=None: (g.reshape(x.shape),),
    },
    "broadcast_to": {
        "averaged": lambda g, x, *, shape: (average(g, x.shape),),
        "the first copy's": lambda g, x, *, shape: (first(g, x.shape),),
    },
    "getitem": {
        "overwritten, not added": lambda g, x, *, index: (overwritten(g, x, index),),
        "one row too far": taken(lambda dx: np.roll(dx, 1, axis=0)),
    },
    "concatenate": {"stretches in reversed order": reversed_cut, "stretches one too early": shifted_cut},
    "stack": {
        "layers in reversed order": lambda g, *xs, axis=0: tuple(np.moveaxis(g, axis, 0)[::-1]),
        "reshaped": lambda g, *xs, axis=0: tuple(g.reshape(len(xs), *xs[0].shape)),
    },
    "matmul": {
        "reshaped, not transposed": reshaped_factors,
        "the first batch's": batches(first),
        "averaged over the batches": batches(average),
    },
    "linear": {
        name: linear(name)
        for name in ("dbias averaged", "dbias from one row", "dweight from one row", "dweight averaged",
                     "dweight reshaped, not transposed", "W reshaped, not transposed")
    },
    "einsum": {
        "factors reshaped, not transposed": einsum("ij,jk->ik", reshaped_factors),
        "a trace's slope off the diagonal": einsum("ii", lambda g, x: (np.full_like(x, g),)),
        "the first row alone": einsum("i...->...", lambda g, x: (np.stack([g, *(g * 0,) * (len(x) - 1)]),)),
    },
    "embedding": {
        "repeated ids overwrite": embedding(lambda d, g, ids: overwritten(g, d, ids)),
        "repeated ids are averaged": embedding(
            lambda d, g, ids: d / np.maximum(np.bincount(ids.ravel(), minlength=len(d)), 1).astype(d.dtype)[:, None]),
        "the next row": embedding(lambda d, g, ids: np.roll(d, 1, axis=0)),
    },
    "rotary": {
        name: rotary(name)
        for name in ("turned forth, not back", "neighbors for halves", "the sine forgotten", "the second half unturned",
                     "one position too far", "i / D for 2i / D")
    },
    "layer_norm": {
        name: layer_norm(name)
        for name in ("mean(g') forgotten", "mean(g') over the rows", "x̂ · mean(g'x̂) forgotten", "eps forgotten",
                     "ddof 1", "weight forgotten in dx", "rstd forgotten in dx", "x − mean for x̂ in dweight",
                     "dbias averaged")
    },
    "dropout": {
        "p for 1 − p": dropout(lambda p: 1 / p),
        "scale forgotten": dropout(lambda p: 1),
        "mask forgotten": dropout(rescale, np.ones_like),
        "mask inverted": dropout(rescale, np.logical_not),
        "times 1 − p": dropout(lambda p: 1 - p),
    },
    "cross_entropy": {
        name: cross_entropy(name)
        for name in ("onehot forgotten", "divided by all rows", "sum for mean", "softmax not normalized",
                     "ignored rows count", "scaled by 1 + 1e-4", "smoothing forgotten", "1 for 1 − s at the target",
                     "s / V forgotten", "s for s / V", "s spread over the other ids")
    },
    "linear_cross_entropy": {
        name: linear_cross_entropy(name)
        for name in ("onehot forgotten", "softmax not normalized", "f forgotten in dx", "f forgotten in dweight",
                     "1 / Z forgotten in dweight", "ignored rows count", "divided by all rows", "count ignored",
                     "sum for mean", "smoothing forgotten", "1 for 1 − s at the target", "s / V forgotten",
                     "s for s / V", "s spread over the other ids", "dweight of the last chunk alone",
                     "dx of the last chunk alone", "dx of the first tile alone", "dx in the first rows",
                     "x of the first rows in dweight", "g forgotten")
    },
    "attention": {
        name: attention(name)
        for name in (*_ATTENTION, "mask forgotten", "dA for dS in dmask", "1/√D in dmask", "the first copy's dmask",
                     "dmask averaged")
    },
    "causal_attention": {
        name: causal_attention(name)
        for name in (*_ATTENTION, "the future leaks", "dk of the last block alone", "dv of the last block alone",
                     "keys of the first block alone")
    },
    "causal_self_attention": {
        "dk and dv exchanged": self_attention(lambda d, n_head: d[[0, 2, 1]]),
        "dq three times": self_attention(lambda d, n_head: d[[0, 0, 0]]),
        "heads not moved back": self_attention(heads_not_moved_back),
        "heads interleaved": self_attention(heads_interleaved),
    },
}  # fmt: skip
