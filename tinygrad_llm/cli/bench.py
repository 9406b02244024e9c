"""`tinygrad-llm bench`: our times against others', measured alternately, and against what the machine can do."""

import argparse
import contextlib
import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tinygrad_llm import __version__, runtime
from tinygrad_llm.bench import (
    BenchError,
    attention,
    decode,
    learn,
    machine,
    optimizer,
    profile,
    scaling,
    tokenizer,
    train,
)
from tinygrad_llm.bench.measure import OURS, Cases, Measure, Setup, busy, held_to, measure, missing
from tinygrad_llm.bench.table import NOTHING, ROUNDS, cells, markdown, notes, plain
from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.doctor import kernels
from tinygrad_llm.cli.options import integer
from tinygrad_llm.cli.progress import WIDTH, fold, is_terminal
from tinygrad_llm.datasets import load_corpus
from tinygrad_llm.storage.figure import new_figure, save_figure

EXAMPLE = "tinygrad-llm bench train --config char-cpu baby --against torch"

COMPILE = "torch-compile"


@dataclass(frozen=True)
class Theme:
    """A subcommand: what it times, the others it can compare with, and its cases (two have their own way)."""

    summary: str
    theirs: Sequence[str]
    cases: Callable[[argparse.Namespace], Cases] | None = None


