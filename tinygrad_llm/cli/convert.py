"""`tinygrad-llm convert`: write a model in another form of files."""

import argparse
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_checkpoint, add_json, add_overwrite, integer, weights_of
from tinygrad_llm.cli.progress import fold
from tinygrad_llm.models import EncoderClassifierConfig, EncoderConfig, GPTConfig, TranslatorConfig
from tinygrad_llm.storage.atomic import atomic_folder
from tinygrad_llm.weights import (
    FORMS,
    find_tokenizer,
    model_at,
    read_pretrained,
    tokenizer_for,
    write_pretrained,
    write_tokenizer,
)

EXAMPLE = "tinygrad-llm convert runs/demo for-transformers --to huggingface"

_CONFIGS: dict[str, Any] = {
    "Encoder": EncoderConfig,
    "EncoderClassifier": EncoderClassifierConfig,
    "Translator": TranslatorConfig,
}
_SUFFIXES = {".bin", ".ckpt", ".gguf", ".h5", ".index", ".npy", ".npz", ".pt", ".pth", ".safetensors"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        type=Path,
        metavar="SRC",
        help="a folder or file of OpenAI, Hugging Face, nanoGPT, the book or this package; or gpt2",
    )
    parser.add_argument("destination", type=Path, metavar="DST", help="the folder to create")
    parser.add_argument(
        "--to",
        choices=FORMS,
        default=FORMS[0],
        help="safetensors: one file of this package (default); huggingface: for transformers; "
        "openai: TensorFlow's checkpoint; npz: for numpy.load",
    )
    parser.add_argument(
        "--n-head", type=integer(1), metavar="N", help="the number of attention heads, where no file states it"
    )
    add_checkpoint(parser)
    add_overwrite(parser, "a model in DST, if DST holds nothing else")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    source, destination = args.source, args.destination
    if os.path.lexists(destination) and not (args.overwrite and destination.is_dir()):
        mend = "" if args.overwrite or not destination.is_dir() else ", or add --overwrite"
        raise UsageError(f"{destination}: exists already: choose another DST{mend}")
    if destination.suffix in _SUFFIXES:
        raise UsageError(f"{destination}: DST is a folder, not a file: choose a DST without {destination.suffix}")
    if not destination.absolute().parent.is_dir():
        raise UsageError(f"{destination}: its parent folder does not exist: create that first")
    path = weights_of(args, source)
    config, state, found = read_pretrained(path, _CONFIGS.get(model_at(path), GPTConfig), args.n_head)
    tokenizer = None if find_tokenizer(path) is None else tokenizer_for(path, config)  # compared with the model
    try:
        with atomic_folder(destination.absolute(), args.overwrite) as temporary:
            end = None if tokenizer is None else tokenizer.eot_token
            padding = None if tokenizer is None else tokenizer.special_tokens.get("[PAD]")
            write_pretrained(temporary, config, state, args.to, end, padding)
            if tokenizer is not None:
                write_tokenizer(temporary, tokenizer, args.to)
            size = sum(file.stat().st_size for file in temporary.iterdir())
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from None
    except OSError as error:
        raise UsageError(f"{destination}: cannot be written: {error.strerror or error}") from None

    files = sorted(file.name for file in destination.iterdir())
    if args.json:
        figures = {
            "source": str(source),
            "found": found,
            "destination": str(destination),
            "form": args.to,
            "files": files,
            "bytes": size,
            "parameters": config.num_parameters,
            "config": dataclasses.asdict(config),
        }
        print(json.dumps(figures))
    else:
        print(fold(f"{source} ({found}): {config.num_parameters:,} parameters", hang="    "))
        print(fold(f"{destination} ({args.to}): {', '.join(files)}, {size:,} bytes", hang="    "))
    return 0
