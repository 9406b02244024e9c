"""The system's locks; and one process at a time in a run's folder."""

import contextlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

if sys.platform != "win32":
    import fcntl

LOCK = "training.lock"  # holds the number of the process


class InUseError(ValueError):
    """The folder of a run is another's at the moment."""


def system_lock(file: int | IO[Any], wait: bool = False) -> bool | None:
    """Take the operating system's lock on an open file or folder; it ends when the file is closed or its process ends.

    Args:     wait: until another process has given it back.
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


def lock(folder: Path) -> Callable[[], None]:
    """Take the folder for this process; returns what gives it back.

    A process that is killed gives it back as well: the system's lock goes with it, and a file that stays is no lock.
    (On Windows the open file itself is the lock. Where a file system has no locks, there is none.)

    Raises:   InUseError: another has taken it; its number is named. OSError: the folder cannot be written to.
    """
    path = folder / LOCK
    descriptor = _locked(path)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, str(os.getpid()).encode())

    def give_back() -> None:
        if sys.platform == "win32":  # where an open file cannot be removed
            os.close(descriptor)
        with contextlib.suppress(OSError):
            path.unlink()
        if sys.platform != "win32":  # after it, or a file would be removed that another has locked
            os.close(descriptor)

    return give_back


def _locked(path: Path) -> int:
    """The descriptor of this file, locked and still of this name."""
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
        os.close(descriptor)  # given back, and so removed, between the two lines: once more


def _in_use(path: Path) -> InUseError:
    try:
        number = int(path.read_bytes()[:20])
    except (OSError, ValueError):  # just given back, or just taken
        return InUseError(f"{path.parent}: is being trained by another process: wait for it, or stop it")
    return InUseError(
        f"{path.parent}: is being trained by process {number}: wait for it, or stop it (it saves, and can be resumed)"
    )
