"""More methods of `torch.Tensor`, made of those in `tensor.py`; each is also a function, as in `torch.diff(x)`.

Two small kernels stand here, since only PyTorch's words need them: a function of each element with its derivative, and
a sum into places that may repeat.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_llm import autograd
from tinygrad_llm import functional as F
from tinygrad_llm.kernels.contract import Result
from tinygrad_llm.torch.dtypes import float32, numpy_of
from tinygrad_llm.torch.missing import NotOffered, refuse
from tinygrad_llm.torch.tensor import Array, ReturnType, Tensor, array_of, constant, ours, together

# ---- functions of each element -------------------------------------------------------------------------------------

# name → (the function, its derivative at x where the function is y).
_POINTWISE: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "sin": (np.sin, lambda x, y: np.cos(x)),
    "cos": (np.cos, lambda x, y: -np.sin(x)),
    "tan": (np.tan, lambda x, y: 1 + y * y),
    "sinh": (np.sinh, lambda x, y: np.cosh(x)),
    "cosh": (np.cosh, lambda x, y: np.sinh(x)),
    "atan": (np.arctan, lambda x, y: 1 / (1 + x * x)),
    "asin": (np.arcsin, lambda x, y: 1 / np.sqrt(1 - x * x)),
    "acos": (np.arccos, lambda x, y: -1 / np.sqrt(1 - x * x)),
    "expm1": (np.expm1, lambda x, y: y + 1),
    "exp2": (np.exp2, lambda x, y: y * math.log(2)),
    "log1p": (np.log1p, lambda x, y: 1 / (1 + x)),
    "log2": (lambda x: _in_float64(np.log2, x), lambda x, y: 1 / (x * math.log(2))),
    "log10": (lambda x: _in_float64(np.log10, x), lambda x, y: 1 / (x * math.log(10))),
    **{name: (getattr(np, name), lambda x, y: np.zeros_like(y)) for name in ("ceil", "floor", "sign", "trunc")},
}


def _in_float64(function: Callable[[Array], Array], x: Array) -> Array:
    """Exact for powers of the base, which NumPy's float32 logarithms are not."""
    return function(x.astype(np.float64)).astype(x.dtype) if x.dtype.kind == "f" else function(x)


def _rounded_once(name: str) -> Callable[[Tensor], Tensor]:
    """`exp` or `log` with the rounding that PyTorch's have nearly always, the best; NumPy's float32 ones may differ."""

    def run(input: Tensor) -> Tensor:
        x = input.ours
        y = getattr(x.to(np.float64), name)().to(x.dtype) if x.dtype == np.float32 else getattr(x, name)()
        return Tensor.of(y, f"{name.capitalize()}Backward0")

    run.__doc__ = f"See `tinygrad_llm.Tensor.{name}`."
    return run


def _pointwise(name: str) -> Callable[[Tensor], Tensor]:
    function, derivative = _POINTWISE[name]

    def kernel(x: Array) -> Result:
        y = np.asarray(function(x))
        return y, lambda g: (g * derivative(x, y),)

    kernel.__name__ = name

    def run(input: Tensor) -> Tensor:
        if input.ours.dtype.kind in "iub" and name in ("ceil", "floor", "sign", "trunc"):
            return constant(function(input.ours.data).astype(input.ours.dtype))
        x = input if input.is_floating_point() or input.ours.dtype.kind == "c" else input.to(float32)
        return Tensor.of(autograd.apply(kernel, x.ours), f"{name.capitalize()}Backward0")

    return run


def _values(name: str, x: Tensor) -> Array:
    """The numbers, for an operation that has no gradient here."""
    if x.requires_grad and autograd.is_grad_enabled():
        raise NotOffered(f"torch.{name} has no gradient here: use .detach(), or no_grad()")
    return x.ours.data


