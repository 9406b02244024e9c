"""The state that the next training step depends on: as arrays and numbers for a checkpoint, and restored."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinygrad_llm.kernels import Array
from tinygrad_llm.nn import Module
from tinygrad_llm.optim import Optimizer
from tinygrad_llm.random import Generator
from tinygrad_llm.training.records import LossHistory, MeanGradient
from tinygrad_llm.training.task import Batch, Task
from tinygrad_llm.training.workers import trainable

_ARRAYS = ("key", "cached_normal")  # of the state of a Generator; the rest are numbers


class TrainingState:
    """A model, its task and its optimizer, and how far the training is: in steps, and in micro-batches of the next one.

    `get_state` and `set_state` carry it to another process, which continues bit for bit as this one would.
    """

    def __init__(self, model: Module, task: Task, optimizer: Optimizer) -> None:
        self.model = model
        self.task = task
        self.optimizer = optimizer
        self.parameters = trainable(model)
        self.step = 0  # updates made, and steps skipped
        self.skipped = 0  # steps without an update
        self.skipped_in_a_row = 0  # the last of these, without a good step between them
        self.measured_untrained = False  # whether step 0 was reported
        self.losses = LossHistory()
        self.total = MeanGradient()  # of the micro-batches so far
        found = [x for module in model.modules() for x in vars(module).values() if isinstance(x, Generator)]
        self._in_model = list(dict.fromkeys(found))  # what a loss may draw from
        self._generators = list(dict.fromkeys([*task.generators(), *found]))

    @property
    def micro_batches(self) -> int:
        """How many micro-batches of the next step have been taken."""
        return self.total.batches

    # ---- within a step: to repeat it, or to undo it ----------------------------------------------------------------

    def _remember(self) -> None:
        """Note where this step begins: in the data, in each random stream, and in an accumulation."""
        self._beginning = self.task.get_state(), self._streams(), self.total.copy()
        self._taken: list[tuple[Batch, list[Any]]] = []  # the micro-batches since, and the model's streams before each

    def _next_batch(self) -> Batch:
        batch = self.task.next_batch()
        self._taken.append((batch, [rng.get_state() for rng in self._in_model]))
        return batch

    def _undo(self) -> None:
        """Go back to where this step began; the weights are still those."""
        place, streams, self.total = self._beginning
        self.task.set_state(place)
        self._set_streams(streams)
        self._taken = []

    def _streams(self) -> list[Any]:
        return [rng.get_state() for rng in self._generators]

    def _set_streams(self, states: list[Any]) -> None:
        _set(self._generators, states)

    def _set_back(self, streams: list[Any]) -> None:
        """Set the model's random streams to those before a micro-batch that was taken."""
        _set(self._in_model, streams)

    # ---- in a checkpoint -------------------------------------------------------------------------------------------

    def get_state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """The state as arrays, and as numbers that JSON can hold.

        The arrays are the trainer's own, and its next step changes them: write or copy them before it.
        """
        arrays = {f"model.{name}": p.data for name, p in self.model.named_parameters()}
        arrays |= {f"optimizer.{name}": array for name, array in self.optimizer.state_dict().items()}
        arrays |= {f"gradient.{name}": g for name, g in zip(self.parameters, self.total.grads, strict=False)}
        arrays["losses"] = np.array(self.losses.losses, np.float64)
        randoms = self._streams()
        for i, state in enumerate(randoms):
            arrays |= {f"random.{i}.{name}": np.asarray(state.pop(name)) for name in _ARRAYS}
        total = self.total
        return arrays, {
            "step": self.step,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
            "data": self.task.get_state(),
            "random": randoms,
            "accumulation": {
                "batches": total.batches,
                "targets": total.count,
                "loss": total.loss,
                "measures": total.measures,
            },
        }

    def set_state(self, arrays: Mapping[str, Array], numbers: Mapping[str, Any]) -> None:
        """Resume from the `get_state()` of a Trainer of the same model, data and settings.

        Raises:   ValueError, KeyError: the state belongs to something else. The Trainer must not be used then.
        """
        groups: dict[str, dict[str, Array]] = {"model": {}, "optimizer": {}, "gradient": {}, "random": {}}
        for name, array in arrays.items():
            group, _, rest = name.partition(".")
            if rest:
                groups[group][rest] = array
        self.model.load_state_dict(groups["model"])
        self.optimizer.load_state_dict(groups["optimizer"])
        self.task.set_state(numbers["data"])
        streams = []
        for i, state in enumerate(numbers["random"]):
            streams.append({**state, **{name: groups["random"][f"{i}.{name}"] for name in _ARRAYS}})
        self._set_streams(streams)
        names = list(self.parameters) if groups["gradient"] else []
        grads = [groups["gradient"][name].copy() for name in names]
        done = numbers["accumulation"]
        self.total = MeanGradient(done["batches"], done["targets"], done["loss"], dict(done["measures"]), grads)
        self.losses = LossHistory(arrays["losses"].tolist())
        self.step, self.skipped = numbers["step"], numbers["skipped"]
        self.skipped_in_a_row = numbers["skipped_in_a_row"]
        self.measured_untrained = True
        self._remember()


def _set(generators: list[Generator], states: list[Any]) -> None:
    for rng, state in zip(generators, states, strict=True):
        rng.set_state(state)
