"""Runs on the command line: killed during a save, a terminal that is closed, unusual names and settings."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tinygrad_llm.runs import folder as folder_module
from tinygrad_llm.runs.folder import about_run, load_run
from tinygrad_llm.runs.metrics import read_metrics
from tinygrad_llm.training import loop

SMALL = ["tokenizer=char", "n_layer=1", "n_head=1", "n_embd=4", "block_size=4", "batch_size=2", "eval_batches=1"]
SMALL += ["warmup=0", "eval_every=2", "workers=1"]
SETS = [word for setting in SMALL for word in ("--set", setting)]
NEW = ["train", "--corpus", "text.txt", *SETS, "--steps", "3"]
PROGRAM = [sys.executable, "-m", "tinygrad_llm"]


@pytest.fixture(autouse=True)
def text(place):
    (place / "text.txt").write_text("The cat sat on the mat, and the mat was flat.\n" * 4)


@pytest.fixture
def finished(cli):
    """The folder of a run whose three steps are done."""
    assert cli(*NEW, "--out", "run")[0] == 0
    return Path("run")


# ---- the last save ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_run_killed_anywhere_in_its_last_save_can_be_resumed(tmp_path):
    script = Path(__file__).with_name("stop_save_anywhere.py")
    environment = {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, script, tmp_path], capture_output=True, text=True, env=environment, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    for name, report in json.loads(done.stdout).items():
        assert report["kills"] > 20, name
        assert report["lost"] == [], name


@pytest.mark.parametrize("left", ["no weights", "run.json of an earlier step", "files that were not put into place"])
def test_a_resume_completes_a_save_that_was_killed(left, cli, finished):
    weights, about = finished / "model.safetensors", finished / "run.json"
    whole = weights.read_bytes()
    if left == "no weights":
        weights.unlink()
    elif left == "run.json of an earlier step":
        about.write_text(about.read_text().replace('"steps_done": 3', '"steps_done": 2'))
    else:
        (finished / ".saving").mkdir()
    status, out, err = cli("train", "--resume", "run")
    assert (status, err) == (0, "")
    assert "next:\n    tinygrad-llm generate run" in out
    assert weights.read_bytes() == whole
    assert about_run(finished)["steps_done"] == 3
    assert not (finished / ".saving").exists()
    assert cli("train", "--resume", "run")[0] == 2  # saved now


# ---- names -----------------------------------------------------------------------------------------------------


def test_a_run_may_be_in_the_current_folder(cli, place, monkeypatch):
    Path("here").mkdir()
    monkeypatch.chdir("here")
    new = ["train", "--corpus", str(place / "text.txt"), *SETS, "--steps", "3", "--out", "."]
    assert cli(*new)[0] == 0
    assert cli("train", "--resume", ".", "--steps", "2")[0] == 0
    load_run(".")
    assert cli(*new, "--overwrite")[0] == 0
    assert read_metrics(Path("metrics.jsonl"))[-1].step == 3
    assert [path.name for path in sorted(place.iterdir())] == ["here", "text.txt"]


@pytest.mark.skipif(os.name != "posix", reason="names are bytes")
def test_a_corpus_whose_name_is_not_text_costs_one_line_before_anything_is_made(refused, place):
    name = os.fsdecode(b"t\xff.txt")
    try:
        Path(name).write_text("The cat sat on the mat.\n" * 9)
    except OSError:
        pytest.skip("the file system takes no such name")
    refused("train", "--corpus", name, *SETS, "--out", "run")
    assert not Path("run").exists()


# ---- a terminal ------------------------------------------------------------------------------------------------

IN_A_TERMINAL = """
import fcntl, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # whoever runs the tests may have it ignored, as nohup does
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from tinygrad_llm.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
def test_a_run_saves_when_its_terminal_is_closed(popen):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    arguments = ["train", "--corpus", "text.txt", *SETS, "--steps", "1000000", "--out", "run"]
    command = [sys.executable, "-c", IN_A_TERMINAL, *arguments]
    streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
    process = popen(command, **streams)  # in a session of its own, which the terminal then belongs to
    os.close(theirs)
    said = b""
    while b"step 2: held-out" not in said:
        said += os.read(ours, 10000)
    os.close(ours)
    assert process.wait(60) == 130
    load_run("run")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs SIGHUP")
@pytest.mark.parametrize("ignored", [False, True], ids=["usual", "nohup"])
def test_sighup_stops_a_run_unless_it_is_ignored(ignored, cli, monkeypatch):
    original = loop.AdamW.step

    def step(*arguments):
        signal.raise_signal(signal.SIGHUP)
        signal.raise_signal(signal.SIGHUP)  # the shell and the system send one each
        original(*arguments)

    monkeypatch.setattr(loop.AdamW, "step", step)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    try:
        assert cli(*NEW, "--out", "run")[0] == (0 if ignored else 130)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert read_metrics(Path("run/metrics.jsonl"))[-1].step == (3 if ignored else 1)


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_without_stderr_stdout_has_only_the_figures():
    words = ["sh", "-c", '"$@" 2>&-', "sh", *PROGRAM, *NEW, "--out", "run", "--json"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert json.loads(done.stdout)["steps"] == 3


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_without_stderr_stdout_has_no_error():
    words = ["sh", "-c", '"$@" 2>&-', "sh", *PROGRAM, "train", "--resume", "nothing"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")


# ---- resumed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("often", [[], ["--checkpoint-every", "1"]], ids=["seldom", "each step"])
def test_weights_with_a_nan_loss_are_not_kept_as_a_checkpoint(often, cli):
    seldom = [word.replace("eval_every=2", "eval_every=3") for word in NEW]
    status, _, err = cli(*seldom, "--set", "lr=1e20", *often, "--out", "run")
    assert status == 3
    assert "the last good checkpoint is run/checkpoints/step-00000000.ckpt.safetensors" in err
    assert [path.name for path in Path("run/checkpoints").iterdir()] == ["step-00000000.ckpt.safetensors"]


def test_a_plan_of_a_resumed_run_writes_nothing(cli, finished, monkeypatch):
    def lock(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(folder_module, "lock", lock)
    status, out, err = cli("train", "--resume", "run", "--steps", "2", "--plan")
    assert (status, err) == (0, "")
    assert "parameters" in out
    status, _, err = cli("train", "--resume", "run", "--steps", "2")
    assert (status, err) == (2, "tinygrad-llm train: run: permission denied\n")


def test_resume_and_overwrite_are_refused_together(cli, finished):
    status, _, err = cli("train", "--resume", "run", "--overwrite")
    assert status == 2
    assert "--overwrite" in err


def test_fewer_steps_than_are_done_are_refused(cli, finished):
    status, _, err = cli("train", "--resume", "run", "--set", "steps=2")
    assert status == 2
    assert "3 steps are done, more than the 2 asked for" in err
