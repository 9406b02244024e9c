"""Files from the web. They can be cut off, wrong, or changed: every size is checked, and no byte is fetched twice.

The bytes so far are in a `.part`. Next to it, `.part.version` holds the server's identifier for that version of the
file: its ETag, or else the time of its last change. The next attempt, in this process or a later one, requests

    Range: bytes=1000-            The server answers
    If-Range: "the version"           206, with Content-Range: bytes 1000-4999/5000: the rest, which is appended;
                                      200: no ranges, or another version of the file: all of it from the start;
                                      416, with Content-Range: bytes */1000: the file is complete.

Source: RFC 9110, sections 13.1.5 (If-Range), 14 (ranges) and 15.5.17 (416).
"""

import errno
import hashlib
import os
import re
import shutil
import time
import urllib.error
from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import Any, NamedTuple

from tinygrad_llm.storage.atomic import rename
from tinygrad_llm.weights.connection import (
    DownloadError,
    NoName,
    Redirects,
    Transient,
    Unreachable,
    network_errors,
    open_url,
    refusal,
)

_CHUNK = 1 << 20  # bytes
_SPARE = 1 << 20  # bytes of the disk that stay free
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|\?xml)", re.IGNORECASE)
_IS_PAGE = "a web page, not the file: does a proxy ask for a login, or is the mirror wrong?"
_LFS = b"version https://git-lfs"

Report = Callable[[int, int | None], None]  # bytes so far, and of how many


class _Limits(NamedTuple):
    """The bytes a file may have, those it must have if known, and the seconds of `open_url`."""

    most: int
    size: int | None
    timeout: float
    window: float


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
    """Fetch a URL into the file `part`, from where an earlier call stopped. The caller checks the contents.

    Args:     limit: bytes that the file may have at most. size: bytes that it must have, if that is known.
              timeout: seconds without a byte until the connection counts as broken. window: seconds over which the
              connection must bring 1 kB/s, headers included. attempts: how many in a row may bring less than a
              megabyte. pause: seconds before the second attempt; it doubles before each further one.
    Raises:   Unreachable: after all attempts, or at once for a permanent failure, such as 404 or no network.
              DownloadError: the server sends something else: a web page, another size, compressed data, more bytes
              than announced. OSError: the disk is full, or the folder cannot be written to.

    After a failure `part` stays if it can be continued, and is removed if its contents are wrong. A redirect from https
    to http is refused.
    """
    limits = _Limits(limit, size, timeout, window)
    failed, most = 0, _size(part)
    while True:
        try:
            _attempt(url, part, limits, report)
            return
        except Transient as error:
            # Compared with the most bytes so far: a server that makes us start over and over would never end.
            failed = 1 if _size(part) - most >= _CHUNK else failed + 1
            most = max(most, _size(part))
            if failed >= attempts or (failed == 1 and isinstance(error, NoName)):
                start = tidy(part)
                kept = f"; the {start} bytes so far are kept" if start else ""
                raise Unreachable(f"{url}: {error}{kept}") from None
            time.sleep(pause * 2 ** (failed - 1))


def discard(part: Path) -> None:
    """Remove a `.part` and its version."""
    part.unlink(missing_ok=True)
    _version_file(part).unlink(missing_ok=True)


def tidy(part: Path) -> int:
    """Remove a `.part` that cannot be continued; return how many bytes of it can."""
    start, _ = _earlier(part)
    if not start:
        discard(part)
    return start


def finish(part: Path, path: Path) -> None:
    """Give a complete `.part` its name."""
    rename(part, path)
    discard(part)


