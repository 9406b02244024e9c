"""Cross-entropy: next to a composed softmax, by hand, and what is refused."""

import math

import numpy as np
import pytest
from agreement import assert_agree, composed_softmax, one_hot, seeds, zeros
from hypothesis import assume, given
from hypothesis import strategies as st

from tinygrad_llm import kernels as K


@given(
    seeds,
    st.integers(1, 5),
    st.integers(1, 6),
    st.sampled_from(["mean", "sum", "none"]),
    st.sampled_from([-100, -1, 0, 2]),
    st.sampled_from([0.0, 0.1, 1.0]) | st.floats(0, 1),
)
def test_cross_entropy_equals_the_composed_one(seed, N, V, reduction, ignore_index, smoothing):
    rng = np.random.default_rng(seed)
    logits, targets = rng.normal(0, 2, (N, V)), rng.integers(0, V, N)
    targets[rng.random(N) < 0.3] = ignore_index
    counted = targets != ignore_index
    assume(counted.any() or reduction != "mean")

    def oracle(logits, targets):
        labels = (1 - smoothing) * one_hot(np.where(counted, targets.data, 0), V) + smoothing / V
        losses = -(composed_softmax(logits, -1).log() * (labels * counted[:, None])).sum(-1)
        return losses if reduction == "none" else losses.sum() / (counted.sum() if reduction == "mean" else 1)

    options = {"ignore_index": ignore_index, "reduction": reduction, "label_smoothing": smoothing}
    assert_agree(K.cross_entropy, [logits, targets], oracle, **options)


def test_cross_entropy_of_equal_logits_is_the_logarithm_of_their_number():
    loss, _ = K.cross_entropy(zeros(3, 50257), np.array([0, 7, 50256]))
    assert loss == pytest.approx(math.log(50257), rel=1e-14)


def test_label_smoothing_equals_a_calculation_by_hand():
    # p = ½, ¼, ¼. Three quarters of ln 2 for the target, and one quarter of the mean of ln 2, ln 4, ln 4.
    logits, target = np.log([[2.0, 1.0, 1.0]]), np.array([0])
    loss, vjp = K.cross_entropy(logits, target, label_smoothing=0.25)
    assert loss == pytest.approx((0.75 + 0.25 * 5 / 3) * math.log(2), rel=1e-15)
    np.testing.assert_allclose(vjp(np.array(1.0))[0], [[0.5 - 0.75 - 1 / 12, 0.25 - 1 / 12, 0.25 - 1 / 12]], rtol=1e-14)


def test_a_masked_logit_has_no_part_in_the_loss_without_smoothing():
    masked, target = np.array([[0.0, 0.0, -np.inf]]), np.array([0])
    assert K.cross_entropy(masked, target)[0] == pytest.approx(math.log(2))
    assert K.cross_entropy(masked, target, label_smoothing=0.1)[0] == np.inf


def test_logits_of_plus_and_minus_1000_in_float32():
    logits = np.array([[-1000.0, 0.0, 1000.0], [1000.0, 1000.0, -1000.0]], np.float32)
    losses, vjp = K.cross_entropy(logits, np.array([0, 1]), reduction="none")
    np.testing.assert_allclose(losses, np.array([2000, math.log(2)], np.float32), rtol=1e-6)
    dlogits, _ = vjp(np.ones_like(losses))
    assert np.isfinite(dlogits).all()
    assert dlogits.dtype == losses.dtype == np.float32


@pytest.mark.parametrize(
    ("logits", "targets", "options", "error", "message"),
    [
        (zeros(2, 3), [0, 3], {}, IndexError, "got target 3, outside the vocabulary: .* 0 … 2 or ignore_index"),
        (zeros(2, 3), [-1, 0], {}, IndexError, "got target -1"),
        (zeros(2, 3), [-100, -100], {}, ValueError, "the mean over no targets: all 2 are ignore_index"),
        (zeros(2, 3), [0.0, 1.0], {}, TypeError, "got targets of float64, which must be integers"),
        (zeros(2, 3), [0], {}, ValueError, r"got logits \(2, 3\) and targets \(1,\)"),
        (zeros(1, 2, 3), [0], {}, ValueError, r"got logits \(1, 2, 3\)"),
        (zeros(1, 3), [0], {"reduction": "avg"}, ValueError, "got reduction 'avg'"),
        (zeros(1, 3), [0], {"label_smoothing": 1.1}, ValueError, r"got label_smoothing 1.1, .* \[0, 1\]"),
        (zeros(1, 3), [0], {"label_smoothing": -0.1}, ValueError, "got label_smoothing -0.1"),
        (zeros(1, 3), [0], {"label_smoothing": math.nan}, ValueError, "got label_smoothing nan"),
    ],
)
def test_arguments_that_do_not_fit_are_named(logits, targets, options, error, message):
    with pytest.raises(error, match=f"cross_entropy: {message}"):
        K.cross_entropy(logits, np.array(targets), **options)
