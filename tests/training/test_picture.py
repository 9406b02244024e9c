"""The loss curve."""

import sys

import pytest

from tinygrad_llm.training import Step, save_loss_curve

STEPS = [
    Step(0, 4.0, 0.0, 0.0, 0.0, 4.0),
    Step(1, 3.0, 0.1, 1.0, 9.0, None),
    Step(2, 2.0, 0.1, 1.0, 9.0, 2.5),
]


@pytest.mark.parametrize("steps", [STEPS, STEPS[:1], []], ids=["a run", "untrained", "nothing"])
def test_the_curve_is_a_png(steps, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "loss.png"
    assert save_loss_curve(steps, path)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert b"IEND" in data[-12:]
    assert list(tmp_path.iterdir()) == [path]


def test_without_matplotlib_there_is_no_picture(tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    assert not save_loss_curve(STEPS, tmp_path / "loss.png")
    assert not list(tmp_path.iterdir())
