"""A conversation: what the model reads, what is kept, and what is forgotten."""

import contextlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import Entry
from tinygrad_llm.finetuning import STYLES, encode_entries
from tinygrad_llm.finetuning.conversation import Conversation, Turn, prompt_ids, stop_strings
from tinygrad_llm.generation import KVCache, generate
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer

TOKENIZER = Tokenizer.train("<|user|>\nhello\n<|assistant|>:\n" * 3, 270)
PHI3 = STYLES["phi3"]
HELLO = "<|user|>\nhello\n<|assistant|>:\n"
END = TOKENIZER.eot_token


def model_of(block_size=128):
    sizes = GPTConfig(
        vocab_size=TOKENIZER.n_vocab, block_size=block_size, n_layer=1, n_head=1, n_embd=8, initializer_range=0.5
    )
    return GPT(sizes, Generator(0))


def conversation(block_size=128, **options):
    return Conversation(model_of(block_size), TOKENIZER, PHI3, **options)


class Parrot:
    """A model that writes these ids, one after the other, whatever it reads. None: its scores are NaN."""

    block_size = 512

    def __init__(self, ids):
        self.ids = list(ids)

    def new_cache(self):
        return KVCache(1, self.block_size)

    def evaluating(self):
        return contextlib.nullcontext()

    def __call__(self, ids, cache=None, logits_to_keep=None):
        logits = np.zeros((1, 1, TOKENIZER.n_vocab), np.float32)
        token = self.ids.pop(0)
        logits[0, 0, token] = np.nan if token is None else 1
        return Tensor(logits)


def said(ids, style=PHI3):
    """The pieces of an answer whose tokens are these, and the conversation after it."""
    chat = Conversation(Parrot(ids), TOKENIZER, style, max_new_tokens=len(ids))
    return list(chat.answer("hello")), chat


# ---- what the model reads ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_a_turn_is_written_as_in_training(style):
    """The ids of a conversation of one turn are those of the entry it was trained on, with its end of text."""
    entry = Entry("hello", "", "hi there")
    (row,) = encode_entries([entry], TOKENIZER, STYLES[style], 400).examples["ids"]
    turns = [Turn(entry.instruction, entry.output)]
    again = prompt_ids(TOKENIZER, STYLES[style], turns, "hello", "", 900).ids
    assert again[: len(row) + 1] == [*row, END]
    assert again[len(row) + 1 :] == prompt_ids(TOKENIZER, STYLES[style], [], "hello", "", 900).ids


def test_the_system_s_text_and_earlier_turns_stand_before_the_prompt():
    chat = conversation()
    chat.turns = [Turn("hello", "hi"), Turn("hello", "ho")]
    chat.system = "be kind"
    text = TOKENIZER.decode(chat.prompt("hello").ids)
    assert text == f"be kind\n\n{HELLO}hi<|endoftext|>{HELLO}ho<|endoftext|>{HELLO}"


def test_a_model_of_characters_has_no_end_between_its_turns():
    letters = CharTokenizer("".join(sorted(set(HELLO) | set("hi"))))
    turns = [Turn("hello", "hi"), Turn("hello", "hi")]
    assert letters.decode(prompt_ids(letters, PHI3, turns, "hello", "", 900).ids) == f"{HELLO}hi{HELLO}hi{HELLO}"


@given(st.lists(st.integers(1, 12), max_size=8), st.integers(0, 120))
def test_as_many_of_the_last_turns_are_kept_as_fit(lengths, longest):
    turns = [Turn("hello", "x" * length) for length in lengths]

    def whole(n):
        return prompt_ids(TOKENIZER, PHI3, turns[len(turns) - n :], "hello", "", 10**6).ids

    if len(whole(0)) > longest:
        with pytest.raises(ValueError, match=r"it: shorten it, or leave --no-crop out|shorten the system's text"):
            prompt_ids(TOKENIZER, PHI3, turns, "hello", "", longest, refuse=True)
        return
    kept = max(n for n in range(len(turns) + 1) if len(whole(n)) <= longest)
    assert prompt_ids(TOKENIZER, PHI3, turns, "hello", "", longest) == (whole(kept), len(turns) - kept, False)


