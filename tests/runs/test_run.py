"""A run's folder: all that came of it, whole or not at all."""

import contextlib
import csv
import dataclasses
import hashlib
import json
import math
import sys

import numpy as np
import pytest

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import DataError
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.generation import KVCache
from tinygrad_llm.models import GPTConfig
from tinygrad_llm.weights import pretrained
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer
from tinygrad_llm.runs.config import DataSettings, RunConfig, read_toml
from tinygrad_llm.runs.run import (
    Run,
    holds_run,
    load_run,
    read_metrics,
    write,
)
from tinygrad_llm.training import Step
from tinygrad_llm.training import TrainSettings
from tinygrad_llm.runs import run as run_module

TEXT = "The cat sat on the mat, und die Katze saß dort.\n" * 12
SETTINGS = TrainSettings(steps=3, batch_size=4, lr=1e-2, min_lr=1e-3, warmup=1, eval_every=2, eval_batches=2, workers=1)
MODEL = GPTConfig(n_layer=1, n_head=2, n_embd=8, block_size=8)
CHARS = RunConfig(data=DataSettings(tokenizer="char"), model=MODEL, training=SETTINGS)
PAIRS = RunConfig(data=DataSettings(tokenizer="bpe", vocab_size=280), model=MODEL, training=SETTINGS)


@pytest.fixture
def trained(tmp_path):
    """A function: config → a Run that has been trained, not saved, with its folder in tmp_path."""

    def make(config=CHARS, text=TEXT, folder="run"):
        corpus = tmp_path / "text.txt"
        corpus.write_text(text, encoding="utf-8")
        run = Run(config.changed({"corpus": str(corpus)}), tmp_path / folder)
        run.make_tokenizer()
        run.make_model()
        for step in run.train():
            if step.val_loss is not None:
                run.sample(10)
        return run

    return make


def contents(folder):
    return {path.name: path.read_bytes() if path.is_file() else contents(path) for path in folder.iterdir()}


# ---- what is saved ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [CHARS, PAIRS], ids=lambda config: config.data.tokenizer)
def test_a_saved_run_comes_back(config, trained):
    run = trained(config)
    written = run.save()
    assert holds_run(run.folder)
    assert sorted(written) == sorted(run.folder.iterdir())
    model, tokenizer = load_run(run.folder)
    ids = tokenizer.encode("the mat")
    assert ids == run.tokenizer.encode("the mat")
    assert model.config == run.model.config
    np.testing.assert_array_equal(model([ids]).numpy(), run.model([ids]).numpy())
    again, _ = load_run(run.folder / "model.safetensors")  # the file itself will do as well
    np.testing.assert_array_equal(again([ids]).numpy(), run.model([ids]).numpy())


def test_metrics_have_a_line_a_step(trained):
    run = trained()
    run.save()
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [dataclasses.asdict(step) for step in run.steps]
    assert [json.loads(line)["step"] for line in lines] == [0, 1, 2, 3]


def test_the_table_is_the_metrics_flat(trained):
    run = trained()
    run.save()
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    with open(run.folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines) == 4
    layers = ["wte", "wpe", "h.0", "ln_f"]
    by_layer = [f"{name}/{layer}" for name in ("update_ratio", "layer_grad_norm") for layer in layers]
    plain = [field.name for field in dataclasses.fields(Step) if field.name not in run_module.BY_LAYER]
    assert list(rows[0]) == plain + by_layer
    for row, line in zip(rows, map(json.loads, lines), strict=True):
        for column, text in row.items():
            name, _, layer = column.partition("/")
            value = (line[name] or {}).get(layer) if layer else line[name]
            assert text == ("" if value is None else str(value))
    assert [row["update_ratio/h.0"] != "" for row in rows] == [False, False, True, True]


def test_what_is_no_number_is_empty_in_the_table_and_null_in_json(tmp_path):
    bad = Step(1, math.nan, 0.1, math.inf, 9.0, None, skipped=True, layer_grad_norm={"wte": 1.5, "h.0": math.inf})
    (tmp_path / "metrics.jsonl").write_text(run_module.to_json(bad))
    fields = json.loads(run_module.to_json(bad), parse_constant=pytest.fail)
    assert (fields["loss"], fields["grad_norm"], fields["layer_grad_norm"]) == (None, None, {"wte": 1.5, "h.0": None})
    (again,) = read_metrics(tmp_path / "metrics.jsonl")
    assert math.isnan(again.layer_grad_norm["h.0"])
    assert run_module.to_csv([again]) == run_module.to_csv([bad])
    (row,) = csv.DictReader(run_module.to_csv([bad]).splitlines())
    assert (row["loss"], row["layer_grad_norm/wte"], row["layer_grad_norm/h.0"]) == ("", "1.5", "")


