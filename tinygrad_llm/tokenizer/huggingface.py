"""Hugging Face's tokenizer files: tokenizer.json, and the small files next to it.

tokenizer.json describes a pipeline, and many of its parts can differ from GPT-2's. This package reads the pipelines
that it can compute: byte-level BPE with GPT-2's pattern, and single characters. Any other choice would silently give
different ids, so it is refused, and the message names it.

    tokenizer.json                                  the pipeline, the merges, all ids
    added_tokens.json                               ids of tokens added to merges.txt and vocab.json
    special_tokens_map.json, tokenizer_config.json  "eos_token": the token that ends a text
    config.json                                     "eos_token_id": its id
"""

import json
import os
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tinygrad_llm.tokenizer.bpe import END_OF_TEXT, Tokenizer
from tinygrad_llm.tokenizer.characters import CharTokenizer
from tinygrad_llm.tokenizer.checks import TokenizerError
from tinygrad_llm.tokenizer.files import StrPath, read_object, write_text
from tinygrad_llm.tokenizer.gpt2_files import (
    check_ids_of_names,
    find_special_tokens,
    merge_names,
    parse_merges,
    token_ids,
)

ADDED = "added_tokens.json"
_CONFIGS = ("special_tokens_map.json", "tokenizer_config.json", "config.json")

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}

# The values that a field may have; a field that is missing has the first one.
_NOTHING = (None, "", False, 0.0)
_MODEL = {
    "type": ("BPE",),
    "dropout": _NOTHING,
    "continuing_subword_prefix": _NOTHING,
    "end_of_word_suffix": _NOTHING,
    "byte_fallback": _NOTHING,
    "ignore_merges": _NOTHING,
}
_ADDED_TOKEN = dict.fromkeys(("single_word", "lstrip", "rstrip"), _NOTHING)
_PRE_TOKENIZER = {"type": ("ByteLevel",), "add_prefix_space": (False,), "use_regex": (True,)}


def is_huggingfaces(document: Any) -> bool:
    """Return whether a JSON object is a tokenizer.json of Hugging Face."""
    return isinstance(document, dict) and "model" in document and "format" not in document


def from_huggingface(document: dict[str, Any], path: StrPath) -> Tokenizer | CharTokenizer:
    """Build a tokenizer from the object in a tokenizer.json of Hugging Face; the files next to it name the last token.

    Raises:   TokenizerError: a field asks for something that this package does not compute; a damaged file.
    """
    try:
        model, added = document["model"], document.get("added_tokens") or []
        _check(path, "model", model, _MODEL)
        _check(path, "normalizer", {"normalizer": document.get("normalizer")}, {"normalizer": _NOTHING})
        for token in added:
            _check(path, f"added token {token['content']!a}", token, _ADDED_TOKEN)
        processor = (document.get("post_processor") or {}).get("type", "ByteLevel")
        _check(path, "post_processor", {"type": processor}, {"type": ("ByteLevel",)})
        merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        ids = dict(model["vocab"])
        for token in added:
            if ids.setdefault(token["content"], token["id"]) != token["id"]:
                raise TokenizerError(
                    f"{path}: {token['content']!a} has two ids: {ids[token['content']]}, {token['id']}"
                )
        check_ids_of_names(path, ids)
        splitter = document.get("pre_tokenizer")
        if splitter is None and not merges and all(len(name) == 1 for name in ids):
            return _characters(path, ids)
        _check(path, "pre_tokenizer", splitter or {"type": None}, _PRE_TOKENIZER)
        pairs = parse_merges(merges, f"{path}: merge")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if isinstance(error, TokenizerError):
            raise
        raise TokenizerError(f"{path}: not a tokenizer.json of Hugging Face: {error!r}") from None
    special_tokens = find_special_tokens(path, ids, pairs, path)
    try:
        return Tokenizer(pairs, special_tokens, end_of_text_in(Path(path).parent, special_tokens))
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from None


def end_of_text_in(folder: Path, special_tokens: Mapping[str, int]) -> str:
    """Return the token that ends a text, as a file of the folder names it; `<|endoftext|>` if none does."""
    names = {token_id: token for token, token_id in special_tokens.items()}
    for name in _CONFIGS:
        if os.path.exists(folder / name):
            fields = read_object(folder / name)
            fields = fields if isinstance(fields, dict) else {}
            number = fields.get("eos_token_id")
            token = fields.get("eos_token") or (names.get(number) if type(number) is int else None)
            token = token.get("content") if isinstance(token, dict) else token
            if isinstance(token, str):
                return token
    return END_OF_TEXT


def save_huggingface(folder: Path, tokenizer: Tokenizer | CharTokenizer) -> None:
    """Write tokenizer.json and tokenizer_config.json, which `transformers.AutoTokenizer` reads, into a folder.

    Raises:   TokenizerError: a file cannot be written; two tokens have the same name in the file.
    """
    path = folder / "tokenizer.json"
    if isinstance(tokenizer, CharTokenizer):
        vocab, merges = {character: index for index, character in enumerate(tokenizer.characters)}, []
    else:
        vocab, merges = token_ids(path, tokenizer.merges, tokenizer.special_tokens), merge_names(tokenizer.merges)
    byte_level = None if isinstance(tokenizer, CharTokenizer) else _BYTE_LEVEL
    no = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    tokens = [
        {"id": number, "content": token, **no, "special": True} for token, number in tokenizer.special_tokens.items()
    ]
    model: dict[str, Any] = dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"))
    model |= {"type": "BPE", "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    document: dict[str, Any] = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens}
    document |= {"normalizer": None, "pre_tokenizer": byte_level, "post_processor": byte_level}
    document |= {"decoder": byte_level or {"type": "Fuse"}, "model": {**model, "vocab": vocab, "merges": merges}}
    write_text(path, json.dumps(document))
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    if tokenizer.eot_token is not None:
        config["eos_token"] = config["bos_token"] = getattr(tokenizer, "end_of_text", None)
    write_text(folder / "tokenizer_config.json", json.dumps(config))


def _characters(path: StrPath, ids: dict[str, int]) -> CharTokenizer:
    if sorted(ids.values()) != list(range(len(ids))):
        raise TokenizerError(f"{path}: the ids of its {len(ids)} characters must be 0 … {len(ids) - 1}")
    return CharTokenizer("".join(sorted(ids, key=ids.__getitem__)))


def _check(path: StrPath, where: str, fields: dict[str, Any], allowed: dict[str, tuple[Any, ...]]) -> None:
    for name, values in allowed.items():
        value = fields.get(name, values[0])
        if not any(value is known or (value == known and type(value) is type(known)) for known in values):
            raise TokenizerError(
                f"{path}: {where}: {name} is {reprlib.repr(value)}, and this package computes only "
                f"{values[0]!r}: use a tokenizer of byte-level BPE with GPT-2's pattern"
            )
