"""Contenders start alike, one with another answer gets no ratio, and the figures are complete as JSON."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinygrad_llm import runtime
from tinygrad_llm.bench import BenchError, Timing, alternate
from tinygrad_llm.bench import measure as module
from tinygrad_llm.bench.limits import Limits
from tinygrad_llm.bench.measure import OURS, THREADS, Case, Measure, Setup, held_to, measure, missing

SUBJECTS = {OURS: "ours:do", "torch": "theirs:do", "other": "other:do"}


@pytest.fixture
def runs(monkeypatch):
    """The calls of a fake `alternate`, in which each contender takes a second and answers "done"."""
    runs = []

    def alternate(contenders, rounds, progress):
        runs.append((contenders, rounds))
        progress("round 1")
        *them, limit = contenders
        return [Timing(c.name, [1.0], "done") for c in them] + [
            Timing(limit.name, [9.0], None, {"flops": 4e9, "bandwidth": 2e9})
        ]

    monkeypatch.setattr(module, "alternate", alternate)
    return runs


def test_contenders_start_alike_and_take_turns_with_the_machines_limit(runs):
    told = []
    case = Case("work", SUBJECTS, {"size": 3}, flops=2e9, traffic=1e9)
    found = measure(case, Setup(["torch", "absent"], 5, 2, told.append))
    ((ours, theirs, machine), rounds) = runs[0]
    assert [c.name for c in (ours, theirs)] == [OURS, "torch"]
    assert (ours.subject, theirs.subject, machine.subject) == ("ours:do", "theirs:do", "tinygrad_llm.bench.limits:best")
    assert ours.options == theirs.options == {"size": 3}
    threads = dict.fromkeys(THREADS, "2")
    assert ours.environment == machine.environment == threads
    assert theirs.environment == threads | {runtime.OFF: "0"}
    assert rounds == 5
    assert told == ["work: round 1"]
    assert found.limits == Limits(4e9, 2e9)
    assert found.limit == 1.0
    assert [timing.name for timing in found.timings] == [OURS, "torch"]


def test_our_tuning_does_not_reach_other_contenders(runs, monkeypatch, tmp_path):
    tuned = {"OPENBLAS_TOY": "by us", "OPENBLAS_NUM_THREADS": "7"}
    monkeypatch.setattr(runtime, "chosen", tuned)
    monkeypatch.delenv(runtime.OFF, raising=False)
    for name, value in {**tuned, "OMP_TOY": "by the user"}.items():
        monkeypatch.setenv(name, value)
    options = {"log": str(tmp_path / "log"), "name": "toy"}
    measure(Case("work", dict.fromkeys(SUBJECTS, "toys:Environment"), options), Setup(["torch"], 1, 2))
    contenders = [contender for contender in runs[0][0] if contender.subject.startswith("toys")]
    ours, theirs = (timing.answer for timing in alternate(contenders, rounds=1, warmup=0))
    assert ours["OPENBLAS_TOY"] == "by us"
    assert runtime.OFF not in ours
    assert "OPENBLAS_TOY" not in theirs
    assert theirs[runtime.OFF] == "0"
    assert theirs["OMP_TOY"] == "by the user"
    assert ours["OPENBLAS_NUM_THREADS"] == theirs["OPENBLAS_NUM_THREADS"] == "2"


FIXED = Measure(
    Case("work", SUBJECTS, {}, 1e-3, flops=1e9, traffic=1e9, amount=6.0, unit="tokens/s"),
    [
        Timing(OURS, [1.0, 2.0, 3.0], [4.0, 3.0], {"memory": {"peak": 7}}),
        Timing("torch", [4.0, 3.0, 3.0], [4.0, 3.002]),
        Timing("other", [9.0, 9.0, 9.0], [4.0, 3.1]),
    ],
    Limits(2e9, 2e9),
)


def test_a_contender_with_another_result_gets_no_ratio():
    assert FIXED.different() == ["other"]
    row = FIXED.row()
    assert row["ratio"] == {"torch": 1.5}
    assert row["spread"] == {"torch": [1.0, 4.0]}
    assert [row["theirs"][name]["same_result"] for name in ("torch", "other")] == [True, False]


def test_json_holds_all_figures():
    row = json.loads(json.dumps(FIXED.row()))
    assert row["measure"] == "work"
    assert row["rounds"] == 3
    assert row["ours"] == {
        "seconds": {"median": 2.0, "min": 1.0, "max": 3.0, "rounds": [1.0, 2.0, 3.0]},
        "tokens_per_second": 3.0,
        "share_of_limit": 0.5,
        "memory": {"peak": 7},
    }
    machine = {"flops": 2e9, "bandwidth": 2e9}
    assert row["limit"] == {"seconds": 1.0, "flops": 1e9, "bytes": 1e9, "machine": machine}
    unlimited = Measure(FIXED.case, FIXED.timings)
    assert unlimited.limit is None
    assert "limit" not in unlimited.row()


def test_more_threads_than_cores_are_refused(monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 2)
    with pytest.raises(BenchError, match=r"^--threads 3: this process may use 2 core\(s\)$"), held_to(3):
        pass


def test_fewer_threads_than_cores_are_refused_where_the_system_cannot_do_it(monkeypatch):
    monkeypatch.setattr(runtime, "cores", lambda: 2)
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(BenchError, match="this system cannot hold a process to fewer than its 2 cores"), held_to(1):
        pass


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="not on this system")
def test_fewer_threads_apply_inside_the_block_only():
    before = os.sched_getaffinity(0)
    with held_to(1):
        assert runtime.cores() == 1
    assert os.sched_getaffinity(0) == before
    with held_to(runtime.cores()):
        assert os.sched_getaffinity(0) == before


def test_missing_lists_the_packages_of_a_contender(monkeypatch):
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None)
    assert missing("torch") == missing("torch-compile") == ["torch"]
    assert missing("transformers") == ["torch", "transformers"]
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: "there")
    assert missing("transformers") == []


STARTER = """
import time
from tinygrad_llm.bench.measure import busy, subprocess
def popen(*arguments, popen=subprocess.Popen, **options):
    process = popen(*arguments, **options)
    print(process.pid, flush=True)
    return process
subprocess.Popen = popen
with busy(2):
    time.sleep(60)
"""


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_busy_processes_compute_and_end_with_the_one_that_started_them(how, popen):
    def state(pid):
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return None

    def until(wanted):
        end = time.monotonic() + 20
        while not all(state(pid) in wanted for pid in pids):
            assert time.monotonic() < end, [state(pid) for pid in pids]
            time.sleep(0.01)

    starter = popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    pids = [int(starter.stdout.readline()) for _ in range(2)]
    until({"R"})
    starter.send_signal(how)
    starter.wait(20)
    until({None, "Z"})
