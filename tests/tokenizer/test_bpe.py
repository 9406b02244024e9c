"""`Tokenizer`: published ids, round trips, special tokens, offsets, and the errors of encoding and decoding."""

import hashlib
import re
from itertools import pairwise

import numpy as np
import pytest
from definition import BYTE_ID, BYTE_NAMES, BYTES, TEXTS, VOCAB
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import Tokenizer, TokenizerError, byte_ids, cache, pattern
from tinygrad_llm.tokenizer.bpe import MANY_IDS

EOT = "<|endoftext|>"


# ---- published numbers -------------------------------------------------------------------------------------------


def test_shipped_merges_are_gpt2s(gpt2):
    digest = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
    assert hashlib.sha256(VOCAB.read_bytes()).hexdigest() == digest
    assert (gpt2.n_vocab, len(gpt2.merges), gpt2.eot_token) == (50257, 50000, 50256)
    assert gpt2.special_tokens == {EOT: 50256}
    assert gpt2.kind == "bpe"


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", ""),
        ("Hello, do you like tea? <|endoftext|>", "15496 11 466 345 588 8887 30 220 50256"),
        ("Hello,", "15496 11"),
        ("Implementations", "3546 26908 602"),
        (
            "asdf asdfasdf a!!, @aba 9asdf90asdfk",
            "292 7568 355 7568 292 7568 257 3228 11 2488 15498 860 292 7568 3829 292 7568 74",
        ),
        ("This is some text", "1212 318 617 2420"),
        ("Akwirw ier", "33901 86 343 86 220 959"),
        (" and established himself in a", "290 4920 2241 287 257"),
    ],
)
def test_encode_gives_published_ids(gpt2, text, ids):
    expected = [int(number) for number in ids.split()]
    assert gpt2.encode(text, allowed_special={EOT}) == expected
    assert gpt2.decode(expected) == text


def test_first_256_ids_are_the_bytes_in_gpt2s_order(gpt2):
    assert gpt2.decode_bytes(range(256)) == bytes(BYTES) == byte_ids.BYTES
    assert byte_ids.BYTE_NAMES == BYTE_NAMES == sorted(BYTE_NAMES)


# ---- round trips -------------------------------------------------------------------------------------------------


@given(text=st.text())
def test_every_text_comes_back(gpt2, text):
    ids = gpt2.encode(text, disallowed_special=())
    assert gpt2.decode(ids) == text
    assert all(0 <= token_id < gpt2.n_vocab for token_id in ids)


@pytest.mark.parametrize("text", ["\x85", "\u2028", "\x1c", "\r\n", "\x00", "\U0010ffff", "\ufeff"])
def test_odd_characters_come_back(gpt2, text):
    assert gpt2.decode(gpt2.encode(f"a{text}{text} b{text}")) == f"a{text}{text} b{text}"


@given(data=st.binary())
def test_decode_replaces_bytes_that_are_not_utf8(gpt2, data):
    ids = list(data.translate(byte_ids.BYTE_IDS))
    assert gpt2.decode_bytes(ids) == data
    assert gpt2.decode(ids) == data.decode("utf-8", errors="replace")


@given(
    data=st.binary() | st.lists(st.sampled_from([b"a", b" the", b"\xff", "é".encode(), b"\xc3", b"\n"])).map(b"".join)
)
def test_encode_bytes_of_any_bytes_come_back(gpt2, data):
    assert gpt2.decode_bytes(gpt2.encode_bytes(data)) == data


@given(text=TEXTS)
def test_encode_bytes_of_utf8_equals_encode(gpt2, text):
    assert gpt2.encode_bytes(text.encode()) == gpt2.encode(text, disallowed_special=())


def test_encode_bytes_makes_each_byte_outside_utf8_a_token(gpt2):
    def ids(*data):
        return [BYTE_ID[byte] for byte in data]

    the = gpt2.encode(" the")
    assert gpt2.encode_bytes(b" the\xff\xfe the") == [*the, *ids(0xFF, 0xFE), *the]
    assert gpt2.encode_bytes("é".encode()[:1]) == ids(0xC3)
    assert gpt2.encode_bytes("\ud83d".encode(errors="surrogatepass")) == ids(0xED, 0xA0, 0xBD)
    assert 50256 not in gpt2.encode_bytes(EOT.encode())
    for data in (bytes(range(256)), b"\xff\xc3" * 30_000, b"\xffa" * 30_000):
        assert gpt2.decode_bytes(gpt2.encode_bytes(data)) == data


