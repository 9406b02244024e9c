"""Changes in place: where they are allowed, and that backward never uses a value that changed after it was saved."""

import operator
from functools import partial

import numpy as np
import pytest

from tinygrad_llm import Generator
from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor, apply, detect_anomaly, enable_grad, grad, no_grad, recompute
from tinygrad_llm.autograd.node import _changes
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.nn import Linear, Parameter
from tinygrad_llm.optim import SGD, AdamW

CHANGED = "modified by an inplace operation"


def leaf(*shape):
    return Tensor(np.random.default_rng(0).uniform(0.5, 2, shape), requires_grad=True)


# ---- a value that was saved for backward -----------------------------------------------------------------------------


def optimizer_step(w):
    w.grad = np.ones_like(w.data)
    SGD([w], 0.1).step()


def subtract(w):
    with no_grad():
        w -= 1


def write_to_a_view(w):
    with no_grad():
        w.detach()[0][...] = 3


CHANGES = [optimizer_step, subtract, write_to_a_view]
READS = {  # functions of w whose backward needs values of w
    "product": lambda w: w * w,
    "power": lambda w: w**2,
    "matmul with a transpose": lambda w: leaf(2, 3) @ w.T,
    "a slice": lambda w: w[:1] * w[1:],
    "a detached copy": lambda w: leaf(2, 3) * w.detach(),
    "linear": lambda w: F.linear(leaf(2, 3), w),
    "layer norm": lambda w: F.layer_norm(leaf(2, 3), 3, w[0], w[1]),
    "recompute": lambda w: recompute(lambda x: (x * w).tanh(), leaf(2, 3), [w]),
}
PASSES = {  # functions whose backward needs no value of w
    "sum": lambda w: w + 2 * w - 1,
    "product with a constant": lambda w: w * np.full((2, 3), 2.0),
    "copy": lambda w: (w + 0) ** 2,
    "shape": lambda w: w.T.reshape(-1)[1:4],
    "mean": lambda w: w.mean(0),
    "embedding": lambda w: F.embedding(np.array([1, 0, 1]), w),
}


@pytest.mark.parametrize("change", CHANGES)
def test_backward_through_a_value_that_changed_raises(change):
    for name, read in READS.items():
        w = leaf(2, 3)
        y = read(w).sum()
        change(w)
        before = None if w.grad is None else w.grad.copy()
        with pytest.raises(RuntimeError, match=CHANGED):
            y.backward()
        assert w.grad is before or np.array_equal(w.grad, before), name


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_a_value_that_backward_does_not_need_is_not_an_error(change):
    for name, read in PASSES.items():
        w = leaf(2, 3)
        (expected,) = grad(read(w).sum(), w)
        y = read(w).sum()
        change(w)
        np.testing.assert_array_equal(grad(y, w)[0], expected, err_msg=name)


def test_the_error_names_the_operation_and_the_line_if_known():
    w = leaf(2, 3)
    y = (w * w).sum()
    subtract(w)
    with pytest.raises(RuntimeError, match=r"multiply saved .*, shape \(2, 3\), .* run the forward pass again"):
        y.backward()
    with detect_anomaly():
        y = (w * w).sum()
        subtract(w)
        with pytest.raises(RuntimeError, match="multiply saved its input"):
            y.backward()


def test_a_new_array_makes_no_change():
    """The saved array keeps its values if `.data` is replaced, as `load_state_dict` does."""
    layer = Linear(3, 2, rng=Generator(0))
    y = (layer(Tensor(np.ones((1, 3), np.float32))) ** 2).sum()
    x = leaf(1, 3)
    z = F.linear(x, layer.weight).sum()
    old = layer.weight.data.copy()
    layer.load_state_dict({name: array + 1 for name, array in layer.state_dict().items()})
    y.backward()
    np.testing.assert_allclose(grad(z, x)[0][0], old.sum(0))


def test_recompute_needs_the_same_parameters():
    w = leaf(2, 3)
    y = recompute(lambda x: x * w, leaf(2, 3), [w]).sum()
    w.data = w.data + 1
    with pytest.raises(RuntimeError, match=f"{CHANGED}.*recompute"):
        y.backward()


@pytest.mark.parametrize("options", [{}, {"recompute": True}, {"fused": False}], ids=str)
def test_training_changes_nothing_that_is_saved(options):
    """Accumulation, several losses, evaluation and another model's steps between forward and backward."""
    model, other = (
        GPT(GPTConfig(vocab_size=7, block_size=4, n_layer=2, n_head=2, n_embd=4), Generator(i), **options)
        for i in range(2)
    )
    ids = np.array([[1, 2, 3, 4]])
    optimizer, another = AdamW(list(model.parameters())), AdamW(list(other.parameters()))
    for _ in range(2):
        model.zero_grad()
        for _ in range(2):
            loss = model.loss(ids, ids)
            other.loss(ids, ids).backward()
            another.step()
            model.generate(ids[:, :2], 2)
            loss.backward()
        optimizer.step()
    loss = model.loss(ids, ids)
    optimizer.step()
    with pytest.raises(RuntimeError, match=CHANGED):
        loss.backward()


