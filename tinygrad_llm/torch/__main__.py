"""Run a program or a notebook that is written for PyTorch: python -m tinygrad_llm.torch FILE [ARGUMENTS].

    python -m tinygrad_llm.torch attention.py
    python -m tinygrad_llm.torch ch03.ipynb

`import torch` gives the program this package, and so does `import tiktoken`
where it is not installed. A notebook runs cell by cell in order; as in Jupyter,
the value of a cell's last line is shown. Lines for the shell (! and %) are
skipped.
"""

import argparse
import ast
import json
import linecache
import re
import sys
import traceback
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.storage.files import MAX_JSON
from tinygrad_llm.torch.imports import answer_imports
from tinygrad_llm.torch.missing import missing


def main(arguments: list[str] | None = None) -> int:
    """Run the file that the command line names.

    Returns:  the exit status: 0; 1 after an error in the program, which is shown; 2 if the file cannot be run.
    """
    parser = argparse.ArgumentParser(
        prog="python -m tinygrad_llm.torch",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("file", type=Path, help="a Python program (.py) or a notebook (.ipynb)")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="what the program finds in sys.argv")
    args = parser.parse_args(arguments)
    try:
        pieces = list(_pieces(args.file))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        print(f"{args.file}: cannot be run: {reason}", file=sys.stderr)
        return 2
    answer_imports()
    np.seterr(all="ignore")  # PyTorch gives NaN and infinity without a word
    return _run(args.file, pieces, args.arguments)


def _pieces(path: Path) -> Iterator[tuple[str, str]]:
    """(name, source) of a program, or of each cell of a notebook."""
    data = path.read_bytes()
    if path.suffix != ".ipynb":
        yield str(path), data.decode()
        return
    if len(data) > MAX_JSON:
        raise ValueError(f"a notebook may have {MAX_JSON} bytes, this one has {len(data)}")
    notebook = json.loads(data)
    if not isinstance(notebook, dict) or not isinstance(notebook.get("cells"), list):
        raise ValueError("not a notebook: it has no list of cells")
    for number, cell in enumerate(notebook["cells"], start=1):
        if isinstance(cell, dict) and cell.get("cell_type") == "code":
            source = cell.get("source", "")
            yield f"{path}, cell {number}", "".join(source) if isinstance(source, list) else str(source)


def _run(path: Path, pieces: list[tuple[str, str]], arguments: list[str]) -> int:
    """Run the pieces one after another, as the program `__main__`."""
    module = types.ModuleType("__main__")
    module.__file__ = str(path)
    sys.modules["__main__"], sys.argv, sys.path[0] = module, [str(path), *arguments], str(path.resolve().parent)
    for name, source in pieces:
        if path.suffix == ".ipynb":
            source = _without_shell(name, source)
        linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name  # for the traceback
        try:
            _execute(name, source, vars(module), path.suffix == ".ipynb")
        except Exception as error:
            _show(error)
            return 1
    return 0


def _execute(name: str, source: str, names: dict[str, Any], show_last: bool) -> None:
    tree = ast.parse(source, name)
    last = tree.body[-1] if tree.body else None
    shown = show_last and isinstance(last, ast.Expr) and not source.rstrip().endswith(";")
    if shown:
        tree.body.pop()
    exec(compile(tree, name, "exec"), names)
    if shown and isinstance(last, ast.Expr):
        value = eval(compile(ast.Expression(last.value), name, "eval"), names)
        if value is not None:
            print(repr(value))


def _without_shell(name: str, source: str) -> str:
    """The cell with empty lines in place of those that are for Jupyter and the shell."""
    lines = source.split("\n")
    skipped = [line for line in lines if re.match(r"\s*[!%]", line)]
    if lines[0].startswith("%%") and not lines[0].startswith(("%%time", "%%capture")):
        skipped, lines = lines[:1], []
    for line in skipped:
        print(f"{name}: skipped: {line.strip()}", file=sys.stderr)
    return "\n".join("" if line in skipped else line for line in lines)


def _show(error: Exception) -> None:
    """The traceback of the program alone, and what takes the place of a name that could not be imported."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    traceback.print_exception(error.with_traceback(trace))
    found = re.match(r"cannot import name '(\w+)' from '(?:tinygrad_llm\.)?(torch[\w.]*)'", str(error))
    if isinstance(error, ImportError) and found:
        module = sys.modules[found[2]]
        print(missing(found[2], found[1], getattr(module, "__all__", [])), file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
