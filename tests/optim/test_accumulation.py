"""Gradient accumulation: a batch's loss is the mean over its tokens, so its parts are weighted by their tokens."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tinygrad_llm import GPT, Generator, GPTConfig, grad
from tinygrad_llm.optim import SGD, AdamW, clip_grad_norm_

IGNORED = -100


def small_gpt(seed):
    model = GPT(GPTConfig(vocab_size=7, block_size=5, n_layer=1, n_head=1, n_embd=4), Generator(seed))
    for p in model.parameters():
        p.data = p.data.astype(np.float64)
    return model


def draw(seed, rows):
    rng = np.random.default_rng(seed)
    ids, targets = rng.integers(0, 7, (2, rows, 5))
    targets[rng.random(targets.shape) < 0.5] = IGNORED
    return ids, targets


def accumulated(model, parts):
    """(loss, gradients): Σ over the parts of n_part / n times the part's own, n the number of tokens that count."""
    counts = [np.count_nonzero(targets != IGNORED) for _, targets in parts]
    parameters = list(model.parameters())
    total, sums = 0.0, [np.zeros_like(p.data) for p in parameters]
    for (ids, targets), count in zip(parts, counts, strict=True):
        if count:  # a part without tokens has no mean, and no share
            share = count / sum(counts)
            loss = model.loss(ids, targets)
            total += share * loss.item()
            for into, g in zip(sums, grad(loss, parameters, gradient=np.array(share)), strict=True):
                into += g
    return total, sums


@settings(max_examples=20)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_parts_weighted_by_their_tokens_equal_the_large_batch(seed, sizes):
    model, (ids, targets) = small_gpt(seed % 100), draw(seed, sum(sizes))
    assume((targets != IGNORED).any())
    cuts = np.cumsum(sizes)[:-1]
    parts = list(zip(np.split(ids, cuts), np.split(targets, cuts), strict=True))
    whole = model.loss(ids, targets)
    loss, sums = accumulated(model, parts)
    assert loss == pytest.approx(whole.item(), rel=1e-13)
    for found, expected in zip(sums, grad(whole, list(model.parameters())), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-14)


def test_parts_weighted_equally_differ_from_the_large_batch():
    """The mean of the means is another number, if the parts differ in how many tokens count."""
    model, (ids, targets) = small_gpt(0), draw(0, 4)
    targets[:2] = 3
    targets[2:, 1:] = IGNORED
    targets[2:, 0] = 3
    means = [model.loss(ids[rows], targets[rows]).item() for rows in (slice(2), slice(2, 4))]
    whole = model.loss(ids, targets).item()
    assert np.average(means, weights=[10, 2]) == pytest.approx(whole, rel=1e-14)
    assert abs(np.mean(means) - whole) > 1e-4


@pytest.mark.parametrize("make", [lambda ps: SGD(ps, 0.1, 0.9), lambda ps: AdamW(ps, 0.01)], ids=["SGD", "AdamW"])
def test_clipped_steps_on_accumulated_gradients_equal_those_of_the_large_batch(make):
    large, small = small_gpt(1), small_gpt(1)
    optimizers = [make(list(model.named_parameters())) for model in (large, small)]
    for step in range(4):
        ids, targets = draw(step, 6)
        parts = [(ids[rows], targets[rows]) for rows in (slice(3), slice(3, 4), slice(4, 6))]
        _, sums = accumulated(small, parts)
        wholes = grad(large.loss(ids, targets), list(large.parameters()))
        for model, grads, optimizer in ((large, wholes, optimizers[0]), (small, sums, optimizers[1])):
            for p, g in zip(model.parameters(), grads, strict=True):
                p.grad = g
            clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
    for (name, p), q in zip(large.named_parameters(), small.parameters(), strict=True):
        # Softmax cancels the keys' bias. Its gradient is rounding, which AdamW enlarges to steps of any sign.
        unseen = slice(4, 8) if name.endswith("c_attn.bias") else slice(0)
        a, b = (np.delete(x.data, unseen, axis=0) for x in (p, q))
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-10)
