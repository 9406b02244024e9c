"""`Tensor`: an ndarray that remembers how it was made, so that gradients can be computed.

Its names, shapes and defaults are PyTorch's. Each operator is one line that applies a kernel.
"""

import functools
import itertools
import math
import operator
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_llm import kernels as K
from tinygrad_llm.autograd.node import Hook, HookHandle, Node, changed
from tinygrad_llm.autograd.observer import Operation, current_observer
from tinygrad_llm.autograd.tape import is_grad_enabled, run_hooks, walk_back
from tinygrad_llm.kernels import Array, Kernel
from tinygrad_llm.kernels.contract import Result
from tinygrad_llm.kernels.reductions import count, count_some

Operand: TypeAlias = "Tensor | Array | complex"
Dim: TypeAlias = int | Sequence[int] | None


def apply(kernel: Kernel, *inputs: Operand, **options: Any) -> "Tensor":
    """Run a kernel on Tensors, arrays and numbers, and record it if any input requires a gradient.

    Numbers take the dtype of the Tensors next to them, so `2 * x` stays float32.
    """
    arrays: list[Any] = []
    nodes: list[Node | None] = []
    plain = True
    for x in inputs:
        array, node = (x.data, x._node) if isinstance(x, Tensor) else (x, None)
        arrays.append(array)
        nodes.append(node)
        plain = plain and type(array) is np.ndarray
    if not plain and not all(isinstance(x, np.ndarray) for x in arrays):
        for i, x in enumerate(inputs):
            if isinstance(arrays[i], np.generic) and isinstance(x, Tensor):
                # NumPy made a scalar of data without axes. Its dtype counts: the user did not write it as a number.
                arrays[i] = np.asarray(x.data)
        arrays, dtype = _lift(arrays)
        if dtype == np.float16:
            kernel = _next_to_numbers(kernel)
    recording = is_grad_enabled() and nodes.count(None) < len(nodes)
    if "needs" in (getattr(kernel, "__kwdefaults__", None) or ()):
        options["needs"] = tuple([recording and node is not None for node in nodes])
    observer = current_observer()
    if observer is None:
        y, vjp = kernel(*arrays, **options)
    else:
        with observer.around_kernel(kernel):
            y, vjp = kernel(*arrays, **options)
    if not callable(vjp):
        got = f"{type(y).__name__} and {type(vjp).__name__}"
        raise TypeError(f"{kernel.__name__} returned {got}: a kernel must return (out, vjp)")
    if y.dtype.char == "d" and all(x.dtype.kind in "iub" for x in arrays):
        y = y.astype(np.float32)  # the default float dtype, as in Tensor([1, 2]) / 2
    if type(y) is np.ndarray and y.dtype.kind in "fciub":
        out = Tensor.__new__(Tensor)  # without the checks of its arguments, which take longer than a small kernel
        out.data, out._node = y, None
    else:
        out = Tensor(y)
    if recording:
        out._node = Node(kernel.__name__, (y.shape, y.dtype), vjp, tuple(nodes))
    if observer is not None:
        observer.on_operation(Operation(kernel, inputs, tuple(arrays), options, out, out._node))
    return out


def _as_array(numbers: Any) -> Array:
    try:
        return np.asarray(numbers)
    except ValueError:
        raise ValueError("a Tensor holds numbers, or lists of equal lengths of them: got unequal lengths") from None


def _next_to_numbers(kernel: Kernel) -> Kernel:
    """A kernel for float16 next to numbers, which it gets in float32: float16 cannot hold 1e5, but perhaps 1e5 · x."""

    @functools.wraps(kernel, assigned=(*functools.WRAPPER_ASSIGNMENTS, "__kwdefaults__"))
    def run(*inputs: Array, **options: Any) -> Result:
        y, vjp = kernel(*inputs, **options)
        with np.errstate(over="ignore"):  # beyond 65504 the rounded value is infinite
            return np.asarray(y).astype(np.float16), lambda g: vjp(g.astype(np.float32))

    return run


def _lift(inputs: list[Any]) -> tuple[list[Array], np.dtype[Any]]:
    """Convert the numbers among the inputs to arrays, and return the dtype of all; for float16, numbers are float32."""
    for x in inputs:
        if not isinstance(x, np.ndarray | np.generic | int | float | complex):
            raise TypeError(
                f"operands must be Tensors, arrays or numbers, got {type(x).__name__}: wrap it in Tensor(...)"
            )
    # A NumPy scalar counts as a Python number, because np.sqrt(2) * x must not turn x into float64.
    plain = [x.item() if isinstance(x, np.generic) else x for x in inputs]
    dtype = np.result_type(*plain)
    if dtype == np.float64 and not any(isinstance(x, np.ndarray) and x.dtype == np.float64 for x in inputs):
        # the default float dtype for integers with a Python float
        return [np.asarray(x, dtype=np.float32) for x in inputs], dtype
    wide = np.float32 if dtype == np.float16 else dtype
    return [x if isinstance(x, np.ndarray) else np.asarray(x, dtype=wide) for x in inputs], dtype


