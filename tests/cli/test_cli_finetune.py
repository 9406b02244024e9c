"""`tinygrad-llm finetune` and `classify`: from a base and examples to answers, and what they refuse."""

import argparse
import json

import numpy as np
import pytest

from tinygrad_llm.cli import finetune
from tinygrad_llm.cli.finetune import report
from tinygrad_llm.runs.presets import PRESETS
from tinygrad_llm.storage.text import columns

ROWS = "".join(f"{('ham', 'spam')[i % 2]}\tthe cat {('sat', 'won')[i % 2]} on mat {i}\n" for i in range(40))


@pytest.fixture
def files(tmp_path):
    (tmp_path / "messages.tsv").write_text(ROWS)
    entries = [{"instruction": "Say the cat.", "input": str(i), "output": "the cat", "kind": "say"} for i in range(30)]
    (tmp_path / "instructions.json").write_text(json.dumps(entries))
    pairs = [{"instruction": "Say it.", "chosen": "the cat", "rejected": f"the mat {i}"} for i in range(30)]
    (tmp_path / "preferences.json").write_text(json.dumps(pairs))
    return tmp_path


FAST = ("--steps", "8", "--workers", "1", "--set", "batch_size=4")


def test_a_classifier_is_trained_tested_and_asked(cli, printed, runs, files):
    base = runs["stories"]
    more = ("--layers", "all", "--set", "lr=0.01", "--set", "steps=60")
    out = printed("finetune", "classifier", files / "messages.tsv", "--base", base, "--out", "spam", *FAST[2:], *more)
    assert "40 examples: 28 training, 4 held-out, 8 test" in out
    assert "accuracy: training 100.0%" in out
    assert "precision" in out
    out = printed("classify", "spam", "the cat won on mat 3", "--explain")
    assert out.startswith("spam ")
    assert "␣" in out
    assert cli("classify", "spam", "--explain", "the cat won on mat 3") == (0, out, "")
    assert cli("classify", "--explain", "spam", "the cat won on mat 3") == (0, out, "")
    (files / "lines.txt").write_text("the cat sat on mat 3\n\nthe cat won on mat 3\n")
    status, out, _ = cli("classify", "spam", "--file", files / "lines.txt", "--json")
    found = [json.loads(line) for line in out.splitlines()]
    assert [one["label"] for one in found] == ["ham", "spam"]
    assert all(sum(one["probabilities"].values()) == pytest.approx(1) for one in found)
    strange = "the cat\x0c\u2028\x85\x1c sat \x1b[31m\u202e on \x9bmat"
    (files / "lines.txt").write_bytes(f"{strange}\r\n\rthe mat {'x' * 99}".encode())
    status, out, _ = cli("classify", "spam", "--file", files / "lines.txt")
    assert (status, len(out.splitlines())) == (0, 2)
    assert out.isprintable() or set(out) - set(filter(str.isprintable, out)) == {"\n"}
    assert max(map(len, out.splitlines())) <= 80
    assert json.loads(cli("classify", "spam", strange, "--json")[1])["text"] == strange
    assert not set("\x0c\x1b\x9b\u202e") & set(cli("classify", "spam", strange)[1])
    (files / "lines.txt").write_text(f"the cat\n\nthe mat {'x' * 99}")
    status, _, err = cli("classify", "spam", "--file", files / "lines.txt", "--no-crop")
    assert "lines.txt: line 3 has " in err
    status, _, err = cli("classify", "spam", f"the mat {'x' * 99}")
    assert (status, "reads at once: its end is left out" in " ".join(err.split())) == (0, True)
    assert "missing\ufffd[31m: no model here" in cli("classify", "missing\x1b[31m", "a")[2]


