"""What a run will cost, before it begins: parameters, arithmetic, memory and time.

Shapes: B batch, T time (block_size), C channels, H heads, L layers, V vocabulary; N = B·T tokens in a batch.
"""

import dataclasses
import math
import statistics
import time
from dataclasses import dataclass
from typing import Any

from tinygrad_llm.datasets import BatchStream
from tinygrad_llm.models import GPTConfig
from tinygrad_llm.optim import clip_grad_norm_
from tinygrad_llm.random import Generator
from tinygrad_llm.training.config import TrainSettings
from tinygrad_llm.training.loop import Trainer, evaluate
from tinygrad_llm.training.run import Run

FLOPS_FORMULA = "6 · (12·L·C² + V·C) · tokens + 12 · L·C·T · tokens"

_FLOAT = 4  # bytes
_SECONDS = 3.0  # of measuring
_STEPS = 20  # and no more steps than these
_PARTS = {"wte": "embeddings", "wpe": "embeddings", "attn": "attention", "mlp": "MLP", "lm_head": "head"}


@dataclass(frozen=True)
class Memory:
    """Bytes of a training step where it takes most, by what they are for."""

    parameters: int
    gradients: int
    optimizer: int
    activations: int  # with what backward makes in passing

    @property
    def peak(self) -> int:
        return self.parameters + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Speed:
    """Seconds, measured: of a step with all its batches, and of a held-out loss."""

    step: float
    evaluation: float
    steps: int  # that were taken to measure it


@dataclass(frozen=True)
class Plan:
    """What a run will cost. `speed` is None where the memory for a step is not there."""

    parameters: dict[str, int]
    tokens: int  # a step
    flops: int  # a step
    memory: Memory
    available: int | None  # bytes of memory that are free, where the system tells
    speed: Speed | None
    steps: int  # still to be taken
    evaluations: int

    @property
    def seconds(self) -> float | None:
        """The time of all steps and held-out losses; samples and checkpoints come on top."""
        if self.speed is None:
            return None
        return self.steps * self.speed.step + self.evaluations * self.speed.evaluation

    def figures(self) -> dict[str, Any]:
        """All of it, as JSON can hold it."""
        speed = self.speed
        return {
            "parameters": {**self.parameters, "all": sum(self.parameters.values())},
            "tokens_per_step": self.tokens,
            "flops_per_step": self.flops,
            "flops_formula": FLOPS_FORMULA,
            "memory": {**dataclasses.asdict(self.memory), "peak": self.memory.peak, "available": self.available},
            "measured_steps": speed and speed.steps,
            "seconds_per_step": speed and speed.step,
            "tokens_per_second": speed and self.tokens / speed.step,
            "seconds_per_evaluation": speed and speed.evaluation,
            "steps": self.steps,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
        }

    def __str__(self) -> str:
        lines = [f"parameters    {sum(self.parameters.values()):>15,}"]
        lines += [f"  {part:<12}{count:>15,}" for part, count in self.parameters.items()]
        lines += [
            f"a step        {self.tokens:>15,} tokens",
            f"              {self.flops:>15.4g} FLOPs = {FLOPS_FORMULA}",
            f"memory        {_bytes(self.memory.peak):>15} at the most, beside Python and the text",
        ]
        lines += [f"  {part:<12}{_bytes(size):>15}" for part, size in dataclasses.asdict(self.memory).items()]
        if self.speed is None:
            free = _bytes(self.available or 0)
            lines.append(f"time          not measured: {free} are free. Try a smaller training.batch_size")
        else:
            speed, flops = self.tokens / self.speed.step, self.flops / self.speed.step
            lines += [
                f"speed         {speed:>15,.0f} tokens/s, {flops / 1e9:,.1f} GFLOP/s, measured over {self.speed.steps} "
                "batches",
                f"time          {_duration(self.seconds or 0):>15}: {self.steps:,} steps of {self.speed.step:.3g} s, "
                f"{self.evaluations:,} held-out losses of {self.speed.evaluation:.3g} s",
            ]
        return "\n".join(lines)


