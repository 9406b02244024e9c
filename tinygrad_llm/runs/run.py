"""A training run: text → tokenizer → task → model → trainer → folder."""

import contextlib
import dataclasses
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinygrad_llm.formats import Checkpoints
from tinygrad_llm.formats.checkpoint import NotFiniteError
from tinygrad_llm.kernels import Array
from tinygrad_llm.random import Generator
from tinygrad_llm.runs.config import TOKENIZERS, RunConfig, differences, parse_toml, read_text, read_toml
from tinygrad_llm.runs.data import LEARNED, TEXTS, data_differences, load_data, make_tokenizer, read_source, tokenize
from tinygrad_llm.runs.finetune import Subject, load_examples
from tinygrad_llm.runs.folder import (
    ABOUT,
    ASIDE,
    CONFIG,
    METRICS,
    RESULTS,
    SAMPLES,
    TABLE,
    TOKENIZER,
    RunFolder,
    about_run,
)
from tinygrad_llm.runs.metrics import (
    about_samples,
    read_samples,
    recover_metrics,
    sample_to_text,
    samples_to_text,
    step_to_json,
    steps_to_csv,
)
from tinygrad_llm.runs.pictures import save_confusion, save_pictures
from tinygrad_llm.runs.presets import over_preset
from tinygrad_llm.runs.start import start_from
from tinygrad_llm.runs.translation import load_translations
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.storage.text import to_json
from tinygrad_llm.tokenizer import load_tokenizer
from tinygrad_llm.training import ConfigError, Step, Trainer, TrainingError, TrainSettings
from tinygrad_llm.training.workers import processes
from tinygrad_llm.weights import about_model
from tinygrad_llm.weights.adapters import state_hash
from tinygrad_llm.weights.find import CHECKPOINTS


class DamagedRunWarning(UserWarning):
    """A file of a run is damaged or gone; the message says what was done about it."""


