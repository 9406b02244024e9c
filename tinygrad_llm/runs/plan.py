"""The cost of a run before it begins: parameters, arithmetic, memory and time.

Shapes: T time (block_size), C channels, L layers, V vocabulary.
"""

import dataclasses
import math
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_llm.datasets import BatchStream
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.optim import clip_grad_norm_
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.config import RunConfig
from tinygrad_llm.runs.data import RunData, make_batches, make_task
from tinygrad_llm.runs.finetune import FineTuneData, Model
from tinygrad_llm.training import ConfigError, Task, Trainer, TrainSettings
from tinygrad_llm.training.memory import Memory, available_memory, check_memory, memory, readable

FLOPS_FORMULA = "6·(12·L·C² + V·C)·tokens + 12·L·C·T·tokens"

_SECONDS = 3.0  # of measuring; where a batch is likely to take longer, a part of it is measured
_STEPS = 20  # at most
_SIDE = 1024  # of the matrices with which the machine is measured
_BATCHES = 50  # of examples, from which the tokens of a step are estimated
_PARTS = {"wte": "embeddings", "wpe": "embeddings", "attn": "attention", "mlp": "MLP"}
_PARTS |= {"lm_head": "head", "score": "head"}


@dataclass(frozen=True)
class Speed:
    """Seconds, measured: for a step with all its batches, and for a held-out loss."""

    step: float
    evaluation: float
    measured: str  # such as "20 steps with 12 sequences"


