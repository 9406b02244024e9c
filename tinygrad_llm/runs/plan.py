"""What a run will cost, before it begins: parameters, arithmetic, memory and time.

Shapes: T time (block_size), C channels, L layers, V vocabulary.
"""

import copy
import dataclasses
import math
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_llm.datasets import BatchStream
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.optim import clip_grad_norm_
from tinygrad_llm.random import Generator
from tinygrad_llm.training import ConfigError
from tinygrad_llm.training import LanguageModeling, Trainer, held_out_windows
from tinygrad_llm.training.memory import Memory, available_memory, check_memory, memory, readable
from tinygrad_llm.runs.run import Run

FLOPS_FORMULA = "6 · (12·L·C² + V·C) · tokens + 12 · L·C·T · tokens"

_SECONDS = 3.0  # of measuring; of a batch that is likely to take longer, a part is measured
_STEPS = 20  # and no more steps than these
_SIDE = 1024  # of the matrices that the machine is measured with
_PARTS = {"wte": "embeddings", "wpe": "embeddings", "attn": "attention", "mlp": "MLP", "lm_head": "head"}


@dataclass(frozen=True)
class Speed:
    """Seconds, measured: of a step with all its batches, and of a held-out loss."""

    step: float
    evaluation: float
    measured: str  # what was taken to measure it


@dataclass(frozen=True)
class Plan:
    """What a run will cost. `speed` is None before it is measured, and where the memory is not there."""

    parameters: dict[str, int]
    tokens: int  # a step
    flops: int  # a step
    memory: Memory
    available: int | None  # bytes of memory that are free, where the system tells
    steps: int  # still to be taken
    evaluations: int
    speed: Speed | None = None

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
            "measured": speed and speed.measured,
            "seconds_per_step": speed and speed.step,
            "tokens_per_second": speed and self.tokens / speed.step,
            "seconds_per_evaluation": speed and speed.evaluation,
            "steps": self.steps,
            "evaluations": self.evaluations,
            "seconds": self.seconds,
        }

    @property
    def sizes(self) -> str:
        """In words, what is known without trying."""
        lines = [f"parameters    {sum(self.parameters.values()):>15,}"]
        lines += [f"  {part:<12}{count:>15,}" for part, count in self.parameters.items()]
        free = "" if self.available is None else f"; {readable(self.available)} are free"
        parts = {name: f"{readable(size):>15}" for name, size in dataclasses.asdict(self.memory).items()}
        parts["gradients"] += "" if self.memory.gradients else " (none is made yet)"
        lines += [
            f"a step        {self.tokens:>15,} tokens",
            f"              {self.flops:>15.4g} FLOPs = {FLOPS_FORMULA}",
            f"memory        {readable(self.memory.peak):>15} at its highest, beside Python and the text{free}; then",
        ]
        lines += [f"  {part:<12}{size}" for part, size in parts.items()]
        return "\n".join(lines)

    @property
    def time(self) -> str:
        """In words, what was measured."""
        if self.speed is None:
            return "time          not measured: the memory is not there. Make the batch, or the model, smaller"
        speed, flops = self.tokens / self.speed.step, self.flops / self.speed.step
        return (
            f"speed         {speed:>15,.0f} tokens/s, {flops / 1e9:,.1f} GFLOP/s, from {self.speed.measured}\n"
            f"time          {_duration(self.seconds or 0):>15}: {self.steps:,} steps of {self.speed.step:.3g} s, "
            f"{self.evaluations:,} held-out losses of {self.speed.evaluation:.3g} s"
        )


def plan_run(run: Run) -> Plan:
    """What a run whose tokenizer is made will cost from here on, but for the time, which `measure_run` adds.

    Nothing is made or written.

    Raises:   ConfigError: more warm-up than steps.
    """
    config = _model_config(run)
    trainer: Trainer | None = getattr(run, "trainer", None)  # there already, in a run that is resumed
    batches, done = _batches(run), trainer.step if trainer else 0
    settings = run.settings.counted(batches.batches_per_epoch)
    # One after every so many steps, one at the end, and one before the first.
    every, last = settings.eval_every, settings.steps
    evaluations = (last - 1) // every - done // every + 1 + (done == 0)
    tokens = batches.batch_size * config.block_size * settings.accumulation
    need = memory(config, settings, batches.batch_size)
    parts = parameters_by_part(config)
    return Plan(parts, tokens, flops(config, tokens), need, available_memory(), last - done, evaluations)


def measure_run(run: Run, plan: Plan) -> Plan:
    """The plan of this run with its speed, measured on a part of a batch if the whole would take long, or more memory
    than there is; without, if not even one sequence fits.

    Nothing is written, and the run stays as it is.

    Raises:   ConfigError: as `Trainer`.
    """
    rows = _batches(run).batch_size
    part = max(1, min(rows, int(_SECONDS * _flops_per_second() * rows * run.settings.accumulation / plan.flops)))
    free = plan.available
    if free is not None and memory(_model_config(run), run.settings, part).peak > free:
        part = 1
    try:
        check_memory(_model_config(run), run.settings, part)
    except ConfigError:
        return plan
    return dataclasses.replace(plan, speed=measure(run, part))


