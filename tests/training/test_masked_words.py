"""Masked words: which words are hidden and how, the loss of the parts of a batch, and a resume to the last bit."""

import dataclasses
import itertools

import numpy as np
import pytest

from tinygrad_llm.datasets import BatchStream, SlidingWindows
from tinygrad_llm.models import Encoder, EncoderConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.training import Trainer, TrainingError, TrainSettings
from tinygrad_llm.training.masked_words import Hiding, MaskedWords, hide

CLS, SEP, MASK, V, T = 0, 1, 2, 20, 8
SPECIAL = (CLS, SEP, MASK)
IDS = np.tile(np.arange(3, V), 20)
HIDING = Hiding(MASK, V, SPECIAL, (CLS, SEP))
SETTINGS = TrainSettings(steps=6, batch_size=5, lr=1e-2, warmup=1, eval_every=3, workers=1, accumulation=2)


def new_task():
    held_out = [HIDING(np.stack([IDS[i : i + T - 2] for i in range(4)]), Generator(3), (1.0, 0.0))]
    return MaskedWords(BatchStream([IDS], T - 2, 5, Generator(7)), held_out, HIDING)


def new_model(dropout=0.1):
    sizes = {"n_layer": 1, "n_head": 2, "n_embd": 8, "initializer_range": 0.3}
    return Encoder(EncoderConfig(vocab_size=V, block_size=T, dropout=dropout, **sizes), Generator(1))


def test_a_share_of_each_row_is_hidden_as_bert_does():
    ids = Generator(0).randint(0, V, (400, 100))
    inputs, targets = hide(ids, MASK, V, SPECIAL, Generator(1))
    chosen = targets != -100
    may = ~np.isin(ids, SPECIAL)
    np.testing.assert_array_equal(chosen.sum(axis=1), np.round(0.15 * may.sum(axis=1)))
    assert (may | ~chosen).all()
    np.testing.assert_array_equal(targets[chosen], ids[chosen])
    np.testing.assert_array_equal(inputs[~chosen], ids[~chosen])
    n = chosen.sum()
    masked, kept = (inputs[chosen] == MASK).mean(), (inputs[chosen] == ids[chosen]).mean()
    # 80 % and, of the tenth that is replaced by any of V tokens, one in V; the same for those that stay.
    for share, wanted in ((masked, 0.8 + 0.1 / V), (kept, 0.1 + 0.1 / V)):
        assert abs(share - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / n)
    others = inputs[chosen & (inputs != MASK) & (inputs != ids)]
    assert set(others.tolist()) == set(range(V)) - {MASK}
    # Every place of a row is as likely as any other.
    expected = chosen.sum() / 100
    assert np.abs(chosen.sum(axis=0) - expected).max() < 5 * np.sqrt(expected)


def test_every_row_with_a_word_hides_at_least_one():
    inputs, targets = hide([[CLS, 5, SEP], [CLS, MASK, SEP]], MASK, V, SPECIAL, Generator(1), (1.0, 0.0))
    np.testing.assert_array_equal(inputs, [[CLS, MASK, SEP], [CLS, MASK, SEP]])
    np.testing.assert_array_equal(targets, [[-100, 5, -100], [-100, -100, -100]])


def test_a_batch_is_a_window_between_its_two_tokens_and_hides_other_words_each_time():
    task = new_task()
    seen = task.peek()
    inputs, targets = task.next_batch()
    np.testing.assert_array_equal(seen, (inputs, targets))
    assert inputs.shape == targets.shape == (5, T)
    assert (inputs[:, 0] == CLS).all()
    assert (inputs[:, -1] == SEP).all()
    assert task.count((inputs, targets)) == 5  # 15 % of 6 words, rounded
    windows, one, other = SlidingWindows(IDS, T - 2), HIDING(IDS[None, :60], Generator(1)), Generator(2)
    assert len(windows) > 0
    assert not np.array_equal(one[1], HIDING(IDS[None, :60], other)[1])


def test_a_batch_without_a_word_to_hide_is_passed_over():
    class Windows:
        rng, batch_size = Generator(3), 1

        def __init__(self, *windows):
            self.windows = itertools.cycle(windows)

        def __next__(self):
            return (np.array([next(self.windows)]),)

    some = MaskedWords(Windows([SEP, SEP], [SEP, 7]), [], HIDING)
    for _ in range(3):
        np.testing.assert_array_equal(some.next_batch()[1], [[-100, -100, 7, -100]])
    with pytest.raises(TrainingError, match=r"have no word to hide: the text has too few known words"):
        MaskedWords(Windows([SEP, SEP]), [], HIDING).next_batch()


def test_the_losses_of_parts_add_up_and_accuracy_counts_the_right_guesses():
    task, model = new_task(), new_model(dropout=0.0)
    batch = task.next_batch()
    total = task.count(batch)
    whole, figures = task.loss(model, batch, total)
    parts = [task.loss(model, part, total) for part in task.split(batch, 3)]
    assert sum(loss.item() for loss, _ in parts) == pytest.approx(whole.item(), rel=1e-6)
    assert sum(part["accuracy"] for _, part in parts) == pytest.approx(figures["accuracy"])
    logits = model(batch[0]).data
    hidden = batch[1] != -100
    assert figures["accuracy"] == (logits.argmax(axis=-1) == batch[1])[hidden].mean()
    assert whole.item() == pytest.approx(model.loss(*batch).item(), rel=1e-6)
    task.label_smoothing = 0.2
    assert task.loss(model, batch, total)[0].item() != whole.item()
    assert task.held_out_loss(model, batch, total)[0].item() == whole.item()


def test_a_resumed_training_is_that_of_one_that_never_stopped():
    def trainer():
        return Trainer(new_model(), new_task(), SETTINGS)

    def plain(step):
        return dataclasses.replace(step, tokens_per_second=0.0, memory=None)

    whole = trainer()
    steps = [plain(step) for step in whole.run()]
    first = trainer()
    before = []
    for step in first.run(lambda: first.micro_batches == 1 and first.step == 2):  # within an accumulation
        before.append(plain(step))
    arrays, numbers = first.get_state()
    second = trainer()
    second.set_state({name: array.copy() for name, array in arrays.items()}, numbers)
    after = [plain(step) for step in second.run()]
    assert [*before, *after] == steps
    for name, array in whole.model.state_dict().items():
        np.testing.assert_array_equal(array, second.model.state_dict()[name])
    assert {"accuracy", "val_accuracy"} <= steps[-1].measures.keys()
