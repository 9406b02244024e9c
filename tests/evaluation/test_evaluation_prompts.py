"""The likeliest next tokens after a prompt, and tasks that are solved by prompting alone."""

import json
import math

import numpy as np
import pytest
from evaluation_models import BLOCK, log_probs, model_of
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.datasets import DataError
from tinygrad_llm.evaluation import PromptTask, few_shot_items, next_tokens, prompts, read_prompts, score_prompts
from tinygrad_llm.evaluation.choices import ChoiceScore
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import Tokenizer


def test_next_tokens_are_the_likeliest() -> None:
    model = model_of(11)
    for ids in ([3], [1, 2, 3], list(range(11))):
        probs = np.exp(log_probs(model, ids[-BLOCK:]))
        rows = next_tokens(model, ids, 4)
        assert [i for i, _ in rows] == sorted(range(11), key=lambda i: -probs[i])[:4]
        np.testing.assert_allclose([p for _, p in rows], sorted(probs, reverse=True)[:4], rtol=1e-12)
    rows = next_tokens(model, [3], 100)
    assert sum(p for _, p in rows) == pytest.approx(1)
    assert next_tokens(model, [3], 100, 9) == [(i, p) for i, p in rows if i < 9]  # the others only pad
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        next_tokens(model, [3], 0)


# ---- tasks -----------------------------------------------------------------------------------------------------------

FIELDS = {
    "instruction": "Is it good?",
    "labels": ["yes", "no"],
    "examples": [{"text": "fine", "label": "yes"}, {"text": "bad", "label": "no"}, {"text": "ill", "label": "no"}],
}
TASK = PromptTask("Is it good?", ("yes", "no"), ("yes", "no"), [("fine", 0), ("bad", 1), ("ill", 1)], "task.json")


def written(folder, fields):
    path = folder / "task.json"
    path.write_text(fields if isinstance(fields, str) else json.dumps(fields))
    return path


def test_a_task_is_read_from_json(tmp_path):
    path = written(tmp_path, FIELDS)
    assert read_prompts(path) == TASK._replace(where=str(path))


def test_labels_may_have_other_words_than_their_names(tmp_path):
    named = {"labels": {"good": "yes", "poor": "no"}}
    examples = [{"text": "fine", "label": "good"}, {"text": "bad", "label": "poor"}]
    task = read_prompts(written(tmp_path, {**FIELDS, **named, "examples": examples}))
    assert (task.labels, task.words) == (("good", "poor"), ("yes", "no"))
    (item,) = few_shot_items(task, 1, Generator(0))[:1]
    assert item.ctx.endswith("Text: bad\nLabel: no\n\nText: fine\nLabel:")
    assert item.endings == ("yes", "no")


def test_the_task_that_ships_has_texts_of_both_labels():
    task = read_prompts("spam")
    assert task.labels == ("ham", "spam")
    assert [label for _, label in task.examples].count(1) == len(task.examples) / 2 >= 50


def test_a_prompt_without_shots_is_the_instruction_and_the_text():
    items = few_shot_items(TASK, 0, Generator(0))
    assert items[1] == ("Is it good?\n\nText: bad\nLabel:", ("yes", "no"), 1, "task.json: example 2")
    assert few_shot_items(TASK._replace(instruction=""), 0, Generator(0))[0].ctx == "Text: fine\nLabel:"


def test_shots_are_solved_examples_between_instruction_and_text():
    ctx = few_shot_items(TASK, 2, Generator(0))[0].ctx.split("\n\n")
    assert ctx[0] == "Is it good?"
    assert sorted(ctx[1:3]) == ["Text: bad\nLabel: no", "Text: ill\nLabel: no"]
    assert ctx[3] == "Text: fine\nLabel:"


@given(st.integers(2, 9), st.data())
def test_a_text_is_never_its_own_example(n, data):
    task = TASK._replace(examples=[(f"text {i}.", i % 2) for i in range(n)])
    shots = data.draw(st.integers(0, n - 1))
    for number, item in enumerate(few_shot_items(task, shots, Generator(data.draw(st.integers(0, 99))))):
        assert item.ctx.count("Text:") == shots + 1
        assert item.ctx.count(f"text {number}.") == 1
        assert len(set(item.ctx.split("\n\n"))) == shots + 2  # no example twice


