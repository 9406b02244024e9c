"""The names of values: those of parameters and layers, and the variables of the program that made them.

`weights = scores.masked_fill(later, -math.inf).softmax(-1)` in the layer transformer.h.0.attn names the output of its
last operation transformer.h.0.attn.weights. What leaves a layer has the layer's name, too.
"""

import ast
import functools
import linecache
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from tinygrad_llm.nn import Module, Parameter
from tinygrad_llm.study.recording import Forward, Mark, Recording, Value


class Statement(NamedTuple):
    """A statement that assigns to variables: its lines, and their names."""

    first: int
    last: int
    targets: tuple[str, ...]


def name_values(recording: Recording, root: Module | None) -> None:
    """Give every value of a recording its names."""
    parameters = {} if root is None else parameter_names(root)
    layers = None if root is None else {path for path, _ in root.named_modules()}
    assigned = _assigned(recording.forward)
    left = _left(recording, layers)
    for v in recording.values:
        if v.made_by is None:
            names = parameters.get(id(v.tensor)) or [v.given or _join(v.layer, _called(recording, v))]
        else:
            names = list(left.get(v.id, ()))
            if v.id == recording.output and not names:
                names.append("loss" if root is not None and v.shape == () else assigned.get(v.id, "output"))
            elif v.id in assigned:
                names.append(_join(v.layer, assigned[v.id]))
            names = names or [_unassigned(recording, v, recording.step(v.made_by))]
        v.name, *v.also = dict.fromkeys(names)
    _make_unique(recording.values)


def _join(layer: str, name: str) -> str:
    return f"{layer}.{name}" if layer else name


def _unassigned(recording: Recording, v: Value, step: Forward) -> str:
    """A name for a value without a variable: k.transpose, if all else that the operation received has no gradient."""
    inputs = [recording.values[i] for i in step.inputs if recording.values[i].requires_grad]
    if len(inputs) == 1 and inputs[0].made_by is not None and inside(inputs[0].name, v.layer):
        return f"{inputs[0].name}.{step.name}"
    return _join(v.layer, step.name)


def _called(recording: Recording, v: Value) -> str:
    """What the program calls a value that no operation made; else what the first kernel that receives it does."""
    if v.number:
        return "number"
    user = recording.step(v.used_by[0])
    return v.variable or user.roles[user.inputs.index(v.id)]


def parameter_names(root: Module) -> dict[int, list[str]]:
    """The names of each parameter, by the id of its Tensor; that under which it is trained is the first."""
    found: dict[int, list[str]] = {}
    for name, p in root.named_parameters():
        found.setdefault(id(p), []).append(name)
    for path, module in root.named_modules():
        for attribute, x in vars(module).items():
            name = _join(path, attribute)
            if isinstance(x, Parameter) and name not in found.setdefault(id(x), []):
                found[id(x)].append(name)
    return found


def inside(layer: str, outer: str) -> bool:
    """Whether a layer is another one, or inside it; all are inside ""."""
    return not outer or layer == outer or layer.startswith(f"{outer}.")


def above(layer: str) -> Iterator[str]:
    """A layer and those around it, from the inside out, without the outermost, ""."""
    while layer:
        yield layer
        layer = layer.rpartition(".")[0]


def _left(recording: Recording, layers: set[str] | None) -> dict[int, list[str]]:
    """The layers that each value leaves, from the inside out, where no other value leaves them.

    Args:     layers: the paths of all; None: each part of a path is one.
    """
    found: dict[str, list[int]] = {}
    for v in recording.values:
        if v.made_by is None:
            continue
        users = [recording.step(i).layer for i in v.used_by] + [""] * (v.id == recording.output)
        for layer in above(v.layer):
            if (layers is None or layer in layers) and not all(inside(user, layer) for user in users):
                found.setdefault(layer, []).append(v.id)
    names: dict[int, list[str]] = {}
    for layer, ids in found.items():
        for i in ids if len(ids) == 1 else []:
            names.setdefault(i, []).append(layer)
    return {i: sorted(layers, key=len, reverse=True) for i, layers in names.items()}


def _make_unique(values: list[Value]) -> None:
    """The second of two values of one name becomes name#2; a further name that another value has is dropped."""
    seen: Counter[str] = Counter()
    first = {v.name for v in values}
    for v in values:
        seen[v.name] += 1
        if seen[v.name] > 1:
            v.name = f"{v.name}#{seen[v.name]}"
    further = Counter(name for v in values for name in v.also)
    for v in values:
        v.also = [name for name in v.also if name not in first and further[name] == 1]


# ---- variables -----------------------------------------------------------------------------------------------------


def _assigned(steps: list[Forward]) -> dict[int, str]:
    """The variable that each value was assigned to, of those that were."""
    found: dict[int, str] = {}

    def close(run: list[Forward]) -> None:
        statement = statement_at(run[-1].mark)
        if statement is not None:
            last = run[-len(statement.targets) :]
            if len(last) == len(statement.targets):
                found.update({step.output: name for step, name in zip(last, statement.targets, strict=True)})

    by_frame: dict[tuple[int, str], list[Forward]] = {}  # the operations of the statement that runs in each function
    for step in steps:
        run = by_frame.setdefault((step.mark.frame, step.layer), [])
        if run and not _continues(run[-1].mark, step.mark):
            close(run)
            run.clear()
        run.append(step)
    for rest in by_frame.values():
        close(rest)
    return found


def _continues(before: Mark, now: Mark) -> bool:
    """Whether two operations of one function belong to the same run of the same statement."""
    statement = statement_at(now)
    if statement != statement_at(before) or statement is None:
        return False
    several = len(statement.targets) > 1  # `q, k, v = …` takes them all in one instruction
    return now.instruction > before.instruction or (several and now.instruction == before.instruction)


def statement_at(mark: Mark) -> Statement | None:
    """The assignment of which this line is a part; None if it is of none."""
    lines = [s for s in _statements(mark.file) if s.first <= mark.line <= s.last]
    return min(lines, key=lambda s: s.last - s.first, default=None)


@functools.lru_cache(maxsize=64)
def _statements(file: str) -> tuple[Statement, ...]:
    """The assignments in a file, as far as it can be read."""
    try:
        tree = ast.parse("".join(linecache.getlines(file)))
    except SyntaxError:
        return ()
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign):
            target = node.targets[-1] if isinstance(node, ast.Assign) else node.target
            parts = target.elts if isinstance(target, ast.Tuple) else [target]
            if all(isinstance(part, ast.Name) for part in parts):
                names = tuple(part.id for part in parts if isinstance(part, ast.Name))
                found.append(Statement(node.lineno, node.end_lineno or node.lineno, names))
    return tuple(found)
