"""`Tensor`: an ndarray that remembers how it was made, so that gradients can be computed.

Its names, shapes and defaults are PyTorch's. Each operator is one line that applies a kernel.
"""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_llm import kernels as K
from tinygrad_llm.autograd.node import Hook, HookHandle, Node
from tinygrad_llm.autograd.observer import Operation, current_observer
from tinygrad_llm.autograd.tape import is_grad_enabled, run_hooks, walk_back
from tinygrad_llm.kernels import Array, Kernel

Operand: TypeAlias = "Tensor | Array | complex"
Dim: TypeAlias = int | tuple[int, ...] | None


def apply(kernel: Kernel, *inputs: Operand, **options: Any) -> "Tensor":
    """Run a kernel on Tensors, arrays and numbers, and record it if any input requires a gradient.

    Numbers take the dtype of the Tensors next to them, so `2 * x` stays float32.
    """
    arrays: list[Any] = []
    nodes: list[Node | None] = []
    for x in inputs:
        arrays.append(x.data if isinstance(x, Tensor) else x)
        nodes.append(x._node if isinstance(x, Tensor) else None)
    if not all(isinstance(x, np.ndarray) for x in arrays):
        for i, x in enumerate(inputs):
            if isinstance(arrays[i], np.generic) and isinstance(x, Tensor):
                # NumPy made a scalar of data without axes. Its dtype counts: it is no number that the user wrote.
                arrays[i] = np.asarray(x.data)
        arrays = _lift(arrays)
    recording = is_grad_enabled() and nodes.count(None) < len(nodes)
    if "needs" in (getattr(kernel, "__kwdefaults__", None) or ()):
        options["needs"] = tuple([recording and node is not None for node in nodes])
    observer = current_observer()
    if observer is None:
        y, vjp = kernel(*arrays, **options)
    else:
        with observer.around_kernel(kernel):
            y, vjp = kernel(*arrays, **options)
    if y.dtype == np.float64 and all(x.dtype.kind in "iub" for x in arrays):
        y = y.astype(np.float32)  # the default float dtype, as in Tensor([1, 2]) / 2
    out = Tensor(y)
    if recording:
        out._node = Node(kernel.__name__, vjp, tuple(nodes))
    if observer is not None:
        observer.on_operation(Operation(kernel, inputs, tuple(arrays), options, out, out._node))
    return out


def _lift(inputs: list[Any]) -> list[Array]:
    """Convert the numbers among the inputs to arrays."""
    for x in inputs:
        if not isinstance(x, np.ndarray | np.generic | int | float | complex):
            raise TypeError(
                f"operands must be Tensors, arrays or numbers, got {type(x).__name__}: wrap it in Tensor(...)"
            )
    # A NumPy scalar counts as a Python number, because np.sqrt(2) * x must not turn x into float64.
    plain = [x.item() if isinstance(x, np.generic) else x for x in inputs]
    dtype = np.result_type(*plain)
    if dtype == np.float64 and not any(isinstance(x, np.ndarray) and x.dtype == np.float64 for x in inputs):
        return [
            np.asarray(x, dtype=np.float32) for x in inputs
        ]  # the default float dtype for integers with a Python float
    return [x if isinstance(x, np.ndarray) else np.asarray(x, dtype=dtype) for x in inputs]


