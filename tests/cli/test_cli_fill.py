"""`tinygrad-llm train --model encoder` and `fill`; and what each command says of a folder that is for another one."""

import io
import json
import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm.cli import main
from tinygrad_llm.models import Encoder, EncoderClassifier
from tinygrad_llm.runs.presets import PRESETS

STORED = Path(__file__).parents[1] / "models" / "bert"
TEXT = "Once there was a cat. The cat sat on the mat, and the mat was flat.<|endoftext|>\n" * 60
SMALL = {"model.n_layer": 1, "model.n_head": 2, "model.n_embd": 16, "model.block_size": 16, "data.vocab_size": 300}
SMALL |= {"training.steps": 4, "training.warmup": 1, "training.eval_every": 2, "training.batch_size": 4}
SMALL |= {"training.eval_batches": 2, "training.workers": 1, "model.dropout": 0.1}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(PRESETS, "encoder-tiny", PRESETS["encoder-tiny"].changed(SMALL))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An encoder after four steps, what `train` printed, and the text that it read. Tests do not change it."""
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "text.txt").write_text(TEXT)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as out:
        patch.setitem(PRESETS, "encoder-tiny", PRESETS["encoder-tiny"].changed(SMALL))
        arguments = ["train", "--model", "encoder", "--corpus", str(folder / "text.txt"), "--out", str(folder / "run")]
        assert main(arguments) == 0
    return folder / "run", out.getvalue(), folder / "text.txt"


def test_an_encoder_is_trained_and_the_command_it_suggests_works(trained, cli):
    folder, out, _ = trained
    model = Encoder.from_pretrained(folder)
    assert f"{model.num_parameters():,} parameters; 4 steps" in " ".join(out.split())
    assert ". It guesses, with the true word in brackets:\n" in out
    assert "[MASK]" in (folder / "samples.txt").read_text()
    assert "val_accuracy" in (folder / "metrics.csv").read_text()
    program, *words = shlex.split(out.partition("\nnext:\n")[2].replace("\\\n", ""))
    assert (program, words[0]) == ("tinygrad-llm", "fill")
    assert cli(*words)[0] == 0
    assert "[SEP]" in json.loads((folder / "tokenizer.json").read_text())["vocabulary"]
    assert "endo" not in (folder / "samples.txt").read_text()


def test_the_likeliest_words_are_printed_for_each_mask(trained, cli):
    folder = trained[0]
    status, out, err = cli("fill", folder, "The [MASK] sat on the [MASK].", "--top-k", 3)
    assert (status, err) == (0, "")
    assert re.fullmatch(r"(\S*\[MASK\] \d\S*\n( *[\d.]+%  \S+\n){3}){2}\nthe .* sat on the.*\n", out)
    figures = json.loads(cli("fill", folder, "The [MASK] sat.", "--top-k", 1000, "--json")[1])
    (found,) = figures["masks"]
    assert figures["text"] == "The [MASK] sat."
    shares = [one["probability"] for one in found]
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert figures["filled"].startswith("the ")


def test_each_mask_is_filled_with_its_own_word(trained, cli, monkeypatch):
    vocabulary = json.loads((trained[0] / "tokenizer.json").read_text())["vocabulary"]
    one, other = (vocabulary.index(letter) for letter in "ac")
    monkeypatch.setattr("tinygrad_llm.cli.fill.fill", lambda *_: [[(one, 0.9), (other, 0.1)], [(other, 1.0)]])
    figures = json.loads(cli("fill", trained[0], "[MASK] [MASK]", "--json")[1])
    words = [[("a", 0.9), ("c", 0.1)], [("c", 1.0)]]
    masks = [[{"word": word, "probability": p} for word, p in mask] for mask in words]
    assert figures == {"text": "[MASK] [MASK]", "masks": masks, "filled": "a c"}


def test_a_resumed_run_is_that_of_one_that_never_stopped(trained, cli, place):
    text = trained[2]
    new = ["train", "--model", "encoder", "--corpus", text, "--set", "warmup=1"]
    assert cli(*new, "--steps", 2, "--out", "half")[0] == 0
    assert cli("train", "--resume", "half", "--steps", 2)[0] == 0
    assert cli("train", "--corpus", text, "--config", place / "half" / "config.toml", "--out", "again")[0] == 0
    one, other = (Encoder.from_pretrained(name).state_dict() for name in ("half", "again"))
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


def test_an_encoder_is_written_for_transformers_and_guesses_the_same_words_from_there(trained, cli, place):
    folder = trained[0]
    assert cli("convert", folder, "hugging", "--to", "huggingface")[0] == 0
    config = json.loads((place / "hugging" / "config.json").read_text())
    assert (config["architectures"], config["pad_token_id"]) == (["BertForMaskedLM"], 0)
    assert (place / "hugging" / "vocab.txt").read_text().startswith("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\n")
    text = "The [MASK] sat on the [MASK]."
    assert cli("fill", "hugging", text) == cli("fill", folder, text)
    assert cli("convert", "hugging", "ours")[0] == 0
    assert cli("fill", "ours", text) == cli("fill", folder, text)
    status, _, err = cli("convert", folder, "openai", "--to", "openai")
    assert (status, "the form openai cannot hold the model encoder: choose safetensors or huggingface" in err) == (
        2,
        True,
    )
    assert not (place / "openai").exists()


@pytest.mark.parametrize("layers", ["all", "last", "head"])
def test_an_encoder_becomes_a_classifier(layers, trained, cli, place):
    arguments = ["finetune", "classifier", "messages", "--base", trained[0], "--steps", 2, "--layers", layers]
    status, out, _ = cli(*arguments, "--set", "eval_batches=1", "--workers", 1, "--out", "spam")
    assert (status, "accuracy: training" in out) == (0, True)
    state, base = (
        EncoderClassifier.from_pretrained("spam").state_dict(),
        Encoder.from_pretrained(trained[0]).state_dict(),
    )
    moved = {name for name, array in base.items() if name in state and not np.array_equal(array, state[name])}
    prefix = {"all": "bert.", "last": "bert.encoder.layer.0.", "head": "none"}[layers]
    assert {name for name in base if name.startswith(prefix)} - moved <= {
        "bert.embeddings.token_type_embeddings.weight"
    }
    assert all(name.startswith(prefix) for name in moved)
    figures = json.loads(cli("classify", "spam", "Call now!", "--explain", "--json")[1])
    assert sum(figures["probabilities"].values()) == pytest.approx(1)
    assert [token for token, _ in figures["influence"]][:: len(figures["influence"]) - 1] == ["[CLS]", "[SEP]"]
    assert cli("convert", "spam", "hugging", "--to", "huggingface")[0] == 0
    assert json.loads(cli("classify", "hugging", "Call now!", "--explain", "--json")[1]) == figures
    status, _, err = cli("fill", "spam", "[MASK]")
    assert (status, "is needed: `tinygrad-llm classify` reads it" in err) == (2, True)


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        (
            "classifier messages",
            ["--layers", "lora"],
            "finetune.layers: lora is for a GPT, and this base is an encoder",
        ),
        ("assistant instructions", [], "is an encoder, and an assistant writes: give a GPT"),
        (
            "classifier messages",
            ["--plan"],
            "--plan: knows the cost of a gpt, and this base is an encoder: leave it out",
        ),
    ],
)
def test_a_fine_tuning_that_an_encoder_does_not_have_is_refused(task, arguments, message, trained, refused):
    err = refused("finetune", *task.split(), "--base", trained[0], "--out", "new", *arguments)
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "char-cpu"], "--model encoder: char-cpu is a preset of gpt: take encoder-tiny"),
        (["--tokenizer", "char"], "data.tokenizer: an encoder needs [CLS], [SEP], [MASK], which this one lacks"),
        (["--set", "block_size=2"], "model.block_size: an encoder needs at least 3, for [CLS], a word"),
        (["--set", "pairs=x.tsv"], "data.pairs: has no effect on the model encoder: leave it out"),
        (["--set", "tie_weights=false"], "model.tie_weights: is not a setting of the model encoder: leave it out"),
        (["--init", "gpt2"], "data.init: only a gpt starts from other weights, not the model encoder: leave it out"),
        (["--plan"], "--plan: knows the cost of a gpt, and not of the model encoder: leave it out"),
    ],
)
def test_settings_that_an_encoder_does_not_have_are_refused(arguments, message, refused, trained):
    err = refused("train", "--model", "encoder", "--corpus", trained[2], "--out", "new", *arguments)
    assert err.startswith(f"tinygrad-llm train: {message}")
    assert not Path("new").exists()


def test_windows_without_a_word_are_passed_over_and_a_held_out_part_needs_one(cli, place):
    ends = "<|endoftext|>" * 40
    (place / "text.txt").write_text(f"A cat sat. {ends}" * 30 + "The mat was flat. " * 9)
    options = ["--set", "block_size=6", "--set", "batch_size=1", "--set", "order=epochs", "--set", "vocab_size=257"]
    assert cli("train", "--model", "encoder", "--corpus", "text.txt", "--out", "run", *options)[0] == 0
    (place / "text.txt").write_text("The mat was flat. " * 30 + ends * 30)
    status, out, err = cli("train", "--model", "encoder", "--corpus", "text.txt", "--out", "new", *options)
    message = "text.txt: the held-out part has no word to hide: give a longer text"
    assert (status, out, err) == (2, "", f"tinygrad-llm train: {message}\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Once there was a fox.", "there is no [MASK] in the text: write it in the place of the word to guess"),
        ("", "there is no [MASK] in the text: write it in the place of the word to guess"),
        ("[MASK] " * 15, "the text has 15 tokens, and the model reads at most 14: shorten it"),
    ],
)
def test_texts_that_cannot_be_filled_are_refused(text, message, cli, trained):
    assert cli("fill", trained[0], text) == (2, "", f"tinygrad-llm fill: {message}\n")


def test_each_command_says_what_a_folder_is_that_another_one_reads(refused, trained, runs):
    encoder, gpt, bert = trained[0], runs["stories"], STORED / "masked"
    wrong = [
        (["generate", encoder], "holds 'tinygrad_llm.Encoder', and 'tinygrad_llm.GPT' is needed: `tinygrad-llm fill`"),
        (["chat", encoder], "holds 'tinygrad_llm.Encoder', and 'tinygrad_llm.GPT' is needed: `tinygrad-llm fill`"),
        (["classify", encoder, "x"], "is needed: `tinygrad-llm fill` reads it"),
        (
            ["eval", encoder, "--next", "x"],
            "holds 'tinygrad_llm.Encoder', and 'tinygrad_llm.GPT' is needed: `tinygrad-llm fill`",
        ),
        (["fill", gpt, "[MASK]"], "holds 'tinygrad_llm.GPT', and 'tinygrad_llm.Encoder' is needed: `tinygrad-llm gen"),
        (["fill", STORED / "classifier", "[MASK]"], "a BERT with classes: `tinygrad-llm classify` reads it"),
        (["generate", bert], "of BERT, as 'bert.embeddings.LayerNorm.bias' shows: GPT is a decoder only"),
        (["fill", bert, "[MASK]"], "tokenizer.json is missing, which belongs next to the weights: copy it there"),
    ]
    for arguments, message in wrong:
        err = refused(*arguments)
        assert message in err
