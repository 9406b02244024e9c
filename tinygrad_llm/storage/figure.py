"""Figures: drawn by matplotlib where it is installed, and saved as PNG files that are never half-written."""

import os
from typing import Any

from tinygrad_llm.storage.atomic import atomic_write


def new_figure(width: float = 8.0, height: float = 4.5) -> Any:
    """An empty matplotlib Figure that needs no display.

    Args:     width, height: in inches.
    Raises:   ImportError: matplotlib is missing; one line says how to install it.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("a picture needs matplotlib: pip install 'tinygrad_llm[app]'") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write the figure as a PNG file.

    Raises:   OSError: the file cannot be written.
    """
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)
