"""Text file → token file: the ids of the whole text, whatever the stretches and workers; nothing half-written."""

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

from tinygrad_llm.datasets import DataError, TokenFile, corpora, corpus_hash, encode_file, read_stretches
from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer, pattern
from tinygrad_llm.tokenizer import vocabulary_hash as hash_of
from tinygrad_llm.tokenizer.files import normalize_newlines

SPECIALS = ["<|endoftext|>", "a b", "b a b", "\n\n ", " x", "é é"]
WHITE = "".join(
    map(chr, [*range(9, 14), *range(0x1C, 0x21), 0x85, 0xA0, 0x1680, 0x180E, 0x2003, 0x2028, 0x202F, 0x3000])
)
texts = st.lists(
    st.sampled_from(["a", "b", "x", "é", "中", "🤖", "👩‍👩‍👧", "'s", "12", "…", "\r\n", "  ", "\0", *WHITE, *SPECIALS])
    | st.characters(exclude_categories=["Cs"]),
    max_size=40,
).map("".join)
# Pairs that would cross a cut if they could, and special tokens with white space inside.
SAMPLE = "a b a b\n\n x x  é é\r\n\r\n a b 🤖 🤖 'sa 's" * 30
TRAINED = Tokenizer.train(SAMPLE.replace("a b", "ab"), 300, SPECIALS)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "out"
    place.mkdir()
    return place


@contextlib.contextmanager
def stretches_of(size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpora, "STRETCH", size)
        yield


@given(text=texts, size=st.integers(1, 12), specials=st.lists(st.sampled_from(SPECIALS), unique=True))
@example(text="x a b a b", size=1, specials=["a b"])
@example(text="a\n\n\n x", size=2, specials=["\n\n "])
@example(text="a\r\n\r\n x", size=2, specials=["\n\n "])
def test_stretches_join_to_the_text_and_their_ids_to_its_ids(gpt2, tmp_path_factory, text, size, specials):
    path = tmp_path_factory.getbasetemp() / "stretches.txt"
    path.write_bytes(text.encode())
    text = normalize_newlines(text.removeprefix("\ufeff"))
    with stretches_of(size):
        stretches = list(read_stretches(path, SPECIALS))
    assert "".join(stretch.text for stretch in stretches) == text
    for stretch in stretches:
        assert normalize_newlines(path.read_bytes()[stretch.start : stretch.stop].decode()) == stretch.text
    for tokenizer, allowed in [(gpt2, "all"), (gpt2, ()), (TRAINED, "all"), (TRAINED, specials), (TRAINED, ())]:
        parts = [tokenizer.encode(stretch.text, allowed, ()) for stretch in stretches]
        assert [*chain.from_iterable(parts)] == tokenizer.encode(text, allowed, ())


