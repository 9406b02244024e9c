"""BLAS has one thread: these models are so small that several threads would only wait for one another."""

import pytest

from tinygrad_llm.runtime import blas_threads


@pytest.fixture(scope="session", autouse=True)
def one_blas_thread():
    with blas_threads(1):
        yield
