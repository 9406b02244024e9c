"""The functions of `torch` that make Tensors, and those that take several; `x.exp()` is also `torch.exp(x)`."""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from tinygrad_llm import autograd
from tinygrad_llm import functional as F
from tinygrad_llm.torch import composed
from tinygrad_llm.torch.dtypes import bool_, check_device, float32, int32, int64, numpy_of, of_numpy
from tinygrad_llm.torch.dtypes import dtype as Dtype
from tinygrad_llm.torch.generator import Generator, default_generator
from tinygrad_llm.torch.missing import NotOffered, refuse
from tinygrad_llm.torch.streams import stream
from tinygrad_llm.torch.tensor import Tensor, array_of, common_dtype, constant, together

# ---- new Tensors ---------------------------------------------------------------------------------------------------


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A Tensor with its own copy of numbers: nested lists, an array, a number or a Tensor.

    Python floats become float32, whole numbers int64, complex numbers complex64.
    """
    check_device(device)
    plain = not isinstance(data, Tensor | np.ndarray | np.generic)
    array = np.array(_plain(data) if plain else array_of(data))
    if dtype is not None:
        array = array.astype(numpy_of(dtype))
    elif plain and array.dtype in _WIDE and not any(map(_is_wide, _leaves(data))):
        array = array.astype(np.float32 if array.dtype == np.float64 else np.complex64)
    if array.dtype == object:
        raise ValueError("torch.tensor: got lists of unequal lengths, or things that are no numbers")
    return _made(array, requires_grad)


def _plain(data: Any) -> Any:
    """Nested lists with a Python number or an array in place of each Tensor."""
    if isinstance(data, Tensor):
        return data.ours.data
    return [_plain(item) for item in data] if isinstance(data, list | tuple) else data


def _leaves(data: Any) -> Iterator[Any]:
    """What the nested lists hold, as long as it is not plain numbers alone."""
    if not isinstance(data, list | tuple):
        yield data
    elif not all(type(item) is float for item in data):
        for item in data:
            yield from _leaves(item)


_WIDE = (np.float64, np.complex128)


def _is_wide(x: Any) -> bool:
    if isinstance(x, int | float | complex):
        return type(x) in _WIDE
    return getattr(array_of(x), "dtype", None) in _WIDE


def _made(array: Any, requires_grad: bool = False) -> Tensor:
    made = constant(array)
    made.requires_grad = requires_grad
    return made


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """A Tensor of these numbers, which shares their memory where that is possible."""
    check_device(device)
    made = data if isinstance(data, Tensor) else constant(data) if isinstance(data, np.ndarray) else tensor(data)
    return made if dtype is None else made.to(dtype)


asarray = as_tensor


def from_numpy(array: Any) -> Tensor:
    """A Tensor that shares the memory of an array."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"expected np.ndarray (got {type(array).__name__})")
    return constant(array)


def _filled(name: str, value: Callable[..., Any], default: Dtype = float32) -> Callable[..., Tensor]:
    """A function of a shape, such as `zeros`."""

    def make(*size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **options: Any) -> Tensor:
        check_device(device)
        shape = options.pop("size", size)
        if options:
            raise NotOffered(f"torch.{name}: got {', '.join(options)}, which is not offered here")
        return _made(value(_shape(shape), numpy_of(dtype or default)), requires_grad)

    make.__name__, make.__doc__ = name, f"`{name}` of a shape: f(2, 3) or f((2, 3)); float32 by default."
    return make


