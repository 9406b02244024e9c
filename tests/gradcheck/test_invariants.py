"""Laws that gradients obey for any numbers: symmetries, conservation laws, and exact zeros."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor, grad
from tinygrad_llm.gradcheck.cases import basic_cases
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.nn import MultiHeadAttention
from tinygrad_llm.random import Generator

seeds = st.integers(0, 2**32 - 1)
shapes = hnp.array_shapes(min_dims=1, max_dims=3, max_side=5)
sizes = st.integers(1, 5)


def law(*arguments, examples=20, **named):
    """`given`, with fewer examples than usual: where a law is broken, it is broken nearly everywhere."""
    return lambda test: settings(max_examples=examples)(given(*arguments, **named)(test))


def generator(seed):
    return np.random.default_rng(seed)


def gradients(kernel, arrays, seed=0, g=None, **options):
    """A kernel's gradients from a random g (or the one given), with its output and that g."""
    y, vjp = kernel(*arrays, **options)
    if g is None:
        g = np.asarray(generator(seed + 1).standard_normal(np.shape(y)))
    return vjp(g), y, g


def assert_vanishes(sums, terms):
    """The sums are 0 to rounding, measured against the terms that canceled."""
    assert np.abs(sums).max(initial=0) <= 1e-13 * np.abs(terms).max(initial=0) + 1e-300


def assert_close(a, b, tolerance=1e-13):
    """Equal to rounding, measured against the largest element."""
    assert np.shape(a) == np.shape(b)
    assert np.abs(a - b).max(initial=0) <= tolerance * np.abs(b).max(initial=0) + 1e-300


# ---- functions that a shift does not change have gradients that sum to 0 -------------------------------------------

SHIFT_INVARIANT = [K.softmax, K.log_softmax, K.layer_norm, K.var]


@pytest.mark.parametrize("kernel", SHIFT_INVARIANT, ids=lambda k: k.__name__)
@law(shapes, seeds)
def test_the_gradient_sums_to_0_if_a_shift_changes_nothing(kernel, shape, seed):
    x = generator(seed).standard_normal(shape)
    options = {} if kernel is K.layer_norm else {"axis": -1}
    (dx, *_), y, g = gradients(kernel, [x], seed, **options)
    shifted = kernel(x + 3.0, **options)[0]
    np.testing.assert_allclose(shifted, y, rtol=1e-10, atol=1e-10)
    scale = g if kernel is not K.layer_norm else g / np.sqrt(np.var(x, axis=-1, keepdims=True) + 1e-5)
    assert_vanishes(dx.sum(axis=-1), np.abs(scale).max() * (1 + np.abs(x).max()))


@pytest.mark.parametrize("kernel", [K.logsumexp, K.max, K.mean], ids=lambda k: k.__name__)
@law(shapes, seeds)
def test_the_gradient_sums_to_g_if_the_output_moves_with_a_shift(kernel, shape, seed):
    x = generator(seed).standard_normal(shape)
    (dx,), _, g = gradients(kernel, [x], seed, axis=-1)
    np.testing.assert_allclose(dx.sum(axis=-1), g, rtol=1e-13)


@law(rows=sizes, V=sizes, reduction=st.sampled_from(["mean", "sum", "none"]), seed=seeds, data=st.data())
def test_each_row_of_dlogits_sums_to_0_and_ignored_rows_are_0(rows, V, reduction, seed, data):
    logits = 3 * generator(seed).standard_normal((rows, V))
    targets = generator(seed).integers(0, V, rows)
    ignored = np.array([*data.draw(st.lists(st.booleans(), min_size=rows - 1, max_size=rows - 1)), False])
    targets[ignored] = -100
    (dlogits, _), _, g = gradients(K.cross_entropy, [logits, targets], seed, reduction=reduction)
    assert_vanishes(dlogits.sum(axis=-1), np.abs(g).max())
    assert (dlogits[ignored] == 0).all()
    if V > 1:
        assert dlogits[~ignored].any(axis=-1).all()


