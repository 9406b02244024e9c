"""Text that leaves the program: JSON without NaN, tables, and messages of one line."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def one_line(message: object) -> str:
    """The text of an object in one line: each run of white space becomes one space."""
    return " ".join(str(message).split())


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
