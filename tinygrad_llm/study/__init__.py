"""For students: what an operation is, with its derivation, an example in numbers, and its proof; and what a run did.

trace = study.trace(model, ids, decode=lambda i: tokenizer.decode([i]))
trace.save("trace.html")                # a page that steps through forward and backward
study.print_trace(trace)                # the same steps as text
study.plot_attention(trace)             # a matplotlib Figure
cache = study.run_with_cache(model, ids)
cache["transformer.h.0.attn.weights"], cache["transformer.h.0.attn.weights.grad"]
"""

from tinygrad_llm.study.examples import EXAMPLES, example
from tinygrad_llm.study.explain import Derivative, Example, Explanation, Subject, explain, subjects
from tinygrad_llm.study.plots import graph_dot, plot_attention, plot_gradient_flow, plot_graph, print_trace
from tinygrad_llm.study.recorder import record, run_with_cache
from tinygrad_llm.study.recording import Recording
from tinygrad_llm.study.trace import Trace, trace, trace_function

__all__ = [
    "EXAMPLES", "Derivative", "Example", "Explanation", "Recording", "Subject", "Trace", "example", "explain",
    "graph_dot", "plot_attention", "plot_gradient_flow", "plot_graph", "print_trace", "record",
    "run_with_cache", "subjects", "trace", "trace_function",
]  # fmt: skip
