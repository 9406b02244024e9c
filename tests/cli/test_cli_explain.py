"""`tinygrad-llm explain`: whole for everything there is, right in its numbers, and no liar about a wrong gradient."""

import json
import re

import numpy as np
import pytest

from tinygrad_llm import functional as F
from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.cli import explain
from tinygrad_llm.gradcheck import all_cases
from tinygrad_llm.gradcheck.ledger import needed

FIRST = {case.covers: case for case in reversed(all_cases())}


def strict(out):
    return json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_without_a_name_everything_is_listed_by_group(cli):
    status, out, err = cli("explain")
    assert (status, err) == (0, "")
    listed = [line.split()[0] for line in out.splitlines() if line.startswith("  ")]
    assert len(set(listed)) == len(listed)
    assert set(needed()) <= set(listed)
    groups = [line for line in out.splitlines() if line and not line.startswith(" ")][:-1]
    assert groups == ["kernels", "functions", "layers and models", "optimizers"]
    assert "y = tanh x.   dx = g · (1 − y²)" in out
    status, out, _ = cli("explain", "--json")
    assert [row["name"] for row in strict(out)] == listed
    assert all(row["formula"] for row in strict(out))


@pytest.mark.parametrize("name", explain._subjects())
def test_everything_is_explained_and_proven(name, cli):
    status, out, err = cli("explain", name)
    assert (status, err) == (0, "")
    thing = explain._thing(FIRST[name])
    assert out.startswith(thing.__doc__.strip().split("\n")[0])  # the formula
    assert "\nsource, tinygrad_llm/" in out
    assert f"\n{'class' if isinstance(thing, type) else 'def'} {name.removeprefix('F.')}" in out
    assert "@kernel" not in out
    assert out.count(thing.__doc__.strip().split("\n")[0]) == 1  # the docstring is not shown a second time
    checked = out.split("\ncheck ")[1].splitlines()[1:]
    assert checked
    assert all(line.endswith("  ok") for line in checked)
    assert "\x1b" not in out  # no colours where there is no terminal
    assert "Derivation:" not in out
    if name in K.KERNELS:
        assert ("\nderivation\n" in out) == ("Derivation:" in thing.__doc__)
        assert "one derivative by hand" in out


@pytest.mark.parametrize("name", K.KERNELS)
def test_the_numbers_are_right(name, cli):
    status, out, _ = cli("explain", name, "--json", "--seed", 5)
    assert status == 0
    said = strict(out)
    assert said["name"] == name
    assert said["formula"]
    assert said["derivation"]
    assert 0 <= said["error"] <= 1e-9
    arrays = {key: np.array(value) for key, value in said["inputs"].items()}
    options, g = FIRST[name].make.options, np.array(said["g"])

    def y(moved):
        return K.KERNELS[name](*moved.values(), **options)[0]

    np.testing.assert_allclose(said["output"], y(arrays), rtol=1e-14, atol=1e-15)
    floats = {key: x for key, x in arrays.items() if x.dtype.kind == "f"}
    for x in (*floats.values(), g):
        np.testing.assert_array_equal(x, np.round(x, 2))
    assert set(said["gradients"]) == {f"d{key}" for key in floats}
    for key, x in floats.items():
        expected = np.zeros(x.shape)
        for index in np.ndindex(x.shape):
            step = np.zeros(x.shape)
            step[index] = 1e-5
            above, below = (float(np.sum(g * y(arrays | {key: x + s}))) for s in (step, -step))
            expected[index] = (above - below) / 2e-5
        np.testing.assert_allclose(said["gradients"][f"d{key}"], expected, rtol=1e-7, atol=1e-8)
    hand = said["numeric"]
    gradient = np.array(said["gradients"][f"d{hand['input']}"])
    assert hand["analytic"] == gradient[tuple(hand["index"])]
    assert hand["central"] == pytest.approx(hand["analytic"], rel=1e-7, abs=1e-8)
    if FIRST[name].method == "complex":
        assert hand["complex"] == pytest.approx(hand["analytic"], rel=1e-12)
    else:
        assert hand["complex"] is None


def test_the_source_shown_is_code_that_runs(cli):
    shown = strict(cli("explain", "gelu", "--json")[1])["source"]
    assert '"""' not in shown
    names = vars(__import__("tinygrad_llm.kernels.elementwise", fromlist=["gelu"])).copy()
    exec(shown, names)
    x = np.linspace(-2, 2, 9)
    np.testing.assert_array_equal(names["gelu"](x)[0], K.gelu(x)[0])


