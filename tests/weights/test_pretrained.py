"""Files of models: our own, OpenAI's and Hugging Face's, and hostile ones.

`gpt2_tiny/` was written by `scripts/make_transformers_reference.py`, which says what is in it.
"""

import codecs
import contextlib
import dataclasses
import itertools
import json
import math
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from gpt_models import SMALL, change, shaken, some_ids
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.datasets import SlidingWindows, split
from tinygrad_llm.formats import load_safetensors, save_safetensors
from tinygrad_llm.formats.npz import save_npz
from tinygrad_llm.formats.tensorbundle import write_tensorbundle
from tinygrad_llm.models import CONFIGS, GPT, GPTConfig
from tinygrad_llm.nn import Dropout, Embedding, Linear, ReLU, Sequential
from tinygrad_llm.optim import AdamW
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.tokenizer import Tokenizer
from tinygrad_llm.weights import FORMS, WEIGHTS, PreTrainedModel, pretrained, read_pretrained, write_pretrained

TINY = Path(__file__).with_name("gpt2_tiny")
TINY_CONFIG = GPTConfig(vocab_size=19, block_size=12, n_layer=2, n_head=2, n_embd=8)
HPARAMS = {"n_vocab": 19, "n_ctx": 12, "n_embd": 8, "n_head": 2, "n_layer": 2}
with np.load(TINY / "logits.npz", allow_pickle=False) as _file:
    REFERENCE = dict(_file)
IDS = REFERENCE["ids"]


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
    ("folder", "tolerance"), [("saved", 1e-5), ("hub", 1e-5), ("head", 1e-5), ("untied", 1e-5), ("float64", 1e-12)]
)
def test_logits_are_those_of_transformers(folder, tolerance):
    expected = REFERENCE[folder] if folder in REFERENCE else REFERENCE["saved"]
    assert 0.5 < expected.std() < 20  # neither nothing nor noise
    found = logits(TINY / folder)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    config = GPT.from_pretrained(TINY / folder).config
    assert config == change(TINY_CONFIG, tie_weights=folder != "untied")


def test_same_weights_in_other_files_give_the_same_logits_bit_for_bit():
    first = logits(TINY / "saved").tobytes()
    assert logits(TINY / "hub").tobytes() == logits(TINY / "head").tobytes() == first
    assert logits(TINY / "saved" / WEIGHTS).tobytes() == first


def test_a_byte_order_mark_in_config_and_a_tied_head_alone_change_nothing(tmp_path):
    arrays, metadata = load_safetensors(TINY / "saved" / WEIGHTS)
    prefix = "transformer." if "transformer.wte.weight" in arrays else ""
    arrays["lm_head.weight"] = arrays.pop(f"{prefix}wte.weight")  # as safetensors.torch.save_model keeps it
    save_safetensors(tmp_path / WEIGHTS, arrays, metadata)
    (tmp_path / "config.json").write_bytes(codecs.BOM_UTF8 + (TINY / "saved" / "config.json").read_bytes())
    assert logits(tmp_path).tobytes() == logits(TINY / "saved").tobytes()


