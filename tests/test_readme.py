"""What README, CONTRIBUTING and the package's docstring show is run, and every command shown is accepted."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import numpy as np

import tinygrad_llm
from tinygrad_llm import cli
from tinygrad_llm import gradcheck as gradcheck_package
from tinygrad_llm.datasets import CORPORA
from tinygrad_llm.datasets.public import SHIPPED
from tinygrad_llm.gradcheck import cases, gradcheck
from tinygrad_llm.kernels import KERNELS, Array, kernel
from tinygrad_llm.kernels.contract import Result

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text, indent=""):
    """The Python code of a Markdown text."""
    found = re.findall(rf"^{indent}```python\n(.*?)^{indent}```", text, flags=re.S | re.M)
    return ["\n".join(line.removeprefix(indent) for line in block.split("\n")) for block in found]


def run_block(code, **names):
    """The names that the code defines. A kernel that it registers is taken out of the table again."""
    before = dict(KERNELS)
    try:
        exec(compile(code, "README.md", "exec"), names)
    finally:
        KERNELS.clear()
        KERNELS.update(before)
    return names


def test_readme_is_at_most_120_lines_and_links_to_one_page_first():
    assert len(README.splitlines()) <= 120
    assert re.search(r"\]\((.*?)\)", README).group(1) == "scripts/one_page.py"


def test_every_link_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)\)", README + (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


def test_the_engine_is_ten_lines_and_exact(capsys):
    engine = blocks(README)[0]
    assert sum(bool(line.strip()) for line in engine.splitlines()) == 10
    np.random.seed(0)  # noqa: NPY002 (the engine draws from NumPy, and rounding is larger on one input in a hundred)
    run_block(engine)
    assert float(capsys.readouterr().out) < 1e-14


def test_the_kernel_shown_is_the_kernel():
    shown, real = run_block(blocks(README)[1], np=np)["tanh"], KERNELS["tanh"]
    x, g = np.linspace(-2, 2, 9), np.arange(9.0)
    (y, vjp), (real_y, real_vjp) = shown(x), real(x)
    np.testing.assert_array_equal(y, real_y)
    np.testing.assert_array_equal(vjp(g)[0], real_vjp(g)[0])


def test_a_gradient_written_by_hand_is_proven(capsys):
    run_block(blocks(README)[2], np=np)
    assert re.search(r"gradient passes by richardson(.|\n)*np.linalg.norm", capsys.readouterr().out)


def example(docstring):
    """The code of a docstring: the indented lines from the first import on."""
    return inspect.cleandoc(re.search(r"^    (import|from) .*?(?=^\S)", docstring + "\n.", flags=re.S | re.M)[0])


def test_the_training_loop_of_the_docstring_runs(capsys):
    run_block(example(tinygrad_llm.__doc__))
    assert capsys.readouterr().out.startswith("Every effort moves you")


def test_the_proofs_of_the_docstring_hold():
    names = run_block(example(gradcheck_package.__doc__))
    np.testing.assert_allclose(names["H"], np.diag([6.0, 12.0]), atol=1e-14)
    np.testing.assert_allclose(names["dy"], 0, atol=1e-14)  # softmax ignores a shift


def test_the_operation_of_contributing_passes_its_proof():
    code = blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), "   ")[0]
    softplus = run_block(code, np=np, kernel=kernel, Array=Array, Result=Result)["softplus"]
    fn, inputs, _ = cases._kernel(softplus, "", cases.normal(3, 4)).make(cases.Generator(0))
    assert gradcheck(fn, inputs).worst.error < 1e-14
    np.testing.assert_allclose(softplus(np.array([-800.0, 0.0, 800.0]))[0], [0, np.log(2), 800])
    *_, vjp, last = ast.parse(code).body[0].body
    assert isinstance(vjp, ast.FunctionDef), "everything that forward computes stands before vjp"
    assert isinstance(last, ast.Return)


def shown():
    """The words of every command shown, in order: in the text, in the table, and in code blocks."""
    words = r"(?:tinygrad-llm|python3?|\.) [^`\n]+"
    found = re.findall(rf"`({words})`|^({words})$", README, flags=re.M)
    return [shlex.split(quoted or line, comments=True, posix=True) for quoted, line in found]


def commands():
    """Those of this package."""
    return [words[1:] for words in shown() if words[0] == "tinygrad-llm"]


def test_every_command_is_in_the_readme():
    assert {command[0] for command in commands()} == set(cli.COMMANDS)


def test_the_commands_of_a_fresh_checkout_are_those_of_the_first_block():
    others = [words for words in shown() if words[0] != "tinygrad-llm"]
    assert shown()[: len(others)] == others
    made = []  # by the commands before
    for words in others:
        if words[0] == ".":
            assert ".venv" in made
            continue
        script, *job = words[1:]
        assert (ROOT / script).is_file()
        if script == "scripts/bootstrap.py":
            assert job[0] in re.findall(r'^    "(\w+)": \(\(', (ROOT / script).read_text(encoding="utf-8"), flags=re.M)
            made.append(".venv")
        assert words[0] == "python3" or ".venv" in made  # `python` is that of the environment


def parsed(command, monkeypatch):
    """The arguments of a command, which is not run."""
    real_load, seen = cli._load, []

    class Parsed:
        """The module of a command that parses its arguments but does nothing."""

        EXAMPLE = "x"

        def __init__(self, name):
            self.add_arguments = real_load(name).add_arguments

        def run(self, args):
            seen.append(args)
            return 0

    monkeypatch.setattr(cli, "_load", Parsed)
    assert cli.main(command) == 0
    (args,) = seen
    assert args.command == command[0]
    return vars(args)


NEEDS = ("run", "file", "base", "source", "data", "corpus", "sweep", "resume")  # arguments that name what is read
MAKES = ("out", "destination")
BUNDLED = {*CORPORA, *SHIPPED, "choices"}


def test_every_file_that_a_command_needs_is_there_or_was_made_before(monkeypatch):
    made = ["runs/demo"]  # by the first command of all
    for command in commands():
        args = parsed(command, monkeypatch)
        for name in filter(args.get, () if command[0] == "download" else NEEDS):
            needed = str(args[name])
            assert needed in BUNDLED or needed in made or (ROOT / needed).exists(), command
        new = [str(args[name]) for name in filter(args.get, MAKES)]
        new += command[1:2] * (command[0] == "download")
        if command[0] != "demo":  # which replaces its own folder
            assert not set(new) & set(made), command
        made += new