@pytest.mark.parametrize("history", [0, 1, 2, 5])
def test_the_last_turns_alone_are_read_where_a_number_is_given(history):
    turns = [Turn("hello", answer) for answer in ("one", "two", "three")]
    chat, other = conversation(512, history=history, max_new_tokens=9), conversation(512, max_new_tokens=9)
    chat.turns, other.turns = turns, turns[max(0, 3 - history) :]
    assert chat.prompt("hello") == other.prompt("hello")
    list(chat.answer("hello"))
    assert chat.forgotten == 0
    assert len(chat.turns) == 4


def test_a_long_text_leaves_an_eighth_for_the_answer_and_no_earlier_turn():
    chat = conversation(block_size=64, max_new_tokens=200)
    chat.turns = [Turn("a", "b")]
    prompts = [chat.prompt("x" * n) for n in range(65)]
    assert len(prompts[-1].ids) == 64 - 8
    assert all(prompt.forgotten for prompt in prompts if len(prompt.ids) > 32)
    assert {prompt.forgotten for prompt in prompts} == {0, 1}
    assert [prompt.cropped for prompt in prompts] == sorted(prompt.cropped for prompt in prompts)
    assert prompts[-1] == next(prompt for prompt in prompts if prompt.cropped)


@given(st.text("ab é☕x", min_size=60, max_size=120), st.integers(30, 60))
def test_a_text_that_is_too_long_keeps_its_end_within_the_prompt(text, longest):
    found = prompt_ids(TOKENIZER, PHI3, [], text, "", longest)
    assert longest - 4 <= len(found.ids) <= longest
    assert found.cropped
    before, after = HELLO.split("hello")
    read = TOKENIZER.decode(found.ids)
    assert read.startswith(before)
    assert read.endswith(after)
    kept = read.removeprefix(before).removesuffix(after)
    assert text.endswith(kept)
    assert len(kept) < len(text)


def test_forgotten_turns_are_counted_and_stay_in_the_conversation():
    chat = conversation(block_size=100, max_new_tokens=8)
    chat.turns = [Turn("hello", f"answer {i}") for i in range(9)]
    list(chat.answer("hello"))
    assert 0 < chat.forgotten < 9
    assert len(chat.turns) == 10
    chat.reset()
    list(chat.answer("hello"))
    assert chat.forgotten == 0


def test_reset_forgets_the_turns_and_keeps_the_system_s_text():
    chat = conversation()
    chat.system, chat.turns = "be kind", [Turn("hello", "hi")]
    chat.reset()
    assert TOKENIZER.decode(chat.prompt("hello").ids) == f"be kind\n\n{HELLO}"


def test_a_text_that_is_too_long_is_cropped_and_told_or_refused_by_the_call():
    chat = conversation(block_size=32, refuse=True)
    with pytest.raises(
        ValueError, match=r"^the text has \d+ tokens, and the model reads at most \d+ of it: shorten it"
    ):
        chat.answer("a very long text " * 10)
    chat = conversation(block_size=32)
    list(chat.answer("a very long text " * 10))
    words = "the text is longer than the 32 tokens that the model reads at once: its beginning is left out"
    assert chat.notes == [words]
    chat.reset()
    list(chat.answer("hello"))
    assert chat.notes == []
    chat.system = "a very long text " * 10
    with pytest.raises(ValueError, match=r"^the prompt has \d+ tokens without any text of yours, more than .*system's"):
        chat.answer("hello")
    assert len(chat.turns) == 1


def test_a_special_token_in_a_text_of_the_user_is_refused():
    chat = conversation()
    with pytest.raises(ValueError, match=r"^the text holds the special token '<\|endoftext\|>': leave it out$"):
        chat.answer("a<|endoftext|>")
    chat.system = "<|endoftext|>"
    with pytest.raises(ValueError, match=r"^the system's text holds the special token"):
        chat.answer("hello")
    assert not chat.turns


