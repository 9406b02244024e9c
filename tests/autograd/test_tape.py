"""The walk back: accumulation, memory that is borrowed or owned, what is freed when, threads, `no_grad`."""

import gc
import math
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest

from tinygrad_llm import functional as F
from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor, apply, detect_anomaly, grad, is_grad_enabled, no_grad
from tinygrad_llm.gradcheck import gpt_problem
from tinygrad_llm.kernels.contract import Rows
from tinygrad_llm.models import GPTConfig
from tinygrad_llm.random import Generator


def leaf(*values):
    return Tensor(np.array(values, np.float64), requires_grad=True)


# ---- the same value used several times -----------------------------------------------------------------------------


def test_a_value_times_itself():
    x = leaf(3.0, -2.0)
    assert grad((x * x).sum(), [x])[0].tolist() == [6, -4]


def test_a_diamond():
    x = leaf(2.0)
    a = x * 3
    assert grad((a * a + a).sum(), [x])[0].item() == 2 * 9 * 2 + 3


def test_sums_of_sums():
    """Both uses of b borrow its gradient, so an addition in place would count it twice."""
    a = leaf(1.0, 2.0)
    b = a + a
    c = b + b
    assert [g.tolist() for g in grad(c, [a, b], np.array([1.0, 10.0]))] == [[4, 40], [2, 20]]


def test_an_uneven_diamond_waits_for_the_longer_branch():
    x = leaf(0.5)
    y = x * 2
    z = y
    for _ in range(5):
        z = z * 1.5
    assert grad((y + z).sum(), [x])[0].item() == pytest.approx(2 + 2 * 1.5**5)


# ---- gradients by rows ---------------------------------------------------------------------------------------------

IDS = np.array([[3, 1], [1, 1]])


def rows(weight):
    return apply(K.embedding, weight, IDS, sparse=True)


def dense(weight):
    """The same as a product, whose gradient owns its memory."""
    return Tensor((np.arange(len(weight)) == IDS[..., None]).astype(np.float64)) @ weight


def borrowed(weight):
    """Its gradient is a view of the one that came in."""
    return weight.reshape(-1)[:8].reshape(2, 2, 2) if weight.numel() != 8 else weight.reshape(2, 2, 2)


USES = [
    ([rows], 0),
    ([rows, rows], 1),
    ([rows, rows, rows], 2),
    ([rows, dense], 1),  # the walk meets the last one first
    ([dense, rows], 0),
    ([rows, dense, rows, dense], 2),
    ([rows, borrowed], 0),
    ([borrowed, rows], 0),
    ([rows, borrowed, rows], 1),
]


@pytest.mark.parametrize("computed", [False, True], ids=["a leaf", "a computed value"])
@pytest.mark.parametrize(("uses", "in_place"), USES)
def test_rows_are_added_to_other_gradients(uses, in_place, computed, monkeypatch):
    added = []
    add_to = Rows.add_to
    monkeypatch.setattr(Rows, "add_to", lambda self, total: (added.append(total), add_to(self, total)))
    found = []
    for chosen in (uses, [dense if use is rows else use for use in uses]):
        leaf = Tensor(np.arange(8.0).reshape(4, 2), requires_grad=True)
        weight = leaf * 2 if computed else leaf
        outputs = [use(weight) * (10.0**i) for i, use in enumerate(chosen)]
        total = outputs[0]
        for y in outputs[1:]:
            total = total + y
        seed = np.arange(1.0, 9.0).reshape(2, 2, 2)
        kept = seed.copy()
        g, *others = grad(total, [weight, leaf] if computed else [weight], seed)
        np.testing.assert_array_equal(seed, kept)
        assert type(g) is np.ndarray
        assert g.flags.writeable
        assert not np.shares_memory(g, seed)
        found.append([g, *others])
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one, other)
    assert len(added) >= in_place
    assert in_place or borrowed in uses or not added


def test_rows_reach_grad_hooks_and_anomaly_mode_as_arrays():
    for mode in (nullcontext, detect_anomaly):
        weight = Tensor(np.ones((4, 2)), requires_grad=True)
        seen = []
        weight.register_hook(seen.append)
        with mode():
            (rows(weight).sum() + (dense(weight) * 2).sum() + rows(weight).sum()).backward()
            rows(weight).sum().backward()
        assert [type(g) for g in seen] == [np.ndarray] * 2
        np.testing.assert_array_equal(seen[0][:, 0], [0, 12, 0, 4])
        np.testing.assert_array_equal(weight.grad[:, 0], [0, 15, 0, 5])


