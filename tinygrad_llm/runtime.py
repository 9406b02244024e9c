"""The machine: the BLAS kernels and threads that NumPy uses, the cores and memory of this process, and the allocator.

`prepare` changes three settings, and TINYGRAD_LLM_TUNING=0 switches all of them off.

Kernels. OpenBLAS, which comes with NumPy's wheels, chooses its matrix-product kernels from a table of processors. On an
AMD processor that is newer than the table it uses AVX2 although the processor has AVX-512, at half the speed. `prepare`
selects the AVX-512 kernels. This has an effect only before NumPy is loaded.

Threads. OpenBLAS starts one thread for each core that this process may run on. A container often has a quota of
processor time below that. All threads share the quota, and all stop when it is used up. `prepare` requests only as many
threads as the quota can supply.

Memory. The C library of Linux returns large blocks of memory to the system as soon as they are freed, so each new array
needs new pages. A training step allocates and frees the same arrays again and again. `prepare` makes the C library keep
freed memory.
"""

import collections
import contextlib
import contextvars
import ctypes
import functools
import importlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from concurrent.futures import ThreadPoolExecutor

OFF = "TINYGRAD_LLM_TUNING"  # if this variable is 0, `prepare` does nothing
KERNELS = "OPENBLAS_CORETYPE"
THREADS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")  # OpenBLAS takes the first that is set
ROOT = Path("/")  # the folder of Linux's proc and sys; tests use another

AVX2 = {"avx2", "fma"}
AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}  # what OpenBLAS's SkylakeX kernels use

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # <malloc.h>

# The variables in which MPI's launchers (Open MPI; MPICH, Intel MPI and Slurm's PMI) give a process its rank, and the
# number of processes.
_LAUNCHERS = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"), ("PMIX_RANK", ""))

MOST = 4  # threads; more are not faster, because only one thread at a time can run Python's part of the work

_T = TypeVar("_T")
_R = TypeVar("_R")

late = False  # whether NumPy was loaded before `prepare` was called
chosen: dict[str, str] = {}  # the environment variables that `prepare` set


def prepare(root: Path = ROOT) -> None:
    """Choose OpenBLAS's kernels and threads where its own choice is worse, and keep freed memory.

    Kernels are chosen on an AMD processor with AVX-512, and threads where a quota allows fewer than all cores. Settings
    in the user's environment are never changed. After NumPy is loaded, only the memory setting has an effect.
    """
    global late
    if not tuned():
        return
    _keep_freed_memory()
    late = "numpy" in sys.modules
    if late:
        return
    if KERNELS not in os.environ and has_amd_avx512(root):
        chosen[KERNELS] = "SkylakeX"
    if cores(root) < affinity() and not any(name in os.environ for name in THREADS):
        chosen[THREADS[0]] = str(cores(root))
    os.environ.update(chosen)


def tuned() -> bool:
    """Whether `prepare` may change settings: TINYGRAD_LLM_TUNING is not 0, false, no or off."""
    return os.environ.get(OFF, "").strip().lower() not in ("0", "false", "no", "off")


def _keep_freed_memory() -> None:
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # the C library is not glibc
        return
    for most in (1 << 30, 32 << 20):  # some versions of glibc allow at most the second
        if mallopt(_M_MMAP_THRESHOLD, most):
            break
    mallopt(_M_TRIM_THRESHOLD, 1 << 30)
    mallopt(_M_ARENA_MAX, 1)  # so that one thread can use memory that another has freed


# ---- Cores and memory ---------------------------------------------------------------------------------------------


