"""The bench's table: every cell, and the notes below it."""

import pytest

from tinygrad_llm.bench import Timing, table
from tinygrad_llm.bench.limits import Limits
from tinygrad_llm.bench.measure import OURS, Case, Measure

NAMES = (OURS, "torch", "other", "absent")
ABOUT = {"version": "2", "blas": "mkl"}
FACTS = {"cpu": "A", "cores": 2, "python": "3", "numpy": "2", "busy": 0, "load_average": 0.1, OURS: "1"}


def measured(amount=None, unit="s", rounds=3):
    timings = [
        Timing(OURS, [1.0, 2.0, 4.0][:rounds], 0.0, {"memory": {"peak": 7e6}}),
        Timing("torch", [5.0, 4.0, 3.0][:rounds], 0.0, ABOUT),
        Timing("other", [9.0, 9.0, 9.0][:rounds], 1.0, ABOUT),
    ]
    return Measure(Case("work", {}, {}, flops=1e9, amount=amount, unit=unit), timings, Limits(1e9, 1e9))


def test_cells_hold_times_ratios_the_limit_and_memory():
    head, row = table.cells([measured()], NAMES)
    assert head[1:] == [*NAMES, *(f"ratio to {name}" for name in NAMES[1:]), *head[-3:]]
    assert row == [
        "work", "2.00 (1.00–4.00) s", "4.00 (3.00–5.00) s", "9.00 (9.00–9.00) s", table.NOTHING,
        "2.00 (0.75–5.00)", "another result", table.NOTHING, "1.00 s", "50%", "7 / unknown / unknown",
    ]  # fmt: skip


def test_a_table_that_just_fits_the_screen_stays_a_table():
    rows = [["", "time", "ratio"], ["work", "2 s", "1"]]
    table_of_rows = ["      time  ratio", "work  2 s   1"]
    assert table.plain(rows, 17) == table_of_rows
    assert table.plain(rows, 16) == ["work", "  time   2 s", "  ratio  1"]


def test_a_rate_is_shown_from_the_slowest_round_to_the_fastest():
    _, row = table.cells([measured(amount=8.0, unit="MB/s")], NAMES[:2])
    assert row[1:3] == ["4.00 (2.00–8.00) MB/s", "2.00 (1.60–2.67) MB/s"]


@pytest.mark.parametrize(
    ("rounds", "words"), [([1], "1 round."), ([3], "3 rounds."), ([1, 3], "1 or 3 rounds.")], ids=str
)
def test_notes_say_how_many_rounds_there_were(rounds, words):
    assert f"Median (min–max) of {words}" in next(table.notes([measured(rounds=n) for n in rounds], FACTS, 2))


def test_notes_name_the_best_rates_of_the_run():
    case, timings = measured().case, measured().timings
    measures = [Measure(case, timings, limits) for limits in (Limits(2e9, 5e9), None, Limits(3e9, 4e9))]
    (note,) = [line for line in table.notes(measures, FACTS, 2) if line.startswith("Limit: ")]
    assert note.startswith(
        "Limit: at NumPy's best rates in the same run, up to 3 GF/s in float32 products and 5 GB/s to"
    )


def test_few_rounds_make_a_ratio_unreliable_and_no_other_figure():
    def warned(one):
        return any(line.startswith("Too few rounds") for line in table.notes([one], FACTS, 2))

    one = measured()
    assert warned(one)
    assert not warned(Measure(one.case, one.timings[:1], one.limits))