def test_rows_of_a_float32_weight_stay_float32_next_to_a_dense_gradient():
    weight = Tensor(np.ones((4, 2), np.float32), requires_grad=True)
    h = rows(weight)
    (g,) = grad((h.reshape(-1, 2) @ weight.mT).sum(), [weight])
    assert g.dtype == np.float32
    # L = Σ_nk h_n · w_k, h = w[ids]: dw_k = Σ_n h_n + (how often k stands there) Σ_j w_j.
    np.testing.assert_array_equal(g[:, 0], 4 + np.array([0, 3, 0, 1]) * 4)


def test_a_tied_gpt_adds_the_rows_of_its_embedding_to_the_gradient_of_its_head(monkeypatch):
    added = []
    add_to = Rows.add_to
    monkeypatch.setattr(Rows, "add_to", lambda self, total: (added.append(total.shape), add_to(self, total)))
    fn, inputs, _ = gpt_problem(GPTConfig(vocab_size=7, block_size=4, n_layer=1, n_head=2, n_embd=4), Generator(0))
    fn(*inputs).backward()
    assert added == [(7, 4)]


def test_a_borrowed_gradient_is_not_written_to():
    """The first gradient of x is the seed itself. Later gradients of x must not be added to the seed."""
    x, b = leaf(1.0, 2.0), leaf(5.0, 5.0)
    seed = np.array([1.0, 1.0])
    y = (x + b) + (x * 3 + x)
    gx, gb = grad(y, [x, b], seed)
    assert gx.tolist() == [5, 5]
    assert gb.tolist() == [1, 1]
    assert seed.tolist() == [1, 1]


def test_a_gradient_can_be_written_to():
    x = leaf(1.0, 2.0)
    x.sum().backward()  # sum's gradient is a read-only broadcast
    x.grad *= 2
    assert x.grad.tolist() == [2, 2]


# ---- grad and backward ---------------------------------------------------------------------------------------------


def test_grad_touches_no_grad():
    x, y = leaf(1.0), leaf(2.0)
    assert [g.item() for g in grad((x * y).sum(), [x, y])] == [2, 1]
    assert x.grad is None
    assert y.grad is None


def test_grad_of_an_unconnected_input_is_zero():
    x, other = leaf(1.0), Tensor(np.ones((2, 3), np.float32), requires_grad=True)
    g = grad((x * x).sum(), [other, x])
    assert g[0].shape == (2, 3)
    assert g[0].dtype == np.float32
    assert not g[0].any()
    assert g[1].item() == 2


def test_grad_with_respect_to_intermediates_and_the_output_itself():
    x = leaf(2.0)
    y = x * x
    z = y * 3
    assert [g.item() for g in grad(z, [z, y, x])] == [1, 3, 12]


def test_grad_refuses_inputs_that_require_no_gradient():
    x = leaf(1.0)
    with pytest.raises(ValueError, match=r"inputs \[1\] do not require a gradient"):
        grad(x * 2, [x, Tensor([1.0])])


def test_two_backwards_accumulate():
    x = leaf(1.0, 2.0)
    (x * x).sum().backward()
    first = x.grad
    (x * 3).sum().backward()
    assert x.grad.tolist() == [5, 7]
    assert x.grad is first  # into the memory that is there


def test_backward_reaches_every_leaf_and_nothing_else():
    x, frozen = leaf(2.0), Tensor([3.0])
    y = x * frozen
    y.backward()
    assert x.grad.item() == 3
    assert frozen.grad is None
    assert y.grad is None


def test_a_second_backward_raises():
    x = leaf(2.0)
    y = (x * x).sum()
    y.backward()
    for again in (lambda: y.backward(), lambda: grad(y, [])):
        with pytest.raises(RuntimeError, match=r"backward through sum a second time.*Run the forward pass again"):
            again()
    assert x.grad.item() == 4


def test_a_second_backward_through_a_shared_part_raises():
    x = leaf(2.0)
    shared = x * x
    a, b = shared.sum(), (shared * 2).sum()
    a.backward()
    with pytest.raises(RuntimeError, match="backward through multiply a second time"):
        b.backward()


