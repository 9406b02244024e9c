"""Hooks: the gradient they see, the changes they may make, when they run, and that they keep nothing alive."""

import gc
import weakref

import numpy as np
import pytest

from tinygrad_llm import Tensor, grad, no_grad
from tinygrad_llm.autograd.tensor import hooked


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


def both_ways(loss, x):
    """The gradient of loss(x) by `backward` and by `grad`."""
    x.grad = None
    loss(x).backward()
    (other,) = grad(loss(x), x)
    np.testing.assert_array_equal(x.grad, other)
    return other


def test_a_hook_sees_the_complete_gradient_once():
    x = leaf(1.0, 2.0)
    seen = []
    x.register_hook(lambda g: seen.append(g.copy()))
    g = both_ways(lambda x: (x * x + 3 * x + x.exp()).sum(), x)
    assert len(seen) == 2  # one for each walk, though x is used four times
    np.testing.assert_array_equal(seen, [g, g])


def test_a_hook_on_a_computed_tensor_changes_the_gradients_before_it():
    x = leaf(1.0, 2.0)

    def loss(x):
        y = x * x
        y.register_hook(lambda g: g * 10)
        return (y + y).sum()

    np.testing.assert_array_equal(both_ways(loss, x), 10 * 2 * 2 * x.data)


def test_the_gradient_of_a_computed_tensor_is_the_one_its_hook_returned():
    x = leaf(3.0)
    y = x * x
    y.register_hook(lambda g: -g)
    dy, dx = grad(y * 2, [y, x])
    assert (dy.item(), dx.item()) == (-2, -12)


def test_hooks_of_leaves_may_be_left_for_later_and_those_of_computed_tensors_run():
    """So do workers and recompute, which see only a part of a leaf's gradient."""
    x = leaf(1.0, 2.0)
    x.register_hook(lambda g: g * 100)
    y = x * x
    y.register_hook(lambda g: g * 10)
    (g,) = grad(y.sum(), [x], leaf_hooks=False)
    assert g.tolist() == [20, 40]
    assert hooked(x, g).tolist() == [2000, 4000]


def test_several_hooks_run_in_the_order_of_registration_and_can_be_removed():
    x = leaf(1.0)
    handles = [x.register_hook(hook) for hook in (lambda g: g + 1, lambda g: g * 10, lambda g: None)]
    assert both_ways(lambda x: x.sum(), x).item() == 20
    handles[0].remove()
    handles[0].remove()
    assert both_ways(lambda x: x.sum(), x).item() == 10
    handles[1].remove()
    handles[2].remove()
    assert both_ways(lambda x: x.sum(), x).item() == 1


def test_a_hook_may_remove_itself():
    x = leaf(1.0)
    handle = x.register_hook(lambda g: handle.remove() or g * 2)
    x.register_hook(lambda g: g * 3)
    assert [grad(x.sum(), x)[0].item() for _ in range(2)] == [6, 3]


def test_the_array_that_a_hook_sees_is_read_only_and_does_not_change_later():
    x = leaf(1.0, 2.0)
    seen = []
    x.register_hook(seen.append)
    (x * x + x).sum().backward()
    (x * x + x).sum().backward()  # added to .grad in place
    with pytest.raises(ValueError, match="read-only"):
        seen[0][0] = 7
    np.testing.assert_array_equal(seen, [[3, 5], [3, 5]])
    np.testing.assert_array_equal(x.grad, [6, 10])


def test_the_array_that_a_hook_returns_is_not_written_to():
    mine = np.array([1.0, 1.0])
    x = leaf(1.0, 2.0)
    x.register_hook(lambda g: mine)
    for _ in range(2):
        (x * x).sum().backward()
    np.testing.assert_array_equal(x.grad, [2, 2])
    np.testing.assert_array_equal(mine, [1, 1])


def test_a_hook_runs_on_a_leaf_that_is_the_output():
    x = leaf(1.0)
    x.register_hook(lambda g: g * 5)
    x.backward()
    assert x.grad.item() == 5


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda g: g[:1], r"a hook on exp returned shape \(1,\), but the gradient has \(2,\)"),
        (lambda g: g.astype(np.float64), "a hook on exp returned float64, but the gradient is float32"),
        (lambda g: "no numbers", "a hook on exp returned shape"),
    ],
)
def test_a_wrong_shape_or_dtype_from_a_hook_raises(wrong, message):
    x = leaf(1.0, 2.0, dtype=np.float32)
    y = x.exp()
    y.register_hook(wrong)
    with pytest.raises(ValueError, match=message):
        y.sum().backward()


def test_a_hook_may_return_a_tensor():
    x = leaf(1.0)
    x.register_hook(lambda g: Tensor(g) * 2)
    assert grad(x.sum(), x)[0].item() == 2


def test_a_hook_on_a_tensor_without_gradient_is_refused():
    with no_grad():
        computed = leaf(1.0) * 2
    for x in (Tensor([1.0]), computed, leaf(1.0).detach()):
        with pytest.raises(RuntimeError, match="does not require a gradient"):
            x.register_hook(print)


def test_a_hook_after_backward_is_refused():
    x = leaf(1.0)
    y = x * 2
    y.sum().backward()
    with pytest.raises(RuntimeError, match="has passed here already"):
        y.register_hook(print)


def test_a_hook_keeps_no_graph_alive():
    gc.collect()
    gc.disable()
    try:
        for walk in (True, False):
            x = leaf(1.0, 2.0)
            y = x.exp()
            handle = y.register_hook(lambda g: g * 2)
            saved = weakref.ref(y.data)
            z = y.sum()
            if walk:
                z.backward()
            del y, z
            assert saved() is None
            handle.remove()
        # A hook that refers to its own Tensor is a reference cycle. Backward breaks it.
        y = leaf(1.0, 2.0).exp()
        gone = weakref.ref(y)
        y.register_hook(lambda g, y=y: g * y.data)
        y.sum().backward()
        del y
        assert gone() is None
    finally:
        gc.enable()
