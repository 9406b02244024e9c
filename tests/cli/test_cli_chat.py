"""`tinygrad-llm chat` in the terminal and through pipes: answers, commands, interruption, and texts it refuses."""

import io
import json
import os
import re
import select
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from chat_models import ALPHABET, BYTES, alphabet, save_alphabet

from tinygrad_llm.models import GPT, GPTClassifier, GPTConfig
from tinygrad_llm.random import Generator


@pytest.fixture(scope="session")
def assistant(tmp_path_factory):
    """The folder of a model that answers with the alphabet and ends."""
    return save_alphabet(tmp_path_factory.mktemp("assistant"))


@pytest.fixture(scope="session")
def endless(tmp_path_factory):
    """The folder of a model that answers with the alphabet again and again, for at least some seconds."""
    return save_alphabet(tmp_path_factory.mktemp("endless"), ends=False, block_size=4000)


@pytest.fixture
def chat(cli, monkeypatch):
    """A function: (folder, the lines of the user, options) → (exit status, stdout, stderr)."""

    def call(folder, lines, *options):
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        return cli("chat", folder, "--style", "phi3", *options)

    return call


def saved(path):
    return [(message["role"], message["content"]) for message in json.loads(path.read_text())["messages"]]


# ---- through pipes -------------------------------------------------------------------------------------------------


def test_each_line_gets_an_answer_that_ends_at_end_of_text(chat, assistant):
    assert chat(assistant, ["hello", "", " /slash"]) == (0, f"{ALPHABET}\n{ALPHABET}\n", "")


def test_commands_change_the_conversation_and_save_it(chat, assistant, place):
    lines = [
        "one", "/reset", "/system be kind", "two", "/save a.json", "/system", "three", "/save a.json", "/quit",
        "no",
    ]  # fmt: skip
    status, out, err = chat(assistant, lines)
    assert (status, out) == (0, f"{ALPHABET}\n" * 3)
    turns = [("user", "two"), ("assistant", ALPHABET), ("user", "three"), ("assistant", ALPHABET)]
    assert saved(place / "a.json") == turns
    assert err.splitlines() == [
        "(a new conversation)",
        "(system: be kind)",
        "(saved to a.json)",
        "(system: none)",
        "(saved to a.json)",
    ]


def test_system_option_is_the_system_s_text(chat, assistant, place):
    assert chat(assistant, ["/save a.json"], "--system", "be kind")[0] == 0
    assert saved(place / "a.json") == [("system", "be kind")]


def test_save_replaces_no_file_of_others_and_reports_what_cannot_be_written(chat, assistant, place):
    (place / "mine.txt").write_text("mine")
    names = ["mine.txt", "none/a.json", ".", "a\0b", "~nobody-of-this-name/a", ""]
    status, _, err = chat(assistant, [f"/save {name}" for name in names])
    lines = err.splitlines()
    assert (status, len(lines)) == (0, len(names))
    assert "mine.txt: exists already: name another file" in lines[0]
    assert "none/a.json: cannot be written: No such file or directory" in lines[1]
    assert ".: exists already" in lines[2]
    assert all("cannot be written: " in line for line in lines[3:5])
    assert lines[5] == "(name a file: /save FILE)"
    assert (place / "mine.txt").read_text() == "mine"
    assert [path.name for path in place.iterdir()] == ["mine.txt"]


def test_an_unknown_command_shows_the_list(chat, assistant):
    status, out, err = chat(assistant, ["/exti", "/help"])
    assert (status, out) == (0, "")
    assert "unknown command /exti" in err
    assert err.count("/save FILE") == 2


def test_a_text_that_is_refused_is_one_line_and_the_next_is_answered(chat, assistant):
    status, out, err = chat(assistant, ["x" * 400, "a<|endoftext|>b", "hello"], "--no-crop")
    assert (status, out) == (2, f"{ALPHABET}\n")
    too_long, special = err.splitlines()
    assert re.fullmatch(r"\(the text has 400 tokens, and the model reads at most \d+ of it: shorten it.*\)", too_long)
    assert special == "(the text holds the special token '<|endoftext|>': leave it out)"


def test_a_text_that_is_too_long_loses_its_beginning_and_that_is_said(chat, assistant):
    status, out, err = chat(assistant, ["x" * 400])
    assert (status, out) == (0, f"{ALPHABET}\n")
    assert err == "(the text is longer than the 400 tokens that the model reads at once: its beginning is left out)\n"


def test_an_answer_that_is_cut_is_announced(chat, endless):
    status, out, err = chat(endless, ["hello"], "--max-new-tokens", 5)
    assert (status, out) == (0, "abcde\n")
    assert err == "(the answer is cut after 5 tokens, the most that it may have (--max-new-tokens))\n"


def test_answers_end_before_a_stop_string_and_lack_forbidden_tokens(chat, assistant):
    assert chat(assistant, ["hello"], "--stop", "klm", "--stop", "x") == (0, "abcdefghij\n", "")
    assert chat(assistant, ["hello"], "--forbid", "d", "--max-new-tokens", 4)[1] != "abcd\n"


