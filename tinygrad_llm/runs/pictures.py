"""A run in pictures, where matplotlib is installed: losses and learning rate; gradients by layer."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygrad_llm.runs.folder import CONFUSION, PICTURES
from tinygrad_llm.storage.figure import COLORS, lacks_letters, line_styles, new_figure, save_figure, smoothed, span_of
from tinygrad_llm.storage.text import shortened
from tinygrad_llm.training import Step


def save_pictures(steps: Sequence[Step], folder: Path) -> None:
    """Draw loss.png and gradients.png into the folder; nothing where matplotlib is missing."""
    try:
        figures = [draw(steps) for draw in (loss_curve, gradients)]
    except ImportError:
        return
    for name, figure in zip(PICTURES, figures, strict=True):
        save_figure(figure, folder / name)


def save_confusion(results: dict[str, Any], folder: Path) -> None:
    """Draw confusion.png into the folder; nothing where matplotlib is missing.

    Args:     results: of `MessageData.results`.
    """
    try:
        figure = confusion_matrix(results["confusion"], results["labels"])
    except ImportError:
        return
    save_figure(figure, folder / CONFUSION)


def confusion_matrix(counts: Sequence[Sequence[int]], labels: Sequence[str]) -> Any:
    """A figure of how many texts of each true class (row) got each class (column).

    More than 12 classes have no numbers in their cells, and more than 60 no names.
    """
    size = len(labels)
    side = 2.5 + 0.8 * min(size, 12)
    figure = new_figure(side + 1, side)
    axes = figure.add_subplot()
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(counts if size <= 12 else ()):
        for j, count in enumerate(row):
            color = "white" if shares[i][j] > 0.6 else "black"
            axes.text(j, i, f"{count}\n{shares[i][j]:.0%}", ha="center", va="center", color=color)
    axes.set(xlabel="predicted", ylabel="true", title="test texts, and shares of each true class")
    if size > 60:
        axes.set(xlabel="number of the predicted class", ylabel="number of the true class")
        return figure
    names = [f"{i}" if lacks_letters(label) else shortened(label, 20) for i, label in enumerate(labels)]
    upright = max(map(len, names)) > 8 or size > 12
    small = {"fontsize": "small"} if size > 12 else {}
    axes.set_xticks(range(size), names, rotation=90 if upright else 0, parse_math=False, **small)
    axes.set_yticks(range(size), names, parse_math=False, **small)
    return figure


def loss_curve(steps: Sequence[Step]) -> Any:
    """A figure of training loss and held-out loss over the steps, with the learning rate in the background."""
    figure = new_figure()
    axes = figure.add_subplot()
    taken = [s for s in steps if s.step > 0]
    at, losses = [s.step for s in taken], [s.loss for s in taken]
    rates = axes.twinx()
    axes.set_zorder(rates.get_zorder() + 1)  # the losses lie on top of the learning rate
    axes.patch.set_visible(False)
    rates.fill_between(at, [s.lr for s in taken], color="0.93", lw=0)
    (rate,) = rates.plot(at, [s.lr for s in taken], color="0.75", lw=1, label="learning rate")
    span = span_of(len(losses))
    name = "training" if span == 1 else f"training, mean of {span} steps"
    if span > 1:
        axes.plot(at, losses, lw=0.8, alpha=0.3, color=COLORS[0])
    (training,) = axes.plot(at, smoothed(losses, span), lw=1.6, color=COLORS[0], label=name)
    held_out = [(s.step, s.val_loss) for s in steps if s.val_loss is not None]
    measured_at, measured = [step for step, _ in held_out], [loss for _, loss in held_out]
    (dots,) = axes.plot(measured_at, measured, marker="o", ms=5, color=COLORS[1], label="held out")
    axes.set(xlabel="step", ylabel="loss (nats)", title=_title(held_out))
    axes.grid(alpha=0.3)
    rates.set(ylabel="learning rate", ylim=(0, None))
    axes.legend(handles=[training, dots, rate], loc="upper right")
    return figure


def _title(held_out: Sequence[tuple[int, float]]) -> str:
    if not held_out:
        return "Loss"
    step, loss = held_out[-1]
    return f"Held-out loss {held_out[0][1]:.3f} → {loss:.3f} after {step:,} steps"


def gradients(steps: Sequence[Step]) -> Any:
    """A figure of the gradient norm of each layer over the steps, from the input to the output; smoothed."""
    figure = new_figure()
    axes = figure.add_subplot()
    looked_at = [(s.step, s.layer_grad_norm) for s in steps if s.layer_grad_norm]
    layers = list(looked_at[0][1]) if looked_at else []
    span = span_of(len(looked_at))
    at = [step for step, _ in looked_at]
    for layer, style in zip(layers, line_styles(), strict=False):
        # The scale is logarithmic, and 0 has no place on it. The mean is that of the logarithms.
        logs = [math.log10(norms.get(layer) or math.nan) for _, norms in looked_at]
        if span > 1:
            axes.plot(at, [10**x for x in logs], lw=0.6, alpha=min(0.25, 1 / len(layers)), color=style["color"])
        axes.plot(at, [10**x for x in smoothed(logs, span)], lw=1.6, label=layer, **style)
    title = "Gradient norm of each layer, before clipping"
    axes.set(xlabel="step", ylabel="norm", yscale="log")
    axes.set_title(title if span == 1 else f"{title}; mean of {span} points")
    axes.grid(alpha=0.3)
    if layers:
        figure.legend(loc="outside right upper", fontsize="small", ncols=1 + len(layers) // 20)
    return figure
