"""The names of GPT-2's weights in three styles, and its sizes in two."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.models import GPTConfig
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.weights.names import (
    WRITERS,
    from_hparams,
    from_huggingface,
    from_ours,
    recognize,
    to_hparams,
    to_huggingface,
    to_ours,
)

configs = st.builds(
    GPTConfig,
    vocab_size=st.integers(1, 9),
    block_size=st.integers(1, 9),
    n_layer=st.integers(1, 12),
    n_head=st.just(1),
    n_embd=st.integers(1, 5),
    tie_weights=st.booleans(),
)
SMALL = GPTConfig(vocab_size=5, block_size=4, n_layer=2, n_head=1, n_embd=3)


def make(config=SMALL):
    """A state in which every number is another one."""
    state, start = {}, 0
    for name, shape in config.shapes():
        state[name] = np.arange(start, start + np.prod(shape), dtype=np.float32).reshape(shape)
        start += state[name].size
    return state


def assert_same(one, other):
    assert sorted(one) == sorted(other)
    for name, array in one.items():
        np.testing.assert_array_equal(array, other[name], err_msg=name, strict=True)


@given(configs, st.sampled_from(["ours", "huggingface", "openai"]))
def test_names_and_layout_come_back(config, style):
    state = make(config)
    if style == "openai" and not config.tie_weights:
        with pytest.raises(ValueError, match=r"lm_head\.weight"):
            from_ours(state, style)
        return
    theirs = from_ours(state, style)
    assert recognize(theirs) == style
    assert_same(to_ours(theirs, style), state)
    assert all(any(np.shares_memory(array, own) for own in state.values()) for array in theirs.values())


def test_openais_names_and_shapes_are_the_published_ones():
    C, shapes = 3, {name: array.shape for name, array in from_ours(make(), "openai").items()}
    block = {
        "attn/c_attn/b": (3 * C,), "attn/c_attn/w": (1, C, 3 * C), "attn/c_proj/b": (C,), "attn/c_proj/w": (1, C, C),
        "ln_1/b": (C,), "ln_1/g": (C,), "ln_2/b": (C,), "ln_2/g": (C,),
        "mlp/c_fc/b": (4 * C,), "mlp/c_fc/w": (1, C, 4 * C), "mlp/c_proj/b": (C,), "mlp/c_proj/w": (1, 4 * C, C),
    }  # fmt: skip
    expected = {f"model/h{layer}/{name}": shape for layer in range(2) for name, shape in block.items()}
    expected |= {"model/wte": (5, C), "model/wpe": (4, C), "model/ln_f/g": (C,), "model/ln_f/b": (C,)}
    assert shapes == expected


def test_every_linear_layer_is_transposed_and_nothing_else():
    state = make()
    for style in ("huggingface", "openai"):
        theirs = from_ours(state, style)
        for (name, own), their in zip(state.items(), theirs.values(), strict=True):
            linear = ".c_" in name and name.endswith("weight")
            np.testing.assert_array_equal(np.squeeze(their), np.squeeze(own.T if linear else own), err_msg=name)


def test_prefix_and_masks_are_optional():
    state = make()
    theirs = from_ours(state, "huggingface")
    masks = {"h.0.attn.bias": np.tri(4).reshape(1, 1, 4, 4), "h.1.attn.masked_bias": np.array(-1e4)}
    bare = {name.removeprefix("transformer."): array for name, array in theirs.items()}
    for arrays in (theirs, bare, bare | masks, theirs | {f"transformer.{name}": mask for name, mask in masks.items()}):
        assert recognize(arrays) == "huggingface"
        assert_same(to_ours(arrays, "huggingface"), state)


def test_a_name_without_the_prefix_among_others_with_it_stays():
    theirs = from_ours(make(), "huggingface") | {"ln_f.weight": np.zeros(3)}
    assert to_ours(theirs, "huggingface").keys() - make().keys() == {"ln_f.weight"}


def test_two_names_for_one_tensor_are_refused():
    theirs = from_ours(make(), "openai") | {"transformer.wte.weight": np.zeros((5, 3))}
    with pytest.raises(LoadError, match=r"'model/wte' and 'transformer\.wte\.weight'"):
        to_ours(theirs, "openai")


def test_a_stated_layout_that_the_tensors_contradict_is_refused():
    assert recognize(from_ours(make(), "huggingface"), "config.json") == "huggingface"
    assert recognize({"x": np.zeros(1)}, "config.json") == "huggingface"  # nothing is seen
    with pytest.raises(LoadError, match=r"config\.json says .* \(in, out\).* \(out, in\)"):
        recognize(make(), "config.json")


@pytest.mark.parametrize("style", ["ours", "huggingface"])
@pytest.mark.parametrize("layer", ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"])
def test_one_transposed_tensor_is_outvoted(style, layer):
    theirs = from_ours(make(), style)
    name = f"transformer.h.1.{layer}.weight"
    theirs[name] = theirs[name].T
    assert recognize(theirs) == style
    np.testing.assert_array_equal(to_ours(theirs, style)[name], make()[name].T)


def test_names_that_gpt2_does_not_have_stay(for_each):
    def check(name):
        arrays = {name: np.zeros(1), "model/wte": np.zeros(1)}
        assert list(to_ours(arrays, "openai")) == [name, "transformer.wte.weight"]

    unknown = ["model/h0/attn/c_attn/g", "model/h0/attn/c_attn/w/Adam_2", "model/hx/ln_1/g", "model/ln_f/w"]
    for_each([*unknown, "beta3_power", "transformer.wte.weight/"], check)


@pytest.mark.parametrize("shape", [(), (9,), (2, 3, 9), (1, 1, 3, 9)])
def test_a_linear_layer_of_another_rank_stays(shape):
    for style, name in [("openai", "model/h0/attn/c_attn/w"), ("huggingface", "transformer.h.0.attn.c_attn.weight")]:
        (array,) = to_ours({name: np.zeros(shape)}, style).values()
        assert array.shape == shape
        assert recognize({name: array}) in ("openai", "ours")


@pytest.mark.parametrize("style", ["huggingface", "openai"])
def test_queries_keys_and_values_without_bias_get_one_of_zeros(style):
    state = {name: array for name, array in make().items() if not name.endswith("c_attn.bias")}
    back = to_ours(from_ours(state, style), style)
    assert back.keys() == make().keys()
    for name in back.keys() - state.keys():
        np.testing.assert_array_equal(back[name], np.zeros(9, np.float32), strict=True)


def test_unknown_names_count_as_ours():
    assert recognize({}) == "ours"
    assert recognize({"x.weight": np.zeros((2, 3))}) == "ours"


def test_sizes_come_back_from_both_statements():
    config = GPTConfig(vocab_size=7, block_size=4, n_layer=3, n_head=2, n_embd=6, tie_weights=False)
    sizes = {"vocab_size": 7, "block_size": 4, "n_layer": 3, "n_head": 2, "n_embd": 6}
    assert from_hparams(to_hparams(config)) == sizes
    assert from_huggingface(to_huggingface(config)) == sizes | {"tie_weights": False, "initializer_range": 0.02}


def test_dropout_is_written_for_all_three_places():
    written = to_huggingface(GPTConfig(vocab_size=7, block_size=4, n_layer=1, n_head=1, n_embd=6, dropout=0.25))
    places = {name: value for name, value in written.items() if name.endswith("drop")}
    assert places == dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.25)


def test_the_end_of_a_text_is_the_one_that_was_given_or_else_gpt2s():
    small = GPTConfig(vocab_size=7, block_size=4, n_layer=1, n_head=1, n_embd=6)
    cases = [(GPTConfig(), None, 50256), (GPTConfig(), 7, 7), (small, None, None), (small, 3, 3)]
    for config, end_of_text, expected in cases:
        written = to_huggingface(config, end_of_text=end_of_text)
        assert (written["eos_token_id"], written["bos_token_id"]) == (expected, expected)


def test_published_hparams_are_those_of_gpt2():
    published = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}  # of OpenAI's 124M
    assert to_hparams(GPTConfig()) == published
    assert GPTConfig(**from_hparams(published)) == GPTConfig()


# ---- the files of others -------------------------------------------------------------------------------------------


def by_the_book(state):
    """The book's names (its chapters 3 and 4), by string surgery apart from the table under test."""
    found = {}
    for name, array in state.items():
        block = re.fullmatch(r"transformer\.h\.(\d+)\.(\w+)\.(?:(\w+)\.)?(weight|bias)", name)
        if not block:
            names = {"wte": "tok_emb", "wpe": "pos_emb", "lm_head": "out_head"}
            *_, part, kind = name.split(".")
            scale = {"weight": "scale", "bias": "shift"}[kind]
            found[f"{names[part]}.{kind}" if part in names else f"final_norm.{scale}"] = array
            continue
        layer, part, linear, kind = block.groups()
        place = f"trf_blocks.{layer}"
        if linear == "c_attn":
            for letter, third in zip(("query", "key", "value"), np.split(array, 3), strict=True):
                found[f"{place}.att.W_{letter}.{kind}"] = third
        elif part.startswith("ln"):
            found[f"{place}.norm{part[-1]}.{ {'weight': 'scale', 'bias': 'shift'}[kind] }"] = array
        else:
            names = {
                ("attn", "c_proj"): "att.out_proj",
                ("mlp", "c_fc"): "ff.layers.0",
                ("mlp", "c_proj"): "ff.layers.2",
            }
            found[f"{place}.{names[part, linear]}.{kind}"] = array
    return found | {f"trf_blocks.{layer}.att.mask": np.triu(np.ones((4, 4)), 1) for layer in range(2)}


