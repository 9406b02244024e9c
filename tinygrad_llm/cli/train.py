"""`tinygrad-llm train`: a text, or files of tokens, in; a run folder out. What was stopped goes on with --resume."""

import argparse
import json
import os
import shlex
import signal
import socket
import sys
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, TextIO

import numpy as np

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, check_out, folder, integer
from tinygrad_llm.cli.progress import StepBar, say
from tinygrad_llm.datasets import CORPORA
from tinygrad_llm.runs.config import (
    RunConfig,
    keys,
    parse_change,
    read_toml,
)
from tinygrad_llm.runs.plan import measure_run, plan_run
from tinygrad_llm.runs.presets import PRESETS, find_preset
from tinygrad_llm.runs.run import Run
from tinygrad_llm.runs.tensorboard import find_writer
from tinygrad_llm.storage.text import to_json
from tinygrad_llm.training import ConfigError
from tinygrad_llm.training.workers import LaunchError, led, processes

EXAMPLE = "tinygrad-llm train --corpus python-docs --preset char-cpu --steps 500 --out runs/docs"
PRESET = "char-cpu"
_HANGUP = getattr(signal, "SIGHUP", None)  # the terminal was closed
_STOP = [signal.SIGINT, signal.SIGTERM, *([_HANGUP] if _HANGUP else [])]
STOPPED = 130  # exit status: on request, saved, to be gone on with; a shell's own number for Ctrl-C


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Train a GPT on a text. Ctrl-C, or SIGTERM, lets the step end, saves and stops (exit status 130);\n"
        "--resume goes on from there as if nothing had happened. NaN or infinity end it with exit status 3, and keep\n"
        "the last good checkpoint. The settings come from the preset, then --config, then the options below, then\n"
        "--set, which knows these keys:\n\n" + "\n".join(f"  {key:<27} {text}" for key, text in keys())
    )
    parser.add_argument("--corpus", help=f"{', '.join(CORPORA)}, or the path of a UTF-8 text file (default: stories)")
    parser.add_argument("--data", nargs="+", metavar="TOKENS", help="token files, made by `tinygrad-llm tokenizer`")
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="how often each of them is drawn from")
    parser.add_argument("--val", metavar="TOKENS", help="a token file to measure on (default: the last tenth of each)")
    parser.add_argument("--tokenizer", help="gpt2, a tokenizer's file, or a run; char or bpe are learned from the text")
    parser.add_argument("--preset", help=f"sizes and settings: {', '.join(PRESETS)} (default: {PRESET})")
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file, such as RUN/config.toml")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting; may be repeated")
    parser.add_argument(
        "--steps", type=integer(1), help="how many updates (default: the preset's); resumed: how many more"
    )
    parser.add_argument(
        "--checkpoint-every", type=integer(1), metavar="N", help="steps (default: at each held-out loss)"
    )
    parser.add_argument("--out", type=folder, metavar="FOLDER", help="where the run goes")
    parser.add_argument("--overwrite", action="store_true", help="replace a run that is already there")
    parser.add_argument("--resume", type=folder, metavar="RUN", help="go on with a run that was stopped, in its folder")
    parser.add_argument("--plan", action="store_true", help="only say what it will cost: memory, arithmetic and time")
    parser.add_argument("--workers", type=integer(1), metavar="N", help="threads (default: chosen by the machine)")
    parser.add_argument("--seed", type=integer(0), metavar="N", help="of all randomness (default: the preset's)")
    parser.add_argument("--tensorboard", action="store_true", help="write the figures for TensorBoard as well")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    try:
        return led(lambda: _train(args))
    except LaunchError as error:
        raise UsageError(str(error)) from None


