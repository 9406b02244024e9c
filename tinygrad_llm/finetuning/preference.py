"""Preferences: one of two answers is better, and direct preference optimization makes it the likelier one.

`functional.dpo_loss` has the formula. It compares the trained model with the frozen one that it starts from.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import DataError, Entry
from tinygrad_llm.finetuning.assistant import Style, encode_entries
from tinygrad_llm.kernels import IGNORE_INDEX
from tinygrad_llm.models import GPT
from tinygrad_llm.tokenizer import AnyTokenizer
from tinygrad_llm.training.padded import in_batches, trimmed
from tinygrad_llm.training.task import Batches, Task

SIDES = ("chosen", "rejected")


class Preference(Task):
    """Pairs of answers to one prompt. A batch holds, for "chosen" and for "rejected":

    "chosen" (B, T) inputs, "chosen_targets" (B, T), −100 except for the answer, and "chosen_reference" (B,), ln π₀ of
    the answer (see `with_reference`); and "lengths" (B,).

    Args:     batches, held_out: as for `Task`. beta: β.
    """

    def __init__(self, batches: Batches, held_out: Sequence[dict[str, Any]] = (), beta: float = 0.1) -> None:
        super().__init__(batches, held_out)
        self.beta = beta

    def loss(self, model: GPT, batch: dict[str, Any], total: int) -> tuple[Tensor, dict[str, float]]:
        chosen, rejected = (model.log_probs(batch[side], batch[f"{side}_targets"]) for side in SIDES)
        reference = batch["chosen_reference"], batch["rejected_reference"]
        loss, margin = F.dpo_loss(chosen, rejected, *reference, beta=self.beta, reduction="sum")
        figures = {"reward_margin": margin.data.sum(), "reward_accuracy": np.count_nonzero(margin.data > 0)}
        return loss / total, {name: float(figure) / total for name, figure in figures.items()}


def with_reference(model: GPT, examples: dict[str, Any], batch_size: int = 8) -> dict[str, Any]:
    """The examples with the frozen model's ln π₀ of each answer, computed once, because that model does not change."""
    found: dict[str, list[NDArray[Any]]] = {side: [] for side in SIDES}
    with model.evaluating():
        for batch in in_batches(examples, batch_size):
            for side in SIDES:
                found[side].append(model.log_probs(batch[side], batch[f"{side}_targets"]).data)
    return {**examples, **{f"{side}_reference": np.concatenate(rows) for side, rows in found.items()}}


def encode_pairs(
    chosen: Sequence[Entry], rejected: Sequence[Entry], tokenizer: AnyTokenizer, style: Style, block_size: int
) -> tuple[dict[str, Any], list[int]]:
    """Pairs of answers as the arrays of a `Preference` batch, without the references.

    Args:     chosen, rejected: the same prompts with the better and with the worse answer.
    Returns:  the arrays; and the numbers of the pairs that are left out, because an answer does not fit.
    Raises:   DataError: as `encode_entries`.
    """
    sides = [encode_entries(entries, tokenizer, style, block_size, True) for entries in (chosen, rejected)]
    out = sorted({number for side in sides for number in (*side.cut, *side.dropped)})
    keep = [number for number in range(len(chosen)) if number not in out]
    if not keep:
        raise DataError(f"none of the {len(chosen)} pairs fits into the model's {block_size} tokens")
    arrays: dict[str, Any] = {}
    lengths = []
    for name, side in zip(SIDES, sides, strict=True):
        rows = np.isin([i for i in range(len(chosen)) if i not in side.dropped], keep)
        kept = trimmed({key: array[rows] for key, array in side.examples.items()})
        arrays |= {name: kept["ids"], f"{name}_targets": kept["targets"]}
        lengths.append(kept["lengths"])
    width = max(arrays[name].shape[1] for name in SIDES)
    for name, array in arrays.items():
        fill = IGNORE_INDEX if name.endswith("_targets") else 0
        arrays[name] = np.pad(array, ((0, 0), (0, width - array.shape[1])), constant_values=fill)
    return {**arrays, "lengths": np.maximum(*lengths)}, out
