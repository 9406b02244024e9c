"""`tinygrad-llm train`."""

import dataclasses
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tinygrad_llm.cli import UsageError, train, watch
from tinygrad_llm.datasets import TokenFile, corpora, encode_file
from tinygrad_llm.runs import run as run_module
from tinygrad_llm.runs.config import keys, read_toml
from tinygrad_llm.runs.folder import FILES, load_run
from tinygrad_llm.runs.metrics import read_metrics
from tinygrad_llm.runs.presets import PRESETS
from tinygrad_llm.tokenizer import CharTokenizer, pattern
from tinygrad_llm.training import Step
from tinygrad_llm.training import loop as loop_module

pytestmark = pytest.mark.usefixtures("toys")


def figures_of(out):
    """The JSON on stdout, which has no NaN."""
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def losses_of(folder):
    return [step.loss for step in read_metrics(Path(folder, "metrics.jsonl"))]


def weights_of(folder):
    return Path(folder, "model.safetensors").read_bytes()


def stop_after(steps, monkeypatch, sent=signal.SIGINT):
    """Press Ctrl-C in that step, or send another signal."""
    original, calls = loop_module.AdamW.step, []

    def step(optimizer, *args):
        calls.append(optimizer)
        if len(calls) == steps:
            signal.raise_signal(sent)
        original(optimizer, *args)

    monkeypatch.setattr(loop_module.AdamW, "step", step)


# One preset for each kind of tokenizer; GPT-2's has 50,257 tokens, and takes seconds.
@pytest.mark.parametrize("preset", ["char-cpu", "stories", pytest.param("gpt2", marks=pytest.mark.slow)])
def test_a_run_is_made_and_the_command_it_suggests_works(preset, cli, text_file, place):
    status, out, err = cli("train", "--corpus", text_file, "--preset", preset, "--out", "runs/new one")
    assert status == 0
    assert "step 3: held-out loss" in out
    assert "step 3/3" in err  # progress does not mix with what may be piped on
    folder = place / "runs" / "new one"
    model, tokenizer = load_run(folder)
    assert f"vocabulary {tokenizer.n_vocab}); {model.num_parameters():,} parameters; 3 steps" in " ".join(out.split())
    for path in folder.iterdir():
        assert path.name in out
    assert "pip install 'tinygrad_llm[app]'" in out  # there are no pictures
    assert cli(*suggested(out, "generate"))[0] == 0


def suggested(out, command):
    """The arguments of the command that `train` prints at its end."""
    program, *words = shlex.split(out.partition("\nnext:\n")[2])
    assert (program, words[0]) == ("tinygrad-llm", command)
    return words


@pytest.mark.parametrize(
    "text",
    ["Щербет і 'цукор'.\n", "---\ntitle: cats\n---\nThe cat sat on the mat, and the mat was flat.\n"],
    ids=["another script", "like an option"],
)
def test_the_suggested_prompt_works_for_any_text(text, cli, place):
    (place / "front.txt").write_text(text * 50, encoding="utf-8")
    assert cli(*suggested(cli("train", "--corpus", "front.txt", "--out", "new")[1], "generate"))[0] == 0


def test_pictures_are_saved_and_named(pictures, cli, text_file):
    out = cli("train", "--corpus", text_file, "--out", "new")[1]
    assert re.search(r"\nwrote new: [^:]*loss.png,\s+gradients.png", out)
    assert "pip install" not in out


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
    for out, seed in (("a", 1), ("b", 1), ("c", 2)):
        cli("train", "--corpus", text_file, "--seed", seed, "--workers", 2, "--out", out)
    assert losses_of("a") == losses_of("b") != losses_of("c")


