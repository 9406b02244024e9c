"""Bytes ↔ named arrays, and files that are never half-written."""

from tinygrad_llm.formats.arrays import Arrays, read_arrays, write_arrays
from tinygrad_llm.formats.checkpoint import (
    Checkpoints,
    DamagedCheckpointWarning,
    NewerVersionError,
    load_checkpoint,
    save_checkpoint,
)
from tinygrad_llm.formats.npz import load_npy, load_npz, save_npz
from tinygrad_llm.formats.safetensors import load_safetensors, save_safetensors
from tinygrad_llm.formats.tensorbundle import read_tensorbundle, verify_tensorbundle, write_tensorbundle
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.storage.files import LoadError, parse_json, show

__all__ = [
    "Arrays",
    "Checkpoints",
    "DamagedCheckpointWarning",
    "LoadError",
    "NewerVersionError",
    "atomic_write",
    "load_checkpoint",
    "load_npy",
    "load_npz",
    "load_safetensors",
    "parse_json",
    "read_arrays",
    "read_tensorbundle",
    "save_checkpoint",
    "save_npz",
    "save_safetensors",
    "show",
    "verify_tensorbundle",
    "write_arrays",
    "write_tensorbundle",
]
