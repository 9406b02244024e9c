"""`tinygrad-llm eval`: the scores of a text, of choices and of next tokens, in words and in JSON."""

import copy
import json
import math
import re
import shutil
import sys

import numpy as np
import pytest

from tinygrad_llm import GPT, Generator, GPTConfig, Tokenizer
from tinygrad_llm.datasets import encode_file
from tinygrad_llm.evaluation import losses, read_choices, score_choices, score_file
from tinygrad_llm.tokenizer import CharTokenizer

TEXT = "Once there was a cat. The cat sat on the mat, and the mat was flat.\n" * 5
BLOCK = 16
ITEM = {"ctx": "The cat sat", "endings": ["on the mat.", "was a mat.", "flat.", "there was."], "label": 0}


def save(folder, tokenizer):
    model = GPT(GPTConfig(vocab_size=tokenizer.n_vocab, block_size=BLOCK, n_layer=1, n_head=2, n_embd=8), Generator(1))
    model.save_pretrained(folder)
    tokenizer.save(folder / "tokenizer.json")
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two untrained models as runs, bpe and char, and text.txt and choices.jsonl; and the models."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "text.txt").write_text(TEXT)
    (folder / "choices.jsonl").write_text(f"{json.dumps(ITEM)}\n" * 3)
    tokenizers = {"bpe": Tokenizer.train(TEXT, 280), "char": CharTokenizer.train(TEXT)}
    return folder, {name: (save(folder / name, tokenizer), tokenizer) for name, tokenizer in tokenizers.items()}


@pytest.fixture
def models(made, place):
    """The models by name; their files are in the working folder."""
    folder, by_name = made
    shutil.copytree(folder, place, dirs_exist_ok=True)
    return by_name


def figures_of(out):
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_a_model_with_rotary_positions_reads_more_than_in_training(cli, refused, models):
    _, tokenizer = models["char"]
    sizes = {"vocab_size": tokenizer.n_vocab, "block_size": 8, "n_layer": 1, "n_head": 2, "n_embd": 8}
    GPT(GPTConfig(**sizes, positions="rotary")).save_pretrained("turned")
    tokenizer.save("turned/tokenizer.json")
    figures = figures_of(cli("eval", "turned", "text.txt", "--block-size", 20, "--stride", 20, "--json")[1])
    assert (figures["block_size"], figures["stride"]) == (20, 20)
    assert figures["loss"] != figures_of(cli("eval", "turned", "text.txt", "--stride", 8, "--json")[1])["loss"]
    prompt = tokenizer.decode(range(8)) * 2
    long, cut = (["generate", "turned", "--prompt", prompt, "--no-crop", *more] for more in (["--block-size", 20], []))
    assert (cli(*long)[0], cli(*cut)[0]) == (0, 2)
    told = "tinygrad-llm eval: --block-size 20: this model's positions are absolute, with a learned vector for each of"
    err = refused("eval", "char", "text.txt", "--block-size", 20)
    assert err.startswith(told)


