"""Learning-rate schedules: functions of the step, and nothing else."""

import math


def warmup_cosine(step: int, *, steps: int, lr: float, min_lr: float = 0.0, warmup: int = 0) -> float:
    """Linear from 0 to lr over the first `warmup` steps, then half a cosine down to min_lr at the last step.

    Args:     step: 0 … steps − 1. steps: how many there are in all; warmup: of these, fewer than all.
    Returns:  lr · (step + 1) / warmup while step < warmup; min_lr from step `steps` on. A single step after the
              warm-up is taken at the peak.
    Source:   Loshchilov and Hutter 2017, arXiv:1608.03983; the form GPT-2-sized models are trained with.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    if step >= steps:
        return min_lr
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