class Tensor:
    """An array with a gradient.

    Args:     array: an ndarray (kept, not copied, with its dtype), a Tensor (detached), a number or nested lists.
              Python floats become float32; arrays keep their dtype.
              requires_grad: whether `backward` fills `grad`. Only float and complex arrays can require a gradient.
              dtype: convert to this dtype.
    Raises:   TypeError: array does not hold numbers. ValueError: requires_grad on integers.
    """

    __slots__ = ("__weakref__", "_node", "data")
    __array_ufunc__ = None  # `ndarray + Tensor` is then left to Tensor.__radd__, instead of an array of objects

    data: Array

    def __init__(self, array: Any, requires_grad: bool = False, dtype: DTypeLike | None = None) -> None:
        if isinstance(array, Tensor):
            array = array.data
        if dtype is None and not isinstance(array, np.ndarray | np.generic):
            array = np.asarray(array)
            if array.dtype == np.float64:
                array = array.astype(np.float32)
        self.data = np.asarray(array, dtype=dtype)
        if self.data.dtype.kind not in "fciub":
            raise TypeError(f"a Tensor holds numbers, got {self.data.dtype} (from {type(array).__name__})")
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
        return self.shape if dim is None else self.shape[dim]

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
        """A detached copy in another dtype."""
        return Tensor(self.data.astype(dtype))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.array(self.data, dtype=dtype, copy=copy)

    def __len__(self) -> int:
        return len(self.data)

    def __iter__(self) -> Iterator["Tensor"]:
        return (self[i] for i in range(len(self)))

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        return bool(self.item())

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec else str(self)

    def __repr__(self) -> str:
        text = np.array2string(self.data, separator=", ", prefix="Tensor(", threshold=200)
        dtype = "" if self.dtype in (np.float32, np.int64) else f", dtype={self.dtype}"
        made = "" if self._node is None else ", requires_grad=True" if self.is_leaf else f", made by {self._node.name}"
        return f"Tensor({text}{dtype}{made})"

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
        self._node = Node("leaf") if value else None

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this Tensor."""
        return self._node is None or self._node.is_leaf

    @property
    def grad(self) -> Array | None:
        """The sum of the gradients of all `backward` calls: an ndarray of this shape, or None before the first call."""
        return None if self._node is None else self._node.grad

    @grad.setter
    def grad(self, value: Array | None) -> None:
        if self._node is None:
            if value is not None:
                raise RuntimeError("this Tensor does not require a gradient, so it cannot hold one")
            return
        self._node.grad = value

    def backward(self, gradient: Any = None) -> None:
        """Add the gradient of this Tensor to `.grad` of every leaf that it depends on.

        Args:     gradient: the gradient to start from, of this shape; default 1, for a scalar.
        Raises:   RuntimeError: nothing was recorded; no gradient for a non-scalar; a second backward pass.
        """
        node, seed = self._start(gradient)
        for leaf, g in walk_back(node, seed).items():
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
        seed = np.asarray(gradient, dtype=self.dtype)
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

    # Comparisons return boolean Tensors without a gradient. Equality is by element, as in PyTorch, so the hash is the
    # identity.

    def _compare(self, other: Operand, operation: Callable[[Any, Any], Any]) -> "Tensor":
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

    def maximum(self, other: Operand) -> "Tensor":
        return apply(K.maximum, self, other)

    def masked_fill(self, mask: Operand, value: float) -> "Tensor":
        """`value` where the mask is True, and this Tensor elsewhere. The gradient of a filled element is 0."""
        return apply(K.where, mask, value, self)

    # ---- reductions ------------------------------------------------------------------------------------------

    def sum(self, dim: Dim = None, keepdim: bool = False) -> "Tensor":
        return apply(K.sum, self, axis=dim, keepdims=keepdim)

    def mean(self, dim: Dim = None, keepdim: bool = False) -> "Tensor":
        return apply(K.mean, self, axis=dim, keepdims=keepdim)

    def var(self, dim: Dim = None, correction: int = 1, keepdim: bool = False) -> "Tensor":
        """Σ (x − mean)² / (n − correction); PyTorch's default is the unbiased form, correction=1."""
        return apply(K.var, self, axis=dim, ddof=correction, keepdims=keepdim)

    def amax(self, dim: Dim = None, keepdim: bool = False) -> "Tensor":
        """The largest element. Equal maxima share the gradient equally."""
        return apply(K.max, self, axis=dim, keepdims=keepdim)

    def max(self, dim: int | None = None, keepdim: bool = False) -> Any:
        """Without dim, the largest element. With dim, (values, indices): the gradient goes to these indices."""
        if dim is None:
            return self.amax()
        indices = np.expand_dims(np.argmax(self.data.real, axis=dim), dim)
        axes: list[Array] = list(np.indices(indices.shape, sparse=True))
        axes[dim] = indices
        values = self[tuple(axes)]
        if not keepdim:
            values = values.reshape(values.shape[: dim % self.ndim] + values.shape[dim % self.ndim + 1 :])
            indices = np.squeeze(indices, axis=dim)
        return Maxima(values, Tensor(indices))

    def argmax(self, dim: int | None = None, keepdim: bool = False) -> "Tensor":
        return Tensor(np.asarray(np.argmax(self.data, axis=dim, keepdims=keepdim)))

    def logsumexp(self, dim: Dim, keepdim: bool = False) -> "Tensor":
        return apply(K.logsumexp, self, axis=dim, keepdims=keepdim)

    def softmax(self, dim: int) -> "Tensor":
        return apply(K.softmax, self, axis=dim)

    def log_softmax(self, dim: int) -> "Tensor":
        return apply(K.log_softmax, self, axis=dim)

    # ---- shape -----------------------------------------------------------------------------------------------

    def reshape(self, *shape: int | Sequence[int]) -> "Tensor":
        return apply(K.reshape, self, shape=_sizes(shape))

    view = reshape

    def flatten(self, start_dim: int = 0, end_dim: int = -1) -> "Tensor":
        start, end = start_dim % max(self.ndim, 1), end_dim % max(self.ndim, 1)
        if start > end:
            raise ValueError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
        return self.reshape(*self.shape[:start], math.prod(self.shape[start : end + 1]), *self.shape[end + 1 :])

    def transpose(self, dim0: int, dim1: int) -> "Tensor":
        axes = list(range(self.ndim))
        axes[dim0], axes[dim1] = axes[dim1], axes[dim0]
        return apply(K.transpose, self, axes=tuple(axes))

    def permute(self, *dims: int | Sequence[int]) -> "Tensor":
        return apply(K.transpose, self, axes=_sizes(dims))

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
        return apply(K.reshape, self, shape=np.expand_dims(self.data, dim).shape)

    def squeeze(self, dim: int | tuple[int, ...] | None = None) -> "Tensor":
        """Remove axes of length 1: all, or those in dim. A longer axis in dim stays, as in PyTorch."""
        dims = range(self.ndim) if dim is None else dim if isinstance(dim, tuple) else (dim,)
        gone = {d % self.ndim for d in dims if self.shape[d] == 1}
        return self.reshape([n for i, n in enumerate(self.shape) if i not in gone])

    def __getitem__(self, index: Any) -> "Tensor":
        parts = index if isinstance(index, tuple) else (index,)
        plain = tuple(p.data if isinstance(p, Tensor) else p for p in parts)
        return apply(K.getitem, self, index=plain if isinstance(index, tuple) else plain[0])

    # copy, deepcopy and pickle make another leaf with its own node. Hooks are not copied.

    def __getstate__(self) -> tuple[Array, bool, Array | None]:
        if not self.is_leaf:
            raise RuntimeError("only leaves can be copied or pickled: use detach() on a computed Tensor")
        return self.data, self.requires_grad, self.grad

    def __setstate__(self, state: tuple[Array, bool, Array | None]) -> None:
        self.data, requires_grad, grad = state
        self._node = Node("leaf") if requires_grad else None
        self.grad = None if grad is None else grad.copy()


