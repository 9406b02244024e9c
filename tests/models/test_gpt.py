"""GPT: published sizes, GPT-2's names, an independent forward pass, and plain beside fused."""

import contextlib
import dataclasses
import math
from collections import Counter

import numpy as np
import pytest
from gpt_models import SMALL, change, shaken, some_ids
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import Tensor, grad, no_grad
from tinygrad_llm import functional as F
from tinygrad_llm.models import CONFIGS, GPT, GPTClassifier, GPTClassifierConfig, GPTConfig
from tinygrad_llm.nn import GELU, Linear, Sequential
from tinygrad_llm.optim import AdamW
from tinygrad_llm.random import Generator

BLOCK = [
    "ln_1.weight", "ln_1.bias", "attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight",
    "attn.c_proj.bias", "ln_2.weight", "ln_2.bias", "mlp.c_fc.weight", "mlp.c_fc.bias", "mlp.c_proj.weight",
    "mlp.c_proj.bias",
]  # fmt: skip

configs = st.builds(
    lambda head_size, n_head, **sizes: GPTConfig(n_embd=head_size * n_head, n_head=n_head, **sizes),
    head_size=st.integers(1, 4),
    n_head=st.integers(1, 3),
    vocab_size=st.integers(1, 20),
    block_size=st.integers(1, 9),
    n_layer=st.integers(1, 3),
    qkv_bias=st.booleans(),
    tie_weights=st.booleans(),
)


def oracle(state, config, ids):
    """The logits of one text, position by position, from the arrays alone."""
    size = config.n_embd // config.n_head

    def norm(x, name):
        mean = math.fsum(x) / len(x)
        variance = math.fsum((v - mean) ** 2 for v in x) / len(x)
        return (x - mean) / math.sqrt(variance + 1e-5) * state[f"{name}.weight"] + state[f"{name}.bias"]

    def linear(x, name):
        return state[f"{name}.weight"] @ x + state.get(f"{name}.bias", 0)

    def gelu(x):
        return np.array([v / 2 * (1 + math.tanh(math.sqrt(2 / math.pi) * (v + 0.044715 * v**3))) for v in x])

    stream = [state["transformer.wte.weight"][i] + state["transformer.wpe.weight"][t] for t, i in enumerate(ids)]
    for layer in range(config.n_layer):
        block = f"transformer.h.{layer}"
        qkv = [linear(norm(x, f"{block}.ln_1"), f"{block}.attn.c_attn") for x in stream]
        for t in range(len(ids)):
            mixed = []
            for h in range(config.n_head):
                q, k, v = (slice(i * config.n_embd + h * size, i * config.n_embd + (h + 1) * size) for i in range(3))
                weights = [math.exp(qkv[t][q] @ qkv[s][k] / math.sqrt(size)) for s in range(t + 1)]
                total = math.fsum(weights)
                mixed.append(sum(w / total * qkv[s][v] for s, w in enumerate(weights)))
            stream[t] = stream[t] + linear(np.concatenate(mixed), f"{block}.attn.c_proj")
        for t, x in enumerate(stream):
            hidden = gelu(linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc"))
            stream[t] = x + linear(hidden, f"{block}.mlp.c_proj")
    head = state.get("lm_head.weight", state["transformer.wte.weight"])
    return np.array([head @ norm(x, "transformer.ln_f") for x in stream])


# ---- sizes and names ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200)],
)
def test_published_parameter_counts(name, count):
    assert CONFIGS[name].num_parameters == count
    assert CONFIGS[name].n_embd == 64 * CONFIGS[name].n_head


def test_the_default_sizes_are_those_of_gpt2_small():
    assert GPTConfig().num_parameters == 124_439_808
    assert GPTConfig() == GPTConfig(50257, 1024, 12, 12, 768, 0.0, True, True)


@pytest.mark.slow
def test_gpt2_small_has_as_many_parameters_as_published():
    model = GPT(GPTConfig())
    assert model.num_parameters() == 124_439_808
    assert model(np.zeros((1, 2), int)).shape == (1, 2, 50257)


