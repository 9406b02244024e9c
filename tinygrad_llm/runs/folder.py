"""The folder of a run: what is in it, how it is read, and how it is written so that nothing is ever lost.

    config.toml        every setting, to repeat the run with
    tokenizer.json     the tokenizer
    metrics.jsonl      loss, learning rate and gradient norms, one line per step
    metrics.csv        the same as a table, for a spreadsheet
    samples.txt        what the model wrote at each evaluation
    loss.png           losses and learning rate, where matplotlib is installed
    gradients.png      the gradient norm of each layer, likewise
    trace.html         a forward and backward pass, step by step, where `demo` made the run
    model.safetensors  weights and sizes, once the run has ended or was stopped
    run.json           what the run was made from, and how many steps are done
    checkpoints/       everything a resume needs: the last two, and the one with the lowest held-out loss
    training.lock      while a process trains the run

This file imports nothing of the training package: a model that only writes text needs none of it.
"""

import contextlib
import itertools
import os
import shutil
import tomllib
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tinygrad_llm.formats import Checkpoints
from tinygrad_llm.models import GPT
from tinygrad_llm.storage.atomic import atomic_write, rename
from tinygrad_llm.storage.files import LoadError, open_regular, parse_json
from tinygrad_llm.storage.lock import InUseError, lock
from tinygrad_llm.tokenizer import AnyTokenizer
from tinygrad_llm.weights import WEIGHTS, tokenizer_for
from tinygrad_llm.weights.adapters import ADAPTER, ADAPTER_CONFIG, find_adapter
from tinygrad_llm.weights.find import CHECKPOINTS, find_weights, folder_of

CONFIG, TOKENIZER, ABOUT = "config.toml", "tokenizer.json", "run.json"
METRICS, TABLE, SAMPLES = "metrics.jsonl", "metrics.csv", "samples.txt"
PICTURES = ("loss.png", "gradients.png")
ASIDE = ".damaged"  # added to the name of a damaged file that is kept
CONFUSION = "confusion.png"  # of a classifier
RESULTS = "results.json"  # of the test after a fine-tuning
TRACE = "trace.html"  # of a demo
# In the order in which a save puts them into place. run.json, which states their number of steps, is the last.
FILES = (
    *(CONFIG, TOKENIZER, METRICS, TABLE, SAMPLES, *PICTURES, CONFUSION, RESULTS, TRACE),
    *(WEIGHTS, ADAPTER, ADAPTER_CONFIG),
    ABOUT,
)

_MAX_CONFIG = 1_000_000  # bytes
_MAX_ABOUT = 1_000_000
_OWN_CHECKPOINTS = ("step-*.ckpt.safetensors", ".tinygrad_llm-*.tmp")  # a kill during a save leaves the second
_SAVING = ".saving"  # the files of a save that is not complete; those of a killed one stay until the next save


def holds_run(folder: Path) -> bool:
    """Whether the folder holds anything that saving a run would replace."""
    return any((folder / name).exists() for name in (*FILES, CHECKPOINTS))


def about_run(folder: Path) -> dict[str, Any]:
    """The content of run.json; {} where it is missing or cannot be read."""
    try:
        with open_regular(folder / ABOUT) as file:
            about = parse_json(ABOUT, file.read(_MAX_ABOUT))
    except (OSError, LoadError):
        return {}
    return about if isinstance(about, dict) else {}


def stated_style(folder: Path) -> str | None:
    """The prompt style that an assistant was trained with; None where no config.toml states it."""
    style = _stated(folder, "finetune", "style")
    return style if isinstance(style, str) else None


def _stated(folder: Path, table: str, key: str) -> Any:
    """What the config.toml of a run states; None where it is missing, or of another program, for example."""
    try:
        with open_regular(folder / CONFIG) as file:
            return tomllib.loads(file.read(_MAX_CONFIG).decode())[table][key]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def made_from(path: str | Path) -> list[Path]:
    """The folders of the models that a model was made from: its own, its base's, the base of that, as far as known.

    Args:     path: a run, its weights, a checkpoint of it, or the name of a published model.
    """
    found: list[Path] = []
    while path:
        place = Path(path)
        with contextlib.suppress(LoadError):  # it was removed, for example
            place = folder_of(find_weights(place))
        if place.resolve() in [folder.resolve() for folder in found] or not place.is_dir():
            break  # a folder that was replaced may lead back to itself
        found.append(place)
        stated = _stated(place, "finetune", "base") or _stated(place, "data", "init") or _stated_base(place)
        path = stated if isinstance(stated, str) else ""
    return found


def _stated_base(folder: Path) -> str:
    try:
        adapter = find_adapter(folder)
    except (LoadError, OSError):
        return ""
    return adapter.base if adapter is not None else ""


def keeps_newlines(path: str | Path) -> bool:
    """Whether the run at this path, a folder or a file in it, was trained on a text with its own line ends."""
    return about_run(folder_of(Path(path))).get("keep_newlines") is True


class Chosen(NamedTuple):
    """Where the weights of a run are, for `read_pretrained`; and a note for the user, if they are in a checkpoint."""

    path: Path
    note: str