def test_overwrite_replaces_a_run(cli, text_file):
    arguments = ["train", "--corpus", text_file, "--out", "new"]
    assert cli(*arguments)[0] == 0
    assert cli(*arguments)[0] == 2
    with open("new/checkpoints/.tinygrad_llm-0123456789abcdef.tmp", "w"):  # what a kill in the middle of a save leaves
        pass
    os.mkdir("new/.saving")  # and this
    shutil.copy("new/model.safetensors", "new/.saving")
    assert cli(*arguments, "--overwrite", "--steps", 4)[0] == 0
    with open("new/run.json") as file:
        assert json.load(file)["steps_done"] == 4
    assert not [name for name in os.listdir("new") + os.listdir("new/checkpoints") if name.startswith(".")]
    assert not os.path.exists("new-stopped")


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("json_option", [[], ["--json"]], ids=["words", "json"])
def test_ctrl_c_saves_what_there_is(sent, json_option, cli, text_file, monkeypatch):
    before = signal.getsignal(sent)
    stop_after(3, monkeypatch, sent)
    status, out, err = cli("train", "--corpus", text_file, "--steps", 9, "--out", "new", *json_option)
    assert status == 130
    assert "stopped after step 3; saving" in err
    load_run("new")
    assert len(losses_of("new")) == 4
    if json_option:
        assert figures_of(out)["steps"] == 3
    assert signal.getsignal(sent) is before  # restored


def test_a_second_ctrl_c_ends_at_once_and_leaves_the_last_checkpoint(cli, text_file, place, monkeypatch):
    def step(optimizer, *args):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(loop_module.AdamW, "step", step)
    status, _, err = cli("train", "--corpus", text_file, "--out", "new")
    assert status == 130
    assert err.endswith("stopped\n")
    assert [path.name for path in (place / "new" / "checkpoints").iterdir()] == ["step-00000000.ckpt.safetensors"]


def test_ctrl_c_before_the_first_step_leaves_nothing(cli, text_file, place, monkeypatch):
    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(loop_module.Task, "evaluate", interrupted)
    status, _, err = cli("train", "--corpus", text_file, "--out", "new")
    assert status == 130
    assert err.endswith("stopped\n")
    assert not list(place.iterdir())


def test_a_nan_loss_costs_one_line(cli, text_file, place, monkeypatch):
    def broken(*args):
        raise loop_module.TrainingError("step 7: the loss is nan")

    monkeypatch.setattr(loop_module.Workers, "gradient", broken)
    status, _, err = cli("train", "--corpus", text_file, "--workers", 1, "--out", "new")
    assert status == 3
    last = "new/checkpoints/step-00000000.ckpt.safetensors"
    assert err == f"tinygrad-llm train: step 7: the loss is nan; the last good checkpoint is {last}\n"


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_last_step_stops_nothing(sent, cli, text_file, monkeypatch):
    stop_after(3, monkeypatch, sent)
    status, out, err = cli("train", "--corpus", text_file, "--out", "new")
    assert status == 0
    assert "stopped" not in err
    suggested(out, "generate")


def test_a_signal_in_the_save_waits_for_its_end(cli, text_file, place, monkeypatch):
    monkeypatch.setattr(run_module, "save_pictures", lambda steps, folder: signal.raise_signal(signal.SIGTERM))
    assert cli("train", "--corpus", text_file, "--out", "new")[0] == 0
    assert not {path.name for path in (place / "new").iterdir()} - {*FILES, "checkpoints"}
    load_run("new")