def test_lines_without_figures_by_layer_are_read(tmp_path):
    line = {"step": 1, "loss": 2.0, "lr": 0.1, "grad_norm": 1.0, "tokens_per_second": 9.0, "val_loss": None}
    wrong = line | {"update_ratio": [1, 2]}
    (tmp_path / "metrics.jsonl").write_text(f"{json.dumps(line)}\n{json.dumps(wrong)}\n")
    assert read_metrics(tmp_path / "metrics.jsonl") == [Step(1, 2.0, 0.1, 1.0, 9.0, None)]


def test_samples_are_kept_with_their_steps(trained):
    run = trained()
    assert [step for step, _ in run.samples] == [0, 2, 3]
    run.samples[1] = (2, "saß")
    run.save()
    text = (run.folder / "samples.txt").read_text(encoding="utf-8")
    assert [line for line in text.splitlines() if line.startswith("---")] == [f"--- step {n} ---" for n in (0, 2, 3)]
    assert "--- step 2 ---\nsaß\n" in text


def test_the_folder_says_what_was_asked_for_and_what_it_was_made_from(trained):
    run = trained()
    run.save()
    about = json.loads((run.folder / "run.json").read_text())
    assert about["identity"]["corpus"] == [
        {"characters": len(TEXT), "sha256": hashlib.sha256(TEXT.encode()).hexdigest()}
    ]
    assert about["identity"]["tokenizer"]["tokens"] == run.tokenizer.n_vocab
    assert about["steps_done"] == 3
    values = read_toml(run.folder / "config.toml")
    assert values["model.n_embd"] == 8
    assert values["training.lr"] == SETTINGS.lr
    assert values["training.workers"] == 1


@pytest.mark.parametrize("name", ["loss.png", "gradients.png"])
def test_the_pictures_are_there_with_matplotlib(name, trained):
    pytest.importorskip("matplotlib")
    run = trained()
    assert run.folder / name in run.save()
    assert (run.folder / name).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["metrics.csv", "gradients.png", "tensorboard"])
def test_each_of_its_files_tells_of_a_run(name, tmp_path):
    assert not holds_run(tmp_path)
    (tmp_path / name).touch()
    assert holds_run(tmp_path)


def test_pictures_of_an_earlier_run_do_not_stay(trained, monkeypatch):
    pytest.importorskip("matplotlib")
    old = trained()
    old.save()
    monkeypatch.setattr(run_module, "save_loss_curve", lambda steps, path: False)
    trained().save()
    assert not list(old.folder.glob("*.png"))


def test_all_else_is_there_without_matplotlib(trained, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    run = trained()
    names = {path.name for path in run.save()}
    texts = {"tokenizer.json", "config.toml", "run.json", "metrics.jsonl", "metrics.csv", "samples.txt"}
    assert names == {"model.safetensors", "checkpoints"} | texts
    assert names == set(contents(run.folder))


# ---- saving that fails -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["a weight is NaN", "the disk is full", "the picture fails"])
def test_a_save_that_fails_leaves_the_old_run(reason, trained, monkeypatch):
    old = trained()
    old.save()
    before = contents(old.folder)
    new = trained(text=TEXT.replace("cat", "fox"))  # other characters: its tokenizer would garble the old model
    if reason == "a weight is NaN":
        new.model.transformer.ln_f.bias.data[0] = np.nan
    else:

        def fail(*args, **kwargs):
            raise OSError(28, "No space left on device")

        where = (pretrained, "save_safetensors") if reason == "the disk is full" else (run_module, "save_loss_curve")
        monkeypatch.setattr(*where, fail)
    with pytest.raises((ValueError, OSError), match=r"NaN|No space"):
        new.save()
    assert contents(old.folder) == before
    load_run(old.folder)


def test_a_run_takes_the_place_of_another(trained):
    trained().save()
    run = trained(PAIRS)
    run.save()
    _, tokenizer = load_run(run.folder)
    assert tokenizer.n_vocab == run.tokenizer.n_vocab


# ---- loading what is not right ---------------------------------------------------------------------------------


def test_a_tokenizer_of_another_run_is_noticed(trained):
    run = trained()
    run.save()
    CharTokenizer("abc").save(run.folder / "tokenizer.json")
    with pytest.raises(LoadError, match=f"has 3 tokens and the model {run.tokenizer.n_vocab}: they do not belong"):
        load_run(run.folder)


def test_a_run_without_a_tokenizer_is_noticed(trained):
    run = trained()
    run.save()
    (run.folder / "tokenizer.json").unlink()
    with pytest.raises(LoadError, match=r"tokenizer\.json is missing"):
        load_run(run.folder)


def test_a_run_without_a_model_is_noticed(trained, tmp_path):
    run = trained()
    run.save()
    (run.folder / "model.safetensors").unlink()
    with pytest.raises(LoadError, match=r"model.safetensors is missing"):
        load_run(run.folder)
    with pytest.raises(LoadError, match="nowhere"):
        load_run(tmp_path / "nowhere")


def test_a_damaged_model_is_noticed(trained):
    run = trained()
    run.save()
    path = run.folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(LoadError, match="truncated"):
        load_run(run.folder)


# ---- texts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (1, "text.txt"),
        (8, "its training part has 7 tokens, and one block of 8 with its target needs 9"),
        (40, "its held-out part has 4 tokens, and one block of 8 with its target needs 9"),
    ],
)
def test_too_short_a_text_is_refused_by_name(length, message, tmp_path):
    corpus = tmp_path / "text.txt"
    corpus.write_text(TEXT[:length])
    run = Run(CHARS.changed({"corpus": str(corpus)}), tmp_path / "run")
    with pytest.raises(DataError, match=message):
        run.make_tokenizer()
    assert list(tmp_path.iterdir()) == [corpus]


