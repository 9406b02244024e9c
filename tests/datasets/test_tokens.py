import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygrad_llm.datasets import (
    DataError,
    SlidingWindows,
    TokenFile,
    corpus_hash,
    encode_file,
    read_stretches,
    tokens,
    vocabulary_hash,
)
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer, files

SPECIALS = ["<|endoftext|>", "a b", "b a b", "\n\n ", " x", "é é"]
WHITE = "".join(
    map(chr, [*range(9, 14), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, 0x180E, 0x2003, 0x2028, 0x202F, 0x3000])
)
texts = st.lists(
    st.sampled_from(["a", "b", "x", "é", "中", "🤖", "👩‍👩‍👧", "'s", "12", "…", "\r\n", "  ", "\0", *WHITE, *SPECIALS])
    | st.characters(exclude_categories=["Cs"]),
    max_size=40,
).map("".join)


@pytest.fixture(scope="module")
def gpt2():
    return Tokenizer.gpt2()


@pytest.fixture(scope="module")
def trained():
    """Pairs that would cross a cut if they could, and special tokens with white space inside."""
    sample = "a b a b\n\n x x  é é\r\n\r\n a b 🤖 🤖 'sa 's" * 30
    return Tokenizer.train(sample.replace("a b", "ab"), 300, SPECIALS)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "out"
    place.mkdir()
    return place


@contextlib.contextmanager
def stretches_of(size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "STRETCH", size)
        yield


@given(text=texts, size=st.integers(1, 12), specials=st.lists(st.sampled_from(SPECIALS), unique=True))
@example(text="x a b a b", size=1, specials=["a b"])
@example(text="a\n\n\n x", size=2, specials=["\n\n "])
def test_stretches_join_to_the_text_and_their_ids_to_its_ids(gpt2, trained, tmp_path_factory, text, size, specials):
    path = tmp_path_factory.getbasetemp() / "stretches.txt"
    path.write_bytes(text.encode())
    text = text.removeprefix("\ufeff")
    with stretches_of(size):
        stretches = list(read_stretches(path, SPECIALS))
    assert "".join(stretch.text for stretch in stretches) == text
    for start, stop, part in stretches:
        assert path.read_bytes()[start:stop].decode() == part
    for tokenizer, allowed in [(gpt2, "all"), (gpt2, ()), (trained, "all"), (trained, specials), (trained, ())]:
        parts = [tokenizer.encode(part, allowed, ()) for _, _, part in stretches]
        assert [*chain.from_iterable(parts)] == tokenizer.encode(text, allowed, ())


@settings(max_examples=40)
@given(text=texts, size=st.integers(1, 12), special=st.sampled_from(["allow", "plain", "error"]))
def test_the_file_holds_the_ids_of_the_whole_text(trained, tmp_path_factory, text, size, special):
    folder = tmp_path_factory.mktemp("whole")
    path, out = folder / "text.txt", folder / "tokens.bin"
    path.write_bytes(text.encode())
    text = text.removeprefix("\ufeff")
    characters = CharTokenizer.train(text or " ")
    with stretches_of(size):
        for tokenizer in (trained, characters):
            present = [token for token in tokenizer.special_tokens if token in text]
            if not text or (special == "error" and present):
                with pytest.raises(DataError, match="special token" if text else "is empty"):
                    encode_file(tokenizer, path, out, 1, special=special)
                assert os.listdir(folder) == ["text.txt"]
                continue
            ids = tokenizer.encode(text, "all" if special == "allow" else (), ())
            made = encode_file(tokenizer, path, out, 1, special=special)
            assert made.ids.tolist() == ids
            assert (made.n_vocab, made.source) == (tokenizer.n_vocab, corpus_hash(text))
            os.remove(out)
            os.remove(f"{out}.json")


