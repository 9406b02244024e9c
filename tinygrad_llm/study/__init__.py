"""For students: what an operation is, with its derivation, an example in numbers, and its proof."""

from tinygrad_llm.study.explain import Derivative, Example, Explanation, Subject, explain, subjects

__all__ = ["Derivative", "Example", "Explanation", "Subject", "explain", "subjects"]
