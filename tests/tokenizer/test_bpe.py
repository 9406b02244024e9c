import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import Tokenizer, TokenizerError, bpe

VOCAB = Path(__file__).parents[2] / "data" / "gpt2" / "vocab.bpe"
EOT = "<|endoftext|>"


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


def byte_names():
    """GPT-2's name of each byte: itself where it prints, else the next free character from U+0100 on."""
    names, fresh = {}, 0x100
    for byte in range(256):
        if byte <= 0x20 or 0x7F <= byte <= 0xA0 or byte == 0xAD:
            names[byte] = chr(fresh)
            fresh += 1
        else:
            names[byte] = chr(byte)
    return names


# --- published numbers -----------------------------------------------------------------------------------


def test_the_shipped_merges_are_those_of_gpt2():
    digest = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"
    assert hashlib.sha256(VOCAB.read_bytes()).hexdigest() == digest


def test_gpt2_has_50257_tokens_and_the_last_ends_a_text(gpt2):
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
def test_published_ids(gpt2, text, ids):
    expected = [int(number) for number in ids.split()]
    assert gpt2.encode(text, allowed_special={EOT}) == expected
    assert gpt2.decode(expected) == text


@pytest.mark.parametrize(
    "ids",
    [
        "15496 11 466 345 588 8887 30 220 50256 554 262 4252 18250 8812 2114 1659 617 34680 27271 13",
        "15496 11 995 13 1148 428 438 257 1332 30",
    ],
)
def test_published_ids_come_back_from_their_text(gpt2, ids):
    expected = [int(number) for number in ids.split()]
    assert gpt2.encode(gpt2.decode(expected), allowed_special="all") == expected


def test_added_special_tokens_take_the_next_ids_and_change_no_other(gpt2):
    names = ("MyNewToken_1", "MyNewToken_2")
    longer = Tokenizer(gpt2.merges, (EOT, *names))
    assert longer.special_tokens == {EOT: 50256, names[0]: 50257, names[1]: 50258}
    plain = [15496, 11, 2011, 3791, 30642, 62, 16, 318, 257, 649, 11241, 13, 220, 50256]
    assert longer.encode(gpt2.decode(plain), {EOT}, disallowed_special=()) == plain
    special = [36674, 2420, 351, 220, 50257, 290, 220, 50258, 13, 220, 50256]
    assert longer.encode(longer.decode(special), allowed_special="all") == special


# --- nothing is lost -------------------------------------------------------------------------------------


@given(text=st.text())
def test_every_text_comes_back(gpt2, text):
    ids = gpt2.encode(text, disallowed_special=())
    assert gpt2.decode(ids) == text
    assert all(0 <= token_id < gpt2.n_vocab for token_id in ids)


@given(data=st.binary())
def test_every_bytes_come_back_and_what_is_no_utf8_is_replaced_in_text(gpt2, data):
    ids = list(data.translate(bpe.BYTE_IDS))
    assert gpt2.decode_bytes(ids) == data
    assert gpt2.decode(ids) == data.decode("utf-8", errors="replace")


def test_the_first_256_ids_are_the_bytes_in_the_order_of_their_names(gpt2):
    names = byte_names()
    order = sorted(range(256), key=names.__getitem__)
    assert gpt2.decode_bytes(range(256)) == bytes(order)
    assert [names[byte] for byte in order] == bpe.BYTE_NAMES


@pytest.mark.parametrize("text", ["\x85", "\u2028", "\x1c", "\r\n", "\x00", "\U0010ffff", "\ufeff"])
def test_odd_characters_come_back(gpt2, text):
    assert gpt2.decode(gpt2.encode(f"a{text}{text} b{text}")) == f"a{text}{text} b{text}"


