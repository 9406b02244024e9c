"""Instructions with answers, and pairs of answers: JSON, or JSON lines, with the keys of Stanford Alpaca.

    {"instruction": "Say the plural.", "input": "fox", "output": "One fox, two foxes."}
    {"instruction": "Say the plural.", "input": "fox", "chosen": "One fox, two foxes.", "rejected": "Foxes, of course."}

`input` may be missing or empty; `kind` names the kind of task, for figures by kind.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from tinygrad_llm.datasets.checks import DataError, parsed, plain, read_bytes, reading
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.files import MAX_JSON, show

_MAX_BYTES = 400_000_000  # of JSON lines


class Entry(NamedTuple):
    """An instruction, what it is about (may be empty), the answer, and the kind of task (may be empty)."""

    instruction: str
    input: str
    output: str
    kind: str = ""


class Pair(NamedTuple):
    """An instruction with a better and a worse answer."""

    instruction: str
    input: str
    chosen: str
    rejected: str
    kind: str = ""


Example = TypeVar("Example", Entry, Pair)


def read_instructions(path: str | Path) -> list[Entry]:
    """Read instructions with their answers.

    Raises:   DataError: the file cannot be read, is not JSON, or has no entries; a key of an entry is missing, unknown,
              empty or no text, or has half of a character. The entry, or the line, is named.
    """
    return [Entry(**fields) for fields in _entries(path, ("output",), ())]


def read_preferences(path: str | Path) -> list[Pair]:
    """Read pairs of answers. An `output` beside them is ignored.

    Raises:   DataError: as `read_instructions`.
    """
    return [Pair(**fields) for fields in _entries(path, ("chosen", "rejected"), ("output",))]


def _entries(path: str | Path, answers: tuple[str, ...], ignored: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """The fields of each entry: instruction, input, kind, and those of `answers`."""
    needed, free = ("instruction", *answers), ("input", "kind")
    for number, entry in enumerate(_objects(path, ", ".join(needed)), 1):
        where = f"{path}: entry {number}"
        if not isinstance(entry, dict):
            raise DataError(f"{where}: must be an object with {', '.join(needed)}, got {show(entry)}")
        missing = [name for name in needed if name not in entry]
        unknown = [name for name in entry if name not in (*needed, *free, *ignored)]
        if missing or unknown:
            said = f"{missing[0]} is missing" if missing else f"unknown key {show(unknown[0])}"
            raise DataError(f"{where}: {said}: the keys are {', '.join((*needed, *free))}")
        for name in (*needed, *free):
            value = entry.get(name, "")
            if not isinstance(value, str) or (name in needed and not value.strip()):
                raise DataError(f"{where}: {name} must be a text that is not empty, got {show(value)}")
            if any("\ud800" <= letter <= "\udfff" for letter in value):
                raise DataError(f"{where}: {name} has half of a surrogate pair, not a character: {show(value)}")
        yield {name: entry.get(name, "") for name in (*needed, *free)}


def _objects(path: str | Path, needed: str) -> list[Any]:
    """The entries of a JSON list, or of JSON lines. An error says that they are objects with the keys `needed`."""
    data = read_bytes(path, _MAX_BYTES).removeprefix(b"\xef\xbb\xbf")
    with reading(path):
        if data.lstrip()[:1] == b"[":
            if len(data) > MAX_JSON:
                raise DataError(f"{path}: longer than the {MAX_JSON} bytes accepted: give JSON lines")
            found = parsed(str(path), data, f"the list has objects with {needed}")
        else:
            lines = enumerate(data.split(b"\n"), 1)
            mend = f"give JSON: a line is an object with {needed}"
            found = [parsed(f"{path}: line {number}", line, mend) for number, line in lines if line.strip()]
    if not found:
        raise DataError(f"{path}: there are no entries")
    return list(found)


def question(example: Entry | Pair) -> str:
    """What an entry or a pair asks, apart from white space and capitals."""
    return plain("\n".join(example[:2]))


def cut_parts(examples: Sequence[Example], rng: Generator) -> tuple[list[list[Example]], int]:
    """Entries or pairs, shuffled, in parts of 85, 5 and 10 percent: training, held out, test.

    Entries that ask the same are in one part: a model that has seen one knows the other. So are equal pairs. White
    space and capitals make no difference.

    Returns:  the parts; and how many examples repeat another one.
    Raises:   DataError: too few examples for three parts.
    """
    n = len(examples)
    test, held_out = n // 10, max(1, n // 20)
    groups: dict[str, list[Example]] = {}
    for i in rng.randperm(n).tolist():
        example = examples[i]
        told = example[:2] if isinstance(example, Entry) else example[:4]  # of a pair, the answers too
        groups.setdefault(plain("\n".join(told)), []).append(example)
    parts: list[list[Example]] = [[], [], []]
    sizes, k = (n - test - held_out, held_out), 0
    for group in groups.values():
        while k < 2 and len(parts[k]) >= sizes[k]:
            k += 1
        parts[k] += group
    if n < 10 or not all(parts):
        raise DataError(
            f"got {n} examples, {len(groups)} of them different, which are too few to train, measure and test on: "
            "give at least 10"
        )
    return parts, n - len(groups)
