"""GPT-2's two files: read, checked against each other, written, and read by tiktoken and tokenizers."""

import errno
import json
import os
import re

import pytest
from definition import BYTE_NAMES, VOCAB
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_llm.storage import files as storage_files
from tinygrad_llm.tokenizer import Tokenizer, TokenizerError, load_tokenizer

# ---- the merges --------------------------------------------------------------------------------------------------


def merges_file(folder, text):
    path = folder / "merges.bpe"
    path.write_bytes(text.encode())
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
def test_merges_file_has_one_header_and_either_line_end(tmp_path, end, last):
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
        ("#version: 0.2\ra b\rab c\r", "line 1: expected a header"),
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
def test_wrong_merges_file_is_named_with_its_line(tmp_path, text, message):
    path = merges_file(tmp_path, text)
    with pytest.raises(TokenizerError, match=f"^{re.escape(str(path))}, {message}"):
        Tokenizer.from_merges_file(path)


def test_merges_file_that_is_missing_or_not_utf8_is_named(tmp_path):
    with pytest.raises(TokenizerError, match=r"none\.bpe: cannot be read: No such file"):
        Tokenizer.from_merges_file(tmp_path / "none.bpe")
    path = merges_file(tmp_path, "#version: 0.2\na b\n")
    with pytest.raises(TokenizerError, match=f"^{re.escape(str(path))}: special token 'x' is given twice$"):
        Tokenizer.from_merges_file(path, special_tokens=("x", "x"))
    path.write_bytes(b"#version: 0.2\n\xff \xfe\n")
    with pytest.raises(TokenizerError, match=r"not UTF-8 text \(byte 0xff in line 2\): save it as UTF-8"):
        Tokenizer.from_merges_file(path)


def test_gpt2_is_loaded_from_the_shipped_folder(tmp_path, monkeypatch):
    """Inside an installed package first, else next to the package."""
    for folder, merges in ((tmp_path / "tinygrad_llm" / "data", 1), (tmp_path / "data", 2)):
        (folder / "gpt2").mkdir(parents=True)
        (folder / "gpt2" / "vocab.bpe").write_text("\n".join(["#version: 0.2", "a b", "c d"][: 1 + merges]))
    monkeypatch.setattr(storage_files, "__file__", str(tmp_path / "tinygrad_llm" / "storage" / "files.py"))
    assert len(Tokenizer.gpt2().merges) == 1
    (tmp_path / "tinygrad_llm" / "data").rename(tmp_path / "elsewhere")
    assert len(Tokenizer.gpt2().merges) == 2


# ---- both files --------------------------------------------------------------------------------------------------

MERGES = "#version: 0.2\n# #\nĠ t\nĠt h\n## ##\n"


def pair(folder, changes=None, merges=MERGES):
    """Write the two files, with entries of encoder.json changed, added, or (None) removed."""
    (folder / "vocab.bpe").write_bytes(merges.encode())
    ids = {name: number for number, name in enumerate([*BYTE_NAMES, "##", "Ġt", "Ġth", "####"])}
    ids = {name: token_id for name, token_id in (ids | (changes or {})).items() if token_id is not None}
    (folder / "encoder.json").write_text(json.dumps(ids))
    return folder / "vocab.bpe", folder / "encoder.json"


def test_entries_that_no_merge_makes_are_special(tmp_path):
    tokenizer = Tokenizer.from_gpt2_files(*pair(tmp_path, {"<|b|>": 261, "<|a|>": 260}))
    assert tokenizer.special_tokens == {"<|a|>": 260, "<|b|>": 261}
    assert tokenizer.encode("#### th<|b|>", "all") == [259, 258, 261]
    assert Tokenizer.from_gpt2_files(*pair(tmp_path)).special_tokens == {}


@settings(max_examples=15)  # each writes two files to the disk
@given(text=st.text(), specials=st.lists(st.text(min_size=2).map(lambda text: f"<{text}>"), unique=True, max_size=3))
def test_saved_files_load_as_the_same_tokenizer(tmp_path_factory, text, specials):
    folder = tmp_path_factory.getbasetemp() / "gpt2 files"
    tokenizer = Tokenizer.train(text * 3, 300, specials)
    tokenizer.save_gpt2(folder)
    again = Tokenizer.from_gpt2_files(folder / "vocab.bpe", folder / "encoder.json")
    assert list(again.merges.items()) == list(tokenizer.merges.items())
    assert again.special_tokens == tokenizer.special_tokens
    assert again.encode(text, "all") == tokenizer.encode(text, "all")


def test_gpt2_is_saved_as_the_file_it_was_loaded_from(gpt2, tmp_path):
    folder = tmp_path / "new" / "folder"
    gpt2.save_gpt2(folder)
    assert (folder / "vocab.bpe").read_bytes() == VOCAB.read_bytes()
    ids = json.loads((folder / "encoder.json").read_text())
    assert (ids["!"], ids["Ġthe"], ids["<|endoftext|>"], len(ids)) == (0, 262, 50256, 50257)


