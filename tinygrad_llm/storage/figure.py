"""Figures: drawn by matplotlib where it is installed, and saved as PNG files that are never half-written."""

import itertools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tinygrad_llm.storage.atomic import atomic_write

# Okabe and Ito's colors, which color-blind readers can tell apart too, without the yellow, which is faint on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
DASHES = ("-", "--", ":", "-.")


def line_styles() -> Iterator[dict[str, str]]:
    """The look of one line after another; 28 of them differ, the first seven by their colors alone."""
    return itertools.cycle({"color": color, "linestyle": dashes} for dashes in DASHES for color in COLORS)


def span_of(count: int) -> int:
    """Over how many of its values a curve is smoothed, an odd number: about a twentieth, at least 3; 1 below ten."""
    return 1 if count < 10 else 2 * max(1, count // 40) + 1


def smoothed(values: Sequence[float], span: int) -> list[float]:
    """The mean of the values around each one, itself included; fewer at the ends, and without NaN and infinity."""
    array, at = np.array(values, np.float64), np.arange(len(values))
    finite = np.isfinite(array)
    sums, counts = (np.concatenate([[0], np.cumsum(x)]) for x in (np.where(finite, array, 0), finite))
    half = np.minimum(span // 2, at)  # as many on either side at the beginning, where a loss falls steeply
    first, last = at - half, np.minimum(at + half + 1, len(values))
    with np.errstate(invalid="ignore"):  # NaN where no value is finite
        means: list[float] = ((sums[last] - sums[first]) / (counts[last] - counts[first])).tolist()
    return means


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


def lacks_letters(text: str) -> bool:
    """Whether matplotlib's font lacks a letter of the text, for which it would draw a box, and warn."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    font = get_font(findfont(FontProperties()))
    return not all(font.get_char_index(ord(letter)) for letter in text if not letter.isspace())


def save_figure(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write the figure as a PNG file.

    Raises:   OSError: the file cannot be written.
    """
    with atomic_write(path) as file:
        figure.savefig(file, format="png", dpi=120)


def attention_map(source: Sequence[str], target: Sequence[str], weights: Any) -> Any:
    """A figure of attention: one row for each word of the target, one column for each of the source; dark is much.

    Args:     weights: (target, source), from 0 to 1.
    """
    figure = new_figure(2 + 0.45 * len(source), 1.5 + 0.4 * len(target))
    axes = figure.add_subplot()
    image = axes.imshow(weights, cmap="Blues", vmin=0, vmax=max(0.5, float(np.max(weights))), aspect="auto")
    axes.set_xticks(range(len(source)), source, rotation=60, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(target)), target)
    axes.xaxis.tick_top()
    figure.colorbar(image, label="attention")
    return figure