def processor(root: Path = ROOT) -> dict[str, str]:
    """The fields of the first processor in Linux's /proc/cpuinfo; empty on other systems."""
    about = {}
    with contextlib.suppress(OSError), open(root / "proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, colon, value = line.partition(":")
            if not colon:  # an empty line ends the first processor; reading hundreds more would take time
                break
            about[key.strip()] = value.strip()
    return about


def has_amd_avx512(root: Path = ROOT) -> bool:
    """Whether this is an AMD processor with AVX-512. OpenBLAS knows Intel's. On systems other than Linux: False."""
    about = processor(root)
    return about.get("vendor_id") == "AuthenticAMD" and set(about.get("flags", "").split()) >= AVX512


def affinity() -> int:
    """The number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(root: Path = ROOT) -> float | None:
    """The processor time that the control groups of Linux allow this process, in cores; None if it is not limited.

    Source:   Linux, admin-guide/cgroup-v2 (cpu.max), scheduler/sched-bwc (cpu.cfs_quota_us, cpu.cfs_period_us).
    """
    found = []
    for folder in _groups("cpu", root):
        words = _read(folder / "cpu.max").split()  # version 2: "QUOTA PERIOD" or "max PERIOD"
        words = words or _read(folder / "cpu.cfs_quota_us").split() + _read(folder / "cpu.cfs_period_us").split()
        with contextlib.suppress(ValueError):  # "max", or none of these files
            limit, period = map(int, words)
            if limit > 0 and period > 0:  # version 1 has -1 for "max"
                found.append(limit / period)
    return min(found, default=None)


def cores(root: Path = ROOT) -> int:
    """The number of cores that this process may use: by affinity, or the quota rounded up if that is less."""
    allowed = quota(root)
    return affinity() if allowed is None else max(1, min(affinity(), math.ceil(allowed)))


def memory_available(root: Path = ROOT) -> int | None:
    """Bytes that this process can still allocate without swapping, by system and control groups; None if unknown."""
    found = []
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            found.append(int(line.split()[1]) * 1024)
    for folder in _groups("memory", root):
        for limit, used, cache in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            with contextlib.suppress(ValueError):  # "max", or none of these files
                free = int(_read(folder / limit)) - int(_read(folder / used))
                fields = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
                found.append(max(0, free + int(fields.get(cache, 0))))  # the cache of files is freed on demand
    return min(found, default=None)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the control groups that limit this process: its own group and all groups around it.

    In a container, the name of the process's group may be the host's, which does not exist inside. The outermost folder
    is then the container's.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers  # version 2 has no controllers in this line
        names = [name for name in path.split("/") if name not in ("", "..")]
        yield from (top.joinpath(*names[:n]) for n in range(len(names), -1, -1))


def _read(path: Path) -> str:
    """The text of a file of the system; empty if the file cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def started() -> tuple[int, int]:
    """The rank of this process and the number of processes, from the environment; (0, 1) without `mpiexec`.

    The number is 0 if the launcher does not give it.
    """
    for rank, size in _LAUNCHERS:
        with contextlib.suppress(KeyError, ValueError):
            return int(os.environ[rank]), int(os.environ[size]) if size else 0
    return 0, 1


def peak_memory(status: Path = Path("/proc/self/status")) -> int | None:
    """The largest resident memory of this program so far, in bytes; None if the system does not report it.

    Linux's VmHWM is used because ru_maxrss also includes the memory of the process that started this one.
    """
    try:
        descriptor = os.open(status, os.O_RDONLY)  # not open(), which leaves an interned name behind at each call
        try:
            lines = dict(line.partition(b":")[::2] for line in os.read(descriptor, 1 << 16).splitlines())
        finally:
            os.close(descriptor)
        return int(lines[b"VmHWM"].split()[0]) * 1024
    except (OSError, KeyError):
        pass
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes on macOS, KiB elsewhere


# ---- NumPy's BLAS -------------------------------------------------------------------------------------------------


class OpenBLAS:
    """The OpenBLAS that NumPy is linked with.

    Raises:   OSError: its library cannot be loaded, or NumPy uses another BLAS.
    """

    def __init__(self) -> None:
        # Names are looked up in this library and in the libraries that it is linked with (not on Windows).
        self._library = _opened(ctypes.CDLL, importlib.import_module("numpy._core._multiarray_umath").__file__)
        # NumPy's wheels rename all functions, so that two copies of OpenBLAS in one process do not collide.
        for form in ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}"):
            if hasattr(self._library, _filled(form, "get_config")):
                self._form = form
                return
        raise OSError("NumPy is not linked with OpenBLAS")

    def _function(self, name: str, result: Any) -> Callable[..., Any]:
        function = getattr(self._library, _filled(self._form, name))
        function.restype = result
        return function  # type: ignore[no-any-return]

    @property
    def version(self) -> str:
        words: list[str] = self._function("get_config", ctypes.c_char_p)().decode().split()
        return words[1]

    @property
    def architecture(self) -> str:
        """The processor that its kernels were written for."""
        name: bytes = self._function("get_corename", ctypes.c_char_p)()
        return name.decode()

    @property
    def threads(self) -> int:
        """The number of threads of one matrix product. Setting it changes it for the whole process."""
        return int(self._function("get_num_threads", ctypes.c_int)())

    @threads.setter
    def threads(self, number: int) -> None:
        self._function("set_num_threads", None)(ctypes.c_int(number))

    def axpby(self, kind: str) -> Callable[[int, float, Any, int, float, Any, int], None]:
        """The function y ← a·x + b·y, called with (n, a, pointer to x, step of x, b, pointer to y, step of y).

        Args:     kind: "s" for float32, "d" for float64. A step is 1 where numbers lie side by side.
        Raises:   AttributeError: this version does not have it.
        Source:   OpenBLAS's extensions of BLAS: cblas_saxpby, cblas_daxpby.
        """
        number = ctypes.c_float if kind == "s" else ctypes.c_double
        integer = ctypes.c_int64 if "64_" in self._form else ctypes.c_int32
        pointer = ctypes.c_void_p
        function = getattr(self._library, self._form.replace("openblas_", "cblas_").format(f"{kind}axpby"))
        function.argtypes = (integer, number, pointer, integer, number, pointer, integer)
        function.restype = None
        return function  # type: ignore[no-any-return]


@functools.cache
def _opened(library: Callable[[str | None], Any], path: str | None) -> Any:
    """The library of this path. Opened and asked for its functions once: each time costs memory that is never freed."""
    return library(path)


@functools.cache
def _filled(form: str, name: str) -> str:
    """The form with this name: one text, since the interpreter's table of attributes keeps each new one."""
    return form.format(name)


