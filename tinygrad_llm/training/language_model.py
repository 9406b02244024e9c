"""Language modeling, the first task: predict each token of a text from those before it."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import BatchStream, DataError, SlidingWindows, check_ids, mixture
from tinygrad_llm.kernels import IGNORE_INDEX, Array
from tinygrad_llm.models import GPT
from tinygrad_llm.random import Generator
from tinygrad_llm.training.loop import Trainer
from tinygrad_llm.training.records import Step
from tinygrad_llm.training.settings import TrainSettings
from tinygrad_llm.training.task import Batches, Task


class LanguageModeling(Task):
    """Windows of token ids. A batch is (inputs, targets), (B, T) each; a target of −100 does not count.

    Args:     batches, held_out: as for `Task`. label_smoothing: the share of each target that all other tokens get;
              held-out losses are measured without it.
    """

    def __init__(
        self, batches: Batches, held_out: Sequence[tuple[Array, Array]] = (), label_smoothing: float = 0.0
    ) -> None:
        super().__init__(batches, held_out)
        self.label_smoothing = label_smoothing

    def loss(self, model: GPT, batch: tuple[Array, Array], total: int) -> Tensor:
        return model.loss(*batch, self.label_smoothing, total)

    def held_out_loss(self, model: GPT, batch: tuple[Array, Array], total: int) -> Tensor:
        return model.loss(*batch, 0.0, total)

    def count(self, batch: tuple[Array, Array]) -> int:
        return int(np.count_nonzero(batch[1] != IGNORE_INDEX))


def held_out_windows(
    sources: Sequence[NDArray[Any]], block_size: int, batch_size: int, batches: int, weights: Sequence[float] = ()
) -> list[tuple[Array, Array]]:
    """Fixed batches of windows, spread evenly over each held-out text, so that every evaluation measures the same.

    Raises:   DataError: a text is shorter than a block with its target.
    """
    rows: list[tuple[Array, Array]] = []
    for ids, share in zip(sources, mixture(weights, [max(1, len(ids)) for ids in sources]), strict=True):
        try:
            windows = SlidingWindows(ids, block_size)
        except DataError as error:
            raise DataError(f"the held-out part is too short: {error}") from None
        count = min(len(windows), max(1, round(batch_size * batches * share)))
        chosen = np.unique(np.linspace(0, len(windows) - 1, count).astype(int)).tolist()
        rows += [windows[i] for i in chosen]
    cut = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [(np.stack([x for x, _ in part]), np.stack([y for _, y in part])) for part in cut]


def train(
    model: GPT, ids: NDArray[Any], val_ids: NDArray[Any], settings: TrainSettings, rng: Generator | None = None
) -> Iterator[Step]:
    """Train the model in place on ids in memory, and yield every step: see `Trainer.run`.

    Args:     ids, val_ids: (n,) token ids, for training and held out. rng: shuffles the windows; the Generator that
              the model was made with continues its stream, as one torch.manual_seed does. None: a new one.
    Raises:   DataError: in either part, too few tokens for one window, or an id outside the vocabulary.
              ConfigError, TrainingError: as `Trainer`.
    """
    block_size, s = model.config.block_size, settings
    rng = Generator(s.seed) if rng is None else rng
    for row, name in ((ids, "ids"), (val_ids, "val_ids")):
        check_ids(np.asarray(row), model.config.vocab_size, name)
    batches = BatchStream([ids], block_size, s.batch_size, rng, s.stride or None, s.order)
    held_out = held_out_windows([val_ids], block_size, s.batch_size, s.eval_batches)
    task = LanguageModeling(batches, held_out, s.label_smoothing)
    yield from Trainer(model, task, s).run()