class Tensor:
    """An array with a gradient.

    Args:     array: an ndarray (kept, not copied, with its dtype), a Tensor (detached), a number or nested lists.
              Python floats become float32; arrays and lists of Tensors keep their dtype.
              requires_grad: whether `backward` fills `grad`. Only float and complex arrays can require a gradient.
              dtype: convert to this dtype.
    Attributes: data: the array. As in PyTorch, `x.data` bypasses all checks: a write to it after the forward pass can
              make a gradient wrong. Write `with no_grad(): x += y`, which backward notices.
    Raises:   TypeError: array does not hold numbers. ValueError: requires_grad on integers. RuntimeError: a list holds
              Tensors that require a gradient, which would be cut off: use `functional.stack`.
    """

    __slots__ = ("__weakref__", "_frozen", "_node", "data")

    data: Array
    _frozen: Node | None

    def __init__(self, array: Any, requires_grad: bool = False, dtype: DTypeLike | None = None) -> None:
        kind = type(array).__name__
        if isinstance(array, Tensor):
            array = array.data
        if dtype is None and not isinstance(array, np.ndarray | np.generic):
            first = array
            while isinstance(first, list | tuple) and first:
                first = first[0]
            array = _as_array(array)
            if array.dtype == np.float64 and not isinstance(first, Tensor):
                array = array.astype(np.float32)
        self.data = np.asarray(array, dtype=dtype)
        if self.data.dtype.kind not in "fciub":
            raise TypeError(f"a Tensor holds numbers, got {self.data.dtype} (from {kind})")
        self._node: Node | None = None
        if requires_grad:
            self.requires_grad = True

    # ---- shape, dtype and data -------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    def size(self, dim: int | None = None) -> Any:
        """The shape, or the length of one axis."""
        return self.shape if dim is None else self.shape[dims((dim,), self.shape, scalar=False)[0]]

    def numel(self) -> int:
        return self.data.size

    def numpy(self) -> Array:
        """The array itself, not a copy."""
        return self.data

    def item(self) -> Any:
        """The only element, as a Python number. Raises ValueError for more elements or none."""
        if self.data.size != 1:
            raise ValueError(f"item() needs exactly one element, got shape {self.shape}")
        return self.data.item()

    def tolist(self) -> Any:
        return self.data.tolist()

    def detach(self) -> "Tensor":
        """A Tensor with the same data and no graph."""
        return Tensor(self.data)

    def to(self, dtype: DTypeLike) -> "Tensor":
        """This Tensor in another dtype, with its gradient; a Tensor of integers has none.

        Complex numbers stay complex, in the precision of dtype, because an imaginary part must not vanish silently.
        """
        if self.dtype == dtype:
            return self
        if self.dtype.kind == "c" and np.dtype(dtype).kind == "f":
            dtype = np.result_type(dtype, np.complex64)
        recorded = self.dtype.kind in "fc" and np.dtype(dtype).kind in "fc"
        return apply(cast, self, dtype=dtype) if recorded else Tensor(self.data.astype(dtype))

    # NumPy's functions compute no gradients. They accept a Tensor that requires none; others must be detached.

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(_values(self, "an ndarray"), dtype=dtype, copy=copy)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        if function in _OF_THE_FORM:
            return function(*(x.data if isinstance(x, Tensor) else x for x in args), **kwargs)
        name = function.__name__
        return function(*_values(args, name), **_values(kwargs, name))

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **kwargs: Any) -> Any:
        # `array + t` comes here: NumPy asks its right operand.
        if method == "__call__" and not kwargs and ufunc in _OPERATORS:
            return apply(_OPERATORS[ufunc], *inputs)
        if method == "__call__" and not kwargs and ufunc in _COMPARISONS:
            return Tensor(np.asarray(ufunc(*(x.data if isinstance(x, Tensor) else x for x in inputs))))
        return getattr(ufunc, method)(*_values(inputs, ufunc.__name__), **_values(kwargs, ufunc.__name__))

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("a Tensor without axes has no length: use item() for its number")
        return len(self.data)

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[i] for i in range(len(self)))

    def __contains__(self, x: Any) -> bool:
        return bool((self == x).data.any())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __index__(self) -> int:
        if self.dtype.kind not in "iub" or self.data.size != 1:
            raise TypeError(f"only one integer can be an index, got {self.dtype} of shape {self.shape}")
        return int(self.item())

    def __bool__(self) -> bool:
        if self.data.size != 1:
            raise ValueError(
                f"a Tensor of shape {self.shape} is neither true nor false: use (…).numpy().any() or .all(); "
                "to look for a Tensor in a list, use any(x is t for x in …)"
            )
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __repr__(self) -> str:
        name = type(self).__name__
        text = np.array2string(self.data, separator=", ", prefix=f"{name}(", threshold=200)
        shape = f", shape={self.shape}" if self.data.size > 200 else ""  # the numbers are not all shown
        dtype = "" if self.dtype in (np.float32, np.int64) else f", dtype={self.dtype}"
        made = "" if self._node is None else ", requires_grad=True" if self.is_leaf else f", made by {self._node.name}"
        return f"{name}({text}{shape}{dtype}{made})"

    # ---- gradients -------------------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        return self._node is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        if value == self.requires_grad:
            return
        if not self.is_leaf:
            raise RuntimeError("only a leaf can stop requiring a gradient: use detach() on a computed Tensor")
        if value and self.dtype.kind not in "fc":
            raise ValueError(f"only float and complex Tensors can require a gradient, got {self.dtype}")
        # While it is frozen, a leaf keeps its node, and so its gradient and its hooks.
        frozen = getattr(self, "_frozen", None)
        self._frozen, self._node = (None, frozen or Node("leaf", weakref.ref(self))) if value else (self._node, None)

    def requires_grad_(self, requires_grad: bool = True) -> "Tensor":
        """Set `requires_grad`, and return this Tensor."""
        self.requires_grad = requires_grad
        return self

    def _leaf(self) -> Node | None:
        """The node that keeps `grad`: also that of a leaf that was frozen."""
        return getattr(self, "_frozen", None) if self._node is None else self._node

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this Tensor."""
        return self._node is None or self._node.is_leaf

    @property
    def grad(self) -> Array | None:
        """The sum of the gradients of all `backward` calls: an ndarray of this shape, or None before the first call."""
        node = self._leaf()
        return None if node is None else node.grad

    @grad.setter
    def grad(self, value: Array | None) -> None:
        node = self._leaf()
        if node is not None:
            x = self.data
            if value is not None and not (
                type(value) is np.ndarray and value.dtype is x.dtype and value.shape == x.shape
            ):
                value = self._as_gradient(value)
            node.grad = value
        elif value is not None:
            raise RuntimeError("this Tensor does not require a gradient, so it cannot hold one")

    def _as_gradient(self, value: Any) -> Array:
        """An array that is given as the gradient of this Tensor, in its dtype."""
        value = value.data if isinstance(value, Tensor) else value
        if not isinstance(value, np.ndarray | np.generic) or value.shape != self.shape:
            got = f"shape {value.shape}" if isinstance(value, np.ndarray | np.generic) else type(value).__name__
            raise RuntimeError(f"a gradient is an array of the shape of its Tensor, {self.shape}, or None: got {got}")
        kinds = value.dtype.kind, self.dtype.kind
        return np.asarray(value) if "c" in kinds else np.asarray(value).astype(self.dtype, copy=False)

    def backward(self, gradient: Any = None, retain_graph: bool = False) -> None:
        """Add the gradient of this Tensor to `.grad` of every leaf that it depends on.

        Args:     gradient: the gradient to start from, of this shape; default 1, for a scalar.
                  retain_graph: keep what was saved, for another backward pass.
        Raises:   RuntimeError: nothing was recorded; no gradient for a non-scalar or a complex number; a second
                  backward pass; a value that was saved for backward has changed since; a complex gradient of a real
                  leaf.
        """
        if gradient is None and self.dtype.kind == "c":
            raise RuntimeError("a gradient starts from a real scalar, got a complex one: give `gradient`")
        node, seed = self._start(gradient)
        found = walk_back(node, seed, retain_graph=retain_graph)
        if any(g.dtype.kind == "c" and (form := leaf.form()) and form[1].kind != "c" for leaf, g in found.items()):
            raise RuntimeError("a real leaf got a complex gradient: make the leaf complex (dtype=complex)")
        for leaf, g in found.items():
            if leaf.grad is None:
                leaf.grad = g
            else:
                leaf.grad += g

    def register_hook(self, hook: Hook) -> HookHandle:
        """Call `hook(gradient)` once in each `backward` or `grad` that passes here, when the gradient is complete.

        The hook receives a read-only array. It returns None, or an array of the same shape and dtype that takes its
        place. Hooks run in the order in which they were registered.

        Returns:  a handle; its `remove()` removes the hook.
        Raises:   RuntimeError: this Tensor does not require a gradient. In backward, ValueError: another shape or
                  dtype was returned.
        """
        if not callable(hook):
            raise TypeError(f"a hook is a function of the gradient, got {type(hook).__name__}")
        if self._node is None:
            raise RuntimeError("this Tensor does not require a gradient, so a hook on it would never be called")
        if self._node.vjp is None and not self.is_leaf:
            raise RuntimeError("backward has passed here already, so a hook would never be called: register it before")
        return HookHandle(self._node, hook)

    def _start(self, gradient: Any = None) -> tuple[Node, Array]:
        if self._node is None:
            raise RuntimeError(
                "nothing to differentiate: no input of this Tensor requires a gradient, or it was computed in no_grad"
            )
        if gradient is None:
            if self.data.size != 1:
                raise RuntimeError(
                    f"a gradient starts from a scalar, got shape {self.shape}: "
                    "reduce it (.sum(), .mean()), or give `gradient` of that shape"
                )
            return self._node, np.ones_like(self.data)
        seed = np.asarray(gradient.data if isinstance(gradient, Tensor) else gradient)
        if seed.dtype.kind == "c" and self.dtype.kind != "c":
            raise ValueError(f"gradient is {seed.dtype}, but the Tensor is {self.dtype}")
        seed = seed.astype(self.dtype, copy=False)
        if seed.shape != self.shape:
            raise ValueError(f"gradient has shape {seed.shape}, but the Tensor has {self.shape}")
        return self._node, seed

    # ---- arithmetic ------------------------------------------------------------------------------------------

    def __add__(self, other: Operand) -> "Tensor":
        return apply(K.add, self, other)

    def __radd__(self, other: Operand) -> "Tensor":
        return apply(K.add, other, self)

    def __sub__(self, other: Operand) -> "Tensor":
        return apply(K.subtract, self, other)

    def __rsub__(self, other: Operand) -> "Tensor":
        return apply(K.subtract, other, self)

    def __mul__(self, other: Operand) -> "Tensor":
        return apply(K.multiply, self, other)

    def __rmul__(self, other: Operand) -> "Tensor":
        return apply(K.multiply, other, self)

    def __truediv__(self, other: Operand) -> "Tensor":
        return apply(K.divide, self, other)

    def __rtruediv__(self, other: Operand) -> "Tensor":
        return apply(K.divide, other, self)

    def __pow__(self, other: Operand) -> "Tensor":
        return apply(K.power, self, other)

    def __rpow__(self, other: Operand) -> "Tensor":
        return apply(K.power, other, self)

    def __neg__(self) -> "Tensor":
        return apply(K.negative, self)

    def __matmul__(self, other: Operand) -> "Tensor":
        return apply(K.matmul, self, other)

    def __rmatmul__(self, other: Operand) -> "Tensor":
        return apply(K.matmul, other, self)

    # `x += y` writes to x where PyTorch would: unless it is recorded. Then x becomes a new Tensor, x + y.

    def __iadd__(self, other: Operand) -> "Tensor":
        return self._update(np.add, other)

    def __isub__(self, other: Operand) -> "Tensor":
        return self._update(np.subtract, other)

    def __imul__(self, other: Operand) -> "Tensor":
        return self._update(np.multiply, other)

    def __itruediv__(self, other: Operand) -> "Tensor":
        return self._update(np.divide, other)

    def __ipow__(self, other: Operand) -> "Tensor":
        return self._update(np.power, other)

    def _update(self, ufunc: np.ufunc, other: Operand) -> "Tensor":
        if is_grad_enabled():
            self._refuse_if_leaf()
            if self.requires_grad or (isinstance(other, Tensor) and other.requires_grad):
                return apply(_OPERATORS[ufunc], self, other)
        y = other.data if isinstance(other, Tensor) else other.item() if isinstance(other, np.generic) else other
        half = self.dtype == np.float16
        changed(self.data)
        with np.errstate(over="ignore") if half else nullcontext():
            y = np.float32(y) if half and isinstance(y, int | float) else y  # as in `_next_to_numbers`
            ufunc(self.data, y, out=self.data, casting="same_kind")
        return self

    def _refuse_if_leaf(self) -> None:
        if self.requires_grad and self.is_leaf:
            raise RuntimeError(
                "a leaf Tensor that requires a gradient is changed in place: put the update inside `with no_grad():`, "
                "or make a new Tensor (x = x + y)"
            )

    # Comparisons return boolean Tensors without a gradient. Equality is by element, as in PyTorch, so the hash is the
    # identity.

    def _compare(self, other: Operand, operation: Callable[[Any, Any], Any]) -> "Tensor":
        with np.errstate(over="ignore"):  # a number beyond 65504 is infinite next to float16
            return Tensor(np.asarray(operation(self.data, other.data if isinstance(other, Tensor) else other)))

    def __eq__(self, other: Any) -> "Tensor":  # type: ignore[override]
        return self._compare(other, np.equal)

    def __ne__(self, other: Any) -> "Tensor":  # type: ignore[override]
        return self._compare(other, np.not_equal)

    def __lt__(self, other: Operand) -> "Tensor":
        return self._compare(other, np.less)

    def __le__(self, other: Operand) -> "Tensor":
        return self._compare(other, np.less_equal)

    def __gt__(self, other: Operand) -> "Tensor":
        return self._compare(other, np.greater)

    def __ge__(self, other: Operand) -> "Tensor":
        return self._compare(other, np.greater_equal)

    __hash__ = object.__hash__

    # ---- element by element ----------------------------------------------------------------------------------

    def exp(self) -> "Tensor":
        return apply(K.exp, self)

    def log(self) -> "Tensor":
        return apply(K.log, self)

    def sqrt(self) -> "Tensor":
        return apply(K.sqrt, self)

    def tanh(self) -> "Tensor":
        return apply(K.tanh, self)

    def sigmoid(self) -> "Tensor":
        return apply(K.sigmoid, self)

    def relu(self) -> "Tensor":
        return apply(K.relu, self)

    def abs(self) -> "Tensor":
        return apply(K.absolute, self)

    __abs__ = abs

    def pow(self, exponent: Operand) -> "Tensor":
        return self**exponent

    def erf(self) -> "Tensor":
        return apply(K.erf, self)

    def maximum(self, other: Operand) -> "Tensor":
        return apply(K.maximum, self, other)

    def minimum(self, other: Operand) -> "Tensor":
        return apply(K.maximum, self, other, lower=True)

    def clamp(self, min: "Operand | None" = None, max: "Operand | None" = None) -> "Tensor":
        """min(max(x, min), max). An element at a limit keeps its gradient."""
        if min is None and max is None:
            raise ValueError("clamp: give min, max or both: without a limit it changes nothing")
        raised = self if min is None else apply(K.where, self < min, min, self)
        return raised if max is None else apply(K.where, raised > max, max, raised)

    def masked_fill(self, mask: Operand, value: float) -> "Tensor":
        """`value` where the mask is True, and this Tensor elsewhere. The gradient of a filled element is 0."""
        return apply(K.where, mask, value, self)

    # ---- reductions ------------------------------------------------------------------------------------------
    # Without dim, or with an empty one, they reduce all axes, as in PyTorch.

    def _axis(self, dim: Dim) -> Any:
        """Check dim, and return it as NumPy's axis; None where there are no axes."""
        if dim is None or not (checked := dims(dim, self.shape)):
            return None
        return checked if isinstance(dim, Sequence) else dim

    def _one_axis(self, dim: int) -> Any:
        """As `_axis`, where NumPy takes one axis."""
        return dim if dims((dim,), self.shape) else None

    def sum(self, dim: Dim = None, keepdim: bool = False) -> "Tensor":
        return apply(K.sum, self, axis=self._axis(dim), keepdims=keepdim)

    def mean(self, dim: Dim = None, keepdim: bool = False) -> "Tensor":
        return apply(K.mean, self, axis=self._axis(dim), keepdims=keepdim)

    def var(
        self, dim: Dim = None, correction: int | None = 1, keepdim: bool = False, *, unbiased: bool | None = None
    ) -> "Tensor":
        """Σ (x − mean)² / (n − correction); PyTorch's default is the unbiased form, correction=1."""
        if isinstance(dim, bool):  # PyTorch's older call, var(unbiased)
            dim, unbiased = None, dim
        correction = _correction(correction, unbiased)
        return apply(K.var, self, axis=self._axis(dim), ddof=correction, keepdims=keepdim)

    def std(
        self, dim: Dim = None, correction: int | None = 1, keepdim: bool = False, *, unbiased: bool | None = None
    ) -> "Tensor":
        """√var. Its gradient is 0 where all elements are equal, as PyTorch's."""
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        if self.dtype == np.float16:  # rounded once, at the end
            return self.to(np.float32).std(dim, correction, keepdim, unbiased=unbiased).to(np.float16)
        correction = _correction(correction, unbiased)
        n = count(self.shape, self._axis(dim)) - correction
        if n <= 0:
            raise ValueError(f"std: got {n + correction} element(s), which must be more than correction={correction}")
        return (self - self.mean(dim, keepdim=True)).norm(dim=dim, keepdim=keepdim) / math.sqrt(n)

    def norm(self, p: float | str = 2, dim: Dim = None, keepdim: bool = False) -> "Tensor":
        """√Σ x² for p=2 or "fro", Σ |x| for p=1, max |x| for p=math.inf."""
        if p in (2, "fro"):
            return apply(K.norm, self, axis=self._axis(dim), keepdims=keepdim)
        if p not in (1, math.inf):
            raise ValueError(f'norm: got p={p!r}, which must be 1, 2, "fro" or math.inf')
        size = (self if self.dtype.kind in "fc" else self.to(np.float32)).abs()  # int8 has no |−128|
        return size.sum(dim, keepdim) if p == 1 else size.amax(dim, keepdim)

    def cumsum(self, dim: int) -> "Tensor":
        axis = self._one_axis(dim)
        return self * 1 if axis is None else apply(K.cumsum, self, axis=axis)

    def amax(self, dim: Dim = None, keepdim: bool = False) -> "Tensor":
        """The largest element. Equal maxima share the gradient equally."""
        return apply(K.max, self, axis=self._axis(dim), keepdims=keepdim)

    def amin(self, dim: Dim = None, keepdim: bool = False) -> "Tensor":
        return apply(K.max, self, axis=self._axis(dim), keepdims=keepdim, lowest=True)

    def max(self, dim: "int | Tensor | Array | None" = None, keepdim: bool = False) -> Any:
        """Without dim, the largest element. With dim, (values, indices): the gradient goes to these indices.

        As in PyTorch, `x.max(other)` is `x.maximum(other)`.
        """
        if isinstance(dim, Tensor | np.ndarray):
            return self.maximum(dim)
        return self._largest(self.amax) if dim is None else self._extreme(np.argmax, dim, keepdim)

    def min(self, dim: "int | Tensor | Array | None" = None, keepdim: bool = False) -> Any:
        """As `max`, for the smallest element."""
        if isinstance(dim, Tensor | np.ndarray):
            return self.minimum(dim)
        return self._largest(self.amin) if dim is None else self._extreme(np.argmin, dim, keepdim)

    def _largest(self, reduce: Callable[[], "Tensor"]) -> "Tensor":
        """The largest or smallest element. If it is NaN, the NaNs share the gradient, as in PyTorch."""
        nans = np.isnan(self.data)
        return self[nans].mean() if nans.any() else reduce()

    def _extreme(self, search: Callable[..., Any], dim: int, keepdim: bool) -> "Maxima":
        if not self.ndim:
            return Maxima(self._largest(lambda: self.amax(self._one_axis(dim))), Tensor(0))
        (dim,) = dims((dim,), self.shape)
        count_some(search.__name__.removeprefix("arg"), self.shape, dim)
        indices = np.expand_dims(search(self.data.real, axis=dim), dim)
        values = self.gather(dim, indices)
        if not keepdim:
            values = values.reshape(values.shape[:dim] + values.shape[dim + 1 :])
            indices = np.squeeze(indices, axis=dim)
        return Maxima(values, Tensor(indices))

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> "Tensor":
        axis = None if dim is None else self._one_axis(dim)
        count_some("argmax", self.shape, axis)
        return Tensor(np.asarray(np.argmax(self.data, axis=axis, keepdims=keepdim)))

    def logsumexp(self, dim: Dim, keepdim: bool = False) -> "Tensor":
        return apply(K.logsumexp, self, axis=self._axis(dim), keepdims=keepdim)

    def softmax(self, dim: int) -> "Tensor":
        return apply(K.softmax, self, axis=self._one_axis(dim))

    def log_softmax(self, dim: int) -> "Tensor":
        return apply(K.log_softmax, self, axis=self._one_axis(dim))

    # ---- shape -----------------------------------------------------------------------------------------------

    def reshape(self, *shape: int | Sequence[int]) -> "Tensor":
        """The same elements in another shape, where one −1 stands for the length that fits."""
        sizes = _sizes(shape)
        try:
            return apply(K.reshape, self, shape=sizes)
        except ValueError:
            raise ValueError(f"reshape: the {self.numel()} elements of shape {self.shape} do not fit {sizes}") from None

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> "Tensor":
        named = *dims((start_dim,), self.shape), *dims((end_dim,), self.shape)
        if not named:  # a Tensor without axes
            return self.reshape(1)
        start, end = named
        if start > end:
            raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
        return self.reshape(*self.shape[:start], math.prod(self.shape[start : end + 1]), *self.shape[end + 1 :])

    def transpose(self, dim0: int, dim1: int) -> "Tensor":
        axes = list(range(self.ndim))
        for i, j in zip(dims((dim0,), self.shape), dims((dim1,), self.shape), strict=True):
            axes[i], axes[j] = j, i
        return apply(K.transpose, self, axes=tuple(axes))

    def permute(self, *order: int | Sequence[int]) -> "Tensor":
        axes = order[0] if len(order) == 1 and isinstance(order[0], Sequence) else order
        if len(axes) != self.ndim:
            raise ValueError(f"permute: got {len(axes)} dims {tuple(axes)} for shape {self.shape}")
        return apply(K.transpose, self, axes=dims(axes, self.shape))  # type: ignore[arg-type]

    @property
    def T(self) -> "Tensor":
        return apply(K.transpose, self)

    @property
    def mT(self) -> "Tensor":
        return self.transpose(-2, -1)

    def expand(self, *shape: int | Sequence[int]) -> "Tensor":
        """Repeat axes of length 1 without copying. −1 keeps the length of an axis."""
        sizes = _sizes(shape)
        if len(sizes) < self.ndim:
            raise ValueError(f"expand: got {sizes}, which has fewer axes than the shape {self.shape}")
        own = (None,) * (len(sizes) - self.ndim) + self.shape
        if any(n == -1 and m is None for n, m in zip(sizes, own, strict=True)):
            raise ValueError(f"expand: -1 keeps an existing axis, got {sizes} for shape {self.shape}")
        full = tuple(m if n == -1 and m is not None else n for n, m in zip(sizes, own, strict=True))
        return apply(K.broadcast_to, self, shape=full)

    def unsqueeze(self, dim: int) -> "Tensor":
        (i,) = dims((dim,), (*self.shape, 1))
        return self.reshape(*self.shape[:i], 1, *self.shape[i:])

    def squeeze(self, dim: Dim = None) -> "Tensor":
        """Remove axes of length 1: all, or those in dim. A longer axis in dim stays, as in PyTorch."""
        chosen = range(self.ndim) if dim is None else dims(dim, self.shape)
        return self.reshape([n for i, n in enumerate(self.shape) if n != 1 or i not in chosen])

    def __getitem__(self, index: Any) -> "Tensor":
        return apply(K.getitem, self, index=_index(index))

    def __setitem__(self, index: Any, value: Any) -> None:
        """Write to this Tensor; not while it is recorded, since the gradient could not follow."""
        if is_grad_enabled():
            self._refuse_if_leaf()
            if self.requires_grad or (isinstance(value, Tensor) and value.requires_grad):
                raise RuntimeError(
                    "t[…] = … has no gradient: use functional.where, masked_fill or functional.stack, or no_grad()"
                )
        changed(self.data)
        self.data[_index(index)] = value.data if isinstance(value, Tensor) else value

    def gather(self, dim: int, index: Any) -> "Tensor":
        """y[i, j, …] = x[index[i, j, …], j, …] for dim 0, and likewise for the other dims."""
        named, index = dims((dim,), self.shape), _index(index)
        if 0 in (self.ndim, index.ndim) and max(self.ndim, index.ndim) < 2:  # without axes counts as one axis
            return self.reshape(-1).gather(0, index.reshape(-1)).reshape(index.shape)
        if not index.size:
            return self.reshape(-1)[index]
        if index.dtype.kind not in "iu" or index.ndim != self.ndim:
            raise TypeError(f"gather: index must be integers on {self.ndim} axes, got {index.dtype} {index.shape}")
        (dim,) = named
        if not 0 <= index.min() <= index.max() < self.shape[dim]:
            raise IndexError(f"gather: got indices outside 0 … {self.shape[dim] - 1}")  # NumPy would count from the end
        axes: list[Array] = list(np.indices(index.shape, sparse=True))
        axes[dim] = index
        return self[tuple(axes)]

    def split(self, split_size: int | Sequence[int], dim: int = 0) -> tuple["Tensor", ...]:
        """Pieces of this length along dim, the last perhaps shorter; or of these lengths, which add up to the axis."""
        (dim,) = dims((dim,), self.shape, scalar=False)
        n = self.shape[dim]
        if isinstance(split_size, Sequence):
            ends = list(itertools.accumulate(split_size))
            if min(split_size, default=-1) < 0 or ends[-1] != n:
                raise ValueError(f"split: the lengths {list(split_size)} must be ≥ 0 and add up to {n}")
        elif split_size < 1:
            raise ValueError(f"split: got a length of {split_size}, which must be ≥ 1")
        else:
            ends = [min(end, n) for end in range(split_size, n + split_size, split_size)] or [0]
        return tuple(self[(slice(None),) * dim + (slice(a, b),)] for a, b in itertools.pairwise([0, *ends]))

    def chunk(self, chunks: int, dim: int = 0) -> tuple["Tensor", ...]:
        """At most this many pieces of equal length along dim, the last perhaps shorter."""
        if chunks < 1:
            raise ValueError(f"chunk: got {chunks} pieces, which must be ≥ 1")
        return self.split(max(1, -(-self.size(dim) // chunks)), dim)

    def tril(self, diagonal: int = 0) -> "Tensor":
        """The elements on and below a diagonal, and 0 above it."""
        return apply(K.where, _triangle(self.shape, diagonal), self, 0)

    def triu(self, diagonal: int = 0) -> "Tensor":
        """The elements on and above a diagonal, and 0 below it."""
        return apply(K.where, _triangle(self.shape, diagonal - 1), 0, self)

    def contiguous(self) -> "Tensor":
        """This Tensor: every operation takes every memory layout."""
        return self

    def clone(self) -> "Tensor":
        """A copy, through which gradients pass."""
        return apply(cast, self, dtype=self.dtype)

    # copy, deepcopy and pickle make another leaf with its own node. Hooks are not copied.

    def __getstate__(self) -> tuple[Array, bool, Array | None]:
        if not self.is_leaf:
            raise RuntimeError("only leaves can be copied or pickled: use detach() on a computed Tensor")
        return self.data, self.requires_grad, self.grad

    def __setstate__(self, state: tuple[Array, bool, Array | None]) -> None:
        self.data, requires_grad, grad = state
        self._node = None
        if requires_grad or grad is not None:
            self.requires_grad = True
            self.grad = None if grad is None else grad.copy()
            self.requires_grad = requires_grad


class Maxima(NamedTuple):
    """`Tensor.max(dim)` and `Tensor.min(dim)` return these."""

    values: Tensor
    indices: Tensor


# ---- arguments -----------------------------------------------------------------------------------------------------


def dims(dim: int | Sequence[int], shape: tuple[int, ...], scalar: bool = True) -> tuple[int, ...]:
    """The axes that `dim` names in this shape, counted from 0.

    Args:     scalar: whether dims 0 and −1 are allowed where there are no axes, as in PyTorch; they name none.
    Raises:   AxisError: there is no such axis. ValueError: one is named twice. TypeError: dim is not an integer.
    """
    n = len(shape) or int(scalar)
    found = []
    for d in dim if isinstance(dim, Sequence) else (dim,):
        try:
            i = operator.index(d)
        except TypeError:
            raise TypeError(f"dim must be an integer, got {d!r}") from None
        if not -n <= i < n:
            allowed = f"{-n} to {n - 1} are allowed" if n else "it has no axes"
            raise np.exceptions.AxisError(f"dim {i} is out of range for shape {shape}: {allowed}")
        found.append(i % n)
    if len(set(found)) < len(found):
        raise ValueError(f"dim {dim} names an axis twice, for shape {shape}")
    return tuple(found) if shape else ()


def _sizes(shape: Sequence[int | Sequence[int]]) -> tuple[int, ...]:
    """Accept both f(2, 3) and f((2, 3)), and −1 as the only negative size."""
    given = shape[0] if len(shape) == 1 and isinstance(shape[0], Sequence) else shape
    sizes = tuple(operator.index(n) for n in given)  # type: ignore[arg-type]
    if min(sizes, default=0) < -1:
        raise ValueError(f"a size must be ≥ 0, or −1 for the one that fits, got {sizes}")
    return sizes


def _correction(correction: int | None, unbiased: bool | None) -> int:
    """PyTorch's two ways to say it: None is the default, 1."""
    return (1 if correction is None else correction) if unbiased is None else int(unbiased)


def _triangle(shape: tuple[int, ...], diagonal: int) -> Array:
    if len(shape) < 2:
        raise ValueError(f"a triangle needs two axes, got shape {shape}")
    return np.tri(shape[-2], shape[-1], diagonal, dtype=bool)


def _index(index: Any) -> Any:
    """An index that NumPy takes, with arrays in place of Tensors."""
    if isinstance(index, tuple):
        return tuple(_index(part) for part in index)
    return index.data if isinstance(index, Tensor) else index


# ---- next to NumPy -------------------------------------------------------------------------------------------------


def cast(x: Array, *, dtype: DTypeLike) -> Result:
    """y = x in another float or complex dtype.   dx = g"""

    def vjp(g: Array) -> tuple[Array]:
        return (g,)  # the walk converts a gradient to the dtype of its value

    return x.astype(dtype), vjp


_OPERATORS: dict[np.ufunc, Kernel] = {
    np.add: K.add,
    np.subtract: K.subtract,
    np.multiply: K.multiply,
    np.divide: K.divide,
    np.power: K.power,
    np.matmul: K.matmul,
}
_COMPARISONS = {np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal}
_OF_THE_FORM = {np.shape, np.ndim, np.size, np.zeros_like, np.ones_like, np.empty_like}  # they read no values
_OUR_NAMES = {"absolute": "abs", "dot": "matmul", "max": "amax", "concatenate": "cat", "astype": "to"}


def _values(x: Any, function: str) -> Any:
    """The arrays of all Tensors in nested arguments of a NumPy function.

    Raises:   RuntimeError: one requires a gradient. The message names what has a gradient.
    """
    if isinstance(x, list | tuple):
        return type(x)([_values(item, function) for item in x])
    if isinstance(x, dict):
        return {key: _values(item, function) for key, item in x.items()}
    if not isinstance(x, Tensor):
        return x
    if x.requires_grad:
        name = _OUR_NAMES.get(function, function)
        ours = f"Tensor.{name}" if hasattr(Tensor, name) else f"functional.{name}" if name in _FUNCTIONS else ""
        what = "an ndarray" if function == "an ndarray" else f"np.{function}"
        raise RuntimeError(
            f"{what} has no gradient, but this Tensor requires one: use "
            + (f"{ours}; " if ours else "the methods of Tensor, and functional (stack for a list); ")
            + "for its values alone, .detach().numpy()"
        )
    return x.data


_FUNCTIONS = {*K.KERNELS, "cat"}


def grad(
    output: Tensor,
    inputs: Sequence[Tensor] | Tensor,
    gradient: Any = None,
    leaf_hooks: bool = True,
    retain_graph: bool = False,
) -> list[Array]:
    """The gradient of `output` with respect to each of `inputs`, as arrays.

    No `.grad` changes, so several threads can differentiate one model at the same time.

    Args:     output: a scalar Tensor, or any Tensor with `gradient` of its shape.
              inputs: one Tensor or several that require a gradient: leaves, or computed on the way to the output.
              leaf_hooks: False does not call the hooks of leaves; `hooked` calls them later, when the gradients of
              several parts of a batch have been added. retain_graph: keep what was saved, for another backward pass.
    Returns:  arrays of the inputs' shapes, with their own memory; zeros for an input that output does not depend on.
    Raises:   ValueError: an input does not require a gradient. RuntimeError: as in `Tensor.backward`.
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else inputs
    nodes = [x._node for x in inputs]
    missing = [i for i, node in enumerate(nodes) if node is None]
    if missing:
        raise ValueError(f"inputs {missing} do not require a gradient: make them with requires_grad=True")
    root, seed = output._start(gradient)
    found = walk_back(root, seed, {node for node in nodes if node is not None}, leaf_hooks, retain_graph)
    grads = [
        found[node] if node in found else np.zeros_like(x.data) for x, node in zip(inputs, nodes, strict=True) if node
    ]
    return grads if len(set(nodes)) == len(nodes) else [g.copy() for g in grads]  # an input was named twice


def hooked(x: Tensor, gradient: Array) -> Array:
    """The gradient of a leaf after its hooks have seen and perhaps replaced it."""
    return gradient if x._node is None or not x._node.hooks else run_hooks(x._node, gradient, current_observer())
