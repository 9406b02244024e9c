"""Files by name: those with examples that ship, and public texts of the book, which are fetched and verified."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from tinygrad_llm.datasets.checks import DataError
from tinygrad_llm.storage.files import data_folder
from tinygrad_llm.weights.collect import Fetched, File, collect, mirror_url
from tinygrad_llm.weights.find import cache_folder

FOLDER = "TINYGRAD_LLM_DATA"  # names the folder that holds the files
MIRROR = "TINYGRAD_LLM_DATA_URL"  # names a URL that has them, or their archive

_BOOK = "https://raw.githubusercontent.com/rasbt/LLMs-from-scratch/main"
_LIMIT = 1_000_000  # bytes of each file, and of an archive


# With examples to fine-tune on.
SHIPPED = {
    "messages": "messages.tsv",
    "instructions": "instructions.jsonl",
    "preferences": "preferences.jsonl",
    "translations": "translations.tsv.gz",
}


class Public(NamedTuple):
    """A text: what it is and whose, the URL of its folder on the server, and its file."""

    about: str
    url: str
    file: File


# The hashes are those of the files. Of the archive, only the file in it is verified.
PUBLIC = {
    "the-verdict": Public(
        "a short story by Edith Wharton, 1908; chapters 2 and 5 (public domain)",
        f"{_BOOK}/ch02/01_main-chapter-code",
        File(
            "the-verdict.txt", _LIMIT, size=20_479,
            sha256="b41e41a68f0398a3154ae69e2e4c0e2694e17fe0d66730536837f1b01935b31f",
        ),
    ),
    "sms-spam": Public(
        "SMS Spam Collection: 4,825 ham and 747 spam; Almeida and Gómez Hidalgo; chapter 6 (CC BY 4.0)",
        "https://archive.ics.uci.edu/static/public/228",
        File(
            "SMSSpamCollection", _LIMIT, size=477_907,
            sha256="7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
            archive="sms+spam+collection.zip",
        ),
    ),
    "instruction-data": Public(
        "1,100 instructions with answers, Sebastian Raschka; chapter 7 (Apache 2.0)",
        f"{_BOOK}/ch07/01_main-chapter-code",
        File(
            "instruction-data.json", _LIMIT, size=203_524,
            sha256="7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
        ),
    ),
    "preference-data": Public(
        "the same with a preferred and a rejected answer; chapter 7 (Apache 2.0)",
        f"{_BOOK}/ch07/04_preference-tuning-with-dpo",
        File(
            "instruction-data-with-preference.json", _LIMIT, size=386_968,
            sha256="305315abf14f65fa42c01a0877572f832606571c2a7d49f152ac1d758b16756e",
        ),
    ),
}  # fmt: skip


def example_file(name: str) -> Path:
    """The path of a file with examples: a path, or the name of one that ships with the package or was downloaded.

    Raises:   DataError: there is none.
    """
    if name in PUBLIC:
        return public_file(name)
    path = data_folder() / SHIPPED[name] if name in SHIPPED else Path(name)
    if path.exists() and not path.is_file():
        raise DataError(f"{name}: not a regular file: name the file with the examples")
    if not path.exists():
        raise DataError(f"{name}: no such file; those that ship with the package are {', '.join(SHIPPED)}")
    return path


def public_folder() -> Path:
    """The folder that `tinygrad-llm download` fills: $TINYGRAD_LLM_DATA, else one in the cache."""
    return Path(os.environ.get(FOLDER) or cache_folder("data"))


def public_file(name: str) -> Path:
    """The path of a public text.

    Raises:   DataError: it has not been downloaded.
    """
    path = public_folder() / PUBLIC[name].file.name
    if not path.is_file():
        raise DataError(f"{name}: {path} is not there: run `tinygrad-llm download {name}` first, or set {FOLDER}")
    return path


def public_url(name: str) -> str:
    """The URL, with a slash at its end, of the folder that holds a public text.

    Raises:   DownloadError: the variable names a mirror that is not an https or http URL.
    """
    return mirror_url(MIRROR, PUBLIC[name].url) + "/"


def download_public(name: str, folder: Path | None = None, **options: Any) -> list[Fetched]:
    """Fetch and verify a public text, or verify it if it is there.

    Args:     folder: `public_folder()` by default. options: those of `collect`.
    Raises:   as `collect`.
    """
    return collect(public_url(name), [PUBLIC[name].file], folder or public_folder(), MIRROR, **options)
