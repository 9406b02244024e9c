"""The table of cases, continued: functions on Tensors, layers, whole models, and optimizers."""

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm import models, nn, optim
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.gradcheck.cases import Case, Draw, Problem, apart, fixed, ids, kernel_cases, mask, normal, positive
from tinygrad_llm.gradcheck.result import GradcheckResult, comparison
from tinygrad_llm.kernels import Array
from tinygrad_llm.nn import Module
from tinygrad_llm.random import Generator

# ---- functions -------------------------------------------------------------------------------------------------


def _function(function: Callable[..., Tensor], label: str, *draws: Draw, method: str = "complex") -> Case:
    def problem(rng: Generator) -> Problem:
        inputs = [draw(rng) for draw in draws]

        def fn(*tensors: Any) -> Tensor:
            return function(*tensors)

        fn.__name__ = label.split()[0]
        return fn, inputs, [f"input {i}" for i in range(len(inputs))]

    covers, _, rest = label.partition(" ")
    return Case("functions", covers, rest, problem, method)


def _function_cases() -> list[Case]:
    x, q, weights = normal(3, 4), normal(2, 4, 3), np.array([0.5, 1.5, 1.0, 2.0])
    attend, attention = F.scaled_dot_product_attention, "F.scaled_dot_product_attention"
    heads: list[tuple[str, dict[str, Any]]] = [
        ("", {}),
        ("label_smoothing", {"label_smoothing": 0.1}),
        ("count", {"count": 7}),
    ]
    return [
        *(_function(getattr(F, name), f"F.{name}", x) for name in ("sigmoid", "tanh", "gelu", "silu", "softplus")),
        _function(partial(F.gelu, approximate="none"), "F.gelu erf form", x),
        _function(F.relu, "F.relu", apart(3, 4), method="richardson"),
        _function(F.maximum, "F.maximum", apart(3, 4), lambda rng: apart(3, 4)(rng) + 0.4, method="richardson"),
        _function(F.minimum, "F.minimum", apart(3, 4), lambda rng: apart(3, 4)(rng) + 0.4, method="richardson"),
        _function(lambda x: F.softmax(x, 0), "F.softmax", x),
        _function(lambda x: F.log_softmax(x, -1), "F.log_softmax", x),
        _function(F.where, "F.where", mask(3, 4), x, normal(4)),
        _function(lambda *xs: F.cat(xs, dim=1), "F.cat", x, normal(3, 2)),
        _function(lambda *xs: F.stack(xs, dim=1), "F.stack", x, x),
        _function(F.matmul, "F.matmul", x, normal(4, 2)),
        _function(lambda *xs: F.einsum("ij,kj->ik", *xs), "F.einsum", x, normal(2, 4)),
        _function(F.linear, "F.linear", x, normal(2, 4), normal(2)),
        _function(F.embedding, "F.embedding", ids(5, 2, 3), normal(5, 3)),
        _function(lambda x, w, b: F.layer_norm(x, (3, 4), w, b), "F.layer_norm two axes", normal(2, 3, 4), x, x),
        _function(lambda x: F.dropout(x, 0.4, rng=Generator(3)), "F.dropout", x),
        *(_function(partial(F.cross_entropy, reduction=r), f"F.cross_entropy {r}", x, ids(4, 3))
          for r in ("mean", "sum", "none")),
        _function(F.cross_entropy, "F.cross_entropy ignore_index", x, fixed([1, -100, 3])),
        _function(partial(F.cross_entropy, label_smoothing=0.1), "F.cross_entropy label_smoothing", x, ids(4, 3)),
        _function(partial(F.cross_entropy, weight=weights), "F.cross_entropy class weights", x, fixed([1, -100, 3])),
        _function(partial(F.cross_entropy, weight=weights, label_smoothing=0.1, reduction="none"),
                  "F.cross_entropy N-d, class weights", normal(2, 4, 3), ids(4, 2, 3)),
        _function(partial(F.cross_entropy, label_smoothing=0.1), "F.cross_entropy probabilities", normal(2, 4, 3),
                  positive(2, 4, 3)),
        _function(F.nll_loss, "F.nll_loss", x, fixed([1, -100, 3])),
        _function(F.mse_loss, "F.mse_loss", x, x),
        _function(lambda a, b, c, d: F.dpo_loss(a, b, c, d, 0.7)[0], "F.dpo_loss", *[normal(5)] * 4),
        _function(F.binary_cross_entropy_with_logits, "F.binary_cross_entropy_with_logits", x, x, positive(4)),
        _function(lambda x, w: F.rms_norm(x, 4, w), "F.rms_norm", x, normal(4)),
        _function(lambda x: F.rotary(x, np.array([0, 2, 9])), "F.rotary", x),
        *(_function(partial(F.linear_cross_entropy, **o), f"F.linear_cross_entropy {label}", x, normal(5, 4),
                    fixed([1, -100, 3])) for label, o in heads),
        _function(partial(F.linear_cross_entropy, ignore_index=3), "F.linear_cross_entropy ignore_index 3", x,
                  normal(5, 4), fixed([1, 4, 3])),
        _function(attend, attention, q, normal(2, 5, 3), normal(2, 5, 3)),
        _function(partial(attend, is_causal=True), f"{attention} causal", q, q, q),
        _function(partial(attend, is_causal=True), f"{attention} causal, 5 keys", q, normal(2, 5, 3), normal(2, 5, 3)),
        _function(attend, f"{attention} mask", q, q, q, mask(4, 4)),
        _function(lambda q, k, v: attend(q, k, v, None, 0.4, True, rng=Generator(3)), f"{attention} causal, dropout",
                  q, q, q),
        _function(lambda q, k, v: attend(q, k, v, None, 0.4, rng=Generator(3)), f"{attention} dropout", q, q, q),
        _function(lambda q, k, v, m: attend(q, k, v, m, 0.4, rng=Generator(3)), f"{attention} additive mask, dropout",
                  q, q, q, normal(4)),
        _function(lambda x: F.causal_self_attention(x, 2), "F.causal_self_attention", normal(2, 3, 12)),
        _function(lambda x: F.causal_self_attention(x, 2, 0.4, Generator(3), True), "F.causal_self_attention dropout, "
                  "recompute", normal(2, 3, 12)),
        _function(lambda x: x.max(1).values, "Tensor.max", apart(3, 4), method="richardson"),
        _function(lambda x: x.min(1).values, "Tensor.min", apart(3, 4), method="richardson"),
        _function(lambda x: x.var(1), "Tensor.var unbiased", x),
        _function(lambda x: x.std(1), "Tensor.std", x),
        _function(lambda x: x.clamp(-0.8, 1.6), "Tensor.clamp", apart(3, 4), method="richardson"),
        _function(lambda x: x.gather(1, np.array([[0, 0], [3, 1]])), "Tensor.gather", x),
        _function(lambda x: x.split([1, 3], 1)[1] @ x.chunk(2, 1)[0].tril(-1), "Tensor.split and its like", x),
        _function(lambda x, m: x.masked_fill(m, 0.5), "Tensor.masked_fill", x, mask(3, 4)),
        _function(lambda x: x.unsqueeze(1).expand(3, 2, -1).flatten(1).squeeze(), "Tensor.expand and its like", x),
        _function(lambda x: x / (1 + x * x) - 2**x, "Tensor.__truediv__ and its like", x),
    ]  # fmt: skip


