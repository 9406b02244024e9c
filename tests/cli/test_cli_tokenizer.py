"""`tinygrad-llm tokenizer`."""

import json
import re
import sys
from collections import Counter

import pytest

from tinygrad_llm.datasets import TokenFile
from tinygrad_llm.tokenizer import Tokenizer

TEXT = "Hello, do you like tea?"
IDS = [15496, 11, 466, 345, 588, 8887, 30]  # GPT-2's


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


@pytest.fixture(autouse=True)
def read_once(gpt2, monkeypatch):
    """GPT-2's merges need not be read again for each test."""
    monkeypatch.setattr(Tokenizer, "gpt2", lambda: gpt2)


def test_encode_and_decode_are_gpt2s(cli):
    assert cli("tokenizer", "encode", TEXT) == (0, " ".join(map(str, IDS)) + "\nHello|,| do| you| like| tea|?\n", "")
    assert cli("tokenizer", "decode", *IDS) == (0, TEXT + "\n", "")
    assert cli("tokenizer", "decode", ",".join(map(str, IDS))) == (0, TEXT + "\n", "")
    assert cli("tokenizer", "decode", "15496, 11,", "466") == (0, "Hello, do\n", "")


def test_json(cli):
    tokens = ["Hello", ",", " do", " you", " like", " tea", "?"]
    assert json.loads(cli("tokenizer", "encode", TEXT, "--json")[1]) == {"ids": IDS, "tokens": tokens}
    assert json.loads(cli("tokenizer", "decode", *IDS, "--json")[1]) == {"text": TEXT}


def test_the_end_of_text_must_be_allowed(cli):
    assert cli("tokenizer", "encode", "<|endoftext|>", "--allow-special")[1] == "50256\n<|endoftext|>\n"


def test_train_then_use(cli, text_file):
    status, out, _ = cli("tokenizer", "train", text_file, "--vocab-size", 270, "--out", "new/tokens.json")
    assert (status, out) == (0, "wrote new/tokens.json: 270 tokens\n")
    expected = Tokenizer.train(text_file.read_text(), 270).encode("the mat")
    out = cli("tokenizer", "encode", "--tokenizer", "new/tokens.json", "the mat", "--json")[1]
    assert json.loads(out)["ids"] == expected


@pytest.mark.parametrize("preset", ["char-cpu", "stories"])
def test_a_runs_tokenizer_can_be_used(preset, cli, runs):
    out = cli("tokenizer", "encode", "--tokenizer", runs[preset], "the mat", "--json")[1]
    ids = json.loads(out)["ids"]
    assert cli("tokenizer", "decode", "--tokenizer", runs[preset], *ids)[1] == "the mat\n"


def test_special_tokens_are_plain_text_if_one_says_so(cli):
    ids = Tokenizer.gpt2().encode("<|endoftext|>", disallowed_special=())
    assert json.loads(cli("tokenizer", "encode", "<|endoftext|>", "--plain-special", "--json")[1])["ids"] == ids
    assert len(ids) > 1


@pytest.mark.parametrize("text", ["a\0b", "</script>", "\x1b[31m\u2028\u202e", " \r\n\t ", "", "👩‍👩‍👧 🇫🇷"])
def test_any_text_goes_there_and_back(text, cli):
    ids = json.loads(cli("tokenizer", "encode", "--json", "--", text)[1])["ids"]
    if ids:
        assert json.loads(cli("tokenizer", "decode", "--json", *ids)[1])["text"] == text
    status, out, err = cli("tokenizer", "explain", "--", text)
    assert (status, err) == (0, "")
    assert "\0" not in out
    assert "\x1b" not in out
    assert "\u202e" not in out


def test_a_file_becomes_a_file_of_ids_and_comes_back(cli, text_file, place):
    text = "\ufeff" + text_file.read_text() + "café 🤖<|endoftext|>\r\n"
    text_file.write_bytes(text.encode())
    status, out, err = cli("tokenizer", "encode", text_file, "--out", "tokens.bin", "--allow-special")
    ids = Tokenizer.gpt2().encode(text.removeprefix("\ufeff"), "all")
    per_token = len(text.encode()) / len(ids)
    assert (status, err) == (0, "")
    assert out == (
        f"wrote tokens.bin: {len(ids):,} tokens as uint16 ({per_token:.2f} bytes a token), "
        "and tokens.bin.json, what they are\n"
    )
    assert TokenFile.open("tokens.bin").ids.tolist() == ids
    assert cli("tokenizer", "decode", "tokens.bin") == (0, text.removeprefix("\ufeff"), "")
    assert json.loads(cli("tokenizer", "decode", "tokens.bin", "--json")[1]) == {"text": text.removeprefix("\ufeff")}
    (place / "tokens.bin.json").unlink()
    assert cli("tokenizer", "decode", "tokens.bin", "--dtype", "uint16")[1] == text.removeprefix("\ufeff")


