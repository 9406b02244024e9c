"""Products: linear as a sum, einsum as NumPy's with its adjoint, and what is refused."""

import numpy as np
import pytest
from agreement import assert_adjoint, assert_agree, seeds, shapes, zeros
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import kernels as K


@given(seeds, shapes, st.integers(1, 5), st.booleans())
def test_linear_equals_a_sum_of_products(seed, shape, out, bias):
    rng = np.random.default_rng(seed)
    arrays = [rng.standard_normal(s) for s in [shape, (out, shape[-1]), (out,)][: 2 + bias]]

    def oracle(x, weight, b=0.0):
        return (x.unsqueeze(-2) * weight).sum(-1) + b

    assert_agree(K.linear, arrays, oracle)


@st.composite
def contractions(draw):
    """Subscripts and operand shapes that np.einsum takes: repeated indices, "...", broadcasting, implicit output."""
    sizes = {label: draw(st.integers(1, 3)) for label in "abcZ"}
    hidden = draw(st.lists(st.integers(1, 3), max_size=2))
    terms, operands = [], []
    for _ in range(draw(st.integers(1, 3))):
        labels = draw(st.text("abcZ", max_size=3))
        shape = [1 if labels.count(c) == 1 and draw(st.integers(0, 9)) == 0 else sizes[c] for c in labels]
        if draw(st.booleans()):
            at = draw(st.integers(0, len(labels)))
            own = [n if draw(st.booleans()) else 1 for n in hidden[draw(st.integers(0, len(hidden))) :]]
            labels, shape = labels[:at] + "..." + labels[at:], [*shape[:at], *own, *shape[at:]]
        terms.append(labels)
        operands.append(tuple(shape))
    subscripts = ",".join(terms)
    if draw(st.booleans()):
        used = sorted(set(subscripts) - set(".,"))
        output = "".join(draw(st.permutations(used)))[: draw(st.integers(0, len(used)))]
        if "..." in subscripts:
            at = draw(st.integers(0, len(output)))
            output = output[:at] + "..." + output[at:]
        subscripts += "->" + output
    return subscripts, operands


@given(contractions(), seeds)
def test_einsum_equals_numpys_and_its_gradient_is_the_adjoint(contraction, seed):
    subscripts, operands = contraction
    rng = np.random.default_rng(seed)
    arrays = [rng.integers(-4, 5, shape).astype(np.float64) for shape in operands]
    y, _ = K.einsum(*arrays, subscripts=subscripts)
    expected = np.einsum(subscripts, *arrays)
    assert np.shape(y) == np.shape(expected)
    assert np.array_equal(y, expected)
    assert_adjoint(K.einsum, arrays, {"subscripts": subscripts}, seed)


A, B = np.array([200, 100], np.uint8), np.array([[200, 100], [3, 4]], np.uint8)


@pytest.mark.parametrize(
    ("subscripts", "operands", "expected", "dtype"),
    [
        ("i->", [A], 300, np.int64),
        ("ij->i", [B], [300, 7], np.int64),
        ("ii->", [B], 204, np.int64),
        ("ij,k->k", [B, A], [61400, 30700], np.int64),
        ("i->", [A == 100], 1, np.int64),
        ("ii->i", [B], [200, 4], np.uint8),
        ("ij->ji", [B], B.T, np.uint8),
        ("i,i->", [A, A], 80, np.uint8),  # a product has its operands' dtype, as A @ A
    ],
)
def test_einsum_adds_small_integers_as_pytorch_does(subscripts, operands, expected, dtype):
    y, _ = K.einsum(*operands, subscripts=subscripts)
    np.testing.assert_array_equal(y, expected)
    assert y.dtype == dtype


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: K.linear(zeros(2, 3), zeros(4, 2)), r"linear: got x \(2, 3\) and weight \(4, 2\)"),
        (lambda: K.linear(zeros(2, 3), zeros(3)), r"linear: got x \(2, 3\) and weight \(3,\)"),
        (lambda: K.linear(zeros(2, 3), zeros(4, 3), zeros(1)), r"linear: got bias \(1,\), .* \(4,\)"),
        (lambda: K.linear(zeros(2, 3), zeros(4, 3), zeros(2, 4)), r"linear: got bias \(2, 4\)"),
        (lambda: K.matmul(zeros(2, 3), zeros(2, 3)), r"matmul: got shapes \(2, 3\) and \(2, 3\)"),
        (lambda: K.matmul(zeros(), zeros(2)), r"matmul: got shapes \(\) and \(2,\)"),
        (lambda: K.einsum(zeros(2), subscripts="i,j"), r"einsum: 'i,j' names 2 operand\(s\), got 1"),
        (lambda: K.einsum(zeros(2), subscripts="ij"), r"einsum: got an operand \(2,\), which 'ij'"),
    ],
)
def test_operands_that_do_not_fit_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
