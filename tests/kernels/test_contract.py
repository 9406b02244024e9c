"""Each line of the contract in kernels/contract.py, for every kernel, on the inputs of the gradcheck table."""

import numpy as np
import pytest

from tinygrad_llm import Tensor
from tinygrad_llm import kernels as K
from tinygrad_llm.gradcheck import uncovered
from tinygrad_llm.gradcheck.cases import basic_cases

CASES = basic_cases()
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
every_analytic_case = pytest.mark.parametrize(
    "case", [case for case in CASES if case.method == "complex"], ids=lambda case: case.name
)


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


# ---- line 1: nothing is written to ---------------------------------------------------------------------------------


@every_case
def test_inputs_and_g_are_never_written_to(case, kernel_call):
    kernel, arrays, options = kernel_call(case)
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


# ---- line 2: the dtype stays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@every_case
def test_the_dtype_stays(case, dtype, kernel_call):
    kernel, arrays, options = kernel_call(case)
    y, vjp = kernel(*cast(arrays, dtype), **options)
    assert np.asarray(y).dtype == dtype
    for d in vjp(cotangent(y)):
        assert d is None or np.asarray(d).dtype == dtype


@every_case
def test_float32_agrees_with_float64(case, kernel_call):
    kernel, arrays, options = kernel_call(case)
    arrays = cast(arrays, np.float32)  # both start from the same numbers
    y32, vjp32 = kernel(*arrays, **options)
    y64, vjp64 = kernel(*cast(arrays, np.float64), **options)
    g = cotangent(y32)
    assert relative(y32, y64) <= 1e-5
    for d32, d64 in zip(vjp32(g), vjp64(g.astype(np.float64)), strict=True):
        if d64 is not None:
            assert relative(d32, d64) <= 1e-5


# ---- line 3: one gradient per array input --------------------------------------------------------------------------


@every_case
def test_one_gradient_per_input_of_its_shape(case, kernel_call):
    kernel, arrays, options = kernel_call(case)
    y, vjp = kernel(*arrays, **options)
    grads = vjp(cotangent(y))
    assert len(grads) == len(arrays)
    for x, d in zip(arrays, grads, strict=True):
        if is_float(x):
            assert np.shape(d) == x.shape
        else:
            assert d is None


WITH_NEEDS = [case for case in CASES if "needs" in (K.KERNELS[case.covers].__kwdefaults__ or {})]


@pytest.mark.parametrize("case", WITH_NEEDS, ids=lambda case: case.name)
def test_needs_leaves_out_what_is_not_wanted(case, kernel_call):
    kernel, arrays, options = kernel_call(case)
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


PRODUCTS = {"multiply", "divide", "matmul", "linear"}
IN_FORWARD = {"gelu", "linear_cross_entropy"}  # whose forward makes what backward hands out


def test_products_powers_and_what_works_ahead_take_needs():
    assert {case.covers for case in WITH_NEEDS} == PRODUCTS | IN_FORWARD | {"power"}


@pytest.mark.parametrize("case", [c for c in WITH_NEEDS if c.covers in IN_FORWARD], ids=lambda case: case.name)
def test_what_is_made_ahead_is_made_only_if_needed(case, kernel_call):
    kernel, arrays, options = kernel_call(case)
    y, vjp = kernel(*arrays, **options, needs=(False,) * len(arrays))
    assert list(kept(vjp)) == []
    assert vjp(np.ones_like(y)) == (None,) * len(arrays)
    np.testing.assert_array_equal(y, kernel(*arrays, **options)[0])


@pytest.mark.parametrize("case", [c for c in WITH_NEEDS if c.covers in PRODUCTS], ids=lambda case: case.name)
def test_what_is_not_needed_is_not_kept(case, kernel_call):
    """The first gradient of a product takes the other factor alone, and so does the second (but of a quotient)."""
    kernel, arrays, options = kernel_call(case)
    for wanted, spare in ((0, 0),) if case.covers == "divide" else ((0, 0), (1, 1)):
        needs = tuple(i == wanted for i in range(len(arrays)))
        _, vjp = kernel(*arrays, **options, needs=needs)
        assert not any(np.shares_memory(array, arrays[spare]) for array in kept(vjp))


# ---- line 5: complex input -----------------------------------------------------------------------------------------


@every_case
def test_complex_input_agrees_with_real_input(case, kernel_call):
    """One input complex at a time, as the checker has it, and all of them."""
    kernel, arrays, options = kernel_call(case)
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


