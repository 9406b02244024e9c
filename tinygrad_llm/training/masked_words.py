"""Masked words, the task of an encoder: predict tokens that were hidden in a text, from both sides of them."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.kernels import IGNORE_INDEX, Array
from tinygrad_llm.models import Encoder
from tinygrad_llm.random import Generator
from tinygrad_llm.training.records import TrainingError
from tinygrad_llm.training.task import Batches, Task

SHARE = 0.15  # of the tokens are predicted
MASKED, REPLACED = 0.8, 0.1  # of those: hidden by [MASK], and replaced by any token; the rest stay as they are
_NEVER = 2.0  # above every random number
_TRIES = 1000  # batches without a word to hide, one after another


class Hiding(NamedTuple):
    """How words are hidden: the id of [MASK], the size V of the vocabulary, ids that are never hidden, and the two ids
    that stand before and after each text, [CLS] and [SEP]."""

    mask: int
    n_vocab: int
    special: Sequence[int]
    around: tuple[int, int]

    def __call__(
        self, ids: Array, rng: Generator, shares: tuple[float, float] = (MASKED, REPLACED)
    ) -> tuple[Array, Array]:
        """Rows of a text (B, T − 2) → inputs and targets, (B, T) each: see `hide`."""
        before, after = (np.full((len(ids), 1), token, np.int64) for token in self.around)
        whole = np.concatenate([before, ids, after], axis=1)
        return hide(whole, self.mask, self.n_vocab, [*self.special, *self.around], rng, shares)


class MaskedWords(Task):
    """Windows of token ids, in which other words are hidden every time. A batch is (inputs, targets), (B, T) each.

    Args:     batches: yield (ids, …), (B, T − 2) each; their generator also draws the words to hide.
              held_out: (inputs, targets) pairs, as `hiding` returns them. label_smoothing: as for `LanguageModeling`.
    Source:   Devlin et al. 2018, arXiv:1810.04805, section 3.1; other words every time: Liu et al. 2019,
              arXiv:1907.11692 (RoBERTa), section 4.1.
    """

    def __init__(
        self, batches: Batches, held_out: Sequence[tuple[Array, Array]], hiding: Hiding, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(batches, held_out)
        self.hiding = hiding
        self.label_smoothing = label_smoothing

    def next_batch(self) -> tuple[Array, Array]:
        """The next batch in which a word is hidden; windows of special tokens alone, such as [UNK], have none.

        Raises:   TrainingError: no such batch comes.
        """
        for _ in range(_TRIES):
            batch = self.hiding(next(self.batches)[0], self.batches.rng)
            if self.count(batch):
                return batch
        raise TrainingError(
            f"{_TRIES} batches one after another have no word to hide: the text has too few known words"
        )

    def loss(self, model: Encoder, batch: tuple[Array, Array], total: int) -> tuple[Tensor, dict[str, float]]:
        return self._loss(model, batch, total, self.label_smoothing)

    def held_out_loss(self, model: Encoder, batch: tuple[Array, Array], total: int) -> tuple[Tensor, dict[str, float]]:
        return self._loss(model, batch, total, 0.0)

    def _loss(
        self, model: Encoder, batch: tuple[Array, Array], total: int, label_smoothing: float
    ) -> tuple[Tensor, dict[str, float]]:
        logits, targets = model.at_targets(*batch)
        loss = F.cross_entropy(logits, targets, reduction="sum", label_smoothing=label_smoothing) / float(total)
        return loss, {"accuracy": int((logits.data.argmax(axis=-1) == targets).sum()) / total}

    def count(self, batch: tuple[Array, Array]) -> int:
        return int(np.count_nonzero(batch[1] != IGNORE_INDEX))


def hide(
    ids: Array,
    mask: int,
    n_vocab: int,
    special: Collection[int],
    rng: Generator,
    shares: tuple[float, float] = (MASKED, REPLACED),
) -> tuple[Array, Array]:
    """Choose 15 % of each row's tokens, at least one. Of these, 80 % become [MASK], 10 % any token, and 10 % stay.

    A model that met [MASK] alone could ignore all other tokens' own words; it must not know which words are changed.

    Args:     ids: (B, T). special: ids that are not chosen. shares: of the chosen ones, [MASK] and any token.
    Returns:  inputs (B, T); targets (B, T), the ids where they were chosen and −100 elsewhere. Rows without a token
              that may be chosen have no target.
    """
    ids = np.asarray(ids, np.int64)
    may = ~np.isin(ids, list(special))
    order = np.where(may, rng.rand(ids.shape, np.float64), _NEVER).argsort(axis=1, kind="stable")
    counts = np.maximum(1, np.round(SHARE * may.sum(axis=1))).astype(int)  # of the chosen tokens in each row
    chosen = np.zeros(ids.shape, bool)
    np.put_along_axis(chosen, order, np.arange(ids.shape[1]) < counts[:, None], axis=1)
    chosen &= may
    kind, others = rng.rand(ids.shape, np.float64), rng.randint(0, n_vocab, ids.shape)
    inputs = np.where(chosen & (kind < shares[0]), mask, ids)
    inputs = np.where(chosen & (kind >= shares[0]) & (kind < sum(shares)), others, inputs)
    return inputs, np.where(chosen, ids, IGNORE_INDEX)
