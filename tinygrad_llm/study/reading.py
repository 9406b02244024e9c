"""What a recording means: which addition is a residual, what each gradient came from, where attention is, and why."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinygrad_llm.kernels import Array
from tinygrad_llm.study.names import above, inside
from tinygrad_llm.study.recording import Forward, Gradient, Hooked, Leaf, Recording, Seed, Step, Sum, Value, Vjp

RESIDUAL = "residual stream"

# ---- residual additions, and what a gradient came from ---------------------------------------------------------------


def residual(recording: Recording, step: Forward) -> tuple[int, int] | None:
    """The values x and f(x) of an addition x + f(x) of matrices; None if the step is none."""
    if step.name != "add" or len(set(step.inputs)) < 2:
        return None
    a, b = (recording.values[i] for i in step.inputs)
    if a.shape != b.shape or len(a.shape) < 2:
        return None
    for stream, branch in ((a, b), (b, a)):
        if depends(recording, branch, stream):
            return stream.id, branch.id
    return None


def depends(recording: Recording, value: Value, on: Value) -> bool:
    """Whether a value was computed from another one."""
    seen, todo = {value.id}, [value]
    while todo:
        v = todo.pop()
        if v.id == on.id:
            return v is not value
        if v.made_by is not None and v.made_by > (-1 if on.made_by is None else on.made_by):
            new = [i for i in recording.step(v.made_by).inputs if i not in seen]
            seen.update(new)
            todo += [recording.values[i] for i in new]
    return False


def residuals(recording: Recording) -> dict[int, tuple[int, int]]:
    """(stream, branch) of each residual addition, by forward step."""
    found = {step.i: residual(recording, step) for step in recording.forward}
    return {i: pair for i, pair in found.items() if pair is not None}


def use_of(recording: Recording, gradient: Gradient, pairs: Mapping[int, tuple[int, int]]) -> str | None:
    """In words, the use of a value that contributed this gradient; None for seeds, sums and what hooks made.

    Args:     pairs: what `residuals` returned.
    """
    if gradient.user is None:
        return None
    step, value = recording.step(gradient.user), gradient.value
    if step.i in pairs and pairs[step.i][0] == value:
        return RESIDUAL
    for i, (stream, branch) in pairs.items():
        if stream == value:
            layer = branch_layer(recording.step(i), recording.values[branch])
            return f"branch {layer or recording.values[step.output].name}"
    kernels = {recording.step(i).name for i in recording.values[value].used_by}
    if step.name == "embedding":
        return f"lookup {step.layer}".strip()
    if "embedding" in kernels and step.name in ("linear", "matmul"):
        return f"head {step.layer}".strip()
    made = recording.values[step.output].name
    return f"input {step.roles[gradient.position]} of {step.name}" + (f" → {made}" if made != step.name else "")


def branch_layer(step: Forward, branch: Value) -> str | None:
    """The layer that computed a branch: the outermost one inside the layer of the addition; None if there is none."""
    layers = [layer for layer in above(branch.layer) if inside(layer, step.layer) and layer != step.layer]
    return layers[-1] if layers else None


def edges(
    recording: Recording, pairs: Mapping[int, tuple[int, int]]
) -> Iterator[tuple[Value, Forward, int | None, str]]:
    """(value, the step that uses it, the gradient that came back that way, residual, branch or plain)."""
    back = {(g.user, g.position): g.id for g in recording.gradients if g.user is not None}
    for step in recording.forward:
        for position, i in enumerate(step.inputs):
            kind = "plain"
            if step.i in pairs:
                kind = "residual" if i == pairs[step.i][0] else "branch"
            elif any(stream == i for stream, _ in pairs.values()):
                kind = "branch"
            yield recording.values[i], step, back.get((step.i, position)), kind


# ---- what a value without a name is called ---------------------------------------------------------------------------


def formula(recording: Recording, v: Value) -> str | None:
    """A value that no variable names, as its product: q·kᵀ, error², kᵀ; None for others, or if it would be long."""
    step = None if v.made_by is None else recording.step(v.made_by)
    if step is None or step.name not in ("matmul", "multiply", "transpose"):
        return None
    if _last(v.name) != step.name:
        return None
    names = [_factor(recording, recording.values[i]) for i in step.inputs]
    if step.name == "transpose":
        n = len(v.shape)
        swapped = v.shape[-2:] == recording.values[step.inputs[0]].shape[-2:][::-1]
        axes = step.options.get("axes") or tuple(range(n))[::-1]
        last_two = tuple(axis % n for axis in axes) == (*range(n - 2), n - 1, n - 2)
        text = f"{names[0]}ᵀ" if n > 1 and swapped and last_two else ""
    elif step.name == "multiply" and len(set(step.inputs)) == 1:
        text = f"{names[0]}²"
    else:
        text = "·".join(names)
    return text if 0 < len(text) <= 20 else None


def _factor(recording: Recording, v: Value) -> str:
    """The name of a factor, without its layer: of more than one sign, in parentheses."""
    text = formula(recording, v)
    if text is None:
        return f"{v.array.item():.3g}" if v.number and isinstance(v.array, np.ndarray) else _last(v.name)
    return f"({text})" if "·" in text else text


def _last(name: str) -> str:
    return name.rpartition(".")[2].partition("#")[0]


def called(recording: Recording, v: Value) -> str:
    """What a sentence calls a value: its formula, else its name."""
    return formula(recording, v) or v.name


# ---- attention -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Attention:
    """The values of one attention, by id; None where there is none."""

    layer: str
    weights: int
    scores: int
    masked: int | None = None
    mask: int | None = None  # true where a score was hidden
    q: int | None = None
    k: int | None = None
    v: int | None = None
    heads: int | None = None


def attentions(recording: Recording) -> list[Attention]:
    """Every attention that was computed step by step: a softmax over scores, whose output weighs other values."""
    found = []
    for step in recording.forward:
        if step.name != "softmax":
            continue
        weights = recording.values[step.output]
        mixed = _mixing(recording, weights)
        if mixed is not None and len(weights.shape) > 1:
            found.append(_attention(recording, step, mixed))
    return found


def _mixing(recording: Recording, weights: Value) -> Forward | None:
    """The product with the values, behind dropout if there is any."""
    for i in weights.used_by:
        step = recording.step(i)
        if step.name == "dropout":
            return _mixing(recording, recording.values[step.output])
        if step.name == "matmul" and step.inputs[0] == weights.id:
            return step
    return None


def _attention(recording: Recording, softmax: Forward, mixed: Forward) -> Attention:
    masked, mask = None, None
    scores = softmax.inputs[0]
    made = _maker(recording, scores)
    if made is not None and made.name == "where":
        condition, *options = made.inputs
        masked, mask = scores, condition
        scores = next((i for i in options if not recording.values[i].number), options[-1])
    made = _maker(recording, scores)
    while made is not None and made.name in ("multiply", "divide"):  # by 1 / √D
        made = _maker(recording, next(i for i in made.inputs if not recording.values[i].number))
    q = k = None
    if made is not None and made.name == "matmul":
        q, k = made.inputs
        turned = _maker(recording, k)
        k = turned.inputs[0] if turned is not None and turned.name == "transpose" else k
    return Attention(softmax.layer, softmax.output, scores, masked, mask, q, k, mixed.inputs[1], mixed.output)


def _maker(recording: Recording, value: int) -> Forward | None:
    made_by = recording.values[value].made_by
    return None if made_by is None else recording.step(made_by)


# ---- axes ------------------------------------------------------------------------------------------------------------

# The axes of a GPT's arrays, the commonest first: where two fit, the first is taken.
_FORMS = (
    "B", "T", "C", "V", "3C", "4C", "B T", "T T", "T C", "V C", "block C", "3C C", "4C C", "C 4C", "C C", "N V",
    "T V", "B T C", "B T 3C", "B T 4C", "B T V", "B T 3 H D", "3 B H T D", "B H T D", "B H D T", "B H T T", "B T H D",
    "N C", "N",
)  # fmt: skip


def axes(shape: tuple[int, ...], sizes: Mapping[str, int]) -> list[str]:
    """A letter for each axis, "" where none is known.

    Args:     sizes: letter → length: B, T, C, H, D, V and others that belong to the example.
    """
    known = dict(sizes) | {"3": 3}
    if "C" in sizes:
        known |= {"3C": 3 * sizes["C"], "4C": 4 * sizes["C"]}
    if {"B", "T"} <= set(sizes):
        known["N"] = sizes["B"] * sizes["T"]
    for form in _FORMS:
        letters = form.split()
        if len(letters) == len(shape) and all(known.get(a) == n for a, n in zip(letters, shape, strict=True)):
            return ["B·T" if letter == "N" else letter for letter in letters]
    fits = [[letter for letter, size in sizes.items() if size == n] for n in shape]
    return [letters[0] if len(letters) == 1 else "" for letters in fits]


# ---- why -------------------------------------------------------------------------------------------------------------


def notes(recording: Recording, step: Step, pairs: Mapping[int, tuple[int, int]]) -> list[str]:
    """Sentences that tell a reader what happens in this step here, beyond the formula."""
    if isinstance(step, Forward):
        return _forward_notes(recording, step, pairs)
    if isinstance(step, Vjp):
        return _vjp_notes(recording, step, pairs)
    v = recording.values[step.value]
    if isinstance(step, Seed):
        return [f"Backward starts here: {v.name} changes one to one with itself, so its gradient is 1."]
    if isinstance(step, Sum):
        return [
            f"{v.name} was used more than once. A small change of it changes the loss through each use, so the "
            "gradients of the uses are added."
        ]
    if isinstance(step, Hooked):
        return ["A hook has seen this gradient, and may have replaced it."]
    assert isinstance(step, Leaf)
    uses = "its only use" if len(v.used_by) == 1 else f"all {len(v.used_by)} uses"
    found = [f"The gradient of {v.name} is complete: {uses} contributed."]
    if v in recording.parameters:
        found.append("A step of SGD subtracts lr times this gradient.")
    return found


def _forward_notes(recording: Recording, step: Forward, pairs: Mapping[int, tuple[int, int]]) -> list[str]:
    found = []
    values = [recording.values[i] for i in step.inputs]
    if step.i in pairs:
        stream, branch = (recording.values[i] for i in pairs[step.i])
        found.append(
            f"This addition is the residual connection: {stream.name}, unchanged, plus "
            f"{branch_layer(step, branch) or branch.name}, which was computed from it."
        )
    if step.name == "where" and values[1].number and _lowest(values[1]):
        hidden = _count(values[0])
        found.append(
            f"The mask is true at {hidden[0]} of {hidden[1]} places. The score there becomes −∞, and the softmax turns "
            "it into a weight of exactly 0."
        )
    if step.name == "recompute":
        found.append("A whole function runs as one operation: of its values, only the input is kept for backward.")
    if step.name == "softmax":
        found.append("Each row becomes weights between 0 and 1 that sum to 1.")
    if not step.recorded:
        found.append("No input requires a gradient, so nothing is kept for backward.")
    return found


def _vjp_notes(recording: Recording, step: Vjp, pairs: Mapping[int, tuple[int, int]]) -> list[str]:
    forward = recording.step(step.forward)
    values = [recording.values[i] for i in forward.inputs]
    name = [called(recording, v) for v in values]
    if forward.i in pairs:
        branch = recording.values[pairs[forward.i][1]]
        return [
            "Both inputs of an addition get the gradient unchanged: one copy flows along the residual stream, past "
            f"{branch_layer(forward, branch) or branch.name}, the other one into it."
        ]
    make = _EXPLAINED.get(forward.name)
    return make(recording, forward, name) if make else []


def _matmul(recording: Recording, forward: Forward, name: list[str]) -> list[str]:
    y = called(recording, recording.values[forward.output])
    a, b = (recording.values[i] for i in forward.inputs)
    said = [
        f"With g = ∂L/∂{_grouped(y)}: da = g · {_grouped(name[1])}ᵀ is ∂L/∂{_grouped(name[0])}, and db = "
        f"{_grouped(name[0])}ᵀ · g is ∂L/∂{_grouped(name[1])}."
    ]
    if len(a.shape) > 1 and len(b.shape) > 1:
        (n, k), m = a.shape[-2:], b.shape[-1]
        said[0] += f" In shapes: da ({n}, {m}) · ({m}, {k}), db ({k}, {n}) · ({n}, {m})."
    return [
        *said,
        f"Row j of db adds the rows i of g, each times element [i, j] of {name[0]}: by as much as row j of "
        f"{name[1]} went into row i of {y}.",
    ]


def _grouped(text: str) -> str:
    return text if text.isascii() and text.replace(".", "").isidentifier() else f"({text})"


def _where(recording: Recording, forward: Forward, name: list[str]) -> list[str]:
    hidden = _count(recording.values[forward.inputs[0]])
    return [
        f"Where the mask is true ({hidden[0]} of {hidden[1]} places), the output does not depend on {name[2]}: its "
        "gradient there is exactly 0."
    ]


def _softmax(recording: Recording, forward: Forward, name: list[str]) -> list[str]:
    return [
        f"Adding a number to a whole row of {name[0]} changes no weight, so each row of its gradient sums to 0. Where "
        "the weight is 0, so is the gradient."
    ]


def _cross_entropy(recording: Recording, forward: Forward, name: list[str]) -> list[str]:
    return [
        "In each row that counts: the probabilities, minus 1 at the target, divided by the number of targets. So the "
        "gradient is negative at the target alone, and a step raises that logit and lowers all others."
    ]


def _embedding(recording: Recording, forward: Forward, name: list[str]) -> list[str]:
    table, ids = (recording.values[i] for i in forward.inputs)
    present = len(np.unique(ids.array)) if isinstance(ids.array, np.ndarray) else 0
    return [
        f"Each row of the table gets the gradients of all places where its id stands. {table.shape[0] - present} of "
        f"{table.shape[0]} ids do not occur here: their rows stay 0."
    ]


def _getitem(recording: Recording, forward: Forward, name: list[str]) -> list[str]:
    return [f"Elements of {name[0]} that were not taken do not reach the loss this way: their gradient is 0."]


def _relu(recording: Recording, forward: Forward, name: list[str]) -> list[str]:
    return [f"Where {name[0]} is negative, the output is 0 whatever it is exactly: the gradient there is 0."]


def _recompute(recording: Recording, forward: Forward, name: list[str]) -> list[str]:
    return [f"The function runs a second time from {name[0]}, and the gradient goes back through its operations."]


_EXPLAINED: dict[str, Callable[[Recording, Forward, list[str]], list[str]]] = {
    "matmul": _matmul,
    "where": _where,
    "softmax": _softmax,
    "cross_entropy": _cross_entropy,
    "embedding": _embedding,
    "getitem": _getitem,
    "relu": _relu,
    "recompute": _recompute,
}


@dataclass(frozen=True)
class Use:
    """One use of an element: an operation with its arrays, the role of the value in it, the place of the element."""

    arrays: list[Array]
    y: Array
    role: str
    index: tuple[int, ...]
    options: dict[str, Any]


def _masked(use: Use) -> str | None:
    if use.role != "b" or use.y.shape != use.arrays[2].shape:
        return None
    hidden = np.broadcast_to(use.arrays[0], use.y.shape)[use.index]
    return "the mask is true here, so the loss does not depend on this element" if hidden else None


def _no_weight(use: Use) -> str | None:
    if use.y[use.index] == 1:
        return "its weight in the softmax is 1, whatever its score is: no other one in its row has any"
    return "its weight in the softmax is 0" if use.y[use.index] == 0 else None


def _absent(use: Use) -> str | None:
    return None if np.any(use.arrays[1] == use.index[0]) else "this id does not occur in the text"


def _not_taken(use: Use) -> str | None:
    mark = np.zeros(use.arrays[0].shape, bool)
    mark[use.index] = True
    return None if mark[use.options["index"]].any() else "this element was not taken"


def _negative(use: Use) -> str | None:
    return "the input of relu is negative here" if use.arrays[0][use.index] < 0 else None


def _no_target(use: Use) -> str | None:
    return "this row has no target" if use.arrays[1][use.index[0]] == use.options["ignore_index"] else None


_ZERO: dict[str, Callable[[Use], str | None]] = {
    "where": _masked,
    "softmax": _no_weight,
    "embedding": _absent,
    "getitem": _not_taken,
    "relu": _negative,
    "cross_entropy": _no_target,
}


def zero_because(recording: Recording, value: Value, index: tuple[int, ...]) -> str | None:
    """Why this element of a value's gradient is exactly 0, if each of its uses tells, and its arrays were kept."""
    reasons = set()
    for step in map(recording.step, value.used_by):
        arrays = [recording.values[i].array for i in step.inputs]
        y = recording.values[step.output].array
        if step.name not in _ZERO or not all(isinstance(x, np.ndarray) for x in (*arrays, y)):
            return None
        roles = [role for role, i in zip(step.roles, step.inputs, strict=True) if i == value.id]
        told = {_ZERO[step.name](Use(arrays, y, role, index, step.options)) for role in roles}
        reasons |= told
    return None if None in reasons else " or ".join(sorted(map(str, reasons))) or None


def _lowest(value: Value) -> bool:
    return isinstance(value.array, np.ndarray) and bool(np.all(value.array == -math.inf))


def _count(value: Value) -> tuple[int, int]:
    """How many elements are true, and how many there are."""
    array: Any = value.array
    return (int(np.count_nonzero(array)), array.size) if isinstance(array, np.ndarray) else (0, math.prod(value.shape))