@pytest.mark.parametrize(("task", "file"), [("assistant", "instructions.json"), ("preference", "preferences.json")])
def test_answers_are_trained_on_and_resumed(cli, printed, toys, text_file, files, task, file):
    wide = ("--preset", "stories", "--set", "model.block_size=64", "--out", "base")
    assert cli("train", "--corpus", text_file, *wide)[0] == 0
    plain = ("--set", "style=plain", "--seed", "3")
    status, out, _ = cli("finetune", task, files / file, "--base", "base", "--out", "new", *FAST, *plain)
    assert status == 0
    assert "30 examples: 26 training, 1 held-out, 3 test" in out
    for option, value, message in [
        ("--base", "other", "other: no model here"),
        ("--seed", 0, "training.seed: 3 before, 0 now"),
        ("--layers", "last", 'finetune.layers: "all" before, "last" now'),
    ]:
        status, _, err = cli("finetune", "--resume", "new", "--steps", "2", option, value)
        assert (status, message in err) == (2, True), err
    out = printed("finetune", "--resume", "new", "--steps", "2", "--json")
    assert json.loads(out)["out"] == "new"


def test_a_plan_prints_the_cost_and_writes_nothing(cli, refused, toys, runs, files, place, monkeypatch):
    monkeypatch.setattr("tinygrad_llm.runs.plan._STEPS", 2)
    words = ("finetune", "classifier", files / "messages.tsv", "--base", runs["stories"], *FAST, "--layers", "lora")
    status, out, err = cli(*words, "--plan")
    assert (status, err) == (0, "")
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert lines["40 examples: 28 training, 4 held-out, 8 test"]
    assert lines["trained"].endswith(" of them")
    assert " at its peak" in lines["memory"]
    assert "8 of " in next(line for line in out.splitlines() if line.startswith("  steps"))
    assert max(map(len, out.splitlines())) <= 80
    assert list(place.iterdir()) == []
    status, out, err = cli(*words, "--plan", "--json")
    assert status == 0
    assert "trained" in err
    figures = json.loads(out)
    assert figures["parameters"]["trained"] < figures["parameters"]["all"]
    assert cli(*words, "--out", "new")[0] == 0
    figures = json.loads(cli("finetune", "--resume", "new", "--steps", 3, "--plan", "--json")[1])
    assert figures["steps"] == 3
    assert "all its 8 steps are done" in refused("finetune", "--resume", "new", "--plan")
    assert "this run fine-tunes: use `tinygrad-llm finetune --resume`" in refused("train", "--resume", "new", "--plan")


@pytest.mark.parametrize(
    ("option", "key", "value"),
    [
        ("--layers last", "finetune.layers", "last"),
        ("--set rank=4", "finetune.rank", 4),
        ("--set training.lr=0.5", "training.lr", 0.5),
        ("--epochs 7", "training.epochs", 7),
        ("--steps 9", "training.steps", 9),
        ("--workers 2", "training.workers", 2),
        ("--seed 5", "training.seed", 5),
    ],
)
def test_every_option_is_in_the_configuration(option, key, value):
    parser = argparse.ArgumentParser()
    finetune.add_arguments(parser)
    found = finetune._configured(parser.parse_args(["assistant", "a.json", "--base", "b", *option.split()])).flat()
    usual = PRESETS["assistant"].flat() | {
        "finetune.task": "assistant",
        "finetune.data": "a.json",
        "finetune.base": "b",
    }
    changed = {name: new for name, new in found.items() if new != usual[name]}
    if option.startswith("--steps"):  # what depends on it is fitted
        assert changed.pop("training.epochs") == 0
        changed = {name: new for name, new in changed.items() if name not in ("training.eval_every", "training.warmup")}
    assert changed == {key: value}


def test_prompts_that_no_answer_fits_after_are_refused(cli, runs, files, place):
    status, _, err = cli(
        *("finetune", "assistant", files / "instructions.json", "--base", runs["stories"], "--out", "new", *FAST),
        *("--set", "style=alpaca"),
    )
    assert status == 2
    assert "none of the 26 entries has its answer within the model's 16 tokens" in err
    assert not (place / "new").exists()


