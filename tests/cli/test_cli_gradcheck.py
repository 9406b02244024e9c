"""`tinygrad-llm gradcheck`: it must find what is wrong, or else its approval is worth nothing."""

import json

import numpy as np
import pytest

from tinygrad_llm.autograd import apply
from tinygrad_llm.cli import gradcheck as command
from tinygrad_llm.gradcheck import Case, all_cases
from tinygrad_llm.kernels import KERNELS


def cubed(x):
    """y = x³, with a gradient that has lost its 3."""
    return x**3, lambda g: (g * x**2,)


def modulus(x):
    """y = |x|, which no complex step can follow."""
    return np.abs(x), lambda g: (g * np.sign(x.real),)


def case(kernel):
    def make(rng):
        return lambda x: apply(kernel, x), [rng.randn((2, 3), np.float64)], ["x"]

    return Case(kernel.__name__, "", make)


@pytest.fixture
def table(monkeypatch):
    """A function that puts cases after those of tanh."""

    def extend(*kernels):
        cases = [*(c for c in all_cases() if c.covers == "tanh"), *map(case, kernels)]
        monkeypatch.setattr(command, "all_cases", lambda: cases)
        monkeypatch.setattr(command, "uncovered", lambda cases: [])

    return extend


def figures_of(out):
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_named_kernels_and_layers_are_proven(cli):
    status, out, err = cli("gradcheck", "tanh", "LayerNorm")
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert [line[-1] for line in lines if line and line[0] in ("tanh", "LayerNorm")] == ["ok", "ok"]
    assert [line[0] for line in lines if line and line[0] in ("kernels", "layers")] == ["kernels", "layers"]
    assert "2 cases" in out
    assert "0 failed" in out
    assert "\x1b" not in out  # no colours where there is no terminal


def test_json_has_a_row_a_case(cli):
    status, out, _ = cli("gradcheck", "layer_norm", "--json", "--seed", 3)
    figures = figures_of(out)
    wanted = [c.name for c in all_cases() if c.covers == "layer_norm"]
    assert status == 0
    assert [row["name"] for row in figures["rows"]] == wanted
    assert (figures["cases"], figures["failed"], figures["uncovered"]) == (len(wanted), 0, [])
    assert 0 <= figures["worst"] <= 1e-12


def test_a_wrong_gradient_is_found(cli, table):
    table(cubed)
    status, out, _ = cli("gradcheck")
    assert status == 1
    assert "FAILED cubed: x at " in out
    assert "1 failed" in out
    assert cli("gradcheck", "tanh")[0] == 0


def test_a_wrong_gradient_is_found_in_json(cli, table):
    table(cubed)
    status, out, _ = cli("gradcheck", "--json")
    figures = figures_of(out)
    assert status == 1
    assert figures["failed"] == 1
    assert figures["worst"] > 0.1
    assert "analytic" in figures["rows"][-1]["message"]


def test_a_gradient_that_cannot_be_checked_has_failed(cli, table):
    table(modulus)
    status, out, _ = cli("gradcheck")
    assert status == 1
    assert "FAILED modulus: the imaginary part got lost" in out
    status, out, _ = cli("gradcheck", "--json")
    figures = figures_of(out)
    assert (status, figures["failed"]) == (1, 1)
    assert figures["rows"][-1]["error"] is None
    assert figures["worst"] <= 1e-12  # of what could be measured


def test_a_kernel_without_a_case_is_found(cli, monkeypatch):
    cases = all_cases()
    monkeypatch.setattr(command, "all_cases", lambda: cases)
    monkeypatch.setattr(command, "run_cases", lambda chosen, seed: iter(()))
    assert cli("gradcheck")[0] == 0
    monkeypatch.setitem(KERNELS, "cubed", cubed)
    status, out, _ = cli("gradcheck")
    assert status == 1
    assert "NO CASE cubed" in out
    status, out, _ = cli("gradcheck", "--json")
    assert (status, figures_of(out)["uncovered"]) == (1, ["cubed"])


def test_colours_are_for_terminals(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert command._colour("ok", 32) == "\x1b[32mok\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert command._colour("ok", 32) == "ok"
