"""`tinygrad-llm bench`: ours against theirs, in one alternating run, and against what the machine can do."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygrad_llm import __version__, runtime
from tinygrad_llm.bench import BenchError, Timing, attention, decode, load, optimizer, ratio, tokenizer, train
from tinygrad_llm.bench.measure import OURS, Cases, Measure, Setup, held_to, measure, missing
from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.doctor import kernels
from tinygrad_llm.cli.options import integer
from tinygrad_llm.datasets import load_corpus

EXAMPLE = "tinygrad-llm bench train --config char-cpu baby --against torch"

COMPILE = "torch-compile"

ROUNDS = 7  # of fewer, one that another program disturbed moves the median
BUSY = 0.5  # load average of a machine that does other things too


@dataclass(frozen=True)
class Theme:
    """A subcommand: what it times, whom it can compare with, and its cases."""

    summary: str
    theirs: Sequence[str]
    cases: Callable[[argparse.Namespace], Cases]


THEMES = {
    "train": Theme("a training step", train.THEIRS, lambda args: train.cases(args.config)),
    "scaling": Theme("a training step over T, C and batch", train.THEIRS, lambda args: train.scaling()),
    "decode": Theme("writing a token with GPT-2's shape", decode.THEIRS, lambda args: decode.decode_cases()),
    "prefill": Theme("reading a prompt with GPT-2's shape", decode.THEIRS, lambda args: decode.prefill_cases()),
    "attention": Theme("causal self-attention and its gradient", attention.THEIRS, lambda args: attention.cases()),
    "optimizer": Theme("clipping and AdamW with GPT-2's shape", optimizer.THEIRS, lambda args: optimizer.cases()),
    "load": Theme("reading a safetensors file of GPT-2's shape", load.THEIRS, lambda args: load.cases()),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subjects = parser.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    for name, theme in THEMES.items():
        example = EXAMPLE if name == "train" else f"tinygrad-llm bench {name} --against {theme.theirs[0]}"
        one = subjects.add_parser(name, help=theme.summary, epilog=f"example: {example}")
        if name == "train":
            one.add_argument(
                "--config", nargs="+", choices=train.CONFIGS, default=list(train.CONFIGS), help="which (default: all)"
            )
        one.add_argument(
            "--threads", type=integer(1), metavar="N", help="of each (default: all cores this process may use)"
        )
        if COMPILE in theme.theirs:
            one.add_argument("--compile", action="store_true", help=f"as if --against named {COMPILE} too")
        _add_common(one, theme.theirs)
    example = "tinygrad-llm bench tokenizer --against tiktoken tokenizers"
    one = subjects.add_parser(
        "tokenizer", help="encode, decode and train, one thread each", epilog=f"example: {example}"
    )
    one.add_argument(
        "--corpus", nargs="+", metavar="FILE", help="UTF-8 texts (default: python-docs, and the standard library)"
    )
    _add_common(one, tokenizer.THEIRS)


def _add_common(parser: argparse.ArgumentParser, theirs: Sequence[str]) -> None:
    parser.add_argument(
        "--against", nargs="*", choices=theirs, help="whom to compare with (default: what is installed)"
    )
    parser.add_argument(
        "--rounds", type=integer(1), default=ROUNDS, metavar="N",
        help=f"counted rounds (default {ROUNDS}; fewer are too few for a ratio to be trusted)",
    )  # fmt: skip
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the figures as JSON")
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")


def run(args: argparse.Namespace) -> int:
    theirs = tokenizer.THEIRS if args.subject == "tokenizer" else THEMES[args.subject].theirs
    asked = args.against
    if asked is not None and vars(args).get("compile"):  # left out, it is all that are installed
        asked = [*asked, COMPILE]
    against = _installed(asked, theirs)
    facts = runtime.facts() | {OURS: __version__}
    threads = 1 if args.subject == "tokenizer" else args.threads or runtime.cores()
    loads = [_load_average()]
    measures: list[Measure] = []

    def show() -> None:
        facts["load_average"] = _beside(loads, threads)
        if args.json:
            rows = [one.row() for one in measures]
            about = {"machine": facts, "subject": args.subject, "threads": threads, "rounds": args.rounds}
            print(json.dumps(about | {"rows": rows}))
            return
        head, lines = _cells(measures, [OURS, *against])
        print("\n".join(_markdown(head, lines) if args.markdown else _table(head, lines)))
        print()
        print("\n".join(_words(measures, facts, threads)))

    try:
        for one in _measures(args, against, threads):
            measures.append(one)
            loads.append(_load_average())
            if not args.json:
                _clear()
                print(f"{one.name}: done", file=sys.stderr)
    except BenchError as error:
        if measures:  # they took minutes, and are as good as if the others had followed
            show()
        raise UsageError(str(error)) from error
    show()
    return 1 if any(one.different() for one in measures) else 0


def _load_average() -> float | None:
    """How many programs wanted a core in the last minute, on the average; None where the system does not tell."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def _beside(loads: Sequence[float | None], threads: int) -> float | None:
    """The greatest load average that is not our doing: of one before the first round, and one after each measure.

    The contenders take turns, so that of the latter at most `threads` are theirs; often it is less, and what other
    programs took is then told too low.
    """
    if loads[0] is None:
        return None
    return max([loads[0], *(load - threads for load in loads[1:] if load is not None)])


