"""What the source says about a kernel, function or layer: formula, derivation, code. `explain` and `trace` show it."""

import ast
import inspect
import re
import textwrap
from dataclasses import dataclass
from typing import Any

# Where the formula of the gradient begins: behind the formula itself, or on a line of its own.
_GRADIENT = re.compile(r"(?:   +|\n)(?=(?:Each )?d\w+(?:\[\w+\])? = )")


@dataclass(frozen=True)
class Documentation:
    """The docstring of a kernel, function, layer or optimizer in its parts, and its code."""

    formula: str  # the first paragraph
    notes: str  # what stands between formula and derivation
    derivation: str
    file: str  # from the package's folder on
    line: int  # of the `def` or `class`
    source: str  # without decorator and docstring

    @property
    def forward(self) -> str:
        """The part of a kernel's formula that says what it computes."""
        return _GRADIENT.split(self.formula, maxsplit=1)[0]

    @property
    def gradient(self) -> str:
        """The part of a kernel's formula that says what its gradients are; empty where the formula has none."""
        return "".join(_GRADIENT.split(self.formula, maxsplit=1)[1:])

    @property
    def vjp_lines(self) -> tuple[int, int] | None:
        """The first line of a kernel's `vjp` in `source`, counted from 0, and the line after its last."""
        function = ast.parse(self.source).body[0]
        nested = [node for node in ast.walk(function) if isinstance(node, ast.FunctionDef) and node.name == "vjp"]
        return (nested[0].lineno - 1, nested[0].end_lineno or 0) if nested else None


def document(thing: Any) -> Documentation:
    """Read the documentation of a function or class of this package, or of one like it."""
    before, _, derivation = (inspect.getdoc(thing) or "").partition("Derivation:")
    formula, *notes = re.split(r"\n\n|\n(?=[A-Z]\w+: )", before.strip(), maxsplit=1)
    line, source = _source(thing)
    return Documentation(
        formula=formula,
        notes="".join(notes),
        derivation=textwrap.dedent(derivation).strip("\n"),
        file=f"{thing.__module__.replace('.', '/')}.py",
        line=line,
        source=source,
    )


def _source(thing: Any) -> tuple[int, str]:
    """The line where the code begins, and the code without decorator and docstring, which are shown separately."""
    found, first = inspect.getsourcelines(thing)
    lines = textwrap.dedent("".join(found)).splitlines()
    node = ast.parse("\n".join(lines)).body[0]
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        del lines[docstring.lineno - 1 : docstring.end_lineno]
        if node.body[1:] and not lines[docstring.lineno - 1].strip():
            del lines[docstring.lineno - 1]
    return first + node.lineno - 1, "\n".join(lines[node.lineno - 1 :])
