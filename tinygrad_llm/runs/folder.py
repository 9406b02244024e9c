"""The folder of a run: what is in it, how it is read, and how it is written so that nothing is ever lost.

    config.toml        every setting, to repeat the run with
    tokenizer.json     the tokenizer
    metrics.jsonl      loss, learning rate and gradient norms, one line per step
    metrics.csv        the same as a table, for a spreadsheet
    samples.txt        what the model wrote at each evaluation
    loss.png           losses and learning rate, where matplotlib is installed
    gradients.png      the gradient norm of each layer, likewise
    model.safetensors  weights and sizes, once the run has ended or was stopped
    run.json           what the run was made from, and how many steps are done
    checkpoints/       everything a resume needs: the last two, and the one with the lowest held-out loss
    training.lock      while a process trains the run

This file imports nothing of the training package: a model that only writes text needs none of it.
"""

import contextlib
import itertools
import json
import os
import shutil
import tomllib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from tinygrad_llm.formats import Checkpoints
from tinygrad_llm.models import GPT
from tinygrad_llm.storage.atomic import rename
from tinygrad_llm.storage.files import open_regular
from tinygrad_llm.storage.lock import InUseError, lock
from tinygrad_llm.tokenizer import AnyTokenizer
from tinygrad_llm.weights import WEIGHTS, tokenizer_for
from tinygrad_llm.weights.adapters import ADAPTER, ADAPTER_CONFIG
from tinygrad_llm.weights.find import folder_of

CONFIG, TOKENIZER, ABOUT = "config.toml", "tokenizer.json", "run.json"
METRICS, TABLE, SAMPLES = "metrics.jsonl", "metrics.csv", "samples.txt"
PICTURES = ("loss.png", "gradients.png")
CONFUSION = "confusion.png"  # of a classifier
RESULTS = "results.json"  # of the test after a fine-tuning
CHECKPOINTS = "checkpoints"
# In the order in which a save puts them into place. run.json, which states their number of steps, is the last.
FILES = (
    *(CONFIG, TOKENIZER, METRICS, TABLE, SAMPLES, *PICTURES, CONFUSION, RESULTS, WEIGHTS, ADAPTER, ADAPTER_CONFIG),
    ABOUT,
)

_MAX_CONFIG = 1_000_000  # bytes
_OWN_CHECKPOINTS = ("step-*.ckpt.safetensors", ".tinygrad_llm-*.tmp")  # a kill during a save leaves the second
_SAVING = ".saving"  # the files of a save that is not complete; those of a killed one stay until the next save


def holds_run(folder: Path) -> bool:
    """Whether the folder holds anything that saving a run would replace."""
    return any((folder / name).exists() for name in (*FILES, CHECKPOINTS))


