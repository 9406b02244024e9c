"""`CharTokenizer`: ids by the sorted alphabet, and its errors."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer, TokenizerError


@given(text=st.text(min_size=1))
def test_ids_are_indices_into_the_sorted_characters(text):
    tokenizer = CharTokenizer.train(text)
    order = sorted(set(text))
    assert tokenizer.n_vocab == len(order)
    ids = tokenizer.encode(text)
    assert ids == [order.index(character) for character in text]
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode_bytes(ids) == text.encode()
    assert [tokenizer.decode_bytes([i]) for i in ids] == [character.encode() for character in text]
    assert tokenizer.split(text) == list(text)
    assert tokenizer.explain_word(text) == [ids]  # nothing merges


def test_several_texts_share_one_alphabet():
    assert CharTokenizer.train(["hello", "", "world"]).characters == "dehlorw"


def test_a_text_that_is_the_name_of_a_file_is_not_learned(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("corpus.txt").write_text("some words")
    for train in (CharTokenizer.train, lambda text: Tokenizer.train(text, 300)):
        with pytest.raises(TokenizerError, match=r"^the text 'corpus.txt' is the name of a file: give its text, or"):
            train("corpus.txt")
        train(["corpus.txt", "corpus.txt\n"])  # texts in a list may be words
    for wrong in (Path("corpus.txt"), None):
        with pytest.raises(TokenizerError, match=f"a text must be a str, got {type(wrong).__name__}"):
            CharTokenizer.train(wrong)


def test_arguments_are_those_of_the_byte_pair_tokenizer():
    for tokenizer in (CharTokenizer.train("<|endoftext|>"), Tokenizer([])):
        ids = tokenizer.encode("<|endoftext|>", allowed_special=frozenset(), disallowed_special=())
        assert tokenizer.decode(ids) == "<|endoftext|>"
    characters = CharTokenizer.train("<|endoftext|>")
    assert (characters.kind, characters.eot_token, characters.special_tokens) == ("char", None, {})


def test_names_of_tiktoken_are_there_too():
    tokenizer = CharTokenizer.train("abcé")
    assert tokenizer.encode_ordinary("bé") == tokenizer.encode("bé") == [1, 3]
    assert tokenizer.decode([1, 3], errors="strict") == "bé"
    assert tokenizer.decode_batch([[1, 3], []], errors="ignore") == ["bé", ""]
    assert tokenizer.encode_single_token("é") == tokenizer.encode_single_token("é".encode()) == 3
    for text in ("d", "ab", "", b"\xc3"):
        with pytest.raises(KeyError, match="is not one of the 4 characters"):
            tokenizer.encode_single_token(text)
    assert repr(tokenizer) == "CharTokenizer(4 ids: 'abcé')"
    assert len(repr(CharTokenizer("".join(map(chr, range(32, 9000)))))) < 80


@pytest.mark.parametrize(("text", "message"), [("abca?", "'?' at position 4"), ("\ud800", r"'\ud800' at position 0")])
def test_unknown_character_is_named_with_its_position(text, message):
    with pytest.raises(TokenizerError, match=re.escape(message) + ".*3 characters"):
        CharTokenizer.train("abc").encode(text)


@pytest.mark.parametrize("bad", [-1, 3, True, 1.0, "a"])
def test_unknown_id_is_named(bad):
    tokenizer = CharTokenizer.train("abc")
    for decode in (tokenizer.decode, tokenizer.decode_bytes):
        with pytest.raises(TokenizerError, match=f"{bad!r} is unknown.*n_vocab is 3"):
            decode([bad])


@pytest.mark.parametrize("texts", ["", [], ["", ""], b"abc", ["\ud800"]])
def test_texts_without_characters_are_refused(texts):
    with pytest.raises(TokenizerError):
        CharTokenizer.train(texts)


def test_repeated_character_is_named():
    with pytest.raises(TokenizerError, match="'b' occurs twice"):
        CharTokenizer("abcb")
