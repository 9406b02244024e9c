"""Observers: which calls they get, in which order, with which values, and that they change nothing."""

import gc
import weakref
from contextlib import contextmanager

import numpy as np
import pytest

from tinygrad_llm import GPT, Generator, GPTConfig, Tensor, grad, no_grad
from tinygrad_llm import functional as F
from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import apply, recompute
from tinygrad_llm.autograd.observer import (
    Observer,
    calling_line,
    current_layer,
    current_observer,
    inside_layer,
    observing,
)
from tinygrad_llm.nn import Linear, Module

SMALL = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=6, dropout=0.1)


def leaf(*values, dtype=np.float64):
    return Tensor(np.array(values, dtype), requires_grad=True)


class Log(Observer):
    """Writes down every call, with copies of the arrays."""

    def __init__(self, name="", log=None):
        self.name, self.calls = name, [] if log is None else log

    def add(self, *call):
        self.calls.append((self.name, *call) if self.name else call)

    @contextmanager
    def around(self, what):
        self.add(f"{what} begins")
        yield
        self.add(f"{what} ends")

    def around_kernel(self, kernel):
        return self.around(kernel.__name__)

    def around_vjp(self, node, vjp):
        return self.around(f"vjp of {node.name}")

    def around_sum(self, node):
        return self.around(f"sum for {node.name}")

    def on_operation(self, operation):
        self.add("operation", operation.name, operation.output.tolist())

    def on_backward(self, root, seed):
        self.add("backward", root.name, seed.tolist())

    def on_hook(self, node, before, after):
        self.add("hook", node.name, before.tolist(), after.tolist())

    def on_gradient(self, node, gradient):
        self.add("gradient", node.name, gradient.tolist())

    def on_vjp(self, node, parents, gradient, gradients):
        self.add(
            "vjp", node.name, gradient.tolist(), [None if g is None else np.asarray(g).tolist() for g in gradients]
        )

    def on_sum(self, node, first, second, total):
        self.add("sum", node.name, first.tolist(), second.tolist(), total.tolist())


def test_every_call_comes_in_the_order_of_the_work():
    x, w = leaf(2.0), Tensor(np.array([3.0]))
    log = Log()
    with observing(log):
        y = (x * w + x).sum()
        x.register_hook(lambda g: g * 10)
        y.backward()
    assert log.calls == [
        *[("multiply begins",), ("multiply ends",), ("operation", "multiply", [6])],
        *[("add begins",), ("add ends",), ("operation", "add", [8])],
        *[("sum begins",), ("sum ends",), ("operation", "sum", 8)],
        ("backward", "sum", 1),
        *[("gradient", "sum", 1), ("vjp of sum begins",), ("vjp of sum ends",), ("vjp", "sum", 1, [[1]])],
        *[("gradient", "add", [1]), ("vjp of add begins",), ("vjp of add ends",), ("vjp", "add", [1], [[1], [1]])],
        ("gradient", "multiply", [1]),
        *[("vjp of multiply begins",), ("vjp of multiply ends",), ("vjp", "multiply", [1], [[3], None])],
        *[("sum for leaf begins",), ("sum for leaf ends",), ("sum", "leaf", [1], [3], [4])],
        *[("hook", "leaf", [4], [40]), ("gradient", "leaf", [40])],
    ]
    assert x.grad.tolist() == [40]


def test_an_operation_names_kernel_inputs_options_output_and_vjp():
    class Keep(Observer):
        def on_operation(self, operation):
            kept.append(operation)

    kept = []
    x = leaf(1.0, 2.0)
    with observing(Keep()):
        y = (2 * x).sum(dim=0, keepdim=True)
        with no_grad():
            z = x.exp()
    multiply, total, exp = kept
    assert (multiply.kernel, total.kernel, exp.kernel) == (K.multiply, K.sum, K.exp)
    assert multiply.inputs[0] == 2
    assert multiply.inputs[1] is x
    assert [a.tolist() for a in multiply.arrays] == [2, [1, 2]]
    assert total.options == {"axis": 0, "keepdims": True}
    assert total.output is y
    assert total.inputs[0] is multiply.output
    assert total.node.parents == (multiply.node,)
    np.testing.assert_array_equal(total.node.vjp(np.ones(1))[0], [1, 1])
    assert exp.output is z
    assert exp.node is None  # not recorded


