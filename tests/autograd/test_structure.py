"""Graphs of every shape and arrays of every layout: broadcasting, repeated use, and who owns the memory."""

import inspect
import operator
import sys

import numpy as np
import pytest

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor, apply, grad, no_grad
from tinygrad_llm.gradcheck.cases import BROADCAST_PAIRS, basic_cases


def leaf(x):
    return Tensor(x, requires_grad=True)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


# ---- broadcasting, against loops -----------------------------------------------------------------------------------

PAIRS = [*BROADCAST_PAIRS, ((), (0,)), ((1,), (0, 3)), ((0, 2), (1, 2)), ((2, 1), (2, 0))]
H = 1e-20


def analytic(op):
    """The slopes of a function of two numbers, by a complex step in each."""
    return lambda a, b: (op(a + 1j * H, b).imag / H, op(a, b + 1j * H).imag / H)


# What is tested, the same for two Python numbers, and its two slopes.
BINARY = {
    "add": (operator.add, operator.add, analytic(operator.add)),
    "subtract": (operator.sub, operator.sub, analytic(operator.sub)),
    "multiply": (operator.mul, operator.mul, analytic(operator.mul)),
    "divide": (operator.truediv, operator.truediv, analytic(operator.truediv)),
    "power": (operator.pow, operator.pow, analytic(operator.pow)),
    "maximum": (F.maximum, max, lambda a, b: (float(a > b), float(a < b))),
    "used twice": (lambda a, b: a * b + b * a, lambda a, b: 2 * a * b, lambda a, b: (2 * b, 2 * a)),
}