def test_a_change_in_another_thread_is_seen(in_threads):
    w = leaf(2, 3)
    y = (w * w).sum()
    in_threads(partial(subtract, w))
    with pytest.raises(RuntimeError, match=CHANGED):
        y.backward()


def test_changes_of_arrays_that_are_gone_are_forgotten():
    before = len(_changes._last)
    leaves = [leaf(2, 3) for _ in range(5)]
    for w in leaves:
        subtract(w)
    assert len(_changes._last) == before + 5
    del leaves, w
    assert len(_changes._last) == before


# ---- where a change in place is allowed ------------------------------------------------------------------------------


UPDATES = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ipow: operator.pow,
}


@pytest.mark.parametrize("y", [2, 0.1, np.float64(0.1), np.array([1.0, 2.0]), Tensor([2.0, 3.0])], ids=str)
def test_an_update_without_recording_is_in_place_and_gives_what_the_operator_gives(y):
    for update, operation in UPDATES.items():
        for make in (Tensor, Parameter):
            x = make(np.linspace(1, 3, 50, dtype=np.float32).reshape(25, 2))
            data, expected = x.data, operation(x, y).data.astype(np.float32)
            with no_grad():
                assert update(x, y) is x
            assert x.data is data
            np.testing.assert_array_equal(x.data, expected)
        plain = Tensor([1.0, 4.0])
        assert update(plain, y) is plain  # nothing requires a gradient


def test_an_update_of_a_leaf_raises_outside_no_grad():
    for update in [*UPDATES, lambda w, y: operator.setitem(w, 0, y)]:
        w = leaf(2)
        before = w.data.copy()
        with pytest.raises(RuntimeError, match="no_grad"):
            update(w, 1.0)
        np.testing.assert_array_equal(w.data, before)


def test_an_update_that_is_recorded_makes_a_new_tensor():
    for update in UPDATES:
        w = leaf(2)
        h = w * 2
        before, saved = h, h.data.copy()
        h = update(h, w)
        assert h is not before
        np.testing.assert_array_equal(before.data, saved)
        x = Tensor([1.0, 2.0])  # requires no gradient itself
        assert update(x, w).requires_grad


def test_an_update_that_does_not_fit_raises_and_changes_nothing():
    with pytest.raises(TypeError, match="same_kind"):
        operator.itruediv(Tensor([1, 2]), 2)
    x = Tensor([1.0, 2.0])
    with pytest.raises(ValueError, match="broadcast"):
        operator.iadd(x, np.ones((3, 2)))
    assert x.tolist() == [1, 2]


def test_gradient_descent_as_in_pytorch():
    layer = Linear(3, 1, rng=Generator(0))
    weight, names = layer.weight, [name for name, _ in layer.named_parameters()]
    x, start = Tensor(np.ones((1, 3), np.float32)), layer.weight.data.copy()
    layer(x).sum().backward()
    with no_grad():
        for p in layer.parameters():
            p -= 0.1 * p.grad
        layer.bias -= 0.1 * layer.bias.grad
    np.testing.assert_allclose(layer.weight.data, start - 0.1, rtol=1e-6)
    assert layer.weight is weight
    assert [name for name, _ in layer.named_parameters()] == names


def test_items_are_set_where_nothing_is_recorded():
    t = Tensor([1.0, 2.0, 3.0])
    t[0] = 5
    t[Tensor([1, 2])] = Tensor([7.0, 8.0])
    t[t > 7] = 0
    assert t.tolist() == [5, 7, 0]
    w = leaf(2)
    with no_grad():
        w[0] = 5
    assert w.data[0] == 5
    for x, value in ((w * 1, 1.0), (Tensor([1.0, 2.0]), w[0])):
        with pytest.raises(RuntimeError, match=r"functional\.where"):
            x[0] = value


# ---- no_grad as a decorator ------------------------------------------------------------------------------------------


def test_no_grad_holds_in_each_step_of_a_generator_function_and_not_between_them():
    w = leaf(1)
    recorded = []

    @no_grad()
    def steps(n):
        """Words."""
        for i in range(n):
            recorded.append((w * i).requires_grad)
            try:
                sent = yield i
            except KeyError:
                sent = "caught"
            except GeneratorExit:
                recorded.append((w * i).requires_grad)
                raise
            recorded.append((w * i).requires_grad)
            if sent:
                yield sent
        return "end"

    assert (steps.__name__, steps.__doc__) == ("steps", "Words.")
    for _ in range(2):  # the decorator can be used again
        between = []
        for _ in steps(2):
            between.append((w * 2).requires_grad)
        assert between == [True, True]
    generator = steps(2)
    assert next(generator) == 0
    assert generator.send("sent") == "sent"
    assert next(generator) == 1
    assert generator.throw(KeyError()) == "caught"
    with pytest.raises(StopIteration) as stopped:
        next(generator)
    assert stopped.value.value == "end"
    generator = steps(2)
    next(generator)
    generator.close()
    with pytest.raises(StopIteration):
        next(generator)
    assert len(recorded) == 4 + 4 + 4 + 2
    assert not any(recorded)
    assert (w * 2).requires_grad


