"""`tinygrad-llm tokenizer`: what each action prints and writes."""

import json
import re
import sys
from collections import Counter

import pytest

from tinygrad_llm.datasets import TokenFile
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer

TEXT = "Hello, do you like tea?"
IDS = [15496, 11, 466, 345, 588, 8887, 30]  # GPT-2's


@pytest.fixture
def letters(text_file, place):
    """The file of a character tokenizer."""
    CharTokenizer.train(text_file.read_text()).save(place / "letters.json")
    return "letters.json"


# ---- encode and decode -------------------------------------------------------------------------------------------


def test_encode_and_decode_are_gpt2s(cli):
    assert cli("tokenizer", "encode", TEXT) == (0, " ".join(map(str, IDS)) + "\nHello|,| do| you| like| tea|?\n", "")
    assert cli("tokenizer", "decode", *IDS) == (0, TEXT + "\n", "")
    assert cli("tokenizer", "decode", ",".join(map(str, IDS))) == (0, TEXT + "\n", "")
    assert cli("tokenizer", "decode", "15496, 11,", "466") == (0, "Hello, do\n", "")
    tokens = ["Hello", ",", " do", " you", " like", " tea", "?"]
    assert json.loads(cli("tokenizer", "encode", TEXT, "--json")[1]) == {"ids": IDS, "tokens": tokens}
    assert json.loads(cli("tokenizer", "decode", *IDS, "--json")[1]) == {"text": TEXT}


def test_wordpiece_is_learned_explained_and_exported_as_vocab_txt(cli, place, text_file):
    status, out, err = cli(
        "tokenizer", "train", text_file, "--kind", "wordpiece", "--vocab-size", 60, "--out", "w.json"
    )
    assert (status, err[:1] in ("", "(")) == (0, True)
    assert out.startswith("wrote w.json: ")
    assert cli("tokenizer", "encode", "[MASK] Thé 漢", "--allow-special", "--tokenizer", "w.json")[1].endswith(
        "[MASK]|the|[UNK]\n"
    )
    explained = cli("tokenizer", "explain", "The the", "--tokenizer", "w.json")[1]
    assert "which no piece crosses\n   the|the\n2. pieces: from the left, the longest" in explained
    assert cli("tokenizer", "export", "w.json", "bert")[1] == "wrote bert/vocab.txt\n"
    assert cli("tokenizer", "encode", "the", "--tokenizer", "bert")[1].endswith("\nthe\n")
    assert cli("tokenizer", "encode", text_file, "--tokenizer", "bert/vocab.txt", "--out", "w.bin")[0] == 0
    words = " ".join(cli("tokenizer", "decode", "w.bin", "--tokenizer", "w.json")[1].split()[:3])
    assert words == " ".join(text_file.read_text().lower().split()[:3])
    assert json.loads(cli("tokenizer", "stats", text_file, "--tokenizer", "w.json", "--json")[1])["n_vocab"] <= 60


def test_special_token_is_allowed_or_plain_text_if_an_option_says_so(cli, gpt2):
    assert cli("tokenizer", "encode", "<|endoftext|>", "--allow-special")[1] == "50256\n<|endoftext|>\n"
    ids = gpt2.encode("<|endoftext|>", disallowed_special=())
    assert json.loads(cli("tokenizer", "encode", "<|endoftext|>", "--plain-special", "--json")[1])["ids"] == ids
    assert len(ids) > 1


def test_any_text_comes_back_and_does_not_move_the_cursor(cli):
    for text in ("a\0b", "</script>", "\x1b[31m\u2028\u202e", " \r\n\t ", "", "👩‍👩‍👧 🇫🇷"):
        ids = json.loads(cli("tokenizer", "encode", "--json", "--", text)[1])["ids"]
        if ids:
            assert json.loads(cli("tokenizer", "decode", "--json", *ids)[1])["text"] == text
        for action in ("encode", "explain"):
            status, out, err = cli("tokenizer", action, "--", text)
            assert (status, err) == (0, "")
            assert not set("\0\x1b\u202e") & set(out)


@pytest.mark.parametrize("preset", ["char-cpu", "stories"])
def test_tokenizer_of_a_run_is_found_in_its_folder(preset, cli, runs):
    out = cli("tokenizer", "encode", "--tokenizer", runs[preset], "the mat", "--json")[1]
    ids = json.loads(out)["ids"]
    assert cli("tokenizer", "decode", "--tokenizer", runs[preset], *ids)[1] == "the mat\n"


