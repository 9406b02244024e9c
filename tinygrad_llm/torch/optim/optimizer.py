"""The optimizers of `torch.optim`: ours, with PyTorch's `param_groups` and form of a saved state."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tinygrad_llm import optim
from tinygrad_llm.autograd import enable_grad
from tinygrad_llm.torch.missing import NotOffered, refuse
from tinygrad_llm.torch.tensor import Tensor, array_of, constant, zero_grads

# Settings of PyTorch's that choose between forms of the same step; they are shown and saved, and change nothing.
_UNUSED = {
    "foreach": None,
    "capturable": False,
    "differentiable": False,
    "fused": None,
    "decoupled_weight_decay": False,
}
# PyTorch's names of the arrays that our optimizers keep.
_KEPT = {"m": "exp_avg", "v": "exp_avg_sq", "largest": "max_exp_avg_sq", "momentum": "momentum_buffer"}


class Optimizer:
    """One of our optimizers, in PyTorch's words.

    Attributes: param_groups: a list of dicts; "lr" and "weight_decay" may be changed between steps.
              ours: the `tinygrad_llm.optim.Optimizer` that does the work.
    """

    _kind: Callable[..., optim.Optimizer]

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError("params argument given to the optimizer should be an iterable of Tensors or dicts")
        given = list(params)
        if not given:
            raise ValueError("optimizer got an empty parameter list")
        groups = given if isinstance(given[0], Mapping) else [{"params": given}]
        self.defaults = defaults
        self.param_groups: list[dict[str, Any]] = []
        for group in groups:
            of_group = group["params"]
            named = [of_group] if isinstance(of_group, Tensor) else list(of_group)
            own = [p[1] if isinstance(p, tuple) else p for p in named]
            if unknown := group.keys() - {"params", *defaults}:
                raise NotOffered(f"{type(self).__name__}: a group's {', '.join(sorted(unknown))} is not offered here")
            self.param_groups.append({"params": own, **defaults, **{k: v for k, v in group.items() if k != "params"}})
        first = self.param_groups[0]
        changeable = {"params", "lr", "weight_decay"}
        self._fixed = {name: value for name, value in first.items() if name not in changeable}
        self.ours = type(self)._kind(
            [
                {
                    "params": [p.ours for p in group["params"]],
                    "lr": float(group["lr"]),
                    "weight_decay": float(group["weight_decay"]),
                }
                for group in self.param_groups
            ],
            **{name: value for name, value in self._fixed.items() if name not in _UNUSED},
        )
        self._take_over()

    def _take_over(self) -> None:
        """Give our optimizer what was set in the groups."""
        for group, own in zip(self.param_groups, self.ours.param_groups, strict=True):
            own["lr"], own["weight_decay"] = float(group["lr"]), float(group["weight_decay"])
            changed = [name for name, value in self._fixed.items() if group[name] != value]
            if changed:
                raise NotOffered(
                    f"{type(self).__name__}: {', '.join(changed)} is one for all groups and all steps here"
                )

    def zero_grad(self, set_to_none: bool = True) -> None:
        zero_grads(self._parameters(), set_to_none)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; `closure` computes the loss once before."""
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        self._take_over()
        self.ours.step()
        return loss

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Not offered: give all groups to the constructor."""
        raise NotOffered("add_param_group: give all groups to the constructor, as a list of dicts")

    # ---- state ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> dict[Tensor, dict[str, Tensor]]:
        """What is kept for each parameter that was updated."""
        found = self.state_dict()["state"]
        return {p: found[i] for i, p in enumerate(self._parameters()) if i in found}

    def state_dict(self) -> dict[str, Any]:
        """The state in PyTorch's form: {"state": {0: {"step": …}, …}, "param_groups": […]}."""
        state: dict[int, dict[str, Tensor]] = {}
        for name, array in self.ours.state_dict().items():
            number, _, key = name.partition(".")
            if key != "steps":
                state[int(number)][_KEPT[key]] = constant(array)
            elif array > 0:
                state[int(number)] = {"step": constant(np.asarray(array, np.float32))} if self._counts else {}
        groups, n = [], 0
        for group in self.param_groups:
            numbers = list(range(n, n := n + len(group["params"])))
            groups.append({**{k: v for k, v in group.items() if k != "params"}, "params": numbers})
        return {"state": state, "param_groups": groups}

    _counts = True  # whether the number of steps is part of PyTorch's state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over the state and the settings of another optimizer of the same parameters.

        Raises:   ValueError: it belongs to other groups or parameters.
        """
        groups = state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of optimizer's group"
            )
        ours: dict[str, Any] = {f"{i}.steps": np.array(0) for i in range(len(self._parameters()))}
        back = {theirs: key for key, theirs in _KEPT.items()}
        for number, entry in state_dict["state"].items():
            ours[f"{number}.steps"] = np.array(int(array_of(entry.get("step", 1))))
            ours |= {f"{number}.{back[key]}": array_of(x) for key, x in entry.items() if key in back}
        self.ours.load_state_dict(ours)
        for own, group in zip(self.param_groups, groups, strict=True):
            own |= {k: tuple(v) if isinstance(v, list) else v for k, v in group.items() if k in own and k != "params"}
        self._take_over()

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {name}: {group[name]}" for name in sorted(group.keys() - {"params"})]
        return "\n".join([*lines, ")"])


def _unused(name: str, options: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """PyTorch's choices between faster forms of the same step, with those that were given; others are refused."""
    refuse(name, **{key: value for key, value in options.items() if key not in names})
    return {key: options.get(key, _UNUSED[key]) for key in names}


class SGD(Optimizer):
    """See `tinygrad_llm.optim.SGD`."""

    _kind = optim.SGD
    _counts = False

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: float = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        **options: Any,
    ) -> None:
        unused = _unused("SGD", options, "foreach", "differentiable", "fused")
        settings = {"lr": lr, "momentum": momentum, "dampening": dampening, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "nesterov": nesterov, "maximize": maximize, **unused})


class Adam(Optimizer):
    """See `tinygrad_llm.optim.Adam`."""

    _kind: Callable[..., optim.Optimizer] = optim.Adam

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        **options: Any,
    ) -> None:
        unused = _unused(type(self).__name__, options, "foreach", "capturable", "differentiable", "fused")
        unused["decoupled_weight_decay"] = type(self)._kind is optim.AdamW
        settings = {"lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, {**settings, "amsgrad": amsgrad, "maximize": maximize, **unused})


class AdamW(Adam):
    """See `tinygrad_llm.optim.AdamW`."""

    _kind = optim.AdamW

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, **options)
