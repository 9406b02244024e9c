"""LoRA: adapters beside frozen layers."""

import numpy as np
import pytest
from gpt_models import SMALL, change, shaken, some_ids

from tinygrad_llm.autograd import Tensor, grad, no_grad
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.nn import Linear, LoRALinear, Module, Sequential, add_lora, lora_layers, merge_lora
from tinygrad_llm.nn.lora import LoRA, adapt
from tinygrad_llm.random import Generator
from tinygrad_llm.training.workers import trainable

UNTIED = change(SMALL, tie_weights=False)


def adapted(config=UNTIED, trained=True, **options):
    """A GPT with adapters; trained ones no longer have B = 0."""
    model = shaken(config)
    names = add_lora(model, **{"rank": 2, "alpha": 6.0, **options}, rng=Generator(3))
    if trained:
        noise = np.random.default_rng(4)
        for p in trainable(model).values():
            p.data = p.data + 0.3 * noise.standard_normal(p.shape)
    return model, names


def logits(model):
    with no_grad():
        return model(some_ids(2, 5)).data


def test_new_adapters_change_no_bit_of_the_output():
    for embeddings in (0, 3):
        assert np.array_equal(logits(shaken(UNTIED)), logits(adapted(trained=False, embeddings=embeddings)[0]))


def test_trained_adapters_change_the_output():
    assert not np.allclose(logits(shaken(UNTIED)), logits(adapted()[0]))