def _train(args: argparse.Namespace) -> int:
    number = processes().size
    if (args.out and args.resume) or not (args.out or args.resume or args.plan):
        raise UsageError("give --out FOLDER for a new run, or --resume RUN to go on with one")
    if args.plan and number > 1:
        raise UsageError(f"--plan is for one process, and here are {number}: call it without mpiexec")
    if args.tensorboard and find_writer() is None:
        raise UsageError("--tensorboard needs a package that writes its files: pip install tensorboardX")
    out = sys.stderr if args.json else sys.stdout
    try:
        training = _resumed(args) if args.resume else _new(args)
        if args.plan:
            costs = plan_run(training)
            say(costs.sizes, out)
            costs = measure_run(training, costs)
            say(json.dumps(costs.figures()) if args.json else costs.time)
            return 0
        tokenizer, model = training.tokenizer, training.model
        tokens = [sum(map(len, part)) for part in (training.sources, training.held_out)]
        say(
            (f"{len(training.text):,} characters, " if training.text else "")
            + f"{tokens[0]:,} + {tokens[1]:,} tokens (vocabulary {tokenizer.n_vocab}); "
            f"{model.num_parameters():,} parameters; {training.settings.steps} steps"
            + (f" on {number} processes" if number > 1 else "")
            + (f", going on after step {training.trainer.step}" if args.resume else "")
            + f"\n{training.trainer.optimizer}"
            + (_how_to_stop() if number > 1 else ""),
            out,
        )
    except ConfigError as error:
        raise UsageError(str(error)) from None
    status, written = watch(training, out, args.tensorboard)
    last = training.steps[-1]
    if args.json:
        figures = {"out": str(training.folder), "steps": last.step, "loss": last.loss, "val_loss": last.val_loss}
        figures |= {"tokens_per_second": last.tokens_per_second, "parameters": model.num_parameters()}
        say(to_json(figures | {"skipped": training.trainer.skipped}))
    else:
        if last.val_loss is not None:
            say(f"held-out loss {last.val_loss:.3f} nats a token after {last.step} steps")
        if training.trainer.skipped:
            say(f"{training.trainer.skipped} steps were skipped: their loss or gradient was NaN or infinite")
        say("wrote " + ", ".join(str(path) for path in written))
        if not any(path.suffix == ".png" for path in written):
            say("for pictures of losses and gradients: pip install 'tinygrad_llm[app]'")
        if status:
            say("next: " + shlex.join(["tinygrad-llm", "train", "--resume", str(training.folder)]))
        else:
            # A prompt that the tokenizer is sure to know; byte pairs need none.
            prompt = [] if tokenizer.eot_token is not None else ["--prompt=" + _known_words(training)]
            say("next: " + shlex.join(["tinygrad-llm", "generate", str(training.folder), *prompt, "--seed", "1"]))
    return status


def _how_to_stop() -> str:
    """Open MPI's mpiexec, when it is stopped, kills its processes before they can be relied on to have saved."""
    where = f"kill -INT {os.getpid()} on {socket.gethostname()}"
    return f"\nto stop and save: {where}; Ctrl-C on mpiexec may end it unsaved"


def configured(args: argparse.Namespace) -> RunConfig:
    """What preset, file and options come to, in this order.

    Raises:   ConfigError: an unknown preset or key, a wrong value. OSError: the file cannot be read.
    """
    values = read_toml(args.config) if args.config else {}
    named = values.pop("preset", "")  # none, in a file that says everything itself
    config = find_preset((named or PRESET) if args.preset is None else args.preset)
    try:
        config = config.changed(values)
    except ConfigError as error:
        raise ConfigError(f"{args.config}: {error}") from None
    return config.shortened(args.steps).changed(_changes(args))


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    """What the options change: those with a name of their own, then --set."""
    options = {
        "data.corpus": args.corpus,
        "data.files": args.data,
        "data.weights": args.weights,
        "data.held_out": args.val,
        "data.tokenizer": args.tokenizer,
        "training.checkpoint_every": args.checkpoint_every,
        "training.workers": args.workers,
        "training.seed": args.seed,
    }
    given = {key: value for key, value in options.items() if value is not None}
    if args.corpus is not None and args.data is not None:
        raise UsageError("give --corpus, a text, or --data, token files; not both")
    if args.corpus is not None:
        given |= {"data.files": [], "data.weights": [], "data.held_out": ""}
    changed: dict[str, str] = {}
    for change in args.set:
        key, value = parse_change(change)
        full = [known for known, _ in keys() if known.endswith(f".{key}")]  # or --seed and --set seed=1 would be two
        name = full[0] if len(full) == 1 else key
        if name in changed:
            raise UsageError(f"--set {changed[name]} and --set {change} are of one key: give it once")
        given[name], changed[name] = value, change
    return given