def test_file_becomes_a_token_file_and_comes_back(cli, gpt2, text_file, place):
    text = "\ufeff" + text_file.read_text() + "café 🤖<|endoftext|>\r\n"
    text_file.write_bytes(text.encode())
    status, out, err = cli(
        "tokenizer", "encode", text_file, "--out", "tokens.bin", "--allow-special", "--keep-newlines"
    )
    ids = gpt2.encode(text.removeprefix("\ufeff"), "all")
    per_token = len(text.encode()) / len(ids)
    assert (status, err) == (0, "")
    assert out == (
        f"wrote tokens.bin: {len(ids):,} tokens as uint16 ({per_token:.2f} bytes per token), "
        "and their description, tokens.bin.json\n"
    )
    assert TokenFile.open("tokens.bin").ids.tolist() == ids
    assert cli("tokenizer", "decode", "tokens.bin") == (0, text.removeprefix("\ufeff"), "")
    assert json.loads(cli("tokenizer", "decode", "tokens.bin", "--json")[1]) == {"text": text.removeprefix("\ufeff")}
    (place / "tokens.bin.json").unlink()
    assert cli("tokenizer", "decode", "tokens.bin", "--dtype", "uint16")[1] == text.removeprefix("\ufeff")


def test_token_file_in_json_with_every_option(cli, text_file, letters):
    arguments = ("--out", "tokens.bin", "--dtype", "uint32", "--workers", 2, "--tokenizer", letters, "--json")
    figures = json.loads(cli("tokenizer", "encode", text_file, *arguments)[1])
    made = TokenFile.open("tokens.bin")
    size = len(text_file.read_text())
    assert (figures["tokens"], figures["bytes"], figures["dtype"]) == (size, size, "uint32")
    assert (figures["out"], figures["n_vocab"]) == ("tokens.bin", made.n_vocab)
    assert (figures["tokenizer"], figures["source"]) == (made.tokenizer, made.source)
    assert cli("tokenizer", "decode", "tokens.bin", "--tokenizer", letters)[1] == text_file.read_text()


def test_character_across_two_blocks_of_a_token_file_comes_back_whole(cli, text_file, place, monkeypatch):
    text_file.write_text("🤖" * 9, encoding="utf-8")
    cli("tokenizer", "encode", text_file, "--out", "tokens.bin")
    monkeypatch.setattr("tinygrad_llm.cli.tokenizer.DECODED_AT_ONCE", 2)
    assert cli("tokenizer", "decode", "tokens.bin")[1] == "🤖" * 9
    (place / "cut.bin").write_bytes((place / "tokens.bin").read_bytes()[:-2])
    assert cli("tokenizer", "decode", "cut.bin", "--dtype", "uint16")[1] == "🤖" * 8 + "\N{REPLACEMENT CHARACTER}"


def test_numbers_are_ids_even_if_a_file_has_that_name(cli, place):
    (place / "15496").write_text("")
    assert cli("tokenizer", "decode", "15496")[1] == "Hello\n"


# ---- explain -----------------------------------------------------------------------------------------------------


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


def test_explain_in_json(cli, gpt2):
    shown = json.loads(cli("tokenizer", "explain", "tea 🤖<|endoftext|>", "--allow-special", "--json")[1])
    assert shown["text"] == "tea 🤖<|endoftext|>"
    assert shown["ids"] == gpt2.encode(shown["text"], "all")
    assert [word["text"] for word in shown["pre_tokens"]] == ["tea", " 🤖", "<|endoftext|>"]
    assert [i for word in shown["pre_tokens"] for i in word["steps"][-1]] == shown["ids"]
    assert shown["pre_tokens"][1]["tokens"][-1] == "96"
    plain = json.loads(cli("tokenizer", "explain", "<|endoftext|>", "--plain-special", "--json")[1])
    assert [word["text"] for word in plain["pre_tokens"]] == ["<|", "endoftext", "|>"]


def test_explain_of_characters_has_no_merge(cli, letters):
    out = cli("tokenizer", "explain", "--tokenizer", letters, "the mat")[1]
    assert "   t|h|e|␣|m|a|t\n" in out
    assert "7 tokens" in out


