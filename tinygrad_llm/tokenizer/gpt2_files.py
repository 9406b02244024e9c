"""GPT-2's two files: the merges (vocab.bpe or merges.txt) and the id of each token (encoder.json or vocab.json).

The merges file is a line `#version: …`, then one line per merge: two tokens and a space between them. Both files write
a byte as one printable character (see `byte_ids`).
"""

import json
import os
import reprlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tinygrad_llm.tokenizer.byte_ids import BYTE_NAMES
from tinygrad_llm.tokenizer.checks import TokenizerError
from tinygrad_llm.tokenizer.files import StrPath, read_object, read_text, write_text
from tinygrad_llm.tokenizer.merge import Pair


def read_merges(path: StrPath) -> list[Pair]:
    """Read a merges file as pairs of ids; pair number k makes id 256 + k.

    Only the first line is a header: a later `# #` is a merge. Lines end with "\\n" or "\\r\\n".

    Raises:   TokenizerError: the first defect, after the path and the line.
    """
    header, *lines = read_text(path).removesuffix("\n").split("\n")
    if not header.startswith("#version") or "\r" in header.removesuffix("\r"):
        raise TokenizerError(f"{path}, line 1: expected a header that starts with #version, and lines that end in \\n")
    ids = {name: token_id for token_id, name in enumerate(BYTE_NAMES)}
    merges: list[Pair] = []
    for number, line in enumerate(lines, start=2):
        names = line.removesuffix("\r").split(" ")
        if len(names) != 2:
            raise TokenizerError(f"{path}, line {number}: expected two tokens with a space between")
        for name in names:
            if name not in ids:
                raise TokenizerError(f"{path}, line {number}: no line above makes the token {name!a}")
        made = "".join(names)
        if made in ids:
            raise TokenizerError(f"{path}, line {number}: the token {made!a} is already made above")
        merges.append((ids[names[0]], ids[names[1]]))
        ids[made] = len(ids)
    return merges


def read_special_tokens(encoder_json: StrPath, merges: Iterable[Pair], vocab_bpe: StrPath) -> list[str]:
    """Check the ids of a file against the merges, and return the tokens that no merge makes: the special ones.

    Args:     merges: those of the file `vocab_bpe`, which errors name.
    Raises:   TokenizerError: the first defect, after the path and the entry.
    """
    given = _read_ids(encoder_json)
    by_id = {token_id: name for name, token_id in given.items()}
    names = token_names(merges)
    for token_id, name in enumerate(names):
        if name not in given:
            raise TokenizerError(f"{encoder_json}: no entry for {name!a}, token {token_id} of {vocab_bpe}")
        if given[name] != token_id:
            first = by_id.get(0)
            hint = "" if first in names else f" ({first!a} comes first; special tokens must come last)"
            raise TokenizerError(
                f"{encoder_json}: the id of {name!a} is {given[name]}, but {token_id} in {vocab_bpe}{hint}"
            )
    specials = range(len(names), len(given))
    if gap := next((token_id for token_id in specials if token_id not in by_id), None):
        wrong = next(name for name, token_id in given.items() if not 0 <= token_id < len(given))
        raise TokenizerError(
            f"{encoder_json}: no entry has the id {gap}, but {wrong!a} has {given[wrong]}; ids must be 0 … n − 1"
        )
    return [by_id[token_id] for token_id in specials]


def _read_ids(encoder_json: StrPath) -> dict[str, int]:
    """Read an object of token → id, where no id occurs twice."""
    given: Any = read_object(encoder_json)
    if not isinstance(given, dict):
        raise TokenizerError(f"{encoder_json}: expected an object, token → id")
    names: dict[int, str] = {}
    for name, token_id in given.items():
        if type(token_id) is not int:
            raise TokenizerError(f"{encoder_json}: the id of {name!a} must be an integer, got {reprlib.repr(token_id)}")
        if token_id in names:
            raise TokenizerError(f"{encoder_json}: {names[token_id]!a} and {name!a} have the same id {token_id}")
        names[token_id] = name
    return given


def write_gpt2_files(folder: StrPath, merges: Iterable[Pair], special_tokens: Mapping[str, int]) -> None:
    """Write `vocab.bpe` and `encoder.json` into a folder, which is made if it is missing.

    Raises:   TokenizerError: a file cannot be written; two tokens have the same name in these files.
    """
    merges = list(merges)
    names = token_names(merges)
    ids: dict[str, int] = {}
    for token_id, name in enumerate([*names, *special_tokens]):
        if ids.setdefault(name, token_id) != token_id:
            raise TokenizerError(
                f"{folder}: GPT-2's files would write {name!a} for token {ids[name]} and token {token_id}; use save"
            )
    lines = [f"{names[left]} {names[right]}\n" for left, right in merges]
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise TokenizerError(f"{folder}: cannot be made: {error.strerror}") from error
    write_text(Path(folder) / "vocab.bpe", "".join(["#version: 0.2\n", *lines]))
    write_text(Path(folder) / "encoder.json", json.dumps(ids))


def token_names(merges: Iterable[Pair]) -> list[str]:
    """Return how GPT-2's files write the bytes and what the merges make, in the order of the ids."""
    names = list(BYTE_NAMES)
    for left, right in merges:
        names.append(names[left] + names[right])
    return names
