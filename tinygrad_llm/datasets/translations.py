"""Sentences with their translations: a table with tabs, whose first line names the columns.

    english<tab>german<tab>french
    The fox sleeps.<tab>Der Fuchs schläft.<tab>Le renard dort.

A file whose name ends in .gz is compressed. More columns than the two that are read do not matter.
"""

import gzip
import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tinygrad_llm.datasets.checks import DataError, as_text, read_bytes
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.text import nearest

_MAX_BYTES = 400_000_000
_MOST = 2000  # sentences to measure on, and as many to test on: all of them are translated, twice


class Translated(NamedTuple):
    """A sentence and its translation."""

    source: str
    target: str


def read_translations(path: str | Path, source: str = "", target: str = "") -> list[Translated]:
    """Read pairs of sentences.

    Args:     source, target: names of columns; "": the first one, and the second.
    Raises:   DataError: the file cannot be read, is not UTF-8, or has no column of this name; the first line is a pair
              already; source and target are the same column; a line has too few columns, or an empty sentence. The line
              is named.
    """
    lines = _read(path).split("\n")
    names = [name.strip() for name in lines[0].split("\t")]
    for name in names:
        if name.endswith((".", "?", "!")) or len(name.split()) > 3:
            raise DataError(
                f"{path}: line 1: {name!r:.60} looks like a sentence, but the first line must name the columns, as in "
                "english<tab>german: add that line"
            )
    columns = [_column(path, names, name, i) for i, name in enumerate((source, target))]
    if columns[0] == columns[1]:
        raise DataError(
            f"{path}: line 1: source and target are both the column {names[columns[0]]!r}: name two of "
            f"{', '.join(names)}"
        )
    pairs = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        for what, column in zip(Translated._fields, columns, strict=True):
            where = f"{path}: line {number}"
            if column >= len(cells):
                raise DataError(
                    f"{where}: ends after column {len(cells)}, and the {what} is in column {column + 1} "
                    f"({names[column]}): put a tab between the columns"
                )
            if not cells[column]:
                raise DataError(f"{where}: the {what} is empty: remove the line, or fill it")
        pairs.append(Translated(*(cells[column] for column in columns)))
    if not pairs:
        raise DataError(f"{path}: has no pairs below its first line, which names the columns")
    return pairs


def _column(path: str | Path, names: list[str], name: str, number: int) -> int:
    """The number of a column."""
    if name and name not in names:
        raise DataError(f"{path}: line 1: has no column {name!r}{nearest(name, names)}")
    if not name and len(names) < 2:
        raise DataError(f"{path}: line 1: must name two columns, source and target, with a tab between them")
    return names.index(name) if name else number


def _read(path: str | Path) -> str:
    data = read_bytes(path, _MAX_BYTES)
    if str(path).endswith(".gz"):
        try:
            with gzip.open(io.BytesIO(data)) as whole:
                data = whole.read(_MAX_BYTES + 1)  # a small file may hold more than fits into memory
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: is damaged, or not compressed by gzip: {error}") from None
        if len(data) > _MAX_BYTES:
            raise DataError(f"{path}: longer than the {_MAX_BYTES} bytes accepted")
    return as_text(path, data)


def split_translations(pairs: Sequence[Translated], rng: Generator) -> list[list[Translated]]:
    """The pairs, shuffled, in parts: training, held out, test. Equal sources are in one part.

    The second and the third have 5 % of the different sources each, but 2,000 at most.

    Raises:   DataError: too few pairs for three parts.
    """
    groups: dict[str, list[Translated]] = {}
    for i in rng.randperm(len(pairs)).tolist():
        groups.setdefault(" ".join(pairs[i].source.casefold().split()), []).append(pairs[i])
    few = min(_MOST, max(1, len(groups) // 20))
    if len(groups) < 10:
        raise DataError(
            f"got {len(groups)} different sentences, too few to train, measure and test on: give at least 10"
        )
    order = list(groups.values())
    parts = order[: -2 * few], order[-2 * few : -few], order[-few:]
    return [[pair for group in part for pair in group] for part in parts]
