"""Optimisers, gradient clipping and learning-rate schedules."""

from tinygrad_llm.optim.optimizer import SGD, Adam, AdamW, clip_grad_norm_, decay_groups
from tinygrad_llm.optim.schedule import SCHEDULES, constant, warmup_cosine, warmup_linear

__all__ = [
    "SCHEDULES",
    "SGD",
    "Adam",
    "AdamW",
    "clip_grad_norm_",
    "constant",
    "decay_groups",
    "warmup_cosine",
    "warmup_linear",
]
