"""The loss curve as a picture, where matplotlib is installed."""

from collections.abc import Sequence
from pathlib import Path

from tinygrad_llm.formats import atomic_write
from tinygrad_llm.training.loop import Step


def save_loss_curve(steps: Sequence[Step], path: Path) -> bool:
    """Draw training and held-out loss over the steps into a PNG. False, and no file, where matplotlib is missing."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    taken = [s for s in steps if s.step > 0]
    axes.plot([s.step for s in taken], [s.loss for s in taken], lw=0.8, alpha=0.6, label="training batch")
    held_out = [(s.step, s.val_loss) for s in steps if s.val_loss is not None]
    axes.plot(*zip(*held_out, strict=True), marker="o", ms=4, label="held out")
    axes.set(xlabel="step", ylabel="loss (nats a token)")
    axes.grid(alpha=0.3)
    axes.legend()
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)
    return True
