"""`torch.utils`: data sets and loaders."""

from tinygrad_llm.torch.missing import lookup
from tinygrad_llm.torch.utils import data

__all__ = ["data"]

__getattr__ = lookup("torch.utils", lambda: __all__)