_changing = threading.Lock()
_inside: list[list[int]] = []  # the number that each open `blas_threads` block requested
_original = 1  # the number before the first of these blocks


@contextlib.contextmanager
def blas_threads(number: int) -> Iterator[bool]:
    """Inside the block, a BLAS call uses this many threads. Yields whether that could be set.

    The number holds for the whole process. If several Python threads are in such blocks, the last one's number holds.
    """
    try:
        blas = OpenBLAS()
    except OSError:
        try:
            import threadpoolctl  # supports other BLAS libraries
        except ImportError:
            yield False
            return
        with threadpoolctl.threadpool_limits(number, "blas") as limits:
            yield bool(limits.get_original_num_threads()["blas"])
        return
    global _original
    with _changing:
        own = [number]  # an object of its own: blocks with the same number stay distinct
        _inside.append(own)
        if len(_inside) == 1:
            _original = blas.threads
        blas.threads = number
    try:
        yield True
    finally:
        with _changing:  # the last block to end restores the original number
            _inside[:] = [other for other in _inside if other is not own]
            blas.threads = _inside[-1][0] if _inside else _original


def threads_of_blas() -> int:
    """The number of threads of a matrix product now; 1 if it is unknown."""
    return min((blas["num_threads"] or 1 for blas in blas_facts()), default=1)


def side_by_side(function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
    """[function(item) for item in items], by several threads at once; the calls must not depend on each other.

    There are as many threads as one matrix product may use, up to MOST, and BLAS has one in each. So a program on a
    busy machine does not wait until all threads of a product have had their turn, and elementwise work is shared too.
    The calls begin in the order of the items. After an error no further call begins.
    """
    items = list(items)
    threads = min(MOST, len(items))
    if threads < 2 or (threads := min(threads, threads_of_blas())) < 2:
        return [function(item) for item in items]
    results: dict[int, _R] = {}
    left, turn = iter(enumerate(items)), threading.Lock()

    def work() -> None:
        while True:
            with turn:
                i, item = next(left, (None, None))
            if i is None:
                return
            try:
                results[i] = function(cast(_T, item))
            except BaseException:
                with turn:
                    collections.deque(left, maxlen=0)  # nothing is left
                raise

    # A thread does not inherit context variables, such as those of no_grad and detect_anomaly.
    with blas_threads(1):
        helping = [_helpers().submit(contextvars.copy_context().run, work) for _ in range(threads - 1)]
        try:
            contextvars.copy_context().run(work)
        finally:  # no call goes on after this; a thread that is still busy with the calls of others is not needed
            helping = [future for future in helping if not future.cancel()]
            for future in helping:
                future.exception()
    for future in helping:
        future.result()
    return [results[i] for i in range(len(items))]


@functools.cache
def _helpers() -> "ThreadPoolExecutor":
    """The threads beside the one that calls `side_by_side`. They are kept, since to start one takes 0.1 ms."""
    from concurrent.futures import ThreadPoolExecutor  # takes long to load

    return ThreadPoolExecutor(MOST - 1, "side_by_side")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # a forked process has none of the threads


class Pace:
    """Gives BLAS one thread, for a number of steps, after a step in which its threads had to wait for a core.

    The threads of OpenBLAS wait for each other in a loop, so they use all their time, and on a quiet machine a step
    takes as many seconds of the processor as they have together. On a busy machine a thread that waits in its loop
    takes the core that another thread of the same product needs. One thread alone is then faster.
    """

    ENOUGH = 0.75  # the share of the threads' time in which they had a core
    FIRST, MOST = 16, 128  # steps with one thread, until all are tried again; twice as many after each try that fails

    def __init__(self) -> None:
        self._left, self._steps = 0, self.FIRST
        self._threads = threads_of_blas() if tuned() and _is_openblas() else 1

    @contextlib.contextmanager
    def step(self) -> Iterator[None]:
        """Around a step of many matrix products."""
        if self._left or self._threads < 2:
            self._left = max(0, self._left - 1)
            with blas_threads(1) if self._threads > 1 else contextlib.nullcontext():
                yield
            return
        began, used = time.perf_counter(), time.process_time()
        yield
        seconds, used = time.perf_counter() - began, time.process_time() - used
        if used < self.ENOUGH * self._threads * seconds:
            self._left, self._steps = self._steps, min(2 * self._steps, self.MOST)
        else:
            self._steps = self.FIRST


def _is_openblas() -> bool:
    try:
        OpenBLAS()
    except OSError:
        return False
    return True


def blas_facts() -> list[dict[str, Any]]:
    """Kind, version, kernel architecture and threads of NumPy's BLAS; empty if they are unknown."""
    try:
        blas = OpenBLAS()
    except OSError:
        try:
            import threadpoolctl
        except ImportError:
            return []
        names = ("internal_api", "version", "architecture", "num_threads")
        pools = (pool for pool in threadpoolctl.threadpool_info() if pool["user_api"] == "blas")
        return [{name: pool.get(name) for name in names} for pool in pools]
    facts = {"internal_api": "openblas", "version": blas.version, "architecture": blas.architecture}
    return [facts | {"num_threads": blas.threads}]