def test_a_gradient_starts_from_a_scalar():
    x = leaf(1.0, 2.0)
    with pytest.raises(RuntimeError, match=r"starts from a scalar, got shape \(2,\)"):
        (x * 2).backward()
    with pytest.raises(ValueError, match=r"gradient has shape \(3,\), but the Tensor has \(2,\)"):
        (x * 2).backward(np.ones(3))
    (x * 2).backward([1, 10])
    assert x.grad.tolist() == [2, 20]


def test_one_element_is_scalar_enough():
    x = leaf(3.0)
    (x * x).reshape(1, 1).backward()
    assert x.grad.tolist() == [6]


@pytest.mark.parametrize("make", [lambda: Tensor([1.0]) * 2, lambda: Tensor(1.0), lambda: (leaf(1.0) * 2).detach()])
def test_nothing_to_differentiate(make):
    with pytest.raises(RuntimeError, match="nothing to differentiate"):
        make().backward()


def test_the_seed_takes_the_dtype_of_the_output():
    x = Tensor([1.0, 2.0], requires_grad=True)
    y, seen = x * 2, []
    y.register_hook(lambda g: seen.append(g.dtype))
    y.backward(np.ones(2))
    x.backward([1, 1])
    assert [*seen, x.grad.dtype, *(g.dtype for g in grad(x, x, np.ones(2)))] == [np.float32] * 3


def test_a_complex_gradient_is_added_to_real_ones():
    def real_twice_then_complex(a, b, c):
        return a + b + c, lambda g: (g, g * 2, g * 3j)

    x = leaf(1.0)
    assert grad(apply(real_twice_then_complex, x, x, x), x)[0].tolist() == [3 + 3j]


def test_a_kernel_with_too_few_gradients_is_named():
    def broken(a, b):
        return a + b, lambda g: (g,)

    with pytest.raises(RuntimeError, match="vjp of broken returned 1 gradients for 2 inputs"):
        apply(broken, leaf(1.0), leaf(2.0)).backward()


# ---- no_grad -------------------------------------------------------------------------------------------------------


def test_no_grad_as_a_context():
    x = leaf(1.0)
    with no_grad():
        assert not is_grad_enabled()
        assert not (x * 2).requires_grad
        with no_grad():
            pass
        assert not is_grad_enabled()
    assert is_grad_enabled()
    assert (x * 2).requires_grad


def test_no_grad_as_a_decorator():
    @no_grad()
    def double(x):
        return x * 2

    x = leaf(1.0)
    assert not double(x).requires_grad
    assert not double(x).requires_grad  # a decorator works more than once
    assert is_grad_enabled()


def test_no_grad_ends_with_an_exception():
    with pytest.raises(ZeroDivisionError), no_grad():
        raise ZeroDivisionError
    assert is_grad_enabled()


def test_no_grad_does_not_reach_another_thread():
    inside, seen = threading.Event(), threading.Event()
    results = {}

    def other():
        inside.wait(60)
        results["other"] = (leaf(1.0) * 2).requires_grad
        seen.set()

    thread = threading.Thread(target=other, daemon=True)
    thread.start()
    with no_grad():
        inside.set()
        assert seen.wait(60)
        results["here"] = (leaf(1.0) * 2).requires_grad
    thread.join(60)
    assert results == {"other": True, "here": False}


def test_no_grad_inside_a_generator_function_does_not_reach_its_caller():
    x = leaf(1.0)

    def steps():
        while True:
            with no_grad():
                y = x * 2
            yield y

    one = steps()
    for _ in range(2):
        assert not next(one).requires_grad
        assert (x * 2).requires_grad
    with no_grad():
        next(one)
        assert not is_grad_enabled()
    assert is_grad_enabled()


def test_a_generator_that_is_consumed_in_no_grad_records_nothing():
    x = leaf(1.0)
    with no_grad():
        assert not any(y.requires_grad for y in (x * k for k in range(3)))


# ---- threads -------------------------------------------------------------------------------------------------------


