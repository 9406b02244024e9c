"""The pictures of a run."""

import math
import struct
import sys

import numpy as np
import pytest

from tinygrad_llm.runs.pictures import confusion_matrix, gradients, loss_curve, save_confusion, save_pictures
from tinygrad_llm.training import Step

STEPS = [
    Step(0, 4.0, 0.0, 0.0, 0.0, 4.0),
    Step(1, 3.0, 0.1, 1.0, 9.0, None),
    Step(2, 2.0, 0.05, 1.0, 9.0, 2.5, layer_grad_norm={"wte": 0.5, "h.0": 0.1, "ln_f": 0.0}),
    Step(3, math.nan, 0.01, math.inf, 9.0, None, layer_grad_norm={"wte": math.inf, "h.0": math.nan, "ln_f": 0.0}),
    Step(4, 1.0, 0.0, 1.0, 9.0, 2.0, layer_grad_norm={"wte": 0.25, "h.0": 0.2, "ln_f": 0.0}),
]


@pytest.mark.parametrize("steps", [STEPS, STEPS[3:4], []], ids=["a run", "no finite number", "no step"])
def test_both_pictures_are_png_files(steps, tmp_path):
    pytest.importorskip("matplotlib")
    save_pictures(steps, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["gradients.png", "loss.png"]
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG\r\n\x1a\n")
        assert b"IEND" in data[-12:]


@pytest.mark.parametrize(
    "labels",
    [["ham", "spam"], ["$x", "$_{$"], ["垃圾", "\x1b[31m"], ["a" * 500, "a\nb"], [str(i) for i in range(100)]],
    ids=["usual", "dollars", "odd letters", "long", "many"],
)
def test_the_confusion_of_a_classifier_is_a_png_file(tmp_path, labels):
    pytest.importorskip("matplotlib")
    save_confusion({"labels": labels, "confusion": np.eye(len(labels), dtype=int).tolist()}, tmp_path)
    data = (tmp_path / "confusion.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", data[16:24])
    assert 400 < height < width < 2000


def test_classes_of_a_confusion_have_names_that_the_font_can_write():
    pytest.importorskip("matplotlib")
    (axes,) = confusion_matrix(np.eye(3, dtype=int).tolist(), ["$5", "垃圾", "a long name of a class"]).axes
    assert [text.get_text() for text in axes.get_xticklabels()] == ["$5", "1", "a long name of a c …"]


def test_a_row_of_a_confusion_is_a_true_class_and_a_column_a_predicted_one():
    pytest.importorskip("matplotlib")
    (axes,) = confusion_matrix([[3, 1], [0, 5]], ["ham", "spam"]).axes
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")
    cells = {text.get_position(): text.get_text() for text in axes.texts}  # (column, row)
    assert cells == {(0, 0): "3\n75%", (1, 0): "1\n25%", (0, 1): "0\n0%", (1, 1): "5\n100%"}
    assert axes.images[0].get_array().tolist() == [[0.75, 0.25], [0, 1]]


@pytest.mark.parametrize("size", [12, 13, 60, 61])
def test_many_classes_lose_their_cells_and_more_lose_their_names(size):
    pytest.importorskip("matplotlib")
    (axes,) = confusion_matrix(np.eye(size, dtype=int).tolist(), [f"c{i}" for i in range(size)]).axes
    assert len(axes.texts) == (size * size if size == 12 else 0)
    numbered = size == 61
    assert axes.get_xlabel() == ("number of the predicted class" if numbered else "predicted")
    assert axes.get_ylabel() == ("number of the true class" if numbered else "true")
    names = [[text.get_text() for text in one.get_ticklabels()] for one in (axes.xaxis, axes.yaxis)]
    assert numbered or names == [[f"c{i}" for i in range(size)]] * 2
    assert axes.get_xticklabels()[0].get_rotation() == (90 if 12 < size < 61 else 0)


def test_losses_and_learning_rate_have_an_axis_each():
    pytest.importorskip("matplotlib")
    losses, rates = loss_curve(STEPS).axes
    assert losses.get_zorder() > rates.get_zorder()  # the learning rate is in the background
    assert losses.get_title() == "Held-out loss 4.000 → 2.000 after 4 steps"
    batch, held_out = (line.get_xydata().tolist() for line in losses.lines)
    assert batch[:2] + batch[3:] == [[1, 3.0], [2, 2.0], [4, 1.0]]
    assert held_out == [[0, 4.0], [2, 2.5], [4, 2.0]]
    assert rates.lines[0].get_xydata().tolist() == [[1, 0.1], [2, 0.05], [3, 0.01], [4, 0.0]]
    named = [text.get_text() for text in losses.get_legend().get_texts()]
    assert named == ["training", "held out", "learning rate"]


def test_gradients_have_a_line_for_each_layer():
    pytest.importorskip("matplotlib")
    figure = gradients(STEPS)
    (axes,) = figure.axes
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["wte", "h.0", "ln_f"]
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_yscale()) == ("step", "norm", "log")
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert list(lines) == ["wte", "h.0", "ln_f"]
    for layer, first, last in (("wte", 0.5, 0.25), ("h.0", 0.1, 0.2)):
        assert lines[layer][0] == [2, pytest.approx(first)]
        assert math.isnan(lines[layer][1][1])
        assert lines[layer][2] == [4, pytest.approx(last)]
    assert axes.get_title().startswith("Gradient norm of each layer")


@pytest.mark.parametrize("n", [9, 10, 200])
def test_long_curves_are_smoothed_above_the_values_themselves(n):
    pytest.importorskip("matplotlib")
    steps = [Step(0, 5.0, 0.0, 0.0, 0.0, 5.0)]
    for i in range(1, n + 1):
        loss = 3 + (-1) ** i
        steps.append(Step(i, loss, 0.1, 1.0, 9.0, None, layer_grad_norm={"wte": 10.0 ** (loss - 3)}))
    for axes, label in ((loss_curve(steps).axes[0], "training"), (gradients(steps).axes[0], "wte")):
        (shown,) = (line.get_ydata() for line in axes.lines if str(line.get_label()).startswith(label))
        swings = max(shown[n // 2 :]) / min(shown[n // 2 :])
        raw = [line for line in axes.lines if len(line.get_xydata()) == n]
        assert len(raw) == (1 if n < 10 else 2)
        assert n < 10 or swings < (2 if n == 200 else 5)


def test_without_matplotlib_there_is_no_picture(tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    save_pictures(STEPS, tmp_path)
    save_confusion({"labels": ["ham", "spam"], "confusion": [[3, 1], [0, 4]]}, tmp_path)
    assert not list(tmp_path.iterdir())
