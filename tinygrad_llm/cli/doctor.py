"""`tinygrad-llm doctor`: what this machine offers, and what would make it faster."""

import argparse
import json
from typing import Any

from tinygrad_llm import runtime
from tinygrad_llm.bench import machine
from tinygrad_llm.cli.options import add_json
from tinygrad_llm.cli.progress import fold

EXAMPLE = "tinygrad-llm doctor"

# The instructions that OpenBLAS's families of kernels use. Families that are not listed get no advice.
AVX512 = {"SkylakeX", "Cooperlake", "Sapphirerapids"}
AVX2 = {"Haswell", "Zen", "Excavator"}
LESS = {"Prescott", "Core2", "Nehalem", "Sandybridge", "Barcelona", "Bobcat", "Bulldozer", "Piledriver", "Steamroller"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    facts = machine.facts()
    speed = {"one": machine.measure(0.35, threads=1), "all": machine.measure(0.35)}
    advice = _advice(facts, speed)
    if args.json:
        print(json.dumps(facts | {"speed": speed, "advice": advice}))
        return 0
    for line in _words(facts, speed):
        print(fold(line, hang="    "))
    for line in advice or ["nothing to improve"]:
        print(fold(line, "* ", "  "))
    return 0


def _words(facts: dict[str, Any], speed: dict[str, dict[str, float]]) -> list[str]:
    by_us = dict.fromkeys(facts["chosen"], " (chosen by this package)")
    environment = (f"{name}={value}{by_us.get(name, '')}" for name, value in facts["environment"].items())
    optional = (f"{name} {version or '(not installed)'}" for name, version in facts["optional"].items())
    lines = [
        f"Python {facts['python']}, NumPy {facts['numpy']}, {facts['platform']}",
        f"threads: {_lock(facts)}",
        f"processor: {facts['cpu'] or 'unknown'}{_flags(facts)}",
        f"cores: {facts['cores']} core(s) for this process ({facts['affinity']} by affinity, quota {_quota(facts)})",
        f"memory available: {_gigabytes(facts['memory_available'])}",
    ]
    lines += [
        "BLAS: {internal_api} {version}, {architecture} kernels, {num_threads} thread(s)".format(**blas)
        for blas in facts["blas"]
    ] or [f"BLAS: {facts['blas_built']}, with which NumPy was built; its kernels and threads are unknown"]
    lines += [
        f"environment: {', '.join(environment) or 'nothing set for BLAS'}",
        f"tuning of BLAS and memory ({runtime.OFF}): {'on' if facts['tuning'] else 'off'}",
        f"optional: {', '.join(optional)}",
        f"{'speed now, float32':24}{'one thread':>16}{'all threads':>16}",
    ]
    for name, unit, what in (
        ("matmul_gflops", "GFLOP/s", "matrix product"),
        ("matvec_gbytes", "GB/s", "matrix times vector"),
        ("copy_gbytes", "GB/s", "copy"),
        ("triad_gbytes", "GB/s", "triad, a = b + s · c"),
    ):
        one, both = (f"{speed[threads][name]:.0f} {unit}" for threads in ("one", "all"))
        lines.append(f"{what:24}{one:>16}{both:>16}")
    return lines


def _lock(facts: dict[str, Any]) -> str:
    """What the interpreter's lock means for threads that share a model."""
    if not facts["free_threaded"]:
        return "one at a time runs Python (the interpreter's lock); NumPy's work runs side by side"
    if facts["interpreter_lock"]:
        return "a free-threaded Python whose lock is on: PYTHON_GIL=1 is set, or an imported package needs the lock"
    return "a free-threaded Python without the lock, on which nothing of this package relies"


def _flags(facts: dict[str, Any]) -> str:
    return f" with {'AVX-512' if _has_avx512(facts) else 'AVX2'}" if _has_avx2(facts) else ""


def _has_avx2(facts: dict[str, Any]) -> bool:
    return set(facts["flags"]) >= runtime.AVX2


def _has_avx512(facts: dict[str, Any]) -> bool:
    return set(facts["flags"]) >= runtime.AVX512


def _quota(facts: dict[str, Any]) -> str:
    return "none" if facts["quota"] is None else f"{facts['quota']:.2g}"


def _gigabytes(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"


def _advice(facts: dict[str, Any], speed: dict[str, dict[str, float]]) -> list[str]:
    """Advice, the most useful first."""
    lines = []
    lines += kernels(facts)
    for blas in facts["blas"]:
        lines += _threads(facts, blas["num_threads"])
    one, both = (speed[threads]["matmul_gflops"] for threads in ("one", "all"))
    if len(facts["blas"]) == 1 and min(facts["cores"], facts["blas"][0]["num_threads"]) > 1 and both < 1.3 * one:
        lines.append("all threads together are hardly faster than one: other programs use the cores; end them or wait")
    missing = [name for name, version in facts["optional"].items() if version is None]
    if missing:
        lines.append(f"for {', '.join(missing)} (progress bars, threads, pictures): pip install 'tinygrad_llm[app]'")
    return lines


def kernels(facts: dict[str, Any]) -> list[str]:
    """Advice if the BLAS kernels in use are slower than those the processor can run: the cause, and what to do."""
    return [line for blas in facts["blas"] for line in _kernels(facts, blas["architecture"])]


def _kernels(facts: dict[str, Any], architecture: str | None) -> list[str]:
    if _has_avx512(facts) and architecture in AVX2 | LESS:
        can, best = "AVX-512", "SkylakeX"
    elif _has_avx2(facts) and architecture in LESS:
        can, best = "AVX2", "Haswell"
    else:
        return []
    chosen = facts["openblas_coretype"]
    what = f"matrix products run {architecture} kernels, but this processor has {can}, which is up to twice as fast"
    ours = facts["amd_avx512"]  # on such a processor `prepare` chooses the kernels, because OpenBLAS may not know it
    if chosen is not None and chosen.lower() == architecture.lower():
        if ours and not facts["tuning"]:
            return [f"{what}. {runtime.KERNELS}={chosen} pins them: export {runtime.KERNELS}={best}"]
        return [
            f"{what}. {runtime.KERNELS}={chosen} in your environment pins them: unset {runtime.KERNELS} "
            f"(or once: env -u {runtime.KERNELS} tinygrad-llm …)"
        ]
    if facts["late"]:
        return [
            f"{what}. NumPy was loaded before tinygrad_llm, too late to choose kernels: import tinygrad_llm first, or "
            f"export {runtime.KERNELS}={best}"
        ]
    if ours and not facts["tuning"]:
        return [f"{what}. {runtime.OFF}=0 keeps it so: unset {runtime.OFF}, or export {runtime.KERNELS}={best}"]
    return [f"{what}: export {runtime.KERNELS}={best}, or install a newer NumPy"]


def _threads(facts: dict[str, Any], threads: int) -> list[str]:
    """Advice if BLAS has more or fewer threads than there are cores: the cause, and what to do."""
    cores = facts["cores"]
    name = next((name for name in runtime.THREADS if name in facts["environment"]), None)
    if threads > cores:
        cause = f"{name}={facts['environment'][name]} sets this" if name else "OpenBLAS does not know the quota"
        return [
            f"BLAS starts {threads} threads, but this process may use {cores} core(s), and they wait for each other "
            f"({cause}): export {name or runtime.THREADS[0]}={cores}"
        ]
    if threads < cores and name:
        return [f"{name}={facts['environment'][name]} keeps BLAS at {threads} of {cores} cores: unset {name}"]
    return []