def plan_run(run: Run) -> Plan:
    """What a run whose tokenizer is made will cost from here on; its model is made only if there is the memory for it.

    Nothing is written, and the weights stay; batches are taken, so the run itself is not to be trained afterwards.

    Raises:   ConfigError: as `Trainer`, where there is the memory.
    """
    config = dataclasses.replace(run.config.model, vocab_size=run.tokenizer.n_vocab)
    free = available_memory()
    trainer: Trainer | None = getattr(run, "trainer", None)  # there already, in a run that is resumed
    if trainer is None and (free is None or memory(config, run.settings, run.settings.batch_size).peak < free):
        run.make_model()
        trainer = run.trainer
    settings, done = run.settings, trainer.step if trainer else 0
    batches = trainer.batches if trainer else _batches(run)
    need = memory(config, settings, batches.batch_size)
    last = settings.epochs * max(1, batches.batches_per_epoch // settings.accumulation) or settings.steps
    # One after every so many steps, one at the end, and one before the first.
    evaluations = (last - 1) // settings.eval_every - done // settings.eval_every + 1 + (done == 0)
    tokens = batches.batch_size * config.block_size * settings.accumulation
    # The parameters, once made, are no longer to be found room for.
    fits = free is None or need.peak - need.parameters < free
    speed = measure(trainer) if trainer is not None and fits else None
    parameters = parameters_by_part(config)
    return Plan(parameters, tokens, flops(config, tokens), need, free, speed, last - done, evaluations)


def _batches(run: Run) -> BatchStream:
    """The batches of a run that has no model: only how many there are is asked."""
    s = run.settings
    return BatchStream(
        run.sources, run.config.model.block_size, s.batch_size, Generator(s.seed), s.stride or None, s.order
    )


def parameters_by_part(config: GPTConfig) -> dict[str, int]:
    """How many parameters the embeddings, attention, MLPs, layer norms and head have; a tied head has none."""
    counts = dict.fromkeys(("embeddings", "attention", "MLP", "layer norms", "head"), 0)
    for name, shape in config.shapes():
        parts = [part for word, part in _PARTS.items() if word in name.split(".")]
        counts[parts[0] if parts else "layer norms"] += math.prod(shape)
    return counts


def flops(config: GPTConfig, tokens: int) -> int:
    """Floating-point operations of the matrix products in a step, forward and backward: `FLOPS_FORMULA`.

    Derivation:
        A product (n, k)(k, m) is n·m sums of k products: 2nkm operations. Backward makes two of the same size out of
        it, one for each factor: 6nkm in all.
        Linear layers: each token meets every weight once. A block has 3C² (c_attn) + C² (c_proj) + 4C² + 4C² (MLP),
        the head V·C, tied or not; looking up an embedding multiplies nothing.
        Attention: for each token, in each layer, q kᵀ and A v are C·T each, over all heads: 6 · 2·C·T = 12·C·T. What
        the mask hides is computed too.
    """
    L, C, T, V = config.n_layer, config.n_embd, config.block_size, config.vocab_size
    return 6 * (12 * L * C * C + V * C) * tokens + 12 * L * C * T * tokens


def memory(config: GPTConfig, settings: TrainSettings, batch_size: int) -> Memory:
    """Bytes of the arrays in a training step when there are most.

    The optimizer's and the last step's gradients stay (and the sum so far, where batches are accumulated). The tape of
    a forward pass keeps, for each block, in floats:

        N·C      x̂ and y of two layer norms: 4;  q, k, v: 3;  what the heads say: 1;  c_fc's y, tanh, GELU's y: 4 each
        B·H·T²   the attention weights

    and, with dropout, a byte for each element of its masks. Backward frees it block by block while the gradients grow,
    so that most is there at the loss (logits and their exponentials), in the last block, in the first, or at the end.
    Each worker has gradients of its own; the parts of a batch are together as large as the batch.
    """
    L, C, V, T = config.n_layer, config.n_embd, config.vocab_size, config.block_size
    N = batch_size * T
    x, weights, logits = N * C, batch_size * config.n_head * T * T, N * V
    masks = (2 * x + weights) / _FLOAT if config.dropout > 0 else 0
    block = 20 * x + weights + 2 * N + masks
    whole = config.num_parameters
    block_parameters = 12 * C * C
    head = V * C

    # (activations, new gradients), all in floats: at the loss
    stages: list[tuple[float, int]] = [(L * block + 2 * x + 2 * logits, 0)]
    for left in (L, 1):  # in the last block, which backward comes to first, and in the first
        ready = head + (L - left) * block_parameters
        # GELU's y (4) is free; its gradient is there, and three arrays of this size to go on with; the residual's.
        stages.append((left * block + 13 * x, ready + 4 * C * C))
        # Of the MLP all is free (11), and what the heads said. The gradients of A and S, and a product; those of the
        # residual and of what the heads said, of q, k and v each by itself, and side by side.
        stages.append((left * block - 4 * x + 3 * weights, ready + 9 * C * C))
    # wte's gradient, beside the head's where they are one.
    stages.append((3.0 * x, whole + (head if config.tie_weights else 0)))

    workers = min(settings.workers or 1, batch_size)
    activations, ready = max(stages, key=lambda stage: stage[0] + workers * stage[1])
    kept = 1 + (settings.accumulation > 1)
    slots = 2 if settings.optimizer != "sgd" else int(settings.momentum > 0)
    return Memory(
        _FLOAT * whole, _FLOAT * (kept * whole + workers * ready), _FLOAT * slots * whole, int(_FLOAT * activations)
    )


def measure(trainer: Trainer) -> Speed:
    """Take a few real steps of one batch each, with a learning rate of 0, and time them; likewise a held-out loss.

    The first step, which fills caches, does not count where there are others.
    """
    real = trainer.settings
    # As many steps as are not taken, so that the last, with a held-out loss in its time, is none of them.
    settings = dataclasses.replace(
        real, lr=0.0, min_lr=0.0, warmup=0, accumulation=1, on_bad_step="skip", steps=_STEPS + 2, eval_every=_STEPS + 2
    )
    held_out = trainer.held_out[:3]
    trial = Trainer(trainer.model, trainer.batches, held_out, settings)
    times: list[float] = []
    began = time.perf_counter()
    for step in trial.run(lambda: len(times) == _STEPS or sum(times) > _SECONDS):
        if step.step > 0:  # the first is told of before any
            times.append(time.perf_counter() - began)
        began = time.perf_counter()
    batch = statistics.median(times[1:] or times)

    began = time.perf_counter()
    clip_grad_norm_(trial.parameters, settings.clip)
    trial.optimizer.step()
    update = min(time.perf_counter() - began, batch)  # once a step, however many batches it has

    began = time.perf_counter()
    evaluate(trial.model, held_out)
    share = sum(targets.size for _, targets in trainer.held_out) / sum(targets.size for _, targets in held_out)
    evaluation = (time.perf_counter() - began) * share
    return Speed(real.accumulation * (batch - update) + update, evaluation, len(times))


def available_memory() -> int | None:
    """Bytes that can be had without swapping; None where the system does not tell (it does on Linux)."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            fields = dict(line.split(":", 1) for line in lines)
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _bytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.2f} GB"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
