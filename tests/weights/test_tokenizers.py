"""The tokenizer next to a model's weights."""

import dataclasses
import json

import numpy as np
import pytest

from tinygrad_llm.generation import Sampling, write
from tinygrad_llm.models import CONFIGS, GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.tokenizer import Tokenizer, TokenizerError, WordPieceTokenizer, save_huggingface, vocabulary_hash
from tinygrad_llm.weights import FORMS, WEIGHTS, tokenizer_for, write_tokenizer
from tinygrad_llm.weights.find import folder_of
from tinygrad_llm.weights.tokenizers import fit

SMALL = GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=1, n_embd=4)
BPE = Tokenizer.train("the cat sat on the mat " * 9, 262)
OTHER = Tokenizer.train("not the same words as these " * 9, 262)
BPE_CONFIG = GPTConfig(vocab_size=262, block_size=8, n_layer=1, n_head=1, n_embd=4)


def rows(vocab_size):
    return dataclasses.replace(BPE_CONFIG, vocab_size=vocab_size)


@pytest.mark.parametrize("form", FORMS)
def test_the_tokenizer_is_found_under_all_its_names(tmp_path, form):
    GPT(BPE_CONFIG).save_pretrained(tmp_path)
    write_tokenizer(tmp_path, BPE, form)
    for path in (tmp_path, tmp_path / WEIGHTS):
        assert vocabulary_hash(tokenizer_for(path, BPE_CONFIG)) == vocabulary_hash(BPE)
    if form == "huggingface":  # the pair alone, as old versions of transformers wrote it
        (tmp_path / "tokenizer.json").unlink()
        assert vocabulary_hash(tokenizer_for(tmp_path, BPE_CONFIG)) == vocabulary_hash(BPE)


@pytest.mark.parametrize("save", [lambda tokenizer, folder: tokenizer.save(folder / "tokenizer.json"),
                                  lambda tokenizer, folder: save_huggingface(folder, tokenizer)])  # fmt: skip
def test_tokenizer_json_comes_before_a_pair(tmp_path, save):
    GPT(BPE_CONFIG).save_pretrained(tmp_path)
    OTHER.save_gpt2(tmp_path)
    save(BPE, tmp_path)
    assert tokenizer_for(tmp_path, BPE_CONFIG).merges == BPE.merges


def test_without_a_file_50257_tokens_mean_gpt2s_and_a_file_is_never_passed_over(quick_gpt2, tmp_path):
    GPT(SMALL).save_pretrained(tmp_path)
    for config in (CONFIGS["gpt2"], rows(50304)):
        assert tokenizer_for(tmp_path, config).n_vocab == 50257
    with pytest.raises(LoadError, match=r"tokenizer\.json is missing"):
        tokenizer_for(tmp_path, SMALL)
    save_huggingface(tmp_path, BPE)  # of another vocabulary
    with pytest.raises(LoadError, match="has 262 tokens and the model 50257"):
        tokenizer_for(tmp_path, CONFIGS["gpt2"])
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0", "model": {"type": "Unigram"}}')
    with pytest.raises(TokenizerError, match=r"tokenizer\.json: model: type is 'Unigram'"):
        tokenizer_for(tmp_path, CONFIGS["gpt2"])


def test_a_tokenizer_of_another_size_or_damaged_is_refused(tmp_path, for_each):
    GPT(SMALL).save_pretrained(tmp_path)
    BPE.save(tmp_path / "tokenizer.json")

    def check(vocab_size):
        with pytest.raises(LoadError, match=f"has 262 tokens and the model {vocab_size}: they do not belong together"):
            tokenizer_for(tmp_path, rows(vocab_size))

    for_each([11, 261, 263, 265, 300, 2048, 50257], check)
    for damaged in ("{", "[]", '{"format": "x", "model": 1}'):
        (tmp_path / "tokenizer.json").write_text(damaged)
        with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
            tokenizer_for(tmp_path, CONFIGS["gpt2"])


def test_rows_padded_to_a_multiple_are_accepted_and_never_generated(tmp_path, for_each):
    GPT(SMALL).save_pretrained(tmp_path)
    BPE.save(tmp_path / "tokenizer.json")

    def check(vocab_size):
        tokenizer = tokenizer_for(tmp_path, rows(vocab_size))
        model = GPT(rows(vocab_size), Generator(1))
        model.transformer.wte.weight.data[262:] *= 1000  # padded rows that would be chosen
        model.transformer.wte.weight.data[262:] -= 500 * np.sign(model.transformer.ln_f.bias.data + 1)
        list(write(model, tokenizer, [1, 2], 40, Sampling(9.0)))  # an unknown id would raise

    for_each([264, 272, 288, 320, 384, 512, 1024], check)


def test_special_tokens_added_after_the_last_row_are_left_out(tmp_path):
    GPT(SMALL).save_pretrained(tmp_path)
    longer = BPE.with_special_tokens(["<pad>", "<x>"])
    save_huggingface(tmp_path, longer)
    assert vocabulary_hash(tokenizer_for(tmp_path, rows(264))) == vocabulary_hash(longer)
    assert vocabulary_hash(tokenizer_for(tmp_path, rows(262))) == vocabulary_hash(BPE)
    with pytest.raises(LoadError, match="has 264 tokens and the model 261"):  # the end of text has no row
        tokenizer_for(tmp_path, rows(261))
    other = Tokenizer(BPE.merges, ["</s>", "<pad>"], "</s>")
    assert fit(other, other.n_vocab - 1).eot_token == other.eot_token


def test_a_tokenizer_of_words_keeps_its_special_tokens():
    tokenizer = WordPieceTokenizer(["a", "[UNK]"])
    assert fit(tokenizer, 2) is tokenizer
    assert fit(tokenizer, 1) is None


def test_the_other_files_of_a_checkpoint_are_those_of_its_run(tmp_path):
    run, name = tmp_path / "run", "step-00000010.ckpt.safetensors"
    folders = {run: run, run / "model.safetensors": run, run / "checkpoints" / name: run}
    folders |= {run / name: run, run / "checkpoints" / "model.safetensors": run / "checkpoints"}
    run.mkdir()
    assert {path: folder_of(path) for path in folders} == folders


def test_another_tokenizer_than_the_runs_is_refused(tmp_path):
    GPT(BPE_CONFIG).save_pretrained(tmp_path)
    OTHER.save(tmp_path / "tokenizer.json")
    assert tokenizer_for(tmp_path, BPE_CONFIG).merges == OTHER.merges
    for identity, refused in ((BPE, True), (OTHER, False)):
        about = {"identity": {"tokenizer": {"tokens": 262, "sha256": vocabulary_hash(identity)}}}
        (tmp_path / "run.json").write_text(json.dumps(about))
        if refused:
            with pytest.raises(LoadError, match=r"tokenizer\.json is not the one that the run was trained with"):
                tokenizer_for(tmp_path, BPE_CONFIG)
    assert tokenizer_for(tmp_path, BPE_CONFIG).merges == OTHER.merges
