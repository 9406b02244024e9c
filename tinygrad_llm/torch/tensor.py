"""`torch.Tensor`: PyTorch's words for a `tinygrad_llm.Tensor`, which it holds and which does all the work.

A Tensor here is a handle: an operation in place puts another value into it, so that a recorded one has its gradient.
"""

import math
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm import autograd
from tinygrad_llm import functional as F
from tinygrad_llm.autograd.tensor import dims
from tinygrad_llm.torch import printing
from tinygrad_llm.torch.dtypes import (
    CPU,
    Size,
    bool_,
    check_device,
    complex64,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    no_bfloat16,
    numpy_of,
    of_numpy,
    uint8,
)
from tinygrad_llm.torch.dtypes import device as Device
from tinygrad_llm.torch.dtypes import dtype as Dtype
from tinygrad_llm.torch.missing import NotOffered, missing, refuse
from tinygrad_llm.torch.streams import stream

Array = NDArray[Any]
_LEAF = "a leaf Variable that requires grad is being used in an in-place operation."


class GradFn:
    """What made a Tensor, by PyTorch's name of it."""

    def __init__(self, name: str) -> None:
        self._name = name

    def name(self) -> str:
        return self._name

    def __repr__(self) -> str:
        return f"<{self._name} object at {id(self):#x}>"


class ReturnType(tuple["Tensor", "Tensor"]):
    """Values and their indices, as `topk`, `sort`, `max` and `min` return them."""

    kind: str

    def __new__(cls, kind: str, values: "Tensor", indices: "Tensor") -> Self:
        made = super().__new__(cls, (values, indices))
        made.kind = kind
        return made

    @property
    def values(self) -> "Tensor":
        return self[0]

    @property
    def indices(self) -> "Tensor":
        return self[1]

    def __repr__(self) -> str:
        return f"torch.return_types.{self.kind}(\nvalues={self[0]!r},\nindices={self[1]!r})"


def ours(x: Any) -> Any:
    """The same with our Tensors in place of PyTorch's words for them, inside lists, tuples and slices, too."""
    if isinstance(x, Tensor):
        return x.ours
    if isinstance(x, list | tuple):
        return type(x)(ours(item) for item in x) if type(x) in (list, tuple) else tuple(ours(item) for item in x)
    if isinstance(x, slice):
        return slice(*(None if end is None else operator.index(end) for end in (x.start, x.stop, x.step)))
    return numpy_of(x) if isinstance(x, Dtype) else x


def wrap(y: Any, made_by: str = "") -> Any:
    """The result of one of our operations in PyTorch's words. Args: made_by: the name of its `grad_fn`."""
    if isinstance(y, autograd.Tensor):
        return Tensor.of(y, made_by)
    if isinstance(y, tuple) and hasattr(y, "_fields"):
        return ReturnType(made_by[:3].lower(), wrap(y[0], made_by), wrap(y[1]))
    return tuple(wrap(item, made_by) for item in y) if isinstance(y, tuple) else y


def array_of(x: Any) -> Array:
    """The array of a Tensor, or what NumPy makes of something else."""
    return x.ours.data if isinstance(x, Tensor) else np.asarray(x)


def constant(array: Any) -> "Tensor":
    """A Tensor without a gradient, which shares the memory of an array."""
    return Tensor.of(autograd.Tensor(np.asarray(array)))


def zero_grads(parameters: Iterable["Tensor"], set_to_none: bool) -> None:
    """Forget the gradients of some Tensors, or set them to zero in place."""
    for p in parameters:
        if set_to_none or p.grad is None:
            p.grad = None
        else:
            p.grad.zero_()


def together(a: Any, b: Any) -> tuple[Any, Any]:
    """Two operands as ours, in the dtype that PyTorch gives them both.

    The kind counts first (a float wins over any integer), then whether there are axes, then the precision.
    """
    a, b = (constant(x) if isinstance(x, np.ndarray) else x for x in (a, b))
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.ours.dtype != b.ours.dtype:
        common = common_dtype(a.ours.data, b.ours.data)
        return a.ours.to(common), b.ours.to(common)
    return ours(a), ours(b)


def common_dtype(*arrays: Array) -> np.dtype[Any]:
    """PyTorch's dtype for an operation on several arrays."""
    kinds = "biufc".replace("u", "")
    rank = [kinds.index(x.dtype.kind.replace("u", "i")) for x in arrays]
    high = [x for x, r in zip(arrays, rank, strict=True) if r == max(rank)]
    return np.result_type(*{x.dtype for x in ([x for x in high if x.ndim] or high)})


