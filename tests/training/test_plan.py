"""What a run will cost is what it costs: counted, and measured."""

import dataclasses
import json
import tracemalloc

import numpy as np
import pytest

from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.training import DataSettings, Run, RunConfig, TrainSettings, plan_run, train
from tinygrad_llm.training.plan import Speed, available_memory, flops, memory, parameters_by_part

TINY = GPTConfig(vocab_size=11, block_size=6, n_layer=2, n_head=2, n_embd=8)
SETTINGS = TrainSettings(steps=3, batch_size=4, warmup=0, eval_every=99, eval_batches=1, workers=1)


class Counting(np.ndarray):
    """An array that adds up 2nkm for every matrix product (n, k)(k, m) it, or what is made of it, takes part in."""

    operations = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [x.view(np.ndarray) if isinstance(x, Counting) else x for x in inputs]
        if out is not None:
            options["out"] = tuple(x.view(np.ndarray) if isinstance(x, Counting) else x for x in out)
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul:
            Counting.operations += 2 * result.size * plain[0].shape[-1]
        return result.view(Counting) if isinstance(result, np.ndarray) else result


@pytest.mark.parametrize("changes", [{}, {"tie_weights": False}, {"n_layer": 1, "n_head": 4, "qkv_bias": False}])
def test_the_flops_are_those_of_all_matrix_products(changes, monkeypatch):
    config = dataclasses.replace(TINY, **changes)
    model = GPT(config, Generator(0))
    for p in model.parameters():
        p.data = p.data.view(Counting)
    ids = np.arange(3 * config.block_size).reshape(3, -1) % config.vocab_size
    monkeypatch.setattr(Counting, "operations", 0)
    monkeypatch.setattr(np, "asarray", np.asanyarray)  # the engine takes plain arrays; here it is not to make them so
    model.loss(ids, ids).backward()
    assert Counting.operations == flops(config, ids.size)


def test_the_flops_of_one_layer_by_hand():
    config = GPTConfig(vocab_size=10, block_size=3, n_layer=1, n_head=1, n_embd=2)
    layers = [(3, 2, 6), (3, 2, 3), (3, 3, 2), (3, 2, 2), (3, 2, 8), (3, 8, 2), (3, 2, 10)]  # (n, k)(k, m), one text
    assert flops(config, 3) == sum(3 * 2 * n * k * m for n, k, m in layers)


@pytest.mark.parametrize("changes", [{}, {"tie_weights": False}, {"qkv_bias": False}])
def test_every_parameter_is_in_one_part(changes):
    config = dataclasses.replace(TINY, **changes)
    model, parts = GPT(config, Generator(0)), parameters_by_part(config)
    assert sum(parts.values()) == model.num_parameters()
    assert parts["head"] == (0 if config.tie_weights else 88)
    block = model.transformer.h[0]
    assert parts["MLP"] == 2 * block.mlp.num_parameters()
    assert parts["attention"] == 2 * block.attn.num_parameters()
    assert parts["embeddings"] == (11 + 6) * 8
    assert parts["layer norms"] == 5 * 16


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


@pytest.fixture
def run(tmp_path):
    """A function: settings → a Run with its model."""
    (tmp_path / "text.txt").write_text("The cat sat on the mat.\n" * 30)

    def make(**changes):
        settings = dataclasses.replace(SETTINGS, **changes)
        made = Run(RunConfig("", "", DataSettings(str(tmp_path / "text.txt")), TINY, settings), tmp_path / "new")
        made.make_tokenizer()
        made.make_model()
        return made

    return make


def evaluations(run):
    return sum(step.val_loss is not None for step in run.trainer.run())


@pytest.mark.parametrize("steps", [1, 5, 6, 7])
def test_the_steps_and_held_out_losses_are_those_that_follow(steps, run, monkeypatch):
    monkeypatch.setattr("tinygrad_llm.training.plan.measure", lambda trainer: Speed(2.0, 10.0, 1))
    costs = plan_run(run(steps=steps, eval_every=3))
    assert costs.steps == steps
    assert costs.evaluations == evaluations(run(steps=steps, eval_every=3))
    assert costs.seconds == 2 * steps + 10 * costs.evaluations


@pytest.mark.parametrize("done", [2, 3, 4])
def test_of_a_run_that_is_resumed_only_the_rest_counts(done, run, monkeypatch):
    monkeypatch.setattr("tinygrad_llm.training.plan.measure", lambda trainer: Speed(2.0, 10.0, 1))
    begun = run(steps=7, eval_every=3)
    for _ in begun.trainer.run(lambda: begun.trainer.step == done):
        pass
    costs = plan_run(begun)
    assert costs.steps == 7 - done
    assert costs.evaluations == evaluations(begun)


def test_a_plan_writes_nothing_and_leaves_the_weights(run, tmp_path, monkeypatch):
    monkeypatch.setattr("tinygrad_llm.training.plan._STEPS", 3)
    planned = run(accumulation=2, lr=1e-2)
    before = [p.data.copy() for p in planned.model.parameters()]
    costs = plan_run(planned)
    for p, old in zip(planned.model.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.data, old)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt"]
    assert costs.tokens == 4 * 6 * 2
    assert costs.speed.steps == 3
    assert costs.speed.step > 0
    figures = json.loads(json.dumps(costs.figures(), allow_nan=False))
    assert figures["memory"]["peak"] == costs.memory.peak == sum(dataclasses.astuple(costs.memory))
    assert f"{costs.flops:.4g} FLOPs" in str(costs)


def test_without_the_memory_nothing_is_tried(run, monkeypatch):
    monkeypatch.setattr("tinygrad_llm.training.plan.available_memory", lambda: 1000)
    monkeypatch.setattr("tinygrad_llm.training.plan.measure", lambda trainer: pytest.fail("it was tried"))
    made, without = run(epochs=2), run(epochs=2)
    del without.model, without.trainer
    monkeypatch.setattr(Run, "make_model", lambda run: pytest.fail("a model was made"))
    costs = plan_run(without)
    assert costs == plan_run(made)
    assert costs.speed is None
    assert costs.figures()["seconds"] is None
    assert "not measured" in str(costs)


def test_the_free_memory_is_a_number_or_not_known():
    free = available_memory()
    assert free is None or free > 1_000_000
