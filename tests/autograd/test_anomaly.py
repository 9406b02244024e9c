"""Anomaly mode: it finds bad values and names them, lets correct ones pass, and changes no result."""

import contextlib
import functools
import gc
import itertools
import pickle
import re
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from tinygrad_llm import GPT, AnomalyError, Generator, GPTConfig, Tensor, detect_anomaly, grad, no_grad
from tinygrad_llm import functional as F
from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Observer, apply, enable_grad, is_grad_enabled, observing
from tinygrad_llm.autograd.anomaly import _check_nan
from tinygrad_llm.autograd.observer import current_observer
from tinygrad_llm.nn import Linear, Module
from tinygrad_llm.optim import AdamW

THIS = Path(__file__).name
SMALL = GPTConfig(vocab_size=11, block_size=8, n_layer=2, n_head=2, n_embd=6, dropout=0.1)


def leaf(*values, dtype=np.float32):
    return Tensor(np.array(values, dtype), requires_grad=True)


def caught(fn, *args):
    """The AnomalyError that fn raises inside anomaly mode."""
    with pytest.raises(AnomalyError) as info, detect_anomaly():
        fn(*args)
    assert "\n" not in str(info.value)
    return info.value


SCOPES = {
    "no_grad": no_grad,
    "enable_grad": enable_grad,
    "evaluating": Module().evaluating,
    "observing": lambda: observing(Observer()),
    "detect_anomaly": detect_anomaly,
    "detect_anomaly without NaN": lambda: detect_anomaly(check_nan=False),
}


def test_a_block_inside_another_leaves_it_as_it_was_also_after_an_error(for_each):
    module, looks_for_nan = Module(), _check_nan.get

    def state():
        return is_grad_enabled(), module.training, current_observer(), looks_for_nan()

    def check(pair):
        start = state()
        with SCOPES[pair[0]]():
            before = state()
            assert before != start or pair[0] == "enable_grad"
            for inside in (lambda: None, lambda: 1 / 0):
                with contextlib.suppress(ZeroDivisionError), SCOPES[pair[1]]():
                    inside()
                assert state() == before
        assert state() == start

    for_each(itertools.product(SCOPES, SCOPES), check)


# ---- forward -------------------------------------------------------------------------------------------------------

INF, NAN = np.inf, np.nan
FORWARD = {
    "log of a negative": (lambda: leaf(1.0, -1.0).log(), "log made NaN in its output, shape (2,)"),
    "log of 0": (lambda: leaf(0.0).log(), "log made inf in its output"),
    "0 / 0": (lambda: leaf(0.0) / leaf(0.0), "divide made NaN in its output"),
    "1 / 0": (lambda: 1 / leaf(0.0), "divide made inf in its output"),
    "root of a negative": (lambda: leaf(-1.0).sqrt(), "sqrt made NaN in its output"),
    "negative to a half": (lambda: leaf(-1.0) ** 0.5, "power made NaN in its output"),
    "overflow": (lambda: leaf(89.0).exp(), "exp made inf in its output"),
    "overflow of a product": (lambda: leaf(1e30) @ leaf(1e30), "matmul made inf in its output, shape ()"),
    "inf - inf": (lambda: leaf(INF) - leaf(INF), "subtract made NaN in its output"),
    "0 · inf": (lambda: leaf(0.0) * leaf(INF), "multiply made NaN in its output"),
    "a masked row": (lambda: F.softmax(Tensor([[-INF, -INF]]), -1), "softmax made NaN in its output, shape (1, 2): at"),
    "NaN in the data": (lambda: Tensor([1, NAN]) + leaf(1.0), "it came in with its input a, shape (2,): at"),
    "NaN on the right": (lambda: leaf(1.0) + Tensor([1, NAN]), "it came in with its input b, shape (2,): at"),
    "NaN on both sides": (lambda: leaf(NAN) + leaf(NAN), "with its input a, shape (1,) and its input b, shape (1,)"),
    "NaN among several": (lambda: F.cat([leaf(1.0), leaf(NAN)]), "it came in with its input xs[1], shape (1,)"),
    "complex": (lambda: Tensor(np.array([complex(0, NAN)])) * 2, "it came in with its input a"),
}  # fmt: skip


