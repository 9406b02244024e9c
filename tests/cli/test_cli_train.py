"""`tinygrad-llm train`."""

import json
import shlex

import pytest

from tinygrad_llm.cli.train import settings_for
from tinygrad_llm.training import PRESETS, load_run
from tinygrad_llm.training import loop as loop_module
from tinygrad_llm.training import run as run_module

pytestmark = pytest.mark.usefixtures("toys")


def figures_of(out):
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@pytest.mark.parametrize("preset", PRESETS)
def test_a_run_is_made(preset, cli, text_file, place):
    status, out, err = cli("train", "--corpus", text_file, "--preset", preset, "--out", "runs/new")
    assert status == 0
    assert "step 3: held-out loss" in out
    assert "step 3/3" in err  # progress goes where it does not mix with what is piped on
    model, tokenizer = load_run("runs/new")
    assert f"vocabulary {tokenizer.n_vocab}); {model.num_parameters():,} parameters; 3 steps" in out
    for path in (place / "runs" / "new").iterdir():
        assert path.name in out


@pytest.mark.parametrize("preset", PRESETS)
def test_the_command_it_suggests_works(preset, cli, text_file):
    out = cli("train", "--corpus", text_file, "--preset", preset, "--out", "runs/new one")[1]
    (line,) = [line for line in out.splitlines() if line.startswith("next: ")]
    program, *words = shlex.split(line.removeprefix("next: "))
    assert program == "tinygrad-llm"
    assert cli(*words)[0] == 0


def test_the_command_it_suggests_works_for_any_script(cli, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Щербет і 'цукор'.\n" * 50, encoding="utf-8")
    out = cli("train", "--corpus", text, "--out", "new")[1]
    _, *words = shlex.split(out.rpartition("next: ")[2])
    assert cli(*words)[0] == 0


def test_json_has_the_figures(cli, text_file):
    status, out, err = cli("train", "--corpus", text_file, "--steps", 5, "--out", "new", "--json")
    figures = figures_of(out)
    assert status == 0
    assert (figures["out"], figures["steps"]) == ("new", 5)
    assert figures["parameters"] == load_run("new")[0].num_parameters()
    assert figures["loss"] > 0
    assert figures["val_loss"] > 0
    assert figures["tokens_per_second"] > 0
    assert "held-out loss" in err


def test_the_seed_decides_the_losses(cli, text_file):
    def losses(seed, out):
        cli("train", "--corpus", text_file, "--seed", seed, "--workers", 2, "--out", out)
        with open(f"{out}/metrics.jsonl") as lines:
            return [json.loads(line)["loss"] for line in lines]

    assert losses(1, "a") == losses(1, "b") != losses(2, "c")


def test_overwrite_replaces_a_run(cli, text_file):
    arguments = ["train", "--corpus", text_file, "--out", "new"]
    assert cli(*arguments)[0] == 0
    assert cli(*arguments)[0] == 2
    assert cli(*arguments, "--overwrite", "--steps", 4)[0] == 0
    with open("new/run.json") as file:
        assert json.load(file)["steps_done"] == 4


@pytest.mark.parametrize("json_option", [[], ["--json"]], ids=["words", "json"])
def test_ctrl_c_saves_what_there_is(json_option, cli, text_file, monkeypatch):
    original = loop_module.AdamW.step
    calls = []

    def step(optimizer):
        calls.append(optimizer)
        if len(calls) == 3:
            raise KeyboardInterrupt
        original(optimizer)

    monkeypatch.setattr(loop_module.AdamW, "step", step)
    status, out, err = cli("train", "--corpus", text_file, "--steps", 9, "--out", "new", *json_option)
    assert status == 130
    assert "stopped after step 2; saving" in err
    load_run("new")
    with open("new/metrics.jsonl") as lines:
        assert len(lines.readlines()) == 3
    if json_option:
        assert figures_of(out)["steps"] == 2


def test_ctrl_c_before_anything_was_learned_leaves_nothing(cli, text_file, place, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop_module, "evaluate", interrupted)
    status, _, err = cli("train", "--corpus", text_file, "--out", "new")
    assert status == 130
    assert err.endswith("stopped\n")
    assert not list(place.iterdir())


def test_a_loss_that_is_no_number_is_told_in_one_line(cli, text_file, place, monkeypatch):
    def broken(*args):
        raise loop_module.TrainingError("step 7: the loss is nan")

    monkeypatch.setattr(loop_module._Gradients, "fill", broken)
    status, _, err = cli("train", "--corpus", text_file, "--out", "new")
    assert status == 3
    assert err == "tinygrad-llm train: step 7: the loss is nan\n"
    assert not list(place.iterdir())


def test_without_matplotlib_it_says_what_is_missing(cli, text_file, monkeypatch):
    monkeypatch.setattr(run_module, "save_loss_curve", lambda steps, path: False)
    assert "pip install 'tinygrad_llm[app]'" in cli("train", "--corpus", text_file, "--out", "new")[1]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 100])
def test_fewer_steps_keep_the_shape_of_a_run(steps):
    settings = settings_for(PRESETS["stories"], steps, seed=4)
    assert (settings.steps, settings.seed) == (steps, 4)
    assert settings.warmup < steps
    assert 1 <= settings.eval_every <= steps
    assert settings_for(PRESETS["stories"], None, seed=4).steps == PRESETS["stories"].training.steps


@pytest.mark.parametrize(("stop", "status"), [(KeyboardInterrupt, 130), (BrokenPipeError, 130)])
def test_a_run_that_is_stopped_does_not_replace_a_finished_one(cli, text_file, monkeypatch, stop, status):
    assert cli("train", "--corpus", text_file, "--out", "done")[0] == 0
    with open("done/model.safetensors", "rb") as file:
        finished = file.read()
    original = loop_module.AdamW.step

    def step(optimizer):
        original(optimizer)
        if seen:
            raise stop
        seen.append(optimizer)

    seen = []
    monkeypatch.setattr(loop_module.AdamW, "step", step)
    assert cli("train", "--corpus", text_file, "--out", "done", "--overwrite", "--seed", 5)[0] == status
    with open("done/model.safetensors", "rb") as file:
        assert file.read() == finished
    load_run("done-stopped")


def test_the_workers_are_noted_so_that_a_run_can_be_repeated(cli, text_file):
    assert cli("train", "--corpus", text_file, "--out", "noted", "--workers", 2)[0] == 0
    with open("noted/run.json") as file:
        assert json.load(file)["settings"]["workers"] == 2


def test_a_corpus_that_begins_like_an_option_is_continued_all_the_same(cli, place):
    (place / "front.txt").write_text("---\ntitle: cats\n---\nThe cat sat on the mat, and the mat was flat.\n" * 60)
    _, out, _ = cli("train", "--corpus", "front.txt", "--out", "front")
    command = shlex.split(out.splitlines()[-1].removeprefix("next: "))
    assert cli(*command[1:])[0] == 0
