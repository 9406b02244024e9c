"""Files of models: our own, OpenAI's and Hugging Face's, and files that cannot harm.

`gpt2_tiny/` was written by `scripts/make_transformers_reference.py`, which says what is in it.
"""

import contextlib
import dataclasses
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.datasets import SlidingWindows, split
from tinygrad_llm.formats import load_safetensors, save_safetensors
from tinygrad_llm.formats.npz import save_npz
from tinygrad_llm.formats.tensorbundle import write_tensorbundle
from tinygrad_llm.models import CONFIGS, GPT, GPTConfig
from tinygrad_llm.nn import Dropout
from tinygrad_llm.optim import AdamW
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.tokenizer import Tokenizer, TokenizerError
from tinygrad_llm.weights import FORMS, WEIGHTS, pretrained, read_pretrained, tokenizer_for, write_pretrained
from tinygrad_llm.weights.names import from_ours

SMALL = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=6)
TINY = Path(__file__).with_name("gpt2_tiny")
TINY_CONFIG = GPTConfig(vocab_size=19, block_size=12, n_layer=2, n_head=2, n_embd=8)
HPARAMS = {"n_vocab": 19, "n_ctx": 12, "n_embd": 8, "n_head": 2, "n_layer": 2}
with np.load(TINY / "logits.npz", allow_pickle=False) as _file:
    REFERENCE = dict(_file)
IDS = REFERENCE["ids"]


def change(config=SMALL, **fields):
    return dataclasses.replace(config, **fields)


def some_ids(batch, time, seed=0, vocab_size=SMALL.vocab_size):
    return np.random.default_rng(seed).integers(0, vocab_size, (batch, time))


def shaken(config, dtype=np.float64):
    """A model none of whose parameters is a constant, so that each of them matters."""
    model = GPT(config, Generator(1)).to(dtype)
    noise = np.random.default_rng(2)
    for p in model.parameters():
        p.data = (p.data + 0.3 * noise.standard_normal(p.shape)).astype(dtype)
    return model


def logits(path, **options):
    return GPT.from_pretrained(path, **options).eval()(IDS).data


def refused(path, *words, **options):
    """The one-line message, naming the file, with which `path` is refused."""
    with pytest.raises(LoadError) as error:
        GPT.from_pretrained(path, **options)
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    assert len(message) < 2000
    for word in words:
        assert word in message
    return message


# ---- the logits of transformers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folder", "tolerance"),
    [("saved", 1e-5), ("hub", 1e-5), ("head", 1e-5), ("untied", 1e-5), ("float64", 1e-12)],
)
def test_logits_are_those_of_transformers(folder, tolerance):
    expected = REFERENCE[folder] if folder in REFERENCE else REFERENCE["saved"]
    assert 0.5 < expected.std() < 20  # neither nothing nor noise
    found = logits(TINY / folder)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    config = GPT.from_pretrained(TINY / folder).config
    assert config == change(TINY_CONFIG, tie_weights=folder != "untied")


def test_the_same_weights_in_other_wrappings_give_the_same_logits_bit_for_bit():
    first = logits(TINY / "saved").tobytes()
    assert logits(TINY / "hub").tobytes() == logits(TINY / "head").tobytes() == first
    assert logits(TINY / "saved" / WEIGHTS).tobytes() == first


def in_openais_names(arrays):
    """Hugging Face's names as OpenAI's by string surgery, apart from the table under test."""
    found = {}
    for name, array in arrays.items():
        path = re.sub(r"^h/(\d+)", r"h\1", name.removeprefix("transformer.").replace(".", "/"))
        path = path.replace("wte/weight", "wte").replace("wpe/weight", "wpe")
        if array.ndim == 2 and path.endswith("weight"):
            path, array = path.replace("weight", "w"), array[None]
        found["model/" + path.replace("weight", "g").replace("bias", "b")] = array
    return found


def test_openais_release_gives_the_same_logits_bit_for_bit(tmp_path):
    arrays, _ = load_safetensors(TINY / "saved" / WEIGHTS)
    (tmp_path / "hparams.json").write_text(json.dumps(HPARAMS))
    write_tensorbundle(tmp_path / "model.ckpt", in_openais_names(arrays))
    expected = logits(TINY / "saved").tobytes()
    for path in (tmp_path, tmp_path / "model.ckpt", str(tmp_path / "model.ckpt.index")):
        assert logits(path).tobytes() == expected
    assert read_pretrained(tmp_path, GPTConfig).found == "tensorbundle, OpenAI's names"


