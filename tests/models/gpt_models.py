"""A small GPT whose parameters are all different, and ids for it: for tests of models and of their files."""

import dataclasses

import numpy as np

from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator

SMALL = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=6)


def change(config=SMALL, **fields):
    return dataclasses.replace(config, **fields)


def some_ids(batch, time, seed=0, vocab_size=SMALL.vocab_size):
    return np.random.default_rng(seed).integers(0, vocab_size, (batch, time))


def shaken(config, dtype=np.float64):
    """A model none of whose parameters is a constant, so that each of them matters."""
    model = GPT(config, Generator(1)).to(dtype)
    noise = np.random.default_rng(2)
    for p in model.parameters():
        p.data = (p.data + 0.3 * noise.standard_normal(p.shape)).astype(dtype)
    return model
