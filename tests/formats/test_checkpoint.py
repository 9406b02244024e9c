"""Checkpoints: the format by hand, a good file whatever happens during a save, and folders of checkpoints."""

import errno
import gc
import hashlib
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinygrad_llm.formats import (
    Checkpoints,
    DamagedCheckpointWarning,
    VersionError,
    checkpoint,
    load_checkpoint,
    load_safetensors,
    safetensors,
    save_checkpoint,
)
from tinygrad_llm.formats.checkpoint import NotFiniteError
from tinygrad_llm.formats.safetensors import layout, pieces
from tinygrad_llm.storage import atomic
from tinygrad_llm.storage.files import LoadError

ARRAYS = {
    "weight": np.arange(12, dtype=np.float32).reshape(3, 4) - 5,
    "half": np.array([1.5, -2], np.float16),
    "mask": np.array([True, False, True]),
    "state": np.array([2**63, 7], np.uint64),
    "scalar": np.float64(0.1),
    "none": np.zeros((0, 3), np.float32),
}
METADATA = {"step": 7, "config": {"n_head": 2, "name": 'a "quoted" é'}, "losses": [1.5, None, True]}


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "model.safetensors"
    save_checkpoint(path, ARRAYS, METADATA)
    return path


def same(left, right):
    return set(left) == set(right) and all(
        left[name].dtype == np.asarray(right[name]).dtype
        and left[name].shape == np.shape(right[name])
        and left[name].tobytes() == np.asarray(right[name]).tobytes()
        for name in left
    )


def assert_untouched(good):
    """The old checkpoint loads, and nothing else is in the folder."""
    arrays, metadata = load_checkpoint(good)
    assert same(arrays, ARRAYS)
    assert metadata == METADATA
    assert list(good.parent.iterdir()) == [good]


def change_fields(path, **changes):
    """Write a checkpoint again with another field in `__metadata__`; None removes it."""
    arrays, fields = load_safetensors(path)
    changed = {name: text for name, text in (fields | changes).items() if text is not None}
    header, parts = layout(path, arrays, changed)
    path.write_bytes(header + b"".join(pieces(parts)))


# The format


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(), inside, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_metadata_comes_back(tmp_path, metadata):
    with mock.patch("os.fsync"):  # it takes nearly all the time
        save_checkpoint(tmp_path / "x.safetensors", {}, metadata)
    assert load_checkpoint(tmp_path / "x.safetensors") == ({}, metadata)


def test_the_format_by_hand(good):
    data = good.read_bytes()
    length = int.from_bytes(data[:8], "little")
    fields = json.loads(data[8 : 8 + length])["__metadata__"]
    assert set(fields) == {"format", "version", "sha256", "metadata"}
    assert (fields["format"], fields["version"]) == ("tinygrad_llm.checkpoint", "2")
    assert json.loads(fields["metadata"]) == METADATA
    zeros = data.replace(fields["sha256"].encode(), b"0" * 64)
    assert hashlib.sha256(zeros).hexdigest() == fields["sha256"]


def test_zeros_in_the_metadata_are_not_taken_for_the_hash(tmp_path):
    path = tmp_path / "x.safetensors"
    metadata = {"sha256": "0" * 64, "a": f'"sha256":"{"0" * 64}"'}
    save_checkpoint(path, {f'"sha256":"{"0" * 64}': np.zeros(1)}, metadata)
    assert load_checkpoint(path)[1] == metadata


def test_a_checkpoint_is_a_safetensors_file(good):
    assert same(load_safetensors(good)[0], ARRAYS)


def test_the_safetensors_library_reads_a_checkpoint_and_what_it_saves_again_verifies(good):
    library = pytest.importorskip("safetensors")
    library_numpy = pytest.importorskip("safetensors.numpy")
    with library.safe_open(good, "np") as file:
        fields = file.metadata()
        found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
    assert same(found, ARRAYS)
    assert json.loads(fields["metadata"]) == METADATA
    library_numpy.save_file(found, good, fields)
    assert_untouched(good)


