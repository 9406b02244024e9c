"""Tokenizer files: one JSON object, checked when it is read, and written completely or not at all.

{"format": "tinygrad_llm.tokenizer", "version": 1, "kind": "bpe",  "merges": [[220, 83], …],
 "special_tokens": ["<|endoftext|>"], "sha256": …}
{"format": "tinygrad_llm.tokenizer", "version": 1, "kind": "char", "characters": "\\n !abc…", "sha256": …}
{"format": "tinygrad_llm.tokenizer", "version": 1, "kind": "wordpiece", "vocabulary": ["[PAD]", "[UNK]", …],
 "lowercase": true, "strip_accents": true, "sha256": …}

"special_tokens" is an object, token → id, where they are not the last ids. "end_of_text" names the token that ends a
text, where that is not <|endoftext|>. "sha256" is that of `json.dumps` of the other fields, in their order.
"""

import codecs
import json
import os
import re
import reprlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.storage.files import LoadError, not_utf8, open_regular
from tinygrad_llm.tokenizer import pattern
from tinygrad_llm.tokenizer.checks import TokenizerError
from tinygrad_llm.tokenizer.pattern import last_cut

FORMAT, VERSION = "tinygrad_llm.tokenizer", 1
FIELDS = {
    "bpe": {"merges", "special_tokens"},
    "char": {"characters"},
    "wordpiece": {"vocabulary", "lowercase", "strip_accents"},
}
OPTIONAL = {"bpe": {"end_of_text"}}
_BOM = "\ufeff"  # a byte order mark
MAX_FILE_BYTES = 1 << 25  # GPT-2's merges take half a megabyte, so a file of 32 MB is not a tokenizer

StrPath = str | os.PathLike[str]


def read_text(path: StrPath) -> str:
    """Read a UTF-8 file without changing its line ends; a byte order mark is left out.

    Raises:   TokenizerError: missing, unreadable, too large or not UTF-8.
    """
    try:
        with open_regular(os.fspath(path)) as file:  # an int would be a file descriptor
            data = file.read(MAX_FILE_BYTES + 1)
    except LoadError as error:
        raise TokenizerError(str(error)) from None
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror}") from error
    except (TypeError, ValueError) as error:  # not a path; a NUL or half of a surrogate pair in it
        raise TokenizerError(f"{path!a} is not a path of a file: {error}") from error
    if len(data) > MAX_FILE_BYTES:
        raise TokenizerError(f"{path}: larger than {MAX_FILE_BYTES} bytes, so not a tokenizer")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{path}: {not_utf8(error)}") from error


class Stretch(NamedTuple):
    """A part of a text file: the text of its bytes `start` to `stop`, which begins at byte `place` of the text read.

    The text has other places than the file where "\\r\\n" was read as "\\n".
    """

    start: int
    stop: int
    text: str
    place: int

    def where(self, path: object) -> str:
        """How a message calls the text in which it counts bytes: the path, and how line ends count if that matters."""
        same = self.place == self.start and len(self.text.encode()) == self.stop - self.start
        return str(path) if same else f"{path} (with \\r\\n read as \\n)"


def read_stretches(
    path: StrPath, special_tokens: Collection[str] | None = (), size: int = 1 << 20, keep_newlines: bool = False
) -> Iterator[Stretch]:
    """Read the text of a UTF-8 file of any length in stretches that no word and no special token crosses.

    A byte order mark at the beginning is left out. The line ends "\\r\\n" and "\\r" are read as "\\n".

    Args:     special_tokens: None: each character is a token, so that a stretch may end anywhere.
              size: bytes to read at once; more if they contain no safe place to cut.
              keep_newlines: leave line ends as they are.
    Raises:   TokenizerError: missing, unreadable or not UTF-8, with the position of the first wrong byte; 4 million
              characters without white space, unless each is a token.
    """
    start = place = 0
    for text, more in _read_pieces(path, special_tokens, size, keep_newlines):
        length = len(text.encode())
        stop, end = start + length + more, place + length
        if start == 0 and text.startswith(_BOM):
            text = text.removeprefix(_BOM)
            start = place = len(_BOM.encode())
        if text:
            yield Stretch(start, stop, text, place)
        start, place = stop, end


