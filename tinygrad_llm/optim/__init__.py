"""Optimizers, gradient clipping and learning-rate schedules."""

from tinygrad_llm.optim.clip import clip_grad_norm_, clip_scale, grad_norm
from tinygrad_llm.optim.optimizer import SGD, Adam, AdamW, Optimizer, decay_groups
from tinygrad_llm.optim.schedule import SCHEDULES, constant, warmup_cosine, warmup_linear

__all__ = [
    "SCHEDULES",
    "SGD",
    "Adam",
    "AdamW",
    "Optimizer",
    "clip_grad_norm_",
    "clip_scale",
    "constant",
    "decay_groups",
    "grad_norm",
    "warmup_cosine",
    "warmup_linear",
]