@pytest.mark.parametrize("fn, message", FORWARD.values(), ids=FORWARD)  # noqa: PT006
def test_a_bad_output_is_found(fn, message):
    for run in (fn, no_grad()(fn)):
        error = caught(run)
        assert message in str(error)
        assert error.operation == str(error).split()[0]
        assert error.layer == ""
        assert "layer" not in str(error)
        assert THIS in error.where


CAUSES = {  # what each message says of the cause
    "the logarithm of a negative number": lambda: leaf(-1.0).log(),
    "the logarithm of 0 is −inf: add a small eps": lambda: leaf(0.0).log(),
    "the root of a negative number": lambda: leaf(-1.0).sqrt(),
    "a negative number to a fractional power": lambda: leaf(-1.0) ** 0.5,
    "0 to a negative power": lambda: leaf(0.0) ** -1.0,
    "0 / 0, or inf / inf": lambda: leaf(0.0) / leaf(0.0),
    "a division by 0": lambda: 1 / leaf(0.0),
    "0 · inf: to mask": lambda: leaf(0.0) * leaf(INF),
    "inf − inf": lambda: leaf(INF) - leaf(INF),
    "+inf, has no softmax": lambda: F.log_softmax(Tensor([[-INF, -INF]]), -1),
    "one entry of each row": lambda: F.softmax(Tensor([[-INF, -INF]]), -1),
    "eˣ overflows for x > 88.7": lambda: leaf(89.0).exp(),
    "a row of logits holds +inf, or −inf alone": lambda: F.cross_entropy(Tensor([[INF, 0.0]]), np.array([0])),
    "a number too large for the dtype": lambda: leaf(1e30) @ leaf(1e30),
    "is the learning rate too high?": lambda: F.cross_entropy(Tensor([[3e38, -3e38]]), np.array([1])),
}


def test_each_bad_output_has_its_cause(for_each):
    def check(cause):
        assert cause in str(caught(CAUSES[cause]))

    for_each(CAUSES, check)
    assert "inf − inf" in str(caught(lambda: leaf(INF) + leaf(-INF)))


PASSES = {
    "masked attention": lambda x: F.softmax(x.masked_fill(np.array([[False, True], [False, False]]), -INF), -1),
    "where": lambda x: F.where(np.array([True, False]), x, -INF).exp(),
    "logsumexp": lambda x: x.masked_fill(np.array([True, False]), -INF).logsumexp(-1),
    "NaN that is not selected": lambda x: F.where(np.array([True, True]), x, Tensor([NAN, NAN])),
    "a row that is not looked up": lambda x: F.embedding(np.array([0]), F.cat([x, Tensor([[INF, 1.0]])])),
    "integers": lambda x: Tensor([1, 2]) + Tensor([True, False]),
    "no elements": lambda x: x[:0] * 2,
}


@pytest.mark.parametrize("fn", PASSES.values(), ids=PASSES)
def test_a_legitimate_infinity_passes(fn):
    with detect_anomaly():
        x = Tensor(np.array([[1.0, 2.0], [3.0, 4.0]]), requires_grad=True)
        y = fn(x)
        if y.requires_grad:
            y.sum().backward()
            assert np.isfinite(x.grad).all()


# ---- backward ------------------------------------------------------------------------------------------------------

BACKWARD = {
    "root of 0": (lambda x: (x * 0).sqrt(), "sqrt made inf in the gradient of sqrt's input x, shape (2,)"),
    "small power of 0": (lambda x: (x * 0) ** 0.5, "power made inf in the gradient of power's input x"),
    "overflow": (lambda x: (x * 1e-20).log() * 1e30, "log made inf in the gradient of log's input x"),
    "second input": (lambda x: leaf(1.0) / (x * 1e-30), "divide made inf in the gradient of divide's input b"),
    "only −inf": (lambda x: (x - INF).logsumexp(-1), "logsumexp made NaN in the gradient of logsumexp's input x"),
}


