"""`torch.nn.functional`: our functions, on Tensors in PyTorch's words, with the global stream for dropout."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinygrad_llm import autograd
from tinygrad_llm import functional as F
from tinygrad_llm.torch.missing import lookup, refuse
from tinygrad_llm.torch.streams import stream
from tinygrad_llm.torch.tensor import Tensor, array_of, constant, no_product, ours, together

__all__ = [
    "binary_cross_entropy", "binary_cross_entropy_with_logits", "cosine_similarity", "cross_entropy", "dropout",
    "elu", "embedding", "gelu", "huber_loss", "kl_div", "l1_loss", "layer_norm", "leaky_relu", "linear",
    "log_softmax", "logsigmoid", "mse_loss", "nll_loss", "normalize", "one_hot", "pad", "relu", "rms_norm",
    "scaled_dot_product_attention", "sigmoid", "silu", "smooth_l1_loss", "softmax", "softplus", "tanh",
]  # fmt: skip


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """See `tinygrad_llm.functional.relu`."""
    return input.relu_() if inplace else input.relu()


def leaky_relu(input: Tensor, negative_slope: float = 0.01) -> Tensor:
    """x above 0, and negative_slope · x below."""
    x = input.ours
    return Tensor.of(F.where(x > 0, x, x * negative_slope), "LeakyReluBackward0")


def elu(input: Tensor, alpha: float = 1.0) -> Tensor:
    """x above 0, and alpha · (exp(x) − 1) below."""
    x = input.ours
    return Tensor.of(F.where(x > 0, x, alpha * (x.minimum(0.0).exp() - 1)), "EluBackward0")


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """See `tinygrad_llm.functional.gelu`; PyTorch's default is the erf form."""
    return Tensor.of(F.gelu(input.ours, approximate), "GeluBackward0")


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """See `tinygrad_llm.functional.silu`."""
    refuse("silu", inplace=inplace)
    return Tensor.of(F.silu(input.ours), "SiluBackward0")


def sigmoid(input: Tensor) -> Tensor:
    """See `tinygrad_llm.functional.sigmoid`."""
    return input.sigmoid()  # type: ignore[no-any-return]


def tanh(input: Tensor) -> Tensor:
    """See `tinygrad_llm.functional.tanh`."""
    return input.tanh()  # type: ignore[no-any-return]


def softplus(input: Tensor) -> Tensor:
    """See `tinygrad_llm.functional.softplus`."""
    return Tensor.of(F.softplus(input.ours), "SoftplusBackward0")


def logsigmoid(input: Tensor) -> Tensor:
    """ln σ(x) = −softplus(−x)."""
    return Tensor.of(-F.softplus(-input.ours), "LogSigmoidBackward0")


def softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """See `tinygrad_llm.functional.softmax`."""
    return input.softmax(dim, dtype=dtype)  # type: ignore[no-any-return]


def log_softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """See `tinygrad_llm.functional.log_softmax`."""
    return input.log_softmax(dim, dtype=dtype)  # type: ignore[no-any-return]


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """See `tinygrad_llm.functional.dropout`; the mask comes from the global stream."""
    refuse("dropout", inplace=inplace)
    if not training or p == 0:
        return input
    # The product with a mask, as in PyTorch, where a negative number that is dropped becomes −0.
    mask = F.dropout(autograd.Tensor(np.ones_like(input.ours.data)), p, training, stream())
    return Tensor.of(input.ours * mask, "MulBackward0")


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """See `tinygrad_llm.functional.linear`."""
    if input.ours.dtype != weight.ours.dtype:
        raise RuntimeError(f"mat1 and mat2 must have the same dtype, but got {input.dtype} and {weight.dtype}")
    names = ({1: "SqueezeBackward4", 2: "MmBackward0"}, {1: "AddBackward0", 2: "AddmmBackward0"})[bias is not None]
    made_by = names.get(input.ndim, "UnsafeViewBackward0")
    if input.ndim > 2 and bias is not None:
        made_by = "ViewBackward0" if input.is_contiguous() else "AddBackward0"
    try:
        return Tensor.of(F.linear(input.ours, weight.ours, ours(bias)), made_by)
    except ValueError as error:
        raise no_product(error, input.shape, weight.shape[::-1]) from None


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """See `tinygrad_llm.functional.embedding`; the row padding_idx gets no gradient."""
    try:
        y = F.embedding(input.ours, weight.ours)
    except IndexError:
        raise IndexError("index out of range in self") from None
    if padding_idx is not None:
        y = F.where(input.ours.data[..., None] == padding_idx % len(weight), y.detach(), y)
    return Tensor.of(y, "EmbeddingBackward0")


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """A new last axis with 1 at the place of each id, and 0 elsewhere."""
    ids = array_of(tensor)
    n = int(ids.max()) + 1 if num_classes < 0 else num_classes
    if ids.size and not 0 <= ids.min() <= ids.max() < n:
        raise RuntimeError("Class values must be non-negative and smaller than num_classes.")
    return constant((ids[..., None] == np.arange(n)).astype(np.int64))