@given(configs)
def test_the_config_counts_the_parameters_of_the_model(config):
    model = GPT(config)
    assert model.num_parameters() == config.num_parameters
    assert sum(array.size for array in model.state_dict().values()) == config.num_parameters
    assert list(config.shapes()) == [(name, array.shape) for name, array in model.state_dict().items()]


def test_names_and_order_are_those_of_gpt2():
    blocks = [f"transformer.h.0.{name}" for name in BLOCK]
    expected = ["transformer.wte.weight", "transformer.wpe.weight", *blocks, "transformer.ln_f.weight"]
    expected += ["transformer.ln_f.bias"]
    assert list(GPT(change(n_layer=1)).state_dict()) == expected
    assert list(GPT(change(n_layer=1, tie_weights=False)).state_dict()) == [*expected, "lm_head.weight"]
    without = [name for name in expected if not name.endswith("c_attn.bias")]
    assert list(GPT(change(n_layer=1, qkv_bias=False)).state_dict()) == without


def test_parameters_have_the_shapes_of_gpt2():
    C, V, T = 6, 11, 8
    shapes = {name: array.shape for name, array in GPT(change(n_layer=1, tie_weights=False)).state_dict().items()}
    in_block = [(C,), (C,), (3 * C, C), (3 * C,), (C, C), (C,), (C,), (C,), (4 * C, C), (4 * C,), (C, 4 * C), (C,)]
    assert list(shapes.values()) == [(V, C), (T, C), *in_block, (C,), (C,), (V, C)]


@given(configs, st.integers(1, 3), st.data())
def test_logits_have_a_score_for_every_token(config, batch, data):
    time = data.draw(st.integers(1, config.block_size))
    logits = GPT(config)(np.zeros((batch, time), int))
    assert logits.shape == (batch, time, config.vocab_size)
    assert logits.dtype == np.float32


# ---- initial values ----------------------------------------------------------------------------------------------


def test_initial_weights_have_the_statistics_of_gpt2():
    config = GPTConfig(vocab_size=500, block_size=200, n_layer=3, n_head=4, n_embd=64, tie_weights=False)
    for name, array in GPT(config, Generator(0)).state_dict().items():
        if name.endswith("bias"):
            assert not array.any(), name
        elif ".ln_" in name:
            assert (array == 1).all(), name
        else:
            std = 0.02 / math.sqrt(6) if "c_proj" in name else 1 / 64 if name == "lm_head.weight" else 0.02
            # The standard error of a deviation is std / √(2n), that of a mean std / √n.
            assert abs(array.std() / std - 1) < 5 / math.sqrt(2 * array.size), name
            assert abs(array.mean()) < 5 * std / math.sqrt(array.size), name
        assert array.dtype == np.float32, name


@pytest.mark.parametrize("tie_weights", [True, False])
def test_the_initial_loss_is_that_of_a_uniform_guess(tie_weights):
    config = GPTConfig(vocab_size=300, block_size=32, n_layer=2, n_head=2, n_embd=32, tie_weights=tie_weights)
    ids = some_ids(4, 32, vocab_size=300)
    targets = some_ids(4, 32, seed=1, vocab_size=300)
    assert GPT(config, Generator(0)).loss(ids, targets).item() == pytest.approx(math.log(300), abs=0.1)


def test_the_same_seed_gives_the_same_model_bit_for_bit():
    one, two, three = (GPT(SMALL, Generator(seed)).state_dict() for seed in (5, 5, 6))
    for name, array in one.items():
        assert array.tobytes() == two[name].tobytes()
    assert one["transformer.wte.weight"].tobytes() != three["transformer.wte.weight"].tobytes()
    without, zero = GPT(SMALL).state_dict(), GPT(SMALL, Generator(0)).state_dict()
    assert all(without[name].tobytes() == zero[name].tobytes() for name in zero)