@pytest.mark.parametrize("form", ["tied pair", "save_model", "minGPT"])
def test_a_model_of_nanogpt_is_read_with_a_warning(tmp_path, form):
    """It alone writes the tied head, in our layout. minGPT's head is its own, and its GELU is GPT-2's."""
    state = dict(shaken(SMALL, np.float32).state_dict())
    head = state["transformer.wte.weight"]
    state |= {"lm_head.weight": -head if form == "minGPT" else head}
    if form == "save_model":
        del state["transformer.wte.weight"]
    compiled = {f"_orig_mod.{name}": array for name, array in state.items()}
    save_npz(tmp_path / "model.npz", compiled)
    warned = contextlib.nullcontext() if form == "minGPT" else pytest.warns(UserWarning, match="nanoGPT, whose GELU")
    with warned:
        config, read, _ = read_pretrained(tmp_path, GPTConfig, n_head=2)
    assert config == change(tie_weights=form != "minGPT")
    np.testing.assert_array_equal(read["transformer.wte.weight"], head)


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
def test_files_of_tensorflow_and_numpy_give_the_same_logits_bit_for_bit(folder, found):
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
def test_one_flipped_bit_in_a_weight_is_refused_in_every_form(tmp_path, form):
    model = shaken(SMALL)
    write_pretrained(tmp_path, SMALL, model.state_dict(), form)
    file = max(tmp_path.iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[data.index(np.float64(model.transformer.wpe.weight.data[3, 2]).tobytes()) + 1] ^= 4
    file.write_bytes(data)
    refused(tmp_path)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_comes_back_bit_for_bit(tmp_path, form, for_each):
    def check(dtype):
        model = shaken(SMALL, dtype)
        write_pretrained(tmp_path, SMALL, model.state_dict(), form)
        config, state, _ = read_pretrained(tmp_path, GPTConfig)
        assert config == SMALL
        assert list(config.shapes()) == [(name, state[name].shape) for name in model.state_dict()]
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(state[name], array, strict=True)
            assert state[name].flags.c_contiguous
            assert state[name].flags.writeable

    for_each([np.float32, np.float64], check)


@pytest.mark.parametrize("form", ["safetensors", "huggingface", "npz"])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_an_untied_head_and_missing_biases_come_back(tmp_path, form, qkv_bias):
    config = change(tie_weights=False, qkv_bias=qkv_bias)
    model = shaken(config, np.float32).eval()
    write_pretrained(tmp_path, config, model.state_dict(), form)
    loaded = GPT.from_pretrained(tmp_path).eval()
    assert loaded.config == change(config, qkv_bias=qkv_bias or form == "huggingface")  # there the bias is zeros
    ids = some_ids(2, 8)
    np.testing.assert_array_equal(loaded(ids).data, model(ids).data)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hugging_faces_config_states_the_dtype_which_transformers_obeys(tmp_path, dtype):
    write_pretrained(tmp_path, SMALL, shaken(SMALL, dtype).state_dict(), "huggingface")
    assert json.loads((tmp_path / "config.json").read_text())["torch_dtype"] == dtype
    assert load_safetensors(tmp_path / WEIGHTS)[1]["format"] == "pt"  # without which transformers refuses the file


def test_openais_form_refuses_an_untied_head(tmp_path):
    config = change(tie_weights=False)
    with pytest.raises(ValueError, match=r"lm_head\.weight"):
        write_pretrained(tmp_path / "new", config, GPT(config).state_dict(), "openai")
    assert not (tmp_path / "new").exists()


# ---- the number of heads, which no tensor shows ------------------------------------------------------------------


def alone(folder, variant="saved"):
    """The weights without the file that states their sizes."""
    return Path(shutil.copy(TINY / variant / WEIGHTS, folder))


def test_an_unknown_number_of_heads_is_asked_for(tmp_path):
    file = alone(tmp_path)
    refused(file, "n_head is stated nowhere", "give n_head")
    assert logits(file, n_head=2).tobytes() == logits(TINY / "saved").tobytes()
    assert np.abs(logits(file, n_head=4) - logits(file, n_head=2)).max() > 0.1
    refused(file, "n_embd (8) must be a multiple of n_head (3)", n_head=3)
    refused(file, "n_head must be a positive integer, got 0", n_head=0)


def test_a_head_has_64_channels_where_no_file_states_it(tmp_path):
    config = change(n_embd=192, n_head=3)
    save_safetensors(tmp_path / WEIGHTS, GPT(config).state_dict())
    assert GPT.from_pretrained(tmp_path).config == config


@pytest.mark.parametrize("folder", ["saved", "own"])
def test_n_head_that_contradicts_the_file_is_refused(tmp_path, folder):
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


def test_a_model_that_gpt_cannot_represent_is_refused(tmp_path, for_each):
    wrong = [
        {"model_type": "llama"},
        {"activation_function": "relu"},
        {"layer_norm_epsilon": 1e-6},
        {"scale_attn_weights": False},
        {"scale_attn_by_inverse_layer_idx": True},
        {"add_cross_attention": True},
        {"n_inner": 31},
        {"n_inner": [1]},
        {"activation_function": {"a": 1}, "layer_norm_epsilon": "1e-5"},
    ]
    words = "not a model that GPT can represent"
    for_each(wrong, lambda fields: refused(folder_with(tmp_path, fields), words, "config.json", *fields))


def test_a_config_that_contradicts_the_tensors_is_refused(tmp_path, for_each):
    cases = [
        ({"n_layer": 3}, ["missing transformer.h.2.ln_1.weight (8,)", "missing transformer.h.2.mlp.c_proj.bias"]),
        ({"n_layer": 1}, ["unexpected transformer.h.1.ln_1.weight (8,)"]),
        ({"n_layer": 10**9}, ["28 tensors are too few for"]),
        ({"vocab_size": 20}, ["transformer.wte.weight has shape (19, 8), and not (20, 8)"]),
        ({"n_positions": 11}, ["transformer.wpe.weight has shape (12, 8), and not (11, 8)"]),
        ({"n_embd": 10}, ["attn.c_attn.weight has shape (24, 8), and not (30, 10)"]),
        ({"tie_word_embeddings": False}, ["missing lm_head.weight (19, 8)"]),
    ]
    for_each(cases, lambda case: both(tmp_path, case[1], fields=case[0]))


def test_impossible_sizes_are_refused(tmp_path, for_each):
    cases = [
        ({"n_head": 3}, "n_embd (8) must be a multiple of n_head (3)"),
        ({"n_head": None}, "n_head must be a positive integer"),
        ({"n_embd": "8"}, "n_embd must be a positive integer"),
        ({"n_layer": 2.0}, "n_layer must be a positive integer"),
        ({"vocab_size": True}, "vocab_size must be a positive integer"),
        ({"tie_word_embeddings": "yes"}, "tie_weights must be true or false"),
        ({"initializer_range": 0}, "initializer_range must lie in"),
    ]
    for_each(cases, lambda case: refused(folder_with(tmp_path, case[0]), case[1], "config.json"))


@pytest.mark.parametrize("name", ["config.json", "hparams.json"])
def test_a_statement_that_cannot_be_read_is_refused(tmp_path, name, for_each):
    def check(content):
        (tmp_path / name).write_bytes(content)
        refused(tmp_path, name)

    contents = [b"", b"\xff", b"[]", b"{", b'{"n_layer": NaN}', b'{"n_layer": 2, "n_layer": 2}', b'{"a":' * 100_000]
    contents += [b" " * 1_000_001, b'{"n_layer": 1' + b"0" * 5000 + b"}"]
    alone(tmp_path)
    for_each(contents, check)


KEYS = [*json.loads((TINY / "saved" / "config.json").read_text()), *HPARAMS, "n_ctx"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**19), 10**19) | st.sampled_from([8, 12, 19, 0.5, "gpt2", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=2),
    max_leaves=3,
)


