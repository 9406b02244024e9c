"""What every file format here needs: one error for whatever cannot be read, and an atomic way to write."""

from tinygrad_llm.atomic import atomic_write

__all__ = ["LoadError", "atomic_write"]


class LoadError(ValueError):
    """A file is not what it should be; the message names the file and the field."""
