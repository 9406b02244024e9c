"""Stopped and resumed, a run is bit for bit what it would have been; a resume that could not be that is refused."""

import dataclasses
import functools
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm.datasets import BatchStream, encode_file
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.optim import SCHEDULES
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.config import MAY_CHANGE
from tinygrad_llm.runs.metrics import read_metrics, read_samples
from tinygrad_llm.runs.presets import load_config
from tinygrad_llm.runs.run import DamagedRunWarning, Run
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.storage.lock import LOCK, InUseError, lock
from tinygrad_llm.tokenizer import CharTokenizer
from tinygrad_llm.training import ConfigError, LanguageModeling, Trainer, TrainingError, held_out_windows

KINDS = {
    "one worker, dropout": {},
    "two workers": {"workers": 2},
    "two workers, quick masks": {"workers": 2, "masks": "quick", "accumulation": 2},
    "random windows": {"order": "random"},
    "three batches a step": {"accumulation": 3},
    "sgd": {"optimizer": "sgd", "momentum": 0.9},
    "adam, linear": {"optimizer": "adam", "schedule": "linear"},
    "muon": {"optimizer": "muon", "workers": 2},
    "several epochs": {"stride": 32},  # 17 windows: four batches and a rest
}


def finish(run):
    return [quiet(step) for step in run.train()]


def quiet(step):
    return dataclasses.replace(step, tokens_per_second=0.0)  # which differs each time


def stop_after(run, steps):
    """Train that many steps, and save as Ctrl-C does."""
    for step in run.train(lambda: run.trainer.step >= steps):
        assert step.step <= steps
    run.save()


def state(trainer):
    arrays, numbers = trainer.get_state()
    return {name: array.copy() for name, array in arrays.items()}, numbers


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory, config, text):
    """A function: changes → the steps and the state of a run that is not stopped. Each is trained once."""
    folder = tmp_path_factory.mktemp("never stopped")
    (folder / "text.txt").write_text(text, encoding="utf-8")
    trained = {}

    def train(**changes):
        key = repr(changes)
        if key not in trained:
            run = Run.new(config.changed({"corpus": str(folder / "text.txt"), **changes}), folder / str(len(trained)))
            trained[key] = finish(run), state(run.trainer)
        return trained[key]

    return train


@pytest.fixture(scope="module")
def stopped_once(tmp_path_factory, config, text):
    """A function: steps → the folder of a run that was stopped after so many. Each is trained once."""
    folder = tmp_path_factory.mktemp("stopped")
    (folder / "text.txt").write_text(text, encoding="utf-8")

    @functools.cache
    def train(steps):
        stop_after(Run.new(config.changed({"corpus": str(folder / "text.txt")}), folder / str(steps)), steps)
        return folder / str(steps)

    return train


@pytest.fixture
def stopped(stopped_once, tmp_path):
    """A function: steps → a copy of such a folder, "run" in tmp_path."""
    return lambda steps: shutil.copytree(stopped_once(steps), tmp_path / "run")


def assert_same_state(one, other):
    (arrays, numbers), (other_arrays, other_numbers) = one, other
    assert numbers == other_numbers
    assert arrays.keys() == other_arrays.keys()
    for name in arrays:
        np.testing.assert_array_equal(arrays[name], other_arrays[name], name)


# ---- bit for bit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_stopped_and_resumed_is_the_same_as_never_stopped(kind, never_stopped, new, tmp_path):
    losses, end = never_stopped(**KINDS[kind])
    # Parameters, optimizer, losses, random states, the place in the data and in an accumulation.
    names = {name.partition(".")[0] for name in end[0]}
    assert names == {"model", "optimizer", "random", "losses"}
    run = new("parts", **KINDS[kind])
    for stop in (1, 6):
        stop_after(run, stop)
        run = Run.resume(tmp_path / "parts")
        assert run.trainer.step == stop
    finish(run)
    assert [quiet(step) for step in run.steps] == losses
    assert_same_state(end, state(run.trainer))


def test_the_files_of_a_resumed_run_are_those_of_one_that_never_stopped(new, tmp_path):
    whole, parts = new("whole"), new("parts")
    finish(whole)
    whole.save()
    stop_after(parts, 5)
    resumed = Run.resume(tmp_path / "parts")
    finish(resumed)
    resumed.save()
    for name in ("model.safetensors", "tokenizer.json", "config.toml", "run.json"):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes(), name
    kept = [sorted(path.name for path in (tmp_path / run / "checkpoints").iterdir()) for run in ("whole", "parts")]
    assert kept[0][-2:] == kept[1][-2:]


