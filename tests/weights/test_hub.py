"""Downloading a GPT-2, a tiny one, from a server on this machine."""

import contextlib
import dataclasses
import hashlib
import http.server
import importlib.util
import json
import os
import sys
import threading
import types
from pathlib import Path

import numpy as np
import pytest
from power_cut import PowerCut

from tinygrad_llm.formats import save_safetensors, write_tensorbundle
from tinygrad_llm.models import CONFIGS, GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.tokenizer import Tokenizer
from tinygrad_llm.weights import collect, hub, write_pretrained
from tinygrad_llm.weights.connection import DownloadError, Unreachable
from tinygrad_llm.weights.find import cache_folder
from tinygrad_llm.weights.hub import download, model_files, model_url
from tinygrad_llm.weights.names import from_ours

NAME = "gpt2-medium"  # no hash of its files is known
DATA, INDEX = "model.ckpt.data-00000-of-00001", "model.ckpt.index"
OPENAI = ["hparams.json", "checkpoint", "vocab.bpe", "encoder.json", INDEX, DATA]
HUGGINGFACE = ["config.json", "merges.txt", "vocab.json", "model.safetensors"]
TINY = GPTConfig(vocab_size=300, block_size=8, n_layer=2, n_head=2, n_embd=128)  # so that the data take some reads


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    """The files as they lie on the servers of OpenAI and of the model hub."""
    root = tmp_path_factory.mktemp("web")
    model = GPT(TINY, Generator(0))
    tokenizer = Tokenizer.train(Path(__file__).read_text(encoding="utf-8"), TINY.vocab_size)
    for name, size in (("gpt2", "124M"), (NAME, "355M")):
        hugging = root / "openai-community" / name / "resolve" / "main"
        write_pretrained(root / size, TINY, model.state_dict(), "openai")
        write_pretrained(hugging, TINY, model.state_dict(), "huggingface")
        tokenizer.save_gpt2(root / size)
        (hugging / "merges.txt").write_bytes((root / size / "vocab.bpe").read_bytes())
        (hugging / "vocab.json").write_bytes((root / size / "encoder.json").read_bytes())
    return root


@pytest.fixture(autouse=True)
def server(web, monkeypatch, tmp_path):
    """A server of these files, without ranges: `asked` are the names, `instead` what it sends for some of them."""
    state = types.SimpleNamespace(asked=[], instead={}, statuses={})

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = web / self.path.lstrip("/")
            state.asked.append(path.name)
            data = state.instead.get(path.name, path.read_bytes() if path.is_file() else b"")
            start = int(self.headers.get("Range", "bytes=0-")[6:-1])
            self.send_response(state.statuses.get(path.name, 206 if start else 200 if path.is_file() else 404))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", '"one"')
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(data[start:])

        def log_message(self, *args):
            pass

    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("gpt2", NAME):
        monkeypatch.setitem(CONFIGS, name, TINY)
    monkeypatch.setattr(hub, "_SIZES", {})
    hashes = {name: hashlib.sha256((web / "124M" / name).read_bytes()).hexdigest() for name in hub._SHA256}
    monkeypatch.setattr(hub, "_SHA256", hashes)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setenv("TINYGRAD_LLM_OPENAI_URL", url)
        monkeypatch.setenv("HF_ENDPOINT", url + "/")
        monkeypatch.setenv("TINYGRAD_LLM_CACHE", str(tmp_path / "cache"))
        yield state
        running.shutdown()
        thread.join(60)


def get(folder, name=NAME, *source, **options):
    return download(name, CONFIGS[name], folder, *source, **{"pause": 0, "attempts": 2, "timeout": 5} | options)


def names(folder):
    return sorted(path.name for path in Path(folder).iterdir()) if Path(folder).exists() else []


@pytest.mark.parametrize(("source", "expected"), [("openai", OPENAI), ("huggingface", HUGGINGFACE)])
@pytest.mark.parametrize("name", ["gpt2", NAME])
def test_a_downloaded_model_is_read_by_its_name(server, name, source, expected):
    seen = {}
    done = get(None, name, source, report=lambda file, count, total: seen.update({file: (count, total)}))
    assert [file.name for file in done] == server.asked == expected
    assert all(file.fetched and seen[file.name] == (file.size, file.size) for file in done)
    assert names(cache_folder(name)) == sorted(expected)
    assert GPT.from_pretrained(name).config == TINY
    hashed = set(hub._SHA256) if (name, source) == ("gpt2", "openai") else set()
    assert {file.name for file in done if file.verified == "SHA-256"} == hashed

    again = get(None, name, source)
    assert [file._replace(fetched=True) for file in again] == done
    assert not any(file.fetched for file in again)
    assert server.asked == expected  # nothing was asked for twice