@law(rows=st.integers(1, 6), V=sizes, seed=seeds, data=st.data())
def test_ignored_rows_do_not_change_the_gradient_of_the_others(rows, V, seed, data):
    logits = generator(seed).standard_normal((rows, V))
    targets = generator(seed).integers(0, V, rows)
    counted = np.array([*data.draw(st.lists(st.booleans(), min_size=rows - 1, max_size=rows - 1)), True])
    some = np.where(counted, targets, -100)
    for reduction in ("mean", "sum"):
        (dlogits, _), loss, g = gradients(K.cross_entropy, [logits, some], seed, reduction=reduction)
        (fewer, _), expected, _ = gradients(
            K.cross_entropy, [logits[counted], targets[counted]], g=g, reduction=reduction
        )
        np.testing.assert_allclose(loss, expected, rtol=1e-14)
        np.testing.assert_array_equal(dlogits[counted], fewer)


@law(shape=shapes, seed=seeds, weighted=st.booleans(), eps=st.sampled_from([0.0, 1e-5, 0.3]))
def test_each_row_of_a_layer_norms_dx_sums_to_0_and_is_nearly_orthogonal_to_xhat(shape, seed, weighted, eps):
    """⟨dx, x̂⟩ = rstd³ · eps · ⟨g·weight, x̂⟩, which is 0 for eps = 0: scaling a row does not change x̂."""
    shape = (*shape[:-1], shape[-1] + 2)
    x = generator(seed).standard_normal(shape)
    parameters = list(generator(seed + 1).standard_normal((2, shape[-1]))) if weighted else []
    (dx, *_), _, g = gradients(K.layer_norm, [x, *parameters], seed, eps=eps)
    gw = g * parameters[0] if weighted else g
    rstd = 1 / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
    xhat = (x - x.mean(axis=-1, keepdims=True)) * rstd
    terms = rstd * np.abs(gw).sum(axis=-1, keepdims=True) * (1 + np.abs(x).max() * rstd)
    assert_vanishes(dx.sum(axis=-1), terms)
    along = rstd**3 * eps * (gw * xhat).sum(axis=-1, keepdims=True)
    assert_vanishes((dx * xhat).sum(axis=-1, keepdims=True) - along, terms)


# ---- attention: keys, the future, heads ----------------------------------------------------------------------------


@law(lead=st.integers(1, 3), Tq=sizes, cached=st.integers(0, 3), D=sizes, seed=seeds)
def test_a_shift_of_all_keys_changes_nothing(lead, Tq, cached, D, seed):
    """It adds one number to each row of scores, which cancels in the softmax."""
    rng = generator(seed)
    q, k, v = (rng.standard_normal((lead, T, D)) for T in (Tq, Tq + cached, Tq + cached))
    (_, dk, dv), y, g = gradients(K.causal_attention, [q, k, v], seed)
    np.testing.assert_allclose(K.causal_attention(q, k + rng.standard_normal(D), v)[0], y, rtol=1e-10, atol=1e-12)
    assert_vanishes(dk.sum(axis=-2), np.abs(g).max() * np.abs(v).max() * np.abs(q).max() * Tq * D)
    # The weights of each query sum to 1, so a shift of all values shifts all outputs.
    assert_vanishes(dv.sum(axis=-2) - g.sum(axis=-2), np.abs(g).max() * Tq)


@law(n_head=st.integers(1, 3), D=st.integers(1, 3), T=st.integers(2, 5), B=st.integers(1, 3), seed=seeds)
def test_the_key_bias_has_a_gradient_of_0(n_head, D, T, B, seed):
    C = n_head * D
    attention = MultiHeadAttention(C, n_head, rng=Generator(seed)).to(np.float64)
    rng = generator(seed)
    for p in attention.parameters():
        p.data = 0.3 * rng.standard_normal(p.shape)
    y = attention(Tensor(rng.standard_normal((B, T, C))))
    y.backward(rng.standard_normal(y.shape))
    query, key, value = attention.c_attn.bias.grad.reshape(3, C)
    rounding = np.abs(attention.c_attn.weight.grad).max() + np.abs(value).max()
    assert np.abs(key).max() <= 1e-13 * rounding
    assert np.abs(query).max() > 1e-15 * rounding


