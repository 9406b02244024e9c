"""A recording without a browser: pictures by matplotlib, the graph as DOT text, and a listing for the terminal."""

import math
import textwrap
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinygrad_llm.storage.figure import COLORS, new_figure
from tinygrad_llm.study import reading
from tinygrad_llm.study.documentation import document
from tinygrad_llm.study.names import inside
from tinygrad_llm.study.numbers import statistics
from tinygrad_llm.study.recording import Forward, Hooked, Leaf, Recording, Seed, Step, Sum, Value, Vjp
from tinygrad_llm.study.trace import Trace

WIDTH = 80  # columns of a terminal
_SIGNED = "RdBu_r"  # which color-blind readers can tell apart; white is 0
_POSITIVE = "viridis"


def plot_attention(traced: Trace | Recording, layer: str = "", batch: int = 0) -> Any:
    """A figure of every head's pattern, and below it the gradient of the pattern; what the mask hid is hatched.

    Args:     layer: its path; the first one by default. batch: which row of the batch.
    Returns:  a matplotlib Figure.
    Raises:   ValueError: nothing was attended to in this layer. ImportError: matplotlib is missing.
    """
    recording = _recording(traced)
    found = [a for a in reading.attentions(recording) if inside(a.layer, layer)]
    if not found:
        layers = ", ".join(a.layer for a in reading.attentions(recording)) or "none: was the model fused?"
        raise ValueError(f"no attention in {layer!r}: there is {layers}")
    weights = recording.values[found[0].weights]
    pattern, slope = (_heads(x, batch) for x in (weights.array, recording.gradient_of(weights)))
    mask = None if found[0].mask is None else np.asarray(recording.values[found[0].mask].array, dtype=bool)
    figure = new_figure(1.2 + 2.6 * len(pattern), 5.4)
    axes = figure.subplots(2, len(pattern), squeeze=False)
    largest = float(np.max(np.abs(slope), initial=0.0)) or 1.0 if slope is not None else 1.0
    for h in range(len(pattern)):
        shown = axes[0][h].imshow(pattern[h], cmap=_POSITIVE, vmin=0, vmax=1)
        axes[0][h].set_title(f"head {h}")
        if slope is not None:
            signed = axes[1][h].imshow(slope[h], cmap=_SIGNED, vmin=-largest, vmax=largest)
        for row in axes:
            _label(row[h], traced, batch, mask)
    figure.colorbar(shown, ax=list(axes[0]), label="weight")
    if slope is not None:
        figure.colorbar(signed, ax=list(axes[1]), label="∂L/∂weight")
    figure.suptitle(f"{weights.name}: from each position (row) to those that it looks at (column)")
    return figure


def _heads(array: Any, batch: int) -> Any:
    """(H, T, T) of (B, H, T, T), (H, T, T) or (T, T)."""
    if array is None:
        return None
    array = array[batch] if array.ndim == 4 else array
    return array.reshape(-1, *array.shape[-2:])


def _label(axes: Any, traced: Trace | Recording, batch: int, mask: Any) -> None:
    tokens = traced.data["meta"]["tokens"] if isinstance(traced, Trace) else None
    if tokens and len(tokens[batch]) <= 24:
        words = [text.replace("$", r"\$").replace("\n", "\\n") for text in tokens[batch]]  # $ would begin a formula
        axes.set_xticks(range(len(words)), words, rotation=90)
        axes.set_yticks(range(len(words)), words)
    for i, j in np.argwhere(mask) if mask is not None and mask.ndim == 2 else ():
        axes.add_patch(_hatched(j - 0.5, i - 0.5))


def _hatched(x: float, y: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x, y), 1, 1, facecolor="0.92", edgecolor="0.7", hatch="///", linewidth=0)


