"""A folder of files from the web: each is fetched, verified by all that is known of it, and only then gets its name.

A file is verified by its SHA-256 where that is known, else by its contents. A file that comes in a zip archive is taken
out of it, and verified then; no more of it is unpacked than it may have.
"""

import contextlib
import hashlib
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tinygrad_llm.storage.atomic import rename
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.storage.lock import folder_lock
from tinygrad_llm.storage.text import one_line
from tinygrad_llm.weights.connection import DownloadError, Unreachable
from tinygrad_llm.weights.fetch import fetch, finish, tidy

_STAGING = ".download"  # the folder in the target for files that are incomplete or not yet verified
_WRONG = (ValueError, OverflowError, OSError)  # what a check of a damaged file may raise
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # those that Python unpacks piece by piece


class File(NamedTuple):
    """A file on a server: how large it may be, and how it is verified: by size and SHA-256 where known, or `check`."""

    name: str
    limit: int  # bytes; also of the archive
    check: Callable[[Path, Path], None] | None = None  # the file, and the folder of those before it
    size: int | None = None
    sha256: str | None = None
    archive: str = ""  # the zip archive that holds it on the server


class Fetched(NamedTuple):
    """A file that is there: its bytes, whether it was fetched or there before, and "SHA-256" or "contents"."""

    name: str
    size: int
    fetched: bool
    verified: str


def mirror_url(variable: str, server: str) -> str:
    """Return the URL of a server, or of the mirror that the variable names, without a slash at its end.

    Raises:   DownloadError: the variable does not name an https or http URL.
    """
    mirror = os.environ.get(variable)
    parts = urlsplit(mirror or server)
    if parts.scheme not in ("https", "http") or not parts.netloc or parts.query or parts.fragment:
        raise DownloadError(f"{variable}={mirror}: not the URL of a mirror, which begins with https://")
    return (mirror or server).rstrip("/")


def collect(
    url: str,
    files: Sequence[File],
    folder: Path,
    mirror: str,
    *,
    overwrite: bool = False,
    report: Callable[[str, int, int | None], None] | None = None,
    **options: Any,
) -> list[Fetched]:
    """Fetch the missing files of a folder, and verify those that are there.

    Args:     url: of the folder on the server, with a slash at its end. files: each after those that its check needs.
              mirror: the variable that may name another server. overwrite: replace files that are wrong.
              report: called with a file's name, its bytes so far, and of how many (or None).
              options: timeout, attempts, pause of `fetch`.
    Raises:   DownloadError: a file of the server, or one that is there, is not what it should be.
              Unreachable, a DownloadError: no connection; the message says what to try.
              OSError: the folder cannot be written to, or the disk is full.
    """
    folder, done = folder.absolute(), []
    with _alone(folder) as staging:
        for file in files:
            path, verified = folder / file.name, ""
            if os.path.lexists(path):
                try:
                    verified = _verify(file, path, folder)
                    (staging / file.name).unlink(missing_ok=True)  # a copy that was left by a kill
                except _WRONG as error:
                    if not overwrite:
                        words = f"{_line(error)}: replace it with --overwrite, or choose another folder"
                        raise DownloadError(words) from None
            if fetched := not verified:
                tell = partial(report, file.name) if report else None
                try:
                    verified = _get(url, file, staging, folder, report=tell, **options)
                except Unreachable as error:
                    names = ", ".join(f"{one.name} (in {one.archive})" if one.archive else one.name for one in files)
                    raise Unreachable(
                        f"{error}: try again later, through a proxy (HTTPS_PROXY) or from a mirror ({mirror}); or put "
                        f"{names} from {url} into {folder} yourself"
                    ) from None
            done.append(Fetched(file.name, path.stat().st_size, fetched, verified))
    return done


def _get(url: str, file: File, staging: Path, folder: Path, **options: Any) -> str:
    """Fetch a file, verify it, and give it its name; return what was verified."""
    name, staged = file.archive or file.name, staging / file.name
    url += name
    was_there = staged.exists()  # an earlier call ended just before the verification
    if not was_there:
        part = staging / f"{name}.part"
        try:
            fetch(url, part, limit=file.limit, size=None if file.archive else file.size, **options)
        except LoadError:
            raise
        except ValueError as error:  # of Python's web client
            raise DownloadError(f"{url}: the server's answer makes no sense: {_line(error)}") from None
        finish(part, staging / name)
    if file.archive:
        _unpack(url, staging / name, file, staged)
    try:
        verified = _verify(file, staged, folder)
    except _WRONG as error:
        staged.unlink()
        if was_there:  # it may have been killed while it wrote
            return _get(url.removesuffix(name), file, staging, folder, **options)
        raise DownloadError(f"{url}: not what it should be: {_line(error)}") from None
    rename(staged, folder / file.name)
    return verified


def _unpack(url: str, archive: Path, file: File, target: Path) -> None:
    """Take the one file that is wanted out of a zip archive, and remove the archive.

    Raises:   DownloadError: it is no such archive, the file is not in it, or is longer than it may be.
              OSError: the file cannot be written.
    """
    if not archive.exists():  # an earlier call ended after this
        return
    try:
        with zipfile.ZipFile(archive) as zipped:
            member = zipped.getinfo(file.name)
            if member.compress_type not in _METHODS:
                raise NotImplementedError(f"{file.name} is packed by method {member.compress_type}")
            with zipped.open(member) as stream:
                data = stream.read(file.limit + 1)
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError) as error:
        archive.unlink()
        raise DownloadError(f"{url}: {file.name} cannot be unpacked: {_line(error)}") from None
    if len(data) > file.limit:
        archive.unlink()
        raise DownloadError(f"{url}: {file.name} in it has more than the {file.limit} bytes that it may have")
    with open(target, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
    archive.unlink()


def _verify(file: File, path: Path, beside: Path) -> str:
    """Check a file by all that is known of it; return "SHA-256" or "contents".

    Raises:   ValueError, OverflowError: what is wrong with it.
              OSError: it, or a file that its check needs, cannot be read.
    """
    if not path.is_file():
        raise LoadError(f"{path}: not a file")
    size = path.stat().st_size
    if size > file.limit or (file.size is not None and size != file.size):
        raise LoadError(f"{path}: has {size} bytes, not {file.size or f'at most {file.limit}'}")
    if not file.sha256:
        assert file.check is not None
        file.check(path, beside)
        return "contents"
    with open(path, "rb") as stream:
        if hashlib.file_digest(stream, "sha256").hexdigest() != file.sha256:
            raise LoadError(f"{path}: its SHA-256 differs from the published one")
    return "SHA-256"


def _line(error: Exception) -> str:
    return one_line(error)[:2000]


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[Path]:
    """Create the folder, allow one download at a time into it, and yield its staging folder.

    Afterwards only files that can be continued stay in the staging folder. (Windows has no such lock. An open file
    cannot be replaced there, which has the same effect.)
    """
    staging = folder / _STAGING
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    with folder_lock(folder) as taken:
        if taken is False:
            raise DownloadError(f"{folder}: another download into it is running: wait for it")
        try:
            staging.mkdir(exist_ok=True)
            yield staging
        finally:
            for part in staging.glob("*.part"):
                tidy(part)
            with contextlib.suppress(OSError):  # it holds something to continue
                staging.rmdir()
                if made and not any(folder.iterdir()):
                    folder.rmdir()