@pytest.mark.slow
@pytest.mark.parametrize("part", ["a", "^", " ", "\n", "'s", "7"])
def test_a_megabyte_of_one_thing_is_not_quadratic(gpt2, part):
    text = part * (1_000_000 // len(part))
    assert gpt2.decode(gpt2.encode(text)) == text


def test_what_the_caller_does_to_the_ids_stays_with_the_caller(gpt2):
    gpt2.encode(" tea").append(1)
    assert gpt2.encode(" tea") == [8887]


# --- special tokens --------------------------------------------------------------------------------------


def test_a_special_token_in_a_text_is_an_error_unless_asked_for(gpt2):
    with pytest.raises(TokenizerError, match=re.escape(f"'{EOT}' at position 1")):
        gpt2.encode(f"a{EOT}b")
    assert gpt2.encode(f"a{EOT}b", allowed_special="all") == [64, 50256, 65]
    assert gpt2.encode(f"a{EOT}b", allowed_special={EOT}) == [64, 50256, 65]
    plain = gpt2.encode(f"a{EOT}b", disallowed_special=())
    assert 50256 not in plain
    assert gpt2.decode(plain) == f"a{EOT}b"


def test_only_the_special_tokens_named_are_allowed_or_refused():
    tokenizer = Tokenizer([], ("<x>", "<y>"))
    with pytest.raises(TokenizerError, match="'<y>' at position 3"):
        tokenizer.encode("<x><y>", allowed_special={"<x>"})
    assert tokenizer.encode("<x><y>", {"<x>"}, ()) == [256, *tokenizer.encode("<y>", disallowed_special=())]
    assert tokenizer.encode("<y>", disallowed_special={"<x>"}) == tokenizer.encode("<y>", (), ())
    # As in tiktoken: what is refused by name is refused, allowed or not, special or not.
    with pytest.raises(TokenizerError, match="'<x>'"):
        tokenizer.encode("<x>", allowed_special="all", disallowed_special={"<x>"})
    with pytest.raises(TokenizerError, match="'swearword'"):
        tokenizer.encode("swearword", disallowed_special={"swearword"})


def test_of_two_special_tokens_the_longer_is_taken():
    tokenizer = Tokenizer([], ("<x>", "<x><x>"))
    assert tokenizer.encode("<x><x><x>", allowed_special="all") == [257, 256]


def test_a_special_token_may_hold_characters_that_patterns_use():
    tokenizer = Tokenizer([], ("(.*)|[a]\\", "</script>"))
    assert tokenizer.encode("(.*)|[a]\\</script>", allowed_special="all") == [256, 257]


@pytest.mark.parametrize("option", ["allowed_special", "disallowed_special"])
def test_one_special_token_must_still_be_given_in_a_set(gpt2, option):
    with pytest.raises(TokenizerError, match=option):
        gpt2.encode("a", **{option: EOT})


def test_without_special_tokens_nothing_ends_a_text():
    tokenizer = Tokenizer([], ())
    assert tokenizer.eot_token is None
    assert tokenizer.decode(tokenizer.encode(EOT, allowed_special="all")) == EOT


# --- errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 50257, 2**70, True, False, 1.0, "1", None, np.float64(1), np.True_])
def test_an_unknown_id_is_named(gpt2, bad):
    for decode in (gpt2.decode, gpt2.decode_bytes):
        with pytest.raises(TokenizerError, match=f"{re.escape(repr(bad))} is unknown.*50257"):
            decode([0, bad])


def test_numpy_ids_are_ids(gpt2):
    assert gpt2.decode(np.array([15496, 11], dtype=np.uint16)) == "Hello,"


def test_half_a_surrogate_pair_is_named_and_the_advice_works(gpt2):
    text = "ab\ud83d c"
    with pytest.raises(TokenizerError, match=r"U\+D83D at position 2"):
        gpt2.encode(text)
    assert gpt2.encode(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def test_bytes_are_no_text(gpt2):
    with pytest.raises(TokenizerError, match="not bytes"):
        gpt2.encode(b"abc")


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
        # Each merge doubles the token before it: sixty lines that would spell 2⁶⁰ bytes.
        ([(0, 0)] + [(256 + k, 256 + k) for k in range(60)], "more than"),
    ],
)
def test_wrong_merges(merges, message):
    with pytest.raises(TokenizerError, match=message):
        Tokenizer(merges)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (("a", "a"), "'a' is given twice"),
        (("",), "empty"),
        ((7,), "not int"),
        (("\ud800",), "surrogate"),
        ("abc", "give a list"),
    ],
)
def test_wrong_special_tokens(tokens, message):
    with pytest.raises(TokenizerError, match=message):
        Tokenizer([], tokens)
    with pytest.raises(TokenizerError, match=message):
        Tokenizer.train("abc", 300, tokens)