def nan_to_num(input: Tensor, nan: float = 0.0, posinf: float | None = None, neginf: float | None = None) -> Tensor:
    """NaN becomes `nan`, and infinities the largest numbers of the dtype, or what is given."""
    x, limits = input, np.finfo(input.ours.dtype)
    for where, value in (
        (np.isnan(x.ours.data), nan),
        (x.ours.data == np.inf, float(limits.max) if posinf is None else posinf),
        (x.ours.data == -np.inf, float(limits.min) if neginf is None else neginf),
    ):
        x = x.masked_fill(constant(where), value)
    return x


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """To the nearest whole number, or to some decimals; halves go to the even one."""

    def kernel(x: Array) -> Result:
        return np.round(x, decimals), lambda g: (np.zeros_like(g),)

    return Tensor.of(autograd.apply(kernel, input.ours), "RoundBackward0")


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """input + weight · (end − input)."""
    return input + weight * (end - input)  # type: ignore[no-any-return]


_SMALL = 1024  # elements of an example
_ADDED = (0, 4, 5, 6, 1, 2, 3)  # the order in which PyTorch adds up to seven numbers that lie side by side


def _as_added(x: Tensor, dim: Any) -> Tensor:
    """The same in PyTorch's order of adding. The book's examples are rows of 6, whose means it prints as 9.9341e-09."""
    n = x.shape[-1] if x.ndim else 0
    last = (dim is None and x.ndim == 1) or dim in (-1, x.ndim - 1, (-1,), [-1])
    side_by_side = 4 < n < 8 and x.ours.dtype == np.float32 and x.ours.data.strides[-1] == x.itemsize
    return x[..., [i for i in _ADDED if i < n]] if last and side_by_side else x


def _in_order(name: str) -> Callable[..., Tensor]:
    plain = getattr(Tensor, name)

    @functools.wraps(plain)
    def run(input: Tensor, *arguments: Any, **options: Any) -> Any:
        dim = arguments[0] if arguments else options.get("dim", options.get("axis"))
        return plain(_as_added(input, dim), *arguments, **options)

    return run


_plain_softmax = getattr(Tensor, "softmax")  # noqa: B009 (the attribute is set when the class is made)


def softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """See `tinygrad_llm.functional.softmax`. Rows of up to 8 are rounded as PyTorch rounds them: the book prints their
    sums, which are 1 or 1 ± 6e-8.
    """
    x = input if dtype is None else input.to(dtype)
    last = x.ndim > 0 and dim in (-1, x.ndim - 1)
    if not last or x.shape[-1] > 8 or x.ours.dtype != np.float32 or x.numel() > _SMALL:
        return _plain_softmax(x, dim)  # type: ignore[no-any-return]
    top = x.ours.data.max(-1, keepdims=True)
    e = (x.ours - np.where(np.isfinite(top), top, 0)).to(np.float64).exp().to(np.float32)
    with np.errstate(divide="ignore", invalid="ignore"):  # a row of −∞ alone gives NaN
        return Tensor.of(e * (1 / e.sum(-1, keepdim=True)), "SoftmaxBackward0")


# ---- sums, products and order --------------------------------------------------------------------------------------


