"""Text ↔ ids. Read the files in this order; each step repairs what the step before it cannot do.

    words.py        A word is a token. Easy to read, but a word outside the vocabulary has no id.
    characters.py   A character is a token. Text in a known alphabet comes back, but the rows of ids are long.
    pattern.py      How GPT-2 splits a text into words. Read `split_words`; the cuts before it only save time.
    merge.py        Byte-pair encoding of one word. `merge_steps` is the plain loop; the rest does the same faster.
    train.py        Where the merges come from: join the most frequent pair of neighbors, again and again.
    bpe.py          `Tokenizer`: words → bytes → merged tokens → ids, and back.
    basic.py        How BERT splits a text into words, which are cleaned on the way.
    wordpiece.py    `WordPieceTokenizer`, BERT's: the longest pieces of a word, instead of merges.
    cache.py        The fast paths of `Tokenizer`: words whose ids are already known, and joining the bytes of many ids.
    table.py        Looking up all words of a long text at once, as arrays.

The other files serve these: base (methods that all kinds share), byte_ids (GPT-2's order of the bytes), special
(special tokens in texts from outside), streaming (text while it is generated), files, gpt2_files and huggingface
(reading and writing), checks (bad texts and ids).
"""

import json
import os
from pathlib import Path
from typing import TypeAlias

from tinygrad_llm.tokenizer.bpe import Tokenizer
from tinygrad_llm.tokenizer.characters import CharTokenizer
from tinygrad_llm.tokenizer.checks import TokenizerError
from tinygrad_llm.tokenizer.files import StrPath, check_document, read_object
from tinygrad_llm.tokenizer.huggingface import (
    ADDED,
    VOCAB,
    cases_of,
    end_of_text_in,
    from_huggingface,
    is_huggingfaces,
    save_huggingface,
)
from tinygrad_llm.tokenizer.special import Special, encode_text, refuse_special
from tinygrad_llm.tokenizer.streaming import StreamDecoder
from tinygrad_llm.tokenizer.wordpiece import WordPieceTokenizer
from tinygrad_llm.tokenizer.words import SimpleTokenizerV1, SimpleTokenizerV2

__all__ = [
    "AnyTokenizer", "CharTokenizer", "SimpleTokenizerV1", "SimpleTokenizerV2", "Special", "StreamDecoder",
    "Tokenizer", "TokenizerError", "WordPieceTokenizer", "encode_text", "load_tokenizer", "refuse_special",
    "save_huggingface", "vocabulary_hash",
]  # fmt: skip


AnyTokenizer: TypeAlias = Tokenizer | CharTokenizer | WordPieceTokenizer
KINDS: dict[str, type[AnyTokenizer]] = {kind.kind: kind for kind in (Tokenizer, CharTokenizer, WordPieceTokenizer)}


def load_tokenizer(path: StrPath) -> AnyTokenizer:
    """Load a tokenizer file of any kind.

    Args:     path: a file that `save` wrote, a tokenizer.json of Hugging Face, or BERT's vocab.txt; or a folder with
              one of them, or with GPT-2's two files under OpenAI's names (vocab.bpe, encoder.json) or Hugging Face's
              (merges.txt, vocab.json). The tokenizer_config.json next to a vocab.txt says whether there is lower case.
    Raises:   TokenizerError: the file cannot be read or is not valid; the message begins with its path.
    """
    if os.path.isdir(path):
        folder = Path(path)
        path = folder / "tokenizer.json"
        for merges, ids in (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json")):
            if not os.path.lexists(path) and (folder / merges).exists():
                added = folder / ADDED if (folder / ADDED).exists() else None
                tokenizer = Tokenizer.from_gpt2_files(folder / merges, folder / ids, added)
                tokenizer.end_of_text = end_of_text_in(folder, tokenizer.special_tokens)
                return tokenizer
        if not os.path.lexists(path) and (folder / VOCAB).exists():
            path = folder / VOCAB
    if os.path.basename(os.fspath(path)) == VOCAB:
        return WordPieceTokenizer.from_vocab(path, *cases_of(Path(path).parent))
    document = read_object(path)
    if is_huggingfaces(document):
        return from_huggingface(document, path)
    document = check_document(document, path)
    return KINDS[document["kind"]].from_document(document, path)


def vocabulary_hash(tokenizer: AnyTokenizer) -> str:
    """Return the SHA-256 of the vocabulary: each token's length and bytes, in order of ids, then the special tokens.

    For WordPiece, also whether it has lower case, and accents.
    """
    import hashlib  # here, because it takes longer to load than most of this package

    digest = hashlib.sha256()
    for token_id in range(tokenizer.n_vocab):
        token = tokenizer.decode_bytes([token_id])
        digest.update(len(token).to_bytes(8, "little") + token)
    digest.update(json.dumps(tokenizer.special_tokens).encode())
    if isinstance(tokenizer, WordPieceTokenizer):
        digest.update(json.dumps([tokenizer.lowercase, tokenizer.strip_accents]).encode())
    return digest.hexdigest()
