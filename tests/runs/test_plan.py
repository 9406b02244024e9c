"""The cost of a run before it begins: counted where that is possible, else measured."""

import dataclasses
import itertools
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest

from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runs import plan as plan_module
from tinygrad_llm.runs.config import DataSettings, RunConfig
from tinygrad_llm.runs.data import load_data
from tinygrad_llm.runs.finetune import load_examples
from tinygrad_llm.runs.plan import Plan, Speed, flops, measure_run, parameters_by_part, plan_finetuning, plan_run
from tinygrad_llm.runs.presets import PRESETS
from tinygrad_llm.runs.run import Run, load_saved
from tinygrad_llm.tokenizer import Tokenizer
from tinygrad_llm.training import ConfigError, Step, Trainer, TrainSettings
from tinygrad_llm.training.memory import Memory, memory, readable

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
def test_flops_counts_every_matrix_product(changes, monkeypatch):
    config = dataclasses.replace(TINY, **changes)
    model = GPT(config, Generator(0))
    for p in model.parameters():
        p.data = p.data.view(Counting)
    ids = np.arange(3 * config.block_size).reshape(3, -1) % config.vocab_size
    monkeypatch.setattr(Counting, "operations", 0)
    monkeypatch.setattr(np, "asarray", np.asanyarray)  # the engine takes plain arrays; here it is not to make them so
    model.loss(ids, ids).backward()
    assert Counting.operations == flops(config, ids.size)


def test_flops_of_one_layer_counted_by_hand():
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
    """A function: settings → the config and the data of a run."""
    (tmp_path / "text.txt").write_text("The cat sat on the mat.\n" * 30)

    def make(**changes):
        settings = dataclasses.replace(SETTINGS, **changes)
        config = RunConfig("", "", DataSettings(str(tmp_path / "text.txt")), TINY, settings)
        return config, load_data(config)

    return make


@pytest.fixture
def quick(monkeypatch):
    """Measuring takes three steps, and this machine is fast."""
    monkeypatch.setattr(plan_module, "_STEPS", 3)
    monkeypatch.setattr(plan_module, "_flops_per_second", lambda: 1e12)


def evaluations(steps):
    return sum(step.val_loss is not None for step in steps)


@pytest.mark.parametrize("steps", [1, 5, 6, 7])
def test_a_plan_counts_the_steps_and_evaluations_that_follow(steps, run, tmp_path, monkeypatch):
    monkeypatch.setattr(plan_module, "measure", lambda config, data, part: Speed(2.0, 10.0, "all"))
    config, data = run(steps=steps, eval_every=3)
    costs = plan_run(config, data)
    assert costs.steps == steps
    assert costs.evaluations == evaluations(Run.new(config, tmp_path / "new", data).trainer.run())
    assert costs.seconds is None
    measured = measure_run(config, data, costs)
    assert measured.seconds == 2 * steps + 10 * costs.evaluations
    words = dataclasses.replace(measured, tokens=4000, flops=6_000_000_000).time.split()
    assert words[1:7] == ["2,000", "tokens/s,", "from", "all", "3.0", "GFLOP/s"]


@pytest.mark.parametrize("done", [2, 3, 4])
def test_the_plan_of_a_resumed_run_counts_only_the_rest(done, run, tmp_path):
    config, data = run(steps=7, eval_every=3)
    begun = Run.new(config, tmp_path / "new", data)
    list(begun.train(lambda: begun.trainer.step == done))
    begun.save()
    saved = load_saved(tmp_path / "new")
    costs = plan_run(saved.config, saved.data, saved.step)
    assert costs.steps == 7 - done
    assert costs.evaluations == evaluations(Run.resume(tmp_path / "new").train())


@pytest.mark.usefixtures("quick")
def test_a_plan_writes_nothing_and_has_figures_and_words(run, tmp_path):
    config, data = run(accumulation=2)
    costs = measure_run(config, data, plan_run(config, data))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["text.txt"]
    assert costs.tokens == 4 * 6 * 2
    assert costs.speed.step > 0
    assert costs.speed.measured == "3 steps with 4 sequences"
    figures = json.loads(json.dumps(costs.figures(), allow_nan=False))
    assert figures["memory"]["peak"] == costs.memory.peak == sum(dataclasses.astuple(costs.memory))
    assert f"{costs.flops:.4g} FLOPs" in costs.sizes
    assert "3 steps with 4 sequences" in costs.time


