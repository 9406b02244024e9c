"""The training loop: loss, gradient, clip, step, again; and the held-out loss.

With several workers each batch is cut into as many parts, and each thread differentiates its own part of it with
`grad`; NumPy lets threads run side by side. The gradients are added in a fixed order, so a run with the same number of
workers repeats exactly.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.autograd import grad
from tinygrad_llm.datasets import DataError, DataLoader, SlidingWindows
from tinygrad_llm.kernels import Array
from tinygrad_llm.models import GPT
from tinygrad_llm.nn import Parameter
from tinygrad_llm.optim import AdamW, clip_grad_norm_, decay_groups, warmup_cosine
from tinygrad_llm.random import Generator
from tinygrad_llm.runtime import cores


@dataclass(frozen=True)
class TrainSettings:
    """How to train. Losses are in nats a token; `warmup` steps go linearly up to lr, a cosine leads down to min_lr."""

    steps: int
    batch_size: int
    lr: float
    min_lr: float
    warmup: int
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.1
    stride: int = 8  # tokens from one training window to the next: overlapping, each text is seen at many offsets
    clip: float = 1.0  # the largest global norm of the gradient
    eval_every: int = 100  # steps
    eval_batches: int = 20
    workers: int | None = None  # threads; None: up to four, where the machine and the model allow it
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "stride", "eval_every", "eval_batches", "workers"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"TrainSettings: {name} must be at least 1, not {value}")
        for name in ("lr", "min_lr", "warmup", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"TrainSettings: {name} must be finite and ≥ 0, not {getattr(self, name)}")
        if not self.clip > 0:
            raise ValueError(f"TrainSettings: clip must be positive (math.inf for none), not {self.clip}")


@dataclass(frozen=True)
class Step:
    """What happened in one step. `val_loss` is given where one was measured, always at the last."""

    step: int  # how many updates have been made
    loss: float  # of the batch, before its update
    lr: float
    grad_norm: float  # before clipping
    tokens_per_second: float  # since the start, evaluations and samples left out
    val_loss: float | None


class TrainingError(RuntimeError):
    """Training cannot go on: the loss or the gradient is no longer a number."""


def train(
    model: GPT, ids: NDArray[Any], val_ids: NDArray[Any], settings: TrainSettings, rng: Generator | None = None
) -> Iterator[Step]:
    """Train the model in place, and tell of every step.

    Step 0 is told of first, before any update: it carries the loss of the untrained model.

    Args:     ids, val_ids: (n,) token ids, to learn from and held out. rng: shuffles the windows; give the Generator
              the model was made with to go on with one stream, as one torch.manual_seed does. None: a new one.
    Raises:   DataError: too few tokens for one window, in either part. ValueError: several workers with dropout, whose
              masks would depend on which thread is sooner. TrainingError: NaN or infinity in the loss or
              the gradient; the parameters are then as they were before that step.
    """
    block_size = model.config.block_size
    windows = SlidingWindows(ids, block_size, settings.stride)
    batch_size = min(settings.batch_size, len(windows))
    rng = rng or Generator(settings.seed)
    loader = DataLoader(windows, batch_size, shuffle=True, drop_last=True, rng=rng)
    held_out = validation_batches(val_ids, block_size, settings.batch_size, settings.eval_batches)
    parameters = list(model.parameters())
    optimizer = AdamW(decay_groups(model.named_parameters(), settings.weight_decay), settings.lr, settings.betas)
    workers = min(settings.workers or default_workers(model), batch_size)
    if workers > 1 and model.config.dropout > 0:
        raise ValueError(f"dropout draws its masks from one stream, so it takes one worker, not {workers}")

    model.train()
    with _Gradients(model, parameters, workers) as gradients:
        start = evaluate(model, held_out)
        yield Step(0, start, 0.0, 0.0, 0.0, start)
        seconds = 0.0
        batches = _endless(loader)
        for step in range(1, settings.steps + 1):
            began = time.perf_counter()
            loss = gradients.fill(*next(batches))
            norm = clip_grad_norm_(parameters, settings.clip)
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise TrainingError(
                    f"step {step}: the loss is {loss} and the gradient norm {norm}; the weights are as they were "
                    "before this step. Try a lower learning rate"
                )
            lr = warmup_cosine(
                step - 1, steps=settings.steps, lr=settings.lr, min_lr=settings.min_lr, warmup=settings.warmup
            )
            optimizer.set_lr(lr)
            optimizer.step()
            seconds += time.perf_counter() - began
            measured = step % settings.eval_every == 0 or step == settings.steps
            val_loss = evaluate(model, held_out) if measured else None
            yield Step(step, loss, lr, norm, step * batch_size * block_size / seconds, val_loss)


def _endless(loader: DataLoader) -> Iterator[tuple[Array, Array]]:
    while True:
        yield from loader


def validation_batches(ids: NDArray[Any], block_size: int, batch_size: int, batches: int) -> list[tuple[Array, Array]]:
    """Fixed windows, spread evenly over the held-out text: the same at every evaluation."""
    try:
        windows = SlidingWindows(ids, block_size)
    except DataError as error:
        raise DataError(f"the held-out part is too short: {error}") from None
    chosen = np.unique(np.linspace(0, len(windows) - 1, batch_size * batches).astype(int)).tolist()
    return [windows.batch(chosen[i : i + batch_size]) for i in range(0, len(chosen), batch_size)]


def evaluate(model: GPT, batches: Sequence[tuple[Array, Array]]) -> float:
    """Mean loss over all targets of the batches, in nats a token, with dropout off."""
    with model.evaluating():
        total = math.fsum(model.loss(inputs, targets).item() * targets.size for inputs, targets in batches)
    return total / sum(targets.size for _, targets in batches)


def default_workers(model: GPT) -> int:
    """One thread a core, up to four, where BLAS can be told to use one thread in each (threadpoolctl).

    One, where there is dropout: it draws its masks from one stream, whose order threads would change.
    """
    if model.config.dropout > 0 or _blas_control() is None:
        return 1
    return min(cores(), 4)  # beyond, Python's own work on the tape, which threads take turns at, eats the gain


def _blas_control() -> Any:
    """What sets the number of BLAS threads; None where threadpoolctl is missing."""
    try:
        import threadpoolctl
    except ImportError:
        return None
    return threadpoolctl.ThreadpoolController()


class _Gradients:
    """Fills `.grad` of the parameters from a batch, with one worker or several."""

    def __init__(self, model: GPT, parameters: list[Parameter], workers: int) -> None:
        self.model = model
        self.parameters = parameters
        self.workers = workers
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "_Gradients":
        if self.workers > 1:
            self._pool = self._open.enter_context(ThreadPoolExecutor(self.workers))
            self._blas = _blas_control()
        return self

    def __exit__(self, *exception: object) -> None:
        self._open.close()

    def fill(self, inputs: Array, targets: Array) -> float:
        """Set the gradients, and return the loss."""
        if self.workers == 1:
            loss, grads = self._part(inputs, targets, 1.0)
        else:
            # Only here: evaluation and samples, on one thread of ours, may use all of BLAS's.
            with self._blas.limit(limits=1, user_api="blas") if self._blas else contextlib.nullcontext():
                loss, grads = self._parts(inputs, targets)
        for p, g in zip(self.parameters, grads, strict=True):
            p.grad = g
        return loss

    def _parts(self, inputs: Array, targets: Array) -> tuple[float, list[Array]]:
        """The batch, one part a thread."""
        parts = zip(np.array_split(inputs, self.workers), np.array_split(targets, self.workers), strict=True)
        futures = [self._pool.submit(self._part, x, y, y.size / targets.size) for x, y in parts]
        loss, grads = futures[0].result()
        for future in futures[1:]:
            part_loss, part_grads = future.result()
            loss += part_loss
            for total, g in zip(grads, part_grads, strict=True):
                total += g
        return loss, grads

    def _part(self, inputs: Array, targets: Array, share: float) -> tuple[float, list[Array]]:
        """One part's share of the mean loss, and that share's gradient."""
        loss = self.model.loss(inputs, targets)
        return share * loss.item(), grad(loss, self.parameters, gradient=share)