@pytest.mark.parametrize("name", ["bpe", "char"])
@pytest.mark.parametrize("options", [[], ["--stride", BLOCK], ["--stride", 1, "--batch-size", 3]], ids=str)
def test_text_is_scored(name, options, cli, models):
    status, out, err = cli("eval", name, "text.txt", *options, "--json")
    figures = figures_of(out)
    assert (status, err) == (0, "")
    stride = options[1] if options else BLOCK // 2
    score = score_file(*models[name], "text.txt", stride)
    assert figures == {
        "run": name,
        "file": "text.txt",
        "loss": pytest.approx(score.loss),
        "perplexity": pytest.approx(math.exp(score.loss)),
        "word_perplexity": pytest.approx(score.word_perplexity),
        "bits_per_byte": pytest.approx(score.bits_per_byte),
        "tokens": score.tokens,
        "words": len(TEXT.split()),
        "bytes": len(TEXT),
        "stride": stride,
        "block_size": BLOCK,
    }
    status, out, err = cli("eval", name, "text.txt", *options)
    assert (status, err) == (0, "")
    assert f"{score.tokens} tokens scored, {score.words} words, {score.bytes} bytes" in out
    assert f"{score.loss:.4f} nats per token" in out
    assert f"{score.bits_per_byte:.4f}" in out
    assert f"stride {stride} of {BLOCK}: each token scored once, with at least {BLOCK - stride + 1} before it" in out
    assert ("the first is not scored" in out) == (name == "char")


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("what", [["text.txt"], ["--choices", "choices.jsonl"]], ids=["text", "choices"])
def test_batch_size_is_the_most_rows_that_the_model_reads_at_once(what, size, cli, models, monkeypatch):
    rows, forward = [], GPT.forward

    def spy(model, ids, *more, **options):
        rows.append(len(ids))
        return forward(model, ids, *more, **options)

    monkeypatch.setattr(GPT, "forward", spy)
    monkeypatch.setattr(losses, "threads_of_blas", lambda: 1)  # several threads would share the rows
    assert cli("eval", "bpe", *what, "--batch-size", size)[0] == 0
    assert max(rows) == size < sum(rows)


def test_token_file_scores_as_its_text_with_special_tokens(cli, models, place):
    (place / "two.txt").write_text("a cat<|endoftext|>\nthe mat")
    encode_file(models["bpe"][1], "two.txt", "two.bin", workers=1, special="allow")
    of_text, of_tokens = (
        figures_of(cli("eval", "bpe", *words, "--json")[1]) for words in (("two.txt", "--allow-special"), ("two.bin",))
    )
    assert of_text | {"file": "two.bin"} == of_tokens
    (place / "two.bin.json").unlink()
    assert figures_of(cli("eval", "bpe", "two.bin", "--dtype", "uint16", "--json")[1]) == of_tokens


def test_model_is_scored_with_a_tokenizer_from_elsewhere(cli, models, place):
    expected = figures_of(cli("eval", "char", "text.txt", "--json")[1])
    (place / "char" / "tokenizer.json").rename(place / "other.json")
    assert figures_of(cli("eval", "char", "text.txt", "--tokenizer", "other.json", "--json")[1]) == expected


def test_infinite_perplexity_is_null_in_json(cli, models, place):
    (place / "long.txt").write_text("cat" * 500)
    assert figures_of(cli("eval", "char", "long.txt", "--json")[1])["word_perplexity"] is None
    assert "inf" in cli("eval", "char", "long.txt")[1]
    (place / "words.txt").write_text("catcatca " * 40)
    (word,) = re.findall(r"perplexity per word +(\S+)", cli("eval", "char", "words.txt")[1])
    assert re.fullmatch(r"\d\.\d\de\+\d\d", word)  # digits that nobody reads are left out


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("what", [("text.txt",), ("--choices", "choices.jsonl")], ids=["text", "choices"])
def test_progress_is_shown_where_it_takes_long(what, terminal, cli, models, place, monkeypatch):
    (place / "choices.jsonl").write_text("".join(json.dumps(ITEM) + "\n" for _ in range(9)))
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    if terminal:
        pytest.importorskip("tqdm")
    status, _, err = cli("eval", "char", *what, "--batch-size", 5)
    assert (status, "left" in err.replace("left out", "")) == (0, False)
    monkeypatch.setattr("tinygrad_llm.cli.progress._DELAY", 0.0)
    monkeypatch.setattr("tinygrad_llm.cli.progress._SECONDS", 0.0)
    status, _, err = cli("eval", "char", *what, "--batch-size", 5)
    assert status == 0
    assert ("00:00 left" if terminal else "0 s left\n") in err
    assert ("nats per token" in err) is ("text.txt" in what)


