"""The machine's speeds and facts. No test asserts a time."""

import json
import os
from importlib import metadata

import numpy as np
import pytest

from tinygrad_llm import runtime
from tinygrad_llm.bench import machine


@pytest.mark.parametrize("threads", [1, 3])
def test_measure_gives_rates(threads):
    limits = machine.measure(seconds=1e-3, threads=threads)
    assert set(limits) == {"matmul_gflops", *machine.BANDWIDTHS}
    assert all(rate > 0 for rate in limits.values())


def test_the_triad_computes_what_it_says():
    a, b, c = (np.full(machine.STRIPE + 3, value, np.float32) for value in (0, 2, 3))
    machine._triad(a, b, c)
    assert (a == 3.5).all()
    assert (b == 2).all()
    assert (c == 3).all()


def test_the_fastest_call_that_fits_counts(monkeypatch):
    """The calls take 3, 1 and 2 seconds."""
    now, durations = [0.0], [3.0, 1.0, 2.0]
    monkeypatch.setattr(machine.time, "perf_counter", lambda: now[0])

    def run():
        now[0] += durations.pop(0)

    assert machine._best(run, 5.5) == 1.0
    assert durations == []
    durations[:] = [7.0, 1.0]
    assert machine._best(run, 5.5) == 7.0


def test_facts_are_json():
    facts = machine.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["numpy"] == metadata.version("numpy")
    assert facts["openblas_coretype"] == os.environ.get("OPENBLAS_CORETYPE")
    assert facts["cores"] <= facts["affinity"]
    for blas in facts["blas"]:
        assert set(blas) == {"internal_api", "version", "architecture", "num_threads"}
        assert blas["num_threads"] >= 1


def test_facts_show_all_variables_of_blas(monkeypatch):
    monkeypatch.setenv("OPENBLAS_L2_SIZE", "512")
    monkeypatch.setenv("MKL_NUM_THREADS", "3")
    environment = machine.facts()["environment"]
    assert environment["OPENBLAS_L2_SIZE"] == "512"
    assert environment["MKL_NUM_THREADS"] == "3"
    assert "PATH" not in environment


def test_facts_without_the_optional_packages(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(runtime, "blas_facts", list)
    monkeypatch.setattr(metadata, "version", missing)
    facts = machine.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["blas"] == []
    assert facts["optional"] == {"tqdm": None, "matplotlib": None, "threadpoolctl": None}
