"""`tinygrad-llm gradcheck`: the ledger, the mutants and the curve, printed and as JSON, and the exit status of each."""

import json

import numpy as np
import pytest

from tinygrad_llm.autograd import apply
from tinygrad_llm.cli import gradcheck as command
from tinygrad_llm.cli import options
from tinygrad_llm.gradcheck import Case, all_cases, checkers
from tinygrad_llm.kernels import KERNELS


def cubed(x):
    """y = x³, with a gradient without its factor 3."""
    return x**3, lambda g: (g * x**2,)


def modulus(x):
    """y = |x|, which drops the imaginary part of the complex step."""
    return np.abs(x), lambda g: (g * np.sign(x.real),)


def case(kernel):
    def make(rng):
        return lambda x: apply(kernel, x), [rng.randn((2, 3), np.float64)], ["x"]

    return Case("kernels", kernel.__name__, "", make)


@pytest.fixture
def table(monkeypatch):
    """A function that makes the table the cases of tanh, and one for each kernel given."""

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
    assert "ok" in out
    assert "0 failed" in out
    assert "\x1b" not in out  # no colors where there is no terminal


def test_json_has_one_row_per_case(printed):
    out = printed("gradcheck", "layer_norm", "--json", "--seed", 3)
    figures = figures_of(out)
    wanted = [c.name for c in all_cases() if c.covers == "layer_norm"]
    assert [row["name"] for row in figures["rows"]] == wanted
    assert (figures["cases"], figures["failed"], figures["uncovered"]) == (len(wanted), 0, [])
    assert 0 <= figures["worst"] <= 1e-12


def test_everything_fits_80_columns(cli, table):
    table(cubed, modulus)
    for arguments in ((), ("softplus", "--mutants"), ("--curve", "tanh")):
        lines = cli("gradcheck", *arguments)[1].splitlines()
        assert [line for line in lines if len(line) > 80] == []


def test_a_wrong_gradient_is_found(cli, table):
    table(cubed)
    status, out, _ = cli("gradcheck")
    assert status == 1
    assert "FAILED cubed: x is wrong at index " in out
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


def test_a_gradient_that_cannot_be_checked_fails(cli, table):
    table(modulus)
    status, out, _ = cli("gradcheck")
    assert status == 1
    assert "FAILED modulus: fn is not analytic" in out
    status, out, _ = cli("gradcheck", "--json")
    figures = figures_of(out)
    assert (status, figures["failed"]) == (1, 1)
    assert figures["rows"][-1]["error"] is None
    assert figures["worst"] <= 1e-12  # of the cases that could be measured


def test_a_kernel_without_a_case_is_reported(cli, monkeypatch):
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


def test_colors_are_for_terminals(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert options.color("ok", "green") == "\x1b[32mok\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert options.color("ok", "green") == "ok"


def test_another_method_checks_the_cases_that_allow_it(cli):
    for method in ("central", "richardson", "directions", "adjoint", "float32"):
        status, out, err = cli("gradcheck", "negative", "cumsum", "--method", method, "--json")
        rows = figures_of(out)["rows"]
        assert (status, err) == (0, "")
        assert {row["covers"] for row in rows} == {"negative", "cumsum"}
        assert {row["method"] for row in rows} == {method}
    status, out, err = cli("gradcheck", "relu", "--method", "directions")
    assert (status, out) == (2, "")
    assert "directions cannot check relu: they have a kink" in err
    status, out, err = cli("gradcheck", "gelu", "--mutants", "--method", "adjoint")
    assert (status, out) == (2, "")
    assert "they are not linear" in err


def test_mutants_are_planted_and_caught(cli, printed):
    status, out, err = cli("gradcheck", "gelu", "sum", "--mutants", "--json")
    figures = figures_of(out)
    assert (status, err) == (0, "")
    assert figures["kernels"] == 2
    assert figures["planted"] == figures["caught"] == len(figures["rows"]) >= 12
    out = printed("gradcheck", "gelu", "sum", "--mutants")
    assert "gelu: " in out
    assert "caught by gelu, error" in out
    words = "an axis too many caught by gelu: the backward pass failed: the gradient of gelu's input x has shape (1, "
    assert words in " ".join(out.split()), "where no error can be computed, the message is shown"
    assert f"{figures['planted']} wrong gradients planted, one at a time; {figures['planted']} caught" in out


def test_mutants_that_a_weaker_method_misses_are_not_a_failure(printed):
    out = printed("gradcheck", "gelu", "--mutants", "--method", "central")
    assert "not caught, error" in out
    assert "missed" in out


def test_a_mutant_that_the_default_method_misses_is_a_failure(cli, monkeypatch):
    monkeypatch.setitem(checkers.TOLERANCE, "complex", 1.0)
    status, out, _ = cli("gradcheck", "gelu", "--mutants")
    assert status == 1
    assert "missed" in out


def test_the_curve_is_a_table_and_a_picture(cli, tmp_path):
    pytest.importorskip("matplotlib")
    status, out, err = cli("gradcheck", "--curve", "tanh", "--out", tmp_path / "curve.png")
    assert (status, err) == (0, "")
    assert "best: forward" in out
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    status, out, _ = cli("gradcheck", "--curve", "tanh", "--json")
    assert {row["method"] for row in figures_of(out)["rows"]} == {"forward", "central", "richardson", "complex"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tahn"], "nothing is named 'tahn': did you mean tanh"),
        (["GPT", "--mutants"], "nothing is named 'GPT'"),
        (["--curve", "tahn"], "did you mean tanh"),
        (["tanh", "--curve", "tanh"], "--curve takes one name"),
        (["tanh", "--out", "x.png"], "add --curve NAME"),
        (["tanh", "--overwrite"], "--overwrite is for the picture of a --curve: add --out FILE.png"),
        (["--mutants", "--curve", "tanh"], "not allowed with"),
        (["--method", "exact"], "got 'exact': there are complex"),
        (["--curve", "tanh", "--out", "no such folder/x.png"], "no such folder"),
        (["--curve", "tanh", "--out", "."], "must be a .png file"),
        (["--curve", "tanh", "--out", "x.jpg"], "must be a .png file"),
        (["relu", "tanh", "--method", "complex"], "cannot check relu: they have a kink"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_one_line(refused, arguments, message):
    err = refused("gradcheck", *arguments)
    assert message in err
