"""Make .venv in a fresh checkout, install the project, and start a job.

    python3 scripts/bootstrap.py demo ARGS     python -m tinygrad_llm demo ARGS
    python3 scripts/bootstrap.py test ARGS     python -m pytest -n auto ARGS

The tests run on all cores, at most four of them. `-n 0` runs them in one
process, which `-s` needs; with `--pdb` they run in one process anyway.

Inside a virtual environment, the script uses that one, and otherwise .venv in
the checkout. It installs the project once, and again only after setup.cfg or
pyproject.toml have changed. `demo --help` lists the options of the demo.
"""

# This file imports the standard library only. Its syntax is that of Python 3.8, so that an old interpreter can run it
# and report that it is too old.

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)
# job: (the extras that it needs, the arguments of the environment's Python)
JOBS = {
    "demo": (("app",), ("-m", "tinygrad_llm", "demo")),
    "test": (("app", "test"), ("-m", "pytest", "-n", "auto", "--maxprocesses=4", "--dist=worksteal")),
}
STAMP = "tinygrad_llm-install.json"
USABLE = f"import sys, importlib.util as u; sys.exit(sys.version_info < {OLDEST} or not u.find_spec('pip'))"


class Stop(Exception):
    """Ends the run with a message for the user and an exit status: 2 if the user must change something."""

    def __init__(self, message: str, status: int = 2) -> None:
        super().__init__(message)
        self.status = status


def say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def check_version(version: tuple[int, ...]) -> None:
    if version[:2] < OLDEST:
        needed, found = (".".join(map(str, parts[:2])) for parts in (OLDEST, version))
        raise Stop(f"Python {needed} or newer is needed, got {found}: {sys.executable}")


def job_named(arguments: list[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The extras and the command of the job that the arguments name."""
    jobs = " or ".join(JOBS)
    if not arguments:
        raise Stop(f"got no job: run python3 scripts/bootstrap.py JOB [ARGS...], where JOB is {jobs}; or --help")
    if arguments[0] not in JOBS:
        raise Stop(f"got the unknown job {arguments[0]!r}: choose {jobs}, or --help")
    extras, command = JOBS[arguments[0]]
    return extras, command + tuple(arguments[1:])


def interpreter(home: Path) -> Path:
    return home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def usable(python: Path) -> bool:
    """Whether this interpreter starts, is new enough, and has pip."""
    try:
        return subprocess.run([str(python), "-c", USABLE], capture_output=True).returncode == 0
    except OSError:
        return False


def make_venv(home: Path) -> None:
    """Create a virtual environment, and remove what an older one left."""
    missing = [name for name in ("venv", "ensurepip") if importlib.util.find_spec(name) is None]
    if missing:
        names = " and no ".join(missing)
        raise Stop(
            f"this Python has no {names}, which is needed to create .venv.\n"
            "On Debian and Ubuntu: sudo apt install python3-venv; then run this again."
        )
    say(f"Creating {home.name} ...")
    # --clear empties the folder first, and would follow a link to a folder of somebody else
    if home.is_symlink() or (home.exists() and not home.is_dir()):
        raise Stop(f"{home} is not a folder: move it away and run this again")
    made = subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], capture_output=True, text=True)
    if made.returncode != 0:
        output = (made.stdout + made.stderr).strip()
        raise Stop(f"{output}\ncreating {home} failed; see the lines above", status=1)


def environment() -> tuple[Path, Path]:
    """The folder of the virtual environment, created if it does not exist, and its interpreter."""
    if sys.prefix != sys.base_prefix:
        home, python = Path(sys.prefix), Path(sys.executable)
        if not usable(python):
            raise Stop(f"the environment {home} has no pip: run {python} -m ensurepip")
        return home, python
    home = ROOT / ".venv"
    python = interpreter(home)
    if not usable(python):
        make_venv(home)
    return home, python


def project_hash() -> str:
    """SHA-256 of the files that determine what an installation contains."""
    digest = hashlib.sha256()
    for name in ("setup.cfg", "pyproject.toml"):
        content = (ROOT / name).read_bytes()
        digest.update(b"%s %d\n" % (name.encode(), len(content)) + content)
    return digest.hexdigest()


def read_stamp(home: Path) -> dict[str, object]:
    """The record of the last successful installation of this checkout; {} if there is none."""
    try:
        stamp = json.loads((home / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) and stamp.get("root") == str(ROOT) else {}


def install(home: Path, python: Path, extras: tuple[str, ...]) -> None:
    """Install the project with these extras, as an editable package, unless that is done already."""
    stamp, project = read_stamp(home), project_hash()
    had = stamp.get("extras")
    have = {str(extra) for extra in had} if isinstance(had, list) else set()
    if stamp.get("hash") == project and have.issuperset(extras):
        return
    wanted = sorted(have.union(extras))
    say("Installing tinygrad_llm[{}] ... (once; a minute)".format(",".join(wanted)))
    (home / STAMP).unlink(missing_ok=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*command, "--editable", ".[{}]".format(",".join(wanted))], cwd=ROOT).returncode != 0:
        raise Stop(
            "pip failed; see its lines above. Check the network, a proxy (HTTPS_PROXY), or the package index\n"
            "(PIP_INDEX_URL), then run this again.",
            status=1,
        )
    text = json.dumps({"root": str(ROOT), "hash": project, "extras": wanted})
    (home / STAMP).write_text(text, encoding="utf-8")


def run(python: Path, command: tuple[str, ...]) -> int:
    """Run the job and return its exit status. Tests run in the checkout, and the demo in the current folder."""
    _, tests = JOBS["test"]
    folder = ROOT if command[: len(tests)] == tests else None
    process = subprocess.Popen([str(python), *command], cwd=folder)
    try:
        status = process.wait()
    except KeyboardInterrupt:
        # a terminal sends Ctrl-C to the job as well, which then ends by itself
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.terminate()
        raise
    return 128 - status if status < 0 else status


def main(arguments: list[str]) -> int:
    if arguments[:1] in (["-h"], ["--help"]):
        print(__doc__.strip())
        return 0
    try:
        check_version(sys.version_info[:2])
        extras, command = job_named(arguments)
        home, python = environment()
        install(home, python, extras)
        return run(python, command)
    except Stop as stop:
        say(f"bootstrap: {stop}")
        return stop.status
    except OSError as error:
        say(f"bootstrap: {error}")
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
