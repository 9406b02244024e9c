"""data/preferences.jsonl is the output of its script; in each pair only the manner differs, not the answer."""

import json
from collections import Counter

import make_instructions
import make_preferences
from instruction_answers import right

TEXT = make_preferences.SHIPPED.read_bytes().decode("ascii")
PAIRS = [json.loads(line) for line in TEXT.splitlines()]


def prompt(entry):
    return entry["instruction"], entry.get("input")


def test_the_shipped_file_is_the_output_of_the_script():
    assert make_preferences.make().encode("ascii") == make_preferences.SHIPPED.read_bytes()


def test_the_seed_determines_the_pairs(monkeypatch):
    monkeypatch.setattr(make_preferences, "SIZE", 100)  # tasks that are made first, and left out
    assert make_preferences.make(1, 40) == make_preferences.make(1, 40) != make_preferences.make(2, 40)


def test_pairs_are_different_and_of_many_kinds():
    assert 200 <= len(PAIRS) <= 400
    assert len({prompt(pair) for pair in PAIRS}) == len(PAIRS)
    assert len(Counter(pair["kind"] for pair in PAIRS)) >= 20


def test_no_task_is_among_the_instructions():
    assert not {prompt(pair) for pair in PAIRS} & {prompt(entry) for entry in make_instructions.make_entries()}


def test_both_answers_contain_the_right_one():
    friendly, rude = (make_preferences.forms(text) for text in (make_preferences.FRIENDLY, make_preferences.RUDE))
    assert not set(friendly) & set(rude)
    for pair in PAIRS:
        answers = []
        for key, forms in (("chosen", friendly), ("rejected", rude)):
            parts = [tuple(form.split("{}")) for form in forms]
            found = {
                pair[key][len(a) : len(pair[key]) - len(b)]
                for a, b in parts
                if pair[key].startswith(a) and pair[key].endswith(b)
            }
            (answer,) = (text for text in found if right(pair, text))
            answers.append(answer)
        assert answers[0] == answers[1]


def test_neither_length_nor_the_place_of_the_answer_shows_which_one_is_preferred():
    longer = sum(len(pair["chosen"]) > len(pair["rejected"]) for pair in PAIRS)
    assert 0.4 < longer / len(PAIRS) < 0.6
    first = {key: sum(pair[key].startswith(("It is", "You say")) for pair in PAIRS) for key in ("chosen", "rejected")}
    assert abs(first["chosen"] - first["rejected"]) < 0.1 * len(PAIRS)
