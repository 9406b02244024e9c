"""Each line of the contract in kernels/contract.py, for every kernel, on the inputs of the gradcheck table."""

import numpy as np
import pytest

from tinygrad_llm import Tensor, functional, grad
from tinygrad_llm import kernels as K
from tinygrad_llm.gradcheck import uncovered
from tinygrad_llm.gradcheck.cases import basic_cases

CASES = basic_cases()


def is_float(x):
    return x.dtype.kind == "f"


def cast(arrays, dtype):
    """Floats in this dtype, integers and booleans as they are."""
    return [x.astype(dtype) if is_float(x) else x for x in arrays]


def cotangent(y, dtype=None):
    return np.asarray(np.random.default_rng(7).standard_normal(np.shape(y))).astype(dtype or np.asarray(y).dtype)


def relative(a, b):
    """The L2 distance of a from b, in units of b's length."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.linalg.norm(a - b) / max(np.linalg.norm(b), 1e-3)


def kept(vjp):
    """Every array and Tensor that a vjp's closure, or a closure in it, holds."""
    for cell in getattr(vjp, "__closure__", None) or ():
        thing = cell.cell_contents
        for item in thing if isinstance(thing, tuple | list) else [thing]:
            if isinstance(item, np.ndarray | Tensor):
                yield item
            elif callable(item):
                yield from kept(item)


@pytest.fixture
def for_each_case(for_each, kernel_call):
    """A function: call check(kernel, arrays, options) for each case of the table that is chosen."""

    def run(check, chosen=lambda case: True):
        for_each(filter(chosen, CASES), lambda case: check(*kernel_call(case)))

    return run


# ---- 1: a kernel never writes to its inputs or to g ----------------------------------------------------------------


def test_inputs_and_g_are_never_written_to(for_each_case):
    def check(kernel, arrays, options):
        before = [x.copy() for x in arrays]
        for x in arrays:
            x.flags.writeable = False
        y, vjp = kernel(*arrays, **options)
        g = cotangent(y)
        g_before = g.copy()
        g.flags.writeable = False
        vjp(g)
        for x, old in zip([*arrays, g], [*before, g_before], strict=True):
            np.testing.assert_array_equal(x, old)

    for_each_case(check)


# ---- 2: dtypes -----------------------------------------------------------------------------------------------------


def test_float32_gives_float32_close_to_float64(for_each_case):
    def check(kernel, arrays, options):
        arrays = cast(arrays, np.float32)  # both start from the same numbers
        y32, vjp32 = kernel(*arrays, **options)
        y64, vjp64 = kernel(*cast(arrays, np.float64), **options)
        assert (np.asarray(y32).dtype, np.asarray(y64).dtype) == (np.float32, np.float64)
        g = cotangent(y32)
        assert relative(y32, y64) <= 1e-5
        for d32, d64 in zip(vjp32(g), vjp64(g.astype(np.float64)), strict=True):
            if d64 is not None:
                assert (np.asarray(d32).dtype, np.asarray(d64).dtype) == (np.float32, np.float64)
                assert relative(d32, d64) <= 1e-5

    for_each_case(check)


def test_float16_is_computed_in_float32_and_rounded_once(for_each_case):
    def check(kernel, arrays, options):
        half = cast(arrays, np.float16)
        y16, vjp16 = kernel(*half, **options)
        y32, vjp32 = kernel(*cast(half, np.float32), **options)
        assert np.asarray(y16).dtype == np.float16
        np.testing.assert_array_equal(y16, np.asarray(y32).astype(np.float16))
        g = cotangent(y16)
        for d16, d32 in zip(vjp16(g), vjp32(g.astype(np.float32)), strict=True):
            if d32 is not None:
                assert np.asarray(d16).dtype == np.float16
                np.testing.assert_array_equal(d16, np.asarray(d32).astype(np.float16))

    for_each_case(check)


def test_float16_next_to_float32_gives_float32_and_each_gradient_its_inputs_dtype():
    a, b = np.full(3, 0.1, np.float16), np.full(3, 0.1, np.float32)
    y, vjp = K.multiply(a, b)
    assert (y.dtype, *(d.dtype for d in vjp(y))) == (np.float32, np.float16, np.float32)


