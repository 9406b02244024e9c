"""The engine: Tensors, the tape they are recorded on, and the walk back along it."""

from tinygrad_llm.autograd.anomaly import AnomalyError, detect_anomaly
from tinygrad_llm.autograd.observer import Observer, Operation, observing
from tinygrad_llm.autograd.recompute import recompute
from tinygrad_llm.autograd.tape import enable_grad, is_grad_enabled, no_grad
from tinygrad_llm.autograd.tensor import Tensor, apply, grad, hooked

__all__ = [
    "AnomalyError", "Observer", "Operation", "Tensor", "apply", "detect_anomaly", "enable_grad", "grad",
    "hooked", "is_grad_enabled", "no_grad", "observing", "recompute",
]  # fmt: skip