@pytest.mark.parametrize("names", [("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json")])
def test_load_tokenizer_finds_the_files_under_either_name(tmp_path, names):
    tokenizer = Tokenizer.train("the cat sat on the mat " * 9, 280)
    tokenizer.save_gpt2(tmp_path)
    for old, new in zip(("vocab.bpe", "encoder.json"), names, strict=True):
        (tmp_path / old).rename(tmp_path / new)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.merges, loaded.special_tokens) == (tokenizer.merges, tokenizer.special_tokens)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"!": None}, "no entry for '!', which is a byte or a merge of "),
        ({"Ġt": None}, r"no entry for '\\u0120t', which is a byte or a merge of "),
        ({"!": 1, '"': 0}, "the id of '!' is 1, but 0 follows from the merges in "),
        ({"##": 257}, r"'##' and '\\u0120t' have the same id 257"),
        ({"<|a|>": 259}, r"'####' and '<\|a\|>' have the same id 259"),
        ({"<|a|>": 261}, r"special token '<\|a\|>' has the id 261; ids must be 0 … 260"),
        ({"<|a|>": -1}, r"special token '<\|a\|>' has the id -1; ids must be 0 … 260"),
        ({"##": 2**70}, "the id of '##' is 1180591620717411303424, but 256 follows from "),
        ({"##": True}, "the id of '##' must be an integer, got True"),
        ({"##": 256.0}, "the id of '##' must be an integer, got 256.0"),
        ({"##": "256"}, "the id of '##' must be an integer, got '256'"),
        ({"": 260}, "special token '' is empty"),
        ({"\ud800": 260}, "surrogate"),
    ],
)  # fmt: skip
def test_ids_that_contradict_the_merges_are_named(tmp_path, changes, message):
    files = pair(tmp_path, changes)
    with pytest.raises(TokenizerError, match=f"^{re.escape(str(files[1]))}: .*{message}"):
        Tokenizer.from_gpt2_files(*files)


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b"{", b"\xff", b"[" * 100_000, b"<html>"])
def test_ids_file_of_another_kind_is_named(tmp_path, data):
    vocab, encoder = pair(tmp_path)
    encoder.write_bytes(data)
    with pytest.raises(TokenizerError, match=f"^{re.escape(str(encoder))}: "):
        Tokenizer.from_gpt2_files(vocab, encoder)


def test_first_of_several_defects_is_named(tmp_path):
    vocab, encoder = pair(tmp_path)
    encoder.write_text('{"!": 0, "##": 256, "!": 1}')
    with pytest.raises(TokenizerError, match=r"encoder\.json: .*a key occurs twice: '!'"):
        Tokenizer.from_gpt2_files(vocab, encoder)
    vocab.write_text(MERGES + "x\n")
    with pytest.raises(TokenizerError, match=r"vocab\.bpe, line 6"):
        Tokenizer.from_gpt2_files(vocab, encoder)
    with pytest.raises(TokenizerError, match=r"none: cannot be read"):
        Tokenizer.from_gpt2_files(tmp_path / "none", encoder)


@pytest.mark.parametrize(
    "tokenizer",
    [Tokenizer([], ["a"]), Tokenizer([(64, 65), (65, 66), (256, 66), (64, 257)])],
    ids=["a special token named as a byte", "two tokens of the same bytes"],
)
def test_tokenizer_that_the_files_cannot_hold_is_not_saved(tmp_path, tokenizer):
    with pytest.raises(TokenizerError, match=r"would write .* use save"):
        tokenizer.save_gpt2(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_failed_save_leaves_the_old_files_unchanged(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(TokenizerError, match="file: cannot be made"):
        Tokenizer([]).save_gpt2(tmp_path / "file")
    Tokenizer([]).save_gpt2(tmp_path)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    before = (tmp_path / "vocab.bpe").read_bytes()
    with pytest.raises(TokenizerError, match=r"vocab\.bpe: cannot be written: No space"):
        Tokenizer([(0, 1)]).save_gpt2(tmp_path)
    assert (tmp_path / "vocab.bpe").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["encoder.json", "file", "vocab.bpe"]


def test_tiktoken_and_tokenizers_read_the_files(gpt2, tmp_path):
    load = pytest.importorskip("tiktoken.load")
    models = pytest.importorskip("tokenizers.models")
    gpt2.save_gpt2(tmp_path)
    vocab, encoder = str(tmp_path / "vocab.bpe"), str(tmp_path / "encoder.json")
    ranks = load.data_gym_to_mergeable_bpe_ranks(vocab, encoder)
    assert ranks == {gpt2.decode_bytes([token_id]): token_id for token_id in range(50256)}
    assert models.BPE.from_file(encoder, vocab)
