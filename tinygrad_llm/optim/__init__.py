"""Optimisers, gradient clipping and learning-rate schedules."""

from tinygrad_llm.optim.optimizer import (
    SGD,
    Adam,
    AdamW,
    Optimizer,
    clip_grad_norm_,
    clip_scale,
    decay_groups,
    grad_norm,
    tasks,
)
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
    "tasks",
    "warmup_cosine",
    "warmup_linear",
]
