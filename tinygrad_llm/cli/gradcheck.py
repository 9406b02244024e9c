"""`tinygrad-llm gradcheck`: the ledger, printed."""

import argparse
import dataclasses
import itertools
import json
import math
import os
import sys
import time

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, add_seed
from tinygrad_llm.gradcheck import Row, all_cases, uncovered
from tinygrad_llm.gradcheck import run as run_cases
from tinygrad_llm.kernels import KERNELS

EXAMPLE = "tinygrad-llm gradcheck layer_norm GPT"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="NAME", help="kernels and layers (default: all)")
    add_seed(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    cases = all_cases()
    known = {case.covers for case in cases}
    unknown = [name for name in args.names if name not in known]
    if unknown:
        raise UsageError(f"no kernel or layer named {', '.join(unknown)}; there are: {', '.join(sorted(known))}")
    missing = [] if args.names else uncovered(cases)
    chosen = [case for case in cases if not args.names or case.covers in args.names]
    began = time.perf_counter()
    rows: list[Row] = []
    title = ""
    for covers, group in itertools.groupby(run_cases(chosen, args.seed), key=lambda row: row.covers):
        done = list(group)
        rows += done
        if not args.json:
            above, title = title, "kernels" if covers in KERNELS else "layers and models"
            if title != above:
                _heading(title)
            _print(covers, done)
    seconds = time.perf_counter() - began
    failed = [row for row in rows if not row.passed]
    exact = max((row.error for row in rows if row.method == "complex" and math.isfinite(row.error)), default=None)
    if args.json:
        figures = {"cases": len(rows), "failed": len(failed), "uncovered": missing, "worst": exact}
        # JSON has no NaN, which is the error of a case that could not be measured.
        errors = [{"error": row.error if math.isfinite(row.error) else None} for row in rows]
        figures["rows"] = [dataclasses.asdict(row) | error for row, error in zip(rows, errors, strict=True)]
        print(json.dumps(figures | {"seconds": seconds}))
    else:
        for row in failed:
            print(f"{_colour('FAILED', 31)} {row.name}: {row.message}")
        for name in missing:
            print(f"{_colour('NO CASE', 31)} {name}: add one to tinygrad_llm/gradcheck/cases.py")
        elements = sum(row.elements for row in rows)
        print(
            f"\n{len(rows)} cases, {elements:,} derivatives, each checked by itself, {len(failed)} failed, "
            f"in {seconds:.1f} s" + ("" if exact is None else f"; worst error by complex step {exact:.1e}")
        )
    return 1 if failed or missing else 0


def _heading(title: str) -> None:
    print(f"\n{title:<24}{'cases':>6}{'elements':>10}{'worst error':>13}{'allowed':>9}  method")


def _print(covers: str, rows: list[Row]) -> None:
    worst = max(rows, key=lambda row: row.error / row.tolerance if row.error == row.error else float("inf"))
    passed = all(row.passed for row in rows)
    mark = _colour("ok", 32) if passed else _colour("FAILED", 31)
    elements = sum(row.elements for row in rows)
    print(
        f"{covers:<24}{len(rows):>6}{elements:>10,}{worst.error:>13.1e}{worst.tolerance:>9.0e}  "
        f"{worst.method:<11}{mark}",
        flush=True,
    )


def _colour(text: str, code: int) -> str:
    """ANSI colour where a terminal shows it, and the user has not asked for none (no-color.org)."""
    return f"\x1b[{code}m{text}\x1b[0m" if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else text
