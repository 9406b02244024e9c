"""`torch.nn.utils`: clipping of gradients, and all parameters in one row."""

from collections.abc import Iterable

import numpy as np

from tinygrad_llm import optim
from tinygrad_llm.torch.functions import cat
from tinygrad_llm.torch.missing import lookup, refuse
from tinygrad_llm.torch.nn import rnn
from tinygrad_llm.torch.tensor import Tensor, constant

__all__ = ["clip_grad_norm_", "clip_grad_value_", "parameters_to_vector", "rnn", "vector_to_parameters"]


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor:
    """See `tinygrad_llm.optim.clip_grad_norm_`."""
    refuse("clip_grad_norm_", norm_type=norm_type != 2 and norm_type)
    given = [parameters] if isinstance(parameters, Tensor) else parameters
    return constant(np.float32(optim.clip_grad_norm_([p.ours for p in given], float(max_norm))))


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Limit each number of each gradient to ± clip_value, in place."""
    for p in [parameters] if isinstance(parameters, Tensor) else parameters:
        if p.grad is not None:
            p.grad.clamp_(-clip_value, clip_value)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All numbers of all parameters, in one row."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Give parameters the numbers of one row."""
    start = 0
    for p in parameters:
        p.data = vec[start : start + p.numel()].detach().reshape(*p.shape)
        start += p.numel()


__getattr__ = lookup("torch.nn.utils", lambda: __all__)
