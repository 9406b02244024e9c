"""The classifier: a GPT's transformer under another head."""

import dataclasses
import math

import numpy as np
import pytest
from gpt_models import SMALL, change, shaken, some_ids
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.autograd import no_grad
from tinygrad_llm.models import GPT, GPTClassifier, GPTClassifierConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.files import LoadError

LABELS = ("ham", "spam", "other")


def classifier(config=SMALL, labels=LABELS):
    return GPTClassifier.from_gpt(shaken(config), labels, Generator(4))


def scores(model, ids, lengths=None):
    with no_grad():
        return model(ids, lengths).data


def test_scores_are_the_head_on_the_last_hidden_state():
    base, ids = shaken(SMALL), some_ids(3, 5)
    model = GPTClassifier.from_gpt(base, LABELS, Generator(4))
    with no_grad():
        hidden = base.transformer(ids).data  # (B, T, C)
    expected = hidden[[0, 1, 2], [1, 4, 0]] @ model.score.weight.data.T
    np.testing.assert_allclose(scores(model, ids, [2, 5, 1]), expected + model.score.bias.data, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(scores(model, ids), scores(model, ids, [5, 5, 5]))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=4), st.integers(0, 2), st.integers(0, 10), st.integers(0, 9))
def test_a_prediction_depends_neither_on_padding_nor_on_its_neighbors(lengths, extra, pad, seed):
    model = classifier()
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 11, length) for length in lengths]
    batch = np.full((len(rows), max(lengths) + extra), pad)
    for row, ids in zip(batch, rows, strict=True):
        row[: len(ids)] = ids
    together = scores(model, batch, lengths)
    alone = [scores(model, ids[None])[0] for ids in rows]
    np.testing.assert_allclose(together, alone, rtol=0, atol=1e-12)


@pytest.mark.parametrize("tie_weights", [True, False])
def test_the_config_counts_and_names_the_parameters(tie_weights):
    model = classifier(change(tie_weights=tie_weights))
    assert [(name, p.shape) for name, p in model.named_parameters()] == list(model.config.shapes())
    assert model.config.num_parameters == model.num_parameters()


def test_the_base_is_shared_and_not_copied():
    base = shaken(SMALL)
    assert GPTClassifier.from_gpt(base, LABELS, Generator(0)).transformer is base.transformer


@pytest.mark.parametrize("how", [{"recompute": True}, {"fused": False}, {}])
def test_a_classifier_computes_as_its_base_does(how):
    model = GPTClassifier.from_gpt(GPT(SMALL, **how), LABELS, Generator(0))
    assert {"recompute": model.recompute, "fused": model.fused} == {"recompute": False, "fused": True} | how


def test_a_saved_classifier_loads_with_its_labels(tmp_path):
    model = classifier()
    model.save_pretrained(tmp_path)
    again = GPTClassifier.from_pretrained(tmp_path)
    assert again.config == model.config
    assert again.config.labels == LABELS
    np.testing.assert_array_equal(scores(again, some_ids(2, 4)), scores(model, some_ids(2, 4)))


def test_a_classifier_is_not_read_as_a_gpt_and_the_other_way_round(tmp_path):
    classifier().save_pretrained(tmp_path / "classifier")
    shaken(SMALL).save_pretrained(tmp_path / "gpt")
    message = r"holds 'tinygrad_llm.GPTClassifier', and 'tinygrad_llm.GPT' is needed: `tinygrad-llm classify` reads it"
    with pytest.raises(LoadError, match=message):
        GPT.from_pretrained(tmp_path / "classifier")
    message = r"holds 'tinygrad_llm.GPT', and 'tinygrad_llm.GPTClassifier' is needed: `tinygrad-llm generate`"
    with pytest.raises(LoadError, match=message):
        GPTClassifier.from_pretrained(tmp_path / "gpt")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ((), "at least two different texts"),
        (("one",), "at least two different texts"),
        (("a", "a"), "at least two different texts"),
        (("a", "b", "a"), "at least two different texts"),
        (("a", ""), "must be texts"),
        (("a", 1), "must be texts"),
        ("ab", "must be texts"),
    ],
)
def test_labels_that_are_not_classes_are_refused(labels, message):
    with pytest.raises(ValueError, match=f"labels must be.*{message.removeprefix('must be ')}"):
        GPTClassifierConfig(**dataclasses.asdict(SMALL), labels=labels)


@pytest.mark.parametrize("lengths", [[1], [1, 6], [0, 5], [1.0, 2.0], [[1], [2]]])
def test_lengths_that_do_not_fit_are_refused(lengths):
    with pytest.raises(ValueError, match="lengths must be 2 integers from 1 to 5"):
        classifier()(some_ids(2, 5), lengths)


def test_more_tokens_than_positions_are_refused():
    with pytest.raises(ValueError, match="got 9 positions, more than block_size 8"):
        classifier()(some_ids(1, 9))


def test_a_new_head_starts_as_pytorch_s_linear():
    weight = classifier(labels=tuple(map(str, range(500)))).score.weight.data
    bound = 1 / math.sqrt(SMALL.n_embd)
    assert 0.9 * bound < np.abs(weight).max() <= bound