@given(st.sampled_from(["config.json", "hparams.json"]), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=4))
def test_any_statement_gives_a_model_or_a_load_error(name, fields):
    with tempfile.TemporaryDirectory() as folder:
        file = alone(Path(folder))
        (Path(folder) / name).write_text(json.dumps({"n_head": 2} | fields))
        with contextlib.suppress(LoadError):
            assert GPT.from_pretrained(file).num_parameters() in (2008, 2008 + 19 * 8)


def test_sizes_that_no_file_states_are_read_from_the_tensors(tmp_path):
    alone(tmp_path)
    (tmp_path / "config.json").write_text('{"n_head": 2, "n_ctx": 12}')
    assert logits(tmp_path).tobytes() == logits(TINY / "saved").tobytes()
    (tmp_path / "config.json").write_text('{"n_head": 2, "n_positions": 12, "n_ctx": 13}')  # n_ctx is the older name
    assert logits(tmp_path).tobytes() == logits(TINY / "saved").tobytes()
    (tmp_path / "config.json").write_text('{"n_head": 2, "n_ctx": 13}')
    refused(tmp_path, "transformer.wpe.weight has shape (12, 8), and not (13, 8)")


def test_two_files_may_state_the_sizes_if_they_agree(tmp_path):
    folder_with(tmp_path)
    (tmp_path / "hparams.json").write_text(json.dumps(HPARAMS))
    assert GPT.from_pretrained(tmp_path).config.n_head == 2
    (tmp_path / "hparams.json").write_text(json.dumps(HPARAMS | {"n_head": 4}))  # no tensor shows which is right
    refused(tmp_path, "hparams.json: n_head is 4, and config.json states otherwise: remove the wrong file")
    npz = tmp_path / "npz"
    npz.mkdir()
    for name, text in (("hparams.json", json.dumps(HPARAMS)), ("config.json", '{"model_type": "llama"}')):
        (npz / name).write_text(text)  # a config of another model does not matter next to a GPT-2 of OpenAI
    save_npz(npz / "model.npz", in_openais_names(load_safetensors(TINY / "saved" / WEIGHTS)[0]))
    assert GPT.from_pretrained(npz).config.n_head == 2
    config = HPARAMS | {"n_positions": 12, "tie_word_embeddings": True}  # it also states what hparams.json does not
    (npz / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "n_vocab"}))
    assert GPT.from_pretrained(npz).config.n_head == 2


