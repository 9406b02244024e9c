"""The training loop: gradients to zero, loss and gradient, clip, step, and again."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NoReturn

import numpy as np

from tinygrad_llm.autograd import AnomalyError, detect_anomaly
from tinygrad_llm.nn import Dropout, Module, Parameter
from tinygrad_llm.optim import (
    SGD,
    Adam,
    AdamW,
    Muon,
    Optimizer,
    Together,
    clip_scale,
    decay_groups,
    grad_norm,
    inner_matrices,
)
from tinygrad_llm.random import QuickMasks
from tinygrad_llm.runtime import peak_memory
from tinygrad_llm.training.layers import LayerFigures, by_layer
from tinygrad_llm.training.records import Clock, MeanGradient, Step, TrainingError
from tinygrad_llm.training.settings import ConfigError, TrainSettings
from tinygrad_llm.training.state import TrainingState
from tinygrad_llm.training.task import Task
from tinygrad_llm.training.workers import Workers, fastest_threads, trainable

GIVE_UP = 10  # bad steps in a row, after which training stops: such weights will not recover
LAYERS_EVERY = 10  # steps between two measurements of each layer; more of them would slow training down
_FINITE = "computed a second time, every operation is finite"
_OVERFLOW = "every operation gives finite numbers, but the sum of their squares is too large"


class Trainer(TrainingState):
    """Trains the parameters of a model that require a gradient, and leaves all others (the frozen ones) untouched.

    It can stop after any micro-batch. Threads and processes share each gradient: see `Workers`. Freeze parameters
    before the Trainer is made: a later change of `requires_grad` is refused at the next step.

    Args:     settings: with `epochs`, the task's batches say how many of them an epoch has (`batches_per_epoch`); where
              they do not, give `settings.counted(n)`.
              The Trainer's own have the number of workers that it chose where none was set.
    Raises:   ConfigError: no parameter requires a gradient.
    """

    def __init__(self, model: Module, task: Task, settings: TrainSettings) -> None:
        per_epoch = getattr(getattr(task, "batches", None), "batches_per_epoch", None)
        settings = settings if per_epoch is None else settings.counted(per_epoch)
        if settings.masks == "quick":
            quick = QuickMasks(settings.seed)
            for layer in model.modules():
                if isinstance(layer, Dropout):
                    layer.rng = quick
        super().__init__(model, task, make_optimizer(model, settings))
        threads = settings.workers or fastest_threads(model, task)
        self.settings = dataclasses.replace(settings, workers=threads)
        self.workers = Workers(model, task, min(threads, task.batch_size))
        self._layers = by_layer(self.parameters.items())
        self._clock = Clock()
        self._peak: int | None = None  # memory, as last read

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Step]:
        """Train up to the last step, and yield every one; `stop` is called after each micro-batch.

        Step 0 comes first, before any update. It carries the loss of the untrained model.

        Raises:   ConfigError: the task has no held-out batches.
                  TrainingError: as `advance`; or, after a step whose held-out loss is NaN or infinite was yielded,
                  naming the first bad operation in it.
        """
        if not self.task.held_out and type(self.task).evaluate is Task.evaluate:
            name = type(self.task).__name__
            raise ConfigError(f"{name} has no held-out batches, which run() needs: give held_out at least one batch")
        self.model.train()
        with self.workers:
            step = None if self.measured_untrained else self._untrained()
            while True:
                if step is not None:
                    yield step
                    if step.diverged:
                        self._raise_diverged(step)
                if self.step >= self.settings.steps or stop():
                    return
                step = self.advance()

    def advance(self) -> Step | None:
        """Take one micro-batch. The last one of a step makes the update, and the Step is returned.

        Raises:   TrainingError: loss or gradient is NaN or infinite, and such steps are not skipped, or this is the
                  tenth in a row. The first bad operation and its layer are named. All is as before the step.
                  ConfigError: parameters were frozen or unfrozen after this Trainer was made.
        """
        self._check_trainable()
        with self._clock, np.errstate(all="ignore"):  # NaN and infinity are reported in one line, not in warnings
            if self.total.batches == 0:
                self._remember()
                self.optimizer.zero_grad()  # the new gradients take the memory of the old ones
            batch = self._next_batch()
            self._clock.targets += self.task.count(batch)
            self.total.add(self.workers.gradient(batch))  # the loss too
            if self.total.batches < self.settings.accumulation and math.isfinite(self.total.loss):
                return None
            for p, g in zip(self.parameters.values(), self.total.grads, strict=True):
                p.grad = g
            norm = grad_norm(self.total.grads, self.workers.map)
            layers = LayerFigures(self._layers if self._looks_at_layers else {})
            good = math.isfinite(self.total.loss) and math.isfinite(norm)
            if good:
                self.optimizer.set_lr(self.settings.learning_rate(self.step))
                self.workers.update(self.optimizer, clip_scale(norm, self.settings.clip))
                layers.compare()
                self.skipped_in_a_row = 0
            else:
                self._skip(norm)
        return self._completed(norm, layers, skipped=not good)

    def _check_trainable(self) -> None:
        """Refuse to train other parameters than those that the optimizer has."""
        ids = [id(p) for p in self.model.parameters() if p.requires_grad]
        if ids != [id(p) for p in self.parameters.values()]:
            now = trainable(self.model)
            changed = [name for name in {**self.parameters, **now} if now.get(name) is not self.parameters.get(name)]
            more = f" and {len(changed) - 1} more" if len(changed) > 1 else ""
            raise ConfigError(
                f"{changed[0]}{more}: requires_grad was changed after the Trainer was made: freeze before the Trainer "
                "is made, or make a new one"
            )

    # ---- what is reported ------------------------------------------------------------------------------------------

    def _untrained(self) -> Step:
        """Step 0: the loss before any update."""
        loss, measures = self._evaluation()
        self.measured_untrained = True
        return Step(0, loss, 0.0, 0.0, 0.0, loss, measures=measures or None)

    def _completed(self, norm: float, layers: LayerFigures, skipped: bool) -> Step:
        """Count a step, and return its record."""
        if self._looks_at_layers or self._peak is None:
            self._peak = peak_memory()
        loss, measures, measured = self.total.loss, self.total.measures, self._is_measured
        lr = self.settings.learning_rate(self.step)
        self.total = MeanGradient()  # frees the gradients' sum before a held-out loss is measured
        self.step += 1
        val_loss, val_measures = self._evaluation() if measured else (None, {})
        return Step(
            step=self.step,
            loss=loss,
            lr=lr,
            grad_norm=norm,
            tokens_per_second=self._clock.targets / self._clock.seconds,
            val_loss=val_loss,
            z_score=None if skipped else self.losses.z_score(loss),
            skipped=skipped,
            memory=self._peak,
            update_ratio=layers.update_ratio or None,
            layer_grad_norm=layers.grad_norm or None,
            measures={**measures, **val_measures} or None,
        )

    def _evaluation(self) -> tuple[float, dict[str, float]]:
        """The held-out loss, and the task's own held-out figures."""
        found = self.task.evaluate(self.model)
        return found.loss, {f"val_{name}": value for name, value in found.measures.items()}

    @property
    def _is_measured(self) -> bool:
        """Whether the next step ends with a held-out loss."""
        number = self.step + 1
        return number % self.settings.eval_every == 0 or number == self.settings.steps

    @property
    def _looks_at_layers(self) -> bool:
        return self._is_measured or (self.step + 1) % LAYERS_EVERY == 0

    # ---- NaN and infinity ------------------------------------------------------------------------------------------

    def _skip(self, norm: float) -> None:
        """Make no update in a bad step, where the settings allow it; else undo the step and raise."""
        skip = self.settings.on_bad_step == "skip"
        if skip and self.skipped_in_a_row < GIVE_UP - 1:
            self.skipped += 1
            self.skipped_in_a_row += 1
            return
        loss, cause = self.total.loss, self._first_bad_operation()
        reason = cause or (_OVERFLOW if math.isfinite(loss) else _FINITE)
        self._undo()
        raise TrainingError(
            f"step {self.step + 1}: the loss is {loss} and the gradient norm {norm}"
            f"{f', the {GIVE_UP}th bad step in a row' if skip else ''}: {reason}; the weights are as they "
            "were before this step. Try a lower learning rate"
        ) from cause

    def _first_bad_operation(self) -> AnomalyError | None:
        """Take the micro-batches of this step again, and check every operation."""
        for batch, streams in self._taken:
            self._set_back(streams)
            try:
                with detect_anomaly():
                    self.workers.repeat(batch)
            except AnomalyError as error:
                return error
        return None

    def _raise_diverged(self, step: Step) -> NoReturn:
        """Raise, and name the first bad operation in the held-out loss."""
        cause = None
        try:
            with detect_anomaly():
                self.task.evaluate(self.model)
        except AnomalyError as error:
            cause = error
        raise TrainingError(
            f"step {step.step}: the held-out loss is {step.val_loss}: {cause or _FINITE}. Try a lower learning rate"
        ) from cause


