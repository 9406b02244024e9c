"""`torch.autograd`: gradients without `.grad`, and the switches of recording."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tinygrad_llm import autograd
from tinygrad_llm.autograd import enable_grad, is_grad_enabled, no_grad
from tinygrad_llm.autograd.scope import scope
from tinygrad_llm.torch.missing import lookup, refuse
from tinygrad_llm.torch.tensor import Tensor, constant, ours

__all__ = [
    "backward", "detect_anomaly", "enable_grad", "grad", "inference_mode", "is_grad_enabled", "no_grad",
    "set_detect_anomaly", "set_grad_enabled",
]  # fmt: skip

detect_anomaly = autograd.detect_anomaly


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    allow_unused: bool | None = None,
) -> tuple[Tensor, ...]:
    """See `tinygrad_llm.grad`; an input that the output does not depend on gets zeros."""
    refuse("torch.autograd.grad", create_graph=create_graph)
    (output,) = [outputs] if isinstance(outputs, Tensor) else outputs
    wanted = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    start = grad_outputs[0] if isinstance(grad_outputs, list | tuple) else grad_outputs
    found = autograd.grad(output.ours, [x.ours for x in wanted], ours(start), retain_graph=bool(retain_graph))
    return tuple(constant(g) for g in found)


def backward(tensors: Tensor, grad_tensors: Any = None, retain_graph: bool | None = None) -> None:
    """See `Tensor.backward`."""
    tensors.backward(grad_tensors, retain_graph)


@scope
def _mode(mode: bool) -> Iterator[None]:
    with enable_grad() if mode else no_grad():
        yield


def inference_mode(mode: Any = True) -> Any:
    """Record nothing, as `no_grad`; also as a decorator without parentheses."""
    if callable(mode):
        return no_grad()(mode)
    return _mode(not mode) if mode else _mode(is_grad_enabled())


def set_grad_enabled(mode: bool) -> Any:
    """Record inside this block, or do not."""
    return _mode(mode)


def set_detect_anomaly(mode: bool, check_nan: bool = True) -> Callable[..., Any]:
    """Find the operation that makes a NaN, inside this block: see `tinygrad_llm.detect_anomaly`."""
    refuse("set_detect_anomaly", check_nan=not check_nan)
    return detect_anomaly() if mode else _mode(is_grad_enabled())


__getattr__ = lookup("torch.autograd", lambda: __all__)
