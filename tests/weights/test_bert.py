"""BERT in the files of Hugging Face: read, written back, and refused in one line where it is something else."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm.formats import load_safetensors, save_safetensors
from tinygrad_llm.models import GPT, Encoder, EncoderClassifier, EncoderConfig, GPTClassifier, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.weights import WEIGHTS, model_at, read_pretrained, write_pretrained
from tinygrad_llm.weights.bert import from_bert_config

STORED = Path(__file__).parents[1] / "models" / "bert"  # of `scripts/make_bert_references.py`
READERS = {"masked": Encoder, "classifier": EncoderClassifier}


@pytest.fixture(params=READERS)
def name(request):
    return request.param


@pytest.fixture
def folder(name, tmp_path):
    """A copy of one of the stored models."""
    return shutil.copytree(STORED / name, tmp_path / name, copy_function=shutil.copyfile)


def alter(folder, change, **fields):
    """Change the arrays, and the fields of config.json; None removes one."""
    arrays = change(dict(load_safetensors(folder / WEIGHTS)[0]))
    save_safetensors(folder / WEIGHTS, arrays, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text()) | fields
    (folder / "config.json").write_text(json.dumps({key: x for key, x in config.items() if x is not None}))


def same(one, other):
    assert one.config == other.config
    assert one.state_dict().keys() == other.state_dict().keys()
    for key, array in one.state_dict().items():
        np.testing.assert_array_equal(array, other.state_dict()[key])


def test_what_was_read_is_written_back(name, tmp_path):
    reader = READERS[name]
    config, state, found = read_pretrained(STORED / name, reader.config_class)
    assert found == "safetensors, BERT's names"
    write_pretrained(tmp_path / "again", config, state, "huggingface")
    stored, written = (json.loads((path / "config.json").read_text()) for path in (STORED / name, tmp_path / "again"))
    ours = {"torch_dtype", "position_embedding_type"}  # transformers 5 writes `dtype`, and has absolute positions only
    theirs = {"bos_token_id", "eos_token_id", "classifier_dropout", "dtype", "transformers_version", "use_cache"}
    assert {key: x for key, x in written.items() if key not in ours} == {
        key: stored[key] for key in stored.keys() - theirs
    }
    assert (written["torch_dtype"], written["position_embedding_type"]) == ("float32", "absolute")
    write_pretrained(tmp_path / "padded", config, state, "huggingface", padding=3)
    assert json.loads((tmp_path / "padded" / "config.json").read_text()) == written | {"pad_token_id": 3}
    assert load_safetensors(tmp_path / "again" / WEIGHTS)[1]["format"] == "pt"
    arrays, theirs = load_safetensors(tmp_path / "again" / WEIGHTS)[0], load_safetensors(STORED / name / WEIGHTS)[0]
    assert arrays.keys() == theirs.keys()
    assert all(np.array_equal(arrays[key], theirs[key]) for key in theirs)
    reader.from_pretrained(STORED / name).save_pretrained(tmp_path / "ours")
    same(reader.from_pretrained(tmp_path / "ours"), reader.from_pretrained(STORED / name))
    assert model_at(tmp_path / "ours") == model_at(STORED / name) == reader.__name__


def of_2018(arrays):
    """The names of a layer norm in the first files, the heads of pre-training, and positions as a tensor."""
    renamed = {re.sub("LayerNorm.weight$", "LayerNorm.gamma", key): x for key, x in arrays.items()}
    renamed = {re.sub("LayerNorm.bias$", "LayerNorm.beta", key): x for key, x in renamed.items()}
    more = {"cls.seq_relationship.weight": np.ones((2, 8), np.float32), "bert.embeddings.position_ids": np.arange(7)}
    return renamed | more


def with_copies(arrays):
    copies = {"cls.predictions.decoder.weight": arrays["bert.embeddings.word_embeddings.weight"]}
    copies["cls.predictions.decoder.bias"] = arrays["cls.predictions.bias"]
    return arrays | copies | {"bert.pooler.dense.weight": np.ones((8, 8), np.float32)}


def bias_of_the_decoder(arrays):
    return {key.replace("predictions.bias", "predictions.decoder.bias"): x for key, x in arrays.items()}


@pytest.mark.parametrize("change", [of_2018, with_copies, bias_of_the_decoder])
@pytest.mark.parametrize("name", ["masked"], indirect=True)
def test_other_forms_of_the_same_file_are_read(change, name, folder):
    alter(folder, change)
    same(Encoder.from_pretrained(folder), Encoder.from_pretrained(STORED / name))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_act": "relu"}, "config.json: not a model that an encoder can represent: hidden_act 'relu'"),
        ({"intermediate_size": 31}, "intermediate_size 31 (only 4 hidden_size)"),
        ({"model_type": "roberta", "is_decoder": True}, "model_type 'roberta' (only 'bert'), is_decoder True"),
        ({"num_attention_heads": 3}, "n_embd (8) must be a multiple of n_head (3)"),
        ({"num_hidden_layers": 3}, "missing bert.encoder.layer.2.attention.self.query.weight (8, 8)"),
        ({"vocab_size": None}, "word_embeddings.weight has shape (13, 8), and not (30522, 8)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields, message, name, folder):
    alter(folder, lambda arrays: arrays, **fields)
    with pytest.raises(LoadError, match=re.escape(message)):
        READERS[name].from_pretrained(folder)


def test_classes_are_in_the_order_of_their_numbers_in_whatever_order_the_file_has_them():
    """transformers sorts the keys, as text: 0, 1, 10, 11, 2, …"""
    numbers = [str(i) for i in range(12)]
    fields = from_bert_config({"id2label": {i: f"class {i}" for i in sorted(numbers)}}, True)
    assert fields["labels"] == tuple(f"class {i}" for i in numbers)
    assert from_bert_config({}, True)["labels"] == ("LABEL_0", "LABEL_1")  # as transformers calls two unnamed ones


@pytest.mark.parametrize("name", ["classifier"], indirect=True)
def test_names_of_classes_that_cannot_be_are_refused(name, folder):
    alter(folder, lambda arrays: arrays, id2label={"1": "ham", "2": "spam"})
    with pytest.raises(LoadError, match=r"config.json: id2label must name the classes 0, 1, …, got"):
        EncoderClassifier.from_pretrained(folder)


@pytest.mark.parametrize("name", ["masked"], indirect=True)
def test_a_head_that_is_not_tied_is_refused(name, folder):
    alter(folder, lambda arrays: arrays | {"cls.predictions.decoder.weight": np.ones((13, 8), np.float32)})
    with pytest.raises(LoadError, match=r"decoder.weight differs from bert.embeddings.word") as error:
        Encoder.from_pretrained(folder)
    assert str(error.value).startswith(f"{folder / 'model.safetensors'}: ")


def test_a_folder_without_sizes_is_refused(name, folder):
    (folder / "config.json").unlink()
    with pytest.raises(LoadError, match=r"config.json: is missing, which states the sizes of a BERT: copy it there"):
        READERS[name].from_pretrained(folder)


def test_each_reader_says_which_command_reads_the_other_models(tmp_path):
    """A folder of each kind of model, ours and Hugging Face's, given to every other reader."""
    gpt = GPT(GPTConfig(vocab_size=13, block_size=7, n_layer=1, n_head=2, n_embd=8), Generator(0))
    gpt.save_pretrained(tmp_path / "gpt")
    write_pretrained(tmp_path / "gpt2", gpt.config, gpt.state_dict(), "huggingface")
    sizes = EncoderConfig(vocab_size=13, block_size=7, n_layer=1, n_head=2, n_embd=8)
    base = Encoder(sizes)
    base.save_pretrained(tmp_path / "encoder")
    EncoderClassifier.from_encoder(base, ["a", "b"], Generator(0)).save_pretrained(tmp_path / "classes")
    wrong = [
        (
            GPT,
            tmp_path / "encoder",
            "holds 'tinygrad_llm.Encoder', and 'tinygrad_llm.GPT' is needed: `tinygrad-llm fill`",
        ),
        (GPT, tmp_path / "classes", "holds 'tinygrad_llm.EncoderClassifier', .*: `tinygrad-llm classify` reads it"),
        (GPT, STORED / "masked", "of BERT, .*`tinygrad-llm fill` and `classify` read it"),
        (Encoder, tmp_path / "gpt", "holds 'tinygrad_llm.GPT', .*: `tinygrad-llm generate` and `chat` read it"),
        (Encoder, tmp_path / "gpt2", "not a BERT, but .*: check the path"),
        (Encoder, tmp_path / "classes", "'tinygrad_llm.Encoder' is needed: `tinygrad-llm classify` reads it"),
        (Encoder, STORED / "classifier", "a BERT with classes: `tinygrad-llm classify` reads it"),
        (EncoderClassifier, tmp_path / "encoder", "is needed: `tinygrad-llm fill` reads it"),
        (EncoderClassifier, STORED / "masked", "a BERT without classes: `tinygrad-llm fill` reads it"),
    ]
    for reader, path, message in wrong:
        with pytest.raises(LoadError, match=message):
            reader.from_pretrained(path)
    GPTClassifier.from_gpt(gpt, ("a", "b"), Generator(0)).save_pretrained(tmp_path / "labels")
    kinds = {
        "gpt": "GPT",
        "gpt2": "GPT",
        "encoder": "Encoder",
        "classes": "EncoderClassifier",
        "labels": "GPTClassifier",
    }
    assert {name: model_at(tmp_path / name) for name in kinds} == kinds
    save_safetensors(tmp_path / "plain.safetensors", gpt.state_dict())  # without metadata
    assert model_at(tmp_path / "plain.safetensors") == "GPT"
    save_safetensors(tmp_path / "newer.safetensors", gpt.state_dict(), {"format": "tinygrad_llm.Newer"})
    with pytest.raises(
        LoadError, match=r"holds 'tinygrad_llm\.Newer', and 'tinygrad_llm\.GPT' is needed: check the path$"
    ):
        GPT.from_pretrained(tmp_path / "newer.safetensors")


@pytest.mark.parametrize("form", ["openai", "npz"])
def test_a_form_of_gpt2_is_refused(form, tmp_path):
    config, state, _ = read_pretrained(STORED / "masked", EncoderConfig)
    with pytest.raises(
        ValueError, match=f"the form {form} cannot hold the model encoder: choose safetensors or huggingface"
    ):
        write_pretrained(tmp_path / "new", config, state, form)
    rotary = Encoder(dataclasses.replace(config, positions="rotary"))
    with pytest.raises(
        ValueError, match=r"the form huggingface is BERT's, whose positions are absolute, and this model's"
    ):
        write_pretrained(tmp_path / "new", rotary.config, rotary.state_dict(), "huggingface")
    assert not (tmp_path / "new").exists()
    rotary.save_pretrained(tmp_path / "ours")
    same(Encoder.from_pretrained(tmp_path / "ours"), rotary)
