"""Formats: bytes ↔ named arrays. A file is refused by name and field; none is unpickled or run."""

from tinygrad_llm.formats.arrays import Arrays, read_arrays
from tinygrad_llm.formats.checkpoint import (
    Checkpoints,
    DamagedCheckpointWarning,
    VersionError,
    load_checkpoint,
    save_checkpoint,
)
from tinygrad_llm.formats.npz import load_npy, load_npz, save_npz
from tinygrad_llm.formats.safetensors import load_safetensors, save_safetensors
from tinygrad_llm.formats.tensorbundle import read_tensorbundle, verify_tensorbundle, write_tensorbundle

__all__ = [
    "Arrays", "Checkpoints", "DamagedCheckpointWarning", "VersionError", "load_checkpoint", "load_npy",
    "load_npz", "load_safetensors", "read_arrays", "read_tensorbundle", "save_checkpoint", "save_npz",
    "save_safetensors", "verify_tensorbundle", "write_tensorbundle",
]  # fmt: skip
