"""How to train: every number the trainer is given, with its default, range and help."""

import dataclasses
import itertools
import math
import typing
from typing import Any, Literal

import numpy as np

from tinygrad_llm.optim import SCHEDULES
from tinygrad_llm.random import MAX_SEED


class ConfigError(ValueError):
    """A configuration that cannot be used. The message names the key and says what is allowed."""


def setting(default: Any, help: str) -> Any:
    """A field of a settings class: its default, and its meaning in a few words."""
    return dataclasses.field(default=default, metadata={"help": help})


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How to train. Losses are in nats per token; a token counts once for each window in which it is a target.

    Raises:   ConfigError: a value out of range; a learning rate that would rise to min_lr; more steps of warm-up than
              steps (with epochs: as `counted`).
    """

    steps: int = setting(2000, "number of updates")
    extended: tuple[tuple[int, int], ...] = setting(
        (), "[s, n] pairs, written by --resume --steps: up to step s, the schedule was one of n steps"
    )
    epochs: int = setting(0, "passes over the data; 0: train for the number of steps instead")
    batch_size: int = setting(12, "windows in a batch")
    accumulation: int = setting(1, "batches whose gradients make one update")
    optimizer: Literal["adamw", "adam", "sgd", "muon"] = setting(
        "adamw", "adamw, adam, sgd; or muon, for the matrices of the blocks, with adamw for the rest"
    )
    lr: float = setting(1e-3, "the highest learning rate")
    min_lr: float = setting(1e-4, "the learning rate at the end")
    warmup: int = setting(100, "steps in which the learning rate rises to its highest")
    schedule: Literal["cosine", "linear", "constant", "inverse_sqrt"] = setting(
        "cosine", "how the learning rate falls: cosine, linear, constant (not at all) or inverse_sqrt (Vaswani 2017)"
    )
    betas: tuple[float, float] = setting((0.9, 0.99), "adam: decay rates of the means of gradients and squares")
    eps: float = setting(1e-8, "adam: added to the denominator")
    momentum: float = setting(0.0, "sgd: share of the last update that is kept")
    weight_decay: float = setting(0.1, "how strongly weights shrink")
    decay: Literal["matrices", "all"] = setting("matrices", "which parameters shrink: matrices or all")
    label_smoothing: float = setting(0.0, "share of each target that all other tokens get")
    clip: float = setting(1.0, "the largest global norm of the gradient; inf: no limit")
    order: Literal["epochs", "random"] = setting(
        "epochs", "epochs: each window once, then again; random: windows that begin anywhere"
    )
    stride: int = setting(8, "tokens from one training window to the next; 0: the block, so that they do not overlap")
    eval_every: int = setting(250, "steps between two held-out losses")
    eval_batches: int = setting(20, "batches of held-out text")
    checkpoint_every: int = setting(0, "steps between two checkpoints; 0: at each held-out loss")
    on_bad_step: Literal["stop", "skip"] = setting(
        "stop", "stop or skip the step when its loss or gradient is NaN or infinite"
    )
    recompute: bool = setting(
        False, "keep only the input of each block for backward: less memory, a third more time, same results"
    )
    workers: int | None = setting(None, "number of threads; unset: up to four, as many as are fastest")
    masks: Literal["torch", "quick"] = setting(
        "torch", "dropout masks: of PyTorch's generator (by one worker: PyTorch's masks), or of a quicker one"
    )
    seed: int = setting(0, "seed of all random numbers")

    def __post_init__(self) -> None:
        for name, kind in typing.get_type_hints(type(self)).items():
            if typing.get_origin(kind) is Literal and getattr(self, name) not in typing.get_args(kind):
                *some, last = typing.get_args(kind)
                raise ConfigError(f"training.{name}: must be {', '.join(some)} or {last}, got {getattr(self, name)!r}")
        self._check_types()
        for name in ("steps", "batch_size", "accumulation", "eval_every", "eval_batches", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"training.{name}: must be at least 1, got {value}")
        for name in ("epochs", "lr", "min_lr", "warmup", "eps", "weight_decay", "stride", "checkpoint_every", "seed"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"training.{name}: must be finite and ≥ 0, got {getattr(self, name)}")
        if self.seed > MAX_SEED:
            raise ConfigError(f"training.seed: must be at most {MAX_SEED}, got {self.seed}")
        for name in ("betas", "momentum", "label_smoothing"):
            value = getattr(self, name)
            if not all(0 <= part < 1 for part in (value if isinstance(value, tuple) else (value,))):
                raise ConfigError(f"training.{name}: must be in [0, 1), got {value}")
        if not self.clip > 0:
            raise ConfigError(f"training.clip: must be positive (inf: no limit), got {self.clip}")
        if self.min_lr > self.lr and self.schedule in ("cosine", "linear"):
            raise ConfigError(
                f"training.min_lr: {self.min_lr:g} is above training.lr, {self.lr:g}, so the rate would rise: "
                f"lower it as well (min_lr={self.lr / 10:g}), or set schedule=constant"
            )
        ends = [0, *(end for end, _ in self.extended)]
        if not all(a < b for a, b in itertools.pairwise(ends)) or any(steps < 1 for _, steps in self.extended):
            raise ConfigError(
                "training.extended: must be pairs of numbers above 0, the first of each rising (--resume --steps "
                f"writes them), got {[list(pair) for pair in self.extended]}"
            )
        if not self.epochs:
            self._check_warmup()

    def _check_types(self) -> None:
        words = {int: "an integer", float: "a number"}
        for name, kind in typing.get_type_hints(type(self)).items():
            value, kind = getattr(self, name), int if kind == int | None else kind
            allowed = {int: int | np.integer, float: int | float | np.integer | np.floating}
            if (
                kind in allowed
                and value is not None
                and (isinstance(value, bool) or not isinstance(value, allowed[kind]))
            ):
                raise ConfigError(f"training.{name}: must be {words[kind]}, got {value!r}")
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise ConfigError(f"training.betas: must be two numbers, got {self.betas!r}")

    def counted(self, batches_per_epoch: int) -> "TrainSettings":
        """The same settings, with `steps` computed from `epochs` where those are set.

        Raises:   ConfigError: more steps of warm-up than steps.
        """
        steps = max(1, self.epochs * batches_per_epoch // self.accumulation) if self.epochs else self.steps
        counted = dataclasses.replace(self, steps=steps)
        counted._check_warmup()
        return counted

    def _check_warmup(self) -> None:
        if self.warmup > self.steps:
            raise ConfigError(
                f"training.warmup: {self.warmup} steps of warm-up are more than the run's {self.steps} steps: set a "
                "shorter warm-up or more steps"
            )

    def horizon(self, step: int) -> int:
        """How many steps the schedule assumed at this step: before a run was extended, they were fewer."""
        return next((steps for end, steps in self.extended if step < end), self.steps)

    def learning_rate(self, step: int) -> float:
        """The learning rate of a step, from 0 on."""
        schedule = SCHEDULES[self.schedule]
        return schedule(step, steps=self.horizon(step), lr=self.lr, min_lr=self.min_lr, warmup=self.warmup)