def test_every_missing_and_extra_tensor_is_listed(tmp_path):
    gone = ["transformer.h.0.ln_2.bias", "transformer.h.1.attn.c_attn.weight", "transformer.ln_f.weight"]
    more = ["transformer.h.1.attn.rotary", "other.weight", "transformer.h.00.ln_1.bias"]

    def alter(arrays):
        return {name: array for name, array in arrays.items() if name not in gone} | dict.fromkeys(more, np.ones(2))

    message = refused(folder_with(tmp_path, arrays=alter))
    assert re.findall(r"missing (\S+) \(", message) == gone
    assert sorted(re.findall(r"unexpected (\S+) \(2,\)", message)) == sorted(more)


def test_another_model_is_refused_by_its_tensor_names(tmp_path):
    save_safetensors(tmp_path / WEIGHTS, {"bert.embeddings.weight": np.ones((2, 3), np.float32)})
    refused(tmp_path, "of BERT, as 'bert.embeddings.weight' shows: GPT is a decoder only")
    save_safetensors(tmp_path / WEIGHTS, {"another.weight": np.ones((2, 3), np.float32)})
    refused(tmp_path, "not a GPT-2", "another.weight")


def test_a_transposed_linear_layer_is_refused(tmp_path, for_each):
    def check(layer):
        name = f"transformer.h.1.{layer}.weight"
        both(tmp_path, [f"{name} has shape"], arrays=altered(name, np.transpose))

    for_each(["attn.c_attn", "mlp.c_fc", "mlp.c_proj"], check)


def test_a_transposed_square_layer_changes_only_the_logits(tmp_path):
    folder = folder_with(tmp_path, arrays=altered("transformer.h.1.attn.c_proj.weight", np.transpose))
    assert np.abs(logits(folder) - REFERENCE["saved"]).max() > 0.1


def test_weights_of_integers_are_refused(tmp_path, for_each):
    name = "transformer.h.0.mlp.c_fc.weight"

    def check(dtype):
        both(tmp_path, [f"{name} holds {np.dtype(dtype)}"], arrays=altered(name, lambda a: a.astype(dtype)))

    for_each([np.int64, np.uint8, np.bool_], check)


def test_complex_weights_are_refused(tmp_path):
    state = read_pretrained(TINY / "saved", GPTConfig).state
    wte = state["transformer.wte.weight"].astype(np.complex128)
    save_npz(tmp_path / "model.npz", state | {"transformer.wte.weight": wte, "lm_head.weight": wte})
    refused(tmp_path, n_head=2)


def test_weights_that_are_nan_or_infinite_are_refused_unless_allowed(tmp_path, for_each):
    def check(case):
        variant, value = case

        def alter(arrays):
            broken = arrays["transformer.wte.weight"].copy()
            broken[3, 4] = value
            head = {"lm_head.weight": broken} if variant == "head" else {}
            return arrays | {"transformer.wte.weight": broken} | head

        folder = folder_with(tmp_path, arrays=alter, variant=variant)
        refused(folder, "NaN or infinity in transformer.wte.weight", WEIGHTS)
        model = GPT.from_pretrained(folder, allow_non_finite=True)
        np.testing.assert_array_equal(model.transformer.wte.weight.data[3, 4], np.float32(value))

    for_each(itertools.product(["saved", "head", "untied"], [math.nan, math.inf, -math.inf]), check)


def test_a_tied_head_that_differs_from_wte_is_refused(tmp_path):
    folder = folder_with(tmp_path, arrays=altered("lm_head.weight", lambda a: a + 1), variant="head")
    weights, config = folder / WEIGHTS, folder / "config.json"
    refused(
        folder,
        f"{config}: the output head is tied to transformer.wte.weight, but {weights} has another lm_head.weight",
    )
    (folder / "config.json").unlink()
    assert not GPT.from_pretrained(folder, n_head=2).config.tie_weights


