"""Random programs: small graphs of kernels in which values are used several times, checked by the complex step."""

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygrad_llm import functional as F
from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor, apply, grad
from tinygrad_llm.gradcheck import gradcheck

SHAPES = [(), (2,), (3,), (2, 3), (3, 2), (1, 3), (2, 1, 3)]
LARGEST = 48  # elements of a value; a step that makes more is left out
LIMIT = 4.0  # larger values are scaled down, so that long programs stay well-conditioned

# ---- the operations a program is made of ---------------------------------------------------------------------------


class Rule(NamedTuple):
    """An operation: `call(*values, **options)`, for values that `fits` allows, with options drawn by `options`."""

    call: Callable[..., Tensor]
    fits: Callable[..., bool] = lambda x: True
    options: Callable[..., dict[str, Any]] = lambda draw, *values: {}

    @property
    def arity(self) -> int:
        return self.fits.__code__.co_argcount


def positive(x):
    """Into (0.5, 1.5): for what divides, has a root or a logarithm, or is raised to a power."""
    return x.sigmoid() + 0.5


def with_axes(x):
    return x.ndim > 0


def matrix(x):
    return x.ndim == 2


def broadcast(a, b):
    try:
        return len(np.broadcast_shapes(a.shape, b.shape)) <= 3
    except ValueError:
        return False


def attends(q, k, v, mask):
    if min(q.ndim, k.ndim, v.ndim) < 2:
        return False
    try:
        scores = q.data @ k.mT.data
        return (scores @ v.data).ndim <= 3 and np.broadcast_shapes(mask.shape, scores.shape) == scores.shape
    except ValueError:
        return False


def same_shape(a, b):
    return a.ndim > 0 and a.shape == b.shape


def an_axis(draw, x):
    return draw(st.integers(-x.ndim, x.ndim - 1))


def some_axes(draw, x, *others):
    """One axis, all of them, or two at once."""
    choices = [None, *range(-x.ndim, x.ndim)] + [(0, -1)] * (x.ndim > 1)
    return {"axis": draw(st.sampled_from(choices)), "keepdims": draw(st.booleans())}


def a_mask(draw, shape):
    return np.random.default_rng(draw(st.integers(0, 2**16))).random(shape) < 0.6


def some_ids(draw, high):
    shape = draw(st.sampled_from([(1,), (3,), (2, 2)]))
    return np.random.default_rng(draw(st.integers(0, 2**16))).integers(0, high, shape)


