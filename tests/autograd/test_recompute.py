"""`recompute`: the same gradients to the last bit, from the input alone."""

import gc
import weakref

import numpy as np
import pytest

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import AnomalyError, Tensor, detect_anomaly, grad, no_grad, recompute
from tinygrad_llm.gradcheck import gradcheck
from tinygrad_llm.random import Generator


def leaf(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def same_bits(found, expected):
    assert [g.tobytes() for g in found] == [g.tobytes() for g in expected]


def test_the_gradients_are_the_same_to_the_bit():
    """Except for a parameter that two such functions share: its gradients are added in another order."""
    x, w, b = leaf(4, 3), [leaf(3, 3, seed=1), leaf(3, 3, seed=2)], [leaf(3, seed=3), leaf(3, seed=4)]

    def block(x, i):
        return (x @ w[i] + b[i]).tanh() @ w[i] + x

    def steps(around):
        y = around(around(x * 2, 0), 1) * x
        return [y.data, *grad(y, [x, *w, *b], np.ones((4, 3)))]

    same_bits(steps(lambda x, i: recompute(lambda x: block(x, i), x, [w[i], b[i]])), steps(block))
    shared = [recompute(lambda x: block(x, 0), x, [w[0], b[0]]) for _ in range(2)]
    np.testing.assert_allclose(
        grad(shared[0] + shared[1], w[0], np.ones((4, 3)))[0],
        grad(block(x, 0) + block(x, 0), w[0], np.ones((4, 3)))[0],
        rtol=1e-13,
    )


def test_the_gradient_passes_gradcheck():
    x, w, b = leaf(4, 3), leaf(3, 3, seed=1), leaf(3, seed=2)
    assert gradcheck(lambda x, w, b: recompute(lambda x: (x @ w + b).tanh(), x, [w, b]), [x.data, w.data, b.data])


def test_dropout_drops_the_same_elements_the_second_time_and_leaves_the_stream_as_without():
    x = leaf(8, 8)

    def steps(around):
        rng, found = Generator(3), []
        for _ in range(2):
            y = around(lambda x: F.dropout(F.dropout(x, 0.5, rng=rng).tanh(), 0.3, rng=rng), x, rng)
            after = F.dropout(y, 0.5, rng=rng)
            found += [after.data, *grad(after.sum(), [x]), rng.rand((3,))]
        return found

    same_bits(steps(lambda f, x, rng: recompute(f, x, [], [rng])), steps(lambda f, x, rng: f(x)))


def test_an_input_that_is_also_a_parameter_gets_both_gradients():
    w = leaf(3, 3)

    def block(x):
        return (x @ w).tanh()

    same_bits(grad(recompute(block, w, [w]).sum(), [w]), grad(block(w).sum(), [w]))


def test_frozen_tensors_get_no_gradient():
    x, w, frozen = leaf(2, 3), leaf(3, 3, seed=1), Tensor(np.ones(3))

    def block(x):
        return x @ w * frozen

    same_bits(grad(recompute(block, x, [w, frozen]).sum(), [x, w]), grad(block(x).sum(), [x, w]))
    same_bits(grad(recompute(block, x.detach(), [w, frozen]).sum(), [w]), grad(block(x.detach()).sum(), [w]))
    assert not recompute(lambda x: x * frozen, x.detach(), [frozen]).requires_grad
    with no_grad():
        assert not recompute(block, x, [w]).requires_grad
    (unused,) = grad(recompute(block, x, [w, leaf(2)]).sum(), [leaf(2)])
    assert not unused.any()


def test_a_function_that_returns_its_input():
    x = leaf(2, 3)
    np.testing.assert_array_equal(grad(recompute(lambda x: x, x, []).sum(), [x])[0], np.ones((2, 3)))


def test_a_hook_of_a_parameter_sees_its_whole_gradient_once():
    x, w = leaf(2, 3), leaf(3, 3, seed=1)
    seen = []
    w.register_hook(seen.append)
    y = recompute(lambda x: x @ w @ w, x, [w]) + x @ w
    y.backward(np.ones((2, 3)))
    assert len(seen) == 1
    np.testing.assert_array_equal(seen[0], w.grad)


def test_backward_may_run_in_no_grad():
    x = leaf(2, 3)
    y = recompute(lambda x: x * x, x, []).sum()
    with no_grad():
        y.backward()
    np.testing.assert_array_equal(x.grad, 2 * x.data)


@pytest.mark.parametrize("kept", [True, False])
def test_no_activation_inside_is_kept(kept):
    x, inside = leaf(100, 100), []

    def block(x):
        y = x.tanh()
        inside.append(weakref.ref(y.data))
        return y.sum()

    y = block(x) if kept else recompute(block, x, [])
    gc.collect()
    assert (inside[0]() is not None) is kept
    grad(y, [x])
    gc.collect()
    assert all(ref() is None for ref in inside)


def test_a_second_backward_raises():
    x = leaf(2)
    y = recompute(lambda x: x * x, x, []).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="a second time"):
        y.backward()


def test_anomaly_mode_changes_no_gradient_and_names_the_operation_inside():
    x, w = leaf(2, 3), leaf(3, 3, seed=1)
    expected = grad((x @ w).tanh().sum(), [x, w])
    with detect_anomaly():
        same_bits(grad(recompute(lambda x: (x @ w).tanh(), x, [w]).sum(), [x, w]), expected)
        y = recompute(lambda x: (x * 0).sqrt(), x, []).sum()
        with pytest.raises(AnomalyError, match="sqrt made inf in the gradient of sqrt's input x") as info:
            y.backward()
        assert info.value.operation == "sqrt"
        y = recompute(lambda x: x * 2, x, []).sum()
        x.data += 1
        with pytest.raises(
            AnomalyError, match=r"recompute saved its input x \(as x\), shape \(2, 3\).* in place since"
        ):
            y.backward()


def test_a_parameter_named_twice_gets_its_gradient_once():
    x, w = leaf(2, 3), leaf(3, 3, seed=1)
    same_bits(grad(recompute(lambda x: x @ w, x, [w, w]).sum(), [w]), grad((x @ w).sum(), [w]))