@every_analytic_case
def test_the_hessian_is_symmetric(case, kernel_call):
    """Im(backward at x + i·h·u) / h is H u; and u·Hv = v·Hu, unless backward conjugates or drops an imaginary part."""
    kernel, arrays, options = kernel_call(case)
    rng = np.random.default_rng(3)
    g = cotangent(kernel(*arrays, **options)[0]).astype(complex)
    u, v = ([rng.standard_normal(x.shape) if is_float(x) else None for x in arrays] for _ in range(2))

    def hessian_times(direction, h=1e-20):
        lifted = [x if d is None else x + 1j * h * d for x, d in zip(arrays, direction, strict=True)]
        return [None if d is None else np.imag(d) / h for d in kernel(*lifted, **options)[1](g)]

    def dot(a, b):
        return [np.sum(p * q) for p, q in zip(a, b, strict=True) if p is not None]

    left, right = dot(u, hessian_times(v)), dot(v, hessian_times(u))
    scale = sum(abs(t) for t in left + right)
    assert abs(sum(left) - sum(right)) <= 1e-12 * scale + 1e-14


# ---- line 6: whose memory a gradient is ----------------------------------------------------------------------------


@every_case
def test_a_gradient_is_new_memory_or_a_view_of_g(case, kernel_call):
    kernel, arrays, options = kernel_call(case)
    y, vjp = kernel(*arrays, **options)
    g = cotangent(y)
    grads = [np.asarray(d) for d in vjp(g) if d is not None]
    for d in grads:
        assert not any(np.shares_memory(d, x) for x in [*arrays, np.asarray(y)])
    own = [d for d in grads if not np.shares_memory(d, g)]
    for i, d in enumerate(own):
        assert not any(np.shares_memory(d, other) for other in own[:i])


# ---- layouts, 0-d and zero-size arrays -----------------------------------------------------------------------------