SETTINGS = {"n_layer": 1, "n_head": 2, "n_embd": 8, "block_size": 16, "warmup": 1, "batch_size": 2, "eval_batches": 1}
SETTINGS["eval_every"] = 5
SMALL = ["--workers", "1", *(word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}"))]


@pytest.fixture
def start(popen):
    """A function: start the program in a process of its own."""

    def run(*arguments, **pipes):
        return popen([sys.executable, "-m", "tinygrad_llm", *map(str, arguments)], text=True, encoding="utf-8", **pipes)

    return run


@pytest.mark.parametrize(
    "both", [pytest.param(False, id="stdout", marks=pytest.mark.slow), pytest.param(True, id="stderr too")]
)
def test_a_closed_pipe_does_not_end_training(both, text_file, place, start):
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT if both else subprocess.PIPE}
    process = start("train", "--corpus", text_file, "--steps", 10, *SMALL, "--out", "new", **pipes)
    assert "characters" in process.stdout.readline()
    process.stdout.close()
    err = "" if both else process.stderr.read()
    assert process.wait(60) == 0
    assert "Error" not in err
    assert both or "step 10/10" in err
    assert len(losses_of("new")) == 11
    load_run("new")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_one_process_at_a_time_trains_a_run(cli, text_file, place, snapshot, start):
    arguments = ["train", "--corpus", text_file, "--steps", 10**6, *SMALL, "--out", "new"]
    process = start(*arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    while "step 5: held-out" not in process.stdout.readline():
        assert process.poll() is None
    for second in (["train", "--resume", "new"], [*arguments, "--overwrite"]):
        status, _, err = cli(*second)
        assert (status, err.count("\n")) == (2, 1)
        assert err.startswith(f"tinygrad-llm train: new: is being trained by process {process.pid}: ")
        assert [path.name for path in place.iterdir()] == ["new"]
    process.kill()
    process.wait(60)
    assert (place / "new" / "training.lock").exists()
    assert cli("train", "--resume", "new", "--steps", 2)[0] == 0
    assert not (place / "new" / "training.lock").exists()


@pytest.fixture
def killed(cli, text_file, monkeypatch, capsys):
    """A run that was killed after step 4 of 6, with checkpoints of steps 0, 2 and 4."""

    class Killed(BaseException):
        pass

    original, calls = loop_module.AdamW.step, []

    def step(optimizer, *args):
        calls.append(optimizer)
        if len(calls) == 5:
            raise Killed
        original(optimizer, *args)

    arguments = ["--preset", "stories", "--steps", 6, "--set", "eval_every=2", "--out", "run"]
    with monkeypatch.context() as patch:
        patch.setattr(loop_module.AdamW, "step", step)
        with pytest.raises(Killed):
            cli("train", "--corpus", text_file, *arguments)
    capsys.readouterr()  # what it printed
    return Path("run")


@pytest.mark.parametrize(
    "command",
    [
        ["generate", "run", "--prompt", "The cat"],
        ["eval", "run", "stories", "--allow-special"],
        ["eval", "run", "--next", "The cat"],
        ["convert", "run", "other"],
    ],
    ids=["generate", "eval", "next", "convert"],
)
def test_a_run_that_was_killed_is_read_from_its_newest_checkpoint(command, cli, killed, request):
    before = {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()}
    if command[:2] == ["eval", "run"] and "stories" in command:
        command = [*command[:2], str(request.getfixturevalue("text_file"))]
    status, _, err = cli(*command)
    assert status == 0
    line = f"tinygrad-llm {command[0]}: run: it has no saved model yet: this is its checkpoint of step 4"
    assert err.splitlines()[0] == line
    assert {path: path.read_bytes() for path in killed.rglob("*") if path.is_file()} == before
    older = cli(*command[:2], *(word if word != "other" else "older" for word in command[2:]), "--checkpoint", 2)
    assert older[0] == 0
    assert "checkpoint step-00000002.ckpt.safetensors" in older[2]
    if command[0] == "convert":
        assert not np.array_equal(*(next(load_run(name)[0].parameters()).data for name in ("other", "older")))
        assert (
            load_run("other")[1].merges == load_run(killed / "checkpoints" / "step-00000004.ckpt.safetensors")[1].merges
        )


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("3", "has no checkpoint of step 3: there are those of step 2, 4"),
        ("newest", "must be best, last or the number"),
    ],
)
def test_a_checkpoint_that_is_not_there_costs_one_line(which, message, refused, killed):
    assert message in refused("generate", "run", "--checkpoint", which)


def test_a_damaged_checkpoint_costs_a_line_and_the_one_before_is_taken(cli, text_file, place):
    assert cli("train", "--corpus", text_file, "--out", "new")[0] == 0
    (place / "new" / "checkpoints" / "step-00000003.ckpt.safetensors").write_bytes(b"damaged")
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        status, out, err = cli("train", "--resume", "new", "--steps", 4)
    assert status == 0
    (line,) = [line for line in err.splitlines() if "step-00000003" in line]
    assert line.startswith("tinygrad-llm train: warning: new/checkpoints/step-00000003.ckpt.safetensors: ")
    assert line.endswith("; taking the checkpoint before it")
    assert ".py" not in err
    assert re.search(r"6 steps,\s+resumed after step 2\n", out)
    assert len(losses_of("new")) == 7


