"""Fetching from a server on this machine that answers in every right and wrong way."""

import contextlib
import hashlib
import http.server
import itertools
import random
import re
import shutil
import socket
import ssl
import threading
import types
import urllib.error

import pytest

from tinygrad_llm.weights import connection
from tinygrad_llm.weights.connection import DownloadError, Unreachable
from tinygrad_llm.weights.fetch import fetch, finish

DATA = random.Random(0).randbytes(100_000)
TAG = '"one"'


@pytest.fixture(autouse=True)
def direct(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Server:
    """Answers the n-th request with the n-th of `answers` (the last one again and again); keeps the headers seen."""

    def __init__(self, *answers):
        self.answers, self.seen = list(answers), []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                outer.seen.append(dict(self.headers))
                answer = outer.answers[min(len(outer.seen), len(outer.answers)) - 1]
                with contextlib.suppress(OSError):  # the client may have gone
                    answer(self)
                self.close_connection = True

            def log_message(self, *args):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/file"

    def __enter__(self):
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.http.shutdown()
        self.thread.join(60)
        self.http.server_close()


def answer(data=DATA, tag=TAG, ranges=True, send=None, length=None, status=200, wait=0, **headers):
    """A server's answer: rightly, or with only `send` bytes sent, `length` announced, another status, other headers."""

    def reply(handler):
        start = 0
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        code = status
        if asked and ranges and handler.headers.get("If-Range") == tag:
            start, code = int(asked[1]), 206
        if start >= len(data) and code == 206:
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(data)}")
            handler.end_headers()
            return
        handler.send_response(code)
        if code == 206 and "Content_Range" not in headers:
            handler.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
        if length != -1:
            handler.send_header("Content-Length", str(len(data) - start if length is None else length))
        if tag:
            handler.send_header("ETag", tag)
        for name, value in headers.items():
            if value is not None:
                handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        handler.wfile.write(data[start : len(data) if send is None else start + send])
        if wait:
            handler.wfile.flush()
            stop.wait(wait)

    return reply


stop = threading.Event()  # ends the answers that stall


@pytest.fixture(autouse=True)
def stalling():
    """Answers that stall end with their test."""
    stop.clear()
    yield
    stop.set()


@pytest.fixture
def part(tmp_path):
    return tmp_path / "file.part"


@pytest.fixture
def for_each_part(tmp_path, for_each):
    """A function (things, check): call check(thing, part) for every thing, each with a folder of its own."""

    def run(things, check):
        def in_own_folder(numbered):
            folder = tmp_path / str(numbered[0])
            folder.mkdir()
            check(numbered[1], folder / "file.part")

        for_each(enumerate(things), in_own_folder)

    return run


def get(server, part, **options):
    fetch(server.url, part, **{"limit": 1_000_000, "pause": 0, "timeout": 5, "attempts": 3} | options)


def left(part):
    return sorted(path.name for path in part.parent.iterdir())


def begun(part, data=DATA[:30_000], tag=TAG):
    """What an earlier call left."""
    part.write_bytes(data)
    part.with_name(part.name + ".version").write_text(tag)


def test_a_file_is_fetched_and_gets_its_name(for_each_part):
    def check(case, part):
        reply, size = case
        seen = []
        with Server(reply) as server:
            get(server, part, size=size, report=lambda done, total: seen.append(done))
        finish(part, part.with_name("file"))
        assert left(part) == ["file"]
        assert part.with_name("file").read_bytes() == DATA
        assert seen[-1] == len(DATA)
        assert seen == sorted(seen)
        assert server.seen[0]["Accept-Encoding"] == "identity"

    replies = [answer(), answer(length=-1), answer(ranges=False), answer(tag=""), answer(tag='W/"weak"')]
    for_each_part(itertools.product(replies, [None, len(DATA)]), check)


@pytest.mark.parametrize("ranges", [True, False])
def test_a_dropped_connection_is_resumed(part, ranges):
    with Server(answer(send=40_000), answer(send=20_000, ranges=ranges), answer(ranges=ranges)) as server:
        get(server, part)
    assert part.read_bytes() == DATA
    assert server.seen[1]["Range"] == "bytes=40000-"
    assert server.seen[1]["If-Range"] == TAG
    assert server.seen[2]["Range"] == ("bytes=60000-" if ranges else "bytes=20000-")