# What is not saved


def test_nan_and_infinity_are_refused_by_name(good, for_each):
    def check(case):
        value, dtype = case
        bad = np.ones((2, 3), dtype)
        bad[1, 1] = value
        with pytest.raises(NotFiniteError, match=r"model\.safetensors: tensor 'h\.0\.bad': 1 of its 6 values"):
            save_checkpoint(good, {"fine": np.ones(2), "h.0.bad": bad})

    for_each(itertools.product([np.nan, np.inf, -np.inf], ["f2", "f4", "f8", ">f4"]), check)
    assert_untouched(good)


def test_metadata_that_could_not_be_read_again_is_refused(good, for_each):
    def check(case):
        metadata, message = case
        with pytest.raises(ValueError, match=rf"model\.safetensors: metadata: .*{message}") as error:
            save_checkpoint(good, {}, metadata)
        assert not isinstance(error.value, LoadError)

    cases = [({"x": np.ones(1)}, "ndarray"), ({"x": float("nan")}, ""), ({1: "a", "1": "b"}, "twice")]
    cases += [({"x": value}, "store it as text or as an array") for value in (10**39, [0] * 1_300_000)]
    for_each(cases, check)
    assert_untouched(good)


# What is not loaded


BAD_FIELDS = [
    ({"format": None}, "__metadata__: format: must be 'tinygrad_llm.checkpoint', got None"),
    ({"format": "pt"}, "__metadata__: format: .*'pt'"),
    ({"version": "3"}, "got checkpoint version 3; this package reads version 2 only.*: update tinygrad_llm"),
    ({"version": "1"}, "got checkpoint version 1; this package reads version 2 only.*: train again in a new folder"),
    ({"version": "0"}, "__metadata__: version: must be 2, got"),
    ({"version": "one"}, "__metadata__: version: must be 2, got"),
    ({"version": None}, "__metadata__: version: must be 2, got"),
    ({"sha256": None}, "__metadata__: sha256: must be 64"),
    ({"sha256": "12"}, "__metadata__: sha256: must be 64"),
    ({"metadata": None}, "__metadata__: metadata"),
    ({"metadata": "[1]"}, "__metadata__: metadata: must be a JSON object"),
    ({"metadata": '{"a":1,"a":2}'}, "__metadata__: metadata: .*twice"),
]


def test_every_field_is_checked(good, for_each):
    whole = good.read_bytes()

    def check(case):
        changes, match = case
        good.write_bytes(whole)
        change_fields(good, **changes)
        with pytest.raises(LoadError, match=rf"{re.escape(str(good))}: {match}"):
            load_checkpoint(good)

    for_each(BAD_FIELDS, check)


@pytest.mark.parametrize("changes", [{"metadata": '{"step":8}'}, {"sha256": "0" * 64}, {"more": "text"}])
def test_the_hash_covers_the_metadata(good, changes):
    change_fields(good, **changes)
    with pytest.raises(LoadError, match=r"sha256: .*damaged"):
        load_checkpoint(good)


@pytest.mark.parametrize("place", ["name", "field", "metadata"])
def test_a_lone_surrogate_is_a_load_error(good, place):
    data = good.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if place == "name":
        header["\ud800"] = header.pop("weight")
    else:
        header["__metadata__"][place] = '{"\ud800": 1}'
    text = json.dumps(header).encode()  # as an escape, which is ASCII
    good.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(LoadError, match=re.escape(str(good))):
        load_checkpoint(good)


# Faults while saving: the old file stays, whole, and no other


class Failing(io.FileIO):
    """A file on a disk that takes only so many bytes."""

    def __init__(self, path, room, error):
        super().__init__(path, "x")
        self.room, self.error = room, error

    def write(self, data):
        size = memoryview(data).nbytes
        if size > self.room:
            super().write(memoryview(data).cast("B")[: self.room])
            raise self.error
        self.room -= size
        return super().write(data)


