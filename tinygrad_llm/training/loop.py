"""The training loop: loss, gradient, clip, step, again; and the held-out loss."""

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.autograd import AnomalyError, detect_anomaly, grad
from tinygrad_llm.datasets import BatchStream, DataError, SlidingWindows, check_ids, mixture
from tinygrad_llm.kernels import Array
from tinygrad_llm.models import GPT
from tinygrad_llm.nn import Dropout, Parameter
from tinygrad_llm.optim import SCHEDULES, SGD, Adam, AdamW, clip_scale, decay_groups, grad_norm
from tinygrad_llm.random import Generator
from tinygrad_llm.runtime import peak_memory
from tinygrad_llm.training.ranks import ALONE, Ranks
from tinygrad_llm.training.settings import ConfigError, TrainSettings
from tinygrad_llm.training.workers import Gradients, counted, default_workers

REMEMBERED = 100  # losses that a new one is compared with
SPIKE = 5.0  # standard deviations above their mean
_FEW = 20  # of fewer losses nothing can be said
GIVE_UP = 10  # bad steps in a row; weights that nine were skipped with will not recover
LAYERS_EVERY = 10  # steps from one look at each layer to the next; more often, training would be slower for it
_SAMPLE = 1 << 16  # entries of a parameter that its update is measured by
_TOO_LARGE = "each operation gives numbers, their sum is too large"


@dataclass(frozen=True)
class Step:
    """What happened in one step. `val_loss` is given where one was measured, always at the last."""

    step: int  # how many updates have been made
    loss: float  # of the batch, before its update
    lr: float
    grad_norm: float  # before clipping
    tokens_per_second: float  # since the start, evaluations and samples left out
    val_loss: float | None
    z_score: float | None = None  # of the loss among the last hundred: (loss − mean) / standard deviation
    skipped: bool = False  # loss or gradient were no numbers, and there was no update
    # The peak so far, in bytes; None where the system does not tell. It is the machine's, so equal steps may differ.
    memory: int | None = field(default=None, compare=False)
    # By layer (wte, wpe, h.0, …, ln_f, lm_head), at each held-out loss and every tenth step:
    update_ratio: dict[str, float] | None = None  # ‖Δw‖ / ‖w‖ (larger parameters: from a sample of their entries)
    layer_grad_norm: dict[str, float] | None = None  # before clipping; their squares add up to that of grad_norm

    @property
    def spike(self) -> bool:
        """Whether the loss stands out above those before it."""
        return self.z_score is not None and self.z_score > SPIKE

    @property
    def astray(self) -> bool:
        """Whether the held-out loss is no number: the weights that this step has made are of no use."""
        return self.val_loss is not None and not math.isfinite(self.val_loss)


class TrainingError(RuntimeError):
    """Training cannot go on: a loss, the gradient or a weight is no longer a number."""


@dataclass
class _Sum:
    """The micro-batches of a step so far: mean loss and mean gradient over their tokens."""

    batches: int = 0
    tokens: int = 0
    loss: float = 0.0
    grads: list[Array] = field(default_factory=list)

    def add(self, tokens: int, loss: float, grads: list[Array]) -> None:
        """Move both means towards those of another micro-batch, by its share of all tokens."""
        self.batches += 1
        self.tokens += tokens
        if self.batches == 1:
            self.loss, self.grads = loss, grads
            return
        share = tokens / self.tokens
        self.loss += share * (loss - self.loss)
        for total, g in zip(self.grads, grads, strict=True):
            total *= 1 - share
            g *= share
            total += g

    def copy(self) -> "_Sum":
        return _Sum(self.batches, self.tokens, self.loss, [g.copy() for g in self.grads])