def prefixed(prefix):
    return lambda state: {prefix + name: array for name, array in state.items()}


def with_adam(state):
    theirs = from_ours(state, "openai")
    slots = {f"{name}/{slot}": array for name, array in theirs.items() for slot in ("Adam", "Adam_1")}
    return theirs | slots | dict.fromkeys(["beta1_power", "beta2_power", "global_step"], np.zeros(()))


def tied(state):
    """What `safetensors.torch.save_model` keeps of a tied pair."""
    return {"lm_head.weight" if name == "transformer.wte.weight" else name: array for name, array in state.items()}


UNTIED = make(dataclasses.replace(SMALL, tie_weights=False))
HUGS = from_ours(make(), "huggingface")
# What others write, from what it is made, and the style.
READ = {
    "this package": (make(), dict, "ours"),
    "the book": (UNTIED, by_the_book, "book"),
    "the book without qkv_bias": (
        {name: array for name, array in UNTIED.items() if not name.endswith("c_attn.bias")}, by_the_book, "book"
    ),
    "OpenAI with Adam's slots": (make(), with_adam, "openai"),
    "save_model of nanoGPT": (make(), tied, "ours"),
    "save_model of GPT2LMHeadModel": (make(), lambda state: tied(from_ours(state, "huggingface")), "huggingface"),
    "nanoGPT with masks": (make(), lambda s: s | {"transformer.h.0.attn.bias": np.ones((1, 1, 4, 4))}, "ours"),
    "torch.compile": (make(), prefixed("_orig_mod."), "ours"),
    "torch.compile of each block": (make(), lambda s: {n.replace(".h.0.", ".h.0._orig_mod."): s[n] for n in s}, "ours"),
    "DDP": (make(), prefixed("module."), "ours"),
    "DDP of a compiled model": (make(), prefixed("module._orig_mod."), "ours"),
    "a compiled DDP": (make(), prefixed("_orig_mod.module."), "ours"),
    "DDP of GPT2LMHeadModel": (make(), lambda state: prefixed("module.")(HUGS), "huggingface"),
    "FSDP": (make(), prefixed("_fsdp_wrapped_module."), "ours"),
    "FSDP with recomputed and compiled blocks": (
        make(),
        lambda s: prefixed("_fsdp_wrapped_module.")(
            {n.replace(".h.0.", ".h.0._checkpoint_wrapped_module._orig_mod."): s[n] for n in s}
        ),
        "ours",
    ),
    "Lightning": (make(), prefixed("model."), "ours"),
}  # fmt: skip


