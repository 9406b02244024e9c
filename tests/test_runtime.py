"""The machine: which BLAS kernels and threads are asked for, and the facts that are shown."""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm import runtime

PACKAGE = Path(runtime.__file__).parent  # the checkout's, or an installed one
AVX512 = "avx512f avx512cd avx512bw avx512dq avx512vl"


def cpuinfo(vendor, flags):
    """Two processors, as Linux describes them."""
    lines = f"vendor_id\t: {vendor}\nmodel name\t: X: the processor\nflags\t\t: {flags}\npower management:\n"
    return f"processor\t: 0\n{lines}\nprocessor\t: 1\n{lines}\n"


MACHINES = {
    "AMD with AVX-512": (cpuinfo("AuthenticAMD", f"fpu sse2 avx2 {AVX512} avx512_vnni"), True),
    "AMD without AVX-512": (cpuinfo("AuthenticAMD", "fpu sse2 avx2"), False),
    "AMD with a part of it": (cpuinfo("AuthenticAMD", f"fpu avx2 {AVX512[:-9]}"), False),
    "AMD with flags that look like it": (cpuinfo("AuthenticAMD", AVX512.replace(" ", "x ")), False),
    "Intel with AVX-512": (cpuinfo("GenuineIntel", f"fpu sse2 avx2 {AVX512}"), False),
    "ARM": ("processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd\n", False),
    "nothing": ("", False),
}


