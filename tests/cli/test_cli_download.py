"""`tinygrad-llm download`: a tiny GPT-2, and public texts, from a server on this machine, by the command."""

import functools
import hashlib
import http.server
import io
import json
import os
import re
import sys
import threading
import zipfile
from pathlib import Path

import pytest

from tinygrad_llm import GPT, Generator, GPTConfig, Tokenizer
from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli import download as command
from tinygrad_llm.datasets import load_corpus
from tinygrad_llm.datasets.public import PUBLIC
from tinygrad_llm.models import CONFIGS
from tinygrad_llm.weights import write_pretrained

TINY = GPTConfig(vocab_size=260, block_size=8, n_layer=1, n_head=1, n_embd=8)
DATA = "model.ckpt.data-00000-of-00001"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture(autouse=True)
def web(tmp_path, monkeypatch):
    """The folder that a server on this machine shows, as a mirror of OpenAI's."""
    root = tmp_path / "web"
    tokenizer = Tokenizer.train("cat mat " * 9, TINY.vocab_size)
    write_pretrained(root / "355M", TINY, GPT(TINY, Generator(0)).state_dict(), "openai")
    tokenizer.save_gpt2(root / "355M")
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(CONFIGS, "gpt2-medium", TINY)
    monkeypatch.setenv("TINYGRAD_LLM_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TINYGRAD_LLM_DATA", raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=root)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setenv("TINYGRAD_LLM_OPENAI_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("TINYGRAD_LLM_DATA_URL", f"http://127.0.0.1:{server.server_port}")
        yield root / "355M"
        server.shutdown()
        thread.join(60)


def test_a_model_is_fetched_and_found_by_its_name(cli, tmp_path):
    status, out, err = cli("download", "gpt2-medium")
    assert (status, err) == (0, "")
    assert f"{DATA}: {4 * TINY.num_parameters:,} bytes, fetched, contents verified" in out
    assert out.endswith('cache/gpt2-medium: read it with GPT.from_pretrained("gpt2-medium")\n')
    assert GPT.from_pretrained("gpt2-medium").config == TINY

    status, out, err = cli("download", "gpt2-medium")
    assert (status, err) == (0, "")
    assert out.count("existed, contents verified") == 6
    assert cli("convert", "gpt2-medium", "ours")[0] == 0


def test_the_summary_as_json(cli, web, place):
    status, out, err = cli("download", "gpt2-medium", "--out", "here", "--json")
    assert (status, err) == (0, "")
    figures = json.loads(out)
    files = figures.pop("files")
    assert figures == {
        "model": "gpt2-medium",
        "source": "openai",
        "url": os.environ["TINYGRAD_LLM_OPENAI_URL"] + "/355M/",
        "folder": "here",
        "bytes": sum(file.stat().st_size for file in web.iterdir()),
    }
    assert {file["name"] for file in files} == {file.name for file in (place / "here").iterdir()}
    assert files[-1] == {"name": DATA, "size": 4 * TINY.num_parameters, "fetched": True, "verified": "contents"}


def test_a_wrong_file_is_named_and_replaced_with_overwrite(cli, refused, place):
    (place / "here").mkdir()
    (place / "here" / "hparams.json").write_text("mine")
    err = refused("download", "gpt2-medium", "--out", "here")
    assert str(Path("here", "hparams.json")) in err
    assert "--overwrite" in err
    assert cli("download", "gpt2-medium", "--out", "here", "--overwrite")[0] == 0
    assert GPT.from_pretrained("here").config == TINY


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda web, patch: (web / DATA).unlink(), "404"),
        (lambda web, patch: (web / DATA).write_bytes(b"<!doctype html>"), "a web page"),
        (lambda web, patch: (web / DATA).write_bytes(bytes(4 * TINY.num_parameters)), "CRC mismatch"),
        (lambda web, patch: patch.setenv("TINYGRAD_LLM_OPENAI_URL", "file:///etc"), "not the URL of a mirror"),
        (lambda web, patch: Path("here").write_text("a file"), "here"),
    ],
)
def test_every_failure_is_one_line(refused, web, place, monkeypatch, spoil, words):
    spoil(web, monkeypatch)
    assert words in refused("download", "gpt2-medium", "--out", "here")
    assert not (place / "here" / DATA).exists()
    assert not (place / "here" / ".download").exists()


