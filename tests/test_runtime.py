"""The machine: the BLAS kernels and threads that are chosen, cores, quotas, memory, and NumPy's BLAS."""

import contextlib
import contextvars
import itertools
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import runtime

PACKAGE = Path(runtime.__file__).parent
AVX512 = "avx512f avx512cd avx512bw avx512dq avx512vl"


def cpuinfo(vendor, flags):
    """Two processors in the format of Linux."""
    lines = f"vendor_id\t: {vendor}\nmodel name\t: X: the processor\nflags\t\t: {flags}\npower management:\n"
    return f"processor\t: 0\n{lines}\nprocessor\t: 1\n{lines}\n"


MACHINES = {
    "AMD with AVX-512": (cpuinfo("AuthenticAMD", f"fpu sse2 avx2 {AVX512} avx512_vnni"), True),
    "AMD without AVX-512": (cpuinfo("AuthenticAMD", "fpu sse2 avx2"), False),
    "AMD with a part of AVX-512": (cpuinfo("AuthenticAMD", f"fpu avx2 {AVX512[:-9]}"), False),
    "AMD with flags that only contain the names": (cpuinfo("AuthenticAMD", AVX512.replace(" ", "x ")), False),
    "Intel with AVX-512": (cpuinfo("GenuineIntel", f"fpu sse2 avx2 {AVX512}"), False),
    "ARM": ("processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd\n", False),
    "nothing": ("", False),
}


