"""Special tokens in texts from outside: the three decisions, and what the refusal says."""

from collections import Counter

import pytest

from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer, TokenizerError, encode_text, refuse_special
from tinygrad_llm.tokenizer.statistics import token_statistics

EOT = "<|endoftext|>"


def test_special_token_raises_is_allowed_or_is_plain_text():
    tokenizer = Tokenizer([])
    text = f"a{EOT}"
    assert encode_text(tokenizer, text, "allow") == [64, 256]
    assert encode_text(tokenizer, text, "plain") == tokenizer.encode(text, disallowed_special=())
    with pytest.raises(TokenizerError, match=r"^the text: holds the special token '<\|endoftext\|>' at byte 1:") as e:
        encode_text(tokenizer, text)
    for way in ("--allow-special", "--plain-special", 'special="allow"', 'special="plain"'):
        assert way in str(e.value)
    assert encode_text(tokenizer, "a") == [64]


def test_place_of_a_special_token_counts_bytes_from_the_start_of_the_file():
    with pytest.raises(TokenizerError, match=r"^f\.txt: .* at byte 103:"):
        refuse_special(Tokenizer([]), f"éa{EOT}{EOT}", "f.txt", start=100)


def test_first_defect_is_named_with_the_place_of_the_text():
    characters = CharTokenizer("ab")
    assert encode_text(characters, "ab", "allow") == encode_text(characters, "ab", "plain") == [0, 1]
    with pytest.raises(TokenizerError, match=r"^f\.txt: character 'c' at position 2"):
        encode_text(characters, "abc", where="f.txt")
    for start in (1, 7):
        with pytest.raises(TokenizerError, match=rf"^f\.txt, after byte {start}: character 'c' at position 2"):
            encode_text(characters, "abc", where="f.txt", start=start)


def test_statistics_count_the_tokens_of_texts_that_follow_each_other():
    tokenizer = Tokenizer.train("the the", 259, ["abc"])
    texts = ["the abc", "", " abc é", " the\n", "th"]  # "th" is a word that may go on
    for allowed in (False, True):
        counts = token_statistics(tokenizer, [*texts, "e"], allowed)
        encoded = [tokenizer.encode(text, "all" if allowed else (), ()) for text in (*texts, "e")]
        assert counts.tokens == Counter(token_id for ids in encoded for token_id in ids)
        assert (counts.characters, counts.bytes, counts.words) == (21, 22, 6)
        assert sum(n * times for n, times in counts.pre_tokens.items()) == sum(map(len, encoded)) - 2 * allowed