# ---- public texts --------------------------------------------------------------------------------------------------

MESSAGES = b"".join(b"%s\tmessage %d\n" % ((b"ham", b"spam")[i % 2], i) for i in range(40))
ARCHIVE = "sms+spam+collection.zip"


@pytest.fixture
def texts(web, monkeypatch):
    """The server's folder with small texts under the published names, whose hashes are the expected ones."""
    root = web.parent
    with zipfile.ZipFile(root / ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme", "about it")
        archive.writestr("SMSSpamCollection", MESSAGES)
    (root / "the-verdict.txt").write_bytes(b"A short story. " * 20)
    for name, data in (("sms-spam", MESSAGES), ("the-verdict", b"A short story. " * 20)):
        file = PUBLIC[name].file._replace(size=len(data), sha256=hashlib.sha256(data).hexdigest(), limit=2000)
        monkeypatch.setitem(PUBLIC, name, PUBLIC[name]._replace(file=file))
    return root


def test_a_text_in_an_archive_is_fetched_and_found_by_its_name(
    cli, printed, refused, texts, runs, tmp_path, monkeypatch
):
    words = ("finetune", "classifier", "sms-spam", "--base", runs["stories"], "--out", "new", "--steps", 2)
    assert "is not there: run `tinygrad-llm download sms-spam` first, or set TINYGRAD_LLM_DATA" in refused(*words)
    shown = []
    monkeypatch.setattr(command._Bars, "show", lambda bars, name, done, total: shown.append((name, done, total)))
    status, out, err = cli("download", "sms-spam")
    assert (status, err) == (0, "")
    assert shown
    assert shown[-1][1] == shown[-1][2] > 0, "the last progress is of the whole file"
    folder = tmp_path / "cache" / "data"
    assert (
        out == f"SMSSpamCollection: {len(MESSAGES)} bytes, fetched, SHA-256 verified\n{folder}: read it as sms-spam\n"
    )
    assert [path.name for path in folder.iterdir()] == ["SMSSpamCollection"]
    assert "existed, SHA-256 verified" in cli("download", "sms-spam")[1]
    out = printed(*words)
    assert "40 examples" in out


def test_a_text_goes_to_the_folder_of_the_variable_or_to_out(cli, printed, texts, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_LLM_DATA", str(tmp_path / "mine"))
    out = printed("download", "the-verdict", "--json")
    figures = json.loads(out)
    assert figures["folder"] == str(tmp_path / "mine")
    assert figures["url"] == os.environ["TINYGRAD_LLM_DATA_URL"] + "/"
    assert figures["files"] == [{"name": "the-verdict.txt", "size": 300, "fetched": True, "verified": "SHA-256"}]
    assert load_corpus("the-verdict").startswith("A short story.")
    assert cli("download", "the-verdict", "--out", "here")[1].endswith("here: read it as here/the-verdict.txt\n")


BIG = b"ham\tx\n" * 1000


def repack(name="SMSSpamCollection", data=MESSAGES, method=zipfile.ZIP_DEFLATED):
    def spoil(root):
        with zipfile.ZipFile(root / ARCHIVE, "w", method) as archive:
            archive.writestr(name, data)

    return spoil


def flip(root):
    data = bytearray((root / ARCHIVE).read_bytes())
    data[data.index(b"SMSSpamCollection") + 40] ^= 255  # in the packed bytes
    (root / ARCHIVE).write_bytes(data)


def encrypt(root):
    data = bytearray((root / ARCHIVE).read_bytes())
    data[data.rindex(b"PK\x01\x02") + 8] |= 1  # the flag of the last file in the directory
    (root / ARCHIVE).write_bytes(data)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: (root / ARCHIVE).unlink(), "yourself"),
        (lambda root: (root / ARCHIVE).write_bytes(b"no archive"), "cannot be unpacked: File is not a zip file"),
        (lambda root: (root / ARCHIVE).write_bytes(b"<html>"), "a web page"),
        (lambda root: (root / ARCHIVE).write_bytes(bytes(3000)), "at most 2000"),
        (repack(name="other"), "no item named 'SMSSpamCollection' in the archive"),
        (repack(data=BIG), "has more than the 2000 bytes that it may have"),
        (repack(data=MESSAGES[::-1]), "its SHA-256 differs from the published one"),
        (repack(data=MESSAGES[:-1]), f"has {len(MESSAGES) - 1} bytes, not {len(MESSAGES)}"),
        (repack(method=zipfile.ZIP_LZMA), "is packed by method 14"),
        (flip, "cannot be unpacked"),
        (encrypt, "encrypted"),
    ],
)
def test_every_failure_of_an_archive_is_one_line_and_leaves_nothing(refused, texts, place, spoil, words):
    spoil(texts)
    assert words in refused("download", "sms-spam", "--out", "here")
    assert not (place / "here").exists()