def test_the_seed_decides(cli):
    first, again, other = (cli("explain", "tanh", "--json", "--seed", seed)[1] for seed in (3, 3, 4))
    assert first == again
    assert strict(first)["inputs"] != strict(other)["inputs"]


def test_the_message_speaks_of_the_numbers_shown(cli, monkeypatch):
    monkeypatch.setattr(K, "tanh", planted(lambda g, y: (g * (1 - y * y) * 1.5,)))
    said = strict(cli("explain", "tanh", "--json")[1])
    at = re.search(r"index \((\d+), (\d+)\): analytic ([-\d.e]+), numeric \(complex\) ([-\d.e]+);", said["message"])
    shown = np.array(said["gradients"]["dx"])[int(at[1]), int(at[2])]
    assert float(at[3]) == pytest.approx(shown, rel=1e-12)
    assert float(at[4]) == pytest.approx(shown / 1.5, rel=1e-12)


def test_a_layer_shows_shapes_and_kernels(cli):
    said = strict(cli("explain", "MultiHeadAttention", "--json")[1])
    assert said["shapes"]["c_attn.weight"] == [12, 4]
    assert said["shapes"]["input 0"] == said["shapes"]["output"] == [2, 3, 4]
    assert said["kernels"] == ["linear", "causal_self_attention"]
    assert 0 <= said["error"] <= 1e-12


def test_a_function_names_its_kernel(cli):
    assert strict(cli("explain", "F.cat", "--json")[1])["kernels"] == ["concatenate"]


def test_shared_nodes_are_counted_once():
    x = Tensor(np.ones(2), requires_grad=True)
    y = F.tanh(x)
    for _ in range(60):  # 2⁶⁰ paths
        y = y + y
    assert explain._made_of(y) == ["tanh", "add"]


@pytest.mark.parametrize(("name", "meant"), [("layernorm", "layer_norm"), ("MultiheadAttention", "MultiHeadAttention")])
def test_an_unknown_name_is_one_line_with_what_may_be_meant(name, meant, cli):
    status, out, err = cli("explain", name)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert name in err
    assert meant in err.split("(there are: ")[0]
    assert "causal_attention, " in err.split("(there are: ")[1]


def test_a_name_like_no_other_gets_the_list(cli):
    status, _, err = cli("explain", "qqqq")
    assert status == 2
    assert "did you mean" not in err
    assert "there are: " in err


def planted(vjp):
    def tanh(x):
        """y = tanh x."""
        y = np.tanh(x)
        return y, lambda g: vjp(g, y)

    return tanh


@pytest.mark.parametrize(
    ("vjp", "message"),
    [
        (lambda g, y: (g * (1 - y * y) * (1 + 1e-9),), "x is wrong at"),
        (lambda g, y: (g * (1 - y),), "x is wrong at"),
        (lambda g, y: (g * np.nan,), "x is wrong at"),
        (lambda g, y: (np.sum(g),), "the gradient of tanh's input x has shape ()"),
    ],
    ids=["a billionth too large", "no square", "NaN", "wrong shape"],
)
def test_a_wrong_kernel_is_told(vjp, message, cli, monkeypatch):
    monkeypatch.setattr(K, "tanh", planted(vjp))
    status, out, _ = cli("explain", "tanh")
    assert status == 1
    assert "FAILED" in out
    assert message in out
    assert "def tanh(x):" in out  # the source is that of the wrong one
    status, out, _ = cli("explain", "tanh", "--json")
    assert status == 1
    assert message in strict(out)["message"]


def test_a_wrong_layer_is_told(cli, monkeypatch):
    monkeypatch.setattr(F, "gelu", lambda x: x.detach() * x)
    status, out, _ = cli("explain", "GELU")
    assert status == 1
    assert "FAILED" in out


def test_a_kernel_without_words_is_shown_all_the_same(cli, monkeypatch):
    def tanh(x):
        y = np.tanh(x)
        return y, lambda g: (g * (1 - y * y),)

    monkeypatch.setattr(K, "tanh", tanh)
    status, out, _ = cli("explain", "tanh")
    assert status == 0
    assert "derivation" not in out.split("\nexample")[0]
    assert "y = np.tanh(x)" in out


def test_headings_are_bold_on_a_terminal(cli, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    _, out, _ = cli("explain", "tanh")
    assert "\x1b[1mexample\x1b[0m" in out
    assert "\x1b[32mok\x1b[0m" in out