def test_a_later_call_resumes_an_earlier_one(part):
    with Server(answer(send=40_000), answer(send=0)) as server:
        with pytest.raises(Unreachable, match=r"broke after 40000 of 100000 bytes; the 40000 bytes so far are kept"):
            get(server, part)
        server.answers[:] = [answer()]
        get(server, part)
        assert server.seen[-1]["Range"] == "bytes=40000-"
    assert part.read_bytes() == DATA


def test_the_time_of_the_last_change_replaces_a_missing_tag(part):
    changed = "Mon, 02 Mar 2026 10:00:00 GMT"

    def by_time(handler):
        assert handler.headers["If-Range"] == changed
        answer(tag=changed)(handler)  # as ETag it would be no valid one, and is not looked at

    with Server(answer(tag="", Last_Modified=changed, send=10), by_time) as server:
        get(server, part)
    assert part.read_bytes() == DATA


def test_a_file_that_changed_starts_over(for_each_part):
    def check(case, part):
        data, ranges = case
        begun(part)
        replies = [answer(data, tag='"two"', ranges=ranges, send=send) for send in (5, None)]
        with Server(*replies) as server:
            get(server, part)
            assert server.seen[1]["If-Range"] == '"two"'
        assert part.read_bytes() == data

    for_each_part(itertools.product([DATA[::-1], DATA[:10], DATA + DATA], [True, False]), check)


def test_a_range_that_was_not_requested_is_not_appended(for_each_part):
    def check(content_range, part):
        begun(part)
        wrong = answer(DATA[30_000:], tag=TAG, status=206, ranges=False, Content_Range=content_range)
        with Server(wrong, answer()) as server:
            get(server, part)
            assert "Range" not in server.seen[1]
        assert part.read_bytes() == DATA

    ranges = ["bytes 29999-99999/100000", "bytes 30000-99998/100000", "bytes 30000-99999/*", "bytes 0-99999/100000"]
    for_each_part([*ranges, "x", "", None], check)


def test_the_rest_of_another_version_is_not_appended(part):
    begun(part)
    rest = answer(DATA[:70_000], tag='"two"', status=206, ranges=False, Content_Range="bytes 30000-99999/100000")
    with Server(rest, answer()) as server:
        get(server, part)
        assert "Range" not in server.seen[1]
    assert part.read_bytes() == DATA


def test_a_weak_tag_is_never_sent_back(for_each_part):
    """Two versions may share one (RFC 9110, section 13.1.5), and the time is no better where a tag says so."""

    def check(changed, part):
        broken = answer(tag='W/"weak"', send=40_000, **({"Last_Modified": changed} if changed else {}))
        with Server(broken, answer(DATA[::-1])) as server:
            get(server, part)
        assert not {"If-Range", "Range"} & set(server.seen[1])
        assert part.read_bytes() == DATA[::-1]

    for_each_part(["", "Mon, 02 Mar 2026 10:00:00 GMT"], check)


def test_the_space_for_the_missing_bytes_is_checked(for_each_part, monkeypatch):
    """The spare megabyte stays free; the bytes that are there already need no room."""

    def check(case, part):
        free, enough = case
        begun(part)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, free))
        refused = contextlib.nullcontext() if enough else pytest.raises(OSError, match="70000 bytes are missing")
        with Server(answer()) as server, refused:
            get(server, part)
        assert part.read_bytes() == (DATA if enough else DATA[:30_000])

    for_each_part([((1 << 20) + 70_000, True), ((1 << 20) + 69_999, False), (0, False)], check)


def test_a_range_without_a_request_is_refused(part):
    unasked = answer(status=206, Content_Range="bytes 0-99999/100000")
    with Server(unasked) as server, pytest.raises(DownloadError, match="answers 206"):
        get(server, part)
    assert left(part) == []


def test_a_complete_part_is_not_fetched_again(part):
    begun(part, DATA)
    with Server(answer()) as server:
        get(server, part)
        assert len(server.seen) == 1
        get(server, part, size=len(DATA))
        assert len(server.seen) == 1  # a known size needs no request
    assert part.read_bytes() == DATA


def test_a_part_longer_than_the_file_starts_over(part):
    begun(part, DATA + b"more")
    with Server(answer()) as server:
        get(server, part)
        assert len(server.seen) == 2
    assert part.read_bytes() == DATA


