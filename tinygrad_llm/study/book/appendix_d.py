"""Appendix D: warm-up, cosine, clipping, and a training with all three."""

import math
from functools import cache
from typing import Any

import numpy as np

from tinygrad_llm.models import GPT
from tinygrad_llm.nn import Parameter
from tinygrad_llm.optim import AdamW, clip_grad_norm_
from tinygrad_llm.random import Generator
from tinygrad_llm.study.book.ch04 import book_config
from tinygrad_llm.study.book.ch05 import first_windows, single
from tinygrad_llm.study.book.ledger import ARITHMETIC, fact
from tinygrad_llm.study.book.material import train, verdict_loaders


def rate(step: int, steps: int, warmup: int, start: float, peak: float, least: float) -> float:
    """The book's learning rate: a line from start to peak, then half a cosine, which does not quite reach least."""
    if step < warmup:
        return start + step * (peak - start) / warmup
    progress = (step - warmup) / (steps - warmup)
    return least + (peak - least) * 0.5 * (1 + math.cos(math.pi * progress))


@fact("apD-01", "27 / 1.0000e-04 4.6667e-04 9.6333e-03 1.0000e-02 5.0050e-03 1.2113e-05", origin=ARITHMETIC)
def schedule() -> list[Any]:
    """15 passes of 9 steps: the warm-up's steps, and the rate at steps 0, 1, 26, 27, 81 and 134."""
    steps = 15 * 9
    warmup = int(0.2 * steps)
    return [warmup, [rate(step, steps, warmup, 1e-4, 0.01, 1e-5) for step in (0, 1, 26, 27, 81, 134)]]


@fact("apD-02", "5.000000 / 0.200000 0.400000 0.400000 0.800000", origin=ARITHMETIC, units=1)
def clipped() -> list[Any]:
    """A gradient's norm, and the gradient clipped to norm 1."""
    p = Parameter(np.zeros((2, 2), np.float32))
    p.grad = np.array([[1, 2], [2, 4]], np.float32)
    return [clip_grad_norm_([p], 1.0), p.grad]


@cache
def training() -> list[tuple[float, float]]:
    """Seed 123; model and AdamW, 15 passes, warm-up to 1e-3 in 27 steps, then cosine and clipping to norm 1."""
    rng = Generator(123)
    model = GPT(book_config(block_size=256), rng)
    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    loaders = verdict_loaders(rng)
    steps, warmup = 15 * len(loaders.train), 27

    def before(step: int) -> None:
        optimizer.set_lr(rate(step, steps, warmup, 1e-5, 1e-3, 1e-5))
        if step >= warmup:
            clip_grad_norm_(model.parameters(), 1.0)

    return [pair for _, *pair in train(model, loaders, optimizer, 15, batches=1, before_step=before)]  # type: ignore[misc]


@fact(
    "apD-04",
    "10.934 10.939 / 9.151 9.461 / 7.949 8.184 / 6.362 6.876 / 5.851 6.607 / 5.750 6.634 / 4.617 6.714 / 4.277 6.640 / "
    "3.194 6.324 / 2.488 6.263 / 2.627 6.264 / 2.193 6.201 / 0.818 6.340 / 0.735 6.329 / 0.789 6.390 / 0.293 6.508 / "
    "0.224 6.647 / 0.234 6.746 / 0.139 6.827 / 0.093 6.828 / 0.057 6.884",
    tier="slow",
    needs=("the-verdict",),
    units=2,
)
def losses() -> Any:
    """Training and validation losses at steps 0, 5, 10 … 100."""
    return training()[:21]


@fact("apD-05", "10.9 11.0 / 1", tier="slow", needs=("the-verdict",), units=1)
def one_window() -> list[Any]:
    """Seed 123; six steps on the story's first window, with one step of warm-up: the first losses; and 1, because the
    last training loss is below the first.
    """
    rng = Generator(123)
    model = GPT(book_config(block_size=256), rng)
    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)

    def before(step: int) -> None:
        optimizer.set_lr(rate(step, 6, 1, 1e-5, 1e-3, 1e-5))
        if step >= 1:
            clip_grad_norm_(model.parameters(), 1.0)

    log = train(model, first_windows(rng), optimizer, 6, batches=1, loss=single, before_step=before)
    losses = [pair for _, *pair in log]
    return [losses[0], int(losses[-1][0] < losses[0][0])]
