"""A file is the old one or the new one, whatever goes wrong between."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tinygrad_llm.formats import atomic_write


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
def test_writes_and_replaces(good, kind):
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

    def test_what_is_no_regular_file_is_left_alone(self, tmp_path):
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        for path in (pipe, tmp_path, Path("/dev/null")):
            with pytest.raises(ValueError, match=f"{path}.*no regular file"):
                write(path, b"new")
        assert pipe.is_fifo()
        assert list(tmp_path.iterdir()) == [pipe]

    def test_data_then_name_then_folder_reach_the_disk(self, good, monkeypatch):
        steps = []
        fsync, replace = os.fsync, os.replace

        def spy_fsync(descriptor):
            steps.append(os.readlink(f"/proc/self/fd/{descriptor}") if Path("/proc").exists() else "")
            fsync(descriptor)

        def spy_replace(source, target):
            assert Path(source).read_bytes() == b"new"
            steps.append("replace")
            replace(source, target)

        monkeypatch.setattr(os, "fsync", spy_fsync)
        monkeypatch.setattr(os, "replace", spy_replace)
        write(good, b"new")
        assert steps[1] == "replace"
        assert len(steps) == 3
        if steps[0]:
            assert steps[0].endswith(".tmp")
            assert steps[2] == str(good.parent.resolve())


def test_two_writers_at_once_leave_one_whole_file(good):
    contents = [bytes([letter]) * 300_000 for letter in b"ab"]

    def work(content):
        for _ in range(10):
            write(good, content)

    threads = [threading.Thread(target=work, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good.read_bytes() in contents
    assert list(good.parent.iterdir()) == [good]


@pytest.mark.slow
def test_a_killed_writer_leaves_a_whole_file(good):
    program = """if True:
        import sys
        from tinygrad_llm.formats import atomic_write
        print(flush=True)
        while True:
            for letter in (b"a", b"b"):
                with atomic_write(sys.argv[1]) as file:
                    for _ in range(100):
                        file.write(letter * 10_000)
    """
    whole = [b"old", b"a" * 1_000_000, b"b" * 1_000_000]
    for run in range(20):
        with subprocess.Popen([sys.executable, "-c", program, good], stdout=subprocess.PIPE) as process:
            assert process.stdout.readline(), "the writer did not start"
            time.sleep(0.003 * run)
            process.send_signal(signal.SIGTERM if os.name == "nt" else signal.SIGKILL)
        assert good.read_bytes() in whole
