"""training.recompute: the same run, to the last bit, in less memory."""

import tracemalloc

import numpy as np
import pytest

from tinygrad_llm.autograd import grad
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.config import DataSettings, RunConfig, read_toml
from tinygrad_llm.runs.folder import CONFIG
from tinygrad_llm.runs.plan import plan_run
from tinygrad_llm.runs.run import Run
from tinygrad_llm.training import TrainSettings

TEXT = "The cat sat on the mat, und die Katze saß dort.\n" * 12


@pytest.fixture
def new(tmp_path):
    """A function: folder, changes → a new Run on TEXT, with its model."""
    (tmp_path / "text.txt").write_text(TEXT, encoding="utf-8")

    def make(folder, **changes):
        config = RunConfig(
            data=DataSettings(str(tmp_path / "text.txt"), tokenizer="char"),
            model=GPTConfig(n_layer=2, n_head=2, n_embd=8, block_size=8, dropout=0.2),
            training=TrainSettings(steps=4, batch_size=4, lr=1e-2, warmup=1, eval_every=2, eval_batches=2, workers=1),
        )
        return Run.new(config.changed(changes), tmp_path / folder)

    return make


def end_of(run):
    """All that a run comes to: losses and norms, weights, the optimizer's arrays."""
    steps = [(step.loss, step.grad_norm, step.val_loss) for step in run.train()]
    return steps, {name: array.tobytes() for name, array in run.trainer.get_state()[0].items()}


@pytest.mark.parametrize("changes", [{}, {"dropout": 0.0, "workers": 2}], ids=["dropout", "two workers"])
def test_the_run_is_the_same_to_the_last_bit(changes, new):
    assert new("one", recompute=True, **changes).model.recompute
    assert end_of(new("one", recompute=True, **changes)) == end_of(new("two", **changes))


@pytest.mark.parametrize("recompute", [False, True])
def test_a_run_may_be_resumed_with_it_or_without(recompute, new):
    whole = end_of(new("whole"))
    run = new("parts", recompute=not recompute)
    first = [(s.loss, s.grad_norm, s.val_loss) for s in run.train(lambda: run.trainer.step >= 2)]
    run.save()
    run = Run.resume(run.folder.path, {"training.recompute": recompute})
    assert run.model.recompute is recompute
    steps, arrays = end_of(run)
    assert (first + steps, arrays) == whole
    run.save()
    assert read_toml(run.folder.path / CONFIG)["training.recompute"] is recompute


def test_a_plan_knows_of_it(new):
    runs = [new(str(on), recompute=on, dropout=0.0) for on in (True, False)]
    less, more = (plan_run(run.config, run.data).memory for run in runs)
    assert less.activations < more.activations


def peak_of_a_step(config):
    """The most that a gradient of one sequence takes, beside the model."""
    model = GPT(config, Generator(0), recompute=True)
    ids = np.arange(config.block_size)[None] % config.vocab_size
    tracemalloc.start()
    try:
        grad(model.loss(ids, ids), list(model.parameters()))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_a_long_text_takes_no_memory_that_is_quadratic_in_its_length():
    baby = {"vocab_size": 65, "n_layer": 6, "n_head": 6, "n_embd": 384}
    peaks = [peak_of_a_step(GPTConfig(block_size=T, **baby)) for T in (512, 1024, 2048)]
    # Twice as much for twice as many tokens more: a part that is quadratic would make it up to four times.
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.1)
    weights = 6 * 6 * 2048 * 2048 * 4  # bytes of attention weights that the blocks would keep
    assert peaks[2] < weights / 3
