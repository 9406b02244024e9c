"""Programs that Hypothesis writes: small graphs of kernels, values used several times, checked by the complex step."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor, apply
from tinygrad_llm.gradcheck import gradcheck

SHAPES = [(), (3,), (2, 3), (3, 2), (1, 3), (2, 1, 3)]
UNARY = [K.tanh, K.sigmoid, K.gelu, K.negative]


def axes(x):
    return [None, *range(-x.ndim, x.ndim)]


def broadcasts(a, b):
    try:
        return len(np.broadcast_shapes(a.shape, b.shape)) <= 3
    except ValueError:
        return False


def multiplies(a, b):
    return a.ndim >= 1 and b.ndim == 2 and a.shape[-1] == b.shape[0]


@st.composite
def steps(draw, pool):
    """One operation on some values of the pool: (function of the pool, its result)."""
    i = draw(st.integers(0, len(pool) - 1))
    x = pool[i]
    kinds = ["unary", "reshape", "reduce"] + (["normalise", "axes", "index", "gather"] if x.ndim else [])
    partners = [j for j, b in enumerate(pool) if broadcasts(x, b)]
    products = [j for j, b in enumerate(pool) if multiplies(x, b)]
    joined = [j for j, b in enumerate(pool) if x.ndim and b.shape == x.shape]
    kinds += ["binary"] * 3 * bool(partners) + ["matmul"] * 2 * bool(products) + ["concatenate"] * bool(joined)
    kind = draw(st.sampled_from(kinds))
    j, options = None, {}
    if kind == "unary":
        kernel = draw(st.sampled_from(UNARY))
    elif kind == "reshape":
        shapes = [(-1,), (1, *x.shape), (*x.shape, 1), x.shape[::-1]]
        kernel, options = K.reshape, {"shape": draw(st.sampled_from(shapes))}
    elif kind == "reduce":
        kernel = draw(st.sampled_from([K.sum, K.mean, K.var, K.logsumexp]))
        options = {"axis": draw(st.sampled_from(axes(x))), "keepdims": draw(st.booleans())}
    elif kind == "normalise":
        kernel = draw(st.sampled_from([K.softmax, K.log_softmax, K.layer_norm]))
        options = {"eps": 0.1} if kernel is K.layer_norm else {"axis": draw(st.sampled_from(axes(x)[1:]))}
    elif kind == "axes":
        kernel, options = K.transpose, {"axes": tuple(draw(st.permutations(range(x.ndim))))}
    elif kind == "index":
        kernel = K.getitem
        options = {"index": draw(st.sampled_from([0, -1, slice(None, None, -1), (Ellipsis, slice(0, 1)), (None, 0)]))}
    elif kind == "gather":
        rows = draw(st.lists(st.integers(0, x.shape[0] - 1), min_size=1, max_size=3))
        kernel, options = K.getitem, {"index": np.array(rows)}
    elif kind == "binary":
        kernel, j = draw(st.sampled_from([K.add, K.subtract, K.multiply])), draw(st.sampled_from(partners))
    elif kind == "matmul":
        kernel, j = K.matmul, draw(st.sampled_from(products))
    else:
        kernel, j, options = K.concatenate, draw(st.sampled_from(joined)), {"axis": draw(st.sampled_from(axes(x)[1:]))}

    def step(values):
        return apply(kernel, *([values[i]] if j is None else [values[i], values[j]]), **options)

    return step


@st.composite
def programs(draw):
    """A list of steps, and inputs of drawn shapes. Every value made goes into the output."""
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inputs = [rng.standard_normal(shape) for shape in shapes]
    program, pool = [], [Tensor(x) for x in inputs]
    for _ in range(draw(st.integers(1, 7))):
        step = draw(steps(pool))
        program.append(step)
        pool.append(step(pool))
    return program, inputs


def run(program, *inputs):
    values = list(inputs)
    for step in program:
        values.append(step(values))
    return apply(K.concatenate, *(v.reshape(-1) for v in values))


@settings(max_examples=100)
@given(programs())
def test_any_program_has_the_gradient_of_its_function(program):
    steps, inputs = program
    assert gradcheck(lambda *xs: run(steps, *xs), inputs)
