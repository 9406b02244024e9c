"""scripts/one_page.py: its gradient is right, it trains as the package trains, and it stays one page of NumPy."""

import ast
import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm import GPT, GPTConfig, optim

SCRIPT = Path(__file__).parents[2] / "scripts" / "one_page.py"
V = 11


@pytest.fixture
def page(monkeypatch):
    """The script as a module, with small sizes: T = 6, C = 8."""
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "1")  # the script sets this variable; monkeypatch restores it
    spec = importlib.util.spec_from_file_location("one_page", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.B, module.T, module.C, module.H, module.LAYERS = 3, 6, 8, 2, 2
    return module


def double_parameters(page):
    """Float64 parameters, large enough that every part of the model matters."""
    p = page.initialize(V, np.random.default_rng(1))
    for x in p.values():
        x.data = 4 * x.data.astype(np.float64)
    return p


def texts(steps, page):
    """ids and targets (B, T) for each step."""
    rng = np.random.default_rng(2)
    return [rng.integers(0, V, (2, page.B, page.T)) for _ in range(steps)]


def packages_model(page, p):
    """The package's GPT with the same matrices. Its biases are 0, its scales are 1, and neither is trained."""
    config = GPTConfig(V, page.T, page.LAYERS, page.H, page.C, qkv_bias=False)
    state = {name: np.float64("ln_" in name and name.endswith("weight")) * np.ones(s) for name, s in config.shapes()}
    state |= {f"transformer.{name}.weight": p[name].data for name in ("wte", "wpe")}
    for i in range(page.LAYERS):
        block = f"transformer.h.{i}"
        qkv = [p[f"{i}.{name}"].data for name in ("query", "key", "value")]
        state[f"{block}.attn.c_attn.weight"] = np.concatenate(qkv, axis=1).T
        for ours, theirs in (("attn.c_proj", "out"), ("mlp.c_fc", "up"), ("mlp.c_proj", "down")):
            state[f"{block}.{ours}.weight"] = p[f"{i}.{theirs}"].data.T
    model = GPT(config)
    for name, x in model.named_parameters():
        x.data = np.array(state[name])
    return model


def test_losses_of_training_are_those_of_the_package(page):
    p, moments, lr = double_parameters(page), {}, 0.01
    model = packages_model(page, p)
    matrices = [x for x in model.parameters() if x.ndim == 2]
    optimizer = optim.AdamW(matrices, lr=lr, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    losses = []
    for step, (ids, targets) in enumerate(texts(40, page), start=1):
        optimizer.zero_grad()
        loss = model.loss(ids, targets)
        loss.backward()
        optimizer.step()
        losses.append((page.train_step(p, moments, step, ids, targets, lr), loss.item()))
    on_the_page, in_the_package = np.transpose(losses)
    np.testing.assert_allclose(on_the_page, in_the_package, rtol=0, atol=1e-9)
    assert np.ptp(in_the_package) > 0.1  # the weights did change


def test_gradient_of_every_parameter_agrees_with_differences(page):
    p = double_parameters(page)
    ((ids, targets),) = texts(1, page)
    page.backward(page.cross_entropy(page.gpt(p, ids), targets))
    assert not page.tape

    def loss_along(x, direction, h):
        start, x.data = x.data, x.data + h * direction
        loss = page.cross_entropy(page.gpt(p, ids), targets).data
        x.data = start
        page.tape.clear()
        return loss

    h = 1e-4
    for name, x in p.items():
        direction = np.random.default_rng(3).standard_normal(x.data.shape)
        near, far = (loss_along(x, direction, k * h) - loss_along(x, direction, -k * h) for k in (1, 2))
        expected = (8 * near - far) / (12 * h)  # five points: the error is of order h⁴
        assert np.sum(x.grad * direction) == pytest.approx(expected, rel=1e-8), name


def test_a_later_character_changes_no_earlier_guess(page):
    p = double_parameters(page)
    ids = np.zeros((1, page.T), int)
    before = page.gpt(p, ids).data
    ids[0, -1] = 1
    after = page.gpt(p, ids).data
    np.testing.assert_array_equal(before[:, :-1], after[:, :-1])
    assert not np.array_equal(before[:, -1], after[:, -1])


def test_float32_parameters_give_float32_gradients(page):
    p = page.initialize(V, np.random.default_rng(1))
    ((ids, targets),) = texts(1, page)
    page.train_step(p, {}, 1, ids, targets, 0.01)
    page.backward(page.cross_entropy(page.gpt(p, ids), targets))
    assert {x.data.dtype for x in p.values()} == {x.grad.dtype for x in p.values()} == {np.dtype(np.float32)}


def test_imports_are_numpy_and_the_standard_library():
    tree = ast.parse(SCRIPT.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert "numpy" in imported
    assert not [name for name in imported if name.split(".")[0] not in {"numpy", *sys.stdlib_module_names}]


def test_it_is_one_page():
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 186


@pytest.fixture
def run(page, monkeypatch, capsys):
    """A function: the script's arguments → what it prints."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["one_page.py", *map(str, arguments)])
        page.main()
        return capsys.readouterr().out

    return run


def test_it_learns_from_a_file_of_names(run, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("ann\nben\nédith\nzoë\n" * 20, encoding="utf-8")
    printed = run(names, "--steps", 200, "--seed", 3)
    losses = [float(line.split()[3]) for line in printed.splitlines() if line.startswith("step")]
    assert len(losses) == 11
    assert losses[0] > 2  # log 11 is 2.4
    assert losses[-1] < 1.5  # the order of the names is fixed


def test_the_seed_determines_what_it_prints(run, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("ann\nben\n" * 9)
    printed = run(text, "--steps", 2, "--seed", 3)
    assert run(text, "--steps", 2, "--seed", 3) == printed
    assert run(text, "--steps", 2, "--seed", 4) != printed


def test_what_it_writes_is_folded_at_80_columns(run, page, tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("ann\nben\n" * 9)
    monkeypatch.setattr(page, "write", lambda p, chars, length, rng: ("some words, " * length)[:length] + "\nlast")
    *_, printed = run(text, "--steps", 1).partition("\n\n")
    assert max(map(len, printed.splitlines())) in range(70, 81)
    assert printed.split() == (("some words, " * 500)[:500] + "\nlast").split()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "error: missing: no such file or directory"),
        (["."], "directory"),
        (["--steps", "0"], "error: --steps: got 0, give at least 1"),
        (["--seed", "-1"], "error: --seed: got -1, give at least 0"),
        (["short"], "error: short: got 5 characters, give at least 6"),
        (["binary"], "can't decode"),
    ],
)
def test_bad_input_is_refused_in_one_line(run, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    Path("short").write_text("short")
    Path("binary").write_bytes(b"\xff\xfe" * 100)
    with pytest.raises(SystemExit) as stop:
        run(*arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1].lower()


def test_it_runs_as_a_script_from_anywhere(tmp_path):
    command = [sys.executable, SCRIPT, "--steps", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("105,216 parameters; blind guessing costs 4.09\nstep    1  loss 4.")


def test_a_terminal_that_lacks_a_character_shows_a_question_mark(page, tmp_path, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("é→\n" * 99, encoding="utf-8")
    printed = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(printed, "ascii", write_through=True))
    monkeypatch.setattr(sys, "argv", ["one_page.py", str(text), "--steps", "1"])
    page.main()
    assert b"?" in printed.getvalue()