def test_threads_differentiate_one_gpt_at_once():
    config = GPTConfig(vocab_size=7, block_size=4, n_layer=2, n_head=2, n_embd=4)
    loss, parameters, _ = gpt_problem(config, Generator(0))
    alone = grad(loss(), parameters)
    with ThreadPoolExecutor(4) as pool:
        for gradients in pool.map(lambda _: grad(loss(), parameters), range(12)):
            for a, b in zip(alone, gradients, strict=True):
                np.testing.assert_array_equal(a, b)
    assert all(p.grad is None for p in parameters)


# ---- length and memory ---------------------------------------------------------------------------------------------

LONG = 40_000  # links: a recursion of that depth would end the process


@pytest.fixture
def no_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def long_chain(x):
    """A chain on x, and a weak reference to what its first link saved."""
    y = x.exp()
    first = weakref.ref(y.data)
    for _ in range(LONG):
        y = -y
    return y, first


@pytest.mark.usefixtures("no_collector")
def test_a_long_chain_differentiates_and_is_freed():
    x = leaf(1.0)
    y, first = long_chain(x)
    assert first() is not None
    y.backward()
    assert x.grad.item() == math.e  # an even number of signs
    assert first() is None


@pytest.mark.usefixtures("no_collector")
def test_a_long_chain_is_freed_without_backward():
    y, first = long_chain(leaf(1.0))
    del y
    assert first() is None


def saved_by(y):
    """Weak references to the arrays that the closure of y's own vjp holds."""
    cells = [cell.cell_contents for cell in y._node.vjp.__closure__]
    return [weakref.ref(a) for a in cells if isinstance(a, np.ndarray)]


@pytest.mark.usefixtures("no_collector")
def test_the_graph_is_freed_by_reference_counting_alone():
    x = Tensor(np.random.default_rng(0).standard_normal((4, 4)), requires_grad=True)
    h = x.tanh()
    references = [weakref.ref(h.data), *saved_by(h)]
    y = (h @ h.T).softmax(-1).log().sum()
    del h
    assert all(r() is not None for r in references)
    del y
    assert all(r() is None for r in references)


@pytest.mark.usefixtures("no_collector")
def test_backward_frees_activations_while_the_loss_is_alive():
    x = Tensor(np.random.default_rng(0).standard_normal((4, 4)), requires_grad=True)
    h = x.tanh()
    references = [weakref.ref(h.data), *saved_by(h)]
    y = (h * h).sum()
    del h
    y.backward()
    assert all(r() is None for r in references)
    assert math.isfinite(y.item())


@pytest.mark.usefixtures("no_collector")
def test_activations_are_freed_during_the_walk():
    """When the walk reaches the first layer, the arrays that the last one saved are freed."""
    alive = []

    def spy(x):
        def vjp(g):
            alive.append(late() is not None)
            return (g,)

        return x * 1, vjp

    x = leaf(1.0, 2.0)
    h = apply(spy, x).exp()
    late = weakref.ref(h.data)
    y = h.sum()
    del h
    y.backward()
    assert alive == [False]


@pytest.mark.usefixtures("no_collector")
def test_no_grad_keeps_nothing():
    x = leaf(1.0, 2.0)
    with no_grad():
        h = x.exp()
        late = weakref.ref(h.data)
        h = h.tanh().sum()
    assert late() is None
    assert h._node is None


@pytest.mark.usefixtures("no_collector")
def test_a_graph_that_was_walked_keeps_no_leaf_and_no_gradient():
    x = leaf(1.0)
    y = (x * 2).sum()
    y.backward()
    gone = weakref.ref(x), weakref.ref(x.grad)
    del x
    assert [ref() for ref in gone] == [None, None]
    assert y.item() == 2


def test_a_retained_graph_gives_the_same_gradient_again():
    rng = Generator(4)
    x, w = Tensor(rng.randn((3, 4)), requires_grad=True), Tensor(rng.randn((5, 4)), requires_grad=True)
    h = F.linear(x, w)
    y = h.tanh() + h
    # Saved gradients are returned, and then others are added to them.
    loss = y.sum() + F.linear_cross_entropy(y, w @ w.T, np.array([0, 1, 4])) + h.sum()
    first = grad(loss, [x, w], retain_graph=True)
    loss.backward(retain_graph=True)
    loss.backward()
    for p, g in zip((x, w), first, strict=True):
        np.testing.assert_allclose(p.grad, 2 * g, rtol=1e-6)
    with pytest.raises(RuntimeError, match="a second time"):
        loss.backward()