@pytest.mark.parametrize("fn, message", BACKWARD.values(), ids=BACKWARD)  # noqa: PT006
def test_a_bad_gradient_is_found(fn, message):
    x = leaf(1.0, 2.0)

    def step(go):
        y = fn(x)  # the line that is named
        go(y.sum())

    for go in (lambda y: y.backward(), lambda y: grad(y, x)):
        error = caught(step, go)
        assert message in str(error)
        assert error.operation == message.split()[0]
        assert THIS in error.where
        assert x.grad is None


def test_the_line_of_a_gradient_is_the_one_that_recorded_it():
    x = leaf(0.0)

    def step():
        y = F.relu(x).sqrt()  # here
        y.sum().backward()

    assert caught(step).where.endswith("`y = F.relu(x).sqrt()  # here`")


def test_an_operation_recorded_outside_the_mode_is_checked_inside():
    y = leaf(0.0).sqrt().sum()
    error = caught(y.backward)
    assert "sqrt made inf in the gradient of sqrt's input 0" in str(error)
    assert "recorded outside detect_anomaly" in str(error)
    assert error.where == ""


def test_nan_from_a_seed_or_a_hook_is_traced():
    x = leaf(1.0, 2.0)
    assert "came in for exp, shape (2,), holds NaN already, from the seed" in str(
        caught(lambda: x.exp().backward([NAN, 1]))
    )
    assert "came in for leaf" in str(caught(lambda: x.backward([NAN, 1])))

    def hooked():
        y = x.exp()
        y.register_hook(lambda g: g * NAN)
        y.sum().backward()

    error = caught(hooked)
    assert "came in for exp, shape (2,), holds NaN already, from a hook: at" in str(error)
    assert error.where.endswith("`y = x.exp()`")

    handle = x.register_hook(lambda g: g * NAN)
    assert "came in for leaf, shape (2,), holds NaN already, from a hook" in str(caught(lambda: x.sum().backward()))
    handle.remove()


def test_an_infinite_gradient_may_pass_on():
    x = leaf(1.0)
    with detect_anomaly():
        (x * 2).backward([INF])
    assert x.grad.item() == INF


def broken(grads):
    """A kernel that adds, and whose vjp is `grads`."""

    def strange(a, b):
        return a + b, grads

    return strange


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        (lambda g: (g,), "the vjp of strange returned 1 gradients for 2 inputs: at"),
        (lambda g: g, "the vjp of strange returned ndarray, not a tuple, for 2 inputs: at"),
        (lambda g: (g, g[:1]), "the gradient of strange's input b has shape (1,), but the input has (2,)"),
        (lambda g: (g, np.sqrt(2) * g), "the gradient of strange's input b is float64, not float32"),
        (lambda g: (g.astype(int), g), "the gradient of strange's input a is int64, not float32"),
        (lambda g: (g, g * NAN), "strange made NaN in the gradient of strange's input b"),
    ],
)
def test_a_wrong_vjp(grads, message):
    error = caught(lambda: apply(broken(grads), leaf(1.0, 2.0), leaf(3.0, 4.0)).sum().backward())
    assert message in str(error)
    assert THIS in error.where


def test_a_gradient_that_no_input_requires_may_be_nan():
    with detect_anomaly():
        x = leaf(1.0, 2.0)
        apply(broken(lambda g: (g, g * NAN)), x, Tensor([1.0, 2.0])).sum().backward()
    np.testing.assert_array_equal(x.grad, [1, 1])


def test_a_gradient_that_drops_the_imaginary_part():
    x, seed = leaf(1.0, dtype=np.float64), np.array([1j])

    def through(grads):
        return grad(apply(broken(grads), x, Tensor(np.array([1.0]))) * Tensor(seed), x)

    with detect_anomaly():
        np.testing.assert_array_equal(through(lambda g: (g, None))[0], seed)
    assert "is float64, not complex128" in str(caught(through, lambda g: (g.real, None)))


