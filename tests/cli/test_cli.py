"""The command line as a whole: help, loading, interruption and closed pipes."""

import argparse
import contextlib
import inspect
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tinygrad_llm import __version__
from tinygrad_llm import cli as command_line
from tinygrad_llm.cli import COMMANDS, main
from tinygrad_llm.gradcheck import curve
from tinygrad_llm.tokenizer import CharTokenizer


def python(*args):
    return [sys.executable, *args]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name, cli):
    status, out, err = cli(name, "--help")
    assert (status, err) == (0, "")
    example = " ".join(out.partition("example: ")[2].split())
    assert example.startswith(f"tinygrad-llm {name}")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_accepted(name, cli):
    _, *words = shlex.split(command_line._load(name).EXAMPLE)
    parses(words)


@pytest.mark.parametrize("action", ["train", "encode", "decode"])
def test_every_action_of_tokenizer_has_help(action, printed):
    out = printed("tokenizer", action, "--help")
    assert out.startswith(f"usage: tinygrad-llm tokenizer {action}")


def options_of(parser):
    """The names of all options and arguments of a parser, also those of its actions."""
    for action in parser._actions:
        yield action.dest
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from options_of(below)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_read(name):
    """By the command itself, or by a function of another file that gets its arguments."""
    module, parser = command_line._load(name), argparse.ArgumentParser()
    module.add_arguments(parser)
    beside = sorted(Path(module.__file__).parent.glob(f"{name}_*.py"))  # loaded only when they are needed
    sources = [inspect.getsource(module), *(path.read_text(encoding="utf-8") for path in beside)]
    for function in filter(inspect.isfunction, vars(module).values()):
        if "args" in inspect.signature(function).parameters and function.__module__ != module.__name__:
            place = function.__module__.rpartition(".")[2]
            whole = place not in COMMANDS and place != "options"  # a file of this command alone
            sources.append(inspect.getsource(inspect.getmodule(function) if whole else function))
    read = re.findall(r"\bargs\.(\w+)|vars\(args\)\.get\(\"(\w+)", "".join(sources))
    assert set(options_of(parser)) - {one for pair in read for one in pair} == {"help"}


def parses(words):
    """Parse the arguments of a command without running it."""
    with pytest.MonkeyPatch.context() as patch:
        seen = []
        patch.setattr(command_line._load(words[0]), "run", lambda args: seen.append(args) or 0)
        assert main(words) == 0
    return seen[0]


def test_help_lists_every_command(printed):
    out = printed("--help")
    for name, summary in COMMANDS.items():
        assert name in out
        assert summary.split()[0] in out


def test_version_is_the_package_s(cli):
    assert cli("--version") == (0, f"tinygrad-llm {__version__}\n", "")


TERMINALS = {
    "a terminal": (True, {}, True),
    "NO_COLOR": (True, {"NO_COLOR": "1"}, False),
    "an empty NO_COLOR": (True, {"NO_COLOR": ""}, True),
    "TERM=dumb": (True, {"TERM": "dumb"}, False),
    "a file": (False, {}, False),
}


@pytest.mark.parametrize("kind", TERMINALS)
def test_colors_are_for_terminals_that_have_them(kind, cli, monkeypatch):
    terminal, variables, colored = TERMINALS[kind]
    for name, value in {"NO_COLOR": "", "TERM": "xterm", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    for words in (["explain", "tanh"], ["gradcheck", "tanh"], ["tokenizer", "explain", "tea"]):
        assert ("\x1b" in cli(*words)[1]) is colored


WRITERS = {
    "train": "train --corpus {text} --out new",
    "demo": "demo --steps 1 --out new",
    "convert": "convert {run} new",
    "tokenizer train": "tokenizer train {text} --vocab-size 260 --out new.json",
    "tokenizer encode": "tokenizer encode {text} --tokenizer {run} --out new.bin",
    "tokenizer export": "tokenizer export {run} new",
    "gradcheck": "gradcheck --curve tanh --out new.png",
}


@pytest.mark.usefixtures("toys")
@pytest.mark.parametrize("name", WRITERS)
def test_what_is_there_is_replaced_only_with_overwrite(
    name, cli, refused, runs, text_file, place, snapshot, monkeypatch
):
    monkeypatch.setattr(curve, "picture", lambda points, path, title: path.write_bytes(b"a picture"))
    words = WRITERS[name].format(text=text_file, run=runs["stories"]).split()
    assert cli(*words)[0] == 0
    whole = snapshot(place)
    assert "--overwrite" in refused(*words)
    assert snapshot(place) == whole
    for path in (path for path, data in whole.items() if data is not None and path.suffix in (".json", ".bin", ".png")):
        path.write_bytes(b"damaged")
    assert cli(*words, "--overwrite")[0] == 0
    again = snapshot(place)
    assert set(again) == set(whole)
    assert not any(data == b"damaged" for data in again.values())


def test_python_m_is_the_same_command():
    command = python("-m", "tinygrad_llm", "--version")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"tinygrad-llm {__version__}\n", "")


def test_a_console_that_lacks_a_character_shows_a_question_mark(place):
    CharTokenizer("é").save(place / "one.json")
    done = subprocess.run(
        python("-m", "tinygrad_llm", "tokenizer", "decode", "0", "--tokenizer", "one.json"),
        capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, b"?", b"")


def test_ctrl_c_prints_one_word(cli, monkeypatch):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(command_line._load("doctor"), "run", interrupted)
    assert cli("doctor") == (130, "", "\nstopped\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_behind_stdout_is_one_line(monkeypatch, capsys):
    with contextlib.suppress(OSError), open("/dev/full", "w") as full:  # closing it fails too
        monkeypatch.setattr(sys, "stdout", full)
        assert main(["explain", "gelu"]) == 2
    assert capsys.readouterr().err == "tinygrad-llm explain: stdout: no space left on device\n"


@pytest.mark.parametrize(
    "json", [pytest.param([], id="words"), pytest.param(["--json"], id="json", marks=pytest.mark.slow)]
)
@pytest.mark.skipif(os.name != "posix", reason="pipes close otherwise here")
def test_a_closed_pipe_is_not_an_error(json, runs, popen):
    """`generate … | head -c 1`: the pipe is closed after the first character (text), or before any (JSON)."""
    command = python("-m", "tinygrad_llm", "generate", str(runs["char-cpu"]), "--prompt", "cat", *json)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    process = popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered)
    if not json:
        process.stdout.read(1)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 1


def test_a_command_restores_the_signal_handlers(cli):
    before = signal.getsignal(signal.SIGTERM)
    assert cli("tokenizer", "encode", "a")[0] == 0
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_first_of_several_processes_prints_help(rank, cli, monkeypatch):
    monkeypatch.setattr(command_line, "started", lambda: (rank, 2))
    assert ("usage: tinygrad-llm" in cli("--help")[1]) == (rank == 0)
