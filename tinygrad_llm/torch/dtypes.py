"""`dtype`, `device` and `Size`: PyTorch's names of a type of numbers, of a place for arrays, and of a shape."""

import math
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_llm.torch.missing import NEAREST, NotOffered


class dtype:
    """A type of numbers, such as `torch.float32`. `numpy` is what NumPy calls it."""

    def __init__(self, name: str, numpy_dtype: DTypeLike) -> None:
        self.name, self.numpy = name, np.dtype(numpy_dtype)

    def __repr__(self) -> str:
        return f"torch.{self.name}"

    def __reduce__(self) -> tuple[Any, ...]:
        return of_numpy, (self.numpy,)  # a copy is the same object

    @property
    def is_floating_point(self) -> bool:
        return self.numpy.kind == "f"

    @property
    def itemsize(self) -> int:
        """Bytes of one number."""
        return self.numpy.itemsize


float64 = dtype("float64", np.float64)
float32 = dtype("float32", np.float32)
float16 = dtype("float16", np.float16)
int64 = dtype("int64", np.int64)
int32 = dtype("int32", np.int32)
int16 = dtype("int16", np.int16)
int8 = dtype("int8", np.int8)
uint8 = dtype("uint8", np.uint8)
bool_ = dtype("bool", np.bool_)
complex64 = dtype("complex64", np.complex64)
complex128 = dtype("complex128", np.complex128)

_ALL = (float64, float32, float16, int64, int32, int16, int8, uint8, bool_, complex64, complex128)
_BY_NUMPY = {one.numpy: one for one in _ALL}
_BY_PYTHON: dict[Any, dtype] = {float: float64, int: int64, bool: bool_, complex: complex128}


def of_numpy(numpy_dtype: DTypeLike) -> dtype:
    """PyTorch's name of a NumPy dtype.

    Raises:   TypeError: it has none.
    """
    found = _BY_NUMPY.get(np.dtype(numpy_dtype))
    if found is None:
        raise TypeError(f"torch has no dtype {np.dtype(numpy_dtype)}: convert the array with .astype")
    return found


def numpy_of(given: Any) -> np.dtype[Any]:
    """NumPy's dtype for a `torch.dtype`, or for one of Python's types float, int, bool and complex.

    Raises:   TypeError: something else.
    """
    given = _BY_PYTHON.get(given, given)
    if not isinstance(given, dtype):
        raise TypeError(f"dtype must be a torch.dtype such as torch.float32, got {given!r:.60}")
    return given.numpy


def finfo(given: Any) -> Any:
    """NumPy's description of a float dtype: `eps`, `max`, `min`, `tiny`."""
    return np.finfo(numpy_of(given))


def iinfo(given: Any) -> Any:
    """NumPy's description of an integer dtype: `max` and `min`."""
    return np.iinfo(numpy_of(given))


class device:
    """The name of a place for arrays. Only "cpu" exists here; others can be named, but nothing can be put there."""

    def __init__(self, type: "str | device", index: int | None = None) -> None:
        kind, _, number = str(type).partition(":")
        self.type = kind
        self.index = int(number) if number else index

    def __repr__(self) -> str:
        return f"device(type={self.type!r}" + (")" if self.index is None else f", index={self.index})")

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __enter__(self) -> Self:
        check_device(self)
        return self

    def __exit__(self, *error: object) -> None:
        pass


CPU = device("cpu")


def check_device(given: Any) -> None:
    """Accept None and the CPU.

    Raises:   NotOffered: another device.
    """
    if given is None or (isinstance(given, str | device) and device(given).type == "cpu"):
        return
    raise NotOffered(f'device {str(given)!r}: there is only "cpu" here; ask torch.cuda.is_available() first')


class Size(tuple[int, ...]):
    """A shape: a tuple that prints as `torch.Size([2, 3])`."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"torch.Size([{', '.join(map(str, self))}])"

    def __getitem__(self, index: Any) -> Any:
        part = super().__getitem__(index)
        return Size(part) if isinstance(index, slice) else part

    def __add__(self, other: Any) -> "Size":
        return Size(tuple(self) + tuple(other))

    def __radd__(self, other: Any) -> "Size":
        return Size(tuple(other) + tuple(self))

    def numel(self) -> int:
        """The number of elements of an array of this shape."""
        return math.prod(self)


def no_bfloat16() -> NotOffered:
    """The error where someone asks for bfloat16."""
    return NotOffered(NEAREST["torch.bfloat16"])
