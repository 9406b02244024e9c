"""J v and H v: laws for every kernel, layer and model, known Hessians, and what is refused and put back."""

import math

import numpy as np
import pytest

from tinygrad_llm import functional as F
from tinygrad_llm import kernels as K
from tinygrad_llm import nn
from tinygrad_llm.autograd import Tensor, apply, grad, no_grad
from tinygrad_llm.gradcheck import all_cases
from tinygrad_llm.gradcheck import second_order as module
from tinygrad_llm.gradcheck.cases import Call
from tinygrad_llm.gradcheck.methods import GradcheckError
from tinygrad_llm.gradcheck.second_order import hessian, hvp, jvp
from tinygrad_llm.random import Generator

# Every analytic case; derivatives do not depend on the memory layout.
CASES = [
    case
    for case in all_cases()
    if case.method == "complex" and not (isinstance(case.make, Call) and case.make.layout != "C order")
]
GPT_LOSSES = [case for case in CASES if case.name.startswith("GPT loss")]
X = np.random.default_rng(0).standard_normal((2, 3))


def ready(case):
    """The case's function, with its float inputs as float64 leaves."""
    fn, inputs, _ = case.make(Generator(1))
    for i, x in enumerate(inputs):
        if isinstance(x, Tensor):
            x.data = x.data.astype(np.float64)
        elif x.dtype.kind == "f":
            inputs[i] = Tensor(x, requires_grad=True)
    return fn, inputs


def is_leaf(x):
    return isinstance(x, Tensor) and x.requires_grad


def direction(inputs, seed):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal(x.shape) if is_leaf(x) else None for x in inputs]


def dots(a, b):
    """⟨a, b⟩, term by term."""
    pairs = [(p, q) for p, q in zip(a, b, strict=True) if p is not None]
    return np.concatenate([np.reshape(p * q, -1) for p, q in pairs])


def curved(fn, inputs):
    """A scalar of fn's output: Σ g·(y + y²/2), g random. The square gives linear operations a Hessian as well."""
    with no_grad():
        g = np.random.default_rng(7).standard_normal(fn(*inputs).shape)

    def loss(*xs):
        y = fn(*xs)
        return (y * (0.5 * y + 1.0) * g).sum()

    return loss


def gradient(fn, inputs):
    leaves = iter(grad(fn(*inputs), [x for x in inputs if is_leaf(x)]))
    return [next(leaves) if is_leaf(x) else None for x in inputs]


def differences(fn, inputs, v, h=2e-5):
    """H v from gradients at x ± h·v and x ± h/2·v, extrapolated: an oracle without complex numbers."""
    kept = [x.data if is_leaf(x) else None for x in inputs]

    def at(step):
        for x, data, d in zip(inputs, kept, v, strict=True):
            if d is not None:
                x.data = data + step * d
        return gradient(fn, inputs)

    steps = zip(at(h), at(-h), at(h / 2), at(-h / 2), strict=True)
    at(0.0)
    return [None if a is None else (4 * (c - d) / h - (a - b) / (2 * h)) / 3 for a, b, c, d in steps]


def asymmetry(fn, inputs):
    """|u·Hv − v·Hu|, in units of the terms that the two sums are made of."""
    u, v = direction(inputs, 3), direction(inputs, 4)
    left, right = dots(u, hvp(fn, inputs, v)), dots(v, hvp(fn, inputs, u))
    return abs(left.sum() - right.sum()) / (np.abs(left).sum() + np.abs(right).sum() + 1e-2)


def disagreement(fn, inputs):
    """The largest |H v − its differences|, in units of the largest element."""
    v = direction(inputs, 5)
    pairs = zip(hvp(fn, inputs, v), differences(fn, inputs, v), strict=True)
    pairs = [(a, b) for a, b in pairs if a is not None]
    scale = max(np.max(np.abs(b), initial=0.0) for _, b in pairs) + 1e-2
    return max(np.max(np.abs(a - b), initial=0.0) for a, b in pairs) / scale


# ---- laws, for every kernel, layer and model -------------------------------------------------------------------------


def test_the_hessian_of_each_case_is_symmetric(for_each):
    def check(case):
        fn, inputs = ready(case)
        assert asymmetry(curved(fn, inputs), inputs) <= 1e-12

    for_each(CASES, check)