@pytest.mark.parametrize("shots", [-1, 3])
def test_more_shots_than_other_texts_are_refused(shots):
    with pytest.raises(ValueError, match=rf"task.json: got {shots} shots, which must be from 0 to 2"):
        few_shot_items(TASK, shots, Generator(0))


def test_the_score_counts_the_likeliest_labels():
    """Against a plain sum of ln p over the tokens of each label."""
    tokenizer = Tokenizer([])
    sizes = GPTConfig(vocab_size=tokenizer.n_vocab, block_size=64, n_layer=1, n_head=1, n_embd=8, initializer_range=0.5)
    model = GPT(sizes, Generator(2)).to(np.float64)
    score = score_prompts(model, tokenizer, TASK, 0)
    right = 0
    for item in few_shot_items(TASK, 0, Generator(0)):
        sums = []
        for label in item.endings:
            start, end = tokenizer.encode(item.ctx), tokenizer.encode(f" {label}")
            found = model(np.array([start + end[:-1]])).log_softmax(-1).data[0, len(start) - 1 :]
            sums.append(found[np.arange(len(end)), end].sum())
        right += sums.index(max(sums)) == item.label
    p = right / 3
    assert score == (0, 3, p, math.sqrt(p * (1 - p) / 3), 0)
    assert score_prompts(model, tokenizer, TASK, 2).cut == 3  # three blocks are more than 64 bytes


def test_every_option_of_the_score_reaches_the_choices(monkeypatch):
    scores = [ChoiceScore([0.0, -1.0], [0.0, -1.0], 0, True), ChoiceScore([0.0, -1.0], [-1.0, 0.0], 1, False)]
    asked = []
    monkeypatch.setattr(prompts, "score_choices", lambda *given: asked.append(given) or scores)
    assert score_prompts("model", "tokenizer", TASK, 2, 5, 7, "plain", True) == (2, 2, 0.5, math.sqrt(0.125), 1)
    assert score_prompts("model", "tokenizer", TASK, 2).n == 2
    assert asked == [
        ("model", "tokenizer", few_shot_items(TASK, 2, Generator(5)), 7, "plain", True),
        ("model", "tokenizer", few_shot_items(TASK, 2, Generator(0)), None, "error", False),
    ]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ("{", "task.json: not JSON: Expecting .*: give a JSON object with instruction, labels, examples"),
        ([1], r"task.json: must be a JSON object with instruction, labels, examples, got \[1\]$"),
        ({**FIELDS, "shots": 1}, "must be a JSON object with instruction, labels, examples"),
        ({**FIELDS, "instruction": 1}, "instruction must be a text, got 1"),
        ({**FIELDS, "labels": 2}, "labels must be at least two different texts, .*, got 2$"),
        ({**FIELDS, "labels": ["yes"]}, "labels must be at least two different texts"),
        ({**FIELDS, "labels": ["yes", "yes"]}, "labels must be at least two different texts"),
        ({**FIELDS, "labels": ["yes", " "]}, "labels must be at least two different texts"),
        ({**FIELDS, "labels": ["yes", "yes "]}, "labels must be at least two different texts"),
        ({**FIELDS, "labels": {"good": "yes", "bad": "yes"}}, "labels must be at least two different texts"),
        ({**FIELDS, "labels": {"good": "yes", "bad": ""}}, "labels must be at least two different texts"),
        ({**FIELDS, "labels": {"good": "yes", "bad": 1}}, "labels must be at least two different texts"),
        ({**FIELDS, "labels": {"good": "1", "bad": "2"}}, "label must be one of good, bad, got 'yes'"),
        ({**FIELDS, "examples": []}, "examples must be a list of examples"),
        ({**FIELDS, "examples": ["fine"]}, "example 1: must be an object with text and label, got 'fine'"),
        ({**FIELDS, "examples": [{"text": "", "label": "no"}]}, "example 1: must be an object with text and label"),
        ({**FIELDS, "examples": [{"text": "a", "label": "maybe"}]}, "label must be one of yes, no, got 'maybe'"),
    ],
)
def test_a_file_that_is_not_a_task_is_refused(tmp_path, fields, message):
    with pytest.raises(DataError, match=message):
        read_prompts(written(tmp_path, fields))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none.json: cannot be read: No such file"):
        read_prompts(tmp_path / "none.json")
    with pytest.raises(DataError, match=r"cannot be read|not a regular file"):
        read_prompts(tmp_path)
