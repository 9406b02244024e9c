"""The error against the step: slopes and best steps follow the theory, and the complex step has no V."""

import math
import sys

import numpy as np
import pytest

from tinygrad_llm.autograd import apply
from tinygrad_llm.gradcheck import Case, all_cases
from tinygrad_llm.gradcheck.curve import METHODS, STEPS, TINY, best, curve, picture, table
from tinygrad_llm.random import Generator

CASES = {case.covers: case for case in reversed(all_cases()) if case.method in ("complex", "richardson")}
SMOOTH = ["exp", "log"]
EPS = 2.0**-52


@pytest.fixture(scope="module", params=SMOOTH)
def points(request):
    return curve(CASES[request.param])


def errors(points, method):
    return {p.h: p.error for p in points if p.method == method}


@pytest.mark.parametrize(("method", "order"), [("forward", 1), ("central", 2), ("complex", 2)])
def test_the_slope_is_the_order_where_truncation_dominates(points, method, order):
    found = [(h, e) for h, e in errors(points, method).items() if 1e-4 < h < 2e-2]
    assert len(found) == 4
    slope = np.polyfit(*np.log(found).T, 1)[0]
    assert slope == pytest.approx(order, abs=0.2)


def test_richardson_has_order_eight():
    found = errors(curve(CASES["log"], [0.3, 0.2]), "richardson")  # 1/x at x ≥ 0.5: h⁸ stands out from rounding
    slope = math.log(found[0.3] / found[0.2]) / math.log(0.3 / 0.2)
    assert 7 < slope < 12  # at so large a step, higher powers add to it


@pytest.mark.parametrize("method", ["forward", "central", "richardson"])
def test_the_slope_is_minus_1_where_rounding_dominates(points, method):
    found = [(h, e) for h, e in errors(points, method).items() if 1e-13 < h < 1e-9]
    slope = np.polyfit(*np.log(found).T, 1)[0]
    assert slope == pytest.approx(-1, abs=0.2)


@pytest.mark.parametrize("method", ["forward", "central", "richardson"])
def test_the_best_step_and_its_error_follow_the_theory(points, method):
    p = {"forward": 1, "central": 2, "richardson": 8}[method]
    lowest = best(points, method)
    assert 1e-2 < lowest.h / EPS ** (1 / (p + 1)) < 1e2
    assert 1e-2 < lowest.error / EPS ** (p / (p + 1)) < 1e2


def test_the_complex_step_stays_exact_however_small_it_is(points):
    found = errors(points, "complex")
    flat = [e for h, e in found.items() if h <= 1e-9]
    assert len(flat) >= 20
    assert max(flat) <= 1e-14
    assert set(TINY) <= set(found)
    assert best(points, "complex").h < 1e-6


def test_each_method_is_more_precise_than_the_one_before_it(points):
    lowest = [best(points, m).error for m in ("forward", "central", "richardson", "complex")]
    assert lowest == sorted(lowest, reverse=True)


def test_differences_end_where_x_plus_h_is_x(points):
    for method in ("forward", "central", "richardson"):
        assert list(errors(points, method)) == [h for h in STEPS if h >= EPS]
    assert list(errors(points, "complex")) == [*STEPS, *TINY]


def test_forward_is_the_textbook_formula():
    def square(x):
        return x * x, lambda g: (2 * g * x,)

    x = np.array([0.5, -1.5, 2.0])
    case = Case("kernels", "square", "", lambda rng: (lambda t: apply(square, t), [x], ["x"]))
    # ((x + h)² − x²)/h − 2x = h in each element, weighed by v; every term is exact in binary with h = 2⁻¹⁰.
    h = 2.0**-10
    v = Generator(1).randn((3,), np.float64)
    expected = np.max(np.abs(v * h)) / (np.max(np.abs(2 * x * v)) + 0.01)
    assert errors(curve(case, [h]), "forward")[h] == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ["relu", "absolute", "max"])
def test_a_kinked_function_has_no_curve_of_the_complex_step_and_the_table_says_so(name):
    points = curve(CASES[name], [1e-2, 1e-5])
    assert {p.method for p in points} == {"forward", "central", "richardson"}
    assert "complex step left out" in table(points)


def test_a_step_that_leaves_the_domain_gives_no_point():
    points = curve(CASES["log"], [3.0, 1e-5])
    assert list(errors(points, "central")) == [1e-5]
    assert list(errors(points, "complex")) == [3.0, 1e-5]


def test_a_wrong_gradient_is_a_flat_line_for_every_method():
    def wrong(x):
        return x * x * x, lambda g: (2.9 * g * x * x,)

    case = Case("kernels", "wrong", "", lambda rng: (lambda t: apply(wrong, t), [rng.randn((3,), np.float64)], ["x"]))
    points = curve(case, [1e-3, 1e-5, 1e-7])
    assert min(p.error for p in points) > 1e-2


def test_a_layer_has_a_curve_over_its_input_and_its_parameters():
    points = curve(CASES["LayerNorm"], [1e-5])
    assert {p.method: p.error < 1e-3 for p in points} == dict.fromkeys(METHODS, True)


def test_the_same_seed_gives_the_same_curve():
    assert curve(CASES["gelu"], [1e-5], seed=3) == curve(CASES["gelu"], [1e-5], seed=3)
    assert curve(CASES["gelu"], [1e-5], seed=3) != curve(CASES["gelu"], [1e-5], seed=4)


@pytest.mark.parametrize("steps", [[0.0], [-1e-5], [math.nan], [math.inf]])
def test_a_step_that_is_not_above_0_is_refused(steps):
    with pytest.raises(ValueError, match="steps must be numbers > 0"):
        curve(CASES["tanh"], steps)


def test_a_case_without_a_derivative_is_refused():
    case = next(case for case in all_cases() if case.covers == "AdamW")
    with pytest.raises(ValueError, match="AdamW"):
        curve(case)


def test_the_table_has_one_line_per_step_and_fits_a_terminal(points):
    lines = table(points).splitlines()
    assert len(lines) == 1 + len(STEPS) + len(TINY) + 1
    assert [float(line.split()[0]) for line in lines[1:-1]] == pytest.approx([*STEPS, *TINY], rel=0.06)
    assert lines[0].split() == ["h", "forward", "central", "richardson", "complex"]
    assert sum(line.count("*") for line in lines[:-1]) == 4  # the best of each
    assert max(map(len, lines)) <= 80


def test_the_bars_show_the_v_and_the_flat_line(points):
    rows = table(points).splitlines()[1:-1]

    def bars(start):
        return [row[start:].split("  ")[0].count("█") for row in rows if row[start:].strip()]

    central, exact = (8 + 18 * k + 8 for k in (1, 3))
    v = [b for row, b in zip(rows, bars(central), strict=False) if row[central : central + 1].strip()]
    low = v.index(min(v))
    assert v[0] > v[low] + 2  # down …
    assert v[-1] > v[low] + 2  # … and up again
    assert max(bars(exact)[20:]) <= 1


@pytest.mark.parametrize("name", ["gelu", "relu"])
def test_the_picture_is_a_png(name, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "curve.png"
    picture(curve(CASES[name], [1e-1, 1e-3, 1e-5, 1e-7, 1e-200]), path, name)
    data = path.read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert b"IEND" in data[-12:]
    assert list(tmp_path.iterdir()) == [path]


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=r"pip install 'tinygrad_llm\[app\]'") as caught:
        picture([], tmp_path / "curve.png", "")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
