"""`tinygrad-llm train`: train on a text or on token files, and save the run in a folder; --resume continues it."""

import argparse
import json
import os
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TextIO

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, add_newlines, add_overwrite, add_seed, check_out, folder, integer
from tinygrad_llm.cli.progress import command_line, fold, listed, say
from tinygrad_llm.cli.watch import watch
from tinygrad_llm.datasets import CORPORA
from tinygrad_llm.models import MODELS
from tinygrad_llm.runs.config import RunConfig, keys, parse_change, read_toml
from tinygrad_llm.runs.data import RunData
from tinygrad_llm.runs.finetune import Subject
from tinygrad_llm.runs.folder import RunFolder
from tinygrad_llm.runs.plan import measure_run, plan_run
from tinygrad_llm.runs.presets import DEFAULTS, FINE_TUNING, PRESETS, find_preset
from tinygrad_llm.runs.run import Run, load_saved, load_subject
from tinygrad_llm.runs.start import with_start
from tinygrad_llm.storage.text import to_json
from tinygrad_llm.training import ConfigError
from tinygrad_llm.training.workers import LaunchError, launch, processes

EXAMPLE = "tinygrad-llm train --corpus python-docs --steps 500 --out runs/docs"
_PRESETS = [name for name in PRESETS if name not in FINE_TUNING]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = fold(
        "Train a GPT on a text, or another model (--model). Ctrl-C or SIGTERM lets the step end, saves and stops (exit "
        "status 130); --resume then continues, bit for bit as if the run had never stopped. NaN or infinity ends a run "
        "before the update (exit status 3) and keeps the last good checkpoint. Only one process at a time can train in "
        "a folder.\n\n"
        "Settings come from the preset, then --config, then the options below, then --set. The folder keeps all of "
        "them in config.toml: --config RUN/config.toml repeats a run. The keys for --set and config.toml:\n\n"
    ) + "\n".join(fold(text, f"  {key:<27} ", " " * 30) for key, text in keys())
    parser.add_argument("--corpus", help=f"{', '.join(CORPORA)}, or the path of a UTF-8 text file (default: stories)")
    add_newlines(parser)
    parser.add_argument("--data", nargs="+", metavar="TOKENS", help="token files, made by `tinygrad-llm tokenizer`")
    parser.add_argument(
        "--weights",
        nargs="+",
        type=float,
        metavar="W",
        help="how often to draw from each token file, relative to the others (default: each window once an epoch)",
    )
    parser.add_argument(
        "--val", metavar="TOKENS", help="a token file to measure on (default: the last tenth of each file)"
    )
    parser.add_argument(
        "--pairs",
        metavar="FILE.tsv",
        help="what a translator learns from: a UTF-8 table with tabs, whose first line names the columns; "
        "translations (default) ships in english, german and french",
    )
    parser.add_argument("--from", dest="source", metavar="COLUMN", help="the column to translate from")
    parser.add_argument("--to", dest="target", metavar="COLUMN", help="the column to translate to")
    parser.add_argument(
        "--tokenizer",
        help="char, bpe or wordpiece, learned from the text; gpt2; a tokenizer file; or the folder of a run",
    )
    parser.add_argument(
        "--init",
        metavar="MODEL",
        help="weights to start from, with their sizes and tokenizer: a run, gpt2 or a path (default: random ones)",
    )
    parser.add_argument("--model", choices=MODELS, help=f"what is trained: {', '.join(MODELS)} (default: gpt)")
    parser.add_argument(
        "--preset", help=f"sizes and settings: {', '.join(_PRESETS)} (default: {', '.join(DEFAULTS.values())})"
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file, such as RUN/config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; may be repeated")
    parser.add_argument(
        "--steps", type=integer(1), help="the number of updates (default: the preset's); with --resume: how many more"
    )
    parser.add_argument(
        "--checkpoint-every",
        type=integer(1),
        metavar="N",
        help="steps between two checkpoints (default: at each held-out loss)",
    )
    parser.add_argument("--out", type=folder, metavar="FOLDER", help="the folder of the new run")
    add_overwrite(parser, "a run that is already there")
    parser.add_argument("--resume", type=folder, metavar="RUN", help="continue the run in this folder")
    parser.add_argument("--plan", action="store_true", help="only print the cost: memory, arithmetic and time")
    parser.add_argument(
        "--workers", type=integer(1), metavar="N", help="number of threads (default: measured on this machine)"
    )
    add_seed(parser, default=None)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    return launched(lambda: _train(args))


def launched(main: Callable[[], int]) -> int:
    """As `training.workers.launch`, with an error for the user."""
    try:
        return launch(main)
    except LaunchError as error:
        raise UsageError(str(error)) from None


def _train(args: argparse.Namespace) -> int:
    if (args.out and args.resume) or not (args.out or args.resume or args.plan):
        raise UsageError("give --out FOLDER for a new run, or --resume RUN to continue one")
    out = sys.stderr if args.json else sys.stdout
    if args.plan:
        return _plan(args, out)
    run = _resumed(args) if args.resume else _new(args)
    say(beginning(run), out)
    status, written = watch(run, out)
    say(to_json(_figures(run)) if args.json else _ending(run, status, written))
    return status


def alone(option: str) -> None:
    """Refuse an option under mpiexec."""
    if processes().size > 1:
        raise UsageError(f"{option} is for one process, and here are {processes().size}: call it without mpiexec")


def _plan(args: argparse.Namespace, out: TextIO) -> int:
    """Print what a run will cost: first what is known without trying, then the time."""
    alone("--plan")
    if args.resume:
        saved = load_saved(args.resume, _changes_of_resumed(args), args.steps)
        data: Subject
        config, data, done = saved.config, saved.data, saved.step
    else:
        config = configured(args)
        data, done = load_subject(config), 0
    if config.model.kind != "gpt":
        raise UsageError(f"--plan: knows the cost of a gpt, and not of the model {config.model.kind}: leave it out")
    if not isinstance(data, RunData):
        raise UsageError(f"{args.resume}: this run fine-tunes: use `tinygrad-llm finetune --resume`")
    costs = plan_run(config, data, done)
    if args.resume:
        check_rest(RunFolder(args.resume, resumed=True), done, done + costs.steps)
    say(costs.sizes, out)
    costs = measure_run(config, data, costs)
    say(json.dumps(costs.figures()) if args.json else costs.time)
    return 0


def _new(args: argparse.Namespace) -> Run:
    config = configured(args)
    return Run.new(config, check_out(args.out, args.overwrite, config.data.init))


def _resumed(args: argparse.Namespace) -> Run:
    run = Run.resume(args.resume, _changes_of_resumed(args), args.steps)
    _check_data(args, run.config.model.kind)
    check_rest(run.folder, run.trainer.step, run.config.training.steps)
    return run


def _changes_of_resumed(args: argparse.Namespace) -> dict[str, Any]:
    if args.init is not None:
        raise UsageError("--init is for a new run: a resumed one has its own weights")
    if args.model or args.preset or args.config:
        raise UsageError("a run is resumed with its own configuration: leave out --model, --preset and --config")
    if args.overwrite:
        raise UsageError("--overwrite replaces a run, and --resume continues it: give one of them")
    return _changes(args)


def check_rest(folder: RunFolder, done: int, steps: int) -> None:
    """Refuse to resume a run that has nothing left to do."""
    if done > steps:
        raise UsageError(f"{folder.path}: {done} steps are done, more than the {steps} asked for")
    if done == steps and folder.is_saved(done):
        raise UsageError(f"{folder.path}: all its {steps} steps are done; add --steps N for N more")


def beginning(run: Run) -> str:
    """The lines before the first step."""
    settings, number = run.config.training, processes().size
    text = f"{run.data.summary}; {run.model.num_parameters():,} parameters; {settings.steps} steps"
    text += f" on {number} processes" if number > 1 else ""
    text += f", resumed after step {run.trainer.step}" if run.steps else ""
    text += f", from the weights of {run.config.data.init}" if run.init and not run.steps else ""
    return fold(f"{text}\n{run.trainer.optimizer}", hang="    ") + (_how_to_stop() if number > 1 else "")


def _ending(run: Run, status: int, written: Sequence[Path]) -> str:
    """The lines after the save: results, files, and the next command."""
    last, folder = run.steps[-1], str(run.folder.path)
    lines = []
    if last.val_loss is not None:
        lines.append(f"held-out loss {last.val_loss:.3f} nats per token after {last.step} steps")
    if run.results and "beam" in run.results:
        parts = ((name, run.results[name]) for name in ("greedy", "beam"))
        figures = (f"{name} {part['exact']:.1%} exact, BLEU {part['bleu']:.1f}" for name, part in parts)
        lines.append(fold(f"{run.results['sentences']:,} test sentences: {'; '.join(figures)}", hang="    "))
    if run.trainer.skipped:
        lines.append(f"{run.trainer.skipped} steps were skipped: their loss or gradient was NaN or infinite")
    lines.append(listed(written))
    if not any(path.suffix == ".png" for path in written):
        lines.append("for pictures of losses and gradients: pip install 'tinygrad_llm[app]'")
    command = ["train", "--resume", folder] if status else run.data.command(folder)
    return "\n".join([*lines, "next:", command_line(["tinygrad-llm", *command], "    ")])


def _figures(run: Run) -> dict[str, Any]:
    last = run.steps[-1]
    return {
        "out": str(run.folder.path),
        "steps": last.step,
        "loss": last.loss,
        "val_loss": last.val_loss,
        "tokens_per_second": last.tokens_per_second,
        "parameters": run.model.num_parameters(),
        "skipped": run.trainer.skipped,
        **({"test": run.results} if run.results else {}),
    }


def _how_to_stop() -> str:
    """Open MPI's mpiexec, when it is stopped, may kill its processes before they have saved."""
    where = f"kill -INT {os.getpid()} on {socket.gethostname()}"
    return f"\nto stop and save: {where}; Ctrl-C on mpiexec may end it unsaved"


def configured(args: argparse.Namespace) -> RunConfig:
    """The configuration: the preset, changed by the file, changed by the options.

    Raises:   ConfigError: an unknown preset or key, a wrong value. OSError: the file cannot be read.
    """
    values = read_toml(args.config) if args.config else {}
    named = values.pop("preset", "")
    if {named, args.preset} & set(FINE_TUNING):
        raise UsageError(f"{args.preset or named} fine-tunes a model: use `tinygrad-llm finetune`")
    changes = ({} if args.steps is None else {"training.steps": args.steps}) | _changes(args)
    kind = str(args.model or values.get("model.kind"))
    preset = (named or DEFAULTS.get(kind, DEFAULTS["gpt"])) if args.preset is None else args.preset
    config = find_preset(preset)
    if args.model and args.model != config.model.kind:
        own = [name for name in _PRESETS if PRESETS[name].model.kind == args.model]
        raise UsageError(f"--model {args.model}: {preset} is a preset of {config.model.kind}: take {', '.join(own)}")
    _check_data(args, config.model.kind)
    if args.pairs is not None:  # the columns of the preset are those of its own file
        changes = {"data.source": "", "data.target": ""} | changes
    config = with_start(config, values, changes)
    try:
        config = config.fitted(values)
    except ConfigError as error:
        raise ConfigError(f"{args.config}: {error}") from None
    return config.fitted(changes)


def _check_data(args: argparse.Namespace, kind: str) -> None:
    """Refuse options that this kind of model has no use for."""
    given = vars(args)
    texts, pairs = ("corpus", "data", "weights", "val"), ("pairs", "source", "target")
    names = {"source": "from", "target": "to"}
    for name in texts if kind == "translator" else pairs:
        if given[name] is not None:
            hint = (
                "a translator learns from pairs: give --pairs FILE.tsv"
                if name in texts
                else "is for --model translator"
            )
            raise UsageError(f"--{names.get(name, name)}: {hint}")


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    """The settings that the options change: those with a name of their own, then --set."""
    options = {
        "data.corpus": args.corpus,
        "data.keep_newlines": args.keep_newlines,
        "data.files": args.data,
        "data.weights": args.weights,
        "data.held_out": args.val,
        "data.tokenizer": args.tokenizer,
        "data.pairs": args.pairs,
        "data.source": args.source,
        "data.target": args.target,
        "data.init": args.init,
        "training.checkpoint_every": args.checkpoint_every,
        "training.workers": args.workers,
        "training.seed": args.seed,
    }
    given = {key: value for key, value in options.items() if value is not None}
    if args.corpus is not None and args.data is not None:
        raise UsageError("give --corpus, a text, or --data, token files; not both")
    if args.corpus is not None:
        given |= {"data.files": [], "data.weights": [], "data.held_out": ""}
    return given | set_changes(args.set, ("data", "model", "training"))


def set_changes(given: Sequence[str], tables: Sequence[str]) -> dict[str, Any]:
    """The settings of --set, with their full names where one of these tables has them: "seed" is "training.seed"."""
    found: dict[str, Any] = {}
    changed: dict[str, str] = {}
    for change in given:
        key, value = parse_change(change)
        full = [known for known, _ in keys(tables) if known.endswith(f".{key}")]
        name = full[0] if len(full) == 1 else key
        if name in changed:
            raise UsageError(f"--set {changed[name]} and --set {change} set the same key: give it once")
        found[name], changed[name] = value, change
    return found
