"""`Tensor`: dtypes, operators, shapes, comparisons and copies, as in PyTorch."""

import copy
import operator
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import tinygrad_llm
from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor, apply, grad, no_grad
from tinygrad_llm.gradcheck import gradcheck
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.nn import Linear, Parameter
from tinygrad_llm.optim import AdamW
from tinygrad_llm.random import Generator


def f32(*shape):
    return Tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32), requires_grad=True)


# ---- construction ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made_from", "dtype"),
    [
        (1.5, np.float32),
        ([1.0, 2.0], np.float32),
        ([[1, 2.5]], np.float32),
        ([1, 2], np.int64),
        ([True, False], np.bool_),
        (1j, np.complex128),
        (np.zeros(2), np.float64),
        (np.zeros(2, np.float32), np.float32),
        (np.zeros(2, np.int32), np.int32),
        (np.float64(1.0), np.float64),
        (Tensor(np.zeros(2)), np.float64),
    ],
)
def test_the_dtype_of_a_tensor(made_from, dtype):
    assert Tensor(made_from).dtype == dtype


def test_dtype_is_converted():
    assert Tensor([1, 2], dtype=np.float64).dtype == np.float64
    assert Tensor(np.zeros(2), requires_grad=True).to(np.float32).dtype == np.float32


def test_an_array_is_kept_not_copied():
    x = np.zeros(3)
    assert Tensor(x).data is x
    assert Tensor(x).numpy() is x
    assert Tensor(x, requires_grad=True).detach().data is x


@pytest.mark.parametrize("wrong", ["text", None, [None], ["a"], object(), np.array(["2020-01-01"], "datetime64[D]")])
def test_anything_but_numbers_is_refused(wrong):
    with pytest.raises(TypeError, match="a Tensor holds numbers"):
        Tensor(wrong)


def test_the_type_that_is_no_number_and_lists_of_unequal_lengths_are_named():
    with pytest.raises(TypeError, match=r"got object \(from dict\)"):
        Tensor({})
    with pytest.raises(ValueError, match="lists of equal lengths"):
        Tensor([[1.0, 2.0], [3.0]])


@pytest.mark.parametrize("wrong", [[1, 2], [True]])
def test_integers_cannot_require_a_gradient(wrong):
    with pytest.raises(ValueError, match="only float and complex"):
        Tensor(wrong, requires_grad=True)
    with pytest.raises(ValueError, match="only float and complex"):
        Tensor(wrong).requires_grad = True


def test_requires_grad_can_be_switched_only_on_leaves():
    x = f32(2)
    x.requires_grad = False
    assert not x.requires_grad
    assert not (x * 2).requires_grad
    x.requires_grad = True
    y = x * 2
    y.requires_grad = True  # it does already
    with pytest.raises(RuntimeError, match="only a leaf"):
        y.requires_grad = False


def test_grad_cannot_be_set_where_none_is_required():
    x = Tensor([1.0])
    x.grad = None
    with pytest.raises(RuntimeError, match="does not require"):
        x.grad = np.ones(1)


def test_a_gradient_that_is_set_is_an_array_of_the_shape_and_dtype():
    x = Tensor([1.0, 2.0], requires_grad=True)
    for wrong in (np.ones((3, 2)), np.ones(1), 0, [1.0, 1.0], Tensor([1.0])):
        with pytest.raises(RuntimeError, match=r"array of the shape of its Tensor, \(2,\), or None: got"):
            x.grad = wrong
    assert x.grad is None
    for g in (Tensor([1.0, 2.0]), np.array([1, 2]), np.array([1.0, 2.0])):
        x.grad = g
        assert type(x.grad) is np.ndarray
        assert x.grad.dtype == np.float32
        (x * 0.5).sum().backward()
        assert x.grad.tolist() == [1.5, 2.5]


