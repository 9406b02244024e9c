"""`tinygrad-llm demo`, in toy size; the real one is slow."""

import dataclasses
import json
import shlex
import signal
import subprocess
import sys

import pytest

from tinygrad_llm import cli as command_line
from tinygrad_llm.cli import demo, stages
from tinygrad_llm.cli import main as run_command
from tinygrad_llm.models import GPT
from tinygrad_llm.runs.folder import load_run
from tinygrad_llm.runs.metrics import read_metrics
from tinygrad_llm.runs.presets import PRESETS
from tinygrad_llm.training import loop


def words_of(line):
    """The arguments in a line that the demo prints, for either way to call the program."""
    program, *words = shlex.split(line)
    if program == sys.executable:
        assert words[:2] == ["-m", "tinygrad_llm"]
        return words[2:]
    assert program == "tinygrad-llm"
    return words


def test_the_demo_has_six_parts_and_replaces_only_its_own_folder(cli, toys, place):
    status, out, err = cli("demo", "--steps", 2)
    assert status == 0
    for number in range(1, 7):
        assert f"\n{number}. " in "\n" + out
    assert "Backprop is right" in out
    assert "step 2/2" in err
    load_run("runs/demo")
    assert "wrote runs/demo: config.toml" in out
    # Its own folder is replaced each time; another one only with --overwrite.
    assert cli("demo", "--steps", 2)[0] == 0
    assert cli("demo", "--steps", 2, "--out", "other one")[0] == 0
    assert cli("demo", "--steps", 2, "--out", "other one")[0] == 2
    assert cli("demo", "--steps", 2, "--out", "other one", "--overwrite")[0] == 0
    assert {path.name for path in place.iterdir()} == {"runs", "other one"}


def test_json_has_the_figures(cli, toys):
    status, out, err = cli("demo", "--steps", 2, "--json")
    figures = json.loads(out)
    assert status == 0
    assert (figures["out"], figures["steps"]) == ("runs/demo", 2)
    assert figures["derivatives"] > 100
    assert 0 < figures["worst_error"] < 1e-12
    assert figures["loss_before"] > 0
    assert figures["val_loss"] > 0
    assert len(figures["samples"]) == 3
    assert "Backprop is right" in err


@pytest.mark.parametrize(
    ("out", "argv0"),
    [("runs/demo", "/usr/bin/tinygrad-llm"), ("my runs/it's one", "/opt/my venv/tinygrad_llm/__main__.py")],
)
def test_the_suggested_commands_work(out, argv0, cli, toys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [argv0])
    printed = cli("demo", "--steps", 1, "--out", out)[1]
    lines = printed.partition("Try next:\n")[2].replace("\\\n", " ").splitlines()  # a shell joins them too
    assert len(lines) == 5
    for line in lines:
        words = words_of(line)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command_line._load(words[0]), "run", lambda args: 0)
            assert run_command(words) == 0
    assert cli(*words_of(lines[0]))[0] == 0  # the model is there, and reads the prompt


def test_ctrl_c_saves_what_there_is(cli, toys, monkeypatch):
    original = loop.AdamW.step

    def interrupted(*args):
        signal.raise_signal(signal.SIGINT)
        original(*args)

    monkeypatch.setattr(loop.AdamW, "step", interrupted)
    status, out, err = cli("demo", "--steps", 5)
    assert status == 130
    assert "stopped after step 1; saving" in err
    assert "wrote runs/demo: " in out
    load_run("runs/demo")


def test_ctrl_c_before_the_first_step_leaves_nothing(cli, toys, place, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop.Task, "evaluate", interrupted)
    status, _, err = cli("demo", "--steps", 5)
    assert status == 130
    assert err.endswith("stopped\n")
    assert not list(place.iterdir())


@pytest.mark.parametrize("preset", ["char-cpu", "book-mini"])  # with and without a tied head and biases
def test_the_proof_covers_every_parameter_of_the_model(preset):
    model = GPT(dataclasses.replace(demo.PRESETS[preset].model, vocab_size=300, n_layer=1))
    proof = demo.prove_small_copy(model)
    names = [name for name, _ in model.named_parameters()]
    assert [c.name for c in proof.comparisons] == names
    assert proof


@pytest.mark.slow
def test_the_real_demo_learns(place):
    command = [sys.executable, "-m", "tinygrad_llm", "demo", "--steps", "8", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=600, check=True)
    figures = json.loads(done.stdout)
    assert figures["steps"] == 8
    assert figures["val_loss"] < figures["loss_before"] - 0.3
    assert "step 8/8" in done.stderr
    load_run(place / "runs" / "demo")


def test_a_run_that_is_not_a_demo_is_not_replaced(cli, toys, place):
    (place / "cats.txt").write_text("The cat sat on the mat, and the mat was flat.\n" * 60)
    assert cli("train", "--corpus", "cats.txt", "--steps", 2, "--out", "runs/demo")[0] == 0
    status, _, err = cli("demo", "--steps", 2)
    assert status == 2
    assert "runs/demo: already holds a run" in err


# ---- the whole story ---------------------------------------------------------------------------------------------