@pytest.mark.parametrize(("folder", "found"), [("openai", "tensorbundle"), ("npz", "npz")])
def test_what_tensorflow_and_numpy_wrote_gives_the_same_logits_bit_for_bit(folder, found):
    """By scripts/make_tensorflow_reference.py."""
    assert logits(TINY / folder).tobytes() == logits(TINY / "saved").tobytes()
    assert read_pretrained(TINY / folder, GPTConfig).found == f"{found}, OpenAI's names"


@pytest.mark.parametrize("naming", [in_openais_names, dict])
def test_npz_gives_the_same_logits_bit_for_bit(tmp_path, naming):
    arrays, _ = load_safetensors(TINY / "saved" / WEIGHTS)
    (tmp_path / "hparams.json").write_text(json.dumps(HPARAMS))
    save_npz(tmp_path / "weights.npz", naming(arrays))
    assert logits(tmp_path).tobytes() == logits(tmp_path / "weights.npz").tobytes() == logits(TINY / "saved").tobytes()


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_form_there_and_back(tmp_path, form, dtype):
    model = shaken(SMALL, dtype)
    write_pretrained(tmp_path, SMALL, model.state_dict(), form)
    config, state, _ = read_pretrained(tmp_path, GPTConfig)
    assert config == SMALL
    assert list(config.shapes()) == [(name, state[name].shape) for name in model.state_dict()]
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(state[name], array, strict=True)
        assert state[name].flags.c_contiguous
        assert state[name].flags.writeable


