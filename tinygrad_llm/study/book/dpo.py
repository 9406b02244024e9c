"""Preferences (a bonus chapter of chapter 7): the loss, and the masks of two answers."""

import copy
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import DataLoader, Pair, read_preferences
from tinygrad_llm.datasets.public import public_file
from tinygrad_llm.finetuning.assistant import STYLES, prompt_of
from tinygrad_llm.kernels import IGNORE_INDEX
from tinygrad_llm.models import GPT
from tinygrad_llm.optim import AdamW
from tinygrad_llm.random import Generator
from tinygrad_llm.study.book.ch04 import book_config
from tinygrad_llm.study.book.ch07 import END, MEDIUM, tuning
from tinygrad_llm.study.book.ledger import NOTEBOOK, fact
from tinygrad_llm.study.book.material import Loaders, gpt2, train
from tinygrad_llm.training.padded import pad

PREFERENCES = ("preference-data",)
ALPACA = STYLES["alpaca"]


@fact("dpo-01", "1.4185 1.4185", origin=NOTEBOOK)
def cross_entropy() -> list[Tensor]:
    """The cross-entropy of two rows of logits, by hand and by the library."""
    x, targets = Tensor(np.array([[2.0, 1.0, 0.1], [0.5, 2.5, 0.3]], np.float32)), np.array([0, 2])
    return [-x.log_softmax(-1).gather(-1, targets[:, None]).mean(), F.cross_entropy(x, targets)]


@fact("dpo-02", "2 2 / 3 4", origin=NOTEBOOK)
def gathered() -> Tensor:
    """Picking by index along the last axis."""
    return Tensor(np.array([[1, 2], [3, 4]])).gather(-1, np.array([[1, 1], [0, 1]]))


def pairs() -> list[Pair]:
    """The instructions with two answers each."""
    return read_preferences(public_file("preference-data"))


@fact("dpo-03", "1100 / 935 110 55", origin=NOTEBOOK, needs=PREFERENCES)
def sizes() -> list[int]:
    """The number of pairs; for training, test and validation."""
    n = len(pairs())
    train, test = int(0.85 * n), int(0.1 * n)
    return [n, train, test, n - train - test]


@fact("dpo-04", "48 45 / 74 59 / 80 61 / 81 / 50 24 7", origin=NOTEBOOK, needs=PREFERENCES)
def lengths() -> list[Any]:
    """The first two pairs: tokens of prompts, with chosen and with rejected answers; the common width; and of the first
    chosen answer, how many positions are masked as prompt, counted, and masked as padding.
    """
    two = pairs()[:2]
    prompts = [len(gpt2().encode(ALPACA.prompt(pair.instruction, pair.input))) for pair in two]
    starts = [prompt_of(pair.instruction, pair.input, ALPACA) for pair in two]
    chosen = [len(gpt2().encode(start + pair.chosen)) for start, pair in zip(starts, two, strict=True)]
    rejected = [len(gpt2().encode(start + pair.rejected)) for start, pair in zip(starts, two, strict=True)]
    width = max(*chosen, *rejected) + 1
    masked = prompts[0] + 2  # the two line breaks before the heading of the answer
    return [prompts, chosen, rejected, width, [masked, chosen[0] - masked, width - chosen[0]]]


@fact("dpo-06", "0.6931471824645996 0.0 0.0", origin=NOTEBOOK, relative=1e-9)
def untrained() -> list[Any]:
    """Two equal models: the loss, and the rewards of the chosen and the rejected answer."""
    model = GPT(book_config(vocab_size=50, block_size=8, n_layer=1, n_head=2, n_embd=8), Generator(123)).eval()
    ids = np.arange(12).reshape(2, 6)
    chosen, rejected = (model.log_probs(ids[i : i + 1, :-1], ids[i : i + 1, 1:]).detach() for i in (0, 1))
    loss, _ = F.dpo_loss(chosen, rejected, chosen.data, rejected.data, beta=0.1)
    return [loss, chosen - chosen.data, rejected - rejected.data]


# ---- with OpenAI's weights -------------------------------------------------------------------------------------------


class Answers:
    """Pairs as ids; a batch has (inputs, targets) of the chosen and of the rejected answers."""

    def __init__(self, chosen: list[Pair]) -> None:
        starts = [prompt_of(pair.instruction, pair.input, ALPACA) for pair in chosen]
        self.masked = [len(gpt2().encode(ALPACA.prompt(pair.instruction, pair.input))) + 2 for pair in chosen]
        texts = [(start + pair.chosen, start + pair.rejected) for start, pair in zip(starts, chosen, strict=True)]
        self.rows = [[gpt2().encode(text) for text in two] for two in texts]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> list[list[int]]:
        return self.rows[index]

    def batch(self, indices: Any) -> list[tuple[Any, Any]]:
        """Inputs, and targets one token later; −100 for the prompt and behind the answer."""
        sides = []
        for side in (0, 1):
            rows = [self.rows[i][side] for i in indices]
            starts = [self.masked[i] for i in indices]
            counted = [[IGNORE_INDEX] * (n - 1) + row[n:] + [IGNORE_INDEX] for row, n in zip(rows, starts, strict=True)]
            sides.append((pad(rows, END), pad(counted, IGNORE_INDEX)))
        return sides


def mean_log_prob(model: GPT, ids: Any, targets: Any) -> Tensor:
    """The mean over the tokens of each answer."""
    mean: Tensor = model.log_probs(ids, targets) / (targets != IGNORE_INDEX).sum(1).astype(np.float32)
    return mean


def preference_loss(reference: GPT, margins: list[float]) -> Callable[..., Tensor]:
    """The loss of a batch against a reference model; each call appends the mean margin of the rewards."""

    def loss(model: GPT, batch: Any) -> Tensor:
        chosen, rejected = (mean_log_prob(model, *side) for side in batch)
        with reference.evaluating():
            frozen = [mean_log_prob(reference, *side).data for side in batch]
        value, margin = F.dpo_loss(chosen, rejected, frozen[0], frozen[1], beta=0.1)
        margins.append(float(margin.data.mean()) / 0.1)  # the book's rewards are without β
        return value

    return loss


@fact(
    "dpo-07",
    "0.692 0.693 0.014 0.006 / 0.691 0.692 0.040 0.030",
    origin="notebook, CUDA",
    tier="slow",
    needs=(*MEDIUM, *PREFERENCES),
    units=2,
    follows=2,
)
def preferred() -> list[Any]:
    """The tuned model of ch07-18, trained on preferences: losses and margins of 5 and 5 batches at steps 0 and 5. The
    margins depend on the last digits of a long training.
    """
    model, steps = tuning()
    for _ in steps:
        pass
    reference, rng = copy.deepcopy(model), Generator(123)
    a, b = int(0.85 * len(pairs())), int(0.85 * len(pairs())) + int(0.1 * len(pairs()))
    train_part, val = Answers(pairs()[:a]), Answers(pairs()[b:])
    both = Loaders(DataLoader(train_part, 8, shuffle=True, drop_last=True, rng=rng), DataLoader(val, 8, rng=rng))
    optimizer = AdamW(model.parameters(), lr=5e-6, weight_decay=0.01)
    margins: list[float] = []
    found = []
    for _, *pair in islice(train(model, both, optimizer, 1, loss=preference_loss(reference, margins)), 2):
        found.append([pair, np.mean(margins[-10:-5]), np.mean(margins[-5:])])
    return found