def test_explain_is_colored_on_a_terminal_unless_no_color_is_set(cli, monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    colored = cli("tokenizer", "explain", "tea")[1]
    assert "\x1b[32m" in colored
    monkeypatch.setenv("NO_COLOR", "1")
    assert re.sub(r"\x1b\[\d+m", "", colored) == cli("tokenizer", "explain", "tea")[1]


# ---- stats, train, export ----------------------------------------------------------------------------------------


def test_stats_equal_a_count_by_hand(cli, gpt2, text_file):
    text = text_file.read_text() + "🤖<|endoftext|>"
    text_file.write_text(text, encoding="utf-8")
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
    assert figures["words"] == len(text.split())
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
    assert "tokens per word" in out
    assert re.search(r"×\s+262  ␣the\n", out)
    assert cli("tokenizer", "stats", "stories", "--plain-special")[0] == 0


def test_train_then_encode(cli, text_file):
    status, out, _ = cli("tokenizer", "train", text_file, "--vocab-size", 270, "--out", "new/tokens.json")
    assert (status, out) == (0, "wrote new/tokens.json: 270 tokens\n")
    expected = Tokenizer.train(text_file.read_text(), 270).encode("the mat")
    out = cli("tokenizer", "encode", "--tokenizer", "new/tokens.json", "the mat", "--json")[1]
    assert json.loads(out)["ids"] == expected


def test_train_on_several_files_with_special_tokens(cli, text_file, place):
    (place / "other.txt").write_bytes("\ufeffthe dog <|pad|> the dog\n".encode() * 9)
    arguments = ("--vocab-size", 275, "--special", "<|pad|>", "<|endoftext|>", "--out", "new.json", "--json")
    figures = json.loads(cli("tokenizer", "train", text_file, "other.txt", *arguments)[1])
    texts = [text_file.read_text(), (place / "other.txt").read_text(encoding="utf-8-sig")]
    expected = Tokenizer.train(texts, 275, ["<|endoftext|>", "<|pad|>"])
    made = Tokenizer.load("new.json")
    assert (made.merges, made.special_tokens) == (expected.merges, expected.special_tokens)
    special = {"<|endoftext|>": 273, "<|pad|>": 274}
    assert figures == {"out": "new.json", "n_vocab": 275, "special_tokens": special}


@pytest.mark.parametrize("kind", ["bpe", "wordpiece"])
def test_line_ends_of_windows_are_kept_where_an_option_says_so(cli, place, kind):
    text = "cats!\r\n\r\n" * 9
    (place / "windows.txt").write_bytes(text.encode())
    for keep in (False, True):
        option, read = ["--keep-newlines"] * keep, text if keep else text.replace("\r\n", "\n")
        arguments = ("windows.txt", "--vocab-size", 264, "--kind", kind, "--out", "new.json", "--overwrite", *option)
        assert cli("tokenizer", "train", *arguments)[0] == 0
        if kind == "bpe":
            assert Tokenizer.load("new.json").merges == Tokenizer.train(read, 264).merges
        stats = cli("tokenizer", "stats", "windows.txt", "--tokenizer", "new.json", *option, "--json")[1]
        assert json.loads(stats)["characters"] == len(read)


def test_train_reports_that_no_other_pair_repeats(cli, place):
    (place / "short.txt").write_text("abab")
    status, out, err = cli("tokenizer", "train", "short.txt", "--vocab-size", 300, "--out", "new.json")
    assert (status, out) == (0, "wrote new.json: 258 tokens\n")
    assert err == "(fewer than 300: no other pair occurs twice in this text)\n"


def test_export_writes_gpt2s_two_files(cli, gpt2):
    status, out, _ = cli("tokenizer", "export", "gpt2", "pair")
    assert (status, out) == (0, "wrote pair/vocab.bpe and pair/encoder.json\n")
    assert Tokenizer.from_gpt2_files("pair/vocab.bpe", "pair/encoder.json").merges == gpt2.merges


@pytest.mark.parametrize("tqdm", [True, False])
def test_progress_is_shown_on_a_terminal(tqdm, cli, text_file, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    if tqdm:
        pytest.importorskip("tqdm")
        monkeypatch.setattr("tinygrad_llm.cli.progress._DELAY", 0.0)
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
        monkeypatch.setattr("tinygrad_llm.cli.progress._SECONDS", 0.0)
    status, out, err = cli("tokenizer", "encode", text_file, "--out", "tokens.bin", "--json")
    assert status == 0
    assert re.search(r"read [\d.]+k/[\d.]+k \|█+\| " if tqdm else "read 0.0/0.0 MB", err)
    assert json.loads(out)
    status, _, err = cli("tokenizer", "train", text_file, "--vocab-size", 260, "--out", "new.json")
    assert status == 0
    assert ("merges 3/3 |" if tqdm else "merges 3/3") in err
