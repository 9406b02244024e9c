"""Shared by the tests of the command line: calling it, presets of a toy's size, and saved runs."""

import contextlib
import io
import os
import signal
import warnings
from contextvars import copy_context
from pathlib import Path

import pytest

from tinygrad_llm import runtime
from tinygrad_llm.cli import demo, main, watch
from tinygrad_llm.gradcheck import curve
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.runs import data as data_module
from tinygrad_llm.runs.presets import PRESETS

STORIES = "Once there was a fox, and the fox was sly. The end of the fox.<|endoftext|>\n" * 40
TEXT = "Once there was a cat. The cat sat on the mat, and the mat was flat.\n" * 60


@pytest.fixture(scope="session")
def no_matplotlib(tmp_path_factory):
    """A folder whose `matplotlib` cannot be imported: a program with it on its path loses no time with pictures."""
    folder = tmp_path_factory.mktemp("no matplotlib")
    (folder / "matplotlib.py").write_text("raise ImportError")
    return folder


@pytest.fixture(autouse=True)
def quick(quick_gpt2, monkeypatch):
    """GPT-2's tokenizer is loaded once, samples of a training are short, and curves have few steps."""
    monkeypatch.setattr(watch, "SAMPLE_TOKENS", 6)
    monkeypatch.setattr(demo, "SAMPLE_TOKENS", 6)
    monkeypatch.setattr(curve, "STEPS", curve.STEPS[1::8])


@pytest.fixture(autouse=True)
def place(tmp_path, no_matplotlib, monkeypatch):
    """Each test works in an empty folder of its own, on a terminal of 80 columns that has colors."""
    folder = tmp_path / "work place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(no_matplotlib), str(Path(__file__).parents[2])]))
    return folder


def _state():
    """What a command leaves as it was, however it ends: signals, warnings, the folder, threads, modes and observers."""
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    return handlers, warnings.showwarning, os.stat(".").st_ino, list(runtime._inside), dict(copy_context().items())


@pytest.fixture
def cli(capsys):
    """A function: arguments → (exit status, stdout, stderr)."""

    def call(*args):
        before = _state()
        status = main([str(arg) for arg in args])
        assert _state() == before
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def printed(cli):
    """A function: arguments of a command that succeeds → stdout."""

    def call(*args):
        status, out, err = cli(*args)
        assert status == 0, err
        return out

    return call


@pytest.fixture
def refused(cli):
    """A function: arguments that are a mistake → stderr, which is one line; stdout is empty, the exit status 2."""

    def call(*args):
        status, out, err = cli(*args)
        assert (status, out, err.count("\n"), err[-1:]) == (2, "", 1, "\n"), err
        assert err.startswith("tinygrad-llm")
        return err

    return call


def _toy(name):
    """The preset with toy sizes; on one thread, since measuring which number is fastest takes longer than the run."""
    preset = PRESETS[name]
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 16}
    training = {"steps": 3, "epochs": 0, "warmup": 1, "eval_every": 2, "batch_size": 4, "eval_batches": 2, "workers": 1}
    training |= {"accumulation": min(preset.training.accumulation, 2)}
    changes = {f"model.{k}": v for k, v in sizes.items()} | {"data.vocab_size": 270}
    return preset.changed(changes | {f"training.{k}": v for k, v in training.items()})


@pytest.fixture(scope="session")
def proof():
    """The proof of the demo, computed once."""
    return demo.prove_small_copy(GPT(GPTConfig(vocab_size=300, n_layer=1, n_head=2, n_embd=8, block_size=16)))


@pytest.fixture
def toys(proof, monkeypatch):
    """Small presets under the same names, whose runs take little time; the demo's text is short, its proof made.

    It writes no trace.
    """
    monkeypatch.setattr(demo, "prove_small_copy", lambda model: proof)
    monkeypatch.setattr(demo, "_trace", lambda training: training.folder.path / "trace.html")
    read = data_module.load_corpus
    monkeypatch.setattr(
        data_module, "load_corpus", lambda name, *more: STORIES if name == "stories" else read(name, *more)
    )
    for name in PRESETS:
        monkeypatch.setitem(PRESETS, name, _toy(name))


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Saved runs by preset: characters (char-cpu) and byte pairs (stories), both on TEXT. Tests do not change them."""
    folder = tmp_path_factory.mktemp("runs")
    (folder / "text.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        for name in ("char-cpu", "stories"):
            patch.setitem(PRESETS, name, _toy(name))
            out = str(folder / name)
            assert main(["train", "--corpus", str(folder / "text.txt"), "--preset", name, "--out", out]) == 0
    return {name: folder / name for name in ("char-cpu", "stories")}


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


@pytest.fixture
def snapshot():
    """A function: folder → everything below it, to compare."""

    def take(folder: Path):
        return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}

    return take
