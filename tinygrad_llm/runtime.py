"""The machine: which BLAS kernels and how many threads NumPy uses here, and how memory is handed out.

OpenBLAS, which NumPy's wheels carry, chooses its matrix-product kernels from a table of processors it knows. On AMD
processors newer than its table it falls back to AVX2 although the processor has AVX-512, and runs at half the speed.
`prepare` names the AVX-512 kernels for it, which works only before NumPy is loaded.

The C library of Linux gives large blocks of memory back to the system as soon as they are free, and each new array then
pays for every page of it again. A training step makes and drops the same arrays over and over; `prepare` tells it to
keep what it has.
"""

import ctypes
import os
import platform
import sys
from pathlib import Path
from typing import Any

OFF = "TINYGRAD_LLM_TUNING"  # set it to 0, and `prepare` does nothing
_NEEDED = {"avx512f", "avx512cd", "avx512bw", "avx512dq", "avx512vl"}  # what OpenBLAS's SkylakeX kernels use

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # <malloc.h>


def prepare(cpuinfo: Path = Path("/proc/cpuinfo")) -> None:
    """Choose OpenBLAS's AVX-512 kernels where they help, and let freed memory be used again.

    The kernels: on an AMD processor that has AVX-512, before NumPy is loaded. An OPENBLAS_CORETYPE that is already set
    is never changed. TINYGRAD_LLM_TUNING=0 switches all of it off.
    """
    if os.environ.get(OFF) == "0":
        return
    _keep_freed_memory()
    if "numpy" in sys.modules or "OPENBLAS_CORETYPE" in os.environ:
        return
    if has_amd_avx512(cpuinfo):
        os.environ["OPENBLAS_CORETYPE"] = "SkylakeX"


def _keep_freed_memory() -> None:
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library than glibc
        return
    most = 1 << 30
    mallopt(_M_MMAP_THRESHOLD, most)
    mallopt(_M_TRIM_THRESHOLD, most)


def has_amd_avx512(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this is an AMD processor with AVX-512. Intel's are in OpenBLAS's table; other systems: False."""
    try:
        text = cpuinfo.read_text()
    except OSError:
        return False
    lines = {key.strip(): value.split() for key, _, value in (line.partition(":") for line in text.splitlines())}
    return lines.get("vendor_id") == ["AuthenticAMD"] and set(lines.get("flags", ())) >= _NEEDED


def cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def facts() -> dict[str, Any]:
    """What `tinygrad-llm doctor` shows: versions, cores, BLAS and the optional packages."""
    from importlib import metadata

    import numpy as np

    optional: dict[str, str | None] = {}
    for name in ("tqdm", "matplotlib", "threadpoolctl"):
        try:
            optional[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            optional[name] = None
    blas: list[dict[str, Any]] = []
    if optional["threadpoolctl"]:
        import threadpoolctl

        blas = [
            {key: pool.get(key) for key in ("internal_api", "version", "architecture", "num_threads")}
            for pool in threadpoolctl.threadpool_info()
        ]
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "cores": cores(),
        "amd_avx512": has_amd_avx512(),
        "tuning": os.environ.get(OFF) != "0",
        "openblas_coretype": os.environ.get("OPENBLAS_CORETYPE"),
        "blas": blas,
        "optional": optional,
    }