def test_a_text_that_was_changed_is_named_and_replaced_with_overwrite(cli, refused, texts, place):
    (place / "here").mkdir()
    (place / "here" / "the-verdict.txt").write_text("mine")
    assert "has 4 bytes, not 300: replace it with --overwrite" in refused("download", "the-verdict", "--out", "here")
    assert cli("download", "the-verdict", "--out", "here", "--overwrite")[0] == 0


def test_a_download_that_was_killed_while_it_unpacked_begins_again(cli, texts, place):
    staging = place / "here" / ".download"
    staging.mkdir(parents=True)
    (staging / "SMSSpamCollection").write_bytes(MESSAGES[:100])
    assert cli("download", "sms-spam", "--out", "here")[0] == 0
    assert [path.name for path in (place / "here").iterdir()] == ["SMSSpamCollection"]


@pytest.mark.parametrize("arguments", ["gpt3", "", "gpt2 --from elsewhere", "sms-spam --from openai"])
def test_an_unknown_model_or_source_is_refused(refused, arguments):
    refused("download", *arguments.split())


def test_help_names_the_variables(printed):
    out = printed("download", "--help")
    for name in PUBLIC:
        assert name in out
    for variable in ("CACHE", "OPENAI_URL", "DATA", "DATA_URL"):
        assert f"TINYGRAD_LLM_{variable}" in out
    assert "HF_ENDPOINT" in out


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize("with_tqdm", [True, False])
def test_progress_on_a_terminal(monkeypatch, with_tqdm):
    if with_tqdm:
        pytest.importorskip("tqdm")
    else:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("tinygrad_llm.cli.progress._SECONDS", 0.0)
    monkeypatch.setattr("tinygrad_llm.cli.progress._DELAY", 0.0)
    bars = command._Bars()
    for name in ("one", "two"):
        for done in (1_000_000, 2_000_000):
            bars.show(name, done, 2_000_000)
    bars.close()
    shown = sys.stderr.getvalue()
    if with_tqdm:
        assert "one 2.00M/2.00M |##########| " in shown
    else:
        assert re.findall(r"one .* MB", shown) == ["one 1.0/2.0 MB", "one 2.0/2.0 MB"]
    assert "two" in shown


def test_every_bar_is_closed_also_where_a_file_cannot_be_fetched(refused, monkeypatch):
    events = []

    class Noted:
        def __init__(self, unit, name, total, done):
            self.name = name
            events.append(("open", unit, name, total, done))

        def update(self, done, total):
            events.append((self.name, done, total))

        def close(self):
            events.append(("close", self.name))

    def fetch(name, folder, overwrite, report):
        report("a", 0, 2)
        report("a", 2, 2)
        report("b", 1, None)
        raise UsageError("b: cannot be fetched")

    monkeypatch.setattr(command, "Bar", Noted)
    monkeypatch.setattr(command, "download_public", fetch)
    assert refused("download", "sms-spam", "--out", "new") == "tinygrad-llm download: b: cannot be fetched\n"
    one = [("open", "B", "a", 2, 0), ("a", 0, 2), ("a", 2, 2), ("close", "a")]
    assert events == [*one, ("open", "B", "b", None, 1), ("b", 1, None), ("close", "b")]


def test_progress_lines_are_few(capsys):
    bars = command._Bars()
    for done in range(1000):
        bars.show("one", done, None)
    assert capsys.readouterr().err == ""