# ---- layers and models -----------------------------------------------------------------------------------------


def _layer(make: Callable[[Generator], Module], label: str, *draws: Draw) -> Case:
    """A Module on drawn inputs: its float inputs and all its parameters are checked."""
    module_type = type(make(Generator(0)))

    def problem(rng: Generator) -> Problem:
        module = make(rng)
        inputs = [draw(rng) for draw in draws]
        named = dict(module.named_parameters())
        state = rng.get_state()

        def fn(*arguments: Any) -> Tensor:
            rng.set_state(state)  # the same dropout masks at every call
            out: Tensor = module(*arguments[: len(inputs)])
            return out

        fn.__name__ = module_type.__name__
        return fn, [*inputs, *named.values()], [*(f"input {i}" for i in range(len(inputs))), *named]

    return Case("layers and models", module_type.__name__, label, problem)


def _gpt_loss(label: str, recompute: bool = False, fused: bool = True, **options: Any) -> Case:
    """The loss of a whole GPT, by default of two layers, as a function of every parameter."""

    def problem(rng: Generator) -> Problem:
        return gpt_problem(_config(**options), rng, recompute=recompute, fused=fused)

    return Case("layers and models", "GPT", f"loss, {label}", problem)


def gpt_problem(config: models.GPTConfig, rng: Generator, *, recompute: bool = False, fused: bool = True) -> Problem:
    """The loss of a GPT on random ids, as a function of all its parameters. The last target is ignored.

    The weights are large, N(0, 0.3²), so that no gradient is so small that an error in it would pass.
    """
    model = models.GPT(config, rng, recompute=recompute, fused=fused)
    for p in model.parameters():
        p.data = p.data + rng.normal(0.0, 0.3, p.shape)
    block = rng.randint(0, config.vocab_size, (2, config.block_size + 1))
    inputs, targets = block[:, :-1], block[:, 1:].copy()
    targets[-1, -1] = -100
    named = dict(model.named_parameters())
    state = rng.get_state()

    def gpt_loss(*_: Any) -> Tensor:
        rng.set_state(state)
        return model.loss(inputs, targets)

    return gpt_loss, list(named.values()), list(named)


