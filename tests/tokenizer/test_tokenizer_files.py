"""Tokenizer files of this package: what is saved is loaded, and every defect of a file is named."""

import errno
import hashlib
import io
import json
import os
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import (
    CharTokenizer,
    Tokenizer,
    TokenizerError,
    WordPieceTokenizer,
    files,
    load_tokenizer,
    pattern,
)
from tinygrad_llm.tokenizer.bpe import split_at
from tinygrad_llm.tokenizer.pattern import split_words

BPE = {
    "format": "tinygrad_llm.tokenizer",
    "version": 1,
    "kind": "bpe",
    "merges": [[64, 65], [256, 66]],
    "special_tokens": ["<|endoftext|>"],
}
CHAR = {"format": "tinygrad_llm.tokenizer", "version": 1, "kind": "char", "characters": "\n abc"}
WORDPIECE = {
    "format": "tinygrad_llm.tokenizer",
    "version": 1,
    "kind": "wordpiece",
    "vocabulary": ["[UNK]", "a", "##b"],
    "lowercase": True,
    "strip_accents": False,
}
DOCUMENTS = {document["kind"]: document for document in (BPE, CHAR, WORDPIECE)}
LOADERS = {"bpe": Tokenizer.load, "char": CharTokenizer.load, "wordpiece": WordPieceTokenizer.load}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizers")


def assert_refused(path, message="", loaders=None):
    for load in loaders or [load_tokenizer, *LOADERS.values()]:
        with pytest.raises(TokenizerError, match=f"^{re.escape(str(path))}: .*{message}"):
            load(path)


# ---- what is saved is loaded -------------------------------------------------------------------------------------


@settings(max_examples=15)  # each writes two files to the disk
@given(text=st.text(min_size=1), specials=st.lists(st.text(min_size=1), unique=True, max_size=3))
def test_saved_tokenizer_loads_as_the_same(folder, text, specials):
    path = folder / "t.json"
    pairs, characters = Tokenizer.train(text * 3, 300, specials), CharTokenizer.train(text)
    pairs.save(path)
    for again in (Tokenizer.load(path), load_tokenizer(str(path))):
        assert isinstance(again, Tokenizer)
        assert (again.merges, again.special_tokens) == (pairs.merges, pairs.special_tokens)
    characters.save(path)
    for again in (CharTokenizer.load(path), load_tokenizer(path)):
        assert isinstance(again, CharTokenizer)
        assert again.characters == characters.characters


def test_saved_gpt2_loads_as_the_same(gpt2, tmp_path):
    gpt2.save(tmp_path / "gpt2.json")
    again = Tokenizer.load(tmp_path / "gpt2.json")
    assert (again.merges, again.special_tokens) == (gpt2.merges, gpt2.special_tokens)


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_saved_file_is_what_the_documentation_shows(tmp_path, document):
    (tmp_path / "a.json").write_text(json.dumps(document))
    load_tokenizer(tmp_path / "a.json").save(tmp_path / "b.json")
    saved = json.loads((tmp_path / "b.json").read_text())
    assert saved.pop("sha256") == hashlib.sha256(json.dumps(saved).encode()).hexdigest()
    assert saved == document


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_change_of_a_saved_file_is_noticed(tmp_path, document, for_each):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(document))
    load_tokenizer(path).save(path)
    saved = json.loads(path.read_text())

    def check(field):
        changed = saved[field][::-1] if isinstance(saved[field], str | list) else saved[field]
        path.write_text(json.dumps(saved | {field: changed}))
        assert_refused(path, "sha256: ", [load_tokenizer])

    for_each([list(document)[3], "sha256"], check)


# ---- defects -----------------------------------------------------------------------------------------------------


