"""Every kernel says its formula, and derives each gradient that its vjp returns."""

import inspect
import re

import pytest

from tinygrad_llm.gradcheck import all_cases
from tinygrad_llm.kernels import KERNELS

every_kernel = pytest.mark.parametrize("name", KERNELS)
GRADIENT = re.compile(r"(?<!\w)d(?:x|n|a|b|q|k|v|qkv|mask|weight|bias|logits)(?![^\W_])")  # dx, also as in dx_i


def parts(name):
    """The docstring before and after the word "Derivation:", of which there is one."""
    before, after = inspect.getdoc(KERNELS[name]).split("Derivation:")
    return before, after


def returned(name, kernel_call):
    """The gradients that vjp returns in any case of the gradcheck table, by the names of the kernel's parameters."""
    parameters = inspect.signature(KERNELS[name]).parameters
    if any(p.kind is p.VAR_POSITIONAL for p in parameters.values()):
        return {"dx"}  # any number of arrays: each of them is x
    found = set()
    for case in all_cases():
        if case.covers == name:
            kernel, arrays, options = kernel_call(case)
            y, vjp = kernel(*arrays, **options)
            found |= {f"d{p}" for p, d in zip(parameters, vjp(y), strict=False) if d is not None}
    return found


@every_kernel
def test_the_first_paragraph_gives_the_formula_and_the_gradient(name):
    first = parts(name)[0].split("\n\n")[0]
    assert re.match(r"(y|loss|loss_i) = \S", first)
    assert GRADIENT.search(first)


@every_kernel
def test_the_derivation_is_an_indented_section_at_the_end(name):
    before, after = parts(name)
    assert before.endswith("\n\n")
    heading, *lines = after.split("\n")
    assert not heading
    assert lines
    assert all(line.startswith("    ") and line.strip() for line in lines)
    assert re.search("[∂⟨]", after), "there is a derivative or an adjoint in it"


@every_kernel
def test_what_vjp_returns_is_announced_and_what_is_announced_is_derived(name, kernel_call):
    announced, derived = (set(GRADIENT.findall(part)) for part in parts(name))
    gradients = returned(name, kernel_call)
    assert gradients
    assert gradients <= announced
    assert announced <= derived


@every_kernel
def test_lines_fit(name):
    assert max(map(len, inspect.getsource(KERNELS[name]).splitlines())) <= 120
