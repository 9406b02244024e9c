"""Classification: a text gets one of several labels. The task, and the predictions of a trained classifier."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor, enable_grad, grad
from tinygrad_llm.autograd.observer import Observer, Operation, observing
from tinygrad_llm.generation import crop
from tinygrad_llm.generation.fill import around
from tinygrad_llm.models import GPT, Encoder
from tinygrad_llm.models.heads import Classifier
from tinygrad_llm.tokenizer import AnyTokenizer, encode_text
from tinygrad_llm.training.padded import in_batches, pad
from tinygrad_llm.training.task import Batches, Task


class Classification(Task):
    """Texts with labels. A batch is {"ids": (B, T), "lengths": (B,), "labels": (B,)}, padded on the right.

    Args:     batches, held_out: as for `Task`. class_weights: (K,), how much the loss of a text of each class counts;
              None: all equally. The loss is a mean over texts, so let the mean weight of the training texts be 1
              (`balanced_weights`).
    """

    def __init__(
        self,
        batches: Batches,
        held_out: Sequence[dict[str, Any]] = (),
        class_weights: Sequence[float] | NDArray[Any] | None = None,
    ) -> None:
        super().__init__(batches, held_out)
        self.class_weights = None if class_weights is None else np.asarray(class_weights, np.float64)

    def loss(self, model: Classifier, batch: dict[str, Any], total: int) -> tuple[Tensor, dict[str, float]]:
        labels = batch["labels"]
        scores = model(batch["ids"], batch["lengths"])
        right = int((scores.data.argmax(axis=-1) == labels).sum())
        return F.cross_entropy(scores, labels, self.class_weights, reduction="sum") / total, {"accuracy": right / total}


def encode_messages(
    texts: Sequence[str],
    tokenizer: AnyTokenizer,
    longest: int,
    refuse: bool = False,
    where: Callable[[int], str] = lambda i: f"text {i + 1}",
    ends: tuple[int, int] | None = None,
) -> tuple[list[list[int]], int]:
    """The ids of each text, without the end that the model cannot read; and how many were cut.

    A special token is read as text.

    Args:     refuse: see `generation.crop`. where: the name of text i in errors. ends: ids that stand before and after
              each text: see `ends_for`.
    Raises:   TokenizerError: the tokenizer lacks a character. ValueError: a text is too long, and that is refused.
    """
    read, cut = [], 0
    for i, text in enumerate(texts):
        row = encode_text(tokenizer, text, "plain", where(i))
        read.append(crop(row, longest - 2 * bool(ends), refuse, "first", where(i)))
        cut += len(row) > len(read[-1])
    return [[ends[0], *row, ends[1]] for row in read] if ends else read, cut


def ends_for(model: GPT | Encoder | Classifier, tokenizer: AnyTokenizer) -> tuple[int, int] | None:
    """The ids that stand before and after each text: [CLS] and [SEP] for an encoder, none for a GPT.

    Raises:   TokenizerError: an encoder's tokenizer does not have them.
    """
    return around(tokenizer) if model.config.kind == "encoder" else None


def balanced_weights(labels: NDArray[Any], classes: int) -> NDArray[np.float64]:
    """Weights that give every class the same share of the loss of all these texts: n / (K · n_k).

    Args:     labels: (n,) class numbers. classes: K.
    Returns:  (K,); their mean over the texts is 1.
    Raises:   ValueError: a class has no text; a label is not in 0 … K − 1.
    """
    if len(labels) and not 0 <= np.min(labels) <= np.max(labels) < classes:
        raise ValueError(f"labels must be from 0 to {classes - 1}, got {np.min(labels)} to {np.max(labels)}")
    counts = np.bincount(labels, minlength=classes)
    if (counts == 0).any():
        raise ValueError(f"class {int(counts.argmin())} has no text, so it can have no balanced weight")
    weights: NDArray[np.float64] = len(labels) / (classes * counts)
    return weights


def classify(model: Classifier, rows: Sequence[Sequence[int]], batch_size: int = 32) -> NDArray[np.float64]:
    """The probability of each class for each text.

    Args:     rows: the ids of each text, at most block_size of them.
    Returns:  (N, K); each row sums to 1.
    Raises:   ValueError: there are no texts, or an empty one.
    """
    lengths = np.array([len(row) for row in rows])
    order = np.argsort(lengths, kind="stable")  # texts of similar length together: less padding
    batches = in_batches({"ids": pad([rows[i] for i in order], 0), "lengths": lengths[order]}, batch_size)
    with model.evaluating():
        scores = np.concatenate([model(batch["ids"], batch["lengths"]).data for batch in batches])
    probabilities = np.empty(scores.shape, np.float64)
    probabilities[order] = F.softmax(Tensor(scores.astype(np.float64)), -1).data
    return probabilities


class _Embedded(Observer):
    """Keeps the output of the first embedding: the vectors of the tokens."""

    output: Tensor | None = None

    def on_operation(self, operation: Operation) -> None:
        if self.output is None and operation.name == "embedding":
            self.output = operation.output


def token_influence(model: Classifier, ids: Sequence[int]) -> tuple[int, NDArray[np.float64]]:
    """How much each token supports the predicted class: the gradient of the decision times the token's vector.

    The decision is measured by the log-odds of the predicted class, ln(p / (1 − p)). To first order it falls by the
    influence of a token if the token's vector becomes zero.

    Args:     ids: (T,) of one text.
    Returns:  the predicted class; and (T,) influences in nats, below 0 for tokens that speak against it.
    Raises:   ValueError: the token embedding is frozen, so it has no gradient.
    Source:   gradient × input: Shrikumar et al. 2016, arXiv:1605.01713.
    """
    seen = _Embedded()
    with model.evaluating(), enable_grad(), observing(seen):
        scores = model(np.asarray(ids)[None])  # (1, K)
        predicted = int(scores.data.argmax())
        others = [k for k in range(scores.shape[1]) if k != predicted]
        log_odds = scores[0, predicted] - scores[:, others].logsumexp(-1).sum()
    if seen.output is None or not seen.output.requires_grad:
        raise ValueError("the token embedding is frozen: let its weight require a gradient")
    (gradient,) = grad(log_odds, [seen.output])  # (1, T, C)
    return predicted, (gradient[0] * seen.output.data[0]).sum(axis=-1).astype(np.float64)


def confusion_matrix(labels: NDArray[Any], predicted: NDArray[Any], classes: int) -> NDArray[np.int64]:
    """Counts of texts, (K, K): row = the true class, column = the predicted one."""
    counts: NDArray[np.int64] = np.bincount(labels.astype(np.int64) * classes + predicted, minlength=classes**2)
    return counts.reshape(classes, classes)


def scores_by_class(confusion: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1 of each class.

    Args:     confusion: (K, K), as `confusion_matrix`.
    Returns:  "precision", "recall" and "f1", (K,) each; NaN where a figure is 0 / 0: nothing predicted, or no text.
    """
    right = np.diag(confusion).astype(np.float64)
    predicted, true = confusion.sum(axis=0), confusion.sum(axis=1)
    with np.errstate(invalid="ignore"):
        return {"precision": right / predicted, "recall": right / true, "f1": 2 * right / (predicted + true)}
