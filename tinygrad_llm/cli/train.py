"""`tinygrad-llm train`: a text in, a run folder out."""

import argparse
import dataclasses
import json
import shlex
import sys
from pathlib import Path
from typing import TextIO

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, add_seed, check_out, integer
from tinygrad_llm.datasets import CORPORA
from tinygrad_llm.training import PRESETS, Preset, Progress, Run, TrainSettings, holds_run

EXAMPLE = "tinygrad-llm train --corpus python-docs --preset char-cpu --steps 500 --out runs/docs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", default="stories", help=f"{', '.join(CORPORA)}, or the path of a UTF-8 text file")
    parser.add_argument("--preset", default="char-cpu", help=f"sizes and settings: {', '.join(PRESETS)}")
    parser.add_argument("--steps", type=integer(1), help="how many updates (default: the preset's)")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the run goes")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is already there")
    parser.add_argument("--workers", type=integer(1), metavar="N", help="threads (default: chosen by the machine)")
    add_seed(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.preset not in PRESETS:
        raise UsageError(f"unknown preset {args.preset!r}: choose from {', '.join(PRESETS)}")
    preset = PRESETS[args.preset]
    settings = settings_for(preset, args.steps, args.seed, args.workers)
    folder = check_out(args.out, args.overwrite)
    out = sys.stderr if args.json else sys.stdout

    training = Run(args.corpus, preset, folder, settings)
    tokenizer = training.make_tokenizer()
    model = training.make_model()
    print(
        f"{len(training.text):,} characters, {len(training.ids):,} + {len(training.val_ids):,} tokens "
        f"(vocabulary {tokenizer.n_vocab}); {model.num_parameters():,} parameters; "
        f"{settings.steps} steps",
        file=out,
    )
    stopped = watch(training, out)
    written = training.save()
    last = training.steps[-1]
    if args.json:
        figures = {"out": str(training.folder), "steps": last.step, "loss": last.loss, "val_loss": last.val_loss}
        figures |= {"tokens_per_second": last.tokens_per_second, "parameters": model.num_parameters()}
        print(json.dumps(figures))
    else:
        if last.val_loss is not None:
            print(f"held-out loss {last.val_loss:.3f} nats a token after {last.step} steps")
        print("wrote " + ", ".join(str(path) for path in written))
        if not any(path.suffix == ".png" for path in written):
            print("for a picture of the losses: pip install 'tinygrad_llm[app]'")
        # A prompt that the tokenizer is sure to know; byte pairs need none.
        prompt = [] if tokenizer.eot_token is not None else ["--prompt=" + training.text.split()[0][:10]]
        print("next: " + shlex.join(["tinygrad-llm", "generate", str(training.folder), *prompt, "--seed", "1"]))
    return 130 if stopped else 0


def settings_for(preset: Preset, steps: int | None, seed: int, workers: int | None = None) -> TrainSettings:
    """The preset's settings; with fewer steps, warm-up and evaluations keep their place."""
    settings = preset.training
    steps = steps or settings.steps
    warmup = min(settings.warmup, steps // 5)
    eval_every = min(settings.eval_every, max(1, steps // 4))
    return dataclasses.replace(settings, steps=steps, warmup=warmup, eval_every=eval_every, workers=workers, seed=seed)


def watch(training: Run, out: TextIO) -> bool:
    """Train with a progress bar, and a sample at each evaluation, on `out`. True if Ctrl-C ended it early.

    Raises:   KeyboardInterrupt: before there was anything to save.
    """
    progress = Progress(training.settings.steps)
    try:
        for step in training.train():
            progress.show(step)
            if step.val_loss is not None:
                text = training.sample(60).strip().replace("\n", "\n    ") or "(nothing: it ends the text at once)"
                progress.write(f"\nstep {step.step}: held-out loss {step.val_loss:.3f}. It writes:\n    {text}\n", out)
    except (KeyboardInterrupt, BrokenPipeError):  # Ctrl-C, or nobody reads any more (`… | head`)
        if not training.steps:
            raise
        # A finished run is worth more than the beginning of another: it is not replaced.
        if holds_run(training.folder):
            training.folder = training.folder.with_name(training.folder.name + "-stopped")
        progress.write(f"\nstopped after step {training.steps[-1].step}; saving to {training.folder}", sys.stderr)
        return True
    finally:
        progress.close()
    return False
