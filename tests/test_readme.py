"""What README and CONTRIBUTING show is run."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tinygrad_llm import cli
from tinygrad_llm.cli import main
from tinygrad_llm.gradcheck import cases, gradcheck
from tinygrad_llm.kernels import KERNELS, Array, kernel
from tinygrad_llm.kernels.contract import Result

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(text: str, indent: str = "") -> list[str]:
    found = re.findall(rf"^{indent}```python\n(.*?)^{indent}```", text, flags=re.S | re.M)
    return ["\n".join(line.removeprefix(indent) for line in block.split("\n")) for block in found]


def run_block(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"np": np, "kernel": kernel, "Array": Array, "Result": Result}
    exec(compile(code, "README.md", "exec"), names)
    return names


def test_the_tour_of_the_engine_is_ten_lines_and_exact(capsys: pytest.CaptureFixture[str]) -> None:
    tour = blocks(README)[0]
    assert sum(bool(line.strip()) for line in tour.splitlines()) == 10
    run_block(tour)
    assert float(capsys.readouterr().out) < 1e-14


def test_the_kernel_shown_is_the_kernel() -> None:
    before = KERNELS["tanh"]
    try:
        shown = run_block(blocks(README)[1])["tanh"]
    finally:
        KERNELS["tanh"] = before
    x, g = np.linspace(-2, 2, 9), np.arange(9.0)
    y, vjp = shown(x)
    real_y, real_vjp = before(x)
    np.testing.assert_array_equal(y, real_y)
    np.testing.assert_array_equal(vjp(g)[0], real_vjp(g)[0])


def test_the_training_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run_block(blocks(README)[2])
    assert capsys.readouterr().out.startswith("Every effort moves you")


def test_the_operation_of_contributing_passes_its_proof() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    try:
        softplus = run_block(blocks(text, "   ")[0])["softplus"]
        case = cases._kernel(softplus, "", cases.normal(3, 4))
        fn, inputs, _ = case.make(cases.Generator(0))
        assert gradcheck(fn, inputs).worst.error < 1e-14
        np.testing.assert_allclose(softplus(np.array([-800.0, 0.0, 800.0]))[0], [0, np.log(2), 800])
    finally:
        KERNELS.pop("softplus", None)


def test_the_proofs_and_the_debugging_aids_run(capsys: pytest.CaptureFixture[str]) -> None:
    shown = blocks(README)
    names = run_block("\n".join([shown[0], *shown[3:]]))
    np.testing.assert_array_equal(names["H"], np.diag([6.0, 12.0]))
    out = capsys.readouterr().out
    assert "log made NaN in its output" in out
    assert "did not move" in out


def commands() -> list[str]:
    table = re.findall(r"`(tinygrad-llm [^`]+)`", README)
    return [c for c in table if c.split()[1] in cli.COMMANDS]


def test_every_command_is_in_the_readme() -> None:
    assert {c.split()[1] for c in commands()} == set(cli.COMMANDS)


@pytest.mark.parametrize("command", commands())
def test_the_commands_shown_parse(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    class Fake:
        EXAMPLE = "x"

        def __init__(self, name: str) -> None:
            self.real = real_load(name)

        def add_arguments(self, parser: Any) -> None:
            self.real.add_arguments(parser)

        def run(self, args: Any) -> int:
            seen.append(args.command)
            return 0

    real_load = cli._load
    monkeypatch.setattr(cli, "_load", Fake)
    assert main(shlex.split(command)[1:]) == 0
    assert seen == [command.split()[1]]
