"""The functions of `torch` that make Tensors, and those that take several; `x.exp()` is also `torch.exp(x)`."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinygrad_llm import autograd
from tinygrad_llm import functional as F
from tinygrad_llm.torch.dtypes import check_device, float32, int64, numpy_of, of_numpy
from tinygrad_llm.torch.dtypes import dtype as Dtype
from tinygrad_llm.torch.generator import Generator, default_generator
from tinygrad_llm.torch.missing import NotOffered
from tinygrad_llm.torch.streams import stream
from tinygrad_llm.torch.tensor import Tensor, array_of, common_dtype, constant, together

# ---- new Tensors ---------------------------------------------------------------------------------------------------


def tensor(data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False) -> Tensor:
    """A Tensor with its own copy of numbers: nested lists, an array, a number or a Tensor.

    Python floats become float32, whole numbers int64.
    """
    check_device(device)
    plain = not isinstance(data, Tensor | np.ndarray | np.generic)
    array = np.array(_plain(data) if plain else array_of(data))
    if dtype is not None:
        array = array.astype(numpy_of(dtype))
    elif plain and array.dtype == np.float64 and not _has_float64(data):
        array = array.astype(np.float32)
    if array.dtype == object:
        raise ValueError("torch.tensor: got lists of unequal lengths, or things that are no numbers")
    return _made(array, requires_grad)


def _plain(data: Any) -> Any:
    """Nested lists with a Python number or an array in place of each Tensor."""
    if isinstance(data, Tensor):
        return data.ours.data
    return [_plain(item) for item in data] if isinstance(data, list | tuple) else data


def _has_float64(data: Any) -> bool:
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return isinstance(data, np.ndarray | np.generic | Tensor)


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
    return constant(np.where(i < steps // 2, from_start, from_end).astype(kind))


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


def randperm(n: int, *, generator: Generator | None = None, dtype: Any = None, device: Any = None) -> Tensor:
    """0 … n−1 in a random order."""
    check_device(device)
    return constant(stream(generator).randperm(n)).to(dtype or int64)


def normal(mean: Any, std: Any, size: Any = None, *, generator: Generator | None = None) -> Tensor:
    """Normal numbers of one mean and standard deviation."""
    if size is None:
        raise NotOffered("torch.normal needs a size here: for means of many, mean + std * torch.randn(…)")
    return constant(stream(generator).normal(float(mean), float(std), _shape((size,))))


def bernoulli(input: Tensor, *, generator: Generator | None = None) -> Tensor:
    """1 with the probability that `input` says, else 0."""
    p = array_of(input)
    return constant((stream(generator).rand(p.shape, np.float64) < p).astype(p.dtype))


# ---- several Tensors -----------------------------------------------------------------------------------------------


def _alike(tensors: Sequence[Tensor]) -> list[autograd.Tensor]:
    """As ours, in one dtype."""
    given = [x if isinstance(x, Tensor) else tensor(x) for x in tensors]
    common = common_dtype(*(x.ours.data for x in given)) if given else np.dtype(np.float32)
    return [x.ours.to(common) for x in given]


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """One after another along `dim`."""
    return Tensor.of(F.cat(_alike([x for x in tensors if x.shape != (0,)] or tensors), dim), "CatBackward0")


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Along a new axis `dim`."""
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


def result_type(one: Tensor, other: Tensor) -> Dtype:
    """The dtype of an operation on two Tensors."""
    return of_numpy(common_dtype(one.ours.data, other.ours.data))


# ---- methods as functions ------------------------------------------------------------------------------------------

_METHODS = """
    abs add all allclose amax amin any argmax argmin argsort bincount bmm ceil chunk clamp clone cos count_nonzero
    cumsum diagonal div dot eq equal erf exp flatten flip floor floor_divide gather ge gt index_select isclose
    isfinite isinf isnan le log log10 log1p log2 log_softmax logical_and logical_not logical_or logsumexp lt
    masked_fill masked_select max maximum mean median min minimum mm mul multinomial mv ne neg nonzero norm permute
    pow prod reciprocal relu remainder repeat_interleave reshape roll round rsqrt sigmoid sign sin softmax sort
    split sqrt square squeeze std sub sum swapaxes t tan tanh topk transpose tril triu trunc unbind unique unsqueeze
    var
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


METHODS = {name: _function(name) for name in _METHODS}
METHODS |= {
    "absolute": METHODS["abs"],
    "subtract": METHODS["sub"],
    "multiply": METHODS["mul"],
    "clip": METHODS["clamp"],
}
METHODS |= {
    "divide": METHODS["div"],
    "true_divide": METHODS["div"],
    "negative": METHODS["neg"],
    "tile": _function("repeat"),
}
