"""The system's locks, and the lock that lets only one process train in the folder of a run."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

if sys.platform != "win32":
    import fcntl

LOCK = "training.lock"  # holds the number of the process


class InUseError(ValueError):
    """Another process is using the folder of a run."""


def system_lock(file: int | IO[Any], wait: bool = False) -> bool | None:
    """Take the operating system's lock on an open file or folder; it ends when the file is closed or the process ends.

    Args:     wait: until another process has released it.
    Returns:  whether it was taken; None where the file system, or Windows, has no such locks.
    """
    if sys.platform == "win32":
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


@contextlib.contextmanager
def folder_lock(folder: Path, wait: bool = False) -> Iterator[bool | None]:
    """Hold the system's lock on a folder inside the block; yields what `system_lock` returns.

    Raises:   OSError: the folder cannot be opened.
    """
    if sys.platform == "win32":  # a folder cannot be opened there
        yield None
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield system_lock(descriptor, wait)
    finally:
        os.close(descriptor)


def lock(folder: Path) -> Callable[[], None]:
    """Reserve the folder of a run for this process; returns the function that releases it.

    The system releases it when the process is killed: its lock counts, not the file. On Windows the open file itself
    is the lock. Where a file system has no locks, nothing is reserved.

    Raises:   InUseError: another process has it; the message names its number.
              OSError: the folder cannot be written to.
    """
    path = folder / LOCK
    descriptor = _locked(path)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())

    def release() -> None:
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(descriptor)
        with contextlib.suppress(OSError):
            if sys.platform == "win32" or os.path.samestat(os.fstat(descriptor), path.stat()):
                path.unlink()  # not where the folder was removed, and another process has a lock of this name
        if sys.platform != "win32":  # last, so that the removal cannot hit a file that another process has locked
            os.close(descriptor)

    return release


def _locked(path: Path) -> int:
    """Return the descriptor of this file, which is locked and still has this name."""
    if sys.platform == "win32":
        try:
            path.unlink(missing_ok=True)  # refused while a process has it open
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
        except (PermissionError, FileExistsError):
            raise _in_use(path) from None
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            if system_lock(descriptor) is False:
                raise _in_use(path)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # the other process released and removed it between the two lines: once more


def _in_use(path: Path) -> InUseError:
    try:
        number = int(path.read_bytes()[:20])
    except (OSError, ValueError):  # it was just released, or just taken
        return InUseError(f"{path.parent}: is being trained by another process: wait for it, or stop it")
    return InUseError(
        f"{path.parent}: is being trained by process {number}: wait for it, or stop it (it saves, and can be resumed)"
    )