def test_hvp_is_the_slope_of_the_gradient_in_each_case(for_each):
    def check(case):
        fn, inputs = ready(case)
        assert disagreement(curved(fn, inputs), inputs) <= 1e-7

    for_each(CASES, check)


def test_jvp_and_vjp_are_adjoint_in_each_case(for_each):
    """⟨g, J v⟩ = ⟨Jᵀ g, v⟩."""

    def check(case):
        fn, inputs = ready(case)
        v = direction(inputs, 6)
        y, jv = jvp(fn, inputs, v)
        g = np.random.default_rng(8).standard_normal(y.shape)
        output = fn(*inputs)
        np.testing.assert_allclose(y, output.data, rtol=1e-13, atol=1e-13)
        assert y.dtype == jv.dtype == np.float64
        pulled = iter(grad(output, [x for x in inputs if is_leaf(x)], g))
        left, right = (g * jv).reshape(-1), dots(v, [next(pulled) if is_leaf(x) else None for x in inputs])
        scale = np.abs(left).sum() + np.abs(right).sum()
        assert abs(left.sum() - right.sum()) <= 1e-13 * scale + 1e-15

    for_each(CASES, check)


def test_the_laws_cover_every_analytic_kernel_and_the_whole_gpt():
    kinked = {"relu", "absolute", "maximum", "max"}
    assert {case.covers for case in CASES} >= set(K.KERNELS) - kinked
    told = [set(case.name.split(", ")) for case in GPT_LOSSES]
    assert all(any(word in words for words in told) for word in ("tied", "untied", "no qkv bias", "dropout"))


def test_the_key_bias_of_a_gpt_has_no_second_derivative(for_each):
    """A shift of the key bias adds one number to all scores of a query: L(x + t·v) = L(x) at any x, so H v = 0.

    Except with rotary positions, which turn the bias of each key by another angle.
    """

    def check(case):
        fn, inputs, names = case.make(Generator(1))
        v = [np.zeros(p.shape) for p in inputs]
        for d, parameter in zip(v, names, strict=True):
            if parameter.endswith("c_attn.bias"):
                C = d.size // 3
                d[C : 2 * C] = 1 + np.arange(C)
        assert any(d.any() for d in v)
        assert max(np.abs(d).max() for d in hvp(fn, inputs, v)) <= 1e-14
        others = [1.0 * (d == 0) for d in v]
        assert max(np.abs(d).max() for d in hvp(fn, inputs, others)) >= 1e-3

    for_each([case for case in GPT_LOSSES if not {"no qkv bias", "rotary"} & set(case.name.split(", "))], check)


# ---- known derivatives -----------------------------------------------------------------------------------------------


def test_the_jvp_of_a_linear_map_is_the_map():
    A = np.arange(6.0).reshape(2, 3)
    x, v = np.array([1.0, -2.0, 5.0]), np.array([3.0, 0.0, -7.0])
    y, jv = jvp(lambda x: A @ x + 4.0, [x], [v])
    np.testing.assert_array_equal(y, A @ x + 4)
    np.testing.assert_array_equal(jv, A @ v)  # integers, and a step that is a power of two: no rounding


@pytest.mark.parametrize("length", [1e-300, 1e-10, 1.0, 1e10, 1e300])
def test_a_direction_may_have_any_length(length):
    x, v = np.array([0.3, -0.5]), np.array([1.0, 2.0])
    _, jv = jvp(lambda x: x.exp(), [x], [length * v])
    np.testing.assert_allclose(jv, length * v * np.exp(x), rtol=1e-15)
    (hv,) = hvp(lambda x: x.exp().sum(), [x], [length * v])
    np.testing.assert_allclose(hv, length * v * np.exp(x), rtol=1e-15)


def test_none_means_zeros_and_integers_are_passed_on():
    a, ids, b = np.array([2.0, 3.0, 5.0]), np.array([2, 0]), np.array([7.0, 11.0])

    def fn(a, ids, b):
        assert isinstance(ids, np.ndarray)
        return (a[ids] * a[ids] * b).sum()

    y, jv = jvp(fn, [a, ids, b], [None, None, np.array([1.0, 0.0])])
    assert (y, jv) == (5 * 5 * 7 + 2 * 2 * 11, 25)
    assert y.shape == jv.shape == ()
    ha, none, hb = hvp(fn, [a, ids, b], [None, None, np.array([1.0, 0.0])])
    np.testing.assert_array_equal(ha, [0, 0, 10])
    np.testing.assert_array_equal(hb, [0, 0])
    assert none is None
    assert not any(np.any(d) for d in hvp(fn, [a, ids, b], [None] * 3) if d is not None)