@pytest.mark.skipif(os.name != "posix", reason="a folder is synced on POSIX")
def test_a_download_is_on_the_disk_before_it_gets_its_name(server, monkeypatch):
    disk = PowerCut(monkeypatch)
    get(cache_folder(NAME))
    disk.check()
    assert disk.synced


def test_an_existing_path_comes_before_the_name(tmp_path, monkeypatch):
    get(None)
    monkeypatch.chdir(tmp_path)
    other = dataclasses.replace(TINY, n_layer=1)
    GPT(other, Generator(0)).save_pretrained(tmp_path / NAME)
    assert GPT.from_pretrained(NAME).config == other


def test_an_incomplete_download_is_not_a_model(server):
    server.statuses[DATA] = 404
    with pytest.raises(Unreachable):
        get(None)
    assert names(cache_folder(NAME)) == sorted(set(OPENAI) - {DATA})
    with pytest.raises(LoadError, match=f"run `tinygrad-llm download {NAME}` first"):
        GPT.from_pretrained(NAME)


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


PAGE = b"<html>log in</html>"
BAD = [
    ("openai", "hparams.json", PAGE, "a web page"),
    ("openai", "hparams.json", b'{"n_vocab": 300', "not what it should be"),
    ("openai", "hparams.json", b'{"n_vocab": 300}', "of another model: block_size"),
    ("openai", "hparams.json", b"[]", "of another model"),
    ("openai", "hparams.json", b"{" + b" " * 10_000 + b"}", "announces 10002 bytes"),
    ("openai", "checkpoint", b"", "does not name model.ckpt"),
    ("openai", "vocab.bpe", b"#version: 0.2\na b\n", "not the merges of 300 tokens"),
    ("openai", "vocab.bpe", b"\xff", "not what it should be"),
    ("openai", "encoder.json", b"{}", "no entry for"),
    ("openai", INDEX, b"x" * 5000, "footer: magic number"),
    ("openai", DATA, b"", "announces 0 bytes"),
    ("openai", DATA, PAGE.ljust(4 * TINY.num_parameters), "a web page"),
    ("openai", DATA, b"x" * 4 * TINY.num_parameters, "CRC mismatch"),
    ("huggingface", "config.json", b'{"model_type": "llama"}', "not a model that GPT can represent"),
    ("huggingface", "config.json", b"null", "not the sizes of a GPT-2"),
    ("huggingface", "vocab.json", b"[]", "expected an object"),
    ("huggingface", "model.safetensors", b"x" * 5000, "not a safetensors file"),
    ("huggingface", "model.safetensors", b"x" * 10_000_000, "such a file has at most"),
]


def test_a_wrong_file_never_gets_its_name(server, tmp_path, for_each):
    def check(case):
        source, name, data, words = case
        folder = tmp_path / f"{BAD.index(case)}"
        server.instead = {name: data}
        with pytest.raises(DownloadError) as error:
            get(folder, source=source)
        message = str(error.value)
        assert words in message
        assert name in message
        assert "\n" not in message
        expected = OPENAI if source == "openai" else HUGGINGFACE
        assert names(folder) == sorted(expected[: expected.index(name)])

    for_each(BAD, check)


def test_one_wrong_bit_is_found_by_the_hash_or_the_crcs(server, web, tmp_path, for_each):
    def check(case):
        model, name, place, words = case
        folder = tmp_path / f"{model} {name} {place}"
        data = (web / ("124M" if model == "gpt2" else "355M") / name).read_bytes()
        server.instead = {name: flipped(data, int(place * (len(data) - 1)))}
        with pytest.raises(DownloadError, match=words):
            get(folder, model)
        assert names(folder) == sorted(OPENAI[: OPENAI.index(name)])

    hashed = [("gpt2", name, 0.5, "SHA-256 differs from the published") for name in OPENAI[2:]]
    for_each(hashed + [(NAME, DATA, place, "CRC mismatch") for place in (0, 0.3, 1)], check)