@pytest.mark.parametrize("taken", [1, 2])
def test_stopped_in_the_middle_of_an_accumulation(taken, never_stopped, new, tmp_path):
    losses, end = never_stopped(accumulation=3)
    parts = new("parts", accumulation=3)
    micro = iter(range(100))
    list(parts.train(lambda: next(micro) == 3 * 2 + taken))
    parts.save()
    assert (parts.trainer.step, parts.trainer.micro_batches) == (2, taken)
    resumed = Run.resume(tmp_path / "parts")
    assert (resumed.trainer.step, resumed.trainer.micro_batches) == (2, taken)
    assert_same_state(state(parts.trainer), state(resumed.trainer))
    finish(resumed)
    assert [quiet(step) for step in resumed.steps] == losses
    assert_same_state(end, state(resumed.trainer))


@pytest.mark.parametrize("changes", [{}, {"epochs": 1, "stride": 16, "accumulation": 2}], ids=["steps", "epochs"])
def test_more_steps_than_were_configured(changes, new, tmp_path):
    run = new("run", **changes)
    finish(run)
    run.save()
    done = run.trainer.step
    assert done == (4 if changes else 9)
    resumed = Run.resume(tmp_path / "run", more=3)
    assert [step.step for step in finish(resumed)] == [done + 1, done + 2, done + 3]
    assert [step.step for step in resumed.steps] == list(range(done + 4))


def repeated(tmp_path):
    """A new run by the configuration of the run in "run", trained to its end."""
    again = Run.new(load_config(tmp_path / "run" / "config.toml"), tmp_path / "again")
    finish(again)
    return again


@pytest.mark.parametrize(("stops", "schedule"), [
    ([], "linear"),
    ([3, 7], "cosine"),
    *(pytest.param(stops, schedule, marks=pytest.mark.slow) for stops, schedule in [
        ([], "cosine"), ([5], "cosine"), ([5], "linear"), ([3, 7], "linear"),
    ]),
])  # fmt: skip
def test_the_configuration_of_an_extended_run_repeats_it(stops, schedule, new, tmp_path):
    run, horizons = new("run", schedule=schedule), [9]
    for stop in stops:  # each time four steps more from there
        stop_after(run, stop)
        run = Run.resume(tmp_path / "run", more=4)
        horizons.append(stop + 4)
    finish(run)
    run.save()
    extended = Run.resume(tmp_path / "run", more=3)
    finish(extended)
    extended.save()
    ends = [*stops, horizons[-1], horizons[-1] + 3]
    horizons.append(horizons[-1] + 3)
    expected = []
    for end, steps in zip(ends, horizons, strict=True):  # up to this step, the schedule was one of so many
        options = {"steps": steps, "lr": 1e-2, "min_lr": 1e-3, "warmup": 2}
        expected += [SCHEDULES[schedule](step, **options) for step in range(len(expected), end)]
    assert [step.lr for step in extended.steps[1:]] == expected
    again = repeated(tmp_path)
    assert [(step.loss, step.lr) for step in again.steps] == [(step.loss, step.lr) for step in extended.steps]
    assert_same_state(state(again.trainer), state(extended.trainer))
    again.save()
    assert load_config(tmp_path / "again" / "config.toml") == load_config(tmp_path / "run" / "config.toml")


def test_an_extension_from_an_earlier_checkpoint_is_repeated(stopped, tmp_path):
    stopped(6)
    (tmp_path / "run" / "checkpoints" / "step-00000006.ckpt.safetensors").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="step-00000006"):
        extended = Run.resume(tmp_path / "run", more=8)
    finish(extended)
    extended.save()
    assert extended.config.training.extended == ((4, 9),)
    assert_same_state(state(repeated(tmp_path).trainer), state(extended.trainer))


def test_as_many_steps_as_before_are_not_an_extension(stopped, tmp_path):
    stopped(5)
    assert Run.resume(tmp_path / "run", more=4).config.training.extended == ()


def test_an_extension_before_the_first_step_is_a_run_of_that_many_steps(stopped, tmp_path):
    stopped(0)
    assert Run.resume(tmp_path / "run", more=5).config.training.extended == ()


def test_an_extension_that_ends_in_the_warmup_is_refused(new, tmp_path):
    stop_after(new("run", **{"training.warmup": 8}), 4)
    with pytest.raises(ConfigError, match=r"step 4 is within the warm-up of 8 steps: give --steps of at least 4$"):
        Run.resume(tmp_path / "run", more=3)
    assert Run.resume(tmp_path / "run", more=4).config.training.steps == 8