def _encoder_config(**options: Any) -> models.EncoderConfig:
    sizes: dict[str, Any] = {"vocab_size": 7, "block_size": 4, "n_layer": 1, "n_head": 2, "n_embd": 4, "dropout": 0.0}
    return models.EncoderConfig(**(sizes | options))


def _encoder_loss(label: str, recompute: bool = False, **options: Any) -> Case:
    """The loss of a whole encoder on a padded batch with two segments, as a function of every parameter."""

    def problem(rng: Generator) -> Problem:
        model = models.Encoder(_encoder_config(**options), rng, recompute=recompute)
        _trained(model, rng)
        inputs, targets = rng.randint(0, 7, (2, 2, 4))
        targets[:, ::2] = -100
        segments = np.array([[0, 0, 1, 1], [0, 0, 0, 0]])
        named = dict(model.named_parameters())
        state = rng.get_state()

        def encoder_loss(*_: Any) -> Tensor:
            rng.set_state(state)
            return model.loss(inputs, targets, np.array([4, 2]), segments)

        return encoder_loss, list(named.values()), list(named)

    return Case("layers and models", "Encoder", f"loss, {label}", problem)


def _encoder_classifier(rng: Generator, **options: Any) -> Module:
    sizes = dataclasses.asdict(_encoder_config(**options))
    return _trained(models.EncoderClassifier(models.EncoderClassifierConfig(**sizes, labels=("a", "b")), rng), rng)


def _translator_loss(label: str, **options: Any) -> Case:
    """The loss of a whole translator as a function of every parameter: padded pairs, one ignored target, smoothing.

    The weights are large, as in `gpt_problem`.
    """

    def problem(rng: Generator) -> Problem:
        model = models.Translator(_translator(**options), rng)
        for p in model.parameters():
            p.data = p.data + rng.normal(0.0, 0.3, p.shape)
        source, target, targets = (rng.randint(0, 7, (2, T)) for T in (4, 3, 3))
        targets[-1, -1] = -100
        named = dict(model.named_parameters())
        state = rng.get_state()

        def translator_loss(*_: Any) -> Tensor:
            rng.set_state(state)
            return model.loss(source, target, targets, [4, 2], label_smoothing=0.1)

        return translator_loss, list(named.values()), list(named)

    return Case("layers and models", "Translator", f"loss, {label}", problem)


def _translator(**options: Any) -> models.TranslatorConfig:
    sizes: dict[str, Any] = {"vocab_size": 7, "block_size": 4, "n_layer": 1, "n_head": 2, "n_embd": 4, "dropout": 0.0}
    return models.TranslatorConfig(**(sizes | options))


