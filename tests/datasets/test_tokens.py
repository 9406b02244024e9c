"""Token files: opened, described, compared with a tokenizer, and refused if they are damaged."""

import hashlib
import itertools
import json
import pickle
import re

import numpy as np
import pytest

from tinygrad_llm.datasets import DataError, SlidingWindows, TokenFile, encode_file, load_corpus
from tinygrad_llm.datasets.tokens import new_token_file
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer, vocabulary_hash

GOOD = {"format": "tinygrad_llm.tokens", "version": 1, "dtype": "uint16", "count": 2, "n_vocab": 5}
GOOD |= {"tokenizer": "0", "source": "1"}
TEA = "Hello, do you like tea?"
PAIRS = Tokenizer.train("Every effort moves you one step closer to the end. " + TEA, 280)


def test_encoded_file_is_a_read_only_array_on_the_disk(tmp_path):
    (tmp_path / "text.txt").write_text(TEA)
    made = encode_file(PAIRS, tmp_path / "text.txt", tmp_path / "t.bin", 1)
    opened = TokenFile.open(tmp_path / "t.bin")
    assert opened.ids.tolist() == made.ids.tolist() == PAIRS.encode(TEA)
    assert (len(opened), opened.ids.dtype, opened.tokenizer) == (len(made), np.uint16, vocabulary_hash(PAIRS))
    assert isinstance(opened.ids, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        opened.ids[0] = 1
    inputs, targets = SlidingWindows(opened.ids, 4)[0]
    assert [inputs.tolist(), targets.tolist()] == [opened.ids[:4].tolist(), opened.ids[1:5].tolist()]


def test_a_description_is_never_beside_the_ids_of_another_file(tmp_path):
    """Not while a file is overwritten either, when its writer may be killed."""
    out, place = tmp_path / "t.bin", tmp_path / "t.bin.json"
    fields = {name: GOOD[name] for name in ("dtype", "count", "n_vocab", "tokenizer", "source")}
    for ids, overwrite in (([1, 2], False), ([3, 4], True)):
        with new_token_file(out, overwrite) as (file, describe):
            file.write(np.array(ids, "<u2").tobytes())
            before = place.exists()
            assert out.exists() == before == overwrite
            describe(fields)
            assert place.exists()
            assert not out.exists()
        assert TokenFile.open(out).ids.tolist() == ids

    def interrupted():
        with new_token_file(out, True) as (_, describe):
            describe(fields)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    encode_file(PAIRS, __file__, out, 1)
    out.unlink()
    encode_file(PAIRS, __file__, out, 1, overwrite=True)  # a description alone is no obstacle
    for path in (out, place):
        with pytest.raises(DataError, match=f"{path.name}: exists already: choose another name, or overwrite it"):
            encode_file(PAIRS, __file__, out, 1)
        path.unlink()


def test_raw_ids_of_another_tool_need_a_dtype(tmp_path):
    path = tmp_path / "raw.bin"
    path.write_bytes(np.array([1, 2, 70000], "<u4").tobytes())
    opened = TokenFile.open(path, dtype="uint32")
    assert (opened.ids.tolist(), opened.n_vocab, opened.tokenizer, opened.source) == ([1, 2, 70000], None, None, None)
    assert TokenFile.open(path, dtype=np.uint16).ids.tolist() == [1, 0, 2, 0, 70000 - 65536, 1]
    with pytest.raises(DataError, match=r"raw.bin.json is missing; give the dtype of the ids: uint16 or uint32"):
        TokenFile.open(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "x"}, "does not describe a token file"),
        ({"version": 2}, "version is 2"),
        ({"version": True}, "version is True"),
        ({"dtype": "uint8"}, "dtype is 'uint8'"),
        ({"dtype": ["uint16"]}, "dtype is"),
        ({"count": 3}, "4 bytes, but 3 uint16 ids take 6"),
        ({"count": 1}, "4 bytes, but 1 uint16 ids take 2"),
        ({"count": 2.0}, "count is 2.0"),
        ({"count": -2}, "count is -2"),
        ({"dtype": "uint32"}, "4 bytes, but 2 uint32 ids take 8"),
        ({"n_vocab": 65537}, "n_vocab is 65537"),
        ({"n_vocab": None}, "n_vocab is None"),
        ({"source": 1}, "source is 1"),
        ({"tokenizer": None}, "tokenizer is None"),
    ],
)
def test_wrong_description_is_named(tmp_path, change, message):
    path = tmp_path / "t.bin"
    path.write_bytes(b"\1\0\2\0")
    description = tmp_path / "t.bin.json"
    description.write_text(json.dumps(GOOD))
    assert TokenFile.open(path).ids.tolist() == [1, 2]
    description.write_text(json.dumps(GOOD | change))
    with pytest.raises(DataError, match=message):
        TokenFile.open(path)


