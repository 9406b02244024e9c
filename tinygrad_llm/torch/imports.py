"""Let `import torch` mean this package, and `import tiktoken` where it is not installed."""

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from importlib.abc import MetaPathFinder
from importlib.metadata import Distribution
from types import ModuleType
from typing import Any

from tinygrad_llm.torch.missing import missing

_MODULES = (
    "autograd", "backends", "cuda", "linalg", "nn", "nn.functional", "nn.init", "nn.modules", "nn.parameter",
    "nn.utils", "nn.utils.rnn", "optim", "optim.lr_scheduler", "random", "testing", "utils", "utils.data",
)  # fmt: skip
_SAME_AS = {"nn.modules": "nn", "nn.parameter": "nn", "nn.utils.rnn": "nn.rnn"}  # where PyTorch keeps them


class _Version(Distribution):
    """What `importlib.metadata.version("torch")` asks."""

    def __init__(self, name: str, version: str) -> None:
        self._text = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"

    def read_text(self, filename: str) -> str | None:
        return self._text if filename == "METADATA" else None

    def locate_file(self, path: Any) -> Any:
        raise FileNotFoundError(path)


class _Finder(MetaPathFinder):
    """Says what takes the place of a module that is not there, and answers questions for versions."""

    def __init__(self, versions: dict[str, str]) -> None:
        self.versions = versions

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        owner, _, name = fullname.rpartition(".")
        if owner.split(".")[0] == "torch":
            raise ModuleNotFoundError(str(missing(owner, name, _MODULES)), name=fullname)

    def find_distributions(self, context: Any = None) -> Iterator[Distribution]:
        asked = None if context is None else context.name
        return (_Version(name, text) for name, text in self.versions.items() if asked in (None, name))


def answer_imports() -> None:
    """From now on, in this process, `import torch` and its submodules give this package's modules."""
    if sys.modules.get("torch") is not None and sys.modules["torch"].__name__ != "tinygrad_llm.torch":
        raise RuntimeError("PyTorch itself is imported already: call this in a new process")
    torch = importlib.import_module("tinygrad_llm.torch")
    sys.modules["torch"] = torch
    torch.Tensor.__module__, torch.nn.Parameter.__module__ = "torch", "torch.nn.parameter"  # as type(x) is printed
    for name in _MODULES:
        sys.modules[f"torch.{name}"] = importlib.import_module(f"tinygrad_llm.torch.{_SAME_AS.get(name, name)}")
    versions = {"torch": torch.__version__}
    if importlib.util.find_spec("tiktoken") is None:
        sys.modules["tiktoken"] = importlib.import_module("tinygrad_llm.torch.tiktoken")
        versions["tiktoken"] = sys.modules["tiktoken"].__version__
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder(versions))
