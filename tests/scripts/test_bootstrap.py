"""scripts/bootstrap.py: its decisions, without a network and, except in one slow test, without real environments."""

import ast
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "bootstrap.py"


@pytest.fixture
def boot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a new module, with an empty checkout."""
    spec = importlib.util.spec_from_file_location("bootstrap", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    root = tmp_path / "check out"
    root.mkdir()
    (root / "setup.cfg").write_text("[metadata]\nname = x\n")
    (root / "pyproject.toml").write_text("")
    monkeypatch.setattr(module, "ROOT", root)
    return module


class Commands:
    """Replaces subprocess.run and records the commands."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, status: int = 0) -> None:
        self.asked: list[list[str]] = []
        self.status = status
        monkeypatch.setattr(subprocess, "run", self.run)

    def run(self, command: list[str], **options: Any) -> SimpleNamespace:
        assert not options.get("shell")
        self.asked.append(command)
        return SimpleNamespace(returncode=self.status, stdout="out", stderr="err")


def outside_venv(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", sys.prefix)


def test_the_syntax_is_that_of_python_3_8() -> None:
    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 8))


@pytest.mark.parametrize("version", [(3, 8), (3, 10, 12)])
def test_an_old_python_is_refused(boot: ModuleType, version: tuple[int, ...]) -> None:
    with pytest.raises(boot.Stop, match=rf"Python 3\.11 or newer is needed, got 3\.{version[1]}:") as stop:
        boot.check_version(version)
    assert stop.value.status == 2


@pytest.mark.parametrize("version", [(3, 11), (3, 12, 1), (4, 0)])
def test_a_new_python_is_accepted(boot: ModuleType, version: tuple[int, ...]) -> None:
    boot.check_version(version)


