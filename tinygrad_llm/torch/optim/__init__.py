"""`torch.optim`: our optimizers, with PyTorch's `param_groups` and form of a saved state; and schedules."""

from tinygrad_llm.torch.missing import lookup
from tinygrad_llm.torch.optim import lr_scheduler
from tinygrad_llm.torch.optim.optimizer import SGD, Adam, AdamW, Optimizer

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]

__getattr__ = lookup("torch.optim", lambda: __all__)
