"""GPT-2's two files: the merges (vocab.bpe or merges.txt) and the id of each token (encoder.json or vocab.json).

The merges file is a line `#version: …`, then one line per merge: two tokens and a space between them. Both files write
a byte as one printable character (see `byte_ids`).
"""

import json
import reprlib
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from typing import Any

from tinygrad_llm.tokenizer.byte_ids import BYTE_NAMES
from tinygrad_llm.tokenizer.checks import TokenizerError
from tinygrad_llm.tokenizer.files import StrPath, make_folder, read_object, read_text, write_text
from tinygrad_llm.tokenizer.merge import Pair


def read_merges(path: StrPath) -> list[Pair]:
    """Read a merges file as pairs of ids; pair number k makes id 256 + k.

    Only the first line is a header: a later `# #` is a merge. Lines end with "\\n" or "\\r\\n".

    Raises:   TokenizerError: the first defect, after the path and the line.
    """
    header, *lines = read_text(path).removesuffix("\n").split("\n")
    if not header.startswith("#version") or "\r" in header.removesuffix("\r"):
        raise TokenizerError(f"{path}, line 1: expected a header that starts with #version, and lines that end in \\n")
    return parse_merges((line.removesuffix("\r").split(" ") for line in lines), f"{path}, line", first=2)


def parse_merges(merges: Iterable[list[str]], where: str, first: int = 0) -> list[Pair]:
    """Turn merges of names into pairs of ids; errors begin with `where` and the number of the merge."""
    ids = {name: token_id for token_id, name in enumerate(BYTE_NAMES)}
    pairs: list[Pair] = []
    for number, names in enumerate(merges, start=first):
        if len(names) != 2:
            raise TokenizerError(f"{where} {number}: expected two tokens with a space between")
        for name in names:
            if name not in ids:
                raise TokenizerError(f"{where} {number}: no line above makes the token {name!a}")
        made = "".join(names)
        if made in ids:
            raise TokenizerError(f"{where} {number}: the token {made!a} is already made above")
        pairs.append((ids[names[0]], ids[names[1]]))
        ids[made] = len(ids)
    return pairs


def find_special_tokens(
    path: StrPath, ids: Mapping[str, int], merges: Iterable[Pair], where: StrPath
) -> dict[str, int]:
    """Check the ids of all tokens against the merges, and return those that no merge makes: the special ones.

    Args:     path, where: the files that hold the ids and the merges, for errors.
    Raises:   TokenizerError: a byte or merge without an id, or with one out of order; a gap in the ids.
    """
    names = dict.fromkeys(token_names(merges))
    for name in names:
        if name not in ids:
            raise TokenizerError(f"{path}: no entry for {name!a}, which is a byte or a merge of {where}")
    specials = {name: token_id for name, token_id in ids.items() if name not in names}
    taken = set(specials.values())
    others = (token_id for token_id in range(len(ids)) if token_id not in taken)
    for name, expected in zip(names, others, strict=False):
        if ids[name] != expected:
            raise TokenizerError(
                f"{path}: the id of {name!a} is {ids[name]}, but {expected} follows from the merges in {where}; "
                "ids must be 0 … n − 1, and those of bytes and merges in order"
            )
    return specials


def read_ids(path: StrPath) -> dict[str, int]:
    """Read an object of token → id, where no id occurs twice."""
    given: Any = read_object(path)
    if not isinstance(given, dict):
        raise TokenizerError(f"{path}: expected an object, token → id")
    return check_ids_of_names(path, given)


def check_ids_of_names(path: StrPath, given: dict[str, Any]) -> dict[str, int]:
    """Return an object of token → id if each id is an integer and occurs once."""
    names: dict[int, str] = {}
    for name, token_id in given.items():
        if type(token_id) is not int:
            raise TokenizerError(f"{path}: the id of {name!a} must be an integer, got {reprlib.repr(token_id)}")
        if token_id in names:
            raise TokenizerError(f"{path}: {names[token_id]!a} and {name!a} have the same id {token_id}")
        names[token_id] = name
    return given


def token_ids(path: StrPath, merges: Iterable[Pair], special_tokens: Mapping[str, int]) -> dict[str, int]:
    """Return the id of each token by the name that GPT-2's files give it.

    Raises:   TokenizerError: two tokens have the same name in these files.
    """
    taken = set(special_tokens.values())
    names = token_names(merges)
    free = (token_id for token_id in range(len(names) + len(taken)) if token_id not in taken)
    ids: dict[str, int] = {}
    for name, token_id in [*zip(names, free, strict=True), *special_tokens.items()]:
        if ids.setdefault(name, token_id) != token_id:
            raise TokenizerError(
                f"{path}: GPT-2's files would write {name!a} for token {ids[name]} and token {token_id}; use save"
            )
    return dict(sorted(ids.items(), key=itemgetter(1)))


def write_gpt2_files(folder: StrPath, ids: Mapping[str, int], merges: Iterable[Pair]) -> None:
    """Write `vocab.bpe` and `encoder.json` into a folder, which is made if it is missing.

    Raises:   TokenizerError: a file cannot be written.
    """
    make_folder(folder)
    lines = [f"{merge}\n" for merge in merge_names(merges)]
    write_text(Path(folder) / "vocab.bpe", "".join(["#version: 0.2\n", *lines]))
    write_text(Path(folder) / "encoder.json", json.dumps(ids))


def merge_names(merges: Iterable[Pair]) -> list[str]:
    """Return how GPT-2's files write each merge: two tokens and a space between them."""
    merges = list(merges)
    names = token_names(merges)
    return [f"{names[left]} {names[right]}" for left, right in merges]


def token_names(merges: Iterable[Pair]) -> list[str]:
    """Return how GPT-2's files write the bytes and what the merges make, in the order of the ids."""
    names = list(BYTE_NAMES)
    for left, right in merges:
        names.append(names[left] + names[right])
    return names
