"""Texts to train on: what is bundled, and what is refused."""

import hashlib
import sys

import pytest

from tinygrad_llm.datasets import CORPORA, DataError, corpus_hash, load_corpus
from tinygrad_llm.storage import data


@pytest.mark.parametrize("name", CORPORA)
def test_bundled_texts_are_what_they_are_said_to_be(name):
    text = load_corpus(name)
    promised = float(CORPORA[name].rpartition("(")[2].split(" MB")[0])
    assert len(text.encode()) == pytest.approx(promised * 1e6, rel=0.4)  # Python's own text grows from year to year
    assert load_corpus(name) == text
    assert "\r" not in text


def test_python_docs_are_the_language_reference():
    text = load_corpus("python-docs")
    assert 'The "while" statement' in text
    assert text.endswith("\n")


def test_a_file_is_read_as_it_is(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes("saß\r\n🦊 \ufeff\n".encode())
    assert load_corpus(str(path)) == "saß\r\n🦊 \ufeff\n"


def test_a_byte_order_mark_is_dropped(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    assert load_corpus(str(path)) == "café"


def test_the_hash_is_of_the_text_without_its_mark(tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(b"\xef\xbb\xbfcaf\xc3\xa9")
    assert corpus_hash(load_corpus(str(path))) == hashlib.sha256("café".encode()).hexdigest()


@pytest.mark.parametrize(
    ("data", "message"),
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
def test_what_is_no_text_is_refused(data, message, tmp_path):
    path = tmp_path / "text.txt"
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"text.txt: {message}") as failure:
        load_corpus(str(path))
    assert "\n" not in str(failure.value)


def test_what_is_no_file_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"nothing: no such file, and no such corpus .*stories, python-docs"):
        load_corpus("nothing")
    with pytest.raises(DataError, match="cannot be read"):
        load_corpus(str(tmp_path))


def test_a_python_without_its_documentation(monkeypatch):
    for name in ("pydoc_data", "pydoc_data.topics"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(DataError, match="python-docs: this Python comes without pydoc_data"):
        load_corpus("python-docs")


def test_data_beside_the_package_or_inside_it(tmp_path, monkeypatch):
    package = tmp_path / "tinygrad_llm"
    (package / "storage").mkdir(parents=True)
    monkeypatch.setattr(data, "__file__", str(package / "storage" / "data.py"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "stories.txt").write_text("a checkout")
    assert load_corpus("stories") == "a checkout"
    (package / "data").mkdir()
    (package / "data" / "stories.txt").write_text("installed")
    assert load_corpus("stories") == "installed"
