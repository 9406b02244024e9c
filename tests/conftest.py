"""What several test files need: the Hypothesis profile, the kernel inside a gradcheck case, one test over many things.

Tests of a kernel that ignore a case's method and memory layout run over `basic_cases()` of `gradcheck.cases`: it holds
each (kernel, options, input arrays) once, where `all_cases()` repeats them by method and layout.
"""

import ast
import gc
import importlib.util
import os
import signal
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import settings

import tinygrad_llm
from tinygrad_llm.cli import progress
from tinygrad_llm.random import Generator
from tinygrad_llm.runs import run as run_module
from tinygrad_llm.tokenizer import Tokenizer

# Modules that several test files of a folder import are next to them. The scripts that make data import each other.
sys.path += [str(folder) for folder in Path(__file__).parent.iterdir() if folder.is_dir()]
sys.path.append(str(Path(__file__).parents[1] / "scripts"))

# A shell starts a job in the background with SIGINT ignored. The programs that the tests start would inherit that, and
# never see the Ctrl-C that they are sent.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The tests must not find models that the user has downloaded.
os.environ["TINYGRAD_LLM_CACHE"] = os.path.join(os.path.dirname(__file__), "no cache")

# Where Python is told to write no compiled files, every program that the tests start would compile the package again.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "compiled")
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix

# argparse looks for translations of its words on the disk, many times for each parser.
os.environ["LANGUAGE"] = "C"

# No deadline, because machines differ. In CI every run draws the same examples, so that a failure can be repeated.
# Each law is tried on a few examples by default; .ci/run tries it on more, by `--hypothesis-profile thorough`.
settings.register_profile("tinygrad_llm", deadline=None, max_examples=20, derandomize=bool(os.environ.get("CI")))
settings.register_profile("thorough", settings.get_profile("tinygrad_llm"), max_examples=200)
settings.load_profile("tinygrad_llm")


def pytest_collection_finish(session):
    """Thousands of collected tests stay to the end: the garbage collector need not visit them again and again."""
    gc.collect()
    gc.freeze()


DEADLINE, SLOW_DEADLINE = 180, 1800  # seconds; `slow` tests have the second


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """The end of a test that waits for something that never comes: it fails. (On POSIX; a wait has its own end too.)

    A fixture would do the same, and take a tenth of the time of all tests that are fast.
    """

    def expire(*_):
        pytest.fail(f"the test took more than {seconds} seconds")

    if not hasattr(signal, "setitimer"):
        return (yield)
    seconds = SLOW_DEADLINE if item.get_closest_marker("slow") else DEADLINE
    before = signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds, 5)  # and again every five, because the test may wait while it fails
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.fixture
def in_threads():
    """A function: call these functions, each in a thread of its own, and return when all have ended."""

    def run(*functions):
        threads = [threading.Thread(target=function, daemon=True) for function in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in threads)

    return run


@pytest.fixture
def popen():
    """A function: `subprocess.Popen` in a session of its own; what still runs at the end of the test is killed."""
    started = []

    def start(command, **options):
        started.append(subprocess.Popen(command, start_new_session=True, **options))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            if os.name == "posix":
                os.killpg(process.pid, signal.SIGKILL)  # its children too
            else:
                process.kill()
            process.wait(60)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()


@pytest.fixture(scope="session")
def gpt2():
    """GPT-2's tokenizer, loaded once."""
    return Tokenizer.gpt2()


@pytest.fixture(scope="session")
def trees():
    """The syntax tree of every file of the package, by its path: parsing all takes a second."""
    package = Path(tinygrad_llm.__file__).parent
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(package.rglob("*.py"))}


@pytest.fixture
def quick_gpt2(gpt2, monkeypatch):
    """`Tokenizer.gpt2()` does not read its files again."""
    monkeypatch.setattr(Tokenizer, "gpt2", lambda: gpt2)


@pytest.fixture(scope="session")
def script():
    """A function: the name of a file in scripts/ → its module, without the main part."""

    def load(name):
        path = Path(__file__).parents[1] / "scripts" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session", autouse=True)
def quick_runs():
    """Runs draw no pictures, which takes longer than a toy's training, and do not wait for the disk.

    The wait takes most of the time of a small write, and matters in a power cut only. Progress is not shown either: a
    busy machine would print lines that a test does not expect.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in DRAWS:
            patch.setattr(run_module, name, lambda figures, folder: None)
        patch.setattr(os, "fsync", lambda descriptor: None)
        patch.setattr(progress, "_DELAY", 300.0)
        patch.setattr(progress, "_SECONDS", 300.0)
        yield


DRAWS = {name: getattr(run_module, name) for name in ("save_pictures", "save_confusion")}


@pytest.fixture
def pictures(monkeypatch):
    """The runs of this test draw."""
    pytest.importorskip("matplotlib")
    for name, draw in DRAWS.items():
        monkeypatch.setattr(run_module, name, draw)


def traced_peak(call):
    """The most bytes that `call()` held at one time, in addition to those held before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.fixture
def peak_memory():
    """A function (call, limit=0) → the most bytes that `call()` held at one time, in addition to those held before.

    A peak of `limit` or more is measured again, and the smaller one counts. A table of the interpreter may grow during
    any call: that of interned strings by 1.9 MB at its 80,000th string. It grows once, but a call that needs the memory
    needs it each time.
    """

    def measure(call, limit=0):
        peak = traced_peak(call)
        return peak if peak < limit else min(peak, traced_peak(call))

    return measure


@pytest.fixture
def kernel_call():
    """A function: case → (kernel, its input arrays, its options), as the case hands them to `apply`."""

    def find(case, seed=0):
        return case.make.kernel, case.make.arrays(Generator(seed)), case.make.options

    return find


@pytest.fixture
def for_each():
    """A function (things, check): call check(thing) for every thing, then fail once, with a line for each failure."""

    def run(things, check):
        things = list(things)
        assert things, "nothing to check"
        failures = []
        for thing in things:
            try:
                check(thing)
            except (Exception, pytest.fail.Exception) as error:
                failures.append((thing, error))
        if failures:
            lines = [f"{getattr(thing, 'name', thing)}: {type(error).__name__}: {error}" for thing, error in failures]
            shown = "\n".join(line.splitlines()[0] for line in lines)
            raise AssertionError(f"{len(failures)} of {len(things)} failed:\n{shown}") from failures[0][1]

    return run