def rows(weight):
    return apply(K.embedding, weight, np.array([1, 1, 0]), sparse=True)


PROGRAMS = {
    "one use": lambda x: x.tanh().sum(),
    "several uses": lambda x: (x * x + x.exp() * x + x + x).sum(),
    "views": lambda x: (x.reshape(4).reshape(2, 2) + x.mT + x).sum(),
    "rows": lambda x: (rows(x) * 2).sum() + rows(x).tanh().sum() + (x @ x).sum(),
    "recomputed": lambda x: (recompute(lambda y: (y @ x).tanh(), x * 2, [x]) * x).sum(),
}


class Replay(Observer):
    """Builds each node's gradient from what vjps return and from the sums, and compares it with what arrives."""

    def __init__(self):
        self.walks, self.arrived = [], 0

    def on_backward(self, root, seed):
        self.walks.append({root: seed.copy()})

    @contextmanager
    def around_vjp(self, node, vjp):
        depth = len(self.walks)
        yield
        del self.walks[depth:]  # a walk that ran inside this vjp

    def on_gradient(self, node, gradient):
        np.testing.assert_array_equal(gradient, self.walks[-1].pop(node))
        self.arrived += 1

    def on_vjp(self, node, parents, gradient, gradients):
        for parent, g in zip(parents, gradients, strict=True):
            if parent is not None and g is not None:
                self.walks[-1].setdefault(parent, np.array(g))

    def on_sum(self, node, first, second, total):
        np.testing.assert_array_equal(first, self.walks[-1][node])
        np.testing.assert_array_equal(first + second, total)
        self.walks[-1][node] = total.copy()


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_calls_report_every_gradient_and_every_sum(name):
    x = Tensor(np.array([[0.5, -1.0], [2.0, 0.25]]), requires_grad=True)
    replay = Replay()
    with observing(replay):
        PROGRAMS[name](x).backward()
    assert replay.arrived > 2
    (expected,) = grad(PROGRAMS[name](x), x)
    assert x.grad.tobytes() == expected.tobytes()


# ---- which observer is called ----------------------------------------------------------------------------------------


