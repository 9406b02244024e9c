"""Functions on Tensors with the names and arguments of `torch.nn.functional` and `torch`.

Each function applies the kernel of its name, unless its docstring names another one. `tinygrad_llm.kernels` has the
formulas, forward and backward, with their derivations.

Shape letters: B batch, T time, C channels, H heads, D head size, V vocabulary.
"""

import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np

from tinygrad_llm import kernels as K
from tinygrad_llm.autograd import Tensor, apply, is_grad_enabled
from tinygrad_llm.autograd.tensor import Operand, dims
from tinygrad_llm.kernels import Array
from tinygrad_llm.kernels.losses import check_targets
from tinygrad_llm.random import Generator, check_generator
from tinygrad_llm.runtime import side_by_side

__all__ = [
    "binary_cross_entropy_with_logits", "cat", "causal_self_attention", "cross_entropy", "dropout", "einsum",
    "embedding", "gelu", "layer_norm", "linear", "linear_cross_entropy", "log_softmax", "matmul", "maximum",
    "minimum", "mse_loss", "nll_loss", "relu", "rms_norm", "rotary", "scaled_dot_product_attention", "sigmoid",
    "silu", "softmax", "softplus", "stack", "tanh", "where",
]  # fmt: skip

P = ParamSpec("P")
R = TypeVar("R")


