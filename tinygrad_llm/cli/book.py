"""`tinygrad-llm book`: what the book prints beside what comes out here, from the ledger in `study.book`."""

import argparse
from typing import Any

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.explain import folded_code
from tinygrad_llm.cli.options import add_json, color
from tinygrad_llm.cli.progress import fold, say
from tinygrad_llm.storage.text import nearest, to_json
from tinygrad_llm.study.book import CHAPTERS, FACTS, NAMES, Fact, Result, check

EXAMPLE = "tinygrad-llm book ch03"
SHOWN = 36  # items of a fact in a list; --show prints all
MARKS = {"pass": "green", "fail": "red", "needs": "yellow", "skipped": "yellow", "outside": "yellow"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "chapter", nargs="?", choices=list(CHAPTERS), metavar="CHAPTER", help=f"{', '.join(CHAPTERS)} (default: all)"
    )
    parser.add_argument("--show", metavar="ID", help="one fact with the code that computes it, such as ch03-12")
    parser.add_argument("--names", action="store_true", help="the book's names beside ours, and what differs")
    parser.add_argument("--slow", action="store_true", help="also what takes minutes or longer: whole trainings")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    if args.show is not None and args.show not in FACTS:
        raise UsageError(f"no fact has the id {args.show!r}{nearest(args.show, FACTS)}")
    if args.names:
        _list_names(args.json)
        return 0
    results = _checked(args)
    if args.json:
        print(to_json([_as_dict(result) for result in results]))
    elif args.show is None:
        _summary(results)
    return 1 if any(result.status == "fail" for result in results) else 0


def _list_names(as_json: bool) -> None:
    """Print the book's names, ours, and what differs."""
    if as_json:
        print(to_json([{"book": theirs, "ours": ours, "differs": note} for theirs, ours, note in NAMES]))
        return
    for theirs, ours, note in NAMES:
        print(f"{theirs:<26} {color(ours, 'bold')}")
        if note:
            print(fold(note, " " * 29))


def _checked(args: argparse.Namespace) -> list[Result]:
    """Check the chosen facts; each is printed as soon as it is known."""
    if args.show is not None:
        chosen = [FACTS[args.show]]
    else:
        chosen = [fact for fact in FACTS.values() if args.chapter in (None, fact.chapter)]
    results = []
    for fact in chosen:
        results.append(result := check(fact, args.slow or args.show is not None))
        if not args.json:
            say(_lines(result, None if args.show else SHOWN))
            if args.show:
                say("\n" + "\n".join(map(folded_code, fact.source.rstrip().splitlines())))
    return results


def _lines(result: Result, most: int | None) -> str:
    """A fact, its published items, ours, and the difference."""
    fact, mark = (
        result.fact,
        {"needs": "needs a file", "outside": "not computed here"}.get(result.status, result.status),
    )
    lines = [f"{color(fact.id, 'bold')}  {color(mark, MARKS[result.status])}", fold(fact.what, "  ")]
    lines.append(fold(f"{fact.origin}: {_cut(fact.items, most)}", "  book  ", "    "))
    if result.ours:
        lines.append(fold(_cut(list(result.ours), most), "  ours  ", "    "))
    if result.allowed:
        lines.append(f"  largest difference {result.difference:.1e}, allowed {result.allowed:.1e}")
    if result.message:
        lines.append(fold(result.message, "  "))
    return "\n".join(lines)


def _cut(items: list[str], most: int | None) -> str:
    shown = items if most is None else items[:most]
    rest = len(items) - len(shown)
    text = (" | " if any(" " in item for item in items) else " ").join(shown).replace("\n", "\\n")
    return f"{text} … and {rest} more" if rest else text


def _summary(results: list[Result]) -> None:
    counts = {status: sum(result.status == status for result in results) for status in MARKS}
    words = {
        "pass": "pass",
        "fail": "fail",
        "needs": "need a file",
        "skipped": "need --slow",
        "outside": "not computed here",
    }
    print(", ".join(f"{count} {words[status]}" for status, count in counts.items() if count))


def _as_dict(result: Result) -> dict[str, Any]:
    fact: Fact = result.fact
    return {
        "id": fact.id,
        "what": fact.what,
        "origin": fact.origin,
        "tier": fact.tier,
        "needs": list(fact.needs),
        "published": fact.items,
        "ours": list(result.ours),
        "difference": result.difference,
        "allowed": result.allowed,
        "status": result.status,
        "message": result.message,
    }
