"""What the tests of generation share: a small model, and prompts for it."""

import numpy as np

from tinygrad_llm.models import GPT, GPTConfig


def model_of(block_size=8, dropout=0.0, kind=GPT, vocab_size=13):
    """A model whose predictions depend on all that it has read: its weights are far larger than initial ones."""
    model = kind(GPTConfig(vocab_size, block_size, n_layer=2, n_head=2, n_embd=8, dropout=dropout))
    noise = np.random.default_rng(1)
    for p in model.parameters():
        p.data += (0.5 * noise.standard_normal(p.shape)).astype(np.float32)
    return model


def prompt(batch, length=4):
    return np.random.default_rng(2).integers(0, 13, (batch, length))