def _trained(module: Module, rng: Generator) -> Module:
    """The module with other values in every parameter, none of them frozen: new adapters, for example, are zero."""
    for p in module.parameters():
        p.requires_grad = True
        p.data = p.data + rng.normal(0.0, 0.5, p.shape)
    return module


def _adapter(rng: Generator, dropout: float, parts: int) -> Module:
    return _trained(nn.LoRALinear(nn.Linear(3, 6, rng=rng), 2, 3.0, dropout, parts, rng=rng), rng)


def _classifier(rng: Generator, **options: Any) -> Module:
    sizes = dataclasses.asdict(_config(n_layer=1, **options))
    return _trained(models.GPTClassifier(models.GPTClassifierConfig(**sizes, labels=("a", "b", "c")), rng), rng)


def _config(**options: Any) -> models.GPTConfig:
    sizes: dict[str, Any] = {"vocab_size": 7, "block_size": 4, "n_layer": 2, "n_head": 2, "n_embd": 4}
    return models.GPTConfig(**(sizes | options))


def padded(S: int) -> Draw:
    """The mask of two sources of S tokens, of which the second has only two: (2, 1, 1, S)."""
    return fixed((np.arange(S) < [[S], [2]])[:, None, None])


def _translator_cases() -> list[Case]:
    return [
        _layer(lambda rng: models.Attention(4, 2, rng=rng), "causal", normal(2, 3, 4)),
        _layer(
            lambda rng: models.Attention(4, 2, rng=rng), "cross, padded", normal(2, 3, 4), normal(2, 5, 4), padded(5)
        ),
        _layer(
            lambda rng: models.TransformerEncoderLayer(_translator(), rng),
            "post-norm, padded",
            normal(2, 3, 4),
            padded(3),
        ),
        _layer(
            lambda rng: models.TransformerDecoderLayer(_translator(norm_first=True, dropout=0.2), rng),
            "pre-norm, dropout",
            normal(2, 3, 4),
            normal(2, 5, 4),
        ),
        _translator_loss("post-norm"),
        _translator_loss("pre-norm, dropout", norm_first=True, dropout=0.2),
    ]