def test_a_plan_has_each_figure_in_its_place():
    costs = Memory(*(10**6 * i for i in range(1, 1 + len(dataclasses.fields(Memory)))))
    plan = Plan({"head": 7, "MLP": 5}, 11, 80, 4 * 10**9, costs, 9 * 10**9, 30, 4, Speed(0.5, 2.0, "3 steps"))
    assert plan.figures() == {
        "parameters": {"head": 7, "MLP": 5, "all": 12, "trained": 11},
        "tokens_per_step": 80,
        "flops_per_step": 4 * 10**9,
        "flops_formula": plan_module.FLOPS_FORMULA,
        "memory": {**dataclasses.asdict(costs), "peak": costs.peak, "available": 9 * 10**9},
        "measured": "3 steps",
        "seconds_per_step": 0.5,
        "tokens_per_second": 160.0,
        "seconds_per_evaluation": 2.0,
        "steps": 30,
        "evaluations": 4,
        "seconds": 23.0,
    }
    assert [line.split() for line in plan.time.splitlines()] == [
        ["speed", "160", "tokens/s,", "from", "3", "steps"],
        ["8.0", "GFLOP/s"],
        ["time", "23", "s"],
        ["steps", "30", "of", "0.5", "s"],
        ["held-out", "4", "losses", "of", "2", "s"],
    ]


def test_epochs_are_planned_as_the_steps_that_they_take(run, tmp_path):
    config, data = run(epochs=2)
    assert plan_run(config, data).steps == Run.new(config, tmp_path / "new", data).config.training.steps > 3


@pytest.mark.parametrize(
    ("rows", "measured"),
    [(0.1, "1 of 4 sequences, and scaled"), (2.5, "2 of 4 sequences, and scaled"), (99, "with 4 sequences")],
)
def test_a_part_of_a_batch_is_measured_where_the_whole_takes_long(rows, measured, run, monkeypatch):
    config, data = run(accumulation=2)
    costs = plan_run(config, data)
    monkeypatch.setattr(plan_module, "_STEPS", 2)
    monkeypatch.setattr(plan_module, "_SECONDS", 1000.0)
    monkeypatch.setattr(plan_module, "_flops_per_second", lambda: rows / 1000 * costs.flops / (2 * 4))
    assert measured in measure_run(config, data, costs).time


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(("part", "step"), [(4, 3 * 6 + 1), (2, 3 * 12 + 1), (1, 3 * 24 + 1)])
def test_the_time_of_a_part_is_scaled_to_the_batch_and_the_update_counts_once(part, step, recompute, run, monkeypatch):
    # Of seven seconds, one is the update. Three batches of four rows make a step.
    monkeypatch.setattr(plan_module, "_time_steps", lambda model, task, settings: (7.0, 1.0, 5))
    speed = plan_module.measure(*run(accumulation=3, recompute=recompute), part)
    assert speed.step == step
    if part < 4:  # not measured: forward is a third of the six seconds, or a quarter where there are two of them
        assert speed.evaluation == pytest.approx(6 / part / (4 if recompute else 3) * 4)