class Run:
    """A run in training: its model, its trainer, and everything that belongs in its folder.

    `Run.new` starts one and `Run.resume` continues one; `train` yields the steps, and `save` completes the folder.
    From the first step, or from `resume`, to `save`, other processes are kept out of the folder.
    """

    def __init__(self, config: RunConfig, data: Subject, trainer: Trainer, folder: RunFolder) -> None:
        self.config = config
        self.data = data
        self.trainer = trainer
        self.folder = folder
        self.steps: list[Step] = []
        self.samples: list[tuple[int, str]] = []
        self.init: dict[str, str] | None = None  # the weights that it started from, and their hash
        self.lost: list[list[int]] = []  # first and last of steps whose records were lost
        self.results: dict[str, Any] | None = None  # of a test after the last step, if the subject has one
        self._saved_at: tuple[int, int] | None = None  # the position of the last checkpoint

    @property
    def model(self) -> Any:
        """The model that is trained: a GPT, or a GPTClassifier."""
        return self.trainer.model

    # ---- making one ------------------------------------------------------------------------------------------------

    @classmethod
    def new(cls, config: RunConfig, folder: Path, data: Subject | None = None) -> "Run":
        """Start a run, which has not made a step yet.

        Args:     data: the result of `load_subject(config)`, if it was computed before.
        Raises:   ConfigError: settings that do not fit each other, the data, or the memory; a setting that config.toml
                  cannot hold. DataError: the corpus cannot be used.
        """
        data = load_subject(config) if data is None else data
        config, trainer = make_trainer(config, data)
        run = cls(config, data, trainer, RunFolder(folder))
        if config.data.init:
            run.init = {"weights": config.absolute().data.init, "sha256": state_hash(run.model)}
        return run

    @classmethod
    def resume(cls, folder: Path, changes: Mapping[str, Any] | None = None, more: int | None = None) -> "Run":
        """The run of this folder, from its last checkpoint: bit for bit as if it had never stopped.

        Args:     changes: to its configuration; few are possible. more: how many steps to take from there; None: up
                  to those that were configured.
        Raises:   as `load_saved`; InUseError: another process is training it.
        """
        place = RunFolder(folder, resumed=True)
        try:
            if (folder / CONFIG).is_file():
                place.lock()
            return cls._resumed(load_saved(folder, changes, more), place)
        except BaseException:
            place.release()
            raise

    @classmethod
    def _resumed(cls, saved: "Saved", place: RunFolder) -> "Run":
        config, trainer = make_trainer(saved.config, saved.data, saved)
        try:
            trainer.set_state(saved.arrays, saved.trainer)
        except (KeyError, TypeError, ValueError) as error:
            raise LoadError(f"{saved.where} does not fit the run: {error}") from error
        place.checkpoints = saved.checkpoints
        run = cls(config, saved.data, trainer, place)
        run._saved_at = run._position
        run.init = about_run(place.path).get("init")
        metrics, table = place.path / METRICS, place.path / TABLE
        lost = about_run(place.path).get("lost_steps", [])
        run.steps, run.lost, damage = recover_metrics(metrics, table, saved.step, lost)
        run._note_damage(damage, METRICS, TABLE)
        run.samples, damage = read_samples(place.path / SAMPLES, saved.step, saved.samples)
        run._note_damage(damage, SAMPLES)
        run._note_damage(saved.damage, CONFIG)
        return run

    def _note_damage(self, damage: str, *names: str) -> None:
        """Warn of damaged files, if there is damage, and keep them when the next save replaces them."""
        if damage:
            self.folder.damaged += [name for name in names if (self.folder.path / name).is_file()]
            kept = f"the old file is kept with the ending {ASIDE}"
            warnings.warn(f"{damage}; {kept}", DamagedRunWarning, stacklevel=5)

    # ---- training --------------------------------------------------------------------------------------------------

    def train(self, stop: Callable[[], bool] = lambda: False, sample: int = 0) -> Iterator[Step]:
        """Train, yield every step, and save checkpoints; `stop` is called after each micro-batch.

        Args:     sample: how many tokens to write at each held-out loss. A sample is taken before the checkpoint of
                  its step, so a resumed run has all samples of one that never stopped. 0: none.
        Raises:   TrainingError: as `Trainer.advance`; a checkpoint holds the state before the bad step.
                  InUseError: another process is training in this folder.
        """
        finished = False
        try:
            self.folder.lock()
            for step in self.trainer.run(stop):
                self._begin()
                self.steps.append(step)
                self.folder.log(step_to_json(step))
                if sample and step.val_loss is not None:
                    with contextlib.suppress(ValueError), np.errstate(all="ignore"):  # the model diverged
                        self.sample(sample)
                if self._is_due(step):
                    self.checkpoint()
                yield step
            finished = True  # or stopped: the folder stays locked for `save`
        except TrainingError as error:
            raise TrainingError(f"{error}; {self._keep_last_good()}") from error.__cause__
        finally:
            self.folder.close_log()
            if not finished:
                self.folder.release()

    def _begin(self) -> None:
        """Open the folder, if it is not open; if it was removed meanwhile, make it and all its files again."""
        lost = self.folder.begin(self._write_notes)
        if lost:
            self._saved_at = None
            warnings.warn(lost, DamagedRunWarning, stacklevel=3)

    def _is_due(self, step: Step) -> bool:
        """Whether a checkpoint follows this step."""
        every = self.config.training.checkpoint_every
        due = step.step % every == 0 if every else step.val_loss is not None
        return due and not step.diverged

    def checkpoint(self) -> None:
        """Save all that the next step depends on. The last two checkpoints stay, and the one with the lowest loss.

        Raises:   TrainingError: a weight, or the held-out loss, is NaN or infinite. OSError: it cannot be written.
                  LoadError: checkpoints of another run are in the way.
        """
        self._begin()
        self.folder.sync_log()
        step, task = self.trainer.step, self.trainer.task
        arrays, numbers = self.trainer.get_state()
        last = self.steps[-1] if self.steps else None
        loss = last.val_loss if last is not None and last.step == step else None
        # Finite weights can give a loss that is not. A run could not be resumed from them.
        found = task.evaluate(self.model, task.held_out[:1]).loss if loss is None else loss
        if not math.isfinite(found):
            raise TrainingError(f"step {step}: the held-out loss is {found}. Try a lower learning rate")
        about = {"model": about_model(self.model), "samples": about_samples(self.samples), **self.data.identity}
        metadata = {"config": self.config.absolute().to_toml(), "trainer": numbers, **about}
        try:
            self.folder.checkpoints.save(step, arrays, metadata, loss)
        except NotFiniteError as error:
            raise TrainingError(f"step {step}: {error}. Try a lower learning rate") from error
        self._saved_at = self._position

    @property
    def _position(self) -> tuple[int, int]:
        """Steps, and micro-batches of the next one, that are done."""
        return self.trainer.step, self.trainer.micro_batches

    def _keep_last_good(self) -> str:
        """Save the state before a bad step, unless a checkpoint holds it; say which checkpoint is the last."""
        if self._saved_at != self._position:
            with contextlib.suppress(TrainingError):  # it is NaN or infinite too; an earlier checkpoint is not
                self.checkpoint()
        latest = self.folder.checkpoints.latest()
        return f"the last good checkpoint is {latest}" if latest else "there is no good checkpoint"

    def sample(self, max_new_tokens: int = 120, seed: int = 1) -> str:
        """Show in words what the model can do now, and keep it: a text, or answers, or classes of messages."""
        text = self.data.sample(self.model, max_new_tokens, seed)
        step = self.steps[-1].step if self.steps else 0
        self.samples.append((step, text))
        self.folder.add_sample(sample_to_text(step, text))
        return text

    # ---- the folder ------------------------------------------------------------------------------------------------

    def save(self) -> list[Path]:
        """Complete the folder, unlock it, and return the paths of its files.

        A save that fails leaves an earlier run there as it was. A run that was stopped replaces no other one.

        Raises:   TrainingError: a weight is NaN or infinite. OSError: a file cannot be written.
                  InUseError: another process is training in this folder.
        """
        try:
            self.folder.lock()
            if self._saved_at != self._position or self.folder.lost() or self.folder.checkpoints.latest() is None:
                self.checkpoint()
            ended = self.trainer.step >= self.config.training.steps
            self.results = self.data.results(self.model) if ended else None
            return self.folder.save(self._write_all, ended)
        finally:
            self.folder.close_log()
            self.folder.release()

    def _write_notes(self, folder: Path) -> None:
        """The files that a resume needs, besides a checkpoint."""
        about: dict[str, Any] = {
            "preset": self.config.preset,
            "corpus": self.config.examples or list(self.config.data.files) or self.config.data.corpus,
            "keep_newlines": self.config.data.keep_newlines,
            "steps_done": self.steps[-1].step if self.steps else 0,
            "processes": processes().size,
            "identity": self.data.identity,
        }
        if self.init:
            about["init"] = self.init
        if self.lost:
            about["lost_steps"] = self.lost
        texts = {
            CONFIG: self.config.absolute().to_toml(),
            ABOUT: json.dumps(about, indent=2) + "\n",
            METRICS: "".join(map(step_to_json, self.steps)),
            SAMPLES: samples_to_text(self.samples),
        }
        _write_texts(folder, texts)
        self.data.tokenizer.save(folder / TOKENIZER)

    def _write_all(self, folder: Path) -> None:
        self._write_notes(folder)
        _write_texts(folder, {TABLE: steps_to_csv(self.steps)})
        save_pictures(self.steps, folder)
        self.data.save(self.model, folder)
        if self.results is not None:
            _write_texts(folder, {RESULTS: to_json(self.results, indent=2) + "\n"})
            if "confusion" in self.results:
                save_confusion(self.results, folder)


