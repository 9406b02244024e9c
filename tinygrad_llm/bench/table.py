"""Measures as a table for readers, plain or Markdown, and the notes below it."""

from collections.abc import Iterator, Sequence
from typing import Any

from tinygrad_llm.bench.harness import Timing, ratio
from tinygrad_llm.bench.measure import OURS, Measure

ROUNDS = 7  # with fewer rounds, one that another program disturbed moves the median
BUSY = 0.5  # load average above which the machine counts as not quiet
NOTHING = "–"  # the cell of a contender that did not take part


def cells(measures: Sequence[Measure], names: Sequence[str]) -> list[list[str]]:
    """The head of the table and one row per measure: each contender's time, the ratios, and the machine's limit."""
    head = ["", *names, *(f"ratio to {name}" for name in names[1:])]
    limited = any(one.limits for one in measures)
    if limited:
        head += ["limit", "our share of it", f"peak memory, MB: {' / '.join(names)}"]
    return [head, *(_row(one, names, limited) for one in measures)]


def plain(rows: list[list[str]], width: int) -> list[str]:
    """The lines of a table with aligned columns; if it is wider than `width`, each row becomes a list of its cells."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 2 * (len(widths) - 1) <= width:
        return ["  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip() for row in rows]
    (_, *heads), *rest = rows
    longest = max(map(len, heads))
    lines = []
    for name, *figures in rest:
        lines += [name, *(f"  {head:<{longest}}  {cell}".rstrip() for head, cell in zip(heads, figures, strict=True))]
    return lines


def markdown(rows: list[list[str]]) -> list[str]:
    """The lines of a Markdown table."""
    head, *rest = rows
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rest)]


def notes(measures: Sequence[Measure], facts: dict[str, Any], threads: int) -> Iterator[str]:
    """Lines for below the table: how to read it, and the machine and programs that it was measured with."""
    counts = sorted({one.rounds for one in measures})
    rounds = f"{' or '.join(map(str, counts))} round{'' if counts == [1] else 's'}"
    yield (
        f"Median (min–max) of {rounds}. Ratio: their median time divided by ours (min–max of single rounds); above 1, "
        f"ours is faster. {threads} thread(s) each, in turns, each in its own process."
    )
    few = [one.name for one in measures if one.rounds < ROUNDS and len(one.timings) > 1]
    if few:
        yield f"Too few rounds for a reliable ratio (fewer than {ROUNDS}): {', '.join(few)}"
    limits = [one.limits for one in measures if one.limits]
    if limits:
        flops, bandwidth = max(limit.flops for limit in limits), max(limit.bandwidth for limit in limits)
        yield (
            f"Limit: at NumPy's best rates in the same run, up to {flops / 1e9:.0f} GF/s in float32 products and "
            f"{bandwidth / 1e9:.0f} GB/s to and from memory (the best of matrix times vector, copy and triad)."
        )
    cpu, busy = facts["cpu"] or "processor unknown", facts["load_average"]
    yield f"{cpu}, {facts['cores']} core(s); Python {facts['python']}, NumPy {facts['numpy']}"
    if facts["busy"]:
        yield f"Measured beside {facts['busy']} busy process(es), one per core; so was the limit."
    if busy is not None and busy > BUSY:
        yield f"The machine was not quiet: other programs made a load average of {busy:.1f}. Figures may be off."
    about = {timing.name: timing.about for one in measures for timing in one.timings}
    about[OURS] = {"version": facts[OURS], **about.get(OURS, {})}
    for name, what in about.items():
        how = [what["blas"]] if "blas" in what else []
        how += _workers(measures) if name == OURS else []
        yield f"{name} {what['version']}{': ' if how else ''}{'; '.join(how)}"
    for one in measures:
        for name in one.different():
            yield f"{one.name}: {name} gives another result than {OURS}, so there is no ratio"


def _row(one: Measure, names: Sequence[str], limited: bool) -> list[str]:
    ours = one.timings[0]
    timings = {timing.name: timing for timing in one.timings}
    row = [one.name]
    for name in names:
        timing = timings.get(name)
        row.append(_figure(one, timing.median, timing.min, timing.max) if timing else NOTHING)
    for name in names[1:]:
        if name not in timings:
            row.append(NOTHING)
        elif name in one.different():
            row.append("another result")
        else:
            r = ratio(ours, timings[name])
            row.append(f"{r.median:.2f} ({r.low:.2f}–{r.high:.2f})")
    if limited and one.limit is not None:
        peaks = " / ".join(_megabytes(timings[name]) for name in names if name in timings)
        row += [_figure(one, one.limit), f"{one.limit / ours.median:.0%}", peaks]
    return row


def _megabytes(timing: Timing) -> str:
    peak = timing.about.get("memory", {}).get("peak")
    return "unknown" if peak is None else f"{peak / 1e6:,.0f}"


def _figure(one: Measure, middle: float, *spread: float) -> str:
    """A time, or the rate at which the work is done in that time, with the least and greatest in parentheses."""
    if one.case.amount is not None:
        figures, unit = [one.case.amount / seconds for seconds in (middle, *spread[::-1])], one.case.unit
    else:  # all times of a row are in the same unit
        scale, unit = (1e3, "ms") if one.timings[0].median < 1 else (1.0, "s")
        figures = [scale * seconds for seconds in (middle, *spread)]
    first, *others = map(_number, figures)
    return f"{first} ({'–'.join(others)}) {unit}" if others else f"{first} {unit}"


def _number(x: float) -> str:
    """Three digits, or all digits before the point."""
    return f"{x:,.{2 if x < 10 else 1 if x < 100 else 0}f}"


def _workers(measures: Sequence[Measure]) -> list[str]:
    """How many workers the trainer chose; if the numbers differ, for which measures."""
    chosen: dict[int, list[str]] = {}
    for one in measures:
        workers = one.timings[0].about.get("workers")
        if workers is not None:
            chosen.setdefault(workers, []).append(one.name)
    if len(chosen) < 2:
        return [f"{workers} worker(s)" for workers in chosen]
    return [", ".join(f"{workers} worker(s) ({', '.join(names)})" for workers, names in chosen.items())]
