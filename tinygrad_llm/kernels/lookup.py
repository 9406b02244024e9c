"""Operations that pick elements: rows of a table by id, and the elements that a dropout mask keeps."""

from typing import cast

import numpy as np

from tinygrad_llm.kernels.contract import Array, Result, Rows, analytic, kernel


@kernel
def embedding(weight: Array, ids: Array, *, sparse: bool = False) -> Result:
    """y = weight[ids].   dweight[v] = Σ of g over all places where id v stands

    weight: (V, C) float, ids: (...) integer → y: (..., C). An id outside 0 … V−1 is an error, because NumPy would
    count a negative one from the end. sparse: return dweight as `Rows`.

    Derivation:
        Number the places of ids, n = 1 … N, and let O = onehot(ids), (N, V): O_nv = 1 where ids_n = v, else 0.
        y_nc = Σ_v O_nv weight_vc,  y = O weight: (N, V)(V, C)
        dweight_vc = Σ_n g_nc ∂y_nc/∂weight_vc = Σ_n O_nv g_nc,  dweight = Oᵀ g: (V, N)(N, C)
        Row v of Oᵀ g is the sum of those g_n that have ids_n = v; the code never makes O. Sorted by id, these g_n are
        neighbors, and `reduceat` adds up each run from its start to the next. The row of an id that does not occur is
        0. A text contains few of the V ids, so `Rows` holds only the rows of those that occur.
    """
    if ids.dtype.kind not in "iu":
        raise TypeError(f"embedding: got ids of {ids.dtype}, which must be integers")
    if ids.size and not (ids.min() >= 0 and ids.max() < len(weight)):
        bad = ids.min() if ids.min() < 0 else ids.max()
        raise IndexError(f"embedding: got id {bad}, outside the vocabulary: ids must be 0 … {len(weight) - 1}")
    y = weight[ids]
    shape = weight.shape

    def vjp(g: Array) -> tuple[Array, None]:
        # Sorting puts equal ids next to each other; each run of them is summed at once, in order of position.
        flat = ids.reshape(-1)
        order = np.argsort(flat, kind="stable")
        found, starts = np.unique(flat[order], return_index=True)
        sorted_g = g.reshape(ids.size, *shape[1:])[order]
        dweight = Rows(found, np.add.reduceat(sorted_g, starts, axis=0) if ids.size else sorted_g, shape)
        return cast(Array, dweight) if sparse else np.asarray(dweight), None

    return y, vjp


@kernel
@analytic
def dropout(x: Array, keep: Array, *, p: float) -> Result:
    """y = x / (1 − p) where keep, else 0.   dx = g / (1 − p) where keep, else 0

    keep: boolean, shape of x, drawn by the caller. Scaling by 1 / (1 − p) makes x the expected value of y.

    Source: Srivastava et al. 2014, JMLR 15.

    Derivation:
        With m_i = 1 where keep, else 0:   y_i = m_i x_i / (1 − p).   The draw m does not depend on x, so
        ∂y_i/∂x_i = m_i / (1 − p) and dx_i = g_i m_i / (1 − p).   At p = 1 nothing is kept: y = 0 and dx = 0.
    """
    scale = 1 / (1 - p) if p < 1 else 0.0
    y = np.where(keep, x * scale, 0)

    def vjp(g: Array) -> tuple[Array, None]:
        return np.where(keep, g * scale, 0), None

    return y, vjp
