"""Instructions with answers, and pairs of answers."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.datasets import DataError, Entry, Pair, cut_parts, instructions, read_instructions, read_preferences
from tinygrad_llm.random import Generator

ENTRIES = [Entry("Add.", "1, 2", "3", "sum"), Entry("Say hi.", "", "hi")]


def written(folder, content, name="data.json"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def objects(entries):
    return [{key: value for key, value in entry._asdict().items() if value} for entry in entries]


@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("form", ["json", "lines"])
def test_entries_are_read_from_a_list_and_from_lines(tmp_path, form, bom):
    found = objects(ENTRIES)
    text = json.dumps(found, indent=1) if form == "json" else "\n\n".join(map(json.dumps, found)) + "\n"
    assert read_instructions(written(tmp_path, bom + text)) == ENTRIES


def test_pairs_are_read_with_or_without_an_output(tmp_path):
    fields = {"instruction": "Add.", "input": "1, 2", "chosen": "3", "rejected": "4"}
    path = written(tmp_path, json.dumps([fields, {**fields, "output": "3"}]))
    assert read_preferences(path) == [Pair("Add.", "1, 2", "3", "4")] * 2


GOOD = {"instruction": "Add.", "output": "3"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"json: not JSON: Expecting value: column 2: the list has objects with instruction, output$"),
        (
            json.dumps(GOOD) + "\n{\n",
            "line 2: not JSON: Expecting .*: column 2: give JSON: a line is an object",
        ),
        ("", "there are no entries"),
        ("[]", "there are no entries"),
        (b"[\xff]", r"not UTF-8 text \(byte 0xff at position 1\): save it as UTF-8: the list"),
        (json.dumps([GOOD, 1]), "entry 2: must be an object with instruction, output, got 1"),
        (
            json.dumps([{"instruction": "Add."}]),
            "entry 1: output is missing: the keys are instruction, output, input, kind",
        ),
        (json.dumps([{**GOOD, "answer": "3"}]), "entry 1: unknown key 'answer': the keys are"),
        (json.dumps([{**GOOD, "output": 3}]), "entry 1: output must be a text that is not empty, got 3"),
        (json.dumps([{**GOOD, "output": " "}]), "entry 1: output must be a text that is not empty"),
        (json.dumps([{**GOOD, "input": None}]), "entry 1: input must be a text"),
        ('[{"instruction": "a", "instruction": "b", "output": "c"}]', "the key 'instruction' appears twice"),
    ],
)
def test_a_file_that_is_not_a_list_of_instructions_is_refused(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read_instructions(written(tmp_path, content))


def test_a_file_without_an_end_is_read_up_to_a_limit(tmp_path, monkeypatch):
    forms = {"_MAX_BYTES": "\n".join(map(json.dumps, objects(ENTRIES))), "MAX_JSON": json.dumps(objects(ENTRIES))}
    for limit, form in forms.items():
        size = len(form)
        monkeypatch.setattr(instructions, limit, size)
        assert read_instructions(written(tmp_path, form)) == ENTRIES
        monkeypatch.setattr(instructions, limit, size - 1)
        with pytest.raises(DataError, match=rf"data\.json: longer than the {size - 1} bytes accepted"):
            read_instructions(written(tmp_path, form))
        monkeypatch.undo()


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none.json: cannot be read: No such file"):
        read_instructions(tmp_path / "none.json")


def test_the_book_s_data_are_read():
    """Where they are at hand: the folder that TINYGRAD_LLM_DATA names."""
    folder = Path(os.environ.get("TINYGRAD_LLM_DATA", ""))
    if not (folder / "instruction-data.json").is_file():
        pytest.skip("TINYGRAD_LLM_DATA names no folder with instruction-data.json")
    entries = read_instructions(folder / "instruction-data.json")
    assert len(entries) == 1100
    assert (entries[50].input != "", entries[999].input) == (True, "")
    assert len(read_preferences(folder / "instruction-data-with-preference.json")) == 1100


@given(st.sets(st.integers(0, 39)), st.integers(0, 99))
def test_parts_have_all_examples_and_no_question_is_in_two_of_them(twice, seed):
    asked = [*range(40), *twice]
    entries = [Entry(f"Say  {n}.", "It" if i % 2 else "it", str(i)) for i, n in enumerate(asked)]
    parts, copies = cut_parts(entries, Generator(seed))
    assert copies == len(asked) - len(set(asked))
    assert sorted(entry for part in parts for entry in part) == sorted(entries)
    questions = [{entry.instruction for entry in part} for part in parts]
    assert sum(map(len, questions)) == len(set(asked))
    assert all(parts)


def test_parts_of_different_examples_are_the_shuffled_ones_cut():
    entries = [Entry("Say it.", str(i), "it") for i in range(100)]
    parts, copies = cut_parts(entries, Generator(3))
    assert [len(part) for part in parts] == [85, 5, 10]
    assert [entry for part in parts for entry in part] == [entries[i] for i in Generator(3).randperm(100).tolist()]
    assert copies == 0


def test_pairs_with_other_answers_may_be_in_two_parts():
    pairs = [Pair("Say it.", "", f"it {i}", "no") for i in range(20)]
    parts, copies = cut_parts(pairs, Generator(0))
    assert ([len(part) for part in parts], copies) == ([17, 1, 2], 0)


def test_too_few_examples_for_three_parts_are_refused():
    for entries in ([Entry("Say", str(i), "it") for i in range(9)], [Entry("Say", "", str(i)) for i in range(90)]):
        with pytest.raises(DataError, match=r"got \d+ examples, \d of them different, which are too few to train"):
            cut_parts(entries, Generator(0))
    parts, _ = cut_parts([Entry("Say", str(i), "it") for i in range(10)], Generator(0))
    assert [len(part) for part in parts] == [8, 1, 1]