def classes(labels):
    """The results of a classifier whose last class is never found."""
    n = len(labels)
    good = [0.9] * (n - 1)
    return {
        "labels": labels, "accuracy": {"training": 1.0, "held-out": 0.95, "test": 0.9},
        "confusion": [[9] * n] * n, "precision": [*good, np.nan], "recall": [*good, 0.0], "f1": [*good, np.nan],
    }  # fmt: skip


def test_the_figures_are_shown_as_tables_of_80_columns():
    kinds = {"n": 3, "exact_match": 1 / 3, "token_f1": 0.5, "kinds": {"a\x1b": {"n": 3, "exact": 1 / 3, "f1": 0.5}}}
    odd = ["垃圾", "a" * 99, "\x1b[31m", "a\nb", "ham"]
    many = [f"class {i}" for i in range(300)]
    for results in (kinds, {"loss": 0.5, "reward_margin": 1.0}, *map(classes, (["ham", "spam"], odd, many))):
        lines = report(results).splitlines()
        assert max(map(columns, lines)) <= 80
        assert "\x1b" not in "".join(lines)
        assert len(lines) < 30
    assert "–" in report(classes(["ham", "spam"]))  # a figure that does not exist
    assert "class 299 " in report(classes(many))
    assert "and 280 classes with a better F1, which results.json lists" in report(classes(many))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --out FOLDER for a new run, or --resume RUN to continue one"),
        (("classifier", "messages", "--out", "new"), "name a task (classifier, assistant, preference), a file with"),
        (("--resume", "new", "classifier"), "a run is resumed with its own task and data"),
        (("painter", "messages"), "got 'painter'"),
        (("classifier", "nowhere.tsv", "--base", "{base}", "--out", "new"), "nowhere.tsv: no such file"),
        (("classifier", "messages", "--base", "nowhere", "--out", "new"), "nowhere: no model here"),
        (("classifier", "x.tsv", "--base", "{base}", "--out", "new", "--set", "rank=0"), "finetune.rank: must be"),
        (("classifier", "messages", "--base", "{base}", "--out", "new", "--set", "n_layer=3"), "--set n_layer: is for"),
        (
            ("classifier", "messages", "--base", "{base}", "--out", "new", "--set", "data.tokenizer=x"),
            "is for `train`:",
        ),
        (("--resume", "{base}"), "this run is no fine-tuning: use `tinygrad-llm train --resume`"),
    ],
)
def test_wrong_arguments_of_finetune_are_refused(refused, runs, place, arguments, message):
    given = [str(argument).replace("{base}", str(runs["stories"])) for argument in arguments]
    assert message in refused("finetune", *given)
    assert not (place / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a text, or --file FILE"),
        (("a", "--file", "b"), "give a text, or --file FILE"),
        ((" ",), "there is no text: give at least one that is not empty"),
        (("--file", "nowhere.txt"), "nowhere.txt: no such file"),
        (("a",), "holds 'tinygrad_llm.GPT', and 'tinygrad_llm.GPTClassifier' is needed"),
    ],
)
def test_wrong_arguments_of_classify_are_refused(refused, runs, arguments, message):
    assert message in refused("classify", runs["stories"], *arguments)


@pytest.mark.parametrize("size", [20, 21])
def test_classes_that_fit_the_table_are_all_shown(size):
    results = classes([f"class {i}" for i in range(size)])
    results["f1"][3] = 0.95  # the best
    text = report(results)
    shown = [i for i in range(size) if f"class {i} " in text]
    assert shown == [i for i in range(size) if size == 20 or i != 3]
    assert ("and 1 class" in text) == (size == 21)


def test_a_preset_of_fine_tuning_is_not_for_train(cli):
    status, _, err = cli("train", "--preset", "classifier", "--out", "new")
    assert status == 2
    assert "classifier fine-tunes a model: use `tinygrad-llm finetune`" in err


def test_a_file_of_fine_tuning_is_not_for_train(refused, place):
    (place / "my.toml").write_text('preset = "assistant"\n')
    assert "assistant fine-tunes a model: use" in refused("train", "--config", "my.toml", "--out", "new")
