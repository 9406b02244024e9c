# mypy: disable-error-code="import-not-found"
"""In the worker: the same file read by the safetensors package, into NumPy's arrays or PyTorch's tensors."""

from typing import Any

from tinygrad_llm.bench.harness import Subject
from tinygrad_llm.bench.load import reading
from tinygrad_llm.runtime import peak_memory


def _facts() -> dict[str, Any]:
    import safetensors

    return {"version": safetensors.__version__}


def loading(path: str) -> Subject:
    """Reading a file with the safetensors package, into NumPy."""
    from safetensors.numpy import load_file

    return reading(lambda: load_file(path), peak_memory(), _facts)


def loading_torch(path: str) -> Subject:
    """The same into PyTorch's tensors."""
    from safetensors.torch import load_file

    return reading(lambda: load_file(path), peak_memory(), _facts)