def about_run(folder: Path) -> dict[str, Any]:
    """The content of run.json; {} where it is missing or cannot be read."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return about if isinstance(about, dict) else {}


def stated_style(folder: Path) -> str | None:
    """The prompt style that an assistant was trained with; None where no config.toml states it."""
    try:
        with open_regular(folder / CONFIG) as file:
            style = tomllib.loads(file.read(_MAX_CONFIG).decode())["finetune"]["style"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):  # a folder of another program, for example
        return None
    return style if isinstance(style, str) else None


def keeps_newlines(path: str | Path) -> bool:
    """Whether the run at this path, a folder or a file in it, was trained on a text with its own line ends."""
    return about_run(folder_of(Path(path))).get("keep_newlines") is True


def load_run(folder: str | Path) -> tuple[GPT, AnyTokenizer]:
    """The model and the tokenizer of a saved run.

    Raises:   LoadError, TokenizerError: one of them is missing or damaged, or they do not fit each other.
    """
    model = GPT.from_pretrained(folder)
    return model, tokenizer_for(folder, model.config)


def clear_run(folder: Path) -> None:
    """Remove the files of a run, and the folder where nothing else is in it."""
    shutil.rmtree(folder / _SAVING, ignore_errors=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)
    for path in _own_checkpoints(folder):
        path.unlink()
    for place in (folder / CHECKPOINTS, folder):
        with contextlib.suppress(OSError):  # not empty, or not there
            place.rmdir()


class RunFolder:
    """The folder of a run in training: its lock, its log, its checkpoints, and a save of all files at once.

    A run that will replace another one works next to it, in FOLDER-stopped (or FOLDER-stopped-2, …), and moves when
    it has ended. So a run that is stopped does not replace a finished one.

    Args:     path: where the run will be. resumed: whether it is there already.
    """

    def __init__(self, path: Path, resumed: bool = False) -> None:
        self.path = path
        self.work = path if resumed or not holds_run(path) else _name_beside(path)
        self.checkpoints = Checkpoints(self.work / CHECKPOINTS)
        self._is_new = not resumed
        self._log: TextIO | None = None  # metrics.jsonl, while steps are written
        self._locks: dict[Path, weakref.finalize[..., Any]] = {}  # they also end with this object

    def is_saved(self, step: int) -> bool:
        """Whether a save after this step is complete in the folder."""
        written = any((self.work / name).is_file() for name in (WEIGHTS, ADAPTER))
        whole = written and not (self.work / _SAVING).exists()
        return whole and about_run(self.work).get("steps_done") == step

    # ---- one process at a time -------------------------------------------------------------------------------------

    def lock(self) -> None:
        """Keep other processes out of the run that will be replaced or resumed.

        Raises:   InUseError: another process is training it.
        """
        for folder in (self.path, self.work):
            if holds_run(folder):
                self._lock(folder)

    def release(self) -> None:
        """Let other processes in again."""
        for unlock in self._locks.values():
            unlock()
        self._locks = {}

    def _lock(self, folder: Path) -> None:
        if folder not in self._locks:
            self._locks[folder] = weakref.finalize(self, lock(folder))

    # ---- while it is trained ---------------------------------------------------------------------------------------

    def begin(self, write: Callable[[Path], None]) -> None:
        """Make and lock the folder, write the files that a resume needs, and open the log; nothing, if it is open.

        Args:     write: writes the files into an empty folder.
        Raises:   InUseError: another process is training here, or has put a run here since this object was made.
        """
        if self._log is not None:
            return
        self.work.mkdir(parents=True, exist_ok=True)
        self._lock(self.work)
        if self._is_new and holds_run(self.work):
            raise InUseError(f"{self.work}: another run was put there meanwhile: choose another folder")
        self._replace(self.work, write)
        self._is_new = False
        self._log = open(self.work / METRICS, "a", encoding="utf-8", newline="\n", buffering=1)  # noqa: SIM115

    def log(self, line: str) -> None:
        """Add a line to metrics.jsonl, which `begin` has opened."""
        assert self._log is not None
        self._log.write(line)

    def sync_log(self) -> None:
        """Put the log on the disk; before a checkpoint, so that after a power cut no step is missing from the log."""
        if self._log is not None:
            self._log.flush()
            os.fsync(self._log.fileno())

    def close_log(self) -> None:
        if self._log is not None:
            self._log.close()
            self._log = None

    def add_sample(self, text: str) -> None:
        """Add to samples.txt while the log is open; else the next save writes all samples."""
        if self._log is not None:
            with open(self.work / SAMPLES, "a", encoding="utf-8", newline="\n") as file:
                file.write(text)

    # ---- the save --------------------------------------------------------------------------------------------------

    def save(self, write: Callable[[Path], None], ended: bool) -> list[Path]:
        """Replace all files of the run, and return the paths of what is there then.

        The files are put into place only when all of them are complete, so a save that fails leaves an earlier run
        as it was. A run that was stopped stays where it works: `path` is that folder then.

        Args:     write: writes the files into an empty folder. ended: whether the run made its last step.
        Raises:   InUseError: another process is training in this folder. OSError: a file cannot be written.
        """
        self.close_log()
        if not ended:
            self.path = self.work
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock(self.path)
        self._replace(self.path, write, whole=True)
        if self.work != self.path:
            self._locks.pop(self.work)()  # its file would keep the folder from being empty
            clear_run(self.work)
            self.work = self.path
        return [self.path / name for name in (*FILES, CHECKPOINTS) if (self.path / name).exists()]

    def _replace(self, folder: Path, write: Callable[[Path], None], whole: bool = False) -> None:
        """Put the files that `write` makes into `folder`, all of them or none; with `whole`, nothing else stays."""
        saving = folder / _SAVING
        shutil.rmtree(saving, ignore_errors=True)
        saving.mkdir()
        try:
            write(saving)
            written = [name for name in FILES if (saving / name).exists()]
            for name in written:
                with open(saving / name, "rb+") as file:
                    os.fsync(file.fileno())  # a power cut after the renames must not leave empty files
            for name in FILES:
                if name in written:
                    rename(saving / name, folder / name)
                elif whole:  # a picture of an earlier run, for example
                    (folder / name).unlink(missing_ok=True)
            if self.work != folder:  # last: until now the run could be resumed from where it worked
                self._move_checkpoints(folder)
        finally:
            shutil.rmtree(saving, ignore_errors=True)

    def _move_checkpoints(self, folder: Path) -> None:
        for path in _own_checkpoints(folder):
            path.unlink()
        for path in _own_checkpoints(self.work):
            (folder / CHECKPOINTS).mkdir(exist_ok=True)  # other files may be in it: they stay
            rename(path, folder / CHECKPOINTS / path.name)


def _own_checkpoints(folder: Path) -> list[Path]:
    return [path for pattern in _OWN_CHECKPOINTS for path in (folder / CHECKPOINTS).glob(pattern)]


def _name_beside(path: Path) -> Path:
    """FOLDER-stopped, or the next such name that no run has: a run that was stopped earlier may be worth resuming."""
    place = path.resolve() if path.name in ("", "..") else path  # "." has no name
    ends = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    names = (place.with_name(f"{place.name}-stopped{end}") for end in ends)
    return next(name for name in names if not holds_run(name))