class Maxima(NamedTuple):
    """`Tensor.max(dim)` returns these."""

    values: Tensor
    indices: Tensor


def _sizes(shape: Sequence[int | Sequence[int]]) -> tuple[int, ...]:
    """Accept both f(2, 3) and f((2, 3))."""
    if len(shape) == 1 and isinstance(shape[0], Sequence):
        return tuple(operator.index(n) for n in shape[0])
    return tuple(operator.index(n) for n in shape)  # type: ignore[arg-type]


def grad(
    output: Tensor, inputs: Sequence[Tensor] | Tensor, gradient: Any = None, leaf_hooks: bool = True
) -> list[Array]:
    """The gradient of `output` with respect to each of `inputs`, as arrays.

    No `.grad` changes, so several threads can differentiate one model at the same time.

    Args:     output: a scalar Tensor, or any Tensor with `gradient` of its shape.
              inputs: one Tensor or several that require a gradient: leaves, or computed on the way to the output.
              leaf_hooks: False does not call the hooks of leaves; `hooked` calls them later, when the gradients of
              several parts of a batch have been added.
    Returns:  arrays of the inputs' shapes, with their own memory; zeros for an input that output does not depend on.
    Raises:   ValueError: an input does not require a gradient. RuntimeError: as in `Tensor.backward`.
    """
    inputs = [inputs] if isinstance(inputs, Tensor) else inputs
    nodes = [x._node for x in inputs]
    missing = [i for i, node in enumerate(nodes) if node is None]
    if missing:
        raise ValueError(f"inputs {missing} do not require a gradient: make them with requires_grad=True")
    root, seed = output._start(gradient)
    found = walk_back(root, seed, {node for node in nodes if node is not None}, leaf_hooks)
    grads = [
        found[node] if node in found else np.zeros_like(x.data) for x, node in zip(inputs, nodes, strict=True) if node
    ]
    return grads if len(set(nodes)) == len(nodes) else [g.copy() for g in grads]  # an input was named twice


def hooked(x: Tensor, gradient: Array) -> Array:
    """The gradient of a leaf after its hooks have seen and perhaps replaced it."""
    return gradient if x._node is None or not x._node.hooks else run_hooks(x._node, gradient, current_observer())
