"""What every file format here needs: an atomic way to write, and one error for whatever cannot be read."""

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


class LoadError(ValueError):
    """A file is not what it should be; the message names the file and the field."""


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a binary file for writing that takes the place of `path` only when it is whole and on the disk.

        with atomic_write("model.safetensors") as file:
            file.write(data)

    At every moment, power cuts included, `path` is the old file or the new one. The bytes go to an
    exclusively created temporary file, `.<16 hex digits>.tmp` in the same folder (`file.name`), which is
    flushed, synced and renamed at the end of the block; if anything fails or the block raises, it is removed
    and the old file stays. Of two writers at once, the later to finish wins.

    A symbolic link stays a link: the file it points to is replaced. The old file's permissions are kept.
    Raises:   OSError: the disk is full, the folder is missing or read-only; names `path`.
              ValueError: `path` is a folder, a device or a pipe, which cannot be replaced.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        raise ValueError(f"{os.fspath(path)}: cannot be replaced, it is no regular file")
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
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
