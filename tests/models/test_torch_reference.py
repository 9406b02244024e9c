"""Our GPT next to PyTorch's: logits, loss, every gradient and ten steps of AdamW, as stored in a file.

`scripts/make_torch_reference.py` wrote the file, and describes its contents.
"""

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm import GPT, GPTConfig
from tinygrad_llm.optim import AdamW, clip_grad_norm_, decay_groups

STORED = Path(__file__).with_name("torch_reference.npz")
SCRIPT = Path(__file__).parents[2] / "scripts" / "make_torch_reference.py"
SIZES = {"vocab_size": 11, "block_size": 6, "n_layer": 2, "n_head": 2, "n_embd": 8}
CONFIGS = {"tied": GPTConfig(**SIZES), "untied": GPTConfig(**SIZES, tie_weights=False, qkv_bias=False)}
TOLERANCE = {"float64": 1e-12, "float32": 1e-5}
KEY_BIAS = slice(SIZES["n_embd"], 2 * SIZES["n_embd"])  # where in c_attn.bias


def read(path):
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


REFERENCE = read(STORED)
WEIGHTS = {
    variant: {
        name.removeprefix(f"{variant}/weights/"): array
        for name, array in REFERENCE.items()
        if name.startswith(f"{variant}/weights/")
    }
    for variant in CONFIGS
}
RUNS = [(variant, dtype) for variant in CONFIGS for dtype in TOLERANCE]
RESULTS = [name for name in REFERENCE if name.split("/")[1:2] in (["float64"], ["float32"])]
GRADIENTS = [name for name in RESULTS if "/grad/" in name]


def load(variant, dtype):
    model = GPT(CONFIGS[variant]).to(dtype)
    model.load_state_dict(WEIGHTS[variant])
    return model


def forward_backward(model):
    """Logits, loss and every gradient, by the names they have in the file."""
    ids, targets = REFERENCE["ids"], REFERENCE["targets"]
    loss = model.loss(ids, targets)
    loss.backward()
    found = {"logits": model(ids).data, "loss": loss.data}
    return found | {f"grad/{name}": p.grad for name, p in model.named_parameters()}


def train(model, weight_decay=0.1, betas=(0.9, 0.95), max_norm=1.0):
    """The losses before each of ten steps, and the norm of each parameter after them."""
    optimizer = AdamW(decay_groups(model.named_parameters(), weight_decay), lr=1e-2, betas=betas, eps=1e-8)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = model.loss(REFERENCE["ids"], REFERENCE["targets"])
        loss.backward()
        clip_grad_norm_(model.parameters(), max_norm)
        optimizer.step()
        losses.append(loss.data)
    norms = []
    for name, array in model.state_dict().items():
        if name.endswith("c_attn.bias"):
            array = np.delete(array, KEY_BIAS)  # AdamW moves it by rounding alone
        norms.append(np.linalg.norm(array))
    return {"losses": np.array(losses), "norms": np.array(norms)}


@functools.cache
def ours(variant, dtype):
    found = forward_backward(load(variant, dtype)) | train(load(variant, dtype))
    return {f"{variant}/{dtype}/{key}": array for key, array in found.items()}


def error(name, actual, expected):
    """The relative L2 distance; of losses and norms, which are numbers in their own right, the largest of them."""
    difference, expected = np.float64(actual) - expected, np.float64(expected)
    if name.endswith(("/losses", "/norms")):
        return np.max(np.abs(difference / expected))
    return np.linalg.norm(difference) / np.linalg.norm(expected)


def agrees(name, actual, expected):
    return actual.shape == expected.shape and error(name, actual, expected) < TOLERANCE[name.split("/")[1]]


def test_each_result_equals_that_of_pytorch(for_each):
    def check(name):
        variant, dtype, _ = name.split("/", 2)
        found = ours(variant, dtype)[name]
        assert found.dtype == REFERENCE[name].dtype == dtype
        assert agrees(name, found, REFERENCE[name]), error(name, found, REFERENCE[name])

    for_each(RESULTS, check)