def test_an_untied_head_of_a_file_without_prefixes_keeps_its_name(tmp_path):
    def strip(arrays):
        return {name.removeprefix("transformer."): array for name, array in arrays.items()}

    folder = folder_with(tmp_path, arrays=strip, variant="untied")
    assert logits(folder).tobytes() == logits(TINY / "untied").tobytes()


def test_an_untied_head_may_equal_wte(tmp_path):
    folder = folder_with(tmp_path, {"tie_word_embeddings": False}, variant="head")
    assert not GPT.from_pretrained(folder).config.tie_weights
    assert logits(folder).tobytes() == logits(TINY / "saved").tobytes()


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_layout_that_contradicts_the_stated_one_is_refused(tmp_path, metadata):
    save_safetensors(tmp_path / WEIGHTS, GPT(SMALL).state_dict(), metadata)
    if metadata is None:
        (tmp_path / "config.json").write_text('{"model_type": "gpt2", "n_head": 2}')
    refused(tmp_path / WEIGHTS, "its metadata says" if metadata else "config.json says", "(in, out)", n_head=2)


def test_a_base_model_without_its_head_is_refused_with_a_remedy(tmp_path):
    folder = folder_with(tmp_path, arrays=without("lm_head.weight"), variant="untied")
    refused(folder, "missing lm_head.weight (19, 8)", "GPT2LMHeadModel")
    assert "GPT2LMHeadModel" not in refused(folder_with(tmp_path, arrays=without("transformer.ln_f.bias")))


def test_a_statement_that_is_not_a_file_is_refused(tmp_path, for_each):
    def check(case):
        name, make = case
        folder = tmp_path / f"{name} {make}"
        folder.mkdir()
        alone(folder)
        make(folder / name)
        refused(folder, name, "not a file")

    makers = [os.mkdir, getattr(os, "mkfifo", os.mkdir), lambda path: os.symlink("nowhere", path)]
    for_each(itertools.product(["config.json", "hparams.json"], makers), check)


def test_weights_of_another_form_are_not_written_next_to_others(tmp_path):
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