def _attempt(url: str, part: Path, limits: _Limits, report: Report | None) -> None:
    """Request the rest of the file once, and append it to `part`."""
    start, version = _earlier(part)
    if limits.size is not None and start == limits.size:
        return  # an earlier call ended just after the last byte
    headers = {"Accept-Encoding": "identity", "User-Agent": "tinygrad_llm"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": version}
    redirects = Redirects(url)
    try:
        with network_errors(url):
            response = open_url(url, headers, limits.timeout, limits.window, redirects)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code != 416 or not start:
            raise refusal(url, error) from None
        if error.headers.get("Content-Range") != f"bytes */{start}":
            discard(part)
            raise Transient("the file changed since it was begun") from None
        _check_hash(url, part, redirects.sha256)
        return
    with response:
        total = _announced(url, response, part, start, version)
        if response.status == 200:
            start = 0
        with network_errors(url):
            chunk = response.read1(_CHUNK) if start else response.read(512)
        if not start:
            _check_start(url, chunk)
        _check_size(url, total, limits)
        _check_room(part, (total or limits.size or 0) - start)
        most = next(number for number in (total, limits.size, limits.most) if number is not None)
        done = _copy(url, response, chunk, part, start, most, total, report)
    expected = total if total is not None else limits.size
    if expected is not None and done < expected:
        raise Transient(f"the connection broke after {done} of {expected} bytes")
    _check_hash(url, part, redirects.sha256)


def _copy(
    url: str, response: Any, chunk: bytes, part: Path, start: int, most: int, total: int | None, report: Report | None
) -> int:
    """Write `chunk` and all that follows it after the first `start` bytes of `part`; return the bytes it then has."""
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
                with network_errors(url):
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


# ---- what the server says ------------------------------------------------------------------------------------------


def _announced(url: str, response: Any, part: Path, start: int, version: str) -> int | None:
    """Return how many bytes the whole file has, if the server says."""
    headers = response.headers
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise DownloadError(f"{url}: the server compresses it, unasked ({headers['Content-Encoding'][:20]})")
    if headers.get_content_type() in ("text/html", "application/xhtml+xml"):
        raise DownloadError(f"{url}: {_IS_PAGE}")
    if response.status == 200:
        length: int | None = response.length  # None: not stated, or sent in chunks, whose end is marked
        return length
    if response.status != 206 or not start:
        raise Unreachable(f"{url}: the server answers {response.status} {response.reason}")
    found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", headers.get("Content-Range", ""))
    first, last, total = (int(number) for number in found.groups()) if found else (0, 0, 0)
    right = first == start and last == total - 1 and response.length in (None, total - start)
    # A server that ignores If-Range may send the rest of another version, and its headers say so.
    if not right or _version(headers) not in ("", version):
        discard(part)
        raise Transient("the server continues at another place, or with another file")
    return total


def _check_start(url: str, start: bytes) -> None:
    if _PAGE.match(start):
        raise DownloadError(f"{url}: {_IS_PAGE}")
    if start.startswith(_LFS):
        raise DownloadError(f"{url}: a git-LFS pointer, not the file itself: is the mirror wrong?")


def _check_size(url: str, total: int | None, limits: _Limits) -> None:
    if total is not None and limits.size is not None and total != limits.size:
        raise DownloadError(f"{url}: the server announces {total} bytes, the file has {limits.size}")
    if total is not None and total > limits.most:
        raise DownloadError(f"{url}: the server announces {total} bytes, such a file has at most {limits.most}")


def _check_room(part: Path, missing: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if missing + _SPARE > free:
        words = f"No space left on device: {missing} bytes are missing, {free} are free"
        raise OSError(errno.ENOSPC, words, str(part.parent))


def _check_hash(url: str, part: Path, sha256: str | None) -> None:
    if sha256:
        with open(part, "rb") as file:
            right = hashlib.file_digest(file, "sha256").hexdigest() == sha256
        if not right:
            discard(part)
            raise DownloadError(f"{url}: the SHA-256 differs from the one that the server states: it came damaged")


def _version(headers: Message) -> str:
    """Return what If-Range may send: a strong ETag, or the time of the last change; "" if there is neither."""
    tag: str = headers.get("ETag", "")
    if re.fullmatch(r'"[\x21\x23-\x7e]{1,200}"', tag):
        return tag
    changed: str = headers.get("Last-Modified", "")
    return changed if not tag and re.fullmatch(r"[A-Za-z0-9:, ]{1,40}", changed) else ""


def _version_file(part: Path) -> Path:
    return part.with_name(part.name + ".version")


def _earlier(part: Path) -> tuple[int, str]:
    """Return how many bytes an earlier call left, and of which version; (0, "") if they cannot be continued."""
    try:
        version = _version_file(part).read_text(encoding="latin-1")[:300]
    except FileNotFoundError:
        return 0, ""
    return (_size(part), version) if version and "\n" not in version else (0, "")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0
