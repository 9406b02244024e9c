"""The word tokenizers of the book's second chapter."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import SimpleTokenizerV1, SimpleTokenizerV2, TokenizerError

texts = st.text(st.sampled_from("ab-_,.:;?!\"()' \n\t\u00a0\u3000é🤖<|>") | st.characters(exclude_categories=["Cs"]))


def naive_split(text):
    """Character by character."""
    words, word, i = [], "", 0
    while i < len(text):
        mark = "--" if text.startswith("--", i) else text[i] if text[i] in ",.:;?_!\"()'" else ""
        if mark or text[i].isspace():
            words += [word, mark]
            word = ""
        else:
            word += text[i]
        i += max(1, len(mark))
    return [word for word in [*words, word] if word]


@given(text=texts)
def test_split_equals_a_split_by_hand(text):
    assert SimpleTokenizerV1.split(text) == naive_split(text)


@given(text=texts)
def test_ids_are_indices_into_the_sorted_words_and_only_white_space_is_lost(text):
    words = sorted(set(naive_split(text)))
    if not words:
        return
    tokenizer = SimpleTokenizerV1.train(text)
    assert tokenizer.n_vocab == len(words)
    assert tokenizer.encode(text) == [words.index(word) for word in naive_split(text)]
    back = tokenizer.decode(tokenizer.encode(text))
    assert naive_split(back) == naive_split(text)
    assert not re.search(r"""\s[,.:;?!"()']|\s\s|^\s|\s$""", back)


@given(known=texts, text=texts)
def test_unknown_words_raise_or_become_the_unknown_token(known, text):
    words = sorted(set(naive_split(known)))
    two = SimpleTokenizerV2.train(known)
    assert two.n_vocab == len(words) + 2
    expected = [word if word in words else "<|unk|>" for word in naive_split(text)]
    assert [two.words[i] for i in two.encode(text)] == expected
    unknown = [word for word in naive_split(text) if word not in words]
    if words and unknown:
        with pytest.raises(TokenizerError, match=re.escape(f"word {unknown[0]!a} is not among the {len(words)} words")):
            SimpleTokenizerV1.train(known).encode(text)


def test_several_texts_are_joined_by_end_of_text():
    tokenizer = SimpleTokenizerV2.train(["a cat", "the <|endoftext|> mat"])
    assert tokenizer.words == ["a", "cat", "mat", "the", "<|endoftext|>", "<|unk|>"]
    assert tokenizer.special_tokens == {"<|endoftext|>": 4, "<|unk|>": 5}
    assert tokenizer.eot_token == 4
    assert tokenizer.encode(["a cat", "the dog"]) == tokenizer.encode("a cat <|endoftext|> the dog") == [0, 1, 4, 3, 5]
    assert tokenizer.decode([0, 1, 4, 3, 5]) == "a cat <|endoftext|> the <|unk|>"


def test_word_tokenizers_print_their_size_and_first_words():
    assert repr(SimpleTokenizerV1.train("b a")) == "SimpleTokenizerV1(2 ids: ['a', 'b'])"
    assert len(repr(SimpleTokenizerV2.train(" ".join(f"w{i}" for i in range(99))))) < 80


@pytest.mark.parametrize("kind", [SimpleTokenizerV1, SimpleTokenizerV2])
@pytest.mark.parametrize("bad", [-1, 9, True, 1.0, "a"])
def test_unknown_id_is_named(kind, bad):
    with pytest.raises(TokenizerError, match=f"{bad!r} is unknown"):
        kind.train("a b").decode([bad])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "at least one"),
        (["b", "a", "b"], "'b' occurs twice"),
        (["a b"], "not one word"),
        (["it's"], "not one word"),
        ([""], "not one word"),
        ([1], "got int"),
        (["\ud800"], "half of a surrogate pair"),
        ("abc", "must be a list of words"),
    ],
)
def test_wrong_words_are_refused(words, message):
    with pytest.raises(TokenizerError, match=message):
        SimpleTokenizerV1(words)
    if words:  # SimpleTokenizerV2 has words of its own
        with pytest.raises(TokenizerError, match=message):
            SimpleTokenizerV2(words)


def test_text_of_the_wrong_type_is_refused():
    for kind in (SimpleTokenizerV1, SimpleTokenizerV2):
        for bad in ("a \ud800", b"a"):
            with pytest.raises(TokenizerError):
                kind.train("a").encode(bad)
    with pytest.raises(TokenizerError, match="at least one word"):
        SimpleTokenizerV1.train(" \n")
