"""The encoder: equal to transformers' BERT, from both sides, and blind to padding."""

import dataclasses
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm import functional as F
from tinygrad_llm import nn
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels.positions import sinusoidal
from tinygrad_llm.models import Encoder, EncoderClassifier, EncoderClassifierConfig, EncoderConfig, encoder
from tinygrad_llm.random import Generator

SCRIPT = Path(__file__).parents[2] / "scripts" / "make_bert_references.py"
STORED = Path(__file__).with_name("bert")  # `scripts/make_bert_references.py` wrote it, and describes it
TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
SIZES = {"vocab_size": 13, "block_size": 7, "n_layer": 2, "n_head": 2, "n_embd": 8, "dropout": 0.0}


@pytest.fixture(scope="module")
def reference():
    with np.load(STORED / "references.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.fixture(scope="module")
def model():
    """The stored BERT in float64."""
    return Encoder.from_pretrained(STORED / "masked").to("float64")


def inputs(reference):
    return reference["ids"], reference["lengths"], reference["segments"]


def real(reference):
    """(B, T): True where there is a token and no padding."""
    return np.arange(6) < reference["lengths"][:, None]


@pytest.mark.parametrize("kind", [Encoder, EncoderClassifier])
def test_initial_weights_have_the_documented_deviation(kind):
    sizes = {**SIZES, "vocab_size": 500, "n_embd": 64, "initializer_range": 0.3}
    config = EncoderConfig(**sizes) if kind is Encoder else EncoderClassifierConfig(**sizes, labels=("a", "b"))
    for name, p in kind(config, Generator(3)).named_parameters():
        if p.data.ndim == 2:  # one of few elements may be off by a fourth
            assert np.std(p.data) == pytest.approx(0.3, rel=max(0.05, 3 / np.sqrt(2 * p.data.size))), name
        else:
            assert np.all(p.data == (1 if "LayerNorm.weight" in name else 0)), name


# ---- transformers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("options", [{}, {"fused": False}, {"recompute": True}], ids=str)
def test_logits_loss_and_gradients_are_those_of_transformers(dtype, options, reference):
    model = Encoder.from_pretrained(STORED / "masked", **options).to(dtype)
    ids, lengths, segments = inputs(reference)
    loss = model.loss(ids, reference["targets"], lengths, segments)
    loss.backward()
    there = real(reference)
    found = {"logits": model(ids, lengths, segments).data[there], "loss": loss.data}
    found |= {f"grad/{name}": p.grad for name, p in model.named_parameters()}
    stored = {name: array for name, array in reference.items() if name.startswith(f"masked/{dtype}/")}
    assert len(found) == len(stored)
    for name, array in found.items():
        wanted = stored[f"masked/{dtype}/{name}"]
        wanted = wanted[there] if name == "logits" else wanted
        assert array.dtype == wanted.dtype == dtype
        np.testing.assert_allclose(array, wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], err_msg=name)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_scores_of_classes_are_those_of_transformers(dtype, reference):
    model = EncoderClassifier.from_pretrained(STORED / "classifier").to(dtype)
    assert model.config.labels == ("ham", "spam", "other")
    scores = model(*inputs(reference)).data
    np.testing.assert_allclose(scores, reference[f"classifier/{dtype}/logits"], rtol=0, atol=TOLERANCE[dtype])


def causal(monkeypatch, model):
    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, *_, **__: attend(q, k, v, is_causal=True))


def no_padding_mask(monkeypatch, model):
    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, *_, **__: attend(q, k, v))


def tanh_gelu(monkeypatch, model):
    gelu = F.gelu
    monkeypatch.setattr(F, "gelu", lambda x, approximate: gelu(x))


def pre_norm(monkeypatch, model):
    def forward(self, x, residual):
        return self.dense(self.LayerNorm(x) if x.shape == residual.shape else x) + residual

    monkeypatch.setattr(encoder.AddAndNorm, "forward", forward)


def no_residual(monkeypatch, model):
    monkeypatch.setattr(encoder.AddAndNorm, "forward", lambda self, x, residual: self.LayerNorm(self.dense(x)))


def gpts_eps(monkeypatch, model):
    forward = nn.LayerNorm.forward
    monkeypatch.setattr(nn.LayerNorm, "forward", lambda self, x: (setattr(self, "eps", 1e-5), forward(self, x))[1])


def no_bias_of_words(monkeypatch, model):
    linear = F.linear
    no_bias = lambda x, w, b: linear(x, w, None if len(w) == SIZES["vocab_size"] else b)  # noqa: E731
    monkeypatch.setattr(F, "linear", no_bias)