@pytest.mark.parametrize("name", ["bpe", "char"])
def test_choices_are_scored(name, cli, models):
    status, out, err = cli("eval", name, "--choices", "choices.jsonl", "--json")
    figures = figures_of(out)
    cut = "3 of 3 texts are longer than the 16 tokens that the model reads at once: the beginning of each is left out"
    assert status == 0
    assert " ".join(err.split()) == (f"tinygrad-llm eval: {cut}" if figures["cut"] else "")
    scores = list(score_choices(*models[name], read_choices("choices.jsonl")))
    assert (figures["choices"], figures["n"], len(figures["items"])) == ("choices.jsonl", 3, 3)
    assert {"acc", "acc_norm", "chance", "cut"} <= figures.keys()
    assert figures["cut"] == sum(item["cut"] for item in figures["items"])
    assert all(item.keys() == {"label", "sums", "normalized", "cut"} for item in figures["items"])
    assert figures["chance"] == 0.25
    assert figures["acc"] == np.mean([score.right for score in scores])
    assert figures["acc_norm"] == np.mean([score.right_normalized for score in scores])
    assert figures["items"][1]["sums"] == pytest.approx(scores[1].sums)
    assert figures["items"][1]["normalized"] == pytest.approx(scores[1].normalized)
    out = cli("eval", name, "--choices", "choices.jsonl")[1]
    assert "n = 3 items" in out
    assert f"acc        {figures['acc']:6.1%}" in out
    assert f"acc_norm   {figures['acc_norm']:6.1%}" in out
    assert "chance      25.0%" in out
    assert figures["cut"] == sum(score.cut for score in scores)


def test_bundled_choices_are_scored_by_name(cli, place):
    stories = CharTokenizer.train("".join(c.ctx + " " + "".join(c.endings) for c in read_choices("choices")))
    GPT(GPTConfig(vocab_size=stories.n_vocab, block_size=64, n_layer=1, n_head=1, n_embd=2)).save_pretrained("run")
    stories.save("run/tokenizer.json")
    figures = figures_of(cli("eval", "run", "--choices", "choices", "--json")[1])
    assert figures["n"] == 24
    assert 0 <= figures["acc"] <= 1


@pytest.mark.parametrize("name", ["bpe", "char"])
def test_next_tokens_are_listed(name, cli, models):
    model, tokenizer = models[name]
    status, out, err = cli("eval", name, "--next", "Once there was a", "--top", 5, "--json")
    figures = figures_of(out)
    assert (status, err) == (0, "")
    ids = tokenizer.encode("Once there was a")[-BLOCK:]
    assert (figures["text"], figures["read"]) == ("Once there was a", len(ids))
    with model.evaluating():
        logits = model(np.array([ids])).data[0, -1].astype(float)
    probs = np.exp(logits) / np.sum(np.exp(logits))
    assert [row["probability"] for row in figures["next"]] == pytest.approx(sorted(probs, reverse=True)[:5])
    assert [row["probability"] for row in figures["next"]] == pytest.approx([probs[r["id"]] for r in figures["next"]])
    out = cli("eval", name, "--next", "Once there was a", "--top", 5)[1]
    for row in figures["next"]:
        assert f"{row['probability']:.4%}  {row['id']:>6}  {row['token']}\n" in out


def test_next_reads_at_most_a_block_and_may_be_empty(cli, printed, models):
    for name in ("bpe", "char"):
        out = printed("eval", name, "--next", "")
        assert len(out.splitlines()) == 12
    status, _, err = cli("eval", "char", "--next", "the cat sat on the mat")
    assert status == 0
    assert "the text is longer than the 16 tokens that the model reads at\n    once: its beginning is left out" in err


