"""Scores of texts and token files: their averages, their counts, and the files that are refused."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from evaluation_models import BLOCK, BPE, CHARS, TEXT, TOKENIZERS, model_of, uniform

from tinygrad_llm import Tokenizer
from tinygrad_llm.datasets import DataError, corpora, encode_file, read_stretches
from tinygrad_llm.evaluation import TextScore, score_file, score_tokens
from tinygrad_llm.evaluation import text as evaluation
from tinygrad_llm.tokenizer import CharTokenizer


@pytest.fixture
def text_file(tmp_path: Path) -> str:
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    return str(tmp_path / "text.txt")


@TOKENIZERS
def test_uniform_model_costs_ln_v_per_token(tokenizer: Tokenizer | CharTokenizer, text_file: str) -> None:
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
def test_nats_are_the_sum_of_the_losses(tokenizer: Tokenizer | CharTokenizer, stride: int, text_file: str) -> None:
    model = model_of(tokenizer.n_vocab)
    start = [] if tokenizer.eot_token is None else [tokenizer.eot_token]
    ids = np.array(start + tokenizer.encode(TEXT))
    losses = np.concatenate(list(score_tokens(model, [ids], stride)))
    calls: list[tuple[float, int, int]] = []
    score = score_file(model, tokenizer, text_file, stride, progress=lambda *so_far: calls.append(so_far))
    assert score.nats == pytest.approx(math.fsum(losses), rel=1e-12)
    assert score.tokens == len(losses)
    assert calls[-1] == (score.nats, score.tokens, score.tokens)


@TOKENIZERS
@pytest.mark.parametrize("kind", ["text", "tokens"])
def test_the_number_of_tokens_is_expected_early(
    tokenizer: Tokenizer | CharTokenizer, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tinygrad_llm.datasets.corpora.STRETCH", 1000)
    monkeypatch.setattr("tinygrad_llm.evaluation.text.IDS_AT_ONCE", 500)
    path = tmp_path / "long.txt"
    path.write_text(TEXT * (10_000 // len(TEXT)), encoding="utf-8")
    file = str(path)
    if kind == "tokens":
        file = str(encode_file(tokenizer, file, tmp_path / "long.bin", workers=1).path)
    calls: list[tuple[float, int, int]] = []
    model = uniform(tokenizer.n_vocab)
    score = score_file(model, tokenizer, file, batch_size=20, progress=lambda *so_far: calls.append(so_far))
    expected = [call[2] for call in calls]
    assert expected[0] == pytest.approx(score.tokens, rel=0.1)
    assert expected[-1] == score.tokens
    assert len(set(expected)) > 1 or kind == "tokens"
    assert all(tokens <= total for _, tokens, total in calls)


@pytest.mark.parametrize(("eot", "first"), [(0, [0]), (None, [])])
def test_an_end_of_text_of_id_0_is_read_before_the_text(eot: int | None, first: list[int]) -> None:
    piece = evaluation._Piece(np.array([4, 5]), "a b", 3, 0.5)
    counter = evaluation._Counter(eot, [piece])
    assert np.concatenate(list(counter.ids())).tolist() == [*first, 4, 5]
    # Half of the file has two tokens; without an end of text, the first is not scored.
    assert (counter.words, counter.bytes, counter.expected) == (2, 3, 4 if first else 2)


def test_averages_by_hand() -> None:
    score = TextScore(nats=6 * math.log(2), tokens=3, words=2, bytes=12)
    assert score.loss == pytest.approx(2 * math.log(2))
    assert score.perplexity == pytest.approx(4)
    assert score.word_perplexity == pytest.approx(8)
    assert score.bits_per_byte == pytest.approx(0.5)
    assert TextScore(5000, 1000, 1, 1000).word_perplexity == math.inf


@TOKENIZERS
def test_token_file_scores_as_its_text(
    tokenizer: Tokenizer | CharTokenizer, text_file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(tokenizer.n_vocab)
    whole = score_file(model, tokenizer, text_file)
    made = encode_file(tokenizer, text_file, tmp_path / "tokens.bin", workers=1)
    (tmp_path / "raw.ids").write_bytes(made.path.read_bytes())
    for size, file, dtype in ((1, made.path, None), (3, tmp_path / "raw.ids", "uint16")):
        monkeypatch.setattr(evaluation, "IDS_AT_ONCE", size)  # so that words and characters are cut
        score = score_file(model, tokenizer, str(file), dtype=dtype)
        assert (score.tokens, score.words, score.bytes) == (whole.tokens, whole.words, whole.bytes)
        assert score.nats == pytest.approx(whole.nats, rel=1e-12)


@TOKENIZERS
def test_text_in_stretches_scores_as_one_text(
    tokenizer: Tokenizer | CharTokenizer, text_file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(tokenizer.n_vocab)
    whole = score_file(model, tokenizer, text_file)
    monkeypatch.setattr(corpora, "STRETCH", 16)
    assert len(list(read_stretches(text_file))) > 5
    score = score_file(model, tokenizer, text_file)
    assert (score.tokens, score.words, score.bytes) == (whole.tokens, whole.words, whole.bytes)
    assert score.nats == pytest.approx(whole.nats, rel=1e-12)


def test_bundled_corpus_is_scored_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "a story<|endoftext|>"
    monkeypatch.setattr(corpora, "load_corpus", lambda name, keep_newlines: {"stories": text}[name])
    score = score_file(uniform(BPE.n_vocab), BPE, "stories", special="allow")
    assert (score.tokens, score.words, score.bytes) == (len(BPE.encode(text, "all")), 2, len(text))


@pytest.mark.parametrize(
    ("data", "tokenizer", "message"),
    [
        (b"", BPE, "the file is empty"),
        (b"", CHARS, "the file is empty"),
        (b" \n\n", CHARS, "the file is empty"),
        (b"a", CHARS, "holds one token, and nothing to predict it from"),
        ("cat Ω\n".encode(), CHARS, r"character '\\u03a9' at position 4 is not among"),
        (b"caf\xe9", BPE, r"not UTF-8 text \(byte 0xe9 at position 3\)"),
        (b"a<|endoftext|>", BPE, r"holds the special token '<\|endoftext\|>' at byte 1: add --allow-special"),
    ],
)
def test_text_that_cannot_be_scored_is_named(
    data: bytes, tokenizer: Tokenizer | CharTokenizer, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"bad.txt: {message}"):
        score_file(uniform(tokenizer.n_vocab), tokenizer, str(path))


def test_a_missing_file_is_named_and_line_ends_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    for name in ("none.txt", "none.bin"):
        with pytest.raises(DataError, match=f"^{tmp_path / name}: no such file, and no such corpus"):
            score_file(uniform(280), BPE, str(tmp_path / name))
    (tmp_path / "text.txt").write_bytes(b"the cat\r\nsat")
    for options, size in (({}, 11), ({"keep_newlines": True}, 12)):
        assert score_file(uniform(280), BPE, str(tmp_path / "text.txt"), **options).bytes == size


def test_unknown_character_in_a_later_stretch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("the cat " * 10 + "Ω")
    monkeypatch.setattr(corpora, "STRETCH", 16)
    with pytest.raises(DataError, match=r"bad\.txt, after byte") as failure:
        score_file(uniform(CHARS.n_vocab), CHARS, str(path))
    numbers = re.findall(r"after byte (\d+): .* at position (\d+) ", str(failure.value))
    assert sum(map(int, numbers[0])) == 80


def test_ids_of_another_vocabulary_are_refused(tmp_path: Path, text_file: str, monkeypatch: pytest.MonkeyPatch) -> None:
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
