"""`tinygrad-llm explain`: what it prints of an explanation, as text and as JSON, and its errors."""

import json

import numpy as np
import pytest

from tinygrad_llm import kernels as K
from tinygrad_llm.gradcheck.ledger import needed
from tinygrad_llm.study import explain, subjects


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
    assert list(dict.fromkeys(row["group"] for row in strict(out))) == groups


@pytest.mark.parametrize("name", ["layer_norm", "relu", "concatenate", "F.cat", "MultiHeadAttention", "AdamW"])
def test_every_part_of_an_explanation_is_printed(name, cli):
    e = explain(subjects()[name])
    status, out, err = cli("explain", name)
    assert (status, err) == (0, "")
    words = " ".join(out.split())  # long lines are folded: see test_cli_width.py
    if e.example is not None:
        assert ("\nexample with " if e.example.options else "\nexample\n") in out
    assert words.startswith(" ".join(e.formula.split()))
    for part in (e.notes, e.derivation, ", ".join(e.kernels)):
        assert " ".join(part.split()) in words
    assert set(e.source.split()) <= set(out.split())
    assert f"\nsource, {e.file}\n" in out
    for label, shape in e.shapes.items():
        assert f"  {label:<40}{shape}\n" in out
    for label, x in (e.example.inputs | e.example.gradients if e.example else {}).items():
        assert f"  {label} {x.shape}" in out
    checked = out.split("\ncheck ")[1].splitlines()[1:]
    assert [line.split("  ")[1] for line in checked] == [c.name for c in e.proof.comparisons]
    assert all(line.endswith("  ok") for line in checked)
    assert ("\nderivation\n" in out) is bool(e.derivation)
    assert ("\none derivative by hand" in out) is (e.derivative is not None)
    assert ("Im L(+ih) / h" in out) is (e.derivative is not None and e.derivative.complex is not None)
    assert "\x1b" not in out  # no colors outside a terminal


def test_json_holds_the_same(printed):
    known = subjects()
    for name in ("linear", "MultiHeadAttention", "AdamW"):
        e = explain(known[name], seed=5)
        out = printed("explain", name, "--json", "--seed", 5)
        said = strict(out)
        texts = (e.subject.name, e.formula, e.notes, e.derivation, e.source, e.failure)
        assert tuple(said[key] for key in ("name", "formula", "notes", "derivation", "source", "message")) == texts
        assert (said["error"], said["method"]) == (e.proof.worst.error, e.subject.case.method)
        if e.example is None:
            assert said["kernels"] == e.kernels
            assert said["shapes"] == {label: list(shape) for label, shape in e.shapes.items()}
            continue
        for key in ("inputs", "gradients"):
            for label, x in getattr(e.example, key).items():
                np.testing.assert_array_equal(said[key][label], x)
        np.testing.assert_array_equal(said["output"], e.example.output)
        np.testing.assert_array_equal(said["g"], e.example.g)
        d = e.derivative
        expected = {"input": d.input, "index": list(d.index), "analytic": d.analytic, "central": d.central}
        assert said["numeric"] == expected | {"complex": d.complex}


@pytest.mark.parametrize(("name", "meant"), [("layernorm", "layer_norm"), ("MultiheadAttention", "MultiHeadAttention")])
def test_an_unknown_name_is_one_line_that_suggests_a_known_one(name, meant, refused):
    err = refused("explain", name)
    assert name in err
    assert err.endswith(f": did you mean {meant}?\n")


def test_a_name_like_no_other_lists_all_names(cli):
    status, _, err = cli("explain", "qqqq")
    assert status == 2
    assert "did you mean" not in err
    assert ": there are " in err
    assert "causal_attention, " in err


@pytest.mark.parametrize(
    ("vjp", "message"),
    [
        (lambda g: (g * np.nan,), "x is wrong at"),
        (lambda g: (np.sum(g),), "the gradient of tanh's input x has shape ()"),
    ],
)
def test_a_wrong_gradient_is_printed_with_exit_status_1(vjp, message, cli, monkeypatch):
    def tanh(x):
        return np.tanh(x), vjp

    monkeypatch.setattr(K, "tanh", tanh)
    status, out, _ = cli("explain", "tanh")
    assert status == 1
    assert "FAILED" in out
    assert message in out
    assert "def tanh(x):" in out
    status, out, _ = cli("explain", "tanh", "--json")
    assert status == 1
    assert message in strict(out)["message"]
