"""Losses: cross-entropy, which a language model is trained on."""

import numpy as np

from tinygrad_llm.kernels.contract import Array, Result, analytic, kernel

IGNORE_INDEX = -100  # a target that does not count; PyTorch's default


@kernel
@analytic
def cross_entropy(
    logits: Array,
    targets: Array,
    *,
    ignore_index: int = IGNORE_INDEX,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Result:
    """loss_i = −(1 − s) ln p_i[target_i] − s · mean(ln p_i),  p_i = softmax(logits_i),  s = label_smoothing
    dlogits_i = g · (p_i − (1 − s) · onehot(target_i) − s / V) / n

    Rows whose target is ignore_index do not count: their loss and gradient are 0. With s = 0, loss_i is
    −ln p_i[target_i].

    logits: (N, V), targets: (N,) integer. reduction: "mean" over the n rows that count, "sum" (without / n), or "none"
    (one loss per row; without / n, each with its own g). label_smoothing: in [0, 1]. Losses are in nats.

    Source: Szegedy et al. 2016, arXiv:1512.00567, section 7 (label smoothing).

    Derivation:
        With l = logits, t = target_i and Z_i = Σ_k exp l_ik, logarithm and exponential cancel:
        −ln p_ik = −ln(exp(l_ik) / Z_i) = ln Z_i − l_ik
        Smoothing gives the target the weight 1 − s and spreads s evenly over all V ids, the target among them. The
        weights w_ik = (1 − s) δ_kt + s / V sum to 1:
        loss_i = Σ_k w_ik (ln Z_i − l_ik) = ln Z_i − (1 − s) l_it − s Σ_k l_ik / V
        ∂loss_i/∂l_ik = exp(l_ik) / Z_i − w_ik = p_ik − (1 − s) onehot(t)_k − s / V
        loss = Σ_i loss_i / n over the rows that count, so share_i = ∂L/∂loss_i = g / n, and 0 for the others;
        dlogits_ik = share_i · (exp(l_ik) / Z_i − w_ik): the code scales the row, then subtracts share_i · w_ik.
        Shifting row i by its maximum changes no loss_i, hence no gradient: the weighted l_ik and ln Z_i move alike.
    """
    if logits.ndim != 2 or targets.shape != logits.shape[:1]:
        raise ValueError(
            f"cross_entropy: got logits {logits.shape} and targets {targets.shape}, which must be (N, V) and (N,): "
            "reshape leading axes into one first"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'cross_entropy: got reduction {reduction!r}, which must be "mean", "sum" or "none"')
    rows, V = logits.shape
    counted, n = check_targets("cross_entropy", targets, V, ignore_index, label_smoothing)
    if reduction == "mean" and n == 0:
        raise ValueError(f"cross_entropy: the mean over no targets: all {rows} are ignore_index ({ignore_index})")
    at_target = np.arange(rows), np.where(counted, targets, 0)

    # The weighted sum of the logits, Σ_k w_ik l_ik, each shifted by its row's maximum.
    shifted = logits - np.max(logits.real, axis=-1, keepdims=True)
    weighted = shifted[at_target] * (1 - label_smoothing)
    if label_smoothing:  # 0 · −inf would be NaN where a logit is masked
        weighted += np.mean(shifted, axis=-1) * label_smoothing

    # loss_i = ln Σ_k exp l_ik − Σ_k w_ik l_ik
    exps = np.exp(shifted, out=shifted)
    total = np.sum(exps, axis=-1)
    losses = np.where(counted, np.log(total) - weighted, 0)
    y = losses if reduction == "none" else np.sum(losses) / (n if reduction == "mean" else 1)

    def vjp(g: Array) -> tuple[Array, None]:
        share = np.where(counted, g / n if reduction == "mean" else g, 0)
        # share · softmax, where the softmax is exps / total: dividing share first saves a pass over all logits.
        dlogits = exps * (share / total)[:, None]
        # − share · w
        if label_smoothing:
            dlogits -= (share * (label_smoothing / V))[:, None]
        dlogits[at_target] -= share * (1 - label_smoothing)
        return dlogits, None

    return y, vjp


def check_targets(name: str, targets: Array, V: int, ignore_index: int, label_smoothing: float) -> tuple[Array, int]:
    """Which targets count, and how many."""
    if targets.dtype.kind not in "iu":
        raise TypeError(f"{name}: got targets of {targets.dtype}, which must be integers")
    if not 0 <= label_smoothing <= 1:
        raise ValueError(f"{name}: got label_smoothing {label_smoothing}, which must lie in [0, 1]")
    counted = targets != ignore_index
    outside = counted & ((targets < 0) | (targets >= V))
    if outside.any():
        raise IndexError(
            f"{name}: got target {targets[outside][0]}, outside the vocabulary: targets must be 0 … {V - 1} "
            f"or ignore_index ({ignore_index})"
        )
    return counted, int(np.count_nonzero(counted))
