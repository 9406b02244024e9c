"""Progress: a bar where there is a terminal and tqdm, plain lines elsewhere."""

import io
import shlex
import sys
from pathlib import Path

import pytest

from tinygrad_llm.cli import progress
from tinygrad_llm.cli.watch import StepBar
from tinygrad_llm.training import Step


class Terminal(io.StringIO):
    def isatty(self):
        return True


def steps(n):
    yield Step(0, 4.2, 0.0, 0.0, 0.0, 4.2)
    for step in range(1, n + 1):
        yield Step(step, 4 - step / n, 0.1, 1.0, 12345.6, 3.21 if step == n // 2 else None)


def show_all(n, file):
    bar = StepBar(n, file)
    for step in steps(n):
        bar.show(step)
    bar.close()
    return file.getvalue()


def test_plain_lines_carry_loss_speed_and_time_left(monkeypatch):
    clock = iter(range(100, 300))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    lines = show_all(4, io.StringIO()).splitlines()
    # A second passes from line to line, and each is a step.
    assert lines == [
        "step 1/4  loss 3.750  held-out 4.200  12,346 tokens/s  3 s left",
        "step 2/4  loss 3.500  held-out 3.210  12,346 tokens/s  2 s left",
        "step 3/4  loss 3.250  held-out 3.210  12,346 tokens/s  1 s left",
        "step 4/4  loss 3.000  held-out 3.210  12,346 tokens/s  0 s left",
    ]


@pytest.mark.parametrize("n", [1, 19, 20, 21, 1000, 1001])
def test_plain_lines_are_few_and_the_last_step_has_one(n):
    lines = show_all(n, io.StringIO()).splitlines()
    assert len(lines) <= 40
    assert lines[-1].startswith(f"step {n}/{n} ")


def test_a_terminal_without_tqdm_gets_plain_lines(monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    text = show_all(4, Terminal())
    assert text.count("\n") == 4
    assert "step 4/4  loss 3.000" in text


def test_a_terminal_gets_a_bar():
    pytest.importorskip("tqdm")
    text = show_all(40, Terminal())
    final = text.rstrip().split("\r")[-1]
    for part in ("40/40", "loss 3.000", "held-out 3.210", "12,346 tokens/s", "00:00 left"):
        assert part in final


@pytest.mark.parametrize("columns", [120, 80, 60, 40])
def test_a_bar_keeps_ten_columns(columns, monkeypatch):
    """The words that do not fit next to it are left out."""
    tqdm = pytest.importorskip("tqdm")
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(tqdm.std, "_screen_shape_wrapper", lambda: lambda file: (columns, 24))
    final = show_all(2000, Terminal()).rstrip().split("\r")[-1]
    assert final.startswith("2000/2000 |")
    assert len(final) <= columns
    assert len(final.split("|")[1]) >= 10
    assert ("12,346 tokens/s" in final) is (columns >= 80)


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setenv("TERM", "dumb")
    assert "\r" not in show_all(40, Terminal())


def test_a_file_gets_no_bar():
    pytest.importorskip("tqdm")
    assert "\r" not in show_all(40, io.StringIO())


@pytest.mark.parametrize("terminal", [True, False])
def test_words_between_the_steps_are_whole_lines(terminal, capsys):
    bar = StepBar(2, Terminal() if terminal else io.StringIO())
    other = io.StringIO()
    bar.write("to stdout")
    bar.write("to a file", other)
    bar.close()
    assert capsys.readouterr().out == "to stdout\n"
    assert other.getvalue() == "to a file\n"


def test_a_resumed_run_counts_its_own_steps_for_the_time_left(monkeypatch):
    clock = iter(range(100, 300))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    file = io.StringIO()
    bar = StepBar(1000, file, done=996)
    for step in (997, 998):
        bar.show(Step(step, 3.0, 0.1, 1.0, 12345.6, None))
    assert [line.rpartition("  ")[2] for line in file.getvalue().splitlines()] == ["3 s left", "2 s left"]


def test_without_stderr_nothing_is_shown(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", None)
    bar = StepBar(4)
    for step in steps(4):
        bar.show(step)
    bar.close()
    assert capsys.readouterr().out == ""


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that refuses every word")
def test_lines_that_cannot_be_written_raise_nothing():
    with open("/dev/full", "w") as file:
        progress.say("words", file)
        progress.say("more", file)


def test_plain_lines_have_the_unit_the_words_and_the_time_left_every_five_seconds(monkeypatch):
    now, file = [100.0], io.StringIO()
    monkeypatch.setattr(progress, "_SECONDS", 5.0)  # tests of other things see no line
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    bar = progress.Bar("B", "data", 4_000_000, done=1_000_000, file=file)
    texts = progress.Bar("token", file=file)
    for second, done, total, words in (
        (4.75, 2_000_000, None, []),
        (5, 2_000_000, None, ["soon"]),
        (9.75, 3_000_000, None, []),
        (10, 3_000_000, 5_000_000, []),
    ):
        now[0] = 100 + second
        bar.update(done, total, words)
    assert file.getvalue() == "data 2.0/4.0 MB  soon  10 s left\ndata 3.0/5.0 MB  10 s left\n"
    texts.update(20_000)
    assert file.getvalue().endswith("left\ntoken 20000\n")
    assert (bar._rate(3_000_000), texts._rate(20_000)) == (["0.2 MB/s"], ["2,000 token/s"])
    assert bar._rate(1_000_000) == texts._rate(0) == []


def test_the_bar_of_a_block_is_closed_also_after_an_error(monkeypatch):
    closed = []

    def interrupted():
        with progress.progress("B", "read", 9) as update:
            update(3)
            assert not closed
            raise KeyboardInterrupt

    monkeypatch.setattr(progress.Bar, "close", lambda bar: closed.append((bar.unit, bar.name, bar.total)))
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert closed == [("B", "read", 9)]


def test_files_are_listed_by_folder_and_commands_can_be_copied():
    assert progress.listed([Path("a/x"), Path("b/y"), Path("a/z")]) == "wrote a: x, z\nwrote b: y"
    assert progress.command_line(["go", "two words", "$x", "a.b"], "  ") == "  go \"two words\" '$x' a.b"
    words = ["w" * 30] * 6
    lines = progress.command_line(words, "  ").split("\n")
    assert [line.split() for line in lines] == [[*words[:2], "\\"]] * 2 + [words[:2]]
    assert [len(line) - len(line.lstrip()) for line in lines] == [2, 6, 6]
    assert shlex.split("".join(lines).replace("\\", "")) == words
    for length, count in ((74, 1), (75, 2)):  # the longest line has 80 columns, with the " \\" that continues it
        assert len(progress.command_line(["abc", "w" * length]).split("\n")) == count


def test_the_loss_before_training_is_no_step_of_the_bar(monkeypatch):
    monkeypatch.setattr(progress, "_DELAY", 0.0)
    monkeypatch.setattr(progress, "_SECONDS", 0.0)
    out = io.StringIO()
    bar = StepBar(2, out)
    bar.show(Step(0, 4.0, 0.0, 0.0, 0.0, 4.5))
    assert out.getvalue() == ""
    bar.show(Step(1, 3.0, 0.1, 1.0, 900.0, None))
    assert out.getvalue().startswith("step 1/2  loss 3.000  held-out 4.500  900 tokens/s")
    pytest.importorskip("tqdm")
    bar = StepBar(2, terminal := Terminal())
    bar.show(Step(0, 4.0, 0.0, 0.0, 0.0, 4.5))
    bar.write("a sample", io.StringIO())  # draws the bar again
    bar.close()
    assert "tokens/s" not in terminal.getvalue()
