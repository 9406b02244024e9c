"""HTTP connections: paced, so that a server cannot keep us waiting; careful with redirects; clear errors.

Python's web client has a timeout for each read. A server that sends one byte before each timeout never exceeds it, so
every answer here is also measured over a window of time, headers included.
"""

import contextlib
import http.client
import io
import re
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import IO, Any
from urllib.parse import urlsplit

from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.storage.text import one_line

_SLOWEST = 1000  # bytes per second: a slower connection counts as broken
_TRANSIENT = {408, 425, 429, 500, 502, 503, 504}  # statuses that may change in a moment


class DownloadError(LoadError):
    """A file could not be fetched, or is not what it should be; the message names its URL."""


class Unreachable(DownloadError):
    """The server, or the file on it, cannot be reached: another attempt or another address may succeed."""


class Transient(Exception):
    """A failure that another attempt may not meet."""

    wait = 0.0  # seconds that the server asks for


class NoName(Transient):
    """The server's name was not found. At the start there is no network; in the middle it may come back."""


class Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects: from https only to https, from http only to https or within the same server.

    Args:     url: the first one.
    `sha256` is the hash that the model hub states in a redirect, or None.
    """

    def __init__(self, url: str) -> None:
        self.origin = urlsplit(url)[:2]
        self.sha256: str | None = None

    def http_error_302(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:  # the Location is no URL; urllib would leave the connection open
            fp.close()
            raise

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        target = urlsplit(newurl)[:2]
        if target[0] != "https" and target != self.origin:
            fp.close()
            raise DownloadError(f"{req.full_url}: redirected to {newurl[:200]}, which is not https: refused")
        # The model hub stores large files elsewhere, and states their hash here.
        linked = re.fullmatch(r'"([0-9a-f]{64})"', headers.get("X-Linked-ETag", ""))
        self.sha256 = linked[1] if linked else self.sha256
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class NoRedirects(urllib.request.HTTPRedirectHandler):
    """Refuses every redirect: what is sent goes only where the user said."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        fp.close()
        raise DownloadError(f"{req.full_url}: redirected to {newurl[:200]}: refused; name that address, if it is right")


def open_url(
    url: str,
    headers: dict[str, str],
    timeout: float,
    window: float,
    *handlers: urllib.request.BaseHandler,
    data: bytes | None = None,
) -> Any:
    """Send a GET request, or a POST request with data, and return the response once its headers are there.

    Args:     timeout: seconds without a byte until the connection counts as broken. window: seconds over which the
              connection must bring 1 kB/s. handlers: such as `Redirects`.
    Raises:   DownloadError: not an http or https URL. HTTPError: a status other than success.
              All other failures are those that `network_errors` translates.
    """
    if urlsplit(url).scheme not in ("http", "https"):  # urllib also opens files
        raise DownloadError(f"{url}: the URL must begin with https://")
    request = urllib.request.Request(url, data, headers)
    return urllib.request.build_opener(*handlers, _HTTP(window), _HTTPS(window)).open(request, timeout=timeout)


def refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    """Return the error for a status other than success: Transient, or Unreachable."""
    words = one_line(f"{error.code} {error.reason}")[:200]
    if error.code in _TRANSIENT:
        return Transient(f"the server answers {words}")
    return Unreachable(f"{url}: the server answers {words}")


@contextlib.contextmanager
def network_errors(url: str) -> Iterator[None]:
    """Turn failures of the network inside the block into Transient, so that the disk's failures stay distinct."""
    try:
        yield
    except (urllib.error.HTTPError, LoadError):
        raise
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Unreachable(f"{url}: the server's certificate is not valid here: {reason.verify_message}") from None
        if isinstance(reason, TimeoutError):
            raise Transient("the server stopped sending") from None
        if isinstance(reason, socket.gaierror):
            raise NoName(f"the server's name cannot be looked up ({reason.strerror})") from None
        raise Transient(f"the connection failed: {str(reason)[:200] or type(reason).__name__}") from None
    except ValueError as error:  # such as a Location that is not a URL, or a size that is not a number
        raise Transient(f"the server's answer makes no sense: {one_line(error)[:200]}") from None


class _Paced(io.RawIOBase):
    """The bytes of a connection; a TimeoutError when they come too slowly."""

    def __init__(self, raw: io.RawIOBase, window: float) -> None:
        self._raw, self._window = raw, window
        self._since, self._count = time.monotonic(), 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        count = self._raw.readinto(buffer)
        self._count += count or 0
        passed = time.monotonic() - self._since
        if passed > self._window:
            if self._count < _SLOWEST * passed:
                raise TimeoutError
            self._since, self._count = time.monotonic(), 0
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Handler(urllib.request.AbstractHTTPHandler):
    """Reads the status, headers and body of every answer through `_Paced`."""

    def __init__(self, window: float) -> None:
        super().__init__()
        self._window = window

    def do_open(self, http_class: Any, req: urllib.request.Request, **options: Any) -> Any:
        def respond(*args: Any, **more: Any) -> http.client.HTTPResponse:
            response = http.client.HTTPResponse(*args, **more)
            response.fp = io.BufferedReader(_Paced(response.fp.detach(), self._window))
            return response

        def connect(*args: Any, **more: Any) -> Any:
            connection = http_class(*args, **more)
            connection.response_class = respond
            return connection

        return super().do_open(connect, req, **options)


class _HTTP(_Handler, urllib.request.HTTPHandler):
    pass


class _HTTPS(_Handler, urllib.request.HTTPSHandler):
    pass