@pytest.mark.parametrize("workers", [1, 2])
def test_processes_make_the_same_file(gpt2, folder, workers):
    text = "Once upon a time,\r\nthere was a 🤖 of the people's.\n\n" * 200 + "<|endoftext|> the end"
    (folder / "text.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    seen = []
    with stretches_of(1000):
        made = encode_file(
            gpt2,
            folder / "text.txt",
            folder / "t.bin",
            workers,
            special="allow",
            progress=lambda *done: seen.append(done),
        )
    ids = gpt2.encode(text, "all")
    assert made.ids.tolist() == ids
    assert (folder / "t.bin").read_bytes() == np.array(ids, "<u2").tobytes()
    size = (folder / "text.txt").stat().st_size
    assert seen == sorted(seen)
    assert len(seen) > 5
    assert seen[-1] == (size, size)


def test_a_failing_worker_ends_all_with_its_message(folder):
    tokenizer = CharTokenizer("ab \n")
    (folder / "text.txt").write_text("a b\n" * 1000 + "abba caba" + " ab" * 5000)
    for workers in (1, 2):
        with stretches_of(1000), pytest.raises(DataError, match=r"text.txt, after byte \d+: character 'c' at position"):
            encode_file(tokenizer, folder / "text.txt", folder / "t.bin", workers)
    assert os.listdir(folder) == ["text.txt"]


def test_what_is_written_beside_the_ids(gpt2, folder):
    (folder / "text.txt").write_text("Hello, do you like tea?")
    made = encode_file(gpt2, str(folder / "text.txt"), str(folder / "tokens.bin"))
    assert json.loads((folder / "tokens.bin.json").read_text()) == {
        "format": "tinygrad_llm.tokens",
        "version": 1,
        "dtype": "uint16",
        "count": 7,
        "n_vocab": 50257,
        "tokenizer": vocabulary_hash(gpt2),
        "source": hashlib.sha256(b"Hello, do you like tea?").hexdigest(),
    }
    assert (len(made), made.ids.dtype, made.tokenizer) == (7, np.uint16, vocabulary_hash(gpt2))
    assert isinstance(made.ids, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        made.ids[0] = 1
    inputs, targets = SlidingWindows(made.ids, 4)[0]
    assert (inputs.tolist(), targets.tolist()) == ([15496, 11, 466, 345], [11, 466, 345, 588])


def test_raw_ids_of_another_tool_need_a_dtype(folder):
    path = folder / "raw.bin"
    path.write_bytes(np.array([1, 2, 70000], "<u4").tobytes())
    opened = TokenFile.open(path, dtype="uint32")
    assert (opened.ids.tolist(), opened.n_vocab, opened.tokenizer, opened.source) == ([1, 2, 70000], None, None, None)
    assert TokenFile.open(path, dtype=np.uint16).ids.tolist() == [1, 0, 2, 0, 70000 - 65536, 1]
    with pytest.raises(DataError, match=r"raw.bin.json is missing; say what it holds: dtype uint16 or uint32"):
        TokenFile.open(path)


def test_the_dtype_follows_the_vocabulary(folder, monkeypatch):
    (folder / "text.txt").write_text("ab")
    small = CharTokenizer("ab")
    assert encode_file(small, folder / "text.txt", folder / "1.bin").ids.dtype == np.uint16
    assert encode_file(small, folder / "text.txt", folder / "2.bin", dtype="uint32").ids.dtype == np.uint32
    full = CharTokenizer("".join(map(chr, [*range(0xD800), *range(0xE000, 0x10800)])))
    assert full.n_vocab == 65536
    assert encode_file(full, folder / "text.txt", folder / "3.bin").ids.dtype == np.uint16
    large = CharTokenizer(full.characters + chr(0x10800))
    (folder / "text.txt").write_text(chr(0x10800), encoding="utf-8")
    assert encode_file(large, folder / "text.txt", folder / "4.bin").ids.tolist() == [65536]
    before = sorted(os.listdir(folder))
    with pytest.raises(DataError, match="65537 tokens need dtype uint32"):
        encode_file(large, folder / "text.txt", folder / "5.bin", dtype="uint16")
    for bad in ("int16", "uint64", "x", [1]):
        with pytest.raises(DataError, match="uint16 or uint32"):
            encode_file(small, folder / "text.txt", folder / "5.bin", dtype=bad)
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(
    ("data", "what", "where"),
    [
        (b"", "the file is ", "empty"),
        (b"\xef\xbb\xbf", "the file is ", "empty"),
        (b"abc \xe9 def", "not UTF-8 text: ", "at byte 4"),
        (b"ab " * 11 + b"\xf0\x9f\xa4", "not UTF-8 text: ", "at byte 33"),
        (b"\xef\xbb\xbf" + b"ab " * 11 + b"\xf0\x9f\xa4x", "not UTF-8 text: ", "at byte 36"),
        (b"\xed\xa0\x80", "not UTF-8 text: ", "at byte 0"),
        ("é ".encode() * 11 + b"<|endoftext|>", "special token '<|endoftext|>' ", "at byte 33: allow it"),
        (b"\xef\xbb\xbfa<|endoftext|>", "special token '<|endoftext|>' ", "at byte 4: allow it"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_a_bad_text_is_named_by_its_byte(gpt2, folder, data, what, where, size):
    path = folder / "text.txt"
    path.write_bytes(data)
    with stretches_of(size), pytest.raises(DataError) as caught:
        encode_file(gpt2, path, folder / "t.bin", 1)
    assert str(caught.value).startswith(f"{path}: ")
    assert what in str(caught.value)
    assert where in str(caught.value)
    assert "\n" not in str(caught.value)
    assert os.listdir(folder) == ["text.txt"]


def test_a_bad_place_is_refused(gpt2, folder):
    path = folder / "text.txt"
    path.write_text("a")
    (folder / "there.json").write_text("")
    (folder / "link").symlink_to("nowhere")
    before = sorted(os.listdir(folder))
    for source, out, message in [
        (folder / "missing", folder / "t.bin", "missing: cannot be read: No such file"),
        (folder, folder / "t.bin", "cannot be read: Is a directory"),
        (str(folder / "a\0b"), folder / "t.bin", "cannot be read: embedded null"),
        (path, folder / "text.txt", "text.txt: exists already"),
        (path, folder / "there", "there.json: exists already"),
        (path, folder / "link", "link: exists already"),
        (path, folder / "no" / "t.bin", "there is no folder"),
        (path, path / "t.bin", "there is no folder"),
    ]:
        with pytest.raises(DataError, match=message):
            encode_file(gpt2, source, out)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        encode_file(gpt2, path, folder / "t.bin", workers=0)
    with pytest.raises(ValueError, match="special is 'all'"):
        encode_file(gpt2, path, folder / "t.bin", special="all")
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_full_disk_leaves_nothing_behind(gpt2, folder, monkeypatch, call):
    (folder / "text.txt").write_text("a text")

    def full(*args):
        raise OSError(28, "No space left on device")

    if call == "write":
        monkeypatch.setattr(json, "dumps", full)
    else:
        monkeypatch.setattr(os, call, full)
    with pytest.raises(DataError, match=r"t.bin: cannot be written: No space left"):
        encode_file(gpt2, folder / "text.txt", folder / "t.bin")
    monkeypatch.undo()
    assert os.listdir(folder) == ["text.txt"]


def test_an_interruption_between_the_two_files_leaves_none(gpt2, folder, monkeypatch):
    (folder / "text.txt").write_text("a text")
    real = os.replace

    def replace(source, target):
        if str(target).endswith(".bin"):
            assert (folder / "t.bin.json").exists()
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        encode_file(gpt2, folder / "text.txt", folder / "t.bin")
    assert os.listdir(folder) == ["text.txt"]


def test_a_text_without_white_space_is_read_to_a_bound(gpt2, folder, monkeypatch):
    (folder / "text.txt").write_text("a b" + "c" * 100 + " d")
    monkeypatch.setattr(files, "MAX_UNBROKEN", 50)
    with stretches_of(10), pytest.raises(DataError, match=r"no white space in \d+ characters: is it a text"):
        encode_file(gpt2, folder / "text.txt", folder / "t.bin", 1)
    assert os.listdir(folder) == ["text.txt"]


GOOD = {"format": "tinygrad_llm.tokens", "version": 1, "dtype": "uint16", "count": 2, "n_vocab": 5}
GOOD |= {"tokenizer": "0", "source": "1"}


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
def test_a_description_that_is_none(folder, change, message):
    path = folder / "t.bin"
    path.write_bytes(b"\1\0\2\0")
    sidecar = folder / "t.bin.json"
    sidecar.write_text(json.dumps(GOOD))
    assert TokenFile.open(path).ids.tolist() == [1, 2]
    sidecar.write_text(json.dumps(GOOD | change))
    with pytest.raises(DataError, match=message):
        TokenFile.open(path)


def test_files_that_are_none(folder):
    path, sidecar = folder / "t.bin", folder / "t.bin.json"
    with pytest.raises(DataError, match=r"t.bin: cannot be read: No such file"):
        TokenFile.open(path)
    for place in (folder, ".", "/", ""):
        with pytest.raises(DataError, match=": is a folder; name a file of token ids"):
            TokenFile.open(place)
    for data in (b"", b"123"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=f"{len(data)} bytes are no row of uint16 ids"):
            TokenFile.open(path, dtype="uint16")
    path.write_bytes(b"\1\0\2\0")
    for text in ("", "[", "[" * 20_000, "\xff", "[]", "<html>", "9" * 5000, json.dumps(GOOD | {"x": "y" * 70_000})):
        sidecar.write_text(text, encoding="latin-1")
        with pytest.raises(DataError, match=r"t\.bin\.json: "):
            TokenFile.open(path)
    for name in GOOD:
        sidecar.write_text(json.dumps({key: value for key, value in GOOD.items() if key != name}))
        with pytest.raises(DataError, match=f"{name} is missing|does not say"):
            TokenFile.open(path)
    sidecar.write_text(json.dumps(GOOD))
    with pytest.raises(DataError, match="its ids are uint16, not uint32"):
        TokenFile.open(path, dtype="uint32")
    sidecar.unlink()
    sidecar.mkdir()
    with pytest.raises(DataError, match=r"t.bin.json: cannot be read"):
        TokenFile.open(path)


def test_the_hash_tells_vocabularies_apart():
    kinds = [CharTokenizer("ab"), CharTokenizer("ba"), Tokenizer([]), Tokenizer([], []), Tokenizer([], ["x", "yz"])]
    kinds += [Tokenizer([], ["xy", "z"]), Tokenizer([(0, 1)]), Tokenizer([(1, 0)])]
    assert len({vocabulary_hash(kind) for kind in kinds}) == len(kinds)
    assert vocabulary_hash(CharTokenizer("ab")) == vocabulary_hash(CharTokenizer("ab"))


SCRIPT = """
import sys
from itertools import chain
from pathlib import Path
from tinygrad_llm.datasets import encode_file, tokens
from tinygrad_llm.tokenizer import Tokenizer

if __name__ == "__main__":
    tokens.STRETCH = 200_000
    encode_file(Tokenizer.gpt2(), "text.txt", "t.bin", 2, progress=lambda *done: print(*done, flush=True))
"""


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(folder):
    (folder / "text.txt").write_text("".join(f"word{i} {i * i}\n" for i in range(600_000)))
    (folder / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = subprocess.Popen(
        [sys.executable, "script.py"], cwd=folder, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell starts what it puts into the background with Ctrl-C ignored, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    assert process.stdout.readline()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in err  # and more, if it came while a worker was still starting
    assert sorted(os.listdir(folder)) == ["script.py", "text.txt"]
    for _ in range(100):  # no process of the group is left
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("a worker is still there")


@pytest.mark.slow
def test_a_script_without_a_guard_is_told(folder):
    (folder / "text.txt").write_text("a b c\n" * 100_000)
    (folder / "script.py").write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode != 0
    assert "DataError: text.txt: a worker process died" in done.stderr
    assert sorted(os.listdir(folder)) == ["script.py", "text.txt"]


def test_a_file_that_shrinks_while_it_is_read_is_refused(gpt2, folder):
    text = folder / "text.txt"
    text.write_text("some words " * 10_000)  # more than is read ahead

    def cut(done, total):
        os.truncate(text, 50)

    with stretches_of(100), pytest.raises(DataError, match="changed while it was read"):
        encode_file(gpt2, text, folder / "t.bin", 1, progress=cut)
    assert os.listdir(folder) == ["text.txt"]


def test_what_another_wrote_in_the_meantime_is_left_alone(gpt2, folder):
    text = folder / "text.txt"
    text.write_text("some words " * 100)

    def other(done, total):
        for name in ("t.bin", "t.bin.json"):
            (folder / name).write_text("another's")

    with stretches_of(100), pytest.raises(DataError, match=r"t\.bin: exists already"):
        encode_file(gpt2, text, folder / "t.bin", 1, progress=other)
    assert (folder / "t.bin").read_text() == "another's"


def raw(folder, ids, kind, **described):
    """A token file at folder/raw.bin, with a description if there is something to say in it."""
    np.array(ids, kind).tofile(folder / "raw.bin")
    if described:
        fields = {"format": "tinygrad_llm.tokens", "version": 1, "source": "", "tokenizer": "", **described}
        (folder / "raw.bin.json").write_text(json.dumps(fields))
    return folder / "raw.bin"


def test_the_ids_of_a_file_are_checked_against_a_tokenizer(gpt2, trained, folder):
    (folder / "text.txt").write_text("a b ab 🤖 " * 50)
    encode_file(trained, folder / "text.txt", folder / "t.bin", 1, special="plain").check(trained)
    with pytest.raises(DataError, match=r"t\.bin: its ids are of another tokenizer \(\d+ tokens, .* than this"):
        TokenFile.open(folder / "t.bin").check(gpt2)
    with pytest.raises(DataError, match=r"raw\.bin: token 2 is id 50257, .* written as another dtype"):
        TokenFile.open(raw(folder, [0, 1, 50257, 2], "<u4"), "uint32").check(gpt2)


def test_ids_read_as_the_wrong_dtype_are_refused(gpt2, folder):
    ids = gpt2.encode("Every effort moves you one step closer to the end. " * 3)
    with pytest.raises(DataError, match="every second of its ids is 0: they are uint32, and not uint16"):
        TokenFile.open(raw(folder, ids, "<u4"), "uint16").check(gpt2)
    with pytest.raises(DataError, match="written as another dtype"):
        TokenFile.open(raw(folder, ids[:22], "<u2"), "uint32").check(gpt2)
    own = {"tokenizer": vocabulary_hash(gpt2), "n_vocab": 50257}
    described = raw(folder, ids, "<u4", dtype="uint16", count=2 * len(ids), **own)  # its sizes agree
    with pytest.raises(DataError, match="they are uint32"):
        TokenFile.open(described).check(gpt2)
    with pytest.raises(DataError, match=f"{4 * len(ids)} bytes, but {len(ids)} uint16 ids take {2 * len(ids)}"):
        TokenFile.open(raw(folder, ids, "<u4", dtype="uint16", count=len(ids), **own))


def test_lines_of_one_character_are_no_wrong_dtype(folder):
    text = "1\n2\n3\n" * 4000
    (folder / "lines.txt").write_text(text)
    digits = CharTokenizer.train(text)
    made = encode_file(digits, folder / "lines.txt", folder / "lines.bin", 1)
    assert not made.ids[1::2].any()
    made.check(digits)


def test_ids_of_characters_read_as_the_wrong_dtype_are_refused(folder):
    text = "The cat sat.\nAnd then?\n" * 400
    letters = CharTokenizer.train(text)
    assert letters.decode([0]) == "\n"
    with pytest.raises(DataError, match="every second of its ids is 0: they are uint32, and not uint16"):
        TokenFile.open(raw(folder, letters.encode(text), "<u4"), "uint16").check(letters)
    TokenFile.open(raw(folder, letters.encode(text), "<u2"), "uint16").check(letters)
    TokenFile.open(raw(folder, [0] * 20_000, "<u2"), "uint16").check(letters)  # nothing but lines
