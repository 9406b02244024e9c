"""Runs that start from other weights: the weights, fresh optimizers, what must fit, and what is noted."""

import dataclasses
import shutil

import numpy as np
import pytest

from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.folder import about_run, choose_weights, load_run
from tinygrad_llm.runs.presets import load_config
from tinygrad_llm.runs.run import Run
from tinygrad_llm.runs.start import start_from, with_start
from tinygrad_llm.runs.sweep import read_sweep
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer, TokenizerError
from tinygrad_llm.training import ConfigError
from tinygrad_llm.weights import write_pretrained
from tinygrad_llm.weights.adapters import state_hash


@pytest.fixture(scope="module")
def ended(tmp_path_factory, config, text):
    """The folder of a run that has ended."""
    folder = tmp_path_factory.mktemp("ended")
    (folder / "text.txt").write_text(text, encoding="utf-8")
    run = Run.new(config.changed({"corpus": str(folder / "text.txt")}), folder / "base")
    list(run.train())
    run.save()
    return folder / "base"


@pytest.fixture
def base(ended, tmp_path):
    """A copy of it."""
    return shutil.copytree(ended, tmp_path / "base")


@pytest.fixture
def started(new, base):
    """A function: folder, changes → a new Run from the weights of `base`, with its sizes and tokenizer."""
    return lambda folder="run", **changes: new(
        folder, **{"data.init": str(base), "data.tokenizer": str(base), **changes}
    )


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], name)


def test_a_run_starts_where_the_other_one_ended_with_a_fresh_optimizer(started, base):
    run = started()
    model, _ = load_run(base)
    assert_same(run.model.state_dict(), model.state_dict())
    fresh = started("fresh", **{"data.init": ""})
    assert_same(run.trainer.optimizer.state_dict(), fresh.trainer.optimizer.state_dict())
    steps = list(run.train())
    ended = Run.resume(base, more=1).steps[-1]
    assert steps[0].val_loss == ended.val_loss  # on the same held-out text, before any update
    assert (steps[0].step, steps[-1].step) == (0, 9)
    assert [step.lr for step in steps[1:3]] == [5e-3, 1e-2]  # the warm-up begins again


def test_the_weights_are_noted_and_the_configuration_repeats_the_run(started, base, tmp_path):
    run = started()
    before = state_hash(run.model)
    losses = [step.loss for step in run.train()]
    run.save()
    assert about_run(tmp_path / "run")["init"] == {"weights": str(base), "sha256": before}
    config = load_config(tmp_path / "run" / "config.toml")
    assert config.data.init == str(base)
    again = Run.new(config, tmp_path / "again")
    assert [step.loss for step in again.train()] == losses


def test_a_resumed_run_needs_the_other_one_no_more(started, base, tmp_path):
    whole = started("whole")
    losses = [step.loss for step in whole.train()]
    run = started()
    list(run.train(lambda: run.trainer.step == 5))
    run.save()
    noted = about_run(tmp_path / "run")["init"]
    shutil.rmtree(base)
    resumed = Run.resume(tmp_path / "run")
    list(resumed.train())
    resumed.save()
    assert [step.loss for step in resumed.steps] == losses
    assert_same(resumed.model.state_dict(), whole.model.state_dict())
    assert about_run(tmp_path / "run")["init"] == noted
    with pytest.raises(TokenizerError, match="base: cannot be read"):
        Run.new(load_config(tmp_path / "run" / "config.toml"), tmp_path / "again")


def test_sizes_and_tokenizer_come_along_and_other_settings_stay(base, config):
    other = config.changed({"n_embd": 12, "block_size": 4, "lr": 0.5, "dropout": 0.3})
    found = with_start(other, {"data.init": ""}, {"init": str(base)})
    assert found.model == dataclasses.replace(load_run(base)[0].config, dropout=0.3, vocab_size=found.model.vocab_size)
    assert (found.data.tokenizer, found.training.lr) == (str(base), 0.5)
    assert with_start(other, {"lr": 1.0}) is other