def system(root, files):
    """A root folder with these files of a Linux system."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize("machine", MACHINES)
def test_amd_avx512_is_recognized(machine, tmp_path):
    text, expected = MACHINES[machine]
    assert runtime.has_amd_avx512(system(tmp_path, {"proc/cpuinfo": text})) is expected


def test_missing_files_of_the_system_give_defaults(tmp_path):
    assert runtime.processor(tmp_path) == {}
    assert runtime.has_amd_avx512(tmp_path) is False
    assert runtime.quota(tmp_path) is None
    assert runtime.cores(tmp_path) == runtime.affinity()
    assert runtime.memory_available(tmp_path) is None


def test_processor_is_the_first_one_listed(tmp_path):
    text = MACHINES["AMD with AVX-512"][0].replace("processor\t: 1", "processor\t: 1\nflags\t: none")
    about = runtime.processor(system(tmp_path, {"proc/cpuinfo": text}))
    assert about["model name"] == "X: the processor"
    assert about["processor"] == "0"


# Control groups of version 2, of version 1, of both (systemd's "hybrid"), and inside containers.
V2, V1 = "0::/work/job\n", "9:name=systemd:/\n4:memory:/work/job\n1:cpu,cpuacct:/work/job\n0::/\n"
GROUPS = {
    "version 2": (V2, {"work/job/cpu.max": "150000 100000\n"}, 1.5),
    "version 2, no limit": (V2, {"work/job/cpu.max": "max 100000\n"}, None),
    "version 2, a limit further out": (V2, {"work/job/cpu.max": "max 100000\n", "work/cpu.max": "50000 100000\n"}, 0.5),
    "version 2, the least counts": (V2, {"work/job/cpu.max": "300000 100000", "work/cpu.max": "200000 100000"}, 2.0),
    "version 2, another's limit": (V2, {"work/other/cpu.max": "100000 100000\n"}, None),
    "version 2, in a container that sees its own": ("0::/\n", {"cpu.max": "250000 100000\n"}, 2.5),
    "version 2, in a container that sees the host's name": ("0::/../job\n", {"cpu.max": "250000 100000\n"}, 2.5),
    "version 1": (
        V1,
        {"cpu,cpuacct/work/job/cpu.cfs_quota_us": "50000\n", "cpu,cpuacct/work/job/cpu.cfs_period_us": "20000\n"},
        2.5,
    ),
    "version 1, no limit": (
        V1,
        {"cpu,cpuacct/work/job/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/work/job/cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "version 1, in a container": (
        V1,
        {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        1.0,
    ),
    "hybrid": (
        "1:cpu:/\n0::/\n",
        {"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n", "unified/cgroup.procs": ""},
        2.0,
    ),
    "an empty file": (V2, {"work/job/cpu.max": ""}, None),
    "a file without numbers": (V2, {"work/job/cpu.max": "much\n"}, None),
    "a period of zero": (V2, {"work/job/cpu.max": "100000 0\n"}, None),
}


def grouped(root, lines, files):
    return system(root, {"proc/self/cgroup": lines} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})


@pytest.mark.parametrize("case", GROUPS)
def test_quota_of_control_groups(case, tmp_path):
    lines, files, expected = GROUPS[case]
    assert runtime.quota(grouped(tmp_path, lines, files)) == expected


@pytest.mark.parametrize(
    ("placed", "allowed", "expected"),
    [(8, None, 8), (8, 4.0, 4), (8, 1.5, 2), (8, 2.0001, 3), (8, 0.1, 1), (2, 3.5, 2), (1, 0.5, 1)],
)
def test_cores_are_limited_by_affinity_and_quota(placed, allowed, expected, monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "affinity", lambda: placed)
    monkeypatch.setattr(runtime, "quota", lambda root: allowed)
    assert runtime.cores(tmp_path) == expected


@given(placed=st.integers(1, 512), allowed=st.floats(1e-3, 1e3))
def test_cores_use_the_quota_and_exceed_it_by_less_than_one(placed, allowed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "affinity", lambda: placed)
        patch.setattr(runtime, "quota", lambda root: allowed)
        cores = runtime.cores()
    assert 1 <= cores <= placed
    assert cores < allowed + 1
    assert cores == placed or cores >= allowed


def test_cores_of_this_process_are_at_most_its_affinity():
    assert 1 <= runtime.cores() <= runtime.affinity() <= os.cpu_count()


def test_cores_without_affinity_are_all_cores(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert runtime.cores(tmp_path) == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert runtime.cores(tmp_path) == 1


MEMINFO = "MemTotal:       8000 kB\nMemFree:        1000 kB\nMemAvailable:   4000 kB\n"
OF_V2 = {"work/memory.max": "3000000\n", "work/memory.current": "2000000\n", "work/memory.stat": "inactive_file 500\n"}
OF_V1 = {
    "memory/work/job/memory.limit_in_bytes": "3000000\n",
    "memory/work/job/memory.usage_in_bytes": "2500000\n",
    "memory/work/job/memory.stat": "cache 7\ninactive_file 1\ntotal_inactive_file 100\n",
}


@pytest.mark.parametrize(
    ("lines", "files", "expected"),
    [
        (V2, {}, 4_096_000),
        (V2, OF_V2, 1_000_500),
        (V2, OF_V2 | {"work/memory.max": "max\n"}, 4_096_000),
        (V2, OF_V2 | {"work/memory.current": "4000000\n"}, 0),
        (V1, OF_V1, 500_100),
        (V1, OF_V1 | {"memory/work/job/memory.limit_in_bytes": "9223372036854771712\n"}, 4_096_000),
    ],
)
def test_memory_is_limited_by_system_and_control_groups(lines, files, expected, tmp_path):
    assert runtime.memory_available(system(grouped(tmp_path, lines, files), {"proc/meminfo": MEMINFO})) == expected


def after_prepare(tmp_path, machine="AMD with AVX-512", before="", placed=1, files=(), **environment):
    """The variables of BLAS and the state of the module after `prepare` in a new Python that runs `before` first."""
    system(tmp_path, {"proc/cpuinfo": MACHINES[machine][0]} | dict(files))
    # Only the file is loaded, because importing the package calls `prepare` for this machine.
    code = f"""
