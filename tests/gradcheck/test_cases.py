"""The table of cases: everything in it is proven, and everything there is stands in it."""

import pytest

from tinygrad_llm import nn
from tinygrad_llm.gradcheck import TOLERANCE, all_cases, run, uncovered
from tinygrad_llm.gradcheck.ledger import layers
from tinygrad_llm.kernels import KERNELS


@pytest.mark.parametrize("case", all_cases(), ids=lambda case: case.name)
def test_the_gradient_is_proven(case):
    (row,) = run([case])
    assert row.passed, row.message
    assert row.elements > 0
    assert row.error <= (1e-12 if case.method == "complex" else 1e-9)
    assert row.tolerance == TOLERANCE[case.method]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_other_inputs_are_proven_too(seed):
    assert [row.message for row in run(all_cases(), seed) if not row.passed] == []


def test_names_are_unique():
    names = [case.name for case in all_cases()]
    assert len(set(names)) == len(names)


def test_only_what_has_a_kink_is_checked_by_differences():
    assert {case.covers for case in all_cases() if case.method != "complex"} == {"relu", "absolute", "maximum", "max"}


def test_nothing_is_uncovered():
    assert uncovered() == []


@pytest.mark.parametrize("left_out", [*KERNELS, *layers()])
def test_what_is_left_out_is_reported(left_out):
    assert uncovered(case for case in all_cases() if case.covers != left_out) == [left_out]


def test_a_new_layer_without_a_case_is_reported(monkeypatch):
    class Unproven(nn.Module):
        pass

    monkeypatch.setattr(nn, "Unproven", Unproven, raising=False)
    monkeypatch.setattr(nn, "__all__", [*nn.__all__, "Unproven"])
    assert uncovered() == ["Unproven"]


def test_a_wrong_gradient_becomes_a_row_with_a_message(monkeypatch):
    case = next(case for case in all_cases() if case.covers == "tanh")
    monkeypatch.setattr("tinygrad_llm.gradcheck.cases.apply", lambda kernel, x: x.detach())
    (row,) = run([case])
    assert not row.passed
    assert "does not depend" in row.message
