"""The checks that all tokenizers share, and the one exception that they raise."""

import operator
import os
import reprlib
from collections.abc import Iterable, Iterator

_LONGEST_NAME = 4096  # characters of a path


class TokenizerError(ValueError):
    """A tokenizer cannot use a text, an id or a file; the message says what is wrong, and where."""


def check_text(text: str) -> str:
    """Return `text` if UTF-8 can encode it.

    Raises:   TokenizerError: not a str; a lone surrogate, which is half of a character of UTF-16.
    """
    if not isinstance(text, str):
        raise TokenizerError(f"a text must be a str, got {type(text).__name__}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TokenizerError(
            f"U+{ord(text[error.start]):04X} at position {error.start} is half of a surrogate pair, not a character; "
            "text.encode('utf-16', 'surrogatepass').decode('utf-16', 'replace') repairs the text"
        ) from None
    return text


def check_texts(text_or_texts: str | Iterable[str]) -> Iterator[str]:
    """Yield the text, or each of the texts, after `check_text`.

    Raises:   TokenizerError: as `check_text`; the one text is the name of a file, whose text is probably meant.
    """
    if isinstance(text_or_texts, str) or not isinstance(text_or_texts, Iterable):
        text = check_text(text_or_texts)
        if len(text) < _LONGEST_NAME and os.path.isfile(text):
            raise TokenizerError(f"the text {text!a} is the name of a file: give its text, or for byte pairs its Path")
        yield text
        return
    for text in text_or_texts:
        yield check_text(text)


def check_ids(ids: Iterable[int], n_vocab: int) -> Iterator[int]:
    """Yield each id as an int; NumPy's integers are allowed.

    Raises:   TokenizerError: a bool, not an integer, or outside 0 … n_vocab − 1 (Python would count a negative index
              from the end).
    """
    for given in ids:
        try:
            token_id = -1 if isinstance(given, bool) else operator.index(given)
        except TypeError:
            token_id = -1
        if not 0 <= token_id < n_vocab:
            raise TokenizerError(
                f"token id {reprlib.repr(given)} is unknown: ids are integers from 0 to {n_vocab - 1} "
                f"(n_vocab is {n_vocab})"
            )
        yield token_id
