"""`functional`: torch's names, arguments and checks. The kernels that it applies are tested in tests/kernels."""

import math

import numpy as np
import pytest

from tinygrad_llm import functional as F
from tinygrad_llm import kernels as K
from tinygrad_llm import runtime
from tinygrad_llm.autograd import Tensor, grad
from tinygrad_llm.random import Generator

X = np.random.default_rng(0).standard_normal((2, 3, 4))


def leaf(*shape, seed=0):
    return Tensor(np.random.default_rng(seed).standard_normal(shape), requires_grad=True)


def test_every_docstring_gives_arguments_and_results(for_each):
    def check(name):
        doc = getattr(F, name).__doc__
        assert "Args:" in doc
        assert "Returns:" in doc

    for_each(F.__all__, check)


@pytest.mark.parametrize(
    ("name", "kernel", "arguments", "options"),
    [
        *((name, name, (X,), {}) for name in ("relu", "sigmoid", "tanh", "gelu")),
        *((name, name, (X, 1), {"axis": 1}) for name in ("softmax", "log_softmax")),
        ("maximum", "maximum", (X, X[::-1]), {}),
        ("where", "where", (X > 0, X, -X), {}),
        ("matmul", "matmul", (X, X[0].T), {}),
        ("linear", "linear", (X, X[0]), {}),
        ("linear", "linear", (X, X[0], X[0, :, 0]), {}),
        ("embedding", "embedding", (np.array([1, 0]), X[0]), {}),
        ("rotary", "rotary", (X, np.array([0, 7, 9])), {}),
        ("causal_self_attention", "causal_self_attention", (X.repeat(3, axis=2), 2), {"n_head": 2}),
    ],
)
def test_a_function_applies_its_kernel(name, kernel, arguments, options):
    """Only the order of arguments and the name `dim` for `axis` differ."""
    tensors = [Tensor(x) if isinstance(x, np.ndarray) else x for x in arguments]
    arrays = [x for x in arguments if isinstance(x, np.ndarray)]
    arrays = arrays[::-1] if name == "embedding" else arrays
    np.testing.assert_array_equal(getattr(F, name)(*tensors), K.KERNELS[kernel](*arrays, **options)[0])


def test_numbers_take_the_dtype_of_the_tensors_next_to_them():
    a, b = Tensor([1.0, 5.0]), Tensor([2.0, 3.0])
    assert F.maximum(a, 4).tolist() == [4, 5]
    assert F.where(a > b, a, 0.0).tolist() == [0, 5]
    assert F.where(a > b, a, 0.0).dtype == np.float32


X0, Y0, IDS = Tensor(X[0]), Tensor(X[1]), np.array([1, 0, 3])
# Arguments with which each public function can be called, by name; those of `einsum` have numbers.
ARGUMENTS = {
    **{name: {"input": X0} for name in ("relu", "sigmoid", "tanh", "gelu", "silu", "softplus")},
    **{name: {"input": X0, "other": Y0} for name in ("maximum", "minimum")},
    **{name: {"input": X0, "dim": 1} for name in ("softmax", "log_softmax")},
    "binary_cross_entropy_with_logits": {"input": X0, "target": Y0.sigmoid(), "weight": Y0, "pos_weight": Y0},
    "cat": {"tensors": [X0, Y0]},
    "causal_self_attention": {"qkv": Tensor(X.repeat(3, 2)), "n_head": 2},
    "cross_entropy": {"input": X0, "target": IDS, "weight": Tensor(np.ones(4))},
    "dropout": {"input": X0, "training": False},
    "einsum": {0: "ij,kj", 1: X0, 2: Y0},
    "embedding": {"input": IDS[:2], "weight": X0},
    "layer_norm": {"input": X0, "normalized_shape": 4, "weight": X0[0], "bias": Y0[0]},
    "linear": {"input": X0, "weight": Y0, "bias": Tensor(X[0, :, 0])},
    "linear_cross_entropy": {"input": X0, "weight": Y0, "target": np.array([2, 0, 1])},
    "matmul": {"input": X0, "other": Y0.T},
    "mse_loss": {"input": X0, "target": Y0},
    "nll_loss": {"input": X0, "target": IDS, "weight": np.ones(4)},
    "rms_norm": {"input": X0, "normalized_shape": 4, "weight": Y0[0]},
    "rotary": {"input": X0, "positions": IDS},
    "scaled_dot_product_attention": {"query": X0, "key": Y0, "value": X0, "attn_mask": np.ones((3, 3), bool)},
    "stack": {"tensors": [X0, Y0]},
    "where": {"condition": X0 > 0, "input": X0, "other": Y0},
}
PLACES = [
    (name, key, i)
    for name, arguments in ARGUMENTS.items()
    for key, value in arguments.items()
    for i in (range(len(value)) if isinstance(value, list) else [None])
    if isinstance(value, Tensor | np.ndarray | list)
]


