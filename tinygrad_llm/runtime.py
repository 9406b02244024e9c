"""The machine: which BLAS kernels and how many threads NumPy uses here, and how memory is handed out.

OpenBLAS, which NumPy's wheels carry, chooses its matrix-product kernels from a table of processors it knows. On AMD
processors newer than its table it falls back to AVX2 although the processor has AVX-512, and runs at half the speed.
`prepare` names the AVX-512 kernels for it, which works only before NumPy is loaded.

OpenBLAS starts one thread for each core that this process may be placed on. A container is often given less than that:
a quota of processor time, which all threads draw from, and when it is used up all of them stand still. `prepare` asks
for as many threads as the quota feeds.

The C library of Linux gives large blocks of memory back to the system as soon as they are free, and each new array then
pays for every page of it again. A training step makes and drops the same arrays over and over; `prepare` tells it to
keep what it has.
"""

import contextlib
import ctypes
import importlib
import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

OFF = "TINYGRAD_LLM_TUNING"  # set it to 0, and `prepare` does nothing
KERNELS = "OPENBLAS_CORETYPE"
THREADS = ("OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "OMP_NUM_THREADS")  # OpenBLAS takes the first that is set
ROOT = Path("/")  # where the files of Linux are looked for

AVX2 = {"avx2", "fma"}
AVX512 = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}  # what OpenBLAS's SkylakeX kernels use

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # <malloc.h>

