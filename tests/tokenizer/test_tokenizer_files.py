import errno
import io
import json
import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.tokenizer import CharTokenizer, Tokenizer, TokenizerError, files, load_tokenizer
from tinygrad_llm.tokenizer.bpe import BYTE_NAMES
from tinygrad_llm.tokenizer.bpe import _split_at as split_at
from tinygrad_llm.tokenizer.pattern import split_words

BPE = {
    "format": "tinygrad_llm.tokenizer",
    "version": 1,
    "kind": "bpe",
    "merges": [[64, 65], [256, 66]],
    "special_tokens": ["<|endoftext|>"],
}
CHAR = {"format": "tinygrad_llm.tokenizer", "version": 1, "kind": "char", "characters": "\n abc"}


def refused(path, message=""):
    """Loading fails in every way it can be asked for, naming the path."""
    for load in (load_tokenizer, Tokenizer.load, CharTokenizer.load):
        with pytest.raises(TokenizerError, match=f"^{re.escape(str(path))}: .*{message}"):
            load(path)


# --- what is written is read -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tokenizers")


@given(text=st.text(), specials=st.lists(st.text(min_size=1), unique=True, max_size=3))
def test_a_bpe_tokenizer_comes_back(folder, text, specials):
    tokenizer = Tokenizer.train(text * 3, 300, specials)
    tokenizer.save(folder / "bpe.json")
    for again in (Tokenizer.load(folder / "bpe.json"), load_tokenizer(str(folder / "bpe.json"))):
        assert isinstance(again, Tokenizer)
        assert again.merges == tokenizer.merges
        assert again.special_tokens == tokenizer.special_tokens


@given(text=st.text(min_size=1))
def test_a_character_tokenizer_comes_back(folder, text):
    tokenizer = CharTokenizer.train(text)
    tokenizer.save(folder / "char.json")
    for again in (CharTokenizer.load(folder / "char.json"), load_tokenizer(folder / "char.json")):
        assert isinstance(again, CharTokenizer)
        assert again.characters == tokenizer.characters


def test_gpt2_comes_back(tmp_path):
    gpt2 = Tokenizer.gpt2()
    gpt2.save(tmp_path / "gpt2.json")
    again = Tokenizer.load(tmp_path / "gpt2.json")
    assert (again.merges, again.special_tokens) == (gpt2.merges, gpt2.special_tokens)


@pytest.mark.parametrize("document", [BPE, CHAR])
def test_the_file_is_what_the_documentation_shows(tmp_path, document):
    (tmp_path / "a.json").write_text(json.dumps(document))
    load_tokenizer(tmp_path / "a.json").save(tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text()) == document


def test_a_file_of_the_other_kind_is_named(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(CHAR))
    with pytest.raises(TokenizerError, match=r"t\.json: kind is 'char', not 'bpe'"):
        Tokenizer.load(path)
    path.write_text(json.dumps(BPE))
    with pytest.raises(TokenizerError, match=r"t\.json: kind is 'bpe', not 'char'"):
        CharTokenizer.load(path)


