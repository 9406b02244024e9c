"""`tinygrad-llm tokenizer`."""

import json

import pytest

from tinygrad_llm.tokenizer import Tokenizer

TEXT = "Hello, do you like tea?"
IDS = [15496, 11, 466, 345, 588, 8887, 30]  # GPT-2's


def test_encode_and_decode_are_gpt2s(cli):
    assert cli("tokenizer", "encode", TEXT) == (0, " ".join(map(str, IDS)) + "\nHello|,| do| you| like| tea|?\n", "")
    assert cli("tokenizer", "decode", *IDS) == (0, TEXT + "\n", "")
    assert cli("tokenizer", "decode", ",".join(map(str, IDS))) == (0, TEXT + "\n", "")
    assert cli("tokenizer", "decode", "15496, 11,", "466") == (0, "Hello, do\n", "")


def test_json(cli):
    tokens = ["Hello", ",", " do", " you", " like", " tea", "?"]
    assert json.loads(cli("tokenizer", "encode", TEXT, "--json")[1]) == {"ids": IDS, "tokens": tokens}
    assert json.loads(cli("tokenizer", "decode", *IDS, "--json")[1]) == {"text": TEXT}


def test_the_end_of_text_must_be_allowed(cli):
    assert cli("tokenizer", "encode", "<|endoftext|>", "--allow-special")[1] == "50256\n<|endoftext|>\n"


def test_train_then_use(cli, text_file):
    status, out, _ = cli("tokenizer", "train", text_file, "--vocab-size", 270, "--out", "new/tokens.json")
    assert (status, out) == (0, "wrote new/tokens.json: 270 tokens\n")
    expected = Tokenizer.train(text_file.read_text(), 270).encode("the mat")
    out = cli("tokenizer", "encode", "--tokenizer", "new/tokens.json", "the mat", "--json")[1]
    assert json.loads(out)["ids"] == expected


@pytest.mark.parametrize("preset", ["char-cpu", "stories"])
def test_a_runs_tokenizer_can_be_used(preset, cli, runs):
    out = cli("tokenizer", "encode", "--tokenizer", runs[preset], "the mat", "--json")[1]
    ids = json.loads(out)["ids"]
    assert cli("tokenizer", "decode", "--tokenizer", runs[preset], *ids)[1] == "the mat\n"