@pytest.mark.slow
@pytest.mark.parametrize("part", ["a", "^", " ", "\n", "'s", "7"])
def test_a_megabyte_of_one_piece_is_not_quadratic(gpt2, part):
    text = part * (1_000_000 // len(part))
    assert gpt2.decode(gpt2.encode(text)) == text


# ---- words and merges, shown -------------------------------------------------------------------------------------


@given(word=st.text(max_size=12))
def test_explain_word_begins_with_bytes_and_merges_once_per_step(gpt2, word):
    steps = gpt2.explain_word(word)
    assert steps[0] == [BYTE_ID[byte] for byte in word.encode()]
    for before, after in pairwise(steps):
        assert len(after) == len(before) - 1
        assert gpt2.decode_bytes(after) == word.encode()
    if len(gpt2.split(word)) == 1:
        assert steps[-1] == gpt2.encode(word)


def test_split_gives_the_words_before_any_merge(gpt2):
    assert gpt2.split("I'll  buy 12é!\n") == ["I", "'ll", " ", " buy", " 12", "é", "!", "\n"]
    with pytest.raises(TokenizerError, match="surrogate"):
        gpt2.split("\ud800")


# ---- special tokens ----------------------------------------------------------------------------------------------


def test_special_token_in_a_text_raises_unless_allowed(gpt2):
    with pytest.raises(TokenizerError, match=re.escape(f"'{EOT}' at position 1;")):
        gpt2.encode(f"a{EOT}b{EOT}")  # its first place is named
    assert gpt2.encode(f"a{EOT}b", allowed_special="all") == [64, 50256, 65]
    assert gpt2.encode(f"a{EOT}b", allowed_special={EOT}) == [64, 50256, 65]
    plain = gpt2.encode(f"a{EOT}b", disallowed_special=())
    assert 50256 not in plain
    assert gpt2.decode(plain) == f"a{EOT}b"


def test_only_named_special_tokens_are_allowed_or_refused():
    tokenizer = Tokenizer([], ("<x>", "<y>"))
    with pytest.raises(TokenizerError, match="'<y>' at position 3;"):
        tokenizer.encode("<x><y>", allowed_special={"<x>"})
    assert tokenizer.encode("<x><y>", {"<x>"}, ()) == [256, *tokenizer.encode("<y>", disallowed_special=())]
    assert tokenizer.encode("<y>", disallowed_special={"<x>"}) == tokenizer.encode("<y>", (), ())
    # As in tiktoken: a text that is refused by name is refused, even if it is allowed or not special.
    with pytest.raises(TokenizerError, match="'<x>'"):
        tokenizer.encode("<x>", allowed_special="all", disallowed_special={"<x>"})
    with pytest.raises(TokenizerError, match="'swearword'"):
        tokenizer.encode("swearword", disallowed_special={"swearword"})


def test_longer_of_two_special_tokens_is_taken():
    tokenizer = Tokenizer([], ("<x>", "<x><x>"))
    assert tokenizer.encode("<x><x><x>", allowed_special="all") == [257, 256]


def test_special_token_may_contain_characters_of_patterns():
    tokenizer = Tokenizer([], ("(.*)|[a]\\", "</script>"))
    assert tokenizer.encode("(.*)|[a]\\</script>", allowed_special="all") == [256, 257]


@pytest.mark.parametrize("option", ["allowed_special", "disallowed_special"])
def test_special_option_given_as_one_token_is_refused(gpt2, option):
    with pytest.raises(TokenizerError, match=f'{option} must be "all" or a set'):
        gpt2.encode("a", **{option: EOT})


def test_tokenizer_without_special_tokens_has_no_end_of_text():
    tokenizer = Tokenizer([], ())
    assert tokenizer.eot_token is None
    assert tokenizer.decode(tokenizer.encode(EOT, allowed_special="all")) == EOT


def test_with_special_tokens_adds_the_next_ids_and_changes_no_other(gpt2):
    longer = gpt2.with_special_tokens(["<|user|>", "<|end of turn|>"])
    assert longer.special_tokens == {EOT: 50256, "<|user|>": 50257, "<|end of turn|>": 50258}
    assert longer.n_vocab == 50259
    assert longer.encode("<|user|>Hello,<|end of turn|>", "all") == [50257, 15496, 11, 50258]
    assert longer.decode([50258, 11]) == "<|end of turn|>,"
    assert (gpt2.n_vocab, gpt2.special_tokens) == (50257, {EOT: 50256})
    for tokens, message in (
        ([EOT], "exists already, with id 50256"),
        (["a", "a"], "given twice"),
        ("ab", "must be a list of texts"),
    ):
        with pytest.raises(TokenizerError, match=re.escape(message)):
            gpt2.with_special_tokens(tokens)


def test_published_ids_with_added_special_tokens(gpt2):
    names = ("MyNewToken_1", "MyNewToken_2")
    longer = Tokenizer(gpt2.merges, (EOT, *names))
    assert longer.special_tokens == {EOT: 50256, names[0]: 50257, names[1]: 50258}
    plain = [15496, 11, 2011, 3791, 30642, 62, 16, 318, 257, 649, 11241, 13, 220, 50256]
    assert longer.encode(gpt2.decode(plain), {EOT}, disallowed_special=()) == plain
    special = [36674, 2420, 351, 220, 50257, 290, 220, 50258, 13, 220, 50256]
    assert longer.encode(longer.decode(special), allowed_special="all") == special


# ---- the other names of tiktoken ---------------------------------------------------------------------------------


def test_encode_ordinary_reads_special_tokens_as_plain_text(gpt2):
    text = f"a{EOT} b"
    assert gpt2.encode_ordinary(text) == gpt2.encode(text, disallowed_special=())
    assert gpt2.eot_token not in gpt2.encode_ordinary(text)
    assert gpt2.encode_ordinary("hello world") == [31373, 995]


def test_encode_single_token_is_the_inverse_of_decoding_one_id(gpt2):
    for token_id in [*range(300), 31373, 50255, 50256]:
        assert gpt2.encode_single_token(gpt2.decode_bytes([token_id])) == token_id
    assert gpt2.encode_single_token("hello") == 31373
    assert gpt2.encode_single_token(EOT) == 50256
    for text in ("hello world", "", b"", "\ud800"):
        with pytest.raises(KeyError, match="is not one token"):
            gpt2.encode_single_token(text)
    twice = Tokenizer([(64, 65), (65, 66), (256, 66), (64, 257)])  # a, b, c: ids 258 and 259 both spell abc
    assert twice.decode([258]) == twice.decode([259]) == "abc"
    assert twice.encode_single_token("abc") == 258


@pytest.mark.parametrize("kind", [list, tuple, iter, np.array, lambda ids: np.array(ids, np.uint16)])
def test_decode_bytes_joins_the_tokens_of_any_row_of_ids(gpt2, monkeypatch, kind):
    rng = np.random.default_rng(0)
    longer = gpt2.with_special_tokens(["<|more|>"])
    monkeypatch.setattr(cache, "BLOCK", 170)
    for n in (0, 1, 2, MANY_IDS - 1, MANY_IDS, 340, 341):
        ids = [50257, *rng.integers(0, 50258, n).tolist()][:n]
        plain = b"".join([longer._bytes[i] for i in ids])
        assert longer.decode_bytes(kind(ids) if ids else ids) == plain


@pytest.mark.parametrize("wrong", [-1, -50257, -50258, -(10**6), 50257, 2 * 50257, 10**30, True, 1.0, "1", None, [1]])
@pytest.mark.parametrize("around", [[], [1, 2], [0, 1] * MANY_IDS])
def test_decode_refuses_what_is_no_id_in_any_place(gpt2, wrong, around):
    for ids in ([wrong, *around], [*around, wrong]):
        with pytest.raises(TokenizerError, match=r"^token id .* is unknown: ids are integers from 0 to 50256"):
            gpt2.decode(ids)


def test_decode_treats_bytes_that_are_not_utf8_as_asked(gpt2):
    ids = gpt2.encode_bytes(b"a\xe4\xbdb")
    assert gpt2.decode(ids) == gpt2.decode(ids, errors="replace") == "a\ufffdb"
    assert gpt2.decode(ids, errors="ignore") == "ab"
    assert gpt2.decode(ids, errors="surrogateescape") == "a\udce4\udcbdb"
    with pytest.raises(UnicodeDecodeError):
        gpt2.decode(ids, errors="strict")


def test_decode_batch_decodes_row_by_row(gpt2):
    rows = [gpt2.encode("hello world"), [], np.array(gpt2.encode_bytes(b"\xe4"))]
    assert gpt2.decode_batch(rows) == ["hello world", "", "\ufffd"]
    assert gpt2.decode_batch(rows, errors="ignore") == ["hello world", "", ""]


def test_a_tokenizer_prints_its_sizes_and_special_tokens(gpt2):
    assert repr(gpt2) == f"Tokenizer(50257 ids: 256 bytes, 50000 merges, special: {EOT} = 50256)"
    assert repr(Tokenizer([(1, 2)], [])) == "Tokenizer(257 ids: 256 bytes, 1 merges, special: none)"
    assert repr(Tokenizer([], ["abcd", *"exyz"])).endswith("special: abcd = 256, e = 257, x = 258 and 2 more)")


# ---- offsets -----------------------------------------------------------------------------------------------------


@given(ids=st.lists(st.integers(0, 1000) | st.sampled_from([50256, *range(100, 256)]), max_size=20))
def test_offset_is_the_character_that_holds_the_first_byte(gpt2, ids):
    """The oracle cuts the bytes after each token's first byte: that byte is in the last character of what is left."""
    text, offsets = gpt2.decode_with_offsets(ids)
    assert text == gpt2.decode(ids)
    before = 0
    for token_id, offset in zip(ids, offsets, strict=True):
        data = gpt2.decode_bytes(ids)[: before + 1]
        assert offset == len(data.decode(errors="replace")) - 1
        before += len(gpt2.decode_bytes([token_id]))


def test_offsets_by_hand(gpt2):
    assert gpt2.decode_with_offsets([]) == ("", [])
    assert gpt2.decode_with_offsets(gpt2.encode("Hi 👩 there")) == ("Hi 👩 there", [0, 2, 3, 4])
    assert gpt2.decode_with_offsets([50256, 64]) == (f"{EOT}a", [0, len(EOT)])
    ids = list(b"\xed\xa1a\xf0\x9f\x91\xed".translate(byte_ids.BYTE_IDS))
    assert gpt2.decode_with_offsets(ids) == ("\ufffd\ufffda\ufffd\ufffd", [0, 1, 2, 3, 3, 3, 4])


def test_offsets_and_other_results_equal_tiktokens(gpt2):
    tiktoken = pytest.importorskip("tiktoken")
    ranks = {gpt2.decode_bytes([token_id]): token_id for token_id in range(50256)}
    theirs = tiktoken.Encoding("gpt2", pat_str=pattern.PATTERN, mergeable_ranks=ranks, special_tokens={EOT: 50256})

    @given(text=TEXTS)
    def same(text):
        ids = gpt2.encode(text, disallowed_special=())
        assert gpt2.decode_with_offsets(ids) == theirs.decode_with_offsets(ids)
        assert gpt2.encode_ordinary(text) == theirs.encode_ordinary(text)
        assert gpt2.decode_batch([ids, ids[1:]]) == theirs.decode_batch([ids, ids[1:]])
        for errors in ("replace", "ignore", "backslashreplace"):
            assert gpt2.decode(ids[1:], errors) == theirs.decode(ids[1:], errors)

    same()
    for token in (b" the", "hello", "hello world", "", EOT, b"\xe4", "\n\n"):
        found = []
        for tokenizer in (gpt2, theirs):
            try:
                found.append(tokenizer.encode_single_token(token))
            except KeyError:
                found.append(None)
        assert found[0] == found[1], token


# ---- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 50257, 2**70, True, False, 1.0, "1", None, np.float64(1), np.True_])
def test_unknown_id_is_named(gpt2, bad):
    for decode in (gpt2.decode, gpt2.decode_bytes):
        with pytest.raises(TokenizerError, match=f"{re.escape(repr(bad))} is unknown.*50257"):
            decode([0, bad])


def test_decode_takes_numpys_integers(gpt2):
    assert gpt2.decode(np.array([15496, 11], dtype=np.uint16)) == "Hello,"


def test_half_a_surrogate_pair_is_named_and_the_advice_works(gpt2):
    text = "ab\ud83d c"
    with pytest.raises(TokenizerError, match=r"U\+D83D at position 2"):
        gpt2.encode(text)
    assert gpt2.encode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def test_encode_refuses_the_wrong_type(gpt2):
    with pytest.raises(TokenizerError, match="got bytes"):
        gpt2.encode(b"abc")
    with pytest.raises(TokenizerError, match="got str"):
        gpt2.encode_bytes("text")


@pytest.mark.parametrize(
    ("merges", "message"),
    [
        ([(0, 256)], "merge 0 joins 0 and 256; so far only 0 … 255 exist"),
        ([(0, 1), (-1, 2)], "merge 1 joins -1"),
        ([(0, 1), (0, 1)], "merge 1 .* twice"),
        ([(0, True)], "merge 0 is not a pair of integers"),
        ([(0, 1.0)], "merge 0 is not a pair of integers"),
        ([(0, 1, 2)], "merge 0 is not a pair of integers"),
        ([7], "merge 0 is not a pair of integers"),
        (["ab"], "merge 0 is not a pair of integers"),
        # Each merge doubles the token before it: sixty merges that would spell 2⁶⁰ bytes.
        ([(0, 0)] + [(256 + k, 256 + k) for k in range(60)], "more than"),
    ],
)
def test_wrong_merges_are_refused(merges, message):
    with pytest.raises(TokenizerError, match=message):
        Tokenizer(merges)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("a", "a"), "'a' is given twice"),
        (("",), "empty"),
        ((7,), "got int"),
        (("\ud800",), "surrogate"),
        ("abc", "must be a list of texts"),
    ],
)
def test_wrong_special_tokens_are_refused(tokens, message):
    with pytest.raises(TokenizerError, match=message):
        Tokenizer([], tokens)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.train("abc", 300, tokens)