def _measures(args: argparse.Namespace, against: Sequence[str], threads: int) -> Iterator[Measure]:
    """Run everything, and hand out each measure as it is done."""
    if args.subject == "tokenizer":
        corpora = _corpora(args.corpus) if args.corpus else tokenizer.standard_corpora()
        yield from tokenizer.measures(against, args.rounds, corpora)
        return
    setup = Setup(against, args.rounds, threads, (lambda what: None) if args.json else _progress)
    # Closing removes the files of a case that an error or Ctrl-C ended.
    with held_to(threads), contextlib.closing(THEMES[args.subject].cases(args)) as cases:
        for case in cases:
            yield measure(case, setup)


def _progress(what: str) -> None:
    """Show on a terminal how far it has come, in a line that the next one takes."""
    if sys.stderr.isatty():
        _clear()
        print(what, end="", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)


def _installed(asked: list[str] | None, theirs: Sequence[str]) -> list[str]:
    """Whom to compare with. What is missing is an error if it was asked for, else a note."""
    wanted = list(dict.fromkeys(theirs if asked is None else asked))
    packages = list(dict.fromkeys(package for name in wanted for package in missing(name)))
    line = f"{', '.join(packages)} not installed: pip install {' '.join(packages)}"
    if packages and asked is not None:
        raise UsageError(line)
    if packages:
        print(f"({line})", file=sys.stderr)
    return [name for name in wanted if not missing(name)]


def _corpora(names: list[str]) -> dict[str, Sequence[str]]:
    """One corpus of all these files."""
    return {", ".join(Path(name).name for name in names): [load_corpus(name) for name in names]}


# ---- the words ---------------------------------------------------------------------------------------------------


