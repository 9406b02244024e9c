"""All that the command line prints for readers has at most 80 columns, and words stay whole."""

import argparse
import contextlib
import importlib.util
import inspect
import os
import re
import select
import shutil
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.bench import machine
from tinygrad_llm.cli import COMMANDS, explain, progress
from tinygrad_llm.cli import _load as load
from tinygrad_llm.study import subjects
from tinygrad_llm.study.documentation import document

WIDTH = 80


def columns(line):
    """How many columns a terminal needs for a line."""
    line = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line)
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def too_wide(text):
    return [line for line in re.split(r"[\r\n]", text) if columns(line) > WIDTH]


def actions(name):
    """The subcommands of a command."""
    parser = argparse.ArgumentParser()
    load(name).add_arguments(parser)
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return [action for group in groups for action in group.choices]


HELP = [[], *([name] for name in COMMANDS), *([name, action] for name in COMMANDS for action in actions(name))]


@pytest.mark.parametrize("words", HELP, ids=" ".join)
def test_help_fits(words, printed):
    out = printed(*words, "--help")
    assert too_wide(out) == []


OUTPUTS = {
    "gradcheck": "gradcheck layer_norm F.binary_cross_entropy_with_logits AdamW",
    "gradcheck --mutants": "gradcheck power --mutants",
    "gradcheck --curve": "gradcheck --curve tanh",
    "explain": "explain",
    "explain a kernel": "explain layer_norm",
    "explain a function": "explain F.scaled_dot_product_attention",
    "explain a layer": "explain MultiHeadAttention",
    "explain an optimizer": "explain Adam",
    "book": "book ch03",
    "book --show": "book --show ch03-19",
    "trace": "trace --example attention --print",
    "trace --list": "trace --list",
    "doctor": "doctor",
    "eval": "eval {run} {text}",
    "eval --choices": "eval {pairs} --choices {choices}",
    "eval --next": "eval {run} --next cat",
    "train": "train --corpus {text} --out new",
    "train --plan": "train --corpus {text} --plan",
    "train --resume": "train --resume {again} --steps 2",
    "sweep": "sweep {sweep} --out new",
    "demo": "demo --steps 2",
    "convert": "convert {run} new --to huggingface",
    "tokenizer encode": "tokenizer encode tea",
    "tokenizer explain": "tokenizer explain internationalization",
    "tokenizer stats": "tokenizer stats {text}",
}


@pytest.fixture
def files(place, runs, text_file, toys, monkeypatch):
    speeds = {"matmul_gflops": 123.4, "matvec_gbytes": 33.3, "copy_gbytes": 42.1, "triad_gbytes": 40.1}
    monkeypatch.setattr(machine, "measure", lambda seconds, threads=None: speeds)
    sweep = place / "sweep.toml"
    sweep.write_text("[grid]\n" + "".join(f"training.{key} = [0.01]\n" for key in ("lr", "weight_decay", "eps")))
    shutil.copytree(runs["char-cpu"], "again")
    choices = place / "choices.jsonl"
    choices.write_text('{"ctx": "The cat sat on the", "endings": ["mat", "cat", "hat", "rat"], "label": 0}\n' * 20)
    return {
        "choices": choices,
        "run": runs["char-cpu"],
        "pairs": runs["stories"],
        "text": text_file,
        "sweep": sweep,
        "again": "again",
    }


IN_A_FILE = ("gradcheck", "explain", "eval", "train")  # the others only differ in colors there


@pytest.mark.parametrize(
    ("what", "terminal"), [*((what, True) for what in OUTPUTS), *((what, False) for what in IN_A_FILE)]
)
def test_output_fits(what, terminal, cli, files, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal)
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal)
    status, out, err = cli(*(word.format(**files) for word in OUTPUTS[what].split()))
    assert status == 0
    # A path of the test's own folder may stick out, so that it can be copied.
    assert [line for line in too_wide(out) if str(files["text"].parent) not in line] == []
    assert [line for line in too_wide(err) if str(files["text"].parent) not in line] == []


def test_a_classifier_and_its_verdicts_fit(printed, files, place):
    rows = "".join(f"{('ham', 'spam')[i % 2]}\tthe cat {('sat', 'won')[i % 2]} on mat {i}\n" for i in range(40))
    (place / "messages.tsv").write_text(rows)
    (place / "lines.txt").write_text("the cat sat on the mat, " * 9 + "\n")
    words = ["finetune", "classifier", "messages.tsv", "--base", files["pairs"], "--out", "spam", "--steps", 2]
    for command in (
        words,
        ["classify", "spam", "the cat sat on the mat, " * 9, "--explain"],
        ["classify", "spam", "--file", "lines.txt"],
    ):
        out = printed(*command)
        assert too_wide(out) == []
        if "--explain" in command:
            first, second = out.splitlines()[:2]
            assert second.startswith(" " * first.index("the cat")), "under the text, not under the label"


def on_a_terminal(popen, *words):
    """What a command writes on a terminal of 80 columns."""
    termios = pytest.importorskip("termios")
    ours, its = os.openpty()
    termios.tcsetwinsize(its, (24, WIDTH))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    command = [sys.executable, "-m", "tinygrad_llm", *map(str, words)]
    process = popen(command, stdin=its, stdout=its, stderr=its, env=environment)
    os.close(its)
    written = b""
    with contextlib.suppress(OSError):  # the other end is closed
        while select.select([ours], [], [], 60)[0] and (more := os.read(ours, 65536)):
            written += more
    os.close(ours)
    assert process.wait(60) == 0
    return written.decode()