def test_forgotten_turns_are_reported(chat, assistant):
    _, out, err = chat(assistant, ["hello"] * 5)
    assert out == f"{ALPHABET}\n" * 5
    assert "(earlier turns that no longer fit, and are not read: 1)" in err
    assert chat(assistant, ["hello"] * 5, "--history", 1)[2] == ""


def test_seed_decides_a_drawn_answer(chat):
    model = alphabet(ends=False)
    model.lm_head.weight.data[:] = 0  # every byte is as likely
    model.save_pretrained("even")
    BYTES.save("even/tokenizer.json")
    options = ["--temperature", 1, "--max-new-tokens", 8]
    answers = [chat("even", ["hello"], *options, "--seed", seed)[1] for seed in (1, 1, 2)]
    assert answers[0] == answers[1] != answers[2]


def test_damaged_weights_give_one_line(chat):
    model = alphabet()
    model.lm_head.weight.data[:] *= np.float32(1e38)
    model.save_pretrained("damaged")
    BYTES.save("damaged/tokenizer.json")
    status, _, err = chat("damaged", ["hello"])
    assert status == 2
    assert err.count("\n") == 1
    assert "scores are NaN or infinite" in err


def test_style_is_that_of_the_training(cli, monkeypatch, tmp_path):
    folder = save_alphabet(tmp_path)
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert cli("chat", folder) == (0, "", f"({folder} does not say that it is an assistant: it may not answer)\n")
    (tmp_path / "config.toml").write_text('[finetune]\nstyle = "phi3"\n')
    assert cli("chat", folder) == (0, "", "")
    (tmp_path / "config.toml").write_text('[finetune]\nstyle = "chatml"\n')
    status, _, err = cli("chat", folder)
    assert status == 2
    assert err.endswith("was trained with the unknown style 'chatml': choose a --style\n")
    assert cli("chat", folder, "--style", "alpaca")[0] == 0


