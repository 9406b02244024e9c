"""How tests of kernels compare: a kernel with the same thing composed of others, and with its adjoint."""

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_llm.autograd import Tensor, apply, grad

seeds = st.integers(0, 2**32 - 1)
shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=4)


def zeros(*shape):
    return np.zeros(shape)


def assert_close(a, b):
    """Within 1e-12 of the largest element."""
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    assert np.max(np.abs(a - b), initial=0.0) <= 1e-12 * max(1.0, np.max(np.abs(b), initial=0.0))


def assert_agree(kernel, arrays, oracle, **options):
    """Value and every gradient of the kernel are those of the oracle, for a random gradient of the output."""
    results = []
    for fn in (lambda *xs: apply(kernel, *xs, **options), oracle):
        inputs = [Tensor(x, requires_grad=x.dtype.kind == "f") for x in arrays]
        y = fn(*inputs)
        g = np.random.default_rng(1).standard_normal(y.shape)
        results.append((y.data, *grad(y, [x for x in inputs if x.requires_grad], g)))
    for found, expected in zip(*results, strict=True):
        assert_close(found, expected)


def value_and_gradients(kernel, arrays, **options):
    """The output and the gradients that are not None, for a random gradient of the output."""
    y, vjp = kernel(*arrays, **options)
    g = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
    return [np.asarray(a) for a in (y, *vjp(g)) if a is not None]


def gradients_of_ones(kernel, *arrays, **options):
    y, vjp = kernel(*(np.asarray(x, np.float64) for x in arrays), **options)
    return vjp(np.ones_like(y))


def assert_adjoint(kernel, arrays, options, seed=0):
    """⟨v, J u⟩ = ⟨Jᵀ v, u⟩ with ==, for a kernel that is linear in each input, on floats that hold small integers."""
    rng = np.random.default_rng(seed)

    def small_integers(shape):
        return rng.integers(-4, 5, shape).astype(np.float64)

    arrays = [small_integers(x.shape) if x.dtype.kind == "f" else x for x in arrays]
    y, vjp = kernel(*arrays, **options)
    v = small_integers(np.shape(y))
    for i, (x, dx) in enumerate(zip(arrays, vjp(v), strict=True)):
        if dx is not None:
            u = small_integers(x.shape)
            # Linear in each input, up to what the other inputs add: J u = y(u) − y(0).
            at_u, at_0 = (kernel(*arrays[:i], w, *arrays[i + 1 :], **options)[0] for w in (u, np.zeros_like(u)))
            assert np.sum(v * (at_u - at_0)) == np.sum(dx * u)


def one_hot(ids, n):
    return (np.arange(n) == ids[..., None]).astype(np.float64)


def composed_softmax(x, axis):
    e = (x - Tensor(x.data.max(axis=axis, keepdims=True))).exp()
    return e / e.sum(axis, keepdim=True)
