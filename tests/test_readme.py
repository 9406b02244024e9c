"""What README, CONTRIBUTING and the package's docstring show is run, and every command shown is accepted."""

import ast
import inspect
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

import tinygrad_llm
from tinygrad_llm import cli
from tinygrad_llm import gradcheck as gradcheck_package
from tinygrad_llm.gradcheck import cases, gradcheck
from tinygrad_llm.kernels import KERNELS, Array, kernel
from tinygrad_llm.kernels.contract import Result

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text, indent=""):
    """The Python code of a Markdown text."""
    found = re.findall(rf"^{indent}```python\n(.*?)^{indent}```", text, flags=re.S | re.M)
    return ["\n".join(line.removeprefix(indent) for line in block.split("\n")) for block in found]


def run_block(code):
    """The names that the code defines. A kernel that it registers is taken out of the table again."""
    names = {"np": np, "kernel": kernel, "Array": Array, "Result": Result}
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
    run_block(engine)
    assert float(capsys.readouterr().out) < 1e-14


def test_the_kernel_shown_is_the_kernel():
    shown, real = run_block(blocks(README)[1])["tanh"], KERNELS["tanh"]
    x, g = np.linspace(-2, 2, 9), np.arange(9.0)
    (y, vjp), (real_y, real_vjp) = shown(x), real(x)
    np.testing.assert_array_equal(y, real_y)
    np.testing.assert_array_equal(vjp(g)[0], real_vjp(g)[0])


def test_a_gradient_written_by_hand_is_proven(capsys):
    run_block(blocks(README)[2])
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
    softplus = run_block(code)["softplus"]
    fn, inputs, _ = cases._kernel(softplus, "", cases.normal(3, 4)).make(cases.Generator(0))
    assert gradcheck(fn, inputs).worst.error < 1e-14
    np.testing.assert_allclose(softplus(np.array([-800.0, 0.0, 800.0]))[0], [0, np.log(2), 800])
    *_, vjp, last = ast.parse(code).body[0].body
    assert isinstance(vjp, ast.FunctionDef), "everything that forward computes stands before vjp"
    assert isinstance(last, ast.Return)


def commands():
    """Every command shown: in the text, in the table, and in code blocks."""
    found = re.findall(r"`(tinygrad-llm [^`]+)`", README) + re.findall(r"^(tinygrad-llm .*)$", README, flags=re.M)
    return [shlex.split(command, comments=True)[1:] for command in found]


def test_every_command_is_in_the_readme():
    assert {command[0] for command in commands()} == set(cli.COMMANDS)


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_the_commands_shown_are_accepted(command, monkeypatch):
    real_load, seen = cli._load, []

    class Parsed:
        """The module of a command that parses its arguments but does nothing."""

        EXAMPLE = "x"

        def __init__(self, name):
            self.add_arguments = real_load(name).add_arguments

        def run(self, args):
            seen.append(args.command)
            return 0

    monkeypatch.setattr(cli, "_load", Parsed)
    assert cli.main(command) == 0
    assert seen == command[:1]
