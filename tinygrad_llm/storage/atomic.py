"""Files that are never half-written: what formats, tokenizers and datasets write with."""

import contextlib
import errno
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

from tinygrad_llm.storage.lock import system_lock

_PREFIX = ".tinygrad_llm-"  # of temporaries: whatever else ends in .tmp is somebody else's
_DAY = 86_400  # seconds


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str], verify: Callable[[Path], object] | None = None) -> Iterator[BinaryIO]:
    """Open a binary file for writing that takes the place of `path` only when it is whole and on the disk.

        with atomic_write("model.safetensors") as file:
            file.write(data)

    At every moment, power cuts included, `path` is the old file or the new one. The bytes go to an
    exclusively created temporary file, `.tinygrad_llm-<16 hex digits>.tmp` in the same folder (`file.name`),
    which is flushed, synced, handed to `verify` and renamed at the end of the block; if anything fails or the
    block raises, it is removed and the old file stays. Of two writers at once, the later to finish wins.

    A killed process cannot remove its temporary file; the next writer in the folder does. A lock, which the
    system takes from a process when it ends, tells it from those of living writers. (Windows has no such
    lock: there it goes when it is a day old. It stays where a file system has no locks, and where those of a
    network drive reach only one machine, two machines should not write to one folder.)

    A symbolic link stays a link: the file it points to is replaced. The old file's permissions are kept.
    Args:     verify: reads the temporary file again, by its path, and raises if it is not as it should be.
    Raises:   OSError: the disk is full, the folder is missing or read-only; names `path`.
              ValueError: `path` is a folder, a device or a pipe, which cannot be replaced.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(f"{os.fspath(path)}: cannot be replaced, it is no regular file")
    _sweep(target.parent)
    temporary = target.with_name(f"{_PREFIX}{os.urandom(8).hex()}.tmp")
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
                file.close()  # an open file has no other name there; elsewhere the lock is needed until it has
            os.replace(temporary, target)
        _sync_folder(target.parent)
    except OSError as error:
        if error.errno is None or error.filename not in (None, str(temporary)):
            raise
        # No name, or the temporary's: neither tells the user which file could not be written.
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
    finally:
        with contextlib.suppress(OSError):  # after a success there is none to remove
            temporary.unlink()


@contextlib.contextmanager
def _create(path: Path) -> Iterator[BinaryIO]:
    """A new file, locked as long as it is open: its writer lives."""
    while True:
        with open(path, "xb") as file:
            system_lock(file, wait=True)  # where there are no locks, `_sweep` gets none either
            if path.exists():  # or else another writer swept it up before it was locked
                yield file
                return


def _sweep(folder: Path) -> None:
    """Remove the temporaries of writers that were killed."""
    for path in folder.glob(f"{_PREFIX}*.tmp"):
        with contextlib.suppress(OSError), open(path, "r+b") as file:
            if sys.platform == "win32":
                if time.time() - path.stat().st_mtime < _DAY:
                    continue
                file.close()
            elif not system_lock(file) or not os.path.samestat(os.fstat(file.fileno()), path.lstat()):
                continue  # its writer lives; or it was renamed or removed meanwhile, and perhaps created again
            path.unlink()


@contextlib.contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A new folder that is given its name, with all its files at once, at the end of the block; or removed.

    As with `atomic_write`, what a killed process left is removed by the next, who knows by the lock that it is dead.
    """
    _sweep_folders(target.parent)
    temporary = target.with_name(f"{_PREFIX}{os.urandom(8).hex()}.tmp")
    try:
        with _made(temporary):
            yield temporary
            _sync_folder(temporary)
            os.rename(temporary, target)
        _sync_folder(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # after a success there is none


@contextlib.contextmanager
def _made(folder: Path) -> Iterator[None]:
    """A new folder, locked until the block ends: its writer lives."""
    while True:
        folder.mkdir()
        with contextlib.ExitStack() as stack:
            if sys.platform != "win32":
                descriptor = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, descriptor)
                system_lock(descriptor, wait=True)  # where there are no locks, the sweep gets none either
            if folder.exists():  # or else another writer swept it up before it was locked
                yield
                return


def _sweep_folders(parent: Path) -> None:
    """Remove the temporary folders of writers that were killed."""
    for path in parent.glob(f"{_PREFIX}*.tmp"):
        if not path.is_dir() or path.is_symlink():
            continue
        with contextlib.suppress(OSError):
            if sys.platform == "win32":  # no such locks: when it is a day old
                if time.time() - path.stat().st_mtime > _DAY:
                    shutil.rmtree(path)
                continue
            descriptor = os.open(path, os.O_RDONLY)
            try:
                if system_lock(descriptor):  # its writer was killed
                    shutil.rmtree(path)
            finally:
                os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Put a rename on the disk too, where folders can be opened (not on Windows) and synced."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # the file system has no such thing
            raise
    finally:
        os.close(descriptor)