def test_file_of_the_other_kind_is_named(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(CHAR))
    assert_refused(path, "kind is 'char', not 'bpe'", [Tokenizer.load])
    path.write_text(json.dumps(BPE))
    assert_refused(path, "kind is 'bpe', not 'char'", [CharTokenizer.load])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"1234567",
        b"null",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"format": ' + b"9" * 5000 + b"}",
        b'{"format": NaN}',
        json.dumps(BPE).encode() + b"x",
        json.dumps(BPE).encode("utf-16"),
        json.dumps(BPE).encode().replace(b"endoftext", b"\xff"),
        b"<!DOCTYPE html><html></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        b"\x80\x04K\x01.",
    ],
)
def test_file_of_another_format_is_refused(tmp_path, data):
    path = tmp_path / "t.json"
    path.write_bytes(data)
    assert_refused(path)


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, 'not a tokenizer file: it does not say "format": "tinygrad_llm.tokenizer"$'),
        ({"format": None}, "not a tokenizer file: it does not say "),
        ({"version": 2}, "version is 2; this package reads 1$"),
        ({"version": 1.0}, "version is 1.0; this"),
        ({"version": True}, "version is True; this"),
        ({"kind": "word"}, "kind is 'word'; known are bpe, char, wordpiece$"),
        ({"kind": ["bpe"]}, r"kind is \['bpe'\]; known"),
        ({"extra": 1, "é": 2}, r"unexpected '\\xe9', 'extra'$"),
    ],
)
def test_wrong_head_is_named(tmp_path, document, changes, message):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(document | changes))
    assert_refused(path, message)


@pytest.mark.parametrize(
    ("document", "changes", "message"),
    [
        (BPE, {"merges": {}}, "merges is not a list"),
        (BPE, {"merges": "ab"}, "merges is not a list"),
        (BPE, {"merges": [[64, 65], [64, 257]]}, "merge 1 joins 64 and 257"),
        (BPE, {"merges": [[64, -1]]}, "merge 0 joins"),
        (BPE, {"merges": [[64, 65], [64, 65]]}, "merge 1 .* twice"),
        (BPE, {"merges": [[64, 65.0]]}, "merge 0 is not a pair"),
        (BPE, {"merges": [[64, True]]}, "merge 0 is not a pair"),
        (BPE, {"merges": [[64, float("nan")]]}, "merge 0 is not a pair"),
        (BPE, {"merges": [None]}, "merge 0 is not a pair"),
        (BPE, {"merges": [[0, 0]] + [[k, k] for k in range(256, 300)]}, "more than"),
        (BPE, {"special_tokens": {"a": 259}}, "'a' has the id 259; ids must be 0 … 258, each once"),
        (BPE, {"special_tokens": {"a": 0, "b": 0}}, "'b' has the id 0; ids must be"),
        (BPE, {"special_tokens": {"a": True}}, "'a' has the id True"),
        (BPE, {"special_tokens": {"a": [1]}}, r"'a' has the id \[1\]"),
        (BPE, {"end_of_text": 7}, "end_of_text is not a string"),
        (BPE, {"special_tokens": None}, "special_tokens is not a list"),
        (BPE, {"special_tokens": ["a", "b", "a"]}, "'a' is given twice"),
        (BPE, {"special_tokens": [""]}, "empty"),
        (BPE, {"special_tokens": [7]}, "got int"),
        (BPE, {"special_tokens": ["\ud800"]}, "surrogate"),
        (CHAR, {"characters": ["a", "b"]}, "characters is not a string"),
        (CHAR, {"characters": ""}, "at least one"),
        (CHAR, {"characters": "aba"}, "'a' occurs twice"),
        (CHAR, {"characters": "a\udfff"}, "surrogate"),
        (WORDPIECE, {"vocabulary": "[UNK]"}, "vocabulary is not a list"),
        (WORDPIECE, {"vocabulary": ["a"]}, r"no \[UNK\]"),
        (WORDPIECE, {"vocabulary": ["[UNK]", 7]}, "got int"),
        (WORDPIECE, {"lowercase": 1}, "lowercase is not true or false"),
        (WORDPIECE, {"strip_accents": None}, "strip_accents is not true or false"),
    ],
)
def test_wrong_value_is_named(tmp_path, document, changes, message):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(document | changes))
    assert_refused(path, message, [load_tokenizer, LOADERS[document["kind"]]])


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_missing_and_repeated_fields_are_named(tmp_path, document):
    path = tmp_path / "t.json"
    for field in document:
        path.write_text(json.dumps({name: value for name, value in document.items() if name != field}))
        assert_refused(path, field)
        path.write_text(json.dumps(document)[:-1] + f', "{field}": {json.dumps(document[field])}}}')
        assert_refused(path, "a key occurs twice")


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_every_truncation_is_refused(tmp_path, document):
    path = tmp_path / "t.json"
    data = json.dumps(document).encode()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        assert_refused(path, loaders=[load_tokenizer])