MISTAKES = {
    "nothing asked": ("bpe", "give one of these: a FILE to score, --choices FILE, --next TEXT, --prompts FILE"),
    "two things asked": ("bpe text.txt --next cat", "give one of these"),
    "a stride for choices": ("bpe --choices choices.jsonl --stride 2", "--stride is for a FILE to score"),
    "shots for choices": ("bpe --choices choices.jsonl --shots 1", "--shots is for --prompts FILE"),
    "a judge for a text": ("bpe text.txt --judge http://localhost", "--judge is for --instructions FILE"),
    "choices that do not fit": (
        "char --choices choices.jsonl --no-crop", "choices.jsonl: line 1: the text with an ending has",
    ),
    "a batch for one text": ("bpe --next cat --batch-size 2", "--batch-size is for a FILE to score, --choices"),
    "top for a text": ("bpe text.txt --top 3", "--top is for --next TEXT"),
    "a run without a model": ("empty text.txt", "empty: no model here"),
    "no run": ("nowhere text.txt", "nowhere: no model here"),
    "a tokenizer of another model": ("bpe text.txt --tokenizer gpt2", "gpt2 has 50257 tokens and bpe 280"),
    "no tokenizer": ("lonely text.txt", "tokenizer.json is missing"),
    "no file": ("bpe none.txt", "none.txt: no such file, and no such corpus"),
    "a folder": ("bpe empty", "empty: cannot be read"),
    "an empty file": ("bpe empty.txt", "empty.txt: the file is empty"),
    "one character": ("char one.txt", "one.txt: holds one token"),
    "an unknown character": ("char unknown.txt", "unknown.txt: character '\\xe9' at position 3"),
    "not UTF-8": ("bpe latin.txt", "latin.txt: not UTF-8 text"),
    "a special token": ("bpe special.txt", "holds the special token '<|endoftext|>' at byte 3: add --allow-special"),
    "a special token in --next": ("bpe --next a<|endoftext|>", "add --allow-special"),
    "an unknown character in --next": ("char --next é", "character '\\xe9' at position 0"),
    "an id outside": ("bpe far.bin --dtype uint16", "far.bin: token 1 is id 999, and the vocabulary has"),
    "ids of an unknown dtype": ("bpe far.bin", "far.bin.json is missing"),
    "stride 0": ("bpe text.txt --stride 0", "got '0', but it must be an integer of at least 1"),
    "a stride beyond the block": ("bpe text.txt --stride 17", "stride must lie in 1 … 16, the model's block_size"),
    "top 0": ("bpe --next a --top 0", "--top"),
    "no choices": ("bpe --choices none.jsonl", "none.jsonl: no such file"),
    "a bad line": ("bpe --choices bad.jsonl", "bad.jsonl: line 2: label is missing"),
    "a bad character in choices": ("char --choices strange.jsonl", "strange.jsonl: line 1: ctx: character '\\xe9'"),
    "damaged weights": ("huge text.txt", "the model's scores are NaN or infinite"),
}  # fmt: skip


@pytest.fixture
def files(models, place):
    """The working folder with all the files that the mistakes name."""
    texts = {
        "empty": b"",
        "one": b"c",
        "unknown": "caté\n".encode(),
        "latin": b"caf\xe9",
        "special": b"cat<|endoftext|>",
    }
    for name, data in texts.items():
        (place / f"{name}.txt").write_bytes(data)
    (place / "empty").mkdir()
    np.array([1, 999], "<u2").tofile(place / "far.bin")
    bad = {name: value for name, value in ITEM.items() if name != "label"}
    (place / "bad.jsonl").write_text(f"{json.dumps(ITEM)}\n{json.dumps(bad)}\n")
    (place / "strange.jsonl").write_text(json.dumps(ITEM | {"ctx": "é"}))
    model, tokenizer = copy.deepcopy(models["bpe"])
    model.save_pretrained(place / "lonely")
    model.transformer.ln_f.weight.data[:] = 3e38
    model.save_pretrained(place / "huge")
    tokenizer.save(place / "huge" / "tokenizer.json")
    return place


def test_mistakes_cost_one_line_each(refused, for_each, files, snapshot):
    before = snapshot(files)

    def check(mistake):
        arguments, message = MISTAKES[mistake]
        err = refused("eval", *arguments.split(" "))
        assert err.startswith("tinygrad-llm eval: ")
        assert message in err
        assert snapshot(files) == before

    for_each(MISTAKES, check)
