"""`tinygrad-llm sweep`: train one run for each combination of a grid of settings, and print a sorted table."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from tinygrad_llm.cli.options import add_json, check_out, folder
from tinygrad_llm.cli.progress import command_line, fold, listed, say
from tinygrad_llm.cli.watch import STOPPED, Signals, StepBar
from tinygrad_llm.runs.run import Run
from tinygrad_llm.runs.sweep import Outcome, check_folder, ranked, read_sweep, run_trial, write_table
from tinygrad_llm.storage.text import one_line
from tinygrad_llm.training import Step

EXAMPLE = "tinygrad-llm sweep sweep.toml --out runs/sweep"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Train one run for every combination of some settings, and rank them by held-out\n"
        "loss. Ctrl-C or SIGTERM lets the step end, saves and stops (exit status 130);\n"
        "the same command then resumes. The file:\n\n"
        "  [base]                         # shared by all runs\n"
        '  preset = "char-cpu"            # or config = "FILE"\n'
        "  training.steps = 500           # any of the keys in `train --help`\n\n"
        "  [grid]                         # the values to try: here 2 × 2 = 4 runs\n"
        "  training.lr = [1e-3, 3e-4]\n"
        "  model.n_layer = [2, 4]"
    )
    parser.add_argument("sweep", type=Path, metavar="SWEEP.toml", help="the settings and the grid")
    parser.add_argument(
        "--out",
        type=folder,
        required=True,
        metavar="FOLDER",
        help="a folder for the runs, one folder each, and the table",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    out = sys.stderr if args.json else sys.stdout
    sweep = read_sweep(args.sweep)
    for start in {start for trial in sweep.trials for start in (trial.config.data.init, trial.config.finetune.base)}:
        check_out(args.out, False, start)
    check_folder(sweep, args.out)
    say(fold(str(sweep), hang="    "), out)
    outcomes: list[Outcome] = []
    with Signals() as signals:
        for i, trial in enumerate(sweep.trials, 1):
            say(_name(trial.name, f"run {i}/{len(sweep.trials)}: ", "    "), out)
            shown = _Shown()
            try:
                outcome = run_trial(trial, args.out, lambda: signals.stopped, shown)
            finally:
                shown.close()
            outcomes.append(outcome)
            written = write_table(outcomes, args.out)
            say(fold(_words(outcome), "  ", "    "), out)
            if signals.stopped:
                break
    if args.json:
        say(json.dumps(json.loads(written[-1].read_text(encoding="utf-8")) | {"out": str(args.out)}))
    else:
        say("\n" + _table(outcomes) + "\n" + listed(written))
    if signals.stopped:
        again = command_line(["tinygrad-llm", "sweep", str(args.sweep), "--out", str(args.out)], "    ")
        say(f"stopped after {len(outcomes)} of {len(sweep.trials)} runs; to resume:\n{again}", sys.stderr)
        return STOPPED
    return 0 if any(outcome.status == "finished" for outcome in outcomes) else 3


class _Shown:
    """A progress bar of one run, from its first step on."""

    def __init__(self) -> None:
        self._progress: StepBar | None = None

    def __call__(self, run: Run, step: Step) -> None:
        if self._progress is None:
            self._progress = StepBar(run.config.training.steps, done=max(0, step.step - 1))
        self._progress.show(step)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.close()


def _words(outcome: Outcome) -> str:
    if outcome.reason:
        return f"{outcome.status}: {one_line(outcome.reason)}"
    return f"{outcome.status} after {outcome.steps} steps, held-out loss {_loss(outcome.val_loss)}"


def _loss(loss: float | None) -> str:
    return "-" if loss is None else f"{loss:.4f}" if loss < 1000 else f"{loss:.1e}"


def _table(outcomes: Sequence[Outcome]) -> str:
    rows = [("held-out", "training", "steps", "status", "run")]
    rows += [(_loss(o.val_loss), _loss(o.loss), str(o.steps), o.status, o.name) for o in ranked(outcomes)]
    lines = []
    for a, b, c, d, e in rows:
        numbers = f"{a:>10}{b:>10}{c:>8}  {d:<9} "
        lines.append(_name(e, numbers, " " * len(numbers)))
    return "\n".join(lines)


def _name(name: str, indent: str, hang: str) -> str:
    """The name of a run; a long one continues after a comma."""
    return indent + fold(name.replace(",", ", "), " " * len(indent), hang).lstrip().replace(", ", ",")