@pytest.mark.parametrize("command", [["demo", "--out", ""], ["train", "--out", ""], ["train", "--resume", " "]])
def test_an_empty_name_is_not_the_current_folder(command, refused, place):
    assert f"argument {command[1]}: got an empty name: name a folder" in refused(*command)
    assert not list(place.iterdir())


def test_an_unknown_preset_names_the_nearest_one(cli, text_file):
    status, _, err = cli("train", "--corpus", text_file, "--preset", "chr-cpu", "--out", "new")
    assert status == 2
    assert "unknown preset 'chr-cpu': did you mean char-cpu?" in err


def test_a_run_that_is_stopped_does_not_replace_a_finished_one(cli, text_file, monkeypatch):
    assert cli("train", "--corpus", text_file, "--out", "done")[0] == 0
    finished = weights_of("done")
    stop_after(2, monkeypatch)
    assert cli("train", "--corpus", text_file, "--out", "done", "--overwrite", "--seed", 5)[0] == 130
    assert weights_of("done") == finished
    load_run("done-stopped")


def test_the_number_of_workers_is_written_down_so_that_a_run_can_be_repeated(cli, text_file, monkeypatch):
    assert cli("train", "--corpus", text_file, "--out", "two", "--workers", 2)[0] == 0
    assert read_toml("two/config.toml")["training.workers"] == 2
    unset = PRESETS["char-cpu"].training
    monkeypatch.setitem(
        PRESETS, "char-cpu", dataclasses.replace(PRESETS["char-cpu"], training=dataclasses.replace(unset, workers=None))
    )
    monkeypatch.setattr(loop_module, "fastest_threads", lambda model, task: 3)  # as this machine's measurement
    assert cli("train", "--corpus", text_file, "--out", "measured")[0] == 0
    assert read_toml("measured/config.toml")["training.workers"] == 3


# ---- resumed, configured, on token files ------------------------------------------------------------------------


def test_a_stopped_run_resumes_as_if_it_had_not_stopped(cli, text_file, monkeypatch):
    arguments = ["train", "--corpus", text_file, "--preset", "baby", "--steps", 8, "--seed", 5]
    assert cli(*arguments, "--out", "whole")[0] == 0
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        status, out, _ = cli(*arguments, "--out", "parts")
    assert status == 130
    command = suggested(out, "train")
    assert command == ["train", "--resume", "parts"]
    status, out, err = cli(*command)
    assert status == 0
    assert "step 8/8" in err
    assert losses_of("parts") == losses_of("whole")
    assert weights_of("parts") == weights_of("whole")
    status, _, err = cli(*command)
    assert status == 2
    assert "all its 8 steps are done; add --steps N" in err
    assert cli(*command, "--steps", 2)[0] == 0
    assert len(losses_of("parts")) == 11


def test_another_corpus_config_or_tokenizer_is_refused_with_the_difference(cli, refused, text_file, snapshot, place):
    assert cli("train", "--corpus", text_file, "--out", "run")[0] == 0
    before = snapshot(place)
    assert "training.lr: 0.001 before, 0.5 now" in refused("train", "--resume", "run", "--steps", 3, "--set", "lr=0.5")
    other = text_file.with_name("other.txt")
    other.write_text(text_file.read_text() * 2)
    assert f"the corpus {other}: 4,080 characters before, 8,160 now" in refused(
        "train", "--resume", "run", "--steps", 3, "--corpus", other
    )
    assert snapshot(place) == before


def test_the_configuration_of_a_run_that_was_extended_repeats_it_from_any_folder(cli, text_file, tmp_path, monkeypatch):
    changes = ["--set", "lr=0.01", "--set", "model.dropout=0.1", "--set", "training.order=random"]
    assert cli("train", "--corpus", text_file, "--seed", 7, "--steps", 5, *changes, "--out", "one")[0] == 0
    assert cli("train", "--resume", "one", "--steps", 4)[0] == 0
    assert read_toml("one/config.toml")["training.extended"] == [[5, 5]]
    one = Path("one").absolute()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert cli("train", "--config", one / "config.toml", "--out", "again")[0] == 0
    assert (losses_of("again"), weights_of("again")) == (losses_of(one), weights_of(one))
    assert (one / "config.toml").read_text() == Path("again/config.toml").read_text()


