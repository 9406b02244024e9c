"""A training step keeps no memory: after eight hundred steps as much is in use as after a hundred."""

import gc
import tracemalloc

import numpy as np
import pytest

from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.training import TrainSettings, train

IDS = np.tile(np.array([0, 1, 2, 3, 4]), 20)
SLACK = 8_000  # bytes: 11 a step of the last 700


@pytest.fixture(autouse=True)
def collect_by_hand():
    """The cycle collector runs where it is called, on what is made from here on."""
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


def growth(model, steps):
    """How memory grows from the first hundred steps to the last ones.

    Returns:  bytes in use, more than before; bytes at the peak, more than before; objects in cycles that the collector
              found in between.
    """
    every = 25
    settings = TrainSettings(
        steps=steps, batch_size=2, lr=1e-3, min_lr=1e-4, warmup=10, eval_every=every, eval_batches=1, workers=1
    )
    measured = np.zeros((steps // every, 3), np.int64)  # made before, so that it does not count as growth
    tracemalloc.start()
    try:
        for step in train(model, IDS, IDS, settings):
            if step.step and step.step % every == 0:
                peak = tracemalloc.get_traced_memory()[1]
                cycles = gc.collect()  # it also empties Python's own stock of unused tuples
                measured[step.step // every - 1] = tracemalloc.get_traced_memory()[0], peak, cycles
                tracemalloc.reset_peak()
    finally:
        tracemalloc.stop()
    now, peak, _ = measured[3]
    last_now, last_peak, _ = measured[-1]
    assert peak > now > 0
    return last_now - now, last_peak - peak, measured[4:, 2].sum()


def new_model():
    sizes = {"vocab_size": 5, "block_size": 4, "n_layer": 1, "n_head": 2, "n_embd": 4}
    return GPT(GPTConfig(**sizes), Generator(1))


@pytest.mark.slow
def test_memory_does_not_grow_after_a_hundred_steps():
    now, peak, cycles = growth(new_model(), 800)
    if max(now, peak) > SLACK:  # a table of the interpreter may have grown, which it does not do twice in a row
        now, peak, cycles = growth(new_model(), 800)
    assert now <= SLACK
    assert peak <= SLACK
    assert cycles == 0


class KeepsLosses(GPT):
    """Keeps the loss Tensor that was differentiated: no graph is left, but a number and its node."""

    def loss(self, *batch):
        self.kept = [*getattr(self, "kept", []), super().loss(*batch)]
        return self.kept[-1]


class MakesCycles(GPT):
    """Puts each loss into a cycle, so that it stays until the collector runs."""

    def loss(self, *batch):
        loss = super().loss(*batch)
        knot = [loss]
        knot.append(knot)
        return loss


@pytest.mark.slow
def test_a_small_leak_is_seen():
    now, peak, _ = growth(KeepsLosses(new_model().config, Generator(1)), 150)
    assert min(now, peak) > 50 * 200 > SLACK  # 200 bytes in each step


@pytest.mark.slow
def test_a_cycle_is_seen():
    *_, cycles = growth(MakesCycles(new_model().config, Generator(1)), 150)
    assert cycles >= 50
