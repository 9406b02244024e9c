"""Generation: the next token, the next one after it, and the text they spell."""

from tinygrad_llm.generation.cache import KVCache
from tinygrad_llm.generation.sampling import (
    LanguageModel,
    Prompt,
    check_sampling,
    generate,
    next_token_probs,
    stream,
    window_start,
)
from tinygrad_llm.generation.text import start_ids, write

__all__ = [
    "KVCache",
    "LanguageModel",
    "Prompt",
    "check_sampling",
    "generate",
    "next_token_probs",
    "start_ids",
    "stream",
    "window_start",
    "write",
]
