"""Argument types that several subcommands share: each refuses what it cannot use, with a clear line."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

from tinygrad_llm.cli import UsageError
from tinygrad_llm.training import holds_run


def integer(least: int) -> Callable[[str], int]:
    """An argparse type: an integer of at least `least`."""

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not an integer of at least {least}")
        return value

    return parse


def add_seed(parser: argparse.ArgumentParser, default: int = 0) -> None:
    """Add --seed."""
    parser.add_argument(
        "--seed", type=integer(0), default=default, metavar="N", help=f"of all randomness (default {default})"
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json."""
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")


def check_out(folder: Path, overwrite: bool) -> Path:
    """A folder to write a run into, looked at before the work and not after it.

    An earlier run there is not written over unless that was asked for.
    """
    nearest = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise UsageError(f"{nearest}: is a file; --out names a folder")
    if not os.access(nearest, os.W_OK):
        raise UsageError(f"{nearest}: cannot be written to; choose another --out")
    if holds_run(folder) and not overwrite:
        raise UsageError(f"{folder}: holds a run already; choose another --out, or add --overwrite")
    return folder