def test_training_and_writing_fit_on_a_real_terminal(popen, cli, runs, text_file):
    shown = on_a_terminal(popen, "train", "--resume", shutil.copytree(runs["char-cpu"], "again"), "--steps", 2)
    assert too_wide(shown) == []
    if importlib.util.find_spec("tqdm"):
        bars = re.findall(r"5/5 \|(.*?)\|", shown)
        assert bars
        assert min(map(len, bars)) >= 10
    shown = on_a_terminal(popen, "generate", runs["char-cpu"], "--prompt", "The cat sat on", "--max-new-tokens", 300)
    assert too_wide(shown) == []
    _, piped, _ = cli("generate", runs["char-cpu"], "--prompt", "The cat sat on", "--max-new-tokens", 300)
    assert piped.split() == shown.split()


def test_every_explanation_fits_and_loses_no_word(for_each):
    def check(subject):
        doc = inspect.getdoc(subject.thing)
        shown = explain._reflowed(doc)
        assert too_wide(shown) == []
        assert shown.split() == doc.split()
        source = document(subject.thing).source
        code = "\n".join(map(explain.folded_code, source.splitlines()))
        assert too_wide(code) == []
        assert sorted(code.replace("#", " ").split()) == sorted(source.replace("#", " ").split())
        assert too_wide(explain._cut(f"  {subject.name:<30} {subject.headline}")) == []

    for_each(subjects().values(), check)


def test_lines_are_joined_only_within_a_sentence():
    prose = "word " * 22 + "end"  # 113 columns, and 4 before it: "another" did not fit
    formulas = "y = x.   dx = g" + " · g" * 25
    text = f"{prose}\nanother sentence.\n{formulas}\nanother formula\n\nArgs:     x: {prose[:104]}\n          again."
    lines = explain._reflowed(text).split("\n")
    joined = [line.strip() for line in lines]
    assert joined[1].endswith("end another sentence.")
    assert "another formula" in joined
    assert lines[-1].startswith("          ")
    assert "again." in lines[-1].split()


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("    x = 1  # short", "    x = 1  # short"),
        (
            "    x = 1  # " + "long " * 20,
            "    # " + ("long " * 15).strip() + "\n    # " + ("long " * 5).strip() + "\n    x = 1",
        ),
        ("    # " + "long " * 20, "    # " + ("long " * 15).strip() + "\n    # " + ("long " * 5).strip()),
        ("    f(" + "long, " * 20 + ")", "    f(" + ("long, " * 12).strip() + "\n        " + ("long, " * 8) + ")"),
    ],
    ids=["short", "comment behind code", "comment", "code"],
)
def test_long_code_is_folded(line, shown):
    assert explain.folded_code(line) == shown


# ---- text ------------------------------------------------------------------------------------------------------------

texts = st.text(st.sampled_from("ab \n"), max_size=300)


@given(texts, st.integers(1, 9))
def test_flowing_text_breaks_between_words_only(text, size):
    text += "\n"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "12")
        shown = "".join(progress.flowing(text[i : i + size] for i in range(0, len(text), size)))
    assert shown.split() == text.split()
    for line in shown.split("\n"):
        assert len(line.rstrip()) <= 12 or len(line.split()) == 1
    if all(len(line) <= 12 for line in text.split("\n")):
        assert shown == text


def test_a_model_cannot_write_to_the_terminal_s_controls():
    text = "a\x1b[2J\tb\x9b\r\x00c\n"
    harmless = "a\N{REPLACEMENT CHARACTER}[2J\tb" + 3 * "\N{REPLACEMENT CHARACTER}" + "c\n"
    assert "".join(progress.flowing([text])) == harmless
    assert progress.sample_lines(text, "").split() == harmless.split()
    assert progress.sample_lines(" \n", "  ") == "  (nothing: it ends the text at once)"


def test_flowing_text_is_shown_word_by_word(monkeypatch):
    monkeypatch.setenv("COLUMNS", "9")
    pieces = iter(["On", "ce upon", " a ", "time", "\n"])
    shown = progress.flowing(pieces)
    assert next(shown) == "Once"
    assert list(shown) == [" upon", "\na", " time", "\n"]
    assert "".join(progress.flowing(["one two\nthree four\n"])) == "one two\nthree\nfour\n"
    assert "".join(progress.flowing(["longer than nine\n"])) == "longer\nthan nine\n"
    assert "".join(progress.flowing(["much-longer than that-other one\n"])) == "much-longer\nthan\nthat-other\none\n"


@given(texts)
def test_folded_text_keeps_its_words_and_lines(text):
    folded = progress.fold(text, "  ", "    ")
    assert folded.split() == text.split()
    assert all(len(line) <= WIDTH or len(line.split()) == 1 for line in folded.split("\n"))


def test_a_command_is_continued_as_a_shell_does():
    words = ["tinygrad-llm", "generate", "a" * 30, "--prompt", "Once there was", "--seed", "7", "it's"]
    assert progress.command_line(words) == (
        f"tinygrad-llm generate {'a' * 30} --prompt \"Once there was\" \\\n    --seed 7 'it'\"'\"'s'"
    )
