"""Tensor's methods with PyTorch's names that are made of other operations: values, gradients and refusals."""

import math

import numpy as np
import pytest

from tinygrad_llm import Tensor, grad, nn

X = np.random.default_rng(0).standard_normal((3, 4))


def leaf(values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


def test_the_layer_norm_of_the_book_runs_as_printed():
    class LayerNorm(nn.Module):
        def __init__(self, emb_dim):
            self.eps = 1e-5
            self.scale = nn.Parameter(np.ones(emb_dim))
            self.shift = nn.Parameter(np.zeros(emb_dim))

        def forward(self, x):
            mean = x.mean(dim=-1, keepdim=True)
            var = x.var(dim=-1, keepdim=True, unbiased=False)
            norm_x = (x - mean) / (var + self.eps).sqrt()
            return self.scale * norm_x + self.shift

    expected = (X - X.mean(-1, keepdims=True)) / np.sqrt(X.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(LayerNorm(4)(Tensor(X)).data, expected, rtol=1e-13)


def test_methods_equal_numpy(for_each):
    t, rows = Tensor(X), [[0, 3], [1, 1]]
    table = [
        (t.sum(dim=[0, 1]), X.sum()),
        (t.mean(dim=[0]), X.mean(0)),
        (t.amax(dim=[0, 1]), X.max()),
        (t.amin(dim=1), X.min(1)),
        (t.var(False), X.var()),
        (t.var(1, False), X.var(1)),
        (t.std(), X.std(ddof=1)),
        (t.std(True), X.std(ddof=1)),
        (t.std(dim=1, keepdim=True, unbiased=False), X.std(1, keepdims=True)),
        (t.norm(), np.sqrt((X * X).sum())),
        (t.norm(dim=1), np.sqrt((X * X).sum(1))),
        (t.norm(1, 0), np.abs(X).sum(0)),
        (t.norm(math.inf, -1, True), np.abs(X).max(-1, keepdims=True)),
        (t.clamp(-0.5, 0.5), np.clip(X, -0.5, 0.5)),
        (t.clamp(max=0), np.minimum(X, 0)),
        (t.minimum(0.1), np.minimum(X, 0.1)),
        (t.min(), X.min()),
        (t.min(1).values, X.min(1)),
        (t.min(dim=0).indices, X.argmin(0)),
        (t.max(0, keepdim=True).values, X.max(0, keepdims=True)),
        (t.max(-t), np.abs(X)),
        (t.min(X[0]), np.minimum(X, X[0])),
        (t.var(correction=None), X.var(ddof=1)),
        (t.std(1, None), X.std(1, ddof=1)),
        (t[:0].std(1), np.zeros(0)),
        (t[0, 0].gather(0, np.array([0])), X[0, :1]),
        (t[0, 0].gather(-1, np.array(0)), X[0, 0]),
        (t[0].gather(0, Tensor(3)), X[0, 3]),
        (t[0].gather(0, np.zeros((2, 0), np.uint8)), np.zeros((2, 0))),
        (t.gather(1, Tensor(np.array(rows))), np.take_along_axis(X[:2], np.array(rows), 1)),
        (t.cumsum(-1), X.cumsum(-1)),
        (Tensor([True, True]).cumsum(0), [1, 2]),
        (t.tril(-1), np.tril(X, -1)),
        (t.triu(1), np.triu(X, 1)),
        (t.contiguous().clone(), X),
        (t.split(3, dim=1)[1], X[:, 3:]),
        (t.split([1, 2])[1], X[1:]),
        (t.chunk(3, dim=1)[1], X[:, 2:]),
        (t.erf(), np.vectorize(math.erf)(X)),
    ]

    def check(row):
        np.testing.assert_allclose(row[0].data, row[1], rtol=1e-13)

    for_each(table, check)
    assert [len(t.chunk(n, 1)) for n in (1, 2, 3, 4, 9)] == [1, 2, 2, 4, 4]  # as torch


def test_gradients_at_ties_limits_and_zeros_are_those_of_torch():
    x = leaf([-1.0, 0.0, 1.0, np.nan])
    assert grad(x.clamp(-1.0, 0.0).sum(), x)[0].tolist() == [1, 1, 0, 1]
    low = leaf(0.5)
    assert grad(x.clamp(low)[:3].sum(), low)[0] == 2
    equal = leaf([2.0, 2.0])
    assert grad(equal.std(), equal)[0].tolist() == [0, 0]
    assert grad(leaf([0.0, 0.0]).norm() * 1, equal)[0].tolist() == [0, 0]
    zero = leaf([0.0, 0.0])
    assert grad(zero.norm(), zero)[0].tolist() == [0, 0]
    assert grad(equal.min(), equal)[0].tolist() == [0.5, 0.5]
    assert grad(equal.minimum(2).sum(), equal)[0].tolist() == [0.5, 0.5]


def test_the_gradient_of_max_goes_to_nan_if_the_maximum_is_nan_and_to_all_from_amax():
    one, two = leaf([1.0, np.nan, 3.0]), leaf([[np.nan, 1.0], [2.0, np.nan]])
    for method in ("max", "min"):
        assert np.isnan(getattr(one, method)().item())
        assert grad(getattr(one, method)(), one)[0].tolist() == [0, 1, 0]
        assert grad(getattr(two, method)(), two)[0].tolist() == [[0.5, 0], [0, 0.5]]
        assert grad(getattr(one, method)(0).values, one)[0].tolist() == [0, 1, 0]
        assert np.isnan(grad(getattr(one, f"a{method}")(), one)[0]).all()
    single = leaf(np.nan)
    assert grad(single.max(0).values, single)[0] == 1


HALF = np.array([1.0, -2.0, 3e-5, 60000.0, np.inf], np.float16)
NEXT_TO_NUMBERS = {
    "1e5 * x": lambda x: 1e5 * x,
    "x * 100000": lambda x: x * 100000,
    "x / 1e5": lambda x: x / 1e5,
    "1e5 / x": lambda x: 1e5 / x,
    "x + 1e5": lambda x: x + 1e5,
    "1e5 - x": lambda x: 1e5 - x,
    "x - 1e5": lambda x: x - 1e5,
    "x ** 2.5": lambda x: x**2.5,
    "0.99999 ** x": lambda x: 0.99999**x,
    "maximum": lambda x: x.maximum(0.1),
    "minimum": lambda x: x.minimum(1e5),
    "masked_fill": lambda x: x.masked_fill(HALF > 1, 1e5),
    "clamp": lambda x: x.clamp(-1.1, 0.1),
    "NumPy's number": lambda x: np.float64(1e5) * x,
}


@pytest.mark.filterwarnings("ignore:invalid value")  # of −2 ** 2.5
def test_float16_next_to_a_number_is_computed_in_float32_and_rounded_once(for_each):
    def check(name):
        f, g = NEXT_TO_NUMBERS[name], np.array([1, 0.5, 2, 1, 1], np.float16)
        x, wide = leaf(HALF, np.float16), leaf(HALF, np.float32)
        y, expected = f(x), f(wide)
        assert y.dtype == np.float16
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(y.data, expected.data.astype(np.float16))
            right = grad(expected, wide, g.astype(np.float32))[0].astype(np.float16)
        found = grad(y, x, g)[0]
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, right)

    for_each(NEXT_TO_NUMBERS, check)


def test_a_number_that_float16_cannot_hold_does_not_spoil_what_it_can():
    x = leaf(3e-5, np.float16)
    y = 1e5 * x
    assert y.item() == pytest.approx(3, rel=1e-3)
    assert y.dtype == np.float16
    for c in (1e5, 100000, np.float32(1e5)):
        z = Tensor(HALF.copy())
        z /= c
        assert z.tolist() == (Tensor(HALF) / c).tolist()
        z = Tensor(HALF.copy())
        z *= c
        assert z.tolist() == (c * Tensor(HALF)).tolist()
    assert (Tensor(HALF) < 1e5).tolist() == [True, True, True, True, False]


def test_clone_has_its_own_memory_and_requires_grad_returns_the_tensor():
    x = Tensor([1.0, -0.0]).requires_grad_()
    y = x.clone()
    assert not np.shares_memory(y.data, x.data)
    assert np.signbit(y.data[1])
    assert grad(y.sum(), x)[0].tolist() == [1, 1]
    assert not x.requires_grad_(False).requires_grad


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t: t.gather(1, np.array([[-1]])), IndexError, "outside 0 … 3"),
        (lambda t: t.gather(1, np.array([[4]])), IndexError, "outside 0 … 3"),
        (lambda t: t.gather(1, np.array([0])), TypeError, "integers on 2 axes"),
        (lambda t: t.gather(1, np.array([[0.0]])), TypeError, "integers on 2 axes"),
        (lambda t: t[0, 0].gather(0, np.array([[0]])), TypeError, "integers on 0 axes"),
        (lambda t: t.split(0), ValueError, "length of 0"),
        (lambda t: t.split([1, 1]), ValueError, "add up to 3"),
        (lambda t: t.chunk(0), ValueError, "got 0 pieces"),
        (lambda t: t.norm(3), ValueError, "norm: got p=3"),
        (lambda t: t[:1].std(0), ValueError, "std: got 1 element"),
        (lambda t: t[:0].std(0), ValueError, "std: got 0 element"),
        (lambda t: t[:0].amax(0), ValueError, r"max: got shape \(0, 4\), which has no elements along axis 0"),
        (lambda t: t[:0].min(0), ValueError, r"min: got shape \(0, 4\), which has no elements along axis 0"),
        (lambda t: t[:0].argmax(0), ValueError, r"argmax: got shape \(0, 4\), which has no elements along axis 0"),
        (lambda t: t[:, :0].max(), ValueError, r"max: got shape \(3, 0\), which has no elements"),
        (lambda t: t[0].tril(), ValueError, "two axes"),
        (lambda t: t.clamp(), ValueError, "clamp: give min, max or both"),
    ],
)
def test_arguments_that_do_not_fit_are_named(call, error, message):
    with pytest.raises(error, match=message):
        call(Tensor(X))


def test_integers_are_converted_to_the_float_dtype_that_was_asked_for():
    for dtype in (np.float16, np.float32, np.float64):
        assert Tensor([1, 2]).to(dtype).dtype == dtype
        assert Tensor([True, False]).to(dtype).dtype == dtype