def system(root, files):
    """A root folder with these files of a Linux system in it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize("machine", MACHINES)
def test_which_processors_need_help(machine, tmp_path):
    text, expected = MACHINES[machine]
    assert runtime.has_amd_avx512(system(tmp_path, {"proc/cpuinfo": text})) is expected


def test_a_system_without_files(tmp_path):
    assert runtime.processor(tmp_path) == {}
    assert runtime.has_amd_avx512(tmp_path) is False
    assert runtime.quota(tmp_path) is None
    assert runtime.cores(tmp_path) == runtime.affinity()
    assert runtime.memory_available(tmp_path) is None


def test_the_processor_is_the_first(tmp_path):
    text = MACHINES["AMD with AVX-512"][0].replace("processor\t: 1", "processor\t: 1\nflags\t: none")
    about = runtime.processor(system(tmp_path, {"proc/cpuinfo": text}))
    assert about["model name"] == "X: the processor"
    assert about["processor"] == "0"


# A control group of version 2, of version 1, of both at once as systemd's "hybrid" has them, and inside containers.
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
    "a file that says nothing": (V2, {"work/job/cpu.max": ""}, None),
    "a file of something else": (V2, {"work/job/cpu.max": "much\n"}, None),
    "a period of zero": (V2, {"work/job/cpu.max": "100000 0\n"}, None),
}


def grouped(root, lines, files):
    return system(root, {"proc/self/cgroup": lines} | {f"sys/fs/cgroup/{name}": text for name, text in files.items()})


@pytest.mark.parametrize("case", GROUPS)
def test_the_quota_of_control_groups(case, tmp_path):
    lines, files, expected = GROUPS[case]
    assert runtime.quota(grouped(tmp_path, lines, files)) == expected


@pytest.mark.parametrize(
    ("placed", "allowed", "expected"),
    [(8, None, 8), (8, 4.0, 4), (8, 1.5, 2), (8, 2.0001, 3), (8, 0.1, 1), (2, 3.5, 2), (1, 0.5, 1)],
)
def test_cores_by_affinity_and_quota(placed, allowed, expected, monkeypatch, tmp_path):
    monkeypatch.setattr(runtime, "affinity", lambda: placed)
    monkeypatch.setattr(runtime, "quota", lambda root: allowed)
    assert runtime.cores(tmp_path) == expected


@given(placed=st.integers(1, 512), allowed=st.floats(1e-3, 1e3))
def test_a_quota_is_never_left_unused_nor_exceeded_by_a_core(placed, allowed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtime, "affinity", lambda: placed)
        patch.setattr(runtime, "quota", lambda root: allowed)
        cores = runtime.cores()
    assert 1 <= cores <= placed
    assert cores < allowed + 1
    assert cores == placed or cores >= allowed


def test_the_cores_of_this_process():
    assert 1 <= runtime.cores() <= runtime.affinity() <= os.cpu_count()


def test_cores_where_there_is_no_affinity(monkeypatch, tmp_path):
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
def test_memory_by_system_and_control_groups(lines, files, expected, tmp_path):
    assert runtime.memory_available(system(grouped(tmp_path, lines, files), {"proc/meminfo": MEMINFO})) == expected


def after_prepare(tmp_path, machine="AMD with AVX-512", before="", placed=1, files=(), **environment):
    """The variables of BLAS after `prepare` in a new Python that runs `before` first, and what `prepare` noted."""
    system(tmp_path, {"proc/cpuinfo": MACHINES[machine][0]} | dict(files))
    # The file alone, since importing the package calls `prepare` for this machine.
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
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    kernels, threads, chosen, late = json.loads(done.stdout)
    return {"kernels": kernels, "threads": threads, "chosen": chosen, "late": late}


def test_the_kernels_are_chosen_before_numpy(tmp_path):
    after = after_prepare(tmp_path)
    assert after == {"kernels": "SkylakeX", "threads": None, "chosen": {runtime.KERNELS: "SkylakeX"}, "late": False}


@pytest.mark.parametrize("machine", ["AMD without AVX-512", "Intel with AVX-512", "nothing"])
def test_no_kernels_are_chosen_where_openblas_knows_better(machine, tmp_path):
    after = after_prepare(tmp_path, machine)
    assert (after["kernels"], after["chosen"]) == (None, {})


@pytest.mark.parametrize("value", ["Zen", "Haswell", ""])
def test_the_users_kernels_stay(value, tmp_path):
    after = after_prepare(tmp_path, OPENBLAS_CORETYPE=value)
    assert (after["kernels"], after["chosen"]) == (value, {})


QUOTA = {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "250000 100000\n"}


def test_as_many_threads_as_the_quota_feeds(tmp_path):
    assert after_prepare(tmp_path, placed=8, files=QUOTA)["threads"] == "3"


@pytest.mark.parametrize("placed", [1, 2, 3])
def test_openblas_counts_the_cores_itself_where_no_quota_is_less(placed, tmp_path):
    assert after_prepare(tmp_path, placed=placed, files=QUOTA)["threads"] is None


@pytest.mark.parametrize("name", runtime.THREADS)
def test_the_users_threads_stay(name, tmp_path):
    after = after_prepare(tmp_path, placed=8, files=QUOTA, **{name: "8"})
    assert after["threads"] == ("8" if name == runtime.THREADS[0] else None)


def test_it_can_be_switched_off(tmp_path):
    off = after_prepare(tmp_path, placed=8, files=QUOTA, **{runtime.OFF: "0"})
    assert (off["kernels"], off["threads"]) == (None, None)
    on = after_prepare(tmp_path, placed=8, files=QUOTA, **{runtime.OFF: "1"})
    assert (on["kernels"], on["threads"]) == ("SkylakeX", "3")


def test_once_numpy_is_loaded_it_is_too_late(tmp_path):
    after = after_prepare(tmp_path, before="import numpy", placed=8, files=QUOTA)
    assert after == {"kernels": None, "threads": None, "chosen": {}, "late": True}


def test_another_c_library_is_left_alone(tmp_path):
    no_mallopt = "import ctypes\nclass Library:\n    def __init__(self, name): pass\nctypes.CDLL = Library"
    assert after_prepare(tmp_path, before=no_mallopt)["kernels"] == "SkylakeX"


def kept(count, size, tuning):
    """How much of the memory of `count` arrays of `size` bytes a process still has once they are gone: a share."""
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
    done = subprocess.run(command, cwd=PACKAGE.parent, env=environment, capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_freed_memory_is_kept():
    assert kept(16, 4 << 20, tuning="1") > 0.9
    assert kept(16, 4 << 20, tuning="0") < 0.5


def test_the_package_prepares_before_it_loads_numpy():
    code = (
        "import sys, tinygrad_llm.runtime as r\n"  # the package itself is loaded first, and has called it
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
    done = subprocess.run(
        [sys.executable, "-c", spy + code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.split()[0] == "True"


def openblas():
    try:
        return runtime.OpenBLAS()
    except OSError:
        pytest.skip("NumPy's BLAS is another here, or cannot be reached")


def test_openblas_says_of_itself_what_threadpoolctl_finds():
    threadpoolctl = pytest.importorskip("threadpoolctl")
    blas = openblas()
    pools = [pool for pool in threadpoolctl.threadpool_info() if pool["internal_api"] == "openblas"]
    ours = (blas.architecture, blas.version.split(".")[:3], blas.threads)
    assert ours in [(pool["architecture"], pool["version"].split(".")[:3], pool["num_threads"]) for pool in pools]


def test_the_threads_of_blas_inside_and_afterwards():
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


def test_another_blas_is_known_by_threadpoolctl(monkeypatch):
    pytest.importorskip("threadpoolctl")
    directly = runtime.blas_facts()
    no_openblas(monkeypatch)
    found = runtime.blas_facts()
    assert [set(blas) for blas in found] == [set(blas) for blas in directly]
    with runtime.blas_threads(1) as could:
        assert could
        assert [blas["num_threads"] for blas in runtime.blas_facts()] == [1] * len(found)
    assert runtime.blas_facts() == found


def test_another_blas_without_threadpoolctl(monkeypatch):
    no_openblas(monkeypatch)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert runtime.blas_facts() == []
    with runtime.blas_threads(1) as could:
        assert not could


def test_a_library_without_openblas_is_told(monkeypatch):
    monkeypatch.setattr(runtime.ctypes, "CDLL", lambda path: object())
    with pytest.raises(OSError, match="not linked with OpenBLAS"):
        runtime.OpenBLAS()


def test_the_limits_are_rates():
    limits = runtime.measure(seconds=1e-3, threads=1)
    assert set(limits) == {"matmul_gflops", "matvec_gbytes", "copy_gbytes"}
    assert all(rate > 0 for rate in limits.values())


def test_the_best_of_what_fits(monkeypatch):
    """A clock on which the calls take 3, 1 and 2 seconds."""
    now, durations = [0.0], [3.0, 1.0, 2.0]
    monkeypatch.setattr(runtime.time, "perf_counter", lambda: now[0])

    def run():
        now[0] += durations.pop(0)

    assert runtime._best(run, 5.5) == 1.0
    assert durations == []
    durations[:] = [7.0, 1.0]
    assert runtime._best(run, 5.5) == 7.0


def test_facts_can_be_written_as_json():
    facts = runtime.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["numpy"] == metadata.version("numpy")
    assert facts["openblas_coretype"] == os.environ.get("OPENBLAS_CORETYPE")
    assert facts["cores"] <= facts["affinity"]
    for blas in facts["blas"]:
        assert set(blas) == {"internal_api", "version", "architecture", "num_threads"}
        assert blas["num_threads"] >= 1


def test_every_variable_of_blas_is_shown(monkeypatch):
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    environment = runtime.facts()["environment"]
    assert environment["OPENBLAS_L2_SIZE"] == "512"
    assert environment["MKL_NUM_THREADS"] == "3"
    assert "PATH" not in environment


def test_facts_without_the_optional_packages(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    no_openblas(monkeypatch)
    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    facts = runtime.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["blas"] == []
    assert facts["optional"] == {"tqdm": None, "matplotlib": None, "threadpoolctl": None}


@pytest.mark.parametrize("value", ["0", "false", "False", " off", "no"])
def test_tuning_can_be_switched_off_in_words(value, monkeypatch):
    monkeypatch.setenv(runtime.OFF, value)
    assert not runtime.tuned()


@pytest.mark.parametrize("value", ["1", "", "yes"])
def test_anything_else_leaves_it_on(value, monkeypatch):
    monkeypatch.setenv(runtime.OFF, value)
    assert runtime.tuned()


def test_the_last_to_leave_gives_blas_its_threads_back():
    """Whatever the order: two threads of Python may be in it at once."""
    blas = openblas()
    before = blas.threads
    first, second = runtime.blas_threads(1), runtime.blas_threads(1)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas.threads == 1
    second.__exit__(None, None, None)
    assert blas.threads == before