def _model_config(run: Run) -> GPTConfig:
    return dataclasses.replace(run.config.model, vocab_size=run.tokenizer.n_vocab)


def _batches(run: Run, batch_size: int | None = None) -> BatchStream:
    """Batches as the run's own, which stay where they are."""
    s, data = run.settings, run.config.data
    block_size, rng = run.config.model.block_size, Generator(s.seed)
    size = s.batch_size if batch_size is None else batch_size
    return BatchStream(run.sources, block_size, size, rng, s.stride or None, s.order, data.weights)


def parameters_by_part(config: GPTConfig) -> dict[str, int]:
    """How many parameters the embeddings, attention, MLPs, layer norms and head have; a tied head has none."""
    counts = dict.fromkeys(("embeddings", "attention", "MLP", "layer norms", "head"), 0)
    for name, shape in dataclasses.replace(config, n_layer=1).shapes():
        words = name.split(".")
        parts = [part for word, part in _PARTS.items() if word in words]
        counts[parts[0] if parts else "layer norms"] += math.prod(shape) * (config.n_layer if "h" in words else 1)
    return counts


def flops(config: GPTConfig, tokens: int) -> int:
    """Floating-point operations of the matrix products in a step, forward and backward: `FLOPS_FORMULA`.

    Derivation:
        A product (n, k)(k, m) is n·m sums of k products: 2nkm operations. Backward makes two of the same size out of
        it, one for each factor: 6nkm in all.
        Linear layers: each token meets every weight once. A block has 3C² (c_attn) + C² (c_proj) + 4C² + 4C² (MLP),
        the head V·C, tied or not; looking up an embedding multiplies nothing.
        Attention: for each token, in each layer, q kᵀ and A v are C·T each, over all heads: 6 · 2·C·T = 12·C·T. What
        the mask hides counts too, as is the custom, though a kernel may leave it out.
    """
    L, C, T, V = config.n_layer, config.n_embd, config.block_size, config.vocab_size
    return 6 * (12 * L * C * C + V * C) * tokens + 12 * L * C * T * tokens


def _flops_per_second() -> float:
    """What this machine does when it only multiplies matrices: training comes to a good part of it."""
    a = np.ones((_SIDE, _SIDE), np.float32)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * _SIDE**3 / min(times)


def measure(run: Run, part: int) -> Speed:
    """Take a few real steps with `part` rows of a batch each, and a learning rate of 0, and time them; likewise a
    held-out loss.

    The first step, which fills caches, does not count where there are others.
    """
    real, rows = run.settings, _batches(run).batch_size
    # As many steps as are not taken, so that the last, with a held-out loss in its time, is none of them.
    settings = dataclasses.replace(
        real, lr=0.0, min_lr=0.0, warmup=0, accumulation=1, on_bad_step="skip", steps=_STEPS + 2, eval_every=_STEPS + 2
    )
    model = (
        copy.deepcopy(run.model)
        if hasattr(run, "model")
        else GPT(_model_config(run), Generator(real.seed), recompute=real.recompute)
    )
    weights = () if run.held_out_files else run.config.data.weights
    held_out = held_out_windows(run.held_out, model.block_size, real.batch_size, real.eval_batches, weights)
    inputs, targets = (side[:part] for side in held_out[0])
    # The loss before the first step is not looked at: one token will do.
    task = LanguageModeling(_batches(run, part), [(inputs[:1, :1], targets[:1, :1])], real.label_smoothing)
    trial = Trainer(model, task, settings)
    times: list[float] = []
    began = time.perf_counter()
    for step in trial.run(lambda: len(times) == _STEPS or sum(times) > _SECONDS):
        if step.step > 0:  # the first is told of before any
            times.append(time.perf_counter() - began)
        began = time.perf_counter()
    batch = statistics.median(times[1:] or times)
    with np.errstate(all="ignore"):  # of a run that has diverged the time is asked, and not the numbers
        began = time.perf_counter()
        clip_grad_norm_(trial.parameters.values(), settings.clip)
        trial.optimizer.step()
        update = min(time.perf_counter() - began, batch)  # once a step, however many batches it has
    # Forward has 2 of the 6 operations that `flops` counts; where blocks are computed anew, there are 8.
    row = (batch - update) / part / (4 if real.recompute else 3)
    if part == rows:  # there is the time to measure it
        began = time.perf_counter()
        task.evaluate(model, [(inputs, targets)])
        row = (time.perf_counter() - began) / len(inputs)
    evaluation = row * sum(len(x) for x, _ in held_out)
    count = "one step" if len(times) == 1 else f"{len(times)} steps"
    measured = f"{count} with " + (f"{rows} sequences" if part == rows else f"{part} of {rows} sequences, and scaled")
    return Speed(real.accumulation * (batch - update) * rows / part + update, evaluation, measured)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
