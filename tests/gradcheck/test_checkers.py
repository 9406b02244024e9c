"""`gradcheck` itself: what it refuses, what it puts back, and that its three methods agree."""

import math

import numpy as np
import pytest

from tinygrad_llm import nn
from tinygrad_llm.autograd import Tensor, apply, no_grad
from tinygrad_llm.gradcheck import TOLERANCE, GradcheckError, check_module, gradcheck
from tinygrad_llm.random import Generator

X = np.random.default_rng(0).standard_normal((2, 3))


def modulus(x):
    """|x| the naïve way: np.abs drops the imaginary part."""
    return np.abs(x), lambda g: (g * np.sign(x),)


def wrong(x):
    return x * x, lambda g: (g * x,)


# ---- what it finds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", TOLERANCE)
def test_the_methods_agree_on_a_known_derivative(method):
    result = gradcheck(lambda x: (x * x * x).exp().sum(), [np.array([0.3, -0.5])], method)
    assert result
    v = Generator(0).randn((), np.float64)  # the random vector; the output is a scalar
    c = result.worst
    x = (0.3, -0.5)[c.index[0]]
    expected = float(v) * 3 * x * x * math.exp(x**3)
    assert c.analytic == pytest.approx(expected, rel=1e-12)
    assert c.numeric == pytest.approx(expected, rel=1e-6)


def test_the_methods_agree_and_in_their_order_of_sharpness():
    errors = {
        method: gradcheck(lambda x: (x @ x.T).tanh().softmax(-1), [X], method, tolerance=1.0).worst.error
        for method in TOLERANCE
    }
    assert errors["complex"] <= 1e-14
    assert errors["richardson"] <= 1e-10
    assert errors["central"] <= 1e-8
    assert errors["complex"] < errors["richardson"] < errors["central"]


@pytest.mark.parametrize("method", TOLERANCE)
def test_a_wrong_gradient_is_named(method):
    def f(bias, weight):
        return bias + apply(wrong, weight)

    with pytest.raises(GradcheckError, match=r"f: the gradient of weight is wrong at index \(\d, \d\): analytic"):
        gradcheck(f, [X, X + 1], method, names=["bias", "weight"])


def test_a_wrong_gradient_can_be_returned():
    result = gradcheck(lambda x: apply(wrong, x), [X], raise_exception=False)
    assert not result
    assert result.worst.error == pytest.approx(1, abs=0.2)
    assert result.worst.numeric == pytest.approx(2 * result.worst.analytic)


def test_nan_is_the_worst_error_wherever_it_stands():
    def nan(x):
        return x * 1, lambda g: (g * np.nan,)

    for fn in (lambda a, b: a + apply(nan, b), lambda a, b: apply(nan, a) + b):
        result = gradcheck(fn, [X, X + 1], raise_exception=False)
        assert not result
        assert math.isnan(result.worst.error)


def test_a_gradient_of_another_shape_is_wrong_whatever_it_holds():
    def kernel(x):
        return x * 2, lambda g: (2 * g[None],)

    with pytest.raises(GradcheckError, match=r"input 0 has shape \(1, 2, 3\), not \(2, 3\)"):
        gradcheck(lambda x: apply(kernel, x), [X])


def test_every_element_is_checked():
    def kernel(x):
        def vjp(g):
            d = g.copy()
            d[1, 2] *= 1 + 1e-9
            return (d,)

        return x * 1, vjp

    with pytest.raises(GradcheckError, match=r"index \(1, 2\)"):
        gradcheck(lambda x: apply(kernel, x), [X])


def test_a_kernel_with_a_kink_passes_beside_it():
    assert gradcheck(lambda x: apply(modulus, x), [np.array([-1.0, 2.0])], "richardson")
    assert gradcheck(lambda x: apply(modulus, x), [np.array([-1.0, 2.0])], "central")


def test_float32_inputs_are_checked_in_float64():
    seen = set()

    def fn(x):
        seen.add(x.dtype.type)
        return x.tanh()

    assert gradcheck(fn, [X.astype(np.float32)])
    assert seen == {np.float64, np.complex128}


def test_an_input_of_no_elements_is_right():
    assert gradcheck(lambda x, y: x.sum() + y.sum(), [np.zeros((0, 2)), X])


