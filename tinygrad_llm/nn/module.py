"""`Module` and `Parameter`: a model finds its parameters by walking its attributes."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, Self

import numpy as np
from numpy.typing import DTypeLike

from tinygrad_llm.autograd import Tensor, no_grad
from tinygrad_llm.autograd.observer import current_layer, current_observer, inside_layer
from tinygrad_llm.autograd.scope import scope
from tinygrad_llm.kernels import Array

_evaluating: ContextVar[bool] = ContextVar("evaluating", default=False)


class Parameter(Tensor):
    """A Tensor that a Module trains: a leaf that requires a gradient."""

    __slots__ = ()

    def __init__(self, array: Any, requires_grad: bool = True) -> None:
        super().__init__(array, requires_grad)


class Module:
    """A layer or a model: parameters, other Modules, and `forward`.

    Parameters are found by walking the attributes (Parameters, Modules, lists and dicts of them) in the order in which
    they were set. The path is the name: `transformer.h.0.ln_1.weight`. A parameter in two places is tied: it is counted
    once, under its first name.
    """

    _training = True

    @property
    def training(self) -> bool:
        """Whether dropout is on: the mode that `train` and `eval` set, except inside `evaluating`."""
        return self._training and not _evaluating.get()

    @training.setter
    def training(self, mode: bool) -> None:
        self._training = mode

    def __setattr__(self, name: str, value: Any) -> None:
        # Anything else in the place of a Parameter would silently not be trained.
        if not isinstance(value, Parameter | None) and isinstance(vars(self).get(name), Parameter):
            raise TypeError(
                f"cannot assign {type(value).__name__} as parameter {name!r} (Parameter or None expected): "
                f"wrap it in Parameter(…), or change the values in place, inside no_grad()"
            )
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return "\n".join(_tree(self, "", {p: name for name, p in self.named_parameters()}))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if current_observer() is None:
            return self.forward(*args, **kwargs)
        return self.as_layer(self.forward, *args, **kwargs)

    def as_layer(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """function(…) as a part of this layer: an observer learns the layer's path (`current_layer`)."""
        if current_observer() is None:
            return function(*args, **kwargs)
        with inside_layer(self._path_below(*current_layer()), self):
            return function(*args, **kwargs)

    def _path_below(self, path: str, outer: object) -> str:
        """The path of this Module, given that of its caller: "GPT.transformer" → "GPT.transformer.h.0"."""
        own = next((name for name, item in _walk(outer, "") if item is self), None)
        if own is None:  # this Module is not an attribute of its caller
            own = f"<{type(self).__name__}>" if path else type(self).__name__
        return ".".join(part for part in (path, own) if part)

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """(name, parameter) pairs, each parameter once."""
        seen: set[int] = set()
        for name, item in _walk(self, ""):
            if isinstance(item, Parameter) and id(item) not in seen:
                seen.add(id(item))
                yield name, item

    def parameters(self) -> Iterator[Parameter]:
        """Each parameter once, in the order of `named_parameters`."""
        return iter(dict.fromkeys(_parameters(self, [])))

    def named_modules(self) -> Iterator[tuple[str, "Module"]]:
        """(name, Module) pairs of this Module, whose name is "", and of all Modules inside it."""
        return ((name, item) for name, item in _walk(self, "") if isinstance(item, Module))

    def modules(self) -> Iterator["Module"]:
        """This Module and all Modules inside it."""
        return (module for _, module in self.named_modules())

    def num_parameters(self) -> int:
        """The number of elements of all parameters; tied ones count once."""
        return sum(p.numel() for p in self.parameters())

    def train(self, mode: bool = True) -> Self:
        """Switch dropout on, or off with mode=False, in this Module and all inside it."""
        for module in list(self.modules()):
            module.training = mode
        return self

    def eval(self) -> Self:
        return self.train(False)

    @scope
    def evaluating(self) -> Iterator[None]:
        """Inside this block, every Module is in evaluation mode and nothing is recorded.

        The block belongs to this thread alone, and changes no Module: other threads may use the same model.
        """
        token = _evaluating.set(True)
        try:
            with no_grad():
                yield
        finally:
            _evaluating.reset(token)

    def zero_grad(self) -> None:
        for p in self.parameters():
            p.grad = None

    def to(self, dtype: DTypeLike) -> Self:
        """Convert every parameter in place, and delete its gradient."""
        for p in self.parameters():
            p.grad = None
            p.data = p.data.astype(dtype)
        return self

    def state_dict(self) -> dict[str, Array]:
        """The parameters by name: the arrays themselves, not copies."""
        return {name: p.data for name, p in self.named_parameters()}

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy arrays into the parameters, name by name: all of them or, on an error, none.

        Raises:   TypeError: state is no dict. ValueError: names, shapes or dtypes differ; one message lists all.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"load_state_dict takes a dict of arrays by name, got {type(state).__name__}")
        own = dict(self.named_parameters())
        arrays = {name: np.asarray(array) for name, array in state.items()}
        wrong = [f"missing {name} {p.shape}" for name, p in own.items() if name not in arrays]
        wrong += [f"unexpected {name} {array.shape}" for name, array in arrays.items() if name not in own]
        wrong += [
            f"{name} has shape {arrays[name].shape}, the model's is {p.shape}"
            for name, p in own.items()
            if name in arrays and arrays[name].shape != p.shape
        ]
        wrong += [
            f"{name} has dtype {arrays[name].dtype}, which the model's {p.dtype} cannot hold"
            for name, p in own.items()
            if name in arrays
            and not (arrays[name].dtype.kind in "fc" and np.can_cast(arrays[name].dtype, p.dtype, "same_kind"))
        ]
        if wrong:
            raise ValueError("the weights do not fit the model: " + "; ".join(wrong))
        for name, p in own.items():
            p.data = arrays[name].astype(p.dtype)


