"""Scores of texts, endings and next tokens, against the definitions, computed slowly."""

import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import GPT, Generator, GPTConfig, Tokenizer
from tinygrad_llm.datasets import DataError, encode_file, load_corpus, tokens
from tinygrad_llm.evaluation import (
    Choice,
    TextScore,
    choices,
    default_stride,
    next_tokens,
    read_choices,
    score_choices,
    score_file,
    score_tokens,
    scoring_windows,
    token_losses,
)
from tinygrad_llm.evaluation import text as evaluation
from tinygrad_llm.tokenizer import CharTokenizer

TEXT = "Once there was a cat.\nThe cat  sat on the mat, and the mat was flat. Café ☕!\n" * 4
BLOCK = 8


def model_of(vocab_size: int, dropout: float = 0.0) -> GPT:
    """A small model in float64 that is sure enough of things for its scores to differ."""
    config = GPTConfig(
        vocab_size=vocab_size, block_size=BLOCK, n_layer=2, n_head=2, n_embd=8, dropout=dropout, initializer_range=0.5
    )
    return GPT(config, Generator(3)).to(np.float64)


def uniform(vocab_size: int) -> GPT:
    model = model_of(vocab_size)
    model.transformer.wte.weight.data[:] = 0
    model.lm_head.weight.data[:] = 0
    return model


def log_probs(model: GPT, context: list[int]) -> Any:
    """ln p of every next token: the definition."""
    with model.evaluating():
        logits = model(np.array([context])).data[0, -1]
    return logits - np.log(np.sum(np.exp(logits)))


BPE = Tokenizer.train(TEXT, 280)
CHARS = CharTokenizer.train(TEXT)
TOKENIZERS = pytest.mark.parametrize("tokenizer", [BPE, CHARS], ids=["bpe", "char"])


@pytest.fixture
def text_file(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    return str(tmp_path / "text.txt")


# Windows


@given(st.lists(st.integers(0, 30), max_size=6), st.integers(1, 12), st.data())
def test_every_id_but_the_first_is_scored_once_with_enough_before_it(
    sizes: list[int], block_size: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, block_size))
    n = sum(sizes)
    pieces = np.split(np.arange(n), np.cumsum(sizes)[:-1]) if sizes else []
    seen: list[int] = []
    for inputs, targets in scoring_windows(pieces, block_size, stride):
        assert len(inputs) == min(block_size, n - 1)
        np.testing.assert_array_equal(np.diff(inputs), 1)
        for place in np.flatnonzero(targets != evaluation.IGNORE_INDEX):
            target = int(targets[place])
            assert target == inputs[place] + 1
            assert place + 1 >= min(target, block_size - stride + 1)
            seen.append(target)
    assert seen == list(range(1, n))


@pytest.mark.parametrize("stride", [0, -1, BLOCK + 1])
def test_a_stride_outside_the_block_is_refused_at_the_call(stride: int) -> None:
    with pytest.raises(ValueError, match=f"stride must lie in 1 … {BLOCK}, the model's block_size, not {stride}"):
        score_tokens(model_of(5), [np.arange(4)], stride)


def test_windows_need_no_more_than_a_piece_of_the_ids() -> None:
    """The next piece is asked for only when the windows of those before it are used up."""
    asked: list[int] = []

    def pieces() -> Any:
        for start in range(0, 1000, 10):
            asked.append(start)
            yield np.arange(start, start + 10)

    for _, targets in scoring_windows(pieces(), 7, 3):
        assert asked[-1] <= targets[-1] + 1


# Tokens


def test_stride_1_is_the_definition_token_by_token() -> None:
    model, ids = model_of(11), np.random.default_rng(0).integers(0, 11, 40)
    losses = np.concatenate(list(score_tokens(model, [ids[:15], ids[15:]], stride=1, batch_size=3)))
    naive = [-log_probs(model, ids[max(0, i - BLOCK) : i].tolist())[ids[i]] for i in range(1, len(ids))]
    np.testing.assert_allclose(losses, naive, rtol=1e-12)


