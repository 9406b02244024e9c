"""`tinygrad-llm explain`: one operation or layer whole: formula, derivation, source, numbers, proof."""

import argparse
import ast
import inspect
import itertools
import json
import re
import textwrap
from collections.abc import Callable
from typing import Any

import numpy as np

from tinygrad_llm import functional, models, nn, optim
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.cli import UsageError
from tinygrad_llm.cli.options import add_json, add_seed, closest, colour
from tinygrad_llm.gradcheck import Case, GradcheckError, GradcheckResult, all_cases, gradcheck
from tinygrad_llm.gradcheck.cases import Call
from tinygrad_llm.gradcheck.checkers import describe
from tinygrad_llm.kernels import Array
from tinygrad_llm.random import Generator
from tinygrad_llm.storage.text import to_json

EXAMPLE = "tinygrad-llm explain layer_norm"

_H = 1e-20  # the complex step
_D = 1e-5  # the central difference


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a kernel, function, layer or optimizer (default: list)"
    )
    add_seed(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    subjects = _subjects()
    if args.name is None:
        _list(subjects, args.json)
        return 0
    if args.name not in subjects:
        like = closest(args.name, list(subjects))
        raise UsageError(f"nothing here is named {args.name!r}{like} (there are: {', '.join(subjects)})")
    case = subjects[args.name]
    thing = _thing(case)
    before, _, derivation = (inspect.getdoc(thing) or "").partition("Derivation:")
    formula, *notes = re.split(r"\n\n|\n(?=[A-Z]\w+: )", before.strip(), maxsplit=1)
    about = {
        "name": args.name,
        "formula": formula,
        "notes": "".join(notes),
        "derivation": textwrap.dedent(derivation).strip("\n"),
        "source": _source(thing),
    }
    if not args.json:
        print(formula)
        _section("", about["notes"])
        _section("derivation", about["derivation"])
        _section(f"source, {_place(thing)}", about["source"])
    if isinstance(case.make, Call):
        figures, result = _kernel(case, case.make, args.seed, silent=args.json)
    else:
        figures, result = _shapes(case, args.seed, silent=args.json)
    error = None if isinstance(result, str) else result.worst.error
    message = result if isinstance(result, str) else "" if result else describe(result)
    if args.json:
        print(to_json(about | figures | {"method": case.method, "error": error, "message": message}))
    else:
        _verdict(case, result, message)
    return 1 if message else 0


# ---- what there is -------------------------------------------------------------------------------------------------


def _subjects() -> dict[str, Case]:
    """Everything that can be explained, with its first case: the one with all its inputs."""
    first: dict[str, Case] = {}
    for case in all_cases():
        if not case.covers.startswith("Tensor."):  # methods that a function or kernel explains
            first.setdefault(case.covers, case)
    return first


def _thing(case: Case) -> Any:
    """The kernel, function or class itself."""
    if isinstance(case.make, Call):
        return case.make.kernel
    name = case.covers.removeprefix("F.")
    packages = [functional] if name != case.covers else [nn, models, optim]
    return next(getattr(package, name) for package in packages if hasattr(package, name))


def _list(subjects: dict[str, Case], as_json: bool) -> None:
    lines = {}
    for name, case in subjects.items():
        line, *more = (inspect.getdoc(_thing(case)) or "").split("\n")
        lines[name] = f"{line} …" if more and more[0] and not re.match(r"[A-Z]\w+: ", more[0]) else line
    if as_json:
        print(json.dumps([{"group": subjects[n].group, "name": n, "formula": line} for n, line in lines.items()]))
        return
    for group, names in itertools.groupby(lines, key=lambda name: subjects[name].group):
        print("\n" + colour(group, "bold"))
        for name in names:
            print(f"  {name:<31}{lines[name]}")
    print(f"\nfor one of them: {EXAMPLE}")


# ---- source --------------------------------------------------------------------------------------------------------


def _source(thing: Any) -> str:
    """The code without decorator and docstring, which are shown apart."""
    lines = textwrap.dedent(inspect.getsource(thing)).splitlines()
    node = ast.parse("\n".join(lines)).body[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
        if node.body[1:] and not lines[docstring.lineno - 1].strip():
            del lines[docstring.lineno - 1]
    return "\n".join(lines[node.lineno - 1 :])


def _place(thing: Any) -> str:
    return f"{thing.__module__.replace('.', '/')}.py"


# ---- a kernel in numbers -------------------------------------------------------------------------------------------


def _kernel(case: Case, call: Call, seed: int, silent: bool) -> tuple[dict[str, Any], GradcheckResult | str]:
    """The case on numbers of two decimals: forward, backward, one derivative by hand, all derivatives checked."""
    rng = Generator(seed)
    arrays = [np.round(x, 2) if x.dtype.kind == "f" else x for x in call.arrays(rng)]
    names = _names(call.kernel, len(arrays))
    y, vjp = call.kernel(*arrays, **call.options)
    g = np.asarray(np.round(rng.randn(y.shape, np.float64), 2))
    grads = {f"d{name}": d for name, d in zip(names, vjp(g), strict=False) if d is not None}

    fn, _, _ = case.make(rng)
    result: GradcheckResult | str
    try:
        result = gradcheck(fn, arrays, case.method, names=names, cotangent=g, raise_exception=False)
    except GradcheckError as failure:
        result = str(failure)

    def value(i: int, index: tuple[int, ...], step: complex) -> Any:
        """L = Σ g·y with one element of one input moved."""
        moved = arrays[i].astype(np.result_type(arrays[i], type(step)))
        moved[index] += step
        return np.sum(g * call.kernel(*arrays[:i], moved, *arrays[i + 1 :], **call.options)[0])

    numeric: dict[str, Any] = {}
    above = below = 0.0
    if not isinstance(result, str):
        i = next(i for i, name in enumerate(names) if f"d{name}" in grads)
        d = grads[f"d{names[i]}"]
        index = tuple(int(n) for n in np.unravel_index(int(np.argmax(np.abs(d))), d.shape))
        above, below = (float(value(i, index, step)) for step in (_D, -_D))
        numeric = {
            "input": names[i],
            "index": index,
            "analytic": float(d[index]),
            "central": (above - below) / (2 * _D),
            "complex": float(value(i, index, 1j * _H).imag) / _H if case.method == "complex" else None,
        }
    inputs = dict(zip(names, arrays, strict=True))
    if not silent:
        options = ", ".join(f"{k}={v!r}" for k, v in call.options.items())
        print("\n" + colour("example", "bold") + (f" with {options}" if options else ""))
        for label, array in {**inputs, "y": y, "g": g, **grads}.items():
            if label in ("g", *list(grads)[:1]):
                print({"g": "\nwith L = Σ g·y for some g = ∂L/∂y:"}.get(label, "\nvjp(g) gives"))
            _show(label, array)
        if numeric:
            _by_hand(numeric, above, below)
    figures = {
        "inputs": {name: x.tolist() for name, x in inputs.items()},
        "options": {k: repr(v) for k, v in call.options.items()},
        "output": y.tolist(),
        "g": g.tolist(),
        "gradients": {name: d.tolist() for name, d in grads.items()},
        "numeric": numeric,
    }
    return figures, result


def _names(kernel: Callable[..., Any], count: int) -> list[str]:
    """The names of a kernel's inputs; x0, x1, … where it takes any number."""
    parameters = list(inspect.signature(kernel).parameters.values())
    if parameters[0].kind is inspect.Parameter.VAR_POSITIONAL:
        return [f"x{i}" for i in range(count)]
    return [p.name for p in parameters[:count]]


def _show(label: str, array: Array, most: int = 36) -> None:
    """An array; of a large one its first matrix."""
    whole = array
    while array.size > most and array.ndim > 2:
        array = array[0]
    first = "" if array.ndim == whole.ndim else f", [{', '.join('0' * (whole.ndim - array.ndim))}] of it"
    if array.dtype.kind == "f":
        array = np.round(array, 4) + 0.0  # −0 + 0 = 0
    shown = np.array2string(array, max_line_width=110)
    print(f"  {label} {whole.shape}{first}\n" + textwrap.indent(shown.replace("\n\n", "\n"), "    "))


def _by_hand(numeric: dict[str, Any], above: float, below: float) -> None:
    at = f"{numeric['input']}[{', '.join(map(str, numeric['index']))}]" if numeric["index"] else numeric["input"]
    print(f"\none derivative by hand: L with {at} moved by h, all else as it was")
    print(f"  vjp              {numeric['analytic']:.16g}")
    print(f"  (L(+h) − L(−h)) / 2h,  h = {_D:g}:  ({above:.12g} − {below:.12g}) / {2 * _D:g}")
    print(f"                   {numeric['central']:.16g}")
    if numeric["complex"] is not None:
        print(f"  Im L(+ih) / h,  h = {_H:g}: nothing is subtracted, so every digit counts")
        print(f"                   {numeric['complex']:.16g}")


# ---- functions, layers, optimizers ---------------------------------------------------------------------------------


def _shapes(case: Case, seed: int, silent: bool) -> tuple[dict[str, Any], GradcheckResult | str]:
    """The case itself: the shapes of its inputs and parameters, the kernels it is made of, and its check."""
    shapes: dict[str, tuple[int, ...]] = {}
    kernels: list[str] = []
    if case.method != "formula":
        fn, inputs, names = case.make(Generator(seed))
        shapes = {name: x.shape for name, x in zip(names, inputs, strict=True)}
        y = fn(*(x if isinstance(x, Tensor) or x.dtype.kind != "f" else Tensor(x, requires_grad=True) for x in inputs))
        shapes["output"] = y.shape
        kernels = _made_of(y)
    if not silent:
        if shapes:
            print("\n" + colour("example", "bold") + f" {case.name}")
            for name, shape in shapes.items():
                print(f"  {name:<40}{shape}")
        if kernels:
            _section("kernels it is made of, each derived by `explain`", "  " + ", ".join(kernels))
    result: GradcheckResult | str
    try:
        result = case.check(seed)
    except GradcheckError as failure:
        result = str(failure)
    return {"shapes": shapes, "kernels": kernels}, result


def _made_of(y: Tensor) -> list[str]:
    """The kernels on the tape behind y, in the order in which they ran first."""
    seen, todo = {}, [y._node]
    while todo:
        node = todo.pop()
        if node is not None and node.number not in seen:
            seen[node.number] = node
            todo += node.parents
    return list(dict.fromkeys(seen[n].name for n in sorted(seen) if not seen[n].is_leaf))


# ---- words ---------------------------------------------------------------------------------------------------------


def _section(title: str, text: str) -> None:
    if text:
        print(f"\n{colour(title, 'bold')}\n{text}" if title else f"\n{text}")


def _verdict(case: Case, result: GradcheckResult | str, message: str) -> None:
    known = {"complex": "the complex step", "richardson": "Richardson's differences", "formula": "the formula"}
    beside = known.get(case.method, case.method)
    print("\n" + colour("check", "bold") + f" of every element against {beside}")
    if not isinstance(result, str):
        for c in result.comparisons:
            mark = colour("ok", "green") if c.error <= result.tolerance else colour("FAILED", "red")
            print(f"  {c.name:<40}{c.elements:>6,} elements, error {c.error:.1e}  {mark}")
    if message:
        print(f"{colour('FAILED', 'red')} {message}")