def test_files_that_hold_no_ids_are_refused(tmp_path):
    path, description = tmp_path / "t.bin", tmp_path / "t.bin.json"
    with pytest.raises(DataError, match=r"t.bin: cannot be read: No such file"):
        TokenFile.open(path)
    for place in (tmp_path, ".", "/", ""):
        with pytest.raises(DataError, match=": is a folder; name a file of token ids"):
            TokenFile.open(place)
    for data in (b"", b"123"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=f"{len(data)} bytes cannot be a row of uint16 ids"):
            TokenFile.open(path, dtype="uint16")
    path.write_bytes(b"\1\0\2\0")
    for text in ("", "[", "[" * 20_000, "\xff", "[]", "<html>", "9" * 5000, json.dumps(GOOD | {"x": "y" * 70_000})):
        description.write_text(text, encoding="latin-1")
        with pytest.raises(DataError, match=r"t\.bin\.json: "):
            TokenFile.open(path)
    for name in GOOD:
        description.write_text(json.dumps({key: value for key, value in GOOD.items() if key != name}))
        with pytest.raises(DataError, match=f"{name} is missing|does not say"):
            TokenFile.open(path)
    description.write_text(json.dumps(GOOD))
    with pytest.raises(DataError, match="its ids are uint16, not uint32"):
        TokenFile.open(path, dtype="uint32")
    description.unlink()
    description.mkdir()
    with pytest.raises(DataError, match=r"t.bin.json: cannot be read"):
        TokenFile.open(path)


def test_vocabulary_hash_differs_between_vocabularies():
    kinds = [CharTokenizer("ab"), CharTokenizer("ba"), Tokenizer([]), Tokenizer([], []), Tokenizer([], ["x", "yz"])]
    kinds += [Tokenizer([], ["xy", "z"]), Tokenizer([(0, 1)]), Tokenizer([(1, 0)])]
    kinds += [Tokenizer([(0, 1)], []), Tokenizer([], ['!"'])]  # the same bytes, once merged and once special
    assert len({vocabulary_hash(kind) for kind in kinds}) == len(kinds)
    assert vocabulary_hash(CharTokenizer("ab")) == vocabulary_hash(CharTokenizer("ab"))
    stated = hashlib.sha256(b"\1" + bytes(7) + b"a" + b"\2" + bytes(7) + "é".encode() + b"{}").hexdigest()
    assert vocabulary_hash(CharTokenizer("aé")) == stated  # as the runs so far state it


# ---- ids compared with a tokenizer -------------------------------------------------------------------------------


def raw(folder, ids, kind, **described):
    """Write folder/raw.bin, with a description if there is something to say in it."""
    np.array(ids, kind).tofile(folder / "raw.bin")
    if described:
        fields = {"format": "tinygrad_llm.tokens", "version": 1, "source": "", "tokenizer": "", **described}
        (folder / "raw.bin.json").write_text(json.dumps(fields))
    return folder / "raw.bin"


def test_ids_of_another_tokenizer_are_refused(tmp_path):
    (tmp_path / "text.txt").write_text(TEA)
    made = encode_file(PAIRS, tmp_path / "text.txt", tmp_path / "t.bin", 1)
    made.check(PAIRS)
    with pytest.raises(DataError, match=r"t\.bin: its ids are of another tokenizer \(\d+ tokens, .* than this"):
        made.check(Tokenizer([]))
    with pytest.raises(DataError, match=r"raw\.bin: token 2 is id 280, .* written as another dtype"):
        TokenFile.open(raw(tmp_path, [0, 1, 280, 2], "<u4"), "uint32").check(PAIRS)


def test_ids_read_as_the_wrong_dtype_are_refused(tmp_path):
    ids = PAIRS.encode("Every effort moves you one step closer to the end. " * 3)
    with pytest.raises(DataError, match="every second id is 0: they are uint32 or int64, not uint16"):
        TokenFile.open(raw(tmp_path, ids, "<u4"), "uint16").check(PAIRS)
    with pytest.raises(DataError, match="written as another dtype"):
        TokenFile.open(raw(tmp_path, ids[:22], "<u2"), "uint32").check(PAIRS)
    own = {"tokenizer": vocabulary_hash(PAIRS), "n_vocab": 280}
    described = raw(tmp_path, ids, "<u4", dtype="uint16", count=2 * len(ids), **own)  # its sizes agree
    with pytest.raises(DataError, match="they are uint32"):
        TokenFile.open(described).check(PAIRS)
    with pytest.raises(DataError, match=f"{4 * len(ids)} bytes, but {len(ids)} uint16 ids take {2 * len(ids)}"):
        TokenFile.open(raw(tmp_path, ids, "<u4", dtype="uint16", count=len(ids), **own))


