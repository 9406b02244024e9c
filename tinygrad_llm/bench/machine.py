"""Facts about this machine, and its speed now."""

import contextlib
import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any

import numpy as np

from tinygrad_llm import runtime


def measure(seconds: float = 0.8, threads: int | None = None) -> dict[str, float]:
    """The highest speeds that this machine reaches now, as a bound for programs that consist of matrix products.

    Each speed is the best of all repetitions that fit into its share of `seconds`. Preparing the operands takes another
    0.1 s. Other programs that run at the same time can only reduce a speed.

    Args:     threads: for BLAS; None leaves them unchanged.
    Returns:  matmul_gflops: 10⁹ multiplications and additions per second, in the best of three float32 products.
              matvec_gbytes: 10⁹ bytes of weights read per second, by (50257, 768) float32 times a vector.
              copy_gbytes: 10⁹ bytes read and written per second, by a copy of 77 MB, which always uses one thread.
    """
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
            stack.enter_context(runtime.blas_threads(threads))
        share = seconds / 5
        return {
            "matmul_gflops": max(work / _best(run, share) for work, run in products) / 1e9,
            "matvec_gbytes": matrix.nbytes / _best(lambda: matrix @ vector, share) / 1e9,
            "copy_gbytes": 2 * lower.nbytes / _best(lambda: np.copyto(upper, lower), share) / 1e9,
        }


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
