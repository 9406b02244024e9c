"""`tinygrad-llm bench`: every figure there, in words, JSON and Markdown. No test asks how fast anything is."""

import json

import pytest

from tinygrad_llm import __version__
from tinygrad_llm.bench import BenchError, Timing
from tinygrad_llm.bench import tokenizer as subject


@pytest.fixture
def alone(monkeypatch):
    """As if no other package were installed."""
    monkeypatch.setattr(subject, "installed", lambda name: False)


def test_alone_on_a_tiny_corpus(alone, cli, text_file):
    status, out, err = cli("bench", "tokenizer", "--json", "--rounds", "1", "--corpus", text_file)
    figures = json.loads(out)
    assert status == 0
    assert err == "(tiktoken, tokenizers not installed: pip install tiktoken tokenizers)\n"
    assert figures["machine"]["cores"] >= 1
    assert figures["machine"]["tinygrad_llm"] == __version__
    size = len(text_file.read_bytes())
    names = ["encode text.txt, cold", "encode text.txt, warm", "decode text.txt", "train 0.0 MB to 4,096 tokens"]
    assert [row["measure"] for row in figures["rows"]] == names
    for row in figures["rows"]:
        assert (row["theirs"], row["ratio"], row["spread"]) == ({}, {}, {})
        seconds = row["ours"]["seconds"]
        assert seconds["min"] == seconds["median"] == seconds["max"] > 0
        assert seconds["rounds"] == [seconds["median"]]
        if "train" in row["measure"]:
            assert "mb_per_second" not in row["ours"]
        else:
            assert row["ours"]["mb_per_second"] == pytest.approx(size / seconds["median"] / 1e6)
            assert row["ours"]["construction_seconds"] > 0


@pytest.mark.parametrize("name", subject.THEIRS)
@pytest.mark.slow
def test_against_another_package(name, cli, text_file):
    pytest.importorskip(name)
    status, out, _ = cli("bench", "tokenizer", "--against", name, "--json", "--rounds", "2", "--corpus", text_file)
    assert status == 0
    rows = json.loads(out)["rows"]
    for row in rows:
        if name == "tiktoken" and "train" in row["measure"]:
            assert row["theirs"] == {}
            continue
        assert row["theirs"][name]["same_result"], row["measure"]
        assert row["theirs"][name]["version"]
        low, high = row["spread"][name]
        assert 0 < low <= high
        ours, theirs = row["ours"]["seconds"], row["theirs"][name]["seconds"]
        assert row["ratio"][name] == theirs["median"] / ours["median"]
    assert len(rows) == 4


@pytest.mark.parametrize("asked", [["tiktoken"], ["tokenizers", "tiktoken"]])
def test_a_package_that_was_asked_for_and_is_missing(asked, alone, cli):
    status, out, err = cli("bench", "tokenizer", "--against", *asked)
    assert (status, out) == (2, "")
    assert err == f"tinygrad-llm bench: {', '.join(asked)} not installed: pip install {' '.join(asked)}\n"


def test_a_failed_worker_costs_one_line(alone, cli, text_file, monkeypatch):
    def failed(*args):
        raise BenchError("tiktoken: RuntimeError: too\nhard")
        yield

    monkeypatch.setattr(subject, "measures", failed)
    status, out, err = cli("bench", "tokenizer", "--against", "--corpus", text_file)
    assert (status, out, err) == (2, "", "tinygrad-llm bench: tiktoken: RuntimeError: too hard\n")


@pytest.fixture
def fixed(monkeypatch):
    """Two measures of fixed figures: 6 MB by all three, of whom one errs; and seconds, by two."""

    def measures(against, rounds, corpora):
        assert (against, rounds, list(corpora)) == (["tiktoken", "tokenizers"], 7, ["text.txt"])
        about = {"version": "1.2"}
        yield subject.Measure(
            "encode",
            6_000_000,
            [
                Timing("tinygrad_llm", [1.0, 2.0, 3.0], "right"),
                Timing("tiktoken", [4.0, 3.0, 3.0], "right", about),
                Timing("tokenizers", [8.0, 8.0, 6.0], "wrong", about),
            ],
        )
        yield subject.Measure(
            "train", None, [Timing("tinygrad_llm", [1.0], "a"), Timing("tokenizers", [1.5], "a", about)]
        )

    monkeypatch.setattr(subject, "measures", measures)
    monkeypatch.setattr(subject, "installed", lambda name: True)


CELLS = [
    ["", "tinygrad_llm", "tiktoken", "tokenizers", "ratio to tiktoken", "ratio to tokenizers"],
    [
        "encode", "3.0 (2.0–6.0) MB/s", "2.0 (1.5–2.0) MB/s", "0.8 (0.8–1.0) MB/s",
        "1.50 (1.00–4.00)", "4.00 (2.00–8.00)",
    ],
    ["train", "1.00 (1.00–1.00) s", "–", "1.50 (1.50–1.50) s", "–", "1.50 (1.50–1.50)"],
]  # fmt: skip


@pytest.mark.usefixtures("fixed")
def test_the_table_is_aligned(cli, text_file):
    status, out, err = cli("bench", "tokenizer", "--corpus", text_file)
    lines = out.splitlines()
    assert status == 0
    assert err == "encode: done\ntrain: done\n"
    starts = [lines[0].index(cell) for cell in CELLS[0][1:]]
    for line, cells in zip(lines, CELLS, strict=False):
        assert line.split() == " ".join(cells).split()
        assert [line.index(cell, start) for cell, start in zip(cells[1:], starts, strict=True)] == starts
    assert f"tinygrad_llm {__version__}, tiktoken 1.2, tokenizers 1.2" in out
    assert lines[-1] == "encode: tokenizers gives another result than tinygrad_llm"


@pytest.mark.usefixtures("fixed")
def test_the_markdown_table(cli, text_file):
    _, out, _ = cli("bench", "tokenizer", "--markdown", "--corpus", text_file)
    head, rule, *rows = [line[1:-1].split("|") for line in out.splitlines() if line.startswith("|")]
    assert [[cell.strip() for cell in row] for row in (head, *rows)] == CELLS
    assert [cell.strip() for cell in rule] == ["---"] * 6


@pytest.mark.usefixtures("fixed")
def test_json_says_who_gives_another_result(cli, text_file):
    encode, train = json.loads(cli("bench", "tokenizer", "--json", "--corpus", text_file)[1])["rows"]
    assert [encode["theirs"][name]["same_result"] for name in subject.THEIRS] == [True, False]
    assert encode["ratio"] == {"tiktoken": 1.5, "tokenizers": 4.0}
    assert encode["spread"] == {"tiktoken": [1.0, 4.0], "tokenizers": [2.0, 8.0]}
    assert encode["theirs"]["tokenizers"]["mb_per_second"] == 0.75
    assert train["ratio"] == {"tokenizers": 1.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("bench", "SUBJECT"),
        ("bench abacus", "abacus"),
        ("bench tokenizer --against torch", "torch"),
        ("bench tokenizer --rounds 0", "'0' is not an integer of at least 1"),
        ("bench tokenizer --json --markdown", "not allowed with"),
        ("bench tokenizer --against --corpus none.txt", "none.txt: no such file"),
    ],
)
def test_a_mistake_costs_one_line(arguments, message, cli):
    status, out, err = cli(*arguments.split())
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_the_subject_helps(cli):
    status, out, _ = cli("bench", "tokenizer", "--help")
    assert status == 0
    assert "example: tinygrad-llm bench tokenizer" in " ".join(out.split())