def test_the_hessian_of_a_quadratic_form_is_its_symmetric_part():
    A = np.array([[2.0, 1.0, 0.0], [4.0, -3.0, 8.0], [6.0, 5.0, 7.0]])
    H = hessian(lambda x: 0.5 * (x @ A @ x), [np.array([1.0, -2.0, 3.0])])
    np.testing.assert_array_equal(H, (A + A.T) / 2)


def test_the_hessian_of_a_sum_of_cubes_is_diagonal():
    H = hessian(lambda x: (x**3).sum(), [X])
    np.testing.assert_allclose(H, np.diag(6 * X.reshape(-1)), rtol=1e-14, atol=1e-14)


def test_the_hessian_of_logsumexp_is_the_covariance_of_a_softmax():
    x = np.array([0.3, -1.2, 2.0, 0.0])
    p = np.exp(x) / np.exp(x).sum()
    expected = np.diag(p) - np.outer(p, p)
    for loss in (lambda x: x.logsumexp(0), lambda x: F.cross_entropy(x.reshape(1, -1), np.array([2]))):
        H = hessian(loss, [x])
        np.testing.assert_allclose(H, expected, rtol=0, atol=1e-14)
        np.testing.assert_allclose(H @ np.ones(4), 0, atol=1e-14)  # adding a number to all logits changes nothing


def test_the_hessian_of_logistic_regression():
    rng = np.random.default_rng(1)
    inputs, signs, w = rng.standard_normal((9, 3)), rng.choice([-1.0, 1.0], 9), rng.standard_normal(3)
    H = hessian(lambda w: -(signs * (inputs @ w)).sigmoid().log().sum(), [w])
    s = 1 / (1 + np.exp(-inputs @ w))
    np.testing.assert_allclose(H, inputs.T @ np.diag(s * (1 - s)) @ inputs, rtol=1e-13, atol=1e-14)


def test_the_hessian_of_several_inputs_has_blocks():
    """Σ a·b²: ∂²/∂a² = 0, ∂²/∂a∂b = 2b, ∂²/∂b² = 2a."""
    a, b = np.array([1.0, 2.0]), np.array([3.0, 5.0])
    H = hessian(lambda a, ids, b: (a * b * b).sum(), [a, np.array([1]), b])
    np.testing.assert_array_equal(H, np.block([[np.zeros((2, 2)), np.diag(2 * b)], [np.diag(2 * b), np.diag(2 * a)]]))


def test_the_hessian_of_a_layer_is_symmetric_and_agrees_with_hvp():
    layer, x = nn.LayerNorm(4), np.random.default_rng(2).standard_normal((2, 4))

    def loss(x, *_):
        return (layer(x) ** 3).sum()

    inputs = [x, *layer.parameters()]
    H = hessian(loss, inputs)
    assert H.shape == (16, 16)
    assert np.abs(H - H.T).max() <= 1e-13 * np.abs(H).max()
    v = np.random.default_rng(3).standard_normal(16)
    hv = hvp(loss, inputs, [v[:8].reshape(2, 4), v[8:12], v[12:]])
    np.testing.assert_allclose(np.concatenate([d.reshape(-1) for d in hv]), H @ v, rtol=1e-12, atol=1e-12)


def test_kinked_functions_are_differentiated_on_the_piece_that_x_lies_on():
    x, v = np.array([-2.0, 3.0]), np.array([1.0, 1.0])
    np.testing.assert_array_equal(jvp(lambda x: x.abs(), [x], [v])[1], [-1, 1])
    np.testing.assert_array_equal(jvp(lambda x: x.relu(), [x], [v])[1], [0, 1])
    (hv,) = hvp(lambda x: (x.relu() ** 2 + x.maximum(1.0) ** 2).sum(), [x], [v])
    np.testing.assert_array_equal(hv, [0, 4])


# ---- curvature of losses ---------------------------------------------------------------------------------------------


