"""Models ↔ files: GPT-2's names, our own files and those of others, and downloads."""

from tinygrad_llm.weights.find import WEIGHTS
from tinygrad_llm.weights.pretrained import (
    FORMS,
    OtherModelWarning,
    PreTrainedModel,
    about_model,
    model_at,
    read_pretrained,
    write_pretrained,
)
from tinygrad_llm.weights.tokenizers import check_stated, find_tokenizer, fit, tokenizer_for, write_tokenizer

__all__ = [
    "FORMS", "WEIGHTS", "OtherModelWarning", "PreTrainedModel", "about_model", "check_stated", "find_tokenizer",
    "fit", "model_at", "read_pretrained", "tokenizer_for", "write_pretrained", "write_tokenizer",
]  # fmt: skip
