"""What the package offers: the names, that they exist, and that each says what it is."""

import ast
import importlib
import pkgutil
import types
from pathlib import Path

import pytest

import tinygrad_llm

PACKAGE = Path(tinygrad_llm.__file__).parent
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__main__.py")
INSIDE = [module.name for module in pkgutil.walk_packages(tinygrad_llm.__path__, "tinygrad_llm.")]
MODULES = ["tinygrad_llm", *(name for name in INSIDE if not name.endswith("__main__"))]
# A subcommand's module offers these two, which `cli.Command` describes.
COMMAND_FUNCTIONS = {"add_arguments", "run"}
# The ways to draw an input for a case: one line each, which their names repeat.
DRAWS = {"normal", "positive", "ids", "fixed", "mask"}


def test_the_interface_is_the_designed_one():
    names = "Tensor Generator GPT GPTConfig Tokenizer no_grad grad detect_anomaly AnomalyError nn optim functional"
    assert sorted(tinygrad_llm.__all__) == sorted(names.split())


@pytest.mark.parametrize("name", MODULES)
def test_every_offered_name_exists_and_says_what_it_is(name):
    module = importlib.import_module(name)
    names = getattr(module, "__all__", [])
    assert len(set(names)) == len(names)
    for offered in names:
        thing = getattr(module, offered)
        if isinstance(thing, type | types.FunctionType | types.ModuleType):
            assert thing.__doc__, f"{name}.{offered} has no docstring"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_public_thing_has_a_docstring(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert ast.get_docstring(tree), "the module itself"
    exempt = {"cli": COMMAND_FUNCTIONS, "gradcheck": DRAWS}.get(path.parent.name, set())
    named = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    if path.name == "wrong_formulas.py":  # its table says in words what each of them gets wrong
        named = []
    public = [node for node in named if not node.name.startswith("_") and node.name not in exempt]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_packages_say_what_they_offer():
    quiet = {"tinygrad_llm.cli"}  # a program
    packages = [m.name for m in pkgutil.iter_modules(tinygrad_llm.__path__, "tinygrad_llm.") if m.ispkg]
    assert {name for name in packages if not hasattr(importlib.import_module(name), "__all__")} == quiet
