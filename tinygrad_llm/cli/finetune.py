"""`tinygrad-llm finetune`: a base model and examples in; a classifier or an assistant out."""

import argparse
import sys
from typing import Any, TextIO

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, add_overwrite, add_seed, check_out, folder, integer
from tinygrad_llm.cli.progress import WIDTH, fold, listed, say
from tinygrad_llm.cli.train import alone, beginning, check_rest, launched, set_changes
from tinygrad_llm.cli.watch import watch
from tinygrad_llm.datasets.public import SHIPPED
from tinygrad_llm.finetuning.settings import TASKS
from tinygrad_llm.runs.config import RunConfig, keys
from tinygrad_llm.runs.finetune import FineTuneData, load_examples
from tinygrad_llm.runs.folder import RESULTS, RunFolder
from tinygrad_llm.runs.plan import plan_finetuning
from tinygrad_llm.runs.presets import fine_tuning
from tinygrad_llm.runs.run import Run, load_saved
from tinygrad_llm.storage.text import columns, padded, shortened, to_json

_NOT_OURS = "{}: this run is no fine-tuning: use `tinygrad-llm train --resume`"
_LONGEST_LABEL, _MOST_CLASSES = 28, 20  # columns of a label; rows of the table of classes
EXAMPLE = "tinygrad-llm finetune classifier messages --base runs/demo --out spam"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = fold(
        "Fine-tune a model: into a classifier of messages (label and text, separated by a tab), into an assistant "
        "(JSON with instruction, input and output), or on preferences (instruction, input, chosen and rejected). "
        "Stopping and resuming work as in `train`. The keys for --set:\n\n"
    ) + "\n".join(fold(text, f"  {key:<22} ", " " * 25) for key, text in keys(["finetune", "model"]) if _is_ours(key))
    parser.add_argument("task", nargs="?", choices=TASKS, help="what the model becomes: " + ", ".join(TASKS))
    parser.add_argument("data", nargs="?", help=f"the file with examples; {', '.join(SHIPPED)} ship with the package")
    parser.add_argument(
        "--base",
        metavar="MODEL",
        help="the model to start from: the folder of a run or of a GPT-2; of an encoder, for a classifier",
    )
    parser.add_argument("--out", type=folder, metavar="FOLDER", help="the folder of the new run")
    add_overwrite(parser, "a run that is already there")
    parser.add_argument("--resume", type=folder, metavar="RUN", help="continue the run in this folder")
    parser.add_argument("--plan", action="store_true", help="only print the cost: trained parameters, memory and time")
    parser.add_argument("--layers", choices=["all", "last", "head", "lora"], help="see finetune.layers above")
    parser.add_argument("--epochs", type=integer(1), metavar="N", help="passes over the examples")
    parser.add_argument("--steps", type=integer(1), metavar="N", help="updates, instead of --epochs")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="one setting; may be repeated")
    parser.add_argument("--workers", type=integer(1), metavar="N", help="number of threads (default: measured)")
    add_seed(parser, default=None)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    return launched(lambda: _finetune(args))


def _finetune(args: argparse.Namespace) -> int:
    if (args.out and args.resume) or not (args.out or args.resume or args.plan):
        raise UsageError("give --out FOLDER for a new run, or --resume RUN to continue one")
    out = sys.stderr if args.json else sys.stdout
    if args.plan:
        return _plan(args, out)
    run = _resumed(args) if args.resume else _new(args)
    say(beginning(run), out)
    status, written = watch(run, out)
    say(listed(written), out)
    if run.results is not None:
        say(to_json({"out": str(run.folder.path), **run.results}) if args.json else report(run.results))
    return status


def _plan(args: argparse.Namespace, out: TextIO) -> int:
    """Print what a run will cost."""
    alone("--plan")
    if args.resume:
        saved = load_saved(args.resume, _changes_of_resumed(args), args.steps)
        config, data, done = saved.config, saved.data, saved.step
    else:
        config = _configured(args)
        data, done = load_examples(config), 0
    if not isinstance(data, FineTuneData):
        raise UsageError(_NOT_OURS.format(args.resume))
    if data.base.config.kind != "gpt":
        raise UsageError("--plan: knows the cost of a gpt, and this base is an encoder: leave it out")
    costs = plan_finetuning(config, data, done)
    if args.resume:
        check_rest(RunFolder(args.resume, resumed=True), done, done + costs.steps)
    say(fold(data.summary, hang="    "), out)
    say(costs.sizes, out)
    say(to_json(costs.figures()) if args.json else costs.time)
    return 0


