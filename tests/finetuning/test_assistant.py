"""Instructions: prompts, collation, and figures of answers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.datasets import Entry
from tinygrad_llm.finetuning import STYLES, Instructions, PaddedExamples, collate, encode_entries, prompt_of
from tinygrad_llm.finetuning.assistant import exact_match, token_f1
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer
from tinygrad_llm.training import Trainer, TrainSettings

PAD, NO = 50256, -100


def test_the_book_s_collation():
    inputs, targets = collate([[0, 1, 2, 3, 4], [5, 6], [7, 8, 9]], PAD)
    np.testing.assert_array_equal(inputs, [[0, 1, 2, 3, 4], [5, 6, PAD, PAD, PAD], [7, 8, 9, PAD, PAD]])
    np.testing.assert_array_equal(targets, [[1, 2, 3, 4, PAD], [6, PAD, NO, NO, NO], [8, 9, PAD, NO, NO]])


def test_targets_of_the_prompt_do_not_count_where_it_is_masked():
    """The first token of the answer is predicted at the last token of the prompt, so it counts."""
    _, targets = collate([[0, 1, 2, 3, 4], [5, 6]], PAD, prompt_lengths=[3, 1])
    np.testing.assert_array_equal(targets, [[NO, NO, 3, 4, PAD], [6, PAD, NO, NO, NO]])


def test_collation_cuts_to_a_length():
    inputs, targets = collate([[0, 1, 2, 3, 4], [5, 6]], PAD, max_length=3)
    np.testing.assert_array_equal(inputs, [[0, 1, 2], [5, 6, PAD]])
    np.testing.assert_array_equal(targets, [[1, 2, 3], [6, PAD, NO]])


def test_prompts_are_those_of_alpaca_and_phi_3(gpt2):
    alpaca, phi3 = STYLES["alpaca"], STYLES["phi3"]
    # The book's preamble, as ids (section 7.2).
    ids = [21106, 318, 281, 12064, 326, 8477, 257, 4876, 13, 19430, 257, 2882, 326, 20431, 32543, 262, 2581, 13]
    preamble = gpt2.decode([*ids, 198, 198, 21017, 46486, 25, 198])
    assert prompt_of("Do it.", "", alpaca) == f"{preamble}Do it.\n\n### Response:\n"
    assert prompt_of("Do it.", "to this", alpaca) == f"{preamble}Do it.\n\n### Input:\nto this\n\n### Response:\n"
    assert prompt_of("Do it.", "to this", phi3) == "<|user|>\nDo it. to this\n<|assistant|>:\n"
    assert prompt_of("Do it.", "", phi3) == "<|user|>\nDo it.\n<|assistant|>:\n"
    assert prompt_of("Do it.", "to this", STYLES["plain"]) == "Q: Do it. to this\nA:"
    assert prompt_of("Do it.", "", STYLES["plain"]) == "Q: Do it.\nA:"
    assert gpt2.encode("<|user|>") == [27, 91, 7220, 91, 29]


ENTRIES = [Entry("Say a.", "", "a"), Entry("Say it.", "b c", "b c"), Entry("Say nothing of length.", "x" * 30, "yes")]


def test_entries_become_prompt_answer_and_one_end_of_text(gpt2):
    encoded = encode_entries(ENTRIES[:2], gpt2, STYLES["phi3"], 64)
    for entry, ids, targets, length in zip(
        ENTRIES, encoded.examples["ids"], encoded.examples["targets"], encoded.examples["lengths"], strict=False
    ):
        text = prompt_of(entry.instruction, entry.input, STYLES["phi3"]) + entry.output
        assert gpt2.decode(ids[:length].tolist()) == text
        assert targets[:length].tolist() == [*ids[1:length], PAD]
        assert (targets[length:] == NO).all()
    assert not encoded.cut
    assert not encoded.dropped


def test_a_plain_answer_follows_a_space(gpt2):
    encoded = encode_entries(ENTRIES[1:2], gpt2, STYLES["plain"], 64)
    assert gpt2.decode(encoded.examples["ids"][0].tolist()) == "Q: Say it. b c\nA: b c"


def test_the_losses_of_the_parts_of_a_batch_add_up_to_that_of_the_whole(gpt2):
    """So that several workers train as one does."""
    batch = encode_entries(ENTRIES, gpt2, STYLES["plain"], 64, mask_prompt=True).examples
    model = GPT(GPTConfig(vocab_size=gpt2.n_vocab, block_size=64, n_layer=1, n_head=1, n_embd=2), Generator(0))
    task = Instructions(None)
    total = task.count(batch)
    parts = [part for part in task.split(batch, 2) if task.count(part)]
    assert [task.count(part) for part in parts] == [2, total - 2]
    whole = task.loss(model, batch, total).item()
    assert sum(task.loss(model, part, total).item() for part in parts) == pytest.approx(whole, rel=1e-5)


def test_masked_targets_are_the_answer_and_the_end_of_text(gpt2):
    encoded = encode_entries(ENTRIES[:2], gpt2, STYLES["alpaca"], 64, mask_prompt=True)
    for entry, targets in zip(ENTRIES, encoded.examples["targets"], strict=False):
        assert targets[targets != NO].tolist() == [*gpt2.encode(entry.output), PAD]


def test_an_entry_whose_answer_does_not_fit_is_reported(gpt2):
    prompt = len(gpt2.encode(prompt_of(ENTRIES[2].instruction, ENTRIES[2].input, STYLES["phi3"])))
    assert encode_entries(ENTRIES, gpt2, STYLES["phi3"], prompt).dropped == [2]
    roomy = encode_entries(ENTRIES, gpt2, STYLES["phi3"], prompt + 1)
    assert not roomy.dropped
    assert not roomy.cut  # its answer is one token
    long = encode_entries([Entry("Say it.", "", "it " * 99)], gpt2, STYLES["phi3"], 64)
    assert (long.cut, [array.shape for array in long.examples.values()]) == ([0], [(1, 64), (1, 64), (1,)])
    with pytest.raises(ValueError, match="none of the 3 entries has its answer within the model's 4 tokens"):
        encode_entries(ENTRIES, gpt2, STYLES["phi3"], 4)


def test_a_tokenizer_without_end_of_text_is_refused():
    tokenizer = CharTokenizer.train("".join(prompt_of(e.instruction, e.input, STYLES["phi3"]) for e in ENTRIES))
    with pytest.raises(ValueError, match="no end-of-text token"):
        encode_entries(ENTRIES, tokenizer, STYLES["phi3"], 64)


def test_a_small_model_learns_to_answer():
    words = ["red", "blue", "green", "big", "small"]
    entries = [Entry("Repeat.", word, word) for word in words]
    tokenizer = Tokenizer.train("<|user|>\nRepeat. red blue green big small\n<|assistant|>:\n" * 3, 300)
    examples = encode_entries(entries, tokenizer, STYLES["phi3"], 32, mask_prompt=True).examples
    sizes = GPTConfig(vocab_size=tokenizer.n_vocab, block_size=32, n_layer=1, n_head=2, n_embd=16)
    model = GPT(sizes, Generator(0))
    task = Instructions(PaddedExamples(examples, 5, Generator(0)), [examples])
    settings = TrainSettings(steps=120, batch_size=5, lr=2e-2, min_lr=1e-3, warmup=0, eval_every=120, workers=1)
    steps = list(Trainer(model, task, settings).run())
    assert steps[-1].val_loss < 0.05 < 1 < steps[0].loss


@given(st.lists(st.sampled_from("abcd"), max_size=6), st.lists(st.sampled_from("abcd"), max_size=6))
def test_f1_is_symmetric_and_1_for_the_same_words(one, other):
    a, b = " ".join(one), " ".join(other)
    assert 0 <= token_f1(a, b) == token_f1(b, a) <= 1
    assert (token_f1(a, b) == 1) == (sorted(one) == sorted(other))


def test_f1_of_a_known_pair():
    """Two of three words are right, and two of four are found: 2 · (2/3 · 2/4) / (2/3 + 2/4)."""
    assert token_f1("the red fox", "a fox was red") == pytest.approx(4 / 7)


def test_exact_match_ignores_white_space_around_the_answer_alone():
    assert exact_match(" fox\n", "fox")
    assert not exact_match("Fox", "fox")
    assert not exact_match("the fox", "fox")