FAULTS = [OSError(code, os.strerror(code)) for code in (errno.ENOSPC, errno.EIO)] + [KeyboardInterrupt()]


def save_expecting(fault, good):
    with pytest.raises(type(fault)) as caught:
        save_checkpoint(good, {"x": np.ones(100_000, np.float32), "y": np.ones(100_000, np.float16)})
    if isinstance(fault, OSError):
        assert caught.value.errno == fault.errno
        assert caught.value.filename == str(good)
    assert_untouched(good)


@pytest.mark.parametrize("fault", FAULTS, ids=repr)
@pytest.mark.parametrize("room", [0, 100, 1000, 300_000, 599_999])
def test_a_write_that_fails_leaves_the_old_checkpoint(good, monkeypatch, fault, room):
    def opened(path, mode):
        return io.BufferedWriter(Failing(path, room, fault)) if mode == "xb" else open(path, mode)

    monkeypatch.setattr(atomic, "open", opened, raising=False)
    save_expecting(fault, good)


@pytest.mark.parametrize("fault", FAULTS[1:], ids=repr)
def test_a_failing_read_back_leaves_the_old_checkpoint(good, monkeypatch, fault):
    def fail(*_):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(safetensors, "open", fail, raising=False)
        save_expecting(fault, good)


@pytest.mark.parametrize("position", [0, 8, 100, -1, None])
def test_a_disk_that_returns_other_bytes_leaves_the_old_checkpoint(good, monkeypatch, position):
    def damaging(descriptor):
        path = next(good.parent.glob(".*.tmp"))
        data = bytearray(path.read_bytes())
        if position is None:
            data.append(0)
        else:
            data[position] ^= 1
        path.write_bytes(data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", damaging)
        with pytest.raises(OSError, match="reads back differently") as caught:
            save_checkpoint(good, {"x": np.ones(1000)})
    assert caught.value.filename == str(good)
    assert_untouched(good)


def test_an_array_that_changes_while_it_is_saved_is_not_saved(good, monkeypatch):
    def changing(*arguments):
        x[0] = 2
        return atomic.atomic_write(*arguments)

    x = np.ones(1000)
    monkeypatch.setattr(safetensors, "atomic_write", changing)
    with pytest.raises(OSError, match="reads back differently"):
        save_checkpoint(good, {"x": x})
    assert_untouched(good)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # one comes before a file is closed
def test_an_interrupt_before_any_line_of_a_save_leaves_a_whole_checkpoint(good):
    """Ctrl-C acts between two lines of Python: here before each one that a save runs, in turn."""

    def trace(frame, event, _):
        nonlocal countdown
        if frame.f_code.co_filename not in (atomic.__file__, checkpoint.__file__, safetensors.__file__):
            return None
        if event == "line":
            countdown -= 1
            if countdown == 0:
                raise KeyboardInterrupt
        return trace

    old = good.read_bytes()
    save_checkpoint(good, {"x": np.ones(3)})
    new = good.read_bytes()
    interrupts = outcomes = 0
    before = sys.gettrace()
    while True:
        good.write_bytes(old)
        countdown = interrupts + 1
        sys.settrace(trace)
        try:
            save_checkpoint(good, {"x": np.ones(3)})
        except KeyboardInterrupt:
            interrupts += 1
        else:
            break
        finally:
            sys.settrace(before)
        assert good.read_bytes() in (old, new)
        outcomes += good.read_bytes() == new
        save_checkpoint(good.with_name("next"), {})
        assert not list(good.parent.glob(".*")), "the next save sweeps up what the interrupt may have left"
    gc.collect()  # such a file is closed here, not in another test
    assert interrupts > 60
    assert 0 < outcomes < interrupts / 2, "some came before the replacement, some after"


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts a file system of 1 MB, with these options."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("only root can mount")

    def mount(options):
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, timeout=60
        )
        if mounted.returncode:
            pytest.skip(f"cannot mount here: {mounted.stderr.decode()}")
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", folder], check=True, timeout=60)