# --- bad files -------------------------------------------------------------------------------------------


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
        b"\xef\xbb\xbf" + json.dumps(BPE).encode(),
        json.dumps(BPE).encode().replace(b"endoftext", b"\xff"),
        b"<!DOCTYPE html><html></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        b"\x80\x04K\x01.",
    ],
)
def test_a_file_that_is_none_of_ours(tmp_path, data):
    path = tmp_path / "t.json"
    path.write_bytes(data)
    refused(path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other"}, "format"),
        ({"format": None}, "format"),
        ({"version": 2}, "version is 2"),
        ({"version": 1.0}, "version is 1.0"),
        ({"version": True}, "version is True"),
        ({"kind": "word"}, "kind is 'word'"),
        ({"kind": ["bpe"]}, r"kind is \['bpe'\]"),
        ({"extra": 1}, "unexpected 'extra'"),
    ],
)
@pytest.mark.parametrize("document", [BPE, CHAR])
def test_a_wrong_head(tmp_path, document, changes, message):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(document | changes))
    refused(path, message)


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
        (BPE, {"special_tokens": {"a": 258}}, "special_tokens is not a list"),
        (BPE, {"special_tokens": None}, "special_tokens is not a list"),
        (BPE, {"special_tokens": ["a", "b", "a"]}, "'a' is given twice"),
        (BPE, {"special_tokens": [""]}, "empty"),
        (BPE, {"special_tokens": [7]}, "not int"),
        (BPE, {"special_tokens": ["\ud800"]}, "surrogate"),
        (CHAR, {"characters": ["a", "b"]}, "characters is not a string"),
        (CHAR, {"characters": ""}, "at least one"),
        (CHAR, {"characters": "aba"}, "'a' occurs twice"),
        (CHAR, {"characters": "a\udfff"}, "surrogate"),
    ],
)
def test_a_wrong_value(tmp_path, document, changes, message):
    path = tmp_path / "t.json"
    path.write_text(json.dumps(document | changes))
    cls = Tokenizer if document is BPE else CharTokenizer
    for load in (load_tokenizer, cls.load):
        with pytest.raises(TokenizerError, match=f"^{re.escape(str(path))}: .*{message}"):
            load(path)


@pytest.mark.parametrize("document", [BPE, CHAR])
def test_every_field_is_needed_and_none_twice(tmp_path, document):
    path = tmp_path / "t.json"
    for field in document:
        path.write_text(json.dumps({name: value for name, value in document.items() if name != field}))
        refused(path, field)
        path.write_text(json.dumps(document)[:-1] + f', "{field}": {json.dumps(document[field])}}}')
        refused(path, "a key occurs twice")


@pytest.mark.parametrize("document", [BPE, CHAR])
def test_every_truncation_is_refused(tmp_path, document):
    path = tmp_path / "t.json"
    data = json.dumps(document).encode()
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path)


@pytest.mark.parametrize("document", [BPE, CHAR])
def test_a_flipped_bit_gives_a_tokenizer_or_the_one_error(tmp_path, document):
    """There is no checksum, so some flips make another valid file; none makes another exception."""
    path = tmp_path / "t.json"
    data = json.dumps(document).encode()
    outcomes = set()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        try:
            tokenizer = load_tokenizer(path)
        except TokenizerError as error:
            outcomes.add(str(error).partition(": ")[0])
        else:
            assert tokenizer.decode(range(tokenizer.n_vocab))
            outcomes.add("read")
    assert outcomes == {str(path), "read"}


def test_a_file_that_cannot_be_read(tmp_path, monkeypatch):
    refused(tmp_path / "none.json", "No such file")
    for kind in (Tokenizer, CharTokenizer):
        with pytest.raises(TokenizerError, match=f"^{re.escape(str(tmp_path))}: .*directory"):
            kind.load(tmp_path)
    with pytest.raises(TokenizerError, match=f"^{re.escape(str(tmp_path / 'tokenizer.json'))}: cannot be read"):
        load_tokenizer(tmp_path)
    for path in ("a\0b", "a\ud800b", 5, None):
        with pytest.raises(TokenizerError, match=r"is no path of a file|is none"):
            Tokenizer.load(path)
    path = tmp_path / "t.json"
    path.write_text(json.dumps(BPE))
    monkeypatch.setattr(files, "MAX_FILE_BYTES", 50)
    refused(path, "larger than 50 bytes")


# --- saving is all or nothing ----------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", [Tokenizer([(0, 1)]), CharTokenizer("ab")], ids=["bpe", "char"])
@pytest.mark.parametrize("function", ["fsync", "replace"])
@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_the_old_file_alone(tmp_path, monkeypatch, tokenizer, function, fault):
    path = tmp_path / "t.json"
    path.write_text("old")

    def fail(*_):
        raise fault

    monkeypatch.setattr(os, function, fail)
    with pytest.raises((TokenizerError, KeyboardInterrupt)) as caught:
        tokenizer.save(path)
    assert str(caught.value) in ("", f"{path}: cannot be written: No space left on device")
    assert isinstance(caught.value, KeyboardInterrupt) == isinstance(fault, KeyboardInterrupt)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["t.json"]