def outcome(name, arguments):
    """The result of a function of `functional`, or its error."""
    try:
        return F.einsum(*arguments.values()) if name == "einsum" else getattr(F, name)(**arguments)
    except (TypeError, ValueError) as error:
        return error


@pytest.mark.parametrize("kind", ["list", "float"])
def test_a_list_or_a_number_in_place_of_a_tensor_is_converted_or_named(for_each, kind):
    assert set(ARGUMENTS) == set(F.__all__)

    def check(place):
        name, key, i = place
        arguments = ARGUMENTS[name]
        x = arguments[key] if i is None else arguments[key][i]
        wrong = np.asarray(x).tolist() if kind == "list" else 2.0
        changed = wrong if i is None else [wrong if k == i else y for k, y in enumerate(arguments[key])]
        found = outcome(name, arguments | {key: changed})
        if isinstance(found, TypeError):
            label = f"operands[{key - 1}]" if name == "einsum" else key if i is None else f"{key}[{i}]"
            assert str(found) == f"{name}: {label} must be a Tensor, got {kind}: write Tensor({label})"
        elif isinstance(found, ValueError):
            assert kind == "float"  # its shape is another one
        elif kind == "list":
            np.testing.assert_allclose(found, outcome(name, arguments))

    for_each(PLACES, check)


def test_an_error_of_another_cause_names_no_argument():
    with pytest.raises(TypeError, match=r"cross_entropy: got targets of float32, which must be integers"):
        F.cross_entropy(Tensor(X[0]), [0.5, 1.0, 2.0])
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        F.softmax([1.0])
    with pytest.raises(TypeError, match="relu: input must be a Tensor, got ndarray: write Tensor"):
        F.relu(X)


def test_gelu_has_both_forms_and_refuses_others():
    exact = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in X.ravel()]
    np.testing.assert_allclose(F.gelu(Tensor(X), approximate="none").data.ravel(), exact, rtol=1e-14)
    with pytest.raises(ValueError, match="gelu: got approximate='erf'"):
        F.gelu(Tensor(X), approximate="erf")


def test_activations_and_losses_equal_their_formulas():
    x, t = Tensor(X[0]), np.abs(X[1]) / 4
    sigma = 1 / (1 + np.exp(-X[0]))
    np.testing.assert_allclose(F.silu(x).data, X[0] * sigma, rtol=1e-14)
    np.testing.assert_allclose(F.softplus(x).data, np.log1p(np.exp(X[0])), rtol=1e-14)
    np.testing.assert_allclose(F.mse_loss(x, Tensor(t)).item(), np.mean((X[0] - t) ** 2), rtol=1e-14)
    losses = -(3 * t * np.log(sigma) + (1 - t) * np.log(1 - sigma))
    options = {"reduction": "none", "pos_weight": np.array([3.0])}
    np.testing.assert_allclose(F.binary_cross_entropy_with_logits(x, t, **options).data, losses, rtol=1e-13)
    weight = 1 + np.abs(X[0])
    weighed = F.binary_cross_entropy_with_logits(x, t, weight, **options)
    np.testing.assert_allclose(weighed.data, weight * losses, rtol=1e-13)
    zero = Tensor(np.zeros(2), requires_grad=True)
    assert grad(F.binary_cross_entropy_with_logits(zero, np.array([0.0, 1.0]), reduction="sum"), zero)[0].tolist() == [
        0.5,
        -0.5,
    ]
    far = F.binary_cross_entropy_with_logits(Tensor([1000.0, -1000.0]), np.float32([0, 1]), reduction="none")
    assert far.tolist() == [1000, 1000]
    rms = X / np.sqrt(np.mean(X * X, axis=-1, keepdims=True) + 1e-5) * X[0, 0]
    np.testing.assert_allclose(F.rms_norm(Tensor(X), 4, Tensor(X[0, 0]), 1e-5).data, rms, rtol=1e-14)
    for name in ("mse_loss", "binary_cross_entropy_with_logits"):
        with pytest.raises(ValueError, match=f"{name}: got input"):
            getattr(F, name)(x, t[0])


