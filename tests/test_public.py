"""What the package offers: the names exist, and each has a docstring."""

import ast
import importlib
import pkgutil
import types

import tinygrad_llm

MODULES = [
    module for module in pkgutil.walk_packages(tinygrad_llm.__path__, "tinygrad_llm.") if module.name[-8:] != "__main__"
]
# Every command's module has these two functions, which `cli.Command` describes.
COMMAND_FUNCTIONS = {"add_arguments", "run"}
# Functions that draw an input for a case: one line each, which their names repeat.
DRAWS = {"normal", "positive", "ids", "fixed", "mask"}


def test_the_interface_is_the_designed_one():
    names = "Tensor Generator GPT GPTConfig Tokenizer no_grad grad detect_anomaly AnomalyError nn optim functional"
    assert sorted(tinygrad_llm.__all__) == sorted(names.split())


def test_every_offered_name_exists_once_and_has_a_docstring():
    wrong = []
    for name in ("tinygrad_llm", *(module.name for module in MODULES)):
        module = importlib.import_module(name)
        names = getattr(module, "__all__", [])
        wrong += [f"{name}.{offered} is listed twice" for offered in set(names) if names.count(offered) > 1]
        for offered in names:
            thing = getattr(module, offered, None)
            documented = not isinstance(thing, type | types.FunctionType | types.ModuleType) or thing.__doc__
            if not hasattr(module, offered) or not documented:
                wrong.append(f"{name}.{offered} does not exist, or has no docstring")
    assert wrong == []


def test_every_public_function_and_class_has_a_docstring(trees):
    missing = []
    for path, tree in trees.items():
        exempt = {"cli": COMMAND_FUNCTIONS, "gradcheck": DRAWS}.get(path.parent.name, set())
        named = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
        if path.name == "wrong_formulas.py":  # a table says in words what each of these functions gets wrong
            named = []
        public = [node for node in named if not node.name.startswith("_") and node.name not in exempt]
        missing += [
            f"{path.name}: {getattr(node, 'name', 'the file')}"
            for node in (tree, *public)
            if not ast.get_docstring(node)
        ]
    assert missing == []


def test_every_folder_lists_what_it_offers():
    program = ["tinygrad_llm.cli", "tinygrad_llm.runs"]  # importing one of their files must not load all others
    folders = [module.name for module in MODULES if module.ispkg]
    assert [name for name in folders if not hasattr(importlib.import_module(name), "__all__")] == program
