"""`mpiexec tinygrad-llm train`, with real processes; `pytest -m mpi` where mpi4py and an MPI library are installed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import tinygrad_llm
from tinygrad_llm.formats import Checkpoints
from tinygrad_llm.runs.folder import load_run
from tinygrad_llm.runs.metrics import read_metrics

pytestmark = pytest.mark.mpi

PATIENCE = 120  # seconds, after which a test fails instead of waiting
PLACES = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
HERE = Path(__file__).parent
MPIEXEC = shutil.which("mpiexec", path=PLACES)
SIZES = ["n_layer=2", "n_head=2", "n_embd=32", "block_size=16", "accumulation=2", "eval_batches=1"]
ARGUMENTS = ["--corpus", "text.txt", "--tokenizer", "char", "--workers", "1"]
ARGUMENTS += [word for size in SIZES for word in ("--set", size)]
LONG = ["--set", "batch_size=5", "--set", "eval_every=100000", "--set", "warmup=0"]
FIVE = ["--set", "batch_size=5", "--set", "eval_every=5"]


@pytest.fixture
def place(tmp_path, monkeypatch):
    pytest.importorskip("mpi4py")
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec")
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("".join(f"{i} foxes met {i * i} hens, and said: good day.\n" for i in range(60)))
    # As root, and with more ranks than cores, only when told (Open MPI's variables; others need none).
    for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PRTE_MCA_rmaps_default_mapping_policy", ":oversubscribe")
    monkeypatch.setenv("PYTHONPATH", str(Path(tinygrad_llm.__file__).parents[1]))


def start(ranks, *arguments, program=("-m", "tinygrad_llm", "train")):
    """`mpiexec -n ranks tinygrad-llm train …`; ranks 0: without mpiexec."""
    words = [sys.executable, *program, *map(str, arguments)]
    words = [MPIEXEC, "-n", str(ranks), *words] if ranks else words
    return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    try:
        out, err = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, out, err


def wait_until(condition, process):
    end = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.005)


def train(ranks, *arguments, status=0, **options):
    found, out, err = finish(start(ranks, *arguments, **options))
    assert found == status, out + err
    return out, err


def state(folder):
    """All arrays of the last checkpoint: weights, optimizer, random streams."""
    return Checkpoints(Path(folder) / "checkpoints").load_latest()[0]


def assert_same_bits(one, other):
    one, other = state(one), state(other)
    assert one.keys() == other.keys()
    assert [name for name in one if one[name].tobytes() != other[name].tobytes()] == []


def test_ranks_train_the_model_of_one_process_and_repeat_bit_for_bit(place):
    train(0, *ARGUMENTS, *FIVE, "--steps", 20, "--out", "alone")
    out, err = train(2, *ARGUMENTS, *FIVE, "--steps", 20, "--out", "two")
    train(2, *ARGUMENTS, *FIVE, "--steps", 20, "--out", "again")
    assert_same_bits("two", "again")
    alone, two = (load_run(folder)[0].state_dict() for folder in ("alone", "two"))
    for name, w in alone.items():
        np.testing.assert_allclose(two[name], w, rtol=1e-3, atol=2e-5, err_msg=name)
    losses = [[step.loss for step in read_metrics(Path(folder) / "metrics.jsonl")] for folder in ("alone", "two")]
    np.testing.assert_allclose(*losses, rtol=1e-4)
    assert "20 steps on 2 processes" in " ".join(out.split())  # the line may be folded
    assert out.count("wrote ") == err.count("step 20/20") == 1  # rank 0 alone speaks


@pytest.mark.parametrize("ranks", [2, 3])
def test_a_resumed_run_is_one_without_a_stop(ranks, place):
    dropout = ["--set", "dropout=0.1"]
    train(ranks, *ARGUMENTS, *FIVE, *dropout, "--steps", 12, "--out", "whole")
    process = start(ranks, *ARGUMENTS, *FIVE, *dropout, "--steps", 12, "--set", "checkpoint_every=4", "--out", "parts")
    try:
        wait_until(lambda: list(Path("parts/checkpoints").glob("step-*4.ckpt.safetensors")), process)
        for rank in ranks_here():
            os.kill(rank, signal.SIGKILL)
    finally:
        assert finish(process)[0] != 0
    train(ranks, "--resume", "parts")
    assert_same_bits("whole", "parts")


def test_more_ranks_than_rows_train_the_same_model(place):
    train(0, *ARGUMENTS, "--set", "batch_size=2", "--steps", 3, "--out", "alone")
    train(3, *ARGUMENTS, "--set", "batch_size=2", "--steps", 3, "--out", "three")
    alone, three = (load_run(folder)[0].state_dict() for folder in ("alone", "three"))
    for name, w in alone.items():
        np.testing.assert_allclose(three[name], w, rtol=1e-3, atol=2e-5, err_msg=name)


REGRESSION = """
import json, sys
sys.path.insert(0, sys.argv[1])
from training_toys import Curve, regression
from tinygrad_llm.training import Trainer, TrainSettings
from tinygrad_llm.training.workers import launch, processes
settings = TrainSettings(steps=9, lr=1e-2, warmup=0, eval_every=4, workers=1, accumulation=2)
def main():
    steps = Trainer(Curve(), regression(), settings).run()
    print(json.dumps([processes().size, [(step.loss, step.measures) for step in steps]]))
    return 0