def _walk(item: Any, path: str) -> list[tuple[str, Any]]:
    """An item and all that is inside it, in order, each with its path."""
    found = [(path, item)]
    children: Any
    if isinstance(item, Module):
        children = vars(item).items()
    elif isinstance(item, dict):
        children = item.items()
    elif isinstance(item, list | tuple):
        children = enumerate(item)
    else:
        return found
    for name, child in children:
        if isinstance(child, _PARTS):
            found += _walk(child, f"{path}.{name}" if path else str(name))
    return found


def _parameters(item: Any, found: list[Parameter]) -> list[Parameter]:
    """Append the parameters in an item to `found`, in the order of `_walk`, but without paths.

    A Trainer asks for them in every step, and paths would take most of the time.
    """
    if isinstance(item, Parameter):
        found.append(item)
        return found
    children = vars(item).values() if isinstance(item, Module) else item.values() if isinstance(item, dict) else item
    for child in children:
        if isinstance(child, _PARTS):
            _parameters(child, found)
    return found


_PARTS = (Parameter, Module, dict, list, tuple)  # made once: a union of types would be made anew for each child


def _tree(module: Module, path: str, first: dict[Parameter, str]) -> list[str]:
    """The lines of a Module: its class, settings and parameters; then, indented, the Modules inside it.

    Where it has Modules inside, the number of all parameters follows; tied ones count once.

    Args:     first: the name under which each parameter is trained; a tied one shows it.
    """
    own: list[str] = []
    inside: list[tuple[str, list[str]]] = []
    for name, x in _attributes(vars(module), ""):
        full = f"{path}.{name}" if path else name
        if isinstance(x, Module):
            inside.append((name, _tree(x, full, first)))
        elif isinstance(x, Parameter) or (isinstance(x, Tensor | np.ndarray) and not name.startswith("_")):
            trained = first.get(x, full) if isinstance(x, Parameter) else full
            own.append(f"{name}={x.shape}" + ("" if trained == full else f" = {trained}"))
        elif isinstance(x, int | float | str) and name != "training" and not name.startswith("_"):
            own.append(f"{name}={x!r}")
    lines = [type(module).__name__ + (f"({', '.join(own)})" if own else "")]
    if inside and (count := module.num_parameters()):
        lines[0] += f": {count:,} parameters"
    # Equal Modules one after another in a list, such as the blocks of a GPT, are shown once.
    for (_, shown), run in itertools.groupby(inside, lambda entry: (entry[0].rpartition(".")[0] or entry[0], entry[1])):
        names = [name for name, _ in run]
        several = f"-{names[-1].rpartition('.')[2]}: {len(names)} ×" if len(names) > 1 else ":"
        each = " each" if len(names) > 1 and shown[0].endswith(" parameters") else ""
        lines += [f"  {names[0]}{several} {shown[0]}{each}", *(f"  {line}" for line in shown[1:])]
    return lines


def _attributes(item: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(name, value) of all attributes; those in lists and dicts one by one."""
    for name, x in item.items() if isinstance(item, dict) else enumerate(item):
        full = f"{path}.{name}" if path else str(name)
        if isinstance(x, dict | list | tuple):
            yield from _attributes(x, full)
        else:
            yield full, x