def test_a_pickle_is_not_read(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02.")
    refused(tmp_path, "pickle")


def test_a_published_name_without_a_folder_says_how_to_download_it(tmp_path, monkeypatch, for_each):
    def check(name):
        refused(name, f"run `tinygrad-llm download {name}` first, or give its folder")
        shutil.copytree(TINY / "saved", name)
        assert GPT.from_pretrained(name).config == TINY_CONFIG

    monkeypatch.chdir(tmp_path)
    for_each(CONFIGS, check)


# ---- what it costs -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_reading_takes_little_more_memory_than_the_file(tmp_path, peak_memory, form):
    config = GPTConfig(vocab_size=4000, block_size=64, n_layer=8, n_head=2, n_embd=128)
    write_pretrained(tmp_path, config, GPT(config).state_dict(), form)
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    limit = 1.3 * size
    assert peak_memory(lambda: GPT.from_pretrained(tmp_path), limit) < limit


def test_no_weights_are_drawn_when_reading(monkeypatch):
    def draw(*_):
        raise AssertionError("drawn")

    monkeypatch.setattr(Generator, "_u32", draw)
    GPT.from_pretrained(TINY / "saved")


def test_a_loaded_model_draws_its_dropout_as_a_new_one_does(tmp_path):
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


@pytest.mark.parametrize(
    "config", [SMALL, change(tie_weights=False, qkv_bias=False, dropout=0.25), change(initializer_range=None)]
)
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


def test_broken_weights_are_not_saved_over_good_ones(tmp_path, for_each):
    model = GPT(SMALL)
    model.save_pretrained(tmp_path)
    before = (tmp_path / WEIGHTS).read_bytes()

    def check(value):
        model.transformer.h[1].mlp.c_fc.weight.data[0, 0] = value
        with pytest.raises(ValueError, match="not saved"):
            model.save_pretrained(tmp_path / "never")
        assert not (tmp_path / "never").exists()
        with pytest.raises(ValueError, match=r"NaN or infinity in transformer\.h\.1\.mlp\.c_fc\.weight$") as error:
            model.save_pretrained(tmp_path)
        assert str(tmp_path) in str(error.value)
        assert (tmp_path / WEIGHTS).read_bytes() == before
        assert [file.name for file in tmp_path.iterdir()] == [WEIGHTS]

    for_each([math.nan, math.inf, -math.inf], check)


def changed_in(layer, **attributes):
    def change_it(model):
        for name, value in attributes.items():
            setattr(dict(model.named_modules())[layer], name, value)

    return change_it


CHANGES = {  # of a model: what the message says
    "lm_head.bias is (11,), not there": changed_in("", lm_head=Linear(6, 11, rng=Generator(0))),
    "lm_head.weight is (11, 6), not there": changed_in("", lm_head=Linear(6, 11, False, rng=Generator(0))),
    "lm_head is Sequential, not Linear": changed_in("", lm_head=Sequential(Linear(6, 11, False, rng=Generator(0)))),
    "lm_head has a forward of its own": changed_in("lm_head", forward=lambda x: x),
    "transformer.h.1.mlp.gelu is ReLU, not GELU": changed_in("transformer.h.1.mlp", gelu=ReLU()),
    "transformer.h.0.mlp.gelu.approximate is 'none', not 'tanh'": changed_in(
        "transformer.h.0.mlp.gelu", approximate="none"
    ),
    "transformer.ln_f.eps is 0.1, not 1e-05": changed_in("transformer.ln_f", eps=0.1),
    "adapter is new": changed_in("", adapter=Linear(6, 6, rng=Generator(0))),
    "transformer.h.1 is gone, not Block": lambda model: model.transformer.h.pop(),
    "transformer.wpe.weight is (9, 6), not (8, 6)": changed_in("transformer", wpe=Embedding(9, 6, rng=Generator(0))),
}


def test_a_model_that_its_config_does_not_describe_is_not_saved(tmp_path, for_each):
    def check(message):
        model = GPT(SMALL, Generator(1))
        CHANGES[message](model)
        with pytest.raises(ValueError, match=r"not saved to .*Save its state_dict\(\) with formats\.") as e:
            model.save_pretrained(tmp_path / "never")
        assert message in str(e.value)
        assert "\n" not in str(e.value)
        assert not (tmp_path / "never").exists()

    for_each(CHANGES, check)


def test_a_changed_model_is_kept_as_the_message_says(tmp_path):
    def changed(seed):
        model = GPT(SMALL, Generator(seed)).eval()
        model.lm_head = Linear(6, 11, rng=Generator(seed))
        return model

    model, loaded = changed(1), changed(2)
    save_safetensors(tmp_path / "state.safetensors", model.state_dict())
    loaded.load_state_dict(load_safetensors(tmp_path / "state.safetensors")[0])
    ids = some_ids(2, 8)
    np.testing.assert_array_equal(loaded(ids).data, model(ids).data)


def test_mode_dropout_and_frozen_parameters_do_not_keep_a_model_from_being_saved(tmp_path):
    model = GPT(change(dropout=0.1), recompute=True, fused=False).eval()
    model.transformer.drop.p = 0.5
    model.lm_head.weight.requires_grad = False
    model.save_pretrained(tmp_path)
    assert GPT.from_pretrained(tmp_path).transformer.drop.p == 0.1


def test_a_missing_model_is_reported(tmp_path):
    refused(tmp_path / "nowhere", "no model here")
    refused(tmp_path, "no model here", WEIGHTS)


def test_a_file_of_something_else_is_refused(tmp_path, for_each):
    def check(content):
        (tmp_path / WEIGHTS).write_bytes(content)
        refused(tmp_path / WEIGHTS)
        refused(tmp_path)

    for_each([b"", b"garbage", b"\x00" * 100, b"<html>" * 100, b"\xff" * 100], check)


BAD_METADATA = [
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
    ({"format": "tinygrad_llm.Encoder", "config": config_json()}, "'tinygrad_llm.Encoder', and 'tinygrad_llm.GPT' is"),
    ({"format": "tinygrad_llm.checkpoint"}, "__metadata__: metadata"),
    ({"format": "tinygrad_llm.checkpoint", "metadata": "{}"}, "does not state its model's sizes"),
]


def test_metadata_that_does_not_fit_the_weights_is_refused(tmp_path, for_each):
    def check(case):
        write(tmp_path, case[0])
        refused(tmp_path / WEIGHTS, case[1])

    for_each(BAD_METADATA, check)


def test_weights_that_do_not_fit_the_config_are_refused(tmp_path):
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


def test_weights_that_are_not_those_of_the_config_are_not_written(tmp_path):
    state = GPT(SMALL).state_dict()
    state["more"] = state.pop("transformer.ln_f.bias")[:2]
    said = "transformer.ln_f.bias is gone, not (6,); more is (2,), not there. Save its state_dict()"
    with pytest.raises(ValueError, match=f"^not saved to {re.escape(f'{tmp_path}/new')}: .*{re.escape(said)}"):
        write_pretrained(tmp_path / "new", SMALL, state)
    assert not (tmp_path / "new").exists()


def test_a_hostile_config_is_refused_before_memory_is_allocated(tmp_path, peak_memory, for_each):
    def check(case):
        fields, arrays = case
        write(tmp_path, {"config": config_json(**fields)}, arrays)
        assert peak_memory(lambda: refused(tmp_path / WEIGHTS), 1_000_000) < 1_000_000

    # One array with as many bytes as the model has parameters: the count is right, but the objects of two thousand
    # layers would take hundreds of times the memory of the file.
    deep = {"n_layer": 2_000, "n_embd": 1, "n_head": 1}
    cases = [(deep, {"x": np.zeros(change(**deep).num_parameters, np.uint8)})]
    cases += [({name: 6 * 10**9}, {}) for name in ("vocab_size", "n_embd", "n_layer", "block_size")]
    for_each(cases, check)


def test_half_precision_weights_are_read_as_float32(tmp_path):
    state = {name: array.astype(np.float16) for name, array in GPT(SMALL).state_dict().items()}
    write(tmp_path, {"config": config_json()}, state)
    for name, array in GPT.from_pretrained(tmp_path).state_dict().items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, state[name])


