"""Pairs of sentences: what is read, and one line for each thing that is wrong."""

import gzip
import tracemalloc

import pytest

from tinygrad_llm.datasets import DataError, Translated, read_translations, split_translations, translations
from tinygrad_llm.random import Generator

TEXT = "english\tgerman\tfrench\nThe fox.\tDer Fuchs.\tLe renard.\n\n  An owl.\tEine Eule. \tUne chouette.\r\n"


@pytest.fixture
def table(tmp_path):
    def write(content, name="pairs.tsv"):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_the_first_line_names_the_columns(table):
    path = table(TEXT)
    assert read_translations(path) == [Translated("The fox.", "Der Fuchs."), Translated("An owl.", "Eine Eule.")]
    assert read_translations(path, "french", "english")[0] == ("Le renard.", "The fox.")
    assert read_translations(path, target="french")[1] == ("An owl.", "Une chouette.")
    assert read_translations(table(b"\xef\xbb\xbf" + TEXT.encode())) == read_translations(path)
    assert read_translations(table(gzip.compress(TEXT.encode()), "pairs.tsv.gz")) == read_translations(path)


@pytest.mark.parametrize(
    ("content", "columns", "message"),
    [
        (TEXT, ("english", "germann"), "line 1: has no column 'germann': did you mean german"),
        (
            TEXT,
            ("german", ""),
            "line 1: source and target are both the column 'german': name two of english, german, f",
        ),
        ("english\nThe fox.\n", ("", ""), "line 1: must name two columns"),
        (
            "The fox.\tDer Fuchs.\nA hen.\tEin Huhn.\n",
            ("", ""),
            "line 1: 'The fox.' looks like a sentence, but the first",
        ),
        ("a\tb\nThe fox.\n", ("", ""), r"line 2: ends after column 1, and the target is in column 2 \(b\)"),
        ("a\tb\nx\ty\n\tDer Fuchs.\n", ("", ""), "line 3: the source is empty"),
        ("a\tb\nThe fox.\t \n", ("", ""), "line 2: the target is empty"),
        ("a\tb\n", ("", ""), "has no pairs below its first line"),
        (
            "a\tb\nThe fox.\tGänse\n".encode("latin-1"),
            ("", ""),
            r"not UTF-8 text \(byte 0xe4 in line 2\): save it as UTF-8",
        ),
    ],
)
def test_what_is_wrong_is_one_line(table, content, columns, message):
    path = table(content)
    with pytest.raises(DataError, match=message) as raised:
        read_translations(path, *columns)
    assert str(raised.value).startswith(str(path))
    assert "\n" not in str(raised.value)


def test_a_file_that_cannot_be_read_is_named(table, tmp_path):
    with pytest.raises(DataError, match=r"nowhere.tsv: cannot be read: No such file"):
        read_translations(tmp_path / "nowhere.tsv")
    whole = gzip.compress(TEXT.encode())
    for damaged in (b"plain text", whole[:-9], whole[:20] + b"\0\0\0" + whole[23:]):
        with pytest.raises(DataError, match=r"pairs.tsv.gz: is damaged, or not compressed by gzip"):
            read_translations(table(damaged, "pairs.tsv.gz"))


def test_parts_share_no_source_and_lose_no_pair():
    pairs = [Translated(f"sentence {i % 90}", f"Satz {i}") for i in range(100)]
    parts = split_translations(pairs, Generator(1))
    assert sorted(pair for part in parts for pair in part) == sorted(pairs)
    assert [len({pair.source for pair in part}) for part in parts] == [82, 4, 4]
    sources = [{pair.source for pair in part} for part in parts]
    assert not sources[0] & sources[1] | sources[0] & sources[2] | sources[1] & sources[2]
    assert parts == split_translations(pairs, Generator(1)) != split_translations(pairs, Generator(2))
    with pytest.raises(DataError, match="got 9 different sentences, too few"):
        split_translations(pairs[:9] * 3, Generator(1))
    ten = [Translated(f"source {i}", "target") for i in range(10)]
    assert [len(part) for part in split_translations(ten, Generator(1))] == [8, 1, 1]


def test_a_small_file_that_unfolds_to_a_large_one_is_refused_before_it_fills_memory(table, monkeypatch):
    monkeypatch.setattr(translations, "_MAX_BYTES", 100_000)
    path = table(gzip.compress(b"a\tb\n" + bytes(20_000_000)), "pairs.tsv.gz")
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="longer than the 100000 bytes accepted"):
            read_translations(path)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


def test_of_many_pairs_a_fixed_number_is_held_out(monkeypatch):
    pairs = [Translated(f"source {i}", f"target {i}") for i in range(400)]
    assert [len(part) for part in split_translations(pairs, Generator(1))] == [360, 20, 20]
    monkeypatch.setattr(translations, "_MOST", 3)
    assert [len(part) for part in split_translations(pairs, Generator(1))] == [394, 3, 3]
