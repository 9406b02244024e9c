"""Matrix products: a language model spends most of its time in them.

All are sums of products, y_ij = Σ_k a_ik b_kj with more axes or fewer; `matmul` derives the rule for two matrices.
"""

import math
import string
from typing import TypeVar

import numpy as np

from tinygrad_llm.kernels.contract import Array, Result, add_to, alike, column_sums, kernel, unbroadcast

_T = TypeVar("_T")


@kernel
def matmul(a: Array, b: Array, *, needs: tuple[bool, bool] = (True, True)) -> Result:
    """y = a @ b.   da = g bᵀ,  db = aᵀ g, summed over broadcast batch axes

    a: (..., n, k) or (k,), b: (..., k, m) or (k,) → y: (..., n, m), without n or m where a vector stood.

    Derivation:
        One pair of matrices:  y_ij = Σ_l a_il b_lj,  a: (n, k), b: (k, m), y and g: (n, m).
        a_il is a factor in row i of y:      da_il = Σ_j g_ij ∂y_ij/∂a_il = Σ_j g_ij b_lj,   da = g bᵀ: (n, m)(m, k)
        b_lj is a factor in column j of y:   db_lj = Σ_i g_ij ∂y_ij/∂b_lj = Σ_i a_il g_ij,   db = aᵀ g: (k, n)(n, m)
        A vector is a matrix of one row (a) or one column (b). y and g lack that axis, and the code puts it into g.
        Batch axes hold many such pairs. A matrix that broadcasting copied to several gets Σ over them (`unbroadcast`).
    """
    if not (a.ndim and b.ndim) or a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul: got shapes {a.shape} and {b.shape}, whose inner sizes must be equal")
    a, b = alike(a, b)
    y = np.matmul(a, b)
    a_shape, b_shape = a.shape, b.shape
    # What each gradient needs, as matrices: da needs b, and db needs a.
    columns = None if not needs[0] else b if b.ndim > 1 else b[:, None]
    rows = None if not needs[1] else a if a.ndim > 1 else a[None, :]

    def vjp(g: Array) -> tuple[Array | None, Array | None]:
        if len(b_shape) == 1:
            g = g[..., None]
        if len(a_shape) == 1:
            g = g[..., None, :]
        da = db = None
        if columns is not None:
            da = unbroadcast(g @ columns.swapaxes(-1, -2), a_shape if len(a_shape) > 1 else (1, *a_shape))
            da = da.reshape(a_shape)
        if rows is not None:
            db = unbroadcast(rows.swapaxes(-1, -2) @ g, b_shape if len(b_shape) > 1 else (*b_shape, 1))
            db = db.reshape(b_shape)
        return da, db

    return y, vjp


@kernel
def linear(
    x: Array, weight: Array, bias: Array | None = None, *, needs: tuple[bool, ...] = (True, True, True)
) -> Result:
    """y = x Wᵀ + bias,  W = weight.   dx = g W,  dweight = gᵀ x,  dbias = Σ g, the last two summed over all rows

    x: (..., in), weight: (out, in), bias: (out,) → y: (..., out). All rows of x, on whatever axes, are one product.

    Derivation:
        With R rows, x: (R, in), y and g: (R, out):   y_ro = Σ_i x_ri W_oi + bias_o
        dx_ri      = Σ_o g_ro ∂y_ro/∂x_ri    = Σ_o g_ro W_oi,   dx = g W: (R, out)(out, in)
        dweight_oi = Σ_r g_ro ∂y_ro/∂W_oi    = Σ_r g_ro x_ri,   dweight = gᵀ x: (out, R)(R, in)
        dbias_o    = Σ_r g_ro ∂y_ro/∂bias_o  = Σ_r g_ro
    """
    if weight.ndim != 2 or x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(f"linear: got x {x.shape} and weight {weight.shape}, which must be (..., in) and (out, in)")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"linear: got bias {bias.shape}, which must be (out,) = {weight.shape[:1]}")
    x, weight = alike(x, weight)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    flat_y = rows @ weight.T
    if bias is not None:
        flat_y = add_to(flat_y, bias)
    lead, (n_out, n_in) = x.shape[:-1], weight.shape
    y = flat_y.reshape(*lead, n_out)
    has_bias = bias is not None
    for_x, for_weight = weight if needs[0] else None, rows if needs[1] else None  # what each gradient needs

    def vjp(g: Array) -> tuple[Array | None, ...]:
        g = g.reshape(math.prod(lead), n_out)
        dx = None if for_x is None else (g @ for_x).reshape(*lead, n_in)
        dweight = None if for_weight is None else g.T @ for_weight
        if not has_bias:
            return dx, dweight
        return dx, dweight, column_sums(g) if needs[2] else None

    return y, vjp


