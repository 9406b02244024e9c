"""The one map of the package: which part stands on which floor. README and CONTRIBUTING are checked against it.

A file imports only from lower floors or from its own part, no two files import each other, and a package that takes
long to load is loaded only where it is used.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import tinygrad_llm

PACKAGE = Path(tinygrad_llm.__file__).parent
ROOT = PACKAGE.parent
NAME = "tinygrad_llm"

# From the lowest floor to the highest. Parts of the same floor import nothing from each other.
MAP = [
    ["kernels", "random", "runtime", "storage"],
    ["autograd", "formats", "tokenizer"],
    ["functional"],
    ["nn", "optim"],
    ["generation", "weights"],
    ["datasets", "models"],
    ["evaluation", "gradcheck"],
    ["training"],
    ["finetuning"],
    ["torch"],
    ["study"],
    ["runs"],
    ["bench"],
    ["cli"],
    ["__main__"],
]
FLOORS = {part: floor for floor, parts in enumerate(MAP) for part in parts}
PROGRAM = {"cli", "__main__"}  # only these may use `from tinygrad_llm import GPT`, as a user does

NEEDED = {"numpy", "regex"}
EXTRAS = {"tqdm", "threadpoolctl", "matplotlib", "mpi4py", "tiktoken", "tokenizers"}  # inside functions only
CONTENDERS = {"torch", "transformers", "safetensors"}  # in bench/against_*.py, likewise


def dotted(path):
    """The dotted name of a file. `__init__` is kept, because relative imports start from it."""
    return ".".join([NAME, *path.relative_to(PACKAGE).with_suffix("").parts])


def imported(tree, module):
    """(full dotted name, whether inside a function) for everything that `module`, of this syntax tree, imports.

    `from a import b` gives a.b, since b may be a module.
    """

    def below(node, in_function):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, in_function) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                above = module.split(".")[: -child.level] if child.level else []
                base = [*above, *([child.module] if child.module else [])]
                yield from ((".".join([*base, alias.name]), in_function) for alias in child.names)
            elif isinstance(child, ast.stmt | ast.excepthandler | ast.match_case):  # no expression holds an import
                yield from below(child, in_function or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef))

    return below(tree, False)


@pytest.fixture(scope="module")
def imports(trees):
    """The imports of every file, except those of the package itself."""
    modules = {dotted(path): tree for path, tree in trees.items()}
    return {module: list(imported(tree, module)) for module, tree in modules.items() if module != f"{NAME}.__init__"}


def part(name):
    """The part of the package that a dotted name belongs to, or None for the package itself."""
    _, *rest = name.split(".")
    return rest[0] if rest and rest[0] in FLOORS else None


def upward(imports, module):
    """The imports of a module that lead to a higher floor, or to another part of the same floor."""
    own = part(module)
    for name, _ in imports:
        if name.split(".")[0] == NAME:
            other = part(name)
            allowed = own in PROGRAM if other is None else other == own or FLOORS[other] < FLOORS[own]
            if not allowed:
                yield f"{module} imports {name}"


def file_of(name, modules):
    """The file that a dotted name is imported from, or None if it is not one of ours."""
    while name:
        for module in (name, f"{name}.__init__"):
            if module in modules:
                return module
        name = name.rpartition(".")[0]
    return None


def circles(graph):
    """The strongly connected components of more than one node: sets of files that import each other."""

    def reachable(start):
        seen, todo = set(), [start]
        while todo:
            new = graph[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    reach = {node: reachable(node) for node in graph}
    found = {frozenset({node, *(other for other in reach[node] if node in reach[other])}) for node in graph}
    return [sorted(component) for component in found if len(component) > 1]


def private(imports, module):
    """The imports of another module's names that start with one underscore."""
    for name, _ in imports:
        top, *path = name.split(".")
        if top == NAME and any(word.startswith("_") and not word.startswith("__") for word in path):
            yield f"{module} imports {name}"


def test_every_part_has_a_floor():
    parts = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert set(FLOORS) == parts - {"__init__"}


def test_imports_lead_down(imports):
    assert [line for module, names in imports.items() for line in upward(names, module)] == []


def test_no_two_files_import_each_other(imports):
    graph = {module: {file_of(name, imports) for name, _ in names} - {None} for module, names in imports.items()}
    assert circles(graph) == []


def test_other_packages_are_the_declared_ones(imports):
    wrong = []
    for module, names in imports.items():
        extras = EXTRAS | (CONTENDERS if module.startswith(f"{NAME}.bench.against_") else set())
        for name, in_function in names:
            top = name.split(".")[0]
            if top not in {NAME, *NEEDED, *sys.stdlib_module_names} and not (top in extras and in_function):
                wrong.append(f"{module} imports {name}")
    assert wrong == []


def test_private_names_stay_in_their_file(imports):
    assert [line for module, names in imports.items() for line in private(names, module)] == []


# The page for readers: the tree in README names every part, and CONTRIBUTING names the floors in their order.


def test_the_tree_in_the_readme_is_the_map():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"^```\n(  The engine.*?)^```", text, flags=re.S | re.M).group(1)
    named = re.findall(r"^  ([a-z_]+)(/|\.py) +", tree, flags=re.M)
    assert sorted(name for name, _ in named) == sorted(set(FLOORS) - {"__main__"})
    assert [name for name, end in named if not (PACKAGE / f"{name}{end}").exists()] == []
    parts = re.findall(r"^  ([a-z_]+)/ +(.*)$", tree, flags=re.M)
    files = [PACKAGE / part / file for part, words in parts for file in re.findall(r"\w+\.py", words)]
    assert [path for path in files if not path.is_file()] == []


def test_the_floors_in_contributing_are_the_map():
    text = " ".join((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").split())
    floors = " → ".join(", ".join(f"`{part}`" for part in parts) for parts in MAP if parts != ["__main__"])
    assert floors in text, f"CONTRIBUTING.md must say: {floors}"


# The checks themselves find what they are for.


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kernels.contract", "from tinygrad_llm.autograd import Tensor"),
        ("kernels.contract", "from tinygrad_llm import autograd"),
        ("kernels.contract", "import tinygrad_llm.random"),  # the same floor
        ("kernels.contract", "from ..random import Generator"),
        ("kernels.__init__", "from ..tokenizer import Tokenizer"),
        ("tokenizer.bpe", "def f():\n    from tinygrad_llm.formats import npz"),
        ("autograd.tape", "if True:\n    import tinygrad_llm.functional as F"),
        ("nn.layers", "from tinygrad_llm.optim import SGD"),
        ("models.gpt", "from tinygrad_llm.datasets import windows"),
        ("gradcheck.cases", "class A:\n    def f(self):\n        from tinygrad_llm import training"),
        ("models.gpt", "from tinygrad_llm import GPT"),  # from the package itself
        ("models.gpt", "import tinygrad_llm"),
    ],
)
def test_an_upward_import_is_found(module, source):
    assert list(upward(imported(ast.parse(source), f"{NAME}.{module}"), f"{NAME}.{module}"))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kernels.lookup", "from tinygrad_llm.kernels.contract import Array"),
        ("kernels.lookup", "from .contract import Array"),
        ("kernels.lookup", "from . import contract"),
        ("autograd.tensor", "from tinygrad_llm import kernels as K\nimport numpy.typing\nfrom os import path"),
        ("models.gpt", "from tinygrad_llm import generation, nn"),
        ("training.loop", "from tinygrad_llm.gradcheck import gradcheck"),
        ("cli.main", "from tinygrad_llm import __version__, training"),
    ],
)
def test_a_downward_import_is_allowed(module, source):
    assert not list(upward(imported(ast.parse(source), f"{NAME}.{module}"), f"{NAME}.{module}"))


def test_a_circle_is_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert sorted(circles(graph)) == [["b", "c"], ["d", "e"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_the_file_of_an_import_is_found():
    modules = {"p.__init__", "p.q", "p.r.__init__"}
    names = {
        "p.q.f": "p.q",
        "p.q": "p.q",
        "p.r": "p.r.__init__",
        "p.r.f": "p.r.__init__",
        "p.f": "p.__init__",
        "o": None,
    }
    assert {name: file_of(name, modules) for name in names} == names


def test_a_private_import_is_found():
    for source in ("from tinygrad_llm.optim.optimizer import SGD, _like", "def f():\n    from .tape import _numbers"):
        assert list(private(imported(ast.parse(source), f"{NAME}.training.loop"), f"{NAME}.training.loop"))
    source = "from tinygrad_llm import __version__\nfrom os import _exit"
    assert not list(private(imported(ast.parse(source), f"{NAME}.cli.main"), f"{NAME}.cli.main"))


# Modules that take long to load and serve only some tasks.
HEAVY = set(
    """
    asyncio concurrent.futures difflib email http http.client importlib.metadata logging multiprocessing platform pydoc
    socket sqlite3 ssl subprocess tempfile tomllib unittest urllib.request uuid xml
    hypothesis matplotlib mpi4py scipy threadpoolctl tiktoken tokenizers torch tqdm
    tinygrad_llm.bench tinygrad_llm.datasets tinygrad_llm.gradcheck tinygrad_llm.training tinygrad_llm.runs
    """.split()  # noqa: SIM905 (a list would be three times as long)
)


def loaded(code):
    """The modules that a new Python has loaded after this code."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint()\nprint(*sys.modules)"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    return set(done.stdout.splitlines()[-1].split())


def test_generate_loads_neither_the_training_package_nor_a_run(tmp_path):
    from tinygrad_llm.models import GPT, GPTConfig
    from tinygrad_llm.tokenizer import CharTokenizer

    GPT(GPTConfig(vocab_size=2, block_size=4, n_layer=1, n_head=1, n_embd=2)).save_pretrained(tmp_path)
    CharTokenizer("ab").save(tmp_path / "tokenizer.json")
    for arguments in (["--help"], [str(tmp_path), "--prompt", "ab"]):
        more = loaded(f"from {NAME}.cli import main\nassert main({['generate', *arguments]}) == 0")
        assert f"{NAME}.cli.generate" in more
        wrong = [name for name in more if name.split(".")[1:2] in (["training"], ["datasets"], ["evaluation"])]
        assert sorted([*wrong, *(more & {f"{NAME}.runs.run", "concurrent.futures", "multiprocessing"})]) == []


def test_modules_that_are_not_needed_are_not_loaded():
    numpy = loaded("import numpy")
    for code in (f"import {NAME}", f"from {NAME}.cli import main\nmain(['--help'])"):
        more = loaded(code) - numpy
        assert NAME in more
        assert sorted(more & HEAVY) == [], code
