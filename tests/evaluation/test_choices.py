"""Multiple choice: scores against the definition, the bundled items, and the files that are refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_models import BLOCK, BPE, CHARS, TEXT, log_probs, model_of, uniform

from tinygrad_llm import Tokenizer
from tinygrad_llm.datasets import DataError, load_corpus
from tinygrad_llm.evaluation import Choice, choices, read_choices, score_choices
from tinygrad_llm.tokenizer import CharTokenizer

ITEMS = [
    Choice("The cat sat", ("on the mat.", "on.", "was flat, and the mat", "the"), 0, "1"),
    Choice("Once there was a cat. The mat was flat. ", ("The cat", " the", "Once there", "mat."), 2, "2"),
    Choice("A", ("cat", "mat", "flat", "Once"), 3, "3"),
]  # fmt: skip
FIT = [Choice(c.ctx, tuple(e[: BLOCK - 1] for e in c.endings), c.label, c.where) for c in ITEMS]
SIMPLE = CharTokenizer.train(TEXT + "A")


@pytest.mark.parametrize("tokenizer", [BPE, SIMPLE], ids=["bpe", "char"])
def test_score_of_an_ending_equals_its_tokens_one_by_one(tokenizer: Tokenizer | CharTokenizer) -> None:
    model = model_of(tokenizer.n_vocab)
    scores = list(score_choices(model, tokenizer, FIT))
    assert [score.label for score in scores] == [0, 2, 3]
    for item, score in zip(FIT, scores, strict=True):
        ctx = tokenizer.encode(item.ctx.rstrip())
        endings = [tokenizer.encode(" " + text.strip()) for text in item.endings]
        assert score.cut == (len(ctx) + max(map(len, endings)) > BLOCK + 1)
        for text, ending, total, normalized in zip(item.endings, endings, score.sums, score.normalized, strict=True):
            ids = (ctx + ending)[-(BLOCK + 1) :]
            first = len(ids) - len(ending)
            slow = sum(log_probs(model, ids[:i])[ids[i]] for i in range(first, len(ids)))
            assert total == pytest.approx(slow, rel=1e-12)
            assert normalized == pytest.approx(slow / len(text.strip()), rel=1e-12)
        assert score.right == (max(score.sums) == score.sums[item.label])
        assert score.right_normalized == (max(score.normalized) == score.normalized[item.label])


@pytest.mark.parametrize("size", [2, 4, 7, None])
def test_batch_size_changes_no_score(size: int | None) -> None:
    model = model_of(BPE.n_vocab)
    alone, together = (list(score_choices(model, BPE, FIT, batch_size)) for batch_size in (1, size))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.sums, other.sums, rtol=1e-12)
        np.testing.assert_allclose(one.normalized, other.normalized, rtol=1e-12)
        assert one[2:] == other[2:]


def test_model_that_knows_the_ending_chooses_it() -> None:
    """A head whose bias-like last feature favors one letter: the ending made of that letter wins."""
    tokenizer = CharTokenizer("xyzw ")
    model = uniform(5)
    model.transformer.ln_f.bias.data[:] = 1
    model.lm_head.weight.data[tokenizer.encode("z")[0]] = 1
    items = [Choice("x", ("xxx", "yyy", "zzz", "www"), label, "") for label in range(4)]
    scores = list(score_choices(model, tokenizer, items))
    assert [score.right for score in scores] == [False, False, True, False]
    assert [score.right_normalized for score in scores] == [False, False, True, False]


def test_sum_and_mean_may_choose_different_endings() -> None:
    tokenizer = CharTokenizer("xyzw ")
    model = uniform(5)
    model.transformer.ln_f.bias.data[:] = 0.25
    model.lm_head.weight.data[tokenizer.encode("z")[0]] = 1
    (score,) = score_choices(model, tokenizer, [Choice("x", ("y", "zzzzzz", "ww", "xx"), 1, "")])
    assert (score.right, score.right_normalized) == (False, True)


@pytest.mark.parametrize(("ctx", "ending", "cut"), [(1, BLOCK, False), (2, BLOCK, True), (5, 4, False), (6, 4, True)])
def test_context_is_cut_only_where_it_does_not_fit(ctx: int, ending: int, cut: bool) -> None:
    """One id more than the block fits, because the last one is only a target."""
    item = Choice("t" * ctx, ("e" * (ending - 1), "a", "c", "h"), 0, "")
    (score,) = score_choices(model_of(SIMPLE.n_vocab), SIMPLE, [item])
    assert score.cut is cut


def test_items_that_cannot_be_scored_are_named() -> None:
    def score(tokenizer: Tokenizer | CharTokenizer, item: Choice) -> Any:
        return score_choices(model_of(tokenizer.n_vocab), tokenizer, [item])

    four = ("a", "b", "c", "d")
    for tokenizer, item, message in (
        (CHARS, Choice("cat", ("the cats", "a", "a", "a"), 0, "f: line 2"), "line 2: endings: one has 9 tokens"),
        (CHARS, Choice("Ω", four, 0, "f: line 2"), r"f: line 2: ctx: character '\\u03a9' at position 0"),
        (BPE, Choice("a", ("<|endoftext|>", "b", "c", "d"), 0, "f: line 2"), "f: line 2: endings: holds the special"),
    ):
        with pytest.raises(DataError, match=message):
            score(tokenizer, item)


def test_a_context_that_does_not_fit_is_refused_where_that_is_asked_for() -> None:
    model = model_of(SIMPLE.n_vocab)
    item = Choice("t" * 6, ("eee", "a", "c", "h"), 0, "f: line 2")
    with pytest.raises(DataError, match=r"^f: line 2: the text with an ending has 9 tokens"):
        score_choices(model, SIMPLE, [item], refuse=True)
    fits = item._replace(ctx="t" * 5)
    assert list(score_choices(model, SIMPLE, [fits], refuse=True)) == list(score_choices(model, SIMPLE, [fits]))


def test_bundled_items_cannot_be_guessed(gpt2: Tokenizer) -> None:
    items = read_choices("choices")
    assert len(items) == 24
    assert {label: [c.label for c in items].count(label) for label in range(4)} == dict.fromkeys(range(4), 6)
    known = CharTokenizer.train(load_corpus("stories"))
    for item in items:
        known.encode(item.ctx + "".join(item.endings))
        assert len(set(item.endings)) == 4
        assert max(map(len, item.endings)) < 64  # so that char-cpu, with its block of 64, can be asked
        assert item.ctx not in load_corpus("stories")
    # Neither the longest nor the shortest ending is right much more often than one in four.
    for extreme in (max, min):
        assert sum(extreme(c.endings, key=len) == c.endings[c.label] for c in items) <= 8
    # A model without any knowledge prefers the ending with the fewest tokens, or the fewest per character.
    for cost in (lambda text: len(gpt2.encode(" " + text)), lambda text: len(gpt2.encode(" " + text)) / len(text)):
        assert sum(min(c.endings, key=cost) == c.endings[c.label] for c in items) <= 8


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON: Expecting .*: column 2: a line must be a JSON object with ctx, endings and label"),
        ("[" * 100_000, "nested too deeply: a line must be a JSON object"),
        (b"\xff", r"not UTF-8 text \(byte 0xff at position 0\)"),
        ("[]", r"got \[\]: a line must be a JSON object with ctx, endings and label"),
        ('{"endings": ["a", "b", "c", "d"], "label": 0}', "ctx is missing"),
        ('{"ctx": " ", "endings": ["a", "b", "c", "d"], "label": 0}', "ctx must be a text, got ' '"),
        ('{"ctx": "a", "label": 0}', "endings is missing"),
        ('{"ctx": "a", "endings": ["a", "b", "c"], "label": 0}', r"endings must be 4 texts, got \['a', 'b', 'c'\]"),
        ('{"ctx": "a", "endings": "abcd", "label": 0}', "endings must be 4 texts, got 'abcd'"),
        ('{"ctx": "a", "endings": ["a", "b", "c", ""], "label": 0}', "endings must be"),
        ('{"ctx": "a", "endings": ["a", "b", "c", 4], "label": 0}', "endings must be"),
        ('{"ctx": "a", "endings": ["a", "b", "c", "d"]}', "label is missing"),
        ('{"ctx": "a", "endings": ["a", "b", "c", "d"], "label": 4}', "label must be an integer in 0 … 3, got 4"),
        ('{"ctx": "a", "endings": ["a", "b", "c", "d"], "label": -1}', "label must be .*got -1"),
        ('{"ctx": "a", "endings": ["a", "b", "c", "d"], "label": "1"}', "label must be .*got '1'"),
        ('{"ctx": "a", "endings": ["a", "b", "c", "d"], "label": true}', "label must be .*got True"),
        (b'{"ctx": "' + b"a" * choices.MAX_LINE + b'"}', "longer than 1048576 bytes"),
    ],
)
def test_wrong_line_is_named(line: str | bytes, message: str, tmp_path: Path) -> None:
    good = json.dumps({"ctx": "a", "endings": list("abcd"), "label": 1, "ind": 7}).encode()
    path = tmp_path / "items.jsonl"
    path.write_bytes(good + b"\n\n" + (line.encode() if isinstance(line, str) else line) + b"\n")
    with pytest.raises(DataError, match=f"items.jsonl: line 3: {message}") as failure:
        read_choices(str(path))
    assert len(str(failure.value)) < 400
    path.write_bytes(good)
    assert read_choices(str(path)) == [Choice("a", ("a", "b", "c", "d"), 1, f"{path}: line 1")]


def test_a_file_without_an_end_is_read_up_to_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choices, "_MAX_BYTES", 1000)
    (tmp_path / "c.jsonl").write_text("\n" * 1001)
    with pytest.raises(DataError, match=r"c\.jsonl: longer than the 1000 bytes accepted"):
        read_choices(str(tmp_path / "c.jsonl"))


def test_file_without_items_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    for name, message in (
        ("empty.jsonl", "the file is empty"),
        ("none", "no such file"),
        ("", "cannot be read: Is a "),
    ):
        with pytest.raises(DataError, match=f"^{tmp_path / name}: {message}"):
            read_choices(str(tmp_path / name))