def plot_gradient_flow(traced: Trace) -> Any:
    """A figure of the gradient norm of each layer's parameters, and by how much a step of SGD changes them.

    Returns:  a matplotlib Figure.
    Raises:   ImportError: matplotlib is missing.
    """
    layers = traced.data["flow"]["layers"]
    figure = new_figure(8.0, 1.2 + 0.32 * len(layers))
    left, right = figure.subplots(1, 2, sharey=True)
    names = [layer["layer"] for layer in layers]
    figures = (("grad_norm", "gradient norm"), ("ratio", f"‖update‖ / ‖weight‖, lr {traced.data['flow']['lr']:g}"))
    for axes, (key, title), color in zip((left, right), figures, COLORS, strict=False):
        numbers = [layer[key] or math.nan for layer in layers]
        axes.barh(names, numbers, color=color)
        axes.set(xlabel=title, xscale="log")
        axes.margins(x=0.25)  # for the numbers
        axes.minorticks_off()
        for i, number in enumerate(numbers):
            axes.text(number, i, f" {number:.2g}" if math.isfinite(number) else "", va="center", fontsize="small")
    left.invert_yaxis()
    for i, layer in enumerate(layers):
        if layer["nan"] or layer["inf"]:
            left.text(0.02, i, f"{layer['nan']} NaN, {layer['inf']} inf", color=COLORS[1], va="center")
    figure.suptitle("Gradient flow by layer, from the input to the output")
    return figure


def plot_graph(traced: Trace | Recording) -> Any:
    """A figure of the operations from the input (top) to the loss; each arrow is as wide as its gradient's logarithm.

    The residual stream stands on the left, what is computed from it on the right.

    Returns:  a matplotlib Figure.
    Raises:   ImportError: matplotlib is missing.
    """
    recording = _recording(traced)
    pairs = reading.residuals(recording)
    edges = list(_edges(recording, pairs))
    norms = [norm for *_, norm in edges if norm]
    nodes = _nodes(recording)
    place = {v.id: (_lane(recording, v, pairs), row) for row, v in enumerate(nodes)}
    figure = new_figure(7.0 if pairs else 4.5, max(2.0, 0.34 * len(nodes)))
    axes = figure.add_subplot()
    for start, end, kind, norm in edges:
        (x0, y0), (x1, y1) = place[start], place[end]
        bend = "arc3,rad=-0.3" if x0 == x1 and y1 - y0 > 1 else "arc3"
        arrow = {"arrowstyle": "-|>", "lw": _width(norm, norms), "connectionstyle": bend, "shrinkA": 8, "shrinkB": 8}
        axes.annotate("", (x1, y1), (x0, y0), arrowprops=arrow | {"color": _KINDS.get(kind, "0.6")})
    for v in nodes:
        box = {"boxstyle": "round", "facecolor": "white", "edgecolor": "0.6"}
        axes.text(*place[v.id], _short(recording, v), ha="center", va="center", fontsize="x-small", bbox=box)
    axes.set(xlim=(-0.6, 1.6 if pairs else 0.6), ylim=(len(nodes) - 0.5, -0.5))
    axes.axis("off")
    return figure


_KINDS = {"residual": COLORS[0], "branch": COLORS[1]}


def _nodes(recording: Recording) -> list[Value]:
    """What operations made, behind the inputs that have a gradient and are not trained."""
    inputs = [v for v in recording.leaves if v not in recording.parameters]
    return [*inputs, *(recording.values[step.output] for step in recording.forward)]


def _edges(recording: Recording, pairs: dict[int, tuple[int, int]]) -> Iterator[tuple[int, int, str, float | None]]:
    """(value, value made from it, kind, norm of the gradient that came back) between the nodes."""
    nodes = {v.id for v in _nodes(recording)}
    for v, step, g, kind in reading.edges(recording, pairs):
        if v.id in nodes:
            norm = None if g is None else statistics(recording.gradients[g].array)["norm"]
            yield v.id, step.output, kind, norm


def _lane(recording: Recording, v: Value, pairs: dict[int, tuple[int, int]]) -> int:
    """The column of a value: 0 for the residual stream."""
    stream = v.made_by in pairs or any(v.id == start for start, _ in pairs.values())
    return 0 if stream or not pairs else 1


def _width(norm: float | None, norms: list[float]) -> float:
    """Of an arrow: 0.6 to 4 points, by the logarithm of the norm among all."""
    if not norm:
        return 0.6
    low, high = math.log10(min(norms)), math.log10(max(norms))
    return 0.6 + 3.4 * (math.log10(norm) - low) / ((high - low) or 1.0)


