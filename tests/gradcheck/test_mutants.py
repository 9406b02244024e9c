"""The checker is checked: wrong backwards are planted, and each must be caught."""

import math

import numpy as np
import pytest

from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import apply
from tinygrad_llm.gradcheck import GradcheckError, all_cases, gradcheck

# The first case of each kernel, which is the one with all its inputs.
CASES = [next(case for case in all_cases() if case.covers == name) for name in K.KERNELS]


def mutant(kernel, change):
    """The kernel with its gradients changed: `change` takes the list of them, and g."""

    def wrong(*inputs, **options):
        y, vjp = kernel(*inputs, **options)
        return y, lambda g: tuple(change(list(vjp(g)), g))

    return wrong


def only(i, change):
    """Change the i-th gradient alone."""
    return lambda grads, g: [*grads[:i], change(grads[i], g), *grads[i + 1 :]]


CHANGES = {
    "scaled by 1 + 1e-6": lambda d, g: d * (1 + 1e-6),
    "scaled by 1 - 1e-6": lambda d, g: d * (1 - 1e-6),
    "+ 1e-6": lambda d, g: d + 1e-6,
    "zeros": lambda d, g: np.zeros_like(d),
    "opposite sign": lambda d, g: -d,
    "twice": lambda d, g: d + d,
    "one element": lambda d, g: np.where(np.abs(d) == np.max(np.abs(d)), d * (1 + 1e-6), d),
    "reversed": lambda d, g: np.flip(d),
    "NaN": lambda d, g: np.full_like(d, np.nan),
    "an axis too many": lambda d, g: d[None],
}


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_wrong_gradient_is_caught(case, name, kernel_call):
    kernel, inputs, options = kernel_call(case)
    y, vjp = kernel(*inputs, **options)
    g = np.random.default_rng(0).standard_normal(np.shape(y))
    for i, d in enumerate(vjp(g)):
        if d is None:
            continue
        d = np.asarray(d)
        if name not in ("+ 1e-6", "NaN", "an axis too many") and np.array_equal(CHANGES[name](d, g), d):
            continue  # no change at all: a reversed gradient of one element, or dropout with p = 1
        wrong = mutant(kernel, only(i, CHANGES[name]))
        with pytest.raises(GradcheckError, match=f"input {i}"):
            gradcheck(lambda *xs, wrong=wrong: apply(wrong, *xs, **options), inputs, case.method)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_mutants_are_caught_for_their_change_alone(case, kernel_call):
    """The same scaffold with nothing changed passes."""
    kernel, inputs, options = kernel_call(case)
    unchanged = mutant(kernel, lambda grads, g: grads)
    assert gradcheck(lambda *xs: apply(unchanged, *xs, **options), inputs, case.method)


# ---- the classic mistakes, as the wrong formulas that people write ---------------------------------------------------


def layer_norm(drop=None, eps_in_backward=1e-5):
    def kernel(x):
        centred = x - np.mean(x, axis=-1, keepdims=True)
        variance = np.mean(centred * centred, axis=-1, keepdims=True)
        xhat = centred / np.sqrt(variance + 1e-5)

        def vjp(g):
            rstd = 1 / np.sqrt(variance + eps_in_backward)
            xhat_back = centred * rstd
            dx = g.copy()
            if drop != "mean":
                dx = dx - np.mean(g, axis=-1, keepdims=True)
            if drop != "variance":
                dx = dx - xhat_back * np.mean(g * xhat_back, axis=-1, keepdims=True)
            return (rstd * dx,)

        return xhat, vjp

    return kernel


def gelu(a=0.044715, erf_slope=False):
    c = math.sqrt(2 / math.pi)

    def kernel(x):
        t = np.tanh(c * (x + 0.044715 * x**3))

        def vjp(g):
            if erf_slope:
                cdf = np.array([0.5 * (1 + math.erf(v / math.sqrt(2))) for v in x.flat]).reshape(x.shape)
                return (g * (cdf + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)),)
            t = np.tanh(c * (x + a * x**3))
            return (g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * c * (1 + 3 * a * x * x)),)

        return 0.5 * x * (1 + t), vjp

    return kernel


def cross_entropy(mistake=None):
    targets = np.array([0, 2, 1])

    def kernel(x):
        p = np.exp(x) / np.sum(np.exp(x), axis=-1, keepdims=True)
        n = len(x)

        def vjp(g):
            d = p.copy()
            if mistake != "the target is forgotten":
                d[np.arange(n), targets] -= 1
            if mistake == "mean for sum":
                return (g * d,)
            return (g * d / n * (1 + (1e-4 if mistake == "scaled" else 0)),)

        return -np.sum(np.log(p[np.arange(n), targets])) / n, vjp

    return kernel


def softmax(mistake=None):
    def kernel(x):
        y = np.exp(x) / np.sum(np.exp(x), axis=-1, keepdims=True)

        def vjp(g):
            if mistake == "only the diagonal":
                return (g * y * (1 - y),)
            # On a g of ones both give 0: only a random g tells them apart.
            weights = 1 / g.shape[-1] if mistake == "mean(g)" else y
            return (y * (g - np.sum(g * weights, axis=-1, keepdims=True)),)

        return y, vjp

    return kernel


def matrix_product(mistake=None):
    def kernel(x):
        def vjp(g):
            return (2 * (g @ x) if mistake == "symmetric" else g.T @ x if mistake == "one term" else (g + g.T) @ x,)

        return x @ x.T, vjp

    return kernel


def with_bias(mistake=None):
    def kernel(x):
        return x + x[0], lambda g: (g + np.eye(len(x))[:, :1] * (g[0] if mistake == "un-broadcast" else g.sum(0)),)

    return kernel


MISTAKES = {
    "layer norm without mean(g)": layer_norm("mean"),
    "layer norm without mean(g·x̂)": layer_norm("variance"),
    "layer norm, eps forgotten in backward": layer_norm(eps_in_backward=0.0),
    "layer norm × (1 + 1e-4)": mutant(layer_norm(), lambda grads, g: [grads[0] * (1 + 1e-4)]),
    "layer norm × (1 + 1e-7)": mutant(layer_norm(), lambda grads, g: [grads[0] * (1 + 1e-7)]),
    "gelu with 0.0447 for 0.044715": gelu(0.0447),
    "gelu with the slope of the erf form": gelu(erf_slope=True),
    "cross-entropy × (1 + 1e-4)": cross_entropy("scaled"),
    "cross-entropy, sum for mean": cross_entropy("mean for sum"),
    "cross-entropy without the target": cross_entropy("the target is forgotten"),
    "softmax, only the diagonal": softmax("only the diagonal"),
    "softmax, mean(g) for Σ g·y": softmax("mean(g)"),
    "x xᵀ with one term": matrix_product("one term"),
    "x xᵀ taken for symmetric g": matrix_product("symmetric"),
    "bias without its sum": with_bias("un-broadcast"),
}
RIGHT = [layer_norm(), gelu(), cross_entropy(), softmax(), matrix_product(), with_bias()]
X = np.random.default_rng(5).standard_normal((3, 5))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_classic_mistake_is_caught(name):
    for seed in range(5):
        with pytest.raises(GradcheckError, match="the gradient of input 0 is wrong"):
            gradcheck(lambda x: apply(MISTAKES[name], x), [X], seed=seed)


@pytest.mark.parametrize("kernel", RIGHT)
def test_the_right_formula_beside_it_passes(kernel):
    assert gradcheck(lambda x: apply(kernel, x), [X])
