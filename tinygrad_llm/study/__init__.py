"""For students: what an operation is, with its derivation, an example in numbers, and its proof; and what a run did."""

from tinygrad_llm.study.explain import Derivative, Example, Explanation, Subject, explain, subjects
from tinygrad_llm.study.recorder import Recorder, record, run_with_cache
from tinygrad_llm.study.recording import Recording

__all__ = [
    "Derivative",
    "Example",
    "Explanation",
    "Recorder",
    "Recording",
    "Subject",
    "explain",
    "record",
    "run_with_cache",
    "subjects",
]