def some_targets(draw, n, V):
    """Targets of which the first counts and some others are ignored."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    targets = np.where(rng.random(n) < 0.3, -100, rng.integers(0, V, n))
    targets[0] = rng.integers(0, V)
    return targets


def some_blocks(draw):
    return {"block": draw(st.sampled_from([1, 2, 64])), "recompute": draw(st.booleans())}


def some_index(draw, x):
    basic = [0, -1, slice(None, None, -1), (Ellipsis, slice(0, 1)), (None, 0)]
    rows = draw(st.lists(st.integers(-len(x), len(x) - 1), min_size=1, max_size=3))
    return {"index": draw(st.sampled_from([*basic, np.array(rows), np.arange(len(x)) != 0]))}


def kernel(k):
    return lambda *values, **options: apply(k, *values, **options)


SMOOTH = {
    "add": Rule(kernel(K.add), broadcast),
    "subtract": Rule(kernel(K.subtract), broadcast),
    "multiply": Rule(kernel(K.multiply), broadcast),
    "divide": Rule(lambda a, b: a / positive(b), broadcast),
    "power": Rule(lambda a, b: positive(a) ** b, broadcast),
    "a whole power": Rule(lambda x, n: x**n, options=lambda draw, x: {"n": draw(st.integers(0, 3))}),
    "where": Rule(
        lambda a, b, mask: apply(K.where, mask, a, b),
        broadcast,
        lambda draw, a, b: {"mask": a_mask(draw, draw(st.sampled_from([a.shape, b.shape])))},
    ),
    "negative": Rule(kernel(K.negative)),
    "exp": Rule(lambda x: x.tanh().exp()),
    "log": Rule(lambda x: positive(x).log()),
    "sqrt": Rule(lambda x: positive(x).sqrt()),
    "tanh": Rule(kernel(K.tanh)),
    "sigmoid": Rule(kernel(K.sigmoid)),
    "gelu": Rule(kernel(K.gelu)),
    "erf": Rule(kernel(K.erf)),
    "softplus": Rule(kernel(K.softplus)),
    "norm": Rule(lambda x: (x * x + 1).norm()),
    "cumsum": Rule(kernel(K.cumsum), with_axes, lambda draw, x: {"axis": an_axis(draw, x)}),
    "sum": Rule(kernel(K.sum), options=some_axes),
    "mean": Rule(kernel(K.mean), options=some_axes),
    "var": Rule(kernel(K.var), options=some_axes),
    "logsumexp": Rule(kernel(K.logsumexp), options=some_axes),
    "softmax": Rule(kernel(K.softmax), with_axes, lambda draw, x: {"axis": an_axis(draw, x)}),
    "log_softmax": Rule(kernel(K.log_softmax), with_axes, lambda draw, x: {"axis": an_axis(draw, x)}),
    "layer_norm": Rule(
        lambda x, w, b, eps: apply(K.layer_norm, x, w, b, eps=eps),
        lambda x, w, b: x.ndim > 0 and w.shape == b.shape == x.shape[-1:],
        lambda draw, *_: {"eps": 0.1},
    ),
    "bare layer_norm": Rule(lambda x: apply(K.layer_norm, x, eps=0.1), with_axes),
    "reshape": Rule(
        kernel(K.reshape),
        options=lambda draw, x: {"shape": draw(st.sampled_from([(-1,), (1, *x.shape), (*x.shape, 1), x.shape[::-1]]))},
    ),
    "transpose": Rule(
        kernel(K.transpose), with_axes, lambda draw, x: {"axes": tuple(draw(st.permutations(range(x.ndim))))}
    ),
    "broadcast_to": Rule(kernel(K.broadcast_to), options=lambda draw, x: {"shape": (2, *x.shape)}),
    "getitem": Rule(kernel(K.getitem), with_axes, some_index),
    "concatenate": Rule(kernel(K.concatenate), same_shape, lambda draw, a, b: {"axis": an_axis(draw, a)}),
    "stack": Rule(kernel(K.stack), same_shape, lambda draw, a, b: {"axis": an_axis(draw, a)}),
    "matmul": Rule(kernel(K.matmul), lambda a, b: a.ndim > 0 and b.ndim == 2 and a.shape[-1] == b.shape[0]),
    "vector product": Rule(kernel(K.matmul), lambda a, b: b.ndim == 1 and a.shape[-1:] == b.shape),
    "linear": Rule(
        kernel(K.linear),
        lambda x, w, b: x.ndim > 0 and w.ndim == 2 and x.shape[-1] == w.shape[1] and b.shape == w.shape[:1],
    ),
    "linear without bias": Rule(
        kernel(K.linear), lambda x, w: x.ndim > 0 and w.ndim == 2 and x.shape[-1] == w.shape[1]
    ),
    "einsum": Rule(
        kernel(K.einsum),
        with_axes,
        lambda draw, x: {"subscripts": draw(st.sampled_from(["i...->...", "...i->i", "i...->...i", "...i->..."]))},
    ),
    "einsum of two": Rule(
        kernel(K.einsum),
        same_shape,
        lambda draw, a, b: {
            "subscripts": draw(st.sampled_from(["...i,...i->...", "i...,i...->i", "...i,...j->ij", "...,...->..."]))
        },
    ),
    "einsum of three": Rule(
        kernel(K.einsum),
        lambda a, b, c: a.ndim == 2 and b.shape == a.shape and c.shape == a.shape[1:],
        lambda draw, *_: {"subscripts": draw(st.sampled_from(["ij,kj,j->ik", "ij,ij,j->i"]))},
    ),
    "embedding": Rule(
        lambda x, ids, sparse: apply(K.embedding, x, ids, sparse=sparse),
        matrix,
        lambda draw, x: {"ids": some_ids(draw, len(x)), "sparse": draw(st.booleans())},
    ),
    "dropout": Rule(
        lambda x, keep: apply(K.dropout, x, keep, p=0.4), options=lambda draw, x: {"keep": a_mask(draw, x.shape)}
    ),
    "cross_entropy": Rule(
        lambda x, targets, reduction: apply(K.cross_entropy, x, targets, reduction=reduction),
        matrix,
        lambda draw, x: {
            "targets": some_targets(draw, *x.shape),
            "reduction": draw(st.sampled_from(["mean", "sum", "none"])),
        },
    ),
    "linear_cross_entropy": Rule(
        lambda x, w, targets, **options: apply(K.linear_cross_entropy, x, w, targets, **options),
        lambda x, w: x.ndim == w.ndim == 2 and x.shape[1] == w.shape[1],
        lambda draw, x, w: {
            "targets": some_targets(draw, len(x), len(w)),
            "label_smoothing": draw(st.sampled_from([0.0, 0.1])),
            "count": draw(st.sampled_from([None, 3])),
            "chunk": draw(st.sampled_from([1 << 24, 4])),
        },
    ),
    "attention": Rule(
        lambda q, k, v, mask, keep: apply(K.attention, q, k, v, mask, *keep, p=0.4 if keep else 0.0),
        attends,
        lambda draw, q, k, v, mask: {"keep": [a_mask(draw, (q @ k.mT).shape)] * draw(st.booleans())},
    ),
    "causal_attention": Rule(
        lambda q, k, v, keep, **options: apply(K.causal_attention, q, k, v, *keep, p=0.4 if keep else 0.0, **options),
        lambda q, k, v: (
            q.ndim > 1
            and k.ndim == q.ndim
            and k.shape == v.shape
            and k.shape[:-2] == q.shape[:-2]
            and k.shape[-1] == q.shape[-1]
            and k.shape[-2] >= q.shape[-2]
        ),
        lambda draw, q, k, v: {
            "keep": [a_mask(draw, (*q.shape[:-1], k.shape[-2]))] * draw(st.booleans()),
            **some_blocks(draw),
        },
    ),
    "rotary": Rule(
        lambda x, positions: apply(K.rotary, x, positions, base=10.0),
        lambda x: x.ndim > 0 and x.shape[-1] % 2 == 0,
        lambda draw, x: {"positions": np.arange(math.prod(x.shape[:-1])).reshape(x.shape[:-1])},
    ),
    "causal_self_attention": Rule(
        kernel(K.causal_self_attention),
        lambda qkv: qkv.ndim == 3 and qkv.shape[-1] % 3 == 0,
        lambda draw, qkv: {"n_head": qkv.shape[-1] // 3, **some_blocks(draw)},
    ),
    # A whole layer of attention: few values fit its kernel by chance.
    "attention to itself": Rule(
        lambda x: F.scaled_dot_product_attention(x, x * 0.5, x.tanh(), is_causal=True), lambda x: x.ndim > 1
    ),
}

# No kink is within 1e-20, so the complex step sees the branch that was taken. Values that tie are the same value,
# computed in two ways, and have the same gradient.
KINKED = {
    "relu": Rule(kernel(K.relu)),
    "absolute": Rule(kernel(K.absolute)),
    "maximum": Rule(kernel(K.maximum), broadcast),
    "max": Rule(kernel(K.max), options=some_axes),
}


RULES = SMOOTH | KINKED


def test_every_kernel_has_a_rule():
    assert set(K.KERNELS) <= set(RULES)


# ---- programs ------------------------------------------------------------------------------------------------------


class Step(NamedTuple):
    """A rule, the numbers of the values it is applied to, and a constant that its result is multiplied by."""

    name: str
    operands: tuple[int, ...]
    options: dict[str, Any]
    scale: float = 1.0

    def __call__(self, values):
        return RULES[self.name].call(*(values[i] for i in self.operands), **self.options) * self.scale


def operands(rule, pool, first):
    """The ways to complete a list of operands, after the first."""
    others = itertools.product(range(len(pool)), repeat=rule.arity - 1)
    return [(first, *o) for o in others if rule.fits(pool[first], *(pool[i] for i in o))]


@st.composite
def programs(draw, names=tuple(SMOOTH)):
    """A list of steps, and inputs of drawn shapes. Every value made goes into the output."""
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    inputs = [rng.standard_normal(shape) for shape in shapes]
    program, pool = [], [Tensor(x) for x in inputs]
    for _ in range(draw(st.integers(1, 7))):
        first = draw(st.integers(0, len(pool) - 1))
        fitting = {name: ways for name in names if (ways := operands(RULES[name], pool, first))}
        name = draw(st.sampled_from(list(fitting)))
        chosen = draw(st.sampled_from(fitting[name]))
        step = Step(name, chosen, RULES[name].options(draw, *(pool[i] for i in chosen)))
        value = step(pool)
        if 0 < value.numel() <= LARGEST and value.ndim <= 4:
            excess = max(1.0, np.abs(value.data).max() / LIMIT)
            step = step._replace(scale=2.0 ** -math.ceil(math.log2(excess)))
            program.append(step)
            pool.append(step(pool))
    return program, inputs


def run(program, *inputs):
    values = list(inputs)
    for step in program:
        values.append(step(values))
    return apply(K.concatenate, *(v.reshape(-1) for v in values))


def gradients(program, inputs, dtype=np.float64):
    """Output, and the gradients by `grad` and by `backward`, from a fixed cotangent."""
    results = []
    for by_grad in (True, False):
        leaves = [Tensor(x.astype(dtype), requires_grad=True) for x in inputs]
        y = run(program, *leaves)
        v = np.random.default_rng(0).standard_normal(y.shape)
        if by_grad:
            results.append(grad(y, leaves, v))
        else:
            y.backward(v)
            results.append([t.grad for t in leaves])
    return y.data, *results


def distance(arrays, others):
    """Relative, of all elements together."""
    one, other = (np.concatenate([np.reshape(a, -1) for a in group]).astype(np.float64) for group in (arrays, others))
    return np.linalg.norm(one - other) / np.linalg.norm(other)


def check(program, inputs):
    """The properties that every program has."""
    kept = [x.copy() for x in inputs]
    assert gradcheck(lambda *xs: run(program, *xs), inputs)

    y, by_grad, by_backward = gradients(program, inputs)
    again, *_ = gradients(program, inputs)
    assert y.tobytes() == again.tobytes()
    for x, old, g, other in zip(inputs, kept, by_grad, by_backward, strict=True):
        assert g.shape == x.shape
        assert g.dtype == other.dtype == np.float64
        assert g.tobytes() == other.tobytes()
        assert x.tobytes() == old.tobytes()
    return y, by_grad


def check_float32(program, inputs):
    """The same program in float32 stays in float32 and close to float64."""
    inputs = [x.astype(np.float32) for x in inputs]  # both start from the same numbers
    y, grads, _ = gradients(program, inputs)
    y32, grads32, _ = gradients(program, inputs, np.float32)
    assert y32.dtype == np.float32
    assert all(g.dtype == np.float32 for g in grads32)
    assert distance([y32], [y]) <= 1e-3
    assert distance(grads32, grads) <= 1e-3


@settings(max_examples=40)
@given(programs())
def test_any_program_has_the_gradient_of_its_function(program):
    check(*program)
    check_float32(*program)


@pytest.mark.slow
@settings(max_examples=3_000)
@given(programs())
def test_three_thousand_programs_have_the_gradient_of_their_function(program):
    check(*program)
    check_float32(*program)


@settings(max_examples=25)
@given(programs(tuple(RULES)))
def test_programs_with_kinks_have_the_gradient_of_the_branch_taken(program):
    check(*program)