def by_loops(value, slopes, a, b, g):
    """y, da and db of a broadcast function, element by element: the gradients of all copies of an element are added."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    home_a, home_b = (np.broadcast_to(np.arange(x.size).reshape(x.shape), shape) for x in (a, b))
    y, da, db = np.zeros(shape), np.zeros(a.size), np.zeros(b.size)
    for at in np.ndindex(shape):
        i, j = home_a[at], home_b[at]
        one, other = float(a.flat[i]), float(b.flat[j])
        slope_a, slope_b = slopes(at, one, other)
        y[at] = value(at, one, other)
        da[i] += g[at] * slope_a
        db[j] += g[at] * slope_b
    return y, da.reshape(a.shape), db.reshape(b.shape)


def assert_as_by_loops(fn, value, slopes, a, b):
    g = normal(*np.broadcast_shapes(a.shape, b.shape), seed=5)
    y, da, db = by_loops(value, slopes, a, b, g)
    ta, tb = leaf(a), leaf(b)
    out = fn(ta, tb)
    out.backward(g)
    results = [(out.data, y), (ta.grad, da), (tb.grad, db)]
    # The gradient is the same if the other input is a constant.
    results += [(grad(fn(ta, b), [ta], g)[0], da), (grad(fn(a, tb), [tb], g)[0], db)]
    for found, expected in results:
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-14)


BOTH_ORDERS = [*PAIRS, *((b, a) for a, b in PAIRS)]


@pytest.mark.parametrize("name", BINARY)
def test_a_broadcast_gradient_is_the_sum_over_the_copies(name, for_each):
    fn, value, slopes = BINARY[name]

    def check(pair):
        a, b = (1.5 + np.tanh(normal(*shape, seed=i)) for i, shape in enumerate(pair))
        assert_as_by_loops(fn, lambda _, *ab: value(*ab), lambda _, *ab: slopes(*ab), a, b)

    for_each(BOTH_ORDERS, check)


def test_where_broadcasts_all_three(for_each):
    def check(pair):
        a, b = pair
        full = np.broadcast_shapes(a, b)
        for shape in {full, a, b, (1,) * len(full)}:
            mask = normal(*shape, seed=2) > 0
            place = np.broadcast_to(mask, full)
            assert_as_by_loops(
                lambda x, y, mask=mask: F.where(mask, x, y),
                lambda at, x, y, place=place: x if place[at] else y,
                lambda at, x, y, place=place: (float(place[at]), float(not place[at])),
                normal(*a),
                normal(*b, seed=1),
            )

    for_each(BOTH_ORDERS, check)


def test_a_mask_may_broadcast_the_result():
    a, b = leaf(normal(2)), leaf(normal(1, seed=1))
    mask = np.array([[True, False], [True, True], [False, False]])
    da, db = grad(F.where(mask, a, b), [a, b], np.array([[1.0, 10], [100, 1000], [10000, 100000]]))
    assert da.tolist() == [101, 1000]
    assert db.tolist() == [110010]


# ---- layouts -------------------------------------------------------------------------------------------------------


def read_only(x):
    x = x.copy()
    x.flags.writeable = False
    return x


LAYOUTS = {
    "every other": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "Fortran": np.asfortranarray,
    "backwards": lambda x: np.flip(np.flip(x).copy()),
    "read-only": read_only,
    "axes swapped": lambda x: np.swapaxes(np.swapaxes(x, 0, -1).copy(), 0, -1),
    "inside another": lambda x: np.pad(x, 1)[(slice(1, -1),) * x.ndim],
    "broadcast": lambda x: np.broadcast_to(x[:1], x.shape),  # other values too
}

# Programs with every kernel that has several inputs or moves elements.
PROGRAMS = {
    "elementwise": lambda x, y: (x * y + x / (y * y + 1) - y).tanh() * (x * x + 1).log(),
    "powers": lambda x, y: (x * x + 0.5) ** y + (y * y + 0.5).sqrt(),
    "choices": lambda x, y: F.where(np.arange(4) % 2 == 0, x, y).relu() + x.maximum(y) + abs(x),
    "products": lambda x, y: (x @ y.mT).mT @ F.einsum("...ij,...kj->...ik", x, y),
    "linear": lambda x, y: F.linear(x, y[0], y[0, :, 0]),
    "reductions": lambda x, y: x.sum(0) * y.mean(1, keepdim=True) + x.var(-1, keepdim=True) - y.amax((0, 2)).sum(),
    "normalized": lambda x, y: x.softmax(0) * y.log_softmax(-1) + F.layer_norm(x, (4,), y[0, 0], y[1, 2]),
    "shapes": lambda x, y: F.cat([x.permute(2, 0, 1), F.stack([y[0].T, y[1].T], 1).expand(4, 2, 3)], 1).reshape(8, 6),
    "indices": lambda x, y: x[:, [0, 2, 2], ::-1] * y[..., [3, 3, 0, 1]] + x[1, -1] * y[None, 0, 1:2],
    "embedding": lambda x, y: F.embedding(np.array([[2, 0], [2, 2]]), x[0]) * y[:, :2],
    "attention": lambda x, y: F.scaled_dot_product_attention(x, y, x * y, is_causal=True),
    "loss": lambda x, y: F.cross_entropy(x.reshape(6, 4), np.array([0, 3, 1, 1, -100, 2])) * y,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_gradient_does_not_depend_on_the_layout(program, for_each):
    fn = PROGRAMS[program]
    x, y = normal(2, 3, 4), normal(2, 3, 4, seed=1) / 2
    g = normal(*fn(Tensor(x), Tensor(y)).shape, seed=2)

    def check(layout):
        results = []
        for copy in (lambda a: a, lambda a: np.array(a, order="C")):
            arrays = [copy(LAYOUTS[layout](a)) for a in (x, y, g)]
            before = [a.copy() for a in arrays]
            a, b = map(leaf, arrays[:2])
            fn(a, b).backward(arrays[2])
            results.append((a.grad, b.grad))
            for array, old in zip(arrays, before, strict=True):
                np.testing.assert_array_equal(array, old)
        for found, expected in zip(*results, strict=True):
            assert found.flags.writeable
            np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)

    for_each(LAYOUTS, check)


EMPTY = [name for name in PROGRAMS if name not in ("reductions", "embedding", "loss", "indices", "linear", "shapes")]


@pytest.mark.parametrize("program", EMPTY)
def test_the_gradient_of_no_rows_has_their_shape(program):
    x, y = (leaf(np.zeros((0, 2, 4))) for _ in range(2))
    if program == "normalized":
        fn = lambda x, y: x.softmax(1) * y.log_softmax(-1) + F.layer_norm(x, (4,))  # noqa: E731
    else:
        fn = PROGRAMS[program]
    fn(x, y).sum().backward()
    assert x.grad.shape == (0, 2, 4)
    assert y.grad.shape == (0, 2, 4)


def test_the_gradient_of_a_parameter_is_0_if_there_are_no_rows():
    x, weight, bias, table = (leaf(a) for a in (np.zeros((0, 3)), normal(4, 3), normal(4), normal(5, 3)))
    y = F.linear(x, weight, bias).sum() + F.embedding(np.zeros((2, 0), int), table).sum()
    y = y + table[np.zeros(0, int)].sum() + F.layer_norm(x, (3,), table[0], table[1]).sum() + F.cat([x, x]).sum()
    assert y.item() == 0
    for t, g in zip((x, weight, bias, table), grad(y, [x, weight, bias, table]), strict=True):
        assert g.shape == t.shape
        assert not g.any()


# ---- repeated indices ----------------------------------------------------------------------------------------------

ROWS = [
    np.array([0, 0, 0]),
    np.array([[3, -1], [1, 3]]),
    [2, 2],
    Tensor([1, 1, 0]),
    (np.array([0, 0, 1]), np.array([2, 2, 2])),
    (slice(None), [1, 1]),
    (np.array([0, 0]), slice(0, 2)),
    (None, [3, 3], ..., 0),
]


@pytest.mark.parametrize("index", ROWS, ids=str)
def test_an_element_taken_twice_receives_both_gradients(index):
    x = leaf(normal(4, 3))
    y = x[index]
    g = normal(*y.shape, seed=1)
    parts = index if isinstance(index, tuple) else (index,)
    plain = tuple(p.data if isinstance(p, Tensor) else p for p in parts)
    home = np.arange(12).reshape(4, 3)[plain]
    expected = [sum(g[at] for at in np.ndindex(home.shape) if home[at] == place) for place in range(12)]
    (dx,) = grad(y, [x], g)
    np.testing.assert_allclose(dx.reshape(-1), expected, rtol=1e-14)


def test_a_repetition_of_a_repetition():
    x = leaf(np.array([1.0, 2.0, 3.0]))
    y = x[[0, 0, 1]][[0, 1, 1, 2]][[3, 0, 1, 2, 2]]
    (dx,) = grad(y, [x], np.array([1.0, 10, 100, 1000, 10000]))
    assert dx.tolist() == [11110, 1, 0]


def test_the_same_rows_by_index_by_embedding_and_by_product():
    table, ids = normal(5, 3), np.array([[1, 4, 1], [1, 0, 4]])
    g = normal(2, 3, 3, seed=1)
    one_hot = np.eye(5)[ids]
    routes = [lambda w: w[ids], lambda w: F.embedding(ids, w), lambda w: one_hot @ w]
    found = [grad(route(w), [w], g)[0] for route in routes for w in [leaf(table)]]
    np.testing.assert_allclose(found[0], found[2], rtol=1e-13)
    np.testing.assert_allclose(found[1], found[2], rtol=1e-13)


# ---- one value, many uses ------------------------------------------------------------------------------------------

# Functions that are given the same leaf in every place.
TWICE = {
    "x + x": (operator.add, 2),
    "x - x": (operator.sub, 2),
    "x * x": (operator.mul, 2),
    "x / x": (operator.truediv, 2),
    "x @ x": (operator.matmul, 2),
    "exp(x) ** x": (lambda a, b: a.exp() ** b, 2),
    "maximum": (F.maximum, 2),
    "where": (lambda a, b: F.where(np.eye(3, dtype=bool), a, b), 2),
    "cat": (lambda a, b: F.cat([a, b], 1), 2),
    "stack": (lambda a, b, c: F.stack([a, b, c], 1), 3),
    "linear": (lambda a, b, c: F.linear(a, b, c[0]), 3),
    "layer_norm": (lambda a, b, c: F.layer_norm(a, (3,), b[0], c[1]), 3),
    "attention": (lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), 3),
    "einsum": (lambda a, b, c: F.einsum("ij,jk,ki->i", a, b, c), 3),
    "a sum of unequal paths": (lambda a, b, c: (a.tanh() + b).softmax(-1) + c, 3),
}


@pytest.mark.parametrize("name", TWICE)
def test_one_leaf_in_several_places_receives_the_sum_over_the_places(name):
    fn, places = TWICE[name]
    x = normal(3, 3)
    copies = [leaf(x.copy()) for _ in range(places)]
    y = fn(*copies)
    g = normal(*y.shape, seed=1)
    expected = np.sum(grad(y, copies, g), axis=0)
    if name == "maximum":  # with two leaves as with one: half to each
        np.testing.assert_allclose(expected, g, rtol=1e-15)
    for upstream in (lambda x: x, lambda x: x * 1.0, lambda x: x.reshape(9).reshape(3, 3)):
        one = leaf(x)
        shared = upstream(one)
        (dx,) = grad(fn(*[shared] * places), [one], g)
        np.testing.assert_allclose(dx, expected, rtol=1e-13, atol=1e-14)


def added_one_by_one(values):
    total = values[0]
    for v in values[1:]:
        total = total + v
    return total


HUNDRED = {
    "a running sum": added_one_by_one,
    "a running sum, the other way round": lambda values: added_one_by_one(values[::-1]),
    "stacked": lambda values: F.stack(values).sum(0),
    "concatenated": lambda values: F.cat([v.reshape(1, 2) for v in values]).sum(0),
    "in pairs": lambda values: added_one_by_one([a + b for a, b in zip(values[::2], values[1::2], strict=True)]),
}


@pytest.mark.parametrize("gather", HUNDRED)
def test_a_value_used_a_hundred_times(gather):
    for computed in (False, True):
        x = leaf(np.array([0.5, -2.0]))
        v = x * 2 if computed else x
        y = HUNDRED[gather]([v * k for k in range(1, 100)] + [v])
        seed = np.array([1.0, -1.0])
        (dx,) = grad(y, [x], seed)
        uses = (sum(range(1, 100)) + 1) * (1 + computed)
        assert dx.tolist() == [uses, -uses]
        assert seed.tolist() == [1, -1]


def test_a_product_of_one_value_a_hundred_times():
    x = leaf(np.array(1.01))
    y = x
    for _ in range(99):
        y = y * x
    np.testing.assert_allclose(grad(y, [x])[0], 100 * 1.01**99, rtol=1e-13)


def test_diamonds_within_diamonds():
    """The gradient counts the paths: two values, each made from both below it, have the numbers of Fibonacci."""
    x = leaf(np.array(1.0))
    left, right = x, x * 1
    paths = [1, 1]
    for _ in range(20):
        left, right = left + right, left
        paths = [sum(paths), paths[0]]
    assert grad(left, [x])[0].item() == paths[0] == 17711


# ---- memory and depth of a walk --------------------------------------------------------------------------------------


def test_the_walk_holds_a_few_gradients_at_a_time(peak_memory):
    """Along 300 links of 80 kB each, backward needs memory for a few: it frees what it has used."""
    size = 10_000

    def chain(links):
        y = leaf(np.ones(size))
        for _ in range(links):
            y = y.tanh()
        return y.sum()

    def peak(links):
        chains = [chain(links), chain(links)]  # one for each measurement
        return peak_memory(lambda: chains.pop().backward())

    few = peak(30)
    assert few <= 8 * 8 * size
    assert peak(300) <= few + 8 * size


def test_no_step_of_the_engine_recurses():
    """Build, walk and free a graph that is far deeper than the rest of the call stack."""
    x = leaf(np.array(1.0))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 60)
    try:
        for go_back in (True, False):
            y = x
            for _ in range(2_000):
                y = y * 1.0 + x * 0.0
            if go_back:
                y.backward()
            del y
    finally:
        sys.setrecursionlimit(limit)
    assert x.grad.item() == 1


# ---- backward twice ------------------------------------------------------------------------------------------------


def leaves_of(arrays):
    return [leaf(a) if a.dtype.kind == "f" else a for a in arrays]


def test_a_second_backward_names_its_operation(for_each, kernel_call):
    def check(case):
        kernel, arrays, options = kernel_call(case)
        y = apply(kernel, *leaves_of(arrays), **options)
        g = np.ones(y.shape)
        y.backward(g)
        for again in (lambda: y.backward(g), lambda: grad(y, [], g), lambda: (y * 2).sum().backward()):
            with pytest.raises(RuntimeError, match=f"backward through {case.covers} a second time"):
                again()

    for_each({case.covers: case for case in basic_cases()}.values(), check)


# ---- who owns the memory --------------------------------------------------------------------------------------------


def assert_all_apart(gradients, others):
    """No gradient shares memory with another or with anything else, and each can be written to alone."""
    for i, g in enumerate(gradients):
        assert g.flags.writeable
        for other in [*gradients[:i], *others]:
            assert not np.shares_memory(g, other)
    before = [np.copy(a) for a in (*gradients, *others)]
    for i, g in enumerate(gradients):
        g[...] = np.nan
        for array, old in zip((*gradients, *others), before, strict=True):
            if array is not g:
                np.testing.assert_array_equal(array, old)
        g[...] = before[i]


WAYS_BACK = [
    ("backward", lambda y: y),
    ("backward", lambda y: y.sum()),
    ("grad", lambda y: y),
    ("grad", lambda y: y.reshape(-1)),
]


def test_gradients_of_every_kernel_own_their_memory(for_each, kernel_call):
    def check(case):
        kernel, arrays, options = kernel_call(case)
        for through, behind in WAYS_BACK:
            leaves = leaves_of(arrays)
            wanted = [t for t in leaves if isinstance(t, Tensor)]
            y = apply(kernel, *leaves, **options)
            out = behind(y)
            seed = normal(*out.shape)
            if through == "backward":
                out.backward(seed)
                found = [t.grad for t in wanted]
            else:
                found = grad(out, [*wanted, y, out], seed)
            assert_all_apart(found, [*arrays, y.data, out.data, seed])

    for_each(basic_cases(), check)


GRAPHS = {
    "add": lambda a, b: a + b,
    "add the same twice": lambda a, b: (a + a) + (b + b),
    "add the same thrice": lambda a, b: a + a + a + b,
    "the sum of a sum": lambda a, b: (a + b) + (b + a),
    "sums": lambda a, b: a.sum() + b.sum() + (a + b).sum(),
    "the same reshaped twice": lambda a, b: a.reshape(4) + a.reshape(4) + b.reshape(4),
    "transposed": lambda a, b: a.T + b.T + a.T,
    "a symmetric sum": lambda a, b: a + a.T + b,
    "concatenated with itself": lambda a, b: F.cat([a, b, a]),
    "concatenated along 1": lambda a, b: F.cat([a, b], 1),
    "concatenated with its sum": lambda a, b: F.cat([a, a + b]),
    "stacked with itself": lambda a, b: F.stack([a, a, b], 2),
    "unstacked": lambda a, b: F.stack(list(F.stack([a, b])), 1),
    "broadcast": lambda a, b: a.expand(3, 2, 2) + b,
    "broadcast twice": lambda a, b: (a[:1] + b).expand(2, 2, 2) + a.expand(2, 2, 2),
    "indexed": lambda a, b: a[0] + b[:, 1] + a[1],
    "indexed whole": lambda a, b: a[:] + b[...] + a[None][0],
    "subtracted": lambda a, b: a - b - a,
    "where": lambda a, b: F.where(np.eye(2, dtype=bool), a, b) + a,
    "dropout of nothing": lambda a, b: F.dropout(a, 0.0) + b,
    "einsum that moves axes": lambda a, b: F.einsum("ij->ji", a) + F.einsum("ij,ij->ij", a, b),
    "linear with a bias": lambda a, b: F.linear(a, b, a[0]) + a,
    "product": lambda a, b: a * b,
    "a part of a broadcast sum": lambda a, b: (a + b).expand(3, 2, 2)[0],
    "the one of the other": lambda a, b: (a + 0) + (b + (a + 0)),
    "a only, then both": lambda a, b: (a.reshape(4) + b.reshape(4)).reshape(2, 2) + a,
}


SEEDS = {
    "own": lambda shape: normal(*shape),
    "broadcast": lambda shape: np.broadcast_to(1.5, shape),
    "read-only": lambda shape: read_only(normal(*shape)),
}


@pytest.mark.parametrize("seeded", SEEDS)
def test_gradients_alias_nothing_in_any_graph(seeded, for_each):
    def check(graph):
        fn = GRAPHS[graph]
        a, b = leaf(normal(2, 2)), leaf(normal(2, 2, seed=1))
        with no_grad():
            seed = SEEDS[seeded](fn(a, b).shape)
        kept = seed.copy()
        y, z = fn(a, b), fn(a, b)
        y.backward(seed)
        found = grad(z, [a, b, z, a, b], seed)  # each named twice, and the output itself
        assert_all_apart([a.grad, b.grad, *found], [a.data, b.data, y.data, z.data, seed])
        np.testing.assert_array_equal(found[2], seed)
        np.testing.assert_array_equal(found[0], a.grad)
        first = a.grad
        fn(a, b).backward(seed)  # a second call adds to the same memory
        assert a.grad is first
        np.testing.assert_allclose(a.grad, 2 * found[0], rtol=1e-14)
        np.testing.assert_array_equal(seed, kept)

    for_each(GRAPHS, check)


def test_gradients_of_computed_values_own_their_memory():
    x = leaf(normal(3))
    values = [x, x + 0, x.reshape(3)]
    values += [values[1] + values[2], values[1][::-1]]
    values.append(values[3] + values[4])
    seed = np.ones(3)
    assert_all_apart(grad(values[-1], values, seed), [*(v.data for v in values[:2]), seed])


def test_one_seed_serves_two_graphs():
    a, b, seed = leaf(normal(3)), leaf(normal(3, seed=1)), np.ones(3)
    (a + 0).backward(seed)
    (b + 0).backward(seed)
    b.backward(seed)
    assert_all_apart([a.grad, b.grad], [seed, a.data, b.data])
    assert a.grad.tolist() == [1, 1, 1]
    assert b.grad.tolist() == [2, 2, 2]