# How MPI's launchers (Open MPI; MPICH, Intel MPI and Slurm's PMI) tell a process its rank, and how many there are.
_LAUNCHERS = (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE"), ("PMIX_RANK", ""))

late = False  # whether NumPy was loaded before `prepare` could choose
chosen: dict[str, str] = {}  # the environment variables that `prepare` set


def prepare(root: Path = ROOT) -> None:
    """Choose OpenBLAS's kernels and threads where it would choose worse, and let freed memory be used again.

    The kernels: those for AVX-512, on an AMD processor that has it. The threads: fewer than OpenBLAS would start, where
    a quota allows fewer cores. Both before NumPy is loaded, and neither where the user's environment sets it.
    TINYGRAD_LLM_TUNING=0 switches all of it off.
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
    """Whether `prepare` may do anything: TINYGRAD_LLM_TUNING is not 0, false, no or off."""
    return os.environ.get(OFF, "").strip().lower() not in ("0", "false", "no", "off")


def _keep_freed_memory() -> None:
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library than glibc
        return
    for most in (1 << 30, 32 << 20):  # the second is all that some versions allow
        if mallopt(_M_MMAP_THRESHOLD, most):
            break
    mallopt(_M_TRIM_THRESHOLD, 1 << 30)
    mallopt(_M_ARENA_MAX, 1)  # what one thread has freed is there for the others


# What the machine is


def processor(root: Path = ROOT) -> dict[str, str]:
    """What Linux says of the first processor in /proc/cpuinfo, by its names there; elsewhere nothing."""
    about = {}
    with contextlib.suppress(OSError), open(root / "proc/cpuinfo", encoding="utf-8", errors="replace") as lines:
        for line in lines:
            key, colon, value = line.partition(":")
            if not colon:  # an empty line: the next would be another, and hundreds of them take a while
                break
            about[key.strip()] = value.strip()
    return about


def has_amd_avx512(root: Path = ROOT) -> bool:
    """Whether this is an AMD processor with AVX-512. Intel's are in OpenBLAS's table; other systems: False."""
    about = processor(root)
    return about.get("vendor_id") == "AuthenticAMD" and set(about.get("flags", "").split()) >= AVX512


def affinity() -> int:
    """On how many cores this process may be placed."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(root: Path = ROOT) -> float | None:
    """How many cores' time the control groups of Linux give this process; None: as much as there is.

    Source:   Linux, admin-guide/cgroup-v2 (cpu.max), scheduler/sched-bwc (cpu.cfs_quota_us, cpu.cfs_period_us).
    """
    found = []
    for folder in _groups("cpu", root):
        words = _read(folder / "cpu.max").split()  # version 2: "QUOTA PERIOD" or "max PERIOD"
        words = words or _read(folder / "cpu.cfs_quota_us").split() + _read(folder / "cpu.cfs_period_us").split()
        with contextlib.suppress(ValueError):  # "max", or none of these files
            limit, period = map(int, words)
            if limit > 0 and period > 0:  # version 1 says -1 for "max"
                found.append(limit / period)
    return min(found, default=None)


def cores(root: Path = ROOT) -> int:
    """How many cores this process may use: those it may be placed on, or fewer by quota; a part of one counts."""
    allowed = quota(root)
    return affinity() if allowed is None else max(1, min(affinity(), math.ceil(allowed)))


def memory_available(root: Path = ROOT) -> int | None:
    """How many bytes this process can still take without swapping, by system and control groups; None: unknown."""
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
                found.append(max(0, free + int(fields.get(cache, 0))))  # files in memory make room at once
    return min(found, default=None)


def _groups(controller: str, root: Path) -> Iterator[Path]:
    """The folders of the control groups that bind this process: its own, and all around it.

    In a container the name of its own group may be the host's, which is not to be seen from inside; the outermost
    folder is then the container's.
    """
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        top = root / "sys/fs/cgroup" / controllers  # version 2 names no controllers
        names = [name for name in path.split("/") if name not in ("", "..")]
        yield from (top.joinpath(*names[:n]) for n in range(len(names), -1, -1))


def _read(path: Path) -> str:
    """The text of a file of the system; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def started() -> tuple[int, int]:
    """The rank of this process and how many there are, as the environment says; (0, 1) without `mpiexec`.

    Where it says no more than that there is a launcher, the number is 0.
    """
    for rank, size in _LAUNCHERS:
        with contextlib.suppress(KeyError, ValueError):
            return int(os.environ[rank]), int(os.environ[size]) if size else 0
    return 0, 1


def peak_memory(status: Path = Path("/proc/self/status")) -> int | None:
    """The most memory that this program has held at once, in bytes; None where the system does not tell.

    Linux's ru_maxrss begins with what the process that started this one held; VmHWM does not.
    """
    try:
        descriptor = os.open(status, os.O_RDONLY)  # not open(): a run asks often, and each would leave its name behind
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
    return peak if sys.platform == "darwin" else peak * 1024  # elsewhere it is in KiB


# What NumPy's BLAS is


class OpenBLAS:
    """The OpenBLAS that NumPy is linked with.

    Raises:   OSError: it cannot be reached, or NumPy uses another BLAS.
    """

    def __init__(self) -> None:
        # A name is looked up in this library and in those that it is linked with; not so on Windows.
        self._library = ctypes.CDLL(importlib.import_module("numpy._core._multiarray_umath").__file__)
        # NumPy's wheels rename all functions, so that two OpenBLAS in one process do not meet.
        for form in ("scipy_openblas_{}64_", "scipy_openblas_{}", "openblas_{}64_", "openblas_{}"):
            if hasattr(self._library, form.format("get_config")):
                self._form = form
                return
        raise OSError("NumPy is not linked with OpenBLAS")

    def _function(self, name: str, result: Any) -> Callable[..., Any]:
        function = getattr(self._library, self._form.format(name))
        function.restype = result
        return function  # type: ignore[no-any-return]

    @property
    def version(self) -> str:
        words: list[str] = self._function("get_config", ctypes.c_char_p)().decode().split()
        return words[1]

    @property
    def architecture(self) -> str:
        """For which processor its kernels were written."""
        name: bytes = self._function("get_corename", ctypes.c_char_p)()
        return name.decode()

    @property
    def threads(self) -> int:
        """How many threads one matrix product uses; setting it holds for the whole process."""
        return int(self._function("get_num_threads", ctypes.c_int)())

    @threads.setter
    def threads(self, number: int) -> None:
        self._function("set_num_threads", None)(ctypes.c_int(number))


_changing = threading.Lock()
_inside: list[int] = []  # what those within `blas_threads` asked for
_original = 1  # what it was before the first of them


@contextlib.contextmanager
def blas_threads(number: int) -> Iterator[bool]:
    """Inside, a BLAS call uses this many threads. Gives whether that could be set.

    It holds for the whole process: where several threads of Python do this at once, the last one's number counts.
    """
    try:
        blas = OpenBLAS()
    except OSError:
        try:
            import threadpoolctl  # knows other libraries too
        except ImportError:
            yield False
            return
        with threadpoolctl.threadpool_limits(number, "blas") as limits:
            yield bool(limits.get_original_num_threads()["blas"])
        return
    global _original
    with _changing:
        _inside.append(number)
        if len(_inside) == 1:
            _original = blas.threads
        blas.threads = number
    try:
        yield True
    finally:
        with _changing:  # the last to leave puts back what the first found
            _inside.remove(number)
            blas.threads = _inside[-1] if _inside else _original


def blas_facts() -> list[dict[str, Any]]:
    """Kind, version, kernel architecture and threads of NumPy's BLAS; empty where they cannot be found out."""
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


def measure(seconds: float = 0.8, threads: int | None = None) -> dict[str, float]:
    """The speed limits of this machine now: what a program made of matrix products could reach at best.

    Each is the best of what fits into its share of `seconds`; making the operands takes another 0.1 s. Programs that
    run at the same time can only make it less.

    Args:     threads: for BLAS; None: as it is.
    Returns:  matmul_gflops: 10⁹ multiplications and additions a second in the best of three float32 products.
              matvec_gbytes: 10⁹ bytes of weights read a second, (50257, 768) float32 times a vector.
              copy_gbytes: 10⁹ bytes read and written a second by a copy of 77 MB, which has one thread always.
    """
    import numpy as np

    matrix = np.ones((50257, 768), np.float32)
    half = len(matrix) // 2
    lower, upper = matrix[:half], matrix[half : 2 * half]
    vector = np.ones(768, np.float32)
    products = []
    for m, k, n in ((512, 512, 512), (1024, 1024, 1024), (2048, 384, 1536)):
        a, b, out = np.ones((m, k), np.float32), np.ones((k, n), np.float32), np.empty((m, n), np.float32)
        products.append((2 * m * k * n, lambda a=a, b=b, out=out: np.matmul(a, b, out=out)))
    with contextlib.ExitStack() as stack:
        if threads is not None:
            stack.enter_context(blas_threads(threads))
        share = seconds / 5
        return {
            "matmul_gflops": max(work / _best(run, share) for work, run in products) / 1e9,
            "matvec_gbytes": matrix.nbytes / _best(lambda: matrix @ vector, share) / 1e9,
            "copy_gbytes": 2 * lower.nbytes / _best(lambda: np.copyto(upper, lower), share) / 1e9,
        }


def _best(run: Callable[[], object], seconds: float) -> float:
    """The time that the fastest of the calls takes, of as many as fit; of one at least."""
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        began = time.perf_counter()
        run()
        now = time.perf_counter()
        best = min(best, now - began)
        if now >= end:
            return best


def facts() -> dict[str, Any]:
    """What `tinygrad-llm doctor` shows: versions, processor, cores, memory, BLAS and the optional packages."""
    import platform
    from importlib import metadata

    import numpy as np

    optional: dict[str, str | None] = {}
    for name in ("tqdm", "matplotlib", "threadpoolctl"):
        try:
            optional[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            optional[name] = None
    config: Any = np.show_config(mode="dicts")
    built = config["Build Dependencies"]["blas"]
    about = processor()
    flags = set(about.get("flags", "").split())
    families = (OFF, "OPENBLAS_", "GOTO_", "OMP_", "MKL_", "BLIS_", "VECLIB_")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "cpu": about.get("model name"),
        "flags": sorted(flags & (AVX2 | AVX512)),
        "amd_avx512": has_amd_avx512(),
        "cores": cores(),
        "affinity": affinity(),
        "quota": quota(),
        "memory_available": memory_available(),
        "blas": blas_facts(),
        "blas_built": f"{built.get('name')} {built.get('version')}",
        "tuning": tuned(),
        "late": late,
        "openblas_coretype": os.environ.get(KERNELS),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(families)},
        "chosen": chosen,
        "optional": optional,
    }