def test_the_same_seed_draws_the_same_dropout_masks():
    config, ids = change(dropout=0.3), some_ids(2, 5)
    logits = [GPT(config, Generator(5))(ids).data for _ in range(2)]
    assert logits[0].tobytes() == logits[1].tobytes()
    model = GPT(config, Generator(5))
    assert model(ids).data.tobytes() != model(ids).data.tobytes()
    model.eval()
    assert model(ids).data.tobytes() == model(ids).data.tobytes() == GPT(SMALL, Generator(5))(ids).data.tobytes()


def test_dropout_acts_on_embeddings_weights_and_sublayers():
    class Listening(Generator):
        def bernoulli_keep(self, p, shape):
            masks.append((p, shape))
            return super().bernoulli_keep(p, shape)

    masks = []
    model = GPT(change(dropout=0.3), Listening(5))
    model(some_ids(3, 5))
    embeddings = sublayer = (3, 5, 6)
    weights = (3, 2, 5, 5)
    assert masks == [(0.3, shape) for shape in (embeddings, *[weights, sublayer, sublayer] * 2)]
    model.eval()(some_ids(3, 5))
    assert len(masks) == 7


# ---- forward and backward ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config", [SMALL, change(tie_weights=False), change(qkv_bias=False), change(n_head=3, n_layer=3), change(n_head=1)]
)
def test_logits_equal_a_forward_pass_in_loops(config):
    model = shaken(config)
    ids = some_ids(3, 8)
    expected = [oracle(model.state_dict(), config, row) for row in ids]
    np.testing.assert_allclose(model(ids).data, expected, rtol=1e-12, atol=1e-12)


def test_loss_is_the_mean_of_minus_ln_p_at_the_targets():
    model = shaken(SMALL)
    ids, targets = some_ids(2, 5), some_ids(2, 5, seed=1)
    targets[0, 3] = targets[1, 0] = -100
    logits = model(ids).data
    losses = [
        math.log(math.fsum(math.exp(v) for v in logits[place])) - logits[place][targets[place]]
        for place in np.ndindex(2, 5)
        if targets[place] != -100
    ]
    assert len(losses) == 8
    assert model.loss(ids, targets).item() == pytest.approx(math.fsum(losses) / 8, rel=1e-12)


@pytest.mark.parametrize("training", [True, False])
def test_recomputing_each_block_changes_no_bit(training):
    found = []
    for recompute in (False, True):
        model = GPT(dataclasses.replace(SMALL, dropout=0.3), Generator(5), recompute=recompute).train(training)
        steps = []
        for seed in range(2):  # the second loss draws masks from where the first has stopped
            loss = model.loss(some_ids(2, 5, seed=seed), some_ids(2, 5, seed=seed + 7))
            steps += [loss.data, *grad(loss, list(model.parameters()))]
        found.append([np.asarray(a).tobytes() for a in steps])
    assert found[0] == found[1]


def tape(y):
    """The names of the operations that y depends on, each as often as it was recorded."""
    found, unread = [], [y._node]
    while unread:
        node = unread.pop()
        if node is not None and node not in found:
            found.append(node)
            unread += node.parents
    return Counter(node.name for node in found if not node.is_leaf)


def close(found, expected):
    """Within 1e-12 of the largest element."""
    return np.abs(found - expected).max() <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("qkv_bias", [True, False])
@pytest.mark.parametrize("tie_weights", [True, False])
def test_plain_model_equals_the_fused_one_to_rounding(tie_weights, qkv_bias, dropout, recompute):
    config = change(tie_weights=tie_weights, qkv_bias=qkv_bias, dropout=dropout)
    ids, targets = some_ids(3, 7), some_ids(3, 7, seed=1)
    targets[0, 2:] = -100
    found = []
    for fused in (True, False):
        rng = Generator(5)
        model = GPT(config, rng, recompute=recompute, fused=fused)
        model.load_state_dict(shaken(config).state_dict())
        model.to(np.float64)
        rng.manual_seed(6)  # for dropout
        named = dict(model.named_parameters())
        values = []
        for options in ({}, {"label_smoothing": 0.1, "count": 30}):
            loss = model.loss(ids, targets, **options)
            values += [loss.data, *grad(loss, list(named.values()))]
        found.append([*values, model(ids).data, rng.rand(1)])
    names = [*["loss", *named] * 2, "logits", "the next number drawn"]
    assert not [name for name, plain, fused in zip(names, *found, strict=True) if not close(plain, fused)]


