"""A file is the old one or the new one, whatever goes wrong between."""

import errno
import os
from functools import partial
from pathlib import Path

import pytest
from power_cut import PowerCut

from tinygrad_llm.storage import lock
from tinygrad_llm.storage.atomic import atomic_folder, atomic_write


def write(path, data):
    with atomic_write(path) as file:
        file.write(data)


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "model.bin"
    path.write_bytes(b"old")
    return path


def assert_untouched(good, content=b"old"):
    assert good.read_bytes() == content
    assert list(good.parent.iterdir()) == [good]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_file_is_written_and_replaced(good, kind):
    write(kind(good), b"new")
    assert_untouched(good, b"new")
    other = good.with_name("other")
    write(kind(other), b"first")
    assert other.read_bytes() == b"first"


def test_the_old_file_is_there_until_the_block_ends(good):
    with atomic_write(good) as file:
        file.write(b"x" * 100_000)
        assert good.read_bytes() == b"old"
        temporary = Path(file.name)
        assert temporary.parent == good.parent
        assert temporary.match(".*.tmp")
    assert_untouched(good, b"x" * 100_000)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_an_exception_in_the_block_leaves_the_old_file(good, error):
    def stop():
        with atomic_write(good) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        stop()
    assert_untouched(good)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failing_disk_leaves_the_old_file_and_names_it(good, monkeypatch, function, code):
    def fail(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(OSError, match=r"model\.bin") as caught:
        write(good, b"new")
    assert caught.value.errno == code
    assert_untouched(good)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_leaves_the_old_file_and_names_it(good):
    def fill_up():
        with atomic_write(good) as file:
            full = os.open("/dev/full", os.O_WRONLY)
            os.dup2(full, file.fileno())
            os.close(full)
            file.write(b"new")

    with pytest.raises(OSError, match=r"No space left.*model\.bin"):
        fill_up()
    assert_untouched(good)


def test_an_error_about_another_file_keeps_its_name(good):
    with pytest.raises(FileNotFoundError, match="elsewhere"), atomic_write(good):
        Path("elsewhere/input").read_bytes()
    assert_untouched(good)


def test_a_missing_folder_is_named_by_the_path_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write(tmp_path / "no" / "model.bin", b"new")
    assert caught.value.filename == str(tmp_path / "no" / "model.bin")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_read_only_folder_leaves_the_old_file(good):
    good.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"model\.bin"):
            write(good, b"new")
    finally:
        good.parent.chmod(0o700)
    assert_untouched(good)


@pytest.mark.skipif(os.name != "posix", reason="permissions, links and pipes of POSIX")
class TestPosix:
    def test_a_link_stays_a_link_and_its_target_is_replaced(self, tmp_path):
        folder = tmp_path / "elsewhere"
        folder.mkdir()
        link = tmp_path / "link"
        link.symlink_to(folder / "target")
        for content in (b"one", b"two"):  # first through a link that points to nothing yet
            write(link, content)
            assert link.is_symlink()
            assert (folder / "target").read_bytes() == content
        assert [path.name for path in folder.iterdir()] == ["target"]

    def test_permissions_are_kept_and_those_of_a_new_file_are_the_usual_ones(self, good):
        good.chmod(0o640)
        write(good, b"new")
        assert good.stat().st_mode & 0o777 == 0o640
        write(good.with_name("by_us"), b"")
        good.with_name("by_open").write_bytes(b"")
        assert good.with_name("by_us").stat().st_mode == good.with_name("by_open").stat().st_mode

    def test_anything_but_a_regular_file_is_left_alone(self, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        for path in (pipe, tmp_path, Path("/dev/null")):
            with pytest.raises(ValueError, match=f"{path}.*not a regular file"):
                write(path, b"new")
        assert pipe.is_fifo()
        assert list(tmp_path.iterdir()) == [pipe]

    def test_data_then_name_then_folder_reach_the_disk(self, good, monkeypatch):
        disk = PowerCut(monkeypatch)
        write(good, b"new")
        disk.check()
        with atomic_folder(good.with_name("folder")) as folder:
            (folder / "inside").write_bytes(b"data")
            (folder / "deeper").mkdir()
            (folder / "deeper" / "inside").write_bytes(b"data")
        disk.check()
        assert len(disk.synced) == 6


def test_a_folder_is_replaced_only_if_all_its_files_are(tmp_path, monkeypatch):
    target = tmp_path / "folder"

    def make(names, **options):
        with atomic_folder(target, **options) as folder:
            for name in names:
                (folder / name).write_text(f"new {name}")

    make("ab")
    (target / "a").write_text("old")
    with pytest.raises(OSError, match="not empty"):
        make("ab")
    with pytest.raises(FileExistsError, match="it also holds b"):
        make("ac", overwrite=True)
    assert (target / "a").read_text() == "old"
    with monkeypatch.context() as patch:  # the new folder cannot take the place of the old one
        rename = os.rename
        patch.setattr(os, "rename", lambda old, new: rename(old, new) if old == target or new != target else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make("abc", overwrite=True)
    assert (tmp_path / ".folder.old" / "a").read_text() == "old"
    os.rename(tmp_path / ".folder.old", target)

    def refuse(old, new):
        if new == target and old.suffix == ".tmp":
            raise PermissionError(13, "Permission denied")
        rename(old, new)

    with monkeypatch.context() as patch:  # not a kill: the old folder is put back
        patch.setattr(os, "rename", refuse)
        with pytest.raises(PermissionError):
            make("abc", overwrite=True)
    assert (target / "a").read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]
    make("abc", overwrite=True)
    assert {path.name: path.read_text() for path in target.iterdir()} == {name: f"new {name}" for name in "abc"}
    assert list(tmp_path.iterdir()) == [target]


def test_two_writers_at_once_leave_one_whole_file(good, in_threads):
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]

    def work(content):
        for _ in range(10):
            write(good, content)

    in_threads(*(partial(work, content) for content in contents))
    assert good.read_bytes() in contents
    assert list(good.parent.iterdir()) == [good]