@pytest.fixture
def examples(toys, tmp_path, monkeypatch):
    """Every stage on a few examples of its kind, and a model that reads enough for them."""
    monkeypatch.setitem(PRESETS, "stories", PRESETS["stories"].changed({"model.block_size": 96}))
    rows = [f"{('ham', 'spam')[i % 2]}\tthe fox {('sat', 'won')[i % 2]} {i}" for i in range(40)]
    asked = [{"instruction": "Say it.", "input": f"fox {i}", "kind": f"kind {i % 4}"} for i in range(40)]
    answers = [{**one, "output": "the fox"} for one in asked]
    pairs = [{**one, "chosen": "the fox", "rejected": "no"} for one in asked]
    (tmp_path / "messages").write_text("\n".join(rows))
    (tmp_path / "instructions").write_text(json.dumps(answers))
    (tmp_path / "preferences").write_text(json.dumps(pairs))
    monkeypatch.setattr(stages, "STAGES", [s._replace(data=str(tmp_path / s.data)) for s in stages.STAGES])


def test_the_full_demo_has_every_stage_and_their_figures(cli, refused, examples, place, monkeypatch):
    """Called again, it only measures what is done; and it mixes nothing with a demo of another length or seed."""
    words = ("demo", "--full", "--steps", 2)
    status, out, err = cli(*words)
    assert status == 0, err
    for number in range(1, 7 + len(stages.STAGES)):
        assert f"\n{number}. " in "\n" + out
    assert {path.name for path in (place / "runs" / "full").iterdir()} == set(stages.FOLDERS)
    assert max(map(len, out.splitlines())) <= 80
    assert "chat runs/full/friendly" in out
    status, figures, err = cli(*words, "--json")
    assert status == 0
    assert err.count("all its 2 steps are done") == 1 + len(stages.STAGES)
    figures = json.loads(figures)
    assert figures["friendly"]["before"]["reward_margin"] == 0
    steps = read_metrics(place / "runs" / "full" / "base" / "metrics.jsonl")
    losses = [step.val_loss for step in steps if step.val_loss is not None]
    assert losses[0] != losses[-1]
    assert [figures["base"][when]["loss"] for when in ("before", "after")] == [losses[0], losses[-1]]
    assert len({one["question"] for one in figures["questions"]}) == stages.QUESTIONS
    for line in stages.report(figures, figures["questions"]):
        assert line in out

    assert "runs/full/base: holds another run (training.steps: 2 before, 3 now): choose another --out" in refused(
        "demo", "--full", "--steps", 3
    )
    assert "training.seed: 0 before, 5 now" in refused(*words, "--seed", 5)
    (place / "other" / "random").mkdir(parents=True)
    (place / "other" / "random" / "model.safetensors").write_text("of the user")
    assert "other/random: already holds a run" in refused(*words, "--out", "other")
    monkeypatch.setattr(stages, "trained", lambda *_: (130, None))  # stopped in the first step
    status, out, _ = cli(*words, "--seed", 5, "--overwrite")
    assert (status, "continues from here" in out, "before" in out) == (130, True, False)
    assert not [name for name in stages.FOLDERS if (place / "runs" / "full" / name / "config.toml").exists()]


def test_the_closing_table_has_each_figure_in_its_place():
    def results(i):
        return {
            stages.BASE: {"loss": 4.0 + i},
            "classifier": {"accuracy": {"training": 0.9, "test": 0.1 + i / 10}},
            "untrained": {"accuracy": {"training": 0.9, "test": 0.3 + i / 10}},
            "assistant": {"exact_match": 0.5 + i / 10, "token_f1": 0.7 + i / 10},
            "friendly": {"reward_accuracy": 0.95, "reward_margin": (1e-4, 1.1e-4)[i]},
        }

    question = {"question": "Who?", "assistant": "A fox.", "friendly": "Sure: a fox.", "expected": "A fox"}
    before, after = results(0), results(1)
    both = {name: {"before": before[name], "after": after[name]} for name in before}
    assert stages.report(both, [question]) == [
        "                                              before     after",
        "base: held-out loss, nats per token             4.00      5.00",
        "classifier: accuracy on the test part          10.0%     20.0%",
        "  from random weights instead                  30.0%     40.0%",
        "assistant: answers exactly right               50.0%     60.0%",
        "  token F1                                     70.0%     80.0%",
        "preferences: the friendly answer wins              –     95.0%",
        "  by how much: reward margin                    0.00      0.00",
        "",
        "   Who?",
        "      assistant  A fox.",
        "      friendly   Sure: a fox.",
        "      expected   A fox",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("stage", range(1 + len(stages.STAGES)))
def test_the_full_demo_continues_where_it_was_stopped(cli, examples, monkeypatch, stage):
    """A Ctrl-C in the second step of the base, or of a stage; the figures are those of a demo that was not stopped."""
    words = ("demo", "--full", "--steps", 3, "--json")
    whole = json.loads(cli(*words, "--out", "whole")[1])
    original, calls = loop.AdamW.step, []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 3 * stage + 2:
            signal.raise_signal(signal.SIGINT)
        original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(loop.AdamW, "step", interrupted)
        status, out, err = cli(*words, "--out", "stopped")
    assert (status, out) == (130, "")
    assert "the same command continues from here" in err
    status, out, err = cli(*words, "--out", "stopped")
    assert status == 0
    assert "resumed after step 2" in err
    found = json.loads(out)
    for name in (stages.BASE, *(stage.name for stage in stages.STAGES)):
        assert found[name] == whole[name], name
    assert cli(*words, "--seed", 1, "--out", "stopped", "--overwrite")[0] == 0