def _configured(args: argparse.Namespace) -> RunConfig:
    """The configuration: the task's preset, changed by the options."""
    if not (args.task and args.data and args.base):
        raise UsageError(f"name a task ({', '.join(TASKS)}), a file with examples, and --base MODEL")
    steps = {} if args.steps is None else {"training.steps": args.steps}
    return fine_tuning(args.task, args.data, args.base, {**steps, **_changes(args)})


def _new(args: argparse.Namespace) -> Run:
    config = _configured(args)
    return Run.new(config, check_out(args.out, args.overwrite, config.finetune.base))


def _resumed(args: argparse.Namespace) -> Run:
    run = Run.resume(args.resume, _changes_of_resumed(args), args.steps)
    if not run.config.finetune.task:
        raise UsageError(_NOT_OURS.format(args.resume))
    check_rest(run.folder, run.trainer.step, run.config.training.steps)
    return run


def _changes_of_resumed(args: argparse.Namespace) -> dict[str, Any]:
    if args.task or args.overwrite:
        raise UsageError("a run is resumed with its own task and data: give --resume RUN without them")
    return _changes(args)


def _is_ours(key: str) -> bool:
    """Whether a setting is for fine-tuning. Text, tokenizer and sizes are those of the base."""
    name = key.rpartition(".")[2]
    return name == "dropout" or name not in {known.rpartition(".")[2] for known, _ in keys(["data", "model"])}


def _changes(args: argparse.Namespace) -> dict[str, Any]:
    if args.epochs is not None and args.steps is not None:
        raise UsageError("give --epochs, passes over the examples, or --steps, updates; not both")
    options = {
        "finetune.base": args.base,
        "finetune.layers": args.layers,
        "training.epochs": args.epochs,
        "training.workers": args.workers,
        "training.seed": args.seed,
    }
    given = {key: value for key, value in options.items() if value is not None}
    given |= set_changes(args.set, ("training", "finetune"))
    for key in given:
        if not _is_ours(key):
            raise UsageError(f"--set {key}: is for `train`: a fine-tuned model has the sizes and tokenizer of its base")
    return given


def report(results: dict[str, Any]) -> str:
    """The figures of a test, as lines."""
    if "confusion" in results:
        return _classes(results)
    if "kinds" in results:
        return _kinds(results)
    return "\n".join(f"test {name.replace('_', ' '):<18} {value:.4f}" for name, value in results.items())


def _classes(results: dict[str, Any]) -> str:
    lines = ["accuracy: " + ", ".join(f"{part} {value:.1%}" for part, value in results["accuracy"].items()), ""]
    labels = [shortened(label, _LONGEST_LABEL) for label in results["labels"]]
    width = max(9, *map(columns, labels))
    header, counts = labels, [[str(count) for count in row] for row in results["confusion"]]
    if (width + 1) * (len(labels) + 4) <= WIDTH:
        lines.append("on the test part; a row for each true class, a column for each predicted one:")
    else:
        lines.append("on the test part; texts of each class, and how many are taken for another:")
        header, wrong = ["texts", "wrong"], results["confusion"]
        counts = [[str(sum(row)), str(sum(row) - row[i])] for i, row in enumerate(wrong)]
    rows = [[*counts[i], *_figures(results, i)] for i in range(len(labels))]
    shown = list(range(len(labels)))
    if len(labels) > _MOST_CLASSES:
        worst = sorted(shown, key=lambda i: results["f1"][i] if results["f1"][i] == results["f1"][i] else -1.0)
        shown = sorted(worst[:_MOST_CLASSES])
    cells = width if header is labels else 9
    for name, row in [("", [*header, "precision", "recall", "F1"]), *((labels[i], rows[i]) for i in shown)]:
        lines.append(" ".join([padded(name, width), *(padded(cell, cells, right=True) for cell in row)]))
    if len(labels) > len(shown):
        lines.append(f"and {len(labels) - len(shown)} classes with a better F1, which {RESULTS} lists")
    return "\n".join(lines)


def _figures(results: dict[str, Any], i: int) -> list[str]:
    found = [results[name][i] for name in ("precision", "recall", "f1")]
    return [f"{x:.1%}" if x == x else "–" for x in found]


def _kinds(results: dict[str, Any]) -> str:
    lines = [f"{'kind of task':<32} {'n':>5} {'exact':>8} {'token F1':>9}"]
    for kind, one in results["kinds"].items():
        lines.append(f"{padded(shortened(kind, 32), 32)} {one['n']:>5} {one['exact']:>8.1%} {one['f1']:>9.1%}")
    lines.append(f"{'all':<32} {results['n']:>5} {results['exact_match']:>8.1%} {results['token_f1']:>9.1%}")
    return "\n".join(lines)
