"""Learning to a loss: how many steps and how much time AdamW and Muon need, on the same model and data.

The model and the settings are those of a preset, nanoGPT's for a CPU. Each contender trains in its own process; after
every EVERY steps the next one takes its turn. The held-out loss is measured after each turn, and its time not counted.
"""

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.bench.harness import BenchError, Subject, agree, alternate
from tinygrad_llm.bench.measure import OURS, THREADS, contender
from tinygrad_llm.bench.work import numpy_facts
from tinygrad_llm.datasets import BatchStream
from tinygrad_llm.models import GPT
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.presets import PRESETS
from tinygrad_llm.tokenizer import CharTokenizer
from tinygrad_llm.training import LanguageModeling, Trainer, TrainSettings, held_out_windows

THEIRS = ("torch",)
SUBJECTS = {"torch": "tinygrad_llm.bench.against_torch:learning"}  # with AdamW
PRESET = PRESETS["char-cpu"]
EVERY = 25  # steps in a turn
RATES = {"adamw": 1e-3, "muon": 1e-2}  # the highest learning rates: nanoGPT's, and the best of 1e-3, 3e-3 and 1e-2
TOLERANCE = 1e-3  # of the first held-out losses, which must agree


@dataclass(frozen=True)
class Learned:
    """How one contender learned.

    Args:     curve: (step, seconds of training until then, held-out loss in nats per character), step 0 first.
    """

    name: str
    curve: Sequence[tuple[int, float, float]]
    about: dict[str, Any]

    @property
    def loss(self) -> float:
        """The held-out loss at the end."""
        return self.curve[-1][2]

    def reached(self, loss: float) -> tuple[int, float] | None:
        """The first measured step with at most this held-out loss, and the seconds until then."""
        return next(((step, seconds) for step, seconds, found in self.curve if found <= loss), None)


def learn(
    text: str,
    steps: int,
    against: Sequence[str],
    threads: int,
    rates: Mapping[str, float] = RATES,
    progress: Callable[[str], None] = lambda what: None,
) -> list[Learned]:
    """Train with each optimizer, in turns. The first nine tenths of the text are learned, and the rest is held out.

    Args:     steps: at least EVERY; a multiple of it is taken. rates: the highest learning rate of each optimizer.
    Raises:   BenchError: the text is too short; a worker failed; the untrained models do not agree.
    """
    tokenizer = CharTokenizer.train(text)
    config = replace(PRESET.model, vocab_size=tokenizer.n_vocab)
    least = 20 * config.block_size
    if len(text) < least:
        raise BenchError(f"the text has {len(text)} characters, and at least {least} are needed: give a longer one")
    turns = max(1, steps // EVERY)
    with tempfile.TemporaryDirectory() as folder:
        GPT(config, Generator(0)).save_pretrained(Path(folder))
        np.save(Path(folder) / "ids.npy", np.asarray(tokenizer.encode(text)))
        options = {"folder": folder, "steps": turns * EVERY, "lr": rates["adamw"]}
        environment = dict.fromkeys(THREADS, str(threads))
        subject = f"{__name__}:learning"
        ours = [
            contender(OURS, subject, options | {"optimizer": name, "lr": lr}, environment) for name, lr in rates.items()
        ]
        named = [replace(one, name=f"{OURS}, {name}") for one, name in zip(ours, rates, strict=True)]
        theirs = [contender(name, SUBJECTS[name], options, environment) for name in against]
        timings = alternate([*named, *theirs], turns, warmup=0, progress=progress)
    first, *others = timings
    for other in others:
        if not agree(other.answer, first.answer, TOLERANCE):
            raise BenchError(f"untrained, {other.name} has a loss of {other.answer}, and {first.name} {first.answer}")
    return [Learned(one.name, **one.about) for one in timings]


# ---- in the worker -----------------------------------------------------------------------------------------------


@dataclass
class Learning:
    """The Subject of a training: a round is EVERY steps, and the held-out loss after them is not timed."""

    step: Callable[[], object]
    loss: Callable[[], float]
    facts: Callable[[], dict[str, Any]]
    curve: list[tuple[int, float, float]] = field(default_factory=list)

    def answer(self) -> float:
        self.curve.append((0, 0.0, self.loss()))
        return self.curve[0][2]

    def round(self) -> float:
        began = time.perf_counter()
        for _ in range(EVERY):
            self.step()
        seconds = time.perf_counter() - began
        steps, before, _ = self.curve[-1]
        self.curve.append((steps + EVERY, before + seconds, self.loss()))
        return seconds

    def about(self) -> dict[str, Any]:
        return {"curve": self.curve, "about": self.facts()}


def settings(steps: int, lr: float, optimizer: str = "adamw") -> TrainSettings:
    """The preset's, for this many steps; the trainer measures no held-out loss by itself."""
    changes = {"training.steps": steps, "training.lr": lr, "training.min_lr": lr / 10, "training.optimizer": optimizer}
    return replace(PRESET.fitted(changes).training, eval_every=10**9)


def data(folder: str, of: TrainSettings) -> tuple[BatchStream, list[Any]]:
    """The batches to learn from, and those that are held out."""
    ids = np.load(Path(folder) / "ids.npy")
    cut, T = len(ids) * 9 // 10, PRESET.model.block_size
    stream = BatchStream([ids[:cut]], T, of.batch_size, Generator(1), order="random")
    return stream, held_out_windows([ids[cut:]], T, of.batch_size, of.eval_batches)


def learning(folder: str, steps: int, lr: float, optimizer: str) -> Subject:
    """Our trainer, with as many workers as `train` would choose."""
    own = settings(steps + 1, lr, optimizer)  # the last step of a training measures a held-out loss, within its time
    model = GPT.from_pretrained(folder)
    task = LanguageModeling(*data(folder, own))
    trainer = Trainer(model, task, own)
    run = trainer.run()
    next(run)  # step 0
    return Learning(lambda: next(run), lambda: task.evaluate(model).loss, numpy_facts)
