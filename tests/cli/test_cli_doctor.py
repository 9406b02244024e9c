"""`tinygrad-llm doctor`."""

import json
import re

import pytest

from tinygrad_llm import runtime
from tinygrad_llm.bench import machine
from tinygrad_llm.cli import doctor

ONE = {"matmul_gflops": 123.4, "matvec_gbytes": 33.3, "copy_gbytes": 42.1, "triad_gbytes": 40.1}
ALL = {"matmul_gflops": 234.5, "matvec_gbytes": 44.4, "copy_gbytes": 61.9, "triad_gbytes": 60.2}


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(machine, "measure", lambda seconds, threads=None: ONE if threads == 1 else ALL)


FACTS = machine.facts()
BLAS = {"internal_api": "openblas", "version": "0.3.31", "architecture": "SkylakeX", "num_threads": 8}
AVX512 = sorted(runtime.AVX2 | runtime.AVX512)


def facts(architecture="SkylakeX", threads=8, environment=(), **changes):
    """Facts of a machine that needs no advice, with these changes."""
    environment = dict(environment)
    about = {
        "flags": AVX512, "amd_avx512": True, "cores": 8, "affinity": 8, "quota": None, "tuning": True, "late": False,
        "blas": [BLAS | {"architecture": architecture, "num_threads": threads}], "environment": environment,
        "chosen": {}, "openblas_coretype": environment.get(runtime.KERNELS), "optional": {"tqdm": "4"},
    }  # fmt: skip
    return {**FACTS, **about, **changes}


def test_the_text_has_every_fact(monkeypatch):
    environment = {"OMP_NUM_THREADS": "6", runtime.KERNELS: "SkylakeX"}
    about = {
        "python": "3.99",
        "numpy": "9.8",
        "platform": "Minix",
        "cpu": "Chip",
        "affinity": 7,
        "quota": 2.5,
        "cores": 3,
    }
    about |= {"memory_available": 3 << 29, "chosen": {runtime.KERNELS: "SkylakeX"}, "tuning": False}
    about |= {"optional": {"tqdm": "4.1", "matplotlib": None}, "free_threaded": False}
    speed = {"one": ONE, "all": ALL}
    assert doctor._words(facts(threads=6, environment=environment, **about), speed) == [
        "Python 3.99, NumPy 9.8, Minix",
        "threads: one at a time runs Python (the interpreter's lock); NumPy's work runs side by side",
        "processor: Chip with AVX-512",
        "cores: 3 core(s) for this process (7 by affinity, quota 2.5)",
        "memory available: 1.5 GiB",
        "BLAS: openblas 0.3.31, SkylakeX kernels, 6 thread(s)",
        "environment: OMP_NUM_THREADS=6, OPENBLAS_CORETYPE=SkylakeX (chosen by this package)",
        f"tuning of BLAS and memory ({runtime.OFF}): off",
        "optional: tqdm 4.1, matplotlib (not installed)",
        "speed now, float32            one thread     all threads",
        "matrix product               123 GFLOP/s     234 GFLOP/s",
        "matrix times vector              33 GB/s         44 GB/s",
        "copy                             42 GB/s         62 GB/s",
        "triad, a = b + s · c             40 GB/s         60 GB/s",
    ]


def test_sizes_that_are_unknown_are_said_to_be():
    assert [doctor._gigabytes(size) for size in (None, 0, 3 << 29)] == ["unknown", "0.0 GiB", "1.5 GiB"]


def test_text_and_json_agree(cli):
    status, words, err = cli("doctor")
    figures = json.loads(cli("doctor", "--json")[1])
    assert (status, err) == (0, "")
    assert figures["speed"] == {"one": ONE, "all": ALL}
    expected = [figures["python"], figures["numpy"], f"{figures['cores']} core(s)", *figures["advice"]]
    for fact in expected:
        assert fact in words
    assert re.search(r"matrix product +123 GFLOP/s +234 GFLOP/s\n", words)
    assert re.search(r"matrix times vector +33 GB/s +44 GB/s\n", words)
    assert re.search(r"copy +42 GB/s +62 GB/s\n", words)
    assert re.search(r"triad, a = b \+ s · c +40 GB/s +60 GB/s\n", words)


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (facts(), ["AVX-512", "SkylakeX kernels, 8 thread(s)", "quota none", "nothing set", "* nothing to improve"]),
        (facts(free_threaded=False, interpreter_lock=True), ["threads: one at a time runs Python"]),
        (facts(free_threaded=True, interpreter_lock=True), ["threads: a free-threaded Python whose lock is on"]),
        (facts(free_threaded=True, interpreter_lock=False), ["threads: a free-threaded Python without the lock"]),
        (facts(cores=3, quota=2.5), ["3 core(s) for this process (8 by affinity, quota 2.5)"]),
        (facts(flags=sorted(runtime.AVX2), cpu="Chip"), ["processor: Chip with AVX2\n"]),
        (facts(flags=[], cpu=None), ["processor: unknown\n"]),
        (facts(memory_available=3 << 30), ["memory available: 3.0 GiB"]),
        (facts(memory_available=None), ["memory available: unknown"]),
        (facts(environment={runtime.KERNELS: "Zen"}), ["environment: OPENBLAS_CORETYPE=Zen\n"]),
        (
            facts(environment={runtime.KERNELS: "SkylakeX"}, chosen={runtime.KERNELS: "SkylakeX"}),
            ["environment: OPENBLAS_CORETYPE=SkylakeX (chosen by this package)\n", "* nothing to improve"],
        ),
        (facts(blas=[], blas_built="accelerate 1"), ["BLAS: accelerate 1, with which", "* nothing to improve"]),
    ],
)
def test_text_describes_the_machine(given, lines, cli, monkeypatch):
    monkeypatch.setattr(machine, "facts", lambda: given)
    words = cli("doctor")[1]
    for line in lines:
        assert line in words


