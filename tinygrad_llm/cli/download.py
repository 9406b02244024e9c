"""`tinygrad-llm download`: fetch GPT-2 from OpenAI or the model hub, or a public text of the book."""

import argparse
import json
from pathlib import Path
from typing import Any

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, add_overwrite
from tinygrad_llm.cli.progress import Bar, fold
from tinygrad_llm.datasets.public import FOLDER, MIRROR, PUBLIC, download_public, public_folder, public_url
from tinygrad_llm.models import CONFIGS
from tinygrad_llm.weights.collect import Fetched
from tinygrad_llm.weights.find import CACHE, cache_folder
from tinygrad_llm.weights.hub import SERVERS, download, model_url

EXAMPLE = "tinygrad-llm download gpt2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = fold(
        "Fetch a GPT-2 from OpenAI or the model hub, or a public text of the book. Each file is verified before it "
        "gets its name, by its SHA-256 where that is known; of an archive, the file in it is verified. What is cut "
        "off is continued by the next call.\n\n"
    ) + "\n".join(fold(one.about, f"  {name:<17} ", " " * 20) for name, one in PUBLIC.items())
    words = "a GPT-2, of 0.5, 1.4, 3.1 or 6.2 GB, or one of the texts above"
    parser.add_argument("name", choices=[*CONFIGS, *PUBLIC], metavar="NAME", help=f"{', '.join(CONFIGS)}: {words}")
    parser.add_argument("--from", dest="source", choices=list(SERVERS), help="the server of a GPT-2 (default openai)")
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help="the target (default: a cache where models and texts are looked for)"
    )
    add_overwrite(parser, "files whose content does not match")
    add_json(parser)
    mirrors = {server: variable for server, (variable, _) in SERVERS.items()}
    variables = {
        CACHE: "the folder of the cache",
        FOLDER: "the folder of the texts, instead of one in the cache",
        mirrors["openai"]: "a mirror of OpenAI's releases",
        mirrors["huggingface"]: "a mirror of the model hub",
        MIRROR: "a mirror of the texts",
        "HTTPS_PROXY": "a proxy",
    }
    words = "\n".join(f"{name:<24} {about}" for name, about in variables.items())
    parser.add_argument_group("environment variables", words)


def run(args: argparse.Namespace) -> int:
    bars = _Bars()
    try:
        figures, files, how_to_read = (_text if args.name in PUBLIC else _model)(args, bars)
    finally:
        bars.close()
    if args.json:
        about = {"bytes": sum(file.size for file in files), "files": [file._asdict() for file in files]}
        print(json.dumps({**figures, **about}))
        return 0
    for file in files:
        how = "fetched" if file.fetched else "existed"
        print(f"{file.name}: {file.size:,} bytes, {how}, {file.verified} verified")
    print(f"{figures['folder']}: read it {how_to_read}")
    return 0


def _model(args: argparse.Namespace, bars: "_Bars") -> tuple[dict[str, Any], list[Fetched], str]:
    """What --json says of a GPT-2 besides its files; the files; and how to read it."""
    folder, source = args.out or cache_folder(args.name), args.source or "openai"
    files = download(args.name, CONFIGS[args.name], folder, source, overwrite=args.overwrite, report=bars.show)
    figures = {"model": args.name, "source": source, "url": model_url(args.name, source), "folder": str(folder)}
    return figures, files, f'with GPT.from_pretrained("{folder if args.out else args.name}")'


def _text(args: argparse.Namespace, bars: "_Bars") -> tuple[dict[str, Any], list[Fetched], str]:
    """The same of a text."""
    if args.source:
        raise UsageError(f"--from is for a GPT-2: {args.name} has one source")
    folder = args.out or public_folder()
    files = download_public(args.name, folder, overwrite=args.overwrite, report=bars.show)
    figures = {"text": args.name, "url": public_url(args.name), "folder": str(folder)}
    return figures, files, f"as {folder / files[0].name if args.out else args.name}"


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
