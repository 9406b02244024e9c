"""One process at a time in a run's folder."""

import os
import signal
import subprocess
import sys
import types

import pytest

from tinygrad_llm.storage import lock as lock_module
from tinygrad_llm.storage.atomic import atomic_folder, atomic_write
from tinygrad_llm.storage.lock import LOCK, InUseError, lock

HOLD = """
import sys, time
from pathlib import Path
from tinygrad_llm.storage.lock import lock
give_back = lock(Path(sys.argv[1]))
print("taken", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path, popen):
    """A process that has taken tmp_path."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    process = popen(command, stdout=subprocess.PIPE, env={"PYTHONPATH": os.pathsep.join(sys.path)})
    assert process.stdout.readline() == b"taken\n"
    return process


def test_a_second_process_gets_the_number_of_the_first(holder, tmp_path):
    before = (tmp_path / LOCK).read_bytes()
    with pytest.raises(InUseError, match=rf"{tmp_path}: is being trained by process {holder.pid}: "):
        lock(tmp_path)
    assert (tmp_path / LOCK).read_bytes() == before


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_process_holds_no_lock(holder, tmp_path):
    holder.kill()
    holder.wait(60)
    assert (tmp_path / LOCK).exists()
    lock(tmp_path)()
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="needs flock")
def test_who_writes_waits_for_the_lock_of_its_temporary_and_who_sweeps_does_not(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(lock_module.fcntl, "flock", lambda file, how: asked.append(how))
    (tmp_path / ".tinygrad_llm-0.tmp").touch()
    with atomic_write(tmp_path / "file") as file:
        file.write(b"new")
    with atomic_folder(tmp_path / "folder"):
        pass
    no, wait = lock_module.fcntl.LOCK_EX | lock_module.fcntl.LOCK_NB, lock_module.fcntl.LOCK_EX
    assert asked == [no, wait, wait]


def test_a_lock_of_another_process_of_the_same_name_is_left_alone(tmp_path):
    give_back = lock(tmp_path)
    (tmp_path / LOCK).unlink()  # with its folder, for example
    (tmp_path / LOCK).write_text("7")
    give_back()
    assert (tmp_path / LOCK).read_text() == "7"


def test_a_released_lock_can_be_taken_again(tmp_path):
    give_back = lock(tmp_path)
    with pytest.raises(InUseError, match=f"process {os.getpid()}"):
        lock(tmp_path)
    give_back()
    assert not list(tmp_path.iterdir())
    lock(tmp_path)()


def test_a_file_that_another_process_removes_is_not_a_lock(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    times = []

    def flock(descriptor, how):
        if not times:
            (tmp_path / LOCK).unlink()  # given back between opening and locking
        times.append(how)
        fcntl.flock(descriptor, how)

    fake = types.SimpleNamespace(flock=flock, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB)
    monkeypatch.setattr("tinygrad_llm.storage.lock.fcntl", fake)
    give_back = lock(tmp_path)
    assert len(times) == 2
    with pytest.raises(InUseError):
        lock(tmp_path)
    give_back()


@pytest.mark.skipif(os.name != "posix", reason="on Windows the open file is the lock")
def test_a_lock_is_given_back_only_after_its_file_is_removed(tmp_path, monkeypatch):
    """Else it could remove the file that another process has just locked."""
    give_back = lock(tmp_path)
    there = []
    close = os.close
    monkeypatch.setattr(os, "close", lambda descriptor: (there.append((tmp_path / LOCK).exists()), close(descriptor)))
    give_back()
    assert there == [False]


def test_the_number_of_a_killed_process_is_written_over_whole(tmp_path):
    (tmp_path / LOCK).write_bytes(b"1234567890123456")
    give_back = lock(tmp_path)
    with pytest.raises(InUseError, match=f"by process {os.getpid()}: "):
        lock(tmp_path)
    give_back()


@pytest.mark.parametrize("content", [b"", b"no number"])
def test_a_lock_without_a_number_names_another_process(content, tmp_path):
    give_back = lock(tmp_path)
    (tmp_path / LOCK).write_bytes(content)
    with pytest.raises(InUseError, match="by another process: "):
        lock(tmp_path)
    give_back()


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("words")
    (tmp_path / LOCK).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=LOCK):
        lock(tmp_path)
    assert (tmp_path / "precious").read_text() == "words"


def test_a_file_system_without_locks_reserves_nothing(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(*args):
        raise OSError(95, "Operation not supported")

    fake = types.SimpleNamespace(flock=flock, LOCK_EX=fcntl.LOCK_EX, LOCK_NB=fcntl.LOCK_NB)
    monkeypatch.setattr("tinygrad_llm.storage.lock.fcntl", fake)
    lock(tmp_path)()
    assert not list(tmp_path.iterdir())


def test_where_there_is_no_fcntl_an_open_file_is_the_lock(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "platform", "win32")
    give_back = lock(tmp_path)

    def unlink(path, missing_ok=False):
        raise PermissionError(13, "used by another process", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(type(tmp_path), "unlink", unlink)
        with pytest.raises(InUseError, match=f"process {os.getpid()}"):
            lock(tmp_path)
    give_back()
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_removed_while_it_is_compared_is_not_a_lock(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    original = type(tmp_path).stat
    times = []

    def stat(path, **options):
        if path.name == LOCK and options.get("follow_symlinks", True):
            times.append(path)
            if len(times) in (2, 3):  # after `exists`, if that is asked
                path.unlink()
        return original(path, **options)

    monkeypatch.setattr(type(tmp_path), "stat", stat)
    give_back = lock(tmp_path)
    monkeypatch.undo()
    with pytest.raises(InUseError):
        lock(tmp_path)
    give_back()