PINNED = {runtime.KERNELS: "Haswell"}
LATE = {"late": True, "architecture": "Haswell"}
INTEL = {"amd_avx512": False, "architecture": "Haswell"}
UNSET = "in your environment pins them: unset OPENBLAS_CORETYPE (or once: env -u OPENBLAS_CORETYPE tinygrad-llm …)"
EXPORT = "export OPENBLAS_CORETYPE=SkylakeX"


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"architecture": "Haswell", "environment": PINNED}, f"OPENBLAS_CORETYPE=Haswell {UNSET}"),
        ({"architecture": "Haswell", "environment": PINNED, "late": True}, f"OPENBLAS_CORETYPE=Haswell {UNSET}"),
        ({"architecture": "Zen", "environment": {runtime.KERNELS: "ZEN"}}, f"OPENBLAS_CORETYPE=ZEN {UNSET}"),
        ({"architecture": "Haswell", "environment": PINNED, "tuning": False}, f"pins them: {EXPORT}"),
        ({**INTEL, "environment": PINNED}, f"OPENBLAS_CORETYPE=Haswell {UNSET}"),
        ({**INTEL, "environment": PINNED, "tuning": False}, f"OPENBLAS_CORETYPE=Haswell {UNSET}"),
        (LATE, f"before tinygrad_llm, too late to choose kernels: import tinygrad_llm first, or {EXPORT}"),
        ({"architecture": "Haswell", "tuning": False}, f"=0 keeps it so: unset TINYGRAD_LLM_TUNING, or {EXPORT}"),
        (INTEL, f"up to twice as fast: {EXPORT}, or install a newer NumPy"),
        (
            {"flags": sorted(runtime.AVX2), "amd_avx512": False, "architecture": "Nehalem"},
            "has AVX2, which is up to twice as fast: export OPENBLAS_CORETYPE=Haswell, or install a newer NumPy",
        ),
        ({"cores": 3, "quota": 2.5}, "OpenBLAS does not know the quota): export OPENBLAS_NUM_THREADS=3"),
        ({"cores": 3, "environment": {"OMP_NUM_THREADS": "8"}}, "=8 sets this): export OMP_NUM_THREADS=3"),
        (
            {"threads": 2, "environment": {"OPENBLAS_NUM_THREADS": "2", "OMP_NUM_THREADS": "8"}},
            "OPENBLAS_NUM_THREADS=2 keeps BLAS at 2 of 8 cores: unset OPENBLAS_NUM_THREADS",
        ),
        ({"optional": {"tqdm": None, "matplotlib": "3"}}, "for tqdm "),
    ],
)
def test_advice_has_cause_and_remedy(changes, advice, cli, monkeypatch):
    monkeypatch.setattr(machine, "facts", lambda: facts(**changes))
    (given,) = json.loads(cli("doctor", "--json")[1])["advice"]
    assert advice in given


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"environment": {runtime.KERNELS: "SkylakeX"}},
        {"architecture": "Cooperlake", "environment": {runtime.KERNELS: "Cooperlake"}},
        {"flags": sorted(runtime.AVX2), "amd_avx512": False, "architecture": "Haswell", "environment": PINNED},
        {"flags": [], "amd_avx512": False, "architecture": "neoversev1"},
        {"architecture": "of the future"},
        {"architecture": None},
        {"threads": 4},  # OpenBLAS was built for this many
        {"threads": 8, "cores": 8, "quota": 7.5, "environment": {"OMP_NUM_THREADS": "8"}},
    ],
)
def test_there_is_no_advice_where_nothing_can_be_gained(changes, cli, monkeypatch):
    monkeypatch.setattr(machine, "facts", lambda: facts(**changes))
    assert json.loads(cli("doctor", "--json")[1])["advice"] == []


@pytest.mark.parametrize(("threads", "cores", "advised"), [(8, 8, 1), (2, 2, 1), (1, 1, 0), (1, 8, 0), (8, 1, 0)])
def test_threads_that_add_nothing_are_reported(threads, cores, advised, cli, monkeypatch):
    monkeypatch.setattr(machine, "measure", lambda seconds, threads=None: ONE)
    monkeypatch.setattr(machine, "facts", lambda: facts(threads=threads, cores=cores, affinity=cores))
    advice = json.loads(cli("doctor", "--json")[1])["advice"]
    assert sum("hardly faster than one" in line for line in advice) == advised
    assert len(advice) == (advised if threads <= cores else 1)


def test_every_kernel_family_is_in_one_set():
    assert not doctor.AVX512 & doctor.AVX2
    assert not (doctor.AVX512 | doctor.AVX2) & doctor.LESS
