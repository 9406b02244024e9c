"""Evaluation: how well a model knows a text, and which endings it prefers."""

from tinygrad_llm.evaluation.choices import Choice, ChoiceScore, read_choices, score_choices
from tinygrad_llm.evaluation.text import (
    TextScore,
    default_stride,
    next_tokens,
    score_file,
    score_tokens,
    scoring_windows,
    token_losses,
)

__all__ = [
    "Choice",
    "ChoiceScore",
    "TextScore",
    "default_stride",
    "next_tokens",
    "read_choices",
    "score_choices",
    "score_file",
    "score_tokens",
    "scoring_windows",
    "token_losses",
]