# ---- dtypes of results ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        lambda x: 2 * x,
        lambda x: x / 3,
        lambda x: x**2,
        lambda x: 2.5**x,
        lambda x: np.sqrt(2) * x,  # a float64 scalar
        lambda x: x * np.sqrt(2),
        lambda x: np.float64(1.0) - x,
        lambda x: np.int64(3) + x,
        lambda x: x * True,
        lambda x: x + Tensor([1, 2, 3]),
        lambda x: x * np.array([1, 2, 3]),
        lambda x: np.array([1, 2, 3]) / x,
        lambda x: x * (x > 0),
        lambda x: x.maximum(0),
        lambda x: x.masked_fill(x > 0, -1e9),
        lambda x: x.masked_fill(x > 0, float("-inf")),
        lambda x: x.mean(),
        lambda x: x.var(),
        lambda x: x.sum() / len(x),
    ],
)
def test_float32_stays_float32(expression):
    x = f32(3)
    y = expression(x)
    assert y.dtype == np.float32
    assert grad(y.sum(), [x])[0].dtype == np.float32


def test_float64_stays_float64():
    x = Tensor(np.ones(2), requires_grad=True)
    assert (2 * x + 0.5).dtype == np.float64
    assert (np.float32(0.1) * x).dtype == np.float64


def test_functions_of_integers_are_float32_and_sums_stay_integers():
    x = Tensor([1, 2])
    assert {y.dtype for y in (x / 2, x.exp(), x.mean(), x.softmax(0), x * 0.5)} == {np.dtype(np.float32)}
    assert (x + x).dtype == (x + 1).dtype == np.int64


# ---- operators -----------------------------------------------------------------------------------------------------

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
A, B = np.array([[1.0, 2.0], [0.5, 3.0]]), np.array([2.0, 0.25])


@pytest.mark.parametrize("op", OPERATORS)
def test_operators_are_those_of_numpy_on_both_sides(op):
    expected = op(A, B)
    for a, b in ((Tensor(A), Tensor(B)), (Tensor(A), B), (A, Tensor(B))):
        y = op(a, b)
        assert isinstance(y, Tensor)
        np.testing.assert_array_equal(y.data, expected)
    for number in (3, 2.0, np.float64(2.0)):
        np.testing.assert_array_equal(op(number, Tensor(A)).data, op(number, A))
        np.testing.assert_array_equal(op(Tensor(A), number).data, op(A, number))


@pytest.mark.parametrize("op", OPERATORS)
def test_operators_differentiate_on_both_sides(op):
    for fn in (op, lambda a, b: op(a, B) + op(A, b), lambda a, b: op(a, 2.0) + op(2.0, b)):
        assert gradcheck(fn, [A, B])


def test_matmul_on_both_sides():
    square = A @ A
    for a, b in ((Tensor(A), Tensor(A)), (Tensor(A), A), (A, Tensor(A))):
        np.testing.assert_array_equal((a @ b).data, square)
    assert gradcheck(lambda a, b: a @ A + A @ b, [A, A])


def test_unary_operators():
    np.testing.assert_array_equal((-Tensor(A)).data, -A)
    np.testing.assert_array_equal(abs(Tensor(-A)).data, A)
    np.testing.assert_array_equal(Tensor(A).pow(2).data, A**2)


@pytest.mark.parametrize("name", ["exp", "log", "sqrt", "tanh"])
def test_functions_are_those_of_numpy(name):
    np.testing.assert_allclose(getattr(Tensor(A), name)().data, getattr(np, name)(A), rtol=1e-15)


def test_operands_other_than_numbers_are_refused():
    for wrong in ("2", [1.0, 2.0], None):
        with pytest.raises(TypeError, match="operands must be Tensors, arrays or numbers, got"):
            Tensor(B) * wrong


