"""A sweep: one run for every combination of some settings, each in its own folder, and a table of the results.

    [base]
    preset = "char-cpu"                # or config = "FILE"; then any keys of a configuration
    training.steps = 500

    [grid]
    training.lr = [1e-3, 3e-4]
    model.n_layer = [2, 4]             # 2 × 2 = 4 runs

The folders show what is still to be done, so the same command resumes a sweep that was stopped or killed.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tinygrad_llm.datasets import DataError
from tinygrad_llm.formats import Checkpoints
from tinygrad_llm.runs.config import RunConfig, read_text, read_toml
from tinygrad_llm.runs.folder import CONFIG, METRICS, clear_run
from tinygrad_llm.runs.metrics import read_metrics
from tinygrad_llm.runs.presets import find_preset, fitted_to, load_config
from tinygrad_llm.runs.run import Run
from tinygrad_llm.runs.start import with_start
from tinygrad_llm.storage.atomic import atomic_write
from tinygrad_llm.storage.files import LoadError
from tinygrad_llm.storage.lock import lock
from tinygrad_llm.storage.text import finite, nearest, to_csv
from tinygrad_llm.tokenizer import TokenizerError
from tinygrad_llm.training import ConfigError, Step, TrainingError
from tinygrad_llm.weights import WEIGHTS
from tinygrad_llm.weights.adapters import ADAPTER
from tinygrad_llm.weights.find import CHECKPOINTS

CSV, JSON = "sweep.csv", "sweep.json"
DIVERGED = "diverged.txt"  # the reason, in the folder of a run that diverged

_MAX_RUNS = 10_000
_MAX_NAME = 100  # characters of a folder's name; file systems take 255 bytes


@dataclass(frozen=True)
class Trial:
    """One combination: the name of its folder, what the grid sets, and the whole configuration."""

    name: str
    values: dict[str, Any]
    config: RunConfig


@dataclass(frozen=True)
class Outcome:
    """The result of a trial. Losses are those of its last step, in nats per token; None where there are none."""

    name: str
    values: dict[str, Any]
    status: Literal["finished", "stopped", "diverged", "failed"]
    steps: int = 0
    loss: float | None = None
    val_loss: float | None = None
    reason: str = ""  # for which it diverged or failed


@dataclass(frozen=True)
class Sweep:
    """The grid, key by key, and its trials; `str` gives their number."""

    grid: dict[str, list[Any]]
    trials: list[Trial]

    def __str__(self) -> str:
        sizes = " × ".join(f"{len(values)} {key}" for key, values in self.grid.items())
        return f"{len(self.trials)} runs: {sizes}"


def read_sweep(path: str | Path) -> Sweep:
    """The sweep in a TOML file. Paths in it are relative to the folder that the program runs in.

    Raises:   ConfigError: not TOML; an unknown table, key or preset (the nearest is named); a wrong value; a
              combination that is not valid, or the same as another; more than 10,000 of them; or it cannot be read.
    """
    text = read_text(path)
    try:
        return _sweep(text)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def _sweep(text: str) -> Sweep:
    try:
        content = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not TOML: {error}") from None
    for name, table in content.items():
        if name not in ("base", "grid"):
            raise ConfigError(f"unknown table [{name}]{nearest(name, ('base', 'grid'))}")
        if not isinstance(table, dict):
            raise ConfigError(f"{name}: must be a table, [{name}], not {table!r}")
    preset, changes = _base(dict(_flat(content.get("base", {}))))
    grid = dict(_flat(content.get("grid", {})))
    if not grid:
        raise ConfigError("the table [grid] is missing or empty: write, for example, training.lr = [1e-3, 3e-4]")
    if "preset" in grid:
        raise ConfigError("grid: preset: is one for all runs: write it in [base]; another needs a sweep of its own")
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise ConfigError(f"grid: {key}: must be a list of values, such as [1, 2], not {values!r}")
    size = math.prod(map(len, grid.values()))
    if size > _MAX_RUNS:
        raise ConfigError(f"grid: {size:,} combinations, more than {_MAX_RUNS:,}: leave some values out")
    trials: dict[RunConfig, Trial] = {}
    for combination in itertools.product(*grid.values()):
        chosen = dict(zip(grid, combination, strict=True))
        name = _name(chosen)
        try:
            trial = Trial(name, chosen, fitted_to(preset, *changes, chosen))
        except ConfigError as error:
            raise ConfigError(f"grid: {name}: {error}") from None
        if trial.config in trials:
            raise ConfigError(f"grid: {name}: is the same run as {trials[trial.config].name}: give each value once")
        trials[trial.config] = trial
    return Sweep(grid, list(trials.values()))


def _base(values: dict[str, Any]) -> tuple[RunConfig, list[dict[str, Any]]]:
    """The preset of the table [base], and the changes that its file and its keys make, which are valid."""
    for name in ("preset", "config"):
        if not isinstance(values.get(name, ""), str):
            raise ConfigError(f"base: {name}: must be a string, not {values[name]!r}")
    preset, file = values.pop("preset", ""), values.pop("config", "")
    of_file = read_toml(file) if file else {}
    named = of_file.pop("preset", "")
    try:
        config = with_start(find_preset(preset or named or "char-cpu"), of_file, values)
        fitted_to(config, of_file, values)
    except ConfigError as error:
        raise ConfigError(f"base: {error}") from None
    return config, [of_file, values]


def _flat(table: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Tables in tables as keys with dots: {"training": {"lr": 1}} → "training.lr", 1."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _name(values: dict[str, Any]) -> str:
    """A folder's name, such as "lr=0.001,n_layer=2"; with a hash, where characters had to be left out."""
    written = json.dumps(values, sort_keys=True, default=str)
    parts, whole = [], True
    for key, value in values.items():
        text = value if isinstance(value, str) else json.dumps(value, default=str).strip("[]")
        kept = re.sub(r"[^A-Za-z0-9_.+-]+", "-", text)
        whole = whole and (kept == text or not isinstance(value, str))
        parts.append(f"{key.rpartition('.')[2]}={kept}")
    name = ",".join(parts)
    if whole and len(name) <= _MAX_NAME:
        return name
    return f"{name[:_MAX_NAME]}-{hashlib.sha256(written.encode(errors='replace')).hexdigest()[:8]}"