@pytest.mark.parametrize("stride", range(1, BLOCK + 1))
@pytest.mark.parametrize("n", [2, 5, BLOCK, BLOCK + 1, BLOCK + 2, 3 * BLOCK + 5])
def test_every_stride_scores_each_token_from_the_context_it_promises(stride: int, n: int) -> None:
    model, ids = model_of(11), np.random.default_rng(n).integers(0, 11, n)
    losses = np.concatenate(list(score_tokens(model, [ids], stride, batch_size=4)))
    assert len(losses) == n - 1
    for i, loss in enumerate(losses, start=1):
        least = min(i, BLOCK - stride + 1)
        possible = [-log_probs(model, ids[i - k : i].tolist())[ids[i]] for k in range(least, min(i, BLOCK) + 1)]
        assert np.min(np.abs(np.array(possible) - loss)) < 1e-12


def test_the_batch_changes_nothing() -> None:
    model, ids = model_of(11), np.random.default_rng(1).integers(0, 11, 60)
    one, many = (np.concatenate(list(score_tokens(model, [ids], 3, size))) for size in (1, None))
    np.testing.assert_allclose(one, many, rtol=1e-12)
    with pytest.raises(ValueError, match="batch_size must be at least 1, not 0"):
        score_tokens(model, [ids], 3, 0)


def test_the_default_stride_is_half_the_block() -> None:
    model = model_of(11)
    assert default_stride(model) == BLOCK // 2
    assert default_stride(GPT(GPTConfig(vocab_size=5, block_size=1, n_layer=1, n_head=1, n_embd=2))) == 1


