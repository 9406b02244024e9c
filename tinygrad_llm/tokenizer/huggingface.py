"""Hugging Face's tokenizer files: tokenizer.json, and the small files next to it.

tokenizer.json describes a pipeline, and many of its parts can differ from GPT-2's. This package reads the pipelines
that it can compute: byte-level BPE with GPT-2's pattern, BERT's WordPiece, and single characters. Any other choice
would silently give different ids, so it is refused, and the message names it.

    tokenizer.json                                  the pipeline, the merges, all ids
    added_tokens.json                               ids of tokens added to merges.txt and vocab.json
    special_tokens_map.json, tokenizer_config.json  "eos_token": the token that ends a text
    config.json                                     "eos_token_id": its id
    vocab.txt                                       the tokens of WordPiece, one a line; tokenizer_config.json says
                                                    whether they have lower case ("do_lower_case", "strip_accents")
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
from tinygrad_llm.tokenizer.wordpiece import CLS, CONTINUES, LONGEST_WORD, MASK, PAD, SEP, UNK, WordPieceTokenizer

ADDED = "added_tokens.json"
VOCAB = "vocab.txt"
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
_WORDPIECE = {
    "unk_token": (UNK,),
    "continuing_subword_prefix": (CONTINUES,),
    "max_input_chars_per_word": (LONGEST_WORD,),
}
_BERT = {"type": ("BertNormalizer",), "clean_text": (True,), "handle_chinese_chars": (True,)}


def is_huggingfaces(document: Any) -> bool:
    """Return whether a JSON object is a tokenizer.json of Hugging Face."""
    return isinstance(document, dict) and "model" in document and "format" not in document


def from_huggingface(document: dict[str, Any], path: StrPath) -> Tokenizer | CharTokenizer | WordPieceTokenizer:
    """Build a tokenizer from the object in a tokenizer.json of Hugging Face; the files next to it name the last token.

    Raises:   TokenizerError: a field asks for something that this package does not compute; a damaged file.
    """
    try:
        model, added = document["model"], document.get("added_tokens") or []
        if model.get("type") == "WordPiece":
            return _wordpiece(path, document)
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


def cases_of(folder: Path) -> tuple[bool, bool | None]:
    """Return lowercase and strip_accents, as the folder's tokenizer_config.json says; true and None if it does not."""
    path = folder / "tokenizer_config.json"
    fields = read_object(path) if os.path.exists(path) else {}
    fields = fields if isinstance(fields, dict) else {}
    lower, strip = fields.get("do_lower_case", True), fields.get("strip_accents")
    if type(lower) is not bool or type(strip) not in (bool, type(None)):
        raise TokenizerError(f"{path}: do_lower_case must be true or false, and strip_accents that or null")
    return lower, strip


def save_huggingface(folder: Path, tokenizer: Tokenizer | CharTokenizer | WordPieceTokenizer) -> None:
    """Write tokenizer.json and tokenizer_config.json, which `transformers.AutoTokenizer` reads, into a folder.

    WordPiece gets its vocab.txt as well.

    Raises:   TokenizerError: a file cannot be written; two tokens have the same name in the file.
    """
    if isinstance(tokenizer, WordPieceTokenizer):
        _save_wordpiece(folder, tokenizer)
        return
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


def _wordpiece(path: StrPath, document: dict[str, Any]) -> WordPieceTokenizer:
    model, normalizer = document["model"], document.get("normalizer") or {"type": None}
    _check(path, "model", model, _WORDPIECE, _BERTS)
    _check(path, "normalizer", normalizer, _BERT, _BERTS)
    _check(
        path, "pre_tokenizer", document.get("pre_tokenizer") or {"type": None}, {"type": ("BertPreTokenizer",)}, _BERTS
    )
    ids: dict[str, int] = model["vocab"]
    for token in document.get("added_tokens") or []:
        if ids.get(token["content"]) != token["id"]:
            raise TokenizerError(f"{path}: added token {token['content']!a} is not in the vocabulary with its id")
    if sorted(ids.values()) != list(range(len(ids))):
        raise TokenizerError(f"{path}: the ids of its {len(ids)} tokens must be 0 … {len(ids) - 1}")
    cases = normalizer.get("lowercase", True), normalizer.get("strip_accents")
    if type(cases[0]) is not bool or type(cases[1]) not in (bool, type(None)):
        raise TokenizerError(f"{path}: normalizer: lowercase must be true or false, and strip_accents that or null")
    try:
        return WordPieceTokenizer(sorted(ids, key=ids.__getitem__), *cases)
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from None


def _save_wordpiece(folder: Path, tokenizer: WordPieceTokenizer) -> None:
    ids, specials = {token: i for i, token in enumerate(tokenizer.vocabulary)}, tokenizer.special_tokens
    no = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    added = [{"id": number, "content": token, **no, "special": True} for token, number in specials.items()]
    cases = {"strip_accents": tokenizer.strip_accents, "lowercase": tokenizer.lowercase}
    around = {"type": "BertProcessing", "sep": [SEP, specials.get(SEP)], "cls": [CLS, specials.get(CLS)]}
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, **cases},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": around if {SEP, CLS} <= specials.keys() else None,
        "decoder": {"type": "WordPiece", "prefix": CONTINUES, "cleanup": True},
        "model": {"type": "WordPiece", **{name: values[0] for name, values in _WORDPIECE.items()}, "vocab": ids},
    }
    write_text(folder / "tokenizer.json", json.dumps(document))
    config: dict[str, Any] = {"tokenizer_class": "BertTokenizer", "do_lower_case": tokenizer.lowercase}
    config |= {"strip_accents": tokenizer.strip_accents, "tokenize_chinese_chars": True}
    names = {"pad_token": PAD, "unk_token": UNK, "cls_token": CLS, "sep_token": SEP, "mask_token": MASK}
    config |= {name: token for name, token in names.items() if token in specials}
    write_text(folder / "tokenizer_config.json", json.dumps(config))
    tokenizer.save_vocab(folder / VOCAB)


def _characters(path: StrPath, ids: dict[str, int]) -> CharTokenizer:
    if sorted(ids.values()) != list(range(len(ids))):
        raise TokenizerError(f"{path}: the ids of its {len(ids)} characters must be 0 … {len(ids) - 1}")
    return CharTokenizer("".join(sorted(ids, key=ids.__getitem__)))


_GPT2S = "byte-level BPE with GPT-2's pattern"
_BERTS = "WordPiece with BERT's settings"


def _check(
    path: StrPath, where: str, fields: dict[str, Any], allowed: dict[str, tuple[Any, ...]], use: str = _GPT2S
) -> None:
    for name, values in allowed.items():
        value = fields.get(name, values[0])
        if not any(value is known or (value == known and type(value) is type(known)) for known in values):
            raise TokenizerError(
                f"{path}: {where}: {name} is {reprlib.repr(value)}, and this package computes only "
                f"{values[0]!r}: use a tokenizer of {use}"
            )