@kernel
def einsum(*operands: Array, subscripts: str) -> Result:
    """y = np.einsum(subscripts, *operands).   Each dx = the einsum of g and the other operands, onto x's own indices

    Derivation:
        y = Σ x · a · b · …, each factor at its own indices, summed over the indices that the output lacks. Hence
        ⟨g, y⟩ = Σ g · x · a · b · … over all indices. It is linear in x, and dx is the factor of each element of x:
        dx = Σ g · a · b · … over the indices that x lacks, the einsum of g and the others onto x's own indices.
            "ij,jk->ik":  y_ik = Σ_j a_ij b_jk gives da_ij = Σ_k g_ik b_jk, "ik,jk->ij", and db_jk = Σ_i g_ik a_ij.
        An index that only x has was summed away: g · a · b · … does not contain it, so dx is constant along it.
        An index that x has twice takes the diagonal: y = Σ_i x_ii … has ∂y/∂x_ij = 0 for i ≠ j, so dx is 0 off it.
        An axis of length 1 that was stretched: its copies' gradients are added (`unbroadcast`).
    """
    inputs, output = _explicit(subscripts, operands)
    operands = alike(*operands)
    # As in PyTorch, the integers that one operand alone sums over are added in int64, as by `sum`: uint8 would wrap.
    lone = [set(labels).difference(output, *_without(inputs, i)) for i, labels in enumerate(inputs)]
    wide = [x.astype(np.int64) if some and x.dtype.kind in "iub" else x for x, some in zip(operands, lone, strict=True)]
    y = np.einsum(",".join(inputs) + "->" + output, *wide)
    sizes: dict[str, int] = {}
    for labels, operand in zip(inputs, operands, strict=True):
        for label, n in zip(labels, operand.shape, strict=True):
            if n != 1 or label not in sizes:
                sizes[label] = n

    def gradient(i: int, g: Array) -> Array:
        # The einsum of g and the other operands, onto those of x's indices that one of them has.
        x, own = operands[i], "".join(dict.fromkeys(inputs[i]))
        others = [output, *_without(inputs, i)]
        found = "".join(label for label in own if any(label in labels for labels in others))
        dx = np.einsum(",".join(others) + "->" + found, g, *_without(operands, i))
        # Along the indices that x alone has, the gradient is constant.
        dx = np.expand_dims(dx, [axis for axis, label in enumerate(own) if label not in found])
        dx = np.broadcast_to(dx, [sizes[label] for label in own])
        if own == inputs[i]:
            return unbroadcast(dx, x.shape)
        # An index that x has twice: the gradient goes onto the diagonal.
        whole = np.zeros(x.shape, dtype=dx.dtype)
        diagonal = np.einsum(inputs[i] + "->" + own, whole)  # a writable view
        diagonal[...] = unbroadcast(dx, diagonal.shape)
        return whole

    def vjp(g: Array) -> tuple[Array, ...]:
        return tuple(gradient(i, g) for i in range(len(operands)))

    return y, vjp


def _without(items: tuple[_T, ...] | list[_T], i: int) -> list[_T]:
    return [*items[:i], *items[i + 1 :]]


def _explicit(subscripts: str, operands: tuple[Array, ...]) -> tuple[list[str], str]:
    """Rewrite "...ij,jk" so that every axis has a letter, and the output is written out."""
    left, arrow, output = subscripts.replace(" ", "").partition("->")
    inputs = left.split(",")
    if len(inputs) != len(operands):
        raise ValueError(f"einsum: {subscripts!r} names {len(inputs)} operand(s), got {len(operands)}")
    named = [len(labels.replace("...", "")) for labels in inputs]
    for labels, operand, n in zip(inputs, operands, named, strict=True):
        if n > operand.ndim or ("..." not in labels and n != operand.ndim):
            raise ValueError(f"einsum: got an operand {operand.shape}, which {labels!r} in {subscripts!r} does not fit")
    spare = [c for c in string.ascii_letters if c not in subscripts]
    hidden = max((x.ndim - n for x, n in zip(operands, named, strict=True)), default=0)
    letters = "".join(spare[:hidden])
    if not arrow:  # NumPy's rule: the hidden axes, then the indices that occur once, in alphabetical order
        output = ("..." if hidden else "") + "".join(sorted(c for c in set(left) if left.count(c) == 1 and c.isalpha()))
    filled = [
        labels.replace("...", letters[hidden - (x.ndim - n) :])
        for labels, x, n in zip(inputs, operands, named, strict=True)
    ]
    return filled, output.replace("...", letters)
