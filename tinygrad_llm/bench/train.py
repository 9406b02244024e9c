"""A training step: forward, backward, clipping and AdamW, in float32 and without dropout.

Four configurations, from a toy's size to GPT-2's.
"""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.bench.harness import Subject
from tinygrad_llm.bench.limits import step_flops
from tinygrad_llm.bench.measure import OURS, Case, Cases
from tinygrad_llm.bench.work import Work, numpy_facts
from tinygrad_llm.datasets import BatchStream
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runtime import peak_memory
from tinygrad_llm.training import LanguageModeling, Trainer, TrainSettings
from tinygrad_llm.training.workers import fastest_threads

THEIRS = ("torch", "torch-compile")
SUBJECTS = {
    OURS: f"{__name__}:training",
    "torch": "tinygrad_llm.bench.against_torch:training",
    "torch-compile": "tinygrad_llm.bench.against_torch:training_compiled",
}


def _config(L: int, H: int, C: int, T: int, V: int) -> GPTConfig:
    return GPTConfig(n_layer=L, n_head=H, n_embd=C, block_size=T, vocab_size=V)


CONFIGS = {  # with the rows of a batch
    "char-cpu": (_config(4, 4, 128, 64, 65), 12),
    "book-mini": (_config(2, 4, 64, 256, 50257), 4),
    "baby": (_config(6, 6, 384, 256, 65), 8),
    "gpt2-124M": (_config(12, 12, 768, 64, 50257), 4),
}

# One learning rate for all steps. With so many steps, no timed step is the last one or measures a held-out loss.
SETTINGS = TrainSettings(
    steps=10**9, eval_every=10**9, eval_batches=1, lr=6e-4, warmup=0, schedule="constant", betas=(0.9, 0.95),
    eps=1e-8, weight_decay=0.1, clip=1.0, order="random",
)  # fmt: skip
FIRST = 5  # steps whose losses must agree
TOLERANCE = 1e-3


def cases(names: Sequence[str]) -> Cases:
    """Yield the configurations of these names; the files of each exist until the next one is requested."""
    for name in names:
        config, batch = CONFIGS[name]
        with tempfile.TemporaryDirectory() as folder:
            GPT(config, Generator(0)).save_pretrained(Path(folder))
            options = {"folder": folder, "batch": batch}
            yield Case(name, SUBJECTS, options, TOLERANCE, flops=step_flops(config, batch))


def batches(config: GPTConfig, batch: int) -> BatchStream:
    """Windows of a text in which the n-th most frequent token has a share of about 1 / n (Zipf's law)."""
    rng = Generator(1)
    ranks = (config.vocab_size + 1) ** rng.rand((100_000,), np.float64)  # [r, r + 1) is hit with a share of ln(1 + 1/r)
    ids = ranks.astype(np.int64) - 1
    return BatchStream([ids], config.block_size, batch, rng, order=SETTINGS.order)


# ---- in the worker -----------------------------------------------------------------------------------------------


def trainer(folder: str, batch: int, workers: int | None = None) -> Trainer:
    """The trainer of a configuration; None: with as many workers as `train` would choose."""
    model = GPT.from_pretrained(folder)
    held_out = [next(batches(model.config, 1))]  # the Trainer needs at least one
    task = LanguageModeling(batches(model.config, batch), held_out)
    workers = workers or fastest_threads(model, task)
    return Trainer(model, task, replace(SETTINGS, batch_size=batch, workers=workers))


def training(folder: str, batch: int) -> Subject:
    """`Trainer.run`, with as many workers as `train` would choose."""
    imported = peak_memory()
    one = trainer(folder, batch)
    steps = one.run()
    next(steps)  # step 0: the untrained model's held-out loss

    def facts() -> dict[str, Any]:
        return {**numpy_facts(), "workers": one.settings.workers}

    return Work(lambda: [next(steps).loss for _ in range(FIRST)], lambda: next(steps), imported, facts)
