"""Every mistake in the data, the base and the folders of fine-tuning: one line, exit status 2, and nothing written."""

import json
import shutil

import numpy as np
import pytest

from tinygrad_llm.models import GPT, GPTClassifier, GPTConfig
from tinygrad_llm.nn import add_lora
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer, load_tokenizer
from tinygrad_llm.weights.adapters import save_adapter, state_hash

ROWS = [f"{('ham', 'spam')[i % 2]}\tmessage {i}" for i in range(40)]
ENTRIES = [{"instruction": "Say it.", "input": str(i), "output": "it"} for i in range(30)]
LINES = [json.dumps(entry) for entry in ENTRIES]
FILES = {
    "sweep.toml": '[base]\ninit = "base"\n[grid]\nlr = [1e-3, 1e-2]\n',
    "good.tsv": "\n".join(ROWS),
    "column.tsv": "\n".join([*ROWS[:5], "only a text", *ROWS[5:]]),
    "columns.tsv": "\n".join([*ROWS[:5], "ham\ta\tb", *ROWS[5:]]),
    "names.csv": "label,message\n" + "\n".join(ROWS).replace("\t", ","),
    "class.tsv": "\n".join(ROWS[::2]),
    "rare.tsv": "\n".join([*ROWS, *["rare\tthe same"] * 2]),
    "empty.tsv": "\n".join([*ROWS[:7], "ham\t  ", *ROWS[7:]]),
    "unlabeled.tsv": "\n".join([*ROWS[:7], "\thello", *ROWS[7:]]),
    "nothing.tsv": "",
    "long.tsv": "\n".join([*ROWS, f"ham\t{'word ' * 99}"]),
    "quote.tsv": "\n".join([*ROWS[:3], 'ham\t"it never ends', *ROWS[3:]]),
    "good.json": json.dumps(ENTRIES),
    "broken.json": json.dumps(ENTRIES, indent=1)[:-3],
    "broken.jsonl": "\n".join([*LINES[:4], '{"instruction": 1 2}', *LINES[4:]]),
    "missing.json": json.dumps([*ENTRIES, {"instruction": "x"}]),
    "unknown.json": json.dumps([*ENTRIES, {**ENTRIES[0], "answer": "x"}]),
    "silent.jsonl": "\n".join([*LINES, '{"instruction": "x", "output": " "}']),
    "same.json": json.dumps([ENTRIES[0]] * 30),
    "special.json": json.dumps([*ENTRIES, {**ENTRIES[0], "output": "it<|endoftext|>"}]),
    "pairs.json": json.dumps([{"instruction": "<|endoftext|>", "chosen": "a", "rejected": "b"}]),
    "half.json": json.dumps([*ENTRIES, {**ENTRIES[0], "input": "\ud83d"}]),
    "long.json": json.dumps([*ENTRIES, {"instruction": "x", "output": "y " * 99}]),
}
TO = "--steps 2 --set style=plain --out new"