def _named(function: Callable[P, R]) -> Callable[P, R]:
    """The same function, whose error names an argument that is no Tensor, such as a list, and how to mend it.

    Nothing is looked at before a call has failed, so the others cost nothing.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except (AttributeError, TypeError) as error:
            for name, kind in _no_tensors(function, args, kwargs):
                if kind in str(error):  # else it failed for another reason
                    words = f"{function.__name__}: {name} must be a Tensor, got {kind}: write Tensor({name})"
                    raise TypeError(words) from error
            raise

    return call


def _no_tensors(function: Callable[..., Any], args: Any, kwargs: Any) -> Iterator[tuple[str, str]]:
    """(name, type) of the arguments that should be Tensors and are not."""
    signature = inspect.signature(function)
    try:
        given = signature.bind(*args, **kwargs).arguments
    except TypeError:  # arguments that the function does not take
        return
    for name, value in given.items():
        parameter = signature.parameters[name]
        several = isinstance(value, list | tuple) and (
            "Sequence" in str(parameter.annotation) or parameter.kind is parameter.VAR_POSITIONAL
        )
        if "Tensor" in str(parameter.annotation):
            for i, x in enumerate(value if several else [value]):
                if not isinstance(x, Tensor):
                    yield f"{name}[{i}]" if several else name, type(x).__name__


def _wide(*inputs: Tensor | Array) -> tuple[list[Tensor], np.dtype[Any]]:
    """Float16 and integers as float32, for a function of several operations, and the dtype of its result.

    A kernel rounds float16 once, at its end; so does such a function, if no number between its kernels is rounded.
    """
    if wrong := [type(x).__name__ for x in inputs if not isinstance(x, Tensor | np.ndarray)]:
        raise TypeError(f"got {wrong[0]} in place of a Tensor")
    tensors = [x if isinstance(x, Tensor) else Tensor(x) for x in inputs]
    floats = [x.dtype for x in tensors if x.dtype.kind in "fc"]
    dtype = np.result_type(*floats) if floats else np.dtype(np.float32)
    narrow = [x.dtype == np.float16 or x.dtype.kind in "iub" for x in tensors]
    return [x.to(np.float32) if small else x for x, small in zip(tensors, narrow, strict=True)], dtype


@_named
def relu(input: Tensor) -> Tensor:
    """max(x, 0), element by element.

    Args:     input: any shape.
    Returns:  the same shape and dtype.
    """
    return input.relu()


@_named
def sigmoid(input: Tensor) -> Tensor:
    """1 / (1 + e⁻ˣ), element by element, without overflow at either end.

    Args:     input: any shape.
    Returns:  the same shape and dtype, between 0 and 1.
    """
    return input.sigmoid()


@_named
def tanh(input: Tensor) -> Tensor:
    """tanh x, element by element.

    Args:     input: any shape.
    Returns:  the same shape and dtype, between −1 and 1.
    """
    return input.tanh()


@_named
def gelu(input: Tensor, approximate: str = "tanh") -> Tensor:
    """The Gaussian error linear unit, by default in GPT-2's tanh form: ½x(1 + tanh(√(2/π)(x + 0.044715x³))).

    Args:     input: any shape. approximate: "tanh", or "none" (PyTorch's default) for ½x(1 + erf(x/√2)).
    Returns:  the same shape and dtype.
    Raises:   ValueError: another form.
    """
    if approximate not in ("tanh", "none"):
        raise ValueError(f'gelu: got approximate={approximate!r}, which must be "tanh" or "none"')
    if approximate == "tanh":
        return apply(K.gelu, input)
    (x,), dtype = _wide(input)
    return (x * (0.5 + 0.5 * (x / math.sqrt(2)).erf())).to(dtype)


@_named
def silu(input: Tensor) -> Tensor:
    """x · sigmoid(x), element by element.

    Args:     input: any shape.
    Returns:  the same shape and dtype.
    """
    (x,), dtype = _wide(input)
    return (x * x.sigmoid()).to(dtype)


@_named
def softplus(input: Tensor) -> Tensor:
    """ln(1 + eˣ), element by element, without overflow.

    Args:     input: any shape.
    Returns:  the same shape and dtype, ≥ 0.
    """
    return apply(K.softplus, input)


@_named
def softmax(input: Tensor, dim: int) -> Tensor:
    """eˣ / Σ eˣ along `dim`: positive numbers that sum to 1.

    Args:     input: any shape with an axis `dim`.
    Returns:  the same shape and dtype.
    Raises:   AxisError: there is no such axis.
    """
    return input.softmax(dim)


@_named
def log_softmax(input: Tensor, dim: int) -> Tensor:
    """ln softmax(x) along `dim`, also where the softmax itself would round to 0.

    Args:     input: any shape with an axis `dim`.
    Returns:  the same shape and dtype, ≤ 0.
    Raises:   AxisError: there is no such axis.
    """
    return input.log_softmax(dim)


@_named
def maximum(input: Operand, other: Operand) -> Tensor:
    """The larger of the two, element by element; equal elements share the gradient.

    Args:     input, other: shapes that broadcast.
    Returns:  the broadcast shape.
    Raises:   ValueError: the shapes do not broadcast.
    """
    return apply(K.maximum, input, other)


@_named
def minimum(input: Operand, other: Operand) -> Tensor:
    """The smaller of the two, element by element; equal elements share the gradient (kernel `maximum`, lower=True).

    Args:     input, other: shapes that broadcast.
    Returns:  the broadcast shape.
    Raises:   ValueError: the shapes do not broadcast.
    """
    return apply(K.maximum, input, other, lower=True)


@_named
def where(condition: Operand, input: Operand, other: Operand) -> Tensor:
    """`input` where the condition holds, else `other`, element by element.

    Args:     condition: boolean. input, other: values; the three shapes broadcast.
    Returns:  the broadcast shape.
    Raises:   ValueError: the shapes do not broadcast.
    """
    return apply(K.where, condition, input, other)


@_named
def cat(tensors: Sequence[Operand], dim: int = 0) -> Tensor:
    """The Tensors one after another along `dim` (kernel `concatenate`).

    Args:     tensors: of equal shape, except along `dim`.
    Returns:  their shape, with the lengths along `dim` added.
    Raises:   ValueError: the other axes differ, or there are no tensors.
    """
    shapes = [np.shape(x) for x in tensors]
    if not all(shapes):
        raise ValueError(f"cat: a Tensor without axes cannot be concatenated: use stack; got shapes {shapes}")
    return apply(K.concatenate, *tensors, axis=dims((dim,), shapes[0])[0] if shapes else dim)


@_named
def stack(tensors: Sequence[Operand], dim: int = 0) -> Tensor:
    """The Tensors along a new axis `dim`.

    Args:     tensors: n of one shape.
    Returns:  that shape, with an axis of length n inserted at `dim`.
    Raises:   ValueError: the shapes differ, or there are no tensors.
    """
    return apply(K.stack, *tensors, axis=dims((dim,), (*np.shape(tensors[0]), 1))[0] if tensors else dim)


@_named
def matmul(input: Operand, other: Operand) -> Tensor:
    """The matrix product in all of NumPy's forms.

    Args:     input: (..., n, k) or (k,). other: (..., k, m) or (k,). Leading axes broadcast.
    Returns:  (..., n, m), without n or m where a vector stood.
    Raises:   ValueError: the inner sizes differ; both shapes are named.
    """
    return apply(K.matmul, input, other)


@_named
def einsum(equation: str, *operands: Operand) -> Tensor:
    """Einstein's summation: `einsum("bij,bjk->bik", a, b)`.

    Args:     equation: as in NumPy, with repeated indices, "..." and an implicit output. operands: one for each term.
    Returns:  the axes that the equation names after "->".
    Raises:   ValueError: the equation does not fit the operands.
    """
    return apply(K.einsum, *operands, subscripts=equation)


@_named
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b,  W = weight, b = bias.

    Args:     input: (..., in). weight: (out, in). bias: (out,) or None.
    Returns:  (..., out).
    Raises:   ValueError: the sizes do not fit; the shapes are named.
    """
    return apply(K.linear, input, weight) if bias is None else apply(K.linear, input, weight, bias)


@_named
def embedding(input: Tensor | Array, weight: Tensor) -> Tensor:
    """The rows of `weight` that the ids name.

    Args:     input: (...) integer ids. weight: (V, C).
    Returns:  (..., C).
    Raises:   IndexError: an id is negative or ≥ V. TypeError: ids are not integers.
    """
    return apply(K.embedding, weight, input, sparse=True)


@_named
def layer_norm(
    input: Tensor,
    normalized_shape: int | Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """(x − mean) / √(var + eps) · weight + bias, over the last axes, whose sizes are `normalized_shape`.

    Args:     input: (..., *normalized_shape). weight, bias: normalized_shape, or None for 1 and 0.
    Returns:  shape and dtype of input. The variance is the biased one (÷ n).
    Raises:   ValueError: shapes do not fit.
    Source:   Ba et al. 2016, arXiv:1607.06450; torch.nn.functional.layer_norm.
    """
    axes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    shape = input.shape
    if shape[len(shape) - len(axes) :] != axes or not axes:
        raise ValueError(f"layer_norm: got an input {shape}, whose last axes must be normalized_shape {axes}")
    if any(p is not None and p.shape != axes for p in (weight, bias)):
        shapes = [None if p is None else p.shape for p in (weight, bias)]
        raise ValueError(f"layer_norm: got weight and bias of shapes {shapes}, which must be normalized_shape {axes}")
    if weight is None and bias is not None:
        return layer_norm(input, axes, eps=eps) + bias
    parameters = [p for p in (weight, bias) if p is not None]
    if len(axes) == 1:
        return apply(K.layer_norm, input, *parameters, eps=eps)
    rows = input.reshape(*shape[: len(shape) - len(axes)], math.prod(axes))
    return apply(K.layer_norm, rows, *(p.reshape(-1) for p in parameters), eps=eps).reshape(shape)


@_named
def rms_norm(
    input: Tensor, normalized_shape: int | Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """x / √(mean(x²) + eps) · weight over the last axes.

    Args:     input: (..., *normalized_shape). weight: normalized_shape, or None. eps: None for the dtype's own.
    Returns:  the shape and dtype of input.
    Raises:   ValueError: shapes that do not fit.
    Source:   Zhang and Sennrich 2019, arXiv:1910.07467; torch.nn.functional.rms_norm.
    """
    axes = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not axes or input.shape[-len(axes) :] != axes or (weight is not None and weight.shape != axes):
        given = None if weight is None else weight.shape
        raise ValueError(f"rms_norm: got input {input.shape} and weight {given}, which do not fit {axes}")
    (x, *scale), dtype = _wide(input, *([] if weight is None else [weight]))
    eps = float(np.finfo(input.dtype if input.dtype.kind in "fc" else dtype).eps) if eps is None else eps
    y = x / ((x * x).mean(tuple(range(-len(axes), 0)), keepdim=True) + eps).sqrt()
    return (y * scale[0] if scale else y).to(dtype)


@_named
def rotary(input: Tensor, positions: Tensor | Array, base: float = 10000.0) -> Tensor:
    """Turn queries or keys by the angles of their positions, so that scores depend on distances alone.

    Args:     input: (..., D), D even. positions: integer, broadcasts to (...), such as (T, 1) for input (B, T, H, D).
    Returns:  (..., D).
    Raises:   ValueError: D is odd; positions that do not broadcast. TypeError: positions that are not integers.
    Source:   Su et al. 2021, arXiv:2104.09864.
    """
    return apply(K.rotary, input, positions, base=base)


@_named
def dropout(input: Tensor, p: float = 0.5, training: bool = True, rng: Generator | None = None) -> Tensor:
    """Set each element to 0 with probability p and scale the others by 1 / (1 − p), while training.

    Args:     input: any shape. p: in [0, 1]. training: with False, `input` is returned and nothing is drawn.
              rng: the generator that draws the mask.
    Returns:  the same shape and dtype.
    Raises:   ValueError: p outside [0, 1], or no rng where a mask must be drawn.
    Source:   Srivastava et al. 2014, JMLR 15; the mask is the one that PyTorch draws on a CPU with this seed.
    """
    keep = draw_keep(p, input.shape, training, rng)
    return input if keep is None else apply(K.dropout, input, keep, p=p)


def draw_keep(p: float, shape: tuple[int, ...], training: bool, rng: Generator | None) -> Array | None:
    """The dropout mask, True where an element is kept. If no element is dropped, nothing is drawn, and it is None."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: got p={p}, which must lie in [0, 1]")
    if not training or p == 0:
        return None
    if rng is None:
        raise ValueError("dropout: got no random generator to draw the mask: pass rng=Generator(seed)")
    return check_generator(rng).bernoulli_keep(p, shape)


@_named
def cross_entropy(
    input: Tensor,
    target: Tensor | Array,
    weight: Tensor | Array | None = None,
    *,
    ignore_index: int = K.IGNORE_INDEX,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """−ln softmax(logits)[target], averaged over the rows whose target is not `ignore_index`.

    Args:     input: (N, V), (N, V, …) or (V,) logits, not probabilities. target: integer ids, of input's shape without
              V; or probabilities, of input's shape. weight: (V,), of each class.
              reduction: "mean", "sum", or "none" for one loss per row. Losses are in nats. With class weights, the
              mean of ids is divided by the sum of the targets' weights.
              label_smoothing: s in [0, 1]; the target has the weight 1 − s, and all V ids share the weight s.
    Returns:  a scalar, or input's shape without V for "none".
    Raises:   IndexError: a target is neither in 0 … V−1 nor ignore_index. ValueError: shapes; a mean over no rows;
              label_smoothing outside [0, 1]. TypeError: targets are neither integers nor probabilities.
    Source:   torch.nn.functional.cross_entropy; Szegedy et al. 2016, arXiv:1512.00567 (label smoothing).
    """
    options = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
    target = target if isinstance(target, Tensor) else Tensor(target)
    logits, shape = _rows(input), (*input.shape[:1], *input.shape[2:]) if input.ndim > 1 else ()
    if target.dtype.kind in "fc" and target.shape == input.shape:
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"cross_entropy: got label_smoothing {label_smoothing}, which must lie in [0, 1]")
        wanted = _rows(target) * (1 - label_smoothing) + label_smoothing / logits.shape[1]
        losses = -(logits.log_softmax(1) * wanted * (1 if weight is None else weight)).sum(1)
        return _reduced("cross_entropy", losses.reshape(shape), reduction)
    if target.shape != shape:
        raise ValueError(f"cross_entropy: got input {input.shape} and target {target.shape}, which must be {shape}")
    if weight is None:
        losses = apply(K.cross_entropy, logits, target.data.reshape(-1), **options)
        return losses.reshape(shape) if reduction == "none" and input.ndim != 2 else losses
    return _weighted(logits.log_softmax(1), target, weight, ignore_index, reduction, label_smoothing)


@_named
def nll_loss(
    input: Tensor,
    target: Tensor | Array,
    weight: Tensor | Array | None = None,
    *,
    ignore_index: int = K.IGNORE_INDEX,
    reduction: str = "mean",
) -> Tensor:
    """−input[target], averaged over the rows whose target is not `ignore_index`.

    Args:     input: (N, V), (N, V, …) or (V,) logarithms of probabilities. target, weight, reduction: as for
              `cross_entropy`; target holds ids.
    Returns:  a scalar, or input's shape without V for "none".
    Raises:   as `cross_entropy`.
    Source:   torch.nn.functional.nll_loss.
    """
    target = target if isinstance(target, Tensor) else Tensor(target)
    if target.shape != ((*input.shape[:1], *input.shape[2:]) if input.ndim > 1 else ()):
        raise ValueError(f"nll_loss: got input {input.shape} and target {target.shape}, which do not fit")
    logp = _rows(input)
    weight = np.ones(logp.shape[1]) if weight is None else weight
    return _weighted(logp, target, weight, ignore_index, reduction, 0.0)


def _rows(x: Tensor) -> Tensor:
    """(N, V, …) or (V,) → (N · …, V)."""
    if x.ndim == 0:
        raise ValueError("a loss over classes needs an axis of classes, got a Tensor without axes")
    if x.shape[min(1, x.ndim - 1)] == 0:
        raise ValueError(f"a loss over classes needs at least one class, got shape {x.shape}")
    if x.dtype.kind in "iub":
        x = x.to(np.float32)
    if x.ndim == 2:  # nothing to do, and nothing to record
        return x
    if x.ndim > 2:
        x = x.permute(0, *range(2, x.ndim), 1)
    return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _weighted(
    logp: Tensor, target: Tensor, weight: Tensor | Array, ignore_index: int, reduction: str, smoothing: float
) -> Tensor:
    """Σ −w_k · wanted_k · logp_k for each target; their mean is divided by the sum of the targets' own weights."""
    N, V = logp.shape
    if isinstance(weight, Tensor) and weight.requires_grad:
        raise ValueError("class weights get no gradient: use weight.detach()")
    w = np.asarray(weight.data if isinstance(weight, Tensor) else weight, logp.data.real.dtype)
    if w.shape != (V,):
        raise ValueError(f"got class weights of shape {w.shape}, which must be ({V},)")
    counted, _ = check_targets("cross_entropy", target.data.reshape(-1), V, ignore_index, smoothing)
    ids = np.where(counted, target.data.reshape(-1), 0)
    wanted = np.full((N, V), smoothing / V, w.dtype)
    wanted[np.arange(N), ids] += 1 - smoothing
    wanted *= w * counted[:, None]
    losses = -(apply(K.where, wanted != 0, logp, 0.0) * wanted).sum(1)  # 0 · −inf would be NaN
    return _reduced("cross_entropy", losses.reshape(target.shape), reduction, float((w[ids] * counted).sum()))


def _reduced(name: str, losses: Tensor, reduction: str, count: float | None = None) -> Tensor:
    """The losses, their sum, or their mean: the sum divided by count, by default the number of losses."""
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'{name}: got reduction {reduction!r}, which must be "mean", "sum" or "none"')
    count = losses.numel() if count is None else count
    if reduction == "mean" and count == 0:
        raise ValueError(f"{name}: the mean over no targets")
    return losses if reduction == "none" else losses.sum() / (count if reduction == "mean" else 1)


@_named
def mse_loss(input: Tensor, target: Tensor | Array, reduction: str = "mean") -> Tensor:
    """The mean of (input − target)².

    Args:     input, target: of one shape. reduction: "mean", "sum" or "none".
    Returns:  a scalar, or their shape for "none".
    Raises:   ValueError: other shapes; an unknown reduction.
    Source:   torch.nn.functional.mse_loss.
    """
    if np.shape(target) != input.shape:
        raise ValueError(f"mse_loss: got input {input.shape} and target {np.shape(target)}, which must be alike")
    (x, t), dtype = _wide(input, target)
    difference = x - t
    return _reduced("mse_loss", difference * difference, reduction).to(dtype)


@_named
def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor | Array,
    weight: Tensor | Array | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | Array | None = None,
) -> Tensor:
    """−w · (v · t · ln σ(x) + (1 − t) · ln(1 − σ(x))) for logits x and targets t, without overflow.

    Args:     input, target: of one shape; target in [0, 1]. weight: w, broadcasts. pos_weight: v, broadcasts.
              reduction: "mean", "sum" or "none".
    Returns:  a scalar, or their shape for "none".
    Raises:   ValueError: other shapes; an unknown reduction.
    Source:   torch.nn.functional.binary_cross_entropy_with_logits.
    """
    name = "binary_cross_entropy_with_logits"
    if np.shape(target) != input.shape:
        raise ValueError(f"{name}: got input {input.shape} and target {np.shape(target)}, which must be alike")
    # −ln σ(x) = softplus(−x), and −ln(1 − σ(x)) = x + softplus(−x)
    target = target if isinstance(target, Tensor) else Tensor(target)
    (x, t, *more), dtype = _wide(input, target, *(w for w in (weight, pos_weight) if w is not None))
    share = 1 - t + (t if pos_weight is None else t * more[-1])
    losses = (1 - t) * x + share * softplus(-x)
    return _reduced(name, losses if weight is None else losses * more[0], reduction).to(dtype)


@_named
def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    reference_chosen: Tensor | Array,
    reference_rejected: Tensor | Array,
    beta: float = 0.1,
    reduction: str = "mean",
) -> tuple[Tensor, Tensor]:
    """Direct preference optimization: make the chosen one of two answers the likelier one.

        margin = β · ((ln π(y₊) − ln π₀(y₊)) − (ln π(y₋) − ln π₀(y₋)))
        loss   = −ln σ(margin)

    Args:     the logarithms of the probability of each chosen answer y₊ and rejected answer y₋, (N,) each: by the model
              that is trained, π, and by the one it started from, π₀.
              beta: β, how strongly the model is held to π₀. reduction: "mean", "sum" or "none".
    Returns:  the loss, which is ln 2 for π = π₀; and the margins (N,), by how much y₊ is rewarded more than y₋.
    Raises:   ValueError: an unknown reduction.
    Source:   Rafailov et al. 2023, arXiv:2305.18290, equation 7.
    """
    margin = ((policy_chosen - reference_chosen) - (policy_rejected - reference_rejected)) * beta
    return _reduced("dpo_loss", softplus(-margin), reduction), margin  # −ln σ(x) = softplus(−x)