def test_files_of_others_are_read(for_each):
    def check(who):
        state, theirs, style = READ[who]
        arrays = theirs(state)
        assert recognize(arrays) == style
        assert_same(to_ours(arrays, style), state)

    for_each(READ, check)


def test_a_model_without_any_bias_gets_zeros_and_one_that_lacks_one_bias_does_not():
    """nanoGPT's bias=False. A bias of zeros changes nothing."""
    full, none = make(), {name: array for name, array in make().items() if not name.endswith(".bias")}
    state = to_ours(none, "ours")
    assert full.keys() - state.keys() == {f"transformer.h.{layer}.attn.c_attn.bias" for layer in range(2)}
    assert all(not array.any() for name, array in state.items() if name.endswith(".bias"))
    assert all(array.shape == full[name].shape and array.dtype == np.float32 for name, array in state.items())
    del full["transformer.h.0.ln_2.bias"]
    assert "transformer.h.0.ln_2.bias" not in to_ours(full, "ours")


@pytest.mark.parametrize(
    "lost", ["W_query.weight", "W_key.weight", "W_value.bias", "norm1.shift", "ff.layers.2.weight"]
)
def test_an_incomplete_file_of_the_book_lacks_a_parameter(lost):
    theirs = by_the_book(UNTIED)
    del theirs[f"trf_blocks.1.att.{lost}" if lost.startswith("W") else f"trf_blocks.1.{lost}"]
    assert not UNTIED.keys() <= to_ours(theirs, recognize(theirs)).keys()