def test_a_full_disk_leaves_the_old_checkpoint(small_disk):
    good = small_disk("size=1m") / "model.safetensors"
    save_checkpoint(good, ARRAYS, METADATA)
    for numbers in (300_000, 2_000_000):
        with pytest.raises(OSError, match=r"No space left.*model\.safetensors"):
            save_checkpoint(good, {"x": np.zeros(numbers, np.float32)})
        assert_untouched(good)
    good.with_name(".tinygrad_llm-0123456789abcdef.tmp").write_bytes(bytes(900_000))  # of a dead process
    save_checkpoint(good, {"x": np.zeros(100_000, np.float32)})
    assert load_checkpoint(good)[0]["x"].shape == (100_000,)


def test_a_read_only_disk_is_named_and_left_alone(small_disk):
    good = small_disk("size=1m") / "model.safetensors"
    save_checkpoint(good, ARRAYS, METADATA)
    small_disk("remount,ro")
    with pytest.raises(OSError, match=r"Read-only.*model\.safetensors"):
        save_checkpoint(good, {})
    with pytest.raises(OSError, match=r"Read-only.*step-00000001"):
        Checkpoints(good.parent).save(1, {})
    assert_untouched(good)


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs users of POSIX")
def test_a_read_only_folder_is_named_and_left_alone():
    with tempfile.TemporaryDirectory() as folder:  # not tmp_path, which only its owner may enter
        good = Path(folder) / "model.safetensors"
        save_checkpoint(good, ARRAYS, METADATA)
        good.parent.chmod(0o555)
        was = os.geteuid()
        try:
            if was == 0:
                os.seteuid(65534)
            assert_untouched(good)
            with pytest.raises(PermissionError, match=r"model\.safetensors"):
                save_checkpoint(good, {})
        finally:
            os.seteuid(was)
            good.parent.chmod(0o755)
        assert_untouched(good)


# A folder of checkpoints


def steps(folder):
    return sorted(int(path.name[5:13]) for path in Path(folder).glob("step-*.ckpt.safetensors"))


def save_steps(checkpoints, losses):
    for step, loss in losses.items():
        checkpoints.save(step, {"x": np.full(3, step)}, {"more": True}, loss)