def _cells(measures: Sequence[Measure], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The head of the table, and its lines: a figure of each contender, the ratios, and what the machine can do."""
    head = ["", *names, *(f"ratio to {name}" for name in names[1:])]
    limited = any(one.limits for one in measures)
    if limited:
        head += ["limit", "our share of it", f"peak memory, MB: {' / '.join(names)}"]
    return head, [_line(one, names, limited) for one in measures]


def _line(one: Measure, names: Sequence[str], limited: bool) -> list[str]:
    """The cells of a measure; – for who did not take part."""
    ours = one.timings[0]
    taking = {timing.name: timing for timing in one.timings}
    different = one.different()
    cells = [one.name, *(_figure(one, taking.get(name)) for name in names)]
    for name in names[1:]:
        if name not in taking:
            cells.append("–")
        elif name in different:
            cells.append("another result")
        else:
            r = ratio(ours, taking[name])
            cells.append(f"{r.median:.2f} ({r.low:.2f}–{r.high:.2f})")
    if limited and one.limit is not None:
        memory = [timing.about.get("memory", {}).get("peak") for timing in map(taking.get, names) if timing]
        peaks = " / ".join("unknown" if peak is None else f"{peak / 1e6:,.0f}" for peak in memory)
        cells += [_say(one, ours, [one.limit]), f"{one.limit / ours.median:.0%}", peaks]
    return cells


def _figure(one: Measure, timing: Timing | None) -> str:
    return "–" if timing is None else _say(one, one.timings[0], [timing.median, timing.min, timing.max])


def _say(one: Measure, ours: Timing, seconds: Sequence[float]) -> str:
    """Seconds, or the rate at which that much is done; the first with all others as its spread."""
    case = one.case
    if case.amount is not None:
        figures, unit = sorted(case.amount / s for s in seconds[1:]), case.unit
        figures = [case.amount / seconds[0], *figures]
    else:
        scale, unit = (1e3, "ms") if ours.median < 1 else (1.0, "s")
        figures = [scale * s for s in seconds]
    median, *spread = map(_number, figures)
    return f"{median} ({'–'.join(spread)}) {unit}" if spread else f"{median} {unit}"


def _number(x: float) -> str:
    """Three digits, or all before the point."""
    return f"{x:,.{2 if x < 10 else 1 if x < 100 else 0}f}"


def _words(measures: Sequence[Measure], facts: dict[str, Any], threads: int) -> Iterator[str]:
    """What belongs below the table: how to read it, what it was made on and by."""
    counts = sorted({one.rounds for one in measures})
    rounds = f"{' or '.join(map(str, counts))} round{'' if counts == [1] else 's'}"
    yield f"Median (min–max) of {rounds}. Ratio: their median time over ours (least–greatest of a round);"
    yield f"above 1, ours is faster. {threads} thread(s) each, in turn, each in its own process."
    few = [one.name for one in measures if one.rounds < ROUNDS and len(one.timings) > 1]
    if few:
        yield f"Too few rounds for a ratio to be trusted (fewer than {ROUNDS}): {', '.join(few)}"
    limits = [one.limits for one in measures if one.limits]
    if limits:
        flops, bandwidth = max(limit.flops for limit in limits), max(limit.bandwidth for limit in limits)
        yield f"Limit: at NumPy's best rates in the same run, up to {flops / 1e9:.0f} GF/s in float32 products and"
        yield f"{bandwidth / 1e9:.0f} GB/s in reading memory (a matrix times a vector)."
    cpu, busy = facts["cpu"] or "processor unknown", facts["load_average"]
    yield f"{cpu}, {facts['cores']} core(s); Python {facts['python']}, NumPy {facts['numpy']}"
    if busy is not None and busy > BUSY:
        yield f"The machine was not quiet: a load average of {busy:.1f} beside the contenders' own. Figures may be off."
    about = {timing.name: timing.about for one in measures for timing in one.timings}
    about[OURS] = {"version": __version__, **about.get(OURS, {})}
    for name, what in about.items():
        how = [what["blas"]] if "blas" in what else []
        how += _workers(measures) if name == OURS else []
        yield f"{name} {what['version']}{': ' if how else ''}{'; '.join(how)}"
    for one in measures:
        for name in one.different():
            yield f"{one.name}: {name} gives another result than {OURS}, so there is no ratio"
    if limits:
        yield from kernels(facts)


def _workers(measures: Sequence[Measure]) -> list[str]:
    """How many workers the trainer chose, and for which measures, if not for all the same."""
    chosen: dict[int, list[str]] = {}
    for one in measures:
        workers = one.timings[0].about.get("workers")
        if workers is not None:
            chosen.setdefault(workers, []).append(one.name)
    if len(chosen) < 2:
        return [f"{workers} worker(s)" for workers in chosen]
    return [", ".join(f"{workers} worker(s) ({', '.join(names)})" for workers, names in chosen.items())]


def _table(head: list[str], lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *lines]]


def _markdown(head: list[str], lines: list[list[str]]) -> list[str]:
    rule = ["---"] * len(head)
    return [f"| {' | '.join(line)} |" for line in [head, rule, *lines]]