def prod(input: Tensor, dim: int | None = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """The product of all elements, or along dim. With a gradient it is made of products of halves."""
    x = input if dtype is None else input.to(dtype)
    axis = 0 if dim is None else dim % x.ndim
    if not (x.requires_grad and autograd.is_grad_enabled()):
        kind = x.ours.dtype if x.ours.dtype.kind in "fc" else np.int64
        return constant(x.ours.data.prod(axis=dim, keepdims=keepdim and dim is not None, dtype=kind))
    y = x.ours.reshape(-1) if dim is None else x.ours
    before = (slice(None),) * axis
    while (n := y.shape[axis]) > 1:
        half = y[(*before, slice(0, n // 2))] * y[(*before, slice(n // 2, n // 2 * 2))]
        y = F.cat([half, y[(*before, slice(n - 1, n))]], axis) if n % 2 else half
    return Tensor.of(y if keepdim and dim is not None else y[(*before, 0)], "ProdBackward0")


def cumprod(input: Tensor, dim: int) -> Tensor:
    """The product of the elements so far along dim, for Tensors without a gradient."""
    return constant(np.cumprod(_values("cumprod", input), axis=dim))


def var_mean(input: Tensor, dim: Any = None, **options: Any) -> tuple[Tensor, Tensor]:
    """The variance and the mean."""
    return _spread("var", input, dim, options)


def std_mean(input: Tensor, dim: Any = None, **options: Any) -> tuple[Tensor, Tensor]:
    """The standard deviation and the mean."""
    return _spread("std", input, dim, options)


def _spread(name: str, x: Tensor, dim: Any, options: dict[str, Any]) -> tuple[Tensor, Tensor]:
    given = () if dim is None else (dim,)
    mean = {"keepdim": options["keepdim"]} if "keepdim" in options else {}
    return getattr(x, name)(*given, **options), x.mean(*given, **mean)


def quantile(input: Tensor, q: Any, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """The value below which a share q of the elements is, linear between two elements."""
    share = array_of(q).astype(input.ours.dtype)
    return constant(np.quantile(_values("quantile", input), share, axis=dim, keepdims=keepdim).astype(input.ours.dtype))


def diff(input: Tensor, n: int = 1, dim: int = -1) -> Tensor:
    """Each element minus the one before it, n times."""
    before = (slice(None),) * (dim % input.ndim)
    for _ in range(n):
        input = input[(*before, slice(1, None))] - input[(*before, slice(None, -1))]
    return input


def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal."""
    return Tensor.of(input.diagonal().ours.sum(), "TraceBackward0")


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or the matrix with this diagonal."""
    if input.ndim == 2:
        return Tensor.of(input.diagonal(diagonal).ours, "DiagonalBackward0")
    n = len(input) + abs(diagonal)
    square = constant(np.zeros((n, n), input.ours.dtype))
    i = np.arange(len(input))
    square[i + max(-diagonal, 0), i + max(diagonal, 0)] = input
    return square


def corrcoef(input: Tensor) -> Tensor:
    """The correlations of the rows."""
    return constant(np.corrcoef(_values("corrcoef", input)).astype(input.ours.dtype))


def cov(input: Tensor) -> Tensor:
    """The covariances of the rows."""
    return constant(np.cov(_values("cov", input)).astype(input.ours.dtype))


def cdist(x1: Tensor, x2: Tensor, p: float = 2.0) -> Tensor:
    """The distance of each row of one to each row of the other."""
    away = (x1.unsqueeze(-2) - x2.unsqueeze(-3)).norm(p, dim=-1)
    return Tensor.of(away.ours, "CdistBackward0")


def isin(elements: Tensor, test_elements: Tensor) -> Tensor:
    """Whether each element is among the others."""
    return constant(np.isin(array_of(elements), array_of(test_elements)))


def searchsorted(sorted_sequence: Tensor, values: Any, *, right: bool = False) -> Tensor:
    """Where each value belongs in a sorted row."""
    side: Any = "right" if right else "left"
    return constant(np.searchsorted(array_of(sorted_sequence), array_of(values), side))


def bucketize(input: Any, boundaries: Tensor, *, right: bool = False) -> Tensor:
    """The number of the interval between boundaries that holds each element."""
    return searchsorted(boundaries, input, right=right)


def argwhere(input: Tensor) -> Tensor:
    """The indices of the elements that are not 0."""
    return input.nonzero()  # type: ignore[no-any-return]


def cummax(input: Tensor, dim: int) -> ReturnType:
    """The largest element so far along dim, and where it is."""
    x = np.moveaxis(_values("cummax", input), dim, -1)
    highest = np.maximum.accumulate(x, axis=-1)
    index = np.maximum.accumulate(np.where(x == highest, np.arange(x.shape[-1]), 0), axis=-1)
    return ReturnType("cummax", constant(np.moveaxis(highest, -1, dim)), constant(np.moveaxis(index, -1, dim)))


# ---- products ------------------------------------------------------------------------------------------------------


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """beta · input + alpha · mat1 @ mat2."""
    product = mat1 @ mat2
    y = (input if beta == 1 else beta * input) + (product if alpha == 1 else alpha * product)
    return Tensor.of(y.ours, "AddmmBackward0" if product.ndim == 2 else "BaddbmmBackward0")


baddbmm = addmm


def inner(input: Tensor, other: Tensor) -> Tensor:
    """The product along the last axes."""
    return input @ other.mT if other.ndim > 1 else input @ other


def kron(input: Tensor, other: Tensor) -> Tensor:
    """Every product of an element of one with the whole other, for Tensors without a gradient."""
    return constant(np.kron(_values("kron", input), _values("kron", other)))


# ---- shape ---------------------------------------------------------------------------------------------------------


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """Move axes to other places."""
    order = np.moveaxis(np.empty(range(input.ndim), object), source, destination).shape
    return input.permute(*order)  # type: ignore[no-any-return]


def ravel(input: Tensor) -> Tensor:
    """One row of all elements."""
    return input.flatten()


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """Several axes in place of one."""
    dim = dim % input.ndim
    return input.reshape(*input.shape[:dim], *sizes, *input.shape[dim + 1 :])


def narrow(input: Tensor, dim: int, start: int, length: int) -> Tensor:
    """The part of an axis from start, of this length."""
    return input[(*(slice(None),) * (dim % input.ndim), slice(int(start), int(start) + length))]


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """One place of an axis, which goes away."""
    return input[(*(slice(None),) * (dim % input.ndim), index)]


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """See `Tensor.expand`."""
    return input.expand(*size)  # type: ignore[no-any-return]


def take_along_dim(input: Tensor, indices: Tensor, dim: int | None = None) -> Tensor:
    """See `Tensor.gather`; without dim, of all elements in a row."""
    x = input.reshape(-1) if dim is None else input
    index = indices.reshape(-1) if dim is None else indices
    return x.gather(dim or 0, index)  # type: ignore[no-any-return]


# ---- changes at given places ---------------------------------------------------------------------------------------


def _add_at(x: Array, values: Array, *, at: Any) -> Result:
    """y = x with values added at the places `at`, which may repeat.   dx = g, dvalues = g[at]"""
    y = x.copy()
    np.add.at(y, at, values)

    def vjp(g: Array) -> tuple[Array, Array]:
        return g, g[at].reshape(values.shape)

    return y, vjp


def _places(x: Tensor, dim: int, index: Tensor) -> tuple[Any, ...]:
    """The places (i, …, index[i, …, j], …, j) that `gather` and `scatter` speak of."""
    where = array_of(index)
    at: list[Any] = list(np.indices(where.shape, sparse=True))
    at[dim % x.ndim] = where
    return tuple(at)


def _changed(input: Tensor, at: Any, value: Any, made_by: str) -> Tensor:
    made = input.clone()
    made[at] = value
    if made.requires_grad:
        made.made_by = made_by
    return made


def _source(index: Tensor, value: Any) -> Any:
    return value[tuple(slice(0, n) for n in index.shape)] if isinstance(value, Tensor) and value.ndim else value


def scatter(input: Tensor, dim: int, index: Tensor, src: Any = None, *, value: Any = None) -> Tensor:
    """Put src[i, j] into row index[i, j] of column j (dim 0), or into column index[i, j] of row i (dim 1)."""
    given = value if src is None else src
    return _changed(input, _places(input, dim, index), _source(index, given), "ScatterBackward0")


def scatter_add(input: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """Add src at the places of `scatter`."""
    a, b = together(input, _source(index, src))
    return Tensor.of(autograd.apply(_add_at, a, b, at=_places(input, dim, index)), "ScatterAddBackward0")


def index_add(input: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """Add row i of source to row index[i], along dim."""
    at = (*(slice(None),) * (dim % input.ndim), array_of(index))
    a, b = together(input, source if alpha == 1 else alpha * source)
    return Tensor.of(autograd.apply(_add_at, a, b, at=at), "IndexAddBackward0")


def index_fill(input: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    """One number in the rows that index names, along dim."""
    return _changed(input, (*(slice(None),) * (dim % input.ndim), index), value, "IndexFillBackward0")


def index_copy(input: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    """Row i of source in the place of row index[i], along dim."""
    return _changed(input, (*(slice(None),) * (dim % input.ndim), index), source, "IndexCopyBackward0")


def masked_scatter(input: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The elements of source, one after another, where the mask holds."""
    where = np.broadcast_to(array_of(mask), input.shape)
    return _changed(input, where, source.reshape(-1)[: int(where.sum())], "MaskedScatterBackward0")


# ---- new Tensors beside one ----------------------------------------------------------------------------------------


def _new(value: Callable[..., Any]) -> Callable[..., Tensor]:
    def make(self: Tensor, *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        refuse("new_…", device=device is not None and str(device) != "cpu" and device)
        shape = size[0] if len(size) == 1 and isinstance(size[0], Sequence) else size
        made = constant(value(tuple(int(n) for n in shape), numpy_of(dtype or self.dtype)))
        made.requires_grad = requires_grad
        return made

    return make


def new_full(self: Tensor, size: Sequence[int], fill_value: Any, *, dtype: Any = None) -> Tensor:
    """A Tensor of one number, in the dtype of this one."""
    return constant(np.full(tuple(size), ours(fill_value), numpy_of(dtype or self.dtype)))


def new_tensor(self: Tensor, data: Any, *, dtype: Any = None) -> Tensor:
    """A Tensor of these numbers, in the dtype of this one."""
    return constant(np.array(ours(data), numpy_of(dtype or self.dtype)))


# ---- the lists -----------------------------------------------------------------------------------------------------

_BOTH = (
    addmm, argwhere, baddbmm, broadcast_to, bucketize, cdist, corrcoef, cov, cummax, cumprod, diag, diff, index_add,
    index_copy, index_fill, inner, isin, kron, lerp, masked_scatter, movedim, nan_to_num, narrow, prod, quantile, ravel,
    round, scatter, scatter_add, searchsorted, select, softmax, std_mean, take_along_dim, trace, unflatten, var_mean,
)  # fmt: skip
_METHODS_ONLY = {
    "new_zeros": _new(np.zeros), "new_ones": _new(np.ones), "new_empty": _new(np.zeros), "new_full": new_full,
    "new_tensor": new_tensor, "is_complex": lambda self: self.ours.dtype.kind == "c", "pin_memory": lambda self: self,
    "ndimension": Tensor.dim, "get_device": lambda self: -1, "is_nonzero": Tensor.__bool__,
}  # fmt: skip
# Another name of the same.
_ALIASES = {
    "moveaxis": "movedim", "swapdims": "transpose", "arctan": "atan", "multiply": "mul", "divide": "div",
    "true_divide": "div", "subtract": "sub", "negative": "neg", "greater": "gt", "greater_equal": "ge", "less": "lt",
    "less_equal": "le", "not_equal": "ne", "absolute": "abs", "clip": "clamp", "ger": "outer", "vdot": "dot",
    "bitwise_and": "__and__", "bitwise_or": "__or__", "bitwise_xor": "__xor__", "bitwise_not": "__invert__",
    "tile": "repeat",
}  # fmt: skip
# These also change a Tensor in place, as exp_.
_IN_PLACE = [
    "abs", "ceil", "cos", "exp", "floor", "log", "neg", "pow", "reciprocal", "round", "rsqrt", "sigmoid", "sin",
    "softmax", "sqrt", "square", "tanh", "tril", "triu", "trunc", "clip", "nan_to_num", "scatter",
    "scatter_add", "index_add", "index_fill", "index_copy", "masked_scatter", "lerp", "remainder",
]  # fmt: skip


def _in_place(name: str) -> Callable[..., Tensor]:
    def run(self: Tensor, *arguments: Any, **options: Any) -> Tensor:
        made = getattr(Tensor, name)(self, *arguments, **options)
        return self._become(made.ours, made.made_by)

    run.__doc__ = f"`{name}`, in place."
    return run


def _attach() -> list[str]:
    """Give Tensor all of these methods. Returns: the names that are functions of `torch`, too."""
    functions: dict[str, Callable[..., Any]] = {name: _pointwise(name) for name in _POINTWISE}
    functions |= {name: _rounded_once(name) for name in ("exp", "log")}
    functions |= {name: _in_order(name) for name in ("sum", "mean")}
    functions |= {function.__name__: function for function in _BOTH} | {"baddbmm": baddbmm}
    for name, function in (functions | _METHODS_ONLY).items():
        setattr(Tensor, name, function)
    for name, other in _ALIASES.items():
        setattr(Tensor, name, getattr(Tensor, other))
    for name in _IN_PLACE:
        setattr(Tensor, f"{name}_", _in_place(name))
    return [*functions, *_ALIASES]


NAMES = _attach()