FIVES = np.array([[0, 255], [3, 7]], np.uint8)
WIDE = np.array([[300.0, -400.0], [250.0, 0.5]])  # the squares of three of them are infinite in float16


@pytest.mark.parametrize(
    ("function", "inputs"),
    [
        (F.rms_norm, (WIDE, 2)),
        (F.rms_norm, (FIVES, 2)),
        (F.mse_loss, (WIDE * 0.9, WIDE[::-1] * 0.8)),
        (F.mse_loss, (FIVES, FIVES[::-1])),
        (F.mse_loss, (FIVES > 4, FIVES > 0)),
        (F.binary_cross_entropy_with_logits, (WIDE / 100, np.eye(2))),
        (F.binary_cross_entropy_with_logits, (FIVES, FIVES > 4)),
        (F.silu, (WIDE / 100,)),
        (F.silu, (FIVES,)),
        (lambda x: F.gelu(x, "none"), (WIDE / 100,)),
        (lambda x: F.gelu(x, "none"), (FIVES,)),
        (Tensor.std, (WIDE * 150,)),
        (Tensor.norm, (FIVES.view(np.int8) - np.int8(100), 1)),
        (Tensor.norm, (FIVES, math.inf)),
    ],
)
def test_float16_and_small_integers_are_computed_in_float32_and_rounded_once(function, inputs):
    """Several operations make one function: no number between them may be rounded, overflow or wrap around."""
    dtype = np.float16 if inputs[0].dtype == np.float64 else None
    narrow = [Tensor(x, dtype=dtype) if isinstance(x, np.ndarray) else x for x in inputs]
    wide = [Tensor(x.data, dtype=np.float32) if isinstance(x, Tensor) else x for x in narrow]
    y = function(*narrow)
    assert y.dtype == (dtype or np.float32)
    np.testing.assert_array_equal(y.data, function(*wide).data.astype(y.dtype))
    if dtype:
        narrow[0].requires_grad = wide[0].requires_grad = True
        g, expected = (grad(function(*x).sum(), x[0])[0] for x in (narrow, wide))
        np.testing.assert_array_equal(g, expected.astype(dtype))


def test_cat_and_stack_take_tensors_and_arrays_along_any_dim():
    a, b = np.ones((2, 3)), np.zeros((2, 3))
    for dim in (0, 1, -1):
        np.testing.assert_array_equal(F.cat([Tensor(a), b], dim), np.concatenate([a, b], dim))
        np.testing.assert_array_equal(F.stack([Tensor(a), b], dim), np.stack([a, b], dim))
    assert F.cat([a, b]).shape == (4, 3)
    assert F.stack([a, b]).shape == (2, 2, 3)


def test_einsum_takes_the_equation_first():
    a, b = leaf(2, 3), leaf(3, 4)
    for equation in ("ij,jk->ik", "ij,jk"):
        np.testing.assert_allclose(F.einsum(equation, a, b).data, a.data @ b.data, rtol=1e-14)


def test_embedding_refuses_an_id_outside_the_vocabulary():
    with pytest.raises(IndexError, match="got id 5"):
        F.embedding(np.array([5]), leaf(5, 3))


