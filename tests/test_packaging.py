"""An installation has every package, its data, and nothing else."""

import configparser
import fnmatch
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tinygrad_llm

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "tinygrad_llm").is_dir(), reason="the package under test is installed")


@pytest.fixture(scope="module")
def config():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg", encoding="utf-8")
    return parser


def test_setup_cfg_lists_all_folders_as_packages(config):
    listed = config["options"]["packages"].split()
    assert listed == sorted(set(listed))
    code = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "tinygrad_llm").rglob("*.py")}
    folders = {path.parent for path in (ROOT / "data").rglob("*") if path.is_file()}
    data = {".".join(("tinygrad_llm", *folder.relative_to(ROOT).parts)) for folder in folders}
    assert set(listed) == code | data
    for name in code:
        assert (ROOT / Path(*name.split(".")) / "__init__.py").is_file()


def test_setup_cfg_includes_every_data_file(config):
    patterns = {name: value.replace(",", " ").split() for name, value in config["options.package_data"].items()}
    for path in (ROOT / "data").rglob("*"):
        if path.is_file():
            package = ".".join(("tinygrad_llm", *path.parent.relative_to(ROOT).parts))
            assert any(fnmatch.fnmatch(path.name, pattern) for pattern in patterns[package]), path
    for path in package_data():
        package = next(folder for folder in path.parents if (folder / "__init__.py").is_file())
        found = patterns.get(".".join(package.relative_to(ROOT).parts), [])
        assert any(fnmatch.fnmatch(str(path.relative_to(package).as_posix()), pattern) for pattern in found), path
    assert ROOT / "tinygrad_llm" / "py.typed" in package_data()


def package_data():
    """The files in the folder of the package that are no code."""
    paths = (ROOT / "tinygrad_llm").rglob("*")
    return [path for path in paths if path.is_file() and path.suffix not in (".py", ".pyc")]


def test_the_version_is_that_of_setup_cfg(config):
    assert tinygrad_llm.__version__ == config["metadata"]["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", tinygrad_llm.__version__)


def test_only_numpy_and_regex_are_required(config):
    needed = [re.match(r"[\w.-]+", line)[0] for line in config["options"]["install_requires"].split()]
    assert sorted(needed) == ["numpy", "regex"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, because building leaves folders behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("tinygrad_llm", "data"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(source)]
    if can_build_here():
        command.append("--no-build-isolation")
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


def can_build_here():
    """Whether setuptools is new enough and can build wheels: alone from 70.1 on, and before that with `wheel`."""
    if importlib.util.find_spec("setuptools") is None:
        return False
    code = "import setuptools; print(setuptools.__version__)"  # in another process, because importing it warns
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    version = tuple(int(part) for part in done.stdout.split(".")[:2])
    return version >= (70, 1) or (version >= (64, 0) and importlib.util.find_spec("wheel") is not None)


@pytest.mark.slow
def test_the_wheel_contains_all_packages_and_data(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    package = {name for name in names if ".dist-info/" not in name}
    expected = {str(path.relative_to(ROOT)) for path in (ROOT / "tinygrad_llm").rglob("*.py")}
    expected |= {f"tinygrad_llm/{path.relative_to(ROOT)}" for path in (ROOT / "data").rglob("*") if path.is_file()}
    assert package == expected | {str(path.relative_to(ROOT)) for path in package_data()}
    assert "tinygrad_llm/cli/chat.html" in package
    assert {f"tinygrad_llm/data/{name}" for name in ("gpt2/vocab.bpe", "gpt2/LICENSE", "stories.txt")} <= package
    info = {name.partition(".dist-info/")[2] for name in names} - {""}
    assert any(name.endswith("LICENSE") for name in info)
    assert "entry_points.txt" in info


@pytest.mark.slow
def test_the_wheel_works_from_anywhere(wheel, tmp_path, monkeypatch):
    target, empty = tmp_path / "installed", tmp_path / "empty"
    empty.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(target), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True, timeout=600)
    code = (
        "import tinygrad_llm\n"
        "from tinygrad_llm.datasets import load_corpus\n"
        "print(tinygrad_llm.__file__)\n"
        "print(tinygrad_llm.Tokenizer.gpt2().encode('Hello, do you like tea?'))\n"
        "print(len(load_corpus('stories')))\n"
    )
    environment = os.environ | {"PYTHONPATH": str(target)}

    def output(*args):
        command = [sys.executable, *args]
        done = subprocess.run(command, cwd=empty, env=environment, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout.splitlines()

    where, ids, length = output("-c", code)
    assert Path(where).is_relative_to(target)
    assert ids == "[15496, 11, 466, 345, 588, 8887, 30]"
    assert int(length) > 500_000
    assert output("-m", "tinygrad_llm", "tokenizer", "decode", "15496") == ["Hello"]
    assert not list(empty.iterdir())
