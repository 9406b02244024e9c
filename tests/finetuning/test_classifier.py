"""The classifier: its task, what it says of texts, and its figures."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.finetuning import Classification, PaddedExamples, balanced_weights, classify, pad, token_influence
from tinygrad_llm.finetuning.classifier import confusion_matrix, encode_messages, scores_by_class
from tinygrad_llm.models import GPT, GPTClassifier, GPTConfig
from tinygrad_llm.nn import add_lora
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer, TokenizerError
from tinygrad_llm.training import Trainer, TrainSettings

SIZES = GPTConfig(vocab_size=12, block_size=10, n_layer=1, n_head=2, n_embd=8, initializer_range=0.2)
SETTINGS = TrainSettings(steps=150, batch_size=8, lr=2e-2, min_lr=1e-3, warmup=0, eval_every=150, workers=1)


def classifier(seed=1, **sizes):
    return GPTClassifier.from_gpt(
        GPT(dataclasses.replace(SIZES, **sizes), Generator(seed)), ("no", "yes", "maybe"), Generator(seed)
    )


def texts(count, seed=0):
    """Random texts; a text is of class 1 if it holds the id 7, else of class 2 if it holds 8, else of class 0."""
    rng = np.random.default_rng(seed)
    rows = [rng.integers(0, 12, rng.integers(1, 9)) for _ in range(count)]
    labels = np.array([1 if 7 in row else 2 if 8 in row else 0 for row in rows])
    lengths = np.array([len(row) for row in rows])
    return rows, {"ids": pad(rows, 0), "lengths": lengths, "labels": labels}


def task(**options):
    return Classification(PaddedExamples(texts(200)[1], 8, Generator(2)), [texts(60, 1)[1]], **options)


def test_a_classifier_learns_which_token_decides():
    model = classifier()
    steps = list(Trainer(model, task(), SETTINGS).run())
    assert steps[-1].measures["val_accuracy"] > 0.9 > steps[0].measures["val_accuracy"]
    assert set(steps[-1].measures) == {"accuracy", "val_accuracy"}
    rows, test = texts(60, 2)
    assert (classify(model, rows).argmax(axis=1) == test["labels"]).mean() > 0.9


def test_two_workers_compute_the_gradient_of_one():
    losses = []
    for workers in (1, 2):
        settings = dataclasses.replace(SETTINGS, steps=5, workers=workers)
        model = classifier()
        model.to(np.float64)
        losses.append([step.loss for step in Trainer(model, task(class_weights=[0.5, 2, 1]), settings).run()])
    np.testing.assert_allclose(*losses, rtol=1e-12)


def test_adapters_alone_learn_too():
    model = classifier(tie_weights=False, n_embd=16)
    before = {name: p.data.copy() for name, p in model.named_parameters()}
    add_lora(model, rank=4, rng=Generator(3))
    steps = list(Trainer(model, task(), SETTINGS).run())
    assert steps[-1].measures["val_accuracy"] > 0.7 > steps[0].measures["val_accuracy"] + 0.2
    for name, p in model.named_parameters():
        if ".lora_" not in name:
            assert np.array_equal(p.data, before[name.replace(".base_layer", "")]), name


def test_the_loss_weighs_each_class():
    model, batch = classifier(), texts(9, 3)[1]
    weights = np.array([0.5, 2.0, 3.0])
    loss, figures = task(class_weights=weights).loss(model, batch, 9)
    p = classify(model, [row[:n] for row, n in zip(batch["ids"], batch["lengths"], strict=True)])
    expected = -(np.log(p[np.arange(9), batch["labels"]]) * weights[batch["labels"]]).sum() / 9
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    assert figures["accuracy"] == (p.argmax(axis=1) == batch["labels"]).mean()


@given(st.lists(st.integers(0, 2), min_size=1, max_size=50))
def test_balanced_weights_give_every_class_the_same_share(labels):
    labels = np.array([0, 1, 2, *labels])
    weights = balanced_weights(labels, 3)
    shares = [weights[k] * (labels == k).sum() for k in range(3)]
    np.testing.assert_allclose(shares, len(labels) / 3)
    assert weights[labels].mean() == pytest.approx(1)


def test_a_class_without_text_has_no_balanced_weight():
    with pytest.raises(ValueError, match="class 1 has no text"):
        balanced_weights(np.array([0, 2]), 3)
    for wrong in ([0, 1, 3], [-1, 0, 1]):
        with pytest.raises(ValueError, match="labels must be from 0 to 2, got "):
            balanced_weights(np.array(wrong), 3)


def test_messages_become_ids_that_the_model_can_read_with_the_ends_that_it_needs():
    letters = CharTokenizer("abcdef")
    assert encode_messages(["abcdef", "abcd", "a"], letters, 4) == ([[0, 1, 2, 3], [0, 1, 2, 3], [0]], 1)
    rows = [[8, 0, 1, 9], [8, 0, 1, 9], [8, 0, 9]]
    assert encode_messages(["abcdef", "ab", "a"], letters, 4, ends=(8, 9)) == (rows, 1)
    with pytest.raises(ValueError, match="text 2 has 3 tokens, and the model reads at most 2 of it"):
        encode_messages(["ab", "abc"], letters, 4, refuse=True, ends=(8, 9))
    with pytest.raises(TokenizerError, match="line 7: character 'x' at position 1"):
        encode_messages(["ax"], letters, 4, where=lambda i: f"line {i + 7}")
    bytes_alone = Tokenizer([])  # a special token is read as text
    assert encode_messages(["<|endoftext|>"], bytes_alone, 99)[0] == [bytes_alone.encode_ordinary("<|endoftext|>")]


def test_probabilities_are_in_the_order_of_the_texts():
    model, (rows, _) = classifier(), texts(7, 4)
    together = classify(model, rows, batch_size=3)
    alone = np.concatenate([classify(model, [row]) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    np.testing.assert_allclose(together.sum(axis=1), 1)


def test_influence_is_the_derivative_along_each_token_s_vector():
    model = classifier().to(np.float64)
    ids = [3, 7, 1, 7]
    predicted, influence = token_influence(model, ids)

    def log_odds(scale):
        """ln(p / (1 − p)) with the vector of each token scaled."""
        wte = model.transformer.wte
        table = np.concatenate([wte.weight.data, wte.weight.data[ids] * scale[:, None]])
        shifted = GPTClassifier.from_gpt(model_with(table), model.config.labels, Generator(0))
        shifted.score.load_state_dict(model.score.state_dict())
        p = classify(shifted, [np.arange(4) + 12])[0, predicted]
        return np.log(p / (1 - p))

    def model_with(table):
        base = GPT(dataclasses.replace(SIZES, vocab_size=len(table)), Generator(0)).to(np.float64)
        state = {f"transformer.{name}": a for name, a in model.transformer.state_dict().items()}
        base.load_state_dict({**state, "transformer.wte.weight": table})
        return base

    assert predicted == classify(model, [ids]).argmax()
    h = 1e-5
    for i, value in enumerate(influence):
        step = h * (np.arange(4) == i)
        assert value == pytest.approx((log_odds(1 + step) - log_odds(1 - step)) / (2 * h), rel=1e-6, abs=1e-9)


def test_influence_needs_an_embedding_that_is_not_frozen():
    model = classifier()
    model.transformer.wte.weight.requires_grad = False
    with pytest.raises(ValueError, match="embedding is frozen"):
        token_influence(model, [1, 2])


def test_figures_by_class():
    """Checked by hand: 3 of 4 cats found, one of which is called a dog; the third class never occurs."""
    labels, predicted = np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 0])
    confusion = confusion_matrix(labels, predicted, 3)
    many = np.array([20, 19], np.uint8)  # 20 · 21 has no room in it
    assert confusion_matrix(many, many, 21)[[20, 19], [20, 19]].tolist() == [1, 1]
    np.testing.assert_array_equal(confusion, [[3, 1, 0], [1, 1, 0], [0, 0, 0]])
    found = scores_by_class(confusion)
    np.testing.assert_allclose(found["precision"], [3 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(found["recall"], [3 / 4, 1 / 2, np.nan])
    np.testing.assert_allclose(found["f1"], [3 / 4, 1 / 2, np.nan])
