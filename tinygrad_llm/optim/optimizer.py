"""SGD, Adam, AdamW and gradient clipping. All change parameters in place, so no step allocates anything lasting."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias, TypedDict, TypeVar

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import Array

Named: TypeAlias = tuple[str, Tensor]

# An update passes over its arrays about ten times. Stretches that stay in the cache from one pass to the next make it
# as fast as one pass over memory; shorter ones, and threads would spend their time waiting for one another.
STRETCH = 1 << 17
TASK = 1 << 20  # numbers that are worth a thread's attention

_T = TypeVar("_T")
Map: TypeAlias = Callable[[Callable[[Any], Any], Iterable[Any]], Iterable[Any]]


class Group(TypedDict):
    """Parameters that share their settings."""

    params: list[Tensor]
    lr: float
    weight_decay: float


@dataclass
class _State:
    steps: int  # updates of this parameter so far
    arrays: list[Array]


class Optimizer:
    """What all optimizers share: groups of parameters, their gradients, and a state that can be saved.

    A subclass names the arrays it keeps for each parameter in `keeps`, and writes its formula in `_update`.

    Args:     params: Parameters, or (name, Parameter) pairs, or dicts {"params": …, "lr": …, "weight_decay": …} for
              groups of their own. Names make a saved state readable; without them, parameters are counted from 0.
              A parameter whose grad is None stays as it is, as in PyTorch.
    Raises:   ValueError: no parameters, or one twice; one that is computed; a setting out of range.
    """

    keeps: tuple[str, ...] = ()

    def __init__(
        self, params: Iterable[Tensor | Named] | Sequence[dict[str, Any]], lr: float, weight_decay: float
    ) -> None:
        self._kind = type(self).__name__
        if isinstance(params, Tensor | dict):
            raise ValueError(f"{self._kind}: params must be a list of parameters, not one {type(params).__name__}")
        groups: list[Any] = list(params)
        if not all(isinstance(group, dict) for group in groups):
            groups = [{"params": groups}]
        keys = {key for group in groups for key in group}
        if unknown := keys - {"params", "lr", "weight_decay"}:
            raise self._refusal(f"a group may set params, lr and weight_decay, not {', '.join(sorted(unknown))}")
        if not all("params" in group and not isinstance(group["params"], Tensor) for group in groups):
            raise self._refusal('a group is a dict {"params": [a list of parameters], …}')
        # The iterables of the groups may be generators: each is read once.
        entries = [list(group["params"]) for group in groups]
        self._named = self._names([entry for group in entries for entry in group])
        self.groups: list[Group] = [
            {
                "params": [entry[1] if isinstance(entry, tuple) else entry for entry in group_entries],
                "lr": group.get("lr", lr),
                "weight_decay": group.get("weight_decay", weight_decay),
            }
            for group, group_entries in zip(groups, entries, strict=True)
        ]
        if not all(0 <= group["lr"] < math.inf and 0 <= group["weight_decay"] < math.inf for group in self.groups):
            raise self._refusal("lr and weight_decay must be finite and ≥ 0")
        self._state: dict[int, _State] = {}  # by id(p)

    def _names(self, entries: list[Any]) -> dict[str, Tensor]:
        pairs = [entry for entry in entries if isinstance(entry, tuple)]
        if pairs and len(pairs) != len(entries):
            raise self._refusal("give all parameters a name, or none")
        named = pairs or [(str(i), p) for i, p in enumerate(entries)]
        if not named:
            raise self._refusal("there are no parameters to optimise")
        if not all(len(pair) == 2 and isinstance(pair[1], Tensor) and pair[1].is_leaf for pair in named):
            raise self._refusal("a parameter is a leaf Tensor; a computed one never receives a gradient")
        if len({id(p) for _, p in named}) != len(named):
            raise self._refusal("a parameter was given twice")
        if len(dict(named)) != len(named):
            raise self._refusal("two parameters have one name")
        return dict(named)

    def _refusal(self, reason: str) -> ValueError:
        return ValueError(f"{self._kind}: {reason}")

    def __str__(self) -> str:
        """The groups, a line each: how many tensors and numbers, and their settings."""
        return "\n".join(
            f"{self._kind}: {len(group['params'])} tensors, {sum(p.numel() for p in group['params']):,} numbers, "
            f"lr {group['lr']:g}, weight decay {group['weight_decay']:g}"
            for group in self.groups
        )

    def set_lr(self, lr: float) -> None:
        """The learning rate of every group, from the next step on."""
        if not 0 <= lr < math.inf:
            raise self._refusal(f"lr must be finite and ≥ 0, not {lr}")
        for group in self.groups:
            group["lr"] = lr

    def zero_grad(self) -> None:
        for group in self.groups:
            for p in group["params"]:
                p.grad = None

    def step(self, grad_scale: float = 1.0, map: Map = map) -> None:
        """One update of every parameter that has a gradient.

        Args:     grad_scale: every gradient is multiplied by it first (and kept as it is): clipping in the same pass.
                  map: what goes through the tasks, which do not touch each other; that of a ThreadPoolExecutor shares
                  them out to its threads, and the result is the same.
        Raises:   ValueError: a gradient has not the shape of its parameter; nothing is updated then.
        """
        for name, p in self._named.items():
            if p.grad is not None and p.grad.shape != p.shape:
                raise self._refusal(f"{name} has shape {p.shape}, its gradient {p.grad.shape}")
        updates = []
        for group in self.groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if id(p) not in self._state:
                    self._state[id(p)] = _State(0, [np.zeros_like(p.data) for _ in self.keeps])
                state = self._state[id(p)]
                state.steps += 1
                update = partial(self._update, state.steps, group["lr"], group["weight_decay"])
                updates += [(update, arrays) for arrays in _stretches(p.data, p.grad, *state.arrays)]

        def task(updates: list[tuple[Callable[..., None], tuple[Array, ...]]]) -> None:
            for update, (p, g, *arrays) in updates:
                update(p, g if grad_scale == 1.0 else g * grad_scale, *arrays)

        for _ in map(task, tasks(updates, lambda entry: entry[1][0].size)):
            pass

    def _update(self, t: int, lr: float, weight_decay: float, p: Array, g: Array, /, *arrays: Array) -> None:
        """The t-th update (1, 2, …) of a stretch of one parameter and of the arrays kept for it, in place."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Array]:
        """What a next step depends on beside parameters, gradients and settings: for each parameter its number of
        steps, and after the first the arrays of `keeps`, as {"0.steps": …, "0.m": …} (the name for 0, where given).

        The arrays are the optimizer's own, which its next step changes; the steps are int64 of shape ().
        """
        state = {}
        for name, p in self._named.items():
            own = self._state.get(id(p), _State(0, []))
            state[f"{name}.steps"] = np.array(own.steps)
            state |= {f"{name}.{key}": array for key, array in zip(self.keeps, own.arrays, strict=False)}
        return state

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy what `state_dict` gave into an optimizer of the same parameters; all of it, or nothing.

        The steps that follow are those that would have followed there, bit for bit. Settings are not part of it.

        Raises:   ValueError: one message lists every missing, unexpected, misshapen or otherwise wrong name.
        """
        wrong, loaded, expected = [], {}, set()
        for name, p in self._named.items():
            steps = np.asarray(state.get(f"{name}.steps", 0))
            if steps.shape != () or steps.dtype.kind not in "iu" or steps < 0:
                wrong.append(f"{name}.steps is no number of steps")
                steps = np.array(1)  # so that its arrays are looked at
            keys = [f"{name}.{key}" for key in self.keeps] if steps else []
            expected |= {f"{name}.steps", *keys}
            wrong += [f"missing {key}" for key in [f"{name}.steps", *keys] if key not in state]
            arrays = {key: np.asarray(state[key]) for key in keys if key in state}
            wrong += [
                f"{key} is {array.dtype} {array.shape}, the parameter {p.dtype} {p.shape}"
                for key, array in arrays.items()
                if (array.dtype, array.shape) != (p.dtype, p.shape)
            ]
            if steps:
                loaded[id(p)] = int(steps), p, list(arrays.values())
        wrong += [f"unexpected {key}" for key in state if key not in expected]
        if wrong:
            raise self._refusal("the state does not fit the parameters: " + "; ".join(wrong))
        self._state = {i: _State(steps, [_like(p.data, a) for a in arrays]) for i, (steps, p, arrays) in loaded.items()}


def _like(p: Array, values: Array) -> Array:
    """A copy of the values that lies in memory as p does: whatever it was read from."""
    copy = np.empty_like(p)
    copy[...] = values
    return copy


def _stretches(*arrays: Array, length: int = STRETCH) -> Iterator[tuple[Array, ...]]:
    """The same stretch of each array, one after another: flat views, where all lie in memory in the same order."""
    if not (all(a.flags.c_contiguous for a in arrays) or all(a.flags.f_contiguous for a in arrays)):
        yield arrays
        return
    flat = [a.reshape(-1, order="A") for a in arrays]
    for start in range(0, flat[0].size, length):
        yield tuple(a[start : start + length] for a in flat)


def tasks(entries: Iterable[_T], size: Callable[[_T], int]) -> Iterator[list[_T]]:
    """The entries in order, in lists of about TASK numbers: few enough for a thread to take one at a time."""
    some: list[_T] = []
    total = 0
    for entry in entries:
        some.append(entry)
        total += size(entry)
        if total >= TASK:
            yield some
            some, total = [], 0
    if some:
        yield some


class SGD(Optimizer):
    """Stochastic gradient descent: each step, for each parameter p with gradient g,

        g ← g + weight_decay · p
        b ← momentum · b + (1 − dampening) g     (b ← g at the first step)
        p ← p − lr · b                           (with nesterov: p ← p − lr · (g + momentum · b))

    Args:     params: as for `Optimizer`. momentum: in [0, 1), and 0 keeps no b.
    Raises:   ValueError: as `Optimizer`; nesterov without momentum or with dampening.
    Source:   Polyak 1964; Sutskever et al. 2013, ICML (Nesterov's form); torch.optim.SGD.
    """

    def __init__(
        self,
        params: Iterable[Tensor | Named] | Sequence[dict[str, Any]],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        if not (0 <= momentum < 1 and 0 <= dampening <= 1):
            raise self._refusal(f"momentum must lie in [0, 1) and dampening in [0, 1], not {momentum} and {dampening}")
        if nesterov and (momentum == 0 or dampening != 0):
            raise self._refusal(f"nesterov needs momentum > 0 and dampening 0, not {momentum} and {dampening}")
        self.momentum, self.dampening, self.nesterov = momentum, dampening, nesterov
        self.keeps = ("momentum",) if momentum else ()

    def _update(self, t: int, lr: float, weight_decay: float, p: Array, g: Array, /, *arrays: Array) -> None:
        if weight_decay:
            g = g + weight_decay * p
        for b in arrays:  # one, or none without momentum
            if t == 1:
                b[...] = g
            else:
                b *= self.momentum
                b += (1 - self.dampening) * g
            g = g + self.momentum * b if self.nesterov else b
        p -= lr * g


class Adam(Optimizer):
    """Adam: each step, for each parameter p with gradient g,

        g ← g + weight_decay · p                 the gradient of an L2 penalty
        m ← β₁ m + (1 − β₁) g                    the mean gradient
        v ← β₂ v + (1 − β₂) g²                   its mean square
        p ← p − lr · m̂ / (√v̂ + eps),   m̂ = m / (1 − β₁ᵗ),   v̂ = v / (1 − β₂ᵗ)

    Args:     params: as for `Optimizer`. betas: β₁ and β₂.
    Raises:   ValueError: as `Optimizer`; betas outside [0, 1), eps below 0.
    Source:   Kingma and Ba 2015, arXiv:1412.6980; torch.optim.Adam.
    """

    keeps = ("m", "v")
    decoupled = False  # whether weight decay shrinks p itself, or enters the gradient

    def __init__(
        self,
        params: Iterable[Tensor | Named] | Sequence[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas) or not 0 <= eps < math.inf:
            raise self._refusal(f"betas must lie in [0, 1) and eps be ≥ 0, not {betas} and {eps}")
        self.betas, self.eps = betas, eps

    def _update(self, t: int, lr: float, weight_decay: float, p: Array, g: Array, /, *arrays: Array) -> None:
        m, v = arrays
        beta1, beta2 = self.betas
        if weight_decay and not self.decoupled:
            g = g + weight_decay * p
        m *= beta1
        scratch = (1 - beta1) * g
        m += scratch
        v *= beta2
        np.multiply(g, g, out=scratch)
        scratch *= 1 - beta2
        v += scratch
        # m̂ / (√v̂ + eps) with the corrections in two numbers, since in arrays each would cost a pass: root is that of v̂.
        root = math.sqrt(1 - beta2**t)
        np.sqrt(v, out=scratch)
        scratch += self.eps * root
        np.divide(m, scratch, out=scratch)
        scratch *= lr * root / (1 - beta1**t)
        if weight_decay and self.decoupled:
            p *= 1 - lr * weight_decay
        p -= scratch


class AdamW(Adam):
    """Adam with decoupled weight decay: g stays as it is, and each step begins with

        p ← p (1 − lr · weight_decay)

    so that a weight decays at the same rate whatever the size of its gradients.

    Args:     as for `Adam`.
    Raises:   ValueError: as for `Adam`.
    Source:   Loshchilov and Hutter 2019, arXiv:1711.05101; torch.optim.AdamW.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Tensor | Named] | Sequence[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)


