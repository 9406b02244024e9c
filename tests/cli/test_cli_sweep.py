"""`tinygrad-llm sweep`, and `train --plan`."""

import csv
import json
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tinygrad_llm.cli import sweep
from tinygrad_llm.runs.folder import load_run
from tinygrad_llm.training import loop as loop_module

pytestmark = pytest.mark.usefixtures("toys")


@pytest.fixture
def sweep_file(place, text_file):
    def write(grid, base=""):
        (place / "sweep.toml").write_text(f"[base]\ncorpus = {json.dumps(str(text_file))}\n{base}\n[grid]\n{grid}\n")
        return "sweep.toml"

    return write


def test_a_sweep_ends_with_a_table(cli, sweep_file, place):
    status, out, err = cli("sweep", sweep_file("lr = [1e-3, 1e-2, 1e30]\nsteps = [3]", "warmup = 0"), "--out", "all")
    assert status == 0
    assert out.startswith("3 runs: 3 lr × 1 steps\nrun 1/3: lr=0.001,steps=3\n")
    assert "step 3/3" in err
    with open("all/sweep.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    losses = [float(line["val_loss"]) for line in lines[:2]]
    assert losses == sorted(losses)
    assert [line["status"] for line in lines] == ["finished", "finished", "diverged"]
    table = out[out.index("held-out  training") :]
    assert [line["name"] for line in lines] == [line.split()[-1] for line in table.splitlines()[1:4]]
    for line in lines[:2]:
        load_run(place / "all" / line["name"])


def test_json_has_the_table(cli, sweep_file):
    status, out, err = cli("sweep", sweep_file("seed = [1, 2]"), "--out", "all", "--json")
    assert status == 0
    figures = json.loads(out)
    assert {run["values"]["seed"] for run in figures["runs"]} == {1, 2}
    assert figures["out"] == "all"
    assert "2 runs" in err


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_the_same_command_resumes(sent, cli, sweep_file, monkeypatch):
    file = sweep_file("seed = [1, 2]", "workers = 1")
    assert cli("sweep", file, "--out", "whole")[0] == 0
    original, calls = loop_module.AdamW.step, []

    def step(optimizer, *args):
        calls.append(optimizer)
        if len(calls) == 5:  # the second step of the second run
            signal.raise_signal(sent)
        original(optimizer, *args)

    monkeypatch.setattr(loop_module.AdamW, "step", step)
    status, out, err = cli("sweep", file, "--out", "parts")
    assert status == 130
    assert "stopped after 2 steps" in out
    assert "to resume:\n    tinygrad-llm sweep sweep.toml --out parts" in err
    assert cli("sweep", file, "--out", "parts")[0] == 0
    assert len(calls) == 6
    for name in ("seed=1", "seed=2"):
        both = []
        for folder in ("whole", "parts"):
            with open(f"{folder}/{name}/model.safetensors", "rb") as weights:
                both.append(weights.read())
        assert both[0] == both[1]


def test_no_run_begins_after_ctrl_c(cli, sweep_file, place, monkeypatch):
    original = loop_module.AdamW.step
    monkeypatch.setattr(loop_module.AdamW, "step", lambda *args: (original(*args), signal.raise_signal(signal.SIGINT)))
    status, out, err = cli("sweep", sweep_file("seed = [1, 2, 3]", "workers = 1"), "--out", "all")
    assert status == 130
    assert "run 2/3" not in out
    assert "stopped after 1 of 3 runs" in err
    assert sorted(path.name for path in (place / "all").iterdir()) == ["seed=1", "sweep.csv", "sweep.json"]


def test_a_closed_pipe_does_not_end_a_sweep(sweep_file, place, popen):
    sizes = "n_layer = 1\nn_head = 2\nn_embd = 8\nblock_size = 16\nsteps = 2\nwarmup = 0\neval_batches = 1\nworkers = 1"
    command = [sys.executable, "-m", "tinygrad_llm", "sweep", sweep_file("seed = [1, 2]", sizes), "--out", "all"]
    process = popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert "2 runs" in process.stdout.readline()
    process.stdout.close()
    err = process.stderr.read()
    assert process.wait(60) == 0
    assert "Error" not in err
    assert [run["status"] for run in json.loads((place / "all/sweep.json").read_text())["runs"]] == ["finished"] * 2


def test_the_exit_status_is_3_where_no_run_finishes(cli, sweep_file):
    status, out, _ = cli("sweep", sweep_file("lr = [1e30]", "warmup = 0"), "--out", "all")
    assert status == 3
    assert "diverged: step" in out


# What is wrong: (grid, base, --out, a part of the message).
MISTAKES = {
    "an unknown key": ("lrr = [1]", "", "new", "did you mean lr?"),
    "a wrong value": ("lr = [-1]", "", "new", "sweep.toml: grid: lr=-1: training.lr: must be"),
    "an unknown preset": ("lr = [1]", "preset = 'babby'", "new", "base: unknown preset 'babby': did you mean baby?"),
    "an --out that is a file": ("lr = [1]", "", "sweep.toml", "is a file"),
    "an --out that is empty": ("lr = [1]", "", "", "argument --out: got an empty name: name a folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_ends_in_one_line(name, refused, sweep_file, place):
    grid, base, out_folder, message = MISTAKES[name]
    file = sweep_file(grid, base)
    before = sorted(place.iterdir())
    err = refused("sweep", file, "--out", out_folder)
    assert err.startswith("tinygrad-llm sweep: ")
    assert message in err
    assert sorted(place.iterdir()) == before


def test_other_settings_in_the_same_folder_are_refused(cli, sweep_file):
    assert cli("sweep", sweep_file("seed = [1]"), "--out", "all")[0] == 0
    status, _, err = cli("sweep", sweep_file("seed = [1]", "lr = 0.5"), "--out", "all")
    assert status == 2
    assert "training.lr" in err


def test_a_sweep_into_a_folder_of_what_its_runs_start_from_is_refused(refused, runs, sweep_file):
    file = sweep_file("seed = [1]", f"init = {json.dumps(str(runs['stories']))}")
    assert "holds the folder of" in refused("sweep", file, "--out", runs["stories"].parent)


def test_losses_of_a_thousand_and_more_are_shortened():
    shown = [sweep._loss(loss) for loss in (None, 0.12345, 999.99, 1000, 2e9)]
    assert shown == ["-", "0.1235", "999.9900", "1.0e+03", "2.0e+09"]


def test_the_bar_of_a_resumed_run_begins_with_its_first_step(monkeypatch):
    """So that the time left is computed from this run's own steps."""
    bars = []

    class Noted:
        def __init__(self, steps, done):
            bars.append([steps, done])

        def show(self, step):
            bars[-1].append(step)

        def close(self):
            bars[-1].append("closed")

    monkeypatch.setattr(sweep, "StepBar", Noted)
    run = SimpleNamespace(config=SimpleNamespace(training=SimpleNamespace(steps=9)))
    for first in (0, 1, 5):
        shown, steps = sweep._Shown(), [SimpleNamespace(step=first), SimpleNamespace(step=first + 1)]
        for step in steps:
            shown(run, step)
        shown.close()
        assert bars[-1] == [9, max(0, first - 1), *steps, "closed"]
    sweep._Shown().close()
    assert len(bars) == 3


def test_a_missing_sweep_file_is_named(cli):
    status, _, err = cli("sweep", "nowhere.toml", "--out", "new")
    assert status == 2
    assert "nowhere.toml" in err


# ---- train --plan ----------------------------------------------------------------------------------------------------


@pytest.fixture
def few_steps(monkeypatch):
    monkeypatch.setattr("tinygrad_llm.runs.plan._STEPS", 2)


@pytest.mark.usefixtures("few_steps")
@pytest.mark.parametrize("out_option", [[], ["--out", "new"]], ids=["nowhere", "new"])
def test_a_plan_is_printed_and_nothing_is_written(out_option, printed, text_file, place):
    before = sorted(place.iterdir())
    out = printed("train", "--corpus", text_file, "--plan", *out_option)
    for words in ("parameters", "embeddings", "FLOPs", "memory", "activations", "tokens/s", "3 of"):
        assert words in out
    assert sorted(place.iterdir()) == before


@pytest.mark.usefixtures("few_steps")
def test_a_plan_in_json(printed, text_file):
    out = printed("train", "--corpus", text_file, "--plan", "--json")
    figures = json.loads(out)
    assert figures["steps"] == 3
    assert figures["seconds"] > 0
    assert figures["memory"]["peak"] > figures["memory"]["parameters"] > 0


@pytest.mark.usefixtures("few_steps")
def test_the_plan_of_a_resumed_run_is_of_the_rest(cli, printed, refused, text_file, place):
    assert cli("train", "--corpus", text_file, "--out", "done")[0] == 0
    assert "done: all its 3 steps are done; add --steps N" in refused("train", "--resume", "done", "--plan")
    files = {path: path.read_bytes() for path in (place / "done").rglob("*") if path.is_file()}
    out = printed("train", "--resume", "done", "--steps", 5, "--plan", "--json")
    assert json.loads(out)["steps"] == 5
    assert {path: path.read_bytes() for path in (place / "done").rglob("*") if path.is_file()} == files


def test_a_plan_takes_out_or_resume(cli, text_file):
    status, _, err = cli("train", "--plan", "--out", "new", "--resume", "old")
    assert status == 2
    assert "--resume" in err
