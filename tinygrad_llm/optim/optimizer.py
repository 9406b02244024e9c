"""SGD, Adam and AdamW. All update parameters in place; the state is allocated at a parameter's first update.

`Optimizer` holds what they share: groups of parameters, the step over them, and a state that can be saved. A subclass
is its formula, in `_update`. `Together` makes one optimizer of several (`muon.py` has one more).
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypedDict

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.autograd.node import changed
from tinygrad_llm.kernels import Array
from tinygrad_llm.kernels.contract import Map
from tinygrad_llm.optim.axpby import axpby
from tinygrad_llm.optim.jobs import JOB, SMALL, jobs, stretches

Named: TypeAlias = tuple[str, Tensor]


class Group(TypedDict):
    """Parameters that share their settings."""

    params: list[Tensor]
    lr: float
    weight_decay: float


@dataclass
class _State:
    steps: int  # updates of this parameter so far
    arrays: list[Array]


class _Piece(NamedTuple):
    update: Callable[..., None]  # the formula with this step's settings
    arrays: tuple[Any, ...]  # parameter, gradient and what is kept: a stretch of each, or all of it
    size: int  # numbers that it counts as when jobs are formed


class Optimizer:
    """The base of all optimizers: groups of parameters, one update of each at a step, and a state that can be saved.

    A subclass names the arrays it keeps for each parameter in `keeps`, and writes its formula in `_update`. A formula
    that needs all of a parameter at once, and not a stretch of its numbers, sets `whole`.

    Args:     params: Parameters, or (name, Parameter) pairs, or dicts {"params": …, "lr": …, "weight_decay": …}, one
              for each group with settings of its own. A saved state uses the names; without names it counts the
              parameters from 0. A parameter whose grad is None is not updated.
              lr, weight_decay: of the groups that set none.
    Raises:   ValueError: there are no parameters; one is given twice, or is computed; a setting is out of range.
    Source:   torch.optim.Optimizer.
    """

    keeps: tuple[str, ...] = ()
    maximize = False
    whole = False

    def __init__(
        self, params: Iterable[Tensor | Named] | Sequence[dict[str, Any]], lr: float, weight_decay: float
    ) -> None:
        if isinstance(params, Tensor | dict):
            raise self._error(f"params must be a list of parameters, got one {type(params).__name__}: write [params]")
        if not isinstance(params, Iterable):
            got = type(params).__name__
            raise self._error(
                f"params must be a list of parameters, got one {got}: of a model, write model.parameters()"
            )
        groups: list[Any] = list(params)
        if not all(isinstance(group, dict) for group in groups):
            groups = [{"params": groups}]
        if unknown := {key for group in groups for key in group} - {"params", "lr", "weight_decay"}:
            raise self._error(f"a group may set params, lr and weight_decay, got {', '.join(sorted(unknown))}")
        if not all("params" in group and not isinstance(group["params"], Tensor) for group in groups):
            raise self._error('a group must be a dict {"params": [a list of parameters], …}')
        # A group's params may be a generator, which can be read only once.
        entries = [list(group["params"]) for group in groups]
        self._named = self._names([entry for group in entries for entry in group])
        self.param_groups: list[Group] = [
            {
                "params": [entry[1] if isinstance(entry, tuple) else entry for entry in group_entries],
                "lr": group.get("lr", lr),
                "weight_decay": group.get("weight_decay", weight_decay),
            }
            for group, group_entries in zip(groups, entries, strict=True)
        ]
        for group in self.param_groups:
            for name, value in (("lr", group["lr"]), ("weight_decay", group["weight_decay"])):
                if not _is_rate(value):
                    raise self._error(f"{name} must be finite and ≥ 0, got {value!r}")
        names = iter(self._named)  # _group_of and _state are by name
        self._group_of = {next(names): group for group in self.param_groups for _ in group["params"]}
        self._state: dict[str, _State] = {}

    def _names(self, entries: list[Any]) -> dict[str, Tensor]:
        """The parameters by name, in their order, once they are known to be proper parameters."""
        pairs = [entry for entry in entries if isinstance(entry, tuple)]
        if pairs and len(pairs) != len(entries):
            raise self._error("give all parameters a name, or none")
        named = pairs or [(str(i), p) for i, p in enumerate(entries)]
        if not named:
            raise self._error("there are no parameters to optimize")
        if not all(len(pair) == 2 and isinstance(pair[1], Tensor) and pair[1].is_leaf for pair in named):
            raise self._error("a parameter must be a leaf Tensor, since a computed one never receives a gradient")
        if len({id(p) for _, p in named}) != len(named):
            raise self._error("a parameter was given twice")
        if len(dict(named)) != len(named):
            raise self._error("two parameters have one name")
        return dict(named)

    def _error(self, reason: str) -> ValueError:
        return ValueError(f"{type(self).__name__}: {reason}")

    def __repr__(self) -> str:
        """One line for each group: the number of its tensors, the number of their elements, and its settings."""
        return "\n".join(
            f"{type(self).__name__}: {len(group['params'])} tensors, "
            f"{sum(p.numel() for p in group['params']):,} numbers, "
            f"lr {group['lr']:g}, weight decay {group['weight_decay']:g}"
            for group in self.param_groups
        )

    def set_lr(self, lr: float) -> None:
        """Set the learning rate of every group, from the next step on.

        Raises:   ValueError: lr is negative, infinite or NaN.
        """
        if not _is_rate(lr):
            raise self._error(f"lr must be finite and ≥ 0, got {lr!r}")
        for group in self.param_groups:
            group["lr"] = lr

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to None."""
        for p in self._named.values():
            p.grad = None

    def step(self, grad_scale: float = 1.0, map: Map = map) -> None:
        """Update every parameter that has a gradient.

        Args:     grad_scale: every gradient is multiplied by it in the same pass; `.grad` keeps its values. With
                  `clip_scale`, clipping costs nothing.
                  map: applies the update to the jobs, which share no memory. The map of a ThreadPoolExecutor gives
                  them to its threads, and the result is the same bit for bit.
        Raises:   ValueError: a gradient does not have the shape of its parameter; then nothing is updated.
        """
        given = [(name, p.data, g) for name, p in self._named.items() if (g := p.grad) is not None]
        for name, p, g in given:
            if g.shape != p.shape:
                raise self._error(f"{name} has shape {p.shape}, but its gradient has {g.shape}")
        pieces: list[_Piece] = []
        small: dict[Any, list[tuple[Array, ...]]] = {}  # with equal settings, so that one update serves them all
        for name, p, g in given:
            rule = self._rule(name)
            if name not in self._state:
                self._state[name] = _State(0, [np.zeros_like(p) for _ in rule.keeps])
            state, group = self._state[name], self._group_of[name]
            state.steps += 1
            changed(p)
            settings = state.steps, group["lr"], group["weight_decay"], -grad_scale if rule.maximize else grad_scale
            arrays = (p, g, *state.arrays)
            if rule.whole:
                pieces.append(_Piece(partial(rule._update, *settings), arrays, max(JOB, p.size)))  # a job by itself
            elif p.size <= SMALL:
                small.setdefault((rule, settings, p.dtype, g.dtype), []).append(arrays)
            else:
                update = partial(rule._update, *settings)
                pieces += [_Piece(update, some, some[0].size) for some in stretches(*arrays)]
        for (rule, settings, _, _), members in small.items():
            update = partial(_update_together, partial(rule._update, *settings))
            pieces.append(_Piece(update, tuple(members), sum(p.size for p, *_ in members)))

        def job(pieces: list[_Piece]) -> None:
            for update, arrays, _ in pieces:
                update(*arrays)

        for _ in map(job, jobs(pieces, lambda piece: piece.size)):
            pass

    def _rule(self, name: str) -> "Optimizer":
        """The optimizer whose formula updates this parameter."""
        return self

    def _update(
        self, t: int, lr: float, weight_decay: float, scale: float, p: Array, g: Array, /, *arrays: Array
    ) -> None:
        """Update one stretch of a parameter, and of the arrays kept for it, in place.

        Args:     t: 1 at the parameter's first update, then 2, 3, …. scale · g is the gradient.
                  p, g, arrays: of one shape; g is not written to.
        """
        raise NotImplementedError

    def state_dict(self) -> dict[str, Array]:
        """The state that the next step depends on, besides parameters, gradients and settings.

        Returns:  {"0.steps": …, "0.m": …, "0.v": …, "1.steps": …}, with the parameter's name in place of its number,
                  where names were given. steps: int64 of shape (), the parameter's number of updates. The arrays of
                  `keeps` exist from its first update on; they are the optimizer's own, and its next step changes them.
        """
        state = {}
        for name in self._named:
            own = self._state.get(name, _State(0, []))
            state[f"{name}.steps"] = np.array(own.steps)
            state |= {f"{name}.{key}": array for key, array in zip(self._rule(name).keeps, own.arrays, strict=False)}
        return state

    def load_state_dict(self, state: Mapping[str, Array]) -> None:
        """Copy the state of another optimizer of the same parameters; all of it, or nothing.

        The steps that follow are the ones that would have followed there, bit for bit. Settings are not part of it.

        Raises:   ValueError: one message lists every name that is missing or unexpected, or has a wrong shape, dtype
                  or value.
        """
        wrong, loaded, expected = [], {}, set()
        for name, p in self._named.items():
            steps = np.asarray(state.get(f"{name}.steps", 0))
            if steps.shape != () or steps.dtype.kind not in "iu" or steps < 0:
                wrong.append(f"{name}.steps must be one integer ≥ 0")
                steps = np.array(1)  # so that its arrays are checked, too
            keys = [f"{name}.{key}" for key in self._rule(name).keeps] if steps else []
            expected |= {f"{name}.steps", *keys}
            wrong += [f"missing {key}" for key in [f"{name}.steps", *keys] if key not in state]
            arrays = {key: np.asarray(state[key]) for key in keys if key in state}
            wrong += [
                f"{key} is {array.dtype} {array.shape}, but the parameter is {p.dtype} {p.shape}"
                for key, array in arrays.items()
                if (array.dtype, array.shape) != (p.dtype, p.shape)
            ]
            if steps:
                loaded[name] = int(steps), p, list(arrays.values())
        wrong += [f"unexpected {key}" for key in state if key not in expected]
        if wrong:
            raise self._error("the state does not fit the parameters: " + "; ".join(wrong))
        self._state = {
            name: _State(steps, [_like(p.data, a) for a in arrays]) for name, (steps, p, arrays) in loaded.items()
        }


