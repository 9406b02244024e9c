"""The web page of `tinygrad-llm chat --web`: one page and one stream of text, for this computer alone.

    GET  /         the page
    POST /answer   {"system": text, "turns": [[user, assistant], …], "text": text} → the answer, piece by piece; the
                   field Notes holds what the model did not read; after the answer, NUL and a note where it was cut

The page holds the conversation, so several pages do not disturb each other. A request is refused if its Host or Origin
is not this server: other sites must not talk to it through the user's browser. Each connection serves one request.
"""

import base64
import collections
import contextlib
import hashlib
import html
import os
import select
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Generator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.finetuning.conversation import Conversation, Turn
from tinygrad_llm.storage.files import LoadError, parse_json

PAGE = Path(__file__).with_name("chat.html")
MAX_BODY = 1_000_000  # bytes
MAX_CONNECTIONS = 32
MAX_SECONDS = 30.0  # for a whole request to arrive, and for each piece of an answer to be taken

_HEADERS = {
    "Cache-Control": "no-store",
    "Connection": "close",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class FairLock:
    """A lock that threads get in the order in which they ask for it; `with lock:` holds it.

    Of a `threading.Lock`, one thread may take many turns in a row, because it asks again before another wakes up.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()  # held for moments only
        self._taken = False
        self._waiting: collections.deque[threading.Lock] = collections.deque()  # one for each thread: its turn

    def __enter__(self) -> None:
        with self._mutex:
            if not self._taken:
                self._taken = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._waiting.append(turn)
        turn.acquire()  # until the thread before gives the lock, which stays taken

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


class ChatServer(ThreadingHTTPServer):
    """Serves the page on 127.0.0.1. `server_close` also ends answers and connections that are open.

    Args:     new: makes the conversation of each request; its system's text stands on the page. title: of the page.
              port: 0: any free one.
    Raises:   OSError: the port cannot be used.
    """

    daemon_threads = False  # `server_close` waits for the threads, which end soon
    allow_reuse_address = os.name != "nt"  # on Windows, it would let two servers share a port
    allow_reuse_port = False
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, new: Callable[[], Conversation], title: str, port: int = 0) -> None:
        self.new = new
        self.page = PAGE.read_text(encoding="utf-8")
        for name, text in (("TITLE", title), ("SYSTEM", new().system)):
            self.page = self.page.replace(f"{{{{{name}}}}}", html.escape(text))
        self.policy = _policy(self.page)
        self.one_token = FairLock()  # of all answers: two at the same time would both be slow
        self.is_closing = False
        self._deadlines: dict[socket.socket, float] = {}  # of the open connections
        super().__init__(("127.0.0.1", port), _Handler)

    @property
    def url(self) -> str:
        return f"http://{self.hosts[0]}/"

    @property
    def hosts(self) -> list[str]:
        """The values that the field Host of a request may have."""
        port = "" if self.server_port == 80 else f":{self.server_port}"
        return [f"{name}{port}" for name in ("127.0.0.1", "localhost")]

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer also asks the network for a name, which may take long
        self.server_name, self.server_port = "127.0.0.1", int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, or drop it where too many are open."""
        if len(self._deadlines) >= MAX_CONNECTIONS:
            self.shutdown_request(request)
            return
        self._deadlines[request] = time.monotonic() + MAX_SECONDS
        super().process_request(request, client_address)

    def has_arrived(self, request: socket.socket) -> None:
        """The request is complete: its answer may take as long as it takes."""
        self._deadlines[request] = float("inf")

    def service_actions(self) -> None:
        """Hang up on clients that take too long; `serve_forever` calls this twice a second."""
        now = time.monotonic()
        for request, deadline in list(self._deadlines.items()):
            if now > deadline:
                _hang_up(request)

    def shutdown_request(self, request: Any) -> None:
        self._deadlines.pop(request, None)
        super().shutdown_request(request)

    def server_close(self) -> None:
        self.is_closing = True
        for request in list(self._deadlines):
            _hang_up(request)
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the traceback of a bug, and nothing where the client went away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


def _hang_up(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it may be closed already
        request.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for it


def _policy(page: str) -> str:
    """The Content-Security-Policy: nothing is loaded from elsewhere, and only the page's own script and style run."""
    hashes = []
    for tag in ("script", "style"):
        text = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        hashes.append(f"{tag}-src 'sha256-{digest}'")
    nothing = "; ".join(f"{name} 'none'" for name in ("default-src", "base-uri", "form-action", "frame-ancestors"))
    return f"{nothing}; connect-src 'self'; img-src data:; {'; '.join(hashes)}"


class _Refused(ValueError):
    """A request that is not served, with the status of HTTP that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: ChatServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tinygrad_llm", ""
    timeout = MAX_SECONDS
    disable_nagle_algorithm = True  # else a piece may wait for the acknowledgment of the one before

    def handle(self) -> None:
        self.handle_one_request()

    def do_GET(self) -> None:
        self._serve("/", self._page)

    def do_POST(self) -> None:
        self._serve("/answer", self._answer)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the terminal is the user's."""

    def _serve(self, path: str, reply: Callable[[], None]) -> None:
        try:
            self._check_sender()
            if self.path != path:
                raise _Refused(404, "not found")
            reply()
        except _Refused as error:
            self._reply(error.status, "text/plain", f"{error}\n")
            self._drop_body()
        except ValueError as error:
            self._reply(400, "text/plain", f"{error}\n")

    def _check_sender(self) -> None:
        """Refuse what does not come from the page of this server, or from an address line."""
        hosts, origins = self.headers.get_all("Host", []), self.headers.get_all("Origin", [])
        good = len(hosts) == 1 and hosts[0] in self.server.hosts
        if self.command == "POST" or origins:
            good = good and origins == [f"http://{hosts[0]}"]
        if not good:
            raise _Refused(403, "this server answers only its own page")

    def _page(self) -> None:
        self._reply(200, "text/html", self.server.page, {"Content-Security-Policy": self.server.policy})

    def _answer(self) -> None:
        conversation = self.server.new()
        conversation.system, conversation.turns, text = _fields(self._body())
        self.server.has_arrived(self.connection)
        with contextlib.closing(conversation.answer(text)) as pieces, np.errstate(all="ignore"):
            self._stream(pieces, conversation)

    def _body(self) -> bytes:
        if self.request_version != "HTTP/1.1":
            raise _Refused(505, "HTTP/1.1 is needed, which has answers in pieces")
        if self.headers.get_all("Content-Type", []) != ["application/json"]:
            raise _Refused(415, "Content-Type must be application/json")
        lengths = self.headers.get_all("Content-Length", [])
        if len(lengths) != 1 or not lengths[0].isdecimal() or "Transfer-Encoding" in self.headers:
            raise _Refused(411, "Content-Length must be the number of bytes")
        if len(lengths[0]) > 9 or int(lengths[0]) > MAX_BODY:
            raise _Refused(413, f"the conversation is longer than {MAX_BODY:,} bytes: start a new one")
        body = self.rfile.read(int(lengths[0]))
        if len(body) < int(lengths[0]):
            raise ConnectionError("the client went away, or took too long")
        return body

    def _drop_body(self) -> None:
        """Read what the client still sends: if it were left unread, the client might not get the reply."""
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            for _ in range(1000):
                if not self.rfile.read1(65536):
                    break

    def _reply(self, status: int, kind: str, text: str, more: dict[str, str] | None = None) -> None:
        data = text.encode(errors="replace")  # the name of a folder may be no Unicode text
        self._head(status, kind, {"Content-Length": str(len(data)), **(more or {})})
        self.wfile.write(data)

    def _head(self, status: int, kind: str, more: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": f"{kind}; charset=utf-8", **_HEADERS, **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def _stream(self, pieces: Generator[str, None, None], conversation: Conversation) -> None:
        """Send pieces while they are generated. A stream without its end shows the page that something went wrong."""
        piece = self._next(pieces)  # before the head: an error is still a reply of its own
        notes = ". ".join(conversation.notes)
        self._head(200, "text/plain", {"Transfer-Encoding": "chunked", "Notes": notes})
        while piece is not None:
            if self.server.is_closing or self._is_gone():
                return
            self._chunk(piece.replace("\0", "\N{REPLACEMENT CHARACTER}"))
            try:
                piece = self._next(pieces)
            except ValueError:  # the head says already that all is well
                return
        if conversation.cut:
            self._chunk(f"\0{conversation.ending}")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        if data := text.encode():  # a chunk of 0 bytes would be the end
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def _next(self, pieces: Generator[str, None, None]) -> str | None:
        with self.server.one_token:
            return next(pieces, None)

    def _is_gone(self) -> bool:
        """Whether the client has closed the connection; writing shows it only later, and an empty piece not at all."""
        readable, _, _ = select.select([self.connection], [], [], 0)
        return bool(readable) and not self.connection.recv(1, socket.MSG_PEEK)


def _fields(body: bytes) -> tuple[str, list[Turn], str]:
    """The system's text, the turns and the user's text in a request.

    Raises:   ValueError: it is not of this form.
    """
    try:
        fields = parse_json("the request", body)
    except LoadError as error:
        raise ValueError(str(error)) from None
    wrong = 'the request must be {"system": text, "turns": [[text, text], …], "text": text}'
    if not isinstance(fields, dict) or fields.keys() != {"system", "turns", "text"}:
        raise ValueError(wrong)
    system, turns, text = fields["system"], fields["turns"], fields["text"]
    pairs = isinstance(turns, list) and all(
        isinstance(turn, list) and len(turn) == 2 and all(isinstance(part, str) for part in turn) for turn in turns
    )
    if not pairs or not isinstance(system, str) or not isinstance(text, str) or not text.strip():
        raise ValueError(wrong)
    return system, [Turn(*turn) for turn in turns], text