@pytest.mark.parametrize("form", ["safetensors", "huggingface", "npz"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_a_head_of_its_own_and_no_bias_come_back(tmp_path, form, qkv_bias):
    config = change(tie_weights=False, qkv_bias=qkv_bias)
    model = shaken(config, np.float32).eval()
    write_pretrained(tmp_path, config, model.state_dict(), form)
    loaded = GPT.from_pretrained(tmp_path).eval()
    assert loaded.config == change(config, qkv_bias=qkv_bias or form == "huggingface")  # there the bias is zeros
    ids = some_ids(2, 8)
    np.testing.assert_array_equal(loaded(ids), model(ids))


def test_openais_form_has_no_head_of_its_own(tmp_path):
    config = change(tie_weights=False)
    with pytest.raises(ValueError, match=r"lm_head\.weight"):
        write_pretrained(tmp_path / "new", config, GPT(config).state_dict(), "openai")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("form", "file"), [("openai", "model.ckpt.data-00000-of-00001"), ("npz", "model.npz")])
def test_a_flipped_bit_is_found(tmp_path, form, file):
    write_pretrained(tmp_path, *read_pretrained(TINY / "saved", GPTConfig)[:2], form)
    data = bytearray((tmp_path / file).read_bytes())
    data[len(data) // 2] ^= 4
    (tmp_path / file).write_bytes(data)
    refused(tmp_path, file)


# ---- the number of heads, which no tensor shows ------------------------------------------------------------------


def alone(folder, variant="saved"):
    """The weights without the file that states their sizes."""
    return Path(shutil.copy(TINY / variant / WEIGHTS, folder))


def test_heads_that_nobody_states_are_asked_for(tmp_path):
    file = alone(tmp_path)
    refused(file, "n_head is stated nowhere", "give n_head")
    assert logits(file, n_head=2).tobytes() == logits(TINY / "saved").tobytes()
    assert np.abs(logits(file, n_head=4) - logits(file, n_head=2)).max() > 0.1
    refused(file, "n_embd (8) must be a multiple of n_head (3)", n_head=3)
    refused(file, "n_head must be a positive integer, not 0", n_head=0)


def test_without_a_statement_a_head_has_64_channels_as_in_gpt2(tmp_path):
    config = change(n_embd=192, n_head=3)
    save_safetensors(tmp_path / WEIGHTS, GPT(config).state_dict())
    assert GPT.from_pretrained(tmp_path).config == config


@pytest.mark.parametrize("folder", ["saved", "own"])
def test_heads_that_contradict_the_statement(tmp_path, folder):
    write_pretrained(tmp_path / "own", *read_pretrained(TINY / "saved", GPTConfig)[:2])
    path = (tmp_path if folder == "own" else TINY) / folder
    refused(path, "n_head is 2, not the 4 asked for", "config", n_head=4)
    assert GPT.from_pretrained(path, n_head=2).config == TINY_CONFIG


def test_a_published_size_has_the_published_heads(tmp_path, monkeypatch):
    assert [config.n_head for config in CONFIGS.values()] == [12, 16, 20, 25]
    monkeypatch.setitem(CONFIGS, "gpt2-tiny", change(TINY_CONFIG, n_head=4))
    refused(TINY / "saved", "n_head is 2, but gpt2-tiny", "has 4", "give n_head=2")
    assert logits(TINY / "saved", n_head=2).tobytes() == logits(TINY / "head", n_head=2).tobytes()
    write_pretrained(tmp_path, *read_pretrained(TINY / "saved", GPTConfig, n_head=2)[:2])
    assert GPT.from_pretrained(tmp_path).config.n_head == 2  # one of ours may have as many as it likes


# ---- Hugging Face's folders that are refused ---------------------------------------------------------------------


def folder_with(tmp_path, fields=(), arrays=None, variant="saved"):
    """A folder of transformers', with another config, or other arrays: a function of the old ones."""
    found, metadata = load_safetensors(TINY / variant / WEIGHTS)
    save_safetensors(tmp_path / WEIGHTS, arrays(found) if arrays else found, metadata)
    config = json.loads((TINY / variant / "config.json").read_text()) | dict(fields)
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def without(name):
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def altered(name, alter):
    return lambda arrays: arrays | {name: alter(arrays[name])}


def both(tmp_path, words, **options):
    """Refused, in a message that names the config as well as the weights."""
    message = refused(folder_with(tmp_path, **options), *words)
    assert "config.json" in message
    assert WEIGHTS in message


@pytest.mark.parametrize(
    "fields",
    [
        {"model_type": "llama"},
        {"activation_function": "relu"},
        {"layer_norm_epsilon": 1e-6},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"add_cross_attention": True},
        {"n_inner": 31},
        {"n_inner": [1]},
        {"activation_function": {"a": 1}, "layer_norm_epsilon": "1e-5"},
    ],
)
def test_a_model_that_gpt_cannot_be(tmp_path, fields):
    refused(folder_with(tmp_path, fields), "not a model that GPT can be", "config.json", *fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"n_layer": 3}, ["missing transformer.h.2.ln_1.weight (8,)", "missing transformer.h.2.mlp.c_proj.bias"]),
        ({"n_layer": 1}, ["unexpected transformer.h.1.ln_1.weight (8,)"]),
        ({"n_layer": 10**9}, ["28 tensors are too few for"]),
        ({"vocab_size": 20}, ["transformer.wte.weight has shape (19, 8), and not (20, 8)"]),
        ({"n_positions": 11}, ["transformer.wpe.weight has shape (12, 8), and not (11, 8)"]),
        ({"n_embd": 10}, ["attn.c_attn.weight has shape (24, 8), and not (30, 10)"]),
        ({"tie_word_embeddings": False}, ["missing lm_head.weight (19, 8)"]),
    ],
)
def test_a_config_that_contradicts_the_tensors(tmp_path, fields, words):
    both(tmp_path, words, fields=fields)


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"n_head": 3}, "n_embd (8) must be a multiple of n_head (3)"),
        ({"n_head": None}, "n_head must be a positive integer"),
        ({"n_embd": "8"}, "n_embd must be a positive integer"),
        ({"n_layer": 2.0}, "n_layer must be a positive integer"),
        ({"vocab_size": True}, "vocab_size must be a positive integer"),
        ({"tie_word_embeddings": "yes"}, "tie_weights must be true or false"),
        ({"initializer_range": 0}, "initializer_range must lie in"),
    ],
)
def test_sizes_that_are_none(tmp_path, fields, word):
    refused(folder_with(tmp_path, fields), word, "config.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff",
        b"[]",
        b"{",
        b'{"n_layer": NaN}',
        b'{"n_layer": 2, "n_layer": 2}',
        b'{"a":' * 100_000,
        b" " * 1_000_001,
        b'{"n_layer": 1' + b"0" * 5000 + b"}",
    ],
)
@pytest.mark.parametrize("name", ["config.json", "hparams.json"])
def test_a_statement_that_cannot_be_read(tmp_path, content, name):
    alone(tmp_path)
    (tmp_path / name).write_bytes(content)
    refused(tmp_path, name)


