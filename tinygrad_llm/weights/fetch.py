"""Files from the web, which break off, lie, and change: nothing is taken that was not announced, and nothing twice.

What came so far is in a `.part`, and beside it in `.part.version` what the server called that version of the file: its
ETag, or else the time of its last change. The next attempt, in this process or a later one, asks

    Range: bytes=1000-            and is answered   206, with Content-Range: bytes 1000-4999/5000: they are appended;
    If-Range: "the version"                         200: it cannot, or the file is another now: all over again;
                                                    416, with Content-Range: bytes */1000: there are no more.

Source: RFC 9110, sections 13.1.5 (If-Range), 14 (ranges) and 15.5.17 (416).
"""

import contextlib
import errno
import hashlib
import http.client
import io
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from email.message import Message
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tinygrad_llm.storage.files import LoadError

_CHUNK = 1 << 20  # bytes
_SLOWEST = 1000  # bytes a second: what comes slower does not come
_SPARE = 1 << 20  # bytes of the disk to leave free
_PASSING = {408, 425, 429, 500, 502, 503, 504}  # statuses that may be others in a moment
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)
_IS_PAGE = "a web page, not the file: does a proxy ask for a login, or is the mirror wrong?"
_LFS = b"version https://git-lfs"

Report = Callable[[int, int | None], None]  # bytes that are there, and of how many


class DownloadError(LoadError):
    """A file could not be fetched, or is not what it should be; the message names its URL."""


class Unreachable(DownloadError):
    """The server, or the file on it, cannot be reached: another time, or another way, it might be."""


class _Passing(Exception):
    """What another attempt may mend."""


class _NoName(_Passing):
    """The server's name was not found: there is no network; in the middle of a download it may come back."""


def fetch(
    url: str,
    part: Path,
    *,
    limit: int,
    size: int | None = None,
    timeout: float = 30.0,
    window: float = 60.0,
    attempts: int = 5,
    pause: float = 1.0,
    report: Report | None = None,
) -> None:
    """Fetch a URL into the file `part`, from where an earlier call stopped. Its contents are for the caller to check.

    Args:     limit: bytes that the file may have at most. size: bytes that it must have, if that is known.
              timeout: seconds without a byte until the connection counts as broken; it does too if less than 1 kB/s
              comes over `window` seconds, headers included. attempts: in a row that bring less
              than a megabyte. pause: seconds before the second attempt; twice as many before each further one.
    Raises:   Unreachable: after all attempts, or at once for what will not pass, such as 404 or no network.
              DownloadError: the server sends something else: a web page, another size, compressed, more than announced.
              OSError: the disk is full, the folder cannot be written to.

    `part` stays as far as it may be continued, and is removed if what is in it is wrong. https stays https: a redirect
    from it to http is refused.
    """
    failed, most = 0, _size(part)
    while True:
        try:
            _attempt(url, part, limit, size, timeout, window, report)
            return
        except _Passing as error:
            # Against the most there ever was, or a server that has us start over and over would keep us forever.
            failed = 1 if _size(part) - most >= _CHUNK else failed + 1
            most = max(most, _size(part))
            if failed >= attempts or (failed == 1 and isinstance(error, _NoName)):
                start = tidy(part)
                kept = f"; the {start} bytes that came are kept" if start else ""
                raise Unreachable(f"{url}: {error}{kept}") from None
            time.sleep(pause * 2 ** (failed - 1))


def discard(part: Path) -> None:
    """Remove a `.part` and what belongs to it."""
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def tidy(part: Path) -> int:
    """Remove a `.part` that cannot be continued; returns how many bytes of it can."""
    start, _ = _earlier(part)
    if not start:
        discard(part)
    return start


def finish(part: Path, path: Path) -> None:
    """Give a whole `.part` its name."""
    os.replace(part, path)
    discard(part)


def _attempt(
    url: str, part: Path, limit: int, size: int | None, timeout: float, window: float, report: Report | None
) -> None:
    start, version = _earlier(part)
    if size is not None and start == size:
        return  # it was whole when the call before this one was ended
    headers = {"Accept-Encoding": "identity", "User-Agent": "tinygrad_llm"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    redirects = _Redirects(url)
    try:
        with _network_errors(url):
            response = _open(url, headers, timeout, window, redirects)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not start:
            raise _refusal(url, error) from None
        if error.headers.get("Content-Range") != f"bytes */{start}":
            discard(part)
            raise _Passing("the file is another than the one begun") from None
        _check_hash(url, part, redirects.sha256)
        return
    with response:
        total = _announced(url, response, part, start, version)
        if response.status == 200:
            start = 0
        with _network_errors(url):
            chunk = response.read1(_CHUNK) if start else response.read(512)
        if not start:
            _check_start(url, chunk)
        _check_size(url, total, size, limit)
        room = shutil.disk_usage(part.parent).free
        missing = (total or size or 0) - start
        if missing + _SPARE > room:
            words = f"No space left on device: {missing} bytes are to come, {room} are free"
            raise OSError(errno.ENOSPC, words, str(part.parent))
        most = next(number for number in (total, size, limit) if number is not None)
        done = _copy(url, response, chunk, part, start, most, total, report)
    expected = total if total is not None else size
    if expected is not None and done < expected:
        raise _Passing(f"the connection broke after {done} of {expected} bytes")
    _check_hash(url, part, redirects.sha256)


def _copy(
    url: str, response: Any, chunk: bytes, part: Path, start: int, most: int, total: int | None, report: Report | None
) -> int:
    """Write `chunk` and what follows it behind the first `start` bytes of `part`; returns how many it then has."""
    try:
        with open(part, "r+b" if start else "wb") as file:
            if not start:
                _version_file(part).write_text(_version(response.headers), encoding="latin-1")
            file.seek(start)
            done = start
            while chunk and done + len(chunk) <= most:
                file.write(chunk)
                done += len(chunk)
                if report:
                    report(done, total)
                with _network_errors(url):
                    chunk = response.read1(_CHUNK)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(part)) from None
    if chunk:
        discard(part)
        raise DownloadError(f"{url}: the server sends more than the {most} bytes it may have")
    return done