def test_plain_model_records_every_step_of_the_book():
    fused, plain = (tape(GPT(change(n_layer=1), fused=fused).loss([[1, 2]], [[2, 3]])) for fused in (True, False))
    whole = Counter(["causal_self_attention", "linear_cross_entropy"])
    steps = {"transpose": 3, "getitem": 3, "matmul": 2, "multiply": 1, "where": 1, "softmax": 1, "reshape": 2}
    assert plain - fused == Counter(steps) + Counter(["linear", "cross_entropy"])  # k is transposed, and the heads
    assert fused - plain == whole


@pytest.mark.parametrize("use_cache", [True, False])
def test_plain_model_writes_what_the_fused_one_writes(use_cache):
    model = shaken(SMALL)
    prompt = some_ids(2, 3)
    expected = model.generate(prompt, 12)
    model.fused = False
    np.testing.assert_array_equal(model.generate(prompt, 12, use_cache=use_cache), expected)


class Scaled(Linear):
    def forward(self, x):
        return 0.5 * super().forward(x)


class Capped(GPT):
    def forward(self, ids, cache=None, logits_to_keep=None):
        return 3 * (super().forward(ids, cache, logits_to_keep) / 3).tanh()


def with_head(make):
    model = shaken(SMALL)
    rng = Generator(9)
    model.lm_head = make(rng).to(np.float64)
    for p in model.lm_head.parameters():
        p.data = rng.randn(p.shape, np.float64)
    return model


def with_own_forward(model):
    head = model.lm_head
    head.forward = lambda x: F.linear(x * 2, head.weight)
    return model


def capped():
    model = Capped(SMALL).to(np.float64)
    model.load_state_dict(shaken(SMALL).state_dict())
    return model


HEADS = {
    "a bias": lambda: with_head(lambda rng: Linear(6, 11, rng=rng)),
    "more outputs": lambda: with_head(lambda rng: Linear(6, 13, rng=rng)),
    "two layers": lambda: with_head(lambda rng: Sequential(Linear(6, 4, rng=rng), GELU(), Linear(4, 11, rng=rng))),
    "a subclass": lambda: with_head(lambda rng: Scaled(6, 11, False, rng=rng)),
    "another matrix": lambda: with_head(lambda rng: Linear(6, 11, False, rng=rng)),
    "a forward of its own": lambda: with_own_forward(shaken(SMALL)),
    "a subclass of the model": capped,
}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_loss_and_gradients_are_those_of_the_logits_whatever_the_head_is(head, fused):
    model = HEADS[head]()
    model.fused = fused
    ids, targets = some_ids(3, 5), some_ids(3, 5, seed=1)
    targets[0, 2:] = -100
    logits, parameters = model(ids), list(model.parameters())
    expected = F.cross_entropy(logits.reshape(15, -1), targets.reshape(-1))
    assert model.loss(ids, targets).item() == pytest.approx(expected.item(), rel=1e-12)
    for found, right in zip(grad(model.loss(ids, targets), parameters), grad(expected, parameters), strict=True):
        np.testing.assert_allclose(found, right, rtol=0, atol=1e-12 * np.abs(right).max())
    assert model.log_probs(ids, targets).data.sum() == pytest.approx(-12 * expected.item(), rel=1e-12)
    in_parts = [model.loss(ids[i : i + 1], targets[i : i + 1], 0.1, count=12).item() for i in range(3)]
    assert sum(in_parts) == pytest.approx(model.loss(ids, targets, 0.1).item(), rel=1e-12)
    assert (tape(model.loss(ids, targets))["linear_cross_entropy"] == 1) == (fused and head == "another matrix")