def _short(recording: Recording, v: Value) -> str:
    made = "" if v.made_by is None else f"{recording.step(v.made_by).name} → "
    return f"{made}{v.name.removeprefix('transformer.')} {_shape(v)}"


def graph_dot(traced: Trace | Recording) -> str:
    """The graph of operations in the language of Graphviz: `dot -Tsvg`."""
    recording = _recording(traced)
    pairs = reading.residuals(recording)
    edges = list(_edges(recording, pairs))
    norms = [norm for *_, norm in edges if norm]
    lines = ["digraph trace {", '  node [shape=box, fontname="sans-serif"];']
    for v in _nodes(recording):
        lines.append(f"  v{v.id} [label={_quoted(_short(recording, v))}];")
    for start, end, kind, norm in edges:
        color = _KINDS.get(kind, "#999999")
        lines.append(f'  v{start} -> v{end} [color="{color}", penwidth={_width(norm, norms):.1f}];')
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


# ---- the terminal ----------------------------------------------------------------------------------------------------


def print_trace(traced: Trace | Recording) -> None:
    """Print every step in lines of 80 columns: operations with shapes, formulas and norms, forward and backward."""
    print("\n".join(trace_lines(traced)))


def trace_lines(traced: Trace | Recording) -> list[str]:
    """The lines of `print_trace`."""
    recording = _recording(traced)
    lines, layer = ["forward"], ""
    for step in recording.steps:
        if isinstance(step, Seed):
            lines += ["", "backward"]
        if isinstance(step, Forward) and step.layer != layer:
            layer = step.layer
            lines += _fold(f"  {layer}")
        for line in _listed(recording, step):
            lines += _fold(line)
    return lines


def _listed(recording: Recording, step: Step) -> list[str]:
    if isinstance(step, Forward):
        v = recording.values[step.output]
        own = v.name.removeprefix(f"{step.layer}.") if step.layer else v.name
        return [f"{step.i:5}  {own} {_shape(v)}  {_norm(v.array)}", _formula(step, document(step.kernel).forward)]
    v = recording.values[step.value]
    gradient = recording.gradients[step.gradient]
    head = f"{step.i:5}  d {v.name}  {_norm(gradient.array)}"
    if isinstance(step, Seed):
        return [f"{head}: the start"]
    if isinstance(step, Sum):
        pairs = reading.residuals(recording)
        uses = [
            reading.use_of(recording, recording.gradients[i], pairs) or "the sum so far"
            for i in (step.first, step.second)
        ]
        return [f"{head}  sum", f"       {uses[0]} + {uses[1]}"]
    if isinstance(step, Vjp):
        return [head, *_outgoing(recording, step)]
    assert isinstance(step, Hooked | Leaf)
    return [f"{head}  {'after a hook' if isinstance(step, Hooked) else 'complete'}"]


def _outgoing(recording: Recording, step: Vjp) -> list[str]:
    forward = recording.step(step.forward)
    lines = [_formula(forward, document(forward.kernel).gradient)]
    for i, g in zip(forward.inputs, step.outgoing, strict=True):
        if g is not None:
            lines.append(f"       → d {recording.values[i].name}  {_norm(recording.gradients[g].array)}")
    return lines


def _norm(array: Any) -> str:
    found = statistics(array)
    if found["nan"] or found["inf"]:
        return f"{found['nan']} NaN, {found['inf']} inf of {found['n']}"
    if found["n"] == 1 and found["min"] is not None:
        return f"= {found['min']:.6g}"
    return "empty" if found["norm"] is None else f"‖·‖ = {found['norm']:.3g}"


def _shape(v: Value) -> str:
    return f"({', '.join(map(str, v.shape))})"


def _formula(step: Forward, text: str) -> str:
    return f"       {step.name}: {text}"


def _fold(line: str) -> list[str]:
    """A line in lines of 80 columns."""
    indent = " " * (len(line) - len(line.lstrip()))
    return textwrap.wrap(
        line.lstrip(), WIDTH, initial_indent=indent, subsequent_indent=f"{indent}  ", break_on_hyphens=False
    )


def _recording(traced: Trace | Recording) -> Recording:
    return traced.recording if isinstance(traced, Trace) else traced
