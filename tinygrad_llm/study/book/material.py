"""What several chapters use: the tokenizer, the story, and the book's training loop."""

from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np

from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import DataLoader, SlidingWindows, load_corpus
from tinygrad_llm.datasets.public import public_file
from tinygrad_llm.models import GPT
from tinygrad_llm.optim import AdamW
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import Tokenizer

# The loss of a batch; language modeling is the default.
Loss = Callable[[Any, Any], Tensor]


@cache
def gpt2() -> Tokenizer:
    """GPT-2's tokenizer, read once."""
    return Tokenizer.gpt2()


def verdict() -> str:
    """The Verdict, the story that the book trains on."""
    return load_corpus(str(public_file("the-verdict")))


@cache
def verdict_ids() -> tuple[int, ...]:
    """Its ids."""
    return tuple(gpt2().encode(verdict()))


class Loaders(NamedTuple):
    """Batches for training, shuffled anew at each pass, and batches for validation."""

    train: DataLoader
    val: DataLoader


def verdict_loaders(rng: Generator, block_size: int = 256, batch_size: int = 2) -> Loaders:
    """The first nine tenths of the story's characters for training, the rest for validation."""
    text = verdict()
    cut = int(0.9 * len(text))
    train, val = (SlidingWindows(gpt2().encode(part), block_size) for part in (text[:cut], text[cut:]))
    return Loaders(
        DataLoader(train, batch_size, shuffle=True, drop_last=True, rng=rng), DataLoader(val, batch_size, rng=rng)
    )


def language_loss(model: Any, batch: Any) -> Tensor:
    """The mean cross-entropy of a batch (inputs, targets)."""
    loss: Tensor = model.loss(*batch)
    return loss


def mean_loss(model: Any, loader: DataLoader, batches: int | None = None, loss: Loss = language_loss) -> float:
    """The mean of the losses of the first `batches` batches of a new pass (None: all), without dropout."""
    with model.evaluating():
        return float(np.mean([loss(model, batch).item() for batch in islice(loader, batches)]))


def train(
    model: Any,
    loaders: Loaders,
    optimizer: AdamW,
    epochs: int,
    every: int = 5,
    batches: int = 5,
    loss: Loss = language_loss,
    before_step: Callable[[int], None] = lambda step: None,
    after_pass: Callable[[], None] = lambda: None,
) -> Iterator[tuple[float, float, float]]:
    """The book's loop. After each step whose number, from 0, is a multiple of `every`, it evaluates.

    An evaluation makes a new pass over the training batches, shuffled again, and over the validation batches. So it
    draws from the same stream as dropout and the order of training, and all later numbers depend on how often it is
    called.

    Args:     batches: of each pass of an evaluation. before_step: called after backward, with the step's number.
              after_pass: called at the end of each pass over the training batches.
    Returns:  yields (loss of the step's batch, training loss, validation loss).
    """
    model.train()
    step = 0
    for _ in range(epochs):
        for batch in loaders.train:
            optimizer.zero_grad()
            value = loss(model, batch)
            value.backward()
            before_step(step)
            optimizer.step()
            if step % every == 0:
                yield value.item(), *(mean_loss(model, loader, batches, loss) for loader in loaders)
            step += 1
        after_pass()


def greedy(model: GPT, text: str, count: int) -> str:
    """A text, continued by the likeliest tokens; line breaks are shown as spaces."""
    model.eval()
    ids = model.generate(gpt2().encode(text), count, temperature=0)
    model.train()
    return gpt2().decode(ids).replace("\n", " ")