def test_white_space_with_id_0_can_be_every_second_token(tmp_path):
    lines = "1\n2\n3\n" * 4000  # lines of one character
    digits = CharTokenizer.train(lines)
    ids = digits.encode(lines)
    assert not any(ids[1::2])
    TokenFile.open(raw(tmp_path, ids, "<u2"), "uint16").check(digits)
    TokenFile.open(raw(tmp_path, [0] * 20_000, "<u2"), "uint16").check(digits)  # nothing but empty lines
    short = digits.encode("1\n" * 20 + "\n\n")  # too few pairs to tell, although an empty line ends it
    TokenFile.open(raw(tmp_path, short, "<u2"), "uint16").check(digits)
    text = "The cat sat.\nAnd then?\n" * 400
    letters = CharTokenizer.train(text)
    assert letters.decode([0]) == "\n"
    TokenFile.open(raw(tmp_path, letters.encode(text), "<u2"), "uint16").check(letters)
    with pytest.raises(DataError, match="every second id is 0: they are uint32 or int64, not uint16"):
        TokenFile.open(raw(tmp_path, letters.encode(text), "<u4"), "uint16").check(letters)


def test_every_wrong_type_and_byte_order_is_noticed(tmp_path, gpt2, for_each):
    """Ids of GPT-2's tokenizer, as they are and below 190, written as one type and read as another."""
    ids = gpt2.encode(load_corpus("stories")[:20_000], allowed_special="all")
    few = [token_id % 190 for token_id in ids]

    def check(case):
        written, read, ids = case
        place = raw(tmp_path, ids, written)
        if np.dtype(written).itemsize == np.dtype(read).itemsize and written[0] == "<" and written[1] != "f":
            TokenFile.open(place, read).check(gpt2)
            return
        with pytest.raises(DataError, match=re.escape(str(place))):
            TokenFile.open(place, read).check(gpt2)

    types = [f"{order}{kind}" for order in "<>" for kind in ("u2", "u4", "i4", "i8", "u8", "f4", "f8")]
    for_each(itertools.product(types, ["uint16", "uint32"], [ids]), check)
    wider = [written for written in types if written[1] != "f" and written not in ("<u2", ">u2")]
    for_each(itertools.product([*wider, "<u1"], ["uint16", "uint32"], [few]), check)
    letters = [ord(letter) for letter in load_corpus("stories")[:2000] if letter.isascii()]  # as of a character model
    for_each([("<u1", "uint16", letters)], check)


def test_a_file_of_something_else_is_named(tmp_path, for_each):
    ids = np.arange(1000, dtype=np.uint16)

    def check(case):
        write, words = case
        path = tmp_path / "other.bin"
        path.unlink(missing_ok=True)
        write(path)
        with open(path, "ab") as file:
            file.write(bytes(-path.stat().st_size % 4))
        for dtype in ("uint16", "uint32"):
            with pytest.raises(DataError, match=f"{re.escape(str(path))}: {words}"):
                TokenFile.open(path, dtype)

    def to_open_file(save):
        def write(path):
            with open(path, "wb") as file:
                save(file)

        return write

    cases = [
        (to_open_file(lambda file: np.save(file, ids)), "an .npy file"),
        (to_open_file(lambda file: np.savez(file, ids)), "a zip archive"),
        (to_open_file(lambda file: pickle.dump(ids.tolist(), file)), "a pickle"),
        (to_open_file(lambda file: pickle.dump(ids, file, protocol=2)), "a pickle"),
        (lambda path: path.write_text(" ".join(map(str, ids))), "a text"),
        (lambda path: path.write_text(json.dumps(ids.tolist())), "a text"),
        (lambda path: path.write_text("The cat sat on the mat. Où est le café ?\n" * 90), "a text"),
        (lambda path: path.write_text("x" * 32), "a text"),
    ]
    for_each(cases, check)
    (tmp_path / "few.bin").write_bytes(b"x" * 28)  # by chance, a few ids may look like letters
    assert len(TokenFile.open(tmp_path / "few.bin", "uint32")) == 7