def does_not_fit(error: ValueError, a: Any, b: Any) -> RuntimeError:
    """PyTorch's error for shapes that do not broadcast, or for another one of ours about values."""
    shapes = [getattr(x, "shape", ()) for x in (a, b)]
    n = max(map(len, shapes))
    one, other = ((1,) * (n - len(shape)) + tuple(shape) for shape in shapes)
    for axis in range(n - 1, -1, -1):
        if one[axis] != other[axis] and 1 not in (one[axis], other[axis]):
            return RuntimeError(
                f"The size of tensor a ({one[axis]}) must match the size of tensor b ({other[axis]}) at non-singleton "
                f"dimension {axis}"
            )
    return RuntimeError(str(error))


def _binary(made_by: str, operation: Callable[[Any, Any], Any], reflected: bool = False) -> Any:
    def run(self: "Tensor", other: Any) -> Any:
        if not isinstance(other, Tensor | np.ndarray | np.generic | int | float | complex):
            return NotImplemented
        a, b = together(self, other)
        try:
            return wrap(operation(b, a) if reflected else operation(a, b), made_by)
        except ValueError as error:
            raise does_not_fit(error, self, other) from None

    return run


def _in_place(made_by: str, operation: Callable[[Any, Any], Any]) -> Any:
    def run(self: "Tensor", other: Any) -> Any:
        if self.requires_grad and self.is_leaf and autograd.is_grad_enabled():
            raise RuntimeError(_LEAF)
        try:
            self.ours = operation(self.ours, together(self, other)[1])
        except ValueError as error:
            raise does_not_fit(error, self, other) from None
        self.made_by = made_by
        return self

    return run


def _toward_0(a: Array, b: Any) -> Array:
    quotient: Array = np.trunc(np.true_divide(a, b))
    return quotient.astype(np.result_type(a, b))


def _compared(operation: Callable[[Any, Any], Any]) -> Any:
    def run(self: "Tensor", other: Any) -> Any:
        if not isinstance(other, Tensor | np.ndarray | np.generic | int | float | complex):
            return NotImplemented
        return wrap(operation(self.ours, ours(other)))

    return run


def _of_values(function: Callable[..., Any], reflected: bool = False) -> Any:
    """An operation on values that has no gradient here."""

    def run(self: "Tensor", *others: Any) -> Any:
        if not all(isinstance(x, Tensor | np.ndarray | np.generic | int | float) for x in others):
            return NotImplemented
        if autograd.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in (self, *others)):
            raise NotOffered(f"torch.{function.__name__} has no gradient here: use .detach(), or no_grad()")
        values = [array_of(x) if isinstance(x, Tensor) else x for x in (self, *others)]
        result = np.asarray(function(*(reversed(values) if reflected else values)))
        if result.dtype == np.float64 and all(getattr(x, "dtype", None) != np.float64 for x in values):
            result = result.astype(np.float32)
        return constant(result)

    return run


def no_product(error: ValueError, a: tuple[int, ...], b: tuple[int, ...]) -> RuntimeError:
    """PyTorch's error for two arrays that have no product."""
    if len(a) >= 2 == len(b):
        rows = math.prod(a[:-1])
        return RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({rows}x{a[-1]} and {b[0]}x{b[1]})")
    return RuntimeError(str(error))


def _matmul_name(a: int, b: int) -> str:
    """The name that PyTorch gives a product, by the numbers of axes."""
    names = {(1, 1): "DotBackward0", (2, 2): "MmBackward0", (2, 1): "MvBackward0", (1, 2): "SqueezeBackward4"}
    return names.get((a, b), "UnsafeViewBackward0")


