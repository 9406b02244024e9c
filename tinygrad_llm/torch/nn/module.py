"""`torch.nn.Module`: our Module with PyTorch's registers, names and printed form."""

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, Self

import numpy as np

from tinygrad_llm import nn
from tinygrad_llm.autograd import no_grad
from tinygrad_llm.torch.dtypes import check_device, float16, float32, float64, numpy_of
from tinygrad_llm.torch.dtypes import device as Device
from tinygrad_llm.torch.dtypes import dtype as Dtype
from tinygrad_llm.torch.missing import NEAREST, NotOffered, missing
from tinygrad_llm.torch.tensor import Parameter, Tensor, array_of, constant, zero_grads


class IncompatibleKeys(NamedTuple):
    """The names that a state had too few and too many."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"_IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class RemovableHandle:
    """What `register_forward_hook` returns: `remove` takes the hook away, as the end of a `with` block does."""

    def __init__(self, hooks: "OrderedDict[int, Callable[..., Any]]", hook: Callable[..., Any]) -> None:
        self._hooks = hooks
        hooks[id(self)] = hook

    def remove(self) -> None:
        self._hooks.pop(id(self), None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


class Module(nn.Module):
    """A layer or a model: parameters, buffers, other Modules, and `forward`.

    As in PyTorch, a Parameter or a Module counts where it is an attribute; lists of Modules are for `ModuleList`.
    """

    def __init__(self) -> None:
        # Which attributes are buffers, and whether each is part of `state_dict`.
        object.__setattr__(self, "_kept_buffers", {})

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter | Module) and "_kept_buffers" not in vars(self):
            what = "parameters" if isinstance(value, Parameter) else "module"
            raise AttributeError(f"cannot assign {what} before Module.__init__() call")
        if isinstance(vars(self).get(name), Parameter) and not isinstance(value, Parameter | None):
            kind = value.type() if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"cannot assign '{kind}' as parameter '{name}' (torch.nn.Parameter or None expected)")
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if f"torch.nn.Module.{name}" in NEAREST:
            raise missing("torch.nn.Module", name, [])
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'", name=name, obj=self)

    # ---- what is inside ------------------------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, "Module"]]:
        """(name, Module) of the Modules that are attributes."""
        seen: set[int] = set()
        for name, x in list(vars(self).items()):
            if isinstance(x, Module) and id(x) not in seen:
                seen.add(id(x))
                yield name, x

    def children(self) -> Iterator["Module"]:
        return (module for _, module in self.named_children())

    def named_modules(
        self, memo: Any = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, "Module"]]:
        """(name, Module) of this Module, whose name is "", and of all inside it."""
        memo = set() if memo is None else memo
        if id(self) in memo and remove_duplicate:
            return
        memo.add(id(self))
        yield prefix, self
        for name, x in list(vars(self).items()):
            if isinstance(x, Module):
                yield from x.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def _members(
        self, kind: Callable[["Module", str, Any], bool], prefix: str, recurse: bool
    ) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        for path, module in self.named_modules(prefix=prefix) if recurse else [(prefix, self)]:
            for name, x in list(vars(module).items()):
                if kind(module, name, x) and id(x) not in seen:
                    seen.add(id(x))
                    yield (f"{path}.{name}" if path else name), x

    def named_parameters(  # type: ignore[override]
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """(name, Parameter) pairs: those of this Module before those inside; each once."""
        return self._members(lambda module, name, x: isinstance(x, Parameter), prefix, recurse)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:  # type: ignore[override]
        return (p for _, p in self.named_parameters(recurse=recurse))

    def named_buffers(self, prefix: str = "", recurse: bool = True) -> Iterator[tuple[str, Tensor]]:
        """(name, Tensor) of what `register_buffer` registered."""
        return self._members(
            lambda module, name, x: name in module._kept_buffers and isinstance(x, Tensor), prefix, recurse
        )

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        return (x for _, x in self.named_buffers(recurse=recurse))

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Make a Tensor an attribute that is not trained, but saved (if persistent) and converted with the Module."""
        if "_kept_buffers" not in vars(self):
            raise AttributeError("cannot assign buffer before Module.__init__() call")
        if hasattr(self, name) and name not in self._kept_buffers:
            raise KeyError(f"attribute '{name}' already exists")
        self._kept_buffers[name] = persistent
        super().__setattr__(name, tensor)

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        setattr(self, name, param)

    def add_module(self, name: str, module: "Module | None") -> None:
        setattr(self, name, module)

    register_module = add_module

    @property
    def _parameters(self) -> dict[str, Any]:
        return {name: x for name, x in vars(self).items() if isinstance(x, Parameter)}

    @property
    def _buffers(self) -> dict[str, Any]:
        return {name: vars(self).get(name) for name in self._kept_buffers}

    @property
    def _modules(self) -> dict[str, Any]:
        return {name: x for name, x in vars(self).items() if isinstance(x, Module)}

    def __delattr__(self, name: str) -> None:
        super().__delattr__(name)
        self._kept_buffers.pop(name, None)

    def get_parameter(self, target: str) -> Parameter:
        """The Parameter of a dotted name."""
        path, _, name = target.rpartition(".")
        found = vars(self.get_submodule(path)).get(name)
        if not isinstance(found, Parameter):
            raise AttributeError(f"{type(self).__name__} has no Parameter {target!r}")
        return found

    def get_submodule(self, target: str) -> "Module":
        """The Module of a dotted name."""
        found = dict(self.named_modules(remove_duplicate=False))
        if target not in found:
            raise AttributeError(f"{type(self).__name__} has no Module {target!r}")
        return found[target]

    def apply(self, fn: Callable[["Module"], Any]) -> Self:
        """Call a function with every Module inside, and with this one last."""
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # ---- all at once ---------------------------------------------------------------------------------------------

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        for p in self.parameters():
            p.requires_grad = requires_grad
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        zero_grads(self.parameters(), set_to_none)

    def to(self, *where: Any, dtype: Any = None, device: Any = None, **options: Any) -> Self:
        """Convert all float parameters and buffers in place; a device may be "cpu" only."""
        for one in where:
            if isinstance(one, Device | str):
                device = one
            elif isinstance(one, Tensor | Dtype):
                dtype = one.dtype if isinstance(one, Tensor) else one
        check_device(device)
        if dtype is not None:
            for x in (*self.parameters(), *self.buffers()):
                if x.ours.dtype.kind == "f" and x.ours.dtype != numpy_of(dtype):
                    x.grad = None
                    x.ours.data = x.ours.data.astype(numpy_of(dtype))
        return self

    def cpu(self) -> Self:
        return self

    def cuda(self, device: Any = None) -> Self:
        return self.to("cuda")

    def float(self) -> Self:
        return self.to(float32)

    def double(self) -> Self:
        return self.to(float64)

    def half(self) -> Self:
        return self.to(float16)

    def bfloat16(self) -> Self:
        raise NotOffered(NEAREST["torch.bfloat16"])

    # ---- state ---------------------------------------------------------------------------------------------------

    def _state(self) -> dict[str, Tensor]:
        """Parameters and persistent buffers by name; a tied parameter under each of its names."""
        state: dict[str, Tensor] = {}
        for path, module in self.named_modules(remove_duplicate=False):
            members = vars(module).items()
            kept = module._kept_buffers
            own: list[tuple[str, Tensor]] = [(n, x) for n, x in members if isinstance(x, Parameter)]
            own += [(n, x) for n, x in members if kept.get(n) and isinstance(x, Tensor)]
            state |= {f"{path}.{n}" if path else n: x for n, x in own}
        return state

    def state_dict(self) -> "OrderedDict[str, Tensor]":  # type: ignore[override]
        """Parameters and buffers by name; they share the model's memory."""
        return OrderedDict((name, x.detach()) for name, x in self._state().items())

    def load_state_dict(  # type: ignore[override]
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy a state into the parameters and buffers: all of it or, on an error, nothing.

        Raises:   RuntimeError: names differ (with strict) or shapes do; one message lists all.
        """
        own = self._state()
        absent = [name for name in own if name not in state_dict]
        unexpected = [name for name in state_dict if name not in own]
        wrong = []
        if strict and unexpected:
            wrong.append("Unexpected key(s) in state_dict: " + ", ".join(f'"{name}"' for name in unexpected) + ". ")
        if strict and absent:
            wrong.insert(0, "Missing key(s) in state_dict: " + ", ".join(f'"{name}"' for name in absent) + ". ")
        arrays = {name: array_of(x) for name, x in state_dict.items() if name in own}
        wrong += [
            f"size mismatch for {name}: copying a param with shape {constant(array).shape} from checkpoint, "
            f"the shape in current model is {own[name].shape}."
            for name, array in arrays.items()
            if array.shape != own[name].ours.shape
        ]
        if wrong:
            raise RuntimeError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(wrong))
        with no_grad():
            for name, array in arrays.items():
                if assign:
                    own[name].ours.data = array
                else:
                    own[name].ours[...] = np.asarray(array, own[name].ours.dtype)
        return IncompatibleKeys(absent, unexpected)

    # ---- the printed form ----------------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The settings that are printed behind the name of the class."""
        return ""

    def __repr__(self) -> str:
        extra, inside = self.extra_repr().split("\n"), self._printed_children()
        lines = [line for line in extra if line] + inside
        name = type(self).__name__
        if not inside and len(lines) < 2:
            return f"{name}({''.join(lines)})"
        return f"{name}(\n" + "\n".join(f"  {line}" for line in "\n".join(lines).split("\n")) + "\n)"

    def _printed_children(self) -> list[str]:
        return [f"({name}): {module!r}" for name, module in vars(self).items() if isinstance(module, Module)]

    # ---- hooks ---------------------------------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        before, after = (list(vars(self).get(kind, {}).values()) for kind in ("_forward_pre_hooks", "_forward_hooks"))
        for hook in before:
            new = hook(self, args)
            args = args if new is None else new if isinstance(new, tuple) else (new,)
        y = super().__call__(*args, **kwargs)
        for hook in after:
            new = hook(self, args, y)
            y = y if new is None else new
        return y

    def register_forward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call hook(module, inputs, output) behind each `forward`; what it returns takes the output's place."""
        return RemovableHandle(vars(self).setdefault("_forward_hooks", OrderedDict()), hook)

    def register_forward_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call hook(module, inputs) before each `forward`; what it returns takes the inputs' place."""
        return RemovableHandle(vars(self).setdefault("_forward_pre_hooks", OrderedDict()), hook)