def test_mixed_dtypes_pass():
    with detect_anomaly():
        x, w = leaf(1.0, 2.0), leaf(3.0, 4.0, dtype=np.float64)
        ((x * 2).exp() * w + x).sum().backward()
        for z in (Tensor(np.array([1 + 1e-20j, 2]), requires_grad=True), leaf(1 + 1e-20j, 2, dtype=np.complex64)):
            x, w = leaf(1.0, 2.0), leaf(3.0, 4.0, dtype=np.float64)
            (g,) = grad((z * w * x).tanh().sum(), x)
            assert g.dtype == np.complex128


# ---- saved values that were changed -------------------------------------------------------------------------------

X, W = np.linspace(0.5, 2, 6).reshape(2, 3), np.linspace(1, 2, 12).reshape(4, 3)
SAVES = {  # kernel: inputs, options, what it saves: of an input (its place) or the output
    "multiply": ([X, X + 1], {}, {0: "for_b", 1: "for_a"}),
    "divide": ([X, X + 1], {}, {1: "b", "y": "for_b"}),
    "power": ([X, X + 1], {}, {0: "x", 1: "n", "y": "y"}),
    "exp": ([X], {}, {"y": "y"}),
    "log": ([X], {}, {0: "x"}),
    "sqrt": ([X], {}, {"y": "y"}),
    "tanh": ([X], {}, {"y": "y"}),
    "sigmoid": ([X], {}, {"y": "y"}),
    "matmul": ([X, X.T.copy()], {}, {0: "rows", 1: "columns"}),
    "einsum": ([X, X.T.copy()], {"subscripts": "ij,jk->ik"}, {0: "operands[0]", 1: "operands[1]"}),
    "linear": ([X, W], {}, {0: "for_weight", 1: "for_x"}),
    "logsumexp": ([X], {"axis": -1, "keepdims": True}, {0: "x", "y": "kept"}),
    "softmax": ([X], {}, {"y": "y"}),
    "log_softmax": ([X], {}, {"y": "y"}),
    "layer_norm": ([X, W[0], W[1]], {}, {1: "weight"}),
    "causal_attention": ([X, X + 1, X + 2], {}, {0: "q", 1: "k", 2: "v", "y": "y"}),
    "causal_self_attention": ([np.linspace(0, 1, 36).reshape(1, 3, 12)], {"n_head": 2}, {0: ""}),
    "embedding": ([X, np.array([0, 1])], {}, {1: "ids"}),
    "where": ([X > 1, X, X + 1], {}, {0: "condition"}),
    "dropout": ([X, X > 1], {"p": 0.5}, {1: "keep"}),
}


def test_a_changed_value_is_found(for_each):
    def check(saved):
        name, place, variable = saved
        inputs, options, _ = SAVES[name]
        tensors = [Tensor(x.copy(), requires_grad=x.dtype.kind == "f") for x in inputs]

        def step(index):
            y = apply(K.KERNELS[name], *tensors, **options)
            total = y.sum()
            data = (y if place == "y" else tensors[place]).data
            data[index] = data[index] == 0 if data.dtype == bool else data[index] + 1
            total.backward()

        for index in ((0,) * np.ndim(inputs[0] if place == "y" else inputs[place]), ...):
            error = caught(step, index)
            assert error.operation == name
            assert f"{name} saved {'its output' if place == 'y' else 'its input '}" in str(error)
            assert f"(as {variable})" in str(error) or not variable
            assert "changed in place" in str(error)
            assert error.where.endswith("`y = apply(K.KERNELS[name], *tensors, **options)`")

    for_each([(name, *place) for name, (_, _, saved) in SAVES.items() for place in saved.items()], check)