# What the server says


def _announced(url: str, response: Any, part: Path, start: int, version: str) -> int | None:
    """How many bytes the whole file has, if the server says."""
    headers = response.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise DownloadError(f"{url}: the server sends it compressed, unasked ({headers['Content-Encoding'][:20]})")
    if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise DownloadError(f"{url}: {_IS_PAGE}")
    if response.status == 200:
        length: int | None = response.length  # None: not said, or in chunks, whose end is marked
        return length
    if response.status != 206 or not start:
        raise Unreachable(f"{url}: the server answers {response.status} {response.reason}")
    found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", headers.get("Content-Range", ""))
    first, last, total = (int(number) for number in found.groups()) if found else (0, 0, 0)
    right = first == start and last == total - 1 and response.length in (None, total - start)
    # One that overlooks If-Range may send the rest of another version, and says so.
    if not right or _version(headers) not in ("", version):
        discard(part)
        raise _Passing("the server continues elsewhere, or with another file")
    return total


def _check_start(url: str, start: bytes) -> None:
    if _PAGE.match(start):
        raise DownloadError(f"{url}: {_IS_PAGE}")
    if start.startswith(_LFS):
        raise DownloadError(f"{url}: a git-LFS pointer, not the file itself: a wrong mirror?")


def _check_size(url: str, total: int | None, size: int | None, limit: int) -> None:
    if total is not None and size is not None and total != size:
        raise DownloadError(f"{url}: the server announces {total} bytes, the file has {size}")
    if total is not None and total > limit:
        raise DownloadError(f"{url}: the server announces {total} bytes, such a file has at most {limit}")


def _check_hash(url: str, part: Path, sha256: str | None) -> None:
    if sha256:
        with open(part, "rb") as file:
            right = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        if not right:
            discard(part)
            raise DownloadError(f"{url}: the SHA-256 is not the one that the server states: it came damaged")


def _version(headers: Message) -> str:
    """What If-Range may ask for: a strong ETag, or the time of the last change; "" if there is neither."""
    tag: str = headers.get("ETag", "")
    if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', tag):
        return tag
    changed: str = headers.get("Last-Modified", "")
    return changed if not tag and re.fullmatch(r"[A-Za-z0-9:, ]{1,40}", changed) else ""


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _earlier(part: Path) -> tuple[int, str]:
    """How many bytes there are already, and of which version; (0, "") if they cannot be continued."""
    try:
        version = _version_file(part).read_text(encoding="latin-1")[:300]
    except FileNotFoundError:
        return 0, ""
    return (_size(part), version) if version and "\n" not in version else (0, "")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


# The connection


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but from https only to https, and from http to nowhere else but that or the same server."""

    def __init__(self, url: str) -> None:
        self.origin = urlsplit(url)[:2]
        self.sha256: str | None = None

    def http_error_302(self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any) -> Any:
        try:
            return super().http_error_302(req, fp, code, msg, headers)
        except ValueError:  # a Location that is no URL; urllib would leave the connection open
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
        # The model hub keeps large files elsewhere, and says here what they hash to.
        linked = re.fullmatch(r'"([0-9a-f]{64})"', headers.get("X-Linked-ETag", ""))
        self.sha256 = linked[1] if linked else self.sha256
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Paced(io.RawIOBase):
    """What comes over a connection, unless it is so little that it would keep us for ever."""

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
    """Reads status, headers and body of every answer at a pace."""

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


def _open(url: str, headers: dict[str, str], timeout: float, window: float, redirects: _Redirects) -> Any:
    if urlsplit(url).scheme not in ("http", "https"):  # urllib also opens files
        raise DownloadError(f"{url}: the URL must begin with https://")
    request = urllib.request.Request(url, headers=headers)
    return urllib.request.build_opener(redirects, _HTTP(window), _HTTPS(window)).open(request, timeout=timeout)


def _refusal(url: str, error: urllib.error.HTTPError) -> Exception:
    words = " ".join(f"{error.code} {error.reason}".split())[:200]
    if error.code in _PASSING:
        return _Passing(f"the server answers {words}")
    return Unreachable(f"{url}: the server answers {words}")


@contextlib.contextmanager
def _network_errors(url: str) -> Iterator[None]:
    """What the network does becomes _Passing, so that it is not taken for the disk's doing."""
    try:
        yield
    except (urllib.error.HTTPError, LoadError):
        raise
    except ValueError as error:  # a Location that is no URL, a size that is no number
        raise _Passing(f"the server's answer makes no sense: {' '.join(str(error).split())[:200]}") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise Unreachable(f"{url}: the server's certificate is not valid here: {reason.verify_message}") from None
        if isinstance(reason, TimeoutError):
            raise _Passing("the server does not go on") from None
        if isinstance(reason, socket.gaierror):
            raise _NoName(f"the server's name cannot be looked up ({reason.strerror})") from None
        raise _Passing(f"the connection failed: {str(reason)[:200] or type(reason).__name__}") from None
