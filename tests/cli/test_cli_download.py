"""`tinygrad-llm download`: a tiny GPT-2 from a server on this machine, by the command."""

import functools
import http.server
import io
import json
import os
import re
import sys
import threading
from pathlib import Path

import pytest

from tinygrad_llm import GPT, Generator, GPTConfig, Tokenizer
from tinygrad_llm.cli import download as command
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
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=root)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        monkeypatch.setenv("TINYGRAD_LLM_OPENAI_URL", f"http://127.0.0.1:{server.server_port}")
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


def test_a_wrong_file_is_named_and_replaced_with_overwrite(cli, place):
    (place / "here").mkdir()
    (place / "here" / "hparams.json").write_text("mine")
    status, out, err = cli("download", "gpt2-medium", "--out", "here")
    assert (status, out, err.count("\n")) == (2, "", 1)
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
def test_every_failure_is_one_line(cli, web, place, monkeypatch, spoil, words):
    spoil(web, monkeypatch)
    status, out, err = cli("download", "gpt2-medium", "--out", "here")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert not (place / "here" / DATA).exists()
    assert not (place / "here" / ".download").exists()


@pytest.mark.parametrize("arguments", ["gpt3", "", "gpt2 --from elsewhere"])
def test_an_unknown_model_or_source_is_refused(cli, arguments):
    status, out, err = cli("download", *arguments.split())
    assert (status, out, err.count("\n")) == (2, "", 1)


def test_help_names_the_variables(cli):
    status, out, _ = cli("download", "--help")
    assert status == 0
    for variable in ("TINYGRAD_LLM_CACHE", "TINYGRAD_LLM_OPENAI_URL", "HF_ENDPOINT"):
        assert variable in out


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


def test_progress_lines_are_few(capsys):
    bars = command._Bars()
    for done in range(1000):
        bars.show("one", done, None)
    assert capsys.readouterr().err == ""
