"""Text from a model: pieces of whole characters, up to the end of text."""

import contextlib

import numpy as np
import pytest
from generation_models import model_of
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import Entry
from tinygrad_llm.evaluation import score_file
from tinygrad_llm.finetuning import STYLES, encode_entries
from tinygrad_llm.finetuning.conversation import Turn, prompt_ids
from tinygrad_llm.generation import KVCache, Sampling, crop, generate, start_ids, words_cropped, write, write_all
from tinygrad_llm.generation.search import end_of
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


def test_rows_that_pad_the_vocabulary_are_never_written():
    padded = Parrot(BYTES.n_vocab + 7, [BYTES.n_vocab, BYTES.n_vocab + 6])  # the likeliest ids have no token
    assert "".join(write(padded, BYTES, [0], 2, Sampling(0))) == BYTES.decode([0, 0])


def test_pieces_join_to_the_generated_ids_of_the_seed():
    letters = CharTokenizer("abcdefghijk \n")
    texts = ["".join(write(model_of(), letters, [0, 1], 20, rng=Generator(seed))) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[0] == letters.decode(generate(model_of(), [0, 1], 20, rng=Generator(1))[2:])


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.9, top_k=4), Sampling(0)])
def test_texts_at_once_are_those_of_each_generator_alone(sampling):
    """Also beyond the block, with texts that end at different times, a stop string, and rows that no token has."""
    tokenizer = Tokenizer([])
    model = model_of(vocab_size=tokenizer.n_vocab + 9, block_size=16)
    model.transformer.wte.weight.data[tokenizer.eot_token :] *= 3  # some texts end early
    for stop in ((), ("e", "\N{REPLACEMENT CHARACTER}")):
        texts = write_all(model, tokenizer, [[40, 41]] * 8, 30, sampling, list(map(Generator, range(8))), stop)
        alone = ["".join(write(model, tokenizer, [40, 41], 30, sampling, Generator(seed), stop)) for seed in range(8)]
        assert texts == alone
    rows = [[40 + i] * (1 + i % 3) for i in range(8)]
    texts = ["".join(write(model, tokenizer, row, 9, Sampling(0))) for row in rows]
    assert write_all(model, tokenizer, rows, 9, Sampling(0)) == texts
    texts = ["".join(write(model, tokenizer, row, 9, sampling)) for row in rows]  # each by a Generator(0) of its own
    assert write_all(model, tokenizer, rows, 9, sampling) == texts


def test_a_text_loses_its_beginning_or_its_end_and_the_words_say_which():
    ids = [1, 2, 3, 4]
    assert [crop(ids, n) for n in (5, 4, 3, 1)] == [ids, ids, [2, 3, 4], [4]]
    assert [crop(ids, n, keep="first") for n in (5, 4, 3, 1)] == [ids, ids, [1, 2, 3], [1]]
    assert crop(ids, 4, refuse=True) == ids
    with pytest.raises(ValueError, match="the prompt has 4 tokens, and the model reads at most 3 of it"):
        crop(ids, 3, refuse=True, what="the prompt")
    assert words_cropped(1, 1, 9) == (
        "the text is longer than the 9 tokens that the model reads at once: its beginning is left out"
    )
    assert words_cropped(2, 3, 9, "end") == (
        "2 of 3 texts are longer than the 9 tokens that the model reads at once: the end of each is left out"
    )


def test_start_of_a_text_is_end_of_text_or_a_newline_or_nothing():
    assert start_ids(BYTES) == [BYTES.eot_token]
    assert start_ids(CharTokenizer("\nab")) == [0]
    assert start_ids(CharTokenizer("ab")) == []


def test_wrong_arguments_are_refused_by_the_call():
    with pytest.raises(ValueError, match="max_new_tokens must be"):
        write(model_of(), CharTokenizer("ab"), [0], -3)


def pieces_before(stop, text="one two three", **options):
    ids = BYTES.encode(text)
    return list(write(Parrot(BYTES.n_vocab, ids), BYTES, [0], len(ids), Sampling(0), stop=stop, **options))


@pytest.mark.parametrize(
    ("stop", "text"),
    [
        (["two"], "one "),
        ([" "], "one"),
        (["three", "two"], "one "),
        (["o"], ""),
        (["twice"], "one two three"),
        (["e t", "two"], "on"),
        (["threefold"], "one two three"),
        (["w", "two t"], "one "),  # the second begins first, and is complete later
        (["w", "two four"], "one t"),
        (["e", "threes"], "on"),
        (["ee", "threes"], "one two thr"),
    ],
)
def test_text_ends_before_the_first_stop_string(stop, text):
    assert "".join(pieces_before(stop)) == text


def test_a_text_tells_whether_it_ended_by_itself():
    """At its end or before a stop string, and not where it may have no more tokens."""
    ids = BYTES.encode("ab")
    for more, stop, ended in (([BYTES.eot_token], (), True), ([], (), False), ([], ("b",), True), ([], ("c",), False)):
        for strings in (stop, (*stop, "none")):
            row = [*ids, *more]
            text = write(Parrot(BYTES.n_vocab, row), BYTES, [0], len(row), Sampling(0), stop=strings)
            assert not text.ended
            list(text)
            assert text.ended == ended


@given(st.text("ab", max_size=12), st.lists(st.text("ab", min_size=1, max_size=3), min_size=1, max_size=3))
def test_stop_strings_cut_as_if_the_whole_text_were_known(text, stop):
    places = [place for place in map(text.find, stop) if place >= 0]
    pieces = pieces_before(stop, text)
    assert "".join(pieces) == text[: min(places, default=len(text))]


def test_a_piece_is_held_back_only_while_it_may_begin_a_stop_string():
    assert pieces_before(["two"], "a twig") == ["a", " ", "", "", "twi", "g", "", ""]


def test_an_empty_stop_string_is_refused():
    with pytest.raises(ValueError, match="a stop string must not be empty"):
        pieces_before(["two", ""])


class Zero(Tokenizer):
    """Its end of text has the id 0, as GPT-NeoX's has."""

    eot_token = 0


def test_an_end_of_text_of_id_0_is_one(tmp_path):
    (tmp_path / "text.txt").write_text("a cat")
    zero, style = Zero([]), STYLES["plain"]
    assert (start_ids(zero), end_of(zero)) == ([0], 0)
    assert encode_entries([Entry("a", "b", "c")], zero, style, 64).examples["targets"][0, -1] == 0
    assert 0 in prompt_ids(zero, style, [Turn("a", "b")], "c", "", 64).ids
    assert score_file(model_of(vocab_size=257), zero, str(tmp_path / "text.txt")).tokens == len("a cat")
    assert "".join(write(Parrot(257, [97, 0, 98]), zero, [1], 3, Sampling(0))) == zero.decode([97])