def _new(args: argparse.Namespace) -> Run:
    config = configured(args)
    training = Run(config, (args.out or Path("run")) if args.plan else check_out(args.out, args.overwrite))
    training.make_tokenizer()
    if not args.plan:  # which looks first whether there is the memory
        training.make_model()
    return training


def _resumed(args: argparse.Namespace) -> Run:
    if args.preset or args.config:
        raise UsageError("a run is resumed with its own configuration: leave out --preset and --config")
    if args.overwrite:
        raise UsageError("--overwrite replaces a run, and --resume goes on with it: give one of them")
    training = Run.resume(args.resume, _changes(args), args.steps, hold=not args.plan)
    done, steps = training.trainer.step, training.settings.steps
    if done > steps:
        raise UsageError(f"{args.resume}: {done} steps are done, more than the {steps} asked for")
    if done == steps and training.saved:
        raise UsageError(f"{args.resume}: all its {steps} steps are done; add --steps N to go on for N more")
    return training


def _sample(training: Run) -> str:
    try:
        with np.errstate(all="ignore"):
            return training.sample(60).strip()
    except ValueError as error:  # a run that goes astray is told of by its losses, and need not end here
        return f"(nothing: {error})"


def _known_words(training: Run) -> str:
    """The beginning of the text, or of the tokens."""
    text = training.text or training.tokenizer.decode(training.sources[0][:100].tolist())
    return (text.split() or [text])[0][:10]


class Signals:
    """Inside, the first Ctrl-C, SIGTERM or SIGHUP is noted, and a second Ctrl-C or SIGTERM ends the program.

    `stopped` says whether it came. The program should save then, and exit with `STOPPED`.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "Signals":
        if threading.current_thread() is threading.main_thread():  # Python allows it nowhere else
            for number in _STOP:
                if number != _HANGUP or signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                    self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.stopped and number != _HANGUP:  # of which the shell and the system send one each
            raise KeyboardInterrupt
        self.stopped = True


def watch(training: Run, out: TextIO, tensorboard: bool = False) -> tuple[int, list[Path]]:
    """Train with a progress bar, and a sample at each evaluation, on `out`; and save.

    Returns:  the exit status: 0, or 130 when Ctrl-C or SIGTERM came before the last step; and what was written.
    Raises:   KeyboardInterrupt: a second Ctrl-C. TrainingError, InUseError: as `Run.train`.
    """
    progress = StepBar(training.settings.steps, done=training.trainer.step)
    with Signals() as signals:
        try:
            for step in training.train(lambda: signals.stopped, tensorboard):
                progress.show(step)
                if step.skipped:
                    progress.write(
                        f"step {step.step}: skipped, its loss is {step.loss}, gradient {step.grad_norm}", out
                    )
                if step.spike:
                    progress.write(
                        f"step {step.step}: loss {step.loss:.3f} is {step.z_score:.1f} standard deviations above the "
                        "last hundred",
                        out,
                    )
                if step.val_loss is not None:
                    text = _sample(training).replace("\n", "\n    ") or "(nothing: it ends the text at once)"
                    progress.write(
                        f"\nstep {step.step}: held-out loss {step.val_loss:.3f}. It writes:\n    {text}\n", out
                    )
        finally:
            progress.close()
        stopped = training.trainer.step < training.settings.steps
        if stopped:
            say(f"\nstopped after step {training.trainer.step}; saving", sys.stderr)
        return STOPPED if stopped else 0, training.save()
