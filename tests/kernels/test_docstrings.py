"""Every kernel says its formula, derives each gradient that its vjp returns, and computes forward before backward."""

import ast
import inspect
import re
import textwrap

from tinygrad_llm.gradcheck.cases import basic_cases
from tinygrad_llm.kernels import KERNELS

GRADIENT = re.compile(r"(?<!\w)d(?:x|n|a|b|q|k|v|qkv|mask|weight|bias|logits)(?![^\W_])")  # dx, also as in dx_i


def parts(name):
    """The docstring before and after the word "Derivation:", which occurs once."""
    before, after = inspect.getdoc(KERNELS[name]).split("Derivation:")
    return before, after


def returned(name, kernel_call):
    """The gradients that vjp returns in any case of the gradcheck table, by the names of the kernel's parameters."""
    parameters = inspect.signature(KERNELS[name]).parameters
    if any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
        return {"dx"}  # any number of arrays: each of them is x
    found = set()
    for case in basic_cases():
        if case.covers == name:
            kernel, arrays, options = kernel_call(case)
            y, vjp = kernel(*arrays, **options)
            found |= {f"d{p}" for p, d in zip(parameters, vjp(y), strict=False) if d is not None}
    return found


def test_first_paragraph_gives_the_formula_and_the_gradient(for_each):
    def check(name):
        first = parts(name)[0].split("\n\n")[0]
        assert re.match(r"(y|loss|loss_i) = \S", first)
        assert GRADIENT.search(first)

    for_each(KERNELS, check)


def test_derivation_is_an_indented_section_at_the_end(for_each):
    def check(name):
        before, after = parts(name)
        assert before.endswith("\n\n")
        heading, *lines = after.split("\n")
        assert not heading
        assert lines
        assert all(line.startswith("    ") and line.strip() for line in lines)
        assert re.search("[∂⟨]", after), "there is no derivative and no adjoint in it"

    for_each(KERNELS, check)


def test_each_gradient_is_announced_and_derived(for_each, kernel_call):
    def check(name):
        announced, derived = (set(GRADIENT.findall(part)) for part in parts(name))
        gradients = returned(name, kernel_call)
        assert gradients
        assert gradients <= announced
        assert announced <= derived

    for_each(KERNELS, check)


def test_forward_stands_before_vjp(for_each):
    """After vjp a kernel only returns, and vjp is the last thing it defines."""

    def check(name):
        (function,) = ast.parse(textwrap.dedent(inspect.getsource(KERNELS[name]))).body
        *_, last, end = function.body
        assert isinstance(last, ast.FunctionDef)
        assert last.name == "vjp"
        assert ast.unparse(end) in ("return (y, vjp)", "return (loss, vjp)")

    for_each(KERNELS, check)