class Tensor:
    """An array with a gradient, in PyTorch's words.

    Attributes: ours: the `tinygrad_llm.Tensor` that holds the numbers. made_by: the name of `grad_fn`.
    """

    __slots__ = ("__weakref__", "_kept", "made_by", "ours")
    __array_priority__ = 1000  # `array + t` asks t
    __hash__ = object.__hash__

    ours: autograd.Tensor
    made_by: str

    def __init__(self, *data: Any) -> None:
        sizes = data and all(type(n) is int for n in data)
        array = np.zeros(data if sizes or not data else array_of(data[0]).shape, np.float32)
        if data and not sizes:
            array[...] = array_of(data[0])
        self.ours, self.made_by, self._kept = autograd.Tensor(array if data else np.zeros(0, np.float32)), "", None

    @classmethod
    def of(cls, value: autograd.Tensor, made_by: str = "") -> "Tensor":
        """The words for one of our Tensors, which is shared."""
        made = object.__new__(Tensor)
        made.ours, made.made_by, made._kept = value, made_by, None
        return made

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name == "bfloat16":
            raise no_bfloat16()
        raise missing("torch.Tensor", name, [one for one in dir(type(self)) if not one.startswith("_")])

    # ---- form ----------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> Size:
        return Size(self.ours.shape)

    @property
    def ndim(self) -> int:
        return self.ours.ndim

    @property
    def dtype(self) -> Dtype:
        return of_numpy(self.ours.dtype)

    @property
    def device(self) -> Device:
        return CPU

    @property
    def is_cuda(self) -> bool:
        return False

    @property
    def data(self) -> "Tensor":
        """The same numbers, in the same memory, without a gradient."""
        return constant(self.ours.data)

    @data.setter
    def data(self, value: "Tensor") -> None:
        self.ours.data = array_of(value)

    @property
    def itemsize(self) -> int:
        return self.ours.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.ours.data.nbytes

    def size(self, dim: int | None = None) -> Any:
        return self.shape if dim is None else self.ours.size(dim)

    def dim(self) -> int:
        return self.ours.ndim

    def numel(self) -> int:
        return self.ours.numel()

    nelement = numel

    def element_size(self) -> int:
        return self.ours.dtype.itemsize

    def stride(self, dim: int | None = None) -> Any:
        strides = tuple(n // self.ours.dtype.itemsize for n in self.ours.data.strides)
        return strides if dim is None else strides[dim]

    def data_ptr(self) -> int:
        return self.ours.data.ctypes.data

    def is_floating_point(self) -> bool:
        return self.ours.dtype.kind == "f"

    def is_contiguous(self) -> bool:
        # The result of an operation counts as contiguous, in whatever order NumPy keeps it.
        return self.ours.data.flags.c_contiguous or self.ours.data.base is None

    def contiguous(self) -> "Tensor":
        if self.ours.data.flags.c_contiguous:
            return self
        made = self.clone()
        made.ours.data = np.ascontiguousarray(made.ours.data)
        return made

    # ---- to Python and NumPy -------------------------------------------------------------------------------------

    def item(self) -> Any:
        if self.numel() != 1:
            raise RuntimeError(f"a Tensor with {self.numel()} elements cannot be converted to Scalar")
        return self.ours.item()

    def tolist(self) -> Any:
        return self.ours.tolist()

    def numpy(self, *, force: bool = False) -> Array:
        """The array itself, not a copy."""
        if self.requires_grad and not force:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        return self.ours.data

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.ours)

    def __iter__(self) -> Iterator["Tensor"]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d tensor")
        return iter(self.unbind())

    def __contains__(self, x: Any) -> bool:
        return bool((self == x).ours.data.any())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __complex__(self) -> complex:
        return complex(self.item())

    def __index__(self) -> int:
        return self.ours.__index__()

    def __bool__(self) -> bool:
        if self.numel() != 1:
            what = "more than one value" if self.numel() else "no values"
            raise RuntimeError(f"Boolean value of Tensor with {what} is ambiguous")
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if not self.ndim else object.__format__(self, spec)

    def __repr__(self) -> str:
        prefix, suffixes = "tensor(", []
        array = self.ours.data
        text = printing.array_text(array, len(prefix)) if array.size else "[]"
        if not array.size and array.ndim != 1:
            suffixes.append(f"size={tuple(array.shape)}")
        default = self.dtype is float32 or (array.size and self.dtype in (int64, bool_, complex64))
        if not default:
            suffixes.append(f"dtype={self.dtype}")
        if self.requires_grad:
            suffixes.append("requires_grad=True" if self.is_leaf else f"grad_fn=<{self.made_by}>")
        return printing.with_suffixes(prefix + text, suffixes, len(prefix))

    # ---- gradients -----------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        return self.ours.requires_grad

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value and self.ours.dtype.kind not in "fc":
            raise RuntimeError("only Tensors of floating point and complex dtype can require gradients")
        self.ours.requires_grad = value

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        self.requires_grad = requires_grad
        return self

    @property
    def is_leaf(self) -> bool:
        return self.ours.is_leaf

    @property
    def grad_fn(self) -> GradFn | None:
        return None if self.is_leaf else GradFn(self.made_by)

    @property
    def grad(self) -> "Tensor | None":
        """The gradient so far. It shares its memory: `t.grad.zero_()` changes it."""
        array = self._kept if self._kept is not None else self.ours.grad
        return None if array is None else constant(array)

    @grad.setter
    def grad(self, value: "Tensor | None") -> None:
        self._kept = None
        self.ours.grad = None if value is None else array_of(value)

    def register_hook(self, hook: "Callable[[Tensor], Tensor | None]") -> Any:
        """Call `hook(gradient)` when the gradient is complete; what it returns takes its place."""

        def run(g: Array) -> Array | None:
            new = hook(constant(g))
            return None if new is None else array_of(new)

        return self.ours.register_hook(run)

    def retain_grad(self) -> None:
        """Keep the gradient of a computed Tensor, too."""
        if not self.is_leaf:
            self.ours.register_hook(lambda g: setattr(self, "_kept", g.copy()))

    def backward(
        self, gradient: "Tensor | None" = None, retain_graph: bool | None = None, create_graph: bool = False
    ) -> None:
        if create_graph:
            raise NotOffered("create_graph=True: second derivatives are checked by tinygrad_llm.gradcheck.second_order")
        if self.ours.requires_grad is False:
            raise RuntimeError("element 0 of tensors does not require grad and does not have a grad_fn")
        if gradient is None and self.numel() != 1:
            raise RuntimeError("grad can be implicitly created only for scalar outputs")
        self.ours.backward(ours(gradient), retain_graph=bool(retain_graph))

    def detach(self) -> "Tensor":
        return constant(self.ours.data)

    def clone(self) -> "Tensor":
        return Tensor.of(self.ours.clone(), "CloneBackward0")

    # copy.deepcopy and pickle: a leaf, as in PyTorch.

    def __getstate__(self) -> autograd.Tensor:
        return self.ours

    def __setstate__(self, state: autograd.Tensor) -> None:
        self.ours, self.made_by, self._kept = state, "", None

    # ---- dtype and device ----------------------------------------------------------------------------------------

    def to(self, *where: Any, dtype: Any = None, device: Any = None, copy: bool = False, **options: Any) -> "Tensor":
        """This Tensor in another dtype; a device may be "cpu" only."""
        for one in where:
            if isinstance(one, Tensor):
                dtype = one.dtype
            elif isinstance(one, bool) or one is None:  # non_blocking
                continue
            elif isinstance(one, Device | str):
                device = one
            else:
                dtype = one
        check_device(device)
        if dtype is None or numpy_of(dtype) == self.ours.dtype:
            return self.clone() if copy else self
        return Tensor.of(self.ours.to(numpy_of(dtype)), "ToCopyBackward0")

    def type_as(self, other: "Tensor") -> "Tensor":
        return self.to(other.dtype)

    def cpu(self) -> "Tensor":
        return self

    def cuda(self, *where: Any) -> "Tensor":
        return self.to(device="cuda")

    # ---- arithmetic ----------------------------------------------------------------------------------------------

    __add__ = _binary("AddBackward0", operator.add)
    __radd__ = _binary("AddBackward0", operator.add, reflected=True)
    __sub__ = _binary("SubBackward0", operator.sub)
    __rsub__ = _binary("RsubBackward1", operator.sub, reflected=True)
    __mul__ = _binary("MulBackward0", operator.mul)
    __rmul__ = _binary("MulBackward0", operator.mul, reflected=True)
    __truediv__ = _binary("DivBackward0", operator.truediv)
    __rtruediv__ = _binary("MulBackward0", operator.truediv, reflected=True)  # PyTorch: other · 1/x
    __rpow__ = _binary("PowBackward1", operator.pow, reflected=True)
    __iadd__ = _in_place("AddBackward0", operator.iadd)
    __isub__ = _in_place("SubBackward0", operator.isub)
    __imul__ = _in_place("MulBackward0", operator.imul)
    __itruediv__ = _in_place("DivBackward0", operator.itruediv)
    __ipow__ = _in_place("PowBackward0", operator.ipow)
    __eq__ = _compared(operator.eq)
    __ne__ = _compared(operator.ne)
    __lt__ = _compared(operator.lt)
    __le__ = _compared(operator.le)
    __gt__ = _compared(operator.gt)
    __ge__ = _compared(operator.ge)
    __and__ = _of_values(np.bitwise_and)
    __rand__ = _of_values(np.bitwise_and)
    __or__ = _of_values(np.bitwise_or)
    __ror__ = _of_values(np.bitwise_or)
    __xor__ = _of_values(np.bitwise_xor)
    __invert__ = _of_values(np.invert)
    __floordiv__ = _of_values(np.floor_divide)
    __rfloordiv__ = _of_values(np.floor_divide, reflected=True)
    __mod__ = _of_values(np.remainder)
    __rmod__ = _of_values(np.remainder, reflected=True)
    mul, eq, ne, lt, le, gt, ge = __mul__, __eq__, __ne__, __lt__, __le__, __gt__, __ge__
    mul_, div_ = __imul__, __itruediv__

    def add(self, other: Any, *, alpha: Any = 1) -> "Tensor":
        """x + alpha · other."""
        found: Tensor = self + (other if alpha == 1 else alpha * other)
        return found

    def sub(self, other: Any, *, alpha: Any = 1) -> "Tensor":
        """x − alpha · other."""
        found: Tensor = self - (other if alpha == 1 else alpha * other)
        return found

    def add_(self, other: Any, *, alpha: Any = 1) -> Self:
        """x ← x + alpha · other."""
        self += other if alpha == 1 else alpha * other
        return self

    def sub_(self, other: Any, *, alpha: Any = 1) -> Self:
        """x ← x − alpha · other."""
        self -= other if alpha == 1 else alpha * other
        return self

    def div(self, other: Any, *, rounding_mode: str | None = None) -> "Tensor":
        """x / other; with "floor" rounded down, with "trunc" toward 0."""
        ways = {None: Tensor.__truediv__, "floor": Tensor.__floordiv__, "trunc": _of_values(_toward_0)}
        if rounding_mode not in ways:
            raise RuntimeError(f"div: rounding_mode must be None, 'floor' or 'trunc', got {rounding_mode!r}")
        found: Tensor = ways[rounding_mode](self, other)
        return found

    def __neg__(self) -> "Tensor":
        return Tensor.of(-self.ours, "NegBackward0")

    neg = __neg__

    def __pow__(self, exponent: Any) -> "Tensor":
        a, b = together(self, exponent)
        return Tensor.of(a**b, "PowBackward1" if isinstance(exponent, Tensor) else "PowBackward0")

    pow = __pow__

    def __matmul__(self, other: "Tensor") -> "Tensor":
        if not isinstance(other, Tensor):
            return NotImplemented
        if self.ours.dtype != other.ours.dtype:
            raise RuntimeError(f"expected m1 and m2 to have the same dtype, but got: {self.dtype} != {other.dtype}")
        try:
            product = self.ours @ other.ours
        except ValueError as error:
            raise no_product(error, self.shape, other.shape) from None
        return Tensor.of(product, _matmul_name(self.ndim, other.ndim))

    matmul = mm = mv = dot = __matmul__

    def bmm(self, mat2: "Tensor") -> "Tensor":
        if self.ndim != 3 or mat2.ndim != 3:
            raise RuntimeError(f"batch1 and batch2 must be 3D tensors, got {self.shape} and {mat2.shape}")
        return Tensor.of((self @ mat2).ours, "BmmBackward0")

    def outer(self, other: "Tensor") -> "Tensor":
        product: Tensor = self[:, None] * other[None, :]
        return product

    def square(self) -> "Tensor":
        return self**2

    def rsqrt(self) -> "Tensor":
        return Tensor.of(1 / self.ours.sqrt(), "RsqrtBackward0")

    def reciprocal(self) -> "Tensor":
        return Tensor.of(1 / self.ours, "ReciprocalBackward0")

    # ---- elements ------------------------------------------------------------------------------------------------

    def __getitem__(self, index: Any) -> "Tensor":
        try:
            return Tensor.of(self.ours[_arrays(index)], _index_name(index, self.shape))
        except IndexError as error:
            raise IndexError(str(error).replace("axis", "dimension")) from None

    def __setitem__(self, index: Any, value: Any) -> None:
        index = _arrays(index)
        recorded = autograd.is_grad_enabled() and (
            self.requires_grad or (isinstance(value, Tensor) and value.requires_grad)
        )
        if not recorded or (self.requires_grad and self.is_leaf):  # which raises
            self.ours[index] = ours(value)
            return
        # The element that each place takes: its number among those written, or −1 for its own.
        number = np.full(self.shape, -1)
        written = number[index].shape
        number[index] = np.arange(math.prod(written)).reshape(written)
        new = constant(np.asarray(value, self.ours.dtype)) if not isinstance(value, Tensor) else value
        values = new.ours.expand(*written).reshape(-1)[np.maximum(number, 0)]
        self.ours, self.made_by = F.where(number >= 0, values, self.ours), "CopySlices"

    def unbind(self, dim: int = 0) -> "tuple[Tensor, ...]":
        (dim,) = dims((dim,), self.ours.shape, scalar=False)
        at = (slice(None),) * dim
        return tuple(Tensor.of(self.ours[(*at, i)], "UnbindBackward0") for i in range(self.shape[dim]))

    def index_select(self, dim: int, index: "Tensor") -> "Tensor":
        at = (slice(None),) * (dim % self.ndim)
        return Tensor.of(self.ours[(*at, array_of(index))], "IndexSelectBackward0")

    def masked_select(self, mask: "Tensor") -> "Tensor":
        return Tensor.of(self.ours[array_of(mask)], "MaskedSelectBackward0")

    def repeat(self, *sizes: Any) -> "Tensor":
        """The whole array again and again along each axis; new axes come first."""
        times = tuple(sizes[0]) if len(sizes) == 1 and isinstance(sizes[0], Sequence) else sizes
        index = np.tile(np.arange(self.numel()).reshape(self.shape), times)
        return Tensor.of(self.ours.reshape(-1)[index], "RepeatBackward0")

    def repeat_interleave(self, repeats: "int | Tensor", dim: int | None = None) -> "Tensor":
        """Each element several times in a row."""
        made_by = "IndexSelectBackward0" if isinstance(repeats, Tensor) else "ViewBackward0"
        x = self.ours.reshape(-1) if dim is None else self.ours
        axis = 0 if dim is None else dim % self.ndim
        index = np.repeat(np.arange(x.shape[axis]), array_of(repeats))
        return Tensor.of(x[(*(slice(None),) * axis, index)], made_by)

    def flip(self, *axes: Any, **options: Any) -> "Tensor":
        axes = (options["dims"],) if "dims" in options else axes
        named = dims(axes[0] if len(axes) == 1 else axes, self.ours.shape)
        index = tuple(slice(None, None, -1 if i in named else None) for i in range(self.ndim))
        return Tensor.of(self.ours[index], "FlipBackward0")

    def roll(self, shifts: int, dims: int | None = None) -> "Tensor":
        index = np.roll(np.arange(self.numel()).reshape(self.shape), shifts, dims)
        return Tensor.of(self.ours.reshape(-1)[index], "RollBackward0")

    def diagonal(self, offset: int = 0, dim1: int = 0, dim2: int = 1) -> "Tensor":
        """The diagonal of two axes, which becomes the last axis."""
        first, second = dim1 % self.ndim, dim2 % self.ndim
        rest = [axis for axis in range(self.ndim) if axis not in (first, second)]
        x = self.ours.permute(first, second, *rest)
        i = np.arange(len(np.diagonal(x.data, offset).T))
        y = x[i + max(-offset, 0), i + max(offset, 0)]
        return Tensor.of(y.permute(*range(1, y.ndim), 0), "DiagonalBackward0")

    def where(self, condition: "Tensor", other: Any) -> "Tensor":
        a, b = together(self, other)
        return Tensor.of(F.where(array_of(condition), a, b), "WhereBackward0")

    # ---- order and counts ----------------------------------------------------------------------------------------

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> "Tensor":
        return Tensor.of(self.ours.argmax(dim, keepdim))

    def argmin(self, dim: int | None = None, keepdim: bool = False) -> "Tensor":
        return Tensor.of((-self.ours.detach()).argmax(dim, keepdim))

    def argsort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> "Tensor":
        values = self.ours.data
        if not descending:
            return constant(np.argsort(values, axis=dim, kind="stable"))
        backwards = np.argsort(np.flip(values, dim), axis=dim, kind="stable")  # equal elements keep their order
        return constant(values.shape[dim] - 1 - np.flip(backwards, dim))

    def sort(self, dim: int = -1, descending: bool = False, stable: bool = True) -> ReturnType:
        index = self.argsort(dim, descending)
        return ReturnType("sort", Tensor.of(self.ours.gather(dim, index.ours), "SortBackward0"), index)

    def topk(self, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> ReturnType:
        """The k largest elements along dim, and where they are. Raises RuntimeError: there are fewer."""
        if not 0 <= k <= (self.shape[dim] if self.ndim else 1):
            raise RuntimeError("selected index k out of range")
        order = array_of(self.argsort(dim, descending=largest))
        index = constant(np.take(order, np.arange(k), axis=dim))
        return ReturnType("topk", Tensor.of(self.ours.gather(dim, index.ours), "TopkBackward0"), index)

    def multinomial(self, num_samples: int, replacement: bool = False, *, generator: Any = None) -> "Tensor":
        """Indices drawn in proportion to the numbers, from the global stream or from `generator`."""
        return constant(stream(generator).multinomial(self.ours.data, num_samples, replacement))

    def bincount(self, weights: "Tensor | None" = None, minlength: int = 0) -> "Tensor":
        counts = np.bincount(self.ours.data, None if weights is None else array_of(weights), minlength)
        return constant(counts if weights is None else counts.astype(array_of(weights).dtype))  # NumPy's is float64

    def nonzero(self, *, as_tuple: bool = False) -> Any:
        found = np.nonzero(self.ours.data) if self.ndim else (np.zeros(int(bool(self.item())), int),)
        return tuple(map(constant, found)) if as_tuple else constant(np.stack(found, 1)[:, : self.ndim])

    def count_nonzero(self) -> "Tensor":
        return constant(np.count_nonzero(self.ours.data))

    def unique(self, sorted: bool = True, return_counts: bool = False) -> Any:
        values, counts = np.unique(self.ours.data, return_counts=True)
        return (constant(values), constant(counts)) if return_counts else constant(values)

    def any(self, dim: Any = None, keepdim: bool = False) -> "Tensor":
        return constant(np.any(self.ours.data, axis=dim, keepdims=keepdim))

    def all(self, dim: Any = None, keepdim: bool = False) -> "Tensor":
        return constant(np.all(self.ours.data, axis=dim, keepdims=keepdim))

    def median(self) -> "Tensor":
        return self.reshape(-1).sort().values[(self.numel() - 1) // 2]

    def equal(self, other: "Tensor") -> bool:
        return np.array_equal(self.ours.data, array_of(other))

    def isclose(self, other: "Tensor", rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> "Tensor":
        return constant(np.isclose(self.ours.data, array_of(other), rtol, atol, equal_nan))

    def allclose(self, other: "Tensor", rtol: Any = 1e-5, atol: Any = 1e-8, equal_nan: bool = False) -> bool:
        return bool(array_of(self.isclose(other, rtol, atol, equal_nan)).all())

    # ---- shape ---------------------------------------------------------------------------------------------------

    def reshape(self, *shape: Any) -> "Tensor":
        try:
            y = self.ours.reshape(*shape)
        except ValueError:
            wanted = list(shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape)
            raise RuntimeError(f"shape '{wanted}' is invalid for input of size {self.numel()}") from None
        shared = np.may_share_memory(y.data, self.ours.data)
        return Tensor.of(y, "ViewBackward0" if shared else "UnsafeViewBackward0")

    def view(self, *shape: Any) -> "Tensor":
        if len(shape) == 1 and isinstance(shape[0], Dtype):
            return constant(self.ours.data.view(shape[0].numpy))
        y = self.reshape(*shape)
        if not self.is_contiguous() and y.numel() and not np.may_share_memory(y.ours.data, self.ours.data):
            raise RuntimeError(
                "view size is not compatible with input tensor's size and stride (at least one dimension spans across "
                "two contiguous subspaces). Use .reshape(...) instead."
            )
        return y

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> "Tensor":
        y = self.ours.flatten(start_dim, end_dim)
        return self if y.shape == self.ours.shape else self.reshape(*y.shape)

    def view_as(self, other: "Tensor") -> "Tensor":
        return self.view(*other.shape)

    def expand_as(self, other: "Tensor") -> "Tensor":
        return self.expand(*other.shape)  # type: ignore[no-any-return]

    @property
    def T(self) -> "Tensor":
        return Tensor.of(self.ours.T, "PermuteBackward0")

    @property
    def mT(self) -> "Tensor":
        return Tensor.of(self.ours.mT, "TransposeBackward0")

    def t(self) -> "Tensor":
        return Tensor.of(self.ours.T, "TBackward0")

    # ---- in place ------------------------------------------------------------------------------------------------

    def _become(self, new: autograd.Tensor, made_by: str = "") -> Self:
        """Take the value of another Tensor: with its gradient if it is recorded, else in the same memory."""
        if new.requires_grad and autograd.is_grad_enabled():
            if self.requires_grad and self.is_leaf:
                raise RuntimeError(_LEAF)
            self.ours, self.made_by = new, made_by
        else:
            self.ours[...] = new
        return self

    def masked_fill_(self, mask: "Tensor", value: Any) -> Self:
        return self._become(self.ours.masked_fill(array_of(mask), ours(value)), "MaskedFillBackward0")

    def clamp_(self, min: Any = None, max: Any = None) -> Self:
        return self._become(self.ours.clamp(ours(min), ours(max)), "ClampBackward1")

    def relu_(self) -> Self:
        return self._become(self.ours.relu(), "ReluBackward0")

    def copy_(self, source: "Tensor") -> Self:
        new = source.ours.to(self.ours.dtype)
        return self._become(new.expand(*self.shape), "CopyBackwards")

    def fill_(self, value: Any) -> Self:
        return self._become(autograd.Tensor(np.asarray(ours(value), self.ours.dtype)))

    def zero_(self) -> Self:
        return self.fill_(0)

    def _drawn(self, draw: Callable[..., Array], *arguments: Any) -> Self:
        return self._become(autograd.Tensor(draw(*arguments, self.ours.shape, self.ours.dtype)))

    def uniform_(self, a: Any = 0.0, b: Any = 1.0, *, generator: Any = None) -> Self:
        return self._drawn(stream(generator).uniform, a, b)

    def normal_(self, mean: Any = 0.0, std: Any = 1.0, *, generator: Any = None) -> Self:
        return self._drawn(stream(generator).normal, mean, std)

    def exponential_(self, lambd: Any = 1.0, *, generator: Any = None) -> Self:
        refuse("exponential_", lambd=lambd != 1.0 and lambd)
        return self._drawn(stream(generator).exponential)

    def random_(self, *limits: Any, generator: Any = None) -> Self:
        low, high = (0, *limits) if len(limits) == 1 else limits or (0, 2**63 - 1)
        drawn = (
            stream(generator).randint(low, high, self.ours.shape)
            if limits
            else np.reshape([stream(generator).random_seed() for _ in range(self.numel())], self.ours.shape)
        )
        return self._become(autograd.Tensor(np.asarray(drawn, self.ours.dtype)))


def _arrays(index: Any) -> Any:
    """An index for one of our Tensors: arrays for Tensors, also inside a tuple; lists become arrays."""
    if isinstance(index, tuple):
        return tuple(_arrays(part) for part in index)
    if isinstance(index, list):
        return np.asarray([array_of(x) if isinstance(x, Tensor) else x for x in index], int if not index else None)
    if isinstance(index, Tensor):
        return index.ours.data if index.ndim or index.ours.dtype == bool else int(index)
    return ours(index)


def _index_name(index: Any, shape: tuple[int, ...]) -> str:
    """What PyTorch calls the last step of an index."""
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(part, list | np.ndarray) or (isinstance(part, Tensor) and part.ndim) for part in parts):
        return "IndexBackward0"
    name, axis = "AliasBackward0", 0
    for part in parts:
        if part is Ellipsis:
            axis = len(shape) - sum(x is not None and x is not Ellipsis for x in parts) + axis
        elif part is None:
            name = "UnsqueezeBackward0"
        elif isinstance(part, slice):
            if part.indices(shape[axis]) != (0, shape[axis], 1):
                name = "SliceBackward0"
            axis += 1
        else:
            name, axis = "SelectBackward0", axis + 1
    return name


# Methods whose words are PyTorch's already, with the names that PyTorch gives their results.
_SAME = {
    "abs": "AbsBackward0", "amax": "AmaxBackward0", "amin": "AminBackward0", "chunk": "SplitBackward0",
    "clamp": "ClampBackward1", "cumsum": "CumsumBackward0", "erf": "ErfBackward0",
    "expand": "ExpandBackward0", "gather": "GatherBackward0",
    "log_softmax": "LogSoftmaxBackward0", "logsumexp": "LogsumexpBackward0", "masked_fill": "MaskedFillBackward0",
    "max": "MaxBackward", "maximum": "MaximumBackward0", "mean": "MeanBackward", "min": "MinBackward",
    "minimum": "MinimumBackward0", "norm": "LinalgVectorNormBackward0", "permute": "PermuteBackward0",
    "relu": "ReluBackward0", "sigmoid": "SigmoidBackward0", "softmax": "SoftmaxBackward0", "split": "SplitBackward0",
    "sqrt": "SqrtBackward0", "squeeze": "SqueezeBackward", "std": "StdBackward0", "sum": "SumBackward",
    "tanh": "TanhBackward0", "transpose": "TransposeBackward0", "tril": "TrilBackward0", "triu": "TriuBackward0",
    "unsqueeze": "UnsqueezeBackward0", "var": "VarBackward0",
}  # fmt: skip
_VALUES: dict[str, Callable[..., Any]] = {
    "fmod": np.fmod, "isfinite": np.isfinite, "isinf": np.isinf, "isnan": np.isnan,
    "logical_and": np.logical_and, "logical_not": np.logical_not, "logical_or": np.logical_or,
    "logical_xor": np.logical_xor, "atan2": np.arctan2,
    "floor_divide": np.floor_divide, "remainder": np.remainder,
}  # fmt: skip


def _same(name: str, made_by: str) -> Any:
    def run(self: Tensor, *arguments: Any, **options: Any) -> Any:
        if "axis" in options:
            options["dim"] = options.pop("axis")
        if (kind := options.pop("dtype", None)) is not None:
            self = self.to(kind)
        full = made_by
        if full[-1] == "d":  # two forms of one operation: on all axes, and on some
            some = bool(arguments) or "dim" in options
            full += str(int(not some if name in ("max", "min") else some))
        try:
            y = getattr(self.ours, name)(*map(ours, arguments), **{k: ours(v) for k, v in options.items()})
        except ValueError as error:
            if isinstance(error, IndexError):
                raise
            raise does_not_fit(error, self, arguments[0] if arguments else None) from None
        return wrap(y, full)

    run.__name__ = name
    run.__doc__ = getattr(autograd.Tensor, name).__doc__ or f"See `tinygrad_llm.Tensor.{name}`."
    return run


# Methods with the names of Python's types, which would hide these types inside the class.
_CASTS = {
    "float": float32, "double": float64, "half": float16, "long": int64, "int": int32, "short": int16, "char": int8,
    "byte": uint8, "bool": bool_,
}  # fmt: skip


def _cast(kind: Dtype) -> Any:
    def run(self: Tensor) -> Tensor:
        return self.to(kind)

    return run


def _type(self: Tensor, dtype: Any = None) -> Any:
    """The name of the type, such as "torch.FloatTensor"; or this Tensor in another dtype."""
    if dtype is not None:
        return self.to(dtype)
    kinds = {float32: "Float", float64: "Double", int64: "Long", bool_: "Bool", float16: "Half", int32: "Int"}
    return f"torch.{kinds.get(self.dtype, self.dtype.name)}Tensor"


for _name, _kind in _CASTS.items():
    setattr(Tensor, _name, _cast(_kind))
setattr(Tensor, "type", _type)  # noqa: B010 (an assignment would need the annotation that hides `type`)
for _name, _made_by in _SAME.items():
    setattr(Tensor, _name, _same(_name, _made_by))
for _name, _function in _VALUES.items():
    setattr(Tensor, _name, _of_values(_function))
for _name, _other in {"swapaxes": "transpose", "__abs__": "abs"}.items():
    setattr(Tensor, _name, getattr(Tensor, _other))


class Parameter(Tensor):
    """A Tensor that a Module trains: a leaf that requires a gradient. It shares the memory of `data`."""

    __slots__ = ()

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        array = np.zeros(0, np.float32) if data is None else array_of(data)
        self.ours, self.made_by, self._kept = autograd.Tensor(array, requires_grad), "", None

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"
