"""`study.explain`: complete for everything there is, right in its numbers, and honest about a wrong gradient."""

import inspect
import re

import numpy as np
import pytest

from tinygrad_llm import functional as F
from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor, no_grad
from tinygrad_llm.gradcheck.ledger import needed
from tinygrad_llm.study import explain, subjects
from tinygrad_llm.study.explain import kernels_of


def explained(name, seed=0):
    return explain(subjects()[name], seed)


def test_everything_with_a_case_is_a_subject():
    found = subjects()
    assert set(needed()) <= set(found)
    assert all(name == subject.name and subject.headline for name, subject in found.items())
    assert found["tanh"].headline == "y = tanh x.   dx = g · (1 − y²)"


WHOLE_MODELS = {"Block", "GPT", "GPTClassifier", "Transformer"}  # whose proofs take longest, and are among the cases'


@pytest.mark.parametrize("models", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_every_subject_is_explained_and_proven(models, for_each):
    def check(subject):
        e = explain(subject)
        doc = inspect.getdoc(subject.thing)
        assert e.formula.split("\n")[0] == doc.split("\n")[0]
        assert ("Derivation:" in doc) is bool(e.derivation)
        assert "Derivation:" not in e.formula + e.notes + e.derivation
        word = "class" if isinstance(subject.thing, type) else "def"
        assert e.source.startswith(f"{word} {subject.name.removeprefix('F.')}")
        assert doc.split("\n")[0] not in e.source  # the docstring is not shown a second time
        assert e.file.startswith("tinygrad_llm/")
        assert e.failure == ""
        assert e.proof
        assert (e.example is None) is (e.derivative is None) is (subject.name not in K.KERNELS)
        assert e.kernels or subject.name in K.KERNELS or subject.group == "optimizers"

    for_each((subject for name, subject in subjects().items() if (name in WHOLE_MODELS) is models), check)


def test_the_numbers_of_every_kernel_are_right(for_each):
    found = subjects()

    def check(name):
        e = explain(found[name], seed=5)
        arrays, options, g = e.example.inputs, e.example.options, e.example.g

        def y(moved):
            return K.KERNELS[name](*moved.values(), **options)[0]

        assert e.derivation
        assert 0 <= e.proof.worst.error <= 1e-9
        np.testing.assert_allclose(e.example.output, y(arrays), rtol=1e-14, atol=1e-15)
        floats = {key: x for key, x in arrays.items() if x.dtype.kind == "f"}
        for x in (*floats.values(), g):
            np.testing.assert_array_equal(x, np.round(x, 2))
        assert set(e.example.gradients) == {f"d{key}" for key in floats}
        for key, x in floats.items():
            expected = np.zeros(x.shape)
            for index in np.ndindex(x.shape):
                step = np.zeros(x.shape)
                step[index] = 1e-5
                above, below = (float(np.sum(g * y(arrays | {key: x + s}))) for s in (step, -step))
                expected[index] = (above - below) / 2e-5
            np.testing.assert_allclose(e.example.gradients[f"d{key}"], expected, rtol=1e-7, atol=1e-8)
        d = e.derivative
        assert d.analytic == e.example.gradients[f"d{d.input}"][d.index]
        assert d.central == pytest.approx(d.analytic, rel=1e-7, abs=1e-8)
        if e.subject.case.method == "complex":
            assert d.complex == pytest.approx(d.analytic, rel=1e-12)
        else:
            assert d.complex is None

    for_each(K.KERNELS, check)


def test_the_source_shown_is_code_that_runs():
    shown = explained("gelu").source
    assert '"""' not in shown
    names = vars(inspect.getmodule(K.gelu)).copy()
    exec(shown, names)
    x = np.linspace(-2, 2, 9)
    np.testing.assert_array_equal(names["gelu"](x)[0], K.gelu(x)[0])


def test_the_seed_decides_the_example():
    first, again, other = (explained("tanh", seed).example.inputs["x"].tolist() for seed in (3, 3, 4))
    assert first == again != other
    first, again, other = (explained("GELU", seed).proof.worst for seed in (3, 3, 4))
    assert first == again != other


def test_a_layer_has_shapes_and_kernels():
    e = explained("MultiHeadAttention")
    assert e.shapes["c_attn.weight"] == (12, 4)
    assert e.shapes["input 0"] == e.shapes["output"] == (2, 3, 4)
    assert e.kernels == ["linear", "causal_self_attention"]
    assert 0 <= e.proof.worst.error <= 1e-12
    assert explained("F.cat").kernels == ["concatenate"]
    e = explained("Adam")  # an update is no function of tensors
    assert (e.shapes, e.kernels) == ({}, [])


def test_kernels_are_named_once_in_the_order_in_which_they_first_ran():
    x = Tensor(np.ones(2), requires_grad=True)

    def function(x):
        with no_grad():
            x.exp()  # not recorded
        y = F.tanh(x)
        for _ in range(60):
            y = y + y
        return y.tanh()

    y, kernels = kernels_of(function, x)
    assert kernels == ["tanh", "add"]
    assert y.requires_grad


# ---- wrong gradients -------------------------------------------------------------------------------------------------


def planted(vjp):
    def tanh(x):
        """y = tanh x."""
        y = np.tanh(x)
        return y, lambda g: vjp(g, y)

    return tanh


WRONG = {
    "a billionth too large": (lambda g, y: (g * (1 - y * y) * (1 + 1e-9),), "x differs, too little"),
    "no square": (lambda g, y: (g * (1 - y),), "x is wrong at"),
    "NaN": (lambda g, y: (g * np.nan,), "x is wrong at"),
    "wrong shape": (lambda g, y: (np.sum(g),), "the gradient of tanh's input x has shape ()"),
}


@pytest.mark.parametrize(("vjp", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_kernel_fails_its_proof(vjp, message, monkeypatch):
    monkeypatch.setattr(K, "tanh", planted(vjp))
    e = explained("tanh")
    assert message in e.failure
    assert not e.proof
    assert (e.proof is None) is (e.derivative is None) is ("shape" in message)
    assert "def tanh(x):" in e.source  # the source of the wrong one


def test_a_kernel_that_is_no_longer_analytic_fails_its_proof(monkeypatch):
    """Its gradient is right, and real differences agree; but the case says that the complex step proves it."""

    def tanh(x):
        y = np.tanh(x.real)
        return y, lambda g: (g * (1 - y * y),)

    monkeypatch.setattr(K, "tanh", tanh)
    e = explained("tanh")
    assert e.failure.startswith("fn is not analytic, so real differences decide: .real loses the imaginary part (")
    assert (e.proof, e.derivative) == (None, None)


def test_the_failure_names_the_numbers_of_the_example(monkeypatch):
    monkeypatch.setattr(K, "tanh", planted(lambda g, y: (g * (1 - y * y) * 1.5,)))
    e = explained("tanh")
    at = re.search(r"index \((\d+), (\d+)\): analytic ([-\d.e]+), numeric \(complex\) ([-\d.e]+);", e.failure)
    shown = e.example.gradients["dx"][int(at[1]), int(at[2])]
    assert float(at[3]) == pytest.approx(shown, rel=1e-12)
    assert float(at[4]) == pytest.approx(shown / 1.5, rel=1e-12)


def test_a_wrong_layer_fails_its_proof(monkeypatch):
    monkeypatch.setattr(F, "gelu", lambda x, *_: x.detach() * x)
    e = explained("GELU")
    assert not e.proof
    assert "is wrong at" in e.failure


def test_a_kernel_without_a_docstring_is_explained_too(monkeypatch):
    def tanh(x):
        y = np.tanh(x)
        return y, lambda g: (g * (1 - y * y),)

    monkeypatch.setattr(K, "tanh", tanh)
    e = explained("tanh")
    assert e.proof
    assert (e.formula, e.notes, e.derivation) == ("", "", "")
    assert "y = np.tanh(x)" in e.source