@pytest.mark.parametrize("name", ["gelu", "linear_cross_entropy"])
def test_inputs_of_a_kernel_that_differentiates_in_forward_may_change(name):
    """These keep only their gradients, so a later change of their inputs does not matter."""
    arrays, _, _ = {"gelu": ([X], {}, {}), "linear_cross_entropy": ([X, W, np.array([0, 1])], {}, {})}[name]
    expected = None
    for change in (0.0, 1.0):
        tensors = [Tensor(x.copy(), requires_grad=x.dtype.kind == "f") for x in arrays]
        with detect_anomaly():
            y = apply(K.KERNELS[name], *tensors)
            for t in tensors:
                t.data += t.dtype.type(change)
            grads = grad(y.sum(), [t for t in tensors if t.requires_grad])
        expected = expected or grads
        for g, e in zip(grads, expected, strict=True):
            np.testing.assert_array_equal(g, e)


def test_the_input_is_named():
    w, x = leaf(1.0, 2.0), leaf(3.0, 4.0)

    def step():
        y = (x * w).sum()
        w.data -= 0.1
        y.backward()

    assert "multiply saved its input b (as for_a), shape (2,), for backward" in str(caught(step))


def test_an_optimizer_step_before_backward_is_found():
    model = GPT(SMALL, Generator(0))
    optimizer = AdamW(list(model.parameters()))
    ids = np.array([[1, 2, 3]])
    model.loss(ids, ids).backward()

    def step():
        loss = model.loss(ids, ids)
        optimizer.step()
        loss.backward()

    error = caught(step)
    # The head computed its gradient in forward, so the layer before it is the first that reads its weights.
    assert (error.operation, error.layer) == ("layer_norm", "GPT.transformer.ln_f")
    assert "saved its input weight (as weight)" in str(error)


def test_a_new_array_is_not_a_change():
    x = leaf(1.0, 2.0)
    with detect_anomaly():
        y = x * x
        x.data = x.data + 1
        y.sum().backward()
        x.data += 1  # backward is over
    np.testing.assert_array_equal(x.grad, [2, 4])


def test_an_index_array_is_watched():
    ids = np.array([0, 1])

    def step():
        y = leaf(1.0, 2.0, 3.0)[ids, None].sum()
        ids[0] = 2
        y.backward()

    assert "getitem saved index[0], shape (2,), for backward" in str(caught(step))


def test_nested_and_recursive_closures_are_watched():
    kept = np.array([1.0, 2.0], np.float32)

    def doubling(x):
        def scale(g, times):
            return scale(g, times - 1) * kept if times else g

        def vjp(g):
            return (scale(g, 2),)

        return x * kept * kept, vjp

    def step(change):
        y = apply(doubling, leaf(1.0, 2.0)).sum()
        kept[0] += change
        y.backward()

    with detect_anomaly():
        step(0)
    assert "doubling saved kept, shape (2,), for backward" in str(caught(step, 1))


# ---- backward twice ------------------------------------------------------------------------------------------------


def test_backward_twice_names_the_line_recorded_in_the_mode():
    with detect_anomaly():
        y = leaf(1.0).exp()  # this one
        y.backward()
    with pytest.raises(RuntimeError, match=rf"exp a second time \(at .*{THIS}:\d+ `y = .*# this one`\)"):
        y.backward()


# ---- layers and lines ----------------------------------------------------------------------------------------------


def test_a_nan_weight_deep_in_a_gpt():
    model = GPT(SMALL, Generator(0))
    model.transformer.h[1].mlp.c_fc.weight.data[3, 2] = NAN
    ids = np.array([[1, 2, 3]])
    for run in (lambda: model.loss(ids, ids), lambda: model(ids), lambda: model.generate(ids, 2, temperature=0)):
        error = caught(run)
        assert (error.operation, error.layer) == ("linear", "GPT.transformer.h.1.mlp.c_fc")
        assert "it came in with its input weight, shape (24, 6)" in str(error)
        assert "layers.py:" in error.where
        assert error.where.endswith("`return F.linear(x, self.weight, self.bias)`")
        assert f"at {error.where}, layer {error.layer}: " in str(error)


def test_a_line_of_a_model_itself():
    model = GPT(SMALL, Generator(0))
    model.transformer.wpe.weight.data[1] = INF
    model.transformer.wte.weight.data[2] = -INF
    error = caught(lambda: model(np.array([[2, 2]])))
    assert (error.operation, error.layer) == ("add", "GPT.transformer")
    assert "gpt.py:" in error.where
    assert "self.wpe.weight" in error.where


