"""The kinds of positions of a GPT: plain beside fused, caches, texts longer than in training, files, refusals."""

import math
import re

import numpy as np
import pytest
from gpt_models import change, shaken, some_ids

from tinygrad_llm import GPT, Generator, Tensor, grad, no_grad
from tinygrad_llm.kernels.positions import KINDS, sinusoidal
from tinygrad_llm.nn import MultiHeadAttention
from tinygrad_llm.weights import write_pretrained

CONFIGS = {kind: change(n_embd=8, positions=kind) for kind in KINDS}
FREE = ("sinusoidal", "rotary")  # of any length


@pytest.fixture(scope="module", params=KINDS)
def model(request):
    return shaken(CONFIGS[request.param])


def test_plain_and_fused_models_agree_and_recompute_changes_nothing(model):
    ids, targets = some_ids(2, 8), some_ids(2, 8, seed=1)
    results = []
    for fused, recompute in ((True, False), (False, False), (True, True)):
        model.fused, model.recompute = fused, recompute
        loss = model.loss(ids, targets)
        results.append([loss.data, model(ids).data, *grad(loss, list(model.parameters()))])
    model.fused, model.recompute = True, False
    for first, plain, again in zip(*results, strict=True):
        np.testing.assert_allclose(plain, first, rtol=1e-12, atol=1e-13)
        np.testing.assert_array_equal(again, first)


def test_a_cache_gives_the_logits_of_the_whole_text(model):
    ids = some_ids(3, 8)
    whole = model(ids).data
    with model.evaluating(), no_grad():
        one, rows = model.new_cache(), [model.new_cache() for _ in range(3)]
        parts = [model(ids[:, part], one).data for part in (slice(0, 3), slice(3, 4), slice(4, 8))]
        np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-12, atol=1e-13)
        for length, row, cache in zip((1, 3, 6), ids, rows, strict=True):  # rows that have read different lengths
            model(row[None, :length], cache)
        last = model(np.stack([ids[0, 1:2], ids[1, 3:4], ids[2, 6:7]]), rows).data[:, 0]
    np.testing.assert_allclose(last, whole[[0, 1, 2], [1, 3, 6]], rtol=1e-12, atol=1e-13)


def test_order_matters_to_each_kind(model):
    ids = np.array([[1, 2, 3, 4]])
    other = model(ids[:, [1, 0, 2, 3]]).data[:, -1]
    assert np.abs(model(ids).data[:, -1] - other).max() > 1e-3


def test_config_counts_the_parameters_and_names_their_shapes(model):
    shapes = {name: p.shape for name, p in model.named_parameters()}
    assert dict(model.config.shapes()) == shapes
    assert model.config.num_parameters == sum(p.data.size for p in model.parameters())
    assert ("transformer.wpe.weight" in shapes) == (model.config.positions == "absolute")


def test_saved_models_come_back_with_their_positions(model, tmp_path):
    model.save_pretrained(tmp_path)
    again = GPT.from_pretrained(tmp_path)
    assert again.config == model.config
    np.testing.assert_array_equal(again(some_ids(1, 8)).data, model(some_ids(1, 8)).data)


@pytest.mark.parametrize("kind", FREE)
def test_a_model_reads_and_writes_more_than_it_was_made_for(kind, tmp_path):
    model = shaken(CONFIGS[kind])
    ids = some_ids(2, 20)
    with pytest.raises(ValueError, match="got 20 positions, more than block_size 8"):
        model(ids)
    short = model(ids[:, :8]).data
    model.set_block_size(20)
    np.testing.assert_allclose(model(ids).data[:, :8], short, rtol=1e-12)
    longest = [model.generate(ids[:, :3], 17, temperature=0.0, use_cache=use) for use in (True, False)]
    np.testing.assert_array_equal(*longest)
    expected = ids[:, :3]
    for _ in range(17):
        expected = np.concatenate([expected, model(expected).data[:, -1].argmax(-1)[:, None]], 1)
    np.testing.assert_array_equal(longest[0], expected)  # nothing of the beginning was forgotten
    model.save_pretrained(tmp_path)
    assert GPT.from_pretrained(tmp_path).block_size == 20


def test_a_model_with_absolute_positions_cannot_read_more():
    model = GPT(CONFIGS["absolute"])
    model.set_block_size(8)
    for length in (9, 4):
        with pytest.raises(ValueError, match=r"are absolute, with a learned vector for each of 8: to read \d at once"):
            model.set_block_size(length)
    with pytest.raises(ValueError, match="block_size must be a positive integer, got 0"):
        GPT(CONFIGS["rotary"]).set_block_size(0)


def test_attention_with_rotary_positions_sees_distances_alone():
    attention = MultiHeadAttention(8, 2, rng=Generator(0)).to(np.float64)
    x, at = Tensor(np.random.default_rng(0).standard_normal((2, 5, 8))), np.arange(5)
    moved = attention(x, turn=at + 1000).data
    np.testing.assert_allclose(moved, attention(x, turn=at).data, atol=1e-12)
    np.testing.assert_allclose(attention(x, turn=np.array([at, at + 7])).data, moved, atol=1e-12)
    assert np.abs(attention(x, turn=2 * at).data - moved).max() > 1e-4
    np.testing.assert_array_equal(attention(x, turn=0 * at).data, attention(x).data)


@pytest.mark.parametrize(("std", "scale"), [(0.02, math.sqrt(8)), (None, 1)])
def test_sinusoidal_positions_stand_next_to_scaled_tokens(std, scale):
    model = GPT(change(CONFIGS["sinusoidal"], initializer_range=std)).to(np.float64)
    model.transformer.h, model.transformer.ln_f = [], lambda x: x
    ids = some_ids(2, 5)
    expected = model.transformer.wte.weight.data[ids] * scale + sinusoidal(np.arange(5), 8, np.float64)
    np.testing.assert_allclose(model.transformer(ids).data, expected, rtol=1e-14)


def test_rotary_positions_leave_the_tokens_as_they_are():
    model = GPT(CONFIGS["rotary"]).to(np.float64)
    model.transformer.h, model.transformer.ln_f = [], lambda x: x
    ids = some_ids(2, 5)
    np.testing.assert_array_equal(model.transformer(ids).data, model.transformer.wte.weight.data[ids])


@pytest.mark.parametrize("form", ["huggingface", "openai", "npz"])
def test_gpt2s_forms_refuse_other_positions_and_nothing_is_written(form, tmp_path):
    model = GPT(CONFIGS["rotary"])
    message = (
        f"the form {form} is GPT-2's, whose positions are absolute, and this model's are rotary: choose safetensors"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        write_pretrained(tmp_path / "new", model.config, model.state_dict(), form)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"positions": "relative"}, "positions must be absolute, sinusoidal, rotary, got 'relative'"),
        ({"positions": None}, "positions must be absolute, sinusoidal, rotary, got None"),
        ({"positions": "sinusoidal", "n_embd": 3, "n_head": 1}, r"n_embd \(3\) must be even"),
        ({"positions": "rotary", "n_embd": 6, "n_head": 2}, r"n_embd / n_head \(3\) must be even"),
    ],
)
def test_wrong_positions_are_named(fields, message):
    with pytest.raises(ValueError, match=f"GPTConfig: {message}"):
        change(**fields)