@law(Tq=sizes, cached=st.integers(0, 3), D=sizes, dropped=st.booleans(), seed=seeds, data=st.data())
def test_the_gradient_of_a_query_is_exactly_0_for_later_keys(Tq, cached, D, dropped, seed, data):
    t = data.draw(st.integers(0, Tq - 1))
    rng = generator(seed)
    q, k, v = (10 * rng.standard_normal((2, T, D)) for T in (Tq, Tq + cached, Tq + cached))
    keep = [rng.random((2, Tq, Tq + cached)) < 0.5] if dropped else []
    g = np.zeros((2, Tq, D))
    g[:, t] = rng.standard_normal((2, D))
    (dq, dk, dv, *_), _, _ = gradients(K.causal_attention, [q, k, v, *keep], g=g, p=0.5 if dropped else 0.0)
    assert (np.delete(dq, t, axis=1) == 0).all()
    for d in (dk, dv):
        assert (d[:, t + cached + 1 :] == 0).all()
    if not dropped:
        assert dv[:, 0].any()


@law(n_head=st.integers(1, 3), D=st.integers(1, 3), T=st.integers(1, 5), seed=seeds, data=st.data())
def test_the_gradient_of_self_attention_is_exactly_0_for_later_positions(n_head, D, T, seed, data):
    t = data.draw(st.integers(0, T - 1))
    qkv = generator(seed).standard_normal((2, T, 3 * n_head * D))
    g = np.zeros((2, T, n_head * D))
    g[:, t] = 1.5
    (dqkv,), _, _ = gradients(K.causal_self_attention, [qkv], g=g, n_head=n_head)
    assert (dqkv[:, t + 1 :] == 0).all()
    assert dqkv[:, : t + 1].any(axis=(0, 2)).all()


@law(n_head=st.integers(1, 3), T=st.integers(1, 5), seed=seeds, data=st.data())
def test_the_gradient_of_a_multi_head_layer_is_exactly_0_for_later_positions(n_head, T, seed, data):
    t = data.draw(st.integers(0, T - 1))
    attention = MultiHeadAttention(2 * n_head, n_head, rng=Generator(seed)).to(np.float64)
    x = Tensor(generator(seed).standard_normal((2, T, 2 * n_head)), requires_grad=True)
    (dx,) = grad((attention(x)[:, t] * generator(seed).standard_normal((2, 2 * n_head))).sum(), [x])
    assert (dx[:, t + 1 :] == 0).all()
    assert dx[:, : t + 1].any(axis=(0, 2)).all()


@law(n_head=st.integers(1, 4), D=st.integers(1, 3), T=st.integers(1, 4), seed=seeds, data=st.data())
def test_permuted_heads_have_permuted_gradients(n_head, D, T, seed, data):
    order = data.draw(st.permutations(range(n_head)))
    rng = generator(seed)
    qkv, g = rng.standard_normal((2, T, 3, n_head, D)), rng.standard_normal((2, T, n_head, D))

    def run(qkv, g):
        flat = [qkv.reshape(2, T, -1)]
        (dqkv,), y, _ = gradients(K.causal_self_attention, flat, g=g.reshape(2, T, -1), n_head=n_head)
        return dqkv.reshape(qkv.shape), y.reshape(g.shape)

    dqkv, y = run(qkv, g)
    reordered_dqkv, reordered_y = run(qkv[:, :, :, order], g[:, :, order])
    assert_close(reordered_y, y[:, :, order])
    assert_close(reordered_dqkv, dqkv[:, :, :, order])


