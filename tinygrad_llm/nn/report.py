"""A report of the parameters that learned in a step and those that did not, for a loss that does not fall."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tinygrad_llm.kernels import Array
from tinygrad_llm.nn.module import Module


@dataclass(frozen=True)
class LearningReport:
    """The names of the parameters that did not learn in a step, by cause; a name may be in several lists.

    `checked` lists all parameters, and `frozen` those that do not require a gradient.
    """

    checked: tuple[str, ...]
    frozen: tuple[str, ...]
    no_gradient: tuple[str, ...]
    zero_gradient: tuple[str, ...]
    nonfinite_gradient: tuple[str, ...]
    nonfinite_value: tuple[str, ...]
    unmoved: tuple[str, ...]

    @property
    def all_well(self) -> bool:
        """Whether every parameter is finite, moved, and has a finite gradient that is not all zeros."""
        bad = self.no_gradient, self.zero_gradient, self.nonfinite_gradient, self.nonfinite_value, self.unmoved
        return not any(bad)

    def __str__(self) -> str:
        n = len(self.checked)
        if self.all_well:
            return f"All {n} parameters learned: each is finite, moved, and has a gradient that is not all zeros."
        lines = [f"  {name}: {'; '.join(found)}" for name in self.checked if (found := self._findings(name))]
        lines.insert(0, f"{len(lines)} of {n} parameters did not learn as they should:")
        return "\n".join(lines)

    def _findings(self, name: str) -> list[str]:
        findings = []
        if name in self.no_gradient:
            why = "it is frozen" if name in self.frozen else "the loss does not use it, or backward did not run"
            findings.append(f"no gradient ({why})")
        if name in self.zero_gradient:
            findings.append("its gradient is all zeros (the loss does not depend on it at these inputs)")
        if name in self.nonfinite_gradient:
            findings.append("its gradient is NaN or infinite (see detect_anomaly)")
        if name in self.nonfinite_value:
            findings.append("it is NaN or infinite after the step")
        if name in self.unmoved:
            at_fault = name in self.no_gradient or name in self.zero_gradient
            findings.append("did not move" + ("" if at_fault else " (does the optimizer have it? is lr 0?)"))
        return findings


def learning_report(model: Module, before: Mapping[str, Array], after: Mapping[str, Array]) -> LearningReport:
    """Report the parameters of a model whose gradient is missing, zero or not finite, and those that did not move.

        before = {name: array.copy() for name, array in model.state_dict().items()}
        loss.backward()
        optimizer.step()
        print(learning_report(model, before, model.state_dict()))

    Call it before the gradients are deleted. `state_dict()` returns the arrays themselves, which a step changes in
    place, so `before` must hold copies. A tied parameter counts once, under its first name.

    Args:     before, after: name → array, as `state_dict` returns them.
    Raises:   ValueError: names or shapes are not the model's (all are listed), or `before` was not copied.
    """
    own = dict(model.named_parameters())
    wrong = []
    for which, state in (("before", before), ("after", after)):
        wrong += [f"{which} lacks {name}" for name in own if name not in state]
        wrong += [f"{which} has {name}, which the model does not have" for name in state if name not in own]
        wrong += [
            f"{name} has shape {np.shape(state[name])} in {which}, the model's is {p.shape}"
            for name, p in own.items()
            if name in state and np.shape(state[name]) != p.shape
        ]
    if wrong:
        raise ValueError("not states of this model: " + "; ".join(wrong))
    if any(np.shares_memory(before[name], after[name]) for name in own):
        raise ValueError("before and after share memory: state_dict() returns the arrays themselves, so copy them")
    grads = {name: p.grad for name, p in own.items()}
    held = {name: g for name, g in grads.items() if g is not None}
    return LearningReport(
        checked=tuple(own),
        frozen=tuple(name for name, p in own.items() if not p.requires_grad),
        no_gradient=tuple(name for name, g in grads.items() if g is None),
        zero_gradient=tuple(name for name, g in held.items() if g.size and not g.any()),
        nonfinite_gradient=tuple(name for name, g in held.items() if not np.isfinite(g).all()),
        nonfinite_value=tuple(name for name in own if not np.isfinite(after[name]).all()),
        unmoved=tuple(
            name for name, p in own.items() if p.numel() and np.array_equal(before[name], after[name], equal_nan=True)
        ),
    )
