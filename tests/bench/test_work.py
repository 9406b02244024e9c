"""How often work is done in a round, what of it is timed, and what it says of its memory."""

import pytest

from tinygrad_llm.bench import work
from tinygrad_llm.bench.work import ROUND, Work, numpy_facts
from tinygrad_llm.runtime import peak_memory


class Clock:
    """Time that passes only when it is told to."""

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
def test_a_round_lasts_long_enough_and_tells_the_mean(seconds, times, clock):
    asked = []

    def do():
        asked.append(clock.now)
        clock.passes(seconds)

    one = Work(lambda: "the answer", do, 0, dict)
    assert one.answer() == "the answer"
    assert one.round() == pytest.approx(seconds)  # the first, which says how many go into the next
    assert len(asked) == 1
    assert one.round() == pytest.approx(seconds)
    assert len(asked) == 1 + times
    assert one.about()["times"] == times


def test_preparing_is_not_timed(clock):
    done = []

    def prepare():
        done.append("prepare")
        clock.passes(100.0)

    def do():
        done.append("do")
        clock.passes(ROUND / 2)

    one = Work(lambda: None, do, 0, dict, prepare)
    assert [one.round(), one.round()] == pytest.approx([ROUND / 2] * 2)
    assert done == ["prepare", "do"] * 3


def test_a_piece_of_what_is_done_at_once(clock):
    one = Work(lambda: None, lambda: clock.passes(2 * ROUND), 0, dict, pieces=64)
    assert [one.round(), one.round()] == pytest.approx([ROUND / 32] * 2)


def test_memory_above_what_was_there_after_imports(monkeypatch):
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


def test_the_kernels_are_named():
    assert numpy_facts()["blas"]
