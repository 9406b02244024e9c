"""What several tests of training use: a tiny GPT on a repeating text, and a task that is no language model at all."""

import dataclasses

import numpy as np

from tinygrad_llm import functional as F
from tinygrad_llm.autograd import Tensor
from tinygrad_llm.datasets import BatchStream
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.nn import Dropout, Linear, Module
from tinygrad_llm.random import Generator
from tinygrad_llm.training import Examples, LanguageModeling, Task, TrainSettings, held_out_windows, train

BLOCK, VOCAB = 6, 11
IDS = np.tile(np.array([3, 1, 4, 1, 5, 9, 2, 6, 5, 10, 0, 7, 8]), 30)
VAL_IDS = IDS[5:120]
SETTINGS = TrainSettings(
    steps=6, batch_size=7, lr=1e-2, min_lr=1e-3, warmup=2, eval_every=4, eval_batches=2, workers=1, seed=5
)


def new_model(dtype=np.float32, **changes):
    sizes = {"vocab_size": VOCAB, "block_size": BLOCK, "n_layer": 1, "n_head": 2, "n_embd": 8}
    return GPT(GPTConfig(**sizes | changes), Generator(1)).to(dtype)


def text_task(settings=SETTINGS):
    batches = BatchStream([IDS], BLOCK, settings.batch_size, Generator(settings.seed))
    held_out = held_out_windows([VAL_IDS], BLOCK, settings.batch_size, settings.eval_batches)
    return LanguageModeling(batches, held_out, settings.label_smoothing)


def run(model, ids=IDS, val_ids=VAL_IDS, **changes):
    """All steps, without the measured speeds, which differ each time."""
    steps = train(model, ids, val_ids, dataclasses.replace(SETTINGS, **changes))
    return [dataclasses.replace(step, tokens_per_second=0.0) for step in steps]


def weights(model):
    return {name: array.copy() for name, array in model.state_dict().items()}


def assert_same_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name], name)


class Given:
    """Batches that someone else has chosen."""

    def __init__(self, batches, batch_size):
        self.rng, self.batch_size, self.batches = Generator(0), batch_size, batches

    def __next__(self):
        return next(self.batches)

    def get_state(self):
        return {}

    def set_state(self, state):
        pass


# ---- a regression: floats in dicts, and a figure of its own ----------------------------------------------------------


class Curve(Module):
    """x (N, 3) → y (N, 1), by one hidden layer."""

    def __init__(self, dropout=0.0):
        rng = Generator(1)
        self.hidden = Linear(3, 8, rng=rng)
        self.dropout = Dropout(dropout, rng=rng)
        self.layers = [Linear(8, 8, rng=rng), Linear(8, 1, rng=rng)]

    def forward(self, x):
        y = F.tanh(self.layers[0](self.dropout(F.tanh(self.hidden(Tensor(x))))))
        return self.layers[1](y)


class Regression(Task):
    """Squared error. Rows whose weight is 0 do not count."""

    def loss(self, model, batch, total):
        counts = batch["counts"][:, None]
        error = (model(batch["x"]) - batch["y"]) * counts
        return (error * error).sum() / total, {"absolute_error": float(np.abs(error.numpy()).sum()) / total}

    def count(self, batch):
        return int(batch["counts"].sum())


def regression(batch_size=5, dtype=np.float32):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 3)).astype(dtype)
    examples = {"x": x, "y": np.sin(x.sum(axis=1, keepdims=True)), "counts": (rng.random(40) < 0.7).astype(dtype)}
    held_out = {name: values[:8] for name, values in examples.items()}
    return Regression(Examples(examples, batch_size, Generator(3)), [held_out])
