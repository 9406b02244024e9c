"""Files and folders that are never half-written. All writers of this package use them."""

import contextlib
import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tinygrad_llm.storage.lock import folder_lock, system_lock

_PREFIX = ".tinygrad_llm-"  # of our temporaries: other files that end in .tmp stay
_DAY = 86_400  # seconds


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], verify: Callable[[Path], object] | None = None) -> Iterator[BinaryIO]:
    """Open a binary file for writing that replaces `path` only when it is complete and on the disk.

        with atomic_write("model.safetensors") as file:
            file.write(data)

    At every moment, power cuts included, `path` is the old file or the new one. The bytes go to a temporary file in
    the same folder, `.tinygrad_llm-<16 hex digits>.tmp` (`file.name`). At the end of the block it is flushed, synced,
    given to `verify` and renamed. If anything fails or the block raises, it is removed and the old file stays. Of two
    writers at once, the later one to finish wins.

    A killed process cannot remove its temporary file; the next writer in the folder does. A living writer holds a
    lock, which the system releases when its process ends. On Windows, without such locks, a temporary is removed when
    it is a day old. On a file system without locks it stays. Where the locks of a network drive reach only one
    machine, two machines must not write to one folder.

    A symbolic link stays a link: the file it points to is replaced. The old file's permissions are kept.

    Args:     verify: reads the temporary file again, by its path, and raises if it is wrong.
    Raises:   OSError: the disk is full, the folder is missing or read-only; names `path`.
              ValueError: `path` is a folder, a device or a pipe, which cannot be replaced.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(f"{os.fspath(path)}: cannot be replaced: it is not a regular file")
    _sweep(target.parent)
    temporary = _temporary(target)
    try:
        with _create(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            if verify is not None:
                verify(temporary)
            if target.exists():
                shutil.copymode(target, temporary)
            if sys.platform == "win32":
                file.close()  # an open file cannot be renamed there; elsewhere the lock is needed until the rename
            os.replace(temporary, target)
        _sync(target.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        # The error names no file, or the temporary one: neither tells the user which file could not be written.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        with contextlib.suppress(OSError):  # after a success there is none to remove
            temporary.unlink()


@contextlib.contextmanager
def atomic_folder(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Create a folder that gets its name, with all its files at once, at the end of the block.

    If the block raises, it is removed. Folders that a killed process left are removed as for `atomic_write`.

    Args:     overwrite: replace a folder whose files all have new ones of the same names. It first moves aside, to
              `.NAME.old` next to it, so that neither is lost if the process is killed in between.
    Raises:   OSError: the folder cannot be created, or `target` is a folder with files in it; with `overwrite`, with
              files of other names, which are named.
    """
    _sweep(target.parent)
    temporary = _temporary(target)
    try:
        with _create_folder(temporary):
            yield temporary
            for path in (*temporary.rglob("*"), temporary):
                _sync(path)
            aside = _moved_aside(target, temporary) if overwrite and target.is_dir() else None
            try:
                os.rename(temporary, target)
            except OSError:
                if aside is not None:
                    os.rename(aside, target)
                raise
        _sync(target.parent)
        if aside is not None:
            shutil.rmtree(aside)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # after a success there is none


def _moved_aside(target: Path, new: Path) -> Path:
    """Move a folder out of the way of a new one, unless it holds something else; return its new place."""
    others = sorted({path.name for path in target.iterdir()} - {path.name for path in new.iterdir()})
    if others:
        raise FileExistsError(errno.EEXIST, f"it also holds {', '.join(others)}", os.fspath(target))
    aside = target.with_name(f".{target.name}.old")
    os.rename(target, aside)
    return aside


def rename(source: Path, target: Path) -> None:
    """Rename a file whose contents are on the disk, and put its new name on the disk too.

    Raises:   OSError: it cannot be renamed.
    """
    os.replace(source, target)
    _sync(target.parent)


def _temporary(target: Path) -> Path:
    return target.with_name(f"{_PREFIX}{os.urandom(8).hex()}.tmp")


@contextlib.contextmanager
def _create(path: Path) -> Iterator[BinaryIO]:
    """Create a file that is locked while it is open, which shows that its writer lives."""
    while True:
        with open(path, "xb") as file:
            system_lock(file, wait=True)  # where there are no locks, `_sweep` gets none either
            if path.exists():  # else another writer swept it up before it was locked: once more
                yield file
                return


@contextlib.contextmanager
def _create_folder(path: Path) -> Iterator[None]:
    """Create a folder that is locked until the block ends, as `_create` does for a file."""
    while True:
        path.mkdir()
        with folder_lock(path, wait=True):
            if path.exists():
                yield
                return


def _sweep(folder: Path) -> None:
    """Remove the temporary files and folders of writers that were killed."""
    for path in folder.glob(f"{_PREFIX}*.tmp"):
        with contextlib.suppress(OSError):
            if sys.platform == "win32":
                if time.time() - path.stat().st_mtime > _DAY:
                    _remove(path)
                continue
            access = os.O_RDONLY if path.is_dir() else os.O_RDWR
            descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                # Not locked: its writer was killed. Another file of this name: the old one was renamed or swept up.
                if system_lock(descriptor) and os.path.samestat(os.fstat(descriptor), path.lstat()):
                    _remove(path)
            finally:
                os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def _sync(path: Path) -> None:
    """Put a file, or the names in a folder, on the disk, where this can be asked for by a path (not on Windows)."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # the file system cannot sync folders
            raise
    finally:
        os.close(descriptor)