MISTAKES = {
    "a model that reads less than the prompt": (["{short}"], "--style alpaca, even for an empty text: the prompt has"),
    "another style's prompt": (["{short}", "--style", "phi3"], "--style phi3, even for an empty text: the prompt has"),
    "a tokenizer without the prompt's characters": (["{letters}"], "--style alpaca, even for an empty text: character"),
    "a classifier": (["{classifier}"], "holds 'tinygrad_llm.GPTClassifier', .*`tinygrad-llm classify` reads it"),
    "no model": (["nowhere"], "nowhere: no model here"),
    "an unknown style": (["{short}", "--style", "alpacca"], "did you mean alpaca?"),
    "a temperature below 0": (["{short}", "--temperature", "-1"], "temperature must be ≥ 0"),
    "no tokens": (["{short}", "--max-new-tokens", "0"], "at least 1"),
    "a port that is none": (["{short}", "--web", "--port", "65536"], "--port: got '65536', but .* from 0 to 65535"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line(mistake, refused, runs, tmp_path):
    words, message = MISTAKES[mistake]
    base = GPT(GPTConfig(vocab_size=7, block_size=4, n_layer=1, n_head=1, n_embd=4))
    GPTClassifier.from_gpt(base, ["ham", "spam"], Generator(0)).save_pretrained(tmp_path / "classifier")
    folders = {"short": runs["stories"], "letters": runs["char-cpu"], "classifier": tmp_path / "classifier"}
    err = refused("chat", *(word.format(**folders) for word in words))
    assert re.search(message, err)


def test_bytes_that_are_not_utf8_are_read_as_one_unknown_character(cli, assistant, monkeypatch, place):
    lines = io.TextIOWrapper(io.BytesIO(b"caf\xe9\n/save a.json\n"), encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", lines)
    assert cli("chat", assistant, "--style", "phi3")[:2] == (0, f"{ALPHABET}\n")
    assert saved(place / "a.json")[0] == ("user", "caf\ufffd")


def test_without_standard_input_is_one_line(cli, assistant, monkeypatch):
    monkeypatch.setattr(sys, "stdin", None)
    status, out, err = cli("chat", assistant, "--style", "phi3")
    assert (status, out, err) == (2, "", "tinygrad-llm chat: there is no standard input to read from\n")


@pytest.mark.parametrize("terminal", [True, False])
def test_control_characters_of_an_answer_are_for_files_and_not_for_terminals(terminal, chat, monkeypatch):
    model = alphabet()
    weight = model.transformer.wte.weight.data
    weight[BYTES.encode("\n")] = np.eye(BYTES.n_vocab)[BYTES.encode("\x1b")]
    weight[BYTES.encode("\x1b")] = np.eye(BYTES.n_vocab)[BYTES.encode("y")]
    model.save_pretrained("escape")
    BYTES.save("escape/tokenizer.json")
    monkeypatch.setattr("sys.stdout.isatty", lambda: terminal, raising=False)
    assert chat("escape", ["hello"])[1] == ("\N{REPLACEMENT CHARACTER}yz\n" if terminal else "\x1byz\n")


def python(*args):
    return [sys.executable, "-W", "error", *args]


@pytest.mark.skipif(os.name != "posix", reason="signals are other ones here")
def test_ctrl_c_ends_a_program_that_reads_a_pipe(endless, popen):
    command = python("-m", "tinygrad_llm", "chat", endless, "--style", "phi3", "--max-new-tokens", "4000")
    process = popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(b"hello\nhello\n")
    process.stdin.close()
    assert process.stdout.read(3) == b"abc"
    process.send_signal(signal.SIGINT)
    assert process.stderr.read() == b"\nstopped\n"
    assert process.wait(60) == 130


# ---- in a terminal -------------------------------------------------------------------------------------------------

# The child makes the terminal its own, so that Ctrl-C there becomes SIGINT.
CHILD = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from tinygrad_llm.cli import main
sys.exit(main(sys.argv[1:]))
"""


class Screen:
    """The other end of a program's terminal."""

    def __init__(self, end, process):
        self.terminal, self.process, self.text = end, process, ""

    def type(self, text):
        os.write(self.terminal, text.encode())

    def until(self, pattern, typing=""):
        """Wait until the program has printed this; return it and what stood before it since the last call.

        `typing` is typed now, and again three times a second.
        """
        stop = time.monotonic() + 60
        again = time.monotonic()
        while not (found := re.search(pattern, self.text)):
            now = time.monotonic()
            assert now < stop, f"never saw {pattern!r}, but {self.text!r}"
            if typing and now >= again:
                self.type(typing)
                again = now + 0.3
            if select.select([self.terminal], [], [], 0.1 if typing else 1)[0]:
                self.text += os.read(self.terminal, 65536).decode(errors="replace")
        seen, self.text = self.text[: found.end()], self.text[found.end() :]
        return seen

    def end(self):
        """Type Ctrl-D until the program ends; return its status. What comes between two prompts may be lost."""
        for _ in range(200):
            self.type("\x04")
            try:
                return self.process.wait(0.3)
            except subprocess.TimeoutExpired:
                if select.select([self.terminal], [], [], 0)[0]:
                    self.text += os.read(self.terminal, 65536).decode(errors="replace")
        raise AssertionError(f"the program did not end: {self.text!r}")


@pytest.fixture
def screen(popen):
    """A function: arguments of `chat` → its Screen."""
    pty = pytest.importorskip("pty")
    ends = []

    def start(*args):
        ours, its = pty.openpty()
        ends.append(ours)
        process = popen(python("-c", CHILD, "chat", *args, "--style", "phi3"), stdin=its, stdout=its, stderr=its)
        os.close(its)
        return Screen(ours, process)

    yield start
    for end in ends:
        os.close(end)


PROMPT = r"you> "


def test_ctrl_c_stops_an_answer_and_not_the_program(screen, endless, place):
    chat = screen(endless, "--max-new-tokens", "4000")
    chat.until(PROMPT)
    chat.type("hello\n")
    chat.until("xyz abc")  # it streams: the whole answer takes seconds
    chat.type("\x03")
    chat.until(rf"… *\r\n{PROMPT}")
    # The keys are read before Ctrl-C, as by a person. Else Ctrl-C may throw away keys that Python saw coming: then
    # readline waits for others, and no signal ends its wait.
    chat.type("half a line")
    chat.until("half a line")
    # At the prompt it drops the line. readline misses a signal that comes shortly before it waits for keys.
    chat.until(rf"/quit or Ctrl-D ends\)\r\n{PROMPT}", typing="\x03")
    chat.type("/save a.json\n")
    chat.until(rf"saved to a\.json[^>]*\r\n{PROMPT}")  # a Ctrl-D before the prompt would be lost
    (_, asked), (_, answer) = saved(place / "a.json")
    assert asked == "hello"
    assert answer.startswith(ALPHABET)
    assert len(answer) < 3900  # stopped
    assert chat.end() == 0


def test_lines_can_be_edited_and_repeated_and_one_that_is_refused_ends_nothing(screen, assistant, place):
    pytest.importorskip("readline")
    chat = screen(assistant)
    chat.until(PROMPT)
    chat.type("hllo\x1b[D\x1b[D\x1b[De\n")  # three times left
    chat.until(rf"{ALPHABET}\r\n{PROMPT}")
    chat.type("\x1b[A!\n")  # up: the line before
    chat.until(rf"{ALPHABET}\r\n{PROMPT}")
    chat.type("/save a.json\n")
    chat.until("saved")
    assert [text for role, text in saved(place / "a.json") if role == "user"] == ["hello", "hello!"]
    chat.type("a<|endoftext|>\n")
    chat.until(rf"leave it out\)\r\n{PROMPT}")
    chat.type("/quit\n")
    assert chat.process.wait(60) == 0  # although a text was refused: its user saw it
