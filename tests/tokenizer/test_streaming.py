"""`StreamDecoder`: pieces that join to the decoded text, and never show half a character."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import CharTokenizer, StreamDecoder, Tokenizer, TokenizerError


@given(ids=st.lists(st.integers(0, 50256) | st.integers(0, 255), max_size=30))
def test_pieces_join_to_the_decoded_text(gpt2, ids):
    stream = StreamDecoder(gpt2)
    for _ in range(2):  # a finished decoder is ready for a new stream
        pieces = [stream.push(token_id) for token_id in ids]
        assert "".join([*pieces, stream.finish()]) == gpt2.decode(ids)


@given(text=st.text())
def test_text_streams_without_replacement_characters(gpt2, text):
    stream = StreamDecoder(gpt2)
    shown = ""
    for token_id in gpt2.encode(text, disallowed_special=()):
        shown += stream.push(token_id)
        assert text.startswith(shown)
    assert shown == text
    assert stream.finish() == ""


TEXTS = ["ab 🤖é中 \r\n", "👩‍👩‍👧 flags 🇫🇷 <|endoftext|>", "\0\u2028\U0010ffff"]
TOKENIZERS = [
    CharTokenizer.train(TEXTS),
    Tokenizer([]),  # bytes alone
    Tokenizer.train(TEXTS * 9, 300, ["<|endoftext|>", "🤖", "half \u00e9"]),
]


@pytest.mark.parametrize("tokenizer", TOKENIZERS, ids=["characters", "bytes", "byte pairs"])
@given(data=st.data())
def test_half_a_character_is_never_shown(tokenizer, data):
    ids = data.draw(st.lists(st.integers(0, tokenizer.n_vocab - 1), max_size=30))
    text = data.draw(st.sampled_from(TEXTS))
    ids += tokenizer.encode(text, disallowed_special=())
    stream = StreamDecoder(tokenizer)
    shown = ""
    for i, token_id in enumerate(ids):
        shown += stream.push(token_id)
        # Later ids do not change what was shown, and at most the first three bytes of a character wait.
        assert tokenizer.decode(ids).startswith(shown)
        waiting = tokenizer.decode(ids[: i + 1]).removeprefix(shown)
        assert len(waiting) < 4
        assert set(waiting) <= {"\ufffd"}
    assert shown + stream.finish() == tokenizer.decode(ids)
    assert shown.endswith(text)


def test_half_an_emoji_waits_and_survives_an_unknown_id(gpt2):
    ids = gpt2.encode("🤖")
    assert len(ids) > 1
    stream = StreamDecoder(gpt2)
    assert stream.push(ids[0]) == ""
    with pytest.raises(TokenizerError, match="50257"):
        stream.push(50257)
    assert [stream.push(token_id) for token_id in ids[1:]] == [""] * (len(ids) - 2) + ["🤖"]
    stream.push(ids[0])
    assert stream.finish() == "\ufffd"
    assert stream.finish() == ""