@pytest.mark.parametrize("document", DOCUMENTS.values(), ids=DOCUMENTS)
def test_flipped_bit_gives_a_tokenizer_or_a_tokenizer_error(tmp_path, document):
    """There is no checksum, so some flips make another valid file; none makes another exception."""
    path = tmp_path / "t.json"
    data = json.dumps(document).encode()
    outcomes = set()
    for bit in range(0, 8 * len(data), 3):  # so that every byte and every place in a byte has its turn
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            tokenizer = load_tokenizer(path)
        except TokenizerError as error:
            outcomes.add(str(error).partition(": ")[0])
        else:
            assert tokenizer.decode(range(tokenizer.n_vocab))
            outcomes.add("loaded")
    assert outcomes == {str(path), "loaded"}


def test_file_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    assert_refused(tmp_path / "none.json", "No such file")
    for load in LOADERS.values():
        with pytest.raises(TokenizerError, match=f"^{re.escape(str(tmp_path))}: .*directory"):
            load(tmp_path)
    with pytest.raises(TokenizerError, match=f"^{re.escape(str(tmp_path / 'tokenizer.json'))}: cannot be read"):
        load_tokenizer(tmp_path)
    for path in ("a\0b", "a\ud800b", 5, None):
        with pytest.raises(TokenizerError, match=r"is not a path of a file"):
            Tokenizer.load(path)
    path = tmp_path / "t.json"
    path.write_text(json.dumps(BPE))
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 50)
    assert_refused(path, "larger than 50 bytes")


# ---- saving ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_failed_save_leaves_the_old_file_unchanged(tmp_path, monkeypatch, function, fault):
    path = tmp_path / "t.json"
    path.write_text("old")

    def fail(*_):
        raise fault

    monkeypatch.setattr(os, function, fail)
    for tokenizer in (Tokenizer([(0, 1)]), CharTokenizer("ab"), WordPieceTokenizer(["[UNK]"])):
        with pytest.raises((TokenizerError, KeyboardInterrupt)) as caught:
            tokenizer.save(path)
        assert str(caught.value) in ("", f"{path}: cannot be written: No space left on device")
        assert isinstance(caught.value, KeyboardInterrupt) == isinstance(fault, KeyboardInterrupt)
        assert path.read_text() == "old"
        assert os.listdir(tmp_path) == ["t.json"]


def test_save_to_a_place_that_cannot_be_written_raises(tmp_path):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    places = [tmp_path / place for place in ("none/t.json", "file/t.json", "folder", "/")]
    if os.name == "posix":
        os.mkfifo(tmp_path / "pipe")
        places.append(tmp_path / "pipe")
    before = sorted(os.listdir(tmp_path))
    for place in places:
        with pytest.raises(TokenizerError, match=r"cannot be (written|replaced)"):
            CharTokenizer("ab").save(place)
    for wrong, message in {
        "a\0b": r"'a\x00b': embedded null byte",
        None: "None: expected str, bytes or os.PathLike object, not NoneType",
        5: "5: expected str, bytes or os.PathLike object, not int",
        "/": "/: cannot be replaced: it is not a regular file",
    }.items():
        with pytest.raises(TokenizerError, match=f"^{re.escape(message)}$"):
            CharTokenizer("ab").save(wrong)
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "file").read_text() == "kept"


# ---- files to train on -------------------------------------------------------------------------------------------