@pytest.mark.parametrize("op", [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
def test_comparisons_are_by_element(op):
    x, y = np.array([1.0, 2.0, 3.0]), np.array([2.0, 2.0, 2.0])
    numbers = [(Tensor(x, requires_grad=True), 2.0), (np.float64(2.0), Tensor(x))]
    for a, b in ((Tensor(x), Tensor(y)), (Tensor(x), y), (x, Tensor(y)), *numbers):
        z = op(a, b)
        assert isinstance(z, Tensor)
        assert z.dtype == np.bool_
        assert not z.requires_grad
        np.testing.assert_array_equal(z.data, op(*(t.data if isinstance(t, Tensor) else t for t in (a, b))))


def test_tensors_hash_by_identity():
    a, b = Tensor([1.0]), Tensor([1.0])
    assert len({a, b, a}) == 2


# ---- one number, printing, iteration -------------------------------------------------------------------------------


def test_a_tensor_of_one_number():
    x = Tensor([[2.5]])
    assert (x.item(), float(x), int(x), bool(x), f"{x:.2f}") == (2.5, 2.5, 2, True, "2.50")
    assert not Tensor(0.0)
    with pytest.raises(ValueError, match=r"exactly one element, .* \(2,\)"):
        Tensor([1.0, 2.0]).item()
    with pytest.raises(ValueError, match="neither true nor false"):
        bool(Tensor([1.0, 2.0]) == Tensor([1.0, 2.0]))


def test_repr():
    x = f32(1)
    assert repr(Tensor([1.0, 2.0])) == "Tensor([1., 2.])"
    assert repr(Tensor(np.zeros(1))) == "Tensor([0.], dtype=float64)"
    assert repr(Tensor(np.zeros((30, 10), np.float32))).endswith("], shape=(30, 10))")
    assert "requires_grad=True" in repr(x)
    assert "made by multiply" in str(x * 2)


def test_sizes_and_iteration():
    x = f32(2, 3, 4)
    assert (x.shape, x.size(), x.size(-1), x.ndim, x.numel(), len(x)) == ((2, 3, 4), (2, 3, 4), 4, 3, 24, 2)
    assert [row.shape for row in x] == [(3, 4), (3, 4)]
    np.testing.assert_array_equal(x.numpy(), x.data)
    np.testing.assert_array_equal(x.tolist(), x.data)
    a, b = x
    assert grad((a * 2 + b * 3).sum(), [x])[0][:, 0, 0].tolist() == [2, 3]


# ---- reductions ----------------------------------------------------------------------------------------------------


def test_sums_means_and_variances():
    x = np.random.default_rng(1).standard_normal((2, 3, 4))
    t = Tensor(x)
    for dim in (None, 0, -1, (0, 2)):
        for keep in (False, True):
            np.testing.assert_allclose(t.sum(dim, keep).data, x.sum(axis=dim, keepdims=keep))
            np.testing.assert_allclose(t.mean(dim, keep).data, x.mean(axis=dim, keepdims=keep))
            np.testing.assert_array_equal(t.amax(dim, keep).data, x.max(axis=dim, keepdims=keep))
            np.testing.assert_allclose(t.var(dim, keepdim=keep).data, x.var(axis=dim, ddof=1, keepdims=keep))
            np.testing.assert_allclose(t.var(dim, 0, keep).data, x.var(axis=dim, keepdims=keep))
            np.testing.assert_allclose(t.logsumexp(dim, keep).data, np.log(np.exp(x).sum(axis=dim, keepdims=keep)))


@given(hnp.array_shapes(max_dims=3, max_side=4), st.data(), st.integers(0, 2**32 - 1), st.booleans())
def test_max_along_a_dim(shape, data, seed, keepdim):
    x = np.random.default_rng(seed).integers(0, 3, shape).astype(np.float64)  # with ties
    dim = data.draw(st.integers(-len(shape), len(shape) - 1))
    t = Tensor(x, requires_grad=True)
    values, indices = t.max(dim, keepdim=keepdim)
    np.testing.assert_array_equal(values.data, x.max(axis=dim, keepdims=keepdim))
    np.testing.assert_array_equal(indices.data, x.argmax(axis=dim, keepdims=keepdim))
    np.testing.assert_array_equal(t.argmax(dim, keepdim).data, indices.data)
    # The gradient goes to the index that is returned, and to no other maximum.
    g = np.random.default_rng(1).standard_normal(values.shape)
    expected = np.zeros(shape)
    where, what = (z if keepdim else np.expand_dims(z, dim) for z in (indices.data, g))
    np.put_along_axis(expected, where, what, axis=dim)
    np.testing.assert_array_equal(grad(values, [t], g)[0], expected)


def test_max_and_argmax_of_everything():
    x = Tensor([[1.0, 5.0], [5.0, 0.0]], requires_grad=True)
    assert x.max().item() == 5
    assert grad(x.max(), [x])[0].tolist() == [[0, 0.5], [0.5, 0]]
    assert x.argmax().item() == 1
    assert x.max(1).values.tolist() == [5, 5]


# ---- shapes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "shape"),
    [
        (lambda x: x.reshape(6, 4), (6, 4)),
        (lambda x: x.reshape((4, -1)), (4, 6)),
        (lambda x: x.view([24]), (24,)),
        (lambda x: x.flatten(), (24,)),
        (lambda x: x.flatten(1), (2, 12)),
        (lambda x: x.flatten(0, 1), (6, 4)),
        (lambda x: x.flatten(-2, -1), (2, 12)),
        (lambda x: x.transpose(0, 2), (4, 3, 2)),
        (lambda x: x.transpose(-1, -2), (2, 4, 3)),
        (lambda x: x.permute(2, 0, 1), (4, 2, 3)),
        (lambda x: x.permute((-1, 0, 1)), (4, 2, 3)),
        (lambda x: x.T, (4, 3, 2)),
        (lambda x: x.mT, (2, 4, 3)),
        (lambda x: x.unsqueeze(0), (1, 2, 3, 4)),
        (lambda x: x.unsqueeze(-1), (2, 3, 4, 1)),
        (lambda x: x.unsqueeze(1).squeeze(1), (2, 3, 4)),
        (lambda x: x.unsqueeze(0).unsqueeze(-1).squeeze(), (2, 3, 4)),
        (lambda x: x.squeeze(1), (2, 3, 4)),  # longer than 1: it stays
        (lambda x: x.unsqueeze(0).unsqueeze(0).squeeze((0, 2)), (1, 2, 3, 4)),
        (lambda x: x.unsqueeze(1).expand(2, 5, 3, 4), (2, 5, 3, 4)),
        (lambda x: x.expand(7, -1, 3, -1), (7, 2, 3, 4)),
        (lambda x: x.expand((2, 3, 4)), (2, 3, 4)),
        (lambda x: x[0], (3, 4)),
        (lambda x: x[:, -1, ::2], (2, 2)),
        (lambda x: x[..., None, 0], (2, 3, 1)),
        (lambda x: x[Tensor([0, 1, 1])], (3, 3, 4)),
        (lambda x: x[[1, 0]], (2, 3, 4)),
        (lambda x: x[:, Tensor([2])], (2, 1, 4)),
        (lambda x: x[x.data > 0][:3], (3,)),
    ],
)
def test_shapes_change_as_in_pytorch(change, shape):
    x = np.random.default_rng(0).standard_normal((2, 3, 4))
    assert change(Tensor(x)).shape == shape
    assert gradcheck(change, [x])


def test_values_after_a_change_of_shape():
    x = np.arange(24.0).reshape(2, 3, 4)
    np.testing.assert_array_equal(Tensor(x).permute(2, 0, 1).data, np.transpose(x, (2, 0, 1)))
    np.testing.assert_array_equal(Tensor(x).transpose(0, 2).data, np.swapaxes(x, 0, 2))
    np.testing.assert_array_equal(Tensor(x).flatten(1).data, x.reshape(2, 12))
    np.testing.assert_array_equal(Tensor(x)[:, 1:, [0, 2]].data, x[:, 1:, [0, 2]])


def test_a_scalar_changes_shape():
    x = Tensor(3.0)
    assert x.flatten().shape == (1,)
    assert x.unsqueeze(0).shape == (1,)
    assert x.squeeze().shape == ()
    assert x.expand(2, 2).shape == (2, 2)
    assert x.reshape(1, 1).reshape(()).shape == ()


def test_shape_errors():
    x = f32(2, 3)
    with pytest.raises(ValueError, match="-1 keeps an existing axis"):
        x.expand(-1, 2, 3)
    with pytest.raises(ValueError, match="broadcast"):
        x.expand(2, 4)
    with pytest.raises(ValueError, match="reshape"):
        x.reshape(4, 2)


def test_masked_fill_stops_the_gradient():
    x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    y = x.masked_fill(Tensor([False, True, False]), -9.0)
    assert y.tolist() == [1, -9, 3]
    assert grad(y.sum(), [x])[0].tolist() == [1, 0, 1]


# ---- copies --------------------------------------------------------------------------------------------------------


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda x: pickle.loads(pickle.dumps(x)),
    "pickle of protocol 0": lambda x: pickle.loads(pickle.dumps(x, 0)),
}


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("kind", [Tensor, Parameter])
def test_a_copy_is_another_leaf(make, kind):
    p = kind(np.array([2.0], np.float32), requires_grad=True)
    (p * 7).sum().backward()
    p.register_hook(lambda g: g * 100)
    q = make(p)
    assert type(q) is kind
    assert q.grad.tolist() == [7]
    kept, p.grad = p.grad, None
    (p * 3 + q * 5).sum().backward()
    assert p.grad.tolist() == [300]
    assert q.grad.tolist() == [12]  # hooks are not copied
    assert kept.tolist() == [7]  # q.grad has its own memory
    assert np.shares_memory(p.data, q.data) is (make is copy.copy)
    first, again = make([p, p]) if make is not copy.copy else (q, q)
    assert first is again  # tied before, tied after


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_copies_of_a_model_and_of_what_requires_no_gradient(make):
    assert not make(Tensor([1.0])).requires_grad
    model = Linear(2, 1, rng=Generator(0))
    model.head = [model.weight]  # tied
    other = make(model)
    if make is not copy.copy:  # a shallow copy of a Module has the same parameters, as in PyTorch
        assert other.head[0] is other.weight
        assert other.weight is not model.weight
        (other(Tensor([[1.0, 2.0]])) * 3).sum().backward()
        assert other.weight.grad.tolist() == [[3, 6]]
        assert model.weight.grad is None


