"""Storage: files that are never half-written, locks, and reads of bounded size."""

from tinygrad_llm.storage.atomic import atomic_folder, atomic_write
from tinygrad_llm.storage.files import LoadError, parse_json, show
from tinygrad_llm.storage.lock import InUseError

__all__ = ["InUseError", "LoadError", "atomic_folder", "atomic_write", "parse_json", "show"]