def test_the_seed_changes_the_vector():
    a, b = (gradcheck(lambda x: x.sum(), [X], seed=s).worst.analytic for s in (0, 1))
    assert a != b


# ---- what it refuses -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inputs", [[], [np.array([1, 2])], [Tensor([1.0])], ["text"]])
def test_nothing_to_check(inputs):
    with pytest.raises(GradcheckError, match="nothing to check"):
        gradcheck(lambda *xs: Tensor([1.0]), inputs)


def test_a_random_function():
    rng = Generator(0)
    with pytest.raises(GradcheckError, match="two results for the same input"):
        gradcheck(lambda x: x * rng.rand(x.shape), [X])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_input_that_is_not_finite(bad):
    x = X.copy()
    x[0, 1] = bad
    with pytest.raises(GradcheckError, match="an input holds NaN or infinity"):
        gradcheck(lambda x: x * 2, [X, x])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_output_that_is_not_finite(bad):
    with pytest.raises(GradcheckError, match="the output holds NaN or infinity"):
        gradcheck(lambda x: x + Tensor([bad, 0.0, 1.0]), [X])


def test_what_is_not_analytic():
    with pytest.raises(GradcheckError, match=r'imaginary part got lost.*method="richardson"'):
        gradcheck(lambda x: apply(modulus, x), [X])
    with pytest.raises(GradcheckError, match="is wrong"):  # lost on one of two ways only
        gradcheck(lambda x: x + apply(modulus, x), [X])


@pytest.mark.parametrize(
    "fn",
    [lambda x: Tensor([1.0, 2.0]), lambda x: x.detach() * 2, lambda x: x.argmax() * 1.0],
    ids=["a constant", "detached", "integers"],
)
def test_an_output_that_does_not_depend_on_the_input(fn):
    with pytest.raises(GradcheckError, match="does not depend"):
        gradcheck(fn, [X])


def test_no_grad_inside():
    @no_grad()
    def fn(x):
        return x * 2

    with pytest.raises(GradcheckError, match="does not depend"):
        gradcheck(fn, [X])


def test_an_unknown_method():
    with pytest.raises(ValueError, match="unknown method 'exact': choose from complex, richardson, central"):
        gradcheck(lambda x: x, [X], "exact")


# ---- what it puts back ---------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


def raising_at(call):
    """Twice x; an exception at the given call."""
    count = 0

    def fn(x):
        nonlocal count
        count += 1
        if count == call:
            raise Stop
        return x * 2

    return fn


@pytest.mark.parametrize("method", TOLERANCE)
@pytest.mark.parametrize("call", [1, 2, 5])
def test_data_and_dtype_are_put_back_even_when_fn_raises(method, call):
    data = X.astype(np.float32)
    before = data.copy()
    p = nn.Parameter(data)
    with pytest.raises(Stop):
        gradcheck(raising_at(call), [p], method)
    assert p.data is data
    np.testing.assert_array_equal(p.data, before)


@pytest.mark.parametrize("method", TOLERANCE)
def test_data_dtype_and_grad_are_put_back(method):
    data = X.astype(np.float32)
    before = data.copy()
    p = nn.Parameter(data)
    assert gradcheck(lambda p: p.tanh(), [p], method)
    assert p.data is data
    assert p.grad is None
    np.testing.assert_array_equal(data, before)


def test_arrays_are_not_written_to():
    x = X.copy()
    x.flags.writeable = False
    for method in TOLERANCE:
        assert gradcheck(lambda x: x * x, [x], method)
    np.testing.assert_array_equal(x, X)


# ---- modules -------------------------------------------------------------------------------------------------------


def test_check_module_names_the_parameter():
    layer = nn.Linear(3, 2, rng=Generator(0))
    assert check_module(layer, lambda: (layer(Tensor(X)) * 2).tanh())
    assert layer.weight.dtype == np.float32
    with pytest.raises(GradcheckError, match="gradient of weight is wrong"):
        check_module(layer, lambda: apply(wrong, layer.weight) + layer.bias.sum())


def test_a_complex_input_is_refused() -> None:
    with pytest.raises(GradcheckError, match="a complex input"):
        gradcheck(lambda x: x * x, [Tensor(np.array([1 + 2j]), requires_grad=True)])
