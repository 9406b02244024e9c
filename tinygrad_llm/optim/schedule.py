"""Learning-rate schedules: functions of the step, and of nothing else.

All are called as f(step, steps=, lr=, min_lr=, warmup=). All share one warm-up: lr · (step + 1) / warmup while
step < warmup, so that the last warm-up step is at the peak. Then they fall, each in its way. With
x = (step − warmup) / (steps − 1 − warmup), from 0 at the step after the warm-up, also at the peak, to 1 at the last:

    cosine         min_lr + (lr − min_lr) · (1 + cos πx) / 2
    linear         min_lr + (lr − min_lr) · (1 − x)
    constant       lr
    inverse_sqrt   lr · √(warmup / (step + 1)), slower and slower

`SCHEDULES` maps these names to the functions.
"""

import math
from collections.abc import Callable


def warmup_cosine(step: int, *, steps: int, lr: float, min_lr: float = 0.0, warmup: int = 0) -> float:
    """Linear from 0 to lr over the first `warmup` steps, then half a cosine down to min_lr at the last step.

    Args:     step: 0 … steps − 1. steps: the number of all steps. warmup: the number of warm-up steps among them.
    Returns:  the learning rate of this step; min_lr from step `steps` on. If only one step follows the warm-up, it is
              at the peak.
    Source:   Loshchilov and Hutter 2017, arXiv:1608.03983; the form GPT-2-sized models are trained with.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    return min_lr + (lr - min_lr) * 0.5 * (1 + math.cos(math.pi * _progress(step, steps, warmup)))


def warmup_linear(step: int, *, steps: int, lr: float, min_lr: float = 0.0, warmup: int = 0) -> float:
    """Linear from 0 to lr over the first `warmup` steps, then linear down to min_lr at the last step.

    Args, Returns: as for `warmup_cosine`.
    Source:   Devlin et al. 2019, arXiv:1810.04805 (down to 0).
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    x = _progress(step, steps, warmup)
    return lr * (1 - x) + min_lr * x


def constant(step: int, *, steps: int, lr: float, min_lr: float = 0.0, warmup: int = 0) -> float:
    """Linear from 0 to lr over the first `warmup` steps, then lr at every step.

    Args:     as for `warmup_cosine`; steps and min_lr are ignored.
    """
    return lr * (step + 1) / warmup if step < warmup else lr


def inverse_sqrt(step: int, *, steps: int, lr: float, min_lr: float = 0.0, warmup: int = 0) -> float:
    """Linear from 0 to lr over the first `warmup` steps, then falling with 1 / √step: the first transformer's schedule.

    With s = step + 1, d channels, w = warmup and lr = (d · w)^−½, it is d^−½ · min(s^−½, s · w^−³ᐟ²).

    Args:     as for `warmup_cosine`; steps and min_lr are ignored. Without warm-up: lr / √s.
    Source:   Vaswani et al. 2017, arXiv:1706.03762, equation 3.
    """
    return lr * (step + 1) / warmup if step < warmup else lr * math.sqrt(max(1, warmup) / (step + 1))


def _progress(step: int, steps: int, warmup: int) -> float:
    """x: the fraction of the descent that is done, 0 at the end of the warm-up, 1 at the last step and after it."""
    return 1.0 if step >= steps else (step - warmup) / max(1, steps - 1 - warmup)


SCHEDULES: dict[str, Callable[..., float]] = {
    "cosine": warmup_cosine,
    "linear": warmup_linear,
    "constant": constant,
    "inverse_sqrt": inverse_sqrt,
}