def test_a_decorator_holds_in_a_function_and_lets_errors_through():
    w = leaf(1)

    @no_grad()
    def function(n):
        if n:
            raise KeyError(n)
        return w * 2

    assert not function(0).requires_grad
    with pytest.raises(KeyError):
        function(1)

    @detect_anomaly()
    def logs():
        yield (w * 0).log()

    with pytest.raises(RuntimeError, match="log made inf"):
        next(logs())

    @no_grad()
    def outer():
        with enable_grad():
            return w * 2

    assert outer().requires_grad


# ---- freezing --------------------------------------------------------------------------------------------------------


def test_a_leaf_that_is_frozen_for_a_while_keeps_its_gradient_and_its_hooks():
    w, seen = leaf(2), []
    handle = w.register_hook(seen.append)
    (w * 3).sum().backward()
    w.requires_grad = False
    assert not (w * 2).requires_grad
    assert w.grad.tolist() == [3, 3]
    w.requires_grad = True
    (w * 2).sum().backward()
    assert w.grad.tolist() == [5, 5]
    assert len(seen) == 2
    w.requires_grad = False
    w.grad = None
    handle.remove()
    w.requires_grad = True
    (w * 2).sum().backward()
    assert w.grad.tolist() == [2, 2]
    assert len(seen) == 2


# ---- gradients that do not fit ---------------------------------------------------------------------------------------


def wrong(d):
    def wrong(x):
        return x * 2, lambda g: d(g)

    return wrong


def bare(out):
    def bare(x):
        return out

    return bare


@pytest.mark.parametrize("computed", [False, True])
def test_a_vjp_of_the_wrong_shape_or_number_raises(computed):
    for d, words in [
        (lambda g: (g[:1],), r"wrong returned a gradient of shape \(1,\) for an input of shape \(2,\)"),
        (lambda g: (g.sum(),), r"shape \(\)"),
        (lambda g: (np.stack([g, g]),), r"shape \(2, 2\)"),
        (lambda g: (1.0,), r"shape \(\)"),
        (lambda g: g, "ndarray, not a tuple"),
        (lambda g: (g, g), "2 gradients for 1 inputs"),
        (lambda g: None, "NoneType, not a tuple"),
    ]:
        w = leaf(2)
        with pytest.raises(RuntimeError, match=words):
            apply(wrong(d), w * 1 if computed else w).sum().backward()
        assert w.grad is None


@pytest.mark.parametrize("out", [np.array([1.0, 2.0]), np.ones((2, 3)), [np.ones(2), None]], ids=str)
def test_a_kernel_without_a_vjp_raises_also_where_nothing_is_recorded(out):
    """An array of length 2 would be unpacked into an output and a vjp."""
    for x in (leaf(2), Tensor([1.0])):
        with pytest.raises(TypeError, match=r"bare returned .*: a kernel must return \(out, vjp\)"):
            apply(bare(out), x)


def test_a_gradient_has_the_dtype_of_its_value():
    """Next to float64 a float32 value gets a float32 gradient; hooks, sums and `grad` see the same."""
    seen = []
    for dtype in (np.float16, np.float32, np.float64):
        seen.clear()
        x = Tensor(np.array([1, 2], dtype), requires_grad=True)
        h = x * 2
        for t in (x, h):
            t.register_hook(lambda g: seen.append(g.dtype))
        y = (h * np.array([1.0, 2.0]) + h * Tensor(np.array([1.0, 2.0])) + apply(wrong(lambda g: ([1, 2],)), h)).sum()
        assert y.dtype == np.float64
        assert [g.dtype for g in grad(y, [x, h])] == [dtype, dtype]
        (x * np.array([1.0, 2.0])).sum().backward()
        assert x.grad.dtype == dtype
        assert set(seen) == {np.dtype(dtype)}


def test_a_complex_gradient_of_a_real_leaf_raises():
    x, z = leaf(2), Tensor(np.array([1j, 2]), requires_grad=True)
    with pytest.raises(RuntimeError, match="real scalar"):
        (x * z).sum().backward()
    with pytest.raises(RuntimeError, match="make the leaf complex"):
        (x * z).sum().backward(1 + 0j)
    assert x.grad is None
    assert z.grad is None
    (z * z).sum().backward(1 + 0j)
    np.testing.assert_array_equal(z.grad, [2j, 4])
    with pytest.raises(ValueError, match="gradient is complex128"):
        (x * x).backward(np.array([1j, 1]))