@pytest.mark.parametrize("wide", [0, 1, -1], ids=["none", "one", "all but one"])
def test_weights_of_two_precisions_are_read_as_float32(tmp_path, wide):
    state = GPT(SMALL).state_dict()
    state |= {name: state[name].astype(np.float64) for name in list(state)[:wide]}
    write(tmp_path, {"config": config_json()}, state)
    assert {array.dtype for array in GPT.from_pretrained(tmp_path).state_dict().values()} == {np.dtype(np.float32)}


@dataclasses.dataclass(frozen=True)
class RegressorConfig:
    """The sizes of a model that is no GPT."""

    width: int
    published: ClassVar = {}

    def shapes(self):
        yield "line.weight", (1, self.width)
        yield "line.bias", (1,)


class Regressor(PreTrainedModel):
    config_class = RegressorConfig

    def __init__(self, config, rng=None, double=False):
        super().__init__(config, rng)
        self.double = double
        self.line = Linear(config.width, 1, rng=rng or Generator(0))


def test_a_model_of_another_kind_is_saved_and_read_alike(tmp_path):
    model = Regressor(RegressorConfig(3), Generator(5))
    model.save_pretrained(tmp_path / "regressor")
    loaded = Regressor.from_pretrained(tmp_path / "regressor", double=True)
    assert loaded.config == model.config
    assert loaded.double
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(loaded.state_dict()[name], array, strict=True)
    refused(tmp_path / "regressor", "'tinygrad_llm.Regressor', and 'tinygrad_llm.GPT' is needed")
    GPT(SMALL).save_pretrained(tmp_path / "gpt")
    with pytest.raises(LoadError, match=r"holds 'tinygrad_llm\.GPT', and 'tinygrad_llm\.Regressor' is needed"):
        Regressor.from_pretrained(tmp_path / "gpt")


# ---- transformers itself, and the real GPT-2 ---------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("config", [SMALL, change(tie_weights=False), change(qkv_bias=False), change(n_head=3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_transformers_reads_our_files_and_we_read_its_files(tmp_path, config, dtype):
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
    subprocess.run([sys.executable, script, "--out", tmp_path], check=True, capture_output=True, timeout=600)
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
def test_the_real_gpt2_continues_as_published():
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
