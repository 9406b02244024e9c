"""The translator: PyTorch's values and gradients, padding that changes nothing, and decoding one token at a time."""

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import kernels
from tinygrad_llm.autograd import Tensor, no_grad
from tinygrad_llm.gradcheck.model_cases import all_cases
from tinygrad_llm.gradcheck.mutants import mistakes
from tinygrad_llm.models import GPT, Translator, TranslatorConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.files import LoadError

TINY = TranslatorConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=8, dropout=0.0)
VARIANTS = {
    "post": TINY,
    "pre": dataclasses.replace(TINY, norm_first=True),
    "no cross": dataclasses.replace(TINY, cross_attention=False),
}
every_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
with np.load(Path(__file__).with_name("torch_translator.npz"), allow_pickle=False) as file:
    REFERENCE = dict(file)
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}


@functools.cache
def shaken(config, dtype=np.float64):
    """A model none of whose parameters is a constant, so that each of them matters."""
    model, noise = Translator(config, Generator(1)).to(dtype), np.random.default_rng(2)
    for p in model.parameters():
        p.data = (p.data + 0.3 * noise.standard_normal(p.shape)).astype(dtype)
    return model


def some_ids(batch, time, seed=0):
    return np.random.default_rng(seed).integers(0, TINY.vocab_size, (batch, time))


def test_initial_weights_are_those_of_the_docstring():
    """Xavier's: U(−b, b) with b² = 6 / (in + out) for each matrix; the embedding N(0, 1 / C)."""
    C = 64
    sizes = dataclasses.replace(TINY, vocab_size=500, n_embd=C, norm_first=True)
    for name, p in Translator(sizes, Generator(3)).named_parameters():
        matrices = np.split(p.data, 3) if "in_proj_weight" in name else [p.data]
        for w in matrices:
            if name == "embedding.weight":
                assert np.std(w) == pytest.approx(C**-0.5, rel=0.02)
            elif w.ndim == 2:
                bound = np.sqrt(6 / sum(w.shape))
                assert 0.99 * bound < np.max(np.abs(w)) <= bound, name
                assert np.std(w) == pytest.approx(bound / np.sqrt(3), rel=0.05), name
            else:
                assert np.all(w == (1 if "norm" in name and "weight" in name else 0)), name


# ---- PyTorch -----------------------------------------------------------------------------------------------------


def stored(variant, dtype):
    """The model with the stored weights, and its loss."""
    model = Translator(VARIANTS[variant]).to(dtype)
    start = f"{variant}/weights/"
    model.load_state_dict({name.removeprefix(start): a for name, a in REFERENCE.items() if name.startswith(start)})
    pair = [REFERENCE[name] for name in ("source", "target", "targets", "lengths")]
    return model, model.loss(*pair, label_smoothing=0.1)


@pytest.mark.parametrize("variant", ["post", "pre"])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_values_and_gradients_equal_those_of_torch(variant, dtype):
    model, loss = stored(variant, dtype)
    loss.backward()
    with no_grad():
        logits = model(REFERENCE["source"], REFERENCE["target"], REFERENCE["lengths"])
    found = {"loss": loss.data, "logits": logits.data} | {f"grad/{n}": p.grad for n, p in model.named_parameters()}
    start = f"{variant}/{dtype}/"
    assert {start + name for name in found} == {name for name in REFERENCE if name.startswith(start)}
    largest = max(np.linalg.norm(p.grad) for p in model.parameters())
    for name, array in found.items():
        expected = REFERENCE[start + name]
        assert array.shape == expected.shape
        assert array.dtype == expected.dtype == dtype
        # The bias of the keys has no gradient, and a gradient of rounding alone: so errors are relative to the largest.
        scale = largest if name.startswith("grad/") else np.linalg.norm(expected)
        assert np.linalg.norm(np.float64(array) - expected) < TOLERANCE[dtype] * scale, name


@pytest.mark.parametrize("flaw", ["heads", "eps", "mask", "smoothing"])
def test_a_slightly_different_translator_is_noticed(flaw):
    model, _ = stored("post", "float64")
    pair = [REFERENCE[name] for name in ("source", "target", "targets", "lengths")]
    for layer in [*model.encoder.layers, *model.decoder.layers]:
        if flaw == "heads":
            layer.self_attn.n_head = 1
        if flaw == "eps":
            layer.norm1.eps = 1e-4
    if flaw == "mask":
        pair[3] = None
    loss = model.loss(*pair, label_smoothing=0.11 if flaw == "smoothing" else 0.1)
    assert abs(loss.item() / REFERENCE["post/float64/loss"] - 1) > 1e-8


@pytest.mark.slow
def test_a_wrong_gradient_of_attention_is_caught_in_the_whole_translator(monkeypatch):
    (case,) = [case.by("directions") for case in all_cases() if case.name == "Translator loss, post-norm"]
    assert case.check()
    right = kernels.attention
    # The mask of padding is boolean, which has no gradient; and no weights are dropped.
    wrong = [m for m in mistakes("attention") if "mask" not in m.name and "drop" not in m.name]
    assert len(wrong) >= 4
    for mutant in wrong:
        monkeypatch.setattr(kernels, "attention", mutant.plant(right))
        assert not case.check(), mutant.name


# ---- sizes -------------------------------------------------------------------------------------------------------


@every_variant
def test_the_config_names_and_counts_the_parameters(config):
    model = Translator(config)
    assert [(name, p.shape) for name, p in model.named_parameters()] == list(config.shapes())
    assert config.num_parameters == model.num_parameters()


