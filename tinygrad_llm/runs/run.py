"""A training run: from a text, or files of tokens, to a folder with everything that came of it.

The folder holds config.toml (all settings, to repeat it with), tokenizer.json, run.json (what it was made from),
metrics.jsonl (a line a step), samples.txt, checkpoints/ (to go on from), tensorboard/ if that was asked for,
training.lock while it is trained and, when it has ended or was stopped, model.safetensors (weights and sizes),
metrics.csv (metrics.jsonl as a table) and, with matplotlib, loss.png and gradients.png.
"""

import contextlib
import csv
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import math
import os
import re
import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm.datasets import (
    BatchStream,
    DataError,
    TokenFile,
    corpus_hash,
    load_corpus,
    vocabulary_hash,
)
from tinygrad_llm.formats import Checkpoints
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.formats.checkpoint import NotFiniteError
from tinygrad_llm.generation import start_ids, write
from tinygrad_llm.models import GPT
from tinygrad_llm.random import Generator
from tinygrad_llm.tokenizer import AnyTokenizer, CharTokenizer, StreamDecoder, Tokenizer, TokenizerError, load_tokenizer
from tinygrad_llm.runs.config import (
    CONFIG,
    RunConfig,
    differences,
    parse_toml,
    read_toml,
)
from tinygrad_llm.training import ConfigError, TrainSettings
from tinygrad_llm.storage.lock import InUseError, lock
from tinygrad_llm.training import LanguageModeling, Step, Trainer, TrainingError, held_out_windows
from tinygrad_llm.training.memory import check_memory
from tinygrad_llm.training.workers import fastest_threads, processes
from tinygrad_llm.runs.pictures import save_gradients, save_loss_curve
from tinygrad_llm.runs.presets import find_preset
from tinygrad_llm.runs.tensorboard import Scalars
from tinygrad_llm.weights import WEIGHTS, tokenizer_for

TOKENIZER, METRICS, SAMPLES = "tokenizer.json", "metrics.jsonl", "samples.txt"
TABLE = "metrics.csv"
PICTURES = ("loss.png", "gradients.png")
# In the order in which a save puts them into their places: run.json, which says of what step they are, is the last.
FILES = (CONFIG, TOKENIZER, METRICS, TABLE, SAMPLES, *PICTURES, WEIGHTS, "run.json")
CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"
TRAIN_FRACTION = 0.9
BY_LAYER = ("update_ratio", "layer_grad_norm", "measures")  # figures of a Step that have names of their own

# The folders in a run, and which files in them are its own; a kill in the middle of a save leaves the second.
_FOLDERS = {CHECKPOINTS: ("step-*.ckpt.safetensors", ".tinygrad_llm-*.tmp"), TENSORBOARD: ("events.out.tfevents.*",)}
_SAVING = ".saving"  # what a save has written so far; of one that was killed, it stays until the next
_STRETCH = 1 << 24  # ids hashed in one go