class Trainer:
    """A model being trained, with all that the next step depends on; it can stop after any micro-batch.

    `get_state` and `set_state` carry it over to another process, which goes on bit for bit as this one would have.

    Args:     batches: where they come from; its Generator is saved with the state, as are those of the model's dropout.
              held_out: batches for the held-out loss. ranks: the processes that share each gradient.
    Raises:   ConfigError: several workers with dropout, whose masks would depend on which thread is sooner, or several
              processes; an unknown optimizer or schedule.
    """

    def __init__(
        self,
        model: GPT,
        batches: BatchStream,
        held_out: Sequence[tuple[Array, Array]],
        settings: TrainSettings,
        ranks: Ranks = ALONE,
    ) -> None:
        self.model = model
        self.batches = batches
        self.held_out = held_out
        self.settings = settings
        self.parameters = list(model.parameters())
        self._layers = _by_layer(model)
        self.optimizer = make_optimizer(model, settings)
        if settings.schedule not in SCHEDULES:
            raise ConfigError(f"training.schedule: there are {', '.join(SCHEDULES)}, not {settings.schedule!r}")
        workers = min(settings.workers or default_workers(model, batches.batch_size, ranks), batches.batch_size)
        if workers > 1 and model.config.dropout > 0:
            raise ConfigError(f"dropout draws its masks from one stream, so it takes one worker, not {workers}")
        if ranks.size > 1 and model.config.dropout > 0:
            raise ConfigError(f"dropout draws its masks from one stream, so it takes one process, not {ranks.size}")
        self.step = 0
        self.skipped = 0  # steps without an update
        self._in_a_row = 0  # of these, the last ones
        self._begun = False
        self._recent: deque[float] = deque(maxlen=REMEMBERED)
        self._sum = _Sum()
        dropouts = [module.rng for module in model.modules() if isinstance(module, Dropout)]
        self._generators = list({id(rng): rng for rng in [batches.rng, *dropouts]}.values())
        self._gradients = Gradients(model, self.parameters, workers, settings.label_smoothing, ranks)
        self._seen: list[tuple[Array, Array, list[Any]]] = []  # the micro-batches of this step
        self._before = self._place()
        self._seconds, self._tokens = 0.0, 0
        self._peak: int | None = None  # of memory, as last asked for

    @property
    def micro_batches(self) -> int:
        """How many of the next step have been taken."""
        return self._sum.batches

    def run(self, stop: Callable[[], bool] = lambda: False) -> Iterator[Step]:
        """Train up to the last step, and tell of every one; `stop` is asked after each micro-batch.

        Step 0 is told of first, before any update: it carries the loss of the untrained model.

        Raises:   TrainingError: as `advance`; or, after a step with a held-out loss of NaN or infinity was told of,
                  naming the first bad operation in it.
        """
        self.model.train()
        with self._gradients:
            if not self._begun:
                start = evaluate(self.model, self.held_out)
                self._begun = True
                yield from self._told(Step(0, start, 0.0, 0.0, 0.0, start))
            while self.step < self.settings.steps and not stop():
                step = self.advance()
                if step is not None:
                    yield from self._told(step)

    def _told(self, step: Step) -> Iterator[Step]:
        yield step
        if step.astray:
            try:
                with detect_anomaly():
                    evaluate(self.model, self.held_out)
                cause = None
            except AnomalyError as error:
                cause = error
            raise TrainingError(
                f"step {step.step}: the held-out loss is {step.val_loss}: {cause or _TOO_LARGE}. "
                "Try a lower learning rate"
            ) from cause

    def advance(self) -> Step | None:
        """One micro-batch; the Step, if it was the last of one.

        Raises:   TrainingError: NaN or infinity in loss or gradient, where such steps are not skipped or this is the
                  tenth in a row. The first bad operation and its layer are named, and all is as it was before the step.
        """
        began = time.perf_counter()
        if self._sum.batches == 0:
            self._before = self._place()
            self.optimizer.zero_grad()  # the new gradients take the memory of the old ones
        inputs, targets = next(self.batches)
        self._seen.append((inputs, targets, [rng.get_state() for rng in self._generators]))
        tokens = counted(targets)
        self._tokens += tokens
        with np.errstate(all="ignore"):
            self._sum.add(tokens, *self._gradients.of(inputs, targets))
            if self._sum.batches < self.settings.accumulation and math.isfinite(self._sum.loss):
                self._seconds += time.perf_counter() - began
                return None
            measured = (self.step + 1) % self.settings.eval_every == 0 or self.step + 1 == self.settings.steps
            closer = measured or (self.step + 1) % LAYERS_EVERY == 0
            done = self._update(closer)
        self._seconds += time.perf_counter() - began

        if closer or self._peak is None:  # a peak is no lower later
            self._peak = peak_memory()
        self.step += 1
        self._sum, self._seen = _Sum(), []
        return dataclasses.replace(
            done,
            tokens_per_second=self._tokens / self._seconds,
            val_loss=evaluate(self.model, self.held_out) if measured else None,
            z_score=None if done.skipped else self._z_score(done.loss),
            memory=self._peak,
        )

    def _update(self, look_at_layers: bool) -> Step:
        """One step of the optimizer, from the gradients that have come together.

        Returns:  the Step, but for speed, held-out loss, z-score and memory.
        """
        settings, loss = self.settings, self._sum.loss
        for p, g in zip(self.parameters, self._sum.grads, strict=True):
            p.grad = g
        layers = self._layers if look_at_layers else {}
        grad_norms = {name: grad_norm(p.grad for p in of if p.grad is not None) for name, of in layers.items()} or None
        norm = grad_norm(self._sum.grads, self._gradients.map)
        steps = settings.horizon(self.step)
        lr = SCHEDULES[settings.schedule](
            self.step, steps=steps, lr=settings.lr, min_lr=settings.min_lr, warmup=settings.warmup
        )
        if math.isfinite(loss) and math.isfinite(norm):
            self._in_a_row = 0
            self.optimizer.set_lr(lr)
            before = {name: _sample(of) for name, of in layers.items()}
            self._gradients.update(self.optimizer, clip_scale(norm, settings.clip))
            moved = {name: _norm(_sample(of) - before[name]) for name, of in layers.items()}
            ratios = {name: m / (_norm(before[name]) or math.nan) for name, m in moved.items()} or None
            return Step(self.step + 1, loss, lr, norm, 0.0, None, update_ratio=ratios, layer_grad_norm=grad_norms)
        skip = settings.on_bad_step == "skip"
        if skip and self._in_a_row < GIVE_UP - 1:
            self.skipped += 1
            self._in_a_row += 1
            return Step(self.step + 1, loss, lr, norm, 0.0, None, skipped=True, layer_grad_norm=grad_norms)
        cause = self._first_bad_operation()
        self._go_back()
        raise TrainingError(
            f"step {self.step + 1}: the loss is {loss} and the gradient norm {norm}"
            f"{f', the {GIVE_UP}th bad step in a row' if skip else ''}: {cause or _TOO_LARGE}; the weights are as they "
            "were before this step. Try a lower learning rate"
        ) from cause

    def _first_bad_operation(self) -> AnomalyError | None:
        """Go through the micro-batches of this step again, with every operation looked at."""
        for inputs, targets, states in self._seen:
            for rng, state in zip(self._generators, states, strict=True):
                rng.set_state(state)
            try:
                with detect_anomaly():
                    grad(self._gradients.loss(inputs, targets), self.parameters)
            except AnomalyError as error:
                return error
        return None

    def _z_score(self, loss: float) -> float | None:
        z = None
        if len(self._recent) >= _FEW:
            mean = math.fsum(self._recent) / len(self._recent)
            deviation = math.sqrt(math.fsum((x - mean) ** 2 for x in self._recent) / len(self._recent))
            z = (loss - mean) / deviation if deviation > 0 else None
        self._recent.append(loss)
        return z

    # ---- the state -------------------------------------------------------------------------------------------------

    def _place(self) -> tuple[Any, list[Any], _Sum]:
        """Where this step began: in the data, in each random stream, and in an accumulation."""
        return self.batches.get_state(), [rng.get_state() for rng in self._generators], self._sum.copy()

    def _go_back(self) -> None:
        data, states, so_far = self._before
        self.batches.set_state(data)
        for rng, state in zip(self._generators, states, strict=True):
            rng.set_state(state)
        self._sum, self._seen = so_far, []

    def get_state(self) -> tuple[dict[str, Array], dict[str, Any]]:
        """Arrays, and what JSON can hold, that `set_state` goes on from.

        The arrays are the trainer's own, which its next step changes: write them, or copy them, before it.
        """
        arrays = {f"model.{name}": p.data for name, p in self.model.named_parameters()}
        arrays |= {f"optimizer.{name}": array for name, array in self.optimizer.state_dict().items()}
        names = [name for name, _ in self.model.named_parameters()]
        arrays |= {f"gradient.{name}": g for name, g in zip(names, self._sum.grads, strict=False)}
        arrays["losses"] = np.array(self._recent, np.float64)
        randoms = []
        for i, rng in enumerate(self._generators):
            state = rng.get_state()
            arrays |= {f"random.{i}.{name}": np.asarray(state.pop(name)) for name in ("key", "cached_normal")}
            randoms.append(state)
        so_far = {"batches": self._sum.batches, "tokens": self._sum.tokens, "loss": self._sum.loss}
        return arrays, {
            "step": self.step,
            "skipped": self.skipped,
            "skipped_in_a_row": self._in_a_row,
            "data": self.batches.get_state(),
            "random": randoms,
            "accumulation": so_far,
        }

    def set_state(self, arrays: Mapping[str, Array], numbers: Mapping[str, Any]) -> None:
        """Go on from the `get_state()` of a Trainer of the same model, data and settings.

        Raises:   ValueError, KeyError: it is one of something else; the Trainer is not to be used then.
        """
        groups: dict[str, dict[str, Array]] = {"model": {}, "optimizer": {}, "gradient": {}, "random": {}}
        for name, array in arrays.items():
            group, _, rest = name.partition(".")
            if rest:
                groups[group][rest] = array
        self.model.load_state_dict(groups["model"])
        self.optimizer.load_state_dict(groups["optimizer"])
        self.batches.set_state(numbers["data"])
        for i, (rng, state) in enumerate(zip(self._generators, numbers["random"], strict=True)):
            rng.set_state({**state, **{name: groups["random"][f"{i}.{name}"] for name in ("key", "cached_normal")}})
        names = [name for name, _ in self.model.named_parameters()] if groups["gradient"] else []
        so_far = numbers["accumulation"]
        gradients = [groups["gradient"][name].copy() for name in names]
        self._sum = _Sum(so_far["batches"], so_far["tokens"], so_far["loss"], gradients)
        self._recent = deque(arrays["losses"].tolist(), REMEMBERED)
        self.step, self.skipped = numbers["step"], numbers["skipped"]
        self._in_a_row = numbers.get("skipped_in_a_row", 0)  # earlier checkpoints do not have it
        self._begun, self._seen, self._before = True, [], self._place()


