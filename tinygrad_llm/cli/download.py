"""`tinygrad-llm download`: GPT-2's files from OpenAI, or from the model hub."""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tinygrad_llm.cli.options import add_json
from tinygrad_llm.models import CONFIGS
from tinygrad_llm.models.hub import CACHE, SERVERS, cache_folder, download, model_url

EXAMPLE = "tinygrad-llm download gpt2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=list(CONFIGS), help="0.5, 1.4, 3.1 or 6.2 GB")
    parser.add_argument("--from", dest="source", choices=list(SERVERS), default="openai", help="(default openai)")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="where to (default: a cache, where GPT.from_pretrained looks)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there and wrong")
    add_json(parser)
    parser.add_argument_group(
        "environment variables",
        f"{CACHE}: the folder of the cache. {' and '.join(variable for variable, _ in SERVERS.values())}: a mirror of "
        "OpenAI's releases, and of the model hub. HTTPS_PROXY: a proxy.",
    )


def run(args: argparse.Namespace) -> int:
    folder = args.out or cache_folder(args.model)
    bars = _Bars()
    try:
        files = download(args.model, folder, args.source, overwrite=args.overwrite, report=bars.show)
    finally:
        bars.close()
    if args.json:
        figures = {
            "model": args.model,
            "source": args.source,
            "url": model_url(args.model, args.source),
            "folder": str(folder),
            "bytes": sum(file.size for file in files),
            "files": [file._asdict() for file in files],
        }
        print(json.dumps(figures))
        return 0
    for file in files:
        how = "fetched" if file.fetched else "was there"
        print(f"{file.name}: {file.size:,} bytes, {how}, {file.verified} verified")
    print(f'{folder}: read it with GPT.from_pretrained("{folder if args.out else args.model}")')
    return 0


class _Bars:
    """A bar for each file on a terminal with tqdm; a line every few seconds elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._name = ""
        self._told = time.monotonic()

    def show(self, name: str, done: int, total: int | None) -> None:
        if name != self._name:
            self.close()
            self._name, self._bar = name, _tqdm(name, done, total)
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._told > 5:
            self._told = time.monotonic()
            share = f" of {total / 1e6:,.0f}" if total else ""
            print(f"{name}: {done / 1e6:,.0f}{share} MB", file=sys.stderr, flush=True)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _tqdm(name: str, done: int, total: int | None) -> Any:
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    options: dict[str, Any] = {"unit": "B", "unit_scale": True, "unit_divisor": 1000, "dynamic_ncols": True}
    return tqdm(desc=name, total=total, initial=done, file=sys.stderr, **options)