sys.exit(launch(main))
"""


def test_any_task_is_trained_by_several_ranks(place):
    found = [train(ranks, HERE, program=("-c", REGRESSION))[0] for ranks in (0, 2, 2)]
    (one, alone), (two, together), _ = map(json.loads, found)
    assert (one, two) == (1, 2)
    assert found[1] == found[2]  # to the last bit
    for (loss, measures), (other_loss, other_measures) in zip(alone, together, strict=True):
        assert other_loss == pytest.approx(loss, rel=1e-4)
        assert other_measures == pytest.approx(measures, rel=1e-4)


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--set", "lr=high"], 2, "training.lr: must be a number"),
        (["--corpus", "absent.txt"], 2, "absent.txt"),
        (["--plan"], 2, "--plan is for one process, and here are 2"),
        (["--set", "lr=1e30", "--set", "warmup=0"], 3, "Try a lower learning rate; the last good checkpoint"),
    ],
)
def test_a_mistake_is_reported_once_and_ends_all_ranks(arguments, status, words, place):
    _, err = train(2, *ARGUMENTS, *FIVE, "--steps", 9, *arguments, "--out", "new", status=status)
    assert [words in line for line in err.splitlines() if line.startswith("tinygrad-llm")] == [True]
    assert "Traceback" not in err


def test_memory_is_checked_for_all_ranks(place):
    large = ["--corpus", "text.txt", "--tokenizer", "char", "--set", "n_embd=200000"]
    _, err = train(2, *large, "--out", "new", status=2)
    assert "of memory for 2 processes, and" in err


BREAKS = """
import os, sys
from tinygrad_llm.cli import main
from tinygrad_llm.training.workers import Workers, processes
original, calls = Workers._by_one, []
def broken(*args):
    calls.append(args)
    if processes().rank == {rank} and len(calls) == 8:
        raise {error}
    return original(*args)
Workers._by_one = broken
sys.exit(main(['train', *sys.argv[1:]]))
"""


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize(
    ("error", "status", "words"),
    [("MemoryError", 2, "there is not enough memory"), ("ZeroDivisionError('x')", 1, "ZeroDivisionError: x")],
)
def test_a_rank_that_fails_ends_all_with_its_message(rank, error, status, words, place):
    program = ("-c", BREAKS.format(rank=rank, error=error))
    _, err = train(2, *ARGUMENTS, *FIVE, "--steps", 50, "--out", "new", status=status, program=program)
    (line,) = [line for line in err.splitlines() if line.startswith(f"rank {rank} of 2: ")]
    assert words in line
    train(2, "--resume", "new", "--set", "checkpoint_every=0")  # from the last checkpoint


def ranks_here():
    """The processes of the job in this folder, in the order of their ranks."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "environ").read_text(errors="replace").split("\0")
            variables = dict(word.partition("=")[::2] for word in words)
            rank = variables.get("OMPI_COMM_WORLD_RANK", variables.get("PMI_RANK"))
            if rank is not None and (process / "cwd").samefile("."):
                found[int(rank)] = int(process.name)
        except OSError:  # another's, or just gone
            continue
    return [found[rank] for rank in sorted(found)]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for the ranks in Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_all(number, place):
    process = start(2, *ARGUMENTS, *LONG, "--steps", 100_000, "--out", "new")
    try:
        metrics = Path("new/metrics.jsonl")
        wait_until(lambda: metrics.exists() and len(read_metrics(metrics)) >= 4, process)
        for rank in reversed(ranks_here()):  # as a batch system does: to all; the others ignore it
            os.kill(rank, number)
    finally:
        status, out, err = finish(process)
    assert status == 130, out + err
    assert err.count("stopped after step") == 1
    done = read_metrics(Path("new/metrics.jsonl"))[-1].step
    out, _ = train(2, "--resume", "new", "--steps", 2)
    assert f"resumed after step {done}" in " ".join(out.split())


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks for the ranks in Linux's /proc")
def test_the_printed_command_stops_and_saves(place):
    process = start(2, *ARGUMENTS, *LONG, "--steps", 100_000, "--out", "new")
    watchdog = threading.Timer(PATIENCE, process.kill)  # or reading its output might never end
    watchdog.start()
    try:
        words = next(line for line in process.stdout if line.startswith("to stop and save: kill -INT ")).split()
        assert int(words[words.index("-INT") + 1]) == ranks_here()[0]
        metrics = Path("new/metrics.jsonl")  # before its first step, a run has nothing to save
        wait_until(lambda: metrics.exists() and metrics.read_text().count("\n") > 1, process)
        os.kill(ranks_here()[0], signal.SIGINT)
    finally:
        watchdog.cancel()
        status, out, err = finish(process)
    assert status == 130, out + err
    train(2, "--resume", "new", "--steps", 2)


def test_ctrl_c_on_mpiexec_leaves_a_run_that_can_be_resumed(place):
    """Open MPI gives its ranks SIGTERM and, a quarter of a second later, SIGKILL: too soon to count on a save."""
    process = start(2, *ARGUMENTS, *LONG, "--set", "checkpoint_every=4", "--steps", 100_000, "--out", "new")
    try:
        wait_until(lambda: list(Path("new/checkpoints").glob("step-*4.ckpt.safetensors")), process)
        process.send_signal(signal.SIGINT)  # all that a terminal reaches: the ranks are in process groups of their own
    finally:
        status, out, err = finish(process)
    assert status != 0, out + err
    done = Checkpoints(Path("new/checkpoints")).load_latest()[1]["step"]
    assert done >= 4
    out, _ = train(2, "--resume", "new", "--steps", 2)
    assert f"resumed after step {done}" in " ".join(out.split())
    assert read_metrics(Path("new/metrics.jsonl"))[-1].step == done + 2