# A name of each kind of file that is not read.
NOT_READ = {
    "an adapter of PEFT": "base_model.model.transformer.h.0.attn.c_attn.lora_A.default.weight",
    "a quantized model": "transformer.h.0.attn.c_attn.SCB",
    "GPT2ForSequenceClassification": "score.weight",
    "GPT2DoubleHeadsModel": "multiple_choice_head.summary.weight",
    "a GPT-2 with cross-attention": "transformer.h.0.crossattention.c_attn.weight",
    "minGPT of 2020": "blocks.0.attn.key.weight",
    "Megatron-LM": "language_model.embedding.word_embeddings.weight",
    "Llama or a model like it": "model.layers.0.self_attn.q_proj.weight",
    "BERT": "bert.embeddings.word_embeddings.weight",
}


def test_the_table_of_writers_says_which_files_are_read(for_each):
    def check(writer):
        if writer.style is None:
            arrays = {**HUGS, NOT_READ[writer.who]: np.zeros((2, 2))}
            with pytest.raises(
                LoadError, match=rf"^of {re.escape(writer.who)}, as '.*' shows: {re.escape(writer.refused)}"
            ):
                recognize(arrays)
            return
        made = [theirs(state) for state, theirs, style in READ.values() if writer.style in ("", style)]
        assert any(re.match(writer.sign, name) for arrays in made for name in arrays)

    for_each(WRITERS, check)
    assert len({writer.who for writer in WRITERS}) == len(WRITERS)
    assert all(bool(writer.refused) is (writer.style is None) for writer in WRITERS)


def test_every_field_of_config_json_is_that_of_transformers():
    sizes = {"vocab_size": 7, "block_size": 4, "n_layer": 5, "n_head": 3, "n_embd": 6}
    config = GPTConfig(**sizes, dropout=0.25, tie_weights=False, initializer_range=0.5)
    dropout = dict.fromkeys(("embd_pdrop", "attn_pdrop", "resid_pdrop"), 0.25)
    assert to_huggingface(config, "float16", 6) == dropout | {
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": True,
        "scale_attn_by_inverse_layer_idx": False,
        "add_cross_attention": False,
        "vocab_size": 7,
        "n_positions": 4,
        "n_ctx": 4,
        "n_layer": 5,
        "n_head": 3,
        "n_embd": 6,
        "n_inner": None,
        "tie_word_embeddings": False,
        "initializer_range": 0.5,
        "bos_token_id": 6,
        "eos_token_id": 6,
        "torch_dtype": "float16",
    }
    fields = sizes | {"tie_weights": False, "initializer_range": 0.5}
    assert from_huggingface(to_huggingface(config)) == fields


def test_variants_of_config_json_are_read_or_refused_by_name(for_each):
    published = to_huggingface(SMALL)

    def check(case):
        changes, message = case
        if message is None:
            assert from_huggingface(published | changes) == from_huggingface(published)
            return
        with pytest.raises(ValueError, match=f"not a model that GPT can represent: {message}.*use transformers"):
            from_huggingface(published | changes)

    same = [{"activation_function": name} for name in ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate")]
    same += [{"n_inner": 12}, {"n_inner": None}, {"reorder_and_upcast_attn": True}, {"dtype": "float16"}]
    others = [
        ({"activation_function": "gelu"}, "activation_function 'gelu'"),
        ({"activation_function": "relu"}, "activation_function 'relu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon 1e-06"),
        ({"n_inner": 48}, "n_inner 48"),
        ({"scale_attn_weights": False}, "scale_attn_weights False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ({"add_cross_attention": True}, "add_cross_attention True"),
        ({"model_type": "llama"}, "model_type 'llama'"),
    ]
    for_each([*((changes, None) for changes in same), *others], check)
