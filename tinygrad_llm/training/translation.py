"""Translation: predict each token of a target from its source and from the tokens before it."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import Translated
from tinygrad_llm.generation.search import encode_source, greedy_search
from tinygrad_llm.kernels import IGNORE_INDEX
from tinygrad_llm.models import Translator
from tinygrad_llm.nn import Module
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import AnyTokenizer
from tinygrad_llm.training.examples import Examples
from tinygrad_llm.training.padded import PaddedExamples, in_batches, pad
from tinygrad_llm.training.task import Batch, Batches, Evaluation, Task


class Translation(Task):
    """Sources with their targets. A batch is what `encode_translations` returns, with B rows.

    Args:     batches, held_out: as for `Task`. end: the id before and after every target. label_smoothing: the share
              of each target that all other tokens get; held-out losses are measured without it.
    """

    def __init__(self, batches: Batches, held_out: Sequence[Batch], end: int, label_smoothing: float = 0.0) -> None:
        super().__init__(batches, held_out)
        self.end = end
        self.label_smoothing = label_smoothing

    def loss(self, model: Translator, batch: Batch, total: int) -> Tensor:
        return self._loss(model, batch, total, self.label_smoothing)

    def held_out_loss(self, model: Translator, batch: Batch, total: int) -> Tensor:
        return self._loss(model, batch, total, 0.0)

    def count(self, batch: Batch) -> int:
        return int(batch["target_lengths"].sum())

    def _loss(self, model: Translator, batch: Batch, total: int, smoothing: float) -> Tensor:
        target, lengths = batch["target"], batch["target_lengths"]
        counts = np.arange(target.shape[1] - 1) < lengths[:, None]
        targets = np.where(counts, target[:, 1:], IGNORE_INDEX)
        return model.loss(batch["source"], target[:, :-1], targets, batch["source_lengths"], smoothing, total)

    def evaluate(self, model: Module, batches: Sequence[Batch] | None = None) -> Evaluation:
        """Also `exact`: the share of sources whose greedy translation is the target, token by token."""
        batches = self.held_out if batches is None else batches
        found = super().evaluate(model, batches)
        if not math.isfinite(found.loss):
            return found
        assert isinstance(model, Translator)
        right, rows = 0, 0
        for batch in batches:
            longest = batch["target"].shape[1] - 1  # with the end: what is longer is wrong
            said = greedy_search(model, batch["source"], batch["source_lengths"], self.end, self.end, longest)
            wanted = [row[1:n] for row, n in zip(batch["target"].tolist(), batch["target_lengths"], strict=True)]
            right, rows = right + sum(a == b for a, b in zip(said, wanted, strict=True)), rows + len(wanted)
        return Evaluation(found.loss, {**found.measures, "exact": right / rows})


def encode_translations(pairs: Sequence[Translated], tokenizer: AnyTokenizer, end: int) -> dict[str, NDArray[Any]]:
    """Sources and targets as padded ids.

    Args:     end: the id after every source, and before and after every target.
    Returns:  "source" (N, S) and "target" (N, T + 1); "source_lengths" and "target_lengths" (N,), how many tokens a
              source has and how many of a target are predicted; "lengths" (N,), their sum, by which batches are sorted.
    """
    sources = [encode_source(tokenizer, pair.source, end) for pair in pairs]
    targets = [[end, *encode_source(tokenizer, pair.target, end)] for pair in pairs]
    n = np.array([len(row) for row in sources]), np.array([len(row) - 1 for row in targets])
    return {
        "source": pad(sources, end),
        "target": pad(targets, end),
        "source_lengths": n[0],
        "target_lengths": n[1],
        "lengths": n[0] + n[1],
    }


class TranslationExamples(PaddedExamples):
    """Endless batches of pairs of similar length, in which sources and targets are only as wide as their longest."""

    def __init__(self, examples: dict[str, Any], batch_size: int, rng: Generator) -> None:
        super().__init__(examples, batch_size, rng, grouped=True)

    def batch(self, indices: Sequence[int]) -> dict[str, Any]:
        return trimmed_pairs(Examples.batch(self, indices))


def trimmed_pairs(batch: dict[str, Any]) -> dict[str, Any]:
    """The batch without the columns that are padding in all of its rows, on either side."""
    S, T = int(batch["source_lengths"].max()), int(batch["target_lengths"].max())
    return {**batch, "source": batch["source"][:, :S], "target": batch["target"][:, : T + 1]}


def measuring_batches(examples: dict[str, Any], batch_size: int) -> list[dict[str, Any]]:
    """All examples once, those of similar length together: for measuring."""
    order = np.argsort(examples["lengths"], kind="stable")
    return in_batches({name: array[order] for name, array in examples.items()}, batch_size, trimmed_pairs)