def make_optimizer(model: Module, settings: TrainSettings) -> Optimizer:
    """The optimizer of the settings, for the parameters that require a gradient.

    Raises:   ConfigError: no parameter does; or, for Muon, no matrix inside a block.
    """
    s, named = settings, trainable(model)
    if not named:
        raise ConfigError("there is nothing to train: no parameter of the model requires a gradient")
    match s.optimizer:
        case "adamw":
            return AdamW(_groups(named, s), s.lr, s.betas, s.eps)
        case "adam":
            return Adam(_groups(named, s), s.lr, s.betas, s.eps)
        case "sgd":
            return SGD(_groups(named, s), s.lr, s.momentum)
        case "muon":
            matrices = inner_matrices(named.items())
            if not matrices:
                raise ConfigError(
                    "training.optimizer: muon updates the matrices of blocks, and none is trained here: set adamw"
                )
            muon = Muon(list(matrices.items()), s.lr, s.weight_decay, adjust_lr_fn="match_rms_adamw")
            others = {name: p for name, p in named.items() if name not in matrices}
            return Together(muon, AdamW(_groups(others, s), s.lr, s.betas, s.eps)) if others else muon


def _groups(named: Mapping[str, Parameter], settings: TrainSettings) -> list[dict[str, Any]]:
    """The parameters that decay, and those that do not."""
    if settings.decay == "matrices":
        return decay_groups(named.items(), settings.weight_decay)
    return [{"params": list(named.items()), "weight_decay": settings.weight_decay}]