@settings(max_examples=15)
@given(text=texts, size=st.integers(1, 12), special=st.sampled_from(["allow", "plain", "error"]))
def test_token_file_holds_the_ids_of_the_whole_text(tmp_path_factory, text, size, special):
    folder = tmp_path_factory.mktemp("whole")
    path, out = folder / "text.txt", folder / "tokens.bin"
    path.write_bytes(text.encode())
    text = normalize_newlines(text.removeprefix("\ufeff"))
    characters = CharTokenizer.train(text or " ")
    with stretches_of(size):
        for tokenizer in (TRAINED, characters):
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
def test_worker_processes_make_the_same_file(folder, workers):
    text = "Once upon a time,\r\nthere was a 🤖 of the people's.\n\n" * 200 + "<|endoftext|> the end"
    (folder / "text.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    calls = []
    with stretches_of(1000):
        made = encode_file(
            TRAINED,
            folder / "text.txt",
            folder / "t.bin",
            workers,
            special="allow",
            progress=lambda *d: calls.append(d),
        )
    ids = TRAINED.encode(text.replace("\r\n", "\n"), "all")
    assert made.ids.tolist() == ids
    assert (folder / "t.bin").read_bytes() == np.array(ids, "<u2").tobytes()
    size = (folder / "text.txt").stat().st_size
    assert calls == sorted(calls)
    assert len(calls) > 5
    assert calls[-1] == (size, size)
    assert {total for _, total in calls} == {size}


def test_newlines_are_kept_where_that_is_asked_for(folder):
    text = "a b\r\nab\rb"
    (folder / "text.txt").write_bytes(text.encode())
    kept = encode_file(TRAINED, folder / "text.txt", folder / "kept.bin", special="plain", keep_newlines=True)
    assert kept.ids.tolist() == TRAINED.encode(text, (), ())
    assert kept.source == corpus_hash(text)
    read = encode_file(TRAINED, folder / "text.txt", folder / "read.bin", special="plain")
    assert read.ids.tolist() == TRAINED.encode("a b\nab\nb", (), ())
    assert read.source == corpus_hash("a b\nab\nb")


def test_description_holds_the_ids_the_tokenizer_and_the_source(gpt2, folder):
    (folder / "text.txt").write_text("Hello, do you like tea?")
    made = encode_file(gpt2, str(folder / "text.txt"), str(folder / "tokens.bin"))
    assert made.ids.tolist() == [15496, 11, 466, 345, 588, 8887, 30]
    assert json.loads((folder / "tokens.bin.json").read_text()) == {
        "format": "tinygrad_llm.tokens",
        "version": 1,
        "dtype": "uint16",
        "count": 7,
        "n_vocab": 50257,
        "tokenizer": hash_of(gpt2),
        "source": hashlib.sha256(b"Hello, do you like tea?").hexdigest(),
    }


def test_dtype_follows_the_vocabulary(folder):
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
        with pytest.raises(DataError, match="must be uint16 or uint32"):
            encode_file(small, folder / "text.txt", folder / "5.bin", dtype=bad)
    assert sorted(os.listdir(folder)) == before


# ---- texts, places and disks that are refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "what", "where"),
    [
        (b"", "the file is ", "empty"),
        (b"\xef\xbb\xbf", "the file is ", "empty"),
        (b"abc \xe9 def", "not UTF-8 text ", "(byte 0xe9 at position 4)"),
        (b"ab " * 11 + b"\xf0\x9f\xa4", "not UTF-8 text ", "(byte 0xf0 at position 33)"),
        (b"ab\r\n" * 11 + b"\xf0\x9f\xa4", "not UTF-8 text ", "(byte 0xf0 at position 44)"),
        (b"\xef\xbb\xbf" + b"ab " * 11 + b"\xf0\x9f\xa4x", "not UTF-8 text ", "(byte 0xf0 at position 36)"),
        (b"\xed\xa0\x80", "not UTF-8 text ", "(byte 0xed at position 0)"),
        ("é ".encode() * 11 + b"<|endoftext|>", "special token '<|endoftext|>' ", "at byte 33: add --allow-special"),
        (b"\xef\xbb\xbfa<|endoftext|>", "special token '<|endoftext|>' ", "at byte 4: add --allow-special"),
        (b"ab\r\n" * 11 + b"<|endoftext|>", "(with \\r\\n read as \\n): holds the special token", "at byte 33: add"),
    ],
)
def test_bad_text_is_named_by_its_byte(folder, data, what, where):
    path = folder / "text.txt"
    path.write_bytes(data)
    for size in (1, 2, 5, 1000):
        with stretches_of(size), pytest.raises(DataError) as caught:
            encode_file(Tokenizer([]), path, folder / "t.bin", 1)
        assert str(caught.value).startswith((f"{path}: ", f"{path} (with "))
        assert what in str(caught.value)
        assert where in str(caught.value)
        assert "\n" not in str(caught.value)
        assert os.listdir(folder) == ["text.txt"]


def test_failing_worker_ends_all_with_its_message(folder):
    tokenizer = CharTokenizer("ab \n")
    (folder / "text.txt").write_text("a b\n" * 1000 + "abba caba" + " ab" * 5000)
    for workers in (1, 2):
        with stretches_of(1000), pytest.raises(DataError, match=r"text.txt, after byte \d+: character 'c' at position"):
            encode_file(tokenizer, folder / "text.txt", folder / "t.bin", workers)
    assert os.listdir(folder) == ["text.txt"]


def test_text_without_white_space_is_read_up_to_a_limit(folder, monkeypatch):
    (folder / "text.txt").write_text("a b" + "c" * 100 + " d")
    monkeypatch.setattr(pattern, "MAX_UNBROKEN", 50)
    message = r"text\.txt: no white space in \d+ characters, of which byte pairs take at most 50: is it a text"
    for size in (10, 1000):  # found by the reader, or by the tokenizer
        with stretches_of(size), pytest.raises(DataError, match=message):
            encode_file(TRAINED, folder / "text.txt", folder / "t.bin", 1, special="plain")
    assert os.listdir(folder) == ["text.txt"]
    characters = CharTokenizer("abcd ")
    with stretches_of(10):
        made = encode_file(characters, folder / "text.txt", folder / "t.bin", 1)
    assert made.ids.tolist() == characters.encode("a b" + "c" * 100 + " d")


