"""Where the files of a model are: in a folder, in a file, or in the cache that `tinygrad-llm download` fills."""

import os
import sys
from pathlib import Path

from tinygrad_llm.storage.files import LoadError

WEIGHTS = "model.safetensors"  # the weights in a folder of ours, and of Hugging Face's
INDEX, DATA = "model.ckpt.index", "model.ckpt.data-00000-of-00001"  # OpenAI's
NPZ = "model.npz"
HPARAMS, CONFIG = "hparams.json", "config.json"  # the sizes: OpenAI's, Hugging Face's
CHECKPOINTS = "checkpoints"  # the folder in a run for those of its training

_CHECKPOINT = "step-*.ckpt.safetensors"

CACHE = "TINYGRAD_LLM_CACHE"  # names the folder that holds a folder for each published model
PUBLISHED = {"gpt2": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1558M"}  # ours: OpenAI's name


def cache_folder(name: str) -> Path:
    """Return the default folder of a published model: in $TINYGRAD_LLM_CACHE, else where the system has caches."""
    home = Path.home()
    if sys.platform == "win32":
        caches = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        caches = home / "Library" / "Caches"
    else:
        caches = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return Path(os.environ.get(CACHE) or caches / "tinygrad_llm") / name


def find_weights(path: str | Path) -> Path:
    """Return the file or folder to read arrays from, for a path or the name of a published model.

    A path that exists comes before the name.

    Raises:   LoadError: there is no model; the message says what to do.
    """
    path = Path(path)
    if (path / WEIGHTS).is_file():
        return path / WEIGHTS
    if path.is_dir():
        kinds = ("*.safetensors*", "*.index", "*.npz", "pytorch_model*.bin")
        if not any(any(path.glob(kind)) for kind in kinds):
            checkpoint = max((path / CHECKPOINTS).glob(_CHECKPOINT), default=None)
            hint = f"name a checkpoint of its training, such as {checkpoint}" if checkpoint else "train one"
            raise LoadError(f"{path}: no model here ({WEIGHTS} is missing): {hint}, or check the path")
    elif not path.exists() and not path.with_name(path.name + ".index").exists():
        if str(path) not in PUBLISHED:
            raise LoadError(f"{path}: no model here: train one, or check the path")
        cached = cache_folder(str(path))
        if not any((cached / weights).is_file() for weights in (DATA, WEIGHTS)):
            raise LoadError(f"{path}: not here: run `tinygrad-llm download {path}` first, or give its folder")
        return find_weights(cached)
    return path


def folder_of(weights: Path) -> Path:
    """Return the folder that holds the other files of a model; of a checkpoint, the folder of its run."""
    if weights.is_dir():
        return weights
    return weights.parent.parent if is_checkpoint(weights) else weights.parent


def is_checkpoint(weights: Path) -> bool:
    """Whether a path is that of a checkpoint in the folder of a run."""
    return weights.parent.name == CHECKPOINTS and weights.match(_CHECKPOINT)