def test_a_model_unpickled_in_another_process_has_the_gradients_it_had():
    """A new process numbers its nodes from 0 again: nothing may depend on the old numbers."""
    config = GPTConfig(vocab_size=11, block_size=4, n_layer=1, n_head=1, n_embd=4)
    code = (
        "import pickle, sys, numpy as np\n"
        "from tinygrad_llm import Tensor\n"
        "new = [Tensor([1.0], requires_grad=True) for _ in range(40)]\n"  # nodes with the numbers of the old ones
        "model = pickle.load(sys.stdin.buffer)\n"
        "model.loss(np.array([[1, 2]]), np.array([[2, 3]])).backward()\n"
        "pickle.dump([p.grad for p in model.parameters()], sys.stdout.buffer)\n"
    )
    model = GPT(config, Generator(0))
    root = Path(tinygrad_llm.__file__).parents[1]
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=pickle.dumps(model), cwd=root, capture_output=True, timeout=120, check=True)
    model.loss(np.array([[1, 2]]), np.array([[2, 3]])).backward()
    for p, g in zip(model.parameters(), pickle.loads(done.stdout), strict=True):
        np.testing.assert_array_equal(p.grad, g)


@pytest.mark.parametrize("make", COPIES.values(), ids=COPIES)
def test_a_computed_tensor_cannot_be_copied(make):
    with pytest.raises(RuntimeError, match=r"only leaves can be copied or pickled: use detach\(\)"):
        make(f32(2) * 2)
    with no_grad():
        assert make(f32(2) * 2).shape == (2,)


