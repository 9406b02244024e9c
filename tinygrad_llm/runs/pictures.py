"""A run in pictures, where matplotlib is installed: losses and learning rate; gradients by layer."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygrad_llm.runs.folder import CONFUSION, PICTURES
from tinygrad_llm.storage.figure import new_figure, save_figure
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
    """A figure of how many texts of each true class (row) got each class (column)."""
    side = 2.5 + 0.8 * len(labels)
    figure = new_figure(side + 1, side)
    axes = figure.add_subplot()
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(counts):
        for j, count in enumerate(row):
            color = "white" if shares[i][j] > 0.6 else "black"
            axes.text(j, i, f"{count}\n{shares[i][j]:.0%}", ha="center", va="center", color=color)
    axes.set(xlabel="predicted", ylabel="true", title="test texts, and shares of each true class")
    axes.set_xticks(range(len(labels)), labels)
    axes.set_yticks(range(len(labels)), labels)
    return figure


def loss_curve(steps: Sequence[Step]) -> Any:
    """A figure of training loss, held-out loss and learning rate over the steps."""
    figure = new_figure()
    axes = figure.add_subplot()
    taken = [s for s in steps if s.step > 0]
    axes.plot([s.step for s in taken], [s.loss for s in taken], lw=0.8, alpha=0.6, label="training batch")
    held_out = [(s.step, s.val_loss) for s in steps if s.val_loss is not None]
    axes.plot(*zip(*held_out, strict=True), marker="o", ms=4, label="held out")
    axes.set(xlabel="step", ylabel="loss (nats per token)")
    axes.grid(alpha=0.3)
    rates = axes.twinx()
    rates.plot([s.step for s in taken], [s.lr for s in taken], color="gray", lw=0.8, ls="--", label="learning rate")
    rates.set(ylabel="learning rate")
    rates.set_ylim(bottom=0)
    axes.legend(handles=[*axes.lines, *rates.lines])
    return figure


def gradients(steps: Sequence[Step]) -> Any:
    """A figure of the gradient norm of each layer, from the input (dark) to the output (bright), over the steps."""
    figure = new_figure()
    from matplotlib import colormaps

    axes = figure.add_subplot()
    looked_at = [(s.step, s.layer_grad_norm) for s in steps if s.layer_grad_norm]
    layers = list(looked_at[0][1]) if looked_at else []
    for i, layer in enumerate(layers):
        norms = [norms.get(layer, 0.0) or float("nan") for _, norms in looked_at]  # 0 has no place on a log scale
        color = colormaps["viridis"](i / len(layers))
        axes.plot([step for step, _ in looked_at], norms, color=color, lw=1, label=layer)
    axes.set(xlabel="step", ylabel="norm of the gradient, before clipping", yscale="log")
    axes.grid(alpha=0.3)
    if layers:
        figure.legend(loc="outside right upper", fontsize="small", ncols=1 + len(layers) // 20)
    return figure