@pytest.mark.parametrize("keep", [False, True])
def test_a_run_remembers_how_newlines_were_read(keep, cli, text_file, place):
    windows = place / "windows.txt"
    windows.write_bytes(text_file.read_bytes().replace(b"\n", b"\r\n"))
    option = ["--keep-newlines"] if keep else []
    assert cli("train", "--corpus", windows, *option, "--out", "run")[0] == 0
    assert ("\r" in load_run("run")[1].characters) == keep
    size = windows.stat().st_size if keep else text_file.stat().st_size
    assert figures_of(cli("eval", "run", windows, "--json")[1])["bytes"] == size
    assert cli("tokenizer", "encode", windows, "--tokenizer", "run", "--out", "ids.bin")[0] == 0
    assert TokenFile.open("ids.bin").ids.size == size
    assert figures_of(cli("tokenizer", "stats", windows, "--tokenizer", "run", "--json")[1])["bytes"] == size
    if keep:
        other = figures_of(cli("eval", "run", windows, "--no-keep-newlines", "--json")[1])
        assert other["bytes"] == text_file.stat().st_size
    else:
        status, _, err = cli("eval", "run", windows, "--keep-newlines")
        assert (status, err.count("\n")) == (2, 1)
        assert r"windows.txt: character '\r' at position" in err


def test_a_text_without_white_space_is_scored_and_encoded_by_a_run_on_characters(cli, refused, place, monkeypatch):
    monkeypatch.setattr(pattern, "MAX_UNBROKEN", 1000)
    monkeypatch.setattr(corpora, "STRETCH", 500)
    (place / "dna.txt").write_text("ACGTTGCA" * 300)
    assert cli("train", "--corpus", "dna.txt", "--out", "run")[0] == 0
    figures = figures_of(cli("eval", "run", "dna.txt", "--json")[1])
    assert (figures["tokens"], figures["words"]) == (2399, 1)
    alone = ["--workers", 1]  # the other processes would not see the small stretches
    assert cli("tokenizer", "encode", "dna.txt", "--tokenizer", "run", "--out", "dna.bin", *alone)[0] == 0
    assert figures_of(cli("tokenizer", "stats", "dna.txt", "--tokenizer", "run", "--json")[1])["words"] == 1
    for arguments in (
        ["train", "--corpus", "dna.txt", "--preset", "stories", "--out", "pairs"],
        ["tokenizer", "train", "dna.txt", "--out", "pairs.json"],
        ["tokenizer", "encode", "dna.txt", "--out", "pairs.bin", *alone],
        ["tokenizer", "stats", "dna.txt"],
    ):
        assert "dna.txt: no white space in " in refused(*arguments)


def test_a_run_starts_from_another_one(cli, printed, refused, text_file, place):
    assert cli("train", "--corpus", text_file, "--preset", "stories", "--out", "one")[0] == 0
    out = printed("train", "--corpus", text_file, "--init", "one", "--set", "block_size=8", "--out", "two")
    assert "3 steps, from the weights of one" in out.replace("\n    ", " ")
    model, tokenizer = load_run("two")
    assert (model.block_size, tokenizer.n_vocab) == (8, load_run("one")[1].n_vocab)
    assert read_toml("two/config.toml")["data.init"] == str(place / "one")
    out = printed("train", "--resume", "two", "--steps", 2)
    assert "from the weights" not in out
    for arguments, message in (
        (["--resume", "two", "--init", "one"], "--init is for a new run"),
        (["--corpus", str(text_file), "--init", "one", "--set", "n_layer=3", "--out", "three"], "n_layer 1 and not 3"),
        (["--corpus", str(text_file), "--init", "one", "--tokenizer", "char", "--out", "three"], "another tokenizer"),
        (["--corpus", str(text_file), "--init", "nowhere", "--out", "three"], "nowhere: no model here"),
        (["--corpus", str(text_file), "--init", str(text_file), "--out", "three"], "text.txt: "),
    ):
        assert message in refused("train", *arguments)


