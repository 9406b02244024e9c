"""The tokenizer's benchmark: its corpora, and that it times the work it names."""

import json
import time

import pytest

from tinygrad_llm import runtime
from tinygrad_llm.bench import BenchError
from tinygrad_llm.bench import tokenizer as subject
from tinygrad_llm.tokenizer import Tokenizer

TEXTS = ["The cat sat on the mat. " * 9, "", "def cat(mat):\n    return 'mat' + '漢字'\n" * 9]


@pytest.fixture(autouse=True)
def small_gpt2(monkeypatch):
    """A new tokenizer at each call, of few merges in place of GPT-2's, which take long to read."""
    merges = Tokenizer.train(TEXTS, 280).merges
    monkeypatch.setattr(Tokenizer, "gpt2", lambda: Tokenizer(merges))


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "texts.json"
    path.write_text(json.dumps(TEXTS))
    return str(path)


def test_standard_corpora_come_with_python():
    corpora = subject.standard_corpora()
    assert list(corpora) == ["English", "Python source"]
    assert any("def " in text for text in corpora["Python source"])
    assert sum(map(len, corpora["Python source"])) > 1_000_000


def test_standard_corpora_without_python_source_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(subject.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(BenchError, match=r"got no \*\.py, .* --corpus"):
        subject.standard_corpora()


@pytest.mark.parametrize(("size", "kept"), [(0, 1), (3, 1), (6, 1), (7, 2), (8, 2), (9, 3), (99, 3)])
def test_a_corpus_is_cut_between_texts(size, kept):
    texts = ["abc", "éé", "xy"]
    assert subject.cut(texts, size) == texts[:kept]


def work(kind, name, path):
    options = {"training": {"vocab_size": 270}, "encoding": {"cold": False}, "decoding": {}}[kind]
    return getattr(subject, kind)(name, path, **options)


@pytest.mark.parametrize("name", [subject.OURS, *subject.THEIRS])
@pytest.mark.parametrize("kind", ["encoding", "decoding", "training"])
def test_all_contenders_give_the_same_answer(kind, name, path):
    if name != subject.OURS:
        pytest.importorskip(name)
    if (kind, name) == ("training", "tiktoken"):
        pytest.skip("tiktoken has only an example of a trainer")
    one, ours = work(kind, name, path), work(kind, subject.OURS, path)
    assert one.answer() == ours.answer()
    assert one.round() > 0


def test_the_answer_is_that_of_the_tokenizer(path, tmp_path):
    tokenizer = Tokenizer.gpt2()
    expected = b"".join(subject.array("I", tokenizer.encode(text)).tobytes() for text in TEXTS)
    trained = Tokenizer.train(TEXTS, 270)
    spelled = [tuple(trained.decode_bytes([i]) for i in pair) for pair in trained.merges]
    (tmp_path / "special.json").write_text('["<|endoftext|>"]')  # in a corpus, it is text like any other
    plain = Tokenizer.gpt2().encode_ordinary("<|endoftext|>")
    special = subject.encoding(subject.OURS, str(tmp_path / "special.json"), False)
    assert special.do()[1] == subject.array("I", plain).tobytes()
    works = [(subject.encoding(subject.OURS, path, cold), expected) for cold in (True, False)]
    works.append((subject.decoding(subject.OURS, path), "".join(TEXTS).encode()))
    works.append((subject.training(subject.OURS, path, vocab_size=270), repr(spelled).encode()))
    for one, answer in works:
        began = time.perf_counter()
        seconds, out = one.do()
        assert 0 < seconds < time.perf_counter() - began
        assert out == answer


@pytest.mark.parametrize("cold", [True, False])
def test_cold_is_a_new_tokenizer_each_round_and_warm_is_one_for_all(cold, path, monkeypatch):
    made = []
    gpt2 = Tokenizer.gpt2
    monkeypatch.setattr(Tokenizer, "gpt2", lambda: made.append(gpt2()) or made[-1])
    one = subject.encoding(subject.OURS, path, cold)
    before = len(made)
    for _ in range(3):
        one.round()
    assert len(made) - before == (3 if cold else 0)
    assert one.about()["construction_seconds"] > 0


def test_contenders_start_alike_with_one_thread_each(monkeypatch):
    runs = []
    monkeypatch.setattr(subject, "alternate", lambda contenders, rounds: runs.append((contenders, rounds)) or [])
    corpora = {"one": ["a"], "two": ["b", "c"]}
    names = [measure.name for measure in subject.measures(subject.THEIRS, 5, corpora)]
    assert names == [
        "encode one, cold", "encode one, warm", "encode two, cold", "encode two, warm", "decode two",
        "train 0.0 MB to 4,096 tokens",
    ]  # fmt: skip
    everyone = [subject.OURS, *subject.THEIRS]
    assert [[c.name for c in contenders] for contenders, _ in runs] == [everyone] * 5 + [["tinygrad_llm", "tokenizers"]]
    assert [rounds for _, rounds in runs] == [5] * 6
    for contenders, _ in runs:
        assert contenders[0].environment == subject.ONE_THREAD
        as_they_come = subject.ONE_THREAD | {runtime.OFF: "0"}
        assert all(contender.environment == as_they_come for contender in contenders[1:])
        first, *rest = [{**contender.options, "name": None} for contender in contenders]
        assert all(options == first for options in rest)