def test_a_save_leaves_one_file_and_follows_a_link(tmp_path):
    (tmp_path / "link.json").symlink_to("t.json")
    (tmp_path / "t.json").write_text("old")
    CharTokenizer("ab").save(tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert CharTokenizer.load(tmp_path / "t.json").characters == "ab"
    assert sorted(os.listdir(tmp_path)) == ["link.json", "t.json"]


@pytest.mark.parametrize("place", ["none/t.json", "file/t.json", "folder", "/"])
def test_a_place_that_cannot_be_written(tmp_path, place):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "folder").mkdir()
    with pytest.raises(TokenizerError, match=r"cannot be (written|replaced)"):
        CharTokenizer("ab").save(tmp_path / place)
    for none in ("a\0b", None, 5):
        with pytest.raises(TokenizerError):
            CharTokenizer("ab").save(none)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_text() == "kept"


@pytest.mark.skipif(os.name != "posix", reason="pipes and modes are POSIX's")
def test_a_pipe_stays_a_pipe_and_a_mode_stays(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TokenizerError, match="cannot be replaced, it is no regular file"):
        CharTokenizer("ab").save(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "secret.json").touch(0o600)
    CharTokenizer("ab").save(tmp_path / "secret.json")
    assert (tmp_path / "secret.json").stat().st_mode & 0o777 == 0o600


# --- GPT-2's pair ----------------------------------------------------------------------------------------


MERGES = "#version: 0.2\n# #\nĠ t\nĠt h\n## ##\n"


def pair(folder, changes=None, merges=MERGES):
    """The two files, with entries of encoder.json changed, added, or (None) taken out."""
    (folder / "vocab.bpe").write_bytes(merges.encode())
    plain = Tokenizer.from_merges_file(folder / "vocab.bpe", ())
    ids = {name: number for number, name in enumerate([*BYTE_NAMES, "##", "Ġt", "Ġth", "####"])}
    assert plain.n_vocab == len(ids)
    ids = {name: token_id for name, token_id in (ids | (changes or {})).items() if token_id is not None}
    (folder / "encoder.json").write_text(json.dumps(ids))
    return folder / "vocab.bpe", folder / "encoder.json"


def test_gpt2s_pair_is_read_and_its_other_entries_are_special(tmp_path):
    tokenizer = Tokenizer.from_gpt2_files(*pair(tmp_path, {"<|b|>": 261, "<|a|>": 260}))
    assert tokenizer.special_tokens == {"<|a|>": 260, "<|b|>": 261}
    assert tokenizer.encode("#### th<|b|>", "all") == [259, 258, 261]
    assert Tokenizer.from_gpt2_files(*pair(tmp_path)).special_tokens == {}


@given(text=st.text(), specials=st.lists(st.text(min_size=2).map(lambda text: f"<{text}>"), unique=True, max_size=3))
def test_gpt2s_pair_comes_back(folder, text, specials):
    tokenizer = Tokenizer.train(text * 3, 300, specials)
    tokenizer.save_gpt2(folder)
    again = Tokenizer.from_gpt2_files(folder / "vocab.bpe", folder / "encoder.json")
    assert list(again.merges.items()) == list(tokenizer.merges.items())
    assert again.special_tokens == tokenizer.special_tokens
    assert again.encode(text, "all") == tokenizer.encode(text, "all")