def test_losses_mind_no_dropout_and_leave_the_mode_alone() -> None:
    model, ids = model_of(11, dropout=0.5), np.arange(6)[None]
    one, two = (token_losses(model, ids, ids + 1) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    assert model.training


def test_scores_that_are_not_finite_are_told_of() -> None:
    model = model_of(11)
    model.transformer.ln_f.weight.data[:] = 1e308
    with pytest.raises(ValueError, match="scores are not finite"):
        token_losses(model, np.array([[1, 2]]), np.array([[2, 3]]))


# Texts


@TOKENIZERS
def test_a_uniform_model_pays_ln_v(tokenizer: Tokenizer | CharTokenizer, text_file: str) -> None:
    V = tokenizer.n_vocab
    score = score_file(uniform(V), tokenizer, text_file)
    assert score.loss == pytest.approx(math.log(V))
    assert score.perplexity == pytest.approx(V)
    assert score.bits_per_byte == pytest.approx(math.log2(V) * score.tokens / score.bytes)
    assert score.word_perplexity == pytest.approx(V ** (score.tokens / score.words))
    # With end of text before it the first token is scored as well.
    assert score.tokens == len(tokenizer.encode(TEXT)) - (tokenizer.eot_token is None)
    assert (score.words, score.bytes) == (len(TEXT.split()), len(TEXT.encode()))


@TOKENIZERS
@pytest.mark.parametrize("stride", [1, 3, BLOCK])
def test_the_total_is_the_sum(tokenizer: Tokenizer | CharTokenizer, stride: int, text_file: str) -> None:
    model = model_of(tokenizer.n_vocab)
    start = [] if tokenizer.eot_token is None else [tokenizer.eot_token]
    ids = np.array(start + tokenizer.encode(TEXT))
    losses = np.concatenate(list(score_tokens(model, [ids], stride)))
    told: list[tuple[float, int]] = []
    score = score_file(model, tokenizer, text_file, stride, progress=lambda *so_far: told.append(so_far))
    assert score.nats == pytest.approx(math.fsum(losses), rel=1e-12)
    assert score.tokens == len(losses)
    assert told[-1] == (score.nats, score.tokens)


def test_the_four_averages_of_one_sum() -> None:
    score = TextScore(nats=6 * math.log(2), tokens=3, words=2, bytes=12)
    assert score.loss == pytest.approx(2 * math.log(2))
    assert score.perplexity == pytest.approx(4)
    assert score.word_perplexity == pytest.approx(8)
    assert score.bits_per_byte == pytest.approx(0.5)
    assert TextScore(5000, 1000, 1, 1000).word_perplexity == math.inf


@TOKENIZERS
def test_a_token_file_scores_as_its_text_does(
    tokenizer: Tokenizer | CharTokenizer, text_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(tokenizer.n_vocab)
    whole = score_file(model, tokenizer, text_file)
    made = encode_file(tokenizer, text_file, tmp_path / "tokens.bin", workers=1)
    (tmp_path / "raw.ids").write_bytes(made.path.read_bytes())
    monkeypatch.setattr(evaluation, "IDS_AT_ONCE", 3)  # so that words and characters are cut
    for file, dtype in ((str(made.path), None), (str(tmp_path / "raw.ids"), "uint16")):
        score = score_file(model, tokenizer, file, dtype=dtype)
        assert (score.tokens, score.words, score.bytes) == (whole.tokens, whole.words, whole.bytes)
        assert score.nats == pytest.approx(whole.nats, rel=1e-12)


@TOKENIZERS
def test_a_text_read_in_stretches_scores_as_one(
    tokenizer: Tokenizer | CharTokenizer, text_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(tokenizer.n_vocab)
    whole = score_file(model, tokenizer, text_file)
    monkeypatch.setattr(tokens, "STRETCH", 16)
    assert len(list(tokens.read_stretches(text_file))) > 5
    score = score_file(model, tokenizer, text_file)
    assert (score.tokens, score.words, score.bytes) == (whole.tokens, whole.words, whole.bytes)
    assert score.nats == pytest.approx(whole.nats, rel=1e-12)


def test_a_bundled_corpus_has_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a story<|endoftext|>"
    monkeypatch.setattr(evaluation, "load_corpus", {"stories": text}.__getitem__)
    score = score_file(uniform(BPE.n_vocab), BPE, "stories", allow_special=True)
    assert (score.tokens, score.words, score.bytes) == (len(BPE.encode(text, "all")), 2, len(text))


@pytest.mark.parametrize(
    ("data", "tokenizer", "message"),
    [
        (b"", BPE, "the file is empty"),
        (b"", CHARS, "the file is empty"),
        (b" \n\n", CHARS, "the file is empty"),
        (b"a", CHARS, "holds one token, and nothing to predict it from"),
        ("cat Ω\n".encode(), CHARS, r"character '\\u03a9' at position 4 is not among"),
        (b"caf\xe9", BPE, "not UTF-8 text: .* at byte 3"),
        (b"a<|endoftext|>", BPE, r"holds the special token '<\|endoftext\|>' at byte 1: add --allow-special"),
    ],
)
def test_a_text_that_cannot_be_scored(
    data: bytes, tokenizer: Tokenizer | CharTokenizer, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"bad.txt: {message}"):
        score_file(uniform(tokenizer.n_vocab), tokenizer, str(path))


def test_an_unknown_character_far_on_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("the cat " * 10 + "Ω")
    monkeypatch.setattr(tokens, "STRETCH", 16)
    with pytest.raises(DataError, match=r"bad\.txt, after byte") as failure:
        score_file(uniform(CHARS.n_vocab), CHARS, str(path))
    numbers = re.findall(r"after byte (\d+): .* at position (\d+) ", str(failure.value))
    assert sum(map(int, numbers[0])) == 80


def test_ids_that_are_none_of_the_models(tmp_path: Path, text_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "IDS_AT_ONCE", 3)
    path = tmp_path / "raw.bin"
    np.array([1, 2, 279, 3, 280, 999], "<u2").tofile(path)
    with pytest.raises(DataError, match=r"raw.bin: token 4 is id 280, and the vocabulary has ids 0 to 279"):
        score_file(uniform(280), BPE, str(path), dtype="uint16")
    with pytest.raises(DataError, match=r"raw.bin.json is missing"):
        score_file(uniform(280), BPE, str(path))
    other = encode_file(Tokenizer.train(TEXT, 270), text_file, tmp_path / "other.bin", workers=1)
    with pytest.raises(DataError, match=r"other.bin: its ids are of another tokenizer"):
        score_file(uniform(280), BPE, str(other.path))


# Choices

ITEMS = [
    Choice("The cat sat", ("on the mat.", "on.", "was flat, and the mat", "the"), 0, "1"),
    Choice("Once there was a cat. The mat was flat. ", ("The cat", " the", "Once there", "mat."), 2, "2"),
    Choice("A", ("cat", "mat", "flat", "Once"), 3, "3"),
]  # fmt: skip
FIT = [Choice(c.ctx, tuple(e[: BLOCK - 1] for e in c.endings), c.label, c.where) for c in ITEMS]
SIMPLE = CharTokenizer.train(TEXT + "A")


@pytest.mark.parametrize("tokenizer", [BPE, SIMPLE], ids=["bpe", "char"])
def test_an_endings_score_is_that_of_its_tokens_one_by_one(tokenizer: Tokenizer | CharTokenizer) -> None:
    model = model_of(tokenizer.n_vocab)
    scores = list(score_choices(model, tokenizer, FIT))
    assert [score.label for score in scores] == [0, 2, 3]
    for item, score in zip(FIT, scores, strict=True):
        ctx = tokenizer.encode(item.ctx.rstrip())
        endings = [tokenizer.encode(" " + text.strip()) for text in item.endings]
        assert score.cut == (len(ctx) + max(map(len, endings)) > BLOCK + 1)
        for text, ending, total, normalised in zip(item.endings, endings, score.sums, score.normalised, strict=True):
            ids = (ctx + ending)[-(BLOCK + 1) :]
            first = len(ids) - len(ending)
            slow = sum(log_probs(model, ids[:i])[ids[i]] for i in range(first, len(ids)))
            assert total == pytest.approx(slow, rel=1e-12)
            assert normalised == pytest.approx(slow / len(text.strip()), rel=1e-12)
        assert score.right == (max(score.sums) == score.sums[item.label])
        assert score.right_normalised == (max(score.normalised) == score.normalised[item.label])


@pytest.mark.parametrize("size", [2, 3, 4, 7, 12, None])
def test_padding_changes_nothing(size: int | None) -> None:
    model = model_of(BPE.n_vocab)
    alone, together = (list(score_choices(model, BPE, FIT, batch_size)) for batch_size in (1, size))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(one.sums, other.sums, rtol=1e-12)
        np.testing.assert_allclose(one.normalised, other.normalised, rtol=1e-12)
        assert one[2:] == other[2:]


def test_a_model_that_knows_the_ending_chooses_it() -> None:
    """A head whose bias-like last feature favours one letter: the ending made of that letter wins."""
    tokenizer = CharTokenizer("xyzw ")
    model = uniform(5)
    model.transformer.ln_f.bias.data[:] = 1
    model.lm_head.weight.data[tokenizer.encode("z")[0]] = 1
    items = [Choice("x", ("xxx", "yyy", "zzz", "www"), label, "") for label in range(4)]
    scores = list(score_choices(model, tokenizer, items))
    assert [score.right for score in scores] == [False, False, True, False]
    assert [score.right_normalised for score in scores] == [False, False, True, False]


def test_the_sum_and_the_mean_may_choose_differently() -> None:
    tokenizer = CharTokenizer("xyzw ")
    model = uniform(5)
    model.transformer.ln_f.bias.data[:] = 0.25
    model.lm_head.weight.data[tokenizer.encode("z")[0]] = 1
    (score,) = score_choices(model, tokenizer, [Choice("x", ("y", "zzzzzz", "ww", "xx"), 1, "")])
    assert (score.right, score.right_normalised) == (False, True)


@pytest.mark.parametrize(("ctx", "ending", "cut"), [(1, BLOCK, False), (2, BLOCK, True), (5, 4, False), (6, 4, True)])
def test_a_context_loses_only_what_does_not_fit(ctx: int, ending: int, cut: bool) -> None:
    """With one id more than the block the last is only a target."""
    item = Choice("t" * ctx, ("e" * (ending - 1), "a", "c", "h"), 0, "")
    (score,) = score_choices(model_of(SIMPLE.n_vocab), SIMPLE, [item])
    assert score.cut is cut


def test_items_that_cannot_be_scored() -> None:
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


def test_the_bundled_items_are_fair() -> None:
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
    # The one a model without any knowledge prefers is the one with the fewest tokens.
    gpt2 = Tokenizer.gpt2()
    know_nothing = GPT(GPTConfig(vocab_size=gpt2.n_vocab, block_size=64, n_layer=1, n_head=1, n_embd=1))
    scores = list(score_choices(know_nothing, gpt2, items))
    assert sum(score.right for score in scores) <= 8
    assert sum(score.right_normalised for score in scores) <= 8


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        (b"\xff", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"endings": ["a", "b", "c", "d"], "label": 0}', "ctx is missing"),
        ('{"ctx": " ", "endings": ["a", "b", "c", "d"], "label": 0}', "ctx is ' ', not a text"),
        ('{"ctx": "a", "label": 0}', "endings is missing"),
        ('{"ctx": "a", "endings": ["a", "b", "c"], "label": 0}', r"endings is \['a', 'b', 'c'\], not 4 texts"),
        ('{"ctx": "a", "endings": "abcd", "label": 0}', "endings is 'abcd', not 4 texts"),
        ('{"ctx": "a", "endings": ["a", "b", "c", ""], "label": 0}', "endings is"),
        ('{"ctx": "a", "endings": ["a", "b", "c", 4], "label": 0}', "endings is"),
        ('{"ctx": "a", "endings": ["a", "b", "c", "d"]}', "label is missing"),
        ('{"ctx": "a", "endings": ["a", "b", "c", "d"], "label": 4}', "label is 4, not an integer in 0 … 3"),
        ('{"ctx": "a", "endings": ["a", "b", "c", "d"], "label": -1}', "label is -1"),
        ('{"ctx": "a", "endings": ["a", "b", "c", "d"], "label": "1"}', "label is '1'"),
        ('{"ctx": "a", "endings": ["a", "b", "c", "d"], "label": true}', "label is True"),
        (b'{"ctx": "' + b"a" * choices.MAX_LINE + b'"}', "longer than 1048576 bytes"),
    ],
)
def test_a_bad_line_is_named(line: str | bytes, message: str, tmp_path: Path) -> None:
    good = json.dumps({"ctx": "a", "endings": list("abcd"), "label": 1, "ind": 7}).encode()
    path = tmp_path / "items.jsonl"
    path.write_bytes(good + b"\n\n" + (line.encode() if isinstance(line, str) else line) + b"\n")
    with pytest.raises(DataError, match=f"items.jsonl: line 3: {message}") as failure:
        read_choices(str(path))
    assert len(str(failure.value)) < 400
    path.write_bytes(good)
    assert read_choices(str(path)) == [Choice("a", ("a", "b", "c", "d"), 1, f"{path}: line 1")]


def test_a_file_without_items(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n")
    for name, message in (("empty.jsonl", "is empty"), ("none", "no such file"), ("", "cannot be read")):
        with pytest.raises(DataError, match=message):
            read_choices(str(tmp_path / name))


# Next tokens


def test_the_likeliest_next_tokens() -> None:
    model = model_of(11)
    for ids in ([3], [1, 2, 3], list(range(11))):
        probs = np.exp(log_probs(model, ids[-BLOCK:]))
        rows = next_tokens(model, ids, 4)
        assert [i for i, _ in rows] == sorted(range(11), key=lambda i: -probs[i])[:4]
        np.testing.assert_allclose([p for _, p in rows], sorted(probs, reverse=True)[:4], rtol=1e-12)
    assert sum(p for _, p in next_tokens(model, [3], 100)) == pytest.approx(1)
    with pytest.raises(ValueError, match="top must be at least 1, not 0"):
        next_tokens(model, [3], 0)
