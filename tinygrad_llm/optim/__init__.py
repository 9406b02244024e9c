"""Optimizers, gradient clipping and learning-rate schedules."""

from tinygrad_llm.optim.clip import clip_grad_norm_, clip_scale, grad_norm
from tinygrad_llm.optim.muon import Muon, inner_matrices, newton_schulz
from tinygrad_llm.optim.optimizer import SGD, Adam, AdamW, Optimizer, Together, decay_groups
from tinygrad_llm.optim.schedule import SCHEDULES, constant, inverse_sqrt, warmup_cosine, warmup_linear

__all__ = [
    "SCHEDULES", "SGD", "Adam", "AdamW", "Muon", "Optimizer", "Together", "clip_grad_norm_", "clip_scale",
    "constant", "decay_groups", "grad_norm", "inner_matrices", "inverse_sqrt", "newton_schulz", "warmup_cosine",
    "warmup_linear",
]  # fmt: skip