def test_detach_cuts_the_graph():
    x = f32(3)
    y = (x * 2).detach()
    assert not y.requires_grad
    np.testing.assert_array_equal(grad((x * y).sum(), [x])[0], y.data)


def test_a_kernel_learns_which_gradients_are_needed():
    told = []

    def spy(a, b, *, needs=(True, True)):
        told.append(needs)
        return a * b, lambda g: (g * b, g * a)

    x, y = f32(2), f32(2).detach()
    for a, b in ((x, y), (y, x), (x, x), (y, y), (x, 2.0)):
        apply(spy, a, b)
    assert told == [(True, False), (False, True), (True, True), (False, False), (True, False)]
    told.clear()
    with no_grad():
        apply(spy, x, x)
    assert told == [(False, False)]


def test_sizes_must_be_integers():
    x = Tensor(np.ones(6))
    for sizes in ((2.0, 3), (6, "a"), ((2, 3.0),)):
        with pytest.raises(TypeError):
            x.reshape(*sizes)
    with pytest.raises(ValueError, match="has fewer axes"):
        Tensor(np.ones((3, 1))).expand(3)
    with pytest.raises(ValueError, match="comes after end_dim"):
        Tensor(np.ones((2, 3))).flatten(1, 0)


def test_a_tensor_without_axes_keeps_its_dtype_when_its_data_is_replaced():
    p = Tensor(np.array(0.5), requires_grad=True)
    p.data = p.data - 0.1  # NumPy makes a scalar of it
    assert (p * 2).dtype == np.float64
    assert (2 - p * np.array(3.0)).dtype == np.float64
    p.data = np.float32(0.5) - np.float32(0.1)
    assert (p * 2).dtype == np.float32