def test_the_parts_are_nine_tenths_and_the_rest(trained):
    run = trained()
    cut = len(TEXT) * 9 // 10
    assert run.tokenizer.decode(run.sources[0]) == TEXT[:cut]
    assert run.tokenizer.decode(run.held_out[0]) == TEXT[cut:]


def test_the_end_of_text_in_a_corpus_is_that_token(trained):
    run = trained(PAIRS, TEXT.replace("\n", "<|endoftext|>"))
    assert np.count_nonzero(run.sources[0] == run.tokenizer.eot_token) == 10


def test_a_tokenizer_may_be_a_folder_with_gpt2s_pair_of_files(trained, tmp_path):
    tokenizer = Tokenizer.train(TEXT, 280)
    tokenizer.save_gpt2(tmp_path / "pair")
    assert trained(CHARS.changed({"tokenizer": str(tmp_path / "pair")})).tokenizer.merges == tokenizer.merges


def test_a_text_of_one_line_can_be_sampled(trained):
    run = trained(text=TEXT.replace("\n", " "))  # no newline among the characters to begin with
    assert len(run.samples) == 3


# ---- writing ---------------------------------------------------------------------------------------------------


class Parrot:
    """A language model that says the same tokens to every prompt."""

    block_size = 100

    def __init__(self, n_vocab, tokens):
        self.n_vocab, self.tokens = n_vocab, iter(tokens)

    def new_cache(self):
        return KVCache(1, self.block_size)

    def evaluating(self):
        return contextlib.nullcontext()

    def __call__(self, ids, cache=None, logits_to_keep=None):
        logits = np.zeros((1, ids.shape[1], self.n_vocab))
        logits[0, -1, next(self.tokens)] = 1
        return Tensor(logits)


def test_no_piece_ends_in_half_a_character():
    tokenizer = Tokenizer([])
    ids = tokenizer.encode("saß, 🦊!")  # each byte is a token
    pieces = list(write(Parrot(tokenizer.n_vocab, ids), tokenizer, [0], len(ids), temperature=0))
    assert [piece for piece in pieces if piece] == list("saß, 🦊!")


def test_half_a_character_at_the_end_is_shown_as_such():
    tokenizer = Tokenizer([])
    ids = tokenizer.encode("ß")[:1]
    text = "".join(write(Parrot(tokenizer.n_vocab, ids), tokenizer, [0], 1, temperature=0))
    assert text == "\N{REPLACEMENT CHARACTER}"


def test_the_end_of_text_ends_it():
    tokenizer = Tokenizer([])
    ids = [*tokenizer.encode("one"), tokenizer.eot_token, *tokenizer.encode("two")]
    assert "".join(write(Parrot(tokenizer.n_vocab, ids), tokenizer, [0], len(ids), temperature=0)) == "one"


def test_a_bad_argument_is_refused_at_the_call(trained):
    run = trained()
    with pytest.raises(ValueError, match="temperature"):
        write(run.model, run.tokenizer, [0], 5, temperature=-1)


def test_the_seed_decides_what_is_written(trained):
    run = trained()
    texts = ["".join(write(run.model, run.tokenizer, [0], 40, rng=Generator(seed))) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_damaged_lines_of_the_log_are_left_out(tmp_path):
    good = [run_module.to_json(Step(n, 1.0, 0.1, 1.0, 1.0, None)) for n in (1, 2, 3)]
    bad = ['{"step":"x","loss":1,"lr":1,"grad_norm":1,"tokens_per_second":1,"val_loss":1}\n', good[0], "\xff\n"]
    bad.append(good[2].replace('"loss": 1.0', '"loss": "x"').replace('"step": 3', '"step": 4'))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes("".join([good[0], bad[0], good[1], *bad[1:], good[2]]).encode("latin-1"))
    assert [step.step for step in read_metrics(path)] == [1, 2, 3]


def test_a_run_that_was_stopped_earlier_is_left_alone(tmp_path):
    for name in ("run", "run-stopped"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text("{}")
    run = Run(CHARS, tmp_path / "run")
    assert run._work == tmp_path / "run-stopped-2"