@law(n_head=st.integers(1, 4), D=st.integers(1, 3), seed=seeds, data=st.data())
def test_permuted_heads_of_a_layer_have_permuted_parameter_gradients(n_head, D, seed, data):
    order = data.draw(st.permutations(range(n_head)))
    C = n_head * D
    rng = generator(seed)
    x, g = rng.standard_normal((2, 3, C)), rng.standard_normal((2, 3, C))
    channels = np.arange(C).reshape(n_head, D)[order].reshape(-1)
    qkv_rows = np.concatenate([channels + i * C for i in range(3)])
    results = []
    for renamed in (False, True):
        attention = MultiHeadAttention(C, n_head, rng=Generator(seed)).to(np.float64)
        weights = {name: p.data for name, p in attention.named_parameters()}
        if renamed:
            weights |= {name: weights[name][qkv_rows] for name in ("c_attn.weight", "c_attn.bias")}
            weights["c_proj.weight"] = weights["c_proj.weight"][:, channels]
            attention.load_state_dict(weights)
        y = attention(Tensor(x))
        y.backward(g)
        results.append((y.data, {name: p.grad for name, p in attention.named_parameters()}))
    (y, before), (renamed_y, after) = results
    assert_close(renamed_y, y)
    for name in ("c_attn.weight", "c_attn.bias"):
        # The key bias has a gradient of 0, so both are rounding; the error is measured against the whole vector.
        assert_close(after[name], before[name][qkv_rows], 1e-12)
    assert_close(after["c_proj.weight"], before["c_proj.weight"][:, channels], 1e-12)
    assert_close(after["c_proj.bias"], before["c_proj.bias"])


# ---- a whole GPT ---------------------------------------------------------------------------------------------------


@st.composite
def problems(draw, **changes):
    """A float64 GPT with large weights, ids and targets (B, T), and a NumPy generator."""
    n_head = draw(st.integers(1, 2))
    options = {
        "vocab_size": draw(st.integers(6, 9)),
        "block_size": 5,
        "n_layer": draw(st.integers(1, 2)),
        "n_head": n_head,
        "n_embd": n_head * draw(st.integers(2, 3)),
        "qkv_bias": draw(st.booleans()),
        "tie_weights": draw(st.booleans()),
    }
    config = GPTConfig(**(options | changes))
    rng = generator(draw(seeds))
    model = GPT(config, Generator(0)).to(np.float64)
    for p in model.parameters():
        p.data = p.data + 0.3 * rng.standard_normal(p.shape)
    B, T = draw(st.integers(1, 3)), draw(st.integers(2, 5))
    ids, targets = rng.integers(0, config.vocab_size, (2, B, T))
    return model, ids, targets, rng


def parameter_gradients(model, ids, targets, weight=1.0):
    """The gradients of the summed loss times weight, by name. A mean loss would depend on the number of targets."""
    count = np.count_nonzero(targets != -100)
    named = dict(model.named_parameters())
    loss = model.loss(ids, targets) * (weight * count)
    return dict(zip(named, grad(loss, list(named.values())), strict=True))


@law(problems(tie_weights=False), st.data(), examples=10)
def test_a_loss_at_one_position_has_no_gradient_for_later_positions(problem, data):
    model, ids, targets, rng = problem
    B, T = ids.shape
    t = data.draw(st.integers(0, T - 1))
    ids = np.tile(rng.permutation(model.config.vocab_size)[:T], (B, 1))  # each token is at one position only
    only = np.full((B, T), -100)
    only[:, t] = targets[:, t]
    found = parameter_gradients(model, ids, only)
    dwpe, dwte = found["transformer.wpe.weight"], found["transformer.wte.weight"]
    assert (dwpe[t + 1 :] == 0).all()
    assert dwpe[: t + 1].any(axis=1).all()
    later = np.setdiff1d(np.arange(model.config.vocab_size), ids[0, : t + 1])
    assert (dwte[later] == 0).all()
    assert dwte[ids[0, : t + 1]].any(axis=1).all()


@law(problems(), st.data(), examples=10)
def test_ignored_targets_at_the_end_give_the_gradient_of_a_shorter_text(problem, data):
    model, ids, targets, _ = problem
    t = data.draw(st.integers(1, ids.shape[1]))
    cut = targets.copy()
    cut[:, t:] = -100
    shorter = parameter_gradients(model, ids[:, :t], targets[:, :t])
    largest = max(np.abs(g).max() for g in shorter.values())
    for name, g in parameter_gradients(model, ids, cut).items():
        np.testing.assert_allclose(g, shorter[name], rtol=0, atol=1e-13 * largest, err_msg=name)


