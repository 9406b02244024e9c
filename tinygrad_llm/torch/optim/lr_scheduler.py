"""`torch.optim.lr_scheduler`: schedules that set `group["lr"]` of an optimizer, each time their `step` is called.

Most compute the next learning rate from the present one, as PyTorch does: so a rate that a program changed by hand
counts, and the rounding is the same.
"""

import math
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tinygrad_llm.torch.missing import lookup, refuse
from tinygrad_llm.torch.optim.optimizer import Optimizer

__all__ = [
    "ConstantLR", "CosineAnnealingLR", "ExponentialLR", "LRScheduler", "LambdaLR", "LinearLR", "MultiStepLR",
    "ReduceLROnPlateau", "SequentialLR", "StepLR",
]  # fmt: skip


class LRScheduler:
    """A schedule: a subclass has `rate`. Attributes: last_epoch: the number of calls of `step`; base_lrs."""

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        refuse(type(self).__name__, last_epoch=last_epoch != -1 and last_epoch)
        self.optimizer, self.last_epoch = optimizer, -1
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.step()

    def rate(self, lr: float, base: float, number: int) -> float:
        """The next learning rate of a group. Args: lr: its present one. base: its first. number: of the group."""
        raise NotImplementedError

    def get_lr(self) -> list[float]:
        """The learning rate of each group at `last_epoch`."""
        groups = self.optimizer.param_groups
        return [self.rate(g["lr"], base, i) for i, (g, base) in enumerate(zip(groups, self.base_lrs, strict=True))]

    def step(self) -> None:
        """Set the learning rates of the next step of the optimizer."""
        self.last_epoch += 1
        self._set(self.get_lr())

    def restart(self) -> None:
        """Begin at step 0, from the first learning rates."""
        self.last_epoch = 0
        self._set(self.base_lrs)
        self._set(self.get_lr())

    def _set(self, rates: Sequence[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            group["lr"] = lr
        self._last_lr = list(rates)

    def get_last_lr(self) -> list[float]:
        """The learning rates that `step` set last."""
        return self._last_lr

    def state_dict(self) -> dict[str, Any]:
        """All that is not the optimizer or a function."""
        return {k: v for k, v in vars(self).items() if k not in ("optimizer", "lr_lambdas", "_schedulers")}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        vars(self).update(state_dict)


class LambdaLR(LRScheduler):
    """The first learning rate times lr_lambda(step)."""

    def __init__(self, optimizer: Optimizer, lr_lambda: Any, last_epoch: int = -1) -> None:
        given = lr_lambda if isinstance(lr_lambda, list | tuple) else [lr_lambda] * len(optimizer.param_groups)
        self.lr_lambdas: list[Callable[[int], float]] = list(given)
        super().__init__(optimizer, last_epoch)

    def rate(self, lr: float, base: float, number: int) -> float:
        return base * self.lr_lambdas[number](self.last_epoch)


class MultiStepLR(LRScheduler):
    """Times gamma at each of the steps in `milestones`."""

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones, self.gamma = list(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, lr: float, base: float, number: int) -> float:
        times = self.milestones.count(self.last_epoch)
        return lr * self.gamma**times if times else lr


class StepLR(LRScheduler):
    """Times gamma every step_size steps."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, lr: float, base: float, number: int) -> float:
        return lr * self.gamma if self.last_epoch and self.last_epoch % self.step_size == 0 else lr


class ExponentialLR(StepLR):
    """Times gamma at every step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        super().__init__(optimizer, 1, gamma, last_epoch)


class LinearLR(LRScheduler):
    """From start_factor to end_factor times the learning rate, in total_iters steps."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, lr: float, base: float, number: int) -> float:
        rise = self.end_factor - self.start_factor
        if not self.last_epoch:
            return lr * self.start_factor
        if self.last_epoch > self.total_iters:
            return lr
        return lr * (1.0 + rise / (self.total_iters * self.start_factor + (self.last_epoch - 1) * rise))


class ConstantLR(LRScheduler):
    """`factor` times the learning rate for total_iters steps, then the learning rate itself."""

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, lr: float, base: float, number: int) -> float:
        if not self.last_epoch:
            return lr * self.factor
        return lr / self.factor if self.last_epoch == self.total_iters else lr


class CosineAnnealingLR(LRScheduler):
    """Half a cosine from the learning rate down to eta_min, in T_max steps (then up again).

    Source:   Loshchilov and Hutter 2017, arXiv:1608.03983.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, lr: float, base: float, number: int) -> float:
        low, t, n = self.eta_min, self.last_epoch, self.T_max
        if not t:
            return lr
        if (t - 1 - n) % (2 * n) == 0:  # at the bottom the quotient below is 0 / 0
            return lr + (base - low) * (1 - math.cos(math.pi / n)) / 2
        return (1 + math.cos(math.pi * t / n)) / (1 + math.cos(math.pi * (t - 1) / n)) * (lr - low) + low


class SequentialLR(LRScheduler):
    """Schedules one after another: the next one begins at each of the milestones."""

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[LRScheduler], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        if len(milestones) != len(schedulers) - 1:
            raise ValueError(f"SequentialLR: {len(schedulers)} schedules need {len(schedulers) - 1} milestones")
        refuse("SequentialLR", last_epoch=last_epoch != -1 and last_epoch)
        self._schedulers, self._milestones = list(schedulers), list(milestones)
        self.optimizer, self.last_epoch = optimizer, 0
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self._take(self._schedulers[0].restart, 0)

    def _take(self, move: Callable[[], None], number: int) -> None:
        move()
        self._last_lr = self._schedulers[number].get_last_lr()

    def step(self) -> None:
        self.last_epoch += 1
        number = bisect_right(self._milestones, self.last_epoch)
        present = self._schedulers[number]
        begins = number > 0 and self._milestones[number - 1] == self.last_epoch
        self._take(present.restart if begins else present.step, number)


class ReduceLROnPlateau:
    """Times `factor` when a measure has not improved for more than `patience` calls of `step(measure)`."""

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f'mode must be "min" or "max", threshold_mode "rel" or "abs", got {mode}, {threshold_mode}'
            )
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown = threshold, threshold_mode, cooldown
        self.min_lr, self.eps = min_lr, eps
        self.best, self.num_bad_epochs, self.cooldown_counter = math.inf if mode == "min" else -math.inf, 0, 0

    def _better(self, measure: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "abs":
            return sign * measure > sign * self.best + self.threshold
        return sign * measure > sign * self.best * (1 + sign * self.threshold)

    def step(self, metrics: Any) -> None:
        """Take a measure, and lower the learning rates if it is time."""
        measure = float(metrics)
        if self._better(measure):
            self.best, self.num_bad_epochs = measure, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown_counter - 1, 0
        if self.num_bad_epochs > self.patience:
            for group in self.optimizer.param_groups:
                lower = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - lower > self.eps:
                    group["lr"] = lower
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def get_last_lr(self) -> list[float]:
        """The learning rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    state_dict, load_state_dict = LRScheduler.state_dict, LRScheduler.load_state_dict


__getattr__ = lookup("torch.optim.lr_scheduler", lambda: __all__)