# ---- layer norm ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("parameters", [(), ("weight",), ("bias",), ("weight", "bias")])
def test_layer_norm_over_the_last_axes(axes, parameters):
    shape, over = X.shape[3 - axes :], tuple(range(3 - axes, 3))
    drawn = {name: np.random.default_rng(i).standard_normal(shape) for i, name in enumerate(parameters)}
    eps = 0.01
    expected = (X - X.mean(axis=over, keepdims=True)) / np.sqrt(X.var(axis=over, keepdims=True) + eps)
    expected = expected * drawn.get("weight", 1) + drawn.get("bias", 0)
    y = F.layer_norm(Tensor(X), shape, **{name: Tensor(array) for name, array in drawn.items()}, eps=eps)
    np.testing.assert_allclose(y, expected, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", [(3,), (), (3, 2), (4, 4, 4, 4)])
def test_layer_norm_refuses_axes_that_are_not_the_last(shape):
    with pytest.raises(ValueError, match=r"got an input \(2, 3, 4\), whose last axes must be normalized_shape"):
        F.layer_norm(Tensor(X), shape)


@pytest.mark.parametrize(("shape", "parameter"), [((4,), (3,)), ((3, 4), (4,))])
def test_layer_norm_refuses_parameters_of_another_shape(shape, parameter):
    with pytest.raises(ValueError, match=r"got weight and bias of shapes .*, which must be normalized_shape"):
        F.layer_norm(Tensor(X), shape, Tensor(np.ones(parameter)))


# ---- dropout (its masks: tests/nn/test_layers.py) ------------------------------------------------------------------


def test_dropout_draws_from_the_generator_and_only_while_training():
    x, rng = Tensor(X), Generator(1)
    before = rng.get_state()
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0, rng=rng) is x
    assert rng.get_state()["position"] == before["position"]
    a, b = (F.dropout(x, 0.5, rng=Generator(1)).data for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, F.dropout(x, 0.5, rng=Generator(2)).data)


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_dropout_refuses_a_probability_outside_0_to_1(p):
    with pytest.raises(ValueError, match=rf"dropout: got p={p}, which must lie in \[0, 1\]"):
        F.dropout(Tensor(X), p, rng=Generator(0))


def test_dropout_refuses_to_train_without_a_generator():
    with pytest.raises(ValueError, match=r"pass rng=Generator\(seed\)"):
        F.dropout(Tensor(X), 0.5)


# ---- losses --------------------------------------------------------------------------------------------------------


def test_cross_entropy_reductions_and_ignored_rows():
    logits, targets = leaf(4, 5), np.array([1, -100, 0, 4])
    losses = F.cross_entropy(logits, targets, reduction="none")
    expected = [-math.log(F.softmax(logits, 1).data[i, t]) if t >= 0 else 0.0 for i, t in enumerate(targets)]
    np.testing.assert_allclose(losses.data, expected, rtol=1e-13)
    assert F.cross_entropy(logits, targets, reduction="sum").item() == pytest.approx(sum(expected))
    loss = F.cross_entropy(logits, Tensor(targets))
    assert loss.item() == pytest.approx(sum(expected) / 3)
    (d,) = grad(loss, [logits])
    onehot = np.arange(5) == targets[:, None]
    np.testing.assert_allclose(d[[0, 2, 3]], ((F.softmax(logits, 1).data - onehot) / 3)[[0, 2, 3]], rtol=1e-13)
    assert not d[1].any()


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_cross_entropy_of_classes_on_any_axis_equals_a_loop(reduction, smoothing):
    """Class weights, probabilities and leading axes, as torch defines them."""
    rng = np.random.default_rng(1)
    logits, ids, w = rng.standard_normal((2, 5, 3)), rng.integers(0, 5, (2, 3)), rng.uniform(0.5, 2, 5)
    ids[0, 1] = -100
    logp = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    for weight in (None, w):
        v = np.ones(5) if weight is None else w
        losses, weights = np.zeros((2, 3)), np.zeros((2, 3))
        for n, i in np.ndindex(2, 3):
            if (t := ids[n, i]) >= 0:
                losses[n, i] = -(1 - smoothing) * v[t] * logp[n, t, i] - smoothing / 5 * (v * logp[n, :, i]).sum()
                weights[n, i] = v[t]
        expected = {"none": losses, "sum": losses.sum(), "mean": losses.sum() / weights.sum()}[reduction]
        options = {"weight": weight, "reduction": reduction}
        loss = F.cross_entropy(Tensor(logits), ids, label_smoothing=smoothing, **options)
        np.testing.assert_allclose(loss.data, expected, rtol=1e-13)
        if not smoothing:
            np.testing.assert_allclose(F.nll_loss(Tensor(logp), ids, **options).data, expected, rtol=1e-13)
        p = rng.dirichlet(np.ones(5), (2, 3)).swapaxes(1, 2)
        losses = -((p * (1 - smoothing) + smoothing / 5) * logp * v[:, None]).sum(1)
        expected = {"none": losses, "sum": losses.sum(), "mean": losses.mean()}[reduction]
        loss = F.cross_entropy(Tensor(logits), Tensor(p), label_smoothing=smoothing, **options)
        np.testing.assert_allclose(loss.data, expected, rtol=1e-13)
    one = F.cross_entropy(Tensor(logits[0, :, 0]), np.array(2), reduction=reduction)
    assert one.item() == pytest.approx(-logp[0, 2, 0])