def test_a_file_that_is_there_must_have_its_size(server, tmp_path, for_each):
    get(tmp_path / "gpt2")

    def check(size):
        os.truncate(tmp_path / "gpt2" / DATA, size)  # the CRCs do not see what follows the tensors
        with pytest.raises(DownloadError, match=f"{DATA}: has {size} bytes, not {whole}: replace it with --overwrite"):
            get(tmp_path / "gpt2")

    whole = 4 * TINY.num_parameters
    for_each([whole - 1, whole + 1], check)


def weights_of_another(state):
    """Tensors that are no GPT-2 of these sizes, though some have as many bytes as one."""
    bias, scale = "transformer.ln_f.bias", "transformer.ln_f.weight"
    yield "unexpected", {name.replace("h.1", "h.2"): array for name, array in state.items()}
    yield "missing transformer.ln_f.bias", {name: array for name, array in state.items() if name != bias}
    yield "transformer.ln_f.bias has shape", state | {bias: state[bias].reshape(2, -1)}
    yield "transformer.ln_f.bias holds int32", state | {bias: state[bias].astype(np.int32)}
    yield "lm_head.weight", state | {"lm_head.weight": state["transformer.wte.weight"] + 1}
    yield "NaN or infinity in transformer.ln_f.weight", state | {scale: np.full_like(state[scale], np.nan)}


def test_the_weights_of_another_model_are_refused(server, tmp_path, for_each):
    def check(case):
        words, state = case
        save_safetensors(tmp_path / "weights", from_ours(state, "huggingface"))
        server.instead["model.safetensors"] = (tmp_path / "weights").read_bytes()
        with pytest.raises(DownloadError, match=words) as error:
            get(tmp_path / "out", source="huggingface")
        assert "\n" not in str(error.value)
        assert "model.safetensors" not in names(tmp_path / "out")

    for_each(weights_of_another(GPT(TINY, Generator(0)).state_dict()), check)


def test_the_index_of_another_model_is_refused(server, tmp_path, for_each):
    def check(case):
        words, arrays = case
        write_tensorbundle(tmp_path / "model.ckpt", arrays)
        server.instead[INDEX] = (tmp_path / INDEX).read_bytes()
        with pytest.raises(DownloadError, match=words):
            get(tmp_path / "out")
        assert INDEX not in names(tmp_path / "out")

    others = list(weights_of_another(GPT(TINY, Generator(0)).state_dict()))[1:4]
    foreign = ("unexpected model/x", {"model/x": np.ones(9)})
    for_each([foreign, *((words, from_ours(state, "openai")) for words, state in others)], check)


def test_a_vocabulary_of_another_size_and_an_index_of_several_files_are_refused(tmp_path, monkeypatch):
    Tokenizer.train("the cat sat on the mat " * 9, 262).save_gpt2(tmp_path)
    hub._check_vocabulary("vocab.bpe", tmp_path / "encoder.json", tmp_path, dataclasses.replace(TINY, vocab_size=262))
    with pytest.raises(LoadError, match=r"encoder\.json: not 300 tokens$"):
        hub._check_vocabulary("vocab.bpe", tmp_path / "encoder.json", tmp_path, TINY)
    monkeypatch.setattr(hub, "read_index", lambda path: ([], 2))
    with pytest.raises(LoadError, match=r"index: of another model: in 2 shards$"):
        hub._check_index(tmp_path / INDEX, tmp_path, TINY)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in folders here")
def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path, for_each):
    def check(case):
        source, name = case
        file = tmp_path / source / name
        file.rename(file.with_suffix(".kept"))
        os.mkfifo(file)
        with pytest.raises(DownloadError, match=f"{name}: not a file"):
            get(file.parent, source=source)
        file.with_suffix(".kept").replace(file)

    get(tmp_path / "openai")
    get(tmp_path / "huggingface", source="huggingface")
    for_each([("openai", name) for name in OPENAI] + [("huggingface", name) for name in HUGGINGFACE], check)


