"""Preferences (a bonus chapter of chapter 7): the loss, and the masks of two answers."""

from typing import Any

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import Pair, read_preferences
from tinygrad_llm.datasets.public import public_file
from tinygrad_llm.finetuning.assistant import STYLES, prompt_of
from tinygrad_llm.models import GPT
from tinygrad_llm.random import Generator
from tinygrad_llm.study.book.ch04 import book_config
from tinygrad_llm.study.book.ledger import NOTEBOOK, fact
from tinygrad_llm.study.book.material import gpt2

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