def test_a_part_of_unknown_version_starts_over(for_each_part):
    def check(version, part):
        begun(part, b"x" * 10, version or "")
        if version is None:
            part.with_name(part.name + ".version").unlink()
        with Server(answer()) as server:
            get(server, part)
            assert "Range" not in server.seen[0]
        assert part.read_bytes() == DATA

    for_each_part([None, "", "two\nlines"], check)


PAGE = b"<!DOCTYPE html><html>Please log in</html>"


REFUSED = [
    (answer(PAGE), {}, "a web page"),
    (answer(b"\n <HTML>" + b" " * 9000), {}, "a web page"),
    (answer(b"<?xml version='1.0'?><Error>", length=-1), {}, "a web page"),
    (answer(PAGE, Content_Type="text/html; charset=utf-8"), {"size": len(DATA)}, "a web page"),
    (answer(b"version https://git-lfs.github.com/spec/v1\noid"), {}, "git-LFS pointer"),
    (answer(Content_Encoding="gzip"), {}, "compresses it, unasked"),
    (answer(length=99_999), {"size": len(DATA)}, "announces 99999 bytes, the file has 100000"),
    (answer(length=100_001), {"size": len(DATA)}, "announces 100001 bytes, the file has 100000"),
    (answer(length=10**15), {}, "announces 1000000000000000 bytes, such a file has at most 1000000"),
    (answer(length=-1), {"size": 99_999}, "more than the 99999 bytes"),
    (answer(length=-1), {"limit": 99_999}, "more than the 99999 bytes"),
    (answer(status=404), {}, "answers 404 Not Found"),
    (answer(status=403), {}, "answers 403 Forbidden"),
    (answer(status=204, length=0, data=b""), {}, "answers 204"),
    (answer(status=416), {}, "answers 416"),
    (answer(status=302, Location="file:///etc/passwd"), {}, "is not allowed"),
    (answer(status=302, Location="http://localhost:1/"), {}, "not https: refused"),
    (answer(status=302, Location="ftp://example.org/"), {}, "not https: refused"),
    (answer(status=302, Location="/file"), {}, "infinite loop"),
    (answer(status=302), {}, "answers 302"),
]


def test_a_wrong_answer_is_refused_at_once_and_leaves_nothing(for_each_part):
    def check(case, part):
        reply, options, words = case
        with Server(reply) as server:
            with pytest.raises(DownloadError, match=re.escape(words)) as error:
                get(server, part, **options)
            if "loop" not in words:
                assert len(server.seen) == 1
        assert server.url in str(error.value)
        assert "\n" not in str(error.value)
        assert left(part) == []

    for_each_part(REFUSED, check)


def test_the_bytes_so_far_survive_a_server_that_does_not_continue(for_each_part):
    def check(case, part):
        reply, words = case
        begun(part)
        with Server(reply) as server, pytest.raises(DownloadError, match=words):
            get(server, part)
        assert part.read_bytes() == DATA[:30_000]

    cases = [
        (answer(PAGE, ranges=False), "a web page"),
        (answer(status=404, ranges=False), "404"),
        (answer(Content_Encoding="gzip"), "compresses"),
        (answer(status=500, ranges=False), "500"),
        (answer(send=0), "broke after 30000"),
    ]
    for_each_part(cases, check)


def test_a_transient_failure_is_tried_again(for_each_part):
    def check(case, part):
        reply, words = case
        with Server(reply) as server:
            with pytest.raises(Unreachable, match=words):
                get(server, part)
            assert len(server.seen) == 3
            assert left(part) == []  # without a version there is nothing to continue
            server.answers[:] = [reply, reply, answer()]
            server.seen.clear()
            get(server, part)
        assert part.read_bytes() == DATA

    cases = [
        (answer(status=500), "500 Internal Server Error"),
        (answer(status=503), "503"),
        (answer(status=429), "429"),
        (answer(send=0, tag=""), "broke after 0 of 100000"),
        (answer(send=70_000, tag=""), "broke after 70000 of 100000"),
        (answer(length=100_007, tag=""), "broke after 100000 of 100007"),
        (lambda handler: handler.wfile.write(b"no HTTP\r\n\r\n"), "failed"),
        (lambda handler: handler.connection.shutdown(socket.SHUT_RDWR), "failed"),
    ]
    for_each_part(cases, check)