def test_the_base_model_has_the_papers_parameters():
    config = TranslatorConfig()
    sizes = dict(config.shapes())
    parts = {"embedding": 37_000 * 512, "encoder": 6 * 3_152_384, "decoder": 6 * 4_204_032}
    counts = {part: sum(np.prod(s) for name, s in sizes.items() if name.startswith(part)) for part in parts}
    assert counts == parts
    assert config.num_parameters == sum(parts.values()) == 63_082_496


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_layer": 0}, "n_layer must be a positive integer, got 0"),
        ({"n_embd": 9, "n_head": 3}, r"n_embd \(9\) must be even for sinusoidal positions"),
        ({"n_head": 3}, r"n_embd \(8\) must be a multiple of n_head \(3\)"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"norm_first": 1}, "norm_first must be true or false, got 1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=f"TranslatorConfig: {message}"):
        dataclasses.replace(TINY, **change)


def test_wrong_inputs_are_named():
    model = Translator(TINY)
    for arguments, message in [
        ((some_ids(1, 9), some_ids(1, 2)), "got a source of 9 tokens, more than block_size 8"),
        ((some_ids(1, 2), some_ids(1, 9)), "got a target of 9 tokens, more than block_size 8"),
        ((some_ids(1, 2), some_ids(2, 2)), "got 1 sources and 2 targets"),
        ((some_ids(2, 3), some_ids(2, 2), [4, 1]), "lengths must be 2 integers from 1 to 3"),
        ((some_ids(1, 2)[0], some_ids(1, 2)), r"source must be integers of shape \(B, T\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            model(*arguments)
    with pytest.raises(ValueError, match=r"got targets \(1, 3\), which must have the shape of target \(1, 2\)"):
        model.loss(some_ids(1, 2), some_ids(1, 2), some_ids(1, 3))
    with pytest.raises(ValueError, match="no cross-attention"):
        Translator(VARIANTS["no cross"]).attention_to_source(some_ids(1, 2), some_ids(1, 2))


# ---- laws --------------------------------------------------------------------------------------------------------


@given(
    st.sampled_from(list(VARIANTS)),
    st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6)), min_size=1, max_size=4),
    st.integers(0, 10),
)
def test_a_prediction_depends_neither_on_padding_nor_on_its_neighbors(variant, lengths, pad):
    model = shaken(VARIANTS[variant])
    sources = [some_ids(1, s, 1)[0] for s, _ in lengths]
    targets = [some_ids(1, t, 2)[0] for _, t in lengths]
    source, target = np.full((len(lengths), 7), pad), np.full((len(lengths), 7), pad)
    for i, (s, t) in enumerate(lengths):
        source[i, :s], target[i, :t] = sources[i], targets[i]
    with no_grad():
        together = model(source, target, [s for s, _ in lengths]).data
        for i, (_, t) in enumerate(lengths):
            alone = model(sources[i][None], targets[i][None]).data[0]
            np.testing.assert_allclose(together[i, :t], alone, rtol=0, atol=1e-12)


@every_variant
def test_a_prediction_depends_on_no_later_target_and_on_every_source_token(config):
    model, source, target = shaken(config), some_ids(1, 5), some_ids(1, 6, 1)
    with no_grad():
        before = model(source, target).data[0]
        for i in range(6):
            other = target.copy()
            other[0, i] = (other[0, i] + 1) % 11
            changed = np.abs(model(source, other).data[0] - before).max(axis=1) > 1e-9
            assert changed.tolist() == [t >= i for t in range(6)]
        for i in range(5):
            other = source.copy()
            other[0, i] = (other[0, i] + 1) % 11
            changed = np.abs(model(other, target).data[0] - before).max(axis=1) > 1e-9
            assert changed.tolist() == [config.cross_attention] * 6


@every_variant
def test_cached_decoding_equals_uncached(config):
    model, source, target = shaken(config), some_ids(3, 6), some_ids(3, 8, 1)
    lengths = np.array([6, 3, 1])
    with model.evaluating():
        full = model(source, target, lengths).data
        reading = model.begin(source, lengths)
        for t in range(4):
            np.testing.assert_allclose(model.next_logits(target[:, t], reading), full[:, t], rtol=0, atol=1e-12)
        rows = np.array([2, 0, 2])  # one row is left out, and another comes twice
        reading.select(rows)
        target = target[rows]
        full = model(source[rows], target, lengths[rows]).data
        for t in range(4, 8):
            np.testing.assert_allclose(model.next_logits(target[:, t], reading), full[:, t], rtol=0, atol=1e-12)


def test_the_weights_of_cross_attention_give_its_output():
    model, source, target = shaken(TINY), some_ids(1, 5), some_ids(1, 4, 1)
    found = model.attention_to_source(source, target)
    assert found.shape == (2, 2, 4, 5)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-12)
    with model.evaluating():
        x = model._embedded(target)
        memory, _ = model._encoded(source, None)
        layer = model.decoder.layers[0]
        attention = layer.multihead_attn
        x = layer.norm1(x + layer.self_attn(x))
        _, v = attention.keys_and_values(memory)
        heads = found[0] @ v.data[0]  # (H, T, D)
        mixed = attention.out_proj(Tensor(heads.transpose(1, 0, 2).reshape(1, 4, 8)))
        np.testing.assert_allclose(mixed.data, attention(x, memory).data, rtol=0, atol=1e-12)


def test_a_saved_translator_is_read_again_and_no_other_model_reads_it(tmp_path):
    model = shaken(TINY, np.float32)
    model.save_pretrained(tmp_path)
    again = Translator.from_pretrained(tmp_path)
    assert again.config == TINY
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(again.state_dict()[name], array)
    with pytest.raises(LoadError, match=r"holds 'tinygrad_llm.Translator'.*`tinygrad-llm translate` reads it"):
        GPT.from_pretrained(tmp_path)
