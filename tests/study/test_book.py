"""The ledger of the book's numbers: every fact that takes no minutes passes, and a wrong number is noticed."""

import math

import numpy as np
import pytest

from tinygrad_llm import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.study import book
from tinygrad_llm.study.book import FACTS, Fact, check, compare

QUICK = [fact for fact in FACTS.values() if fact.tier == "fast" and not fact.outside]


@pytest.mark.parametrize("fact", QUICK, ids=lambda fact: fact.id)
def test_a_published_number_comes_out(fact):
    result = check(fact)
    if result.status == "needs":
        pytest.skip(result.message)
    assert result.status == "pass", (result.message, fact.items, result.ours)


@pytest.mark.slow
@pytest.mark.parametrize("fact", [fact for fact in FACTS.values() if fact.tier == "large"], ids=lambda fact: fact.id)
def test_a_number_of_the_large_model_comes_out(fact):
    test_a_published_number_comes_out(fact)


@pytest.mark.slow
def test_facts_of_published_models_can_be_computed(monkeypatch, for_each):
    """OpenAI's weights are not at hand: a small model with the same vocabulary takes their place, and gives as many."""
    config = GPTConfig(n_embd=8, n_layer=1, n_head=2)
    monkeypatch.setattr(GPT, "from_pretrained", lambda name: GPT(config, Generator(1)))
    facts = [fact for fact in FACTS.values() if any(name.startswith("gpt2") for name in fact.needs)]
    for name in {name for fact in facts for name in fact.needs if not name.startswith("gpt2")}:
        if missing := book.ledger.missing_file(name):
            pytest.skip(missing)

    def check_items(fact):
        assert len(list(book.ledger.flat(fact.compute()))) == len(fact.items)

    try:
        for_each([fact for fact in facts if fact.tier == "large"], check_items)
    finally:
        book.ch05.pretrained.cache_clear()


def some(published, **details):
    return Fact("ch00-01", "", published, lambda: None, **details)


@pytest.mark.parametrize(
    ("published", "found", "status"),
    [
        ("0.4306 / 1.4551", [0.43064, 1.4551], "pass"),
        ("0.4306", [0.43067], "fail"),
        ("1.2e-4", [1.24e-4], "pass"),
        ("1.2e-4", [1.26e-4], "fail"),
        ("163,009,536", [163009536], "pass"),
        ("4", [5], "fail"),
        ("4 5", [4], "fail"),
        ("0.1", [math.nan], "fail"),
        (("in", "a b"), ["in", "a b"], "pass"),
        (("in", "a b"), ["in", "ab"], "fail"),
    ],
)
def test_half_a_unit_of_the_last_digit_is_allowed(published, found, status):
    assert compare(some(published), found).status == status


def test_a_training_says_where_it_leaves_the_published_one():
    result = compare(some("1.0 2.0 3.0 4.0", follows=2), [1.0, 2.0, 9.0, 4.0])
    assert (result.status, result.message) == ("pass", "item 3 of 4 is the first that differs")
    assert compare(some("1.0 2.0", follows=2), [1.0, 3.0]).status == "fail"


def test_arrays_of_any_nesting_are_read_in_order():
    assert list(book.ledger.flat([np.eye(2), (3, "a")])) == [1.0, 0.0, 0.0, 1.0, 3, "a"]


def test_the_ledger_is_in_order_and_grouped_by_chapter():
    assert [fact.chapter for fact in FACTS.values() if fact.chapter not in book.CHAPTERS] == []
    for name, module in book.CHAPTERS.items():
        facts = [fact for fact in FACTS.values() if fact.chapter == name]
        assert facts
        assert {fact.compute.__module__ for fact in facts} == {module.__name__}


def test_the_code_shown_has_its_helpers_before_it():
    source = FACTS["ch03-09"].source
    assert source.index("def drawn_weights") < source.index("def query") < source.index("def scores_of_the_query")


def test_every_row_of_the_reference_is_in_the_ledger_and_what_is_outside_says_why():
    counts = {name: sum(fact.chapter == name for fact in FACTS.values()) for name in book.CHAPTERS}
    by_hand = {"ch02": 22, "ch03": 21, "ch04": 16, "ch05": 27, "ch06": 18, "ch07": 19, "apA": 9, "apD": 4, "apE": 8}
    assert counts == {**by_hand, "dpo": 6}
    outside = {fact.id: check(fact) for fact in FACTS.values() if fact.outside}
    assert set(outside) == {"ch06-17", "ch07-19"}
    for result in outside.values():
        assert (result.status, result.ours) == ("outside", ())
        assert result.message.startswith("not computed here: ")


def test_a_missing_or_changed_file_is_named_with_its_command(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_LLM_DATA", str(tmp_path))
    needing = some("1", needs=("the-verdict",))
    result = check(needing)
    assert (result.status, result.ours) == ("needs", ())
    assert "run `tinygrad-llm download the-verdict`" in result.message
    (tmp_path / "the-verdict.txt").write_text("other words")
    assert "has other bytes" in check(needing).message
    assert "run `tinygrad-llm download gpt2`" in check(some("1", needs=("gpt2",))).message