def test_a_loss_with_weights_ignores_masked_logits_and_names_what_does_not_fit():
    masked = Tensor(np.array([[0.0, 0.0, -np.inf]]))
    assert F.cross_entropy(masked, np.array([0]), np.ones(3)).item() == pytest.approx(math.log(2))
    logits = Tensor(np.zeros((2, 3)))
    for call, message in (
        (lambda: F.cross_entropy(logits, np.array([0])), r"input \(2, 3\) and target \(1,\)"),
        (lambda: F.cross_entropy(logits, np.zeros(2, int), np.ones(2)), r"class weights of shape \(2,\)"),
        (lambda: F.nll_loss(logits, np.array([-100, -100])), "the mean over no targets"),
        (lambda: F.nll_loss(logits, np.zeros(3, int)), "nll_loss: got input"),
        (lambda: F.nll_loss(logits[0, 0], np.array(0)), "a Tensor without axes"),
        (lambda: F.nll_loss(logits[:, :0], np.zeros(2, int)), r"at least one class, got shape \(2, 0\)"),
        (lambda: F.cross_entropy(logits[:, :0], logits[:, :0]), r"at least one class, got shape \(2, 0\)"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
    whole = Tensor(np.array([[0, 1], [2, 0]]))
    assert F.nll_loss(whole, np.array([1, 0])).item() == -1.5


def test_head_and_loss_equal_linear_and_cross_entropy():
    x, weight, targets = leaf(6, 4), leaf(5, 4), np.array([1, -100, 0, 4, 2, -100])
    for options in ({}, {"ignore_index": 2, "target": np.array([1, 2, 0, 4, 2, 1])}, {"label_smoothing": 0.2}):
        target = options.pop("target", targets)
        one = F.linear_cross_entropy(x, weight, Tensor(target), **options)
        other = F.cross_entropy(F.linear(x, weight), target, **options)
        assert one.item() == pytest.approx(other.item(), rel=1e-13)
        for g, expected in zip(grad(one, [x, weight]), grad(other, [x, weight]), strict=True):
            np.testing.assert_allclose(g, expected, rtol=1e-12, atol=1e-15)


def test_losses_of_parts_with_the_count_of_the_whole_add_up_to_the_mean():
    """Also where no target of a part counts."""
    x, weight, targets = leaf(6, 4), leaf(5, 4), np.array([1, -100, -100, -100, 2, 0])
    whole = F.linear_cross_entropy(x, weight, targets)
    parts = [F.linear_cross_entropy(x[i : i + 2], weight, targets[i : i + 2], count=3) for i in (0, 2, 4)]
    assert [part.item() > 0 for part in parts] == [True, False, True]
    assert sum(part.item() for part in parts) == pytest.approx(whole.item(), rel=1e-14)
    for g, expected in zip(grad(parts[0] + parts[1] + parts[2], [x, weight]), grad(whole, [x, weight]), strict=True):
        np.testing.assert_allclose(g, expected, rtol=1e-13, atol=1e-16)


@pytest.mark.parametrize("frozen", ["x", "weight", "both"])
def test_head_and_loss_compute_no_gradient_of_frozen_inputs(frozen):
    x, weight, targets = leaf(3, 4), leaf(5, 4), np.array([1, 0, 4])
    expected = dict(zip(("x", "weight"), grad(F.linear_cross_entropy(x, weight, targets), [x, weight]), strict=True))
    x.requires_grad, weight.requires_grad = frozen == "weight", frozen == "x"
    loss = F.linear_cross_entropy(x, weight, targets)
    assert loss.requires_grad == (frozen != "both")
    for name, t in (("x", x), ("weight", weight)):
        if t.requires_grad:
            np.testing.assert_array_equal(grad(loss, [t])[0], expected[name])


# ---- attention -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("Tq", "Tk"), [(4, 4), (1, 4), (2, 5), (5, 2)])
def test_causal_attention_is_attention_with_a_lower_triangle_from_the_first_key_on(Tq, Tk):
    q, k, v = leaf(2, 3, Tq, 4), leaf(2, 3, Tk, 4, seed=1), leaf(2, 3, Tk, 4, seed=2)
    expected, _ = K.attention(q.data, k.data, v.data, np.tri(Tq, Tk, dtype=bool))
    np.testing.assert_allclose(F.scaled_dot_product_attention(q, k, v, is_causal=True).data, expected, rtol=1e-12)


@pytest.mark.parametrize("shape", [None, (), (5,), (4, 5), (3, 1, 5), (2, 1, 4, 1), (2, 3, 4, 5)])
def test_attention_takes_no_mask_or_one_that_broadcasts(shape):
    q, k, v = leaf(2, 3, 4, 2), leaf(2, 3, 5, 2, seed=1), leaf(2, 3, 5, 3, seed=2)
    mask = np.random.default_rng(0).random(shape or ()) < 0.7
    whole = np.broadcast_to(mask, (2, 3, 4, 5))
    expected, _ = K.attention(q.data, k.data, v.data, *([] if shape is None else [whole]))
    for attn_mask in (None,) if shape is None else (mask, Tensor(mask), np.where(mask, 0.0, -np.inf)):
        y = F.scaled_dot_product_attention(q, k, v, attn_mask)
        np.testing.assert_allclose(y.data, expected, rtol=1e-12)


CAUSAL, MASK = {"is_causal": True}, [[False, False, False], [True, False, True]]
ADDED = [[0.5, -1.0, -math.inf], [0.0, 0.25, 1.0]]
TORCH = {  # what torch 2.13.0 gives: options, lengths, y, and the gradients of q, k, v and the mask
    "fewer queries": (CAUSAL, (2, 3), "-1.5 -.5 .5 / -1.0846223101 -.0846223101 -1.1615107595",
        "0 0 / .1988396696 -.0497099174", "-.0994198348 .0497099174 / .0994198348 -.0497099174 / 0 0",
        ".0846223101 1.2538669303 2 / .4153776899 1.2461330697 0 / 0 0 0"),
    "more queries": (CAUSAL, (3, 2),
        "-1.5 -.5 .5 / -1.0846223101 -.0846223101 -1.1615107595 / -1.1285916576 -.1285916576 -.9856333695",
        "0 0 / .1988396696 -.0497099174 / .1350857202 -.0337714301",
        "-.1331912649 .1172527775 / .1331912649 -.1172527775",
        ".3418056253 1.7682335608 2.1285916576 / 1.1581943747 2.7317664392 .3714083424"),
    "a query without keys": ({"attn_mask": np.array(MASK)}, (2, 3), "0 0 0 / -.6955703175 .3044296825 -.7066445238",
        "0 0 / .3337315649 -.2224877099", "-.2224877099 .111243855 / 0 0 / .2224877099 -.111243855",
        ".0977851587 .2933554762 0 / 0 0 0 / .4022148413 1.2066445238 0"),
    "an added mask": ({"attn_mask": Tensor(np.array(ADDED), requires_grad=True)}, (2, 3),
        "-1.474272304 -.474272304 .3970892162 / -.7245966432 .2754033568 -1.0893427062",
        "-.2415859606 .0603964901 / .0225862633 -.1257313029",
        "-.1801200068 .0296635132 / -.0120155725 .0664042764 / .1921355793 -.0960677896",
        ".0270507874 1.0296969703 1.8970892162 / .1704950684 .5629405971 .1029107838 / .3024541442 .9073624326 0",
        ".170827071 -.170827071 0 / -.0839010854 -.1878196566 .271720742"),
}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_attention_gives_what_torch_gives(name):
    options, (Tq, Tk), *expected = TORCH[name]

    def numbers(*shape):
        return (np.arange(math.prod(shape)) * 7.0 % 5 - 2).reshape(shape) / 2

    q, k, v = (Tensor(x, requires_grad=True) for x in (numbers(Tq, 2), numbers(Tk, 2) + 0.25, numbers(Tk, 3) - 0.5))
    y = F.scaled_dot_product_attention(q, k, v, **options)
    found = [y.data, *grad(y, [q, k, v, *list(options.values())[: len(expected) - 4]], numbers(Tq, 3) + 1)]
    for array, rows in zip(found, expected, strict=True):
        np.testing.assert_allclose(array, [[float(x) for x in row.split()] for row in rows.split("/")], atol=1e-10)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("masked", [True, False])
def test_attention_drops_weights_as_dropout_does(causal, masked):
    q, k, v = (leaf(2, 4, 3, seed=i) for i in range(3))
    mask = np.tri(4, dtype=bool) if masked or causal else None

    def attend(rng, p):
        given = (None, p, True) if causal else (mask, p)
        return F.scaled_dot_product_attention(q, k, v, *given, rng=rng).data

    weights = F.scaled_dot_product_attention(q, k, Tensor(np.eye(4)[None].repeat(2, axis=0)), mask).data
    dropped = F.dropout(Tensor(weights), 0.5, rng=Generator(3)).data
    np.testing.assert_allclose(attend(Generator(3), 0.5), dropped @ v.data, rtol=1e-12)
    assert not attend(Generator(3), 1.0).any()
    with pytest.raises(ValueError, match="rng=Generator"):
        attend(None, 0.5)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"attn_mask": np.array([True]), "is_causal": True}, ValueError, "got is_causal and attn_mask"),
        ({"attn_mask": np.ones((3, 4), int)}, TypeError, "got a mask of int64"),
        ({"attn_mask": np.ones((4, 3), bool)}, ValueError, r"mask \(4, 3\), which must broadcast to \(2, 3, 4\)"),
        ({"attn_mask": np.ones((1, 2, 3, 4), bool)}, ValueError, r"mask \(1, 2, 3, 4\)"),
        ({"dropout_p": 1.5, "rng": Generator(0)}, ValueError, r"got p=1.5, which must lie in \[0, 1\]"),
    ],
)
def test_attention_names_options_that_do_not_fit(options, error, message):
    with pytest.raises(error, match=message):
        F.scaled_dot_product_attention(leaf(2, 3, 5), leaf(2, 4, 5), leaf(2, 4, 6), **options)