def test_gpt2_itself_writes_the_file_that_it_was_read_from(tmp_path):
    Tokenizer.gpt2().save_gpt2(tmp_path / "new" / "folder")
    written = tmp_path / "new" / "folder" / "vocab.bpe"
    assert written.read_bytes() == (Path(__file__).parents[2] / "data" / "gpt2" / "vocab.bpe").read_bytes()
    ids = json.loads((tmp_path / "new" / "folder" / "encoder.json").read_text())
    assert (ids["!"], ids["Ġthe"], ids["<|endoftext|>"], len(ids)) == (0, 262, 50256, 50257)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"!": None}, "no entry for '!', token 0 of "),
        ({"Ġt": None}, r"no entry for '\\u0120t', token 257 of "),
        ({"!": 1, '"': 0}, "the id of '!' is 1, but 0 in "),
        ({"##": 257}, r"'##' and '\\u0120t' have the same id 257"),
        ({"<|a|>": 259}, r"'####' and '<\|a\|>' have the same id 259"),
        ({"<|a|>": 261}, r"no entry has the id 260, but '<\|a\|>' has 261"),
        ({"<|a|>": -1}, r"no entry has the id 260, but '<\|a\|>' has -1"),
        ({"##": 2**70}, "the id of '##' is 1180591620717411303424, but 256 in "),
        ({"##": True}, "the id of '##' is True, no integer"),
        ({"##": 256.0}, "the id of '##' is 256.0, no integer"),
        ({"##": "256"}, "the id of '##' is '256', no integer"),
        ({"": 260}, "special token '' is empty"),
        ({"\ud800": 260}, "surrogate"),
    ],
)
def test_an_encoder_that_does_not_fit_its_merges(tmp_path, changes, message):
    files = pair(tmp_path, changes)
    with pytest.raises(TokenizerError, match=f"^{re.escape(str(files[1]))}: .*{message}"):
        Tokenizer.from_gpt2_files(*files)


@pytest.mark.parametrize("data", [b"", b"[]", b"7", b"{", b"\xff", b"[" * 100_000, b'{"!": 0, "!": 0}', b"<html>"])
def test_an_encoder_that_is_none(tmp_path, data):
    vocab, encoder = pair(tmp_path)
    encoder.write_bytes(data)
    with pytest.raises(TokenizerError, match=f"^{re.escape(str(encoder))}: "):
        Tokenizer.from_gpt2_files(vocab, encoder)


def test_a_repeated_entry_and_wrong_merges_are_named(tmp_path):
    vocab, encoder = pair(tmp_path)
    encoder.write_text('{"!": 0, "##": 256, "!": 1}')
    with pytest.raises(TokenizerError, match=r"encoder\.json: .*a key occurs twice: '!'"):
        Tokenizer.from_gpt2_files(vocab, encoder)
    vocab.write_text(MERGES + "x\n")
    with pytest.raises(TokenizerError, match=r"vocab\.bpe, line 6"):
        Tokenizer.from_gpt2_files(vocab, encoder)
    with pytest.raises(TokenizerError, match=r"none: cannot be read"):
        Tokenizer.from_gpt2_files(tmp_path / "none", encoder)