@given(
    text=st.text(alphabet="ab <>é\n\r\x85👩\ufeff", max_size=60),
    keep=st.booleans(),
    specials=st.lists(st.sampled_from(["<a b>", "<", "b\n"]), unique=True),
    size=st.integers(1, 9),
)
@example(text="a\r\n b\r\n\r\n c <a b> d", keep=False, specials=["<a b>"], size=2)
@example(text="\ufeffé\r\n b c", keep=True, specials=[], size=3)
def test_stretches_of_a_file_join_to_it_and_cut_no_word(folder, text, keep, specials, size):
    data = text.encode()
    (folder / "a.txt").write_bytes(data)
    text = text.removeprefix("\ufeff")
    text = text if keep else "\n".join(re.split("\r\n|\r|\n", text))
    parts = [stretch.text for stretch in files.read_stretches(folder / "a.txt", specials, size, keep)]
    assert "".join(parts) == text
    expected = [word for piece in split_at(specials, text)[::2] for word in split_words(piece)]
    found = [word for part in parts for piece in split_at(specials, part)[::2] for word in split_words(piece)]
    assert found == expected
    for special_tokens in (specials, None):
        stretches = list(files.read_stretches(folder / "a.txt", special_tokens, size, keep))
        assert "".join(stretch.text for stretch in stretches) == text
        position = place = 3 * data.startswith(b"\xef\xbb\xbf")
        for stretch in stretches:
            assert (stretch.start, stretch.place) == (position, place)
            own = data[stretch.start : stretch.stop].decode()
            assert stretch.text == (own if keep else own.replace("\r\n", "\n").replace("\r", "\n"))
            position, place = stretch.stop, place + len(stretch.text.encode())
        assert position == len(data)


@pytest.mark.parametrize(
    ("data", "at"), [(b"\xff", 0), ("é 👩".encode()[:-1], 3), (b"ab cd " * 10 + b"\xc3(", 60), (b"\xed\xa0\x80", 0)]
)
def test_file_that_is_not_utf8_is_named_with_the_byte(tmp_path, data, at):
    (tmp_path / "a.txt").write_bytes(data)
    for size in (1, 2, 7, 1000):
        with pytest.raises(TokenizerError, match=rf"a\.txt: not UTF-8 text \(byte 0x.. at position {at}\): save it as"):
            list(files.read_stretches(tmp_path / "a.txt", (), size))


def test_file_without_a_safe_cut_is_read_whole(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a" * 300_000)
    assert list(files.read_stretches(tmp_path / "a.txt", (), 10)) == [(0, 300_000, "a" * 300_000, 0)]
    for path, message in (
        (f"{tmp_path}/none", f"{tmp_path}/none: cannot be read: No such file or directory"),
        ("a\0b", r"'a\x00b': embedded null byte"),
    ):
        with pytest.raises(TokenizerError, match=f"^{re.escape(message)}$"):
            list(files.read_stretches(path, ()))


def test_endless_word_is_read_up_to_a_limit(monkeypatch):
    class Endless(io.BytesIO):
        def read(self, size=-1):
            return b"c" * size

    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: Endless())
    monkeypatch.setattr(pattern, "MAX_UNBROKEN", 1000)
    with pytest.raises(TokenizerError, match=r"endless\.txt: no white space in \d{4} characters"):
        list(files.read_stretches("endless.txt", (), 10))


@pytest.mark.parametrize("text", ["c" * 70, " " * 70, "a b" + "c" * 60, "c" * 60 + " a"])
@pytest.mark.parametrize("limit", [59, 70])
def test_a_text_in_memory_has_the_limit_of_a_file(text, limit, tmp_path, monkeypatch):
    monkeypatch.setattr(pattern, "MAX_UNBROKEN", limit)
    (tmp_path / "a.txt").write_text(text)

    def refused(use):
        try:
            use()
        except TokenizerError as error:
            assert "no white space in" in str(error)  # noqa: PT017
            return True
        return False

    ways = [
        lambda: Tokenizer([]).encode(text),
        lambda: Tokenizer([]).encode_ordinary(text),
        lambda: Tokenizer.train(text, 260),
        lambda: Tokenizer.train(tmp_path / "a.txt", 260),
        lambda: [Tokenizer([]).encode(part.text) for part in files.read_stretches(tmp_path / "a.txt", (), 10)],
    ]
    assert {refused(way) for way in ways} == {limit == 59}


def test_newlines_of_files_to_train_on_are_kept_where_that_is_asked_for(tmp_path):
    text = "ab\r\n  ab\r\n" * 9
    (tmp_path / "a.txt").write_bytes(text.encode())
    read = Tokenizer.train([tmp_path / "a.txt"], 270)
    assert read.merges == Tokenizer.train(text.replace("\r\n", "\n"), 270).merges
    kept = Tokenizer.train([tmp_path / "a.txt"], 270, keep_newlines=True)
    assert kept.merges == Tokenizer.train(text, 270).merges != read.merges
