"""Text and token ids → batches to train on."""

from tinygrad_llm.datasets.corpora import CORPORA, corpus_hash, load_corpus
from tinygrad_llm.datasets.tokens import TokenFile, encode_file, read_stretches, vocabulary_hash
from tinygrad_llm.datasets.windows import DataError, DataLoader, Dataset, SlidingWindows, split

__all__ = [
    "CORPORA",
    "DataError",
    "DataLoader",
    "Dataset",
    "SlidingWindows",
    "TokenFile",
    "corpus_hash",
    "encode_file",
    "load_corpus",
    "read_stretches",
    "split",
    "vocabulary_hash",
]
