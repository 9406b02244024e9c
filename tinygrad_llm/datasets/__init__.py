"""Text and token ids → batches to train on."""

from tinygrad_llm.datasets.windows import DataError, DataLoader, Dataset, SlidingWindows, split

__all__ = ["DataError", "DataLoader", "Dataset", "SlidingWindows", "split"]
