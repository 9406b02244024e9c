"""AdamW and gradient clipping. Both change parameters in place, so no step allocates anything lasting."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, TypedDict

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array


class Group(TypedDict):
    """Parameters that share their settings."""

    params: list[Tensor]
    lr: float
    weight_decay: float


class AdamW:
    """Adam with decoupled weight decay: each step, for each parameter p with gradient g,

        m ← β₁ m + (1 − β₁) g                    the mean gradient
        v ← β₂ v + (1 − β₂) g²                   its mean square
        p ← p (1 − lr · weight_decay)
        p ← p − lr · m̂ / (√v̂ + eps),   m̂ = m / (1 − β₁ᵗ),   v̂ = v / (1 − β₂ᵗ)

    Args:     params: Parameters, or dicts {"params": …, "lr": …, "weight_decay": …} for groups of their own.
              A parameter whose grad is None stays as it is, as in PyTorch.
    Raises:   ValueError: no parameters; a setting out of range.
    Source:   Loshchilov and Hutter 2019, arXiv:1711.05101; torch.optim.AdamW.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Sequence[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        if isinstance(params, Tensor):
            raise ValueError("AdamW: params must be a list of parameters, not one Tensor")
        groups: list[Any] = list(params)
        if not all(isinstance(group, dict) for group in groups):
            groups = [{"params": groups}]
        unknown = {key for group in groups for key in group} - {"params", "lr", "weight_decay"}
        if unknown:
            raise ValueError(f"AdamW: a group may set params, lr and weight_decay, not {', '.join(sorted(unknown))}")
        self.groups: list[Group] = [
            {
                "params": list(group["params"]),
                "lr": group.get("lr", lr),
                "weight_decay": group.get("weight_decay", weight_decay),
            }
            for group in groups
        ]
        everything = [p for group in self.groups for p in group["params"]]
        if not everything:
            raise ValueError("AdamW: there are no parameters to optimise")
        if not all(isinstance(p, Tensor) and p.is_leaf for p in everything):
            raise ValueError("AdamW: a parameter is a leaf Tensor; a computed one never receives a gradient")
        if len({id(p) for p in everything}) != len(everything):
            raise ValueError("AdamW: a parameter was given twice")
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas) or not eps >= 0:
            raise ValueError(f"AdamW: betas must lie in [0, 1) and eps be ≥ 0, not {betas} and {eps}")
        if not all(0 <= group["lr"] < math.inf and 0 <= group["weight_decay"] < math.inf for group in self.groups):
            raise ValueError("AdamW: lr and weight_decay must be finite and ≥ 0")
        self.betas, self.eps = betas, eps
        self._state: dict[int, tuple[Array, Array, list[int]]] = {}  # by id(p): m, v, [steps taken]

    def set_lr(self, lr: float) -> None:
        """The learning rate of every group, from the next step on."""
        for group in self.groups:
            group["lr"] = lr

    def zero_grad(self) -> None:
        for group in self.groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.groups:
            for p in group["params"]:
                if p.grad is not None:
                    self._update(p, p.grad, group["lr"], group["weight_decay"])

    def _update(self, p: Tensor, g: Array, lr: float, weight_decay: float) -> None:
        if id(p) not in self._state:
            self._state[id(p)] = np.zeros_like(p.data), np.zeros_like(p.data), [0]
        m, v, steps = self._state[id(p)]
        steps[0] += 1
        beta1, beta2 = self.betas
        m *= beta1
        m += (1 - beta1) * g
        v *= beta2
        scratch = g * g
        scratch *= 1 - beta2
        v += scratch
        # √v̂ + eps, then m̂ over it: the corrections are two numbers, so they cost no pass over memory.
        np.sqrt(v, out=scratch)
        scratch *= 1 / math.sqrt(1 - beta2 ** steps[0])
        scratch += self.eps
        np.divide(m, scratch, out=scratch)
        scratch *= lr / (1 - beta1 ** steps[0])
        p.data *= 1 - lr * weight_decay
        p.data -= scratch


def decay_groups(named_parameters: Iterable[tuple[str, Tensor]], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices, which decay, and vectors (biases, layer norms), which do not, as GPT-2 was trained."""
    parameters = [p for _, p in named_parameters]
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients by one factor so that their joint L2 norm is at most max_norm; return the norm before.

    Source:   Pascanu et al. 2013, arXiv:1211.5063; torch.nn.utils.clip_grad_norm_ (which adds 1e-6 below the line).
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be positive, not {max_norm}")
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = math.sqrt(sum(float(np.vdot(g, g).real) for g in grads))
    if norm > max_norm:
        for g in grads:
            g *= max_norm / (norm + 1e-6)
    return norm
