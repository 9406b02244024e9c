"""The likeliest next tokens after a prompt."""

import numpy as np
import pytest
from evaluation_models import BLOCK, log_probs, model_of

from tinygrad_llm.evaluation import next_tokens


def test_next_tokens_are_the_likeliest() -> None:
    model = model_of(11)
    for ids in ([3], [1, 2, 3], list(range(11))):
        probs = np.exp(log_probs(model, ids[-BLOCK:]))
        rows = next_tokens(model, ids, 4)
        assert [i for i, _ in rows] == sorted(range(11), key=lambda i: -probs[i])[:4]
        np.testing.assert_allclose([p for _, p in rows], sorted(probs, reverse=True)[:4], rtol=1e-12)
    assert sum(p for _, p in next_tokens(model, [3], 100)) == pytest.approx(1)
    with pytest.raises(ValueError, match="top must be at least 1, got 0"):
        next_tokens(model, [3], 0)
