"""Our values and gradients against HIPS autograd's, for what both have: `pip install autograd` runs this."""

import itertools

import numpy as np
import pytest

from tinygrad_llm import Tensor, grad
from tinygrad_llm import functional as F
from tinygrad_llm.gradcheck.cases import _EINSUM, _MATMUL, BROADCAST_PAIRS

autograd = pytest.importorskip("autograd")
anp = pytest.importorskip("autograd.numpy")

UNARY = {
    "exp": (Tensor.exp, anp.exp),
    "log": (Tensor.log, anp.log),
    "tanh": (Tensor.tanh, anp.tanh),
    "sqrt": (Tensor.sqrt, anp.sqrt),
    "abs": (Tensor.abs, anp.abs),
    "negative": (Tensor.__neg__, anp.negative),
    "power 3": (lambda x: x**3, lambda x: x**3),
    "2 to the power": (lambda x: 2.0**x, lambda x: 2.0**x),
    "T": (lambda x: x.T, anp.transpose),
    "flatten": (lambda x: x.flatten(), anp.ravel),
    "x·x": (lambda x: x * x, lambda x: x * x),
    "x + x": (lambda x: x + x, lambda x: x + x),
}
BINARY = {
    "add": (Tensor.__add__, anp.add),
    "subtract": (Tensor.__sub__, anp.subtract),
    "multiply": (Tensor.__mul__, anp.multiply),
    "divide": (Tensor.__truediv__, anp.divide),
    "power": (Tensor.__pow__, anp.power),
    "maximum": (F.maximum, anp.maximum),
}
REDUCTIONS = {
    "sum": (Tensor.sum, anp.sum),
    "mean": (Tensor.mean, anp.mean),
    "amax": (Tensor.amax, anp.max),
    "var": (lambda x, axis, keepdim: x.var(axis, correction=0, keepdim=keepdim), anp.var),
    "var, correction 1": (Tensor.var, lambda x, axis, keepdims: anp.var(x, axis, keepdims=keepdims, ddof=1)),
}
AXES = [None, 0, 1, 2, -1, -3, (0,), (0, 2), (-1, 0), (1, 2), (0, 1, 2)]
INDICES = {
    "an integer": 1,
    "a negative integer": -1,
    "slices": (slice(None, None, -2), slice(1, 3)),
    "None and …": (None, Ellipsis, 0),
    "repeated integers": np.array([0, 0, 1, -1]),
    "pairs": (np.array([0, 1, 1]), np.array([2, 0, 0])),
    "a mask": np.array([True, False]),
    "nothing": slice(0, 0),
}
SHAPES = [(), (1,), (3,), (2, 3), (0,), (0, 3), (2, 0, 1), (2, 1, 3)]


def cases():
    """(name, ours, theirs, shapes)"""
    for (name, (mine, theirs)), shape in itertools.product(UNARY.items(), SHAPES):
        yield f"{name} {shape}", mine, theirs, [shape]
    for (name, (mine, theirs)), (a, b) in itertools.product(BINARY.items(), BROADCAST_PAIRS):
        yield f"{name} {a} {b}", mine, theirs, [a, b]
        yield f"{name} {b} {a}", mine, theirs, [b, a]
    for (name, (mine, theirs)), axis, keep in itertools.product(REDUCTIONS.items(), AXES, (False, True)):
        yield (
            f"{name} {axis} {keep}",
            lambda x, f=mine, a=axis, k=keep: f(x, a, keepdim=k),
            lambda x, f=theirs, a=axis, k=keep: f(x, a, keepdims=k),
            [(2, 3, 4)],
        )
    for axis in (None, 0, -1):
        yield f"sum of nothing {axis}", lambda x, a=axis: x.sum(a), lambda x, a=axis: anp.sum(x, a), [(0, 3)]
    for a, b in _MATMUL:
        yield f"matmul {a} {b}", F.matmul, anp.matmul, [a, b]
    for subscripts, shapes in _EINSUM:
        if not any(letter * 2 in subscripts for letter in "ij"):  # autograd has no diagonals
            yield (
                f"einsum {subscripts}",
                lambda *xs, s=subscripts: F.einsum(s, *xs),
                lambda *xs, s=subscripts: anp.einsum(s, *xs),
                shapes,
            )
    for name, index in INDICES.items():
        yield f"[{name}]", lambda x, i=index: x[i], lambda x, i=index: x[i], [(2, 3)]
    for axis in (0, 1, -1):
        yield f"cat {axis}", lambda *xs, a=axis: F.cat(xs, a), lambda *xs, a=axis: anp.concatenate(xs, a), [(2, 3)] * 3
        yield f"stack {axis}", lambda *xs, a=axis: F.stack(xs, a), lambda *xs, a=axis: anp.stack(xs, a), [(2, 3)] * 3
    yield "reshape", lambda x: x.reshape(3, -1), lambda x: anp.reshape(x, (3, -1)), [(2, 3, 4)]
    # autograd's own gradients of a broadcast where, of negative axes in transpose and of new axes are wrong or missing.
    yield "where", lambda a, b: F.where(a.data > 1, a, b), lambda a, b: anp.where(a > 1, a, b), [(2, 3)] * 2
    yield "permute", lambda x: x.permute(1, 2, 0), lambda x: anp.transpose(x, (1, 2, 0)), [(2, 3, 4)]
    yield "expand", lambda x: x.expand(2, 3), lambda x: anp.broadcast_to(x, (2, 3)), [(2, 1)]
    yield "unsqueeze", lambda x: x.unsqueeze(-1), lambda x: anp.expand_dims(x, -1), [(2, 3)]
    yield "squeeze", lambda x: x.squeeze(1), lambda x: anp.squeeze(x, 1), [(2, 1, 3)]


def test_values_and_gradients_are_those_of_autograd(for_each):
    def check(case):
        name, mine, theirs, shapes = case
        rng = np.random.default_rng(len(name))
        xs = [rng.uniform(0.5, 2.0, shape) for shape in shapes]
        ts = [Tensor(x, requires_grad=True) for x in xs]
        y = mine(*ts)
        v = rng.standard_normal(y.shape)
        found = grad(y, ts, v)
        for i, d in enumerate(found):
            vjp, value = autograd.make_vjp(theirs, i)(*xs)
            np.testing.assert_allclose(y.data, value, rtol=1e-13, atol=1e-14, err_msg=name)
            right = vjp(v)
            assert d.shape == np.shape(right), name
            np.testing.assert_allclose(d, right, rtol=1e-12, atol=1e-13, err_msg=name)

    for_each(cases(), check)