def test_a_stalled_server_is_left_and_asked_again(for_each_part):
    def check(send, part):
        with Server(answer(send=send, wait=10), answer()) as server:
            get(server, part, timeout=0.1, attempts=10)
            assert len(server.seen) >= 2
        assert part.read_bytes() == DATA

    for_each_part([0, 100, 50_000], check)


def dripping(start):
    """An answer that sends `start` and then a byte now and then, always before the timeout, for ten seconds."""

    def reply(handler):
        handler.wfile.write(start)
        for byte in b"X-Drip: " + b"d" * 500:
            handler.wfile.write(bytes([byte]))
            if stop.wait(0.02):
                return

    return reply


OK_LENGTH = b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n"


def test_a_dripping_server_is_left_and_asked_again(for_each_part):
    def check(start, part):
        with Server(dripping(start), answer()) as server:
            get(server, part, window=0.15, attempts=10)  # a loaded machine may need more than two
            assert len(server.seen) >= 2
        assert part.read_bytes() == DATA

    starts = [b"", b"HTTP/1.0 200 OK\r\n", OK_LENGTH + b"\r\n", OK_LENGTH + b"\r\n" + DATA[:600]]
    for_each_part(starts, check)


def test_a_slow_server_is_waited_for(part):
    def slow(handler):
        handler.wfile.write(OK_LENGTH + b"\r\n")
        for start in range(0, len(DATA), 20_000):
            handler.wfile.write(DATA[start : start + 20_000])
            stop.wait(0.05)

    with Server(slow) as server:
        get(server, part, window=0.1)
        assert len(server.seen) == 1
    assert part.read_bytes() == DATA


def test_an_answer_that_makes_no_sense_is_one_line(for_each_part):
    def check(reply, part):
        with Server(reply) as server, pytest.raises(DownloadError) as error:
            get(server, part, attempts=1)
        assert server.url in str(error.value)
        assert "\n" not in str(error.value)

    def chunks(size):
        start = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        return lambda handler: handler.wfile.write(start + size + b"\r\nabc\r\n")

    locations = ["http://[::bad/x", "http://127.0.0.1:port/x", "https://\u2100.example/"]
    replies = [answer(status=302, Location=location.encode().decode("latin-1")) for location in locations]
    for_each_part([*replies, *map(chunks, [b"x", b"-5", b"", b"9" * 30])], check)


def test_a_long_file_may_break_more_often_than_there_are_attempts(part):
    data = bytes(8 << 20)
    with Server(answer(data, send=2 << 20)) as server:
        get(server, part, attempts=2, limit=1 << 24)
        assert len(server.seen) == 4
    assert part.read_bytes() == data


def test_the_pause_doubles_from_one_attempt_to_the_next(part, monkeypatch):
    pauses = []
    monkeypatch.setattr("tinygrad_llm.weights.fetch.time", types.SimpleNamespace(sleep=pauses.append))
    with Server(answer(status=503)) as server, pytest.raises(Unreachable):
        get(server, part, attempts=5, pause=0.25)
    assert pauses == [0.25, 0.5, 1, 2]


def test_a_server_that_makes_us_start_over_and_over_is_given_up(part):
    def elsewhere(handler):
        if "Range" in handler.headers:
            answer(status=206, ranges=False, Content_Range="x")(handler)
        else:
            answer(bytes(4 << 20), send=3 << 20)(handler)

    with Server(elsewhere) as server:
        with pytest.raises(Unreachable):
            get(server, part, limit=1 << 24)
        assert len(server.seen) < 10


def test_no_server_is_unreachable(part):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/file"
        with pytest.raises(Unreachable, match="refused") as error:
            fetch(url, part, limit=10, pause=0, attempts=2)
    assert url in str(error.value)
    assert left(part) == []


def no_name(*args, **kwargs):
    raise socket.gaierror(-2, "Name or service not known")