@dataclass(frozen=True)
class Plan:
    """The cost of a run. `speed` is None before it is measured, and where there is not enough memory to measure it."""

    parameters: dict[str, int]
    trained: int  # of the parameters
    tokens: int  # per step
    flops: int | None  # per step; None for fine-tuning, where frozen layers and padding change them
    memory: Memory
    available: int | None  # bytes of free memory; None where the system does not report them
    steps: int  # left
    evaluations: int
    speed: Speed | None = None

    @property
    def seconds(self) -> float | None:
        """The time of all steps and held-out losses; samples and checkpoints take some more."""
        if self.speed is None:
            return None
        return self.steps * self.speed.step + self.evaluations * self.speed.evaluation

    def figures(self) -> dict[str, Any]:
        """All figures, for JSON."""
        speed = self.speed
        return {
            "parameters": {**self.parameters, "all": sum(self.parameters.values()), "trained": self.trained},
            "tokens_per_step": self.tokens,
            "flops_per_step": self.flops,
            "flops_formula": None if self.flops is None else FLOPS_FORMULA,
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
        """Lines about what is known without measuring."""
        lines = [f"parameters    {sum(self.parameters.values()):>15,}"]
        lines += [f"  {part:<12}{count:>15,}" for part, count in self.parameters.items()]
        free = [] if self.available is None else [f"              {readable(self.available):>15} are free"]
        parts = {name: f"{readable(size):>15}" for name, size in dataclasses.asdict(self.memory).items()}
        parts["gradients"] += "" if self.memory.gradients else " (none exists yet)"
        if self.trained < sum(self.parameters.values()):
            lines.append(f"trained       {self.trained:>15,} of them")
        if self.flops is None:
            lines.append(f"a step        {self.tokens:>15,} tokens on average, with the padding")
        else:
            lines.append(f"a step        {self.tokens:>15,} tokens")
            lines.append(f"              {self.flops:>15.4g} FLOPs = {FLOPS_FORMULA}")
        lines += [f"memory        {readable(self.memory.peak):>15} at its peak, on top of Python and the text"]
        lines += [f"  {part:<12}{size}" for part, size in parts.items()] + free
        return "\n".join(lines)

    @property
    def time(self) -> str:
        """Lines about what was measured."""
        if self.speed is None:
            return "time          not measured: too little memory. Shrink the batch or the model"
        lines = [f"speed         {self.tokens / self.speed.step:>15,.0f} tokens/s, from {self.speed.measured}"]
        if self.flops is not None:
            lines.append(f"              {self.flops / self.speed.step / 1e9:>15,.1f} GFLOP/s")
        lines += [
            f"time          {_duration(self.seconds or 0):>15}",
            f"  steps       {self.steps:>15,} of {self.speed.step:.3g} s",
            f"  held-out    {self.evaluations:>15,} losses of {self.speed.evaluation:.3g} s",
        ]
        return "\n".join(lines) + ("\nThe test after the last step takes some more." if self.flops is None else "")


def plan_run(config: RunConfig, data: RunData, done: int = 0) -> Plan:
    """The cost of a run after its first `done` steps, except for the time, which `measure_run` adds.

    No model is made and nothing is written.

    Raises:   ConfigError: more warm-up than steps.
    """
    sizes, batches = _sizes(config, data), _batches(config, data)
    settings = config.training.counted(batches.batches_per_epoch)
    tokens = batches.batch_size * sizes.block_size * settings.accumulation
    parameters = parameters_by_part(sizes)
    costs = memory(sizes, settings, batches.batch_size)
    all_parameters = sum(parameters.values())
    return Plan(
        parameters, all_parameters, tokens, flops(sizes, tokens), costs, available_memory(), *_left(settings, done)
    )


def _left(settings: TrainSettings, done: int) -> tuple[int, int]:
    """The steps that are left after the first `done`, and the held-out losses: one after every `eval_every` steps, one
    at the end, and one before the first step."""
    every, last = settings.eval_every, settings.steps
    return last - done, (last - 1) // every - done // every + 1 + (done == 0)


def measure_run(config: RunConfig, data: RunData, plan: Plan) -> Plan:
    """The plan of this run with its speed, measured with a new model; without it, if not even one sequence fits.

    Only a part of a batch is measured if the whole batch would take long, or needs more memory than there is. Nothing
    is written.

    Raises:   ConfigError: as `Trainer`.
    """
    sizes, rows = _sizes(config, data), _batches(config, data).batch_size
    assert plan.flops is not None
    part = _part(plan.flops, rows * config.training.accumulation, rows)
    free = plan.available
    if free is not None and memory(sizes, config.training, part).peak > free:
        part = 1
    try:
        check_memory(sizes, config.training, part)
    except ConfigError:
        return plan
    return dataclasses.replace(plan, speed=measure(config, data, part))


def _part(operations: int, rows_per_step: int, rows: int) -> int:
    """How many rows of a batch can be measured in `_SECONDS`.

    Args:     operations: of a step with `rows_per_step` rows.
    """
    return max(1, min(rows, int(_SECONDS * _flops_per_second() * rows_per_step / operations)))


def plan_finetuning(config: RunConfig, data: FineTuneData, done: int = 0) -> Plan:
    """The cost of a fine-tuning run after its first `done` steps, with its speed. Nothing is written.

    The model is made: the adapters of LoRA, or the layers that are trained, decide the cost.

    Raises:   ConfigError: more warm-up than steps; a step does not fit into memory.
    """
    rng = Generator(config.training.seed)
    task, per_epoch = data.make_task(config, rng)
    settings = config.training.counted(per_epoch)
    model = data.make_model(config, rng, task.batch_size)
    some = [next(task.batches) for _ in range(min(_BATCHES, per_epoch))]
    widths = [max(array.shape[1] for array in batch.values() if array.ndim == 2) for batch in some]
    tokens = round(sum(map(_tokens, some)) / len(some)) * settings.accumulation
    sizes = dataclasses.replace(data.base.config, block_size=max(widths))
    texts, per_token = data.rows, isinstance(model, GPT)
    costs = memory(sizes, settings, texts * task.batch_size, *data.trained(model), texts, per_token)
    trained = sum(p.data.size for p in model.parameters() if p.requires_grad)
    counts = _counted((name, p.shape) for name, p in model.named_parameters())
    plan = Plan(counts, trained, tokens, None, costs, available_memory(), *_left(settings, done))
    # All layers forward and backward, which is the most that may be.
    part = _part(flops(sizes, tokens), task.batch_size * settings.accumulation, task.batch_size)
    return dataclasses.replace(plan, speed=_measure_part(config, data, model, part))


def _tokens(batch: dict[str, Any]) -> int:
    """The tokens that the model reads of a batch: of a pair, both answers."""
    return sum(batch[name].size for name in ("ids", "chosen", "rejected") if name in batch)


def _measure_part(config: RunConfig, data: FineTuneData, model: Model, part: int) -> Speed:
    """Take a few real steps of fine-tuning with `part` rows of each batch, and time them: see `measure`."""
    smaller = dataclasses.replace(config, training=dataclasses.replace(config.training, batch_size=part))
    whole, _ = data.make_task(config, Generator(config.training.seed))
    task, _ = data.make_task(smaller, Generator(config.training.seed))
    rows = sum(len(batch["lengths"]) for batch in whole.held_out)
    first = task.held_out[0]
    task.held_out = [{name: array[:1] for name, array in first.items()}]
    return _speed(model, task, config.training, part, whole.batch_size, rows, first)


def _sizes(config: RunConfig, data: RunData) -> GPTConfig:
    sizes: GPTConfig = dataclasses.replace(config.model, vocab_size=data.tokenizer.n_vocab)
    return sizes


def _batches(config: RunConfig, data: RunData, batch_size: int | None = None) -> BatchStream:
    return make_batches(config, data, Generator(config.training.seed), batch_size)


def parameters_by_part(config: GPTConfig) -> dict[str, int]:
    """The number of parameters in embeddings, attention, MLPs, layer norms and head; a tied head has none."""
    one_layer = dataclasses.replace(config, n_layer=1).shapes()
    return _counted((name, (config.n_layer if ".h." in name else 1, *shape)) for name, shape in one_layer)


def _counted(shapes: Iterable[tuple[str, tuple[int, ...]]]) -> dict[str, int]:
    """The numbers in arrays with these names and shapes, by part of the model; with "adapters" where it has some."""
    counts = dict.fromkeys(("embeddings", "attention", "MLP", "layer norms", "head"), 0)
    for name, shape in shapes:
        words = name.split(".")
        parts = [part for word, part in _PARTS.items() if word in words]
        part = "adapters" if {"lora_A", "lora_B"} & set(words) else parts[0] if parts else "layer norms"
        counts[part] = counts.get(part, 0) + math.prod(shape)
    return counts


def flops(config: GPTConfig, tokens: int) -> int:
    """Floating-point operations of the matrix products in a step, forward and backward: `FLOPS_FORMULA`.

    Derivation:
        A product (n, k)(k, m) is n·m sums of k products: 2nkm operations. Backward computes two products of the same
        size, one for each factor: 6nkm in total.
        Linear layers: each token is multiplied by every weight once. A block has 3C² (c_attn) + C² (c_proj) + 4C² + 4C²
        (MLP) weights, and the head has V·C, tied or not. Looking up an embedding multiplies nothing.
        Attention: for each token, in each layer, q kᵀ and A v take C·T each, over all heads: 6 · 2·C·T = 12·C·T. By
        convention the masked half counts too, although a kernel may leave it out.
    """
    L, C, T, V = config.n_layer, config.n_embd, config.block_size, config.vocab_size
    return 6 * (12 * L * C * C + V * C) * tokens + 12 * L * C * T * tokens


def _flops_per_second() -> float:
    """The speed of matrix products alone on this machine; training reaches a good part of it."""
    a = np.ones((_SIDE, _SIDE), np.float32)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * _SIDE**3 / min(times)


def measure(config: RunConfig, data: RunData, part: int) -> Speed:
    """Take a few real steps with `part` rows of each batch and a learning rate of 0, and time them.

    The time of a held-out loss is measured too where `part` is the whole batch, and estimated otherwise.
    """
    real, rows = config.training, _batches(config, data).batch_size
    model = GPT(_sizes(config, data), Generator(real.seed), recompute=real.recompute)
    task = make_task(config, data, _batches(config, data, part))
    held_out = sum(len(inputs) for inputs, _ in task.held_out)
    first = tuple(side[:part] for side in task.held_out[0])
    task.held_out = [tuple(side[:1, :1] for side in first)]  # the loss before the first step takes no time
    return _speed(model, task, real, part, rows, held_out, first)


def _speed(model: Any, task: Task, real: TrainSettings, part: int, rows: int, held_out: int, first: Any) -> Speed:
    """The speed of a run, from steps with a part of each batch.

    Args:     task: with batches of `part` rows, and a held-out batch that takes no time. rows: of a whole batch.
              held_out: rows of all held-out batches. first: the first of these, or `part` rows of it.
    """
    batch, update, steps = _time_steps(model, task, real)
    # Forward has 2 of the 6 operations that `flops` counts; where blocks are recomputed, there are 8.
    row = (batch - update) / part / (4 if real.recompute else 3)
    if part == rows:
        began = time.perf_counter()
        task.evaluate(model, [first])
        row = (time.perf_counter() - began) / part
    count = "one step" if steps == 1 else f"{steps} steps"
    measured = f"{count} with " + (f"{rows} sequences" if part == rows else f"{part} of {rows} sequences, and scaled")
    return Speed(real.accumulation * (batch - update) * rows / part + update, row * held_out, measured)


def _time_steps(model: Any, task: Task, settings: TrainSettings) -> tuple[float, float, int]:
    """The seconds of a step with one batch, those of its update alone, and how many steps were taken."""
    # More steps than are taken, so that none of them is the last, whose time includes a held-out loss.
    most = _STEPS + 2
    settings = dataclasses.replace(
        settings,
        lr=0.0,
        min_lr=0.0,
        warmup=0,
        accumulation=1,
        on_bad_step="skip",
        steps=most,
        epochs=0,
        eval_every=most,
    )
    trial = Trainer(model, task, settings)
    times: list[float] = []
    began = time.perf_counter()
    for step in trial.run(lambda: len(times) == _STEPS or sum(times) > _SECONDS):
        if step.step > 0:  # step 0 only measures the loss before training
            times.append(time.perf_counter() - began)
        began = time.perf_counter()
    batch = statistics.median(times[1:] or times)  # the first step fills caches
    began = time.perf_counter()
    clip_grad_norm_(trial.parameters.values(), settings.clip)
    trial.optimizer.step()
    update = min(time.perf_counter() - began, batch)  # once per step, however many batches it has
    return batch, update, len(times)


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1g} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 48 * 3600 else f"{seconds / 86400:.1f} days"
