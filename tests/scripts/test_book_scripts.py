"""scripts/book: each lesson runs, agrees with the book, and shows every fact of its chapter."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tinygrad_llm
from tinygrad_llm.study.book import CHAPTERS, FACTS, NAMES
from tinygrad_llm.study.book.lesson import bars, beside, shades

FOLDER = Path(__file__).parents[2] / "scripts" / "book"
SCRIPTS = {
    "ch02": "ch02_text",
    "ch03": "ch03_attention",
    "ch04": "ch04_gpt",
    "ch05": "ch05_training",
    "ch06": "ch06_classifier",
    "ch07": "ch07_instructions",
    "apA": "appendix_a",
    "apD": "appendix_d",
    "apE": "appendix_e",
    "dpo": "dpo",
}
SLOW = {"ch02", "ch04", "ch05", "ch06", "ch07"}  # a second or more


def run(chapter, monkeypatch, capsys):
    """What a lesson prints, or nothing if it needs a file."""
    path = FOLDER / f"{SCRIPTS[chapter]}.py"
    monkeypatch.setattr(sys, "argv", [str(path)])
    try:
        runpy.run_path(str(path), run_name="__main__")
    except SystemExit as end:
        pytest.skip(str(end))
    return capsys.readouterr().out


@pytest.mark.parametrize("chapter", [pytest.param(c, marks=pytest.mark.slow) if c in SLOW else c for c in SCRIPTS])
def test_a_lesson_agrees_with_the_book(chapter, monkeypatch, capsys):
    out = run(chapter, monkeypatch, capsys)
    assert re.findall(r"^(\S+) DIFFERS", out, flags=re.M) == []
    assert out.count("agrees with the book") >= 2
    assert [line for line in out.splitlines() if len(line) > 80] == []


def test_the_lessons_show_every_fact_of_the_chapters():
    assert list(SCRIPTS) == list(CHAPTERS)
    assert {path.stem for path in FOLDER.glob("*.py")} == set(SCRIPTS.values())
    for chapter, name in SCRIPTS.items():
        source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
        assert set(re.findall(rf'"({chapter}-[0-9]+\+?)"', source)) == {
            f.id for f in FACTS.values() if f.chapter == chapter
        }
        assert source.count("\n# %%") >= 3


def test_a_number_that_differs_is_marked(capsys):
    beside("ch03-08", np.array([0.4306, 1.4561]))
    out = capsys.readouterr().out
    assert out.startswith("ch03-08 DIFFERS from the book. Seed 123; three uniform matrices")
    assert "  item 2 of 2 is the first that differs\n" in out
    assert "  0.4306 1.4551    0.4306 1.4561\n" in out
    beside("ch03-08", [0.4306])
    assert "1 items, and 2 are published" in capsys.readouterr().out


def test_what_takes_longer_or_needs_a_file_says_so(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["lesson"])
    beside("ch04-12")
    assert "ch04-12 takes longer: `tinygrad-llm book --show ch04-12`" in capsys.readouterr().out
    monkeypatch.setenv("TINYGRAD_LLM_DATA", str(tmp_path))
    beside("ch02-01")
    assert "download the-verdict" in capsys.readouterr().out


def test_a_lesson_runs_where_the_terminal_lacks_characters(tmp_path):
    command = [sys.executable, str(FOLDER / "appendix_a.py")]
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert "step 0      0.749  ???" in done.stdout


def test_pictures_of_letters(capsys):
    shades(np.array([[0.0, 0.1, 0.5, 1.0]]), ["row"])
    assert capsys.readouterr().out == "  row     ░░░▒▒▒███\n\n"
    bars(["a", "b"], [1.0, 100.0], low=0.1, high=100)
    one, other, _ = capsys.readouterr().out.splitlines()
    assert (one.count("█") * 3, len(other)) == (other.count("█"), 79)


def test_pictures_are_saved_where_a_folder_is_named(capsys, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sys, "argv", ["ch03.py", "--pictures", str(tmp_path / "new")])
    shades(np.array([[0.0, 1.0], [0.5, 0.5]]), ["a", "b"])
    bars(["a", "b"], [1.0, 100.0], low=0.1, high=100)
    saved = sorted((tmp_path / "new").iterdir())
    assert [path.read_bytes()[:4] for path in saved] == [b"\x89PNG"] * 2
    out = capsys.readouterr().out
    assert all(str(path) in out for path in saved)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(SystemExit, match="pip install matplotlib"):
        shades(np.eye(2))


def test_every_name_in_the_table_is_ours():
    for _, ours, _ in NAMES:
        found = tinygrad_llm
        for name in ours.split("."):
            found = getattr(found, name) if hasattr(found, name) else sys.modules[f"{found.__name__}.{name}"]
        assert callable(found), ours
