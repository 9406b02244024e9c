"""Text ↔ ids. Read the files in this order; each step repairs what the step before it cannot do.

    words.py        A word is a token. Easy to read, but a word outside the vocabulary has no id.
    characters.py   A character is a token. Nothing of a known alphabet is lost, but the rows of ids are long.
    pattern.py      How GPT-2 splits a text into words. Read `split_words`; the cuts before it only save time.
    merge.py        Byte-pair encoding of one word. `merge_steps` is the plain loop; the rest does the same faster.
    train.py        Where the merges come from: join the most frequent pair of neighbors, again and again.
    bpe.py          `Tokenizer`: words → bytes → merged tokens → ids, and back.
    cache.py        The fast path of `Tokenizer.encode`: chunks and words whose ids are already known.

The other files serve these: byte_ids (GPT-2's order of the bytes), special (special tokens in texts from outside),
streaming (text while it is generated), files and gpt2_files (reading and writing), checks (bad texts and ids).
"""

import os
from typing import TypeAlias

from tinygrad_llm.tokenizer.bpe import Tokenizer
from tinygrad_llm.tokenizer.characters import CharTokenizer
from tinygrad_llm.tokenizer.checks import TokenizerError
from tinygrad_llm.tokenizer.files import StrPath, read_document
from tinygrad_llm.tokenizer.special import Special, encode_text, refuse_special
from tinygrad_llm.tokenizer.streaming import StreamDecoder
from tinygrad_llm.tokenizer.words import SimpleTokenizerV1, SimpleTokenizerV2

__all__ = [
    "AnyTokenizer",
    "CharTokenizer",
    "SimpleTokenizerV1",
    "SimpleTokenizerV2",
    "Special",
    "StreamDecoder",
    "Tokenizer",
    "TokenizerError",
    "encode_text",
    "load_tokenizer",
    "refuse_special",
]


AnyTokenizer: TypeAlias = Tokenizer | CharTokenizer


def load_tokenizer(path: StrPath) -> AnyTokenizer:
    """Load a tokenizer file of either kind.

    Args:     path: a file that `save` wrote; or a folder with `tokenizer.json`, or with GPT-2's two files under
              OpenAI's names (vocab.bpe, encoder.json) or Hugging Face's (merges.txt, vocab.json).
    Raises:   TokenizerError: the file cannot be read or is not valid; the message begins with its path.
    """
    if os.path.isdir(path):
        for merges, ids in (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json")):
            if os.path.exists(os.path.join(path, merges)):
                return Tokenizer.from_gpt2_files(os.path.join(path, merges), os.path.join(path, ids))
        path = os.path.join(path, "tokenizer.json")
    document = read_document(path)
    kind = Tokenizer if document["kind"] == Tokenizer.kind else CharTokenizer
    return kind.from_document(document, path)
