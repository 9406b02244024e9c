"""Ours against theirs: timed in turn, each in a process of its own, on the same work.

`harness.py` starts the processes and takes turns; in each, `worker.py` asks a Subject, which is mostly a `Work`. A file
a theme says what is timed (its Cases) and how this package does it; how others do it stands in `against_*.py`.
"""

from tinygrad_llm.bench.harness import BenchError, Contender, Ratio, Timing, agree, alternate, ratio

__all__ = ["BenchError", "Contender", "Ratio", "Timing", "agree", "alternate", "ratio"]
