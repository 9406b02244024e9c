"""The tokenizer next to a model's weights: ours, Hugging Face's, or the pair of files that GPT-2 has."""

import os
from pathlib import Path
from typing import Any

from tinygrad_llm.formats import load_safetensors
from tinygrad_llm.storage.atomic import rename
from tinygrad_llm.storage.files import LoadError, parse_json
from tinygrad_llm.tokenizer import AnyTokenizer, Tokenizer, load_tokenizer, save_huggingface, vocabulary_hash
from tinygrad_llm.tokenizer.files import read_object
from tinygrad_llm.tokenizer.huggingface import VOCAB
from tinygrad_llm.weights.find import find_weights, folder_of, is_checkpoint

_TOKENIZER = "tokenizer.json"
_RUN = "run.json"  # of a run: the hash of the tokenizer that it was trained with
_PAIRS = (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json"))  # OpenAI's names, then Hugging Face's
_GPT2_TOKENS, _PADDED_GPT2 = 50257, 50304  # rows; nanoGPT has the latter
_MULTIPLES = [2**k for k in range(1, 11)]  # to which programs round the rows of a vocabulary up


def tokenizer_for(path: str | Path, config: Any) -> AnyTokenizer:
    """Return the tokenizer next to a model's weights; without one, GPT-2's for a model of 50,257 tokens.

    Args:     path: as for `read_pretrained`. config: of the model; its vocab_size is compared.
    Raises:   LoadError: there is none; its number of tokens is not the model's; it is not the one that the run was
              trained with. TokenizerError: it is damaged, or cannot be read.
    """
    rows, tokenizer = config.vocab_size, find_tokenizer(path)
    if tokenizer is None:
        if not _GPT2_TOKENS <= rows <= _PADDED_GPT2:
            raise LoadError(f"{path}: {_TOKENIZER} is missing, which belongs next to the weights: copy it there")
        tokenizer = Tokenizer.gpt2()
    fitting = fit(tokenizer, rows)
    if fitting is None:
        raise LoadError(
            f"{path}: the tokenizer has {tokenizer.n_vocab} tokens and the model {rows}: they do not belong together"
        )
    check_stated(path, tokenizer, f"{path}: {_TOKENIZER}", "put that one back")
    return fitting


def check_stated(path: str | Path, tokenizer: AnyTokenizer, name: str, mend: str) -> None:
    """Check that a tokenizer is the one that the run at this path was trained with, where a run states it.

    Args:     name, mend: how the message calls the tokenizer, and its end.
    Raises:   LoadError: no model there; it is another one.
    """
    stated = _stated_hash(find_weights(path))
    if stated is not None and stated != vocabulary_hash(tokenizer):
        raise LoadError(f"{name} is not the one that the run was trained with: {mend}")


def fit(tokenizer: AnyTokenizer, rows: int) -> AnyTokenizer | None:
    """Return the tokenizer for a model with this number of rows; None if they do not belong together.

    A model may have more rows than its tokenizer has tokens, if they are the next multiple of a power of 2: others add
    such rows for speed. It may have fewer rows, if the tokens without a row are special and were added at the end:
    those are left out.
    """
    tokens = tokenizer.n_vocab
    if rows == tokens or rows in [-(-tokens // multiple) * multiple for multiple in _MULTIPLES]:
        return tokenizer
    kept = {token: number for token, number in tokenizer.special_tokens.items() if number < rows}
    lost = tokenizer.special_tokens.keys() - kept
    if not isinstance(tokenizer, Tokenizer) or tokens - len(lost) != rows or tokenizer.end_of_text in lost:
        return None
    return Tokenizer(tokenizer.merges, kept, tokenizer.end_of_text)


def find_tokenizer(path: str | Path) -> AnyTokenizer | None:
    """Return the tokenizer next to a model's weights: tokenizer.json, GPT-2's pair or vocab.txt; else None.

    Raises:   LoadError: no model there. TokenizerError: a damaged file, or one that cannot be read.
    """
    folder = folder_of(find_weights(path))
    names = (_TOKENIZER, *(merges for merges, _ in _PAIRS), VOCAB)
    return load_tokenizer(folder) if any(os.path.lexists(folder / name) for name in names) else None


def write_tokenizer(folder: str | Path, tokenizer: AnyTokenizer, form: str = "safetensors") -> None:
    """Write a tokenizer next to a model of a form, in the files where others look for it.

    Hugging Face's form gets tokenizer.json, and the pair for old versions of transformers, or the vocab.txt of
    WordPiece; OpenAI's the pair; the others, and what OpenAI's pair cannot hold, our tokenizer.json.

    Raises:   TokenizerError: a file cannot be written, or two tokens would be the same in it.
    """
    folder = Path(folder)
    pair = isinstance(tokenizer, Tokenizer) and form in ("openai", "huggingface")
    if form == "huggingface":
        save_huggingface(folder, tokenizer)
    elif not pair:
        tokenizer.save(folder / _TOKENIZER)
    if not isinstance(tokenizer, Tokenizer) or not pair:
        return
    tokenizer.save_gpt2(folder)
    if form == "huggingface":
        for openais, theirs in zip(*_PAIRS, strict=True):
            rename(folder / openais, folder / theirs)


def _stated_hash(weights: Path) -> str | None:
    """Return the hash of the tokenizer that these weights were trained with; None where no run states it."""
    run = folder_of(weights) / _RUN
    try:
        if is_checkpoint(weights):
            identity = parse_json(str(weights), load_safetensors(weights, mmap=True)[1]["metadata"].encode())
        elif run.is_file():
            identity = read_object(run)["identity"]
        else:
            return None
        return str(identity["tokenizer"]["sha256"])
    except (KeyError, TypeError):
        return None
