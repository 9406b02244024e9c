"""The tokenizer next to a model's weights: ours, or the pair of files that GPT-2 has."""

import os
from pathlib import Path
from typing import Any

from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.tokenizer import AnyTokenizer, CharTokenizer, Tokenizer, load_tokenizer
from tinygrad_llm.tokenizer.files import read_object
from tinygrad_llm.weights.find import find_weights, folder_of

_TOKENIZER = "tokenizer.json"
_PAIRS = (("vocab.bpe", "encoder.json"), ("merges.txt", "vocab.json"))  # OpenAI's names, then Hugging Face's
_GPT2_TOKENS = 50257


def tokenizer_for(path: str | Path, config: Any) -> AnyTokenizer:
    """Return the tokenizer next to a model's weights; without one, GPT-2's for a model of 50,257 tokens.

    Args:     path: as for `read_pretrained`. config: of the model; its vocab_size is compared.
    Raises:   LoadError: there is none, or its number of tokens is not the model's. TokenizerError: it is damaged.
    """
    tokenizer = find_tokenizer(path)
    if tokenizer is None:
        if config.vocab_size == _GPT2_TOKENS:
            return Tokenizer.gpt2()
        if (folder_of(find_weights(path)) / _TOKENIZER).exists():
            raise LoadError(f"{path}: {_TOKENIZER} is Hugging Face's: put merges.txt and vocab.json next to it")
        raise LoadError(f"{path}: {_TOKENIZER} is missing, which belongs next to the weights: copy it there")
    if tokenizer.n_vocab != config.vocab_size:
        raise LoadError(
            f"{path}: the tokenizer has {tokenizer.n_vocab} tokens and the model {config.vocab_size}: "
            "they do not belong together"
        )
    return tokenizer


def find_tokenizer(path: str | Path) -> AnyTokenizer | None:
    """Return the tokenizer next to a model's weights: our tokenizer.json, or GPT-2's pair; None if neither is there.

    Hugging Face's tokenizer.json is not read: the pair next to it says the same.

    Raises:   LoadError: no model there. TokenizerError: a damaged file.
    """
    folder = folder_of(find_weights(path))
    own = folder / _TOKENIZER
    if os.path.lexists(own) and not _is_huggingfaces(own):
        return load_tokenizer(own)
    return load_tokenizer(folder) if any((folder / merges).exists() for merges, _ in _PAIRS) else None


def write_tokenizer(folder: str | Path, tokenizer: AnyTokenizer, form: str = "safetensors") -> None:
    """Write a tokenizer next to a model of a form: GPT-2's pair where others look for it, else our tokenizer.json.

    Raises:   TokenizerError: a file cannot be written, or two tokens would be the same in it.
    """
    folder = Path(folder)
    if form not in ("openai", "huggingface") or isinstance(tokenizer, CharTokenizer):  # only we can read characters
        tokenizer.save(folder / _TOKENIZER)
        return
    tokenizer.save_gpt2(folder)
    if form == "huggingface":
        for openais, theirs in zip(*_PAIRS, strict=True):
            os.replace(folder / openais, folder / theirs)


def _is_huggingfaces(tokenizer: Path) -> bool:
    fields = read_object(tokenizer)
    return isinstance(fields, dict) and "model" in fields and "format" not in fields