def test_attention_names_all_shapes_of_batches_that_do_not_broadcast():
    message = r"must broadcast, got \(2, 3, 4\), \(3, 3, 4\) and \(3, 3, 4\)"
    for options in ({}, {"is_causal": True}, {"dropout_p": 0.5, "rng": Generator(0)}):
        with pytest.raises(ValueError, match=message):
            F.scaled_dot_product_attention(leaf(2, 3, 4), leaf(3, 3, 4), leaf(3, 3, 4), **options)


@pytest.mark.parametrize("wrap", [np.asarray, lambda mask: Tensor(mask, requires_grad=True)])
def test_a_float64_mask_leaves_attention_in_float32(wrap):
    q, k, v = (Tensor(leaf(3, 4, seed=i).data.astype(np.float32), requires_grad=True) for i in range(3))
    mask = wrap(np.random.default_rng(0).standard_normal((3, 3)))
    y = F.scaled_dot_product_attention(q, k, v, mask)
    assert y.dtype == np.float32
    rounded = mask.data if isinstance(mask, Tensor) else mask
    np.testing.assert_array_equal(y.data, F.scaled_dot_product_attention(q, k, v, rounded.astype(np.float32)).data)
    y.sum().backward()
    assert q.grad.dtype == np.float32
    if isinstance(mask, Tensor):
        assert mask.grad.dtype == np.float64


