"""Optimisers, gradient clipping and learning-rate schedules."""

from tinygrad_llm.optim.optimizer import AdamW, clip_grad_norm_, decay_groups
from tinygrad_llm.optim.schedule import warmup_cosine

__all__ = ["AdamW", "clip_grad_norm_", "decay_groups", "warmup_cosine"]
