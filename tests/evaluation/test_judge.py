"""A judge behind an OpenAI-compatible endpoint: what is sent, what is understood, and every failure."""

import functools
import time
from urllib.request import ProxyHandler

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judge_server import JudgeServer, replied, send

from tinygrad_llm.evaluation import judge as judge_module
from tinygrad_llm.evaluation.judge import Judge, score_in
from tinygrad_llm.weights.connection import DownloadError, Transient, Unreachable

KEY = "sk-secret-1234"
ASK = ("Say the plural.\n\nfox", "One fox, two foxes.", "two foxs")


@pytest.fixture(autouse=True)
def proxy(monkeypatch):
    """A proxy that is not there: a judge on this machine is reached without it."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.upper(), "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)


def judge(server, **options):
    return Judge(server.url, "llama3", **{"timeout": 10.0, "pause": 0.0} | options)


def test_the_question_holds_task_answer_and_expected_answer_and_nothing_else_is_sent():
    with JudgeServer("85") as server:
        assert judge(server, key=KEY).score(*ASK) == (85.0, "85")
        ((path, headers, fields),) = server.asked
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert headers["Content-Type"] == headers["Accept"] == "application/json"
    assert headers["User-Agent"] == "tinygrad_llm"
    ((message),) = fields.pop("messages")
    assert fields == {"model": "llama3", "temperature": 0, "seed": 123}
    assert message["role"] == "user"
    task, expected, answer = map(message["content"].index, ASK)
    words = ("this task:", "A right answer is:", "The model's answer is:", "0 (worthless) to 100 (perfect)")
    assert sorted([task, expected, answer, *map(message["content"].index, words)]) == [
        message["content"].index(part) for part in (words[0], ASK[0], words[1], ASK[1], words[2], ASK[2], words[3])
    ]


def test_without_a_key_no_key_is_sent_and_a_whole_address_is_kept():
    with JudgeServer("7") as server:
        server.url += "/chat/completions/"
        assert judge(server).score(*ASK).score == 7
        ((path, headers, _),) = server.asked
    assert path == "/v1/chat/completions"
    assert "Authorization" not in headers


@pytest.mark.parametrize(
    ("reply", "score"),
    [
        ("85", 85), (" 85\n", 85), ("85.", 85), ("**85**", 85), ("Score: 85", 85), ("85/100", 85), ("85 / 100", 85),
        ("I would give 85 out of 100.", 85), ("92.5", 92.5), ("0", 0), ("100", 100), ("100/100", 100), ("85%", 85),
        ("A score of 100.", 100), ("On a scale from 0 to 100: 40", 40), ("(0-100) 40", 40),
        ("70\n\nIt has 2 of 3 words right.", 70), ("Score: 70. So: 70", 70), ("85, because it is short", 85),
        ("\n 85\n\nIt has 2 of 3 words right.", 85),
        ("", None), ("very good", None), ("101", None), ("-5", None), ("between 80 and 90", None), ("80-90", None),
        ("It has 2 of 3 words right: 70", None), ("1,000", None), ("fox2", None), ("1e2", None), ("nan", None),
    ],
)  # fmt: skip
def test_the_score_is_the_only_number_of_a_reply(reply, score):
    assert score_in(reply) == score


@given(st.text())
def test_any_reply_is_read(reply):
    score = score_in(reply)
    assert score is None or 0 <= score <= 100


def busy(wait, handler):
    send(handler, b"", 429, Retry_After=wait)


def broken(handler):
    send(handler, b'{"choices":', length=1000)


@pytest.mark.parametrize(
    "answers",
    [[503, "85"], [429, 500, "85"], [functools.partial(busy, "0"), "85"], [functools.partial(busy, "soon"), "85"],
     [broken, "85"], [lambda handler: None, "85"]],
)  # fmt: skip
def test_a_busy_server_is_asked_again(answers):
    with JudgeServer(*answers) as server:
        assert judge(server).score(*ASK).score == 85
        assert len(server.asked) == len(answers)


def test_a_server_is_waited_for_as_long_as_it_asks(monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    with JudgeServer(functools.partial(busy, "7"), functools.partial(busy, "99999"), 503, "85") as server:
        assert judge(server, pause=1.0).score(*ASK).score == 85
    assert waits == [7.0, 60.0, 4.0]


@pytest.mark.parametrize(
    ("url", "proxies"),
    [
        ("http://localhost:1/v1", [{}]),
        ("http://127.0.0.1:1", [{}]),
        ("http://[::1]:1", [{}]),
        ("https://a.example", []),
    ],
)
def test_a_judge_elsewhere_is_asked_by_the_proxy_and_as_patiently_as_documented(url, proxies, monkeypatch):
    asked = []

    def open_url(url, headers, timeout, window, *handlers, data):
        asked.append((url, timeout, window, [h.proxies for h in handlers if isinstance(h, ProxyHandler)]))
        raise Transient("busy")

    waits = []
    monkeypatch.setattr(judge_module, "open_url", open_url)
    monkeypatch.setattr(time, "sleep", waits.append)
    with pytest.raises(Unreachable, match=r"busy, in 4 attempts$"):
        Judge(url, "llama3").score(*ASK)
    assert asked == [(f"{url}/chat/completions", 300.0, 300.0, proxies)] * 4
    assert waits == [1.0, 2.0, 4.0]


def test_a_server_that_stays_busy_is_given_up():
    with JudgeServer(503) as server:
        with pytest.raises(Unreachable, match=r"/chat/completions: the server answers 503 .*, in 3 attempts$"):
            judge(server, attempts=3).score(*ASK)
        assert len(server.asked) == 3


def test_a_server_that_is_not_there_is_named():
    with JudgeServer("85") as server:
        pass
    with pytest.raises(Unreachable, match=r"127.0.0.1:\d+/v1/chat/completions: the connection failed: .*refused"):
        judge(server, attempts=2).score(*ASK)


def drip(server, handler):
    handler.send_response(200)
    handler.end_headers()
    while not server.stop.wait(0.05):
        handler.wfile.write(b" ")
        handler.wfile.flush()


@pytest.mark.parametrize("stall", ["silent", "byte after byte"])
def test_a_server_that_stalls_is_given_up(stall):
    with JudgeServer("") as server:
        quiet = lambda handler: server.stop.wait(60)  # noqa: E731
        server.answers = [quiet if stall == "silent" else functools.partial(drip, server)]
        with pytest.raises(Unreachable, match="the server stopped sending, in 1 attempts"):
            judge(server, timeout=0.4, attempts=1).score(*ASK)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "401 Unauthorized; TINYGRAD_LLM_JUDGE_KEY must hold the key: .*the reason"),
        (404, "404 Not Found: .*the reason"),
        (400, "400 Bad Request"),
    ],
)
def test_a_refusal_is_told_at_once(status, words):
    with JudgeServer(status) as server:
        with pytest.raises(Unreachable, match=words):
            judge(server).score(*ASK)
        assert len(server.asked) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"<html>", "the reply: not JSON: Expecting value"),
        ({}, r"the reply has no choices\[0\].message.content: {}"),
        ({"choices": []}, "the reply has no choices"),
        ({"choices": [{"message": {"content": None}}]}, "the reply has no choices"),
        ([1], "the reply has no choices"),
        (b" " * 1_000_001, "the reply has more than 1000000 bytes"),
        (b"[" * 100_000, "nested too deeply"),
        (lambda handler: send(handler, b"", 307, Location="http://127.0.0.1:9/x"), "redirected to .*: refused"),
        (lambda handler: send(handler, b"", 302, Location="https://else.where/"), "redirected to .*: refused"),
    ],
)
def test_a_reply_of_another_kind_is_told_at_once(answer, words):
    with JudgeServer(answer) as server:
        with pytest.raises(DownloadError, match=words) as error:
            judge(server).score(*ASK)
        assert len(server.asked) == 1
        assert len(str(error.value)) < 600
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "answer",
    [
        lambda handler: send(handler, f"wrong key {KEY}".encode(), 401),
        lambda handler: send(handler, {"error": f"wrong key {KEY}"}),
        lambda handler: send(handler, b"", 307, Location=f"http://127.0.0.1:9/{KEY}"),
    ],
)
def test_the_key_is_never_shown(answer):
    with JudgeServer(answer) as server:
        found = judge(server, key=KEY)
        with pytest.raises(DownloadError) as error:
            found.score(*ASK)
    assert "…" in str(error.value)
    assert KEY not in str(error.value)
    assert KEY not in repr(found)


def test_a_reply_may_hold_more_than_is_needed():
    with JudgeServer({**replied("3"), "id": "x", "usage": {"total_tokens": 5}}) as server:
        assert judge(server).score(*ASK).score == 3


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://example.com/v1", "must begin with https://, except on this machine"),
        ("ftp://localhost/v1", "must be a URL such as"),
        ("localhost:11434", "must be a URL such as"),
        ("", "must be a URL such as"),
        ("https://", "must be a URL such as"),
        ("https://me:secret@example.com/v1", "must not hold a name or a password"),
        ("https://me@example.com/v1", "must not hold a name or a password"),
        ("https://:secret@example.com/v1", "must not hold a name or a password"),
        ("https://@example.com/v1", "must not hold a name or a password"),
        ("https://example.com/v1?key=1", "must be a URL such as"),
        ("http://localhost:port/v1", "^--judge 'http://localhost:port/v1': Port could not be cast"),
    ],
)
def test_a_url_of_another_kind_is_refused(url, words):
    with pytest.raises(ValueError, match=words) as error:
        Judge(url, "llama3")
    assert "secret" not in str(error.value)


@pytest.mark.parametrize("key", ["a b", "a\nb", "é"])
def test_a_key_that_no_header_can_hold_is_refused_and_not_shown(key):
    with pytest.raises(ValueError, match="TINYGRAD_LLM_JUDGE_KEY: the key must be") as error:
        Judge("https://example.com/v1", "llama3", key)
    assert key not in str(error.value)
