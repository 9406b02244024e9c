"""What several test files need: the Hypothesis profile, and the kernel inside a case of the gradcheck table."""

import os

import pytest
from hypothesis import settings

from tinygrad_llm.random import Generator

# No model of the user's counts here.
os.environ["TINYGRAD_LLM_CACHE"] = os.path.join(os.path.dirname(__file__), "no cache")

# No deadline, because machines differ; in CI the same examples at every run, so that a failure there can be repeated.
settings.register_profile("tinygrad_llm", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tinygrad_llm")


@pytest.fixture
def kernel_call():
    """A function: case → (kernel, its input arrays, its options), as the case hands them to `apply`."""

    def find(case, seed=0):
        return case.make.kernel, case.make.arrays(Generator(seed)), case.make.options

    return find
