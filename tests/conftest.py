"""What several test files need: the Hypothesis profile, and the kernel inside a case of the gradcheck table."""

import os

import pytest
from hypothesis import settings

from tinygrad_llm.gradcheck import cases
from tinygrad_llm.random import Generator

# No deadline, because machines differ; in CI the same examples at every run, so that a failure there can be repeated.
settings.register_profile("tinygrad_llm", deadline=None, derandomize=bool(os.environ.get("CI")))
settings.load_profile("tinygrad_llm")


@pytest.fixture
def kernel_call():
    """A function: case → (kernel, its input arrays, its options), as the case would hand them to `apply`."""

    def find(case, seed=0):
        fn, inputs, _ = case.make(Generator(seed))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cases, "apply", lambda kernel, *inputs, **options: (kernel, inputs, options))
            kernel, arrays, options = fn(*inputs)
        return kernel, list(arrays), options

    return find
