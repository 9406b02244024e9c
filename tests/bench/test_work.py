"""How often a round repeats the work, what is timed, and the memory reported."""

import pytest

from tinygrad_llm.bench import work
from tinygrad_llm.bench.work import ROUND, Work, numpy_facts
from tinygrad_llm.runtime import peak_memory


class Clock:
    """A clock that moves only by `passes`."""

    def __init__(self):
        self.now = 0.0

    def passes(self, seconds):
        self.now += seconds

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(work, "time", clock)
    return clock


@pytest.mark.parametrize(("seconds", "times"), [(2 * ROUND, 1), (ROUND / 2, 2), (ROUND / 10.5, 11)])
def test_a_round_lasts_long_enough_and_reports_the_mean(seconds, times, clock):
    asked = []

    def do():
        asked.append(clock.now)
        clock.passes(seconds)

    one = Work(lambda: "the answer", do, 0, dict)
    assert one.answer() == "the answer"
    assert one.round() == pytest.approx(seconds)  # the first round determines how often the next repeats the work
    assert len(asked) == 1
    assert one.round() == pytest.approx(seconds)
    assert len(asked) == 1 + times + (times > 1)  # short work is repeated, and its first repetition not timed
    assert one.about()["times"] == times


def test_prepare_is_not_timed(clock):
    done = []

    def prepare():
        done.append("prepare")
        clock.passes(100.0)

    def do():
        done.append("do")
        clock.passes(ROUND / 2)

    one = Work(lambda: None, do, 0, dict, prepare)
    assert [one.round(), one.round()] == pytest.approx([ROUND / 2] * 2)
    assert done == ["prepare", "do"] * 4


def test_the_first_piece_of_short_work_after_a_pause_is_not_timed(clock):
    took = iter([ROUND / 4, *[9.0, 1.0, 2.0, 3.0, 4.0] * 2])
    one = Work(lambda: None, lambda: clock.passes(next(took)), 0, dict)
    assert [one.round(), one.round(), one.round()] == pytest.approx([ROUND / 4, 2.5, 2.5])


def test_seconds_are_per_piece(clock):
    one = Work(lambda: None, lambda: clock.passes(2 * ROUND), 0, dict, pieces=64)
    assert [one.round(), one.round()] == pytest.approx([ROUND / 32] * 2)


def test_memory_is_reported_above_that_of_the_imports(monkeypatch):
    monkeypatch.setattr(work, "peak_memory", lambda: 700)
    facts = {"version": "1"}
    assert Work(list, list, 200, lambda: facts).about() == {
        "version": "1",
        "times": 0,
        "memory": {"peak": 700, "above_imports": 500},
    }
    assert Work(list, list, None, lambda: facts).about()["memory"] == {"peak": 700, "above_imports": None}


def test_peak_memory_is_that_of_this_program(tmp_path):
    status = tmp_path / "status"
    status.write_text("Name:\tpython\nVmPeak:\t  999 kB\nVmHWM:\t   12 kB\nVmRSS:\t   11 kB\n")
    assert peak_memory(status) == 12 * 1024
    before = peak_memory()
    if before is not None:
        held = bytearray(64_000_000)
        held[::4096] = b"x" * len(held[::4096])
        assert peak_memory() >= max(before, 64_000_000)
        assert peak_memory(tmp_path / "none") > 1_000_000  # by getrusage


def test_numpys_blas_is_named():
    assert numpy_facts()["blas"]
