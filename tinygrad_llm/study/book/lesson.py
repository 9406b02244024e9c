"""What the lessons in scripts/book print: the book's numbers beside ours, and pictures made of letters.

A lesson that is started with `--pictures FOLDER` also saves each picture as a PNG file, by matplotlib.
"""

import sys
import textwrap
from collections.abc import Callable, Sequence
from itertools import count, zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.kernels import Array
from tinygrad_llm.study.book.ledger import FACTS, check, compare, flat, missing_file

WIDTH = 80  # columns of a terminal
SHADES = " ░▒▓█"
_numbers = count(1)  # of the pictures that are saved

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


def shades(matrix: Any, rows: Sequence[str] = ()) -> None:
    """Print a matrix (R, C) as a picture: the darker a field, the larger its number, from 0 to the largest.

    Args:     rows: a name for each row.
    """
    values = np.asarray(getattr(matrix, "data", matrix), np.float64)
    top = float(values.max())
    width = max(map(len, rows), default=0)
    levels = np.clip(np.ceil(values / (top or 1.0) * (len(SHADES) - 1)), 0, len(SHADES) - 1).astype(int)
    for i, row in enumerate(levels.tolist()):
        name = rows[i] if i < len(rows) else ""
        print(f"  {name:<{width}}  " + "".join(SHADES[level] * 3 for level in row))

    def draw(axes: Any) -> None:
        axes.imshow(values, cmap="Greys", vmin=0, vmax=top)
        for at, value in np.ndenumerate(values):
            axes.text(
                *at[::-1], f"{value:.2f}", ha="center", va="center", color="white" if value > top / 2 else "black"
            )
        axes.set_yticks(range(len(rows)), rows)
        square = len(rows) == values.shape[1]
        axes.set_xticks(range(len(rows)) if square else [], rows if square else [], rotation=45)

    _save(draw)
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

    def draw(axes: Any) -> None:
        axes.barh(names, values)
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlim(10.0**low, 10.0**high)

    _save(draw)
    print()


def _save(draw: Callable[[Any], None]) -> None:
    """Draw into the next PNG file of the folder behind --pictures, if the lesson was started with it."""
    if "--pictures" not in sys.argv[:-1]:
        return
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise SystemExit("--pictures needs matplotlib: python -m pip install matplotlib") from None
    folder = Path(sys.argv[sys.argv.index("--pictures") + 1])
    folder.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(5.5, 4), layout="constrained")
    draw(figure.subplots())
    path = folder / f"{Path(sys.argv[0]).stem}_{next(_numbers)}.png"
    figure.savefig(path, dpi=120)
    print(f"  {path}")