# Verification


def test_a_file_is_verified_before_it_replaces_the_old_one(good):
    def verify(temporary):
        seen.append((temporary.read_bytes(), good.read_bytes()))
        assert temporary.parent == good.parent

    seen = []
    with atomic_write(good, verify) as file:
        file.write(b"new")
        assert not seen
    assert seen == [(b"new", b"old")]
    assert_untouched(good, b"new")


@pytest.mark.parametrize("error", [ValueError("damaged"), OSError(errno.EIO, "I/O error"), KeyboardInterrupt()])
def test_a_file_that_fails_verification_does_not_replace_the_old_one(good, error):
    def verify(_):
        raise error

    def work():
        with atomic_write(good, verify) as file:
            file.write(b"new")

    with pytest.raises(type(error)) as caught:
        work()
    assert_untouched(good)
    if isinstance(error, OSError):
        assert caught.value.filename == str(good)


# Temporaries of the dead

STALE = ".tinygrad_llm-0123456789abcdef.tmp"


@pytest.mark.skipif(os.name != "posix", reason="elsewhere a file must be a day old")
class TestSweep:
    @pytest.mark.parametrize("folder", [False, True])
    def test_the_next_writer_removes_what_a_dead_one_left(self, good, folder):
        if folder:
            good.with_name(STALE).mkdir()
            (good.with_name(STALE) / "model.npz").write_bytes(b"half")
        else:
            good.with_name(STALE).write_bytes(b"half")
        write(good, b"new")
        assert_untouched(good, b"new")

    def test_nothing_but_our_own_temporaries_is_removed(self, good):
        others = [".x.tmp", "tinygrad_llm-0123456789abcdef.tmp", ".tinygrad_llm-0123456789abcdef", STALE + "~"]
        for name in others:
            good.with_name(name).write_bytes(b"precious")
        write(good, b"new")
        assert {path.name for path in good.parent.iterdir()} == {good.name, *others}
        assert all(good.with_name(name).read_bytes() == b"precious" for name in others)

    def test_a_link_named_like_a_temporary_does_not_lead_outside(self, good, tmp_path_factory):
        outside = tmp_path_factory.mktemp("outside") / "file"
        outside.write_bytes(b"precious")
        good.with_name(STALE).symlink_to(outside)
        write(good, b"new")
        assert outside.read_bytes() == b"precious"

    def test_a_living_writer_keeps_its_temporary(self, good):
        other = good.with_name("other")
        with atomic_write(other) as file:
            file.write(b"slow")
            file.flush()
            write(good, b"new")
            assert Path(file.name).read_bytes() == b"slow"
        assert other.read_bytes() == b"slow"

    def test_a_temporary_is_locked_until_it_is_renamed(self, good, monkeypatch):
        def replace(source, target):
            write(good.with_name("other"), b"quick")  # sweeps
            real(source, target)

        real = os.replace
        with atomic_write(good, lambda _: write(good.with_name("third"), b"quick")) as file:
            file.write(b"new")
            monkeypatch.setattr(os, "replace", lambda *names: (monkeypatch.undo(), replace(*names)))
        assert good.read_bytes() == b"new"
        assert sorted(path.name for path in good.parent.iterdir()) == ["model.bin", "other", "third"]

    def test_a_writer_starts_again_when_it_is_swept_up_before_it_is_locked(self, good, monkeypatch):
        def flock(file, operation):
            if not swept:
                swept.append(file.name)
                write(good.with_name("other"), b"quick")
            real(file, operation)

        swept = []
        real = lock.fcntl.flock
        monkeypatch.setattr(lock.fcntl, "flock", flock)
        write(good, b"new")
        assert good.read_bytes() == b"new"
        assert {path.name for path in good.parent.iterdir()} == {good.name, "other"}

    def test_a_new_file_of_the_same_name_is_not_swept_up(self, good, monkeypatch):
        def flock(file, operation):
            if operation & lock.fcntl.LOCK_NB:
                stale.unlink()
                stale.write_bytes(b"of a living writer")
            real(file, operation)

        stale = good.with_name(STALE)
        stale.write_bytes(b"half")
        real = lock.fcntl.flock
        monkeypatch.setattr(lock.fcntl, "flock", flock)
        write(good, b"new")
        assert stale.read_bytes() == b"of a living writer"

    def test_without_locks_files_are_written_and_nothing_is_swept_up(self, good, monkeypatch):
        def flock(*_):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

        monkeypatch.setattr(lock.fcntl, "flock", flock)
        good.with_name(STALE).write_bytes(b"half")
        write(good, b"new")
        assert good.read_bytes() == b"new"
        assert good.with_name(STALE).exists()
