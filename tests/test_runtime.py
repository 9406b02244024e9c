"""The machine: which BLAS kernels are asked for, and the facts that are shown."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

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


@pytest.mark.parametrize("machine", MACHINES)
def test_which_processors_need_help(machine, tmp_path):
    text, expected = MACHINES[machine]
    (tmp_path / "cpuinfo").write_text(text)
    assert runtime.has_amd_avx512(tmp_path / "cpuinfo") is expected


def test_a_system_without_cpuinfo(tmp_path):
    assert runtime.has_amd_avx512(tmp_path / "cpuinfo") is False


def after_prepare(tmp_path, machine="AMD with AVX-512", before="", **environment):
    """What OPENBLAS_CORETYPE is after `prepare`, in a new Python; `before` is run first."""
    path = tmp_path / "cpuinfo"
    path.write_text(MACHINES[machine][0])
    # The file alone, since importing the package calls `prepare` for this machine.
    code = f"""
import importlib.util, os, pathlib, sys
{before}
spec = importlib.util.spec_from_file_location("runtime", {runtime.__file__!r})
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
module.prepare(pathlib.Path({str(path)!r}))
print(os.environ.get("OPENBLAS_CORETYPE"))
"""
    clean = {k: v for k, v in os.environ.items() if k not in ("OPENBLAS_CORETYPE", runtime.OFF)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout.strip()


def test_the_kernels_are_chosen_before_numpy(tmp_path):
    assert after_prepare(tmp_path) == "SkylakeX"


@pytest.mark.parametrize("machine", ["AMD without AVX-512", "Intel with AVX-512", "nothing"])
def test_no_kernels_are_chosen_where_openblas_knows_better(machine, tmp_path):
    assert after_prepare(tmp_path, machine) == "None"


def test_the_users_choice_stays(tmp_path):
    assert after_prepare(tmp_path, OPENBLAS_CORETYPE="Zen") == "Zen"


def test_it_can_be_switched_off(tmp_path):
    assert after_prepare(tmp_path, **{runtime.OFF: "0"}) == "None"
    assert after_prepare(tmp_path, **{runtime.OFF: "1"}) == "SkylakeX"


def test_once_numpy_is_loaded_it_is_too_late(tmp_path):
    assert after_prepare(tmp_path, before="import numpy") == "None"


def test_another_c_library_is_left_alone(tmp_path):
    no_mallopt = "import ctypes\nclass Library:\n    def __init__(self, name): pass\nctypes.CDLL = Library"
    assert after_prepare(tmp_path, before=no_mallopt) == "SkylakeX"


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


def test_the_cores_of_this_process():
    assert 1 <= runtime.cores() <= os.cpu_count()


def test_cores_where_there_is_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert runtime.cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert runtime.cores() == 1


def test_facts_can_be_written_as_json():
    facts = runtime.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["numpy"] == metadata.version("numpy")
    assert facts["openblas_coretype"] == os.environ.get("OPENBLAS_CORETYPE")


def test_facts_about_blas_come_with_threadpoolctl():
    pytest.importorskip("threadpoolctl")
    for blas in runtime.facts()["blas"]:
        assert set(blas) == {"internal_api", "version", "architecture", "num_threads"}
        assert blas["num_threads"] >= 1


def test_facts_without_the_optional_packages(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    facts = runtime.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["blas"] == []
    assert facts["optional"] == {"tqdm": None, "matplotlib": None, "threadpoolctl": None}