def test_every_error_of_a_check_is_one_line(tmp_path, monkeypatch, for_each):
    def check(error):
        monkeypatch.setattr(hub, "_check_data", lambda *_: (_ for _ in ()).throw(error))
        with pytest.raises(DownloadError, match=r"data-.*: x y$"):
            get(tmp_path)
        assert DATA not in names(tmp_path)

    for_each([error("x\ny") for error in (ValueError, OverflowError, OSError, LoadError)], check)


def test_an_answer_that_makes_no_sense_is_not_called_a_wrong_hash(tmp_path, monkeypatch):
    def fetch(*args, **options):
        raise ValueError("Port could not be cast\nto integer value")  # as urllib does of a Location

    monkeypatch.setattr(collect, "fetch", fetch)
    with pytest.raises(DownloadError, match=r"hparams\.json: the server's answer makes no sense: Port .* cast to"):
        get(tmp_path, "gpt2")


@pytest.mark.parametrize("name", ["hparams.json", "encoder.json", DATA])
def test_an_existing_wrong_file_is_replaced_only_with_overwrite(server, web, tmp_path, name):
    get(tmp_path)
    (tmp_path / name).write_bytes(b"mine")
    server.asked.clear()
    with pytest.raises(DownloadError, match="--overwrite") as error:
        get(tmp_path)
    assert str(tmp_path / name) in str(error.value)
    assert (tmp_path / name).read_bytes() == b"mine"
    assert server.asked == []

    server.statuses[name] = 404
    with pytest.raises(Unreachable):
        get(tmp_path, overwrite=True)
    assert (tmp_path / name).read_bytes() == b"mine"  # until there is a better one
    server.statuses.clear()
    assert [file.name for file in get(tmp_path, overwrite=True) if file.fetched] == [name]
    assert (tmp_path / name).read_bytes() == (web / "355M" / name).read_bytes()


def test_a_download_resumes_where_it_stopped(server, tmp_path):
    def interrupt(name, done, total):
        if name == DATA:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(tmp_path, report=interrupt)
    assert names(tmp_path / ".download") == [f"{DATA}.part", f"{DATA}.part.version"]
    first = []
    get(tmp_path, report=lambda name, done, total: first.append(done))
    assert min(first) > 512  # the first 512 bytes were there
    assert names(tmp_path) == sorted(OPENAI)


def test_a_killed_download_is_resumed_and_cleaned_up(server, web, tmp_path):
    (tmp_path / ".download").mkdir()
    (tmp_path / ".download" / INDEX).write_bytes(b"a copy")
    (tmp_path / ".download" / DATA).write_bytes((web / "355M" / DATA).read_bytes())  # complete, but not yet verified
    get(tmp_path)
    assert names(tmp_path) == sorted(OPENAI)
    assert DATA not in server.asked
    (tmp_path / ".download").mkdir()
    (tmp_path / ".download" / INDEX).write_bytes(b"a copy of what has its name already")
    assert not any(file.fetched for file in get(tmp_path))
    assert names(tmp_path) == sorted(OPENAI)


