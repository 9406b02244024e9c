"""The names of GPT-2's weights in three styles, and its sizes in two."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.models import GPTConfig
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.weights.names import (
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

    unknown = ["model/h0/attn/c_attn/g", "model/h0/attn/c_attn/w/Adam", "model/hx/ln_1/g", "model/ln_f/w"]
    for_each([*unknown, "beta1_power", "transformer.wte.weight/"], check)


@pytest.mark.parametrize("shape", [(), (9,), (2, 3, 9), (1, 1, 3, 9)])
def test_a_linear_layer_of_another_rank_stays(shape):
    for style, name in [
        ("openai", "model/h0/attn/c_attn/w"),
        ("huggingface", "transformer.h.0.attn.c_attn.weight"),
    ]:
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
    assert recognize({"bert.embeddings.weight": np.zeros((2, 3))}) == "ours"


def test_sizes_come_back_from_both_statements():
    config = GPTConfig(vocab_size=7, block_size=4, n_layer=3, n_head=2, n_embd=6, tie_weights=False)
    sizes = {"vocab_size": 7, "block_size": 4, "n_layer": 3, "n_head": 2, "n_embd": 6}
    assert from_hparams(to_hparams(config)) == sizes
    assert from_huggingface(to_huggingface(config)) == sizes | {"tie_weights": False, "initializer_range": 0.02}


def test_published_hparams_are_those_of_gpt2():
    published = {"n_vocab": 50257, "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12}  # of OpenAI's 124M
    assert to_hparams(GPTConfig()) == published
    assert GPTConfig(**from_hparams(published)) == GPTConfig()
