"""Turns, replies and failures of workers, with toy contenders; ratios of fixed numbers."""

import dataclasses
import math
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.bench import BenchError, Contender, Timing, agree, alternate, harness, ratio


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(harness, "PAUSE", 0.0)  # toys have no threads


@pytest.fixture
def toy(tmp_path):
    """A function: (class in toys.py, name, options) → Contender. `toy.log()`: all requests, in order."""

    def make(kind, name="toy", environment=None, **options):
        options = {"log": str(tmp_path / "log"), "name": name, **options}
        return Contender(name, f"toys:{kind}", options, environment or {})

    make.log = lambda: (tmp_path / "log").read_text().splitlines()
    return make


@pytest.fixture
def processes(monkeypatch):
    """All processes that the harness starts."""
    started = []
    popen = harness.subprocess.Popen

    def start(*args, **kwargs):
        started.append(popen(*args, **kwargs))
        return started[-1]

    monkeypatch.setattr(harness.subprocess, "Popen", start)
    return started


def all_ended(processes):
    return [process.poll() is not None and process.stdout.closed for process in processes] == [True] * len(processes)


def test_contenders_take_strict_turns_and_warm_ups_do_not_count(toy, processes):
    told = []
    a, b = alternate([toy("Counter", "a"), toy("Talker", "b", unit=10)], rounds=3, warmup=2, progress=told.append)
    assert toy.log() == ["a answer", "b answer", *["a round", "b round"] * 5, "a about", "b about"]
    assert (a.name, a.seconds) == ("a", [3, 4, 5])
    assert (b.name, b.seconds) == ("b", [30, 40, 50])
    assert (a.about["rounds"], b.about["rounds"]) == (5, 5)
    assert a.answer["name"] == "a"
    assert len({os.getpid(), a.about["process"], b.about["process"]}) == 3
    assert len(processes) == 2
    assert all_ended(processes)
    assert [process.returncode for process in processes] == [0, 0]
    warm_ups, rounds = ["warming up"] * 2, [f"round {i} of 3" for i in (1, 2, 3)]
    assert told == ["a gives its answer", "b gives its answer", *warm_ups, *rounds]


def test_a_contender_has_its_own_environment(toy, monkeypatch):
    monkeypatch.setenv("TOY", "of this process")
    monkeypatch.setenv("OTHER", "of this process")
    contender = toy("Environment", environment={"TOY": "its own"})
    contender = dataclasses.replace(contender, without=["TOY", "OTHER", "ABSENT"])
    environment = alternate([contender], rounds=1, warmup=0)[0].answer
    assert (environment["TOY"], environment.get("OTHER")) == ("its own", None)
    assert environment["PATH"] == os.environ["PATH"]


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("Raiser", {}, "bad: RuntimeError: the work is too hard"),
        ("Crasher", {}, "bad: its process ended with status 7: the last words"),
        ("Babbler", {"said": "no reply\n"}, "bad: got b'no reply\\n' where its reply was expected"),
        ("Babbler", {"said": "[1]\n"}, "bad: got b'[1]\\n' where"),
        ("not_to_be_made", {}, "bad: ValueError: cannot be made"),
    ],
)
def test_a_worker_that_fails_ends_the_run_with_its_message(kind, options, message, toy, processes):
    with pytest.raises(BenchError) as raised:
        alternate([toy(kind, "bad", **options)], rounds=2)
    assert message in str(raised.value)
    assert all_ended(processes)


def test_a_worker_that_hangs_is_ended(toy, processes, monkeypatch):
    monkeypatch.setattr(harness, "GRACE", 0.05)
    with harness._Worker(toy("Sleeper", "slow"), timeout=60) as worker:
        worker._timeout = 0.05  # set after the start, which takes longer
        with pytest.raises(BenchError, match=r"^slow: no reply within 0\.05 s$"):
            worker.ask("round")
    assert all_ended(processes)
    assert processes[0].returncode != 0


def test_a_worker_that_does_not_start_in_time_is_ended(toy, processes):
    with pytest.raises(BenchError, match=r"^slow: no reply within 0 s$"):
        alternate([toy("Counter", "slow")], timeout=0)
    assert all_ended(processes)


def test_ctrl_c_leaves_no_process(toy, processes, monkeypatch):
    def interrupted(worker, request):
        raise KeyboardInterrupt

    monkeypatch.setattr(harness._Worker, "ask", interrupted)
    with pytest.raises(KeyboardInterrupt):
        alternate([toy("Counter", "a"), toy("Counter", "b")], rounds=1)
    assert len(processes) == 2
    assert all_ended(processes)


# ---- arithmetic --------------------------------------------------------------------------------------------------


def test_timing_gives_median_min_and_max():
    timing = Timing("a", [3.0, 1.0, 8.0, 2.0])
    assert (timing.median, timing.min, timing.max) == (2.5, 1.0, 8.0)


def test_ratio_is_theirs_divided_by_ours_with_the_spread_of_the_rounds():
    found = ratio(Timing("ours", [1.0, 2.0, 4.0]), Timing("theirs", [3.0, 2.0, 10.0]))
    assert (found.median, found.low, found.high) == (1.5, 1.0, 3.0)


SECONDS = st.floats(1e-6, 1e3)


@given(rounds=st.lists(st.tuples(SECONDS, SECONDS), min_size=1), factor=st.sampled_from([0.25, 2.0, 16.0]))
def test_ratio_is_unchanged_if_both_are_slower(rounds, factor):
    ours, theirs = ([pair[k] for pair in rounds] for k in (0, 1))
    slower = [[second * factor for second in seconds] for seconds in (ours, theirs)]
    found = ratio(Timing("a", ours), Timing("b", theirs))
    assert ratio(*(Timing("x", seconds) for seconds in slower)) == found
    assert found.low <= found.high
    assert ratio(Timing("a", ours), Timing("a", ours)) == harness.Ratio(1, 1, 1)


@pytest.mark.parametrize(
    ("one", "other", "tolerance"),
    [
        ("abc", "abc", 0.0),
        ([1, 2, 3], [1, 2, 3], 0.0),
        (4.171, 4.1714, 1e-3),
        (0.0, 5e-4, 1e-3),
        (1000.5, 1000.0, 1e-3),
        ([[1, 2], [0.5]], [[1, 2], [0.5004]], 1e-3),
        (None, None, 0.0),
        (0.0009, 0.0, 1e-3),
        (-1000.9, -1000.0, 1e-3),
    ],
)
def test_equal_answers_agree(one, other, tolerance):
    assert agree(one, other, tolerance)


@pytest.mark.parametrize(
    ("one", "other", "tolerance"),
    [
        ("abc", "abd", 1.0),
        ([1, 2, 3], [1, 2], 1.0),
        ([1, 2], [2, 1], 1e-3),
        (4.171, 4.176, 1e-3),
        (4.171, None, 1.0),
        (0.0015, 0.0, 1e-3),  # small numbers have an absolute tolerance
        (-1002.0, -1000.0, 1e-3),
        (math.nan, math.nan, 1.0),
        (math.inf, 1.0, 1.0),
        ([[1, 2], [0.5]], [[1, 2], [0.502]], 1e-3),
        ([[1, 512]], [[1, 1]], 1e-3),
    ],
)
def test_different_answers_do_not_agree(one, other, tolerance):
    assert not agree(one, other, tolerance)