def make_optimizer(model: GPT, settings: TrainSettings) -> AdamW | Adam | SGD:
    """The optimizer that the settings name.

    Raises:   ConfigError: there is none of that name.
    """
    named, decay = list(model.named_parameters()), settings.weight_decay
    groups = decay_groups(named, decay) if settings.decay == "matrices" else [{"params": named, "weight_decay": decay}]
    match settings.optimizer:
        case "adamw":
            return AdamW(groups, settings.lr, settings.betas, settings.eps)
        case "adam":
            return Adam(groups, settings.lr, settings.betas, settings.eps)
        case "sgd":
            return SGD(groups, settings.lr, settings.momentum)
    raise ConfigError(f"training.optimizer: there are adamw, adam and sgd, not {settings.optimizer!r}")


def train(
    model: GPT, ids: NDArray[Any], val_ids: NDArray[Any], settings: TrainSettings, rng: Generator | None = None
) -> Iterator[Step]:
    """Train the model in place on ids that lie in memory, and tell of every step: see `Trainer.run`.

    Args:     ids, val_ids: (n,) token ids, to learn from and held out. rng: shuffles the windows; give the Generator
              the model was made with to go on with one stream, as one torch.manual_seed does. None: a new one.
    Raises:   DataError: too few tokens for one window, or one outside the vocabulary, in either part.
              ConfigError, TrainingError: as `Trainer`.
    """
    block_size = model.config.block_size
    rng = rng or Generator(settings.seed)
    for row, name in ((ids, "ids"), (val_ids, "val_ids")):
        check_ids(np.asarray(row), model.config.vocab_size, name)
    batches = BatchStream([ids], block_size, settings.batch_size, rng, settings.stride or None, settings.order)
    held_out = validation_batches([val_ids], block_size, settings.batch_size, settings.eval_batches)
    yield from Trainer(model, batches, held_out, settings).run()


