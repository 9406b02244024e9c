"""`tinygrad-llm download`: fetch GPT-2 from OpenAI or the model hub."""

import argparse
import json
from pathlib import Path

from tinygrad_llm.cli.options import add_json, add_overwrite
from tinygrad_llm.cli.progress import Bar
from tinygrad_llm.models import CONFIGS
from tinygrad_llm.weights.find import CACHE, cache_folder
from tinygrad_llm.weights.hub import SERVERS, download, model_url

EXAMPLE = "tinygrad-llm download gpt2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", choices=list(CONFIGS), help="which GPT-2: 0.5, 1.4, 3.1 or 6.2 GB")
    parser.add_argument(
        "--from", dest="source", choices=list(SERVERS), default="openai", help="the server (default openai)"
    )
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="the target (default: a cache that GPT.from_pretrained searches)"
    )
    add_overwrite(parser, "files whose content does not match")
    add_json(parser)
    parser.add_argument_group(
        "environment variables",
        f"{CACHE}: the folder of the cache. {' and '.join(variable for variable, _ in SERVERS.values())}: mirrors of "
        "OpenAI's releases and of the model hub. HTTPS_PROXY: a proxy.",
    )


def run(args: argparse.Namespace) -> int:
    folder = args.out or cache_folder(args.model)
    bars = _Bars()
    try:
        files = download(
            args.model, CONFIGS[args.model], folder, args.source, overwrite=args.overwrite, report=bars.show
        )
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
        how = "fetched" if file.fetched else "existed"
        print(f"{file.name}: {file.size:,} bytes, {how}, {file.verified} verified")
    print(f'{folder}: read it with GPT.from_pretrained("{folder if args.out else args.model}")')
    return 0


class _Bars:
    """Shows a progress bar for each file in turn."""

    def __init__(self) -> None:
        self._bar: Bar | None = None

    def show(self, name: str, done: int, total: int | None) -> None:
        if self._bar is None or name != self._bar.name:
            self.close()
            self._bar = Bar("B", name, total, done)
        self._bar.update(done, total)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
