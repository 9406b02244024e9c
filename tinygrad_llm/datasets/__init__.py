"""Text and token ids → batches to train on."""

from tinygrad_llm.datasets.corpora import CORPORA, corpus_hash, load_corpus
from tinygrad_llm.datasets.tokens import TokenFile, encode_file, read_stretches, refuse_special, vocabulary_hash
from tinygrad_llm.datasets.windows import (
    BatchStream,
    DataError,
    DataLoader,
    Dataset,
    Order,
    Permutation,
    SlidingWindows,
    check_ids,
    mixture,
    split,
)

__all__ = [
    "CORPORA",
    "BatchStream",
    "DataError",
    "DataLoader",
    "Dataset",
    "Order",
    "Permutation",
    "SlidingWindows",
    "TokenFile",
    "check_ids",
    "corpus_hash",
    "encode_file",
    "load_corpus",
    "mixture",
    "read_stretches",
    "refuse_special",
    "split",
    "vocabulary_hash",
]