# ---- next to NumPy --------------------------------------------------------------------------------------------------

NUMPY = {  # functions of NumPy, and what the message about each must name
    "exp": (np.exp, "Tensor.exp"),
    "tanh": (np.tanh, "Tensor.tanh"),
    "isfinite": (np.isfinite, ".detach().numpy()"),
    "absolute": (np.absolute, "Tensor.abs"),
    "add.reduce": (np.add.reduce, ".detach().numpy()"),
    "sum": (np.sum, "Tensor.sum"),
    "mean": (np.mean, "Tensor.mean"),
    "max": (np.max, "Tensor.amax"),
    "transpose": (np.transpose, "Tensor.transpose"),
    "argmax": (np.argmax, "Tensor.argmax"),
    "dot": (lambda w: np.dot(np.eye(2), w), "functional.matmul"),
    "where": (lambda w: np.where(True, w, 0), "functional.where"),
    "einsum": (lambda w: np.einsum("ij->i", w), "functional.einsum"),
    "concatenate": (lambda w: np.concatenate([w, w]), "functional.cat"),
    "stack": (lambda w: np.stack([np.eye(2), w]), "functional.stack"),
    "norm": (np.linalg.norm, ".detach().numpy()"),
    "copyto": (lambda w: np.copyto(np.zeros((2, 2)), w), ".detach().numpy()"),
    "asarray": (np.asarray, ".detach().numpy()"),
    "array": (lambda w: np.array([w, w]), ".detach().numpy()"),
    "setitem": (lambda w: operator.setitem(np.zeros((2, 2)), ..., w), ".detach().numpy()"),
    "iadd": (lambda w: operator.iadd(np.zeros((2, 2)), w), ".detach().numpy()"),
    "Tensor of a list": (lambda w: Tensor([w, w]), "stack"),
    "Tensor of a nested list": (lambda w: Tensor([[1.0, w[0, 0] * 2]]), "stack"),
}


def test_numpys_functions_refuse_a_tensor_that_requires_a_gradient(for_each):
    def check(name):
        function, words = NUMPY[name]
        w = Tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        for x in (w, w * 2):
            with pytest.raises((RuntimeError, ValueError)) as error:
                function(x)
            assert words in str(error.value) or words in str(error.value.__cause__), error.value
        with no_grad():
            got = function(w.detach())
        expected = function(w.numpy()) if not name.startswith("Tensor") else got
        np.testing.assert_array_equal(np.asarray(got), np.asarray(expected))

    for_each(NUMPY, check)


def test_numpy_reads_the_shape_of_any_tensor():
    w = Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    assert (np.shape(w), np.ndim(w), np.size(w)) == ((2, 3), 2, 6)
    assert np.zeros_like(w).dtype == np.float32