def test_an_unknown_character_is_counted_from_the_beginning_of_the_user_s_text():
    chat = Conversation(model_of(), CharTokenizer("".join(sorted(set(HELLO)))), PHI3)
    with pytest.raises(ValueError, match=r"'\\xe9' at position 3 "):
        chat.answer("holé")


# ---- the answer ----------------------------------------------------------------------------------------------------


def test_an_answer_is_what_the_model_writes_and_is_kept():
    chat = conversation(max_new_tokens=12)
    ids = chat.prompt("hello").ids
    expected = generate(chat.model, np.array(ids), 12, chat.sampling, eos_id=END)[len(ids) :]
    answer = "".join(chat.answer("hello"))
    assert answer == TOKENIZER.decode([i for i in expected.tolist() if i != END]).strip()
    assert chat.turns == [Turn("hello", answer)]


def test_an_answer_ends_at_end_of_text():
    pieces, chat = said([*TOKENIZER.encode("hi"), END, *TOKENIZER.encode("more")])
    assert "".join(pieces) == "hi"
    assert chat.turns == [Turn("hello", "hi")]


@pytest.mark.parametrize("style", STYLES)
def test_an_answer_ends_where_the_model_begins_the_next_prompt(style):
    for marker in stop_strings(STYLES[style]):
        pieces, chat = said(TOKENIZER.encode(f"hi there\n{marker} x"), STYLES[style])
        assert "".join(pieces) == "hi there"
        assert chat.turns == [Turn("hello", "hi there")]
    assert stop_strings(PHI3) == ("\n<|user|>", "\n<|assistant|>:")


@given(st.text(" \nab<é", max_size=20))
def test_an_answer_has_no_white_space_around_it_and_one_piece_for_each_token(text):
    ids = [*TOKENIZER.encode(text), END]
    pieces, chat = said(ids)
    assert "".join(pieces) == text.strip() == chat.turns[0].assistant
    assert len(pieces) >= len(ids)


def test_an_answer_that_may_have_no_more_tokens_says_so():
    ids = TOKENIZER.encode("hi there")
    _, chat = said(ids)
    assert chat.cut == len(ids)
    assert chat.ending == f"the answer is cut after {len(ids)} tokens, the most that it may have (--max-new-tokens)"
    for end in ([END], TOKENIZER.encode("\n<|user|>")):
        _, chat = said([*ids, *end])
        assert (chat.cut, chat.ending) == (0, "")
    chat = conversation(block_size=32, max_new_tokens=100)
    list(chat.answer("hello"))
    assert chat.cut == 32 - len(chat.prompt("hello").ids)
    assert "because the model can read no more" in chat.ending
    pieces = chat.answer("hello")
    next(pieces)
    pieces.close()
    assert chat.cut == 0


def test_an_answer_ends_before_a_stop_string_of_the_user():
    chat = Conversation(Parrot([*TOKENIZER.encode("one. two."), END]), TOKENIZER, PHI3, stop=["."])
    assert "".join(chat.answer("hello")) == "one"


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_came():
    chat = conversation(max_new_tokens=12)
    pieces = chat.answer("hello")
    said = next(pieces) + next(pieces)
    pieces.close()
    assert chat.turns == [Turn("hello", said)]


def test_an_answer_that_spells_a_special_token_can_be_read_again():
    spelled = TOKENIZER.encode_ordinary("a <|endoftext|> b")
    assert END not in spelled
    pieces, chat = said(spelled)
    assert "".join(pieces) == "a <|endoftext|> b"
    ids = chat.prompt("hello").ids
    assert ids.count(END) == 1  # the one after the answer


def test_scores_of_nan_keep_no_turn():
    chat = Conversation(Parrot([*TOKENIZER.encode("hi"), None]), TOKENIZER, PHI3)
    with pytest.raises(ValueError, match="NaN or infinite"):
        list(chat.answer("hello"))
    assert not chat.turns
