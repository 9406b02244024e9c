"""What every file format here needs: one error for whatever cannot be read, and an atomic way to write."""

import re

from tinygrad_llm.atomic import atomic_write

__all__ = ["LoadError", "atomic_write", "disguise"]


class LoadError(ValueError):
    """A file is not what it should be; the message names the file and the field."""


def disguise(start: bytes) -> str:
    """What a file is, by its first bytes, that a failed download leaves in the place of any other; "" if neither."""
    if start.startswith(b"version "):
        return "a git-LFS pointer, not the file itself: fetch it with `git lfs pull`"
    if re.match(rb"(\xef\xbb\xbf)?\s*<", start):
        return "an HTML or XML page: did the download fail?"
    return ""