@pytest.mark.parametrize("fused", [True, False])
def test_loss_of_a_count_below_1_is_refused(fused):
    with pytest.raises(ValueError, match="got count 0, which must be ≥ 1"):
        GPT(SMALL, fused=fused).loss([[0, 1]], [[-100, -100]], count=0)


def test_logits_do_not_depend_on_later_tokens():
    model = shaken(SMALL, np.float32)
    before = some_ids(2, 8)
    logits = model(before).data
    for t in range(8):
        after = before.copy()
        after[:, t] = (after[:, t] + 1) % 11
        changed = model(after).data
        assert changed[:, :t].tobytes() == logits[:, :t].tobytes()
        assert (changed[:, t:] != logits[:, t:]).any(axis=(0, 2)).all()


def test_rows_of_a_batch_do_not_depend_on_each_other():
    model = shaken(SMALL)
    ids = some_ids(3, 6)
    np.testing.assert_allclose(model(ids).data, np.concatenate([model(row[None]).data for row in ids]), rtol=1e-12)


def test_a_small_model_memorizes_a_batch():
    config = GPTConfig(vocab_size=16, block_size=8, n_layer=2, n_head=2, n_embd=32)
    model = GPT(config, Generator(0))
    ids = some_ids(4, 9, vocab_size=16)
    ids[:, 0] = range(4)  # texts that differ from the first token on can all be memorized
    optimizer = AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(150):
        optimizer.zero_grad()
        loss = model.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01
    np.testing.assert_array_equal(model.generate(ids[:, :1], 8, temperature=0), ids)


# ---- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        *(({name: 0}, f"{name} must be a positive integer, got 0") for name in ("vocab_size", "n_layer", "n_embd")),
        ({"n_head": -1}, "n_head must be a positive integer, got -1"),
        ({"block_size": 2.0}, "block_size must be a positive integer, got 2.0"),
        ({"n_layer": True}, "n_layer must be a positive integer, got True"),
        ({"n_layer": "2"}, "n_layer must be a positive integer, got '2'"),
        ({"qkv_bias": 1}, "qkv_bias must be true or false, got 1"),
        ({"tie_weights": "no"}, "tie_weights must be true or false, got 'no'"),
        ({"n_head": 4}, r"n_embd \(6\) must be a multiple of n_head \(4\)"),
        ({"dropout": 1.0}, r"dropout must lie in \[0, 1\), got 1.0"),
        ({"dropout": -0.1}, r"dropout must lie in \[0, 1\), got -0.1"),
        ({"dropout": math.nan}, r"dropout must lie in \[0, 1\), got nan"),
        ({"dropout": "0.1"}, r"dropout must lie in \[0, 1\), got '0.1'"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(fields, message):
    with pytest.raises(ValueError, match=f"^GPTConfig: {message}$"):
        change(**fields)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"n_layer": 2}, r"got dict: write GPTConfig\(\*\*dict\)"),
        (None, "got NoneType: write GPTConfig"),
        ("gpt2", "got str: write GPTConfig"),
    ],
)
def test_a_config_of_another_type_is_refused(config, message):
    with pytest.raises(TypeError, match=f"config must be a GPTConfig, {message}"):
        GPT(config)


