"""Kernels that move elements."""

import numpy as np
from agreement import assert_adjoint, seeds
from hypothesis import given
from hypothesis.extra import numpy as hnp

from tinygrad_llm import kernels as K

INDICES = hnp.basic_indices((4, 3, 2), allow_newaxis=True) | hnp.integer_array_indices((4, 3, 2))


@given(INDICES, seeds)
def test_getitem_takes_what_numpy_takes_and_its_gradient_is_the_adjoint(index, seed):
    x = np.random.default_rng(seed).standard_normal((4, 3, 2))
    assert np.array_equal(K.getitem(x, index=index)[0], x[index])
    assert_adjoint(K.getitem, [x], {"index": index}, seed)
