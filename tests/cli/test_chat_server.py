"""The page of `chat --web`: what it serves, and to whom; answers in pieces; clients that are slow or go away."""

import base64
import contextlib
import functools
import hashlib
import http.client
import json
import re
import signal
import socket
import struct
import subprocess
import sys
import threading

import numpy as np
import pytest
from chat_models import ALPHABET, BYTES, Held, alphabet, save_alphabet, serving, wait_until

from tinygrad_llm.cli import chat_server
from tinygrad_llm.cli.chat_server import MAX_BODY, MAX_CONNECTIONS, FairLock
from tinygrad_llm.finetuning.conversation import Conversation

ASK = {"system": "", "turns": [], "text": "hello"}


@pytest.fixture(scope="module")
def server():
    with serving() as server:
        yield server


def connect(server):
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=60))


def headers(server, **changes):
    """Those of the page; a change of None leaves one out."""
    host = server.hosts[0]
    usual = {"Host": host, "Origin": f"http://{host}", "Content-Type": "application/json"}
    return {name: value for name, value in (usual | changes).items() if value is not None}


def post(server, body, path="/answer", **changes):
    """(status, text) of the reply."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with connect(server) as connection:
        connection.request("POST", path, data, headers(server, **changes))
        reply = connection.getresponse()
        return reply.status, reply.read().decode()


# ---- what is served ------------------------------------------------------------------------------------------------


def get(server, path="/", **changes):
    with connect(server) as connection:
        connection.putrequest("GET", path, skip_host=True)
        for name, value in ({"Host": server.hosts[0]} | changes).items():
            connection.putheader(name, value)
        connection.endheaders()
        reply = connection.getresponse()
        return reply.status, reply.read().decode(), reply.headers


def test_the_page_names_the_model_and_loads_nothing_from_elsewhere():
    with serving(title="runs/</title><b>", system='"><script>alert(1)</script>') as server:
        status, page, fields = get(server)
    assert status == 200
    assert fields["Content-Type"] == "text/html; charset=utf-8"
    assert "<title>runs/&lt;/title&gt;&lt;b&gt;</title>" in page
    assert 'value="&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"' in page
    assert "{{" not in page
    assert not re.search(r"https?:|//[a-z]|@import|url\(", page)


def test_the_policy_allows_only_the_page_s_own_script_and_style(server):
    _, page, fields = get(server)
    policy = dict(part.strip().split(" ", 1) for part in fields["Content-Security-Policy"].split(";"))
    assert policy.pop("connect-src") == "'self'"
    assert policy.pop("img-src") == "data:"  # the empty icon
    for tag in ("script", "style"):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert policy.pop(f"{tag}-src") == f"'sha256-{digest}'"
    assert set(policy.values()) == {"'none'"}
    assert set(policy) == {"default-src", "base-uri", "form-action", "frame-ancestors"}
    assert not re.search(r"\s(on\w+|style)=", page)  # the policy would block them
    assert fields["X-Content-Type-Options"] == "nosniff"
    assert fields["Cache-Control"] == "no-store"


def test_an_answer_is_that_of_the_conversation(server):
    assert post(server, ASK) == (200, ALPHABET)


def test_system_s_text_and_turns_are_those_of_the_page():
    seen = []

    class Seen(Held):
        def __call__(self, ids, cache=None, logits_to_keep=None):
            seen.append(BYTES.decode(ids[0]))
            return super().__call__(ids, cache, logits_to_keep)

    with serving(Seen("x"), system="not this") as server:
        assert post(server, {"system": "be kind", "turns": [["one", "two"]], "text": "three"}) == (200, "x")
    expected = "be kind\n\n<|user|>\none\n<|assistant|>:\ntwo<|endoftext|><|user|>\nthree\n<|assistant|>:\n"
    assert seen[0] == expected


def test_turns_that_do_not_fit_are_counted(server):
    with connect(server) as connection:
        body = json.dumps({**ASK, "turns": [["hello", "x" * 90]] * 3})
        connection.request("POST", "/answer", body, headers(server))
        reply = connection.getresponse()
        assert (reply.status, reply.headers["Notes"]) == (200, "earlier turns that no longer fit, and are not read: 2")
        assert reply.read().decode() == ALPHABET


def test_a_text_that_is_cropped_is_told(server):
    with connect(server) as connection:
        connection.request("POST", "/answer", json.dumps({**ASK, "text": "x" * 3000}), headers(server))
        reply = connection.getresponse()
        words = "the text is longer than the 400 tokens that the model reads at once: its beginning is left out"
        assert (reply.status, reply.headers["Notes"]) == (200, words)
        assert reply.read().decode() == ALPHABET


def test_an_answer_that_is_cut_ends_with_a_note_and_has_no_nul_of_its_own():
    with serving(alphabet(ends=False, block_size=60)) as server:
        status, text = post(server, ASK)
    answer, nul, note = text.partition("\0")
    assert (status, nul) == (200, "\0")
    assert answer.startswith(ALPHABET)
    assert re.fullmatch(r"the answer is cut after \d+ tokens, because the model can read no more", note)
    with serving(Held("a\0b")) as server:
        assert post(server, ASK) == (200, "a\N{REPLACEMENT CHARACTER}b")


# ---- what is refused -----------------------------------------------------------------------------------------------

OTHERS = ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "127.0.0.1:{port}.evil.example", ""]


@pytest.mark.parametrize("host", OTHERS)
def test_another_host_is_refused(host, server):
    host = host.format(port=server.server_port)
    assert get(server, Host=host)[:2] == (403, "this server answers only its own page\n")
    assert post(server, ASK, Host=host)[0] == 403
    assert post(server, ASK, Host=host, Origin=f"http://{host}")[0] == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://{host}", "http://localhost:1", None])
def test_another_origin_is_refused(origin, server):
    origin = origin and origin.format(host=server.hosts[0])
    assert post(server, ASK, Origin=origin)[0] == 403
    if origin:
        assert get(server, Origin=origin)[0] == 403


def test_the_origin_is_that_of_the_host(server):
    one, other = server.hosts
    assert (one, other) == (f"127.0.0.1:{server.server_port}", f"localhost:{server.server_port}")
    for host in (one, other):
        assert get(server, Host=host)[0] == 200
        assert post(server, ASK, Host=host, Origin=f"http://{host}")[0] == 200
    assert post(server, ASK, Host=one, Origin=f"http://{other}")[0] == 403


def test_two_hosts_are_refused(server):
    start = f"GET / HTTP/1.1\r\nHost: {server.hosts[0]}\r\nHost: evil.example\r\n\r\n".encode()
    assert exchange(server, start).startswith(b"HTTP/1.1 403 ")


def test_another_path_or_method_is_refused(server):
    assert get(server, "/chat.html")[0] == get(server, "/../chat.html")[0] == post(server, ASK, "/")[0] == 404
    assert exchange(server, f"PUT / HTTP/1.1\r\nHost: {server.hosts[0]}\r\n\r\n".encode()).startswith(b"HTTP/1.1 501 ")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "application/json; x", None])
def test_another_content_type_is_refused(kind, server):
    """A form of another site can send these without asking the browser first; JSON it cannot."""
    assert post(server, ASK, **{"Content-Type": kind})[0] == 415


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b"\xff", b"null", b"[" * 100_000,
        *(json.dumps(fields).encode() for fields in [
            {}, {**ASK, "more": 1}, {**ASK, "text": 3}, {**ASK, "text": "  "}, {**ASK, "system": None},
            {**ASK, "turns": {}}, {**ASK, "turns": [["a"]]}, {**ASK, "turns": [["a", 1]]}, {**ASK, "turns": ["ab"]},
        ]),
    ],
)  # fmt: skip
def test_a_body_of_another_form_is_refused(body, server):
    status, text = post(server, body)
    assert status == 400
    assert text.startswith("the request")
    assert text.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"system": "x" * 3000}, "shorten the system's text"),
        ({"text": "<|endoftext|>"}, "the text holds the special token"),
        ({"system": "<|endoftext|>"}, "the system's text holds the special token"),
        ({"text": "\ud800"}, "half of a surrogate pair"),
        ({"turns": [["a", "\ud800"]]}, "half of a surrogate pair"),
    ],
)
def test_a_text_that_is_refused_is_told_to_the_page(changes, message, server):
    status, text = post(server, {**ASK, **changes})
    assert status == 400
    assert message in text


def test_damaged_weights_are_told_to_the_page():
    model = alphabet()
    model.lm_head.weight.data[:] *= np.float32(1e38)
    with serving(model) as server:
        assert post(server, ASK)[0] == 400
        assert "NaN or infinite" in post(server, ASK)[1]


def test_a_bug_prints_its_traceback_and_a_client_that_goes_away_nothing(server, capsys):
    for error in (BrokenPipeError("gone"), KeyError("bug")):
        try:
            raise error
        except (OSError, KeyError):
            server.handle_error(None, ("127.0.0.1", 1))
    err = capsys.readouterr().err
    assert ("KeyError: 'bug'" in err, "gone" in err) == (True, False)


def test_an_error_after_the_first_piece_leaves_the_stream_without_its_end(server, monkeypatch):
    def answer(conversation, text):
        yield "abc"
        raise ValueError("damaged")

    monkeypatch.setattr(Conversation, "answer", answer)
    with pytest.raises(http.client.IncompleteRead) as found:
        post(server, ASK)
    assert found.value.partial == b"abc"


def test_a_body_of_megabytes_is_refused_and_the_reply_arrives(server):
    status, text = post(server, b" " * (8 * MAX_BODY))
    assert (status, text) == (413, "the conversation is longer than 1,000,000 bytes: start a new one\n")


@pytest.mark.parametrize("length", ["-1", "x", "+3", "", "9" * 5000])
def test_a_length_that_is_no_number_is_refused(length, server):
    head = "".join(f"{name}: {value}\r\n" for name, value in headers(server).items())
    start = f"POST /answer HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n".encode()
    assert re.match(rb"HTTP/1.1 41[13] ", exchange(server, start))


def test_a_body_without_its_length_is_refused(server):
    with connect(server) as connection:
        connection.request("POST", "/answer", iter([b"{}"]), headers(server), encode_chunked=True)
        assert connection.getresponse().status == 411


def test_http_1_0_is_refused_because_it_has_no_pieces(server):
    head = "".join(f"{name}: {value}\r\n" for name, value in headers(server).items())
    start = f"POST /answer HTTP/1.0\r\n{head}Content-Length: 2\r\n\r\n{{}}".encode()
    assert exchange(server, start).startswith(b"HTTP/1.1 505 ")


@pytest.mark.parametrize(
    "start", [b"\r\n\r\n", b"nonsense\r\n\r\n", b"GET / HTTP/9\r\n\r\n", b"\x16\x03\x01\x02\x00\n\n"]
)
def test_what_is_not_http_is_refused(start, server, capfd):
    assert not exchange(server, start).startswith(b"HTTP/1.1 200")
    assert post(server, ASK) == (200, ALPHABET)
    assert capfd.readouterr() == ("", "")


# ---- pieces, and several clients -----------------------------------------------------------------------------------


def exchange(server, start):
    """The reply to these bytes."""
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=60) as client:
        client.sendall(start)
        client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


@contextlib.contextmanager
def asking(server, **changes):
    """The connection of a client that has asked."""
    with connect(server) as connection:
        connection.request("POST", "/answer", json.dumps({**ASK, **changes}), headers(server))
        yield connection


def test_pieces_arrive_one_by_one():
    model = Held("aßc", free=False)
    with serving(model) as server, asking(server) as connection:
        model.allowed.release()
        reply = connection.getresponse()
        assert reply.headers["Transfer-Encoding"] == "chunked"
        assert reply.read1() == b"a"
        assert model.written == 1  # the server waits for the test
        model.allowed.release(2)
        assert reply.read1() == "ß".encode()  # of two bytes, and sent whole
        model.allowed.release(2)
        assert reply.read() == b"c"


def test_two_clients_are_answered_at_the_same_time():
    model = Held("a" * 50, free=False)
    with serving(model) as server, asking(server) as one, asking(server) as other:
        # One of them waits for the model with the lock, and the other one for the lock.
        wait_until(lambda: len(server.one_token._waiting) == 1)
        model.allowed.release(2)  # so each of them gets one
        replies = [connection.getresponse() for connection in (one, other)]
        assert [reply.read1() for reply in replies] == [b"a", b"a"]
        model.allowed.release(10**6)
        assert [set(reply.read()) for reply in replies] == [{ord("a")}] * 2


def test_a_fair_lock_is_given_in_the_order_of_asking(in_threads):
    lock, turns = FairLock(), []

    def work(name):
        for _ in range(20):
            with lock:
                turns.append(name)
                if len(turns) == 1:
                    wait_until(lambda: len(lock._waiting) == 3)  # all have asked

    in_threads(*(functools.partial(work, name) for name in "abcd"))
    rounds = [turns[i : i + 4] for i in range(0, 80, 4)]
    assert sorted(rounds[0]) == list("abcd")  # while all work, nobody has a second turn before the others
    assert len(turns) == 80
    with lock:  # free again
        assert not lock._waiting


def test_a_client_that_goes_away_stops_the_generation():
    model = Held("x", free=False, ends=False)
    with serving(model) as server:
        with asking(server) as connection:
            model.allowed.release(5)
            assert connection.getresponse().read1()[:1] == b"x"
        model.allowed.release(10**6)
        wait_until(lambda: not server._deadlines)


def test_a_client_that_goes_away_stops_the_generation_of_white_space():
    """Nothing is sent then, so that no write can fail."""
    model = Held(" ", free=False, ends=False)
    with serving(model) as server:
        with asking(server):
            model.allowed.release()
            wait_until(lambda: model.written == 1)
        model.allowed.release(10**6)
        wait_until(lambda: not server._deadlines)


def test_a_reset_connection_is_no_traceback(capfd):
    model = Held("x", free=False, ends=False)
    with serving(model) as server:
        client = socket.create_connection(("127.0.0.1", server.server_port), timeout=60)
        head = "".join(f"{name}: {value}\r\n" for name, value in headers(server).items())
        body = json.dumps(ASK)
        client.sendall(f"POST /answer HTTP/1.1\r\n{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        model.allowed.release(2)
        wait_until(lambda: model.written == 2)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()  # resets
        model.allowed.release(10**6)
        wait_until(lambda: not server._deadlines)
    assert capfd.readouterr() == ("", "")


# ---- clients that are slow -----------------------------------------------------------------------------------------


def test_clients_that_send_nothing_or_half_a_request_are_dropped_and_others_are_served(monkeypatch):
    monkeypatch.setattr(chat_server, "MAX_SECONDS", 0.5)
    starts = [b"", b"POST /ans", b"POST /answer HTTP/1.1\r\nHost: "]
    with serving() as server, contextlib.ExitStack() as stack:
        head = "".join(f"{name}: {value}\r\n" for name, value in headers(server).items())
        starts.append(f"POST /answer HTTP/1.1\r\n{head}Content-Length: 100\r\n\r\n{{".encode())
        slow = [stack.enter_context(socket.create_connection(server.server_address, timeout=60)) for _ in starts]
        for client, start in zip(slow, starts, strict=True):
            client.sendall(start)
        assert post(server, ASK) == (200, ALPHABET)
        for client in slow:
            assert client.recv(1) == b""  # hung up
        wait_until(lambda: not server._deadlines)


def test_a_client_that_sends_byte_after_byte_is_dropped(monkeypatch):
    """Each byte arrives in time, but the request never does."""
    monkeypatch.setattr(chat_server, "MAX_SECONDS", 0.25)
    with serving() as server, socket.create_connection(server.server_address, timeout=60) as client:
        wait_until(lambda: is_refused(client, b"G"))


def is_refused(client, byte):
    try:
        client.sendall(byte)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


def test_a_client_that_does_not_read_is_dropped_and_others_are_served(monkeypatch):
    monkeypatch.setattr(chat_server._Handler, "timeout", 0.25)
    monkeypatch.setattr(Conversation, "answer", lambda self, text: (piece for piece in ["x" * int(text)]))
    with serving() as server, asking(server, text="50000000"):
        assert post(server, {**ASK, "text": "3"}) == (200, "xxx")
        wait_until(lambda: not server._deadlines)


def test_connections_are_bounded():
    with serving() as server, contextlib.ExitStack() as stack:
        clients = [socket.create_connection(server.server_address, timeout=60) for _ in range(MAX_CONNECTIONS + 5)]
        for client in clients:
            stack.enter_context(client)
        for client in clients[MAX_CONNECTIONS:]:
            assert client.recv(1) == b""
        assert len(server._deadlines) == MAX_CONNECTIONS  # the others are still served
        for client in clients:
            client.close()
        wait_until(lambda: not server._deadlines)
        assert post(server, ASK) == (200, ALPHABET)


def test_closing_the_server_ends_answers_and_waiting_clients():
    model = Held("x", free=False, ends=False)
    with serving(model) as server, asking(server), socket.create_connection(server.server_address, timeout=60):
        model.allowed.release(3)
        wait_until(lambda: model.written == 3)
        wait_until(lambda: len(server._deadlines) == 2)
        threading.Timer(0.2, model.allowed.release, [10**6]).start()


# ---- the command ---------------------------------------------------------------------------------------------------


def test_the_command_serves_until_ctrl_c(tmp_path, popen):
    folder = save_alphabet(tmp_path)
    command = [sys.executable, "-W", "error", "-m", "tinygrad_llm", "chat", folder, "--style", "phi3", "--web"]
    process = popen([*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)/  \(Ctrl-C ends\)\n", line)[1])
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        host = f"127.0.0.1:{port}"
        fields = {"Host": host, "Origin": f"http://{host}", "Content-Type": "application/json"}
        connection.request("POST", "/answer", json.dumps(ASK), fields)
        assert connection.getresponse().read().decode() == ALPHABET
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    assert process.stderr.read() == ""


def test_a_port_in_use_is_one_line(cli, tmp_path):
    with serving() as server:
        status, out, err = cli(
            "chat", save_alphabet(tmp_path), "--style", "phi3", "--web", "--port", server.server_port
        )
    assert (status, out) == (2, "")
    reason = "address already in use: choose another --port; 0 is any free one"
    assert err == f"tinygrad-llm chat: port {server.server_port}: {reason}\n"