def test_a_file_changes_the_preset_and_options_change_both(cli, text_file, place):
    (place / "my.toml").write_text('preset = "baby"\n[training]\nlr = 0.5\nseed = 3\nbatch_size = 2\n')
    out = ["--corpus", text_file, "--out", "new"]
    assert cli("train", "--config", "my.toml", "--seed", 4, "--set", "batch_size=3", "--set", "seed=5", *out)[0] == 0
    values = read_toml("new/config.toml")
    assert (values["preset"], values["model.dropout"]) == ("baby", 0.2)
    assert (values["training.lr"], values["training.seed"], values["training.batch_size"]) == (0.5, 5, 3)


@pytest.mark.parametrize("way", ["--steps", "--set", "--config"])
def test_every_way_to_ask_for_fewer_steps_shortens_the_warm_up(way, cli, text_file, place, monkeypatch):
    monkeypatch.setitem(PRESETS, "char-cpu", PRESETS["char-cpu"].changed({"steps": 90, "warmup": 60, "eval_every": 80}))
    (place / "few.toml").write_text("training.steps = 20\n")
    arguments = {"--steps": ["--steps", 20], "--set": ["--set", "steps=20"], "--config": ["--config", "few.toml"]}
    assert cli("train", "--corpus", text_file, *arguments[way], "--out", "new")[0] == 0
    values = read_toml("new/config.toml")
    assert [values[f"training.{name}"] for name in ("steps", "warmup", "eval_every")] == [20, 4, 5]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "learning_rate=1"], "unknown key 'learning_rate'"),
        (["--set", "training.warmpu=1"], "did you mean training.warmup?"),
        (["--set", "steps=many"], "training.steps: must be an integer, got 'many'"),
        (["--set", "lr=3", "--set", "training.lr=2"], "--set lr=3 and --set training.lr=2 set the same key"),
        (["--config", "none.toml"], "none.toml"),
        (["--set", "optimizer=adagrad"], "training.optimizer: must be 'adamw'"),
        (["--set", "batch_size=1000"], "batch_size is 1000, and the data have 457 windows: use a smaller"),
        (["--set", "batch_size=1000", "--plan"], "batch_size is 1000, and the data have 457 windows: use a smaller"),
        (["--data", "x.bin"], "x.bin"),
        (["--resume", "nowhere"], "give --out FOLDER for a new run, or --resume RUN"),
    ],
)
def test_wrong_settings_cost_one_line(arguments, message, refused, text_file, place):
    corpus = [] if "--data" in arguments else ["--corpus", text_file]
    assert message in refused("train", *corpus, *arguments, "--out", "new")
    assert not list(place.iterdir())


def test_a_run_that_is_not_there_cannot_be_resumed(cli):
    status, _, err = cli("train", "--resume", "nowhere")
    assert status == 2
    assert "nowhere: no run to resume here" in err


@pytest.fixture
def tokens(place):
    """Two token files, a.bin and b.bin, and their tokenizer.json."""
    text = "The cat sat on the mat, and the mat was flat.\n" * 60
    tokenizer = CharTokenizer.train(text)
    tokenizer.save("tokenizer.json")
    for name, content in (("a", text), ("b", text[::-1])):
        (place / f"{name}.txt").write_text(content)
        encode_file(tokenizer, f"{name}.txt", f"{name}.bin", workers=1)
    return tokenizer


