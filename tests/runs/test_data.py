"""What a run learns from: the cut into training and held-out parts, tokenizers, and texts that are too short."""

import dataclasses
import hashlib
from types import SimpleNamespace

import numpy as np
import pytest

from tinygrad_llm.datasets import DataError
from tinygrad_llm.runs import data as data_module
from tinygrad_llm.runs.config import DataSettings
from tinygrad_llm.runs.data import load_data
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer, TokenizerError, pattern
from tinygrad_llm.training import ConfigError


@pytest.fixture
def data_of(tmp_path, config):
    """A function: text, changes → the RunData."""

    def load(text, **changes):
        (tmp_path / "text.txt").write_text(text, encoding="utf-8")
        return load_data(config.changed({"corpus": str(tmp_path / "text.txt"), **changes}))

    return load


def test_nine_tenths_of_a_text_are_for_training_and_the_rest_is_held_out(data_of, text):
    data = data_of(text)
    cut = len(text) * 9 // 10
    assert data.tokenizer.decode(data.training[0]) == text[:cut]
    assert data.tokenizer.decode(data.held_out[0]) == text[cut:]


@pytest.mark.parametrize(
    ("length", "message"),
    [
        (1, "text.txt"),
        (8, "its training part has 7 tokens, and one block of 8 with its target needs 9"),
        (40, "its held-out part has 4 tokens, and one block of 8 with its target needs 9"),
    ],
)
def test_a_text_that_is_too_short_is_refused_by_name(length, message, data_of, text):
    with pytest.raises(DataError, match=message):
        data_of(text[:length])


def test_the_end_of_text_in_a_corpus_is_encoded_as_that_token(data_of, text):
    data = data_of(text.replace("\n", "<|endoftext|>"), tokenizer="bpe", vocab_size=280)
    assert np.count_nonzero(data.training[0] == data.tokenizer.eot_token) == 10


def test_a_tokenizer_may_be_a_folder_with_gpt2s_pair_of_files(data_of, text, tmp_path):
    tokenizer = Tokenizer.train(text, 280)
    tokenizer.save_gpt2(tmp_path / "pair")
    assert data_of(text, tokenizer=str(tmp_path / "pair")).tokenizer.merges == tokenizer.merges


@pytest.mark.parametrize("keep", [False, True])
def test_the_newlines_of_windows_are_read_as_one_character_unless_they_are_kept(keep, tmp_path, config, text):
    windows = text.replace("\n", "\r\n")
    (tmp_path / "text.txt").write_bytes(windows.encode())
    data = load_data(config.changed({"corpus": str(tmp_path / "text.txt"), "keep_newlines": keep}))
    assert data.source.text == (windows if keep else text)
    assert ("\r" in data.tokenizer.characters) == keep


@pytest.mark.parametrize("tokenizer", ["bpe", "gpt2"])
def test_byte_pairs_of_a_text_without_white_space_are_refused_by_name(tokenizer, data_of, quick_gpt2, monkeypatch):
    monkeypatch.setattr(pattern, "MAX_UNBROKEN", 300)
    text = "a b " + "c" * 400
    with pytest.raises(TokenizerError, match=r"text\.txt: no white space in \d+ characters, .* A tokenizer of char"):
        data_of(text, tokenizer=tokenizer)
    assert data_of(text).tokenizer.characters == " abc"


@pytest.mark.parametrize(("texts", "shown"), [(["", " \n", "a cat", "b"], "a cat"), ([""] * 11, "")])
def test_a_sample_that_ends_at_once_is_drawn_again(texts, shown, data_of, text, monkeypatch):
    data, left, drawn = data_of(text), iter(texts), []

    def write(model, tokenizer, ids, count, sampling, rng):
        drawn.append(rng)
        return iter(next(left))

    monkeypatch.setattr(data_module, "write", write)
    assert data.sample(None, 5, seed=3) == shown
    assert len(set(drawn)) == 1  # the numbers go on
    assert len(drawn) == (3 if shown else 10)


@pytest.fixture
def token_data(tmp_path, config, text):
    """A function: ids of two files → their RunData; the tokenizer is that of `text`."""
    CharTokenizer.train(text).save(tmp_path / "tokenizer.json")

    def load(*rows, **changes):
        files = [str(tmp_path / f"{i}.bin") for i in range(len(rows))]
        for file, ids in zip(files, rows, strict=True):
            np.asarray(ids, "<u2").tofile(file)
        data = {"files": files, "dtype": "uint16", "tokenizer": str(tmp_path / "tokenizer.json")}
        return load_data(config.changed({**data, **changes}))

    return load


def test_nine_tenths_of_each_token_file_are_for_training_and_the_rest_is_held_out(token_data):
    rows = [np.arange(n) % 13 for n in (200, 305)]
    data = token_data(*rows)
    for ids, training, held_out in zip(rows, data.training, data.held_out, strict=True):
        cut = len(ids) * 9 // 10
        assert training.tolist() == ids[:cut].tolist()
        assert held_out.tolist() == ids[cut:].tolist()


def test_every_id_of_a_token_file_counts_in_its_hash(token_data, monkeypatch):
    monkeypatch.setattr(data_module, "_STRETCH", 64)
    ids = np.arange(300) % 13
    (about,) = token_data(ids).source.identity
    assert about == {"tokens": 300, "sha256": hashlib.sha256(ids.astype("<u2").tobytes()).hexdigest()}
    for place in (0, 64, 150, 299):  # in the first part, in others, and in the last one, which is shorter
        other = ids.copy()
        other[place] = 12 - ids[place] if ids[place] != 6 else 0
        assert token_data(other).source.identity != [about]


def test_token_files_need_the_tokenizer_that_made_them(config, tmp_path):
    np.arange(100, dtype="<u2").tofile(tmp_path / "a.bin")
    with pytest.raises(ConfigError, match="token files are encoded already: name their tokenizer"):
        load_data(config.changed({"files": [str(tmp_path / "a.bin")], "dtype": "uint16"}))


@pytest.mark.parametrize("own", [(), ("held.bin",)])
def test_held_out_windows_have_the_weights_of_their_files_unless_they_have_files_of_their_own(own, config, monkeypatch):
    asked = dataclasses.replace(config, data=DataSettings(files=("a.bin", "b.bin"), weights=(1.0, 2.0)))
    data = SimpleNamespace(held_out=["a", "b"], outside=2, source=SimpleNamespace(held_out_files=own))
    monkeypatch.setattr(data_module, "held_out_windows", lambda *args: args)
    settings = asked.training
    assert data_module.held_out_part(asked, data) == (
        ["a", "b"], asked.model.block_size - 2, settings.batch_size, settings.eval_batches, () if own else (1.0, 2.0)
    )  # fmt: skip