@pytest.mark.parametrize(
    "tokenizer",
    [Tokenizer([], ["a"]), Tokenizer([(64, 65), (65, 66), (256, 66), (64, 257)])],
    ids=["a special token named as a byte", "two tokens of the same bytes"],
)
def test_what_gpt2s_pair_cannot_say_is_not_written(tmp_path, tokenizer):
    with pytest.raises(TokenizerError, match=r"would write .* use save"):
        tokenizer.save_gpt2(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_made_or_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(TokenizerError, match="file: cannot be made"):
        Tokenizer([]).save_gpt2(tmp_path / "file")
    Tokenizer([]).save_gpt2(tmp_path)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    before = (tmp_path / "vocab.bpe").read_bytes()
    with pytest.raises(TokenizerError, match=r"vocab\.bpe: cannot be written: No space"):
        Tokenizer([(0, 1)]).save_gpt2(tmp_path)
    assert (tmp_path / "vocab.bpe").read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["encoder.json", "file", "vocab.bpe"]


def test_tiktoken_and_tokenizers_read_the_pair(tmp_path):
    gpt2 = Tokenizer.gpt2()
    gpt2.save_gpt2(tmp_path)
    load = pytest.importorskip("tiktoken.load")
    vocab, encoder = str(tmp_path / "vocab.bpe"), str(tmp_path / "encoder.json")
    ranks = load.data_gym_to_mergeable_bpe_ranks(vocab, encoder)
    assert ranks == {gpt2.token_bytes(token_id): token_id for token_id in range(50256)}
    models = pytest.importorskip("tokenizers.models")
    assert models.BPE.from_file(encoder, vocab)


# --- files to train on -----------------------------------------------------------------------------------


@given(
    text=st.text(alphabet="ab <>é\n\x85👩", max_size=60),
    specials=st.lists(st.sampled_from(["<a b>", "<", "b\n"]), unique=True),
    size=st.integers(1, 9),
)
def test_a_file_is_read_in_stretches_that_join_to_it(folder, text, specials, size):
    (folder / "a.txt").write_bytes(text.encode())
    stretches = list(files.read_stretches(folder / "a.txt", specials, size))
    assert "".join(stretches) == text
    expected = [word for piece in split_at(specials, text)[::2] for word in split_words(piece)]
    found = [word for part in stretches for piece in split_at(specials, part)[::2] for word in split_words(piece)]
    assert found == expected


@pytest.mark.parametrize(
    ("data", "at"), [(b"\xff", 0), ("é 👩".encode()[:-1], 3), (b"ab cd " * 10 + b"\xc3(", 60), (b"\xed\xa0\x80", 0)]
)
@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_a_file_that_is_no_text_is_named_with_the_byte(tmp_path, data, at, size):
    (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(TokenizerError, match=rf"a\.txt: not UTF-8 text: .* at byte {at}$"):
        list(files.read_stretches(tmp_path / "a.txt", (), size))


def test_a_file_with_nowhere_to_cut_is_read_whole(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"a" * 300_000)
    assert list(files.read_stretches(tmp_path / "a.txt", (), 10)) == ["a" * 300_000]
    with pytest.raises(TokenizerError, match="none: cannot be read"):
        list(files.read_stretches(tmp_path / "none", ()))


def test_an_endless_word_is_read_to_a_bound(monkeypatch):
    class Endless(io.BytesIO):
        def read(self, size=-1):
            return b"c" * size

    monkeypatch.setattr("builtins.open", lambda *args, **kwargs: Endless())
    monkeypatch.setattr(files, "MAX_UNBROKEN", 1000)
    with pytest.raises(TokenizerError, match=r"no white space in \d{4} characters"):
        list(files.read_stretches("endless.txt", (), 10))


@pytest.mark.parametrize("names", [("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json")])
def test_a_folder_with_gpt2s_pair_is_read_under_either_name(tmp_path, names):
    tokenizer = Tokenizer.train("the cat sat on the mat " * 9, 280)
    tokenizer.save_gpt2(tmp_path)
    for old, new in zip(("vocab.bpe", "encoder.json"), names, strict=True):
        (tmp_path / old).rename(tmp_path / new)
    loaded = load_tokenizer(tmp_path)
    assert (loaded.merges, loaded.special_tokens) == (tokenizer.merges, tokenizer.special_tokens)


def test_line_ends_of_carriage_returns_alone_are_refused(tmp_path):
    path = tmp_path / "vocab.bpe"
    path.write_bytes(b"#version: 0.2\ra b\rab c\r")
    with pytest.raises(TokenizerError, match="line 1: expected a header"):
        Tokenizer.from_merges_file(path)


def test_special_tokens_that_come_first_are_told(tmp_path):
    vocab, encoder = pair(tmp_path)
    ids = json.loads(encoder.read_text())
    encoder.write_text(json.dumps({"<s>": 0} | {name: i + 1 for name, i in ids.items() if name in BYTE_NAMES}))
    with pytest.raises(TokenizerError, match="'<s>' comes first; special tokens must come last"):
        Tokenizer.from_gpt2_files(vocab, encoder)
