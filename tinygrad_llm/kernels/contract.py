"""The contract of a kernel, the table of all kernels, and helpers that several kernel files share.

A kernel is one differentiable operation, written as one plain function on ndarrays. It returns its output and `vjp`
(vector–Jacobian product): a function from the gradient of some scalar with respect to the output, `g`, to one
gradient per array input. Forward stands beside backward, and both work without the engine:

    y, vjp = tanh(x)
    (dx,) = vjp(g)

Notation of the derivations: L is the scalar that is differentiated, g = ∂L/∂y comes in and dx = ∂L/∂x goes out, by the
chain rule dx_i = Σ_j g_j ∂y_j/∂x_i (dx_i = g_i ∂y_i/∂x_i where y_i depends on x_i alone). For a linear y = A x that is
dx = Aᵀ g, the adjoint: ⟨g, A x⟩ = ⟨Aᵀ g, x⟩ for every x, with ⟨u, v⟩ = Σ_i u_i v_i. δ_ij is 1 where i = j, else 0.

The contract, which tests/kernels/test_contract.py checks for every kernel:

1. A kernel never writes to its inputs or to `g`.
2. float32 in, float32 out, float32 gradients; likewise float64. Constants are Python floats. float16 is computed in
   float32 inside and rounded once at the end, the output as well as each gradient: half precision has no room for sums,
   counts, squares and exponentials. An analytic kernel computes integers and booleans in float32, too. `kernel` and
   `analytic` ensure both, so a kernel never receives float16, and an analytic one never receives integers to compute
   with.
3. A vjp returns one gradient per array input, of its shape. It is `None` where an input is ids, a mask or an integer
   exponent.
4. A closure keeps what backward needs and no more, and never a Tensor.
5. Complex input works, and backward never conjugates: that is what makes a gradient check exact.
6. A gradient is new memory, or `g` itself, or a view of `g`; two gradients overlap only where both are `g`. Its caller
   may change what it returns, unless the vjp is called again (`retain_graph`), which returns the same.
7. `needs=(bool, …)`, where a kernel takes it, says which gradients are wanted. The others are `None`, and nothing is
   kept for them. A kernel may return `Rows` for a gradient that is 0 in most rows, but only on request.
8. `map=…`, where a kernel takes it, calls a function for each part of the work. The parts share no memory, so the map
   may use several threads.
"""

import functools
import math
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import DTypeLike, NDArray

Array: TypeAlias = NDArray[Any]
Map: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]
MEANS = {"needs", "map"}  # options that change how a kernel computes, and not what


class Rows:
    """A gradient that is 0 in most rows: row `rows[i]` is `values[i]`, and no row occurs twice.

    The tape adds it to an array without making the rows of zeros. NumPy's functions see the whole array, which is made
    when they ask for it.
    """

    def __init__(self, rows: Array, values: Array, shape: tuple[int, ...]) -> None:
        self.rows, self.values, self.shape = rows, values, shape
        self.dtype, self.ndim = values.dtype, len(shape)

    def add_to(self, total: Array) -> None:
        total[self.rows] += self.values

    def astype(self, dtype: DTypeLike) -> "Rows":
        return Rows(self.rows, self.values.astype(dtype), self.shape)

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
    """Put a kernel into the table `KERNELS`, under its own name. float16 is computed in float32 (rule 2)."""

    of_floats = getattr(function, "__wrapped__", function)  # without the wrapper of `analytic`

    # `wraps` alone does not copy the defaults, among which `apply` looks for "needs".
    @functools.wraps(function, assigned=(*functools.WRAPPER_ASSIGNMENTS, "__kwdefaults__"))
    def run(*inputs: Array, **options: Any) -> Result:
        for x in inputs:
            if x is not None and x.dtype.char not in "fdFD":  # float and double, real and complex, need no conversion
                break
        else:
            return of_floats(*inputs, **options)
        if _HALF in [None if x is None else x.dtype for x in inputs]:
            return _in_float32(function, inputs, options)
        return function(*inputs, **options)

    KERNELS[function.__name__] = run
    return cast(_K, run)