LAYOUTS = {
    "Fortran": np.asfortranarray,
    "every other": lambda x: np.repeat(x, 2, axis=-1)[..., ::2],
    "backwards": lambda x: np.flip(np.flip(x).copy()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@every_case
def test_strides_do_not_matter(case, layout, kernel_call):
    kernel, arrays, options = kernel_call(case)
    y, vjp = kernel(*arrays, **options)
    g = cotangent(y)
    grads = vjp(g)

    def relaid(x):
        return LAYOUTS[layout](x) if x.ndim else x

    y2, vjp2 = kernel(*map(relaid, arrays), **options)
    np.testing.assert_allclose(y2, y, rtol=1e-13, atol=1e-14)
    for d2, d in zip(vjp2(relaid(g)), grads, strict=True):
        if d is not None:
            np.testing.assert_allclose(d2, d, rtol=1e-12, atol=1e-14)


@every_case
def test_a_broadcast_g_is_an_ordinary_g(case, kernel_call):
    """`sum` hands its own input's vjp a read-only view with strides of 0."""
    kernel, arrays, options = kernel_call(case)
    y, vjp = kernel(*arrays, **options)
    grads = vjp(np.full(np.shape(y), 0.7))
    y, vjp = kernel(*arrays, **options)
    for d, expected in zip(vjp(np.broadcast_to(0.7, np.shape(y))), grads, strict=True):
        if expected is not None:
            np.testing.assert_allclose(d, expected, rtol=1e-13, atol=1e-14)


NO_IDS = np.zeros(0, np.int64)
UNARY = ["negative", "exp", "log", "sqrt", "tanh", "sigmoid", "relu", "gelu", "absolute"]
BINARY = ["add", "subtract", "multiply", "divide", "power", "maximum"]
SMALL = [
    *((name, [shape], {}) for name in [*UNARY, "sum", "reshape"] for shape in ((), (0,), (2, 0, 3))),
    *((name, shapes, {}) for name in BINARY for shapes in ([(), ()], [(), (0, 3)], [(0, 3), (1,)], [(0, 1), (1, 3)])),
    *((name, [()], {}) for name in ("mean", "max", "var", "logsumexp", "transpose")),
    *((name, [(0, 3)], {"axis": -1}) for name in ("mean", "max", "var", "logsumexp", "softmax", "log_softmax")),
    ("sum", [(0, 3)], {"axis": 0}),
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
    ("layer_norm", [(0, 3), (3,), (3,)], {}),
    ("dropout", [(), np.array(True)], {"p": 0.5}),
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


@pytest.mark.parametrize(("name", "inputs", "options"), SMALL)
def test_no_elements_and_no_axes(name, inputs, options):
    arrays = [np.full(x, 0.7, np.float32) if isinstance(x, tuple) else x for x in inputs]
    if name == "reshape":
        options = {"shape": (1, *arrays[0].shape)}
    y, vjp = K.KERNELS[name](*arrays, **options)
    assert np.asarray(y).dtype == np.float32
    for x, d in zip(arrays, vjp(np.ones_like(y)), strict=True):
        assert (d is None) if not is_float(x) else (d.shape, d.dtype) == (x.shape, np.float32)
        assert d is None or np.isfinite(d).all()


@pytest.mark.parametrize("kernel", [K.mean, K.var])
def test_an_average_of_nothing_is_an_error(kernel):
    with pytest.raises(ValueError, match=r"elements? |element\(s\)"):
        kernel(np.zeros((0, 3)), axis=0)


# ---- the table -----------------------------------------------------------------------------------------------------


def test_every_kernel_has_a_case(monkeypatch):
    assert {case.covers for case in CASES} == set(K.KERNELS)
    monkeypatch.setitem(K.KERNELS, "unproven", K.tanh)
    assert uncovered() == ["unproven"]


def test_every_kernel_is_offered_and_says_its_formula():
    for name, kernel in K.KERNELS.items():
        assert name in K.__all__
        assert getattr(K, name) is kernel
        assert kernel.__doc__


@pytest.mark.parametrize("integers", [np.array([1, 2, 3]), np.array([True, True, True])], ids=["int64", "bool"])
@pytest.mark.parametrize("name", BINARY)
def test_an_integer_operand_takes_the_dtype_of_the_float_one(name, integers):
    for arrays in ([np.full(3, 0.5, np.float32), integers], [integers, np.full(3, 0.5, np.float32)]):
        y, vjp = K.KERNELS[name](*arrays)
        assert y.dtype == np.float32
        d = vjp(np.ones_like(y))[0 if is_float(arrays[0]) else 1]
        assert d.dtype == np.float32
        expected = K.KERNELS[name](*(x.astype(np.float64) for x in arrays))[0]
        np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "shapes", "options"),
    [
        ("matmul", [(2, 3), (3, 2)], {}),
        ("linear", [(2, 3), (4, 3)], {}),
        ("einsum", [(2, 3), (3, 4)], {"subscripts": "ij,jk->ik"}),
        ("concatenate", [(2, 3), (2, 3)], {}),
        ("stack", [(2, 3), (2, 3)], {}),
    ],
)
def test_an_integer_operand_of_a_product_or_a_row_does_too(name, shapes, options):
    for integer in (0, 1):
        arrays = [np.ones(s, np.int64 if i == integer else np.float32) for i, s in enumerate(shapes)]
        y, vjp = K.KERNELS[name](*arrays, **options)
        assert y.dtype == np.float32
        assert all(d.dtype == np.float32 for d in vjp(np.ones_like(y)) if d is not None)


@pytest.mark.parametrize("integer", [0, 1])
def test_an_integer_operand_of_a_head_does_too(integer):
    arrays = [np.ones((3, 2), np.int64 if i == integer else np.float32) for i in range(2)]
    loss, vjp = K.linear_cross_entropy(*arrays, np.array([0, 1, 2]))
    assert loss.dtype == np.float32
    assert loss == pytest.approx(np.log(3), rel=1e-6)
    assert [d.dtype for d in vjp(np.ones((), np.float32)) if d is not None] == [np.float32] * 2


def kept(vjp):
    """Every array and Tensor that a vjp's closure, or a closure in it, holds."""
    for cell in getattr(vjp, "__closure__", None) or ():
        thing = cell.cell_contents
        for item in thing if isinstance(thing, tuple | list) else [thing]:
            if isinstance(item, np.ndarray | Tensor):
                yield item
            elif callable(item):
                yield from kept(item)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_closure_keeps_arrays_only_and_few(case, kernel_call):
    kernel, arrays, options = kernel_call(case)
    y, vjp = kernel(*arrays, **options)
    assert not any(isinstance(item, Tensor) for item in kept(vjp))
    # Beside its inputs and its output, a kernel keeps no more than what one of these takes; attention keeps its
    # (T, T) weights as well, and the head with its loss has both gradients ready.
    own = {id(a): a for a in kept(vjp) if not any(np.may_share_memory(a, b) for b in (*arrays, np.asarray(y)))}
    largest = max([np.asarray(y).size, *(a.size for a in arrays)])
    rows = sum(a.size for a in own.values() if a.size > largest / 4)
    if kernel.__name__ == "linear_cross_entropy":
        assert rows <= sum(x.size for x in arrays if is_float(x))
    elif "attention" not in kernel.__name__:
        assert rows <= largest * (2 if kernel.__name__ == "cross_entropy" else 1)