@pytest.mark.parametrize(("variant", "dtype"), RUNS)
def test_no_result_is_left_out(variant, dtype):
    names = list(load(variant, dtype).state_dict())
    assert list(WEIGHTS[variant]) == names  # the order of the norms, too
    assert {name for name in RESULTS if name.startswith(f"{variant}/{dtype}/")} == ours(variant, dtype).keys()
    assert REFERENCE[f"{variant}/{dtype}/norms"].shape == (len(names),)
    assert REFERENCE[f"{variant}/{dtype}/losses"].shape == (10,)


# ---- mistakes that the comparison notices ------------------------------------------------------------------------


@pytest.mark.parametrize(("variant", "dtype"), RUNS)
def test_no_gradient_is_tiny_and_clipping_and_ignored_targets_matter(variant, dtype):
    squares = [np.sum(REFERENCE[n] ** 2) for n in GRADIENTS if n.startswith(f"{variant}/{dtype}/")]
    assert min(squares) > 1e-12
    assert sum(squares) > 1  # max_norm
    assert 0 < np.sum(REFERENCE["targets"] == -100) < REFERENCE["targets"].size


def test_the_key_bias_has_a_gradient_of_0_also_in_pytorch():
    names = [n for n in GRADIENTS if n.startswith("tied/float64") and n.endswith("c_attn.bias")]
    assert len(names) == SIZES["n_layer"]
    for name in names:
        for gradient in (REFERENCE[name], ours("tied", "float64")[name]):
            assert np.linalg.norm(gradient[KEY_BIAS]) < 1e-12 * np.linalg.norm(gradient)


def test_one_element_that_is_slightly_wrong_is_noticed(for_each):
    def check(name):
        off = REFERENCE[name].copy()
        largest = np.unravel_index(np.argmax(np.abs(off)), off.shape)
        off[largest] *= 1 + (1e-6 if off.dtype == np.float64 else 1e-3)
        assert not agrees(name, off, REFERENCE[name])

    for_each(RESULTS, check)


@pytest.mark.parametrize(("variant", "dtype"), RUNS)
@pytest.mark.parametrize("flaw", ["heads", "eps"])
def test_a_slightly_different_model_is_noticed(variant, dtype, flaw):
    model = load(variant, dtype)
    for block in model.transformer.h:
        if flaw == "heads":
            block.attn.n_head = 1
        else:
            block.ln_1.eps = 1e-4  # and not 1e-5
    for key, found in forward_backward(model).items():
        name = f"{variant}/{dtype}/{key}"
        assert not agrees(name, found, REFERENCE[name]), name


@pytest.mark.parametrize(("variant", "dtype"), RUNS)
@pytest.mark.parametrize("flaw", [{"weight_decay": 0.11}, {"betas": (0.9, 0.951)}, {"max_norm": 1.1}], ids=str)
def test_slightly_different_training_is_noticed(variant, dtype, flaw):
    for key, found in train(load(variant, dtype), **flaw).items():
        name = f"{variant}/{dtype}/{key}"
        assert not agrees(name, found, REFERENCE[name]), name


# ---- the script --------------------------------------------------------------------------------------------------


def test_the_script_without_pytorch_ends_with_one_line(tmp_path):
    out = tmp_path / "reference.npz"
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    command = [sys.executable, "-c", code, SCRIPT, "--out", out]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert "pip install torch" in ended.stderr
    assert not out.exists()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_the_script_makes_the_stored_file(tmp_path):
    made = []
    for name in ("first.npz", "second.npz"):
        out = tmp_path / name
        subprocess.run([sys.executable, SCRIPT, "--out", out], check=True, timeout=600)
        made.append(out)
    assert made[0].read_bytes() == made[1].read_bytes()
    again = read(made[0])
    assert again.keys() == REFERENCE.keys()
    for name, array in again.items():
        if name in RESULTS:
            assert agrees(name, array, REFERENCE[name]), name
        elif name != "made_by":
            np.testing.assert_allclose(array, REFERENCE[name], rtol=1e-12)