@pytest.mark.parametrize(
    ("seconds", "batch", "steps"),
    [
        ([9.0, 1.0], 9.0, 1),  # the first step counts only where it is alone
        ([1.0, 0.5, 0.25, 0.75, 2.0, 1.0], 0.625, 5),  # three seconds are over
        ([0.125] * 30, 0.125, 20),
    ],
)
def test_steps_are_timed_for_three_seconds_or_twenty_steps(seconds, batch, steps, run, monkeypatch):
    now = [0.0]

    def take_steps(trainer, stop):
        assert trainer.settings.accumulation == 1
        yield Step(0, 1.0, 0.0, 0.0, 0.0, 1.0)
        for number, passing in enumerate(seconds, 1):
            if stop():
                return
            now[0] += passing
            yield Step(number, 1.0, 0.0, 1.0, 1.0, None)

    def clip(parameters, most):
        now[0] += 0.0625  # the update

    monkeypatch.setattr(plan_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(plan_module.Trainer, "run", take_steps)
    monkeypatch.setattr(plan_module, "clip_grad_norm_", clip)
    config, data = run(accumulation=4)  # a batch is timed, not a step
    model = GPT(TINY_OF_TEXT, Generator(0))
    task = plan_module.make_task(config, data, plan_module.make_batches(config, data, Generator(0)))
    for p in model.parameters():
        p.grad = np.zeros_like(p.data)
    assert plan_module._time_steps(model, task, config.training) == (batch, 0.0625, steps)


@pytest.mark.usefixtures("quick")
def test_with_little_memory_one_sequence_is_measured_and_with_less_none(run, monkeypatch):
    config, data = run()
    whole, one = (memory(TINY_OF_TEXT, SETTINGS, rows).peak for rows in (4, 1))
    for free, measured in ((whole, "with 4 sequences"), (whole - 1, "1 of 4 sequences, and scaled")):
        monkeypatch.setattr(plan_module, "available_memory", lambda free=free: free)
        assert measured in measure_run(config, data, plan_run(config, data)).time
    for place in ("runs.plan", "training.memory"):
        monkeypatch.setattr(f"tinygrad_llm.{place}.available_memory", lambda: one // 2)
    monkeypatch.setattr(plan_module, "measure", lambda *args: pytest.fail("it was tried"))
    costs = measure_run(config, data, plan_run(config, data))
    assert costs.speed is None
    assert costs.figures()["seconds"] is None
    assert "not measured" in costs.time


@pytest.mark.parametrize(("batch_size", "made"), [(64, False), (1, True)])
def test_the_peak_of_memory_shows_where_no_gradient_exists_yet(batch_size, made, run):
    costs = plan_run(*run(batch_size=batch_size))
    assert (costs.memory.gradients > 0) == made
    assert f"{readable(costs.memory.peak)} at its peak" in costs.sizes
    (line,) = [line for line in costs.sizes.splitlines() if line.startswith("  gradients")]
    assert line.endswith(" 0 B (none exists yet)") != made


@pytest.mark.parametrize("number", [1, 4])
def test_a_run_that_cannot_fit_into_memory_is_refused_before_a_model_is_made(number, run, tmp_path, monkeypatch):
    config, data = run()
    monkeypatch.setattr("tinygrad_llm.training.memory.processes", lambda: SimpleNamespace(size=number, here=number))
    need = memory(TINY_OF_TEXT, SETTINGS, 4).peak
    monkeypatch.setattr("tinygrad_llm.training.memory.available_memory", lambda: need // 2)
    monkeypatch.setattr("tinygrad_llm.runs.data.GPT", lambda *args, **options: pytest.fail("a model was made"))
    what = r"needs .* of memory, and .* are free: make training.batch_size \(4\)" if number == 1 else "for 4 processes"
    with pytest.raises(ConfigError, match=what):
        Run.new(config, tmp_path / "new", data)


def test_counting_parameters_takes_no_time_for_many_layers():
    many = parameters_by_part(GPTConfig(n_layer=10**12, n_head=1, n_embd=8))
    assert many["MLP"] == 10**12 * (8 * 64 + 5 * 8)


# ---- fine-tuning -----------------------------------------------------------------------------------------------------

TASKS = {"classifier": "messages", "assistant": "instructions", "preference": "preferences"}
LAYERS = ("all", "last", "lora")


@pytest.fixture
def tuning(tmp_path):
    """A function: task, sizes, settings → the config of a fine-tuning of a new base on the bundled examples."""

    def make(task, sizes, **changes):
        tokenizer = Tokenizer.train("Say the plural of a word, or the sum of two numbers.\n" * 3, 300)
        if sizes.tie_weights:  # else the head may have more rows than there are tokens
            sizes = dataclasses.replace(sizes, vocab_size=tokenizer.n_vocab)
        GPT(sizes, Generator(0)).save_pretrained(tmp_path / "base")
        tokenizer.save(tmp_path / "base" / "tokenizer.json")
        named = {"finetune.task": task, "finetune.base": str(tmp_path / "base"), "finetune.data": TASKS[task]}
        fixed = {"finetune.style": "plain", "training.workers": 1, "training.eval_batches": 1, "training.warmup": 0}
        return PRESETS[task].changed(named | fixed | changes)

    return make


WIDE = GPTConfig(block_size=256, n_layer=1, n_head=1, n_embd=8)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(("task", "layers"), [("classifier", "lora"), ("assistant", "last"), ("preference", "all")])
def test_a_plan_of_fine_tuning_counts_what_is_trained_and_writes_nothing(
    task, layers, tuning, tmp_path, contents, monkeypatch
):
    config = tuning(task, WIDE, **{"finetune.layers": layers, "training.epochs": 0, "training.steps": 7})
    config = config.changed({"training.eval_every": 3})
    before = contents(tmp_path)
    calls = []
    monkeypatch.setattr(plan_module, "memory", lambda *args: (calls.append(args), memory(*args))[1])
    costs = plan_finetuning(config, load_examples(config))
    assert calls[0][-1] == (task != "classifier"), "only a classifier computes no logits for each token"
    assert contents(tmp_path) == before
    run = Run.new(config, tmp_path / "new")
    assert costs.trained == sum(p.data.size for p in run.model.parameters() if p.requires_grad)
    assert sum(costs.parameters.values()) == run.model.num_parameters()
    assert ("adapters" in costs.parameters) == (layers == "lora")
    assert (costs.steps, costs.evaluations) == (7, 4)
    assert costs.seconds > 0
    figures = json.loads(json.dumps(costs.figures(), allow_nan=False))
    assert figures["parameters"]["trained"] == costs.trained
    assert figures["flops_per_step"] is figures["flops_formula"] is None
    trained = {name for name, p in run.model.named_parameters() if p.requires_grad}
    others = trained - {name for name, _ in run.data.base.config.shapes()}
    assert set(calls[0][4]) == {re.sub(r"\.lora_.*", ".weight", name) for name in others}
    assert (f"trained       {costs.trained:>15,} of them" in costs.sizes) == (layers != "all")
    texts = sum(map(len, (run.data.training["lengths"], run.data.held_out["lengths"])))
    longest = int(run.data.training["lengths"].max())
    size = config.training.batch_size * (2 if task == "preference" else 1)
    assert 0 < costs.tokens <= size * longest < size * texts
    monkeypatch.setattr(plan_module, "_measure_part", lambda *args: None)
    more = config.changed({"training.accumulation": 3})
    assert plan_finetuning(more, load_examples(more)).tokens == 3 * costs.tokens


TIED = GPTConfig(block_size=256, n_layer=4, n_head=4, n_embd=128)
# A large head of its own: the logits are most of the memory, and LoRA adapts it. A classifier computes none.
UNTIED = GPTConfig(1024, block_size=256, n_layer=2, n_head=2, n_embd=32, tie_weights=False)
WAYS = [*itertools.product(TASKS, LAYERS, [TIED]), ("classifier", "lora", UNTIED), ("assistant", "lora", UNTIED)]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "layers", "sizes"), WAYS)
def test_the_memory_of_fine_tuning_is_near_the_measured_peak(task, layers, sizes, tuning, peak_memory, monkeypatch):
    monkeypatch.setattr(plan_module, "_measure_part", lambda *args: None)
    monkeypatch.setattr(plan_module, "_BATCHES", 6)  # of the steps that are taken: the widest decides
    config = tuning(task, sizes, **{"finetune.layers": layers, "training.batch_size": 8, "training.epochs": 0})
    config = config.changed({"training.steps": 6, "training.eval_every": 6})
    found = plan_finetuning(config, load_examples(config)).memory
    data, rng = load_examples(config), Generator(config.training.seed)
    task, _ = data.make_task(config, rng)
    model = data.make_model(config, rng, task.batch_size)
    own = found.peak - found.parameters  # the model was made before
    # Measured once, as a rule: the batches of a second training are others, and not as wide.
    peak = peak_memory(lambda: list(Trainer(model, task, config.training).run()), own / 0.85)
    assert own == pytest.approx(peak, rel=0.15)
