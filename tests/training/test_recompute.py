"""training.recompute: the same run, to the last bit, in less memory."""

import dataclasses
import math

import numpy as np
import pytest
from training_toys import SETTINGS, new_model, text_task

from tinygrad_llm.autograd import grad
from tinygrad_llm.models import GPT, GPTConfig
from tinygrad_llm.random import Generator
from tinygrad_llm.training import Trainer


def trainer_of(recompute, dropout=0.2, **changes):
    model = new_model(n_layer=2, dropout=dropout)
    model.recompute = recompute
    settings = dataclasses.replace(SETTINGS, recompute=recompute, **changes)
    return Trainer(model, text_task(settings), settings)


def end_of(trainer):
    """The result of a training: losses and norms, weights, the optimizer's arrays."""
    steps = [(step.loss, step.grad_norm, step.val_loss) for step in trainer.run()]
    return steps, {name: array.tobytes() for name, array in trainer.get_state()[0].items()}


@pytest.mark.parametrize("changes", [{}, {"workers": 2}], ids=["one worker", "two"])
def test_the_run_is_the_same_to_the_last_bit(changes):
    assert end_of(trainer_of(True, **changes)) == end_of(trainer_of(False, **changes))


@pytest.mark.parametrize("recompute", [False, True])
def test_training_is_resumed_with_or_without_recompute(recompute):
    whole = end_of(trainer_of(False))
    trainer = trainer_of(not recompute)
    first = [(step.loss, step.grad_norm, step.val_loss) for step in trainer.run(lambda: trainer.step == 2)]
    resumed = trainer_of(recompute)
    resumed.set_state(*trainer.get_state())
    steps, arrays = end_of(resumed)
    assert (first + steps, arrays) == whole


@pytest.mark.slow
def test_a_long_text_takes_no_memory_that_is_quadratic_in_its_length(peak_memory):
    def peak_of_a_step(config):
        """The most that a gradient of one sequence takes, without the model."""
        model = GPT(config, Generator(0), recompute=True)
        ids = np.arange(config.block_size)[None] % config.vocab_size
        # These are tens of megabytes, which no table of the interpreter changes much: one reading is enough.
        return peak_memory(lambda: grad(model.loss(ids, ids), list(model.parameters())), math.inf)

    baby = {"vocab_size": 65, "n_layer": 6, "n_head": 6, "n_embd": 384}
    peaks = [peak_of_a_step(GPTConfig(block_size=T, **baby)) for T in (512, 1024, 2048)]
    # Twice as much for twice as many more tokens: a quadratic part would make it up to four times.
    assert peaks[2] - peaks[1] == pytest.approx(2 * (peaks[1] - peaks[0]), rel=0.1)
    weights = 6 * 6 * 2048 * 2048 * 4  # bytes of attention weights that the blocks would keep
    assert peaks[2] < weights / 3
