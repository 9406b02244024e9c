"""How the work of an update is cut for the cache and for threads."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.optim.jobs import JOB, MOST_JOBS, jobs, stretches


@given(st.lists(st.integers(0, 2 * JOB)))
def test_jobs_hold_every_entry_in_order_and_are_worth_a_thread(sizes):
    found = list(jobs(sizes, lambda size: size))
    assert [size for job in found for size in job] == sizes
    assert all(found)
    least = max(JOB, sum(sizes) / MOST_JOBS)
    assert all(sum(job) >= least for job in found[:-1])
    assert all(sum(job[:-1]) < least for job in found)


@pytest.mark.parametrize("order", ["C", "F"])
def test_stretches_of_arrays_of_one_layout_are_views_of_the_same_elements(order):
    a = np.array(np.arange(6.0).reshape(2, 3), order=order)
    found = list(stretches(a, -a, length=4))
    assert [len(x) for x, _ in found] == [4, 2]
    for x, y in found:
        np.testing.assert_array_equal(x, -y)
        x[...] = 0
    assert not a.any()


def test_stretches_of_arrays_of_several_layouts_are_the_arrays():
    a, b = np.ones((2, 3)), np.ones((2, 3), order="F")
    (found,) = stretches(a, b, length=4)
    assert found[0] is a
    assert found[1] is b
