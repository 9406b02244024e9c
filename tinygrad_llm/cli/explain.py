"""`tinygrad-llm explain`: print what `study.explain` computes."""

import argparse
import itertools
import re
import textwrap
from typing import Any

import numpy as np

from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, add_seed, color
from tinygrad_llm.cli.progress import WIDTH, fold
from tinygrad_llm.kernels import Array
from tinygrad_llm.storage.text import nearest, to_json
from tinygrad_llm.study import Derivative, Example, Explanation, Subject, explain, subjects
from tinygrad_llm.study.explain import CENTRAL_STEP, COMPLEX_STEP

EXAMPLE = "tinygrad-llm explain layer_norm"
_MOST = 36  # elements of an array that is shown whole
SOURCE_WIDTH = 120  # columns of the package's own files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a kernel, function, layer or optimizer (default: list all)"
    )
    add_seed(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    known = subjects()
    if args.name is None:
        _list(list(known.values()), args.json)
        return 0
    if args.name not in known:
        raise UsageError(f"nothing is named {args.name!r}{nearest(args.name, known)}")
    explanation = explain(known[args.name], args.seed)
    if args.json:
        print(to_json(_as_dict(explanation)))
    else:
        _show(explanation)
    return 1 if explanation.failure else 0


def _list(found: list[Subject], as_json: bool) -> None:
    if as_json:
        print(to_json([{"group": s.group, "name": s.name, "formula": s.headline} for s in found]))
        return
    for group, members in itertools.groupby(found, key=lambda subject: subject.group):
        print("\n" + color(group, "bold"))
        for subject in members:
            print(_cut(f"  {subject.name:<30} {subject.headline}"))
    print(f"\nfor one of them: {EXAMPLE}")


def _as_dict(e: Explanation) -> dict[str, Any]:
    """An explanation for JSON."""
    found: dict[str, Any] = {
        "name": e.subject.name,
        "formula": e.formula,
        "notes": e.notes,
        "derivation": e.derivation,
        "source": e.source,
        "method": e.subject.case.method,
        "error": None if e.proof is None else e.proof.worst.error,
        "message": e.failure,
    }
    if e.example is None:
        return found | {"shapes": e.shapes, "kernels": e.kernels}
    d = e.derivative
    return found | {
        "inputs": {name: x.tolist() for name, x in e.example.inputs.items()},
        "options": {name: repr(value) for name, value in e.example.options.items()},
        "output": e.example.output.tolist(),
        "g": e.example.g.tolist(),
        "gradients": {name: x.tolist() for name, x in e.example.gradients.items()},
        "numeric": {}
        if d is None
        else {"input": d.input, "index": d.index, "analytic": d.analytic, "central": d.central, "complex": d.complex},
    }


# ---- text ----------------------------------------------------------------------------------------------------------


def _show(e: Explanation) -> None:
    print(_reflowed(e.formula))
    _section("", _reflowed(e.notes))
    _section("derivation", _reflowed(e.derivation, 8))
    _section(f"source, {e.file}", "\n".join(map(folded_code, e.source.splitlines())))
    if e.example is not None:
        _show_example(e.example)
    if e.derivative is not None:
        _show_derivative(e.derivative)
    shapes = "\n".join(f"  {name:<40}{shape}" for name, shape in e.shapes.items())
    _section(f"example {e.subject.case.name}", shapes)
    _section("kernels it is made of; `explain` derives each", ", ".join(e.kernels) and fold(", ".join(e.kernels), "  "))
    _show_proof(e)


def _cut(line: str) -> str:
    """A line that ends with … where it would be longer than 80 columns, if possible between two formulas."""
    if len(line) <= WIDTH:
        return line
    line = line[: WIDTH - 2]
    between = line.rfind("   ", WIDTH // 2)
    return line[: between if between > 0 else line.rfind(" ")].rstrip(" ,;") + " …"


def _reflowed(text: str, indent: int = 4) -> str:
    """A docstring, whose lines have up to 120 columns, in lines of 80. Two lines are joined only within a sentence.

    Args:     indent: of the docstring in its file.
    """
    paragraphs: list[tuple[str, str]] = []  # (what stands before a text, the text)
    last = 0  # columns of the line above, in its file
    for line in text.split("\n"):
        before, words = re.match(r"((?:\w+:  +)?\s*)(.*)", line).groups()  # type: ignore[union-attr]
        full = last + 1 + len(words.split(" ")[0]) > SOURCE_WIDTH and "  " not in paragraphs[-1][1]
        if words and full and before == " " * len(paragraphs[-1][0]):
            paragraphs[-1] = (paragraphs[-1][0], f"{paragraphs[-1][1]} {words}")
        else:
            paragraphs.append((before, words))
        last = indent + len(line)
    return "\n".join(_folded_formulas(before, words) for before, words in paragraphs)


def _folded_formulas(before: str, text: str) -> str:
    """A paragraph in lines of 80 columns, broken between formulas, which have a wide gap between them, if possible."""
    hang = " " * len(before) if before else "    "
    lines = [before]
    for part in re.split(r"(?<=\S)(?=  +\S)", text):
        if len(lines[-1]) + len(part) <= WIDTH:
            lines[-1] += part
        elif lines[-1] == before or len(hang) + len(part.strip()) > WIDTH:
            lines[-1:] = fold(lines[-1] + part, hang=hang).split("\n")
        else:
            lines.append(hang + part.strip())
    return "\n".join(lines)


def folded_code(line: str) -> str:
    """A line of code in lines of 80 columns: a comment behind code goes above it."""
    indent = " " * (len(line) - len(line.lstrip()))
    code, _, comment = line.partition("  # ")
    if len(line) <= WIDTH:
        return line
    if code.strip() and comment:
        return f"{folded_code(f'{indent}# {comment}')}\n{folded_code(code)}"
    return fold(line.strip(), indent, indent + ("# " if line.strip().startswith("# ") else "    "))


def _section(title: str, text: str) -> None:
    if text:
        print(f"\n{color(title, 'bold')}\n{text}" if title else f"\n{text}")


def _show_example(example: Example) -> None:
    options = ", ".join(f"{name}={value!r}" for name, value in example.options.items())
    print("\n" + color("example", "bold") + (f" with {options}" if options else ""))
    _show_arrays({**example.inputs, "y": example.output})
    print("\nwith L = Σ g·y for some g = ∂L/∂y:")
    _show_arrays({"g": example.g})
    print("\nvjp(g) gives")
    _show_arrays(example.gradients)


def _show_arrays(arrays: dict[str, Array]) -> None:
    """Arrays; of a large one its first matrix."""
    for label, whole in arrays.items():
        array = whole
        while array.size > _MOST and array.ndim > 2:
            array = array[0]
        first = "" if array.ndim == whole.ndim else f", [{', '.join('0' * (whole.ndim - array.ndim))}] of it"
        if array.dtype.kind == "f":
            array = np.round(array, 4) + 0.0  # −0 + 0 = 0
        shown = np.array2string(array, max_line_width=WIDTH - 4)
        print(f"  {label} {whole.shape}{first}\n" + textwrap.indent(shown.replace("\n\n", "\n"), "    "))


def _show_derivative(d: Derivative) -> None:
    at = f"{d.input}[{', '.join(map(str, d.index))}]" if d.index else d.input
    print(fold(f"\none derivative by hand: move {at} by h, keep everything else, and see how L changes"))
    print(f"  vjp              {d.analytic:.16g}")
    print(f"  (L(+h) − L(−h)) / 2h,  h = {CENTRAL_STEP:g}:  ({d.above:.12g} − {d.below:.12g}) / {2 * CENTRAL_STEP:g}")
    print(f"                   {d.central:.16g}")
    if d.complex is not None:
        print(f"  Im L(+ih) / h,  h = {COMPLEX_STEP:g}: nothing is subtracted, so every digit counts")
        print(f"                   {d.complex:.16g}")


def _show_proof(e: Explanation) -> None:
    methods = {"complex": "the complex step", "richardson": "Richardson's differences", "formula": "the formula"}
    method = e.subject.case.method
    print("\n" + color("check", "bold") + f" of every element against {methods.get(method, method)}")
    if e.proof is not None:
        for c in e.proof.comparisons:
            mark = color("ok", "green") if c.error <= e.proof.tolerance else color("FAILED", "red")
            print(f"  {c.name:<40}{c.elements:>6,} elements, error {c.error:.1e}  {mark}")
    if e.failure:
        print(fold(f"{color('FAILED', 'red')} {e.failure}", hang="    "))
