"""Timing: our work against that of PyTorch, transformers or other tokenizers, alternating, on the same input.

`harness.py` starts one process per contender and lets them take turns. `worker.py` runs in each process and serves a
Subject, which is usually a `Work`. Each theme (train, decode, attention, optimizer, tokenizer) has a file with its
Cases and with our side of the work; `against_*.py` has the others' side. `limits.py` measures what the machine can do
at most, and `table.py` writes the figures down.

Figures depend on the machine, so only ratios from one run mean anything. A contender first gives an answer, and a ratio
is shown only if the answers agree. All contenders run with the same number of threads; what this package changes in its
own process (see `runtime`) does not reach the others.
"""

from tinygrad_llm.bench.harness import BenchError, Contender, Ratio, Timing, agree, alternate, ratio

__all__ = ["BenchError", "Contender", "Ratio", "Timing", "agree", "alternate", "ratio"]