def test_sums_counts_and_squares_of_float16_have_room_for_what_they_need():
    many = Tensor(np.ones(70000, np.float16), requires_grad=True)  # 70000 is infinite in float16
    assert grad(many.mean(), [many])[0][0] == np.float16(1 / 70000)
    assert many.mean().item() == 1
    assert grad(many.expand(1, -1).mean(0).mean(), [many])[0][0] == np.float16(1 / 70000)
    wide = Tensor(np.array([300.0, -300.0], np.float16))  # 300² is infinite in float16
    assert functional.layer_norm(wide, 2).tolist() == [1, -1]
    assert Tensor(np.full(4096, 1e-4, np.float16)).sum().item() == pytest.approx(0.4096, rel=1e-3)


ARITHMETIC = {"add", "subtract", "multiply", "negative", "power", "relu", "absolute", "maximum", "where"}
MOVES = {"reshape", "transpose", "broadcast_to", "getitem", "concatenate", "stack", "embedding"}
STAY_INTEGERS = ARITHMETIC | MOVES | {"cumsum", "sum", "max", "matmul", "einsum", "linear"}


@pytest.mark.parametrize("integer", [np.uint8, np.int8, np.int64, bool])
def test_integers_become_float32_in_an_analytic_kernel(integer, for_each_case):
    def check(kernel, arrays, options):
        chosen = [is_float(x) and (kernel.__name__, i) != ("attention", 3) for i, x in enumerate(arrays)]
        whole = [(x % 5 + 1).astype(integer) if it else x for x, it in zip(arrays, chosen, strict=True)]
        floats = [x.astype(np.float32) if it or is_float(x) else x for x, it in zip(whole, chosen, strict=True)]
        whole = cast(whole, np.float32)
        y, vjp = kernel(*whole, **options)
        expected, vjp32 = kernel(*floats, **options)
        assert np.asarray(y).dtype == np.float32
        np.testing.assert_array_equal(y, expected)
        for d, d32 in zip(vjp(np.ones_like(y)), vjp32(np.ones_like(y)), strict=True):
            np.testing.assert_array_equal(d, d32)

    for_each_case(check, lambda case: case.covers not in STAY_INTEGERS)


def test_integers_stay_integers_in_the_other_kernels(for_each_case):
    def check(kernel, arrays, options):
        y, _ = kernel(*((x % 5 + 1).astype(np.uint8) if is_float(x) else x for x in arrays), **options)
        assert np.asarray(y).dtype.kind in "iu"

    for_each_case(check, lambda case: case.covers in STAY_INTEGERS)


BINARY = ["add", "subtract", "multiply", "divide", "power", "maximum"]
WITH_AN_INTEGER = [
    *((name, [(3,), (3,)], {}) for name in BINARY),
    ("matmul", [(2, 3), (3, 2)], {}),
    ("linear", [(2, 3), (4, 3)], {}),
    ("einsum", [(2, 3), (3, 4)], {"subscripts": "ij,jk->ik"}),
    ("concatenate", [(2, 3), (2, 3)], {}),
    ("stack", [(2, 3), (2, 3)], {}),
    ("attention", [(2, 3), (2, 3), (2, 3)], {}),
    ("linear_cross_entropy", [(3, 2), (3, 2), np.array([0, 1, 2])], {}),
]


@pytest.mark.parametrize("integer", [np.int64, bool])
def test_an_integer_operand_takes_the_dtype_of_the_float_one(integer, for_each):
    def check(case):
        name, inputs, options = case
        kernel, rng = K.KERNELS[name], np.random.default_rng(0)
        drawn = [rng.integers(1, 2 if integer is bool else 4, x).astype(np.float32) if isinstance(x, tuple) else x
                 for x in inputs]  # fmt: skip
        expected = kernel(*cast(drawn, np.float64), **options)[0]
        for at in [i for i, x in enumerate(drawn) if is_float(x)]:
            y, vjp = kernel(*drawn[:at], drawn[at].astype(integer), *drawn[at + 1 :], **options)
            assert y.dtype == np.float32
            np.testing.assert_allclose(y, expected, rtol=1e-6)
            assert {d.dtype for d in vjp(np.ones_like(y)) if d is not None} == {np.dtype(np.float32)}

    for_each(WITH_AN_INTEGER, check)


# ---- 3: one gradient per array input -------------------------------------------------------------------------------


