"""Appendix A: a gradient by hand, a small network, and its training."""

from typing import Any

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import DataLoader
from tinygrad_llm.nn import Linear, ReLU, Sequential
from tinygrad_llm.optim import SGD
from tinygrad_llm.random import Generator
from tinygrad_llm.study.book.ledger import TORCH, fact


def network(n_in: int, n_out: int, rng: Generator) -> Sequential:
    """n_in-30-20-n_out, with a ReLU after each layer but the last."""
    return Sequential(
        Linear(n_in, 30, rng=rng), ReLU(), Linear(30, 20, rng=rng), ReLU(), Linear(20, n_out, rng=rng)
    )  # fmt: skip


@fact("apA-01", "0.0852 -0.0898 -0.0817")
def gradient_by_hand() -> list[float]:
    """Logistic regression, w = 2.2, b = 0, x = 1.1, y = 1: loss, dL/dw, dL/db."""
    w, b = (Tensor(np.array([value], np.float32), requires_grad=True) for value in (2.2, 0.0))
    loss = F.binary_cross_entropy_with_logits(w * 1.1 + b, np.ones(1, np.float32))
    loss.backward()
    return [loss.item(), w.grad.item(), b.grad.item()]  # type: ignore[union-attr]


@fact("apA-02", "2213")
def parameters() -> int:
    """Parameters of a network 50-30-20-3."""
    return network(50, 3, Generator(123)).num_parameters()


@fact(
    "apA-03",
    "-0.0577 0.0047 -0.0702 0.0222 0.1260 0.0865 / 0.0502 0.0307 0.0333 0.0951 0.1134 -0.0297 / "
    "0.1077 -0.1108 0.0122 0.0108 -0.1049 -0.1063 / -0.0787 0.1259 0.0803 0.1218 0.1303 -0.1351 / "
    "0.1359 0.0175 -0.0673 0.0674 0.0676 0.1058 / 0.0790 0.1343 -0.0293 0.0344 -0.0971 -0.0509",
)
def first_weight() -> Any:
    """Seed 123; corners of its first weight (30, 50)."""
    weight = next(network(50, 3, Generator(123)).parameters()).data
    ends = [0, 1, 2, -3, -2, -1]
    return weight[np.ix_(ends, ends)]


@fact("apA-04", "-0.1262 0.1080 -0.1792 / 0.3113 0.3934 0.2952")
def forward() -> list[Tensor]:
    """Seed 123 for the network and again for x (1, 50), uniform: the outputs, and their softmax."""
    model = network(50, 3, Generator(123))
    y = model(Tensor(Generator(123).uniform(0, 1, (1, 50))))
    return [y, y.softmax(-1)]


X_TRAIN = np.array([[-1.2, 3.1], [-0.9, 2.9], [-0.5, 2.6], [2.3, -1.1], [2.7, -1.5]], np.float32)
Y_TRAIN = np.array([0, 0, 0, 1, 1])
X_TEST, Y_TEST = np.array([[-0.8, 2.8], [2.6, -1.6]], np.float32), np.array([0, 1])


def examples() -> list[Any]:
    """The five training examples, as pairs of x (2,) and a label."""
    return list(zip(X_TRAIN, Y_TRAIN, strict=True))


@fact("apA-05", "3 1 / 0 2 / 4")
def order() -> list[Any]:
    """Seed 123; five examples, shuffled, two in a batch: the order of the first pass."""
    batches = DataLoader(range(5), batch_size=2, shuffle=True, rng=Generator(123))
    return list(batches)


def train() -> tuple[Sequential, list[float]]:
    """Seed 123: a network 2-30-20-2, trained by SGD for 3 passes over 2 batches, and its losses."""
    rng = Generator(123)
    model = network(2, 2, rng)
    optimizer = SGD(model.parameters(), lr=0.5)
    loader = DataLoader(examples(), batch_size=2, shuffle=True, drop_last=True, rng=rng)
    losses = []
    for _ in range(3):
        for x, y in loader:
            loss = F.cross_entropy(model(Tensor(x)), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return model, losses


@fact("apA-07", "0.75 0.65 0.44 0.13 0.03 0.00")
def losses() -> list[float]:
    """Seed 123; network 2-30-20-2, SGD, rate 0.5: losses of 6 steps."""
    return train()[1]


@fact("apA-07+", "0.748736 0.645031 0.442256 0.125623 0.026906 0.004327", origin=TORCH, units=10)
def losses_of_torch() -> list[float]:
    """The same losses, with more digits."""
    return train()[1]


@fact("apA-09", "0 0 0 1 1 / 1.0 1.0")
def predictions() -> list[Any]:
    """Predictions of the trained network; accuracy in training and test."""
    model, _ = train()
    predicted, tested = (model(Tensor(x)).data.argmax(-1) for x in (X_TRAIN, X_TEST))
    return [predicted, (predicted == Y_TRAIN).mean(), (tested == Y_TEST).mean()]


@fact("apA-10", "752")
def parameters_of_the_exercise() -> int:
    """Parameters of a network 2-30-20-2."""
    return network(2, 2, Generator(123)).num_parameters()