THEMES = {
    "train": Theme("time a training step", train.THEIRS, lambda args: train.cases(args.config)),
    "decode": Theme("time generating a token with GPT-2's shape", decode.THEIRS, lambda _: decode.decode_cases()),
    "prefill": Theme("time reading a prompt with GPT-2's shape", decode.THEIRS, lambda _: decode.prefill_cases()),
    "attention": Theme("time causal attention and its gradient", attention.THEIRS, lambda _: attention.cases()),
    "optimizer": Theme("time clipping and AdamW with GPT-2's shape", optimizer.THEIRS, lambda _: optimizer.cases()),
    "tokenizer": Theme("time encoding (cold: by a new tokenizer), decoding and training one", tokenizer.THEIRS),
    "scaling": Theme("time and memory of a training step as each size grows", scaling.THEIRS),
    "learn": Theme("time training to a held-out loss with AdamW and with Muon", learn.THEIRS),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subjects = parser.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    for name, theme in THEMES.items():
        arguments = {"learn": " FILE", "scaling": " --out scaling.png"}.get(name, "")
        example = f"tinygrad-llm bench {name}{arguments} --against {' '.join(theme.theirs)}"
        example = EXAMPLE if name == "train" else example
        one = subjects.add_parser(name, help=theme.summary, epilog=f"example: {example}")
        if name == "train":
            configs = list(train.CONFIGS)
            words = f"which of {', '.join(configs)} (default: all)"
            one.add_argument("--config", nargs="+", choices=configs, default=configs, metavar="NAME", help=words)
            words = "print where the time of our step goes, by kernel, and compare nothing"
            one.add_argument("--profile", action="store_true", help=words)
        if name == "tokenizer":
            words = "UTF-8 texts (default: python-docs, and the standard library)"
            one.add_argument("--corpus", nargs="+", metavar="FILE", help=words)
        else:
            one.add_argument(
                "--threads", type=integer(1), metavar="N", help="threads for each contender (default: all cores)"
            )
        words = "measure beside one busy process per core: a machine that also does other work"
        one.add_argument("--busy", action="store_true", help=words)
        words = f"compare with these of {', '.join(theme.theirs)} (default: those installed)"
        one.add_argument("--against", nargs="*", choices=theme.theirs, metavar="NAME", help=words)
        if COMPILE in theme.theirs:
            one.add_argument("--compile", action="store_true", help=f"add {COMPILE} to --against")
        if name == "learn":
            _add_learn(one)
            continue
        if name == "scaling":
            _add_scaling(one)
            continue
        words = f"counted rounds (default {ROUNDS}; a ratio from fewer rounds is not reliable)"
        one.add_argument("--rounds", type=integer(1), default=ROUNDS, metavar="N", help=words)
        form = one.add_mutually_exclusive_group()
        form.add_argument("--json", action="store_true", help="print the figures as JSON")
        form.add_argument("--markdown", action="store_true", help="print a Markdown table")


def _add_learn(one: argparse.ArgumentParser) -> None:
    one.add_argument("file", metavar="FILE", help="a UTF-8 text, or the name of a corpus; its last tenth is held out")
    default, every = learn.PRESET.training.steps, learn.EVERY
    words = f"steps of each training, in turns of {every} (default {default})"
    one.add_argument("--steps", type=integer(every), default=default, metavar="N", help=words)
    words = "the held-out loss to reach, in nats per character (default: where AdamW ends)"
    one.add_argument("--loss", type=float, metavar="X", help=words)
    words = f"the highest learning rates (default: {' and '.join(f'{lr:g}' for lr in learn.RATES.values())})"
    one.add_argument("--lr", nargs=2, type=float, metavar=("ADAMW", "MUON"), default=learn.RATES.values(), help=words)
    one.add_argument("--json", action="store_true", help="print the figures and the curves as JSON")


def _add_scaling(one: argparse.ArgumentParser) -> None:
    axes = list(scaling.SIZES)
    words = f"which of {', '.join(axes)} grow, one after another (default: all)"
    one.add_argument("--axis", nargs="+", choices=axes, default=axes, metavar="NAME", help=words)
    one.add_argument("--rounds", type=integer(1), default=3, metavar="N", help="counted rounds (default 3)")
    one.add_argument("--out", type=Path, metavar="FILE.png", help="also draw the figures to this file")
    one.add_argument("--json", action="store_true", help="print the figures as JSON")


def run(args: argparse.Namespace) -> int:
    with busy(runtime.cores() if args.busy else 0):
        return _run(args)


def _run(args: argparse.Namespace) -> int:
    if vars(args).get("profile"):
        return _profile(args)
    asked = args.against
    if asked is not None and vars(args).get("compile"):  # without --against, all that are installed are compared
        asked = [*asked, COMPILE]
    against = _installed(asked, THEMES[args.subject].theirs)
    threads = 1 if args.subject == "tokenizer" else args.threads or runtime.cores()
    if args.subject == "learn":
        return _learn(args, against, threads)
    if args.subject == "scaling":
        return _scaling(args, against, threads)
    loads = [_load_average()]
    measures: list[Measure] = []
    try:
        for one in _measures(args, against, threads):
            measures.append(one)
            loads.append(_load_average())
            if not args.json:
                _progress("")
                print(f"{one.name}: done", file=sys.stderr)
    except BenchError as error:
        if measures:  # they took minutes, and are valid without the missing ones
            _show(args, against, measures, threads, loads)
        raise UsageError(str(error)) from error
    _show(args, against, measures, threads, loads)
    return 1 if any(one.different() for one in measures) else 0


def _show(
    args: argparse.Namespace,
    against: Sequence[str],
    measures: Sequence[Measure],
    threads: int,
    loads: Sequence[float | None],
) -> None:
    """Print all figures, in the form that was asked for."""
    beside = runtime.cores() if args.busy else 0
    facts = machine.facts() | {OURS: __version__, "load_average": _other_load(loads, threads + beside), "busy": beside}
    if args.json:
        about = {"machine": facts, "subject": args.subject, "threads": threads, "rounds": args.rounds}
        print(json.dumps(about | {"rows": [one.row() for one in measures]}))
        return
    rows = cells(measures, [OURS, *against])
    print("\n".join(markdown(rows) if args.markdown else plain(rows, WIDTH)), end="\n\n")
    advice = kernels(facts) if any(one.limits for one in measures) else []
    for line in [*notes(measures, facts, threads), *advice]:
        print(fold(line))


def _profile(args: argparse.Namespace) -> int:
    if args.against or args.compile or args.markdown or args.busy or args.rounds != ROUNDS:
        raise UsageError("--profile compares nothing: leave out --against, --compile, --markdown, --busy and --rounds")
    threads = args.threads or runtime.cores()
    rows: list[dict[str, Any]] = []
    try:
        with held_to(threads), runtime.blas_threads(threads), contextlib.closing(train.cases(args.config)) as cases:
            for case in cases:
                seconds, found = profile.profile(**case.options)
                kernels = {name: asdict(row) for name, row in found.items()}
                rows.append({"measure": case.name, "seconds": seconds, "kernels": kernels})
                if not args.json:
                    print("\n".join(profile.lines(case.name, seconds, found)), end="\n\n")
    except BenchError as error:
        raise UsageError(str(error)) from error
    if args.json:
        facts = machine.facts() | {OURS: __version__}
        print(json.dumps({"machine": facts, "subject": args.subject, "threads": threads, "rows": rows}))
    else:
        print(fold(f"One worker, {threads} thread(s) in BLAS; means of {profile.STEPS} steps. MB: inputs and outputs."))
    return 0


def _scaling(args: argparse.Namespace, against: Sequence[str], threads: int) -> int:
    names, found = [OURS, *against], list[scaling.Point]()
    if args.out is not None and not args.out.parent.is_dir():
        raise UsageError(f"--out {args.out}: there is no folder {args.out.parent}")
    try:
        if args.out is not None:
            new_figure()  # what is missing must be known before minutes of measuring
        setup = Setup(against, args.rounds, threads, (lambda what: None) if args.json else _progress)
        with held_to(threads):
            for point in scaling.points(list(dict.fromkeys(args.axis)), setup):
                found.append(point)
        facts = machine.facts() | {OURS: __version__}
        if args.out is not None:
            about = f"{facts['cpu'] or 'processor unknown'}, {threads} thread(s) each"
            save_figure(scaling.picture(found, names, about), args.out)
    except (BenchError, ImportError) as error:
        raise UsageError(str(error)) from error
    fitted = scaling.exponents(found, names)
    if args.json:
        rows = [{"axis": point.axis, "size": point.size} | point.measure.row() for point in found]
        figures = {"machine": facts, "subject": args.subject, "threads": threads, "rounds": args.rounds}
        print(json.dumps(figures | {"rows": rows, "exponents": fitted}))
        return 0
    _progress("")
    head = ["", *(f"{name}, {unit}" for name in names for unit in ("ms", "MB"))]
    lines = [[f"{p.axis} {p.size}", *(cell for name in names for cell in _costs(p, name))] for p in found]
    for axis, by_name in fitted.items():
        slopes = [by_name[name][cost] for name in names for cost in ("seconds", "memory")]
        lines.append([f"{axis}, exponent", *(NOTHING if a is None else f"{a:.2f}" for a in slopes)])
    print("\n".join(plain([head, *lines], WIDTH)), end="\n\n")
    print(
        fold(
            f"Medians of {args.rounds} round(s) in turns, {threads} thread(s) each, every line in new processes. MB: "
            "peak memory above the imports. Exponent a: the cost grows as size to the power of a."
        )
    )
    if args.out is not None:
        print(f"\nsaved {args.out}")
    return 0


def _costs(point: scaling.Point, name: str) -> list[str]:
    """The cells of a contender: milliseconds and MB."""
    seconds, memory = point.seconds(name), point.memory(name)
    return [f"{x:,.1f}" if x is not None else NOTHING for x in (seconds and 1e3 * seconds, memory and memory / 1e6)]


def _learn(args: argparse.Namespace, against: Sequence[str], threads: int) -> int:
    rates = dict(zip(learn.RATES, args.lr, strict=True))
    for option, values in (("--loss", [1.0 if args.loss is None else args.loss]), ("--lr", rates.values())):
        if not all(0 < value < math.inf for value in values):
            raise UsageError(f"{option} must be above 0 and finite, got {' '.join(f'{value:g}' for value in values)}")
    progress = (lambda what: None) if args.json else _progress
    try:
        with held_to(threads):
            learned = learn.learn(load_corpus(args.file), args.steps, against, threads, rates, progress)
    except BenchError as error:
        raise UsageError(str(error)) from error
    loss = learned[0].loss if args.loss is None else args.loss
    if args.json:
        rows = [asdict(one) | {"reached": one.reached(loss)} for one in learned]
        facts = machine.facts() | {OURS: __version__}
        figures = {"machine": facts, "subject": args.subject, "threads": threads, "loss": loss, "lr": rates}
        print(json.dumps(figures | {"rows": rows}))
        return 0
    _progress("")
    head = ["", "loss at the end", f"steps to {loss:.3f}", "time to it", "of the first"]
    print("\n".join(plain([head, *(_learned(one, learned[0], loss) for one in learned)], WIDTH)), end="\n\n")
    print(
        fold(
            f"{learned[0].curve[-1][0]} steps each, in turns of {learn.EVERY}, after which the held-out loss is "
            f"measured; its time is not counted. {threads} thread(s) each. Learning rates: "
            + ", ".join(f"{name} {rate:g}" for name, rate in rates.items())
        )
    )
    return 0


def _learned(one: learn.Learned, first: learn.Learned, loss: float) -> list[str]:
    """A row of the table of `bench learn`."""
    reached, reference = one.reached(loss), first.reached(loss)
    if reached is None:
        return [one.name, f"{one.loss:.3f}", NOTHING, NOTHING, NOTHING]
    share = f"{reached[1] / reference[1]:.0%}" if reference and reference[1] else NOTHING
    return [one.name, f"{one.loss:.3f}", str(reached[0]), f"{reached[1]:.1f} s", share]


def _load_average() -> float | None:
    """The average number of programs that wanted a core in the last minute; None if the system does not report it."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _other_load(loads: Sequence[float | None], threads: int) -> float | None:
    """The greatest load average that other programs caused.

    Args:     loads: the load average before the first round, and after each measure. The contenders take turns, so they
              account for at most `threads` of the latter. Often it is less; the result is then too low.
    """
    if loads[0] is None:
        return None
    return max([loads[0], *(load - threads for load in loads[1:] if load is not None)])


def _measures(args: argparse.Namespace, against: Sequence[str], threads: int) -> Iterator[Measure]:
    """Measure everything, and yield each measure when it is done."""
    theme = THEMES[args.subject]
    if theme.cases is None:
        corpora = _corpora(args.corpus) if args.corpus else tokenizer.standard_corpora()
        yield from tokenizer.measures(against, args.rounds, corpora)
        return
    setup = Setup(against, args.rounds, threads, (lambda what: None) if args.json else _progress)
    # Closing the generator removes the files of a case that an error or Ctrl-C ended.
    with held_to(threads), contextlib.closing(theme.cases(args)) as cases:
        for case in cases:
            yield measure(case, setup)


def _progress(what: str) -> None:
    """On a terminal, replace the last line by this one."""
    if is_terminal(sys.stderr):
        print(f"\r\x1b[K{what}", end="", file=sys.stderr, flush=True)


def _installed(asked: list[str] | None, theirs: Sequence[str]) -> list[str]:
    """The contenders that are installed. A missing one is an error if it was asked for, and otherwise a note."""
    wanted = list(dict.fromkeys(theirs if asked is None else asked))
    packages = list(dict.fromkeys(package for name in wanted for package in missing(name)))
    line = f"{', '.join(packages)} not installed: pip install {' '.join(packages)}"
    if packages and asked is not None:
        raise UsageError(line)
    if packages:
        print(f"({line})", file=sys.stderr)
    return [name for name in wanted if not missing(name)]


def _corpora(names: list[str]) -> dict[str, Sequence[str]]:
    """One corpus made of all these files."""
    return {", ".join(Path(name).name for name in names): [load_corpus(name) for name in names]}