def _update_together(update: Callable[..., None], *members: tuple[Array, ...]) -> None:
    """Update small parameters as one: a call of NumPy on each of them costs more than its few numbers.

    Args:     members: of each parameter, itself, its gradient and what is kept for it.
    """
    joined = [np.concatenate([array.reshape(-1) for array in arrays]) for arrays in zip(*members, strict=True)]
    update(*joined)
    del joined[1]  # the gradient
    start = 0
    for p, _, *kept in members:
        stop = start + p.size
        for array, new in zip((p, *kept), joined, strict=True):
            array[...] = new[start:stop].reshape(array.shape)
        start = stop


def _is_rate(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and bool(0 <= value < math.inf)


def _like(p: Array, values: Array) -> Array:
    """A copy of the values with the memory layout of p, so that both are cut into the same stretches."""
    copy = np.empty_like(p)
    copy[...] = values
    return copy


class Together(Optimizer):
    """Several optimizers that step as one: each updates its own parameters by its own formula.

    Args:     optimizers: new ones, of named parameters. From then on only this one may step.
    Raises:   ValueError: there are none; a parameter or a name belongs to two of them.
    """

    def __init__(self, *optimizers: Optimizer) -> None:
        self._rules = {name: one for one in optimizers for name in one._named}
        self.whole = any(one.whole for one in optimizers)
        self._named = self._names([pair for one in optimizers for pair in one._named.items()])
        self.param_groups = [group for one in optimizers for group in one.param_groups]
        self._group_of = {name: group for one in optimizers for name, group in one._group_of.items()}
        self._state = {}

    def _rule(self, name: str) -> Optimizer:
        return self._rules[name]

    def __repr__(self) -> str:
        return "\n".join(dict.fromkeys(map(repr, self._rules.values())))


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and weight decay.

    Each step, for each parameter p with gradient g,

        g ← g + weight_decay · p
        b ← momentum · b + (1 − dampening) g     (b ← g at the first step)
        p ← p − lr · b                           (with nesterov: p ← p − lr · (g + momentum · b))

    Args:     params: as for `Optimizer`. momentum: in [0, 1); with 0, b is g, and no array is kept.
              dampening: in [0, 1]. nesterov: needs momentum above 0 and dampening 0. maximize: −g in place of g.
    Raises:   ValueError: as for `Optimizer`; a setting is out of its range.
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
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.maximize = maximize
        if not (0 <= momentum < 1 and 0 <= dampening <= 1):
            raise self._error(f"momentum must be in [0, 1) and dampening in [0, 1], got {momentum} and {dampening}")
        if nesterov and (momentum == 0 or dampening != 0):
            raise self._error(f"nesterov needs momentum > 0 and dampening 0, got {momentum} and {dampening}")
        self.momentum, self.dampening, self.nesterov = momentum, dampening, nesterov
        self.keeps = ("momentum",) if momentum else ()

    def _update(
        self, t: int, lr: float, weight_decay: float, scale: float, p: Array, g: Array, /, *arrays: Array
    ) -> None:
        if scale != 1:
            g = scale * g
        if weight_decay:
            g = g + weight_decay * p
        for b in arrays:  # one array, or none without momentum
            if t == 1:
                b[...] = g
            else:
                b *= self.momentum  # b ← momentum · b + (1 − dampening) g
                b += (1 - self.dampening) * g
            g = g + self.momentum * b if self.nesterov else b
        p -= lr * g


class Adam(Optimizer):
    """Adam: a step divides the mean gradient of each weight by the root of its mean square.

    Each step, for each parameter p with gradient g,

        g ← g + weight_decay · p                 the gradient of an L2 penalty
        m ← β₁ m + (1 − β₁) g                    the mean gradient
        v ← β₂ v + (1 − β₂) g²                   its mean square
        p ← p − lr · m̂ / (√v̂ + eps),   m̂ = m / (1 − β₁ᵗ),   v̂ = v / (1 − β₂ᵗ)

    Args:     params: as for `Optimizer`. betas: β₁ and β₂, in [0, 1). eps: ≥ 0; keeps the step finite where g is 0.
              amsgrad: the largest v so far takes the place of v in v̂. maximize: −g in place of g.
    Raises:   ValueError: as for `Optimizer`; a setting is out of its range.
    Source:   Kingma and Ba 2015, arXiv:1412.6980; torch.optim.Adam.
    """

    keeps: tuple[str, ...] = ("m", "v")
    decoupled = False  # False: weight decay enters the gradient. True: it shrinks p itself.

    def __init__(
        self,
        params: Iterable[Tensor | Named] | Sequence[dict[str, Any]],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, weight_decay)
        self.maximize = maximize
        if amsgrad:
            self.keeps = ("m", "v", "largest")
        if (
            not isinstance(betas, tuple | list)
            or len(betas) != 2
            or not all(0 <= beta < 1 for beta in betas)
            or not 0 <= eps < math.inf
        ):
            raise self._error(f"betas must be two numbers in [0, 1) and eps ≥ 0, got {betas} and {eps}")
        self.betas, self.eps = betas, eps

    def _update(
        self, t: int, lr: float, weight_decay: float, scale: float, p: Array, g: Array, /, *arrays: Array
    ) -> None:
        m, v, *largest = arrays
        beta1, beta2 = self.betas
        if weight_decay and not self.decoupled:
            g, scale = scale * g + weight_decay * p, 1.0
        # Clipping's scale is a part of the factor, since a pass of its own would cost as much. The gradient is scaled
        # before it is squared, because float32 has no room for the square of 1e20.
        share = math.sqrt(1 - beta2)
        scratch = g * (scale * share)
        axpby((1 - beta1) / share, scratch, beta1, m)  # m ← β₁ m + (1 − β₁) g
        np.multiply(scratch, scratch, out=scratch)
        axpby(1.0, scratch, beta2, v)  # v ← β₂ v + (1 − β₂) g²
        # With root = √(1 − β₂ᵗ):  lr · m̂ / (√v̂ + eps) = lr · root / (1 − β₁ᵗ) · m / (√v + eps · root).
        # So the corrections of m̂ and v̂ are two numbers; applied to arrays, each would cost a pass over memory.
        root = math.sqrt(1 - beta2**t)
        for top in largest:  # with amsgrad
            v = np.maximum(top, v, out=top)
        np.sqrt(v, out=scratch)
        scratch += self.eps * root
        np.divide(m, scratch, out=scratch)
        decay = lr * weight_decay if self.decoupled else 0.0
        axpby(-lr * root / (1 - beta1**t), scratch, 1 - decay, p)


class AdamW(Adam):
    """Adam with decoupled weight decay, which shrinks the weights and leaves the gradient as it is.

    Each step begins with

        p ← p (1 − lr · weight_decay)

    so that a weight decays at the same rate, however large its gradients are.

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
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


def decay_groups(named_parameters: Iterable[Named], weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for an optimizer: matrices, which decay, and vectors (biases, layer norms), which do not.

    Args:     named_parameters: (name, Parameter) pairs, as `Module.named_parameters` yields them.
    Returns:  [{"params": [matrices], "weight_decay": weight_decay}, {"params": [vectors], "weight_decay": 0.0}].
    Source:   github.com/karpathy/nanoGPT (configure_optimizers), which splits by the number of axes, too.
    """
    named = list(named_parameters)
    return [
        {"params": [(name, p) for name, p in named if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [(name, p) for name, p in named if p.ndim < 2], "weight_decay": 0.0},
    ]
