"""Mistakes with `tinygrad-llm tokenizer`: each gives one line on stderr and exit status 2, and writes nothing."""

import json

import pytest

from tinygrad_llm.datasets import encode_file
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer

MISTAKES = {
    "a missing file": ("encode missing.txt --out new.bin", "missing.txt: cannot be read: No such file"),
    "a folder for a file": ("encode folder --out new.bin", "folder: cannot be read: Is a directory"),
    "a NUL in a file's name": ("encode a\0b --out new.bin", "cannot be read: embedded null"),
    "half a surrogate pair in a file's name": ("encode \udcff --out new.bin", "cannot be read"),
    "a file that is not UTF-8": ("encode latin.txt --out new.bin", "latin.txt: not UTF-8 text"),
    "a file that is not UTF-8, with its byte": ("encode latin.txt --out new.bin", "at position 3"),
    "an empty file": ("encode empty.txt --out new.bin", "empty.txt: the file is empty"),
    "a special token in a file": ("encode end.txt --out new.bin", "'<|endoftext|>' at byte 6: add --allow-special"),
    "--out that exists": ("encode text.txt --out text.bin", "text.bin: exists already"),
    "--out whose description exists": ("encode text.txt --out lonely.bin", "lonely.bin.json: exists already"),
    "--out that is a folder": ("encode text.txt --out folder", "folder: exists already"),
    "--out that is a folder, to overwrite": ("encode text.txt --out folder --overwrite", "folder: is a folder"),
    "--overwrite without a file": ("encode text --overwrite", "add --out"),
    "a tokenizer over a folder": ("train text.txt --out folder --overwrite", "folder: is a folder: name a file"),
    "--out in a missing folder": ("encode text.txt --out no/new.bin", "no folder no; make it first"),
    "--out below a file": ("encode text.txt --out text.txt/new.bin", "there is no folder text.txt"),
    "ids that do not fit": ("encode text.txt --out new.bin --dtype uint16 --tokenizer large.json", "need dtype uint32"),
    "an unknown dtype": ("encode text.txt --out new.bin --dtype int8", "--dtype"),
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
    "an id that is not a number": ("decode tea", "ids must be whole numbers, or one file of ids; got 'tea'"),
    "two files": ("decode text.bin text.bin", "ids must be whole numbers, or one file of ids; got 'text.bin text.bin'"),
    "a text for ids": ("decode text.txt", "text.txt.json is missing"),
    "a folder for ids": ("decode folder --dtype uint16", "folder: is a folder; name a file of token ids"),
    "a file with half an id": ("decode odd.bin --dtype uint16", "3 bytes cannot be a row of uint16 ids"),
    "a dtype that contradicts the description": ("decode text.bin --dtype uint32", "its ids are uint16, not uint32"),
    "a file that was cut off": ("decode cut.bin", "the file was cut off"),
    "a damaged description": ("decode lonely.bin", "lonely.bin"),
    "ids of another tokenizer": ("decode text.bin --tokenizer ab.json", "its ids are of another tokenizer"),
    "a file of unknown ids": ("decode unknown.bin --dtype uint16 --tokenizer ab.json", "token 0 is id 2, and the"),
    "stats of a missing file": ("stats storys", "storys: no such file, and no such corpus (there are: stories,"),
    "stats of a folder": ("stats folder", "folder: cannot be read"),
    "stats of an empty file": ("stats empty.txt", "empty.txt: the file is empty"),
    "stats of a file that is not UTF-8": ("stats latin.txt", "latin.txt: not UTF-8"),
    "stats with a special token": ("stats end.txt", "token '<|endoftext|>' at byte 6: add --allow-special"),
    "stats with no row to list": ("stats text.txt --top 0", "--top"),
    "training on a missing file": ("train text.txt missing.txt --out new.json", "missing.txt: no such file"),
    "training on a folder": ("train text.txt folder --out new.json", "folder: cannot be read"),
    "training on an empty file": ("train text.txt empty.txt --out new.json", "empty.txt: the file is empty"),
    "training on a file that is not UTF-8": ("train text.txt latin.txt --out new.json", "latin.txt: not UTF-8"),
    "an empty special token": ("train text.txt --out new.json --special ", "is empty"),
    "too many special tokens": ("train text.txt --out new.json --vocab-size 257 --special x", "vocab_size is 257"),
    "a tokenizer over another": ("train text.txt --out ab.json", "ab.json: exists already"),
    "special tokens of wordpiece": ("train text.txt --out n.json --kind wordpiece --special x", "has BERT's special"),
    "a case for bpe": ("train text.txt --out new.json --cased", "add --kind wordpiece"),
    "too few pieces": ("train text.txt --out n.json --kind wordpiece --vocab-size 9", "vocab_size is 9"),
    "export of characters": ("export ab.json pair", "its tokens are characters"),
    "export of a missing file": ("export missing.json pair", "missing.json: cannot be read"),
    "export over another": ("export gpt2 exported", "exists already"),
    "export below a file": ("export gpt2 text.txt/pair", "text.txt"),
}  # fmt: skip


@pytest.fixture
def files(place, gpt2):
    """The working folder with all the files that the mistakes name."""
    folder = place
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


def test_mistakes_with_tokens_cost_one_line_each(cli, for_each, files, snapshot):
    before = snapshot(files.parent)

    def check(mistake):
        arguments, message = MISTAKES[mistake]
        status, out, err = cli("tokenizer", *arguments.split(" "))
        assert (status, out) == (2, "")
        assert (err.count("\n"), err[-1]) == (1, "\n")
        assert err.startswith("tinygrad-llm")
        assert message in err
        assert snapshot(files.parent) == before

    for_each(MISTAKES, check)
