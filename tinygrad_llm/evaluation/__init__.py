"""Evaluation: how well a model predicts a text, which endings it prefers, and which token it expects next.

losses.py    ids → −ln p of each id, from windows that slide over them; the others use it
text.py      loss, perplexity and bits per byte of a text or a token file
choices.py   multiple choice: which of four endings is likeliest
prompts.py   the likeliest next tokens after a prompt; tasks that are solved by prompting alone
judge.py     another model, behind an endpoint that the user names, scores answers
"""

from tinygrad_llm.evaluation.choices import Choice, ChoiceScore, read_choices, score_choices
from tinygrad_llm.evaluation.losses import default_stride, score_tokens, scoring_windows, token_losses
from tinygrad_llm.evaluation.prompts import (
    FewShotScore,
    PromptTask,
    check_shots,
    few_shot_items,
    next_tokens,
    read_prompts,
    score_prompts,
    standard_error,
)
from tinygrad_llm.evaluation.text import TextScore, score_file

__all__ = [
    "Choice", "ChoiceScore", "FewShotScore", "PromptTask", "TextScore", "check_shots", "default_stride",
    "few_shot_items", "next_tokens", "read_choices", "read_prompts", "score_choices", "score_file",
    "score_prompts", "score_tokens", "scoring_windows", "standard_error", "token_losses",
]  # fmt: skip