def choose_weights(path: str | Path, checkpoint: str | int | None = None) -> Chosen:
    """The saved model of a run, or one of its checkpoints: the newest, where the run has none that is as new.

    So a run that is still training, or was killed, has a model. Any other path is returned as it is.

    Args:     checkpoint: "best" (the lowest held-out loss), "last", or the number of a step; None: see above.
    Raises:   LoadError: the checkpoint that was asked for is not there; the message lists those that are.
    """
    path = Path(path)
    checkpoints = Checkpoints(path / CHECKPOINTS)
    steps = checkpoints.steps() if path.is_dir() else []
    if checkpoint is not None:
        if not steps:
            raise LoadError(f"{path}: has no checkpoints: a run has them, in its folder {CHECKPOINTS}")
        if checkpoint == "best":
            file = checkpoints.best()
        else:
            step = steps[-1] if checkpoint == "last" else checkpoint
            file = checkpoints.path(step) if isinstance(step, int) and step in steps else None
        if file is None:
            wanted = "with a held-out loss" if checkpoint == "best" else f"of step {checkpoint}"
            raise LoadError(f"{path}: has no checkpoint {wanted}: there are those of step {', '.join(map(str, steps))}")
        return Chosen(file, f"{path}: this is its checkpoint {file.name}")
    saved = any((path / name).is_file() for name in (WEIGHTS, ADAPTER))
    done = about_run(path).get("steps_done")
    if not steps or (saved and (not isinstance(done, int) or done >= steps[-1] or (path / ADAPTER).is_file())):
        return Chosen(path, "")
    why = f"its saved model is of step {done}" if saved else "it has no saved model yet"
    return Chosen(checkpoints.path(steps[-1]), f"{path}: {why}: this is its checkpoint of step {steps[-1]}")


def load_run(path: str | Path) -> tuple[GPT, AnyTokenizer]:
    """The model and the tokenizer of a run, or of another path that `GPT.from_pretrained` reads.

    Raises:   LoadError, TokenizerError: one of them is missing or damaged, or they do not fit each other.
    """
    model = GPT.from_pretrained(path)
    return model, tokenizer_for(path, model.config)


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
        self.damaged: list[str] = []  # files that are kept when they are replaced
        self._is_new = not resumed
        self._place: os.stat_result | None = None  # the folder where it works, once it has begun
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

    def begin(self, write: Callable[[Path], None]) -> str:
        """Make and lock the folder, write the files that a resume needs, and open the log; nothing, if it is open.

        A folder that was removed or renamed since then is made again; where another run is now, next to that.

        Args:     write: writes the files into an empty folder.
        Returns:  what was lost, and where the run is now, for the user; "" where nothing was.
        Raises:   InUseError: another process is training here, or has put a run here since this object was made.
        """
        lost = self.lost()
        if self._log is not None and not lost:
            return ""
        self.close_log()
        if lost:
            self._choose_again()
            lost += f": the run, with all its steps so far, is written again to {self.work}"
        self.work.mkdir(parents=True, exist_ok=True)
        self._lock(self.work)
        if self._is_new and holds_run(self.work):
            raise InUseError(f"{self.work}: another run was put there meanwhile: choose another folder")
        self._replace(self.work, write)
        self._is_new = False
        self._place = self.work.stat()
        self._log = open(self.work / METRICS, "a", encoding="utf-8", newline="\n", buffering=1)  # noqa: SIM115

        return lost

    def lost(self) -> str:
        """What is gone of the folder since `begin`, for the user; "" where nothing is."""
        if self._place is None:
            return ""
        if not self._is_there():
            return f"{self.work}: was removed or renamed during training"
        return "" if (self.work / METRICS).is_file() else f"{self.work / METRICS}: was removed during training"

    def _is_there(self) -> bool:
        """Whether the folder in which this run works is still the one of `begin`."""
        try:
            return self._place is not None and os.path.samestat(self._place, self.work.stat())
        except OSError:
            return False

    def _choose_again(self) -> None:
        """Leave the folder if it is gone; if another run has its name now, choose another name."""
        if self._is_there():
            return
        if self.work in self._locks:
            self._locks.pop(self.work)()
        if holds_run(self.work):
            self.path = self.work = _name_beside(self.path)
            self.checkpoints = Checkpoints(self.work / CHECKPOINTS)

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
            with (
                contextlib.suppress(FileNotFoundError),  # the folder was removed: the next step writes all samples
                open(self.work / SAMPLES, "a", encoding="utf-8", newline="\n") as file,
            ):
                file.write(text)
                file.flush()
                os.fsync(file.fileno())  # before the checkpoint, as the log

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
            self.checkpoints = Checkpoints(self.work / CHECKPOINTS)
        self._place = self.work.stat()
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
            for name in self.damaged:
                _keep(folder / name)
            self.damaged = []
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


def _keep(path: Path) -> None:
    """Copy a damaged file to its name with `ASIDE` at the end, or the next such name."""
    names = (path.with_name(f"{path.name}{ASIDE}{end}") for end in _endings())
    name = next(name for name in names if not os.path.lexists(name))
    with contextlib.suppress(FileNotFoundError), open(path, "rb") as file, atomic_write(name) as copy:
        shutil.copyfileobj(file, copy)


def _endings() -> Iterator[str]:
    """ "", "-2", "-3", …"""
    return itertools.chain([""], (f"-{n}" for n in itertools.count(2)))


def _own_checkpoints(folder: Path) -> list[Path]:
    return [path for pattern in _OWN_CHECKPOINTS for path in (folder / CHECKPOINTS).glob(pattern)]


def _name_beside(path: Path) -> Path:
    """FOLDER-stopped, or the next such name that no run has: a run that was stopped earlier may be worth resuming."""
    place = path.resolve() if path.name in ("", "..") else path  # "." has no name
    names = (place.with_name(f"{place.name}-stopped{end}") for end in _endings())
    return next(name for name in names if not holds_run(name))
