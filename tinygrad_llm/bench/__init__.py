"""Ours against theirs: timed in turn, each in a process of its own, on the same work."""

from tinygrad_llm.bench.harness import BenchError, Contender, Ratio, Timing, alternate, machine, ratio

__all__ = ["BenchError", "Contender", "Ratio", "Timing", "alternate", "machine", "ratio"]