def layer_norm(
    input: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """See `tinygrad_llm.functional.layer_norm`."""
    y = F.layer_norm(input.ours, tuple(normalized_shape), ours(weight), ours(bias), eps)
    return Tensor.of(y, "NativeLayerNormBackward0")


def rms_norm(input: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """See `tinygrad_llm.functional.rms_norm`."""
    return Tensor.of(F.rms_norm(input.ours, tuple(normalized_shape), ours(weight), eps), "FusedRmsNormBackward0")


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """x / max(‖x‖, eps) along dim."""
    return input / input.norm(p, dim, keepdim=True).clamp(eps)  # type: ignore[no-any-return]


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """The cosine of the angle between two vectors along dim."""
    lengths = x1.norm(dim=dim).clamp(eps) * x2.norm(dim=dim).clamp(eps)
    return Tensor.of(((x1 * x2).sum(dim) / lengths).ours, "SumBackward1")


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: Any = 0) -> Tensor:
    """More places before and after: pad is (before, after) of the last axis, then of the one before it, ….

    A number below 0 removes places.
    """
    refuse("pad", mode=mode != "constant" and mode)
    y, pairs = input.ours, list(zip(pad[::2], pad[1::2], strict=True))
    for axis, ends in zip(range(input.ndim - 1, -1, -1), pairs, strict=False):
        before, after = (max(0, -n) for n in ends)
        y = y[(slice(None),) * axis + (slice(before, y.shape[axis] - after),)]
        parts = [np.full((*y.shape[:axis], max(0, n), *y.shape[axis + 1 :]), value or 0, y.dtype) for n in ends]
        y = F.cat([parts[0], y, parts[1]], axis)
    return Tensor.of(y, "ConstantPadNdBackward0")


# ---- losses --------------------------------------------------------------------------------------------------------


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    ignore_index: int = -100,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """See `tinygrad_llm.functional.cross_entropy`."""
    options = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": label_smoothing}
    y = F.cross_entropy(input.ours, target.ours, ours(weight), **options)  # type: ignore[arg-type]
    plain = target.ours.dtype.kind in "iu" and not label_smoothing
    name = "NllLossBackward0" if input.ndim < 3 else "NllLoss2DBackward0"
    if not plain:
        name = "AddBackward0" if target.ours.dtype.kind in "iu" else "DivBackward1"
    return Tensor.of(y, name)


def nll_loss(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean"
) -> Tensor:
    """See `tinygrad_llm.functional.nll_loss`."""
    y = F.nll_loss(input.ours, target.ours, ours(weight), ignore_index=ignore_index, reduction=reduction)
    return Tensor.of(y, "NllLossBackward0")


def mse_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """See `tinygrad_llm.functional.mse_loss`."""
    return Tensor.of(F.mse_loss(input.ours, target.ours, reduction), "MseLossBackward0")


def l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """The mean of |input − target|."""
    _alike("l1_loss", input, target)
    return _reduced((input - target).abs(), reduction)


def smooth_l1_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", beta: float = 1.0) -> Tensor:
    """½ d² / beta where the difference d is below beta, else |d| − beta / 2."""
    _alike("smooth_l1_loss", input, target)
    d = (input - target).ours.abs()
    losses = F.where(d < beta, 0.5 / beta * d * d, d - beta / 2) if beta else d
    return _reduced(Tensor.of(losses, "SmoothL1LossBackward0"), reduction, "SmoothL1LossBackward0")


def huber_loss(input: Tensor, target: Tensor, *, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """delta times `smooth_l1_loss` with beta = delta."""
    losses = smooth_l1_loss(input, target, reduction="none", beta=delta) * delta
    return _reduced(losses, reduction, "HuberLossBackward0")


def binary_cross_entropy(
    input: Tensor, target: Tensor, weight: Tensor | None = None, *, reduction: str = "mean"
) -> Tensor:
    """−w · (t · ln p + (1 − t) · ln(1 − p)) for probabilities p and targets t; a logarithm counts −100 at least.

    For logits, `binary_cross_entropy_with_logits` is exact where a probability would round to 0 or 1.
    """
    _alike("binary_cross_entropy", input, target)
    p, t = together(input, target)
    if not ((p.data >= 0) & (p.data <= 1)).all():
        raise RuntimeError("all elements of input should be between 0 and 1: for logits, …_with_logits")
    losses = -(t * p.log().clamp(-100.0) + (1 - t) * (1 - p).log().clamp(-100.0))
    made = Tensor.of(losses if weight is None else losses * weight.ours, "BinaryCrossEntropyBackward0")
    return _reduced(made, reduction, "BinaryCrossEntropyBackward0")


def binary_cross_entropy_with_logits(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    reduction: str = "mean",
    pos_weight: Tensor | None = None,
) -> Tensor:
    """See `tinygrad_llm.functional.binary_cross_entropy_with_logits`."""
    x, t = together(input, target)
    y = F.binary_cross_entropy_with_logits(x, t, ours(weight), reduction=reduction, pos_weight=ours(pos_weight))
    return Tensor.of(y, "BinaryCrossEntropyWithLogitsBackward0")


def kl_div(input: Tensor, target: Tensor, *, reduction: str = "mean", log_target: bool = False) -> Tensor:
    """Σ t · (ln t − input) for log-probabilities `input`; "batchmean" divides the sum by the number of rows."""
    log_t = target if log_target else target.log()
    losses = (target.exp() if log_target else target) * (log_t - input)
    return losses.sum() / len(input) if reduction == "batchmean" else _reduced(losses, reduction)


def _alike(name: str, input: Tensor, target: Tensor) -> None:
    """Refuse shapes that would broadcast: (N, 1) beside (N,) would be N² losses."""
    if input.shape != target.shape:
        raise ValueError(
            f"{name}: got input {tuple(input.shape)} and target {tuple(target.shape)}, which must be alike"
        )


def _reduced(losses: Tensor, reduction: str, made_by: str = "") -> Tensor:
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'got reduction {reduction!r}, which must be "mean", "sum" or "none"')
    reduced = losses if reduction == "none" else getattr(losses, reduction)()
    reduced.made_by = made_by or reduced.made_by
    return reduced


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """See `tinygrad_llm.functional.scaled_dot_product_attention`; dropout draws from the global stream."""
    refuse("scaled_dot_product_attention", enable_gqa=enable_gqa)
    q = query.ours if scale is None else query.ours * (scale * math.sqrt(query.shape[-1]))
    y = F.scaled_dot_product_attention(
        q, key.ours, value.ours, ours(attn_mask), dropout_p, is_causal, rng=stream() if dropout_p else None
    )
    fast = "ScaledDotProductFlashAttentionForCpuBackward0"
    return Tensor.of(y, fast if query.ndim == 4 and not dropout_p else "UnsafeViewBackward0")


__getattr__ = lookup("torch.nn.functional", lambda: __all__)
