"""The training loop: gradients to zero, loss and gradient, clip, step, and again."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from typing import NoReturn

import numpy as np

from tinygrad_llm.autograd import AnomalyError, detect_anomaly, grad
from tinygrad_llm.nn import Module
from tinygrad_llm.optim import SGD, Adam, AdamW, clip_scale, decay_groups, grad_norm
from tinygrad_llm.runtime import peak_memory
from tinygrad_llm.training.layers import LayerFigures, by_layer
from tinygrad_llm.training.settings import ConfigError, TrainSettings
from tinygrad_llm.training.state import TrainingState
from tinygrad_llm.training.step import MeanGradient, Step, TrainingError
from tinygrad_llm.training.task import Evaluation, Task, with_measures
from tinygrad_llm.training.workers import Workers, fastest_threads, trainable

GIVE_UP = 10  # bad steps in a row: weights with which nine were skipped will not recover
LAYERS_EVERY = 10  # steps between two looks at each layer; more often, they would slow training down
_OVERFLOW = "every operation gives finite numbers, but their sum is too large"


class Trainer(TrainingState):
    """Trains the parameters of a model that require a gradient, and leaves all others (the frozen ones) untouched.

    It can stop after any micro-batch. Threads and processes share each gradient: see `Workers`.

    Raises:   ConfigError: dropout with several workers or processes, whose masks would depend on which is faster; no
              parameter requires a gradient.
    """

    def __init__(self, model: Module, task: Task, settings: TrainSettings) -> None:
        super().__init__(model, task, make_optimizer(model, settings))
        self.settings = settings
        threads = settings.workers or fastest_threads(model, task)
        self.workers = Workers(model, task, min(threads, task.batch_size))
        self._layers = by_layer(self.parameters.items())
        self._seconds, self._targets = 0.0, 0
        self._peak: int | None = None  # memory, as last read

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Step]:
        """Train up to the last step, and yield every one; `stop` is called after each micro-batch.

        Step 0 comes first, before any update. It carries the loss of the untrained model.

        Raises:   TrainingError: as `advance`; or, after a step whose held-out loss is NaN or infinite was yielded,
                  naming the first bad operation in it.
        """
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
        """
        began = time.perf_counter()
        with np.errstate(all="ignore"):  # NaN and infinity are reported in one line, not in NumPy's warnings
            if self.total.batches == 0:
                self._remember()
                self.optimizer.zero_grad()  # the new gradients take the memory of the old ones
            batch = self._next_batch()
            self.total.add(self.workers.gradient(batch))  # with the loss
            self._targets += self.task.count(batch)
            if self.total.batches < self.settings.accumulation and math.isfinite(self.total.loss):
                self._seconds += time.perf_counter() - began
                return None
            step = self._update()
        self._seconds += time.perf_counter() - began
        return self._completed(step)

    def _update(self) -> Step:
        """Clip the gradient and take a step of the optimizer."""
        loss, grads = self.total.loss, self.total.grads
        for p, g in zip(self.parameters.values(), grads, strict=True):
            p.grad = g
        norm = grad_norm(grads, self.workers.map)
        lr = self.settings.learning_rate(self.step)
        layers = LayerFigures(self._layers if self._looks_at_layers else {})
        done = Step(self.step + 1, loss, lr, norm, 0.0, None, layer_grad_norm=layers.grad_norm or None)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return self._skip(done)
        self.skipped_in_a_row = 0
        self.optimizer.set_lr(lr)
        self.workers.update(self.optimizer, clip_scale(norm, self.settings.clip))
        return dataclasses.replace(done, update_ratio=layers.update_ratio() or None)

    def _untrained(self) -> Step:
        """Step 0: the loss before any update."""
        found = self.task.evaluate(self.model)
        self.measured_untrained = True
        return self._with_evaluation(Step(0, found.loss, 0.0, 0.0, 0.0, None), found)

    def _completed(self, step: Step) -> Step:
        """Count a step, and complete what is reported about it."""
        if self._looks_at_layers or self._peak is None:
            self._peak = peak_memory()
        measured = self._is_measured
        done, self.total = self.total, MeanGradient()
        self.step += 1
        step = dataclasses.replace(
            step,
            tokens_per_second=self._targets / self._seconds,
            z_score=None if step.skipped else self.losses.z_score(step.loss),
            memory=self._peak,
            measures=done.measures or None,
        )
        return self._with_evaluation(step, self.task.evaluate(self.model)) if measured else step

    @property
    def _is_measured(self) -> bool:
        """Whether the step that is made ends with a held-out loss."""
        number = self.step + 1
        return number % self.settings.eval_every == 0 or number == self.settings.steps

    @property
    def _looks_at_layers(self) -> bool:
        return self._is_measured or (self.step + 1) % LAYERS_EVERY == 0

    @staticmethod
    def _with_evaluation(step: Step, found: Evaluation) -> Step:
        measures = {**(step.measures or {}), **{f"val_{name}": value for name, value in found.measures.items()}}
        return dataclasses.replace(step, val_loss=found.loss, measures=measures or None)

    # ---- NaN and infinity ------------------------------------------------------------------------------------------

    def _skip(self, step: Step) -> Step:
        """Skip a bad step, where the settings allow it; else undo it and raise."""
        skip = self.settings.on_bad_step == "skip"
        if skip and self.skipped_in_a_row < GIVE_UP - 1:
            self.skipped += 1
            self.skipped_in_a_row += 1
            return dataclasses.replace(step, skipped=True)
        cause = self._first_bad_operation()
        self._undo()
        raise TrainingError(
            f"step {step.step}: the loss is {step.loss} and the gradient norm {step.grad_norm}"
            f"{f', the {GIVE_UP}th bad step in a row' if skip else ''}: {cause or _OVERFLOW}; the weights are as they "
            "were before this step. Try a lower learning rate"
        ) from cause

    def _first_bad_operation(self) -> AnomalyError | None:
        """Take the micro-batches of this step again, and check every operation."""
        parameters = list(self.parameters.values())
        for batch, streams in self._taken:
            self._set_streams(streams)
            try:
                with detect_anomaly():
                    loss, _ = with_measures(self.task.loss(self.model, batch, self.task.count(batch)))
                    grad(loss, parameters)
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
            f"step {step.step}: the held-out loss is {step.val_loss}: {cause or _OVERFLOW}. Try a lower learning rate"
        ) from cause


def make_optimizer(model: Module, settings: TrainSettings) -> AdamW | Adam | SGD:
    """The optimizer of the settings, for the parameters that require a gradient.

    Raises:   ConfigError: no parameter does.
    """
    s, named = settings, list(trainable(model).items())
    if not named:
        raise ConfigError("there is nothing to train: no parameter of the model requires a gradient")
    decay = s.weight_decay
    groups = decay_groups(named, decay) if s.decay == "matrices" else [{"params": named, "weight_decay": decay}]
    match s.optimizer:
        case "adamw":
            return AdamW(groups, s.lr, s.betas, s.eps)
        case "adam":
            return Adam(groups, s.lr, s.betas, s.eps)
        case "sgd":
            return SGD(groups, s.lr, s.momentum)