def test_a_file_of_ids_in_json(cli, text_file, runs):
    arguments = ("--out", "tokens.bin", "--dtype", "uint32", "--workers", 2, "--tokenizer", runs["char-cpu"], "--json")
    figures = json.loads(cli("tokenizer", "encode", text_file, *arguments)[1])
    made = TokenFile.open("tokens.bin")
    size = len(text_file.read_text())
    assert (figures["tokens"], figures["bytes"], figures["dtype"]) == (size, size, "uint32")
    assert (figures["out"], figures["n_vocab"]) == ("tokens.bin", made.n_vocab)
    assert (figures["tokenizer"], figures["source"]) == (made.tokenizer, made.source)
    out = cli("tokenizer", "decode", "tokens.bin", "--tokenizer", runs["char-cpu"])[1]
    assert out == text_file.read_text()


def test_a_character_on_the_edge_of_a_block_comes_back_whole(cli, text_file, monkeypatch):
    text_file.write_text("🤖" * 9, encoding="utf-8")
    cli("tokenizer", "encode", text_file, "--out", "tokens.bin")
    monkeypatch.setattr("tinygrad_llm.cli.tokenizer.DECODED_AT_ONCE", 2)
    assert cli("tokenizer", "decode", "tokens.bin")[1] == "🤖" * 9


def test_numbers_are_ids_even_if_a_file_is_called_so(cli, place):
    (place / "15496").write_text("")
    assert cli("tokenizer", "decode", "15496")[1] == "Hello\n"


def test_explain_shows_the_words_the_merges_and_the_ids(cli):
    status, out, err = cli("tokenizer", "explain", " Hello, do you like tea?")
    assert (status, err) == (0, "")
    assert "   ␣Hello|,|␣do|␣you|␣like|␣tea|?\n" in out
    # The ranks are the line numbers of vocab.bpe, its header not counted: "l l" is its 42nd.
    words = [line.split() for line in out.split("␣Hello\n", 1)[1].split("→")[0].splitlines()]
    assert words == [
        ["␣|H|e|l|l|o"],
        ["l", "+", "l", "merge", "42", "␣|H|e|ll|o"],
        ["␣", "+", "H", "merge", "112", "␣H|e|ll|o"],
        ["␣H", "+", "e", "merge", "424", "␣He|ll|o"],
        ["␣He", "+", "ll", "merge", "5,528", "␣Hell|o"],
        ["␣Hell", "+", "o", "merge", "18,180", "␣Hello"],
        [],
    ]  # fmt: skip
    assert "   18435 11 466 345 588 8887 30\n" in out


def test_explain_writes_bytes_in_hexadecimal(cli):
    out = cli("tokenizer", "explain", "🤖 🤖\n")[1]
    assert "F0|9F|A4|96\n" in out
    assert "F0 + 9F  merge 8,327  F0 9F|A4|96\n" in out
    assert "   🤖|␣🤖|0A\n" in out
    assert "two digits such as F0 or 0A are one byte, in hexadecimal" in out


def test_explain_in_json(cli):
    shown = json.loads(cli("tokenizer", "explain", "tea 🤖<|endoftext|>", "--allow-special", "--json")[1])
    assert shown["text"] == "tea 🤖<|endoftext|>"
    assert shown["ids"] == Tokenizer.gpt2().encode(shown["text"], "all")
    assert [word["text"] for word in shown["pre_tokens"]] == ["tea", " 🤖", "<|endoftext|>"]
    assert [i for word in shown["pre_tokens"] for i in word["steps"][-1]] == shown["ids"]
    assert shown["pre_tokens"][1]["tokens"][-1] == "96"
    plain = json.loads(cli("tokenizer", "explain", "<|endoftext|>", "--plain-special", "--json")[1])
    assert [word["text"] for word in plain["pre_tokens"]] == ["<|", "endoftext", "|>"]


