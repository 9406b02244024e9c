"""Reading a safetensors file of GPT-2's shape that is in the page cache, and a number of every page of it.

Without that, whoever maps the file would have read nothing.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tinygrad_llm.bench.harness import Subject
from tinygrad_llm.bench.measure import OURS, Case, Cases
from tinygrad_llm.bench.work import Work, numpy_facts
from tinygrad_llm.formats import load_safetensors
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.runtime import peak_memory

THEIRS = ("safetensors", "safetensors-torch")
SUBJECTS = {
    OURS: f"{__name__}:loading",
    "safetensors": "tinygrad_llm.bench.against_safetensors:loading",
    "safetensors-torch": "tinygrad_llm.bench.against_safetensors:loading_torch",
}
PAGE = 1024  # floats
TOLERANCE = 1e-4


def cases(config: GPTConfig = GPTConfig()) -> Cases:  # noqa: B008 (it cannot be changed)
    """A file of GPT-2's shape, in the system's cache from the first round on."""
    with tempfile.TemporaryDirectory() as folder:
        GPT(config, Generator(0)).save_pretrained(folder)
        path = Path(folder) / "model.safetensors"
        size = path.stat().st_size
        yield Case(f"{size / 1e6:.1f} MB", SUBJECTS, {"path": str(path)}, TOLERANCE, traffic=size)


# ---- in the worker -----------------------------------------------------------------------------------------------


def loading(path: str) -> Subject:
    """Reading a file with ours."""
    return reading(lambda: load_safetensors(path)[0], peak_memory(), numpy_facts)


def reading(load: Callable[[], Mapping[str, Any]], imported: int | None, facts: Callable[[], dict[str, Any]]) -> Work:
    """`load` gives arrays, or what has their methods; the answer is the sum of a number of every page."""

    def do() -> float:
        return sum(float(array.reshape(-1)[::PAGE].sum()) for array in load().values())

    return Work(do, do, imported, facts)