def test_no_network_is_reported_at_once(part, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", no_name)
    with pytest.raises(Unreachable, match=r"cannot be looked up \(Name or service not known\)"):
        fetch("https://example.org/file", part, limit=10, pause=1e9)
    assert left(part) == []


def test_a_network_that_fails_in_the_middle_may_come_back(part, monkeypatch):
    real, calls = socket.getaddrinfo, []

    def now_and_then(*args, **kwargs):
        calls.append(args)
        return no_name() if len(calls) == 2 else real(*args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", now_and_then)
    with Server(answer(send=40_000), answer()) as server:
        get(server, part)
    assert len(calls) == 3
    assert part.read_bytes() == DATA


def test_only_http_is_fetched_from(part):
    for url in ("file:///etc/passwd", "ftp://x/y", "data:,x", "x", ""):
        with pytest.raises(DownloadError, match="must begin with https"):
            fetch(url, part, limit=10)


@pytest.mark.parametrize(("target", "allowed"), [("https://cdn.example/x", True), ("http://example.org/x", False)])
def test_https_redirects_only_to_https(target, allowed):
    handler = connection.Redirects("https://example.org/x")
    request = connection.urllib.request.Request("https://example.org/x", headers={"Range": "bytes=5-", "If-Range": TAG})
    with open(__file__, "rb") as body:
        if not allowed:
            with pytest.raises(DownloadError, match="not https"):
                handler.redirect_request(request, body, 302, "Found", {}, target)
            return
        followed = handler.redirect_request(request, body, 302, "Found", {}, target)
    assert followed.full_url == target
    assert followed.headers["Range"] == "bytes=5-"


def test_a_hash_that_the_hub_states_is_checked(for_each_part):
    def check(case, part):
        right, whole = case
        stated = hashlib.sha256(DATA if right else b"").hexdigest()
        redirect = answer(b"", status=302, ranges=False, Location="/elsewhere", X_Linked_ETag=f'"{stated}"')
        begun(part, DATA if whole else DATA[:30_000])

        def hub(handler):
            (redirect if handler.path == "/file" else answer())(handler)

        refused = contextlib.nullcontext() if right else pytest.raises(DownloadError, match="SHA-256")
        with Server(hub) as server, refused:
            get(server, part)
        assert part.read_bytes() == DATA if right else left(part) == []

    for_each_part(itertools.product([True, False], [True, False]), check)


def test_a_full_disk_is_reported_before_the_first_byte(part, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 50_000))
    with (
        Server(answer()) as server,
        pytest.raises(OSError, match="No space left on device: 100000 bytes are missing") as error,
    ):
        get(server, part)
    assert error.value.filename == str(part.parent)
    assert left(part) == []


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs /dev/full")
def test_a_disk_that_fills_up_is_not_a_failure_of_the_network(part, monkeypatch):
    part.symlink_to("/dev/full")
    with Server(answer()) as server:
        with pytest.raises(OSError, match="No space left on device") as error:
            get(server, part)
        assert len(server.seen) == 1
    assert error.value.filename == str(part)


def expired():
    error = ssl.SSLCertVerificationError(1, "failed")
    error.verify_message = "it has expired"
    return error


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (expired(), Unreachable, "URL: the server's certificate is not valid here: it has expired"),
        (TimeoutError("late"), connection.Transient, "the server stopped sending"),
        (socket.gaierror(-2, "not known"), connection.NoName, "the server's name cannot be looked up (not known)"),
        (ConnectionResetError(104, "reset"), connection.Transient, "the connection failed: [Errno 104] reset"),
        (OSError(), connection.Transient, "the connection failed: OSError"),
    ],
)
def test_each_failure_of_the_network_has_its_own_words(error, kind, message, wrapped):
    with pytest.raises(kind) as found, connection.network_errors("URL"):
        raise urllib.error.URLError(error) if wrapped else error
    assert (type(found.value), str(found.value)) == (kind, message)


def test_a_missing_folder_is_named(tmp_path):
    with Server(answer()) as server, pytest.raises(OSError, match="nowhere"):
        get(server, tmp_path / "nowhere" / "part")


def test_an_interruption_keeps_the_bytes_so_far(part):
    def interrupt(done, total):
        if done > 50_000:
            raise KeyboardInterrupt

    with Server(answer()) as server:
        with pytest.raises(KeyboardInterrupt):
            get(server, part, report=interrupt)
        assert len(part.read_bytes()) > 50_000
        get(server, part)
        assert "Range" in server.seen[1]
    assert part.read_bytes() == DATA