def one_segment(monkeypatch, model):
    forward = encoder.EncoderEmbeddings.forward
    monkeypatch.setattr(encoder.EncoderEmbeddings, "forward", lambda self, ids, segments: forward(self, ids))


def unscaled(monkeypatch, model):
    attend = F.scaled_dot_product_attention
    monkeypatch.setattr(
        F, "scaled_dot_product_attention", lambda q, *rest, **options: attend(q * math.sqrt(4), *rest, **options)
    )


MUTANTS = [causal, no_padding_mask, tanh_gelu, pre_norm, no_residual, gpts_eps, no_bias_of_words, one_segment, unscaled]


@pytest.mark.parametrize("mutate", MUTANTS)
def test_a_wrong_model_is_told_from_transformers(mutate, monkeypatch, reference):
    model = Encoder.from_pretrained(STORED / "masked").to("float64")
    mutate(monkeypatch, model)
    error = np.abs(model(*inputs(reference)).data - reference["masked/float64/logits"])[real(reference)].max()
    assert error > 100 * TOLERANCE["float64"]


@pytest.mark.slow
def test_the_script_writes_the_stored_models_and_numbers_again(tmp_path, reference):
    pytest.importorskip("transformers")
    subprocess.run([sys.executable, SCRIPT, "--out", tmp_path], check=True, timeout=300)
    with np.load(tmp_path / "references.npz", allow_pickle=False) as file:
        again = dict(file)
    assert again.keys() == reference.keys()
    for name in again.keys() - {"made_by"}:
        np.testing.assert_allclose(again[name], reference[name], rtol=0, atol=1e-5, err_msg=name)
    for name in ("masked", "classifier"):
        assert (tmp_path / name / "model.safetensors").read_bytes() == (
            STORED / name / "model.safetensors"
        ).read_bytes()


# ---- laws --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_a_prediction_never_depends_on_padding_or_on_the_other_rows(seed, model):
    rng = np.random.default_rng(seed)
    ids, lengths = rng.integers(0, 13, (5, 7)), rng.integers(1, 8, 5)
    classifier = EncoderClassifier.from_pretrained(STORED / "classifier").to("float64")
    together, scores = model(ids, lengths).data, classifier(ids, lengths).data
    other = np.where(np.arange(7) < lengths[:, None], ids, rng.integers(0, 13, ids.shape))
    targets = np.where(np.arange(7) < lengths[:, None], ids, -100)
    losses = []
    for i, n in enumerate(lengths):
        alone = model(ids[i : i + 1, :n]).data[0]
        np.testing.assert_allclose(together[i, :n], alone, rtol=0, atol=1e-12)
        np.testing.assert_allclose(scores[i], classifier(ids[i : i + 1, :n]).data[0], rtol=0, atol=1e-12)
        losses.append(n * model.loss(ids[i : i + 1, :n], ids[i : i + 1, :n]).item())
    np.testing.assert_array_equal(
        np.concatenate([row[:n] for row, n in zip(model(other, lengths).data, lengths, strict=True)]),
        np.concatenate([row[:n] for row, n in zip(together, lengths, strict=True)]),
    )
    assert model.loss(ids, targets, lengths).item() == pytest.approx(sum(losses) / lengths.sum(), abs=1e-12)


@pytest.mark.parametrize("positions", ["sinusoidal", "rotary"])
def test_positions_without_a_table_keep_the_laws(positions):
    config = EncoderConfig(**SIZES, positions=positions, initializer_range=0.3)
    model = Encoder(config, Generator(1)).to("float64")
    step_by_step = Encoder(config, Generator(1), fused=False).to("float64")
    assert dict(config.shapes()) == {name: p.shape for name, p in model.named_parameters()}
    assert config.num_parameters == model.num_parameters() == EncoderConfig(**SIZES).num_parameters - 7 * 8
    ids, lengths = np.array([[5, 3, 9, 4], [6, 6, 1, 2]]), np.array([4, 3])
    together = model(ids, lengths).data
    np.testing.assert_allclose(step_by_step(ids, lengths).data, together, rtol=0, atol=1e-12)
    np.testing.assert_allclose(together[1, :3], model(ids[1:, :3]).data[0], rtol=0, atol=1e-12)
    swapped = model(ids[:1, ::-1]).data[0, ::-1]
    assert np.abs(swapped - together[0]).max() > 1e-3  # order matters
    embedded = model.bert.embeddings(np.array([[5, 5, 5]])).data[0]
    parts = model.bert.embeddings
    x = parts.word_embeddings.weight.data[[5, 5, 5]]
    if positions == "sinusoidal":
        x = x * math.sqrt(8) + sinusoidal(np.arange(3), 8, np.float64)
    x = x + parts.token_type_embeddings.weight.data[0]
    np.testing.assert_allclose(embedded, parts.LayerNorm(Tensor(x)).data, rtol=0, atol=1e-12)
    moves = np.abs(embedded[0] - embedded[2]).max() > 1e-3
    assert moves == (positions == "sinusoidal")  # rotary positions act inside attention alone


