"""Rules for the text of the code that ruff does not check: American spelling, and functions of at most 60 lines."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("tinygrad_llm", "scripts", "tests") for path in (ROOT / folder).rglob("*.py"))
TEXTS = [*SOURCES, *ROOT.glob("*.md"), ROOT / "data" / "README.md", ROOT / "setup.cfg"]

BRITISH = re.compile(
    r"colour|behaviour|neighbour|favour|honour|centre|grey\b|licence|artefact|catalogue|labell|modell|cancell"
    r"|(?:normal|optim|initial|recogn|serial|minim|maxim|summar|organ|token|vector|general|regular|parallel|final)is(?:e|ing|ation)"
)
LONGEST = 60  # lines of code, without docstring, comments and empty lines
TABLES = {"_function_cases", "basic_cases", "add_arguments"}  # one entry per case, or per option of a command


def code_lines(function, lines):
    first = function.body[1 if ast.get_docstring(function) and len(function.body) > 1 else 0].lineno
    stripped = (line.strip() for line in lines[first - 1 : function.end_lineno])
    return sum(bool(line) and not line.startswith("#") for line in stripped)


def test_spelling_is_american():
    wrong = []
    for path in TEXTS:
        if path.name != Path(__file__).name:
            text = path.read_text(encoding="utf-8").lower()
            for found in BRITISH.finditer(text):
                wrong.append(f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]}")
    assert wrong == []


def functions(node):
    """The functions below a node, found through statements alone: no expression holds one."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef):
            yield child
        if isinstance(child, (ast.stmt, ast.excepthandler, ast.match_case)):
            yield from functions(child)


def test_no_function_is_longer_than_a_screen(trees):
    long = []
    for path in (path for path in SOURCES if "tests" not in path.relative_to(ROOT).parts):
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in functions(trees[path] if path in trees else ast.parse(source)):
            if node.name not in TABLES and code_lines(node, lines) > LONGEST:
                long.append(f"{path.relative_to(ROOT)}: {node.name} has {code_lines(node, lines)} lines")
    assert long == []


# ---- tests that wait -----------------------------------------------------------------------------------------------

RUN = {"run", "call", "check_call", "check_output"}  # of subprocess
WAITS = {"wait", "join", "communicate", "result", "get", "acquire"}  # without an argument they may wait for ever
# Only files with these words are parsed, because parsing all takes seconds.
SUSPECT = re.compile(rf"subprocess|Thread|\.({'|'.join(sorted(WAITS))})\s*\(\s*\)")


def endless(call):
    """Whether this call may wait without an end."""
    function, keywords = call.func, {keyword.arg for keyword in call.keywords}
    name = getattr(function, "attr", getattr(function, "id", ""))
    owner = getattr(getattr(function, "value", None), "id", "")
    if owner == "subprocess" and name == "Popen":
        return True
    if name == "Thread":
        return "daemon" not in keywords  # Python waits at its end for one that is none
    if owner == "subprocess" and name in RUN:
        return "timeout" not in keywords
    return isinstance(function, ast.Attribute) and name in WAITS and not call.args and not keywords


def test_every_wait_in_a_test_has_an_end():
    wrong = []
    for path in (path for path in SOURCES if "tests" in path.relative_to(ROOT).parts):
        if path.name in ("conftest.py", "test_mpi.py"):  # their `popen` and `finish` end each process
            continue
        source = path.read_text(encoding="utf-8")
        if not SUSPECT.search(source):
            continue
        calls = (node for node in ast.walk(ast.parse(source)) if type(node) is ast.Call)
        wrong += [f"{path.relative_to(ROOT)}:{call.lineno}" for call in calls if endless(call)]
    assert wrong == []