def test_bad_places_and_arguments_are_refused(folder):
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
            encode_file(TRAINED, source, out)
    with pytest.raises(ValueError, match="workers must be at least 1"):
        encode_file(TRAINED, path, folder / "t.bin", workers=0)
    with pytest.raises(ValueError, match=r"special must be .* got 'all'"):
        encode_file(TRAINED, path, folder / "t.bin", special="all")
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_full_disk_leaves_nothing_behind(folder, monkeypatch, call):
    (folder / "text.txt").write_text("a text")

    def full(*args):
        raise OSError(28, "No space left on device")

    tokenizer = Tokenizer([])
    monkeypatch.setattr("tinygrad_llm.datasets.encode.vocabulary_hash", lambda _: "")
    monkeypatch.setattr(*((json, "dumps") if call == "write" else (os, call)), full)
    with pytest.raises(DataError, match=r"t.bin: cannot be written: No space left"):
        encode_file(tokenizer, folder / "text.txt", folder / "t.bin")
    monkeypatch.undo()
    assert os.listdir(folder) == ["text.txt"]


def test_a_failed_overwrite_leaves_the_old_file_with_its_description(folder):
    source, out = folder / "text.txt", folder / "t.bin"
    source.write_text("a text")
    before = encode_file(Tokenizer([]), source, out).ids.tolist()
    source.write_text("another <|endoftext|>")
    with pytest.raises(DataError, match="special token"):
        encode_file(Tokenizer([]), source, out, overwrite=True)
    assert TokenFile.open(out).ids.tolist() == before


def test_interruption_between_the_two_files_leaves_neither(folder, monkeypatch):
    (folder / "text.txt").write_text("a text")
    real = os.replace

    def replace(source, target):
        if str(target).endswith(".bin"):
            assert (folder / "t.bin.json").exists()
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        encode_file(TRAINED, folder / "text.txt", folder / "t.bin")
    assert os.listdir(folder) == ["text.txt"]


@pytest.mark.parametrize("size", [50, 120_000], ids=["shrinks", "grows"])
def test_text_that_changes_while_it_is_read_is_refused(folder, size):
    text = folder / "text.txt"
    text.write_text("some words " * 10_000)  # more than is read ahead

    def change(done, total):
        os.truncate(text, size)

    with stretches_of(100), pytest.raises(DataError, match="changed while it was read"):
        encode_file(TRAINED, text, folder / "t.bin", 1, progress=change)
    assert os.listdir(folder) == ["text.txt"]


def test_file_that_another_process_wrote_meanwhile_is_kept(folder):
    text = folder / "text.txt"
    text.write_text("some words " * 100)

    def other(done, total):
        for name in ("t.bin", "t.bin.json"):
            (folder / name).write_text("another's")

    with stretches_of(100), pytest.raises(DataError, match=r"t\.bin: exists already"):
        encode_file(TRAINED, text, folder / "t.bin", 1, progress=other)
    assert (folder / "t.bin").read_text() == "another's"


# ---- scripts with worker processes --------------------------------------------------------------------------------

SCRIPT = """
from tinygrad_llm.datasets import corpora, encode_file
from tinygrad_llm.tokenizer import Tokenizer

if __name__ == "__main__":
    corpora.STRETCH = 200_000
    encode_file(Tokenizer.gpt2(), "text.txt", "t.bin", 2, progress=lambda *done: print(*done, flush=True))
"""


@pytest.mark.slow
def test_ctrl_c_leaves_no_file_and_no_process(folder, popen):
    (folder / "text.txt").write_text("".join(f"word{i} {i * i}\n" for i in range(600_000)))
    (folder / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    process = popen(
        [sys.executable, "script.py"], cwd=folder, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A shell starts background jobs with Ctrl-C ignored, and their children inherit that.
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
def test_script_without_a_main_guard_is_named(folder):
    (folder / "text.txt").write_text("a b c\n" * 100_000)
    (folder / "script.py").write_text(SCRIPT.replace('if __name__ == "__main__":', "if True:"))
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "script.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode != 0
    assert "DataError: text.txt: a worker process died" in done.stderr
    assert sorted(os.listdir(folder)) == ["script.py", "text.txt"]