# --- merges files ----------------------------------------------------------------------------------------


def merges_file(folder, text):
    path = folder / "merges.bpe"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_a_merges_file_has_one_header_and_any_line_ends(tmp_path, end, last):
    lines = ["#version: 0.2", "# #", "Ġ t", "## ##"]
    tokenizer = Tokenizer.from_merges_file(merges_file(tmp_path, end.join(lines) + end * last))
    hash_id, space, t = (tokenizer.encode(text)[0] for text in "# t")
    assert list(tokenizer.merges) == [(hash_id, hash_id), (space, t), (256, 256)]
    assert tokenizer.encode("#### t") == [258, 257]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: expected a header"),
        ("a b\n", "line 1: expected a header"),
        ("#version: 0.2\na b\nab cd\n", "line 3: .* makes the token 'cd'"),
        ("#version: 0.2\nabc d\na b\n", "line 2: .* makes the token 'abc'"),
        ("#version: 0.2\na b\nc d\na b\n", "line 4: .* 'ab' is already made"),
        ("#version: 0.2\na b\nb c\nab c\na bc\n", "line 5: .* 'abc' is already made"),
        ("#version: 0.2\na b\n\nc d\n", "line 3: expected two tokens"),
        ("#version: 0.2\na b\n\n", "line 3: expected two tokens"),
        ("#version: 0.2\na b c\n", "line 2: expected two tokens"),
        ("#version: 0.2\na\n", "line 2: expected two tokens"),
        ("#version: 0.2\na  b\n", "line 2: expected two tokens"),
        ("#version: 0.2\n a\n", "line 2: .* makes the token ''"),
        ("#version: 0.2\na b\u2028c d\n", "line 2: expected two tokens"),
        ("#version: 0.2\na b\x85\nx\n", r"line 2: .* makes the token 'b\\x85'"),
    ],
)
def test_a_wrong_merges_file_is_named_with_its_line(tmp_path, text, message):
    path = merges_file(tmp_path, text)
    with pytest.raises(TokenizerError, match=f"^{re.escape(str(path))}, {message}"):
        Tokenizer.from_merges_file(path)


def test_a_merges_file_that_is_missing_no_text_or_spells_too_much(tmp_path):
    with pytest.raises(TokenizerError, match=r"none\.bpe: cannot be read: No such file"):
        Tokenizer.from_merges_file(tmp_path / "none.bpe")
    path = merges_file(tmp_path, "#version: 0.2\na b\n")
    with pytest.raises(TokenizerError, match=re.escape(str(path))):
        Tokenizer.from_merges_file(path, special_tokens=("x", "x"))
    path.write_bytes(b"#version: 0.2\n\xff \xfe\n")
    with pytest.raises(TokenizerError, match=r"not UTF-8 text: .* at byte 14"):
        Tokenizer.from_merges_file(path)


def test_the_merges_are_found_inside_an_installed_package_first(tmp_path, monkeypatch):
    for folder, merges in ((tmp_path / "tinygrad_llm" / "data", 1), (tmp_path / "data", 2)):
        (folder / "gpt2").mkdir(parents=True)
        (folder / "gpt2" / "vocab.bpe").write_text("\n".join(["#version: 0.2", "a b", "c d"][: 1 + merges]))
    monkeypatch.setattr(bpe, "__file__", str(tmp_path / "tinygrad_llm" / "tokenizer" / "bpe.py"))
    assert len(Tokenizer.gpt2().merges) == 1
    (tmp_path / "tinygrad_llm" / "data").rename(tmp_path / "elsewhere")
    assert len(Tokenizer.gpt2().merges) == 2