@pytest.mark.parametrize("arguments", [[], ["dmeo"]])
def test_an_unknown_job_costs_one_line(arguments: list[str]) -> None:
    ended = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert len(ended.stderr.splitlines()) == 1
    assert "demo or test" in ended.stderr


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help_needs_no_environment(option: str, tmp_path: Path) -> None:
    script = tmp_path / "scripts" / "bootstrap.py"  # a checkout of nothing else
    script.parent.mkdir()
    script.write_bytes(SCRIPT.read_bytes())
    ended = subprocess.run([sys.executable, script, option], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert "bootstrap.py demo" in ended.stdout
    assert "bootstrap.py test" in ended.stdout
    assert max(map(len, ended.stdout.splitlines())) <= 80
    assert not (tmp_path / ".venv").exists()


def test_arguments_are_passed_to_the_job(boot: ModuleType) -> None:
    assert boot.job_named(["demo", "--steps", "5"]) == (("app",), ("-m", "tinygrad_llm", "demo", "--steps", "5"))
    extras, command = boot.job_named(["test", "-k", "demo x"])
    assert extras == ("app", "test")
    assert command[:4] == ("-m", "pytest", "-n", "auto")  # on all cores
    assert command[-2:] == ("-k", "demo x")  # at the end, so that the user's -n counts


def test_a_running_environment_is_used(boot: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", sys.prefix + "-base")
    commands = Commands(monkeypatch)
    assert boot.environment() == (Path(sys.prefix), Path(sys.executable))
    assert not any("venv" in command for command in commands.asked)


def test_a_running_environment_without_pip_is_refused(boot: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "base_prefix", sys.prefix + "-base")
    Commands(monkeypatch, status=1)
    with pytest.raises(boot.Stop, match="ensurepip"):
        boot.environment()


def test_a_good_environment_is_kept(boot: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    outside_venv(monkeypatch)
    commands = Commands(monkeypatch)
    home, python = boot.environment()
    assert home == boot.ROOT / ".venv"
    assert python.parent.parent == home
    assert len(commands.asked) == 1


def test_a_broken_environment_is_created_again(boot: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    outside_venv(monkeypatch)
    (boot.ROOT / ".venv" / "bin").mkdir(parents=True)
    assert not boot.usable(boot.interpreter(boot.ROOT / ".venv"))
    monkeypatch.setattr(boot, "usable", lambda python: False)
    commands = Commands(monkeypatch)
    boot.environment()
    assert commands.asked == [[sys.executable, "-m", "venv", "--clear", str(boot.ROOT / ".venv")]]


def test_the_output_of_a_failing_venv_is_shown(boot: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    Commands(monkeypatch, status=1)
    with pytest.raises(boot.Stop, match="outerr") as stop:
        boot.make_venv(boot.ROOT / ".venv")
    assert stop.value.status == 1


def test_a_file_in_place_of_the_environment_is_refused(boot: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    commands = Commands(monkeypatch)
    (boot.ROOT / ".venv").write_text("mine")
    with pytest.raises(boot.Stop, match="move it away"):
        boot.make_venv(boot.ROOT / ".venv")
    assert commands.asked == []


@pytest.mark.parametrize("absent", ["venv", "ensurepip"])
def test_a_missing_venv_names_debians_package(boot: ModuleType, monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    commands = Commands(monkeypatch)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == absent else name)
    with pytest.raises(boot.Stop, match=f"no {absent}.*\n.*sudo apt install python3-venv") as stop:
        boot.make_venv(boot.ROOT / ".venv")
    assert stop.value.status == 2
    assert commands.asked == []


@pytest.fixture
def home(boot: ModuleType) -> Path:
    home: Path = boot.ROOT / ".venv"
    home.mkdir()
    return home


def installs(boot: ModuleType, monkeypatch: pytest.MonkeyPatch, home: Path, extras: tuple[str, ...]) -> list[list[str]]:
    commands = Commands(monkeypatch)
    boot.install(home, Path("python"), extras)
    return commands.asked


def test_the_project_is_installed_once(boot: ModuleType, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    [command] = installs(boot, monkeypatch, home, ("app",))
    assert command[:4] == ["python", "-m", "pip", "install"]
    assert command[-2:] == ["--editable", ".[app]"]
    assert installs(boot, monkeypatch, home, ("app",)) == []


def test_a_missing_extra_is_added_to_the_others(boot: ModuleType, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    installs(boot, monkeypatch, home, ("app",))
    [command] = installs(boot, monkeypatch, home, ("test",))
    assert command[-1] == ".[app,test]"
    assert installs(boot, monkeypatch, home, ("app", "test")) == []


@pytest.mark.parametrize("name", ["setup.cfg", "pyproject.toml"])
def test_a_changed_project_is_installed_again(
    boot: ModuleType, monkeypatch: pytest.MonkeyPatch, home: Path, name: str
) -> None:
    installs(boot, monkeypatch, home, ("app",))
    with (boot.ROOT / name).open("a") as file:
        file.write("# changed\n")
    assert len(installs(boot, monkeypatch, home, ("app",))) == 1


@pytest.mark.parametrize("stamp", ["", "{", "[]", "{}", '{"extras": 3}', "moved", "\x00"])
def test_an_invalid_stamp_is_ignored(boot: ModuleType, monkeypatch: pytest.MonkeyPatch, home: Path, stamp: str) -> None:
    installs(boot, monkeypatch, home, ("app", "test"))
    path = home / boot.STAMP
    if stamp == "moved":
        stamp = json.dumps(json.loads(path.read_text()) | {"root": "/elsewhere"})
    path.write_text(stamp)
    [command] = installs(boot, monkeypatch, home, ("app",))
    assert command[-1] == ".[app]"


def test_a_failed_install_leaves_no_stamp(boot: ModuleType, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    installs(boot, monkeypatch, home, ("app",))
    Commands(monkeypatch, status=1)
    with pytest.raises(boot.Stop, match=r"network.*proxy.*index") as stop:
        boot.install(home, Path("python"), ("test",))
    assert stop.value.status == 1
    assert not (home / boot.STAMP).exists()


@pytest.mark.parametrize("status", [0, 5])
def test_the_exit_status_of_the_job_is_returned(boot: ModuleType, status: int) -> None:
    assert boot.run(Path(sys.executable), ("-c", f"raise SystemExit({status})")) == status


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals")
def test_a_signal_that_ends_the_job_gives_its_status(boot: ModuleType) -> None:
    assert boot.run(Path(sys.executable), ("-c", "import os; os.kill(os.getpid(), 15)")) == 128 + 15


def test_tests_run_in_the_checkout_and_the_demo_in_the_current_folder(
    boot: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "modules").mkdir()
    for name in ("pytest", "tinygrad_llm"):
        (tmp_path / "modules" / f"{name}.py").write_text("open('here', 'w').close()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    for job, folder in (
        (["test"], boot.ROOT),
        (["demo"], tmp_path),
        (["demo", "--out", "pytest"], tmp_path),  # a word among the arguments has no influence
    ):
        assert boot.run(Path(sys.executable), boot.job_named(job)[1]) == 0
        (folder / "here").unlink()


def test_ctrl_c_waits_for_the_job_and_is_130(
    boot: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    waits: list[Any] = []

    class Interrupted:
        def __init__(self, command: list[str], cwd: Path) -> None:
            pass

        def wait(self, timeout: float | None = None) -> int:
            waits.append(timeout)
            if len(waits) == 1:
                raise KeyboardInterrupt
            return 130

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    monkeypatch.setattr(boot, "environment", lambda: (boot.ROOT, Path("python")))
    monkeypatch.setattr(boot, "install", lambda *arguments: None)
    assert boot.main(["demo"]) == 130
    assert len(waits) == 2
    assert capsys.readouterr().err == ""


def test_stop_gives_one_message_and_its_status(
    boot: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop() -> None:
        raise boot.Stop("change this", 2)

    monkeypatch.setattr(boot, "environment", stop)
    assert boot.main(["demo"]) == 2
    assert capsys.readouterr() == ("", "bootstrap: change this\n")


@pytest.mark.slow
def test_a_real_environment_works(boot: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    outside_venv(monkeypatch)
    (boot.ROOT / ".venv").mkdir()
    (boot.ROOT / ".venv" / "left over").write_text("")
    home, python = boot.environment()
    assert boot.usable(python)
    assert not (home / "left over").exists()
    assert boot.run(python, ("-c", "import sys; raise SystemExit(sys.prefix == sys.base_prefix)")) == 0
