"""Checkpoints: named arrays and JSON in one file that is never half-written, and a folder of the last and the best.

A checkpoint is a safetensors file, so the `safetensors` library reads it too. Its `__metadata__` is

    "format"     "tinygrad_llm.checkpoint"
    "version"    the number VERSION
    "sha256"     that of every file of ours (see `safetensors`)
    "metadata"   the caller's metadata, an object as JSON text
"""

import contextlib
import json
import math
import operator
import os
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tinygrad_llm.formats.safetensors import load_safetensors, save_safetensors
from tinygrad_llm.storage.files import LoadError, parse_json, show

FORMAT: Final = "tinygrad_llm.checkpoint"
VERSION = 2  # to be raised with every change of what a checkpoint must hold

_NAME = re.compile(r"step-(\d{8}|[1-9]\d{8,})\.ckpt\.safetensors", re.ASCII)


class VersionError(LoadError):
    """A checkpoint has another version of the format than this package reads; it is not damaged."""


class NotFiniteError(ValueError):
    """An array that is to be saved holds NaN or infinity."""


class DamagedCheckpointWarning(UserWarning):
    """A checkpoint could not be loaded, and an earlier one was loaded instead."""


def save_checkpoint(
    path: str | os.PathLike[str], arrays: Mapping[str, ArrayLike], metadata: Mapping[str, Any] | None = None
) -> None:
    """Write arrays and JSON to one file, which is read back and compared before it replaces an older file.

    As with `atomic_write`, `path` is at every moment the old file or the complete new one. The same arrays and metadata
    always give the same bytes. JSON turns the metadata's tuples into lists, and its keys into strings.

    Raises:   NotFiniteError: an array holds NaN or infinity; named.
              ValueError: an array holds no numbers, or JSON cannot hold the metadata; named.
              OSError: the file cannot be written, or the disk returns other bytes than were written.
    """
    path = Path(path)
    tensors = {name: np.asarray(value) for name, value in arrays.items()}
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "f" and (bad := tensor.size - np.count_nonzero(np.isfinite(tensor))):
            raise NotFiniteError(
                f"{path}: tensor {show(name)}: {bad} of its {tensor.size} values are NaN or infinite; not saved"
            )
    fields = {"format": FORMAT, "version": str(VERSION), "metadata": _to_json(path, metadata or {})}
    save_safetensors(path, tensors, fields)


def load_checkpoint(path: str | os.PathLike[str]) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read the arrays and the metadata of a checkpoint; `load_safetensors` compares their hash with the stored one.

    Raises:   LoadError: the file is damaged or something else; names the file and the field.
              VersionError, a LoadError: it has another version of the format.
              OSError: the file cannot be opened or read.
    """
    path = Path(path)
    metadata = _read_fields(path, load_safetensors(path, mmap=True)[1])  # first: another version is not damage
    return load_safetensors(path)[0], metadata


class Checkpoints:
    """A folder of checkpoints, `step-00001000.ckpt.safetensors` and so on, that keeps the last ones and the best.

        checkpoints = Checkpoints("runs/1")
        if checkpoints.latest():
            arrays, metadata = checkpoints.load_latest()
            step = metadata["step"]
        ...
        checkpoints.save(step, arrays, {"config": …}, loss=validation_loss)
        ...
        arrays, metadata = load_checkpoint(checkpoints.best())

    `save` removes old checkpoints once the new one is verified and in place: all of this run except the last `keep`
    and the best. Those of this run are the ones saved here and, after `load_latest`, the one loaded and those before
    it. Checkpoints of other processes that save to the same folder stay.

    Args:     keep: how many of the last stay, at least 2; the best one stays in addition.
    Raises:   ValueError: `keep` is less than 2.
    """

    def __init__(self, folder: str | os.PathLike[str], keep: int = 2) -> None:
        if keep < 2:
            raise ValueError(f"keep={keep}: at least 2 checkpoints must stay, in case the newest is damaged")
        self.folder = Path(folder)
        self.keep = keep
        self._own: dict[Path, tuple[int, int] | None] = {}  # in the order of saving
        self._losses: dict[Path, float | None] = {}  # of those, so that no header is read again at each save
        self._damaged: dict[Path, tuple[int, int] | None] = {}  # skipped: this run may replace but not remove them
        self._begun = False

    def save(
        self,
        step: int,
        arrays: Mapping[str, ArrayLike],
        metadata: Mapping[str, Any] | None = None,
        loss: float | None = None,
    ) -> Path:
        """Save the checkpoint of a step, remove those no longer needed, and return its path.

        The metadata also gets `step` and `loss`; a lower loss is better. The folder is created if it is missing. A
        checkpoint of the same step is replaced if this run, or the run it resumes, saved it.

        Raises:   as `save_checkpoint`; ValueError: a negative step, a loss that is NaN or infinite, or metadata that
                  has a step or loss itself.
                  LoadError: the folder holds checkpoints of another run: one of this step, or, at the first save
                  without `load_latest`, one of this step or a later one.
        """
        step = operator.index(step)
        path = self.path(step)
        if step < 0:
            raise ValueError(f"{self.folder}: step: must be ≥ 0, got {step}")
        if loss is not None and not math.isfinite(loss):
            raise ValueError(f"{path}: loss: got {loss}; not saved")
        if taken := {"step", "loss"} & set(metadata or {}):
            raise ValueError(f"{path}: metadata: {', '.join(sorted(taken))} must be given as an argument instead")
        self._check_free(step, path)
        self.folder.mkdir(parents=True, exist_ok=True)
        own = {"step": step, "loss": None if loss is None else float(loss)}
        save_checkpoint(path, arrays, {**(metadata or {}), **own})
        self._adopt({path: own["loss"]})
        self._begun = True
        self._prune()
        return path

    def path(self, step: int) -> Path:
        """Return the path of the checkpoint of a step, whether it exists or not."""
        return self.folder / f"step-{step:08d}.ckpt.safetensors"

    def steps(self) -> list[int]:
        """Return the steps of which there are checkpoints, in order."""
        return sorted(map(_step, self._files()))

    def latest(self) -> Path | None:
        """Return the checkpoint of the highest step; None if there is none."""
        return max(self._files(), key=_step, default=None)

    def best(self) -> Path | None:
        """Return the checkpoint of the lowest loss, of equal ones the latest; None if no readable one has a loss.

        This reads only the headers; `load_checkpoint` then verifies the whole file.
        """
        return _best({path: _loss(path) for path in self._files()})

    def load_latest(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Read the latest checkpoint that can be loaded; its metadata holds `step` and `loss`.

        Each damaged one gives a `DamagedCheckpointWarning`; its file stays until its step is saved again.

        Raises:   LoadError: the folder holds no checkpoint, or none that can be loaded.
                  VersionError: one has another version of the format; to resume from an earlier one would lose work.
        """
        files = sorted(self._files(), key=_step)
        found = len(files)
        while files:
            try:
                loaded = load_checkpoint(files[-1])
            except VersionError:
                raise
            except (LoadError, OSError) as error:
                warnings.warn(f"{error}; taking the checkpoint before it", DamagedCheckpointWarning, stacklevel=2)
                damaged = files.pop()
                self._own.pop(damaged, None)
                self._damaged[damaged] = _identity(damaged)
            else:
                self._adopt({path: _loss(path) for path in files})
                self._begun = True
                return loaded
        what = f"none of its {found} checkpoints can be loaded" if found else "holds no checkpoint"
        raise LoadError(f"{self.folder}: {what}")

    def _check_free(self, step: int, path: Path) -> None:
        """Raise LoadError if the checkpoint of this step would mix with, or replace, one of another run."""
        latest = self.latest()
        if not self._begun and latest and _step(latest) >= step:
            raise LoadError(
                f"{self.folder}: holds checkpoints up to step {_step(latest)}, so a new run cannot save step {step}: "
                "resume from them (load_latest), or choose another folder"
            )
        if (found := _identity(path)) and found not in (self._own.get(path), self._damaged.get(path)):
            raise LoadError(
                f"{path}: exists already and is not of this run: resume from it (load_latest), move it, "
                "or choose another folder"
            )

    def _files(self) -> list[Path]:
        try:
            return [path for path in self.folder.iterdir() if _NAME.fullmatch(path.name)]
        except FileNotFoundError:
            return []

    def _adopt(self, losses: dict[Path, float | None]) -> None:
        for path in losses:
            self._own.pop(path, None)  # so that it moves to the end
            self._own[path] = _identity(path)
        self._losses |= losses

    def _prune(self) -> None:
        # A file that was removed, or that another process replaced, is no longer of this run.
        self._own = {path: known for path, known in self._own.items() if known and _identity(path) == known}
        best = _best({path: self._losses[path] for path in self._own})
        for path in set(list(self._own)[: -self.keep]) - {best}:
            with contextlib.suppress(OSError):  # the next save tries again
                path.unlink()


