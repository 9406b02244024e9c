"""What a training step needs is what it takes, and is compared with what is there."""

import dataclasses
import tracemalloc

import numpy as np
import pytest

from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.training import ConfigError, TrainSettings, train
from tinygrad_llm.training import memory as module
from tinygrad_llm.training.memory import available_memory, check_memory, memory, readable

SETTINGS = TrainSettings(steps=3, batch_size=4, warmup=0, eval_every=99, eval_batches=1, workers=1)


def peak_of(config, settings):
    """The most that a real training holds at once, from the first step on, with the model itself."""
    ids = np.random.default_rng(0).integers(0, config.vocab_size, 2000)
    tracemalloc.start()
    try:
        model = GPT(config, Generator(1))
        for step in train(model, ids, ids, settings):
            if step.step == 0:
                tracemalloc.reset_peak()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Where most is there: at the loss; in the MLP; in attention; when all gradients are made; and what stays.
SIZES = {
    "a large vocabulary": (GPTConfig(2048, 64, 2, 2, 64), {}),
    "a head of its own": (GPTConfig(3000, 16, 2, 4, 128, tie_weights=False), {"batch_size": 1}),
    "one wide layer": (GPTConfig(65, 64, 1, 4, 128), {}),
    "layers": (GPTConfig(65, 64, 4, 4, 64), {}),
    "a long text": (GPTConfig(50, 256, 2, 8, 32), {"batch_size": 2}),
    "dropout": (GPTConfig(50, 256, 2, 8, 32, dropout=0.2), {"batch_size": 2}),
    "few tokens": (GPTConfig(100, 16, 4, 4, 128), {"batch_size": 1}),
    "accumulation": (GPTConfig(200, 8, 4, 4, 128), {"accumulation": 3}),
    "sgd": (GPTConfig(200, 8, 4, 4, 128), {"optimizer": "sgd"}),
    "sgd with momentum": (GPTConfig(200, 8, 4, 4, 128), {"optimizer": "sgd", "momentum": 0.9}),
}


@pytest.mark.parametrize("name", SIZES)
def test_the_memory_is_within_15_percent_of_the_measured_peak(name):
    config, changes = SIZES[name]
    settings = dataclasses.replace(SETTINGS, **changes)
    expected = memory(config, settings, settings.batch_size)
    assert expected.parameters == 4 * GPT(config, Generator(0)).num_parameters()
    assert expected.peak == pytest.approx(peak_of(config, settings), rel=0.15)


def test_what_may_fit_is_let_through_and_what_cannot_is_refused(monkeypatch):
    config = GPTConfig(n_layer=2, n_head=2, n_embd=8)
    need = memory(config, SETTINGS, 12).peak
    for free in (None, 2 * need, need, int(need / 1.14)):  # the estimate may be too high by 15 %
        monkeypatch.setattr(module, "available_memory", lambda free=free: free)
        check_memory(config, SETTINGS, 12)
    for free in (0, 1000, int(need / 1.16)):
        monkeypatch.setattr(module, "available_memory", lambda free=free: free)
        with pytest.raises(ConfigError) as error:
            check_memory(config, SETTINGS, 12)
        assert f"needs {readable(need)} of memory, and {readable(free)} are free" in str(error.value)
        for key in ("training.batch_size (12)", "model.block_size (1024)", "model.n_layer (2)", "model.n_embd (8)"):
            assert key in str(error.value)


def test_the_free_memory_is_the_systems_or_else_all_that_there_is_or_not_known(monkeypatch):
    monkeypatch.setattr(module, "memory_available", lambda: 0)
    assert available_memory() == 0
    monkeypatch.setattr(module, "memory_available", lambda: None)
    monkeypatch.setattr(module.os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert available_memory() == 4_096_000

    def unknown(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(module.os, "sysconf", unknown)
    assert available_memory() is None


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (12_345, "12.3 kB"), (5.4e6, "5.4 MB"), (2.38e10, "23.8 GB"),
     (7e15, "7,000.0 TB")],
)  # fmt: skip
def test_bytes_are_told_in_the_unit_that_suits_them(size, words):
    assert readable(size) == words
