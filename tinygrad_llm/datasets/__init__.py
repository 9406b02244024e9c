"""Text and token ids → batches to train on.

corpora.py      texts: two that are bundled, and any UTF-8 file, whole or in stretches
tokens.py       token files: ids on the disk, read as if they were an array in memory
encode.py       text file → token file, on all cores (`encode_workers.py`), in bounded memory
windows.py      ids → windows: an input of block_size ids, and the target one id further on
batches.py      windows → batches: `DataLoader` (one pass, as in PyTorch) and `BatchStream` (without end)
messages.py     texts with labels, for a classifier
instructions.py instructions with answers, and pairs of answers, for an assistant
translations.py sentences with their translations
public.py       files by name: those that ship, and texts of the book that others publish, downloaded and verified
permutation.py  the shuffled order of very many windows, without a list of them
"""

from tinygrad_llm.datasets.batches import BatchStream, DataLoader, Dataset, Order, mixture
from tinygrad_llm.datasets.checks import DataError, check_ids, plain, reading
from tinygrad_llm.datasets.corpora import CORPORA, corpus_hash, load_corpus, read_corpus, read_stretches, uncut
from tinygrad_llm.datasets.encode import encode_file
from tinygrad_llm.datasets.instructions import Entry, Pair, cut_parts, question, read_instructions, read_preferences
from tinygrad_llm.datasets.messages import Message, balance, read_messages, repeated, split_messages
from tinygrad_llm.datasets.permutation import Permutation
from tinygrad_llm.datasets.tokens import TokenFile
from tinygrad_llm.datasets.translations import Translated, read_translations, split_translations
from tinygrad_llm.datasets.windows import SlidingWindows, split

__all__ = [
    "CORPORA", "BatchStream", "DataError", "DataLoader", "Dataset", "Entry", "Message", "Order", "Pair",
    "Permutation", "SlidingWindows", "TokenFile", "Translated", "balance", "check_ids", "corpus_hash",
    "cut_parts", "encode_file", "load_corpus", "mixture", "plain", "question", "read_corpus",
    "read_instructions", "read_messages", "read_preferences", "read_stretches", "read_translations", "reading",
    "repeated", "split", "split_messages", "split_translations", "uncut",
]  # fmt: skip