def damage(path):
    """As a disk does it: the date stays."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        checkpoints = Checkpoints(folder)
        assert checkpoints.latest() is None
        assert checkpoints.best() is None
        with pytest.raises(LoadError, match="holds no checkpoint"):
            checkpoints.load_latest()


def test_save_returns_the_path_and_creates_the_folder(tmp_path):
    folder = tmp_path / "runs" / "1"
    path = Checkpoints(folder).save(1000, {"x": np.ones(2)}, {"config": {}}, loss=np.float32(1.5))
    assert path == folder / "step-00001000.ckpt.safetensors"
    arrays, metadata = Checkpoints(folder).load_latest()
    assert same(arrays, {"x": np.ones(2)})
    assert metadata == {"step": 1000, "loss": 1.5, "config": {}}


@settings(max_examples=20)
@given(st.lists(st.none() | st.integers(0, 9), min_size=1, max_size=12), st.integers(2, 4))
def test_the_last_and_the_best_stay(losses, keep):
    with tempfile.TemporaryDirectory() as folder, mock.patch("os.fsync"):
        checkpoints = Checkpoints(folder, keep)
        for step, loss in enumerate(losses):
            checkpoints.save(step, {}, loss=loss)
            seen = list(enumerate(losses[: step + 1]))
            expected = {step for step, _ in seen[-keep:]}
            best = min(((loss, -step) for step, loss in seen if loss is not None), default=None)
            if best:
                expected.add(-best[1])
                assert checkpoints.best().name == f"step-{-best[1]:08d}.ckpt.safetensors"
            else:
                assert checkpoints.best() is None
            assert set(steps(folder)) == expected
            assert checkpoints.latest().name == f"step-{step:08d}.ckpt.safetensors"


def test_steps_are_ordered_as_numbers(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    for step in (99_999_999, 100_000_000, 1_000_000_000):
        assert checkpoints.save(step, {}) == checkpoints.latest()


def test_fewer_than_two_are_refused(tmp_path):
    for keep in (1, 0, -1):
        with pytest.raises(ValueError, match=f"keep={keep}: at least 2"):
            Checkpoints(tmp_path, keep)


@pytest.mark.parametrize("arguments", [{"step": -1}, {"loss": np.nan}, {"loss": np.inf}, {"metadata": {"loss": 1}}])
def test_bad_arguments_are_refused_and_nothing_is_removed(tmp_path, arguments):
    checkpoints = Checkpoints(tmp_path)
    save_steps(checkpoints, {1: 1.0, 2: 2.0, 3: 3.0})
    with pytest.raises(ValueError, match=r"step|loss"):
        checkpoints.save(**({"step": 4, "arrays": {}} | arguments))
    with pytest.raises(ValueError, match="'x': 1 of its 1 values"):
        checkpoints.save(4, {"x": np.array([np.nan])})
    assert steps(tmp_path) == [1, 2, 3]


def test_nothing_is_removed_before_the_new_one_is_in_place(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path)
    save_steps(checkpoints, dict.fromkeys(range(3)))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "I/O error")))
        with pytest.raises(OSError, match="00000003"):
            checkpoints.save(3, {})
    assert steps(tmp_path) == [1, 2]
    checkpoints.save(3, {})
    assert steps(tmp_path) == [2, 3]


def test_a_damaged_latest_is_skipped_with_a_warning_and_not_counted(tmp_path):
    save_steps(Checkpoints(tmp_path, keep=3), {10: None, 20: None, 30: None})
    damage(Checkpoints(tmp_path).latest())
    checkpoints = Checkpoints(tmp_path)
    with pytest.warns(DamagedCheckpointWarning, match=r"step-00000030.*sha256.*the checkpoint before it"):
        arrays, metadata = checkpoints.load_latest()
    assert metadata["step"] == 20
    assert same(arrays, {"x": np.full(3, 20)})
    save_steps(checkpoints, {25: None})
    assert steps(tmp_path) == [20, 25, 30], "two good ones, and the damaged one is not ours to remove"
    save_steps(checkpoints, {30: None, 35: None})
    assert steps(tmp_path) == [30, 35]
    checkpoints.load_latest()


def test_a_damaged_one_of_this_run_is_not_counted(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save_steps(checkpoints, {1: None, 2: None})
    damage(checkpoints.latest())
    with pytest.warns(DamagedCheckpointWarning, match="00000002"):
        assert checkpoints.load_latest()[1]["step"] == 1
    save_steps(checkpoints, {3: None})
    assert steps(tmp_path) == [1, 2, 3]


def test_a_step_saved_again_is_the_last(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save_steps(checkpoints, {3: None, 4: None})
    save_steps(checkpoints, {3: None})
    save_steps(checkpoints, {5: None})
    assert steps(tmp_path) == [3, 5]


def test_when_all_are_damaged_the_error_says_so(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save_steps(checkpoints, {1: None, 2: None})
    damage(tmp_path / "step-00000001.ckpt.safetensors")
    (tmp_path / "step-00000002.ckpt.safetensors").write_bytes(b"")
    with (
        pytest.warns(DamagedCheckpointWarning, match="2.ckpt"),
        pytest.warns(DamagedCheckpointWarning, match="1.ckpt"),
        pytest.raises(LoadError, match="none of its 2 checkpoints"),
    ):
        checkpoints.load_latest()


def test_a_damaged_best_is_skipped(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save_steps(checkpoints, {1: 1.0, 2: 2.0, 3: 3.0})
    (tmp_path / "step-00000001.ckpt.safetensors").write_bytes(b"<html>")
    assert checkpoints.best().name.startswith("step-00000002")


def test_a_resumed_run_keeps_its_last_and_best(tmp_path):
    save_steps(Checkpoints(tmp_path), {1: 1.0, 2: 3.0, 3: 3.0})
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load_latest()[1] == {"step": 3, "loss": 3.0, "more": True}
    save_steps(checkpoints, {4: 2.0})
    assert steps(tmp_path) == [1, 3, 4]
    save_steps(checkpoints, {5: 0.5, 6: 2.0, 7: 2.0})
    assert steps(tmp_path) == [5, 6, 7]


def test_files_of_other_runs_stay(tmp_path):
    ours = Checkpoints(tmp_path)
    save_steps(ours, {1: None})
    save_steps(Checkpoints(tmp_path), {1000: 0.1, 2000: 0.2, 3000: None})
    others = ["notes.txt", "step-1.ckpt.safetensor", "step-00000001.ckpt.safetensors.old", "step-00000001.safetensors"]
    for name in others:
        (tmp_path / name).write_text("precious")
    save_steps(ours, dict.fromkeys(range(1, 6)))
    assert steps(tmp_path) == [4, 5, 1000, 2000, 3000]
    assert all((tmp_path / name).read_text() == "precious" for name in others)


def test_a_checkpoint_that_replaced_ours_stays(tmp_path):
    ours = Checkpoints(tmp_path)
    save_steps(ours, {1: None, 2: None})
    save_checkpoint(tmp_path / "step-00000001.ckpt.safetensors", {}, {"theirs": True})
    with pytest.raises(ValueError, match=r"step-00000001.*is not of this run: resume from it .*, move it, or"):
        ours.save(1, {})
    save_steps(ours, {3: None, 4: None})
    assert steps(tmp_path) == [1, 3, 4]
    assert load_checkpoint(tmp_path / "step-00000001.ckpt.safetensors")[1] == {"theirs": True}


def test_a_checkpoint_of_another_run_is_not_replaced(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save_steps(checkpoints, {1: None})
    save_steps(Checkpoints(tmp_path), {2: 0.5})
    with pytest.raises(ValueError, match=r"step-00000002.*not of this run"):
        checkpoints.save(2, {})
    assert checkpoints.load_latest()[1] == {"step": 2, "loss": 0.5, "more": True}
    checkpoints.save(2, {})  # adopted


@pytest.mark.parametrize("step", [1, 2])
def test_a_new_run_cannot_save_among_the_checkpoints_of_another(tmp_path, step):
    save_steps(Checkpoints(tmp_path), {2: None})
    before = (tmp_path / "step-00000002.ckpt.safetensors").read_bytes()
    with pytest.raises(ValueError, match=r"up to step 2, .*resume from them .*, or choose another folder") as e:
        Checkpoints(tmp_path).save(step, {})
    assert len(str(e.value).splitlines()) == 1
    assert steps(tmp_path) == [2]
    assert (tmp_path / "step-00000002.ckpt.safetensors").read_bytes() == before
    Checkpoints(tmp_path).save(3, {})


@pytest.mark.parametrize(("version", "mend"), [(1, "train again in a new folder, or resume with"), (3, "update tiny")])
def test_a_checkpoint_of_another_version_is_neither_skipped_nor_replaced(tmp_path, monkeypatch, version, mend):
    monkeypatch.setattr(checkpoint, "VERSION", 2)
    checkpoints = Checkpoints(tmp_path)
    save_steps(checkpoints, {1: None, 2: None})
    other = tmp_path / "step-00000003.ckpt.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "VERSION", version)
        save_checkpoint(other, {}, {"step": 3})
    before = other.read_bytes()
    words = rf"step-00000003.*: got checkpoint version {version}; this package reads version 2 only: {mend}"
    for instance in (checkpoints, Checkpoints(tmp_path)):
        with pytest.raises(VersionError, match=words) as error:
            instance.load_latest()
        assert len(str(error.value).splitlines()) == 1
        with pytest.raises(LoadError, match="resume"):
            instance.save(3, {})
    assert other.read_bytes() == before


def test_checkpoints_that_were_removed_do_not_count(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save_steps(checkpoints, dict.fromkeys(range(3)))
    checkpoints.latest().unlink()
    save_steps(checkpoints, {3: None})
    assert steps(tmp_path) == [1, 3]


def test_two_savers_at_once_keep_their_own(tmp_path, in_threads):
    """They share every folder, and one file."""

    def work(first):
        checkpoints = savers[first]
        try:
            for step in range(first + 2, 30, 2):
                checkpoints.save(step, {"x": np.full(5000, step, np.float32)}, loss=30 - step)
                save_checkpoint(shared, {"x": np.full(5000, step, np.float32)}, {"step": step})
                assert checkpoints.latest()
        except BaseException as error:
            errors.append(error)

    savers = [Checkpoints(tmp_path), Checkpoints(tmp_path)]
    for step, checkpoints in enumerate(savers):  # the second begins where the first is
        checkpoints.save(step, {})
    errors = []
    shared = tmp_path / "shared.safetensors"
    in_threads(partial(work, 0), partial(work, 1))
    assert not errors
    assert steps(tmp_path) == [26, 27, 28, 29]
    for path in tmp_path.iterdir():
        arrays, metadata = load_checkpoint(path)
        assert same(arrays, {"x": np.full(5000, metadata["step"], np.float32)})
    assert len(list(tmp_path.iterdir())) == 5


# SIGKILL


def kill_savers(tmp_path, popen, runs):
    """Let a program save small and large checkpoints, kill it at random times, and look each time at what is there."""
    dice = random.Random(42)
    interrupted = 0
    program = [sys.executable, Path(__file__).with_name("save_until_killed.py")]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    saver = popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    for run in range(runs):
        large = run % 5 == 0
        folder = tmp_path / ("large" if large else "small")
        folder.mkdir(exist_ok=True)
        saver.stdin.write(f"{folder} {1_300_000 if large else 50_000}\n")
        saver.stdin.flush()
        child = int(saver.stdout.readline())
        time.sleep(dice.uniform(0, 0.3 if large else 0.1))
        until = time.monotonic() + 5  # a busy machine may not have begun: half of the kills wait for a save
        while run % 2 and time.monotonic() < until and not list(folder.glob(".tinygrad_llm-*.tmp")):
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
        said = 0  # the last step whose save had returned
        while (line := saver.stdout.readline()) != "gone\n":
            said = int(line)
        left = len(list(folder.glob(".tinygrad_llm-*.tmp")))
        assert left <= 1, "each save swept up what the last one had left"
        interrupted += left

        found = steps(folder)
        if not found:
            assert said == 0
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("error", DamagedCheckpointWarning)
            arrays, metadata = Checkpoints(folder).load_latest()
        for path in folder.glob("*.ckpt.safetensors"):
            load_checkpoint(path)
        assert metadata["step"] == found[-1] >= said
        assert same(arrays, {"x": np.full_like(arrays["x"], metadata["step"])})
        assert len(found) >= min(2, metadata["step"])
        arrays, last = load_checkpoint(folder / "last.safetensors")
        assert last["step"] - metadata["step"] in (0, 1)
        assert same(arrays, {"x": np.full_like(arrays["x"], last["step"])})
    saver.stdin.close()
    assert saver.wait(60) == 0
    for folder in tmp_path.iterdir():
        save_checkpoint(folder / "last.safetensors", {})
        assert not list(folder.glob(".*"))
    assert interrupted, "kills should come within saves, or this shows nothing"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_a_killed_saver_leaves_a_whole_checkpoint(tmp_path, popen):
    kill_savers(tmp_path, popen, 6)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_two_hundred_killed_savers_leave_a_whole_checkpoint(tmp_path, popen):
    kill_savers(tmp_path, popen, 200)