def _layer_cases() -> list[Case]:
    layers = [
        _layer(lambda rng: nn.Linear(3, 4, rng=rng), "", normal(2, 3)),
        _layer(lambda rng: nn.Linear(3, 4, bias=False, rng=rng), "no bias", normal(2, 3)),
        _layer(lambda rng: nn.Embedding(5, 3, rng=rng), "", ids(5, 2, 4)),
        _layer(lambda rng: nn.LayerNorm(5), "", normal(3, 5)),
        _layer(lambda rng: nn.Dropout(0.4, rng=rng), "", normal(3, 5)),
        _layer(lambda rng: nn.GELU(), "", normal(3, 5)),
        _layer(lambda rng: nn.ReLU(), "", normal(3, 5)),
        _layer(lambda rng: nn.RMSNorm(5), "", normal(3, 5)),
        _layer(
            lambda rng: nn.Sequential(nn.Linear(3, 4, rng=rng), nn.GELU("none"), nn.RMSNorm(4, 0.1)), "", normal(2, 3)
        ),
        _layer(lambda rng: nn.SelfAttention(3, 2, rng=rng), "", normal(2, 4, 3)),
        _layer(lambda rng: nn.CausalAttention(3, 2, 4, 0.0, rng=rng), "", normal(2, 4, 3)),
        _layer(lambda rng: nn.CausalAttention(3, 2, 4, 0.3, True, rng=rng), "dropout, bias", normal(2, 4, 3)),
        _layer(lambda rng: nn.MultiHeadWrapper(4, 2, 3, 0.0, 2, rng=rng), "", normal(2, 3, 4)),
        _layer(lambda rng: nn.MultiHeadAttention(4, 2, rng=rng), "", normal(2, 3, 4)),
        _layer(lambda rng: nn.MultiHeadAttention(4, 2, 0.3, False, rng=rng), "dropout, no bias", normal(2, 3, 4)),
        _layer(lambda rng: models.MLP(_config(), rng), "", normal(2, 3, 4)),
        _layer(lambda rng: models.MLP(_config(dropout=0.3), rng), "dropout", normal(2, 3, 4)),
        _layer(lambda rng: models.Block(_config(), rng), "", normal(2, 3, 4)),
        _layer(lambda rng: models.Block(_config(dropout=0.2), rng), "dropout", normal(2, 3, 4)),
        _layer(lambda rng: models.Transformer(_config(n_layer=1), rng), "", ids(7, 2, 3)),
        _layer(lambda rng: models.GPT(_config(n_layer=1), rng), "logits", ids(7, 2, 3)),
        _layer(lambda rng: _adapter(rng, 0.0, 1), "", normal(2, 3)),
        _layer(lambda rng: _adapter(rng, 0.3, 3), "three parts, dropout", normal(2, 3)),
        _layer(
            lambda rng: _trained(nn.LoRAEmbedding(nn.Embedding(5, 3, rng=rng), 2, 3.0, rng=rng), rng), "", ids(5, 2, 4)
        ),
        _layer(lambda rng: _classifier(rng), "all of a text", ids(7, 2, 3)),
        _layer(lambda rng: _classifier(rng, dropout=0.2), "padded, dropout", ids(7, 2, 3), fixed([3, 1])),
        _layer(lambda rng: _trained(models.EncoderLayer(_encoder_config(), rng), rng), "", normal(2, 3, 4)),
        _layer(
            lambda rng: _trained(models.EncoderLayer(_encoder_config(dropout=0.2), rng), rng),
            "padded, dropout",
            normal(2, 3, 4),
            fixed([[[[True, True, True]]], [[[True, False, False]]]]),
        ),
        _layer(lambda rng: _encoder_classifier(rng, dropout=0.2), "padded, dropout", ids(7, 2, 3), fixed([3, 1])),
        _encoder_loss("padded, two segments"),
        _encoder_loss("rotary, dropout, recompute", recompute=True, dropout=0.2, positions="rotary"),
        _encoder_loss("sinusoidal", positions="sinusoidal"),
        *_translator_cases(),
        _layer(lambda rng: models.GPT(_config(n_layer=1, positions="sinusoidal"), rng), "sinusoidal", ids(7, 2, 3)),
        _gpt_loss("tied"),
        _gpt_loss("rotary, recompute", recompute=True, positions="rotary"),
        _gpt_loss("rotary, dropout, step by step", fused=False, dropout=0.2, n_layer=1, positions="rotary"),
        _gpt_loss("untied, no qkv bias", tie_weights=False, qkv_bias=False, n_layer=1),
        _gpt_loss("tied, dropout", dropout=0.2, n_layer=1),
        _gpt_loss("tied, dropout, recompute", recompute=True, dropout=0.2),
        _gpt_loss("untied, dropout", dropout=0.2, tie_weights=False, n_layer=1),
    ]
    everything = [*layers, *(case.by("float32") for case in layers)]
    order = [case.covers for case in layers]
    return sorted(everything, key=lambda case: order.index(case.covers))


# ---- optimizers ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class UpdateCase(Case):
    """An optimizer's update: `make` returns a list of (name, array after the update, array by the formula)."""

    def check(self, seed: int = 0) -> GradcheckResult:
        compared = [comparison(*three) for three in self.make(Generator(seed))]
        return GradcheckResult(self.method, 1e-12, compared)


STEPS, LR, BETAS, EPS = 4, 0.1, (0.8, 0.95), 1e-3
Formula = Callable[[Array, Array, float], Array]  # start, (steps, …) gradients and weight decay → end


