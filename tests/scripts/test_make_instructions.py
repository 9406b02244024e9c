"""data/instructions.jsonl is the output of its script, and every answer is what a second program computes."""

import itertools
import json
import re
from collections import Counter

import make_instructions
import pytest
from instruction_answers import CHECKS, STORIES, right, whole

TEXT = make_instructions.SHIPPED.read_bytes().decode("ascii")
ENTRIES = [json.loads(line) for line in TEXT.splitlines()]
KINDS = Counter(entry["kind"] for entry in ENTRIES)


def test_every_answer_is_right(for_each):
    def check(entry):
        assert right(entry, entry["output"]), entry

    for_each(ENTRIES, check)
    assert KINDS.keys() == {*CHECKS, "rhyme"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "yes or no"])
def test_a_wrong_answer_is_found(kind):
    """The answer to another task of this kind is right for few."""
    its = [entry for entry in ENTRIES if entry["kind"] == kind]
    shifted = sum(right(entry, other["output"]) for entry, other in itertools.pairwise(its))
    assert shifted < 0.6 * len(its)


def test_the_shipped_file_is_the_output_of_the_script():
    assert make_instructions.make().encode("ascii") == make_instructions.SHIPPED.read_bytes()
    assert make_instructions.SHIPPED.stat().st_size <= 400_000


def test_the_seed_determines_the_entries_and_more_can_be_made():
    assert make_instructions.make(1, 90) == make_instructions.make(1, 90) != make_instructions.make(2, 90)
    more = make_instructions.make_entries(1, 4_000)
    assert len(more) == 4_000 > len(ENTRIES)
    assert len({(entry["instruction"], entry.get("input")) for entry in more}) == 4_000
    assert all(right(entry, entry["output"]) for entry in more)


def test_entries_are_different_and_complete():
    assert len(ENTRIES) >= 600
    assert len({(entry["instruction"], entry.get("input")) for entry in ENTRIES}) == len(ENTRIES)
    assert {tuple(entry) for entry in ENTRIES} == {
        ("kind", "instruction", "output"),
        ("kind", "instruction", "input", "output"),
    }
    share = sum("input" in entry for entry in ENTRIES) / len(ENTRIES)
    assert 0.25 < share < 0.75


def test_kinds_are_many_and_balanced():
    assert len(KINDS) >= 20
    assert min(KINDS.values()) >= 50
    assert max(KINDS.values()) <= len(ENTRIES) / 25


def test_texts_are_filled_and_spelled():
    for pattern in (r"[{}|<>]|  | [,.!?]|^ | $", r"\b[Aa] [aeiou]", r"\b[Aa]n (?!or a)[^aeiou]", r"[.?]$"):
        for entry in ENTRIES:
            for text in (entry["instruction"], entry["output"]):
                assert bool(re.search(pattern, text)) == (pattern == r"[.?]$"), (pattern, entry)


def test_entries_are_short_and_their_words_are_those_of_the_stories():
    known = set(re.findall(r"[a-z]+", STORIES.lower()))
    asked_for = [word for entry in ENTRIES for word in re.findall(r"[a-z]+", whole(entry).lower())]
    answers = [word for entry in ENTRIES for word in re.findall(r"[a-z]{2,}", entry["output"].lower())]
    assert sum(word in known for word in asked_for) > 0.85 * len(asked_for)
    assert sum(word in known for word in answers) > 0.9 * len(answers)
    assert max(len(whole(entry) + entry["output"]) for entry in ENTRIES) < 150
    assert max(len(entry["output"]) for entry in ENTRIES) < 50


def test_no_answer_is_the_most_frequent_one_of_its_kind_too_often():
    for kind, n in KINDS.items():
        (_, often), *_ = Counter(entry["output"] for entry in ENTRIES if entry["kind"] == kind).most_common(1)
        assert often <= n * (0.6 if kind in ("yes or no", "he or she", "count a word") else 0.35), kind
