"""Direct preference optimization."""

import dataclasses
import math

import numpy as np
import pytest

from tinygrad_llm.datasets import Entry
from tinygrad_llm.finetuning import STYLES, PaddedExamples, Preference, encode_pairs, with_reference
from tinygrad_llm.finetuning.preference import SIDES
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import Tokenizer
from tinygrad_llm.training import Trainer, TrainSettings

TOKENIZER = Tokenizer.train("<|user|>\nSay it nicely. red blue green\n<|assistant|>:\nyes please no never\n" * 3, 300)
CHOSEN = [
    Entry("Say it.", word, answer)
    for word, answer in (("red", "yes please yes please"), ("blue", "yes"), ("green", "please"))
]
REJECTED = [Entry("Say it.", entry.input, "no never") for entry in CHOSEN]
SIZES = GPTConfig(vocab_size=TOKENIZER.n_vocab, block_size=48, n_layer=1, n_head=2, n_embd=16, initializer_range=0.1)


def model(dtype=np.float64):
    return GPT(SIZES, Generator(1)).to(dtype)


def pairs(block_size=48):
    return encode_pairs(CHOSEN, REJECTED, TOKENIZER, STYLES["phi3"], block_size)


def test_log_probs_are_those_of_the_answer_alone():
    gpt, arrays = model(), pairs()[0]
    found = gpt.log_probs(arrays["chosen"], arrays["chosen_targets"]).data
    for i, entry in enumerate(CHOSEN):
        answer = [*TOKENIZER.encode(entry.output), TOKENIZER.eot_token]
        prompt = TOKENIZER.encode(f"<|user|>\nSay it. {entry.input}\n<|assistant|>:\n")
        ids = np.array([prompt + answer])
        probabilities = gpt(ids[:, :-1]).softmax(-1).data[0, len(prompt) - 1 :]
        expected = np.log(probabilities[np.arange(len(answer)), answer]).sum()
        assert found[i] == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("beta", [0.1, 2.0])
def test_the_first_loss_is_ln_2_and_no_reward_is_given(beta):
    gpt = model()
    arrays = with_reference(gpt, pairs()[0], batch_size=2)
    loss, figures = Preference(None, beta=beta).loss(gpt, arrays, 3)
    assert loss.item() == pytest.approx(math.log(2), abs=1e-12)
    assert figures == {"reward_margin": pytest.approx(0, abs=1e-12), "reward_accuracy": figures["reward_accuracy"]}


def test_an_answer_that_is_not_rewarded_more_is_not_right():
    gpt, arrays = model(), pairs()[0]
    arrays |= {f"{side}_reference": gpt.log_probs(arrays[side], arrays[f"{side}_targets"]).data for side in SIDES}
    assert Preference(None).loss(gpt, arrays, 3)[1] == {"reward_margin": 0, "reward_accuracy": 0}


def test_the_loss_is_the_formula_of_the_paper():
    reference, policy, beta = model(), model(), 0.7
    for p in policy.parameters():
        p.data = p.data + 0.05 * np.random.default_rng(0).standard_normal(p.shape)
    arrays = with_reference(reference, pairs()[0])
    ratios = {}
    for side in ("chosen", "rejected"):
        new, old = (m.log_probs(arrays[side], arrays[f"{side}_targets"]).data for m in (policy, reference))
        ratios[side] = new - old
    margins = beta * (ratios["chosen"] - ratios["rejected"])
    loss, figures = Preference(None, beta=beta).loss(policy, arrays, 3)
    assert loss.item() == pytest.approx(-np.log(1 / (1 + np.exp(-margins))).mean(), rel=1e-10)
    assert figures["reward_margin"] == pytest.approx(margins.mean())
    assert figures["reward_accuracy"] == (margins > 0).mean()


def test_training_prefers_the_chosen_answers():
    gpt = model(np.float32)
    arrays = with_reference(gpt, pairs()[0])
    settings = TrainSettings(steps=30, batch_size=3, lr=3e-3, min_lr=1e-4, warmup=0, eval_every=30, workers=1)
    steps = list(Trainer(gpt, Preference(PaddedExamples(arrays, 3, Generator(0)), [arrays]), settings).run())
    assert steps[0].val_loss == pytest.approx(math.log(2), abs=1e-6)
    assert steps[-1].val_loss < 0.5
    assert steps[-1].measures["val_reward_accuracy"] == 1
    assert steps[-1].measures["val_reward_margin"] > 0.3


def test_two_workers_compute_the_loss_of_one():
    losses = []
    for workers in (1, 2):
        gpt = model()
        arrays = with_reference(gpt, pairs()[0])
        task = Preference(PaddedExamples(arrays, 3, Generator(0)), [arrays])
        settings = TrainSettings(steps=4, batch_size=3, lr=3e-3, warmup=0, eval_every=4, workers=workers)
        losses.append([step.loss for step in Trainer(gpt, task, settings).run()])
    np.testing.assert_allclose(*losses, rtol=1e-10)


def test_a_pair_with_an_answer_that_does_not_fit_is_left_out():
    arrays, out = pairs()
    assert not out
    longest = int(arrays["lengths"].max())
    shorter, out = pairs(longest - 1)
    assert out
    assert len(shorter["lengths"]) == 3 - len(out)
    with pytest.raises(ValueError, match=r"none of the 3 (entries|pairs)"):
        pairs(3)


def test_both_sides_have_one_width():
    arrays = pairs()[0]
    assert {a.shape for name, a in arrays.items() if a.ndim > 1} == {(3, int(arrays["lengths"].max()))}
    assert dataclasses.asdict(SIZES)["block_size"] >= arrays["chosen"].shape[1]