import importlib.util, os, pathlib, sys
{before}
spec = importlib.util.spec_from_file_location("runtime", {runtime.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.affinity = lambda: {placed}
module.prepare(pathlib.Path({str(tmp_path)!r}))
shown = [os.environ.get(name) for name in (module.KERNELS, module.THREADS[0])]
import json
print(json.dumps([*shown, module.chosen, module.late]))
"""
    ours = (runtime.KERNELS, runtime.OFF, *runtime.THREADS)
    clean = {name: value for name, value in os.environ.items() if name not in ours}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True, timeout=120)
    assert done.stderr == ""
    kernels, threads, chosen, late = json.loads(done.stdout)
    return {"kernels": kernels, "threads": threads, "chosen": chosen, "late": late}


def test_kernels_are_chosen_before_numpy(tmp_path):
    after = after_prepare(tmp_path)
    assert after == {"kernels": "SkylakeX", "threads": None, "chosen": {runtime.KERNELS: "SkylakeX"}, "late": False}


@pytest.mark.parametrize("machine", ["AMD without AVX-512", "Intel with AVX-512", "nothing"])
def test_no_kernels_are_chosen_where_openblas_knows_the_processor(machine, tmp_path):
    after = after_prepare(tmp_path, machine)
    assert (after["kernels"], after["chosen"]) == (None, {})


@pytest.mark.parametrize("value", ["Zen", "Haswell", ""])
def test_kernels_in_the_environment_are_kept(value, tmp_path):
    after = after_prepare(tmp_path, OPENBLAS_CORETYPE=value)
    assert (after["kernels"], after["chosen"]) == (value, {})


QUOTA = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}


def test_threads_are_as_many_as_the_quota_supplies(tmp_path):
    assert after_prepare(tmp_path, placed=8, files=QUOTA)["threads"] == "3"


@pytest.mark.parametrize("placed", [1, 2, 3])
def test_threads_are_not_set_where_no_quota_is_lower(placed, tmp_path):
    assert after_prepare(tmp_path, placed=placed, files=QUOTA)["threads"] is None


@pytest.mark.parametrize("name", runtime.THREADS)
def test_threads_in_the_environment_are_kept(name, tmp_path):
    after = after_prepare(tmp_path, placed=8, files=QUOTA, **{name: "8"})
    assert after["threads"] == ("8" if name == runtime.THREADS[0] else None)


def test_tuning_off_changes_nothing(tmp_path):
    off = after_prepare(tmp_path, placed=8, files=QUOTA, **{runtime.OFF: "0"})
    assert (off["kernels"], off["threads"]) == (None, None)
    on = after_prepare(tmp_path, placed=8, files=QUOTA, **{runtime.OFF: "1"})
    assert (on["kernels"], on["threads"]) == ("SkylakeX", "3")


def test_nothing_is_chosen_after_numpy_is_loaded(tmp_path):
    after = after_prepare(tmp_path, before="import numpy", placed=8, files=QUOTA)
    assert after == {"kernels": None, "threads": None, "chosen": {}, "late": True}


def test_another_c_library_is_left_unchanged(tmp_path):
    no_mallopt = "import ctypes\nclass Library:\n    def __init__(self, name): pass\nctypes.CDLL = Library"
    assert after_prepare(tmp_path, before=no_mallopt)["kernels"] == "SkylakeX"


def kept(count, size, tuning):
    """The share of the memory of `count` arrays of `size` bytes that a process keeps after they are freed."""
    code = f"""
import pathlib, re
from tinygrad_llm import runtime
import numpy as np
def resident():
    return 1024 * int(re.search(r"VmRSS:\\s*(\\d+)", pathlib.Path("/proc/self/status").read_text())[1])
before = resident()
arrays = [np.ones({size}, np.uint8) for _ in range({count})]
del arrays
print((resident() - before) / {count * size})
"""
    command = [sys.executable, "-c", code]
    environment = {**os.environ, runtime.OFF: tuning}
    done = subprocess.run(
        command, cwd=PACKAGE.parent, env=environment, capture_output=True, text=True, check=True, timeout=120
    )
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left unchanged")
def test_freed_memory_is_kept():
    assert kept(16, 4 << 20, tuning="1") > 0.9
    assert kept(16, 4 << 20, tuning="0") < 0.5


def test_the_package_prepares_before_it_loads_numpy():
    code = (
        "import sys, tinygrad_llm.runtime as r\n"  # loads the package first, which calls `prepare`
        "sys.exit('numpy' not in sys.modules)"
    )
    spy = (
        "import builtins, sys\n"
        "original = builtins.__import__\n"
        "def note(name, *rest):\n"
        "    if name == 'numpy' and 'numpy' not in sys.modules:\n"
        "        print('tinygrad_llm.runtime' in sys.modules)\n"
        "    return original(name, *rest)\n"
        "builtins.__import__ = note\n"
    )
    command = [sys.executable, "-c", spy + code]
    done = subprocess.run(command, cwd=PACKAGE.parent, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.split()[0] == "True"


def openblas():
    try:
        return runtime.OpenBLAS()
    except OSError:
        pytest.skip("NumPy uses another BLAS here, or its library cannot be loaded")


def test_openblas_agrees_with_threadpoolctl():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    blas = openblas()
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["internal_api"] == "openblas"]
    ours = (blas.architecture, blas.version.split(".")[:3], blas.threads)
    assert ours in [(pool["architecture"], pool["version"].split(".")[:3], pool["num_threads"]) for pool in pools]


def test_blas_threads_holds_inside_the_block_only():
    blas = openblas()
    before = blas.threads
    with runtime.blas_threads(1) as could:
        assert could
        assert blas.threads == 1
    assert blas.threads == before
    with pytest.raises(OSError, match="not linked"), runtime.blas_threads(1):
        raise OSError("not linked")
    assert blas.threads == before


def no_openblas(monkeypatch):
    def unknown(*_):
        raise OSError("another BLAS")

    monkeypatch.setattr(runtime, "OpenBLAS", unknown)


def test_another_blas_is_handled_by_threadpoolctl(monkeypatch):
    pytest.importorskip("threadpoolctl")
    directly = runtime.blas_facts()
    no_openblas(monkeypatch)
    found = runtime.blas_facts()
    assert [set(blas) for blas in found] == [set(blas) for blas in directly]
    with runtime.blas_threads(1) as could:
        assert could
        assert [blas["num_threads"] for blas in runtime.blas_facts()] == [1] * len(found)
    assert runtime.blas_facts() == found


def test_another_blas_without_threadpoolctl_is_unknown(monkeypatch):
    no_openblas(monkeypatch)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert runtime.blas_facts() == []
    with runtime.blas_threads(1) as could:
        assert not could


def test_a_library_without_openblas_is_refused(monkeypatch):
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda path: object())
    with pytest.raises(OSError, match="not linked with OpenBLAS"):
        runtime.OpenBLAS()


@pytest.mark.parametrize("value", ["0", "false", "False", " off", "no"])
def test_tuning_is_switched_off_by_words(value, monkeypatch):
    monkeypatch.setenv(runtime.OFF, value)
    assert not runtime.tuned()


@pytest.mark.parametrize("value", ["1", "", "yes"])
def test_tuning_stays_on_for_other_values(value, monkeypatch):
    monkeypatch.setenv(runtime.OFF, value)
    assert runtime.tuned()


def test_the_last_block_to_end_restores_the_threads():
    blas = openblas()
    before = blas.threads
    first, second = runtime.blas_threads(1), runtime.blas_threads(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas.threads == 1
    second.__exit__(None, None, None)
    assert blas.threads == before


def test_nested_blocks_of_blas_threads_put_back_the_number_around_them():
    blas = openblas()
    with runtime.blas_threads(1), runtime.blas_threads(2):
        around = blas.threads
        with runtime.blas_threads(1):
            assert blas.threads == 1
        assert blas.threads == around


# ---- threads of ours -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blas", [1, 2, 9])
def test_side_by_side_is_map_with_one_thread_of_blas_in_each(blas, monkeypatch):
    monkeypatch.setattr(runtime, "threads_of_blas", lambda: blas)
    here, idents = contextvars.ContextVar("here", default=0), set()
    here.set(7)
    before = runtime.OpenBLAS().threads
    together = threading.Barrier(min(blas, runtime.MOST))

    def call(x):
        idents.add(threading.get_ident())
        together.wait(20)  # so that each thread gets some
        return x * x, here.get(0), runtime.OpenBLAS().threads

    found = runtime.side_by_side(call, range(8))
    assert found == [(x * x, 7, 1 if blas > 1 else before) for x in range(8)]
    assert len(idents) == min(blas, runtime.MOST)
    assert runtime.OpenBLAS().threads == before
    with pytest.raises(ZeroDivisionError):
        runtime.side_by_side(lambda x: 1 / x, [1, 0, 2])
    assert runtime.side_by_side(str, iter("abc")) == ["a", "b", "c"]


@pytest.fixture
def two(monkeypatch):
    monkeypatch.setattr(runtime, "threads_of_blas", lambda: 2)


@pytest.mark.parametrize("failing", ["caller", "helper"])
def test_side_by_side_begins_no_call_after_an_error_and_waits_for_the_others(failing, two):
    caller, together, begun, ended = threading.get_ident(), threading.Barrier(2), [], []

    def call(x):
        begun.append(x)
        if x < 2:
            together.wait(20)
            if (threading.get_ident() == caller) == (failing == "caller"):
                raise ZeroDivisionError(f"the {failing}'s")
            time.sleep(0.05)
        ended.append(x)

    with pytest.raises(ZeroDivisionError, match=f"the {failing}'s"):
        runtime.side_by_side(call, range(100))
    assert sorted(begun) == [0, 1]
    assert len(ended) == 1


def test_side_by_side_does_without_threads_that_are_busy_with_the_calls_of_others(two, monkeypatch):
    monkeypatch.setattr(runtime, "MOST", 2)
    runtime._helpers.cache_clear()
    go, busy = threading.Event(), threading.Event()
    runtime._helpers().submit(lambda: (busy.set(), go.wait(20)))
    assert busy.wait(20)
    try:
        assert runtime.side_by_side(abs, [-1, -2, -3]) == [1, 2, 3]
    finally:
        go.set()
        runtime._helpers().shutdown()
        runtime._helpers.cache_clear()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_side_by_side_works_in_a_forked_process():
    code = """
import os, signal
from tinygrad_llm import runtime
runtime.threads_of_blas = lambda: 2
runtime.blas_threads = lambda number: __import__("contextlib").nullcontext()
assert runtime.side_by_side(abs, [-1, -2]) == [1, 2]
if not (child := os.fork()):
    signal.alarm(20)
    import threading
    together = threading.Barrier(2)
    runtime.side_by_side(lambda x: together.wait(10), [1, 2])
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True, timeout=60)


def test_pace_gives_blas_one_thread_after_a_step_that_waited_for_cores(monkeypatch):
    clock = {"wall": 0.0, "cores": 2.0, "used": 0.0}
    monkeypatch.setattr(runtime, "threads_of_blas", lambda: 2)
    monkeypatch.setattr(runtime, "_is_openblas", lambda: True)
    monkeypatch.setattr(runtime.time, "perf_counter", lambda: clock["wall"])
    monkeypatch.setattr(runtime.time, "process_time", lambda: clock["used"])
    given = []

    @contextlib.contextmanager
    def blas_threads(number):
        given[-1] = number
        yield True

    monkeypatch.setattr(runtime, "blas_threads", blas_threads)
    pace = runtime.Pace()

    def steps(count, cores):
        given.clear()
        for _ in range(count):
            given.append("all")
            with pace.step():
                clock["wall"] += 0.25
                clock["used"] += 0.25 * cores
        return [(key, len(list(run))) for key, run in itertools.groupby(given)]

    assert steps(5, 1.9) == [("all", 5)]  # quiet
    assert steps(60, 1.0) == [("all", 1), (1, 16), ("all", 1), (1, 32), ("all", 1), (1, 9)]  # busy
    assert steps(60, 1.9) == [(1, 55), ("all", 5)]  # quiet again
    assert steps(3, 1.0) == [("all", 1), (1, 2)]
    monkeypatch.setenv(runtime.OFF, "0")
    pace = runtime.Pace()
    assert steps(3, 1.0) == [("all", 3)]
