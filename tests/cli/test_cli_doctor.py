"""`tinygrad-llm doctor`."""

import json

import pytest

from tinygrad_llm import runtime
from tinygrad_llm.cli import doctor


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(doctor, "_matmul_rate", lambda: 123.4)


FACTS = runtime.facts()


def facts(**changes):
    about = {"amd_avx512": False, "openblas_coretype": None, "optional": {"tqdm": "4"}}
    return {**FACTS, **about, **changes}


def test_words_and_json_say_the_same(cli):
    status, words, err = cli("doctor")
    figures = json.loads(cli("doctor", "--json")[1])
    assert (status, err) == (0, "")
    assert figures["matmul_gflops"] == 123.4
    for fact in (figures["python"], figures["numpy"], f"{figures['cores']} core(s)", "123 GFLOP/s", *figures["advice"]):
        assert fact in words


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({}, []),
        ({"optional": {"tqdm": None, "matplotlib": "3"}}, ["for tqdm "]),
        ({"amd_avx512": True, "openblas_coretype": "Haswell"}, ["OPENBLAS_CORETYPE=Haswell is set"]),
        ({"amd_avx512": True, "openblas_coretype": "SkylakeX"}, []),
        ({"amd_avx512": False, "openblas_coretype": "Haswell"}, []),
    ],
)
def test_advice_is_given_where_there_is_something_to_gain(changes, advice, cli, monkeypatch):
    monkeypatch.setattr(runtime, "facts", lambda: facts(**changes))
    given = json.loads(cli("doctor", "--json")[1])["advice"]
    assert len(given) == len(advice)
    for line, start in zip(given, advice, strict=True):
        assert line.startswith(start)


def test_a_machine_without_facts_about_blas(cli, monkeypatch):
    monkeypatch.setattr(runtime, "facts", lambda: facts(blas=[]))
    assert cli("doctor")[0] == 0
