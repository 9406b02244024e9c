"""`tinygrad-llm bench`: ours against theirs, in one alternating run."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygrad_llm import __version__
from tinygrad_llm.bench import BenchError, Timing, machine, ratio
from tinygrad_llm.bench import tokenizer as subject
from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import integer
from tinygrad_llm.datasets import load_corpus

EXAMPLE = "tinygrad-llm bench tokenizer --against tiktoken tokenizers"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    subjects = parser.add_subparsers(dest="subject", metavar="SUBJECT", required=True)
    tokenizer = subjects.add_parser(
        "tokenizer", help="encode, decode and train, one thread each", epilog=f"example: {EXAMPLE}"
    )
    tokenizer.add_argument(
        "--against", nargs="*", choices=subject.THEIRS, help="whom to compare with (default: what is installed)"
    )
    tokenizer.add_argument("--rounds", type=integer(1), default=7, metavar="N", help="counted rounds (default 7)")
    tokenizer.add_argument(
        "--corpus", nargs="+", metavar="FILE", help="UTF-8 texts (default: python-docs, and the standard library)"
    )
    form = tokenizer.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the figures as JSON")
    form.add_argument("--markdown", action="store_true", help="print a Markdown table")


def run(args: argparse.Namespace) -> int:
    against = _installed(args.against)
    measures = []
    try:
        corpora = _corpora(args.corpus) if args.corpus else subject.standard_corpora()
        for measure in subject.measures(against, args.rounds, corpora):
            measures.append(measure)
            if not args.json:
                print(f"{measure.name}: done", file=sys.stderr)
    except BenchError as error:
        raise UsageError(str(error)) from error
    facts = machine() | {subject.OURS: __version__}
    if args.json:
        print(json.dumps({"machine": facts, "rows": [_row(measure) for measure in measures]}))
        return 0
    names = [subject.OURS, *against]
    head = ["", *names, *(f"ratio to {name}" for name in against)]
    lines = [[measure.name, *_cells(measure, names)] for measure in measures]
    print("\n".join(_markdown(head, lines) if args.markdown else _table(head, lines)))
    print()
    print("Median (min–max) of the rounds. Ratio: their median time over ours (least–greatest of a round);")
    print("above 1, ours is faster. One thread each, in turn, each in its own process.")
    versions = {subject.OURS: __version__}
    versions |= {timing.name: timing.about["version"] for measure in measures for timing in measure.timings[1:]}
    print(f"{facts['cpu'] or 'processor unknown'}, {facts['cores']} core(s); Python {facts['python']};", end=" ")
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    for measure in measures:
        for name in _different(measure):
            print(f"{measure.name}: {name} gives another result than {subject.OURS}")
    return 0


def _installed(asked: list[str] | None) -> list[str]:
    """Whom to compare with. What is missing is an error if it was asked for, else a note."""
    missing = [name for name in (subject.THEIRS if asked is None else asked) if not subject.installed(name)]
    line = f"{', '.join(missing)} not installed: pip install {' '.join(missing)}"
    if missing and asked is not None:
        raise UsageError(line)
    if missing:
        print(f"({line})", file=sys.stderr)
    return [name for name in (subject.THEIRS if asked is None else dict.fromkeys(asked)) if name not in missing]


def _corpora(names: list[str]) -> dict[str, Sequence[str]]:
    """One corpus of all these files."""
    return {", ".join(Path(name).name for name in names): [load_corpus(name) for name in names]}


def _different(measure: subject.Measure) -> list[str]:
    ours, *theirs = measure.timings
    return [timing.name for timing in theirs if timing.answer != ours.answer]


def _row(measure: subject.Measure) -> dict[str, Any]:
    """A measure as JSON; ratio and spread by name of the other."""

    def figures(timing: Timing) -> dict[str, Any]:
        seconds = {"median": timing.median, "min": timing.min, "max": timing.max, "rounds": list(timing.seconds)}
        rate = {} if measure.size is None else {"mb_per_second": measure.size / timing.median / 1e6}
        return {"seconds": seconds, **rate, **timing.about}

    ours, *theirs = measure.timings
    ratios = {timing.name: dataclasses.asdict(ratio(ours, timing)) for timing in theirs}
    different = _different(measure)
    return {
        "measure": measure.name,
        "ours": figures(ours),
        "theirs": {timing.name: figures(timing) | {"same_result": timing.name not in different} for timing in theirs},
        "ratio": {name: r["median"] for name, r in ratios.items()},
        "spread": {name: [r["low"], r["high"]] for name, r in ratios.items()},
    }


def _cells(measure: subject.Measure, names: list[str]) -> list[str]:
    """The figures of a measure in words: one a contender, then one a ratio; – for who did not take part."""
    ours = measure.timings[0]
    taking = {timing.name: timing for timing in measure.timings}
    cells = []
    for timing in map(taking.get, names):
        if timing is None:
            cells.append("–")
        elif measure.size is None:
            cells.append(f"{timing.median:.2f} ({timing.min:.2f}–{timing.max:.2f}) s")
        else:
            rates = [measure.size / seconds / 1e6 for seconds in (timing.median, timing.max, timing.min)]
            cells.append("{:.1f} ({:.1f}–{:.1f}) MB/s".format(*rates))
    for name in names[1:]:
        if name in taking:
            r = ratio(ours, taking[name])
            cells.append(f"{r.median:.2f} ({r.low:.2f}–{r.high:.2f})")
        else:
            cells.append("–")
    return cells


def _table(head: list[str], lines: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *lines]]


def _markdown(head: list[str], lines: list[list[str]]) -> list[str]:
    rule = ["---"] * len(head)
    return [f"| {' | '.join(line)} |" for line in [head, rule, *lines]]