def test_a_sweep_starts_from_the_sizes_of_the_weights(base, tmp_path):
    (tmp_path / "sweep.toml").write_text(f'[base]\ndata.init = "{base}"\n[grid]\ntraining.lr = [1e-3, 1e-2]\n')
    assert {trial.config.model.n_embd for trial in read_sweep(tmp_path / "sweep.toml").trials} == {8}


def test_a_smaller_block_takes_the_first_positions(started, base):
    run = started(block_size=4)
    weights, own = load_run(base)[0].state_dict(), run.model.state_dict()
    np.testing.assert_array_equal(own["transformer.wpe.weight"], weights["transformer.wpe.weight"][:4])
    assert len(list(run.train())) == 10


def test_the_newest_checkpoint_of_a_run_in_training_is_taken(new, started, tmp_path):
    run = new("other")
    for step in run.train():
        if step.step == 7:
            break
    init = {"data.init": str(tmp_path / "other"), "data.tokenizer": str(tmp_path / "other")}
    found = load_run(choose_weights(tmp_path / "other").path)[0]
    assert_same(started(**init).model.state_dict(), found.state_dict())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_embd": 12}, "base has other sizes: n_embd 8 and not 12: leave these settings out"),
        ({"n_layer": 2, "tie_weights": False}, "n_layer 1 and not 2, tie_weights True and not False: leave"),
        ({"block_size": 9}, "block_size 8, less than 9"),
        ({"positions": "rotary"}, "base has other sizes: positions absolute and not rotary: leave these settings out"),
        ({"data.tokenizer": "bpe", "vocab_size": 280}, "base has another tokenizer, of 21 tokens and not 280"),
        ({"data.init": "nowhere"}, "nowhere: no model here"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_every_difference(changes, message, started):
    with pytest.raises((ConfigError, LoadError), match=message):
        started(**changes)


def test_a_tokenizer_of_the_same_size_is_refused(started, base, tmp_path):
    CharTokenizer(load_run(base)[1].characters[::-1]).save(tmp_path / "other.json")
    with pytest.raises(ConfigError, match="base has another tokenizer, of 21 tokens and not 21, or other ones: leave"):
        started(**{"data.tokenizer": str(tmp_path / "other.json")})


def test_padded_rows_are_left_out(text, tmp_path):
    tokenizer = Tokenizer.train(text, 280)
    sizes = GPTConfig(vocab_size=-(-tokenizer.n_vocab // 64) * 64, block_size=8, n_layer=1, n_head=2, n_embd=8)
    padded = GPT(dataclasses.replace(sizes, tie_weights=False), Generator(3))
    padded.save_pretrained(tmp_path / "padded")
    model = GPT(dataclasses.replace(padded.config, vocab_size=tokenizer.n_vocab), Generator(1))
    start_from(model, str(tmp_path / "padded"), tokenizer)
    ids = np.arange(6)[None]
    np.testing.assert_allclose(model(ids).data, padded(ids).data[:, :, : tokenizer.n_vocab], rtol=1e-6, atol=1e-7)


def test_a_published_model_brings_its_tokenizer(config, quick_gpt2, gpt2, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_LLM_CACHE", str(tmp_path))
    sizes = GPTConfig(block_size=8, n_layer=1, n_head=1, n_embd=2)
    write_pretrained(tmp_path / "gpt2", sizes, GPT(sizes, Generator(0)).state_dict(), "openai")
    found = with_start(config, {"data.init": "gpt2"}).changed({"data.init": "gpt2", "corpus": "stories"})
    assert found.data.tokenizer == "gpt2"
    assert found.absolute().data.init == "gpt2"
    model = GPT(sizes, Generator(5))
    start_from(model, "gpt2", gpt2)
    assert_same(model.state_dict(), GPT(sizes, Generator(0)).state_dict())