class Log(Module):
    def forward(self, x):
        return x.log()


class Outer(Module):
    def __init__(self):
        self.parts = {"first": [Log()], "second": Log()}
        self.again = True

    def forward(self, x, how):
        if how == "itself":
            return self(x, "stranger") if self.again else x
        return Log()(x) if how == "stranger" else self.parts["second"](x)


def test_layers_in_lists_in_dicts_outside_and_recursive_are_named():
    model, x = Outer(), leaf(-1.0)
    assert caught(model, x, "child").layer == "Outer.parts.second"
    assert caught(model, x, "stranger").layer == "Outer.<Log>"
    assert caught(model, x, "itself").layer == "Outer.<Log>"
    assert caught(model.parts["first"][0], x).layer == "Log"


def test_the_layer_ends_with_its_forward():
    def step():
        layer = Linear(1, 1, rng=Generator(0))
        (layer(leaf(1.0)) * 0 - 1).log()

    assert caught(step).layer == ""

    def fails():
        with pytest.raises(ValueError, match="linear: got"):
            Linear(1, 1, rng=Generator(0))(leaf(1.0, 2.0))
        leaf(-1.0).log()

    assert caught(fails).layer == ""


def test_the_layer_of_a_gradient_is_the_one_that_recorded_it():
    class Root(Module):
        def forward(self, x):
            return x.sqrt()

    assert caught(lambda: Root()(leaf(0.0)).sum().backward()).layer == "Root"


def test_an_error_survives_pickling():
    error = caught(lambda: leaf(-1.0).log())
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.operation, copy.where) == (str(error), "log", error.where)


# ---- the switch ----------------------------------------------------------------------------------------------------


def on():
    return current_observer() is not None


def test_it_ends_with_its_block():
    assert not on()
    with detect_anomaly():
        with detect_anomaly():
            assert on()
        assert on()
    assert not on()
    caught(lambda: leaf(-1.0).log())
    assert not on()
    with np.errstate(all="ignore"):
        assert np.isnan(leaf(-1.0).log().item())


def test_nested_in_a_layer_it_keeps_the_path():
    class Careful(Module):
        def forward(self, x):
            with detect_anomaly():
                return x.log()

    assert caught(Careful(), leaf(-1.0)).layer == "Careful"


def test_as_a_decorator():
    @detect_anomaly()
    def step(x):
        return x.log()

    for _ in range(2):
        with pytest.raises(AnomalyError):
            step(leaf(-1.0))
    assert step(leaf(1.0)).item() == 0
    assert not on()


def test_it_does_not_reach_another_thread():
    inside, checked = threading.Event(), threading.Event()
    found = []

    def watched():
        with detect_anomaly():
            inside.set()
            checked.wait(60)
            try:
                leaf(-1.0).log()
            except AnomalyError as error:
                found.append(error.operation)

    thread = threading.Thread(target=watched, daemon=True)
    thread.start()
    assert inside.wait(60)
    with np.errstate(all="ignore"):
        assert np.isnan(leaf(-1.0).log().item())
    assert not on()
    checked.set()
    thread.join(60)
    assert found == ["log"]


# ---- results are the same --------------------------------------------------------------------------------------------


def training(steps=3):
    model = GPT(SMALL, Generator(1))
    optimizer = AdamW(list(model.parameters()))
    ids = np.random.default_rng(0).integers(0, SMALL.vocab_size, (2, 8))
    losses = []
    for _ in range(steps):
        model.zero_grad()
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses, model.state_dict()


def test_results_are_the_same_to_the_bit():
    losses, state = training()
    with detect_anomaly():
        watched_losses, watched_state = training()
    assert losses == watched_losses
    for name, array in state.items():
        np.testing.assert_array_equal(array, watched_state[name])