def test_the_squared_error_of_a_linear_layer_is_convex():
    """L = mean((X Wᵀ + b − Y)²) is a quadratic: its Hessian, 2/(N·out) · Σ x xᵀ for each output, is never negative."""
    rng = np.random.default_rng(4)
    inputs, targets = rng.standard_normal((6, 3)), rng.standard_normal((6, 2))
    layer = nn.Linear(3, 2, rng=Generator(0))
    H = hessian(lambda *_: ((layer(Tensor(inputs)) - targets) ** 2).mean(), layer.parameters())
    np.testing.assert_allclose(H[:6, :6], np.kron(np.eye(2), inputs.T @ inputs) * 2 / 12, rtol=1e-13, atol=1e-14)
    assert np.linalg.eigvalsh(H).min() >= -1e-12


def test_softmax_regression_is_convex_with_flat_directions():
    rng = np.random.default_rng(5)
    inputs, classes, layer = rng.standard_normal((8, 2)), rng.permutation(8) % 3, nn.Linear(2, 3, rng=Generator(0))
    H = hessian(lambda *_: F.cross_entropy(layer(Tensor(inputs)), classes), layer.parameters())
    eigenvalues = np.linalg.eigvalsh((H + H.T) / 2)
    assert eigenvalues.min() >= -1e-12
    # The same row added to every class's weights (2) and bias (1) changes nothing: three flat directions.
    assert np.sum(eigenvalues <= 1e-12) == 3


def test_two_layers_have_a_saddle():
    """(w₂·w₁ − 1)² at 0: downhill along w₁ = w₂, uphill along w₁ = −w₂."""
    H = hessian(lambda w1, w2: (w2 * w1 - 1.0) ** 2, [np.array(0.0), np.array(0.0)])
    np.testing.assert_array_equal(H, [[0, -2], [-2, 0]])
    np.testing.assert_allclose(np.linalg.eigvalsh(H), [-2, 2])


def test_newton_solves_a_quadratic_in_one_step():
    A, b = np.array([[4.0, 1.0], [1.0, 3.0]]), np.array([1.0, 2.0])
    w = Tensor(np.array([5.0, -7.0]), requires_grad=True)

    def loss(w):
        return 0.5 * (w @ A @ w) - (b * w).sum()

    (g,) = grad(loss(w), [w])
    np.testing.assert_allclose(w.data - np.linalg.solve(hessian(loss, [w]), g), np.linalg.solve(A, b), rtol=1e-14)


# ---- planted mistakes ------------------------------------------------------------------------------------------------


def two_sided(da, db):
    """Σ (x·z)³, through a product with the given vjp."""

    def product(a, b):
        return a * b, lambda g: (da(g, b), db(g, a))

    return lambda x, z: (apply(product, x, z) ** 3).sum()


def one_sided(slope):
    """Two layers of tanh, with the given derivative as a function of the output."""

    def tanh(x):
        y = np.tanh(x)
        return y, lambda g: (g * slope(y),)

    W = np.random.default_rng(9).standard_normal((3, 3))
    return lambda x, z: ((apply(tanh, apply(tanh, x @ W) @ W) * z) ** 3).sum()


def points():
    return [Tensor(X, requires_grad=True), Tensor(X[::-1] + 0.5, requires_grad=True)]


@pytest.mark.parametrize(
    "loss",
    [
        two_sided(lambda g, b: g * b.conj(), lambda g, a: g * a),
        two_sided(lambda g, b: g * b, lambda g, a: g * a.real),
        two_sided(lambda g, b: 0 * g, lambda g, a: g * a),  # its slope is its own, but no Hessian
    ],
    ids=["one side conjugates", "one side drops the imaginary part", "one gradient is forgotten"],
)
def test_a_mistake_in_one_of_several_terms_breaks_the_symmetry(loss):
    assert asymmetry(loss, points()) > 1e-3
    H, v = hessian(loss, points()), direction(points(), 2)
    columns = np.concatenate([d.reshape(-1) for d in hvp(loss, points(), v)])
    np.testing.assert_allclose(H @ np.concatenate([d.reshape(-1) for d in v]), columns, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "slope",
    [lambda y: 1 - (y * y).conj(), lambda y: 1 - y * y.conj(), lambda y: (1 - y * y).real],
    ids=["conjugates", "takes the modulus", "drops the imaginary part"],
)
def test_an_elementwise_mistake_is_symmetric_and_only_the_slope_shows_it(slope):
    """It adds Jᵀ D J with a diagonal D to H, so u·Hv = v·Hu still holds."""
    loss = one_sided(slope)
    assert asymmetry(loss, points()) <= 1e-14
    assert disagreement(loss, points()) > 1e-3