@law(problems(tie_weights=True), examples=10)
def test_a_tied_weight_receives_the_sum_of_the_gradients_of_both_uses(problem):
    tied, ids, targets, _ = problem
    untied = GPT(GPTConfig(**(vars(tied.config) | {"tie_weights": False}))).to(np.float64)
    untied.load_state_dict(tied.state_dict() | {"lm_head.weight": tied.transformer.wte.weight.data})
    one, two = (parameter_gradients(model, ids, targets) for model in (tied, untied))
    assert_close(one["transformer.wte.weight"], two["transformer.wte.weight"] + two["lm_head.weight"], 1e-14)
    for name in one.keys() - {"transformer.wte.weight"}:
        np.testing.assert_array_equal(one[name], two[name])


@law(problems(), st.data(), examples=10)
def test_the_gradient_of_a_batch_is_the_sum_over_its_rows_in_any_order(problem, data):
    """Of summed losses: so accumulated mean losses are weighted by how many targets count."""
    model, ids, targets, rng = problem
    targets[:, 1:][rng.random(targets[:, 1:].shape) < 0.4] = -100
    order = data.draw(st.permutations(range(len(ids))))
    whole = parameter_gradients(model, ids, targets)
    rows = [parameter_gradients(model, ids[i : i + 1], targets[i : i + 1]) for i in range(len(ids))]
    reordered = parameter_gradients(model, ids[order], targets[order])
    largest = max(np.abs(row[name]).max() for row in rows for name in row)
    for name, g in whole.items():
        for other in (sum(row[name] for row in rows), reordered[name]):
            np.testing.assert_allclose(g, other, rtol=0, atol=1e-13 * largest, err_msg=name)


@law(problems(), st.data(), examples=10)
def test_a_permuted_batch_has_permuted_input_gradients(problem, data):
    model, ids, _, rng = problem
    x, g = rng.standard_normal((2, *ids.shape, model.config.n_embd))
    order = data.draw(st.permutations(range(len(ids))))
    block = model.transformer.h[0]

    def dx(x, g):
        leaf = Tensor(x, requires_grad=True)
        return grad(block(leaf), [leaf], g)[0]

    assert_close(dx(x[order], g[order]), dx(x, g)[order], 1e-12)
    # Rows are independent: a row with a gradient of 0 at its output has one of exactly 0 at its input.
    g[order[0]] = 0
    assert (dx(x, g)[order[0]] == 0).all()


@law(problems(), st.sampled_from([-2.0, 0.5, 4.0]), examples=10)
def test_the_gradient_of_a_multiple_of_the_loss_is_the_multiple_of_the_gradient(problem, weight):
    """Exactly, for a power of two: backward is linear in the gradient that it starts from."""
    model, ids, targets, _ = problem
    once, more = (parameter_gradients(model, ids, targets, w) for w in (1.0, weight))
    for name in once:
        np.testing.assert_array_equal(more[name], weight * once[name], name)


# ---- unused inputs have a gradient of 0 ----------------------------------------------------------------------------


@law(V=sizes, C=sizes, shape=hnp.array_shapes(min_dims=0, max_dims=2, max_side=4), seed=seeds)
def test_rows_of_an_embedding_without_an_id_have_a_gradient_of_exactly_0(V, C, shape, seed):
    rng = generator(seed)
    ids = rng.integers(0, V, shape)
    (dweight, _), _, g = gradients(K.embedding, [rng.standard_normal((V, C)), ids], seed)
    for v in range(V):
        if v in ids:
            np.testing.assert_allclose(dweight[v], g[ids == v].sum(axis=0), rtol=1e-13, atol=1e-14)
        else:
            assert (dweight[v] == 0).all()


@law(shape=shapes, p=st.sampled_from([0.0, 0.1, 0.5, 1.0]), seed=seeds)
def test_dropped_elements_have_a_gradient_of_exactly_0(shape, p, seed):
    rng = generator(seed)
    keep = rng.random(shape) >= p
    (dx, _), _, g = gradients(K.dropout, [rng.standard_normal(shape), keep], seed, p=p)
    assert (dx[~keep] == 0).all()
    np.testing.assert_allclose(dx[keep], g[keep] / (1 - p) if p < 1 else 0, rtol=1e-15)


