"""Messages with labels: read from a table, made equally frequent, and cut into parts.

    ham<tab>See you at five.
    spam<tab>You have won a prize! Call now.

A file whose name ends in .csv has commas instead of tabs. Without a header, the label comes first; with one, it names
the columns: label and text.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tinygrad_llm.datasets.checks import DataError, as_text, plain, read_bytes
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.files import show

_MAX_BYTES = 200_000_000
_COLUMNS = ("label", "text")


class Message(NamedTuple):
    """A text and the name of its class."""

    text: str
    label: str


def read_messages(path: str | Path) -> tuple[list[Message], list[str]]:
    """Read messages from a table, with the quoting of Python's csv module and of pandas.

    Returns:  the messages; and notes for the user, about quoted fields that hold several lines of the file.
    Raises:   DataError: the file cannot be read, or is no table; a column is missing, a label or a text is empty; fewer
              than two classes. The line is named.
    """
    text = as_text(path, read_bytes(path, _MAX_BYTES))
    rows = csv.reader(io.StringIO(text, newline=""), delimiter="," if str(path).endswith(".csv") else "\t")
    messages: list[Message] = []  # none yet: the row may name the columns
    order, swallowed, line = (0, 1), [], 1
    try:
        for row in rows:
            where, line = f"{path}: line {line}", rows.line_num + 1
            if not row:
                continue
            names = [cell.strip().lower() for cell in row]
            if not messages and sorted(names) == sorted(_COLUMNS):
                order = (0, 1) if names[0] == "label" else (1, 0)
                continue
            if not messages and set(names) & set(_COLUMNS):
                raise DataError(f"{where}: the columns must be label and text, got {', '.join(row)}: rename them")
            if len(row) != 2:
                mend = "must have two columns, label and text, with a tab between them"
                raise DataError(f"{where}: {mend}; got {len(row)}: {show(row)}")
            label, message = row[order[0]].strip(), row[order[1]]
            if not label or not message.strip():
                raise DataError(f"{where}: the {'text' if label else 'label'} is empty: remove the line, or fill it")
            if "\n" in message.strip("\r\n"):
                swallowed.append(where.rpartition(" ")[2])
            messages.append(Message(message, label))
    except csv.Error as error:
        raise DataError(f"{path}: line {rows.line_num}: {error}: is a quotation mark not closed?") from None
    if not messages:
        raise DataError(f"{path}: has no messages: give lines of a label, a tab and a text")
    labels = {message.label for message in messages}
    if len(labels) < 2:
        raise DataError(f"{path}: has {len(labels)} classes ({', '.join(labels)}), and at least two are needed")
    if len(labels) > (texts := len({message.text for message in messages})):
        raise DataError(f"{path}: has more labels ({len(labels)}) than texts ({texts}): are the columns swapped?")
    if not swallowed:
        return messages, []
    return messages, [f"{path}: a quoted text holds several lines, at line {', '.join(swallowed[:5])}: is that meant?"]


def balance(messages: Sequence[Message], rng: Generator) -> list[Message]:
    """As many messages of each class as the rarest class has; of the others, some at random are left out."""
    by_label: dict[str, list[Message]] = {}
    for message in messages:
        by_label.setdefault(message.label, []).append(message)
    least = min(map(len, by_label.values()))
    return [own[i] for own in by_label.values() for i in sorted(rng.randperm(len(own))[:least].tolist())]


def repeated(messages: Sequence[Message]) -> int:
    """How many messages repeat an earlier one, apart from white space and capitals."""
    return len(messages) - len({plain(message.text) for message in messages})


def split_messages(
    messages: Sequence[Message], rng: Generator, shares: tuple[float, float] = (0.7, 0.1)
) -> list[list[Message]]:
    """The messages shuffled, in three parts: training, held out, test. Equal texts are in one part.

    Two texts are equal if they differ only in white space and capitals: a classifier that has seen one knows the other.

    Args:     shares: of training and held out; the rest is the test part.
    Returns:  the parts, of int(share · n) messages and the rest; other sizes only if equal texts fit into no part.
    Raises:   DataError: a part would be empty.
    """
    n = len(messages)
    sizes = [int(share * n) for share in shares]
    rooms = [*sizes, n - sum(sizes)]
    groups: dict[str, list[Message]] = {}
    for i in rng.randperm(n).tolist():
        groups.setdefault(plain(messages[i].text), []).append(messages[i])
    parts: list[list[Message]] = [[], [], []]
    # The largest groups first, so that single messages fill what they leave.
    for group in sorted(groups.values(), key=len, reverse=True):
        fitting = [k for k in range(3) if rooms[k] >= len(group)] or [max(range(3), key=rooms.__getitem__)]
        place = int(rng.randint(0, sum(max(1, rooms[k]) for k in fitting), (1,))[0])
        for k in fitting:
            place -= max(1, rooms[k])
            if place < 0:
                break
        parts[k] += group
        rooms[k] -= len(group)
    if not all(parts):
        raise DataError(f"{n} messages are too few for three parts: give more")
    return [[part[i] for i in rng.randperm(len(part)).tolist()] for part in parts]
