"""The layers: PyTorch's initial values from the same seed, and dropout's masks.

The numbers that the book prints are facts of `study/book`, which tests/study/test_book.py checks.
"""

import inspect
import math

import numpy as np
import pytest

from tinygrad_llm import Tensor, nn
from tinygrad_llm import functional as F
from tinygrad_llm import kernels as K
from tinygrad_llm.nn import (
    GELU,
    Dropout,
    Embedding,
    LayerNorm,
    Linear,
    ModuleList,
    Parameter,
    ReLU,
    RMSNorm,
    Sequential,
)
from tinygrad_llm.random import Generator

# ---- Linear and Embedding ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seed", "row", "bias"),
    [
        (0, [-0.004323, 0.309716, -0.475185], [-0.011439, 0.457775]),
        (123, [-0.235430, 0.019124, -0.286746], [-0.419641, -0.459018]),
        (137, [0.145093, 0.084734, 0.193148], [-0.349263, -0.326160]),
        (2**31, [0.476587, 0.379239, -0.509286], [0.016716, -0.231771]),
    ],
)
def test_linear_has_the_initial_weights_of_pytorch(seed, row, bias):
    linear = Linear(3, 2, rng=Generator(seed))
    np.testing.assert_allclose(linear.weight.data[0], row, rtol=0, atol=5.1e-7)
    np.testing.assert_allclose(linear.bias.data, bias, rtol=0, atol=5.1e-7)


@pytest.mark.parametrize(
    ("seed", "row"),
    [
        (0, [-1.125840, -1.152360, 0.566651]),
        (123, [0.337370, -0.177777, -0.168956]),
        (137, [1.122025, -0.663128, -0.705236]),
        (2**31, [-1.846597, 1.118582, 0.036981]),
    ],
)
def test_embedding_has_the_initial_weights_of_pytorch(seed, row):
    np.testing.assert_allclose(Embedding(6, 3, rng=Generator(seed)).weight.data[0], row, rtol=0, atol=1e-6)


def test_linear_without_inputs_gives_its_bias_of_0_as_pytorch_does():
    layer = Linear(0, 4, rng=Generator(0))
    y = layer(Tensor(np.zeros((2, 0), np.float32)))
    y.sum().backward()
    np.testing.assert_array_equal(y.data, np.zeros((2, 4)))
    assert layer.weight.grad.shape == (4, 0)
    np.testing.assert_array_equal(layer.bias.grad, [2] * 4)
    assert Linear(3, 0, rng=Generator(0))(Tensor(np.zeros((2, 3), np.float32))).shape == (2, 0)


@pytest.mark.parametrize("sizes", [(-1, 4), (4, -1)])
@pytest.mark.parametrize("layer", [Linear, Embedding])
def test_negative_sizes_are_refused(layer, sizes):
    with pytest.raises(ValueError, match="shape must not be negative, got"):
        layer(*sizes, rng=Generator(0))


BUILT = {  # the arguments of every class that takes rng
    "CausalAttention": (4, 2, 3, 0.1),
    "Dropout": (0.1,),
    "Embedding": (3, 2),
    "Linear": (3, 2),
    "LoRAEmbedding": (Embedding(3, 2, rng=Generator(0)), 2, 1.0),
    "LoRALinear": (Linear(3, 2, rng=Generator(0)), 2, 1.0),
    "MultiHeadAttention": (4, 2),
    "MultiHeadAttentionWrapper": (4, 2, 3, 0.1, 2),
    "MultiHeadWrapper": (4, 2, 3, 0.1, 2),
    "SelfAttention": (4, 2),
}


@pytest.mark.parametrize(
    ("rng", "message"),
    [
        (0, r"got 0: write rng=Generator\(0\)"),
        (7, r"got 7: write rng=Generator\(7\)"),
        (np.random.default_rng(0), r"got Generator\(PCG64\).*: write rng=Generator\(seed\)"),
        (np.random.RandomState(0), "got RandomState"),
        (None, "got None"),
    ],
)
def test_every_layer_refuses_anything_but_a_generator_as_rng(rng, message, for_each):
    classes = [name for name in nn.__all__ if inspect.isclass(getattr(nn, name))]
    taking = [name for name in classes if "rng" in inspect.signature(getattr(nn, name)).parameters]
    assert sorted(taking) == sorted(BUILT)

    def check(name):
        assert getattr(nn, name)(*BUILT[name], rng=Generator(0))
        with pytest.raises(TypeError, match=f"rng must be a tinygrad_llm.Generator, {message}"):
            getattr(nn, name)(*BUILT[name], rng=rng)

    for_each(BUILT, check)
    if rng is not None:
        with pytest.raises(TypeError, match=f"rng must be a tinygrad_llm.Generator, {message}"):
            F.dropout(Tensor([1.0]), 0.5, rng=rng)


