"""What a run will cost is what it costs: counted, and measured."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest

from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.training import ConfigError, TrainSettings
from tinygrad_llm.runs.config import DataSettings, RunConfig
from tinygrad_llm.runs.run import Run
from tinygrad_llm.runs.plan import measure_run, plan_run
from tinygrad_llm.runs import plan as plan_module
from tinygrad_llm.training.memory import memory, readable
from tinygrad_llm.runs.plan import Speed, flops, parameters_by_part

TINY = GPTConfig(vocab_size=11, block_size=6, n_layer=2, n_head=2, n_embd=8)
TINY_OF_TEXT = dataclasses.replace(TINY, vocab_size=len(set("The cat sat on the mat.\n")))  # what `run` makes
SETTINGS = TrainSettings(steps=3, batch_size=4, warmup=0, eval_every=99, eval_batches=1, workers=1)


class Counting(np.ndarray):
    """An array that adds up 2nkm for every matrix product (n, k)(k, m) it, or what is made of it, takes part in.

    Sums do not count, which the kernels take as products with a row or a column of ones.
    """

    operations = 0

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        plain = [x.view(np.ndarray) if isinstance(x, Counting) else x for x in inputs]
        if out is not None:
            options["out"] = tuple(x.view(np.ndarray) if isinstance(x, Counting) else x for x in out)
        result = getattr(ufunc, method)(*plain, **options)
        if ufunc is np.matmul and result.ndim > 1 and 1 not in result.shape[-2:]:
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


@pytest.fixture
def quick(monkeypatch):
    """What takes time is taken only a few times."""
    monkeypatch.setattr(plan_module, "_STEPS", 3)
    monkeypatch.setattr(plan_module, "_flops_per_second", lambda: 1e12)


@pytest.mark.parametrize("steps", [1, 5, 6, 7])
def test_the_steps_and_held_out_losses_are_those_that_follow(steps, run, monkeypatch):
    monkeypatch.setattr(plan_module, "measure", lambda run, part: Speed(2.0, 10.0, "all"))
    costs = plan_run(run(steps=steps, eval_every=3))
    assert costs.steps == steps
    assert costs.evaluations == evaluations(run(steps=steps, eval_every=3))
    assert costs.seconds is None
    assert measure_run(run(), costs).seconds == 2 * steps + 10 * costs.evaluations


@pytest.mark.parametrize("done", [2, 3, 4])
def test_of_a_run_that_is_resumed_only_the_rest_counts(done, run):
    begun = run(steps=7, eval_every=3)
    for _ in begun.trainer.run(lambda: begun.trainer.step == done):
        pass
    costs = plan_run(begun)
    assert costs.steps == 7 - done
    assert costs.evaluations == evaluations(begun)


@pytest.mark.usefixtures("quick")
def test_a_plan_writes_nothing_and_leaves_the_run_as_it_is(run, tmp_path):
    planned, other = run(accumulation=2, lr=1e-2), run(accumulation=2, lr=1e-2)
    costs = measure_run(planned, plan_run(planned))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt"]
    losses = [[step.loss for step in each.trainer.run()] for each in (planned, other)]
    assert losses[0] == losses[1]  # batches, weights and random states are as they were
    assert costs.tokens == 4 * 6 * 2
    assert costs.speed.step > 0
    assert costs.speed.measured == "3 steps with 4 sequences"
    figures = json.loads(json.dumps(costs.figures(), allow_nan=False))
    assert figures["memory"]["peak"] == costs.memory.peak == sum(dataclasses.astuple(costs.memory))
    assert f"{costs.flops:.4g} FLOPs" in costs.sizes
    assert "3 steps with 4 sequences" in costs.time


@pytest.mark.usefixtures("quick")
def test_a_plan_needs_no_model_and_makes_none_for_the_run(run):
    made, without = run(epochs=2), run(epochs=2)
    del without.model, without.trainer
    without.config = dataclasses.replace(without.config, training=dataclasses.replace(SETTINGS, epochs=2))
    costs = plan_run(without)
    assert dataclasses.replace(costs, available=None) == dataclasses.replace(plan_run(made), available=None)
    assert measure_run(without, costs).seconds > 0
    assert not hasattr(without, "model")


@pytest.mark.parametrize(
    ("rows", "measured"),
    [(0.1, "1 of 4 sequences, and scaled"), (2.5, "2 of 4 sequences, and scaled"), (99, "with 4 sequences")],
)
def test_what_takes_long_is_measured_by_a_part(rows, measured, run, monkeypatch):
    planned = run(accumulation=2)
    costs = plan_run(planned)
    monkeypatch.setattr(plan_module, "_STEPS", 2)
    monkeypatch.setattr(plan_module, "_SECONDS", 1000.0)
    monkeypatch.setattr(plan_module, "_flops_per_second", lambda: rows / 1000 * costs.flops / (2 * 4))
    assert measured in measure_run(planned, costs).time


def test_the_time_of_a_part_is_scaled(run, monkeypatch):
    clock = iter(range(1_000_000))
    monkeypatch.setattr(plan_module, "_STEPS", 3)
    monkeypatch.setattr(plan_module.time, "perf_counter", lambda: float(next(clock)))  # a second from look to look
    planned = run(accumulation=3)
    assert plan_module.measure(planned, 4).step == 3 * (plan_module.measure(planned, 1).step - 1) / 12 + 1


@pytest.mark.usefixtures("quick")
def test_with_little_memory_one_sequence_is_measured_and_with_less_nothing(run, monkeypatch):
    planned = run()
    whole, one = (memory(TINY_OF_TEXT, SETTINGS, rows).peak for rows in (4, 1))
    for free, measured in ((whole, "with 4 sequences"), (whole - 1, "1 of 4 sequences, and scaled")):
        monkeypatch.setattr(plan_module, "available_memory", lambda free=free: free)
        assert measured in measure_run(planned, plan_run(planned)).time
    for place in ("runs.plan", "training.memory"):
        monkeypatch.setattr(f"tinygrad_llm.{place}.available_memory", lambda: one // 2)
    monkeypatch.setattr(plan_module, "measure", lambda run, part: pytest.fail("it was tried"))
    costs = measure_run(planned, plan_run(planned))
    assert costs.speed is None
    assert costs.figures()["seconds"] is None
    assert "not measured" in costs.time


@pytest.mark.parametrize(("batch_size", "made"), [(64, False), (1, True)])
def test_memory_at_its_highest_says_where_no_gradient_is_made_yet(batch_size, made, run):
    costs = plan_run(run(batch_size=batch_size))
    assert (costs.memory.gradients > 0) == made
    assert f"{readable(costs.memory.peak)} at its highest" in costs.sizes
    (line,) = [line for line in costs.sizes.splitlines() if line.startswith("  gradients")]
    assert line.endswith(" 0 B (none is made yet)") != made


def test_a_run_whose_ranks_do_not_fit_into_this_machine_is_refused(run, monkeypatch):
    planned = run()
    monkeypatch.setattr("tinygrad_llm.runs.run.GPT", lambda *args: pytest.fail("a model was made"))
    monkeypatch.setattr("tinygrad_llm.training.memory.processes", lambda: SimpleNamespace(size=4, here=4))
    need = memory(TINY_OF_TEXT, SETTINGS, 4).peak
    monkeypatch.setattr("tinygrad_llm.training.memory.available_memory", lambda: need // 2)
    with pytest.raises(ConfigError, match="for 4 processes"):
        planned.make_model()


def test_parameters_are_counted_however_many_layers_there_are():
    many = parameters_by_part(GPTConfig(n_layer=10**12, n_head=1, n_embd=8))
    assert many["MLP"] == 10**12 * (8 * 64 + 5 * 8)


def test_a_run_that_cannot_fit_is_refused_before_anything_is_made(run, monkeypatch):
    planned = run()
    need = memory(TINY_OF_TEXT, SETTINGS, 4).peak
    monkeypatch.setattr("tinygrad_llm.training.memory.available_memory", lambda: need // 2)
    monkeypatch.setattr("tinygrad_llm.runs.run.GPT", lambda *args: pytest.fail("a model was made"))
    with pytest.raises(ConfigError, match=r"needs .* of memory, and .* are free: make training.batch_size \(4\)"):
        planned.make_model()