def _write_texts(folder: Path, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")


@dataclass(frozen=True)
class Saved:
    """The state of a run in its last checkpoint."""

    where: str  # the checkpoint, for messages
    config: RunConfig  # with the changes
    before: TrainSettings  # without them
    data: Subject
    step: int
    arrays: dict[str, Array]
    trainer: dict[str, Any]  # with the arrays, the state of the trainer
    samples: Any  # `about_samples` of those before the checkpoint
    checkpoints: Checkpoints
    damage: str  # of config.toml, for the user; "" if it is whole


def load_saved(folder: Path, changes: Mapping[str, Any] | None = None, more: int | None = None) -> Saved:
    """Read the last checkpoint of a run, and compare its configuration and data with the present ones.

    Args:     changes, more: as for `Run.resume`.
    Raises:   ConfigError: the configuration, the corpus or the tokenizer has changed; the difference is shown.
              LoadError: there is no run, or no checkpoint of it that can be read.
    """
    if not (folder / CONFIG).is_file():
        raise LoadError(f"{folder}: no run to resume here ({CONFIG} is missing)")
    checkpoints = Checkpoints(folder / CHECKPOINTS)
    arrays, saved = checkpoints.load_latest()
    where = f"{folder}: its checkpoint of step {saved['step']}"
    before, damage = _read_config(folder / CONFIG, saved.get("config"), where)
    extension = {} if more is None else {"training.steps": saved["step"] + more, "training.epochs": 0}
    if more is not None and more < (rest := before.training.warmup - saved["step"]):
        raise ConfigError(
            f"{where} is within the warm-up of {before.training.warmup} steps: give --steps of at least {rest}"
        )
    config = before.changed({**(changes or {}), **extension})
    if config.finetune.task or config.model.kind not in TEXTS:
        return _saved_examples(where, config, before, saved, arrays, checkpoints, damage)
    source = read_source(config.data)
    learned = config.data.tokenizer in LEARNED and not source.files
    if config.data.tokenizer not in TOKENIZERS and not Path(config.data.tokenizer).exists():
        learned = True  # for example, the run that this one started from was removed; a copy is here
    tokenizer = load_tokenizer(folder / TOKENIZER) if learned else make_tokenizer(config.data, source)
    names = config.data.corpus, str(folder / TOKENIZER) if learned else config.data.tokenizer
    try:
        different = differences(over_preset(parse_toml(saved["config"]), where), config)
        different += data_differences(saved, source, tokenizer, *names)
        state = saved["trainer"]
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(f"{where} is not of a run: {error}") from error
    _refuse_changed(where, different)
    data = tokenize(config, source, tokenizer)  # only now: another text may have characters unknown to the tokenizer
    return Saved(
        where, config, before.training, data, saved["step"], arrays, state, saved.get("samples"), checkpoints, damage
    )


def _read_config(path: Path, saved: Any, where: str) -> tuple[RunConfig, str]:
    """The configuration of a run; and what is damaged: then it is the one of its checkpoint.

    Args:     saved: the text of config.toml in the checkpoint.
    Raises:   ConfigError: an unknown key or preset, a wrong type or value: a change of the user.
    """
    if not isinstance(saved, str):
        raise LoadError(f"{where} is not of a run: config: must be a text, got {saved!r:.100}")
    try:
        values = read_toml(path)
        lost = [key for key in parse_toml(saved) if key not in values]
        damage = f"{len(lost)} settings are missing, the first is {lost[0]}" if lost else ""
        text = read_text(path)
        if text != saved and saved.startswith(text):
            damage = damage or "its end is missing"
    except ConfigError as error:
        damage = str(error).removeprefix(f"{path}: ")
    if damage:
        return over_preset(parse_toml(saved), where), f"{path}: damaged: {damage}; the settings are those of {where}"
    return over_preset(values, str(path)), ""


# What each kind of model learns from, which also makes its task and the model: see `Subject`.
SUBJECTS: dict[str, Callable[[RunConfig], Subject]] = {
    **dict.fromkeys(TEXTS, load_data),
    "translator": load_translations,
}


def load_subject(config: RunConfig) -> Subject:
    """What a new run learns from: a text with its tokenizer, or examples with a base model.

    Raises:   as `load_examples`, and as the function in `SUBJECTS`.
    """
    return load_examples(config) if config.finetune.task else SUBJECTS[config.model.kind](config)


def _saved_examples(
    where: str,
    config: RunConfig,
    before: RunConfig,
    saved: Mapping[str, Any],
    arrays: dict[str, Array],
    checkpoints: Checkpoints,
    damage: str,
) -> Saved:
    """A run on examples, such as a fine-tuning, as its last checkpoint has it."""
    data, base = load_subject(config), config.finetune.base
    try:
        different = differences(over_preset(parse_toml(saved["config"]), where), config)
        for name, now in data.identity.items():
            if saved[name] != now:
                tokenizer = f"the tokenizer {f'of {base}' if base else config.data.tokenizer}"
                what = {"corpus": f"the examples {config.examples}", "tokenizer": tokenizer}
                different.append(what.get(name, f"the base model {base}"))
        state = saved["trainer"]
    except (KeyError, TypeError, ValueError) as error:
        raise LoadError(f"{where} is not of a run: {error}") from error
    _refuse_changed(where, different)
    return Saved(
        where, config, before.training, data, saved["step"], arrays, state, saved.get("samples"), checkpoints, damage
    )


def _refuse_changed(where: str, different: list[str]) -> None:
    if different:
        raise ConfigError(
            f"{where} cannot be resumed, because something has changed: {'; '.join(different)}. Put it back, or start "
            "a new run"
        )


def make_trainer(config: RunConfig, data: Subject, saved: Saved | None = None) -> tuple[RunConfig, Trainer]:
    """The trainer of a run: a task on the data, and a model of the configured sizes with weights from the seed.

    Args:     saved: the run that is resumed.
    Returns:  the config, with what the data and the machine decide: the steps of its epochs, and the workers. With
              these noted, it repeats the run bit for bit.
    Raises:   ConfigError: a step does not fit into memory; more warm-up than steps; as `Trainer` and `start_from`.
    """
    config.absolute().to_toml()  # a path that is not Unicode text, for example, is refused before the work
    rng = Generator(config.training.seed)
    task, batches_per_epoch = data.make_task(config, rng)
    settings = config.training.counted(batches_per_epoch)
    if saved is not None:
        settings = _extended(settings, saved)
    config = dataclasses.replace(config, training=settings)
    model = data.make_model(config, rng, task.batch_size)
    if config.data.init and saved is None and not config.finetune.task:
        start_from(model, config.data.init, data.tokenizer)
    trainer = Trainer(model, task, settings)
    return dataclasses.replace(config, training=trainer.settings), trainer


def _extended(settings: TrainSettings, saved: Saved) -> TrainSettings:
    """The settings, with the schedule so far if the number of steps has changed, so that they repeat the run."""
    if not saved.step or settings.steps == saved.before.steps:
        return settings
    earlier = (part for part in saved.before.extended if part[0] < saved.step)
    last = (saved.step, saved.before.horizon(saved.step - 1))
    return dataclasses.replace(settings, extended=(*earlier, last))
