"""The pictures of a run."""

import math
import sys

import pytest

from tinygrad_llm.training import Step
from tinygrad_llm.runs import pictures as picture
from tinygrad_llm.runs.pictures import save_gradients, save_loss_curve

STEPS = [
    Step(0, 4.0, 0.0, 0.0, 0.0, 4.0),
    Step(1, 3.0, 0.1, 1.0, 9.0, None),
    Step(2, 2.0, 0.05, 1.0, 9.0, 2.5, layer_grad_norm={"wte": 0.5, "h.0": 0.1, "ln_f": 0.0}),
    Step(3, math.nan, 0.01, math.inf, 9.0, None, layer_grad_norm={"wte": math.inf, "h.0": math.nan, "ln_f": 0.0}),
    Step(4, 1.0, 0.0, 1.0, 9.0, 2.0, layer_grad_norm={"wte": 0.25, "h.0": 0.2, "ln_f": 0.0}),
]
DRAW = [save_loss_curve, save_gradients]


@pytest.fixture
def figures(monkeypatch):
    """The figures that are drawn, which are not saved."""
    pytest.importorskip("matplotlib")
    found = []
    monkeypatch.setattr(picture, "save_figure", lambda figure, path: found.append(figure))
    return found


@pytest.mark.parametrize("draw", DRAW)
@pytest.mark.parametrize(
    "steps", [STEPS, STEPS[3:4], STEPS[:1], []], ids=["a run", "no numbers", "untrained", "nothing"]
)
def test_it_is_a_png(draw, steps, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "picture.png"
    assert draw(steps, path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert b"IEND" in data[-12:]
    assert list(tmp_path.iterdir()) == [path]


def test_losses_and_learning_rate_have_an_axis_each(figures, tmp_path):
    save_loss_curve(STEPS, tmp_path / "loss.png")
    losses, rates = figures[0].axes
    batch, held_out = (line.get_xydata().tolist() for line in losses.lines)
    assert batch[:2] + batch[3:] == [[1, 3.0], [2, 2.0], [4, 1.0]]
    assert held_out == [[0, 4.0], [2, 2.5], [4, 2.0]]
    assert rates.lines[0].get_xydata().tolist() == [[1, 0.1], [2, 0.05], [3, 0.01], [4, 0.0]]
    named = [text.get_text() for text in losses.get_legend().get_texts()]
    assert named == ["training batch", "held out", "learning rate"]


def test_gradients_have_a_line_a_layer(figures, tmp_path):
    save_gradients(STEPS, tmp_path / "gradients.png")
    (axes,) = figures[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert list(lines) == ["wte", "h.0", "ln_f"]
    assert lines["wte"] == [[2, 0.5], [3, math.inf], [4, 0.25]]
    assert [lines["h.0"][0], lines["h.0"][2]] == [[2, 0.1], [4, 0.2]]


@pytest.mark.parametrize("draw", DRAW)
def test_without_matplotlib_there_is_no_picture(draw, tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    assert not draw(STEPS, tmp_path / "picture.png")
    assert not list(tmp_path.iterdir())