def test_nested_observers_are_both_called_the_outer_one_first():
    calls = []
    a, b = Log("a", calls), Log("b", calls)
    x = leaf(1.0)
    with observing(a):
        with observing(b):
            (x * 2 + x).backward()
        inside = list(calls)
        x.exp()
    x.exp()
    for name in "ab":
        alone = Log()
        with observing(alone):
            (x * 2 + x).backward()
        assert [call[1:] for call in inside if call[0] == name] == alone.calls
    assert inside[:4] == [
        *[("a", "multiply begins"), ("b", "multiply begins"), ("b", "multiply ends"), ("a", "multiply ends")]
    ]
    told = [name for name, what, *values in inside if values]
    assert told == ["a", "b"] * (len(told) // 2)
    assert [call[0] for call in calls[len(inside) :]] == ["a"] * 3


def test_an_observer_named_twice_is_called_once():
    log = Log()
    with observing(log), observing(Observer()), observing(log):
        leaf(1.0).exp()
    assert [call[0] for call in log.calls] == ["exp begins", "exp ends", "operation"]


def test_it_ends_with_its_block_also_after_an_error():
    class Fails(Observer):
        def on_operation(self, operation):
            raise ZeroDivisionError

    x = leaf(1.0)
    with pytest.raises(ZeroDivisionError), observing(Fails()):
        x.exp()
    assert current_observer() is None
    x.exp().backward()


def test_backward_after_the_block_is_not_reported_unless_an_origin_was_left():
    class Follows(Log):
        def on_operation(self, operation):
            if operation.name == "exp":
                operation.node.origin = self
                self.observer = self

        def __str__(self):
            return "in the test"

    x = leaf(0.0)
    plain, follows = Log(), Follows()
    with observing(plain), observing(follows):
        y = (x.exp() + x.exp() * 2).sum()
    plain.calls.clear()
    follows.calls.clear()
    with observing(plain):
        y.backward()
    assert {call[1] for call in plain.calls if call[0] == "gradient"} == {"sum", "add", "exp", "multiply", "leaf"}
    assert [call[:2] for call in follows.calls if len(call) > 1] == [
        *[("gradient", "exp"), ("vjp", "exp")] * 2,
        ("sum", "leaf"),  # of what its own vjp made
    ]
    log = Follows()
    with observing(log):
        y = x.exp()
    y.backward()
    with pytest.raises(RuntimeError, match=r"backward through exp a second time \(in the test\)"):
        y.backward()


def test_an_observer_keeps_no_activation_alive():
    gc.collect()
    gc.disable()
    try:
        with observing(Observer()):
            h = leaf(1.0, 2.0).tanh()
            saved = weakref.ref(h.data)
            y = (h * h).sum()
            del h
            y.backward()
            assert saved() is None
    finally:
        gc.enable()


# ---- for whom an operation runs --------------------------------------------------------------------------------------


class Where(Observer):
    def __init__(self):
        self.found = []

    def on_operation(self, operation):
        self.found.append((operation.name, current_layer()[0], calling_line()))


def test_layer_and_line_of_an_operation():
    model = GPT(SMALL, Generator(0))
    where = Where()
    with observing(where), observing(Observer()):
        loss = model.loss(np.array([[1, 2]]), np.array([[2, 3]]))
        y = loss * 2  # this line
    found = {layer: (name, line) for name, layer, line in where.found}
    name, line = found["GPT.transformer.h.1.mlp.c_fc"]
    assert name == "linear"
    assert line.file.endswith("layers.py")
    assert line.text == "return F.linear(x, self.weight, self.bias)"
    _, _, line = where.found[-1]
    assert (line.text, line.file.endswith("test_observer.py")) == ("y = loss * 2  # this line", True)
    assert str(line) == f"{line.file}:{line.number} `{line.text}`"
    assert y.requires_grad


def test_a_layer_costs_nothing_when_nobody_observes(monkeypatch):
    def fails(*_):
        raise AssertionError("asked for a path")

    monkeypatch.setattr(Module, "_path_below", fails)
    layer = Linear(1, 1, rng=Generator(0))
    layer(leaf(1.0, dtype=np.float32))
    with pytest.raises(AssertionError, match="asked for a path"), observing(Observer()):
        layer(leaf(1.0, dtype=np.float32))


def test_a_layer_ends_with_its_block():
    with inside_layer("a", None):
        with inside_layer("a.b", None):
            assert current_layer()[0] == "a.b"
        assert current_layer()[0] == "a"
    assert current_layer() == ("", None)


# ---- nested walks ----------------------------------------------------------------------------------------------------


def test_recomputed_operations_are_reported_inside_the_vjp_of_recompute():
    x, w = leaf(1.0), leaf(3.0)
    log = Log()
    with observing(log):
        recompute(lambda y: F.tanh(y) * w, x, [w]).backward()
    names = [" ".join(str(part) for part in call[:2]) if len(call) > 1 else call[0] for call in log.calls]
    begin, end = names.index("vjp of recompute begins"), names.index("vjp of recompute ends")
    assert names[:begin] == [
        *["recompute begins", "tanh begins", "tanh ends", "operation tanh"],
        *["multiply begins", "multiply ends", "operation multiply", "recompute ends", "operation recompute"],
        *["backward recompute", "gradient recompute"],
    ]
    assert [n for n in names[begin:end] if n.startswith(("operation", "backward", "vjp "))] == [
        *["vjp of recompute begins", "operation tanh", "operation multiply", "backward multiply"],
        *["vjp of multiply begins", "vjp of multiply ends", "vjp multiply"],
        *["vjp of tanh begins", "vjp of tanh ends", "vjp tanh"],
    ]


def test_an_object_that_is_not_an_observer_is_refused():
    for wrong in (Observer, None, print):
        with pytest.raises(TypeError, match="observing: takes an instance of Observer, got"), observing(wrong):
            pass
