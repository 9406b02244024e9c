"""Threads that share one model: forward, gradient, evaluation and generation at once give the bits of each one alone.

The interpreter's lock must not be what makes this true: it is handed over as often as Python can, and a free-threaded
Python has none.
"""

import sys
import threading
from functools import partial

import numpy as np
import pytest

from tinygrad_llm import Generator, grad, no_grad
from tinygrad_llm.autograd import is_grad_enabled
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.nn.layers import drawing_from

IDS = np.random.default_rng(0).integers(0, 13, (2, 8))


@pytest.fixture
def hasty():
    """Threads take turns after a microsecond."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def works(model, rng):
    """What the threads do. Those that draw dropout's masks have a stream of their own."""

    def forward():
        with no_grad(), drawing_from({rng: Generator(4)}):
            logits = model(IDS)
        return [logits.data, np.array(logits.requires_grad)]

    def gradient():
        with drawing_from({rng: Generator(5)}):
            loss = model.loss(IDS, IDS)
            return [loss.data, *grad(loss, list(model.parameters()))]

    def evaluation():
        with model.evaluating():
            inside = model(IDS).data, np.array([is_grad_enabled(), model.training])
        return [*inside, np.array([is_grad_enabled(), model.training])]

    def generation():
        return [model.generate(IDS[:, :3], 7, rng=Generator(6))]

    return [forward, gradient, evaluation, generation]


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("options", [{}, {"recompute": True}, {"fused": False}], ids=["fused", "recompute", "plain"])
def test_threads_that_share_a_model_get_the_bits_of_one_alone(options, in_threads):
    rng = Generator(1)
    model = GPT(GPTConfig(13, 8, n_layer=2, n_head=2, n_embd=8, dropout=0.3), rng, **options)
    before = model.state_dict()
    before = {name: array.tobytes() for name, array in before.items()}
    tasks = works(model, rng)
    alone = [[array.tobytes() for array in work()] for work in tasks]
    together, right = threading.Barrier(2 * len(tasks)), []

    def repeat(first):
        together.wait(20)
        for n in range(first, first + 8):
            found = [array.tobytes() for array in tasks[n % 4]()]
            right.append(found == alone[n % 4])

    in_threads(*(partial(repeat, n) for n in range(2 * len(tasks))))
    assert right == [True] * 8 * 2 * len(tasks)
    assert {name: array.tobytes() for name, array in model.state_dict().items()} == before
    assert all(p.grad is None for p in model.parameters())
    assert model.training