@pytest.mark.parametrize("rng", [0, 1, np.random.default_rng(0)])
def test_a_model_takes_no_seed_or_other_generator_as_rng(rng):
    with pytest.raises(TypeError, match=r"rng must be a tinygrad_llm\.Generator, got "):
        GPT(SMALL, rng=rng)
    with pytest.raises(TypeError, match=r"rng must be a tinygrad_llm\.Generator, got "):
        GPTClassifier(GPTClassifierConfig(**dataclasses.asdict(SMALL), labels=("a", "b")), rng=rng)


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        ([[0, -1]], IndexError, "got id -1, outside the vocabulary"),
        ([[0, 11]], IndexError, "got id 11, outside the vocabulary: ids must be 0 … 10"),
        ([[0] * 9], ValueError, "got 9 positions, more than block_size 8"),
        ([0, 1], ValueError, r"ids must be integers of shape \(B, T\), got int64 of shape \(2,\)"),
        ([[[0]]], ValueError, r"shape \(1, 1, 1\)"),
        ([[0.0, 1.0]], ValueError, "got float64 of shape"),
        ([[True]], ValueError, "got bool of shape"),
        ([[]], ValueError, "shape"),
        (np.zeros((0, 3), int), ValueError, r"shape \(0, 3\)"),
    ],
)
def test_ids_that_do_not_fit_are_refused(ids, error, message):
    with pytest.raises(error, match=message):
        GPT(SMALL)(ids)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64, np.uint64])
def test_ids_may_be_integers_of_any_dtype(dtype):
    ids = some_ids(2, 3)
    model = GPT(SMALL)
    np.testing.assert_array_equal(model(ids.astype(dtype)).data, model(ids).data)
    np.testing.assert_array_equal(model(Tensor(ids)).data, model(ids.tolist()).data)


@pytest.mark.parametrize(
    ("targets", "error", "message"),
    [
        ([[0, 11]], IndexError, "got target 11, outside the vocabulary"),
        ([[0, -1]], IndexError, "got target -1, outside the vocabulary"),
        ([[0]], ValueError, r"targets .*\(1, 1\).*\(1, 2\)"),
        ([[0], [1]], ValueError, r"targets .*\(2, 1\).*\(1, 2\)"),  # as many, but not the same places
        ([0, 1], ValueError, "targets"),
        ([[0.5, 1.0]], ValueError, "targets .*float64"),
        ([[-100, -100]], ValueError, "the mean over no targets"),
    ],
)
def test_targets_that_do_not_fit_are_refused(targets, error, message):
    with pytest.raises(error, match=message):
        GPT(SMALL).loss([[0, 1]], targets)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("block_size", [8, 1])  # with one position, its embedding would be repeated without an error
def test_the_loss_of_more_positions_than_the_block_is_refused(block_size, fused):
    ids = [[0] * (block_size + 1)]
    with pytest.raises(ValueError, match=f"got {block_size + 1} positions, more than block_size {block_size}"):
        GPT(dataclasses.replace(SMALL, block_size=block_size), fused=fused).loss(ids, ids)


def test_a_cache_holds_block_size_positions():
    model = GPT(SMALL).eval()
    cache = model.new_cache()
    with no_grad():
        model(some_ids(1, 5), cache)
        with pytest.raises(ValueError, match="got 9 positions, more than block_size 8"):
            model(some_ids(1, 4), cache)
        assert cache.length == 5
        with pytest.raises(ValueError, match="the cache holds 1 texts, got 2"):
            model(some_ids(2, 1), cache)
    assert [layer.length for layer in cache.layers] == [5] * SMALL.n_layer


@pytest.mark.parametrize("training", [True, False])
def test_a_cache_is_refused_in_training_mode_and_while_recording(training):
    model = GPT(SMALL).train(training)
    recording = contextlib.nullcontext() if not training else no_grad()
    with pytest.raises(RuntimeError, match=r"call the model after eval\(\), inside no_grad\(\)"), recording:
        model(some_ids(1, 3), model.new_cache())


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4).filter(lambda pieces: sum(pieces) <= 8), st.integers(1, 2))
def test_a_text_read_in_pieces_with_a_cache_gives_the_logits_of_the_whole(pieces, batch):
    model = shaken(SMALL).eval()
    ids = some_ids(batch, sum(pieces))
    cache = model.new_cache()
    with no_grad():
        logits = [model(piece, cache).data for piece in np.split(ids, np.cumsum(pieces)[:-1], axis=1)]
    assert cache.length == sum(pieces)
    np.testing.assert_allclose(np.concatenate(logits, axis=1), model(ids).data, rtol=1e-10, atol=1e-12)
