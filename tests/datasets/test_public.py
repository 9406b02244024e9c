"""The public texts: their hashes, and where they are looked for. tests/cli/test_cli_download.py fetches them."""

import hashlib
import os
from pathlib import Path

import pytest

from tinygrad_llm.datasets import DataError, load_corpus, read_corpus
from tinygrad_llm.datasets.public import PUBLIC, public_file, public_folder, public_url


def test_the_published_hashes_are_those_of_the_files():
    """Where they are at hand: the folder that TINYGRAD_LLM_DATA names."""
    folder = Path(os.environ.get("TINYGRAD_LLM_DATA", ""))
    found = [one.file for one in PUBLIC.values() if (folder / one.file.name).is_file()]
    if not found:
        pytest.skip("TINYGRAD_LLM_DATA names no folder with a public text")
    for file in found:
        data = (folder / file.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (file.size, file.sha256)


def test_texts_are_looked_for_in_the_folder_of_the_variable_else_in_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TINYGRAD_LLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TINYGRAD_LLM_DATA", raising=False)
    assert public_folder() == tmp_path / "cache" / "data"
    monkeypatch.setenv("TINYGRAD_LLM_DATA", str(tmp_path))
    assert public_folder() == tmp_path
    for name, one in PUBLIC.items():
        with pytest.raises(
            DataError, match=rf"^{name}: .*{one.file.name} is not there: run `tinygrad-llm download {name}"
        ):
            public_file(name)
        (tmp_path / one.file.name).write_text("a text\n")
        assert public_file(name) == tmp_path / one.file.name
    assert load_corpus("the-verdict") == "a text\n"
    (tmp_path / PUBLIC["the-verdict"].file.name).write_bytes(b"a\r\ntext\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "the-verdict").write_text("a file of this name\n")
    for keep, text in ((False, "a\ntext\n"), (True, "a\r\ntext\n")):
        assert load_corpus("the-verdict", keep) == text
        assert "".join(stretch.text for stretch in read_corpus("the-verdict", keep_newlines=keep)) == text


def test_the_addresses_are_https_and_a_mirror_replaces_them(monkeypatch):
    monkeypatch.delenv("TINYGRAD_LLM_DATA_URL", raising=False)
    assert all(public_url(name).startswith("https://") for name in PUBLIC)
    monkeypatch.setenv("TINYGRAD_LLM_DATA_URL", "http://127.0.0.1:9/files/")
    assert {public_url(name) for name in PUBLIC} == {"http://127.0.0.1:9/files/"}