def _update(
    label: str,
    optimizer: Callable[..., Any],
    formula: Formula,
    shapes: tuple[tuple[int, ...], tuple[int, ...]] = ((3, 4), (4,)),
    covers: str = "",
    **options: Any,
) -> Case:
    """Four steps of an optimizer on two groups, one of which decays, compared with its formula."""

    def compared(rng: Generator) -> list[tuple[str, Array, Array]]:
        decays = {"weight": 0.3, "bias": 0.0}
        starts = {name: rng.randn(shape, np.float64) for name, shape in zip(decays, shapes, strict=True)}
        gradients = {name: rng.randn((STEPS, *p.shape), np.float64) for name, p in starts.items()}
        tensors = {name: Tensor(p.copy(), requires_grad=True) for name, p in starts.items()}
        groups = [{"params": [(name, t)], "weight_decay": decays[name]} for name, t in tensors.items()]
        updating = optimizer(groups, lr=LR, **options)
        for step in range(STEPS):
            for name, t in tensors.items():
                t.grad = gradients[name][step].copy()
            updating.step()
        return [(name, t.data, formula(starts[name], gradients[name], decays[name])) for name, t in tensors.items()]

    return UpdateCase("optimizers", covers or optimizer.__name__, label, compared, "formula")


def _weighted(weights: Array, terms: list[Array]) -> Array:
    return np.tensordot(weights, np.stack(terms), axes=1)


def _adam(decoupled: bool, amsgrad: bool = False) -> Formula:
    """Adam, with its running averages written as sums: m̂_t = Σ_i β₁ᵗ⁻ⁱ g_i / Σ_i β₁ᵗ⁻ⁱ, and v̂_t likewise of g².

        p_t = p_{t−1} − lr · m̂_t / (√v̂_t + eps)

    Here g_i includes weight decay as + decay · p_{i−1}. Decoupled, it does not, and p_{t−1} (1 − lr · decay) takes the
    place of p_{t−1}. With amsgrad, the largest sum so far, Σ_i β₂ᵗ⁻ⁱ g_i², takes the place of the last in v̂_t.
    """

    def average(beta: float, terms: list[Array]) -> Array:
        weights = beta ** np.arange(len(terms))[::-1]
        return _weighted(weights / weights.sum(), terms)

    def formula(p: Array, gradients: Array, decay: float) -> Array:
        seen: list[Array] = []
        for g in gradients:
            seen.append(g if decoupled else g + decay * p)
            shrunk = p * (1 - LR * decay) if decoupled else p
            v = average(BETAS[1], [s * s for s in seen])
            if amsgrad:
                steps, squares = np.arange(len(seen)), [s * s for s in seen]
                sums = [_weighted(BETAS[1] ** (t - steps[: t + 1]), squares[: t + 1]) for t in steps]
                v = np.max(sums, axis=0) / np.sum(BETAS[1] ** steps)
            p = shrunk - LR * average(BETAS[0], seen) / (np.sqrt(v) + EPS)
        return p

    return formula


def _sgd(momentum: float = 0.0, dampening: float = 0.0, nesterov: bool = False) -> Formula:
    """SGD, with its momentum written as a sum: b_t = Σ_i momentumᵗ⁻ⁱ (1 − dampening) g_i, the first g_i undampened.

        p_t = p_{t−1} − lr · b_t     (with nesterov: p_{t−1} − lr · (g_t + momentum · b_t))

    Here g_i includes weight decay as + decay · p_{i−1}.
    """

    def formula(p: Array, gradients: Array, decay: float) -> Array:
        seen: list[Array] = []
        for g in gradients:
            seen.append(g + decay * p)
            weights = momentum ** np.arange(len(seen))[::-1] * np.r_[1.0, np.full(len(seen) - 1, 1 - dampening)]
            b = _weighted(weights, seen)
            p = p - LR * (seen[-1] + momentum * b if nesterov else b)
        return p

    return formula


