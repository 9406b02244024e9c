"""`bench learn` at a toy's size: each contender trains the same model on the same data; steps to a loss are counted."""

import dataclasses
import importlib
import json

import numpy as np
import pytest

from tinygrad_llm.bench import BenchError, Timing, learn
from tinygrad_llm.bench.measure import OURS, THREADS
from tinygrad_llm.cli import bench
from tinygrad_llm.datasets import BatchStream
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import CharTokenizer
from tinygrad_llm.training import LanguageModeling, Trainer, held_out_windows

TEXT = "one two three four five " * 40


@pytest.fixture
def toy(monkeypatch):
    """A tiny preset, two steps a turn, and contenders that work in this process, in turns."""
    training = dataclasses.replace(learn.PRESET.training, batch_size=4, eval_batches=2, workers=1)
    preset = dataclasses.replace(learn.PRESET, model=GPTConfig(1, 8, 1, 2, 8), training=training)
    monkeypatch.setattr(learn, "PRESET", preset)
    monkeypatch.setattr(learn, "EVERY", 2)

    def alternate(contenders, rounds, warmup, progress):
        assert warmup == 0
        assert all(set(THREADS) <= one.environment.keys() for one in contenders)
        works = []
        for one in contenders:
            module, _, function = one.subject.partition(":")
            works.append(getattr(importlib.import_module(module), function)(**one.options))
        answers = [work.answer() for work in works]
        seconds = list(zip(*([work.round() for work in works] for _ in range(rounds)), strict=True))
        abouts = [work.about() for work in works]
        return [Timing(*facts) for facts in zip([c.name for c in contenders], seconds, answers, abouts, strict=True)]

    monkeypatch.setattr(learn, "alternate", alternate)
    monkeypatch.setattr(bench, "missing", lambda name: [name])
    return preset


def test_both_optimizers_start_alike_and_learn(toy, printed, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    out = printed("bench", "learn", tmp_path / "text.txt", "--steps", "9", "--json")
    figures = json.loads(out)
    adamw, muon = figures["rows"]
    assert (adamw["name"], muon["name"]) == ("tinygrad_llm, adamw", "tinygrad_llm, muon")
    assert adamw["curve"][0] == muon["curve"][0]  # nothing learned yet
    for row in figures["rows"]:
        steps, seconds, losses = zip(*row["curve"], strict=True)
        assert steps == (0, 2, 4, 6, 8)
        assert list(seconds) == sorted(seconds)
        assert losses[-1] < losses[0] - 0.01
    assert figures["loss"] == adamw["curve"][-1][2]
    assert adamw["reached"] == adamw["curve"][-1][:2]
    assert "blas" in adamw["about"]
    assert adamw["curve"] != muon["curve"]


def test_a_row_says_when_the_loss_was_reached_and_in_which_share_of_the_time():
    first = learn.Learned("first", [(0, 0.0, 4.0), (4, 2.0, 3.0), (8, 4.0, 2.0)], {})
    fast = learn.Learned("fast", [(0, 0.0, 4.0), (4, 1.0, 2.0), (8, 2.0, 1.5)], {})
    slow = learn.Learned("slow", [(0, 0.0, 4.0), (4, 2.0, 3.5), (8, 4.0, 2.5)], {})
    assert [bench._learned(one, first, 2.0) for one in (first, fast, slow)] == [
        ["first", "2.000", "8", "4.0 s", "100%"],
        ["fast", "1.500", "4", "1.0 s", "25%"],
        ["slow", "2.500", bench.NOTHING, bench.NOTHING, bench.NOTHING],
    ]


def test_the_curves_are_those_of_the_trainer(toy):
    """The preset's settings at the highest rate of each optimizer, on the first nine tenths of the text."""
    tokenizer = CharTokenizer.train(TEXT)
    ids = np.array(tokenizer.encode(TEXT))
    cut = len(ids) * 9 // 10
    found = learn.learn(TEXT, 5, [], 1, {"adamw": 2e-3, "muon": 3e-2})
    for one, (name, lr) in zip(found, {"adamw": 2e-3, "muon": 3e-2}.items(), strict=True):
        model = GPT(dataclasses.replace(toy.model, vocab_size=tokenizer.n_vocab), Generator(0))
        batches = BatchStream([ids[:cut]], 8, 4, Generator(1), order="random")
        task = LanguageModeling(batches, held_out_windows([ids[cut:]], 8, 4, 2))
        run = Trainer(model, task, learn.settings(5, lr, name)).run()
        losses = []
        for step in (0, 1, 2, 3, 4):
            next(run)
            losses += [task.evaluate(model).loss] if step % 2 == 0 else []
        assert one.name == f"{OURS}, {name}"
        assert [(step, loss) for step, _, loss in one.curve] == list(zip((0, 2, 4), losses, strict=True))
        made = learn.settings(5, lr, name)
        assert (made.steps, made.lr, made.min_lr, made.optimizer) == (5, lr, lr / 10, name)
    assert len(learn.learn(TEXT, 1, [], 1)[0].curve) == 2  # at least one turn


def test_the_table_names_the_first_step_at_the_loss(toy, cli, printed, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    out = printed("bench", "learn", tmp_path / "text.txt", "--steps", "2", "--loss", "9")
    lines = [line.split("  ") for line in out.splitlines()]
    assert out.splitlines()[0].split("  ")[-3:] == ["steps to 9.000", "time to it", "of the first"]
    assert [line[0] for line in lines[1:3]] == ["tinygrad_llm, adamw", "tinygrad_llm, muon"]
    assert "  0  " in out.splitlines()[1]
    _, out, _ = cli("bench", "learn", tmp_path / "text.txt", "--steps", "2", "--loss", "0.001")
    assert out.splitlines()[1].split()[-3:] == ["–"] * 3
    assert max(map(len, out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("text", "option", "message"),
    [
        ("short", [], "the text has 5 characters, and at least 160 are needed"),
        (TEXT, ["--loss", "nan"], "--loss must be above 0 and finite, got nan"),
        (TEXT, ["--lr", "0", "1"], "--lr must be above 0 and finite, got 0 1"),
    ],
)
def test_what_cannot_be_measured_costs_one_line(text, option, message, toy, cli, tmp_path):
    (tmp_path / "text.txt").write_text(text)
    status, out, err = cli("bench", "learn", tmp_path / "text.txt", *option)
    assert (status, out) == (2, "")
    assert message in err


def test_pytorch_learns_as_our_adamw_does(toy, monkeypatch):
    pytest.importorskip("torch")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    adamw, _, torch = learn.learn(TEXT, 6, ["torch"], 1)
    assert [point[2] for point in torch.curve] == pytest.approx([point[2] for point in adamw.curve], abs=1e-4)


def test_models_that_start_apart_are_refused(toy, monkeypatch):
    losses = iter([3.0, 3.002, 3.0, 3.1])  # within a thousandth, and not
    monkeypatch.setattr(learn.Learning, "answer", lambda self: self.curve.append((0, 0.0, 3.0)) or next(losses))
    assert len(learn.learn(TEXT, 2, [], 1)) == 2
    said = "untrained, tinygrad_llm, muon has a loss of 3.1, and tinygrad_llm, adamw 3.0"
    with pytest.raises(BenchError, match=f"^{said}$"):
        learn.learn(TEXT, 2, [], 1)
