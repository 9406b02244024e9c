"""What a user gets wrong with `tinygrad-llm tokenizer`: one line on stderr, exit status 2, nothing written."""

import json
import shutil

import pytest

from tinygrad_llm.datasets import encode_file
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer

MISTAKES = {
    "a missing file": ("encode missing.txt --out new.bin", "missing.txt: cannot be read: No such file"),
    "a folder for a file": ("encode folder --out new.bin", "folder: cannot be read: Is a directory"),
    "a NUL in a file's name": ("encode a\0b --out new.bin", "cannot be read: embedded null"),
    "half a surrogate pair in a file's name": ("encode \udcff --out new.bin", "cannot be read"),
    "a file that is not UTF-8": ("encode latin.txt --out new.bin", "latin.txt: not UTF-8 text"),
    "… and its byte": ("encode latin.txt --out new.bin", "byte 3"),
    "an empty file": ("encode empty.txt --out new.bin", "empty.txt: the file is empty"),
    "a special token in a file": ("encode end.txt --out new.bin", "'<|endoftext|>' at byte 6: allow it"),
    "--out that exists": ("encode text.txt --out text.bin", "text.bin: exists already"),
    "--out whose description exists": ("encode text.txt --out lonely.bin", "lonely.bin.json: exists already"),
    "--out that is a folder": ("encode text.txt --out folder", "folder: exists already"),
    "--out in a missing folder": ("encode text.txt --out no/new.bin", "no folder no; make it first"),
    "--out below a file": ("encode text.txt --out text.txt/new.bin", "there is no folder text.txt"),
    "ids that do not fit": ("encode text.txt --out new.bin --dtype uint16 --tokenizer large.json", "need dtype uint32"),
    "a dtype that is none": ("encode text.txt --out new.bin --dtype int8", "--dtype"),
    "no workers": ("encode text.txt --out new.bin --workers 0", "--workers"),
    "workers without a file": ("encode text --workers 2", "add --out"),
    "a dtype without a file": ("encode text --dtype uint16", "add --out"),
    "an unknown character": ("encode text.txt --out new.bin --tokenizer ab.json", "text.txt: character 't' at"),
    "a special token both ways": ("encode text --allow-special --plain-special", "--plain-special"),
    "a special token in a text": ("encode a<|endoftext|>", "add --allow-special"),
    "half a surrogate pair": ("encode a\udcff", "U+DCFF at position 1 is half of a surrogate pair"),
    "half a surrogate pair, explained": ("explain a\udcff", "U+DCFF at position 1 is half of a surrogate pair"),
    "a special token, explained": ("explain a<|endoftext|>", "add --allow-special"),
    "an unknown character, explained": ("explain c --tokenizer ab.json", "character 'c' at position 0"),
    "an unknown id": ("decode 50257", "token id 50257 is unknown"),
    "an id that is no number": ("decode tea", "ids are whole numbers, not 'tea'; nor is there a file"),
    "two files": ("decode text.bin text.bin", "ids are whole numbers, not 'text.bin text.bin'"),
    "a text for ids": ("decode text.txt", "text.txt.json is missing"),
    "a folder for ids": ("decode folder --dtype uint16", "folder: is a folder; name a file of token ids"),
    "half an id": ("decode odd.bin --dtype uint16", "3 bytes are no row of uint16 ids"),
    "another dtype": ("decode text.bin --dtype uint32", "its ids are uint16, not uint32"),
    "a file that was cut off": ("decode cut.bin", "it was cut off"),
    "a damaged description": ("decode lonely.bin", "lonely.bin"),
    "ids of another tokenizer": ("decode text.bin --tokenizer ab.json", "its ids are of another tokenizer"),
    "a file of unknown ids": ("decode unknown.bin --dtype uint16 --tokenizer ab.json", "token 0 is id 2, and the"),
    "stats of no file": ("stats storys", "storys: no such file, and no such corpus, did you mean stories"),
    "stats of a folder": ("stats folder", "folder: cannot be read"),
    "stats of an empty file": ("stats empty.txt", "empty.txt: the file is empty"),
    "stats of a file that is not UTF-8": ("stats latin.txt", "latin.txt: not UTF-8"),
    "stats with a special token": ("stats end.txt", "token '<|endoftext|>' at byte 6: add --allow-special"),
    "no row to list": ("stats text.txt --top 0", "--top"),
    "training on a missing file": ("train text.txt missing.txt --out new.json", "missing.txt: no such file"),
    "training on a folder": ("train text.txt folder --out new.json", "folder: cannot be read"),
    "training on an empty file": ("train text.txt empty.txt --out new.json", "empty.txt: the file is empty"),
    "training on no UTF-8": ("train text.txt latin.txt --out new.json", "latin.txt: not UTF-8"),
    "an empty special token": ("train text.txt --out new.json --special ", "is empty"),
    "too many special tokens": ("train text.txt --out new.json --vocab-size 257 --special x", "vocab_size is 257"),
    "a tokenizer over another": ("train text.txt --out ab.json", "ab.json: exists already"),
    "export of characters": ("export ab.json pair", "its tokens are characters"),
    "export of nothing": ("export missing.json pair", "missing.json: cannot be read"),
    "export over another": ("export large.json exported", "exists already"),
    "export below a file": ("export large.json text.txt/pair", "text.txt"),
}  # fmt: skip


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


@pytest.fixture(autouse=True)
def read_once(gpt2, monkeypatch):
    """GPT-2's merges need not be read again for each test."""
    monkeypatch.setattr(Tokenizer, "gpt2", lambda: gpt2)


@pytest.fixture(scope="module")
def made(tmp_path_factory, gpt2):
    folder = tmp_path_factory.mktemp("mistakes")
    texts = {"text": b"text and a text", "latin": b"caf\xe9", "empty": b"", "end": b"a b c <|endoftext|>"}
    for name, data in texts.items():
        (folder / f"{name}.txt").write_bytes(data)
    (folder / "folder").mkdir()
    CharTokenizer("ab").save(folder / "ab.json")
    Tokenizer([(left, right) for left in range(256) for right in range(256)]).save(folder / "large.json")
    encode_file(gpt2, folder / "text.txt", folder / "text.bin")
    (folder / "cut.bin").write_bytes((folder / "text.bin").read_bytes()[:-2])
    (folder / "cut.bin.json").write_bytes((folder / "text.bin.json").read_bytes())
    (folder / "odd.bin").write_bytes(b"123")
    (folder / "unknown.bin").write_bytes(b"\2\0")
    (folder / "lonely.bin.json").write_text(json.dumps([]))
    (folder / "exported").mkdir()
    (folder / "exported" / "encoder.json").write_text("")
    return folder


@pytest.fixture
def files(place, made):
    shutil.copytree(made, place, dirs_exist_ok=True)


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_with_tokens_costs_one_line(mistake, cli, files, snapshot, tmp_path):
    template, message = MISTAKES[mistake]
    before = snapshot(tmp_path)
    status, out, err = cli("tokenizer", *template.split(" "))
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    assert err.startswith("tinygrad-llm")
    assert message in err
    assert snapshot(tmp_path) == before