@pytest.mark.parametrize(("joint", "embeddings"), [(False, 0), (True, 0), (False, 3)])
def test_an_adapted_layer_is_the_plain_one_with_the_changed_weight(joint, embeddings):
    model, names = adapted(joint=joint, embeddings=embeddings)
    assert ("transformer.wte" in names) == ("transformer.wpe" in names) == bool(embeddings)
    plain = shaken(UNTIED)
    layers = dict(lora_layers(model))
    assert list(layers) == names
    assert {layer.scaling for layer in layers.values()} == {3.0}  # alpha 6 / rank 2
    ranks = {name: len(layer.lora_A.weight) // len(layer.lora_B) for name, layer in layers.items()}
    assert ranks == {name: embeddings if name.endswith(("wte", "wpe")) else 2 for name in names}
    state = plain.state_dict()
    for name, layer in layers.items():
        parts = len(layer.lora_B)
        for i, B in enumerate(layer.lora_B):  # the formula, a part at a time
            A = layer.lora_A.weight.data[layer.rank * i : layer.rank * (i + 1)]
            rows = slice(i * len(B.weight.data), (i + 1) * len(B.weight.data))
            state[f"{name}.weight"][rows] += 6.0 / 2 * B.weight.data @ A
        assert parts == (3 if name.endswith("c_attn") and not joint else 1)
    plain.load_state_dict(state)
    np.testing.assert_allclose(logits(model), logits(plain), rtol=0, atol=1e-12)


def test_the_book_s_number_of_trained_parameters():
    """Appendix E: rank 16 on every linear layer of GPT-2 small as a classifier of two classes."""

    def trained(n_layer):
        model = GPT(GPTConfig(vocab_size=10, n_layer=n_layer, tie_weights=False))
        model.lm_head = Linear(768, 2, rng=Generator(0))
        add_lora(model, rank=16, alpha=16, rng=Generator(0))
        return sum(p.numel() for p in trainable(model).values())

    one, two = trained(1), trained(2)
    assert one + 11 * (two - one) == 2_666_528  # of twelve layers, which take seconds


@pytest.mark.parametrize("embeddings", [0, 3])
def test_only_the_adapters_are_trained(embeddings):
    model, _ = adapted(embeddings=embeddings)
    assert trainable(model)
    assert all(".lora_" in name for name in trainable(model))
    gradients = grad(model.loss(some_ids(2, 5), some_ids(2, 5, 1)), list(trainable(model).values()))
    assert all(np.abs(g).max() > 0 for g in gradients)


def test_the_first_gradient_of_a_is_zero_and_of_b_is_not():
    """B = 0 hides A at first: ∂L/∂A = scaling · Bᵀ g x."""
    model, _ = adapted(trained=False)
    named = trainable(model)
    gradients = grad(model.loss(some_ids(2, 5), some_ids(2, 5, 1)), list(named.values()))
    for name, g in zip(named, gradients, strict=True):
        assert (np.abs(g).max() > 0) == (".lora_B" in name), name


def test_merge_keeps_the_output_and_unmerge_gives_back_every_bit():
    model, _ = adapted(embeddings=3)
    before, weights = logits(model), {name: a.copy() for name, a in model.state_dict().items()}
    for _, layer in lora_layers(model):
        layer.merge()
        layer.merge()  # a second call changes nothing
    np.testing.assert_allclose(logits(model), before, rtol=0, atol=1e-12)
    for _, layer in lora_layers(model):
        layer.unmerge()
    assert np.array_equal(logits(model), before)
    assert all(np.array_equal(a, weights[name]) for name, a in model.state_dict().items())


def test_a_merged_model_saves_and_loads_what_an_unmerged_one_does():
    model, _ = adapted()
    (other, _), (third, _) = adapted(), adapted()
    before, state = logits(model), {name: 2 * a for name, a in model.state_dict().items()}
    for _, layer in lora_layers(model):
        layer.merge()
    assert "_merged" not in repr(model)
    other.load_state_dict(model.state_dict())  # the adapter is not in it twice
    np.testing.assert_allclose(logits(other), before, rtol=0, atol=1e-12)
    for each in (model, third):
        each.load_state_dict(state)
    np.testing.assert_allclose(logits(model), logits(third), rtol=0, atol=1e-12)
    for _, layer in lora_layers(model):
        layer.unmerge()
    assert np.array_equal(logits(model), logits(third))


@pytest.mark.parametrize("part", ["base_layer", "lora_A", "lora_B.0"])
def test_a_merged_layer_notices_each_array_that_is_replaced(part):
    layer, x = LoRALinear(Linear(3, 4, rng=Generator(0)), 2, 2.0, rng=Generator(1)), Tensor(np.eye(3, dtype=np.float32))
    layer.lora_B[0].weight.data = np.ones((4, 2), np.float32)
    layer.merge()
    p = dict(layer.named_parameters())[f"{part}.weight"]
    p.data = p.data + 1
    merged = layer(x).data
    layer.unmerge()
    np.testing.assert_allclose(merged, layer(x).data, rtol=1e-6)


def test_a_layer_with_a_forward_of_its_own_cannot_be_merged():
    class Tripled(Linear):
        def forward(self, x):
            return 3 * super().forward(x)

    layer = LoRALinear(Tripled(4, 4, rng=Generator(0)), 2, 2.0, rng=Generator(0))
    with pytest.raises(ValueError, match="Tripled has a forward of its own"):
        layer.merge()
    assert not layer.merged


def test_merge_lora_leaves_a_plain_model():
    model, _ = adapted(embeddings=3)
    before = logits(model)
    merge_lora(model)
    np.testing.assert_allclose(logits(model), before, rtol=0, atol=1e-12)
    assert model.state_dict().keys() == shaken(UNTIED).state_dict().keys()
    assert not list(lora_layers(model))
    assert all(p.requires_grad for p in model.parameters())


def test_targets_are_names_or_their_ends():
    assert adapted(targets=["c_fc"])[1] == [f"transformer.h.{i}.mlp.c_fc" for i in range(2)]
    assert adapted(targets=["transformer.h.1.attn.c_attn"])[1] == ["transformer.h.1.attn.c_attn"]


def test_layers_in_lists_and_in_sequential_are_found():
    class Toy(Module):
        def __init__(self):
            self.layers = [Linear(3, 3, rng=Generator(0)), {"out": Linear(3, 2, rng=Generator(0))}]
            self.more = Sequential(Linear(2, 2, rng=Generator(0)))

    toy = Toy()
    assert add_lora(toy, rng=Generator(0)) == ["layers.0", "layers.1.out", "more.0"]
    assert isinstance(toy.layers[1]["out"], LoRALinear)


@pytest.mark.parametrize("name", ["lm_head", "wte"])
def test_a_tied_head_and_its_embedding_are_left_alone(name):
    assert not any(found.endswith(name) for found in adapted(SMALL, embeddings=3)[1])
    with pytest.raises(ValueError, match=rf"{name} shares its weight with another layer.*leave it out"):
        adapted(SMALL, targets=[name, "c_fc"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, "rank must be an integer ≥ 1, got 0"),
        ({"rank": 1.5}, "rank must be an integer ≥ 1, got 1.5"),
        ({"alpha": 0.0}, "alpha must be finite and above 0, got 0.0"),
        ({"targets": ["q_proj"]}, "no layer q_proj to adapt: it has c_attn, c_fc, c_proj, lm_head, wpe, wte"),
        ({"targets": []}, "no layer  to adapt"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    model = shaken(UNTIED)
    with pytest.raises(ValueError, match=message):
        add_lora(model, **options, rng=Generator(0))
    assert all(p.requires_grad for p in model.parameters())  # nothing was changed


def test_an_adapter_for_a_layer_that_is_not_there_is_refused():
    model = shaken(UNTIED)
    with pytest.raises(ValueError, match=r"^LoRA: the model has no layer x, y to adapt$"):
        adapt(model, {name: LoRA(2, 1.0) for name in ("x", "lm_head", "y")}, rng=Generator(0))
    assert all(p.requires_grad for p in model.parameters())
    assert not list(lora_layers(model))


def test_parts_that_do_not_divide_the_outputs_are_refused():
    with pytest.raises(ValueError, match="3 parts do not divide 4 outputs"):
        LoRALinear(Linear(2, 4, rng=Generator(0)), 2, 1.0, parts=3, rng=Generator(0))


def test_adapters_are_not_added_twice():
    model, _ = adapted()
    with pytest.raises(ValueError, match="has LoRA adapters already"):
        add_lora(model, rng=Generator(0))


def test_dropout_acts_on_the_adapter_alone():
    layer = LoRALinear(Linear(4, 3, rng=Generator(0)), 2, 2.0, dropout=0.5, rng=Generator(1))
    x = Tensor(np.ones((5, 4), np.float32))
    plain = layer(x).data
    assert np.array_equal(plain, layer.base_layer(x).data)  # B is zero
    layer.lora_B[0].weight.data = np.ones_like(layer.lora_B[0].weight.data)
    assert not np.array_equal(layer(x).data, layer(x).data)  # masks differ
    layer.eval()
    assert np.array_equal(layer(x).data, layer(x).data)