# ---- running ---------------------------------------------------------------------------------------------------------


def check_folder(sweep: Sweep, folder: Path) -> None:
    """Refuse a folder that holds a run of the same name but with other settings.

    Raises:   ConfigError: shows the difference.
    """
    for trial in sweep.trials:
        place = folder / trial.name
        if not (place / CONFIG).is_file():
            continue
        mend = "remove the folder, or choose another --out"
        try:
            given, before = read_toml(place / CONFIG), load_config(place / CONFIG).flat()
        except ConfigError as error:
            raise ConfigError(f"{error}: the file is damaged: {mend}") from None
        now = trial.config.absolute().flat()
        # A run writes into its config.toml what was left to the machine, and how many steps its epochs have.
        noted = {"training.workers": now["training.workers"] is None, "training.steps": now["training.epochs"] > 0}
        for key, value in now.items():
            if before[key] != value and key not in given and value is not None:
                raise ConfigError(f"{place / CONFIG}: the file is damaged, since {key} is missing: {mend}")
            if before[key] != value and not noted.get(key):
                raise ConfigError(
                    f"{place}: was run with other settings: {key}: {before[key]!r} before, {value!r} now. "
                    "Put it back, or choose another --out"
                )


def run_trial(
    trial: Trial,
    folder: Path,
    stop: Callable[[], bool] = lambda: False,
    show: Callable[[Run, Step], None] = lambda run, step: None,
) -> Outcome:
    """Run a trial in its own folder below this one, to its end or until `stop`, which is called after each batch.

    A trial that has finished or diverged before is not repeated. One that was stopped resumes from its checkpoint. One
    that cannot be run (its text is too short, for example) has failed, and is tried again the next time.

    Raises:   InUseError: another process is training it.
    """
    place = folder / trial.name
    ended = _ended(trial, place)
    if ended is not None:
        return ended
    try:
        run = _open(trial, place)
        for step in run.train(stop):
            show(run, step)
        run.save()
    except TrainingError as error:
        with atomic_write(place / DIVERGED) as file:
            file.write(str(error).encode())
        return _outcome(trial, "diverged", read_metrics(place / METRICS), str(error))
    except MemoryError:
        return Outcome(trial.name, trial.values, "failed", reason="it needs more memory than there is")
    except (ConfigError, DataError, LoadError, TokenizerError) as error:
        return Outcome(trial.name, trial.values, "failed", reason=str(error))
    return _outcome(trial, "finished" if run.trainer.step == run.config.training.steps else "stopped", run.steps)


