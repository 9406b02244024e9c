"""`Permutation`: every number once, shuffled, and without a list."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tinygrad_llm.datasets import Permutation


@given(st.integers(1, 3000), st.integers(0, 5))
def test_permutation_holds_every_number_once(n, seed):
    numbers = Permutation(n, seed)[np.arange(n)]
    assert sorted(numbers.tolist()) == list(range(n))
    np.testing.assert_array_equal(Permutation(n, seed)[np.arange(n)[::-1]], numbers[::-1])  # in any order of asking


def test_permutation_looks_shuffled():
    n = 4000
    orders = [Permutation(n, seed)[np.arange(n)] for seed in (1, 2)]
    for order in orders:
        assert abs(np.corrcoef(order, np.arange(n))[0, 1]) < 0.06
        assert abs(np.corrcoef(order[1:], order[:-1])[0, 1]) < 0.06
    assert (orders[0] == orders[1]).sum() < 10  # one is expected


def test_permutation_of_very_many_numbers_takes_no_memory():
    n = 10**12
    numbers = Permutation(n, 3)[np.arange(n - 1000, n)]
    assert len(set(numbers.tolist())) == 1000
    assert numbers.min() >= 0
    assert numbers.max() < n