def test_long_causal_attention_is_shared_by_threads(monkeypatch):
    """Forward and backward, with both functions; the bits are those of one thread."""
    qkv = Tensor(np.random.default_rng(0).standard_normal((9, 256, 6)).astype(np.float32), requires_grad=True)
    counts, results = [], []

    def one_by_one(function, parts):
        counts.append(len(parts))
        with runtime.blas_threads(1):
            return [function(part) for part in parts]

    monkeypatch.setattr(runtime, "threads_of_blas", lambda: 2)
    for threads in (F.side_by_side, one_by_one):
        monkeypatch.setattr(F, "side_by_side", threads)
        y = F.causal_self_attention(qkv, 2)
        (dqkv,) = grad(y.sum(), qkv)
        z = F.scaled_dot_product_attention(qkv, qkv, qkv, is_causal=True)
        (dqkv2,) = grad(z.sum(), qkv)
        results.append([x.tobytes() for x in (y.data, dqkv, z.data, dqkv2)])
    assert results[0] == results[1]
    assert counts == [3, 3, 2, 2]


def test_causal_self_attention_drops_weights_of_a_generator():
    qkv = leaf(2, 4, 18)
    a, b = (F.causal_self_attention(qkv, 3, 0.4, Generator(0)).data for _ in range(2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, F.causal_self_attention(qkv, 3).data)
    with pytest.raises(ValueError, match="rng=Generator"):
        F.causal_self_attention(qkv, 3, 0.4)
