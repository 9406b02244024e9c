"""Records of a step: the mean gradient of its micro-batches, and the figures that are reported."""

import math
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from tinygrad_llm.kernels import Array

REMEMBERED = 100  # losses that a new one is compared with
SPIKE = 5.0  # standard deviations above their mean
FEWEST = 20  # losses before a z-score is computed; fewer give no reliable deviation


class TrainingError(RuntimeError):
    """Training cannot continue: a loss, the gradient or a weight is NaN or infinite."""


@dataclass(frozen=True)
class Step:
    """The record of one step. `val_loss` is set where the model was measured, always at the last step."""

    step: int  # how many updates have been made
    loss: float  # of the batch, before its update
    lr: float
    grad_norm: float  # before clipping
    tokens_per_second: float  # targets that count, since the start; without the time of evaluations and samples
    val_loss: float | None
    z_score: float | None = None  # of the loss among the last hundred: (loss − mean) / standard deviation
    skipped: bool = False  # loss or gradient was NaN or infinite, and there was no update
    # Peak so far, in bytes; None if the system does not report it. It depends on the machine, so it is not compared.
    memory: int | None = field(default=None, compare=False)
    # By layer (wte, wpe, h.0, …, ln_f, lm_head), at each held-out loss and every tenth step:
    update_ratio: dict[str, float] | None = None  # ‖Δw‖ / ‖w‖ (of large parameters: from a sample of their entries)
    layer_grad_norm: dict[str, float] | None = None  # before clipping; their squares add up to that of grad_norm
    # The task's own figures of the batch, by name. Those of the held-out batches begin with "val_", next to val_loss.
    measures: dict[str, float] | None = None

    @property
    def spike(self) -> bool:
        """Whether the loss stands out above those before it."""
        return self.z_score is not None and self.z_score > SPIKE

    @property
    def diverged(self) -> bool:
        """Whether the held-out loss is NaN or infinite, so that the weights of this step are useless."""
        return self.val_loss is not None and not math.isfinite(self.val_loss)


@dataclass
class MeanGradient:
    """Loss, named figures and gradient of one or several batches: means over the targets that count."""

    batches: int = 0
    count: int = 0  # targets
    loss: float = 0.0
    measures: dict[str, float] = field(default_factory=dict)
    grads: list[Array] = field(default_factory=list)  # one for each parameter that is trained

    def add(self, other: "MeanGradient") -> None:
        """Include another batch, whose arrays are taken over and changed."""
        self.batches += other.batches
        self.count += other.count
        if self.batches == other.batches:  # the first
            self.loss, self.measures, self.grads = other.loss, other.measures, other.grads
            return
        # Each mean moves toward that of the other batch, by the other's share of all targets.
        share = other.count / self.count
        self.loss += share * (other.loss - self.loss)
        for name, value in other.measures.items():
            before = self.measures.get(name, value)
            self.measures[name] = before + share * (value - before)
        for total, g in zip(self.grads, other.grads, strict=True):
            total *= 1 - share
            g *= share
            total += g

    def copy(self) -> "MeanGradient":
        grads = [g.copy() for g in self.grads]
        return MeanGradient(self.batches, self.count, self.loss, dict(self.measures), grads)


class Clock:
    """The time of training, without the work between its steps, and the number of its targets."""

    def __init__(self) -> None:
        self.seconds, self.targets = 0.0, 0
        self._began = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter()

    def __exit__(self, *exception: object) -> None:
        self.seconds += time.perf_counter() - self._began


class LossHistory:
    """The last losses, against which a new one is compared."""

    def __init__(self, losses: Sequence[float] = ()) -> None:
        self.losses: deque[float] = deque(losses, maxlen=REMEMBERED)

    def z_score(self, loss: float) -> float | None:
        """Remember the loss, and return its z-score among those before it; None if that is undefined."""
        z = None
        if len(self.losses) >= FEWEST:
            mean = math.fsum(self.losses) / len(self.losses)
            deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in self.losses) / len(self.losses))
            z = (loss - mean) / deviation if deviation > 0 else None
        self.losses.append(loss)
        return z
