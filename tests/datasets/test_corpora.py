"""Texts to train on: the bundled ones, files, stretches of files, and what is refused."""

import hashlib
import itertools
import os
import sys

import pytest

from tinygrad_llm.datasets import CORPORA, DataError, corpora, corpus_hash, load_corpus, read_corpus
from tinygrad_llm.storage import files as storage_files
from tinygrad_llm.tokenizer import TokenizerError, load_tokenizer
from tinygrad_llm.tokenizer.files import normalize_newlines


@pytest.mark.parametrize("name", CORPORA)
def test_bundled_corpus_has_the_size_it_promises(name):
    text = load_corpus(name)
    promised = float(CORPORA[name].rpartition("(")[2].split(" MB")[0])
    assert len(text.encode()) == pytest.approx(promised * 1e6, rel=0.4)  # Python's own text grows from year to year
    assert load_corpus(name) == text
    assert "\r" not in text
    assert list(read_corpus(name)) == [(0, len(text.encode()), text, 0)]


def test_python_docs_are_the_language_reference():
    text = load_corpus("python-docs")
    assert 'The "while" statement' in text
    assert text.endswith("\n")


@pytest.mark.parametrize("keep", [False, True])
def test_file_is_read_without_its_byte_order_mark_and_with_its_newlines_if_they_are_kept(keep, tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "STRETCH", 4)
    path = tmp_path / "text.txt"
    text = "saß\r\n🦊 \ufeff\n\r\n\r\rab\r"
    expected = text if keep else "saß\n🦊 \ufeff\n\n\n\nab\n"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + text.encode())
        assert load_corpus(str(path), keep) == expected
        assert keep or load_corpus(str(path)) == expected
        assert corpus_hash(load_corpus(str(path), keep)) == hashlib.sha256(expected.encode()).hexdigest()
        for special_tokens in ((), None):
            stretches = list(read_corpus(str(path), special_tokens, keep))
            assert len(stretches) > 1
            assert "".join(stretch.text for stretch in stretches) == expected
            raw = [path.read_bytes()[stretch.start : stretch.stop].decode() for stretch in stretches]
            assert "".join(raw) == text
            assert [part if keep else normalize_newlines(part) for part in raw] == [part.text for part in stretches]


def test_a_text_that_does_not_fit_into_memory_is_refused_before_it_is_read(tmp_path):
    with open(tmp_path / "large.txt", "wb") as file:
        file.truncate((1 << 30) + 1)  # zeros that take no place on the disk
    with pytest.raises(
        DataError, match=r"large\.txt: 1073741825 bytes, more than .*: encode it with `tinygrad-llm tok"
    ):
        load_corpus(str(tmp_path / "large.txt"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b" \n\t\n", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"caf\xe9", r"not UTF-8 text \(byte 0xe9 at position 3\)"),
        (b"\xef\xbb\xbfcaf\xe9", r"not UTF-8 text \(byte 0xe9 at position 6\)"),
        ("café".encode("utf-16"), r"not UTF-8 text \(byte 0xff at position 0\)"),
        (b"caf\xc3", r"not UTF-8 text \(byte 0xc3 at position 3\)"),
        (b"\xed\xa0\x80", r"not UTF-8 text \(byte 0xed at position 0\)"),  # half of a surrogate pair
    ],
)
def test_file_without_text_is_refused(content, message, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"text.txt: {message}") as failure:
        load_corpus(str(path))
    assert "\n" not in str(failure.value)
    with pytest.raises(DataError, match=f"text.txt: {message}"):
        list(read_corpus(str(path)))


def test_missing_file_and_folder_are_refused(tmp_path):
    for read in (load_corpus, lambda name: list(read_corpus(name))):
        with pytest.raises(DataError, match=r"nothing: no such file, and no such corpus .*stories, python-docs"):
            read("nothing")
        with pytest.raises(DataError, match="cannot be read"):
            read(str(tmp_path))


def test_python_without_its_documentation_is_named(monkeypatch):
    for name in ("pydoc_data", "pydoc_data.topics"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match="python-docs: this Python comes without pydoc_data"):
        load_corpus("python-docs")


def test_stories_are_inside_an_installed_package_or_next_to_it(tmp_path, monkeypatch):
    package = tmp_path / "tinygrad_llm"
    (package / "storage").mkdir(parents=True)
    monkeypatch.setattr(storage_files, "__file__", str(package / "storage" / "files.py"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "stories.txt").write_text("a checkout")
    assert load_corpus("stories") == "a checkout"
    (package / "data").mkdir()
    (package / "data" / "stories.txt").write_text("installed")
    assert load_corpus("stories") == "installed"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes and devices of POSIX")
def test_a_device_without_an_end_and_a_pipe_are_refused(tmp_path, for_each):
    os.mkfifo(tmp_path / "pipe")

    def check(case):
        read, path = case
        with pytest.raises((DataError, TokenizerError), match=f"{path}: .*not a regular file"):
            read(str(path))

    for_each(itertools.product([load_corpus, load_tokenizer], [tmp_path / "pipe", "/dev/zero"]), check)