def test_explain_characters(cli, runs):
    out = cli("tokenizer", "explain", "--tokenizer", runs["char-cpu"], "the mat")[1]
    assert "   t|h|e|␣|m|a|t\n" in out
    assert "7 tokens" in out


def test_explain_is_coloured_on_a_terminal(cli, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    coloured = cli("tokenizer", "explain", "tea")[1]
    assert "\x1b[32m" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    assert re.sub(r"\x1b\[\d+m", "", coloured) == cli("tokenizer", "explain", "tea")[1]


def test_stats_are_those_of_a_count_by_hand(cli, text_file):
    text = text_file.read_text() + "🤖<|endoftext|>"
    text_file.write_text(text, encoding="utf-8")
    gpt2 = Tokenizer.gpt2()
    ids = gpt2.encode(text, "all")
    figures = json.loads(cli("tokenizer", "stats", text_file, "--allow-special", "--json", "--top", 3)[1])
    counts = {i: ids.count(i) for i in set(ids)}
    assert figures["characters"] == len(text)
    assert figures["bytes"] == len(text.encode())
    assert figures["tokens"] == len(ids)
    assert figures["bytes_per_token"] == len(text.encode()) / len(ids)
    assert figures["distinct_tokens"] == len(counts)
    assert figures["n_vocab"] == 50257
    assert figures["single_byte_share"] == sum(i < 256 for i in ids) / len(ids)
    assert figures["tokens_per_word"] == len(ids) / len(text.split())
    lengths = Counter(str(len(gpt2.encode(word))) for word in gpt2.split(text.removesuffix("<|endoftext|>")))
    assert figures["pre_tokens_by_length"] == lengths
    assert [row["count"] for row in figures["most_frequent"]] == sorted(counts.values())[:-4:-1]
    assert figures["most_frequent"][1] == {"id": 262, "token": "␣the", "bytes": 4, "count": counts[262]}  # after "."
    assert figures["longest"][0] == {"id": 50256, "token": "<|endoftext|>", "bytes": 13, "count": 1}


def test_stats_in_words(cli, text_file):
    status, out, err = cli("tokenizer", "stats", text_file)
    assert (status, err) == (0, "")
    assert f"{len(text_file.read_text()):,} characters" in out
    assert "tokens a word" in out
    assert re.search(r"×\s+262  ␣the\n", out)
    assert cli("tokenizer", "stats", "stories", "--plain-special")[0] == 0


def test_train_from_several_files_with_special_tokens(cli, text_file, place):
    (place / "other.txt").write_bytes("\ufeffthe dog <|pad|> the dog\n".encode() * 9)
    arguments = ("--vocab-size", 275, "--special", "<|pad|>", "<|endoftext|>", "--out", "new.json", "--json")
    figures = json.loads(cli("tokenizer", "train", text_file, "other.txt", *arguments)[1])
    texts = [text_file.read_text(), (place / "other.txt").read_text(encoding="utf-8-sig")]
    expected = Tokenizer.train(texts, 275, ["<|endoftext|>", "<|pad|>"])
    made = Tokenizer.load("new.json")
    assert (made.merges, made.special_tokens) == (expected.merges, expected.special_tokens)
    special = {"<|endoftext|>": 273, "<|pad|>": 274}
    assert figures == {"out": "new.json", "n_vocab": 275, "special_tokens": special}


def test_export_writes_gpt2s_pair(cli, place):
    status, out, _ = cli("tokenizer", "export", "gpt2", "pair")
    assert (status, out) == (0, "wrote pair/vocab.bpe and pair/encoder.json\n")
    read = Tokenizer.from_gpt2_files("pair/vocab.bpe", "pair/encoder.json")
    assert read.merges == Tokenizer.gpt2().merges


@pytest.mark.parametrize("tqdm", [True, False])
def test_a_terminal_sees_progress(tqdm, cli, text_file, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    if tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
        monkeypatch.setattr("tinygrad_llm.cli.progress._SECONDS", 0.0)
    status, out, err = cli("tokenizer", "encode", text_file, "--out", "tokens.bin", "--json")
    assert status == 0
    assert ("100%" if tqdm else "read 0.0/0.0 MB") in err
    assert json.loads(out)
    status, _, err = cli("tokenizer", "train", text_file, "--vocab-size", 260, "--out", "new.json")
    assert status == 0
    assert ("100%" if tqdm else "merges 3/3") in err