def test_token_files_are_trained_on_and_resumed(cli, tokens, monkeypatch):
    arguments = ["train", "--data", "a.bin", "b.bin", "--weights", 0.7, 0.3, "--tokenizer", "tokenizer.json"]
    arguments += ["--val", "b.bin", "--steps", 6]
    assert cli(*arguments, "--out", "whole")[0] == 0
    with monkeypatch.context() as patch:
        stop_after(3, patch)
        assert cli(*arguments, "--out", "parts")[0] == 130
    assert cli("train", "--resume", "parts")[0] == 0
    assert losses_of("parts") == losses_of("whole")
    assert weights_of("parts") == weights_of("whole")
    assert load_run("parts")[1].n_vocab == tokens.n_vocab
    assert cli("train", "--data", "a.bin", "--tokenizer", "whole", "--out", "third")[0] == 0  # a run's tokenizer
    # With --corpus, a text replaces the token files of a configuration.
    arguments = ["--config", "whole/config.toml", "--corpus", "a.txt", "--tokenizer", "char", "--out", "text"]
    assert cli("train", *arguments)[0] == 0
    values = read_toml("text/config.toml")
    assert (values["data.files"], values["data.weights"], values["data.held_out"]) == ([], [], "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "a.bin"], "token files are encoded already: name their tokenizer"),
        (["--data", "a.bin", "--tokenizer", "gpt2"], "a.bin: its ids are of another tokenizer"),
        (["--data", "raw.bin", "--tokenizer", "tokenizer.json"], "raw.bin.json is missing"),
        (["--data", "raw.bin", "--tokenizer", "tokenizer.json", "--set", "data.dtype=uint16"], "token 70 is id 999"),
        (["--data", "short.bin", "--tokenizer", "tokenizer.json", "--set", "dtype=uint16"], "short.bin: its training"),
        (["--data", "a.bin", "--weights", "1", "2", "--tokenizer", "tokenizer.json"], "got 2 for 1 files: give"),
        (["--data", "a.bin", "--corpus", "a.txt"], "not both"),
    ],
)
def test_token_files_that_cannot_be_used_cost_one_line(arguments, message, refused, tokens, place):
    ids = np.arange(100, dtype="<u2") % 15
    ids[70] = 999
    ids.tofile("raw.bin")
    ids[:17].tofile("short.bin")
    assert message in refused("train", *arguments, "--out", "new")
    assert not (place / "new").exists()


@pytest.fixture
def fake_run():
    """The parts of a run that its words are made of, each number another one."""

    fields = {"loss": 1.5, "grad_norm": 4.5, "tokens_per_second": 77.0, "val_loss": 2.25}

    def make(results=None, **step):
        last = Step(step=9, lr=0.1, **fields | step)
        data = SimpleNamespace(summary="a text", heading="It writes", command=lambda folder: ["generate", folder])
        return SimpleNamespace(
            steps=[last],
            results=results,
            init=Path("base"),
            data=data,
            samples=[(9, "once")],
            folder=SimpleNamespace(path=Path("runs/x")),
            model=SimpleNamespace(num_parameters=lambda: 1234567),
            trainer=SimpleNamespace(step=9, skipped=3, optimizer="AdamW(lr=0.5)"),
            config=SimpleNamespace(training=SimpleNamespace(steps=11), data=SimpleNamespace(init="base")),
        )

    return make


def test_the_words_around_a_training_are_all_there(fake_run, monkeypatch):
    run = fake_run()
    words = "a text; 1,234,567 parameters; 11 steps"
    assert train.beginning(run) == f"{words}, resumed after step 9\nAdamW(lr=0.5)"
    run.steps = []
    assert train.beginning(run) == f"{words}, from the weights of base\nAdamW(lr=0.5)"
    run.init = None
    assert train.beginning(run) == f"{words}\nAdamW(lr=0.5)"
    monkeypatch.setattr(train, "processes", lambda: SimpleNamespace(size=4))
    first, second, third = train.beginning(run).split("\n")
    assert (first, second) == (f"{words} on 4 processes", "AdamW(lr=0.5)")
    assert third.startswith(f"to stop and save: kill -INT {os.getpid()} on {socket.gethostname()}; Ctrl-C")
    with pytest.raises(UsageError, match="--plan is for one process, and here are 4: call it without mpiexec"):
        train.alone("--plan")