def test_a_second_extension_at_the_same_step_replaces_the_first(stopped, tmp_path):
    stopped(4)
    for more in (3, 5):
        resumed = Run.resume(tmp_path / "run", more=more)
        assert resumed.config.training.extended == ((4, 9),)
        assert resumed.config.training.steps == 4 + more
        resumed.save()


def test_another_number_of_steps_on_the_command_line_is_one_schedule(config):
    assert config.changed({"extended": [[3, 5]]}).fitted({"steps": 7}).training.extended == ()


def test_metrics_and_samples_after_the_checkpoint_are_removed_by_a_resume(new, tmp_path):
    run = new("run")
    for step in run.train():  # killed after step 7: the last checkpoint is of step 4
        if step.val_loss is not None:
            run.sample(5)
        if step.step == 7:
            break
    path = tmp_path / "run" / "metrics.jsonl"
    assert [step.step for step in read_metrics(path)] == list(range(8))
    with open(path, "a") as file:
        file.write('{"step": 8, "lo')  # cut off while it was written
    resumed = Run.resume(tmp_path / "run")
    assert [step.step for step in resumed.steps] == list(range(5))
    assert [step for step, _ in resumed.samples] == [0, 4]
    finish(resumed)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(10))
    resumed.save()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == list(range(10))


def test_a_sample_is_not_lost_between_a_checkpoint_and_the_next_step(new, tmp_path, monkeypatch):
    whole = new("whole")
    list(whole.train(sample=5))
    whole.save()
    for moment in ("before", "after"):
        run = new(moment)
        save = run.folder.checkpoints.save

        def killed(step, *arguments, save=save, moment=moment):
            if moment == "after" or step < 4:
                save(step, *arguments)
            if step == 4:
                raise KeyboardInterrupt

        monkeypatch.setattr(run.folder.checkpoints, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            list(run.train(sample=5))
        resumed = Run.resume(tmp_path / moment)
        assert resumed.trainer.step == (4 if moment == "after" else 0)
        list(resumed.train(sample=5))
        resumed.save()
        assert (tmp_path / moment / "samples.txt").read_bytes() == (tmp_path / "whole" / "samples.txt").read_bytes()


# ---- damaged files ---------------------------------------------------------------------------------------------


def damage_metrics(path, how):
    """Returns the steps that the file lost."""
    lines = path.read_text().splitlines(keepends=True)
    if how == "emptied":
        path.write_text("")
        return list(range(len(lines)))
    if how == "removed":
        path.unlink()
        return list(range(len(lines)))
    if how == "its beginning is gone":
        path.write_text("".join(lines[3:]))
        return [0, 1, 2]
    if how == "cut off":
        path.write_text("".join(lines[:3])[:-20])
        return list(range(2, len(lines)))
    if how == "bytes are not text":
        path.write_bytes("".join(lines[:2]).encode() + b"\xff\xfe\n" + "".join(lines[3:]).encode())
        return [2]
    assert how == "a number is wrong"
    path.write_text("".join([*lines[:2], lines[2].replace('"step": 2', '"step": 5'), *lines[3:]]))
    return [2]


DAMAGES = ["emptied", "removed", "its beginning is gone", "cut off", "bytes are not text", "a number is wrong"]


@pytest.mark.parametrize(("table", "how"), [
    *((True, how) for how in DAMAGES),
    *((False, how) for how in ("emptied", "cut off")),
    *(pytest.param(False, how, marks=pytest.mark.slow) for how in DAMAGES if how not in ("emptied", "cut off")),
])  # fmt: skip
def test_damaged_metrics_are_named_kept_and_restored_from_the_table(table, how, never_stopped, stopped, tmp_path):
    losses, _ = never_stopped()
    stopped(6)
    folder = tmp_path / "run"
    if not table:
        (folder / "metrics.csv").unlink()
    lost = damage_metrics(folder / "metrics.jsonl", how)
    damaged = None if how == "removed" else (folder / "metrics.jsonl").read_bytes()
    with pytest.warns(DamagedRunWarning) as caught:
        resumed = Run.resume(folder)
    said = str(caught[0].message)
    assert f"run/metrics.jsonl: damaged: {len(lost)} of 7 steps are missing, the first is {lost[0]}" in said
    assert ("restored from metrics.csv" in said) == table
    assert (f"; {len(lost)} are lost" in said) == (not table)
    finish(resumed)
    resumed.save()
    assert [quiet(step) for step in resumed.steps] == [s for s in losses if table or s.step not in lost]
    assert read_metrics(folder / "metrics.jsonl") == resumed.steps
    assert len((folder / "metrics.csv").read_text().splitlines()) == 1 + len(resumed.steps)
    kept = folder / "metrics.jsonl.damaged"
    assert (kept.read_bytes() if kept.exists() else None) == damaged
    again = Run.resume(folder, more=1)  # what is lost is known
    finish(again)
    again.save()
    assert len(again.steps) == len(resumed.steps) + 1
    assert not (folder / "metrics.jsonl.damaged-2").exists()


def test_every_figure_is_restored_from_the_table(new, tmp_path):
    run = new("run")
    finish(run)
    run.save()
    (tmp_path / "run" / "metrics.jsonl").unlink()
    with pytest.warns(DamagedRunWarning, match=r"10 of them were restored from metrics\.csv"):
        resumed = Run.resume(tmp_path / "run", more=1)
    assert resumed.steps == run.steps  # also tokens per second, and the figures of each layer
    assert resumed.steps[-1].layer_grad_norm


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda old: b"\xff" + old[1:], ": 1 of 2 samples are missing"),
        (lambda old: b"", ": 2 of 2 samples are missing"),
        (lambda old: None, ": 2 of 2 samples are missing"),
        (lambda old: old[: len(old) // 2], ": 1 of 2 samples are missing"),
        (lambda old: old[:-3] + b"?" + old[-2:], ""),
        (lambda old: b"a note\n" + old, ""),
    ],
)
def test_damaged_samples_are_named_and_kept(new, tmp_path, damage, words):
    run = new("run")
    list(run.train(lambda: run.trainer.step == 6, sample=5))
    run.save()
    path = tmp_path / "run" / "samples.txt"
    old = path.read_bytes()
    damaged = damage(old)
    path.unlink()
    if damaged is not None:
        path.write_bytes(damaged)
    with pytest.warns(DamagedRunWarning, match=rf"run/samples\.txt: damaged{words}; the old file is kept"):
        resumed = Run.resume(tmp_path / "run")
    finish(resumed)
    resumed.save()
    kept = path.with_name("samples.txt.damaged")
    assert (kept.read_bytes() if kept.exists() else None) == damaged
    finish(Run.resume(tmp_path / "run", more=1))  # what is lost is known


def test_samples_after_a_checkpoint_are_no_damage(new, tmp_path):
    run = new("run")
    for step in run.train(sample=5):
        run.sample(5)
        if step.step == 7:
            break
    run.folder.release()
    Run.resume(tmp_path / "run").folder.release()


def test_a_configuration_that_is_cut_off_anywhere_is_named_and_restored(new, tmp_path):
    stop_after(new("run", seed=34), 4)
    path = tmp_path / "run" / "config.toml"
    text = path.read_text()
    whole = load_config(path)
    for length in (*range(0, len(text), 307), text.index("seed = 34") + len("seed = 3")):
        path.write_text(text[:length])
        with pytest.warns(DamagedRunWarning, match=r"run/config\.toml: damaged: .*; the settings are .* step 4"):
            resumed = Run.resume(tmp_path / "run")
        assert resumed.config.absolute() == whole
        resumed.folder.release()
    finish(resumed)
    resumed.save()
    assert load_config(path) == whole
    assert path.with_name("config.toml.damaged").read_text() == text[:length]


# ---- a folder that is gone -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gone", "moment"), [
    *((gone, 3) for gone in ("removed", "renamed", "metrics.jsonl", "checkpoints")),
    ("removed", 9),
    *(pytest.param(gone, 9, marks=pytest.mark.slow) for gone in ("renamed", "metrics.jsonl", "checkpoints")),
])  # fmt: skip
def test_a_folder_that_is_removed_during_training_is_written_again(gone, moment, never_stopped, new, tmp_path):
    losses, end = never_stopped()
    run, folder = new("run"), tmp_path / "run"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in run.train(sample=5):
            if step.step == moment:
                if gone == "renamed":
                    folder.rename(tmp_path / "moved")
                elif gone == "metrics.jsonl":
                    (folder / gone).unlink()
                else:
                    shutil.rmtree(folder if gone == "removed" else folder / gone)
        run.save()
    said = [str(warning.message) for warning in caught]
    if gone == "checkpoints":
        assert not said
    else:
        what = "run/metrics.jsonl: was removed" if gone == "metrics.jsonl" else "run: was removed or renamed"
        assert len(said) == 1
        assert f"{what} during training: the run, with all its steps so far, is written again to {folder}" in said[0]
    assert not (folder / LOCK).exists()
    assert [quiet(step) for step in read_metrics(folder / "metrics.jsonl")] == losses
    assert [step for step, _ in read_samples(folder / "samples.txt", 9)[0]] == [0, 4, 8, 9]
    resumed = Run.resume(folder, more=1)
    assert resumed.trainer.step == 9
    assert_same_state(end, state(resumed.trainer))