def validation_batches(
    sources: Sequence[NDArray[Any]],
    block_size: int,
    batch_size: int,
    batches: int,
    weights: Sequence[float] = (),
) -> list[tuple[Array, Array]]:
    """Fixed windows, spread evenly over each held-out text: the same at every evaluation.

    Raises:   DataError: a text is shorter than a block with its target.
    """
    rows: list[tuple[Array, Array]] = []
    for ids, share in zip(sources, mixture(weights, [max(1, len(ids)) for ids in sources]), strict=True):
        try:
            windows = SlidingWindows(ids, block_size)
        except DataError as error:
            raise DataError(f"the held-out part is too short: {error}") from None
        count = min(len(windows), max(1, round(batch_size * batches * share)))
        chosen = np.unique(np.linspace(0, len(windows) - 1, count).astype(int)).tolist()
        rows += [windows[i] for i in chosen]
    cut = [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]
    return [(np.stack([x for x, _ in part]), np.stack([y for _, y in part])) for part in cut]


def evaluate(model: GPT, batches: Sequence[tuple[Array, Array]]) -> float:
    """Mean loss over all targets of the batches, in nats a token, with dropout off."""
    with model.evaluating(), np.errstate(all="ignore"):  # weights that went astray show in the result
        total = math.fsum(model.loss(inputs, targets).item() * targets.size for inputs, targets in batches)
    return total / sum(targets.size for _, targets in batches)


def _by_layer(model: GPT) -> dict[str, list[Parameter]]:
    """The parameters of wte, wpe, h.0, h.1, …, ln_f, and of lm_head where it is not wte itself."""
    layers: dict[str, list[Parameter]] = {}
    for name, p in model.named_parameters():
        parts = name.removeprefix("transformer.").split(".")
        layers.setdefault(".".join(parts[:2] if parts[0] == "h" else parts[:1]), []).append(p)
    return layers


def _sample(parameters: Sequence[Parameter]) -> Array:
    """A copy of their entries as one vector; of a large parameter evenly spread ones, scaled so that their squares
    stand for all: copies of all weights would cost memory, which a large model has none to spare of."""
    parts = []
    for p in parameters:
        flat = p.data.ravel("K")
        stride = max(1, flat.size // _SAMPLE)
        while math.gcd(stride, flat.size) > 1:  # or it would meet the same few columns again and again
            stride += 1
        part = flat[::stride]
        parts.append(part * math.sqrt(flat.size / part.size))
    return np.concatenate(parts)


def _norm(vector: Array) -> float:
    return math.sqrt(np.dot(vector, vector))
