"""`tinygrad-llm doctor`: what this machine offers, and what would make it better."""

import argparse
import json
import time
from typing import Any

import numpy as np

from tinygrad_llm import runtime
from tinygrad_llm.cli.options import add_json

EXAMPLE = "tinygrad-llm doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    facts = runtime.facts()
    facts["matmul_gflops"] = round(_matmul_rate(), 1)
    advice = _advice(facts)
    if args.json:
        print(json.dumps(facts | {"advice": advice}))
        return 0
    print(f"Python {facts['python']}, NumPy {facts['numpy']}, {facts['platform']}")
    print(f"{facts['cores']} core(s) for this process; matrix products: {facts['matmul_gflops']:.0f} GFLOP/s (float32)")
    for blas in facts["blas"]:
        print(
            f"{blas['internal_api']} {blas['version']}: {blas['architecture']} kernels, {blas['num_threads']} thread(s)"
        )
    print(f"tuning of BLAS and memory ({runtime.OFF}): {'on' if facts['tuning'] else 'off'}")
    for name, version in facts["optional"].items():
        print(f"{name}: {version or 'not installed'}")
    for line in advice:
        print(f"* {line}")
    return 0


def _matmul_rate() -> float:
    """Billions of multiplications and additions a second, in a float32 matrix product: the best of a second."""
    n = 1024
    a = np.ones((n, n), np.float32)
    best, end = float("inf"), time.perf_counter() + 1.0
    while time.perf_counter() < end:
        began = time.perf_counter()
        _ = a @ a
        best = min(best, time.perf_counter() - began)
    return 2 * n**3 / best / 1e9


def _advice(facts: dict[str, Any]) -> list[str]:
    lines = []
    missing = [name for name, version in facts["optional"].items() if version is None]
    if missing:
        lines.append(f"for {', '.join(missing)} (progress bars, threads, pictures): pip install 'tinygrad_llm[app]'")
    chosen = facts["openblas_coretype"]
    if facts["amd_avx512"] and chosen not in (None, "SkylakeX", "Cooperlake", "Sapphirerapids"):
        lines.append(
            f"OPENBLAS_CORETYPE={chosen} is set, but this processor has AVX-512: "
            "export OPENBLAS_CORETYPE=SkylakeX for faster matrix products"
        )
    return lines