@_named
def linear_cross_entropy(
    input: Tensor,
    weight: Tensor,
    target: Tensor | Array,
    ignore_index: int = K.IGNORE_INDEX,
    label_smoothing: float = 0.0,
    count: int | None = None,
) -> Tensor:
    """cross_entropy(linear(input, weight), target), which never holds all (N, V) logits.

    Args:     input: (N, C) hidden states. weight: (V, C), the output head. target: (N,) integer ids.
              ignore_index, label_smoothing: as for `cross_entropy`. count: the number to divide the sum of losses by;
              None: the number of targets that count. With the count of a whole batch, its parts add up to its mean.
    Returns:  a scalar.
    Raises:   as `cross_entropy`; ValueError: shapes that do not fit.
    """
    options = {"ignore_index": ignore_index, "label_smoothing": label_smoothing, "count": count}
    return apply(K.linear_cross_entropy, input, weight, target, **options)


@_named
def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | Array | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    rng: Generator | None = None,
) -> Tensor:
    """softmax(q kᵀ / √D, masked) v, with dropout of the softmax's weights (kernel `attention`).

    Args:     query: (..., Tq, D). key: (..., Tk, D). value: (..., Tk, Dv). attn_mask: broadcasts to (..., Tq, Tk).
              Boolean: True where a query may attend to a key. Float: added to the scores, in the dtype of query; it
              may require a gradient.
              dropout_p: dropout of the weights, also outside training; needs rng.
              is_causal: query i may attend to the keys 0 … i, also where Tq ≠ Tk; without attn_mask.
    Returns:  (..., Tq, Dv). A query that may attend to no key gets 0.
    Raises:   ValueError: shapes that do not fit, all named; is_causal with attn_mask; dropout without rng.
              TypeError: a mask of integers.
    Source:   Vaswani et al. 2017, arXiv:1706.03762; torch.nn.functional.scaled_dot_product_attention.
    """
    shapes = f"got {query.shape}, {key.shape} and {value.shape}"
    if min(query.ndim, key.ndim, value.ndim) < 2 or 0 in (query.shape[-1], key.shape[-1]):
        raise ValueError(f"scaled_dot_product_attention: query, key and value must be (..., T, D), D ≥ 1, {shapes}")
    try:
        np.broadcast_shapes(query.shape[:-2], key.shape[:-2], value.shape[:-2])
    except ValueError:
        raise ValueError(
            f"scaled_dot_product_attention: the leading axes of query, key and value must broadcast, {shapes}"
        ) from None
    Tq, Tk = query.shape[-2], key.shape[-2]
    if is_causal and attn_mask is not None:
        raise ValueError("scaled_dot_product_attention: got is_causal and attn_mask: give attn_mask alone, or neither")
    if attn_mask is not None and attn_mask.dtype.kind == query.dtype.kind == "f" and attn_mask.dtype != query.dtype:
        attn_mask = attn_mask.to(query.dtype) if isinstance(attn_mask, Tensor) else attn_mask.astype(query.dtype)
    keep = draw_keep(dropout_p, (*np.broadcast_shapes(query.shape[:-2], key.shape[:-2]), Tq, Tk), True, rng)
    if is_causal and Tq == Tk and query.shape == key.shape == value.shape:
        recorded = is_grad_enabled() and any(x.requires_grad for x in (query, key, value))
        inputs = [query, key, value] if keep is None else [query, key, value, keep]
        return apply(K.causal_attention, *inputs, p=dropout_p, recompute=not recorded, map=side_by_side)
    if is_causal:
        attn_mask = np.tri(Tq, Tk, dtype=bool)
    if keep is not None:
        return apply(K.attention, query, key, value, True if attn_mask is None else attn_mask, keep, p=dropout_p)
    return apply(K.attention, *([query, key, value] if attn_mask is None else [query, key, value, attn_mask]))


@_named
def causal_self_attention(
    qkv: Tensor, n_head: int, dropout_p: float = 0.0, rng: Generator | None = None, recompute: bool = False
) -> Tensor:
    """Causal attention in n_head heads, on queries, keys and values that lie side by side in the channels.

    Args:     qkv: (B, T, 3C), as one linear layer computes them. dropout_p: dropout of the weights; needs rng.
              recompute: compute the weights a second time in backward, instead of keeping (T, T) numbers per head.
    Returns:  (B, T, C).
    Raises:   ValueError: the channels are not 3 × n_head heads of equal size; dropout without rng.
    """
    if qkv.ndim != 3 or n_head < 1 or qkv.shape[2] < 3 * n_head:
        raise ValueError(
            f"causal_self_attention: got qkv {qkv.shape}, which must be (B, T, 3C) with {n_head} ≥ 1 heads"
        )
    B, T, _ = qkv.shape
    keep = draw_keep(dropout_p, (B, n_head, T, T), True, rng)
    inputs = [qkv] if keep is None else [qkv, keep]
    recorded = is_grad_enabled() and qkv.requires_grad  # if not, no backward will need the weights
    recompute = recompute or not recorded
    return apply(K.causal_self_attention, *inputs, n_head=n_head, p=dropout_p, recompute=recompute, map=side_by_side)