def test_linear_with_std_starts_as_in_gpt2():
    linear = Linear(300, 200, rng=Generator(0), std=0.02)
    assert not linear.bias.data.any()
    assert linear.bias.dtype == np.float32
    # 60,000 draws: the standard error of their deviation is 0.02 / √120,000 = 6e-5.
    assert abs(linear.weight.data.std() - 0.02) < 3e-4
    assert abs(linear.weight.data.mean()) < 4e-4
    assert abs(Embedding(300, 200, rng=Generator(0), std=0.5).weight.data.std() - 0.5) < 0.0075


def test_a_tied_linear_draws_nothing():
    rng, fresh = Generator(5), Generator(5)
    weight = Parameter(np.ones((2, 3), np.float32))
    linear = Linear(3, 2, bias=False, rng=rng, weight=weight)
    assert linear.weight is weight
    np.testing.assert_array_equal(rng.rand(4), fresh.rand(4))


# ---- LayerNorm ---------------------------------------------------------------------------------------------------


def test_layer_norm_starts_at_1_and_0_and_passes_its_parameters_and_eps_on():
    layer = LayerNorm(5, eps=0.1).to(np.float64)
    assert (layer.weight.data == 1).all()
    assert (layer.bias.data == 0).all()
    layer.weight.data, layer.bias.data = np.arange(1.0, 6), np.arange(5.0) - 2
    x = np.random.default_rng(0).standard_normal((2, 3, 5))
    expected, _ = K.layer_norm(x, layer.weight.data, layer.bias.data, eps=0.1)
    np.testing.assert_array_equal(layer(Tensor(x)).data, expected)


# ---- Dropout -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.1, 0.5])
def test_dropout_draws_its_mask_from_its_generator(p):
    y = Dropout(p, rng=Generator(123))(Tensor(np.ones(20, np.float32)))
    keep = Generator(123).bernoulli_keep(p, 20)  # the masks of PyTorch: tests/test_random.py
    np.testing.assert_array_equal(y, keep * np.float32(1 / (1 - p)))


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_keeps_its_share_and_the_mean(p):
    n = 100_000
    y = Dropout(p, rng=Generator(1))(Tensor(np.ones(n))).data
    error = 5 * math.sqrt(p * (1 - p) / n)
    assert abs(np.mean(y != 0) - (1 - p)) < error
    assert abs(y.mean() - 1) < error / (1 - p)
    np.testing.assert_allclose(np.unique(y), [0, 1 / (1 - p)])


def test_dropout_that_is_off_returns_its_input_and_draws_nothing():
    x = Tensor(np.arange(5.0))
    rng = Generator(1)
    off, evaluating = Dropout(0.0, rng=rng), Dropout(0.5, rng=rng).eval()
    assert off(x) is x
    assert evaluating(x) is x
    np.testing.assert_array_equal(rng.rand(4), Generator(1).rand(4))


@pytest.mark.parametrize("p", [-0.1, 1.0001, math.nan, math.inf])
def test_dropout_refuses_a_probability_outside_0_to_1(p):
    with pytest.raises(ValueError, match=r"dropout: got p=.*, which must lie in \[0, 1\]"):
        Dropout(p, rng=Generator(0))


# ---- containers and norms ------------------------------------------------------------------------------------------


def test_sequential_and_module_list_name_and_train_what_they_hold():
    rng = Generator(0)
    model = Sequential(Linear(2, 3, rng=rng), ReLU(), ModuleList([RMSNorm(3)])[0], GELU("none"))
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight"]
    x = Tensor([[1.0, -2.0]])
    hidden = np.maximum(x.data @ model[0].weight.data.T + model[0].bias.data, 0)
    expected = Tensor(hidden / np.sqrt(np.mean(hidden**2) + np.finfo(np.float32).eps))
    np.testing.assert_allclose(model(x).data, F.gelu(expected, "none").data, rtol=1e-6)
    assert [type(layer) for layer in model] == [Linear, ReLU, RMSNorm, GELU]
    assert not any(layer.training for layer in model.eval())
    layers = ModuleList(ReLU() for _ in range(12)).append(GELU())
    assert (len(layers), type(layers[-1])) == (13, GELU)
    with pytest.raises(TypeError, match="ModuleList holds Modules, got int"):
        layers.append(3)