def _like(name: str, value: Callable[..., Any]) -> Callable[..., Tensor]:
    def make(input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
        check_device(device)
        return _made(value(input.ours.shape, numpy_of(dtype or input.dtype)), requires_grad)

    make.__name__, make.__doc__ = name, f"`{name}`: in the shape and dtype of another Tensor."
    return make


def _shape(size: Any) -> tuple[int, ...]:
    """Accept both f(2, 3) and f((2, 3))."""
    given = size[0] if isinstance(size, tuple) and len(size) == 1 and isinstance(size[0], Sequence) else size
    return tuple(int(n) for n in ((given,) if isinstance(given, int) else given))


zeros, ones, empty = _filled("zeros", np.zeros), _filled("ones", np.ones), _filled("empty", np.zeros)
zeros_like, ones_like = _like("zeros_like", np.zeros), _like("ones_like", np.ones)
empty_like = _like("empty_like", np.zeros)


def full(size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A Tensor of one number; its dtype is that of `torch.tensor(fill_value)`."""
    check_device(device)
    value = tensor(fill_value, dtype=dtype)
    return _made(np.full(_shape((size,)), value.ours.data), requires_grad)


def full_like(input: Tensor, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Tensor:
    """A Tensor of one number, in the shape and dtype of another."""
    return full(input.shape, fill_value, dtype=dtype or input.dtype, device=device)


def arange(*limits: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **named: Any) -> Tensor:
    """start, start + step, …, below end: int64 for whole numbers, else float32."""
    check_device(device)
    start, end, step = (*limits, 1)[:3] if len(limits) > 1 else (0, *limits, 1)[:3]
    start, end, step = (named.get(k, v) for k, v in (("start", start), ("end", end), ("step", step)))
    limits = tuple(x.item() if isinstance(x, Tensor) else x for x in (start, end, step))
    whole = all(isinstance(x, int | np.integer) for x in limits)
    array = np.arange(*limits)
    return _made(array.astype(numpy_of(dtype or (int64 if whole else float32))), requires_grad)


def linspace(start: Any, end: Any, steps: int, *, dtype: Any = None, device: Any = None) -> Tensor:
    """`steps` numbers at equal distances, from start to end."""
    check_device(device)
    kind = numpy_of(dtype or float32)
    # As PyTorch: from both ends to the middle, so that both are exact.
    start, end = kind.type(float(start)), kind.type(float(end))
    step = kind.type((end - start) / max(steps - 1, 1))
    i = np.arange(steps)
    from_start, from_end = start + step * i.astype(kind), end - step * (steps - 1 - i).astype(kind)
    return constant(np.where(i < max(steps // 2, 1), from_start, from_end).astype(kind))


def eye(n: int, m: int | None = None, *, dtype: Any = None, device: Any = None) -> Tensor:
    """1 on the diagonal, 0 elsewhere."""
    check_device(device)
    return constant(np.eye(n, m, dtype=numpy_of(dtype or float32)))


# ---- random Tensors ------------------------------------------------------------------------------------------------


def manual_seed(seed: int) -> Generator:
    """Start the global stream of `seed`: layers, dropout, loaders and all functions below draw from it."""
    return default_generator.manual_seed(int(seed))


def seed() -> int:
    """Start a global stream that nobody knows, and return its seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the global stream."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The state of the global stream, as bytes."""
    return default_generator.get_state()


def set_rng_state(new_state: Tensor) -> None:
    """Continue the global stream from a state that `get_rng_state` returned."""
    default_generator.set_state(new_state)


def _random(name: str) -> Callable[..., Tensor]:
    def draw(
        *size: Any,
        generator: Generator | None = None,
        dtype: Any = None,
        device: Any = None,
        requires_grad: bool = False,
        **options: Any,
    ) -> Tensor:
        check_device(device)
        shape = _shape(options.pop("size", size))
        if options:
            raise NotOffered(f"torch.{name}: got {', '.join(options)}, which is not offered here")
        return _made(getattr(stream(generator), name)(shape, numpy_of(dtype or float32)), requires_grad)

    draw.__name__, draw.__doc__ = name, f"Random numbers: see `tinygrad_llm.Generator.{name}`."
    return draw


rand, randn = _random("rand"), _random("randn")


def rand_like(input: Tensor, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Uniform numbers in the shape and dtype of another Tensor."""
    return rand(*input.shape, dtype=dtype or input.dtype, device=device)


def randn_like(input: Tensor, *, dtype: Any = None, device: Any = None) -> Tensor:
    """Normal numbers in the shape and dtype of another Tensor."""
    return randn(*input.shape, dtype=dtype or input.dtype, device=device)


def randint(
    *limits: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    **named: Any,
) -> Tensor:
    """Whole numbers from low (default 0) to high − 1."""
    check_device(device)
    given = list(limits)
    shape = given.pop() if size is None else size
    low, high = (0, *given) if len(given) == 1 else given or (named.get("low", 0), named["high"])
    drawn = constant(stream(generator).randint(int(low), int(high), _shape((shape,))))
    return drawn if dtype is None else drawn.to(dtype)


def randint_like(input: Tensor, *limits: int) -> Tensor:
    """Whole numbers in the shape and dtype of another Tensor."""
    return randint(*limits, size=input.shape, dtype=input.dtype)


def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: Any = None) -> Tensor:
    """0 … n−1 in a random order."""
    check_device(device)
    return constant(stream(generator).randperm(n)).to(dtype or int64)


def normal(mean: Any, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None) -> Tensor:
    """Normal numbers of one mean and standard deviation, or of one for each element."""
    if size is not None:
        return constant(stream(generator).normal(float(mean), float(std), _shape((size,))))
    shape = np.broadcast_shapes(array_of(mean).shape, array_of(std).shape)
    drawn = randn(*shape, generator=generator)
    return mean + std * drawn  # type: ignore[no-any-return]


def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that `input` says, else 0."""
    p = array_of(input)
    return constant((stream(generator).rand(p.shape, p.dtype) < p).astype(p.dtype))


# ---- settings that programs make, and that change nothing here -----------------------------------------------------


def set_num_threads(number: int) -> None:
    """Nothing: the number of threads of NumPy's products is set before a program starts (OMP_NUM_THREADS)."""


def get_num_threads() -> int:
    """The number of processors that NumPy's products may use."""
    return int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Nothing: everything here gives the same numbers each time."""


def set_float32_matmul_precision(precision: str) -> None:
    """Nothing: float32 products are float32 products."""


def autocast(device_type: str = "cpu", dtype: Any = None, enabled: bool = True, **options: Any) -> Any:
    """A block that computes in the dtypes of its Tensors; other dtypes are not chosen here.

    Raises:   NotOffered: enabled, which would compute in bfloat16.
    """
    refuse("torch.autocast", enabled=enabled)
    return nullcontext()


# ---- several Tensors -----------------------------------------------------------------------------------------------


def _alike(tensors: Sequence[Tensor]) -> list[autograd.Tensor]:
    """As ours, in one dtype."""
    given = [x if isinstance(x, Tensor) else tensor(x) for x in tensors]
    common = common_dtype(*(x.ours.data for x in given)) if given else np.dtype(np.float32)
    return [x.ours.to(common) for x in given]


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """One after another along `dim`."""
    given = [x for x in tensors if x.shape != (0,)] or tensors
    for i, x in enumerate(given):
        sizes = [
            (a, b) for axis, (a, b) in enumerate(zip(given[0].shape, x.shape, strict=False)) if axis != dim % x.ndim
        ]
        for a, b in sizes:
            if a != b:
                raise RuntimeError(
                    f"Sizes of tensors must match except in dimension {dim}. Expected size {a} but got size {b} for "
                    f"tensor number {i} in the list."
                )
    return Tensor.of(F.cat(_alike(given), dim), "CatBackward0")


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Along a new axis `dim`."""
    for i, x in enumerate(tensors):
        if x.shape != tensors[0].shape:
            sizes = f"{list(tensors[0].shape)} at entry 0 and {list(x.shape)} at entry {i}"
            raise RuntimeError(f"stack expects each tensor to be equal size, but got {sizes}")
    return Tensor.of(F.stack(_alike(tensors), dim), "StackBackward0")


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """One below another."""
    return cat([x[None] if x.ndim == 1 else x for x in tensors])


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Side by side."""
    return cat(tensors, 0 if tensors[0].ndim == 1 else 1)


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """`input` where the condition holds, else `other`; without them, the indices where it holds."""
    if input is None:
        return condition.nonzero(as_tuple=True)
    a, b = together(input, other)
    return Tensor.of(F.where(array_of(condition), a, b), "WhereBackward0")


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product."""
    return input @ other


def einsum(equation: str, *operands: Any) -> Tensor:
    """Einstein's summation."""
    given = operands[0] if len(operands) == 1 and isinstance(operands[0], Sequence) else operands
    return Tensor.of(F.einsum(equation, *_alike(given)), "ViewBackward0")


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """Every product of one element of each."""
    return input.outer(vec2)


def is_tensor(obj: Any) -> bool:
    """Whether something is a Tensor."""
    return isinstance(obj, Tensor)


def is_floating_point(input: Tensor) -> bool:
    """Whether it holds floats."""
    return input.is_floating_point()


def numel(input: Tensor) -> int:
    """The number of elements."""
    return input.numel()


def meshgrid(*tensors: Tensor, indexing: str = "ij") -> tuple[Tensor, ...]:
    """The coordinates of every point of a grid."""
    return tuple(constant(x) for x in np.meshgrid(*map(array_of, tensors), indexing=indexing))  # type: ignore[call-overload]


def tril_indices(row: int, col: int, offset: int = 0) -> Tensor:
    """The rows and the columns of the lower triangle of a matrix, as two rows of numbers."""
    return constant(np.stack(np.tril_indices(row, offset, col)))


def triu_indices(row: int, col: int, offset: int = 0) -> Tensor:
    """The rows and the columns of the upper triangle of a matrix, as two rows of numbers."""
    return constant(np.stack(np.triu_indices(row, offset, col)))


def scalar_tensor(s: Any, *, dtype: Any = None) -> Tensor:
    """A Tensor of one number, float32 by default."""
    return tensor(s, dtype=dtype or float32)


def logspace(start: Any, end: Any, steps: int, base: float = 10.0) -> Tensor:
    """Powers of `base`, whose exponents are at equal distances."""
    return base ** linspace(start, end, steps)  # type: ignore[no-any-return]


def tensordot(a: Tensor, b: Tensor, dims: int = 2) -> Tensor:
    """The product along the last `dims` axes of one and the first of the other."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    one, other = letters[: a.ndim], letters[a.ndim - dims : a.ndim - dims + b.ndim]
    return einsum(f"{one},{other}->{one[: a.ndim - dims]}{other[dims:]}", a, b)


def promote_types(type1: Dtype, type2: Dtype) -> Dtype:
    """The dtype of an operation on Tensors of two dtypes."""
    return of_numpy(common_dtype(np.empty(1, type1.numpy), np.empty(1, type2.numpy)))


def get_default_dtype() -> Dtype:
    """float32."""
    return float32


def _typed(name: str, kind: Dtype) -> Callable[..., Tensor]:
    def make(*data: Any) -> Tensor:
        return Tensor(*data).to(kind)

    make.__name__, make.__doc__ = name, f"A Tensor of a shape, or of these numbers, as {kind}."
    return make


FloatTensor, LongTensor = _typed("FloatTensor", float32), _typed("LongTensor", int64)
IntTensor, BoolTensor = _typed("IntTensor", int32), _typed("BoolTensor", bool_)


def result_type(one: Tensor, other: Tensor) -> Dtype:
    """The dtype of an operation on two Tensors."""
    return of_numpy(common_dtype(one.ours.data, other.ours.data))


# ---- methods as functions ------------------------------------------------------------------------------------------

_METHODS = """
    abs add all allclose amax amin any argmax argmin argsort atan2 bincount bmm chunk clamp clone count_nonzero cumsum
    detach diagonal div dot eq equal erf flatten flip floor_divide fmod gather ge gt index_select is_complex
    is_nonzero isclose isfinite isinf isnan le log_softmax logical_and logical_not logical_or logical_xor logsumexp lt
    masked_fill masked_select max maximum median min minimum mm mul multinomial mv ne neg nonzero norm permute pow
    reciprocal relu relu_ remainder repeat_interleave reshape roll rsqrt sigmoid sort split sqrt square squeeze std
    sub swapaxes t tanh topk transpose tril triu unbind unique unsqueeze var
""".split()  # noqa: SIM905 (a list would take one line each)


def _function(name: str) -> Callable[..., Any]:
    method = getattr(Tensor, name)

    @functools.wraps(method)
    def call(input: Any, *arguments: Any, **options: Any) -> Any:
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}(): argument 'input' must be Tensor, not {type(input).__name__}")
        return method(input, *arguments, **options)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = method.__doc__ or f"See `torch.Tensor.{name}`."
    return call


METHODS = {name: _function(name) for name in [*_METHODS, *composed.NAMES]}
