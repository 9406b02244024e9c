"""How a Module finds, names, converts and loads its parameters."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import GPT, GPTConfig, Tensor
from tinygrad_llm.autograd import is_grad_enabled
from tinygrad_llm.nn import Dropout, LayerNorm, Linear, Module, Parameter
from tinygrad_llm.random import Generator


class Family(Module):
    """Parameters in all places where a Module finds them: attributes, lists, tuples and dicts, also nested."""

    def __init__(self, seed=0):
        rng = Generator(seed)
        self.last = Parameter(rng.rand((2, 3)))
        self.name = "not a parameter"
        self.layers = [Linear(3, 2, rng=rng), {"inner": LayerNorm(3), "raw": Parameter(rng.rand(4))}]
        self.pair = (Dropout(0.5, rng=rng), Linear(2, 1, False, rng=rng))
        self.constant = np.ones(3)
        self.plain = Tensor(np.ones(3))
        self.nothing = None
        self.empty = []


class Tied(Module):
    def __init__(self):
        self.first = Linear(3, 3, rng=Generator(0))
        self.second = Linear(3, 3, bias=False, rng=Generator(0), weight=self.first.weight)
        self.third = [self.first]


NAMES = [
    "last",
    "layers.0.weight",
    "layers.0.bias",
    "layers.1.inner.weight",
    "layers.1.inner.bias",
    "layers.1.raw",
    "pair.1.weight",
]


def copies(model):
    return {name: array.copy() for name, array in model.state_dict().items()}


def test_names_are_paths_in_the_order_in_which_attributes_are_set():
    model = Family()
    assert [name for name, _ in model.named_parameters()] == NAMES
    assert [id(p) for _, p in model.named_parameters()] == [id(p) for p in model.parameters()]
    assert dict(model.named_parameters())["layers.1.raw"] is model.layers[1]["raw"]
    assert model.num_parameters() == 6 + 6 + 2 + 3 + 3 + 4 + 2


def test_a_layer_added_later_is_found():
    model = Family()
    model.layers.append(LayerNorm(2))
    assert "layers.2.weight" in dict(model.named_parameters())


def test_tied_parameters_count_once_under_the_first_name():
    model = Tied()
    assert [name for name, _ in model.named_parameters()] == ["first.weight", "first.bias"]
    assert model.num_parameters() == 12
    assert list(model.state_dict()) == ["first.weight", "first.bias"]


def test_modules_are_this_one_and_all_inside():
    assert [type(m).__name__ for m in Family().modules()] == ["Family", "Linear", "LayerNorm", "Dropout", "Linear"]


def test_train_and_eval_reach_all_modules():
    model = Family()
    assert all(m.training for m in model.modules())
    assert model.eval() is model
    assert not any(m.training for m in model.modules())
    assert model.train() is model
    assert all(m.training for m in model.modules())
    assert Family().training  # other instances keep their mode
    model.pair[0].eval()
    assert [m.training for m in model.modules()] == [True, True, True, False, True]


def test_zero_grad_deletes_every_gradient():
    model = Family()
    for p in model.parameters():
        p.grad = np.ones_like(p.data)
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.complex128])
def test_to_converts_in_place_and_deletes_gradients(dtype):
    model = Tied()
    before, weight = copies(model), model.first.weight
    weight.grad = np.ones_like(weight.data)
    assert model.to(dtype) is model
    assert model.first.weight is model.second.weight is weight
    assert weight.grad is None
    assert weight.requires_grad
    for name, p in model.named_parameters():
        assert p.dtype == dtype
        np.testing.assert_array_equal(p.data, before[name])


def test_parameters_require_a_gradient_and_can_be_frozen():
    weight = Parameter(np.ones(2, np.float32))
    assert weight.requires_grad
    assert not Parameter(np.ones(2, np.float32), requires_grad=False).requires_grad
    with pytest.raises(ValueError, match="float"):
        Parameter(np.ones(2, np.int64))


def test_a_module_without_forward_is_an_error():
    with pytest.raises(NotImplementedError, match="Family has no forward"):
        Family()(1)


# ---- state ------------------------------------------------------------------------------------------------------


def test_state_dict_is_the_arrays_themselves():
    model = Family()
    assert list(model.state_dict()) == NAMES
    assert all(model.state_dict()[name] is p.data for name, p in model.named_parameters())


def test_loading_a_state_copies_its_arrays():
    model, other = Family(1), Family(2)
    state = model.state_dict()
    other.load_state_dict(state)
    for name, array in other.state_dict().items():
        np.testing.assert_array_equal(array, state[name])
        assert not np.shares_memory(array, state[name])


def test_a_state_that_is_not_a_dict_is_refused():
    with pytest.raises(TypeError, match="load_state_dict takes a dict of arrays by name, got tuple"):
        Tied().load_state_dict((Tied().state_dict(), {}))


def test_loading_a_state_keeps_dtype_and_identity_of_the_parameters():
    model = Tied().to(np.float64)
    weight = model.first.weight
    model.load_state_dict({"first.weight": np.full((3, 3), 0.5, np.float16), "first.bias": np.zeros(3, np.float32)})
    assert model.first.weight is model.second.weight is weight
    assert weight.dtype == np.float64
    assert (weight.data == 0.5).all()


@given(data=st.data())
def test_a_state_that_does_not_fit_is_listed_in_one_message_and_nothing_changes(data):
    model = Family()
    before = copies(model)
    state = {name: array + 1 for name, array in before.items()}
    fates = data.draw(st.lists(st.sampled_from(["fine", "missing", "shape", "dtype"]), min_size=7, max_size=7))
    extra = data.draw(st.lists(st.sampled_from(["stranger", "layers.9.weight"]), unique=True))
    for name, fate in zip(NAMES, fates, strict=True):
        if fate == "missing":
            del state[name]
        elif fate == "shape":
            state[name] = np.zeros((7, 7), np.float32)
        elif fate == "dtype":
            state[name] = np.zeros(state[name].shape, np.int64)
    state.update((name, np.zeros(5, np.float32)) for name in extra)

    if set(fates) == {"fine"} and not extra:
        model.load_state_dict(state)
        for name, array in model.state_dict().items():
            np.testing.assert_array_equal(array, before[name] + 1)
        return
    with pytest.raises(ValueError, match="the weights do not fit the model") as error:
        model.load_state_dict(state)
    message = str(error.value)
    assert "\n" not in message
    for name, fate in zip(NAMES, fates, strict=True):
        shape = before[name].shape
        assert (f"missing {name} {shape}" in message) == (fate == "missing")
        assert (f"{name} has shape (7, 7), the model's is {shape}" in message) == (fate == "shape")
        assert (f"{name} has dtype int64" in message) == (fate == "dtype")
    for name in ("stranger", "layers.9.weight"):
        assert (f"unexpected {name} (5,)" in message) == (name in extra)
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])


def test_a_weight_with_its_axes_swapped_is_refused():
    module = Linear(2, 3, bias=False, rng=Generator(0))
    with pytest.raises(ValueError, match=r"weight has shape \(2, 3\), the model's is \(3, 2\)"):
        module.load_state_dict({"weight": np.ones((2, 3), np.float32)})


def test_complex_weights_for_a_real_parameter_are_refused():
    module = Linear(2, 2, bias=False, rng=Generator(0))
    with pytest.raises(ValueError, match="weight has dtype complex128"):
        module.load_state_dict({"weight": np.ones((2, 2), np.complex128)})


def test_evaluating_changes_no_module():
    family = Family().train()
    family.layers[0].eval()
    before = [module.training for module in family.modules()]
    state = [dict(vars(module)) for module in family.modules()]

    def fail():
        with family.evaluating():
            assert not any(module.training for module in family.modules())
            assert not is_grad_enabled()
            assert [vars(module) for module in family.modules()] == state
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert [module.training for module in family.modules()] == before
    assert is_grad_enabled()


def test_a_model_evaluates_in_one_thread_while_it_trains_in_others():
    model = GPT(GPTConfig(vocab_size=7, block_size=8, n_layer=1, n_head=2, n_embd=4, dropout=0.5), Generator(0))
    expected = model.generate([1, 2], 5)
    inside, end = threading.Barrier(3), threading.Barrier(3)

    def evaluate():
        with model.evaluating():
            inside.wait(60)
            mode = model.training, is_grad_enabled()
            end.wait(60)
            return mode, model.generate([1, 2], 5).tolist()

    with ThreadPoolExecutor(2) as pool:
        found = [pool.submit(evaluate) for _ in range(2)]
        inside.wait(60)
        assert model.training
        assert is_grad_enabled()
        assert model.loss(np.array([[1, 2]]), np.array([[2, 3]])).requires_grad
        end.wait(60)
        assert [future.result(60) for future in found] == [((False, False), expected.tolist())] * 2
    with ThreadPoolExecutor(8) as pool:
        texts = pool.map(lambda _: model.generate([1, 2], 5).tolist(), range(24))
        assert list(texts) == [expected.tolist()] * 24
    assert model.training


# ---- assigning, and printing ----------------------------------------------------------------------------------------


def test_a_parameter_is_replaced_only_by_a_parameter_or_none():
    layer = Linear(3, 2, rng=Generator(0))
    for value in (Tensor(np.ones((2, 3))), layer.weight * 2, np.ones((2, 3)), 1.0, LayerNorm(3), [layer.weight]):
        with pytest.raises(TypeError, match=r"as parameter 'weight' \(Parameter or None expected\)"):
            layer.weight = value
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias"]
    layer.weight = Parameter(np.ones((2, 3), np.float32))
    layer.bias = None
    layer.extra = Tensor([1.0])  # a new attribute may be anything
    assert [name for name, _ in layer.named_parameters()] == ["weight"]


def test_a_module_prints_as_a_tree():
    class Model(Module):
        def __init__(self):
            rng = Generator(0)
            self.scale, self._hidden, self.mask = 0.5, 1, np.ones((2, 2))
            self.first = Linear(3, 3, rng=rng)
            self.layers = [LayerNorm(3), LayerNorm(3), {"drop": Dropout(0.1, rng=rng)}]
            self.head = Linear(3, 3, False, rng=rng, weight=self.first.weight)

    assert repr(Model().eval()).splitlines() == [
        "Model(scale=0.5, mask=(2, 2)): 24 parameters",
        "  first: Linear(weight=(3, 3), bias=(3,))",
        "  layers.0-1: 2 × LayerNorm(weight=(3,), bias=(3,), eps=1e-05)",
        "  layers.2.drop: Dropout(p=0.1)",
        "  head: Linear(weight=(3, 3) = first.weight)",
    ]
    config = GPTConfig(vocab_size=5, block_size=4, n_layer=3, n_head=1, n_embd=100)
    lines = repr(GPT(config)).splitlines()
    assert lines[0] == "GPT(recompute=False, fused=True): 365,000 parameters"
    assert lines[5] == "    h.0-2: 3 × Block: 121,300 parameters each"
    assert lines[-1] == "  lm_head: Linear(weight=(5, 100) = transformer.wte.weight)"
    assert repr(Linear(1, 1, False, rng=Generator(0))) == str(Linear(1, 1, False, rng=Generator(0)))
    assert repr(Generator(5)) == "Generator(seed=5)"
    assert repr(Parameter([1.0])) == "Parameter([1.], requires_grad=True)"
