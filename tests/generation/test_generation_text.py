"""Text from a model: pieces that join to the decoded ids, and the end of a text."""

import numpy as np
import pytest
from generation_models import model_of

from tinygrad_llm.generation import generate, start_ids, write
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer

BYTES = Tokenizer([])  # 256 bytes, and end of text


def test_pieces_join_to_the_decoded_ids():
    letters = CharTokenizer("abcdefghijk \n")
    pieces = list(write(model_of(), letters, [0, 1], 20, rng=Generator(3)))
    assert len(pieces) == 21  # one per token, and what was still waiting
    assert "".join(pieces) == letters.decode(generate(model_of(), [0, 1], 20, rng=Generator(3))[2:])


def test_text_ends_at_the_end_of_text_token_and_never_inside_a_character():
    model = GPT(GPTConfig(vocab_size=257, block_size=8, n_layer=1, n_head=1, n_embd=4))
    model.transformer.wte.weight.data[:] = 0
    model.lm_head.weight.data[:] = 0
    model.transformer.ln_f.bias.data[:] = 1
    first_byte = BYTES.encode("é")[0]
    model.lm_head.weight.data[first_byte] = 1  # always the first byte of é: never a whole character
    assert "".join(write(model, BYTES, [0], 3, temperature=0)) == "\ufffd" * 3
    model.lm_head.weight.data[BYTES.eot_token] = 2
    assert "".join(write(model, BYTES, [0], 3, temperature=0)) == ""


def test_start_of_a_text_is_end_of_text_or_a_newline_or_nothing():
    assert start_ids(BYTES) == [BYTES.eot_token]
    assert start_ids(CharTokenizer("\nab")) == [0]
    assert start_ids(CharTokenizer("ab")) == []


def test_wrong_arguments_are_refused_by_the_call():
    with pytest.raises(ValueError, match="temperature must be"):
        write(model_of(), CharTokenizer("ab"), [0], 3, temperature=np.nan)