# Mistake: (arguments, a part of the message). A base, a classifier and an adapter of one are in the working folder.
MISTAKES = {
    "a missing column": ("finetune classifier column.tsv", "column.tsv: line 6: must have two columns, label and text"),
    "a column too many": ("finetune classifier columns.tsv", "columns.tsv: line 6: must have two columns, label and"),
    "columns of other names": ("finetune classifier names.csv", "line 1: the columns must be label and text, got"),
    "one class": ("finetune classifier class.tsv", "class.tsv: has 1 classes (ham), and at least two are needed"),
    "a rare class": ("finetune classifier rare.tsv", "rare.tsv: 6 messages are too few for three parts"),
    "an empty message": ("finetune classifier empty.tsv", "empty.tsv: line 8: the text is empty: remove the line, or"),
    "an empty label": ("finetune classifier unlabeled.tsv", "unlabeled.tsv: line 8: the label is empty"),
    "an empty file": ("finetune classifier nothing.tsv", "nothing.tsv: has no messages: give lines"),
    "a folder for a file": ("finetune classifier .", ".: not a regular file: name the file with the examples"),
    "passes and updates": (
        "finetune classifier good.tsv --epochs 1",
        "give --epochs, passes over the examples, or --steps, updates; not both",
    ),
    "a long message": (
        "finetune classifier long.tsv --set balance=false --set too_long=refuse",
        "messages longer than the 64 tokens that the model reads: 1: set finetune.too_long=cut, or choose another base",
    ),
    "an open quote": ("finetune classifier quote.tsv", "a quoted text holds several lines, at line 4"),
    "instructions for a classifier": ("finetune classifier good.json", "good.json: line 1: must have two columns"),
    "messages for an assistant": ("finetune assistant good.tsv", "Expecting value: column 1: give JSON: a line"),
    "instructions for preferences": ("finetune preference good.json", "good.json: entry 1: chosen is missing"),
    "broken JSON": ("finetune assistant broken.json", "broken.json: not JSON: Expecting"),
    "a broken line": ("finetune assistant broken.jsonl", "line 5: not JSON: Expecting ',' delimiter: column"),
    "a missing key": ("finetune assistant missing.json", "missing.json: entry 31: output is missing: the keys are"),
    "an unknown key": ("finetune assistant unknown.json", "unknown.json: entry 31: unknown key 'answer'"),
    "an empty answer": ("finetune assistant silent.jsonl", "silent.jsonl: entry 31: output must be a text that is not"),
    "a special token": ("finetune assistant special.json", "special.json: entry 31: output holds the special token <|"),
    "a special token in a pair": ("finetune preference pairs.json", "pairs.json: entry 1: instruction holds the"),
    "half a character": ("finetune assistant half.json", "half.json: entry 31: input has half of a surrogate pair"),
    "letters that the base lacks": ("finetune classifier good.tsv --base letters", "15': character 'g' at position"),
    "special tokens in eval": ("eval base --instructions special.json", "special.json: entry 31: output holds the s"),
    "the base as output": ("finetune classifier good.tsv --out base --overwrite", "base: is the folder of base, which"),
    "the base's file as base": ("finetune classifier good.tsv --base base/model.safetensors --out base", "is the fo"),
    "an output in the base": ("finetune classifier good.tsv --out base/new", "base/new: is inside that of base, which"),
    "an output around the base": ("finetune classifier good.tsv --out .", ".: holds the folder of base, which the run"),
    "the base of the base": (
        "finetune assistant good.json --base adapted --out ../bad/base --overwrite",
        "base: is the folder of {place}/base, which the run starts from: choose another --out",
    ),
    "a sweep in its base": ("sweep sweep.toml --out base/new", "base/new: is inside that of base, which the run"),
    "the weights of train as output": ("train --corpus good.tsv --init base --out base --overwrite", "is the folder"),
    "one question only": ("finetune assistant same.json", "same.json: got 30 examples, 1 of them different, which are"),
    "a long answer": ("finetune assistant long.json --set too_long=refuse", "answers longer than the 64 tokens"),
    "a base with another tokenizer": ("finetune classifier good.tsv --base other", "they do not belong together"),
    "a base with a permuted tokenizer": ("finetune classifier good.tsv --base permuted", "is not the one that"),
    "a base without a tokenizer": ("finetune classifier good.tsv --base alone", "tokenizer.json is missing"),
    "a classifier as base": ("finetune assistant good.json --base spam", "spam/model.safetensors: holds 'tinygrad"),
    "a classifier in chat": ("chat spam", "and 'tinygrad_llm.GPT' is needed: `tinygrad-llm classify` reads it"),
    "an adapter of a classifier in chat": ("chat lora", "holds an adapter of a classifier: `tinygrad-llm classify`"),
    "a classifier that writes": ("generate spam", "`tinygrad-llm classify` reads it"),
    "an assistant that classifies": ("classify base hello", "is needed: `tinygrad-llm generate` and `chat` read it"),
    "a long text": (f"classify spam {'x' * 65} --no-crop", "the text has 65 tokens, and the model reads at most 64"),
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory, runs):
    """A folder with the files above, a base and its copies with other tokenizers, and an untrained classifier."""
    folder = tmp_path_factory.mktemp("work") / "bad"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text)
    letters = CharTokenizer("".join(map(chr, range(32, 127))) + "\n\t")
    pairs = Tokenizer.train("message it. Say it again.\n" * 9, 270)
    base = GPT(GPTConfig(pairs.n_vocab, block_size=64, n_layer=1, n_head=1, n_embd=8), Generator(0))
    for name, tokenizer in (("base", pairs), ("other", letters), ("alone", None)):
        base.save_pretrained(folder / name)
        if tokenizer is not None:
            tokenizer.save(folder / name / "tokenizer.json")
    shutil.copytree(runs["char-cpu"], folder / "letters")
    shutil.copytree(runs["char-cpu"], folder / "permuted")
    model = GPT.from_pretrained(folder / "base")
    add_lora(model, 2, rng=Generator(0))
    save_adapter(model, folder / "adapted", str(folder / "base"), state_hash(base))
    pairs.save(folder / "adapted" / "tokenizer.json")
    CharTokenizer(load_tokenizer(folder / "permuted").characters[::-1]).save(folder / "permuted" / "tokenizer.json")
    return folder, base, pairs


@pytest.fixture
def files(made, place, monkeypatch):
    folder, base, pairs = made
    monkeypatch.chdir(folder)
    GPTClassifier.from_gpt(base, ["ham", "spam"], Generator(0)).save_pretrained("spam")
    pairs.save("spam/tokenizer.json")
    model = GPTClassifier.from_gpt(GPT.from_pretrained("base"), ["ham", "spam"], Generator(0))
    add_lora(model, 2, rng=Generator(0))
    save_adapter(model, folder / "lora", str(folder / "base"), state_hash(base), ("score",), ("ham", "spam"))
    pairs.save("lora/tokenizer.json")
    return folder


def test_every_mistake_is_one_line_and_nothing_is_written(refused, files, for_each, snapshot):
    before = snapshot(files)

    def check(mistake):
        template, message = MISTAKES[mistake]
        words = template.split(" ")
        if words[0] == "finetune":
            words += TO.split(" ")[: -2 if "--out" in words else None] + ["--base", "base"] * ("--base" not in words)
        assert message.format(place=files) in refused(*words)
        assert snapshot(files) == before

    for_each(MISTAKES, check)


def test_what_is_no_mistake_is_told_and_trained_on(printed, files, place):
    (files / "twice.tsv").write_text("\n".join([*ROWS, *ROWS[:6], "spam\t" + "word " * 99, "ham\tx"]))
    out = printed("finetune", "classifier", "twice.tsv", "--base", "base", *TO.split(" "))
    assert "messages that repeat another one: 6; all copies of one are in the same part" in out
    assert "messages longer than the 64 tokens that the model reads: 1, cut" in out
    assert np.isfinite(json.loads((files / "new" / "results.json").read_text())["accuracy"]["test"])