KEYS = [*json.loads((TINY / "saved" / "config.json").read_text()), *HPARAMS, "n_ctx"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**19), 10**19) | st.sampled_from([8, 12, 19, 0.5, "gpt2", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)


@given(st.sampled_from(["config.json", "hparams.json"]), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
def test_whatever_is_stated_it_is_a_model_or_our_own_error(name, fields):
    with tempfile.TemporaryDirectory() as folder:
        file = alone(Path(folder))
        (Path(folder) / name).write_text(json.dumps({"n_head": 2} | fields))
        with contextlib.suppress(LoadError):
            assert GPT.from_pretrained(file).num_parameters() in (2008, 2008 + 19 * 8)


def test_sizes_that_are_not_stated_are_seen(tmp_path):
    alone(tmp_path)
    (tmp_path / "config.json").write_text('{"n_head": 2, "n_ctx": 12}')
    assert logits(tmp_path).tobytes() == logits(TINY / "saved").tobytes()
    (tmp_path / "config.json").write_text('{"n_head": 2, "n_ctx": 13}')
    refused(tmp_path, "transformer.wpe.weight has shape (12, 8), and not (13, 8)")


def test_of_two_statements_that_of_the_style_counts(tmp_path):
    folder_with(tmp_path)
    (tmp_path / "hparams.json").write_text(json.dumps(HPARAMS | {"n_head": 4}))
    assert GPT.from_pretrained(tmp_path).config.n_head == 2


def test_every_missing_and_extra_tensor_is_listed(tmp_path):
    gone = ["transformer.h.0.ln_2.bias", "transformer.h.1.attn.c_attn.weight", "transformer.ln_f.weight"]
    more = ["transformer.h.1.attn.rotary", "score.weight", "transformer.h.00.ln_1.bias"]

    def alter(arrays):
        return {name: array for name, array in arrays.items() if name not in gone} | dict.fromkeys(more, np.ones(2))

    message = refused(folder_with(tmp_path, arrays=alter))
    assert re.findall(r"missing (\S+) \(", message) == gone
    assert sorted(re.findall(r"unexpected (\S+) \(2,\)", message)) == sorted(more)


def test_other_models_are_told_by_their_names(tmp_path):
    save_safetensors(tmp_path / WEIGHTS, {"bert.embeddings.weight": np.ones((2, 3), np.float32)})
    refused(tmp_path, "not a GPT-2", "bert.embeddings.weight")


@pytest.mark.parametrize("layer", ["attn.c_attn", "mlp.c_fc", "mlp.c_proj"])
def test_a_transposed_linear_layer_is_refused(tmp_path, layer):
    name = f"transformer.h.1.{layer}.weight"
    both(tmp_path, [f"{name} has shape"], arrays=altered(name, np.transpose))


def test_a_transposed_square_layer_shows_in_the_logits_alone(tmp_path):
    folder = folder_with(tmp_path, arrays=altered("transformer.h.1.attn.c_proj.weight", np.transpose))
    assert np.abs(logits(folder) - REFERENCE["saved"]).max() > 0.1


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.bool_])
def test_weights_of_integers_are_refused(tmp_path, dtype):
    name = "transformer.h.0.mlp.c_fc.weight"
    both(tmp_path, [f"{name} holds {np.dtype(dtype)}"], arrays=altered(name, lambda a: a.astype(dtype)))


def test_complex_weights_are_refused(tmp_path):
    state = read_pretrained(TINY / "saved", GPTConfig).state
    wte = state["transformer.wte.weight"].astype(np.complex128)
    save_npz(tmp_path / "model.npz", state | {"transformer.wte.weight": wte, "lm_head.weight": wte})
    refused(tmp_path, n_head=2)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("variant", ["saved", "head", "untied"])
def test_weights_that_are_no_numbers_are_refused_unless_allowed(tmp_path, variant, value):
    def alter(arrays):
        broken = arrays["transformer.wte.weight"].copy()
        broken[3, 4] = value
        head = {"lm_head.weight": broken} if variant == "head" else {}
        return arrays | {"transformer.wte.weight": broken} | head

    folder = folder_with(tmp_path, arrays=alter, variant=variant)
    refused(folder, "NaN or infinity in transformer.wte.weight", WEIGHTS)
    model = GPT.from_pretrained(folder, allow_non_finite=True)
    np.testing.assert_array_equal(model.transformer.wte.weight.data[3, 4], np.float32(value))


def test_a_tied_head_that_is_another(tmp_path):
    folder = folder_with(tmp_path, arrays=altered("lm_head.weight", lambda a: a + 1), variant="head")
    refused(folder, "config.json", WEIGHTS, "tied", "lm_head.weight")
    (folder / "config.json").unlink()
    assert not GPT.from_pretrained(folder, n_head=2).config.tie_weights


def test_an_untied_head_may_be_the_same(tmp_path):
    folder = folder_with(tmp_path, {"tie_word_embeddings": False}, variant="head")
    assert not GPT.from_pretrained(folder).config.tie_weights
    assert logits(folder).tobytes() == logits(TINY / "saved").tobytes()