def test_the_words_after_a_training_are_all_there(fake_run):
    results = {"sentences": 1234, "greedy": {"exact": 0.25, "bleu": 31.0}, "beam": {"exact": 0.5, "bleu": 42.0}}
    run = fake_run(results=results)
    ending = train._ending(run, 0, [Path("runs/x/a.json"), Path("runs/x/b.png")]).split("\n")
    assert ending[:3] == [
        "held-out loss 2.250 nats per token after 9 steps",
        "1,234 test sentences: greedy 25.0% exact, BLEU 31.0; beam 50.0% exact, BLEU 42.0",
        "3 steps were skipped: their loss or gradient was NaN or infinite",
    ]
    assert "b.png" in ending[3]
    assert ending[4:] == ["next:", "    tinygrad-llm generate runs/x"]
    run.trainer.skipped, run.results, run.steps = 0, {"accuracy": 1}, [dataclasses.replace(run.steps[0], val_loss=None)]
    ending = train._ending(run, 130, [Path("runs/x/a.json")]).split("\n")
    assert "a.json" in ending[0]
    assert ending[1:] == [
        "for pictures of losses and gradients: pip install 'tinygrad_llm[app]'",
        "next:",
        "    tinygrad-llm train --resume runs/x",
    ]


def test_the_figures_of_a_training_are_all_there(fake_run):
    figures = {"out": "runs/x", "steps": 9, "loss": 1.5, "val_loss": 2.25, "tokens_per_second": 77.0}
    figures |= {"parameters": 1234567, "skipped": 3}
    assert train._figures(fake_run()) == figures
    assert train._figures(fake_run(results={"exact": 1})) == figures | {"test": {"exact": 1}}


def test_the_remarks_of_a_step_are_all_there(fake_run):
    run = fake_run(skipped=True, z_score=9.0)
    assert watch._remarks(run, run.steps[0]) == [
        "step 9: skipped, its loss is 1.5, its gradient norm 4.5",
        "step 9: loss 1.500 is 9.0 standard deviations above the last hundred",
        "\nstep 9: held-out loss 2.250. It writes:\n    once\n",
    ]
    plain = dataclasses.replace(run.steps[0], skipped=False, z_score=None, val_loss=None)
    assert watch._remarks(run, plain) == []


def test_a_skipped_step_and_a_spike_are_printed(cli, text_file, monkeypatch):
    original = loop_module.Trainer.advance

    def advance(trainer):
        step = original(trainer)
        return dataclasses.replace(step, skipped=step.step == 2, z_score=9.0 if step.step == 3 else None)

    monkeypatch.setattr(loop_module.Trainer, "advance", advance)
    out = cli("train", "--corpus", text_file, "--out", "new")[1]
    assert "step 2: skipped" in out
    assert "is 9.0 standard deviations above" in out


def test_the_help_lists_every_key(cli):
    out = cli("train", "--help")[1]
    for key, _ in keys():
        assert key in out


def test_a_learning_rate_far_too_high_names_the_layer(cli, text_file):
    arguments = ["--corpus", text_file, "--out", "new", "--set", "lr=1e15", "--set", "warmup=0"]
    status, _, err = cli("train", *arguments)
    assert status == 3
    line = err.splitlines()[-1]
    assert "made NaN in its output" in line
    assert re.search(r"layer \S*[Tt]ransformer\.\w", line)
    assert line.endswith("the last good checkpoint is new/checkpoints/step-00000000.ckpt.safetensors")
    status, out, err = cli("train", "--resume", "new", "--steps", 2, "--set", "on_bad_step=skip", "--set", "lr=1e15")
    assert status == 3  # though each bad step is skipped
    assert "its training diverged" in out
    assert "step 2: the held-out loss is nan: " in err.splitlines()[-1]
    assert err.endswith("the last good checkpoint is new/checkpoints/step-00000000.ckpt.safetensors\n")


def test_a_kind_of_model_and_its_preset_fit_each_other(cli, text_file, toys, monkeypatch):
    arguments = ["train", "--corpus", text_file, "--out", "new"]
    status, _, err = cli(*arguments, "--model", "gtp")
    assert (status, "--model: got 'gtp': did you mean gpt" in err) == (2, True)
    assert cli(*arguments, "--model", "gpt")[0] == 0
    status, _, err = cli("train", "--resume", "new", "--model", "gpt")
    assert (status, "with its own configuration: leave out --model" in err) == (2, True)
