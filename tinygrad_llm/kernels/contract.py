"""The table of kernels, and what every kernel file needs.

A kernel is one differentiable operation, written as one plain function on ndarrays. It returns its output and `vjp`
(vector–Jacobian product): a function from the gradient of some scalar with respect to the output, `g`, to one
gradient per array input. Forward and backward stand side by side, and work without the engine:

    y, vjp = tanh(x)
    (dx,) = vjp(g)

Notation of the derivations: L is the scalar that is differentiated, g = ∂L/∂y comes in and dx = ∂L/∂x goes out, by the
chain rule dx_i = Σ_j g_j ∂y_j/∂x_i (dx_i = g_i ∂y_i/∂x_i where y_i depends on x_i alone). For a linear y = A x that is
dx = Aᵀ g, the adjoint: ⟨g, A x⟩ = ⟨Aᵀ g, x⟩ for every x, with ⟨u, v⟩ = Σ_i u_i v_i. δ_ij is 1 where i = j, else 0.

What every kernel keeps to (tests/kernels/test_contract.py):

1. Neither the inputs nor `g` are ever written to.
2. float32 in, float32 out, float32 gradients; likewise float64. Constants are Python floats.
3. One gradient per array input, of exactly its shape; `None` where an input is ids, an exponent of integers or a mask.
4. A closure keeps what backward needs and no more.
5. Complex input works, and nothing conjugates: this is what lets a gradient check be exact.
6. A gradient is new memory, or `g` itself, or a view of `g`; two gradients overlap only where both are `g`. A `vjp` is
   called once: what it hands over is the caller's to change.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]


class Rows:
    """A gradient that is 0 in most rows: `values[i]` stands in row `rows[i]`, and no row occurs twice.

    A kernel gives one only when asked to (`embedding`, by the tape, which adds it to an array as it is). To NumPy's
    functions it is the whole array, made when they ask for it.
    """

    def __init__(self, rows: Array, values: Array, shape: tuple[int, ...]) -> None:
        self.rows, self.values, self.shape = rows, values, shape
        self.dtype, self.ndim = values.dtype, len(shape)

    def add_to(self, total: Array) -> None:
        total[self.rows] += self.values

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        whole = np.zeros(self.shape, self.dtype if dtype is None else dtype)
        whole[self.rows] = self.values
        return whole


Vjp: TypeAlias = Callable[[Array], tuple[Array | None, ...]]
Result: TypeAlias = tuple[Array, Vjp]
Kernel: TypeAlias = Callable[..., Result]

KERNELS: dict[str, Kernel] = {}

_K = TypeVar("_K", bound=Kernel)


def kernel(function: _K) -> _K:
    """Put a kernel into the table `KERNELS`, under its own name."""
    KERNELS[function.__name__] = function
    return function


def unbroadcast(g: Array, shape: tuple[int, ...]) -> Array:
    """Sum `g` over the axes along which an input of this shape was broadcast: copying forward is adding backward."""
    if g.shape == shape:
        return g
    lead = g.ndim - len(shape)
    stretched = tuple(lead + i for i, n in enumerate(shape) if n == 1 and g.shape[lead + i] != 1)
    total: Array = np.sum(g, axis=tuple(range(lead)) + stretched, keepdims=True)
    return total.reshape(shape)


def alike(*arrays: Array) -> tuple[Array, ...]:
    """Give integer and boolean arrays the dtype of the float ones beside them: int64 would make float32 float64."""
    if len({x.dtype for x in arrays}) == 1:  # nearly always, and the rest would cost more than adding two rows
        return arrays
    floats = [x.dtype for x in arrays if x.dtype.kind in "fc"]
    if len(floats) in (0, len(arrays)):
        return arrays
    dtype = np.result_type(*floats)
    return tuple(x.astype(dtype) if x.dtype.kind in "iub" else x for x in arrays)


def add_to(y: Array, b: Array) -> Array:
    """y + b, in y's own memory where its dtype can hold the sum (a complex b needs more than a real y)."""
    return np.add(y, b, out=y if b.dtype == y.dtype or np.can_cast(b.dtype, y.dtype, "same_kind") else None)


def row_sums(x: Array) -> Array:
    """Σ over the last axis, which stays with length 1. As a product with ones: BLAS adds faster than np.sum."""
    total: Array = x @ _ones(x.shape[-1], x.dtype)[:, None]
    return total


def column_sums(x: Array) -> Array:
    """Σ over all axes but the last."""
    rows = x.reshape(-1, x.shape[-1])
    total: Array = _ones(len(rows), x.dtype) @ rows
    return total


@functools.lru_cache(maxsize=64)
def _ones(n: int, dtype: np.dtype[Any]) -> Array:
    ones = np.ones(n, dtype)
    ones.flags.writeable = False
    return ones


def exp_is_safe(x: Array) -> bool:
    """Whether exp(x), sums of it and quotients of those stay far from the ends of float32, with no shift.

    float16 ends at e¹¹: there it is never sure.
    """
    return x.dtype != np.float16 and bool(np.max(x.real, initial=0) < 40 and np.min(x.real, initial=0) > -40)
