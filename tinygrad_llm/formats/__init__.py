"""Bytes ↔ named arrays, and files that are never half-written."""

from tinygrad_llm.formats.files import LoadError, atomic_write
from tinygrad_llm.formats.safetensors import load_safetensors, save_safetensors

__all__ = ["LoadError", "atomic_write", "load_safetensors", "save_safetensors"]