def test_two_names_for_one_tensor_are_refused(tmp_path):
    state = GPT(SMALL).state_dict()
    arrays = from_ours(state, "openai") | {"transformer.wte.weight": np.zeros((11, 6), np.float32)}
    save_npz(tmp_path / "model.npz", arrays)
    refused(tmp_path / "model.npz", "two names for one tensor: 'model/wte' and 'transformer.wte.weight'", n_head=2)


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_layout_that_is_not_the_stated_one(tmp_path, metadata):
    save_safetensors(tmp_path / WEIGHTS, GPT(SMALL).state_dict(), metadata)
    if metadata is None:
        (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_head": 2}')
    refused(tmp_path / WEIGHTS, "its metadata says" if metadata else "config.json says", "(in, out)", n_head=2)


def test_a_base_model_without_the_head_that_its_config_asks_for(tmp_path):
    folder = folder_with(tmp_path, arrays=without("lm_head.weight"), variant="untied")
    refused(folder, "missing lm_head.weight (19, 8)", "GPT2LMHeadModel")
    assert "GPT2LMHeadModel" not in refused(folder_with(tmp_path, arrays=without("transformer.ln_f.bias")))


@pytest.mark.parametrize("name", ["config.json", "hparams.json"])
@pytest.mark.parametrize("make", [os.mkdir, getattr(os, "mkfifo", os.mkdir), lambda path: os.symlink("nowhere", path)])
def test_a_statement_that_is_no_file(tmp_path, name, make):
    alone(tmp_path)
    make(tmp_path / name)
    refused(tmp_path, name, "not a file")


def test_weights_of_another_form_are_not_written_beside(tmp_path):
    state = GPT(SMALL).state_dict()
    for form in FORMS:
        write_pretrained(tmp_path / form, SMALL, state, form)
    alike = {"safetensors", "huggingface"}
    for form in FORMS:
        for there in FORMS:
            before = {path: path.read_bytes() for path in (tmp_path / there).iterdir()}
            if form == there or {form, there} == alike:
                continue
            with pytest.raises(ValueError, match=r"model\.(safetensors|npz|ckpt\.index) .*another folder"):
                write_pretrained(tmp_path / there, SMALL, state, form)
            assert {path: path.read_bytes() for path in (tmp_path / there).iterdir()} == before


@pytest.mark.parametrize(
    ("form", "sizes"), [("huggingface", "config.json"), ("openai", "hparams.json"), ("npz", "hparams.json")]
)
def test_a_writer_that_ends_early_leaves_no_weights_without_their_sizes(tmp_path, monkeypatch, form, sizes):
    def stop(*args):
        raise KeyboardInterrupt

    for writer in ("save_safetensors", "save_npz", "write_tensorbundle"):
        monkeypatch.setattr(pretrained, writer, stop)
    with pytest.raises(KeyboardInterrupt):
        write_pretrained(tmp_path, SMALL, GPT(SMALL).state_dict(), form)
    assert [path.name for path in tmp_path.iterdir()] == [sizes]


# ---- the tokenizer beside the weights ----------------------------------------------------------------------------

BPE = Tokenizer.train("the cat sat on the mat " * 9, 262)
BPE_CONFIG = change(vocab_size=262)
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


def test_without_a_file_50257_tokens_are_gpt2s(tmp_path):
    GPT(SMALL).save_pretrained(tmp_path)
    for theirs in (False, True):
        assert tokenizer_for(tmp_path, CONFIGS["gpt2"]).n_vocab == 50257
        with pytest.raises(LoadError, match=r"tokenizer\.json is " + ("Hugging Face's" if theirs else "missing")):
            tokenizer_for(tmp_path, SMALL)
        (tmp_path / "tokenizer.json").write_text(HUBS)


def test_a_tokenizer_of_another_size_or_damaged(tmp_path):
    GPT(SMALL).save_pretrained(tmp_path)
    BPE.save(tmp_path / "tokenizer.json")
    with pytest.raises(LoadError, match="has 262 tokens and the model 11: they do not belong together"):
        tokenizer_for(tmp_path, SMALL)
    for damaged in ("{", "[]", '{"format": "x", "model": 1}'):
        (tmp_path / "tokenizer.json").write_text(damaged)
        with pytest.raises(TokenizerError, match=r"tokenizer\.json"):
            tokenizer_for(tmp_path, CONFIGS["gpt2"])


def test_a_pickle_is_not_read(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    refused(tmp_path, "pickle")


@pytest.mark.parametrize("name", CONFIGS)
def test_a_published_name_without_a_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    refused(name, f"run `tinygrad-llm download {name}` first, or give its folder")
    shutil.copytree(TINY / "saved", name)
    assert GPT.from_pretrained(name).config == TINY_CONFIG


# ---- what it costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_reading_takes_little_more_memory_than_the_file(tmp_path, form):
    config = GPTConfig(vocab_size=4000, block_size=64, n_layer=8, n_head=2, n_embd=128)
    write_pretrained(tmp_path, config, GPT(config).state_dict(), form)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    tracemalloc.start()
    try:
        GPT.from_pretrained(tmp_path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1.3 * size


def test_no_weights_are_drawn_to_be_thrown_away(monkeypatch):
    def draw(*_):
        raise AssertionError("drawn")

    monkeypatch.setattr(Generator, "_u32", draw)
    GPT.from_pretrained(TINY / "saved")


def test_a_loaded_model_draws_its_dropout_as_any_other(tmp_path):
    model = GPT(change(dropout=0.3))
    model.save_pretrained(tmp_path)
    loaded = GPT.from_pretrained(tmp_path)
    for module in model.modules():
        if isinstance(module, Dropout):
            module.rng.manual_seed(0)
    assert {type(module.rng) for module in loaded.modules() if isinstance(module, Dropout)} == {Generator}
    ids = some_ids(2, 8)
    for _ in range(2):
        assert loaded(ids).data.tobytes() == model(ids).data.tobytes()
    assert loaded(ids).data.tobytes() != loaded(ids).data.tobytes()


# ---- our own files -----------------------------------------------------------------------------------------------


def config_json(**fields):
    return json.dumps(dataclasses.asdict(SMALL) | fields)


def write(folder, metadata, arrays=None):
    """A weights file with metadata of the test's choice."""
    if metadata and "config" in metadata:
        metadata = {"format": "tinygrad_llm.GPT"} | metadata
    save_safetensors(folder / WEIGHTS, GPT(SMALL).state_dict() if arrays is None else arrays, metadata)


@pytest.mark.parametrize("config", [SMALL, change(tie_weights=False, qkv_bias=False, dropout=0.25)])
def test_round_trip_is_bitwise(tmp_path, config):
    model = shaken(config, np.float32).eval()
    model.save_pretrained(tmp_path / "new" / "folder")
    for path in (tmp_path / "new" / "folder", str(tmp_path / "new" / "folder" / WEIGHTS)):
        loaded = GPT.from_pretrained(path).eval()
        assert loaded.config == config
        assert list(loaded.state_dict()) == list(model.state_dict())
        for name, array in loaded.state_dict().items():
            assert array.tobytes() == model.state_dict()[name].tobytes(), name
        ids = some_ids(2, 8)
        assert loaded(ids).data.tobytes() == model(ids).data.tobytes()
        assert (loaded.lm_head.weight is loaded.transformer.wte.weight) == config.tie_weights


def test_a_tied_weight_is_stored_once(tmp_path):
    GPT(SMALL).save_pretrained(tmp_path)
    arrays, metadata = load_safetensors(tmp_path / WEIGHTS)
    assert sum(array.size for array in arrays.values()) == SMALL.num_parameters
    assert json.loads(metadata["config"]) == dataclasses.asdict(SMALL)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_broken_weights_are_not_saved_over_good_ones(tmp_path, value):
    model = GPT(SMALL)
    model.save_pretrained(tmp_path)
    before = (tmp_path / WEIGHTS).read_bytes()
    model.transformer.h[1].mlp.c_fc.weight.data[0, 0] = value
    with pytest.raises(ValueError, match="not saved"):
        model.save_pretrained(tmp_path / "never")
    assert not (tmp_path / "never").exists()
    with pytest.raises(ValueError, match=r"NaN or infinity in transformer\.h\.1\.mlp\.c_fc\.weight$") as error:
        model.save_pretrained(tmp_path)
    assert str(tmp_path) in str(error.value)
    assert (tmp_path / WEIGHTS).read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [WEIGHTS]


def test_no_model_there(tmp_path):
    refused(tmp_path / "nowhere", "no model here")
    refused(tmp_path, "no model here", WEIGHTS)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x00" * 100, b"<html>" * 100, b"\xff" * 100])
def test_a_file_of_something_else(tmp_path, content):
    (tmp_path / WEIGHTS).write_bytes(content)
    refused(tmp_path / WEIGHTS)
    refused(tmp_path)


def test_a_file_cut_short(tmp_path):
    GPT(SMALL).save_pretrained(tmp_path)
    content = (tmp_path / WEIGHTS).read_bytes()
    for length in (4, 8, 100, len(content) // 2, len(content) - 1):
        (tmp_path / WEIGHTS).write_bytes(content[:length])
        refused(tmp_path / WEIGHTS)


@pytest.mark.parametrize(
    ("metadata", "word"),
    [
        (None, "n_head is stated nowhere"),
        ({"format": "something else"}, "n_head is stated nowhere"),
        ({"format": "something else", "config": config_json()}, "n_head is stated nowhere"),
        ({"format": "tinygrad_llm.GPT"}, "field 'config'"),
        ({"config": ""}, "field 'config'"),
        ({"config": "{"}, "field 'config'"),
        ({"config": "[1, 2]"}, "field 'config'"),
        ({"config": "null"}, "field 'config'"),
        ({"config": '{"n_layer": 2, "a": 1}'}, "field 'config'"),
        ({"config": '{"n_layer": 2, "two\\nlines": 1}'}, "field 'config'"),
        ({"config": config_json(**{"long" * 1000: 1})}, "field 'config'"),
        ({"config": "[" * 100_000}, "field 'config'"),
        ({"config": config_json(n_layer=0)}, "n_layer must be a positive integer"),
        ({"config": config_json(n_layer=1.5)}, "n_layer must be a positive integer"),
        ({"config": config_json(n_layer="a" * 10_000)}, "n_layer must be a positive integer"),
        ({"config": config_json(n_layer=10**4000, n_embd=10**4000, n_head=1)}, "an integer of 4001 digits"),
        ({"config": config_json(n_head=4)}, "multiple of n_head"),
        ({"config": config_json(dropout=math.nan)}, "NaN is not JSON"),
        ({"config": config_json(dropout=1.5)}, "dropout must lie in"),
        # It describes a GPT, but not the one in the file.
        ({"config": config_json(n_layer=3)}, "missing transformer.h.2.ln_1.weight (6,)"),
        ({"config": config_json(tie_weights=False)}, "missing lm_head.weight (11, 6)"),
        ({"config": config_json(vocab_size=8, block_size=11)}, "transformer.wte.weight has shape (11, 6)"),
    ],
)
def test_a_config_that_does_not_fit_the_weights(tmp_path, metadata, word):
    write(tmp_path, metadata)
    refused(tmp_path / WEIGHTS, word)


def test_weights_that_do_not_fit_the_config(tmp_path):
    state = GPT(SMALL).state_dict()
    renamed = {name.replace("ln_f", "ln_g"): array for name, array in state.items()}
    integers = state | {"transformer.ln_f.bias": np.zeros(6, np.int32)}
    for arrays, word in [
        (renamed, "missing transformer.ln_f.weight"),
        (renamed, "unexpected transformer.ln_g.bias"),
        (integers, "transformer.ln_f.bias holds int32"),
        ({}, "missing transformer.wte.weight (11, 6); missing transformer.wpe.weight"),
    ]:
        write(tmp_path, {"config": config_json()}, arrays)
        refused(tmp_path / WEIGHTS, word)


@pytest.mark.parametrize(
    ("fields", "arrays"),
    [
        ({"vocab_size": 10**9}, {}),
        ({"n_embd": 6 * 10**9}, {}),
        ({"n_layer": 10**12}, {}),
        ({"block_size": 10**15}, {}),
        # One array with as many bytes as the model has parameters: the count is right, but the objects of two thousand
        # layers would take hundreds of times the memory of the file.
        ({"n_layer": 2_000, "n_embd": 1, "n_head": 1}, None),
    ],
)
def test_a_hostile_config_is_refused_before_memory_is_taken(tmp_path, fields, arrays):
    config = change(**fields)
    if arrays is None:
        arrays = {"x": np.zeros(config.num_parameters, np.uint8)}
    write(tmp_path, {"config": config_json(**fields)}, arrays)
    tracemalloc.start()
    try:
        refused(tmp_path / WEIGHTS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_half_precision_weights_are_read_as_float32(tmp_path):
    state = {name: array.astype(np.float16) for name, array in GPT(SMALL).state_dict().items()}
    write(tmp_path, {"config": config_json()}, state)
    for name, array in GPT.from_pretrained(tmp_path).state_dict().items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, state[name])


def test_a_file_with_a_weight_that_is_no_number_is_refused(tmp_path):
    model = GPT(GPTConfig(vocab_size=5, block_size=4, n_layer=1, n_head=1, n_embd=4))
    model.save_pretrained(tmp_path)
    state, metadata = load_safetensors(tmp_path / WEIGHTS)
    state["transformer.ln_f.bias"][2] = np.nan
    save_safetensors(tmp_path / WEIGHTS, state, metadata)
    with pytest.raises(LoadError, match=r"model\.safetensors: NaN or infinity in transformer\.ln_f\.bias"):
        GPT.from_pretrained(tmp_path)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_model_comes_back_in_its_own_dtype(tmp_path, dtype):
    model = shaken(SMALL).to(dtype)
    model.save_pretrained(tmp_path)
    for name, array in GPT.from_pretrained(tmp_path).state_dict().items():
        assert array.dtype == dtype
        assert array.tobytes() == model.state_dict()[name].tobytes()


# ---- transformers itself, and the real GPT-2 ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("config", [SMALL, change(tie_weights=False), change(qkv_bias=False), change(n_head=3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transformers_reads_what_we_write_and_we_what_it_writes(tmp_path, config, dtype):
    transformers = pytest.importorskip("transformers")
    torch = pytest.importorskip("torch")
    model = shaken(config, dtype).eval()
    write_pretrained(tmp_path / "ours", config, model.state_dict(), "huggingface")
    theirs, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not any(report.values())
    ids = some_ids(2, 8)
    with torch.no_grad():
        expected = theirs.eval()(torch.from_numpy(ids)).logits.numpy()
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    assert expected.dtype == dtype
    np.testing.assert_allclose(model(ids).data, expected, rtol=tolerance, atol=tolerance)
    theirs.save_pretrained(tmp_path / "theirs")
    back = GPT.from_pretrained(tmp_path / "theirs").eval()
    np.testing.assert_array_equal(back(ids), model(ids))


@pytest.mark.slow
def test_the_script_writes_what_is_stored(tmp_path):
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    script = Path(__file__).parents[2] / "scripts" / "make_transformers_reference.py"
    subprocess.run([sys.executable, script, "--out", tmp_path], check=True, capture_output=True)
    for folder in ("saved", "hub", "head", "untied", "float64"):
        made, stored = (load_safetensors(place / folder / WEIGHTS)[0] for place in (tmp_path, TINY))
        assert made.keys() == stored.keys()
        assert all(array.tobytes() == stored[name].tobytes() for name, array in made.items())
        np.testing.assert_allclose(logits(tmp_path / folder), logits(TINY / folder))
    with np.load(tmp_path / "logits.npz", allow_pickle=False) as made:
        for name in ("ids", "saved", "untied", "float64"):
            np.testing.assert_allclose(made[name], REFERENCE[name], rtol=1e-4, atol=1e-5)


def continuation(folder, ids, count):
    """The likeliest next token, again and again."""
    return GPT.from_pretrained(folder).eval().generate(np.array(ids), count, temperature=0)[len(ids) :].tolist()


def test_the_continuation_is_the_likeliest_at_every_step():
    model = GPT.from_pretrained(TINY / "hub").eval()
    ids = [4, 7]
    for _ in range(10):
        ids.append(int(model([ids]).data[0, -1].argmax()))
    assert continuation(TINY / "hub", [4, 7], 10) == ids[2:]


@pytest.mark.slow
@pytest.mark.skipif("TINYGRAD_LLM_GPT2" not in os.environ, reason="TINYGRAD_LLM_GPT2 names no folder of GPT-2")
def test_the_real_gpt2_says_what_it_says():
    expected = "373 1043 287 257 2214 1474 262 16246 286 2688 290 2688 27262 13 198 198 464 3290"
    folder = os.environ["TINYGRAD_LLM_GPT2"]
    assert GPT.from_pretrained(folder).config == CONFIGS["gpt2"]
    assert continuation(folder, [464, 3290], 18) == [int(i) for i in expected.split()]


REAL = os.environ.get("TINYGRAD_LLM_GPT2")


@pytest.mark.slow
@pytest.mark.skipif(not (REAL and "TINYGRAD_LLM_VERDICT" in os.environ), reason="the variables name no GPT-2 and text")
def test_the_real_gpt2_has_the_books_loss_on_the_books_text():
    """Raschka 2024, exercise 5.5: windows of 256 of the-verdict.txt, nine tenths for training."""
    model, tokenizer = GPT.from_pretrained(REAL), Tokenizer.gpt2()
    text = Path(os.environ["TINYGRAD_LLM_VERDICT"]).read_text(encoding="utf-8")
    for part, expected in zip(split(text, 0.9), (3.754748, 3.559618), strict=True):
        windows = SlidingWindows(tokenizer.encode(part), 256)
        inputs, targets = windows.batch(range(len(windows) // 2 * 2))  # in batches of two, a last single one left out
        with model.evaluating():
            losses = [model.loss(inputs[i : i + 2], targets[i : i + 2]).item() for i in range(0, len(inputs), 2)]
        assert np.mean(losses) == pytest.approx(expected, abs=1e-4)


LLM_C = [5.270007, 4.059707, 3.375123, 2.800783, 2.315382, 1.849029, 1.394656, 0.999147, 0.624080, 0.376511]


@pytest.mark.slow
@pytest.mark.skipif(not (REAL and "TINYGRAD_LLM_DEBUG_STATE" in os.environ), reason="no GPT-2, or no state of llm.c")
def test_ten_steps_from_the_real_gpt2_have_the_losses_of_llm_c():
    """test_gpt2.c of github.com/karpathy/llm.c, on the batch in its gpt2_124M_debug_state.bin."""
    header = np.fromfile(os.environ["TINYGRAD_LLM_DEBUG_STATE"], "<i4", 256)
    assert header[0] == 20240327
    B, T = header[2:4]
    ids, targets = np.fromfile(os.environ["TINYGRAD_LLM_DEBUG_STATE"], "<i4", 2 * B * T, offset=1024).reshape(2, B, T)
    model = GPT.from_pretrained(REAL)
    optimizer = AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.01)
    losses = []
    for _ in LLM_C:
        model.zero_grad()
        loss = model.loss(ids, targets)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(losses, LLM_C, atol=1e-2)  # llm.c's own tolerance