def test_each_input_gets_one_gradient_of_its_shape(for_each_case):
    def check(kernel, arrays, options):
        y, vjp = kernel(*arrays, **options)
        grads = vjp(cotangent(y))
        assert len(grads) == len(arrays)
        for x, d in zip(arrays, grads, strict=True):
            if is_float(x):
                assert np.shape(d) == x.shape
            else:
                assert d is None

    for_each_case(check)


# ---- 4: what a closure keeps ---------------------------------------------------------------------------------------


def test_a_closure_keeps_few_arrays_and_no_tensor(for_each_case):
    """Besides its inputs and its output, a kernel keeps no more numbers than the largest of these holds.

    Attention keeps its (T, T) weights as well, and the head with its loss has both gradients ready.
    """

    def check(kernel, arrays, options):
        y, vjp = kernel(*arrays, **options)
        assert not any(isinstance(item, Tensor) for item in kept(vjp))
        own = {id(a): a for a in kept(vjp) if not any(np.may_share_memory(a, b) for b in (*arrays, np.asarray(y)))}
        largest = max([np.asarray(y).size, *(a.size for a in arrays)])
        rows = sum(a.size for a in own.values() if a.size > largest / 4)
        if kernel.__name__ == "linear_cross_entropy":
            assert rows <= sum(x.size for x in arrays if is_float(x))
        elif "attention" not in kernel.__name__:
            assert rows <= largest * (2 if kernel.__name__ == "cross_entropy" else 1)

    for_each_case(check)


# ---- 5: complex input (that the Hessian is symmetric: tests/gradcheck/test_second_order.py) ------------------------


def test_complex_input_agrees_with_real_input(for_each_case):
    """One input complex at a time, as in a gradient check, and all of them."""

    def check(kernel, arrays, options):
        y, vjp = kernel(*arrays, **options)
        g = cotangent(y)
        grads = vjp(g)
        floats = [i for i, x in enumerate(arrays) if is_float(x)]
        for chosen in [*([i] for i in floats), floats]:
            lifted = [x.astype(complex) if i in chosen else x for i, x in enumerate(arrays)]
            z, vjp = kernel(*lifted, **options)
            assert np.iscomplexobj(z)
            np.testing.assert_allclose(z.real, y, rtol=1e-13, atol=1e-13)
            for d, expected in zip(vjp(g.astype(complex)), grads, strict=True):
                if expected is None:
                    assert d is None
                else:
                    np.testing.assert_allclose(np.asarray(d).real, expected, rtol=1e-12, atol=1e-13)

    for_each_case(check)


# ---- 6: the memory of a gradient -----------------------------------------------------------------------------------


def test_a_gradient_is_new_memory_or_a_view_of_g(for_each_case):
    def check(kernel, arrays, options):
        y, vjp = kernel(*arrays, **options)
        g = cotangent(y)
        grads = [np.asarray(d) for d in vjp(g) if d is not None]
        for d in grads:
            assert not any(np.shares_memory(d, x) for x in [*arrays, np.asarray(y)])
        own = [d for d in grads if not np.shares_memory(d, g)]
        for i, d in enumerate(own):
            assert not any(np.shares_memory(d, other) for other in own[:i])

    for_each_case(check)


# ---- 7: needs ------------------------------------------------------------------------------------------------------

PRODUCTS = {"multiply", "divide", "matmul", "linear"}
IN_FORWARD = {"gelu", "linear_cross_entropy"}  # kernels that compute their gradients in forward


def takes_needs(case):
    return "needs" in (K.KERNELS[case.covers].__kwdefaults__ or {})