def test_label_smoothing_reaches_the_loss_with_and_without_a_count():
    model = Encoder(EncoderConfig(**SIZES), Generator(1)).to("float64").eval()
    ids, targets = np.array([[5, 3, 9, 4]]), np.array([[5, -100, 2, 4]])
    plain, smooth = (model.loss(ids, targets, label_smoothing=share).item() for share in (0.0, 0.2))
    logits = model(ids).data[0]
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    chosen = log_probs[[0, 2, 3], [5, 2, 4]]
    assert plain == pytest.approx(-chosen.mean(), abs=1e-12)
    assert smooth == pytest.approx(-(0.8 * chosen + 0.2 * log_probs[[0, 2, 3]].mean(axis=1)).mean(), abs=1e-12)
    for share, loss in ((0.0, plain), (0.2, smooth)):
        assert model.loss(ids, targets, label_smoothing=share, count=6).item() == pytest.approx(loss / 2, abs=1e-12)


def test_every_prediction_depends_on_every_position(model):
    ids = np.array([[2, 5, 4, 7, 8, 3]])
    before = model(ids).data[0]
    for position in range(6):
        changed = ids.copy()
        changed[0, position] = 9
        assert (np.abs(model(changed).data[0] - before).max(axis=1) > 1e-6).all()


def test_dropout_is_the_same_in_one_operation_and_step_by_step():
    config = EncoderConfig(**{**SIZES, "dropout": 0.3})
    ids, lengths = np.array([[1, 2, 3], [4, 5, 6]]), np.array([3, 1])
    losses = [Encoder(config, Generator(1), fused=fused).loss(ids, ids, lengths).item() for fused in (True, False)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert losses[0] != Encoder(config, Generator(1)).eval().loss(ids, ids, lengths).item()


def test_the_sizes_name_every_parameter():
    for config in (EncoderConfig(**SIZES), EncoderClassifierConfig(**SIZES, labels=("a", "b", "c"))):
        model = (EncoderClassifier if hasattr(config, "labels") else Encoder)(config)
        assert dict(config.shapes()) == {name: p.shape for name, p in model.named_parameters()}
        assert config.num_parameters == model.num_parameters()
    assert EncoderConfig().num_parameters == 109_514_298  # of BertForMaskedLM("bert-base-uncased")


def test_a_classifier_shares_the_layers_of_its_base(model):
    made = EncoderClassifier.from_encoder(model, ["ham", "spam"], Generator(1))
    assert made.bert.encoder is model.bert.encoder
    assert made.bert.embeddings is model.bert.embeddings
    assert {p.dtype for p in made.parameters()} == {np.dtype("float64")}


# ---- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([[1] * 8],), "got 8 positions, more than block_size 7"),
        (([1, 2],), r"ids must be integers of shape \(B, T\)"),
        (([[1, 2]], [3]), "lengths must be 1 integers from 1 to 2"),
        (([[1, 2]], [1, 2]), "lengths must be 1 integers from 1 to 2"),
        (([[1, 2]], None, [[0, 0, 0]]), r"got segments \(1, 3\), which must have the shape of ids \(1, 2\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(arguments, message, model):
    with pytest.raises(ValueError, match=message):
        model(*arguments)


def test_targets_that_do_not_fit_are_refused(model):
    with pytest.raises(ValueError, match=r"got targets \(1, 1\), which must have the shape of ids \(1, 2\)"):
        model.loss([[1, 2]], [[1]])
    with pytest.raises(ValueError, match="the mean over no targets"):
        model.loss([[1, 2]], [[-100, -100]])
    with pytest.raises(ValueError, match="got count 0, which must be ≥ 1"):
        model.loss([[1, 2]], [[1, 2]], count=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segments": 0}, "segments must be a positive integer, got 0"),
        ({"n_head": 3}, r"n_embd \(8\) must be a multiple of n_head \(3\)"),
        ({"layer_norm_eps": 0.0}, r"layer_norm_eps must lie in \(0, 1\), got 0.0"),
        ({"positions": "relative"}, "positions must be absolute, sinusoidal, rotary, got 'relative'"),
        ({"initializer_range": None}, r"initializer_range must lie in \(0, 1\], got None"),
    ],
)
def test_sizes_that_cannot_be_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^EncoderConfig: {message}$"):
        dataclasses.replace(EncoderConfig(**SIZES), **change)