def analytic(function: _K) -> _K:
    """Let a kernel's first input be integers or booleans: it gets the dtype of the float inputs, or float32 (rule 2).

    Stands below `@kernel`. A kernel of several such inputs gives the others the dtype of the first by `alike`.
    """

    @functools.wraps(function, assigned=(*functools.WRAPPER_ASSIGNMENTS, "__kwdefaults__"))
    def run(x: Array, *others: Array, **options: Any) -> Result:
        if x.dtype.kind in "iub":
            floats = [other.dtype for other in others if other is not None and other.dtype.kind in "fc"]
            x = x.astype(np.result_type(*floats) if floats else np.float32)
        return function(x, *others, **options)

    return cast(_K, run)


_HALF = np.dtype(np.float16)


def _in_float32(function: Kernel, inputs: tuple[Array, ...], options: dict[str, Any]) -> Result:
    """Call a kernel with float32 in place of float16. Round the gradients, and y if no other input is wider."""
    wide = [x if x is None or x.dtype != _HALF else x.astype(np.float32) for x in inputs]
    y, vjp = function(*wide, **options)
    halves = [x is not None and x.dtype == _HALF for x in inputs]
    narrow = all(half or x is None or x.dtype.kind not in "fc" for x, half in zip(inputs, halves, strict=True))

    def rounded(g: Array) -> tuple[Array | None, ...]:
        grads = vjp(g.astype(np.float32) if narrow else g)
        pairs = zip(grads, halves, strict=False)
        with np.errstate(over="ignore"):
            return tuple(d.astype(_HALF) if half and d is not None else d for d, half in pairs)

    with np.errstate(over="ignore"):  # beyond 65504 the rounded value is infinite
        return np.asarray(y).astype(_HALF) if narrow else y, rounded


def unbroadcast(g: Array, shape: tuple[int, ...]) -> Array:
    """Sum `g` over the axes along which an input of this shape was broadcast: what forward copied, backward adds."""
    if g.shape == shape:
        return g
    lead = g.ndim - len(shape)
    stretched = tuple(lead + i for i, n in enumerate(shape) if n == 1 and g.shape[lead + i] != 1)
    total: Array = np.sum(g, axis=tuple(range(lead)) + stretched, keepdims=True)
    return total.reshape(shape)


def alike(*arrays: Array) -> tuple[Array, ...]:
    """Give integer and boolean arrays the dtype of the float arrays: NumPy makes float64 of float32 and int64."""
    first = arrays[0].dtype
    for x in arrays:
        if x.dtype is not first:
            break
    else:
        return arrays  # the usual case, kept fast: the rest takes longer than adding two rows
    floats = [x.dtype for x in arrays if x.dtype.kind in "fc"]
    if len(floats) in (0, len(arrays)):
        return arrays
    dtype = np.result_type(*floats)
    return tuple(x.astype(dtype) if x.dtype.kind in "iub" else x for x in arrays)


def add_to(y: Array, b: Array) -> Array:
    """y + b, in y's own memory where its dtype can hold the sum (a real y cannot hold a complex b)."""
    return np.add(y, b, out=y if b.dtype == y.dtype or np.can_cast(b.dtype, y.dtype, "same_kind") else None)


def row_sums(x: Array) -> Array:
    """Σ over the last axis, kept with length 1. It is a product with ones, because BLAS adds faster than np.sum."""
    total: Array = x @ _ones(x.shape[-1], x.dtype)[:, None]
    return total


def column_sums(x: Array) -> Array:
    """Σ over all axes but the last."""
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])  # −1 would be ambiguous where the last axis is empty
    total: Array = _ones(len(rows), x.dtype) @ rows
    return total


@functools.lru_cache(maxsize=64)
def _ones(n: int, dtype: np.dtype[Any]) -> Array:
    ones = np.ones(n, dtype)
    ones.flags.writeable = False
    return ones


def exp_is_safe(x: Array) -> bool:
    """Whether exp(x), its sums and their quotients stay within float32's range without a shift."""
    return bool(np.max(x.real, initial=0) < 40 and np.min(x.real, initial=0) > -40)