@pytest.mark.parametrize(
    "loss", [two_sided(lambda g, b: g * b, lambda g, a: g * a), one_sided(lambda y: 1 - y * y)], ids=["product", "tanh"]
)
def test_the_right_formula_passes_both_laws(loss):
    assert asymmetry(loss, points()) <= 1e-14
    assert disagreement(loss, points()) <= 1e-9


# ---- what is refused -------------------------------------------------------------------------------------------------

BOTH = (jvp, hvp)
LEAF = Tensor(X, requires_grad=True)


@pytest.mark.parametrize(
    ("inputs", "v", "message"),
    [
        ([X], [], "1 inputs need as many directions, got 0"),
        ([X], [X, X], "1 inputs need as many directions, got 2"),
        ([X], [X.T], r"direction 0 has shape \(3, 2\), but the input has \(2, 3\)"),
        ([X, np.array([1, 2])], [X, np.array([1.0, 0.0])], "input 1 is not differentiated"),
        ([X, Tensor(X)], [None, X], "input 1 is not differentiated"),
        ([X], [X * np.nan], "direction 0 must be real, without NaN"),
        ([X], [X * 1j], "direction 0 must be real"),
        ([X], [np.full(X.shape, "a")], "direction 0 must be real"),
        ([LEAF, LEAF], [X, X], "input 1 is a Tensor that was given before"),
        ([LEAF * 2], [X], "input 0 was computed from others"),
        (X, [X], "inputs must be a list"),
        (LEAF, [X], "inputs must be a list"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(inputs, v, message):
    for product in BOTH:
        with pytest.raises(ValueError, match=message):
            product(lambda x, *_: x.sum(), inputs, v)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "nothing to differentiate"),
        ([np.array([1, 2])], "nothing to differentiate"),
        ([np.array([1.0, np.nan])], "input 0 holds NaN or infinity"),
        ([X, np.array(np.inf)], "input 1 holds NaN or infinity"),
        ([np.array([1j])], "a complex input"),
        ([Tensor(np.array([1j]), requires_grad=True)], "input 0 is complex"),
    ],
)
def test_inputs_without_a_derivative_are_refused(inputs, message):
    for product in BOTH:
        with pytest.raises(GradcheckError, match=message):
            product(lambda x, *_: x.sum(), inputs, [None] * len(inputs))


def into_a_float_buffer(x):
    y = np.zeros(x.shape)
    y[...] = x
    return y, lambda g: (g,)


def real_backward(x):
    return x * x, lambda g: ((2 * g * x).real,)


