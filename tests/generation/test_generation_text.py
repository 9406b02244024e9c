"""Text from a model: pieces of whole characters, up to the end of text."""

import contextlib

import numpy as np
import pytest
from generation_models import model_of

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.generation import KVCache, Sampling, generate, start_ids, write
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer

BYTES = Tokenizer([])  # 256 bytes, and end of text


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


def pieces_of(ids):
    return list(write(Parrot(BYTES.n_vocab, ids), BYTES, [0], len(ids), Sampling(0)))


def test_pieces_hold_whole_characters():
    pieces = pieces_of(BYTES.encode("saß, 🦊!"))
    assert len(pieces) == len(BYTES.encode("saß, 🦊!")) + 1
    assert [piece for piece in pieces if piece] == list("saß, 🦊!")
    assert "".join(pieces_of(BYTES.encode("ß")[:1])) == "\N{REPLACEMENT CHARACTER}"


def test_text_ends_at_the_end_of_text_token():
    assert "".join(pieces_of([*BYTES.encode("one"), BYTES.eot_token, *BYTES.encode("two")])) == "one"


def test_pieces_join_to_the_generated_ids_of_the_seed():
    letters = CharTokenizer("abcdefghijk \n")
    texts = ["".join(write(model_of(), letters, [0, 1], 20, rng=Generator(seed))) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0] == letters.decode(generate(model_of(), [0, 1], 20, rng=Generator(1))[2:])


def test_start_of_a_text_is_end_of_text_or_a_newline_or_nothing():
    assert start_ids(BYTES) == [BYTES.eot_token]
    assert start_ids(CharTokenizer("\nab")) == [0]
    assert start_ids(CharTokenizer("ab")) == []


def test_wrong_arguments_are_refused_by_the_call():
    with pytest.raises(ValueError, match="max_new_tokens must be"):
        write(model_of(), CharTokenizer("ab"), [0], -3)