def decay_groups(named_parameters: Iterable[Named], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices, which decay, and vectors (biases, layer norms), which do not, as GPT-2 was trained."""
    named = list(named_parameters)
    return [
        {"params": [(name, p) for name, p in named if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [(name, p) for name, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]


def clip_grad_norm_(parameters: Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients by one factor so that their joint L2 norm is at most max_norm; return the norm before.

    A norm that is NaN or infinite is returned, and the gradients are left as they are, for the caller to see which of
    them is to blame.

    Raises:   ValueError: max_norm is not positive.
    Source:   Pascanu et al. 2013, arXiv:1211.5063; torch.nn.utils.clip_grad_norm_ (which adds 1e-6 below the line).
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    norm = grad_norm(grads)
    scale = clip_scale(norm, max_norm)
    if scale != 1.0:
        for g in grads:
            g *= scale
    return norm


def clip_scale(norm: float, max_norm: float) -> float:
    """What gradients of this joint norm are multiplied by so that it is at most max_norm (1 where norm is no number).

    Raises:   ValueError: max_norm is not positive.
    """
    if not max_norm > 0:
        raise ValueError(f"clip_grad_norm_: max_norm must be positive, not {max_norm}")
    return max_norm / (norm + 1e-6) if max_norm < norm < math.inf else 1.0


def grad_norm(grads: Iterable[Array], map: Map = map) -> float:
    """The joint L2 norm of the gradients, to float32's precision; map: see `Optimizer.step`."""
    parts = (part for g in grads for (part,) in _stretches(g, length=TASK))

    def task(parts: list[Array]) -> float:
        with np.errstate(over="ignore", under="ignore"):  # such sums are made again
            return math.fsum(_sum_of_squares(part) for part in parts)

    return math.sqrt(math.fsum(map(task, tasks(parts, np.size))))


def _sum_of_squares(part: Array) -> float:
    # By rows in the part's own dtype, their sums in float64: float32's own sum of ten million squares would be wrong in
    # the fourth digit. Short rows: BLAS starts threads for long ones, which costs more than it saves.
    flat = np.ascontiguousarray(part).reshape(-1)
    cut = flat.size // 8192 * 8192
    total = float(np.vdot(flat[cut:], flat[cut:]).real)
    if cut:
        rows = flat[:cut].reshape(-1, 8192)
        total += float(np.sum(np.vecdot(rows, rows).real, dtype=np.float64))
    if 1e-30 < total < math.inf or not np.all(np.isfinite(flat)):
        return total
    wide = flat.astype(np.result_type(flat, np.float64))  # float32 has no room for the squares of 1e20, or of 1e-23
    return float(np.vdot(wide, wide).real)
