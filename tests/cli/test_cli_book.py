"""`tinygrad-llm book`: what it prints of the ledger, as text and as JSON, and its errors."""

import json

import pytest

from tinygrad_llm.study.book import FACTS, Fact


def test_a_chapter_is_printed_fact_by_fact(cli):
    status, out, err = cli("book", "ch03")
    assert (status, err) == (0, "")
    ids = [fact.id for fact in FACTS.values() if fact.chapter == "ch03"]
    assert [line.split()[0] for line in out.splitlines() if line.startswith("ch")] == ids
    assert out.splitlines()[-1] == f"{len(ids)} pass"
    assert "  book  print edition, CPU: 0.4306 1.4551\n  ours  0.4306 1.4551\n" in out


def test_json_holds_the_same(cli):
    status, out, _ = cli("book", "apA", "--json")
    rows = json.loads(out)
    assert (status, {row["status"] for row in rows}) == (0, {"pass"})
    assert next(row for row in rows if row["id"] == "apA-02")["ours"] == ["2213"]
    keys = {"id", "what", "origin", "tier", "needs", "published", "ours", "difference"}
    assert all(keys <= row.keys() and row["what"] for row in rows)


def test_one_fact_is_shown_with_its_code(printed):
    out = printed("book", "--show", "ch03-12")
    assert "SelfAttention(3, 2, rng=Generator(789))" in out
    assert "-0.0739 0.0713" in out


def test_a_wrong_number_fails(cli, monkeypatch):
    monkeypatch.setitem(FACTS, "ch03-99", Fact("ch03-99", "wrong", "1.0 2.0", lambda: [1.0, 3.0]))
    status, out, _ = cli("book", "ch03")
    assert status == 1
    assert "item 2 of 2 is the first that differs" in out
    assert out.splitlines()[-1].endswith("1 fail")


def test_a_fact_without_its_file_says_how_to_get_it(cli, printed, monkeypatch, tmp_path):
    monkeypatch.setenv("TINYGRAD_LLM_DATA", str(tmp_path))
    needing = Fact("ch03-99", "its length", "20479", lambda: 0, needs=("the-verdict",))
    monkeypatch.setitem(FACTS, "ch03-99", needing)
    status, out, _ = cli("book", "--show", "ch03-99", "--json")
    assert (status, json.loads(out)[0]["status"]) == (0, "needs")
    assert "ch03-99  needs a file\n" in printed("book", "--show", "ch03-99")
    out = printed("book", "ch03")
    assert "run `tinygrad-llm download the-verdict` first" in " ".join(out.split())
    assert out.splitlines()[-1].endswith("1 need a file")


def test_a_whole_training_runs_only_where_it_is_asked_for(cli, monkeypatch):
    for id in list(FACTS):
        monkeypatch.delitem(FACTS, id)
    monkeypatch.setitem(FACTS, "ch03-99", Fact("ch03-99", "a training", "1.0", lambda: 1.0, tier="slow"))
    for words, status in (((), "skipped"), (("--slow",), "pass"), (("--show", "ch03-99"), "pass")):
        assert [row["status"] for row in json.loads(cli("book", *words, "--json")[1])] == [status]
    assert cli("book")[1].endswith("1 need --slow\n")


@pytest.mark.parametrize("words", [["ch99"], ["--show", "ch03-13"]])
def test_unknown_names_are_refused(words, cli):
    status, _, err = cli("book", *words)
    assert status == 2
    assert len(err.splitlines()) == 1


def test_the_books_names_are_listed_beside_ours(cli, printed):
    out = printed("book", "--names")
    assert "GPTModel                   GPT\n" in out
    rows = json.loads(cli("book", "--names", "--json")[1])
    assert [row["ours"] for row in rows if row["book"] == "compute_dpo_loss"] == ["functional.dpo_loss"]