def test_a_vjp_that_is_called_again_returns_the_same(for_each_case):
    def check(kernel, arrays, options):
        y, vjp = kernel(*arrays, **options)
        g = cotangent(y)
        first = [None if d is None else np.array(d) for d in vjp(g)]  # copies
        for one, other in zip(first, vjp(g), strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                np.testing.assert_array_equal(one, np.asarray(other))

    for_each_case(check)


def test_needs_is_taken_by_products_powers_and_kernels_that_work_ahead():
    assert {case.covers for case in CASES if takes_needs(case)} == PRODUCTS | IN_FORWARD | {"power"}


def test_needs_leaves_out_the_gradients_that_are_not_wanted(for_each_case):
    def check(kernel, arrays, options):
        y, vjp = kernel(*arrays, **options)
        everything = vjp(cotangent(y))
        for unwanted in range(len(arrays)):
            needs = tuple(i != unwanted for i in range(len(arrays)))
            y, vjp = kernel(*arrays, **options, needs=needs)
            for i, (d, expected) in enumerate(zip(vjp(cotangent(y)), everything, strict=True)):
                if i == unwanted:
                    assert d is None
                elif expected is not None:
                    np.testing.assert_array_equal(d, expected)

    for_each_case(check, takes_needs)


def test_gradients_computed_ahead_are_computed_only_if_needed(for_each_case):
    def check(kernel, arrays, options):
        y, vjp = kernel(*arrays, **options, needs=(False,) * len(arrays))
        assert list(kept(vjp)) == []
        assert vjp(np.ones_like(y)) == (None,) * len(arrays)
        np.testing.assert_array_equal(y, kernel(*arrays, **options)[0])

    for_each_case(check, lambda case: case.covers in IN_FORWARD)


def test_a_product_does_not_keep_the_factor_that_is_not_needed(for_each_case):
    """The first gradient takes the other factor alone, and so does the second, except of a quotient."""

    def check(kernel, arrays, options):
        for wanted, spare in ((0, 0),) if kernel.__name__ == "divide" else ((0, 0), (1, 1)):
            needs = tuple(i == wanted for i in range(len(arrays)))
            _, vjp = kernel(*arrays, **options, needs=needs)
            assert not any(np.shares_memory(array, arrays[spare]) for array in kept(vjp))

    for_each_case(check, lambda case: case.covers in PRODUCTS)


# ---- layouts, 0-d and zero-size arrays -----------------------------------------------------------------------------

LAYOUTS = {
    "Fortran": np.asfortranarray,
    "every other": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: np.flip(np.flip(x).copy()),
}


def test_memory_layouts_make_no_difference(for_each_case):
    def check(kernel, arrays, options):
        y, vjp = kernel(*arrays, **options)
        g = cotangent(y)
        grads = vjp(g)
        for layout in LAYOUTS.values():

            def relaid(x, layout=layout):
                return layout(x) if x.ndim else x

            y2, vjp2 = kernel(*map(relaid, arrays), **options)
            np.testing.assert_allclose(y2, y, rtol=1e-13, atol=1e-14)
            for d2, d in zip(vjp2(relaid(g)), grads, strict=True):
                if d is not None:
                    np.testing.assert_allclose(d2, d, rtol=1e-12, atol=1e-14)

    for_each_case(check)


def test_a_broadcast_g_gives_the_gradients_of_an_ordinary_g(for_each_case):
    """`sum` hands its own input's vjp a read-only view with strides of 0."""

    def check(kernel, arrays, options):
        y, vjp = kernel(*arrays, **options)
        grads = vjp(np.full(np.shape(y), 0.7))
        y, vjp = kernel(*arrays, **options)
        for d, expected in zip(vjp(np.broadcast_to(0.7, np.shape(y))), grads, strict=True):
            if expected is not None:
                np.testing.assert_allclose(d, expected, rtol=1e-13, atol=1e-14)

    for_each_case(check)


NO_IDS = np.zeros(0, np.int64)
UNARY = ["negative", "exp", "log", "sqrt", "tanh", "sigmoid", "relu", "gelu", "absolute", "erf", "softplus"]
SMALL = [
    *((name, [shape], {}) for name in [*UNARY, "sum"] for shape in ((), (0,), (2, 0, 3))),
    *(("reshape", [shape], {"shape": (1, *shape)}) for shape in ((), (0,), (2, 0, 3))),
    *((name, shapes, {}) for name in BINARY for shapes in ([(), ()], [(), (0, 3)], [(0, 3), (1,)], [(0, 1), (1, 3)])),
    *((name, [()], {}) for name in ("mean", "max", "var", "norm", "logsumexp", "transpose")),
    *((name, [(0, 3)], {"axis": -1}) for name in ("mean", "max", "var", "norm", "logsumexp", "softmax", "log_softmax")),
    ("cumsum", [(0, 3)], {"axis": -1}),
    ("sum", [(0, 3)], {"axis": 0}),
    ("norm", [(0, 3)], {"axis": 0}),
    ("cumsum", [(0, 3)], {"axis": 0}),
    ("transpose", [(0, 3)], {}),
    ("broadcast_to", [()], {"shape": (0, 2)}),
    ("broadcast_to", [(1, 3)], {"shape": (0, 3)}),
    ("getitem", [(4, 3)], {"index": slice(2, 2)}),
    ("getitem", [(4, 3)], {"index": NO_IDS}),
    ("getitem", [(3,)], {"index": 1}),
    ("getitem", [()], {"index": ()}),
    ("getitem", [()], {"index": None}),
    ("concatenate", [(0, 3), (2, 3)], {}),
    ("stack", [(), ()], {}),
    ("stack", [(0, 3), (0, 3)], {"axis": 1}),
    ("where", [np.array(True), (), ()], {}),
    ("where", [np.zeros((0, 1), bool), (3,), ()], {}),
    ("matmul", [(0, 3), (3, 2)], {}),
    ("matmul", [(2, 0), (0, 3)], {}),
    ("einsum", [(0, 3), (3, 2)], {"subscripts": "ij,jk->ik"}),
    ("einsum", [(), (2,)], {"subscripts": ",i->i"}),
    ("linear", [(0, 3), (4, 3), (4,)], {}),
    ("linear", [(2, 0, 3), (4, 3)], {}),
    ("embedding", [(5, 3), NO_IDS], {}),
    ("embedding", [(5, 3), NO_IDS], {"sparse": True}),
    ("rotary", [(0, 4), NO_IDS], {}),
    ("rotary", [(2,), np.array(3)], {}),
    ("layer_norm", [(0, 3), (3,), (3,)], {}),
    ("dropout", [(), np.array(True)], {"p": 0.5}),
    ("attention", [(0, 4, 3), (0, 2, 3), (0, 2, 5)], {}),
    ("attention", [(2, 3), (0, 3), (0, 5)], {}),
    ("attention", [(0, 3), (2, 3), (2, 5), (0, 1)], {}),
    ("causal_attention", [(0, 4, 3), (0, 4, 3), (0, 4, 3)], {}),
    ("causal_attention", [(2, 1, 1), (2, 1, 1), (2, 1, 1)], {}),
    ("causal_attention", [(0, 2), (3, 2), (3, 2)], {}),
    ("causal_attention", [(0, 2), (0, 2), (0, 2)], {"recompute": True}),
    ("causal_self_attention", [(0, 4, 6)], {"n_head": 2}),
    ("causal_self_attention", [(2, 1, 6)], {"n_head": 2, "recompute": True}),
    ("causal_self_attention", [(2, 0, 6)], {"n_head": 2}),
    ("cross_entropy", [(0, 3), NO_IDS], {"reduction": "sum"}),
    ("cross_entropy", [(0, 3), NO_IDS], {"reduction": "none"}),
    ("linear_cross_entropy", [(0, 3), (4, 3), NO_IDS], {"count": 1}),
    ("linear_cross_entropy", [(1, 1), (1, 1), np.zeros(1, np.int64)], {}),
]  # fmt: skip


def test_arrays_without_elements_or_axes(for_each):
    def check(case):
        name, inputs, options = case
        arrays = [np.full(x, 0.7, np.float32) if isinstance(x, tuple) else x for x in inputs]
        y, vjp = K.KERNELS[name](*arrays, **options)
        assert np.asarray(y).dtype == np.float32
        for x, d in zip(arrays, vjp(np.ones_like(y)), strict=True):
            assert (d is None) if not is_float(x) else (d.shape, d.dtype) == (x.shape, np.float32)
            assert d is None or np.isfinite(d).all()

    assert {name for name, *_ in SMALL} == set(K.KERNELS)
    for_each(SMALL, check)


# ---- the table -----------------------------------------------------------------------------------------------------


def test_every_kernel_has_a_case(monkeypatch):
    assert {case.covers for case in CASES} == set(K.KERNELS)
    monkeypatch.setitem(K.KERNELS, "unproven", K.tanh)
    assert uncovered() == ["unproven"]


def test_every_kernel_is_offered_by_the_package():
    assert {name: getattr(K, name) for name in K.KERNELS if name in K.__all__} == K.KERNELS
