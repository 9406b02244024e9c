"""Text and token ids → batches to train on."""

from tinygrad_llm.datasets.corpora import CORPORA, corpus_hash, load_corpus
from tinygrad_llm.datasets.windows import DataError, DataLoader, Dataset, SlidingWindows, split

__all__ = [
    "CORPORA",
    "DataError",
    "DataLoader",
    "Dataset",
    "SlidingWindows",
    "corpus_hash",
    "load_corpus",
    "split",
]