class Run:
    """One model on one text, before, while and after it is trained.

    A run that would take another's place works in FOLDER-stopped (or -stopped-2, …), and moves when it has ended: a
    finished run is worth more than the beginning of another.

    From its first step, or from `resume`, to `save` its folder is its own: another process's Run is refused there.

    Args:     config: everything that decides it. folder: where all goes.
    Raises:   DataError: the corpus cannot be used. ConfigError: config.toml could not say the config.
    """

    def __init__(self, config: RunConfig, folder: Path) -> None:
        config.absolute().to_toml()  # what cannot be noted, as a path that is no text, is refused before the work
        self.config = config
        self.folder = folder
        self.text = "" if config.data.files else load_corpus(config.data.corpus)
        data = config.data
        self.files = [TokenFile.open(file, data.dtype or None) for file in data.files]
        self.held_out_files = (
            [TokenFile.open(data.held_out, data.dtype or None)] if data.files and data.held_out else []
        )
        self.steps: list[Step] = []
        self.samples: list[tuple[int, str]] = []
        # A name that no run has: one that was stopped earlier may be worth going on with.
        place = folder.resolve() if folder.name in ("", "..") else folder  # "." has no name
        names = (f"{place.name}-stopped{end}" for end in itertools.chain([""], (f"-{n}" for n in itertools.count(2))))
        free = (place.with_name(name) for name in names if not holds_run(place.with_name(name)))
        self._work = next(free) if holds_run(folder) else folder
        self._log: TextIO | None = None  # metrics.jsonl, while training
        self._scalars: Scalars | None = None  # for TensorBoard, while training, if asked for
        self._begun = False
        self._checkpoints = Checkpoints(self._work / CHECKPOINTS)
        self._saved: tuple[int, int] | None = None  # the step, and micro-batch in it, of the last checkpoint
        self._locks: dict[Path, weakref.finalize[..., Any]] = {}  # what gives a folder back; so does the Run's own end

    @property
    def settings(self) -> TrainSettings:
        """How it is trained."""
        return self.config.training

    @property
    def saved(self) -> bool:
        """Whether the folder has, whole, what a save at this step writes."""
        whole = (self._work / WEIGHTS).is_file() and not (self._work / _SAVING).exists()
        return whole and about_run(self._work).get("steps_done") == self.trainer.step

    # ---- making it -------------------------------------------------------------------------------------------------

    def make_tokenizer(self, progress: Callable[[int, int], None] | None = None) -> AnyTokenizer:
        """Train the tokenizer on the whole text, or load one; and part the ids: to learn from, and held out."""
        self.tokenizer = self._find_tokenizer(progress)
        self._cut()
        return self.tokenizer

    def _find_tokenizer(self, progress: Callable[[int, int], None] | None = None) -> AnyTokenizer:
        kind = self.config.data.tokenizer
        if self.files and kind in ("char", "bpe"):
            raise ConfigError("token files were encoded before: name their tokenizer, --tokenizer gpt2, FILE or RUN")
        if kind == "char":
            return CharTokenizer.train(self.text)
        if kind == "bpe":
            return Tokenizer.train(self.text, self.config.data.vocab_size, progress=progress)
        if kind == "gpt2":
            return Tokenizer.gpt2()
        return load_tokenizer(kind)

    def _cut(self) -> None:
        """Part the ids, as the tokenizer makes them: `sources`, to learn from, and `held_out`."""
        self.names = self.held_out_names = [str(file.path) for file in self.files] or [self.config.data.corpus]
        for file in self.files + self.held_out_files:
            file.check(self.tokenizer)
        self.sources: list[NDArray[Any]] = [file.ids for file in self.files]
        self.held_out: list[NDArray[Any]] = [file.ids for file in self.held_out_files]
        if self.held_out_files:
            self.held_out_names = [str(file.path) for file in self.held_out_files]
        elif self.files:
            cuts = [int(TRAIN_FRACTION * len(ids)) for ids in self.sources]
            self.held_out = [ids[cut:] for ids, cut in zip(self.sources, cuts, strict=True)]
            self.sources = [ids[:cut] for ids, cut in zip(self.sources, cuts, strict=True)]
        else:
            cut = int(TRAIN_FRACTION * len(self.text))
            parts = self.text[:cut], self.text[cut:]
            ids = [np.array(self.tokenizer.encode(part, allowed_special="all"), np.int32) for part in parts]
            self.sources, self.held_out = ids[:1], ids[1:]
        block_size = self.config.model.block_size
        for part, names, rows in (
            ("training", self.names, self.sources),
            ("held-out", self.held_out_names, self.held_out),
        ):
            for name, row in zip(names, rows, strict=True):
                if len(row) <= block_size:
                    raise DataError(
                        f"{name}: its {part} part has {len(row)} tokens, and one block of {block_size} with its "
                        f"target needs {block_size + 1}: give a longer text"
                    )

    def make_model(self) -> GPT:
        """A new model of the config's sizes, and its Trainer; the weights come from the settings' seed.

        Raises:   ConfigError: there is not the memory for a step; more warm-up than steps; as `Trainer`.
        """
        s, data = self.settings, self.config.data
        config = dataclasses.replace(self.config.model, vocab_size=self.tokenizer.n_vocab)
        block_size, rng = config.block_size, Generator(s.seed)
        batches = BatchStream(
            self.sources, block_size, s.batch_size, rng, s.stride or None, s.order, data.weights, self.names
        )
        check_memory(config, s, batches.batch_size)
        self.model = GPT(config, rng, recompute=s.recompute)
        weights = () if self.held_out_files else data.weights
        held_out = held_out_windows(self.held_out, block_size, s.batch_size, s.eval_batches, weights)
        task = LanguageModeling(batches, held_out, s.label_smoothing)
        # Noted in config.toml: the same workers give the same run.
        workers = s.workers or fastest_threads(self.model, task)
        s = dataclasses.replace(s.counted(batches.batches_per_epoch), workers=workers)
        self.config = dataclasses.replace(self.config, training=s)
        self.trainer = Trainer(self.model, task, s)
        return self.model

    @classmethod
    def resume(
        cls,
        folder: Path,
        changes: Mapping[str, Any] | None = None,
        more: int | None = None,
        hold: bool = True,
    ) -> "Run":
        """A run that goes on where its last checkpoint was taken: bit for bit, with as many ranks as before.

        Args:     changes: to its configuration, of which only few are possible. more: steps to go from there; None: up
                  to those that were configured. hold: take the folder at once; without, nothing is written before
                  the first step.
        Raises:   ConfigError: another corpus, configuration or tokenizer than before; the difference is shown.
                  InUseError: another process is training it.
                  LoadError: no run there, or no checkpoint in it that can be read.
        """
        if not (folder / CONFIG).is_file():
            raise LoadError(f"{folder}: no run to resume here ({CONFIG} is missing)")
        if not hold:
            return cls._resumed(folder, dict(changes or {}), more)
        give_back = lock(folder)
        try:
            run = cls._resumed(folder, dict(changes or {}), more)
        except BaseException:
            give_back()
            raise
        run._locks[folder] = weakref.finalize(run, give_back)
        return run

    @classmethod
    def _resumed(cls, folder: Path, changes: dict[str, Any], more: int | None) -> "Run":
        checkpoints = Checkpoints(folder / CHECKPOINTS)
        arrays, saved = checkpoints.load_latest()
        where = f"{folder}: its checkpoint of step {saved['step']}"
        before = load_config(folder / CONFIG)
        if more is not None:
            changes |= {"training.steps": saved["step"] + more, "training.epochs": 0}
        run = cls(before.changed(changes), folder)
        run._work, run._checkpoints = folder, checkpoints
        learned = run.config.data.tokenizer in ("char", "bpe")
        run.tokenizer = load_tokenizer(folder / TOKENIZER) if learned else run._find_tokenizer()
        try:
            different = differences(_over_preset(parse_toml(saved["config"]), where), run.config)
            different += run._other_data(saved)
        except (KeyError, TypeError, ValueError) as error:
            raise LoadError(f"{where} is none of a run: {error}") from error
        if different:
            raise ConfigError(
                f"{where} cannot go on with what is another now: {'; '.join(different)}. "
                "Put it back, or start a new run"
            )
        run._cut()
        run.make_model()
        run._note_extension(before.training, saved["step"])
        try:
            run.trainer.set_state(arrays, saved["trainer"])
        except (KeyError, TypeError, ValueError) as error:
            raise LoadError(f"{where} does not fit the run: {error}") from error
        run._saved = run._place()
        run.steps = read_metrics(folder / METRICS, saved["step"])
        run.samples = _read_samples(folder / SAMPLES, saved["step"])
        return run

    def _note_extension(self, before: TrainSettings, done: int) -> None:
        """Where the number of steps has changed, note what the schedule has reckoned with up to here, so that the
        configuration repeats the run."""
        if done and self.settings.steps != before.steps:
            earlier = (part for part in before.extended if part[0] < done)
            settings = dataclasses.replace(self.settings, extended=(*earlier, (done, before.horizon(done - 1))))
            self.config = dataclasses.replace(self.config, training=settings)
            self.trainer.settings = settings

    def _other_data(self, saved: Mapping[str, Any]) -> list[str]:
        """In what way corpus and tokenizer are not those of a checkpoint, in words."""
        data = self.config.data
        files = [f"the token file {file.path}" for file in self.files + self.held_out_files]
        names = files or [f"the corpus {data.corpus}"]
        corpora = saved["corpus"]
        if len(corpora) != len(names):
            return [f"the corpus: {len(corpora)} files before, {len(names)} now"]
        learned = data.tokenizer in ("char", "bpe")
        tokenizer = f"the tokenizer {self._work / TOKENIZER if learned else data.tokenizer}"
        pairs = [*zip(names, corpora, self.identity["corpus"], strict=True)]
        pairs.append((tokenizer, saved["tokenizer"], self.identity["tokenizer"]))
        return [f"{name}: {_contrast(then, now)}" for name, then, now in pairs if then != now]

    @functools.cached_property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint belongs to, beside its configuration: sizes and SHA-256 of corpus and tokenizer."""
        corpus: list[dict[str, Any]] = [{"characters": len(self.text), "sha256": corpus_hash(self.text)}]
        if self.files:
            files = self.files + self.held_out_files
            corpus = [{"tokens": len(file), "sha256": _hash(file.ids)} for file in files]
        tokenizer = {"tokens": self.tokenizer.n_vocab, "sha256": vocabulary_hash(self.tokenizer)}
        return {"corpus": corpus, "tokenizer": tokenizer}

    # ---- training --------------------------------------------------------------------------------------------------

    def train(self, stop: Callable[[], bool] = lambda: False, tensorboard: bool = False) -> Iterator[Step]:
        """Train, tell of every step, and leave checkpoints; `stop` is asked after each micro-batch.

        Args:     tensorboard: whether to write TensorBoard's files as well; of a resumed run, from its first step on.
        Raises:   TrainingError: as `Trainer.advance`; the state before the bad step is in a checkpoint.
                  InUseError: another process is training in this folder.
                  ImportError: nothing is installed that writes TensorBoard's files.
        """
        every = self.settings.checkpoint_every
        ended = False
        try:
            if holds_run(self.folder):  # to be gone on with, or to be replaced at the end
                self._take(self.folder)
            for step in self.trainer.run(stop):
                self._note(step, tensorboard)
                due = step.step == 0 or (step.step % every == 0 if every else step.val_loss is not None)
                if due and not step.diverged:
                    self.checkpoint()
                yield step
            ended = True  # or stopped; the folder is kept for `save`
        except TrainingError as error:
            raise TrainingError(f"{error}; {self._keep_last_good()}") from error.__cause__
        finally:
            if self._log is not None:
                self._log.close()
                self._log = None
            if self._scalars is not None:
                self._scalars.close()
                self._scalars = None
            if not ended:
                self._give_back()

    def checkpoint(self) -> None:
        """Write down all that the next step depends on; the last two stay, and the best by held-out loss.

        Raises:   TrainingError: a weight, or the loss it gives, is no number any more. OSError: it cannot be written.
                  LoadError: checkpoints of another run are in the way.
        """
        log = self._begin()
        log.flush()
        os.fsync(log.fileno())  # or there would be steps that nobody tells of
        arrays, numbers = self.trainer.get_state()
        last = self.steps[-1] if self.steps else None
        loss = last.val_loss if last is not None and last.step == self.trainer.step else None
        metadata = {"config": self.config.absolute().to_toml(), "trainer": numbers, **self.identity}
        # Weights that are numbers may give none: a checkpoint of them could not be gone on from.
        task = self.trainer.task
        found = task.evaluate(self.model, task.held_out[:1]).loss if loss is None else loss
        if not math.isfinite(found):
            raise TrainingError(f"step {self.trainer.step}: the held-out loss is {found}. Try a lower learning rate")
        try:
            self._checkpoints.save(self.trainer.step, arrays, metadata, loss)
        except NotFiniteError as error:
            raise TrainingError(f"step {self.trainer.step}: {error}. Try a lower learning rate") from error
        self._saved = self._place()

    def _place(self) -> tuple[int, int]:
        return self.trainer.step, self.trainer.micro_batches

    def _keep_last_good(self) -> str:
        """Put the state before a bad step into a checkpoint, if none holds it; say which is the last."""
        if self._saved != self._place() and not (self.steps and self.steps[-1].diverged):
            with contextlib.suppress(TrainingError):  # it was not good either, an earlier one is
                self.checkpoint()
        latest = self._checkpoints.latest()
        return f"the last good checkpoint is {latest}" if latest else "there is no good checkpoint"

    def _begin(self) -> TextIO:
        """Make the folder, with what a resume needs beside checkpoints; the log of steps, open at its end."""
        if self._log is not None:
            return self._log
        self._work.mkdir(parents=True, exist_ok=True)
        self._take(self._work)
        if not self._begun:
            if self._saved is None and holds_run(self._work):  # it did not when this Run was made
                raise InUseError(f"{self._work}: another run was put there meanwhile; choose another folder")
            self._begun = True
            for name, content in self._notes():
                with atomic_write(self._work / name) as file:
                    file.write(content.encode())
            self.tokenizer.save(self._work / TOKENIZER)
        self._log = open(self._work / METRICS, "a", encoding="utf-8", newline="\n", buffering=1)  # noqa: SIM115
        return self._log

    def _note(self, step: Step, tensorboard: bool) -> None:
        log = self._begin()
        self.steps.append(step)
        log.write(to_json(step))
        if self._scalars is not None:
            self._scalars.write(step)
        elif tensorboard:
            clear_run(self._work, (TENSORBOARD,))  # of a run that was killed, it tells of steps after the checkpoint
            self._scalars = Scalars(self._work / TENSORBOARD, self.steps)

    def _notes(self) -> Iterator[tuple[str, str]]:
        """Every file of text but the tokenizer."""
        about = {
            "preset": self.config.preset,
            "corpus": list(self.config.data.files) or self.config.data.corpus,
            "steps_done": self.steps[-1].step if self.steps else 0,
            "ranks": processes().size,
            "identity": self.identity,
        }
        yield CONFIG, self.config.absolute().to_toml()
        yield "run.json", json.dumps(about, indent=2) + "\n"
        yield METRICS, "".join(map(to_json, self.steps))
        yield SAMPLES, "".join(f"--- step {step} ---\n{text.strip()}\n\n" for step, text in self.samples)

    def sample(self, max_new_tokens: int = 120, seed: int = 1) -> str:
        """Let the model write: from the end-of-text token up to the next, or from a newline, or, where the text has
        none, from its first token."""
        start = start_ids(self.tokenizer) or [int(self.sources[0][0])]
        rng = Generator(seed)
        text = "".join(write(self.model, self.tokenizer, start, max_new_tokens, temperature=0.8, rng=rng))
        self.samples.append((self.steps[-1].step if self.steps else 0, text))
        if self._log is not None:
            with open(self._work / SAMPLES, "a", encoding="utf-8", newline="\n") as file:
                file.write(f"--- step {self.samples[-1][0]} ---\n{text.strip()}\n\n")
        return text

    # ---- the folder ------------------------------------------------------------------------------------------------

    def _take(self, folder: Path) -> None:
        if folder not in self._locks:
            self._locks[folder] = weakref.finalize(self, lock(folder))

    def _give_back(self) -> None:
        for give_back in self._locks.values():
            give_back()
        self._locks = {}

    def save(self) -> list[Path]:
        """Write everything into the folder, and return what was written.

        Files take their places only when all of them are whole: a save that fails leaves an earlier run as it was.
        A run that was stopped takes no other's place: `folder` is then the one it worked in.

        Raises:   TrainingError: a weight is no number any more. OSError: a file cannot be written.
                  InUseError: another process is training in this folder.
        """
        try:
            return self._save()
        finally:
            self._give_back()

    def _save(self) -> list[Path]:
        for folder in (self.folder, self._work):
            if holds_run(folder):
                self._take(folder)
        if self._saved != self._place():
            self.checkpoint()
        if self._log is not None:
            self._log.close()
            self._log = None
        if self.trainer.step < self.settings.steps:
            self.folder = self._work
        self.folder.mkdir(parents=True, exist_ok=True)
        self._take(self.folder)
        temporary = self.folder / _SAVING
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        try:
            names = self._write(temporary)
            for name in names:
                with open(temporary / name, "rb+") as file:
                    os.fsync(file.fileno())  # a power cut after the renames must not leave empty files
            for name in FILES:
                if name in names:
                    os.replace(temporary / name, self.folder / name)
                else:  # an earlier run's picture does not belong to this one
                    (self.folder / name).unlink(missing_ok=True)
            if self._work != self.folder:  # now: until here, the checkpoints could be gone on with where they are
                clear_run(self.folder, tuple(_FOLDERS))
                for name, patterns in _FOLDERS.items():
                    for path in (path for pattern in patterns for path in (self._work / name).glob(pattern)):
                        (self.folder / name).mkdir(exist_ok=True)  # what is not a run's own may still be in it
                        os.replace(path, self.folder / name / path.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        if self._work != self.folder:
            self._locks.pop(self._work)()  # or the folder would not be empty
            clear_run(self._work)
            self._work = self.folder
            self._checkpoints = Checkpoints(self._work / CHECKPOINTS)
        return [self.folder / name for name in (*names, *_FOLDERS) if (self.folder / name).exists()]

    def _write(self, folder: Path) -> list[str]:
        self.tokenizer.save(folder / TOKENIZER)
        for name, content in self._notes():
            (folder / name).write_text(content, encoding="utf-8", newline="\n")
        (folder / TABLE).write_text(to_csv(self.steps), encoding="utf-8", newline="\n")
        drawn = save_loss_curve(self.steps, folder / PICTURES[0]) and save_gradients(self.steps, folder / PICTURES[1])
        self.model.save_pretrained(folder)
        return [name for name in FILES if drawn or name not in PICTURES]


def _contrast(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """How two texts, token files or tokenizers, each with its size and SHA-256, differ."""
    unit, size = next(iter(now.items()))
    if unit not in before:
        return "a text before, a token file now" if unit == "tokens" else "a token file before, a text now"
    if before[unit] != size:
        return f"{before[unit]:,} {unit} before, {size:,} now"
    return f"as many {unit} as before, {size:,}, but others"


def to_json(step: Step) -> str:
    """A step as a line of metrics.jsonl; what is no number is null, since JSON has no NaN."""
    return json.dumps(_finite(dataclasses.asdict(step))) + "\n"


def to_csv(steps: Sequence[Step]) -> str:
    """Steps as metrics.csv: what metrics.jsonl has by layer is in columns such as "update_ratio/h.0"; what was not
    measured, or is no number, is left empty."""
    rows: list[dict[str, Any]] = []
    for step in steps:
        row: dict[str, Any] = {}
        for name, value in _finite(dataclasses.asdict(step)).items():
            if name in BY_LAYER:
                row |= {f"{name}/{layer}": number for layer, number in (value or {}).items()}
            else:
                row[name] = value
        rows.append(row)
    columns = dict.fromkeys(column for row in rows for column in row)  # in the order in which they appear
    file = io.StringIO()
    table = csv.DictWriter(file, list(columns), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return file.getvalue()


def _finite(fields: dict[str, Any]) -> dict[str, Any]:
    """The same, with None for what is NaN or infinite, in dicts within it as well."""
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if isinstance(value, dict):
            value = _finite(value)
        found[name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return found


def read_metrics(path: Path, last: int | None = None) -> list[Step]:
    """The steps in a metrics.jsonl up to `last`; a line that is cut off, damaged or out of order is left out."""
    steps: list[Step] = []
    known = {field.name for field in dataclasses.fields(Step)}
    nan = {"loss": math.nan, "grad_norm": math.nan}
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.exists() else []:
        try:
            fields = json.loads(line)
            fields |= {name: value for name, value in nan.items() if fields[name] is None}
            for name in BY_LAYER:
                if fields.get(name) is not None:
                    fields[name] = {k: math.nan if v is None else v for k, v in fields[name].items()}
            step = Step(**{name: value for name, value in fields.items() if name in known})
            for value in (step.loss, step.lr, step.grad_norm, step.tokens_per_second):
                float(value)
            follows = type(step.step) is int and (not steps or step.step > steps[-1].step)
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
        if follows and (last is None or step.step <= last):
            steps.append(step)
    return steps


def _read_samples(path: Path, last: int) -> list[tuple[int, str]]:
    if not path.exists():
        return []
    parts = re.split(r"^--- step (\d+) ---\n", path.read_text(encoding="utf-8", errors="replace"), flags=re.M)
    pairs = zip(map(int, parts[1::2]), parts[2::2], strict=True)
    return [(step, text) for step, text in pairs if step <= last]


def load_config(path: str | Path) -> RunConfig:
    """The configuration in a TOML file, over the preset that it names.

    Raises:   ConfigError: an unknown key or preset, a wrong type or value. OSError: it cannot be read.
    """
    return _over_preset(read_toml(path), str(path))


def _over_preset(values: dict[str, Any], where: str) -> RunConfig:
    name = values.pop("preset", "")
    try:
        return find_preset(name).changed(values) if name else RunConfig().changed(values)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def _hash(ids: NDArray[Any]) -> str:
    digest = hashlib.sha256()
    for start in range(0, len(ids), _STRETCH):
        digest.update(ids[start : start + _STRETCH].tobytes())
    return digest.hexdigest()


def clear_run(folder: Path, names: tuple[str, ...] = (*FILES, *_FOLDERS)) -> None:
    """Remove a run's files, and the folder if nothing else is in it."""
    for name in names:
        if name in _FOLDERS:
            for pattern in _FOLDERS[name]:
                for path in (folder / name).glob(pattern):
                    path.unlink()
        else:
            (folder / name).unlink(missing_ok=True)
    for place in (*(folder / name for name in _FOLDERS), folder):
        with contextlib.suppress(OSError):  # not empty, or not there
            place.rmdir()


def holds_run(folder: Path) -> bool:
    """Whether anything lies there that saving a run would write over."""
    return any((folder / name).exists() for name in (*FILES, *_FOLDERS))


def about_run(folder: Path) -> dict[str, Any]:
    """What run.json says of a run; {} where there is none that can be read."""
    try:
        about = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def load_run(folder: str | Path) -> tuple[GPT, AnyTokenizer]:
    """The model and tokenizer of a saved run.

    Raises:   LoadError, TokenizerError: one of the two is missing or damaged, or they do not belong together.
    """
    model = GPT.from_pretrained(folder)
    return model, tokenizer_for(folder, model.config)