def test_a_list_of_tensors_is_stacked_in_its_dtype():
    for dtype in (np.float32, np.float64, np.int64):
        t = Tensor([Tensor(np.ones(2, dtype)), Tensor(np.zeros(2, dtype))])
        assert (t.shape, t.dtype, t.tolist()) == ((2, 2), dtype, [[1, 1], [0, 0]])


def test_to_another_dtype_has_a_gradient():
    x = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    y = x.to(np.float64)
    assert (y.dtype, x.to(np.float32) is x, x.to(np.int64).requires_grad) == (np.float64, True, False)
    (y * y).sum().backward()
    assert (x.grad.dtype, x.grad.tolist()) == (np.float32, [2, 4])
    assert gradcheck(lambda x: (x.to(np.float64) * x).sum(), [np.array([1.0, 2.0])])
    assert Tensor([1j]).to(np.float32).dtype == np.complex64


# ---- dims, sizes and numbers ----------------------------------------------------------------------------------------

ONE_DIM = {
    "softmax": lambda t, dim: t.softmax(dim),
    "log_softmax": lambda t, dim: t.log_softmax(dim),
    "argmax": lambda t, dim: t.argmax(dim),
    "max": lambda t, dim: t.max(dim).values,
    "transpose": lambda t, dim: t.transpose(dim, 0),
    "flatten": lambda t, dim: t.flatten(dim),
}
SEVERAL_DIMS = {
    "sum": lambda t, dim: t.sum(dim),
    "mean": lambda t, dim: t.mean(dim),
    "var": lambda t, dim: t.var(dim, 0),
    "amax": lambda t, dim: t.amax(dim),
    "logsumexp": lambda t, dim: t.logsumexp(dim),
    "squeeze": lambda t, dim: t.squeeze(dim),
}


def test_a_wrong_dim_raises_and_names_what_is_allowed(for_each):
    t = Tensor(np.ones((2, 3, 4), np.float32))
    makes = {
        "unsqueeze": lambda t, dim: t.unsqueeze(dim + np.sign(dim)),
        "size": lambda t, dim: t.size(dim),
        "cat": lambda t, dim: F.cat([t, t], dim),
        "stack": lambda t, dim: F.stack([t, t], dim + np.sign(dim)),
    }

    def check(name):
        function = {**ONE_DIM, **SEVERAL_DIMS, **makes}[name]
        for dim in (3, -4, 7):
            with pytest.raises(np.exceptions.AxisError, match=r"dim .* out of range .* are allowed"):
                function(t, dim)
        for dim in ("a", 1.0):
            with pytest.raises(TypeError):
                function(t, dim)
        if name in SEVERAL_DIMS:
            with pytest.raises(ValueError, match="twice"):
                function(t, (0, -3))
            np.testing.assert_array_equal(function(t, [0, 2]).data, function(t, (0, 2)).data)

    for_each({**ONE_DIM, **SEVERAL_DIMS, **makes}, check)
    for wrong in ((0, 1), (0, 1, 2, 0), (0, 1, 1)):
        with pytest.raises(ValueError, match=r"permute|twice"):
            t.permute(*wrong)
    with pytest.raises(ValueError, match=r"^permute: got 2 dims \(0, 1\) for shape \(2, 3, 4\)$"):
        t.permute(0, 1)


def test_dims_0_and_minus_1_of_a_tensor_without_axes(for_each):
    def check(name):
        function = {**ONE_DIM, **SEVERAL_DIMS, "unsqueeze": Tensor.unsqueeze}[name]
        for dim in (0, -1):
            x = Tensor(2.0, requires_grad=True)
            y = function(x, dim)
            assert y.shape == ((1,) if name in ("flatten", "unsqueeze") else ())
            if name != "argmax":
                y.sum().backward()
                assert x.grad.shape == ()
                assert x.grad == (0 if name in ("softmax", "log_softmax", "var") else 1)
        with pytest.raises(np.exceptions.AxisError, match="-1 to 0"):
            function(Tensor(2.0), 1)

    for_each({**ONE_DIM, **SEVERAL_DIMS}, check)
    with pytest.raises(np.exceptions.AxisError, match="no axes"):
        Tensor(2.0).size(0)