def test_it_keeps_no_activation_alive():
    gc.collect()
    gc.disable()
    try:
        with detect_anomaly():
            x = leaf(1.0, 2.0)
            h = x.tanh()
            saved = weakref.ref(h.data)
            y = (h * h).softmax(-1).sum()
            del h
            assert saved() is not None
            y.backward()
            assert saved() is None
            h = x.exp()
            saved = weakref.ref(h.data)
            y = h.sum()
            del h, y
            assert saved() is None
    finally:
        gc.enable()


# ---- sums, hooks and infinities among infinities --------------------------------------------------------------------


def test_gradients_that_overflow_when_they_are_added_are_found():
    w = leaf(0.1)
    error = caught(lambda: (w * 3e38 + w * 3e38).sum().backward())
    assert "the gradients of several uses of leaf, shape (1,), add up to inf" in str(error)
    error = caught(F.cat([w, -w]).backward, [INF, INF])
    assert "leaf, shape (1,), holds NaN already, from inf − inf, where the gradients" in str(error)
    x = leaf(0.1)

    def computed():
        y = x * 1.0
        (y * 3e38 + y * 3e38).sum().backward()

    error = caught(computed)
    assert error.operation == "multiply"
    assert "`y = x * 1.0`" in str(error)


def test_infinity_from_a_hook_is_found():
    w = leaf(0.1)
    w.register_hook(lambda g: g * np.inf)
    assert "a hook made inf in the gradient of leaf" in str(caught(lambda: (w * 2).sum().backward()))


def test_an_intended_infinity_does_not_hide_another():
    x = leaf(1000.0, 2.0)

    def step():
        return x.masked_fill(np.array([False, True]), -np.inf).exp()

    assert "exp made inf in its output" in str(caught(step))
    with detect_anomaly():
        assert x.masked_fill(np.array([True, False]), -np.inf).exp().data.tolist() == [0, np.exp(np.float32(2))]
        assert (-x.masked_fill(np.array([True, True]), -np.inf)).data.tolist() == [np.inf, np.inf]


@pytest.mark.parametrize("where", ["dict", "default", "keyword default", "partial"])
def test_a_changed_value_is_found_wherever_a_vjp_keeps_it(where):
    def square(x):
        if where == "dict":
            kept = {"x": x}
            return x * x, lambda g: (2 * g * kept["x"],)
        if where == "default":
            return x * x, lambda g, x=x: (2 * g * x,)
        if where == "keyword default":
            return x * x, lambda g, *, x=x: (2 * g * x,)
        return x * x, functools.partial(lambda x, g: (2 * g * x,), x)

    x = leaf(1.0, 2.0)

    def step():
        y = apply(square, x).sum()
        x.data += 1
        y.backward()

    assert "square saved its input x" in str(caught(step))


def test_arrays_that_backward_does_not_use_may_change():
    with detect_anomaly():
        w, x = leaf(1.0, 2.0), leaf(3.0, 4.0)
        y = (w * 2).sum()
        w.data += 1
        y.backward()
        frozen = Tensor(np.ones((3, 2), np.float32))
        y = F.linear(x, frozen).sum()
        x.data += 1
        y.backward()
    assert w.grad.tolist() == [2, 2]
    assert x.grad.tolist() == [3, 3]


def test_an_operation_recorded_in_the_mode_is_checked_outside_it():
    a = leaf(1.0, 2.0)
    with detect_anomaly():
        y = (a * a).sum()
    a.data += 1
    with pytest.raises(AnomalyError, match="multiply saved its input a"):
        y.backward()


def test_nan_from_an_operation_that_was_not_checked_is_not_blamed_on_another():
    x = leaf(1.0)
    with detect_anomaly():
        y = x.exp()
    error = "gradient that came in for exp, shape (1,), holds NaN already, from an operation outside detect_anomaly: at"
    y.register_hook(lambda g: None)
    with pytest.raises(AnomalyError, match=re.escape(error)):
        apply(lambda a: (a * 1, lambda g: (g * NAN,)), y).backward()


def test_a_vjp_that_raises_is_named():
    def broken(x):
        return x * 2, lambda g: ([][1],)

    assert "the vjp of broken failed, IndexError" in str(caught(lambda: apply(broken, leaf(1.0)).sum().backward()))
