"""Every command of the README, in order, as a newcomer types them in a fresh checkout; only the sizes are toys."""

import importlib.util
import io
import os
import shutil
from pathlib import Path

import pytest

from tinygrad_llm.bench import train as bench_train
from tinygrad_llm.models import GPTConfig
from tinygrad_llm.runs.presets import FINE_TUNING, PRESETS

ROOT = Path(__file__).parents[2]
OPTIONS = {
    "gradcheck": ("layer_norm",),  # the whole ledger has its own test
    "train": ("--steps", "2", "--set", "eval_batches=1"),
    "finetune": ("--steps", "2", "--set", "eval_batches=1"),
    "bench": ("--rounds", "1", "--against"),
}


def readme():
    """tests/test_readme.py, which finds the commands."""
    spec = importlib.util.spec_from_file_location("test_readme", ROOT / "tests" / "test_readme.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.usefixtures("proof")
def test_the_commands_work_one_after_another(cli, place, monkeypatch):
    for name, preset in PRESETS.items():
        sizes = {} if name in FINE_TUNING else {"model.n_layer": 1, "model.n_head": 1, "model.n_embd": 8}
        monkeypatch.setitem(PRESETS, name, preset.fitted({**sizes, "training.steps": 2, "training.workers": 1}))
    toy = GPTConfig(11, 8, n_layer=1, n_head=1, n_embd=8)
    monkeypatch.setattr(bench_train, "CONFIGS", {"char-cpu": (toy, 2)})
    shutil.copy(ROOT / "README.md", "README.md")
    (place / "scripts").mkdir()
    sweep = (ROOT / "scripts" / "sweep.toml").read_text(encoding="utf-8")
    (place / "scripts" / "sweep.toml").write_text(sweep.replace("steps = 100", "steps = 2"))
    monkeypatch.setattr("sys.stdin", io.StringIO("What is the opposite of big?\n/quit\n"))
    for command in [["demo"], *readme().commands()]:
        if command[0] == "download":  # of half a gigabyte; a test of its own has a server
            continue
        status, out, err = cli(*command, *OPTIONS.get(command[0], ()))
        assert status == 0, (command, err)
        assert out, command
    made = {"docs", "encoder", "german", "sweep", "spam", "assistant", "exported", "demo", "full"}
    assert made == set(os.listdir("runs"))
