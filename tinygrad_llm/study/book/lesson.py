"""What the lessons in scripts/book print: the book's numbers beside ours, and pictures made of letters."""

import sys
import textwrap
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

import numpy as np

from tinygrad_llm.kernels import Array
from tinygrad_llm.study.book.ledger import FACTS, check, compare, flat, missing_file

WIDTH = 80  # columns of a terminal
SHADES = " ░▒▓█"

if hasattr(sys.stdout, "reconfigure"):  # a terminal that lacks a character shows a question mark
    sys.stdout.reconfigure(errors="replace")


def need(*names: str) -> None:
    """Go on if these files are at hand; else end the program with one line that says how to get them.

    Args:     names: as for `tinygrad-llm download`.
    Raises:   SystemExit: a file is missing.
    """
    problems = [problem for name in names if (problem := missing_file(name))]
    if problems:
        raise SystemExit("this lesson needs " + "; ".join(problems))


def beside(id: str, *computed: Any) -> None:
    """Print a fact's numbers as the book has them, beside ours, and whether they agree to the last printed digit.

    Args:     id: of the fact, such as "ch03-12". computed: its numbers, in any nesting of Tensors, arrays, lists and
              tuples. Without them, the ledger computes the fact: one that takes longer, only if the program was
              started with --all.
    """
    fact = FACTS[id]
    everything = "--all" in sys.argv
    if not computed and fact.tier != "fast" and not everything and not any(map(missing_file, fact.needs)):
        print(f"{id} takes longer: `tinygrad-llm book --show {id}`, or --all here")
        return
    result = compare(fact, list(flat(list(computed)))) if computed else check(fact, slow=everything)
    words = {"pass": "agrees with the book", "fail": "DIFFERS from the book"}
    print(
        _folded(f"{id} {words[result.status]}. {fact.what}" if result.status in words else f"{id} {result.message}", "")
    )
    if result.status == "fail" and result.message:
        print(_folded(result.message, "  "))
    if result.ours:
        book, ours = _rows(fact.published, list(fact.items)), _rows(fact.published, list(result.ours))
        width = max(map(len, [*book, "the book"]))
        if width + 4 + max(map(len, [*ours, "ours"])) <= WIDTH - 2:
            print(f"  {'the book':<{width}}    ours")
            for left, right in zip_longest(book, ours, fillvalue=""):
                print(f"  {left:<{width}}    {right}".rstrip())
        else:
            for left, right in zip_longest(book, ours, fillvalue=""):
                print(_folded(left, "  book  "))
                print(_folded(right, "  ours  "))
        print()


def _rows(published: str | tuple[str, ...], items: list[str]) -> list[str]:
    """The items in the rows of the published text, in columns where all rows have as many."""
    if isinstance(published, tuple):
        return items
    rows, start = [], 0
    for row in published.split("/"):
        rows.append(items[start : start + len(row.split())])
        start += len(row.split())
    rows = [row for row in rows if row]
    if len({len(row) for row in rows}) == 1:
        widest = max(map(len, items), default=0)
        rows = [[item.rjust(widest) for item in row] for row in rows]
    return [" ".join(row) for row in rows]


def _folded(text: str, start: str) -> str:
    """The text in lines of at most 80 columns; those after the first are indented."""
    indent = " " * len(start) or "  "
    return textwrap.fill(
        " ".join(text.split()) if not start else text, WIDTH, initial_indent=start, subsequent_indent=indent
    )


def shades(matrix: Any, rows: Sequence[str] = (), largest: float | None = None) -> None:
    """Print a matrix (R, C) as a picture: the darker a field, the larger its number, from 0 to the largest.

    Args:     rows: a name for each row. largest: the number of the darkest shade; None: the largest of the matrix.
    """
    values = np.asarray(getattr(matrix, "data", matrix), np.float64)
    top = float(values.max()) if largest is None else largest
    width = max(map(len, rows), default=0)
    levels = np.clip(np.ceil(values / (top or 1.0) * (len(SHADES) - 1)), 0, len(SHADES) - 1).astype(int)
    for i, row in enumerate(levels.tolist()):
        name = rows[i] if i < len(rows) else ""
        print(f"  {name:<{width}}  " + "".join(SHADES[level] * 3 for level in row))
    print()


def bars(names: Sequence[str], values: Array | Sequence[float], low: float, high: float) -> None:
    """Print positive numbers as horizontal bars, on a logarithmic scale: a factor of 10 is the same step everywhere.

    Args:     low, high: the numbers with no bar, and with the longest.
    """
    logs = np.log10(np.asarray(values, np.float64))
    low, high = np.log10(low), np.log10(high)
    room = WIDTH - max(map(len, names)) - 16
    for name, value, log in zip(names, values, logs, strict=True):
        length = round(room * min(1.0, (log - low) / (high - low)))
        print(f"  {name:<{max(map(len, names))}}  {value:9.3g}  {'█' * max(length, 1)}")
    print()
