"""What a recorder kept: values, gradients and steps, in true order."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.autograd.observer import Line
from tinygrad_llm.kernels import Array, Kernel
from tinygrad_llm.nn import Parameter


class Mark(NamedTuple):
    """Where in the program an operation was called from."""

    file: str
    line: int
    instruction: int  # within the function: grows within a statement
    frame: int


@dataclass
class Value:
    """An array that took part: an input, a parameter, a constant, or what an operation made."""

    id: int
    array: Any  # what `keep` returned for it; a copy, usually
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    layer: str  # in which it was made, or first used
    made_by: int | None = None  # forward step
    used_by: list[int] = field(default_factory=list)  # forward steps
    tensor: Tensor | None = None  # of a leaf that requires a gradient
    source: Array | None = None  # the array itself, of a value that no operation made
    requires_grad: bool = False
    number: bool = False  # a Python number
    grad: int | None = None  # the complete gradient
    name: str = ""  # as in the model; unique
    also: list[str] = field(default_factory=list)  # its further names
    variable: str = ""  # what the program calls it, where an operation receives it
    given: str = ""  # the name that the caller of `record` gave it


@dataclass
class Gradient:
    """A gradient that existed on the way: what one use contributed, a sum, or what a hook made of it."""

    id: int
    value: int  # whose gradient it is
    step: int  # that made it
    array: Any  # as Value.array
    user: int | None = None  # the forward step whose vjp made it, and the position of the input there
    position: int = 0


@dataclass
class Saved:
    """An array that a vjp keeps for backward."""

    name: str
    owner: str  # "its input x", "its output", or "" for memory of its own
    shape: tuple[int, ...]
    nbytes: int


@dataclass
class Forward:
    """A kernel has run."""

    i: int
    kernel: Kernel
    layer: str
    line: Line
    mark: Mark  # which statement of the program it belongs to
    roles: list[str]  # the kernel's names of its inputs
    inputs: list[int]  # values
    output: int
    options: dict[str, Any]
    saved: list[Saved]
    recorded: bool
    backward: int | None = None  # the step of its vjp

    @property
    def name(self) -> str:
        return self.kernel.__name__


@dataclass
class Seed:
    """Backward begins: ∂L/∂L."""

    i: int
    value: int
    gradient: int


@dataclass
class Vjp:
    """The vjp of a forward step has turned the complete gradient of its output into one gradient for each input."""

    i: int
    forward: int
    value: int
    gradient: int
    outgoing: list[int | None]  # gradients, one for each input


@dataclass
class Sum:
    """Two gradients of one value were added: it was used more than once."""

    i: int
    value: int
    first: int
    second: int
    gradient: int


@dataclass
class Hooked:
    """A hook has seen a gradient, and may have replaced it."""

    i: int
    value: int
    before: int
    gradient: int


@dataclass
class Leaf:
    """The gradient of a leaf is complete."""

    i: int
    value: int
    gradient: int


Step: TypeAlias = Forward | Seed | Vjp | Sum | Hooked | Leaf


@dataclass
class Recording:
    """All that happened, in order. Ids are positions in these lists."""

    values: list[Value] = field(default_factory=list)
    gradients: list[Gradient] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    output: int = -1  # the value that backward started from

    @property
    def forward(self) -> list[Forward]:
        return [step for step in self.steps if isinstance(step, Forward)]

    @property
    def leaves(self) -> list[Value]:
        """The values that no operation made, and whose gradient was asked for."""
        return [v for v in self.values if v.made_by is None and v.requires_grad]

    @property
    def parameters(self) -> list[Value]:
        """The leaves that are Parameters; all leaves where none is."""
        return [v for v in self.leaves if isinstance(v.tensor, Parameter)] or self.leaves

    def step(self, i: int) -> Forward:
        """The forward step i."""
        step = self.steps[i]
        assert isinstance(step, Forward)
        return step

    def gradient_of(self, value: Value) -> Any:
        """The complete gradient of a value; None if it has none."""
        return None if value.grad is None else self.gradients[value.grad].array

    def __getitem__(self, name: str) -> Value:
        """The value of this name, which may be one of its further names.

        Raises:   KeyError: there is none.
        """
        named = next((v for v in self.values if v.name == name), None)
        named = named or next((v for v in self.values if name in v.also), None)
        if named is None:
            raise KeyError(f"no value is named {name!r}: there are {', '.join(v.name for v in self.values)}")
        return named

    def cache(self) -> dict[str, Any]:
        """Values by all their names, and gradients under the same names with ".grad" behind."""
        values: dict[str, Any] = {}
        for further in (True, False):  # a name of one value may be a further name of another
            for v in self.values:
                for name in v.also if further else [v.name]:
                    values[name] = v.array
                    if v.grad is not None:
                        values[f"{name}.grad"] = self.gradient_of(v)
        return values
