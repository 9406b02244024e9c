"""The tokenizer next to a model's weights."""

import pytest

from tinygrad_llm.models import CONFIGS, GPT, GPTConfig
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.tokenizer import Tokenizer, TokenizerError
from tinygrad_llm.weights import WEIGHTS, tokenizer_for

SMALL = GPTConfig(vocab_size=11, block_size=8, n_layer=1, n_head=1, n_embd=4)
BPE = Tokenizer.train("the cat sat on the mat " * 9, 262)
BPE_CONFIG = GPTConfig(vocab_size=262, block_size=8, n_layer=1, n_head=1, n_embd=4)
HUBS = '{"version": "1.0", "model": {"type": "BPE"}}'  # a tokenizer.json that is not ours


def hubs_pair(folder):
    BPE.save_gpt2(folder)
    (folder / "vocab.bpe").rename(folder / "merges.txt")
    (folder / "encoder.json").rename(folder / "vocab.json")


@pytest.mark.parametrize("put", [lambda f: BPE.save(f / "tokenizer.json"), lambda f: BPE.save_gpt2(f), hubs_pair])
def test_the_tokenizer_is_found_under_all_its_names(tmp_path, put):
    GPT(BPE_CONFIG).save_pretrained(tmp_path)
    put(tmp_path)
    if not (tmp_path / "tokenizer.json").exists():
        (tmp_path / "tokenizer.json").write_text(HUBS)
    for path in (tmp_path, tmp_path / WEIGHTS):
        assert tokenizer_for(path, BPE_CONFIG).merges == BPE.merges


def test_our_own_tokenizer_comes_before_a_pair(tmp_path):
    GPT(BPE_CONFIG).save_pretrained(tmp_path)
    Tokenizer([]).save_gpt2(tmp_path)
    BPE.save(tmp_path / "tokenizer.json")
    assert tokenizer_for(tmp_path, BPE_CONFIG).n_vocab == 262


def test_without_a_file_50257_tokens_mean_gpt2s(tmp_path):
    GPT(SMALL).save_pretrained(tmp_path)
    for theirs in (False, True):
        assert tokenizer_for(tmp_path, CONFIGS["gpt2"]).n_vocab == 50257
        with pytest.raises(LoadError, match=r"tokenizer\.json is " + ("Hugging Face's" if theirs else "missing")):
            tokenizer_for(tmp_path, SMALL)
        (tmp_path / "tokenizer.json").write_text(HUBS)


def test_a_tokenizer_of_another_size_or_damaged_is_refused(tmp_path):
    GPT(SMALL).save_pretrained(tmp_path)
    BPE.save(tmp_path / "tokenizer.json")
    with pytest.raises(LoadError, match="has 262 tokens and the model 11: they do not belong together"):
        tokenizer_for(tmp_path, SMALL)
    for damaged in ("{", "[]", '{"format": "x", "model": 1}'):
        (tmp_path / "tokenizer.json").write_text(damaged)
        with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
            tokenizer_for(tmp_path, CONFIGS["gpt2"])
