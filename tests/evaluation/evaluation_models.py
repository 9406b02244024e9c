"""What the tests of evaluation share: small models, tokenizers, and ln p by its definition."""

from typing import Any

import numpy as np
import pytest

from tinygrad_llm import GPT, Generator, GPTConfig, Tokenizer
from tinygrad_llm.tokenizer import CharTokenizer

TEXT = "Once there was a cat.\nThe cat  sat on the mat, and the mat was flat. Café ☕!\n" * 4
BLOCK = 8


def model_of(vocab_size: int, dropout: float = 0.0) -> GPT:
    """A small model in float64 that is sure enough of things for its scores to differ."""
    config = GPTConfig(
        vocab_size=vocab_size, block_size=BLOCK, n_layer=2, n_head=2, n_embd=8, dropout=dropout, initializer_range=0.5
    )
    return GPT(config, Generator(3)).to(np.float64)


def uniform(vocab_size: int) -> GPT:
    model = model_of(vocab_size)
    model.transformer.wte.weight.data[:] = 0
    model.lm_head.weight.data[:] = 0
    return model


def log_probs(model: GPT, context: list[int]) -> Any:
    """ln p of every next token, by its definition."""
    with model.evaluating():
        logits = model(np.array([context])).data[0, -1]
    return logits - np.log(np.sum(np.exp(logits)))


BPE = Tokenizer.train(TEXT, 280)
CHARS = CharTokenizer.train(TEXT)
TOKENIZERS = pytest.mark.parametrize("tokenizer", [BPE, CHARS], ids=["bpe", "char"])