# ---- homogeneous functions: Σ ⟨dx, x⟩ = degree · ⟨g, y⟩ (Euler) -----------------------------------------------------

DEGREES = {
    **dict.fromkeys(["add", "subtract", "negative", "relu", "absolute", "maximum", "where", "sum", "mean", "max"], 1),
    **dict.fromkeys(["reshape", "transpose", "broadcast_to", "getitem", "concatenate", "stack", "embedding"], 1),
    **dict.fromkeys(["multiply", "matmul", "var"], 2),
    "dropout": 1,
    "divide": 0,
    "sqrt": 0.5,
    "einsum": None,  # the number of its operands
}


def test_eulers_identity_holds_for_each_homogeneous_kernel(kernel_call, for_each):
    def check(case):
        kernel, arrays, options = kernel_call(case)
        degree = len(arrays) if DEGREES[case.covers] is None else DEGREES[case.covers]
        grads, y, g = gradients(kernel, arrays, **options)
        terms = [d * x for d, x in zip(grads, arrays, strict=True) if d is not None]
        size = sum(np.abs(t).sum() for t in terms) + np.abs(g * y).sum()
        assert abs(sum(t.sum() for t in terms) - degree * np.sum(g * y)) <= 1e-14 * size

    cases = [case for case in basic_cases() if case.covers in DEGREES]
    assert {case.covers for case in cases} == set(DEGREES)
    for_each(cases, check)


@law(shape=shapes, n=st.sampled_from([-1.5, 0.5, 2.0, 3.0]), seed=seeds)
def test_eulers_identity_holds_for_powers_and_normalized_rows(shape, n, seed):
    x = generator(seed).uniform(0.5, 2, (*shape[:-1], shape[-1] + 1))
    (dx, _), y, g = gradients(K.power, [x, np.asarray(n)], seed)
    np.testing.assert_allclose(dx * x, n * g * y, rtol=1e-13)
    (dx, *_), _, g = gradients(K.layer_norm, [x], seed, eps=0.0)  # degree 0
    assert_vanishes((dx * x).sum(axis=-1), np.abs(g).max() / x.std(axis=-1).min() ** 2)


# ---- linear functions: the gradient does not depend on x -------------------------------------------------------------

LINEAR = {"add", "subtract", "negative", "where", "sum", "mean", "reshape", "transpose", "broadcast_to", "getitem"}
LINEAR |= {"concatenate", "stack", "embedding", "dropout"}
BILINEAR = {"multiply", "matmul", "linear"}


def test_the_gradient_of_a_linear_kernel_does_not_depend_on_x(kernel_call, for_each):
    def check(case):
        kernel, arrays, options = kernel_call(case)
        elsewhere = [2 - 3 * x if x.dtype.kind == "f" else x for x in arrays]
        (one, _, g), (other, *_) = gradients(kernel, arrays, **options), gradients(kernel, elsewhere, **options)
        assert np.any(g)
        for d, d2 in zip(one, other, strict=True):
            np.testing.assert_array_equal(d, d2)

    for_each([case for case in basic_cases() if case.covers in LINEAR], check)


def test_the_gradient_of_a_factor_depends_on_the_other_factor_alone(kernel_call, for_each):
    def check(case):
        kernel, arrays, options = kernel_call(case)
        grads, _, g = gradients(kernel, arrays, **options)
        for i, x in enumerate(arrays):
            elsewhere = [*arrays[:i], 2 - 3 * x, *arrays[i + 1 :]]
            moved, _, _ = gradients(kernel, elsewhere, g=g, **options)
            np.testing.assert_array_equal(moved[i], grads[i])
            others = [(d, d2) for j, (d, d2) in enumerate(zip(grads, moved, strict=True)) if j != i]
            if i < 2:  # no gradient depends on a bias
                assert any((d != d2).any() for d, d2 in others)

    for_each([case for case in basic_cases() if case.covers in BILINEAR], check)