LOST = "imaginary part got lost"


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (lambda x: apply(lambda x: (np.abs(x), lambda g: (g,)), x).sum(), LOST),
        (lambda x: apply(lambda x: (np.abs(x), lambda g: (g * x,)), x).sum(), LOST),  # and again in backward
        (lambda x: apply(into_a_float_buffer, x).sum(), LOST),
        (lambda x: Tensor(1.0), "does not depend"),
        (lambda x: x.detach().sum(), "does not depend"),
        (no_grad()(lambda x: x.sum()), "does not depend on any input .or was computed in no_grad"),
        (lambda x: (x * np.inf).sum(), "the output holds NaN or infinity"),
        (lambda x: x.data.sum(), "fn must return a Tensor, got complex128"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # inf · complex
def test_functions_without_a_derivative_are_refused(fn, message):
    for product in BOTH:
        with pytest.raises(GradcheckError, match=message):
            product(fn, [X], [X])


def test_a_backward_that_is_real_or_gives_nan_is_refused():
    with pytest.raises(GradcheckError, match=LOST):
        hvp(lambda x: apply(real_backward, x).sum(), [X], [X])
    with pytest.raises(GradcheckError, match="the derivative holds NaN or infinity"):
        hvp(lambda x: apply(lambda x: (x * x, lambda g: (g * np.nan,)), x).sum(), [X], [X])


@pytest.mark.filterwarnings("default::numpy.exceptions.ComplexWarning")
def test_a_lost_imaginary_part_is_an_error_even_if_its_warning_is_not():
    with pytest.raises(GradcheckError, match=LOST):
        jvp(lambda x: x + apply(into_a_float_buffer, x), [X], [X])


def test_a_hessian_needs_a_scalar_and_few_elements(monkeypatch):
    with pytest.raises(ValueError, match=r"needs a scalar, but fn returned shape \(2, 3\)"):
        hvp(lambda x: x * x, [X], [X])
    with pytest.raises(ValueError, match=r"Hessian of 2,001 elements has 4,004,001, and 2,000 are the limit: use hvp"):
        hessian(lambda x: (x * x).sum(), [np.zeros(2001)])
    monkeypatch.setattr(module, "HESSIAN_LIMIT", 6)
    np.testing.assert_array_equal(hessian(lambda x: (x * x).sum(), [X]), 2 * np.eye(6))
    with pytest.raises(GradcheckError, match="nothing to differentiate"):
        hessian(lambda x: x, [np.array([1])])
    with pytest.raises(ValueError, match="inputs must be a list"):
        hessian(lambda x: x, X)


def test_inputs_without_elements_have_empty_derivatives():
    empty = np.zeros((0, 2))
    y, jv = jvp(lambda x: x * 2, [empty], [empty])
    assert y.shape == jv.shape == (0, 2)
    (hv,) = hvp(lambda x: (x * x).sum(), [empty], [None])
    assert hv.shape == (0, 2)
    assert hessian(lambda x: (x * x).sum(), [empty]).shape == (0, 0)


# ---- what is put back ------------------------------------------------------------------------------------------------


class Stop(Exception):
    pass


@pytest.mark.parametrize("ending", ["success", "fn raises", "not analytic", "not a scalar", "v does not fit"])
def test_parameters_are_put_back(ending, for_each):
    def check(case):
        product, dtype = case
        rng = np.random.default_rng(6)
        layer = nn.Linear(3, 2, rng=Generator(0)).to(dtype)
        parameters = list(layer.parameters())
        arrays = [p.data for p in parameters]
        before = [a.copy() for a in arrays]
        seen = []

        def fn(*_):
            seen.append(layer.weight.dtype)
            if ending == "fn raises":
                raise Stop
            y = layer(Tensor(X)).tanh()
            if ending == "not analytic":
                y = apply(into_a_float_buffer, y)
            return y if ending == "not a scalar" else (y * y).sum()

        v = [rng.standard_normal(p.shape) for p in parameters]
        errors = {"fn raises": Stop, "not analytic": GradcheckError, "not a scalar": ValueError}
        if ending == "success" or (ending == "not a scalar" and product is jvp):
            product(fn, layer.parameters(), v)
        elif ending == "v does not fit":
            with pytest.raises(ValueError, match="direction 1"):
                product(fn, parameters, [v[0], v[0]])
        else:
            with pytest.raises(errors[ending]):
                product(fn, parameters, v)
        once = [] if ending == "v does not fit" else [dtype]  # the first call is at the real inputs
        assert seen == (once if ending in ("v does not fit", "fn raises") else [*once, np.complex128])
        for p, array, old in zip(parameters, arrays, before, strict=True):
            assert p.data is array
            assert p.dtype == dtype
            assert p.grad is None
            np.testing.assert_array_equal(p.data, old)

    for_each([(product, dtype) for product in BOTH for dtype in (np.float32, np.float64)], check)


def test_arrays_are_not_written_to():
    for product in BOTH:
        x, v = X.copy(), X.copy()
        x.flags.writeable = v.flags.writeable = False
        product(lambda x: (x * x).sum(), [x], [v])
        np.testing.assert_array_equal(x, X)


def test_the_result_is_memory_of_its_own():
    x = Tensor(X.copy(), requires_grad=True)
    y, jv = jvp(lambda x: x, [x], [X])
    assert y.base is None
    y[...] = jv[...] = math.pi
    np.testing.assert_array_equal(x.data, X)


def test_hvp_of_float32_parameters_is_exact_to_float64():
    layer = nn.Linear(3, 2, rng=Generator(0))
    v = direction(list(layer.parameters()), 1)

    def loss(*_):
        return (layer(Tensor(X)).tanh() ** 2).sum()

    narrow = hvp(loss, layer.parameters(), v)
    layer.to(np.float64)
    for a, b in zip(narrow, hvp(loss, layer.parameters(), v), strict=True):
        assert a.dtype == np.float64
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("fn", [lambda x: x.log().sum(), lambda x: x.sqrt().sum(), lambda x: (x**2.5).sum()])
def test_a_point_outside_the_real_domain_is_refused_though_a_complex_value_exists(fn):
    for product in BOTH:
        with pytest.raises(GradcheckError, match="the output holds NaN or infinity"):
            product(fn, [np.array([-2.0])], [np.ones(1)])
