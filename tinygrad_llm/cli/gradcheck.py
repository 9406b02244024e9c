"""`tinygrad-llm gradcheck`: print the ledger, test the checker with mutants, or show the error of each step size."""

import argparse
import dataclasses
import itertools
import math
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, add_overwrite, add_seed, check_new, color
from tinygrad_llm.cli.progress import fold
from tinygrad_llm.gradcheck import TOLERANCE, Case, Row, all_cases, curve, mutants, uncovered
from tinygrad_llm.gradcheck import run as run_cases
from tinygrad_llm.kernels import KERNELS
from tinygrad_llm.storage.text import nearest, to_json

EXAMPLE = "tinygrad-llm gradcheck layer_norm GPT"

# The columns of errors, and which methods stand in each.
COLUMNS = {
    "exact": ("complex", "directions", "formula"),
    "diff.": ("richardson", "central"),
    "adjoint": ("adjoint",),
    "float32": ("float32",),
}
NAME = 30  # columns of a name
LEGEND = (
    "exact: the complex step, element by element; for optimizers, their formula.\n"
    "diff.: Richardson's differences, for functions with a kink.\n"
    "adjoint: linear kernels on integers; only equality passes.\n"
    "float32: the distance of the gradient in float32 from the one in float64."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="kernels, functions, layers, optimizers (default: all)"
    )
    parser.add_argument(
        "--method",
        choices=TOLERANCE,
        metavar="METHOD",
        help=f"check by this method only: {', '.join(TOLERANCE)} (default: the sharpest for each)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--mutants", action="store_true", help="plant wrong gradients, and report which are caught")
    what.add_argument("--curve", metavar="NAME", help="print the error of each method at each step size")
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="with --curve: also draw it to this file")
    add_overwrite(parser)
    add_seed(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.out is not None and args.curve is None:
        raise UsageError("--out is the picture of a --curve: add --curve NAME")
    if args.overwrite and args.out is None:
        raise UsageError("--overwrite is for the picture of a --curve: add --out FILE.png")
    if args.out is not None and (args.out.suffix != ".png" or args.out.is_dir() or not args.out.parent.is_dir()):
        raise UsageError(f"--out must be a .png file in an existing folder, got {args.out}")
    if args.out is not None:
        check_new(args.out, args.overwrite)
    if args.curve is not None:
        if args.names or args.method:
            raise UsageError("--curve takes one name and uses every method: leave out other names and --method")
        return _curve(args)
    return _mutants(args) if args.mutants else _ledger(args)


def _known(names: Sequence[str], known: Iterable[str]) -> None:
    known = list(dict.fromkeys(known))
    for name in names:
        if name not in known:
            raise UsageError(f"nothing is named {name!r}{nearest(name, known)}")


# ---- the ledger --------------------------------------------------------------------------------------------------


def _ledger(args: argparse.Namespace) -> int:
    cases = all_cases()
    _known(args.names, [case.covers for case in cases])
    missing = [] if args.names else uncovered(cases)
    chosen = [case for case in cases if not args.names or case.covers in args.names]
    if args.method:
        chosen = _by(args.method, chosen, args.names)
    began = time.perf_counter()
    rows: list[Row] = []
    for covers, some in itertools.groupby(run_cases(chosen, args.seed), key=lambda row: row.covers):
        done = list(some)
        group = done[0].group
        if not args.json:
            if not rows or rows[-1].group != group:
                columns = "".join(f"{name:>8}" for name in COLUMNS)
                print(f"\n{group:<{NAME}}{'cases':>5}{'numbers':>8}{columns}")
            _print_row(covers, done)
        rows += done
    seconds = time.perf_counter() - began
    failed = [row for row in rows if not row.passed]
    exact = [row.error for row in rows if row.method in COLUMNS["exact"] and math.isfinite(row.error)]
    if args.json:
        print(
            to_json(
                {
                    "cases": len(rows),
                    "failed": len(failed),
                    "uncovered": missing,
                    "worst": max(exact, default=None),
                    "seconds": seconds,
                    "rows": [dataclasses.asdict(row) for row in rows],
                }
            )
        )
    else:
        print(f"\n{LEGEND}\n")
        for row in failed:
            print(fold(f"{color('FAILED', 'red')} {row.name}: {row.message}", hang="    "))
        for name in missing:
            where = "tinygrad_llm/gradcheck/cases.py or model_cases.py"
            print(fold(f"{color('NO CASE', 'red')} {name}: add one to {where}", hang="    "))
        # Directions and float32 compare whole tensors.
        single = sum(row.elements for row in rows if row.method not in ("directions", "float32"))
        summary = f"{len(rows)} cases, {single:,} numbers compared one by one, {len(failed)} failed, in {seconds:.1f} s"
        print(fold(summary + (f"; worst exact error {max(exact):.1e}" if exact else ""), hang="    "))
    return 1 if failed or missing else 0


_WHY_NOT = {
    "complex": "they have a kink, and the complex step needs an analytic function",
    "directions": "they have a kink, and the complex step needs an analytic function",
    "adjoint": "they are not linear, or not exact on integers",
}


def _by(method: str, cases: list[Case], names: Sequence[str]) -> list[Case]:
    """The cases that allow the method, by it."""
    if method in ("richardson", "central"):  # differences need no more than a function
        kept = [c if c.method == method else c.by(method) for c in cases if c.method in ("complex", "richardson")]
    elif method == "directions":
        kept = [case.by(method) for case in cases if case.method == "complex"]
    else:
        kept = [case for case in cases if case.method == method]
    left_out = [name for name in names if not any(case.covers == name for case in kept)]
    if left_out or not kept:
        which = ", ".join(left_out) or "these"
        raise UsageError(
            f"--method {method} cannot check {which}: {_WHY_NOT.get(method, 'their update is compared with a formula')}"
        )
    return kept


def _print_row(covers: str, rows: list[Row]) -> None:
    cells = []
    for methods in COLUMNS.values():
        errors = [row.error for row in rows if row.method in methods]
        worst = max(errors, key=lambda e: math.inf if math.isnan(e) else e, default=None)
        cells.append(f"{'–' if worst is None else '0' if worst == 0 else f'{worst:.1e}':>8}")
    mark = color("ok", "green") if all(row.passed for row in rows) else color("FAIL", "red")
    name = f"{covers:<{NAME}}" if len(covers) <= NAME else f"{covers}\n{'':{NAME}}"  # a long one has its own line
    print(f"{name}{len(rows):>5}{sum(row.elements for row in rows):>8,}{''.join(cells)} {mark}", flush=True)


# ---- mutants -----------------------------------------------------------------------------------------------------


def _mutants(args: argparse.Namespace) -> int:
    _known(args.names, KERNELS)
    began = time.perf_counter()
    hunts: list[mutants.Hunt] = []
    planted = mutants.mutants(args.names or None)
    for kernel, some in itertools.groupby(mutants.hunt(planted, args.method, args.seed), key=lambda hunt: hunt.kernel):
        done = list(some)
        hunts += done
        if not args.json:
            missed = sum(not hunt.caught for hunt in done)
            mark = color(f"{missed} missed", "red") if missed else color("all caught", "green")
            print(f"\n{kernel}: {len(done)} planted, {mark}")
            for hunt in done:
                print(fold(f"{hunt.mutant:<36} {_fate(hunt)}", "  ", "      "), flush=True)
    if not hunts and args.method is None:
        raise UsageError(
            f"{', '.join(args.names)}: every case fails before a mutant is planted: run gradcheck without --mutants"
        )
    if not hunts:
        raise UsageError(f"--method {args.method} cannot check these: {_WHY_NOT.get(args.method, 'no case')}")
    caught = sum(hunt.caught for hunt in hunts)
    seconds = time.perf_counter() - began
    if args.json:
        figures = {"planted": len(hunts), "caught": caught, "kernels": len({hunt.kernel for hunt in hunts})}
        rows = [dataclasses.asdict(hunt) for hunt in hunts]
        print(to_json(figures | {"method": args.method or "default", "seconds": seconds, "rows": rows}))
    else:
        print(f"\n{len(hunts)} wrong gradients planted, one at a time; {caught} caught, in {seconds:.1f} s")
        if args.method in _LESSONS and caught < len(hunts):
            print(fold(_LESSONS[args.method], hang="    "))
    # A weaker method may miss some: this is not a failure.
    return 1 if args.method is None and caught < len(hunts) else 0


_LESSONS = {
    "central": "This method misses a gradient that is wrong by less than the error of the differences.",
    "richardson": "This method misses a gradient that is wrong by less than its tolerance, a thousandth of central's.",
    "adjoint": "This method uses small integers, which rounding to float32 does not change.",
    "float32": "This method compares the gradient with itself, so it only notices a change of shape or dtype.",
}


def _fate(hunt: mutants.Hunt) -> str:
    if not hunt.caught:
        return color(f"not caught, error {hunt.error:.1e} ≤ {hunt.tolerance:.0e}", "red")
    if math.isnan(hunt.error):
        return f"caught by {hunt.by}: {hunt.message}"
    return f"caught by {hunt.by}, error {hunt.error:.1e}"


# ---- the curve ---------------------------------------------------------------------------------------------------


def _curve(args: argparse.Namespace) -> int:
    cases = [case for case in all_cases() if case.method in ("complex", "richardson")]
    _known([args.curve], [case.covers for case in cases])
    case = next(case for case in cases if case.covers == args.curve)
    steps = None
    if case.covers not in KERNELS:  # these have many elements, so the steps are whole decades
        steps = [10.0**-k for k in range(1, 21)]
        print(f"{case.name}: computing every derivative at {len(steps)} steps; this takes a while", file=sys.stderr)
    points = curve.curve(case, steps, args.seed)
    if args.out is not None:
        try:
            curve.picture(points, args.out, f"{case.name}: the error of each method against its step")
        except ImportError as error:
            raise UsageError(str(error)) from error
    if args.json:
        print(to_json({"name": case.name, "rows": [dataclasses.asdict(point) for point in points]}))
    else:
        print(f"{case.name}: the largest error of the gradient, by method and step h\n\n{curve.table(points)}")
        if args.out is not None:
            print(f"\nsaved {args.out}")
    return 0
