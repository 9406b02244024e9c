"""`write`: a text comes in pieces that never end in half a character, up to the end of text."""

import contextlib

import numpy as np
import pytest

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.generation import KVCache, write
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import Tokenizer

BYTES = Tokenizer([])  # each byte is a token


class Parrot:
    """A language model that continues every prompt with the same tokens."""

    block_size = 100

    def __init__(self, n_vocab, tokens):
        self.n_vocab, self.tokens = n_vocab, iter(tokens)

    def new_cache(self):
        return KVCache(1, self.block_size)

    def evaluating(self):
        return contextlib.nullcontext()

    def __call__(self, ids, cache=None, logits_to_keep=None):
        logits = np.zeros((1, ids.shape[1], self.n_vocab))
        logits[0, -1, next(self.tokens)] = 1
        return Tensor(logits)


def written(ids):
    return list(write(Parrot(BYTES.n_vocab, ids), BYTES, [0], len(ids), temperature=0))


def test_no_piece_ends_in_half_a_character():
    pieces = written(BYTES.encode("saß, 🦊!"))
    assert [piece for piece in pieces if piece] == list("saß, 🦊!")


def test_half_a_character_at_the_end_is_replaced():
    assert "".join(written(BYTES.encode("ß")[:1])) == "\N{REPLACEMENT CHARACTER}"


def test_the_end_of_text_ends_it():
    assert "".join(written([*BYTES.encode("one"), BYTES.eot_token, *BYTES.encode("two")])) == "one"


@pytest.fixture
def model():
    return GPT(GPTConfig(vocab_size=BYTES.n_vocab, block_size=8, n_layer=1, n_head=1, n_embd=4), Generator(0))


def test_a_bad_argument_is_refused_at_the_call(model):
    with pytest.raises(ValueError, match="temperature"):
        write(model, BYTES, [0], 5, temperature=-1)


def test_the_seed_decides_what_is_written(model):
    texts = ["".join(write(model, BYTES, [0], 40, rng=Generator(seed))) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