def normalize_newlines(text: str) -> str:
    """Return a text with the line ends "\\r\\n" and "\\r" as "\\n"."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _read_pieces(
    path: StrPath, special_tokens: Collection[str] | None, size: int, keep_newlines: bool
) -> Iterator[tuple[str, int]]:
    """Yield the text of a file in pieces, each with the number of bytes that the file has more."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    text, position, held = "", 0, ""
    shortened: list[int] = []  # indices in `text` of the line ends that have two bytes in the file
    try:
        with open(path, "rb") as file:
            while True:
                data = file.read(size)
                start = position - len(decoder.getstate()[0])  # the first byte decoded now: half a character may wait
                new = held + decoder.decode(data, final=not data)
                if not keep_newlines:
                    held = "\r" if data and new.endswith("\r") else ""  # "\n" may follow
                    new = new[: len(new) - len(held)]
                    ends = (end.start() for end in re.finditer("\r\n", new))
                    shortened += [len(text) + end - before for before, end in enumerate(ends)]
                    new = normalize_newlines(new)
                text += new
                if not data:
                    break
                position += len(data)
                cut = len(text) if special_tokens is None else last_cut(text, special_tokens)
                if cut:
                    more = bisect_left(shortened, cut)
                    yield text[:cut], more
                    text, shortened = text[cut:], [index - cut for index in shortened[more:]]
                else:
                    pattern.check_unbroken(len(text))
                    size = min(2 * size, pattern.MAX_UNBROKEN)  # read more: fewer searches of text without a cut
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        byte, at = error.object[error.start], start + error.start
        raise TokenizerError(
            f"{path}: not UTF-8 text (byte {byte:#04x} at position {at}): save it as UTF-8, or give a text file"
        ) from error
    except TokenizerError as error:
        raise TokenizerError(f"{path}: {error}") from None
    except ValueError as error:  # a NUL in the name
        raise TokenizerError(f"{path!a}: {error}") from error
    yield text, len(shortened)


def read_object(path: StrPath) -> Any:
    """Read a JSON file in which no key occurs twice.

    Raises:   TokenizerError: the file cannot be read or is not such JSON; the message begins with its path.
    """
    try:
        return json.loads(read_text(path), object_pairs_hook=_unique)
    except TokenizerError:
        raise
    except (ValueError, RecursionError) as error:
        raise TokenizerError(f"{path}: not a JSON file of this package: {error}") from error


def read_document(path: StrPath) -> dict[str, Any]:
    """Read a tokenizer file with `read_object` and `check_document`."""
    return check_document(read_object(path), path)


def check_kind(document: dict[str, Any], kind: str, path: StrPath) -> None:
    """Check that a tokenizer file holds a tokenizer of this kind.

    Raises:   TokenizerError: it holds another kind.
    """
    if document["kind"] != kind:
        raise TokenizerError(f"{path}: kind is {document['kind']!r}, not {kind!r}; use load_tokenizer")


def check_document(document: Any, path: StrPath) -> dict[str, Any]:
    """Check the format, version, kind and field names of a tokenizer file, but not the values of the fields.

    Raises:   TokenizerError: the first defect, after the path.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise TokenizerError(f'{path}: not a tokenizer file: it does not say "format": "{FORMAT}"')
    version, kind = document.get("version"), document.get("kind")
    if type(version) is not int or version != VERSION:
        raise TokenizerError(f"{path}: version is {reprlib.repr(version)}; this package reads {VERSION}")
    if not isinstance(kind, str) or kind not in FIELDS:
        raise TokenizerError(f"{path}: kind is {reprlib.repr(kind)}; known are {', '.join(FIELDS)}")
    expected = {"format", "version", "kind"} | FIELDS[kind]
    stated = document.pop("sha256", None)
    if missing := expected - document.keys():
        raise TokenizerError(f"{path}: missing {', '.join(sorted(missing))}")
    if stated is not None and stated != _sha256(document):
        raise TokenizerError(
            f"{path}: sha256: the file was damaged or changed since it was written: use a copy, or remove the field "
            "sha256 if the change is wanted"
        )
    if unknown := document.keys() - expected - OPTIONAL.get(kind, set()):
        raise TokenizerError(f"{path}: unexpected {', '.join(sorted(map(ascii, unknown)))}")
    return document


def write_document(path: StrPath, kind: str, fields: dict[str, Any]) -> None:
    """Write a tokenizer file with `write_text`."""
    document = {"format": FORMAT, "version": VERSION, "kind": kind, **fields}
    write_text(path, json.dumps({**document, "sha256": _sha256(document)}))


def write_text(path: StrPath, text: str) -> None:
    """Write a UTF-8 file with `atomic_write`.

    Raises:   TokenizerError: the file cannot be written; an earlier file at `path` is unchanged.
    """
    try:
        with atomic_write(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise TokenizerError(f"{path}: cannot be written: {error.strerror}") from error
    except (TypeError, ValueError) as error:  # a folder or a device; not a path, or a NUL in it
        message = str(error)
        raise TokenizerError(message if message.startswith(str(path)) else f"{path!a}: {message}") from error


def make_folder(folder: StrPath) -> None:
    """Make a folder, if it is missing.

    Raises:   TokenizerError: it cannot be made.
    """
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise TokenizerError(f"{folder}: cannot be made: {error.strerror}") from error


def _sha256(document: dict[str, Any]) -> str:
    import hashlib  # here, because it takes longer to load than most of this package

    return hashlib.sha256(json.dumps(document).encode()).hexdigest()


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raise for a repeated key; json alone would silently keep the last value."""
    if len(fields := dict(pairs)) != len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"a key occurs twice: {reprlib.repr(twice)}")
    return fields