def _ended(trial: Trial, place: Path) -> Outcome | None:
    """The result of a trial that has ended before; None if there is more to do."""
    steps = read_metrics(place / METRICS)
    if (place / DIVERGED).is_file():
        return _outcome(trial, "diverged", steps, (place / DIVERGED).read_text(encoding="utf-8", errors="replace"))
    if not (place / CONFIG).is_file():
        return None
    saved = any((place / name).is_file() for name in (WEIGHTS, ADAPTER))
    if saved and steps and steps[-1].step >= load_config(place / CONFIG).training.steps:
        return _outcome(trial, "finished", steps)
    return None


def _open(trial: Trial, place: Path) -> Run:
    """The trial's run: resumed where there is a checkpoint, else new.

    Raises:   InUseError: another process is training it.
    """
    if Checkpoints(place / CHECKPOINTS).latest() is not None:
        return Run.resume(place)
    if place.is_dir():
        give_back = lock(place)
        try:
            clear_run(place)  # left by a run that was killed before its first checkpoint
        finally:
            give_back()
    return Run.new(trial.config, place)


def _outcome(
    trial: Trial, status: Literal["finished", "stopped", "diverged"], steps: Sequence[Step], reason: str = ""
) -> Outcome:
    last = steps[-1] if steps else Step(0, math.nan, 0.0, 0.0, 0.0, None)
    loss, val_loss = finite([last.loss, last.val_loss])
    return Outcome(trial.name, trial.values, status, last.step, loss, val_loss, reason)


# ---- the table -------------------------------------------------------------------------------------------------------


def ranked(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """The finished trials by held-out loss, the lowest first; then the others."""
    worst = math.inf
    return sorted(outcomes, key=lambda o: (o.status != "finished", worst if o.val_loss is None else o.val_loss, o.name))


def write_table(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """Write sweep.csv and sweep.json, the best trial first; return their paths.

    Rows of an earlier sweep stay in the table as long as their folders are there.

    Raises:   OSError: the folder cannot be written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = {outcome.name for outcome in outcomes}
    earlier = [outcome for outcome in _read_table(folder) if outcome.name not in names]
    rows = [dataclasses.asdict(outcome) for outcome in ranked([*outcomes, *earlier])]
    with atomic_write(folder / JSON) as file:
        file.write((json.dumps({"runs": rows}, indent=2, allow_nan=False, default=str) + "\n").encode())
    values = [row.pop("values") for row in rows]
    keys = dict.fromkeys(key for each in values for key in each)  # an earlier grid may have had others
    with atomic_write(folder / CSV) as file:
        file.write(to_csv([dict.fromkeys(keys) | each | row for each, row in zip(values, rows, strict=True)]).encode())
    return [folder / CSV, folder / JSON]


def _read_table(folder: Path) -> list[Outcome]:
    """The rows of sweep.json whose folders are still there; none where it cannot be read."""
    try:
        rows = json.loads((folder / JSON).read_text(encoding="utf-8"))["runs"]
        outcomes = [Outcome(**row) for row in rows if (folder / row["name"]).is_dir()]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return []
    return [o for o in outcomes if isinstance(o.values, dict) and isinstance(o.val_loss, float | None)]