def _to_json(path: Path, metadata: Mapping[str, Any]) -> str:
    try:
        text = json.dumps(dict(metadata), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: metadata: JSON cannot hold it: {error}") from None
    try:
        parse_json(f"{path}: metadata", text.encode())
    except LoadError as error:  # an integer of 39 digits, or megabytes of text
        raise ValueError(f"{error}: it could not be read again: store it as text or as an array") from None
    return text


def _read_fields(path: Path, fields: Mapping[str, str]) -> dict[str, Any]:
    """Check the fields of `__metadata__`, and return the caller's metadata."""
    where = f"{path}: __metadata__"
    if fields.get("format") != FORMAT:
        raise LoadError(f"{where}: format: must be {FORMAT!r}, got {show(fields.get('format'))}")
    _check_version(path, fields.get("version", ""))
    if "sha256" not in fields:  # else it is compared when the arrays are read
        raise LoadError(f"{where}: sha256: must be 64 hex digits, got None")
    metadata = parse_json(f"{where}: metadata", fields.get("metadata", "").encode(errors="surrogatepass"))
    if not isinstance(metadata, dict):
        raise LoadError(f"{where}: metadata: must be a JSON object, got {show(metadata)}")
    return metadata


def _check_version(path: Path, version: str) -> None:
    if not re.fullmatch("[1-9][0-9]{0,8}", version):
        raise LoadError(f"{path}: __metadata__: version: must be {VERSION}, got {show(version)}")
    if int(version) > VERSION:
        raise VersionError(
            f"{path}: got checkpoint version {version}; this package reads version {VERSION} only: update tinygrad_llm"
        )
    if int(version) < VERSION:
        raise VersionError(
            f"{path}: got checkpoint version {version}; this package reads version {VERSION} only: "
            "train again in a new folder, or resume with the tinygrad_llm that wrote it"
        )


def _step(path: Path) -> int:
    return int(path.name.removeprefix("step-").split(".")[0])


def _loss(path: Path) -> float | None:
    """Return the loss in the header of a checkpoint; None if there is none, or the file cannot be read."""
    with contextlib.suppress(LoadError, OSError):  # damaged, or removed meanwhile
        loss = _read_fields(path, load_safetensors(path, mmap=True)[1]).get("loss")
        if isinstance(loss, int | float):
            return loss
    return None


def _best(losses: Mapping[Path, float | None]) -> Path | None:
    known = {path: loss for path, loss in losses.items() if loss is not None}
    return min(known, key=lambda path: (known[path], -_step(path)), default=None)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what distinguishes a file from another of the same name; None if it is gone."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns
