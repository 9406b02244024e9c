"""The floors of the package: each part imports only from floors below it, and parts of one floor nothing of another.

And what takes long to load is loaded only where it is used.
"""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import tinygrad_llm

PACKAGE = Path(tinygrad_llm.__file__).parent
NAME = "tinygrad_llm"

FLOORS = {
    "kernels": 0,
    "random": 0,
    "runtime": 0,
    "storage": 0,
    "autograd": 1,
    "formats": 1,
    "tokenizer": 1,
    "functional": 2,
    "nn": 3,
    "optim": 3,
    "generation": 4,
    "weights": 4,
    "datasets": 5,
    "models": 5,
    "evaluation": 6.0,
    "gradcheck": 6.0,
    "training": 6.1,
    "finetuning": 6.2,
    "study": 6.3,
    "runs": 6.4,
    "bench": 6.5,
    "cli": 7,
    "__main__": 7.1,
}
ROOT = 7  # what the package itself offers (`from tinygrad_llm import GPT`) is for the top floor and for users
NEEDED = {"numpy", "regex"}
# Only where they are used, with a plain fallback.
EXTRAS = {"tqdm", "threadpoolctl", "matplotlib", "mpi4py", "tiktoken", "tokenizers"}
EXTRAS |= {"tensorboard", "tensorboardX"}
THEIRS = {"torch", "transformers", "safetensors"}  # what bench/against_….py runs beside ours

MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def imported(source, module):
    """(full dotted name, whether inside a function) of everything the source of `module` imports.

    `from a import b` gives a.b: b may be a module or a name, and the longer path tells more.
    """
    tree = ast.parse(source)
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) in inside
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split(".")[: -node.level]
                base = ".".join([*package, *([node.module] if node.module else [])])
            for alias in node.names:
                yield f"{base}.{alias.name}", id(node) in inside


def part(name):
    """The part of the package that a full dotted name belongs to; None: the package itself."""
    names = name.split(".")
    return names[1] if len(names) > 1 and names[1] in FLOORS else None


def upward(source, module):
    """The imports of a module that go up, or sideways."""
    own = module.split(".")[1]
    wrong = []
    for name, _ in imported(source, module):
        if name.split(".")[0] != NAME:
            continue
        other = part(name)
        same = other == own or (other is None and FLOORS[own] >= ROOT)
        if not same and (other is None or FLOORS[other] >= FLOORS[own]):
            wrong.append(name)
    return wrong


def module_name(path):
    """The dotted name of a file; a package's own file keeps `__init__`, so that relative imports count right."""
    return ".".join([NAME, *path.relative_to(PACKAGE).with_suffix("").parts])


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_imports_go_down(path):
    module = module_name(path)
    assert module.split(".")[1] in FLOORS, f"{module} has no floor: add it to the table, and to the design"
    wrong = upward(path.read_text(), module)
    assert not wrong, f"{module} (floor {FLOORS[module.split('.')[1]]}) imports {', '.join(wrong)}"


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_other_packages_are_the_declared_ones(path):
    for name, in_function in imported(path.read_text(), module_name(path)):
        top = name.split(".")[0]
        if top != NAME and top not in sys.stdlib_module_names:
            extras = EXTRAS | THEIRS if path.match("bench/against_*.py") else EXTRAS
            assert top in NEEDED or (top in extras and in_function), f"{path.name} imports {name}"


def private(source, module):
    """The names with an underscore that a module imports from another of the package; `__version__` is none."""
    found = []
    for name, _ in imported(source, module):
        top, *path = name.split(".")
        if top == NAME and any(word.startswith("_") and not word.startswith("__") for word in path):
            found.append(name)
    return found


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_what_is_private_stays_in_its_file(path):
    assert not private(path.read_text(), module_name(path))


def test_a_private_import_is_found():
    assert private("from tinygrad_llm.optim.optimizer import SGD, _like", f"{NAME}.training.loop")
    assert private("def f():\n    from .tape import _numbers", f"{NAME}.autograd.tensor")
    assert not private("from tinygrad_llm import __version__\nfrom os import _exit", f"{NAME}.cli.main")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kernels.contract", "from tinygrad_llm.autograd import Tensor"),
        ("kernels.contract", "from tinygrad_llm import autograd"),
        ("kernels.contract", "import tinygrad_llm.random"),  # floor 0 to floor 0
        ("kernels.contract", "from ..random import Generator"),
        ("kernels.__init__", "from ..tokenizer import Tokenizer"),
        ("tokenizer.bpe", "def f():\n    from tinygrad_llm.formats import files"),
        ("autograd.tape", "if True:\n    import tinygrad_llm.functional as F"),
        ("nn.layers", "from tinygrad_llm.optim import SGD"),
        ("models.gpt", "from tinygrad_llm.datasets import windows"),
        ("gradcheck.cases", "class A:\n    def f(self):\n        from tinygrad_llm import training"),
        ("models.gpt", "from tinygrad_llm import GPT"),  # by the front door
        ("models.gpt", "import tinygrad_llm"),
    ],
)
def test_an_upward_import_is_found(module, source):
    assert upward(source, f"{NAME}.{module}")


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("kernels.losses", "from tinygrad_llm.kernels.contract import Array"),
        ("kernels.losses", "from .contract import Array"),
        ("kernels.losses", "from . import contract"),
        ("autograd.tensor", "from tinygrad_llm import kernels as K\nimport numpy.typing\nfrom os import path"),
        ("models.gpt", "from tinygrad_llm import generation, nn"),
        ("training.loop", "from tinygrad_llm.gradcheck import gradcheck"),
        ("cli.main", "from tinygrad_llm import __version__, training"),
    ],
)
def test_a_downward_import_is_fine(module, source):
    assert not upward(source, f"{NAME}.{module}")


# What takes long to load, and is for some tasks only.
HEAVY = set(
    """
    asyncio concurrent.futures difflib email http http.client importlib.metadata logging multiprocessing platform pydoc
    socket sqlite3 ssl subprocess tempfile tomllib unittest urllib.request uuid xml
    hypothesis matplotlib mpi4py scipy threadpoolctl tiktoken tokenizers torch tqdm
    tinygrad_llm.bench tinygrad_llm.datasets tinygrad_llm.finetuning tinygrad_llm.gradcheck tinygrad_llm.training
    """.split()  # noqa: SIM905 (a list would be three times as long)
)


def loaded(code):
    """The modules that are loaded in a new Python after this code."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint()\nprint(*sys.modules)"]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code", [f"import {NAME}", f"from {NAME}.cli import main\nmain(['--help'])"], ids=["import", "--help"]
)
def test_what_is_not_needed_is_not_loaded(code):
    more = loaded(code) - loaded("import numpy")
    assert NAME in more
    assert not more & HEAVY