def test_another_run_in_the_place_of_a_removed_one_is_left_alone(new, tmp_path, contents):
    run, folder = new("run"), tmp_path / "run"
    training = run.train()
    for _ in range(4):
        next(training)
    shutil.rmtree(folder)
    other = new("run", seed=8)
    others = other.train()
    next(others)
    before = contents(folder)
    with pytest.warns(DamagedRunWarning, match=r"is written again to .*run-stopped$"):
        list(training)
    run.save()
    assert contents(folder) == before
    assert run.folder.path == tmp_path / "run-stopped"
    assert [step.step for step in read_metrics(tmp_path / "run-stopped" / "metrics.jsonl")] == list(range(10))
    list(others)  # still locked, and undisturbed
    other.save()
    assert load_config(folder / "config.toml").training.seed == 8


def test_the_last_two_checkpoints_and_the_best_stay(new, tmp_path):
    run = new("run", checkpoint_every=2, steps=9)
    finish(run)
    run.save()
    steps = sorted(int(path.name[5:13]) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert steps[-2:] == [8, 9]
    assert len(steps) <= 3


# ---- what is refused -------------------------------------------------------------------------------------------


def test_another_corpus_is_refused(new, tmp_path, text):
    stop_after(new("run"), 2)
    (tmp_path / "text.txt").write_text(text.replace("sat", "xyz"), encoding="utf-8")  # with new characters, too
    with pytest.raises(ConfigError, match=r"the corpus .*/text\.txt: 576 characters as before, but different ones"):
        Run.resume(tmp_path / "run")
    (tmp_path / "text.txt").write_text(text * 2, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"the corpus .*/text\.txt: 576 characters before, 1,152 now\. Put it back"):
        Run.resume(tmp_path / "run")


def test_the_same_corpus_in_another_place_is_accepted(new, tmp_path):
    stop_after(new("run"), 2)
    moved = (tmp_path / "text.txt").rename(tmp_path / "moved.txt")
    assert Run.resume(tmp_path / "run", {"data.corpus": str(moved)}).trainer.step == 2


def test_a_text_read_with_other_newlines_is_refused(new, tmp_path, text):
    stop_after(new("run"), 2)
    (tmp_path / "text.txt").write_bytes(text.replace("\n", "\r\n").encode())
    assert Run.resume(tmp_path / "run").trainer.step == 2  # the same text as before
    with pytest.raises(ConfigError, match=r"text\.txt: 576 characters before, 588 now"):
        Run.resume(tmp_path / "run", {"keep_newlines": True})


def test_another_configuration_is_refused(stopped, tmp_path):
    stopped(2)
    with pytest.raises(
        ConfigError, match=r"training\.lr: 0\.01 before, 0\.5 now; training\.seed: 3 before, 4 now\. Put"
    ):
        Run.resume(tmp_path / "run", {"lr": 0.5, "seed": 4})
    path = tmp_path / "run" / "config.toml"
    path.write_text(path.read_text().replace("n_embd = 8", "n_embd = 12"))
    with pytest.raises(ConfigError, match=r"model\.n_embd: 8 before, 12 now"):
        Run.resume(tmp_path / "run")


def test_another_tokenizer_is_refused(stopped, tmp_path, text):
    stopped(2)
    CharTokenizer.train(text + "!").save(tmp_path / "run" / "tokenizer.json")
    with pytest.raises(ConfigError, match=r"the tokenizer .*run/tokenizer\.json: 21 tokens before, 22 now"):
        Run.resume(tmp_path / "run")


def test_a_changed_tokenizer_file_is_noticed_and_a_removed_one_is_not_missed(new, tmp_path, text):
    place = tmp_path / "own.json"
    CharTokenizer.train(text).save(place)
    stop_after(new("run", tokenizer=str(place)), 2)
    CharTokenizer.train(text + "!").save(place)
    with pytest.raises(ConfigError, match=r"the tokenizer .*own\.json: 21 tokens before, 22 now"):
        Run.resume(tmp_path / "run")
    place.unlink()
    assert Run.resume(tmp_path / "run").trainer.step == 2  # the run has a copy


def test_another_kind_of_learned_tokenizer_is_refused(stopped, tmp_path):
    stopped(2)
    with pytest.raises(ConfigError, match=r'data\.tokenizer: "char" before, "bpe" now'):
        Run.resume(tmp_path / "run", {"data.tokenizer": "bpe"})


def test_settings_that_change_no_step_may_change_and_no_others(never_stopped, stopped, tmp_path):
    losses, _ = never_stopped()
    stopped(2)
    changes = {"training.checkpoint_every": 5, "training.on_bad_step": "skip", "training.recompute": True}
    resumed = Run.resume(tmp_path / "run", changes)
    finish(resumed)
    assert [quiet(step) for step in resumed.steps] == losses
    assert resumed.config.training.checkpoint_every == 5
    assert resumed.model.recompute
    # The steps at which the length of a run was changed are noted. Of the files, the contents are compared.
    length = {f"training.{name}" for name in ("steps", "epochs", "extended")}
    files = {f"data.{name}" for name in ("corpus", "keep_newlines", "files", "held_out", "tokenizer", "pairs")}
    files |= {"finetune.base", "finetune.data"}
    assert {*changes, *length, *files} == MAY_CHANGE


@pytest.mark.parametrize("gone", ["config.toml", "checkpoints"])
def test_a_folder_without_a_run_is_refused(gone, stopped, tmp_path):
    stopped(2)
    (tmp_path / "run" / gone).rename(tmp_path / "elsewhere")
    with pytest.raises(LoadError, match="run"):
        Run.resume(tmp_path / "run")


def test_the_checkpoint_before_a_damaged_one_is_taken(stopped, tmp_path):
    stopped(6)
    path = tmp_path / "run" / "checkpoints" / "step-00000006.ckpt.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="step-00000006"):
        resumed = Run.resume(tmp_path / "run")
    assert resumed.trainer.step == 4


# ---- one at a time ---------------------------------------------------------------------------------------------


def test_a_run_in_training_cannot_be_resumed(new, tmp_path, contents):
    run = new("run")
    training = run.train()
    for _ in range(6):
        next(training)
    before = contents(tmp_path)
    assert [step.step for step in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [*range(6)], (
        "not only at its end"
    )
    with pytest.raises(InUseError, match=f"run: is being trained by process {os.getpid()}"):
        Run.resume(tmp_path / "run")
    assert contents(tmp_path) == before
    list(training)
    with pytest.raises(InUseError):  # up to `save`
        Run.resume(tmp_path / "run")
    run.save()
    assert not (tmp_path / "run" / LOCK).exists()
    Run.resume(tmp_path / "run")
    assert not (tmp_path / "run" / LOCK).exists()  # the Run is no more


def test_a_resumed_run_is_locked_before_it_is_trained(stopped, tmp_path):
    stopped(2)
    resumed = Run.resume(tmp_path / "run")
    with pytest.raises(InUseError):
        Run.resume(tmp_path / "run")
    finish(resumed)
    resumed.save()


def test_a_resume_that_is_refused_locks_nothing(stopped, tmp_path, contents):
    stopped(2)
    before = contents(tmp_path)
    with pytest.raises(ConfigError):
        Run.resume(tmp_path / "run", {"lr": 0.5})
    assert contents(tmp_path) == before


def test_training_that_is_left_or_fails_locks_nothing(new, tmp_path, monkeypatch):
    run = new("run")
    for _ in run.train():
        break
    assert not (tmp_path / "run" / LOCK).exists()
    resumed = Run.resume(tmp_path / "run")
    break_at(resumed, 3, monkeypatch)
    with pytest.raises(TrainingError):
        finish(resumed)
    assert not (tmp_path / "run" / LOCK).exists()


def test_the_slower_of_two_new_runs_is_refused(new, tmp_path, contents):
    first, second, third = (new("run") for _ in range(3))
    training = first.train()
    next(training)
    before = contents(tmp_path)
    with pytest.raises(InUseError, match="is being trained by process"):
        finish(second)
    assert contents(tmp_path) == before
    list(training)
    first.save()
    before = contents(tmp_path)
    with pytest.raises(InUseError, match="another run was put there meanwhile"):
        finish(third)  # it would work where a finished run is now
    assert contents(tmp_path) == before


def test_a_run_that_will_be_replaced_is_locked_as_well(new, tmp_path):
    stop_after(new("run"), 9)
    replacing = new("run", seed=8)
    training = replacing.train()
    next(training)
    with pytest.raises(InUseError):
        Run.resume(tmp_path / "run")
    with pytest.raises(InUseError):
        finish(new("run"))
    list(training)
    replacing.save()
    assert not (tmp_path / "run" / LOCK).exists()
    assert not (tmp_path / "run-stopped").exists()
    assert load_config(tmp_path / "run" / "config.toml").training.seed == 8


def test_a_save_beside_another_run_locks_its_own_folder_again(new, tmp_path):
    stop_after(new("run"), 9)
    run = new("run", seed=8)
    training = run.train()
    while next(training).step < 9:
        pass
    training.close()  # it gives back its locks, and no checkpoint is left to write, which would lock the folder
    give_back = lock(run.folder.work)
    with pytest.raises(InUseError, match="is being trained by process"):
        run.save()
    give_back()
    run.save()
    assert load_config(tmp_path / "run" / "config.toml").training.seed == 8
    assert not list(tmp_path.rglob(LOCK))


def test_checkpoints_of_another_run_are_not_blamed_on_the_learning_rate(new, tmp_path):
    run = new("run")
    training = run.train()
    next(training)
    (tmp_path / "run" / "checkpoints" / "step-00000004.ckpt.safetensors").write_bytes(b"another's")
    with pytest.raises(LoadError, match="resume from it") as caught:
        list(training)
    assert "learning rate" not in str(caught.value)


# ---- when it goes wrong ----------------------------------------------------------------------------------------


def break_at(run, step, monkeypatch, last=None):
    """In that step, or up to the last, the loss is √0 too much: its value is right, its slope infinite."""
    original = run.model.loss
    layer = run.model.transformer.ln_f

    def broken(*batch, **options):
        loss = original(*batch, **options)
        if step <= run.trainer.step + 1 <= (last or step) and run.model.training:
            return loss + (layer.weight.sum() * 0.0) ** 0.5
        return loss

    monkeypatch.setattr(run.model, "loss", broken)


def break_from(run, step, monkeypatch):
    break_at(run, step, monkeypatch, last=10**9)


def test_the_state_before_a_bad_step_is_kept_and_the_operation_named(new, tmp_path, monkeypatch):
    run = new("run")
    break_at(run, 7, monkeypatch)
    with pytest.raises(
        TrainingError, match=r"step 7: the loss is [\d.]+ and the gradient norm nan: .*power.*checkpoint"
    ):
        finish(run)
    whole = new("whole", steps=9)
    list(whole.train(lambda: whole.trainer.step == 6))
    resumed = Run.resume(tmp_path / "run")
    assert resumed.trainer.step == 6
    assert_same_state(state(whole.trainer), state(resumed.trainer))


def test_a_bad_step_may_be_skipped_and_is_counted(new, tmp_path, monkeypatch):
    run = new("run", on_bad_step="skip")
    break_at(run, 3, monkeypatch)
    before = {}
    steps = []
    for step in run.train():
        steps.append(step)
        if step.step in (2, 3):
            before[step.step] = {name: a.copy() for name, a in run.model.state_dict().items()}
    assert [step.step for step in steps if step.skipped] == [3]
    assert run.trainer.skipped == 1
    assert math.isnan(steps[3].grad_norm)
    for name, array in before[2].items():
        np.testing.assert_array_equal(array, before[3][name])
    run.save()
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[3], parse_constant=pytest.fail)["grad_norm"] is None
    assert math.isnan(read_metrics(tmp_path / "run" / "metrics.jsonl")[3].grad_norm)


def test_nan_in_the_weights_leaves_the_last_good_checkpoint(new, tmp_path, monkeypatch):
    run = new("run")
    original = run.trainer.optimizer.step

    def overflow(*args):
        original(*args)
        if run.trainer.step == 5:
            run.model.transformer.ln_f.bias.data[0] = np.inf

    monkeypatch.setattr(run.trainer.optimizer, "step", overflow)
    with pytest.raises(TrainingError, match=r"step 7: the loss is nan"):
        finish(run)
    assert Run.resume(tmp_path / "run").trainer.step == 4


@pytest.mark.parametrize(("every", "last"), [(3, 3), (5, 0), (0, 0)])
def test_a_nan_held_out_loss_leaves_the_last_good_checkpoint(every, last, new, tmp_path, monkeypatch):
    run = new("run", checkpoint_every=every, eval_every=5)
    original = run.trainer.optimizer.step

    def overflow(*args):
        original(*args)
        if run.trainer.step == 4:
            run.model.transformer.h[0].mlp.c_fc.weight.data[:] = 3e38

    monkeypatch.setattr(run.trainer.optimizer, "step", overflow)
    message = rf"^step 5: the held-out loss is (nan|inf): .* made .*[Tt]ransformer.*/step-0000000{last}\.ckpt"
    with pytest.raises(TrainingError, match=message):
        finish(run)
    assert [step.step for step in read_metrics(tmp_path / "run" / "metrics.jsonl")] == [0, 1, 2, 3, 4, 5]
    assert Run.resume(tmp_path / "run").trainer.step == last


def test_a_model_with_a_nan_loss_from_the_start_is_not_trained(new, tmp_path):
    run = new("run")
    run.model.transformer.wte.weight.data[:] = 3e38
    with pytest.raises(TrainingError, match=r"step 0: the held-out loss is .*; there is no good checkpoint"):
        finish(run)


def test_ten_bad_steps_in_a_row_are_too_many_also_when_resumed_between_them(new, tmp_path, monkeypatch):
    run = new("run", on_bad_step="skip", steps=30, eval_every=30, checkpoint_every=1)
    break_from(run, 5, monkeypatch)
    stop_after(run, 8)
    assert run.trainer.skipped == 4
    resumed = Run.resume(tmp_path / "run")
    break_from(resumed, 5, monkeypatch)
    with pytest.raises(TrainingError, match=r"step 14: .*, the 10th bad step in a row: .*power.*step-00000013\.ckpt"):
        finish(resumed)
    assert resumed.trainer.skipped == 9


# ---- token files -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "held_out"), [("epochs", False), ("random", True)])
def test_a_mixture_of_token_files_is_resumed(order, held_out, config, text, tmp_path):
    tokenizer = CharTokenizer.train(text)
    tokenizer.save(tmp_path / "tokenizer.json")
    files = []
    for name, content in (("a", text), ("b", text[::-1])):
        (tmp_path / f"{name}.txt").write_text(content, encoding="utf-8")
        encode_file(tokenizer, tmp_path / f"{name}.txt", tmp_path / f"{name}.bin", workers=1)
        files.append(str(tmp_path / f"{name}.bin"))
    data = {"files": files, "weights": [0.7, 0.3], "tokenizer": str(tmp_path / "tokenizer.json"), "order": order}
    data["held_out"] = files[0] if held_out else ""  # the weights are those of the training files
    runs = [Run.new(config.changed(data), tmp_path / folder) for folder in ("whole", "parts")]
    losses = finish(runs[0])
    stop_after(runs[1], 5)
    resumed = Run.resume(tmp_path / "parts")
    finish(resumed)
    assert [quiet(step) for step in resumed.steps] == losses
    assert_same_state(state(runs[0].trainer), state(resumed.trainer))
    resumed.save()
    with open(files[1], "r+b") as file:  # the same length, another id
        file.write(b"\x01")
    with pytest.raises(ConfigError, match=r"the token file .*/b\.bin: 576 tokens as before, but different ones"):
        Run.resume(tmp_path / "parts")
    with pytest.raises(ConfigError, match=f"the corpus: {2 + held_out} files before, {1 + held_out} now"):
        Run.resume(tmp_path / "parts", {"data.files": files[:1], "data.weights": []})
    with pytest.raises(ConfigError, match=f"the corpus: {2 + held_out} files before, 1 now"):
        Run.resume(tmp_path / "parts", {"data.files": [], "data.weights": [], "data.held_out": ""})


# ---- a trainer by itself ---------------------------------------------------------------------------------------


def test_a_state_of_another_model_is_refused(config):
    def trainer(n_embd):
        model = GPT(GPTConfig(vocab_size=11, block_size=4, n_layer=1, n_head=1, n_embd=n_embd), Generator(0))
        ids = np.arange(60) % 11
        task = LanguageModeling(BatchStream([ids], 4, 2, Generator(0)), held_out_windows([ids], 4, 2, 2))
        return Trainer(model, task, config.training)

    with pytest.raises(ValueError, match="do not fit the model"):
        trainer(4).set_state(*trainer(6).get_state())


# ---- killed ----------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
@pytest.mark.parametrize(
    ("tuned", "kills"),  # the task and the trained layers of a fine-tuning
    [
        ((), 2),
        pytest.param((), 100, marks=pytest.mark.slow),
        *(
            pytest.param(words, 6, marks=pytest.mark.slow)
            for words in itertools.product(("classifier", "assistant", "preference"), ("all", "last", "lora"))
        ),
    ],
)
def test_a_run_killed_at_any_moment_and_resumed_ends_the_same(tuned, kills, tmp_path):
    script = Path(__file__).with_name("train_until_killed.py")
    done = subprocess.run(
        [sys.executable, script, tmp_path, str(kills), *tuned],
        capture_output=True,
        text=True,
        env={"OPENBLAS_NUM_THREADS": "1"},
        timeout=120 if kills < 10 else 1200,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["killed"] == kills
    assert report["different"] == []
    assert report["moments"] > kills / 5  # not always at the same place
