"""Text that leaves the program: JSON without NaN, tables, and messages of one line."""

import csv
import io
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

# A file, a model or a server may write them too, and they would move the cursor, color the terminal or turn a line
# around: all control characters but tab and line feed, and those that change the direction of a text.
_CONTROLS = dict.fromkeys(
    [*range(9), *range(11, 32), *range(127, 160), *range(0x202A, 0x202F), *range(0x2066, 0x206A)],
    "\N{REPLACEMENT CHARACTER}",
)


def printable(text: str) -> str:
    """A text of unknown origin without control characters, for a terminal; tabs and line feeds stay."""
    return text.translate(_CONTROLS)


def one_line(message: object) -> str:
    """The text of an object in one line, as `printable`: each run of white space becomes one space."""
    return printable(" ".join(str(message).split()))


def columns(text: str) -> int:
    """How many columns of a terminal a line takes: East Asian letters take two, and marks above a letter none."""
    wide = {"W": 2, "F": 2}
    return sum(0 if unicodedata.combining(c) else wide.get(unicodedata.east_asian_width(c), 1) for c in text)


def padded(text: str, width: int, right: bool = False) -> str:
    """The text with spaces behind it (right: before it), so that it takes at least `width` columns."""
    space = " " * (width - columns(text))
    return space + text if right else text + space


def shortened(text: str, most: int) -> str:
    """The text in one line of at most `most` columns; where it is cut, it ends with " …"."""
    text = one_line(text)
    if columns(text) <= most:
        return text
    while columns(text) > most - 2:
        text = text[: min(len(text) - 1, most)]
    return text.rstrip() + " …"


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the most similar known one, or all of them if none is similar."""
    import difflib  # takes milliseconds, and only errors need it

    known = list(known)
    like = difflib.get_close_matches(name, known, n=1)
    return f": did you mean {like[0]}?" if like else f": there are {', '.join(known)}"


def finite(value: Any) -> Any:
    """The value with None for each NaN and infinity, also inside dicts, lists and tuples: JSON has neither."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(value: Any, indent: int | None = None) -> str:
    """The value as JSON text, with null for each NaN and infinity.

    Raises:   TypeError: JSON cannot hold it.
    """
    return json.dumps(finite(value), indent=indent, allow_nan=False)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV, below a line with the names of all their columns in order of appearance; None is an empty cell."""
    file = io.StringIO()
    columns = dict.fromkeys(column for row in rows for column in row)
    table = csv.DictWriter(file, list(columns), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return file.getvalue()