def _muon(nesterov: bool = True, rms: bool = False) -> Formula:
    """Muon, with its momentum written as a sum, b_t = Σ_i 0.95ᵗ⁻ⁱ 0.05 g_i, and an SVD in place of its iteration.

        p_t = p_{t−1} (1 − lr · decay) − lr · scale · U f(S / ‖S‖) Vᵀ,   U S Vᵀ = b_t

    Here f is the polynomial 3.4445 s − 4.775 s³ + 2.0315 s⁵, applied five times to each singular value. With nesterov,
    U S Vᵀ is 0.95 b_t + 0.05 g_t.
    """

    def formula(p: Array, gradients: Array, decay: float) -> Array:
        for t in range(1, len(gradients) + 1):
            b = 0.05 * _weighted(0.95 ** np.arange(t)[::-1], list(gradients[:t]))
            u, s, vt = np.linalg.svd(0.95 * b + 0.05 * gradients[t - 1] if nesterov else b, full_matrices=False)
            s = s / np.linalg.norm(s)
            for _ in range(5):
                s = 3.4445 * s - 4.775 * s**3 + 2.0315 * s**5
            rows, columns = p.shape
            scale = 0.2 * math.sqrt(max(rows, columns)) if rms else math.sqrt(max(1.0, rows / columns))
            p = p * (1 - LR * decay) - LR * scale * (u * s) @ vt
        return p

    return formula


def _clip(rng: Generator) -> list[tuple[str, Array, Array]]:
    """Gradients g of a joint norm n > max_norm become g · max_norm / (n + 1e-6); others stay as they are."""
    grads = [rng.randn(shape, np.float64) for shape in ((3, 4), (4,))]
    norm = math.sqrt(sum(float(np.sum(g * g)) for g in grads))
    compared = []
    for max_norm, factor in ((0.5, 0.5 / (norm + 1e-6)), (2 * norm, 1.0)):
        tensors = [Tensor(np.zeros(g.shape), requires_grad=True) for g in grads]
        for t, g in zip(tensors, grads, strict=True):
            t.grad = g.copy()
        returned = optim.clip_grad_norm_(tensors, max_norm)
        compared.append((f"norm, max_norm {max_norm:.2g}", np.array(returned), np.array(norm)))
        compared += [
            (f"gradient {i}, max_norm {max_norm:.2g}", np.asarray(t.grad), g * factor)
            for i, (t, g) in enumerate(zip(tensors, grads, strict=True))
        ]
    return compared


def _optimizer_cases() -> list[Case]:
    sgd: dict[str, dict[str, Any]] = {
        "plain": {},
        "momentum": {"momentum": 0.9},
        "momentum, dampening": {"momentum": 0.9, "dampening": 0.3},
        "nesterov": {"momentum": 0.9, "nesterov": True},
    }
    return [
        *(_update(label, optim.SGD, _sgd(**options), **options) for label, options in sgd.items()),
        _update("two groups, four steps", optim.Adam, _adam(decoupled=False), betas=BETAS, eps=EPS),
        _update("two groups, four steps", optim.AdamW, _adam(decoupled=True), betas=BETAS, eps=EPS),
        _update("amsgrad", optim.AdamW, _adam(decoupled=True, amsgrad=True), betas=BETAS, eps=EPS, amsgrad=True),
        _update("maximize", optim.SGD, lambda p, g, decay: _sgd()(p, -g, decay), maximize=True),
        _update(
            "maximize", optim.AdamW, lambda *x: _adam(True)(x[0], -x[1], x[2]), betas=BETAS, eps=EPS, maximize=True
        ),
        _update("a wide and a tall matrix", optim.Muon, _muon(), ((3, 4), (4, 2))),
        _update("plain momentum", optim.Muon, _muon(nesterov=False), ((3, 3), (2, 5)), nesterov=False),
        _update("match_rms_adamw", optim.Muon, _muon(rms=True), ((3, 4), (4, 2)), adjust_lr_fn="match_rms_adamw"),
        _update(
            "Muon and AdamW",
            lambda groups, lr: optim.Together(optim.Muon(groups[:1], lr), optim.AdamW(groups[1:], lr, BETAS, EPS)),
            lambda p, g, decay: (_muon() if p.ndim == 2 else _adam(True))(p, g, decay),
            covers="Together",
        ),
        UpdateCase("optimizers", "clip_grad_norm_", "above and below", _clip, "formula"),
    ]


def all_cases() -> list[Case]:
    """The whole table: kernels, functions, layers and models, optimizers, in this order."""
    return [*kernel_cases(), *_function_cases(), *_layer_cases(), *_optimizer_cases()]
