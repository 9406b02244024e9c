"""Text ↔ ids, as a staircase: words, words with an unknown one, characters, byte-level BPE as in GPT-2."""

import os
from typing import TypeAlias

from tinygrad_llm.tokenizer.bpe import Tokenizer
from tinygrad_llm.tokenizer.characters import CharTokenizer
from tinygrad_llm.tokenizer.checks import TokenizerError
from tinygrad_llm.tokenizer.files import StrPath, read_document
from tinygrad_llm.tokenizer.streaming import StreamDecoder
from tinygrad_llm.tokenizer.words import SimpleTokenizerV1, SimpleTokenizerV2

__all__ = [
    "AnyTokenizer",
    "CharTokenizer",
    "SimpleTokenizerV1",
    "SimpleTokenizerV2",
    "StreamDecoder",
    "Tokenizer",
    "TokenizerError",
    "load_tokenizer",
]


AnyTokenizer: TypeAlias = Tokenizer | CharTokenizer


def load_tokenizer(path: StrPath) -> AnyTokenizer:
    """Read a tokenizer file of either kind; or, from a folder, its tokenizer.json, or GPT-2's pair under either name.

    Raises:   TokenizerError: whatever is wrong with the file, after its path.
    """
    if os.path.isdir(path):
        for merges, ids in (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json")):
            if os.path.exists(os.path.join(path, merges)):
                return Tokenizer.from_gpt2_files(os.path.join(path, merges), os.path.join(path, ids))
        path = os.path.join(path, "tokenizer.json")
    document = read_document(path)
    kind = Tokenizer if document["kind"] == Tokenizer.kind else CharTokenizer
    return kind.from_document(document, path)