def test_without_a_network_the_message_names_what_to_try(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYGRAD_LLM_OPENAI_URL", "http://127.0.0.1:9")
    with pytest.raises(Unreachable) as error:
        get(tmp_path / "out")
    message = str(error.value)
    assert message.startswith("http://127.0.0.1:9/355M/hparams.json: ")
    assert message.endswith(
        ": try again later, through a proxy (HTTPS_PROXY) or from a mirror (TINYGRAD_LLM_OPENAI_URL); or put "
        f"{', '.join(OPENAI)} from http://127.0.0.1:9/355M/ into {tmp_path / 'out'} yourself"
    )
    assert "\n" not in message
    assert names(tmp_path) == []


def test_a_proxy_is_used(server, tmp_path, monkeypatch):
    proxy = os.environ["TINYGRAD_LLM_OPENAI_URL"]
    monkeypatch.setenv("TINYGRAD_LLM_OPENAI_URL", "http://mirror.invalid")
    monkeypatch.setenv("http_proxy", proxy)
    server.instead["hparams.json"] = b"through the proxy"
    with pytest.raises(DownloadError):
        get(tmp_path)
    assert server.asked == ["hparams.json"]  # the name of this mirror means nothing to anyone else


def test_a_second_download_at_once_is_refused(tmp_path):
    pytest.importorskip("fcntl")
    second = []

    def also(name, done, total):
        with pytest.raises(DownloadError, match="another download into it is running") as error:
            get(tmp_path)
        second.append(error)

    get(tmp_path, report=also)
    assert second


def test_a_mirror_must_be_a_url(monkeypatch, for_each):
    def check(mirror):
        monkeypatch.setenv("HF_ENDPOINT", mirror)
        with pytest.raises(DownloadError, match=r"HF_ENDPOINT=.*not the URL of a mirror"):
            model_url("gpt2", "huggingface")

    for_each(["ftp://x", "file:///etc", "x", "http://", "https://x/?a=b", "https://x/#a"], check)


def test_the_addresses_are_the_published_ones(monkeypatch):
    monkeypatch.delenv("HF_ENDPOINT")
    monkeypatch.delenv("TINYGRAD_LLM_OPENAI_URL")
    openai = "https://openaipublic.blob.core.windows.net/gpt-2/models"
    assert model_url("gpt2-xl", "openai") == f"{openai}/1558M/"
    assert model_url("gpt2-large", "openai") == f"{openai}/774M/"
    assert model_url("gpt2", "huggingface") == "https://huggingface.co/openai-community/gpt2/resolve/main/"


def test_the_cache_is_in_the_folder_of_the_system(monkeypatch, tmp_path):
    assert cache_folder("gpt2") == tmp_path / "cache" / "gpt2"
    monkeypatch.delenv("TINYGRAD_LLM_CACHE")
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder("gpt2") == tmp_path / "tinygrad_llm" / "gpt2"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder("gpt2") == tmp_path / ".cache" / "tinygrad_llm" / "gpt2"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache_folder("gpt2") == tmp_path / "Library" / "Caches" / "tinygrad_llm" / "gpt2"
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    assert cache_folder("gpt2") == tmp_path / "AppData" / "Local" / "tinygrad_llm" / "gpt2"
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "local"))
    assert cache_folder("gpt2") == tmp_path / "local" / "tinygrad_llm" / "gpt2"


def test_every_model_has_both_forms():
    for name in CONFIGS:
        assert [file.name for file in model_files(name, CONFIGS[name], "openai")] == OPENAI
        assert [file.name for file in model_files(name, CONFIGS[name], "huggingface")] == HUGGINGFACE


def published():
    """The module as it is, without this file's patches."""
    specification = importlib.util.find_spec("tinygrad_llm.weights.hub")
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_the_published_sizes_and_hashes(monkeypatch):
    monkeypatch.setitem(CONFIGS, "gpt2", GPTConfig())
    files = {file.name: file for file in published().model_files("gpt2", CONFIGS["gpt2"], "openai")}
    assert files[DATA].size == 497_759_232
    assert files[DATA].sha256 == "2060c885360cc0cf41d7a6dbc4d24b5127aae20260c8b5ae521b5a6578407118"
    assert files[INDEX].size == 5215
    ours = Path(__file__).parents[2] / "data" / "gpt2" / "vocab.bpe"
    if not ours.exists():
        ours = Path(hub.__file__).parents[1] / "data" / "gpt2" / "vocab.bpe"
    assert hashlib.sha256(ours.read_bytes()).hexdigest() == files["vocab.bpe"].sha256
    assert ours.stat().st_size == files["vocab.bpe"].size


def test_the_vocabulary_that_the_merges_give_is_openais(tmp_path, gpt2):
    """encoder.json is a function of vocab.bpe: ours, written with OpenAI's spacing, has OpenAI's SHA-256."""
    gpt2.save_gpt2(tmp_path)
    tokens = json.loads((tmp_path / "encoder.json").read_bytes())
    assert len(tokens) == GPTConfig().vocab_size
    openais = hashlib.sha256(json.dumps(tokens).encode()).hexdigest()
    assert openais == published()._SHA256["encoder.json"]


def test_the_real_files_have_room_in_their_limits(monkeypatch):
    """The sizes of the hub's files of these models, whose masks are stored as float32."""
    monkeypatch.setitem(CONFIGS, "gpt2", GPTConfig())
    limits = {file.name: file.limit for file in model_files("gpt2", CONFIGS["gpt2"], "huggingface")}
    assert 548_105_171 <= limits["model.safetensors"] < 550_000_000
    assert limits["vocab.json"] >= 1_042_301