def test_a_size_below_minus_1_or_one_that_does_not_fit_raises():
    t = Tensor(np.ones((2, 3), np.float32))
    for call in (lambda: t.reshape(-2), lambda: t.reshape(2, -3), lambda: t.expand(-2, 3)):
        with pytest.raises(ValueError, match="a size must be"):
            call()
    for sizes in ((4,), (-1, -1), (5, -1), (0, -1)):
        with pytest.raises(ValueError, match=r"6 elements of shape \(2, 3\) do not fit"):
            t.reshape(*sizes)
    with pytest.raises(ValueError, match="0 elements"):
        Tensor(np.ones((0, 3))).reshape(0, -1)
    with pytest.raises(ValueError, match="use stack"):
        F.cat([Tensor(1.0), Tensor(2.0)])
    empty = Tensor(np.ones((2, 3, 0), np.float32))
    for causal in (False, True):
        with pytest.raises(ValueError, match="D ≥ 1"):
            F.scaled_dot_product_attention(empty, empty, empty, is_causal=causal)


def test_gradients_of_empty_axes_have_their_shapes():
    def check(function, *shapes):
        inputs = [Tensor(np.ones(shape, np.float32), requires_grad=True) for shape in shapes]
        y = function(*inputs)
        for x, g in zip(inputs, grad(y, inputs, np.ones(y.shape)), strict=True):
            np.testing.assert_array_equal(g, np.zeros(x.shape))

    check(F.linear, (0,), (2, 0))
    check(F.linear, (3, 0), (2, 0))
    check(F.linear, (3, 2), (0, 2))
    check(F.linear, (0, 2), (3, 2), (3,))
    check(lambda weight: F.embedding(np.array([0, 1]), weight), (2, 0))
    check(lambda x: x.reshape(0, 2, 5), (5, 0))
    check(lambda x: x.sum(0) + x.T.sum(-1), (0, 0))
    check(lambda a, b: F.cat([a, b]), (0, 2), (0, 2))
    for shape, n_head in (((3, 24), 1), ((1, 2, 6), 0), ((1, 2, 0), 1)):
        with pytest.raises(ValueError, match=r"must be \(B, T, 3C\)"):
            F.causal_self_attention(Tensor(np.ones(shape, np.float32)), n_head)


def test_one_integer_is_an_index():
    t = Tensor([10.0, 20.0, 30.0])
    one = Tensor(1)
    assert ([1, 2, 3][one], list(range(Tensor([2]))), t[:one].tolist(), t[one].item()) == (2, [0, 1], [10], 20)
    assert np.arange(3)[one:].tolist() == [1, 2]
    for wrong in (Tensor(1.0), Tensor([1, 2]), Tensor([0.5])):
        with pytest.raises(TypeError, match="only one integer can be an index"):
            operator.index(wrong)


def test_membership_is_by_element_and_a_list_says_how_to_find_a_tensor():
    t = Tensor([1.0, 2.0])
    assert 2 in t
    assert 3 not in t
    with pytest.raises(ValueError, match="any\\(x is t"):
        t in [Tensor([1.0, 3.0])]  # noqa: B015


def test_pickle_and_copy_keep_a_frozen_leafs_gradient_and_the_ties_of_modules():
    layer = Linear(2, 2, rng=Generator(0))
    other = Linear(2, 2, False, rng=Generator(0), weight=layer.weight)
    model = [layer, other]
    (layer(Tensor(np.ones((1, 2), np.float32))).sum()).backward()
    layer.weight.requires_grad = False
    optimizer = AdamW(list(layer.parameters()))
    for twice in (copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))):
        (a, b), step = twice((model, optimizer))
        assert a.weight is b.weight
        assert a.weight is not layer.weight
        assert not a.weight.requires_grad
        assert a.weight.grad.tolist() == layer.weight.grad.tolist()
        before = layer.bias.data.copy()
        step.step()  # it updates the copies, and nothing else
        np.testing.assert_array_equal(layer.bias.data, before)
        assert not np.array_equal(a.bias.data, before)
