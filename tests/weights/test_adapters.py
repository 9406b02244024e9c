"""Adapters in files: peft's names, and files that do not fit."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from gpt_models import SMALL, change, shaken, some_ids

from tinygrad_llm.autograd import no_grad
from tinygrad_llm.formats import load_safetensors, save_safetensors
from tinygrad_llm.models import GPT, GPTClassifier
from tinygrad_llm.nn import Linear, add_lora, lora_layers, merge_lora
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.weights import WEIGHTS, model_at
from tinygrad_llm.weights.adapters import (
    ADAPTER,
    ADAPTER_CONFIG,
    find_adapter,
    load_adapter,
    merge_adapter,
    save_adapter,
)

UNTIED = change(SMALL, tie_weights=False)


def logits(model):
    with no_grad():
        return model(some_ids(2, 5)).data


def trained(model, **options):
    add_lora(model, **{"rank": 2, "alpha": 6.0, **options}, rng=Generator(3))
    noise = np.random.default_rng(4)
    for p in model.parameters():
        if p.requires_grad:
            p.data = p.data + 0.3 * noise.standard_normal(p.shape)
    return model


@pytest.mark.parametrize(
    "options", [{}, {"joint": True}, {"embeddings": 3}, {"targets": ["c_fc", "c_attn"]}, {"alpha": 0.5}]
)
def test_saved_adapters_load_beside_the_same_base(tmp_path, options):
    model = trained(shaken(UNTIED), **options)
    folder = tmp_path / "made" / "with its parent"
    save_adapter(model, folder, "gpt2")
    again = shaken(UNTIED)
    load_adapter(again, folder)
    np.testing.assert_allclose(logits(again), logits(model), rtol=0, atol=1e-12)
    assert not np.allclose(logits(shaken(UNTIED)), logits(model))
    assert {path.name for path in folder.iterdir()} == {ADAPTER, ADAPTER_CONFIG}
    assert model_at(folder) == "GPT"
    assert find_adapter(folder) == ("gpt2", "", ())


def test_names_and_shapes_are_those_of_peft(tmp_path):
    save_adapter(trained(shaken(UNTIED), targets=["c_attn", "c_fc", "wte"]), tmp_path, "gpt2")
    arrays, metadata = load_safetensors(tmp_path / ADAPTER)
    names = {f"base_model.model.transformer.h.{i}.{layer}.lora_{x}.weight"
             for i in range(2) for layer in ("attn.c_attn", "mlp.c_fc") for x in "AB"}  # fmt: skip
    assert arrays.keys() == names | {f"base_model.model.transformer.wte.lora_embedding_{x}" for x in "AB"}
    C = SMALL.n_embd
    assert arrays["base_model.model.transformer.wte.lora_embedding_A"].shape == (2, SMALL.vocab_size)
    assert arrays["base_model.model.transformer.wte.lora_embedding_B"].shape == (C, 2)
    assert arrays["base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"].shape == (3 * 2, C)
    assert arrays["base_model.model.transformer.h.0.attn.c_attn.lora_B.weight"].shape == (3 * C, 3 * 2)
    assert metadata["format"] == "pt"
    layers = [f"transformer.h.{i}.{layer}" for i in range(2) for layer in ("attn.c_attn", "mlp.c_fc")]
    assert json.loads((tmp_path / ADAPTER_CONFIG).read_text()) == {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "gpt2",
        "r": 2,
        "lora_alpha": 6.0,
        "lora_dropout": 0.0,
        "target_modules": ["transformer.wte", *layers],
        "rank_pattern": dict.fromkeys(layers[::2], 6),
        "alpha_pattern": dict.fromkeys(layers[::2], 18.0),
        "modules_to_save": None,
        "fan_in_fan_out": True,
        "bias": "none",
        "inference_mode": True,
    }


def classifier(seed=4):
    return GPTClassifier.from_gpt(shaken(UNTIED), ("no", "yes"), Generator(seed))


@pytest.mark.parametrize("targets", [None, ["c_attn"]])
def test_a_new_head_is_saved_whole(tmp_path, targets):
    model = trained(classifier(), targets=targets)
    save_adapter(model, tmp_path, "runs/base", whole=("score",))
    again = classifier(seed=5)  # its head is another
    load_adapter(again, tmp_path)
    np.testing.assert_allclose(logits(again), logits(model), rtol=0, atol=1e-12)
    assert json.loads((tmp_path / ADAPTER_CONFIG).read_text())["modules_to_save"] == ["score"]


def test_a_new_head_alone_comes_back(tmp_path):
    model = trained(classifier(), targets=["score"])
    save_adapter(model, tmp_path, whole=("score",))
    config = json.loads((tmp_path / ADAPTER_CONFIG).read_text())
    assert (config["r"], config["lora_alpha"], config["target_modules"]) == (1, 1, [])
    again = classifier(seed=5)
    load_adapter(again, tmp_path)
    np.testing.assert_allclose(logits(again), logits(model), rtol=0, atol=1e-12)


def test_a_head_without_a_bias_is_saved_whole(tmp_path):
    model = trained(shaken(UNTIED), targets=None)
    assert "lm_head" in dict(lora_layers(model))
    save_adapter(model, tmp_path, whole=("lm_head",))
    again = shaken(UNTIED)
    load_adapter(again, tmp_path)
    np.testing.assert_allclose(logits(again), logits(model), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "labels", ['["no"]', '["no", "no"]', '["", "yes"]', '["no", 1]', '{"no": 1}', '"no"', "[", "0"]
)
def test_labels_of_a_classifier_are_different_texts(tmp_path, labels):
    model = trained(classifier())
    save_adapter(model, tmp_path, "base", whole=("score",), labels=("no", "yes"))
    arrays, metadata = load_safetensors(tmp_path / ADAPTER)
    save_safetensors(tmp_path / ADAPTER, arrays, {**metadata, "tinygrad_llm.labels": labels})
    with pytest.raises(LoadError, match="labels"):
        GPTClassifier.from_pretrained(tmp_path)


def test_a_model_that_an_adapter_names_is_read_with_the_options_of_the_call(tmp_path):
    shaken(UNTIED).save_pretrained(tmp_path / "base")
    arrays, metadata = load_safetensors(tmp_path / "base" / WEIGHTS)
    arrays["transformer.wpe.weight"][-1, 0] = np.inf
    save_safetensors(tmp_path / "base" / WEIGHTS, arrays, metadata)
    save_adapter(trained(shaken(UNTIED)), tmp_path / "adapter", str(tmp_path / "base"))
    model = GPT.from_pretrained(tmp_path / "adapter", allow_non_finite=True, fused=False)
    assert not model.fused
    assert GPT.from_pretrained(tmp_path / "adapter", allow_non_finite=True).fused
    with pytest.raises(LoadError, match=r"NaN or infinity in transformer\.wpe\.weight"):
        GPT.from_pretrained(tmp_path / "adapter")
    with pytest.raises(LoadError, match="n_head is 2, not the 1 asked for"):
        GPT.from_pretrained(tmp_path / "adapter", 1, allow_non_finite=True)


def test_a_folder_with_a_whole_model_is_read_as_that_and_not_as_an_old_adapter_beside_it(tmp_path):
    save_adapter(trained(shaken(UNTIED)), tmp_path, "gone")
    shaken(UNTIED).save_pretrained(tmp_path)
    assert find_adapter(tmp_path) is None
    np.testing.assert_array_equal(logits(GPT.from_pretrained(tmp_path)), logits(shaken(UNTIED)))


@pytest.mark.parametrize("base", [None, "", 3])
def test_an_adapter_names_its_base(tmp_path, base):
    save_adapter(trained(shaken(UNTIED)), tmp_path, "gpt2", "a hash", labels=("no", "yes"))
    assert find_adapter(tmp_path) == ("gpt2", "a hash", ("no", "yes"))
    assert model_at(tmp_path) == "GPTClassifier"
    changed_config(tmp_path, base_model_name_or_path=base)
    with pytest.raises(LoadError, match=f"base_model_name_or_path must name the base model, got {base!r}$"):
        find_adapter(tmp_path)


@pytest.mark.parametrize("bases", [["one"], ["two", "one"], ["two", "three", "two"]])
def test_adapters_whose_bases_lead_in_a_circle_are_refused(tmp_path, bases):
    for name, base in zip(("one", "two", "three"), bases, strict=False):
        save_adapter(trained(shaken(UNTIED)), tmp_path / name, str(tmp_path / "." / base))
    with pytest.raises(LoadError, match=r"one: its bases lead in a circle: mend base_model_name_or_path in "):
        GPT.from_pretrained(tmp_path / "one")


def test_a_merged_adapter_is_saved_as_an_unmerged_one(tmp_path):
    model = trained(classifier())
    save_adapter(model, tmp_path / "one", whole=("score",))
    for _, layer in lora_layers(model):
        layer.merge()
    save_adapter(model, tmp_path / "other", whole=("score",))
    assert (tmp_path / "one" / ADAPTER).read_bytes() == (tmp_path / "other" / ADAPTER).read_bytes()


def test_loaded_adapters_can_be_merged(tmp_path):
    model = trained(shaken(UNTIED))
    save_adapter(model, tmp_path)
    again = shaken(UNTIED)
    load_adapter(again, tmp_path)
    merge_lora(again)
    np.testing.assert_allclose(logits(again), logits(model), rtol=0, atol=1e-12)


def test_a_model_without_adapters_or_with_nan_is_not_saved(tmp_path):
    with pytest.raises(ValueError, match="no LoRA adapters to save"):
        save_adapter(shaken(SMALL), tmp_path / "new")
    model = trained(shaken(SMALL))
    next(lora_layers(model))[1].lora_A.weight.data[0, 0] = np.nan
    with pytest.raises(ValueError, match=r"NaN or infinity in base_model.model.transformer.h.0.attn.c_attn.lora_A"):
        save_adapter(model, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def changed_config(folder, **fields):
    path = folder / ADAPTER_CONFIG
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def changed_arrays(folder, change):
    arrays, metadata = load_safetensors(folder / ADAPTER)
    change(arrays)
    save_safetensors(folder / ADAPTER, arrays, metadata)


A0 = "base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"
MOVED = {A0.replace("0.attn", "9").replace("A.", x): A0.replace("A.", x) for x in ("A.", "B.")}
SHAPE = (3 * UNTIED.n_embd, UNTIED.n_embd)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / ADAPTER_CONFIG).unlink(), "no adapter here"),
        (lambda f: (f / ADAPTER_CONFIG).write_text("[1]"), "must be a JSON object"),
        (lambda f: (f / ADAPTER_CONFIG).write_text("{"), "not JSON: "),
        (lambda f: changed_config(f, peft_type="IA3"), "peft_type is 'IA3', and only LORA can be read"),
        (lambda f: changed_config(f, use_dora=True), "use_dora is True, which cannot be read"),
        (lambda f: changed_config(f, bias="all"), "bias is 'all', which cannot be read"),
        (lambda f: changed_config(f, lora_alpha="much"), "lora_alpha must be a number, got 'much'"),
        (lambda f: changed_config(f, lora_alpha=""), "lora_alpha must be a number, got ''$"),
        (lambda f: changed_config(f, alpha_pattern=[1]), r"alpha_pattern must be an object .*, got \[1\]"),
        (lambda f: changed_config(f, alpha_pattern={"c_fc": True}), "alpha_pattern must be an object with a number"),
        (lambda f: changed_config(f, use_rslora="no"), "use_rslora must be true or false, got 'no'"),
        (lambda f: changed_config(f, lora_alpha=-1), "alpha must be finite and above 0"),
        (lambda f: changed_arrays(f, lambda a: a.pop(A0)), "must have one matrix lora_A and one lora_B"),
        (lambda f: changed_arrays(f, lambda a: a.update({A0: a[A0][:1]})), "have unequal ranks"),
        (
            lambda f: changed_arrays(f, lambda a: a.update({A0: a[A0][:, :2]})),
            re.escape(f"'transformer.h.0.attn.c_attn' is for a layer {SHAPE[0], 2}, and the model's is {SHAPE}") + "$",
        ),
        (
            lambda f: changed_arrays(f, lambda a: a.update({x: a.pop(y) for x, y in MOVED.items()})),
            re.escape(f"'transformer.h.9.c_attn' is for a layer {SHAPE}, and the model's is missing") + "$",
        ),
        (lambda f: changed_arrays(f, lambda a: a.update({A0: a[A0][0]})), "must have one matrix"),
        (lambda f: changed_arrays(f, lambda a: a.update({"wte": np.ones(2)})), "'wte' is not of a LoRA adapter"),
        (lambda f: changed_arrays(f, lambda a: a.update({"base_model.model.x": np.ones(2)})), "'x' .* not a parameter"),
        (lambda f: changed_arrays(f, lambda a: a.update({A0: a[A0].astype(int)})), "not of a LoRA adapter"),
        (lambda f: changed_arrays(f, dict.clear), "holds no adapter"),
    ],
)
def test_adapters_that_do_not_fit_are_refused_and_change_nothing(tmp_path, damage, message):
    save_adapter(trained(shaken(UNTIED)), tmp_path)
    damage(tmp_path)
    model = shaken(UNTIED)
    before = logits(model)
    with pytest.raises(LoadError, match=f"^{re.escape(str(tmp_path))}.*: .*{message}"):
        load_adapter(model, tmp_path)
    assert np.array_equal(logits(model), before)
    assert not list(lora_layers(model))


@pytest.mark.parametrize(
    ("fields", "scaling"),
    [
        ({"lora_alpha": 6}, 6 / 4),
        ({}, 8 / 4),  # peft's default
        ({"lora_alpha": 6, "use_rslora": True}, 6 / 4**0.5),
        ({"lora_alpha": 6, "alpha_pattern": {"c_fc": 2}}, 2 / 4),
        ({"lora_alpha": 6, "alpha_pattern": {"h.0.mlp.c_fc": 2, "h.1.mlp.c_fc": 5}, "use_rslora": True}, 2 / 4**0.5),
        ({"lora_alpha": 6, "alpha_pattern": {"fc": 2, "c_proj": 3}}, 6 / 4),  # other layers
    ],
)
def test_an_adapter_is_scaled_by_the_alpha_of_its_config(tmp_path, fields, scaling):
    save_adapter(trained(shaken(UNTIED), rank=4, targets=["c_fc"]), tmp_path)
    path = tmp_path / ADAPTER_CONFIG
    written = json.loads(path.read_text())
    path.write_text(json.dumps({key: written[key] for key in written if not key.startswith(("lora_", "alpha"))}))
    changed_config(tmp_path, **fields)
    arrays, _ = load_safetensors(tmp_path / ADAPTER)
    A, B = (arrays[f"base_model.model.transformer.h.0.mlp.c_fc.lora_{x}.weight"] for x in "AB")
    model = shaken(UNTIED)
    before = model.transformer.h[0].mlp.c_fc.weight.data.copy()
    merge_adapter(model, tmp_path)
    change = model.transformer.h[0].mlp.c_fc.weight.data - before
    np.testing.assert_allclose(change, scaling * (B @ A), rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("default")  # those of the other libraries
def test_peft_reads_ours_and_we_read_peft_s(tmp_path):
    """Against transformers and peft, where they are installed."""
    torch, transformers, peft = (pytest.importorskip(name) for name in ("torch", "transformers", "peft"))
    from tinygrad_llm.weights import write_pretrained

    base = shaken(UNTIED, np.float32)
    write_pretrained(tmp_path / "base", base.config, base.state_dict(), "huggingface")
    ids = some_ids(2, 5)

    def theirs(folder):
        plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
        model = peft.PeftModel.from_pretrained(plain, folder).eval()
        with torch.no_grad():
            return model(torch.tensor(ids)).logits.numpy()

    ours = trained(base, embeddings=3)
    save_adapter(ours, tmp_path / "ours", str(tmp_path / "base"))
    np.testing.assert_allclose(theirs(tmp_path / "ours"), logits(ours), rtol=0, atol=1e-5)

    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    model = peft.get_peft_model(plain, peft.LoraConfig(r=3, lora_alpha=5, target_modules=["c_attn", "c_proj", "wte"]))
    for name, p in model.named_parameters():
        if "lora_B" in name or "lora_embedding_A" in name:
            torch.nn.init.normal_(p, std=0.3)
    model.save_pretrained(tmp_path / "theirs")
    again = shaken(UNTIED, np.float32)
    load_adapter(again, tmp_path / "theirs")
    np.testing.assert_allclose(logits(again), theirs(tmp_path / "theirs"), rtol=0, atol=1e-5)


def test_the_folder_may_be_given_as_text(tmp_path):
    save_adapter(trained(shaken(UNTIED)), str(tmp_path))
    model = shaken(UNTIED)
    load_adapter(model, str(tmp_path))
    assert isinstance(model.lm_head.base_layer, Linear)
    assert Path(tmp_path, ADAPTER).is_file()
