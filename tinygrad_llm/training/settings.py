"""How to train: every number the trainer is given, with its default, range and help."""

import dataclasses
import itertools
import math
from typing import Any, Literal


class ConfigError(ValueError):
    """A configuration that cannot be used: the message names the key, and what it should be."""


def setting(default: Any, help: str) -> Any:
    """A field of a settings class: its default, and what it is, in a few words."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How to train. Losses are in nats a token; a token is counted once for each window it is a target in.

    Raises:   ConfigError: a value out of range; a learning rate that would rise to min_lr; more steps of warm-up than
              steps (of epochs: as `counted`).
    """

    steps: int = setting(2000, "updates in all")
    extended: tuple[tuple[int, int], ...] = setting((), "by --resume --steps: [up to this step, as if of so many]")
    epochs: int = setting(0, "passes over the data instead of steps; 0: as many as steps says")
    batch_size: int = setting(12, "windows in a batch")
    accumulation: int = setting(1, "batches whose gradients make one update")
    optimizer: str = setting("adamw", "adamw, adam or sgd")
    lr: float = setting(1e-3, "the highest learning rate")
    min_lr: float = setting(1e-4, "the learning rate at the end")
    warmup: int = setting(100, "steps in which the learning rate rises to its highest")
    schedule: str = setting("cosine", "how the learning rate falls: cosine, linear or constant (not at all)")
    betas: tuple[float, float] = setting((0.9, 0.99), "adam: how long gradients, and their squares, are remembered")
    eps: float = setting(1e-8, "adam: added below the line")
    momentum: float = setting(0.0, "sgd: how much of the last update is kept")
    weight_decay: float = setting(0.1, "how strongly weights shrink")
    decay: Literal["matrices", "all"] = setting("matrices", "which parameters shrink")
    label_smoothing: float = setting(0.0, "how much of the target goes to all other tokens")
    clip: float = setting(1.0, "the largest global norm of the gradient; inf: any")
    order: Literal["epochs", "random"] = setting(
        "epochs", "epochs: each window once, then again; random: windows that begin anywhere"
    )
    stride: int = setting(8, "tokens from one training window to the next; 0: the block, so that they do not overlap")
    eval_every: int = setting(250, "steps from one held-out loss to the next")
    eval_batches: int = setting(20, "batches of held-out text")
    checkpoint_every: int = setting(0, "steps from one checkpoint to the next; 0: at each held-out loss")
    on_bad_step: Literal["stop", "skip"] = setting("stop", "what to do when loss or gradient is NaN or infinite")
    checkpoint: bool = setting(False, "keep only the input of each block: less memory, a third more time, same results")
    workers: int | None = setting(None, "threads; left out: up to four, where machine and model allow it")
    seed: int = setting(0, "of all randomness")

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "eval_every", "eval_batches", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"training.{name}: must be at least 1, not {value}")
        for name in ("epochs", "lr", "min_lr", "warmup", "eps", "weight_decay", "stride", "checkpoint_every", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"training.{name}: must be finite and ≥ 0, not {getattr(self, name)}")
        for name in ("betas", "momentum", "label_smoothing"):
            value = getattr(self, name)
            if not all(0 <= part < 1 for part in (value if isinstance(value, tuple) else (value,))):
                raise ConfigError(f"training.{name}: must lie in [0, 1), not {value}")
        if not self.clip > 0:
            raise ConfigError(f"training.clip: must be positive (inf for none), not {self.clip}")
        if self.min_lr > self.lr and self.schedule != "constant":
            raise ConfigError(
                f"training.min_lr: {self.min_lr:g} is above training.lr, {self.lr:g}, so the rate would rise: "
                f"lower it as well (min_lr={self.lr / 10:g}), or set schedule=constant"
            )
        ends = [0, *(end for end, _ in self.extended)]
        if not all(a < b for a, b in itertools.pairwise(ends)) or any(steps < 1 for _, steps in self.extended):
            raise ConfigError(
                "training.extended: must be pairs of numbers above 0, the first ones rising (--resume --steps writes "
                f"them), not {[list(pair) for pair in self.extended]}"
            )
        if not self.epochs:
            self._check_warmup()

    def counted(self, batches_per_epoch: int) -> "TrainSettings":
        """The same with the steps that its epochs come to, where they are what counts.

        Raises:   ConfigError: more steps of warm-up than steps.
        """
        steps = max(1, self.epochs * batches_per_epoch // self.accumulation) if self.epochs else self.steps
        counted = dataclasses.replace(self, steps=steps)
        counted._check_warmup()
        return counted

    def _check_warmup(self) -> None:
        if self.warmup > self.steps:
            raise ConfigError(
                f"training.warmup: {self.warmup} steps of warm-up are more than the run's {self.steps}: make it less, "
                "or the run longer"
            )

    def horizon(self, step: int) -> int:
        """The steps in all that the schedule reckons with at this step: before a run was extended, it was fewer."""
        return next((steps for end, steps in self.extended if step < end), self.steps)
