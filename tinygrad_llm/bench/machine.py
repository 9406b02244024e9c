"""Facts about this machine, and its speed now."""

import contextlib
import os
import platform
import sys
import sysconfig
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinygrad_llm import runtime

BANDWIDTHS = ("matvec_gbytes", "copy_gbytes", "triad_gbytes")
STRIPE = 1 << 16  # numbers: three such stretches stay in a core's cache between the two steps of a triad


def measure(seconds: float = 0.8, threads: int | None = None) -> dict[str, float]:
    """The highest speeds that this machine reaches now, as a bound for programs that consist of matrix products.

    Each speed is the best of all repetitions that fit into its share of `seconds`. Preparing the operands takes another
    0.1 s. Other programs that run at the same time can only reduce a speed.

    Args:     threads: how many work; None: one for each core, and BLAS's own number.
    Returns:  matmul_gflops: 10⁹ multiplications and additions per second, in the best of three float32 products.
              matvec_gbytes: 10⁹ bytes of weights read per second, by (50257, 768) float32 times a vector.
              copy_gbytes: 10⁹ bytes read and written per second, by a copy of 77 MB, each thread its part.
              triad_gbytes: the same for a = b + s · c, three arrays of 51 MB, in stretches that fit the cache.
    """
    matrix = np.ones((50257, 768), np.float32)
    vector = np.ones(768, np.float32)
    products = []
    for m, k, n in ((512, 512, 512), (1024, 1024, 1024), (2048, 384, 1536)):
        a, b, out = np.ones((m, k), np.float32), np.ones((k, n), np.float32), np.empty((m, n), np.float32)
        products.append((2 * m * k * n, lambda a=a, b=b, out=out: np.matmul(a, b, out=out)))
    workers = threads or runtime.cores()
    with contextlib.ExitStack() as stack:
        if threads is not None:
            stack.enter_context(runtime.blas_threads(threads))
        pool = stack.enter_context(ThreadPoolExecutor(workers))

        def by_all(work: Callable[..., object], arrays: Sequence[NDArray[Any]]) -> Callable[[], object]:
            parts = list(zip(*(np.array_split(array, workers) for array in arrays), strict=True))
            if workers == 1:
                return lambda: work(*parts[0])
            return lambda: list(pool.map(lambda part: work(*part), parts))

        flat = matrix.reshape(-1)
        halves = [flat[: flat.size // 2], flat[flat.size // 2 : flat.size // 2 * 2]]
        thirds = [flat[i * (flat.size // 3) : (i + 1) * (flat.size // 3)] for i in range(3)]
        share = seconds / 6
        return {
            "matmul_gflops": max(work / _best(run, share) for work, run in products) / 1e9,
            "matvec_gbytes": matrix.nbytes / _best(lambda: matrix @ vector, share) / 1e9,
            "copy_gbytes": sum(part.nbytes for part in halves) / _best(by_all(np.copyto, halves), share) / 1e9,
            "triad_gbytes": sum(part.nbytes for part in thirds) / _best(by_all(_triad, thirds), share) / 1e9,
        }


def _triad(a: NDArray[Any], b: NDArray[Any], c: NDArray[Any]) -> None:
    """a = b + c / 2, in one pass over memory."""
    for start in range(0, a.size, STRIPE):
        part = slice(start, start + STRIPE)
        np.multiply(c[part], 0.5, out=a[part])
        a[part] += b[part]


def _best(run: Callable[[], object], seconds: float) -> float:
    """The time of the fastest call, among as many calls as fit into `seconds`, but at least one."""
    best, end = float("inf"), time.perf_counter() + seconds
    while True:
        began = time.perf_counter()
        run()
        now = time.perf_counter()
        best = min(best, now - began)
        if now >= end:
            return best


def facts() -> dict[str, Any]:
    """Versions, processor, cores, memory, BLAS and optional packages: everything that `tinygrad-llm doctor` shows."""
    optional: dict[str, str | None] = {}
    for name in ("tqdm", "matplotlib", "threadpoolctl"):
        try:
            optional[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            optional[name] = None
    config: Any = np.show_config(mode="dicts")
    built = config["Build Dependencies"]["blas"]
    about = runtime.processor()
    flags = set(about.get("flags", "").split())
    families = (runtime.OFF, "OPENBLAS_", "GOTO_", "OMP_", "MKL_", "BLIS_", "VECLIB_")
    return {
        "python": platform.python_version(),
        "free_threaded": bool(sysconfig.get_config_var("Py_GIL_DISABLED")),
        "interpreter_lock": getattr(sys, "_is_gil_enabled", lambda: True)(),
        "platform": platform.platform(),
        "numpy": np.__version__,
        "cpu": about.get("model name"),
        "flags": sorted(flags & (runtime.AVX2 | runtime.AVX512)),
        "amd_avx512": runtime.has_amd_avx512(),
        "cores": runtime.cores(),
        "affinity": runtime.affinity(),
        "quota": runtime.quota(),
        "memory_available": runtime.memory_available(),
        "blas": runtime.blas_facts(),
        "blas_built": f"{built.get('name')} {built.get('version')}",
        "tuning": runtime.tuned(),
        "late": runtime.late,
        "openblas_coretype": os.environ.get(runtime.KERNELS),
        "environment": {name: value for name, value in sorted(os.environ.items()) if name.startswith(families)},
        "chosen": runtime.chosen,
        "optional": optional,
    }
