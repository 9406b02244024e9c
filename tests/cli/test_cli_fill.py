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
from tinygrad_llm.models import Encoder
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
    shares = [one["probability"] for one in found]
    assert sum(shares) == pytest.approx(1)
    assert shares == sorted(shares, reverse=True)
    assert figures["filled"].startswith("the ")


def test_a_resumed_run_is_that_of_one_that_never_stopped(trained, cli, place):
    text = trained[2]
    new = ["train", "--model", "encoder", "--corpus", text, "--set", "warmup=1"]
    assert cli(*new, "--steps", 2, "--out", "half")[0] == 0
    assert cli("train", "--resume", "half", "--steps", 2)[0] == 0
    assert cli("train", "--corpus", text, "--config", place / "half" / "config.toml", "--out", "again")[0] == 0
    one, other = (Encoder.from_pretrained(name).state_dict() for name in ("half", "again"))
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "char-cpu"], "--model encoder: char-cpu is a preset of gpt: take encoder-tiny"),
        (
            ["--tokenizer", "char"],
            "data.tokenizer: an encoder needs [CLS], [SEP], [MASK], which this one lacks",
        ),
        (
            ["--set", "block_size=2"],
            "model.block_size: an encoder needs at least 3, for [CLS], a word",
        ),
        (["--set", "tie_weights=false"], "model.tie_weights: is not a setting of the model encoder: leave it out"),
        (["--init", "gpt2"], "data.init: only a gpt starts from weights, and this model is encoder"),
        (["--plan"], "--plan: knows the cost of a gpt, and not of the model encoder: leave it out"),
    ],
)
def test_settings_that_an_encoder_does_not_have_are_refused(arguments, message, cli, trained):
    status, out, err = cli("train", "--model", "encoder", "--corpus", trained[2], "--out", "new", *arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"tinygrad-llm train: {message}")
    assert err.count("\n") == 1
    assert not Path("new").exists()


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


def test_each_command_says_what_a_folder_is_that_another_one_reads(cli, trained, runs):
    encoder, gpt, bert = trained[0], runs["stories"], STORED / "masked"
    wrong = [
        (["generate", encoder], "holds 'tinygrad_llm.Encoder', and 'tinygrad_llm.GPT' is needed: `tinygrad-llm fill`"),
        (
            ["chat", encoder],
            "holds 'tinygrad_llm.Encoder', and 'tinygrad_llm.GPT' is needed: `tinygrad-llm fill`",
        ),
        (["classify", encoder, "x"], "is needed: `tinygrad-llm fill` reads it"),
        (
            ["eval", encoder, "--next", "x"],
            "holds 'tinygrad_llm.Encoder', and 'tinygrad_llm.GPT' is needed: `tinygrad-llm fill`",
        ),
        (["fill", gpt, "[MASK]"], "holds 'tinygrad_llm.GPT', and 'tinygrad_llm.Encoder' is needed: `tinygrad-llm gen"),
        (["fill", STORED / "classifier", "[MASK]"], "a BERT with classes: `tinygrad-llm classify` reads it"),
        (
            ["generate", bert],
            "of BERT, as 'bert.embeddings.LayerNorm.bias' shows: GPT is a decoder only",
        ),
        (["fill", bert, "[MASK]"], "tokenizer.json is missing, which belongs next to the weights: copy it there"),
    ]
    for arguments, message in wrong:
        status, out, err = cli(*arguments)
        assert (status, out) == (2, "")
        assert message in err
        assert err.count("\n") == 1
